"""Verbosity of commands: chosen once, in front of the command or behind it, and asked for wherever something is said."""

from contextvars import ContextVar
from enum import IntEnum


class Verbosity(IntEnum):
    """The less, the smaller."""

    QUIET = 0
    """Problems and the last line only."""
    NORMAL = 1
    VERBOSE = 2
    """With a debug log on standard error, and where a bug was raised."""


_verbosity = ContextVar("verbosity", default=Verbosity.NORMAL)


def choose(*, verbose: bool, quiet: bool) -> None:
    """Set it for the rest of this process."""
    level = Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL
    _verbosity.set(level)


def is_quiet() -> bool:
    """Return whether only problems and the last line are wanted."""
    return _verbosity.get() is Verbosity.QUIET


def is_verbose() -> bool:
    """Return whether everything is wanted."""
    return _verbosity.get() is Verbosity.VERBOSE
