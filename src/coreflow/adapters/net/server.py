"""A server of WebSockets, posted documents and a few pages."""

import asyncio
import logging
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

import orjson
import structlog
import trio
from aiohttp import web
from attrs import Factory, define, evolve, field, frozen

from coreflow.domain.errors import CannotListen, leaves

from .accepting import BACKLOG, Acceptor, Places, Room
from .bridge import in_asyncio, in_trio
from .errors import Closed, Interrupted
from .transport import TooLong, abort, read_body
from .websocket import CLOSE_SECONDS, GOING_AWAY, INTERNAL_ERROR, ServerSocket, SocketOptions, WebSocket

log = structlog.get_logger()
_silent = logging.getLogger(f"{__name__}.aiohttp")
"""For what aiohttp has to say about bad requests: it quotes them."""
_silent.disabled = True

STOP_SECONDS = 5.0
"""How long a server may take to end."""
IDLE_SECONDS = 15.0
"""A connection to a server that asks for nothing is dropped after this."""
BODY_SECONDS = 30.0
"""How long the body of a request may take to arrive."""


@frozen
class Posted:
    """An HTTP POST: the path, and the body as text."""

    path: str
    text: str


@frozen
class PostAnswer:
    """An answer to a POST: JSON as text, and the status."""

    text: str
    status: int = 200


@frozen
class Page:
    """An answer to a GET: a text, and what kind of text it is."""

    text: str
    content_type: str
    status: int = 200


def always_well() -> str:
    """Nothing is wrong."""
    return ""


_ROOM = Room(connections=256)


@frozen(kw_only=True)
class ServerOptions(SocketOptions):
    """Options of a server."""

    room: Room = _ROOM
    """Beyond it, a connection is turned away with status 503."""
    is_expected: Callable[[str], Awaitable[bool]] | None = None
    """Whether an address may use the reserved room. Asked only when there is no other."""
    healthz: Callable[[], str] = always_well
    """What is wrong, if anything: the answer to `GET /healthz`."""
    post: Callable[[Posted], Awaitable[PostAnswer]] | None = None
    pages: Mapping[str, Callable[[], Page]] = Factory(dict)
    """What a GET of a path is answered with."""
    find_page: Callable[[str], Page | None] = lambda _: None
    """The same for other paths. None: there is no such page."""
    answers: Mapping[str, Callable[[Mapping[str, str]], Awaitable[Page]]] = Factory(dict)
    """The same for what has to be waited for or asked with a query: name -> value, the first one of each name."""
    idle_timeout: float = IDLE_SECONDS
    """Seconds after which a connection is dropped that asks for nothing."""
    grace: float = CLOSE_SECONDS
    """Seconds that a handler has to notice that its peer has gone."""
    tls: ssl.SSLContext | None = None
    message_limit: Callable[[str], Awaitable[int]] | None = None
    """Bytes of the longest message that an address may send, where it is not `max_message` for all."""


_DEFAULTS = ServerOptions()


class Listening:
    """A server that accepts connections."""

    def __init__(self, port: int, places: Places) -> None:
        self.port, self._places = port, places

    @property
    def connections(self) -> int:
        """Return how many there are, of any kind."""
        return self._places.taken


async def serve_websockets(
    host: str,
    port: int,
    handler: Callable[[WebSocket], Awaitable[None]],
    options: ServerOptions = _DEFAULTS,
    *,
    task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, and end within seconds then. Port 0 takes a free one, see `Listening.port`.

    Every path upgrades; `handler` has the connection as long as it runs, and learns from Closed that the peer has gone.
    `GET /healthz`, other pages and a POST are answered as the options say. What a handler raises costs its own
    connection only. Raises CannotListen where it cannot.
    """
    instance = _Site(handler, options)
    try:
        listener = await in_asyncio(instance.listen, host, port)
    except OSError as exc:
        raise CannotListen(f"cannot listen on {host}:{port}: {exc.strerror or type(exc).__name__}") from exc
    async with trio.open_nursery() as nursery:
        try:
            await in_asyncio(instance.start, nursery)
            task_status.started(listener)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await in_asyncio(instance.stop)


class _Server(web.Server):
    """aiohttp's own, which also says when a connection is lost."""

    on_lost: Callable[[asyncio.BaseProtocol], None]

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.on_lost(handler)


@define(eq=False)
class _Place:
    """A connection that counts, and who needs it: itself, and every request that is being answered."""

    address: str
    holders: int = 1


@define(eq=False)
class _Site:
    """The asyncio side of a server."""

    handler: Callable[[WebSocket], Awaitable[None]]
    options: ServerOptions
    _places: Places = field(init=False)
    _held: dict[asyncio.BaseProtocol, _Place] = field(factory=dict, init=False)
    _server: _Server = field(init=False)
    _acceptor: Acceptor = field(init=False)
    _listeners: list[socket.socket] = field(factory=list, init=False)
    _accepting: list[asyncio.Task[None]] = field(factory=list, init=False)
    _nursery: trio.Nursery = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._places = Places(self.options.room)

    async def listen(self, host: str, port: int) -> Listening:
        """Take the port, without accepting anything yet."""
        self._server = _Server(
            self._answer,
            handler_cancellation=True,
            keepalive_timeout=self.options.idle_timeout,
            access_log=None,
            logger=_silent,
        )
        self._server.on_lost = self._release
        expected = self.options.is_expected
        self._acceptor = Acceptor(
            self._places,
            self._converse_with,
            None if expected is None else partial(self._is_expected, expected),
            speaks_plainly=self.options.tls is None,
        )
        # asyncio only resolves and binds: what it would do next knows no address in time
        bound = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, host, port, start_serving=False
        )
        self._listeners = [listener.dup() for listener in bound.sockets]
        bound.close()
        for listener in self._listeners:
            listener.listen(BACKLOG)
        return Listening(self._listeners[0].getsockname()[1], self._places)

    async def start(self, nursery: trio.Nursery) -> None:
        """Accept connections; their handlers are children of `nursery`."""
        self._nursery = nursery
        for listener in self._listeners:
            self._accepting.append(asyncio.create_task(self._acceptor.run(listener)))

    async def _is_expected(self, expected: Callable[[str], Awaitable[bool]], address: str) -> bool:
        return await in_trio(self._nursery, expected, address)

    async def _converse_with(self, connection: socket.socket, address: str) -> None:
        """Serve a connection that has a place."""
        protocol = self._server()
        self._held[protocol] = _Place(address)
        tls = self.options.tls
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=tls,
                ssl_handshake_timeout=self.options.idle_timeout if tls else None,
            )
        except BaseException:
            connection.close()
            self._release(protocol)
            raise

    def _release(self, protocol: asyncio.BaseProtocol) -> None:
        """Give a place back once its connection is lost and nobody works for it any more."""
        place = self._held.get(protocol)
        if place is not None:
            place.holders -= 1
            if not place.holders:
                del self._held[protocol]
                self._places.free(place.address)

    async def stop(self) -> None:
        """Turn everybody away. The nursery has been cancelled, so handlers are ending already."""
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._acceptor.stop()
        for listener in self._listeners:
            listener.close()
        transports = [protocol.transport for protocol in self._server.connections]
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS - 1):
                await self._server.shutdown(CLOSE_SECONDS)
        for transport in transports:
            if transport is not None:
                abort(transport)
        await asyncio.sleep(0)  # for the transports to let go of their sockets

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        place = self._held.get(protocol)
        if place is not None:
            place.holders += 1
        try:
            return await self._answer_whom(request)
        finally:
            if place is not None:
                self._release(protocol)

    async def _answer_whom(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._converse(request)
            if request.method in ("GET", "HEAD"):
                return await self._get(request)
            if request.method == "POST" and self.options.post is not None:
                return await self._receive_post(request, self.options.post)
        except Interrupted:  # the server is stopping
            return _json({"error": "Service unavailable"}, 503)
        except web.HTTPException as exc:  # a handshake that is none
            return _json({"error": exc.reason}, exc.status)
        except ConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001 - a bug costs one request
            _log_bug(exc, path=request.path)
            return _json({"error": "Internal server error"}, 500)
        return _json({"error": "Not found"}, 404)

    def _page(self, path: str) -> Page | None:
        page = self.options.pages.get(path)
        return page() if page is not None else self.options.find_page(path)

    async def _get(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/healthz":
            wrong = self.options.healthz()
            return _json({"status": wrong or "ok"}, 503 if wrong else 200)
        if (answer := self.options.answers.get(request.path)) is not None:
            return _shown(await in_trio(self._nursery, answer, dict(request.query)))
        page = self._page(request.path)
        return _shown(page) if page is not None else _json({"error": "Not found"}, 404)

    async def _converse(self, request: web.BaseRequest) -> web.StreamResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol")
        limit = self.options.max_message
        if self.options.message_limit is not None:
            limit = await in_trio(self._nursery, self.options.message_limit, request.remote or "")
        raw = ServerSocket(
            heartbeat=self.options.heartbeat,
            max_msg_size=limit + 1,  # aiohttp's limit is the first size that is too long
            compress=self.options.compress,
            decode_text=False,
            timeout=CLOSE_SECONDS,
            protocols=(offered.split(",")[0].strip(),) if offered else (),  # some clients insist on one
        )
        await raw.prepare(request)
        connection = WebSocket(raw, request.path, evolve(self.options, max_message=limit))
        code = 1000
        try:
            # A peer that leaves cancels this task; its handler hears of it from Closed, like of any other end.
            await in_trio(self._nursery, self.handler, connection, grace=self.options.grace)
        except Interrupted:
            code = GOING_AWAY
        except Exception as exc:  # noqa: BLE001 - a bug costs one connection
            if not all(isinstance(leaf, Closed) for leaf in leaves(exc)):
                code = INTERNAL_ERROR
                _log_bug(exc, path=request.path)
        finally:
            await connection.close_now(code)
        return raw

    async def _receive_post(
        self, request: web.BaseRequest, post: Callable[[Posted], Awaitable[PostAnswer]]
    ) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_body(request.content, self.options.max_message)
        except TooLong:
            return _json({"error": "Request too large"}, 413)
        except TimeoutError:
            return _json({"error": "Request timed out"}, 408)
        posted = Posted(request.path, body.decode(errors="replace"))
        answer = await in_trio(self._nursery, post, posted)
        return web.Response(text=answer.text, status=answer.status, content_type="application/json")


def _shown(page: Page) -> web.StreamResponse:
    headers = {"Content-Type": page.content_type, "Cache-Control": "no-store"}
    return web.Response(body=page.text.encode(), status=page.status, headers=headers)


def _json(document: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _log_bug(exc: Exception, **facts: str) -> None:
    """As elsewhere: with the place, without the message, which could quote a value."""
    bugs = [bug for bug in leaves(exc) if not isinstance(bug, Closed)]
    where = "".join(line for bug in bugs for line in traceback.format_tb(bug.__traceback__))
    log.error(
        "unexpected error", error=", ".join(type(bug).__name__ for bug in bugs), traceback=where, **facts
    )
