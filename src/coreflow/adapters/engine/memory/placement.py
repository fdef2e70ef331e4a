"""The scheduler: which node a task goes to, or why there is none."""

from collections import Counter
from collections.abc import Callable, Iterator

from attrs import frozen

from .conditions import Conditions
from .nodes import NANO, Node, counted, has_platform, usable
from .store import Store, Task


@frozen
class Filter:
    """One demand of a task on its node."""

    fits: Callable[[Node], bool]
    problem: Callable[[list[Node]], str]
    """What Swarm says when none of the nodes that are left fits."""


class Placement:
    """Nodes pass one filter after the other; the first that leaves none gives the reason."""

    def __init__(self, conditions: Conditions, store: Store) -> None:
        self._conditions, self._store = conditions, store

    def choose(self, task: Task) -> tuple[Node | None, str]:
        """The usable node with the fewest tasks, or why there is none."""
        nodes = usable(self._conditions.nodes.values(), self._store.services[task.service]["Spec"])
        if isinstance(task.slot, str):
            nodes = [node for node in nodes if node.id == task.slot]
        if not nodes:
            total = counted(len(self._conditions.nodes))
            return None, f"no suitable node (scheduling constraints not satisfied on {total})"
        load = Counter(
            t.document.get("NodeID")
            for t in self._store.tasks_of(task.service)
            if t.is_active and t is not task
        )
        for demand in self._filters(task, load):
            fitting = [node for node in nodes if demand.fits(node)]
            if not fitting:
                return None, demand.problem(nodes)
            nodes = fitting
        busy = Counter(t.document.get("NodeID") for t in self._store.tasks.values() if t.is_active)
        return min(nodes, key=lambda node: (load[node.id], busy[node.id], node.hostname)), ""

    def _filters(self, task: Task, load: Counter[str | None]) -> Iterator[Filter]:
        yield Filter(lambda node: has_platform(node, task.spec), lambda nodes: self._no_platform(task, nodes))
        reserved = (task.spec.get("Resources") or {}).get("Reservations") or {}
        yield Filter(
            lambda node: (
                (reserved.get("NanoCPUs") or 0) <= node.cpus * NANO
                and (reserved.get("MemoryBytes") or 0) <= node.memory
            ),
            lambda nodes: f"no suitable node (insufficient resources on {counted(len(nodes))})",
        )
        drivers = {
            ((mount.get("VolumeOptions") or {}).get("DriverConfig") or {}).get("Name") or "local"
            for mount in task.spec["ContainerSpec"].get("Mounts") or ()
            if mount["Type"] == "volume"
        }
        yield Filter(
            lambda node: drivers <= node.plugins,
            lambda nodes: f"no suitable node (missing plugin on {counted(len(nodes))})",
        )
        most = (task.spec.get("Placement") or {}).get("MaxReplicas") or 0
        yield Filter(
            lambda node: not most or load[node.id] < most,
            lambda nodes: "no suitable node (max replicas per node limit exceed)",
        )

    def _no_platform(self, task: Task, nodes: list[Node]) -> str:
        """Return what Swarm says of a task whose image fits no node. A global service's task is told about its own node alone."""
        text = f"unsupported platform on {counted(len(nodes))}"
        if isinstance(task.slot, str):
            task.document["NodeID"] = task.slot
            return text
        others = len(self._conditions.nodes) - len(nodes)
        return f"no suitable node ({text}{f'; scheduling constraints not satisfied on {counted(others)}' if others else ''})"
