"""Reading the file of a journal that somebody else writes, or nobody any more."""

import sqlite3
from pathlib import Path

from coreflow.domain.errors import Unavailable
from coreflow.domain.journal import History, Query

from .store import OutOfReach, read_entries


def read_file(path: Path, query: Query) -> History:
    """The last entries that fit. Blocks for a second at most, as long as the disk answers. Raises Unavailable."""
    try:
        found, last = read_entries(path, query)
    except (sqlite3.Error, OSError, ValueError, TypeError, KeyError) as exc:
        raise Unavailable(f"{path} cannot be read: {reason_of(exc)}") from exc
    return History(records=found, kept=str(path), last=last)


def reason_of(exc: BaseException) -> str:
    """Return what is wrong, in words. Of a bug only its kind: its text could quote a value."""
    match exc:
        case sqlite3.Error() | OutOfReach():
            return str(exc) or type(exc).__name__
        case OSError():
            return exc.strerror or type(exc).__name__
        case ValueError() | TypeError() | KeyError():
            return "its content is none that coreflow wrote"
    return f"unexpected error ({type(exc).__name__})"
