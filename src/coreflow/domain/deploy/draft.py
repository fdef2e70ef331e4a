"""A rendering under way: specs, claims of names and hosts, and what is left alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from attrs import evolve

from coreflow.domain.ids import BASE, Owner
from coreflow.domain.records.models import Records, ServiceRecord
from coreflow.domain.records.salvage import Salvaged
from coreflow.domain.routing.routes import HostClaim
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import (
    ImageProblem,
    ImageRequest,
    Rejected,
    Resolution,
    ResolvedImage,
    image_source,
)
from coreflow.domain.swarm.specs import ImageSpec, NetworkSpec, SecretSpec, ServiceSpec

from .desired import Desired, Note, Rejection, Unit, unit_of, unknown_notes
from .layers import BundleLayers
from .live import Live
from .pins import PinnedImages
from .services import WORKLOAD, Rendered, host_names, host_ports, value_problems

_IMAGE_FIELDS = ("imageId", "imageVersion", "registryTarget")
NAMES_SHOWN = 5
_UNLESS = "no longer wanted, unless it belongs to"
OF_NO_ID = f"{_UNLESS} the record whose id is missing"
OF_ONE_ID = f"{_UNLESS} one of the records with the id {{}}"
OF_NO_NAME = f"{_UNLESS} the record {{}}, whose name cannot be read"
WITHOUT_NETWORKS = "no longer wanted; removed once there are the base networks"


class Draft:
    """Everything that is wanted, as far as it is rendered."""

    def __init__(
        self,
        records: Records,
        live: Live,
        pinned: PinnedImages,
        layers: BundleLayers,
        *,
        reserved: frozenset[str],
        refresh: bool,
    ) -> None:
        self.records, self.live, self.layers = records, live, layers
        self._reserved, self._refresh, self._known = reserved, refresh, pinned
        self.services: dict[str, ServiceSpec] = {}
        self.secrets: dict[str, SecretSpec] = {}
        self.images: dict[str, ImageSpec] = {}
        self.rejections: list[Rejection] = []
        self.notes: list[Note] = []
        self.waiting: list[Note] = []
        self.held: set[Unit] = set()
        self.doubt = ""
        self._nameless_ids: set[str] = set()
        """The names of records whose id is missing."""
        self.hosts: dict[str, HostClaim] = {}
        self._hosts: dict[str, str] = {}
        self._claimed: dict[str, str] = {}
        """The names of services that are wanted, by what Swarm compares of them."""

    def reject_unreadable(self) -> None:
        """Hold what belongs to records that cannot be decoded, and say everything that is wrong with them."""
        self.notes += unknown_notes(self.records)
        for rejected in self.records.rejected:
            if rejected.kind == "service":
                reasons = (*rejected.reasons, *self._other_reasons(rejected.salvaged))
                self._reject_undecoded(rejected.id, rejected.name, reasons)
            else:
                name = f"{rejected.kind} {rejected.id or '(no id)'}"
                self.note("", name, "; ".join(rejected.reasons))

    def _reject_undecoded(self, identity: str | None, name: str | None, reasons: tuple[str, ...]) -> None:
        self.reject(identity or "", name or identity or "(no name)", reasons)
        if identity is None:
            self.doubt = self.doubt or OF_NO_ID
            if name is not None:
                self._nameless_ids.add(name)
        elif name is None and Owner(identity) not in self.live.owned:
            self.doubt = self.doubt or OF_NO_NAME.format(identity)

    def _other_reasons(self, salvaged: Salvaged[ServiceRecord] | None) -> tuple[str, ...]:
        """Return what else is wrong with a service that cannot be decoded, as far as it can be read."""
        if salvaged is None or not is_workload(salvaged.record) or "serviceCategory" in salvaged.unread:
            return ()
        found: list[str] = []
        tuple(self.layers.of_service(salvaged.record, found))
        found += value_problems(salvaged.record)
        if not any(path.startswith(_IMAGE_FIELDS) for path in salvaged.unread):
            try:
                image_source(salvaged.record, self.records)
            except Rejected as exc:
                found = [*exc.reasons, *found]
        return salvaged.reasons(found)

    def hold(self, unit: Unit) -> None:
        self.held.add(unit)

    def hold_everything(self) -> None:
        """Nothing can be made without the base networks."""
        self.held.update(unit_of(spec.owner, spec.name) for spec in self.services.values())
        self.services.clear()
        self._claimed.clear()
        self.doubt = self.doubt or WITHOUT_NETWORKS

    def note(self, unit: Unit, name: str, text: str) -> None:
        self.notes.append(Note(unit=unit, name=name, text=text))

    def reject(
        self, unit: Unit, name: str, reasons: Iterable[str], *, held: bool = False, awaited: bool = False
    ) -> None:
        rejection = Rejection(unit=unit, name=name, reasons=tuple(reasons), held=held, awaited=awaited)
        self.rejections.append(rejection)
        if unit:
            self.held.add(unit)

    def claim_name(self, unit: Unit, name: str) -> bool:
        """Reserve a service name; a name that is taken rejects the record. Case does not make names differ."""
        found = self._taken(unit, name)
        if found is None:
            return True
        other, reason = found
        text = reason if other == name else f"{reason}; Swarm ignores case in names"
        self.reject(unit, name, (text,))
        return False

    def _taken(self, unit: Unit, name: str) -> tuple[str, str] | None:
        """The name as somebody else has it, and who that is."""
        same = naming.folded(name)
        live = self.live.foreign.get(same)
        if live is not None:
            whose = naming.whose(live.labels)
            return live.name, f"a service named {live.name} exists already and {whose}: it is left alone"
        for reserved in self._reserved:
            if naming.folded(reserved) == same and unit != unit_of(BASE, name):
                return reserved, f"the name {reserved} belongs to the base"
        if same in self._claimed:
            spec = self.services[self._claimed[same]]
            return spec.name, f"the name {spec.name} belongs to service {spec.owner}"
        for held in self._nameless_ids:
            if naming.folded(held) == same:
                return held, f"another record, whose id is missing, has the name {held}"
        return None

    def want(self, spec: ServiceSpec) -> None:
        """A service whose name is claimed."""
        self.services[spec.name] = spec
        self._claimed[naming.folded(spec.name)] = spec.name

    def claim_hosts(self, service: ServiceRecord, rendered: Rendered) -> None:
        """Reserve the host names of a service, all or none."""
        hosts = rendered.hosts
        taken = [
            f"the host name {h} belongs to service {self._hosts[h]}" for h, _ in hosts if h in self._hosts
        ]
        if taken:
            raise Rejected(*taken)
        for host, port in hosts:
            self._hosts[host] = service.id
            self.hosts[host] = HostClaim(host=host, service=service.name, port=port)

    def keep_hosts(self, service: ServiceRecord) -> None:
        """Keep the host names that nobody else has for what runs and cannot be deployed as its record says: it is routed."""
        names = self.live.names_of(service) or self._named_alike(service)
        if names:
            self._keep_hosts(service, names)

    def reject_duplicates(self, duplicates: Mapping[str, int]) -> None:
        """Reject all records with these ids: nobody knows which is meant, nor what the others are of."""
        for identity, times in sorted(duplicates.items()):
            twins = [service for service in self.records.services if service.id == identity]
            unread = (r.name for r in self.records.rejected if r.kind == "service" and r.id == identity)
            names = sorted({*(service.name for service in twins), *filter(None, unread)})
            shown = f": {_listed(names)}" if len(names) > 1 else ""
            if twins:
                self.reject(identity, names[0], (f"{times} service records have the id {identity}{shown}",))
            self.doubt = self.doubt or OF_ONE_ID.format(identity)
            self._keep_hosts_of_twins(twins)

    def _keep_hosts_of_twins(self, twins: Iterable[ServiceRecord]) -> None:
        """Keep, for each record of one id, the host names of the service that runs under its name."""
        for twin in twins:
            wanted = naming.folded(twin.name)
            own = [name for name in self.live.names_of(twin) if naming.folded(name) == wanted]
            if alike := own or self._named_alike(twin):
                self._keep_hosts(twin, alike)

    def _named_alike(self, service: ServiceRecord) -> Sequence[str]:
        """The service that runs under the name of a record with another id, where no record has that of the service."""
        live = self.live.by_folded_name.get(naming.folded(service.name))
        if live is None or live.owner in self._ids or naming.folded(service.name) in self._claimed:
            return ()
        return (live.name,)

    @cached_property
    def _ids(self) -> frozenset[str]:
        rejected = (one.id for one in self.records.rejected if one.kind == "service" and one.id is not None)
        return frozenset((BASE, *rejected, *(service.id for service in self.records.services)))

    def _keep_hosts(self, service: ServiceRecord, names: Sequence[str]) -> None:
        for host, _ in host_names(service):
            self._hosts.setdefault(host, service.id)
        name = service.name if service.name in names else names[0]
        for host, port in host_ports(service):
            if self._hosts[host] == service.id:
                self.hosts.setdefault(host, HostClaim(host=host, service=name, port=port))

    def image(
        self, unit: Unit, request: ImageRequest, login: str, images: Mapping[ImageRequest, Resolution]
    ) -> ResolvedImage | ImageProblem:
        """Return what is behind a reference: no digest for an image that only the engine has, or that is pinned already.

        An unchanged reference keeps the digest that runs, with the platforms that it was placed by, unless this pass
        refreshes and the registry answers. A changed login is tried out first, and changes no digest.
        """
        running = self._known.get((unit, request.reference))
        answer = images.get(request)
        if isinstance(answer, ImageProblem) and (running is None or running.login != login):
            return answer
        has_digest = "@" in request.reference
        if isinstance(answer, ResolvedImage) and (running is None or self._refresh):
            return evolve(answer, digest=None) if has_digest else answer
        if running is not None:
            return ResolvedImage(None if has_digest else running.digest, running.platforms)
        if has_digest:
            return ResolvedImage()
        return ImageProblem(f"image {request.reference} was not looked up", unavailable=True)

    def add(self, service: ServiceRecord, rendered: Rendered) -> None:
        self.want(rendered.service)
        if rendered.secret is not None:
            self.secrets[service.name] = rendered.secret
        if rendered.image is not None:
            self.images[service.name] = rendered.image
        for text in rendered.notes:
            self.note(service.id, service.name, text)

    def desired(self, networks: tuple[NetworkSpec, ...]) -> Desired:
        return Desired(
            cluster=self.records.cluster.id,
            networks=networks,
            services=self.services,
            secrets=self.secrets,
            images=self.images,
            rejections=tuple(sorted(self.rejections, key=lambda r: (r.name, r.unit))),
            notes=tuple(self.notes),
            held=frozenset(self.held),
            held_names=frozenset(self._undeployed_names()),
            hosts=self.hosts,
            waiting=tuple(self.waiting),
            doubt=self.doubt,
        )

    def _undeployed_names(self) -> Iterator[str]:
        """The names of records that are not deployed, whatever the reason: their ids may be wrong."""
        rejected = (one.name for one in self.records.rejected if one.kind == "service" and one.name)
        for name in (*(service.name for service in self.records.services), *rejected):
            if name not in self.services and naming.folded(name) not in self._claimed:
                yield naming.folded(name)


def is_workload(service: ServiceRecord) -> bool:
    """Return whether the record is a workload: its category says so, or says nothing."""
    return not service.service_category or service.service_category == WORKLOAD


def _listed(names: Sequence[str]) -> str:
    """Several names in words, not all of very many."""
    rest = len(names) - NAMES_SHOWN
    return (
        f"{', '.join(names[:NAMES_SHOWN])} and {rest} more"
        if rest > 0
        else " and ".join((", ".join(names[:-1]), names[-1]))
    )
