"""Servers that are reached through a proxy: a small one of our own, which notes what it is asked for."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trustme
from tests.unit.adapters.net.peers import Serve, StartTcp, echo, read_head

from coreflow.adapters.net import (
    Outbound,
    PostAnswer,
    Posted,
    Proxies,
    connect_websocket,
    http_download,
    http_get,
    http_post,
    http_upload,
)
from coreflow.domain.errors import Unavailable

HOST = "cloudly.example.com"


def proxy(
    port: int, heads: list[str], answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n"
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A proxy from which every way leads to one port here."""

    async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for piece in source:
            await target.send_all(piece)
        await target.send_eof()

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            head = await read_head(stream)
            heads.append(head)
            if not answer.startswith(b"HTTP/1.1 200"):
                await stream.send_all(answer)
                return
            try:
                async with (
                    await trio.open_tcp_stream("127.0.0.1", port) as server,
                    trio.open_nursery() as nursery,
                ):
                    if head.startswith("CONNECT "):
                        await stream.send_all(answer)
                    else:
                        await server.send_all(head.replace(f"http://{HOST}:{port}", "", 1).encode())
                    nursery.start_soon(copy, stream, server)
                    await copy(server, stream)
                    nursery.cancel_scope.cancel()
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    return handle


@pytest.fixture
def trusted(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS for a name that only the proxy knows, and whom to trust."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return context, tmp_path / "ca.pem"


async def chunks() -> AsyncIterator[bytes]:
    yield b"[1, 2]"


async def test_everything_goes_through_a_tunnel(
    serve: Serve, start_tcp: StartTcp, trusted: tuple[ssl.SSLContext, Path]
) -> None:
    """With `https` the proxy learns where to connect to and nothing else; it gets its own password."""

    async def reflect(posted: Posted) -> PostAnswer:
        return PostAnswer(posted.text)

    server = await serve(echo, post=reflect, tls=trusted[0])
    heads: list[str] = []
    port = await start_tcp(proxy(server.port, heads))
    via = Outbound(ca_file=trusted[1], proxies=Proxies(https=f"http://user:p%40ss@127.0.0.1:{port}"))
    base = f"{HOST}:{server.port}"
    assert (await http_get(f"https://{base}/healthz?secret", via=via)).body == {"status": "ok"}
    assert (await http_post(f"https://{base}/", [1], via=via)).body == [1]
    assert (await http_upload(f"https://{base}/", chunks(), 6, method="POST", via=via)).body == [1, 2]
    async with http_download(f"https://{base}/healthz", via=via) as download:
        assert b"".join([piece async for piece in download]) == b'{"status":"ok"}'
    async with connect_websocket(f"wss://{base}/", via=via) as connection:
        await connection.send("hello")
        assert await connection.receive() == "hello"
    assert [head.partition("\r\n")[0] for head in heads] == [f"CONNECT {base} HTTP/1.1"] * 5
    assert all("Proxy-Authorization: Basic dXNlcjpwQHNz" in head for head in heads)
    assert not [head for head in heads if "secret" in head]


async def test_plain_http_is_handed_to_the_proxy(serve: Serve, start_tcp: StartTcp) -> None:
    """With its whole address; which proxy depends on the scheme."""
    server = await serve()
    heads: list[str] = []
    port = await start_tcp(proxy(server.port, heads))
    via = Outbound(proxies=Proxies(http=f"http://user:p%40ss@127.0.0.1:{port}", https="http://127.0.0.1:9"))
    assert (await http_get(f"http://{HOST}:{server.port}/healthz", via=via)).body == {"status": "ok"}
    assert heads[0].startswith(f"GET http://{HOST}:{server.port}/healthz HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwQHNz" in heads[0]


@pytest.mark.parametrize("scheme", ["https", "wss"])
async def test_a_proxy_that_does_not_let_us_through(start_tcp: StartTcp, scheme: str) -> None:
    """The error names the proxy's part in it, and no password."""
    port = await start_tcp(proxy(0, [], b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"))
    for address, text in (
        (f"127.0.0.1:{port}", rf"the proxy on the way to {HOST}:443 answered with HTTP status 407"),
        (
            "127.0.0.1:9",
            rf"the proxy 127\.0\.0\.1:9 on the way to {HOST}:443 cannot be reached: Connection refused",
        ),
    ):
        via = Outbound(proxies=Proxies(https=f"http://user:secret@{address}"))
        with pytest.raises(Unavailable, match=text) as caught:
            await _reach(scheme, via)
        assert "secret" not in str(caught.value)


async def _reach(scheme: str, via: Outbound) -> None:
    if scheme == "https":
        await http_get(f"https://{HOST}/", via=via)
    else:
        async with connect_websocket(f"wss://{HOST}/", via=via):
            pass


@pytest.mark.parametrize(
    ("url", "goes_through"),
    [
        ("https://cloudly.example.com/", True),
        ("wss://cloudly.example.com/", True),
        ("http://cloudly.example.com/", False),
        ("https://inside.example.org/", False),
        ("https://a.inside.example.org/", False),
        ("https://10.1.2.3/", False),
        ("https://localhost/", False),
        ("https://a.localhost/", False),
        ("https://127.0.0.1:3000/", False),
        ("https://127.9.9.9/", False),
        ("https://[::1]/", False),
        ("https://[2001:db8::1]/", True),
    ],
)
def test_who_is_reached_without_one(url: str, goes_through: bool) -> None:
    """Loopback never has one, nor what the list names."""
    proxies = Proxies(https="http://user:secret@proxy:3128", bypass="inside.example.org, 10.1.2.3")
    assert bool(proxies.options(url)) is goes_through
    assert not Proxies(https="http://proxy:3128", bypass="*").options(url)
    assert "secret" not in repr(proxies)
