"""What starts passes: events of ours, each subject less often the more it asks, and the return of the engine."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.app.worlds import BAD, GOOD, World, cluster, daemon_settings, play, service

from coreflow.adapters.engine.memory.engine import MemoryEngine
from coreflow.adapters.memory import MemoryCloudly
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.main import Coreflow, Ports, running
from coreflow.app.reconcile import Reconciler
from coreflow.app.settings import Settings
from coreflow.domain.records.models import Records


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a daemon without base services."""
    return daemon_settings(tmp_path)


class CountingCloudly(MemoryCloudly):
    """Counts how often it was asked for the records."""

    fetches = 0

    async def records(self) -> Records:
        """One more."""
        self.fetches += 1
        return await super().records()


def _world(*services: Any) -> tuple[World, CountingCloudly]:
    cloudly = CountingCloudly(cluster(*services))
    return World(cloudly=cloudly), cloudly


def _ports(world: World) -> Ports:
    return Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))


def _passes(engine: MemoryEngine) -> int:
    return sum(method == "list_secrets" for method, _ in engine.calls)


async def _foreign(engine: MemoryEngine, image: str) -> str:
    """A service that somebody else runs."""
    spec = {"Name": "theirs", "TaskTemplate": {"ContainerSpec": {"Image": image}}}
    return await engine.create_service({**spec, "Mode": {"Replicated": {"Replicas": 3}}})


def test_what_others_run_starts_no_pass(settings: Settings) -> None:
    """A service of somebody else that crashes every few seconds costs nothing but the relist."""

    async def scene() -> None:
        world, _ = _world(service("a"))
        async with running(settings, _ports(world)):
            await trio.sleep(60)
            await _foreign(world.engine, BAD)
            await trio.sleep(60)
            world.engine.calls.clear()
            for _ in range(600):
                await trio.sleep(1)
                world.engine.advance(0)
            assert _passes(world.engine) <= 11

    play(scene)


async def _ten_minutes(world: World, cloudly: CountingCloudly) -> int:
    """How often the records are asked for in ten minutes, after the first two."""
    for _ in range(120):
        await trio.sleep(1)
        world.engine.advance(0)
    world.engine.calls.clear()
    cloudly.fetches = 0
    for _ in range(600):
        await trio.sleep(1)
        world.engine.advance(0)
    return cloudly.fetches


def test_a_crash_loop_of_ours_keeps_nobody_busy(settings: Settings) -> None:
    """A few passes a minute, and no more fetches of the records than at rest; a change of another service is answered at once."""

    async def at_rest() -> int:
        world, cloudly = _world(service("a"), service("good"))
        async with running(settings, _ports(world)):
            return await _ten_minutes(world, cloudly)

    async def scene() -> None:
        world, cloudly = _world(service("a"), service("bad", BAD))
        async with running(settings, _ports(world)):
            assert await _ten_minutes(world, cloudly) <= quiet + 1
            assert _passes(world.engine) <= 120
            live = await world.live("a")
            live["Spec"]["Mode"]["Replicated"]["Replicas"] = 4
            await world.engine.update_service(live["ID"], live["Version"]["Index"], live["Spec"])
            await trio.sleep(1)
            assert (await world.live("a"))["Spec"]["Mode"]["Replicated"]["Replicas"] == 1
            cloudly.set(cluster(service("a"), service("bad", BAD), service("c")))
            await trio.sleep(1)
            assert "c" in await world.names()

    quiet = play(at_rest)
    play(scene)


def test_an_event_of_the_engine_asks_for_no_records_unless_something_is_to_be_written(
    settings: Settings,
) -> None:
    """Only a change of the records, the relist and a write fetch them."""

    async def scene() -> None:
        world, cloudly = _world(service("a"))
        async with running(settings, _ports(world)):
            await trio.sleep(70)
            before, passes = cloudly.fetches, _passes(world.engine)
            for _ in range(3):
                (task,) = world.engine.running_tasks("a")
                world.engine.fail_task(task["ID"])
                await trio.sleep(7)
            assert _passes(world.engine) >= passes + 3
            assert cloudly.fetches == before
            await world.change("a", partial(_scale, 2))
            await trio.sleep(3)
            assert cloudly.fetches == before + 1
            cloudly.set(cluster(service("a"), service("b")))
            await trio.sleep(1)
            assert cloudly.fetches == before + 2
            assert await world.names() == ["a", "b"]

    play(scene)


def test_what_another_daemon_wrote_from_newer_records_is_not_taken_back(settings: Settings) -> None:
    """Its write is heard of before the news of the records: so they are asked for before anything is written."""

    async def scene() -> None:
        world, cloudly = _world(service("a"))
        newer = _world(service("a", scaleFactor=3))[1]
        async with running(settings, _ports(world)):
            await trio.sleep(10)
            cloudly._content = newer._content  # without a word
            writes = world.engine.writes
            other = Reconciler(newer, SwarmPort(world.engine), render=settings.render_options)
            await other.run_pass()
            await trio.sleep(5)
            assert world.engine.writes == writes + 1
            assert (await world.live("a"))["Spec"]["Mode"]["Replicated"]["Replicas"] == 3

    play(scene)


def _scale(replicas: int, spec: dict[str, Any]) -> None:
    spec["Mode"] = {"Replicated": {"Replicas": replicas}}


async def _pass_after(engine: Coreflow, seconds: float) -> float:
    """When the next series of passes ends, from now."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        await engine.reconciled()
    return trio.current_time() - began


@pytest.mark.parametrize("how", ["crash", "pause"])
@pytest.mark.parametrize("away", [5.0, 30.0, 300.0])
def test_the_return_of_the_engine_starts_a_pass(settings: Settings, away: float, how: str) -> None:
    """Within a second, however long it was away, whenever it returns, and whatever it did with its connections."""

    async def scene() -> None:
        world, _ = _world(service("a"))
        with capture_logs() as lines:
            async with running(settings, _ports(world)) as engine:
                await trio.sleep(70)
                for number in range(20 if away < 300 or how == "pause" else 3):
                    if how == "crash":
                        world.engine.crash()
                        world.engine.hang_up()
                    else:
                        world.engine.pause()
                    await trio.sleep(away + number * 0.37)
                    if how == "crash":
                        world.engine.revive()
                    else:
                        world.engine.go_on()
                    if how == "crash" or away > 61:  # else nothing need have been asked meanwhile
                        assert await _pass_after(engine, 100) <= 1
                    await trio.sleep(20)
        assert sum(line["event"] == "waiting for a peer" for line in lines) <= 20 * 3

    play(scene)


def test_an_engine_that_answers_and_cannot_be_used_is_not_asked_all_the_time(settings: Settings) -> None:
    """Where one list fails for ever and the rest answers, passes back off as ever."""

    async def scene() -> None:
        world, _ = _world(service("a"))
        async with running(settings, _ports(world)):
            await trio.sleep(70)
            world.engine.is_manager = False
            world.engine.calls.clear()
            await trio.sleep(600)
            assert len(world.engine.calls) < 2000
            world.engine.is_manager = True
            world.cloudly.set(cluster(service("a"), service("b", GOOD)))
            await trio.sleep(1)
            assert await world.names() == ["a", "b"]

    play(scene)
