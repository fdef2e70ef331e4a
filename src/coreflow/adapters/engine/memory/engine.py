"""The engine in memory: the methods of the `Engine` protocol, each over the room that knows, and what tests arrange."""

import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from coreflow.adapters.engine.protocol import Document

from . import nodes as members
from .agent import Agent, Listener
from .calls import LOCKED, Calls
from .conditions import RUNS, Behaviour, Conditions, Registry
from .images import Images
from .networks import Networks
from .nodes import Node
from .roll_outs import RollOuts
from .secrets import Secrets
from .services import Services
from .store import Store
from .tasks import Tasks
from .world import World


class MemoryEngine(Conditions):
    """An engine that is a Swarm manager, in memory.

    `store` is for looking at what it keeps; what goes in and out by the API are copies.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        clock: Callable[[], float] = trio.current_time,
        start_seconds: float = 0.2,
        stop_seconds: float = 0.1,
    ) -> None:
        super().__init__(start_seconds=start_seconds, stop_seconds=stop_seconds)
        self.store = Store()
        world = self._world = World(self, clock)
        self._calls = Calls(self, world)
        self._images = Images(self, self.store)
        self._networks = Networks(self, world, self.store)
        self._secrets = Secrets(world, self.store)
        listener = Listener(
            running=lambda task: self._roll_outs.poke(task.service),
            ended=lambda task: self._roll_outs.ended(task),
        )
        self._agent = Agent(self, world, self.store, self._images, listener)
        self._tasks = Tasks(self, world, self.store, self._agent)
        self._roll_outs = RollOuts(self, world, self.store, self._agent, self._tasks)
        self._services = Services(self, world, self.store, self._networks, self._tasks, self._roll_outs)
        for number in range(1, nodes + 1):
            self.add_node(f"node{number}", role="manager" if number == 1 else "worker")
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            self._networks.make({"Name": name, "Driver": driver}, scope="local", subnet=None)
        self._networks.make(
            {"Name": "ingress", "Driver": "overlay", "Ingress": True}, scope="swarm", subnet="10.0.0.0/24"
        )

    # what a test can arrange and look at

    def add_node(self, hostname: str, role: str = "worker") -> Node:
        """Another member of the Swarm."""
        number = len(self.nodes) + 1
        node = Node(id=self._world.new_id("node"), hostname=hostname, role=role, address=f"192.0.2.{number}")
        self.nodes[node.id] = node
        return node

    def add_image(self, reference: str, behaviour: Behaviour = RUNS) -> None:
        """An image that every node has and no registry knows."""
        self._images.add(reference, behaviour)

    def add_registry(self, host: str, *, login: tuple[str, str] | None = None) -> Registry:
        """A registry at `host`, empty."""
        return self.registries.setdefault(host, Registry(login=login))

    def push(self, reference: str, behaviour: Behaviour = RUNS, *, content: str = "") -> str:
        """Put an image into its registry (made if it is not there); its digest, which follows from the content."""
        return self._images.push(reference, behaviour, content=content)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._world.advance(seconds)

    def settle(self) -> None:
        """Let time pass until nothing more would happen by itself, for an hour of its time at most."""
        self._world.settle(self._roll_outs.is_at_rest)

    def crash(self) -> None:
        """Answer nothing any more, until `revive`."""
        self._calls.crashed = True

    def pause(self) -> None:
        """Take requests and answer none, as a process that is stopped does, until `go_on`. Streams stay open."""
        self._calls.pause()

    def go_on(self) -> None:
        """Answer whoever is still waiting."""
        self._calls.go_on()

    def revive(self) -> None:
        """Answer again after a crash, or after the daemon panicked."""
        self._calls.revive()

    def hang_up(self) -> None:
        """End every stream of events, as an engine that restarts does."""
        self._world.hang_up()

    def fail_task(self, identity: str, error: str = "task: non-zero exit (137)") -> None:
        """End a running task from outside, as `docker kill` does."""
        self._world.catch_up()
        self._agent.end(self.store.tasks[identity], "failed", "started", error)

    def double_task(self, identity: str) -> None:
        """Start another task in the place of one: what Swarm does now and then when a task ends while it is replaced."""
        self._world.catch_up()
        task = self.store.tasks[identity]
        self._tasks.make(task.service, task.slot)

    def secret_payload(self, name: str) -> bytes:
        """The value of a secret, which the API never gives."""
        return self._secrets.payload(name)

    def running_tasks(self, service: str) -> list[Document]:
        """The tasks of a service (by name) that run and are meant to."""
        self._world.catch_up()
        return self._tasks.running(service)

    def container(self, task_id: str) -> Document:
        """Return what the container of a task was made from: its spec, with every template expanded."""
        return self._agent.container(self.store.tasks[task_id])

    @property
    def reads(self) -> int:
        """Calls so far that change nothing."""
        return sum(not write for _, write in self.calls)

    @property
    def writes(self) -> int:
        """Calls so far that change something."""
        return sum(write for _, write in self.calls)

    # the protocol

    def clock(self) -> float:
        """Its wall clock, in seconds since the epoch."""
        return self._world.wall_clock()

    async def version(self) -> Document:
        """`GET /version`."""
        return await self._calls.call("version", lambda: {"Version": "memory", "ApiVersion": "1.41"})

    async def info(self) -> Document:
        """`GET /info`."""
        node = self.own_node
        is_in = self.swarm_state == "active"
        swarm = {
            "NodeID": node.id if is_in else "",
            "LocalNodeState": self.swarm_state,
            "ControlAvailable": is_in and self.is_manager,
            "Error": LOCKED if self.swarm_state == "locked" else self.swarm_error,
        }
        return await self._calls.call("info", lambda: {"Swarm": swarm, "Name": node.hostname})

    async def list_services(self) -> Sequence[Document]:
        """`GET /services`."""
        return await self._calls.listed("list_services", lambda: list(self.store.services.values()))

    async def list_running_tasks(self) -> Sequence[Document]:
        """`GET /tasks` with the filter `desired-state=running`."""
        tasks = self.store.tasks
        return await self._calls.listed(
            "list_running_tasks",
            lambda: [t.document for t in tasks.values() if t.document["DesiredState"] == "running"],
        )

    async def list_tasks(self) -> Sequence[Document]:
        """`GET /tasks`."""
        return await self._calls.listed(
            "list_tasks", lambda: [task.document for task in self.store.tasks.values()]
        )

    async def list_secrets(self) -> Sequence[Document]:
        """`GET /secrets`."""
        return await self._calls.listed(
            "list_secrets", lambda: [document for document, _ in self.store.secrets.values()]
        )

    async def list_networks(self) -> Sequence[Document]:
        """`GET /networks`."""
        return await self._calls.listed("list_networks", self._networks.listed)

    async def list_nodes(self) -> Sequence[Document]:
        """`GET /nodes`."""
        return await self._calls.listed(
            "list_nodes", lambda: [members.document_of(node) for node in self.nodes.values()]
        )

    async def list_volumes(self) -> Sequence[Document]:
        """`GET /volumes`."""
        return await self._calls.listed("list_volumes", lambda: list(self.own_node.volumes.values()))

    async def inspect_service(self, service_id: str) -> Document:
        """`GET /services/{id}`, by id or name."""
        return await self._calls.call(
            "inspect_service", lambda: copy.deepcopy(self.store.service(service_id))
        )

    async def create_service(self, spec: Mapping[str, Any], auth: str | None = None) -> str:
        """`POST /services/create`."""
        return await self._calls.call("create_service", lambda: self._services.create(spec, auth), write=True)

    async def update_service(
        self, service_id: str, version: int, spec: Mapping[str, Any], auth: str | None = None
    ) -> None:
        """`POST /services/{id}/update`."""
        await self._calls.call(
            "update_service", lambda: self._services.update(service_id, version, spec, auth), write=True
        )

    async def rollback_service(self, service_id: str, version: int) -> None:
        """`POST /services/{id}/update?rollback=previous`: what `docker service rollback` does."""
        await self._calls.call(
            "rollback_service", lambda: self._services.roll_back(service_id, version), write=True
        )

    async def remove_service(self, service_id: str) -> None:
        """`DELETE /services/{id}`."""
        await self._calls.call("remove_service", lambda: self._services.remove(service_id), write=True)

    async def create_secret(self, spec: Mapping[str, Any]) -> str:
        """`POST /secrets/create`."""
        return await self._calls.call("create_secret", lambda: self._secrets.create(spec), write=True)

    async def remove_secret(self, secret_id: str) -> None:
        """`DELETE /secrets/{id}`."""
        await self._calls.call("remove_secret", lambda: self._secrets.remove(secret_id), write=True)

    async def create_network(self, config: Mapping[str, Any]) -> str:
        """`POST /networks/create`."""
        return await self._calls.call("create_network", lambda: self._networks.create(config), write=True)

    async def remove_network(self, identity: str) -> None:
        """`DELETE /networks/{id}`."""
        await self._calls.call("remove_network", lambda: self._networks.remove(identity), write=True)

    async def inspect_image(self, reference: str) -> Document:
        """`GET /images/{name}/json`."""
        return await self._calls.call("inspect_image", lambda: self._images.inspect(reference))

    async def list_images(self) -> Sequence[Document]:
        """`GET /images/json`."""
        return await self._calls.listed("list_images", self._images.listed)

    async def list_containers(self) -> Sequence[Document]:
        """`GET /containers/json`: of tasks that have not been forgotten."""
        return await self._calls.listed("list_containers", lambda: list(self._images.containers()))

    async def remove_image(self, reference: str) -> None:
        """`DELETE /images/{name}`."""
        await self._calls.call("remove_image", lambda: self._images.remove(reference), write=True)

    async def inspect_distribution(self, reference: str, auth: str | None = None) -> Document:
        """`GET /distribution/{name}/json`."""
        registry = self.registries.get(reference.partition("/")[0])
        digest = await self._calls.call(
            "inspect_distribution",
            lambda: self._images.ask_registry(reference, auth),
            seconds=registry.seconds if registry is not None else 0.0,
        )
        host, _, path = reference.partition("@")[0].partition("/")
        return {"Descriptor": {"digest": digest}, "Platforms": self.registries[host].platforms.get(path)}

    async def load_image(self, archive: AsyncIterator[bytes]) -> Sequence[str]:
        """`POST /images/load`."""
        data = b"".join([piece async for piece in archive])
        return await self._calls.call("load_image", lambda: self._images.load(data), write=True)

    async def tag_image(self, image: str, repository: str, tag: str) -> None:
        """`POST /images/{name}/tag`."""
        await self._calls.call(
            "tag_image", lambda: self._images.tag(image, f"{repository}:{tag}"), write=True
        )

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Document]]:
        """`GET /events`."""
        await self._calls.call("events", lambda: None)
        with self._world.listen() as events:
            yield events
