"""What every Corestore promises of volumes, snapshots and the archive: one suite, for memory and for our adapter.

The adapter talks to a stand-in in a process of its own, which keeps everything on disk, and is wiped before each test. What
only the adapter does stands below the suite.
"""

import re
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.integration.corestore_server import CorestoreServer, running_corestore
from tests.integration.http_stand_in import answer_once, traceback_of
from tests.integration.test_corestore_contract import TOKEN

from coreflow.adapters.corestore import Corestore
from coreflow.adapters.corestore import methods as m
from coreflow.adapters.memory import MemoryCorestore
from coreflow.domain.backup.snapshots import ArchiveObject, Snapshot, VolumeSpec
from coreflow.domain.errors import PortError, Refused, Unavailable, Unreached, Untouched
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.bindings import CAPABILITIES, BindingSpec
from coreflow.domain.ports import CorestorePort

pytestmark = pytest.mark.guest

S1, S2 = ServiceId("s1"), ServiceId("s2")
TAGS = {"backupId": "b1", "serviceId": "s1"}
FILES = {"a": b"one", "b": b"", "deep/er/c": bytes(range(256)) * 40}
BIG = 64 * 1024 * 1024
Files = Mapping[str, bytes]


class Side(Protocol):
    """The other end of the port."""

    @property
    def port(self) -> CorestorePort:
        """The port under test."""
        ...

    def fill(self, name: str, files: Files) -> None:
        """Make these the content of a volume."""
        ...

    def files(self, name: str) -> Files:
        """The content of a volume."""
        ...

    def fill_resource(self, capability: str, files: Files) -> None:
        """Make these the content of what the only service has."""
        ...

    def resource_files(self, capability: str) -> Files:
        """What it has."""
        ...

    def lose(self, *, prefix: str = "") -> None:
        """Take away the archive, or what of it begins like this."""
        ...

    def damage(self, path: str) -> None:
        """Change one bit of a file of the archive."""
        ...

    async def fail(self, method: str, kind: type[PortError]) -> None:
        """Fail the next call of a method, without any effect."""
        ...

    async def fail_late(self, method: str) -> None:
        """Have the next call of a method do what it is to do, and fail."""
        ...

    async def cut(self, method: str, after: int) -> None:
        """Break the next transfer off after so many bytes."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.port = MemoryCorestore()

    def fill(self, name: str, files: Files) -> None:
        self.port.volume_data[name] = dict(files)

    def files(self, name: str) -> Files:
        return self.port.volume_data[name]

    def fill_resource(self, capability: str, files: Files) -> None:
        self.port.resource_data[S1, capability] = dict(files)

    def resource_files(self, capability: str) -> Files:
        return self.port.resource_data[S1, capability]

    def lose(self, *, prefix: str = "") -> None:
        for path in [path for path in self.port.archive if path.startswith(prefix)]:
            del self.port.archive[path]

    def damage(self, path: str) -> None:
        self.port.archive[path] = _flipped(self.port.archive[path])

    async def fail(self, method: str, kind: type[PortError]) -> None:
        self.port.faults_of[method].append(kind("as wished"))

    async def fail_late(self, method: str) -> None:
        self.port.late_faults[method].append(Unavailable("as wished"))

    async def cut(self, method: str, after: int) -> None:
        self.port.cuts.append(after)


PATHS = {
    "volumes": ("GET", "^/volumes$"),
    "create_volume": ("POST", "^/volumes/create$"),
    "snapshot_volume": ("POST", "^/volumes/snapshot$"),
    "restore_volume": ("POST", "^/volumes/restore$"),
    "snapshot_resource": ("POST", "^/resources/snapshot$"),
    "restore_resource": ("POST", "^/resources/restore$"),
    "snapshots": ("GET", "^/snapshots$"),
    "archive_objects": ("GET", "^/archive/objects$"),
    "read_object": ("GET", "^/archive/objects/."),
    "write_object": ("PUT", "^/archive/objects/."),
}


class NetworkSide:
    def __init__(self, server: CorestoreServer) -> None:
        self.server = server
        self.port = Corestore(server.url, TOKEN)

    def fill(self, name: str, files: Files) -> None:
        _write(self.server.volume_dir(name), files)

    def files(self, name: str) -> Files:
        return _read(self.server.volume_dir(name))

    def fill_resource(self, capability: str, files: Files) -> None:
        _write(self._resource(capability), files)

    def resource_files(self, capability: str) -> Files:
        return _read(self._resource(capability))

    def _resource(self, capability: str) -> Path:
        (folder,) = self.server.resource_dir(capability).iterdir()
        return folder

    def lose(self, *, prefix: str = "") -> None:
        for path in _read(self.server.archive):
            if path.startswith(prefix):
                (self.server.archive / path).unlink()

    def damage(self, path: str) -> None:
        place = self.server.archive / path
        place.write_bytes(_flipped(place.read_bytes()))

    async def fail(self, method: str, kind: type[PortError]) -> None:
        verb, path = PATHS[method]
        status = 400 if kind is Refused else 500
        await self.server.fault(
            kind="status", method=verb, path=path, status=status, text="as wished", times=1
        )

    async def fail_late(self, method: str) -> None:
        verb, path = PATHS[method]
        await self.server.fault(kind="after", method=verb, path=path, times=1)

    async def cut(self, method: str, after: int) -> None:
        verb, path = PATHS[method]
        await self.server.fault(kind="cut", method=verb, path=path, after_bytes=after, times=1)


def _flipped(content: bytes) -> bytes:
    return bytes((content[0] ^ 1,)) + content[1:]


def _write(folder: Path, files: Files) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    for path in _read(folder).keys() - files.keys():
        (folder / path).unlink()


def _read(folder: Path) -> Files:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CorestoreServer]:
    """The stand-in of all tests, with whatever the last one left in it."""
    with running_corestore(tmp_path_factory.mktemp("corestore") / "data", token=TOKEN) as server:
        yield server


@pytest.fixture(params=["memory", "network"])
def place(request: pytest.FixtureRequest) -> CorestoreServer | None:
    """Where a Corestore is: nowhere (in memory), or in the stand-in."""
    return request.getfixturevalue("server") if request.param == "network" else None


@pytest.fixture
async def side(place: CorestoreServer | None) -> Side:
    """A fresh Corestore, empty, and the other end of it."""
    return MemorySide() if place is None else await _fresh(place)


@pytest.fixture
async def network(server: CorestoreServer) -> NetworkSide:
    """The stand-in, empty, for what only the adapter does."""
    return await _fresh(server)


async def _fresh(server: CorestoreServer) -> NetworkSide:
    await server.wipe()
    return NetworkSide(server)


def volume(name: str = "v1", service: ServiceId = S1, **more: Any) -> VolumeSpec:
    """A volume of a service."""
    return VolumeSpec(name=name, service_id=service, mount_path="/data", **more)


def binding(capability: str, service: ServiceId = S1) -> BindingSpec:
    """A binding of a service."""
    return BindingSpec(id=f"b-{service}", service_id=service, service_name=service, capability=capability)


def described(path: str, content: bytes) -> ArchiveObject:
    """An archive object with this content."""
    return ArchiveObject(path=path, size=len(content), sha256=sha256(content).hexdigest())


class Chunks:
    """These, one by one."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = iter(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


async def copy_of(port: CorestorePort, obj: ArchiveObject, into: bytearray) -> None:
    """As much of an archive object as is given out."""
    async with port.read_object(obj) as pieces:
        async for piece in pieces:
            into += piece


async def content_of(port: CorestorePort, obj: ArchiveObject) -> bytes:
    """A whole archive object."""
    async with port.read_object(obj) as pieces:
        return b"".join([piece async for piece in pieces])


async def filled(side: Side, files: Files = FILES, name: str = "v1") -> Snapshot:
    """Make a volume with content, and take a snapshot of it."""
    await side.port.create_volume(volume(name))
    side.fill(name, files)
    return await side.port.snapshot_volume(name, TAGS)


async def paths(port: CorestorePort) -> set[str]:
    """Of all archive objects."""
    return {obj.path for obj in await port.archive_objects()}


# ---------------------------------------------------------------- the suite: volumes


async def test_volumes(side: Side) -> None:
    """They are listed with whose they are and how much is in them. Made again, they stay what they are."""
    assert await side.port.volumes() == ()
    await side.port.create_volume(volume("v1", options={"serviceId": "s1"}, labels={"x": "y"}))
    await side.port.create_volume(volume("v2", S2))
    side.fill("v1", {"a": b"12345"})
    await side.port.create_volume(volume("v1", S2))
    assert side.files("v1") == {"a": b"12345"}
    found = {one.name: one for one in await side.port.volumes()}
    assert {name: one.service_id for name, one in found.items()} == {"v1": S1, "v2": S2}
    assert found["v1"].size_bytes == 5


async def test_a_snapshot_tells_what_it_is(side: Side) -> None:
    """Taken twice there are two, and the list has them as they were told, the older one first."""
    first = await filled(side)
    second = await side.port.snapshot_volume("v1", {})
    assert first.id != second.id
    assert (first.kind, first.name, first.belongs_to) == ("volume", "v1", S1)
    assert first.tags == TAGS
    assert first.size_bytes == sum(map(len, FILES.values()))
    assert 1_600_000_000_000 < first.created_ms <= second.created_ms
    assert set(map(repr, await side.port.snapshots())) == {repr(first), repr(second)}


async def test_snapshots_of_one_service(side: Side) -> None:
    """By id; none of another."""
    one = await filled(side)
    await side.port.create_volume(volume("v2", S2))
    two = await side.port.snapshot_volume("v2", {"serviceId": "s2"})
    assert await side.port.snapshots(S1) == (one,)
    assert await side.port.snapshots(S2) == (two,)
    assert await side.port.snapshots(ServiceId("s3 & more?")) == ()
    assert len(await side.port.snapshots()) == 2


async def test_a_restore_is_exact(side: Side) -> None:
    """What was changed, removed or added since is as it was; and again; other volumes are left alone."""
    snapshot = await filled(side)
    await side.port.create_volume(volume("v2"))
    side.fill("v2", {"other": b"x"})
    side.fill("v1", {"a": b"two", "new": b"y", "deep/new": b"z"})
    for _ in range(2):
        await side.port.restore_volume("v1", snapshot.id)
        assert side.files("v1") == FILES
    assert side.files("v2") == {"other": b"x"}
    assert (await side.port.snapshots()) == (snapshot,)


async def test_what_is_not_there(side: Side) -> None:
    """No such volume, snapshot, or snapshot of that kind: refused, and nothing is touched."""
    with pytest.raises(Refused, match=r"snapshot volume v1: .*no such volume"):
        await side.port.snapshot_volume("v1", {})
    snapshot = await filled(side)
    with pytest.raises(Untouched, match=r"restore volume v2: .*no such volume"):
        await side.port.restore_volume("v2", snapshot.id)
    with pytest.raises(Untouched, match=r"restore volume v1: .*no snapshot other"):
        await side.port.restore_volume("v1", "other")
    await side.port.provision(binding("database"))
    taken = await side.port.snapshot_resource(S1, "database", TAGS)
    with pytest.raises(Untouched, match="is one of database"):
        await side.port.restore_volume("v1", taken.id)
    with pytest.raises(Untouched, match="is one of volume"):
        await side.port.restore_resource(S1, "database", snapshot.id)
    assert side.files("v1") == FILES


@pytest.mark.parametrize("capability", CAPABILITIES)
async def test_databases_and_buckets(side: Side, capability: str) -> None:
    """As volumes, by service and capability."""
    await side.port.provision(binding(capability))
    side.fill_resource(capability, FILES)
    snapshot = await side.port.snapshot_resource(S1, capability, TAGS)
    assert (snapshot.kind, snapshot.belongs_to, snapshot.tags) == (capability, S1, TAGS)
    assert await side.port.snapshots(S1) == (snapshot,)
    side.fill_resource(capability, {"new": b"x"})
    await side.port.restore_resource(S1, capability, snapshot.id)
    assert side.resource_files(capability) == FILES


async def test_resources_that_are_not_there(side: Side) -> None:
    """Not provisioned, or nothing that can be: refused."""
    with pytest.raises(Refused, match="snapshot s1 database"):
        await side.port.snapshot_resource(S1, "database", {})
    with pytest.raises(Untouched, match="restore s1 database"):
        await side.port.restore_resource(S1, "database", "x")
    with pytest.raises(Refused, match="snapshot s1 queue"):
        await side.port.snapshot_resource(S1, "queue", {})
    with pytest.raises(Refused, match="restore s1 queue"):
        await side.port.restore_resource(S1, "queue", "x")


# ---------------------------------------------------------------- the suite: the archive


async def test_the_archive_is_the_snapshots(side: Side) -> None:
    """Lost, there are none, and a restore is refused. Written back, everything is there again."""
    first = await filled(side)
    side.fill("v1", {**FILES, "a": b"two"})
    second = await side.port.snapshot_volume("v1", TAGS)
    objects = await side.port.archive_objects()
    kept = {obj: await content_of(side.port, obj) for obj in objects}
    assert all(described(obj.path, content) == obj for obj, content in kept.items())
    needed = await side.port.archive_objects([second.id])
    assert set(needed) < set(objects)
    assert set(await side.port.archive_objects([first.id, second.id, first.id])) == set(objects)

    side.lose()
    assert await side.port.snapshots() == ()
    assert await side.port.archive_objects() == ()
    with pytest.raises(Refused, match="restore volume v1"):
        await side.port.restore_volume("v1", first.id)
    assert side.files("v1") == {**FILES, "a": b"two"}

    for obj in needed:
        await side.port.write_object(obj, Chunks(kept[obj]))
    assert await side.port.snapshots(S1) == (second,)
    side.fill("v1", {})
    await side.port.restore_volume("v1", second.id)
    assert side.files("v1") == {**FILES, "a": b"two"}
    for obj in objects:
        await side.port.write_object(obj, Chunks(kept[obj]))
    await side.port.restore_volume("v1", first.id)
    assert side.files("v1") == FILES


@pytest.mark.parametrize("prefix", ["packs/", "index/"])
async def test_an_archive_that_lacks_something(side: Side, prefix: str) -> None:
    """Refused before anything is touched, whether it is gone or another one."""
    snapshot = await filled(side)
    side.fill("v1", {"new": b"x"})
    path = next(path for path in sorted(await paths(side.port)) if path.startswith(prefix))
    side.damage(path)
    with pytest.raises(Refused, match="restore volume v1"):
        await side.port.restore_volume("v1", snapshot.id)
    side.lose(prefix=prefix)
    with pytest.raises(Refused, match="restore volume v1"):
        await side.port.restore_volume("v1", snapshot.id)
    assert side.files("v1") == {"new": b"x"}
    assert await side.port.snapshots() == (snapshot,)


@pytest.mark.parametrize(
    "path", ["x", "packs/a b/ü%2F.pack", "a+b", "q?x=1&y#z", "é/日本/;:@=,'(~)!*$", "%2e%2e/%", "a..b/.c"]
)
async def test_paths(side: Side, path: str) -> None:
    """Whatever characters they have, they come back the same."""
    obj = described(path, b"content")
    await side.port.write_object(obj, Chunks(b"content"))
    assert await side.port.archive_objects() == (obj,)
    assert await content_of(side.port, obj) == b"content"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "a\nb",
        "a\x00",
        "x" * 2000,
    ],
)
async def test_paths_that_lead_elsewhere(side: Side, path: str) -> None:
    """They are refused, and nothing is written."""
    obj = described(path, b"content")
    with pytest.raises(Refused):
        await side.port.write_object(obj, Chunks(b"content"))
    with pytest.raises(Refused):
        await content_of(side.port, obj)
    assert await side.port.archive_objects() == ()


@pytest.mark.parametrize("sizes", [(), (0, 0), (1,), (0, 3, 0), (100_000,) * 20, (3_000_000,), (1,) * 2000])
async def test_content_of_any_size(side: Side, sizes: Iterable[int]) -> None:
    """In whichever chunks it comes, it is the same; written again, too."""
    chunks = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    content = b"".join(chunks)
    obj = described("x", content)
    for _ in range(2):
        await side.port.write_object(obj, Chunks(*chunks))
    assert await side.port.archive_objects() == (obj,)
    assert await content_of(side.port, obj) == content


async def test_other_content_is_there(side: Side) -> None:
    """It stays."""
    obj = described("x", b"one")
    await side.port.write_object(obj, Chunks(b"one"))
    with pytest.raises(Refused, match="write archive object x: other content is there"):
        await side.port.write_object(described("x", b"two"), Chunks(b"two"))
    assert await content_of(side.port, obj) == b"one"


LONG = b"x" * 2_000_000


@pytest.mark.parametrize(
    ("wanted", "chunks"),
    [
        (b"one", (b"two",)),
        (b"one", (b"on",)),
        (b"one", ()),
        (b"one", (b"one", b"!")),
        (b"", (b"!",)),
        (LONG, (LONG[1:], b"y")),
        (LONG, (LONG[1:],)),
        (LONG, (LONG, b"y")),
    ],
)
async def test_chunks_that_are_not_as_described(side: Side, wanted: bytes, chunks: tuple[bytes, ...]) -> None:
    """Refused, and nothing is kept."""
    with pytest.raises(Refused, match="write archive object x: the chunks are"):
        await side.port.write_object(described("x", wanted), Chunks(*chunks))
    assert await side.port.archive_objects() == ()


@pytest.mark.parametrize("sent", [0, 1, 2_000_000, 4_000_000])
@pytest.mark.parametrize("error", [Unavailable("mine"), ValueError("mine"), OSError(5, "mine")])
async def test_what_the_chunks_raise(side: Side, sent: int, error: Exception) -> None:
    """It comes out as it is, and nothing is kept, even where all but the end was sent."""

    async def break_off() -> AsyncIterator[bytes]:
        for _ in range(sent // 1_000_000):
            yield b"x" * 1_000_000
        yield b"x" * (sent % 1_000_000)
        raise error

    with pytest.raises(type(error)) as caught:
        await side.port.write_object(described("x", b"x" * 4_000_000), break_off())
    assert caught.value is error
    assert await side.port.archive_objects() == ()


async def test_an_object_that_is_not_there(side: Side) -> None:
    """Entering is refused."""
    with pytest.raises(Refused, match=r"read archive object x: .*no (such object|archive object x)"):
        async with side.port.read_object(described("x", b"one")):
            pytest.fail("entered")


@pytest.mark.parametrize(
    ("wanted", "there"),
    [(b"one", b"two"), (b"one", b"ones"), (b"", b"one"), (LONG, LONG[1:] + b"y"), (LONG, LONG + b"y")],
)
async def test_an_object_that_is_another_one(side: Side, wanted: bytes, there: bytes) -> None:
    """Refused before the end is given out."""
    await side.port.write_object(described("x", there), Chunks(there))
    got = bytearray()
    with pytest.raises(Refused, match="read archive object x"):
        await copy_of(side.port, described("x", wanted), got)
    assert len(got) < len(there)


async def test_transfers_that_break_off(side: Side) -> None:
    """Unavailable, and nothing is kept of what was written; it works again afterwards."""
    obj = described("x", LONG)
    await side.cut("write_object", 1_000_000)
    with pytest.raises(Unavailable, match="write archive object x"):
        await side.port.write_object(obj, Chunks(LONG[:900_000], LONG[900_000:]))
    assert await side.port.archive_objects() == ()
    await side.port.write_object(obj, Chunks(LONG))
    await side.cut("read_object", 1_000_000)
    got = bytearray()
    with pytest.raises(Unavailable, match="read archive object x"):
        await copy_of(side.port, obj, got)
    assert len(got) <= 1_000_000
    assert await content_of(side.port, obj) == LONG


async def test_transfers_that_are_given_up(side: Side) -> None:
    """At any time: what was half written is not there, what was half read is read again."""
    obj = described("x", LONG)
    for given in (0, 100_000, 1_900_000):

        async def never_end(given: int = given) -> AsyncGenerator[bytes, None]:
            yield LONG[:given]
            await trio.sleep_forever()

        with trio.move_on_after(0.1) as scope:
            async with aclosing(never_end()) as chunks:
                await side.port.write_object(obj, chunks)
        assert scope.cancelled_caught
        assert await side.port.archive_objects() == ()
    await side.port.write_object(obj, Chunks(LONG))
    async with side.port.read_object(obj) as pieces:
        async for piece in pieces:
            assert LONG.startswith(piece)
            break
    with pytest.raises(ZeroDivisionError):
        async with side.port.read_object(obj) as pieces:
            raise ZeroDivisionError
    assert await content_of(side.port, obj) == LONG


# ---------------------------------------------------------------- the suite: trouble


async def everything(port: CorestorePort) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every method of this part, each of which can be called again and again."""
    await port.create_volume(volume())
    await port.provision(binding("database"))
    volume_snapshot = await port.snapshot_volume("v1", TAGS)
    snapshot = await port.snapshot_resource(S1, "database", TAGS)
    obj = described("x", b"content")
    await port.write_object(obj, Chunks(b"content"))

    async def write() -> None:
        await port.write_object(obj, Chunks(b"content"))

    return {
        "volumes": port.volumes,
        "create_volume": partial(port.create_volume, volume()),
        "snapshot_volume": partial(port.snapshot_volume, "v1", TAGS),
        "restore_volume": partial(port.restore_volume, "v1", volume_snapshot.id),
        "snapshot_resource": partial(port.snapshot_resource, S1, "database", TAGS),
        "restore_resource": partial(port.restore_resource, S1, "database", snapshot.id),
        "snapshots": port.snapshots,
        "archive_objects": port.archive_objects,
        "read_object": partial(content_of, port, obj),
        "write_object": write,
    }


@pytest.mark.parametrize("kind", [Unavailable, Refused])
async def test_faults_pass(side: Side, kind: type[PortError]) -> None:
    """Each method raises what the peer's trouble means, and works again afterwards."""
    calls = await everything(side.port)
    assert calls.keys() == PATHS.keys()
    for method, call in calls.items():
        await side.fail(method, kind)
        with pytest.raises(kind, match="as wished"):
            await call()
        await call()


async def test_a_snapshot_that_may_be_there(side: Side) -> None:
    """Taken, but the answer was lost: there is one more, not two, and it is found by its tags."""
    await everything(side.port)
    for number, method in enumerate(("snapshot_volume", "snapshot_resource")):
        await side.fail_late(method)
        tags = {"backupId": f"late {number}"}
        with pytest.raises(Unavailable):
            await (
                side.port.snapshot_volume("v1", tags)
                if method == "snapshot_volume"
                else side.port.snapshot_resource(S1, "database", tags)
            )
        assert [one.tags for one in await side.port.snapshots()].count(tags) == 1


async def test_what_may_have_been_done_may_be_done_again(side: Side) -> None:
    """A volume that is there already, a restore that was done, an object that has arrived."""
    calls = await everything(side.port)
    before = await paths(side.port)
    for method in ("create_volume", "restore_volume", "restore_resource", "write_object"):
        await side.fail_late(method)
        with pytest.raises(Unavailable):
            await calls[method]()
        await calls[method]()
    assert await paths(side.port) == before


# ---------------------------------------------------------------- memory alone


async def test_memory_waits_where_it_is_told_to() -> None:
    """A call that is held has been counted and has done nothing yet."""
    memory = MemoryCorestore()
    memory.hold["create_volume"] = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.create_volume, volume())
        await trio.testing.wait_all_tasks_blocked()
        assert (memory.counts["create_volume"], memory.volume_data) == (1, {})
        memory.hold["create_volume"].set()
    assert memory.volume_data == {"v1": {}}


async def test_memory_shares_packs() -> None:
    """The same content is kept once, in pieces."""
    memory = MemoryCorestore()
    for name in ("v1", "v2"):
        await memory.create_volume(volume(name))
        memory.volume_data[name] = {"a": b"x" * 1_500_000, "b": b"x" * 1_500_000}
        await memory.snapshot_volume(name, {})
    assert len([path for path in memory.archive if path.startswith("packs/")]) == 2


# ---------------------------------------------------------------- the adapter alone


async def test_the_token_is_wrong(network: NetworkSide) -> None:
    """Every method says so."""
    calls = await everything(network.port)
    port = Corestore(network.server.url, "other")
    for name in calls:
        call = (await _replaced(calls, port))[name]
        with pytest.raises(Refused, match="token mismatch: CORESTORE_API_TOKEN"):
            await call()


async def _replaced(
    calls: Mapping[str, Callable[[], Awaitable[object]]], port: CorestorePort
) -> dict[str, Callable[[], Awaitable[object]]]:
    """The same calls of another port."""
    obj = described("x", b"content")

    async def write() -> None:
        await port.write_object(obj, Chunks(b"content"))

    own: dict[str, Callable[[], Awaitable[object]]] = {
        "write_object": write,
        "read_object": partial(content_of, port, obj),
    }
    return {
        name: own[name]
        if name in own
        else partial(getattr(port, name), *(call.args if isinstance(call, partial) else ()))
        for name, call in calls.items()
    }


@pytest.mark.parametrize(("status", "text"), [(404, "not found"), (404, "Cannot POST /x"), (405, "whatever")])
async def test_a_corestore_that_is_too_old(network: NetworkSide, status: int, text: str) -> None:
    """The text names the path that it has not. What it knows to be missing is another matter."""
    calls = await everything(network.port)
    await network.server.fault(kind="status", status=status, text=text)
    for name, call in calls.items():
        with pytest.raises(Refused, match="it is too old, it has no /") as caught:
            await call()
        assert getattr(
            m.API,
            {"volumes": "list_volumes", "snapshots": "list_snapshots", "archive_objects": "list_objects"}.get(
                name, name
            ),
        ).path in str(caught.value)


async def test_other_paths(network: NetworkSide) -> None:
    """An embedding program can say where everything is."""
    api = evolve(m.API, list_volumes=evolve(m.LIST_VOLUMES, path="/api/volumes"))
    port = Corestore(network.server.url, TOKEN, api=api)
    with pytest.raises(Refused, match="it is too old, it has no /api/volumes"):
        await port.volumes()
    assert (await network.server.requests("/api/"))[0]["path"] == "/api/volumes"


async def transfer(port: CorestorePort, method: str, obj: ArchiveObject, content: bytes) -> None:
    """Read an object, or write it."""
    if method == "read_object":
        await content_of(port, obj)
    else:
        await port.write_object(obj, Chunks(content))


@pytest.mark.parametrize("method", ["read_object", "write_object"])
@pytest.mark.parametrize("at", [0, 1_000_000, len(LONG) - 1])
async def test_a_bit_that_flips_on_the_way(network: NetworkSide, method: str, at: int) -> None:
    """It does not arrive: refused, on whichever side it is seen."""
    obj = described("x", LONG)
    if method == "read_object":
        await network.port.write_object(obj, Chunks(LONG))
    verb, path = PATHS[method]
    await network.server.fault(kind="flip", method=verb, path=path, after_bytes=at, times=1)
    with pytest.raises(Refused, match="digest"):
        await transfer(network.port, method, obj, LONG)
    assert await paths(network.port) == ({"x"} if method == "read_object" else set())
    await network.port.write_object(obj, Chunks(LONG))
    assert await content_of(network.port, obj) == LONG


@pytest.mark.parametrize("status", [507, 500])
async def test_the_disk_is_full(network: NetworkSide, status: int) -> None:
    """Refused, with the text: asking again does not make room."""
    calls = await everything(network.port)
    for method in ("create_volume", "snapshot_volume", "restore_volume", "snapshot_resource", "write_object"):
        verb, path = PATHS[method]
        await network.server.fault(
            kind="status", method=verb, path=path, status=status, text="no space left on device", times=1
        )
        with pytest.raises(Refused, match="no space left on device"):
            await calls[method]()
    await network.server.fault(kind="full", path="^/archive/objects/big", after_bytes=1_000_000, times=1)
    with pytest.raises(Refused, match="no space left on device"):
        await network.port.write_object(described("big", LONG), Chunks(LONG))
    assert "big" not in await paths(network.port)


@pytest.mark.parametrize("method", ["read_object", "write_object"])
@pytest.mark.parametrize("at", [0, 9_000_000])
async def test_a_transfer_that_stalls(network: NetworkSide, method: str, at: int) -> None:
    """Unavailable when no byte moves for too long; a slow one goes on."""
    content = b"x" * 20_000_000
    obj = described("x", content)
    port = Corestore(network.server.url, TOKEN, timeout=0.2, stall=0.2)
    if method == "read_object":
        await network.port.write_object(obj, Chunks(content))
    verb, path = PATHS[method]
    await network.server.fault(kind="hang", method=verb, path=path, after_bytes=at, times=1)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
        await transfer(port, method, obj, content)
    await network.server.release()
    await network.port.write_object(obj, Chunks(content))
    assert await content_of(network.port, obj) == content


async def test_a_source_may_take_its_time(network: NetworkSide) -> None:
    """Only the peer must not stall."""

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(2):
            await trio.sleep(0.5)
            yield LONG[:1_000_000]

    port = Corestore(network.server.url, TOKEN, stall=0.4)
    await port.write_object(described("x", LONG), slowly())
    assert await content_of(port, described("x", LONG)) == LONG


async def test_a_request_that_takes_too_long(network: NetworkSide) -> None:
    """It is not begun again, and the next call is made as if nothing had been."""
    calls = await everything(network.port)
    port = Corestore(network.server.url, TOKEN, timeout=0.5)
    await network.server.reset()
    await network.server.fault(kind="hang", path="^/(volumes|resources|snapshots)")
    quick = await _replaced(calls, port)

    async def give_up(name: str) -> None:
        with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s"):
            await quick[name]()

    async with trio.open_nursery() as nursery:
        for name in ("volumes", "snapshot_volume", "restore_volume", "snapshots", "restore_resource"):
            nursery.start_soon(give_up, name)
    assert len(await network.server.requests()) == 5
    await network.server.release()
    await network.port.volumes()


async def test_a_corestore_that_is_starting(network: NetworkSide) -> None:
    """What may be repeated is asked for again, three times at most; snapshots and transfers are not."""
    calls = await everything(network.port)
    await network.server.reset()
    for verb, path in PATHS.values():
        await network.server.fault(kind="status", method=verb, path=path, status=503, times=1)
    once = ("snapshot_volume", "snapshot_resource", "read_object", "write_object")

    async def call(name: str) -> None:
        if name in once:
            with pytest.raises(Unavailable, match="HTTP status 503: it went wrong"):
                await calls[name]()
        else:
            await calls[name]()

    async with trio.open_nursery() as nursery:
        for name in calls:
            nursery.start_soon(call, name)
    requests = await network.server.requests()
    for name, (verb, path) in PATHS.items():
        asked = [one for one in requests if one["method"] == verb and re.search(path, one["path"])]
        assert len(asked) == (1 if name in once else 2), name


async def test_a_restore_that_may_still_go_on(network: NetworkSide) -> None:
    """Whoever stands between says that it takes long: it is not begun once more."""
    calls = await everything(network.port)
    await network.server.reset()
    await network.server.fault(kind="status", path="restore", status=504)
    for name in ("restore_volume", "restore_resource"):
        with pytest.raises(Unavailable, match="HTTP status 504"):
            await calls[name]()
    assert len(await network.server.requests()) == 2


async def test_a_corestore_that_comes_up_meanwhile(nursery: trio.Nursery) -> None:
    """Nobody listens at first, so there is no snapshot yet: that is tried again."""
    with trio.socket.socket() as socket:
        await socket.bind(("127.0.0.1", 0))
        port = Corestore(f"http://127.0.0.1:{socket.getsockname()[1]}")

        nursery.start_soon(answer_once, socket, b'"tags"', b'[{"id": "one"}]')
        snapshot = await port.snapshot_volume("v1", TAGS)
    assert (snapshot.id, snapshot.kind, snapshot.name, snapshot.tags) == ("one", "volume", "v1", TAGS)


class Fixed:
    """A server of bare connections that answers every request in the same way, and keeps the heads."""

    def __init__(
        self, answer: object = None, status: int = 200, head: str = "", raw: bytes | None = None
    ) -> None:
        self.body = orjson.dumps(answer) if raw is None else raw
        self.status, self.head = status, head
        self.heads: list[str] = []
        self.url = ""

    async def start(self, nursery: trio.Nursery) -> "Fixed":
        """Serve until the nursery ends."""
        (listener,) = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        return self

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some()
            self.heads.append(data.partition(b"\r\n\r\n")[0].decode())
            length = "" if "Content-Length" in self.head else f"Content-Length: {len(self.body)}\r\n"
            head = f"HTTP/1.1 {self.status} x\r\n{length}{self.head}\r\n"
            try:
                await stream.send_all(head.encode() + self.body)
                with trio.move_on_after(0.2):
                    async for _ in stream:
                        pass
            except trio.BrokenResourceError:
                pass


async def test_snapshots_of_others_are_left_out(nursery: trio.Nursery) -> None:
    """Also when Corestore does not care whose are asked for. Those of nobody known are there for who asks by id."""
    listed = [
        {"id": "1", "kind": "volume", "serviceId": "s1"},
        {"id": "2", "kind": "volume", "serviceId": "s2", "tags": {"serviceId": "s1"}},
        {"id": "3", "kind": "volume", "tags": {"serviceId": "s1"}},
        {"id": "4", "kind": "volume"},
    ]
    server = await Fixed(listed).start(nursery)
    port = Corestore(server.url, TOKEN)
    assert [one.id for one in await port.snapshots(S1)] == ["1", "3", "4"]
    assert [one.id for one in await port.snapshots(ServiceId("a b&c"))] == ["4"]
    assert len(await port.snapshots()) == 4
    asked = [head.splitlines()[0] for head in server.heads]
    assert asked == [
        "GET /snapshots?serviceId=s1 HTTP/1.1",
        "GET /snapshots?serviceId=a%20b%26c HTTP/1.1",
        "GET /snapshots HTTP/1.1",
    ]
    assert all(f"Authorization: Bearer {TOKEN}" in head for head in server.heads)
    nursery.cancel_scope.cancel()


async def test_an_archive_that_is_not_known_in_whole(nursery: trio.Nursery) -> None:
    """A list with something that cannot be used is refused; no list at all is no answer."""
    fine = {"path": "x", "size": 1, "sha256": "0" * 64}
    server = await Fixed({"objects": [fine, {**fine, "path": "../y"}]}).start(nursery)
    with pytest.raises(Refused, match="list archive objects: the list of the archive has an entry"):
        await Corestore(server.url).archive_objects()
    answers: tuple[object, ...] = ({}, None, {"objects": None}, {"objects": {}}, "x", 7)
    for answer in answers:
        other = await Fixed(answer).start(nursery)
        port = Corestore(other.url)
        for call in (port.archive_objects, port.snapshots, port.volumes):
            with pytest.raises(Unavailable, match="not a list"):
                await call()
        with pytest.raises(Unavailable, match="no snapshot that can be used"):
            await port.snapshot_volume("v1", {})
        assert len(other.heads) == 4
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("server", "error", "text"),
    [
        (Fixed(raw=b"one"), None, ""),
        (Fixed(raw=b"one", head=f"X-Corestore-SHA256: {'0' * 64}\r\n"), Refused, "not what was described"),
        (Fixed(raw=b"ones"), Refused, "not what was described"),
        (Fixed(raw=b"on", head="Content-Length: 3\r\n"), Unavailable, "127.0.0.1"),
        (
            Fixed(raw=b"on", head="X-Content-Length: 1\r\nConnection: close\r\n"),
            Unavailable,
            "broke off after 2 of 3",
        ),
        (
            Fixed(raw=b"ones", head="X-Content-Length: 1\r\nConnection: close\r\n"),
            Refused,
            "longer than described",
        ),
        (Fixed({"error": "no such object"}, 404), Refused, "404: no such object$"),
        (Fixed(raw=b"<html>", status=404), Refused, "too old, it has no /archive/objects/{path}"),
        (Fixed(raw=b"", status=301, head="Location: http://127.0.0.1:9/\r\n"), Refused, "HTTP status 301"),
        (Fixed(raw=b"one", head="Content-Encoding: gzip\r\n"), None, ""),
    ],
    ids=range(10),
)
async def test_answers_to_a_download(
    nursery: trio.Nursery, server: Fixed, error: type[PortError] | None, text: str
) -> None:
    """What is not as described, in whichever way, is not given out in whole."""
    port = Corestore((await server.start(nursery)).url)
    obj = described("x", b"one")
    if error is None:
        assert await content_of(port, obj) == b"one"
    else:
        with pytest.raises(error, match=text):
            await content_of(port, obj)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("server", "error", "text"),
    [
        (Fixed({"error": "held"}, 409), Refused, "other content is there: HTTP status 409: held"),
        (Fixed({}, 422), Refused, "what arrived has another digest: HTTP status 422"),
        (Fixed({"error": "x"}, 413), Refused, "HTTP status 413: x"),
        (Fixed({}), Unavailable, "did not wait for the whole"),
    ],
    ids=range(4),
)
async def test_answers_that_come_too_early(
    nursery: trio.Nursery, server: Fixed, error: type[PortError], text: str
) -> None:
    """An upload ends there, and what Corestore said is what counts."""
    port = Corestore((await server.start(nursery)).url)
    taken = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        while taken < 100_000_000:
            taken += 1_000_000
            yield bytes(1_000_000)

    obj = ArchiveObject(path="x", size=100_000_000, sha256="0" * 64)
    async with aclosing(endless()) as chunks:
        with pytest.raises(error, match=text):
            await port.write_object(obj, chunks)
    assert taken < 100_000_000
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [{"ok": False, "message": "no"}, {"object": {"sha256": "1" * 64}}])
async def test_answers_that_say_otherwise(nursery: trio.Nursery, answer: object) -> None:
    """The status is not all."""
    server = await Fixed(answer).start(nursery)
    with pytest.raises(Refused, match=r"write archive object x: (no$|it has stored something else)"):
        await Corestore(server.url).write_object(described("x", b"one"), Chunks(b"one"))
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [None, {}])
async def test_answers_that_say_nothing(nursery: trio.Nursery, answer: object) -> None:
    """A status that is fine is no proof: whatever changes something may not have."""
    server = await Fixed(answer).start(nursery)
    port = Corestore(server.url)
    for call in (
        partial(port.create_volume, volume()),
        partial(port.restore_volume, "v1", "x"),
        partial(port.restore_resource, S1, "database", "x"),
        partial(port.write_object, described("x", b"one"), Chunks(b"one")),
    ):
        with pytest.raises(Unavailable, match="the answer says nothing"):
            await call()
    assert len(server.heads) == 4
    nursery.cancel_scope.cancel()


async def test_restores_that_have_touched_nothing(network: NetworkSide) -> None:
    """Refused by a status of 4xx, or nobody listened. After a try that may have had an effect, that is not known."""
    calls = await everything(network.port)
    for name in ("restore_volume", "restore_resource"):
        verb, path = PATHS[name]
        for status in (400, 401, 404, 409, 422):
            await network.server.fault(kind="status", method=verb, path=path, status=status, times=1)
            with pytest.raises(Untouched):
                await calls[name]()
        for status in (507, 500):
            await network.server.fault(
                kind="status", method=verb, path=path, status=status, text="disk full", times=1
            )
            with pytest.raises(Refused) as caught:
                await calls[name]()
            assert not isinstance(caught.value, Untouched)
        await network.server.fault(kind="status", method=verb, path=path, status=503, times=1)
        await network.server.fault(kind="status", method=verb, path=path, status=404, times=1)
        with pytest.raises(Refused) as caught:
            await calls[name]()
        assert not isinstance(caught.value, Untouched)
    with trio.socket.socket() as socket:
        await socket.bind(("127.0.0.1", 0))
        with pytest.raises(Unreached):
            await Corestore(f"http://127.0.0.1:{socket.getsockname()[1]}").restore_volume("v1", "x")


async def test_uploads_have_their_headers(nursery: trio.Nursery) -> None:
    """Length, digest, token, and the path with nothing bare in it."""
    server = await Fixed({"ok": True}).start(nursery)
    obj = described("packs/a b.pack", b"one")
    await Corestore(server.url, TOKEN).write_object(obj, Chunks(b"one"))
    (head,) = server.heads
    assert head.startswith("PUT /archive/objects/packs%2Fa%20b.pack HTTP/1.1\r\n")
    for line in ("Content-Length: 3", f"x-corestore-sha256: {obj.sha256}", f"Authorization: Bearer {TOKEN}"):
        assert f"\r\n{line}" in head
    assert "Transfer-Encoding" not in head
    nursery.cancel_scope.cancel()


SECRET = "canary-of-an-option"
QUOTES = (
    f"token {TOKEN} is bad",
    f"Bearer {TOKEN.upper()}",
    "cannot reach mongodb://user:canary@host:1/db",
    "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----",
    "x" * 495 + TOKEN,
)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409, 422, 500, 507])
async def test_no_secret_is_ever_told(nursery: trio.Nursery, status: int) -> None:
    """Whatever goes wrong, with whatever the peer quotes: not in an error, nor behind it, nor in a log."""
    for said in QUOTES:
        server = await Fixed({"ok": False, "error": said}, status).start(nursery)
        port = Corestore(server.url, TOKEN)
        calls = dict.fromkeys(PATHS, None)
        obj = described("x", b"one")
        told = repr(port)
        with capture_logs() as lines:
            for call in (
                port.volumes,
                partial(port.create_volume, volume()),
                partial(port.snapshot_volume, "v1", TAGS),
                partial(port.restore_volume, "v1", "x"),
                partial(port.snapshot_resource, S1, "database", TAGS),
                partial(port.restore_resource, S1, "database", "x"),
                port.snapshots,
                port.archive_objects,
                partial(content_of, port, obj),
                partial(port.write_object, obj, Chunks(b"one")),
            ):
                calls.popitem()
                with pytest.raises(PortError) as caught:
                    await call()
                told += traceback_of(caught.value)
        assert not calls
        told = (told + repr(lines)).lower()
        assert "canary" not in told
        assert TOKEN[:8].lower() not in told
    nursery.cancel_scope.cancel()


async def test_options_of_volumes_are_not_told(nursery: trio.Nursery) -> None:
    """A driver's option may be a password."""
    server = await Fixed({"error": f"cannot mount with {SECRET}, no volume v1"}, 400).start(nursery)
    with pytest.raises(
        Refused, match="create volume v1: HTTP status 400: cannot mount with …, no volume v1"
    ) as caught:
        await Corestore(server.url).create_volume(volume(options={"password": SECRET, "serviceId": "s1"}))
    assert "canary" not in traceback_of(caught.value)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("piece", [10_000, 4_000_000])
async def test_big_objects_take_little_memory(network: NetworkSide, piece: int) -> None:
    """Both ways, in whichever pieces they come."""
    block = bytes(range(250)) * (piece // 250)

    async def source() -> AsyncIterator[bytes]:
        left = BIG
        while left:
            yield block[:left]
            left -= min(left, len(block))

    digest = sha256()
    async for chunk in source():
        digest.update(chunk)
    obj = ArchiveObject(path="big", size=BIG, sha256=digest.hexdigest())
    tracemalloc.start()
    try:
        await network.port.write_object(obj, source())
        size = 0
        async with network.port.read_object(obj) as pieces:
            async for read in pieces:
                size += len(read)
                assert len(read) < 2_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == BIG
    assert peak < 24_000_000
