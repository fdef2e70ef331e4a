"""Run a job again while its peer is away."""

import math
import traceback
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar

import trio

from coreflow.domain.errors import CannotListen, CoreflowError, PortError, Unreadable, leaves
from coreflow.domain.flapping import FLAPPING_EVENTS, News
from coreflow.domain.pacing import LONGEST_DELAY, next_delay
from coreflow.episodes import Episodes

from .lazy_log import LazyLog

log = LazyLog()

SHORTEST_SECONDS = 0.3
"""No job is started again sooner than this, whatever happens."""
WELL_SECONDS = LONGEST_DELAY
"""A job that has run for so long is well, though it has not said so."""
_WAITING, _WAITING_FOR_RECORDS, _SEPARATOR = "waiting for a peer", "waiting for the records", "\0"
_well: ContextVar[Callable[[], None] | None] = ContextVar("_well", default=None)


def is_well() -> None:
    """Say, from within a supervised job, that its peer is there and does what it is asked."""
    if (said := _well.get()) is not None:
        said()


async def supervise(
    name: str,
    job: Callable[[], Awaitable[None]],
    *wakes: Callable[[], Awaitable[None]],
    longest: float = LONGEST_DELAY,
) -> None:
    """Run `job` until it returns. After a failure it is started again, later each time, `longest` seconds later at most.

    It is started sooner when one of `wakes` returns.

    A peer that is away costs a line when it goes, one when it is back (the job says so by `is_well`, or runs for a
    minute), and none in between; one that comes and goes costs no more than `domain.flapping` says. A bug is logged with
    its traceback, and without its message, which could quote a value.
    """
    saying = _Saying(name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saying.run)
        await _again_and_again(job, wakes, longest, saying)
        nursery.cancel_scope.cancel()


async def _again_and_again(
    job: Callable[[], Awaitable[None]],
    wakes: Iterable[Callable[[], Awaitable[None]]],
    longest: float,
    saying: "_Saying",
) -> None:
    delay = 0.0
    while True:
        started = trio.current_time()
        saying.starts()
        try:
            return await job()
        except CannotListen as exc:
            saying.fails("cannot listen", str(exc))
        except Unreadable as exc:  # a file is no peer
            saying.fails(_WAITING_FOR_RECORDS, str(exc))
        except PortError as exc:
            saying.fails(_WAITING, str(exc))
        except CoreflowError as exc:
            saying.fails("cannot continue for now", str(exc))
        except Exception as exc:  # noqa: BLE001 - a bug in one job must not stop the others
            kinds, where = described(exc)
            saying.fails("unexpected error", kinds, where)
        up_for = trio.current_time() - started
        delay = min(next_delay(delay, up_for=up_for, longest=longest), longest)
        soonest = trio.current_time() + min(delay, SHORTEST_SECONDS)
        with trio.move_on_after(delay):
            await _first_of(wakes)
            delay = 0.0
        await trio.sleep_until(soonest)


class _Saying:
    """Logs how one job is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._episodes = Episodes(self._tell)
        self._well_at, self._changed = math.inf, trio.Event()
        _well.set(self.well)

    async def run(self) -> None:
        """Log what needs time to pass, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._episodes.run)
            while True:
                with trio.move_on_at(self._well_at):
                    await self._changed.wait()
                if self._changed.is_set():
                    self._changed = trio.Event()
                else:
                    self.well()

    def starts(self) -> None:
        """The job runs, and is well if it goes on doing so."""
        if self._episodes.state(self._name):
            self._become(trio.current_time() + WELL_SECONDS)

    def well(self) -> None:
        """The job does what it is for."""
        self._become(math.inf)
        self._episodes.become(self._name, "")

    def fails(self, event: str, reason: str, where: str = "") -> None:
        """The job has ended."""
        self._become(math.inf)
        self._episodes.become(self._name, _SEPARATOR.join((event, reason, where)))

    def _become(self, well_at: float) -> None:
        if well_at != self._well_at:
            self._well_at = well_at
            self._changed.set()

    def _tell(self, news: News) -> None:
        event, reason, where = (news.state or f"{news.was}").split(_SEPARATOR)
        facts: dict[str, object] = {"job": self._name}
        if news.what == "ends":
            log.info("continuing", **facts, was=event, seconds=round(news.seconds))
            return
        if news.what in {"begins", "changes"}:
            facts |= {"error": reason, "traceback": where} if where else {"reason": reason}
            (log.warning if event in {_WAITING, _WAITING_FOR_RECORDS} else log.error)(event, **facts)
            return
        facts |= {"now": event if news.state else "continuing", "reason": reason}
        facts |= {"times": news.times, "seconds": round(news.seconds)}
        is_over = news.what == "is calm" and not news.state
        (log.info if is_over else log.warning)(FLAPPING_EVENTS[news.what], **facts)


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
