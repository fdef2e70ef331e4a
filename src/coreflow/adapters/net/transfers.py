"""Bodies of any size over HTTP, in either direction, without holding them."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
import trio

from coreflow.domain.errors import Refused, Unavailable

from .bridge import in_asyncio
from .errors import translated
from .http import MAX_ANSWER, HttpAnswer, judged
from .outbound import DIRECT, Connector, Outbound, Target, destination, new_session, target_of, trust
from .transport import TooLong, read_body, seen

STALL_SECONDS = 60.0
"""How long a transfer may go without a byte."""
PIECE_BYTES = 512 * 1024
"""What crosses from one loop to the other at once in a transfer, about."""
_WRITE_BYTES = 64 * 1024
"""What of it is written at once: so much must get through within the time that a transfer may stall."""


class Download:
    """An answer that is still arriving: iterate over it, once, for its body.

    No piece is empty, and none is much longer than PIECE_BYTES. What is not read waits on the peer. Reading raises
    Unavailable when the peer breaks off, or stalls.
    """

    def __init__(self, where: str, answer: aiohttp.ClientResponse, stall: float) -> None:
        self._where, self._answer, self._stall = where, answer, stall
        self._arrived = bytearray()
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        """In whatever case they are asked for."""

    @property
    def size(self) -> int | None:
        """Bytes of the body, if the peer says."""
        return self._answer.content_length

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with translated(self._where, self._stall):
            piece = await in_asyncio(self._pull)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _pull(self) -> bytes:
        while len(self._arrived) < PIECE_BYTES:
            async with asyncio.timeout(self._stall):
                chunk = await self._answer.content.readany()
            if not chunk:
                break
            self._arrived += chunk
        piece, self._arrived = bytes(self._arrived), bytearray()
        return piece


@asynccontextmanager
async def http_download(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    via: Outbound = DIRECT,
    timeout: float = 30.0,
    stall: float = STALL_SECONDS,
    max_answer: int = MAX_ANSWER,
) -> AsyncIterator[Download]:
    """Ask for something of any size. The answer must begin within `timeout`, and go on at least every `stall` seconds.

    Entering raises Unavailable, or Denied as `http_get`. Leaving early drops the connection. The body is not decompressed.
    """
    target = target_of(url, "http")
    tls = await trust(target, via.ca_file)
    wanted = {"Accept-Encoding": "identity", **(headers or {})}

    async def begin() -> tuple[_Exchange, aiohttp.ClientResponse, bytes]:
        exchange = _Exchange(tls)
        try:
            async with asyncio.timeout(timeout):
                answer = await exchange.request(
                    method, target.url, headers=wanted, **via.proxies.options(target.url)
                )
                fine = 200 <= answer.status < 300
                return exchange, answer, b"" if fine else await read_body(answer.content, max_answer)
        except BaseException:
            await exchange.drop()
            raise

    with translated(target.where, timeout):
        try:
            exchange, answer, denial = await in_asyncio(begin)
        except TooLong as exc:
            raise Unavailable(f"{target.where} answered with more than {max_answer} bytes") from exc
    try:
        location = destination(target.url, answer.headers.get("Location"))
        judged(target, answer.status, denial, location)
        yield Download(target.where, answer, stall)
    finally:
        with trio.CancelScope(shield=True):
            await in_asyncio(exchange.drop)


async def http_upload(
    url: str,
    chunks: AsyncIterable[bytes],
    size: int,
    *,
    method: str = "PUT",
    headers: Mapping[str, str] | None = None,
    via: Outbound = DIRECT,
    stall: float = STALL_SECONDS,
) -> HttpAnswer:
    """Send `size` bytes from `chunks`, which is asked for more only as fast as the peer reads.

    The last piece is sent when `chunks` has ended. So whatever it raises, and this comes out, the peer has not got a
    whole body. The same goes for another number of bytes than `size`, which is Refused. Raises Unavailable (it may have
    been received) also when no byte moves, or no answer comes, for `stall` seconds; or Denied as `http_get`.
    """
    target = target_of(url, "http")
    tls = await trust(target, via.ca_file)
    wanted = {
        "Accept": "application/json",
        "Content-Type": "application/octet-stream",
        **(headers or {}),
        "Content-Length": str(size),
    }
    upload = _Upload(target, tls, method, wanted, stall)
    upload.way = via.proxies.options(target.url)
    try:
        last = await _give_all_but_the_last(upload, chunks, size)
        with translated(target.where, stall):
            try:
                status, text = await in_asyncio(upload.finish, last)
            except TooLong as exc:
                raise Unavailable(f"{target.where} answered with more than {MAX_ANSWER} bytes") from exc
    finally:
        with trio.CancelScope(shield=True):
            await in_asyncio(upload.drop)
    answer = judged(target, status, text)
    if upload.sent != size:
        raise Unavailable(f"{target.where} did not wait for the whole of what was sent")
    return answer


async def _give_all_but_the_last(upload: "_Upload", chunks: AsyncIterable[bytes], size: int) -> bytearray:
    """Send pieces of a body as they fill up, and return the last one. Raises Refused for another number of bytes.

    Where the answer is there before the end, the rest is not asked for.
    """
    total, waiting = 0, bytearray()
    async for chunk in chunks:
        total += len(chunk)
        if total > size:
            break
        if chunk and len(waiting) >= PIECE_BYTES:
            with translated(upload.target.where, upload.stall):
                over = await in_asyncio(upload.give, waiting)
            if over:
                return waiting
            waiting = bytearray()
        waiting += chunk
    if total != size:
        raise Refused(f"what is to be sent is {'longer' if total > size else 'shorter'} than announced")
    return waiting


class _Exchange:
    """A request in a session of its own, which may be dropped at any time. For asyncio."""

    def __init__(self, tls: ssl.SSLContext | Literal[True]) -> None:
        self._connector = Connector(tls)
        self._session = new_session(tls, self._connector)
        self._answer: aiohttp.ClientResponse | None = None

    async def request(self, method: str, url: str, **options: Any) -> aiohttp.ClientResponse:
        """Ask, and return what begins to arrive."""
        self._answer = await self._session.request(
            method,
            url,
            allow_redirects=False,
            read_bufsize=PIECE_BYTES // 2,
            auto_decompress=False,
            **options,
        )
        return self._answer

    async def drop(self) -> None:
        """End everything at once."""
        self._connector.abort()
        if self._answer is not None:
            self._answer.close()
        await self._session.close()


class _Upload:
    """The asyncio side of an upload. The request starts with the first piece."""

    def __init__(
        self,
        target: Target,
        tls: ssl.SSLContext | Literal[True],
        method: str,
        headers: Mapping[str, str],
        stall: float,
    ) -> None:
        self.target, self.stall = target, stall
        self._tls, self._method, self._headers = tls, method, headers
        self._feed = _Feed()
        self._exchange: _Exchange | None = None
        self._task: asyncio.Task[tuple[int, bytes]] | None = None
        self.way: Mapping[str, Any] = {}
        """What leads the request through a proxy, if anything."""
        self.sent = 0
        """Bytes of the body that had been sent when the answer came."""

    async def give(self, piece: bytearray) -> bool:
        """Send a piece, and wait until there is room for more. Whether the answer is there already, so that it is over."""
        task = self._put(piece, last=False)
        await self._wait(task, self._feed.empty)
        if not task.done():
            return False
        task.result()  # raises what went wrong
        return True

    async def finish(self, piece: bytearray) -> tuple[int, bytes]:
        """Send the last piece, and return the answer: status and body."""
        task = self._put(piece, last=True)
        await self._wait(task, None)
        return task.result()

    async def drop(self) -> None:
        """End everything at once."""
        if self._exchange is None or self._task is None:
            return
        self._task.cancel()
        await self._exchange.drop()
        await asyncio.wait([self._task])

    def _put(self, piece: bytearray, *, last: bool) -> asyncio.Task[tuple[int, bytes]]:
        self._feed.put(piece, last=last)
        if self._task is None:
            self._exchange = _Exchange(self._tls)
            self._task = asyncio.create_task(self._send(self._exchange))
            self._task.add_done_callback(seen)
        return self._task

    async def _send(self, exchange: _Exchange) -> tuple[int, bytes]:
        answer = await exchange.request(
            self._method, self.target.url, data=self._feed, headers=self._headers, **self.way
        )
        self.sent = self._feed.moved
        return answer.status, await read_body(answer.content, MAX_ANSWER)

    async def _wait(self, task: asyncio.Task[tuple[int, bytes]], room: asyncio.Event | None) -> None:
        """Wait until there is room or the task is done. Raises TimeoutError when nothing moves for too long."""
        loop = asyncio.get_running_loop()
        waiting = asyncio.create_task(room.wait()) if room is not None else None
        wanted: list[asyncio.Future[Any]] = [task] if waiting is None else [task, waiting]
        try:
            while (left := self._feed.moved_at + self.stall - loop.time()) > 0:
                done, _ = await asyncio.wait(wanted, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return
            raise TimeoutError
        finally:
            if waiting is not None:
                waiting.cancel()


class _Feed:
    """Hands a body to aiohttp in small parts, as they come. An iterator of asyncio's."""

    def __init__(self) -> None:
        self._piece, self._at, self._last = memoryview(b""), 0, False
        self._more = asyncio.Event()
        self.empty = asyncio.Event()
        """Set when all of a piece has been written."""
        self.moved, self.moved_at = 0, 0.0
        """Bytes taken so far, and when the last of them were, or became available."""

    def put(self, piece: bytearray, *, last: bool) -> None:
        """Give the next piece; the one before must be written."""
        self._piece, self._at, self._last = memoryview(piece), 0, last
        self.moved_at = asyncio.get_running_loop().time()
        self.empty.clear()
        self._more.set()

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self

    async def __anext__(self) -> memoryview:
        if self._at:  # the part before is written
            self.moved_at = asyncio.get_running_loop().time()
        while self._at >= len(self._piece):
            self.empty.set()
            if self._last:
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()
        part = self._piece[self._at : self._at + _WRITE_BYTES]
        self._at += len(part)
        self.moved += len(part)
        return part
