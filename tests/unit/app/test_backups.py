"""Backups and restores, from the request to the result, on memory adapters. Killed anywhere, nothing is lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from tests.unit.app.worlds import Json, World, cluster, new_engine, play, service

from coreflow.adapters.memory import MemoryCorestore
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.backups import Timeouts, Tools
from coreflow.app.bindings import Bindings
from coreflow.app.corestores import Corestores
from coreflow.app.operations import Operations
from coreflow.app.progress import Unwatched
from coreflow.app.reconcile import Reconciler
from coreflow.app.replication import Replicator
from coreflow.domain.backup.lease import DAEMON
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.backup.snapshots import VolumeSpec
from coreflow.domain.errors import PortError, Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.swarm.naming import RESTORE, STOPPED, volume_name

SHOP = ServiceId("id-shop")
DATA = volume_name(SHOP, "/data")
CACHE = volume_name(SHOP, "/cache")
GOOD = {"orders": b"one and two", "sub/more": b"\0" * 3_000_000}
LATER = {"orders": b"destroyed"}
VOLUMES = [{"mountPath": "/data", "backup": True}, {"mountPath": "/cache"}]
BINDINGS = {
    "bindings": [
        {"id": "b-db", "data": {"serviceId": SHOP, "serviceName": "shop", "capability": "database"}},
        {"id": "b-s3", "data": {"serviceId": SHOP, "serviceName": "shop", "capability": "objectstorage"}},
    ]
}


class Bench:
    """A Swarm with a service that has data, its Corestore, and somebody who keeps copies."""

    def __init__(self, **record: Any) -> None:
        self.world = World(engine=new_engine())
        for node in self.world.engine.nodes.values():
            node.plugins.add("corestore")
        self.cloudly = self.world.cloudly
        self.corestore = MemoryCorestore()
        self.record = {"volumes": VOLUMES, "scaleFactor": 2, **record}
        self.steps: list[str] = []
        self.timeouts = Timeouts()
        self.platform: Json | None = None

    async def deploy(self, **more: Any) -> None:
        """Publish the service, run it, and have its volumes there, as Docker would."""
        others = {"platform": self.platform} if self.platform else {}
        self.cloudly.set(cluster(service("shop", **self.record, **more), **others))
        self.reconciler = Reconciler(
            self.cloudly,
            SwarmPort(self.world.engine),
            Corestores.one(self.corestore),
            render=self.world.render,
        )
        assert (await self.reconciler.deploy(timeout=60)).is_stable
        for name in (DATA, CACHE):
            await self.corestore.create_volume(VolumeSpec(name=name, service_id=SHOP, mount_path=""))

    def tools(self, *, away_seconds: float = 300.0) -> Tools:
        """Everything that an operation needs, as a new process has it."""
        cloudly, corestores = self.cloudly, Corestores.one(self.corestore)
        return Tools(
            cloudly=cloudly,
            docker=SwarmPort(self.world.engine),
            corestores=corestores,
            bindings=Bindings(corestores, cloudly),
            replicator=Replicator(cloudly, away_seconds=away_seconds),
            watcher=_Steps(self.steps),
            clock=lambda: 1_795_000_000.0 + trio.current_time(),
            timeouts=self.timeouts,
        )

    async def with_operations(
        self, body: Callable[[Operations], Awaitable[None]], owner: str = DAEMON
    ) -> None:
        """A process, for as long as the body runs."""
        async with trio.open_nursery() as nursery:
            operations = Operations(self.tools(), owner=owner)
            nursery.start_soon(operations.run)
            await body(operations)
            nursery.cancel_scope.cancel()

    async def backup(self, backup_id: str = "b1", **options: Any) -> BackupResult:
        """Make a backup in a process of its own."""
        results: list[BackupResult] = []

        async def body(operations: Operations) -> None:
            request = BackupRequest(backup_id=backup_id, service_id=SHOP, **options)
            results.append(await operations.backup(request))

        await self.with_operations(body)
        return results[0]

    async def restore(self, backup_id: str = "b1", owner: str = DAEMON, **options: Any) -> RestoreResult:
        """Restore in a process of its own."""
        results: list[RestoreResult] = []

        async def body(operations: Operations) -> None:
            request = RestoreRequest(backup_id=backup_id, service_id=SHOP, **options)
            results.append(await operations.restore(request))

        await self.with_operations(body, owner)
        return results[0]

    @property
    def data(self) -> dict[str, bytes]:
        """What is in the volume."""
        return self.corestore.volume_data[DATA]

    @data.setter
    def data(self, files: dict[str, bytes]) -> None:
        self.corestore.volume_data[DATA] = dict(files)

    async def labels(self) -> dict[str, str]:
        """The labels of the service."""
        labels: dict[str, str] = (await self.world.live("shop"))["Spec"]["Labels"]
        return labels

    async def replicas(self) -> int:
        """How many tasks Swarm is told to run."""
        number: int = (await self.world.live("shop"))["Spec"]["Mode"]["Replicated"]["Replicas"]
        return number

    async def is_running(self) -> bool:
        """Whether it runs as before, without a trace of a restore."""
        labels = await self.labels()
        return await self.replicas() == 2 and not {STOPPED, RESTORE} & labels.keys()


class HalfWay(MemoryCorestore):
    """One that has overwritten a part of a volume when it fails, so many times."""

    def __init__(self, error: PortError, times: int) -> None:
        super().__init__()
        self.error, self.times = error, times

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        if self.times:
            self.times -= 1
            self.counts["restore_volume"] += 1
            self.volume_data[name] = {"half": b"of it"}
            raise self.error
        await super().restore_volume(name, snapshot_id)


class _Steps(Unwatched):
    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    def step(self, text: str) -> None:
        self.steps.append(text)


def scene_with(body: Callable[[Bench], Awaitable[None]], **record: Any) -> None:
    """Play a scene with a service that runs."""

    async def scene() -> None:
        bench = Bench(**record)
        await bench.deploy()
        await body(bench)

    play(scene)


# --- backups


def test_only_what_is_marked_is_saved() -> None:
    """One snapshot, of the volume that is marked; the service is not touched."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        writes = bench.world.engine.writes
        result = await bench.backup()
        assert result.status == "completed"
        (part,) = result.parts
        assert (part.name, part.mount_path, part.size_bytes) == (DATA, "/data", 3_000_011)
        assert bench.world.engine.writes == writes
        (snapshot,) = await bench.corestore.snapshots(SHOP)
        assert snapshot.tags == {"backupId": "b1", "serviceId": SHOP, "mountPath": "/data"}

    scene_with(body)


def test_nothing_to_save_is_a_failure() -> None:
    """Nobody must believe that there is a backup."""

    async def body(bench: Bench) -> None:
        result = await bench.backup()
        assert (result.status, result.parts) == ("failed", ())
        assert "nothing to back up" in result.error

    scene_with(body, volumes=[{"mountPath": "/data"}])


@pytest.mark.parametrize("restarts", [False, True])
def test_the_same_backup_is_made_once(restarts: bool) -> None:
    """Asked again, also of a new process: the same snapshots."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        results: list[BackupResult] = []

        async def twice(operations: Operations) -> None:
            request = BackupRequest(backup_id="b1", service_id=SHOP)
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(ask, operations, request)
            await ask(operations, request)

        async def ask(operations: Operations, request: BackupRequest) -> None:
            results.append(await operations.backup(request))

        await bench.with_operations(twice)
        if restarts:
            await bench.with_operations(twice)
        assert {part.kind for part in results[0].parts} == {"volume", "database", "objectstorage"}
        assert len({result.parts for result in results}) == 1
        assert len(await bench.corestore.snapshots(SHOP)) == 3

    scene_with(body)


def test_partial_results_say_what_failed_and_why_and_are_completed_later() -> None:
    """The database cannot be saved, the rest is; asked again, only the database is missing."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        bench.corestore.faults_of["snapshot_resource"].append(Refused("disk full"))
        result = await bench.backup()
        assert result.status == "partial"
        assert [(part.kind, part.error) for part in result.parts if part.error] == [("database", "disk full")]
        again = await bench.backup()
        assert again.status == "completed"
        assert len(await bench.corestore.snapshots(SHOP)) == 3

    scene_with(body)


def test_an_answer_that_was_lost_is_looked_for() -> None:
    """The snapshot was taken, and the connection broke."""

    async def body(bench: Bench) -> None:
        bench.corestore.late_faults["snapshot_volume"].append(Unavailable("broke off"))
        result = await bench.backup()
        assert result.status == "completed"
        assert len(await bench.corestore.snapshots(SHOP)) == 1

    scene_with(body)


def test_what_a_service_is_bound_to_is_provisioned_first() -> None:
    """A backup of a service whose binding this process does not know yet."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        bench.corestore.held.clear()
        assert (await bench.backup()).status == "completed"
        assert len(bench.corestore.held) == 2

    scene_with(body)


def test_other_drivers_cannot_be_saved() -> None:
    """That is said, and the rest is saved."""

    async def body(bench: Bench) -> None:
        result = await bench.backup()
        assert result.status == "partial"
        assert [part.mount_path for part in result.parts if "driver is local" in part.error] == ["/x"]

    scene_with(body, volumes=[*VOLUMES, {"mountPath": "/x", "driver": "local", "backup": True}])


def test_a_service_that_nobody_knows() -> None:
    """Backup and restore say so."""

    async def body(bench: Bench) -> None:
        bench.cloudly.set(cluster())
        assert "no service of this id" in (await bench.backup()).error
        assert "no service of this id" in (await bench.restore()).error

    scene_with(body)


# --- restores


def test_a_restore_brings_everything_back() -> None:
    """Volume, database and bucket are as they were; the workload was stopped meanwhile, and runs as before."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        bench.data = GOOD
        stores = bench.corestore.resource_data
        stores[SHOP, "database"] = {"rows": b"1"}
        stores[SHOP, "objectstorage"] = {"object": b"2"}
        await bench.backup()
        bench.data = LATER
        stores[SHOP, "database"], stores[SHOP, "objectstorage"] = {}, {"other": b"3"}
        with capture_logs() as lines:
            result = await bench.restore()
        assert result.status == "completed", result
        assert bench.data == GOOD
        assert stores == {(SHOP, "database"): {"rows": b"1"}, (SHOP, "objectstorage"): {"object": b"2"}}
        assert result.volumes_restored == (DATA,)
        assert result.resources_restored == ("b-db", "b-s3")
        assert await bench.is_running()
        order = [line["step"] for line in lines if line["event"] == "step"]
        assert order.index("stopping the workload") < order.index(f"saving volume {DATA} as it is")
        assert order.index(f"saving volume {DATA} as it is") < order.index(f"restoring volume {DATA}")
        assert order[-1] == "starting the workload"
        saved = [s for s in await bench.corestore.snapshots(SHOP) if "restoreId" in s.tags]
        assert {s.kind for s in saved} == {"volume", "database", "objectstorage"}
        assert (await bench.reconciler.reconcile()).reports[0].outcomes == ()

    scene_with(body)


def test_only_what_is_named_is_restored() -> None:
    """References choose, by snapshot, by volume name or by path."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        bench.data = GOOD
        backup = await bench.backup()
        bench.data = LATER
        bench.corestore.resource_data[SHOP, "database"] = {"new": b""}
        for part in (
            Part(kind="volume", name="", snapshot_id=backup.parts[0].snapshot_id),
            Part(kind="volume", name=DATA),
            Part(kind="volume", name="", mount_path="/data"),
        ):
            bench.data = LATER
            result = await bench.restore(volumes=(part,), resources=())
            assert (result.status, result.volumes_restored, result.resources_restored) == (
                "completed",
                (DATA,),
                (),
            )
            assert bench.data == GOOD
        assert bench.corestore.resource_data[SHOP, "database"] == {"new": b""}

    scene_with(body)


@pytest.mark.parametrize("named", [False, True])
def test_a_snapshot_of_another_service_is_refused(named: bool) -> None:
    """Before anything is touched."""

    async def body(bench: Bench) -> None:
        await bench.corestore.create_volume(
            VolumeSpec(name="theirs", service_id=ServiceId("other"), mount_path="")
        )
        tags = {"backupId": "b1", "serviceId": "other"}
        theirs = await bench.corestore.snapshot_volume("theirs", tags)
        parts = (Part(kind="volume", name=DATA, snapshot_id=theirs.id),) if named else None
        writes = bench.world.engine.writes
        result = await bench.restore(volumes=parts)
        assert result.status == "failed"
        assert "no such backup" in result.error or "has no snapshot" in result.error
        assert bench.world.engine.writes == writes

    scene_with(body)


def test_another_services_volume_is_no_target() -> None:
    """A snapshot of ours goes to volumes of ours only."""

    async def body(bench: Bench) -> None:
        backup = await bench.backup()
        part = Part(kind="volume", name="theirs", snapshot_id=backup.parts[0].snapshot_id)
        result = await bench.restore(volumes=(part,), resources=())
        assert result.status == "failed"
        assert "the service has no volume theirs" in result.error

    scene_with(body)


def test_a_part_that_cannot_be_restored_is_as_it_was() -> None:
    """The other parts are restored, the workload runs, and the result says which is which."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        bench.corestore.faults_of["restore_volume"].append(Refused("disk full"))
        result = await bench.restore()
        assert result.status == "partial"
        assert "disk full; it is as it was before" in result.error
        assert (result.volumes_restored, len(result.resources_restored)) == ((), 2)
        assert bench.data == LATER
        assert await bench.is_running()

    scene_with(body)


def test_nothing_is_overwritten_that_could_not_be_saved() -> None:
    """The safety snapshot fails: the workload starts again, with its data."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        bench.corestore.faults_of["snapshot_volume"].append(Refused("disk full"))
        result = await bench.restore()
        assert (result.status, result.error) == ("failed", "disk full")
        assert bench.data == LATER
        assert await bench.is_running()

    scene_with(body)


def test_a_volume_that_is_gone_is_made_anew() -> None:
    """With the facts that its mount has; nothing needs to be saved."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        del bench.corestore.volume_data[DATA], bench.corestore.specs[DATA]
        result = await bench.restore()
        assert (result.status, result.volumes_created) == ("completed", (DATA,))
        assert bench.data == GOOD
        assert bench.corestore.specs[DATA].mount_path == "/data"
        assert bench.corestore.specs[DATA].labels["serve.zone.backup"] == "true"

    scene_with(body)


def test_a_lost_archive_comes_back() -> None:
    """A new Corestore with nothing at all; what was replicated is enough."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        result = await bench.backup(replicate=True)
        assert result.status == "completed", result
        assert result.replication is not None
        assert (
            result.replication.objects_uploaded
            == result.replication.objects_total
            == len(bench.corestore.archive)
        )
        bench.corestore = MemoryCorestore()
        restored = await bench.restore()
        assert restored.status == "completed", restored
        assert restored.objects_pulled == result.replication.objects_total
        assert bench.data == GOOD
        again = await bench.backup("b2", replicate=True)
        assert again.replication is not None
        assert again.replication.objects_uploaded < again.replication.objects_total

    scene_with(body)


def test_without_pulling_a_lost_archive_is_lost() -> None:
    """And the workload is not stopped for nothing."""

    async def body(bench: Bench) -> None:
        await bench.backup(replicate=True)
        bench.corestore.archive.clear()
        writes = bench.world.engine.writes
        result = await bench.restore(pull_missing=False)
        assert (result.status, result.error) == ("failed", "no such backup of this service is known here")
        assert bench.world.engine.writes == writes

    scene_with(body)


def test_a_flipped_bit_is_found_and_refused() -> None:
    """In a copy: it does not get into the archive, and nothing is touched."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup(replicate=True)
        for name in list(bench.cloudly.contents):
            if name.startswith("packs/"):
                bench.cloudly.spoil(name, lambda data: bytes([data[0] ^ 1]) + data[1:])
        bench.corestore.archive.clear()
        bench.data = LATER
        result = await bench.restore()
        assert result.status == "failed"
        assert "digest is another one" in result.error
        assert not [path for path in bench.corestore.archive if path.startswith("packs/")]
        assert bench.data == LATER
        assert await bench.is_running()

    scene_with(body)


# --- while it goes on


def test_the_reconciler_leaves_a_stopped_service_alone() -> None:
    """Whatever the records say meanwhile: it waits, and says for what. Afterwards the record is followed."""

    async def body(bench: Bench) -> None:
        await bench.backup()
        held = bench.corestore.hold["restore_volume"] = trio.Event()

        async def during(operations: Operations) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operations.restore, RestoreRequest(backup_id="b1", service_id=SHOP))
                await trio.sleep(30)
                assert await bench.replicas() == 0
                assert (await bench.labels())[STOPPED] == "2"
                for document in (cluster(), cluster(service("shop", "good:2", **bench.record))):
                    bench.cloudly.set(document)
                    reconcile_result = await bench.reconciler.reconcile()
                    assert not reconcile_result.reports[0].outcomes
                    assert [wait.name for wait in reconcile_result.last.plan.waits] == ["shop"]
                held.set()
                bench.corestore.hold.clear()
            assert await bench.is_running()

        await bench.with_operations(during)
        assert (await bench.reconciler.deploy(timeout=60)).is_stable
        live = await bench.world.live("shop")
        assert "good:2" in live["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]

    scene_with(body)


def test_asking_again_gives_the_same_result() -> None:
    """While it runs; and once more, when nobody was there to get it. A restore that was answered can be done again."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        held = bench.corestore.hold["restore_volume"] = trio.Event()
        request = RestoreRequest(backup_id="b1", service_id=SHOP)

        async def during(operations: Operations) -> None:
            with trio.move_on_after(5):
                await operations.restore(request)  # the connection breaks
            held.set()
            await trio.sleep(30)
            assert bench.corestore.counts["restore_volume"] == 1
            bench.data = LATER
            first = await operations.restore(request)
            assert (first.status, bench.data) == ("completed", LATER)
            second = await operations.restore(request)
            assert (second.status, bench.data) == ("completed", GOOD)

        await bench.with_operations(during)

    scene_with(body)


def test_one_thing_at_a_time() -> None:
    """A backup that is asked for during a restore comes after it."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        held = bench.corestore.hold["restore_volume"] = trio.Event()
        results: list[BackupResult] = []

        async def during(operations: Operations) -> None:
            async def back_up() -> None:
                results.append(await operations.backup(BackupRequest(backup_id="b2", service_id=SHOP)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(operations.restore, RestoreRequest(backup_id="b1", service_id=SHOP))
                await trio.sleep(5)
                nursery.start_soon(back_up)
                await trio.sleep(5)
                assert not results
                held.set()
            assert results[0].status == "completed"

        await bench.with_operations(during)
        bench.data = LATER
        assert (await bench.restore("b2")).status == "completed"
        assert bench.data == GOOD

    scene_with(body)


METHODS = ("snapshots", "volumes", "snapshot_volume", "restore_volume")


@pytest.mark.parametrize("method", METHODS)
def test_killed_anywhere_the_next_process_finishes(method: str) -> None:
    """Killed while Corestore was asked: the next process finishes what was begun; asked again, the restore is whole."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        for turn in range(4):
            before = bench.corestore.counts[method]
            bench.corestore.hold[method] = trio.Event()
            killed = trio.CancelScope()

            async def process(scope: trio.CancelScope = killed) -> None:
                with scope:
                    async with trio.open_nursery() as nursery:
                        operations = Operations(bench.tools())
                        nursery.start_soon(operations.run)
                        await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))

            enough = before + turn

            def ready(enough: int = enough) -> bool:
                return bench.corestore.counts[method] > enough

            await _killed_while(bench, process, killed, ready)
            bench.corestore.hold.clear()
            assert (await bench.restore()).status == "completed"
            assert bench.data == GOOD
            assert await bench.is_running()
            bench.data = LATER

    scene_with(body)


async def _killed_while(
    bench: Bench, process: Callable[[], Awaitable[None]], scope: trio.CancelScope, ready: Callable[[], bool]
) -> None:
    """Let a process begin, and end it without giving it a chance to clean up: the engine does not answer any more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process)
        with trio.move_on_after(20):
            while not ready():  # noqa: ASYNC110 - counted, not announced
                await trio.sleep(0.1)
        bench.world.engine.crash()
        scope.cancel()
        await trio.sleep(30)
    bench.world.engine.revive()


def test_a_workload_that_was_left_stopped_is_found() -> None:
    """A new daemon finishes the restore without being asked, and starts the workload with its replicas."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        await _left_stopped(bench)
        assert await bench.replicas() == 0

        async def wait(_: Operations) -> None:
            await trio.sleep(60)

        await bench.with_operations(wait)
        assert bench.data == GOOD
        assert await bench.is_running()

    scene_with(body)


async def _left_stopped(bench: Bench, owner: str = DAEMON) -> None:
    before = bench.corestore.counts["restore_volume"]
    bench.corestore.hold["restore_volume"] = trio.Event()
    scope = trio.CancelScope()

    async def process() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                operations = Operations(bench.tools(), owner=owner)
                nursery.start_soon(operations.run)
                await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))

    await _killed_while(bench, process, scope, lambda: bench.corestore.counts["restore_volume"] > before)
    bench.corestore.hold.clear()


def test_others_wait_as_long_as_somebody_is_at_it() -> None:
    """A restore of the command line is not taken over by the daemon while it gives signs of life; later it is."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        held = bench.corestore.hold["restore_volume"] = trio.Event()

        async def command() -> None:
            result = await bench.restore(owner="command-1")
            assert result.status == "completed"

        async def daemon(_: Operations) -> None:
            await trio.sleep(300)
            assert bench.corestore.counts["restore_volume"] == 1
            held.set()
            await trio.sleep(60)
            assert await bench.is_running()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(command)
            await bench.with_operations(daemon)
        bench.data = LATER
        await _left_stopped(bench, "command-2")
        started = trio.current_time()

        async def takes_over(_: Operations) -> None:
            while not await bench.is_running():  # noqa: ASYNC110 - the engine has no event for it
                await trio.sleep(1)
            assert 50 < trio.current_time() - started < 120

        await bench.with_operations(takes_over)
        assert bench.data == GOOD

    scene_with(body)


def test_told_to_end_it_starts_the_workload() -> None:
    """Cancelled before anything was overwritten: at once. Afterwards: when the data is whole, or the next start does it."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        for method, is_whole in (("snapshot_volume", False), ("restore_volume", True)):
            bench.data = LATER
            held = bench.corestore.hold[method] = trio.Event()

            async def ended(operations: Operations, held: trio.Event = held, finish: bool = is_whole) -> None:
                with trio.move_on_after(10):
                    await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))
                if finish:
                    held.set()

            async with trio.open_nursery() as nursery:
                operations = Operations(bench.tools())
                nursery.start_soon(operations.run)
                await ended(operations)
                nursery.cancel_scope.cancel()
            bench.corestore.hold.clear()
            assert await bench.is_running(), method
            assert (bench.data == GOOD) is is_whole

    scene_with(body)


def test_nothing_starts_on_half_restored_data() -> None:
    """Corestore goes in the middle and stays away: the workload stays stopped, and starts when the data is whole."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        away = [Unavailable("away")] * 1000
        bench.corestore.faults_of["restore_volume"].extend(away)

        async def day(operations: Operations) -> None:
            result = await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))
            assert result.status == "failed"
            assert "left stopped: data is half restored" in result.error
            await trio.sleep(600)
            assert await bench.replicas() == 0
            bench.corestore.faults_of["restore_volume"].clear()
            await trio.sleep(60)
            assert await bench.is_running()
            assert bench.data == GOOD

        await bench.with_operations(day)

    scene_with(body)


def test_a_restore_can_be_taken_back() -> None:
    """What was overwritten is a backup, too."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        await bench.restore()
        (before,) = {
            s.tags["backupId"] for s in await bench.corestore.snapshots(SHOP) if "restoreId" in s.tags
        }
        result = await bench.restore(before)
        assert (result.status, bench.data) == ("completed", LATER)

    scene_with(body)


def test_a_full_disk_keeps_the_workload_stopped_until_there_is_room() -> None:
    """Neither the backup nor what was there fits: nothing starts on what is left."""

    async def body(bench: Bench) -> None:
        bench.corestore = HalfWay(Refused("no space left"), 6)
        await bench.deploy()
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER

        async def day(operations: Operations) -> None:
            result = await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))
            assert result.status == "failed"
            assert "could not be put back either (no space left)" in result.error
            assert await bench.replicas() == 0
            await trio.sleep(200)
            assert await bench.is_running()
            assert bench.data == GOOD

        await bench.with_operations(day)

    scene_with(body)


def test_another_backup_is_a_way_out_of_a_restore_that_cannot_end() -> None:
    """The archive has lost what was being restored: a restore of the same parts from elsewhere takes over."""

    async def body(bench: Bench) -> None:
        half_way = bench.corestore = HalfWay(Refused("damaged"), 0)
        await bench.deploy()
        bench.data = GOOD
        await bench.backup("old")
        bench.data = {"orders": b"newer"}
        await bench.backup("new")
        bench.data = LATER
        half_way.times = 10_000
        assert (await bench.restore("new")).status == "failed"
        assert await bench.replicas() == 0
        half_way.times = 0
        taken = bench.corestore.counts["restore_volume"]
        result = await bench.restore("old")
        assert result.status == "completed", result
        assert bench.corestore.counts["restore_volume"] == taken + 1
        assert bench.data == GOOD
        assert await bench.is_running()

    scene_with(body)


def test_a_volume_that_others_use_is_not_overwritten() -> None:
    """They would go on while it is."""

    async def body(bench: Bench) -> None:
        await bench.backup()
        other = service("other", volumes=[{"mountPath": "/theirs", "name": DATA}])
        bench.cloudly.set(cluster(service("shop", **bench.record), other))
        await bench.reconciler.deploy(timeout=60)
        writes = bench.world.engine.writes
        result = await bench.restore()
        assert result.status == "failed"
        assert "is used by the service other, too" in result.error
        assert bench.world.engine.writes == writes

    scene_with(body)


def test_a_service_that_is_being_renamed_is_not_restored() -> None:
    """Two services of it are there, and one would go on."""

    async def body(bench: Bench) -> None:
        bench.platform = BINDINGS
        await bench.deploy()
        await bench.backup()
        renamed = service("store", identity=SHOP, **bench.record)
        bench.cloudly.set(cluster(renamed, platform=BINDINGS))
        await bench.reconciler.reconcile()
        assert await bench.world.names() == ["shop", "store"]
        result = await bench.restore()
        assert result.status == "failed"
        assert "it is being renamed" in result.error

    scene_with(body, volumes=[])


def test_a_backup_that_may_lack_something_is_not_complete() -> None:
    """A binding that cannot be read may be of a database."""

    async def body(bench: Bench) -> None:
        platform = {"bindings": [{"id": "b-db", "data": {"serviceId": SHOP, "capability": 7}}]}
        bench.cloudly.set(cluster(service("shop", **bench.record), platform=platform))
        result = await bench.backup()
        assert result.status == "partial"
        assert "a binding cannot be read" in result.error

    scene_with(body)


def test_a_command_restores_nothing_that_is_not_deployed() -> None:
    """Nobody could keep the daemon from deploying it meanwhile. The daemon itself can."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        live = await bench.world.live("shop")
        await bench.world.engine.remove_service(live["ID"])
        bench.data = LATER
        assert "it is not deployed" in (await bench.restore(owner="command-1")).error
        assert bench.data == LATER
        assert (await bench.restore()).status == "completed"
        assert bench.data == GOOD

    scene_with(body)


def test_who_lets_go_is_not_waited_for() -> None:
    """A command that was told to end while it overwrote says so: the next one goes on at once."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        bench.corestore.hold["restore_volume"] = trio.Event()

        async def told_to_end(operations: Operations) -> None:
            with trio.move_on_after(10):
                await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))

        await bench.with_operations(told_to_end, owner="command-1")
        bench.corestore.hold.clear()
        assert await bench.replicas() == 0
        began = trio.current_time()
        result = await bench.restore(owner="command-2")
        assert (result.status, bench.data) == ("completed", GOOD)
        assert trio.current_time() - began < bench.timeouts.lease / 2
        assert await bench.is_running()

    scene_with(body)


def test_a_roll_back_to_the_time_of_a_restore_repeats_no_restore() -> None:
    """`docker service rollback` after a restore brings the lease back; what it says is over."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        assert (await bench.restore()).status == "completed"
        bench.data = LATER
        live = await bench.world.live("shop")
        await bench.world.engine.rollback_service(live["ID"], live["Version"]["Index"])
        bench.world.engine.settle()
        assert STOPPED in await bench.labels()

        async def wait(_: Operations) -> None:
            await trio.sleep(60)

        await bench.with_operations(wait)
        assert bench.data == LATER
        assert await bench.is_running()

    scene_with(body)


def test_no_corestore_no_backup() -> None:
    """That is said."""

    async def body(bench: Bench) -> None:
        async with trio.open_nursery() as nursery:
            operations = Operations(evolve(bench.tools(), corestores=None))
            nursery.start_soon(operations.run)
            result = await operations.backup(BackupRequest(backup_id="b1", service_id=SHOP))
            assert (result.status, result.error) == ("failed", "there is no Corestore to ask")
            nursery.cancel_scope.cancel()

    scene_with(body)
