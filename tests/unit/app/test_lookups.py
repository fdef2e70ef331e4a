"""Looking up images: how often a registry that says no, or nothing, is asked."""

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from attrs import evolve
from tests.unit.app.worlds import NO_BASE, World, cluster, play, service

from coreflow.adapters.engine.memory.registries import ERRORS
from coreflow.adapters.memory import MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.beside import Background
from coreflow.app.lookups import LookUps
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm.images import ImageProblem, ImageRequest, ResolvedImage

HOST = "r.example.com"
ONE, TWO, ELSEWHERE = (ImageRequest(r) for r in (f"{HOST}/one:1", f"{HOST}/two:1", "other.example.com/x:1"))


class Scene:
    """A registry and who asks it."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        for request in (ONE, TWO, ELSEWHERE):
            self.engine.push(request.reference)
        self.look_ups = LookUps(SwarmPort(self.engine), Background())
        self.records = object()

    def misbehave(self, how: str, host: str = HOST) -> None:
        """Let a registry misbehave from now on."""
        self.engine.registries[host].errors["*"] = ERRORS[how]

    def behave(self) -> None:
        """Let it be as it should be."""
        self.engine.registries[HOST].errors.clear()

    @property
    def asked(self) -> int:
        """How often registries were asked so far."""
        return Counter(method for method, _ in self.engine.calls)["inspect_distribution"]

    async def ask(self, *requests: ImageRequest, refresh: bool = False) -> list[str]:
        """Look up, as a pass does; what is wrong with each, or nothing."""
        answers = await self.look_ups.answers(requests, about=self.records, refresh=refresh)
        return [
            answer.text if isinstance(answer, ImageProblem) else "" for answer in map(answers.get, requests)
        ]


def played(scene: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
    """A test under a clock that jumps."""

    def test() -> None:
        play(lambda: scene(Scene()))

    test.__doc__ = scene.__doc__
    return test


@played
async def test_a_failed_look_up_is_repeated_after_growing_pauses(scene: Scene) -> None:
    """A pass each second for ten minutes asks a registry that is down less than twenty times."""
    scene.misbehave("down")
    for _ in range(600):
        assert await scene.ask(ONE) == [f"image {ONE.reference}: {HOST} answers 503 Service Unavailable"]
        await trio.sleep(1)
    assert 10 <= scene.asked < 20
    scene.behave()
    await trio.sleep(60)
    assert await scene.ask(ONE) == [""]


@played
async def test_each_reference_has_its_own_pause(scene: Scene) -> None:
    """A reference that fails keeps no other from being asked."""
    scene.engine.registries[HOST].errors["one"] = ERRORS["missing"]
    await scene.ask(ONE)
    assert await scene.ask(ONE, TWO) == [f"image {ONE.reference}: not found on {HOST}", ""]
    assert scene.asked == 2


@pytest.mark.parametrize("how", ["refresh", "records", "gone and back"])
def test_a_change_asks_at_once(how: str) -> None:
    """A refresh, changed records, or a reference that was not wanted in between: the pause is over."""

    async def play_it() -> None:
        scene = Scene()
        scene.misbehave("missing")
        await scene.ask(ONE)
        scene.behave()
        assert await scene.ask(ONE) != [""]
        if how == "records":
            scene.records = object()
        if how == "gone and back":
            await scene.ask()
        assert await scene.ask(ONE, refresh=how == "refresh") == [""]

    play(play_it)


@played
async def test_a_registry_that_limits_us_is_left_alone_as_a_whole(scene: Scene) -> None:
    """After a 429 nothing is asked of it for a minute, not even by a refresh; others are asked."""
    scene.misbehave("limited")
    said = f"{HOST}: rate limited (429); asked again after 60 s"
    assert await scene.ask(ONE) == [f"image {ONE.reference}: {said}"]
    scene.behave()
    scene.records = object()
    assert await scene.ask(ONE, TWO, ELSEWHERE, refresh=True) == [
        f"image {ONE.reference}: {said}",
        f"image {TWO.reference}: {said}",
        "",
    ]
    assert scene.asked == 2
    await trio.sleep(61)
    assert await scene.ask(ONE, TWO) == ["", ""]


@played
async def test_a_new_login_is_asked_with_at_once(scene: Scene) -> None:
    """It is what people add when they are limited, and registries count by it: the pause is of who asked before."""
    scene.misbehave("limited")
    await scene.ask(ONE)
    scene.behave()
    login = RegistryLogin(serveraddress=HOST, username="u", password="p")
    assert await scene.ask(evolve(ONE, login=login)) == [""]
    assert (await scene.ask(ONE))[0].endswith("asked again after 60 s")


@played
async def test_the_pause_of_a_registry_grows(scene: Scene) -> None:
    """One that says 429 again and again is asked ever more rarely, at least once an hour."""
    scene.misbehave("limited")
    for _ in range(24 * 60):
        await scene.ask(ONE, TWO)
        await trio.sleep(60)
    assert 20 <= scene.asked <= 70


@played
async def test_several_refusals_at_once_are_one(scene: Scene) -> None:
    """Eight look-ups that are refused together do not multiply the pause."""
    requests = [ImageRequest(f"{HOST}/x:{number}") for number in range(8)]
    scene.misbehave("limited")
    assert all(text.endswith("asked again after 60 s") for text in await scene.ask(*requests))


@played
async def test_what_was_found_is_the_answer(scene: Scene) -> None:
    """An answer comes back whole."""
    answer = (await scene.look_ups.answers([ONE]))[ONE]
    assert isinstance(answer, ResolvedImage)
    assert answer.digest is not None


def test_passes_do_not_ask_again_and_again() -> None:
    """Twenty passes in a row over a held service ask its registry once; what runs is not touched by it."""

    async def scene() -> None:
        world = World(render=NO_BASE)
        world.engine.push(ONE.reference)
        world.engine.registries[HOST].errors["*"] = ERRORS["broken"]
        world.cloudly.set(cluster(service("a", ONE.reference), service("b")))
        reconciler = world.reconciler()
        for _ in range(20):
            reconcile_result = await reconciler.reconcile()
        (held,) = reconcile_result.last.plan.rejections
        assert held.held
        assert held.reasons == (f"image {ONE.reference}: {HOST} answers 500 Internal Server Error",)
        assert [method for method, _ in world.engine.calls].count("inspect_distribution") == 1
        assert await world.names() == ["b"]

    play(scene)
