"""A journal in memory: it ends with the process, and holds so many entries."""

import itertools
from collections import deque

import trio

from coreflow.domain.journal import MOST_ENTRIES, STOPPED, Entry, History, Query, Record, interrupted, select


class MemoryJournal:
    """A `Journal` that only lives as long as the process."""

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self._records: deque[Record] = deque(maxlen=most)
        self._begun: dict[str, Entry] = {}
        self._tickets, self._numbers = itertools.count(1), itertools.count(1)
        self._last = 0

    @property
    def problem(self) -> str:
        """Nothing: it is meant to be in memory."""
        return ""

    def begin(self, entry: Entry) -> str:
        """Note that an action begins."""
        ticket = str(next(self._tickets))
        self._begun[ticket] = entry
        return ticket

    def end(self, ticket: str, entry: Entry | None) -> None:
        """Note what became of it."""
        if self._begun.pop(ticket, None) is not None and entry is not None:
            self._append(entry)

    def close(self) -> None:
        """Nobody will learn what becomes of that which has not ended."""
        while self._begun:
            self._append(interrupted(self._begun.pop(next(iter(self._begun))), STOPPED))

    async def kept(self) -> None:
        """At once."""
        await trio.lowlevel.checkpoint()

    async def read(self, query: Query) -> History:
        """The last entries that fit."""
        await trio.lowlevel.checkpoint()
        return History(records=select(self._records, query), last=self._last)

    def _append(self, entry: Entry) -> None:
        self._last = next(self._numbers)
        self._records.append(Record(self._last, entry))
