"""Run a job again while its peer is away."""

import traceback
from collections.abc import Awaitable, Callable, Iterable

import trio

from coreflow.domain.errors import CoreflowError, PortError, leaves
from coreflow.domain.pacing import LONGEST_DELAY, next_delay

from .lazy_log import LazyLog

log = LazyLog()

SHORTEST_SECONDS = 0.3
"""No job is started again sooner than this, whatever happens."""


async def supervise(
    name: str,
    job: Callable[[], Awaitable[None]],
    *wakes: Callable[[], Awaitable[None]],
    longest: float = LONGEST_DELAY,
) -> None:
    """Run `job` until it returns. After a failure it is started again, later each time, `longest` seconds later at most.

    It is started sooner when one of `wakes` returns.

    A peer that is away costs a line when it goes and none while it stays away; a bug is logged with its
    traceback, and without its message, which could quote a value.
    """
    delay, said = 0.0, ""
    while True:
        started = trio.current_time()
        try:
            return await job()
        except PortError as exc:
            text = str(exc)
            if text != said:
                log.warning("waiting for a peer", job=name, reason=text)
        except CoreflowError as exc:
            text = str(exc)
            if text != said:
                log.error("cannot continue for now", job=name, reason=text)  # noqa: TRY400 - no traceback for a person
        except Exception as exc:  # noqa: BLE001 - a bug in one job must not stop the others
            kinds, where = described(exc)
            text = f"{kinds}\n{where}"
            if text != said:
                log.error("unexpected error", job=name, error=kinds, traceback=where)  # noqa: TRY400 - see the docstring
        up_for = trio.current_time() - started
        said = text
        delay = min(next_delay(delay, up_for=up_for, longest=longest), longest)
        soonest = trio.current_time() + min(delay, SHORTEST_SECONDS)
        with trio.move_on_after(delay):
            await _first_of(wakes)
            delay = 0.0
        await trio.sleep_until(soonest)


async def _first_of(waits: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Until one of them returns."""
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(one, wait)
        await trio.sleep_forever()


def described(exc: BaseException) -> tuple[str, str]:
    """The kinds of the exceptions of a bug, and where they came from. Not their texts, which could quote a value."""
    bugs = list(leaves(exc))
    kinds = ", ".join(sorted({type(bug).__name__ for bug in bugs}))
    return kinds, "".join(line for bug in bugs for line in traceback.format_tb(bug.__traceback__))
