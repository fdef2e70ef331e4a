"""Tell a service manager, such as systemd, of the daemon: that it has started, that it lives, how it is, that it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.status.model import Status

READY_SECONDS = 30.0
"""How long whoever waits for the start waits for the end of the first pass. A peer that is away must not make the start fail:
starting again would mend nothing."""
STATUS_SECONDS = 5.0
"""How often the status is looked at, where no pass ends."""
BEATS = 3
"""Signs of life in the time after which the watchdog bites."""
WAITING = "waiting for the records or the engine; the log says which"


class ServiceManager(Protocol):
    """The service manager that started the process and wants to know. Nothing here waits or fails."""

    @property
    def watchdog_seconds(self) -> float | None:
        """A process that says nothing for so long is started anew; None where nobody watches."""
        ...

    def ready(self, status: str) -> None:
        """The start is over."""
        ...

    def status(self, status: str) -> None:
        """Say how it is, for a person."""
        ...

    def alive(self) -> None:
        """The loop turns."""
        ...

    def stopping(self) -> None:
        """The end has begun."""
        ...


class Observable(Protocol):
    """The engine, as far as it says how it is."""

    async def reconciled(self) -> ReconcileResult:
        """Wait for the end of the next series of passes."""
        ...

    def present_status(self) -> Status:
        """The status as it is now."""
        ...


@asynccontextmanager
async def telling(
    manager: ServiceManager, engine: Observable, *, ready_seconds: float = READY_SECONDS
) -> AsyncIterator[None]:
    """Tell the manager for as long as the block lasts.

    The start is over with the first pass, or after `ready_seconds`. Signs of life come from the very loop in which
    everything else runs: where it stands still, they stop.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_passes, manager, engine, ready_seconds)
        if manager.watchdog_seconds is not None:
            nursery.start_soon(_beat, manager, manager.watchdog_seconds / BEATS)
        try:
            yield
        finally:
            manager.stopping()
            nursery.cancel_scope.cancel()


async def _passes(manager: ServiceManager, engine: Observable, ready_seconds: float) -> None:
    with trio.move_on_after(ready_seconds):
        await engine.reconciled()
    said = status_of(engine.present_status())
    manager.ready(said)
    while True:
        with trio.move_on_after(STATUS_SECONDS):  # what goes away between two passes is told, too
            await engine.reconciled()
        text = status_of(engine.present_status())
        if text != said:
            manager.status(text)
            said = text


async def _beat(manager: ServiceManager, seconds: float) -> None:
    while True:
        manager.alive()
        await trio.sleep(seconds)


def status_of(status: Status) -> str:
    """Say how the cluster is, in a few words and without names: `degraded: 3 as desired, 1 held; 1 problem`."""
    if status.checked.services is None:
        return WAITING
    counts = ", ".join(
        f"{number} {state}" for state, number in sorted(status.counts.items(), key=_most_first)
    )
    number = len(status.problems)
    problems = f"; {number} problem{'' if number == 1 else 's'}" if number else ""
    return f"{status.verdict}: {counts or 'no services'}{problems}"


def _most_first(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]
