"""Pushes that nobody can read: said once, when it begins."""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any

import structlog

from coreflow.adapters.net.peer import Handler, Response

log = structlog.get_logger()


class Losses:
    """Remembers which methods get lost, until one of them arrives again."""

    def __init__(self) -> None:
        self._lost: set[str | None] = set()

    def watched(self, handlers: Mapping[str, Handler]) -> dict[str, Handler]:
        """The same handlers; what reaches one of them is no longer lost."""
        return {name: partial(self._arrived, name, handler) for name, handler in handlers.items()}

    def lost(self, method: str | None, reason: str) -> None:
        """Say so, unless it was said already. Without a method, it is one that cannot be seen or is not known."""
        if method not in self._lost:
            self._lost.add(method)
            log.warning("message of Cloudly dropped", method=method or "unknown", reason=reason)

    def _arrived(
        self, name: str, handler: Handler, body: Mapping[str, Any]
    ) -> Response | Awaitable[Response]:
        self._lost -= {name, None}
        return handler(body)
