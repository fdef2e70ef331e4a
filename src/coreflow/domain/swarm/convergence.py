"""Convergence: one verdict per service, whether Swarm has carried out its spec, from one list of services and one of tasks.

One observation is no verdict: a container that ends after three seconds has run, too. So a task counts once it has run for
a settling time without interruption, and tasks that end by themselves again and again are a crash loop, whatever the
newest of them does at the moment. What the engine remembers of ended tasks is evidence (it keeps few, or none if it
is configured so); what this process has seen of them itself, in `TaskHistory`, is evidence as well.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from attrs import Factory, frozen

from . import naming
from .failures import Cause, cause_of
from .observed import ROLLED_BACK, ObservedNode, ObservedService, ObservedTask, seconds_of
from .specs import ServiceBody
from .stopped import told

SETTLE_SECONDS = 5.0
"""How long tasks must have run to count: Swarm's own monitor of an update takes as long by default."""
REPEATED = 2
"""So many tasks of one slot that ended by themselves, one after the other, are a crash loop."""
HOPELESS = 3
"""After so many nobody waits any longer for a service to come up, unless its next task runs."""
LONG_LIFE = 600.0
"""A task that lived longer than so many seconds is no part of a crash loop, and after half of that at the latest the next
one has proved itself."""
QUIET_LIFE = 60.0
"""The same for a task that was ended from outside: a node that restarts now and then is no crash loop of its services."""
_READY = "running"
_FAILED = frozenset({"failed", "rejected"})
_ENDED_BY_ITSELF = frozenset({"failed", "rejected", "complete"})
_MEANT_TO_RUN = frozenset({"running", "ready"})
"""Desired states: a task that waits for its restart delay is meant to be ready."""
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


_EXITED = "exits: its container ended with exit code 0"
NO_RECORD = "the engine kept no record of why"

Slot = tuple[str, object]
"""A service, by id, and a place in it: the number of a replica, or a node."""


def _slot(task: ObservedTask) -> Slot:
    return task.service_id, task.slot if task.slot is not None else task.node_id


def _is_active(task: ObservedTask) -> bool:
    """Return whether it is meant to run, now or after a pause, and has not ended."""
    return task.desired_state in _MEANT_TO_RUN and task.state not in _ENDED_BY_ITSELF


@frozen
class End:
    """A task that ended by itself, or vanished: when, how long it had been there (seconds), and why if that is known."""

    task: str
    at: float
    lived: float
    reason: str = ""
    from_outside: bool = False
    """Whether the image was not to blame, as far as is known."""

    @property
    def lived_long(self) -> bool:
        """Return whether it is no part of a crash loop."""
        return self.lived >= (QUIET_LIFE if self.from_outside else LONG_LIFE)


@frozen(kw_only=True)
class _Trace:
    """The history of one slot since its service was last changed."""

    spec: tuple[str, int]
    task: str = ""
    """The newest that was meant to run."""
    seen: float = 0.0
    """When that one was first seen."""
    ends: tuple[End, ...] = ()
    """Of those before it, in their order."""


_KEPT_ENDS = 20


@frozen(kw_only=True)
class TaskHistory:
    """The history of tasks that one process has seen, look by look. The engine may keep no ended tasks at all."""

    traces: Mapping[Slot, _Trace] = Factory(dict)
    running: Mapping[str, float] = Factory(dict)
    """Since when each task has been seen running, by the engine's clock."""

    def after(
        self, services: Iterable[ObservedService], tasks: Iterable[ObservedTask], now: float
    ) -> "TaskHistory":
        """The history with one more look in it, at `now` by the engine's clock."""
        services = tuple(services)
        specs = {s.id: (s.fingerprints.whole, s.force_update) for s in services}
        rolled_out = {s.id: s.update_started for s in services if s.update_state not in ROLLED_BACK}
        listed: set[str] = set()
        running: dict[str, float] = {}
        active: dict[Slot, ObservedTask] = {}
        ended: dict[Slot, list[End]] = {}
        for task in tasks:
            listed.add(task.id)
            if not task.is_current or task.service_id not in specs:
                continue
            if task.state in _ENDED_BY_ITSELF:
                if task.created_at < rolled_out.get(task.service_id, ""):
                    continue  # of an earlier attempt at the same spec
                ended.setdefault(_slot(task), []).append(_end_of(task))
            elif task.desired_state in _MEANT_TO_RUN:
                active[_slot(task)] = task
                if task.state == _READY:
                    running[task.id] = self.running.get(task.id, now)
        traces = {}
        for slot in (self.traces.keys() & ended.keys()) | active.keys() | ended.keys():
            traces[slot] = _follow(
                self.traces.get(slot), active.get(slot), ended.get(slot, ()), specs[slot[0]], listed, now
            )
        for slot, trace in self.traces.items():
            if slot not in traces and specs.get(slot[0]) == trace.spec:
                traces[slot] = trace  # between two tasks
        return TaskHistory(traces=traces, running=running)

    def ends(self, slot: Slot) -> tuple[End, ...]:
        """Tasks of a slot that ended by themselves, the newest last, back to one that had lived long."""
        trace = self.traces.get(slot)
        found: list[End] = []
        for end in reversed(trace.ends if trace is not None else ()):
            if end.lived_long:
                break
            found.append(end)
        return tuple(reversed(found))


def _follow(
    before: _Trace | None,
    active: ObservedTask | None,
    ended: Iterable[End],
    spec: tuple[str, int],
    listed: Container[str],
    now: float,
) -> _Trace:
    """One slot after one more look. `ended` are the ended tasks that the engine still lists."""
    if before is None or before.spec != spec:
        before = _Trace(spec=spec)
    ends = {end.task: end for end in before.ends}
    ends.update({end.task: end for end in ended})
    if active is None:
        task, seen = before.task, before.seen
    else:
        task = active.id
        seen = before.seen if before.task == task else now
        if before.task not in {"", task} and before.task not in listed and before.task not in ends:
            ends[before.task] = End(before.task, now, now - before.seen)
    return _Trace(spec=spec, task=task, seen=seen, ends=tuple(sorted(ends.values(), key=_when)[-_KEPT_ENDS:]))


def _when(end: End) -> float:
    return end.at


def _end_of(task: ObservedTask) -> End:
    at = seconds_of(task.updated_at)
    lived = max(at - seconds_of(task.created_at), 0.0)
    return End(task.id, at, lived, reason_of(task), from_outside=cause_of(task) is not Cause.IMAGE)


NO_HISTORY = TaskHistory()


@frozen(kw_only=True)
class Settling:
    """The settling time of tasks: it tells one that has just begun to run from one that runs."""

    history: TaskHistory = NO_HISTORY
    now: float = 0.0
    """By the engine's clock, in seconds since the epoch."""
    seconds: float = 0.0
    """How long a task must have run to count."""

    def age(self, task: ObservedTask) -> float:
        """For how many seconds a task has run: as its manager says, or as this process has seen, whichever is more.

        A manager whose clock is ahead of the engine's would otherwise keep a service young for ever.
        """
        since = self.history.running.get(task.id, self.now)
        return self.now - min(seconds_of(task.updated_at), since)

    def needed(self, ends: Sequence[End]) -> float:
        """Return how long the task after these must run: in a crash loop, clearly longer than those before it lived."""
        if len(ends) < REPEATED:
            return self.seconds
        return max(self.seconds, min(2 * max(end.lived for end in ends), LONG_LIFE / 2))


AT_ONCE = Settling()
"""Every task that runs counts."""


@frozen(kw_only=True)
class Verdict:
    """The verdict on a service. `done` and `failed` exclude each other; neither means: still at it.

    Done means that Swarm is at rest and has run what the service's live spec says for the settling time. A service that was
    rolled back is at rest, too (the detail tells); whether its live spec is the one we want is the planner's to say.

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
    crashes: int = 0
    """How many of its tasks ended by themselves, where it is in a crash loop; else 0."""
    crashing_since: float = 0.0
    """When the first of them ended, in seconds since the epoch."""
    error: str = ""
    """What went wrong, without anything that changes while it goes on going wrong."""

    @property
    def is_crash_looping(self) -> bool:
        """Return whether its tasks end by themselves again and again."""
        return self.crashes > 0


_STUCK = frozenset({"rollback_paused", "paused"})
"""States in which Swarm does nothing more by itself."""


def judge(
    service: ObservedService,
    tasks: Iterable[ObservedTask],
    nodes: Iterable[ObservedNode],
    settling: Settling = AT_ONCE,
) -> Verdict:
    """Judge one service by its own tasks."""
    tasks = list(tasks)
    if service.is_stopped:
        wanted = naming.replicas_noted(service.labels[naming.STOPPED])
        return Verdict(service=service.name, running=0, wanted=wanted, detail=told(service))
    wanted = _wanted(service, tasks, nodes)
    present = [task for task in tasks if task.is_current]
    running = [task for task in present if task.is_running]
    settled = sum(
        settling.age(task) >= settling.needed(settling.history.ends(_slot(task))) for task in running
    )
    is_stuck = service.update_state in _STUCK
    is_done = settled >= wanted and not service.in_roll_out and not is_stuck
    loop = () if is_done else _crash_loop(present, settling)
    is_short = len(running) < wanted
    error, detail = _obstacle(service, tasks, loop, is_done=is_done, is_short=is_short)
    return Verdict(
        service=service.name,
        running=min(len(running), wanted),
        wanted=wanted,
        done=is_done,
        failed=is_stuck or (len(loop) >= HOPELESS and is_short and not service.in_roll_out),
        detail=detail or error,
        has_error=bool(error),
        crashes=len(loop),
        crashing_since=loop[0].at if loop else 0.0,
        error=error,
    )


def _obstacle(
    service: ObservedService,
    tasks: list[ObservedTask],
    loop: tuple[End, ...],
    *,
    is_done: bool,
    is_short: bool,
) -> tuple[str, str]:
    """Return what is wrong, and what to tell of it, if it is more or something else. `is_short`: too few tasks run."""
    state = service.update_state
    if state in _STUCK or state == "rollback_completed":
        return f"{state.replace('_', ' ')}: {_last_error(tasks) or service.update_message}", ""
    if loop:
        error = next((end.reason for end in reversed(loop) if end.reason), NO_RECORD)
        error += maybe_unhealthy(service.body, has_exited=error == _EXITED)
        return error, _told(loop, error)
    if is_done:
        return "", ""
    present = [task for task in tasks if task.is_current]
    if error := _last_error(present):
        return error, ""
    return "", _stuck(present) or ("" if is_short or service.in_roll_out else "settling")


def _crash_loop(tasks: Iterable[ObservedTask], settling: Settling) -> tuple[End, ...]:
    """The ends in the slot that is worst off, if it is in a crash loop. A task that has run long enough ends that."""
    worst: tuple[End, ...] = ()
    for task in tasks:
        if _is_active(task):
            ends = settling.history.ends(_slot(task))
            proved = task.state == _READY and settling.age(task) >= settling.needed(ends)
            if len(ends) >= max(REPEATED, len(worst) + 1) and not proved:
                worst = ends
    return worst


def _told(ends: Sequence[End], error: str) -> str:
    since = f"{datetime.fromtimestamp(ends[0].at, UTC):%Y-%m-%d %H:%M:%S}Z"
    return f"crash-looping: ended {len(ends)} times since {since}, last: {error}"


def judge_all(
    names: Iterable[str],
    services: Iterable[ObservedService],
    tasks: Iterable[ObservedTask],
    nodes: Iterable[ObservedNode],
    settling: Settling = AT_ONCE,
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
            verdicts[name] = judge(service, by_service.get(service.id, ()), nodes, settling)
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
        task
        for task in tasks
        if (task.error and (task.state in _FAILED or task.desired_state == _READY))
        or task.state == "complete"
    ]
    return reason_of(max(telling, key=lambda task: task.created_at)) if telling else ""


def reason_of(task: ObservedTask) -> str:
    """Return why a task ended or does not start, with what that means. A container may end without an error."""
    if task.state == "complete":
        return _EXITED
    for pattern, meaning in _HINTS:
        if pattern.search(task.error):
            return task.error if meaning in task.error else f"{meaning}: {task.error}"
    if not task.error and task.exit_code:
        return f"exits: its container ended with exit code {task.exit_code}"
    return task.error


def maybe_unhealthy(body: ServiceBody, *, has_exited: bool) -> str:
    """Return what to add about a container that ended with exit code 0, if it has a health check.

    Swarm stops an unhealthy container, and says so only where it ends with another status (measured on 20.10 and 26.1).
    """
    return ", maybe stopped since its health check failed" if has_exited and body.health_check else ""


def _stuck(tasks: list[ObservedTask]) -> str:
    """Tasks that never left `new` have no address: Swarm says nothing about it."""
    if any(task.state == "new" and task.desired_state == _READY for task in tasks):
        return "new; if it stays so, a network of it has no free address"
    states = sorted({task.state for task in tasks if task.desired_state == _READY and task.state != _READY})
    return ", ".join(states)
