"""Has Swarm done what it was told? One verdict per service, from one list of services and one of tasks."""

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from . import naming
from .observed import ObservedNode, ObservedService, ObservedTask

_READY = "running"
_FAILED = frozenset({"failed", "rejected"})
_HINTS = (
    (re.compile(r"missing plugin"), "volume plugin missing on the nodes that could run it"),
    (
        re.compile(
            r"no such image|pull access denied|manifest unknown|repository does not exist", re.IGNORECASE
        ),
        "image missing",
    ),
    (re.compile(r"unhealthy container"), "health check fails"),
    (re.compile(r"non-zero exit"), "exits"),
    (re.compile(r"no suitable node"), "no suitable node"),
)
"""What an error text of a task means, the most telling first."""


@frozen(kw_only=True)
class Verdict:
    """How far a service is. `done` and `failed` exclude each other; neither means: still at it.

    Done means that Swarm is at rest and runs what the service's live spec says. A service that was rolled back is at rest,
    too (the detail tells); whether its live spec is the one we want is the planner's to say.

    Only tasks made from the present spec count as running: right after a write the old ones run, and nothing else tells
    that a roll-out is about to begin.
    """

    service: str
    running: int
    wanted: int
    done: bool = False
    failed: bool = False
    detail: str = ""
    has_error: bool = False
    """Whether the detail is what went wrong, and not just how far the tasks are."""


def judge(service: ObservedService, tasks: Iterable[ObservedTask], nodes: Iterable[ObservedNode]) -> Verdict:
    """Judge one service by its own tasks."""
    tasks = list(tasks)
    if service.is_stopped:
        wanted = naming.replicas_noted(service.labels[naming.STOPPED])
        return Verdict(service=service.name, running=0, wanted=wanted, detail="stopped for a restore")
    wanted = _wanted(service, tasks, nodes)
    running = sum(
        1 for task in tasks if task.state == _READY and task.desired_state == _READY and task.is_current
    )
    state = service.update_state
    failed = state in {"rollback_paused", "paused"}
    done = running >= wanted and not service.in_roll_out and not failed
    error = detail = ""
    if failed or state == "rollback_completed":
        error = f"{state.replace('_', ' ')}: {_last_error(tasks) or service.update_message}"
    elif not done:
        present = [task for task in tasks if task.is_current]
        error, detail = _last_error(present), _stuck(present)
    return Verdict(
        service=service.name,
        running=min(running, wanted),
        wanted=wanted,
        done=done,
        failed=failed,
        detail=error or detail,
        has_error=bool(error),
    )


def judge_all(
    names: Iterable[str],
    services: Iterable[ObservedService],
    tasks: Iterable[ObservedTask],
    nodes: Iterable[ObservedNode],
) -> dict[str, Verdict]:
    """Judge the services with these names. One that is not there has nothing running."""
    nodes = tuple(nodes)
    by_service: dict[str, list[ObservedTask]] = {}
    for task in tasks:
        by_service.setdefault(task.service_id, []).append(task)
    found: Mapping[str, ObservedService] = {service.name: service for service in services}
    verdicts = {}
    for name in names:
        service = found.get(name)
        if service is None:
            verdicts[name] = Verdict(service=name, running=0, wanted=1, detail="not there")
        else:
            verdicts[name] = judge(service, by_service.get(service.id, ()), nodes)
    return verdicts


def _wanted(service: ObservedService, tasks: list[ObservedTask], nodes: Iterable[ObservedNode]) -> int:
    """Replicas, or for a global service the nodes that it has tasks for (its placement decides which)."""
    if service.body.replicas is not None:
        return service.body.replicas
    usable = {node.id for node in nodes if node.state == "ready" and node.availability == "active"}
    if service.body.constraints:
        usable &= {
            task.node_id for task in tasks if task.node_id is not None and task.desired_state == _READY
        }
    return len(usable)


def _last_error(tasks: list[ObservedTask]) -> str:
    """The newest error of a task, with what it means. Errors of pending tasks count: they say why nothing starts."""
    telling = [
        task for task in tasks if task.error and (task.state in _FAILED or task.desired_state == _READY)
    ]
    if not telling:
        return ""
    error = max(telling, key=lambda task: task.created_at).error
    for pattern, meaning in _HINTS:
        if pattern.search(error):
            return error if meaning in error else f"{meaning}: {error}"
    return error


def _stuck(tasks: list[ObservedTask]) -> str:
    """Tasks that never left `new` have no address: Swarm says nothing about it."""
    if any(task.state == "new" and task.desired_state == _READY for task in tasks):
        return "new; if it stays so, a network of it has no free address"
    states = sorted({task.state for task in tasks if task.desired_state == _READY and task.state != _READY})
    return ", ".join(states)
