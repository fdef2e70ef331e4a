"""A cluster file as the source of records: YAML or JSON, watched, with image archives beside it.

The file may be on a file system that hangs: it is looked at in threads that nobody has to wait for.
"""

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

import trio
from attrs import evolve, frozen

from coreflow.domain.errors import (
    InvalidRecord,
    PreconditionFailed,
    Problem,
    Refused,
    Unavailable,
    Unreadable,
)
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.records.codec import RecordDecoder
from coreflow.domain.records.models import CertificateRecord, Records, certificate_in
from coreflow.domain.records.places import place_of
from coreflow.domain.swarm.specs import ImageSpec
from coreflow.gc_pause import LARGE_DOCUMENT, gc_paused
from coreflow.reading import PIPE_SECONDS

from .age import AgeIdentity
from .merging import Locator, Part, Places, merged, parse_all
from .references import Key, mentions, referenced, replace
from .sources import (
    SECRETS,
    References,
    Sources,
    Watched,
    differs,
    look,
    read_references,
    read_sources,
)

T = TypeVar("T")

POLL_SECONDS = 1.0
"""How often the file is looked at."""
ANSWER_SECONDS = 2 * PIPE_SECONDS
"""How long the file system may take for one look or one reading."""
CHUNK = 1024 * 1024
"""Bytes of an archive that are read at once."""
ARCHIVES = 8
"""Archives that are read at once."""


@frozen
class _Known:
    """The records of the files as of their last reading."""

    watched: Watched
    digest: bytes
    """Of the files with records alone."""
    wanted: frozenset[Key]
    references: References
    records: Records


_NOTHING_READ = References({}, {})


class FileCloudly:
    """`ControlPlane` on a cluster file.

    The file may be missing, or broken: calls fail until it is there and right, and changes are seen all the same.
    Replace it in one step (write beside it, then rename), since a YAML file that is half there may be a valid one.
    `learn` is called with the records. With `strict`, a field that nobody reads rejects its record.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        poll_seconds: float = POLL_SECONDS,
        learn: Callable[[Records], None] = lambda _: None,
        strict: bool = False,
        identity: AgeIdentity | None = None,
        environ: Mapping[str, str] | None = None,
        secrets: Path = SECRETS,
    ) -> None:
        self.path = Path(path)
        self._secrets = secrets
        self._identity = identity or AgeIdentity()
        self._environ = os.environ if environ is None else environ
        self._learn = learn
        self._poll_seconds = poll_seconds
        self._lock = trio.Lock()
        self._reading, self._looking = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._loading = trio.CapacityLimiter(ARCHIVES)
        self._decoder = RecordDecoder(strict=strict)
        self._known: _Known | None = None
        self._looks = 0
        """How many looks have begun that say whether `_known` is still what the file says."""

    @classmethod
    def from_url(cls, url: str, **options: Any) -> "FileCloudly":
        """The source that a `file:` URL names (see `path_of`); options are those of the class.

        Raises PreconditionFailed when it names none.
        """
        return cls(cls.path_of(url), **options)

    @staticmethod
    def path_of(url: str) -> Path:
        """The file or folder that a `file:` URL names by its absolute path, percent-encoded where need be.

        Raises PreconditionFailed when it names none.
        """
        parts = urlsplit(url)
        if parts.scheme != "file":
            raise PreconditionFailed("a cluster file's URL begins with file:")
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise PreconditionFailed(
                "a cluster file's URL has three slashes and an absolute path: file:///path/to/file"
            )
        path = unquote_to_bytes(parts.path)
        if parts.query or parts.fragment or b"\0" in path:
            raise PreconditionFailed("a cluster file's URL has a path only: write ? as %3F and # as %23")
        return Path(os.fsdecode(path))

    async def records(self) -> Records:
        """Read and decode the file. Unchanged content gives the very same object as before.

        Raises Unavailable when the file cannot be read, and InvalidRecord when its content cannot be used.
        """
        async with self._lock:
            known = await self._read()
        self._learn(known.records)
        return known.records

    async def certificate(self, domain: str) -> CertificateRecord:
        """The certificate that the file has for a domain. Raises Refused when it has none.

        The file is read only if it is another one than the last time. Raises Unreadable while it cannot be used: what is
        wrong with it is not told again for each domain.
        """
        try:
            latest = await self._latest()
        except InvalidRecord:
            raise Unreadable(f"{self.path}: cannot be used as it is now") from None
        return certificate_in(latest.records, domain)

    async def _latest(self) -> _Known:
        before = self._looks
        async with self._lock:
            if self._known is not None and self._looks != before:
                return self._known  # whoever came at the same time has looked already
            self._looks += 1
            if self._known is not None and not differs(await self._look(), self._known.watched):
                return self._known
            return await self._read()

    async def _read(self) -> _Known:
        sources = await self._read_from_disk(partial(read_sources, self.path, self._identity))
        digest = sources.digest
        before = self._known if self._known is not None and self._known.digest == digest else None
        parts: tuple[Part, ...] = ()
        if before is not None:
            wanted = before.wanted
        else:
            parts, wanted = await trio.to_thread.run_sync(_parsed, sources)
        references = _NOTHING_READ
        if wanted:
            where = self._base(sources)
            read = partial(
                read_references, where, wanted, self._identity, self._environ, secrets=self._secrets
            )
            references = await self._read_from_disk(read)
        if before is not None and before.references.values == references.values:
            records = before.records
        else:
            decode = partial(self._decode, sources, parts, references)
            records = await trio.to_thread.run_sync(decode)
        watched = {**sources.watched, **references.watched}
        self._known = _Known(watched, digest, wanted, references, records)
        return self._known

    def _base(self, sources: Sources) -> Path:
        """The folder where relative paths begin."""
        return self.path if sources.is_folder else self.path.parent

    async def _read_from_disk(self, read: Callable[[], T]) -> T:
        try:
            return await self._unless_it_hangs(read, self._reading)
        except OSError as exc:
            name = exc.filename or self.path
            raise Unreadable(f"{name}: {exc.strerror or type(exc).__name__}") from None

    async def _unless_it_hangs(self, job: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """Do it in a thread that is left behind on a time-out, or when we are cancelled. It keeps its place until it ends."""
        with trio.move_on_after(ANSWER_SECONDS):
            return await trio.to_thread.run_sync(job, abandon_on_cancel=True, limiter=limiter)
        raise Unreadable(f"{self.path}: the file system did not answer in {ANSWER_SECONDS:g} s")

    def _decode(self, sources: Sources, parts: tuple[Part, ...], references: References) -> Records:
        with gc_paused(enabled=sources.size >= LARGE_DOCUMENT):
            parts = parts or parse_all(sources)
            document = merged(parts)
            locator = Locator(parts)
            if references.values:
                replace(document, references.values.__getitem__)
            try:
                records = self._decoder.decode(document, consume=True)
            except InvalidRecord as exc:
                places = dict(locator.every())
                problems = (_placed(problem, places, self.path) for problem in exc.problems)
                raise InvalidRecord(*problems) from None
            records = evolve(records, origin=evolve(records.origin, places=locator))
            if records.rejected or records.unknown:
                return _with_places(records, dict(locator.every()))
            return records

    @asynccontextmanager
    async def archive(self, spec: ImageSpec) -> AsyncIterator[AsyncIterator[bytes]]:
        """The archive of an image, a `.tar` or `.tar.gz` at its `storagePath`, in pieces of 1 MiB.

        The path is relative to the folder of the cluster file and stays inside it. Entering raises Refused when there
        is no such path or file; reading raises Unavailable when the disk fails.
        """
        file = await self._unless_it_hangs(partial(self._open_archive, spec), self._loading)
        is_reading = False

        async def read() -> bytes:
            nonlocal is_reading
            is_reading = True
            try:
                chunk = await self._unless_it_hangs(partial(file.read, CHUNK), self._loading)
            except OSError as exc:
                is_reading = False
                raise Unavailable(f"{_archive_of(spec)}: {exc.strerror}") from None
            is_reading = False
            return chunk

        async def chunks() -> AsyncGenerator[bytes, None]:
            while chunk := await read():
                yield chunk

        try:
            async with aclosing(chunks()) as pieces:
                yield pieces
        finally:
            if not is_reading:  # else a thread was left behind, and the file closes when that ends
                file.close()

    def _open_archive(self, spec: ImageSpec) -> FileIO:
        if not spec.storage_path:
            raise Refused(f"{_archive_of(spec)}: the record has no storagePath, so there is nothing to load")
        try:
            folder = (self.path if self.path.is_dir() else self.path.parent).resolve()
            path = (folder / spec.storage_path).resolve()
            if Path(spec.storage_path).is_absolute() or not path.is_relative_to(folder):
                reason = f"must be relative and stay inside {folder}, the folder of the cluster file"
            elif not stat.S_ISREG(path.stat().st_mode):
                reason = f"not a file in {folder}"
            else:
                return FileIO(path)
        except OSError as exc:
            reason = f"{exc.strerror} (in {self.path.parent})"
        except (RuntimeError, ValueError):  # a loop of links, a null byte
            reason = "not a usable path"
        raise Refused(f"{_archive_of(spec)}: {reason}")

    async def report_binding(self, status: BindingStatus) -> None:
        """Nobody reads it."""

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        """Yields when the file is another one than at the last look, or is gone, or there again.

        Looks every `poll_seconds`, beginning when this is entered. While somebody writes to the file it waits for the
        end: it yields once two looks in a row, a tenth of that time apart, found the same.
        """
        seen = {**await self._look(), **self._watched()}
        async with aclosing(_differences(seen, self._look, self._poll_seconds, self._watched)) as notices:
            yield notices

    def _watched(self) -> Watched:
        """The state that each file was in when it was read."""
        return {} if self._known is None else self._known.watched

    async def _look(self) -> Watched:
        others = list(self._watched())
        if self._identity.path is not None:
            others.append(self._identity.path)
        return await self._unless_it_hangs(partial(look, self.path, others), self._looking)


def _parsed(sources: Sources) -> tuple[tuple[Part, ...], frozenset[Key]]:
    """The documents, and what they refer to."""
    with gc_paused(enabled=sources.size >= LARGE_DOCUMENT):
        parts = parse_all(sources)
        if not any(mentions(one.data) for one in sources.files):
            return parts, frozenset()
        return parts, frozenset().union(*(referenced(part.document) for part in parts))


def _archive_of(spec: ImageSpec) -> str:
    return f"image {spec.image_id} {spec.version}: archive {spec.storage_path or ''}".rstrip()


async def _differences(
    seen: Watched, look: Callable[[], Awaitable[Watched]], seconds: float, read: Callable[[], Watched] = dict
) -> AsyncGenerator[None, None]:
    """Yield when what `look` finds differs from `seen`, and has come to rest.

    A file that no look has seen before, since a record names it only now, is compared with the state that it was in when
    it was `read`.
    """
    while True:
        await trio.sleep(seconds)
        found = await look()
        seen = {**read(), **seen}
        changed = is_moving = differs(found, seen)
        while is_moving:
            seen = found
            await trio.sleep(seconds / 10)
            found = await look()
            is_moving = differs(found, seen)
        seen = found
        if changed:
            yield None


# places of problems


def _with_places(records: Records, places: Places) -> Records:
    rejected = (
        evolve(one, reasons=tuple(_with_place(reason, places) for reason in one.reasons))
        for one in records.rejected
    )
    unknown = (
        one if place is None else evolve(one, place=place)
        for one in records.unknown
        for place in (place_of(f"{one.above}.{one.key}", places),)
    )
    return evolve(records, rejected=tuple(rejected), unknown=tuple(unknown))


def _placed(problem: Problem, places: Places, file: Path) -> Problem:
    """A problem of the document as a whole, with file and line."""
    if problem.path == "$":
        return Problem(str(file), problem.text)
    place = place_of(problem.exact or problem.path, places)
    return Problem(problem.path if place is None else f"{problem.path} ({place})", problem.text)


def _with_place(reason: str, places: Places) -> str:
    """A problem's text with file and line of its path, or of what is nearest above it."""
    place = place_of(reason.rpartition(" @ ")[2], places)
    return reason if place is None else f"{reason} ({place})"
