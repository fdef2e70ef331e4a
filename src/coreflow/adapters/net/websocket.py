"""WebSockets for trio, from either end, and the client that dials one."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
import trio
from aiohttp import ClientWSTimeout, WSMsgType, web
from attrs import frozen

from coreflow.domain.redaction.redactor import NOTHING_KNOWN

from .bridge import in_asyncio
from .budget import Intake, MessageBudget
from .errors import Closed, translated
from .outbound import DIRECT, Outbound, new_session, target_of, trust
from .transport import abort, acknowledged_bytes, received_bytes, seen, waiting_bytes
from .typedsocket import LONG_BYTES

MAX_MESSAGE = 100 * 1024 * 1024
"""Bytes of the longest message that is accepted, as in the original."""
HEARTBEAT_SECONDS = 20.0
"""A peer that was silent for so long is pinged, and has half of it to say something. Any byte from it counts, so a long
message may arrive slowly; one to a silent peer must get through in that time, because the ping waits behind it."""
CONNECT_SECONDS = 10.0
SEND_SECONDS = 20.0
"""How long a message may wait for a peer that does not read on."""
SEND_WHOLE_SECONDS = 600.0
"""How long a message may take to get through at all."""
CLOSE_SECONDS = 2.0
"""How long a goodbye may take."""
LINGER_SECONDS = 10.0
"""How long a peer that broke the rules may go on talking, so that it gets to hear why it is being dropped."""

GOING_AWAY, ABNORMAL, INTERNAL_ERROR = 1001, 1006, 1011
_NO_CODE_GIVEN = 1005
_NOT_TEXT = 1007
_PROTOCOL_FAULTS = frozenset({1002, 1003, 1007, 1009})


_PART_BYTES = 4096
"""So much since the last message can be no ping."""


@frozen(kw_only=True)
class SocketOptions:
    """Options of a WebSocket, whichever end dialled."""

    heartbeat: float = HEARTBEAT_SECONDS
    """Seconds of silence after which the peer is pinged."""
    max_message: int = MAX_MESSAGE
    """Bytes of the longest message that is accepted."""
    send_timeout: float = SEND_SECONDS
    """Seconds that a message may wait for the peer to read on."""
    max_queued: int = MAX_MESSAGE
    """Bytes that may wait for the peer before it is dropped."""
    compress: bool = False
    budget: MessageBudget | None = None
    """What messages that are arriving may take, together with those of others who have the same budget."""


_DEFAULTS = SocketOptions()


class ClientSocket(aiohttp.ClientWebSocketResponse[Literal[False]]):
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


class ServerSocket(web.WebSocketResponse[Literal[False]]):
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
            abort(self.transport)
        return await super().close(code=code, message=message, drain=drain)


class WebSocket:
    """One connection, from either end. One task at a time may receive; any number may send.

    Reading stops while nobody receives, so a fast peer is slowed down by a slow receiver. It is dropped when a message
    waits too long for it to read, or when too much is waiting.
    """

    def __init__(self, raw: ClientSocket | ServerSocket, path: str, options: SocketOptions) -> None:
        self._raw, self._transport = raw, raw.transport
        self._options = options
        self._end: Closed | None = None
        self._received = received_bytes(self._transport)
        self._intake: Intake | None = None
        if options.budget is not None:
            self._intake = Intake.on(
                self._transport, options.budget, options.max_message, options.heartbeat / 4
            )
        self._delivered = 0
        address = raw.get_extra_info("peername")
        self.path = path
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unknown"

    async def send(self, text: str | bytes) -> None:
        """Send a message (bytes are UTF-8 text) and wait until the peer has made room for more. Raises Closed."""
        data = text.encode() if isinstance(text, str) else text
        if waiting_bytes(self._transport) > self._options.max_queued:
            self._drop("the peer does not read, too much is waiting for it")
        if self._end is not None:
            raise self._closed()
        await in_asyncio(self._send, data)

    async def _send(self, data: bytes) -> None:
        # In a task of its own, because it must not be cancelled: all who wait for room share one future in aiohttp,
        # and cancelling one of them would cancel the others, and whoever sends later.
        sending = asyncio.ensure_future(self._raw.send_frame(data, WSMsgType.TEXT))
        sending.add_done_callback(seen)
        await self._wait_while_it_arrives(sending)
        if not sending.done():
            self._drop(f"the peer did not read for {self._options.send_timeout:g} s")
            raise self._closed()
        if sending.cancelled() or isinstance(sending.exception(), ConnectionError | RuntimeError):
            raise self._closed()  # RuntimeError: our half is closed
        sending.result()

    async def _wait_while_it_arrives(self, sending: asyncio.Future[None]) -> None:
        """Wait until a message is sent, or nothing of it gets through any more: a slow line is no deaf peer."""
        clock = asyncio.get_running_loop().time
        latest, before = clock() + SEND_WHOLE_SECONDS, -1
        while (arrived := acknowledged_bytes(self._transport)) > before and clock() < latest:
            before = arrived
            await asyncio.wait([sending], timeout=self._options.send_timeout)
            if sending.done():
                break

    @property
    def arriving(self) -> int:
        """A number that grows with a message that has begun to arrive; 0 when there is none.

        It grows while the message waits for room, too: then it is not its sender who is slow.
        """
        received = received_bytes(self._transport)
        waited = 0 if self._intake is None else self._intake.waited
        return received + waited if received - self._received >= _PART_BYTES else 0

    async def receive(self) -> str | bytes:
        """The next message, as bytes where it is long. Binary that is not UTF-8 comes with replacement characters.

        Raises Closed, also where text is not UTF-8.
        """
        if self._end is not None:
            raise self._closed()
        if self._intake is not None:  # who receives the next message no longer holds the last one
            self._intake.dealt_with(self._delivered)
        self._delivered = 0
        message = await in_asyncio(self._raw.receive)
        self._delivered = _length(message.data)
        self._received = received_bytes(self._transport)
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY if len(message.data) > LONG_BYTES:
                return bytes(message.data)
            case WSMsgType.TEXT:
                return await self._text(message.data)
            case WSMsgType.BINARY:
                return bytes(message.data).decode(errors="replace")
            case WSMsgType.CLOSE:
                self._ended(message.data or _NO_CODE_GIVEN, NOTHING_KNOWN.redact(message.extra))
            case WSMsgType.ERROR if isinstance(message.data, aiohttp.WebSocketError):
                self._ended(message.data.code, NOTHING_KNOWN.redact(str(message.data)))
            case _:
                pass
        raise self._closed()

    async def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            await self.close(_NOT_TEXT, "a text is not UTF-8")
            raise self._closed() from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, and wait a moment for the answer. What is still to be sent after that is lost."""
        with trio.CancelScope(shield=True):
            await in_asyncio(self.close_now, code, reason)

    async def close_now(self, code: int = 1000, reason: str = "") -> None:
        """Do the same, for asyncio."""
        self._ended(code, reason)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._raw.close(code=code, message=shortened(reason))
                while waiting_bytes(self._transport):  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            abort(self._transport)

    def _drop(self, reason: str) -> None:
        self._ended(ABNORMAL, reason)
        abort(self._transport)

    def _ended(self, code: int, reason: str) -> None:
        if self._end is None:
            self._end = Closed(code, reason)

    def _closed(self) -> Closed:
        dead = isinstance(self._raw.exception(), TimeoutError)
        self._ended(ABNORMAL, "the peer did not answer a ping" if dead else "connection lost")
        assert self._end is not None  # noqa: S101 - the line above
        return Closed(self._end.code, self._end.reason)


def _length(data: object) -> int:
    """Bytes of a message as it came, without its frames."""
    if isinstance(data, str):
        return len(data) if data.isascii() else len(data.encode(errors="surrogatepass"))
    return len(data) if isinstance(data, bytes | bytearray) else 0


def shortened(reason: str) -> bytes:
    """As much as fits into a frame."""
    return reason.encode()[:123].decode(errors="ignore").encode()


@asynccontextmanager
async def connect_websocket(
    url: str,
    options: SocketOptions = _DEFAULTS,
    *,
    via: Outbound = DIRECT,
    connect_timeout: float = CONNECT_SECONDS,
) -> AsyncIterator[WebSocket]:
    """A connection to a server; it is closed when the block ends.

    `http` and `https` mean `ws` and `wss`. Certificates are verified, as `via` says. Redirects are not
    followed. `connect_timeout` covers everything up to the upgrade. Raises
    Unavailable or Refused; Refused when the certificate is not trusted or the server said no.
    """
    target = target_of(url, "ws")
    tls = await trust(target, via.ca_file)

    async def dial() -> tuple[aiohttp.ClientSession, ClientSocket]:
        session = new_session(tls, socket_class=ClientSocket)
        try:
            async with asyncio.timeout(connect_timeout):
                raw = await session.ws_connect(
                    target.url,
                    heartbeat=options.heartbeat,
                    max_msg_size=options.max_message
                    + 1,  # aiohttp's limit is the first size that is too long
                    compress=15 if options.compress else 0,
                    decode_text=False,  # which takes its time for a long one
                    timeout=ClientWSTimeout(ws_close=CLOSE_SECONDS),
                    **via.proxies.options(target.url),
                )
        except BaseException:
            await session.close()
            raise
        assert isinstance(raw, ClientSocket)  # noqa: S101 - see new_session
        return session, raw

    with translated(target.where, connect_timeout):
        session, raw = await in_asyncio(dial)
    socket_ = WebSocket(raw, urlsplit(url).path or "/", options)
    try:
        yield socket_
    finally:
        with trio.CancelScope(shield=True):
            try:
                await socket_.close()
            finally:
                await in_asyncio(session.close)
