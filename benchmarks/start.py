"""Start-up of commands: `version`, and with an engine up a `plan` with nothing to do, in units of `python -c pass`.

CPU seconds of the process and of the system for it, the least of several rounds: what else runs on the machine matters
little then. `plan` asks the engine that `COREFLOW_TEST_DOCKER_HOST` names, where an apply has settled a cluster of no
services first; what an engine takes for its answers is no part of it.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from benchmarks.swarm import PREFIX, remove_networks
from benchmarks.table import Row

ROUNDS = 9
LIMITS = {"version": 20.0, "plan": 52.0}
"""On a machine where `python -c pass` takes 8.7 ms these are 0.17 s and 0.45 s."""
RECORDS = f"configData: {{id: {PREFIX}, data: {{name: bench}}}}\nservices: []\n"


def _cpu_seconds(command: Sequence[str], environ: Mapping[str, str]) -> float:
    def so_far() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took = []
    for _ in range(ROUNDS):
        before = so_far()
        done = subprocess.run(command, env=dict(environ), capture_output=True, check=False)
        took.append(so_far() - before)
        assert done.returncode == 0, done.stderr
    return min(took)


@contextmanager
def _settled(host: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """A cluster file that is as desired on this engine, and the environment of a command that asks it."""
    with tempfile.TemporaryDirectory(prefix="coreflow-bench-") as folder:
        records = Path(folder) / "cluster.yaml"
        records.write_text(RECORDS)
        environ = {**_environ(), "DOCKER_HOST": host, "COREFLOW_BASE_SERVICES": ""}
        try:
            apply = [sys.executable, "-m", "coreflow", "apply", str(records)]
            subprocess.run(apply, env=environ, check=True, capture_output=True)
            yield records, environ
        finally:
            trio.run(remove_networks, host)


def _environ() -> dict[str, str]:
    """The environment without settings, and with byte code, as wherever coreflow is installed."""
    unwanted = ("COREFLOW_", "DOCKER_", "CLOUDLY", "JUMPCODE", "PYTHONDONTWRITEBYTECODE")
    return {name: text for name, text in os.environ.items() if not name.startswith(unwanted)}


def run() -> list[Row]:
    """Measure both commands."""
    environ = _environ()
    coreflow = [sys.executable, "-m", "coreflow"]
    subprocess.run([*coreflow, "version"], env=environ, check=True, capture_output=True)
    reference = _cpu_seconds([sys.executable, "-c", "pass"], environ)
    rows = [
        Row(case="python -c pass", milliseconds=reference * 1000, ratio=1.0, note="the reference, CPU time")
    ]

    def add(case: str, seconds: float, note: str) -> None:
        ratio = seconds / reference
        rows.append(Row(case=case, milliseconds=seconds * 1000, ratio=ratio, limit=LIMITS[case], note=note))

    add("version", _cpu_seconds([*coreflow, "version"], environ), "coreflow version")
    host = os.environ.get("COREFLOW_TEST_DOCKER_HOST")
    if host is None:
        print("no plan: scripts/engine up, and its exports, give it an engine", file=sys.stderr)
        return rows
    with _settled(host) as (records, with_engine):
        plan = [*coreflow, "plan", "--detailed-exitcode", str(records)]
        add("plan", _cpu_seconds(plan, with_engine), "coreflow plan, nothing to do")
    return rows
