"""Conditions that tests arrange around an engine: nodes, registries, what containers do, faults, losses, delays."""

from collections import Counter, deque
from typing import Literal

from attrs import Factory, define, field, frozen

from coreflow.adapters.engine.protocol import Document, EngineUnreachable

from .nodes import Node

HISTORY = 5
"""How many ended tasks Swarm keeps per slot, unless told otherwise (`docker swarm update --task-history-limit`)."""


@frozen(kw_only=True)
class Behaviour:
    """The behaviour of a container of an image: run, end with a status after a while, or never become healthy.

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


@frozen(kw_only=True)
class Fault:
    """One call that goes wrong. `method` is the name of an `Engine` method, or empty for any."""

    method: str = ""
    when: Literal["before", "after"] = "before"
    error: Exception = field(factory=lambda: EngineUnreachable("connection reset"))
    seconds: float = 0.0
    """How long it takes until it does."""


class Conditions:
    """Conditions that a test can change at any time, and a record of what was asked of the engine."""

    def __init__(self, *, start_seconds: float = 0.2, stop_seconds: float = 0.1) -> None:
        self.nodes: dict[str, Node] = {}
        self.registries: dict[str, Registry] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.calls: list[tuple[str, bool]] = []
        """Every call: its method, and whether it writes."""
        self.service_writes: list[tuple[str, str]] = []
        """Every write to a service that was carried out: the method, and the name of the service.

        A version does not tell: Swarm counts it up by itself, too, when a roll-out ends or is rolled back.
        """
        self.faults: deque[Fault] = deque()
        self.stale: Counter[str] = Counter()
        """Lists that answer with what they answered last time, by method name and how often."""
        self.lose_events = 0
        self.double_events = 0
        self.crash_after: int | None = None
        """Crash after so many more writes: that write's answer is lost, and nothing answers until `revive`."""
        self.network_seconds = 0.0
        """How long a new network is listed without driver and addresses."""
        self.notice_seconds = 0.02
        """How long the managers take to act on what is written: until then a task that has ended is listed as one that
        is meant to run, and a service with another spec tells of no roll-out.
        """
        self.is_manager = True
        self.swarm_state: Literal["active", "inactive", "pending", "locked", "error"] = "active"
        """What the engine says of its part in a Swarm."""
        self.swarm_error = ""
        self.history = HISTORY
        """How many ended tasks are kept per slot."""
        self.start_seconds = start_seconds
        self.stop_seconds = stop_seconds

    @property
    def own_node(self) -> Node:
        """The node that the engine itself runs on: the first."""
        return next(iter(self.nodes.values()))
