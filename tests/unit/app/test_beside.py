"""What takes long goes on beside passes: it holds its service, and nobody else."""

import io
import json
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.unit.app.worlds import NEWER, World, cluster, daemon_settings, play, service
from tests.unit.certificates import make, raw

from coreflow.adapters.engine.protocol import EngineTimeout
from coreflow.adapters.memory import Fault, MemoryCloudly, MemoryCoretraffic
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.beside import Background
from coreflow.app.lookups import LONGEST_WAIT_SECONDS, SLOTS, LookUps
from coreflow.app.main import Ports, running
from coreflow.app.settings import Settings
from coreflow.domain.records.models import Records
from coreflow.domain.swarm.images import ImageRequest, ResolvedImage

SLOW, QUICK = "slow.example.com", "quick.example.com"
ARCHIVED: dict[str, Any] = {
    "images": [
        {
            "id": "img",
            "data": {"name": "img", "location": {"internal": True}, "versions": [{"versionString": "1"}]},
        }
    ]
}
LOADED = {"id": "id-big", "data": {"name": "big", "imageId": "img", "imageVersion": "1"}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a daemon without base services."""
    return daemon_settings(tmp_path)


def _ports(world: World) -> Ports:
    return Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))


def _archive(tag: str = "img:1") -> bytes:
    """What `docker save` writes, as far as the memory Swarm reads it."""
    buffer = io.BytesIO()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": [tag]}]).encode()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
    return buffer.getvalue()


def _slow_world(seconds: float = 90.0, count: int = 6) -> World:
    """A healthy service, and some whose registry takes its time."""
    world = World()
    names = [f"slow{number}" for number in range(count)]
    for name in names:
        world.engine.push(f"{SLOW}/{name}:1")
    world.engine.add_registry(SLOW).seconds = seconds
    world.cloudly.set(cluster(service("ok"), *(service(n, f"{SLOW}/{n}:1") for n in names)))
    return world


def _holding(world: World) -> World:
    """With a service whose archive takes a minute to arrive."""
    world.cloudly = MemoryCloudly(cluster(service("ok"), LOADED, **ARCHIVED), {("img", "1"): _archive()})
    world.cloudly.archive_seconds = 60
    return world


async def _until(happened: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Wait for something; how long it took."""
    began = trio.current_time()
    with trio.fail_after(seconds):
        while not await happened():  # noqa: ASYNC110 - the memory Swarm tells nobody
            await trio.sleep(0.05)
    return trio.current_time() - began


def test_a_slow_registry_holds_only_its_services(settings: Settings) -> None:
    """A healthy service is created within a second while six wait, and so is its next change; then the six, at once."""

    async def scene() -> None:
        world = _slow_world()
        async with running(settings, _ports(world)) as engine:

            async def has_ok() -> bool:
                return await world.names() == ["ok"]

            async def has_all() -> bool:
                return len(await world.names()) == 7

            assert await _until(has_ok, 5) < 1
            assert sum(method == "inspect_distribution" for method, _ in world.engine.calls) == 6
            reconcile_result = await engine.reconciled() if engine.last is None else engine.last
            held = [rejection for rejection in reconcile_result.last.plan.rejections if rejection.held]
            assert len(held) == 6
            assert all(SLOW in r.reasons[0] and "since 00:00:00 UTC" in r.reasons[0] for r in held)
            records = json.loads(world.cloudly._content)
            records["services"][0] = service("ok", NEWER)
            world.cloudly.set(records)

            async def is_newer() -> bool:
                return NEWER in (await world.live("ok"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]

            assert await _until(is_newer, 5) < 1
            assert 80 < await _until(has_all, 400) < 90
            asked = sum(method == "inspect_distribution" for method, _ in world.engine.calls)
            assert asked == 6

    play(scene)


def test_events_and_routes_go_on_while_a_registry_is_slow(settings: Settings) -> None:
    """The healthy service is routed, followed to another task, and put right after a change by hand."""

    async def scene() -> None:
        host = "ok.example.com"
        world, proxy = _slow_world(10_000), MemoryCoretraffic()
        document = json.loads(world.cloudly._content)
        document["services"][0] = service("ok", ports={"web": 80}, domains=[{"name": host}])
        world.cloudly.set({**document, "certificates": {host: raw(make(host, days=100_000))}})
        async with running(settings, evolve(_ports(world), coretraffic=proxy)):

            async def is_routed() -> bool:
                running = {task["ID"] for task in world.engine.running_tasks("ok")}
                return bool(running and _routed_to(proxy) == running)

            await _until(is_routed, 10)
            (task,) = world.engine.running_tasks("ok")
            world.engine.fail_task(task["ID"])
            await _until(is_routed, 20)
            (another,) = world.engine.running_tasks("ok")
            assert another["ID"] != task["ID"]
            live = await world.live("ok")
            live["Spec"]["Mode"]["Replicated"]["Replicas"] = 4
            await world.engine.update_service(live["ID"], live["Version"]["Index"], live["Spec"])

            async def is_right() -> bool:
                live = await world.live("ok")
                return bool(live["Spec"]["Mode"]["Replicated"]["Replicas"] == 1)

            await _until(is_right, 5)
            assert await world.names() == ["ok"]
            assert sum(method == "inspect_distribution" for method, _ in world.engine.calls) == 6

    play(scene)


def _routed_to(proxy: MemoryCoretraffic) -> set[str]:
    """The tasks in the newest table."""
    return {to.task_id for table in proxy.tables[-1:] for route in table.routes for to in route.destinations}


def test_what_is_held_for_a_moment_is_no_warning(settings: Settings) -> None:
    """A registry that takes a few seconds is told of once, quietly."""

    async def scene() -> None:
        world = _slow_world(4, 1)
        with capture_logs() as lines:
            async with running(settings, _ports(world)):
                await trio.sleep(30)
        held = [(line["log_level"], line["event"]) for line in lines if line.get("name") == "slow0"]
        assert held[0] == ("info", "held")
        assert [level for level, _ in held if level == "warning"] == []
        assert sum(event == "held" for _, event in held) == 1

    play(scene)


@pytest.mark.parametrize(("seconds", "timeout", "took"), [(90.0, 300.0, 90.0), (90.0, 20.0, 20.0)])
def test_an_apply_waits_for_look_ups_until_its_time_is_up(
    seconds: float, timeout: float, took: float
) -> None:
    """It goes on when the answer comes; the deadline is kept although there is none."""

    async def scene() -> None:
        world = _slow_world(seconds, 1)
        began = trio.current_time()
        reconcile_result = await world.reconciler().deploy(timeout=timeout)
        assert took <= trio.current_time() - began < took + 20
        assert reconcile_result.is_stable == (timeout > seconds)
        assert await world.names() == (["ok", "slow0"] if timeout > seconds else ["ok"])

    play(scene)


def test_a_plan_waits_for_answers_up_to_a_limit() -> None:
    """One look alone has no second chance: it takes the answers with it that come in time."""

    async def scene() -> None:
        world = _slow_world(60, 3)
        reconcile_state = await world.reconciler().look()
        assert trio.current_time() == pytest.approx(60)
        assert len(reconcile_state.plan.actions) == 6  # two networks, four services
        world.engine.registries[SLOW].seconds = 10_000
        reconcile_state = await world.reconciler().look()
        assert trio.current_time() == pytest.approx(60 + LONGEST_WAIT_SECONDS)
        assert [r.held for r in reconcile_state.plan.rejections] == [True] * 3

    play(scene)


def test_a_slow_registry_takes_no_slot_of_another() -> None:
    """However many references of one registry wait, another one is asked at once."""

    async def scene() -> None:
        world = _slow_world(600, 0)
        requests = [ImageRequest(f"{SLOW}/x:{number}") for number in range(50)]
        for request in requests:
            world.engine.push(request.reference)
        other = ImageRequest(f"{QUICK}/y:1")
        world.engine.push(other.reference)
        world.engine.registries[SLOW].seconds = 600
        background = Background()
        look_ups = LookUps(SwarmPort(world.engine), background)
        async with background.open():
            await look_ups.answers(requests)
            assert isinstance((await look_ups.answers([other]))[other], ResolvedImage)
            assert trio.current_time() < 2
            await trio.sleep(300)
            assert sum(method == "inspect_image" for method, _ in world.engine.calls) == SLOTS + 1

    play(scene)


def test_a_refresh_takes_answers_that_come_late(settings: Settings) -> None:
    """A tag that moved is noticed though its registry answers long after the pass that asked."""

    async def scene() -> None:
        world = _slow_world(0, 1)
        async with running(settings, _ports(world)) as engine:
            await trio.sleep(30)
            before = (await world.live("slow0"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
            world.engine.push(f"{SLOW}/slow0:1", content="new")
            world.engine.registries[SLOW].seconds = 40
            engine._kicks.kick(refresh=True)
            await trio.sleep(20)
            live = (await world.live("slow0"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
            assert live == before
            await trio.sleep(25)
            live = (await world.live("slow0"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
            assert live != before

    play(scene)


def test_a_long_load_holds_only_its_service(settings: Settings) -> None:
    """While an archive arrives, others are created and changed; its service comes a moment after its end."""

    async def scene() -> None:
        world = _holding(World())
        with capture_logs() as lines:
            async with running(settings, _ports(world)):
                await trio.sleep(1)
                assert await world.names() == ["ok"]
                await trio.sleep(58)
                assert await world.names() == ["ok"]
                await trio.sleep(2)
                assert await world.names() == ["big", "ok"]
        assert sum(line["event"] == "under way" for line in lines) == 1

    play(scene)


@pytest.mark.parametrize(("timeout", "took"), [(300.0, 60.0), (20.0, 20.0)])
def test_an_apply_waits_for_loads_until_its_time_is_up(timeout: float, took: float) -> None:
    """The deadline ends the waiting; the next apply loads it anew."""

    async def scene() -> None:
        world = _holding(World())
        reconcile_result = await world.reconciler().deploy(timeout=timeout)
        assert took <= trio.current_time() < took + 20
        assert reconcile_result.is_stable == (timeout > 60)
        if not reconcile_result.is_stable:
            assert [outcome.status for outcome in reconcile_result.under_way] == ["under way"] * 2
            assert not reconcile_result.troubles

    play(scene)


class SlowCloudly(MemoryCloudly):
    """Answers what it had when it was asked, after a while."""

    seconds = 0.0

    async def records(self) -> Records:
        """What is wanted, a while ago."""
        found = await super().records()
        await trio.sleep(self.seconds)
        return found


def test_a_slow_control_plane_keeps_nobody_from_repairing(settings: Settings) -> None:
    """While its answer takes minutes, what changes in the engine is put right; changes meanwhile are asked for, too."""

    async def scene() -> None:
        world = World()
        world.cloudly = cloudly = SlowCloudly(cluster(service("a")))
        async with running(settings, _ports(world)):
            await trio.sleep(10)
            cloudly.seconds = 100
            cloudly.set(cluster(service("a"), service("b")))
            await trio.sleep(10)
            cloudly.set(cluster(service("a"), service("b"), service("c")))
            await trio.sleep(10)
            await world.change("a", lambda spec: spec.update(Mode={"Replicated": {"Replicas": 4}}))
            await trio.sleep(3)
            assert (await world.live("a"))["Spec"]["Mode"]["Replicated"]["Replicas"] == 1
            assert await world.names() == ["a"]
            await trio.sleep(80)
            assert await world.names() == ["a", "b"]
            await trio.sleep(100)
            assert await world.names() == ["a", "b", "c"]

    play(scene)


def test_a_single_pass_loads_to_the_end() -> None:
    """Where nothing goes on beside passes, a pass does it all."""

    async def scene() -> None:
        world = _holding(World())
        reconcile_result = await world.reconciler().reconcile()
        assert await world.names() == ["big", "ok"]
        assert not reconcile_result.troubles

    play(scene)


def test_a_first_step_that_hangs_keeps_others_a_second_at_most() -> None:
    """The first step goes alone in case somebody else is faster, and not for as long as an engine may take."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a"), service("b")))
        await world.reconciler().reconcile()
        world.cloudly.set(cluster(service("a", NEWER), service("b", NEWER)))
        world.engine.faults.append(Fault(method="update_service", seconds=60, error=EngineTimeout("timeout")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.reconciler().run_pass)
            await trio.sleep(1.5)
            images = [
                (await world.live(name))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] for name in "ab"
            ]
            assert sum(NEWER in image for image in images) == 1
            nursery.cancel_scope.cancel()

    play(scene)
