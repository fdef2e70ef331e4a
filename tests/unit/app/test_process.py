"""The world around a process: streams that are closed, full or unread, terminals of any size, signals at any moment."""

import contextlib
import errno
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
import structlog
from tests.unit.app.worlds import cluster, service

from coreflow.app import logs, streams

COREFLOW = [sys.executable, "-W", "error::ResourceWarning", "-m", "coreflow"]
FULL = "error: standard output cannot be written: No space left on device\n"
CLOSED = "error: standard output cannot be written: Bad file descriptor\n"


@pytest.fixture
def world(tmp_path: Path) -> dict[str, str]:
    """An environment in which a command finds no engine and no settings but these."""
    (tmp_path / "cluster.json").write_text(json.dumps(cluster(service("a"))))
    ours = ("COREFLOW_", "DOCKER_", "CLOUDLY", "JUMPCODE", "COLUMNS", "LINES", "PYTHONUNBUFFERED")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return {**kept, "DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}


def ended(command: list[str], world: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, however that is."""
    return subprocess.run(
        command, env=world, cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


def shell(line: str, world: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `$coreflow` is the command."""
    command = {"coreflow": " ".join(COREFLOW)}
    return ended(["bash", "-c", line], {**world, **command}, cwd)


# streams that cannot be written


@pytest.mark.parametrize(
    ("line", "status", "errors"),
    [
        pytest.param("$coreflow --help >/dev/full", 1, FULL, id="help, full"),
        pytest.param("$coreflow --help >&-", 1, CLOSED, id="help, closed"),
        pytest.param("$coreflow version >&- 2>&- <&-", 1, "", id="everything closed"),
        pytest.param("$coreflow version 2>&-", 0, "", id="only errors closed"),
        pytest.param("$coreflow check --records cluster.json >/dev/full", 1, FULL, id="check, full"),
        pytest.param("$coreflow nope >/dev/full 2>&1", 2, "", id="wrong command line, full"),
        pytest.param("$coreflow --help 2>&1 | :; exit ${PIPESTATUS[0]}", 141, "", id="help, nobody reads"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_the_status(
    line: str, status: int, errors: str, world: dict[str, str], tmp_path: Path
) -> None:
    """No traceback, nothing about a bug, and a status that says that the result did not arrive."""
    done = shell(line.replace("| :", "| exec sleep 0"), world, tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (status, errors, done.stdout)


def test_a_full_disk_for_json_is_one_line(tmp_path: Path) -> None:
    """A document that did not arrive whole is no success."""
    with _stdout(open("/dev/full", "w")), streams.owned() as results:  # noqa: PTH123 - a device
        sys.stdout.write(streams.json_text({"a": "b" * 20_000}))
        assert streams.status_after(results, 0) == 1


def test_work_goes_on_although_nobody_reads() -> None:
    """The first failure is kept, later writes are dropped, and a command's own failure stays its status."""
    read, write = os.pipe()
    os.close(read)
    with _stdout(open(write, "w", buffering=1)), streams.owned() as results:  # noqa: PTH123 - a number
        for _ in range(3):
            print("x" * 9999)  # noqa: T201 - that is the point
        assert streams.status_after(results, 0) == 141
        assert streams.status_after(results, 1) == 1


@contextlib.contextmanager
def _stdout(stream: TextIO) -> Iterator[None]:
    before, sys.stdout = sys.stdout, stream
    try:
        yield
    finally:
        sys.stdout = before
        stream.close()


class _Full(io.StringIO):
    """A disk that is full until `room`."""

    room = False

    def write(self, text: str) -> int:
        """Fail as a full disk does."""
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_log_is_tried_again() -> None:
    """What gives up drops all that comes later; a log appears again once there is room."""
    for gives_up, expected in ((True, ""), (False, "b")):
        disk = _Full()
        stream = streams.Stream(disk, gives_up=gives_up)
        stream.write("a")
        disk.room = True
        stream.write("b")
        assert disk.getvalue() == expected
        assert isinstance(stream.error, OSError)


def daemon_settings(folder: Path) -> dict[str, str]:
    """A daemon that begins at once, and disturbs no other."""
    return {
        "CLOUDLY_URL": f"file://{folder}/cluster.json",
        "COREFLOW_INITIAL_DELAY": "0",
        "COREFLOW_LISTEN": "127.0.0.1:0",
        "COREFLOW_ADMIN_LISTEN": "127.0.0.1:0",
    }


def test_a_daemon_lives_without_a_log(world: dict[str, str], tmp_path: Path) -> None:
    """With a full disk behind its log it asks the engine all the same, and ends with 0."""
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "nobody.sock"))
        engine.listen()
        engine.settimeout(30)
        with (
            open("/dev/full", "w") as full,  # noqa: PTH123 - a device
            subprocess.Popen(
                [*COREFLOW, "run"], env={**world, **daemon_settings(tmp_path)}, cwd=tmp_path, stderr=full
            ) as daemon,
        ):
            for _ in range(2):  # the second one comes after a failure was logged
                engine.accept()[0].close()
            daemon.terminate()
            assert daemon.wait(30) == 0


def test_a_daemon_lives_with_a_log_that_nobody_reads(world: dict[str, str], tmp_path: Path) -> None:
    """With a full pipe behind its log it asks the engine again and again, and ends with 0."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "nobody.sock"))
        engine.listen()
        engine.settimeout(30)
        with subprocess.Popen(
            [*COREFLOW, "run"], env={**world, **daemon_settings(tmp_path)}, cwd=tmp_path, stderr=write
        ) as daemon:
            for _ in range(6):
                engine.accept()[0].close()
            daemon.terminate()
            assert daemon.wait(30) == 0
    os.close(read)
    os.close(write)


# signals


def interrupted(
    module: str, number: int, arguments: list[str], world: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command that gets a signal in the moment in which it imports `module`."""
    program = (
        "import importlib.abc, os, runpy, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), {number})\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = ['coreflow', *{arguments!r}]\n"
        "runpy.run_module('coreflow', run_name='__main__')\n"
    )
    return ended([sys.executable, "-c", program], world, cwd)


@pytest.mark.parametrize(
    ("module", "number", "arguments", "status", "errors"),
    [
        ("cyclopts", signal.SIGINT, ["--help"], 130, "stopped by SIGINT\n"),
        ("trio", signal.SIGINT, ["plan"], 130, "stopped by SIGINT\n"),
        ("coreflow.domain.errors", signal.SIGTERM, ["apply"], 143, "stopped by SIGTERM\n"),
        ("coreflow.app.main", signal.SIGTERM, ["run"], 0, ""),
    ],
)
def test_a_signal_while_importing_ends_it_at_once(
    module: str,
    number: int,
    arguments: list[str],
    status: int,
    errors: str,
    world: dict[str, str],
    tmp_path: Path,
) -> None:
    """Status 130 or 143, at most one line; a daemon was asked to stop, and has."""
    done = interrupted(module, number, arguments, world, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", errors)


# terminals


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ("0", None),
        ("-5", None),
        ("abc", None),
        ("²", None),
        ("", None),
        ("1", "20"),
        ("80", "80"),
        ("9" * 18, "500"),
        ("9" * 30, None),
    ],
)
def test_an_impossible_size_of_a_terminal_is_corrected(asked: str, columns: str | None) -> None:
    """Nothing is printed at 0 columns, and a library fills lines with blanks up to any number."""
    environ = {"COLUMNS": asked, "LINES": "0"}
    with _stdout(io.StringIO()):
        streams.tame(environ)
    assert environ == ({} if columns is None else {"COLUMNS": columns})


def on_terminal(arguments: list[str], world: dict[str, str], cwd: Path, columns: int = 80) -> str:
    """What a command shows on a terminal."""
    controller, terminal = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*COREFLOW, *arguments], env=world, cwd=cwd, stdout=terminal, stderr=terminal, stdin=terminal
    ) as process:
        os.close(terminal)
        text = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while chunk := os.read(controller, 65536):
                text += chunk
        assert process.wait(60) == 0
    os.close(controller)
    return text.decode()


def test_a_dumb_and_tiny_terminal_gets_plain_lines(world: dict[str, str], tmp_path: Path) -> None:
    """No escape sequence where TERM=dumb, and no word per line at 3 columns."""
    shown = on_terminal(["--help"], {**world, "TERM": "dumb"}, tmp_path, columns=3)
    assert "\x1b" not in shown
    assert "version" in shown


def test_forced_colours_are_only_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FORCE_COLOR in a pipe: colours, but lines stay whole and nothing moves the cursor."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = streams.console_for()
    assert not console.is_terminal
    console.print("word", style="bold")
    assert capsys.readouterr().out == "\x1b[1mword\x1b[0m\n"


@pytest.mark.parametrize(
    ("environ", "is_terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_a_log_for_people_has_colours_where_they_are_seen(
    environ: dict[str, str],
    is_terminal: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    restored_logs: None,
) -> None:
    """COREFLOW_LOG_FORMAT=console into a file is text."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("console")
    structlog.get_logger().info("started")
    assert ("\x1b[" in stream.getvalue()) is expected


@pytest.fixture
def restored_logs() -> Iterator[None]:
    """Leave the configuration of the logs as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


# characters


def _written(write: Callable[[], object], encoding: str) -> str:
    raw = io.BytesIO()
    with _stdout(io.TextIOWrapper(raw, encoding=encoding)), streams.owned():
        write()
        sys.stdout.flush()
        return raw.getvalue().decode(encoding)


def test_marks_and_names_in_an_ascii_locale() -> None:
    """Marks have stand-ins, everything else an escape."""
    assert _written(lambda: sys.stdout.write("✓ é · …\n"), "ascii") == "+ \\xe9 . ...\n"
    assert _written(lambda: sys.stdout.write("✓ é\n"), "utf-8") == "✓ é\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json_in_any_locale(encoding: str) -> None:
    r"""No `\xe9`, which is not JSON; and nothing that a terminal obeys or shows in another order."""
    document = {"name": "é✓\u202e\x9b\U000e0041\ud800"}
    text = _written(lambda: sys.stdout.write(streams.json_text(document)), encoding)
    assert json.loads(text) == document
    assert text.isprintable()


def test_no_character_that_changes_what_is_seen() -> None:
    """Controls of terminals, of direction, and what is not seen at all become escapes."""
    for character in "\x1b\x9b\x7f\u200b\u200e\u061c\u202e\u2066\ufeff\U000e0041\ud800":
        assert streams.clean(f"a{character}b").isascii(), hex(ord(character))
    assert streams.clean("a\u2028b\tc\u00a0d\n") == "a b c d"
    assert streams.clean("héé 日本 ✓") == "héé 日本 ✓"


# folders


def test_a_folder_that_is_gone_and_no_home(world: dict[str, str], tmp_path: Path) -> None:
    """Neither is needed."""
    line = f"mkdir gone && cd gone && rmdir ../gone && $coreflow plan --records {tmp_path}/cluster.json"
    done = shell(line, {name: text for name, text in world.items() if name != "HOME"}, tmp_path)
    assert done.returncode == 1
    assert (
        f"the engine does not answer (unix://{tmp_path}/nobody.sock: No such file or directory)\n"
        in done.stderr
    )
    assert done.stderr.count("\n") == 2
