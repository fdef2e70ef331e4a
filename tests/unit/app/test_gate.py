"""Who may present itself as coretraffic."""

from pathlib import Path

import pytest
import trio
from tests.unit.app.worlds import GOOD, World, cluster, play

from coreflow.adapters.memory import Fault
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.gate import Gate
from coreflow.app.reconcile import Reconciler
from coreflow.app.settings import load_settings
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.swarm.naming import CORETRAFFIC


def gate_of(folder: Path, peers: str) -> Gate:
    """A gate with this setting."""
    environ = {"CLOUDLY_URL": "file:///x", "COREFLOW_CORETRAFFIC_PEERS": peers}
    return Gate(load_settings(environ, directory=folder, secrets=folder).coretraffic_peers)


async def with_coretraffic() -> tuple[World, SwarmPort]:
    """A world in which coretraffic runs, and the way to its engine."""
    world = World()
    base = BaseOptions(services=(CORETRAFFIC,), images={CORETRAFFIC: GOOD})
    world.cloudly.set(cluster())
    port = SwarmPort(world.engine)
    await Reconciler(world.cloudly, port, render=RenderOptions(base=base)).deploy(timeout=60)
    return world, port


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False), ("::2", False)],
)
async def test_by_network(tmp_path: Path, host: str, allowed: bool) -> None:
    """The networks of the setting, however the address is written; other tags are for everybody."""
    may_have = await gate_of(tmp_path, "127.0.0.0/8,::1").admit(host)
    assert may_have(CORETRAFFIC) is allowed
    assert may_have("other")


def test_by_task(tmp_path: Path) -> None:
    """The addresses of coretraffic's tasks, on any of its networks, and no others; while the engine is away nobody's."""

    async def scene() -> None:
        world, port = await with_coretraffic()
        gate = gate_of(tmp_path, "tasks")
        assert not (await gate.admit("10.201.0.2"))(CORETRAFFIC)
        gate.docker = port
        gate.learn(cluster()["configData"]["id"])
        (task,) = world.engine.running_tasks(CORETRAFFIC)
        addresses = [a.partition("/")[0] for n in task["NetworksAttachments"] for a in n["Addresses"]]
        for address in addresses:
            assert (await gate.admit(address))(CORETRAFFIC)
        assert not (await gate.admit("10.201.99.99"))(CORETRAFFIC)
        world.engine.faults.append(Fault(method="list_tasks"))
        assert not (await gate.admit(addresses[0]))(CORETRAFFIC)

    play(scene)


def test_coretraffic_of_another_cluster(tmp_path: Path) -> None:
    """It gets no keys of ours; before the records are known, nothing is decided about it, and strangers do not wait."""

    async def scene() -> None:
        world, port = await with_coretraffic()
        gate = gate_of(tmp_path, "tasks")
        gate.docker = port
        (task,) = world.engine.running_tasks(CORETRAFFIC)
        address = task["NetworksAttachments"][0]["Addresses"][0].partition("/")[0]
        with trio.move_on_after(30) as waiting:
            await gate.admit(address)
        assert waiting.cancelled_caught
        assert not (await gate.admit("10.201.99.99"))(CORETRAFFIC)
        gate.learn("another")
        assert not (await gate.admit(address))(CORETRAFFIC)
        gate.learn(cluster()["configData"]["id"])
        assert (await gate.admit(address))(CORETRAFFIC)

    play(scene)


def test_a_crowd_costs_one_look(tmp_path: Path) -> None:
    """However many connect at once, the engine is asked once a second."""

    async def scene() -> None:
        world = World()
        gate = gate_of(tmp_path, "tasks")
        gate.docker = SwarmPort(world.engine)
        world.engine.calls.clear()
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(gate.admit, f"10.0.0.{number}")
        assert len(world.engine.calls) == 3 * 2
        assert trio.current_time() >= 2

    play(scene)
