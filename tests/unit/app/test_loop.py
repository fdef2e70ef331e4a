"""Kicks and ticks: when passes happen, and what is logged about them."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
import structlog
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.unit.app.worlds import (
    BAD,
    GOOD,
    MISSING,
    NEWER,
    Json,
    World,
    cluster,
    daemon_settings,
    play,
    service,
)
from tests.unit.certificates import make, raw

from coreflow.adapters.memory import Behaviour, Fault, MemoryCoretraffic
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.loop import ActionLog, Kicks, Loop, Problems, kick_on_changes, kick_on_schedule
from coreflow.app.main import Ports, running
from coreflow.app.settings import Settings
from coreflow.app.supervise import supervise
from coreflow.domain.deploy.schedule import PassRequest
from coreflow.domain.errors import InvalidRecord, Problem, Refused, Unavailable
from coreflow.domain.records.models import CertificateRecord


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a daemon without base services."""
    return daemon_settings(tmp_path, COREFLOW_INITIAL_DELAY="10", COREFLOW_RELIST_SECONDS="60")


def _ports(world: World) -> Ports:
    return Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))


def test_the_daemon_deploys_follows_and_stops(settings: Settings) -> None:
    """First pass after the delay; a change of the records makes another; the end of the block stops everything."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        async with running(settings, _ports(world)) as engine:
            await trio.sleep(9)
            assert await world.names() == []
            await trio.sleep(3)
            assert await world.names() == ["a"]
            world.cloudly.set(cluster(service("a"), service("b")))
            await trio.sleep(2)
            assert await world.names() == ["a", "b"]
            engine.kick()
            reconcile_result = await engine.reconciled()
            assert reconcile_result.last.plan.kept == 2
            assert engine.last is reconcile_result
        calls = len(world.engine.calls)
        await trio.sleep(600)
        assert len(world.engine.calls) == calls

    play(scene)


def test_a_replaced_certificate_and_a_moved_tag_are_found_by_a_refresh(settings: Settings) -> None:
    """At a refresh (SIGHUP) nothing that was looked up is trusted; a certificate needs no pass, and no change notice."""

    async def scene() -> None:
        world, proxy = World(), MemoryCoretraffic()
        image = "registry.example.com/a:1"
        world.engine.push(image)
        old, new, newest = (
            make("a.example.com", days=100_000, issuer=name) for name in ("Old", "New", "Newest")
        )

        def records(certificate: CertificateRecord) -> Json:
            web = service("a", image, ports={"web": 80}, domains=[{"name": "a.example.com"}])
            return cluster(web, certificates={"a.example.com": raw(certificate)})

        def issuer() -> str:
            return proxy.tables[-1].routes[0].certificate.issuer

        world.cloudly.set(records(old))
        async with running(settings, evolve(_ports(world), coretraffic=proxy)) as engine:
            await trio.sleep(30)
            assert issuer() == "Old"
            world.cloudly.set(records(new))
            await trio.sleep(1)
            assert issuer() == "New"
            world.engine.crash()  # no pass ends from now on
            world.cloudly._content = orjson.dumps(records(newest))  # said to nobody
            engine.refresh()
            await trio.sleep(1)
            assert issuer() == "Newest"
            world.engine.revive()
            digest = world.engine.push(image, content="newer")
            engine.refresh()
            await trio.sleep(60)
            live = (await world.live("a"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
            assert live.endswith(digest)

    play(scene)


def test_a_change_by_hand_is_repaired_without_an_event(settings: Settings) -> None:
    """A lost event costs time, not correctness: the relist finds what changed."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        async with running(settings, _ports(world)):
            await trio.sleep(20)
            world.engine.lose_events = 99
            await world.change("a", lambda spec: spec.update(Mode={"Replicated": {"Replicas": 4}}))
            await trio.sleep(130)
            assert (await world.live("a"))["Spec"]["Mode"]["Replicated"]["Replicas"] == 1

    play(scene)


def test_an_idle_daemon_only_reads(settings: Settings) -> None:
    """An hour with nothing to do: one relist a minute, five reads each, and no write."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        async with running(settings, _ports(world)):
            await trio.sleep(100)
            world.engine.calls.clear()
            await trio.sleep(3600)
            assert world.engine.writes == 0
            assert world.engine.reads <= 61 * 5

    play(scene)


def test_the_daemon_survives_an_engine_that_goes_and_comes(settings: Settings) -> None:
    """While the engine is away nothing ends; when it is back, what was missed is done. It is said once, not every try."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        with capture_logs() as lines:
            async with running(settings, _ports(world)):
                await trio.sleep(20)
                world.engine.crash()
                world.engine.hang_up()
                world.cloudly.set(cluster(service("a"), service("b")))
                await trio.sleep(600)
                world.engine.revive()
                await trio.sleep(120)
                assert await world.names() == ["a", "b"]
        waiting = [line for line in lines if line["event"] == "waiting for a peer"]
        assert {line["job"] for line in waiting} == {"reconcile", "watch docker"}
        assert len(waiting) <= 4

    play(scene)


def test_unusable_records_leave_everything_as_it_is(settings: Settings) -> None:
    """A file that became garbage is reported, and the daemon goes on when it is mended."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        with capture_logs() as lines:
            async with running(settings, _ports(world)):
                await trio.sleep(20)
                world.cloudly.set({"oops": 1})
                await trio.sleep(60)
                assert await world.names() == ["a"]
                world.cloudly.set(cluster(service("a"), service("b")))
                await trio.sleep(120)
                assert await world.names() == ["a", "b"]
        assert [line["event"] for line in lines].count("cannot continue for now") == 1

    play(scene)


def test_many_kicks_make_one_more_pass() -> None:
    """Any number of kicks during a pass makes exactly one more."""

    async def scene() -> None:
        world = World()
        kicks = Kicks()
        passes = []
        loop = Loop(
            world.reconciler(),
            kicks,
            initial_delay=0,
            relist_seconds=1000,
            on_reconciled=lambda s, _: passes.append(s),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.run_forever)
            await trio.sleep(10)
            count = len(passes)
            for _ in range(50):
                kicks.kick()
            await trio.sleep(10)
            assert len(passes) == count + 1
            nursery.cancel_scope.cancel()

    play(scene)


def test_a_refresh_is_not_lost_when_its_pass_fails() -> None:
    """A scheduled look at all images that could not be made is made up for."""

    async def scene() -> None:
        world = World()
        world.engine.push("r.example.com/web:1")
        world.cloudly.set(cluster(service("a", "r.example.com/web:1")))
        await world.reconciler().deploy(timeout=60)
        world.engine.push("r.example.com/web:1", content="newer")
        kicks = Kicks()
        kicks.kick(refresh=True)
        loop = Loop(world.reconciler(), kicks, initial_delay=0, relist_seconds=5)
        world.engine.faults.append(Fault(method="list_nodes"))
        with pytest.raises(Unavailable):
            await loop.run_forever()
        with trio.move_on_after(5):
            await loop.run_forever()
        assert sum(method == "inspect_distribution" for method, _ in world.engine.calls) >= 2

    play(scene)


def test_the_schedule_has_six_fields() -> None:
    """Seconds first: a kick at each due time, asking for a refresh."""

    async def scene() -> None:
        kicks = Kicks()
        start = datetime(2026, 1, 1, 4, 29, 30, tzinfo=UTC)
        began = trio.current_time()

        def now() -> datetime:
            return start + timedelta(seconds=trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kick_on_schedule, "15 30 * * * *", kicks, now)
            await kicks.wait()
            assert now() == datetime(2026, 1, 1, 4, 30, 15, tzinfo=UTC)
            assert kicks.take() == PassRequest(records=True, refresh=True)
            await kicks.wait()
            assert now() == datetime(2026, 1, 1, 5, 30, 15, tzinfo=UTC)
            nursery.cancel_scope.cancel()

    play(scene)


def test_a_stream_of_changes_that_ends_is_unavailable() -> None:
    """Each notice kicks, so does the connection itself; the end is an error, so that somebody connects again."""

    async def scene() -> None:
        kicks = Kicks()

        @asynccontextmanager
        async def changes() -> AsyncIterator[AsyncIterator[None]]:
            async def none() -> AsyncIterator[None]:
                yield None

            yield none()

        with pytest.raises(Unavailable, match="ended"):
            await kick_on_changes(changes, kicks)
        assert kicks.take() == PassRequest(records=True)

    play(scene)


def test_a_supervised_job_is_started_again_later_and_later() -> None:
    """1 s, 2 s, 4 s ... between attempts; each distinct reason is said once; a bug does not stop it."""

    async def scene() -> None:
        times: list[float] = []
        errors: list[Exception] = [
            Unavailable("away"),
            Unavailable("away"),
            InvalidRecord(Problem("$", "is odd")),
            KeyError("canary-value"),
            Refused("no"),
        ]

        async def job() -> None:
            times.append(trio.current_time())
            if errors:
                raise errors.pop(0)

        with capture_logs() as lines:
            await supervise("job", job)
        waits = [round(b - a, 6) for a, b in itertools.pairwise(times)]
        assert waits == [1, 2, 4, 8, 16]
        assert [line.get("reason") or line.get("error") for line in lines] == [
            "away",
            "is odd @ $",
            "KeyError",
            "no",
        ]
        assert "canary-value" not in str(lines)

    play(scene)


def test_problems_are_said_when_they_begin_and_end() -> None:
    """A rejected record is a warning once, silence while it stays, and a line when it is mended."""

    async def scene() -> None:
        world = World()
        problems = Problems()
        world.cloudly.set(cluster(service("a", MISSING), service("b", GOOD, secretBundleId="none")))
        with capture_logs() as lines:
            for _ in range(3):
                problems.report(await world.reconciler().reconcile(), 0.0)
            assert {(line["event"], line["name"]) for line in lines} == {("held", "a"), ("rejected", "b")}
            assert len(lines) == 2
            world.cloudly.set(cluster(service("a"), service("b")))
            await world.reconciler().deploy(timeout=60)
            problems.report(await world.reconciler().reconcile(), 0.0)
        assert [line["event"] for line in lines[2:]] == ["resolved", "resolved"]

    play(scene)


def test_a_roll_out_is_a_problem_only_when_it_takes_long() -> None:
    """What is on its way is not complained about for a minute; what then runs is said once."""

    async def scene() -> None:
        world = World()
        problems = Problems()
        world.cloudly.set(cluster(service("a")))
        reconcile_result = await world.reconciler().reconcile()
        with capture_logs() as lines:
            for now in (0.0, 59.0, 60.0, 61.0):
                problems.report(reconcile_result, now)
            await world.reconciler().deploy(timeout=60)
            for now in (2000.0, 2001.0):
                problems.report(await world.reconciler().reconcile(), now)
        assert [line["event"] for line in lines] == ["unfinished", "running", "resolved"]

    play(scene)


def test_a_crash_loop_is_said_once_in_whatever_way_the_next_task_ends() -> None:
    """The reason may change from one container to the next; the line is not said again for that."""

    async def scene() -> None:
        world = World()
        problems, reconciler = Problems(), world.reconciler()
        world.cloudly.set(cluster(service("a", BAD)))
        with capture_logs() as lines:
            for status in (1, 2, 3):
                world.engine.add_image(BAD, Behaviour(exits=status))
                for _ in range(3):
                    await trio.sleep(10)
                    problems.report(await reconciler.reconcile(), trio.current_time())
            world.cloudly.set(cluster(service("a")))
            await reconciler.deploy(timeout=60)
            problems.report(await reconciler.reconcile(), trio.current_time())
        events = [line["event"] for line in lines]
        assert events.count("crash-looping") == 1, lines
        assert events[-2:] == ["running", "resolved"]

    play(scene)


def test_failures_and_refusals_are_problems_too() -> None:
    """A failed roll-out and a refused removal are said with what to do."""

    async def scene() -> None:
        world = World()
        problems = Problems()
        world.cloudly.set(cluster(service("a"), service("b")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("a", BAD), service("b", NEWER)))
        await world.reconciler().deploy(timeout=60)
        with capture_logs() as lines:
            problems.report(await world.reconciler().reconcile(), 0.0)
            world.cloudly.set(cluster())
            problems.report(await world.reconciler().reconcile(), 0.0)
        assert [line["event"] for line in lines] == ["failed", "refused", "resolved"]
        assert "COREFLOW_CONFIRM_REMOVAL" in lines[1]["reason"]

    play(scene)


def test_actions_are_logged_with_their_reasons() -> None:
    """One line per action; one that fails is a warning with the engine's words."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        world.engine.faults.append(Fault(method="create_service"))
        with capture_logs() as lines:
            await world.reconciler(ActionLog()).deploy(timeout=60)
        assert {
            "event": "create",
            "kind": "service",
            "name": "a",
            "reason": "new",
        }.items() <= lines[-1].items()
        assert any(line["event"] == "failed" and line["log_level"] == "warning" for line in lines)
        assert structlog.get_logger() is not None

    play(scene)
