"""What every source of records promises: one suite, for the memory adapter, a file, and Cloudly on the network.

The last is our adapter on a connection to a stand-in that is built with the real npm packages; once with the methods
that give all records of a kind, once with those for single records only.
"""

import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
import trio
from tests.integration.node_harness import Cloudly, needs_node, start_cloudly

from coreflow.adapters.cloudly import LinkOptions, NetworkCloudly, RetryPolicy
from coreflow.adapters.file import FileCloudly
from coreflow.adapters.memory.cloudly import MemoryCloudly
from coreflow.adapters.net import connect_websocket
from coreflow.domain.errors import InvalidRecord, PortError, Refused, Unavailable
from coreflow.domain.ids import Owner
from coreflow.domain.ports import ControlPlane
from coreflow.domain.swarm.specs import ImageSpec, Stage

pytestmark = pytest.mark.guest

TOKEN = "token"

IMAGE = ImageSpec(
    reference="img:1",
    owner=Owner("s1"),
    stage=Stage.WORKLOADS,
    image_id="img",
    version="1",
    storage_path="images/img-1.tar",
)
ARCHIVE = bytes(range(256)) * 10_000


class Side(Protocol):
    """The other end of a port: what an operator does."""

    @property
    def port(self) -> ControlPlane:
        """The port under test."""
        ...

    async def publish(self, document: object) -> None:
        """Make this the cluster document."""
        ...

    async def store(self, archive: bytes) -> None:
        """Put the archive of `IMAGE` in its place."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.port = self.memory = MemoryCloudly(document_of())

    async def publish(self, document: object) -> None:
        self.memory.set(document)

    async def store(self, archive: bytes) -> None:
        self.memory.archives["img", "1"] = archive


class FileSide:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = FileCloudly(path, poll_seconds=0)

    async def publish(self, document: object) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_bytes(orjson.dumps(document))
        beside.replace(self.path)

    async def store(self, archive: bytes) -> None:
        path = self.path.parent / "images" / "img-1.tar"
        path.parent.mkdir()
        path.write_bytes(archive)


class NetworkSide:
    """What is published is told to the stand-in, which pushes it."""

    def __init__(self, cloudly: Cloudly, folder: Path) -> None:
        self.cloudly, self.folder = cloudly, folder
        self.port = new_port(cloudly)

    async def publish(self, document: object) -> None:
        frame = document if isinstance(document, dict) else {}
        await self.cloudly.know(
            cluster=frame.get("configData"),
            services=frame.get("services"),
            images=frame.get("images", []),
            registries=frame.get("externalRegistries", []),
            bundles=frame.get("secretBundles", []),
            groups=frame.get("secretGroups", []),
            certificates=frame.get("certificates", {}),
        )
        body = {name: frame.get(name) for name in ("configData", "services")}
        await self.cloudly.push("pushClusterConfig", body)

    async def store(self, archive: bytes) -> None:
        path = self.folder / "archive.tar"
        path.write_bytes(archive)
        await self.cloudly.know(archives={"img:1": {"path": str(path), "mode": "read"}})


def new_port(cloudly: Cloudly, token: str = TOKEN, **options: Any) -> NetworkCloudly:
    """Our adapter, not connected yet, with a back-off for tests."""
    dial = partial(connect_websocket, f"http://127.0.0.1:{cloudly.port}")
    retry = RetryPolicy(first=0.05, longest=0.5, refused_first=0.2, refused_longest=0.2)
    return NetworkCloudly(
        dial,
        token,
        wall_clock=time.time,  # noqa: TID251 - as the daemon does
        options=LinkOptions(**{"retry": retry, **options}),
    )


def document_of(**versions: str) -> dict[str, Any]:
    """A cluster document with services of these names and image versions."""
    services = [
        {"id": f"svc-{name}", "data": {"name": name, "imageId": "img", "imageVersion": version}}
        for name, version in versions.items()
    ]
    return {"configData": {"id": "c1"}, "services": services}


BATCH_METHODS = ["getAllImages", "getExternalRegistries", "getSecretBundles", "getSecretGroups"]
PROPOSED = ["getPlatformDesiredState", "getExternalGatewayConfig"]


@pytest.fixture(
    params=[
        "memory",
        "json",
        "yaml",
        pytest.param("cloudly", marks=needs_node),
        pytest.param("cloudly one by one", marks=needs_node),
    ]
)
async def side(request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Side]:
    """A fresh source of records without services, and the other end of it."""
    side: Side
    if request.param == "memory":
        side = MemorySide()
    elif request.param.startswith("cloudly"):
        cloudly = await start_cloudly(nursery)
        await cloudly.know(missing=BATCH_METHODS + PROPOSED if "one" in request.param else [])
        side = NetworkSide(cloudly, tmp_path)
        nursery.start_soon(side.port.run)
        await side.port.link.wait()
    else:  # JSON is YAML, too
        side = FileSide(tmp_path / f"cluster.{request.param}")
    await side.publish(document_of())
    yield side
    nursery.cancel_scope.cancel()


async def services_of(port: ControlPlane) -> Mapping[str, str | None]:
    return {service.name: service.image_version for service in (await port.records()).services}


async def test_what_is_published_is_found(side: Side) -> None:
    """Records are those of the newest document."""
    assert await services_of(side.port) == {}
    await side.publish(document_of(a="1"))
    assert await services_of(side.port) == {"a": "1"}
    await side.publish(document_of(a="2", b="1"))
    assert await services_of(side.port) == {"a": "2", "b": "1"}


async def test_unchanged_records_are_the_same_object(side: Side) -> None:
    """Asking twice, and publishing the same again, gives the very same records."""
    await side.publish(document_of(a="1"))
    before = await side.port.records()
    assert await side.port.records() is before
    await side.publish(document_of(a="1"))
    assert await side.port.records() is before


async def test_an_unchanged_service_stays_the_same_object(side: Side) -> None:
    """A change makes new records of what changed, and of nothing else."""
    await side.publish(document_of(a="1", b="1"))
    before = await side.port.records()
    await side.publish(document_of(a="1", b="2"))
    after = await side.port.records()
    assert after.services[0] is before.services[0]
    assert after.services[1] is not before.services[1]


@pytest.mark.parametrize("document", [[], "text", {}, {"configData": {"id": "c1"}, "services": {}}])
async def test_a_document_that_cannot_be_used_is_invalid(document: object, side: Side) -> None:
    """A document that is broken as a whole is refused, and the next good one is taken. That is no news of a certificate."""
    await side.publish(document)
    with pytest.raises(InvalidRecord):
        await side.port.records()
    with pytest.raises(PortError):
        await side.port.certificate("a.example.com")
    await side.publish(document_of(a="1"))
    assert await services_of(side.port) == {"a": "1"}


async def test_a_bad_record_is_rejected_alone(side: Side) -> None:
    """One record that cannot be decoded leaves the others as they are."""
    document = document_of(a="1", b="1")
    document["services"][0]["data"]["imageVersion"] = ["canary"]
    await side.publish(document)
    records = await side.port.records()
    assert [service.name for service in records.services] == ["b"]
    (rejected,) = (rejected for rejected in records.rejected if rejected.kind == "service")
    assert (rejected.id, rejected.name) == ("svc-a", "a")
    assert "canary" not in repr(rejected)


async def test_an_archive_is_handed_out_whole(side: Side) -> None:
    """The pieces of an archive are its bytes in their order, as often as it is asked for."""
    await side.store(ARCHIVE)
    for _ in range(2):
        async with side.port.archive(IMAGE) as pieces:
            assert b"".join([piece async for piece in pieces]) == ARCHIVE


async def test_a_missing_archive_is_refused_on_entering(side: Side) -> None:
    """Nothing is handed out for an image without an archive; the refusal names the image."""
    archive = side.port.archive(IMAGE)
    with pytest.raises(Refused, match="image img 1"):
        await archive.__aenter__()


async def test_leaving_an_archive_early_is_fine(side: Side) -> None:
    """Whoever has seen enough leaves, and a later reader gets all of it."""
    await side.store(ARCHIVE)
    async with side.port.archive(IMAGE) as pieces:
        await anext(pieces)
    async with side.port.archive(IMAGE) as pieces:
        assert b"".join([piece async for piece in pieces]) == ARCHIVE


async def test_a_change_is_told(side: Side) -> None:
    """Publishing wakes whoever waits, and what it then reads is the new document."""
    async with side.port.changes() as notices:
        for version in ("1", "2"):
            await side.publish(document_of(a=version))
            with trio.fail_after(30):
                await anext(notices)
            assert await services_of(side.port) == {"a": version}


async def test_a_burst_of_changes_is_told_once(side: Side) -> None:
    """Changes that nobody has heard of yet are one change, and the newest document counts."""
    async with side.port.changes() as notices:
        for version in ("1", "2", "3"):
            await side.publish(document_of(a=version))
        with trio.fail_after(30):
            await anext(notices)
        assert await services_of(side.port) == {"a": "3"}
        woken = False

        async def wait() -> None:
            nonlocal woken
            await anext(notices)
            woken = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert not woken


async def test_everybody_hears_of_a_change(side: Side) -> None:
    """Two who wait are both woken, and one who left is not missed."""
    async with side.port.changes():
        pass
    async with side.port.changes() as one, side.port.changes() as other:
        await side.publish(document_of(a="1"))
        with trio.fail_after(30):
            await anext(one)
            await anext(other)


async def test_a_change_while_nobody_waits_is_told_later(side: Side) -> None:
    """What happens between entering and waiting is not lost."""
    async with side.port.changes() as notices:
        await side.publish(document_of(a="1"))
        await side.port.records()
        with trio.fail_after(30):
            await anext(notices)


async def test_faults_come_first_and_once() -> None:
    """The memory adapter raises the errors it was given, one per call of any method, and then works."""
    port = MemoryCloudly(document_of(a="1"), {("img", "1"): ARCHIVE})
    port.faults.extend([Unavailable("away"), Refused("no"), Unavailable("still away")])
    with pytest.raises(Unavailable, match=r"^away$"):
        await port.records()
    with pytest.raises(Refused, match=r"^no$"):
        await port.archive(IMAGE).__aenter__()
    with pytest.raises(Unavailable, match=r"^still away$"):
        await port.changes().__aenter__()
    assert await services_of(port) == {"a": "1"}


async def test_a_document_in_memory_is_a_copy() -> None:
    """Changing a document after it was set changes nothing, as on a wire."""
    document = document_of(a="1")
    port = MemoryCloudly(document)
    document["services"].clear()
    assert await services_of(port) == {"a": "1"}
