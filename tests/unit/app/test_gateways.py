"""The external gateway beside the passes: in step with the hosts, and nobody else's routes touched."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.app.test_routing import HOST, OTHER, Stage, until, web
from tests.unit.app.worlds import Json, cluster, play

from coreflow.adapters.journal import MemoryJournal
from coreflow.adapters.memory import MemoryGateway
from coreflow.app.gateways import Gateways
from coreflow.app.journaling import Recorder
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ids import ClusterId
from coreflow.domain.journal import Query
from coreflow.domain.records.models import GatewayRecord
from coreflow.domain.routing.gateway import GatewayAction, GatewayRoute, ObservedRoute

RECORD: Json = {
    "type": "dcrouter",
    "url": "https://gateway.example.com",
    "apiToken": "canary",
    "targetHost": "203.0.113.20",
    "targetPort": 8443,
}


class Bench:
    """A gateway, and whoever keeps it in step."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.gateway = MemoryGateway()
        self.made: list[GatewayRecord] = []
        self.journal = MemoryJournal()
        recorder = Recorder(self.journal, trio.current_time, asked=("push",))
        self.heard: list[tuple[str, str]] = []
        """What each look at it ended with."""

        def heard(peer: str, _: str, error: Exception | None) -> None:
            self.heard.append((peer, str(error or "")))

        self.gateways = Gateways(self._make, heard, recorder=recorder)

    def _make(self, record: GatewayRecord, _: ClusterId) -> MemoryGateway:
        self.made.append(record)
        return self.gateway

    async def settle(self, *services: Json, gateway: Json | None = RECORD) -> None:
        """A pass with these services and this gateway."""
        self.stage.cloudly.set(cluster(*services, externalGatewayConfig=gateway))
        reconcile_state = await self.stage.reconciler.look()
        self.gateways.reconciled(reconcile_state, reconcile_state.desired.hosts.values())

    async def journalled(self) -> list[tuple[str, str, str]]:
        """What was written, of which host, and what became of it."""
        entries = [record.entry for record in (await self.journal.read(Query())).records]
        assert {entry.kind for entry in entries} <= {"gateway route"}
        return [(entry.action, entry.name, entry.outcome) for entry in entries]

    def hosts(self) -> list[str]:
        """The hosts of our routes there."""
        return sorted(r.route.host for r in self.gateway.listed if r.cluster == "test" and r.route)


def test_the_journal_has_the_routes() -> None:
    """What was written, and what the gateway refused."""

    async def body(bench: Bench) -> None:
        await bench.settle(web("a", HOST))
        await until(lambda: bench.hosts() == [HOST])
        apply = bench.gateway.apply

        async def refuse(_: GatewayAction) -> None:
            bench.gateway.apply = apply  # type: ignore[method-assign]
            raise Refused("no")

        bench.gateway.apply = refuse  # type: ignore[method-assign, assignment]
        await bench.settle(web("a", OTHER))
        await trio.sleep(30)
        assert await bench.journalled() == [
            ("create", HOST, "applied"),
            ("create", OTHER, "failed"),
            ("remove", HOST, "applied"),
            ("create", OTHER, "applied"),
        ]

    scene_with(body)


def scene_with(body: Callable[[Bench], Awaitable[None]]) -> None:
    """Play a scene with a gateway."""

    async def scene() -> None:
        bench = Bench()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.gateways.run)
            await body(bench)
            nursery.cancel_scope.cancel()

    play(scene)


def test_hosts_come_and_go() -> None:
    """One route per host; a second sync writes nothing; what is no longer wanted goes; others' routes stay."""

    async def body(bench: Bench) -> None:
        foreign = ObservedRoute(id="x", name="theirs", cluster=None, route=None)
        bench.gateway.listed.append(foreign)
        await bench.settle(web("a", HOST, OTHER))
        await until(lambda: bench.hosts() == [HOST, OTHER])
        ours = next(r.route for r in bench.gateway.listed if r.route and r.route.host == HOST)
        assert (ours.target_host, ours.target_port, ours.tls_mode) == (
            "203.0.113.20",
            8443,
            "terminate-and-reencrypt",
        )
        writes = bench.gateway.writes
        bench.gateways.refresh()
        await bench.settle(web("a", HOST, OTHER))
        await trio.sleep(10)
        assert bench.gateway.writes == writes
        await bench.settle(web("a", OTHER))
        await until(lambda: bench.hosts() == [OTHER])
        assert foreign in bench.gateway.listed

    scene_with(body)


def test_nothing_is_deleted_while_a_record_cannot_be_read() -> None:
    """It might have the host that seems to be gone."""

    async def body(bench: Bench) -> None:
        await bench.settle(web("a", HOST), web("b", OTHER))
        await until(lambda: bench.hosts() == [HOST, OTHER])
        await bench.settle({"id": "id-a", "data": {"name": ["a"]}}, web("b", OTHER))
        await trio.sleep(10)
        assert bench.hosts() == [HOST, OTHER]

    scene_with(body)


@pytest.mark.parametrize(
    "change", [{"enabled": False}, {"syncRoutes": False}, {"targetHost": None}], ids=lambda c: next(iter(c))
)
def test_a_gateway_that_is_not_to_be_touched(change: Json) -> None:
    """Switched off, without synced routes, or without a target."""

    async def body(bench: Bench) -> None:
        await bench.settle(web("a", HOST), gateway={**RECORD, **change})
        await trio.sleep(10)
        assert bench.gateway.writes == 0

    scene_with(body)


def test_a_failure_is_said_once_and_tried_again() -> None:
    """A gateway that is away delays nothing else; one host that is refused leaves the others alone."""

    async def body(bench: Bench) -> None:
        with capture_logs() as lines:
            bench.gateway.faults.extend([Unavailable("away")] * 3)
            await bench.settle(web("a", HOST))
            await until(lambda: bench.hosts() == [HOST], 120)
        warnings = [line for line in lines if line["log_level"] == "warning"]
        assert [line["reason"] for line in warnings] == ["away"]
        assert "canary" not in str(lines)

    scene_with(body)


def test_a_lasting_failure_backs_off_whatever_passes_say() -> None:
    """A pass that wants the same as before is no reason to try again; one that wants something else is."""

    async def body(bench: Bench) -> None:
        bench.gateway.faults.extend([Unavailable("away")] * 100)
        for _ in range(60):
            await bench.settle(web("a", HOST))
            await trio.sleep(5)
        tried = 100 - len(bench.gateway.faults)
        assert 4 <= tried <= 8
        await bench.settle(web("a", HOST), web("b", OTHER))
        await trio.sleep(1)
        assert 100 - len(bench.gateway.faults) == tried + 1

    scene_with(body)


def test_a_url_that_cannot_be_used_leaves_every_gateway_alone() -> None:
    """Above all the last one, which must not get what was meant for another."""

    async def body(bench: Bench) -> None:
        await bench.settle(web("a", HOST))
        await until(lambda: bench.hosts() == [HOST])
        writes, make = bench.gateway.writes, bench.gateways._make

        def refuse(record: GatewayRecord, cluster: ClusterId) -> MemoryGateway:
            if record.url == "http://[":
                raise ValueError
            made = make(record, cluster)
            assert isinstance(made, MemoryGateway)
            return made

        bench.gateways._make = refuse
        broken = {**RECORD, "url": "http://[", "targetHost": "other.example.com"}
        with capture_logs() as lines:
            for _ in range(2):
                await bench.settle(web("a", HOST), gateway=broken)
                await trio.sleep(10)
        assert bench.gateway.writes == writes
        assert [line["reason"] for line in lines] == ["the gateway's url cannot be used"]

    scene_with(body)


def source(bench: Bench) -> object:
    """Where certificates are asked for first."""
    return bench.gateways.certificates


def test_certificates_only_if_wanted() -> None:
    """The record says whether the gateway's certificates are taken; without them it passes TLS through."""

    async def body(bench: Bench) -> None:
        await bench.settle(web("a", HOST), gateway={**RECORD, "exportCertificates": False})
        assert source(bench) is None
        await until(lambda: bench.hosts() == [HOST])
        (route,) = (r.route for r in bench.gateway.listed if r.route)
        assert isinstance(route, GatewayRoute)
        assert route.tls_mode == "passthrough"
        await bench.settle(web("a", HOST))
        assert source(bench) is bench.gateway
        await bench.settle(web("a", HOST), gateway=None)
        assert source(bench) is None
        assert len(bench.made) == 2

    scene_with(body)


def test_it_is_heard_how_a_gateway_answers() -> None:
    """Away, and there again."""

    async def body(bench: Bench) -> None:
        bench.gateway.faults.append(Unavailable("gone"))
        await bench.settle(web("a", HOST))
        await until(lambda: bench.hosts() == [HOST], seconds=60)
        assert bench.heard[0] == ("gateway", "gone")
        await until(lambda: bench.heard[-1] == ("gateway", ""))

    scene_with(body)
