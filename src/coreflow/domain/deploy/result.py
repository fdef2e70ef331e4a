"""What a pass did: the plan, the outcome of every action, and what became of the services."""

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, frozen

from .steps import Plan, Step

Status = Literal["applied", "failed", "blocked", "overtaken", "under way"]


@frozen
class Outcome:
    """How one action went. Blocked: an earlier action of its unit failed, or what it needs is missing.

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
        """How many actions were carried out."""
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
        """Whether everything that was wanted could be done."""
        return self.plan.is_clean and not self.troubles


@frozen(kw_only=True)
class Metric:
    """A number, or several that differ in their labels."""

    name: str
    """Without the prefix, and without the `_total` of a counter."""
    meaning: str
    kind: Literal["counter", "gauge"] = "counter"
    labels: tuple[str, ...] = ()
    values: Mapping[tuple[str, ...], float] = Factory(dict)
    """By the values of the labels."""
