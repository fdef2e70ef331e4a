"""The log of the connection to Cloudly: when it is lost, why, and when it is there again; with counts where it comes and goes."""

import structlog

from coreflow.domain.flapping import FLAPPING_EVENTS, News
from coreflow.episodes import Episodes

log = structlog.get_logger()

CONNECTED, REFUSED = "connected to Cloudly", "Cloudly refuses the token"
_SUBJECT = "connection"


class LinkLog:
    """Logs each change once; `run` what only needs time to pass."""

    def __init__(self) -> None:
        self._episodes = Episodes(self._tell)
        self._address, self._event = "", ""

    async def run(self) -> None:
        """Log what is due, until cancelled."""
        await self._episodes.run()

    def is_up(self, address: str) -> None:
        """The connection is there, and logged in."""
        self._address = address
        if self._episodes.state(_SUBJECT):
            self._episodes.become(_SUBJECT, "")
        else:
            log.info(CONNECTED, address=address)

    def is_down(self, reason: str, *, was_up: bool, is_refused: bool) -> None:
        """It is lost, or could not be had."""
        self._event = "connection to Cloudly lost" if was_up else "waiting for Cloudly"
        if is_refused:
            self._event = REFUSED
        self._episodes.become(_SUBJECT, reason)

    def _tell(self, news: News) -> None:
        if news.what == "ends":
            log.info(CONNECTED, address=self._address)
        elif news.what in {"begins", "changes"} and self._event == REFUSED:
            log.error(REFUSED, reason=news.state, advice="check JUMPCODE; what runs stays as it is")
        elif news.what in {"begins", "changes"}:
            log.warning(self._event, reason=news.state)
        else:
            say = log.info if news.what == "is calm" and not news.state else log.warning
            say(
                f"connection to Cloudly {FLAPPING_EVENTS[news.what]}",
                now=self._event if news.state else CONNECTED,
                reason=news.state or news.was,
                times=news.times,
                seconds=round(news.seconds),
            )
