"""Each service in one word, with its cause, since when, and what gets on from there.

Where several things are true of a service, the first in `_judge` is its state; a record that cannot be deployed is a problem
of its own beside that, since what runs runs on.
"""

from collections.abc import Iterator, Mapping

from attrs import Factory, field, frozen

from coreflow.domain.backup.lease import read_lease
from coreflow.domain.deploy.desired import Rejection, Unit, unit_of
from coreflow.domain.deploy.problems import UNFINISHED_SECONDS
from coreflow.domain.deploy.reasons import intent_of
from coreflow.domain.deploy.result import Outcome, ReconcileResult
from coreflow.domain.deploy.steps import Contest, Failure, Wait, kind_of, name_of, verb_of
from coreflow.domain.swarm.convergence import Verdict, judge_all
from coreflow.domain.swarm.images import unpinned
from coreflow.domain.swarm.observed import ObservedService, ObservedTask, seconds_of
from coreflow.domain.swarm.specs import ServiceSpec
from coreflow.domain.swarm.stopped import NOBODY, told

from . import next_steps
from .model import UNDER_WAY, CurrentProblem, RollOut, ServiceStatus, State
from .parts import Facts, Timeline

BY_HAND = "changed by hand"
_UNDONE = frozenset({"failed", "blocked"})


@frozen(kw_only=True)
class ServiceFacts:
    """Everything that the last passes say of one service."""

    name: str
    unit: Unit
    spec: ServiceSpec | None
    live: ObservedService | None
    verdict: Verdict | None
    rejection: Rejection | None = None
    failure: Failure | None = None
    contest: Contest | None = None
    wait: Wait | None = None
    outcome: Outcome | None = None
    """Of the action that could not be carried out, or goes on."""

    @property
    def undone(self) -> Outcome | None:
        """The action that could not be carried out, if there is one."""
        return self.outcome if self.outcome is not None and self.outcome.status in _UNDONE else None

    @property
    def image(self) -> str:
        """The image that is wanted; of a service without a spec, the one that runs."""
        body = self.spec.body if self.spec is not None else self.live.body if self.live is not None else None
        return unpinned(body.image) if body is not None else ""


@frozen
class _Judged:
    """The judgement on one service."""

    state: State
    cause: str = ""
    next_step: str = ""
    evidence: float = 0.0
    """When it began, as labels or tasks tell; 0 where nothing does."""
    is_problem: bool = True
    shared: str = ""
    """The cause as others have it, too, where it names what is this service's own."""


@frozen(kw_only=True)
class ServiceBook:
    """The last passes, by service. Tasks are looked through only for services of which there is something to say."""

    result: ReconcileResult
    live: Mapping[str, ObservedService] = field(init=False)
    marked: Mapping[str, ServiceFacts] = field(init=False)
    """Services of which a plan or an outcome says something."""
    _tasks: dict[str, list[ObservedTask]] = field(factory=dict, init=False)

    @live.default
    def _by_name(self) -> Mapping[str, ObservedService]:
        return {service.name: service for service in self.result.last.observed.services}

    @marked.default
    def _find_marked(self) -> Mapping[str, ServiceFacts]:
        plan = self.result.last.plan
        rejections = {r.name: r for r in plan.rejections}
        failures, contests = {f.name: f for f in plan.failures}, {c.name: c for c in plan.contests}
        services = self.result.last.desired.services
        waits = {w.name: w for w in plan.waits if w.name in services or w.name in self.live}
        tried = _outcomes_of_services(self.result)
        names = dict.fromkeys((*rejections, *failures, *contests, *waits, *tried))
        extra = judge_extra(self.result, [n for n in names if n not in services and n in self.live])
        return {
            name: ServiceFacts(
                name=name,
                unit=_unit_of(name, services.get(name), rejections.get(name), waits.get(name)),
                spec=services.get(name),
                live=self.live.get(name),
                verdict=self.result.verdicts.get(name) or extra.get(name),
                rejection=rejections.get(name),
                failure=failures.get(name),
                contest=contests.get(name),
                wait=waits.get(name),
                outcome=tried.get(name),
            )
            for name in names
        }

    def facts(self, name: str) -> ServiceFacts:
        """Everything known of a service that is wanted or marked."""
        if (marked := self.marked.get(name)) is not None:
            return marked
        spec = self.result.last.desired.services[name]
        return ServiceFacts(
            name=name,
            unit=unit_of(spec.owner, name),
            spec=spec,
            live=self.live.get(name),
            verdict=self.result.verdicts.get(name),
        )

    def tasks(self, service: ObservedService) -> list[ObservedTask]:
        """The tasks of a service."""
        if not self._tasks:
            for task in self.result.last.observed.tasks:
                self._tasks.setdefault(task.service_id, []).append(task)
        return self._tasks.get(service.id, [])

    def names(self) -> list[str]:
        """Everything that is wanted, or of which something is to be said."""
        services = self.result.last.desired.services
        return sorted({*services, *self.marked}) if self.marked else sorted(services)


def judge_extra(result: ReconcileResult, names: list[str]) -> Mapping[str, Verdict]:
    """Judge services that run although nothing is wanted of them now: their records are held, or gone."""
    if not names:
        return {}
    seen = result.last.observed
    return judge_all(names, seen.services, seen.tasks, seen.nodes, result.last.settling)


def _unit_of(name: str, spec: ServiceSpec | None, rejection: Rejection | None, wait: Wait | None) -> Unit:
    if spec is not None:
        return unit_of(spec.owner, name)
    return rejection.unit if rejection is not None else wait.unit if wait is not None else ""


def _outcomes(result: ReconcileResult) -> dict[Unit, Outcome]:
    """By unit, what could not be done: what failed before what was blocked by it, and what goes on last."""
    found: dict[Unit, Outcome] = {}
    rank = {"failed": 0, "blocked": 1, "overtaken": 2, "under way": 3}
    for outcome in sorted((*result.troubles, *result.under_way), key=lambda o: rank.get(o.status, 4)):
        found.setdefault(outcome.step.unit, outcome)
    return found


def _outcomes_of_services(result: ReconcileResult) -> dict[str, Outcome]:
    """The same by the name of the service that the unit is about."""
    outcomes = _outcomes(result)
    if not outcomes:
        return {}
    units = {unit_of(s.owner, s.name): s.name for s in result.last.desired.services.values()}
    return {units[unit]: outcome for unit, outcome in outcomes.items() if unit in units}


@frozen(kw_only=True)
class Services:
    """All services, and the problems that they have."""

    statuses: tuple[ServiceStatus, ...] = ()
    problems: tuple[CurrentProblem, ...] = ()
    counts: Mapping[str, int] = Factory(dict)


def service_statuses(book: ServiceBook, facts: Facts, timeline: Timeline) -> Services:
    """Judge every service; what needs no look at details, which is nearly all of them, costs next to nothing."""
    found: list[ServiceStatus] = []
    problems: list[CurrentProblem] = []
    counts: dict[str, int] = {}
    wanted, verdicts = book.result.last.desired.services, book.result.verdicts
    live, marked = book.live, book.marked
    for name in book.names():
        verdict, there = verdicts.get(name), live.get(name)
        if (
            name not in marked
            and verdict is not None
            and there is not None
            and verdict.done
            and not verdict.detail
            and there.seal == wanted[name].seal
        ):
            status = _as_desired(wanted[name], verdict)
        else:
            service = book.facts(name)
            status, own = _status(service, book, facts, timeline)
            problems.extend(own)
        found.append(status)
        counts[status.state] = counts.get(status.state, 0) + 1
    return Services(statuses=tuple(found), problems=tuple(problems), counts=counts)


def _as_desired(spec: ServiceSpec, verdict: Verdict) -> ServiceStatus:
    return ServiceStatus(
        name=spec.name,
        record=spec.owner,
        state="as desired",
        running=verdict.running,
        wanted=verdict.wanted,
        image=spec.body.image.partition("@")[0],
    )


def unseen(status: ServiceStatus, cause: str, since: float) -> ServiceStatus:
    """A service of which nobody knows how it is now."""
    return ServiceStatus(
        name=status.name,
        record=status.record,
        state="unknown",
        wanted=status.wanted,
        image=status.image,
        since=since,
        cause=f"{cause}; then it was {status.state}",
    )


def _status(
    service: ServiceFacts, book: ServiceBook, facts: Facts, timeline: Timeline
) -> tuple[ServiceStatus, list[CurrentProblem]]:
    """The status of a service that is not simply as desired, and its problems."""
    judged = judge_service(service, book, acts=facts.acts)
    problems: list[CurrentProblem] = []
    since: float | None = None
    if judged.state != "as desired":
        since = timeline.since(_key(judged.state, service.name), judged.evidence)
        if judged.state == "waiting" and _is_slow(service, facts.now - since):
            judged = _Judged("unfinished", _of_tasks(service), _next_for_tasks(service), judged.evidence)
        if judged.is_problem:
            problems.append(_problem(judged, service.name, since))
    if service.rejection is not None and judged.state not in {"held", "rejected"}:
        record = _of_rejection(service, service.rejection)
        if record.is_problem:
            problems.append(_problem(record, service.name, timeline.since(_key(record.state, service.name))))
    verdict = service.verdict
    status = ServiceStatus(
        name=service.name,
        record=service.unit.partition("/")[0],
        state=judged.state,
        running=verdict.running if verdict is not None else 0,
        wanted=verdict.wanted if verdict is not None else 0,
        image=service.image,
        since=since,
        cause=judged.cause,
        next_step=judged.next_step,
        drift=drift(service),
        roll_out=roll_out(service),
    )
    return status, problems


def _key(state: State, name: str) -> str:
    """Return what an onset is kept under: going from one word for tasks that do not run to another is no new onset."""
    if state in {"held", "rejected"}:
        return f"record {name}"
    return f"{'contested' if state == 'contested' else 'service'} {name}"


def _is_slow(service: ServiceFacts, seconds: float) -> bool:
    """Return whether tasks that only take their time are a problem by now."""
    verdict = service.verdict
    is_at_it = verdict is not None and not verdict.done and bool(verdict.detail)
    return is_at_it and service.outcome is None and seconds >= UNFINISHED_SECONDS


def _problem(judged: _Judged, name: str, since: float) -> CurrentProblem:
    return CurrentProblem(
        kind=judged.state,
        subjects=(name,),
        cause=judged.shared or judged.cause,
        since=since,
        next_step=judged.next_step,
    )


def judge_service(service: ServiceFacts, book: ServiceBook, *, acts: bool = True) -> _Judged:
    """The state of a service, the gravest thing that is true of it. `acts`: somebody carries out what is left to do."""
    return next(_judge(service, book, acts), _Judged("as desired", is_problem=False))


def _judge(service: ServiceFacts, book: ServiceBook, acts: bool) -> Iterator[_Judged]:
    live, verdict = service.live, service.verdict
    outcome = service.undone
    if live is not None and live.is_stopped:
        yield _stopped(live)
    if verdict is not None and verdict.is_crash_looping:
        yield _Judged("crash-looping", _of_tasks(service), _next_for_tasks(service), verdict.crashing_since)
    if service.failure is not None:
        yield _Judged("failed", service.failure.reason, next_steps.RETRY_FAILED, _written_at(live))
    if live is None and outcome is not None:
        yield _Judged("missing", _of_outcome(outcome), _next_for(outcome))
    if service.rejection is not None:
        yield _of_rejection(service, service.rejection)
    if service.contest is not None:
        step = "end whatever else writes it; `serve.zone.writer` and the manager's log name who"
        yield _Judged("contested", service.contest.reason, step)
    if outcome is not None:
        state: State = "not done" if outcome.status == "failed" else "blocked"
        yield _Judged(state, _of_outcome(outcome), _next_for(outcome))
    if live is None:
        yield _absent(service, acts=acts)
    yield from _judge_tasks(service, book, acts)


def _absent(service: ServiceFacts, *, acts: bool) -> _Judged:
    """A service that is not in the Swarm, and for which nothing has failed."""
    if service.outcome is not None:
        return _Judged("waiting", _of_outcome(service.outcome), is_problem=False)
    if service.wait is not None:
        return _Judged("waiting", service.wait.reason, is_problem=False)
    step = "made by the next pass" if acts else "`coreflow apply` makes it"
    return _Judged("missing", "it is not in the Swarm", step)


def _judge_tasks(service: ServiceFacts, book: ServiceBook, acts: bool) -> Iterator[_Judged]:
    """Yield what is true of a service that is there, and can be written."""
    live, verdict = service.live, service.verdict
    if live is not None and verdict is not None and not verdict.done:
        if verdict.has_error:
            yield _Judged(
                "unfinished", _of_tasks(service), _next_for_tasks(service), _first_error(book.tasks(live))
            )
        if live.in_roll_out:
            started = seconds_of(live.update_started)
            change = roll_out(service)
            yield _Judged(
                "rolling out",
                f"{verdict.running} of {verdict.wanted}: {change.change if change else live.update_state}",
                "",
                started,
                is_problem=False,
            )
        yield _Judged("waiting", _of_tasks(service), is_problem=False)
    if verdict is not None and verdict.detail:
        step = service.wait.reason if service.wait is not None else next_steps.RETRY_FAILED
        yield _Judged("rolled back", verdict.detail, step, _written_at(live))
    if service.wait is not None:
        yield _Judged("waiting", service.wait.reason, is_problem=False)
    if service.outcome is not None:
        yield _Judged("waiting", _of_outcome(service.outcome), is_problem=False)
    if differs := drift(service):
        state: State = "drifted" if differs.startswith(BY_HAND) else "waiting"
        yield _Judged(state, differs, "" if acts else "`coreflow apply`", is_problem=not acts)


def _written_at(live: ObservedService | None) -> float:
    """Return when it was last written: a roll-back writes, and so does the note of it."""
    return seconds_of(live.updated_at) if live is not None else 0.0


def _stopped(live: ObservedService) -> _Judged:
    text, lease = told(live), read_lease(live.lease)
    given_up = lease is not None and lease.owner == NOBODY
    reason, _, step = text.partition(": ") if given_up else (text, "", "")
    return _Judged("stopped for a restore", reason, step, is_problem=given_up)


def _of_rejection(service: ServiceFacts, rejection: Rejection) -> _Judged:
    cause = "; ".join(rejection.reasons)
    if rejection.awaited:
        return _Judged("waiting", cause, is_problem=False)
    if rejection.held:
        shared = "; ".join(map(_without_image, rejection.reasons))
        return _Judged("held", cause, next_steps.BY_ITSELF, shared=shared)
    where = f"record {rejection.unit}: " if rejection.unit else ""
    return _Judged("rejected", cause, where + next_steps.MEND_RECORD)


def _without_image(reason: str) -> str:
    """A registry that is away holds many services: what it does to each image is the same."""
    text = reason.partition("; asked again")[0]
    return text.partition(": ")[2] or text if text.startswith("image ") else text


def _of_outcome(outcome: Outcome) -> str:
    action = outcome.step.action
    return f"{verb_of(action)} {kind_of(action)} {name_of(action)}: {outcome.detail or outcome.status}"


def _next_for(outcome: Outcome) -> str:
    if outcome.status == "blocked":
        return "mend what failed before it"
    return next_steps.BY_ITSELF if outcome.retry or outcome.again is not None else next_steps.MEND_RECORD


def _of_tasks(service: ServiceFacts) -> str:
    """Return what is wrong with the tasks, without what only changes while it goes on."""
    verdict = service.verdict
    if verdict is None:
        return ""
    if verdict.is_crash_looping:
        return f"ended {verdict.crashes} times, last: {verdict.error}"
    text = verdict.error if verdict.has_error else verdict.detail
    return f"{verdict.running} of {verdict.wanted} running" + (f": {text}" if text else "")


def _next_for_tasks(service: ServiceFacts) -> str:
    error = ""
    if service.verdict is not None:
        error = service.verdict.error or service.verdict.detail
    return next_steps.for_tasks(service.name, service.spec, service.image, error)


def _first_error(tasks: list[ObservedTask]) -> float:
    """Return when the first task was made that has an error, or cannot start, of those of the present spec."""
    times = [seconds_of(t.created_at) for t in tasks if t.is_current and (t.error or t.state == "complete")]
    return min((time for time in times if time > 0), default=0.0)


def drift(service: ServiceFacts) -> str:
    """Return what differs between the live service and the record, if anything."""
    spec, live = service.spec, service.live
    return "" if spec is None or live is None or spec.seal == live.seal else intent_of(spec, live)


def roll_out(service: ServiceFacts) -> RollOut | None:
    """Return what Swarm is replacing, if it is."""
    live = service.live
    if live is None or not live.in_roll_out:
        return None
    new, old = unpinned(live.body.image), unpinned(live.previous_image)
    change = f"image {old} → {new}" if old and old != new else "tasks are replaced"
    return RollOut(change=change, state=live.update_state, started=seconds_of(live.update_started))


def is_under_way(service: ServiceStatus) -> bool:
    """Return whether what it is in ends by itself."""
    return service.state in UNDER_WAY
