"""What comes into the journal: every action with its outcome, and who asked for it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from attrs import define, evolve, field
from tests.unit.app.test_backups import SHOP, Bench
from tests.unit.app.worlds import NEWER, NO_BASE, World, cluster, daemon_settings, play, service
from tests.unit.domain import examples

from coreflow.adapters.journal import MemoryJournal
from coreflow.adapters.memory import Fault, MemoryCorestore
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.backups import Timeouts
from coreflow.app.corestores import Corestores
from coreflow.app.journaling import NO_RECORDER, Recorder
from coreflow.app.main import Ports, running
from coreflow.app.operations import Operations
from coreflow.app.reconcile import NullListener, Reconciler
from coreflow.app.telling import redacting
from coreflow.domain.backup.requests import BackupRequest, RestoreRequest
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.errors import LostRace, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.journal import Entry, History, Query
from coreflow.domain.swarm.actions import Create

ALL = Query(limit=1000)


def now() -> float:
    """A clock."""
    return trio.current_time()


def reconciler(world: World, recorder: Recorder, listener: NullListener | None = None) -> Reconciler:
    """Whoever reconciles a world and keeps a journal."""
    return Reconciler(
        world.cloudly, SwarmPort(world.engine), render=NO_BASE, listener=listener, recorder=recorder
    )


async def told(journal: MemoryJournal) -> list[tuple[str, str, str]]:
    """Action, name and outcome of every entry about a service."""
    entries = [record.entry for record in (await journal.read(ALL)).records]
    return [(e.action, e.name, e.outcome) for e in entries if e.kind == "service"]


@define
class Order(NullListener):
    """A listener, a journal and an engine, all of whose calls end up in one list."""

    inner: MemoryJournal = field(factory=MemoryJournal)
    seen: list[str] = field(factory=list)
    problem: str = ""

    def begin(self, entry: Entry) -> str:
        self.seen.append(f"begin {entry.name}")
        return self.inner.begin(entry)

    def end(self, ticket: str, entry: Entry | None) -> None:
        self.seen.append(f"end {entry.name} {entry.outcome}" if entry is not None else "end")
        self.inner.end(ticket, entry)

    async def kept(self) -> None:
        self.seen.append("kept")
        await self.inner.kept()

    async def read(self, query: Query) -> History:
        return await self.inner.read(query)

    def applied(self, outcome: Outcome) -> None:
        self.seen.append(f"told {outcome.status}")


def test_an_action_is_noted_before_it_begins_and_before_anybody_is_told() -> None:
    """That is what makes a kill harmless."""

    async def scene() -> None:
        world, order = World(), Order()
        world.cloudly.set(cluster(service("a")))
        create = world.engine.create_service

        async def noted(*request: object) -> str:
            order.seen.append("engine")
            return await create(*request)  # type: ignore[arg-type]

        world.engine.create_service = noted  # type: ignore[method-assign, assignment]
        await reconciler(world, Recorder(order, now, asked=("command",)), order).reconcile()
        start = order.seen.index("begin a")
        assert order.seen[start : start + 6] == [
            "begin a",
            "kept",
            "engine",
            "end a applied",
            "kept",
            "told applied",
        ]

    play(scene)


def test_what_was_done_and_what_was_not() -> None:
    """Created, changed, refused, blocked by that, and removed."""

    async def scene() -> None:
        world, journal = World(), MemoryJournal()
        passes = reconciler(world, Recorder(journal, now, asked=("command",)))
        world.cloudly.set(cluster(service("keeper"), service("a"), service("b")))
        await passes.reconcile()
        world.engine.settle()
        world.cloudly.set(cluster(service("keeper"), service("a", NEWER), service("b")))
        await passes.reconcile()
        world.cloudly.set(cluster(service("keeper"), service("a", NEWER)))
        await passes.reconcile()
        assert sorted((await told(journal))[:3]) == [
            ("create", "a", "applied"),
            ("create", "b", "applied"),
            ("create", "keeper", "applied"),
        ]
        assert (await told(journal))[3:] == [("update", "a", "applied"), ("remove", "b", "applied")]
        (changed,) = [r.entry for r in (await journal.read(ALL)).records if r.entry.action == "update"]
        assert changed.reason.startswith("image")
        assert changed.asked == ("command",)
        assert (changed.owner, changed.pass_id) == ("id-a", 0)

    play(scene)


def test_a_failure_is_told_each_time_it_is_tried() -> None:
    """And what it blocks once with it; what waits for its next try is no news."""

    async def scene() -> None:
        world, journal = World(), MemoryJournal()
        passes = reconciler(world, Recorder(journal, now))
        world.cloudly.set(cluster(service("a", secretBundleId="bundle"), secrets={"bundle": "value"}))
        world.engine.faults.append(Fault(method="create_secret"))
        await passes.reconcile()
        await passes.reconcile()
        entries = [record.entry for record in (await journal.read(ALL)).records]
        assert [(e.action, e.kind, e.outcome) for e in entries if e.kind != "network"] == [
            ("create", "secret", "failed"),
            ("create", "service", "blocked"),
        ]
        assert entries[-1].detail == "an earlier step failed"
        passes.try_now()
        await passes.reconcile()
        assert (await told(journal))[-1] == ("create", "a", "applied")

    play(scene)


def test_a_pass_that_is_cancelled() -> None:
    """What nobody saw end may have been done."""

    async def scene() -> None:
        world, journal = World(), MemoryJournal()
        world.cloudly.set(cluster(service("a")))

        async def hang(*_: object) -> str:
            await trio.sleep_forever()
            raise AssertionError

        world.engine.create_service = hang  # type: ignore[method-assign, assignment]
        with trio.move_on_after(20):
            await reconciler(world, Recorder(journal, now)).reconcile()
        assert await told(journal) == [("create", "a", "interrupted")]

    play(scene)


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "applied"), (Unavailable("x"), "failed"), (LostRace("y"), "overtaken")]
)
def test_an_action_of_no_pass(error: Exception | None, outcome: str) -> None:
    """A command or a restore acts by itself: what is raised comes out all the same."""

    async def call() -> None:
        if error is not None:
            raise error

    async def scene() -> None:
        journal = MemoryJournal()
        recorder = Recorder(journal, now, asked=("command",))
        action = Create(examples.spec("a"), "new")
        if error is None:
            await recorder.act(action, call)
        else:
            with pytest.raises(type(error)):
                await recorder.act(action, call)
        assert await told(journal) == [("create", "a", outcome)]
        await NO_RECORDER.act(action, _nothing)

    play(scene)


def _without_canary(text: str, limit: int = 100, /) -> str:
    return text.replace("hunter2-canary", "…")[:limit]


async def _nothing() -> None:
    pass


def test_secrets_that_got_this_far_are_taken_out() -> None:
    """Texts were redacted where they came from; whatever was not is, here."""

    async def scene() -> None:
        journal = MemoryJournal()

        async def fail() -> None:
            raise Unavailable("quotes hunter2-canary")

        action = Create(examples.spec("a"), "hunter2-canary")
        with redacting(_without_canary), pytest.raises(Unavailable):
            await Recorder(journal, now).act(action, fail)
        assert "canary" not in repr(await journal.read(ALL))

    play(scene)


# --- who asked


async def _push(world: World) -> None:
    world.cloudly.set(cluster(service("keeper"), service("a", NEWER)))


async def _meddle(world: World) -> None:
    """Somebody removes a service by hand."""
    live = await world.live("a")
    await world.engine.remove_service(live["ID"])


@pytest.mark.parametrize(("deed", "asked"), [(_push, "file"), (_meddle, "event")])
def test_who_asked(deed: Callable[[World], Awaitable[None]], asked: str, tmp_path: Path) -> None:
    """The first pass is the start's; then whoever kicked."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("keeper"), service("a")))
        ports = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))
        async with running(daemon_settings(tmp_path), ports) as engine:
            assert engine.journal is not None
            await engine.reconciled()
            await trio.sleep(30)
            first = (await engine.journal.read(ALL)).records
            await deed(world)
            await trio.sleep(30)
            later = (await engine.journal.read(Query(after=first[-1].number))).records
        assert {"start"} <= set(first[0].entry.asked)
        assert first[0].entry.pass_id == 1
        (record,) = later
        assert record.entry.asked == (asked,)
        assert record.entry.name == "a"
        assert record.entry.pass_id > 1

    play(scene)


def test_by_hand_and_by_schedule(tmp_path: Path) -> None:
    """A pass that a signal asks for says so; one that several asked for names them all."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("keeper")))
        ports = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))
        async with running(daemon_settings(tmp_path), ports) as engine:
            assert engine.journal is not None
            await engine.reconciled()
            await trio.sleep(30)
            world.cloudly.set(cluster(service("keeper"), service("a")))
            engine.kick()
            await trio.sleep(30)
            *_, last = (await engine.journal.read(ALL)).records
        assert last.entry.asked == ("file", "hand")

    play(scene)


def test_a_restore_stops_and_starts_its_service() -> None:
    """Four entries: the backup, and the restore with the two actions that it takes. Its heartbeats are none."""

    async def scene() -> None:
        bench, journal = Bench(), MemoryJournal()
        await bench.deploy()
        bench.timeouts = Timeouts(heartbeat=0.01, look=0.01)
        recorder = Recorder(journal, now, asked=("push",))
        async with trio.open_nursery() as nursery:
            operations = Operations(evolve(bench.tools(), recorder=recorder))
            nursery.start_soon(operations.run)
            await operations.backup(BackupRequest(backup_id="b1", service_id=SHOP))
            result = await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP))
            nursery.cancel_scope.cancel()
        assert result.status == "completed"
        entries = [record.entry for record in (await journal.read(Query(service="shop"))).records]
        assert [(e.action, e.name, e.outcome, e.asked) for e in entries] == [
            ("backup", SHOP, "completed", ("push",)),
            ("stop", "shop", "applied", ("restore",)),
            ("start", "shop", "applied", ("restore",)),
            ("restore", SHOP, "completed", ("push",)),
        ]
        assert entries[1].reason == "restoring backup b1"
        assert entries[-1].detail == f"backup {result.undo_id} takes it back"
        writes = [method for method, _ in bench.world.engine.service_writes if method == "update_service"]
        assert len(writes) > 3, "there were heartbeats"

    play(scene)


def test_a_backup_of_a_daemon(tmp_path: Path) -> None:
    """Asked for by the control plane; how it ended, and why."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        ports = Ports(
            cloudly=world.cloudly,
            docker=SwarmPort(world.engine),
            corestores=Corestores.one(MemoryCorestore()),
        )
        async with running(daemon_settings(tmp_path), ports) as engine:
            assert engine.operations is not None
            assert engine.journal is not None
            await engine.reconciled()
            await engine.operations.backup(BackupRequest(backup_id="b", service_id=ServiceId("id-a")))
            *_, last = (await engine.journal.read(Query(service="a"))).records
        assert (last.entry.action, last.entry.outcome) == ("backup", "failed")
        assert last.entry.asked == ("push",)
        assert "nothing to back up" in last.entry.detail

    play(scene)
