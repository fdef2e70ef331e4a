"""Restores through our adapter, from a Corestore that lies: a stand-in that listens on a port, and a Swarm in memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from tests.integration.corestore_server import CorestoreServer, running_corestore
from tests.unit.app.worlds import World, cluster, new_engine, service

from coreflow.adapters.corestore import Corestore
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.backups import Timeouts, Tools
from coreflow.app.bindings import Bindings
from coreflow.app.corestores import Corestores
from coreflow.app.operations import Operations
from coreflow.app.progress import Unwatched
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.ids import ServiceId
from coreflow.domain.swarm.naming import RESTORE, STOPPED, volume_name

pytestmark = pytest.mark.guest

SHOP = ServiceId("id-shop")
DATA = volume_name(SHOP, "/data")
TOKEN = "canary-token"
GOOD, LATER = {"orders": b"one and two", "sub/more": b"x" * 50_000}, {"orders": b"destroyed"}
RESTORES, SNAPSHOTS = "^/volumes/restore$", "^/volumes/snapshot$"
QUICK = Timeouts(poll=0.02, heartbeat=5.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CorestoreServer]:
    """The stand-in of all tests."""
    with running_corestore(tmp_path_factory.mktemp("corestore") / "data", token=TOKEN) as server:
        yield server


class Bench:
    """A service that was backed up, and has other data since."""

    def __init__(self, server: CorestoreServer) -> None:
        self.server = server
        self.world = World(engine=new_engine())
        for node in self.world.engine.nodes.values():
            node.plugins.add("corestore")
        record = service("shop", volumes=[{"mountPath": "/data", "backup": True}], scaleFactor=2)
        self.world.cloudly.set(cluster(record))

    async def prepare(self) -> None:
        """Make all of it."""
        await self.server.wipe()
        await self.server.ask(
            "POST", "/volumes/create", {"name": DATA, "serviceId": SHOP, "mountPath": "/data"}
        )
        assert (await self.world.reconciler().reconcile()).reports
        self.world.engine.settle()
        self.fill(GOOD)
        backup = await self.backup("b1")
        assert backup.status == "completed", backup
        self.fill(LATER)

    @property
    def folder(self) -> Path:
        """The volume."""
        return self.server.volume_dir(DATA)

    def fill(self, files: Mapping[str, bytes]) -> None:
        """Have this in the volume, and nothing else."""
        for path in [path for path in self.folder.rglob("*") if path.is_file()]:
            path.unlink()
        for name, content in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)

    @property
    def data(self) -> dict[str, bytes]:
        """What is in the volume."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    async def backup(self, backup_id: str) -> BackupResult:
        """Make a backup."""
        result = await self._operate(BackupRequest(backup_id=backup_id, service_id=SHOP))
        assert isinstance(result, BackupResult)
        return result

    async def restore(self, backup_id: str = "b1") -> RestoreResult:
        """Restore one."""
        result = await self._operate(RestoreRequest(backup_id=backup_id, service_id=SHOP))
        assert isinstance(result, RestoreResult)
        return result

    async def _operate(self, request: BackupRequest | RestoreRequest) -> object:
        corestores = Corestores.one(Corestore(self.server.url, TOKEN))
        tools = Tools(
            cloudly=self.world.cloudly,
            docker=SwarmPort(self.world.engine),
            corestores=corestores,
            bindings=Bindings(corestores, self.world.cloudly),
            replicator=None,
            watcher=Unwatched(),
            clock=lambda: 1_795_000_000.0,
            timeouts=QUICK,
        )
        async with trio.open_nursery() as nursery:
            operations = Operations(tools, owner="command-1", finish_orphans=False)
            nursery.start_soon(operations.run)
            make = operations.backup if isinstance(request, BackupRequest) else operations.restore
            result = await make(request)  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()
        return result

    async def is_running(self) -> bool:
        """Whether it runs as before, without a trace of a restore."""
        spec = (await self.world.live("shop"))["Spec"]
        return spec["Mode"]["Replicated"]["Replicas"] == 2 and not {STOPPED, RESTORE} & spec["Labels"].keys()


def said(answer: object) -> dict[str, Any]:
    """A status that is fine, with this answer."""
    return {"status": 200, "text": orjson.dumps(answer).decode(), "raw": True}


SNAPSHOT = {"id": "nobody", "kind": "volume", "name": DATA}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "404": ({"kind": "status", "path": RESTORES, "status": 404, "text": "no snapshot"}, "HTTP status 404"),
    "400": ({"kind": "status", "path": RESTORES, "status": 400}, "HTTP status 400"),
    "507 of everything": ({"kind": "status", "path": RESTORES, "status": 507}, "but nothing was changed"),
    "507 once": ({"kind": "status", "path": RESTORES, "status": 507, "times": 1}, "HTTP status 507"),
    "declined": (
        {"kind": "status", "path": RESTORES, **said({"ok": False, "error": "no"})},
        ": no; what was there",
    ),
    "done, and declined": (
        {"kind": "after", "path": RESTORES, "times": 1, **said({"ok": False, "error": "no"})},
        ": no; it is as it was before",
    ),
    "no effect": ({"kind": "status", "path": RESTORES, "times": 1, **said({"ok": True})}, "bytes instead of"),
    "a snapshot that nobody lists": (
        {"kind": "status", "path": SNAPSHOTS, **said({"snapshot": SNAPSHOT})},
        "which it does not list",
    ),
    "another service's snapshot": (
        {"kind": "status", "path": SNAPSHOTS, **said({"snapshot": {**SNAPSHOT, "serviceId": "id-other"}})},
        "as another service's",
    ),
    "null for a snapshot": (
        {"kind": "status", "path": SNAPSHOTS, "status": 200, "text": "null", "raw": True, "times": 1},
        "",
    ),
    "null, though done": ({"kind": "after", "path": RESTORES, "times": 1, **said(None)}, ""),
    "hang-up, once": ({"kind": "cut", "path": RESTORES, "times": 1}, ""),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_corestore_that_lies(server: CorestoreServer, name: str) -> None:
    """The workload runs on its old data, and the reason is said; what only had no answer is done at the next try."""
    fault, text = FAULTS[name]
    bench = Bench(server)
    await bench.prepare()
    await server.fault(**fault)
    result = await bench.restore()
    assert (result.status, bench.data) == (("failed", LATER) if text else ("completed", GOOD)), result
    assert text in result.error
    assert TOKEN not in result.error
    assert await bench.is_running()
