"""Routes beside the passes: what the proxy is told, and when. Memory adapters and a clock that jumps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from structlog.testing import capture_logs
from tests.unit.app.worlds import GOOD, NEWER, Json, World, cluster, play, service
from tests.unit.certificates import DAY, START, make, raw

from coreflow.adapters.memory import MemoryCloudly, MemoryCoretraffic, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.reconcile import Reconciler
from coreflow.app.routing import FIRST_TABLE_SECONDS, Router
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ports import GatewayPort
from coreflow.domain.records.models import CertificateRecord
from coreflow.domain.routing.routes import RouteTable

HOST, OTHER = "a.example.com", "b.example.com"


def web(name: str, *hosts: str, image: str = GOOD, **data: Any) -> Json:
    """A service with hosts."""
    domains = [{"name": host} for host in hosts]
    return service(name, image, ports={"web": 80}, domains=domains, **data)


@define
class Stage:
    """A world with a proxy, and whoever keeps it in step."""

    world: World = field(factory=World)
    proxy: MemoryCoretraffic = field(factory=MemoryCoretraffic)
    gateway: GatewayPort | None = None
    router: Router = field(init=False)
    reconciler: Reconciler = field(init=False)
    cloudly: MemoryCloudly = field(init=False)
    which: Any = "all"

    def __attrs_post_init__(self) -> None:
        self.cloudly = self.world.cloudly
        port = SwarmPort(self.world.engine)
        self.reconciler = self.world.reconciler()
        self.router = Router(port, self.proxy, self, self.now, which=self.which)

    @staticmethod
    def now() -> float:
        """The wall clock."""
        return START + DAY + trio.current_time()

    @asynccontextmanager
    async def running(self, *, watching: bool = True) -> AsyncIterator[None]:
        """Everything that goes on beside the passes; looking at tasks twice a second takes long in a test of months."""
        async with trio.open_nursery() as nursery:
            if watching:
                nursery.start_soon(self.router.watch_tasks)
            nursery.start_soon(self.router.publish)
            nursery.start_soon(self.router.book.run)
            yield
            nursery.cancel_scope.cancel()

    async def deploy(self, *services: Json, certificates: dict[str, CertificateRecord] | None = None) -> None:
        """Publish records, and settle until everything runs."""
        found = {host: raw(record) for host, record in (certificates or {}).items()}
        self.world.cloudly.set(cluster(*services, certificates=found))
        self.router.reconciled(await self.reconciler.deploy(timeout=60))

    @property
    def table(self) -> RouteTable:
        """What the proxy has."""
        return self.proxy.tables[-1]

    def addresses(self, host: str = HOST) -> tuple[str, ...]:
        """Where a host leads."""
        return next((route.addresses for route in self.table.routes if route.host == host), ())

    def tasks(self) -> set[str]:
        """The tasks behind every host."""
        return {destination.task_id for route in self.table.routes for destination in route.destinations}


async def until(condition: Any, seconds: float = 2) -> None:
    """Wait until something holds, for no longer than it may take."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - it is looked at from outside
            await trio.sleep(0.05)


def test_a_host_leads_to_every_task() -> None:
    """All of them at once, in a stable order; the first one only, if that is wanted. Nothing is sent twice."""

    async def scene() -> None:
        for which, count in (("all", 3), ("first", 1)):
            stage = Stage(which=which)
            async with stage.running():
                await stage.deploy(web("a", HOST, scaleFactor=3), certificates={HOST: make(HOST)})
                await until(lambda: stage.proxy.tables)  # noqa: B023 - called at once
                assert len(stage.addresses()) == count
                await trio.sleep(100)
                assert len(stage.proxy.tables) == 1
                assert stage.now() - stage.router.table_made < 2  # looked at, and still so

    play(scene)


def test_a_task_that_moves_is_followed_without_a_pass() -> None:
    """Within two seconds, by looking at tasks alone."""

    async def scene() -> None:
        engine = MemoryEngine(nodes=2)
        for image in (GOOD, NEWER):
            engine.add_image(image)
        stage = Stage(world=World(engine=engine))
        async with stage.running():
            await stage.deploy(web("a", HOST, scaleFactor=2), certificates={HOST: make(HOST)})
            await until(lambda: stage.proxy.tables and len(stage.addresses()) == 2)
            before = stage.tasks()
            await stage.world.change("a", lambda spec: spec.update(Mode={"Replicated": {"Replicas": 3}}))
            await until(lambda: len(stage.addresses()) == 3)
            assert before < stage.tasks()
            await stage.world.change("a", lambda spec: spec["TaskTemplate"].update(ForceUpdate=1))
            await until(lambda: not before & stage.tasks(), 30)
            assert len(stage.addresses()) == 3
            assert all(table.routes for table in stage.proxy.tables)

    play(scene)


def test_nothing_is_taken_down_by_not_knowing() -> None:
    """A task but no certificate, Cloudly away: the proxy keeps what it has. Nobody who answers is another matter."""

    async def scene() -> None:
        stage = Stage()
        async with stage.running():
            await stage.deploy(web("a", HOST))
            await trio.sleep(60)
            assert stage.proxy.tables == []
            await stage.deploy(web("a", HOST), certificates={HOST: make(HOST)})
            await until(lambda: stage.proxy.tables)
            stage.cloudly.faults.extend(Unavailable("away") for _ in range(5))
            stage.router.refresh()
            await trio.sleep(60)
            assert len(stage.table.routes) == 1

    play(scene)


@pytest.mark.parametrize("domains", [True, False])
def test_the_last_service_without_a_task_leaves_the_proxy(domains: bool) -> None:
    """Scaled to nothing, or without host names: no task answers, which is known, so the dead address goes, and at once."""

    async def scene() -> None:
        stage = Stage()
        async with stage.running():
            await stage.deploy(web("a", HOST), certificates={HOST: make(HOST)})
            await until(lambda: stage.proxy.tables)
            last = web("a", HOST, scaleFactor=0) if domains else service("a")
            await stage.deploy(last, certificates={HOST: make(HOST)})
            await until(lambda: not stage.table.routes)
            assert [missing.host for missing in stage.table.missing] == [HOST] * domains
            await stage.deploy(web("a", HOST), certificates={HOST: make(HOST)})
            await until(lambda: len(stage.addresses()) == 1)

    play(scene)


def test_a_restart_forgets_no_route_that_works_and_keeps_none_that_does_not() -> None:
    """What can be read of a broken record says its hosts; a broken record without a service says nothing of a proxy."""

    async def scene() -> None:
        stage = Stage()
        certificates = {host: make(host) for host in (HOST, OTHER)}
        broken = web("a", HOST, environment=7)
        async with stage.running():
            await stage.deploy(web("a", HOST), web("b", OTHER), certificates=certificates)
            await until(lambda: stage.proxy.tables and len(stage.table.routes) == 2)
        stage = Stage(world=stage.world)
        async with stage.running():
            await stage.deploy(broken, web("b", OTHER), certificates=certificates)
            await until(lambda: stage.proxy.tables)
            assert all(len(table.routes) == 2 for table in stage.proxy.tables)
            await stage.world.change("a", lambda spec: spec.update(Mode={"Replicated": {"Replicas": 0}}))
            await stage.deploy(broken, web("b", OTHER, scaleFactor=0), certificates=certificates)
            await until(lambda: not stage.table.routes)
        unreadable = web("a", environment=7)
        unreadable["data"]["domains"] = [{"name": 7}]
        await stage.world.change("a", lambda spec: spec.update(Mode={"Replicated": {"Replicas": 1}}))
        stage = Stage(world=stage.world)
        async with stage.running():
            await stage.deploy(unreadable, web("b", OTHER, scaleFactor=0), certificates=certificates)
            await trio.sleep(90)
            assert stage.proxy.tables == []  # something of ours runs, and nobody knows for which host

    play(scene)


def test_the_first_table_waits_as_long_as_certificates_come() -> None:
    """Many hosts take their time after a restart: what is still to be asked for is not taken down, up to a minute."""

    async def scene() -> None:
        hosts = [f"h{number}.example.com" for number in range(40)]
        stage = Stage()
        quick = stage.cloudly.certificate

        async def certificate(domain: str) -> CertificateRecord:
            await trio.sleep(9)
            return await quick(domain)

        stage.cloudly.certificate = certificate  # type: ignore[method-assign]
        async with stage.running(watching=False):
            await stage.deploy(web("a", *hosts), certificates={host: make(host) for host in hosts})
            await until(lambda: stage.proxy.tables, 60)
            assert len(stage.proxy.tables[0].routes) == 40

    play(scene)


def test_the_first_table_waits_for_certificates_but_not_for_ever() -> None:
    """A proxy may still have the routes of our last life; one slow host delays the others by ten seconds at most."""

    async def scene() -> None:
        stage = Stage()
        slow = trio.Event()
        quick = stage.cloudly.certificate

        async def certificate(domain: str) -> CertificateRecord:
            if domain == OTHER:
                await slow.wait()
            return await quick(domain)

        stage.cloudly.certificate = certificate  # type: ignore[method-assign]
        async with stage.running():
            certificates = {host: make(host) for host in (HOST, OTHER)}
            await stage.deploy(web("a", HOST, OTHER), certificates=certificates)
            await trio.sleep(FIRST_TABLE_SECONDS - 1)
            assert stage.proxy.tables == []
            await until(lambda: stage.proxy.tables)
            assert [route.host for route in stage.table.routes] == [HOST]
            slow.set()
            await until(lambda: len(stage.table.routes) == 2)

    play(scene)


class Gateway:
    """A gateway with certificates."""

    def __init__(self, **certificates: CertificateRecord) -> None:
        self.certificates, self.asked = certificates, 0

    async def certificate(self, host: str) -> CertificateRecord:
        self.asked += 1
        if host not in self.certificates:
            raise Refused("none")
        return self.certificates[host]

    routes: Any = None
    apply: Any = None
    refresh: Any = None


@pytest.mark.parametrize(
    ("at_gateway", "issuer"),
    [
        ({HOST: make(HOST, issuer="Gateway")}, "Gateway"),
        ({}, "Cloudly"),
        ({HOST: make(OTHER, issuer="Gateway")}, "Cloudly"),
        ({HOST: make(HOST, days=1.5, issuer="Gateway")}, "Cloudly"),
    ],
)
def test_the_gateway_is_asked_first(at_gateway: dict[str, CertificateRecord], issuer: str) -> None:
    """What it does not have, or what does not fit or ends soon, comes from Cloudly."""

    async def scene() -> None:
        stage = Stage(gateway=Gateway(**at_gateway))
        async with stage.running():
            await stage.deploy(web("a", HOST), certificates={HOST: make(HOST, issuer="Cloudly")})
            await until(lambda: stage.proxy.tables)
            assert stage.table.routes[0].certificate.issuer == issuer

    play(scene)


@asynccontextmanager
async def counted(stage: Stage) -> AsyncIterator[list[str]]:
    """The hosts that are asked for, in order."""
    asked: list[str] = []
    plain = stage.cloudly.certificate

    async def certificate(domain: str) -> CertificateRecord:
        asked.append(domain)
        return await plain(domain)

    stage.cloudly.certificate = certificate  # type: ignore[method-assign]
    async with stage.running(watching=False):
        yield asked


def test_certificates_are_looked_up_again_in_time_and_not_too_often() -> None:
    """Once until four fifths of its life are over; a host without one ever more rarely, and said once."""

    async def scene() -> None:
        stage = Stage()
        with capture_logs() as lines:
            async with counted(stage) as asked:
                await stage.deploy(web("a", HOST), web("b", OTHER), certificates={HOST: make(HOST)})
                await trio.sleep(24 * 3600)
                assert asked.count(HOST) == 1
                assert 20 <= asked.count(OTHER) <= 40
                await trio.sleep(85 * DAY)
                assert 2 <= asked.count(HOST) <= 200  # the same answer again and again: ever more rarely
        assert len([line for line in lines if line["event"] == "no certificate"]) == 1
        assert not [line for line in lines if "PRIVATE" in str(line)]

    play(scene)


def test_a_replaced_certificate_is_used_at_once() -> None:
    """The old one is valid for months: a change of the records is reason enough, and so is somebody who asks."""

    async def scene() -> None:
        stage = Stage()
        first, second, third = (make(HOST, issuer=name) for name in ("First", "Second", "Third"))
        async with counted(stage) as asked:
            await stage.deploy(web("a", HOST), certificates={HOST: first})
            await until(lambda: stage.proxy.tables)
            await stage.deploy(web("a", HOST), certificates={HOST: second})
            await until(lambda: stage.table.routes[0].certificate.chain == second.public_key)
            document = cluster(web("a", HOST), certificates={HOST: raw(third)})
            stage.cloudly.set(document)  # no pass, as while one hangs
            stage.router.book.ask_again()
            await until(lambda: stage.table.routes[0].certificate.chain == third.public_key)
            assert len(asked) == 3

    play(scene)


def test_one_that_has_not_begun_waits_for_its_day() -> None:
    """The present one goes on until then, and nobody is asked meanwhile."""

    async def scene() -> None:
        stage = Stage()
        later = make(HOST, start=70, days=100)
        async with counted(stage) as asked:
            await stage.deploy(web("a", HOST), certificates={HOST: make(HOST)})
            await until(lambda: stage.proxy.tables)
            await stage.deploy(web("a", HOST), certificates={HOST: later})
            await trio.sleep(68 * DAY)
            assert stage.table.routes[0].certificate.chain == make(HOST).public_key
            assert len(asked) == 2
            await trio.sleep(2 * DAY)
            assert stage.table.routes[0].certificate.chain == later.public_key
            assert len(asked) == 3

    play(scene)


def test_many_notices_of_nothing_new_make_few_questions() -> None:
    """A control plane that pushes every second does not have all hosts asked for each time; a new answer ends the pauses."""

    async def scene() -> None:
        stage = Stage()
        async with counted(stage) as asked:
            await stage.deploy(web("a", HOST), certificates={HOST: make(HOST)})
            for _ in range(600):
                stage.router.book.changed()
                await trio.sleep(1)
            assert 10 <= len(asked) <= 20
            other = make(HOST, issuer="Other")
            stage.cloudly.set(cluster(web("a", HOST), certificates={HOST: raw(other)}))
            stage.router.book.changed()
            await until(lambda: stage.table.routes[0].certificate.chain == other.public_key, 61)
            before = len(asked)
            stage.router.book.changed()
            await until(lambda: len(asked) > before)

    play(scene)


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple["Stage", dict[str, Any]]]:
    """A stage on which two services are routed, each with a host of its own, and the certificates of these."""
    stage = Stage()
    async with stage.running():
        certificates = {host: make(host) for host in (HOST, OTHER)}
        await stage.deploy(web("a", HOST), web("b", OTHER), certificates=certificates)
        await until(lambda: stage.proxy.tables and len(stage.table.routes) == 2)
        yield stage, certificates


def test_a_record_that_cannot_be_read_keeps_its_route() -> None:
    """Its service runs on, so its host leads there."""

    async def scene() -> None:
        async with two_hosts() as (stage, certificates):
            broken = {**web("a", HOST), "data": {"name": ["a"]}}
            await stage.deploy(broken, web("b", OTHER, scaleFactor=2), certificates=certificates)
            await until(lambda: len(stage.addresses(OTHER)) == 2)
            assert len(stage.addresses(HOST)) == 1

    play(scene)


def test_routes_stay_while_a_removal_is_not_confirmed() -> None:
    """An empty list of services is more likely a mistake: what runs on is routed on, in the next process, too."""

    async def scene() -> None:
        async with two_hosts() as (stage, certificates):
            await stage.deploy(certificates=certificates)
            assert await stage.world.names() == ["a", "b"]
            await trio.sleep(60)
            assert len(stage.table.routes) == 2
        again = Stage(world=stage.world)
        async with again.running():
            await again.deploy(certificates=certificates)
            await trio.sleep(60)
            assert again.proxy.tables == []

    play(scene)


def test_a_host_that_two_want_stays_where_it_is() -> None:
    """The other one is rejected with the reason, and the route does not move."""

    async def scene() -> None:
        stage = Stage()
        async with stage.running():
            certificates = {HOST: make(HOST)}
            await stage.deploy(web("b", HOST), certificates=certificates)
            await until(lambda: stage.proxy.tables)
            await stage.deploy(web("a", HOST), web("b", HOST), certificates=certificates)
            await trio.sleep(10)
            assert {route.service for route in stage.table.routes} == {"b"}
            assert len(stage.proxy.tables) == 1

    play(scene)


def test_a_scheduled_pass_sends_everything_again() -> None:
    """It heals what a proxy has lost, and asks again for what was missing."""

    async def scene() -> None:
        stage = Stage()
        async with stage.running():
            await stage.deploy(web("a", HOST), certificates={HOST: make(HOST)})
            await until(lambda: stage.proxy.tables)
            stage.router.refresh()
            assert stage.proxy.resent == 1

    play(scene)


def test_an_engine_that_is_away_is_somebody_elses_trouble() -> None:
    """Looking at tasks fails then, and whoever runs it tries again later."""

    async def scene() -> None:
        stage = Stage()
        await stage.deploy(web("a", HOST), certificates={HOST: make(HOST)})
        stage.world.engine.crash()
        with pytest.raises(Unavailable):
            await stage.router.watch_tasks()

    play(scene)
