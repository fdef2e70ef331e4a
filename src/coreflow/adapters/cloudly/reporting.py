"""Our log lines, for Cloudly to keep, as long as it takes them.

A line that cannot be delivered is lost here, and is in our own log all the same.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog
import trio

from coreflow.domain.errors import CoreflowError
from coreflow.domain.pacing import next_delay

from .link import Link, NotOffered
from .methods import LOG

log = structlog.get_logger()

KEPT_LINES = 1000
"""Lines that wait for a connection; the oldest go first."""
BATCH = 200
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 300.0
_LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error", "critical": "error"}


class LogShipper:
    """Takes log events from anywhere in the process, and hands them to Cloudly in batches."""

    def __init__(self, link: Link, token: str) -> None:
        self._link, self._token = link, token
        self._lines: deque[dict[str, object]] = deque(maxlen=KEPT_LINES)
        self._news = trio.Event()

    def offer(self, timestamp_ms: int, level: str, event: Mapping[str, Any]) -> None:
        """Take one event: a name under `event`, and facts. From within the event loop only."""
        if level == "debug":  # among others, that lines were not taken
            return
        facts = {key: value for key, value in event.items() if key not in _NOT_FACTS}
        message = str(event.get("event", ""))
        self._lines.append(
            {
                "timestamp": timestamp_ms,
                "type": "log",
                "context": {"runtime": "python", "zone": "serve.zone", "containerName": "coreflow"},
                "level": _LEVELS.get(level, "info"),
                "correlation": {"id": str(facts.pop("pass_id", "")) or "none", "type": "none"},
                "message": " ".join([message, *(f"{key}={value}" for key, value in facts.items())]),
            }
        )
        self._news.set()

    async def run(self) -> None:
        """Deliver what was taken, a moment later; where it is not taken, ever later."""
        pause = _PAUSE_SECONDS
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await trio.sleep(pause)
            taken = await self._deliver()
            pause = _PAUSE_SECONDS if taken else next_delay(pause, longest=_LONGEST_PAUSE_SECONDS)

    async def _deliver(self) -> bool:
        """Hand over what there is; whether it was taken, as far as there is a connection."""
        while self._lines and self._link.live is not None:
            batch = [self._lines.popleft() for _ in range(min(BATCH, len(self._lines)))]
            try:
                await self._link.call_without_identity(LOG, {"authToken": self._token, LOG.key or "": batch})
            except NotOffered:
                self._lines.clear()
                return True
            except CoreflowError as exc:
                log.debug("log lines not accepted", reason=str(exc))
                return False
            await trio.sleep(_PAUSE_SECONDS)
        return True


_NOT_FACTS = frozenset({"event", "level", "timestamp"})
