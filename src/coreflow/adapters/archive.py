"""Files of an archive on their way: whether a path may be one, and whether what passes is what was described."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from hashlib import sha256

from coreflow.domain.backup.snapshots import ArchiveObject
from coreflow.domain.errors import Refused, Unavailable

PATH_LIMIT = 1024
"""Characters of the longest path."""


def is_path(path: str) -> bool:
    """Return whether an archive's file may be called so: relative, nothing to be resolved in it, and nothing unseen."""
    return (
        0 < len(path) <= PATH_LIMIT
        and path.isprintable()
        and "\\" not in path
        and not any(part in ("", ".", "..") for part in path.split("/"))
    )


async def verified(
    obj: ArchiveObject, chunks: AsyncIterable[bytes], where: str
) -> AsyncGenerator[bytes, None]:
    """Yield what is read, the last piece only when it is all as described. Raises Refused when it is not, or Unavailable."""
    digest, size, held = sha256(), 0, b""
    async for chunk in chunks:
        size += len(chunk)
        if size > obj.size:
            raise Refused(f"{where}: it is longer than described")
        digest.update(chunk)
        if held:
            yield held
        held = chunk
    if size < obj.size:
        raise Unavailable(f"{where}: it broke off after {size} of {obj.size} bytes")
    if digest.hexdigest() != obj.sha256:
        raise Refused(f"{where}: it is not what was described, the digest is another one")
    if held:
        yield held


class Source:
    """A checked source: what it gives is checked as it passes; it ends with Refused when it was not as described.

    `error` is what ended it, whoever raised it.
    """

    def __init__(self, obj: ArchiveObject, chunks: AsyncIterable[bytes], where: str) -> None:
        self._obj, self._chunks, self._where = obj, aiter(chunks), where
        self._digest, self._size = sha256(), 0
        self.error: BaseException | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._next()
        except StopAsyncIteration:
            raise
        except BaseException as exc:
            self.error = exc
            raise

    async def _next(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._check()
            raise
        self._size += len(chunk)
        if self._size > self._obj.size:
            raise Refused(f"{self._where}: the chunks are longer than described")
        self._digest.update(chunk)
        return chunk

    def _check(self) -> None:
        if self._size != self._obj.size:
            raise Refused(f"{self._where}: the chunks are shorter than described")
        if self._digest.hexdigest() != self._obj.sha256:
            raise Refused(f"{self._where}: the chunks are not what was described, the digest is another one")
