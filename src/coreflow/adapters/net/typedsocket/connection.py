"""One connection as a state machine: text and the time go in, events and text come out.

No socket, no clock, no source of ids: whoever owns a `Connection` feeds it every message with `receive`, calls `tick`
when `next_deadline` has come, sends what it says, in that order, and calls `close` when the connection is gone. Both
peers of a connection work alike; a server is a connection with a tag policy.

Nothing that arrives makes these calls raise, nothing closes the connection, and nothing that could be an answer is
ever answered. The last rule is what prevents echo loops: SmartServe returns every stream frame that it cannot place,
even one that is an answer itself (captured), and two peers like that would play ball for ever.

    receive      a message that                                                        becomes
    1            has the correlation id of a request or stream question of ours        its answer, whatever its phase
    2            is a stream frame with the stream and cycle of a question of ours     its answer
    3            is a stream frame with a `response`, or has phase `response`          nothing: late, or not ours
    4            is a stream frame                                                     a stream question
    5            has phase `request`, a method and a correlation id                    `Asked`, or a tag
    6            anything else                                                         nothing

(1) needs no phase because answers to stream questions keep phase `request`, and (2) no correlation because
typedrequest 3.x makes stream frames without one (both captured).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import field, frozen

from .asks import INTERNAL_ERROR, NO_SUCH_METHOD, Asks, Retry
from .calls import Calls
from .envelope import NAME_LIMIT, Envelope, StreamRef, Unusable, method_seen_in, parse
from .errors import ConnectionClosed, TooLarge
from .events import Event, Ignored, Send
from .limits import Limits, Timing
from .packets import STREAM_METHOD
from .streams import Item, StreamTable
from .tags import REMOVE_TAG, SET_TAG, TagPolicy, Tags

ID_ENTROPY = 12
"""Bytes of chance that an id wants."""


def make_id(entropy: bytes) -> str:
    """An id as typedrequest spells them: `uni_` and 24 hexadecimal digits (captured)."""
    return f"uni_{entropy.hex()}"


@frozen
class Requested:
    """A request that went out: the id that its end will name, and the frames to send, in order."""

    id: str
    frames: tuple[str, ...] = field(repr=False)


@frozen
class Taken:
    """An item that was taken from a stream, and the frames to send."""

    item: Item
    frames: tuple[str, ...] = field(repr=False)


class Connection:
    """One end of a TypedSocket connection.

    `new_id` makes ids that are unique on the connection; `tag_policy` makes it a server, which keeps tags. `now` is
    any clock in seconds that does not go back, the same in every call.
    """

    def __init__(
        self,
        new_id: Callable[[], str],
        *,
        limits: Limits | None = None,
        timing: Timing | None = None,
        tag_policy: TagPolicy | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self._streams = StreamTable(new_id, self.limits, self.timing)
        self._calls = Calls(new_id, self.limits, self.timing, self._streams)
        self._asks = Asks(self.limits, self._streams)
        self._tags = Tags(tag_policy, self.limits) if tag_policy is not None else None
        self._closed: str | None = None

    # --- what is known

    @property
    def is_closed(self) -> bool:
        """The connection was closed, by us."""
        return self._closed is not None

    @property
    def tags(self) -> Mapping[str, object]:
        """Payloads by the names of the tags that the peer has set."""
        return self._tags.current if self._tags is not None else MappingProxyType({})

    @property
    def waiting_requests(self) -> int:
        """Requests of ours that are not answered."""
        return len(self._calls)

    @property
    def waiting_asks(self) -> int:
        """Requests of the peer that are not answered."""
        return len(self._asks)

    @property
    def held_bytes(self) -> int:
        """Bytes of the peer's that are kept here: its unanswered requests and all queued chunks, ours included."""
        return self._asks.held_bytes + self._streams.queued_bytes

    @property
    def open_streams(self) -> int:
        """Streams in any state but the last."""
        return len(self._streams)

    # --- messages and time

    def receive(
        self,
        data: str | bytes | bytearray | memoryview,
        now: float,
        read: Envelope | Unusable | None = None,
    ) -> list[Event]:
        """Take a message, text or binary. `read` is what `parse_in_pieces` made of a long one."""
        out: list[Event] = []
        if self._closed is None:
            match read or parse(data, self.limits.message_bytes, self.limits.message_values):
                case Unusable(reason):
                    is_answer = self._calls.unreadable(data, reason, out)
                    out.append(Ignored(reason, is_loss=not is_answer, method=method_seen_in(data)))
                case Envelope() as envelope:
                    self._dispatch(envelope, now, out)
        return out

    def tick(self, now: float, *, arriving: int = 0) -> list[Event]:
        """Do what is due: time limits, repetitions, keep-alives. Too early is harmless.

        `arriving` is any number that grows with what has arrived of a message that is not complete; 0 when there is none.
        """
        out: list[Event] = []
        if self._closed is None:
            self._calls.tick(now, out, arriving=arriving)
            self._streams.tick(now, out)
        return out

    def next_deadline(self) -> float | None:
        """Return when `tick` is due next, as far as is known now; any other call may change it."""
        if self._closed is not None:
            return None
        times = (self._calls.next_deadline(), self._streams.next_deadline())
        return min((time for time in times if time is not None), default=None)

    def close(self, reason: str) -> list[Event]:
        """The connection has ended, or is about to. Everything under way fails; what is called later does nothing, or raises."""
        out: list[Event] = []
        if self._closed is None:
            self._closed = reason
            self._calls.close(reason, out)
            self._streams.close(ConnectionClosed(f"the connection ended ({reason})"), out)
            self._asks.close()
            if self._tags is not None:
                self._tags.clear()
        return [event for event in out if not isinstance(event, Send)]

    # --- requests of ours

    def request(
        self,
        method: str,
        request: Mapping[str, object],
        now: float,
        *,
        timeout: float | None = None,
        needs_result: bool = True,
    ) -> Requested:
        """Ask the peer. An `Answered` or `Failed` with the id follows, after `timeout` seconds at the latest.

        Streams from `create_stream` may stand anywhere in `request`; bytes are written as Node writes a Buffer.
        Unless `needs_result` is false, an answer of `null` is a failure.
        """
        return self._call(method, request, now, timeout=timeout, needs_result=needs_result)

    def set_tag(self, name: str, payload: object, now: float, *, timeout: float | None = None) -> Requested:
        """Tag this connection at the server. Fails if the server does not want it. Without a payload, pass `None`."""
        request = {"name": name} if payload is None else {"name": name, "payload": payload}
        return self._call(SET_TAG, request, now, timeout=timeout, must_succeed=True)

    def remove_tag(self, name: str, now: float, *, timeout: float | None = None) -> Requested:
        """Take a tag away again."""
        return self._call(REMOVE_TAG, {"name": name}, now, timeout=timeout, must_succeed=True)

    def cancel(self, request_id: str) -> tuple[str, ...]:
        """Forget a request, with its streams. No event follows."""
        out: list[Event] = []
        self._calls.cancel(request_id, out)
        return _frames(out)

    def _call(
        self,
        method: str,
        request: Mapping[str, object],
        now: float,
        *,
        timeout: float | None,
        needs_result: bool = True,
        must_succeed: bool = False,
    ) -> Requested:
        self._check_open()
        if not 0 < len(method) <= NAME_LIMIT:
            raise TooLarge(f"a method has a name of 1 to {NAME_LIMIT} characters")
        out: list[Event] = []
        request_id = self._calls.start(
            method, request, now, out, timeout=timeout, needs_result=needs_result, must_succeed=must_succeed
        )
        return Requested(request_id, _frames(out))

    # --- requests of the peer

    def respond(
        self, ask: int, response: Mapping[str, object] | None, now: float, *, retry: Retry | None = None
    ) -> tuple[str, ...]:
        """Answer a request of the peer. If this raises, the request is still there to be answered otherwise."""
        out: list[Event] = []
        if self._closed is None:
            self._asks.respond(ask, response, retry, now, out)
        return _frames(out)

    def respond_error(self, ask: int, text: str = INTERNAL_ERROR, data: object = None) -> tuple[str, ...]:
        """Answer with an error that the peer may read. Without a text, it learns nothing."""
        out: list[Event] = []
        if self._closed is None:
            self._asks.respond_error(ask, text, data, out)
        return _frames(out)

    def respond_unknown(self, ask: int) -> tuple[str, ...]:
        """Answer that there is no such method."""
        return self.respond_error(ask, NO_SUCH_METHOD)

    # --- streams

    def create_stream(self, *, reads: bool = False) -> StreamRef:
        """A stream to put into a request or an answer, and to `write` to, before or after that.

        In a request it only carries our data, unless `reads`: real Node peers cannot send any back (captured).
        """
        self._check_open()
        return self._streams.create(reads=reads)

    def can_write(self, stream: StreamRef) -> bool:
        """There is room for a `write`. After false, a `StreamWritable` tells when there is."""
        return self._streams.can_write(stream)

    def write(self, stream: StreamRef, data: bytes, now: float) -> tuple[str, ...]:
        """Queue a chunk of at most `limits.own_chunk_bytes`. Raises `TooMany` when there is no room for it."""
        self._check_open()
        out: list[Event] = []
        self._streams.write(stream, data, now, out)
        return _frames(out)

    def finish(self, stream: StreamRef, now: float) -> tuple[str, ...]:
        """Nothing more will be written. `StreamSent` tells when the peer has everything."""
        self._check_open()
        out: list[Event] = []
        self._streams.finish(stream, now, out)
        return _frames(out)

    def take(self, stream: StreamRef, now: float) -> Taken:
        """Take the next chunk. Not taking is what holds the peer back."""
        out: list[Event] = []
        item = self._streams.take(stream, now, out)
        return Taken(item, _frames(out) if self._closed is None else ())

    def abort(self, stream: StreamRef) -> tuple[str, ...]:
        """Give a stream up, whatever its state. No event follows."""
        out: list[Event] = []
        self._streams.abort([stream], out)
        return _frames(out) if self._closed is None else ()

    # ---

    def _check_open(self) -> None:
        if self._closed is not None:
            raise ConnectionClosed(f"the connection has ended ({self._closed})")

    def _dispatch(self, envelope: Envelope, now: float, out: list[Event]) -> None:
        """The table in this module's docstring, top to bottom."""
        is_stream_frame = envelope.raw.get("method") == STREAM_METHOD
        if envelope.correlation_id in self._calls:
            self._calls.answered(envelope, now, out)
        elif (question := self._streams.question_of(envelope, is_stream_frame=is_stream_frame)) is not None:
            self._streams.answered(question, envelope, now, out)
        elif envelope.phase == "response" or (is_stream_frame and envelope.response is not None):
            out.append(Ignored("an answer came late, twice, or to somebody else's question"))
        elif is_stream_frame:
            self._streams.asked(envelope, now, out)
        elif envelope.phase == "request":
            self._asked(envelope, now, out)
        else:
            out.append(Ignored("a message is neither a question nor an answer"))

    def _asked(self, envelope: Envelope, now: float, out: list[Event]) -> None:
        method = envelope.method
        if method is None or envelope.correlation_id is None:
            out.append(Ignored("a request has no usable method or correlation id"))
        elif self._tags is not None and method in (SET_TAG, REMOVE_TAG):
            request = envelope.request if isinstance(envelope.request, dict) else {}
            answer = self._tags.handle(method, request)
            out.append(Send(self._asks.answer_text(envelope, {"success": answer.success})))
            if answer.event is not None:
                out.append(answer.event)
        else:
            self._asks.asked(envelope, method, now, out)


def _frames(out: list[Event]) -> tuple[str, ...]:
    return tuple(event.text for event in out if isinstance(event, Send))
