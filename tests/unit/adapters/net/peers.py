"""Far ends of a connection: well-behaved ones on the web module, bare sockets for the others."""

import base64
import hashlib
import os
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from attrs import frozen

from coreflow.adapters.net import Closed, Listening, WebSocket

Serve = Callable[..., Awaitable[Listening]]
StartTcp = Callable[[Callable[[trio.SocketStream], Awaitable[None]]], Awaitable[int]]

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


@frozen
class Certificates:
    """A server's side of TLS, the file that a client needs to trust it, and the file of somebody else."""

    server: ssl.SSLContext
    ca_file: Path
    foreign_ca_file: Path


async def echo(connection: WebSocket) -> None:
    """Send everything back."""
    while True:
        await connection.send(await connection.receive())


async def ending(connection: WebSocket) -> Closed:
    """Receive until there is nothing more, and say why."""
    while True:
        try:
            await connection.receive()
        except Closed as closed:
            return closed


def open_files() -> int:
    """How many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough


# ---------------------------------------------------------------- bare sockets


async def read_head(stream: trio.SocketStream) -> str:
    """Everything up to the empty line, and nothing after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = await stream.receive_some(1)
        if not more:
            break
        head += more
    return head.decode()


async def read_all(stream: trio.SocketStream) -> bytes:
    """Everything until the other end closes, in whichever way."""
    everything = b""
    try:
        async for chunk in stream:
            everything += chunk
    except trio.BrokenResourceError:
        pass
    return everything


async def upgrade(port: int, path: str = "/", headers: str = "") -> tuple[trio.SocketStream, str]:
    """Connect with a bare socket and ask for an upgrade; returns the socket and the head of the answer."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n{headers}\r\n"
    )
    await stream.send_all(request.encode())
    return stream, await read_head(stream)


async def accept(stream: trio.SocketStream) -> str:
    """The other end: grant an upgrade on a bare socket; returns the head of the request."""
    head = await read_head(stream)
    lines = (line.partition(": ") for line in head.splitlines())
    key = next(value for name, _, value in lines if name.lower() == "sec-websocket-key")
    digest = hashlib.sha1(key.encode() + MAGIC).digest()  # noqa: S324 - RFC 6455 wants it
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    return head


def frame(payload: bytes, *, opcode: int = TEXT, masked: bool = False, length: int | None = None) -> bytes:
    """A WebSocket frame, with a mask of zeros where one is due. `length` lies about the size."""
    size = len(payload) if length is None else length
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = bytes([0x80 | opcode, mask_bit | size])
    elif size < 2**16:
        head = bytes([0x80 | opcode, mask_bit | 126]) + struct.pack("!H", size)
    else:
        head = bytes([0x80 | opcode, mask_bit | 127]) + struct.pack("!Q", size)
    return head + (b"\0" * 4 if masked else b"") + payload
