"""The order of a plan: networks come first, then the base, then the workloads; among the services of one stage, `rank`
decides, and the steps of one batch are carried out side by side.
"""

from collections.abc import Iterable

from coreflow.domain.swarm.specs import NetworkSpec, ServiceSpec, Stage

from .steps import Step, stage_of, subject_of


def rank(spec: ServiceSpec, *, is_new: bool) -> tuple[Stage, bool, str, str]:
    """Return the place of a service in a plan: what runs is updated before what is new, else by owner and name."""
    return spec.stage, is_new, spec.owner, spec.name


def batches(steps: Iterable[Step]) -> list[dict[str, list[Step]]]:
    """Steps by stage and unit; networks come before everything, since everything joins them."""
    networks: dict[str, list[Step]] = {}
    stages: dict[Stage, dict[str, list[Step]]] = {stage: {} for stage in Stage}
    for step in steps:
        if isinstance(subject_of(step.action), NetworkSpec):
            networks.setdefault(step.unit, []).append(step)
        else:
            stages[stage_of(step.action)].setdefault(step.unit, []).append(step)
    return [batch for batch in (networks, *stages.values()) if batch]
