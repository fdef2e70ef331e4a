"""Archive objects there and back: in slices, whatever is cut or damaged on the way, and never what is there already."""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from hashlib import sha256

import orjson
import pytest
import trio
from attrs import evolve
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit.app.worlds import play

from coreflow.adapters.memory import MemoryCorestore
from coreflow.adapters.memory.cloudly import MemoryReplica
from coreflow.adapters.memory.corestore import PACK_BYTES
from coreflow.app.progress import NoMeter
from coreflow.app.replication import LEAST_SLICE_BYTES, Replicator, slices_of
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.replication import (
    SLICE_BYTES,
    Copy,
    Manifest,
    Receipt,
    Slice,
    copy_of,
    is_manifest,
    object_of,
)
from coreflow.domain.backup.requests import Replication
from coreflow.domain.backup.snapshots import ArchiveObject, VolumeSpec
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ids import NodeId, ServiceId

SHOP = ServiceId("id-shop")
SIZES = (0, 1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 2 * SLICE_BYTES, 3 * SLICE_BYTES + 7)
NOISE = random.Random(1).randbytes(4 * SLICE_BYTES)
FAST = settings(suppress_health_check=list(HealthCheck), max_examples=examples(40))
UNNAMED = Manifest(backup_id="b1", service_id=SHOP, finished_ms=1, parts=())
"""A manifest without snapshots: all of an archive is pushed."""


class Line(MemoryReplica):
    """A peer that counts what travels, and looks after each copy whether what is there can be used."""

    def __init__(self) -> None:
        super().__init__()
        self.put: list[tuple[str, int, int]] = []
        """Name, offset and length of every slice that was sent, those that were cut off included."""
        self.stop_after: int | None = None
        """After so many slices, nothing is heard of the sender any more."""
        self.most = 0
        """Bytes of the largest slice that was asked for."""

    @property
    def bytes_put(self) -> int:
        """All that was sent, manifests aside."""
        return sum(length for name, _, length in self.put if not name.startswith("coreflow/"))

    async def put_slice(
        self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str = ""
    ) -> Receipt:
        await self._stop()
        self.put.append((copy.name, offset, len(data)))
        receipt = await super().put_slice(copy, offset, data, final=final, backup_id=backup_id)
        if receipt.stored:
            self.check()
        return receipt

    async def get_slice(self, name: str, offset: int, max_bytes: int) -> Slice:
        await self._stop()
        self.most = max(self.most, max_bytes)
        return await super().get_slice(name, offset, max_bytes)

    async def _stop(self) -> None:
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                await trio.sleep_forever()

    def check(self) -> None:
        """Every copy is what it is called after, and every snapshot and backup that is there is there in whole."""
        copies = [kept.copy for kept in self._whole.values()]
        store = MemoryCorestore()
        for copy in copies:
            content = self.contents[copy.name]
            assert (len(content), sha256(content).hexdigest()) == (copy.size, copy.sha256)
            if not is_manifest(copy):
                store.archive[object_of(copy).path] = content
        _check_archive(store)
        for copy in filter(is_manifest, copies):
            for archive in orjson.loads(self.contents[copy.name])["archives"]:
                needed = {f"{one['path']}@{one['sha256']}" for one in archive["objects"]}
                assert needed <= self.contents.keys()


class Target(MemoryCorestore):
    """A Corestore that is looked at after every object that it gets."""

    async def write_object(self, obj: ArchiveObject, chunks: AsyncIterator[bytes]) -> None:
        await super().write_object(obj, chunks)
        assert sha256(self.archive[obj.path]).hexdigest() == obj.sha256
        _check_archive(self)


def _check_archive(store: MemoryCorestore) -> None:
    """Whatever snapshot is listed can be restored."""
    for manifest in store._manifests():
        store._contents("check", manifest["kind"], manifest["id"])


def archive_of(sizes: list[int]) -> MemoryCorestore:
    """A Corestore whose archive has files of these sizes, and nothing else."""
    store = MemoryCorestore()
    for number, size in enumerate(sizes):
        store.archive[f"packs/{number}.pack"] = NOISE[number : number + size]
    return store


async def with_snapshots(sizes: list[int]) -> tuple[MemoryCorestore, Manifest]:
    """A Corestore with two volumes and a snapshot of each, that share some of their data."""
    store = MemoryCorestore()
    parts: list[Part] = []
    for number in range(2):
        spec = VolumeSpec(name=f"v{number}", service_id=SHOP, mount_path="")
        await store.create_volume(spec)
        store.volume_data[spec.name] = {
            f"f{n}": NOISE[n * number : n * number + size] for n, size in enumerate(sizes)
        }
        taken = await store.snapshot_volume(spec.name, {"backupId": "b1"})
        parts.append(Part(kind="volume", name=spec.name, snapshot_id=taken.id))
    return store, evolve(UNNAMED, parts=tuple(parts))


async def push(
    line: Line, store: MemoryCorestore, manifest: Manifest = UNNAMED, *, away_seconds: float = 300
) -> Replication:
    """Push in a new process."""
    return await Replicator(line, away_seconds=away_seconds).push({None: store}, manifest, NoMeter())


async def pull(line: Line, store: MemoryCorestore, backup_id: str = "b1") -> int:
    """Pull in a new process."""
    replicator = Replicator(line)
    manifest = await replicator.manifest(backup_id, SHOP)
    assert manifest is not None
    wanted = [obj for objects in manifest.objects.values() for obj in objects]
    return await replicator.pull(store, wanted, NoMeter())


# --- slices


@given(
    size=st.sampled_from(SIZES) | st.integers(0, 3 * SLICE_BYTES),
    chunk=st.sampled_from([1000, 65_536, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 2 * SLICE_BYTES + 5]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
)
@FAST
def test_slices_are_all_of_the_content_and_few_are_in_memory(size: int, chunk: int, share: float) -> None:
    """Whole slices, a last one that is not empty, in order, from any start on; never more than a slice waits."""
    start = min(int(size * share), max(size - 1, 0))
    content = NOISE[:size]
    given_out = cut = 0

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal given_out
        for at in range(0, size, chunk):
            assert given_out - max(start, 0) - cut <= SLICE_BYTES
            piece = content[at : at + chunk]
            given_out += len(piece)
            yield piece

    async def scene() -> None:
        nonlocal cut
        found: list[tuple[int, bytes]] = []
        async with aclosing(chunks()) as source, aclosing(slices_of(source, size, start)) as slices:
            async for offset, data in slices:
                found.append((offset, data))
                cut += len(data)
        assert b"".join(data for _, data in found) == content[start:]
        assert [offset for offset, _ in found] == list(range(start, max(size, 1), SLICE_BYTES))
        assert all(len(data) == SLICE_BYTES for _, data in found[:-1])

    play(scene)


# --- there and back

numbers = st.sets(st.integers(1, 14), max_size=4)


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:] if data else data


def _shortened(data: bytes) -> bytes:
    return data[: len(data) // 2]


damages: st.SearchStrategy[dict[int, Callable[[bytes], bytes]]] = st.dictionaries(
    st.integers(1, 12), st.sampled_from([_flipped, _shortened, lambda _: b""]), max_size=2
)
cuts_of_reading = st.lists(st.integers(0, 2 * SLICE_BYTES), max_size=2)
archives = st.lists(st.sampled_from(SIZES), min_size=1, max_size=4)


@example(
    sizes=[0, 2359303], before=set(), after=set(), damage={6: _flipped, 7: _flipped}, reading=[], writing=[]
)
@given(
    sizes=archives,
    before=numbers,
    after=numbers,
    damage=damages,
    reading=cuts_of_reading,
    writing=cuts_of_reading,
)
@FAST
def test_what_arrives_is_what_was_sent(
    sizes: list[int],
    before: set[int],
    after: set[int],
    damage: dict[int, Callable[[bytes], bytes]],
    reading: list[int],
    writing: list[int],
) -> None:
    """Whatever breaks off or is damaged on the way there, and breaks off on the way back: the archives are the same."""

    async def scene() -> None:
        store, line, target = archive_of(sizes), Line(), Target()
        line.cut_before, line.cut_after, line.damage = before, after, damage
        store.cuts.extend(reading)
        result = await push(line, store)
        assert result.status == "completed", result
        assert result.objects_total == len(sizes)
        line.check()
        if not damage:
            cuts = len(before) + len(after) + len(reading)
            assert line.bytes_put <= sum(sizes) + cuts * SLICE_BYTES
        sent = line.slices
        line.cut_before, line.cut_after = {sent + n for n in before}, {sent + n for n in after}
        line.damage = {}
        target.cuts.extend(writing)
        assert await pull(line, target) == len(sizes)
        assert target.archive == store.archive
        assert line.most <= SLICE_BYTES
        assert await pull(line, target) == 0

    play(scene)


snapshot_sizes = st.lists(
    st.sampled_from([1, 70_000, SLICE_BYTES, SLICE_BYTES + 1, PACK_BYTES + 1]), max_size=3
)


@given(sizes=snapshot_sizes, stops=st.lists(st.integers(0, 12), max_size=3))
@FAST
def test_stopped_anywhere_every_snapshot_that_is_listed_can_be_restored(
    sizes: list[int], stops: list[int]
) -> None:
    """Killed after any number of slices, in both directions: `Line` and `Target` look after each object."""

    async def scene() -> None:
        store, manifest = await with_snapshots(sizes)
        line, target = Line(), Target()
        for stop in stops:
            line.stop_after = stop
            with trio.move_on_after(60):
                await push(line, store, manifest)
        line.stop_after = None
        assert (await push(line, store, manifest)).status == "completed"
        # what had arrived is asked for again at most: the first slice of each of a few objects, where a push was stopped
        assert line.bytes_put <= sum(map(len, store.archive.values())) + len(stops) * 6 * SLICE_BYTES
        for stop in stops:
            line.stop_after = stop
            with trio.move_on_after(60):
                await pull(line, target)
        line.stop_after = None
        await pull(line, target)
        assert target.archive == store.archive

    play(scene)


@given(sizes=archives, damage=damages)
@FAST
def test_a_damaged_slice_is_never_stored(
    sizes: list[int], damage: dict[int, Callable[[bytes], bytes]]
) -> None:
    """On the way back it is an error, and what is in the archive is right; another pull brings the rest."""

    async def scene() -> None:
        store, line, target = archive_of(sizes), Line(), Target()
        await push(line, store)
        line.damage = {line.slices + 1 + number: change for number, change in damage.items()}
        for _ in range(len(damage) + 1):
            try:
                await pull(line, target)
            except Refused:
                assert target.archive.items() <= store.archive.items()
        assert target.archive == store.archive

    play(scene)


# --- only what is missing


def test_a_second_push_sends_nothing() -> None:
    """But a manifest, where that is another one; the next backup shares what is the same."""

    async def scene() -> None:
        store, manifest = await with_snapshots([1, SLICE_BYTES, PACK_BYTES])
        line = Line()
        first = await push(line, store, manifest)
        assert first.objects_uploaded == first.objects_total == len(store.archive)
        assert first.bytes_uploaded == sum(map(len, store.archive.values()))
        sent = len(line.put)
        again = await push(line, store, manifest)
        assert (again.status, again.objects_uploaded, again.bytes_uploaded) == ("completed", 0, 0)
        assert again.objects_total == first.objects_total
        assert len(line.put) == sent
        await push(line, store, evolve(manifest, finished_ms=2))
        assert [name for name, _, _ in line.put[sent:]] == [
            name for name in line.contents if name.startswith("coreflow/") and name != line.put[sent - 1][0]
        ]
        store.volume_data["v0"]["new"] = b"more"
        taken = await store.snapshot_volume("v0", {"backupId": "b2"})
        parts = (Part(kind="volume", name="v0", snapshot_id=taken.id),)
        third = await push(line, store, evolve(manifest, backup_id="b2", parts=parts))
        assert third.objects_uploaded == 3  # a pack, an index and the snapshot

    play(scene)


def test_nodes_share_what_is_the_same() -> None:
    """Two archives with the same files: these travel once, and go back to both."""

    async def scene() -> None:
        line, one, two = Line(), archive_of([SLICE_BYTES, 10]), archive_of([SLICE_BYTES])
        nodes = (NodeId("n1"), NodeId("n2"))
        result = await Replicator(line).push({nodes[0]: one, nodes[1]: two}, UNNAMED, NoMeter())
        assert (result.objects_total, result.objects_uploaded) == (3, 2)
        replicator = Replicator(line)
        manifest = await replicator.manifest("b1", SHOP)
        assert manifest is not None
        for node, store in zip(nodes, (one, two), strict=True):
            target = Target()
            await replicator.pull(target, manifest.objects[node], NoMeter())
            assert target.archive == store.archive

    play(scene)


@pytest.mark.parametrize("arrived", range(5))
def test_an_object_that_is_there_in_part_is_resumed(arrived: int) -> None:
    """A new process sends one slice to learn how much is there, and then what is not."""

    async def scene() -> None:
        store, line = archive_of([4 * SLICE_BYTES - 1]), Line()
        line.stop_after = arrived
        with trio.move_on_after(60):
            await push(line, store)
        line.stop_after, line.put = None, []
        assert (await push(line, store)).status == "completed"
        offsets = [offset // SLICE_BYTES for name, offset, _ in line.put if name.startswith("packs/")]
        whole = list(range(4))
        assert offsets == ([] if arrived == 4 else [0, *whole[max(arrived, 1) :]])

    play(scene)


def test_slices_get_smaller_where_the_line_is_bad() -> None:
    """Down to a limit, and large again when it is good."""

    async def scene() -> None:
        store, line = archive_of([4 * SLICE_BYTES]), Line()
        line.cut_before = set(range(1, 9))
        assert (await push(line, store)).status == "completed"
        lengths = [length for name, _, length in line.put if name.startswith("packs/")]
        assert min(lengths) == LEAST_SLICE_BYTES
        assert lengths[0] == lengths[-2] == SLICE_BYTES

    play(scene)


# --- what cannot be done


def test_a_peer_that_is_away_is_waited_for_and_given_up_in_the_end() -> None:
    """Five minutes by default; what was sent before counts."""

    async def scene() -> None:
        store, line = archive_of([10, 10]), Line()
        line.faults.extend([Unavailable("away")] * 5)
        assert (await push(line, store)).status == "completed"
        store.archive["packs/more"] = b"1"
        line.faults.extend([Unavailable("away")] * 1000)
        started = trio.current_time()
        result = await push(line, store)
        assert (result.status, result.objects_uploaded) == ("failed", 0)
        assert "away (for 300 s)" in result.error
        assert 300 <= trio.current_time() - started <= 2 * 300 + 60

    play(scene)


def test_an_object_that_never_arrives_as_it_was_sent() -> None:
    """Is given up; the others are there, and no manifest says that all were."""

    async def scene() -> None:
        store, line = archive_of([10]), Line()
        store.archive["index/1"] = b"index"
        line.damage = dict.fromkeys(range(2, 50), _flipped)
        result = await push(line, store)
        assert (result.status, result.objects_uploaded) == ("partial", 1)
        assert "index/1 did not arrive as it was sent" in result.error
        assert list(line.contents) == [f"packs/0.pack@{sha256(NOISE[:10]).hexdigest()}"]

    play(scene)


def test_an_index_that_is_written_anew_meanwhile() -> None:
    """Listed, and then another one: the push begins anew, and sends what is there."""

    class Rewriting(MemoryCorestore):
        async def archive_objects(self, snapshot_ids: object = ()) -> tuple[ArchiveObject, ...]:
            found = await super().archive_objects()
            self.archive["index/1"] = b"second"
            return found

    async def scene() -> None:
        store, line, target = Rewriting(), Line(), Target()
        store.archive = {"packs/1": b"1", "index/1": b"first!"}
        assert (await push(line, store)).status == "completed"
        await pull(line, target)
        assert target.archive == store.archive

    play(scene)


def test_another_archive_is_left_alone() -> None:
    """Nothing of it is written where one file that never changes is another one."""

    async def scene() -> None:
        store, line, target = archive_of([10, 20]), Line(), Target()
        await push(line, store)
        target.archive["packs/1.pack"] = b"other"
        with pytest.raises(Refused, match=r"packs/1\.pack is there with other content"):
            await pull(line, target)
        assert target.archive == {"packs/1.pack": b"other"}

    play(scene)


# --- manifests


def test_the_newest_manifest_counts() -> None:
    """Of this backup and service."""

    async def scene() -> None:
        store, line = archive_of([10]), Line()
        for manifest in (
            evolve(UNNAMED, finished_ms=2),
            UNNAMED,
            evolve(UNNAMED, backup_id="b2", finished_ms=3),
            evolve(UNNAMED, service_id=ServiceId("id"), finished_ms=4),
        ):
            await push(line, store, manifest)
        found = await Replicator(line).manifest("b1", SHOP)
        assert found is not None
        assert (found.finished_ms, found.backup_id, found.service_id) == (2, "b1", SHOP)
        assert await Replicator(line).manifest("b3", SHOP) is None

    play(scene)


@pytest.mark.parametrize("change", [_flipped, _shortened, lambda data: data + b" "])
def test_a_damaged_manifest_is_refused(change: Callable[[bytes], bytes]) -> None:
    """It is compared with its digest as everything is."""

    async def scene() -> None:
        store, line = archive_of([10]), Line()
        await push(line, store)
        (name,) = (name for name in line.contents if name.startswith("coreflow/"))
        line.spoil(name, change)
        with pytest.raises(Refused, match="archive object coreflow/backups/id-shop/b1"):
            await Replicator(line).manifest("b1", SHOP)

    play(scene)


async def _send_under_plain_names(line: Line, store: MemoryCorestore, backup_id: str) -> None:
    for path, content in store.archive.items():
        copy = Copy(name=path, size=len(content), sha256=sha256(content).hexdigest())
        await line.put_slice(copy, 0, content, final=True, backup_id=backup_id)


def test_copies_that_somebody_else_made() -> None:
    """There is no manifest, and names are paths: those that were sent for the backup are taken, of two backups at once."""

    async def scene() -> None:
        line, stores = Line(), (archive_of([10, SLICE_BYTES]), MemoryCorestore())
        stores[1].archive["packs/x"] = b"another"
        for number, store in enumerate(stores):
            await _send_under_plain_names(line, store, f"b{number}")
        replicator = Replicator(line)
        manifests = [await replicator.manifest(f"b{number}", SHOP) for number in range(2)]
        for store, manifest in zip(stores, manifests, strict=True):
            assert manifest is not None
            assert manifest.parts == ()
            target = Target()
            await replicator.pull(target, manifest.objects[None], NoMeter())
            assert target.archive == store.archive
        ours = copy_of((await stores[1].archive_objects())[0])
        assert ours.name not in line.contents

    play(scene)
