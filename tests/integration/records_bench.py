"""Records, reconciled on a bench: the memory Swarm or a real one. Names carry the bench's prefix."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from tests.integration.engine_bench import GOOD, Bench, Json

from coreflow.adapters.engine.protocol import Engine
from coreflow.adapters.memory import MemoryCloudly
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.reconcile import Reconciler
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.deploy.steps import verb_of
from coreflow.domain.swarm import naming


@define
class Records:
    """A cluster of our own on an engine, without base services."""

    bench: Bench
    port: Callable[[Engine], SwarmPort] = SwarmPort
    cloudly: MemoryCloudly = field(factory=lambda: MemoryCloudly({}))
    reconciler: Reconciler = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what this process knows, as a restart does."""
        options = RenderOptions(base=BaseOptions(services=()))
        self.reconciler = Reconciler(self.cloudly, self.port(self.bench.engine), render=options)

    def service(self, short: str, identity: str | None = None, **data: Any) -> Json:
        """A service record with an image that every node has; without tasks unless told otherwise."""
        target = {"imageUrl": GOOD}
        name = data.pop("name", self.bench.name(short))
        return {
            "id": identity or f"id-{short}",
            "data": {"name": name, "registryTarget": target, "scaleFactor": 0, **data},
        }

    def write(self, *services: Json, **others: Any) -> None:
        """What the control plane says from now on."""
        cluster = {"id": self.bench.prefix, "data": {"name": self.bench.prefix}}
        self.cloudly.set({"configData": cluster, "services": [*services], **others})

    async def plan(self) -> ReconcileState:
        """What would be done."""
        return await self.reconciler.look()

    async def apply(self) -> list[str]:
        """One pass; what was done, in words. All of it must succeed."""
        reconcile_state, report = await self.reconciler.run_pass()
        assert not report.troubles, report.troubles
        return [f"{verb_of(a)} {naming_of(a)}: {a.reason}" for a in reconcile_state.plan.actions]

    async def live(self, short: str) -> Json:
        """A service as the engine has it."""
        return await self.bench.live(self.bench.name(short))

    async def secret_names(self) -> list[str]:
        """The names of our secrets."""
        return sorted(
            document["Spec"]["Name"]
            for document in await self.bench.engine.list_secrets()
            if self.is_ours(document["Spec"].get("Labels") or {})
        )

    def is_ours(self, labels: Mapping[str, str]) -> bool:
        """Whether something is of this cluster."""
        return naming.is_ours(labels, self.bench.prefix)

    async def clean_up(self) -> None:
        """Remove what the bench does not know by its name."""
        if self.bench.memory is not None:
            return
        engine = self.bench.engine
        for service in await engine.list_services():
            if self.is_ours(service["Spec"].get("Labels") or {}):
                await engine.remove_service(service["ID"])
        for secret in await engine.list_secrets():
            if self.is_ours(secret["Spec"].get("Labels") or {}):
                await engine.remove_secret(secret["ID"])


def naming_of(action: Any) -> str:
    """The kind and the name of what an action is about."""
    subject = getattr(action, "target", None) or action.spec
    return str(subject.name)


@asynccontextmanager
async def open_records(
    bench: Bench, port: Callable[[Engine], SwarmPort] = SwarmPort
) -> AsyncIterator[Records]:
    """A cluster of our own, removed in the end."""
    records = Records(bench, port)
    try:
        yield records
    finally:
        await records.clean_up()
