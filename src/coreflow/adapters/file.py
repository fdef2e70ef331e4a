"""A cluster file as the source of records: YAML or JSON, watched, with image archives beside it.

The file may be on a file system that hangs: it is looked at in threads that nobody has to wait for.
"""

import hashlib
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

import trio
from attrs import evolve, frozen

from coreflow.domain.errors import InvalidRecord, PreconditionFailed, Problem, Refused, Unavailable
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.records.codec import RecordDecoder
from coreflow.domain.records.models import CertificateRecord, Records, certificate_in
from coreflow.domain.swarm.specs import ImageSpec
from coreflow.gc_pause import LARGE_DOCUMENT, gc_paused
from coreflow.reading import MIB, PIPE_SECONDS, read_file

from .documents import Lines, parse

T = TypeVar("T")

POLL_SECONDS = 1.0
"""How often the file is looked at."""
FILE_LIMIT = 256 * MIB
"""Bytes of a cluster file; one with 20,000 services has a tenth."""
ANSWER_SECONDS = 2 * PIPE_SECONDS
"""How long the file system may take for one look or one reading."""
CHUNK = 1024 * 1024
"""Bytes of an archive that are read at once."""
ARCHIVES = 8
"""Archives that are read at once."""

Signature = tuple[int, ...]
"""What tells one state of a file from another, without reading it."""


@frozen
class _Known:
    """The records of the file as of its last reading."""

    signature: Signature
    digest: bytes
    records: Records


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
    ) -> None:
        self.path = Path(path)
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
    def from_url(
        cls,
        url: str,
        *,
        poll_seconds: float = POLL_SECONDS,
        learn: Callable[[Records], None] = lambda _: None,
        strict: bool = False,
    ) -> "FileCloudly":
        """The file that a `file:` URL names by its absolute path, percent-encoded where need be.

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
        return cls(Path(os.fsdecode(path)), poll_seconds=poll_seconds, learn=learn, strict=strict)

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

        The file is read only if it is another one than the last time.
        """
        return certificate_in((await self._latest()).records, domain)

    async def _latest(self) -> _Known:
        before = self._looks
        async with self._lock:
            if self._known is not None and self._looks != before:
                return self._known  # whoever came at the same time has looked already
            self._looks += 1
            if self._known is not None and await self._look() == self._known.signature:
                return self._known
            return await self._read()

    async def _read(self) -> _Known:
        try:
            read = partial(_signed, self.path)
            signature, data = await self._unless_it_hangs(read, self._reading)
        except OSError as exc:
            raise Unavailable(f"{self.path}: {exc.strerror or type(exc).__name__}") from None
        return await trio.to_thread.run_sync(self._use, signature, data)

    async def _unless_it_hangs(self, job: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """Do it in a thread that is left behind on a time-out, or when we are cancelled. It keeps its place until it ends."""
        with trio.move_on_after(ANSWER_SECONDS):
            return await trio.to_thread.run_sync(job, abandon_on_cancel=True, limiter=limiter)
        raise Unavailable(f"{self.path}: the file system did not answer in {ANSWER_SECONDS:g} s")

    def _use(self, signature: Signature, data: bytes) -> _Known:
        digest = hashlib.sha256(data).digest()
        if self._known is not None and self._known.digest == digest:
            records = self._known.records
        else:
            with gc_paused(enabled=len(data) >= LARGE_DOCUMENT):
                records = self._decode(data)
        self._known = _Known(signature, digest, records)
        return self._known

    def _decode(self, data: bytes) -> Records:
        document, lines = parse(self.path, data)
        try:
            records = self._decoder.decode(document, consume=True)
        except InvalidRecord as exc:
            known = lines()
            problems = (
                Problem(_with_line(problem.path, known, self.path), problem.text) for problem in exc.problems
            )
        else:
            return _with_lines(records, lines, self.path) if records.rejected or records.unknown else records
        raise InvalidRecord(*problems)

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
            folder = self.path.parent.resolve()
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
        async with aclosing(_differences(await self._look(), self._look, self._poll_seconds)) as notices:
            yield notices

    async def _look(self) -> Signature:
        try:
            return _signature(await self._unless_it_hangs(self.path.stat, self._looking))
        except OSError as exc:
            return (exc.errno or 0,)


def _signed(path: Path) -> tuple[Signature, bytes]:
    """The content of a file, and its signature before it was read: a later change makes another one."""
    signature = _signature(path.stat())
    return signature, read_file(path, FILE_LIMIT)


def _signature(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def _archive_of(spec: ImageSpec) -> str:
    return f"image {spec.image_id} {spec.version}: archive {spec.storage_path or ''}".rstrip()


async def _differences(
    seen: Signature, look: Callable[[], Awaitable[Signature]], seconds: float
) -> AsyncGenerator[None, None]:
    """Yield when what `look` finds differs from `seen`, and has come to rest."""
    while True:
        await trio.sleep(seconds)
        found = await look()
        changed = found != seen
        while found != seen:
            seen = found
            await trio.sleep(seconds / 10)
            found = await look()
        if changed:
            yield None


# lines of problems


_LAST_STEP = re.compile(r"(?:\.[^.\[]*|\[[0-9]*\]| \(key\))$")


def _with_lines(records: Records, lines: Lines, file: Path) -> Records:
    known = lines()
    rejected = (
        evolve(one, reasons=tuple(_with_line(reason, known, file) for reason in one.reasons))
        for one in records.rejected
    )
    unknown = (
        one if line is None else evolve(one, place=f"{file}:{line}")
        for one in records.unknown
        for line in (_line_of(f"{one.above}.{one.key}", known),)
    )
    return evolve(records, rejected=tuple(rejected), unknown=tuple(unknown))


def _with_line(reason: str, lines: Mapping[str, int], file: Path) -> str:
    """A problem's text with file and line of its path, or of what is nearest above it."""
    line = _line_of(reason.rpartition(" @ ")[2], lines)
    return reason if line is None else f"{reason} ({file}:{line})"


def _line_of(path: str, lines: Mapping[str, int]) -> int | None:
    """The line of a path, or of what is nearest above it; None where that is the whole document."""
    while path not in lines:
        path, before = _LAST_STEP.sub("", path), path
        if path == before:
            return None
    return None if path == "$" else lines[path]
