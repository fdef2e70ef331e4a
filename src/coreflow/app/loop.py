"""Triggers -> passes, one at a time.

A trigger (here: a kick) says that something may have changed and carries nothing else: the pass observes everything anew.
Any number of kicks during a pass cause exactly one more, so a lost, duplicate or late kick cannot matter; a resync at
regular intervals finds changes that triggered nothing.
"""

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

import structlog
import trio
from attrs import frozen

from coreflow.domain.deploy.problems import NOTHING_TOLD
from coreflow.domain.deploy.result import Outcome, ReconcileResult
from coreflow.domain.deploy.schedule import (
    BURST_SECONDS,
    EMPTY_AGENDA,
    Agenda,
    PassRequest,
    seconds_to_next_pass,
)
from coreflow.domain.deploy.steps import Plan, kind_of, name_of, stage_of, subject_of, verb_of
from coreflow.domain.errors import Unavailable
from coreflow.domain.journal import Asker, in_order
from coreflow.domain.pacing import Attention
from coreflow.domain.swarm.convergence import Verdict

from .reconcile import Reconciler
from .supervise import is_well

log = structlog.get_logger()


CAUSES = ("push", "file", "event", "schedule", "answer", "hand", "again")
"""Words of the journal for who asks; `again` after a failure."""


class Kicks:
    """Wake-up calls for the loop, coalesced: an `Agenda` that can be waited for."""

    def __init__(self) -> None:
        self._agenda, self._changed = EMPTY_AGENDA, trio.Event()
        self.causes: Counter[str] = Counter(dict.fromkeys(CAUSES, 0))
        """How often each cause has asked for a pass."""

    def kick(
        self,
        *,
        records: bool = True,
        refresh: bool = False,
        retry_failed: bool = False,
        try_now: bool = False,
        urgent: bool = False,
        by: Asker | None = None,
    ) -> None:
        """Ask for a pass, and say who does; with `refresh`, for one that looks up every image again.

        With `retry_failed`, for one that tries again what was rolled back; with `try_now`, for one that ends every pause.
        Without `records`, those have not changed.
        An `urgent` one does not wait for companions, nor for the end of a back-off.
        """
        self.causes[by or "other"] += 1
        request = PassRequest(
            refresh=refresh,
            retry_failed=retry_failed,
            try_now=try_now,
            records=records,
            by=frozenset() if by is None else frozenset({by}),
        )
        self._become(self._agenda.kicked(request, urgent=urgent))

    def kick_at(self, time: float) -> None:
        """Ask for a pass then, at the latest, by trio's clock: the engine has changed."""
        self.causes["event"] += 1
        self._become(self._agenda.kicked_at(time, trio.current_time()))

    def failed(self, request: PassRequest) -> None:
        """Ask once more for what was asked for, whenever the next pass comes."""
        self.causes["again"] += 1
        self._become(self._agenda.failed(request))

    async def wait(self) -> None:
        """Until the next kick."""
        await trio.lowlevel.checkpoint()
        while not self._agenda.is_kicked:
            with trio.move_on_at(self._agenda.due):
                await self._changed.wait()
            self._become(self._agenda.at(trio.current_time()))

    async def wait_urgent(self) -> None:
        """Until the next urgent kick."""
        await trio.lowlevel.checkpoint()
        while not self._agenda.is_urgent:
            await self._changed.wait()

    def take(self) -> PassRequest:
        """Forget the kicks so far; what they asked for."""
        request = self._agenda.request
        self._become(self._agenda.taken(trio.current_time()))
        return request

    def _become(self, agenda: Agenda) -> None:
        before, self._agenda = self._agenda, agenda
        if agenda != before:
            changed, self._changed = self._changed, trio.Event()
            changed.set()


class Kickable(Protocol):
    """Something that can be told of changes."""

    def kick(self, *, urgent: bool = False) -> None:
        """Something may have changed."""
        ...


class Loop:
    """The chain of passes of a daemon."""

    def __init__(
        self,
        reconciler: Reconciler,
        kicks: Kicks,
        *,
        initial_delay: float,
        relist_seconds: float,
        on_reconciled: Callable[[ReconcileResult, bool], None] | None = None,
        on_failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._reconciler, self._kicks = reconciler, kicks
        self._initial_delay, self._relist_seconds = initial_delay, relist_seconds
        self._on_reconciled, self._on_failed = on_reconciled, on_failed
        self._problems = Problems()
        self._started = False
        self._number = 0
        self._fetched_at = -math.inf
        self.began = 0.0
        """When the last series of passes began, by trio's clock."""
        self._failed = False

    async def run_forever(self) -> None:
        """Pass after pass. Raises what a pass raises; starting again goes on where it stopped."""
        if not self._started:
            with trio.move_on_after(self._initial_delay):
                await trio.sleep_forever()
            self._started = True
        while True:
            began = self.began = trio.current_time()
            asked = self._kicks.take()
            fetch = asked.fetches(began, self._fetched_at, self._relist_seconds)
            if self._failed:
                self._reconciler.engine_is_back()
            if asked.retry_failed:
                self._reconciler.try_again()
            elif asked.try_now or asked.refresh:
                self._reconciler.try_now()
            self._number += 1
            self._reconciler.recorder.series(self._number, self._askers(asked))
            with structlog.contextvars.bound_contextvars(pass_id=self._number):
                self._failed = True
                try:
                    reconcile_result = await self._reconciler.reconcile(
                        refresh=asked.refresh, retry_failed=asked.retry_failed, fetch=fetch
                    )
                except BaseException as exc:
                    self._kicks.failed(asked)  # not done yet
                    if isinstance(exc, Exception):
                        self._on_failed(exc)
                    raise
                self._failed = False
                is_well()
                self._fetched_at = began if fetch else self._fetched_at
                self._problems.report(reconcile_result, trio.current_time())
            if self._on_reconciled is not None:
                self._on_reconciled(reconcile_result, asked.refresh)
            await self._pause(reconcile_result, began)

    def _askers(self, asked: PassRequest) -> tuple[Asker, ...]:
        """Return who asked for a series of passes; `interval` where nobody did."""
        askers = in_order(asked.by)
        if self._number == 1:
            return ("start", *askers)
        return askers or ("interval",)

    async def _pause(self, reconcile_result: ReconcileResult, began: float) -> None:
        seconds = seconds_to_next_pass(reconcile_result, self._reconciler.due_in, self._relist_seconds)
        with trio.move_on_after(seconds):
            await self._kicks.wait()
            with trio.move_on_after(BURST_SECONDS):
                await self._kicks.wait_urgent()
            await trio.sleep_until(began + BURST_SECONDS)


@frozen
class KicksBy:
    """The kicks of a loop, for somebody who is named with each."""

    kicks: Kicks
    by: Asker

    def kick(self, *, urgent: bool = False) -> None:
        """Something may have changed."""
        self.kicks.kick(urgent=urgent, by=self.by)


async def kick_on_changes(
    changes: Callable[[], AbstractAsyncContextManager[AsyncIterator[None]]],
    kicks: Kickable,
    others: Iterable[Kickable] = (),
    *,
    urgent: bool = False,
) -> None:
    """Kick, and `others` too, whenever a peer says that something changed, and once whenever it is (again) there to say so.

    Raises Unavailable when the peer hangs up.
    """
    async with changes() as notices:
        is_well()
        for one in (kicks, *others):
            one.kick(urgent=urgent)
        async for _ in notices:
            for one in (kicks, *others):
                one.kick(urgent=urgent)
    raise Unavailable("the stream of changes ended")


async def kick_on_events(
    changes: Callable[[], AbstractAsyncContextManager[AsyncIterator[str]]],
    kicks: Kicks,
    others: Iterable[Kickable] = (),
) -> None:
    """Kick whenever something of ours changes in the engine, and at once when the engine is (again) there to say so.

    A subject that goes on changing is answered later each time, and keeps no other from being answered at once. `others`
    are told of everything. Raises Unavailable when the engine hangs up.
    """
    attention = Attention()
    async with changes() as subjects:
        is_well()
        kicks.kick(records=False, urgent=True, by="event")
        for other in others:
            other.kick()
        async for subject in subjects:
            kicks.kick_at(attention.due(subject, trio.current_time()))
            for other in others:
                other.kick()
    raise Unavailable("the stream of changes ended")


async def kick_on_schedule(
    schedule: str,
    kicks: Kicks,
    now: Callable[[], datetime],
    sleep: Callable[[float], Awaitable[None]] = trio.sleep,
) -> None:
    """Kick at the times of a six-field cron expression (seconds first), looking up every image again."""
    while True:
        moment = now()
        from croniter import croniter

        due: datetime = croniter(schedule, moment, second_at_beginning=True).get_next(datetime)
        await sleep(max((due - moment).total_seconds(), 0.0))
        kicks.kick(refresh=True, by="schedule")


class ActionLog:
    """A listener that logs what is done, and what could not be done once until it can, or for another reason."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, str], str] = {}
        self._has_begun = False

    def planned(self, plan: Plan) -> None:
        """One line for a pass that has something to do, and for the first: whoever starts a daemon sees that it works."""
        begins, self._has_begun = not self._has_begun, True
        if plan.steps or begins:
            log.info("pass", actions=len(plan.steps), as_desired=plan.kept)

    def applied(self, outcome: Outcome) -> None:
        """One line per action."""
        action = outcome.step.action
        facts = {
            "kind": kind_of(action),
            "name": name_of(action),
            "owner": subject_of(action).owner,
            "stage": stage_of(action).value,
        }
        key = (verb_of(action), facts["kind"], facts["name"])
        said = self._said.pop(key, None)
        if outcome.status == "applied":
            log.info(verb_of(action), reason=action.reason, **facts)
        elif outcome.status == "overtaken":  # no failure: the next pass sees what became of it
            log.debug(outcome.status, action=verb_of(action), reason=outcome.detail, **facts)
        else:
            self._said[key] = outcome.detail
            if outcome.detail != said:
                self._say(outcome, facts)

    @staticmethod
    def _say(outcome: Outcome, facts: Mapping[str, object]) -> None:
        """Log what could not be done, or goes on, and when it is tried again."""
        if outcome.again is not None:
            facts = {
                **facts,
                "again": f"in {outcome.again:.0f} s, later each time; at once when its record changes",
            }
        say = log.info if outcome.status == "under way" else log.warning
        say(outcome.status, action=verb_of(outcome.step.action), reason=outcome.detail, **facts)

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """Nothing: the loop reports changes."""


class Problems:
    """Logs what is wrong when it begins and when it ends."""

    def __init__(self) -> None:
        self._log = NOTHING_TOLD

    def report(self, reconcile_result: ReconcileResult, now: float) -> None:
        """Log the difference to the last report, and what has begun to run. `now` is any clock in seconds."""
        self._log, messages = self._log.after(reconcile_result, now)
        for message in messages:
            say = log.info if message.level == "info" else log.warning
            say(message.event, **message.facts)
