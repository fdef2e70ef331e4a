"""Files of Corestore's archive, on their way there and back."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from coreflow.adapters.archive import Source, is_path, verified
from coreflow.adapters.net import Download, http_download, http_upload
from coreflow.domain.backup.snapshots import ArchiveObject
from coreflow.domain.errors import PortError, Refused

from . import methods as m
from . import parse_archive
from .failures import short
from .requests import Requests


class ArchiveCalls:
    """Lists, reads and writes files of the archive."""

    def __init__(self, requests: Requests) -> None:
        self._requests, self._failures = requests, requests.failures

    async def objects(self, snapshot_ids: Iterable[str] = ()) -> tuple[ArchiveObject, ...]:
        """The files of the archive; with snapshots, at least all that these need."""
        what = "corestore: list archive objects"
        queries = [{m.SNAPSHOT_ID.name: one} for one in dict.fromkeys(snapshot_ids)] or [{}]
        found: dict[str, ArchiveObject] = {}
        for query in queries:
            answer = await self._requests.ask(what, self._requests.api.list_objects, query)
            found.update(
                {obj.path: obj for obj in self._requests.listed(what, parse_archive.objects, answer)}
            )
        return tuple(found.values())

    @asynccontextmanager
    async def read(self, obj: ArchiveObject) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content of a file, in pieces of bounded size, the last one only when size and digest are right."""
        endpoint = self._requests.api.read_object
        what = f"corestore: read archive object {short(obj.path)}"
        url = self._file_url(what, endpoint, obj)
        async with AsyncExitStack() as stack:
            opening = http_download(
                url,
                method=endpoint.verb,
                headers=self._requests.headers(),
                timeout=self._requests.seconds(endpoint),
                stall=self._requests.stall,
                via=self._requests.via,
            )
            failure: PortError | None = None
            try:
                download = await stack.enter_async_context(opening)
            except (PortError, ValueError) as exc:
                failure = self._failures.meaning(what, endpoint, exc)
            if failure is not None:
                raise failure
            _compare(what, obj, download)
            arriving = await stack.enter_async_context(aclosing(self._pieces(what, endpoint, download)))
            yield await stack.enter_async_context(aclosing(verified(obj, arriving, what)))

    async def write(self, obj: ArchiveObject, chunks: AsyncIterator[bytes]) -> None:
        """Put a file into the archive. There already, with the same content, is success."""
        endpoint = self._requests.api.write_object
        what = f"corestore: write archive object {short(obj.path)}"
        url = self._file_url(what, endpoint, obj)
        source = Source(obj, chunks, what)
        failure: PortError | None = None
        try:
            answer = await http_upload(
                url,
                source,
                obj.size,
                method=endpoint.verb,
                headers={**self._requests.headers(), m.DIGEST.name: obj.sha256},
                stall=self._requests.stall,
                via=self._requests.via,
            )
        except (PortError, ValueError) as exc:
            if exc is source.error:
                raise
            failure = self._failures.meaning(what, endpoint, exc)
        if failure is not None:
            raise failure
        self._failures.check_not_declined(what, answer.body)
        self._failures.check_proven(what, answer.body)
        stored = m.SHA256.of(m.OBJECT.of(answer.body))
        if isinstance(stored, str) and stored.lower() != obj.sha256:
            raise Refused(f"{what}: it has stored something else, the digest is another one")
        path = m.OBJECT_PATH.of(m.OBJECT.of(answer.body))
        if path not in (None, obj.path):
            raise Refused(f"{what}: it has stored something else, the path is another one")

    def _file_url(self, what: str, endpoint: m.Endpoint, obj: ArchiveObject) -> str:
        if not is_path(obj.path):
            raise Refused(f"{what}: not a path of an archive")
        return self._requests.url + endpoint.at(obj.path)

    async def _pieces(
        self, what: str, endpoint: m.Endpoint, download: Download
    ) -> AsyncGenerator[bytes, None]:
        failure: PortError | None = None
        try:
            async for piece in download:
                yield piece
        except PortError as exc:
            failure = self._failures.meaning(what, endpoint, exc)
        if failure is not None:
            raise failure


def _compare(what: str, obj: ArchiveObject, download: Download) -> None:
    digest = download.headers.get(m.DIGEST.name, "").strip().lower()
    if digest not in ("", obj.sha256) or download.size not in (None, obj.size):
        raise Refused(f"{what}: it is not what was described, size or digest are others")
