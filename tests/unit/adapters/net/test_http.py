"""Small HTTP: JSON there and back, and what servers do instead."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from tests.unit.adapters.net.peers import Certificates, Serve, StartTcp, echo, open_files, read_all, read_head

from coreflow.adapters.net import Denied, Outbound, PostAnswer, Posted, http_get, http_post
from coreflow.domain.errors import PortError, Refused, Unavailable


def answering(
    status: str, body: bytes = b"", headers: str = ""
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """A bare server that answers every request in the same way."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
            await stream.send_all(head.encode() + body)

    return handle


async def test_what_is_asked(start_tcp: StartTcp) -> None:
    """Headers of the caller are sent, with the type of what is sent and wanted."""
    heads: list[str] = []

    async def note(stream: trio.SocketStream) -> None:
        async with stream:
            heads.append(await read_head(stream))
            await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    port = await start_tcp(note)
    answer = await http_post(f"http://127.0.0.1:{port}/a?b=c", {}, headers={"Authorization": "Bearer x"})
    assert (answer.status, answer.body) == (204, None)
    assert heads[0].startswith("POST /a?b=c HTTP/1.1\r\n")
    for line in ("Authorization: Bearer x", "Accept: application/json", "Content-Type: application/json"):
        assert f"{line}\r\n" in heads[0]


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "text"),
    [
        ("200 OK", b"<html>", "", Unavailable, "did not answer in JSON"),
        ("200 OK", b"1" * 101, "", Unavailable, "more than 100 bytes"),
        (
            "301 Moved",
            b"",
            "Location: http://127.0.0.1:9/\r\n",
            Refused,
            r"redirects to http://127\.0\.0\.1:9/, which",
        ),
        ("403 Forbidden", b"<html>", "", Denied, "HTTP status 403"),
        ("404 Not Found", b'{"error":"x"}', "", Denied, "HTTP status 404"),
        ("429 Too Many Requests", b"", "", Unavailable, "HTTP status 429"),
        ("503 Service Unavailable", b"", "", Unavailable, "HTTP status 503"),
        ("nonsense", b"", "", Unavailable, "does not speak HTTP"),
    ],
)
async def test_answers_that_are_errors(
    start_tcp: StartTcp, status: str, body: bytes, headers: str, error: type[PortError], text: str
) -> None:
    """A status, or an answer that cannot be read, becomes one of the two errors."""
    port = await start_tcp(answering(status, body, headers))
    with pytest.raises(error, match=rf"127\.0\.0\.1:{port}.*{text}"):
        await http_get(f"http://127.0.0.1:{port}/", max_answer=100)


async def test_the_body_of_a_denial(start_tcp: StartTcp) -> None:
    """What a server says about its refusal is there for the caller, and not in the text of the error."""
    port = await start_tcp(answering("409 Conflict", b'{"code":"in use"}'))
    with pytest.raises(Denied) as denied:
        await http_post(f"http://127.0.0.1:{port}/", {})
    assert (denied.value.status, denied.value.body) == (409, {"code": "in use"})
    assert "in use" not in str(denied.value)


async def test_a_server_that_is_too_slow(start_tcp: StartTcp) -> None:
    """The time limit covers everything, also an answer that trickles in."""

    async def trickle(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                while True:
                    await stream.send_all(b"1")
                    await trio.sleep(0.01)
            except trio.BrokenResourceError:
                pass

    port = await start_tcp(trickle)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"), trio.fail_after(2):
        await http_get(f"http://127.0.0.1:{port}/", timeout=0.2)


async def test_a_redirect_names_both_ends(start_tcp: StartTcp) -> None:
    """Without a query, which may be secret."""

    async def redirect(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            await stream.send_all(
                b"HTTP/1.1 307 Moved\r\nLocation: https://h.example/a?secret\r\nContent-Length: 0\r\n\r\n"
            )

    port = await start_tcp(redirect)
    with pytest.raises(Denied, match=rf"127\.0\.0\.1:{port} redirects to https://h\.example/a, which is not"):
        await http_get(f"http://127.0.0.1:{port}/?secret")


async def test_a_long_answer_over_a_slow_line(start_tcp: StartTcp) -> None:
    """The limit is about silence; an answer that goes on arriving may take longer."""

    async def dribble(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n[")
            for _ in range(4):
                await trio.sleep(0.1)
                await stream.send_all(b"1" * 10)
            await stream.send_all(b"]")

    port = await start_tcp(dribble)
    assert (await http_get(f"http://127.0.0.1:{port}/", timeout=0.25)).status == 200


async def test_a_server_that_hangs_up(start_tcp: StartTcp) -> None:
    """Half an answer is none."""

    async def hang_up(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

    port = await start_tcp(hang_up)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await http_get(f"http://127.0.0.1:{port}/")


async def test_addresses_that_lead_nowhere() -> None:
    """As with WebSockets."""
    with pytest.raises(Refused, match="address of the form"):
        await http_get("unix:///var/run/docker.sock")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await http_get("http://127.0.0.1:9/")


async def test_tls(serve: Serve, certificates: Certificates) -> None:
    """Certificates are verified, against the file of authorities when one is given."""

    async def reflect(posted: Posted) -> PostAnswer:
        return PostAnswer(posted.text)

    server = await serve(echo, post=reflect, tls=certificates.server)
    address = f"https://localhost:{server.port}/"
    assert (await http_post(address, [1], via=Outbound(ca_file=certificates.ca_file))).body == [1]
    with pytest.raises(Refused, match="is not trusted"):
        await http_post(address, [1])


async def test_cancelled_requests_leave_nothing_behind(start_tcp: StartTcp) -> None:
    """A request can be given up at any time."""

    async def silent(stream: trio.SocketStream) -> None:
        async with stream:
            await read_all(stream)

    port = await start_tcp(silent)
    before = open_files()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(http_get, f"http://127.0.0.1:{port}/")
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    with trio.fail_after(2):
        while open_files() > before:  # noqa: ASYNC110 - the server's ends close by themselves
            await trio.sleep(0.01)
