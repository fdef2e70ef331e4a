"""A control plane in memory: a document that somebody sets, and archives in a dictionary."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

import orjson
import trio

from coreflow.adapters.tasks import Notices
from coreflow.domain.bindings import BindingStatus
from coreflow.domain.codec import RecordDecoder
from coreflow.domain.errors import PortError, Refused
from coreflow.domain.records import CertificateRecord, Records, certificate_in
from coreflow.domain.specs import ImageSpec

CHUNK = 1024 * 1024
"""Bytes of an archive that are handed out at once."""


class MemoryCloudly:
    """`CloudlyPort` on a cluster document (see `RecordDecoder.decode`) that `set` replaces.

    `archives` maps image id and version to the bytes of an archive. The errors in `faults` are raised first, one per
    call, whichever method is called.
    """

    def __init__(self, document: object, archives: Mapping[tuple[str, str], bytes] | None = None) -> None:
        self.archives = dict(archives or {})
        self.faults: deque[PortError] = deque()
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
                await trio.lowlevel.checkpoint()
                yield data[start : start + CHUNK]

        async with aclosing(chunks(data)) as pieces:
            yield pieces

    async def certificate(self, domain: str) -> CertificateRecord:
        """The certificate that the document has for a domain. Raises Refused when it has none."""
        return certificate_in(await self.records(), domain)

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

    async def _call(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.popleft()
