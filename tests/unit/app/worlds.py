"""A memory Swarm with records, for tests of the app."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio.testing
from attrs import define, field

from coreflow.adapters.memory import Behaviour, MemoryCloudly, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.reconcile import Reconciler
from coreflow.app.settings import Settings, load_settings
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.steps import PlanOptions

Json = dict[str, Any]
T = TypeVar("T")
GOOD, NEWER, BAD, MISSING = "good:1", "good:2", "bad:1", "missing:1"
NO_BASE = RenderOptions(base=BaseOptions(services=()))


def daemon_settings(folder: Path, **others: str) -> Settings:
    """Settings for a daemon without base services that begins at once; `others` go before these."""
    environ = {
        "CLOUDLY_URL": "file:///cluster.yaml",
        "COREFLOW_BASE_SERVICES": "",
        "COREFLOW_INITIAL_DELAY": "0",
        "COREFLOW_SCHEDULE": "0 30 4 * * *",
        **others,
    }
    return load_settings(environ, directory=folder, secrets=folder)


def service(name: str, image: str = GOOD, *, identity: str | None = None, **data: Any) -> Json:
    """A service record with an image that the engine has."""
    return {
        "id": identity or f"id-{name}",
        "data": {"name": name, "registryTarget": {"imageUrl": image}, **data},
    }


def bundle(value: str, identity: str = "bundle") -> tuple[Json, Json]:
    """A secret bundle with one group."""
    group = {
        "id": f"{identity}-group",
        "data": {"key": "KEY", "environments": {"production": {"value": value}}},
    }
    return {"id": identity, "data": {"includedSecretGroupIds": [group["id"]]}}, group


def cluster(*services: Json, secrets: dict[str, str] | None = None, **others: Any) -> Json:
    """A cluster document; `secrets` maps bundle ids to the value of their one group."""
    pairs = [bundle(value, identity) for identity, value in (secrets or {}).items()]
    return {
        "configData": {"id": "test", "data": {"name": "test"}},
        "services": [*services],
        "secretBundles": [b for b, _ in pairs],
        "secretGroups": [g for _, g in pairs],
        **others,
    }


def new_engine(engine: MemoryEngine | None = None, **options: Any) -> MemoryEngine:
    """An empty Swarm, one of a test's own or a plain one, with the images that tests use."""
    engine = MemoryEngine(**options) if engine is None else engine
    for image in (GOOD, NEWER):
        engine.add_image(image)
    engine.add_image(BAD, Behaviour(exits=1))
    return engine


@define
class World:
    """A Swarm, records, and whoever reconciles them; a new reconciler is a new process."""

    engine: MemoryEngine = field(factory=new_engine)
    cloudly: MemoryCloudly = field(factory=lambda: MemoryCloudly(cluster()))
    render: RenderOptions = NO_BASE
    options: PlanOptions = field(factory=PlanOptions)

    def reconciler(self, listener: Any = None, **options: Any) -> Reconciler:
        """A reconciler that remembers nothing."""
        return Reconciler(
            self.cloudly,
            SwarmPort(self.engine),
            render=self.render,
            plan=PlanOptions(**options) if options else self.options,
            listener=listener,
        )

    async def live(self, name: str) -> Json:
        """A service as the engine describes it."""
        return await self.engine.inspect_service(name)

    async def change(self, name: str, change: Callable[[Json], object]) -> None:
        """Change a live service by hand, and let Swarm roll it out."""
        live = await self.live(name)
        change(live["Spec"])
        await self.engine.update_service(live["ID"], live["Version"]["Index"], live["Spec"])
        self.engine.settle()

    async def names(self) -> list[str]:
        """The names of all services."""
        return sorted(document["Spec"]["Name"] for document in await self.engine.list_services())

    async def secrets(self) -> list[str]:
        """The names of all secrets."""
        return sorted(document["Spec"]["Name"] for document in await self.engine.list_secrets())


def play(scene: Callable[[], Awaitable[T]]) -> T:
    """Run a scene under a mock clock that jumps: nothing here waits for anything real."""
    return trio.run(scene, clock=trio.testing.MockClock(autojump_threshold=0))
