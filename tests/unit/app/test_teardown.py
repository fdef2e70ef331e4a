"""Taking a cluster down: on a Swarm in memory, and as a person and a program see the command."""

import io
import json
import re
from typing import Any

import pytest
import trio
from rich.console import Console
from tests.unit.app.worlds import World, cluster, play, service

from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.memory import Fault
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.cli import down, images, verbosity
from coreflow.app.cli import networks as networks_command
from coreflow.app.teardown import Removed, TearDown, tear_down
from coreflow.domain.deploy.leftovers import LoadedImage
from coreflow.domain.deploy.teardown import plan_teardown
from coreflow.domain.errors import Refused
from coreflow.domain.ids import ClusterId
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.naming import NETWORKS

CLUSTER = ClusterId("test")


async def deployed(**records: Any) -> World:
    """A Swarm with two services of ours, a secret, and a service of somebody else's."""
    world = World()
    world.cloudly.set(
        cluster(
            service("a", secretBundleId="bundle"), service("b"), secrets={"bundle": "canary-value"}, **records
        )
    )
    assert (await world.reconciler().deploy(timeout=60)).is_stable
    live = await world.live("b")
    await world.engine.create_service({**live["Spec"], "Name": "foreign", "Labels": {}})
    return world


async def taken_down(world: World, *, timeout: float = 60.0) -> TearDown:
    """Take it down."""
    port = SwarmPort(world.engine)
    plan = plan_teardown(await port.observe(), CLUSTER)
    told: list[Removed] = []
    result = await tear_down(port, plan, told.append, timeout=timeout)
    assert told == result.removed
    return result


async def networks(world: World) -> set[str]:
    """The base networks that are there."""
    return {n["Name"] for n in await world.engine.list_networks() if "Containers" not in n} & set(NETWORKS)


def test_everything_goes_but_what_others_made_or_use() -> None:
    """A service of somebody else's on one of the networks keeps that network, and no other."""

    async def scene() -> None:
        world = await deployed()
        result = await taken_down(world)
        assert result.is_done
        assert await world.names() == ["foreign"]
        assert await world.secrets() == []
        assert await networks(world) == {naming.WEB_GATEWAY}
        assert {(r.kind, r.name) for r in result.removed} >= {("service", "a"), ("network", naming.CORE_CHAT)}
        again = await taken_down(world)
        assert (again.removed, again.is_done) == ([], True)

    play(scene)


def test_what_the_engine_refuses_is_said_and_tried_again() -> None:
    """One failure keeps nothing else; the next look finds it, and removes it."""

    async def scene() -> None:
        world = await deployed()
        world.engine.faults.append(Fault(method="remove_service", error=EngineError(500, "raft: busy")))
        result = await taken_down(world)
        assert [bool(r.problem) for r in result.removed if r.kind == "service"].count(True) == 1
        assert result.is_done
        assert await world.names() == ["foreign"]

    play(scene)


def test_a_coreflow_that_still_runs_makes_it_fail() -> None:
    """Whatever is removed comes back: after some rounds that is said, with who wrote it."""

    async def scene() -> None:
        world = await deployed()
        port = SwarmPort(world.engine, writer="host:1")

        class Stubborn(SwarmPort):
            async def observe(self) -> Any:
                if len(await world.names()) == 1:
                    await world.reconciler().deploy(timeout=60)
                return await super().observe()

        plan = plan_teardown(await port.observe(), CLUSTER)
        result = await tear_down(Stubborn(world.engine), plan, lambda _: None, timeout=60)
        assert not result.is_done
        assert result.last is not None
        assert {service.target.name for service in result.last.services} == {"a", "b"}
        assert "Not removed, or made again: service a, service b" in down.summary(result).plain

    play(scene)


def test_a_coreflow_that_is_ending_is_waited_for() -> None:
    """Its stack is gone, its container not yet: what it would make again is not removed before it has ended."""

    async def scene() -> None:
        world = await deployed()
        world.engine.stop_seconds = 20.0
        foreign = (await world.live("foreign"))["ID"]
        await world.engine.remove_service(foreign)  # it was on a base network
        assert world.engine.store.tasks_of(foreign)
        port = SwarmPort(world.engine)
        plan = plan_teardown(await port.observe(), CLUSTER)
        was_over: list[bool] = []
        result = await tear_down(
            port, plan, lambda _: was_over.append(not world.engine.store.tasks_of(foreign)), timeout=60
        )
        assert result.is_done
        assert all(was_over)
        assert len(was_over) == len(plan.removals)

    play(scene)


def test_containers_that_do_not_end_are_said() -> None:
    """The time is up: the exit status says that something is left."""

    async def scene() -> None:
        world = await deployed()
        world.engine.stop_seconds = 1e9
        result = await taken_down(world, timeout=5)
        assert not result.is_over
        assert not result.is_done
        assert "Some containers have not ended yet" in down.summary(result).plain

    play(scene)


def test_which_cluster() -> None:
    """The only one there is; of several, the one that is named; none that is not there."""

    async def scene() -> None:
        world = await deployed()
        observed = await SwarmPort(world.engine).observe()
        assert down.chosen(observed, None) == "test"
        with pytest.raises(Refused, match="belongs to a cluster 'other'"):
            down.chosen(observed, "other")
        live = await world.live("a")
        labels = {**live["Spec"]["Labels"], naming.CLUSTER: "other"}
        await world.engine.create_service({**live["Spec"], "Name": "c", "Labels": labels})
        observed = await SwarmPort(world.engine).observe()
        assert down.chosen(observed, "other") == "other"
        with pytest.raises(Refused, match="name one with --cluster: other, test"):
            down.chosen(observed, None)

    play(scene)


def test_nothing_goes_unless_somebody_says_so() -> None:
    """Without a terminal it takes an option; a word that stands for something else is no answer."""

    async def scene() -> None:
        world = await deployed()
        plan = plan_teardown(await SwarmPort(world.engine).observe(), CLUSTER)
        with pytest.raises(Refused, match=f"--confirm-removal {plan.token}"):
            await down._confirm(plan, yes=False, word=None, may_ask=True)
        with pytest.raises(Refused, match="does not stand for"):
            await down._confirm(plan, yes=True, word="another", may_ask=True)
        await down._confirm(plan, yes=False, word=plan.token, may_ask=False)
        await down._confirm(plan, yes=True, word=None, may_ask=False)

    trio.run(scene)


def test_what_goes_and_stays_is_shown() -> None:
    """In text and as JSON; no value of a secret anywhere."""

    async def scene() -> tuple[str, str]:
        world = await deployed()
        plan = plan_teardown(await SwarmPort(world.engine).observe(), CLUSTER)
        out = io.StringIO()
        down.show_teardown(plan, Console(file=out, width=200))
        result = await taken_down(world)
        return out.getvalue(), json.dumps(down.document(plan, result))

    text, document = play(scene)
    assert "cluster test" in text
    assert "service  a" in text
    assert "service foreign is on it" in text
    assert "volumes, images" in text
    whole = json.loads(document)
    assert (whole["cluster"], whole["done"]) == ("test", True)
    assert {"kind": "service", "name": "a", "problem": None} in whole["removed"]
    assert [left["kind"] for left in whole["left"]] == ["network"]
    assert "canary" not in text + document


def test_quietly_only_what_is_wrong_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But whoever is asked sees what goes."""
    quiet = type(verbosity._verbosity)("v", default=verbosity.Verbosity.QUIET)
    monkeypatch.setattr(verbosity, "_verbosity", quiet)

    async def scene() -> tuple[str, str, str]:
        world = await deployed()
        plan = plan_teardown(await SwarmPort(world.engine).observe(), CLUSTER)
        unasked, asked, told = io.StringIO(), io.StringIO(), io.StringIO()
        down.show_teardown(plan, Console(file=unasked, width=200))
        down.show_teardown(plan, Console(file=asked, width=200), asks=True)
        for removed in (Removed("service", "a"), Removed("service", "b", "service b: no")):
            down.show_removed(removed, Console(file=told, width=200))
        return unasked.getvalue(), asked.getvalue(), told.getvalue()

    unasked, asked, told = play(scene)
    kept, gone = (LoadedImage(reference=f"{n}:1", id=f"sha256:{n}") for n in ("kept", "gone"))
    pruned = io.StringIO()
    images._print(Console(file=pruned, width=200), (kept, gone), {kept: "in use", gone: None})
    networks_command._print(networks_command.Made(existing=("mine",), problems=("other is not an overlay",)))
    assert capsys.readouterr().out == "other is not an overlay\n"
    assert re.search(r"! image +kept:1 +in use", pruned.getvalue())
    assert "gone:1" not in pruned.getvalue()
    assert unasked == ""
    assert re.search(r"- service +a ", asked)
    assert told.split() == ["!", "service", "b:", "no"]
