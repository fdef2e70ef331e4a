"""Several writers on one Swarm, simulated: two daemons that disagree, two that agree, and a hand that goes on and on."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.app.worlds import BAD, GOOD, NEWER, Json, World, cluster, play, service

from coreflow.adapters.memory import MemoryCloudly, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.main import Ports, running
from coreflow.app.settings import Settings, load_settings

MINUTES = 60.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a daemon without base services, which begins at once."""
    environ = {
        "CLOUDLY_URL": "file:///cluster.yaml",
        "COREFLOW_BASE_SERVICES": "",
        "COREFLOW_INITIAL_DELAY": "0",
        "COREFLOW_SCHEDULE": "0 30 4 * * *",
    }
    return load_settings(environ, directory=tmp_path, secrets=tmp_path)


async def _daemons(
    stack: AsyncExitStack, settings: Settings, world: World, *records: MemoryCloudly, first: int = 0
) -> None:
    """A daemon for each source of records, all on one Swarm."""
    for number, cloudly in enumerate(records, first):
        docker = SwarmPort(world.engine, writer=f"host{number}:1")
        await stack.enter_async_context(running(settings, Ports(cloudly=cloudly, docker=docker)))


async def _watch(engine: MemoryEngine, name: str, seconds: float) -> int:
    """The fewest tasks of a service that ran at any look."""
    fewest = 99
    for _ in range(int(seconds * 5)):
        await trio.sleep(0.2)
        fewest = min(fewest, len(engine.running_tasks(name)))
    return fewest


def version(number: int, *, third: bool = True) -> Json:
    """Records of one version: three services that differ between versions, with secrets."""
    names = ("a", "b", "c") if third else ("a", "b")
    services = [
        service(name, (GOOD, NEWER)[number], environment={"V": str(number)}, secretBundleId="s")
        for name in names
    ]
    return cluster(*services, secrets={"s": f"value {number}"})


def test_two_daemons_that_disagree_do_not_fight(settings: Settings) -> None:
    """One version apart, with a record missing in one of them: few writes in ten minutes, nothing down, both say so."""

    async def scene() -> None:
        world = World()
        with capture_logs() as lines:
            async with AsyncExitStack() as stack:
                one, other = MemoryCloudly(version(0)), MemoryCloudly(version(1, third=False))
                await _daemons(stack, settings, world, one)
                await trio.sleep(30)
                world.engine.calls.clear()
                await _daemons(stack, settings, world, other, first=1)
                assert await _watch(world.engine, "a", 10 * MINUTES) >= 1
                assert world.engine.writes <= 40
        quarrels = [line for line in lines if line["event"] == "contested"]
        assert {line["name"] for line in quarrels} == {"a", "b", "c"}
        assert {"host0:1", "host1:1"} <= {
            who for line in quarrels for who in ("host0:1", "host1:1") if who in line["reason"]
        }
        assert len(quarrels) <= 6, "said once by each, not every time"

    play(scene)


def changes() -> list[Json]:
    """Records and what becomes of them: services come, change, and go."""
    found = [cluster(*(service(f"s{n}", secretBundleId="s") for n in range(10)), secrets={"s": "1"})]
    for number in range(1, 8):
        services = [
            service(f"s{n}", secretBundleId="s", environment={"V": str(number if n % 2 else 0)})
            for n in range(10 - number % 3)
        ]
        found.append(cluster(*services, secrets={"s": str(1 + number // 3)}))
    return found


def test_two_daemons_that_agree_write_hardly_more_than_one(settings: Settings) -> None:
    """With the same records and the same news at the same moment, the one lets the other go first; nothing has failed."""

    async def scene(daemons: int) -> int:
        world = World()
        with capture_logs() as lines:
            async with AsyncExitStack() as stack:
                sources = [MemoryCloudly(changes()[0]) for _ in range(daemons)]
                await _daemons(stack, settings, world, *sources)
                for document in changes()[1:]:
                    await trio.sleep(90)
                    for source in sources:
                        source.set(document)
                await trio.sleep(300)
        assert not [line for line in lines if line["event"] in {"failed", "blocked", "contested"}]
        return world.engine.writes

    async def alone() -> int:
        return await scene(1)

    async def together() -> int:
        return await scene(2)

    assert play(together) <= 1.1 * play(alone)


def test_a_hand_that_repeats_an_edit_is_answered_less_and_less(settings: Settings) -> None:
    """Somebody changes a service every second: a handful of answers in ten minutes, said once, and in the end ours stands."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        with capture_logs() as lines:
            async with AsyncExitStack() as stack:
                await _daemons(stack, settings, world, world.cloudly)
                await trio.sleep(20)
                world.engine.calls.clear()
                edits = 0
                for _ in range(600):
                    await trio.sleep(1)
                    live = await world.live("a")
                    spec = live["Spec"]
                    if spec["Mode"]["Replicated"]["Replicas"] != 2:
                        spec["Mode"]["Replicated"]["Replicas"] = 2
                        await world.engine.update_service(live["ID"], live["Version"]["Index"], spec)
                        edits += 1
                assert world.engine.writes - edits <= 5
                await trio.sleep(1200)
                assert (await world.live("a"))["Spec"]["Mode"]["Replicated"]["Replicas"] == 1
        (line,) = [line for line in lines if line["event"] == "contested"]
        assert line["reason"].startswith("somebody changes it by hand")

    play(scene)


@pytest.mark.parametrize("history", [0, 1, 5])
@pytest.mark.parametrize("restart", [None, 0.05, 0.5, 30.0])
def test_a_failing_change_is_tried_once_at_any_task_history(
    settings: Settings, history: int, restart: float | None
) -> None:
    """Whatever the engine forgets, and whenever the process is restarted: one update, *failed* is said, and no more writes."""

    async def scene() -> None:
        world = World()
        world.engine.history = history
        world.cloudly.set(cluster(service("a")))
        with capture_logs() as lines:
            async with AsyncExitStack() as stack:
                await _daemons(stack, settings, world, world.cloudly)
                await trio.sleep(30)
                world.engine.calls.clear()
                world.cloudly.set(cluster(service("a", BAD)))
                if restart is not None:
                    await _until(lambda: world.engine.writes > 0)
                    await trio.sleep(restart)
                else:
                    await trio.sleep(600)
            if restart is not None:
                async with AsyncExitStack() as stack:
                    await _daemons(stack, settings, world, world.cloudly)
                    await trio.sleep(600)
        updates = [method for method, write in world.engine.calls if write]
        assert updates == ["update_service", "update_service"], "the change, and the note that it failed"
        failed = [
            line
            for line in lines
            if line["event"] == "failed" and "not tried again" in line.get("reason", "")
        ]
        assert failed

    play(scene)


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - the engine in memory tells nobody
        await trio.sleep(0.01)


def test_changes_arrive_although_containers_are_killed(settings: Settings) -> None:
    """Containers killed at random while images change, again and again: in the end every service runs what it should."""

    async def scene() -> None:
        world = World()
        names = [f"s{n}" for n in range(5)]
        world.cloudly.set(cluster(*map(service, names)))
        async with AsyncExitStack() as stack:
            await _daemons(stack, settings, world, world.cloudly)
            await trio.sleep(30)
            for turn in range(12):
                image = (NEWER, GOOD)[turn % 2]
                world.cloudly.set(cluster(*(service(name, image) for name in names)))
                for kill in range(8):
                    await trio.sleep(1.3)
                    tasks = world.engine.running_tasks(names[(turn + kill) % 5])
                    for document in tasks[-1:]:
                        world.engine.fail_task(document["ID"])
            await trio.sleep(300)
            for name in names:
                spec = (await world.live(name))["Spec"]
                assert spec["TaskTemplate"]["ContainerSpec"]["Image"] == GOOD
                assert len(world.engine.running_tasks(name)) == 1

    play(scene)


def test_somebody_asks_for_another_try(settings: Settings) -> None:
    """A running daemon can be told to try again what was rolled back: once, and no more than that."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        ports: Any = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))
        async with running(settings, ports) as engine:
            await trio.sleep(30)
            world.cloudly.set(cluster(service("a", BAD)))
            await trio.sleep(60)
            world.engine.calls.clear()
            engine.retry_failed()
            await trio.sleep(600)
            assert world.engine.writes == 2, "the change, and the note"

    play(scene)
