"""Facts that planning goes by, with queries; and what each part of planning found."""

from collections.abc import Iterable, Mapping
from functools import cached_property

from attrs import define, frozen

from coreflow.domain.ids import BASE, Owner
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Remove
from coreflow.domain.swarm.observed import Observed, ObservedSecret, ObservedService, ObservedTask, seconds_of
from coreflow.domain.swarm.specs import Fingerprint, ServiceSpec

from .contention import ABSENT, WriteLog
from .desired import Desired, Note, Rejection, Unit, unit_of
from .steps import Contest, Failure, PlanOptions, Refusal, Step, Wait


@define(frozen=True, kw_only=True)
class Facts:
    """Everything that a plan follows from."""

    desired: Desired
    observed: Observed
    options: PlanOptions
    log: WriteLog
    restoring: frozenset[Owner]
    """Owners of services that are being restored."""

    @cached_property
    def owned(self) -> Mapping[str, ObservedService]:
        """Our services by name."""
        cluster = self.desired.cluster
        return {service.name: service for service in self.observed.services if service.cluster == cluster}

    @cached_property
    def stopped(self) -> Mapping[Owner, str]:
        """Return what is being restored, or was stopped for that: the name of the service by its owner."""
        names = {s.owner: s.name for s in self.owned.values() if s.is_stopped}
        return names | {s.owner: s.name for s in self.desired.services.values() if s.owner in self.restoring}

    @cached_property
    def held(self) -> frozenset[Unit]:
        """Units whose objects are left alone."""
        return self.desired.held | self.stopped.keys()

    def live(self, name: str) -> ObservedService | None:
        """Our service that has a name, whatever its case, as Swarm compares names."""
        return self.owned.get(name) or self._owned_by_folded_name.get(naming.folded(name))

    def secret(self, name: str) -> ObservedSecret | None:
        """The secret that has a name, whatever its case and whosever it is."""
        return self._secrets_by_folded_name.get(naming.folded(name))

    def tasks_of(self, service: ObservedService) -> list[ObservedTask]:
        """The tasks of a service, ended ones that Swarm still lists too."""
        return self._tasks_by_service.get(service.id, [])

    def running(self, service: ObservedService) -> int:
        """Return how many tasks of a service run and are meant to."""
        return sum(task.is_running for task in self.tasks_of(service))

    @cached_property
    def doubled(self) -> Mapping[str, float]:
        """Services, by id, with two running tasks in one place; and since when, in seconds since the epoch.

        A container that ends by itself just when a roll-out with `start-first` replaces it has two successors: that of the
        roll-out and that of the restart. Swarm counts places, and leaves both alone.
        """
        globally = {service.id for service in self.owned.values() if service.body.replicas is None}
        places: set[tuple[str, object]] = set()
        found: dict[str, float] = {}
        for task in self.observed.tasks:
            if task.is_running:
                place = task.node_id if task.service_id in globally else task.slot
                if place is not None and (task.service_id, place) in places:
                    found[task.service_id] = 0.0
                places.add((task.service_id, place))
        for identity in found:
            tasks = self._tasks_by_service[identity]
            found[identity] = max(seconds_of(task.updated_at) for task in tasks if task.is_running)
        return found

    @cached_property
    def unclaimed(self) -> tuple[ObservedService, ...]:
        """Our services whose names nobody wants any more, or only another record, while theirs has a new name."""
        services = self.desired.services
        suspects = [
            live
            for name, live in self.owned.items()
            if (spec := services.get(name)) is None or spec.owner != live.owner
        ]
        if not suspects:  # the common case
            return ()
        wanted = {naming.folded(name): spec.owner for name, spec in services.items()}
        renamed = {spec.owner for spec in services.values() if spec.owner != BASE}

        def is_unclaimed(live: ObservedService) -> bool:
            owner = wanted.get(naming.folded(live.name))
            return owner is None or (owner != live.owner and live.owner in renamed)

        return tuple(filter(is_unclaimed, sorted(suspects, key=lambda s: naming.folded(s.name))))

    def is_named(self, service: ObservedService) -> bool:
        """Return whether a record that is not deployed has the name of a service: its id may be a slip."""
        return naming.folded(service.name) in self.desired.held_names

    def predecessors(self, spec: ServiceSpec) -> tuple[ObservedService, ...]:
        """The record's services under other names: several where it was renamed again before the last one ran."""
        if spec.owner == BASE:
            return ()
        return tuple(service for service in self.unclaimed if service.owner == spec.owner)

    def pause(self, unit: Unit, name: str, intent: Fingerprint = ABSENT) -> Wait | None:
        """Return what to wait for where somebody undid our last write of this, and the next is not due yet."""
        entry = self.log.entry(name, intent)
        if entry is None or not entry.is_contested or self.observed.time >= entry.due:
            return None
        return Wait(unit, name, f"{entry.by}; put right again after a pause", entry.due)

    @cached_property
    def contests(self) -> tuple[Contest, ...]:
        """Services that somebody else writes again and again."""
        return tuple(
            Contest(unit_of(entry.owner, name), name, entry.by, entry.times)
            for name, entry in sorted(self.log.entries.items())
            if entry.is_contested
        )

    @cached_property
    def _owned_by_folded_name(self) -> Mapping[str, ObservedService]:
        return {naming.folded(service.name): service for service in self.owned.values()}

    @cached_property
    def _secrets_by_folded_name(self) -> Mapping[str, ObservedSecret]:
        return {naming.folded(secret.name): secret for secret in self.observed.secrets}

    @cached_property
    def _tasks_by_service(self) -> Mapping[str, list[ObservedTask]]:
        tasks: dict[str, list[ObservedTask]] = {}
        for task in self.observed.tasks:
            tasks.setdefault(task.service_id, []).append(task)
        return tasks


@frozen(kw_only=True)
class Part:
    """The findings of one part of planning."""

    steps: tuple[Step, ...] = ()
    waits: tuple[Wait, ...] = ()
    failures: tuple[Failure, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    notes: tuple[Note, ...] = ()
    kept: int = 0
    """Services that are as desired."""
    refusal: Refusal | None = None
    is_confirmed: bool = False
    """Whether it removes what would be refused without the token."""

    @property
    def rejected(self) -> frozenset[Unit]:
        """Units that are left alone because of it."""
        return frozenset(rejection.unit for rejection in self.rejections)

    @property
    def removed(self) -> frozenset[str]:
        """The names of the services that it removes."""
        actions = (step.action for step in self.steps)
        return frozenset(
            action.target.name
            for action in actions
            if isinstance(action, Remove) and isinstance(action.target, ObservedService)
        )


NOTHING = Part()


def merged(parts: Iterable[Part]) -> Part:
    """All of them, in their order. At most one of them has a refusal."""
    parts = tuple(parts)

    return Part(
        steps=tuple(step for part in parts for step in part.steps),
        waits=tuple(wait for part in parts for wait in part.waits),
        failures=tuple(failure for part in parts for failure in part.failures),
        rejections=tuple(rejection for part in parts for rejection in part.rejections),
        notes=tuple(note for part in parts for note in part.notes),
        kept=sum(part.kept for part in parts),
        refusal=next((part.refusal for part in parts if part.refusal is not None), None),
        is_confirmed=any(part.is_confirmed for part in parts),
    )
