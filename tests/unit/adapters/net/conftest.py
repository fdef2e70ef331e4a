"""Tests of the web module: real sockets on the loopback, as a guest of asyncio.

Every async test in this folder runs under `coreflow.adapters.net.run`. No mock clock: it would take a task that waits
for asyncio to be idle.
"""

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from tests.unit.adapters.net.peers import Certificates, Serve, StartTcp, echo

from coreflow.adapters.net import Listening, ServerOptions, WebSocket, run, serve_websockets

HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Choose the runner: of several markers, the first one wins."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("trio"):
            item.add_marker(pytest.mark.trio(run=run), append=False)


@pytest.fixture
def serve(nursery: trio.Nursery) -> Serve:
    """Start a WebSocket server on a free port."""

    async def start(
        handler: Callable[[WebSocket], Awaitable[None]] = echo, into: trio.Nursery = nursery, **options: Any
    ) -> Listening:
        listening: Listening = await into.start(
            partial(serve_websockets, "127.0.0.1", 0, handler, ServerOptions(**options))
        )
        return listening

    return start


@pytest.fixture
def start_tcp(nursery: trio.Nursery) -> StartTcp:
    """Start a server of bare connections on a free port, and return the port."""

    async def start(handler: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        port: int = listeners[0].socket.getsockname()[1]
        return port

    return start


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for the name `localhost`, from an authority of our own."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, foreign = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(folder / "ca.pem"))
    foreign.cert_pem.write_to_path(str(folder / "foreign.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("localhost").configure_cert(context)
    return Certificates(context, folder / "ca.pem", folder / "foreign.pem")
