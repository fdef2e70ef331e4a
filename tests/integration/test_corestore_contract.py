"""What every Corestore promises: one suite, for memory and for our adapter on a stand-in of the control API.

The stand-in answers in several shapes. What only the adapter, or only memory, does stands below the suite.
"""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.integration.corestore_stand_in import SHAPES, Json, StandIn, start_stand_in
from tests.integration.http_stand_in import UNUSABLE, answer_once, quotes_of, text_answer, traceback_of

from coreflow.adapters.corestore import Corestore
from coreflow.adapters.corestore import methods as m
from coreflow.adapters.corestore.parse_bindings import endpoints, variables
from coreflow.adapters.memory import MemoryCorestore
from coreflow.adapters.net import PostAnswer
from coreflow.domain.errors import PortError, Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.bindings import CAPABILITIES, BindingSpec, Endpoint
from coreflow.domain.ports import CorestorePort

pytestmark = pytest.mark.guest

TOKEN = "cst_canary-0123456789abcdef"


def binding(service: str = "s1", capability: str = "database", **more: Any) -> BindingSpec:
    """A binding of a service that is called like its id."""
    return BindingSpec(
        id=f"b-{service}-{capability}",
        service_id=ServiceId(service),
        service_name=service,
        capability=capability,
        **more,
    )


class Side(Protocol):
    """The other end of the port."""

    @property
    def port(self) -> CorestorePort:
        """The port under test."""
        ...

    @property
    def held(self) -> set[tuple[str, str]]:
        """What is provisioned: service ids and capabilities."""
        ...

    def rotate(self, service: str) -> None:
        """Change the credentials of a service, and maybe of others."""
        ...

    def fail(self, kind: type[PortError] | None) -> None:
        """Fail the next request in this way; with None, work again."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.port = MemoryCorestore()

    @property
    def held(self) -> set[tuple[str, str]]:
        return set(self.port.held)

    def rotate(self, service: str) -> None:
        self.port.rotate(ServiceId(service))

    def fail(self, kind: type[PortError] | None) -> None:
        self.port.faults.clear()
        if kind is not None:
            self.port.faults.append(kind("as wished"))


class NetworkSide:
    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.port = Corestore(stand_in.url, TOKEN)

    @property
    def held(self) -> set[tuple[str, str]]:
        return set(self.stand_in.held)

    def rotate(self, service: str) -> None:
        self.stand_in.master += "'"

    def fail(self, kind: type[PortError] | None) -> None:
        status = 0 if kind is None else 400 if kind is Refused else 500
        self.stand_in.raw = text_answer({"error": "as wished"}, status) if status else None


@pytest.fixture(params=["memory", *SHAPES])
async def side(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Side]:
    """A fresh Corestore, empty, and the other end of it."""
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


# ---------------------------------------------------------------- the suite


@pytest.mark.parametrize("capability", CAPABILITIES)
async def test_the_same_binding_gives_the_same_values(side: Side, capability: str) -> None:
    """Again and again, in the same order, and also when it was given back in between."""
    spec = binding(capability=capability)
    first = await side.port.provision(spec)
    assert first.values
    again = await side.port.provision(spec)
    assert again == first
    assert list(again.values) == list(first.values)
    await side.port.deprovision(spec)
    assert await side.port.provision(spec) == first
    assert side.held == {("s1", capability)}


async def test_only_service_and_capability_matter(side: Side) -> None:
    """Not the binding's id, the service's name, or the prefix, which is for the secret."""
    first = await side.port.provision(binding(prefix="A_"))
    other = evolve(binding(), id="b2", service_name="renamed", prefix="B_")
    assert await side.port.provision(other) == first


@pytest.mark.parametrize("capability", CAPABILITIES)
async def test_services_differ(side: Side, capability: str) -> None:
    """Nobody gets the credentials of another."""
    one = await side.port.provision(binding("s1", capability))
    two = await side.port.provision(binding("s2", capability))
    assert one.values.keys() == two.values.keys()
    assert one.values != two.values
    assert one.endpoints == two.endpoints


async def test_capabilities_differ(side: Side) -> None:
    """A database is not object storage: neither variables nor endpoints are shared."""
    database = await side.port.provision(binding())
    storage = await side.port.provision(binding(capability="objectstorage"))
    assert "MONGODB_URI" in database.values
    assert "S3_BUCKET" in storage.values
    assert not database.values.keys() & storage.values.keys()
    assert database.endpoints == (
        Endpoint(name="database", protocol="mongodb", host="corestore", port=27017),
    )
    assert storage.endpoints == (
        Endpoint(name="objectstorage", protocol="http", host="corestore", port=9000),
    )
    assert all(isinstance(value, str) for given in (database, storage) for value in given.values.values())


async def test_values_may_change(side: Side) -> None:
    """When the peer derives others, they come with the next call."""
    first = await side.port.provision(binding())
    side.rotate("s1")
    second = await side.port.provision(binding())
    assert first.values.keys() == second.values.keys()
    assert first.values != second.values


async def test_what_is_given_back_is_gone(side: Side) -> None:
    """That capability of that service, and nothing else."""
    for spec in (binding(), binding(capability="objectstorage"), binding("s2")):
        await side.port.provision(spec)
    await side.port.deprovision(binding())
    assert side.held == {("s1", "objectstorage"), ("s2", "database")}


async def test_gone_already_is_success(side: Side) -> None:
    """Giving back twice, or what never was."""
    await side.port.deprovision(binding())
    await side.port.provision(binding())
    await side.port.deprovision(binding())
    await side.port.deprovision(binding())
    assert side.held == set()


async def test_a_capability_that_is_not_known(side: Side) -> None:
    """It is refused, and nothing is kept."""
    with pytest.raises(Refused, match="provision s1 queue"):
        await side.port.provision(binding(capability="queue"))
    assert side.held == set()


@pytest.mark.parametrize("kind", [Unavailable, Refused])
async def test_faults_pass(side: Side, kind: type[PortError]) -> None:
    """Each method raises what the peer's trouble means, and works again afterwards."""
    for call in calls(side.port):
        side.fail(kind)
        with pytest.raises(kind):
            await call()
        side.fail(None)
        await call()


async def test_no_value_is_shown(side: Side) -> None:
    """Neither by what comes back nor by the port."""
    for capability in CAPABILITIES:
        given = await side.port.provision(binding(capability=capability))
        shown = repr(given) + str(given) + repr(side.port)
        secrets = [given.values[name] for name in given.values if name in ("MONGODB_URI", "S3_BUCKET")]
        assert len(secrets) == 1
        assert not [value for value in secrets if value in shown]
        assert "canary" not in shown


def calls(port: CorestorePort, spec: BindingSpec | None = None) -> list[Callable[[], Awaitable[object]]]:
    """Everything that can be asked for."""
    return [partial(port.provision, spec or binding()), partial(port.deprovision, spec or binding())]


# ---------------------------------------------------------------- memory alone


async def test_memory_keeps_the_books() -> None:
    """Calls are counted, failed ones too; a rotation concerns one service."""
    memory = MemoryCorestore()
    memory.faults.append(Unavailable("as wished"))
    with pytest.raises(Unavailable, match="as wished"):
        await memory.provision(binding())
    before = [await memory.provision(binding(name)) for name in ("s1", "s2")]
    memory.rotate(ServiceId("s1"))
    after = [await memory.provision(binding(name)) for name in ("s1", "s2")]
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, True]
    await memory.deprovision(binding())
    assert memory.deprovisioned == [binding()]
    assert memory.counts == {"provision": 5, "deprovision": 1}
    assert await MemoryCorestore().provision(binding()) == before[0]


# ---------------------------------------------------------------- the adapter alone: what is sent


async def test_the_bodies(stand_in: StandIn) -> None:
    """The capability as a list, the config only where there is one; a slash at the address's end does no harm."""
    port = Corestore(f" {stand_in.url}/ ")
    spec = binding(config={"size": {"max": 5}}, prefix="X_")
    await port.provision(evolve(spec, service_name="shop"))
    await port.provision(evolve(spec, config={}))
    await port.deprovision(spec)
    body = {
        "serviceId": "s1",
        "serviceName": "s1",
        "capabilities": ["database"],
        "bindingId": "b-s1-database",
    }
    assert stand_in.asked == [
        ("/resources/provision", {**body, "serviceName": "shop", "config": {"size": {"max": 5}}}),
        ("/resources/provision", body),
        ("/resources/deprovision", {"serviceId": "s1", "capabilities": ["database"]}),
    ]


async def test_the_token_is_in_the_header(nursery: trio.Nursery) -> None:
    """As a bearer token, and nowhere else; without one there is no header."""
    seen: list[bytes] = []

    async def note(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b'"capabilities"' not in data:
                data += await stream.receive_some()
            seen.append(data)
            body = b'{"env":{"A":"b"}}'
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    (listener,) = await nursery.start(partial(trio.serve_tcp, note, 0, host="127.0.0.1"))
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    for token in (" cst_t ", "", None):
        for call in calls(Corestore(url, token)):
            await call()
    for path, data in zip((b"provision", b"deprovision") * 3, seen, strict=True):
        assert data.startswith(b"POST /resources/%b HTTP/1.1\r\n" % path)
        assert b"\r\nContent-Type: application/json\r\n" in data
    assert all(data.count(b"cst_t") == 1 for data in seen[:2])
    assert all(b"\r\nAuthorization: Bearer cst_t\r\n" in data for data in seen[:2])
    assert all(b"Authorization" not in data for data in seen[2:])
    nursery.cancel_scope.cancel()


def test_the_table_is_the_whole_truth() -> None:
    """Every path is in it, with what it is asked with."""
    table = m.endpoint_table()
    assert len(set(m.ASKED)) == 12
    for endpoint in (*m.ASKED, *m.UNASKED):
        asked = ", ".join(f"`{member.name}`" for member in endpoint.request)
        assert f"| `{endpoint.verb} {endpoint.path}` | {asked} | " in table
    assert "| `POST /resources/deprovision` | `serviceId`, `capabilities` | `ok` | read |" in table


# ---------------------------------------------------------------- the adapter alone: what is read


@pytest.mark.parametrize(
    "body",
    [
        {"env": {"A": "x", "N": "5"}},
        {"env": None, "environment": {"N": 5, "A": "x"}},
        {"database": {"env": {"A": "x", "N": 5.0}}, "objectstorage": {"env": {"B": "y"}}},
        {"database": {"environment": {"A": "x", "N": 5}}},
        {"resources": {"database": {"env": {"A": "x", "N": 5}}, "objectstorage": {"env": {"B": []}}}},
        {"env": {"database": {"A": "x", "N": 5}, "objectstorage": {"B": "y"}}},
        {"env": {"A": "x"}, "database": {"env": {"N": 5}}},
        {"env": {"A": "x", "N": 4}, "resources": {"database": {"env": {"N": 5}}}},
        {"env": {"A": "x", "N": 5}, "database": "mongodb://h", "resources": [], "message": "made"},
    ],
)
def test_shapes_of_variables(body: Json) -> None:
    """Wherever they stand; those of another capability are not ours."""
    assert variables(body, "database") == {"A": "x", "N": "5"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (" \n", " \n"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (2.0, "2"),
        (2.5, "2.5"),
        (1e300, "1e+300"),
    ],
)
def test_values_become_texts(value: object, text: str) -> None:
    """Numbers and truths as JSON has them, texts as they are."""
    assert variables({"env": {"A": value}}, "database") == {"A": text}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "no variables"),
        ({"env": {}}, "no variables"),
        ({"env": {"objectstorage": {"A": "canary"}}}, "no variables"),
        ({"objectstorage": {"env": {"A": "canary"}}}, "no variables"),
        ({"env": ["canary"]}, "not an object"),
        ({"env": "canary"}, "not an object"),
        ({"database": {"env": "canary"}}, "not an object"),
        ({"env": {"FINE": "canary", "THE_KEY": ["canary"]}}, "the variable THE_KEY is not a string"),
        ({"env": {"THE_KEY": {"canary": 1}}}, "the variable THE_KEY is not a string"),
        ({"env": {"THE_KEY": None}}, "the variable THE_KEY is not a string"),
        ({"env": {"": "canary"}}, "name that cannot be used"),
        ({"env": {"A=canary": "x"}}, "name that cannot be used"),
        ({"env": {"A\ncanary": "x"}}, "name that cannot be used"),
    ],
)
async def test_variables_that_cannot_be_used(stand_in: StandIn, body: Json, text: str) -> None:
    """A service does not start with half of its credentials; the reason names a key and no value."""
    stand_in.raw = text_answer(body)
    with pytest.raises(Refused, match=f"provision s1 database: .*{text}") as caught:
        await Corestore(stand_in.url).provision(binding())
    assert "canary" not in traceback_of(caught.value)
    assert len(stand_in.asked) == 1


def at(host: str, port: int, protocol: str = "mongodb", name: str = "database") -> Endpoint:
    return Endpoint(name=name, protocol=protocol, host=host, port=port)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, ()),
        ({}, ()),
        (7, ()),
        ("mongodb://h:1", (at("h", 1),)),
        ({"database": "mongodb://h:1", "objectstorage": "http://h:2"}, (at("h", 1),)),
        ({"database": "mongodb://H/db?x=y"}, (at("h", 27017),)),
        ({"database": "h:1"}, (at("h", 1),)),
        ({"database": "mongodb://user:canary@h:1/db"}, (at("h", 1),)),
        ({"database": "mongodb://us@er:can@ary@h:1"}, (at("h", 1),)),
        ({"database": "mongodb://canary:12/3@h:1"}, ()),
        ({"database": "mongodb://canary:12#3@h:1"}, ()),
        ({"database": "mongodb://[::1]:1"}, (at("::1", 1),)),
        ({"database": "mongodb://[canary:1"}, ()),
        ({"database": "mongodb://h:99999"}, ()),
        ({"database": "other://h"}, ()),
        ({"database": "mongodb://"}, ()),
        ({"database": ["mongodb://h:1"]}, ()),
        ({"database": {"url": "https://h"}}, (at("h", 443, "https"),)),
        ({"database": {"host": "h"}}, (at("h", 27017),)),
        ({"api": "http://h", "database": "h"}, (at("h", 80, "http", "api"), at("h", 27017))),
        (
            [{"name": "x", "protocol": "HTTPS:", "host": "u:canary@h", "port": "8"}],
            (at("h", 8, "https", "x"),),
        ),
        ([{"name": "objectstorage", "protocol": "http", "host": "h", "port": 8}], ()),
        ([{"host": "h", "port": 8}, {"host": "h", "port": 8}, "g:7", 9], (at("g", 7), at("h", 8))),
        ([{"name": "u:canary@h", "host": "h", "port": 8}], (at("h", 8),)),
        ([{"name": 7, "host": "h", "port": 8}], (at("h", 8),)),
        ([{"host": "h", "port": True}, {"host": "h", "port": 0}, {"host": "h", "port": "x"}], ()),
        ([{"host": "http://h", "port": 8}, {"host": 7, "port": 8}, {"host": "", "port": 8}], ()),
        ([{"protocol": "user:canary", "host": "h", "port": 8}], ()),
        ([{"protocol": ["http"], "host": "h", "port": 8}], ()),
    ],
)
def test_shapes_of_endpoints(raw: object, expected: tuple[Endpoint, ...]) -> None:
    """What can be understood, without credentials, and the rest left out."""
    found = endpoints({"env": {}, "endpoints": raw}, "database")
    assert found == expected
    assert "canary" not in repr(found)


@pytest.mark.parametrize("text", ['{"ok":true}', '{"success":true,"message":"gone"}', '{"freed":1}'])
async def test_little_need_be_said_about_what_is_given_back(stand_in: StandIn, text: str) -> None:
    """Anything that is no refusal."""
    stand_in.raw = PostAnswer(text)
    await Corestore(stand_in.url).deprovision(binding())
    assert len(stand_in.asked) == 1


@pytest.mark.parametrize("text", ["", "null", "{}"])
async def test_an_answer_that_says_nothing_of_what_is_given_back(stand_in: StandIn, text: str) -> None:
    """It is asked for once more: gone now, or not known to be."""
    stand_in.raw = PostAnswer(text)
    with pytest.raises(Unavailable, match="the answer says nothing"):
        await Corestore(stand_in.url).deprovision(binding())
    stand_in.asked.clear()
    stand_in.raw = None
    stand_in.once.append(PostAnswer(text))
    await Corestore(stand_in.url).deprovision(binding())
    assert len(stand_in.asked) == 2


async def test_credentials_of_another_service(stand_in: StandIn) -> None:
    """They are nobody's here."""
    stand_in.raw = text_answer({"serviceId": "s2", "env": {"A": "canary"}})
    with pytest.raises(Refused, match="the answer is about another service") as caught:
        await Corestore(stand_in.url).provision(binding())
    assert "canary" not in traceback_of(caught.value)


# ---------------------------------------------------------------- the adapter alone: when it goes wrong


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (200, [], Unavailable, "not an object"),
        (200, "text", Unavailable, "not an object"),
        (200, {"ok": False, "message": "no\nway", "env": {"A": "b"}}, Refused, "no way"),
        (200, {"success": False}, Refused, "without a reason"),
        (200, {"error": "disk is full"}, Refused, "disk is full"),
        (301, {}, Refused, "HTTP status 301$"),
        (400, {"error": "bad name"}, Refused, "HTTP status 400: bad name$"),
        (400, {"errorText": "bad name"}, Refused, "400: bad name$"),
        (409, {"error": True, "message": "bad name"}, Refused, "409: bad name$"),
        (409, {"error": " ", "message": ["x"]}, Refused, "409$"),
        (403, "text", Refused, "403$"),
        (422, {"error": "x" * 600}, Refused, "422: x{499}…$"),
        (401, {"error": "whatever"}, Refused, "token mismatch: CORESTORE_API_TOKEN is not the one"),
        (408, {}, Unavailable, "HTTP status 408"),
        (425, {}, Unavailable, "HTTP status 425"),
        (429, {}, Unavailable, "HTTP status 429"),
        (500, {}, Unavailable, "HTTP status 500"),
        (501, {}, Unavailable, "HTTP status 501"),
    ],
)
async def test_answers_that_are_errors(
    stand_in: StandIn, status: int, body: object, error: type[PortError], text: str
) -> None:
    """They are not asked for again, and Corestore does not count as away, since it did answer."""
    stand_in.raw = text_answer(body, status)
    port = Corestore(stand_in.url, TOKEN)
    for call in calls(port):
        with pytest.raises(error, match=rf"^corestore: (de)?provision s1 database: .*{text}"):
            await call()
    assert len(stand_in.asked) == 2
    stand_in.raw = None
    await port.provision(binding())


async def test_a_corestore_that_is_too_old(stand_in: StandIn) -> None:
    """It cannot provision, so whatever it should give back is gone."""
    stand_in.raw = PostAnswer("Cannot POST", 404)
    port = Corestore(stand_in.url)
    with pytest.raises(Refused, match="provision s1 database: it is too old, it has no /resources/provision"):
        await port.provision(binding())
    await port.deprovision(binding())


async def test_an_answer_that_is_no_json(stand_in: StandIn) -> None:
    """Somebody else answers, maybe only now."""
    stand_in.raw = PostAnswer("<html>canary</html>")
    port = Corestore(stand_in.url)
    for call in calls(port):
        with pytest.raises(Unavailable, match="did not answer in JSON") as caught:
            await call()
        assert "canary" not in traceback_of(caught.value)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_corestore_that_is_starting(stand_in: StandIn, number: int) -> None:
    """Two more tries for those statuses that say so, within one call."""
    call = calls(Corestore(stand_in.url))[number]
    stand_in.once.extend([text_answer({}, 502), text_answer({}, 504)])
    before = trio.current_time()
    await call()
    assert 1.4 < trio.current_time() - before < 5
    assert len(stand_in.asked) == 3
    stand_in.raw = text_answer({}, 503)
    with pytest.raises(Unavailable, match="HTTP status 503"):
        await call()
    assert len(stand_in.asked) == 6
    stand_in.raw = None
    await call()  # it did answer, so it is asked again at once
    assert len(stand_in.asked) == 7


async def test_other_trouble_ends_the_tries(stand_in: StandIn) -> None:
    """What comes after a status of that kind is judged as always."""
    stand_in.once.extend([text_answer({}, 503), text_answer({"error": "bad name"}, 400)])
    with pytest.raises(Refused, match="bad name"):
        await Corestore(stand_in.url).provision(binding())
    assert len(stand_in.asked) == 2


async def test_a_corestore_that_comes_up_meanwhile(nursery: trio.Nursery) -> None:
    """Nobody listens at first: that is tried again."""
    # The socket has a port and does not listen yet, so that nobody else takes the port.
    with trio.socket.socket() as socket:
        await socket.bind(("127.0.0.1", 0))
        port = Corestore(f"http://127.0.0.1:{socket.getsockname()[1]}")

        nursery.start_soon(answer_once, socket, b'"capabilities"', b'{"env":{"A":"b"}}')
        assert (await port.provision(binding())).values == {"A": "b"}


async def test_nobody_waits_for_one_that_does_not_answer(stand_in: StandIn) -> None:
    """One time-out, no second try; then everything fails at once for a while, then it is asked again."""
    port = Corestore(stand_in.url, timeout=0.5, unhealthy_seconds=2.0)
    stand_in.seconds = 60
    with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s"):
        await port.provision(binding())
    with trio.fail_after(1.9):
        for _ in range(20):
            for call in calls(port):
                with pytest.raises(Unavailable, match="unhealthy"):
                    await call()
    assert len(stand_in.asked) == 1
    stand_in.seconds = 0
    await trio.sleep(2.1)
    await port.provision(binding())


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_corestore_that_is_away(nursery: trio.Nursery, hangs_up: bool) -> None:
    """Nobody listens, which is tried three times, or whoever does hangs up, which is not."""
    connections = 0

    async def hang_up(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await stream.receive_some()
        await stream.aclose()

    url = "http://127.0.0.1:9"
    if hangs_up:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    port = Corestore(url)
    before = trio.current_time()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        await port.provision(binding())
    waited = trio.current_time() - before
    assert waited < 1 if hangs_up else 1.4 < waited < 5
    with trio.fail_after(1):
        for call in calls(port):
            with pytest.raises(Unavailable, match="unhealthy"):
                await call()
    assert connections == hangs_up
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("url", "token", "text"), UNUSABLE)
async def test_addresses_and_tokens_that_cannot_be_used(
    stand_in: StandIn, url: str, token: str, text: str
) -> None:
    """They are refused, and not shown."""
    with pytest.raises(Refused, match=text) as caught:
        await Corestore(url.format(port=stand_in.port), token).provision(binding())
    assert "canary" not in traceback_of(caught.value)


async def test_a_config_that_cannot_be_sent(stand_in: StandIn) -> None:
    """It is refused, and not shown."""
    spec = binding(config={"x": {"canary"}})
    with pytest.raises(Refused, match="config cannot be sent") as caught:
        await Corestore(stand_in.url).provision(spec)
    assert "canary" not in traceback_of(caught.value)


WORD = "pa/ss wörd\ncanary-of-config"
GIVEN = "canary-of-answer"
KEY = "-----BEGIN PRIVATE KEY-----\ncanary-of-the-key\n-----END PRIVATE KEY-----\n"
QUOTES = (
    *quotes_of(TOKEN, KEY),
    f"config has {WORD}, and {WORD.upper()}",
    'config has "pa/ss wörd\\ncanary-of-config" or pa%2Fss%20w%C3%B6rd%0Acanary-of-config',
    f"made {GIVEN} already",
    "cannot reach mongodb://user:canary@host:1/db nor http://us@er:can/ary@host",
    *(base64.b64encode(f"{'.' * n}{TOKEN} {WORD} {GIVEN}".encode()).decode() for n in range(3)),
    json.dumps(json.dumps({"config": WORD, "env": GIVEN, "token": TOKEN})),
    "".join(f"%{byte:02x}" for byte in f"{TOKEN} {WORD} {GIVEN}".encode()),
    base64.b64encode(f'{{"password": "{GIVEN}"}}'.encode()).decode()[:30],
    WORD.encode().hex(),
)
WAYS = (
    "not ok",
    "error",
    "bad request",
    "forbidden",
    "unauthorized",
    "not found",
    "crash",
    "not json",
    "slow",
)


@pytest.mark.parametrize("quote", QUOTES, ids=range(len(QUOTES)))
@pytest.mark.parametrize("way", WAYS)
async def test_no_secret_is_ever_told(stand_in: StandIn, way: str, quote: str) -> None:
    """Whatever goes wrong, with whatever the peer quotes: not in an error, nor behind it, nor in a log."""
    port = Corestore(stand_in.url, TOKEN, timeout=0.2, unhealthy_seconds=0)
    env = {"PASSWORD": GIVEN, "LIST": [GIVEN]}
    status = {"bad request": 400, "forbidden": 403, "unauthorized": 401, "not found": 404, "crash": 500}
    stand_in.raw = text_answer({"error": quote, "env": env}, status.get(way, 200))
    match way:
        case "not ok":
            stand_in.raw = text_answer({"ok": False, "message": quote, "environment": env})
        case "not json":
            stand_in.raw = PostAnswer(quote)
        case "slow":
            stand_in.seconds = 60
    told = repr(port) + str(port)
    with capture_logs() as lines:
        provision, deprovision = calls(port, binding(config={"password": WORD, "more": [{"word": WORD}]}))
        for call in (provision,) if way == "not found" else (provision, deprovision):
            with pytest.raises(PortError) as caught:
                await call()
            told += traceback_of(caught.value)
    told = (told + repr(lines)).lower()
    assert "canary" not in told
    assert TOKEN[:8].lower() not in told
    assert WORD[:5] not in told


async def test_what_was_given_once_is_never_told(stand_in: StandIn) -> None:
    """Corestore quotes the credentials of a service, whatever it was asked for."""
    port = Corestore(stand_in.url, TOKEN, timeout=0.2)
    uri = "mongodb://user:canary%2Fpw@db:1/x"
    stand_in.raw = text_answer({"env": {"MONGODB_URI": uri, "S3_SECRET_KEY": GIVEN, "S3_BUCKET": "photos"}})
    await port.provision(binding())
    stand_in.raw = text_answer({"error": f"photos: {uri} canary%2Fpw canary/pw {GIVEN}"}, 500)
    with pytest.raises(PortError, match="photos") as caught:
        await port.snapshot_volume("data", {})
    assert "canary" not in traceback_of(caught.value)


async def test_an_answer_is_not_told_for_one_bad_variable(stand_in: StandIn) -> None:
    """Only the key, even where that is long."""
    stand_in.raw = text_answer({"env": {"K" * 300: [GIVEN], "A": GIVEN}})
    with capture_logs() as lines, pytest.raises(Refused, match=r"the variable K{100} is") as caught:
        await Corestore(stand_in.url, TOKEN).provision(binding(config={"password": WORD}))
    assert "canary" not in traceback_of(caught.value) + repr(lines)
