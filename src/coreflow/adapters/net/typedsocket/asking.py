"""A stream whose surrounding request was ours: we ask, the peer only answers.

That holds for streams we put into the request and for those we found in the answer. One question about data at a
time: a round of work opens with `feedback`, then come `chunk` as long as we have data and the peer has room, and
`read` as long as the peer has data and we have room. Beside it a `keepAlive` question, a second after the last one's
answer (captured between typedrequest 3.3.0 peers).

Two ways to download. A peer that follows the protocol answers `read` with a chunk. Node peers of 3.3.0 and 3.3.2
answer `read` with nothing at all (captured). 3.3.2 hands out its chunks when asked with a `chunk` question that has no
chunk and whose envelope already has a `response` (captured: 40 of 40); every such question leaves an empty item in the
peer's own buffer, so what it then says about back-pressure means nothing to us. 3.3.0 discards every other chunk when
asked like that (captured), so there we give up; it betrays itself by `localData` in ordinary answers.
"""

from collections.abc import Callable, MutableMapping
from enum import Enum

from attrs import define, frozen

from .envelope import Envelope, encode, request_text
from .errors import CannotDeliver, StreamBroken, TimedOut
from .events import Event, Send, StreamSent
from .limits import Limits
from .packets import CLOSING, STREAM_METHOD, Packet, chunk_to_json, parse_packet
from .queues import CLOSING_ITEM
from .side import StreamSide

_POKE_RESPONSE = {"backpressure": False}


class Purpose(Enum):
    """The purpose of a question. `POKE` travels as an empty `chunk`."""

    KEEP_ALIVE = "keepAlive"
    FEEDBACK = "feedback"
    CHUNK = "chunk"
    READ = "read"
    POKE = "poke"


@frozen
class Question:
    """A question under way."""

    stream: "AskingStream"
    purpose: Purpose
    cycle_id: str
    deadline: float
    closes: bool = False
    """It carries the closing marker."""


Questions = MutableMapping[str, Question]
"""By correlation id, for all streams of a connection."""


@define(eq=False, kw_only=True)
class AskingStream(StreamSide):
    """The asking side of one stream. Everything it has to say goes into the `out` of a call."""

    limits: Limits
    new_id: Callable[[], str]
    questions: Questions
    reads: bool
    """Take what the peer sends. Where not, what it announces is of no interest."""
    lossy: bool = False
    """The peer is a 3.3.0, which cannot deliver."""

    _work: str | None = None
    _pulse: str | None = None
    _next_pulse: float | None = None
    _poll_at: float | None = None
    _dry_wait: float = 0.0
    _in_round: bool = False
    _pokes: bool = False
    _peer_more: bool = False
    _peer_busy: bool = False
    _peer_alive: bool = True

    @property
    def active(self) -> bool:
        """There may be something left to ask."""
        return not self.failed and ((self.reads and not self.ended) or (self.writes and not self.sent))

    def start(self, now: float, out: list[Event]) -> None:
        """Begin to ask: right after the placeholder was sent or received."""
        self._ask_pulse(now, out)
        self.pump(now, out)

    def pump(self, now: float, out: list[Event]) -> None:
        """Ask the next question about data, if there is reason to and none is under way."""
        if self._work is not None or not self.active:
            return
        has_data, wants_data = len(self.outbox) > 0, self._wants_data
        is_due = self._poll_at is not None and self._poll_at <= now
        if is_due or (not self._in_round and (has_data or wants_data)):
            self._in_round = True
            self._ask(Purpose.FEEDBACK, {"next": has_data, "backpressure": self.inbox.full}, now, out)
        elif has_data and not self._peer_busy:
            self._ask_chunk(now, out)
        elif wants_data:
            self._ask(
                Purpose.POKE if self._pokes else Purpose.READ,
                {"backpressure": False, "next": False},
                now,
                out,
            )
        elif has_data:
            self._poll_at = self._poll_at or now + self.timing.busy_poll
        else:
            self._in_round = False

    @property
    def _wants_data(self) -> bool:
        """The peer has something, and there is room for it."""
        return self.reads and self._peer_more and not self.ended and not self.inbox.full

    def resume(self, now: float, out: list[Event]) -> None:
        """Go on after the owner made room."""
        self.pump(now, out)
        if (
            self._work is None
            and self._poll_at is None
            and self.reads
            and self.active
            and not self.inbox.full
        ):
            self._poll_at = now + self.timing.dry_poll

    def answered(self, question: Question, envelope: Envelope, now: float, out: list[Event]) -> None:
        """Take an answer to one of our questions."""
        if question.purpose is Purpose.KEEP_ALIVE:
            self._pulse = None
        else:
            self._work = None
        packet = parse_packet(envelope.response)
        if envelope.raw.get("error") is not None:
            self.fail(CannotDeliver("the peer does not know this kind of stream"), out)
        elif packet is None:
            self._nothing_answered(question, now, out)
        elif question.purpose is Purpose.KEEP_ALIVE:
            self._pulse_answered(packet, now, out)
        else:
            self._work_answered(question, packet, now, out)

    def tick(self, now: float, out: list[Event]) -> None:
        """Do what is due."""
        for correlation_id in (self._work, self._pulse):
            if correlation_id is not None and self.questions[correlation_id].deadline <= now:
                self.fail(TimedOut(f"no answer to a stream question in {self.timing.question:g} s"), out)
                return
        if self._next_pulse is not None and self._next_pulse <= now:
            self._ask_pulse(now, out)
        self.pump(now, out)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        times = [self.questions[name].deadline for name in (self._work, self._pulse) if name is not None]
        times += [time for time in (self._next_pulse, self._poll_at) if time is not None]
        return min(times, default=None)

    def under_way(self, cycle_id: str) -> str | None:
        """The correlation id of a question, by its cycle: peers that leave out the correlation answer without one."""
        for correlation_id in (self._work, self._pulse):
            if correlation_id is not None and self.questions[correlation_id].cycle_id == cycle_id:
                return correlation_id
        return None

    def drop(self) -> None:
        """Forget everything, without a word."""
        super().drop()
        self._stop()

    def farewell(self, out: list[Event]) -> None:
        """Tell the peer that nobody asks any more. Its answer is of no interest."""
        packet = self._packet(Purpose.KEEP_ALIVE, self.new_id(), {"keepAlive": False})
        out.append(Send(self._text(packet, self.new_id())))

    def _stop(self) -> None:
        for correlation_id in (self._work, self._pulse):
            if correlation_id is not None:
                self.questions.pop(correlation_id, None)
        self._work = self._pulse = self._next_pulse = self._poll_at = None

    # --- questions

    def _ask_pulse(self, now: float, out: list[Event]) -> None:
        self._next_pulse = None
        if self.active and self._pulse is None:
            self._ask(Purpose.KEEP_ALIVE, {"keepAlive": True}, now, out)

    def _ask_chunk(self, now: float, out: list[Event]) -> None:
        item = self.outbox.get()
        closes = item is CLOSING_ITEM
        data = CLOSING if not isinstance(item, bytes) else chunk_to_json(item)
        members = {"backpressure": self.inbox.full, "next": len(self.outbox) > 0, "chunkData": data}
        self._ask(Purpose.CHUNK, members, now, out, closes=closes)
        self._made_room(out)

    def _ask(
        self,
        purpose: Purpose,
        members: dict[str, object],
        now: float,
        out: list[Event],
        *,
        closes: bool = False,
    ) -> None:
        correlation_id, cycle_id = self.new_id(), self.new_id()
        deadline = now + self.timing.question
        self.questions[correlation_id] = Question(self, purpose, cycle_id, deadline, closes)
        if purpose is Purpose.KEEP_ALIVE:
            self._pulse = correlation_id
        else:
            self._work, self._poll_at = correlation_id, None
        response = _POKE_RESPONSE if purpose is Purpose.POKE else None
        out.append(Send(self._text(self._packet(purpose, cycle_id, members), correlation_id, response)))

    def _packet(self, purpose: Purpose, cycle_id: str, members: dict[str, object]) -> dict[str, object]:
        name = "chunk" if purpose is Purpose.POKE else purpose.value
        head = {"streamId": self.ref.id, "cycleId": cycle_id, "cycle": "request", "mainPurpose": name}
        return {**head, **members}

    def _text(self, packet: dict[str, object], correlation_id: str, response: object = None) -> str:
        limit = self.limits.message_bytes
        return request_text(STREAM_METHOD, encode(packet, limit), correlation_id, None, limit, response)

    # --- answers

    def _nothing_answered(self, question: Question, now: float, out: list[Event]) -> None:
        """`null`, or an echo: for `read` a sign of an unfinished peer, for the others one of an unknown stream."""
        if question.purpose is not Purpose.READ:
            self.fail(StreamBroken("the peer does not know this stream (any more)"), out)
        elif self.lossy:
            text = "the peer cannot deliver streams: it is a typedrequest 3.3.0 or older, which would lose every other chunk"
            self.fail(CannotDeliver(text), out)
        else:
            self._pokes = True
            self.pump(now, out)

    def _pulse_answered(self, packet: Packet, now: float, out: list[Event]) -> None:
        if packet.alive:
            self._next_pulse = now + self.timing.keep_alive
        elif self._peer_alive:  # Node says so while it still has chunks: look a little longer
            self._dry_wait = 0.0
        self._heard(packet)
        self._go_on(now, out)

    def _work_answered(self, question: Question, packet: Packet, now: float, out: list[Event]) -> None:
        if packet.purpose == Purpose.KEEP_ALIVE.value and not packet.alive:
            self.fail(StreamBroken("the peer closed this stream"), out)
            return
        self._heard(packet)
        if question.closes:
            self.sent = True
            out.append(StreamSent(self.ref))
        got_data = packet.purpose == Purpose.CHUNK.value and self._got(packet.chunk, out)
        if question.purpose in (Purpose.READ, Purpose.POKE):
            if got_data:
                self._dry_wait = 0.0
            else:
                self._peer_more = False
        self._go_on(now, out)

    def _heard(self, packet: Packet) -> None:
        self._peer_more = packet.more
        self._peer_busy = packet.busy and not self._pokes
        self._peer_alive = self._peer_alive and packet.alive

    def _got(self, chunk: object, out: list[Event]) -> bool:
        if chunk is None or not self.reads or self.ended or self.failed:
            return False
        return self._put(chunk, out)

    def _go_on(self, now: float, out: list[Event]) -> None:
        if not self.active:
            self._stop()
            return
        self.pump(now, out)
        if self._work is None and self._poll_at is None and not self.failed:
            self._wait_for_more(now, out)

    def _wait_for_more(self, now: float, out: list[Event]) -> None:
        """Nothing to send and nothing to fetch: ask again soon, then less often, then leave it to the keep-alive."""
        if not self.reads or self.ended or self.inbox.full:
            return
        self._dry_wait = min(2 * self._dry_wait or self.timing.dry_poll, self.timing.keep_alive)
        if self._dry_wait < self.timing.keep_alive:
            self._poll_at = now + self._dry_wait
        elif not self._peer_alive:
            self.fail(StreamBroken("the stream ended without its closing marker"), out)
