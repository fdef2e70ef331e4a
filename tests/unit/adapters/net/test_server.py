"""The WebSocket server: what it accepts, what it refuses, and how it ends."""

import re

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.adapters.net.peers import CLOSE, Serve, echo, ending, frame, open_files, read_all, upgrade

from coreflow.adapters import net
from coreflow.adapters.net import (
    ABNORMAL,
    GOING_AWAY,
    INTERNAL_ERROR,
    Closed,
    Denied,
    Listening,
    PostAnswer,
    Posted,
    Room,
    WebSocket,
    connect_websocket,
    http_get,
    http_post,
)
from coreflow.domain.errors import Unavailable


def address(server: Listening, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


@pytest.mark.parametrize("path", ["/", "/typedrequest", "/any/thing?x=1"])
async def test_every_path_upgrades(serve: Serve, path: str) -> None:
    """The path does not matter, the handler can see it."""
    paths: list[str] = []

    async def note(connection: WebSocket) -> None:
        paths.append(connection.path)
        assert re.fullmatch(r"127\.0\.0\.1:\d+", connection.peer)

    server = await serve(note)
    async with connect_websocket(address(server, path)) as connection:
        assert (await ending(connection)).code == 1000
    assert paths == [path.partition("?")[0]]


@pytest.mark.parametrize("compress", [False, True])
async def test_compression_is_accepted_only_if_wanted(serve: Serve, compress: bool) -> None:
    """A client's offer to compress is passed over unless the server was told to accept it."""
    server = await serve(compress=compress)
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    stream, head = await upgrade(server.port, headers=offer)
    await stream.aclose()
    assert " 101 " in head
    assert ("permessage-deflate" in head) is compress


async def test_the_first_subprotocol_that_is_offered_is_taken(serve: Serve) -> None:
    """Some clients insist that one of their subprotocols is chosen; nothing depends on which."""
    server = await serve()
    stream, head = await upgrade(server.port, headers="Sec-WebSocket-Protocol: one, two\r\n")
    await stream.aclose()
    assert "sec-websocket-protocol: one\r\n" in head.lower()


async def test_an_upgrade_that_is_none(serve: Serve) -> None:
    """A handshake without a proper key is a bad request."""
    server = await serve()
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert b" 400 Bad Request" in await stream.receive_some(1000)
    await stream.aclose()


# ---------------------------------------------------------------- plain HTTP


async def test_health(serve: Serve) -> None:
    """The health page says that nothing is wrong, or what is."""
    wrong = ""
    server = await serve(healthz=lambda: wrong)
    assert (await http_get(address(server, "/healthz"))).body == {"status": "ok"}
    wrong = "no pass for an hour"
    with pytest.raises(Unavailable, match="HTTP status 503"):
        await http_get(address(server, "/healthz"))


async def test_a_post_goes_to_its_handler(serve: Serve) -> None:
    """A handler gets the path and the text, and decides about text and status of the answer."""

    async def answer(posted: Posted) -> PostAnswer:
        await trio.lowlevel.checkpoint()
        if posted.text == "{}":
            return PostAnswer('{"error":"Invalid request"}', 400)
        return PostAnswer(f'{{"path":"{posted.path}","text":{posted.text}}}')

    server = await serve(post=answer)
    assert (await http_post(address(server, "/typedrequest"), ["hällo"])).body == {
        "path": "/typedrequest",
        "text": ["hällo"],
    }
    with pytest.raises(Denied) as denied:
        await http_post(address(server), {})
    assert (denied.value.status, denied.value.body) == (400, {"error": "Invalid request"})


async def test_requests_that_nobody_handles(serve: Serve) -> None:
    """Anything else is not found, in JSON."""
    server = await serve()
    with pytest.raises(Denied) as get:
        await http_get(address(server, "/typedrequest"))
    with pytest.raises(Denied) as post:
        await http_post(address(server, "/healthz"), {})
    for denied in (get, post):
        assert (denied.value.status, denied.value.body) == (404, {"error": "Not found"})


async def test_a_body_that_is_too_long(serve: Serve) -> None:
    """The limit for messages is one for bodies as well."""

    async def measure(posted: Posted) -> PostAnswer:
        return PostAnswer(str(len(posted.text)))

    server = await serve(post=measure, max_message=1000)
    assert (await http_post(address(server), "x" * 998)).body == 1000
    with pytest.raises(Denied, match="HTTP status 413"):
        await http_post(address(server), "x" * 999)


async def test_a_bug_in_a_post_handler_costs_one_request(serve: Serve) -> None:
    """The client hears that something is wrong here; the log has the place, and not the message."""

    async def fail(posted: Posted) -> PostAnswer:
        raise ValueError(posted.text)

    server = await serve(post=fail)
    with capture_logs() as logs, pytest.raises(Unavailable, match="HTTP status 500"):
        await http_post(address(server), "secret")
    assert [(entry["event"], entry["error"]) for entry in logs] == [("unexpected error", "ValueError")]
    assert "in fail" in logs[0]["traceback"]
    assert "secret" not in str(logs)


async def test_a_client_that_hangs_up_cancels_its_post(serve: Serve) -> None:
    """Nobody works for a client that has gone."""
    started, ended = trio.Event(), trio.Event()

    async def work(_: Posted) -> PostAnswer:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    server = await serve(post=work)
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    await started.wait()
    await stream.aclose()
    with trio.fail_after(2):
        await ended.wait()


async def test_bad_requests_are_not_quoted_in_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever sends something else than HTTP is told so, and cannot write into our log."""
    server = await serve()
    for start in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(start + b"GET secret secret secret\r\n\r\n")
        assert b" 400 Bad Request" in await read_all(stream)
        await stream.aclose()
    assert caplog.text == ""


async def test_a_connection_that_asks_for_nothing_is_dropped(serve: Serve) -> None:
    """Neither silence nor half a request keeps a connection."""
    server = await serve(idle_timeout=0.1)
    for start in (b"", b"GET /heal"):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        if start:
            await stream.send_all(start)
        with trio.fail_after(2):
            assert await read_all(stream) == b""
        await stream.aclose()


# ---------------------------------------------------------------- handlers and limits


async def test_a_handler_learns_that_its_peer_has_gone(serve: Serve) -> None:
    """A goodbye is told with its code, a lost connection is 1006; what was said before is still received."""
    told: list[tuple[int, list[str | bytes]]] = []

    async def listen(connection: WebSocket) -> None:
        received: list[str | bytes] = []
        try:
            while True:
                received.append(await connection.receive())
                await trio.sleep(0.01)
        except Closed as closed:
            told.append((closed.code, received))

    server = await serve(listen)
    for last in (frame(b"\x0f\xa1", opcode=CLOSE, masked=True), b""):
        stream, _ = await upgrade(server.port)
        await stream.send_all(frame(b"one", masked=True) + frame(b"two", masked=True) + last)
        await stream.aclose()
    with trio.fail_after(2):
        while len(told) < 2:  # noqa: ASYNC110 - the end of a handler is no event
            await trio.sleep(0.01)
    assert sorted(told) == [(ABNORMAL, ["one", "two"]), (4001, ["one", "two"])]


async def test_a_handler_that_does_not_notice_is_cancelled(serve: Serve) -> None:
    """A handler that waits for something else does not outlive its connection for long."""
    ended = trio.Event()

    async def wait(_: WebSocket) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    server = await serve(wait, grace=0.1)
    stream, _ = await upgrade(server.port)
    await stream.aclose()
    with trio.fail_after(2):
        await ended.wait()


async def test_a_bug_in_a_handler_costs_one_connection(serve: Serve) -> None:
    """Its peer hears of an internal error, the others go on; the end of a connection is no bug, in groups neither."""

    async def fragile(connection: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            while True:
                text = await connection.receive()
                if str(text).startswith("bug"):
                    raise ValueError(str(text))
                await connection.send(text)

    server = await serve(fragile)
    with capture_logs() as logs:
        async with connect_websocket(address(server)) as other:
            async with connect_websocket(address(server)) as connection:
                await connection.send("bug secret")
                assert (await ending(connection)).code == INTERNAL_ERROR
            await other.send("still there?")
            assert await other.receive() == "still there?"
        await trio.sleep(0.05)
    assert [entry["error"] for entry in logs] == ["ValueError"]
    assert "in fragile" in logs[0]["traceback"]
    assert "bug secret" not in str(logs)


async def test_connections_beyond_the_limit_are_turned_away(serve: Serve) -> None:
    """A connection too many hears so, once it is logged, and there is room again when others have gone."""
    server = await serve(room=Room(connections=2))
    with capture_logs() as logs:
        async with connect_websocket(address(server)), connect_websocket(address(server)):
            assert server.connections == 2
            for _ in range(3):
                with pytest.raises(Unavailable, match="HTTP status 503"):
                    async with connect_websocket(address(server)):
                        pass
        with trio.fail_after(2):
            while server.connections:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
        async with connect_websocket(address(server)) as connection:
            await connection.send("welcome")
            assert await connection.receive() == "welcome"
    assert [entry["limit"] for entry in logs] == [2]


@pytest.mark.parametrize("arrives", [0.0, 1.0])
async def test_a_message_that_is_too_long_is_told_to_its_sender(serve: Serve, arrives: float) -> None:
    """The connection closes with 1009, also for a sender that is still busy sending."""
    told: list[int] = []

    async def listen(connection: WebSocket) -> None:
        told.append((await ending(connection)).code)

    server = await serve(listen, max_message=1_000_000)
    stream, _ = await upgrade(server.port)
    await stream.send_all(frame(b"x" * 1_000_000, masked=True))
    await stream.send_all(frame(b"", length=30_000_000, masked=True))
    await stream.send_all(b"x" * int(30_000_000 * arrives))
    answer = await stream.receive_some(1000)
    await stream.aclose()
    assert answer[0] == 0x80 | CLOSE
    assert int.from_bytes(answer[2:4]) == 1009
    with trio.fail_after(2):
        while not told:  # noqa: ASYNC110 - the end of a handler is no event
            await trio.sleep(0.01)
    assert told == [1009]


async def test_a_peer_that_breaks_the_protocol_is_told(serve: Serve) -> None:
    """Reserved bits and invalid text close with their codes."""
    server = await serve()
    for bad, code in ((b"\xf1\x80\0\0\0\0", 1002), (frame(b"\xff", masked=True), 1007)):
        stream, _ = await upgrade(server.port)
        await stream.send_all(bad)
        answer = await stream.receive_some(1000)
        await stream.aclose()
        assert int.from_bytes(answer[2:4]) == code


async def test_a_dead_client_is_found(serve: Serve) -> None:
    """A client that stops answering pings loses its connection, and the handler hears why."""
    tell, told = trio.open_memory_channel[str](1)

    async def listen(connection: WebSocket) -> None:
        await tell.send((await ending(connection)).reason)

    server = await serve(listen, heartbeat=0.2)
    stream, _ = await upgrade(server.port)
    with trio.fail_after(2):
        await read_all(stream)
        assert await told.receive() == "the peer did not answer a ping"
    await stream.aclose()


async def test_a_client_that_does_not_read_is_given_up(serve: Serve) -> None:
    """A client that lets messages wait too long loses its connection; others are served meanwhile."""
    told: list[str] = []

    async def flood(connection: WebSocket) -> None:
        if connection.path == "/echo":
            await echo(connection)
        try:
            while True:
                await connection.send("x" * 1_000_000)
        except Closed as closed:
            told.append(closed.reason)

    server = await serve(flood, send_timeout=0.3)
    stream, _ = await upgrade(server.port)
    async with connect_websocket(address(server, "/echo")) as connection:
        with trio.fail_after(3):
            while not told:
                await connection.send("hello")
                assert await connection.receive() == "hello"
    await stream.aclose()
    assert told == ["the peer did not read for 0.3 s"]


async def test_hundreds_of_clients_at_once(serve: Serve) -> None:
    """Many connections talk at the same time, and none is left over."""
    server = await serve(room=Room(connections=300))
    before = open_files()

    async def talk(number: int) -> None:
        async with connect_websocket(address(server)) as connection:
            for turn in range(5):
                await connection.send(f"{number} {turn}")
                assert await connection.receive() == f"{number} {turn}"

    async with trio.open_nursery() as nursery:
        for number in range(250):
            nursery.start_soon(talk, number)
    with trio.fail_after(5):
        while server.connections or open_files() > before:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)


# ---------------------------------------------------------------- the end


async def test_a_server_that_stops_says_goodbye(serve: Serve) -> None:
    """Clients learn that the server is going away, the port is free again, and nothing is left open."""
    before = open_files()
    async with trio.open_nursery() as servers:
        server = await serve(into=servers)
        async with connect_websocket(address(server)) as connection:
            servers.cancel_scope.cancel()
            assert (await ending(connection)).code == GOING_AWAY
    with pytest.raises(Unavailable):
        await http_get(address(server, "/healthz"))
    assert open_files() <= before


async def test_a_server_stops_in_time_whatever_its_peers_do(serve: Serve) -> None:
    """Neither a client that does not read, nor one that is silent, nor a request in progress holds up the end."""

    async def flood(connection: WebSocket) -> None:
        while True:
            await connection.send("x" * 1_000_000)

    async def work(_: Posted) -> PostAnswer:
        await trio.sleep_forever()
        raise AssertionError

    async with trio.open_nursery() as servers:
        server = await serve(flood, servers, post=work)
        deaf, _ = await upgrade(server.port)
        silent = await trio.open_tcp_stream("127.0.0.1", server.port)
        waiting = await trio.open_tcp_stream("127.0.0.1", server.port)
        await waiting.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        await trio.sleep(0.1)
        start = trio.current_time()
        servers.cancel_scope.cancel()
    assert trio.current_time() - start < 5
    for stream in (deaf, silent, waiting):
        await read_all(stream)
        await stream.aclose()


async def test_a_port_that_is_taken(serve: Serve) -> None:
    """A server that cannot listen says so, as an ordinary error."""
    server = await serve()
    with pytest.raises(Unavailable, match=rf"cannot listen on 127\.0\.0\.1:{server.port}: .*in use"):
        await net.serve_websockets("127.0.0.1", server.port, echo)
