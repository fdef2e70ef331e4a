"""Everything we want, and everything we cannot want yet, as values."""

from collections import Counter
from collections.abc import Iterator, Mapping

from attrs import Factory, frozen

from coreflow.domain.ids import BASE, ClusterId
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.records.models import Records
from coreflow.domain.routing.routes import HostClaim
from coreflow.domain.swarm.specs import ImageSpec, NetworkSpec, SecretSpec, ServiceSpec

from .base import BaseOptions

Unit = str
"""What fails and is held together: the id of a service record, or one base service (`base/corelog`)."""


def unit_of(owner: str, name: str) -> Unit:
    """The unit that an object belongs to: base services are units of their own."""
    return f"{BASE}/{name}" if owner == BASE else owner


@frozen(kw_only=True)
class RenderOptions:
    """Options of rendering."""

    base: BaseOptions = Factory(BaseOptions)
    secret_environment: str = "production"
    keep_on_node: bool = True
    """Keep a service with volumes on the node that has their data."""
    has_proxy: bool = False
    """Proxies run elsewhere, so domains need no coretraffic among the services of this Swarm."""


@frozen(kw_only=True)
class Rejection:
    """A record that is not deployed, and why. `held`: not for a fault of the record, so it may work later."""

    unit: Unit
    name: str
    reasons: tuple[str, ...]
    held: bool = False
    awaited: bool = False
    """Whether the end of this is under way: an answer is being waited for."""


@frozen(kw_only=True)
class Note:
    """Something a person should know about a service that is deployed nevertheless."""

    unit: Unit
    name: str
    text: str


def unknown_notes(records: Records) -> Iterator[Note]:
    """The fields that nobody reads, each under the name of its record."""
    for field in records.unknown:
        if field.kind == "service":
            yield Note(unit=field.id or "", name=field.record or field.id or "(no name)", text=str(field))
        else:
            yield Note(unit="", name=f"{field.kind or 'document'} {field.id or ''}".rstrip(), text=str(field))


def duplicate_ids(records: Records) -> dict[str, int]:
    """Ids of services that several records have, those included that cannot be read, and how many."""
    counts = Counter[str](service.id for service in records.services)
    counts.update(one.id for one in records.rejected if one.kind == "service" and one.id is not None)
    return {identity: times for identity, times in counts.items() if times > 1}


@frozen(kw_only=True)
class Desired:
    """Everything we want, by name."""

    cluster: ClusterId
    networks: tuple[NetworkSpec, ...] = ()
    services: Mapping[str, ServiceSpec] = Factory(dict)
    secrets: Mapping[str, SecretSpec] = Factory(dict)
    """By service name: the secret that service mounts."""
    images: Mapping[str, ImageSpec] = Factory(dict)
    """By service name: the archive that has to be loaded for it."""
    rejections: tuple[Rejection, ...] = ()
    notes: tuple[Note, ...] = ()
    held: frozenset[Unit] = frozenset()
    """Units whose objects are left alone."""
    held_names: frozenset[str] = frozenset()
    """Names, as Swarm compares them, of records that are not deployed: what runs under one of them is left alone."""
    hosts: Mapping[str, HostClaim] = Factory(dict)
    """By host name: which service it leads to. Those of services that run but cannot be deployed as recorded, too."""
    provision: tuple[tuple[BindingSpec, str], ...] = ()
    """Bindings to ask Corestore for, and why."""
    release: tuple[BindingSpec, ...] = ()
    """Bindings to give back."""
    waiting: tuple[Note, ...] = ()
    """Held services that will be deployed once their bindings are provisioned, and what they wait for."""
    doubt: str = ""
    """The reason why nothing can be said to be unwanted, if there is one: nobody knows to which service a record belongs."""

    @property
    def prune(self) -> bool:
        """Return whether what no record names is unwanted."""
        return not self.doubt
