"""Archive objects between Corestores and the keeper of their copies: in small slices, only what the keeper lacks.

Whatever is interrupted goes on where it stopped: the keeper says how much it has. A connection that breaks is waited
for. What arrives is compared with its digest before it counts.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TypeVar

import trio
from attrs import Factory, define, evolve

from coreflow.domain.backup.proof import against_export, against_import
from coreflow.domain.backup.replication import (
    SLICE_BYTES,
    Copy,
    Manifest,
    Receipt,
    Slice,
    backup_of,
    copy_of,
    expect_unchanged,
    in_order,
    is_manifest,
    manifest_prefix,
    manifests_prefix,
    object_of,
    read_manifest,
    to_pull,
    to_push,
)
from coreflow.domain.backup.requests import Replication, Status
from coreflow.domain.backup.snapshots import ArchiveObject
from coreflow.domain.errors import CoreflowError, PortError, Refused, Unavailable
from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.ports import CorestorePort, ReplicaPort

from .lazy_log import LazyLog
from .progress import Meter, NoMeter
from .retries import FIRST_PAUSE, with_retries

log = LazyLog()
T = TypeVar("T")

CONCURRENCY = 3
"""Objects that travel at once."""
AWAY_SECONDS = 300.0
"""How long the keeper may be away without the transfer being given up."""
LOOK_SECONDS = 20.0
"""The same where only is looked whether it has something."""
ATTEMPTS = 3
"""How often an object is begun anew because it did not arrive as it was sent."""
LEAST_SLICE_BYTES = 32 * 1024
"""Slices get smaller, down to this, while the keeper cannot be reached: on a slow line large ones do not get through."""
SMALL_RECEIPTS = 100
"""How often, of one slice, less may be taken than is sent."""
MANIFEST_LIMIT = 64 * 1024 * 1024


class Replicator:
    """Moves archive objects between Corestores and one keeper of copies. One thing at a time."""

    def __init__(self, replica: ReplicaPort, *, away_seconds: float = AWAY_SECONDS) -> None:
        self._replica, self._away_seconds = replica, away_seconds
        self._lock = trio.Lock()
        self._slice_bytes = SLICE_BYTES
        self._foreign: dict[ArchiveObject, Copy] = {}
        """Copies that are not called as we would call them."""

    # --- there

    async def push(
        self,
        corestores: Mapping[NodeId | None, CorestorePort],
        manifest: Manifest,
        meter: Meter,
    ) -> Replication:
        """Send what the snapshots of a backup need, and its manifest last. How far it came is in the result."""
        stats = _TransferStats()
        try:
            async with self._lock:
                try:
                    await self._push(corestores, manifest, stats, meter)
                except _GaveUp:
                    raise
                except Refused as exc:  # an index may have been written anew between listing and reading it
                    log.info("replication starts over", backup=manifest.backup_id, reason=str(exc))
                    await self._push(corestores, manifest, stats, meter)
        except CoreflowError as exc:
            return stats.result("partial" if stats.objects else "failed", str(exc))
        return stats.result("completed")

    async def _push(
        self,
        corestores: Mapping[NodeId | None, CorestorePort],
        manifest: Manifest,
        stats: "_TransferStats",
        meter: Meter,
    ) -> None:
        backup_id = manifest.backup_id
        objects: dict[NodeId | None, tuple[ArchiveObject, ...]] = {}
        there = await self._retried(self._replica.copies)
        names, sent = {copy.name for copy in there}, set[str]()
        stats.total = 0
        for node, corestore in corestores.items():
            ids = [part.snapshot_id for part in manifest.parts if part.node == node and part.snapshot_id]
            objects[node] = await corestore.archive_objects(ids)
            expect_unchanged(stats.listed.get(node, ()), objects[node])
            stats.listed[node] = objects[node]
            stats.total += len(objects[node])
            missing = [obj for obj in to_push(objects[node], there) if copy_of(obj).name not in names]
            names.update(copy_of(obj).name for obj in missing)
            sent.update(copy_of(obj).name for obj in missing)
            meter.expect(sum(obj.size for obj in missing))
            for group in in_order(missing):
                await _several(group, partial(self._send, corestore, backup_id, stats, meter))
        whole = evolve(manifest, objects=objects)
        content = whole.encode()
        copy = whole.copy(content)
        if copy.name not in names:
            await self._put_whole(copy, content, backup_id)
        there = await self._retried(self._replica.copies)
        if fault := against_export({copy.name, *sent}, (one.name for one in there)):
            raise Refused(fault)

    async def _send(
        self,
        corestore: CorestorePort,
        backup_id: str,
        stats: "_TransferStats",
        meter: Meter,
        obj: ArchiveObject,
    ) -> None:
        """Send one object, from where the keeper has it."""
        copy, sent = copy_of(obj), _Sent()
        for attempt in range(ATTEMPTS):
            await trio.sleep(FIRST_PAUSE * attempt)
            try:
                async with corestore.read_object(obj) as chunks:
                    await self._send_rest(chunks, copy, sent, backup_id, meter)
            except Unavailable as exc:
                log.info("transfer of an archive object broke off", object=obj.path, reason=str(exc))
                continue
            if sent.receipt.stored:
                stats.objects += 1
                stats.bytes += obj.size
                return
            if sent.receipt.received >= obj.size:  # all of it is there, and it is not right
                sent.receipt = Receipt(0, stored=False)
        raise Refused(f"archive object {obj.path} did not arrive as it was sent")

    async def _send_rest(
        self, chunks: AsyncIterator[bytes], copy: Copy, sent: "_Sent", backup_id: str, meter: Meter
    ) -> None:
        """Send what the keeper has not, until it wants something that has passed already, or has all."""
        async with aclosing(slices_of(chunks, copy.size, sent.receipt.received)) as slices:
            async for offset, data in slices:
                end = offset + len(data)
                if end <= sent.receipt.received and end < copy.size:
                    continue
                sent.receipt = await self._put(copy, offset, data, backup_id)
                received = min(sent.receipt.received, copy.size)
                meter.moved(max(received - sent.told, 0))
                sent.told = max(sent.told, received)
                if sent.receipt.stored or received < end:
                    return

    async def _put(self, copy: Copy, offset: int, data: bytes, backup_id: str) -> Receipt:
        """Hand over a piece, in smaller ones where the line is bad. Raises Refused when it takes too little per request."""
        end, receipt, sent, small_receipts = offset + len(data), Receipt(offset, stored=False), 0, 0

        async def put() -> Receipt:
            nonlocal sent
            start = receipt.received - offset
            piece = data[start : start + self._slice_bytes]
            sent = len(piece)
            final = offset + start + len(piece) == copy.size
            return await self._replica.put_slice(
                copy, offset + start, piece, final=final, backup_id=backup_id
            )

        while True:
            before, receipt = receipt.received, await self._retried(put)
            if receipt.stored or not before < receipt.received < end:
                return receipt
            small_receipts += receipt.received - before < sent
            if small_receipts > SMALL_RECEIPTS:
                raise Refused(f"archive object {copy.name}: it takes too little per request")

    async def _put_whole(self, copy: Copy, content: bytes, backup_id: str) -> None:
        for _ in range(ATTEMPTS):
            for offset in range(0, max(len(content), 1), SLICE_BYTES):
                receipt = await self._put(copy, offset, content[offset : offset + SLICE_BYTES], backup_id)
            if receipt.stored:
                return
        raise Refused("the manifest of the backup did not arrive as it was sent")

    # --- back

    async def backups(self, service_id: ServiceId) -> tuple[str, ...]:
        """The ids of the backups of a service that have a manifest of ours."""
        prefix = manifests_prefix(service_id)
        found = await self._retried(partial(self._replica.copies, prefix=prefix), LOOK_SECONDS)
        return tuple(sorted({backup_of(copy) for copy in found if copy.name.startswith(prefix)}))

    async def manifest(self, backup_id: str, service_id: ServiceId) -> Manifest | None:
        """The manifest of a backup: of several the one with the most parts, the newest of these. None: there is none.

        Where only somebody else sent copies for it, one that has just its objects.
        """
        best = await self._best_manifest(backup_id, service_id)
        if best is not None:
            return best
        listed = await self._retried(partial(self._replica.copies, backup_id=backup_id))
        named = {object_of(copy): copy for copy in listed if not is_manifest(copy)}
        self._foreign.update({obj: copy for obj, copy in named.items() if copy != copy_of(obj)})
        objects = tuple(named)
        if not objects:
            return None
        return Manifest(
            backup_id=backup_id, service_id=service_id, finished_ms=0, parts=(), objects={None: objects}
        )

    async def _best_manifest(self, backup_id: str, service_id: ServiceId) -> Manifest | None:
        """The best of ours. Raises Refused where there are only such as cannot be used."""
        prefix = manifest_prefix(backup_id, service_id)
        look = partial(self._replica.copies, prefix=prefix)
        found = await self._retried(look, LOOK_SECONDS)  # all may be here already
        best: Manifest | None = None
        problem: Refused | None = None
        for copy in (copy for copy in found if copy.name.startswith(prefix)):
            try:
                read = await self._read(copy)
            except Refused as exc:
                if problem is None:
                    log.warning("manifest cannot be used", reason=str(exc))
                problem = exc
                continue
            is_ours = read.backup_id == backup_id and read.service_id == service_id
            if is_ours and (best is None or _worth(read) > _worth(best)):
                best = read
        if best is None and problem is not None:
            raise problem
        return best

    async def _read(self, copy: Copy) -> Manifest:
        if copy.size > MANIFEST_LIMIT:
            raise Refused("the manifest of the backup is too large")
        content = bytearray()
        async with aclosing(self._content(copy, NoMeter())) as chunks:
            async for chunk in chunks:
                content += chunk
        if hashlib.sha256(content).hexdigest() != copy.sha256:
            raise Refused(f"archive object {copy.name} is not what was listed, the digest is another one")
        return read_manifest(bytes(content))

    async def pull(
        self,
        corestore: CorestorePort,
        wanted: Iterable[ArchiveObject],
        meter: Meter,
    ) -> int:
        """Fetch what a Corestore's archive lacks; the number of objects."""
        async with self._lock:
            missing = to_pull(wanted, await corestore.archive_objects())
            meter.expect(sum(obj.size for obj in missing))
            for group in in_order(missing):
                await _several(group, partial(self._fetch, corestore, meter))
            if missing and (fault := against_import(missing, await corestore.archive_objects())):
                raise Refused(fault)
            return len(missing)

    async def _fetch(self, corestore: CorestorePort, meter: Meter, obj: ArchiveObject) -> None:
        copy = self._foreign.get(obj) or copy_of(obj)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(self._content(copy, meter)) as chunks:
                    await corestore.write_object(obj, chunks)
            except Unavailable as exc:
                if attempt == ATTEMPTS:
                    raise
                log.info("transfer of an archive object broke off", object=obj.path, reason=str(exc))
                await trio.sleep(FIRST_PAUSE * attempt)
            else:
                return

    async def _content(self, copy: Copy, meter: Meter) -> AsyncGenerator[bytes, None]:
        """The content of a copy, slice by slice, as it comes: whoever takes it compares the digest."""
        offset = 0
        while offset < copy.size:
            found = await self._retried(partial(self._get, copy.name, offset))
            offset += len(found.data)
            if found.size != copy.size or not found.data or offset > copy.size:
                raise Refused(f"archive object {copy.name} is not what was listed")
            meter.moved(len(found.data))
            yield found.data

    async def _get(self, name: str, offset: int) -> Slice:
        return await self._replica.get_slice(name, offset, self._slice_bytes)

    # --- waiting

    async def _retried(self, call: Callable[[], Awaitable[T]], away_seconds: float | None = None) -> T:
        """Call, again and again while the keeper is away; slices get smaller with each time, and larger again."""
        away_seconds = self._away_seconds if away_seconds is None else away_seconds
        try:
            result = await with_retries(call, away_seconds, on_failure=self._shrink)
        except Unavailable as exc:
            raise _GaveUp(f"{exc} (for {away_seconds:g} s)") from exc
        self._slice_bytes = min(self._slice_bytes * 2, SLICE_BYTES)
        return result

    def _shrink(self) -> None:
        self._slice_bytes = max(self._slice_bytes // 2, LEAST_SLICE_BYTES)


def _worth(manifest: Manifest) -> tuple[int, int]:
    return len(manifest.parts), manifest.finished_ms


class _GaveUp(Refused):
    """The keeper was away for too long."""


@define
class _TransferStats:
    """Counts of what was sent so far."""

    total: int = 0
    objects: int = 0
    bytes: int = 0
    listed: dict[NodeId | None, tuple[ArchiveObject, ...]] = Factory(dict)
    """What the archives had at first."""

    def result(self, status: Status, error: str = "") -> Replication:
        return Replication(
            status=status,
            objects_total=self.total,
            objects_uploaded=self.objects,
            bytes_uploaded=self.bytes,
            error=error,
        )


@define
class _Sent:
    """The progress of an object."""

    receipt: Receipt = Factory(lambda: Receipt(0, stored=False))
    told: int = 0


async def _several(
    objects: Iterable[ArchiveObject], move: Callable[[ArchiveObject], Awaitable[None]]
) -> None:
    """Move objects, a few at a time. The first error ends all of it."""
    limiter = trio.CapacityLimiter(CONCURRENCY)
    errors: list[PortError] = []

    async def one(obj: ArchiveObject) -> None:
        async with limiter:
            try:
                await move(obj)
            except PortError as exc:
                errors.append(exc)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for obj in objects:
            nursery.start_soon(one, obj)
    if errors:
        raise errors[0]


async def slices_of(
    chunks: AsyncIterator[bytes], size: int, start: int = 0
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Content cut into slices, each with its offset, from `start` on. Empty content is one empty slice."""
    buffer, offset, skip = bytearray(), start, start
    async for chunk in chunks:
        view = memoryview(chunk)[min(skip, len(chunk)) :]
        skip -= len(chunk) - len(view)
        buffer += view
        while len(buffer) > SLICE_BYTES or (len(buffer) == SLICE_BYTES and offset + SLICE_BYTES < size):
            data = bytes(memoryview(buffer)[:SLICE_BYTES])
            del buffer[:SLICE_BYTES]
            yield offset, data
            offset += len(data)
    if buffer or size == 0:
        yield offset, bytes(buffer)
