"""Backups and restores among those who mean harm, or do it by mistake: notes written by hand, requests that resemble others."""

from functools import partial
from hashlib import sha256
from typing import Any

import orjson
import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.unit.app.test_backups import BINDINGS, CACHE, DATA, GOOD, LATER, SHOP, Bench, scene_with
from tests.unit.app.worlds import cluster

from coreflow.adapters.memory import MemoryCloudly, MemoryCorestore
from coreflow.app.backups import Timeouts
from coreflow.app.corestores import Corestores
from coreflow.app.operations import Operations
from coreflow.domain.backup.lease import DAEMON
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.replication import Copy, Receipt, manifest_prefix
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.backup.snapshots import VolumeSpec
from coreflow.domain.ids import ClusterId, NodeId, ServiceId
from coreflow.domain.platform.instances import Instance, Instances
from coreflow.domain.swarm.naming import RESTORE, STOPPED
from coreflow.domain.swarm.observed import Observed

OTHER = ServiceId("id-other")
THEIRS, SECRET = "theirs", {"secret": b"canary"}


async def stopped_by_hand(bench: Bench, lease: str, before: str = "2") -> None:
    """Somebody writes the labels of a restore on the service."""

    def change(spec: dict[str, Any]) -> None:
        spec["Labels"] |= {STOPPED: before, RESTORE: lease}
        spec["Mode"]["Replicated"]["Replicas"] = 0

    await bench.world.change("shop", change)


def lease_of(*parts: dict[str, Any], **more: Any) -> str:
    """A lease as a daemon writes it."""
    whole = {"id": "1", "backupId": "b1", "holder": f"{DAEMON}-x", "beat": 1, "parts": parts, **more}
    return orjson.dumps(whole).decode()


async def a_while(_: Operations) -> None:
    """Let the daemon do what it does by itself."""
    await trio.sleep(300)


async def other_service(bench: Bench) -> str:
    """Another service with a volume of its own; the id of a snapshot of it."""
    await bench.corestore.create_volume(VolumeSpec(name=THEIRS, service_id=OTHER, mount_path="/data"))
    bench.corestore.volume_data[THEIRS] = dict(SECRET)
    tags = {"backupId": "b1", "serviceId": OTHER}
    return (await bench.corestore.snapshot_volume(THEIRS, tags)).id


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_note_brings_no_snapshot_of_another_service(has_begun: bool) -> None:
    """The workload starts on what was there."""

    async def body(bench: Bench) -> None:
        bench.data = LATER
        theirs = await other_service(bench)
        part = {"kind": "volume", "name": DATA, "snapshotId": theirs}
        await stopped_by_hand(bench, lease_of(part, hasBegun=has_begun))
        await bench.with_operations(a_while)
        assert bench.data == LATER
        assert await bench.is_running()

    scene_with(body)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_note_overwrites_no_volume_of_another_service(has_begun: bool) -> None:
    """Not even with a snapshot that is ours."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        ours = (await bench.backup()).parts[0].snapshot_id
        await other_service(bench)
        part = {"kind": "volume", "name": THEIRS, "snapshotId": ours}
        await stopped_by_hand(bench, lease_of(part, hasBegun=has_begun))
        await bench.with_operations(a_while)
        assert bench.corestore.volume_data[THEIRS] == SECRET
        assert await bench.is_running()

    scene_with(body)


NONSENSE = (
    "",
    "nonsense",
    "[]",
    "{}",
    lease_of(beat=2**63),
    lease_of(beat=1e300),
    lease_of({"kind": "volume", "name": "", "snapshotId": ""}),
    lease_of({"kind": "database", "name": "database", "snapshotId": "nothing"}),
    lease_of({"kind": "volume", "name": DATA, "snapshotId": "nothing"}, hasBegun=True),
    lease_of(backupId="x\n" * 1000),
)


@pytest.mark.parametrize("lease", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_in_a_lease_keeps_no_workload_stopped(lease: str) -> None:
    """It starts, with its data, and nothing unexpected happens."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await stopped_by_hand(bench, lease)
        with capture_logs() as lines:
            await bench.with_operations(a_while)
        assert bench.data == GOOD
        assert await bench.is_running()
        assert not [line for line in lines if line["event"] == "unexpected error"]

    scene_with(body)


def test_another_scope_is_another_backup() -> None:
    """Whoever asks for everything does not get the result of a backup without the database, though its id is the same."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        results: list[BackupResult] = []

        async def ask(operations: Operations, **scope: Any) -> None:
            results.append(await operations.backup(BackupRequest(backup_id="b1", service_id=SHOP, **scope)))

        async def at_once(operations: Operations) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(ask, operations, include_resources=False))
                await trio.lowlevel.checkpoint()
                nursery.start_soon(partial(ask, operations, replicate=True))
            await ask(operations)

        await bench.with_operations(at_once)
        assert sorted(len(result.parts) for result in results) == [1, 3, 3]
        assert any(result.replication is not None for result in results)

    scene_with(body)


async def with_a_database(bench: Bench) -> Any:
    """Deploy a service with a volume and a database that both hold something; the rows of all databases."""
    bench.platform = BINDINGS
    await bench.deploy()
    bench.data = GOOD
    rows = bench.corestore.resource_data
    rows[SHOP, "database"] = {"rows": b"1"}
    return rows


def test_another_choice_is_another_restore() -> None:
    """Whoever asks for the database gets it, though a restore of the volume is under way, or its result waits."""

    async def body(bench: Bench) -> None:
        rows = await with_a_database(bench)
        await bench.backup()
        bench.data, rows[SHOP, "database"] = LATER, {}
        results: dict[str, RestoreResult] = {}
        volume = {"volumes": (Part(kind="volume", name=DATA),), "resources": ()}
        database = {"volumes": (), "resources": (Part(kind="database", name="database"),)}

        async def ask(operations: Operations, name: str, scope: dict[str, Any]) -> None:
            request = RestoreRequest(backup_id="b1", service_id=SHOP, **scope)
            results[name] = await operations.restore(request)

        async def at_once(operations: Operations) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, operations, "volume", volume)
                await trio.lowlevel.checkpoint()
                nursery.start_soon(ask, operations, "database", database)

        await bench.with_operations(at_once)
        assert results["volume"].volumes_restored == (DATA,)
        assert results["database"].resources_restored == ("b-db",)
        assert (bench.data, rows[SHOP, "database"]) == (GOOD, {"rows": b"1"})

    scene_with(body)


def test_who_was_asleep_for_long_overwrites_nothing_more() -> None:
    """A command is suspended, and the daemon finishes its restore. When it goes on, what was written since stays."""

    async def body(bench: Bench) -> None:
        bench.timeouts = Timeouts(heartbeat=10_000.0)  # asleep, it gives no sign of life
        bench.record["volumes"] = [{"mountPath": path, "backup": True} for path in ("/cache", "/data")]
        await bench.deploy()
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        held = bench.corestore.hold["restore_volume"] = trio.Event()
        results: list[RestoreResult] = []

        async def command() -> None:
            results.append(await bench.restore(owner="command-1"))

        async def daemon(_: Operations) -> None:
            with trio.fail_after(300):
                while not await bench.is_running():  # noqa: ASYNC110 - the engine has no event for it
                    await trio.sleep(1)
            bench.data = bench.corestore.volume_data[CACHE] = {"new": b"orders"}
            held.set()
            await trio.sleep(60)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(command)
            with trio.fail_after(60):
                while not bench.corestore.counts["restore_volume"]:  # noqa: ASYNC110 - counted, not announced
                    await trio.sleep(1)
            bench.corestore.hold.clear()
            await bench.with_operations(daemon)
        # the one that was on its way already cannot be had back
        assert {"new": b"orders"} in (bench.data, bench.corestore.volume_data[CACHE])
        assert results[0].status != "completed"
        assert await bench.is_running()

    scene_with(body)


def test_a_note_of_which_a_part_is_nowhere_changes_nothing() -> None:
    """As long as nothing is overwritten, the rest of it is not restored either."""

    class Elsewhere(Corestores):
        def instances(self, observed: Observed, cluster: ClusterId) -> Instances:
            return Instances(by_node={NodeId("here"): Instance(url="memory:", node=NodeId("here"))})

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        snapshot = (await bench.backup()).parts[0].snapshot_id
        bench.data = LATER
        parts = [
            {"kind": "volume", "name": DATA, "snapshotId": snapshot, "nodeId": n} for n in ("here", "gone")
        ]
        await stopped_by_hand(bench, lease_of(*parts))
        corestores = Elsewhere(lambda _: bench.corestore)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Operations(evolve(bench.tools(), corestores=corestores)).run)
            await trio.sleep(300)
            nursery.cancel_scope.cancel()
        assert bench.data == LATER
        assert await bench.is_running()

    scene_with(body)


def test_two_daemons_do_not_take_a_restore_from_each_other_for_ever() -> None:
    """One of them gives way: the workload is stopped no longer than the restore takes."""

    class Slow(MemoryCorestore):
        async def restore_volume(self, name: str, snapshot_id: str) -> None:
            await trio.sleep(100)
            await super().restore_volume(name, snapshot_id)

    async def body(bench: Bench) -> None:
        bench.corestore = Slow()
        await bench.deploy()
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        daemons = [Operations(bench.tools(), owner=f"{DAEMON}-{name}") for name in "ab"]

        async def look() -> None:
            while True:
                await trio.sleep(3)
                observed = (await bench.tools().docker.observe()).services
                for daemon in daemons:
                    daemon.observed(observed)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for daemon in daemons:
                nursery.start_soon(daemon.run)
            await daemons[0].restore(RestoreRequest(backup_id="b1", service_id=SHOP))
            with trio.fail_after(300):
                while not await bench.is_running():  # noqa: ASYNC110 - the engine has no event for it
                    await trio.sleep(1)
            assert bench.data == GOOD
            nursery.cancel_scope.cancel()

    scene_with(body)


def test_one_manifest_that_is_spoilt_does_not_hide_another() -> None:
    """Of two manifests of a backup, the one that can be read counts."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup(replicate=True)
        digest = sha256(b"{}").hexdigest()
        bad = Copy(name=f"{manifest_prefix('b1', SHOP)}{digest}", size=2, sha256=digest)
        receipt = await bench.cloudly.put_slice(bad, 0, b"{}", final=True, backup_id="b1")
        assert receipt.stored
        bench.corestore.archive.clear()
        bench.data = LATER
        result = await bench.restore()
        assert result.status == "completed", result
        assert bench.data == GOOD

    scene_with(body)


def test_a_copy_that_is_taken_too_little_at_a_time_is_given_up() -> None:
    """Whoever takes a byte of every slice would be sent the same data for ever."""

    class TooLittle(MemoryCloudly):
        async def put_slice(
            self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str = ""
        ) -> Receipt:
            await trio.sleep(0.1)
            return Receipt(min(offset + 1, copy.size), stored=False)

    async def body(bench: Bench) -> None:
        bench.cloudly = TooLittle(cluster())
        await bench.deploy()
        bench.data = {"large": bytes(3_000_000)}
        started = trio.current_time()
        result = await bench.backup(replicate=True)
        assert result.status == "partial"
        assert result.replication is not None
        assert "takes too little per request" in result.replication.error
        assert trio.current_time() - started < 300

    scene_with(body)


@pytest.mark.parametrize("owner", [f"{DAEMON}-x", "command-x"])
def test_what_others_left_is_no_answer_to_another_request(owner: str) -> None:
    """A part of a backup that was restored for somebody else is not all of it."""

    async def body(bench: Bench) -> None:
        rows = await with_a_database(bench)
        backup = await bench.backup()
        bench.data, rows[SHOP, "database"] = LATER, {}
        part = {"kind": "volume", "name": DATA, "snapshotId": backup.parts[0].snapshot_id}
        await stopped_by_hand(bench, lease_of(part, holder=owner))
        results: list[RestoreResult] = []

        async def ask(operations: Operations) -> None:
            await trio.sleep(120)
            assert bench.data == GOOD
            results.append(await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP)))

        await bench.with_operations(ask)
        assert results[0].resources_restored == ("b-db", "b-s3")
        assert rows[SHOP, "database"] == {"rows": b"1"}

    scene_with(body)
