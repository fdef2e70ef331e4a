"""Standard error that nobody reads, or that has no room."""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TextIO

import pytest
import structlog

from coreflow.app import logs, queued
from coreflow.app.queued import QueuedStream

PIPE_BYTES = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A small pipe: what reads it, and what writes."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with open(write, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a number
        try:
            yield read, stream
        finally:
            os.close(read)


def notice(count: int) -> str:
    """As the log does, in short."""
    return f"dropped {count}\n"


def all_of(descriptor: int, last: str) -> list[str]:
    """What comes until a line."""
    text = ""
    while not text.endswith(f"{last}\n"):
        text += os.read(descriptor, 65536).decode()
    return text.splitlines()


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = monotonic() + 20
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def test_nobody_waits_for_a_reader_that_hangs(pipe: tuple[int, TextIO]) -> None:
    """Whoever writes goes on; the oldest lines that found no room are counted, and the last ones are there."""
    read, stream = pipe
    err = QueuedStream(stream, notice, most_bytes=10_000)
    for number in range(2000):
        assert err.write(f"{number:09}\n") == 10
    found = all_of(read, f"{1999:09}")
    err.close()
    expected, dropped = 0, 0
    for line in found:
        word, _, count = line.partition(" ")
        if word == "dropped":
            dropped += int(count)
            expected += int(count)
        else:
            assert int(word) == expected
            expected += 1
    assert expected == 2000
    assert dropped >= 2000 - 1000 - (PIPE_BYTES + queued._PIECE_BYTES) // 10 - 1


def test_the_end_of_a_process_waits_a_moment_only(pipe: tuple[int, TextIO]) -> None:
    """It goes on while nobody reads; where somebody does, everything is written first."""
    read, stream = pipe
    err = QueuedStream(stream, notice)
    err.write("x" * 3 * PIPE_BYTES + "\nend\n")
    err.close(0.05)
    assert err._thread.is_alive()
    reader = threading.Timer(0.1, all_of, (read, "end"))
    reader.start()
    err.close(20)
    assert not err._thread.is_alive()
    reader.join()


def test_a_full_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was lost meanwhile is counted once there is room."""
    monkeypatch.setattr(queued, "_PAUSE_SECONDS", 0.01)
    path = tmp_path / "log"
    with path.open("w") as stream:
        full = os.open("/dev/full", os.O_WRONLY)
        room = os.dup(stream.fileno())
        os.dup2(full, stream.fileno())
        err = QueuedStream(stream, notice)
        err.write("a\nb\n")
        until(lambda: err._dropped == 2)
        os.dup2(room, stream.fileno())
        err.write("c\n")
        err.close(20)
        os.close(full)
        os.close(room)
    assert path.read_text() == "dropped 2\nc\n"


def test_a_pipe_that_does_not_block_loses_nothing(pipe: tuple[int, TextIO]) -> None:
    """Another process may have set this; a full pipe is waited for all the same."""
    read, stream = pipe
    os.set_blocking(stream.fileno(), False)
    err = QueuedStream(stream, notice)
    for number in range(2000):
        err.write(f"{number:09}\n")
    assert [int(line) for line in all_of(read, f"{1999:09}")] == list(range(2000))
    err.close()


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_log_says_how_much_is_missing(form: str) -> None:
    """One line in the form of all others."""
    before: dict[str, Any] = structlog.get_config()
    try:
        logs.configure(form)
        line = logs.lines_dropped(7)
    finally:
        structlog.configure(**before)
    assert line.count("\n") == 1
    if form == "json":
        facts = json.loads(line)
        assert (facts["event"], facts["level"], facts["lines"]) == ("log lines dropped", "warning", 7)
    else:
        assert "log lines dropped" in line
