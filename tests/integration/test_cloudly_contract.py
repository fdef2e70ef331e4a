"""What every source of records promises: one suite, for the memory adapter and for a file."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
import trio

from coreflow.adapters.file import FileCloudly
from coreflow.adapters.memory.cloudly import MemoryCloudly
from coreflow.domain.errors import InvalidRecord, Refused, Unavailable
from coreflow.domain.ids import Owner
from coreflow.domain.ports import CloudlyPort
from coreflow.domain.specs import ImageSpec, Stage

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
    def port(self) -> CloudlyPort:
        """The port under test."""
        ...

    def publish(self, document: object) -> None:
        """Make this the cluster document."""
        ...

    def store(self, archive: bytes) -> None:
        """Put the archive of `IMAGE` in its place."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.port = self.memory = MemoryCloudly(document_of())

    def publish(self, document: object) -> None:
        self.memory.set(document)

    def store(self, archive: bytes) -> None:
        self.memory.archives["img", "1"] = archive


class FileSide:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.publish(document_of())
        self.port = FileCloudly(path, poll_seconds=0)

    def publish(self, document: object) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_bytes(orjson.dumps(document))
        beside.replace(self.path)

    def store(self, archive: bytes) -> None:
        path = self.path.parent / "images" / "img-1.tar"
        path.parent.mkdir()
        path.write_bytes(archive)


def document_of(**versions: str) -> dict[str, Any]:
    """A cluster document with services of these names and image versions."""
    services = [
        {"id": f"svc-{name}", "data": {"name": name, "imageId": "img", "imageVersion": version}}
        for name, version in versions.items()
    ]
    return {"configData": {"id": "c1"}, "services": services}


@pytest.fixture(params=["memory", "json", "yaml"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    """A fresh source of records without services, and the other end of it."""
    if request.param == "memory":
        yield MemorySide()
    else:  # JSON is YAML, too
        yield FileSide(tmp_path / f"cluster.{request.param}")


async def services_of(port: CloudlyPort) -> Mapping[str, str | None]:
    return {service.name: service.image_version for service in (await port.records()).services}


async def test_what_is_published_is_found(side: Side) -> None:
    """Records are those of the newest document."""
    assert await services_of(side.port) == {}
    side.publish(document_of(a="1"))
    assert await services_of(side.port) == {"a": "1"}
    side.publish(document_of(a="2", b="1"))
    assert await services_of(side.port) == {"a": "2", "b": "1"}


async def test_unchanged_records_are_the_same_object(side: Side) -> None:
    """Asking twice, and publishing the same again, gives the very same records."""
    side.publish(document_of(a="1"))
    before = await side.port.records()
    assert await side.port.records() is before
    side.publish(document_of(a="1"))
    assert await side.port.records() is before


async def test_an_unchanged_service_stays_the_same_object(side: Side) -> None:
    """A change makes new records of what changed, and of nothing else."""
    side.publish(document_of(a="1", b="1"))
    before = await side.port.records()
    side.publish(document_of(a="1", b="2"))
    after = await side.port.records()
    assert after.services[0] is before.services[0]
    assert after.services[1] is not before.services[1]


@pytest.mark.parametrize("document", [[], "text", {}, {"configData": {"id": "c1"}, "services": {}}])
async def test_a_document_that_cannot_be_used_is_invalid(document: object, side: Side) -> None:
    """A document that is broken as a whole is refused, and the next good one is taken."""
    side.publish(document)
    with pytest.raises(InvalidRecord):
        await side.port.records()
    side.publish(document_of(a="1"))
    assert await services_of(side.port) == {"a": "1"}


async def test_a_bad_record_is_rejected_alone(side: Side) -> None:
    """One record that cannot be decoded leaves the others as they are."""
    document = document_of(a="1", b="1")
    document["services"][0]["data"]["imageVersion"] = ["canary"]
    side.publish(document)
    records = await side.port.records()
    assert [service.name for service in records.services] == ["b"]
    (rejected,) = records.rejected
    assert (rejected.id, rejected.name) == ("svc-a", "a")
    assert "canary" not in repr(rejected)


async def test_an_archive_is_handed_out_whole(side: Side) -> None:
    """The pieces of an archive are its bytes in their order, as often as it is asked for."""
    side.store(ARCHIVE)
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
    side.store(ARCHIVE)
    async with side.port.archive(IMAGE) as pieces:
        await anext(pieces)
    async with side.port.archive(IMAGE) as pieces:
        assert b"".join([piece async for piece in pieces]) == ARCHIVE


async def test_a_change_is_told(side: Side) -> None:
    """Publishing wakes whoever waits, and what it then reads is the new document."""
    async with side.port.changes() as notices:
        for version in ("1", "2"):
            side.publish(document_of(a=version))
            with trio.fail_after(30):
                await anext(notices)
            assert await services_of(side.port) == {"a": version}


async def test_a_burst_of_changes_is_told_once(side: Side) -> None:
    """Changes that nobody has heard of yet are one change, and the newest document counts."""
    async with side.port.changes() as notices:
        for version in ("1", "2", "3"):
            side.publish(document_of(a=version))
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
        side.publish(document_of(a="1"))
        with trio.fail_after(30):
            await anext(one)
            await anext(other)


async def test_a_change_while_nobody_waits_is_told_later(side: Side) -> None:
    """What happens between entering and waiting is not lost."""
    async with side.port.changes() as notices:
        side.publish(document_of(a="1"))
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
