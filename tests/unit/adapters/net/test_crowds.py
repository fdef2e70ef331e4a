"""Servers that many connect to at once: places are counted when a connection is accepted."""

import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from statistics import median

import trio
from structlog.testing import capture_logs
from tests.unit.adapters.net.peers import Serve, read_all, read_head

from coreflow.adapters.admin import serve_admin
from coreflow.adapters.internal import InternalServer
from coreflow.adapters.net import Room
from coreflow.adapters.net.accepting import Places
from coreflow.domain.pacing import Repeats

CROWD, OTHER = "127.0.0.2", "127.0.0.3"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n\r\n"
)


async def connect(port: int, source: str) -> trio.SocketStream:
    """Connect from an address of the loopback."""
    socket = trio.socket.socket()
    await socket.bind((source, 0))
    await socket.connect(("127.0.0.1", port))
    return trio.SocketStream(socket)


async def head_of(port: int, source: str, request: bytes = UPGRADE) -> str:
    """What a request of its own is answered with; empty when the connection is dropped."""
    async with await connect(port, source) as stream:
        try:
            await stream.send_all(request)
            return await read_head(stream)
        except trio.BrokenResourceError:
            return ""


async def crowd(stack: AsyncExitStack, port: int, size: int) -> None:
    """Connections of one address that say nothing."""
    for _ in range(size):
        await stack.enter_async_context(await connect(port, CROWD))


async def test_silent_connections_of_one_address_lock_nobody_out(nursery: trio.Nursery) -> None:
    """With 300 of them, another address upgrades in under 100 ms, again and again; one line names the address."""

    async def admit(_: str) -> object:
        return lambda _: False

    server = InternalServer(admit)  # type: ignore[arg-type]  # as little as it needs
    with capture_logs() as logs:
        port = await nursery.start(server.run, "127.0.0.1", 0)
        times = []
        async with AsyncExitStack() as stack:
            await crowd(stack, port, 300)
            for _ in range(100):
                start = trio.current_time()
                assert " 101 " in await head_of(port, OTHER)
                times.append(trio.current_time() - start)
    assert median(times) < 0.1, f"longest {max(times):.4f} s"
    turned_away = [line for line in logs if line["log_level"] == "warning"]
    assert [(line["peer"], line["limit"]) for line in turned_away] == [(CROWD, 16)]
    nursery.cancel_scope.cancel()


async def test_metrics_are_served_beside_a_crowd(nursery: trio.Nursery) -> None:
    """The same for the server that operators look at."""
    port = await nursery.start(partial(serve_admin, "127.0.0.1", 0, list))
    async with AsyncExitStack() as stack:
        await crowd(stack, port, 100)
        assert " 200 " in await head_of(port, OTHER, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    nursery.cancel_scope.cancel()


async def test_a_place_is_free_again_when_its_connection_has_gone(serve: Serve) -> None:
    """However it went, and whatever it had asked for."""
    server = await serve(room=Room(connections=10, per_address=2), idle_timeout=0.2)
    for _ in range(5):
        silent, asking = await connect(server.port, CROWD), await connect(server.port, CROWD)
        await asking.send_all(UPGRADE)
        assert " 101 " in await read_head(asking)
        assert "503" in await head_of(server.port, CROWD)
        assert await read_all(silent) == b""  # dropped, as it says nothing
        await silent.aclose()
        await asking.aclose()
        with trio.fail_after(2):
            while server.connections:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)


async def test_room_is_reserved_for_addresses_that_are_expected(serve: Serve) -> None:
    """They get in where others are turned away, even beyond the share of one address."""

    async def is_expected(address: str) -> bool:
        return address == OTHER

    server = await serve(room=Room(connections=8, per_address=4, reserved=2), is_expected=is_expected)
    async with AsyncExitStack() as stack:
        for number in range(6):
            await stack.enter_async_context(await connect(server.port, f"127.0.0.{10 + number}"))
        assert "503" in await head_of(server.port, CROWD)
        proxy = await stack.enter_async_context(await connect(server.port, OTHER))
        await proxy.send_all(UPGRADE)
        assert " 101 " in await read_head(proxy)
        assert " 101 " in await head_of(server.port, OTHER)


async def test_asking_who_is_expected_holds_up_nobody(serve: Serve) -> None:
    """While it takes long, others are turned away at once, and only one of each address waits."""

    async def is_expected(_: str) -> bool:
        await trio.sleep(60)
        return False

    server = await serve(room=Room(connections=2), is_expected=is_expected)
    async with AsyncExitStack() as stack:
        await crowd(stack, server.port, 3)
        with trio.fail_after(2):
            assert "503" in await head_of(server.port, CROWD)


def test_places() -> None:
    """Counts by address and in all; what is reserved is for those who are expected."""
    places = Places(Room(connections=4, per_address=2, reserved=1))
    for address in ("a", "a", "b"):
        assert places.shortage(address) is None
        places.take(address)
    assert (places.shortage("a"), places.shortage("c")) == ("address", "server")
    assert (places.shortage("a", expected=True), places.shortage("c", expected=True)) == (None, None)
    places.take("c")
    assert places.shortage("c", expected=True) == "server"
    places.free("c")
    places.free("a")
    assert places.shortage("a") is None


def test_what_repeats_is_said_once_in_a_while() -> None:
    """And only so much is remembered."""
    repeats = Repeats(seconds=10, kept=2)
    assert [repeats.is_new("a", now) for now in (0, 5, 10, 15)] == [True, False, True, False]
    assert [repeats.is_new(name, 15) for name in ("b", "c", "b", "a")] == [True, True, False, True]


SERVER = """
import resource
from functools import partial
import trio
from coreflow.adapters.net import Room, ServerOptions, run, serve_websockets
from coreflow.app.logs import configure

async def nothing(socket):
    await trio.sleep_forever()

async def main():
    async with trio.open_nursery() as nursery:
        options = ServerOptions(room=Room(connections=1000))
        server = await nursery.start(serve_websockets, "127.0.0.1", 0, nothing, options)
        print(server.port, flush=True)

configure("json")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
run(main)
"""


async def test_running_out_of_file_descriptors_is_said_once_and_passes() -> None:
    """A crowd beyond what the process may open costs a line, and the server goes on afterwards."""
    command = [sys.executable, "-c", SERVER]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        )
        port = int(await process.stdout.receive_some(100))
        async with AsyncExitStack() as stack:
            await crowd(stack, port, 100)
            await trio.sleep(1)
        with trio.fail_after(15):
            assert " 404 " in await head_of(port, OTHER, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        os.kill(process.pid, signal.SIGKILL)
        said = await process.stderr.receive_some(10_000_000)
    assert said.count(b"\n") == 1
    assert b"Too many open files" in said
