"""A unix socket in front of an engine's: counts what goes through, can kill the client at a chosen write, or
answer in its place.

Runs in threads of the test process. Requests are read properly (Content-Length or chunked), since one connection
carries many; answers are passed on as they come.
"""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

from attrs import define, field

UPDATE = re.compile(r"/services/[^/]+/update\?")
READS = frozenset({"GET", "HEAD"})
When = Literal["before", "after"]


@define
class Trap:
    """Spring at the n-th write (from 1): before it reaches the engine, or after the engine answered it."""

    nth: int
    when: When
    spring: Callable[[], None]


@define
class EngineProxy:
    """What went through so far."""

    path: Path
    upstream: str
    requests: list[tuple[str, str]] = field(factory=list)
    trap: Trap | None = None
    updates: list[Any] = field(factory=list)
    """The specs of the services that were updated, as they were sent."""
    answer: Callable[[str, bytes], str | None] | None = None
    """Takes a request's target, and its head with its body: a text that is an error in place of the engine's answer."""
    _lock: threading.Lock = field(factory=threading.Lock)
    _open: set[socket.socket] = field(factory=set)

    @property
    def url(self) -> str:
        """For `DOCKER_HOST`."""
        return f"unix://{self.path}"

    @property
    def reads(self) -> int:
        """Requests that change nothing."""
        return sum(method in READS for method, _ in self.requests)

    @property
    def writes(self) -> int:
        """Requests that change something."""
        return len(self.requests) - self.reads

    def reset(self) -> None:
        """Forget what went through."""
        self.requests.clear()
        self.updates.clear()

    def _note(self, method: str, target: str) -> int | None:
        """Count a request; for a write, which one it is."""
        with self._lock:
            self.requests.append((method, target.partition("?")[0]))
            return None if method in READS else self.writes

    def serve(self, client: socket.socket) -> None:
        """One connection of a client, until either side hangs up."""
        engine = socket.socket(socket.AF_UNIX)
        self._open.add(client)
        sprung: list[Trap] = []
        with client, engine:
            try:
                engine.connect(self.upstream)
                threading.Thread(target=_relay, args=(engine, client, sprung), daemon=True).start()
                with client.makefile("rb") as stream:
                    while self._forward(stream, engine, sprung, client):
                        pass
            except OSError:
                pass
            finally:
                self._open.discard(client)

    def hang_up(self) -> None:
        """End every connection, as an engine that stops does."""
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _forward(
        self, stream: BufferedReader, engine: socket.socket, sprung: list[Trap], client: socket.socket
    ) -> bool:
        """Pass on one request; whether the connection goes on."""
        head = _head(stream)
        if not head:
            return False
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        nth = self._note(method, target)
        trap = self.trap
        if trap is not None and trap.nth == nth:
            if trap.when == "before":
                trap.spring()
                return False
            sprung.append(trap)
        if self.answer is not None:
            body = b"".join(_body(head, stream))
            if (text := self.answer(target, head + body)) is not None:
                client.sendall(_error(text))
            else:
                engine.sendall(head + body)
            return True
        engine.sendall(head)
        sent = bytearray()
        is_update = method == "POST" and UPDATE.search(target) is not None
        for piece in _body(head, stream):
            engine.sendall(piece)
            if is_update:
                sent += piece
        if is_update:
            self.updates.append(json.loads(sent))
        return True


def _error(text: str) -> bytes:
    document = json.dumps({"message": text}).encode()
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(document)}\r\n\r\n"
    return head.encode() + document


def _relay(engine: socket.socket, client: socket.socket, sprung: list[Trap]) -> None:
    """Pass on answers; that of a write with a trap behind it never arrives."""
    try:
        while piece := engine.recv(65536):
            if sprung:
                sprung[0].spring()
                return
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _head(stream: BufferedReader) -> bytes:
    lines = []
    while line := stream.readline():
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _body(head: bytes, stream: BufferedReader) -> Iterator[bytes]:
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        while True:
            size = stream.readline()
            chunk = stream.read(int(size.split(b";")[0], 16) + 2)
            yield size + chunk
            if chunk == b"\r\n":
                return
    else:
        left = int(fields.get(b"content-length", b"0"))
        while left > 0:
            piece = stream.read(min(left, 65536))
            if not piece:
                return
            left -= len(piece)
            yield piece


@contextmanager
def engine_proxy(upstream: str, folder: Path) -> Iterator[EngineProxy]:
    """A proxy in front of the engine at `upstream` (`unix:///...`), for as long as the block runs."""
    path = folder / "engine.sock"
    proxy = EngineProxy(path, upstream.removeprefix("unix://"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        path.unlink()
        proxy.hang_up()
