"""Desired x observed -> ordered actions, each with its owner, its stage and a reason a person understands.

The rules:

* Nothing is written to an object that is as desired. Two comparisons decide: the fingerprint label against the desired
  fingerprint (did the intent change?), and the live fingerprint against the desired one (did somebody interfere?).
* A service whose tasks Swarm is replacing is left alone unless the intent changed since: a second write would disarm
  the roll-back of the first.
* A spec that was rolled back is remembered in a label and not tried again until the record changes, if its image was to
  blame; otherwise it is tried again with growing pauses, a few times.
* What somebody else undoes is put right at once the first time, and with growing pauses when it is undone again.
* An update goes in place. Only where Swarm refuses that (another mode), or where the operator chose so, the service is
  made anew.
* A secret is made before the service that mounts it and removed when no spec and no previous spec names it, and never
  while its owner is held or rolling.
* Only objects with our labels are removed, and never a volume. A pass that would remove most of what we run is
  stopped until somebody confirms it.
* What is held is not touched, nor is a service that is stopped for a restore.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from attrs import Factory, field, frozen

from coreflow.domain.ids import BASE, Owner
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Create, MarkFailed, Recreate, Remove, Update
from coreflow.domain.swarm.images import unpinned
from coreflow.domain.swarm.observed import (
    Observed,
    ObservedNetwork,
    ObservedSecret,
    ObservedService,
    ObservedTask,
    seconds_of,
)
from coreflow.domain.swarm.specs import Aspect, Fingerprint, ServiceSpec, Stage

from .addresses import AddressRoom
from .contention import ABSENT, NOTHING_WRITTEN, WriteLog
from .desired import Desired, Note, Rejection, Unit, unit_of
from .reasons import changes_of, drift_of, intent_of
from .rollback import MOST_ATTEMPTS, FailedAttempt, failed_attempt
from .steps import Action, Contest, Deprovision, Failure, Plan, Provision, Refusal, Step, Wait

REMOVAL_ALLOWANCE = 3
"""So many services may be removed in one pass without a confirmation, as long as others remain."""
STOPPED = "being restored; left alone until that has ended"
SECRET_GRACE_SECONDS = 60.0
"""A secret younger than this that nobody has mounted yet stays: it may be for a service that is about to be written."""


@frozen(kw_only=True)
class PlanOptions:
    """What an operator can choose about planning."""

    recreate: bool = False
    """Make services anew when image, secret or volumes changed, as the original coreflow did."""
    prune: bool = True
    """Remove our services whose record is gone."""
    retry_failed: bool = False
    """Try specs again that were rolled back."""
    confirmed: str | None = None
    """The token of a refusal: these removals are meant."""


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
    work = _Planning(desired, observed, options or PlanOptions(), log)
    work.stopped(restoring)
    work.networks()
    work.services()
    work.prune()
    work.secrets()
    work.bindings()
    return work.plan()


@frozen(kw_only=True)
class _Seen:
    """Indexes over what was observed."""

    owned: Mapping[str, ObservedService] = Factory(dict)
    """Our services by name."""
    networks: Mapping[str, ObservedNetwork] = field(factory=dict)


class _Planning:
    """One planning in progress."""

    def __init__(self, desired: Desired, observed: Observed, options: PlanOptions, log: WriteLog) -> None:
        self.desired, self.observed, self.options, self.log = desired, observed, options, log
        cluster = desired.cluster
        self.seen = _Seen(
            owned={s.name: s for s in observed.services if s.cluster == cluster},
            networks={n.name: n for n in observed.networks if not n.is_remnant},
        )
        self.base: list[Step] = []
        self.builds: list[Step] = []
        self.removals: list[Step] = []
        self.garbage: list[Step] = []
        self.provisions: list[Step] = []
        self.releases: list[Step] = []
        self.kept = 0
        self.waits: list[Wait] = []
        self.failures: list[Failure] = []
        self.rejections: list[Rejection] = list(desired.rejections)
        self.notes: list[Note] = list(desired.notes)
        self.removed: set[str] = set()
        self.restoring: frozenset[Owner] = frozenset()
        self.refusal: Refusal | None = None
        self.held: set[Unit] = set(desired.held)
        self._tasks: dict[str, list[ObservedTask]] | None = None
        self.leftovers = list(self._leftovers())
        """Our services whose names nobody wants any more, or only another record, while theirs has a new name."""

    def _leftovers(self) -> Iterator[ObservedService]:
        services = self.desired.services
        suspects = [
            live
            for name, live in self.seen.owned.items()
            if (spec := services.get(name)) is None or spec.owner != live.owner
        ]
        if not suspects:  # the common case
            return
        wanted = {naming.folded(name): spec.owner for name, spec in services.items()}
        renamed = {spec.owner for spec in services.values() if spec.owner != BASE}
        for live in sorted(suspects, key=lambda s: naming.folded(s.name)):
            owner = wanted.get(naming.folded(live.name))
            if owner is None or (owner != live.owner and live.owner in renamed):
                yield live

    def plan(self) -> Plan:
        return Plan(
            steps=(*self.base, *self.provisions, *self.builds, *self.removals, *self.garbage, *self.releases),
            kept=self.kept,
            waits=tuple(self.waits),
            failures=tuple(self.failures),
            contests=tuple(self._contests()),
            rejections=tuple(self.rejections),
            notes=tuple(self.notes),
            refusal=self.refusal,
        )

    # quarrels

    def _contests(self) -> Iterator[Contest]:
        """Services that somebody else writes again and again."""
        for name, entry in sorted(self.log.entries.items()):
            if entry.is_contested:
                yield Contest(unit_of(entry.owner, name), name, entry.by, entry.times)

    def _must_pause(self, unit: Unit, name: str, intent: Fingerprint = ABSENT) -> bool:
        """Whether somebody undid our last write of this, and the next is not due yet."""
        entry = self.log.entry(name, intent)
        if entry is None or not entry.is_contested or self.observed.time >= entry.due:
            return False
        self.waits.append(Wait(unit, name, f"{entry.by}; put right again after a pause", entry.due))
        return True

    def live(self, name: str) -> ObservedService | None:
        """Our service that has a name, whatever its case, as Swarm compares names."""
        return self.seen.owned.get(name) or self._folded.get(naming.folded(name))

    def secret(self, name: str) -> ObservedSecret | None:
        """The secret that has a name, whatever its case and whosever it is."""
        return self._secrets.get(naming.folded(name))

    @cached_property
    def _secrets(self) -> Mapping[str, ObservedSecret]:
        return {naming.folded(secret.name): secret for secret in self.observed.secrets}

    @cached_property
    def _folded(self) -> Mapping[str, ObservedService]:
        return {naming.folded(service.name): service for service in self.seen.owned.values()}

    # restores

    def stopped(self, restoring: Collection[Owner]) -> None:
        """Leave alone what is being restored."""
        names = {s.owner: s.name for s in self.seen.owned.values() if s.is_stopped}
        names |= {s.owner: s.name for s in self.desired.services.values() if s.owner in restoring}
        self.restoring = frozenset(names)
        self.held |= self.restoring
        self.waits += [Wait(owner, name, STOPPED) for owner, name in sorted(names.items())]

    # networks

    def networks(self) -> None:
        for spec in self.desired.networks:
            if spec.name not in self.seen.networks:
                self.base.append(Step(unit_of(BASE, spec.name), Create(spec, "not there yet")))

    # services

    def services(self) -> None:
        """Compare every desired service with the live one; the common case, no difference, comes first."""
        changed: list[ServiceSpec] = []
        owned = self.seen.owned
        for name, spec in self.desired.services.items():
            live = owned.get(name)
            if live is None or live.seal != spec.seal:
                changed.append(spec)
        self.kept += len(self.desired.services) - len(changed)
        if self.restoring:
            changed = [spec for spec in changed if spec.owner not in self.restoring]
        room = AddressRoom(self.desired, self.observed, changed)
        for spec in sorted(changed, key=lambda s: (s.stage, self.live(s.name) is None, s.owner, s.name)):
            steps = self._change(spec, self.live(spec.name), room)
            if steps:
                secret = self.desired.secrets.get(spec.name)
                there = self.secret(secret.name) if secret is not None else None
                if there is not None and not naming.is_ours(there.labels, self.desired.cluster):
                    whose = naming.whose(there.labels)
                    self._reject(spec, f"a secret named {there.name} exists already and {whose}")
                    continue
                target = self.base if spec.owner == BASE else self.builds
                target.extend(Step(unit_of(spec.owner, spec.name), action) for action in steps)

    def _change(self, spec: ServiceSpec, live: ObservedService | None, room: "AddressRoom") -> list[Action]:
        unit = unit_of(spec.owner, spec.name)
        shortage = room.shortage(spec, live)
        if live is None:
            if shortage:
                self._reject(spec, shortage)
                return []
            if self._must_pause(unit, spec.name, spec.fingerprints.whole):
                return []
            return self._with_parts(spec, self._make(spec))
        if spec.owner != live.owner:
            self._reject(spec, f"a service named {spec.name} belongs to {live.owner or 'nobody we know'}")
            return []
        action = self._difference(spec, live, unit)
        if action is None or isinstance(action, MarkFailed):
            return [action] if action else []
        if shortage:
            self._reject(spec, shortage)
            return []
        if self._must_pause(unit, spec.name, spec.fingerprints.whole):
            return []
        if isinstance(action, Update) and room.lacks_a_spare(spec, live):
            self.waits.append(Wait(unit, spec.name, "no free address for the additional task of a roll-out"))
            return []
        return self._with_parts(spec, action)

    def _make(self, spec: ServiceSpec) -> Action:
        old = self._renamed_from(spec)
        return Create(spec, f"renamed from {old[0].name}" if old else "not there yet")

    def _renamed_from(self, spec: ServiceSpec) -> list[ObservedService]:
        """The record's services under other names: several where it was renamed again before the last one ran."""
        if spec.owner == BASE:
            return []
        return [service for service in self.leftovers if service.owner == spec.owner]

    def _difference(self, spec: ServiceSpec, live: ObservedService, unit: Unit) -> Action | None:
        """What to do about a live service that differs from its spec, if anything."""
        if spec.name != live.name:
            return Recreate(spec, live, f"renamed from {live.name}; Swarm tells no names apart by case")
        wanted = spec.fingerprints.whole
        if live.intent == wanted:
            return self._repair(spec, live, unit)
        entry = self.log.entry(spec.name, wanted)
        is_again = self.options.retry_failed and not (entry is not None and entry.tried)
        # written before its roll-back has ended, a spec finds its failed tasks in place, and Swarm calls the roll-out completed
        if not is_again or live.in_roll_out:
            attempt = failed_attempt(spec, live, self.tasks_of(live), self.log)
            if attempt is not None:
                return self._after_failure(spec, live, unit, attempt)
        return self._write(spec, live, intent_of(spec, live))

    def _after_failure(
        self, spec: ServiceSpec, live: ObservedService, unit: Unit, attempt: FailedAttempt
    ) -> Action | None:
        """What to do about a spec that was rolled back: note it, wait, try it again, or leave it."""
        intent = intent_of(spec, live)
        why = f"{intent}: {attempt.reason}"
        if live.in_roll_out:
            self.waits.append(Wait(unit, spec.name, f"is being rolled back: {why}"))
            return None
        must_note = not attempt.is_noted and not attempt.is_stuck
        if attempt.is_final:
            times = f" {attempt.times} times" if attempt.times > 1 else ""
            self.failures.append(Failure(unit, spec.name, f"{why}{times}; not tried again"))
        elif not must_note and self.observed.time >= attempt.due:
            again = f"tried again ({attempt.times + 1} of {MOST_ATTEMPTS})"
            return self._write(spec, live, f"{intent}; {again} after: {attempt.reason}")
        else:
            self.waits.append(Wait(unit, spec.name, f"{why}; tried again after a pause", attempt.due))
        # while a roll-back is stuck a write would start yet another roll-out, and the evidence stays
        note = attempt.reason if attempt.is_final else f"{attempt.reason}; tried again after a pause"
        return MarkFailed(spec, live, note, attempt.cause, attempt.times) if must_note else None

    def _repair(self, spec: ServiceSpec, live: ObservedService, unit: Unit) -> Action | None:
        """The record is the same and the service is not as it was written: somebody interfered, or the login changed."""
        drift = live.fingerprints.whole != spec.fingerprints.whole
        reason = (
            f"{drift_of(live.body, spec.body)}: {changes_of(live.body, spec.body)}"
            if drift
            else "registry login changed"
        )
        if live.in_roll_out:
            self.waits.append(
                Wait(unit, spec.name, f"{reason}; after the roll-out in progress ({live.update_state})")
            )
            return None
        return self._write(spec, live, reason) if drift else Update(spec, live, reason)

    def tasks_of(self, service: ObservedService) -> list[ObservedTask]:
        if self._tasks is None:
            self._tasks = {}
            for task in self.observed.tasks:
                self._tasks.setdefault(task.service_id, []).append(task)
        return self._tasks.get(service.id, [])

    def _write(self, spec: ServiceSpec, live: ObservedService, reason: str) -> Action:
        if (spec.body.replicas is None) != (live.body.replicas is None):
            return Recreate(spec, live, f"{reason} (Swarm changes no mode in place)")
        original = (Aspect.IMAGE, Aspect.SECRET, Aspect.VOLUMES)
        if self.options.recreate and any(
            spec.fingerprints.aspect(a) != live.fingerprints.aspect(a) for a in original
        ):
            return Recreate(spec, live, reason)
        return Update(spec, live, reason)

    def _with_parts(self, spec: ServiceSpec, action: Action) -> list[Action]:
        """The action, behind what the service needs first."""
        parts: list[Action] = []
        if isinstance(action, Create) and spec.body.update.order == "stop-first":
            for old in self._renamed_from(spec):
                parts.append(
                    Remove(old, spec.stage, f"renamed to {spec.name}; both must not use its data at once")
                )
                self.removed.add(old.name)
        image = self.desired.images.get(spec.name)
        if image is not None:
            live_image = (
                action.target.labels.get(naming.IMAGE) if isinstance(action, Update | Recreate) else None
            )
            if live_image is None or unpinned(live_image) != image.reference:
                parts.append(Create(image, f"{spec.name} runs it"))
        secret = self.desired.secrets.get(spec.name)
        if secret is not None and self.secret(secret.name) is None:
            parts.append(Create(secret, f"{spec.name} mounts it"))
        return [*parts, action]

    def _reject(self, spec: ServiceSpec, reason: str) -> None:
        unit = unit_of(spec.owner, spec.name)
        self.rejections.append(Rejection(unit=unit, name=spec.name, reasons=(reason,)))
        self.held.add(unit)

    # bindings

    def bindings(self) -> None:
        """Ask for what services are bound to; give back what is disabled once its service is at rest without it."""
        self.waits += [Wait(note.unit, note.name, note.text) for note in self.desired.waiting]
        for spec, reason in self.desired.provision:
            self.provisions.append(Step(unit_of(spec.owner, spec.name), Provision(spec, reason)))
        busy = {step.unit for step in (*self.builds, *self.removals)} | self.held
        busy |= {unit_of(s.owner, s.name) for s in self.seen.owned.values() if s.in_roll_out}
        for spec in self.desired.release:
            unit = unit_of(spec.owner, spec.name)
            if unit in busy:
                self.waits.append(
                    Wait(unit, spec.name, "disabled; given back once its service runs without it")
                )
            else:
                self.releases.append(Step(unit, Deprovision(spec, "the control plane disabled it")))

    # removals

    def prune(self) -> None:
        """Remove services of ours that nobody wants, unless that would be most of them."""
        unwanted = [
            service
            for service in self.leftovers
            if service.name not in self.removed
            and service.name not in self.desired.held_names
            and unit_of(service.owner, service.name) not in self.held
        ]
        if not unwanted:
            return
        successors = {spec.owner: spec for spec in self.desired.services.values() if spec.owner != BASE}
        gone: list[ObservedService] = []
        for service in unwanted:
            successor = successors.get(service.owner) if service.owner != BASE else None
            if successor is None:
                gone.append(service)
            else:
                self._remove_predecessor(service, successor)
        if not self.options.prune or not self.desired.prune:
            reason = "no longer wanted, but COREFLOW_PRUNE is off"
            if not self.desired.prune:
                reason = "no longer wanted, unless it belongs to the record whose id is missing"
            self.notes += [Note(unit=unit_of(s.owner, s.name), name=s.name, text=reason) for s in gone]
            return
        if self._needs_confirmation(gone):
            return
        for service in gone:
            self._remove(service, "no longer wanted")

    def _remove_predecessor(self, service: ObservedService, successor: ServiceSpec) -> None:
        """After a renaming the old service goes once the new one runs."""
        live = self.live(successor.name)
        running = 0
        if live is not None:
            running = sum(t.state == "running" and t.desired_state == "running" for t in self.tasks_of(live))
        if live is not None and running >= (successor.body.replicas or 0):
            self._remove(service, f"renamed to {successor.name}, which runs")
        else:
            unit = unit_of(service.owner, service.name)
            self.waits.append(Wait(unit, service.name, f"runs until {successor.name} does (renamed)"))

    def _remove(self, service: ObservedService, reason: str) -> None:
        if self._must_pause(unit_of(service.owner, service.name), service.name):
            return
        stage = Stage.BASE if service.owner == BASE else Stage.WORKLOADS
        self.removed.add(service.name)
        self.removals.append(Step(unit_of(service.owner, service.name), Remove(service, stage, reason)))

    def _needs_confirmation(self, gone: list[ObservedService]) -> bool:
        """Most of what we run, or every workload at once: that is more likely a mistake than a wish."""
        owned = len(self.seen.owned)
        workloads = [service for service in self.seen.owned.values() if service.owner != BASE]
        most = len(gone) > REMOVAL_ALLOWANCE and 2 * len(gone) > owned
        every = len(workloads) > 1 and all(service in gone for service in workloads)
        if not most and not every:
            return False
        names = tuple(service.name for service in gone)
        token = removal_token(service.id for service in gone)
        if self.options.confirmed == token:
            return False
        self.refusal = Refusal(names, owned, token)
        return True

    # secrets

    def secrets(self) -> None:
        """Remove secrets of ours that nothing names any more."""
        wanted = {secret.name for secret in self.desired.secrets.values()}
        unwanted = [
            secret
            for secret in self.observed.secrets
            if secret.name not in wanted and naming.is_ours(secret.labels, self.desired.cluster)
        ]
        if not unwanted:
            return
        candidates = {secret.name for secret in unwanted}
        quarrels = {contest.unit for contest in self._contests()}
        needed: set[str] = set()
        rolling: set[Owner] = set()
        for service in self.observed.services:
            if service.name in self.removed and service.name in self.seen.owned:
                continue
            if not candidates.isdisjoint(service.named_secrets):
                needed |= service.named_secrets
            if service.update_state and service.in_roll_out:
                rolling.add(service.owner)
        owners: set[Owner] = set()
        if self.refusal:
            owners = {
                service.owner for service in self.seen.owned.values() if service.name not in self.removed
            }
        for secret in sorted(unwanted, key=lambda s: s.name):
            left_alone = secret.owner in self.held or secret.owner in rolling or not self.desired.prune
            if unit_of(secret.owner, secret.name) in quarrels or self._is_young(secret):
                continue  # another writer may be about to use it
            if secret.name in needed or left_alone or (self.refusal and secret.owner in owners):
                continue
            stage = Stage.BASE if secret.owner == BASE else Stage.WORKLOADS
            self.garbage.append(
                Step(unit_of(secret.owner, secret.name), Remove(secret, stage, "no spec names it"))
            )

    def _is_young(self, secret: ObservedSecret) -> bool:
        made = 0.0 if secret.name in self.log.mounted else seconds_of(secret.created_at)
        return bool(made) and 0 <= self.observed.time - made < SECRET_GRACE_SECONDS


def removal_token(ids: Iterable[str]) -> str:
    """A short word for exactly this set of services."""
    return hashlib.sha256("\0".join(sorted(ids)).encode()).hexdigest()[:8]
