"""A control plane in memory: a document that somebody sets, and archives in a dictionary."""

import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

import orjson
import trio
from attrs import define, field

from coreflow.adapters.tasks import Notices
from coreflow.domain.backup.replication import SLICE_BYTES, Copy, Receipt, Slice
from coreflow.domain.errors import InvalidRecord, PortError, Refused, Unavailable, Unreadable
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.records.codec import RecordDecoder
from coreflow.domain.records.models import CertificateRecord, Records, certificate_in
from coreflow.domain.swarm.specs import ImageSpec

CHUNK = 1024 * 1024
"""Bytes of an archive that are handed out at once."""


@define
class _Kept:
    """A copy, in whole or in part, and the backups that it was sent for."""

    copy: Copy
    data: bytearray = field(factory=bytearray, repr=False)
    backups: set[str] = field(factory=set)


class MemoryReplica:
    """`ReplicaPort` on dictionaries.

    The errors in `faults` are raised first, one per call. Slices are counted as they come and go, from 1 on, in `slices`:
    those whose numbers are in `cut_before` do not arrive, of those in `cut_after` the answer does not, and what is in
    `damage` changes the content of one. What has arrived outlives a cut.
    """

    def __init__(self) -> None:
        self.faults: deque[PortError] = deque()
        self.slices = 0
        self.cut_before: set[int] = set()
        self.cut_after: set[int] = set()
        self.damage: dict[int, Callable[[bytes], bytes]] = {}
        self._whole: dict[str, _Kept] = {}
        self._parts: dict[str, _Kept] = {}

    @property
    def contents(self) -> dict[str, bytes]:
        """The bytes of the copies that are whole, by name."""
        return {name: bytes(kept.data) for name, kept in self._whole.items()}

    def spoil(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Change the bytes of a copy where they are kept; what is said of it stays."""
        self._whole[name].data = bytearray(change(bytes(self._whole[name].data)))

    def lose(self, name: str) -> None:
        """Forget a copy, as if it had never come."""
        self._whole.pop(name, None)
        self._parts.pop(name, None)

    async def copies(self, *, backup_id: str = "", prefix: str = "") -> tuple[Copy, ...]:
        """The copies that are whole; with an id, those that were sent for this backup, be it again."""
        await self._call()
        return tuple(
            kept.copy
            for name, kept in sorted(self._whole.items())
            if name.startswith(prefix) and (not backup_id or backup_id in kept.backups)
        )

    async def put_slice(
        self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str = ""
    ) -> Receipt:
        """Take a piece of a copy. One that leaves a gap is not taken; after a wrong end everything begins anew.

        Raises Refused when another copy is there under this name, or when the piece is not within the copy.
        """
        if len(data) > SLICE_BYTES:
            raise ValueError(f"a slice has {SLICE_BYTES} bytes at most")
        await self._call()
        number = self._count()
        receipt = self._take(copy, offset, self._damaged(number, data), final=final, backup_id=backup_id)
        self._answer(number)
        return receipt

    def _take(self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str) -> Receipt:
        ids = {backup_id} - {""}
        if (whole := self._whole.get(copy.name)) is not None:
            if whole.copy != copy:
                raise Refused(f"another copy is there under the name {copy.name}")
            whole.backups |= ids
            return Receipt(copy.size, stored=True)
        if offset < 0 or offset + len(data) > copy.size:
            raise Refused(f"{copy.name}: the slice is not within its size")
        part = self._parts.get(copy.name)
        if part is None or part.copy != copy:
            part = self._parts[copy.name] = _Kept(copy)
        part.backups |= ids
        if offset > len(part.data):
            return Receipt(len(part.data), stored=False)
        part.data[offset : offset + len(data)] = data
        if not final:
            return Receipt(len(part.data), stored=False)
        del self._parts[copy.name]
        if len(part.data) != copy.size or hashlib.sha256(part.data).hexdigest() != copy.sha256:
            return Receipt(0, stored=False)
        self._whole[copy.name] = part
        return Receipt(copy.size, stored=True)

    async def get_slice(self, name: str, offset: int, max_bytes: int) -> Slice:
        """A piece of a copy that is whole. Raises Refused when there is none, or nothing at this offset."""
        await self._call()
        number = self._count()
        kept = self._whole.get(name)
        if kept is None:
            raise Refused(f"there is no copy {name}")
        size = len(kept.data)
        if not 0 <= offset <= size:
            raise Refused(f"{name}: nothing is at this offset")
        data = bytes(kept.data[offset : offset + max_bytes])
        self._answer(number)
        return Slice(self._damaged(number, data), size, final=offset + len(data) == size)

    def _count(self) -> int:
        """The number of a slice that is on its way."""
        self.slices += 1
        if self.slices in self.cut_before:
            raise Unavailable("the connection ended")
        return self.slices

    def _answer(self, number: int) -> None:
        if number in self.cut_after:
            raise Unavailable("the connection ended")

    def _damaged(self, number: int, data: bytes) -> bytes:
        return self.damage[number](data) if number in self.damage else data

    async def _call(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.popleft()


class MemoryCloudly(MemoryReplica):
    """`ControlPlane` on a cluster document (see `RecordDecoder.decode`) that `set` replaces.

    `archives` maps image id and version to the bytes of an archive. The errors in `faults` are raised first, one per
    call, whichever method is called. It keeps copies of archive objects, too.
    """

    def __init__(self, document: object, archives: Mapping[tuple[str, str], bytes] | None = None) -> None:
        super().__init__()
        self.archives = dict(archives or {})
        self.archive_seconds = 0.0
        """How long a piece of an archive takes to arrive."""
        self.reports: list[BindingStatus] = []
        self._notices = Notices()
        self._decoder = RecordDecoder()
        self._known: tuple[bytes, Records] | None = None
        self._content = b""
        self.set(document)

    def set(self, document: object) -> None:
        """Replace the document, and say so to whoever follows `changes`.

        A copy is kept, as on a wire: changing the document later has no effect. Raises TypeError when it is not JSON.
        """
        self._content = orjson.dumps(document)
        self._notices.notify()

    async def records(self) -> Records:
        """Decode the document. An unchanged one gives the very same object as before.

        Raises InvalidRecord when it cannot be used.
        """
        await self._call()
        if self._known is None or self._known[0] != self._content:
            self._known = self._content, self._decoder.decode(orjson.loads(self._content))
        return self._known[1]

    @asynccontextmanager
    async def archive(self, spec: ImageSpec) -> AsyncIterator[AsyncIterator[bytes]]:
        """The archive of an image, in pieces of 1 MiB. Entering raises Refused when there is none."""
        await self._call()
        data = self.archives.get((spec.image_id, spec.version))
        if data is None:
            raise Refused(f"image {spec.image_id} {spec.version}: there is no archive")

        async def chunks(data: bytes) -> AsyncGenerator[bytes, None]:
            for start in range(0, len(data), CHUNK):
                await trio.sleep(self.archive_seconds)
                yield data[start : start + CHUNK]

        async with aclosing(chunks(data)) as pieces:
            yield pieces

    async def certificate(self, domain: str) -> CertificateRecord:
        """The certificate that the document has for a domain. Raises Refused when it has none, Unreadable if it is no use."""
        try:
            records = await self.records()
        except InvalidRecord:
            raise Unreadable("the document cannot be used as it is now") from None
        return certificate_in(records, domain)

    async def report_binding(self, status: BindingStatus) -> None:
        """Keep it in `reports`."""
        await self._call()
        self.reports.append(status)

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        """Yields when the document was set since this was entered, or since the last time it yielded."""
        await self._call()
        async with self._notices.follow() as notices:
            yield notices
