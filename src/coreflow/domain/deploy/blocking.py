"""Steps that others stand in the way of: one before them failed, a network is missing, or their next try is not due."""

from collections.abc import Mapping

from attrs import evolve

from coreflow.domain.swarm.actions import Remove
from coreflow.domain.swarm.specs import NetworkSpec, ServiceSpec

from .result import Outcome
from .setbacks import Setbacks
from .steps import Plan, Step, name_of, subject_of


def blocked(step: Step, last: Outcome | None, broken: Mapping[str, bool]) -> Outcome | None:
    """Return what becomes of a step that cannot be carried out; `last` is how the one before it in its unit went."""
    if last is not None and last.status == "overtaken":
        return Outcome(step, "overtaken", last.detail, retry=True, at_once=True)
    if last is not None and last.status == "under way":
        return evolve(last, step=step, is_news=False)
    if last is not None and last.status != "applied":
        return Outcome(step, "blocked", "an earlier step failed", is_news=last.is_news)
    missing = sorted(_networks_of(step) & broken.keys())
    if missing:
        text = f"network {missing[0]} could not be created"
        return Outcome(step, "blocked", text, is_news=broken[missing[0]])
    return None


def _networks_of(step: Step) -> frozenset[str]:
    """The networks that have to be there for a step."""
    subject = subject_of(step.action)
    if not isinstance(subject, ServiceSpec) or isinstance(step.action, Remove):
        return frozenset()
    return frozenset(attachment.network for attachment in subject.body.networks)


def due_now(plan: Plan, setbacks: Setbacks, now: float) -> Plan:
    """Return the plan without the steps of units that have to wait for their next try."""
    late = [step for step in plan.steps if setbacks.of(step, now)]
    if not late:
        return plan
    missing = {name_of(step.action) for step in late if isinstance(subject_of(step.action), NetworkSpec)}
    stuck = {step.unit for step in late}
    stuck |= {step.unit for step in plan.steps if _networks_of(step) & missing}
    return evolve(plan, steps=tuple(step for step in plan.steps if step.unit not in stuck))


def postponed(step: Step, setbacks: Setbacks, now: float) -> Outcome | None:
    """Return what becomes of a step whose next try is not due; None for any other."""
    setback = setbacks.of(step, now)
    if setback is None:
        return None
    again = setbacks.pause_of(step, now)
    return Outcome(step, "failed", setback.reason, retry=not setback.is_refused, again=again, is_news=False)
