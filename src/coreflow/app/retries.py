"""Waiting for a peer that is away."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from coreflow.domain.errors import CoreflowError, Unavailable
from coreflow.domain.pacing import next_delay

from .lazy_log import LazyLog

log = LazyLog()
T = TypeVar("T")

_WAITING = "waiting for a peer"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0


def _nothing() -> None:
    pass


async def with_retries(
    call: Callable[[], Awaitable[T]], seconds: float, *, on_failure: Callable[[], None] = _nothing
) -> T:
    """Call, again and again while the peer is away, for so many seconds. Only for what may be repeated.

    `on_failure` is called each time it was. Raises Unavailable in the end.
    """
    until, pause, said = trio.current_time() + seconds, 0.0, ""
    while True:
        try:
            found = await call()
            if said:
                log.info("continuing", was=_WAITING)
            return found
        except Unavailable as exc:
            on_failure()
            if trio.current_time() >= until:
                raise
            if str(exc) != said:
                log.info(_WAITING, reason=str(exc))
            said = str(exc)
        pause = next_delay(pause, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        await trio.sleep(pause)


PROBE_SECONDS = 0.5


async def until_back(probe: Callable[[], Awaitable[object]], has_hung: Callable[[], bool]) -> None:
    """Until a peer that is away answers again. Never ends while it answers all along: then something else is wrong.

    `has_hung` tells whether the last that was asked of it was not answered at all, so that its first answer is news.
    """
    was_away = has_hung()
    while True:
        try:
            await probe()
        except CoreflowError:
            was_away = True
        else:
            if was_away:
                return
            await trio.sleep_forever()
        await trio.sleep(PROBE_SECONDS)
