"""WebSocket connections to servers, good and bad."""

import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from tests.unit.adapters.net.peers import (
    CLOSE,
    PING,
    PONG,
    Certificates,
    Serve,
    StartTcp,
    accept,
    echo,
    ending,
    frame,
    open_files,
    read_all,
    read_head,
)

from coreflow.adapters.net import (
    ABNORMAL,
    Closed,
    Outbound,
    SocketOptions,
    WebSocket,
    connect_websocket,
    http_get,
)
from coreflow.adapters.net.errors import NobodyBehind
from coreflow.domain.errors import PortError, Refused, Unavailable

Handler = Callable[[trio.SocketStream], Awaitable[None]]


def upgraded(then: Handler) -> Handler:
    """A bare server that grants the upgrade and then does as told."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await accept(stream)
            await then(stream)

    return handle


def saying(text: bytes) -> Handler:
    """A bare server that answers every request with the same bytes."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await read_head(stream)
            await stream.send_all(text)

    return handle


async def silent(stream: trio.SocketStream) -> None:
    """A bare server that reads and says nothing."""
    async with stream:
        await read_all(stream)


@pytest.mark.parametrize("scheme", ["http", "ws", "HTTP"])
async def test_text_goes_there_and_back(serve: Serve, scheme: str) -> None:
    """A message arrives as it was sent, with either spelling of the address."""
    server = await serve()
    async with connect_websocket(f"{scheme}://127.0.0.1:{server.port}/any/path?x=1") as connection:
        for text in ("hällo ☃", "", "x" * 200_000):
            await connection.send(text)
            assert await connection.receive() == text
        await connection.send("hällo".encode())
        assert await connection.receive() == "hällo"


async def test_a_binary_message_is_read_as_text(start_tcp: StartTcp) -> None:
    """The opcode does not matter, and bytes that are no text do not end the connection."""

    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(frame("hällo".encode(), opcode=2) + frame(b"\xff!", opcode=2))
        await stream.receive_some()  # the goodbye

    port = await start_tcp(upgraded(talk))
    async with connect_websocket(f"http://127.0.0.1:{port}") as connection:
        assert await connection.receive() == "hällo"
        assert await connection.receive() == "\N{REPLACEMENT CHARACTER}!"


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("ftp://127.0.0.1", Refused, "address of the form"),
        ("https://", Refused, "address of the form"),
        ("http://[::1", Refused, "address of the form"),
        ("http://127.0.0.1:99999", Refused, "address of the form"),
        ("cloudly.example.com", Refused, "address of the form"),
        ("http://127.0.0.1:0", Refused, "port 0 is no address"),
        ("http://127.0.0.1:9", Unavailable, "127.0.0.1:9 cannot be reached"),
        ("http://cloudly.invalid", Unavailable, "cloudly.invalid:80: no address is known"),
    ],
)
async def test_an_address_that_leads_nowhere(address: str, error: type[PortError], text: str) -> None:
    """An address that can never work is refused, one that may work later is unavailable; the text says which it was."""
    with pytest.raises(error, match=text):
        async with connect_websocket(address):
            pass


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", Refused, "HTTP status 401"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Refused, "HTTP status 404"),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", Unavailable, "HTTP status 429"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", NobodyBehind, "HTTP status 502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Refused, "does not speak WebSocket"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: http://u:secret@127.0.0.1:9/x?secret\r\nContent-Length: 0\r\n\r\n",
            Refused,
            r"127\.0\.0\.1:\d+ redirects to http://127\.0\.0\.1:9/x, which is not followed",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
            Refused,
            r"127\.0\.0\.1:(\d+) redirects to ws://127\.0\.0\.1:\1/login, which",
        ),
        (b"\x15\x03\x01\x00\x02\x02\x16", Unavailable, "speaks TLS: the address needs https"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unavailable, "does not speak HTTP"),
        (b"", Unavailable, "ServerDisconnected"),
    ],
)
async def test_a_server_that_does_not_upgrade(
    start_tcp: StartTcp, answer: bytes, error: type[PortError], text: str
) -> None:
    """What a server says instead of upgrading decides whether asking again makes sense."""
    port = await start_tcp(saying(answer))
    with pytest.raises(error, match=text):
        async with connect_websocket(f"http://127.0.0.1:{port}"):
            pass


async def test_a_server_that_does_not_answer(start_tcp: StartTcp) -> None:
    """Connecting takes no longer than it may."""
    port = await start_tcp(silent)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"), trio.fail_after(2):
        async with connect_websocket(f"http://127.0.0.1:{port}", connect_timeout=0.2):
            pass


async def test_connecting_can_be_cancelled(start_tcp: StartTcp) -> None:
    """Cancelled attempts end at once and leave no socket behind."""
    port = await start_tcp(silent)
    before = open_files()
    for _ in range(20):
        with trio.move_on_after(0.01) as scope:
            async with connect_websocket(f"http://127.0.0.1:{port}"):
                pass
        assert scope.cancelled_caught
    with trio.fail_after(2):
        while open_files() > before:  # noqa: ASYNC110 - the server's ends close by themselves
            await trio.sleep(0.01)


async def test_the_goodbye_of_a_server_arrives(serve: Serve) -> None:
    """A receiver learns the code and the reason; so does everybody who comes later, senders too."""

    async def dismiss(connection: WebSocket) -> None:
        await connection.close(4001, "come back\x1b[31m later")

    server = await serve(dismiss)
    async with connect_websocket(f"http://127.0.0.1:{server.port}") as connection:
        for _ in range(7):
            closed = await ending(connection)
            assert (closed.code, closed.reason) == (4001, "come back[31m later")
        with pytest.raises(Closed, match=r"connection closed: come back\[31m later \(4001\)"):
            await connection.send("too late")


async def test_a_goodbye_without_a_code(start_tcp: StartTcp) -> None:
    """An empty close frame is what RFC 6455 calls 1005."""

    async def dismiss(stream: trio.SocketStream) -> None:
        await stream.send_all(frame(b"", opcode=CLOSE))
        await stream.receive_some()  # the goodbye

    port = await start_tcp(upgraded(dismiss))
    async with connect_websocket(f"http://127.0.0.1:{port}") as connection:
        assert (await ending(connection)).code == 1005


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_just_ends(start_tcp: StartTcp, reset: bool) -> None:
    """A server that goes without a goodbye is 1006, whether it closed or reset the connection."""

    async def vanish(stream: trio.SocketStream) -> None:
        if reset:
            stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))

    port = await start_tcp(upgraded(vanish))
    async with connect_websocket(f"http://127.0.0.1:{port}") as connection:
        assert (await ending(connection)).code == ABNORMAL
        with pytest.raises(Closed):
            await connection.send("too late")


async def test_a_dead_server_is_found(start_tcp: StartTcp) -> None:
    """A server that stops answering pings is given up, and the receiver hears why."""
    port = await start_tcp(upgraded(silent))
    with trio.fail_after(2):
        async with connect_websocket(f"http://127.0.0.1:{port}", SocketOptions(heartbeat=0.2)) as connection:
            closed = await ending(connection)
    assert (closed.code, closed.reason) == (ABNORMAL, "the peer did not answer a ping")


async def test_a_quiet_server_is_not_dead(serve: Serve) -> None:
    """A server that answers pings and says nothing else is kept."""
    server = await serve()
    async with connect_websocket(
        f"http://127.0.0.1:{server.port}", SocketOptions(heartbeat=0.1)
    ) as connection:
        with trio.move_on_after(0.5) as scope:
            await connection.receive()
        assert scope.cancelled_caught
        await connection.send("still there?")
        assert await connection.receive() == "still there?"


async def test_a_message_that_arrives_slowly_is_a_sign_of_life(start_tcp: StartTcp) -> None:
    """A server in the middle of a long message is not dead, though it answers no ping."""

    async def dawdle(stream: trio.SocketStream) -> None:
        whole = frame(b"x" * 100)
        for start in range(0, len(whole), 10):
            await stream.send_all(whole[start : start + 10])
            await trio.sleep(0.05)

    port = await start_tcp(upgraded(dawdle))
    async with connect_websocket(f"http://127.0.0.1:{port}", SocketOptions(heartbeat=0.15)) as connection:
        assert await connection.receive() == "x" * 100


async def test_pings_are_answered(start_tcp: StartTcp) -> None:
    """A server that asks whether we are there hears that we are."""
    answers: list[bytes] = []

    async def ask(stream: trio.SocketStream) -> None:
        await stream.send_all(frame(b"you?", opcode=PING))
        answers.append(await stream.receive_some(100))
        await stream.send_all(frame(b"fine"))
        await stream.receive_some()  # the goodbye

    port = await start_tcp(upgraded(ask))
    async with connect_websocket(f"http://127.0.0.1:{port}") as connection:
        assert await connection.receive() == "fine"
    assert answers[0][0] == 0x80 | PONG


async def test_a_message_that_is_too_long_ends_the_connection(serve: Serve) -> None:
    """The longest message is accepted, one more byte closes with 1009, at the header already."""

    async def send(connection: WebSocket) -> None:
        await connection.send("x" * 1000)
        await connection.send("x" * 1001)
        await ending(connection)

    server = await serve(send)
    async with connect_websocket(
        f"http://127.0.0.1:{server.port}", SocketOptions(max_message=1000)
    ) as connection:
        assert len(await connection.receive()) == 1000
        assert (await ending(connection)).code == 1009


async def test_a_receiver_can_be_cancelled(serve: Serve) -> None:
    """Giving up on a message loses neither messages nor the connection."""
    server = await serve()
    async with connect_websocket(f"http://127.0.0.1:{server.port}") as connection:
        received = []
        for number in range(100):
            await connection.send(str(number))
            with trio.move_on_after(0.0005):
                received.append(await connection.receive())
        while len(received) < 100:
            received.append(await connection.receive())
        assert received == [str(number) for number in range(100)]


async def test_a_slow_receiver_slows_the_sender_down(serve: Serve) -> None:
    """While nobody receives, nothing is piled up here, and the sender has to wait."""
    sent = 0

    async def flood(connection: WebSocket) -> None:
        nonlocal sent
        while True:
            await connection.send("x" * 100_000)
            sent += 1

    server = await serve(flood)
    async with connect_websocket(f"http://127.0.0.1:{server.port}") as connection:
        await connection.receive()
        await trio.sleep(0.3)
        stuck = sent
        await trio.sleep(0.2)
        assert sent == stuck < 200
        for _ in range(300):
            await connection.receive()
        assert sent >= 300


async def test_a_server_that_does_not_read_is_given_up(start_tcp: StartTcp) -> None:
    """A message that waits too long for its reader ends the connection, for everybody who uses it."""

    async def stare(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    port = await start_tcp(upgraded(stare))
    async with connect_websocket(f"http://127.0.0.1:{port}", SocketOptions(send_timeout=0.2)) as connection:
        with pytest.raises(Closed, match=r"did not read for 0\.2 s"):
            await connection.send("x" * 20_000_000)
        assert "did not read" in (await ending(connection)).reason


async def test_a_slow_reader_is_no_deaf_one(start_tcp: StartTcp) -> None:
    """As long as something gets through, a long message may take as long as it takes."""

    async def sip(stream: trio.SocketStream) -> None:
        async for _ in stream:
            await trio.sleep(0.01)

    port = await start_tcp(upgraded(sip))
    async with connect_websocket(f"http://127.0.0.1:{port}", SocketOptions(send_timeout=0.3)) as connection:
        start = trio.current_time()
        await connection.send("x" * 6_000_000)
        assert trio.current_time() - start > 0.3


async def test_a_message_that_is_arriving_is_noticed(serve: Serve, start_tcp: StartTcp) -> None:
    """The number grows with it, and is 0 before and after, however many pings there are."""

    async def speak(stream: trio.SocketStream) -> None:
        await stream.send_all(frame(b"x" * 100, opcode=PING) + b"\x81\x7f" + (20_000).to_bytes(8, "big"))
        for _ in range(4):
            await trio.sleep(0.1)
            await stream.send_all(b"x" * 5_000)
        await stream.aclose()

    port = await start_tcp(upgraded(speak))
    seen = set()
    async with connect_websocket(f"http://127.0.0.1:{port}") as connection:

        async def watch() -> None:
            while True:
                seen.add(connection.arriving)
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            assert len(await connection.receive()) == 20_000
            nursery.cancel_scope.cancel()
        assert connection.arriving == 0
    assert 0 in seen
    assert len(seen) >= 4


async def test_https_to_a_plain_port(serve: Serve) -> None:
    """The error says which end speaks what."""
    server = await serve()
    address, text = (
        f"https://127.0.0.1:{server.port}/",
        rf"127\.0\.0\.1:{server.port} does not speak TLS, though",
    )
    with pytest.raises(Unavailable, match=text):
        await http_get(address)
    with pytest.raises(Unavailable, match=text):
        async with connect_websocket(address):
            pass


async def test_too_much_for_a_server_that_does_not_read(start_tcp: StartTcp) -> None:
    """Many senders cannot pile up more than the limit, even if each of them gives up waiting."""

    async def stare(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    port = await start_tcp(upgraded(stare))
    async with connect_websocket(
        f"http://127.0.0.1:{port}", SocketOptions(max_queued=20_000_000)
    ) as connection:
        for _ in range(20):
            with trio.move_on_after(0.01):
                await connection.send("x" * 1_000_000)
        await trio.sleep(0.1)
        with trio.move_on_after(0.01):
            await connection.send("x" * 10_000_000)
        with pytest.raises(Closed, match="too much is waiting"):
            await connection.send("x")


async def test_many_senders_do_not_mix_their_messages(serve: Serve) -> None:
    """Messages that are sent at the same time arrive whole."""
    server = await serve()
    texts = [chr(ord("a") + number % 26) * (number * 997) for number in range(100)]
    async with (
        connect_websocket(f"http://127.0.0.1:{server.port}") as connection,
        trio.open_nursery() as nursery,
    ):
        for text in texts:
            nursery.start_soon(connection.send, text)
        received = [await connection.receive() for _ in texts]
    assert sorted(received) == sorted(texts)


@pytest.mark.parametrize("compress", [False, True])
async def test_compression_is_offered_only_on_request(start_tcp: StartTcp, compress: bool) -> None:
    """Nothing is compressed unless asked for."""
    heads: list[str] = []

    async def note(stream: trio.SocketStream) -> None:
        async with stream:
            heads.append(await accept(stream))

    port = await start_tcp(note)
    async with connect_websocket(f"http://127.0.0.1:{port}/path", SocketOptions(compress=compress)):
        pass
    assert heads[0].startswith("GET /path HTTP/1.1")
    assert ("permessage-deflate" in heads[0]) is compress


async def test_compressed_messages(serve: Serve) -> None:
    """With compression on both sides, messages arrive all the same."""
    server = await serve(compress=True)
    async with connect_websocket(
        f"http://127.0.0.1:{server.port}", SocketOptions(compress=True)
    ) as connection:
        for text in ("short", "long " * 100_000):
            await connection.send(text)
            assert await connection.receive() == text


async def test_an_authority_of_our_own(serve: Serve, certificates: Certificates) -> None:
    """A certificate is accepted when its authority is in the file."""
    server = await serve(echo, tls=certificates.server)
    async with connect_websocket(
        f"https://localhost:{server.port}", via=Outbound(ca_file=certificates.ca_file)
    ) as connection:
        await connection.send("secret")
        assert await connection.receive() == "secret"


async def test_a_certificate_that_is_not_trusted(serve: Serve, certificates: Certificates) -> None:
    """Without the right authority, or for another name, there is no connection, and no point in trying again."""
    server = await serve(echo, tls=certificates.server)
    for host, ca_file, text in (
        ("localhost", None, "unable to get local issuer"),
        ("localhost", certificates.foreign_ca_file, "unable to get local issuer"),
        ("127.0.0.1", certificates.ca_file, "IP address mismatch"),
    ):
        with pytest.raises(Refused, match=rf"the certificate of {host}:\d+ is not trusted: {text}"):
            async with connect_websocket(f"https://{host}:{server.port}", via=Outbound(ca_file=ca_file)):
                pass


async def test_a_file_of_authorities_that_is_none(tmp_path: Path) -> None:
    """What is missing, meaningless, or no file at all is named, with the reason; a pipe is not waited for."""
    (tmp_path / "nonsense.pem").write_text("nonsense")
    block = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "damaged.pem").write_text(block)
    os.mkfifo(tmp_path / "pipe.pem")
    for name, reason in (
        ("missing.pem", "No such file"),
        ("nonsense.pem", "not a file of PEM certificates"),
        ("damaged.pem", "not a file of PEM certificates"),
        ("pipe.pem", "it is a named pipe, not a file"),
    ):
        with pytest.raises(Refused, match=f"{name}: {reason}"):
            async with connect_websocket("https://127.0.0.1:9", via=Outbound(ca_file=tmp_path / name)):
                pass


async def test_a_file_of_authorities_as_people_write_them(
    serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    """A byte order mark, other line ends and text around the blocks do no harm."""
    server = await serve(echo, tls=certificates.server)
    text = certificates.ca_file.read_text().replace("\n", "\r\n")
    (tmp_path / "ca.pem").write_text(f"\ufeffOur authority, für alle\r\n{text}", encoding="utf-8")
    async with connect_websocket(
        f"https://localhost:{server.port}", via=Outbound(ca_file=tmp_path / "ca.pem")
    ) as connection:
        await connection.send("secret")
        assert await connection.receive() == "secret"


async def test_tls_where_none_is_spoken(serve: Serve) -> None:
    """A server without TLS behind an https address is unavailable: somebody may turn TLS on."""
    server = await serve()
    with pytest.raises(Unavailable, match="does not speak TLS, though its address says so"):
        async with connect_websocket(f"https://localhost:{server.port}"):
            pass


async def test_an_exception_in_the_block_passes_unchanged(serve: Serve) -> None:
    """The connection is closed, and the exception is still the same and alone."""
    server = await serve()
    with pytest.raises(ZeroDivisionError):
        async with connect_websocket(f"http://127.0.0.1:{server.port}"):
            raise ZeroDivisionError


async def test_hundreds_of_connections_leave_nothing_behind(serve: Serve, certificates: Certificates) -> None:
    """Connections come and go, plain and encrypted, some of them cancelled half-way, and every socket is closed."""
    before = open_files()

    async def visit(address: str, seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with connect_websocket(address, via=Outbound(ca_file=certificates.ca_file)) as connection:
                await connection.send("hello")
                await connection.receive()

    async with trio.open_nursery() as servers:
        plain = await serve(echo, servers)
        secure = await serve(echo, servers, tls=certificates.server)
        for _ in range(4):
            async with trio.open_nursery() as visitors:
                for number in range(25):
                    seconds = number / 500 if number % 2 else 10
                    visitors.start_soon(visit, f"http://127.0.0.1:{plain.port}", seconds)
                    visitors.start_soon(visit, f"https://localhost:{secure.port}", seconds)
        servers.cancel_scope.cancel()
    assert open_files() <= before
