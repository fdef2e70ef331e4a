"""Log messages of libraries, in coreflow's own log: redacted, and at a limited rate.

Without this, a record of asyncio, aiohttp, urllib3 or docker goes to standard error as it is, with a traceback, as often
as it is written: tens of thousands of times a minute when file descriptors run out.
"""

import logging
import sys
import threading
import time
import traceback
from types import TracebackType

import structlog

from coreflow.domain.pacing import Repeats

log = structlog.get_logger()

AGAIN_SECONDS = 60.0
"""How often the same record is told at most."""
MAX_LINES = 20
"""Lines of all libraries in that time."""
TEXT_LIMIT = 300


class LibraryLog(logging.Handler):
    """Hands records of libraries to our log. Of a long text the first line: the others quote what was worked on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._repeats = Repeats(AGAIN_SECONDS)
        self._since, self._lines, self._dropped = 0.0, 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a record, unless it was told a short while ago. Never raises."""
        try:
            self._tell(record, time.monotonic())
        except Exception:  # noqa: BLE001 - a log line must not end what wrote it
            self._dropped += 1

    def _tell(self, record: logging.LogRecord, now: float) -> None:
        kind, error, trace = record.exc_info or (None, None, None)
        kind_name = kind.__name__ if kind is not None else ""
        same = (record.name, record.levelno, str(record.msg).partition("\n")[0][:TEXT_LIMIT], kind_name)
        if not self._may_tell(same, now):
            self._dropped += 1
            return
        message = record.getMessage().partition("\n")[0][:TEXT_LIMIT]
        facts: dict[str, object] = {"library": record.name, "message": message}
        if error is not None:
            facts |= {"error": kind_name, "traceback": "".join(traceback.format_tb(trace, -8))}
        if self._dropped:
            facts["not_told"], self._dropped = self._dropped, 0
        log.log(max(record.levelno, logging.WARNING), "message of a library", **facts)

    def _may_tell(self, same: tuple[object, ...], now: float) -> bool:
        if now - self._since >= AGAIN_SECONDS:
            self._since, self._lines = now, 0
        if self._lines >= MAX_LINES or not self._repeats.is_new(same, now):
            return False
        self._lines += 1
        return True


def own_loggers() -> None:
    """Take over what libraries say, and what Python itself says of threads and finalizers. Once or again."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LibraryLog)]:
        root.removeHandler(handler)
    root.addHandler(LibraryLog())
    threading.excepthook = _of_thread
    sys.unraisablehook = _of_finalizer


def _of_thread(unhandled: threading.ExceptHookArgs) -> None:
    _as_record(
        "an exception ended a thread", unhandled.exc_type, unhandled.exc_value, unhandled.exc_traceback
    )


def _of_finalizer(unhandled: "sys.UnraisableHookArgs") -> None:
    _as_record(
        "an exception that nobody could see",
        unhandled.exc_type,
        unhandled.exc_value,
        unhandled.exc_traceback,
    )


def _as_record(
    text: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    error = kind() if error is None else error
    logging.getLogger("python").error(text, exc_info=(kind, error, trace))
