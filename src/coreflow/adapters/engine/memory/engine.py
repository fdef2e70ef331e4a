"""A small Swarm in memory, behind the same `Engine` protocol as a real one.

It keeps what decides about a reconciler: version indexes and lost races, previous specs, roll-outs with roll-back,
immutable secrets in use, name conflicts, modes that cannot change, addresses that run out, tasks on several nodes with
their errors, registries with logins and digests, events. The contract suite in `tests/integration` runs on it and on real
engines.

Time is an argument: a clock (trio's by default, so that it follows a mock clock), and `advance` for tests without one.
Nothing happens between calls; every call first lets happen what is due.

It also takes faults: an error before a call or after its effect, a list that is one call old, events lost or doubled, and
a crash after a number of writes (`crash_after`), until `revive`.
"""

import base64
import copy
import gzip
import hashlib
import heapq
import io
import ipaddress
import itertools
import json
import re
import tarfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import trio
from attrs import Factory, define, evolve, field, frozen

from coreflow.adapters.engine.protocol import Document, EngineError, EngineUnreachable

from . import containers, echo

HISTORY = 5
"""How many ended tasks Swarm keeps per slot, unless told otherwise (`docker swarm update --task-history-limit`)."""
MONITOR = 5.0
RESTART_DELAY = 5.0
NANO = 1_000_000_000
SETTLE_LIMIT = 3600.0
IMAGE_SIZE = 1_000_000
_EXIT = re.compile(r"non-zero exit \((\d+)\)")
_ENDED = frozenset({"complete", "failed", "rejected", "shutdown", "orphaned", "remove"})
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When its clock says 0."""


@frozen(kw_only=True)
class Behaviour:
    """What a container of an image does: run, end with a status after a while, or never become healthy.

    One that never becomes healthy is stopped, and ends with its status (killed, if it has none).
    """

    exits: int | None = None
    unhealthy: bool = False
    after: float = 0.1
    """Seconds until it ends or is found unhealthy."""


RUNS = Behaviour()


@define(kw_only=True)
class Registry:
    """A registry: digests by `repository:tag` (without the host), and who may log in."""

    images: dict[str, str] = Factory(dict)
    platforms: dict[str, list[Document]] = Factory(dict)
    """What it tells of an image, by `repository:tag`."""
    login: tuple[str, str] | None = None
    up: bool = True
    errors: dict[str, tuple[int, str]] = Factory(dict)
    """What the engine says when it is asked for a repository, or for any (`*`): see `registries.ERRORS`."""
    seconds: float = 0.0
    """How long it takes to answer."""


@define(kw_only=True)
class Node:
    """A member of the Swarm, with what lies on it."""

    id: str
    hostname: str
    role: str = "worker"
    state: str = "ready"
    availability: str = "active"
    images: set[str] = Factory(set)
    plugins: set[str] = field(factory=lambda: {"local"})
    volumes: dict[str, Document] = Factory(dict)
    address: str = "192.0.2.1"
    cpus: float = 4.0
    memory: int = 16 * 2**30
    os: str = "linux"
    architecture: str = "x86_64"
    """As nodes call it: `aarch64` where images say `arm64`."""


@frozen(kw_only=True)
class Fault:
    """One call that goes wrong. `method` is the name of an `Engine` method, or empty for any."""

    method: str = ""
    when: Literal["before", "after"] = "before"
    error: Exception = field(factory=lambda: EngineUnreachable("connection reset"))
    seconds: float = 0.0
    """How long it takes until it does."""


@define(kw_only=True)
class _Task:
    """One task and what only the engine knows of it."""

    document: Document
    service: str
    slot: object
    spec: Document
    endpoint: Document | None
    networks: tuple[str, ...]
    holds_addresses: bool = False
    node_is_attached: bool = False
    """Whether its node has its own addresses on the task's networks."""

    @property
    def state(self) -> str:
        state: str = self.document["Status"]["State"]
        return state

    @property
    def is_active(self) -> bool:
        return self.document["DesiredState"] in {"running", "ready"} and self.state not in _ENDED

    @property
    def runs(self) -> bool:
        return self.state == "running" and self.document["DesiredState"] == "running"


@define(kw_only=True)
class _RollOut:
    """Swarm replacing the tasks of one service, forwards or backwards."""

    service: str
    backwards: bool
    began: float
    armed: bool = True
    """A second write while it runs disarms the roll-back."""
    fresh: set[str] = Factory(set)
    """Ids of tasks it has made."""
    finishing: bool = False
    over: bool = False


class MemoryEngine:
    """An engine that is a Swarm manager, in memory."""

    def __init__(
        self,
        *,
        nodes: int = 1,
        clock: Callable[[], float] = trio.current_time,
        start_seconds: float = 0.2,
        stop_seconds: float = 0.1,
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.registries: dict[str, Registry] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.calls: list[tuple[str, bool]] = []
        """Every call: its method, and whether it writes."""
        self.faults: deque[Fault] = deque()
        self.stale: Counter[str] = Counter()
        """Lists that answer with what they answered last time, by method name and how often."""
        self.lose_events = 0
        self.double_events = 0
        self.crash_after: int | None = None
        """Crash after so many more writes: that write's answer is lost, and nothing answers until `revive`."""
        self.network_seconds = 0.0
        """How long a new network is listed without driver and addresses."""
        self.is_manager = True
        self.history = HISTORY
        """How many ended tasks are kept per slot."""
        self._crashed = self._panicked = False
        self._clock, self._offset, self._now = clock, 0.0, 0.0
        self._start, self._stop = start_seconds, stop_seconds
        self._ids = itertools.count(1)
        self._index = 10
        self._services: dict[str, Document] = {}
        self._auth: dict[str, str | None] = {}
        self._secrets: dict[str, tuple[Document, bytes]] = {}
        self._networks: dict[str, Document] = {}
        self._going: dict[str, Document] = {}
        self._made_at: dict[str, float] = {}
        self._tasks: dict[str, _Task] = {}
        self._roll_outs: dict[str, _RollOut] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._image_ids: dict[str, str] = {}
        self._last_lists: dict[str, Sequence[Document]] = {}
        self._listeners: list[trio.MemorySendChannel[Document]] = []
        for number in range(1, nodes + 1):
            self.add_node(f"node{number}", role="manager" if number == 1 else "worker")
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            self._make_network({"Name": name, "Driver": driver}, scope="local", subnet=None)
        self._make_network({"Name": "ingress", "Driver": "overlay"}, scope="swarm", subnet="10.0.0.0/24")

    # what a test can arrange and look at

    def add_node(self, hostname: str, role: str = "worker") -> Node:
        """Another member of the Swarm."""
        number = len(self.nodes) + 1
        node = Node(id=self._new_id("node"), hostname=hostname, role=role, address=f"192.0.2.{number}")
        self.nodes[node.id] = node
        return node

    def add_image(self, reference: str, behaviour: Behaviour = RUNS) -> None:
        """An image that every node has and no registry knows."""
        self.behaviours[reference] = behaviour
        for node in self.nodes.values():
            node.images.add(reference)

    def add_registry(self, host: str, *, login: tuple[str, str] | None = None) -> Registry:
        """A registry at `host`, empty."""
        return self.registries.setdefault(host, Registry(login=login))

    def push(self, reference: str, behaviour: Behaviour = RUNS, *, content: str = "") -> str:
        """Put an image into its registry (made if it is not there); its digest, which follows from the content."""
        host, _, path = reference.partition("/")
        if not path:
            raise ValueError("push needs a reference with a registry's host")
        digest = "sha256:" + _digest_of(f"{reference}\0{content}")
        self.add_registry(host).images[path] = digest
        self.behaviours[reference] = behaviour
        self.behaviours[f"{reference}@{digest}"] = behaviour
        return digest

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._offset += seconds
        self._catch_up()

    def settle(self) -> None:
        """Let time pass until nothing more would happen by itself, for an hour of its time at most."""
        deadline = self._time() + SETTLE_LIMIT
        while self._due and self._due[0][0] <= deadline and not self._panicked and not self._is_at_rest():
            self._offset += max(self._due[0][0] - self._time(), 0.0)
            self._catch_up()

    def _is_at_rest(self) -> bool:
        """Only restarts of containers that end again and again are left."""
        if any(not roll_out.over for roll_out in self._roll_outs.values()):
            return False
        return all(task.runs or not task.is_active for task in self._tasks.values()) or all(
            self._ends(task) for task in self._tasks.values() if task.is_active and not task.runs
        )

    def _ends(self, task: _Task) -> bool:
        behaviour = self._behaviour(task)
        return behaviour is None or behaviour.exits is not None or behaviour.unhealthy

    def revive(self) -> None:
        """Answer again after a crash, or after the daemon panicked."""
        self._crashed, self._panicked, self.crash_after = False, False, None

    def secret_payload(self, name: str) -> bytes:
        """The value of a secret, which the API never gives."""
        return next(data for document, data in self._secrets.values() if document["Spec"]["Name"] == name)

    def running_tasks(self, service: str) -> list[Document]:
        """The tasks of a service (by name) that run and are meant to."""
        self._catch_up()
        ids = {key for key, document in self._services.items() if document["Spec"]["Name"] == service}
        return [copy.deepcopy(t.document) for t in self._tasks.values() if t.service in ids and t.runs]

    def container(self, task_id: str) -> Document:
        """What the container of a task was made from: its spec, with every template expanded."""
        task = self._tasks[task_id]
        node = self.nodes[task.document["NodeID"]]
        service = self._services[task.service]["Spec"]["Name"]
        slot = str(task.slot)
        context = containers.Context(
            service_id=task.service,
            service=service,
            node_id=node.id,
            hostname=node.hostname,
            task_id=task_id,
            task=f"{service}.{slot}.{task_id}",
            slot=slot if isinstance(task.slot, int) else "0",
        )
        return containers.expanded(task.spec["ContainerSpec"], context)

    @property
    def reads(self) -> int:
        """Calls so far that change nothing."""
        return sum(not write for _, write in self.calls)

    @property
    def writes(self) -> int:
        """Calls so far that change something."""
        return sum(write for _, write in self.calls)

    # calls

    async def _call(self, method: str, answer: Callable[[], Any], *, write: bool = False) -> Any:
        """One call: faults first, then what is due, then the answer."""
        await trio.lowlevel.checkpoint()
        if self._crashed or self._panicked:
            raise EngineUnreachable("connection refused")
        self.calls.append((method, write))
        fault = self._fault(method)
        if fault is not None:
            await trio.sleep(fault.seconds)
        if fault is not None and fault.when == "before":
            raise fault.error
        self._catch_up()
        if self._panicked:
            raise EngineUnreachable("connection reset")
        if not self.is_manager and method not in {"version", "info"}:
            raise EngineError(
                503, 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join"'
            )
        result = answer()
        if write and self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after <= 0:
                self._crashed = True
                raise EngineUnreachable("connection reset")
        if fault is not None:
            raise fault.error
        return result

    def _fault(self, method: str) -> Fault | None:
        for fault in self.faults:
            if fault.method in {"", method}:
                self.faults.remove(fault)
                return fault
        return None

    async def _list(self, method: str, documents: Callable[[], Sequence[Document]]) -> Sequence[Document]:
        def answer() -> Sequence[Document]:
            if self.stale[method] > 0 and method in self._last_lists:
                self.stale[method] -= 1
                return copy.deepcopy(self._last_lists[method])
            found = copy.deepcopy(list(documents()))
            self._last_lists[method] = copy.deepcopy(found)
            return found

        found: Sequence[Document] = await self._call(method, answer)
        return found

    def clock(self) -> float:
        """Its wall clock, in seconds since the epoch."""
        return _EPOCH.timestamp() + self._time()

    async def version(self) -> Document:
        """`GET /version`."""
        document: Document = await self._call("version", lambda: {"Version": "memory", "ApiVersion": "1.41"})
        return document

    async def info(self) -> Document:
        """`GET /info`."""
        node = next(iter(self.nodes.values()))
        swarm = {"NodeID": node.id, "LocalNodeState": "active", "ControlAvailable": self.is_manager}
        document: Document = await self._call("info", lambda: {"Swarm": swarm, "Name": node.hostname})
        return document

    async def list_services(self) -> Sequence[Document]:
        """`GET /services`."""
        return await self._list("list_services", lambda: list(self._services.values()))

    async def list_running_tasks(self) -> Sequence[Document]:
        """`GET /tasks` with the filter `desired-state=running`."""
        documents = [task.document for task in self._tasks.values()]
        return await self._list(
            "list_running_tasks", lambda: [d for d in documents if d["DesiredState"] == "running"]
        )

    async def list_tasks(self) -> Sequence[Document]:
        """`GET /tasks`."""
        return await self._list("list_tasks", lambda: [task.document for task in self._tasks.values()])

    async def list_secrets(self) -> Sequence[Document]:
        """`GET /secrets`."""
        return await self._list("list_secrets", lambda: [document for document, _ in self._secrets.values()])

    async def list_networks(self) -> Sequence[Document]:
        """`GET /networks`."""
        return await self._list(
            "list_networks",
            lambda: [*map(self._listed_network, self._networks.values()), *self._remnants()],
        )

    def _remnants(self) -> list[Document]:
        """Networks that were removed while a container on them has yet to end: a node's view, with containers."""
        used = {network for task in self._tasks.values() if task.holds_addresses for network in task.networks}
        self._going = {identity: document for identity, document in self._going.items() if identity in used}
        return [{**document, "Containers": {}} for document in self._going.values()]

    def _listed_network(self, document: Document) -> Document:
        """A network as the list shows it: for a moment without what Swarm has yet to find for it."""
        made = self._made_at.get(document["Id"])
        if document["Scope"] != "swarm" or made is None or self._now >= made + self.network_seconds:
            return document
        return {**document, "Driver": "", "IPAM": dict(_BLANK_IPAM)}

    async def list_nodes(self) -> Sequence[Document]:
        """`GET /nodes`."""
        return await self._list("list_nodes", lambda: [_node_document(node) for node in self.nodes.values()])

    async def list_volumes(self) -> Sequence[Document]:
        """`GET /volumes`."""
        node = next(iter(self.nodes.values()))
        return await self._list("list_volumes", lambda: list(node.volumes.values()))

    async def inspect_service(self, service_id: str) -> Document:
        """`GET /services/{id}`, by id or name."""
        document: Document = await self._call(
            "inspect_service", lambda: copy.deepcopy(self._service(service_id))
        )
        return document

    async def create_service(self, spec: Mapping[str, Any], auth: str | None = None) -> str:
        """`POST /services/create`."""
        identity: str = await self._call(
            "create_service", lambda: self._create_service(spec, auth), write=True
        )
        return identity

    async def update_service(
        self, service_id: str, version: int, spec: Mapping[str, Any], auth: str | None = None
    ) -> None:
        """`POST /services/{id}/update`."""
        await self._call(
            "update_service", lambda: self._update_service(service_id, version, spec, auth), write=True
        )

    async def rollback_service(self, service_id: str, version: int) -> None:
        """`POST /services/{id}/update?rollback=previous`: what `docker service rollback` does."""
        await self._call("rollback_service", lambda: self._roll_back_by_hand(service_id, version), write=True)

    async def remove_service(self, service_id: str) -> None:
        """`DELETE /services/{id}`."""
        await self._call("remove_service", lambda: self._remove_service(service_id), write=True)

    async def create_secret(self, spec: Mapping[str, Any]) -> str:
        """`POST /secrets/create`."""
        identity: str = await self._call("create_secret", lambda: self._create_secret(spec), write=True)
        return identity

    async def remove_secret(self, secret_id: str) -> None:
        """`DELETE /secrets/{id}`."""
        await self._call("remove_secret", lambda: self._remove_secret(secret_id), write=True)

    async def create_network(self, config: Mapping[str, Any]) -> str:
        """`POST /networks/create`."""
        identity: str = await self._call("create_network", lambda: self._create_network(config), write=True)
        return identity

    async def inspect_image(self, reference: str) -> Document:
        """`GET /images/{name}/json`."""
        document: Document = await self._call("inspect_image", lambda: self._inspect_image(reference))
        return document

    async def list_images(self) -> Sequence[Document]:
        """`GET /images/json`."""
        return await self._list("list_images", self._listed_images)

    async def list_containers(self) -> Sequence[Document]:
        """`GET /containers/json`: of tasks that have not been forgotten."""
        return await self._list("list_containers", lambda: list(self._containers()))

    async def remove_image(self, reference: str) -> None:
        """`DELETE /images/{name}`."""
        await self._call("remove_image", lambda: self._remove_image(reference), write=True)

    async def inspect_distribution(self, reference: str, auth: str | None = None) -> Document:
        """`GET /distribution/{name}/json`."""
        if (registry := self.registries.get(reference.partition("/")[0])) is not None:
            await trio.sleep(registry.seconds)
        digest = await self._call("inspect_distribution", lambda: self._ask_registry(reference, auth))
        host, _, path = reference.partition("@")[0].partition("/")
        return {"Descriptor": {"digest": digest}, "Platforms": self.registries[host].platforms.get(path)}

    async def load_image(self, archive: AsyncIterator[bytes]) -> Sequence[str]:
        """`POST /images/load`."""
        data = b"".join([piece async for piece in archive])
        loaded: Sequence[str] = await self._call("load_image", lambda: self._load(data), write=True)
        return loaded

    async def tag_image(self, image: str, repository: str, tag: str) -> None:
        """`POST /images/{name}/tag`."""
        await self._call("tag_image", lambda: self._tag(image, f"{repository}:{tag}"), write=True)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Document]]:
        """`GET /events`."""
        await self._call("events", lambda: None)
        send, receive = trio.open_memory_channel[Document](256)
        self._listeners.append(send)
        try:
            yield receive
        finally:
            if send in self._listeners:
                self._listeners.remove(send)
            send.close()
            receive.close()

    def hang_up(self) -> None:
        """End every stream of events, as an engine that restarts does."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    # time

    def _time(self) -> float:
        return self._clock() + self._offset

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._now + seconds, next(self._ids), action))

    def _catch_up(self) -> None:
        """Let everything happen that is due, in its order."""
        now = self._time()
        while self._due and self._due[0][0] <= now and not self._panicked:
            self._now, _, action = heapq.heappop(self._due)
            action()
        self._now = max(self._now, now)

    def _stamp(self) -> str:
        seconds, fraction = divmod(self._now, 1)
        moment = _EPOCH + timedelta(seconds=int(seconds))
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(fraction * NANO):09d}Z"

    def _new_id(self, kind: str) -> str:
        return f"{kind}{next(self._ids):06d}"

    def _touch(self, document: Document) -> None:
        self._index += 1
        document["Version"] = {"Index": self._index}
        document["UpdatedAt"] = self._stamp()

    def _emit(self, kind: str, action: str, identity: str, name: str) -> None:
        event = {"Type": kind, "Action": action, "Actor": {"ID": identity, "Attributes": {"name": name}}}
        times = 1
        if self.lose_events > 0:
            self.lose_events, times = self.lose_events - 1, 0
        elif self.double_events > 0:
            self.double_events, times = self.double_events - 1, 2
        for listener in self._listeners:
            for _ in range(times):
                with suppress(trio.WouldBlock):  # a slow reader misses some: the engine keeps 256, too
                    listener.send_nowait(copy.deepcopy(event))

    # services

    def _service(self, identity: str) -> Document:
        for document in self._services.values():
            if identity in {document["ID"], document["Spec"]["Name"]}:
                return document
        raise EngineError(404, f"service {identity} not found")

    def _network_id(self, name: str) -> str:
        for document in self._networks.values():
            if name in {document["Id"], document["Name"]}:
                if document["Scope"] != "swarm":
                    raise EngineError(
                        403,
                        f"The network {name} cannot be used with services. Only networks scoped to the swarm can be used",
                    )
                identity: str = document["Id"]
                return identity
        raise EngineError(500, f"network {name} not found")

    def _checked(self, spec: Mapping[str, Any]) -> Document:
        stored = echo.stored_service(spec, self._network_id)
        for identity in sorted(echo.secret_ids(stored)):
            if identity not in self._secrets:
                raise echo.invalid(f"secret not found: {identity}")
        return stored

    def _create_service(self, spec: Mapping[str, Any], auth: str | None) -> str:
        echo.check_size(spec)
        stored = self._checked(spec)
        if any(_same_name(document["Spec"]["Name"], stored["Name"]) for document in self._services.values()):
            raise EngineError(
                409,
                f"rpc error: code = AlreadyExists desc = name conflicts with an existing object: service {stored['Name']} already exists",
            )
        self._check_ports(stored, None)
        identity = self._new_id("service")
        document: Document = {
            "ID": identity,
            "CreatedAt": self._stamp(),
            "Spec": stored,
            "Endpoint": {"Spec": {}},
        }
        self._touch(document)
        self._services[identity] = document
        self._auth[identity] = auth
        self._emit("service", "create", identity, stored["Name"])
        self._fill_slots(identity)
        return identity

    def _check_ports(self, spec: Document, own: str | None) -> None:
        """A port of the ingress network belongs to one service."""
        wanted = {
            port.get("PublishedPort")
            for port in (spec.get("EndpointSpec") or {}).get("Ports") or ()
            if port["PublishMode"] == "ingress"
        }
        for identity, other in self._services.items():
            for port in (other["Spec"].get("EndpointSpec") or {}).get("Ports") or ():
                if (
                    identity != own
                    and port["PublishMode"] == "ingress"
                    and port.get("PublishedPort") in wanted
                ):
                    name = other["Spec"]["Name"]
                    raise echo.invalid(
                        f"port '{port['PublishedPort']}' is already in use by service '{name}' ({identity}) as an ingress port"
                    )

    def _update_service(self, identity: str, version: int, spec: Mapping[str, Any], auth: str | None) -> None:
        document = self._service(identity)
        if document["Version"]["Index"] != version:
            raise EngineError(500, "rpc error: code = Unknown desc = update out of sequence")
        echo.check_size(spec, document["Spec"])
        stored, live = self._checked(spec), document["Spec"]
        if stored["Name"] != live["Name"]:
            raise EngineError(
                501, "rpc error: code = Unimplemented desc = renaming services is not supported"
            )
        if echo.is_global(stored) != echo.is_global(live):
            raise EngineError(
                501, "rpc error: code = Unimplemented desc = service mode change is not allowed"
            )
        self._check_ports(stored, document["ID"])
        if auth is not None:
            self._auth[document["ID"]] = auth
        self._write(document, stored, previous=live)
        self._begin(document["ID"], backwards=False)

    def _write(self, document: Document, spec: Document, previous: Document | None) -> None:
        """A write raises the version, keeps the last spec as the previous one, and forgets the last roll-out."""
        document["Spec"] = spec
        if previous is None:
            document.pop("PreviousSpec", None)
        else:
            document["PreviousSpec"] = copy.deepcopy(previous)
        document.pop("UpdateStatus", None)
        self._touch(document)
        self._emit("service", "update", document["ID"], spec["Name"])

    def _roll_back_by_hand(self, identity: str, version: int) -> None:
        document = self._service(identity)
        if document["Version"]["Index"] != version:
            raise EngineError(500, "rpc error: code = Unknown desc = update out of sequence")
        if "PreviousSpec" not in document:
            raise EngineError(
                400,
                f"rpc error: code = FailedPrecondition desc = service {document['ID']} does not have a previous spec",
            )
        live = document["Spec"]
        self._write(document, document["PreviousSpec"], previous=live)
        document["UpdateStatus"] = {
            "State": "rollback_started",
            "StartedAt": self._stamp(),
            "Message": "manually requested rollback",
        }
        self._begin(document["ID"], backwards=True)

    def _remove_service(self, identity: str) -> None:
        document = self._service(identity)
        del self._services[document["ID"]]
        self._roll_outs.pop(document["ID"], None)
        for task in self._tasks_of(document["ID"]):
            self._take_away(task)
        self._emit("service", "remove", document["ID"], document["Spec"]["Name"])

    # tasks

    def _tasks_of(self, service: str) -> list[_Task]:
        return [task for task in self._tasks.values() if task.service == service]

    def _slots(self, service: str) -> list[object]:
        spec = self._services[service]["Spec"]
        if echo.is_global(spec):
            return [node.id for node in self._usable_nodes(spec)]
        return list(range(1, spec["Mode"]["Replicated"]["Replicas"] + 1))

    def _usable_nodes(self, spec: Document) -> list[Node]:
        constraints = (spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or ()
        return [
            node
            for node in self.nodes.values()
            if node.state == "ready"
            and node.availability == "active"
            and all(_meets(node, c) for c in constraints)
        ]

    def _fill_slots(self, service: str) -> None:
        """Make tasks for slots that have none, and end those of slots that are gone."""
        slots = self._slots(service)
        active: dict[object, list[_Task]] = {}
        for task in self._tasks_of(service):
            if task.is_active:
                active.setdefault(task.slot, []).append(task)
        for slot, tasks in active.items():
            if slot not in slots:
                for task in tasks:
                    self._take_away(task)
        for slot in slots:
            if slot not in active:
                self._make_task(service, slot)

    def _make_task(self, service: str, slot: object, delay: float = 0.0) -> _Task:
        spec = echo.task_spec(self._services[service]["Spec"])
        document: Document = {
            "ID": self._new_id("task"),
            "CreatedAt": self._stamp(),
            "Labels": {},
            "Spec": copy.deepcopy(spec),
            "ServiceID": service,
            "Status": {"State": "new", "Timestamp": self._stamp(), "Message": "created"},
            "DesiredState": "ready" if delay else "running",
        }
        if isinstance(slot, int):
            document["Slot"] = slot
        self._touch(document)
        networks = tuple(network["Target"] for network in spec.get("Networks") or ())
        endpoint = self._services[service]["Spec"].get("EndpointSpec")
        task = _Task(
            document=document, service=service, slot=slot, spec=spec, endpoint=endpoint, networks=networks
        )
        self._tasks[document["ID"]] = task
        self._trim_history(service, slot)
        self._later(delay, lambda: self._schedule(task))
        return task

    def _trim_history(self, service: str, slot: object) -> None:
        ended = [task for task in self._tasks_of(service) if task.slot == slot and not task.is_active]
        for task in ended[: max(len(ended) - max(self.history - 1, 0), 0)]:
            del self._tasks[task.document["ID"]]

    def _set(self, task: _Task, state: str, message: str, error: str = "") -> None:
        status: Document = {"State": state, "Timestamp": self._stamp(), "Message": message}
        if error:
            status["Err"] = error
        if state in {"running", "complete", "failed"}:
            exited = _EXIT.search(error)
            status["ContainerStatus"] = {"ExitCode": int(exited[1]) if exited else 0}
        task.document["Status"] = status
        self._touch(task.document)
        if state in _ENDED:
            self._free(task)

    def _schedule(self, task: _Task) -> None:
        """`new` -> an address -> `pending` -> a node -> `preparing`. What cannot go on tries again later."""
        if not task.is_active or task.document["ID"] not in self._tasks:
            return
        task.document["DesiredState"] = "running"
        if not self._take_addresses(task):
            self._set(task, "new", "created")
            self._later(1.0, lambda: self._schedule(task))
            return
        node, error = self._choose(task)
        if node is None:
            self._set(task, "pending", "pending task scheduling", error)
            self._later(1.0, lambda: self._schedule(task))
            return
        task.document["NodeID"] = node.id
        self._set(task, "preparing", "preparing")
        self._later(self._start / 2, lambda: self._prepare(task, node))

    def _choose(self, task: _Task) -> tuple[Node | None, str]:
        """The usable node with the fewest tasks, or why there is none."""
        service = self._services[task.service]["Spec"]
        usable = self._usable_nodes(service)
        if isinstance(task.slot, str):
            usable = [node for node in usable if node.id == task.slot]
        total = len(self.nodes)
        if not usable:
            return None, f"no suitable node (scheduling constraints not satisfied on {_nodes(total)})"
        fitting = [node for node in usable if _has_platform(node, task.spec)]
        if not fitting:
            return None, self._no_platform(task, total, usable)
        usable = fitting
        drivers = {
            ((mount.get("VolumeOptions") or {}).get("DriverConfig") or {}).get("Name") or "local"
            for mount in task.spec["ContainerSpec"].get("Mounts") or ()
            if mount["Type"] == "volume"
        }
        reserved = (task.spec.get("Resources") or {}).get("Reservations") or {}
        roomy = [
            node
            for node in usable
            if (reserved.get("NanoCPUs") or 0) <= node.cpus * NANO
            and (reserved.get("MemoryBytes") or 0) <= node.memory
        ]
        if not roomy:
            return None, f"no suitable node (insufficient resources on {_nodes(len(usable))})"
        usable = roomy
        equipped = [node for node in usable if drivers <= node.plugins]
        if not equipped:
            return None, f"no suitable node (missing plugin on {_nodes(len(usable))})"
        most = (task.spec.get("Placement") or {}).get("MaxReplicas") or 0
        load = Counter(
            t.document.get("NodeID") for t in self._tasks_of(task.service) if t.is_active and t is not task
        )
        free = [node for node in equipped if not most or load[node.id] < most]
        if not free:
            return None, "no suitable node (max replicas per node limit exceed)"
        busy = Counter(t.document.get("NodeID") for t in self._tasks.values() if t.is_active)
        return min(free, key=lambda node: (load[node.id], busy[node.id], node.hostname)), ""

    @staticmethod
    def _no_platform(task: _Task, total: int, usable: list[Node]) -> str:
        """What Swarm says of a task whose image fits no node. A global service's task is told about its own node alone."""
        text = f"unsupported platform on {_nodes(len(usable))}"
        if isinstance(task.slot, str):
            task.document["NodeID"] = task.slot
            return text
        others = total - len(usable)
        return f"no suitable node ({text}{f'; scheduling constraints not satisfied on {_nodes(others)}' if others else ''})"

    def _prepare(self, task: _Task, node: Node) -> None:
        if not task.is_active or task.document["ID"] not in self._tasks:
            return
        if not self._attach_node(task):
            self._later(1.0, lambda: self._prepare(task, node))
            return
        image: str = task.spec["ContainerSpec"]["Image"]
        if image not in node.images and not self._pull(task, node, image):
            self._end(task, "rejected", "preparing", f"No such image: {image}")
            return
        container = self.container(task.document["ID"])
        found = containers.obstacle(container, task.spec.get("Resources") or {}, node.cpus)
        if found is not None:
            state, error = found
            self._end(task, state, "preparing" if state == "rejected" else "starting", error)
            return
        self._set(task, "starting", "starting")
        for mount in container.get("Mounts") or ():
            if mount["Type"] == "volume":
                self._make_volume(node, mount)
        behaviour = self._behaviour(task) or RUNS
        probe = containers.probe(container.get("Healthcheck"))
        if probe == "never":
            return
        if probe == "panics":
            self._later(behaviour.after, lambda: self._panic(task, node))
            return
        if probe == "fails":
            behaviour = evolve(behaviour, unhealthy=True, exits=0)
        elif probe in {"none", "passes"} and behaviour.unhealthy:
            behaviour = RUNS
        missing = sorted(echo.secret_ids({"TaskTemplate": task.spec}) - self._secrets.keys())
        if missing:
            text = f"unable to get secret from secret store: secret {missing[0]} not found"
            self._end(task, "failed", "starting", f"starting container failed: {text}")
        elif behaviour.unhealthy and behaviour.exits == 0:
            self._later(behaviour.after, lambda: self._end(task, "complete", "finished", ""))
        elif behaviour.unhealthy:
            error = f"task: non-zero exit ({behaviour.exits or 137}): dockerexec: unhealthy container"
            self._later(behaviour.after, lambda: self._end(task, "failed", "started", error))
        else:
            self._later(self._start / 2, lambda: self._run(task, behaviour))

    def _panic(self, task: _Task, node: Node) -> None:
        """The daemon of a node is gone with all that it knew of the container; once back, Swarm starts another one."""
        if not task.is_active or task.document["ID"] not in self._tasks:
            return
        if node is next(iter(self.nodes.values())):
            self._panicked = True
        else:
            node.state = "down"
        error = "task: non-zero exit (137)"
        self._later(self._stop, lambda: self._end(task, "failed", "started", error))

    def _pull(self, task: _Task, node: Node, image: str) -> bool:
        """Fetch an image from its registry, with the login of the service."""
        try:
            self._ask_registry(image, self._auth.get(task.service))
        except EngineError:
            return False
        node.images.add(image)
        return True

    def _behaviour(self, task: _Task) -> Behaviour | None:
        image: str = task.spec["ContainerSpec"]["Image"]
        return self.behaviours.get(image) or self.behaviours.get(image.partition("@")[0])

    @staticmethod
    def _make_volume(node: Node, mount: Document) -> None:
        """A volume is made where a task first needs it, and never changed afterwards."""
        options = mount.get("VolumeOptions") or {}
        driver = options.get("DriverConfig") or {}
        node.volumes.setdefault(
            mount["Source"],
            {
                "Name": mount["Source"],
                "Driver": driver.get("Name") or "local",
                "Options": driver.get("Options") or None,
                "Labels": options.get("Labels") or None,
            },
        )

    def _run(self, task: _Task, behaviour: Behaviour) -> None:
        if not task.is_active or task.document["ID"] not in self._tasks:
            return
        self._set(task, "running", "started")
        self._emit("container", "start", task.document["ID"], task.service)
        if behaviour.exits is not None:
            status = behaviour.exits
            error = f"task: non-zero exit ({status})" if status else ""
            state = "failed" if status else "complete"
            self._later(
                behaviour.after, lambda: self._end(task, state, "started" if status else "finished", error)
            )
        self._poke(task.service)

    def _end(self, task: _Task, state: str, message: str, error: str) -> None:
        """A task ended by itself: tell the roll-out, and start another one in its place."""
        if not task.is_active or task.document["ID"] not in self._tasks:
            return
        self._set(task, state, message, error)
        task.document["DesiredState"] = "shutdown"
        self._emit("container", "die", task.document["ID"], task.service)
        if task.service not in self._services:
            return
        self._failed(task)
        policy = task.spec.get("RestartPolicy") or {}
        condition = policy.get("Condition", "any")
        restart = condition == "any" or (condition == "on-failure" and state != "complete")
        occupied = any(t.slot == task.slot and t.is_active for t in self._tasks_of(task.service))
        if restart and not occupied and task.slot in self._slots(task.service):
            again = self._make_task(task.service, task.slot, policy.get("Delay", RESTART_DELAY * NANO) / NANO)
            roll_out = self._roll_outs.get(task.service)
            if roll_out is not None and not roll_out.over and self._is_clean(again):
                roll_out.fresh.add(again.document["ID"])

    def fail_task(self, identity: str, error: str = "task: non-zero exit (137)") -> None:
        """End a running task from outside, as `docker kill` does."""
        self._catch_up()
        self._end(self._tasks[identity], "failed", "started", error)

    def _shut_down(self, task: _Task) -> None:
        if task.document["DesiredState"] != "shutdown":
            task.document["DesiredState"] = "shutdown"
            self._touch(task.document)
            if task.state in {"new", "pending"}:
                self._set(task, "shutdown", "shutdown")
            else:
                self._later(self._stop, lambda: self._set(task, "shutdown", "shutdown"))

    def _take_away(self, task: _Task) -> None:
        """End a task that nobody wants any more; then it vanishes."""
        task.document["DesiredState"] = "remove"
        self._touch(task.document)
        self._later(self._stop, lambda: self._forget(task))

    def _forget(self, task: _Task) -> None:
        self._free(task)
        self._tasks.pop(task.document["ID"], None)

    # roll-outs

    def _begin(self, service: str, *, backwards: bool) -> None:
        """Start replacing what differs from the spec; a label alone replaces nothing."""
        running = self._roll_outs.get(service)
        interrupted = running is not None and not running.over
        if running is not None:
            running.over = True
        for task in list(self._tasks_of(service)):
            if (
                task.document["DesiredState"] == "remove"
            ):  # forgotten at the next write, be its container gone or not
                self._forget(task)
        self._fill_slots(service)
        document = self._services[service]
        if not self._dirty(service) and not backwards:
            if interrupted:
                self._roll_outs.pop(service, None)
            return
        roll_out = _RollOut(service=service, backwards=backwards, began=self._now, armed=not interrupted)
        self._roll_outs[service] = roll_out
        if not backwards:
            document["UpdateStatus"] = {
                "State": "updating",
                "StartedAt": self._stamp(),
                "Message": "update in progress",
            }
        self._poke(service)

    def _dirty(self, service: str) -> list[_Task]:
        """Active tasks that have to be replaced."""
        return [task for task in self._tasks_of(service) if task.is_active and not self._is_clean(task)]

    def _is_clean(self, task: _Task) -> bool:
        """Whether a task may stay: another placement does not matter where its node meets it."""
        spec = self._services[task.service]["Spec"]
        wanted = echo.task_spec(spec)
        if task.endpoint != spec.get("EndpointSpec"):
            return False
        if task.spec == wanted:
            return True
        node = task.document.get("NodeID")
        return (
            task.spec.get("Placement") != wanted.get("Placement")
            and {**task.spec, "Placement": wanted.get("Placement")}
            == {**wanted, "Placement": wanted.get("Placement")}
            and (node is None or node in {usable.id for usable in self._usable_nodes(spec)})
        )

    def _policy(self, roll_out: _RollOut) -> Document:
        spec = self._services[roll_out.service]["Spec"]
        policy: Document = spec.get("RollbackConfig" if roll_out.backwards else "UpdateConfig") or {}
        return policy

    def _poke(self, service: str) -> None:
        """Go on with a roll-out as far as its policy allows."""
        roll_out = self._roll_outs.get(service)
        if roll_out is None or roll_out.over or service not in self._services:
            return
        policy = self._policy(roll_out)
        start_first = policy.get("Order") == "start-first"
        active = [task for task in self._tasks_of(service) if task.is_active]
        clean = {task.slot for task in active if self._is_clean(task) and task.runs}
        for task in active:
            if task.slot in clean and not self._is_clean(task):
                self._shut_down(task)
        coming = [task for task in active if self._is_clean(task) and not task.runs]
        roll_out.fresh |= {task.document["ID"] for task in coming}
        waiting = {task.slot for task in coming}
        dirty = [task for task in self._dirty(service) if task.slot not in waiting]
        room = (policy.get("Parallelism") or len(dirty) or 1) - len(waiting)
        for task in dirty[: max(room, 0)]:
            if not start_first:
                self._shut_down(task)
            fresh = self._make_task(service, task.slot)
            roll_out.fresh.add(fresh.document["ID"])
            waiting.add(task.slot)
        if not waiting and not self._dirty(service) and not roll_out.finishing:
            roll_out.finishing = True
            monitor = policy.get("Monitor", MONITOR * NANO) / NANO
            self._later(monitor, lambda: self._finish(roll_out))

    def _finish(self, roll_out: _RollOut) -> None:
        if roll_out.over or roll_out.service not in self._services:
            return
        roll_out.over = True
        document = self._services[roll_out.service]
        state, message = (
            ("rollback_completed", "rollback completed")
            if roll_out.backwards
            else ("completed", "update completed")
        )
        started = (document.get("UpdateStatus") or {}).get("StartedAt", self._stamp())
        document["UpdateStatus"] = {
            "State": state,
            "StartedAt": started,
            "CompletedAt": self._stamp(),
            "Message": message,
        }
        self._touch(document)
        self._emit("service", "update", document["ID"], document["Spec"]["Name"])

    def _failed(self, task: _Task) -> None:
        """A task that the roll-out made has failed: do what the policy says."""
        roll_out = self._roll_outs.get(task.service)
        if roll_out is None or roll_out.over or task.document["ID"] not in roll_out.fresh:
            return
        action = self._policy(roll_out).get("FailureAction", "pause")
        document = self._services[task.service]
        status = document["UpdateStatus"]
        cause = f"due to failure or early termination of task {task.document['ID']}"
        if action == "continue":
            self._poke(task.service)
            return
        roll_out.over = True
        if action == "rollback" and not roll_out.backwards and roll_out.armed and "PreviousSpec" in document:
            document["Spec"] = document.pop("PreviousSpec")
            document["UpdateStatus"] = {
                **status,
                "State": "rollback_started",
                "Message": f"update rolled back {cause}",
            }
            self._touch(document)
            self._emit("service", "update", document["ID"], document["Spec"]["Name"])
            self._later(0.0, lambda: self._begin(task.service, backwards=True))
        elif action == "rollback" and not roll_out.armed:
            document["UpdateStatus"] = {**status, "State": "updating", "Message": "update in progress"}
        else:
            state = "rollback_paused" if roll_out.backwards else "paused"
            document["UpdateStatus"] = {**status, "State": state, "Message": f"update paused {cause}"}
            self._touch(document)

    # addresses

    def _capacity(self, network: Document) -> int:
        """Addresses for tasks, services and nodes: not the gateway, not the first and the last one."""
        return sum(int(ipaddress.ip_network(s, strict=False).num_addresses) - 3 for s in _subnets(network))

    def _used(self, network: str) -> int:
        holders = [task for task in self._tasks.values() if task.holds_addresses and network in task.networks]
        tasks = len(holders) + len({task.document["NodeID"] for task in holders if task.node_is_attached})
        virtual = sum(
            (document["Spec"].get("EndpointSpec") or {}).get("Mode", "vip") == "vip"
            and any(n["Target"] == network for n in document["Spec"]["TaskTemplate"].get("Networks") or ())
            for document in self._services.values()
        )
        return int(tasks + virtual)

    def _attach_node(self, task: _Task) -> bool:
        """A node that runs a task on a network takes an address there, too."""
        if not task.node_is_attached:
            node = task.document["NodeID"]
            for network in task.networks:
                attached = any(
                    other.node_is_attached and network in other.networks and other.document["NodeID"] == node
                    for other in self._tasks.values()
                )
                if not attached and self._used(network) >= self._capacity(self._networks[network]):
                    return False
            task.node_is_attached = True
        return True

    def _take_addresses(self, task: _Task) -> bool:
        if task.holds_addresses:
            return True
        if any(self._used(network) >= self._capacity(self._networks[network]) for network in task.networks):
            return False
        attachments = []
        for network in task.networks:
            document = self._networks[network]
            subnet = ipaddress.ip_network(document["IPAM"]["Config"][0]["Subnet"])
            taken = {
                address.partition("/")[0]
                for other in self._tasks.values()
                if other.holds_addresses
                for attachment in other.document.get("NetworksAttachments") or ()
                if attachment["Network"]["ID"] == network
                for address in attachment["Addresses"]
            }
            host = next(str(h) for h in itertools.islice(subnet.hosts(), 1, None) if str(h) not in taken)
            attachments.append(
                {
                    "Network": {"ID": network, "Spec": {"Name": document["Name"]}},
                    "Addresses": [f"{host}/{subnet.prefixlen}"],
                }
            )
        task.document["NetworksAttachments"] = attachments
        task.holds_addresses = True
        return True

    @staticmethod
    def _free(task: _Task) -> None:
        task.holds_addresses = task.node_is_attached = False

    # secrets and networks

    def _create_secret(self, spec: Mapping[str, Any]) -> str:
        data = base64.b64decode(spec.get("Data") or "")
        echo.check_secret(spec, len(data))
        name = spec["Name"]
        if any(_same_name(document["Spec"]["Name"], name) for document, _ in self._secrets.values()):
            raise EngineError(409, f"rpc error: code = AlreadyExists desc = secret {name} already exists")
        identity = self._new_id("secret")
        document: Document = {
            "ID": identity,
            "CreatedAt": self._stamp(),
            "Spec": {"Name": name, "Labels": dict(spec.get("Labels") or {})},
        }
        self._touch(document)
        self._secrets[identity] = (document, data)
        self._emit("secret", "create", identity, name)
        return identity

    def _remove_secret(self, identity: str) -> None:
        if identity not in self._secrets:
            raise EngineError(404, f"rpc error: code = NotFound desc = secret {identity} not found")
        name = self._secrets[identity][0]["Spec"]["Name"]
        users = [d["Spec"]["Name"] for d in self._services.values() if identity in echo.secret_ids(d["Spec"])]
        if users:
            noun = "service" if len(users) == 1 else "services"
            raise echo.invalid(
                f"secret '{name}' is in use by the following {noun}: {', '.join(sorted(users))}"
            )
        del self._secrets[identity]
        self._emit("secret", "remove", identity, name)

    def _create_network(self, config: Mapping[str, Any]) -> str:
        name = config["Name"]
        if any(document["Name"] == name for document in (*self._networks.values(), *self._remnants())):
            raise EngineError(409, f"network with name {name} already exists")
        swarm_wide = [d["Name"] for d in self._networks.values() if d["Scope"] == "swarm"]
        if config.get("Driver") == "overlay" and any(_same_name(other, name) for other in swarm_wide):
            raise EngineError(500, "rpc error: code = Unknown desc = name conflicts with an existing object")
        wanted = ((config.get("IPAM") or {}).get("Config") or [{}])[0].get("Subnet")
        taken = [
            ipaddress.ip_network(s, strict=False)
            for document in self._networks.values()
            for s in _subnets(document)
        ]
        if wanted is not None:
            mine = ipaddress.ip_network(wanted, strict=False)
            if any(mine.overlaps(other) for other in taken):  # made all the same, and useless
                identity = self._make_network({**config, "Driver": ""}, scope="swarm", subnet=None)
                self._networks[identity]["IPAM"] = dict(_BLANK_IPAM)
                self._emit("network", "create", identity, name)
                return identity
        else:
            wanted = next(
                f"10.0.{number}.0/24"
                for number in itertools.count(1)
                if not any(ipaddress.ip_network(f"10.0.{number}.0/24").overlaps(other) for other in taken)
            )
        scope = "swarm" if config.get("Driver") == "overlay" else "local"
        identity = self._make_network(config, scope=scope, subnet=wanted)
        self._made_at[identity] = self._now
        self._emit("network", "create", identity, name)
        return identity

    def _make_network(self, config: Mapping[str, Any], *, scope: str, subnet: str | None) -> str:
        identity = self._new_id("network")
        self._networks[identity] = {
            "Id": identity,
            "Name": config["Name"],
            "Created": self._stamp(),
            "Scope": scope,
            "Driver": config.get("Driver", "bridge"),
            "Attachable": bool(config.get("Attachable")),
            "Labels": dict(config.get("Labels") or {}),
            "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet}] if subnet else []},
        }
        return identity

    async def remove_network(self, identity: str) -> None:
        """`DELETE /networks/{id}`."""
        await self._call("remove_network", lambda: self._remove_network(identity), write=True)

    def _remove_network(self, identity: str) -> None:
        network = self._network_id(identity)
        for document in self._services.values():
            if any(n["Target"] == network for n in document["Spec"]["TaskTemplate"].get("Networks") or ()):
                raise EngineError(
                    400,
                    f"rpc error: code = FailedPrecondition desc = network {network} is in use by service {document['ID']}",
                )
        self._going[network] = self._networks.pop(network)
        self._emit("network", "remove", network, self._going[network]["Name"])

    # images

    def _inspect_image(self, reference: str) -> Document:
        node = next(iter(self.nodes.values()))
        if reference not in node.images:
            if not echo.is_looked_up(reference):
                raise EngineError(400, "invalid reference format")
            raise EngineError(404, f"No such image: {reference}")
        host, _, path = reference.partition("/")
        digest = self.registries[host].images.get(path) if host in self.registries else None
        repository = reference.rpartition(":")[0]
        digests = [f"{repository}@{digest}"] if digest else []
        identity = self._image_id(reference)
        names = [
            name
            for name in sorted(node.images)
            if self._image_id(name) == identity and not name.startswith("sha256:")
        ]
        return {"Id": identity, "RepoTags": names, "RepoDigests": digests}

    def _listed_images(self) -> list[Document]:
        names: dict[str, list[str]] = {}
        for reference in sorted(next(iter(self.nodes.values())).images):
            tags = names.setdefault(self._image_id(reference), [])
            if not reference.startswith("sha256:") and "@" not in reference:
                tags.append(reference)
        return [{"Id": identity, "RepoTags": tags, "Size": IMAGE_SIZE} for identity, tags in names.items()]

    def _containers(self) -> Iterator[Document]:
        node = next(iter(self.nodes.values()))
        for task in self._tasks.values():
            if task.document.get("NodeID") == node.id and task.state not in {
                "new",
                "pending",
                "preparing",
                "rejected",
            }:
                image = task.spec["ContainerSpec"]["Image"]
                yield {"Id": task.document["ID"], "Image": image, "ImageID": self._image_id(image)}

    def _remove_image(self, reference: str) -> None:
        node = next(iter(self.nodes.values()))
        if reference not in node.images:
            raise EngineError(404, f"No such image: {reference}")
        identity = self._image_id(reference)
        others = [name for name in node.images - {reference} if self._image_id(name) == identity]
        user = next((c["Id"] for c in self._containers() if c["ImageID"] == identity), None)
        if user is not None and not others:
            text = f'conflict: unable to remove repository reference "{reference}" (must force)'
            raise EngineError(
                409, f"{text} - container {user} is using its referenced image {identity[7:19]}"
            )
        node.images.discard(reference)
        self._image_ids.pop(reference, None)

    def _image_id(self, reference: str) -> str:
        if reference.startswith("sha256:"):
            return reference
        return self._image_ids.get(reference, f"sha256:{_digest_of(reference)}")

    def _ask_registry(self, reference: str, auth: str | None) -> str:
        """The digest of a reference; refuses as the engine passes on what a registry says."""
        if not echo.is_looked_up(reference):
            raise EngineError(400, "invalid reference format")
        name, _, pinned = reference.partition("@")
        host, _, path = name.partition("/")
        registry = self.registries.get(host)
        if registry is None or not registry.up:
            raise EngineError(500, f'Get "https://{host}/v2/": dial tcp: connect: connection refused')
        error = registry.errors.get(path.rpartition(":")[0]) or registry.errors.get("*")
        if error is not None:
            raise EngineError(*error)
        if registry.login is not None:
            if auth is None:
                raise EngineError(500, f'Get "https://{host}/v2/": no basic auth credentials')
            login = json.loads(base64.urlsafe_b64decode(auth))
            if (login.get("username"), login.get("password")) != registry.login:
                raise EngineError(401, "unauthorized: authentication required")
        digest = registry.images.get(path)
        if digest is None or (pinned and pinned not in set(registry.images.values())):
            raise EngineError(404, f"manifest unknown: manifest unknown for {path}")
        return pinned or digest

    def _load(self, data: bytes) -> list[str]:
        """Read a `docker save` archive; a container of its image runs."""
        try:
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                member = archive.extractfile("manifest.json")
                manifest = json.load(member) if member is not None else []
        except (tarfile.TarError, KeyError, ValueError, OSError, EOFError) as exc:
            raise EngineError(
                400, "Error processing tar file(exit status 1): archive/tar: invalid tar header"
            ) from exc
        loaded = [
            tag
            for entry in manifest
            for tag in (entry.get("RepoTags") or [f"sha256:{_digest_of(entry['Config'])}"])
        ]
        node = next(iter(self.nodes.values()))
        for tag in loaded:
            node.images.add(tag)
            self.behaviours.setdefault(tag, RUNS)
        return loaded

    def _tag(self, image: str, reference: str) -> None:
        node = next(iter(self.nodes.values()))
        named = sorted(name for name in node.images if image in {name, self._image_id(name)})
        if not named:
            raise EngineError(404, f"No such image: {image}")
        behaviour = self.behaviours.get(image, self.behaviours.get(named[0], RUNS))
        node.images.add(reference)
        self._image_ids[reference] = self._image_id(image)
        self.behaviours[reference] = behaviour


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _same_name(one: str, other: str) -> bool:
    """SwarmKit compares names without case (measured on 20.10 and 26.1)."""
    return one.lower() == other.lower()


def _subnets(network: Document) -> Iterator[str]:
    for config in network["IPAM"]["Config"] or ():
        yield config["Subnet"]


def _nodes(number: int) -> str:
    return f"{number} node{'' if number == 1 else 's'}"


def _meets(node: Node, constraint: str) -> bool:
    """Whether a node meets a placement constraint such as `node.role==manager`."""
    key, operator, value = constraint.replace(" ", "").partition("!=" if "!=" in constraint else "==")
    known = {"node.id": node.id, "node.hostname": node.hostname, "node.role": node.role}
    return (known.get(key) == value) == (operator == "==")


_BLANK_IPAM: Document = {"Driver": "", "Options": None, "Config": None}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _has_platform(node: Node, template: Document) -> bool:
    """Whether a node is of one of the platforms that a task may run on; none named means any."""
    platforms = (template.get("Placement") or {}).get("Platforms") or ()
    mine = (node.os, _ARCHITECTURES.get(node.architecture, node.architecture))
    return not platforms or any(
        (p.get("OS") or mine[0], _ARCHITECTURES.get(p.get("Architecture"), p.get("Architecture")) or mine[1])
        == mine
        for p in platforms
    )


def _node_document(node: Node) -> Document:
    return {
        "ID": node.id,
        "Version": {"Index": 1},
        "Spec": {"Role": node.role, "Availability": node.availability, "Labels": {}},
        "Description": {
            "Hostname": node.hostname,
            "Resources": {"NanoCPUs": int(node.cpus * NANO), "MemoryBytes": node.memory},
            "Platform": {"Architecture": node.architecture, "OS": node.os},
            "Engine": {
                "EngineVersion": "memory",
                "Plugins": [{"Type": "Volume", "Name": name} for name in sorted(node.plugins)],
            },
        },
        "Status": {"State": node.state, "Addr": node.address},
    }
