"""What asyncio's transports do not offer: closing at once, and how much waits to be sent."""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp


def waiting_bytes(transport: asyncio.Transport) -> int:
    """How much waits to be sent."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:  # asyncio's way to say that it is closed, with TLS
        return 0


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


async def read_body(content: aiohttp.StreamReader, limit: int) -> bytes:
    """Read all of a body. Raises TooLong."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            raise TooLong
    return bytes(body)
