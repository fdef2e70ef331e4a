"""Pushes that nobody can read: said when it begins, when it ends, and with counts where it does so again and again."""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any

import structlog

from coreflow.adapters.net.peer import Handler, Response
from coreflow.domain.flapping import FLAPPING_EVENTS, News
from coreflow.episodes import Episodes

log = structlog.get_logger()

_UNKNOWN = "unknown"


class Losses:
    """Remembers which methods get lost, until one of them arrives again."""

    def __init__(self) -> None:
        self._lost: set[str] = set()
        self._episodes = Episodes(self._tell)

    async def run(self) -> None:
        """Say what only needs time to pass, until cancelled."""
        await self._episodes.run()

    def watched(self, handlers: Mapping[str, Handler]) -> dict[str, Handler]:
        """The same handlers; what reaches one of them is no longer lost."""
        return {name: partial(self._arrived, name, handler) for name, handler in handlers.items()}

    def lost(self, method: str | None, reason: str) -> None:
        """Say so, unless it was said already. Without a method, it is one that cannot be seen or is not known."""
        name = method or _UNKNOWN
        if name not in self._lost:
            self._lost.add(name)
            self._episodes.become(name, reason)

    def _arrived(
        self, name: str, handler: Handler, body: Mapping[str, Any]
    ) -> Response | Awaitable[Response]:
        for one in sorted(self._lost & {name, _UNKNOWN}):
            self._lost.discard(one)
            self._episodes.become(one, "")
        return handler(body)

    @staticmethod
    def _tell(news: News) -> None:
        method = news.subject
        if news.what == "begins":
            log.warning("message of Cloudly dropped", method=method, reason=news.state)
        elif news.what == "ends":
            log.info("messages of Cloudly arrive again", method=method)
        else:
            say = log.info if news.what == "is calm" and not news.state else log.warning
            say(
                f"messages of Cloudly dropped: {FLAPPING_EVENTS.get(news.what, news.what)}",
                method=method,
                reason=news.state or news.was,
                times=news.times,
                seconds=round(news.seconds),
            )
