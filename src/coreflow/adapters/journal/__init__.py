"""The journal: in memory, and in an SQLite file that outlives the process."""

from .memory import MemoryJournal
from .reading import read_file
from .sqlite import SqliteJournal, open_sqlite_journal
from .store import FILE_NAME, Limits

__all__ = ["FILE_NAME", "Limits", "MemoryJournal", "SqliteJournal", "open_sqlite_journal", "read_file"]
