"""A task's life, from `new` to its end: addresses, a node, the image, the container."""

from collections.abc import Callable

from attrs import evolve, frozen

from coreflow.adapters.engine.protocol import Document, EngineError

from . import containers, echo
from .addresses import Addresses
from .conditions import RUNS, Behaviour, Conditions
from .images import Images
from .nodes import Node, make_volume
from .placement import Placement
from .store import Store, Task
from .world import World


@frozen(kw_only=True)
class Listener:
    """Something that an agent tells."""

    running: Callable[[Task], None]
    """A task runs."""
    ended: Callable[[Task], None]
    """A task of a service that is still there ended by itself."""


class Agent:
    """Brings tasks to nodes and runs them there."""

    def __init__(
        self, conditions: Conditions, world: World, store: Store, images: Images, listener: Listener
    ) -> None:
        self._conditions, self._world, self._store = conditions, world, store
        self._images, self._listener = images, listener
        self._placement, self._addresses = Placement(conditions, store), Addresses(store)

    def schedule(self, task: Task) -> None:
        """`new` -> an address -> `pending` -> a node -> `preparing`. What cannot go on tries again later."""
        if not self._store.awaits(task):
            return
        task.document["DesiredState"] = "running"
        if not self._addresses.take(task):
            task.enter(self._world, "new", "created")
            self._world.later(1.0, lambda: self.schedule(task))
            return
        node, error = self._placement.choose(task)
        if node is None:
            task.enter(self._world, "pending", "pending task scheduling", error)
            self._world.later(1.0, lambda: self.schedule(task))
            return
        task.document["NodeID"] = node.id
        task.enter(self._world, "preparing", "preparing")
        self._world.later(self._conditions.start_seconds / 2, lambda: self._prepare(task, node))

    def _prepare(self, task: Task, node: Node) -> None:
        """`preparing` -> its image, its container, its volumes -> `starting`."""
        if not self._store.awaits(task):
            return
        if not self._addresses.attach_node(task):
            self._world.later(1.0, lambda: self._prepare(task, node))
            return
        image: str = task.spec["ContainerSpec"]["Image"]
        if image not in node.images and not self._pull(task, node, image):
            self.end(task, "rejected", "preparing", f"No such image: {image}")
            return
        container = self.container(task)
        found = containers.obstacle(container, task.spec.get("Resources") or {}, node.cpus)
        if found is not None:
            state, error = found
            self.end(task, state, "preparing" if state == "rejected" else "starting", error)
            return
        task.enter(self._world, "starting", "starting")
        for mount in container.get("Mounts") or ():
            if mount["Type"] == "volume":
                make_volume(node, mount)
        self._start(task, node, container)

    def _start(self, task: Task, node: Node, container: Document) -> None:
        """`starting` -> `running`, or what its health check, its secrets and its image make of it."""
        behaviour = self._images.behaviour(task) or RUNS
        probe = containers.probe(container.get("Healthcheck"))
        if probe == "never":
            return
        if probe == "panics":
            self._world.later(behaviour.after, lambda: self._panic(task, node))
            return
        if probe == "fails":
            behaviour = evolve(behaviour, unhealthy=True, exits=0)
        elif probe in {"none", "passes"} and behaviour.unhealthy:
            behaviour = RUNS
        missing = sorted(echo.secret_ids({"TaskTemplate": task.spec}) - self._store.secrets.keys())
        if missing:
            text = f"unable to get secret from secret store: secret {missing[0]} not found"
            self.end(task, "failed", "starting", f"starting container failed: {text}")
        elif behaviour.unhealthy and behaviour.exits == 0:
            self._world.later(behaviour.after, lambda: self.end(task, "complete", "finished", ""))
        elif behaviour.unhealthy:
            error = f"task: non-zero exit ({behaviour.exits or 137}): dockerexec: unhealthy container"
            self._world.later(behaviour.after, lambda: self.end(task, "failed", "started", error))
        else:
            self._world.later(self._conditions.start_seconds / 2, lambda: self._run(task, behaviour))

    def _panic(self, task: Task, node: Node) -> None:
        """The daemon of a node is gone with all that it knew of the container; once back, Swarm starts another one."""
        if not self._store.awaits(task):
            return
        if node is self._conditions.own_node:
            self._world.halted = True
        else:
            node.state = "down"
        error = "task: non-zero exit (137)"
        self._world.later(self._conditions.stop_seconds, lambda: self.end(task, "failed", "started", error))

    def _pull(self, task: Task, node: Node, image: str) -> bool:
        """Fetch an image from its registry, with the login of the service."""
        try:
            self._images.ask_registry(image, self._store.auth.get(task.service))
        except EngineError:
            return False
        node.images.add(image)
        return True

    def _run(self, task: Task, behaviour: Behaviour) -> None:
        """`starting` -> `running`, until the container ends."""
        if not self._store.awaits(task):
            return
        task.enter(self._world, "running", "started")
        self._tell(task, "start")
        if behaviour.exits is not None:
            status = behaviour.exits
            error = f"task: non-zero exit ({status})" if status else ""
            state = "failed" if status else "complete"
            self._world.later(
                behaviour.after, lambda: self.end(task, state, "started" if status else "finished", error)
            )
        self._listener.running(task)

    def end(self, task: Task, state: str, message: str, error: str) -> None:
        """Let a task end by itself. The node reports it, and a moment later the managers draw their conclusions."""
        if not self._store.awaits(task):
            return
        task.enter(self._world, state, message, error)
        self._tell(task, "die")
        self._world.later(self._conditions.notice_seconds, lambda: self._notice(task))

    def _notice(self, task: Task) -> None:
        """The managers want an ended task no more, unless they said so before, and another one in its place."""
        if task.id not in self._store.tasks or not task.is_wanted:
            return
        task.document["DesiredState"] = "shutdown"
        self._world.touch(task.document)
        if task.service in self._store.services:
            self._listener.ended(task)

    def _tell(self, task: Task, action: str) -> None:
        """An event of a task's container."""
        service = self._store.services.get(task.service)
        if service is not None:
            name = service["Spec"]["Name"]
            labels = {"com.docker.swarm.service.id": task.service, "com.docker.swarm.service.name": name}
            self._world.emit(
                "container", action, f"container-{task.id}", f"{name}.{task.slot}.{task.id}", labels
            )

    def container(self, task: Task) -> Document:
        """Return what the container of a task is made from: its spec, with every template expanded."""
        node = self._conditions.nodes[task.document["NodeID"]]
        service = self._store.services[task.service]["Spec"]["Name"]
        slot = str(task.slot)
        context = containers.Context(
            service_id=task.service,
            service=service,
            node_id=node.id,
            hostname=node.hostname,
            task_id=task.id,
            task=f"{service}.{slot}.{task.id}",
            slot=slot if isinstance(task.slot, int) else "0",
        )
        return containers.expanded(task.spec["ContainerSpec"], context)

    def ends(self, task: Task) -> bool:
        """Return whether a task's container will not run for long."""
        behaviour = self._images.behaviour(task)
        return behaviour is None or behaviour.exits is not None or behaviour.unhealthy
