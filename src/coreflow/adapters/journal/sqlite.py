"""The journal in a file, written by a thread that nobody waits for longer than a moment.

What is noted goes into a queue with a bound; the thread writes it in order. Where that fails (no room, no permission, a
damaged file, a file that another process keeps to itself), it stays in the queue, which then is a journal in memory; that is
said once, and the file is tried again now and then, so that what is still in the queue gets there after all.
"""

import itertools
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
import trio
from attrs import evolve

from coreflow.domain.errors import Unavailable
from coreflow.domain.journal import (
    MOST_ENTRIES,
    STOPPED,
    Entry,
    History,
    Query,
    Record,
    interrupted,
    select,
)

from .reading import read_file, reason_of
from .store import FILE_NAME, MOST_BYTES, MOST_CHANGES, Change, Limits, Store
from .writers import Writer

log = structlog.get_logger()

KEPT_SECONDS = 2.0
"""How long somebody waits at most for what was noted to be in the file: a millisecond, unless the machine is overloaded or the
disk hangs. Once it took longer, nobody waits until that is over, and a kill meanwhile loses what was not written."""
READ_SECONDS = 2.0
SLOW = "the disk does not answer"
AGAIN_SECONDS = 10.0
"""After a failure, before the file is tried again."""
TIDY_SECONDS = 60.0
GOODBYE_SECONDS = 1.0
"""How long the end of a process waits for what is still to be written."""
_STEP = 0.02
MOST_WAITING = 2 * MOST_ENTRIES
"""Beginnings and ends in the queue."""


class SqliteJournal:
    """A `Journal` in a file; see `open_sqlite_journal`. Several processes may write the same one."""

    def __init__(
        self, folder: Path, limits: Limits, clock: Callable[[], float], *, again: float = AGAIN_SECONDS
    ) -> None:
        self._path, self._limits, self._clock, self._again = folder / FILE_NAME, limits, clock, again
        self._news = threading.Condition()
        self._waiting: deque[Change] = deque()
        self._tickets = itertools.count(1)
        self._open: dict[str, Entry] = {}
        self._noted = self._written = 0
        """How many changes there were, and how many of them the file has, or will never have."""
        self._last, self._lost, self._problem = 0, 0, ""
        self._is_closed = self._is_late = self._was_open = False
        self._waiters: list[tuple[int, trio.lowlevel.TrioToken, trio.Event]] = []
        self._readers = trio.CapacityLimiter(2)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def problem(self) -> str:
        """Return why the file is not written, if it is not."""
        return self._problem

    # --- noting

    def begin(self, entry: Entry) -> str:
        """Note that an action begins."""
        ticket = str(next(self._tickets))
        self._open[ticket] = entry
        self._note(Change.of(ticket, entry, is_end=False))
        return ticket

    def end(self, ticket: str, entry: Entry | None) -> None:
        """Note what became of it."""
        if self._open.pop(ticket, None) is not None:
            self._note(Change.of(ticket, entry, is_end=True))

    def _note(self, change: Change) -> None:
        with self._news:
            self._waiting.append(change)
            self._noted += 1
            while len(self._waiting) > MOST_WAITING:
                dropped = self._waiting.popleft()
                self._written += 1
                self._lost += dropped.is_end and dropped.entry is not None
            self._news.notify()

    async def kept(self) -> None:
        """Until what was noted is in the file, or a moment has passed, or there is trouble with the file."""
        await trio.lowlevel.checkpoint()
        if not self._is_late and not await self._written_within(KEPT_SECONDS):
            with self._news:
                self._is_late = bool(self._waiting)

    async def _written_within(self, seconds: float) -> bool:
        """Wait for what was noted so far; return whether it was written, or there is trouble, within so many seconds."""
        with self._news:
            if self._problem or self._written >= self._noted:
                return True
            event = trio.Event()
            self._waiters.append((self._noted, trio.lowlevel.current_trio_token(), event))
        with trio.move_on_after(seconds):
            await event.wait()
        return event.is_set()

    # --- reading

    async def read(self, query: Query) -> History:
        """The last entries that fit, of the file and of what waits for it."""
        await trio.lowlevel.checkpoint()
        is_written = await self._written_within(READ_SECONDS)
        with self._news:
            problem = self._problem or ("" if is_written else SLOW)
            waiting, last = tuple(self._waiting) if problem else (), self._last
        found = await self._read_file(query)
        if found is None and not problem:
            problem = "it cannot be read for now"
        base = found or History(kept=str(self._path), last=last)
        ended = [change.entry for change in waiting if change.is_end and change.entry is not None]
        more = [Record(base.last + number, entry) for number, entry in enumerate(ended, 1)]
        records = (*base.records, *select(more, query))[-query.limit :]
        return evolve(base, records=records, problem=problem, last=base.last + len(more))

    async def _read_file(self, query: Query) -> History | None:
        """The entries of the file, if it can be read; before there is one, it is waited for."""
        with trio.move_on_after(READ_SECONDS):
            while True:
                with suppress(Unavailable):
                    return await trio.to_thread.run_sync(
                        read_file, self._path, query, abandon_on_cancel=True, limiter=self._readers
                    )
                if self._problem or self._was_open:
                    return None
                await trio.sleep(_STEP)
        return None

    # --- the end

    async def close(self) -> None:
        """Note that nobody will learn what becomes of the rest, and wait a moment for what is still to be written."""
        for ticket, entry in tuple(self._open.items()):
            self.end(ticket, interrupted(entry, STOPPED))
        with self._news:
            self._is_closed = True
            self._news.notify()
        with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE_SECONDS):
            await trio.to_thread.run_sync(self._thread.join, abandon_on_cancel=True)

    # --- the thread

    def _run(self) -> None:
        writer: Writer | None = None
        try:
            while not self._is_over():
                try:
                    writer = writer or Writer(self._path.parent)
                    self._write_as(writer.name)
                except Exception as exc:  # noqa: BLE001 - a bug, too, must not end the thread: the queue would fill
                    self._trouble(reason_of(exc))
                    if self._is_closed:
                        return
                    self._pause(self._again, is_trouble=True)
        finally:
            if writer is not None:
                with suppress(OSError):
                    writer.close()

    def _write_as(self, writer: str) -> None:
        """Write until the end. Raises whatever keeps it from that."""
        store = Store(self._path, self._limits, writer)
        try:
            self._was_open = True
            store.tidy(self._clock())
            while True:
                self._write(store)
                self._fine()
                if self._is_over():
                    return
                if self._pause(TIDY_SECONDS):
                    store.tidy(self._clock())
        finally:
            with suppress(sqlite3.Error, OSError):
                store.close()

    def _is_over(self) -> bool:
        with self._news:
            return self._is_closed and not self._waiting

    def _pause(self, seconds: float, *, is_trouble: bool = False) -> bool:
        """Wait for something to write, for so long at most; return whether it was that long. In trouble, for the end only."""

        def is_due() -> bool:
            return self._is_closed or (bool(self._waiting) and not is_trouble)

        with self._news:
            return not self._news.wait_for(is_due, seconds)

    def _write(self, store: Store) -> None:
        """Write all that waits, in pieces."""
        while batch := self._batch():
            last = store.write(batch)
            with self._news:
                self._last = last
                for change in batch:
                    if self._waiting and self._waiting[0] is change:
                        self._waiting.popleft()
                        self._written += 1
                self._is_late = self._is_late and bool(self._waiting)
                self._wake()

    def _batch(self) -> list[Change]:
        with self._news:
            batch: list[Change] = []
            size = 0
            for change in itertools.islice(self._waiting, MOST_CHANGES):
                size += len(change.text)
                if batch and size > MOST_BYTES:
                    break
                batch.append(change)
            return batch

    def _wake(self, *, everybody: bool = False) -> None:
        """Tell who waits for what has been written. The lock is held."""
        still = []
        for noted, token, event in self._waiters:
            if everybody or self._written >= noted:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(event.set)
            else:
                still.append((noted, token, event))
        self._waiters = still

    def _trouble(self, problem: str) -> None:
        """Go on in memory."""
        with self._news:
            is_new, self._problem = not self._problem, problem
            self._wake(everybody=True)
        if is_new:
            log.warning(
                "the journal is kept in memory only",
                file=str(self._path),
                reason=problem,
                again=f"every {self._again:.0f} s",
            )

    def _fine(self) -> None:
        """Say that the file is written again, if it was not."""
        with self._news:
            had, self._problem = self._problem, ""
            lost, self._lost = self._lost, 0
        if had or lost:
            log.info("the journal is written again", file=str(self._path), lost=lost)


@asynccontextmanager
async def open_sqlite_journal(
    folder: Path, limits: Limits, clock: Callable[[], float], *, again: float = AGAIN_SECONDS
) -> AsyncIterator[SqliteJournal]:
    """The journal in a folder, for as long as the block lasts. `clock` is the time that entries have, for their age."""
    journal = SqliteJournal(folder, limits, clock, again=again)
    journal.start()
    try:
        yield journal
    finally:
        await journal.close()
