"""The updater: roll-outs and roll-backs of services, as their policies say."""

import copy

from attrs import Factory, define

from coreflow.adapters.engine.protocol import Document

from . import echo
from .agent import Agent
from .conditions import Conditions
from .nodes import NANO, usable
from .store import Store, Task
from .tasks import Tasks
from .world import World

MONITOR = 5.0


@define(kw_only=True)
class RollOut:
    """Swarm replacing the tasks of one service, forwards or backwards."""

    service: str
    backwards: bool
    spec: Document
    """What it works towards."""
    untold: bool = False
    """The same spec was written again while it runs: it goes on, and its service says nothing of it any more."""
    fresh: set[str] = Factory(set)
    """Ids of tasks it has made."""
    started: bool = False
    finishing: bool = False
    over: bool = False


class RollOuts:
    """At most one for each service: the last."""

    def __init__(
        self, conditions: Conditions, world: World, store: Store, agent: Agent, tasks: Tasks
    ) -> None:
        self._conditions, self._world, self._store = conditions, world, store
        self._agent, self._tasks = agent, tasks
        self._roll_outs: dict[str, RollOut] = {}

    def is_at_rest(self) -> bool:
        """Return whether nothing is left but restarts of containers that end again and again."""
        if any(not roll_out.over for roll_out in self._roll_outs.values()):
            return False
        changing = [task for task in self._store.tasks.values() if task.is_wanted and not task.runs]
        return all(self._agent.ends(task) for task in changing)

    def drop(self, service: str) -> None:
        """Forget the roll-out of a service that is gone."""
        self._roll_outs.pop(service, None)

    def begin(self, service: str, *, backwards: bool) -> None:
        """Start replacing what differs from the spec; a label alone replaces nothing."""
        running = self._roll_outs.get(service)
        spec = self._store.services[service]["Spec"]
        if running is not None and not running.over and running.spec == spec:
            running.untold = True
        elif running is not None:
            running.over = True
            del self._roll_outs[service]
        for task in list(self._store.tasks_of(service)):
            if task.document["DesiredState"] == "remove":  # forgotten now, be its container gone or not
                self._tasks.forget(task)
        self._tasks.fill(service)
        if service in self._roll_outs or (
            not self._dirty(service) and not self._surplus(service) and not backwards
        ):
            return
        roll_out = RollOut(service=service, backwards=backwards, spec=copy.deepcopy(spec))
        self._roll_outs[service] = roll_out
        self._world.later(self._conditions.notice_seconds, lambda: self._start(roll_out))

    def _start(self, roll_out: RollOut) -> None:
        """Say that it has begun, which is a write of its own after the one that it follows from, and go on."""
        if roll_out.over or roll_out.service not in self._store.services:
            return
        roll_out.started = True
        document = self._store.services[roll_out.service]
        if not roll_out.backwards and not roll_out.untold:
            document["UpdateStatus"] = {
                "State": "updating",
                "StartedAt": self._world.stamp(),
                "Message": "update in progress",
            }
            self._world.touch(document)
            self._world.emit("service", "update", document["ID"], document["Spec"]["Name"])
        for task in self._surplus(roll_out.service):
            self._tasks.shut_down(task)
        self.poke(roll_out.service)

    def _dirty(self, service: str) -> list[Task]:
        """Tasks that have to be replaced; one that has ended counts until it is known to have."""
        return [task for task in self._store.tasks_of(service) if task.is_wanted and not self._is_clean(task)]

    def _surplus(self, service: str) -> list[Task]:
        """Tasks in whose place another one runs already that is as the spec wants it."""
        kept = {
            task.slot: task for task in self._store.tasks_of(service) if task.runs and self._is_clean(task)
        }
        return [
            task
            for task in self._store.tasks_of(service)
            if task.is_wanted and self._is_clean(task) and kept.get(task.slot, task) is not task
        ]

    def _is_clean(self, task: Task) -> bool:
        """Return whether a task may stay: another placement does not matter where its node meets it."""
        spec = self._store.services[task.service]["Spec"]
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
            and (
                node is None
                or node in {usable.id for usable in usable(self._conditions.nodes.values(), spec)}
            )
        )

    def _policy(self, roll_out: RollOut) -> Document:
        spec = self._store.services[roll_out.service]["Spec"]
        policy: Document = spec.get("RollbackConfig" if roll_out.backwards else "UpdateConfig") or {}
        return policy

    def poke(self, service: str) -> None:
        """Go on with a roll-out as far as its policy allows."""
        roll_out = self._roll_outs.get(service)
        if roll_out is None or not roll_out.started or roll_out.over or service not in self._store.services:
            return
        active = [task for task in self._store.tasks_of(service) if task.is_wanted]
        self._end_replaced(active)
        coming = [task for task in active if self._is_clean(task) and not task.runs]
        roll_out.fresh |= {task.id for task in coming}
        waiting = {task.slot for task in coming}
        waiting |= self._replace_some(roll_out, waiting)
        if not waiting and not self._dirty(service) and not roll_out.finishing:
            roll_out.finishing = True
            monitor = self._policy(roll_out).get("Monitor", MONITOR * NANO) / NANO
            self._world.later(monitor, lambda: self._finish(roll_out))

    def _end_replaced(self, active: list[Task]) -> None:
        """End the tasks whose successor runs, as it does first with `start-first`."""
        done = {task.slot for task in active if self._is_clean(task) and task.runs}
        for task in active:
            if task.slot in done and not self._is_clean(task):
                self._tasks.shut_down(task)

    def _replace_some(self, roll_out: RollOut, waiting: set[object]) -> set[object]:
        """Replace as many tasks at a time as the policy allows; slots in `waiting` count. Returns the slots."""
        policy = self._policy(roll_out)
        dirty = [task for task in self._dirty(roll_out.service) if task.slot not in waiting]
        room = (policy.get("Parallelism") or len(dirty) or 1) - len(waiting)
        replaced = dirty[: max(room, 0)]
        for task in replaced:
            if policy.get("Order") != "start-first":
                self._tasks.shut_down(task)
            roll_out.fresh.add(self._tasks.make(roll_out.service, task.slot).id)
        return {task.slot for task in replaced}

    def _finish(self, roll_out: RollOut) -> None:
        if roll_out.over or roll_out.service not in self._store.services:
            return
        roll_out.over = True
        if roll_out.untold:
            return
        document = self._store.services[roll_out.service]
        state, message = (
            ("rollback_completed", "rollback completed")
            if roll_out.backwards
            else ("completed", "update completed")
        )
        started = (document.get("UpdateStatus") or {}).get("StartedAt", self._world.stamp())
        document["UpdateStatus"] = {
            "State": state,
            "StartedAt": started,
            "CompletedAt": self._world.stamp(),
            "Message": message,
        }
        self._world.touch(document)
        self._world.emit("service", "update", document["ID"], document["Spec"]["Name"])

    def ended(self, task: Task) -> None:
        """A task ended by itself: another one takes its place, which counts as the roll-out's if it is as that wants."""
        self._failed(task)
        again = self._tasks.restart(task)
        roll_out = self._roll_outs.get(task.service)
        if again is not None and roll_out is not None and not roll_out.over and self._is_clean(again):
            roll_out.fresh.add(again.id)

    def _failed(self, task: Task) -> None:
        """A task that the roll-out made has failed: do what the policy says."""
        roll_out = self._roll_outs.get(task.service)
        if roll_out is None or roll_out.over or task.id not in roll_out.fresh:
            return
        action = self._policy(roll_out).get("FailureAction", "pause")
        document = self._store.services[task.service]
        cause = f"due to failure or early termination of task {task.document['ID']}"
        if action == "continue":
            self.poke(task.service)
            return
        roll_out.over = True
        if roll_out.untold:
            return
        status = document["UpdateStatus"]
        if action == "rollback" and not roll_out.backwards and "PreviousSpec" in document:
            document["Spec"] = document.pop("PreviousSpec")
            document["UpdateStatus"] = {
                **status,
                "State": "rollback_started",
                "Message": f"update rolled back {cause}",
            }
            self._world.touch(document)
            self._world.emit("service", "update", document["ID"], document["Spec"]["Name"])
            self._world.later(0.0, lambda: self.begin(task.service, backwards=True))
        else:
            state = "rollback_paused" if roll_out.backwards else "paused"
            document["UpdateStatus"] = {**status, "State": state, "Message": f"update paused {cause}"}
            self._world.touch(document)
