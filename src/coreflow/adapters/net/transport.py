"""Additions to asyncio's transports: closing at once, and how much waits to be sent."""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any

import aiohttp

_WHOLE = 4
"""How many times the limit to its beginning a body may take that goes on arriving."""
_TCP_INFO_BYTES, _BYTES_ACKED, _BYTES_RECEIVED = 192, 120, 128
"""Of `struct tcp_info` in linux/tcp.h: enough of it, and where its counters are."""


def waiting_bytes(transport: asyncio.Transport) -> int:
    """Return how much waits to be sent."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:  # asyncio's way to say that it is closed, with TLS
        return 0


def received_bytes(transport: asyncio.Transport) -> int:
    """Return how much has arrived over this connection, as the system counts; 0 where it does not."""
    return _counted(transport, _BYTES_RECEIVED)


def acknowledged_bytes(transport: asyncio.Transport) -> int:
    """Return how much of what was sent has arrived at the peer's system; 0 where this one does not count it."""
    return _counted(transport, _BYTES_ACKED)


def _counted(transport: asyncio.Transport, offset: int) -> int:
    try:
        socket_ = transport.get_extra_info("socket")
        facts = socket_.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        count: int = struct.unpack_from("Q", facts, offset)[0]
    except (AttributeError, OSError, struct.error):  # closed, or another system
        return 0
    return count


def abort(transport: asyncio.Transport) -> None:
    """Close without waiting for what is still to be sent."""
    with suppress(AttributeError):  # as above, when it was closed while something was still to be sent
        transport.abort()


def seen(task: asyncio.Future[Any]) -> None:
    """Nobody may be left to look at the exception of a task; asyncio would complain."""
    if not task.cancelled():
        task.exception()


class TooLong(Exception):
    """A body is longer than it may be."""


class Idle:
    """Moves a time limit on with every piece that arrives, but not for ever."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._latest = asyncio.get_running_loop().time() + _WHOLE * seconds

    def moved(self) -> None:
        """Note that a piece has arrived."""
        self._limit.reschedule(min(asyncio.get_running_loop().time() + self._seconds, self._latest))


async def read_body(content: aiohttp.StreamReader, limit: int, idle: Idle | None = None) -> bytes:
    """Read all of a body. Raises TooLong."""
    body = bytearray()
    async for chunk in content.iter_any():
        if idle is not None:
            idle.moved()
        body += chunk
        if len(body) > limit:
            raise TooLong
    return bytes(body)
