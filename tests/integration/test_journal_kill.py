"""`kill -9` at random moments: no action that was carried out is missing in the journal, which stays within its limit.

`COREFLOW_SOAK=1` kills 200 times instead of a few.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from coreflow.adapters.journal import FILE_NAME, read_file
from coreflow.domain.journal import INTERRUPTED, Query

KILLS = 200 if os.environ.get("COREFLOW_SOAK") else 12
LIMIT = 1024 * 1024
ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 0.6


def killed(folder: Path, log: Path, run: int, seconds: float) -> int:
    """Let a process act, and kill it so many seconds after it has begun; the largest size of the folder meanwhile."""
    victim = Path(__file__).with_name("journal_victim.py")
    command = [sys.executable, str(victim), str(folder), str(log), str(run), str(LIMIT)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    largest = 0
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text()):
            assert process.poll() is None, "it has ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            largest = max(largest, size_of(folder))
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return max(largest, size_of(folder))


def size_of(folder: Path) -> int:
    """Bytes of everything in the folder, while files come and go."""
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


@pytest.mark.timeout(1800)
def test_no_completed_action_is_lost(tmp_path: Path, draw: random.Random) -> None:
    """What the engine did is there once, with its outcome if anybody was told of it, else perhaps as interrupted."""
    folder = tmp_path / "state"
    actions = interrupted = largest = last = 0
    for run in range(KILLS):
        log = tmp_path / f"log-{run}"
        largest = max(largest, killed(folder, log, run, draw.uniform(0, LONGEST_SECONDS)))
        lines = [line.split() for line in log.read_text().splitlines()]
        done = Counter((word[1], word[2]) for word in lines if word[0] == "done")
        told = Counter((word[1], word[2], word[3]) for word in lines if word[0] == "told")
        found = [r.entry for r in read_file(folder / FILE_NAME, Query(limit=100_000)).records]
        of_run = [
            one for one in found if one.kind == "service" and one.name.startswith((f"s{run}-", "keeper"))
        ]
        kept = Counter((one.action, one.name) for one in of_run)
        outcomes = Counter((one.action, one.name, one.outcome) for one in of_run)
        assert not done - kept, f"run {run}: lost {done - kept}"
        assert not told - outcomes, f"run {run}: told otherwise {told - outcomes}"
        assert all(number == 1 for (_, name), number in kept.items() if name != "keeper")
        actions += done.total()
        interrupted += sum(one.outcome == INTERRUPTED for one in of_run)
        with closing(sqlite3.connect(folder / FILE_NAME)) as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        assert len(found) > last or largest > LIMIT // 2
        last = len(found)
    sys.stdout.write(
        f"{KILLS} kills, {actions} actions, {interrupted} interrupted, {largest} bytes at most\n"
    )
    assert actions > KILLS
    assert largest <= LIMIT
    assert len([*folder.glob("*.lock")]) <= 1
