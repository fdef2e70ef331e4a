"""Kicks and ticks -> passes, one at a time.

A kick says that something may have changed and carries nothing else: the pass reads everything anew. Any number of
kicks during a pass make exactly one more, so a lost, duplicate or late kick cannot matter; a relist at regular intervals
finds what nobody announced.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

import structlog
import trio
from attrs import frozen
from croniter import croniter

from coreflow.domain.deploy.desired import Rejection
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.steps import Plan, kind_of, name_of, stage_of, subject_of, verb_of
from coreflow.domain.errors import Unavailable
from coreflow.domain.pacing import Attention
from coreflow.domain.swarm.convergence import Verdict

from .reconcile import Reconciler, ReconcileResult

log = structlog.get_logger()

SETTLING_SECONDS = 5.0
"""How soon to look again while something is under way."""
BURST_SECONDS = 0.3
"""Events come in bursts; a kick waits this long for its companions. Urgent ones wait only where there are many: chains of
passes begin this far apart at least."""

PATIENCE_SECONDS = 60.0
"""How long a roll-out may take before it is called unfinished, as long as no task fails."""

_SAID_ONCE = frozenset({"crash-looping"})
"""Problems whose reasons take turns while they last: the next container ends in another way."""
_AWAITED = "awaited"
_EVENTS = {_AWAITED: "held"}
"""What is held because an answer is on its way is nothing to worry about."""
NAME_SHOWN, REASON_SHOWN = 200, 2000
"""Characters of a problem that are logged."""


class Kicks:
    """Wake-up calls for the loop, coalesced."""

    def __init__(self) -> None:
        self._event, self._urgent = trio.Event(), trio.Event()
        self._asked = Asked()
        self._due, self._moved = math.inf, trio.Event()

    def kick(
        self,
        *,
        records: bool = True,
        refresh: bool = False,
        retry_failed: bool = False,
        try_now: bool = False,
        urgent: bool = False,
    ) -> None:
        """Ask for a pass; with `refresh`, for one that looks up every image again.

        With `retry_failed`, for one that tries again what was rolled back; with `try_now`, for one that ends every pause.
        Without `records`, those have not changed.
        An `urgent` one does not wait for companions, nor for the end of a back-off.
        """
        asked = self._asked
        self._asked = Asked(
            refresh=asked.refresh or refresh,
            retry_failed=asked.retry_failed or retry_failed,
            try_now=asked.try_now or try_now,
            records=asked.records or records,
        )
        self._event.set()
        if urgent:
            self._urgent.set()

    def kick_at(self, time: float) -> None:
        """Ask for a pass then, at the latest, by trio's clock: the engine has changed."""
        if time <= trio.current_time():
            self.kick(records=False)
        elif time < self._due:
            self._due = time
            moved, self._moved = self._moved, trio.Event()
            moved.set()

    async def wait(self) -> None:
        """Until the next kick."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_for_due)
            await self._event.wait()
            nursery.cancel_scope.cancel()

    async def _wait_for_due(self) -> None:
        while True:
            moved = self._moved
            with trio.move_on_at(self._due):
                await moved.wait()
            if trio.current_time() >= self._due:
                self._due = math.inf
                self.kick(records=False)

    def kick_again(self, asked: "Asked") -> None:
        """Ask once more for what was asked for, whenever the next pass comes."""
        if asked != Asked():
            self.kick(
                records=asked.records,
                refresh=asked.refresh,
                retry_failed=asked.retry_failed,
                try_now=asked.try_now,
            )

    async def wait_urgent(self) -> None:
        """Until the next urgent kick."""
        await self._urgent.wait()

    def take(self) -> "Asked":
        """Forget the kicks so far; what they asked for."""
        asked, self._asked = self._asked, Asked()
        if self._due <= trio.current_time():
            self._due = math.inf
        self._event, self._urgent = trio.Event(), trio.Event()
        return asked


@frozen(kw_only=True)
class Asked:
    """What somebody wants of the next pass, beyond the usual."""

    refresh: bool = False
    """Look up every image again."""
    retry_failed: bool = False
    """Try again what was rolled back."""
    try_now: bool = False
    """Try what could not be done although its next try is not due."""
    records: bool = False
    """Fetch the records: they may have changed."""


class Kickable(Protocol):
    """What can be told that something may have changed."""

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
        on_settled: Callable[[ReconcileResult, bool], None] | None = None,
    ) -> None:
        self._reconciler, self._kicks = reconciler, kicks
        self._initial_delay, self._relist_seconds = initial_delay, relist_seconds
        self._on_settled = on_settled
        self._problems = Problems()
        self._started = False
        self._number = 0
        self._fetched_at = -math.inf
        self._failed = False

    async def run_forever(self) -> None:
        """Pass after pass. Raises what a pass raises; starting again goes on where it stopped."""
        if not self._started:
            with trio.move_on_after(self._initial_delay):
                await trio.sleep_forever()
            self._started = True
        while True:
            began = trio.current_time()
            asked = self._kicks.take()
            fetch = asked.records or began >= self._fetched_at + self._relist_seconds
            if self._failed:
                self._reconciler.engine_is_back()
            if asked.retry_failed:
                self._reconciler.try_again()
            elif asked.try_now or asked.refresh:
                self._reconciler.try_now()
            self._number += 1
            with structlog.contextvars.bound_contextvars(pass_id=self._number):
                self._failed = True
                try:
                    reconcile_result = await self._reconciler.settle(
                        refresh=asked.refresh, retry_failed=asked.retry_failed, fetch=fetch
                    )
                except BaseException:
                    self._kicks.kick_again(asked)  # not done yet
                    raise
                self._failed = False
                self._fetched_at = began if fetch else self._fetched_at
                self._problems.report(reconcile_result, trio.current_time())
            if self._on_settled is not None:
                self._on_settled(reconcile_result, asked.refresh)
            await self._pause(reconcile_result, began)

    async def _pause(self, reconcile_result: ReconcileResult, began: float) -> None:
        seconds = min(self._seconds_after(reconcile_result), self._relist_seconds)
        with trio.move_on_after(seconds):
            await self._kicks.wait()
            with trio.move_on_after(BURST_SECONDS):
                await self._kicks.wait_urgent()
            await trio.sleep_until(began + BURST_SECONDS)

    def _seconds_after(self, reconcile_result: ReconcileResult) -> float:
        """How soon to look again without anybody asking for it."""
        due_in = self._reconciler.due_in
        due = math.inf if due_in is None else max(due_in, BURST_SECONDS)
        if not (reconcile_result.last.plan.waits or reconcile_result.pending):
            return SETTLING_SECONDS if reconcile_result.may_retry and due_in is None else due
        idle = reconcile_result.idle_seconds
        return min(due, SETTLING_SECONDS if idle is None else max(idle, BURST_SECONDS))


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
        kicks.kick(records=False, urgent=True)
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
        due: datetime = croniter(schedule, moment, second_at_beginning=True).get_next(datetime)
        await sleep(max((due - moment).total_seconds(), 0.0))
        kicks.kick(refresh=True)


class ActionLog:
    """A listener that logs what is done, and what could not be done once until it can, or for another reason."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, str], str] = {}

    def planned(self, plan: Plan) -> None:
        """One line for a pass that has something to do."""
        if plan.steps:
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
        """What could not be done, or goes on, and when it is tried again."""
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
    """Says what is wrong when it begins and when it ends, and not every minute in between."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._moving: dict[str, float] = {}

    def report(self, reconcile_result: ReconcileResult, now: float) -> None:
        """Log the difference to the last report, and what has begun to run. `now` is any clock in seconds."""
        found = dict(_problems(reconcile_result))
        found.update(self._unfinished(reconcile_result.verdicts, now))
        found = {key[:NAME_SHOWN]: _cut(text) for key, text in found.items()}
        for key, text in found.items():
            kind, _, name = key.partition(" ")
            if key not in self._known or (self._known[key] != text and kind not in _SAID_ONCE):
                say = log.info if kind == _AWAITED else log.warning
                say(_EVENTS.get(kind, kind), name=name, reason=text)
        wrong = {key.partition(" ")[2] for key in found}
        for key in self._known.keys() - found.keys():
            kind, _, name = key.partition(" ")
            if name not in wrong:  # else it is only called something else now
                log.info("resolved", name=name, was=_EVENTS.get(kind, kind))
        self._known = found

    def _unfinished(self, verdicts: Mapping[str, Verdict], now: float) -> Iterator[tuple[str, str]]:
        """Services that do not run as they should: at once where there is an error, else after some time."""
        for name in self._moving.keys() - verdicts.keys():
            del self._moving[name]
        for name, verdict in verdicts.items():
            if verdict.done and self._moving.pop(name, None) is not None:
                log.info("running", name=name, tasks=verdict.running)
            if verdict.done or not verdict.detail:
                continue
            since = self._moving.setdefault(name, now)
            if verdict.is_crash_looping:
                yield f"crash-looping {name}", f"its tasks end again and again: {verdict.error}"
                continue
            if verdict.has_error or now - since >= PATIENCE_SECONDS:
                text = f"{verdict.running} of {verdict.wanted} running: {verdict.detail}"
                yield f"unfinished {name}", text


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= REASON_SHOWN
        else f"{text[:REASON_SHOWN]}… and {len(text) - REASON_SHOWN} more characters"
    )


def _kind_of(rejection: Rejection) -> str:
    if rejection.awaited:
        return _AWAITED
    return "held" if rejection.held else "rejected"


def _problems(reconcile_result: ReconcileResult) -> list[tuple[str, str]]:
    plan = reconcile_result.last.plan
    found = [(f"{_kind_of(r)} {r.name}", "; ".join(r.reasons)) for r in plan.rejections]
    found += [(f"failed {failure.name}", failure.reason) for failure in plan.failures]
    found += [(f"contested {contest.name}", contest.reason) for contest in plan.contests]
    found += [(f"note {note.name}", note.text) for note in plan.notes]
    if plan.refusal is not None:
        names = ", ".join(plan.refusal.names)
        found.append(("refused removal", f"{plan.refusal} (COREFLOW_CONFIRM_REMOVAL); services: {names}"))
    return found
