"""Desired x observed -> ordered actions, each with its owner, its stage and a reason a person understands.

The rules:

* Nothing is written to an object that is as desired. Two comparisons decide: the fingerprint label against the desired
  fingerprint (did the intent change?), and the live fingerprint against the desired one (is there drift?).
* A service whose tasks Swarm is replacing is left alone unless the intent changed since: a second write would disarm
  the roll-back of the first.
* A spec that was rolled back is remembered in a label and not tried again until the record changes, if its image was to
  blame; otherwise it is tried again with growing pauses, a few times.
* If two tasks run in one slot, and Swarm does not end one by itself, the service is written unchanged: then Swarm does.
* Drift is reverted at once the first time, and with growing pauses when it occurs again.
* An update goes in place. Only if Swarm refuses that (another mode), or if the operator chose so, the service is recreated.
* A secret is created before the service that mounts it and removed when no spec and no previous spec names it, and never
  while its owner is held or rolling.
* Only objects with our labels are removed, and never a volume. A pass that would remove most of what we run removes
  none of it, and creates no new workload, until an operator confirms it.
* What is held is not touched, nor is a service that is stopped for a restore.
"""

from collections.abc import Collection

from attrs import evolve

from coreflow.domain.ids import BASE, Owner
from coreflow.domain.platform.actions import Deprovision, Provision
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.swarm.actions import Create
from coreflow.domain.swarm.observed import Observed
from coreflow.domain.swarm.specs import ServiceSpec
from coreflow.domain.swarm.stopped import UNDER_WAY, told

from .changes import plan_services
from .contention import NOTHING_WRITTEN, WriteLog
from .desired import Desired, Note, unit_of
from .facts import Facts, Part, merged
from .networks import missing_networks
from .removals import plan_garbage, plan_removals
from .steps import Plan, PlanOptions, Step, Wait, name_of, owner_of

IN_USE = "disabled; given back once its service, which no record describes, is removed"
NOT_MADE = "not created before the removal is confirmed"


def make_plan(
    desired: Desired,
    observed: Observed,
    options: PlanOptions | None = None,
    *,
    restoring: Collection[Owner] = (),
    log: WriteLog = NOTHING_WRITTEN,
) -> Plan:
    """Say what turns `observed` into `desired`. Planning has no effect.

    `restoring` are the owners of services that are being restored: those, and services that are stopped, are left alone.
    `log` is what the process that plans wrote before.
    """
    facts = Facts(
        desired=desired,
        observed=observed,
        options=options or PlanOptions(),
        log=log,
        restoring=frozenset(restoring),
    )
    networks = plan_networks(facts)
    services = plan_services(facts)
    removals = plan_removals(facts, services)
    if removals.refusal is not None:
        services = without_newcomers(facts, services)
    garbage = plan_garbage(facts, services, removals)
    provisions = plan_provisions(facts)
    releases = plan_releases(facts, services, removals)
    base = (step for step in services.steps if owner_of(step.action) == BASE)
    workloads = (step for step in services.steps if owner_of(step.action) != BASE)
    everything = merged((stopped_services(facts), services, removals, provisions, releases))
    return Plan(
        steps=(
            *networks.steps,
            *base,
            *provisions.steps,
            *workloads,
            *removals.steps,
            *garbage.steps,
            *releases.steps,
        ),
        kept=everything.kept,
        waits=everything.waits,
        failures=everything.failures,
        contests=facts.contests,
        rejections=(*desired.rejections, *everything.rejections),
        notes=(*desired.notes, *everything.notes),
        refusal=everything.refusal,
        is_confirmed=everything.is_confirmed,
    )


def without_newcomers(facts: Facts, services: Part) -> Part:
    """Make no new workloads while a removal is refused: beside them, the same removal would soon be of few among many."""
    known = {service.owner for service in facts.owned.values()}
    new = {step.unit: step for step in services.steps if _is_new(step, known)}
    notes = (Note(unit=unit, name=name_of(step.action), text=NOT_MADE) for unit, step in new.items())
    return evolve(
        services,
        steps=tuple(step for step in services.steps if step.unit not in new),
        notes=(*services.notes, *notes),
    )


def _is_new(step: Step, known: Collection[Owner]) -> bool:
    match step.action:
        case Create(spec=ServiceSpec(owner=owner)):
            return owner != BASE and owner not in known
        case _:
            return False


def stopped_services(facts: Facts) -> Part:
    """Leave alone what is being restored."""
    services = {service.owner: service for service in facts.owned.values() if service.is_stopped}
    why = {owner: told(service) for owner, service in services.items()}
    waits = (Wait(owner, name, why.get(owner, UNDER_WAY)) for owner, name in sorted(facts.stopped.items()))
    return Part(waits=tuple(waits))


def plan_networks(facts: Facts) -> Part:
    """Make the networks that are not there."""
    missing = missing_networks(facts.desired.networks, facts.observed)
    return Part(steps=tuple(Step(unit_of(BASE, spec.name), Create(spec, "new")) for spec in missing))


def plan_provisions(facts: Facts) -> Part:
    """Ask for what services are bound to."""
    return Part(
        steps=tuple(
            Step(unit_of(spec.owner, spec.name), Provision(spec, reason))
            for spec, reason in facts.desired.provision
        ),
        waits=tuple(Wait(note.unit, note.name, note.text) for note in facts.desired.waiting),
    )


def plan_releases(facts: Facts, changes: Part, removals: Part) -> Part:
    """Give back what is disabled once its service is at rest without it."""
    busy = facts.held | changes.rejected
    busy |= {step.unit for step in (*changes.steps, *removals.steps) if owner_of(step.action) != BASE}
    busy |= {unit_of(s.owner, s.name) for s in facts.owned.values() if s.in_roll_out}
    kept = {unit_of(s.owner, s.name) for s in facts.unclaimed} - busy
    reason = "disabled; given back once its service runs without it"
    return merged(
        Part(waits=(Wait(unit_of(spec.owner, spec.name), spec.name, reason),))
        if unit_of(spec.owner, spec.name) in busy
        else Part(notes=(Note(unit=unit_of(spec.owner, spec.name), name=spec.name, text=IN_USE),))
        if unit_of(spec.owner, spec.name) in kept
        else Part(steps=(_release(spec),))
        for spec in facts.desired.release
    )


def _release(spec: BindingSpec) -> Step:
    return Step(unit_of(spec.owner, spec.name), Deprovision(spec, "the control plane disabled it"))
