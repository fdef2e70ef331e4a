"""The orchestrator: a task for every slot of a service, and another one in its place when it ends."""

import copy

from coreflow.adapters.engine.protocol import Document

from . import echo
from .agent import Agent
from .conditions import Conditions
from .nodes import NANO, usable
from .store import Store, Task
from .world import World

RESTART_DELAY = 5.0


class Tasks:
    """Makes tasks and takes them away, so that every slot has one."""

    def __init__(self, conditions: Conditions, world: World, store: Store, agent: Agent) -> None:
        self._conditions, self._world, self._store, self._agent = conditions, world, store, agent

    def running(self, service: str) -> list[Document]:
        """The tasks of a service (by name) that run and are meant to."""
        ids = {key for key, document in self._store.services.items() if document["Spec"]["Name"] == service}
        return [copy.deepcopy(t.document) for t in self._store.tasks.values() if t.service in ids and t.runs]

    def slots(self, service: str) -> list[object]:
        """Return where a service wants tasks: numbers, or the ids of nodes for a global one."""
        spec = self._store.services[service]["Spec"]
        if echo.is_global(spec):
            return [node.id for node in usable(self._conditions.nodes.values(), spec)]
        return list(range(1, spec["Mode"]["Replicated"]["Replicas"] + 1))

    def fill(self, service: str) -> None:
        """Make tasks for slots that have none, and end those of slots that are gone."""
        slots = self.slots(service)
        active: dict[object, list[Task]] = {}
        for task in self._store.tasks_of(service):
            if task.is_wanted:
                active.setdefault(task.slot, []).append(task)
        for slot, tasks in active.items():
            if slot not in slots:
                for task in tasks:
                    self.take_away(task)
        for slot in slots:
            if slot not in active:
                self.make(service, slot)

    def make(self, service: str, slot: object, delay: float = 0.0) -> Task:
        """Make a task, which starts in so many seconds."""
        spec = echo.task_spec(self._store.services[service]["Spec"])
        document: Document = {
            "ID": self._world.new_id("task"),
            "CreatedAt": self._world.stamp(),
            "Labels": {},
            "Spec": copy.deepcopy(spec),
            "ServiceID": service,
            "Status": {"State": "new", "Timestamp": self._world.stamp(), "Message": "created"},
            "DesiredState": "ready" if delay else "running",
        }
        if isinstance(slot, int):
            document["Slot"] = slot
        self._world.touch(document)
        networks = tuple(network["Target"] for network in spec.get("Networks") or ())
        endpoint = self._store.services[service]["Spec"].get("EndpointSpec")
        task = Task(
            document=document, service=service, slot=slot, spec=spec, endpoint=endpoint, networks=networks
        )
        self._store.tasks[document["ID"]] = task
        self._trim_history(service, slot)
        self._world.later(delay, lambda: self._agent.schedule(task))
        return task

    def _trim_history(self, service: str, slot: object) -> None:
        ended = [task for task in self._store.tasks_of(service) if task.slot == slot and not task.is_wanted]
        for task in ended[: max(len(ended) - max(self._conditions.history - 1, 0), 0)]:
            del self._store.tasks[task.id]

    def restart(self, task: Task) -> Task | None:
        """Make another task in the place of one that ended, if its policy wants that and nobody has its slot."""
        policy = task.spec.get("RestartPolicy") or {}
        condition = policy.get("Condition", "any")
        restart = condition == "any" or (condition == "on-failure" and task.state != "complete")
        occupied = any(t.slot == task.slot and t.is_wanted for t in self._store.tasks_of(task.service))
        if restart and not occupied and task.slot in self.slots(task.service):
            return self.make(task.service, task.slot, policy.get("Delay", RESTART_DELAY * NANO) / NANO)
        return None

    def shut_down(self, task: Task) -> None:
        """End a task that another one replaces; it stays in the history."""
        if task.document["DesiredState"] != "shutdown":
            task.document["DesiredState"] = "shutdown"
            self._world.touch(task.document)
            if task.state in {"new", "pending"}:
                task.enter(self._world, "shutdown", "shutdown")
            elif not task.has_ended:
                self._world.later(
                    self._conditions.stop_seconds, lambda: task.enter(self._world, "shutdown", "shutdown")
                )

    def take_away(self, task: Task) -> None:
        """End a task that nobody wants any more; then it vanishes."""
        task.document["DesiredState"] = "remove"
        self._world.touch(task.document)
        self._world.later(self._conditions.stop_seconds, lambda: self.forget(task))

    def forget(self, task: Task) -> None:
        """Let a task vanish."""
        task.leave()
        self._store.tasks.pop(task.id, None)
