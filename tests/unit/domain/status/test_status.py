"""One status of everything: each kind of problem with its word, cause, onset and next step."""

from typing import Any

import pytest
from attrs import evolve
from tests.unit.domain.examples import (
    CLUSTER,
    desired,
    live,
    node,
    observed,
    report,
    result,
    spec,
    state,
    task,
)

from coreflow.domain.deploy.desired import Rejection
from coreflow.domain.deploy.problems import UNFINISHED_SECONDS
from coreflow.domain.deploy.result import Outcome, ReconcileResult
from coreflow.domain.deploy.steps import Contest, Failure, Plan, Refusal, Step, Wait
from coreflow.domain.errors import InvalidRecord, Problem, Refused, Unavailable
from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.records.models import BindingRecord
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.routes import Destination, HostClaim, Missing, Route, RouteTable
from coreflow.domain.status.connections import (
    CLOUDLY,
    CORETRAFFIC,
    ENGINE,
    NOBODY_HEARD,
    RECORDS,
    Connection,
)
from coreflow.domain.status.explain import explain
from coreflow.domain.status.make import make_status
from coreflow.domain.status.model import CurrentProblem, ServiceStatus, Status
from coreflow.domain.status.next_steps import for_tasks
from coreflow.domain.status.parts import NOTHING_WRONG, Facts, OperationStatus
from coreflow.domain.swarm import convergence, naming
from coreflow.domain.swarm.actions import Create, Update
from coreflow.domain.swarm.convergence import Verdict
from coreflow.domain.swarm.observed import ObservedService, ObservedTask

NOW = 2000.0
WEB = spec("web")
LIVE = live(WEB)
RUNS = Verdict(service="web", running=1, wanted=1, done=True)
STAMP, AT = "1970-01-01T00:16:40Z", 1000.0


def world(
    there: ObservedService | None = LIVE,
    *tasks: ObservedTask,
    verdict: Verdict = RUNS,
    plan: Plan | None = None,
    outcomes: tuple[Outcome, ...] = (),
) -> ReconcileResult:
    """The result of passes over one service, `web`."""
    seen = observed(*(() if there is None else (there,)), tasks=tasks, nodes=(node(),), time=1000.0)
    last = state(wanted=desired(WEB), observed=seen, plan=plan or Plan())
    return result(*((report(*outcomes),) if outcomes else ()), last=last, verdicts=(verdict,))


def facts(found: ReconcileResult | None = None, **more: Any) -> Facts:
    """Everything else as it should be."""
    values: dict[str, Any] = {"now": NOW, "looked": NOW - 3, "result": found or world()}
    return Facts(**(values | more))


def status_of(found: ReconcileResult | None = None, **more: Any) -> Status:
    """The first status of a process."""
    return make_status(facts(found, **more))[0]


def only(status: Status) -> CurrentProblem:
    """Its one problem."""
    (problem,) = status.problems
    return problem


def web(status: Status) -> ServiceStatus:
    """The service."""
    found = status.service("web")
    assert found is not None
    return found


def test_what_runs_is_as_desired() -> None:
    """Nothing else is said of it, and the time of the look is."""
    status = status_of()
    assert status.verdict == "as desired"
    assert status.problems == ()
    assert status.counts == {"as desired": 1}
    assert status.services == (
        ServiceStatus(name="web", record="id-web", state="as desired", running=1, wanted=1, image="app:1"),
    )
    assert (status.time, status.checked.services) == (NOW, NOW - 3)
    assert status.cluster == CLUSTER


def loop(error: str, **more: Any) -> Verdict:
    """A crash loop."""
    return Verdict(
        service="web",
        running=0,
        wanted=1,
        detail=f"crash-looping: {error}",
        has_error=True,
        crashes=7,
        crashing_since=1500.0,
        error=error,
        **more,
    )


def short(error: str) -> Verdict:
    """A service whose task does not start."""
    return Verdict(service="web", running=0, wanted=1, detail=error, has_error=True, error=error)


def failed(text: str, *, again: float | None = None) -> Outcome:
    """An action that the engine refused."""
    return Outcome(Step("id-web", Create(WEB, "new")), "failed", text, again=again)


REJECTED = Rejection(unit="id-web", name="web", reasons=("secret bundle b does not exist",))
CASES: tuple[tuple[str, ReconcileResult, str, str, str], ...] = (
    ("exits 1", world(verdict=loop("exits: task: non-zero exit (1)")), "crash-looping", "ended 7 times, last: exits: task: non-zero exit (1)", "docker service logs"),
    ("exits 0", world(verdict=loop("exits: its container ended with exit code 0")), "crash-looping", "exit code 0", "record id-web"),
    ("unhealthy", world(verdict=loop("health check fails: unhealthy container")), "crash-looping", "health check fails", "healthCheck"),
    ("maybe unhealthy", world(verdict=loop("exits: its container ended with exit code 0, maybe stopped since its health check failed")), "crash-looping", "health check failed", "healthCheck"),
    ("nodes too small", world(verdict=short("no suitable node (insufficient resources on 1 node)")), "unfinished", "insufficient resources", "`resources`"),
    ("image gone", world(verdict=short("image missing: No such image: app:1")), "unfinished", "0 of 1 running: image missing", "push app:1"),
    ("no suitable node", world(verdict=short("no suitable node (1 node not available)")), "unfinished", "no suitable node", "docker node update --availability active"),
    ("plugin missing", world(verdict=short("volume plugin missing on the nodes")), "unfinished", "volume plugin missing", "install the volume plugin"),
    ("anything else", world(verdict=short("starting container failed")), "unfinished", "starting container failed", "docker service ps --no-trunc web"),
    ("rolled back for good", world(plan=Plan(failures=(Failure("id-web", "web", "rolled back: exits"),))), "failed", "rolled back: exits", "--retry-failed"),
    ("rolled back", world(verdict=evolve(RUNS, detail="rollback completed: exits")), "rolled back", "rollback completed: exits", "--retry-failed"),
    ("record rejected", world(plan=Plan(rejections=(REJECTED,))), "rejected", "secret bundle b does not exist", "record id-web: mend the record"),
    ("registry down", world(plan=Plan(rejections=(Rejection(unit="id-web", name="web", reasons=("image r.example/app:1: r.example does not answer; asked again after 30 s",), held=True),))), "held", "r.example does not answer", "tried again by itself"),
    ("contested", world(plan=Plan(contests=(Contest("id-web", "web", "other:1", 3),))), "contested", "other:1, again and again", "serve.zone.writer"),
    ("not there", world(None, verdict=Verdict(service="web", running=0, wanted=1, detail="not there")), "missing", "not in the Swarm", "made by the next pass"),
    ("create refused", world(None, verdict=short("not there"), outcomes=(failed("invalid mount"),)), "missing", "create service web: invalid mount", "mend the record"),
    ("create refused for now", world(None, verdict=short("not there"), outcomes=(failed("busy", again=15.0),)), "missing", "busy", "tried again by itself"),
    ("update refused", world(outcomes=(evolve(failed("no"), step=Step("id-web", Update(WEB, LIVE, "image"))),)), "not done", "update service web: no", "mend the record"),
    ("blocked", world(outcomes=(evolve(failed("secret"), status="blocked"),)), "blocked", "secret", "mend what failed before it"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "kind", "cause", "step"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_each_problem_has_its_word_cause_and_next_step(
    found: ReconcileResult, kind: str, cause: str, step: str
) -> None:
    """The problem says the same as the service."""
    status = status_of(found)
    assert status.verdict == "degraded"
    problem, service = only(status), web(status)
    assert (problem.kind, problem.subjects) == (kind, ("web",))
    assert cause in problem.cause
    assert step in problem.next_step
    assert service.state == kind
    assert problem.cause in service.cause
    assert service.next_step == problem.next_step
    assert status.counts == {kind: 1}


def test_a_held_service_that_crash_loops_has_two_problems() -> None:
    """What runs is not as its record says, and does not run either."""
    held = Rejection(unit="id-web", name="web", reasons=("registry away",), held=True)
    status = status_of(world(verdict=loop("exits"), plan=Plan(rejections=(held,))))
    assert [problem.kind for problem in status.problems] == ["crash-looping", "held"]


@pytest.mark.parametrize(
    ("found", "state_", "cause"),
    [
        (
            world(plan=Plan(rejections=(evolve(REJECTED, held=True, awaited=True),))),
            "waiting",
            "secret bundle",
        ),
        (world(plan=Plan(waits=(Wait("id-web", "web", "tried again after a pause"),))), "waiting", "pause"),
        (world(None, plan=Plan(waits=(Wait("id-web", "web", "its database"),))), "waiting", "its database"),
        (world(None, outcomes=(evolve(failed("loading"), status="under way"),)), "waiting", "loading"),
        (world(outcomes=(evolve(failed("loading"), status="under way"),)), "waiting", "loading"),
        (
            world(verdict=Verdict(service="web", running=0, wanted=1, detail="preparing")),
            "waiting",
            "preparing",
        ),
        (world(live(WEB, by_hand={"replicas": 5})), "drifted", "changed by hand"),
        (world(live(spec("web", image="app:0"))), "waiting", "image app:0 → app:1"),
        (
            world(
                live(WEB, update_state="updating", update_started=STAMP, previous_image="app:0@sha256:b"),
                verdict=Verdict(service="web", running=1, wanted=3),
            ),
            "rolling out",
            "1 of 3: image app:0 → app:1",
        ),
    ],
)
def test_what_ends_by_itself_is_no_problem(found: ReconcileResult, state_: str, cause: str) -> None:
    """It is under way."""
    status = status_of(found)
    assert status.problems == ()
    assert status.verdict == "under way"
    assert web(status).state == state_
    assert cause in web(status).cause


def test_a_roll_out_has_its_beginning_and_what_it_changes() -> None:
    there = live(WEB, update_state="rollback_started", update_started=STAMP)
    found = web(status_of(world(there, verdict=Verdict(service="web", running=0, wanted=1))))
    assert found.roll_out is not None
    assert (found.roll_out.state, found.roll_out.started) == ("rollback_started", AT)
    assert found.since == AT


def test_drift_is_told() -> None:
    found = web(status_of(world(live(WEB, by_hand={"replicas": 5}))))
    assert found.drift == "changed by hand: replicas 5, wanted 1"


def test_a_service_that_only_takes_its_time_is_a_problem_after_a_minute() -> None:
    """As the log has it, and since it began."""
    found = world(verdict=Verdict(service="web", running=0, wanted=1, detail="new; it has no free address"))
    status, onsets = make_status(facts(found))
    assert web(status).state == "waiting"
    later, _ = make_status(facts(found, now=NOW + UNFINISHED_SECONDS, looked=NOW + 50), onsets)
    assert only(later).kind == web(later).state == "unfinished"
    assert only(later).since == NOW
    assert only(later).next_step.startswith("a larger network")


@pytest.mark.parametrize(
    ("there", "kind", "decision"),
    [
        (live(WEB, by_hand={"replicas": 5}), "drifted", "`coreflow apply` writes it"),
        (live(spec("web", image="app:0")), "waiting", "`coreflow apply` writes it"),
        (None, "missing", "`coreflow apply` makes it"),
    ],
)
def test_what_nobody_carries_out_is_a_problem(
    there: ObservedService | None, kind: str, decision: str
) -> None:
    """Where no daemon runs, the next step is a command."""
    verdict = RUNS if there is not None else short("not there")
    given = facts(world(there, verdict=verdict), acts=False)
    status, _ = make_status(given)
    assert only(status).kind == kind
    assert "coreflow apply" in only(status).next_step
    told = explain(given, status, "web")
    assert told is not None
    assert told.decision == decision


def test_the_status_of_one_service_has_its_problems_and_no_others() -> None:
    held = Rejection(unit="id-other", name="other", reasons=("away",), held=True)
    table = RouteTable(
        missing=(Missing(host="a.example", service="web", reason="no certificate"),), claims=(CLAIM,)
    )
    status = status_of(world(plan=Plan(rejections=(held,))), table=table)
    of_web = status.of("id-web")
    assert of_web is not None
    assert [p.subjects for p in of_web.problems] == [("a.example",)]
    assert (of_web.verdict, of_web.counts) == ("degraded", {"as desired": 1})
    other = status.of("other")
    assert other is not None
    assert ([p.kind for p in other.problems], other.hosts) == (["held"], ())
    assert status.of("nobody") is None
    away = status_of(connections=heard(ENGINE, Unavailable("gone"))).of("web")
    assert away is not None
    assert away.verdict == "unknown"
    fine, moving = status_of().of("web"), status_of(world(live(WEB, by_hand={"replicas": 5}))).of("web")
    assert fine is not None
    assert moving is not None
    assert (fine.verdict, moving.verdict) == ("as desired", "under way")


def test_an_onset_is_kept_while_its_problem_lasts() -> None:
    """Whatever else it is called meanwhile, and not beyond its end."""
    _, onsets = make_status(facts(world(verdict=short("no suitable node"))))
    looping = world(verdict=evolve(loop("exits"), crashing_since=NOW + 5))
    status, onsets = make_status(facts(looping, now=NOW + 60), onsets)
    assert only(status).since == NOW
    _, onsets = make_status(facts(now=NOW + 70), onsets)
    assert onsets == NOTHING_WRONG
    status, _ = make_status(facts(looping, now=NOW + 80), onsets)
    assert only(status).since == NOW + 5


@pytest.mark.parametrize(
    ("found", "since"),
    [
        (world(verdict=loop("exits")), 1500.0),
        (world(LIVE, task(LIVE, state="pending", error="no suitable node", created_at=STAMP), verdict=short("no suitable node")), AT),
        (world(live(WEB, updated_at=STAMP), plan=Plan(failures=(Failure("id-web", "web", "r"),))), AT),
        (world(plan=Plan(rejections=(REJECTED,))), NOW),
    ],
    ids=["crash loop", "task", "roll-back", "no trace"],
)  # fmt: skip
def test_an_onset_survives_a_restart_where_tasks_or_times_tell(found: ReconcileResult, since: float) -> None:
    """Else it is when this process saw it first."""
    assert only(status_of(found)).since == since


def test_services_that_one_registry_holds_are_one_problem() -> None:
    """With as many subjects, whatever their images are called."""
    rejections = tuple(
        Rejection(
            unit=f"id-{n}", name=n, reasons=(f"image r.example/{n}:1: r.example answers 503",), held=True
        )
        for n in ("blog", "shop", "wiki")
    )
    problem = only(status_of(world(plan=Plan(rejections=rejections))))
    assert problem.subjects == ("blog", "shop", "wiki")
    assert problem.cause == "r.example answers 503"


def test_a_held_service_is_seen_all_the_same() -> None:
    """Nothing is wanted of it now, but it runs on."""
    held = Rejection(unit="id-web", name="web", reasons=("away",), held=True)
    there = observed(LIVE, tasks=(task(LIVE),), nodes=(node(),), time=1000.0)
    last = state(wanted=desired(), observed=there, plan=Plan(rejections=(held,)))
    given = facts(result(last=last))
    found = web(make_status(given)[0])
    assert (found.state, found.running, found.wanted, found.image) == ("held", 1, 1, "app:1")
    told = explain(given, make_status(given)[0], "web")
    assert told is not None
    assert (told.record, told.spec) == ("held: away", None)


def test_a_service_without_a_record_waits_for_its_end() -> None:
    """It runs until whatever takes its place does."""
    there = observed(LIVE, time=1000.0)
    wait = Wait("id-web", "web", "runs until new does (renamed)")
    given = facts(result(last=state(wanted=desired(), observed=there, plan=Plan(waits=(wait,)))))
    status, _ = make_status(given)
    told = explain(given, status, "web")
    assert told is not None
    assert told.record == "no record wants it"


def test_a_roll_back_that_is_final_is_not_written_again() -> None:
    """Although nobody has noted it yet."""
    labels = {naming.FAILED: WEB.fingerprints.whole, naming.FAILED_CAUSE: "image"}
    given = facts(world(live(spec("web", image="app:0"), labels=labels)))
    told = explain(given, make_status(given)[0], "web")
    assert told is not None
    assert told.decision == "Swarm rolled this back: it is not tried again by itself"


def test_a_refused_removal_names_its_token() -> None:
    refusal = Refusal(("a", "b"), 3, "tok")
    problem = only(status_of(world(plan=Plan(refusal=refusal))))
    assert (problem.kind, problem.subjects) == ("refused", ("removal",))
    assert problem.cause == "removing 2 of 3 services needs a confirmation: a, b"
    assert "coreflow apply --confirm-removal tok" in problem.next_step


# peers


def heard(peer: str, error: Exception | None, at: float = 1900.0, where: str = "") -> tuple[Connection, ...]:
    """One connection."""
    return tuple(NOBODY_HEARD.after(peer, where, error, at).entries.values())


@pytest.mark.parametrize(
    ("connections", "kind", "verdict", "step"),
    [
        (
            heard(ENGINE, Unavailable("the engine does not answer")),
            "away",
            "unknown",
            "systemctl status docker",
        ),
        (
            heard(ENGINE, Refused("this node is not a swarm manager")),
            "refused",
            "unknown",
            "manager of a Swarm",
        ),
        (heard(CLOUDLY, Unavailable("connection refused")), "away", "degraded", "CLOUDLY_URL"),
        (heard(CLOUDLY, Refused("token refused")), "refused", "degraded", "JUMPCODE"),
        (
            heard(RECORDS, InvalidRecord(Problem("$", "not valid YAML"))),
            "rejected",
            "degraded",
            "coreflow check",
        ),
        (heard(RECORDS, Unavailable("no such file")), "away", "degraded", "CLOUDLY_URL"),
    ],
)
def test_a_peer_that_is_away_is_a_problem_since_it_went(
    connections: tuple[Connection, ...], kind: str, verdict: str, step: str
) -> None:
    """With what it said last, and what runs goes on."""
    status = status_of(connections=connections)
    problem = only(status)
    assert (problem.kind, problem.subjects) == (kind, (connections[0].peer,))
    assert problem.cause == connections[0].error
    assert problem.since == 1900.0
    assert step in problem.next_step
    assert status.verdict == verdict


def test_a_connection_is_up_and_down_since_it_changed() -> None:
    """And remembers what went wrong last."""
    there = NOBODY_HEARD.after(ENGINE, "", None, 1.0).after(ENGINE, "", None, 2.0)
    assert there.of(ENGINE) == (Connection(peer=ENGINE, is_up=True, since=1.0, checked=2.0),)
    away = there.after(ENGINE, "", Unavailable("gone"), 3.0).after(ENGINE, "", Unavailable("gone"), 4.0)
    (entry,) = away.of(ENGINE)
    assert (entry.is_up, entry.since, entry.checked, entry.fault) == (False, 3.0, 4.0, "away")
    (entry,) = away.after(ENGINE, "", None, 5.0).of(ENGINE)
    assert (entry.is_up, entry.since, entry.error, entry.fault) == (True, 5.0, "gone", "")


def test_services_are_unknown_while_the_engine_is_away() -> None:
    """What they were is said as what it is: the past. What was wrong keeps its onset."""
    found = world(verdict=short("no suitable node"))
    _, onsets = make_status(facts(found))
    away = facts(found, now=NOW + 30, connections=heard(ENGINE, Unavailable("gone")))
    status, onsets = make_status(away, onsets)
    service = web(status)
    assert (service.state, service.since) == ("unknown", NOW - 3)
    assert service.cause == "not seen since the engine went away; then it was unfinished"
    assert [problem.kind for problem in status.problems] == ["away"]
    assert status.counts == {"unknown": 1}
    status, _ = make_status(facts(found, now=NOW + 60, looked=NOW + 60), onsets)
    assert only(status).since == NOW


def test_nobody_knows_how_services_are_that_nobody_has_looked_at() -> None:
    """Before the first pass, and long after the last."""
    never = make_status(Facts(now=NOW))[0]
    assert (never.verdict, never.services, never.checked.services) == ("unknown", (), None)
    late = status_of(looked=NOW - 601, stale_seconds=600.0)
    assert late.verdict == "unknown"
    assert web(late).cause == "no pass has ended lately; then it was as desired"


def test_a_pass_that_fails_is_a_problem() -> None:
    problem = only(status_of(pass_error="a bug: KeyError"))
    assert (problem.kind, problem.subjects, problem.cause) == ("failed", ("pass",), "a bug: KeyError")


def test_records_are_as_old_as_the_connection_that_brought_them() -> None:
    """While Cloudly is away its last records stay in force, however often they are read."""
    read = heard(RECORDS, None, 1990.0)
    assert status_of(connections=read).checked.records == 1990.0
    away = (*read, *heard(CLOUDLY, Unavailable("gone"), 1700.0))
    assert status_of(connections=away).checked.records == 1700.0


# hosts


def route(not_before: float, not_after: float) -> Route:
    """A host of `web` with a certificate."""
    return Route(
        host="a.example",
        service="web",
        port=80,
        destinations=(Destination(address="10.0.0.2", task_id="t", node_id=None),),
        certificate=Certificate(
            chain="CHAIN",
            key="KEY",
            names=("a.example",),
            issuer="CA",
            not_before=not_before,
            not_after=not_after,
        ),
    )


CLAIM = HostClaim(host="a.example", service="web", port=80)


@pytest.mark.parametrize(("end", "kinds"), [(100_000.0, []), (2100.0, ["certificate expires"])])
def test_a_certificate_that_should_have_been_replaced_is_a_problem(end: float, kinds: list[str]) -> None:
    """After nine tenths of its life."""
    status = status_of(table=RouteTable(routes=(route(0.0, end),), claims=(CLAIM,)), routed=NOW)
    assert [problem.kind for problem in status.problems] == kinds
    (host,) = status.hosts
    assert (host.is_routed, host.tasks, host.issuer, host.expires, host.port) == (True, 1, "CA", end, 80)
    assert status.checked.hosts == NOW
    if kinds:
        assert only(status).since == pytest.approx(1890.0)
        assert only(status).subjects == ("a.example",)
        assert "ends in 0 hours" in only(status).cause


def test_a_host_without_a_certificate_is_a_problem() -> None:
    missing = Missing(host="a.example", service="web", reason="Cloudly has none")
    status = status_of(table=RouteTable(missing=(missing,), claims=(CLAIM,)))
    assert (only(status).kind, only(status).cause) == ("not routed", "Cloudly has none")
    (host,) = status.hosts
    assert (host.is_routed, host.cause, host.port) == (False, "Cloudly has none", 80)


def test_a_host_whose_service_has_a_problem_has_none_of_its_own() -> None:
    missing = Missing(host="a.example", service="web", reason="no task of the service runs yet", is_dead=True)
    table = RouteTable(missing=(missing,), claims=(CLAIM,))
    assert only(status_of(world(verdict=loop("exits")), table=table)).kind == "crash-looping"
    assert only(status_of(table=table)).kind == "not routed"


def test_hosts_without_any_proxy_are_a_problem() -> None:
    table = RouteTable(routes=(route(0.0, 1e6),), claims=(CLAIM,))
    assert only(status_of(table=table, counts_proxies=True)).subjects == (CORETRAFFIC,)
    proxy = heard(CORETRAFFIC, None, where="node")
    assert status_of(table=table, counts_proxies=True, connections=proxy).problems == ()


# the rest


@pytest.mark.parametrize(("kind", "command"), [("backup", "coreflow backup"), ("restore", "--backup b1")])
def test_a_backup_that_failed_is_a_problem_until_one_is_complete(kind: Any, command: str) -> None:
    operation = OperationStatus(
        kind=kind, service_id="id-web", backup_id="b1", state="failed", since=1800.0, error="disk full"
    )
    problem = only(status_of(operations=(operation,)))
    assert (problem.kind, problem.subjects, problem.cause) == (f"{kind} failed", ("web",), "disk full")
    assert problem.since == 1800.0
    assert command in problem.next_step
    assert status_of(operations=(evolve(operation, state="completed"),)).problems == ()


def test_a_service_that_is_stopped_for_a_restore_is_under_way() -> None:
    there = live(WEB, labels={naming.STOPPED: "1", naming.RESTORE: "{}"})
    status = status_of(world(there, verdict=Verdict(service="web", running=0, wanted=1, detail="restore")))
    assert web(status).state == "stopped for a restore"
    assert (status.verdict, status.problems) == ("under way", ())


def test_a_restore_that_was_given_up_is_a_problem() -> None:
    """With the commands that help as the next step."""
    lease = '{"id":"r1","backupId":"b1","holder":"","beat":3,"hasBegun":true,"parts":[]}'
    there = live(WEB, labels={naming.STOPPED: "1", naming.RESTORE: lease})
    problem = only(
        status_of(world(there, verdict=Verdict(service="web", running=0, wanted=1, detail="restore")))
    )
    assert problem.kind == "stopped for a restore"
    assert "could not be finished" in problem.cause
    assert "coreflow restore web" in problem.next_step


def test_bindings_and_free_addresses_are_told() -> None:
    record = BindingRecord(id="b1", service_id=ServiceId("id-web"), capability="database")
    status = status_of(bindings=(BindingStatus(binding=record, state="ready"),))
    (binding,) = status.bindings
    assert (binding.id, binding.service, binding.capability, binding.state) == (
        "b1",
        "id-web",
        "database",
        "ready",
    )


def test_every_meaning_of_an_error_has_a_next_step() -> None:
    """Those that convergence knows."""
    for _, meaning in convergence._HINTS:
        assert "docker service ps" not in for_tasks("web", WEB, "app:1", meaning)


# one service


def test_a_service_is_explained_from_record_to_tasks() -> None:
    """By its name, or by the id of its record."""
    there = live(WEB, by_hand={"replicas": 5}, updated_at=STAMP)
    ended = task(
        there, 1, state="failed", desired_state="shutdown", error="task: non-zero exit (1)", created_at="1"
    )
    runs = task(there, 2, node_id=NodeId("node"), created_at="0")
    found = facts(world(there, ended, runs))
    status, _ = make_status(found)
    told = explain(found, status, "id-web")
    assert told == explain(found, status, "web")
    assert told is not None
    assert told.record == "rendered"
    assert told.spec is not None
    assert told.live is not None
    assert (told.spec.replicas, told.live.replicas) == (1, 5)
    assert told.differences == ("changed by hand: replicas 5, wanted 1",)
    assert told.decision == "written by the next pass"
    assert told.written == AT
    assert [(t.id, t.node, t.error) for t in told.tasks] == [
        ("task-web-2", "node", ""),
        ("task-web-1", "", "exits: task: non-zero exit (1)"),
    ]
    assert explain(found, status, "other") is None


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        (world(), "nothing differs"),
        (world(verdict=loop("exits")), "its spec is what its record says"),
        (world(plan=Plan(rejections=(REJECTED,))), "nothing that it has is touched"),
        (world(plan=Plan(failures=(Failure("id-web", "web", "r"),))), "not tried again"),
        (world(plan=Plan(waits=(Wait("id-web", "web", "the roll-out"),))), "waits: the roll-out"),
        (world(outcomes=(failed("no"),)), "failed: no"),
        (world(None, verdict=short("not there")), "it is made by the next pass"),
        (world(live(WEB, labels={naming.STOPPED: "1"})), "until the restore has ended"),
        (world(live(WEB, by_hand={"replicas": 5}, update_state="updating")), "until the roll-out ends"),
    ],
)
def test_it_is_said_why_nothing_or_something_is_done(found: ReconcileResult, decision: str) -> None:
    given = facts(found)
    told = explain(given, make_status(given)[0], "web")
    assert told is not None
    assert decision in told.decision


def test_nothing_is_written_while_the_engine_is_away() -> None:
    given = facts(connections=heard(ENGINE, Unavailable("gone")))
    told = explain(given, make_status(given)[0], "web")
    assert told is not None
    assert told.decision == "nothing can be written while the engine is away"
