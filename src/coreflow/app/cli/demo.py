"""`coreflow demo`: the real reconciler at work on a Swarm in memory.

Nothing here is canned: the plans, the progress and the failures are what the engine in memory makes of them. Its time is a
mock clock's, so that a roll-out takes a blink; on a terminal it runs slowly enough to watch.
"""

import copy
from collections.abc import Callable
from typing import Any

import trio
import trio.testing
from rich.console import Console
from rich.text import Text

from coreflow.adapters.memory import Behaviour, MemoryCloudly, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.cli import present
from coreflow.app.cli.deploy import listening, show_settlement
from coreflow.app.cli.running import Format
from coreflow.app.reconcile import Reconciler, Settlement
from coreflow.domain.base import SERVICES, BaseOptions
from coreflow.domain.desired import RenderOptions

RATE = 12.0
"""Seconds of the Swarm's time per second, where somebody watches."""
REGISTRY = "registry.example.com"
PATIENCE = 120.0

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
    """Show it at work on a Swarm in memory: no Docker, no file, a few seconds."""
    console = Console(highlight=False)
    clock = (
        trio.testing.MockClock(rate=RATE)
        if console.is_terminal
        else trio.testing.MockClock(autojump_threshold=0)
    )
    return trio.run(_Demo(console).play, clock=clock)


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
        self._say(
            "coreflow keeps a Docker Swarm as a file of records says. Here is one in memory, with three nodes."
        )
        self._heading("The Swarm is empty. The plan for a file with three services:")
        await self._plan()
        self._heading("Apply it, and wait until everything runs:")
        await self._apply()

        self._heading("Once more. Nothing to do means that nothing is written:")
        self._engine.calls.clear()
        await self._apply()
        self._say(f"That took {self._engine.reads} reads and {self._engine.writes} writes.", style="dim")

        self._heading("The file changes: another image, another secret.")
        self._change(lambda services, groups: services["shop"].update(_image("shop:1.5")))
        self._change(
            lambda services, groups: groups["PAYMENT_KEY"]["environments"]["production"].update(
                value="rotated"
            )
        )
        await self._apply()

        self._heading("Somebody changes a live service by hand. It is found, explained and put right:")
        await self._meddle()
        await self._apply()

        self._heading(
            "A bad image. Swarm rolls back, the old one keeps running, and nobody tries again in vain:"
        )
        self._change(lambda services, groups: services["mail"].update(_image("mail:2.1")))
        await self._apply()
        failed = await self._apply(quietly=True)
        self._say(f"Another run: {len(failed.applied)} actions, until the record changes.", style="dim")

        self._heading("The record is mended:")
        self._change(lambda services, groups: services["mail"].update(_image("mail:2.0")))
        last = await self._apply()
        self._next()
        return 0 if last.is_settled else 1

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

    async def _plan(self) -> None:
        situation = await self._reconciler().look()
        present.print_blocks(self._console, present.plan_blocks(situation.plan))
        present.print_line(self._console, present.plan_summary(situation.plan))

    async def _apply(self, *, quietly: bool = False) -> Settlement:
        if quietly:
            return await self._reconciler().deploy(timeout=PATIENCE)
        with listening(self._console, Format.TEXT) as listener:
            settlement = await self._reconciler(listener).deploy(timeout=PATIENCE)
        show_settlement(settlement, Format.TEXT, self._console)
        return settlement

    # what is said

    def _heading(self, text: str) -> None:
        self._act += 1
        self._console.print()
        present.print_line(
            self._console, Text(f"{self._act}. ", style="bold cyan").append(text, style="bold")
        )
        self._console.print()

    def _say(self, text: str, style: str = "") -> None:
        present.print_line(self._console, Text(text, style=style))

    def _next(self) -> None:
        self._console.print()
        self._say("Where to go from here (README.md has a first cluster file):", style="bold")
        for command, why in (
            ("coreflow plan --records cluster.yaml", "on a Swarm manager: what would change, and why"),
            ("coreflow apply --records cluster.yaml", "do it, and wait until it runs"),
            ("coreflow run", "as a daemon that follows the file (docs/settings.md)"),
            ("coreflow --help", "everything else"),
        ):
            present.print_line(self._console, Text(f"  {command.ljust(40)}").append(why, style="dim"))


def _image(image: str) -> Json:
    data: Json = _service("", image)["data"]
    return {"registryTarget": data["registryTarget"]}
