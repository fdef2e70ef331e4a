"""What a reconciler is constructed with besides its peers: a value, or its fields one by one."""

from typing import Any

import pytest
import trio
from tests.unit.app.worlds import NO_BASE, World, cluster, play, service

from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.reconcile import Reconciler, ReconcilerOptions


@pytest.mark.parametrize(
    "options",
    [
        {"settle_seconds": 40.0},
        {"options": ReconcilerOptions(settle_seconds=40.0)},
        {"options": ReconcilerOptions(settle_seconds=1.0), "settle_seconds": 40.0},
    ],
)
def test_settling_takes_as_long_as_was_asked_for(options: dict[str, Any]) -> None:
    """A field given as a keyword goes before that of the value."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        reconciler = Reconciler(world.cloudly, SwarmPort(world.engine), render=NO_BASE, **options)
        start = trio.current_time()
        assert (await reconciler.deploy(timeout=200)).is_stable
        assert 40 <= trio.current_time() - start < 60

    play(scene)


def test_an_option_that_there_is_not() -> None:
    world = World()
    with pytest.raises(TypeError, match="haste"):
        Reconciler(world.cloudly, SwarmPort(world.engine), haste=1)  # type: ignore[call-arg]
