"""WebSockets, HTTP and transfers over it for trio, and the entry point that makes them possible.

aiohttp needs asyncio, everything else here is trio. So trio runs as a guest: `run` starts a stock asyncio loop, and
trio's scheduler takes its turns in it. Both live in one thread, neither is patched, and what either does can be read
by the other without a lock. This is the only module that knows asyncio and aiohttp; what it offers speaks trio, and
its errors are the domain's.

Two bridges carry calls across, and each keeps the promise of the side it comes from:

- `in_asyncio` runs a coroutine for a trio task. Cancelling the trio task cancels the coroutine and waits for its end.
- `in_trio` runs an async function for an asyncio task, as a child of a given nursery. It never outlives its caller.

A crossing costs some 60 microseconds. One per message is fine; a loop over many chunks belongs in one coroutine, of
which only the result crosses. Work that computes for more than 50 ms belongs in a thread: meanwhile nobody answers
pings.
"""

import asyncio
import logging
import os
import socket
import ssl
import struct
import traceback
from collections import Counter
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, TypeVarTuple
from urllib.parse import SplitResult, urlsplit

import aiohttp
import orjson
import outcome
import structlog
import trio
from aiohttp import ClientTimeout, ClientWSTimeout, WSMsgType, web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_exceptions import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientResponseError,
    WSServerHandshakeError,
)
from attrs import define, field, frozen

from coreflow.domain.errors import CoreflowError, Refused, Unavailable, leaves
from coreflow.domain.redaction import NOTHING_KNOWN

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = structlog.get_logger()
_silent = logging.getLogger(f"{__name__}.aiohttp")
"""For what aiohttp has to say about bad requests: it quotes them."""
_silent.disabled = True

MAX_MESSAGE = 100 * 1024 * 1024
"""Bytes of the longest message that is accepted, as in the original."""
HEARTBEAT_SECONDS = 20.0
"""A peer that was silent for so long is pinged, and has half of it to say something. Any byte from it counts, so a long
message may arrive slowly; one to a silent peer must get through in that time, because the ping waits behind it."""
CONNECT_SECONDS = 10.0
SEND_SECONDS = 20.0
"""How long a message may wait for a peer that does not read."""
CLOSE_SECONDS = 2.0
"""How long a goodbye may take."""
STOP_SECONDS = 5.0
"""How long a server may take to end."""
LINGER_SECONDS = 10.0
"""How long a peer that broke the rules may go on talking, so that it gets to hear why it is being dropped."""
IDLE_SECONDS = 15.0
"""A connection to a server that asks for nothing is dropped after this."""
BODY_SECONDS = 30.0
"""How long the body of a request may take to arrive."""
MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of the longest answer to a plain request."""
STALL_SECONDS = 60.0
"""How long a transfer may go without a byte."""
PIECE_BYTES = 512 * 1024
"""What crosses from one loop to the other at once in a transfer, about."""
_WRITE_BYTES = 64 * 1024
"""What of it is written at once: so much must get through within the time that a transfer may stall."""

GOING_AWAY, ABNORMAL, INTERNAL_ERROR = 1001, 1006, 1011
_NO_CODE_GIVEN = 1005
_PROTOCOL_FAULTS = frozenset({1002, 1003, 1007, 1009})


# ---------------------------------------------------------------- errors


class Interrupted(Unavailable):
    """The other side of a bridge was cancelled, while nobody had asked for that on this side."""


class Closed(Unavailable):
    """A WebSocket is no longer there. `code` is as in RFC 6455: 1006 when it went without a goodbye."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __str__(self) -> str:
        return (
            f"connection closed: {self.reason} ({self.code})"
            if self.reason
            else f"connection closed ({self.code})"
        )


class Denied(Refused):
    """An HTTP request was answered with a status that will not change by asking again."""

    def __init__(self, where: str, status: int, body: object = None) -> None:
        super().__init__(where, status)
        self.where, self.status, self.body = where, status, body

    def __str__(self) -> str:
        return f"{self.where} answered with HTTP status {self.status}"


class Failing(Unavailable):
    """An HTTP request was answered with a status that may change by asking again. The text is without the body."""

    def __init__(self, where: str, status: int, body: object = None) -> None:
        super().__init__(f"{where} answered with HTTP status {status}")
        self.where, self.status, self.body = where, status, body


class NotHosted(CoreflowError, RuntimeError):
    """The process runs trio alone, and aiohttp needs asyncio around it."""


_ASK_AGAIN = frozenset({408, 425, 429})


def _is_passing(status: int) -> bool:
    return status >= 500 or status in _ASK_AGAIN


@contextmanager
def _translated(where: str, seconds: float) -> Iterator[None]:
    """Turn what connecting to `where` may raise into the domain's two errors. Texts name the far side, no values."""
    try:
        yield
    except TimeoutError as exc:
        raise Unavailable(f"{where} did not answer within {seconds:g} s") from exc
    except WSServerHandshakeError as exc:
        if _is_passing(exc.status):
            raise Unavailable(f"{where} answered with HTTP status {exc.status}") from exc
        if exc.status < 300:
            raise Refused(f"{where} does not speak WebSocket") from exc
        raise Denied(where, exc.status) from exc
    except ClientResponseError as exc:
        raise Unavailable(f"{where} does not speak HTTP") from exc
    except aiohttp.InvalidURL as exc:
        raise Refused(f"{where}: not an address that can be used") from exc
    except (ClientConnectorCertificateError, ssl.SSLCertVerificationError) as exc:
        cause = exc.certificate_error if isinstance(exc, ClientConnectorCertificateError) else exc
        reason = getattr(cause, "verify_message", "") or type(cause).__name__
        raise Refused(f"the certificate of {where} is not trusted: {reason}") from exc
    except ClientConnectorDNSError as exc:
        raise Unavailable(f"{where}: no address is known for this name") from exc
    except ClientConnectorError as exc:
        number = exc.os_error.errno  # asyncio's own text names the address once more
        reason = os.strerror(number) if number else type(exc.os_error).__name__
        raise Unavailable(f"{where} cannot be reached: {reason}") from exc
    except UnicodeError as exc:
        raise Refused(f"{where}: not a host name that can be used") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise Unavailable(f"{where}: {type(exc).__name__}") from exc


# ---------------------------------------------------------------- both loops


def run(
    main: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """Run `main` under trio, as `trio.run` does, with an asyncio loop around it. The entry point of the process.

    In tests: `pytest.mark.trio(run=run)`. A clock that jumps sees a task that waits for asyncio as idle.
    """
    return asyncio.run(_host(partial(main, *args), clock, instruments))


async def _host(
    main: Callable[[], Awaitable[T]], clock: trio.abc.Clock | None, instruments: Sequence[trio.abc.Instrument]
) -> T:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[outcome.Outcome[T | None]] = loop.create_future()
    scope = trio.CancelScope()

    async def guest() -> T | None:
        with scope:
            return await main()
        return None

    trio.lowlevel.start_guest_run(
        guest,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        run_sync_soon_not_threadsafe=loop.call_soon,
        done_callback=ended.set_result,
        # asyncio does not, unless asked for signals: without trio's, a signal that another thread took would wait.
        host_uses_signal_set_wakeup_fd=False,
        clock=clock,
        instruments=list(instruments),
    )
    while not ended.done():  # whatever happens to asyncio: trio must run to its end
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError:  # Ctrl-C, unless somebody else took the signal
            scope.cancel()
    result = ended.result().unwrap()
    if scope.cancelled_caught:
        raise asyncio.CancelledError
    return result  # type: ignore[return-value]  # None only when the scope caught


def is_hosted() -> bool:
    """Whether there is an asyncio loop around the present trio, so that this module works."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def in_asyncio(job: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """For a trio task: run `job` as an asyncio task and wait for it. Results and exceptions cross.

    Raises Interrupted when the asyncio side cancels it on its own.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise NotHosted("the process must be started with coreflow.adapters.web.run") from None
    waiting = trio.lowlevel.current_task()
    task: asyncio.Task[T] = loop.create_task(job(*args))
    raise_cancelled: Callable[[], Any] | None = None

    def wake(done: asyncio.Task[T]) -> None:
        trio.lowlevel.reschedule(waiting, outcome.capture(done.result))

    def abort(raiser: Callable[[], Any]) -> trio.lowlevel.Abort:
        nonlocal raise_cancelled
        raise_cancelled = raiser
        task.cancel()
        return trio.lowlevel.Abort.FAILED  # `wake` follows once the task has ended

    task.add_done_callback(wake)
    try:
        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
    except asyncio.CancelledError as exc:
        if raise_cancelled is not None:
            raise_cancelled()
        raise Interrupted("an asyncio task was cancelled from within") from exc
    return result


async def in_trio(
    nursery: trio.Nursery, job: Callable[[*Ts], Awaitable[T]], *args: *Ts, grace: float = 0.0
) -> T:
    """For an asyncio task: run `job` as a trio task in `nursery` and wait for it. Results and exceptions cross.

    When the caller is cancelled, `job` may go on for `grace` seconds, then it is cancelled; the caller ends after it.
    Raises Interrupted when the trio side cancels it on its own.
    """
    ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    scope = trio.CancelScope()

    async def body() -> None:
        try:
            with scope:
                ended.set_result(await job(*args))
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            ended.set_exception(exc)
        finally:
            if not ended.done():
                ended.set_exception(Interrupted("a trio task was cancelled from within"))

    try:
        nursery.start_soon(body)
    except RuntimeError as exc:  # the nursery is closed
        raise Interrupted("no more tasks are started") from exc
    try:
        await asyncio.wait([ended])
    except asyncio.CancelledError:
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ended], timeout=grace)
        scope.cancel()
        while not ended.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([ended])
        ended.exception()  # seen
        raise
    return ended.result()


# ---------------------------------------------------------------- WebSockets


class _ClientSocket(aiohttp.ClientWebSocketResponse[Literal[True]]):
    """aiohttp's own, which also knows its transport."""

    def __init__(
        self,
        reader: Any,
        writer: Any,
        protocol: Any,
        response: aiohttp.ClientResponse,
        *args: Any,
        **options: Any,
    ) -> None:
        super().__init__(reader, writer, protocol, response, *args, **options)
        connection = response.connection
        assert connection is not None and connection.transport is not None  # noqa: S101, PT018 - it was just upgraded
        self.transport: asyncio.Transport = connection.transport


class _ServerSocket(web.WebSocketResponse[Literal[True]]):
    """aiohttp's own, which also knows its transport, and lets a peer that broke the rules hear why."""

    transport: asyncio.Transport

    async def prepare(self, request: web.BaseRequest) -> Any:
        if request.transport is None:
            raise ConnectionResetError
        self.transport = request.transport
        return await super().prepare(request)

    async def close(
        self, *, code: int = aiohttp.WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        if code in _PROTOCOL_FAULTS and not self.closed:
            # Closing now would reset the connection, because the peer is still sending, and the reset would overtake
            # the reason. So only our half is closed; aiohttp throws away what arrives from here on.
            with suppress(ConnectionError):
                await self.send_frame(struct.pack("!H", code) + message, WSMsgType.CLOSE)
                if self.transport.can_write_eof():
                    self.transport.write_eof()
                deadline = asyncio.get_running_loop().time() + LINGER_SECONDS
                while not self.transport.is_closing() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.02)
            _abort(self.transport)
        return await super().close(code=code, message=message, drain=drain)


class WebSocket:
    """One connection, from either end. One task at a time may receive; any number may send.

    Reading stops while nobody receives, so a fast peer is slowed down by a slow receiver. It is dropped when a message
    waits too long for it to read, or when too much is waiting.
    """

    def __init__(
        self, raw: _ClientSocket | _ServerSocket, path: str, *, send_seconds: float, max_queued: int
    ) -> None:
        self._raw, self._transport = raw, raw.transport
        self._send_seconds, self._max_queued = send_seconds, max_queued
        self._end: Closed | None = None
        address = raw.get_extra_info("peername")
        self.path = path
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unknown"

    async def send(self, text: str | bytes) -> None:
        """Send a message (bytes are UTF-8 text) and wait until the peer has made room for more. Raises Closed."""
        data = text.encode() if isinstance(text, str) else text
        if _waiting_bytes(self._transport) > self._max_queued:
            self._drop("the peer does not read, too much is waiting for it")
        if self._end is not None:
            raise self._closed()
        await in_asyncio(self._send, data)

    async def _send(self, data: bytes) -> None:
        # In a task of its own, because it must not be cancelled: all who wait for room share one future in aiohttp,
        # and cancelling one of them would cancel the others, and whoever sends later.
        sending = asyncio.ensure_future(self._raw.send_frame(data, WSMsgType.TEXT))
        sending.add_done_callback(_seen)
        await asyncio.wait([sending], timeout=self._send_seconds)
        if not sending.done():
            self._drop(f"the peer did not read for {self._send_seconds:g} s")
            raise self._closed()
        if sending.cancelled() or isinstance(sending.exception(), ConnectionError | RuntimeError):
            raise self._closed()  # RuntimeError: our half is closed
        sending.result()

    async def receive(self) -> str:
        """The next message; one that is not UTF-8 text comes with replacement characters. Raises Closed."""
        if self._end is not None:
            raise self._closed()
        message = await in_asyncio(self._raw.receive)
        match message.type:
            case WSMsgType.TEXT:
                text: str = message.data
                return text
            case WSMsgType.BINARY:
                return bytes(message.data).decode(errors="replace")
            case WSMsgType.CLOSE:
                self._ended(message.data or _NO_CODE_GIVEN, NOTHING_KNOWN.redact(message.extra))
            case WSMsgType.ERROR if isinstance(message.data, aiohttp.WebSocketError):
                self._ended(message.data.code, NOTHING_KNOWN.redact(str(message.data)))
            case _:
                pass
        raise self._closed()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, and wait a moment for the answer. What is still to be sent after that is lost."""
        with trio.CancelScope(shield=True):
            await in_asyncio(self._close, code, reason)

    async def _close(self, code: int = 1000, reason: str = "") -> None:
        self._ended(code, reason)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._raw.close(code=code, message=_short(reason))
                while _waiting_bytes(self._transport):  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            _abort(self._transport)

    def _drop(self, reason: str) -> None:
        self._ended(ABNORMAL, reason)
        _abort(self._transport)

    def _ended(self, code: int, reason: str) -> None:
        if self._end is None:
            self._end = Closed(code, reason)

    def _closed(self) -> Closed:
        dead = isinstance(self._raw.exception(), TimeoutError)
        self._ended(ABNORMAL, "the peer did not answer a ping" if dead else "connection lost")
        assert self._end is not None  # noqa: S101 - the line above
        return Closed(self._end.code, self._end.reason)


def _waiting_bytes(transport: asyncio.Transport) -> int:
    """How much waits to be sent."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:  # asyncio's way to say that it is closed, with TLS
        return 0


def _abort(transport: asyncio.Transport) -> None:
    """Close without waiting for what is still to be sent."""
    with suppress(AttributeError):  # as above, when it was closed while something was still to be sent
        transport.abort()


def _seen(task: asyncio.Future[Any]) -> None:
    """Nobody may be left to look at the exception of a task; asyncio would complain."""
    if not task.cancelled():
        task.exception()


def _short(reason: str) -> bytes:
    """As much as fits into a frame."""
    return reason.encode()[:123].decode(errors="ignore").encode()


# ---------------------------------------------------------------- the client's side


@frozen
class _Target:
    url: str
    where: str
    secure: bool


def _target(url: str, scheme: str) -> _Target:
    """Where `url` leads, with `http` or `ws` (and the `s` of a secure one) as scheme. Raises Refused."""
    try:
        parts: SplitResult = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https", "ws", "wss"):
        raise Refused("not an address of the form http(s)://host or ws(s)://host")
    secure = parts.scheme in ("https", "wss")
    name = f"[{host}]" if ":" in host else host
    where = f"{name}:{port or (443 if secure else 80)}"
    return _Target(parts._replace(scheme=scheme + "s" * secure).geturl(), where, secure)


async def _trust(target: _Target, ca_file: Path | None) -> ssl.SSLContext | Literal[True]:
    """Whom to trust: those that the system trusts or, when a file is given, those in the file and nobody else."""
    if not target.secure:
        return True
    try:
        return await trio.to_thread.run_sync(partial(ssl.create_default_context, cafile=ca_file))
    except OSError as exc:  # an SSLError is one
        raise Refused(f"{ca_file}: not a readable file of certificates") from exc


class _DaemonResolver(AbstractResolver):
    """Looks up names in threads that a process does not wait for when it ends; the loop's own would be waited for."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[outcome.Outcome[list[Any]]] = loop.create_future()

        def settle(found: outcome.Outcome[list[Any]]) -> None:
            if not answer.done():
                answer.set_result(found)

        def deliver(found: outcome.Outcome[list[Any]]) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found)

        look_up = partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        trio.lowlevel.start_thread_soon(look_up, deliver)
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in (await answer).unwrap()
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _refuse_redirect(*_: object) -> None:
    raise Refused("the far side redirects to another address")


class _Connector(aiohttp.TCPConnector):
    """aiohttp's own, which can also drop what it has connected."""

    def __init__(self, tls: ssl.SSLContext | Literal[True]) -> None:
        super().__init__(ssl=tls, resolver=_DaemonResolver(), force_close=True)
        self._transports: list[asyncio.Transport] = []

    async def connect(self, *args: Any, **options: Any) -> Any:
        connection = await super().connect(*args, **options)
        if connection.transport is not None:
            self._transports.append(connection.transport)
        return connection

    def abort(self) -> None:
        """Close every connection without waiting for what is still to be sent."""
        for transport in self._transports:
            _abort(transport)


def _session(
    tls: ssl.SSLContext | Literal[True], connector: aiohttp.BaseConnector | None = None
) -> aiohttp.ClientSession:
    """A session for one use: nothing is shared, so nothing can be left over."""
    redirects = aiohttp.TraceConfig()
    redirects.on_request_redirect.append(_refuse_redirect)
    return aiohttp.ClientSession(
        connector=_Connector(tls) if connector is None else connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "coreflow"},
        timeout=ClientTimeout(total=None),
        trace_configs=[redirects],
        ws_response_class=_ClientSocket,
    )


@asynccontextmanager
async def connect_websocket(
    url: str,
    *,
    ca_file: Path | None = None,
    heartbeat: float = HEARTBEAT_SECONDS,
    max_message: int = MAX_MESSAGE,
    connect_timeout: float = CONNECT_SECONDS,
    send_timeout: float = SEND_SECONDS,
    max_queued: int = MAX_MESSAGE,
    compress: bool = False,
) -> AsyncIterator[WebSocket]:
    """A connection to a server; it is closed when the block ends.

    `http` and `https` mean `ws` and `wss`. Certificates are verified, against `ca_file` when given. Redirects are not
    followed, proxies of the environment not used. `connect_timeout` covers everything up to the upgrade. Raises
    Unavailable or Refused; Refused when the certificate is not trusted or the server said no.
    """
    target = _target(url, "ws")
    tls = await _trust(target, ca_file)

    async def dial() -> tuple[aiohttp.ClientSession, _ClientSocket]:
        session = _session(tls)
        try:
            async with asyncio.timeout(connect_timeout):
                raw = await session.ws_connect(
                    target.url,
                    heartbeat=heartbeat,
                    max_msg_size=max_message + 1,  # aiohttp's limit is the first size that is too long
                    compress=15 if compress else 0,
                    timeout=ClientWSTimeout(ws_close=CLOSE_SECONDS),
                )
        except BaseException:
            await session.close()
            raise
        assert isinstance(raw, _ClientSocket)  # noqa: S101 - see _session
        return session, raw

    with _translated(target.where, connect_timeout):
        session, raw = await in_asyncio(dial)
    socket_ = WebSocket(raw, urlsplit(url).path or "/", send_seconds=send_timeout, max_queued=max_queued)
    try:
        yield socket_
    finally:
        with trio.CancelScope(shield=True):
            try:
                await socket_.close()
            finally:
                await in_asyncio(session.close)


@frozen
class HttpAnswer:
    """What an HTTP server said: the status, and the body as JSON (None when there was none)."""

    status: int
    body: Any


async def http_get(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    timeout: float = 30.0,
    max_answer: int = MAX_ANSWER,
) -> HttpAnswer:
    """Ask for a JSON document. Raises Unavailable, or Denied for a status that asking again will not change."""
    return await _request("GET", url, None, headers, ca_file, timeout, max_answer)


async def http_post(
    url: str,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    timeout: float = 30.0,
    max_answer: int = MAX_ANSWER,
) -> HttpAnswer:
    """Post a JSON document. Raises Unavailable (it may have been received), or Denied as `http_get`."""
    return await _request("POST", url, orjson.dumps(body), headers, ca_file, timeout, max_answer)


async def _request(
    method: str,
    url: str,
    data: bytes | None,
    headers: Mapping[str, str] | None,
    ca_file: Path | None,
    seconds: float,
    max_answer: int,
) -> HttpAnswer:
    target = _target(url, "http")
    tls = await _trust(target, ca_file)
    wanted = {"Accept": "application/json", **(headers or {})}
    if data is not None:
        wanted["Content-Type"] = "application/json"

    async def ask() -> tuple[int, bytes]:
        async with (
            asyncio.timeout(seconds),
            _session(tls) as session,
            session.request(method, target.url, data=data, headers=wanted, allow_redirects=False) as answer,
        ):
            return answer.status, await _read(answer.content, max_answer)

    with _translated(target.where, seconds):
        try:
            status, text = await in_asyncio(ask)
        except _TooLong as exc:
            raise Unavailable(f"{target.where} answered with more than {max_answer} bytes") from exc
    return _judged(target, status, text)


def _judged(target: _Target, status: int, text: bytes) -> HttpAnswer:
    """An answer that is fine. Raises Failing or Denied for others, Unavailable for one that is not JSON."""
    fine = 200 <= status < 300
    try:
        body = orjson.loads(text) if text.strip() else None
    except orjson.JSONDecodeError as exc:
        if fine:
            raise Unavailable(f"{target.where} did not answer in JSON") from exc
        body = None
    if _is_passing(status):
        raise Failing(target.where, status, body)
    if not fine:
        raise Denied(target.where, status, body)
    return HttpAnswer(status, body)


class _TooLong(Exception):
    pass


async def _read(content: aiohttp.StreamReader, limit: int) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            raise _TooLong
    return bytes(body)


# ---------------------------------------------------------------- transfers


class Download:
    """An answer that is still arriving: iterate over it, once, for its body.

    No piece is empty, and none is much longer than PIECE_BYTES. What is not read waits on the far side. Reading raises
    Unavailable when the far side breaks off, or stalls.
    """

    def __init__(self, where: str, answer: aiohttp.ClientResponse, stall: float) -> None:
        self._where, self._answer, self._stall = where, answer, stall
        self._arrived = bytearray()
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        """In whatever case they are asked for."""

    @property
    def size(self) -> int | None:
        """Bytes of the body, if the far side says."""
        return self._answer.content_length

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _translated(self._where, self._stall):
            piece = await in_asyncio(self._pull)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _pull(self) -> bytes:
        while len(self._arrived) < PIECE_BYTES:
            async with asyncio.timeout(self._stall):
                chunk = await self._answer.content.readany()
            if not chunk:
                break
            self._arrived += chunk
        piece, self._arrived = bytes(self._arrived), bytearray()
        return piece


@asynccontextmanager
async def http_download(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    timeout: float = 30.0,
    stall: float = STALL_SECONDS,
    max_answer: int = MAX_ANSWER,
) -> AsyncIterator[Download]:
    """Ask for something of any size. The answer must begin within `timeout`, and go on at least every `stall` seconds.

    Entering raises Unavailable, or Denied as `http_get`. Leaving early drops the connection. The body is not decompressed.
    """
    target = _target(url, "http")
    tls = await _trust(target, ca_file)
    wanted = {"Accept-Encoding": "identity", **(headers or {})}

    async def begin() -> tuple[_Exchange, aiohttp.ClientResponse, bytes]:
        exchange = _Exchange(tls)
        try:
            async with asyncio.timeout(timeout):
                answer = await exchange.request(method, target.url, headers=wanted)
                fine = 200 <= answer.status < 300
                return exchange, answer, b"" if fine else await _read(answer.content, max_answer)
        except BaseException:
            await exchange.drop()
            raise

    with _translated(target.where, timeout):
        try:
            exchange, answer, denial = await in_asyncio(begin)
        except _TooLong as exc:
            raise Unavailable(f"{target.where} answered with more than {max_answer} bytes") from exc
    try:
        _judged(target, answer.status, denial)
        yield Download(target.where, answer, stall)
    finally:
        with trio.CancelScope(shield=True):
            await in_asyncio(exchange.drop)


async def http_upload(
    url: str,
    chunks: AsyncIterable[bytes],
    size: int,
    *,
    method: str = "PUT",
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    stall: float = STALL_SECONDS,
    max_answer: int = MAX_ANSWER,
) -> HttpAnswer:
    """Send `size` bytes from `chunks`, which is asked for more only as fast as the far side reads.

    The last piece is sent when `chunks` has ended. So whatever it raises, and this comes out, the far side has not got a
    whole body. The same goes for another number of bytes than `size`, which is Refused. Raises Unavailable (it may have
    been received) also when no byte moves, or no answer comes, for `stall` seconds; or Denied as `http_get`.
    """
    target = _target(url, "http")
    tls = await _trust(target, ca_file)
    wanted = {
        "Accept": "application/json",
        "Content-Type": "application/octet-stream",
        **(headers or {}),
        "Content-Length": str(size),
    }
    upload = _Upload(target, tls, method, wanted, stall, max_answer)
    total, waiting = 0, bytearray()
    over = False
    try:
        async for chunk in chunks:
            total += len(chunk)
            if total > size:
                break
            if chunk and len(waiting) >= PIECE_BYTES:
                with _translated(target.where, stall):
                    over = await in_asyncio(upload.give, waiting)
                if over:
                    break
                waiting = bytearray()
            waiting += chunk
        if not over and total != size:
            raise Refused(f"what is to be sent is {'longer' if total > size else 'shorter'} than announced")
        with _translated(target.where, stall):
            try:
                status, text = await in_asyncio(upload.finish, waiting)
            except _TooLong as exc:
                raise Unavailable(f"{target.where} answered with more than {max_answer} bytes") from exc
    finally:
        with trio.CancelScope(shield=True):
            await in_asyncio(upload.drop)
    answer = _judged(target, status, text)
    if upload.sent != size:
        raise Unavailable(f"{target.where} did not wait for the whole of what was sent")
    return answer


class _Exchange:
    """A request in a session of its own, which may be dropped at any time. For asyncio."""

    def __init__(self, tls: ssl.SSLContext | Literal[True]) -> None:
        self._connector = _Connector(tls)
        self._session = _session(tls, self._connector)
        self._answer: aiohttp.ClientResponse | None = None

    async def request(self, method: str, url: str, **options: Any) -> aiohttp.ClientResponse:
        """Ask, and return what begins to arrive."""
        self._answer = await self._session.request(
            method,
            url,
            allow_redirects=False,
            read_bufsize=PIECE_BYTES // 2,
            auto_decompress=False,
            **options,
        )
        return self._answer

    async def drop(self) -> None:
        """End everything at once."""
        self._connector.abort()
        if self._answer is not None:
            self._answer.close()
        await self._session.close()


class _Upload:
    """The asyncio side of an upload. The request starts with the first piece."""

    def __init__(
        self,
        target: _Target,
        tls: ssl.SSLContext | Literal[True],
        method: str,
        headers: Mapping[str, str],
        stall: float,
        max_answer: int,
    ) -> None:
        self._target, self._tls, self._method, self._headers = target, tls, method, headers
        self._stall, self._max_answer = stall, max_answer
        self._feed = _Feed()
        self._exchange: _Exchange | None = None
        self._task: asyncio.Task[tuple[int, bytes]] | None = None
        self.sent = 0
        """Bytes of the body that had been sent when the answer came."""

    async def give(self, piece: bytearray) -> bool:
        """Send a piece, and wait until there is room for more. Whether the answer is there already, so that it is over."""
        task = self._put(piece, last=False)
        await self._wait(task, self._feed.empty)
        if not task.done():
            return False
        task.result()  # raises what went wrong
        return True

    async def finish(self, piece: bytearray) -> tuple[int, bytes]:
        """Send the last piece, and return the answer: status and body."""
        task = self._put(piece, last=True)
        await self._wait(task, None)
        return task.result()

    async def drop(self) -> None:
        """End everything at once."""
        if self._exchange is None or self._task is None:
            return
        self._task.cancel()
        await self._exchange.drop()
        await asyncio.wait([self._task])

    def _put(self, piece: bytearray, *, last: bool) -> asyncio.Task[tuple[int, bytes]]:
        self._feed.put(piece, last=last)
        if self._task is None:
            self._exchange = _Exchange(self._tls)
            self._task = asyncio.create_task(self._send(self._exchange))
            self._task.add_done_callback(_seen)
        return self._task

    async def _send(self, exchange: _Exchange) -> tuple[int, bytes]:
        answer = await exchange.request(
            self._method, self._target.url, data=self._feed, headers=self._headers
        )
        self.sent = self._feed.moved
        return answer.status, await _read(answer.content, self._max_answer)

    async def _wait(self, task: asyncio.Task[tuple[int, bytes]], room: asyncio.Event | None) -> None:
        """Wait until there is room or the task is done. Raises TimeoutError when nothing moves for too long."""
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(room.wait()) if room is not None else None
        wanted: list[asyncio.Future[Any]] = [task] if waiting is None else [task, waiting]
        try:
            while (left := self._feed.moved_at + self._stall - loop.time()) > 0:
                done, _ = await asyncio.wait(wanted, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return
            raise TimeoutError
        finally:
            if waiting is not None:
                waiting.cancel()


class _Feed:
    """Hands a body to aiohttp in small parts, as they come. An iterator of asyncio's."""

    def __init__(self) -> None:
        self._piece, self._at, self._last = memoryview(b""), 0, False
        self._more = asyncio.Event()
        self.empty = asyncio.Event()
        """Set when all of a piece has been written."""
        self.moved, self.moved_at = 0, 0.0
        """Bytes taken so far, and when the last of them were, or became available."""

    def put(self, piece: bytearray, *, last: bool) -> None:
        """Give the next piece; the one before must be written."""
        self._piece, self._at, self._last = memoryview(piece), 0, last
        self.moved_at = asyncio.get_running_loop().time()
        self.empty.clear()
        self._more.set()

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self

    async def __anext__(self) -> memoryview:
        if self._at:  # the part before is written
            self.moved_at = asyncio.get_running_loop().time()
        while self._at >= len(self._piece):
            self.empty.set()
            if self._last:
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()
        part = self._piece[self._at : self._at + _WRITE_BYTES]
        self._at += len(part)
        self.moved += len(part)
        return part


# ---------------------------------------------------------------- the server's side


@frozen
class Posted:
    """An HTTP POST: the path, and the body as text."""

    path: str
    text: str


@frozen
class PostAnswer:
    """What to answer: JSON as text, and the status."""

    text: str
    status: int = 200


@frozen
class Page:
    """What to answer a GET with: a text, and what kind of text it is."""

    text: str
    content_type: str


def always_well() -> str:
    """Nothing is wrong."""
    return ""


class Listening:
    """A server that accepts connections."""

    def __init__(self, port: int, server: web.Server) -> None:
        self.port, self._server = port, server

    @property
    def connections(self) -> int:
        """How many there are, of any kind."""
        return len(self._server.connections)


async def serve_websockets(
    host: str,
    port: int,
    handler: Callable[[WebSocket], Awaitable[None]],
    *,
    max_connections: int = 256,
    max_per_address: int | None = None,
    max_message: int = MAX_MESSAGE,
    compress: bool = False,
    heartbeat: float = HEARTBEAT_SECONDS,
    send_timeout: float = SEND_SECONDS,
    max_queued: int = MAX_MESSAGE,
    healthz: Callable[[], str] = always_well,
    post: Callable[[Posted], Awaitable[PostAnswer]] | None = None,
    pages: Mapping[str, Callable[[], Page]] | None = None,
    idle_timeout: float = IDLE_SECONDS,
    grace: float = CLOSE_SECONDS,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, and end within seconds then. Port 0 takes a free one, see `Listening.port`.

    Every path upgrades; `handler` has the connection as long as it runs, and learns from Closed that the peer has gone.
    `GET /healthz` tells what is wrong according to `healthz` (status 503), or that nothing is. A POST goes to `post`,
    a GET of one of `pages` gets that. Who asks for nothing is dropped after `idle_timeout` seconds; a handler whose peer has
    gone has `grace` seconds to notice.
    Beyond `max_connections`, and `max_per_address` WebSockets, a connection is turned away with status 503. What a handler raises costs its own
    connection only. Raises Unavailable when it cannot listen.
    """
    site = _Site(
        handler=handler,
        post=post,
        pages=pages or {},
        idle_seconds=idle_timeout,
        grace=grace,
        healthz=healthz,
        max_connections=max_connections,
        max_per_address=max_per_address,
        max_message=max_message,
        compress=compress,
        heartbeat=heartbeat,
        send_seconds=send_timeout,
        max_queued=max_queued,
    )
    try:
        listener = await in_asyncio(site.listen, host, port, tls)
    except OSError as exc:
        raise Unavailable(f"cannot listen on {host}:{port}: {exc.strerror or type(exc).__name__}") from exc
    async with trio.open_nursery() as nursery:
        try:
            await in_asyncio(site.start, nursery)
            task_status.started(listener)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await in_asyncio(site.stop)


@define(eq=False, kw_only=True)
class _Site:
    """The asyncio side of a server."""

    handler: Callable[[WebSocket], Awaitable[None]]
    post: Callable[[Posted], Awaitable[PostAnswer]] | None
    pages: Mapping[str, Callable[[], Page]]
    idle_seconds: float
    grace: float
    healthz: Callable[[], str]
    max_connections: int
    max_per_address: int | None
    max_message: int
    compress: bool
    heartbeat: float
    send_seconds: float
    max_queued: int
    _full: bool = field(default=False, init=False)
    _open: Counter[str] = field(factory=Counter, init=False)
    """WebSockets by address."""
    _server: web.Server = field(init=False)
    _listener: asyncio.Server = field(init=False)
    _nursery: trio.Nursery = field(init=False)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> Listening:
        """Take the port, without accepting anything yet."""
        self._server = web.Server(
            self._answer,
            handler_cancellation=True,
            keepalive_timeout=self.idle_seconds,
            access_log=None,
            logger=_silent,
        )
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._protocol, host, port, ssl=tls, start_serving=False)
        return Listening(self._listener.sockets[0].getsockname()[1], self._server)

    async def start(self, nursery: trio.Nursery) -> None:
        """Accept connections; their handlers are children of `nursery`."""
        self._nursery = nursery
        await self._listener.start_serving()

    async def stop(self) -> None:
        """Turn everybody away. The nursery has been cancelled, so handlers are ending already."""
        self._listener.close()
        transports = [protocol.transport for protocol in self._server.connections]
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS - 1):
                await self._server.shutdown(CLOSE_SECONDS)
        for transport in transports:
            if transport is not None:
                _abort(transport)
        await asyncio.sleep(0)  # for the transports to let go of their sockets

    def _protocol(self) -> asyncio.Protocol:
        taken = len(self._server.connections)
        if taken < self.max_connections:
            self._full = self._full and taken > self.max_connections // 2
            return self._server()
        if not self._full:
            self._full = True
            log.warning("too many connections, turning new ones away", limit=self.max_connections)
        return _TurnedAway()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._upgrade(request)
            if request.method in ("GET", "HEAD") and request.path == "/healthz":
                wrong = self.healthz()
                return _json({"status": wrong or "ok"}, 503 if wrong else 200)
            if request.method in ("GET", "HEAD") and request.path in self.pages:
                page = self.pages[request.path]()
                return web.Response(body=page.text.encode(), headers={"Content-Type": page.content_type})
            if request.method == "POST" and self.post is not None:
                return await self._receive_post(request, self.post)
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

    async def _upgrade(self, request: web.BaseRequest) -> web.StreamResponse:
        address = request.remote or ""
        if self.max_per_address is not None and self._open[address] >= self.max_per_address:
            return _json({"error": "Too many connections"}, 503)
        self._open[address] += 1
        try:
            return await self._converse(request)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    async def _converse(self, request: web.BaseRequest) -> web.StreamResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol")
        raw = _ServerSocket(
            heartbeat=self.heartbeat,
            max_msg_size=self.max_message + 1,  # aiohttp's limit is the first size that is too long
            compress=self.compress,
            timeout=CLOSE_SECONDS,
            protocols=(offered.split(",")[0].strip(),) if offered else (),  # some clients insist on one
        )
        await raw.prepare(request)
        connection = WebSocket(raw, request.path, send_seconds=self.send_seconds, max_queued=self.max_queued)
        code = 1000
        try:
            # A peer that leaves cancels this task; its handler hears of it from Closed, like of any other end.
            await in_trio(self._nursery, self.handler, connection, grace=self.grace)
        except Interrupted:
            code = GOING_AWAY
        except Exception as exc:  # noqa: BLE001 - a bug costs one connection
            if not all(isinstance(leaf, Closed) for leaf in leaves(exc)):
                code = INTERNAL_ERROR
                _log_bug(exc, path=request.path)
        finally:
            await connection._close(code)  # noqa: SLF001 - its own module
        return raw

    async def _receive_post(
        self, request: web.BaseRequest, post: Callable[[Posted], Awaitable[PostAnswer]]
    ) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(request.content, self.max_message)
        except _TooLong:
            return _json({"error": "Request too large"}, 413)
        except TimeoutError:
            return _json({"error": "Request timed out"}, 408)
        posted = Posted(request.path, body.decode(errors="replace"))
        answer = await in_trio(self._nursery, post, posted)
        return web.Response(text=answer.text, status=answer.status, content_type="application/json")


class _TurnedAway(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - it is TCP
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        transport.close()


def _json(document: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _log_bug(exc: Exception, **facts: str) -> None:
    """As elsewhere: with the place, without the message, which could quote a value."""
    bugs = [bug for bug in leaves(exc) if not isinstance(bug, Closed)]
    where = "".join(line for bug in bugs for line in traceback.format_tb(bug.__traceback__))
    log.error(
        "unexpected error", error=", ".join(type(bug).__name__ for bug in bugs), traceback=where, **facts
    )
