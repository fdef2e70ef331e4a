"""The verdict about a service: from its tasks, its nodes and its roll-out."""

from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve
from tests.unit.domain.examples import live, node, spec, task

from coreflow.domain.ids import NodeId
from coreflow.domain.swarm.convergence import NO_HISTORY, Settling, TaskHistory, Verdict, judge, judge_all
from coreflow.domain.swarm.observed import ObservedTask
from coreflow.domain.swarm.specs import HealthCheck

WEB = live(spec(replicas=2))
RUNNING: dict[str, Any] = {}
OLD: dict[str, Any] = {"is_current": False}
STOPPING: dict[str, Any] = {"desired_state": "shutdown"}
PENDING: dict[str, Any] = {"state": "pending"}


@pytest.mark.parametrize(
    ("tasks", "running", "done", "detail"),
    [
        ([RUNNING, RUNNING], 2, True, ""),
        ([RUNNING, RUNNING, RUNNING], 2, True, ""),
        ([RUNNING], 1, False, ""),
        ([], 0, False, ""),
        ([RUNNING, OLD], 1, False, ""),
        ([RUNNING, STOPPING], 1, False, ""),
        ([RUNNING, {"state": "preparing"}], 1, False, "preparing"),
        ([PENDING, {"state": "assigned"}], 0, False, "assigned, pending"),
        ([{"state": "new"}, PENDING], 0, False, "new; if it stays so, a network of it has no free address"),
        ([{"state": "new", "desired_state": "shutdown"}], 0, False, ""),
        ([{"state": "shutdown", "desired_state": "shutdown"}, RUNNING], 1, False, ""),
    ],
)
def test_only_running_tasks_of_the_present_spec_count(
    tasks: list[dict[str, Any]], running: int, done: bool, detail: str
) -> None:
    """A service is done when enough tasks of its present spec run, and otherwise says what they are at."""
    verdict = judge(WEB, [task(WEB, number, **what) for number, what in enumerate(tasks)], [])
    assert (verdict.running, verdict.wanted) == (running, 2)
    assert (verdict.done, verdict.failed, verdict.detail) == (done, False, detail)


@pytest.mark.parametrize(
    ("state", "done", "failed", "detail"),
    [
        ("", True, False, ""),
        ("completed", True, False, ""),
        ("updating", False, False, ""),
        ("rollback_started", False, False, ""),
        ("rollback_completed", True, False, "rollback completed: task failed"),
        ("rollback_paused", False, True, "rollback paused: task failed"),
        ("paused", False, True, "paused: task failed"),
    ],
)
def test_a_roll_out_decides_too(state: str, done: bool, failed: bool, detail: str) -> None:
    """While Swarm rolls out nothing is done; a stuck roll-out failed; one rolled back is at rest, and says why."""
    service = live(spec(), update_state=state, update_message="task failed")
    verdict = judge(service, [task(service)], [])
    assert (verdict.done, verdict.failed, verdict.detail) == (done, failed, detail)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (
            "no suitable node (missing plugin on 1 node)",
            "volume plugin missing on the nodes that could run it: no suitable node (missing plugin on 1 node)",
        ),
        ("No such image: app:9", "image missing: No such image: app:9"),
        ("pull access denied for app", "image missing: pull access denied for app"),
        ("manifest unknown", "image missing: manifest unknown"),
        ("repository does not exist", "image missing: repository does not exist"),
        (
            "task: unhealthy container",
            "health check fails: task: unhealthy container",
        ),
        ("task: non-zero exit (1)", "exits: task: non-zero exit (1)"),
        ("no suitable node (insufficient resources)", "no suitable node (insufficient resources)"),
        ("something else", "something else"),
    ],
)
def test_an_error_comes_with_its_meaning(error: str, detail: str) -> None:
    """The error of a task is the detail, behind what it means where we know and where it does not say so itself."""
    assert judge(WEB, [task(WEB, state="pending", error=error)], []).detail == detail


@pytest.mark.parametrize(
    ("errors", "detail"),
    [
        ([("1", {"error": "first"}), ("2", {"error": "second"})], "second"),
        ([("2", {"error": "second"}), ("1", {"error": "first"})], "second"),
        ([("2", {"error": "second", **STOPPING}), ("1", {"error": "first"})], "first"),
        ([("2", {"error": "second", "state": "failed", **STOPPING}), ("1", {"error": "first"})], "second"),
        ([("2", {"error": "second", "state": "rejected", **STOPPING})], "second"),
        ([("2", {"error": "second", **OLD}), ("1", {"error": "first"})], "first"),
        ([("2", {"error": "", **OLD}), ("1", {"error": ""})], "starting"),
    ],
)
def test_the_newest_telling_error_of_the_present_spec_wins(
    errors: list[tuple[str, dict[str, Any]]], detail: str
) -> None:
    """Errors of tasks that failed or should run tell something; the newest counts, older specs do not."""
    tasks = [
        task(WEB, n, created_at=when, **{"state": "starting"} | what) for n, (when, what) in enumerate(errors)
    ]
    assert judge(WEB, tasks, []).detail == detail


def test_a_roll_back_is_explained_by_tasks_of_the_failed_spec() -> None:
    """After a roll-back the error is that of a task which the present spec did not make."""
    service = live(spec(), update_state="rollback_completed", update_message="rolled back")
    tasks = [task(service), task(service, 2, state="failed", error="non-zero exit (1)", **OLD | STOPPING)]
    verdict = judge(service, tasks, [])
    assert verdict.done
    assert verdict.detail == "rollback completed: exits: non-zero exit (1)"


NODES = (
    node("a"),
    node("b"),
    node("drained", availability="drain"),
    node("paused", availability="pause"),
    node("down", state="down"),
)


@pytest.mark.parametrize(
    ("constraints", "where", "wanted", "done"),
    [
        ((), ["a", "b"], 2, True),
        ((), ["a"], 2, False),
        (("node.role==manager",), ["a"], 1, True),
        (("node.role==manager",), ["a", None], 1, True),
        (("node.role==manager",), ["a", "down"], 1, True),
        (("node.role==nothing",), [], 0, True),
    ],
)
def test_a_global_service_wants_one_task_per_usable_node(
    constraints: tuple[str, ...], where: list[str | None], wanted: int, done: bool
) -> None:
    """A global service wants as many tasks as nodes are ready and active; its placement decides among them."""
    service = live(spec(replicas=None, constraints=constraints))
    tasks = [task(service, n, node_id=NodeId(name) if name else None) for n, name in enumerate(where)]
    verdict = judge(service, tasks, NODES)
    assert (verdict.wanted, verdict.done) == (wanted, done)


def test_a_placement_forgets_nodes_that_tasks_leave() -> None:
    """A node whose task of a constrained global service is told to stop does not count."""
    service = live(spec(replicas=None, constraints=("x",)))
    tasks = [task(service, 1, node_id=NodeId("a")), task(service, 2, node_id=NodeId("b"), **STOPPING)]
    assert judge(service, tasks, NODES).wanted == 1


def test_nothing_wanted_is_done_at_once() -> None:
    """A service scaled to nothing is done without a task."""
    assert judge(live(spec(replicas=0)), [], []).done


def test_every_name_gets_a_verdict_from_its_own_tasks() -> None:
    """Each service is judged by its own tasks; one that is not there has nothing running; nobody else is judged."""
    web, shop, other = (live(spec(name)) for name in ("web", "shop", "other"))
    tasks = (task(other), task(web), task(shop, state="pending"))
    verdicts = judge_all(["shop", "web", "gone"], [other, web, shop], tasks, [])
    assert {name: (v.running, v.wanted, v.done, v.detail) for name, v in verdicts.items()} == {
        "web": (1, 1, True, ""),
        "shop": (0, 1, False, "pending"),
        "gone": (0, 1, False, "not there"),
    }


# settling, and crash loops

ONE = live(spec())
START = 1_800_000_000.0


def stamp(seconds: float) -> str:
    """A time of the engine, so many seconds after `START`."""
    return datetime.fromtimestamp(START + seconds, UTC).isoformat()


def one(number: int, at: float, **changes: Any) -> ObservedTask:
    """A task in the only slot, of which something was last heard at that time."""
    given = {"slot": 1, "created_at": stamp(at - 1), "updated_at": stamp(at)}
    return task(ONE, number, **(given | changes))


def ended(number: int, at: float, lived: float = 1, **changes: Any) -> ObservedTask:
    """A task that ended by itself."""
    given = {
        "state": "failed",
        "error": "task: non-zero exit (1)",
        "created_at": stamp(at - lived),
        **STOPPING,
    }
    return one(number, at, **(given | changes))


def verdict_of(
    *tasks: ObservedTask, at: float, history: TaskHistory = NO_HISTORY, seconds: float = 5
) -> Verdict:
    """The verdict at a time, with these tasks in the engine's list."""
    history = history.after([ONE], tasks, START + at)
    return judge(ONE, tasks, [], Settling(history=history, now=START + at, seconds=seconds))


def test_a_task_counts_once_it_has_run_for_the_settling_time() -> None:
    """A task that has just begun to run proves nothing yet; one that has run long enough costs no waiting."""
    young, old = verdict_of(one(1, 0), at=4.9), verdict_of(one(1, 0), at=5)
    assert (young.done, young.running, young.detail) == (False, 1, "settling")
    assert (old.done, old.detail) == (True, "")
    assert verdict_of(one(1, 0), at=0, seconds=0).done


def test_a_manager_whose_clock_is_ahead_keeps_nothing_young() -> None:
    """What this process has seen running for the settling time has run so long, whatever the stamps say."""
    history = NO_HISTORY.after([ONE], [one(1, 3600)], START)
    assert not verdict_of(one(1, 3600), at=4, history=history).done
    assert verdict_of(one(1, 3600), at=5, history=history).done


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({}, "exits: task: non-zero exit (1)"),
        ({"state": "complete", "error": ""}, "exits: its container ended with exit code 0"),
        ({"error": "", "exit_code": 3}, "exits: its container ended with exit code 3"),
        ({"error": "task: unhealthy container"}, "health check fails: task: unhealthy container"),
        ({"state": "rejected", "error": "No such image: a"}, "image missing: No such image: a"),
    ],
)
def test_tasks_that_end_again_and_again_are_a_crash_loop(how: dict[str, Any], error: str) -> None:
    """Two ends in a row in one slot are one, with their number, the last reason and since when; three are hopeless."""
    first = verdict_of(ended(1, 0, **how), one(2, 6), at=8)
    assert not first.is_crash_looping
    second = verdict_of(ended(1, 0, **how), ended(2, 8, **how), one(3, 14), at=15)
    assert (second.crashes, second.error, second.failed) == (2, error, False)
    assert second.crashing_since == START
    assert second.detail == f"crash-looping: ended 2 times since 2027-01-15 08:00:00Z, last: {error}"
    loop = [ended(n, n * 8, **how) for n in range(3)]
    third = verdict_of(*loop, one(4, 30, state="ready"), at=31)
    assert (third.crashes, third.failed, third.done) == (3, True, False)
    hope = verdict_of(*loop, one(4, 30), at=31)
    assert (hope.crashes, hope.failed, hope.done) == (3, False, False)


def test_a_crash_loop_is_over_when_a_task_outlives_the_others_clearly() -> None:
    """The next task has to run for twice as long as those before it lived, five minutes at the most."""
    loop = [ended(1, 0, lived=20), ended(2, 30, lived=20)]
    assert verdict_of(*loop, one(3, 40), at=79).is_crash_looping
    assert verdict_of(*loop, one(3, 40), at=80).done
    slow = [ended(1, 0, lived=500), ended(2, 600, lived=500)]
    assert verdict_of(*slow, one(3, 610), at=910).done


def test_ends_after_a_long_life_are_no_crash_loop() -> None:
    """A service that ends once a day is restarted, and that is that."""
    daily = [ended(n, n * 86400, lived=86000) for n in range(3)]
    assert verdict_of(*daily, one(9, 3 * 86400), at=3 * 86400 + 5).done


def test_what_was_ended_from_outside_after_a_minute_is_no_crash_loop() -> None:
    """A node that is switched off twice in ten minutes ends its tasks; a container that is killed at once, again and again, loops."""
    killed = {"error": "task: non-zero exit (137)"}
    assert verdict_of(
        ended(1, 0, lived=60, **killed), ended(2, 300, lived=200, **killed), one(3, 310), at=315
    ).done
    quick = verdict_of(ended(1, 0, lived=3, **killed), ended(2, 10, lived=3, **killed), one(3, 16), at=21)
    assert quick.is_crash_looping


def test_ends_of_an_earlier_attempt_are_forgotten() -> None:
    """A spec that is tried again begins anew: what ended before this roll-out is no part of it."""
    service = evolve(ONE, update_state="updating", update_started=stamp(100))
    tasks = [*(ended(n, n * 8) for n in range(3)), one(4, 101)]
    history = NO_HISTORY.after([service], tasks, START + 102)
    assert not judge(
        service, tasks, [], Settling(history=history, now=START + 102, seconds=5)
    ).is_crash_looping


def test_ends_in_different_slots_are_not_added_up() -> None:
    """Three replicas that each ended once, since something they need was away, are no crash loop."""
    tasks = [ended(n, 0, slot=n) for n in (1, 2, 3)] + [one(n, 6, slot=n - 3) for n in (4, 5, 6)]
    assert not verdict_of(*tasks, at=7).is_crash_looping


def test_what_the_engine_forgets_this_process_remembers() -> None:
    """With a task history of none, a task that is replaced by another one of the same spec has ended."""
    history = NO_HISTORY
    for number in range(4):
        history = history.after([ONE], [one(number, number * 8)], START + number * 8)
    verdict = verdict_of(one(3, 24), at=25, history=history)
    assert (verdict.crashes, verdict.error) == (3, "the engine kept no record of why")
    changed = live(spec(image="app:2"))
    assert not judge(changed, [], [], Settling(history=history.after([changed], [], START))).is_crash_looping


def test_an_end_that_was_seen_is_remembered_with_its_reason() -> None:
    """The list may drop an ended task later: its reason stays known, and it is not counted twice."""
    history = NO_HISTORY.after([ONE], [ended(1, 0), one(2, 6)], START + 6)
    history = history.after([ONE], [ended(1, 0), ended(2, 8), one(3, 14)], START + 14)
    verdict = verdict_of(one(3, 14), at=15, history=history)
    assert (verdict.crashes, verdict.error) == (2, "exits: task: non-zero exit (1)")
    history = history.after([ONE], [one(4, 30)], START + 30)
    verdict = verdict_of(one(4, 30), at=31, history=history)
    assert (verdict.crashes, verdict.error) == (3, "exits: task: non-zero exit (1)")


def test_an_exit_with_0_may_be_a_failed_health_check() -> None:
    """Swarm does not tell which it was: with a health check, both are said."""
    checked = live(spec(health_check=HealthCheck(test=("CMD", "true"))))
    tasks = [ended(1, 0, state="complete", error=""), ended(2, 8, state="complete", error=""), one(3, 14)]
    history = NO_HISTORY.after([checked], tasks, START + 15)
    verdict = judge(checked, tasks, [], Settling(history=history, now=START + 15, seconds=5))
    assert verdict.error.endswith("ended with exit code 0, maybe stopped since its health check failed")
