"""Bound services: held until their values are there, then deployed with them. On memory adapters."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.unit.app.worlds import Json, World, bundle, cluster, new_engine, play, service

from coreflow.adapters.memory import Fault, MemoryCorestore
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.corestores import Corestores
from coreflow.app.reconcile import Reconciler, ReconcilerOptions
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.actions import Deprovision, Provision
from coreflow.domain.platform.bindings import BindingSpec, BindingState, Provisioned, binding_wishes

A = ServiceId("id-a")


def platform(*bindings: Json) -> Json:
    """The platform member of a cluster document; every binding is of service `a`, unless it says otherwise."""
    return {
        "bindings": [
            {"id": f"b{n}", "data": {"serviceId": "id-a", "serviceName": "a", "capability": "database", **b}}
            for n, b in enumerate(bindings)
        ]
    }


class Bench:
    """A world with a Corestore."""

    def __init__(self) -> None:
        self.world = World()
        self.corestore = MemoryCorestore()
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is remembered but what is in the Swarm."""
        self.reconciler = Reconciler(
            self.world.cloudly,
            SwarmPort(self.world.engine),
            Corestores.one(self.corestore),
            render=self.world.render,
        )

    async def deploy(
        self, *services: Json, bindings: tuple[Json, ...] = (), **options: Any
    ) -> ReconcileResult:
        """Publish and deploy."""
        secrets = options.pop("secrets", None)
        self.world.cloudly.set(cluster(*services, secrets=secrets, platform=platform(*bindings)))
        return await self.reconciler.deploy(timeout=60, **options)

    async def secret(self, name: str = "a") -> dict[str, str]:
        """What the service reads in its secret."""
        live = await self.world.live(name)
        files = live["Spec"]["TaskTemplate"]["ContainerSpec"].get("Secrets") or []
        for document, payload in self.world.engine.store.secrets.values():
            if files and document["ID"] == files[0]["SecretID"]:
                found: dict[str, str] = json.loads(payload)
                return found
        return {}

    def states(self) -> list[tuple[str, BindingState]]:
        """What was reported, in order."""
        return [(status.binding.id, status.state) for status in self.world.cloudly.reports]


def scene_with(body: Any) -> None:
    """Play a scene with a bench."""

    async def scene() -> None:
        await body(Bench())

    play(scene)


def test_a_bound_service_starts_with_its_values() -> None:
    """Provisioned first, then deployed with what came of it, prefixed; again nothing is left to do."""

    async def body(bench: Bench) -> None:
        bindings: tuple[Json, ...] = ({}, {"capability": "objectstorage", "envPrefix": "MEDIA_"})
        reconcile_result = await bench.deploy(service("a"), service("b"), bindings=bindings)
        assert reconcile_result.is_stable
        kinds = [type(o.step.action) for o in reconcile_result.applied]
        assert kinds.count(Provision) == 2
        found = await bench.secret()
        assert any(key.startswith("MEDIA_") for key in found)
        assert any(not key.startswith("MEDIA_") for key in found)
        writes = bench.world.engine.writes
        assert not (await bench.deploy(service("a"), service("b"), bindings=bindings)).applied
        assert bench.world.engine.writes == writes
        assert bench.states() == [("b0", "ready"), ("b1", "ready")]
        status = bench.world.cloudly.reports[0]
        assert status.secret.startswith("a-")
        assert status.keys
        assert not [value for value in found.values() if value in str(bench.world.cloudly.reports)]

    scene_with(body)


def test_a_restart_asks_again_and_changes_nothing() -> None:
    """The same values make the same secret; a refresh that finds others replaces it."""

    async def body(bench: Bench) -> None:
        await bench.deploy(service("a"), bindings=({},))
        before, writes = await bench.secret(), bench.world.engine.writes
        bench.restart()
        assert (await bench.deploy(service("a"), bindings=({},))).is_stable
        assert bench.world.engine.writes == writes
        bench.corestore.rotate(ServiceId("id-a"))
        assert (await bench.deploy(service("a"), bindings=({},))).is_stable
        assert await bench.secret() == before
        assert (await bench.deploy(service("a"), bindings=({},), refresh=True)).is_stable
        assert await bench.secret() != before

    scene_with(body)


@pytest.mark.parametrize("fault", [Unavailable("away"), Refused("token mismatch")])
def test_without_corestore_bound_services_wait(fault: Any) -> None:
    """The running one is not touched, the others are deployed, and the reason is reported."""

    async def body(bench: Bench) -> None:
        await bench.deploy(service("a"), bindings=({},))
        live = await bench.world.live("a")
        bench.restart()
        bench.corestore.faults.extend([fault] * 100_000)
        changed = service("a", environment={"N": "2"})
        with trio.move_on_after(30):
            await bench.deploy(changed, service("b"), bindings=({},))
        assert (await bench.world.live("a"))["Version"] == live["Version"]
        assert "b" in await bench.world.names()
        assert bench.states()[-1] == ("b0", "failed")
        assert str(fault) in bench.world.cloudly.reports[-1].error
        bench.corestore.faults.clear()
        assert (await bench.deploy(changed, service("b"), bindings=({},))).is_stable
        assert (await bench.world.live("a"))["Version"] != live["Version"]

    scene_with(body)


def test_only_what_is_disabled_is_given_back() -> None:
    """After the service runs without it; a record that is gone gives nothing back; and it can come again."""

    async def body(bench: Bench) -> None:
        await bench.deploy(service("a"), bindings=({},))
        await bench.deploy(service("a"))
        assert bench.corestore.deprovisioned == []
        reconcile_result = await bench.deploy(service("a"), bindings=({"desiredState": "disabled"},))
        assert [type(o.step.action) for o in reconcile_result.applied][-1] is Deprovision
        assert [s.id for s in bench.corestore.deprovisioned] == ["b0"]
        assert await bench.secret() == {}
        again = await bench.deploy(service("a"), bindings=({"desiredState": "disabled"},))
        assert not again.applied
        assert bench.states()[-1] == ("b0", "disabled")
        assert (await bench.deploy(service("a"), bindings=({},))).is_stable
        assert await bench.secret() != {}

    scene_with(body)


def test_the_operators_bundle_wins() -> None:
    """A variable that both have is the bundle's, and the plan names it without its value."""

    async def body(bench: Bench) -> None:
        await bench.deploy(service("a"), bindings=({},))
        (key, *_) = await bench.secret()
        _, group = bundle("operator-canary")
        group["data"]["key"] = key
        document = cluster(service("a", secretBundleId="bundle"), platform=platform({}))
        document["secretBundles"], document["secretGroups"] = [bundle("x")[0]], [group]
        bench.world.cloudly.set(document)
        with capture_logs() as lines:
            reconcile_result = await bench.reconciler.deploy(timeout=60)
        assert (await bench.secret())[key] == "operator-canary"
        notes = [note.text for note in reconcile_result.last.plan.notes]
        assert f"secret bundle overrides the provisioned {key}" in notes
        assert "canary" not in f"{reconcile_result}{lines}"

    scene_with(body)


class PlacedCorestore(MemoryCorestore):
    """One that says where exactly it is."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host

    async def provision(self, spec: BindingSpec) -> Provisioned:
        found = await super().provision(spec)
        return evolve(found, endpoints=tuple(evolve(e, host=self.host) for e in found.endpoints))


def several_nodes(bench: Bench, make: Callable[[str], MemoryCorestore]) -> dict[str, MemoryCorestore]:
    """Two nodes, with a Corestore on each, by its address."""
    bench.world.engine = new_engine(nodes=2)
    bench.world.engine.add_image("corestore:1")
    bench.world.render = RenderOptions(
        base=BaseOptions(services=("corestore",), images={"corestore": "corestore:1"})
    )
    stores: dict[str, MemoryCorestore] = {}

    def at(url: str) -> MemoryCorestore:
        return stores.setdefault(url, make(url))

    bench.reconciler = Reconciler(
        bench.world.cloudly,
        SwarmPort(bench.world.engine),
        Corestores(at, is_ours=True),
        render=bench.world.render,
    )
    return stores


def test_on_several_nodes_the_corestore_of_the_services_node_is_asked() -> None:
    """One node has the data, so the service is kept there; where its tasks come and go, nothing changes."""

    async def body(bench: Bench) -> None:
        stores = several_nodes(bench, PlacedCorestore)
        reconcile_result = await bench.deploy(service("a"), service("b"), bindings=({},))
        assert reconcile_result.is_stable
        (url,) = [url for url, store in stores.items() if store.held]
        (task,) = bench.world.engine.running_tasks("a")
        (corestore,) = [
            t for t in bench.world.engine.running_tasks("corestore") if t["NodeID"] == task["NodeID"]
        ]
        addresses = [a.partition("/")[0] for n in corestore["NetworksAttachments"] for a in n["Addresses"]]
        assert urlsplit(url).hostname in addresses
        assert bench.reconciler.bindings.has(
            binding_wishes(reconcile_result.last.records.platform).wanted[A][0]
        )
        again = await bench.deploy(service("a"), service("b"), bindings=({},))
        assert not again.applied

    scene_with(body)


def test_a_name_that_leads_to_any_corestore_is_no_good() -> None:
    """What it gave cannot be used: the service is held, with the reason; everything else is deployed."""

    async def body(bench: Bench) -> None:
        several_nodes(bench, lambda _: MemoryCorestore())
        with trio.move_on_after(30):
            await bench.deploy(service("a"), service("b"), bindings=({},))
        assert await bench.world.names() == ["b", "corestore"]
        reconcile_state = await bench.reconciler.look()
        (wait,) = [wait for wait in reconcile_state.plan.waits if wait.name == "a"]
        assert "set CORESTORE_CONTROL_URL" in wait.reason

    scene_with(body)


@pytest.mark.parametrize(
    ("nonsense", "held"),
    [
        ({"id": "b9", "data": {"serviceId": "id-a", "capability": 7}}, ["a"]),
        ({"id": "b9", "data": {"capability": "database"}}, ["a", "b"]),
        ("nonsense", ["a", "b"]),
    ],
)
def test_a_binding_that_cannot_be_read_holds_its_service(nonsense: object, held: list[str]) -> None:
    """Nobody knows what the service needs: it keeps what it has. Others go on, unless it may be theirs."""

    async def body(bench: Bench) -> None:
        await bench.deploy(service("a"), service("b"), bindings=({},))
        before = await bench.secret()
        document = cluster(service("a", "good:2"), service("b", "good:2"), platform=platform({}))
        document["platform"]["bindings"].append(nonsense)
        bench.world.cloudly.set(document)
        with trio.move_on_after(60):
            await bench.reconciler.deploy(timeout=30)
        images = {
            name: (await bench.world.live(name))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
            for name in ("a", "b")
        }
        assert [name for name in images if images[name] == "good:1"] == held
        assert await bench.secret() == before
        reconcile_state = await bench.reconciler.look()
        assert [w.name for w in reconcile_state.plan.waits if "cannot be read" in w.reason] == held
        assert not bench.corestore.deprovisioned

    scene_with(body)


def test_a_platform_that_is_nonsense_holds_everything() -> None:
    """As a whole: no service is known to be bound to nothing."""

    async def body(bench: Bench) -> None:
        await bench.deploy(service("a"), bindings=({},))
        document = cluster(service("a", "good:2"), platform={"bindings": "nonsense"})
        bench.world.cloudly.set(document)
        with trio.move_on_after(60):
            reconcile_result = await bench.reconciler.deploy(timeout=30)
        assert not reconcile_result.applied
        assert [w.name for w in reconcile_result.last.plan.waits] == ["a"]
        assert any("bindings" in note.text for note in reconcile_result.last.plan.notes)

    scene_with(body)


def test_what_nobody_provides_is_reported() -> None:
    """Unsupported is no reason to hold a service."""

    async def body(bench: Bench) -> None:
        reconcile_result = await bench.deploy(service("a"), bindings=({"capability": "mail"},))
        assert reconcile_result.is_stable
        assert bench.states() == [("b0", "unsupported")]

    scene_with(body)


def test_killed_after_any_write_it_ends_well() -> None:
    """Whatever was done when the process died, the next one finishes."""

    async def body(bench: Bench) -> None:
        bindings: tuple[Json, ...] = ({}, {"capability": "objectstorage"})
        for method in ("create_secret", "create_service"):
            bench.world.engine.faults.append(Fault(method=method, when="after"))
            await bench.deploy(service("a"), bindings=bindings)
            bench.restart()
        assert (await bench.deploy(service("a"), bindings=bindings)).is_stable
        assert len(await bench.secret()) >= 2

    scene_with(body)


def test_it_is_heard_how_a_corestore_answers() -> None:
    """One that is away is; one that refuses is there."""

    async def scene() -> None:
        bench = Bench()
        heard: list[tuple[str, str]] = []
        bench.reconciler = Reconciler(
            bench.world.cloudly,
            SwarmPort(bench.world.engine),
            Corestores.one(bench.corestore),
            render=bench.world.render,
            options=ReconcilerOptions(heard=lambda peer, _, error: heard.append((peer, str(error or "")))),
        )
        bench.corestore.faults += [Unavailable("gone"), Refused("no")]
        for _ in range(3):
            bench.reconciler.try_now()
            await bench.deploy(service("a"), bindings=({},))
        assert [text for peer, text in heard if peer == "corestore"][:3] == ["gone", "", ""]
        assert {peer for peer, text in heard if not text} == {"records", "engine", "corestore"}

    play(scene)
