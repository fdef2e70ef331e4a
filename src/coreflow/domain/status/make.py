"""From everything that is known to one status: problems first, each once, with cause, onset and next step."""

import shlex
from collections.abc import Iterable, Iterator, Mapping

from coreflow.domain.deploy.addresses import network_room
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.platform.bindings import BindingStatus

from . import next_steps
from .connections import CLOUDLY, ENGINE, RECORDS, Connection
from .hosts import host_problems, host_statuses
from .model import BindingState, Checked, CurrentProblem, NetworkStatus, Overall, ServiceStatus, Status
from .parts import NOTHING_WRONG, Facts, Onsets, OperationStatus, Timeline
from .services import ServiceBook, Services, is_under_way, service_statuses, unseen


def make_status(facts: Facts, onsets: Onsets = NOTHING_WRONG) -> tuple[Status, Onsets]:
    """Return the status, and the onsets for the next one."""
    timeline = Timeline(onsets, facts.now)
    book = ServiceBook(result=facts.result) if facts.result is not None else None
    services = service_statuses(book, facts, timeline) if book is not None else Services()
    blind = _blind(facts)
    if blind:
        timeline.keep(onsets.entries)
        seen = tuple(unseen(s, blind, facts.looked) for s in services.statuses)
        services = Services(statuses=seen, counts={"unknown": len(seen)} if seen else {})
    by_name = {s.name: s for s in services.statuses} if facts.table is not None else {}
    problems = (
        *_peer_problems(facts, timeline),
        *_pass_problems(facts, timeline),
        *services.problems,
        *_removal_problem(facts, timeline),
        *_operation_problems(facts, services.statuses, timeline),
        *(() if blind else host_problems(facts, by_name, timeline)),
    )
    status = Status(
        cluster=facts.result.last.desired.cluster if facts.result is not None else "",
        verdict=_overall(services.statuses, problems, is_blind=bool(blind)),
        time=facts.now,
        checked=_checked(facts),
        problems=merged(problems),
        counts=services.counts,
        services=services.statuses,
        hosts=host_statuses(facts.table) if facts.table is not None else (),
        bindings=tuple(map(_binding, facts.bindings)),
        operations=facts.operations,
        networks=_networks(facts.result) if facts.result is not None else (),
        connections=facts.connections,
    )
    return status, onsets.with_only(timeline.found)


def _blind(facts: Facts) -> str:
    """Return why nobody knows how services are now; empty where somebody does."""
    if facts.result is None:
        return "no pass has ended yet"
    if facts.down(ENGINE) is not None:
        return "not seen since the engine went away"
    if facts.now - facts.looked > facts.stale_seconds:
        return "no pass has ended lately"
    return ""


def _overall(
    services: Iterable[ServiceStatus], problems: tuple[CurrentProblem, ...], *, is_blind: bool
) -> Overall:
    if is_blind:
        return "unknown"
    if problems:
        return "degraded"
    return "under way" if any(map(is_under_way, services)) else "as desired"


def _checked(facts: Facts) -> Checked:
    records = [c.checked for c in facts.connections if c.peer == RECORDS and c.is_up]
    away = facts.down(CLOUDLY)
    if away is not None:  # until it is back, its last records stay in force
        records = [min(checked, away.since) for checked in records]
    return Checked(
        services=facts.looked if facts.result is not None else None,
        records=max(records, default=None),
        hosts=facts.routed if facts.table is not None and facts.routed else None,
    )


def merged(problems: Iterable[CurrentProblem]) -> tuple[CurrentProblem, ...]:
    """Make one problem of those with the same kind, cause and next step, since when the first of them began."""
    found: dict[tuple[str, str, str], CurrentProblem] = {}
    for problem in problems:
        key = problem.kind, problem.cause, problem.next_step
        known = found.get(key)
        found[key] = problem if known is None else _joined(known, problem)
    return tuple(found.values())


def _joined(one: CurrentProblem, other: CurrentProblem) -> CurrentProblem:
    return CurrentProblem(
        kind=one.kind,
        subjects=tuple(dict.fromkeys((*one.subjects, *other.subjects))),
        cause=one.cause,
        since=min(one.since, other.since),
        next_step=one.next_step,
    )


_KINDS = {"away": "away", "refused": "refused", "invalid": "rejected"}


def _peer_problems(facts: Facts, timeline: Timeline) -> Iterator[CurrentProblem]:
    for connection in facts.connections:
        if not connection.is_up:
            yield _of_peer(connection, timeline)


def _of_peer(connection: Connection, timeline: Timeline) -> CurrentProblem:
    subject = f"{connection.peer} {connection.where}".rstrip()
    return CurrentProblem(
        kind=_KINDS.get(connection.fault, "away"),
        subjects=(subject,),
        cause=connection.error,
        since=timeline.since(f"peer {subject}", connection.since),
        next_step=next_steps.for_peer(connection),
    )


def _pass_problems(facts: Facts, timeline: Timeline) -> Iterator[CurrentProblem]:
    if facts.pass_error:
        yield CurrentProblem(
            kind="failed",
            subjects=("pass",),
            cause=facts.pass_error,
            since=timeline.since("pass"),
            next_step="tried again by itself; the log has where it failed",
        )


def _removal_problem(facts: Facts, timeline: Timeline) -> Iterator[CurrentProblem]:
    refusal = facts.result.last.plan.refusal if facts.result is not None else None
    if refusal is not None:
        names = ", ".join(refusal.names)
        yield CurrentProblem(
            kind="refused",
            subjects=("removal",),
            cause=f"removing {len(refusal.names)} of {refusal.owned} services needs a confirmation: {names}",
            since=timeline.since("removal"),
            next_step=next_steps.for_removal(refusal),
        )


def _operation_problems(
    facts: Facts, services: Iterable[ServiceStatus], timeline: Timeline
) -> Iterator[CurrentProblem]:
    """The last backup or restore of a service that did not become whole."""
    wrong = [operation for operation in facts.operations if operation.state in {"failed", "partial"}]
    names = {service.record: service.name for service in services} if wrong else {}
    for operation in wrong:
        name = names.get(operation.service_id, operation.service_id)
        yield _of_operation(operation, name, timeline)


def _of_operation(operation: OperationStatus, name: str, timeline: Timeline) -> CurrentProblem:
    service = shlex.quote(name)
    again = (
        f"`coreflow backup {service}`"
        if operation.kind == "backup"
        else f"`coreflow restore {service} --backup {shlex.quote(operation.backup_id)}`"
    )
    return CurrentProblem(
        kind=f"{operation.kind} {operation.state}",
        subjects=(name,),
        cause=operation.error or "some of its parts failed",
        since=timeline.since(f"{operation.kind} {operation.service_id}", operation.since),
        next_step=again,
    )


def _binding(status: BindingStatus) -> BindingState:
    return BindingState(
        id=status.binding.id,
        service=status.binding.service_id or "",
        capability=status.binding.capability or "",
        state=status.state,
        error=status.error,
    )


def _networks(result: ReconcileResult) -> tuple[NetworkStatus, ...]:
    room: Mapping[str, tuple[int, int]] = network_room(result.last.desired, result.last.observed)
    return tuple(NetworkStatus(name=name, addresses=size, free=free) for name, (size, free) in room.items())
