"""Keeping the journal: every action is noted before it begins, and again when its outcome is known.

So an action that was carried out is in the journal whenever the process is killed: with its outcome, or as interrupted. Its
outcome is noted before anybody is told of it. Whoever acts waits a moment for the journal, and no longer: what a slow disk
has not kept by then is kept later.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from attrs import define, evolve

from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.steps import Action
from coreflow.domain.errors import LostRace, PortError, PreconditionFailed
from coreflow.domain.journal import (
    MOST_ENTRIES,
    STOPPED,
    Asker,
    Entry,
    History,
    Query,
    after_operation,
    after_outcome,
    begun,
    begun_operation,
    begun_removal,
    begun_route,
    ended,
    interrupted,
)
from coreflow.domain.ports import Journal
from coreflow.domain.routing.gateway import GatewayAction
from coreflow.domain.swarm.actions import Start, Stop

from .telling import told

FOLLOW_SECONDS = 0.5
"""How often somebody who follows a journal looks."""


@define(eq=False)
class Noted:
    """An action that has begun; `entry` is what came of it, or None for something that is not worth telling."""

    entry: Entry | None


class Recorder:
    """Keeps a journal for whoever acts; without one, it does nothing."""

    def __init__(
        self, journal: Journal | None, clock: Callable[[], float], *, asked: Iterable[Asker] = ()
    ) -> None:
        """`asked` is who asks for actions, unless a series of passes says otherwise."""
        self._journal, self._clock = journal, clock
        self._asked, self._pass = tuple(asked), 0

    def series(self, number: int, asked: Iterable[Asker]) -> None:
        """A series of passes begins."""
        self._pass, self._asked = number, tuple(asked)

    @asynccontextmanager
    async def _noted(self, entry: Entry) -> AsyncIterator[Noted]:
        """Note an action for the length of the block; without an outcome in the end, as interrupted."""
        noted = Noted(interrupted(entry, STOPPED))
        if self._journal is None:
            yield noted
            return
        ticket = self._journal.begin(_told(entry))
        try:
            await self._journal.kept()
            yield noted
        finally:
            self._journal.end(ticket, _told(noted.entry) if noted.entry is not None else None)
        await self._journal.kept()

    async def step(self, action: Action, carry_out: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Carry out an action of a pass, and note it."""
        entry = begun(action, self._clock(), self._pass, self._asked)
        async with self._noted(entry) as noted:
            outcome = await carry_out()
            noted.entry = after_outcome(entry, outcome, self._clock())
        return outcome

    async def act(
        self, action: Action | Stop | Start, call: Callable[[], Awaitable[None]], *asked: Asker
    ) -> None:
        """Carry out an action of no pass, and note it. Raises what it raises."""
        await self._act(begun(action, self._clock(), 0, asked or self._asked), call)

    async def route(self, action: GatewayAction, call: Callable[[], Awaitable[None]]) -> None:
        """Write a route at a gateway, and note it. Raises what it raises."""
        await self._act(begun_route(action, self._clock(), self._asked), call)

    async def removal(self, image: str, call: Callable[[], Awaitable[None]]) -> None:
        """Remove an image, and note it. Raises what it raises."""
        await self._act(begun_removal(image, self._clock(), self._asked), call)

    async def _act(self, entry: Entry, call: Callable[[], Awaitable[None]]) -> None:
        async with self._noted(entry) as noted:
            try:
                await call()
            except (PortError, PreconditionFailed) as exc:
                word = "overtaken" if isinstance(exc, LostRace) else "failed"
                noted.entry = ended(entry, word, str(exc), self._clock())
                raise
            noted.entry = ended(entry, "applied", "", self._clock())

    async def blocked(self, outcome: Outcome) -> None:
        """Note an action that was not tried."""
        if self._journal is None or not outcome.is_news:
            return
        now = self._clock()
        entry = begun(outcome.step.action, now, self._pass, self._asked)
        ticket = self._journal.begin(_told(entry))
        self._journal.end(ticket, _told(ended(entry, outcome.status, outcome.detail, now)))
        await self._journal.kept()

    @asynccontextmanager
    async def operation(
        self, request: BackupRequest | RestoreRequest, *asked: Asker
    ) -> AsyncIterator[Callable[[BackupResult | RestoreResult | None], None]]:
        """Note a backup or a restore for the length of the block; what is yielded takes the result; None is not worth an entry."""
        entry = begun_operation(request, self._clock(), asked or self._asked)

        async with self._noted(entry) as noted:

            def take(result: BackupResult | RestoreResult | None) -> None:
                noted.entry = None if result is None else after_operation(entry, result, self._clock())

            yield take


def _told(entry: Entry) -> Entry:
    """Return what may be told of an entry: texts of peers were redacted where they came from, and what got past that is here."""
    return evolve(entry, reason=told(entry.reason), detail=told(entry.detail))


def no_clock() -> float:
    """The clock of those who keep no journal."""
    return 0.0


NO_RECORDER = Recorder(None, no_clock)
"""Keeps nothing."""


class Reader(Protocol):
    """Somebody who can be asked for history: a journal, a file, a daemon."""

    async def read(self, query: Query) -> History:
        """The last entries that fit."""
        ...


async def follow(
    reader: Reader, query: Query, sleep: Callable[[float], Awaitable[None]] = trio.sleep
) -> AsyncIterator[History]:
    """Yield what there is, and from then on whatever is new, as soon as it is there. Raises what the reader raises."""
    for number in itertools.count():
        history = await reader.read(query)
        if history.records or number == 0:
            yield history
        query = evolve(query, after=max(history.last, query.after), limit=MOST_ENTRIES)
        await sleep(FOLLOW_SECONDS)
