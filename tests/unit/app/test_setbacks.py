"""What the engine refuses: said once, tried again later each time, and nobody else waits for it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.app.worlds import NEWER, World, cluster, daemon_settings, play, service

from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.adapters.memory import Fault
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.main import Coreflow, Ports, running
from coreflow.app.settings import Settings

REFUSAL = EngineError(400, "rpc error: code = InvalidArgument desc = too much of it")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a daemon without base services."""
    return daemon_settings(tmp_path)


def _calls(world: World, method: str = "create_service") -> int:
    return Counter(name for name, _ in world.engine.calls)[method]


def _refusing(method: str = "create_service", error: Exception = REFUSAL) -> World:
    world = World()
    world.cloudly.set(cluster(service("a")))
    world.engine.faults += [Fault(method=method, error=error) for _ in range(1000)]
    return world


async def _an_hour(world: World, settings: Settings) -> list[Any]:
    with capture_logs() as lines:
        async with running(settings, Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))):
            await trio.sleep(3600)
    return lines


@pytest.mark.parametrize("method", ["create_service", "create_network", "create_secret"])
def test_a_refusal_is_said_once_and_backs_off(settings: Settings, method: str) -> None:
    """An hour of refusals: a few tries, one line that says when it is tried again, and no line for each pass."""

    async def scene() -> None:
        world = _refusing(method)
        world.cloudly.set(cluster(service("a", secretBundleId="s"), secrets={"s": "x"}))
        lines = await _an_hour(world, settings)
        assert 5 <= _calls(world, method) <= (20 if method == "create_network" else 10)
        failed = [line for line in lines if line["event"] == "failed"]
        assert len(failed) == (2 if method == "create_network" else 1)
        assert all(
            "too much of it" in line["reason"] and line["again"].startswith("in 15 s") for line in failed
        )
        assert len([line for line in lines if line["event"] == "blocked"]) <= 1
        assert len([line for line in lines if line["event"] == "pass"]) <= 21

    play(scene)


def test_a_fault_that_lasts_is_said_once_and_backs_off(settings: Settings) -> None:
    """The same for one service that the engine cannot make for now: once a minute in the end."""

    async def scene() -> None:
        world = _refusing(error=EngineError(500, "rpc error: code = Unavailable desc = later"))
        lines = await _an_hour(world, settings)
        assert 60 <= _calls(world) <= 70
        assert len([line for line in lines if line["event"] == "failed"]) == 1

    play(scene)


async def _change(world: World, _: Coreflow) -> None:
    world.cloudly.set(cluster(service("a", NEWER)))


async def _retry(_: World, engine: Coreflow) -> None:
    engine.retry_failed()


async def _kick(_: World, engine: Coreflow) -> None:
    engine.kick()


@pytest.mark.parametrize("what", [_change, _retry, _kick])
def test_a_change_ends_the_pause(
    settings: Settings, what: Callable[[World, Coreflow], Awaitable[None]]
) -> None:
    """A record that changed, or a person who asks, is answered at once, whatever was refused before."""

    async def scene() -> None:
        world = _refusing()
        async with running(settings, Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))) as engine:
            await trio.sleep(2000)
            world.engine.faults.clear()
            await trio.sleep(100)
            assert await world.names() == []
            await what(world, engine)
            await trio.sleep(1)
            assert await world.names() == ["a"]

    play(scene)


def test_others_are_not_affected(settings: Settings) -> None:
    """While one is refused again and again, another is created and changed within a second."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        world.engine.faults += [Fault(method="create_service", error=EngineUnreachable("reset"))] * 8
        async with running(settings, Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))):
            await trio.sleep(100)
            world.engine.faults = type(world.engine.faults)(
                Fault(method="update_service", error=REFUSAL) for _ in range(1)
            )
            await trio.sleep(60)
            assert await world.names() == ["a"]
            world.cloudly.set(cluster(service("a", NEWER)))
            await trio.sleep(5)
            world.cloudly.set(cluster(service("a", NEWER), service("b")))
            await trio.sleep(1)
            assert await world.names() == ["a", "b"]

    play(scene)


def test_an_apply_ends_with_a_refusal_and_tells_it() -> None:
    """It does not wait for the next try, and what was refused is told although others went on for longer."""

    async def scene() -> None:
        world = _refusing()
        world.cloudly.set(cluster(service("a"), service("b")))
        world.engine.faults = type(world.engine.faults)([Fault(method="create_service", error=REFUSAL)])
        reconcile_result = await world.reconciler().deploy(timeout=300)
        assert trio.current_time() < 60
        assert [outcome.status for outcome in reconcile_result.troubles] == ["failed"]
        assert not reconcile_result.is_stable
        assert _calls(world) == 2

    play(scene)


def test_an_apply_tries_again_what_may_work_later() -> None:
    """A fault of the engine's is tried again with growing pauses until it is over, while others roll out."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a"), service("b")))
        error = EngineError(500, "rpc error: code = Unavailable desc = later")
        world.engine.faults += [Fault(method="create_service", error=error) for _ in range(5)]
        reconcile_result = await world.reconciler().deploy(timeout=300)
        assert reconcile_result.is_stable
        assert _calls(world) == 7

    play(scene)
