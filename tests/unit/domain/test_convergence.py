"""The verdict about a service: from its tasks, its nodes and its roll-out."""

from typing import Any

import pytest
from tests.unit.domain.examples import live, node, spec, task

from coreflow.domain.convergence import judge, judge_all
from coreflow.domain.ids import NodeId

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
