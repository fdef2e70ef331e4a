"""An hour of something that comes and goes: a handful of lines, and whatever begins also ends."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.unit.app.worlds import World, cluster, daemon_settings, play, service
from tests.unit.certificates import make, raw

from coreflow.adapters.memory import Behaviour, MemoryCoretraffic
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.main import Ports, running
from coreflow.app.supervise import supervise
from coreflow.domain.errors import CannotListen, Unavailable, Unreadable

HOUR, TICK = 3600.0, 0.5
MOST_LINES = 12
Line = dict[str, Any]
LOOP = "loop:1"


async def a_daemon(world: World, folder: Path, during: Callable[[], Awaitable[None]]) -> list[Line]:
    """The lines of a daemon while something goes on; the Swarm goes on by itself, and tells of it."""

    async def time_passes() -> None:
        while True:
            await trio.sleep(TICK)
            world.engine.advance(0)

    ports = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))
    with capture_logs() as lines:
        async with (
            running(daemon_settings(folder), evolve(ports, coretraffic=MemoryCoretraffic())),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(time_passes)
            await during()
            nursery.cancel_scope.cancel()
    return [dict(line) for line in lines if line["log_level"] != "debug"]


async def an_hour() -> None:
    """Let it pass."""
    await trio.sleep(HOUR)


def about(lines: list[Line], *names: str) -> list[Line]:
    """The lines about one of these: a service, a host or a job."""
    return [line for line in lines if {line.get("name"), line.get("host"), line.get("job")} & {*names}]


def one_that(behaviour: Behaviour) -> World:
    """A Swarm with a good service, and one with a host that behaves so."""
    world = World()
    world.engine.add_image(LOOP, behaviour)
    host = make("loop.example.com", days=100_000)
    routed = service("loop", LOOP, ports={"web": 80}, domains=[{"name": "loop.example.com"}])
    world.cloudly.set(cluster(service("a"), routed, certificates={"loop.example.com": raw(host)}))
    return world


@pytest.mark.parametrize("after", [0.1, 3, 8, 30, 120, 400, 700])
def test_a_service_that_ends_again_and_again(tmp_path: Path, after: float) -> None:
    """However long each of its containers lives: routes to it come and go, too."""
    world = one_that(Behaviour(exits=1, after=after))
    lines = play(lambda: a_daemon(world, tmp_path, an_hour))
    assert len(about(lines, "loop")) <= MOST_LINES, lines
    assert len(about(lines, "loop.example.com")) <= MOST_LINES, lines
    assert len(lines) <= 2 * MOST_LINES + 6, lines


def test_a_crash_loop_is_told_with_counts_and_its_end(tmp_path: Path) -> None:
    """One line when it begins, some with counts, one when it is mended."""
    world = one_that(Behaviour(exits=1, after=3))

    async def mended_at_last() -> None:
        await trio.sleep(HOUR)
        world.cloudly.set(cluster(service("a"), service("loop")))
        await trio.sleep(300)

    said = [line["event"] for line in about(play(lambda: a_daemon(world, tmp_path, mended_at_last)), "loop")]
    assert said.count("crash-looping") == 1
    assert said.count("still crash-looping") == 3
    assert said.count("resolved") == 1
    assert len(said) <= MOST_LINES + 3, said


def test_a_service_that_is_unhealthy_now_and_then(tmp_path: Path) -> None:
    """Its containers are healthy for two minutes, then killed."""
    world = one_that(Behaviour(unhealthy=True, after=120))
    lines = play(lambda: a_daemon(world, tmp_path, an_hour))
    assert about(lines, "loop")
    assert len(about(lines, "loop")) <= MOST_LINES, lines


def test_a_registry_that_comes_and_goes(tmp_path: Path) -> None:
    """Every minute, with a new image each time; what was done is told each time."""
    world = World()
    for n in range(60):
        world.engine.push(f"registry.example.com/a:{n}")
    registry = world.engine.registries["registry.example.com"]
    world.cloudly.set(cluster(service("a", "registry.example.com/a:0")))

    async def comes_and_goes() -> None:
        await trio.sleep(30)
        for n in range(1, 60):
            registry.up = False
            world.cloudly.set(cluster(service("a", f"registry.example.com/a:{n}")))
            await trio.sleep(30)
            registry.up = True
            await trio.sleep(30)
        await trio.sleep(HOUR)

    lines = about(play(lambda: a_daemon(world, tmp_path, comes_and_goes)), "a")
    trouble = [line for line in lines if line["event"] not in {"create", "update", "running"}]
    assert len(trouble) <= MOST_LINES, trouble
    assert trouble[0]["event"] == "held"
    assert (trouble[-1]["event"], trouble[-1]["now"]) == ("no longer flapping", "resolved")


def test_an_engine_that_goes_every_minute(tmp_path: Path) -> None:
    """One line per job that misses it, and its end."""
    world = World()
    world.cloudly.set(cluster(service("a")))

    async def goes() -> None:
        await trio.sleep(30)
        for _ in range(60):
            world.engine.crash()
            world.engine.hang_up()
            await trio.sleep(20)
            world.engine.revive()
            await trio.sleep(40)
        await trio.sleep(HOUR)

    lines = play(lambda: a_daemon(world, tmp_path, goes))
    watch = about(lines, "watch docker")
    assert len(watch) <= MOST_LINES, watch
    assert (watch[0]["event"], watch[-1]["event"]) == ("waiting for a peer", "no longer flapping")
    assert watch[-1]["now"] == "continuing"
    assert len(lines) <= 3 * MOST_LINES, lines


def test_records_that_are_broken_now_and_then(tmp_path: Path) -> None:
    """Each time it is told, until it has become a habit; also that it is over."""
    world = World()

    async def broken() -> None:
        for _ in range(2):
            world.cloudly.set({"oops": 1})
            await trio.sleep(300)
            world.cloudly.set(cluster(service("a")))
            await trio.sleep(HOUR)

    lines = about(play(lambda: a_daemon(world, tmp_path, broken)), "reconcile")
    assert [line["event"] for line in lines] == ["cannot continue for now", "continuing"] * 2
    assert all(line["seconds"] >= 299 for line in lines if line["event"] == "continuing")


def test_records_that_are_broken_are_no_news_of_each_host(tmp_path: Path) -> None:
    """With and without a certificate, a host is as it was; the job that reads the records tells what is wrong."""
    world = World()
    hosts = [f"{name}.example.com" for name in "abc"]
    routed = service("a", ports={"web": 80}, domains=[{"name": host} for host in hosts])
    certificates = {hosts[0]: raw(make(hosts[0], days=100_000))}
    world.cloudly.set(cluster(routed, certificates=certificates))

    async def broken() -> None:
        await trio.sleep(300)
        world.cloudly.set({"oops": 1})
        await trio.sleep(HOUR)

    lines = about(play(lambda: a_daemon(world, tmp_path, broken)), "reconcile", *hosts)
    events = [line["event"] for line in lines]
    assert events.count("cannot continue for now") == 1
    assert events[-1] == "cannot continue for now"
    assert events.count("no certificate") == 2


def test_a_start_with_nothing_to_do_says_that_it_works(tmp_path: Path) -> None:
    world = World()
    world.cloudly.set(cluster(service("a")))

    async def nothing() -> None:
        await trio.sleep(HOUR)

    play(lambda: a_daemon(world, tmp_path, nothing))
    lines = play(lambda: a_daemon(world, tmp_path, nothing))
    assert [(line["actions"], line["as_desired"]) for line in lines if line["event"] == "pass"] == [(0, 1)]


def test_a_file_is_no_peer() -> None:
    async def scene() -> list[Line]:
        tries = 0

        async def job() -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise Unreadable("nothere.yaml: No such file or directory")

        with capture_logs() as lines:
            await supervise("reconcile", job)
        return list(map(dict, lines))

    (line,) = play(scene)
    assert (line["event"], line["log_level"]) == ("waiting for the records", "warning")


def test_a_job_that_runs_for_long_enough_is_well_although_it_does_not_say_so() -> None:
    async def scene() -> list[Line]:
        tries = 0

        async def job() -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise Unavailable("away")
            await trio.sleep_forever()

        with capture_logs() as lines, trio.move_on_after(300):
            await supervise("job", job)
        return list(map(dict, lines))

    lines = play(scene)
    assert [(line["event"], line.get("was")) for line in lines] == [
        ("waiting for a peer", None),
        ("continuing", "waiting for a peer"),
    ]


def test_a_port_that_is_taken_is_called_so() -> None:
    """By its address, and not as if some peer were away."""

    async def scene() -> list[Line]:
        async def job() -> None:
            raise CannotListen("cannot listen on 127.0.0.1:3001: address already in use")

        with capture_logs() as lines, trio.move_on_after(300):
            await supervise("metrics", job)
        return list(map(dict, lines))

    (line,) = play(scene)
    assert line["event"] == "cannot listen"
    assert "127.0.0.1:3001" in line["reason"]
