"""The ledger of bindings, as one process knows them, and what follows from it: who can be deployed, what has to be asked for."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from attrs import Factory, evolve, field, frozen

from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.records.models import BindingRecord, PlatformRecord

from .bindings import BindingSpec, BindingStatus, BindingWishes, Bound, Provisioned
from .instances import Instance, is_ambiguous

T = TypeVar("T")
NOBODY = "it is bound to {}, and there is no Corestore to ask"
AMBIGUOUS = (
    "{} says that it is reached under a name that leads to the Corestore of any node:"
    " set CORESTORE_CONTROL_URL to the one that serves the cluster"
)
UNREADABLE = "what it is bound to cannot be read"
NOWHERE = "no Corestore is known on the node where it runs"


@frozen(kw_only=True)
class Entry:
    """A binding that was provisioned: what was asked for, where, and what came of it."""

    spec: BindingSpec
    instance: Instance
    provisioned: Provisioned


@frozen(kw_only=True)
class Ledger:
    """The bindings that a process knows, by their ids. A restart begins with an empty one, and asks again."""

    entries: Mapping[str, Entry] = Factory(dict)
    stale: frozenset[str] = frozenset()
    """To be asked for again; until then, what is known counts."""
    errors: Mapping[str, str] = Factory(dict)
    """Why the last attempt failed."""
    released: Mapping[str, BindingSpec] = Factory(dict)
    """Given back, and not wanted since."""

    def expired(self) -> "Ledger":
        """Everything is asked for again."""
        return evolve(self, stale=frozenset(self.entries))

    def wanting(self, specs: Iterable[BindingSpec]) -> "Ledger":
        """Forget that what is wanted was given back: disabled once more, it has to be given back once more."""
        wanted = self.released.keys() & {spec.id for spec in specs}
        return evolve(self, released=_without(self.released, *wanted)) if wanted else self

    def asked(self, spec: BindingSpec) -> "Ledger":
        """Corestore is being asked: what expires meanwhile is asked for once more."""
        return evolve(self, stale=self.stale - {spec.id})

    def provisioned(self, spec: BindingSpec, instance: Instance, found: Provisioned) -> "Ledger":
        """Corestore gave what the spec wants."""
        return evolve(
            self,
            entries={**self.entries, spec.id: Entry(spec=spec, instance=instance, provisioned=found)},
            errors=_without(self.errors, spec.id),
        )

    def failed(self, spec: BindingSpec, reason: str) -> "Ledger":
        """Corestore was asked in vain."""
        return evolve(self, errors={**self.errors, spec.id: reason})

    def deprovisioned(self, spec: BindingSpec) -> "Ledger":
        """Corestore has it back."""
        return evolve(
            self,
            entries=_without(self.entries, spec.id),
            released={**self.released, spec.id: spec},
        )

    def has(self, spec: BindingSpec, instance: Instance | None) -> bool:
        """Return whether it is provisioned as it is wanted, at this Corestore."""
        entry = self.entries.get(spec.id)
        return (
            entry is not None
            and entry.spec == spec
            and instance is not None
            and entry.instance.key == instance.key
        )


@frozen(kw_only=True)
class Circumstances:
    """Circumstances, beside the ledger, that binding services depends on."""

    wishes: BindingWishes
    services: frozenset[ServiceId]
    """Those that there are records of."""
    instances: Mapping[ServiceId, Instance] = field(factory=dict)
    """The Corestore of each bound service, where one is known."""
    unreadable: frozenset[ServiceId | None] = frozenset()
    """Services with a binding that cannot be read; None if it is not known whose it is."""
    is_served: bool = True
    """Whether there is a Corestore at all."""
    several_nodes: bool = False


def decide(ledger: Ledger, facts: Circumstances) -> Bound:
    """Say which services have everything they are bound to, what the others wait for, and what to ask for."""
    wanted = {service: specs for service, specs in facts.wishes.wanted.items() if service in facts.services}
    obstacles = {s: why for s in facts.services if (why := _obstacle(s, wanted.get(s, ()), facts))}
    served = {service: specs for service, specs in wanted.items() if service not in obstacles}
    missing = {service: why for service, specs in served.items() if (why := _missing(specs, ledger, facts))}
    return Bound(
        variables={
            service: _variables(specs, ledger) for service, specs in served.items() if service not in missing
        },
        missing=obstacles | missing,
        homes={service: home for service in served if (home := _home(service, facts)) is not None},
        due=tuple(_due(served.values(), ledger, facts)),
        unwanted=tuple(spec for spec in facts.wishes.unwanted if _is_due_back(spec, ledger, facts)),
    )


def _obstacle(service: ServiceId, specs: tuple[BindingSpec, ...], facts: Circumstances) -> str:
    """Return why nothing can be asked for, if so."""
    if not facts.unreadable.isdisjoint({service, None}):
        return UNREADABLE
    if specs and not facts.is_served:
        return NOBODY.format(" and ".join(spec.capability for spec in specs))
    if specs and service not in facts.instances:
        return NOWHERE
    return ""


def _missing(specs: tuple[BindingSpec, ...], ledger: Ledger, facts: Circumstances) -> str:
    """Return what a service waits for, if it has not everything that it is bound to."""
    service = specs[0].service_id
    instance = facts.instances[service]
    lacking = [spec for spec in specs if not ledger.has(spec, instance)]
    if lacking:
        errors = sorted({ledger.errors[spec.id] for spec in lacking if spec.id in ledger.errors})
        return "; ".join((f"waits for its {' and '.join(spec.capability for spec in lacking)}", *errors))
    if _home(service, facts) and any(is_ambiguous(ledger.entries[s.id].provisioned) for s in specs):
        return AMBIGUOUS.format(instance)
    return ""


def _home(service: ServiceId, facts: Circumstances) -> NodeId | None:
    return facts.instances[service].node if facts.several_nodes else None


def _variables(specs: tuple[BindingSpec, ...], ledger: Ledger) -> Mapping[str, str]:
    variables: dict[str, str] = {}
    for spec in specs:
        variables |= ledger.entries[spec.id].provisioned.variables(spec.prefix)
    return variables


def _due(
    served: Iterable[tuple[BindingSpec, ...]], ledger: Ledger, facts: Circumstances
) -> Iterator[tuple[BindingSpec, str]]:
    """The bindings that Corestore has to be asked for, each with why."""
    for specs in served:
        for spec in specs:
            if reason := _why(spec, ledger, facts):
                yield spec, reason


def _why(spec: BindingSpec, ledger: Ledger, facts: Circumstances) -> str:
    """Return why Corestore has to be asked, if it has to."""
    if spec.id not in ledger.entries:
        return "its values are not known yet"
    if not ledger.has(spec, facts.instances.get(spec.service_id)):
        return "the binding changed"
    return "asked again, in case its values changed" if spec.id in ledger.stale else ""


def _is_due_back(spec: BindingSpec, ledger: Ledger, facts: Circumstances) -> bool:
    """Return whether a disabled binding has to be given back. One that cannot be read may say that somebody uses the same."""
    return (
        spec.service_id in facts.instances
        and ledger.released.get(spec.id) != spec
        and facts.unreadable.isdisjoint({spec.service_id, None})
    )


def statuses(
    platform: PlatformRecord | None,
    wishes: BindingWishes,
    ledger: Ledger,
    secrets: Mapping[str, str],
) -> tuple[BindingStatus, ...]:
    """Say how far every binding is. `secrets` are the names of Docker secrets by those of their services."""
    if platform is None:
        return ()
    wanted = {spec.id for specs in wishes.wanted.values() for spec in specs}
    unsupported = {record.id for record in wishes.unsupported}

    def status(record: BindingRecord) -> BindingStatus:
        if record.id in unsupported:
            text = f"nobody here provides {record.capability}"
            return BindingStatus(binding=record, state="unsupported", error=text)
        if record.id not in wanted:
            return BindingStatus(
                binding=record, state="disabled" if record.id in ledger.released else "pending"
            )
        if record.id in ledger.errors:
            return BindingStatus(binding=record, state="failed", error=ledger.errors[record.id])
        entry = ledger.entries.get(record.id)
        return (
            BindingStatus(binding=record, state="pending")
            if entry is None
            else _ready(record, entry, secrets)
        )

    return tuple(status(record) for record in platform.bindings)


def _ready(record: BindingRecord, entry: Entry, secrets: Mapping[str, str]) -> BindingStatus:
    return BindingStatus(
        binding=record,
        state="ready",
        endpoints=entry.provisioned.endpoints,
        keys=tuple(sorted(entry.provisioned.variables(entry.spec.prefix))),
        secret=secrets.get(entry.spec.service_name, ""),
    )


def _without(mapping: Mapping[str, T], *keys: str) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key not in keys}
