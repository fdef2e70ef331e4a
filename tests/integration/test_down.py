"""`coreflow down` on a real Swarm, with somebody at the terminal and without."""

import itertools
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.lab import Lab, open_lab

pytestmark = pytest.mark.engine
_numbers = itertools.count()


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """A cluster with two services and a secret on a real Swarm."""
    for lab in open_lab(engine_host, tmp_path, f"w{os.getpid()}x{next(_numbers)}"):
        lab.write(
            lab.service("a", secretBundleId="bundle"), lab.service("b"), **lab.secrets(TOKEN="canary-value")
        )
        lab.deploy()
        yield lab


def answered(lab: Lab, answer: str) -> tuple[int, str]:
    """Run the command on a terminal and answer its question; its status, and what the terminal showed."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "coreflow", "down", "--cluster", lab.prefix],
        env=lab.environment(COLUMNS="200"),
        cwd=lab.folder,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown, has_answered = b"", False
    try:
        while chunk := os.read(controller, 4096):
            shown += chunk
            if not has_answered and b"is an answer: " in shown:
                os.write(controller, f"{answer}\n".encode())
                has_answered = True
    except OSError:  # the terminal is closed on the other side
        pass
    finally:
        os.close(controller)
    return process.wait(timeout=60), shown.decode()


def test_a_person_is_asked(lab: Lab) -> None:
    """Anything but `yes` leaves everything as it is."""
    for answer in ("y", ""):
        code, shown = answered(lab, answer)
        assert (code, lab.services()) == (1, [lab.name("a"), lab.name("b")])
        assert "nothing was removed" in shown
    code, shown = answered(lab, "yes")
    assert (code, lab.services(), lab.secret_names(), lab.tasks("a")) == (0, [], [], [])
    assert "canary-value" not in shown


def test_a_program_names_exactly_what_goes(lab: Lab) -> None:
    """The word of a refusal is good for these services, and for no others."""
    refused = lab.run("down", "--cluster", lab.prefix)
    assert refused.code == 1
    found = re.search(r"--confirm-removal (\w+)", refused.err)
    assert found is not None
    word = found[1]
    lab.write(lab.service("a"), lab.service("b"), lab.service("c"))
    lab.deploy()
    overtaken = lab.run("down", "--cluster", lab.prefix, "--confirm-removal", word)
    assert overtaken.code == 1
    assert "does not stand for what would be removed now" in overtaken.err
    assert len(lab.services()) == 3
    found = re.search(r"which is (\w+)", overtaken.err)
    assert found is not None
    done = lab.run("down", "--cluster", lab.prefix, "--confirm-removal", found[1])
    assert (done.code, lab.services()) == (0, []), str(done)


def test_a_cluster_that_is_not_there(lab: Lab) -> None:
    """One that nothing belongs to is an error, not a success."""
    result = lab.run("down", "--cluster", f"{lab.prefix}x", "--yes")
    assert (result.code, len(lab.services())) == (1, 2)
    assert "nothing in this Swarm belongs to a cluster" in result.err
