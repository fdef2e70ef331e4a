"""Connections to an engine that are not plain TCP: a Unix socket, and a program that passes bytes on (`ssh`).

The SDK has both. Ours share one pool for all requests, where the SDK keys pools by whole URLs and so gives every service
a connection of its own; and what the program passes on arrives at a real socket, with time limits and an end that other
threads can bring about, where the SDK's reads a pipe for ever.
"""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

BASE_URL = "http+docker://localhost"
"""Stands for the engine in URLs of requests that go through one of these connections."""
GRACE_SECONDS = 0.2
"""How long a program may take to end by itself when its connection is closed."""
END_SECONDS = 2.0
"""How long it may take when it is told to."""
CONNECT_SECONDS = 30
REASON_BYTES = 4096
_SSH_NAME = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:-]*")
"""User and host names that no program takes for an option."""


Connect = Callable[[], HTTPConnection]
"""Makes a connection, which connects at its first use."""


class UnixConnection(HTTPConnection):
    """Over a socket in the file system."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect; a socket that cannot is closed."""
        connecting = socket.socket(socket.AF_UNIX)
        connecting.settimeout(self.timeout)
        try:
            connecting.connect(self._path)
        except OSError:
            connecting.close()
            raise
        self.sock = connecting


class ProgramConnection(HTTPConnection):
    """Over standard input and output of a program, which ends with the connection."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._command = command
        self._program: subprocess.Popen[bytes] | None = None
        self._last_words = ""
        """The last line that the program wrote to standard error, or how it ended."""

    def connect(self) -> None:
        """Start the program."""
        ours, theirs = socket.socketpair()
        ours.settimeout(self.timeout)
        with theirs:
            try:
                self._program = _started(self._command, theirs)
            except OSError as exc:
                ours.close()
                raise ConnectionError(exc.errno, f"cannot start {self._command[0]}: {exc.strerror}") from None
        self.sock = ours

    def send(self, data: Any) -> None:
        """Send data; when the program has ended, what it said is the reason."""
        try:
            super().send(data)
        except (BrokenPipeError, ConnectionResetError) as exc:
            failure = exc
        else:
            return
        raise self._explained(failure)

    def getresponse(self) -> Any:
        """Wait for the answer; when the program ends instead, what it said is the reason."""
        try:
            return super().getresponse()
        except ConnectionError as exc:
            failure = exc
        raise self._explained(failure)

    def _explained(self, failure: ConnectionError) -> ConnectionError:
        self.close()
        if not self._last_words:
            return failure
        name = f"{self._command[0]}: "
        return ConnectionAbortedError(failure.errno, f"{name}{self._last_words.removeprefix(name)}")

    def close(self) -> None:
        """Close the connection and end the program."""
        super().close()
        program, self._program = self._program, None
        if program is not None:
            self._last_words = _ended(program)


def _started(command: Sequence[str], end: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the command is ours, its arguments have been checked
        command, stdin=end.fileno(), stdout=end.fileno(), stderr=subprocess.PIPE, start_new_session=True
    )


def _ended(program: subprocess.Popen[bytes]) -> str:
    """End a program that may have ended by itself; the last line of what it said, or its status."""
    with program:
        try:
            program.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            program.terminate()
        try:
            program.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
        said = b""
        if program.stderr is not None:
            os.set_blocking(program.stderr.fileno(), False)  # a master of shared connections may keep it open
            said = program.stderr.read(REASON_BYTES) or b""
    lines = said.decode(errors="replace").splitlines()
    return next(
        (line.strip() for line in reversed(lines) if line.strip()), f"ended with status {program.returncode}"
    )


def ssh_command(url: str) -> tuple[str, ...]:
    """The program that leads to the engine of another machine, as the docker command line calls it.

    It asks nobody anything: keys, known hosts and the like are those of this user's configuration of `ssh`. Raises
    ValueError for a URL that names no host.
    """
    parts = urlsplit(url)
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "LogLevel=ERROR"]
    if not _SSH_NAME.fullmatch(parts.hostname or "") or parts.path not in {"", "/"} or parts.password:
        raise ValueError("must name a host: ssh://user@host")
    if parts.username is not None:
        if not _SSH_NAME.fullmatch(parts.username):
            raise ValueError("must name a user and a host: ssh://user@host")
        options += ["-l", parts.username]
    if parts.port is not None:
        options += ["-p", str(parts.port)]
    return ("ssh", *options, "--", str(parts.hostname), "docker", "system", "dial-stdio")


class _Pool(HTTPConnectionPool):
    def __init__(self, make: Connect, size: int) -> None:
        super().__init__("localhost", maxsize=size)
        self._make = make

    def _new_conn(self) -> Any:
        return self._make()


class OnePool(HTTPAdapter):
    """All requests share one pool of connections, whatever their URLs."""

    def __init__(self, make: Connect, size: int) -> None:
        self._pool = _Pool(make, size)
        super().__init__()

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """The pool."""
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return what stands in the request's first line: the path."""
        return request.path_url

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._pool.close()
        super().close()
