"""`coreflow demo`: the real reconciler at work on a Swarm in memory.

Nothing here is canned: the plans, the progress and the failures are what the engine in memory makes of them. Its time is a
mock clock's, so that a roll-out takes a blink; on a terminal it runs slowly enough to watch.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
import trio.testing
from rich.console import Console
from rich.text import Text

from coreflow.adapters.memory import Behaviour, MemoryCloudly, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.cli import present
from coreflow.app.cli.deploy import show_plan, show_result
from coreflow.app.cli.progress import listening
from coreflow.app.cli.running import Format, guarded
from coreflow.app.reconcile import Reconciler
from coreflow.app.streams import console_for
from coreflow.domain.deploy.base import SERVICES, BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.swarm.images import unpinned

RATE = 12.0
"""Seconds of the Swarm's time per second, where somebody watches."""
PAUSE = 0.6
"""Seconds between the acts, where somebody watches."""
REGISTRY = "registry.example"
TIMEOUT = 120.0

Json = dict[str, Any]


def _service(name: str, image: str, **data: Any) -> Json:
    registry = {
        "registryHost": REGISTRY,
        "repository": image.partition(":")[0],
        "tag": image.partition(":")[2],
    }
    return {"id": f"svc-{name}", "data": {"name": name, "registryTarget": registry, **data}}


def _group(key: str, value: str) -> Json:
    return {"id": f"group-{key}", "data": {"key": key, "environments": {"production": {"value": value}}}}


CLUSTER: Json = {
    "configData": {"id": "demo", "data": {"name": "demo cluster"}},
    "services": [
        _service(
            "shop",
            "shop:1.4",
            scaleFactor=3,
            secretBundleId="bundle-shop",
            ports={"web": 3000},
            domains=[{"name": "shop.example.com"}],
            volumes=[{"mountPath": "/data", "driver": "local", "readOnly": True}],
        ),
        _service("blog", "blog:6.2", ports={"web": 8080}, domains=[{"name": "blog.example.com"}]),
        _service("mail", "mail:2.0", environment={"RELAY": "smtp.example.com"}),
    ],
    "secretBundles": [
        {"id": "bundle-shop", "data": {"name": "shop", "includedSecretGroupIds": ["group-PAYMENT_KEY"]}}
    ],
    "secretGroups": [_group("PAYMENT_KEY", "made up for the demo")],
}


def demo() -> int:
    """Show coreflow at work on a Swarm in memory, in a few seconds: no Docker, no file.

    The reconciler is the real one; the Swarm is the one that coreflow is tested with.
    """
    console = console_for()
    watched = console.is_terminal
    clock = trio.testing.MockClock(rate=RATE) if watched else trio.testing.MockClock(autojump_threshold=0)
    return guarded(partial(trio.run, _Demo(console).play, clock=clock))


class _Demo:
    """The play: a Swarm, a cluster file, and what happens to them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._engine = MemoryEngine(nodes=3)
        for image in (
            "shop:1.4",
            "shop:1.5",
            "blog:6.2",
            "mail:2.0",
            *(f"serve.zone/{name}:latest" for name in SERVICES),
        ):
            self._engine.push(f"{REGISTRY}/{image}")
        self._engine.push(f"{REGISTRY}/mail:2.1", Behaviour(exits=1))
        self._file = copy.deepcopy(CLUSTER)
        self._cloudly = MemoryCloudly(self._file)
        self._act = 0

    async def play(self) -> int:
        """All acts, one after the other; the exit status."""
        self._say("coreflow keeps a Docker Swarm in the state that a file of records describes.")
        self._say("Here is a Swarm in memory, with three nodes and nothing on it.")

        await self._begin("A file with three services. The plan:")
        await self._plan()

        await self._begin("Apply it, and wait until everything runs:")
        await self._apply()

        await self._begin("Apply it again. Nothing to do means that nothing is written:")
        self._engine.calls.clear()
        await self._apply()
        self._say(f"The Swarm saw {self._engine.writes} writes and {self._engine.reads} reads.", style="dim")

        await self._begin("The file changes: shop gets another image and another secret.")
        self._change(lambda services, groups: services["shop"].update(_image("shop:1.5")))
        self._change(lambda services, groups: _production(groups["PAYMENT_KEY"]).update(value="rotated"))
        await self._plan()
        self._console.print()
        await self._apply()

        await self._begin("Somebody changes a live service by hand. It is found, explained and repaired:")
        await self._meddle()
        await self._plan()
        self._console.print()
        await self._apply()

        await self._begin("A bad image: mail 2.1 ends at once. Swarm rolls back, and coreflow says why:")
        self._change(lambda services, groups: services["mail"].update(_image("mail:2.1")))
        await self._apply()
        self._say(f"Still running: {', '.join(self._running('mail'))}.", style="dim")
        again = await self._reconciler().deploy(timeout=TIMEOUT)
        self._say(
            f"Applied again: {len(again.applied)} actions. It is not tried again until the record changes.",
            style="dim",
        )

        await self._begin("The file is mended:")
        self._change(lambda services, groups: services["mail"].update(_image("mail:2.0")))
        last = await self._apply()
        self._next()
        return 0 if last.is_stable else 1

    # what can happen

    def _change(self, change: Callable[[Json, Json], object]) -> None:
        services = {service["data"]["name"]: service["data"] for service in self._file["services"]}
        groups = {group["data"]["key"]: group["data"] for group in self._file["secretGroups"]}
        change(services, groups)
        self._cloudly.set(copy.deepcopy(self._file))

    async def _meddle(self) -> None:
        live = next(s for s in await self._engine.list_services() if s["Spec"]["Name"] == "blog")
        spec = live["Spec"]
        spec["Mode"]["Replicated"]["Replicas"] = 5
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["DEBUG=1"]
        await self._engine.update_service(live["ID"], live["Version"]["Index"], spec)
        self._engine.settle()

    def _reconciler(self, listener: Any = None) -> Reconciler:
        images = {name: f"{REGISTRY}/serve.zone/{name}" for name in SERVICES}
        options = RenderOptions(base=BaseOptions(images=images))
        return Reconciler(self._cloudly, SwarmPort(self._engine), render=options, listener=listener)

    def _running(self, service: str) -> list[str]:
        """The images that the tasks of a service run, without the digest."""
        tasks = self._engine.running_tasks(service)
        return sorted({unpinned(task["Spec"]["ContainerSpec"]["Image"]) for task in tasks})

    async def _plan(self) -> None:
        reconcile_state = await self._reconciler().look()
        show_plan(reconcile_state, Format.TEXT, self._console)

    async def _apply(self) -> ReconcileResult:
        with listening(self._console, Format.TEXT) as listener:
            reconcile_result = await self._reconciler(listener).deploy(timeout=TIMEOUT)
        show_result(reconcile_result, Format.TEXT, self._console)
        return reconcile_result

    # what is said

    async def _begin(self, text: str) -> None:
        """The next act. Whoever watches gets a moment to read the last one."""
        if self._console.is_terminal:
            await trio.sleep(PAUSE * RATE)
        self._act += 1
        self._console.print()
        number = Text(f"{self._act}. ", style="bold cyan")
        present.print_line(self._console, number.append(text, style="bold"))
        self._console.print()

    def _say(self, text: str, style: str = "") -> None:
        present.print_line(self._console, Text(text, style=style))

    def _next(self) -> None:
        self._console.print()
        self._say("Where to go from here (README.md has a first cluster file):", style="bold")
        for command, why in (
            ("coreflow check --records FILE", "is everything there? settings, engine, images"),
            ("coreflow plan --records FILE", "what would change, and why"),
            ("coreflow apply --records FILE", "do it, and wait until it runs"),
            ("coreflow run", "as a daemon that follows the file"),
        ):
            present.print_line(self._console, Text(f"  {command.ljust(31)}").append(why, style="dim"))


def _production(group: Json) -> Json:
    value: Json = group["environments"]["production"]
    return value


def _image(image: str) -> Json:
    data: Json = _service("", image)["data"]
    return {"registryTarget": data["registryTarget"]}
