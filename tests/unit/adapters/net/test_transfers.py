"""Transfers: of any size, at the pace of the slower side, and given up by either without anything left over."""

import re
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest
import trio
from tests.unit.adapters.net.peers import Certificates, Serve, StartTcp, echo, open_files, read_all, read_head

from coreflow.adapters.net import (
    PIECE_BYTES,
    Denied,
    Failing,
    Outbound,
    PostAnswer,
    Posted,
    http_download,
    http_get,
    http_upload,
)
from coreflow.domain.errors import PortError, Refused, Unavailable

MEGABYTE = b"x" * 1_000_000


class Server:
    """A bare server that keeps what it is sent, and answers once it has so much of the body.

    Then it reads on until the other end hangs up, or hangs up itself.
    """

    def __init__(
        self,
        answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        *,
        after: int,
        lingers: bool = True,
    ) -> None:
        self.answer, self.after, self.lingers = answer, after, lingers
        self.head, self.body = "", bytearray()
        self.ended = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        async with stream:
            self.head = await read_head(stream)
            try:
                while len(self.body) < self.after:
                    chunk = await stream.receive_some()
                    if not chunk:
                        return
                    self.body += chunk
                await stream.send_all(self.answer)
                if self.lingers:
                    async for _ in stream:
                        pass
            except trio.BrokenResourceError:
                pass
            finally:
                self.ended.set()


def sending(head: str, *parts: bytes, pause: float = 0) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A bare server that answers every request so, with a pause before each part."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            try:
                await stream.send_all(f"HTTP/1.1 {head}\r\n\r\n".encode())
                for part in parts:
                    await trio.sleep(pause)
                    await stream.send_all(part)
            except trio.BrokenResourceError:
                pass

    return handle


async def chunks_of(*chunks: bytes, error: Exception | None = None) -> AsyncGenerator[bytes, None]:
    """These, and then the error."""
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk
    if error is not None:
        raise error


async def nothing_left(before: int) -> None:
    """Wait until no more files are open than before."""
    with trio.fail_after(5):
        while open_files() > before:  # noqa: ASYNC110 - the far ends close by themselves
            await trio.sleep(0.01)


# ---------------------------------------------------------------- down


async def test_a_download(start_tcp: StartTcp) -> None:
    """Status, headers in whatever case, size, and the body in pieces of some size, as it was sent."""
    parts = [bytes([number]) * 100_000 for number in range(50)]
    port = await start_tcp(sending("206 Part\r\nContent-Length: 5000000\r\nX-Own: 1", *parts))
    async with http_download(f"http://127.0.0.1:{port}/x", headers={"Range": "y"}) as download:
        assert (download.status, download.headers["x-oWN"], download.size) == (206, "1", 5_000_000)
        pieces = [piece async for piece in download]
        assert [piece async for piece in download] == []
    assert b"".join(pieces) == b"".join(parts)
    assert all(0 < len(piece) < 3 * PIECE_BYTES for piece in pieces)
    assert len(pieces) <= 10


async def test_a_download_without_a_length(start_tcp: StartTcp) -> None:
    """Until the peer hangs up."""
    port = await start_tcp(sending("200 OK\r\nConnection: close", b"a", b"b"))
    async with http_download(f"http://127.0.0.1:{port}/x") as download:
        assert download.size is None
        assert b"".join([piece async for piece in download]) == b"ab"


async def test_a_download_is_not_unpacked(start_tcp: StartTcp) -> None:
    """It comes as it is, and nothing else is asked for."""
    heads: list[str] = []

    async def packed(stream: trio.SocketStream) -> None:
        async with stream:
            heads.append(await read_head(stream))
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\nab")

    port = await start_tcp(packed)
    async with http_download(f"http://127.0.0.1:{port}/x") as download:
        assert [piece async for piece in download] == [b"ab"]
    assert heads[0].startswith("GET /x HTTP/1.1\r\n")
    assert "Accept-Encoding: identity\r\n" in heads[0]


@pytest.mark.parametrize(
    ("head", "body", "error", "text"),
    [
        ("404 Not Found\r\nContent-Length: 4", b"true", Denied, "HTTP status 404"),
        ("404 Not Found\r\nContent-Length: 4", b"<htm", Denied, "HTTP status 404"),
        (
            "302 Found\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:9/",
            b"",
            Denied,
            r"redirects to http://127\.0\.0\.1:9/, which is not followed",
        ),
        ("503 Away\r\nContent-Length: 4", b"true", Failing, "HTTP status 503"),
        ("400 Bad\r\nContent-Length: 101", b"1" * 101, Unavailable, "more than 100 bytes"),
        ("nonsense", b"", Unavailable, "does not speak HTTP"),
    ],
)
async def test_downloads_that_do_not_begin(
    start_tcp: StartTcp, head: str, body: bytes, error: type[PortError], text: str
) -> None:
    """As with other requests; what was said comes with the error, and not in its text."""
    port = await start_tcp(sending(head, body))
    with pytest.raises(error, match=rf"127\.0\.0\.1:{port}.*{text}$") as caught:
        async with http_download(f"http://127.0.0.1:{port}/x", max_answer=100):
            pytest.fail("entered")
    if isinstance(caught.value, Denied | Failing):
        assert caught.value.body is (True if body == b"true" else None)


async def test_what_a_failing_server_says(start_tcp: StartTcp) -> None:
    """It is there for the caller of a plain request, too."""
    port = await start_tcp(sending("507 Full\r\nContent-Length: 16", b'{"error":"full"}'))
    with pytest.raises(Failing, match=r"HTTP status 507$") as caught:
        await http_get(f"http://127.0.0.1:{port}/x")
    assert (caught.value.status, caught.value.body) == (507, {"error": "full"})
    assert "full" not in repr(caught.value)


async def read(port: int, stall: float = 60.0) -> int:
    """How much there is to read."""
    size = 0
    async with http_download(f"http://127.0.0.1:{port}/x", timeout=stall, stall=stall) as download:
        async for piece in download:
            size += len(piece)
    return size


@pytest.mark.parametrize(
    "head", ["200 OK\r\nContent-Length: 3000000", "200 OK\r\nTransfer-Encoding: chunked"]
)
async def test_downloads_that_break_off(start_tcp: StartTcp, head: str) -> None:
    """Half a body is none."""
    port = await start_tcp(sending(head, b"f4240\r\n" + MEGABYTE))
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await read(port)


async def test_downloads_that_stall(start_tcp: StartTcp) -> None:
    """The limit is for the time without a byte, however long it takes in all."""
    slow = await start_tcp(sending("200 OK\r\nContent-Length: 6", *[b"x"] * 6, pause=0.15))
    assert await read(slow, stall=0.7) == 6
    for parts in ((), (b"x",)):
        stalled = await start_tcp(sending("200 OK\r\nContent-Length: 6", *parts, *[b"x"] * 6, pause=30))
        with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"), trio.fail_after(3):
            await read(stalled, stall=0.2)


async def test_a_reader_that_does_not_read(start_tcp: StartTcp) -> None:
    """The peer waits, and little is kept here."""
    sent = 0

    async def endless(stream: trio.SocketStream) -> None:
        nonlocal sent
        async with stream:
            await read_head(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            try:
                while True:
                    await stream.send_all(MEGABYTE)
                    sent += len(MEGABYTE)
            except trio.BrokenResourceError:
                pass

    port = await start_tcp(endless)
    before = open_files()
    async with http_download(f"http://127.0.0.1:{port}/x") as download:
        await anext(aiter(download))
        await trio.sleep(0.3)
        stuck = sent
        await trio.sleep(0.2)
        assert sent == stuck < 30_000_000
    await nothing_left(before)


async def test_a_wait_that_is_given_up_loses_nothing(start_tcp: StartTcp) -> None:
    """What had arrived by then comes with the next piece."""
    port = await start_tcp(sending("200 OK\r\nContent-Length: 20", *[b"0123456789"] * 2, pause=0.3))
    async with http_download(f"http://127.0.0.1:{port}/x") as download:
        with trio.move_on_after(0.45) as scope:
            await anext(aiter(download))
        assert scope.cancelled_caught
        assert b"".join([piece async for piece in download]) == b"0123456789" * 2


# ---------------------------------------------------------------- up


@pytest.mark.parametrize("piece", [1000, 65_536, 700_001, 3_000_000])
async def test_an_upload(start_tcp: StartTcp, piece: int) -> None:
    """Length, type and the caller's headers; the body as it was given; the answer as JSON."""
    content = bytes(range(250)) * 12_000
    server = Server(after=len(content))
    port = await start_tcp(server)
    chunks = chunks_of(*(content[start : start + piece] for start in range(0, len(content), piece)), b"")
    answer = await http_upload(f"http://127.0.0.1:{port}/a%2Fb", chunks, len(content), headers={"X-Own": "1"})
    assert (answer.status, answer.body) == (200, {})
    assert server.body == content
    assert server.head.startswith("PUT /a%2Fb HTTP/1.1\r\n")
    for line in ("Content-Length: 3000000", "Content-Type: application/octet-stream", "X-Own: 1"):
        assert f"{line}\r\n" in server.head
    assert "Transfer-Encoding" not in server.head


async def test_an_upload_of_nothing(start_tcp: StartTcp) -> None:
    """Once it is known that there is nothing."""
    server = Server(after=0)
    port = await start_tcp(server)
    with pytest.raises(ValueError, match="mine"):
        await http_upload(f"http://127.0.0.1:{port}/", chunks_of(error=ValueError("mine")), 0)
    assert server.head == ""
    await http_upload(f"http://127.0.0.1:{port}/", chunks_of(), 0)
    assert "Content-Length: 0\r\n" in server.head


@pytest.mark.parametrize("given", [0, 1, 600_000, 2_999_999, 3_000_000])
@pytest.mark.parametrize("error", [Unavailable("mine"), TimeoutError("mine"), None])
async def test_uploads_that_end_too_early(start_tcp: StartTcp, given: int, error: Exception | None) -> None:
    """What the source raises comes out as it is, and the peer never has a whole body."""
    server = Server(after=3_000_000)
    port = await start_tcp(server)
    content = MEGABYTE * 3
    chunks = [content[:given][start : start + 100_000] for start in range(0, given, 100_000)]
    if error is None and given == 3_000_000:
        chunks.append(b"!")
    before = open_files()
    async with aclosing(chunks_of(*chunks, error=error)) as source:
        with pytest.raises(Refused if error is None else type(error)) as caught:
            await http_upload(f"http://127.0.0.1:{port}/", source, 3_000_000)
    assert error is None or caught.value is error
    if server.head:
        await server.ended.wait()
    assert len(server.body) < 3_000_000
    await nothing_left(before)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\ntrue", Denied),
        (b"HTTP/1.1 503 Away\r\nContent-Length: 4\r\n\r\ntrue", Failing),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue", Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\ntr", Unavailable),
        (b"nonsense\r\n\r\n", Unavailable),
        (b"", Unavailable),
    ],
)
async def test_answers_that_come_before_the_end(
    start_tcp: StartTcp, answer: bytes, error: type[PortError]
) -> None:
    """Nothing more is sent then, and the source is not asked for more."""
    port = await start_tcp(Server(answer, after=1_000_000, lingers=answer.endswith(b"\r\ntrue")))
    before = open_files()
    async with aclosing(chunks_of(*[MEGABYTE] * 200)) as source:
        with pytest.raises(error, match=f"127.0.0.1:{port}"):
            await http_upload(f"http://127.0.0.1:{port}/", source, 200_000_000, stall=1.0)
        assert [chunk async for chunk in source]
    await nothing_left(before)


@pytest.mark.parametrize("after", [0, 1_000_000])
async def test_a_peer_that_does_not_read(start_tcp: StartTcp, after: int) -> None:
    """It is dropped when nothing moves for too long, and also one that never answers."""

    async def deaf(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            left = after
            while left > 0:
                left -= len(await stream.receive_some(left))
            await trio.sleep_forever()

    port = await start_tcp(deaf)
    before = open_files()
    for size in (1, 60):
        async with aclosing(chunks_of(*[MEGABYTE] * size)) as source:
            with pytest.raises(Unavailable, match=r"did not answer within 0\.3 s"), trio.fail_after(5):
                await http_upload(f"http://127.0.0.1:{port}/", source, size * 1_000_000, stall=0.3)
    assert open_files() <= before + 2  # the server's own ends


async def test_a_slow_peer(start_tcp: StartTcp) -> None:
    """It is waited for as long as something moves, and the source with it."""
    given = taken = 0

    async def slow(stream: trio.SocketStream) -> None:
        nonlocal taken
        async with stream:
            await read_head(stream)
            while taken < 20_000_000:
                taken += len(await stream.receive_some(1_000_000))
                assert given - taken < 15_000_000
                await trio.sleep(0.02)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def count() -> AsyncGenerator[bytes, None]:
        nonlocal given
        for _ in range(20):
            given += len(MEGABYTE)
            yield MEGABYTE

    port = await start_tcp(slow)
    await http_upload(f"http://127.0.0.1:{port}/", count(), 20_000_000, stall=1.0)
    assert taken == 20_000_000


async def test_tls(serve: Serve, certificates: Certificates) -> None:
    """Certificates are verified, both ways, against the file of authorities when one is given."""

    async def measure(posted: Posted) -> PostAnswer:
        return PostAnswer(str(len(posted.text)))

    server = await serve(echo, post=measure, tls=certificates.server)
    url = f"https://localhost:{server.port}/healthz"
    chunks = chunks_of(*[MEGABYTE] * 5)
    size = 5 * len(MEGABYTE)
    answer = await http_upload(url, chunks, size, method="POST", via=Outbound(ca_file=certificates.ca_file))
    assert answer.body == size
    async with http_download(url, via=Outbound(ca_file=certificates.ca_file)) as download:
        assert b"".join([piece async for piece in download]) == b'{"status":"ok"}'
    async with aclosing(chunks_of(MEGABYTE)) as source:
        with pytest.raises(Refused, match="is not trusted"):
            await http_upload(url, source, len(MEGABYTE), method="POST")
    with pytest.raises(Refused, match="is not trusted"):
        async with http_download(url):
            pytest.fail("entered")


async def test_nobody_listens() -> None:
    """Unavailable, both ways."""
    async with aclosing(chunks_of(MEGABYTE)) as source:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await http_upload("http://127.0.0.1:9/", source, len(MEGABYTE))
    with pytest.raises(Unavailable, match="cannot be reached"):
        await read(9)


@pytest.mark.parametrize("wait", [0.0, 0.001, 0.01, 0.05, 0.2])
async def test_transfers_that_are_cancelled(start_tcp: StartTcp, wait: float) -> None:
    """At any moment, many at once: no connection is left, and nobody complains."""

    async def silent(stream: trio.SocketStream) -> None:
        async with stream:
            await read_all(stream)

    async def most() -> AsyncGenerator[bytes, None]:
        for _ in range(5):
            yield MEGABYTE
        await trio.sleep_forever()

    async def send(port: int) -> None:
        async with aclosing(most()) as source:
            await http_upload(f"http://127.0.0.1:{port}/", source, 6_000_000)

    silent_port = await start_tcp(silent)
    talking_port = await start_tcp(sending("200 OK\r\nContent-Length: 900000000", *[MEGABYTE] * 900))
    server = Server(after=6_000_000)
    taking_port = await start_tcp(server)
    before = open_files()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(read, silent_port)
            nursery.start_soon(read, talking_port)
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep(wait)
        nursery.cancel_scope.cancel()
    with trio.move_on_after(wait):
        await send(taking_port)
    with trio.move_on_after(wait):
        await send(silent_port)
    assert len(server.body) < 6_000_000
    await nothing_left(before)


async def test_transfers_take_little_memory(start_tcp: StartTcp) -> None:
    """Whatever their size, in small chunks or large ones."""

    async def swallow(stream: trio.SocketStream) -> None:
        async with stream:
            head = await read_head(stream)
            found = re.search(r"Content-Length: (\d+)", head)
            left = int(found[1]) if found else 0
            while left:
                left -= len(await stream.receive_some(65_536))
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    up = await start_tcp(swallow)
    down = await start_tcp(sending("200 OK\r\nContent-Length: 50000000", *[MEGABYTE] * 50))
    small = MEGABYTE[:10_000]
    tracemalloc.start()
    try:
        await http_upload(f"http://127.0.0.1:{up}/", chunks_of(*[MEGABYTE] * 50), 50_000_000)
        await http_upload(f"http://127.0.0.1:{up}/", chunks_of(*[small] * 5_000), 50_000_000)
        assert await read(down) == 50_000_000
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
