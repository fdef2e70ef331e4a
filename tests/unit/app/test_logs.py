"""What reaches the log, and what does not stop because of it."""

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import pytest
import structlog

from coreflow.app import logs
from coreflow.app.libraries import MAX_LINES, LibraryLog


@pytest.fixture(autouse=True)
def _restored() -> object:
    """Other tests have a logging configuration of their own."""
    before, hooks = structlog.get_config(), (threading.excepthook, sys.unraisablehook)
    yield
    structlog.configure(**before)
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, LibraryLog):
            logging.getLogger().removeHandler(handler)
    threading.excepthook, sys.unraisablehook = hooks


def test_nothing_that_a_terminal_obeys() -> None:
    """Escapes in texts of peers are written out; a traceback keeps its lines."""
    with redirect_stderr(io.StringIO()) as out:
        logs.configure("console")
        structlog.get_logger().warning("held", name="x\x1b]0;pwn\x07", traceback="one\ntwo")
    assert "\x07" not in out.getvalue()
    assert r"\x1b]0;pwn" in out.getvalue()


class FullDisk(io.StringIO):
    """Where nothing can be written."""

    def write(self, _: str) -> int:
        """As the system says it."""
        raise OSError(28, "No space left on device")


def test_a_full_disk_stops_nothing() -> None:
    """A line that cannot be written is lost."""
    with redirect_stderr(FullDisk()):
        logs.configure("json")
        structlog.get_logger().warning("held", name="x")


@contextmanager
def telling() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What libraries say meanwhile, as lines of our log."""
    with redirect_stderr(io.StringIO()) as out:
        logs.configure("json")
        yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    "name", ["asyncio", "aiohttp.server", "urllib3.connectionpool", "docker", "anything"]
)
def test_a_library_speaks_through_our_log(name: str) -> None:
    """One line, redacted, without the text of the exception, which could quote a value."""
    with telling() as told:
        try:
            raise OSError("secret of a value")
        except OSError:
            logging.getLogger(name).exception("accept failed %s\nsocket: secret", "https://user:secret@host/")
        [line] = told()
    assert (line["event"], line["level"], line["library"]) == ("message of a library", "error", name)
    assert (line["error"], line["message"][:13]) == ("OSError", "accept failed")
    assert "test_a_library_speaks" in line["traceback"]
    del line["traceback"]  # which shows source code, such as this
    assert "of a value" not in str(line)
    assert "secret" not in str(line)


def test_a_library_that_repeats_itself_fills_no_log() -> None:
    """The same thing is one line a minute; many different ones are a few lines, and what was left out is counted."""
    logger = logging.getLogger("asyncio")
    with telling() as told:
        for number in range(10_000):
            logger.error("socket.accept() out of system resource %d", number)
        assert len(told()) == 1
        for number in range(100):
            logger.error(f"another {number}")  # noqa: G004 - meant
        assert len(told()) == MAX_LINES
        assert told()[1]["not_told"] == 9_999


def test_a_thread_that_fails_is_told_likewise() -> None:
    """Python would write a raw traceback."""

    def fail() -> None:
        raise ValueError("secret")

    thread = threading.Thread(target=fail)
    with telling() as told:
        thread.start()
        thread.join()
        [line] = told()
    assert (line["library"], line["error"]) == ("python", "ValueError")
    assert "secret" not in line["message"]
