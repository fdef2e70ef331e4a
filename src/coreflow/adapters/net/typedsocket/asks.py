"""Requests of the peer that wait for our answer."""

from collections.abc import Mapping

from attrs import field, frozen

from coreflow.domain.errors import PortError

from .envelope import Envelope, NestedTooDeep, StreamRef, answer_text, encode, find_streams, fragment
from .errors import StreamBroken
from .events import Asked, Event, Ignored, Send
from .limits import Limits
from .streams import StreamTable

NO_SUCH_METHOD = "There is no available method for this call on the server side"
"""What real peers answer, clients included (captured)."""
INTERNAL_ERROR = "Internal server error"
"""What 3.3.2 and 8.0.3 answer for any exception that was not meant for the peer (captured)."""


@frozen(kw_only=True)
class Retry:
    """Asks the peer to repeat its request. Only with an empty answer is this understood by every generation."""

    wait_ms: int
    reason: str


@frozen(kw_only=True)
class _Ask:
    envelope: Envelope = field(repr=False)
    streams: tuple[StreamRef, ...]


class Asks:
    """The peer's requests that are not answered yet. Their envelopes are kept, since an answer echoes its question."""

    def __init__(self, limits: Limits, streams: StreamTable) -> None:
        self._limits = limits
        self._streams = streams
        self._asks: dict[int, _Ask] = {}
        self._bytes = 0
        self._next = 1

    def __len__(self) -> int:
        return len(self._asks)

    @property
    def held_bytes(self) -> int:
        """Size of the texts of these requests."""
        return self._bytes

    def asked(self, envelope: Envelope, method: str, now: float, out: list[Event]) -> None:
        """Hand a request to the owner, or refuse it at once."""
        objection = self._objection(envelope)
        if objection is None:
            try:
                request, streams = self._accept_streams(envelope, now, out)
            except PortError as exc:
                objection = str(exc)
        if objection is not None:
            out.append(Ignored(f"a request was refused: {objection}", is_loss=True, method=method))
            out.append(Send(self._error_text(envelope, objection, {})))
            return
        number, self._next = self._next, self._next + 1
        self._asks[number] = _Ask(envelope=envelope, streams=streams)
        self._bytes += envelope.size
        out.append(Asked(ask=number, method=method, request=request, streams=streams))

    def respond(
        self, number: int, response: object, retry: Retry | None, now: float, out: list[Event]
    ) -> None:
        """Answer a request. `response` always goes on the wire, as `null` if there is none: the newer generation insists."""
        ask = self._find(number)
        limit = self._limits.message_bytes
        refs: list[StreamRef] = []
        body = encode(response, limit, refs.append)
        streams = tuple(dict.fromkeys(refs))
        self._streams.check_drafts(streams)
        members: dict[str, object] = {"response": fragment(body)}
        if retry is not None:
            members["retry"] = {"waitForMs": retry.wait_ms, "reason": retry.reason}
        text = answer_text(ask.envelope, members, limit)
        self._forget(number)
        out.append(Send(text))
        self._streams.answer_for(streams, now)

    def respond_error(self, number: int, text: str, data: object, out: list[Event]) -> None:
        """Answer a request with an error. The streams that came with it are given up."""
        ask = self._find(number)
        answer = self._error_text(ask.envelope, text, data)
        self._forget(number)
        self._streams.abort(ask.streams, out)
        out.append(Send(answer))

    def answer_text(self, envelope: Envelope, response: Mapping[str, object]) -> str:
        """A short answer that needs no owner."""
        return answer_text(envelope, {"response": response}, self._limits.message_bytes)

    def close(self) -> None:
        """The connection ended: there is nobody to answer."""
        self._asks.clear()
        self._bytes = 0

    def _objection(self, envelope: Envelope) -> str | None:
        if len(self._asks) >= self._limits.requests:
            return f"{len(self._asks)} requests of this connection wait for an answer"
        if self._asks and self._bytes + envelope.size > self._limits.request_bytes:
            return f"requests of {self._bytes} bytes of this connection wait for an answer"
        if not isinstance(envelope.request, dict | None):
            return "the request is not an object"
        return None

    def _accept_streams(
        self, envelope: Envelope, now: float, out: list[Event]
    ) -> tuple[Mapping[str, object], tuple[StreamRef, ...]]:
        """The request with its streams, which are known from here on: their first chunk may be the next message."""
        request = envelope.request or {}
        if not envelope.may_hold_streams:
            return request, ()
        try:
            found = find_streams(request)
        except NestedTooDeep:
            raise StreamBroken("the request nests too deep to find its streams") from None
        if isinstance(found.value, StreamRef):
            raise StreamBroken("the request is a stream instead of an object")
        return found.value, self._streams.accept(found, now, out, asking=False, lossy=False)

    def _find(self, number: int) -> _Ask:
        if number not in self._asks:
            raise LookupError(f"request {number} was answered already, or never asked")
        return self._asks[number]

    def _forget(self, number: int) -> None:
        self._bytes -= self._asks.pop(number).envelope.size

    def _error_text(self, envelope: Envelope, text: str, data: object) -> str:
        members = {"response": None, "error": {"text": text, "data": {} if data is None else data}}
        return answer_text(envelope, members, self._limits.message_bytes)
