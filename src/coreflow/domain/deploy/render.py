"""Records and observations -> everything we want, and everything we cannot want yet.

A record that cannot be rendered is *rejected*, with reasons; a service whose image cannot be looked up right now is
*held*. Either way nothing that its owner has is touched, pruned or garbage-collected: unknown is not empty.
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import is_

from attrs import evolve

from coreflow.domain.ids import BASE, BundleId, ClusterId, NodeId, Owner, ServiceId
from coreflow.domain.platform.bindings import Bound
from coreflow.domain.records.models import Records, SecretBundleRecord, SecretGroupRecord, ServiceRecord
from coreflow.domain.records.salvage import Salvaged
from coreflow.domain.routing.routes import HostClaim
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import (
    ArchiveImage,
    ImageProblem,
    ImageRequest,
    ImageSource,
    RegistryImage,
    Rejected,
    Resolution,
    ResolvedImage,
    distinct,
    image_source,
    missing,
    pinned,
    plain_source,
)
from coreflow.domain.swarm.observed import Observed
from coreflow.domain.swarm.specs import (
    ImageSpec,
    Mount,
    NetworkSpec,
    Platform,
    SecretSpec,
    ServiceSpec,
    kept_on,
)

from .base import render_base
from .desired import Desired, Note, Rejection, RenderOptions, Unit, unit_of
from .networks import NO_INGRESS, base_networks, lacks_ingress, network_notes
from .pins import PinnedImages, is_known, pinned_images
from .secrets import Layer, flatten, matches
from .services import (
    WORKLOAD,
    Ingredients,
    Rendered,
    host_names,
    host_ports,
    login_hash,
    render_workload,
    replicas,
    unsuited_note,
    value_problems,
)
from .volumes import DEFAULT_DRIVER, LOCAL_DRIVER, is_spelt_otherwise

_IMAGE_FIELDS = ("imageId", "imageVersion", "registryTarget")


class Renderer:
    """Renders records, and keeps what it rendered for as long as everything that went into it is the same object."""

    def __init__(self, options: RenderOptions) -> None:
        self.options = options
        self._memo: dict[ServiceId, tuple[Ingredients, Rendered]] = {}
        self._sources: dict[ServiceId, tuple[tuple[object, ...], tuple[ImageSource, str]]] = {}
        self._layers: dict[BundleId, Layer] = {}
        self._pinned: tuple[Observed, ClusterId, PinnedImages] | None = None

    def image_requests(
        self, records: Records, observed: Observed, *, refresh: bool = False
    ) -> tuple[ImageRequest, ...]:
        """Which image references have to be looked up before rendering: those that no running service has pinned.

        With `refresh` all of them, so that a tag that moved is noticed.
        """
        known = {} if refresh else self._pinned_images(observed, records.cluster.id)
        wanted = []
        for name, request in self._base_requests(records):
            if not is_known(
                known, unit_of(BASE, name), request, login_hash(records.cluster.id, request.login)
            ):
                wanted.append(request)
        for service in records.services:
            if not is_workload(service):
                continue
            try:
                source, login = self._source(service, records)
            except Rejected:
                continue
            if isinstance(source, RegistryImage) and not is_known(known, service.id, source.request, login):
                wanted.append(source.request)
        return distinct(wanted)

    def render(
        self,
        records: Records,
        observed: Observed,
        images: Mapping[ImageRequest, Resolution],
        bound: Bound | None = None,
        *,
        refresh: bool = False,
    ) -> Desired:
        """Render everything.

        `images` answers `image_requests` (with the same `refresh`), `bound` is what is known of bindings.
        """
        bound = bound or Bound()
        pinned = self._pinned_images(observed, records.cluster.id)
        work = _Work(records, observed, pinned, self._layers, self.options, refresh=refresh)
        networks, bad_networks = base_networks(observed, records.cluster.id)
        for reason in bad_networks:
            work.reject(BASE, BASE, (reason,))
        for text in network_notes(observed):
            work.note(BASE, BASE, text)
        for name, request in self._base_requests(records):
            self._render_base(name, request, images, work)
        for service in self._in_order(records, observed, work):
            self._render_one(service, images, bound, work)
        for rejected in records.rejected:
            if rejected.kind == "service" and rejected.id is not None and rejected.salvaged is not None:
                work.keep_hosts(rejected.salvaged.record)
        for gone in (self._memo.keys() | self._sources.keys()) - {service.id for service in records.services}:
            self._memo.pop(gone, None)
            self._sources.pop(gone, None)
        work.forget_layers()
        if bad_networks:
            work.hold_everything()
        return evolve(work.desired(networks), provision=bound.due, release=bound.unwanted)

    def _pinned_images(self, observed: Observed, cluster: ClusterId) -> "PinnedImages":
        """What the labels say of images; asked twice in a pass, computed once."""
        known = self._pinned
        if known is None or known[0] is not observed or known[1] != cluster:
            known = self._pinned = (observed, cluster, pinned_images(observed, cluster))
        return known[2]

    def _base_requests(self, records: Records) -> Iterator[tuple[str, ImageRequest]]:
        base = self.options.base
        for name in base.services:
            yield name, plain_source(base.images[name], records, f"the image of {name}").request

    def _render_base(
        self, name: str, request: ImageRequest, images: Mapping[ImageRequest, Resolution], work: "_Work"
    ) -> None:
        unit = unit_of(BASE, name)
        image = work.image(unit, request, login_hash(work.records.cluster.id, request.login), images)
        if isinstance(image, ImageProblem):
            work.reject(unit, name, (image.text,), held=image.unavailable, awaited=image.awaited)
        elif work.claim_name(unit, name):
            spec = render_base(
                name,
                pinned(request.reference, image.digest),
                self.options.base,
                work.records.cluster.id,
                request.login,
                image.platforms,
            )
            if work.lacks_ingress and any(port.mode == "ingress" for port in spec.body.ports):
                work.reject(unit, name, (NO_INGRESS,), held=True)
                return
            work.want(spec)
            if unsuited := work.unsuited(image.platforms):
                work.note(unit, name, unsuited_note(image.platforms, unsuited))

    def _source(self, service: ServiceRecord, records: Records) -> tuple[ImageSource, str]:
        """Where the image comes from, and the hash of the login for it."""
        image = records.images.get(service.image_id) if service.image_id else None
        registry_id = image.location.external_registry_id if image is not None else None
        registry = records.external_registries.get(registry_id) if registry_id else None
        fallback = records.cluster.registry_info
        known = self._sources.get(service.id)
        if known is not None:
            old = known[0]
            same = old[0] is service and old[1] is image and old[2] is registry
            if same and old[3] == fallback and old[4] == records.cluster.id:
                return known[1]
        inputs = (service, image, registry, fallback, records.cluster.id)
        source = image_source(service, records)
        login = source.request.login if isinstance(source, RegistryImage) else None
        found = (source, login_hash(records.cluster.id, login))
        self._sources[service.id] = (inputs, found)
        return found

    def _in_order(self, records: Records, observed: Observed, work: "_Work") -> Iterator[ServiceRecord]:
        """Workload records, those that run already first: in a quarrel over a name, who has it keeps it."""
        named = {
            (s.owner, naming.folded(s.name)) for s in observed.services if s.cluster == records.cluster.id
        }
        running = work.running
        count: dict[str, int] = {}
        for service in records.services:
            count[service.id] = count.get(service.id, 0) + 1
        for rejected in records.rejected:
            if rejected.kind == "service" and rejected.id is not None and rejected.id in count:
                count[rejected.id] += 1
        doubled = {identity for identity, times in count.items() if times > 1}
        for identity in sorted(doubled):
            names = sorted({service.name for service in records.services if service.id == identity})
            work.reject(identity, names[0], (f"{count[identity]} service records have the id {identity}",))
        for service in sorted(
            records.services,
            key=lambda s: (
                (Owner(s.id), naming.folded(s.name)) not in named,
                Owner(s.id) not in running,
                s.id,
            ),
        ):
            if service.id in doubled:
                continue
            if is_workload(service):
                yield service
            elif Owner(service.id) in running:
                work.hold(service.id)
                work.note(service.id, service.name, f"its category is {service.service_category}: left alone")

    def _render_one(
        self,
        service: ServiceRecord,
        images: Mapping[ImageRequest, Resolution],
        bound: Bound,
        work: "_Work",
    ) -> None:
        try:
            ingredients = self._ingredients(service, images, bound, work)
            known = self._memo.get(service.id)
            if known is not None and _same(known[0], ingredients):
                rendered = known[1]
            else:
                rendered = render_workload(ingredients)
                self._memo[service.id] = (ingredients, rendered)
            has_name = work.claim_name(service.id, service.name)
            if has_name:
                work.claim_hosts(service, rendered)
        except Rejected as exc:
            work.reject(service.id, service.name, exc.reasons)
        except _Held as exc:
            text, awaited = exc.problem.text, exc.problem.awaited
            work.reject(service.id, service.name, (text,), held=True, awaited=awaited)
        except _Unbound as exc:
            work.hold(service.id)
            work.waiting.append(Note(unit=service.id, name=service.name, text=str(exc)))
        else:
            if has_name:
                work.add(service, rendered)
                return
        work.keep_hosts(service)

    def _ingredients(
        self,
        service: ServiceRecord,
        images: Mapping[ImageRequest, Resolution],
        bound: Bound,
        work: "_Work",
    ) -> Ingredients:
        problems: list[str] = []
        source: ImageSource | None = None
        held: ImageProblem | None = None
        image = ResolvedImage()
        login = ""
        try:
            source, login = self._source(service, work.records)
            if isinstance(source, RegistryImage):
                answer = work.image(service.id, source.request, login, images)
                if isinstance(answer, ImageProblem):
                    held = answer if answer.unavailable else None
                    problems += [] if answer.unavailable else [answer.text]
                else:
                    image = answer
        except Rejected as exc:
            problems += exc.reasons
        layers = tuple(work.layers(service, problems))
        if problems or source is None:
            raise Rejected(*problems, *value_problems(service))
        if held is not None:
            if wrong := value_problems(service):
                raise Rejected(*wrong)
            raise _Held(held)
        if service.id in bound.missing:
            raise _Unbound(bound.missing[service.id])
        return Ingredients(
            cluster=work.records.cluster.id,
            service=service,
            source=source,
            digest=image.digest,
            platforms=image.platforms,
            unsuited=work.unsuited(image.platforms),
            login_hash=login,
            layers=layers,
            provisioned=bound.variables.get(service.id),
            pin_to=work.pin if isinstance(source, ArchiveImage) else None,
            home=bound.homes.get(service.id) or (work.home(service) if self.options.keep_on_node else None),
            nodes=work.nodes,
            most_nano_cpus=work.most_nano_cpus,
            lacking=work.lacking(service),
            secret_names=work.secret_names(service),
            spelt=work.spelt(service),
        )


def _same(one: Ingredients, other: Ingredients) -> bool:
    """Whether two sets of ingredients consist of the same objects."""
    return (
        one.service is other.service
        and one.source is other.source
        and one.digest == other.digest
        and one.platforms == other.platforms
        and one.unsuited == other.unsuited
        and one.pin_to == other.pin_to
        and one.home == other.home
        and one.lacking == other.lacking
        and one.secret_names == other.secret_names
        and one.spelt == other.spelt
        and one.nodes == other.nodes
        and one.most_nano_cpus == other.most_nano_cpus
        and one.cluster == other.cluster
        and one.provisioned == other.provisioned
        and len(one.layers) == len(other.layers)
        and all(map(is_, one.layers, other.layers))
    )


class _Unbound(Exception):
    """Something that the service is bound to is not there yet."""


class _Held(Exception):
    """Not the record's fault: it may work later."""

    def __init__(self, problem: ImageProblem) -> None:
        super().__init__(problem.text)
        self.problem = problem


class _Work:
    """What one rendering has gathered so far."""

    def __init__(
        self,
        records: Records,
        observed: Observed,
        pinned: "PinnedImages",
        layers: dict[BundleId, Layer],
        options: RenderOptions,
        *,
        refresh: bool,
    ) -> None:
        self.records = records
        self._layers, self._environment = layers, options.secret_environment
        self._reserved = frozenset(options.base.services)
        self._looked_at: dict[BundleId, tuple[Layer | None, tuple[str, ...]]] = {}
        self._refresh = refresh
        self.services: dict[str, ServiceSpec] = {}
        self.secrets: dict[str, SecretSpec] = {}
        self.images: dict[str, ImageSpec] = {}
        self.rejections: list[Rejection] = []
        self.notes: list[Note] = []
        self.waiting: list[Note] = []
        self.held: set[Unit] = set()
        self.held_names: set[str] = set()
        self.prune = True
        self.pin: NodeId | None = observed.own_node if len(observed.nodes) > 1 else None
        self.nodes = len(observed.nodes)
        self.most_nano_cpus = max((node.nano_cpus for node in observed.nodes), default=0)
        self._known = pinned
        self._foreign = {
            naming.folded(s.name): s for s in observed.services if s.cluster != records.cluster.id
        }
        self._claimed: dict[str, str] = {}
        """The names of services that are wanted, by what Swarm compares of them."""
        self._secrets_of: dict[Owner, list[str]] = {}
        for secret in observed.secrets:
            if naming.is_ours(secret.labels, records.cluster.id):
                self._secrets_of.setdefault(secret.owner, []).append(secret.name)
        self._hosts: dict[str, str] = {}
        self.hosts: dict[str, HostClaim] = {}
        self._observed = observed
        self.lacks_ingress = lacks_ingress(observed)
        self._nodes_of: dict[str, set[NodeId]] = {}
        for task in observed.tasks:
            if task.desired_state == "running" and task.state == "running" and task.node_id is not None:
                self._nodes_of.setdefault(task.service_id, set()).add(task.node_id)
        self._spelt: dict[Owner, tuple[Mount, ...]] = {}
        self._names_of: dict[Owner, set[str]] = {}
        for observed_service in observed.services:
            if observed_service.cluster == records.cluster.id:
                owner = observed_service.owner
                self._names_of.setdefault(owner, set()).add(observed_service.name)
                if spelt := tuple(m for m in observed_service.body.mounts if is_spelt_otherwise(m)):
                    self._spelt[owner] = (*self._spelt.get(owner, ()), *spelt)
        self.running = frozenset(self._names_of)
        self._all_groups = tuple(records.secret_groups.values())
        for rejected in records.rejected:
            if rejected.kind == "service":
                reasons = (*rejected.reasons, *self._other_reasons(rejected.salvaged))
                self._reject_undecoded(rejected.id, rejected.name, reasons)
            else:
                self.notes.append(
                    Note(
                        unit="",
                        name=f"{rejected.kind} {rejected.id or '(no id)'}",
                        text="; ".join(rejected.reasons),
                    )
                )

    def _reject_undecoded(self, identity: str | None, name: str | None, reasons: tuple[str, ...]) -> None:
        self.reject(identity or "", name or identity or "(no name)", reasons)
        if identity is None:
            self.prune = False
            if name is not None:
                self.held_names.add(name)

    def _other_reasons(self, salvaged: Salvaged[ServiceRecord] | None) -> tuple[str, ...]:
        """What else is wrong with a service that cannot be decoded, as far as it can be read."""
        if salvaged is None or not is_workload(salvaged.record) or "serviceCategory" in salvaged.unread:
            return ()
        found: list[str] = []
        tuple(self.layers(salvaged.record, found))
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
        self.prune = False

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
        text = reason if other == name else f"{reason}; Swarm tells no names apart by case"
        self.reject(unit, name, (text,))
        return False

    def _taken(self, unit: Unit, name: str) -> tuple[str, str] | None:
        """The name as somebody else has it, and who that is."""
        same = naming.folded(name)
        live = self._foreign.get(same)
        if live is not None:
            whose = naming.whose(live.labels)
            return live.name, f"a service named {live.name} exists already and {whose}: it is left alone"
        for reserved in self._reserved:
            if naming.folded(reserved) == same and unit != unit_of(BASE, name):
                return reserved, f"the name {reserved} belongs to the base"
        if same in self._claimed:
            spec = self.services[self._claimed[same]]
            return spec.name, f"the name {spec.name} belongs to service {spec.owner}"
        for held in self.held_names:
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
        """What runs and cannot be deployed as its record says keeps the host names that nobody else has, and is routed."""
        names = sorted(self._names_of.get(Owner(service.id), ()))
        if not names:
            return
        for host, _ in host_names(service):
            self._hosts.setdefault(host, service.id)
        name = service.name if service.name in names else names[0]
        for host, port in host_ports(service):
            if self._hosts[host] == service.id:
                self.hosts.setdefault(host, HostClaim(host=host, service=name, port=port))

    def image(
        self, unit: Unit, request: ImageRequest, login: str, images: Mapping[ImageRequest, Resolution]
    ) -> ResolvedImage | ImageProblem:
        """What is behind a reference: no digest for an image that only the engine has, or that is pinned already.

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

    def layers(self, service: ServiceRecord, problems: list[str]) -> Iterator[Layer]:
        """What the bundles of a service give, the main one last; what is missing goes to `problems`."""
        main = (service.secret_bundle_id,) if service.secret_bundle_id else ()
        for identity in (*service.additional_secret_bundle_ids, *main):
            known = self._looked_at.get(identity)
            if known is None:
                known = self._looked_at[identity] = self._look_at(identity)
            layer, missing_records = known
            problems += missing_records
            if layer is not None:
                yield layer

    def forget_layers(self) -> None:
        """Drop what was kept of bundles that no service mentions any more."""
        for identity in self._layers.keys() - self._looked_at.keys():
            del self._layers[identity]

    def _look_at(self, identity: BundleId) -> tuple[Layer | None, tuple[str, ...]]:
        """The layer of one bundle: the same object as last time while bundle and groups are the same objects."""
        bundle = self.records.secret_bundles.get(identity)
        if bundle is None:
            return None, (missing("secret bundle", identity, self.records),)
        problems: list[str] = []
        groups = tuple(self._groups(bundle, problems))
        layer = self._layers.get(identity)
        if (
            layer is None
            or layer.bundle is not bundle
            or len(layer.groups) != len(groups)
            or not all(map(is_, layer.groups, groups))
        ):
            layer = self._layers[identity] = flatten(bundle, groups, self._environment)
        return layer, tuple(problems)

    def _groups(self, bundle: SecretBundleRecord, problems: list[str]) -> Iterator[SecretGroupRecord]:
        if not bundle.included_secret_group_ids and bundle.included_tags:
            yield from (g for g in self._all_groups if matches(bundle.included_tags, g.tags))
        groups = self.records.secret_groups
        for identity in bundle.included_secret_group_ids:
            group = groups.get(identity)
            if group is None:
                text = missing("secret group", identity, self.records)
                problems.append(f"{text} (in secret bundle {bundle.id})")
            else:
                yield group

    def add(self, service: ServiceRecord, rendered: Rendered) -> None:
        self.want(rendered.service)
        if rendered.secret is not None:
            self.secrets[service.name] = rendered.secret
        if rendered.image is not None:
            self.images[service.name] = rendered.image
        for text in rendered.notes:
            self.note(service.id, service.name, text)

    def home(self, service: ServiceRecord) -> NodeId | None:
        """The node that a service with volumes stays on: where it was kept so far, else where its tasks are, if on one.

        None on a Swarm of one node, for several replicas (each has data of its own), and when that node has left.
        """
        if len(self._observed.nodes) < 2 or not service.volumes or replicas(service) > 1:
            return None
        nodes = {node.id for node in self._observed.nodes}
        for live in self._observed.services:
            if live.cluster == self.records.cluster.id and live.owner == Owner(service.id):
                found = set(kept_on(live.body.constraints)) or self._nodes_of.get(live.id, set())
                return min(found) if len(found) == 1 and found <= nodes else None
        return None

    def secret_names(self, service: ServiceRecord) -> tuple[str, ...]:
        """The names of the secrets that the service has or had."""
        return tuple(sorted(self._secrets_of.get(Owner(service.id), ())))

    def spelt(self, service: ServiceRecord) -> tuple[Mount, ...]:
        """The live mounts of a service whose paths are not in their shortest spelling."""
        return self._spelt.get(Owner(service.id), ())

    def lacking(self, service: ServiceRecord) -> tuple[str, ...]:
        """The nodes on which one of a service's volume drivers is not active."""
        drivers = {volume.driver or DEFAULT_DRIVER for volume in service.volumes} - {LOCAL_DRIVER}
        if not drivers:
            return ()
        return tuple(sorted(n.hostname for n in self._observed.nodes if not drivers <= n.volume_plugins))

    def unsuited(self, platforms: tuple[Platform, ...]) -> tuple[str, ...]:
        """The nodes that an image for these platforms cannot run on."""
        if not platforms:
            return ()
        return tuple(sorted(node.hostname for node in self._observed.nodes if not node.runs(platforms)))

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
            held_names=frozenset(self.held_names),
            hosts=self.hosts,
            waiting=tuple(self.waiting),
            prune=self.prune,
        )


def is_workload(service: ServiceRecord) -> bool:
    """Whether the record is a workload: its category says so, or says nothing."""
    return not service.service_category or service.service_category == WORKLOAD
