"""Records and observations -> everything we want, and everything we cannot want yet.

A record that cannot be rendered is *rejected*, with reasons; a service whose image cannot be looked up right now is
*held*. Either way nothing that its owner has is touched, pruned or garbage-collected: unknown is not empty.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import attrgetter, is_

from attrs import evolve, fields

from coreflow.domain.ids import BASE, ClusterId, Owner, ServiceId
from coreflow.domain.platform.bindings import Bound
from coreflow.domain.records.models import Records, ServiceRecord
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
    pinned,
    plain_source,
)
from coreflow.domain.swarm.observed import Observed

from .base import render_base
from .desired import Desired, Note, RenderOptions, duplicate_ids, unit_of
from .draft import Draft, is_workload
from .layers import Layers
from .live import Live
from .networks import NO_INGRESS, base_networks, network_notes
from .pins import PinnedImages, is_known, pinned_images
from .services import (
    Ingredients,
    Rendered,
    login_hash,
    render_workload,
    unsuited_note,
    value_problems,
)

_IMAGE_FIELDS = ("imageId", "imageVersion", "registryTarget")


class Renderer:
    """Renders records, and keeps what it rendered for as long as everything that went into it is the same object."""

    def __init__(self, options: RenderOptions) -> None:
        self.options = options
        self._memo: dict[ServiceId, tuple[Ingredients, Rendered]] = {}
        self._sources: dict[ServiceId, tuple[tuple[object, ...], tuple[ImageSource, str]]] = {}
        self._layers = Layers(options.secret_environment)
        self._pinned: tuple[Observed, ClusterId, PinnedImages] | None = None

    def image_requests(
        self, records: Records, observed: Observed, *, refresh: bool = False
    ) -> tuple[ImageRequest, ...]:
        """Return which image references have to be looked up before rendering: those that no running service has pinned.

        With `refresh` all of them, so that a tag that moved is noticed.
        """
        known = {} if refresh else self._pinned_images(observed, records.cluster.id)
        wanted = []
        for name, request in self.base_requests(records):
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
        work = Draft(
            records,
            Live(observed, records.cluster.id),
            self._pinned_images(observed, records.cluster.id),
            self._layers.of(records),
            reserved=frozenset((*self.options.base.services, naming.COREFLOW)),
            refresh=refresh,
        )
        work.reject_unreadable()
        networks, bad_networks = base_networks(observed, records.cluster.id)
        for reason in bad_networks:
            work.reject(BASE, BASE, (reason,))
        for text in network_notes(observed):
            work.note(BASE, BASE, text)
        for name, request in self.base_requests(records):
            self._render_base(name, request, images, work)
        duplicates = duplicate_ids(records)
        work.reject_duplicates(duplicates)
        for service in self._in_order(records, duplicates, work):
            self._render_one(service, images, bound, work)
        for rejected in records.rejected:
            if rejected.kind == "service" and rejected.id is not None and rejected.salvaged is not None:
                work.keep_hosts(rejected.salvaged.record)
        for gone in (self._memo.keys() | self._sources.keys()) - {service.id for service in records.services}:
            self._memo.pop(gone, None)
            self._sources.pop(gone, None)
        work.layers.forget_unused()
        if text := self._unserved(work.hosts, observed):
            work.note(BASE, naming.CORETRAFFIC, text)
        if bad_networks:
            work.hold_everything()
        return evolve(work.desired(networks), provision=bound.due, release=bound.unwanted)

    def _unserved(self, hosts: Iterable[str], observed: Observed) -> str:
        """Return that no proxy serves these hosts, if that is so: routes are made all the same, for whoever asks for them."""
        there = {*self.options.base.services, *(service.name for service in observed.services)}
        first, *others = sorted(hosts) or [""]
        if not first or self.options.has_proxy or naming.CORETRAFFIC in there:
            return ""
        more = f" and {len(others)} more" if others else ""
        return f"is not deployed: nothing serves {first}{more} (COREFLOW_BASE_SERVICES, COREFLOW_CORETRAFFIC_PEERS)"

    def _pinned_images(self, observed: Observed, cluster: ClusterId) -> "PinnedImages":
        """Return what the labels say of images; asked twice in a pass, computed once."""
        known = self._pinned
        if known is None or known[0] is not observed or known[1] != cluster:
            known = self._pinned = (observed, cluster, pinned_images(observed, cluster))
        return known[2]

    def base_requests(self, records: Records) -> Iterator[tuple[str, ImageRequest]]:
        """Yield the base services with what to ask for their images."""
        base = self.options.base
        for name in base.services:
            yield name, plain_source(base.images[name], records, f"the image of {name}").request

    def _render_base(
        self, name: str, request: ImageRequest, images: Mapping[ImageRequest, Resolution], work: Draft
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
            if work.live.lacks_ingress and any(port.mode == "ingress" for port in spec.body.ports):
                work.reject(unit, name, (NO_INGRESS,), held=True)
                return
            work.want(spec)
            if unsuited := work.live.unsuited(image.platforms):
                work.note(unit, name, unsuited_note(image.platforms, unsuited))

    def _source(self, service: ServiceRecord, records: Records) -> tuple[ImageSource, str]:
        """Return where the image comes from, and the hash of the login for it."""
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

    def _in_order(
        self, records: Records, duplicates: Collection[str], work: Draft
    ) -> Iterator[ServiceRecord]:
        """Workload records whose ids are their own, those that run already first."""
        for service in _running_first(records.services, work.live):
            if service.id in duplicates:
                continue
            if is_workload(service):
                yield service
            elif Owner(service.id) in work.live.owned:
                work.hold(service.id)
                work.note(service.id, service.name, f"its category is {service.service_category}: left alone")

    def _render_one(
        self,
        service: ServiceRecord,
        images: Mapping[ImageRequest, Resolution],
        bound: Bound,
        work: Draft,
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

    def _image(
        self,
        service: ServiceRecord,
        images: Mapping[ImageRequest, Resolution],
        work: Draft,
        problems: list[str],
    ) -> tuple[ImageSource, str, ResolvedImage | ImageProblem] | None:
        """The source of an image, the hash of the login for it, and what is there or why that is not known now.

        None: there is no such image; why goes to `problems`.
        """
        try:
            source, login = self._source(service, work.records)
        except Rejected as exc:
            problems += exc.reasons
            return None
        if not isinstance(source, RegistryImage):
            return source, login, ResolvedImage()
        answer = work.image(service.id, source.request, login, images)
        if isinstance(answer, ImageProblem) and not answer.unavailable:
            problems.append(answer.text)
            return None
        return source, login, answer

    def _ingredients(
        self,
        service: ServiceRecord,
        images: Mapping[ImageRequest, Resolution],
        bound: Bound,
        work: Draft,
    ) -> Ingredients:
        problems: list[str] = []
        found = self._image(service, images, work, problems)
        layers = tuple(work.layers.of_service(service, problems))
        if problems or found is None:
            raise Rejected(*problems, *value_problems(service))
        source, login, image = found
        if isinstance(image, ImageProblem):
            if wrong := value_problems(service):
                raise Rejected(*wrong)
            raise _Held(image)
        if service.id in bound.missing:
            raise _Unbound(bound.missing[service.id])
        return Ingredients(
            cluster=work.records.cluster.id,
            service=service,
            source=source,
            digest=image.digest,
            platforms=image.platforms,
            unsuited=work.live.unsuited(image.platforms),
            login_hash=login,
            layers=layers,
            provisioned=bound.variables.get(service.id),
            pin_to=work.live.own_node if isinstance(source, ArchiveImage) else None,
            home=bound.homes.get(service.id)
            or (work.live.home(service) if self.options.keep_on_node else None),
            nodes=work.live.nodes,
            most_nano_cpus=work.live.most_nano_cpus,
            lacking=work.live.lacking(service),
            secret_names=work.live.secret_names(service),
            mounted=work.live.mounted(service) if layers else (),
            spelt=work.live.spelt(service),
        )


def _running_first(services: Iterable[ServiceRecord], live: Live) -> list[ServiceRecord]:
    """The records in the order in which they are rendered: in a quarrel over a name, who has it keeps it."""
    named, running = live.owned_names, live.owned.keys()

    def place(service: ServiceRecord) -> tuple[bool, bool, str]:
        owner = Owner(service.id)
        return (owner, naming.folded(service.name)) not in named, owner not in running, service.id

    return sorted(services, key=place)


_BY_IDENTITY = ("service", "source", "layers")
_by_value = attrgetter(*(field.name for field in fields(Ingredients) if field.name not in _BY_IDENTITY))


def _same(one: Ingredients, other: Ingredients) -> bool:
    """Return whether two sets of ingredients consist of the same records and layers, and of equal facts."""
    return (
        one.service is other.service
        and one.source is other.source
        and len(one.layers) == len(other.layers)
        and all(map(is_, one.layers, other.layers))
        and _by_value(one) == _by_value(other)
    )


class _Unbound(Exception):
    """Something that the service is bound to does not exist yet."""


class _Held(Exception):
    """Not the record's fault: it may work later."""

    def __init__(self, problem: ImageProblem) -> None:
        super().__init__(problem.text)
        self.problem = problem
