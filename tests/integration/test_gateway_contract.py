"""What every external gateway promises: one suite, for memory and for our adapter on a stand-in of dcrouter.

The stand-in lists routes in several shapes. What only the adapter does stands below the suite.
"""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import orjson
import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.integration.dcrouter_stand_in import NO_METHOD, Json, StandIn, start_stand_in
from tests.integration.http_stand_in import UNUSABLE, quotes_of, traceback_of

from coreflow.adapters.dcrouter import Dcrouter
from coreflow.adapters.dcrouter import methods as m
from coreflow.adapters.dcrouter.parse_routes import observed_route
from coreflow.adapters.memory import MemoryGateway
from coreflow.adapters.net import PostAnswer
from coreflow.domain.errors import PortError, Refused, Unavailable
from coreflow.domain.ids import ClusterId
from coreflow.domain.ports import GatewayPort
from coreflow.domain.records.converter import decode
from coreflow.domain.records.models import CertificateRecord
from coreflow.domain.routing.gateway import (
    CreateRoute,
    DeleteRoute,
    GatewayRoute,
    ObservedRoute,
    TlsMode,
    UpdateRoute,
    plan_gateway,
    wanted_routes,
)

pytestmark = pytest.mark.guest

CLUSTER = ClusterId("c1")
OTHER = ClusterId("c1-b")
KEY = "-----BEGIN PRIVATE KEY-----\ncanary-of-the-key\n-----END PRIVATE KEY-----\n"
CHAIN = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def wanted(
    *hosts: str, target: str = "In.example.net", mode: TlsMode = "passthrough", cluster: ClusterId = CLUSTER
) -> tuple[GatewayRoute, ...]:
    return wanted_routes(cluster, hosts, target, 443, mode)


def icert(domain: str) -> Json:
    """A certificate as the gateway keeps it."""
    return {"domainName": domain, "created": 1, "validUntil": 2, "privateKey": KEY, "publicKey": CHAIN}


def hand_made(name: str, host: str) -> Json:
    """A request with which somebody else made a route."""
    match = {"ports": 443, "domains": [host]}
    target = {"host": "elsewhere.example.net", "port": 443}
    action = {"type": "forward", "targets": [target], "tls": {"mode": "passthrough"}}
    return {"route": {"name": name, "match": match, "action": action}, "enabled": True}


class Side(Protocol):
    """The other end of the port: what the gateway's operator does."""

    @property
    def port(self) -> GatewayPort:
        """The port under test."""
        ...

    @property
    def writes(self) -> int:
        """How many requests changed something."""
        ...

    def add(self, identity: str, name: str, host: str) -> None:
        """Add somebody else's route; with an empty id, one that is built in."""
        ...

    def drop(self, identity: str) -> None:
        """Remove a route by hand."""
        ...

    def certify(self, domain: str) -> None:
        """Have a certificate."""
        ...

    def fail(self, kind: type[PortError] | None) -> None:
        """Fail the next request in this way; with None, work again."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.port = MemoryGateway()

    @property
    def writes(self) -> int:
        return self.port.writes

    def add(self, identity: str, name: str, host: str) -> None:
        self.port.listed.append(observed_route({**hand_made(name, host), "id": identity}))

    def drop(self, identity: str) -> None:
        self.port.listed = [found for found in self.port.listed if found.id != identity]

    def certify(self, domain: str) -> None:
        self.port.certificates[domain] = decode(icert(domain), CertificateRecord)

    def fail(self, kind: type[PortError] | None) -> None:
        self.port.faults.clear()
        if kind is not None:
            self.port.faults.append(kind("as wished"))


class NetworkSide:
    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.port = new_port(stand_in)

    @property
    def writes(self) -> int:
        return self.stand_in.writes

    def add(self, identity: str, name: str, host: str) -> None:
        if identity:
            self.stand_in.stored[identity] = hand_made(name, host)
        else:
            self.stand_in.built_in.append({"source": "hardcoded", **hand_made(name, host)})

    def drop(self, identity: str) -> None:
        del self.stand_in.stored[identity]

    def certify(self, domain: str) -> None:
        self.stand_in.certificates[domain] = icert(domain)

    def fail(self, kind: type[PortError] | None) -> None:
        self.stand_in.null = kind is Unavailable
        self.stand_in.error = "as wished" if kind is Refused else None


def new_port(stand_in: StandIn, **options: Any) -> Dcrouter:
    """Our adapter, with the right token."""
    return Dcrouter(stand_in.url, stand_in.token, CLUSTER, **options)


@pytest.fixture(params=["memory", "new", "old", "flat"])
async def side(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Side]:
    """A fresh gateway, empty, and the other end of it."""
    yield (
        MemorySide()
        if request.param == "memory"
        else NetworkSide(await start_stand_in(nursery, request.param))
    )
    nursery.cancel_scope.cancel()


@pytest.fixture
async def stand_in(nursery: trio.Nursery) -> AsyncIterator[StandIn]:
    """A stand-in for what only the adapter does."""
    yield await start_stand_in(nursery)
    nursery.cancel_scope.cancel()


async def sync(
    port: GatewayPort,
    routes: tuple[GatewayRoute, ...],
    *,
    cluster: ClusterId = CLUSTER,
    complete: bool = True,
) -> int:
    """One pass, and how many actions it took."""
    actions = plan_gateway(cluster, routes, await port.routes(), complete=complete)
    for action in actions:
        await port.apply(action)
    return len(actions)


async def ours(port: GatewayPort) -> dict[str, GatewayRoute]:
    return {
        found.route.host: found.route
        for found in await port.routes()
        if found.cluster == CLUSTER and found.route is not None
    }


# ---------------------------------------------------------------- the suite


async def test_a_new_gateway_has_nothing(side: Side) -> None:
    """No routes, and no certificate for anybody."""
    assert await side.port.routes() == ()
    with pytest.raises(Refused, match=r"certificate of a\.example\.com"):
        await side.port.certificate("a.example.com")


@pytest.mark.parametrize("mode", ["passthrough", "terminate-and-reencrypt"])
async def test_routes_come_and_go(side: Side, mode: TlsMode) -> None:
    """What is wanted is created, changed and removed, and every second pass writes nothing."""
    hosts = ("a.example.com", "b.example.com")
    for number, routes in enumerate(
        [
            wanted(*hosts, mode=mode),
            wanted(*hosts, mode=mode, target="new.example.net"),
            wanted("B.example.com.", mode=mode),
            (),
        ]
    ):
        assert await sync(side.port, routes) == (2, 2, 2, 1)[number]
        assert await ours(side.port) == {route.host: route for route in routes}
        before = side.writes
        assert await sync(side.port, routes) == 0
        assert side.writes == before
    assert await side.port.routes() == ()


async def test_what_is_created_can_be_read(side: Side) -> None:
    """A route comes back with its name, our mark and an id."""
    (route,) = wanted("a.example.com")
    await side.port.apply(CreateRoute(route, "test"))
    (found,) = await side.port.routes()
    assert (found.name, found.cluster, found.route) == (route.name, CLUSTER, route)
    assert found.id


async def test_switching_off_is_undone(side: Side) -> None:
    """A route of ours that is switched off is seen, and switched on again."""
    (route,) = wanted("a.example.com")
    await sync(side.port, (route,))
    (found,) = await side.port.routes()
    await side.port.apply(UpdateRoute(found.id, evolve(route, enabled=False), "test"))
    (found,) = await side.port.routes()
    assert found.route is not None
    assert not found.route.enabled
    assert await sync(side.port, (route,)) == 1
    assert await ours(side.port) == {"a.example.com": route}


async def test_what_is_not_ours_is_left_alone(side: Side) -> None:
    """Routes by hand, built-in ones, and those of another cluster whose name begins like ours survive every pass."""
    side.add("x1", "shop", "a.example.com")
    side.add("", "built in", "b.example.com")
    side.add("x2", "coreflow-c1-taken.example.com", "taken.example.com")
    side.add("", "coreflow-c1-inside.example.com", "inside.example.com")

    def others(found: tuple[ObservedRoute, ...]) -> set[ObservedRoute]:
        return {route for route in found if route.cluster != CLUSTER}

    # the other cluster writes by itself
    foreign = side.port if isinstance(side, MemorySide) else _as_cluster(side, OTHER)
    assert await sync(foreign, wanted("a.example.com", cluster=OTHER), cluster=OTHER) == 1
    before = others(await side.port.routes())
    assert len(before) == 5
    hosts = ("a.example.com", "b.example.com", "taken.example.com", "inside.example.com")
    assert await sync(side.port, wanted(*hosts)) == 2
    assert await sync(side.port, wanted(*hosts)) == 0
    assert others(await side.port.routes()) == before
    assert await sync(side.port, ()) == 2
    assert others(await side.port.routes()) == set(await side.port.routes()) == before


def _as_cluster(side: Side, cluster: ClusterId) -> GatewayPort:
    assert isinstance(side, NetworkSide)
    return Dcrouter(side.stand_in.url, side.stand_in.token, cluster)


async def test_nothing_is_removed_while_something_is_unknown(side: Side) -> None:
    """An incomplete set creates, and removes nothing."""
    await sync(side.port, wanted("a.example.com"))
    assert await sync(side.port, wanted("b.example.com"), complete=False) == 1
    assert set(await ours(side.port)) == {"a.example.com", "b.example.com"}


async def test_done_already_is_success(side: Side) -> None:
    """Creating what is there, and removing what is gone."""
    (route,) = wanted("a.example.com")
    await side.port.apply(CreateRoute(route, "test"))
    await side.port.apply(CreateRoute(route, "test"))
    (found,) = await side.port.routes()
    side.drop(found.id)
    await side.port.apply(DeleteRoute(found.id, route.host, "test"))
    assert await side.port.routes() == ()
    assert side.writes == 1


async def test_what_cannot_be_done_is_refused(side: Side) -> None:
    """A name that is taken, a change of what is gone or built in."""
    side.add("x1", "coreflow-c1-a.example.com", "a.example.com")
    (route,) = wanted("a.example.com")
    for action in (
        CreateRoute(route, "test"),
        UpdateRoute("gone", route, "test"),
        UpdateRoute("", route, "test"),
        DeleteRoute("", "a.example.com", "test"),
    ):
        with pytest.raises(Refused, match="gateway"):
            await side.port.apply(action)
    assert side.writes == 0


async def test_a_certificate_is_handed_out(side: Side) -> None:
    """With its key, which no repr shows."""
    side.certify("a.example.com")
    record = await side.port.certificate("a.example.com")
    assert (record.domain_name, record.private_key, record.public_key) == ("a.example.com", KEY, CHAIN)
    assert "canary" not in repr(record)


async def test_a_wildcard_serves_its_children(side: Side) -> None:
    """The host's own comes first, then its parent's wildcard, and no further."""
    side.certify("*.example.com")
    assert (await side.port.certificate("a.example.com")).domain_name == "*.example.com"
    side.certify("a.example.com")
    assert (await side.port.certificate("a.example.com")).domain_name == "a.example.com"
    for host in ("b.a.example.com", "example.com", "example.org"):
        with pytest.raises(Refused, match="certificate of"):
            await side.port.certificate(host)


@pytest.mark.parametrize("kind", [Unavailable, Refused])
async def test_faults_pass(side: Side, kind: type[PortError]) -> None:
    """Each method raises what the peer's trouble means, and works again afterwards."""
    side.certify("a.example.com")
    (route,) = wanted("a.example.com")
    for call in (
        lambda: side.port.certificate("a.example.com"),
        side.port.routes,
        lambda: side.port.apply(CreateRoute(route, "test")),
    ):
        side.fail(kind)
        with pytest.raises(kind):
            await call()
        side.fail(None)
        await call()


# ---------------------------------------------------------------- the adapter alone: what is sent


async def test_the_token_is_in_the_body_and_in_the_header(nursery: trio.Nursery) -> None:
    """Both, because nobody knows which one is looked at; and the envelope is that of a TypedRequest."""
    seen: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b'"correlation"' not in data:
                data += await stream.receive_some()
            seen.append(data)
            body = b'{"response":{"routes":[]}}'
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    (listener,) = await nursery.start(partial(trio.serve_tcp, note, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    assert await Dcrouter(f"http://127.0.0.1:{port}/", " dcr_t ", CLUSTER).routes() == ()
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /typedrequest HTTP/1.1\r\n")
    assert b"Authorization: Bearer dcr_t\r\n" in head + b"\r\n"
    assert b'"request":{"apiToken":"dcr_t"}' in body
    assert b'"response":null' in body
    assert b'"phase":"request"' in body
    assert await Dcrouter(f"http://127.0.0.1:{port}/typedrequest", "", CLUSTER).routes() == ()
    assert b"apiToken" not in seen[1]
    assert b"Authorization" not in seen[1]
    nursery.cancel_scope.cancel()


async def test_the_body_of_a_route(stand_in: StandIn) -> None:
    """A gateway that shall have the certificate itself gets one by itself; the mark is there twice."""
    (route,) = wanted("a.example.com", mode="terminate-and-reencrypt")
    await new_port(stand_in).apply(CreateRoute(route, "test"))
    assert stand_in.asked.pop() == (
        "createRoute",
        {
            "apiToken": stand_in.token,
            "route": {
                "name": "coreflow-c1-a.example.com",
                "match": {"ports": 443, "domains": ["a.example.com"]},
                "action": {
                    "type": "forward",
                    "targets": [{"host": "in.example.net", "port": 443}],
                    "tls": {"mode": "terminate-and-reencrypt", "certificate": "auto"},
                },
                "tags": ["coreflow:c1"],
            },
            "enabled": True,
            "metadata": {
                "owner": "coreflow",
                "clusterId": "c1",
                "hostName": "a.example.com",
                "tags": ["coreflow:c1"],
            },
        },
    )
    (plain,) = wanted("b.example.com")
    await new_port(stand_in).apply(CreateRoute(plain, "test"))
    _, body = stand_in.asked[-1]
    assert body["route"]["action"]["tls"] == {"mode": "passthrough"}


async def test_routes_of_another_cluster_are_not_written(stand_in: StandIn) -> None:
    """Whatever the plan says."""
    (route,) = wanted("a.example.com", cluster=OTHER)
    for action in (CreateRoute(route, "test"), UpdateRoute("1", route, "test")):
        with pytest.raises(Refused, match="not one of ours"):
            await new_port(stand_in).apply(action)
    assert stand_in.asked == []


async def test_what_is_declined_may_be_done_already(stand_in: StandIn) -> None:
    """The gateway's list decides, not the wording of its message; without a list it is not done."""
    port = new_port(stand_in)
    (route,) = wanted("a.example.com")
    await sync(port, (route,))
    (found,) = await port.routes()
    stand_in.deny, stand_in.denied = "nothing to change", {"createRoute", "updateRoute", "deleteRoute"}
    await port.apply(UpdateRoute(found.id, route, "test"))
    await port.apply(CreateRoute(route, "test"))
    await port.apply(DeleteRoute("gone", route.host, "test"))
    for action in (
        UpdateRoute(found.id, evolve(route, target_port=8443), "test"),
        CreateRoute(evolve(route, enabled=False), "test"),
        DeleteRoute(found.id, route.host, "test"),
    ):
        with pytest.raises(Refused, match="nothing to change"):
            await port.apply(action)
    stand_in.missing.add("getMergedRoutes")
    with pytest.raises(Refused, match="nothing to change"):
        await port.apply(CreateRoute(route, "test"))


def test_the_table_is_the_whole_truth() -> None:
    """Every method is in it, with what it is asked with."""
    table = m.method_table()
    for method in m.ASKED:
        assert f"| `{method.name}` | `apiToken`" in table


# ---------------------------------------------------------------- the adapter alone: what is read

PLAIN: Json = {
    "match": {"ports": 443, "domains": ["a.example.com"]},
    "action": {
        "type": "forward",
        "targets": [{"host": "h", "port": 8443}],
        "tls": {"mode": "terminate-and-reencrypt", "certificate": "auto"},
    },
}
MATCH, ACTION = PLAIN["match"], PLAIN["action"]


@pytest.mark.parametrize(
    "route",
    [
        {"priority": 7, "security": {}},
        {"match": {"ports": [443], "domains": "A.Example.com.", "path": "/*", "tlsVersion": []}},
        {"match": {**MATCH, "ports": [{"from": 443, "to": 443}, 443.0, "443"]}},
        {"match": {**MATCH, "domains": ["a.example.com", "A.example.com"], "protocol": "http"}},
        {"action": {**ACTION, "targets": None, "target": {"host": ["H"], "port": "8443"}}},
        {"action": {**ACTION, "tls": None}, "tls": ACTION["tls"]},
        {"action": {**ACTION, "type": None, "tls": {"mode": "terminate-and-reencrypt"}}},
        {"enabled": None},
    ],
)
def test_shapes_that_mean_the_same(route: Json) -> None:
    """Older, newer and longer spellings of one route are one route."""
    expected = GatewayRoute(
        name="n", host="a.example.com", target_host="h", target_port=8443, tls_mode="terminate-and-reencrypt"
    )
    found = observed_route({"id": "1", "route": {"name": "n", **PLAIN, **route}})
    assert found == ObservedRoute(id="1", name="n", cluster=None, route=expected)


@pytest.mark.parametrize(
    "route",
    [
        {"match": None},
        {"match": []},
        {"action": "forward"},
        {"match": {**MATCH, "ports": [80, 443]}},
        {"match": {**MATCH, "ports": []}},
        {"match": {**MATCH, "ports": True}},
        {"match": {**MATCH, "ports": [{"from": 1, "to": 443}]}},
        {"match": {**MATCH, "path": "/api"}},
        {"match": {**MATCH, "clientIp": ["10.0.0.1"]}},
        {"match": {**MATCH, "domains": ["a", "b"]}},
        {"match": {**MATCH, "domains": [7]}},
        {"action": {**ACTION, "type": "redirect"}},
        {"action": {**ACTION, "targets": []}},
        {"action": {**ACTION, "targets": [{"host": "h", "port": 1}, {"host": "i", "port": 1}]}},
        {"action": {**ACTION, "targets": [{"host": ["h", "i"], "port": 1}]}},
        {"action": {**ACTION, "targets": [{"host": "h", "port": "preserve"}]}},
        {"action": {**ACTION, "targets": ["h:443"]}},
        {"action": {**ACTION, "tls": {"mode": "terminate"}}},
        {"action": {**ACTION, "tls": {"mode": ["passthrough"]}}},
        {"action": {**ACTION, "tls": None}},
    ],
)
def test_shapes_that_we_could_not_have_written(route: Json) -> None:
    """Such a route is listed, without a meaning."""
    found = observed_route({"id": "1", "route": {"name": "n", **PLAIN, **route}})
    assert found == ObservedRoute(id="1", name="n", cluster=None, route=None)


@pytest.mark.parametrize(
    "raw", [None, 7, "text", [], {}, {"route": "x"}, {"route": {"name": 7, "tags": [7]}}]
)
def test_nonsense_in_a_list(raw: object) -> None:
    """It is somebody else's, and cannot be changed."""
    assert observed_route(raw) == ObservedRoute(id="", name="", cluster=None, route=None)


@pytest.mark.parametrize(
    ("beside", "identity"),
    [
        ({"storedRouteId": "a", "id": "b"}, "a"),
        ({"id": "b", "routeId": "c"}, "b"),
        ({"routeId": "c"}, "c"),
        ({"id": 7}, "7"),
        ({"id": True}, ""),
        ({"id": None}, ""),
        ({}, ""),
        ({"id": "b", "source": "hardcoded"}, ""),
        ({"id": "b", "origin": "Built-In"}, ""),
        ({"id": "b", "origin": "api"}, "b"),
    ],
)
def test_ids(beside: Json, identity: str) -> None:
    """The id of the stored route is the one to change it by; what is built in has none."""
    assert observed_route({**beside, "route": {"name": "n", "id": "not this one"}}).id == identity


@pytest.mark.parametrize(
    ("raw", "cluster"),
    [
        ({"route": {"tags": ["x", "coreflow:c1"]}}, "c1"),
        ({"route": {"tags": "coreflow:c1"}}, "c1"),
        ({"tags": ["coreflow:c1"]}, "c1"),
        ({"metadata": {"tags": ["coreflow:c1"]}}, "c1"),
        ({"metadata": {"owner": "coreflow", "clusterId": "c1"}, "route": {"tags": ["coreflow:c1"]}}, "c1"),
        ({"route": {"metadata": {"owner": "coreflow", "clusterId": "c1"}}}, "c1"),
        ({"metadata": {"owner": "somebody", "clusterId": "c1"}}, None),
        ({"metadata": {"owner": "coreflow", "clusterId": 7}}, None),
        ({"route": {"tags": ["coreflow:c1", "coreflow:c2"]}}, None),
        ({"metadata": {"owner": "coreflow", "clusterId": "c2"}, "route": {"tags": ["coreflow:c1"]}}, None),
        ({"route": {"tags": ["Coreflow:c1", "coreflow"]}}, None),
    ],
)
def test_marks(raw: Json, cluster: str | None) -> None:
    """Our mark is found wherever it was kept; two that disagree are none."""
    assert observed_route(raw).cluster == cluster


@pytest.mark.parametrize(
    ("cert", "text"),
    [
        ({"publicKey": CHAIN}, "privateKey is missing|is missing"),
        ({"publicKey": CHAIN, "privateKey": {"canary": 1}}, "expected text"),
        ({}, "is missing"),
        ("canary", "is missing"),
        ([KEY], "is missing"),
    ],
)
async def test_a_certificate_that_cannot_be_used(stand_in: StandIn, cert: Any, text: str) -> None:
    """It counts as none, with the reason and without its content."""
    stand_in.certificates["a.example.com"] = cert
    with pytest.raises(Refused, match=text) as caught:
        await new_port(stand_in).certificate("a.example.com")
    assert "canary" not in traceback_of(caught.value)


@pytest.mark.parametrize(
    "cert",
    [
        {"domain": "a.example.com", "key": KEY, "chain": CHAIN},
        {"id": 7, "created": "2026-01-01", "validUntil": True, "privateKey": KEY, "publicKey": CHAIN},
    ],
)
async def test_certificates_of_other_shapes(stand_in: StandIn, cert: Json) -> None:
    """Other names are read, and what is only for information may be anything."""
    stand_in.certificates["a.example.com"] = cert
    record = await new_port(stand_in).certificate("a.example.com")
    assert (record.domain_name, record.private_key, record.public_key) == ("a.example.com", KEY, CHAIN)


@pytest.mark.parametrize("answer", [{}, {"routes": None}, {"routes": {}}, {"routes": "x"}])
async def test_an_answer_without_a_list_is_no_empty_list(stand_in: StandIn, answer: Json) -> None:
    """Otherwise everything would be created again."""
    stand_in.raw = PostAnswer(_text({"response": answer}))
    with pytest.raises(Unavailable, match="no list of routes"):
        await new_port(stand_in).routes()


@pytest.mark.parametrize("entry", [None, "x", 1, []])
async def test_a_list_with_something_else_in_it_is_no_list(stand_in: StandIn, entry: Any) -> None:
    """It may stand for a route of ours, which would be created again."""
    stand_in.raw = PostAnswer(_text({"response": {"routes": [{}, entry]}}))
    with pytest.raises(Unavailable, match=r"\$\.routes\[1\] is not an object"):
        await new_port(stand_in).routes()


# ---------------------------------------------------------------- the adapter alone: when it goes wrong


def _text(document: object) -> str:
    return orjson.dumps(document).decode()


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (200, {"response": None}, Unavailable, "no result"),
        (200, {}, Unavailable, "no result"),
        (200, {"response": []}, Unavailable, "not an object"),
        (200, [], Unavailable, "not an envelope"),
        (200, {"response": {}, "retry": {"waitForMs": 5}}, Unavailable, "come back later"),
        (200, {"error": {"text": "Internal server error"}}, Unavailable, "Internal server error"),
        (200, {"error": {"text": "scope missing", "data": {}}}, Refused, "scope missing"),
        (200, {"error": "plain"}, Refused, "plain"),
        (200, {"error": {}}, Refused, "without a reason"),
        (200, {"response": {"success": False, "message": "no\nway"}}, Refused, "no way"),
        (200, {"response": {"success": False}}, Refused, "without a reason"),
        (401, {"error": "x"}, Refused, "HTTP status 401"),
        (404, {"error": "x"}, Refused, "HTTP status 404"),
        (429, {}, Unavailable, "HTTP status 429"),
        (500, {}, Unavailable, "HTTP status 500"),
        (502, {}, Unavailable, "HTTP status 502"),
    ],
)
async def test_answers_that_are_errors(
    stand_in: StandIn, status: int, body: object, error: type[PortError], text: str
) -> None:
    """For every method; and none of them makes the gateway count as away, since it did answer."""
    stand_in.raw = PostAnswer(_text(body), status)
    port = new_port(stand_in)
    for name, call in calls(port).items():
        if name == "certificate" and text in ("no way", "without a reason") and "error" not in str(body):
            continue  # `success: false` means that there is none
        with pytest.raises(error, match=text):
            await call()
    stand_in.raw = None
    assert await port.routes() == ()


def calls(port: GatewayPort) -> dict[str, Callable[[], Awaitable[object]]]:
    """Everything that can be asked for."""
    (route,) = wanted("a.example.com")
    return {
        "certificate": lambda: port.certificate("a.example.com"),
        "routes": port.routes,
        "create": lambda: port.apply(CreateRoute(route, "test")),
        "update": lambda: port.apply(UpdateRoute("1", route, "test")),
        "delete": lambda: port.apply(DeleteRoute("1", route.host, "test")),
    }


async def test_why_there_is_no_certificate(stand_in: StandIn) -> None:
    """The wildcard is asked for once; the gateway's reason is passed on, also when it stands in the envelope."""
    port = new_port(stand_in)
    with pytest.raises(Refused, match="No certificate for a"):
        await port.certificate("a.example.com")
    assert [body["domain"] for _, body in stand_in.asked] == ["a.example.com", "*.example.com"]
    stand_in.error = "Certificate not found"
    with pytest.raises(Refused, match=r"certificate of a\.example\.com.*not found"):
        await port.certificate("a.example.com")
    assert stand_in.count("exportCertificate") == 4
    stand_in.error = "missing scope"
    with pytest.raises(Refused, match="missing scope"):
        await port.certificate("a.example.com")
    assert stand_in.count("exportCertificate") == 5


METHOD_OF = {
    "certificate": "exportCertificate",
    "routes": "getMergedRoutes",
    "create": "createRoute",
    "update": "updateRoute",
    "delete": "deleteRoute",
}


@pytest.mark.parametrize("name", METHOD_OF)
async def test_a_missing_method_is_asked_for_once(stand_in: StandIn, name: str) -> None:
    """It is switched off with one warning, the others go on, and `refresh` or a new object tries again."""
    method = METHOD_OF[name]
    stand_in.missing.add(method)
    port = new_port(stand_in)
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(Refused, match=f"{method} is not offered"):
                await calls(port)[name]()
    assert stand_in.count(method) == 1
    assert [(line["log_level"], line["method"]) for line in lines] == [("warning", method)]
    other = "certificate" if name == "routes" else "routes"
    stand_in.certificates["a.example.com"] = icert("a.example.com")
    await calls(port)[other]()
    stand_in.missing.clear()
    with pytest.raises(Refused, match="not offered"):
        await calls(port)[name]()
    assert stand_in.count(method) == 1
    with pytest.raises(Refused) if name == "update" else capture_logs():
        await calls(new_port(stand_in))[name]()
    assert stand_in.count(method) == 2
    stand_in.missing.add(method)
    port.refresh()
    with capture_logs() as lines, pytest.raises(Refused, match="not offered"):
        await calls(port)[name]()
    assert stand_in.count(method) == 3
    assert lines == []


async def test_hosts_do_not_wait_one_by_one(stand_in: StandIn) -> None:
    """After one time-out everything fails at once for a while, then the gateway is asked again."""
    port = new_port(stand_in, timeout=0.5, unhealthy_seconds=2.0)
    stand_in.seconds = 60
    with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s"):
        await port.certificate("a.example.com")
    with trio.fail_after(1.9):
        for _ in range(20):
            for call in calls(port).values():
                with pytest.raises(Unavailable, match="unhealthy"):
                    await call()
    assert len(stand_in.asked) == 1
    stand_in.seconds = 0
    await trio.sleep(2.1)
    assert await port.routes() == ()


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_gateway_that_is_away(nursery: trio.Nursery, hangs_up: bool) -> None:
    """Nobody listens, or whoever does hangs up."""

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    url = "http://127.0.0.1:9"
    if hangs_up:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    port = Dcrouter(url, "t", CLUSTER)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        await port.routes()
    with pytest.raises(Unavailable, match="unhealthy"):
        await port.routes()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("url", "token", "text"), UNUSABLE)
async def test_addresses_and_tokens_that_cannot_be_used(
    stand_in: StandIn, url: str, token: str, text: str
) -> None:
    """They are refused, and not shown."""
    with pytest.raises(Refused, match=text) as caught:
        await Dcrouter(url.format(port=stand_in.port), token, CLUSTER).routes()
    assert "canary" not in traceback_of(caught.value)


async def test_a_wrong_token(stand_in: StandIn) -> None:
    """The peer says which one it got; we do not."""
    port = Dcrouter(stand_in.url, "dcr_canary-wrong", CLUSTER)
    with pytest.raises(Refused, match="the token … is not valid") as caught:
        await port.routes()
    assert "canary" not in traceback_of(caught.value)


TOKEN = StandIn().token
QUOTES = (
    *quotes_of(TOKEN, KEY),
    *(base64.b64encode(f"{'.' * n}{TOKEN} {KEY}".encode()).decode() for n in range(3)),
    json.dumps(json.dumps({"token": TOKEN, "key": KEY})),
    "".join(f"%{byte:02x}" for byte in f"{TOKEN} {KEY}".encode()),
    base64.b64encode(TOKEN.encode()).decode()[:20],
    TOKEN.encode().hex(),
)


@pytest.mark.parametrize("quote", QUOTES, ids=range(len(QUOTES)))
@pytest.mark.parametrize(
    "way",
    ["error", "deny", "missing", "crash", "denied", "status", "not json", "null", "slow", "away", "invalid"],
)
async def test_the_token_is_never_told(stand_in: StandIn, way: str, quote: str) -> None:
    """Whatever goes wrong, with whatever the peer quotes: not in an error, nor behind it, nor in a log."""
    port = new_port(stand_in, timeout=0.2, unhealthy_seconds=0)
    match way:
        case "error":
            stand_in.error = quote
        case "deny":
            stand_in.deny = quote
        case "missing":
            stand_in.error = f"{NO_METHOD}: {quote}"
        case "crash":
            stand_in.error = f"Internal server error: {quote}"
        case "denied" | "status":
            stand_in.raw = PostAnswer(_text({"error": quote}), 403 if way == "denied" else 500)
        case "not json":
            stand_in.raw = PostAnswer(quote)
        case "null":
            stand_in.null = True
        case "slow":
            stand_in.seconds = 60
        case "away":
            port = Dcrouter("http://127.0.0.1:9", TOKEN, CLUSTER)
        case "invalid":
            cert = {"privateKey": quote, "publicKey": [quote], "domainName": quote}
            stand_in.certificates["a.example.com"] = cert
            stand_in.raw = PostAnswer(_text({"response": {"success": True, "cert": cert, "routes": quote}}))
    told = repr(port) + str(port)
    with capture_logs() as lines:
        for name, call in calls(port).items():
            if way == "invalid" and name not in ("certificate", "routes"):
                continue
            with pytest.raises(PortError) as caught:
                await call()
            told += traceback_of(caught.value)
    told += repr(lines)
    assert "canary" not in told.lower()
    assert TOKEN[:8].lower() not in told.lower()
