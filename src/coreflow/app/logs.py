"""Structured logs: one event per line, as JSON or, on a terminal, in colour."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

import structlog
import trio

from .libraries import own_loggers
from .streams import has_colours
from .telling import told_all

_OURS = frozenset({"event", "level", "timestamp", "traceback"})
"""What no peer has written."""

Tap = Callable[[str, Mapping[str, Any]], None]
"""Takes the level and the event with its facts."""
_taps: list[Tap] = []


@contextmanager
def tapped(tap: Tap) -> Iterator[None]:
    """Hand every event that is logged from within trio to `tap` as well, as long as the block lasts."""
    _taps.append(tap)
    try:
        yield
    finally:
        _taps.remove(tap)


class _Writer:
    """Writes to standard error. A disk that is full there must not end a daemon."""

    def msg(self, message: str) -> None:
        """Write one line, if that is possible."""
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = log = msg


def _harmless(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Texts of peers may hold what a terminal obeys."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)
    return event


def _redacted(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Redact whatever was not redacted where it came from."""
    for key, value in event.items():
        if key not in _OURS:
            event[key] = told_all(value)
    return event


def _hand_on(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _taps and trio.lowlevel.in_trio_task():
        for tap in _taps:
            tap(str(event.get("level", "info")), event)
    return event


def lines_dropped(count: int) -> str:
    """The line, as configured, that says that so many could not be written."""
    event: Any = {"event": "log lines dropped", "lines": count}
    event["reason"] = "standard error was not read, or could not be written"
    for process in structlog.get_config()["processors"]:
        if process is not _hand_on:  # which belongs to trio's thread
            event = process(None, "warning", event)
    return f"{event}\n"


class _Calls(logging.Handler):
    """Hands what urllib3 says of every call to our log: which it was, and how it was answered. It names no bodies."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one call; connections are of no interest."""
        match record.args:
            case (_, _, _, method, path, _, status, _):
                structlog.get_logger().debug("engine call", call=f"{method} {path}", status=status)


def tell_calls() -> None:
    """Log every call of the engine, too, as long as the process lives. For commands: a daemon would log little else."""
    calls = logging.getLogger("urllib3.connectionpool")
    calls.setLevel(logging.DEBUG)
    calls.handlers = [_Calls(logging.DEBUG)]


def configure(log_format: str = "auto", level: str = "info") -> None:
    """Set up logging for a process, libraries included. `auto` means console on a terminal and JSON elsewhere."""
    to_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    # frames of an exception would show local variables, which may be secrets
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback, colors=has_colours(sys.stderr)
        )
        if to_console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _harmless,
            _redacted,
            _hand_on,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Writer(),
        cache_logger_on_first_use=False,
    )
    own_loggers()
