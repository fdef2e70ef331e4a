"""Our two TypedSocket ends against the real npm packages: Cloudly's manners on one, Coretraffic's on the other."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
from attrs import frozen
from structlog.testing import capture_logs
from tests.integration.node_harness import Cloudly, NodeError, needs_node, start_cloudly, start_coretraffic
from tests.unit.adapters.typedsocket.test_asks import MALFORMED

from coreflow.adapters.cloudly import ImageLimits, LinkOptions, NetworkCloudly, RetryPolicy
from coreflow.adapters.internal import PER_ADDRESS, InternalOptions, InternalServer
from coreflow.adapters.net import Closed, SocketOptions, connect_websocket, http_get
from coreflow.adapters.net.peer import Peer
from coreflow.adapters.net.typedsocket import PeerError, TimedOut, Timing
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ids import Owner
from coreflow.domain.swarm.specs import ImageSpec, Stage

pytestmark = [needs_node, pytest.mark.guest]

CONFIG = {"id": "c1", "data": {"name": "c1"}}
SERVICE = {"id": "svc-a", "data": {"name": "a", "registryTarget": {"imageUrl": "a:1"}}}
QUICK = RetryPolicy(first=0.05, longest=0.5, refused_first=0.2, refused_longest=0.2, steady=0.0)


@pytest.fixture
async def cloudly(nursery: trio.Nursery) -> AsyncIterator[Cloudly]:
    """A Cloudly with one service."""
    cloudly = await start_cloudly(nursery)
    await cloudly.know(cluster=CONFIG, services=[SERVICE])
    yield cloudly
    nursery.cancel_scope.cancel()


async def connected(nursery: trio.Nursery, cloudly: Cloudly, **options: Any) -> NetworkCloudly:
    """Our adapter, connected."""
    heartbeat = options.pop("heartbeat", 20.0)
    dial = partial(connect_websocket, cloudly.url, SocketOptions(heartbeat=heartbeat))
    token = options.pop("token", "token")
    settings = {
        "wall_clock": time.time,  # noqa: TID251 - as the daemon does
        "options": LinkOptions(retry=QUICK, timing=options.pop("timing", None)),
        **options,
    }
    port = NetworkCloudly(dial, token, **settings)
    nursery.start_soon(port.run)
    await port.link.wait()
    return port


async def names(port: NetworkCloudly) -> list[str]:
    return [service.name for service in (await port.records()).services]


async def until(condition: Any) -> None:
    """Wait until something holds."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - it is looked at from outside
            await trio.sleep(0.01)


async def reconnected(port: NetworkCloudly, before: object) -> None:
    await until(lambda: port.link.live is not None and port.link.live is not before)


# Cloudly


async def test_every_connection_is_logged_in_and_tagged(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """However it ended: with a goodbye, without one, or because the server was started again."""
    port = await connected(nursery, cloudly)
    for end in (cloudly.drop, partial(cloudly.drop, code=1001, reason="bye"), cloudly.stop):
        before = port.link.live
        await end()
        if end == cloudly.stop:
            await cloudly.start()
        await reconnected(port, before)
        (connection,) = await cloudly.connections()
        assert connection["tags"]["identity"]["role"] == "cluster"
    assert len(await cloudly.seen("getIdentityByToken")) == 4
    assert await names(port) == ["a"]


async def test_a_goodbye_that_quotes_the_token(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """It is passed on without it."""
    token = "canary-0123456789"
    await cloudly.know(tokens=[token])
    with capture_logs() as lines:
        port = await connected(nursery, cloudly, token=token)
        before = port.link.live
        await cloudly.drop(code=4001, reason=f"{token} and jwt-1 are refused")
        await reconnected(port, before)
    (line,) = (line for line in lines if line["event"] == "connection to Cloudly lost")
    assert "are refused" in line["reason"]
    assert token not in str(lines)


async def test_a_revoked_identity_is_replaced(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """One more login, the request once more, and the new identity in the tag."""
    port = await connected(nursery, cloudly)
    await port.records()
    await cloudly.revoke()
    assert await names(port) == ["a"]
    assert len(await cloudly.seen("getIdentityByToken")) == 2
    (connection,) = await cloudly.connections()
    assert connection["tags"]["identity"]["jwt"] == "jwt-2"


async def test_a_short_lived_identity_is_renewed_in_time(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """Nobody ever sends one that has expired."""
    await cloudly.know(identitySeconds=2, identityHasBeginning=True)
    port = await connected(nursery, cloudly)
    for _ in range(25):
        assert await names(port) == ["a"]
        await trio.sleep(0.1)
    assert not (await port.records()).rejected
    assert len(await cloudly.seen("getIdentityByToken")) >= 3


@pytest.mark.parametrize(
    "manner",
    [{"twice": True}, {"retry": {"waitForMs": 20, "reason": "busy"}, "times": 2}, {"delayMs": 200}],
    ids=["twice", "retry", "late"],
)
async def test_odd_answers_are_answers(
    nursery: trio.Nursery, cloudly: Cloudly, manner: dict[str, Any]
) -> None:
    """Answered twice, later, or at the third attempt: the records are there."""
    port = await connected(nursery, cloudly)
    await cloudly.misbehave("getClusterConfig", **manner)
    assert await names(port) == ["a"]


@pytest.mark.parametrize("manner", [{"silent": True}, {"foreignId": True}])
async def test_an_answer_that_never_comes(
    nursery: trio.Nursery, cloudly: Cloudly, manner: dict[str, Any]
) -> None:
    """Known records stay; after the second time the connection is made anew, and all is well when it behaves."""
    port = await connected(nursery, cloudly, timing=Timing(request=0.3))
    assert await names(port) == ["a"]
    before = port.link.live
    await cloudly.know(services=[])
    await cloudly.misbehave("getServices", **manner)
    for _ in range(2):
        assert await names(port) == ["a"]
    await reconnected(port, before)
    await cloudly.behave()
    assert await names(port) == []


async def test_nothing_known_and_no_answer(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """The first look says what is wrong."""
    port = await connected(nursery, cloudly, timing=Timing(request=0.3))
    await cloudly.misbehave("getClusterConfig", silent=True)
    with pytest.raises(TimedOut, match="getClusterConfig was not answered"):
        await port.records()


async def test_a_half_open_connection_is_found(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """A peer that does not even answer pings is given up, and connected to again when it is back."""
    port = await connected(nursery, cloudly, heartbeat=0.4)
    before = port.link.live
    cloudly.freeze()
    await until(lambda: port.link.live is None)
    cloudly.thaw()
    await reconnected(port, before)
    assert await names(port) == ["a"]


async def test_garbage_from_cloudly_is_ignored(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """The connection stays open, and nothing is answered."""
    port = await connected(nursery, cloudly)
    before = port.link.live
    await cloudly.seen(forget=True)
    for text in MALFORMED.values():
        if isinstance(text, str):
            await cloudly.send(text)
    assert await names(port) == ["a"]
    assert port.link.live is before
    assert {seen["method"] for seen in await cloudly.seen()} <= {
        "getClusterConfig",
        "getServices",
        "getAllImages",
        "getExternalRegistries",
        "getSecretBundles",
        "getSecretGroups",
        "getPlatformDesiredState",
        "getExternalGatewayConfig",
        "cloudlyStatus",
    }


async def test_what_cloudly_may_ask(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """Pushes are answered with an empty object, actions on the host with a no, anything else is not known."""
    await connected(nursery, cloudly)
    for method, body, expected in (
        ("pushClusterConfig", {"configData": CONFIG, "services": []}, {}),
        ("pushPlatformConfig", {"desiredState": {"bindings": []}}, {}),
        ("triggerServerAction", {"actionName": "reboot", "payload": None}, {"actionConfirmed": False}),
        ("getOrSendServerMetrics", {"getOrSend": "get"}, {}),
    ):
        (answer,) = await cloudly.push(method, body)
        assert answer["response"] == expected
    (answer,) = await cloudly.push("selfDestruct", {})
    assert "no available method" in answer["error"]


async def test_certificates_by_domain(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """One that is there comes with its key; one that is not is refused by name."""
    certificate = {"id": "x", "domainName": "a.example.com", "privateKey": "canary", "publicKey": "pem"}
    await cloudly.know(certificates={"a.example.com": certificate})
    port = await connected(nursery, cloudly)
    found = await port.certificate("a.example.com")
    assert (found.public_key, found.private_key) == ("pem", "canary")
    assert "canary" not in repr(found)
    with pytest.raises(Refused, match=r"certificate of b\.example\.com"):
        await port.certificate("b.example.com")


async def test_log_lines_and_signs_of_life(nursery: trio.Nursery, cloudly: Cloudly) -> None:
    """Cloudly gets to see what is logged, and that we are there."""
    port = await connected(nursery, cloudly)
    port.logs.offer(1, "warning", {"event": "held", "name": "a", "level": "warning"})
    await cloudly.event("request", method="cloudlyStatus")
    await cloudly.event("request", method="log")
    (line,) = (await cloudly.seen("log"))[0]["envelope"]["request"]["logPackages"]
    assert (line["level"], line["message"], line["timestamp"]) == ("warn", "held name=a", 1)


IMAGE = ImageSpec(
    reference="img:1", owner=Owner("s"), stage=Stage.WORKLOADS, image_id="img", version="1", storage_path=None
)


@pytest.mark.parametrize(
    ("archive", "limits", "error", "text"),
    [
        ({"endless": True}, ImageLimits(stall=1.5), Unavailable, "nothing of its archive arrived for 1.5 s"),
        ({"endless": True}, ImageLimits(seconds=1.5), Unavailable, "did not arrive in 1.5 s"),
        ({}, ImageLimits(bytes=100_000), Refused, "larger than 100000 bytes"),
        ({"mode": "3.3.0"}, ImageLimits(), Refused, "cannot deliver streams"),
    ],
)
async def test_limits_of_an_internal_image(
    nursery: trio.Nursery,
    cloudly: Cloudly,
    tmp_path: Any,
    archive: dict[str, Any],
    limits: ImageLimits,
    error: type[Exception],
    text: str,
) -> None:
    """Too large, too slow, stalled, or from a peer that loses data: an error that names the image."""
    (tmp_path / "archive").write_bytes(bytes(1_000_000))
    await cloudly.know(archives={"img:1": {"path": str(tmp_path / "archive"), "mode": "read", **archive}})
    port = await connected(nursery, cloudly, image_limits=limits)
    with pytest.raises(error, match=f"image img 1: .*{text}"):
        await size_of_archive(port)
    assert await names(port) == ["a"]


async def test_an_image_that_drips(nursery: trio.Nursery, cloudly: Cloudly, tmp_path: Any) -> None:
    """One that arrives far too slowly is given up: a pass waits for it."""
    (tmp_path / "archive").write_bytes(bytes(10_000_000))
    await cloudly.know(archives={"img:1": {"path": str(tmp_path / "archive")}})
    port = await connected(nursery, cloudly, image_limits=ImageLimits(stall=0.5, rate=1e9))
    with pytest.raises(Unavailable, match="image img 1: its archive arrives with less than"):
        await size_of_archive(port, partial(trio.sleep, 0.3))


async def test_an_image_is_cut_off_in_the_middle(
    nursery: trio.Nursery, cloudly: Cloudly, tmp_path: Any
) -> None:
    """The reader hears of it, and the next attempt gets all of it."""
    (tmp_path / "archive").write_bytes(bytes(10_000_000))
    await cloudly.know(archives={"img:1": {"path": str(tmp_path / "archive")}})
    port = await connected(nursery, cloudly)
    before = port.link.live
    with pytest.raises(Unavailable, match="image img 1"):
        await size_of_archive(port, cloudly.drop)
    await reconnected(port, before)
    assert await size_of_archive(port) == 10_000_000


async def size_of_archive(
    port: NetworkCloudly, meanwhile: Callable[[], Awaitable[object]] | None = None
) -> int:
    """Read the archive of the image; `meanwhile` is called at every piece."""
    size = 0
    async with port.archive(IMAGE) as pieces:
        async for piece in pieces:
            size += len(piece)
            if meanwhile is not None:
                await meanwhile()
    return size


# Coretraffic


@frozen
class Inside:
    """Our internal server, and where it listens."""

    server: InternalServer
    url: str

    async def tagged(self) -> Peer:
        """The one connection that is tagged, once it is."""
        await until(lambda: self.server.tagged("coretraffic"))
        (peer,) = self.server.tagged("coretraffic")
        return peer


@pytest.fixture
async def inside(nursery: trio.Nursery) -> AsyncIterator[Inside]:
    """An internal server that lets everybody have any tag but `secret`."""

    async def admit(_: str) -> Any:
        return lambda name: name != "secret"

    server = InternalServer(admit)
    port = await nursery.start(server.run, "127.0.0.1", 0)
    yield Inside(server, f"http://127.0.0.1:{port}")
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": "smartjson"},
        {"socket": "builtin"},
        {"generation": "8"},
        {"socket": "builtin", "encoder": "smartjson", "generation": "8"},
    ],
    ids=lambda options: "-".join(options.values()) or "ws-plain-3",
)
async def test_a_coretraffic_is_told_its_routes(
    nursery: trio.Nursery, inside: Inside, options: dict[str, str]
) -> None:
    """It tags itself, is asked by us, and its answer is understood; so is its refusal; gone, it holds no tag."""
    node = await start_coretraffic(nursery, inside.url, payload={"version": 1}, **options)
    await node.connect()
    peer = await inside.tagged()
    assert peer.tags == {"coretraffic": {"version": 1}}
    routes = [{"hostName": "ä.example.com", "destinationIps": ["10.0.0.1"], "destinationPorts": [80]}]
    answered = await peer.request("updateRouting", {"reverseConfigs": routes})
    assert answered.response == {"status": "ok", "errorText": ""}
    assert await node.received() == [{"reverseConfigs": routes}]
    await node.answer(error={"text": "not now", "data": {}})
    with pytest.raises(PeerError, match="not now"):
        await peer.request("updateRouting", {"reverseConfigs": []})
    with pytest.raises(PeerError, match="no available method"):
        await peer.request("nothing", {})
    with pytest.raises(NodeError, match="not available on this server"):
        await node.request("executeServiceRestore", {})
    await node.ask("close")
    await until(lambda: not inside.server.tagged("coretraffic"))


async def test_a_connection_that_dies_while_it_is_asked(nursery: trio.Nursery, inside: Inside) -> None:
    """The request fails at once."""
    node = await start_coretraffic(nursery, inside.url)
    await node.connect()
    peer = await inside.tagged()
    await node.answer(silent=True)
    nursery.start_soon(node.ask, "terminate")
    with trio.fail_after(10), pytest.raises(Unavailable, match="before the connection ended"):
        await peer.request("updateRouting", {"reverseConfigs": []})


async def test_a_tag_that_is_not_for_everybody(nursery: trio.Nursery, inside: Inside) -> None:
    """It is refused, said with the address, and the connection goes on."""
    node = await start_coretraffic(nursery, inside.url, tag="secret")
    with capture_logs() as lines:
        await node.connect()
    assert inside.server.tagged("secret") == ()
    (line,) = (line for line in lines if line["event"] == "tag refused")
    assert (line["log_level"], line["tag"]) == ("warning", "secret")
    assert line["peer"].startswith("127.0.0.1:")


async def test_malformed_messages_to_the_server(inside: Inside) -> None:
    """The connection stays open and nothing is answered but what can be understood; the next request works."""
    async with connect_websocket(f"{inside.url}/any/path?x=1") as socket:
        for text in MALFORMED.values():
            if isinstance(text, str):
                await socket.send(text)
        envelope = {
            "method": "__typedsocket_setTag",
            "request": {"name": "t"},
            "correlation": {"id": "1", "phase": "request"},
        }
        await socket.send(json.dumps(envelope))
        with trio.fail_after(10):
            answer = json.loads(await socket.receive())
        assert (answer["correlation"], answer["response"]) == (
            {"id": "1", "phase": "response"},
            {"success": True},
        )


async def test_a_message_over_the_limit_closes(nursery: trio.Nursery, inside: Inside) -> None:
    """101 MiB end the connection with 1009; 90 MiB are read."""
    node = await start_coretraffic(nursery, inside.url)
    await node.connect()
    await node.ask("send", bytes=90 * 1024 * 1024)
    peer = await inside.tagged()
    assert (await peer.request("updateRouting", {"reverseConfigs": []})).response
    await node.ask("send", bytes=101 * 1024 * 1024)
    assert (await node.event("close"))["code"] == 1009


async def test_one_address_cannot_take_every_place(inside: Inside) -> None:
    """Beyond its share, which is twice as large for one that is expected, it is turned away."""
    async with AsyncExitStack() as stack:
        for _ in range(2 * PER_ADDRESS):
            await stack.enter_async_context(connect_websocket(inside.url))
        with pytest.raises(Unavailable, match="503"):
            await stack.enter_async_context(connect_websocket(inside.url))
    async with connect_websocket(inside.url):
        pass


async def test_strangers_are_said_once_and_not_read_at_length(nursery: trio.Nursery) -> None:
    """A tag that is refused again and again is one line; a long message of theirs is not even looked at."""

    async def admit(_: str) -> Any:
        return lambda name: name == "other"

    server = InternalServer(admit)
    port = await nursery.start(server.run, "127.0.0.1", 0)
    node = await start_coretraffic(nursery, f"http://127.0.0.1:{port}", tag="other")
    with capture_logs() as lines:
        await node.connect()
        for _ in range(5):
            await node.request("__typedsocket_setTag", {"name": "coretraffic"})
        assert await node.request("__typedsocket_setTag", {"name": "other"}) == {"success": True}
        await node.ask("send", text=json.dumps({"x": "y" * 2_000_000}))
        assert (await node.event("close"))["code"] == 1009
    assert len([line for line in lines if line["event"] == "tag refused"]) == 1
    assert not [line for line in lines if line["event"] == "tagged" and line["log_level"] == "info"]
    nursery.cancel_scope.cancel()


async def test_a_host_that_is_none() -> None:
    """It is said in one line."""
    with pytest.raises(Refused, match="not a host name"):
        await http_get("http://a..b/")


async def test_health_and_crowds(nursery: trio.Nursery) -> None:
    """`/healthz` answers; a connection too many is turned away, and the others go on."""

    async def admit(_: str) -> Any:
        return lambda _: True

    server = InternalServer(admit, options=InternalOptions(max_connections=2))
    port = await nursery.start(server.run, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}"
    assert (await http_get(f"{url}/healthz")).body == {"status": "ok"}
    async with connect_websocket(url) as one, connect_websocket(url):
        with pytest.raises(Unavailable, match="503"):
            async with connect_websocket(url):
                pass
        await one.send("{}")
    with pytest.raises(Closed):
        await one.receive()
    nursery.cancel_scope.cancel()
