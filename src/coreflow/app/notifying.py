"""Tell a service manager, such as systemd, of the daemon: that it has started, that it lives, how it is, that it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from coreflow.domain.deploy.result import ReconcileResult

READY_SECONDS = 30.0
"""How long whoever waits for the start waits for the end of the first pass. A peer that is away must not make the start fail:
starting again would mend nothing."""
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


class Settles(Protocol):
    """The engine, as far as it says how passes end."""

    async def settled(self) -> ReconcileResult:
        """Wait for the end of the next series of passes."""
        ...


@asynccontextmanager
async def telling(
    manager: ServiceManager, engine: Settles, *, ready_seconds: float = READY_SECONDS
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


async def _passes(manager: ServiceManager, engine: Settles, ready_seconds: float) -> None:
    status = WAITING
    with trio.move_on_after(ready_seconds):
        status = status_of(await engine.settled())
    manager.ready(status)
    while True:
        manager.status(status_of(await engine.settled()))


async def _beat(manager: ServiceManager, seconds: float) -> None:
    while True:
        manager.alive()
        await trio.sleep(seconds)


def status_of(result: ReconcileResult) -> str:
    """Say how the cluster is, in a few words and without names."""
    plan = result.last.plan
    running = sum(verdict.done for verdict in result.verdicts.values())
    counts = {
        "rejected or held": len(plan.rejections),
        "rolled back": len(plan.failures),
        "unfinished": len(result.verdicts) - running,
    }
    text = f"{plan.kept} service{'' if plan.kept == 1 else 's'} as desired"
    wrong = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    refusal = "; a removal needs a confirmation" if plan.refusal is not None else ""
    return text + (f"; {wrong}" if wrong else "") + refusal
