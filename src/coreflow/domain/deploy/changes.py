"""The part of a plan that makes and changes services, with the secrets and images that they need first."""

from collections.abc import Iterator

from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Create, MarkFailed, Recreate, Remove, Update
from coreflow.domain.swarm.images import unpinned
from coreflow.domain.swarm.observed import ObservedService, seconds_of
from coreflow.domain.swarm.specs import Aspect, ServiceSpec

from .addresses import AddressRoom
from .desired import Rejection, unit_of
from .facts import Facts, Part, merged
from .order import rank
from .reasons import changes_of, drift_of, intent_of
from .rollback import MOST_ATTEMPTS, FailedAttempt, failed_attempt
from .steps import Action, Failure, Step, Wait

NAMED_TOO = "another record, which is not deployed, has that name, and both must not use its data at once"
SURPLUS_SECONDS = 30.0
"""How long a task too many may run, and how long after a write that did not help there is another one."""
_AT_REST = frozenset({"", "completed", "rollback_completed"})
"""Update states in which every task is meant to stay."""
_AS_THE_ORIGINAL = (Aspect.IMAGE, Aspect.SECRET, Aspect.VOLUMES)
"""What the original coreflow made a service anew for."""


def plan_services(facts: Facts) -> Part:
    """Compare every desired service with the live one; the common case, no difference, comes first."""
    changed: list[ServiceSpec] = []
    doubled: list[Part] = []
    owned = facts.owned
    for name, spec in facts.desired.services.items():
        live = owned.get(name)
        if live is None or live.seal != spec.seal:
            changed.append(spec)
        elif live.id in facts.doubled and spec.owner not in facts.stopped and live.update_state in _AT_REST:
            doubled.append(_end_surplus(facts, spec, live))
    kept = Part(kept=len(facts.desired.services) - len(changed) - len(doubled))
    changed = [spec for spec in changed if spec.owner not in facts.stopped]
    room = AddressRoom(facts.desired, facts.observed, changed)
    changed.sort(key=lambda spec: rank(spec, is_new=facts.live(spec.name) is None))
    return merged([kept, *(_change(facts, spec, room) for spec in changed), *doubled])


def _end_surplus(facts: Facts, spec: ServiceSpec, live: ObservedService) -> Part:
    """Plan the end of one of two tasks where one is wanted: any write makes Swarm end one, and the other goes on."""
    reason = "two tasks run in the place of one, and Swarm ends one of them when the service is written"
    due = max(seconds_of(live.updated_at), facts.doubled[live.id]) + SURPLUS_SECONDS
    if facts.observed.time < due:
        return _waiting(spec, f"{reason}; in case it does so by itself, after a pause", due)
    return _doing(spec, Update(spec, live, reason))


def _change(facts: Facts, spec: ServiceSpec, room: AddressRoom) -> Part:
    """Plan what to do about one service that is not there or not as desired."""
    part = _make_or_update(facts, spec, facts.live(spec.name), room)
    secret = facts.desired.secrets.get(spec.name)
    there = facts.secret(secret.name) if secret is not None and part.steps else None
    if there is not None and not naming.is_ours(there.labels, facts.desired.cluster):
        whose = naming.whose(there.labels)
        return _rejected(spec, f"a secret named {there.name} exists already and {whose}")
    return part


def _make_or_update(facts: Facts, spec: ServiceSpec, live: ObservedService | None, room: AddressRoom) -> Part:
    shortage = room.shortage(spec, live)
    if live is None:
        if shortage:
            return _rejected(spec, shortage)
        if spec.body.update.order == "stop-first":
            for old in filter(facts.is_named, facts.predecessors(spec)):
                return _rejected(spec, f"renamed from {old.name}: {NAMED_TOO}")
        return _paused(facts, spec) or _with_needs(facts, spec, _creation(facts, spec))
    if spec.owner != live.owner:
        return _rejected(spec, f"a service named {spec.name} belongs to {live.owner or 'an unknown owner'}")
    part = _difference(facts, spec, live)
    action = part.steps[0].action if part.steps else None
    if action is None or isinstance(action, MarkFailed):
        return part
    if shortage:
        return _rejected(spec, shortage)
    if paused := _paused(facts, spec):
        return paused
    if isinstance(action, Update) and room.lacks_a_spare(spec, live):
        return _waiting(spec, "no free address for the additional task of a roll-out")
    return _with_needs(facts, spec, action)


def _paused(facts: Facts, spec: ServiceSpec) -> Part | None:
    wait = facts.pause(unit_of(spec.owner, spec.name), spec.name, spec.fingerprints.whole)
    return None if wait is None else Part(waits=(wait,))


def _creation(facts: Facts, spec: ServiceSpec) -> Action:
    old = facts.predecessors(spec)
    return Create(spec, f"renamed from {old[0].name}" if old else "new")


def _difference(facts: Facts, spec: ServiceSpec, live: ObservedService) -> Part:
    """Return what to do about a live service that differs from its spec, if anything: at most one step."""
    if spec.name != live.name:
        reason = f"renamed from {live.name}; Swarm ignores case in names"
        return _doing(spec, Recreate(spec, live, reason))
    wanted = spec.fingerprints.whole
    if live.intent == wanted:
        return _repair(facts, spec, live)
    entry = facts.log.entry(spec.name, wanted)
    is_again = facts.options.retry_failed and not (entry is not None and entry.tried)
    # written before its roll-back has ended, a spec finds its failed tasks in place, and Swarm calls the roll-out completed
    if not is_again or live.in_roll_out:
        attempt = failed_attempt(spec, live, facts.tasks_of(live), facts.log)
        if attempt is not None:
            return _after_failure(facts, spec, live, attempt)
    return _doing(spec, _write(facts, spec, live, intent_of(spec, live)))


def _after_failure(facts: Facts, spec: ServiceSpec, live: ObservedService, attempt: FailedAttempt) -> Part:
    """Return what to do about a spec that was rolled back: note it, wait, try it again, or leave it."""
    intent = intent_of(spec, live)
    why = f"{intent}: {attempt.reason}"
    if live.in_roll_out:
        return _waiting(spec, f"is being rolled back: {why}")
    # while a roll-back is stuck a write would start yet another roll-out, and the evidence stays
    must_note = not attempt.is_noted and not attempt.is_stuck
    if attempt.is_final:
        times = f" {attempt.times} times" if attempt.times > 1 else ""
        unit = unit_of(spec.owner, spec.name)
        found = Part(failures=(Failure(unit, spec.name, f"{why}{times}; not tried again"),))
    elif not must_note and facts.observed.time >= attempt.due:
        again = f"tried again ({attempt.times + 1} of {MOST_ATTEMPTS})"
        return _doing(spec, _write(facts, spec, live, f"{intent}; {again} after: {attempt.reason}"))
    else:
        found = _waiting(spec, f"{why}; tried again after a pause", attempt.due)
    if not must_note:
        return found
    note = attempt.reason if attempt.is_final else f"{attempt.reason}; tried again after a pause"
    return merged([found, _doing(spec, MarkFailed(spec, live, note, attempt.cause, attempt.times))])


def _repair(facts: Facts, spec: ServiceSpec, live: ObservedService) -> Part:
    """The record is the same and the service is not as it was written: somebody interfered, or the login changed."""
    is_drift = live.fingerprints.whole != spec.fingerprints.whole
    reason = "registry login changed"
    if is_drift:
        reason = f"{drift_of(live.body, spec.body)}: {changes_of(live.body, spec.body)}"
    if live.in_roll_out:
        return _waiting(spec, f"{reason}; after the roll-out in progress ({live.update_state})")
    return _doing(spec, _write(facts, spec, live, reason) if is_drift else Update(spec, live, reason))


def _write(facts: Facts, spec: ServiceSpec, live: ObservedService, reason: str) -> Action:
    if (spec.body.replicas is None) != (live.body.replicas is None):
        return Recreate(spec, live, f"{reason} (Swarm changes no mode in place)")
    old, new = live.fingerprints, spec.fingerprints
    if facts.options.recreate and any(new.aspect(a) != old.aspect(a) for a in _AS_THE_ORIGINAL):
        return Recreate(spec, live, reason)
    return Update(spec, live, reason)


def _with_needs(facts: Facts, spec: ServiceSpec, action: Action) -> Part:
    """The action, behind what the service needs first."""
    return _doing(spec, *_needs(facts, spec, action), action)


def _needs(facts: Facts, spec: ServiceSpec, action: Action) -> Iterator[Action]:
    if isinstance(action, Create) and spec.body.update.order == "stop-first":
        for old in facts.predecessors(spec):
            yield Remove(old, spec.stage, f"renamed to {spec.name}; both must not use its data at once")
    image = facts.desired.images.get(spec.name)
    if image is not None:
        live = action.target.labels.get(naming.IMAGE) if isinstance(action, Update | Recreate) else None
        if live is None or unpinned(live) != image.reference:
            yield Create(image, f"{spec.name} runs it")
    secret = facts.desired.secrets.get(spec.name)
    if secret is not None and facts.secret(secret.name) is None:
        yield Create(secret, f"{spec.name} mounts it")


def _doing(spec: ServiceSpec, *actions: Action) -> Part:
    return Part(steps=tuple(Step(unit_of(spec.owner, spec.name), action) for action in actions))


def _waiting(spec: ServiceSpec, reason: str, until: float | None = None) -> Part:
    return Part(waits=(Wait(unit_of(spec.owner, spec.name), spec.name, reason, until),))


def _rejected(spec: ServiceSpec, reason: str) -> Part:
    unit = unit_of(spec.owner, spec.name)
    return Part(rejections=(Rejection(unit=unit, name=spec.name, reasons=(reason,)),))
