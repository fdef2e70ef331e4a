"""What a pass did: the plan, the outcome of every action, and what became of the services."""

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, frozen

from .steps import Plan, Step

Status = Literal["applied", "failed", "blocked", "overtaken"]


@frozen
class Outcome:
    """How one action went. Blocked: an earlier action of its unit failed, or what it needs is missing.

    Overtaken: somebody else changed the object first, which is no failure; the next pass sees what became of it.
    """

    step: Step
    status: Status
    detail: str = ""
    retry: bool = False
    """Whether a later pass may succeed without anybody doing anything."""
    at_once: bool = False
    """Whether the very next one may: somebody changed the object in between."""


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
        return tuple(outcome for outcome in self.outcomes if outcome.status != "applied")

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
