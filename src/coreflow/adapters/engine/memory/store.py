"""The managers' store: services, tasks, secrets and networks, as documents."""

import re

from attrs import Factory, define

from coreflow.adapters.engine.protocol import Document, EngineError

from .world import World

_EXIT = re.compile(r"non-zero exit \((\d+)\)")
_ENDED = frozenset({"complete", "failed", "rejected", "shutdown", "orphaned", "remove"})


@define(kw_only=True)
class Task:
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
    def id(self) -> str:
        """Its identity."""
        identity: str = self.document["ID"]
        return identity

    @property
    def state(self) -> str:
        """Return how far it is."""
        state: str = self.document["Status"]["State"]
        return state

    @property
    def is_wanted(self) -> bool:
        """Return whether it is meant to run, even if it has ended already."""
        return self.document["DesiredState"] in {"running", "ready"}

    @property
    def is_active(self) -> bool:
        """Return whether it is meant to run and has not ended."""
        return self.is_wanted and not self.has_ended

    @property
    def has_ended(self) -> bool:
        """Return whether nothing of it runs any more."""
        return self.state in _ENDED

    @property
    def runs(self) -> bool:
        """Return whether it runs and is meant to."""
        return self.state == "running" and self.document["DesiredState"] == "running"

    def enter(self, world: World, state: str, message: str, error: str = "") -> None:
        """Be in another state; one that has ended leaves its addresses."""
        status: Document = {"State": state, "Timestamp": world.stamp(), "Message": message}
        if error:
            status["Err"] = error
        if state in {"running", "complete", "failed"}:
            exited = _EXIT.search(error)
            status["ContainerStatus"] = {"ExitCode": int(exited[1]) if exited else 0}
        self.document["Status"] = status
        world.touch(self.document)
        if state in _ENDED:
            self.leave()

    def leave(self) -> None:
        """Give its addresses back."""
        self.holds_addresses = self.node_is_attached = False


@define(kw_only=True, eq=False)
class Store:
    """Everything by its id."""

    services: dict[str, Document] = Factory(dict)
    auth: dict[str, str | None] = Factory(dict)
    """The login that each service's nodes pull its image with."""
    secrets: dict[str, tuple[Document, bytes]] = Factory(dict)
    networks: dict[str, Document] = Factory(dict)
    tasks: dict[str, Task] = Factory(dict)

    def service(self, identity: str) -> Document:
        """A service by id or name. Raises EngineError."""
        for document in self.services.values():
            if identity in {document["ID"], document["Spec"]["Name"]}:
                return document
        raise EngineError(404, f"service {identity} not found")

    def tasks_of(self, service: str) -> list[Task]:
        """The tasks of a service, by its id."""
        return [task for task in self.tasks.values() if task.service == service]

    def awaits(self, task: Task) -> bool:
        """Return whether anything may still become of a task."""
        return task.is_active and task.id in self.tasks


def same_name(one: str, other: str) -> bool:
    """SwarmKit compares names without case (measured on 20.10 and 26.1)."""
    return one.lower() == other.lower()
