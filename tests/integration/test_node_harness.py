"""The Node harness itself: the real packages answer as our notes about the wire say, and the stand-ins obey.

The client here is a WebSocket and `json`, so that nothing of our own protocol code can agree with itself.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from tests.integration.node_harness import (
    Cloudly,
    Coretraffic,
    Json,
    NodeError,
    needs_node,
    start_cloudly,
    start_coretraffic,
)

from coreflow.adapters.net import (
    ABNORMAL,
    Closed,
    Denied,
    Listening,
    Outbound,
    SocketOptions,
    WebSocket,
    connect_websocket,
    http_post,
    run,
    serve_websockets,
)

pytestmark = needs_node
guest = pytest.mark.trio(run=run)
MARKER = "#############CLOSING BIT#############"
STREAM = "##VirtualStream##"
NO_METHOD = "There is no available method for this call on the server side"


class Client:
    """A connection, and a counter for ids."""

    def __init__(self, connection: WebSocket) -> None:
        self.connection = connection
        self._numbers = count()

    def envelope(self, method: str, request: object, **members: Any) -> Json:
        correlation = {"id": f"id-{next(self._numbers)}", "phase": "request"}
        return {"method": method, "request": request, "response": None, "correlation": correlation, **members}

    async def exchange(self, envelope: Json) -> Json:
        await self.connection.send(json.dumps(envelope))
        return await self.receive()

    async def ask(self, method: str, **request: Any) -> Json:
        return await self.exchange(self.envelope(method, request))

    async def receive(self) -> Json:
        with trio.fail_after(20):
            envelope: Json = json.loads(await self.connection.receive())
        return envelope

    async def silence(self, seconds: float = 0.1) -> None:
        with trio.move_on_after(seconds) as scope:
            pytest.fail(f"unexpected: {await self.connection.receive()!r}")
        assert scope.cancelled_caught

    async def log_in(self) -> Json:
        answer = await self.ask("getIdentityByToken", token="token")
        identity: Json = answer["response"]["identity"]
        return identity


@asynccontextmanager
async def connected(
    cloudly: Cloudly, path: str = "", options: SocketOptions | None = None
) -> AsyncIterator[Client]:
    async with connect_websocket(cloudly.url + path, options or SocketOptions()) as connection:
        yield Client(connection)


@guest
async def test_an_answer_is_the_request_completed(nursery: trio.Nursery) -> None:
    """Method, request, ids and unknown members come back; `localData` gives the generation away."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly, "/any/path?x=1") as client:
        envelope = client.envelope(
            "getIdentityByToken", {"token": "token"}, requestInstanceId="i", unknown=[1]
        )
        answer = await client.exchange(envelope)
        identity = answer["response"]["identity"]
        assert answer == {
            **envelope,
            "response": {"identity": identity},
            "correlation": {**envelope["correlation"], "phase": "response"},
            "localData": None,
        }
        assert identity.keys() == {"name", "userId", "type", "role", "expiresAt", "jwt"}
        [connection] = await cloudly.connections()
        assert (connection["url"], connection["tags"]) == ("/any/path?x=1", {})
        [seen] = await cloudly.seen()
        assert (seen["method"], seen["envelope"]) == ("getIdentityByToken", envelope)


@guest
async def test_errors(nursery: trio.Nursery) -> None:
    """Refusals carry text and data, unknown methods a text of their own, and a crash says nothing at all."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        refused = await client.ask("getIdentityByToken", token="wrong")
        assert (refused["error"], refused["response"]) == ({"text": "token is not valid", "data": {}}, None)
        refused = await client.ask("getServices", identity={"jwt": "wrong"})
        assert refused["error"]["data"] == {"hint": "send identity.jwt"}
        unknown = await client.ask("unknownMethod")
        assert (unknown["error"], unknown["response"]) == ({"text": NO_METHOD, "data": {}}, None)
        await cloudly.know(missing=["getSecretBundles"])
        assert (await client.ask("getSecretBundles"))["error"]["text"] == NO_METHOD

        await cloudly.misbehave("getServices", crash=True)
        crashed = await client.ask("getServices")
        assert "error" not in crashed
        assert crashed["response"] is None
        await cloudly.misbehave("getServices", error={"text": "no data"})
        assert (await client.ask("getServices"))["error"] == {"text": "no data"}

        await cloudly.know(generation="3.3.2")
        await cloudly.misbehave("getServices", crash=True)
        crashed = await client.ask("getServices")
        assert crashed["error"] == {"text": "Internal server error", "data": {}}
        assert "localData" not in crashed


@guest
async def test_documents(nursery: trio.Nursery) -> None:
    """Every reading method answers with what the test said, for a valid identity."""
    cloudly = await start_cloudly(nursery)
    record: Json = {"id": "one", "data": {"name": "naïve"}}
    await cloudly.know(
        cluster=record,
        services=[record],
        images=[record],
        registries=[record],
        bundles=[record],
        groups=[record],
        certificates={"example.com": {"id": "cert"}},
        platform={"revision": 1},
        gateway={"type": "dcrouter"},
    )
    expected: dict[str, tuple[Json, Json]] = {
        "getClusterConfig": (
            {},
            {"configData": record, "services": [record], "externalGatewayConfig": {"type": "dcrouter"}},
        ),
        "getServices": ({}, {"services": [record]}),
        "getServiceById": ({"serviceId": "one"}, {"service": record}),
        "getImage": ({"imageId": "one"}, {"image": record}),
        "getAllImages": ({}, {"images": [record]}),
        "getExternalRegistries": ({}, {"registries": [record]}),
        "getExternalRegistryById": ({"id": "one"}, {"registry": record}),
        "getSecretBundles": ({}, {"secretBundles": [record]}),
        "getSecretBundleById": ({"secretBundleId": "one"}, {"secretBundle": record}),
        "getSecretGroups": ({}, {"secretGroups": [record]}),
        "getSecretGroupById": ({"secretGroupId": "one"}, {"secretGroup": record}),
        "getCertificateForDomain": (
            {"domainName": "example.com", "type": "ssl"},
            {"certificate": {"id": "cert"}},
        ),
        "getPlatformDesiredState": ({}, {"desiredState": {"revision": 1}}),
        "reportPlatformBindingStatus": ({"bindingId": "b", "status": {}}, {}),
        "getExternalGatewayConfig": ({}, {"externalGatewayConfig": {"type": "dcrouter"}}),
        "cloudlyStatus": ({}, {}),
    }
    async with connected(cloudly) as client:
        identity = await client.log_in()
        for method, (request, response) in expected.items():
            answer = await client.ask(method, identity=identity, **request)
            assert answer["response"] == response, method
        assert "error" in await client.ask("getImage", identity=identity, imageId="two")
        await cloudly.revoke()
        assert "error" in await client.ask("getServices", identity=identity)


@guest
async def test_a_push_to_those_who_are_tagged(nursery: trio.Nursery) -> None:
    """Tags belong to a connection; a push reaches the tagged ones only, and their answers are understood."""
    cloudly = await start_cloudly(nursery)
    config = {"configData": {"id": "c"}, "services": []}
    async with connected(cloudly) as client, connected(cloudly) as other:
        payload = {"name": "coreflow"}
        tagged = await client.ask("__typedsocket_setTag", name="identity", payload=payload)
        assert tagged["response"] == {"success": True}
        await cloudly.event("tag", name="identity")
        tags = [connection["tags"] for connection in await cloudly.connections()]
        assert sorted(map(len, tags)) == [0, 1]
        assert {"identity": payload} in tags

        async def answer() -> None:
            push = await client.receive()
            assert (push["method"], push["request"], push["response"]) == ("pushClusterConfig", config, None)
            assert push["correlation"]["phase"] == "request"
            assert push["correlation"]["id"].startswith("uni_")
            push["correlation"]["phase"], push["response"] = "response", {}
            await client.connection.send(json.dumps(push))
            refused = await client.receive()
            refused["correlation"]["phase"], refused["error"] = "response", {"text": "no", "data": {"a": 1}}
            await client.connection.send(json.dumps(refused))

        nursery.start_soon(answer)
        [answered] = await cloudly.push("pushClusterConfig", config, tag="identity")
        assert answered["response"] == {}
        [refused] = await cloudly.push("triggerServerAction", {"actionName": "reboot"}, tag="identity")
        assert (refused["error"], refused["data"]) == ("no", {"a": 1})
        [late] = await cloudly.push("pushPlatformConfig", {}, tag="identity", seconds=0.1)
        assert late["error"] == "no answer within 0.1 s"
        assert (await client.receive())["method"] == "pushPlatformConfig"
        await other.silence()
        await cloudly.flood("pushClusterConfig", config, 1000, tag="identity")
        numbers = [(await client.receive())["correlation"]["id"] for _ in range(1000)]
        assert numbers == [f"flood-{number}" for number in range(1, 1001)]
        await client.ask("__typedsocket_removeTag", name="identity")
        assert await cloudly.push("pushClusterConfig", config, tag="identity") == []


MALFORMED = [
    "nonsense", "null", "1", '"text"', "[]", "{}",
    '{"method": "getServices"}',
    '{"method": "getServices", "correlation": {"id": "x"}}',
    '{"method": "getServices", "request": {}, "response": null, "correlation": {"id": "x", "phase": "response"}}',
]  # fmt: skip


@guest
async def test_bad_input_costs_nothing(nursery: trio.Nursery) -> None:
    """Messages that make no sense get no answer and leave the connection open."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        for text in MALFORMED:
            await client.connection.send(text)
        await client.silence()
        await client.log_in()


@guest
async def test_a_message_that_is_too_long(nursery: trio.Nursery) -> None:
    """One of 101 MiB closes with 1009."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        with suppress(Closed):  # at once, or when listening for the answer
            await client.connection.send(b" " * (101 * 1024 * 1024))
        with pytest.raises(Closed) as closed:
            await client.receive()
    assert closed.value.code == 1009


@guest
async def test_manners(nursery: trio.Nursery) -> None:
    """Answers come late, never, twice, with a foreign id, or ask to come again; a number of times, or from now on."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        ask = partial(client.ask, "getIdentityByToken", token="token")
        send = json.dumps(client.envelope("getIdentityByToken", {"token": "token"}))
        await cloudly.misbehave("getIdentityByToken", silent=True, times=1)
        await client.connection.send(send)
        await client.silence()
        await cloudly.misbehave("getIdentityByToken", delayMs=150, times=1)
        start = trio.current_time()
        await ask()
        assert trio.current_time() - start > 0.14
        await cloudly.misbehave("getIdentityByToken", twice=True, times=1)
        assert await ask() == await client.receive()
        await cloudly.misbehave("getIdentityByToken", foreignId=True, times=1)
        assert (await ask())["correlation"]["id"] == "uni_000000000000000000000000"
        await cloudly.misbehave("getIdentityByToken", retry={"waitForMs": 1, "reason": "warming up"}, times=1)
        assert (await ask())["retry"] == {"waitForMs": 1, "reason": "warming up"}
        assert "retry" not in await ask()
        await cloudly.misbehave("getIdentityByToken", response={"identity": 1})
        assert (await ask())["response"] == (await ask())["response"] == {"identity": 1}
        await cloudly.behave()
        assert (await ask())["response"]["identity"] != 1
        assert len(await cloudly.seen("getIdentityByToken", forget=True)) == 9
        assert await cloudly.seen() == []
        assert await cloudly.send("anything") == 1
        assert await client.connection.receive() == "anything"


# ---------------------------------------------------------------- streams


def decode(chunk: Any) -> bytes | str:
    """Bytes in any of their spellings; anything else as it is."""
    match chunk:
        case {"type": "Buffer", "data": list(data)}:
            return bytes(data)
        case dict():
            return bytes(chunk[str(index)] for index in range(len(chunk)))
        case _:
            assert isinstance(chunk, str)
            return chunk


async def pull(client: Client, cloudly: Cloudly, path: Path, **archive: Any) -> str:
    """Ask for an image; returns the id of its stream."""
    await cloudly.know(archives={"img:1": {"path": str(path), **archive}})
    identity = await client.log_in()
    answer = await client.ask("pullImageVersion", identity=identity, imageId="img", versionString="1")
    placeholder = answer["response"]["imageStream"]
    assert placeholder["_isVirtualStream"] is True
    stream_id: str = placeholder["streamId"]
    return stream_id


async def question(client: Client, stream_id: str, purpose: str, **envelope: Any) -> Json:
    packet = {"streamId": stream_id, "cycleId": "c", "cycle": "request", "mainPurpose": purpose}
    more: Json = {"keepAlive": True} if purpose == "keepAlive" else {"next": False, "backpressure": False}
    answer = await client.exchange({**client.envelope(STREAM, {**packet, **more}), **envelope})
    assert answer["correlation"]["phase"] == "request"
    return answer


async def download(client: Client, stream_id: str, purpose: str, **envelope: Any) -> list[bytes | str]:
    """Ask until the marker, or until there is nothing more."""
    chunks: list[bytes | str] = []
    with trio.fail_after(10):
        while not chunks or chunks[-1] != MARKER:
            answer = (await question(client, stream_id, purpose, **envelope))["response"]
            if answer is None:
                break
            if "chunkData" in answer:
                chunks.append(decode(answer["chunkData"]))
            elif not answer["next"]:
                await trio.sleep(0.01)
    return chunks


IMAGE = os.urandom(100_001)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file that is no multiple of any chunk."""
    path = tmp_path / "image.tar"
    path.write_bytes(IMAGE)
    return path


@guest
@pytest.mark.parametrize("encoding", ["buffer", "index"])
async def test_a_download_from_a_peer_that_answers_read(
    nursery: trio.Nursery, image: Path, encoding: str
) -> None:
    """The whole file arrives, then the marker; the stream is alive until then, and not after."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        stream_id = await pull(client, cloudly, image, mode="read", chunkBytes=4096, encoding=encoding)
        alive = (await question(client, stream_id, "keepAlive"))["response"]
        assert alive["keepAlive"] is True
        *chunks, marker = await download(client, stream_id, "read")
        assert marker == MARKER
        assert b"".join(chunk for chunk in chunks if isinstance(chunk, bytes)) == IMAGE
        assert (await question(client, stream_id, "keepAlive"))["response"]["keepAlive"] is False


@guest
async def test_a_download_from_a_peer_that_hands_out_items_for_empty_chunks(
    nursery: trio.Nursery, image: Path
) -> None:
    """Nothing comes for `read`, everything for a chunk with a prefilled response, though it says that it is dead."""
    cloudly = await start_cloudly(nursery)
    await cloudly.know(generation="3.3.2")
    async with connected(cloudly) as client:
        stream_id = await pull(client, cloudly, image, mode="3.3.2", chunkBytes=4096)
        answer = await question(client, stream_id, "read")
        assert (answer["response"], answer["localData"]) == (None, None)
        *chunks, marker = await download(client, stream_id, "chunk", response={"backpressure": False})
        assert marker == MARKER
        assert b"".join(chunk for chunk in chunks if isinstance(chunk, bytes)) == IMAGE


@guest
async def test_a_download_from_the_package_as_it_is(nursery: trio.Nursery, image: Path) -> None:
    """3.3.0 answers `read` with nothing, and loses every other item of those that it can be made to hand out."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        stream_id = await pull(client, cloudly, image, mode="3.3.0", chunkBytes=10_000)
        while not (await question(client, stream_id, "feedback"))["response"]["next"]:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)
        await trio.sleep(0.2)  # for the rest of the file
        assert await download(client, stream_id, "read") == []
        chunks = await download(client, stream_id, "chunk", response={"backpressure": False})
        assert chunks[:5] == [IMAGE[start : start + 10_000] for start in range(10_000, 100_000, 20_000)]
        assert chunks[5:] == [MARKER]


@guest
async def test_a_frame_for_an_unknown_stream_comes_back(nursery: trio.Nursery) -> None:
    """Unchanged, even if it is an answer itself: two peers that do this would never stop."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        for response in (None, {"streamId": "no", "cycle": "response"}):
            envelope = client.envelope(STREAM, {"streamId": "no", "mainPurpose": "keepAlive"})
            envelope["response"] = response
            assert await client.exchange(envelope) == {**envelope, "localData": None}


# ---------------------------------------------------------------- connections


@guest
async def test_connections_that_end(nursery: trio.Nursery) -> None:
    """The stand-in drops connections, stops and starts again, freezes and dies, as told."""
    cloudly = await start_cloudly(nursery)
    async with connected(cloudly) as client:
        assert await cloudly.drop(code=4000, reason="maintenance") == 1
        with pytest.raises(Closed, match=r"maintenance \(4000\)"):
            await client.receive()
    async with connected(cloudly) as client:
        assert await cloudly.drop() == 1
        with pytest.raises(Closed) as closed:
            await client.receive()
        assert closed.value.code == ABNORMAL
    async with connected(cloudly) as client:
        await cloudly.stop()
        with pytest.raises(Closed):
            await client.receive()
    await cloudly.start()
    async with connected(cloudly, options=SocketOptions(heartbeat=0.5)) as client:
        await client.log_in()
        cloudly.freeze()
        with pytest.raises(Closed, match="did not answer a ping"):
            await client.receive()
        cloudly.thaw()
    async with connected(cloudly) as client:
        await cloudly.kill()
        with pytest.raises(Closed):
            await client.receive()
    again = await start_cloudly(nursery, port=cloudly.port)
    async with connected(again) as client:
        await client.log_in()


@guest
async def test_tls(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The stand-in speaks TLS with a certificate of the test's."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    certificate.private_key_pem.write_to_path(paths["key"])
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    cloudly = await start_cloudly(nursery, tls=paths)
    address = f"https://127.0.0.1:{cloudly.port}"
    async with connect_websocket(address, via=Outbound(ca_file=Path(paths["ca"]))) as connection:
        await Client(connection).log_in()


@guest
async def test_plain_http(nursery: trio.Nursery) -> None:
    """The same envelopes go through a POST; typed errors are answers, and only nonsense is a bad request."""
    cloudly = await start_cloudly(nursery)
    address = cloudly.url + "/typedrequest"
    envelope: Json = {"method": "getIdentityByToken", "request": {"token": "wrong"}, "response": None}
    asked = {**envelope, "correlation": {"id": "h", "phase": "request"}}
    answer = (await http_post(address, asked)).body
    assert answer["error"] == {"text": "token is not valid", "data": {}}
    assert list(answer) == sorted(answer)
    assert (await http_post(address, envelope)).body is None
    with pytest.raises(Denied) as denied:
        await http_post(address, 1)
    assert (denied.value.status, denied.value.body) == (400, {"error": "Invalid request"})
    with pytest.raises(Denied, match="HTTP status 404"):
        await http_post(cloudly.url, asked)


# ---------------------------------------------------------------- the other way round


class Hub:
    """The least that a server for Coretraffic has to do."""

    def __init__(self) -> None:
        self.tagged, self._tagged = trio.open_memory_channel[tuple[WebSocket, Json]](10)
        self.answers, self._answers = trio.open_memory_channel[Json](10)

    async def handle(self, connection: WebSocket) -> None:
        while True:
            envelope = json.loads(await connection.receive())
            if envelope["correlation"]["phase"] == "response":
                await self.answers.send(envelope)
                continue
            known = envelope["method"] == "__typedsocket_setTag"
            outcome: Json = (
                {"response": {"success": True}} if known else {"error": {"text": NO_METHOD, "data": {}}}
            )
            envelope["correlation"]["phase"] = "response"
            await connection.send(json.dumps({**envelope, **outcome}))
            if known:
                await self.tagged.send((connection, envelope["request"]))

    async def tag(self) -> tuple[WebSocket, Json]:
        with trio.fail_after(10):
            return await self._tagged.receive()

    async def answer(self) -> Json:
        with trio.fail_after(10):
            return await self._answers.receive()


async def serve(nursery: trio.Nursery, hub: Hub) -> str:
    listening: Listening = await nursery.start(serve_websockets, "127.0.0.1", 0, hub.handle)
    return f"http://127.0.0.1:{listening.port}"


def update(number: int) -> str:
    routes = [{"hostName": "example.com", "destinationIps": ["10.0.0.2"], "destinationPorts": [8080]}]
    correlation = {"id": f"uni_{number}", "phase": "request"}
    request = {"reverseConfigs": routes}
    envelope = {"method": "updateRouting", "request": request, "response": None, "correlation": correlation}
    return json.dumps({**envelope, "requestInstanceId": "i"})


@guest
@pytest.mark.parametrize("generation", ["3", "8"])
@pytest.mark.parametrize("encoder", ["plain", "smartjson"])
@pytest.mark.parametrize("socket", ["ws", "builtin"])
async def test_coretraffic(nursery: trio.Nursery, socket: str, encoder: str, generation: str) -> None:
    """It dials, tags itself and answers updates, with any socket, encoder and generation of envelopes."""
    hub = Hub()
    url = await serve(nursery, hub)
    options = {"socket": socket, "encoder": encoder, "generation": generation}
    coretraffic = await start_coretraffic(nursery, url, **options, payload={"a": 1})
    await coretraffic.connect()
    connection, tag = await hub.tag()
    assert tag == {"name": "coretraffic", "payload": {"a": 1}}
    await connection.send(update(1))
    answer = await hub.answer()
    assert answer["response"] == {"status": "ok", "errorText": ""}
    assert answer["requestInstanceId"] == "i"
    assert answer["correlation"]["id"] == "uni_1"
    assert ("localData" in answer) is (generation == "3")
    assert (await coretraffic.received())[0]["reverseConfigs"][0]["hostName"] == "example.com"

    await coretraffic.answer(error={"text": "no", "data": {}})
    await connection.send(update(2))
    assert (await hub.answer())["error"] == {"text": "no", "data": {}}
    with pytest.raises(NodeError) as refused:
        await coretraffic.request("executeServiceBackup", {})
    assert refused.value.text == NO_METHOD


@guest
@pytest.mark.parametrize("socket", ["ws", "builtin"])
async def test_coretraffic_hears_why_it_is_dropped(nursery: trio.Nursery, socket: str) -> None:
    """A client in the middle of a message that is too long gets to know it: 1009, not a reset connection."""
    hub = Hub()
    coretraffic: Coretraffic = await start_coretraffic(nursery, await serve(nursery, hub), socket=socket)
    await coretraffic.connect()
    await coretraffic.ask("send", bytes=101 * 1024 * 1024)
    assert (await coretraffic.event("close"))["code"] == 1009
