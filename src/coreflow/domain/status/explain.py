"""One service from its record over its spec to what runs: what differs, and why that is or is not acted on."""

from collections.abc import Iterator

from attrs import frozen

from coreflow.domain.deploy.contention import NOTHING_WRITTEN
from coreflow.domain.deploy.rollback import failed_attempt
from coreflow.domain.ids import BASE
from coreflow.domain.swarm.convergence import reason_of
from coreflow.domain.swarm.images import unpinned
from coreflow.domain.swarm.observed import Observed, ObservedService, ObservedTask, seconds_of
from coreflow.domain.swarm.specs import ServiceSpec

from .connections import ENGINE
from .model import BindingState, CurrentProblem, HostStatus, ServiceStatus, Status
from .parts import Facts, OperationStatus
from .services import ServiceBook, ServiceFacts, drift

TASKS_SHOWN = 50


@frozen(kw_only=True)
class Side:
    """A service as it is wanted, or as it is. No value of a variable or secret is in it."""

    image: str
    digest: str
    replicas: int | None
    """None: one on every node that fits."""
    networks: tuple[str, ...]
    mounts: tuple[str, ...]
    """Where volumes are mounted."""
    secrets: tuple[str, ...]
    variables: tuple[str, ...]
    """Names of variables."""
    ports: tuple[str, ...]
    fingerprint: str


@frozen(kw_only=True)
class TaskStatus:
    """One task, past or present."""

    id: str
    node: str
    slot: int | None
    state: str
    desired_state: str
    since: float
    is_current: bool
    """Whether it was made from the present spec."""
    error: str = ""
    exit_code: int | None = None


@frozen(kw_only=True)
class Explanation:
    """Everything about one service that somebody may want to know who wonders about it."""

    time: float
    looked: float
    """When the service was last seen."""
    service: ServiceStatus
    problems: tuple[CurrentProblem, ...]
    record: str
    """What became of the record: rendered, or why not."""
    spec: Side | None
    live: Side | None
    differences: tuple[str, ...]
    decision: str
    """Why what differs is or is not acted on."""
    written: float | None
    """When the live service was last written, by somebody or by Swarm."""
    tasks: tuple[TaskStatus, ...]
    hosts: tuple[HostStatus, ...]
    bindings: tuple[BindingState, ...]
    operations: tuple[OperationStatus, ...]


def explain(facts: Facts, status: Status, name: str) -> Explanation | None:
    """Explain the service of this name, or of the record with this id. None: there is none."""
    service, result = status.service(name), facts.result
    if service is None or result is None:
        return None
    book = ServiceBook(result=result)
    own = book.facts(service.name)
    live = own.live
    differences = drift(own)
    tasks = book.tasks(live) if live is not None else []
    owned = {service.record} - {BASE}
    return Explanation(
        time=status.time,
        looked=facts.looked,
        service=service,
        problems=tuple(p for p in status.problems if {service.name, *owned} & {*p.subjects}),
        record=_record(own),
        spec=_side(own.spec),
        live=_side(live),
        differences=tuple(filter(None, differences.split("; "))),
        decision=_decision(own, service, facts, tasks),
        written=_written(live),
        tasks=tuple(_tasks(tasks, result.last.observed)),
        hosts=tuple(host for host in status.hosts if host.service == service.name),
        bindings=tuple(binding for binding in status.bindings if binding.service in owned),
        operations=tuple(o for o in status.operations if o.service_id in owned),
    )


def _record(own: ServiceFacts) -> str:
    if own.rejection is not None:
        word = "waits" if own.rejection.awaited else "held" if own.rejection.held else "rejected"
        return f"{word}: {'; '.join(own.rejection.reasons)}"
    if own.spec is None:
        return "no record wants it"
    return "a base service: it has no record" if own.spec.owner == BASE else "rendered"


def _written(live: ObservedService | None) -> float | None:
    return (seconds_of(live.updated_at) or None) if live is not None else None


def _side(service: ServiceSpec | ObservedService | None) -> Side | None:
    if service is None:
        return None
    body = service.body
    return Side(
        image=unpinned(body.image),
        digest=body.image.partition("@")[2],
        replicas=body.replicas,
        networks=tuple(attachment.network for attachment in body.networks),
        mounts=tuple(mount.target for mount in body.mounts),
        secrets=tuple(file.secret_name for file in body.secrets),
        variables=tuple(sorted(line.partition("=")[0] for line in body.env)),
        ports=tuple(f"{port.published}:{port.target}/{port.protocol}" for port in body.ports),
        fingerprint=service.fingerprints.whole,
    )


def _decision(own: ServiceFacts, service: ServiceStatus, facts: Facts, tasks: list[ObservedTask]) -> str:
    """Say why what differs is acted on, or is not; the first reason that holds."""
    reasons = (*_obstacles(own, facts), *_differences(own, tasks, acts=facts.acts))
    if reasons:
        return reasons[0]
    if service.state == "as desired":
        return "nothing differs: nothing is written"
    return "its spec is what its record says: nothing is written, and Swarm goes on with its tasks"


def _obstacles(own: ServiceFacts, facts: Facts) -> Iterator[str]:
    live = own.live
    if facts.down(ENGINE) is not None:
        yield "nothing can be written while the engine is away"
    if live is not None and live.is_stopped:
        yield "nothing is written until the restore has ended"
    if own.rejection is not None:
        yield "nothing that it has is touched while its record cannot be deployed"
    if own.failure is not None:
        yield "not tried again: its record has to change, or `coreflow apply --retry-failed`"
    if own.outcome is not None:
        yield f"{own.outcome.status}: {own.outcome.detail or 'it goes on beside the passes'}"
    if own.wait is not None:
        yield f"waits: {own.wait.reason}"


def _differences(own: ServiceFacts, tasks: list[ObservedTask], *, acts: bool) -> Iterator[str]:
    live, spec = own.live, own.spec
    if spec is not None and live is None:
        yield "it is made by the next pass" if acts else "`coreflow apply` makes it"
    if spec is not None and live is not None and spec.seal != live.seal:
        failed = failed_attempt(spec, live, tasks, NOTHING_WRITTEN)
        if failed is not None and failed.is_final:
            yield "Swarm rolled this back: it is not tried again by itself"
        if live.in_roll_out:
            yield "left alone until the roll-out ends"
        yield "written by the next pass" if acts else "`coreflow apply` writes it"


def _tasks(tasks: list[ObservedTask], observed: Observed) -> Iterator[TaskStatus]:
    """Yield the newest first, those that are meant to run before all others."""
    names: dict[str | None, str] = {node.id: node.hostname for node in observed.nodes}
    newest = sorted(tasks, key=lambda task: task.created_at, reverse=True)
    for task in sorted(newest, key=lambda task: task.desired_state not in {"running", "ready"})[:TASKS_SHOWN]:
        yield TaskStatus(
            id=task.id,
            node=names.get(task.node_id, task.node_id or ""),
            slot=task.slot,
            state=task.state,
            desired_state=task.desired_state,
            since=seconds_of(task.updated_at),
            is_current=task.is_current,
            error=reason_of(task),
            exit_code=task.exit_code,
        )
