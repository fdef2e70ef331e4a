"""The Docker port over any engine: lists in, one write per action out, the engine's errors translated at the door."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar, assert_never

import trio

from coreflow.adapters.engine.protocol import Document, Engine, EngineError
from coreflow.domain.errors import LostRace, PortError, Refused, Unavailable
from coreflow.domain.ids import NodeId
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import (
    Create,
    MarkFailed,
    Recreate,
    Remove,
    Start,
    Stop,
    SwarmAction,
    Update,
)
from coreflow.domain.swarm.images import (
    pinned,
)
from coreflow.domain.swarm.observed import (
    Observed,
    ObservedNetwork,
    ObservedService,
    ObservedTask,
)
from coreflow.domain.swarm.specs import ImageSpec, NetworkSpec, SecretSpec, ServiceSpec, Spec

from . import from_engine, to_engine
from .discreet import Discreet
from .errors import NotAManager, is_conflict, translating, why_no_manager
from .events import subject_of_event
from .images import ImagePort
from .names import Kind, Names
from .parse_documents import read_each, readable
from .removals import RemovalPort

T = TypeVar("T")

_REASON_LIMIT = 200
"""Characters of an error that a label keeps."""


async def _together(*calls: Callable[[], Awaitable[T]]) -> list[T]:
    """Make several calls at once; the first that fails decides."""
    results: dict[int, T] = {}
    errors: list[PortError] = []

    async def one(index: int, call: Callable[[], Awaitable[T]]) -> None:
        try:
            with translating("listing what runs"):
                results[index] = await call()
        except PortError as exc:
            errors.append(exc)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(one, index, call)
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(calls))]


async def _why_no_manager(engine: Engine) -> str:
    with translating("asking for the state of the Swarm"):
        info = await engine.info()
    return why_no_manager(info.get("Swarm") or {})


def _read_tasks(
    documents: Any,
    service_documents: Any,
    services: tuple[ObservedService, ...],
    network_names: Mapping[str, str],
) -> tuple[ObservedTask, ...]:
    templates = dict.fromkeys(from_engine.rolled_back(services), network_names)
    current = {d["ID"]: d["Spec"].get("TaskTemplate") or {} for d in service_documents}
    return read_each(
        "tasks", documents, lambda d: from_engine.observed_task(d, templates=templates, current=current)
    )


class SwarmPort(ImagePort, RemovalPort):
    """`DockerPort` on any engine.

    Keeps what it read of a service for as long as the service's version stays the same, so that a pass over an
    unchanged Swarm decodes next to nothing. `redact`: see `Discreet`.
    """

    def __init__(self, engine: Engine, *, writer: str = "", redact: Redact = NOTHING_KNOWN.redact) -> None:
        """`writer` names this process on the services that it writes, for people who find two at work."""
        super().__init__(Discreet(engine, redact))
        self._writer = writer
        self._services: dict[str, tuple[int, ObservedService]] = {}
        self._network_names: dict[str, str] = {}
        self._secret_ids: dict[str, str] = {}
        self._own_secrets: frozenset[str] = frozenset()
        self._names = Names()
        self._own_node: NodeId | None = None
        self._plugins: frozenset[str] = frozenset()

    def clock(self) -> float:
        """The engine's wall clock."""
        return self._engine.clock()

    async def version(self) -> tuple[str, str]:
        """The engine's version, and that of its API."""
        with translating("asking for the version"):
            answer = await self._engine.version()
        return str(answer.get("Version", "?")), str(answer.get("ApiVersion", "0"))

    async def observe(self) -> Observed:
        """List services, tasks, secrets, networks and nodes: five reads, whatever the number of objects."""
        try:
            services, tasks, secrets, networks, nodes = await _together(
                self._engine.list_services,
                self._engine.list_tasks,
                self._engine.list_secrets,
                self._engine.list_networks,
                self._engine.list_nodes,
            )
        except NotAManager as exc:
            raise Unavailable(f"listing what runs: {await _why_no_manager(self._engine)}") from exc
        observed_networks = read_each(
            "networks", networks, lambda n: from_engine.observed_network(n, self._engine.clock())
        )
        names = {network.id: network.name for network in observed_networks}
        if names != self._network_names:  # then services were read without knowing what these ids stand for
            self._network_names, self._services = names, {}
        observed_nodes = read_each("nodes", nodes, from_engine.observed_node)
        observed_secrets = read_each("secrets", secrets, from_engine.observed_secret)
        self._secret_ids = {secret.name: secret.id for secret in observed_secrets}
        self._own_secrets = frozenset(s.id for s in observed_secrets if naming.CLUSTER in s.labels)
        if len(observed_nodes) > 1 and self._own_node is None:
            with translating("asking for the node id"):
                info = await self._engine.info()
            with readable("$"):
                self._own_node = NodeId(info["Swarm"]["NodeID"])
        self._plugins = frozenset().union(*(node.volume_plugins for node in observed_nodes))
        observed = self._read_services(services)
        self._note_names(observed, observed_networks)
        return Observed(
            services=observed,
            tasks=_read_tasks(tasks, services, observed, self._network_names),
            secrets=observed_secrets,
            networks=observed_networks,
            nodes=observed_nodes,
            time=self._engine.clock(),
            own_node=self._own_node if len(observed_nodes) > 1 else None,
        )

    def _note_names(self, services: Iterable[ObservedService], networks: Collection[ObservedNetwork]) -> None:
        self._names.saw("service", (service.name for service in services))
        self._names.saw("secret", self._secret_ids)
        self._names.saw(
            "network",
            [network.name for network in networks if not network.is_remnant],
            going=[network.name for network in networks if network.is_remnant],
        )

    async def progress(self) -> tuple[tuple[ObservedService, ...], tuple[ObservedTask, ...]]:
        """Services and tasks: two reads."""
        services, tasks = await _together(self._engine.list_services, self._engine.list_tasks)
        observed = self._read_services(services)
        return observed, _read_tasks(tasks, services, observed, self._network_names)

    async def running_tasks(self) -> tuple[ObservedTask, ...]:
        """Those that are meant to run: one read."""
        with translating("listing tasks"):
            documents = await self._engine.list_running_tasks()
        return read_each(
            "tasks", documents, lambda document: from_engine.observed_task(document, templates={})
        )

    def _read_services(self, documents: Any) -> tuple[ObservedService, ...]:
        before, now = self._services, {}

        def read(document: Any) -> None:
            identity, version = document["ID"], document["Version"]["Index"]
            known = before.get(identity)
            if known is None or known[0] != version:
                known = (version, from_engine.observed_service(document, self._network_names))
            now[identity] = known

        read_each("services", documents, read)
        self._services = now
        return tuple(service for _, service in now.values())

    async def apply(self, action: SwarmAction) -> None:
        """Carry out one action with one write (two for `Recreate`, and a read before `MarkFailed`)."""
        match action:
            case Create(spec, _):
                await self._make(spec)
            case Update(spec, target, _):
                await self._update(spec, target)
            case Recreate(spec, target, _):
                await self.remove(target)
                await self._create(spec, target)
            case MarkFailed():
                await self._mark(action)
            case Remove(target, _, _):
                await self.remove(target)
            case Stop():
                await self._stop(action)
            case Start(target, expected, _):
                await self._start(target, expected)
            case _:
                assert_never(action)

    @contextmanager
    def _creating(self, kind: Kind, name: str) -> Iterator[None]:
        """Translate errors, and find out what a name that is taken means."""
        what = f"creating {kind} {name}"
        with translating(what):
            try:
                yield
            except EngineError as exc:
                if is_conflict(exc):
                    raise self._names.conflict(kind, name, what) from exc
                raise
        self._names.made(kind, name)

    async def _make(self, spec: Spec) -> None:
        match spec:
            case NetworkSpec():
                with self._creating("network", spec.name):
                    await self._engine.create_network(to_engine.network_document(spec))
            case SecretSpec():
                with self._creating("secret", spec.name):
                    document = to_engine.secret_document(spec)
                    self._secret_ids[spec.name] = await self._engine.create_secret(document)
            case ServiceSpec():
                await self._create(spec)
            case ImageSpec():
                raise Refused(f"image {spec.reference}: an archive is loaded with load()")
            case _:
                assert_never(spec)

    async def _create(self, spec: ServiceSpec, old: ObservedService | None = None) -> None:
        await self._wake_volume_plugins(spec)
        with self._creating("service", spec.name):
            document = to_engine.service_document(
                spec,
                secret_ids=self._ids_of(spec),
                foreign_labels=self._more_labels(old.labels if old is not None else {}),
            )
            await self._engine.create_service(document, to_engine.registry_auth(spec.login))

    async def _update(self, spec: ServiceSpec, target: ObservedService) -> None:
        await self._wake_volume_plugins(spec)
        document = to_engine.service_document(
            spec,
            secret_ids=self._ids_of(spec),
            force_update=target.force_update,
            foreign_labels=self._more_labels(target.labels),
        )
        auth = to_engine.registry_auth(spec.login)
        await self._write(spec.name, target.id, target.version, document, auth)

    def _more_labels(self, live: Mapping[str, str]) -> dict[str, str]:
        """Labels besides those of the spec: somebody else's stay, and ours says who wrote it."""
        return {**_foreign(live), **({naming.WRITER: self._writer} if self._writer else {})}

    async def _write(
        self, name: str, identity: str, version: int, document: Document, auth: str | None
    ) -> None:
        with translating(f"updating service {name}"):
            try:
                await self._engine.update_service(identity, version, document, auth)
            except EngineError as exc:
                if exc.status == 404:
                    raise LostRace(f"updating service {name}: it is gone") from exc
                raise

    async def _mark(self, action: MarkFailed) -> None:
        """Add labels to the live spec, which stays as it is."""
        spec, target = action.spec, action.target
        live = await self._live(target, "marking")
        document = dict(live["Spec"])
        document["Labels"] = {
            **(document.get("Labels") or {}),
            naming.FAILED: spec.fingerprints.whole,
            naming.FAILED_IMAGE: pinned(spec.body.image, None),
            naming.FAILED_REASON: action.reason[:_REASON_LIMIT],
            naming.FAILED_CAUSE: action.cause.value,
            naming.FAILED_TIMES: str(action.times),
        }
        await self._write(spec.name, target.id, target.version, document, None)

    async def _live(self, target: ObservedService, doing: str) -> Document:
        """Return what the engine has now."""
        with translating(f"{doing} service {target.name}"):
            try:
                return await self._engine.inspect_service(target.id)
            except EngineError as exc:
                if exc.status == 404:
                    raise LostRace(f"{doing} service {target.name}: it is gone") from exc
                raise

    async def _stop(self, action: Stop) -> None:
        """Take its tasks, and note their number unless that is noted already."""
        name = action.target.name
        live = await self._live(action.target, "stopping")
        labels = live["Spec"].get("Labels") or {}
        if labels.get(naming.RESTORE, "") != action.expected:
            raise LostRace(f"stopping service {name}: somebody else has stopped or started it")
        replicas = (live["Spec"]["Mode"].get("Replicated") or {}).get("Replicas")
        if replicas is None:
            raise Refused(f"stopping service {name}: it has no number of replicas")
        await self._scale(live, 0, {naming.STOPPED: str(replicas), **labels, naming.RESTORE: action.lease})

    async def _start(self, target: ObservedService, expected: str) -> None:
        """Give it the tasks that it had. One that is not stopped is left as it is."""
        live = await self._live(target, "starting")
        labels = dict(live["Spec"].get("Labels") or {})
        replicas, lease = labels.pop(naming.STOPPED, None), labels.pop(naming.RESTORE, "")
        if replicas is not None:
            if lease != expected:
                raise LostRace(f"starting service {target.name}: somebody else is restoring it")
            await self._scale(live, naming.replicas_noted(replicas), labels)

    async def _scale(self, live: Document, replicas: int, labels: Mapping[str, str]) -> None:
        spec = {**live["Spec"], "Labels": labels, "Mode": {"Replicated": {"Replicas": replicas}}}
        await self._write(spec["Name"], live["ID"], live["Version"]["Index"], spec, None)

    def _ids_of(self, spec: ServiceSpec) -> Mapping[str, str]:
        missing = [file.secret_name for file in spec.body.secrets if file.secret_name not in self._secret_ids]
        if missing:
            raise LostRace(f"service {spec.name}: secret {missing[0]} is gone")
        return self._secret_ids

    async def _wake_volume_plugins(self, spec: ServiceSpec) -> None:
        """A legacy volume plugin counts as present only once somebody asked for it; Swarm places no task before."""
        drivers = {m.driver for m in spec.body.mounts if m.type == "volume"} - {"", "local"} - self._plugins
        if drivers:
            with translating("listing volumes"):
                await self._engine.list_volumes()
            self._plugins |= drivers

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[str]]:
        """Yields what an event of the engine is about, unless it is nothing to us: see `subject_of_event`."""
        with translating("following events"):
            async with self._engine.events() as events:

                async def subjects() -> AsyncGenerator[str, None]:
                    async for event in events:
                        ours = {i for i, (_, service) in self._services.items() if service.cluster}
                        subject = subject_of_event(event, ours, self._own_secrets)
                        if subject is not None:
                            yield subject

                async with aclosing(subjects()) as stream:
                    yield stream


def _foreign(labels: Mapping[str, str]) -> dict[str, str]:
    """Somebody else's labels on a service of ours: they stay."""
    return {key: value for key, value in labels.items() if not key.startswith(naming.PREFIX)}
