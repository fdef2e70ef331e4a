"""What Cloudly asks for with backups and restores, and what it is answered."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from attrs import define, field
from structlog.testing import capture_logs
from tests.unit.adapters.cloudly.stand_in import CloudlyStandIn, Json, follow, settle
from trio.testing import MockClock

from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.adapters.cloudly.backups import backup_document, restore_document
from coreflow.adapters.net.typedsocket import INTERNAL_ERROR, PeerError
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import (
    BackupRequest,
    BackupResult,
    Replication,
    RestoreRequest,
    RestoreResult,
)
from coreflow.domain.ids import NodeId, ServiceId

BACKUP, RESTORE = "executeServiceBackup", "executeServiceRestore"
SERVICE = ServiceId("svc-shop")
ASKED: Json = {"backupId": "bkp-1", "serviceId": SERVICE}


@define
class Scripted:
    """An operator that notes what it is asked, and answers when it is let."""

    error: Exception | None = None
    requests: list[BackupRequest | RestoreRequest] = field(factory=list)
    waits: dict[str, trio.Event] = field(factory=dict)
    """By id of a backup."""
    cancelled: list[str] = field(factory=list)

    async def backup(self, request: BackupRequest) -> BackupResult:
        """See `Operator`."""
        await self._at_work(request)
        return BackupResult(backup_id=request.backup_id, service_id=request.service_id, status="completed")

    async def restore(self, request: RestoreRequest) -> RestoreResult:
        """See `Operator`."""
        await self._at_work(request)
        return RestoreResult(backup_id=request.backup_id, service_id=request.service_id, status="completed")

    async def _at_work(self, request: BackupRequest | RestoreRequest) -> None:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        try:
            if request.backup_id in self.waits:
                await self.waits[request.backup_id].wait()
        except trio.Cancelled:
            self.cancelled.append(request.backup_id)
            raise


async def connected(
    nursery: trio.Nursery, operator: Scripted | None = None, answers: Json | None = None
) -> tuple[CloudlyStandIn, NetworkCloudly]:
    """Our adapter, with somebody who carries out what Cloudly asks for."""
    far = CloudlyStandIn(answers or {})
    port = follow(far, nursery)
    if operator is not None:
        port.serve(operator)
    await port.link.wait()
    return far, port


async def ask(far: CloudlyStandIn, method: str, body: Mapping[str, object]) -> Any:
    """What Cloudly is answered."""
    answered = await far.peers[-1].request(method, body, timeout=1e9)
    return answered.response


async def refused(far: CloudlyStandIn, method: str, body: Mapping[str, object]) -> str:
    """The error that Cloudly is answered."""
    with pytest.raises(PeerError) as caught:
        await ask(far, method, body)
    return caught.value.text


# --- requests


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (ASKED, BackupRequest(backup_id="bkp-1", service_id=SERVICE)),
        (
            {"backupId": "bkp-1", "service": {"id": SERVICE, "data": {"name": "shop"}}},
            BackupRequest(backup_id="bkp-1", service_id=SERVICE),
        ),
        (
            {**ASKED, "service": {"id": SERVICE}, "trigger": None, "replicate": None, "other": [1]},
            BackupRequest(backup_id="bkp-1", service_id=SERVICE),
        ),
        (
            {
                **ASKED,
                "trigger": "schedule",
                "replicate": True,
                "includeVolumes": False,
                "includeResources": False,
            },
            BackupRequest(
                backup_id="bkp-1",
                service_id=SERVICE,
                trigger="schedule",
                replicate=True,
                include_volumes=False,
                include_resources=False,
            ),
        ),
    ],
)
async def test_a_backup_is_asked_for(
    autojump_clock: MockClock, nursery: trio.Nursery, body: Json, expected: BackupRequest
) -> None:
    """By the id of a service or by its record; what is not said has its default."""
    operator = Scripted()
    far, _ = await connected(nursery, operator)
    response = await ask(far, BACKUP, body)
    assert operator.requests == [expected]
    assert response["result"]["backupId"] == "bkp-1"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, RestoreRequest(backup_id="bkp-1", service_id=SERVICE)),
        (
            {"volumes": [], "resources": None, "pullMissingObjects": False},
            RestoreRequest(backup_id="bkp-1", service_id=SERVICE, volumes=(), pull_missing=False),
        ),
        (
            {
                "volumes": [
                    {
                        "volumeName": "v",
                        "mountPath": "/data",
                        "snapshotId": "s1",
                        "nodeId": "n",
                        "sizeBytes": 5,
                    },
                    {"volumeName": "w"},
                    {"mountPath": "/x"},
                    {"snapshotId": "s2"},
                ],
                "resources": [
                    {"capability": "database", "bindingId": "pb-1", "snapshotId": "s3"},
                    {"capability": "objectstorage"},
                ],
            },
            RestoreRequest(
                backup_id="bkp-1",
                service_id=SERVICE,
                volumes=(
                    Part(kind="volume", name="v", mount_path="/data", snapshot_id="s1", node=NodeId("n")),
                    Part(kind="volume", name="w"),
                    Part(kind="volume", name="", mount_path="/x"),
                    Part(kind="volume", name="", snapshot_id="s2"),
                ),
                resources=(
                    Part(kind="database", name="database", binding_id="pb-1", snapshot_id="s3"),
                    Part(kind="objectstorage", name="objectstorage"),
                ),
            ),
        ),
    ],
)
async def test_a_restore_is_asked_for(
    autojump_clock: MockClock, nursery: trio.Nursery, body: Json, expected: RestoreRequest
) -> None:
    """Of everything, or of what is named in one of several ways."""
    operator = Scripted()
    far, _ = await connected(nursery, operator)
    response = await ask(far, RESTORE, {**ASKED, **body})
    assert operator.requests == [expected]
    assert response["result"]["status"] == "completed"


async def test_a_resource_that_is_named_by_its_binding(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """It is what the last records say; where these do not know it, the request is wrong."""
    bindings = [{"id": "pb-s3", "serviceId": SERVICE, "capability": "objectstorage"}]
    operator = Scripted()
    far, port = await connected(nursery, operator)
    body = {**ASKED, "resources": [{"bindingId": "pb-s3", "snapshotId": "s"}]}
    problem = "is missing, and no such binding is known @ $.resources[0].capability"
    assert await refused(far, RESTORE, body) == f"{RESTORE}: {problem}"
    far.know({"configData": {"id": "c1"}, "services": []})
    far.answers["getPlatformDesiredState"] = {"desiredState": {"bindings": bindings}}
    await port.records()
    await ask(far, RESTORE, body)
    assert operator.requests == [
        RestoreRequest(
            backup_id="bkp-1",
            service_id=SERVICE,
            resources=(
                Part(kind="objectstorage", name="objectstorage", binding_id="pb-s3", snapshot_id="s"),
            ),
        )
    ]


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("method", "body", "paths"),
    [
        (BACKUP, {}, ["$.backupId"]),
        (BACKUP, {"backupId": "b"}, ["$.serviceId"]),
        (BACKUP, {"backupId": ""}, ["$.backupId", "$.serviceId"]),
        (BACKUP, {**ASKED, "backupId": {"x": SECRET}}, ["$.backupId"]),
        (BACKUP, {**ASKED, "backupId": f"{SECRET}\n"}, ["$.backupId"]),
        (BACKUP, {**ASKED, "backupId": SECRET * 100}, ["$.backupId"]),
        (BACKUP, {"backupId": "b", "serviceId": 5}, ["$.serviceId"]),
        (BACKUP, {"backupId": "b", "service": SECRET}, ["$.service"]),
        (BACKUP, {"backupId": "b", "service": {"data": {"x": SECRET}}}, ["$.service.id"]),
        (BACKUP, {**ASKED, "service": {"id": SECRET}}, ["$.service.id"]),
        (BACKUP, {**ASKED, "replicate": SECRET}, ["$.replicate"]),
        (BACKUP, {**ASKED, "trigger": 1, "includeVolumes": 1}, ["$.trigger", "$.includeVolumes"]),
        (RESTORE, {}, ["$.backupId"]),
        (RESTORE, {**ASKED, "volumes": SECRET}, ["$.volumes"]),
        (RESTORE, {**ASKED, "volumes": [SECRET, {}]}, ["$.volumes[0]"]),
        (RESTORE, {**ASKED, "volumes": [{"nodeId": SECRET}]}, ["$.volumes[0]"]),
        (RESTORE, {**ASKED, "volumes": [{"snapshotId": [SECRET]}]}, ["$.volumes[0].snapshotId"]),
        (RESTORE, {**ASKED, "resources": [{}]}, ["$.resources[0].capability"]),
        (RESTORE, {**ASKED, "resources": [{"capability": SECRET}]}, ["$.resources[0].capability"]),
        (RESTORE, {**ASKED, "pullMissingObjects": SECRET}, ["$.pullMissingObjects"]),
    ],
)
async def test_a_bad_request(
    autojump_clock: MockClock, nursery: trio.Nursery, method: str, body: Json, paths: list[str]
) -> None:
    """It is told what is wrong where, without a value; nothing is begun, and the connection stays."""
    operator = Scripted()
    far, _ = await connected(nursery, operator)
    text = await refused(far, method, body)
    assert text.startswith(f"{method}: ")
    assert [problem.rpartition(" @ ")[2] for problem in text.split("; ")] == paths
    assert SECRET not in text
    assert operator.requests == []
    await ask(far, method, ASKED)
    assert len(far.dials) == 1


async def test_many_problems(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Some of them are told."""
    far, _ = await connected(nursery, Scripted())
    text = await refused(far, RESTORE, {**ASKED, "volumes": [{}] * 1000})
    assert len(text) <= 500
    assert "$.volumes[0]" in text


async def test_monstrous_references(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Too many, or too long: neither gets any further, and nothing of it is told."""
    far, _ = await connected(nursery, Scripted())
    many = await refused(far, RESTORE, {**ASKED, "resources": [{"capability": "database"}] * 1001})
    assert many == f"{RESTORE}: has more than 1000 entries @ $.resources"
    long = await refused(far, RESTORE, {**ASKED, "volumes": [{"snapshotId": "x" * 4097}]})
    assert long == f"{RESTORE}: is a string of more than 4096 characters @ $.volumes[0]"


# --- whoever carries it out


async def test_nobody_is_ready(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Until somebody is."""
    far, port = await connected(nursery)
    for method in (BACKUP, RESTORE):
        assert "not ready" in await refused(far, method, ASKED)
    operator = Scripted()
    port.serve(operator)
    await ask(far, BACKUP, ASKED)
    await ask(far, RESTORE, ASKED)
    assert len(operator.requests) == 2


@pytest.mark.parametrize("method", [BACKUP, RESTORE])
async def test_an_unexpected_error(autojump_clock: MockClock, nursery: trio.Nursery, method: str) -> None:
    """Cloudly learns that there was one, our log what and where; the next request is answered."""
    operator = Scripted(error=RuntimeError(SECRET))
    far, _ = await connected(nursery, operator)
    with capture_logs() as lines:
        assert await refused(far, method, ASKED) == INTERNAL_ERROR
    (line,) = (line for line in lines if line["event"] == "unexpected error")
    assert (line["method"], line["error"]) == (method, "RuntimeError")
    assert SECRET not in str(lines)
    operator.error = None
    await ask(far, method, ASKED)


async def test_two_at_once_and_what_else_there_is(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Each is answered when it is done, however long that takes; meanwhile pushes are answered at once."""
    operator = Scripted(waits={"long": trio.Event(), "short": trio.Event()})
    far, _ = await connected(nursery, operator)
    answered: list[str] = []

    async def one(method: str, backup_id: str) -> None:
        response = await ask(far, method, {"backupId": backup_id, "serviceId": backup_id})
        answered.append(response["result"]["serviceId"])

    nursery.start_soon(one, BACKUP, "long")
    nursery.start_soon(one, RESTORE, "short")
    await trio.sleep(5 * 3600)
    assert len(operator.requests) == 2
    start = trio.current_time()
    assert await ask(far, "pushPlatformConfig", {"desiredState": None}) == {}
    assert trio.current_time() == start
    operator.waits["short"].set()
    await settle()
    assert answered == ["short"]
    operator.waits["long"].set()
    await settle()
    assert answered == ["short", "long"]
    assert len(far.dials) == 1


async def test_the_connection_ends_meanwhile(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Whoever waited to answer is cancelled; on the next connection the same can be asked again."""
    operator = Scripted(waits={"bkp-1": trio.Event()})
    far, _ = await connected(nursery, operator)

    async def in_vain() -> None:
        with pytest.raises(Exception, match="connection"):
            await ask(far, BACKUP, ASKED)

    nursery.start_soon(in_vain)
    await settle()
    far.hang_up()
    await trio.sleep(5)
    assert operator.cancelled == ["bkp-1"]
    operator.waits["bkp-1"].set()
    await ask(far, BACKUP, ASKED)
    assert len(operator.requests) == 2


# --- results


def result(**change: Any) -> BackupResult:
    """A result of a backup."""
    facts = {"backup_id": "bkp-1", "service_id": SERVICE, "status": "completed", **change}
    return BackupResult(**facts)


VOLUME = Part(
    kind="volume", name="v", mount_path="/data", snapshot_id="s1", size_bytes=5, node=NodeId("node-a")
)
DATABASE = Part(kind="database", name="database", binding_id="pb", snapshot_id="s2", size_bytes=0)


def test_the_result_of_a_backup() -> None:
    """Volumes and resources apart, with what is known of them."""
    replication = Replication(status="completed", objects_total=14, objects_uploaded=9, bytes_uploaded=100)
    done = result(started_ms=1, finished_ms=2, parts=(DATABASE, VOLUME), replication=replication)
    assert backup_document(done) == {
        "backupId": "bkp-1",
        "serviceId": SERVICE,
        "status": "completed",
        "startedAt": 1,
        "finishedAt": 2,
        "volumes": [
            {"volumeName": "v", "mountPath": "/data", "snapshotId": "s1", "sizeBytes": 5, "nodeId": "node-a"}
        ],
        "resources": [{"capability": "database", "bindingId": "pb", "snapshotId": "s2", "sizeBytes": 0}],
        "replication": {
            "status": "completed",
            "objectsTotal": 14,
            "objectsUploaded": 9,
            "bytesUploaded": 100,
        },
    }


def test_the_result_of_a_backup_that_failed() -> None:
    """Every error stands where it belongs, and what is not known is not there."""
    parts = (
        Part(kind="volume", name="v", mount_path="/data", error="away"),
        Part(kind="objectstorage", name="objectstorage", binding_id="pb", error="no"),
    )
    replication = Replication(status="failed", error="no archives")
    document = backup_document(result(status="failed", parts=parts, replication=replication, error="all"))
    assert document["volumes"] == [
        {"volumeName": "v", "mountPath": "/data", "snapshotId": "", "errorText": "away"}
    ]
    assert document["resources"] == [
        {"capability": "objectstorage", "bindingId": "pb", "snapshotId": "", "errorText": "no"}
    ]
    assert document["replication"] == {
        "status": "failed",
        "objectsTotal": 0,
        "objectsUploaded": 0,
        "bytesUploaded": 0,
        "errorText": "no archives",
    }
    assert document["errorText"] == "all"
    assert "replication" not in backup_document(result())


def test_the_result_of_a_restore() -> None:
    """With an error only where there was one."""
    done = RestoreResult(
        backup_id="bkp-1",
        service_id=SERVICE,
        status="partial",
        objects_pulled=3,
        volumes_created=("v",),
        volumes_restored=("v", "w"),
        resources_restored=("pb",),
        error="one is missing",
    )
    document = {
        "backupId": "bkp-1",
        "serviceId": SERVICE,
        "status": "partial",
        "objectsPulled": 3,
        "volumesCreated": ["v"],
        "volumesRestored": ["v", "w"],
        "resourcesRestored": ["pb"],
        "errorText": "one is missing",
    }
    assert restore_document(done) == document
    empty = RestoreResult(backup_id="bkp-1", service_id=SERVICE, status="failed")
    assert set(document) - set(restore_document(empty)) == {"errorText"}
