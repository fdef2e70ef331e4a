"""The status as a value: what every page, command and program is told, and nothing else."""

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, evolve, frozen

from .connections import Connection
from .parts import OperationStatus

Overall = Literal["as desired", "under way", "degraded", "unknown"]
"""Degraded: there is a problem. Unknown: nobody has seen the services lately."""
State = Literal[
    "as desired",
    "rolling out",
    "waiting",
    "drifted",
    "unfinished",
    "crash-looping",
    "failed",
    "rolled back",
    "held",
    "rejected",
    "contested",
    "not done",
    "blocked",
    "missing",
    "stopped for a restore",
    "unknown",
]
"""How a service is, in the words of `plan`, `apply` and the log."""
UNDER_WAY: frozenset[State] = frozenset({"rolling out", "waiting", "drifted", "stopped for a restore"})
"""States that end by themselves."""


@frozen(kw_only=True)
class RollOut:
    """Swarm replaces tasks: what changes, and since when."""

    change: str
    state: str
    """`updating`, or `rollback_started`: as the engine says it."""
    started: float


@frozen(kw_only=True)
class ServiceStatus:
    """One service. `since`, cause and next step are there where it is not as desired."""

    name: str
    record: str
    """The id of its record; `base` for a base service."""
    state: State
    running: int = 0
    wanted: int = 0
    image: str = ""
    since: float | None = None
    cause: str = ""
    next_step: str = ""
    drift: str = ""
    """What differs from the record, or was changed by hand."""
    roll_out: RollOut | None = None


@frozen(kw_only=True)
class CurrentProblem:
    """Something that is wrong now. What has the same cause is one problem with several subjects."""

    kind: str
    subjects: tuple[str, ...]
    cause: str
    since: float
    next_step: str


@frozen(kw_only=True)
class HostStatus:
    """A host name: routed or not, with whose certificate and until when."""

    host: str
    service: str
    port: int
    is_routed: bool
    tasks: int = 0
    issuer: str = ""
    expires: float | None = None
    cause: str = ""
    """Why it is not routed."""


@frozen(kw_only=True)
class BindingState:
    """A binding, and how far it is."""

    id: str
    service: str
    capability: str
    state: str
    error: str = ""


@frozen(kw_only=True)
class NetworkStatus:
    """An overlay network and its addresses."""

    name: str
    addresses: int
    free: int


@frozen(kw_only=True)
class Checked:
    """The times at which each part was last looked at, in seconds since 1970; None: never, or not from here."""

    services: float | None = None
    records: float | None = None
    hosts: float | None = None


@frozen(kw_only=True)
class Status:
    """The status: what runs, what is wrong, since when, and what to do about it."""

    cluster: str = ""
    verdict: Overall
    time: float
    """When this was made."""
    checked: Checked = Factory(Checked)
    problems: tuple[CurrentProblem, ...] = ()
    counts: Mapping[str, int] = Factory(dict)
    """How many services are in each state."""
    services: tuple[ServiceStatus, ...] = ()
    hosts: tuple[HostStatus, ...] = ()
    bindings: tuple[BindingState, ...] = ()
    operations: tuple[OperationStatus, ...] = ()
    networks: tuple[NetworkStatus, ...] = ()
    connections: tuple[Connection, ...] = ()

    def of(self, name: str) -> "Status | None":
        """Return the status of one service, by its name or the id of its record; None: there is none."""
        service = self.service(name)
        if service is None:
            return None
        names = {service.name, service.record}
        hosts = tuple(host for host in self.hosts if host.service == service.name)
        names |= {host.host for host in hosts}
        problems = tuple(problem for problem in self.problems if names & {*problem.subjects})
        return evolve(
            self,
            verdict=self._verdict_of(service, problems),
            problems=problems,
            counts={service.state: 1},
            services=(service,),
            hosts=hosts,
            bindings=tuple(b for b in self.bindings if b.service == service.record),
            operations=tuple(o for o in self.operations if o.service_id == service.record),
        )

    def _verdict_of(self, service: ServiceStatus, problems: tuple[CurrentProblem, ...]) -> Overall:
        if self.verdict == "unknown":
            return "unknown"
        if problems:
            return "degraded"
        return "under way" if service.state in UNDER_WAY else "as desired"

    def service(self, name: str) -> ServiceStatus | None:
        """The service of this name, or of the record with this id."""
        return next((s for s in self.services if s.name == name), None) or next(
            (s for s in self.services if s.record == name), None
        )
