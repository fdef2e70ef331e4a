"""All streams of a connection: who asks about which, how many there are, and what their owner does with them."""

from collections import deque
from collections.abc import Callable, Iterable

from attrs import define, field, frozen

from coreflow.domain.errors import PortError

from .answering import AnsweringStream, packet_of_unknown
from .asking import AskingStream, Question
from .envelope import Envelope, StreamRef, Streams, answer_text
from .errors import CannotDeliver, StreamBroken, TooLarge, TooMany
from .events import Event, Ignored, Send, StreamFailed
from .limits import Limits, Timing
from .packets import parse_packet
from .queues import CLOSING_ITEM, Budget, Queue

_REMEMBERED = 256
"""Streams of ours that are over, whose late echoes we still recognise."""


@frozen
class Chunk:
    """Bytes."""

    data: bytes = field(repr=False)


@frozen
class Value:
    """A chunk that is not bytes. Real peers allow any JSON there (captured)."""

    json: object = field(repr=False)


@frozen
class End:
    """The stream ended properly. The connection has forgotten it."""


@frozen
class Nothing:
    """Nothing yet: wait for `StreamReadable`."""


Item = Chunk | Value | End | Nothing


@define(eq=False)
class _Draft:
    """A stream of ours that is not yet part of any message."""

    outbox: Queue
    reads: bool
    writes: bool = True
    finishing: bool = False
    was_full: bool = False


_Stream = AskingStream | AnsweringStream | _Draft


class StreamTable:
    """The streams of one connection."""

    def __init__(self, new_id: Callable[[], str], limits: Limits, timing: Timing) -> None:
        self._new_id = new_id
        self._limits = limits
        self._timing = timing
        self._budget = Budget(limits.queued_bytes)
        self._drafts: dict[str, _Draft] = {}
        self._asking: dict[str, AskingStream] = {}
        self._answering: dict[str, AnsweringStream] = {}
        self._questions: dict[str, Question] = {}
        self._over: deque[str] = deque(maxlen=_REMEMBERED)

    def __len__(self) -> int:
        return len(self._drafts) + len(self._asking) + len(self._answering)

    @property
    def queued_bytes(self) -> int:
        """Bytes queued in all streams."""
        return self._budget.used

    # --- streams begin

    def create(self, *, reads: bool) -> StreamRef:
        """A stream of ours, to be put into a request or an answer."""
        self._check_room(1)
        ref = StreamRef(self._new_id())
        self._drafts[ref.id] = _Draft(self._queue(), reads)
        return ref

    def check_drafts(self, refs: Iterable[StreamRef]) -> None:
        """Raise unless all of these are ours to send."""
        for ref in refs:
            if ref.id not in self._drafts:
                raise StreamBroken("a stream can be sent once, on the connection that created it")

    def ask(self, refs: Iterable[StreamRef], now: float, out: list[Event]) -> None:
        """These streams of ours went out with a request: we ask."""
        for ref in refs:
            draft = self._drafts.pop(ref.id)
            stream = self._new_asking(ref, draft.outbox, reads=draft.reads)
            stream.writes, stream.finishing, stream.was_full = True, draft.finishing, draft.was_full
            stream.start(now, out)

    def answer_for(self, refs: Iterable[StreamRef], now: float) -> None:
        """These streams of ours went out with an answer: the peer asks."""
        for ref in refs:
            draft = self._drafts.pop(ref.id)
            stream = self._new_answering(ref, draft.outbox, now)
            stream.writes, stream.finishing, stream.was_full = True, draft.finishing, draft.was_full

    def accept(
        self, found: Streams, now: float, out: list[Event], *, asking: bool, lossy: bool
    ) -> tuple[StreamRef, ...]:
        """Take the streams found in a message of the peer. Raises, and takes none, if that is not possible."""
        if found.newer:
            raise CannotDeliver(
                "the peer uses the newer stream protocol (virtual-stream-v1), which we do not speak"
            )
        mine: dict[str, AskingStream] | dict[str, AnsweringStream] = (
            self._asking if asking else self._answering
        )
        other: dict[str, AskingStream] | dict[str, AnsweringStream] = (
            self._answering if asking else self._asking
        )
        fresh = [name for name in found.ids if name not in mine]
        if any(name in other or name in self._drafts for name in fresh):
            raise StreamBroken("a stream id is in use already, with the roles exchanged")
        self._check_room(len(fresh))
        for name in fresh:
            if asking:
                self._new_asking(StreamRef(name), self._queue(), reads=True, lossy=lossy).start(now, out)
            else:
                self._new_answering(StreamRef(name), self._queue(), now)
        return tuple(map(StreamRef, found.ids))

    def _new_asking(self, ref: StreamRef, outbox: Queue, *, reads: bool, lossy: bool = False) -> AskingStream:
        stream = self._asking[ref.id] = AskingStream(
            ref=ref,
            limits=self._limits,
            timing=self._timing,
            new_id=self._new_id,
            questions=self._questions,
            inbox=self._queue(),
            outbox=outbox,
            reads=reads,
            lossy=lossy,
        )
        return stream

    def _new_answering(self, ref: StreamRef, outbox: Queue, now: float) -> AnsweringStream:
        stream = self._answering[ref.id] = AnsweringStream(
            ref=ref, timing=self._timing, inbox=self._queue(), outbox=outbox, heard_at=now
        )
        return stream

    def _queue(self) -> Queue:
        return Queue(self._limits, self._budget)

    def _check_room(self, more: int) -> None:
        if len(self) + more > self._limits.streams:
            raise TooMany(f"more than {self._limits.streams} streams are open on this connection")

    # --- what the owner does

    def can_write(self, ref: StreamRef) -> bool:
        """The stream has room for a chunk."""
        stream = self._find(ref)
        return not stream.finishing and not stream.outbox.full

    def write(self, ref: StreamRef, data: bytes, now: float, out: list[Event]) -> None:
        """Queue a chunk."""
        stream = self._find(ref)
        if stream.finishing:
            raise StreamBroken("a finished stream takes no more chunks")
        if len(data) > self._limits.own_chunk_bytes:
            raise TooLarge(
                f"a chunk of {len(data)} bytes is over the limit of {self._limits.own_chunk_bytes}"
            )
        if stream.outbox.full:
            raise TooMany("the stream is full: wait until it is writable")
        stream.outbox.put(bytes(data))
        stream.writes = True
        stream.was_full = stream.outbox.full
        self._pump(stream, now, out)

    def finish(self, ref: StreamRef, now: float, out: list[Event]) -> None:
        """Queue the closing marker."""
        stream = self._find(ref)
        if not stream.finishing:
            stream.writes = stream.finishing = True
            stream.outbox.put(CLOSING_ITEM)
            self._pump(stream, now, out)

    def take(self, ref: StreamRef, now: float, out: list[Event]) -> Item:
        """Take the oldest chunk."""
        stream = self._find(ref)
        if isinstance(stream, _Draft) or not stream.inbox:
            return Nothing()
        item = stream.inbox.get()
        if isinstance(stream, AskingStream):
            stream.resume(now, out)
        self._bury(stream)
        if item is CLOSING_ITEM:
            return End()
        return Chunk(item) if isinstance(item, bytes) else Value(item)

    def abort(self, refs: Iterable[StreamRef], out: list[Event], error: PortError | None = None) -> None:
        """Give streams up, and tell the peer where it does not ask by itself. With an `error`, tell the owner, too."""
        for ref in refs:
            stream = self._drafts.pop(ref.id, None) or self._asking.get(ref.id) or self._answering.get(ref.id)
            if stream is None:
                continue
            if error is not None:
                out.append(StreamFailed(ref, error))
            if isinstance(stream, _Draft):
                stream.outbox.clear()
                continue
            if isinstance(stream, AskingStream) and stream.active:
                stream.farewell(out)
            stream.drop()
            self._bury(stream)

    def _find(self, ref: StreamRef) -> _Stream:
        stream = self._drafts.get(ref.id) or self._asking.get(ref.id) or self._answering.get(ref.id)
        if stream is None:
            raise StreamBroken("there is no such stream (any more)")
        return stream

    def _all(self) -> list[AskingStream | AnsweringStream]:
        return [*self._asking.values(), *self._answering.values()]

    def _pump(self, stream: _Stream, now: float, out: list[Event]) -> None:
        if isinstance(stream, AskingStream):
            stream.pump(now, out)

    def _bury(self, stream: AskingStream | AnsweringStream) -> None:
        if not stream.done:
            return
        if isinstance(stream, AskingStream):
            del self._asking[stream.ref.id]
            self._over.append(stream.ref.id)
        else:
            del self._answering[stream.ref.id]

    # --- what the peer does

    def question_of(self, envelope: Envelope, *, is_stream_frame: bool) -> str | None:
        """The correlation id of the question that this message answers, if it answers any."""
        if envelope.correlation_id in self._questions:
            return envelope.correlation_id
        if not is_stream_frame:
            return None
        packet = parse_packet(envelope.request if envelope.response is None else envelope.response)
        stream = self._asking.get(packet.stream_id) if packet is not None else None
        return stream.under_way(packet.cycle_id) if stream is not None and packet is not None else None

    def answered(self, question_id: str, envelope: Envelope, now: float, out: list[Event]) -> None:
        """The peer answered one of our questions."""
        question = self._questions.pop(question_id)
        question.stream.answered(question, envelope, now, out)
        self._bury(question.stream)

    def asked(self, envelope: Envelope, now: float, out: list[Event]) -> None:
        """The peer asks about a stream. Every answer has a `response`, by which the peer can tell it from a question."""
        packet = parse_packet(envelope.request)
        if packet is None or packet.is_answer:
            out.append(Ignored("a stream frame is neither a question nor a known answer"))
            return
        if packet.stream_id in self._asking or packet.stream_id in self._over:
            out.append(Ignored("a stream frame asks about a stream that is ours to ask about"))
            return
        stream = self._answering.get(packet.stream_id)
        response = packet_of_unknown(packet) if stream is None else stream.answer(packet, now, out)
        echo = packet.purpose in ("keepAlive", "feedback")
        out.append(Send(answer_text(envelope, {"response": response}, self._limits.message_bytes, echo=echo)))
        if stream is not None:
            self._bury(stream)

    # --- time

    def tick(self, now: float, out: list[Event]) -> None:
        """Do what is due."""
        for stream in self._all():
            stream.tick(now, out)
            self._bury(stream)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        times = [stream.next_deadline() for stream in self._all()]
        return min((time for time in times if time is not None), default=None)

    def close(self, error: PortError, out: list[Event]) -> None:
        """The connection ended, and with it every stream that the peer has not finished.

        What arrived completely can still be taken.
        """
        for stream in self._all():
            if stream.active:
                stream.fail(error, out)
            self._bury(stream)
        for name in list(self._drafts):
            self._drafts.pop(name).outbox.clear()
            out.append(StreamFailed(StreamRef(name), error))
