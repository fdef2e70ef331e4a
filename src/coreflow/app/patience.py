"""Waiting for a far side that is away."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

from coreflow.domain.errors import Unavailable
from coreflow.domain.pacing import next_delay

log = structlog.get_logger()
T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0


def _nothing() -> None:
    pass


async def patiently(
    call: Callable[[], Awaitable[T]], seconds: float, *, on_failure: Callable[[], None] = _nothing
) -> T:
    """Call, again and again while the far side is away, for so many seconds. Only for what may be repeated.

    `on_failure` is called each time it was. Raises Unavailable in the end.
    """
    until, pause, said = trio.current_time() + seconds, 0.0, ""
    while True:
        try:
            return await call()
        except Unavailable as exc:
            on_failure()
            if trio.current_time() >= until:
                raise
            if str(exc) != said:
                log.info("waiting for a far side", reason=str(exc))
            said = str(exc)
        pause = next_delay(pause, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        await trio.sleep(pause)
