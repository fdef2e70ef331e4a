"""Backups and restores that a Cloudly on the real npm packages asks for."""

from typing import Any

import pytest
import trio
from attrs import define, field
from structlog.testing import capture_logs
from tests.integration.node_harness import Cloudly, needs_node, start_cloudly
from tests.integration.test_cloudly_contract import new_port

from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult

pytestmark = [pytest.mark.guest, needs_node]

SECRET = "hunter2"
ASKED = {"backupId": "bkp-1", "serviceId": "svc-shop"}
TAKEN = Part(kind="volume", name="shop-data", mount_path="/data", snapshot_id="snap-1", size_bytes=5)


@define
class Scripted:
    """An operator that takes snapshots of nothing; of `waits`, when it is let, of `broken`, never."""

    waits: dict[str, trio.Event] = field(factory=dict)
    broken: str = ""
    begun: trio.Event = field(factory=trio.Event)

    async def backup(self, request: BackupRequest) -> BackupResult:
        """See `Operator`."""
        self.begun.set()
        if request.backup_id == self.broken:
            raise RuntimeError(SECRET)
        if request.backup_id in self.waits:
            await self.waits[request.backup_id].wait()
        return BackupResult(
            backup_id=request.backup_id, service_id=request.service_id, status="completed", parts=(TAKEN,)
        )

    async def restore(self, request: RestoreRequest) -> RestoreResult:
        """See `Operator`."""
        names = tuple(part.name for part in request.volumes or ())
        return RestoreResult(
            backup_id=request.backup_id,
            service_id=request.service_id,
            status="completed",
            volumes_restored=names,
        )


async def connected(nursery: trio.Nursery, operator: Scripted | None) -> tuple[Cloudly, NetworkCloudly]:
    """A Cloudly, and our adapter on a connection that is tagged."""
    far = await start_cloudly(nursery)
    port = new_port(far)
    if operator is not None:
        port.serve(operator)
    nursery.start_soon(port.run)
    await port.link.wait()
    return far, port


async def test_a_backup_and_a_restore(nursery: trio.Nursery) -> None:
    """What one answers is what the other can be asked with."""
    far, _ = await connected(nursery, Scripted())
    result = (await far.operate("executeServiceBackup", **ASKED))["response"]["result"]
    assert (result["status"], result["serviceId"]) == ("completed", "svc-shop")
    volume = {"volumeName": "shop-data", "mountPath": "/data", "snapshotId": "snap-1", "sizeBytes": 5}
    assert result["volumes"] == [volume]
    answer = await far.operate("executeServiceRestore", **ASKED, volumes=result["volumes"])
    assert answer["response"]["result"] == {
        **ASKED,
        "status": "completed",
        "objectsPulled": 0,
        "volumesCreated": [],
        "volumesRestored": ["shop-data"],
        "resourcesRestored": [],
    }
    nursery.cancel_scope.cancel()


async def test_what_is_not_carried_out(nursery: trio.Nursery) -> None:
    """Nobody is there for it, it cannot be read, or it goes wrong: an error each, and the connection stays."""
    far, port = await connected(nursery, None)
    assert "not ready" in (await far.operate("executeServiceBackup", **ASKED))["error"]
    port.serve(Scripted(broken="bkp-1"))
    answer = await far.operate("executeServiceRestore", **ASKED, volumes=[SECRET])
    assert answer["error"] == "executeServiceRestore: expected a mapping, got text @ $.volumes[0]"
    with capture_logs() as lines:
        answer = await far.operate("executeServiceBackup", **ASKED)
    assert answer["error"] == "Internal server error"
    assert SECRET not in str((answer, lines))
    assert "response" in await far.operate("executeServiceBackup", **{**ASKED, "backupId": "bkp-2"})
    assert len(await far.connections()) == 1
    nursery.cancel_scope.cancel()


async def test_several_at_once(nursery: trio.Nursery) -> None:
    """They do not wait for each other, nor does anything else."""
    operator = Scripted(waits={"long": trio.Event()})
    far, port = await connected(nursery, operator)
    answers: dict[str, Any] = {}

    async def one(backup_id: str) -> None:
        answers[backup_id] = await far.operate("executeServiceBackup", **{**ASKED, "backupId": backup_id})

    async with trio.open_nursery() as askers:
        askers.start_soon(one, "long")
        await operator.begun.wait()
        await one("short")
        assert await port.copies() == ()
        assert list(answers) == ["short"]
        operator.waits["long"].set()
    assert answers["long"]["response"]["result"]["backupId"] == "long"
    nursery.cancel_scope.cancel()
