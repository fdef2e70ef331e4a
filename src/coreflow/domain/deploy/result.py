"""Results: the outcome of every action, the report of a pass, and how a series of passes went."""

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, evolve, frozen

from coreflow._moved import warn_of
from coreflow.domain.swarm.convergence import Settling, Verdict
from coreflow.domain.swarm.observed import Observed

from .desired import unit_of
from .state import ReconcileState
from .steps import Plan, Step

Status = Literal["applied", "failed", "blocked", "overtaken", "under way"]


@frozen
class Outcome:
    """The outcome of one action. Blocked: an earlier action of its unit failed, or what it needs is missing.

    Overtaken: somebody else changed the object first, which is no failure; the next pass sees what became of it. Under
    way: it takes longer than a pass waits, and its end starts another; or an earlier action of its unit does.
    """

    step: Step
    status: Status
    detail: str = ""
    retry: bool = False
    """Whether a later pass may succeed without anybody doing anything."""
    at_once: bool = False
    """Whether the very next one may: somebody changed the object in between."""
    again: float | None = None
    """In how many seconds it is tried again, where that is known."""
    is_news: bool = True
    """Whether it was tried in this pass: what has to wait for its next try was told before."""


@frozen(kw_only=True)
class Report:
    """One pass."""

    plan: Plan = Factory(Plan)
    outcomes: tuple[Outcome, ...] = ()

    @property
    def applied(self) -> int:
        """Return how many actions were carried out."""
        return sum(outcome.status == "applied" for outcome in self.outcomes)

    @property
    def troubles(self) -> tuple[Outcome, ...]:
        """The actions that were not carried out."""
        return tuple(o for o in self.outcomes if o.status not in {"applied", "under way"})

    @property
    def under_way(self) -> tuple[Outcome, ...]:
        """The actions that go on beside the pass, and what follows on them."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "under way")

    @property
    def is_clean(self) -> bool:
        """Return whether everything that was wanted could be done."""
        return self.plan.is_clean and not self.troubles


@frozen(kw_only=True)
class ReconcileResult:
    """The result of a series of passes: what was done in all of them, and the state at the end."""

    last: ReconcileState
    reports: tuple[Report, ...] = ()
    verdicts: Mapping[str, Verdict] = Factory(dict)

    def as_seen(self, observed: Observed, settling: Settling) -> "ReconcileResult":
        """Return the result with services and tasks as they were seen later, and judged anew."""
        last = evolve(self.last, observed=observed, settling=settling)
        return evolve(self, last=last, verdicts=last.verdicts)

    @property
    def applied(self) -> tuple[Outcome, ...]:
        """Every action that was carried out."""
        return tuple(o for report in self.reports for o in report.outcomes if o.status == "applied")

    @property
    def troubles(self) -> tuple[Outcome, ...]:
        """Return what could not be done, as of the last pass that tried anything.

        That somebody else was faster is none as soon as a later look has found nothing more to do.
        """
        if self.reports and not self.reports[-1].outcomes:
            tried = next((report.troubles for report in reversed(self.reports) if report.outcomes), ())
            return tuple(outcome for outcome in tried if outcome.status != "overtaken")
        return self.reports[-1].troubles if self.reports else ()

    @property
    def pending(self) -> frozenset[str]:
        """Services that Swarm is still at. One that could not even be written, or not yet, is not."""
        stuck = {o.step.unit for o in (*self.troubles, *self.under_way)}
        services = self.last.desired.services
        return frozenset(
            name
            for name, verdict in self.verdicts.items()
            if not (verdict.done or verdict.failed) and unit_of(services[name].owner, name) not in stuck
        )

    @property
    def is_waiting(self) -> bool:
        """Return whether something is left to do that a later pass may be able to."""
        return bool(self.last.plan.waits) or self.may_retry or self.is_awaiting

    @property
    def under_way(self) -> tuple[Outcome, ...]:
        """Return what goes on beside the passes."""
        return self.reports[-1].under_way if self.reports else ()

    @property
    def is_awaiting(self) -> bool:
        """Return whether something goes on beside the passes whose end starts another."""
        return bool(self.under_way) or self.last.is_awaiting

    @property
    def may_retry(self) -> bool:
        """Return whether something that could not be done may be possible later, without anybody doing anything."""
        return any(outcome.retry for report in self.reports[-1:] for outcome in report.troubles)

    def waits_for(self, seconds: float) -> bool:
        """Return whether a later pass within so many seconds of the last may be able to do what is left to do."""
        limit = self.last.observed.time + seconds
        waits = self.last.plan.waits
        return self.may_retry or self.is_awaiting or any(w.until is None or w.until <= limit for w in waits)

    @property
    def idle_seconds(self) -> float | None:
        """For how long nothing can be done about what is left, where that is known of all of it."""
        times = [wait.until for wait in self.last.plan.waits]
        if not times or self.may_retry or self.is_awaiting or self.pending:
            return None
        known = [time for time in times if time is not None]
        return max(min(known) - self.last.observed.time, 0.0) if len(known) == len(times) else None

    @property
    def is_stable(self) -> bool:
        """Return whether nothing is left to do, and nothing went wrong."""
        done = all(verdict.done for verdict in self.verdicts.values())
        idle = not any(report.applied for report in self.reports[-1:])
        return done and idle and not self.is_waiting and self.last.plan.is_clean and not self.troubles

    @property
    def is_settled(self) -> bool:
        """The old name of `is_stable`."""
        warn_of("ReconcileResult.is_settled", "is_stable")
        return self.is_stable
