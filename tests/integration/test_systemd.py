"""The unit: checked by systemd's own tools, and the daemon told of to a manager that is only a socket."""

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.images import SCRIPT
from tests.integration.lab import Lab, open_lab

UNIT = SCRIPT.parents[1] / "deploy" / "coreflow.service"
EXPOSURE = 20
"""In tenths: 100 is a service without any sandbox, 0 one that can do nothing."""
_numbers = itertools.count()


def analyzed(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `systemd-analyze`, which CI has."""
    try:
        return subprocess.run(
            ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        if os.environ.get("COREFLOW_REQUIRE_ENGINE"):
            raise
        pytest.skip("no systemd-analyze (Debian's package systemd)")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Every line of it: an unknown one is a complaint. The command is where this test has it."""
    command = Path(sys.executable).with_name("coreflow")
    text = UNIT.read_text()
    assert "ExecStart=/opt/coreflow/bin/coreflow run\n" in text
    unit = tmp_path / "coreflow.service"
    unit.write_text(text.replace("/opt/coreflow/bin/coreflow", str(command)))
    done = analyzed("verify", str(unit))
    complaints = [line for line in done.stderr.splitlines() if "coreflow.service" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHoome=yes"))
    assert "ProtectHoome" in analyzed("verify", str(unit)).stderr


def test_it_can_do_little_but_open_the_socket() -> None:
    """By systemd's own measure."""
    done = analyzed("security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT))
    assert done.returncode == 0, done.stdout[-300:]


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"u{os.getpid()}x{next(_numbers)}")


@pytest.mark.engine
def test_the_daemon_says_how_it_is(lab: Lab) -> None:
    """It is ready once the first pass has ended, lives, and says that it ends."""
    lab.write(lab.service("a"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(lab.folder / "notify"))
        manager.settimeout(60)
        daemon = lab.start(
            "run",
            CLOUDLY_URL=lab.records.as_uri(),
            COREFLOW_INITIAL_DELAY="0",
            NOTIFY_SOCKET=str(lab.folder / "notify"),
            WATCHDOG_USEC="300000",
        )
        seen: list[str] = []

        def until(field: str) -> str:
            while not seen or field not in seen[-1]:
                seen.append(manager.recv(4096).decode())
            return seen[-1]

        said = until("READY=1")
        assert "STATUS=" in said
        assert lab.services() == [lab.name("a")]
        before = len(seen)
        until("WATCHDOG=1")
        seen.append("")
        until("WATCHDOG=1")
        assert len(seen) > before
        daemon.send_signal(signal.SIGTERM)
        until("STOPPING=1")
    assert daemon.wait(timeout=30) == 0
