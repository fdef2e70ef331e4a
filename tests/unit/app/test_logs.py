"""What reaches the log, and what does not stop because of it."""

import io
from contextlib import redirect_stderr

import pytest
import structlog

from coreflow.app import logs


@pytest.fixture(autouse=True)
def _restored() -> object:
    """Other tests have a logging configuration of their own."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_nothing_that_a_terminal_obeys() -> None:
    """Escapes in texts of far sides are written out; a traceback keeps its lines."""
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
