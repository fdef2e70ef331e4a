"""Every rule of the planner, in tables."""

from itertools import permutations
from typing import Any

import pytest
from attrs import define, evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit.domain.examples import (
    CLUSTER,
    START_FIRST,
    STOP_FIRST,
    WEB,
    desired,
    foreign,
    image_spec,
    live,
    mounting,
    network,
    network_spec,
    node,
    observed,
    secret,
    secret_spec,
    spec,
    task,
    volume,
)

from coreflow.domain.deploy.changes import SURPLUS_SECONDS
from coreflow.domain.deploy.contention import WriteLog
from coreflow.domain.deploy.desired import Desired, Note, Rejection, unit_of
from coreflow.domain.deploy.draft import OF_NO_ID
from coreflow.domain.deploy.plan import IN_USE, make_plan
from coreflow.domain.deploy.removals import NAMED, SECRET_GRACE_SECONDS, removal_token
from coreflow.domain.deploy.rollback import MOST_ATTEMPTS, NO_RECORD, PAUSES
from coreflow.domain.deploy.steps import (
    Plan,
    PlanOptions,
    Refusal,
    kind_of,
    name_of,
    owner_of,
    stage_of,
    subject_of,
    verb_of,
)
from coreflow.domain.ids import BASE, NodeId, ServiceId
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Create, MarkFailed, Recreate, Remove, Update
from coreflow.domain.swarm.failures import Cause
from coreflow.domain.swarm.observed import Observed, ObservedService, seconds_of
from coreflow.domain.swarm.specs import (
    HealthCheck,
    Limits,
    PublishedPort,
    RestartPolicy,
    ServiceSpec,
    Stage,
    template_fingerprint,
)

OLD, NEW = spec(), spec(image="app:2@sha256:bb")


def told(plan: Plan) -> list[str]:
    """The actions, in words."""
    return [f"{verb_of(a)} {kind_of(a)} {name_of(a)}: {a.reason}" for a in plan.actions]


def done(want: Desired, seen: Observed, **options: Any) -> list[str]:
    """What the plan for this world does, in words."""
    return told(make_plan(want, seen, PlanOptions(**options)))


# keep, create, update


def test_nothing_wanted_and_nothing_there_is_nothing_to_do() -> None:
    """An empty world has an empty and clean plan."""
    plan = make_plan(desired(), observed())
    assert plan == Plan()
    assert plan.is_clean


def test_what_is_as_desired_is_kept() -> None:
    """A service whose label, body, login and owner are as desired is counted and not written."""
    assert make_plan(desired(OLD), observed(live(OLD))) == Plan(kept=1)


def test_a_service_that_is_not_there_is_made() -> None:
    """A wanted service, its image and its secret are made when they are not there, what it needs first."""
    want = spec(**mounting("web-1"))
    goal = desired(want, secrets={"web": secret_spec("web-1")}, images={"web": image_spec("app:1")})
    plan = make_plan(goal, observed())
    assert told(plan) == [
        "create image app:1: web runs it",
        "create secret web-1: web mounts it",
        "create service web: new",
    ]
    assert {step.unit for step in plan.steps} == {"id-web"}
    assert {owner_of(a) for a in plan.actions} == {"id-web"}
    assert {stage_of(a) for a in plan.actions} == {Stage.WORKLOADS}


def test_a_new_case_of_a_name_is_a_new_service_in_place_of_the_old() -> None:
    """Swarm lets no service be renamed, nor two exist whose names differ by case only."""
    old = live(spec("Web", "id-web"))
    assert done(desired(spec("web", "id-web")), observed(old)) == [
        "recreate service web: renamed from Web; Swarm ignores case in names"
    ]


def test_a_secret_that_is_there_is_not_made_again() -> None:
    """The secret of a service that is made anew may be left from before."""
    goal = desired(spec(**mounting("web-1")), secrets={"web": secret_spec("web-1")})
    assert done(goal, observed(secrets=(secret("web-1"),))) == ["create service web: new"]


@pytest.mark.parametrize(
    ("label", "made"),
    [
        ("app:1", False),
        ("app:1@sha256:aa", False),
        ("app:0", True),
        (None, True),
    ],
)
def test_an_image_is_loaded_only_for_a_service_that_did_not_have_it(label: str | None, made: bool) -> None:
    """An update loads the archive only when the service was last written with another reference."""
    want = spec(image="app:1", env=("A=1",))
    there = live(spec(image="app:1"))
    labels = {k: v for k, v in there.labels.items() if k != naming.IMAGE}
    there = evolve(there, labels=labels | ({naming.IMAGE: label} if label else {}))
    plan = make_plan(desired(want, images={"web": image_spec("app:1")}), observed(there))
    assert [kind_of(a) for a in plan.actions] == (["image", "service"] if made else ["service"])


def test_a_network_is_made_once() -> None:
    """Base networks that are not there are made; one that is there is left as it is."""
    goal = desired(networks=(network_spec("one"), network_spec("two")))
    assert done(goal, observed(networks=(network("one"),))) == ["create network two: new"]


HEALTH = HealthCheck(test=("CMD", "true"))
CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"image": "app:2@sha256:bb"}, "image app:1 → app:2"),
    ({}, {"image": "app:1@sha256:bb"}, "image app:1: sha256:aa → sha256:bb"),
    ({}, {"image": "app:1"}, "image app:1: sha256:aa → no digest"),
    ({}, mounting("a"), "secret missing"),
    (mounting("a"), mounting("b"), "secret rotated"),
    (mounting("a"), {}, "secret no longer wanted"),
    ({}, {"mounts": (volume("/a"), volume("/b"))}, "mount /a added; mount /b added"),
    ({"mounts": (volume("/a"),)}, {"mounts": (volume("/b"),)}, "mount /a removed; mount /b added"),
    ({"mounts": (volume("/a"),)}, {"mounts": (volume("/a", read_only=True),)}, "mount /a changed"),
    ({}, {"mounts": (volume("/a"),), "update": STOP_FIRST}, "mount /a added"),
    ({"mounts": (volume("/a"),)}, {"mounts": (volume("/a"), volume("/b"))}, "mount /b added"),
    ({}, {"replicas": 3}, "replicas 1, wanted 3"),
    ({}, {"env": ("A=secret", "B=2")}, "env A, B"),
    ({"env": ("A=secret", "B=2")}, {"env": ("A=other", "B=2")}, "env A"),
    ({"env": ("A=1", "B=2")}, {"env": ("B=2", "A=1")}, "env (order)"),
    ({}, {"ports": (PublishedPort(published=80, target=80),)}, "ports"),
    ({}, {"networks": (WEB,)}, "networks"),
    ({"networks": (WEB,)}, {"networks": (evolve(WEB, aliases=("web",)),)}, "networks"),
    ({}, {"command": ("x",)}, "command"),
    ({}, {"args": ("x",)}, "arguments"),
    ({}, {"endpoint_mode": "vip"}, "endpoint mode"),
    ({}, {"limits": Limits(memory_bytes=1)}, "limits"),
    ({}, {"reservations": Limits(nano_cpus=1)}, "reservations"),
    ({}, {"constraints": ("node.id==x",)}, "placement"),
    ({}, {"max_per_node": 1}, "tasks per node"),
    ({}, {"health_check": HEALTH}, "health check"),
    ({}, {"restart": RestartPolicy(max_attempts=1)}, "restart policy"),
    ({}, {"update": STOP_FIRST}, "update policy"),
    ({}, {"rollback": STOP_FIRST}, "roll-back policy"),
    ({"other": (("A.B", "1"), ("C", "2"))}, {"other": (("C", "3"),)}, "A.B; C"),
    ({}, {"args": ("x",), "image": "app:2"}, "image app:1 → app:2; arguments"),
]


@pytest.mark.parametrize(("before", "after", "reason"), CHANGES)
def test_a_change_of_the_record_updates_in_place(
    before: dict[str, Any], after: dict[str, Any], reason: str
) -> None:
    """A changed record is written in place, with a reason that names what changed and no value."""
    plan = make_plan(desired(spec(**after)), observed(live(spec(**before))))
    assert told(plan) == [f"update service web: {reason}"]


@pytest.mark.parametrize(("before", "after", "reason"), CHANGES)
def test_a_change_by_hand_is_put_right(before: dict[str, Any], after: dict[str, Any], reason: str) -> None:
    """A body that is not what we last wrote is written again, and the reason says that somebody changed it."""
    want = spec(**after)
    assert done(desired(want), observed(live(want, by_hand=_fields(spec(**before))))) == [
        f"update service web: changed by hand: {reason.replace('; ', ', ')}"
    ]


def _fields(written: Any) -> dict[str, Any]:
    return {name: getattr(written.body, name) for name in written.body.__slots__ if name != "__weakref__"}


def test_a_reason_tells_the_record_from_the_hand() -> None:
    """Where the record changed one aspect and somebody another, the reason says which is which."""
    want = spec(image="app:2@sha256:bb")
    there = live(OLD, by_hand={"env": ("TOKEN=hidden",)})
    assert done(desired(want), observed(there)) == [
        "update service web: image app:1 → app:2; changed by hand: env TOKEN"
    ]


def test_labels_that_do_not_fit_what_runs_are_written_anew() -> None:
    """A body as desired under another fingerprint label gets its labels; without the aspects it is a change by hand."""
    assert done(desired(OLD), observed(live(OLD, labels={naming.FINGERPRINT: "v0:x"}))) == [
        "update service web: labels do not match what runs"
    ]
    there = live(OLD, by_hand={"args": ("x",)}, labels={naming.FINGERPRINT: "v0:x"})
    assert done(desired(OLD), observed(there)) == ["update service web: changed by hand: arguments"]


def test_what_swarm_expanded_becomes_literal() -> None:
    """A live value that Swarm took for a template, though it was sent as recorded, is told from a change by hand."""
    want = spec(env=("A={{.Service.Name}}",))
    there = live(want, by_hand={"other": (("env A (a template of Swarm's)", "true"),)})
    assert done(desired(want), observed(there)) == [
        "update service web: becomes literal text: env A (a template of Swarm's)"
    ]
    escaped = live(spec(env=('A={{"{{"}}',)), by_hand={"env": ("A={{",)})
    assert done(desired(spec(env=('A={{"{{"}}',))), observed(escaped)) == [
        "update service web: becomes literal text: env A"
    ]


def test_a_changed_login_is_written() -> None:
    """The nodes must get the new login, even though the body is as desired."""
    want = spec(login="new")
    assert done(desired(want), observed(live(spec(login="old")))) == [
        "update service web: registry login changed"
    ]
    assert done(desired(want), observed(live(spec(login="new")))) == []


# recreate

MODES = [({"replicas": None}, {}), ({}, {"replicas": None})]


@pytest.mark.parametrize(("before", "after"), MODES)
def test_another_mode_needs_a_new_service(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Swarm refuses to change the mode in place, so the service is made anew, by record and by hand."""
    want = spec(**after)
    recreated = "mode (Swarm changes no mode in place)"
    assert done(desired(want), observed(live(spec(**before)))) == [f"recreate service web: {recreated}"]
    there = live(want, by_hand={"replicas": spec(**before).body.replicas})
    assert done(desired(want), observed(there)) == [f"recreate service web: changed by hand: {recreated}"]


@pytest.mark.parametrize(
    ("after", "verb"),
    [
        ({"image": "app:2"}, "recreate"),
        (mounting("a"), "recreate"),
        ({"mounts": (volume(),)}, "recreate"),
        ({"env": ("A=1",)}, "update"),
        ({"replicas": 2}, "update"),
        ({"limits": Limits(memory_bytes=1)}, "update"),
    ],
)
def test_an_operator_may_choose_to_recreate(after: dict[str, Any], verb: str) -> None:
    """With COREFLOW_UPDATE=recreate a changed image, secret or volume makes the service anew; the rest does not."""
    plan = make_plan(desired(spec(**after)), observed(live(OLD)), PlanOptions(recreate=True))
    assert [verb_of(a) for a in plan.actions] == [verb]


# roll-outs and roll-backs


@pytest.mark.parametrize("state", ["updating", "rollback_started"])
@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (live(OLD, by_hand={"args": ("x",)}), "changed by hand: arguments"),
        (live(OLD, labels={naming.LOGIN: "old"}), "registry login changed"),
    ],
)
def test_a_roll_out_in_progress_is_left_alone(state: str, there: ObservedService, reason: str) -> None:
    """While Swarm replaces tasks a difference waits, as long as the record is the one that was written."""
    plan = make_plan(desired(OLD), observed(evolve(there, update_state=state)))
    assert plan.actions == ()
    assert [wait.reason for wait in plan.waits] == [f"{reason}; after the roll-out in progress ({state})"]


def test_a_kept_service_may_be_rolling() -> None:
    """A service that rolls out what we want is kept."""
    assert make_plan(desired(OLD), observed(live(OLD, update_state="updating"))).kept == 1


# two tasks in the place of one

TWICE = "two tasks run in the place of one, and Swarm ends one of them when the service is written"
ROLLED_OUT, SINCE = "2026-01-01T10:00:00Z", seconds_of("2026-01-01T10:00:05Z")
"""When the roll-out ended, and the younger task was seen running."""


def doubled(there: ObservedService, time: float, *slots: int | None, **changes: Any) -> Plan:
    """The plan for a service with running tasks in these slots."""
    tasks = tuple(
        task(there, number, slot=slot, updated_at=f"2026-01-01T10:00:0{5 - number}Z", **changes)
        for number, slot in enumerate(slots)
    )
    return make_plan(desired(OLD), observed(there, tasks=tasks, time=time))


def test_a_task_too_many_is_ended_by_a_write() -> None:
    """Swarm may do so by itself, so it has a while; the service is as desired all the time, and written all the same."""
    there = live(OLD, update_state="completed", updated_at=ROLLED_OUT)
    waiting = doubled(there, SINCE + SURPLUS_SECONDS - 1, 1, 1, 2)
    assert (waiting.actions, waiting.kept) == ((), 0)
    assert [(wait.reason, wait.until) for wait in waiting.waits] == [
        (f"{TWICE}; in case it does so by itself, after a pause", SINCE + SURPLUS_SECONDS)
    ]
    plan = doubled(there, SINCE + SURPLUS_SECONDS, 1, 1, 2)
    assert told(plan) == [f"update service web: {TWICE}"]
    assert (plan.kept, plan.waits) == (0, ())


def test_a_task_too_many_that_stays_is_not_written_at_in_every_pass() -> None:
    """A write that has not helped yet is followed by another one after the same while."""
    again = live(OLD, updated_at="2026-01-01T10:10:00Z")
    assert [wait.until for wait in doubled(again, SINCE + 600, 1, 1).waits] == [
        SINCE - 5 + 600 + SURPLUS_SECONDS
    ]
    assert told(doubled(again, SINCE + 600 + SURPLUS_SECONDS, 1, 1)) == [f"update service web: {TWICE}"]


@pytest.mark.parametrize(
    ("there", "slots", "changes"),
    [
        (live(OLD), (1, 2), {}),
        (live(OLD), (None, None), {}),
        (live(OLD, update_state="updating"), (1, 1), {}),
        (live(OLD, update_state="rollback_paused"), (1, 1), {}),
        (live(OLD, labels={naming.STOPPED: "1"}), (1, 1), {}),
        (live(OLD), (1, 1), {"desired_state": "shutdown"}),
        (live(OLD), (1, 1), {"state": "starting"}),
    ],
)
def test_no_task_is_too_many(there: ObservedService, slots: Any, changes: dict[str, Any]) -> None:
    """Tasks in places of their own, those that are to end or do not run yet, and those that a roll-out sees to."""
    assert doubled(there, SINCE + 3600, *slots, **changes).actions == ()


def test_a_global_service_has_a_task_on_each_node() -> None:
    """There, the node is the place."""
    want = spec(replicas=None)
    there = live(want)
    for nodes, expected in ((("n1", "n2"), []), (("n1", "n1"), [f"update service web: {TWICE}"])):
        tasks = tuple(task(there, number, node_id=NodeId(name)) for number, name in enumerate(nodes))
        assert done(desired(want), observed(there, tasks=tasks, time=SINCE)) == expected


def test_a_new_record_overtakes_a_roll_out() -> None:
    """A record that changed since the roll-out began is written at once."""
    third = template_fingerprint(spec(image="app:3").body)
    for state in ("updating", "rollback_started"):
        there = live(OLD, update_state=state)
        tasks = (failed(there, template=third, state="shutdown"),)
        assert len(done(desired(NEW), observed(there, tasks=tasks))) == 1


EXIT = "task: non-zero exit (1)"


def failed(service: ObservedService, **changes: Any) -> Any:
    """A task of the spec `NEW` that failed."""
    given = {
        "state": "failed",
        "template": template_fingerprint(NEW.body),
        "created_at": "5",
        "error": EXIT,
    }
    return task(service, **(given | changes))


CHANGE = "image app:1 → app:2"


@pytest.mark.parametrize(
    ("state", "actions", "failures", "waits"),
    [
        (
            "rollback_completed",
            ["mark failed service web: rolled back: task: non-zero exit (1)"],
            [f"{CHANGE}: rolled back: task: non-zero exit (1); not tried again"],
            [],
        ),
        ("rollback_paused", [], [f"{CHANGE}: roll-back stuck: task: non-zero exit (1); not tried again"], []),
        (
            "rollback_started",
            [],
            [],
            [f"is being rolled back: {CHANGE}: rolled back: task: non-zero exit (1)"],
        ),
        ("updating", [f"update service web: {CHANGE}"], [], []),
        ("completed", [f"update service web: {CHANGE}"], [], []),
        ("paused", [f"update service web: {CHANGE}"], [], []),
    ],
)
def test_a_spec_that_was_rolled_back_is_noted(
    state: str, actions: list[str], failures: list[str], waits: list[str]
) -> None:
    """A rolled-back spec is marked once Swarm is at rest; a stuck roll-back is not written, one under way waits."""
    there = live(OLD, update_state=state)
    plan = make_plan(desired(NEW), observed(there, tasks=(failed(there),)))
    assert told(plan) == actions
    assert [f.reason for f in plan.failures] == failures
    assert [w.reason for w in plan.waits] == waits
    assert plan.is_clean is not bool(failures)


@pytest.mark.parametrize(
    ("changes", "blamed"),
    [
        ({}, True),
        ({"state": "rejected"}, True),
        ({"state": "complete", "error": ""}, True),
        ({"created_at": "3"}, True),
        ({"template": template_fingerprint(spec(image="app:3").body)}, False),
        ({"template": template_fingerprint(spec(image="app:3").body), "state": "shutdown"}, False),
        # nothing tells what it was: then it was what we want
        ({"state": "shutdown"}, True),
        ({"template": template_fingerprint(OLD.body)}, True),
        ({"template": None}, True),
        ({"created_at": "2"}, True),
        ({"service_id": "another"}, True),
    ],
)
def test_a_spec_was_rolled_back_unless_another_one_was(changes: dict[str, Any], blamed: bool) -> None:
    """Only a task of this roll-out that was made from another spec tells that what we want was never tried."""
    there = live(OLD, update_state="rollback_completed", update_started="3")
    plan = make_plan(desired(NEW), observed(there, tasks=(failed(there, **changes),)))
    assert [verb_of(a) for a in plan.actions] == ["mark failed" if blamed else "update"]


NOW = 1000.0
KILLED = "task: non-zero exit (137)"
STAMP = "1970-01-01T00:16:00Z"
"""40 seconds before that."""


def noted(times: int, cause: Cause = Cause.PLATFORM) -> dict[str, str]:
    """Labels that tell of failed attempts at `NEW`."""
    return {
        naming.FAILED: NEW.fingerprints.whole,
        naming.FAILED_REASON: "killed",
        naming.FAILED_CAUSE: cause.value,
        naming.FAILED_TIMES: str(times),
    }


def test_a_failure_of_the_platform_is_noted_and_tried_again() -> None:
    """A task that was killed from outside says nothing of its image: the roll-back is noted, and is no failure yet."""
    there = live(OLD, update_state="rollback_completed", updated_at=STAMP)
    plan = make_plan(desired(NEW), observed(there, tasks=(failed(there, error=KILLED),), time=NOW))
    (action,) = plan.actions
    assert isinstance(action, MarkFailed)
    assert (action.cause, action.times) == (Cause.PLATFORM, 1)
    assert plan.failures == ()
    assert [wait.until for wait in plan.waits] == [960.0 + PAUSES[0]]


@pytest.mark.parametrize(
    ("times", "verb"), [(1, "update"), (2, "update"), (3, "wait"), (4, "wait"), (MOST_ATTEMPTS, "failed")]
)
def test_attempts_are_few_and_further_and_further_apart(times: int, verb: str) -> None:
    """40 s after the note, the second and third attempt are due, later ones are not, and then it is final."""
    there = live(OLD, labels=noted(times), updated_at=STAMP)
    plan = make_plan(desired(NEW), observed(there, time=NOW))
    found = [
        *(verb_of(a) for a in plan.actions),
        *("wait" for _ in plan.waits),
        *("failed" for _ in plan.failures),
    ]
    assert found == [verb]


def test_an_attempt_that_fails_again_counts_on() -> None:
    """The labels of the note come back with the roll-back: the next note has one attempt more."""
    there = live(OLD, labels=noted(2), update_state="rollback_completed", updated_at=STAMP)
    plan = make_plan(desired(NEW), observed(there, tasks=(failed(there, error=KILLED),), time=NOW))
    (action,) = plan.actions
    assert isinstance(action, MarkFailed)
    assert (action.cause, action.times) == (Cause.PLATFORM, 3)


def test_a_stuck_roll_back_is_written_again_where_the_platform_was_to_blame() -> None:
    """A roll-back that stopped because somebody killed its tasks, too, does not leave the old image for ever."""
    there = live(OLD, update_state="rollback_paused", updated_at=STAMP)
    tasks = (failed(there, error=KILLED),)
    assert [verb_of(a) for a in make_plan(desired(NEW), observed(there, tasks=tasks, time=NOW)).actions] == [
        "update"
    ]
    early = make_plan(desired(NEW), observed(there, tasks=tasks, time=961.0))
    assert (early.actions, len(early.waits)) == ((), 1)
    log = WriteLog()
    for _ in range(MOST_ATTEMPTS):
        log = log.wrote(NEW, NOW)
    final = make_plan(desired(NEW), observed(there, tasks=tasks, time=NOW * 9), log=log)
    assert (final.actions, len(final.failures)) == ((), 1)


def test_what_this_process_wrote_is_evidence() -> None:
    """Without any task, a roll-back is that of what this process wrote last."""
    there = live(OLD, update_state="rollback_completed")
    third = spec(image="app:3")
    assert [
        verb_of(a) for a in make_plan(desired(NEW), observed(there), log=WriteLog().wrote(third, 1)).actions
    ] == ["update"]
    assert [
        verb_of(a) for a in make_plan(desired(NEW), observed(there), log=WriteLog().wrote(NEW, 1)).actions
    ] == ["mark failed"]


def test_a_retry_is_one_attempt() -> None:
    """Who asks for failed specs to be tried again gets one more attempt of this process, not one after the other."""
    there = live(OLD, labels=noted(1, Cause.IMAGE))
    options = PlanOptions(retry_failed=True)
    plan = make_plan(desired(NEW), observed(there), options)
    assert [verb_of(a) for a in plan.actions] == ["update"]
    tried = WriteLog().wrote(NEW, 1)
    assert make_plan(desired(NEW), observed(there), options, log=tried).actions == ()
    again = make_plan(desired(NEW), observed(there), options, log=tried.forget_attempts())
    assert [verb_of(a) for a in again.actions] == ["update"]


def test_a_young_secret_stays() -> None:
    """A secret that nothing names yet may be somebody's next write: it goes once it is older than the grace time."""
    there = evolve(secret("old"), created_at=STAMP)
    assert make_plan(desired(), observed(secrets=(there,), time=960 + SECRET_GRACE_SECONDS - 1)).actions == ()
    used = WriteLog(mounted=frozenset({"old"}))
    assert len(make_plan(desired(), observed(secrets=(there,), time=961), log=used).actions) == 1
    late = make_plan(desired(), observed(secrets=(there,), time=960 + SECRET_GRACE_SECONDS))
    assert [verb_of(a) for a in late.actions] == ["remove"]


@pytest.mark.parametrize(("error", "cause"), [("", "its container ended (exit code 0)"), ("odd", "odd")])
def test_a_container_that_ends_well_too_soon_was_rolled_back(error: str, cause: str) -> None:
    """Swarm rolls back for a task that ended with exit code 0, too: the spec is blamed, and not tried for ever."""
    there = live(OLD, update_state="rollback_completed")
    ended = failed(there, state="complete", error=error, message="finished")
    plan = make_plan(desired(NEW), observed(there, tasks=(ended,)))
    assert told(plan) == [f"mark failed service web: rolled back: {cause}"]


def test_the_last_failed_task_says_why() -> None:
    """Of several failed tasks the newest gives the cause."""
    there = live(OLD, update_state="rollback_completed")
    tasks = [
        failed(there),
        failed(there, created_at="7", error="task: non-zero exit (3)"),
        failed(there, created_at="6"),
    ]
    for order in permutations(tasks):
        (action,) = make_plan(desired(NEW), observed(there, tasks=order)).actions
        assert action == MarkFailed(NEW, there, "rolled back: task: non-zero exit (3)")


@pytest.mark.parametrize(
    ("previous", "verb", "reasons"),
    [
        (NEW.fingerprints.whole, "mark failed", [f"{CHANGE}: rolled back by hand; not tried again"]),
        (OLD.fingerprints.whole, "update", []),
        (None, "mark failed", [f"{CHANGE}: rolled back; {NO_RECORD}; not tried again"]),
    ],
)
def test_a_roll_back_by_hand_is_respected(previous: Any, verb: str, reasons: list[str]) -> None:
    """Who rolls back a service by hand does not want its record tried again at once."""
    there = live(OLD, update_state="rollback_completed", previous_intent=previous)
    plan = make_plan(desired(NEW), observed(there))
    assert [verb_of(a) for a in plan.actions] == [verb]
    assert [f.reason for f in plan.failures] == reasons


@pytest.mark.parametrize(("reason", "text"), [("exit 1", "exit 1"), ("", "rolled back")])
def test_a_remembered_failure_is_not_tried_again(reason: str, text: str) -> None:
    """The label keeps a spec from being tried again, until the record changes or somebody says so."""
    labels = {naming.FAILED: NEW.fingerprints.whole, naming.FAILED_REASON: reason}
    there = live(OLD, labels=labels)
    plan = make_plan(desired(NEW), observed(there))
    assert plan.actions == ()
    assert [f.reason for f in plan.failures] == [f"{CHANGE}: {text}; not tried again"]
    update = [f"update service web: {CHANGE}"]
    assert done(desired(NEW), observed(there), retry_failed=True) == update
    assert done(desired(spec(image="app:3")), observed(there)) == ["update service web: image app:1 → app:3"]
    assert done(desired(OLD), observed(there)) == []


def test_retrying_tries_a_spec_that_was_just_rolled_back() -> None:
    """With retry_failed the evidence of a roll-back does not count either."""
    there = live(OLD, update_state="rollback_completed")
    seen = observed(there, tasks=(failed(there),))
    assert done(desired(NEW), seen, retry_failed=True) == [f"update service web: {CHANGE}"]


def test_retrying_waits_for_the_end_of_a_roll_back() -> None:
    """Written any earlier, the failed tasks would still be there, and Swarm would leave them and call it completed."""
    there = live(OLD, update_state="rollback_started")
    for tasks in ((failed(there),), ()):
        plan = make_plan(desired(NEW), observed(there, tasks=tasks), PlanOptions(retry_failed=True))
        assert plan.actions == ()
        assert [w.reason.partition(":")[0] for w in plan.waits] == ["is being rolled back"]


# whose it is


@pytest.mark.parametrize(("owner", "whom"), [("id-shop", "id-shop"), ("", "an unknown owner")])
def test_a_service_of_another_record_is_left_alone(owner: str, whom: str) -> None:
    """A name that another record's service has rejects the record, even where the bodies are equal."""
    plan = make_plan(desired(OLD), observed(live(spec("web", owner))))
    assert plan.actions == ()
    assert plan.rejections == (
        Rejection(unit="id-web", name="web", reasons=(f"a service named web belongs to {whom}",)),
    )


@pytest.mark.parametrize("order", [START_FIRST, STOP_FIRST])
def test_a_foreign_secret_of_the_same_name_rejects(order: Any) -> None:
    """A secret that we did not make is neither used nor removed; its service, even a renamed one, stays as it is."""
    want = spec(**mounting("web-1"), update=order)
    goal = desired(want, secrets={"web": secret_spec("web-1")})
    for services in ((), (live(OLD),), (live(spec("before", "id-web", **mounting("before-1"))),)):
        seen = observed(*services, secrets=(secret("web-1", ours=False), secret("before-1")))
        plan = make_plan(goal, seen)
        assert plan.actions == ()
        assert [r.reasons for r in plan.rejections] == [
            ("a secret named web-1 exists already and was not made by coreflow",)
        ]


# renaming

RENAMED = spec("shop", "id-web")


@pytest.mark.parametrize(
    ("states", "told_so", "waits"),
    [
        (None, ["create service shop: renamed from web"], ["runs until shop does (renamed)"]),
        ([], [], ["runs until shop does (renamed)"]),
        ([("starting", "running")], [], ["runs until shop does (renamed)"]),
        ([("running", "shutdown")], [], ["runs until shop does (renamed)"]),
        ([("running", "running")], ["remove service web: renamed to shop, which runs"], []),
    ],
)
def test_a_renamed_service_gives_way_once_the_new_one_runs(
    states: Any, told_so: list[str], waits: list[str]
) -> None:
    """The new service is made beside the old one, which goes when enough tasks of the new one run."""
    there = live(RENAMED)
    tasks = [task(there, n, state=s, desired_state=d) for n, (s, d) in enumerate(states or ())]
    seen = observed(live(OLD), *([there] if states is not None else []), tasks=tuple(tasks))
    plan = make_plan(desired(RENAMED), seen)
    assert told(plan) == told_so
    assert [wait.reason for wait in plan.waits] == waits
    assert plan.refusal is None


def test_a_renamed_service_that_runs_nothing_gives_way_at_once() -> None:
    """Who wants no task waits for none."""
    want = spec("shop", "id-web", replicas=0)
    assert done(desired(want), observed(live(OLD), live(want))) == [
        "remove service web: renamed to shop, which runs"
    ]


def test_renaming_ignores_whether_pruning_is_on() -> None:
    """A renamed record is still there, so its old service goes with pruning off, too."""
    there = live(RENAMED)
    seen = observed(live(OLD), there, tasks=(task(there),))
    assert len(done(desired(RENAMED), seen, prune=False)) == 1


def test_a_renamed_service_with_data_goes_first() -> None:
    """Two services must not use the same data at once: every earlier one goes before the new one is made."""
    want = spec("shop", "id-web", update=STOP_FIRST, **mounting("shop-1"))
    goal = desired(want, secrets={"shop": secret_spec("shop-1")}, images={"shop": image_spec("app:1")})
    reason = "renamed to shop; both must not use its data at once"
    for services in permutations((live(spec(**mounting("web-1"))), live(spec("earlier", "id-web")))):
        plan = make_plan(goal, observed(*services, secrets=(secret("web-1"),)))
        assert plan.waits == ()
        assert told(plan) == [
            f"remove service earlier: {reason}",
            f"remove service web: {reason}",
            "create image app:1: shop runs it",
            "create secret shop-1: shop mounts it",
            "create service shop: renamed from earlier",
            "remove secret web-1: no spec names it",
        ]


def test_base_services_are_not_renamed() -> None:
    """Base services have one owner and are not each other's former names."""
    goal = desired(spec("corelog", BASE))
    assert done(goal, observed(live(spec("corestore", BASE)))) == [
        "create service corelog: new",
        "remove service corestore: no longer wanted",
    ]


# removals


def test_only_what_is_ours_is_removed() -> None:
    """Services of others, or of another cluster, are never removed; what is held is not either."""
    elsewhere = live(spec("elsewhere"), labels={naming.CLUSTER: "another"})
    held, named = live(spec("held")), live(spec("named"))
    base = live(spec("corelog", BASE))
    goal = desired(OLD, held=frozenset({"id-held", "base/corelog"}), held_names=frozenset({"named"}))
    plan = make_plan(goal, observed(foreign(), elsewhere, held, named, base, live(OLD), live(spec("gone"))))
    assert told(plan) == ["remove service gone: no longer wanted"]
    assert isinstance(subject_of(plan.actions[0]), ObservedService)
    assert stage_of(plan.actions[0]) == Stage.WORKLOADS


def test_what_has_the_name_of_a_record_stays() -> None:
    """A service under the name of a record that is not deployed, whatever its id, is left alone, with its secrets, and noted.

    Swarm ignores the case of names.
    """
    worker = live(spec("Worker"))
    goal = desired(OLD, held_names=frozenset({"worker"}))
    mine, other = secret("worker-1", "id-Worker"), secret("gone-1", "id-gone")
    plan = make_plan(goal, observed(live(OLD), worker, secrets=(mine, other)))
    assert told(plan) == ["remove secret gone-1: no spec names it"]
    assert plan.notes == (Note(unit="id-Worker", name="Worker", text=NAMED),)


@pytest.mark.parametrize(("data", "made"), [(START_FIRST, True), (STOP_FIRST, False)])
def test_the_old_name_of_a_service_may_be_another_record_s(data: Any, made: bool) -> None:
    """A renamed service stays under its old name while another record has that and is not deployed.

    The new one is made beside it, unless both would use the same data.
    """
    new = spec("site", "id-web", update=data)
    goal = desired(new, held_names=frozenset({"web"}))
    plan = make_plan(goal, observed(live(OLD), live(new), tasks=(task(live(new)),)))
    assert told(plan) == []
    plan = make_plan(goal, observed(live(OLD)))
    assert told(plan) == (["create service site: renamed from web"] if made else [])
    assert bool(plan.rejections) is not made


@pytest.mark.parametrize(
    ("options", "goal"),
    [({"prune": False}, {}), ({}, {"doubt": OF_NO_ID}), ({}, {"held_names": frozenset({"db"})})],
)
def test_nothing_is_given_back_that_a_service_still_uses(options: Any, goal: Any) -> None:
    """A disabled binding stays as long as its service runs, also one that no record describes any more."""
    binding = BindingSpec(id="b", service_id=ServiceId("id-db"), service_name="db", capability="database")
    want = desired(OLD, release=(binding,), **goal)
    plan = make_plan(want, observed(live(OLD), live(spec("db"))), PlanOptions(**options))
    assert told(plan) == []
    assert Note(unit="id-db", name="db database", text=IN_USE) in plan.notes
    after = make_plan(want, observed(live(OLD)), PlanOptions(**options))
    assert told(after) == ["deprovision binding db database: the control plane disabled it"]


def test_a_refused_removal_gives_nothing_back() -> None:
    """The services run on until it is confirmed, and so does what they use."""
    binding = BindingSpec(id="b", service_id=ServiceId("id-db"), service_name="db", capability="database")
    plan = make_plan(desired(release=(binding,)), observed(live(spec("db"))))
    assert plan.refusal is not None
    assert told(plan) == []


def test_base_services_go_in_their_own_stage() -> None:
    """A base service that is switched off is a unit of its own, in the stage of the base."""
    (step,) = make_plan(desired(OLD), observed(live(OLD), live(spec("corelog", BASE)))).steps
    assert (step.unit, stage_of(step.action)) == ("base/corelog", Stage.BASE)


@pytest.mark.parametrize(
    ("options", "goal", "text"),
    [
        ({"prune": False}, {}, "no longer wanted, but COREFLOW_PRUNE is off"),
        ({}, {"doubt": OF_NO_ID}, OF_NO_ID),
        ({"prune": False}, {"doubt": OF_NO_ID}, OF_NO_ID),
    ],
)
def test_nothing_is_removed_while_pruning_is_off(
    options: dict[str, Any], goal: dict[str, Any], text: str
) -> None:
    """With pruning off, or with a record that could be anybody's, unwanted services stay and are noted."""
    plan = make_plan(
        desired(**goal), observed(live(OLD), live(spec("corelog", BASE))), PlanOptions(**options)
    )
    assert plan.actions == ()
    assert plan.notes == (
        Note(unit="base/corelog", name="corelog", text=text),
        Note(unit="id-web", name="web", text=text),
    )


@pytest.mark.parametrize(
    ("gone", "kept", "base", "refused"),
    [
        (1, 0, 0, True),  # the only workload
        (1, 0, 3, True),
        (1, 1, 0, False),
        (2, 0, 0, True),  # every workload
        (2, 0, 3, True),
        (3, 0, 0, True),
        (3, 1, 0, False),  # exactly three
        (4, 1, 0, True),
        (4, 3, 0, True),
        (4, 4, 0, False),  # exactly half
        (4, 1, 3, False),
        (5, 4, 0, True),
        (5, 2, 3, False),
        (50, 51, 0, False),
    ],
)
def test_removing_most_of_it_needs_a_word(gone: int, kept: int, base: int, refused: bool) -> None:
    """More than three and more than half, or every workload at once, is refused until this very set is confirmed."""
    stay = [spec(f"kept{n}") for n in range(kept)] + [spec(f"base{n}", BASE) for n in range(base)]
    leave = [live(spec(f"gone{n:02}")) for n in range(gone)]
    goal, seen = desired(*stay), observed(*map(live, stay), *leave)
    plan = make_plan(goal, seen)
    everything = [f"remove service {s.name}: no longer wanted" for s in leave]
    token = removal_token(s.id for s in leave)
    if refused:
        assert plan.refusal == Refusal(tuple(s.name for s in leave), gone + kept + base, token)
        assert str(plan.refusal) == (
            f"removing {gone} of {gone + kept + base} services needs a confirmation: {token}"
        )
        assert not plan.is_clean
    assert told(plan) == ([] if refused else everything)
    assert done(goal, seen, confirmed="another") == told(plan)
    assert done(goal, seen, confirmed=token) == everything
    assert make_plan(goal, seen, PlanOptions(confirmed=token)).is_confirmed is refused
    assert not make_plan(goal, seen, PlanOptions(confirmed="another")).is_confirmed


def test_the_only_workload_may_make_room_for_another() -> None:
    """A first service under another id needs no word; with a document of base services alone in its place, it does."""
    old, new, base = live(spec("old")), spec("new"), spec("corelog", BASE)
    assert make_plan(desired(new), observed(old)).refusal is None
    for goal in (desired(), desired(base)):
        refusal = make_plan(goal, observed(old, live(base))).refusal
        assert refusal is not None
        assert refusal.names == ("old",) if goal.services else ("corelog", "old")


def test_nothing_new_is_made_beside_a_refused_removal() -> None:
    """Or the next plan would find the same removal to be of few among many. What is there is still kept as desired."""
    old = [live(spec(f"old{n}")) for n in range(4)]
    kept, new = spec("kept", env={"NEW": "1"}), [spec(f"new{n}") for n in range(9)]
    goal, seen = desired(kept, *new), observed(*old, live(spec("kept")))
    plan = make_plan(goal, seen)
    assert plan.refusal is not None
    assert [name_of(action) for action in plan.actions] == ["kept"]
    assert [note.name for note in plan.notes] == [spec_.name for spec_ in new]
    meant = make_plan(goal, seen, PlanOptions(confirmed=plan.refusal.token))
    made = {s.name for s in new} | {s.name for s in old} | {"kept"}
    assert {name_of(action) for action in meant.actions} == made


def test_a_token_names_a_set() -> None:
    """The token depends on which services go, not on their order."""
    assert removal_token(["a", "b"]) == removal_token(["b", "a"])
    assert len({removal_token(ids) for ids in ([], ["a"], ["b"], ["a", "b"], ["ab"])}) == 5


# secrets


@pytest.mark.parametrize(
    ("services", "goal", "removed"),
    [
        ((), {}, True),
        ((live(OLD),), {}, True),
        ((live(OLD, by_hand=mounting("old"), update_state="x"),), {"held": frozenset({"id-x"})}, False),
        ((live(OLD, previous_secrets=frozenset({"old"})),), {}, False),
        ((live(OLD, update_state="updating"),), {}, False),
        ((live(OLD, update_state="rollback_started"),), {}, False),
        ((live(OLD, update_state="completed"),), {}, True),
        ((live(OLD), live(spec("rolling"), update_state="updating")), {}, True),
        ((foreign(**mounting("old")),), {}, False),
        ((foreign("gone", **mounting("old")), live(OLD)), {}, False),
        ((live(OLD),), {"held": frozenset({"id-web"})}, False),
        ((live(OLD),), {"held": frozenset({"id-other"})}, True),
        ((live(OLD),), {"doubt": OF_NO_ID}, False),
        ((live(OLD), live(spec("gone", **mounting("old")))), {}, True),
        ((live(OLD), live(spec("gone"), previous_secrets=frozenset({"old"}))), {}, True),
        ((live(spec("a")), live(spec("b"))), {}, True),  # refused, but its owner has no service
        ((live(OLD), live(spec("a"))), {"services": {}}, False),  # refused, and its owner has one
    ],
)
def test_a_secret_goes_when_nothing_needs_it(
    services: tuple[ObservedService, ...], goal: dict[str, Any], removed: bool
) -> None:
    """A secret goes when no spec and no previous spec names it, and its owner is neither held, rolling nor refused."""
    wanted = {"services": {"web": OLD} if any(s.name == "web" for s in services) else {}}
    want = Desired(cluster=CLUSTER, **(wanted | goal))
    plan = make_plan(want, observed(*services, secrets=(secret("old"),)))
    assert ("remove secret old: no spec names it" in told(plan)) is removed
    assert [kind_of(a) for a in plan.actions][-1:] == ["secret"] or not removed


def test_only_our_secrets_go_and_wanted_ones_stay() -> None:
    """A secret of somebody else, or one that a wanted service will mount, is not removed."""
    want = spec(**mounting("web-2"))
    seen = observed(
        live(spec(**mounting("web-1"))),
        secrets=(secret("web-1"), secret("web-2"), secret("theirs", ours=False), secret("b", BASE)),
    )
    plan = make_plan(desired(want, secrets={"web": secret_spec("web-2")}), seen)
    assert told(plan) == ["update service web: secret rotated", "remove secret b: no spec names it"]
    assert (plan.steps[1].unit, stage_of(plan.actions[1])) == ("base/b", Stage.BASE)


# addresses

TINY = network(subnets=("10.0.0.0/29", "10.0.0.8/29", "10.0.0.16/30"))
"""A network with room for five tasks, and for the ends of six nodes."""


@pytest.mark.parametrize(
    ("there", "want", "verbs"),
    [
        ([], [{"replicas": 5}], ["create"]),
        ([], [{"replicas": 6}], []),
        ([], [{"replicas": 4, "endpoint_mode": "vip"}], ["create"]),
        ([], [{"replicas": 5, "endpoint_mode": "vip"}], []),
        ([], [{"replicas": 3}, {"replicas": 3}], ["create"]),
        ([], [{"replicas": 6}, {"replicas": 5}], ["create"]),
        ([], [{"replicas": None}], []),  # six nodes
        ([{"replicas": 9}], [{"replicas": 9}], []),
        ([{"replicas": 9}], [{"replicas": 8}], ["update"]),
        ([{"replicas": 5}], [{"replicas": 6}], []),
        ([{"replicas": 4}], [{"replicas": 5}], ["update"]),
        ([{"replicas": 5}], [{"replicas": 1}, {"replicas": 4}], ["update", "create"]),
        ([{"replicas": 4}], [{"replicas": 4, "args": ("x",)}], ["update"]),
        ([{"replicas": 5}], [{"replicas": 5, "args": ("x",)}], ["wait"]),
        ([{"replicas": 5}], [{"replicas": 5, "args": ("x",), "update": STOP_FIRST}], ["update"]),
        ([{"replicas": 5}], [{"replicas": 5, "max_per_node": 2}], ["wait"]),
        ([{"replicas": 5}], [{"replicas": 5, "rollback": STOP_FIRST}], ["update"]),
        ([{"replicas": 0}, {"replicas": 5}], [{"replicas": 0, "args": ("x",)}, {"replicas": 5}], ["update"]),
        ([{"replicas": 2}] * 2, [{"replicas": 2, "args": ("x",)}] * 2, ["update", "wait"]),
    ],
)
def test_a_full_network_takes_no_more_tasks(there: list[Any], want: list[Any], verbs: list[str]) -> None:
    """What would find no address is refused, a roll-out without a spare one waits, and what runs is kept."""
    names = "abcdef"
    goal = desired(*(spec(n, networks=(WEB,), **w) for n, w in zip(names, want, strict=False)))
    services = [live(spec(n, networks=(WEB,), **t)) for n, t in zip(names, there, strict=False)]
    seen = observed(*services, networks=(TINY,), nodes=tuple(node(n) for n in names))
    plan = make_plan(goal, seen)
    assert [verb_of(a) for a in plan.actions] + ["wait"] * len(plan.waits) == verbs
    assert len(plan.rejections) == len(want) - len(verbs) - plan.kept


@pytest.mark.parametrize(
    ("networks", "goal", "refused"),
    [
        ((network(subnets=("10.0.0.0/30", "10.0.1.0/30")),), (), "1 free addresses, 4"),
        ((), (network_spec(subnet="10.0.0.0/30"),), "0 free addresses, 4"),
        ((), (network_spec(subnet=None),), None),
        ((network(subnets=()),), (network_spec(subnet="10.0.0.0/30"),), None),
        ((network(subnets=("fd00::/126",)),), (), None),
        ((network(subnets=("10.0.0.0/30",), driver="bridge", scope="local"),), (), None),
        ((network(subnets=("10.0.0.0/30",), scope="local"),), (), None),
        ((network("another", subnets=("10.0.0.0/30",)),), (), None),
    ],
)
def test_the_size_of_a_network_counts_where_it_is_known(
    networks: Any, goal: Any, refused: str | None
) -> None:
    """The ranges of an overlay network, there or to be made, limit it; a network without known ranges has room."""
    want = desired(spec(replicas=4, networks=(WEB,)), networks=goal)
    plan = make_plan(want, observed(networks=networks))
    reasons = [reason for rejection in plan.rejections for reason in rejection.reasons]
    assert reasons == ([f"network {WEB.network} has {refused} more are needed"] if refused else [])


def test_services_of_others_take_addresses_too() -> None:
    """Every task on the network counts, and a network that is more than full has 0 free addresses."""
    want = desired(spec(replicas=1, networks=(WEB,)))
    plan = make_plan(want, observed(foreign(replicas=17, networks=(WEB,)), networks=(TINY,)))
    assert plan.rejections[0].reasons == (f"network {WEB.network} has 0 free addresses, 1 more are needed",)
    assert plan.refusal is None


# order


def test_steps_come_in_a_safe_order() -> None:
    """Networks, then the base, then what runs already, then what is new, then removals, then secrets."""
    base, old, new = spec("corelog", BASE), spec("zoo", args=("x",)), spec("app", **mounting("app-1"))
    goal = desired(
        new, old, base, networks=(network_spec(),), secrets={"app": secret_spec("app-1", "id-app")}
    )
    seen = observed(live(spec("zoo")), live(spec("gone")), secrets=(secret("b"), secret("a")))
    expected = ["network", "service corelog", "service zoo", "secret app-1", "service app", "service gone"]
    for services in permutations(seen.services):
        for specs in permutations(goal.services.items()):
            plan = make_plan(evolve(goal, services=dict(specs)), evolve(seen, services=services))
            subjects = [f"{kind_of(a)} {name_of(a)}" for a in plan.actions]
            assert subjects == [f"network {WEB.network}", *expected[1:], "secret a", "secret b"]


# any world


@define
class Swarm:
    """What is there; carries out plans, and refuses what Swarm refuses."""

    seen: Observed

    def apply(self, plan: Plan) -> None:
        """Carry out a whole plan, and let every roll-out end well."""
        for action in plan.actions:
            self._do(action)
        ended = {"updating": "completed", "rollback_started": "rollback_completed"}
        services = [
            evolve(s, update_state=ended.get(s.update_state, s.update_state)) for s in self.seen.services
        ]
        self.seen = evolve(self.seen, services=tuple(services))

    def _do(self, action: Any) -> None:
        services = {s.name: s for s in self.seen.services}
        secrets = {s.name: s for s in self.seen.secrets}
        tasks = self.seen.tasks
        match action:
            case Create(want, _) if want.kind == "secret":
                assert want.name not in secrets
                secrets[want.name] = secret(want.name, want.owner)
            case Remove(target, _, _) if kind_of(action) == "secret":
                assert naming.is_ours(target.labels, CLUSTER), "a secret that is not ours was removed"
                for there in services.values():
                    named = {f.secret_name for f in there.body.secrets} | there.previous_secrets
                    assert target.name not in named, "a secret that a spec names was removed"
                del secrets[target.name]
            case Remove(target, _, _):
                assert naming.is_ours(target.labels, CLUSTER), "a service that is not ours was removed"
                del services[target.name]
            case Create(ServiceSpec() as want, _) | Recreate(want, _, _):
                assert (want.name in services) is isinstance(action, Recreate)
                services[want.name] = live(want)
            case Update(want, old, _):
                assert services[want.name] == old
                previous = frozenset(f.secret_name for f in old.body.secrets)
                services[want.name] = live(want, previous_secrets=previous, previous_intent=old.intent)
            case MarkFailed(want, old, reason):
                labels = {**old.labels, naming.FAILED: want.fingerprints.whole, naming.FAILED_REASON: reason}
                services[want.name] = evolve(
                    old, labels=labels, previous_secrets=frozenset(), update_state=""
                )
        if isinstance(action, Create | Recreate | Update) and action.spec.kind == "service":
            there = services[action.spec.name]
            for file in there.body.secrets:
                assert file.secret_name in secrets, "a service mounts a secret that is not there"
            tasks = tuple(t for t in tasks if t.service_id != there.id)
            tasks += tuple(task(there, n) for n in range(there.body.replicas or 0))
        self.seen = evolve(
            self.seen, services=tuple(services.values()), secrets=tuple(secrets.values()), tasks=tasks
        )


wishes = st.fixed_dictionaries(
    {
        "image": st.sampled_from(["app:1", "app:2"]),
        "env": st.sampled_from([(), ("A=1",)]),
        "replicas": st.sampled_from([0, 1, 2, None]),
        "update": st.sampled_from([START_FIRST, STOP_FIRST]),
        "networks": st.sampled_from([(), (WEB,)]),
        "secret": st.sampled_from([None, "1", "2"]),
        "renamed": st.booleans(),
    }
)
states = st.sampled_from(
    ["", "updating", "completed", "rollback_started", "rollback_completed", "rollback_paused"]
)


def _spec_of(letter: str, wish: dict[str, Any]) -> Any:
    name = f"{letter}-new" if wish["renamed"] else letter
    rest = {key: value for key, value in wish.items() if key not in {"secret", "renamed"}}
    mounted = mounting(f"{name}-{wish['secret']}") if wish["secret"] else {}
    return spec(name, BASE if letter == "base" else f"id-{letter}", **rest, **mounted)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Desired, Observed]:
    """Records that are wanted, held or gone; services as some record once was, meddled with, in some roll-out."""
    wanted, services, tasks, secrets, held = [], [foreign(**mounting("theirs-1"))], [], {"theirs-1"}, set()
    for letter in ("a", "b", "c", "d", "base"):
        fate = draw(st.sampled_from(["wanted", "wanted", "gone", "held"]))
        want = _spec_of(letter, draw(wishes))
        if fate == "wanted":
            wanted.append(want)
        elif fate == "held":
            held.add(f"base/{want.name}" if letter == "base" else f"id-{letter}")
        for wish in draw(st.lists(wishes, max_size=2, unique_by=lambda w: w["renamed"])):
            old = _spec_of(letter, wish)
            previous = frozenset(draw(st.sets(st.sampled_from([f"{old.name}-1", f"{old.name}-2"]))))
            there = live(
                old,
                by_hand=draw(st.sampled_from([{}, {}, {"args": ("x",)}, {"replicas": 1}])),
                labels=draw(st.sampled_from([{}, {naming.FAILED: want.fingerprints.whole}])),
                update_state=draw(states),
                previous_secrets=previous,
                previous_intent=draw(st.sampled_from([None, want.fingerprints.whole])),
            )
            secrets |= previous | {f.secret_name for f in there.body.secrets}
            services.append(there)
            if draw(st.booleans()):
                blamed = draw(st.sampled_from(["running", "failed"]))
                tasks.append(task(there, state=blamed, template=template_fingerprint(want.body)))
        secrets |= draw(st.sets(st.sampled_from([f"{letter}-1", f"{letter}-2", f"{letter}-new-1"])))
    owners = {"theirs": None, "base": BASE, **{letter: f"id-{letter}" for letter in "abcd"}}
    there_are = [(name, owners[name.partition("-")[0]]) for name in sorted(secrets)]
    goal = desired(
        *draw(st.permutations(wanted)),
        secrets={s.name: secret_spec(f.secret_name, s.owner) for s in wanted for f in s.body.secrets},
        held=frozenset(held),
        networks=(network_spec(),),
    )
    return goal, Observed(
        services=tuple(draw(st.permutations(services))),
        tasks=tuple(tasks),
        secrets=tuple(secret(name, owner or "", ours=owner is not None) for name, owner in there_are),
        networks=(network(subnets=draw(st.sampled_from([("10.1.0.0/16",), ("10.1.0.0/29",)]))),),
    )


@settings(max_examples=examples(200))
@given(world=worlds(), options=st.fixed_dictionaries({"recreate": st.booleans(), "prune": st.booleans()}))
def test_any_world_comes_to_rest(world: tuple[Desired, Observed], options: dict[str, Any]) -> None:
    """Applied plans touch nothing held or foreign, lose no secret that is named, and end in an empty plan."""
    goal, swarm = world[0], Swarm(world[1])
    left_alone = _left_alone(goal, swarm.seen)
    for _ in range(6):
        plan = make_plan(goal, swarm.seen, PlanOptions(**options))
        if plan.refusal:
            plan = make_plan(goal, swarm.seen, PlanOptions(**options, confirmed=plan.refusal.token))
        assert plan.refusal is None
        units = {step.unit for step in plan.steps}
        assert not units & goal.held
        assert not units & {rejection.unit for rejection in plan.rejections}
        before = swarm.seen
        swarm.apply(plan)
        assert _left_alone(goal, swarm.seen) == left_alone
        if swarm.seen == before:
            break
    assert plan.steps == ()
    stuck = {f.name for f in plan.failures} | {r.name for r in plan.rejections} | {w.name for w in plan.waits}
    bodies = {service.name: service.body for service in swarm.seen.services}
    assert all(want.name in stuck or bodies[want.name] == want.body for want in goal.services.values())


def _left_alone(goal: Desired, seen: Observed) -> tuple[Any, Any]:
    """What is held or foreign, without what Swarm does by itself."""
    services = [
        evolve(s, update_state="")
        for s in seen.services
        if not s.owner or unit_of(s.owner, s.name) in goal.held
    ]
    return services, [s for s in seen.secrets if not s.owner or s.owner in goal.held]


@settings(max_examples=examples(200))
@given(world=worlds())
def test_one_pass_does_all_it_can(world: tuple[Desired, Observed]) -> None:
    """A plan without waits, new modes or failures leaves nothing to do but to collect secrets."""
    goal, swarm = world[0], Swarm(world[1])
    plan = make_plan(goal, swarm.seen)
    if plan.waits or plan.failures or plan.rejections or plan.refusal:
        return
    swarm.apply(plan)
    again = make_plan(goal, swarm.seen)
    assert {(verb_of(a), kind_of(a)) for a in again.actions} <= {("remove", "secret")}
    swarm.apply(again)
    assert make_plan(goal, swarm.seen).steps == ()


@settings(max_examples=examples(200))
@given(world=worlds(), data=st.data())
def test_the_order_of_lists_means_nothing(world: tuple[Desired, Observed], data: st.DataObject) -> None:
    """Docker lists in any order; the plan is the same."""
    goal, seen = world

    def shuffled(values: Any) -> Any:
        return tuple(data.draw(st.permutations(tuple(values))))

    other = evolve(
        seen, services=shuffled(seen.services), secrets=shuffled(seen.secrets), tasks=shuffled(seen.tasks)
    )
    assert make_plan(evolve(goal, services=dict(shuffled(goal.services.items()))), other) == make_plan(
        goal, seen
    )
