"""The memory of a daemon with many services at rest, on a real Swarm: with a cluster file, and with a Cloudly.

Needs an engine (`scripts/engine up`, `COREFLOW_TEST_DOCKER_HOST`) and Node (`scripts/node-harness`). The services have
variables, a host and no replicas. The daemon is a process of its own that looks again every few seconds, so that what
passes leave behind is counted, too.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from tests.integration.node_harness import _missing, start_cloudly

from benchmarks.swarm import IMAGE, OURS, PREFIX, remove, remove_networks
from benchmarks.table import Row
from coreflow.adapters.engine.client import open_engine

SERVICES = 1000
LIMIT_MB = 110.0
REST_SECONDS = 30.0
"""From the last service that was made to the measurement: some passes."""
PATIENCE = 120.0


def _document() -> dict[str, Any]:
    services = [
        {
            "id": f"id-{n}",
            "data": {
                "name": f"{PREFIX}-{n}",
                "registryTarget": {"imageUrl": IMAGE},
                "scaleFactor": 0,
                "ports": {"web": 8080},
                "domains": [{"name": f"h{n}.example.com"}],
                "environment": {"LEVEL": "info", "REGION": "eu-1", "NAME": f"service {n}"},
            },
        }
        for n in range(SERVICES)
    ]
    return {"configData": {"id": PREFIX, "data": {"name": "bench"}}, "services": services}


@contextmanager
def _daemon(host: str, folder: Path, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("COREFLOW_", "DOCKER_"))}
    environ = {
        **kept,
        "DOCKER_HOST": host,
        "COREFLOW_BASE_SERVICES": "",
        "COREFLOW_LISTEN": "127.0.0.1:0",
        "COREFLOW_ADMIN_LISTEN": "127.0.0.1:0",
        "COREFLOW_INITIAL_DELAY": "0",
        "COREFLOW_RELIST_SECONDS": "5",
        **settings,
    }
    command = [sys.executable, "-m", "coreflow", "run"]
    daemon = subprocess.Popen(command, env=environ, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        yield daemon
    finally:
        daemon.terminate()
        daemon.wait()


async def _at_rest(host: str, folder: Path, settings: Mapping[str, str]) -> tuple[float, float]:
    """Megabytes at rest, and at the peak."""
    with _daemon(host, folder, settings) as daemon:
        async with open_engine(host) as engine:
            with trio.fail_after(PATIENCE):
                while sum(_is_ours(s) for s in await engine.list_services()) < SERVICES:  # noqa: ASYNC110 - no event tells
                    await trio.sleep(1)
        await trio.sleep(REST_SECONDS)
        assert daemon.poll() is None, "the daemon has ended"
        status = await trio.Path(f"/proc/{daemon.pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(int(lines[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def _is_ours(service: Mapping[str, Any]) -> bool:
    return str(service["Spec"]["Name"]).startswith(f"{PREFIX}-")


async def _measure(host: str, folder: Path) -> dict[str, tuple[float, float]]:
    document, found = _document(), {}
    records = folder / "cluster.json"
    records.write_text(json.dumps(document))
    found["a cluster file"] = await _at_rest(host, folder, {"CLOUDLY_URL": f"file://{records}"})
    async with trio.open_nursery() as nursery:
        cloudly = await start_cloudly(nursery)
        await cloudly.know(cluster=document["configData"], services=document["services"], tokens=["token"])
        settings = {"CLOUDLY_URL": cloudly.url, "JUMPCODE": "token"}
        found["a Cloudly"] = await _at_rest(host, folder, settings)
        nursery.cancel_scope.cancel()
    return found


def run() -> list[Row]:
    """Measure; one row per source of records. Removes what it made, also when it fails."""
    host = os.environ.get("COREFLOW_TEST_DOCKER_HOST")
    if not host:
        sys.exit("benchmarks: COREFLOW_TEST_DOCKER_HOST is not set (scripts/engine up)")
    if missing := _missing():
        sys.exit(f"benchmarks: {missing}")
    with tempfile.TemporaryDirectory(prefix="coreflow-benchmark-") as name:
        try:
            found = trio.run(_measure, host, Path(name))
        finally:
            trio.run(remove, host, OURS)
            trio.run(remove_networks, host)
    return [
        Row(
            case=case,
            milliseconds=REST_SECONDS * 1000,
            ratio=rest / LIMIT_MB,
            limit=1.0,
            note=f"{rest:.0f} MB, {peak:.0f} MB at the peak, in units of {LIMIT_MB:.0f} MB",
        )
        for case, (rest, peak) in found.items()
    ]
