"""Helpers for tasks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio


@asynccontextmanager
async def nursery_of_one_error() -> AsyncIterator[trio.Nursery]:
    """A nursery whose first error comes out by itself instead of in a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        _, errors = group.split(trio.Cancelled)
        if errors is None:
            raise
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


class Notices:
    """Tells whoever follows that something changed: any number of times at once is once."""

    def __init__(self) -> None:
        self._followers: set[trio.MemorySendChannel[None]] = set()

    def notify(self) -> None:
        """Something changed."""
        for follower in self._followers:
            with suppress(trio.WouldBlock):  # it has not heard of the last change yet
                follower.send_nowait(None)

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncIterator[None]]:
        """Yields when something changed since this was entered, or since it yielded last."""
        send, receive = trio.open_memory_channel[None](1)
        with send, receive:
            self._followers.add(send)
            try:
                yield receive
            finally:
                self._followers.discard(send)
