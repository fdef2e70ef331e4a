"""The schedule of passes: what they are to do, when the next one is due, and how many follow one another.

A trigger (here: a kick) says that something may have changed and carries nothing else. Any number of kicks cause one pass,
so a lost, late or repeated one cannot matter. All times are of one steady clock, in seconds.
"""

import math
from collections.abc import Iterable, Sequence

from attrs import evolve, field, frozen

from .result import Outcome, ReconcileResult, Report
from .steps import Plan, Step, kind_of, name_of

BUSY_SECONDS = 5.0
"""How soon to look again while something is under way."""
BURST_SECONDS = 0.3
"""Events come in bursts; a kick waits this long for its companions. Urgent ones wait only where there are many: series of
passes begin this far apart at least."""
PASS_LIMIT = 12
"""Passes in a row before a series gives up: more means that something changes as fast as we put it right."""
POLL_SECONDS = 0.5
"""How often `apply` looks whether roll-outs have ended: two lists, whatever the number of services."""
LONGEST_SLEEP_SECONDS = 5.0
"""Records may change while an `apply` waits for something that is not due yet."""

Pause = tuple[float, float]
"""How long to wait, at least and at most."""
AT_ONCE: Pause = (0.0, 0.0)
OVERTAKEN_PAUSE: Pause = (0.2, 1.0)
"""Before looking again after somebody else was faster: it may not be done yet."""
DEFERENCE_PAUSE: Pause = (0.5, 2.0)
"""Before looking again where somebody else does the same as we."""
DEFERENCE_SECONDS = 600.0
"""For how long that is assumed after the last sign of it."""


@frozen(kw_only=True)
class PassRequest:
    """Wishes for the next pass, beyond the usual."""

    refresh: bool = False
    """Look up every image again."""
    retry_failed: bool = False
    """Try again what was rolled back."""
    try_now: bool = False
    """Try what could not be done although its next try is not due."""
    records: bool = False
    """Fetch the records: they may have changed."""
    by: frozenset[str] = field(default=frozenset(), eq=False)
    """Who asked, in the words of the journal. It makes no other pass of it."""

    def joined(self, other: "PassRequest") -> "PassRequest":
        """Return the request for one pass that does what both ask for."""
        return PassRequest(
            refresh=self.refresh or other.refresh,
            retry_failed=self.retry_failed or other.retry_failed,
            try_now=self.try_now or other.try_now,
            records=self.records or other.records,
            by=self.by | other.by,
        )

    def fetches(self, now: float, fetched_at: float, relist_seconds: float) -> bool:
        """Say whether the records are fetched: they may have changed, or nobody has looked for a while."""
        return self.records or now >= fetched_at + relist_seconds


NOTHING_ASKED = PassRequest()
ENGINE_CHANGED = PassRequest(by=frozenset({"event"}))
"""The engine is looked at anyway."""


@frozen(kw_only=True)
class Agenda:
    """The kicks since the last pass began."""

    request: PassRequest = NOTHING_ASKED
    is_kicked: bool = False
    is_urgent: bool = False
    """Whether the pass waits neither for companions nor for the end of a back-off."""
    due: float = math.inf
    """When a pass is due because the engine has changed."""

    def kicked(self, request: PassRequest, *, urgent: bool = False) -> "Agenda":
        """Return the agenda with one more kick."""
        joined = self.request.joined(request)
        return evolve(self, request=joined, is_kicked=True, is_urgent=self.is_urgent or urgent)

    def kicked_at(self, time: float, now: float) -> "Agenda":
        """Return the agenda with a pass at a time, at the latest: the engine has changed."""
        return self.kicked(ENGINE_CHANGED) if time <= now else evolve(self, due=min(self.due, time))

    def at(self, now: float) -> "Agenda":
        """Return the agenda as it is at a time: what has become due is a kick."""
        return evolve(self, due=math.inf).kicked(ENGINE_CHANGED) if self.due <= now else self

    def taken(self, now: float) -> "Agenda":
        """Return what is left when a pass begins, which answers everything so far."""
        return Agenda(due=self.due if self.due > now else math.inf)

    def failed(self, request: PassRequest) -> "Agenda":
        """Return the agenda after a pass that could not do what it was asked for: the next one is asked for it."""
        return self.kicked(request) if request != NOTHING_ASKED else self


EMPTY_AGENDA = Agenda()


def seconds_to_next_pass(result: ReconcileResult, due_in: float | None, relist_seconds: float) -> float:
    """Return how soon the daemon looks again without anybody asking for it.

    `due_in`: in how many seconds something is tried again that could not be done, if anything is.
    """
    return min(_seconds_to_work(result, due_in), relist_seconds)


def _seconds_to_work(result: ReconcileResult, due_in: float | None) -> float:
    due = math.inf if due_in is None else max(due_in, BURST_SECONDS)
    if not (result.last.plan.waits or result.pending):
        return BUSY_SECONDS if result.may_retry and due_in is None else due
    idle = result.idle_seconds
    return min(due, BUSY_SECONDS if idle is None else max(idle, BURST_SECONDS))


def seconds_to_next_try(result: ReconcileResult, due_in: float | None) -> float:
    """Return how soon an `apply` makes another pass, as far as that is known; infinite where an event has to start it."""
    if result.may_retry:
        return max(POLL_SECONDS, due_in or 0.0)
    if result.is_awaiting and not result.last.plan.waits:
        return math.inf if result.pending else LONGEST_SLEEP_SECONDS
    if result.pending:
        return math.inf
    return max(POLL_SECONDS, min(result.idle_seconds or 0.0, LONGEST_SLEEP_SECONDS))


def has_work_within(result: ReconcileResult, seconds: float) -> bool:
    """Say whether an `apply` with so much time left can do more than it has done."""
    return seconds > 0 and (bool(result.pending) or result.waits_for(seconds))


# --- passes in a row


def pause_before_next(reports: Sequence[Report]) -> Pause | None:
    """Return how long to wait before the next pass of a series; None where it is over.

    It is as soon as a pass had nothing to do, or got nothing done that the next one could build on.
    """
    if not reports:
        return AT_ONCE
    last = reports[-1]
    has_progress = last.applied or any(outcome.at_once for outcome in last.troubles)
    if len(reports) >= PASS_LIMIT or not last.outcomes or not has_progress:
        return None
    return OVERTAKEN_PAUSE if overtaken(last.outcomes) else AT_ONCE


def overtaken(outcomes: Iterable[Outcome]) -> tuple[Step, ...]:
    """The steps at which somebody else was faster."""
    return tuple(outcome.step for outcome in outcomes if outcome.status == "overtaken")


@frozen
class Deference:
    """While somebody else does the same as we, it goes first: two that write at once undo each other's roll-outs."""

    until: float = -math.inf

    def after(self, lost: Iterable[Step], plan: Plan, now: float) -> "Deference":
        """Return the deference after the look that followed a pass which has `lost` steps to somebody else.

        What that look no longer wants to do, somebody else has done just as we would have.
        """
        steps = tuple(lost)
        if steps and not _wants_any(plan, steps):
            return Deference(now + DEFERENCE_SECONDS)
        return self

    def holds(self, now: float) -> bool:
        """Say whether to let somebody else go first."""
        return now < self.until


NO_DEFERENCE = Deference()


def _wants_any(plan: Plan, steps: Iterable[Step]) -> bool:
    """Return whether a plan wants to do something about what these steps were about."""
    objects = {(kind_of(step.action), name_of(step.action)) for step in steps}
    return any((kind_of(action), name_of(action)) in objects for action in plan.actions)
