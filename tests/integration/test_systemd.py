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
from tests.integration.images import built
from tests.integration.lab import Lab, open_lab
from tests.integration.systemd_machine import UNIT, Machine, booted

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


def main_pid(machine: Machine) -> int:
    """The daemon, or nobody."""
    return int(machine.shows("MainPID"))


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_under_systemd(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a machine with systemd, inside the sandbox: ready, reloaded, started anew by the watchdog, stopped."""
    root = tmp_path_factory.mktemp("machine")
    root.chmod(0o755)
    built(lab.host, "machine", str(root))
    lab.write(lab.service("a"))
    settings = {
        "COREFLOW_BASE_SERVICES": "",
        "COREFLOW_LISTEN": "127.0.0.1:3000",
        "COREFLOW_INITIAL_DELAY": "0",
    }
    with booted(root, lab.host, lab.records.read_text(), **settings) as machine:
        machine.does("systemctl", "enable", "--now", "coreflow")
        assert lab.services() == [lab.name("a")]  # it says that it is started after the first pass
        lab.wait("the workload runs", lambda: lab.running("a"))
        assert machine.shows("ActiveState") == "active"
        lab.wait("the status says so", lambda: "as desired: 1 as desired" in machine.shows("StatusText"))
        before = main_pid(machine)
        user = int(machine.does("stat", "-c", "%u", f"/proc/{before}"))
        assert 61184 <= user <= 65519  # a user that exists only while it runs
        machine.does("systemctl", "reload", "coreflow")
        lab.wait("it looks everything up again", lambda: "looking everything up again" in machine.log())

        drop_in = (
            "mkdir -p /run/systemd/system/coreflow.service.d && printf '[Service]\\nWatchdogSec=%s\\n' 5"
        )
        machine.does("sh", "-c", f"{drop_in} >/run/systemd/system/coreflow.service.d/watchdog.conf")
        machine.does("systemctl", "daemon-reload")
        machine.does("systemctl", "restart", "coreflow")
        stuck = main_pid(machine)
        assert stuck != before
        machine.does("sh", "-c", f"kill -STOP {stuck}")
        lab.wait("the watchdog bites", lambda: machine.shows("NRestarts") == "1", 90)
        lab.wait("it is started anew", lambda: machine.shows("ActiveState") == "active", 90)
        assert main_pid(machine) not in {0, stuck}
        assert "Watchdog timeout" in machine.log()

        machine.does("systemctl", "stop", "coreflow")
        assert (machine.shows("ExecMainStatus"), machine.shows("Result")) == ("0", "success")
        journal = ("env", "COREFLOW_STATE_DIR=/var/lib/coreflow", "/opt/coreflow/bin/coreflow", "history")
        assert f"create service {lab.name('a')}" in machine.does(*journal)
        assert "kept in memory" not in machine.log()
        assert len(lab.running("a")) == 1
