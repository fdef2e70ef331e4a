"""A real Swarm: our pass and our command against `docker stack deploy` with the same content, in the same run.

Needs an engine (`scripts/engine up`, `COREFLOW_TEST_DOCKER_HOST`). N services with one secret each and no replicas, so that
what is measured is the reconciling and not the starting of containers. Times are medians; calls are counted in runs of
their own, at a proxy in front of the engine's socket.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from tests.integration.engine_proxy import EngineProxy, engine_proxy

from benchmarks.table import Row
from coreflow.adapters.engine.client import open_engine
from coreflow.adapters.file import FileCloudly
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.reconcile import Reconciler
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions

COUNTS = (100, 300)
ROUNDS = 5
IMAGE = "coreflow/test:1"
PREFIX = f"bench{os.getpid()}"
RENDER = RenderOptions(base=BaseOptions(services=()))


class _Bench:
    """One folder with the cluster file, the compose file and the secrets."""

    def __init__(self, host: str, folder: Path, count: int) -> None:
        self.host, self.folder, self.count = host, folder, count
        self.records, self.compose = folder / "cluster.json", folder / "stack.json"
        names = [f"{PREFIX}-{number}" for number in range(count)]
        values = {name: f"secret of {name}" for name in names}
        self.records.write_text(json.dumps(cluster_document(values)))
        for name, value in values.items():
            (folder / name).write_text(json.dumps({"KEY": value}))
        self.compose.write_text(json.dumps(_stack(values, folder)))

    def docker(self, *arguments: str, host: str | None = None) -> None:
        """Run the docker client."""
        environ = {**os.environ, "DOCKER_HOST": host or self.host, "DOCKER_CONFIG": str(self.folder)}
        subprocess.run(["docker", *arguments], env=environ, check=True, stdout=subprocess.DEVNULL)

    def stack_deploy(self, host: str | None = None) -> None:
        """The yardstick."""
        self.docker(
            "stack", "deploy", "--resolve-image", "never", "-c", str(self.compose), f"{PREFIX}s", host=host
        )

    def apply(self, host: str | None = None) -> None:
        """The whole command, from start to end."""
        environ = {**os.environ, "DOCKER_HOST": host or self.host, "COREFLOW_BASE_SERVICES": ""}
        command = [sys.executable, "-m", "coreflow", "apply", "--records", str(self.records)]
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)

    def clean(self, label: str) -> None:
        """Remove services and secrets with a label."""
        trio.run(remove, self.host, label)


async def remove(host: str, label: str) -> None:
    """Remove services and secrets with a label, and wait until they are gone."""
    async with open_engine(host) as engine, trio.open_nursery() as nursery:
        for service in await engine.list_services():
            if label in _labels(service):
                nursery.start_soon(engine.remove_service, service["ID"])
    async with open_engine(host) as engine, trio.open_nursery() as nursery:
        for secret in await engine.list_secrets():
            if label in _labels(secret):
                nursery.start_soon(engine.remove_secret, secret["ID"])


def _labels(document: dict[str, Any]) -> set[str]:
    return {f"{key}={value}" for key, value in (document["Spec"].get("Labels") or {}).items()}


OURS, THEIRS = f"serve.zone.cluster={PREFIX}", f"com.docker.stack.namespace={PREFIX}s"


def cluster_document(values: dict[str, str], image: str = IMAGE) -> dict[str, Any]:
    """Services by these names without replicas, each with one secret."""
    return {
        "configData": {"id": PREFIX, "data": {"name": "bench"}},
        "services": [
            {
                "id": f"id-{name}",
                "data": {
                    "name": name,
                    "registryTarget": {"imageUrl": image},
                    "scaleFactor": 0,
                    "secretBundleId": f"bundle-{name}",
                },
            }
            for name in values
        ],
        "secretBundles": [
            {"id": f"bundle-{name}", "data": {"includedSecretGroupIds": [f"group-{name}"]}} for name in values
        ],
        "secretGroups": [
            {"id": f"group-{name}", "data": {"key": "KEY", "environments": {"production": {"value": value}}}}
            for name, value in values.items()
        ],
    }


def _stack(values: dict[str, str], folder: Path) -> dict[str, Any]:
    return {
        "version": "3.8",
        "services": {
            name: {
                "image": IMAGE,
                "networks": ["gateway"],
                "deploy": {
                    "replicas": 0,
                    "endpoint_mode": "dnsrr",
                    "resources": {"limits": {"memory": "1000M"}},
                },
                "secrets": [{"source": name, "target": "secret.json"}],
            }
            for name in values
        },
        "networks": {"gateway": {"external": True, "name": "sznwebgateway"}},
        "secrets": {name: {"file": str(folder / name)} for name in values},
    }


def _timed(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def _counted(proxy: EngineProxy, job: Callable[[], object]) -> str:
    proxy.reset()
    job()
    return f"{proxy.reads} reads, {proxy.writes} writes"


def run(count: int, rounds: int = ROUNDS) -> list[Row]:
    """Measure; one row per case. Removes what it made, also when it fails."""
    host = os.environ.get("COREFLOW_TEST_DOCKER_HOST")
    if not host:
        sys.exit("benchmarks: COREFLOW_TEST_DOCKER_HOST is not set (scripts/engine up)")
    with tempfile.TemporaryDirectory() as name:
        bench = _Bench(host, Path(name), count)
        try:
            return trio.run(_measure, bench, rounds)
        finally:
            bench.clean(OURS)
            bench.clean(THEIRS)
            trio.run(remove_networks, host)


async def remove_networks(host: str) -> None:
    """The networks that this run made, if it made them."""
    async with open_engine(host) as engine:
        for network in await engine.list_networks():
            if (network.get("Labels") or {}).get("serve.zone.cluster") == PREFIX:
                path = f"/networks/{network['Id']}"
                await engine._call("DELETE", path)  # noqa: SLF001 - coreflow itself never removes a network


async def _measure(bench: _Bench, rounds: int) -> list[Row]:
    create: dict[str, list[float]] = {"stack": [], "pass": []}
    idle: dict[str, list[float]] = {"stack": [], "pass": [], "apply": []}
    calls: dict[str, str] = {}
    blocking = trio.to_thread.run_sync
    async with open_engine(bench.host) as engine:
        port = SwarmPort(engine)

        async def settle() -> float:
            started = time.perf_counter()
            reconcile_result = await reconciler.reconcile()
            assert reconcile_result.is_stable
            return time.perf_counter() - started

        for turn in range(rounds):
            reconciler = Reconciler(FileCloudly(bench.records), port, render=RENDER)
            create["pass"].append(await settle())
            create["stack"].append(await blocking(_timed, bench.stack_deploy))
            for _ in range(3):
                idle["pass"].append(await settle())
            idle["stack"].append(await blocking(_timed, bench.stack_deploy))
            idle["apply"].append(await blocking(_timed, bench.apply))
            if turn < rounds - 1:
                await blocking(bench.clean, OURS)
                await blocking(bench.clean, THEIRS)
    with engine_proxy(bench.host, bench.folder) as proxy:
        calls["idle stack"] = await blocking(_counted, proxy, lambda: bench.stack_deploy(proxy.url))
        calls["idle apply"] = await blocking(_counted, proxy, lambda: bench.apply(proxy.url))
        async with open_engine(proxy.url) as engine:
            reconciler = Reconciler(FileCloudly(bench.records), SwarmPort(engine), render=RENDER)
            await reconciler.reconcile()
            proxy.reset()
            await reconciler.reconcile()
            calls["idle pass"] = f"{proxy.reads} reads, {proxy.writes} writes"
            await blocking(bench.clean, OURS)
            proxy.reset()
            await reconciler.reconcile()
            calls["create pass"] = f"{proxy.reads} reads, {proxy.writes} writes"
        await blocking(bench.clean, THEIRS)
        calls["create stack"] = await blocking(_counted, proxy, lambda: bench.stack_deploy(proxy.url))
    return _rows(bench.count, create, idle, calls)


def _rows(
    count: int, create: dict[str, list[float]], idle: dict[str, list[float]], calls: dict[str, str]
) -> list[Row]:
    rows = []
    for title, times, limits in (
        ("create", create, {"pass": 1.0} if count >= 300 else {}),
        ("idle", idle, {"pass": 0.15, "apply": 1.0} if count >= 300 else {}),
    ):
        reference = statistics.median(times["stack"])
        for name, taken in times.items():
            what = {
                "stack": "docker stack deploy",
                "pass": "a pass in a running process",
                "apply": "coreflow apply",
            }
            rows.append(
                Row(
                    case=f"{title}: {what[name]}",
                    milliseconds=statistics.median(taken) * 1000,
                    ratio=statistics.median(taken) / reference,
                    limit=limits.get(name),
                    calls=calls.get(f"{title} {name}", ""),
                    note="nothing changed" if title == "idle" else "into an empty Swarm",
                )
            )
    return rows
