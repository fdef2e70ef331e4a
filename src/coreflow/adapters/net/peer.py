"""A TypedSocket connection that lives: the protocol of `typedsocket` driven over a WebSocket, under trio.

Whoever owns a `Peer` lets `run` read, write and keep time until the connection ends; meanwhile any number of tasks ask
the peer, and its requests are answered by a table of handlers. Both ends of a connection are driven alike.

Nothing piles up: while the peer does not take what is to be sent, nothing is read from it either.
"""

import inspect
import secrets
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import outcome
import structlog
import trio
from attrs import Factory, define, field

from coreflow.domain.errors import PortError, PreconditionFailed, Refused, Unavailable
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact

from .typedsocket import (
    ID_ENTROPY,
    LONG_BYTES,
    Answered,
    Asked,
    Chunk,
    Connection,
    ConnectionClosed,
    End,
    Envelope,
    Event,
    Failed,
    Ignored,
    Limits,
    PeerError,
    Requested,
    Send,
    StreamBroken,
    StreamFailed,
    StreamReadable,
    StreamRef,
    TagPolicy,
    TagRefused,
    TagRemoved,
    TagSet,
    Timing,
    Unusable,
    Value,
    make_id,
    parse_in_pieces,
)

log = structlog.get_logger()

HIGH_WATER = 4 * 1024 * 1024
"""Characters that may wait to be sent before nothing more is read."""

_ONE_AT_A_TIME = trio.CapacityLimiter(1)
"""For long messages of all connections: reading one takes several times its size."""
Response = Mapping[str, object]
Handler = Callable[[Mapping[str, Any]], Response | Awaitable[Response]]
"""Answers a request. Handlers are called in the order of the requests; what they return may be awaited meanwhile.

What a handler raises as `PreconditionFailed` or `Refused` is told to the peer; of any other exception it learns nothing.
"""


class Socket(Protocol):
    """A WebSocket. Its methods raise Unavailable when it is gone."""

    @property
    def peer(self) -> str:
        """The far end's address, as `host:port`."""
        ...

    @property
    def arriving(self) -> int:
        """A number that grows with a message that has begun to arrive; 0 when there is none."""
        ...

    async def send(self, text: str) -> None:
        """Send a message and wait until there is room for more."""
        ...

    async def receive(self) -> str | bytes:
        """The next message, as bytes where it is long."""
        ...


class TagListener(Protocol):
    """Somebody who wants to know about the tags of a connection."""

    def tagged_by(self, peer: "Peer", name: str) -> None:
        """The peer has set this tag, perhaps again."""
        ...

    def untagged(self, peer: "Peer", name: str) -> None:
        """The peer has taken this tag away."""
        ...

    def refused(self, peer: "Peer", name: str, reason: str) -> None:
        """The peer wanted a tag that it does not get."""
        ...


@define(eq=False)
class _Pending:
    """A request of ours that waits for its end."""

    ended: trio.Event = Factory(trio.Event)
    result: outcome.Outcome[Answered] | None = None

    def end(self, result: outcome.Outcome[Answered]) -> None:
        self.result = result
        self.ended.set()


@define(eq=False)
class _Incoming:
    """A stream that somebody here reads."""

    news: trio.Event = Factory(trio.Event)
    error: PortError | None = None


@define(eq=False)
class _Outbox:
    """Frames that are to be sent, in order."""

    texts: deque[str] = field(factory=deque, repr=False)
    size: int = 0
    news: trio.Event = Factory(trio.Event)
    room: trio.Event = Factory(trio.Event)

    def put(self, text: str) -> None:
        self.texts.append(text)
        self.size += len(text)
        self.news.set()

    async def get(self) -> str:
        while not self.texts:
            self.news = trio.Event()
            await self.news.wait()
        return self.texts.popleft()

    def sent(self, text: str) -> None:
        self.size -= len(text)
        if self.size <= HIGH_WATER:
            self.room.set()

    async def wait_for_room(self) -> None:
        while self.size > HIGH_WATER:
            self.room = trio.Event()
            await self.room.wait()


class _Reader:
    """Receives messages. A long one is read in a thread, while everything else goes on."""

    def __init__(self, socket: Socket, limits: Limits) -> None:
        self._socket, self._limits = socket, limits
        self._arrived, self._is_reading = 0, False

    @property
    def arriving(self) -> int:
        """A number that grows while a message arrives or is read; 0 when there is none."""
        arriving = self._arrived + 1 if self._is_reading else self._socket.arriving
        self._arrived = max(self._arrived, arriving)
        return arriving

    async def next(self) -> tuple[str | bytes, Envelope | Unusable | None]:
        """The next message, and what was read of it if it is long."""
        data = await self._socket.receive()
        if not isinstance(data, bytes) or len(data) <= LONG_BYTES:
            return data, None
        self._is_reading = True
        try:
            read = await trio.to_thread.run_sync(
                parse_in_pieces,
                data,
                self._limits.message_bytes,
                self._limits.message_values,
                abandon_on_cancel=True,
                limiter=_ONE_AT_A_TIME,
            )
        finally:
            self._is_reading = False
        return data, read


class Peer:
    """The far end of one connection. `clean` makes what it says of errors, and in parting, fit to be told."""

    def __init__(
        self,
        socket: Socket,
        *,
        handlers: Mapping[str, Handler] | None = None,
        limits: Limits | None = None,
        timing: Timing | None = None,
        tag_policy: TagPolicy | None = None,
        tag_listener: TagListener | None = None,
        clean: Redact = NOTHING_KNOWN.redact,
    ) -> None:
        self._socket = socket
        self._clean = clean
        self._handlers = handlers or {}
        self._tag_listener = tag_listener
        self._connection = Connection(
            lambda: make_id(secrets.token_bytes(ID_ENTROPY)),
            limits=limits,
            timing=timing,
            tag_policy=tag_policy,
        )
        self._outbox = _Outbox()
        self._pending: dict[str, _Pending] = {}
        self._streams: dict[StreamRef, _Incoming] = {}
        self._reader = _Reader(socket, self._connection.limits)
        self._armed = float("inf")
        self._rearmed = trio.Event()
        self._scope = trio.CancelScope()
        self.on_loss: Callable[[str | None, str], None] | None = None
        """Called with the method, where there is a handler for it, and the reason, when something of the peer's is lost."""
        self.ended = trio.Event()
        """Set when the connection has ended, and everything under way with it."""
        self.reason = "the connection ended"
        """Why it ended."""

    @property
    def address(self) -> str:
        """The address of the peer, as `host:port`."""
        return self._socket.peer

    @property
    def tags(self) -> Mapping[str, object]:
        """Payloads by the names of the tags that the peer has set. Empty once the connection has ended."""
        return MappingProxyType(dict(self._connection.tags))

    # --- its life

    async def run(self) -> None:
        """Serve the connection until it ends; `reason` says why then. Cancelling it ends the connection here."""
        try:
            with self._scope:
                await self._serve()
        except* Unavailable as group:
            self.reason = self._clean(_first_text(group))
        finally:
            self._dispatch(self._connection.close(self.reason), None)
            self.ended.set()

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._keep_time)
            await self._receive(nursery)

    def hang_up(self, reason: str) -> None:
        """End the connection from here."""
        if not self.ended.is_set():
            self.reason = reason
            self._scope.cancel()

    async def _receive(self, nursery: trio.Nursery) -> None:
        while True:
            # nothing here may go on holding a message, which may be large, while the next one is awaited
            self._dispatch(await self._next_events(), nursery)
            self._rearm()
            await self._outbox.wait_for_room()

    async def _next_events(self) -> list[Event]:
        """Receive a message; the events that follow from it."""
        data, read = await self._reader.next()
        return self._connection.receive(data, trio.current_time(), read)

    async def _send(self) -> None:
        while True:
            text = await self._outbox.get()
            await self._socket.send(text)
            self._outbox.sent(text)

    async def _keep_time(self) -> None:
        while True:
            deadline = self._connection.next_deadline()
            self._armed = float("inf") if deadline is None else deadline
            self._rearmed = trio.Event()
            with trio.move_on_at(self._armed):
                await self._rearmed.wait()
            self._dispatch(self._connection.tick(trio.current_time(), arriving=self._reader.arriving), None)

    def _rearm(self) -> None:
        """Look at the clock anew if something is due earlier than it was."""
        deadline = self._connection.next_deadline()
        if deadline is not None and deadline < self._armed:
            self._rearmed.set()

    def _post(self, frames: tuple[str, ...]) -> None:
        for text in frames:
            self._outbox.put(text)
        self._rearm()

    def _dispatch(self, events: list[Event], nursery: trio.Nursery | None) -> None:
        for event in events:
            match event:
                case Send(text):
                    self._outbox.put(text)
                case Asked():
                    assert nursery is not None  # noqa: S101 - only messages ask
                    self._asked(event, nursery)
                case Answered(request_id=name, streams=streams):
                    self._streams.update({ref: _Incoming() for ref in streams})
                    self._end(name, outcome.Value(event))
                case Failed(request_id=name, error=error):
                    self._end(name, outcome.Error(self._told(error)))
                case StreamReadable(ref):
                    self._tell(ref)
                case StreamFailed(ref, error):
                    self._tell(ref, self._told(error))
                case TagSet() | TagRemoved() | TagRefused():
                    self._tell_of_tag(event)
                case Ignored():
                    self._ignored(event)
                case _:  # nobody here writes streams
                    pass

    def _tell_of_tag(self, event: TagSet | TagRemoved | TagRefused) -> None:
        if self._tag_listener is None:
            return
        match event:
            case TagSet(name):
                self._tag_listener.tagged_by(self, name)
            case TagRemoved(name):
                self._tag_listener.untagged(self, name)
            case TagRefused(name, reason):
                self._tag_listener.refused(self, name, reason)

    def _ignored(self, event: Ignored) -> None:
        log.debug("message ignored", peer=self.address, reason=event.reason)
        if event.is_loss and self.on_loss is not None:
            self.on_loss(event.method if event.method in self._handlers else None, event.reason)

    # --- requests of ours

    async def request(
        self,
        method: str,
        body: Mapping[str, object],
        *,
        timeout: float | None = None,
        needs_result: bool = True,
    ) -> Answered:
        """Ask the peer and wait for the answer, for `timeout` seconds (by default the timing's) at most.

        Raises Unavailable (no answer, no result, no connection) or Refused (`PeerError`: the peer's own no).
        """
        now = trio.current_time()
        return await self._answer(
            self._connection.request(method, body, now, timeout=timeout, needs_result=needs_result)
        )

    async def set_tag(self, name: str, payload: object, *, timeout: float | None = None) -> None:
        """Tag this connection at the server. Raises as `request` does; Refused when the server does not want it."""
        await self._answer(self._connection.set_tag(name, payload, trio.current_time(), timeout=timeout))

    async def _answer(self, requested: Requested) -> Answered:
        pending = self._pending[requested.id] = _Pending()
        self._post(requested.frames)
        try:
            await pending.ended.wait()
        except BaseException:
            if isinstance(pending.result, outcome.Value):  # it came, but nobody will look at it
                self.give_up(*pending.result.value.streams)
            self._post(self._connection.cancel(requested.id))
            raise
        finally:
            self._pending.pop(requested.id, None)
        assert pending.result is not None  # noqa: S101 - it ended
        return pending.result.unwrap()

    def _told(self, error: PortError) -> PortError:
        return PeerError(self._clean(error.text), error.data) if isinstance(error, PeerError) else error

    def _end(self, name: str, result: outcome.Outcome[Answered]) -> None:
        if (pending := self._pending.get(name)) is not None:
            pending.end(result)

    # --- streams in answers

    async def take(self, stream: StreamRef) -> bytes | None:
        """The next chunk of a stream, None at its end. Not taking is what holds the peer back.

        Raises Unavailable when the stream breaks, Refused when this peer cannot deliver it.
        """
        incoming = self._streams.get(stream)
        if incoming is None:
            raise StreamBroken("there is no such stream (any more)")
        while True:
            if incoming.error is not None:
                self._streams.pop(stream, None)
                raise incoming.error
            taken = self._connection.take(stream, trio.current_time())
            self._post(taken.frames)
            match taken.item:
                case Chunk(b""):
                    continue
                case Chunk(data):
                    return data
                case End():
                    self._streams.pop(stream, None)
                    return None
                case Value():
                    self.give_up(stream)
                    raise StreamBroken("the stream carried something else than bytes")
                case _:
                    incoming.news = trio.Event()
                    await incoming.news.wait()

    def give_up(self, *streams: StreamRef) -> None:
        """End the reading of streams, wherever they are."""
        for stream in streams:
            self._streams.pop(stream, None)
            self._post(self._connection.abort(stream))

    def _tell(self, ref: StreamRef, error: PortError | None = None) -> None:
        if (incoming := self._streams.get(ref)) is not None:
            incoming.error = incoming.error or error
            incoming.news.set()

    # --- requests of the peer

    def _asked(self, asked: Asked, nursery: trio.Nursery) -> None:
        for ref in asked.streams:  # no handler takes any
            self._post(self._connection.abort(ref))
        handler = self._handlers.get(asked.method)
        if handler is None:
            self._post(self._connection.respond_unknown(asked.ask))
            return
        request = asked.request if isinstance(asked.request, Mapping) else {}
        try:
            response = handler(request)
        except Exception as exc:  # noqa: BLE001 - it costs one request
            self._refuse(asked, exc)
            return
        if inspect.isawaitable(response):
            nursery.start_soon(partial(self._respond_later, asked, response))
        else:
            self._respond(asked, response)

    async def _respond_later(self, asked: Asked, response: Awaitable[Response]) -> None:
        try:
            result = await response
        except Exception as exc:  # noqa: BLE001 - it costs one request
            self._refuse(asked, exc)
        else:
            self._respond(asked, result)

    def _respond(self, asked: Asked, response: Response) -> None:
        try:
            self._post(self._connection.respond(asked.ask, response, trio.current_time()))
        except PortError as exc:  # too large, or not JSON
            self._refuse(asked, exc)

    def _refuse(self, asked: Asked, exc: Exception) -> None:
        if isinstance(exc, Refused | PreconditionFailed):
            self._post(self._connection.respond_error(asked.ask, str(exc)))
            return
        where = "".join(traceback.format_tb(exc.__traceback__))
        log.error("unexpected error", method=asked.method, error=type(exc).__name__, traceback=where)
        self._post(self._connection.respond_error(asked.ask))


def _first_text(group: BaseExceptionGroup[Unavailable]) -> str:
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return str(inner)


__all__ = ["ConnectionClosed", "Handler", "Peer", "Response", "Socket", "TagListener"]
