"""Databases and object storage that services are bound to: what is wanted of Corestore, and what came of it.

A service is deployed only with everything it is bound to, so one whose binding is not provisioned is held. Nothing is
ever given back because a record is missing: only a binding that says `disabled` is deprovisioned.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import field, frozen

from coreflow.domain.ids import NodeId, Owner, ServiceId
from coreflow.domain.records.models import BindingRecord, PlatformRecord
from coreflow.domain.swarm.specs import Stage

CAPABILITIES = ("database", "objectstorage")
"""What Corestore can provide."""
PROVIDER = "corestore"
DISABLED = "disabled"
BindingState = Literal["pending", "provisioning", "ready", "failed", "disabled", "unsupported"]


@frozen(kw_only=True)
class BindingSpec:
    """One binding, as we want Corestore to hold it."""

    id: str
    service_id: ServiceId
    service_name: str
    capability: str
    prefix: str = ""
    """Put before the name of every variable."""
    config: Mapping[str, object] = field(factory=dict, repr=False)

    @property
    def owner(self) -> Owner:
        """The service that it belongs to."""
        return Owner(self.service_id)

    @property
    def stage(self) -> Stage:
        """It comes with its workload."""
        return Stage.WORKLOADS

    @property
    def name(self) -> str:
        """Return what a plan calls it."""
        return f"{self.service_name} {self.capability}"


@frozen(kw_only=True)
class Endpoint:
    """The address of a binding. Never with credentials."""

    name: str
    protocol: str
    host: str
    port: int


@frozen(kw_only=True)
class Provisioned:
    """Corestore's answer: variables for the service's secret, under their own names."""

    values: Mapping[str, str] = field(repr=False)
    endpoints: tuple[Endpoint, ...] = ()

    def variables(self, prefix: str) -> dict[str, str]:
        """The variables as the service gets them."""
        return {f"{prefix}{name}": value for name, value in self.values.items()}


@frozen(kw_only=True)
class BindingStatus:
    """The report on a binding (`IPlatformBindingStatus`, proposed): references to credentials, no values."""

    binding: BindingRecord
    state: BindingState
    endpoints: tuple[Endpoint, ...] = ()
    keys: tuple[str, ...] = ()
    """Names of the variables in the service's secret."""
    secret: str = ""
    """The name of that Docker secret."""
    error: str = ""


@frozen(kw_only=True)
class BindingWishes:
    """The wishes of records about bindings."""

    wanted: Mapping[ServiceId, tuple[BindingSpec, ...]] = field(factory=dict)
    unwanted: tuple[BindingSpec, ...] = ()
    """Explicitly disabled, of Corestore, and in nobody's use: a service has one database, however many bindings say so."""
    unsupported: tuple[BindingRecord, ...] = ()


@frozen(kw_only=True)
class Bound:
    """The bindings, as far as they are known in one pass."""

    variables: Mapping[ServiceId, Mapping[str, str]] = field(factory=dict, repr=False)
    """For each service whose bindings are all provisioned."""
    missing: Mapping[ServiceId, str] = field(factory=dict)
    """Why a service has to wait."""
    homes: Mapping[ServiceId, NodeId] = field(factory=dict)
    """The node that a service has to stay on, because what it is bound to is there."""
    due: tuple[tuple[BindingSpec, str], ...] = ()
    unwanted: tuple[BindingSpec, ...] = ()


def binding_wishes(platform: PlatformRecord | None) -> BindingWishes:
    """Sort the bindings of a platform record. One that names another provider, or no known capability, is unsupported."""
    if platform is None:
        return BindingWishes()
    corestores = {provider.id for provider in platform.providers if provider.type == PROVIDER}
    enabled = {
        provider.id for provider in platform.providers if provider.type == PROVIDER and provider.enabled
    }
    wanted: list[BindingRecord] = []
    unsupported: list[BindingRecord] = []
    disabled: list[BindingRecord] = []
    for record in sorted(platform.bindings, key=lambda b: b.id):
        if record.desired_state == DISABLED:
            disabled.append(record)
        else:
            (wanted if _is_provided(record, enabled, platform) else unsupported).append(record)
    in_use = {(record.service_id, record.capability) for record in wanted}
    return BindingWishes(
        wanted=_by_service(wanted),
        unwanted=tuple(
            _spec(record)
            for record in disabled
            if _is_provided(record, corestores, platform)
            and (record.service_id, record.capability) not in in_use
        ),
        unsupported=tuple(unsupported),
    )


def _is_provided(record: BindingRecord, corestores: Iterable[str], platform: PlatformRecord) -> bool:
    """Return whether Corestore can provide it, and is to: as named, or because nobody else is."""
    if record.capability not in CAPABILITIES:
        return False
    if record.provider_id:
        return record.provider_id in corestores
    return bool(corestores) or not platform.providers


def _by_service(records: Iterable[BindingRecord]) -> dict[ServiceId, tuple[BindingSpec, ...]]:
    found: dict[ServiceId, tuple[BindingSpec, ...]] = {}
    for record in records:
        found[record.service_id] = (*found.get(record.service_id, ()), _spec(record))
    return found


def _spec(record: BindingRecord) -> BindingSpec:
    return BindingSpec(
        id=record.id,
        service_id=record.service_id,
        service_name=record.service_name or record.service_id,
        capability=record.capability,
        prefix=record.env_prefix or "",
        config=record.config,
    )
