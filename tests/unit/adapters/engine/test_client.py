"""What reaches an engine from this machine, and what must not."""

import gc
import socket
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from coreflow.adapters.engine.client import open_engine
from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable


class Ear(BaseHTTPRequestHandler):
    """An engine without anything in it that notes who asks for what."""

    protocol_version = "HTTP/1.1"
    heard: ClassVar[list[tuple[str, dict[str, str]]]] = []
    version: ClassVar[bytes]
    body: ClassVar[bytes]

    def do_GET(self) -> None:
        """Note it and answer."""
        self.heard.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        body = self.version if self.path == "/version" else self.body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def ear() -> Iterator[str]:
    """The address of such an engine."""
    Ear.heard.clear()
    Ear.version, Ear.body = b'{"ApiVersion": "1.41"}', b"[]"
    with ThreadingHTTPServer(("127.0.0.1", 0), Ear) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_nothing_of_this_machine_is_sent(
    ear: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No header or login of a Docker configuration, no password of a `.netrc`, no proxy; one extra call in all."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(
        '{"HttpHeaders": {"X-Ours": "1"}, "auths": {"x": {"auth": "@@not base64"}}}'
    )
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with open_engine(ear) as engine:
        await engine.list_services()
        await engine.list_services()
    assert [path for path, _ in Ear.heard] == ["/version", "/v1.41/services", "/v1.41/services"]
    sent = {name for _, headers in Ear.heard for name in headers}
    assert not sent & {"authorization", "x-ours", "x-registry-auth", "x-registry-config"}


async def test_an_engine_that_cannot_be_reached_is_told_in_a_few_words() -> None:
    """The innermost reason, without the texts and calls that libraries put around it."""
    async with open_engine("tcp://127.0.0.1:1") as engine:
        with pytest.raises(EngineUnreachable) as caught:
            await engine.version()
    assert str(caught.value) == "tcp://127.0.0.1:1: Connection refused"


async def test_something_else_than_an_engine(ear: str) -> None:
    """A server that answers, but not as an engine, is no engine."""
    Ear.version = b"[]"
    async with open_engine(ear) as engine:
        with pytest.raises(EngineUnreachable, match="not an engine"):
            await engine.list_services()


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"null", "null instead of a list"),
        (b"", "null instead of a list"),
        (b"{}", "an object instead of a list"),
        (b"[{}, null]", r"\$\[1\] is null instead of an object"),
    ],
)
async def test_an_answer_that_is_no_list_is_no_empty_list(ear: str, body: bytes, what: str) -> None:
    """Where nothing can be said about services, by no means are there none."""
    Ear.body = body
    async with open_engine(ear) as engine:
        for call in (engine.list_services, engine.list_tasks, engine.list_containers, engine.list_images):
            with pytest.raises(EngineError, match=what):
                await call()
        Ear.body = b"[]"
        with pytest.raises(EngineError, match=r"GET /volumes"):
            await engine.list_volumes()
        Ear.body = b'{"Volumes": null}'
        assert await engine.list_volumes() == ()


class _UnixServer(ThreadingHTTPServer):
    """An HTTP server on a socket of the file system."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """A path has no port and no host name."""
        self.socket.bind(self.server_address)


class _Hasty(Ear):
    """An engine that hangs up after each answer."""

    def do_GET(self) -> None:
        """Answer once."""
        self.close_connection = True
        super().do_GET()

    def address_string(self) -> str:
        """A client on a socket of the file system has no address."""
        return ""


async def test_an_engine_that_has_gone_leaves_no_sockets_behind(tmp_path: Path) -> None:
    """Each attempt to reach an engine that is down closes what it opened."""
    path = tmp_path / "docker.sock"
    Ear.version, Ear.body = b'{"ApiVersion": "1.41"}', b"[]"
    with _UnixServer(str(path), _Hasty) as server:  # type: ignore[arg-type]  # a path is its address
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        async with open_engine(f"unix://{path}") as engine:
            await engine.list_services()
            server.shutdown()
            thread.join()
            server.server_close()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(3):
                    with pytest.raises(EngineUnreachable):
                        await engine.list_services()
                gc.collect()
            assert [str(w.message) for w in caught if w.category is ResourceWarning] == []
