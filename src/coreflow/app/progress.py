"""Progress for an operator who waits: each step and, repeatedly, how long it has taken so far."""

from typing import Protocol

import trio

from .lazy_log import LazyLog

log = LazyLog()

FIRST_SECONDS, LONGEST_SECONDS = 10.0, 300.0
"""After how long a step is named again; each time after twice as long."""


class Meter(Protocol):
    """Somebody who wants to know how far it is."""

    def expect(self, size: int) -> None:
        """So many bytes more have to be moved."""
        ...

    def moved(self, size: int) -> None:
        """So many bytes more have been."""
        ...


class NoMeter:
    """Nobody."""

    def expect(self, size: int) -> None:
        """Nothing."""

    def moved(self, size: int) -> None:
        """Nothing."""


class Watcher(Meter, Protocol):
    """Somebody who wants to see how far it is: the steps, and the bytes that travel."""

    def step(self, text: str) -> None:
        """A step begins."""
        ...


class Unwatched(NoMeter):
    """Nobody."""

    def step(self, text: str) -> None:
        """Nothing."""


class Reminding:
    """A watcher that tells another one about every wait that takes long. `remind` has to run for that."""

    def __init__(self, inner: Watcher) -> None:
        self._inner = inner
        self._text, self._since = "", trio.current_time()
        self.scope = trio.CancelScope()

    def step(self, text: str) -> None:
        """Pass it on, and remember when it began."""
        self._text, self._since = text, trio.current_time()
        self._inner.step(text)

    def expect(self, size: int) -> None:
        """Pass it on."""
        self._inner.expect(size)

    def moved(self, size: int) -> None:
        """Pass it on."""
        self._inner.moved(size)

    async def remind(self) -> None:
        """Name the step again whenever it takes long, until `scope` is cancelled."""
        with self.scope:
            while True:
                await self._remind_of(self._text, self._since)

    async def _remind_of(self, text: str, since: float) -> None:
        pause = FIRST_SECONDS
        while True:
            await trio.sleep_until(since + pause)
            if (text, since) != (self._text, self._since):
                return
            if text:
                log.info("step takes long", step=text, seconds=round(pause))
                self._inner.step(f"{text}: {lasting(pause)} so far")
            pause += min(pause, LONGEST_SECONDS)


def lasting(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
