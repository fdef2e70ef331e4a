"""What operators read of a running daemon, over HTTP."""

import json
import re
import urllib.request
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.app.worlds import World, cluster, daemon_settings, service

from coreflow.adapters.admin import SERVICES, STATUS, serve_admin
from coreflow.adapters.memory import MemoryCorestore
from coreflow.adapters.net import ServerOptions, WebSocket, serve_websockets
from coreflow.adapters.probe import ask_health
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.corestores import Corestores
from coreflow.app.main import Ports, admin_pages, running
from coreflow.app.settings import load_settings
from coreflow.domain.backup.requests import BackupRequest
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ids import ServiceId

pytestmark = pytest.mark.guest


def read(port: int) -> dict[tuple[str, ...], float]:
    """All samples by name and labels, read by the parser of Prometheus' own client."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_passes_and_backups_are_counted(nursery: trio.Nursery, tmp_path: Path) -> None:
    """What the passes did, and how a backup ended."""
    world = World()
    world.cloudly.set(cluster(service("a")))
    settings = load_settings(
        {"CLOUDLY_URL": "file:///nowhere", "COREFLOW_INITIAL_DELAY": "0", "COREFLOW_BASE_SERVICES": ""},
        directory=tmp_path,
        secrets=tmp_path,
    )
    ports = Ports(
        cloudly=world.cloudly,
        docker=SwarmPort(world.engine),
        corestores=Corestores.one(MemoryCorestore()),
    )
    async with running(settings, ports) as engine:
        assert engine.metrics is not None
        assert engine.operations is not None
        port = await nursery.start(serve_admin, "127.0.0.1", 0, engine.metrics.read)
        await engine.reconciled()
        await engine.operations.backup(BackupRequest(backup_id="b", service_id=ServiceId("id-a")))
        young = await trio.to_thread.run_sync(read, port)
        assert young["coreflow_services", "as_desired"] == 0, "its tasks have only just begun to run"
        assert young["coreflow_service_tasks_wanted", "a"] == 1
        with trio.fail_after(30):
            while engine.status is not None and not engine.status.current().counts.get("as desired"):
                await trio.sleep(0.2)
                world.engine.advance(0)
        found = await trio.to_thread.run_sync(read, port)
    assert found["coreflow_passes_total",] >= 1
    assert found["coreflow_actions_total", "create", "service", "applied"] == 1
    assert found["coreflow_services", "as_desired"] == 1
    assert found["coreflow_backups_total", "failed"] == 1
    assert found["coreflow_restores_total", "completed"] == 0
    assert found["coreflow_operations_running",] == 0
    nursery.cancel_scope.cancel()


def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """The status and the JSON document of a page."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


async def test_a_daemon_tells_how_it_is(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Whether it lives and is ready, what runs, and everything about one service."""
    world = World()
    world.cloudly.set(cluster(service("a"), service("b/c", secretBundleId="nope")))
    settings = daemon_settings(tmp_path, COREFLOW_INITIAL_DELAY="1")
    ports = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))
    async with running(settings, ports) as engine:
        pages = admin_pages(engine)
        port = await nursery.start(serve_admin, "127.0.0.1", 0, tuple, pages)

        async def ask(path: str) -> tuple[int, dict[str, Any]]:
            return await trio.to_thread.run_sync(get, port, path)

        code, document = await ask("/readyz")
        assert (code, document) == (503, {"status": "the records have not been read yet"})
        assert await ask("/healthz") == (200, {"status": "ok"})
        code, document = await ask(STATUS)
        assert (code, document["verdict"]) == (200, "unknown")
        await engine.reconciled()
        assert await ask("/readyz") == (200, {"status": "ok"})
        code, document = await ask(STATUS)
        assert [s["name"] for s in document["services"]] == ["a", "b/c"]
        code, document = await ask(f"{SERVICES}a")
        assert (code, document["service"]["name"], document["record"]) == (200, "a", "rendered")
        code, document = await ask(f"{SERVICES}b%2Fc")
        assert (code, document["record"]) == (200, f"rejected: {document['service']['cause']}")
        for name in ("nobody", "", "%00", "..%2f..%2fetc"):
            assert await ask(f"{SERVICES}{name}") == (404, {"error": "There is no such service"})
        assert (await ask("/api/v1/other"))[0] == 404
    nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken(nursery: trio.Nursery) -> None:
    """Is said, and costs nothing else."""
    port = await nursery.start(serve_admin, "127.0.0.1", 0, tuple)
    with pytest.raises(Unavailable, match="cannot listen"):
        await serve_admin("127.0.0.1", port, tuple)
    nursery.cancel_scope.cancel()


async def test_a_daemon_says_that_it_is_well(nursery: trio.Nursery) -> None:
    """Who listens everywhere is asked at this machine's own address."""
    port = await nursery.start(serve_admin, "0.0.0.0", 0, tuple)  # noqa: S104
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104
        await trio.to_thread.run_sync(ask_health, host, port, 10.0)
    nursery.cancel_scope.cancel()


async def test_what_is_not_well(nursery: trio.Nursery) -> None:
    """One that says so, nobody at all, somebody who never answers, and one who speaks something else."""

    async def ask(port: int) -> None:
        await trio.to_thread.run_sync(ask_health, "127.0.0.1", port, 0.5)

    options = ServerOptions(healthz=lambda: "its loop stands still")
    listening = await nursery.start(partial(serve_websockets, "127.0.0.1", 0, _hang_up, options))
    with pytest.raises(Refused, match="its loop stands still"):
        await ask(listening.port)
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = silent.socket.getsockname()[1]
    with pytest.raises(Unavailable, match=re.escape("no answer within 0.5 s")):
        await ask(port)
    await silent.aclose()
    with pytest.raises(Unavailable, match="Connection refused"):
        await ask(port)
    (strange,) = await nursery.start(partial(trio.serve_tcp, _babble, 0, host="127.0.0.1"))
    with pytest.raises(Unavailable, match="BadStatusLine"):
        await ask(strange.socket.getsockname()[1])
    nursery.cancel_scope.cancel()


async def _hang_up(socket: WebSocket) -> None:
    await socket.close()


async def _babble(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"220 mail.example ESMTP\r\n")
    await stream.aclose()
