"""Restores that cannot be done, Corestores that lie, and operators who do not want to wait: there is always a way out."""

import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.app.test_backups import DATA, GOOD, LATER, SHOP, Bench, scene_with

from coreflow.adapters.memory import MemoryCorestore
from coreflow.app.metrics import Metrics
from coreflow.app.operations import Operations
from coreflow.domain.backup.lease import DAEMON
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.backup.snapshots import RESTORE_TAG, Snapshot, VolumeSpec
from coreflow.domain.errors import PortError, Refused, Unavailable, Unreached, Untouched
from coreflow.domain.ids import ServiceId
from coreflow.domain.status.model import Status
from coreflow.domain.swarm.naming import RESTORE, STOPPED
from coreflow.domain.swarm.stopped import undo_id

OTHER = ServiceId("id-other")
THEIRS = "theirs"
LIMIT = 120.0
"""Seconds that a workload may be stopped without a way out that was named."""

Effect = Callable[["Liar", str, str], None]
"""What becomes of a volume (its name) that is to be as a snapshot (its id) says."""


def nothing(liar: "Liar", name: str, snapshot_id: str) -> None:
    """It stays as it was."""


def half(liar: "Liar", name: str, snapshot_id: str) -> None:
    """Something is gone, something is new."""
    liar.volume_data[name] = {"half": b"of it"}


def whole(liar: "Liar", name: str, snapshot_id: str) -> None:
    """It is done."""
    found = liar._contents("restore", "volume", snapshot_id)
    liar.volume_data[name] = dict(found)


def others(liar: "Liar", name: str, snapshot_id: str) -> None:
    """It gets the data of another service."""
    liar.volume_data[name] = dict(liar.volume_data[THEIRS])


class Liar(MemoryCorestore):
    """A Corestore that does something else than it says, from when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.effect: Effect | None = None
        """What restores of volumes do instead of what they should."""
        self.error: PortError | None = None
        """What they say."""
        self.spared: Callable[[str], bool] = lambda _: False
        """Ids of snapshots with which all is well."""
        self.answers: Callable[[Snapshot, tuple[Snapshot, ...]], Snapshot] | None = None
        """What is answered for a snapshot that was taken, with all that there are."""

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        if self.effect is None or self.spared(snapshot_id):
            return await super().restore_volume(name, snapshot_id)
        await self._call("restore_volume")
        self.effect(self, name, snapshot_id)
        if self.error is not None:
            raise self.error
        return None

    async def snapshot_volume(self, name: str, tags: Mapping[str, str]) -> Snapshot:
        before = await self.snapshots()
        taken = await super().snapshot_volume(name, tags)
        return self.answers(taken, before) if self.answers is not None else taken

    async def other_service(self) -> None:
        """Have a volume of another service, with a snapshot."""
        await self.create_volume(VolumeSpec(name=THEIRS, service_id=OTHER, mount_path="/data"))
        self.volume_data[THEIRS] = {"theirs": b"all of it"}
        await super().snapshot_volume(THEIRS, {"backupId": "b1", "serviceId": OTHER})

    def safety(self) -> set[str]:
        """The ids of the snapshots of what was there before."""
        return {one["id"] for one in self._manifests() if RESTORE_TAG in one["tags"]}


async def prepared(bench: Bench) -> Liar:
    """A service that has a backup, and another state since."""
    liar = bench.corestore = Liar()
    await bench.deploy()
    await liar.other_service()
    bench.data = GOOD
    assert (await bench.backup()).status == "completed"
    bench.data = LATER
    return liar


FAULTS: dict[str, tuple[Effect, PortError | None, bool, str]] = {
    # what happens, what is said, whether what was there before can be put back, what the result says
    "null before": (nothing, Unavailable("the answer says nothing"), True, "the answer says nothing"),
    "null after": (whole, Unavailable("the answer says nothing"), True, "the answer says nothing"),
    "no effect": (nothing, None, True, "has 9 bytes instead of 3000011"),
    "another service's": (others, None, True, "has 9 bytes instead of 3000011"),
    "half of it": (half, None, True, "has 5 bytes instead of 3000011"),
    "hang-up before": (nothing, Unavailable("hung up"), True, "hung up"),
    "hang-up half-way": (half, Unavailable("hung up"), True, "hung up"),
    "hang-up after": (whole, Unavailable("hung up"), True, "hung up"),
    "nobody listens": (nothing, Unreached("nobody listens"), False, "nobody listens"),
    "5xx": (half, Unavailable("HTTP status 500"), True, "HTTP status 500"),
    "404": (nothing, Untouched("HTTP status 404"), False, "HTTP status 404"),
    "400": (nothing, Untouched("HTTP status 400"), False, "HTTP status 400"),
    "507 of everything": (nothing, Refused("HTTP status 507"), False, "but nothing was changed"),
    "507 half-way": (half, Refused("HTTP status 507"), True, "HTTP status 507"),
    "declined before": (nothing, Refused("declined"), True, "declined"),
    "declined after": (whole, Refused("declined"), True, "declined"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_restore_that_cannot_be_done(name: str) -> None:
    """The workload runs on its old data within two minutes, and the result says why."""
    effect, error, can_undo, text = FAULTS[name]

    async def body(bench: Bench) -> None:
        liar = await prepared(bench)
        liar.effect, liar.error = effect, error
        if can_undo:
            liar.spared = lambda snapshot_id: snapshot_id in liar.safety()
        began = trio.current_time()
        result = await bench.restore()
        assert trio.current_time() - began < LIMIT
        assert (result.status, bench.data) == ("failed", LATER), result
        assert text in result.error
        assert "it is as it was before" in result.error
        assert "half restored" not in result.error
        assert await bench.is_running()

    scene_with(body)


def test_a_refusal_before_anything_is_over_at_once() -> None:
    """Nothing was touched: nothing is put back, and nobody waits."""

    async def body(bench: Bench) -> None:
        liar = await prepared(bench)
        liar.effect, liar.error = nothing, Untouched("HTTP status 404")
        before, began = liar.counts["restore_volume"], trio.current_time()
        assert (await bench.restore()).status == "failed"
        assert liar.counts["restore_volume"] == before + 1
        assert trio.current_time() - began < 15

    scene_with(body)


@pytest.mark.parametrize(
    "damage", [lambda content: bytes([content[0] ^ 1]) + content[1:], lambda content: content[:-1], None]
)
def test_an_archive_that_lost_something(damage: Callable[[bytes], bytes] | None) -> None:
    """A bit flips, or the end is missing, or all of it, in whichever file of the backup: it runs on its old data."""

    async def body(bench: Bench) -> None:
        liar = await prepared(bench)
        (snapshot,) = [one for one in await liar.snapshots(SHOP) if one.tags["backupId"] == "b1"]
        for obj in await liar.archive_objects([snapshot.id]):
            if obj.path == "config.json":
                continue
            content = liar.archive.pop(obj.path)
            if damage is not None:
                liar.archive[obj.path] = damage(content)
            began = trio.current_time()
            result = await bench.restore()
            assert (result.status, bench.data) == ("failed", LATER), obj
            assert await bench.is_running()
            assert trio.current_time() - began < LIMIT
            liar.archive[obj.path] = content
        assert (await bench.restore()).status == "completed"
        assert bench.data == GOOD

    scene_with(body)


# --- lies about snapshots

Answers = Callable[[Snapshot, tuple[Snapshot, ...]], Snapshot]
LIES: dict[str, tuple[Answers, str]] = {
    "an id that no list has": (lambda taken, _: renamed(taken, "nobody"), "which it does not list"),
    "another service's": (lambda _, known: first(known, OTHER), "as another service's"),
    "another service's id": (lambda taken, known: renamed(taken, first(known, OTHER).id), "does not list"),
    "an older one": (lambda _, known: first(known, SHOP), "it is another one"),
    "an older one's id": (lambda taken, known: renamed(taken, first(known, SHOP).id), "it is another one"),
}


def renamed(snapshot: Snapshot, snapshot_id: str) -> Snapshot:
    """The same under another id."""
    return Snapshot(id=snapshot_id, kind=snapshot.kind, name=snapshot.name, tags=snapshot.tags)


def first(known: tuple[Snapshot, ...], service_id: str) -> Snapshot:
    """The first one of a service."""
    return next(one for one in known if one.belongs_to == service_id)


@pytest.mark.parametrize("name", LIES)
def test_a_snapshot_that_is_not_what_was_asked_for(name: str) -> None:
    """A backup is not complete with it, and a restore ends before anything is overwritten."""
    answers, text = LIES[name]

    async def body(bench: Bench) -> None:
        liar = await prepared(bench)
        liar.answers = answers
        backup = await bench.backup("b2")
        assert (backup.status, backup.parts[0].snapshot_id) == ("failed", "")
        assert text in backup.parts[0].error
        result = await bench.restore()
        assert result.status == "failed"
        assert text in result.error
        assert (liar.counts["restore_volume"], bench.data) == (0, LATER)
        assert await bench.is_running()

    scene_with(body)


def test_a_volume_that_is_only_said_to_be_made() -> None:
    """Nothing is stopped for it."""

    class Forgetful(MemoryCorestore):
        async def create_volume(self, spec: VolumeSpec) -> None:
            if self.archive:
                return
            await super().create_volume(spec)

    async def body(bench: Bench) -> None:
        bench.corestore = Forgetful()
        await bench.deploy()
        await bench.backup()
        del bench.corestore.volume_data[DATA]
        writes = bench.world.engine.writes
        result = await bench.restore()
        assert (result.status, bench.world.engine.writes) == ("failed", writes)
        assert f"it made volume {DATA}, which it does not list" in result.error

    scene_with(body)


def test_copies_and_archive_files_that_are_only_said_to_be_there() -> None:
    """What was sent to Cloudly is looked for there, what was put into the archive is looked for in the archive."""

    class Leaky(MemoryCorestore):
        async def write_object(self, obj, chunks):  # type: ignore[no-untyped-def]
            await super().write_object(obj, chunks)
            if obj.path.startswith("packs/"):
                del self.archive[obj.path]

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        assert (await bench.backup(replicate=True)).status == "completed"
        bench.corestore = Leaky()
        await bench.deploy()
        bench.data = LATER
        result = await bench.restore()
        assert (result.status, bench.data) == ("failed", LATER)
        assert re.search("it stored archive object packs/.*, which it does not list", result.error)

        put = bench.cloudly.put_slice

        async def forgetful(*args, **options):  # type: ignore[no-untyped-def]
            receipt = await put(*args, **options)
            for name in [name for name in bench.cloudly.contents if name.startswith("snapshots/")]:
                del bench.cloudly._whole[name]
            return receipt

        bench.cloudly.put_slice = forgetful  # type: ignore[method-assign]
        bench.corestore = MemoryCorestore()
        await bench.deploy()
        backup = await bench.backup("b3", replicate=True)
        assert backup.status == "partial"
        assert backup.replication is not None
        assert "was taken, and is not listed" in backup.replication.error

    scene_with(body)


# --- left stopped


def test_what_can_be_neither_restored_nor_put_back_is_left_with_commands_that_help() -> None:
    """Stopped; result, log, plan and metrics say so, and the command that they name works as soon as anything does."""

    async def body(bench: Bench) -> None:
        liar = await prepared(bench)
        liar.effect, liar.error = half, Unavailable("hung up")
        began = trio.current_time()
        with capture_logs() as lines:
            result = await bench.restore(owner="command-1")
        assert trio.current_time() - began < LIMIT
        assert result.status == "failed"
        assert "left stopped: data is half restored" in result.error
        assert await bench.replicas() == 0
        commands = [shlex.split(one) for one in re.findall("`(.*?)`", result.error)]
        undo, again, start = commands
        assert undo[:4] == ["coreflow", "restore", "shop", "--backup"]
        assert again == ["coreflow", "restore", "shop", "--backup", "b1"]
        labels = ["--label-rm", STOPPED, "--label-rm", RESTORE, "--replicas", "2"]
        assert start == ["docker", "service", "update", *labels, "shop"]
        (line,) = [line for line in lines if line["event"] == "service left stopped"]
        assert " ".join(undo) in line["reason"]
        (wait,) = (await bench.reconciler.reconcile()).last.plan.waits
        assert " ".join(undo) in wait.reason
        assert any(" ".join(undo) in step for step in bench.steps)
        assert "hung up; trying again in 4 s" in bench.steps
        liar.spared = lambda snapshot_id: snapshot_id in liar.safety()
        result = await bench.restore(undo[-1], owner="command-2")
        assert (result.status, bench.data) == ("completed", LATER), result
        assert await bench.is_running()

    scene_with(body)


def test_the_daemon_says_how_many_are_left_stopped() -> None:
    """As long as they are."""

    async def body(bench: Bench) -> None:
        liar = await prepared(bench)
        liar.effect, liar.error = half, Unavailable("hung up")

        async def day(operations: Operations) -> None:
            metrics = Metrics(operations, lambda: Status(verdict="unknown", time=0.0), lambda: 0.0)

            def left() -> float:
                (metric,) = [m for m in metrics.read() if m.name == "restores_left_stopped"]
                return metric.values[()]

            await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))
            await trio.sleep(10)
            assert left() == 1
            liar.effect = None
            await trio.sleep(60)
            assert left() == 0
            assert await bench.is_running()

        with capture_logs() as lines:
            await bench.with_operations(day)
        assert not [line for line in lines if "another daemon" in line["event"]]

    scene_with(body)


# --- taking over, and waiting


async def taken_over(
    bench: Bench, runner: str, operator: str, wanted: str | None
) -> tuple[RestoreResult, ...]:
    """One restore hangs while it overwrites; another one is asked for. Both results."""
    results: dict[str, RestoreResult] = {}
    held = bench.corestore.hold["restore_volume"] = trio.Event()

    async def run() -> None:
        results["first"] = await bench.restore(owner=runner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with trio.fail_after(60):
            while not bench.corestore.counts["restore_volume"]:  # noqa: ASYNC110 - counted, not announced
                await trio.sleep(0.5)
        await trio.sleep(30)
        bench.corestore.hold.clear()
        if wanted is None:
            (tags,) = [s.tags for s in await bench.corestore.snapshots(SHOP) if RESTORE_TAG in s.tags]
            wanted = undo_id(tags[RESTORE_TAG])
            assert tags["backupId"] == wanted
        began = trio.current_time()
        results["second"] = await bench.restore(wanted, owner=operator)
        assert trio.current_time() - began < 20
        await trio.sleep(5)
        assert "first" in results  # it has yielded, though Corestore has not answered it
        held.set()
    return results["first"], results["second"]


@pytest.mark.parametrize(
    ("runner", "wanted", "data"),
    [(DAEMON, None, LATER), ("command-1", None, LATER), (DAEMON, "b0", {"older": b"data"})],
)
def test_an_operator_takes_over_at_once(runner: str, wanted: str | None, data: dict[str, bytes]) -> None:
    """From one that shows life: taking back from anybody, any restore of a command from a daemon's."""

    async def body(bench: Bench) -> None:
        bench.data = {"older": b"data"}
        await bench.backup("b0")
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        first, second = await taken_over(bench, runner, "command-2", wanted)
        assert (second.status, bench.data) == ("completed", data), second
        assert first.status == "failed"
        assert "has taken over" in first.error
        assert await bench.is_running()
        assert await bench.replicas() == 2

    scene_with(body)


def test_a_control_plane_that_takes_back_waits_for_nobody() -> None:
    """The daemon that is asked gives up its own restore, which hangs."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        bench.corestore.hold["restore_volume"] = trio.Event()
        results: list[RestoreResult] = []

        async def day(operations: Operations) -> None:
            async def ask(backup_id: str) -> None:
                results.append(await operations.restore(RestoreRequest(backup_id=backup_id, service_id=SHOP)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "b1")
                await trio.sleep(30)
                bench.corestore.hold.clear()
                (tags,) = [s.tags for s in await bench.corestore.snapshots(SHOP) if RESTORE_TAG in s.tags]
                with trio.fail_after(20):
                    await ask(tags["backupId"])
            assert [result.status for result in results] == ["failed", "completed"]
            assert results[0].error == "it was taken back before it had ended"
            assert bench.data == LATER
            assert await bench.is_running()

        await bench.with_operations(day)

    scene_with(body)


@pytest.mark.parametrize("holders", [("command-1", "command-2", "command-3"), (DAEMON, "command-1")])
def test_several_restores_wait_for_each_other(holders: tuple[str, ...]) -> None:
    """All of them end, one after the other; none fails because another one was faster."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        results: list[RestoreResult] = []

        async def ask(owner: str) -> None:
            results.append(await bench.restore(owner=owner))

        async with trio.open_nursery() as nursery:
            for owner in holders:
                nursery.start_soon(ask, owner)
        done = [result for result in results if result.status == "completed"]
        assert len(done) >= len(holders) - (DAEMON in holders), results  # a daemon's yields to a command's
        assert all(r in done or "has taken over" in r.error for r in results), results
        assert bench.data == GOOD
        assert await bench.is_running()
        assert any("waiting for another restore of it to end" in step for step in bench.steps)

    scene_with(body)


def test_a_lease_of_an_older_version_is_understood() -> None:
    """A daemon that is upgraded in the middle of a restore finishes it."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        snapshot = (await bench.backup()).parts[0].snapshot_id
        bench.data = {"half": b""}
        label = (
            '{"id":"0123456789abcdef","backupId":"b1","holder":"daemon-0123456789ab","beat":7,"hasBegun":true,"isWhole":true,'
            f'"parts":[{{"kind":"volume","name":"{DATA}","snapshotId":"{snapshot}"}}]}}'
        )

        def change(spec: dict[str, dict[str, object]]) -> None:
            spec["Labels"] |= {STOPPED: "2", RESTORE: label}
            spec["Mode"]["Replicated"] = {"Replicas": 0}

        await bench.world.change("shop", change)

        async def wait(_: Operations) -> None:
            await trio.sleep(60)

        await bench.with_operations(wait)
        assert bench.data == GOOD
        assert await bench.is_running()

    scene_with(body)


@pytest.mark.parametrize("method", ["snapshot_volume", "restore_volume"])
def test_a_restore_that_hangs_says_what_ends_it(method: str) -> None:
    """While it saves: the command of docker, which starts the workload on its data. While it overwrites: see the plan."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        bench.data = LATER
        bench.corestore.hold[method] = trio.Event()
        results: list[RestoreResult] = []

        async def run() -> None:
            results.append(await bench.restore())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.sleep(LIMIT)
            (wait,) = (await bench.reconciler.reconcile()).last.plan.waits
            (command,) = {c for step in bench.steps for c in re.findall("should it hang: `(.*?)`", step)}
            words = shlex.split(command)
            bench.corestore.hold.clear()
            if method == "restore_volume":
                assert f"should it hang: `{command}`" in wait.reason
                assert (await bench.restore(words[-1], owner="command-1")).status == "completed"
            else:
                assert words == [
                    *["docker", "service", "update", "--label-rm"],
                    STOPPED,
                    "--label-rm",
                    RESTORE,
                    "--replicas",
                    "2",
                    "shop",
                ]

                def start(spec: dict[str, dict[str, object]]) -> None:
                    for label in (STOPPED, RESTORE):
                        del spec["Labels"][label]
                    spec["Mode"]["Replicated"] = {"Replicas": 2}

                await bench.world.change("shop", start)
            await trio.sleep(10)
            assert results[0].status == "failed"
        assert bench.data == LATER
        assert await bench.is_running()

    scene_with(body)


# --- waiting


def test_who_waits_is_told_for_how_long() -> None:
    """A snapshot, and an overwriting, that take their time; after a minute of that, how to end it."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        await bench.backup()
        for method in ("snapshot_volume", "restore_volume"):
            held = bench.corestore.hold[method] = trio.Event()
            bench.steps.clear()

            async def later(held: trio.Event = held) -> None:
                await trio.sleep(200)
                held.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(later)
                await bench.restore()
            bench.corestore.hold.clear()
            assert [step.rpartition(": ")[2] for step in bench.steps if step.endswith("so far")][:3] == [
                "10 s so far",
                "20 s so far",
                "40 s so far",
            ]
            hints = [step for step in bench.steps if "should it hang" in step]
            way_out = [step for step in hints if not step.endswith("so far")]
            assert len(way_out) == 1
            command = (
                "coreflow restore shop --backup before-"
                if method == "restore_volume"
                else "docker service update"
            )
            assert command in way_out[0]

    scene_with(body)


def test_a_backup_that_hangs_is_ended_by_whoever_asked() -> None:
    """It can be given up at any moment, and made again under the same name."""

    async def body(bench: Bench) -> None:
        bench.data = GOOD
        bench.corestore.hold["snapshot_volume"] = trio.Event()
        results: list[BackupResult] = []

        async def ask(operations: Operations) -> None:
            with suppress(trio.TooSlowError), trio.fail_after(100):
                results.append(await operations.backup(BackupRequest(backup_id="b1", service_id=SHOP)))

        await bench.with_operations(ask)
        assert not results
        assert f"snapshot of volume {DATA}: 80 s so far" in bench.steps
        bench.corestore.hold.clear()
        assert (await bench.backup()).status == "completed"

    scene_with(body)
