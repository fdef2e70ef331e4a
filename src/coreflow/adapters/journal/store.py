"""The file of the journal: tables, limits, and what keeps it within them. Everything here blocks; a thread calls it.

Two tables. `begun` has a row for every action that has begun and not ended; in the transaction that removes it, `entries`
gets one. So whatever was begun is in the file once, also after a `kill -9`. The limit covers the database and its log
(WAL): SQLite itself refuses pages beyond the share of the database, and the log is emptied before it can grow past its own.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import orjson
from attrs import asdict, field, frozen

from coreflow.domain.ids import BASE
from coreflow.domain.journal import Entry, Query, Record, fits, in_order, interrupted

from .writers import is_dead, remove_dead

FILE_NAME = "journal.db"
MIB = 1024 * 1024
DAY = 86400.0
BUSY_SECONDS = 1.0
"""How long another process may have the file to itself."""
MOST_CHANGES, MOST_BYTES = 16, 32 * 1024
"""What one transaction takes, about: it goes through the log, which is a quarter of the limit."""
_SCHEMA = 1
_CREATE = """
create table entries (id integer primary key autoincrement, time real not null, kind text not null, name text not null,
                      owner text not null, entry text not null);
create table begun (writer text not null, ticket text not null, entry text not null, primary key (writer, ticket));
"""


@frozen(kw_only=True)
class Limits:
    """The limits of the file: of its size, log included, and of the age of what is in it."""

    bytes: int = 16 * MIB
    seconds: float = 90 * DAY

    @property
    def database(self) -> int:
        """Bytes of the database."""
        return self.bytes * 5 // 8

    @property
    def log(self) -> int:
        """Bytes of the log; what is left of the whole is for SQLite's index of the log, and for chance."""
        return self.bytes // 4


@frozen
class Change:
    """The beginning of an action, or its end; an end without an entry is forgotten."""

    ticket: str
    entry: Entry | None
    is_end: bool
    text: str = field(repr=False, default="")

    @classmethod
    def of(cls, ticket: str, entry: Entry | None, *, is_end: bool) -> "Change":
        """With the entry as it is written."""
        text = orjson.dumps(asdict(entry)).decode() if entry is not None else ""
        return cls(ticket, entry, is_end, text)


class OutOfReach(Exception):
    """The file cannot be written for now; the text says why."""


class Store:
    """The file, open for writing."""

    def __init__(self, path: Path, limits: Limits, writer: str) -> None:
        """Open the file, or make it, as a `Writer` of a name. Raises sqlite3.Error, OSError, or OutOfReach."""
        self.path, self._limits, self._writer = path, limits, writer
        self._log = path.with_name(path.name + "-wal")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close it. What has not ended by now may still, as long as the writer lives."""
        self._db.close()

    def _prepare(self) -> None:
        self._one("pragma auto_vacuum = incremental")  # before there is any table, and in vain later
        if self._one("pragma journal_mode = wal") != "wal":
            raise OutOfReach("the file system cannot hold SQLite's log")
        self._one("pragma synchronous = normal")
        self._one("pragma wal_autocheckpoint = 0")
        self._one("pragma secure_delete = off")  # where it is on, removing entries fills the log with zeros
        if (version := self._one("pragma user_version")) == 0:
            with self._transaction():
                if self._one("pragma user_version") == 0:
                    for statement in _CREATE.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"pragma user_version = {_SCHEMA}")
        elif version != _SCHEMA:
            raise OutOfReach(f"another version of coreflow made it (schema {version})")
        if (text := self._one("pragma quick_check(1)")) != "ok":
            raise sqlite3.DatabaseError(str(text))
        self._page = int(self._one("pragma page_size"))
        self._most_pages = max(self._limits.database // self._page, 16)
        self._shrink()
        self._one(f"pragma max_page_count = {self._most_pages}")

    # --- writing

    def write(self, changes: Sequence[Change]) -> int:
        """Write in one transaction; the highest number then. Raises sqlite3.Error, OSError, or OutOfReach."""
        self._make_room()
        with self._transaction():
            for change in changes:
                key = (self._writer, change.ticket)
                if not change.is_end:
                    self._db.execute("insert into begun values (?, ?, ?)", (*key, change.text))
                    continue
                self._db.execute("delete from begun where writer = ? and ticket = ?", key)
                if change.entry is not None:
                    self._insert(change.entry, change.text)
        return self.last

    @property
    def last(self) -> int:
        """The highest number so far."""
        return int(self._one("select max(seq) from sqlite_sequence where name = 'entries'") or 0)

    def tidy(self, now: float) -> None:
        """Remove what is too old, and tell what dead writers began as interrupted."""
        self._make_room()
        for writer in self._writers():
            if writer != self._writer and is_dead(self.path.parent, writer):
                self._bury(writer)
        remove_dead(self.path.parent)
        while self._delete("time < ?", now - self._limits.seconds):
            self._make_room()

    def _writers(self) -> list[str]:
        return [name for (name,) in self._db.execute("select distinct writer from begun").fetchall()]

    def _bury(self, writer: str) -> None:
        while True:
            self._make_room()
            with self._transaction():
                rows = self._db.execute(
                    "select ticket, entry from begun where writer = ? order by rowid limit ?",
                    (writer, MOST_CHANGES),
                ).fetchall()
                for ticket, text in rows:
                    self._db.execute("delete from begun where writer = ? and ticket = ?", (writer, ticket))
                    entry = interrupted(entry_in(text))
                    self._insert(entry, orjson.dumps(asdict(entry)).decode())
            if not rows:
                return

    def _insert(self, entry: Entry, text: str) -> None:
        row = (entry.time, entry.kind, entry.name, entry.owner, text)
        self._db.execute("insert into entries (time, kind, name, owner, entry) values (?, ?, ?, ?, ?)", row)

    # --- limits

    def _make_room(self) -> None:
        """Keep the log and the database within their shares, before anything is written."""
        self._empty_log(self._limits.log // 4)
        while self._used > self._most_pages * 3 // 4 and self._delete("true"):
            self._empty_log(self._limits.log // 4)

    @property
    def _used(self) -> int:
        """Pages that hold something."""
        return int(self._one("pragma page_count")) - int(self._one("pragma freelist_count"))

    def _delete(self, condition: str, *values: float) -> bool:
        """Remove some of the oldest entries that a condition is true of; return whether there were any."""
        with self._transaction():
            return bool(
                self._db.execute(
                    f"delete from entries where id in (select id from entries where {condition} order by id limit ?)",  # noqa: S608 - ours
                    (*values, MOST_CHANGES),
                ).rowcount
            )

    def _empty_log(self, threshold: int) -> None:
        """Write the log into the database once it is long. Raises OutOfReach where a reader does not let that happen."""
        if self._log_bytes <= threshold:
            return
        self._db.execute("pragma wal_checkpoint(truncate)").fetchone()
        if self._log_bytes > self._limits.log // 2:
            raise OutOfReach("a process that reads it does not let go of it")

    @property
    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def _shrink(self) -> None:
        """Make a file smaller that was made with a higher limit, in steps that the log has room for."""
        if int(self._one("pragma page_count")) <= self._most_pages:
            return
        self._make_room()
        while (before := int(self._one("pragma page_count"))) > self._most_pages:
            self._db.execute("pragma incremental_vacuum(16)").fetchall()
            self._empty_log(0)
            if int(self._one("pragma page_count")) >= before:
                raise OutOfReach("it cannot be made as small as its limit")

    # --- SQLite

    def _one(self, statement: str) -> int | str:
        row = self._db.execute(statement).fetchone()
        return row[0] if row is not None else ""

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise


def entry_in(text: str) -> Entry:
    """The entry of a row."""
    fields = orjson.loads(text)
    return Entry(**{**fields, "asked": in_order(fields["asked"])})


def read_entries(path: Path, query: Query) -> tuple[tuple[Record, ...], int]:
    """The last entries that fit, and the highest number. Raises sqlite3.Error, OSError.

    What dead processes began is at the end, as long as nobody has written it down, unless the question goes on from somewhere.
    """
    with closing(_reader(path)) as db:
        db.execute("begin")  # one moment for all of it
        if not db.execute("pragma user_version").fetchone()[0]:
            return (), 0  # whoever made it was killed before it held anything
        row = db.execute("select max(seq) from sqlite_sequence where name = 'entries'").fetchone()
        last = int(row[0] or 0)
        named = "select owner from entries where kind = 'service' and name = ?"
        owners = frozenset((query.service, *(o for (o,) in db.execute(named, (query.service,))))) - {BASE, ""}
        marks = ", ".join("?" * len(owners))
        rows = db.execute(
            "select id, entry from entries where id > ? and time >= ?"  # noqa: S608 - marks are question marks
            f" and (? = '' or name = ? or owner in ({marks})) order by id desc limit ?",
            (query.after, query.since, query.service, query.service, *owners, query.limit),
        ).fetchall()
        begun = db.execute("select writer, entry from begun order by rowid").fetchall()
    records = [Record(number, entry_in(text)) for number, text in reversed(rows)]
    dead = [entry for entry in _dead(path.parent, begun) if fits(entry, query, owners)]
    if not query.after:
        records += [Record(last + index, one) for index, one in enumerate(dead, 1)]
    return tuple(records[-query.limit :]), last


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing. After a `kill -9`, the log may have to be mended first, which takes more rights."""
    path.stat()
    uri = path.absolute().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        db.execute("select count(*) from sqlite_schema").fetchone()
    except sqlite3.OperationalError as exc:
        db.close()
        if not str(exc.sqlite_errorname).startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
        db = sqlite3.connect(f"{uri}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        db.execute("pragma query_only = on")
    except BaseException:
        db.close()
        raise
    return db


def _dead(folder: Path, begun: Iterable[tuple[str, str]]) -> list[Entry]:
    """The actions that processes began which have died since."""
    rows = list(begun)
    dead = {writer for writer in {writer for writer, _ in rows} if is_dead(folder, writer)}
    return [interrupted(entry_in(text)) for writer, text in rows if writer in dead]
