"""What whoever publishes routes may rely on: in memory, and at a Coretraffic on the real npm packages."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
import trio
from structlog.testing import capture_logs
from tests.integration.node_harness import Coretraffic, needs_node, start_coretraffic
from tests.integration.test_network import until
from tests.unit.certificates import DAY, START, make

from coreflow.adapters.coretraffic import CoretrafficRoutes
from coreflow.adapters.internal import InternalServer
from coreflow.adapters.memory import MemoryCoretraffic
from coreflow.domain.ports import CoretrafficPort
from coreflow.domain.routing.certificates import read_certificate
from coreflow.domain.routing.routes import Destination, HostClaim, RouteTable, make_table

pytestmark = pytest.mark.guest
HOST = "a.example.com"
CERTIFICATE = read_certificate(make(HOST), HOST, START + DAY)


def table(*addresses: str) -> RouteTable:
    """One host that leads to these addresses; none at all without any."""
    if not addresses:
        return RouteTable()
    there = tuple(Destination(address=a, task_id=a, node_id=None) for a in addresses)
    claim = HostClaim(host=HOST, service="web", port=80)
    return make_table([claim], {"web": there}, {HOST: CERTIFICATE}, START + DAY)


class Side(Protocol):
    """A port, and what a proxy was told by it."""

    @property
    def port(self) -> CoretrafficPort:
        """The port under test."""
        ...

    async def sets(self) -> list[list[tuple[str, ...]]]:
        """Every set that came, as the addresses of its hosts."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.port = MemoryCoretraffic()

    async def sets(self) -> list[list[tuple[str, ...]]]:
        return [[route.addresses for route in sent.routes] for sent in self.port.tables]


class RealSide:
    """The internal server, and a Node client that has tagged itself."""

    def __init__(self, server: InternalServer, port: CoretrafficRoutes, url: str, node: Coretraffic) -> None:
        self.server, self.port, self.url, self.node = server, port, url, node

    async def sets(self) -> list[list[tuple[str, ...]]]:
        return [
            [tuple(config["destinationIps"]) for config in update["reverseConfigs"]]
            for update in await self.node.received()
        ]


async def real_side(nursery: trio.Nursery, **options: Any) -> RealSide:
    """Everything connected, nothing published yet."""

    async def admit(_: str) -> Any:
        return lambda _: True

    server = InternalServer(admit, on_tags=lambda name, peer: routes.tags_changed(name, peer))
    routes = CoretrafficRoutes(server.tagged, **options)
    nursery.start_soon(routes.run)
    port = await nursery.start(server.run, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}"
    node = await start_coretraffic(nursery, url)
    await node.connect()
    await until(lambda: routes.connected == 1)
    return RealSide(server, routes, url, node)


@pytest.fixture(params=["memory", pytest.param("coretraffic", marks=needs_node)])
async def side(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Side]:
    """A port with one proxy behind it."""
    yield MemorySide() if request.param == "memory" else await real_side(nursery)
    nursery.cancel_scope.cancel()


async def told(side: Side, count: int) -> list[list[tuple[str, ...]]]:
    """Wait for so many sets."""
    with trio.fail_after(20):
        while len(sets := await side.sets()) < count:  # noqa: ASYNC110 - it is in another process
            await trio.sleep(0.02)
    return sets


async def test_a_table_arrives(side: Side) -> None:
    """All of it, and the next one in its place; an empty one, too."""
    for number, wanted in enumerate((table("10.0.0.1"), table("10.0.0.1", "10.0.0.2"), table()), 1):
        side.port.publish(wanted)
        sets = await told(side, number)
        assert sets[-1] == [route.addresses for route in wanted.routes]


async def test_the_same_table_is_not_sent_twice(side: Side) -> None:
    """Equal content counts, not the same object."""
    side.port.publish(table("10.0.0.1"))
    await told(side, 1)
    side.port.publish(table("10.0.0.1"))
    side.port.publish(table("10.0.0.2"))
    assert await told(side, 2) == [[("10.0.0.1",)], [("10.0.0.2",)]]


# the real one


@needs_node
async def test_one_at_a_time_and_the_newest_next(nursery: trio.Nursery) -> None:
    """While a proxy works on one set, only the newest of those that follow is kept."""
    side = await real_side(nursery)
    await side.node.answer(delayMs=500)
    side.port.publish(table("10.0.0.1"))
    await told(side, 1)
    for number in range(2, 6):
        side.port.publish(table(f"10.0.0.{number}"))
        await trio.sleep(0.02)
    assert await told(side, 2) == [[("10.0.0.1",)], [("10.0.0.5",)]]
    await until(lambda: side.port.is_up_to_date)
    nursery.cancel_scope.cancel()


@needs_node
async def test_a_scheduled_resend(nursery: trio.Nursery) -> None:
    """The same once more, but nothing where nothing was ever published."""
    side = await real_side(nursery)
    side.port.resend()
    await trio.sleep(0.2)
    assert await side.sets() == []
    side.port.publish(table("10.0.0.1"))
    await told(side, 1)
    side.port.resend()
    assert await told(side, 2) == [[("10.0.0.1",)]] * 2
    nursery.cancel_scope.cancel()


@needs_node
async def test_whoever_tags_itself_gets_everything(nursery: trio.Nursery) -> None:
    """Again, on a new connection, and on every one of several; of two from one address the newer."""
    side = await real_side(nursery)
    side.port.publish(table("10.0.0.1"))
    await told(side, 1)
    await side.node.request("__typedsocket_setTag", {"name": "coretraffic"})
    await told(side, 2)
    other = await start_coretraffic(nursery, side.url)
    await other.connect()
    with trio.fail_after(1):
        while not await other.received():  # noqa: ASYNC110 - it is in another process
            await trio.sleep(0.02)
    side.port.publish(table("10.0.0.2"))
    await trio.sleep(0.5)
    assert len(await side.sets()) == 2
    assert len(await other.received()) == 2
    await other.ask("terminate")
    await until(lambda: len(side.server.tagged("coretraffic")) == 1)
    assert (await told(side, 3))[-1] == [("10.0.0.2",)]
    nursery.cancel_scope.cancel()


@needs_node
@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ({"answer": {"status": "error", "errorText": "no\ncan do"}}, "it answered: no can do"),
        (
            {"answer": {"status": "error", "errorText": "bad -----BEGIN PRIVATE KEY----- x"}},
            "it answered: bad …",
        ),
        ({"error": {"text": "bad -----BEGIN PRIVATE KEY----- x", "data": {}}}, "bad …"),
        ({"answer": None}, "without a result"),
        ({"answer": {}}, "no status"),
        ({"error": {"text": "busy", "data": {}}}, "busy"),
        ({"crash": True}, "without a result"),
        ({"silent": True}, "not answered in 0.3 s"),
    ],
)
async def test_a_set_that_is_not_taken(nursery: trio.Nursery, manner: dict[str, Any], reason: str) -> None:
    """It is said once, with the address and without a key, and tried again until it is taken."""
    side = await real_side(nursery, answer_seconds=0.3, first_delay=0.1)
    await side.node.answer(**manner)
    with capture_logs() as lines:
        side.port.publish(table("10.0.0.1"))
        await told(side, 2)
        await side.node.answer(
            answer={"status": "ok", "errorText": ""}, error=None, crash=False, silent=False
        )
        await until(lambda: side.port.is_up_to_date)
    (line,) = (line for line in lines if line["event"] == "routes not accepted")
    assert reason in line["reason"]
    assert "PRIVATE" not in str(lines)
    assert [line["hosts"] for line in lines if line["event"] == "routes sent"] == [1]
    nursery.cancel_scope.cancel()
