"""Requests of ours that wait for their answer.

`retry` in an answer means: wait, then send the same request with the same correlation id (captured). Like the newer
generation we do so a limited number of times, with a new `requestInstanceId` each, and also if there is an `error`
beside it, as 3.3.2 and 8.0.3 do and 3.3.0 does not.
"""

import math
from collections.abc import Callable

from attrs import define, field

from coreflow.domain.errors import PortError

from .envelope import Envelope, NestedTooDeep, StreamRef, encode, ends_of, find_streams, request_text
from .errors import (
    ComeBackLater,
    ConnectionClosed,
    NoResult,
    PeerError,
    StreamBroken,
    TimedOut,
    TooMany,
    Unreadable,
)
from .events import Answered, Event, Failed, Ignored, Send
from .limits import Limits, Timing
from .streams import StreamTable


@define(kw_only=True)
class _Call:
    id: str
    method: str
    body: bytes = field(repr=False)
    deadline: float
    latest: float
    started: float
    time_limit: float
    arriving: int = 0
    """How far the message was that was arriving when the time limit had passed last."""
    needs_result: bool
    must_succeed: bool
    streams: tuple[StreamRef, ...]
    instance: str = ""
    attempts: int = 0
    retry_at: float | None = None


class Calls:
    """The requests of one connection that are under way."""

    def __init__(
        self, new_id: Callable[[], str], limits: Limits, timing: Timing, streams: StreamTable
    ) -> None:
        self._new_id = new_id
        self._limits = limits
        self._timing = timing
        self._streams = streams
        self._calls: dict[str, _Call] = {}
        self._bytes = 0
        self.peer_sends_local_data = False
        """Ordinary answers of the peer have the member `localData`: it is a 3.3.0 or older (captured)."""

    def __contains__(self, request_id: str | None) -> bool:
        return request_id in self._calls

    def __len__(self) -> int:
        return len(self._calls)

    def start(
        self,
        method: str,
        request: object,
        now: float,
        out: list[Event],
        *,
        timeout: float | None,
        needs_result: bool,
        must_succeed: bool = False,
    ) -> str:
        """Send a request; its id is what the event about its end will name."""
        refs: list[StreamRef] = []
        body = encode(request, self._limits.message_bytes, refs.append)
        streams = tuple(dict.fromkeys(refs))
        self._streams.check_drafts(streams)
        if len(self._calls) >= self._limits.requests:
            raise TooMany(f"{len(self._calls)} requests wait for an answer on this connection")
        if self._calls and self._bytes + len(body) > self._limits.request_bytes:
            raise TooMany(f"requests of {self._bytes} bytes wait for an answer on this connection")
        time_limit = self._timing.request if timeout is None else timeout
        call = _Call(
            id=self._new_id(),
            method=method,
            body=body,
            deadline=now + time_limit,
            latest=now + max(time_limit, self._timing.whole),
            started=now,
            time_limit=time_limit,
            needs_result=needs_result,
            must_succeed=must_succeed,
            streams=streams,
        )
        self._send(call, out)
        self._calls[call.id] = call
        self._bytes += len(body)
        self._streams.ask(streams, now, out)
        return call.id

    def cancel(self, request_id: str, out: list[Event]) -> None:
        """The owner does not want the answer any more. Nothing tells the peer, except where streams are concerned."""
        if request_id in self._calls:
            self._streams.abort(self._forget(self._calls[request_id]).streams, out)

    def answered(self, envelope: Envelope, now: float, out: list[Event]) -> None:
        """The peer answered one of these requests."""
        call = self._calls[envelope.correlation_id or ""]
        instance = envelope.raw.get("requestInstanceId")
        if call.retry_at is not None or (isinstance(instance, str) and instance != call.instance):
            out.append(Ignored("a request was answered a second time"))
            return
        self.peer_sends_local_data = "localData" in envelope.raw
        wait = _wait_before_retry(envelope)
        if wait is not None:
            self._retry_later(call, wait, now, out)
            return
        try:
            event = self._outcome(call, envelope, now, out)
        except PortError as exc:
            self._fail(call, exc, out)
            return
        self._forget(call)
        out.append(event)

    def unreadable(self, data: str | bytes | bytearray | memoryview, reason: str, out: list[Event]) -> bool:
        """A message cannot be used. Whoever waits for an answer with its id need not wait any longer; return whether anybody did."""
        ends = ends_of(data)
        waiting = [call for call in self._calls.values() if call.id.encode() in ends]
        for call in waiting:
            self._fail(call, Unreadable(f"the answer to {call.method} cannot be used: {reason}"), out)
        return bool(waiting)

    def tick(self, now: float, out: list[Event], *, arriving: int = 0) -> None:
        """Do what is due. A message that is arriving, and has come further since last time, may be any answer."""
        for call in list(self._calls.values()):
            if call.deadline <= now and arriving > call.arriving and now < call.latest:
                call.arriving, call.deadline = arriving, min(now + call.time_limit, call.latest)
            elif call.deadline <= now:
                self._fail(call, TimedOut(_lateness(call, now)), out)
            elif call.retry_at is not None and call.retry_at <= now:
                call.retry_at = None
                try:
                    self._send(call, out)
                except PortError as exc:
                    self._fail(call, exc, out)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        times = (call.deadline if call.retry_at is None else call.retry_at for call in self._calls.values())
        return min(times, default=None)

    def close(self, reason: str, out: list[Event]) -> None:
        """The connection ended: every request that is under way has failed."""
        for call in list(self._calls.values()):
            self._fail(
                call,
                ConnectionClosed(f"{call.method} was not answered before the connection ended ({reason})"),
                out,
            )

    def _send(self, call: _Call, out: list[Event]) -> None:
        call.instance = self._new_id()
        call.attempts += 1
        text = request_text(call.method, call.body, call.id, call.instance, self._limits.message_bytes)
        out.append(Send(text))

    def _outcome(self, call: _Call, envelope: Envelope, now: float, out: list[Event]) -> Answered:
        if (error := envelope.raw.get("error")) is not None:
            raise _peer_error(error)
        response = envelope.response
        if response is None and call.needs_result:
            raise NoResult(f"{call.method} was answered without a result")
        if call.must_succeed and not (isinstance(response, dict) and response.get("success") is True):
            raise PeerError(f"{call.method} was answered: no success")
        if not envelope.may_hold_streams:
            return Answered(request_id=call.id, response=response)
        try:
            found = find_streams(response)
        except NestedTooDeep:
            raise StreamBroken(f"the answer to {call.method} nests too deep to find its streams") from None
        refs = self._streams.accept(found, now, out, asking=True, lossy=self.peer_sends_local_data)
        return Answered(request_id=call.id, response=found.value, streams=refs)

    def _retry_later(self, call: _Call, wait: float, now: float, out: list[Event]) -> None:
        if call.streams:
            self._fail(
                call, ComeBackLater(f"{call.method}: asked to repeat a request that carried a stream"), out
            )
        elif call.attempts > self._limits.retries:
            self._fail(
                call, ComeBackLater(f"{call.method}: asked to repeat it for the {call.attempts}th time"), out
            )
        elif now + wait >= call.deadline:
            text = f"{call.method}: asked to repeat it in {wait:g} s, which is after its time limit"
            self._fail(call, ComeBackLater(text), out)
        else:
            call.retry_at = now + wait

    def _fail(self, call: _Call, error: PortError, out: list[Event]) -> None:
        self._forget(call)
        self._streams.abort(call.streams, out, StreamBroken("the request that carried this stream failed"))
        out.append(Failed(request_id=call.id, error=error))

    def _forget(self, call: _Call) -> _Call:
        del self._calls[call.id]
        self._bytes -= len(call.body)
        return call


def _lateness(call: _Call, now: float) -> str:
    if not call.arriving:
        return f"{call.method} was not answered in {call.time_limit:g} s"
    if now >= call.latest:
        whole = call.latest - call.started
        return f"{call.method} was not answered in {whole:g} s, in which something was arriving all the time"
    return f"{call.method}: an answer began to arrive, and nothing more came of it for {call.time_limit:g} s"


def _wait_before_retry(envelope: Envelope) -> float | None:
    """Seconds, if the answer asks for a repetition in a way that can be understood."""
    retry = envelope.raw.get("retry")
    wait = retry.get("waitForMs") if isinstance(retry, dict) else None
    if not isinstance(wait, int | float) or isinstance(wait, bool) or not math.isfinite(wait) or wait < 0:
        return None
    return wait / 1000


def _peer_error(error: object) -> PeerError:
    if not isinstance(error, dict) or not isinstance(error.get("text"), str):
        return PeerError("the peer answered with an error that has no text")
    return PeerError(error["text"], error.get("data"))
