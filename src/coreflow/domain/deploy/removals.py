"""The part of a plan that removes: services that nobody wants any more, and secrets that no spec names."""

import hashlib
from collections.abc import Collection, Iterable

from attrs import evolve

from coreflow.domain.ids import BASE
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Remove
from coreflow.domain.swarm.observed import ObservedSecret, ObservedService, seconds_of
from coreflow.domain.swarm.specs import ServiceSpec, Stage

from .desired import Note, Unit, unit_of
from .facts import NOTHING, Facts, Part, merged
from .steps import Refusal, Step, Wait

REMOVAL_ALLOWANCE = 3
"""So many services may be removed in one pass without a confirmation, as long as others remain."""
NAMED = "left alone: a record of this name, but with another id, is not deployed"
SECRET_GRACE_SECONDS = 60.0
"""A secret younger than this that nobody has mounted yet stays: it may be for a service that is about to be written."""


def plan_removals(facts: Facts, changes: Part) -> Part:
    """Remove services of ours that nobody wants, unless that would be most of them. `changes` are planned before."""
    unwanted = _unwanted_services(facts, changes)
    if not unwanted:
        return NOTHING
    named = tuple(service for service in unwanted if facts.is_named(service))
    kept = Part(notes=tuple(Note(unit=_unit(s), name=s.name, text=NAMED) for s in named))
    unwanted = [service for service in unwanted if service not in named]
    successors = {spec.owner: spec for spec in facts.desired.services.values() if spec.owner != BASE}
    renamed = [service for service in unwanted if service.owner in successors]
    gone = [service for service in unwanted if service.owner not in successors]
    predecessors = (_remove_predecessor(facts, service, successors[service.owner]) for service in renamed)
    return merged([kept, *predecessors, _remove_unwanted(facts, gone) if gone else NOTHING])


def _unwanted_services(facts: Facts, changes: Part) -> list[ObservedService]:
    held, removed = facts.held | changes.rejected, changes.removed
    return [s for s in facts.unclaimed if s.name not in removed and _unit(s) not in held]


def _remove_unwanted(facts: Facts, gone: list[ObservedService]) -> Part:
    if not facts.options.prune or not facts.desired.prune:
        reason = facts.desired.doubt or "no longer wanted, but COREFLOW_PRUNE is off"
        return Part(notes=tuple(Note(unit=_unit(s), name=s.name, text=reason) for s in gone))
    refusal = _refusal(facts, gone)
    if refusal is not None and facts.options.confirmed != refusal.token:
        return Part(refusal=refusal)
    removals = merged(_remove(facts, service, "no longer wanted") for service in gone)
    return evolve(removals, is_confirmed=refusal is not None)


def _remove_predecessor(facts: Facts, service: ObservedService, successor: ServiceSpec) -> Part:
    """After a renaming the old service goes once the new one runs."""
    live = facts.live(successor.name)
    if live is not None and facts.running(live) >= (successor.body.replicas or 0):
        return _remove(facts, service, f"renamed to {successor.name}, which runs")
    return Part(waits=(Wait(_unit(service), service.name, f"runs until {successor.name} does (renamed)"),))


def _remove(facts: Facts, service: ObservedService, reason: str) -> Part:
    if wait := facts.pause(_unit(service), service.name):
        return Part(waits=(wait,))
    return Part(steps=(_removal(service, reason),))


def _refusal(facts: Facts, gone: list[ObservedService]) -> Refusal | None:
    """Most of what we run, or every workload at once: that is more likely a mistake than a wish.

    The only workload may go where records want another one, as a first service is called otherwise; an empty document
    asks, however few there are.
    """
    owned = len(facts.owned)
    workloads = [service for service in facts.owned.values() if service.owner != BASE]
    is_most = len(gone) > REMOVAL_ALLOWANCE and 2 * len(gone) > owned
    is_replaced = len(workloads) == 1 and any(spec.owner != BASE for spec in facts.desired.services.values())
    is_every = bool(workloads) and all(service in gone for service in workloads) and not is_replaced
    if not is_most and not is_every:
        return None
    return Refusal(
        tuple(service.name for service in gone), owned, removal_token(service.id for service in gone)
    )


def removal_token(ids: Iterable[str]) -> str:
    """A short word for exactly this set of services."""
    return hashlib.sha256("\0".join(sorted(ids)).encode()).hexdigest()[:8]


def plan_garbage(facts: Facts, changes: Part, removals: Part) -> Part:
    """Remove secrets of ours that nothing names any more. `changes` and `removals` are planned before."""
    unwanted = _unwanted_secrets(facts)
    if not unwanted or not facts.desired.prune:
        return NOTHING
    removed = changes.removed | removals.removed
    kept = _named(facts, unwanted, removed)
    busy = _rolling(facts, removed) | facts.held | changes.rejected | {c.unit for c in facts.contests}
    if removals.refusal:
        busy |= {service.owner for service in facts.owned.values() if service.name not in removed}
    busy |= {service.owner for service in facts.unclaimed if facts.is_named(service)}
    garbage = (
        secret
        for name, secret in sorted(unwanted.items())
        if name not in kept
        and busy.isdisjoint({secret.owner, _unit(secret)})
        and not _is_young(facts, secret)
    )
    return Part(steps=tuple(_removal(secret, "no spec names it") for secret in garbage))


def _unwanted_secrets(facts: Facts) -> dict[str, ObservedSecret]:
    """Secrets of ours that nobody wants, by name."""
    wanted = {secret.name for secret in facts.desired.secrets.values()}
    return {
        secret.name: secret
        for secret in facts.observed.secrets
        if secret.name not in wanted and naming.is_ours(secret.labels, facts.desired.cluster)
    }


def _named(facts: Facts, unwanted: Collection[str], removed: frozenset[str]) -> set[str]:
    """Names of secrets that services which stay mount, or would mount after a roll-back."""
    named: set[str] = set()
    for service in facts.observed.services:
        if not _is_going(facts, service, removed) and not service.named_secrets.isdisjoint(unwanted):
            named |= service.named_secrets
    return named


def _rolling(facts: Facts, removed: frozenset[str]) -> set[str]:
    """Owners of services whose tasks Swarm is replacing."""
    return {
        service.owner
        for service in facts.observed.services
        if service.update_state and service.in_roll_out and not _is_going(facts, service, removed)
    }


def _is_going(facts: Facts, service: ObservedService, removed: frozenset[str]) -> bool:
    return service.name in removed and service.name in facts.owned


def _is_young(facts: Facts, secret: ObservedSecret) -> bool:
    """Return whether another writer may be about to use it."""
    made = 0.0 if secret.name in facts.log.mounted else seconds_of(secret.created_at)
    return bool(made) and 0 <= facts.observed.time - made < SECRET_GRACE_SECONDS


def _removal(target: ObservedService | ObservedSecret, reason: str) -> Step:
    stage = Stage.BASE if target.owner == BASE else Stage.WORKLOADS
    return Step(_unit(target), Remove(target, stage, reason))


def _unit(target: ObservedService | ObservedSecret) -> Unit:
    return unit_of(target.owner, target.name)
