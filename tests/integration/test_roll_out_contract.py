"""What coreflow takes for granted about the way Swarm runs and replaces tasks, on the memory Swarm and on a real one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.integration.engine_bench import EXITS, GOOD, MEANT_TO_RUN, NEWER, NOWHERE, SECOND, WEB, Bench, Json

from coreflow.adapters.memory import Behaviour
from coreflow.adapters.swarm.to_engine import registry_auth
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm.observed import seconds_of

MISSING = "coreflow/test:none"
CLOCKS_DIFFER = 15.0
"""Seconds that a busy machine may take between a start and our look at it."""
ORDERS = pytest.mark.parametrize("order", ["stop-first", "start-first"])


def image(reference: str) -> Callable[[Json], None]:
    """A change to another image."""

    def change(spec: Json) -> None:
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = reference
        if reference == EXITS:
            spec["UpdateConfig"]["Monitor"] = 2 * SECOND

    return change


def label(spec: Json) -> None:
    """A change that restarts nothing."""
    spec["Labels"]["changed"] = "yes"


def nothing(spec: Json) -> None:
    """No change at all."""


def in_order(spec: Json, order: str) -> Json:
    """The spec with this order of updates and roll-backs."""
    spec["UpdateConfig"]["Order"] = spec["RollbackConfig"]["Order"] = order
    return spec


async def test_tasks_tell_what_they_were_made_from(bench: Bench) -> None:
    """A task carries the template of its service without `Runtime`, its slot, its node and its service."""
    identity = await bench.start(bench.spec())
    (task,) = await bench.running(identity)
    template = (await bench.live(identity))["Spec"]["TaskTemplate"]
    assert task["Spec"] == {key: value for key, value in template.items() if key != "Runtime"}
    assert task["Slot"] == 1
    assert task["NodeID"] == (await bench.engine.info())["Swarm"]["NodeID"]
    assert task["Status"]["Message"] == "started"
    assert not task["Status"].get("Err")


async def test_tasks_have_addresses(bench: Bench) -> None:
    """A task on a network has an address there, with its prefix length, and the name of the network."""
    pool = {"Config": [{"Subnet": "10.231.241.0/24"}]}
    network = await bench.engine.create_network({"Name": bench.name("n"), "Driver": "overlay", "IPAM": pool})
    spec = bench.spec()
    spec["TaskTemplate"]["Networks"] = [{"Target": network}]
    (task,) = await bench.running(await bench.start(spec))
    (attachment,) = task["NetworksAttachments"]
    assert attachment["Network"]["ID"] == network
    assert attachment["Network"]["Spec"]["Name"] == bench.name("n")
    (address,) = attachment["Addresses"]
    assert address.startswith("10.231.241.")
    assert address.endswith("/24")


async def test_a_task_says_since_when_it_runs(bench: Bench) -> None:
    """`UpdatedAt` is when its manager heard that it runs, by the engine's clock; a write of labels does not change it."""
    identity = await bench.start(bench.spec())
    (task,) = await bench.running(identity)
    assert abs(bench.engine.clock() - seconds_of(task["UpdatedAt"])) < CLOCKS_DIFFER
    await bench.update(identity, label)
    await bench.pause(1)
    (again,) = await bench.running(identity)
    assert again["UpdatedAt"] == task["UpdatedAt"]


async def test_an_ended_task_has_an_exit_code(bench: Bench) -> None:
    """A container's status is told with it, whether the engine calls that an error or not."""
    identity = await bench.start(bench.spec(image=EXITS))
    task = await bench.task_in(identity, "failed")
    assert task["Status"]["ContainerStatus"]["ExitCode"] == 1
    assert task["DesiredState"] == "shutdown"


@pytest.mark.xdist_group("task history")
@pytest.mark.parametrize("limit", [0, 1])
async def test_ended_tasks_may_be_forgotten_at_once(bench: Bench, limit: int) -> None:
    """With a task history of none or one, a failed task is gone as soon as there is another one: nothing tells of it."""
    async with bench.task_history(limit):
        identity = await bench.start(bench.spec(image=EXITS))
        seen: set[str] = set()

        async def third() -> bool:
            tasks = await bench.tasks(identity)
            seen.update(task["ID"] for task in tasks)
            assert len(tasks) <= 3
            return len(seen) > 2 and len(tasks) == 1

        await bench.eventually(third)


# what a write does


async def test_a_write_without_a_change_is_a_write(bench: Bench) -> None:
    """The same spec again raises the version, replaces the previous spec, forgets the last roll-out, keeps the tasks."""
    identity = await bench.start(bench.spec())
    await bench.update(identity, image(NEWER))
    await bench.ends(identity, "completed")
    tasks = await bench.runs(identity)
    before = await bench.update(identity, nothing)
    await bench.pause(1)
    after = await bench.live(identity)
    assert after["Version"]["Index"] > before["Version"]["Index"]
    assert before["PreviousSpec"] != before["Spec"]
    assert after["PreviousSpec"] == after["Spec"] == before["Spec"]
    assert "UpdateStatus" not in after
    assert await bench.runs(identity) == tasks


def replicas(number: int) -> Callable[[Json], None]:
    """A change of scale."""

    def change(spec: Json) -> None:
        spec["Mode"]["Replicated"]["Replicas"] = number

    return change


async def test_a_write_forgets_tasks_that_are_being_removed(bench: Bench) -> None:
    """Scaled down, a task is listed until it has ended; with any other write it is not, although it may still run."""
    identity = await bench.start(bench.spec())
    await bench.runs(identity)
    await bench.update(identity, replicas(0))

    async def is_going() -> bool:
        return [task["DesiredState"] for task in await bench.tasks(identity)] == ["remove"]

    await bench.eventually(is_going)
    await bench.update(identity, label)

    async def is_forgotten() -> bool:
        return not await bench.tasks(identity)

    await bench.eventually(is_forgotten)


def policies(spec: Json) -> None:
    """A change of how to roll, and of nothing that runs."""
    spec["UpdateConfig"]["Parallelism"] = 7
    spec["RollbackConfig"]["Parallelism"] = 7


def allowed_here(spec: Json) -> None:
    """A constraint that this node meets, and room for one task on it."""
    spec["TaskTemplate"]["Placement"] = {"Constraints": ["node.role==manager"], "MaxReplicas": 1}


async def test_some_changes_restart_nothing(bench: Bench) -> None:
    """Service labels, policies, and placement that the task's node meets keep the tasks and show no roll-out."""

    async def one(short: str, change: Callable[[Json], None]) -> None:
        identity = await bench.start(bench.spec(short))
        tasks = await bench.runs(identity)
        before = await bench.update(identity, change)
        await bench.pause(1)
        after = await bench.live(identity)
        assert after["Spec"] != after["PreviousSpec"] == before["Spec"], change
        assert "UpdateStatus" not in after, change
        assert [task["ID"] for task in await bench.tasks(identity)] == tasks, change

    await bench.together(one, label, policies, allowed_here)


async def test_another_login_restarts_nothing(bench: Bench) -> None:
    """A write that only brings credentials keeps the tasks."""
    identity = await bench.start(bench.spec())
    tasks = await bench.runs(identity)
    login = RegistryLogin(username="u", password="p", serveraddress=bench.registry)
    await bench.update(identity, nothing, auth=registry_auth(login))
    await bench.pause(1)
    assert [task["ID"] for task in await bench.tasks(identity)] == tasks


def container_label(spec: Json) -> None:
    """A label of the containers."""
    spec["TaskTemplate"]["ContainerSpec"]["Labels"] = {"a": "1"}


def environment(spec: Json) -> None:
    """A variable."""
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["A=1"]


def restart_policy(spec: Json) -> None:
    """How ended tasks are started again."""
    spec["TaskTemplate"]["RestartPolicy"]["MaxAttempts"] = 3


def force_update(spec: Json) -> None:
    """What `docker service update --force` changes."""
    spec["TaskTemplate"]["ForceUpdate"] = 1


def endpoint_mode(spec: Json) -> None:
    """A virtual address instead of none."""
    spec["EndpointSpec"]["Mode"] = "vip"


def limits(spec: Json) -> None:
    """A limit of memory."""
    spec["TaskTemplate"]["Resources"] = {"Limits": {"MemoryBytes": 32 * 1024 * 1024}}


async def test_other_changes_replace_tasks(bench: Bench) -> None:
    """Any other difference in the template, or in the endpoint, replaces every task; the roll-out completes."""

    async def one(short: str, change: Callable[[Json], None]) -> None:
        identity = await bench.start(bench.spec(short))
        (old,) = await bench.runs(identity)
        before = await bench.update(identity, change)
        live = await bench.ends(identity, "completed")
        status = live["UpdateStatus"]
        assert status["Message"] == "update completed", change
        assert status["StartedAt"] <= status["CompletedAt"], change
        assert live["PreviousSpec"] == before["Spec"], change
        (new,) = await bench.runs(identity)
        assert new != old, change
        (ended,) = [task for task in await bench.tasks(identity) if task["ID"] == old]
        assert (ended["Status"]["State"], ended["DesiredState"]) == ("shutdown", "shutdown"), change
        assert not ended["Status"].get("Err"), change

    changes = (container_label, environment, restart_policy, force_update, endpoint_mode, limits)
    await bench.together(one, image(NEWER), *changes)


async def test_a_roll_out_shows(bench: Bench) -> None:
    """While tasks are replaced, the update state is `updating`."""
    identity = await bench.start(bench.spec())
    await bench.update(identity, image(NEWER))
    live = await bench.ends(identity, "updating")
    assert live["UpdateStatus"]["Message"] == "update in progress"
    assert live["UpdateStatus"]["StartedAt"]
    assert "CompletedAt" not in live["UpdateStatus"]


@ORDERS
async def test_the_order_of_a_roll_out(bench: Bench, order: str) -> None:
    """`start-first` ends the old task after the new one runs, `stop-first` before."""
    identity = await bench.start(in_order(bench.spec(), order))
    (old,) = await bench.runs(identity)
    await bench.update(identity, image(NEWER))
    await bench.ends(identity, "completed")
    (new,) = await bench.runs(identity)
    await bench.task_in(identity, "shutdown")  # the update does not wait for it
    when = {task["ID"]: task["Status"]["Timestamp"] for task in await bench.tasks(identity)}
    assert (when[new] < when[old]) is (order == "start-first")


async def test_one_task_after_the_other(bench: Bench) -> None:
    """With a parallelism of one, a roll-out replaces every task, and one at a time."""
    spec = {**bench.spec(), "Mode": {"Replicated": {"Replicas": 2}}}
    identity = await bench.start(spec)
    await bench.update(identity, image(NEWER))
    least = 2

    async def completed() -> bool:
        nonlocal least
        least = min(least, len(await bench.running(identity)))
        return await bench.state(identity, "completed") is not None

    await bench.eventually(completed)
    assert least == 1
    images = [task["Spec"]["ContainerSpec"]["Image"] for task in await bench.running(identity)]
    assert images == [NEWER] * 2


# roll-back


@ORDERS
async def test_a_failed_update_is_rolled_back(bench: Bench, order: str) -> None:
    """The whole old spec is back with its labels, no spec is the previous one, and only the failed tasks tell."""
    identity = await bench.start(in_order(bench.spec(), order))

    def change(spec: Json) -> None:
        image(EXITS)(spec)
        label(spec)

    before = await bench.update(identity, change)
    bad = (await bench.live(identity))["Spec"]["TaskTemplate"]
    live = await bench.ends(identity, "rollback_completed")
    assert live["Spec"] == before["Spec"]
    assert "PreviousSpec" not in live
    assert live["UpdateStatus"]["Message"] == "rollback completed"
    assert live["UpdateStatus"]["StartedAt"] <= live["UpdateStatus"]["CompletedAt"]
    assert live["Version"]["Index"] > before["Version"]["Index"] + 1
    await bench.eventually(partial(bench.runs, identity))
    failed = [task for task in await bench.tasks(identity) if task["Status"]["State"] == "failed"]
    assert failed
    for task in failed:
        assert task["Spec"] == {key: value for key, value in bad.items() if key != "Runtime"}
        assert task["DesiredState"] == "shutdown"
        assert task["Status"]["Err"] == "task: non-zero exit (1)"
        assert task["Status"]["Message"] == "started"


@ORDERS
async def test_only_start_first_keeps_the_task_that_works(bench: Bench, order: str) -> None:
    """When no new task ever runs, `start-first` leaves the old one alone, and `stop-first` has ended it."""
    identity = await bench.start(in_order(bench.spec(), order))
    (old,) = await bench.runs(identity)
    await bench.update(identity, image(MISSING))
    await bench.ends(identity, "rollback_completed")
    (new,) = await bench.eventually(partial(bench.runs, identity))
    assert (new == old) is (order == "start-first")


def half_bad(spec: Json) -> None:
    """A change that fails in slot 2: slot 1 has to be rolled back."""
    image(NEWER)(spec)
    container = spec["TaskTemplate"]["ContainerSpec"]
    container["Env"] = ["SLOT={{.Task.Slot}}"]
    container["Command"] = ["sh", "-c", "sleep 1; test $SLOT = 2 && exit 1; sleep 60"]
    container["StopGracePeriod"] = SECOND // 10


async def test_a_roll_back_names_the_task_that_failed(bench: Bench) -> None:
    """While the old tasks come back, the update state says why; the time is that of the update."""
    bench.behaves(NEWER, Behaviour(exits=1))
    spec = {**bench.spec(), "Mode": {"Replicated": {"Replicas": 2}}}
    spec["UpdateConfig"] |= {"Parallelism": 2, "Monitor": 2 * SECOND}
    spec["RollbackConfig"]["Monitor"] = 2 * SECOND
    identity = await bench.start(spec)

    await bench.update(identity, half_bad)
    started = (await bench.ends(identity, "updating"))["UpdateStatus"]["StartedAt"]
    live = await bench.ends(identity, "rollback_started")
    text = live["UpdateStatus"].pop("Message")
    assert live["UpdateStatus"] == {"State": "rollback_started", "StartedAt": started}
    start, _, failed = text.rpartition(" ")
    assert start == "update rolled back due to failure or early termination of task"
    assert failed in {task["ID"] for task in await bench.tasks(identity)}
    assert "PreviousSpec" not in live
    assert live["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == GOOD


@pytest.mark.parametrize("reference", [MISSING, WEB], ids=["rejected", "complete"])
async def test_other_ends_of_a_task_roll_back_as_well(bench: Bench, reference: str) -> None:
    """A task whose image is missing, or that ends by itself without an error, counts as failed."""
    bench.behaves(WEB, Behaviour(exits=0))
    identity = await bench.start(bench.spec())

    def change(spec: Json) -> None:
        image(reference)(spec)
        spec["UpdateConfig"]["Monitor"] = 2 * SECOND
        spec["TaskTemplate"]["ContainerSpec"]["Command"] = ["true"]

    await bench.update(identity, change)
    live = await bench.ends(identity, "rollback_completed")
    assert live["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == GOOD


def fails_late(spec: Json) -> None:
    """A change that is found out only after a while."""
    image(NEWER)(spec)
    spec["TaskTemplate"]["ContainerSpec"]["Command"] = ["sh", "-c", "sleep 3; exit 1"]
    spec["UpdateConfig"]["Monitor"] = 20 * SECOND


@pytest.mark.parametrize("change", [nothing, label])
async def test_a_second_write_disarms_the_roll_back(bench: Bench, change: Callable[[Json], None]) -> None:
    """The same bad template again, while it rolls out, is not rolled back any more: it stays, failing, and nothing is said."""
    bench.behaves(NEWER, Behaviour(exits=1, after=3))
    identity = await bench.start(bench.spec())
    await bench.update(identity, fails_late)
    await bench.ends(identity, "updating")
    await bench.eventually(partial(bench.runs, identity))
    before = await bench.update(identity, change)
    assert before["UpdateStatus"]["State"] == "updating"

    async def failed_again() -> bool:
        return len([task for task in await bench.tasks(identity) if task["Status"]["State"] == "failed"]) > 1

    await bench.eventually(failed_again)
    await bench.pause(1)
    live = await bench.live(identity)
    assert live["Spec"]["TaskTemplate"] == before["Spec"]["TaskTemplate"]
    assert live["PreviousSpec"] == before["Spec"]
    assert "UpdateStatus" not in live


WATCHED = 15
"""Seconds for which Swarm watches tasks that came back."""


def other_half_bad(spec: Json) -> None:
    """Another spec that fails."""
    half_bad(spec)
    spec["TaskTemplate"]["ContainerSpec"]["Env"].append("A=1")


async def rolling_back(bench: Bench, short: str) -> tuple[str, list[str]]:
    """A service in the middle of a roll-back, with its tasks: all are of the old spec again, and Swarm watches them.

    What a write does earlier depends on which tasks are left, since only those that an update made itself count for it.
    And Swarm watches only after it had a task to replace: what failed may have been replaced by its own restart.
    """
    bench.behaves(NEWER, Behaviour(exits=1))
    spec = {**bench.spec(short), "Mode": {"Replicated": {"Replicas": 2}}}
    spec["UpdateConfig"] |= {"Parallelism": 2, "Monitor": 20 * SECOND}
    spec["RollbackConfig"] |= {"Parallelism": 2, "Monitor": WATCHED * SECOND}
    identity = await bench.start(spec)
    await bench.update(identity, half_bad)
    await bench.ends(identity, "rollback_started")

    async def are_back() -> list[str]:
        wanted = [task for task in await bench.tasks(identity) if task["DesiredState"] in MEANT_TO_RUN]
        running = [task["ID"] for task in wanted if task["Status"]["State"] == "running"]
        old = all(task["Spec"]["ContainerSpec"]["Image"] == GOOD for task in wanted)
        return sorted(running) if old and len(running) == len(wanted) == 2 else []

    return identity, await bench.eventually(are_back)


async def test_a_write_during_a_roll_back_ends_what_is_said_of_it(bench: Bench) -> None:
    """The old spec again, or another label: the tasks that came back stay, and the roll-back is never said to be complete."""

    async def one(short: str, change: Callable[[Json], None]) -> None:
        identity, tasks = await rolling_back(bench, short)
        before = await bench.update(identity, change)
        assert before["UpdateStatus"]["State"] == "rollback_started"
        await bench.pause(WATCHED + 2)
        live = await bench.live(identity)
        assert "UpdateStatus" not in live, change
        assert live["PreviousSpec"] == before["Spec"]
        assert await bench.runs(identity, 2) == tasks

    await bench.together(one, nothing, label)


def works(spec: Json) -> None:
    """A change that works."""
    image(WEB)(spec)
    spec["UpdateConfig"]["Monitor"] = SECOND // 5


async def test_a_change_during_a_roll_back_is_rolled_out(bench: Bench) -> None:
    """A new spec that works replaces the tasks that came back; the previous spec is the one that they were of."""
    identity, _ = await rolling_back(bench, "a")
    before = await bench.update(identity, works)
    assert before["UpdateStatus"]["State"] == "rollback_started"
    live = await bench.ends(identity, "completed")
    assert live["PreviousSpec"] == before["Spec"]
    images = [task["Spec"]["ContainerSpec"]["Image"] for task in await bench.running(identity)]
    assert images == [WEB] * 2


async def test_a_bad_spec_during_a_roll_back_is_rolled_back_again(bench: Bench) -> None:
    """The spec that failed, or another one that does: tried once more, and rolled back once more."""

    async def one(short: str, change: Callable[[Json], None]) -> None:
        identity, _ = await rolling_back(bench, short)
        failed = {task["ID"] for task in await bench.tasks(identity) if task["Status"]["State"] == "failed"}
        before = await bench.update(identity, change)
        assert before["UpdateStatus"]["State"] == "rollback_started"
        live = await bench.ends(identity, "rollback_started", "rollback_completed")
        assert live["Spec"] == before["Spec"], change
        assert "PreviousSpec" not in live
        again = [task["ID"] for task in await bench.tasks(identity) if task["Status"]["State"] == "failed"]
        assert {*again} - failed

    await bench.together(one, half_bad, other_half_bad)


async def test_an_update_can_pause(bench: Bench) -> None:
    """With the failure action `pause` the bad spec stays, and its tasks keep failing."""
    spec = bench.spec()
    spec["UpdateConfig"]["FailureAction"] = "pause"
    identity = await bench.start(spec)
    before = await bench.update(identity, image(EXITS))
    live = await bench.ends(identity, "paused")
    assert live["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == EXITS
    assert live["PreviousSpec"] == before["Spec"]
    assert live["UpdateStatus"]["Message"].startswith(
        "update paused due to failure or early termination of task "
    )
    assert "CompletedAt" not in live["UpdateStatus"]


async def test_a_roll_back_that_fails_pauses(bench: Bench) -> None:
    """When the old spec fails, too, the roll-back pauses: nothing that works is left."""
    identity = await bench.create(bench.spec(image=EXITS))
    await bench.task_in(identity, "failed")
    await bench.update(identity, image(GOOD))
    before = await bench.ends(identity, "completed")
    await bench.roll_back(identity)
    live = await bench.ends(identity, "rollback_paused")
    assert live["Spec"] == before["PreviousSpec"]
    assert live["UpdateStatus"]["Message"].startswith(
        "update paused due to failure or early termination of task "
    )
    assert "CompletedAt" not in live["UpdateStatus"]


async def test_a_roll_back_needs_the_secrets_of_its_spec(bench: Bench) -> None:
    """When the secret of the previous spec was removed, nothing comes back from a roll-back but failures."""
    secret = await bench.engine.create_secret({"Name": bench.name("s"), "Data": "dmFsdWU="})
    file = {"Name": "secret.json", "UID": "0", "GID": "0", "Mode": 0o444}
    spec = bench.spec(Secrets=[{"File": file, "SecretID": secret, "SecretName": bench.name("s")}])
    spec["RollbackConfig"]["Monitor"] = 2 * SECOND
    identity = await bench.start(spec)
    await bench.update(identity, lambda spec: spec["TaskTemplate"]["ContainerSpec"].pop("Secrets"))
    await bench.ends(identity, "completed")
    await bench.engine.remove_secret(secret)
    await bench.roll_back(identity)
    await bench.ends(identity, "rollback_paused")
    task = await bench.task_in(identity, "failed")
    text = f"unable to get secret from secret store: secret {secret} not found"
    assert task["Status"]["Err"] == f"starting container failed: {text}"
    assert task["Status"]["Message"] == "starting"


async def test_a_roll_back_by_hand_swaps_the_specs(bench: Bench) -> None:
    """The spec that was rolled away from becomes the previous one; the message tells it from an automatic one."""
    identity = await bench.start(bench.spec())

    def change(spec: Json) -> None:
        image(NEWER)(spec)
        label(spec)

    await bench.update(identity, change)
    before = await bench.ends(identity, "completed")
    await bench.roll_back(identity)
    live = await bench.live(identity)
    assert live["Spec"] == before["PreviousSpec"]
    assert live["PreviousSpec"] == before["Spec"]
    status = live["UpdateStatus"]
    assert (status["State"], status["Message"]) == ("rollback_started", "manually requested rollback")
    after = await bench.ends(identity, "rollback_completed")
    assert after["UpdateStatus"]["Message"] == "rollback completed"
    assert after["PreviousSpec"] == before["Spec"]
    (task,) = await bench.running(identity)
    assert task["Spec"]["ContainerSpec"]["Image"] == GOOD


async def test_a_label_after_a_roll_back_forgets_it(bench: Bench) -> None:
    """A label-only write after an automatic roll-back clears the update state; only failed tasks still tell."""
    identity = await bench.start(in_order(bench.spec(), "start-first"))
    await bench.update(identity, image(EXITS))
    await bench.ends(identity, "rollback_completed")
    tasks = await bench.eventually(partial(bench.runs, identity))
    before = await bench.update(identity, label)
    await bench.pause(1)
    live = await bench.live(identity)
    assert "UpdateStatus" not in live
    assert live["PreviousSpec"] == before["Spec"]
    assert live["PreviousSpec"]["TaskTemplate"] == live["Spec"]["TaskTemplate"]
    assert await bench.runs(identity) == tasks
    assert await bench.task_in(identity, "failed")


# numbers of tasks


async def test_scaling_keeps_tasks(bench: Bench) -> None:
    """More or fewer replicas make or remove tasks, without a roll-out; those that go vanish."""
    identity = await bench.start(bench.spec())
    (first,) = await bench.runs(identity)
    await bench.update(identity, replicas(3))
    assert first in await bench.eventually(partial(bench.runs, identity, 3))
    assert "UpdateStatus" not in await bench.live(identity)
    await bench.update(identity, replicas(1))

    async def one_is_left() -> list[Json]:
        tasks = await bench.tasks(identity)
        return tasks if len(tasks) == 1 else []

    (left,) = await bench.eventually(one_is_left)
    assert (left["Status"]["State"], left["DesiredState"]) == ("running", "running")
    assert "UpdateStatus" not in await bench.live(identity)


async def test_a_service_without_replicas(bench: Bench) -> None:
    """A service may have no tasks at all, and get some later."""
    identity = await bench.create({**bench.spec(), "Mode": {"Replicated": {"Replicas": 0}}})
    await bench.pause(1)
    assert await bench.tasks(identity) == []
    await bench.update(identity, image(NEWER))
    await bench.pause(0.5)
    await bench.update(identity, replicas(1))
    (task,) = await bench.eventually(partial(bench.running, identity))
    assert task["Spec"]["ContainerSpec"]["Image"] == NEWER


async def test_a_global_service(bench: Bench) -> None:
    """A global service has one task on every node, without a slot."""
    identity = await bench.create({**bench.spec(), "Mode": {"Global": {}}})
    nodes = {node["ID"] for node in await bench.engine.list_nodes() if node["Status"]["State"] == "ready"}
    await bench.eventually(partial(bench.runs, identity, len(nodes)))
    tasks = await bench.running(identity)
    assert {task["NodeID"] for task in tasks} == nodes
    assert not any(task.get("Slot") for task in tasks)
    assert (await bench.live(identity))["Spec"]["Mode"] == {"Global": {}}


async def test_a_global_service_that_no_node_takes(bench: Bench) -> None:
    """A global service whose placement excludes every node has no tasks."""
    spec = {**bench.spec(), "Mode": {"Global": {}}}
    spec["TaskTemplate"]["Placement"] = {"Constraints": [NOWHERE]}
    identity = await bench.create(spec)
    await bench.pause(1)
    assert await bench.tasks(identity) == []


async def test_a_removed_service_is_gone_at_once_and_its_tasks_soon(bench: Bench) -> None:
    """Tasks of a removed service stay listed until their containers have ended."""
    identity = await bench.start(bench.spec())
    await bench.engine.remove_service(identity)
    assert identity not in {document["ID"] for document in await bench.engine.list_services()}

    async def all_are_to_go() -> bool:
        return {task["DesiredState"] for task in await bench.tasks(identity)} <= {"remove"}

    async def no_tasks() -> bool:
        return not await bench.tasks(identity)

    await bench.eventually(all_are_to_go)
    await bench.eventually(no_tasks)


async def test_an_ended_task_is_followed_by_another(bench: Bench) -> None:
    """Swarm starts a new task in the slot of one that ended, and keeps five ended ones."""
    identity = await bench.create(bench.spec(image=EXITS))

    seen: set[str] = set()

    async def older_ones_are_forgotten() -> list[Json]:
        tasks = await bench.tasks(identity)
        seen.update(task["ID"] for task in tasks)
        ended = [task for task in tasks if task["DesiredState"] == "shutdown"]
        return tasks if len(seen) > 7 and 3 <= len(ended) <= 6 else []

    assert {task["Slot"] for task in await bench.eventually(older_ones_are_forgotten)} == {1}


# tasks that do not run


async def test_a_missing_image(bench: Bench) -> None:
    """A task whose image nobody has is rejected."""
    identity = await bench.create(bench.spec(image=MISSING))
    task = await bench.task_in(identity, "rejected")
    assert task["Status"]["Err"] == f"No such image: {MISSING}"
    assert (task["Status"]["Message"], task["DesiredState"]) == ("preparing", "shutdown")


async def test_a_private_image_without_a_login(bench: Bench) -> None:
    """A task whose image needs a login that the service has not is rejected as if there were none."""
    reference = f"{bench.private_registry}/private:1"
    identity = await bench.create(bench.spec(image=reference))
    assert (await bench.task_in(identity, "rejected"))["Status"]["Err"] == f"No such image: {reference}"


async def pending_error(bench: Bench, spec: Json) -> str:
    """Why a task waits for a node."""
    identity = await bench.create(spec)

    async def error() -> str:
        for task in await bench.tasks(identity):
            if task["Status"]["State"] == "pending" and task["Status"].get("Err"):
                return str(task["Status"]["Err"])
        return ""

    return await bench.eventually(error)


async def test_a_missing_volume_plugin(bench: Bench) -> None:
    """A task whose volume driver no node has waits, and says so."""
    options = {"DriverConfig": {"Name": "nowhere"}}
    mount = {"Type": "volume", "Source": bench.name("v"), "Target": "/v", "VolumeOptions": options}
    error = await pending_error(bench, bench.spec(Mounts=[mount]))
    assert error == "no suitable node (missing plugin on 1 node)"


async def test_a_placement_that_no_node_meets(bench: Bench) -> None:
    """A task that no node may run waits, and says so."""
    spec = bench.spec()
    spec["TaskTemplate"]["Placement"] = {"Constraints": [NOWHERE]}
    error = await pending_error(bench, spec)
    assert error == "no suitable node (scheduling constraints not satisfied on 1 node)"


async def test_more_replicas_than_a_node_may_have(bench: Bench) -> None:
    """A task beyond the number per node waits, and says so."""
    spec = {**bench.spec(), "Mode": {"Replicated": {"Replicas": 2}}}
    spec["TaskTemplate"]["Placement"] = {"MaxReplicas": 1}
    error = await pending_error(bench, spec)
    assert error == "no suitable node (max replicas per node limit exceed)"


async def test_a_health_check_that_fails(bench: Bench) -> None:
    """A container that is unhealthy, and has to be killed, fails with a text that says so."""
    bench.behaves(WEB, Behaviour(unhealthy=True))
    check = {"Test": ["CMD", "false"], "Interval": SECOND // 5, "Retries": 1}
    command = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
    spec = bench.spec(image=WEB, Command=command, Healthcheck=check, StopGracePeriod=SECOND // 10)
    task = await bench.task_in(await bench.create(spec), "failed")
    assert task["Status"]["Err"] == "task: non-zero exit (137): dockerexec: unhealthy container"


async def test_a_health_check_that_fails_without_an_error(bench: Bench) -> None:
    """A container that is unhealthy, and ends well when told to, looks as if it had ended by itself."""
    bench.behaves(WEB, Behaviour(unhealthy=True, exits=0))
    check = {"Test": ["CMD", "false"], "Interval": SECOND // 5, "Retries": 1}
    task = await bench.task_in(await bench.create(bench.spec(image=WEB, Healthcheck=check)), "complete")
    assert task["Status"]["Message"] == "finished"
    assert not task["Status"].get("Err")


# addresses


async def small_network(bench: Bench, subnet: str) -> str:
    """A network with six addresses for hosts: one for the gateway, one for the node, four for tasks."""
    config = {
        "Name": bench.name("n"),
        "Driver": "overlay",
        "IPAM": {"Config": [{"Subnet": subnet}]},
    }
    return await bench.engine.create_network(config)


def on_network(bench: Bench, network: str, number: int, **members: Any) -> Json:
    """A spec with so many tasks on one network."""
    spec = {**bench.spec(), "Mode": {"Replicated": {"Replicas": number}}, **members}
    spec["TaskTemplate"]["Networks"] = [{"Target": network}]
    return spec


async def test_a_network_that_is_just_large_enough(bench: Bench) -> None:
    """Of a /29, four tasks without virtual address can run on one node."""
    await bench.start(on_network(bench, await small_network(bench, "10.231.242.0/29"), 4))


async def test_a_network_without_room_for_its_node(bench: Bench) -> None:
    """Of a /29, five tasks take all addresses, none is left for the node, and none of the five runs."""
    network = await small_network(bench, "10.231.245.0/29")
    identity = await bench.create(on_network(bench, network, 5))

    async def five_prepare() -> bool:
        return [task["Status"]["State"] for task in await bench.tasks(identity)] == ["preparing"] * 5

    await bench.eventually(five_prepare)
    await bench.pause(1)
    tasks = await bench.tasks(identity)
    assert [task["Status"]["State"] for task in tasks] == ["preparing"] * 5
    assert not any(task["Status"].get("Err") for task in tasks)


async def test_a_virtual_address_takes_room(bench: Bench) -> None:
    """Of a /29, three tasks with a virtual address can run on one node; a fourth and all others hang."""
    network = await small_network(bench, "10.231.243.0/29")
    await bench.start(on_network(bench, network, 3, EndpointSpec={"Mode": "vip"}))


async def test_a_network_without_room_leaves_tasks_new(bench: Bench) -> None:
    """Tasks beyond the addresses stay `new` and say nothing, and run as soon as there is room."""
    network = await small_network(bench, "10.231.244.0/29")
    spec = on_network(bench, network, 7)
    identity = await bench.create(spec)
    await bench.pause(2)
    tasks = [task for task in await bench.tasks(identity) if task["Status"]["State"] == "new"]
    assert len(tasks) >= 2
    for task in tasks:
        assert task["Status"]["Message"] == "created"
        assert not task["Status"].get("Err")
        assert "NodeID" not in task
    await bench.update(identity, replicas(4))
    await bench.eventually(partial(bench.runs, identity, 4))
