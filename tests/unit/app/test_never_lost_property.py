"""Nothing is ever lost: whatever the records say, whatever fails, and wherever a process is killed.

One story is about bindings: no volume is ever removed, and what is bound is given back only by a record that says so.
The other is about restores: a service runs with whole data or does not run, and in the end everything is restored.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, cast

import trio
from attrs import Factory, define, frozen
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.effort import examples
from tests.unit.app.worlds import GOOD, NEWER, Json, World, cluster, new_engine, play, service

from coreflow.adapters.memory import Fault, MemoryCorestore, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.backups import Tools
from coreflow.app.bindings import Bindings
from coreflow.app.corestores import Corestores
from coreflow.app.operations import Operations
from coreflow.app.progress import Unwatched
from coreflow.app.reconcile import Reconciler
from coreflow.app.replication import Replicator
from coreflow.domain.backup.lease import DAEMON, read_lease
from coreflow.domain.backup.requests import BackupRequest, RestoreRequest, RestoreResult
from coreflow.domain.backup.snapshots import VolumeSpec
from coreflow.domain.deploy.steps import verb_of
from coreflow.domain.errors import CoreflowError, LostRace, PortError, Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.actions import Deprovision
from coreflow.domain.platform.bindings import BindingSpec, Provisioned
from coreflow.domain.swarm.actions import Remove, Stop
from coreflow.domain.swarm.naming import RESTORE, STOPPED, volume_name

NAMES = ("a", "b")
LISTS = ("list_services", "list_tasks", "list_secrets", "list_networks", "list_nodes")
WRITES = {"create_service", "update_service", "remove_service", "create_secret", "remove_secret", "create_network"}  # fmt: skip
"""Every write that the engine may see of a pass."""
ERRORS: tuple[type[PortError], ...] = (Unavailable, Refused)

# --- bindings


@frozen
class Wish:
    """A binding, as a draw."""

    number: int
    service: str
    capability: object
    state: object
    provider: object

    def record(self) -> Json:
        """As the records have it. Data of other types than these is not what it should be."""
        data = {"serviceId": f"id-{self.service}", "serviceName": self.service, "capability": self.capability}
        state = {} if self.state is None else {"desiredState": self.state}
        provider = {} if self.provider is None else {"providerId": self.provider}
        return {"id": f"bind{self.number}", "data": {**data, **state, **provider}}


wishes = st.builds(
    Wish,
    number=st.integers(0, 3),
    service=st.sampled_from([*NAMES, *NAMES, "gone"]),
    capability=st.sampled_from(["database", "database", "database", "objectstorage", "mail"]),
    state=st.sampled_from([None, "enabled", "enabled", "disabled", "disabled", "Disabled", "deleted"]),
    provider=st.sampled_from([None, None, None, "ours", "theirs", "nobody"]),
)
OURS, THEIRS = {"id": "ours", "type": "corestore"}, {"id": "theirs", "type": "other"}
PROVIDERS: tuple[list[Json] | None, ...] = (
    None,
    None,
    [],
    [OURS, THEIRS],
    [OURS, THEIRS],
    [{**OURS, "enabled": False}],
    [THEIRS],
)
NONSENSE: tuple[tuple[str, Any], ...] = (
    ("providers", "nonsense"),
    ("bindings", "nonsense"),
    (
        "bindings",
        [{"id": "bind0", "data": {"serviceId": "id-a", "capability": "database", "desiredState": 7}}],
    ),
    ("bindings", [{"id": "bind0", "data": {"capability": "database"}}]),
)


@st.composite
def documents(draw: st.DrawFn) -> Json:
    """Records: services, bindings of them, and now and then nonsense."""
    names = draw(st.sampled_from([NAMES, NAMES, NAMES[:1], ()]))
    services = [
        service(
            name, draw(st.sampled_from([GOOD, NEWER])), volumes=[{"mountPath": "/data", "driver": "local"}]
        )
        for name in names
    ]
    drawn = draw(st.lists(wishes, min_size=1, max_size=4))
    bindings = {wish.number: wish.record() for wish in drawn}
    platform: Json = {"bindings": list(bindings.values())}
    providers = draw(st.sampled_from(PROVIDERS))
    if providers is not None:
        platform["providers"] = providers
    match draw(st.sampled_from([*[""] * 8, "nothing", "null", "nonsense", "wrapped", "a list"])):
        case "nothing":
            return cluster(*services)
        case "null":
            return cluster(*services, platform=None)
        case "nonsense":
            platform.update([draw(st.sampled_from(NONSENSE))])
        case "wrapped":
            return cluster(*services, platform={"desiredState": platform})
        case "a list":
            return cluster(*services, platform=platform["bindings"])
    return cluster(*services, platform=platform)


methods = st.sampled_from(["provision", "deprovision"])
events = st.one_of(
    st.tuples(st.just("records"), documents()),
    st.tuples(st.just("records"), documents()),
    st.tuples(
        st.just("no document"), st.sampled_from([[], {}, 7, {"configData": {"id": "test"}, "services": 1}])
    ),
    st.tuples(st.just("before"), st.tuples(methods, st.sampled_from(ERRORS))),
    st.tuples(st.just("after"), st.tuples(methods, st.sampled_from(ERRORS))),
    st.tuples(st.just("engine"), st.tuples(st.integers(0, 8), st.booleans())),
    st.tuples(st.just("crash"), st.integers(1, 4)),
    st.tuples(st.just("stale"), st.sampled_from(LISTS)),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("stop"), st.sampled_from(NAMES)),
    st.tuples(st.just("pass"), st.none()),
    st.tuples(st.just("time"), st.floats(0.1, 20)),
)


class Watched(MemoryCorestore):
    """A Corestore that remembers whose values this process has got, and checks what is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, BindingSpec] = {}
        self.disabled: set[tuple[str, object]] = set()
        """Services and capabilities of the bindings that are disabled in the records now."""
        self.wanted: set[tuple[str, object]] = set()
        """Those of the bindings that Corestore is to provide, as far as this can be said for sure."""
        self.filled: set[tuple[ServiceId, str]] = set()
        """Those that have data now."""

    async def provision(self, spec: BindingSpec) -> Provisioned:
        found = await super().provision(spec)
        self.given[spec.id] = spec
        return found

    async def deprovision(self, spec: BindingSpec) -> None:
        key = (spec.service_id, spec.capability)
        assert key in self.disabled, "given back, though nobody disabled it"
        assert key not in self.wanted, "given back, though another binding wants it"
        self.filled.discard((spec.service_id, spec.capability))
        await super().deprovision(spec)
        self.given.pop(spec.id, None)


class Stage:
    """A Swarm, records and a Corestore, and what must never happen to them."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.world = World(engine=new_engine(self.engine))
        self.store = Watched()
        self.document: Any = None
        for number in range(2):
            self.store.volume_data[f"volume-{number}"] = {"file": b"kept"}
        self.restart()

    def restart(self) -> None:
        """A new process."""
        self.store.given.clear()
        docker, corestores = SwarmPort(self.engine), Corestores.one(self.store)
        self.reconciler = Reconciler(
            self.world.cloudly, docker, corestores, render=self.world.render, listener=self
        )

    def publish(self, document: Any) -> None:
        """Set the records."""
        self.document = document
        self.store.disabled = {
            (data["serviceId"], data["capability"])
            for data in self._bindings()
            if data.get("desiredState") == "disabled" and data.get("providerId") != "theirs"
        }
        is_enabled = any(p.get("enabled", True) for p in self._platform("providers") if p["id"] == "ours")
        self.store.wanted = {
            (data["serviceId"], data["capability"])
            for data in self._bindings()
            if data.get("desiredState") != "disabled" and data.get("providerId") == "ours" and is_enabled
        }
        self.world.cloudly.set(document)

    def _bindings(self) -> list[Json]:
        return [one["data"] for one in self._platform("bindings")]

    def _platform(self, member: str) -> list[Json]:
        platform = self.document.get("platform") if isinstance(self.document, dict) else None
        if isinstance(platform, dict):
            platform = platform.get("desiredState", platform)
        found = platform.get(member) if isinstance(platform, dict) else None
        return found if isinstance(found, list) else []

    # what a pass may plan, and whom it may touch

    def planned(self, plan: Any) -> None:
        """No plan removes anything but services and secrets; each binding that is given back is disabled right now."""
        for action in plan.actions:
            if isinstance(action, Deprovision):
                assert (action.spec.service_id, action.spec.capability) in self.store.disabled
            assert verb_of(action) not in ("stop", "start")
            if isinstance(action, Remove):
                assert type(action.target).__name__ in ("ObservedService", "ObservedSecret")

    def applied(self, outcome: Any) -> None:
        """Nothing to see."""

    def progressed(self, verdicts: Any) -> None:
        """Nothing to see."""

    async def run_pass(self) -> None:
        """A pass; it does not write to what is held."""
        held = await self._held()
        seen = len(self.world.engine.calls)
        self.engine.service_writes.clear()
        with suppress(CoreflowError):
            await self.reconciler.run_pass()
        writes = {method for method, is_write in self.world.engine.calls[seen:] if is_write}
        assert writes <= WRITES
        written = {name for method, name in self.engine.service_writes if method != "create_service"}
        assert held.isdisjoint(written), "a service that is held was written to"
        self.check()

    async def _held(self) -> set[str]:
        """The services that a pass must not touch: those that are stopped, and those that wait."""
        waiting: set[str] = set()
        try:
            records = await self.world.cloudly.records()
        except CoreflowError:
            return {live["Spec"]["Name"] for live in self._services()}
        wanted = self.reconciler.bindings.wishes(records).wanted
        for record in records.services:
            if any(self.store.given.get(spec.id) != spec for spec in wanted.get(record.id, ())):
                waiting.add(record.name)
        return {
            live["Spec"]["Name"]
            for live in self._services()
            if live["Spec"]["Name"] in waiting or STOPPED in live["Spec"]["Labels"]
        }

    def _services(self) -> list[Json]:
        return list(self.world.engine.store.services.values())

    def check(self) -> None:
        """All volumes, and all that was ever provisioned and not given back, have their data."""
        store = self.store
        assert len(store.volume_data) == 2
        assert all(files == {"file": b"kept"} for files in store.volume_data.values())
        assert all(store.resource_data[key] == {"kept": b"of the service"} for key in store.filled)
        for key in store.held:
            store.resource_data[key]["kept"] = b"of the service"
        store.filled |= store.held

    async def happen(self, kind: str, what: Any) -> None:
        """One event."""
        engine, store = self.world.engine, self.store
        match kind:
            case "records" | "no document":
                self.publish(what)
                await self.run_pass()
                await self.run_pass()
            case "before":
                store.faults_of[what[0]].append(what[1]("a fault"))
            case "after":
                store.late_faults[what[0]].append(what[1]("a fault"))
            case "engine":
                engine.faults.extend([Fault(method="nothing")] * what[0])
                engine.faults.append(Fault(when="after" if what[1] else "before"))
                await self.run_pass()
                engine.faults.clear()
            case "crash":
                engine.crash_after = what
                await self.run_pass()
                engine.revive()
            case "stale":
                engine.stale[what] = 1
            case "restart":
                self.restart()
            case "stop":
                await self.stop(what)
            case "time":
                await trio.sleep(what)
        await self.run_pass()

    async def stop(self, name: str) -> None:
        """A restore stops a service, and is not heard of again. With an old list it may find that it is stopped already."""
        docker = SwarmPort(self.world.engine)
        for live in (await docker.observe()).services:
            if live.name == name and not live.is_stopped:
                with suppress(LostRace):
                    await docker.apply(Stop(live, "a lease", "", "a test"))


def _bound(image: str) -> Json:
    """Records: a service with a database."""
    wish = Wish(0, "a", "database", None, None)
    return cluster(service("a", image), platform={"bindings": [wish.record()]})


def _services(names: str) -> Json:
    """Records: services that are bound to nothing."""
    return cluster(*map(service, names))


def _held_in_a_roll_out() -> list[tuple[str, Any]]:
    """A new process gets no values for the service's binding, and Swarm ends the roll-out meanwhile."""
    away = ("before", ("provision", Unavailable))
    return [
        ("time", 20.0),
        ("records", _bound(NEWER)),
        away,
        away,
        ("restart", None),
        ("time", 15.0),
    ]


def _stopped_behind_an_old_list(records: Json) -> list[tuple[str, Any]]:
    """A restore stops the service, and the next list that a pass with these records gets does not know of it."""
    return [
        ("time", 20.0),
        ("stop", "a"),
        ("stale", "list_services"),
        ("records", records),
        ("pass", None),
    ]


@settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))
@given(first=documents(), story=st.lists(events, min_size=3, max_size=12))
@example(first=_bound(GOOD), story=_held_in_a_roll_out())
@example(first=_bound(GOOD), story=_stopped_behind_an_old_list(_bound(NEWER)))
@example(first=_services("abcd"), story=_stopped_behind_an_old_list(_services("bcd")))
@example(first=_bound(GOOD), story=[("stop", "a"), ("stale", "list_services"), ("stop", "a")])
def test_only_what_is_disabled_is_given_back(first: Json, story: list[tuple[str, Any]]) -> None:
    """Records that come, go and are nonsense, faults, stale lists and restarts in any order."""

    async def scene() -> None:
        stage = Stage()
        stage.publish(first)
        await stage.run_pass()
        for kind, what in story:
            await stage.happen(kind, what)

    play(scene)


# --- restores

SHOP = ServiceId("id-shop")
DATA = volume_name(SHOP, "/data")
BINDINGS: Json = {
    "bindings": [
        {"id": "b-db", "data": {"serviceId": SHOP, "serviceName": "shop", "capability": "database"}},
        {"id": "b-s3", "data": {"serviceId": SHOP, "serviceName": "shop", "capability": "objectstorage"}},
    ]
}
SAVED = {"a": b"as in", "b": b"the backup"}
PRESENT = {"a": b"as it was", "c": b"before"}
SNAPSHOTS = ("snapshot_volume", "snapshot_resource", "snapshots", "volumes", "provision", "archive_objects")
OVERWRITES = ("restore_volume", "restore_resource")


@define
class Life:
    """One process: at the how manyth of which moments it is killed or told to end, and whether it is dead."""

    moment: str = ""
    count: int = 1
    is_told: bool = False
    """Told to end (SIGTERM), and not killed."""
    is_dead: bool = False
    scope: trio.CancelScope = Factory(trio.CancelScope)

    def tick(self, moment: str) -> None:
        """Something is about to happen, or has just happened. The dead get no answers."""
        if moment == self.moment:
            self.count -= 1
            if self.count == 0:
                self.is_dead = not self.is_told
                self.scope.cancel()
        if self.is_dead:
            raise Unavailable("a dead process gets no answer")


class Seen:
    """A peer as one process sees it: what happens before and after each of its calls, `tick` sees."""

    def __init__(self, inner: object, life: Life, tick: Callable[[], None]) -> None:
        self._inner, self._life, self._tick = inner, life, tick

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            self._life.tick(name)
            self._tick()
            result = await found(*args, **options)
            self._tick()
            self._life.tick(f"{name} done")
            return result

        return call


class Fragile(MemoryCorestore):
    """A Corestore that needs a while to overwrite something; what breaks off meanwhile leaves it half overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.breaks = 0
        """How many overwritings break off."""
        self.half_way: Callable[[], None] = lambda: None

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        self._contents("restore", "volume", snapshot_id)
        await self._half(self.volume_data[name])
        await super().restore_volume(name, snapshot_id)

    async def restore_resource(self, service_id: ServiceId, capability: str, snapshot_id: str) -> None:
        self._contents("restore", cast("Any", capability), snapshot_id)
        await self._half(self.resource_data[service_id, capability])
        await super().restore_resource(service_id, capability, snapshot_id)

    async def _half(self, files: dict[str, bytes]) -> None:
        files.clear()
        files["a"] = b"half"
        self.half_way()
        await trio.sleep(self.seconds)
        if self.breaks:
            self.breaks -= 1
            raise Unavailable("broke off in the middle")


class Shop:
    """A service with a volume, a database and a bucket, that is backed up and restored by mortal processes."""

    def __init__(self, *, is_bound: bool) -> None:
        self.world = World(engine=new_engine())
        self.store = Fragile()
        for node in self.world.engine.nodes.values():
            node.plugins.add("corestore")
        record = service("shop", volumes=[{"mountPath": "/data", "backup": True}], scaleFactor=2)
        self.broken: list[AssertionError] = []
        """What was seen that must never be, while a process caught every error."""
        self.world.cloudly.set(cluster(record, platform=BINDINGS if is_bound else None))

    async def deploy(self) -> None:
        """Run it, with a volume, as Docker would make it."""
        assert (await self.reconciler().deploy(timeout=60)).is_stable
        await self.store.create_volume(VolumeSpec(name=DATA, service_id=SHOP, mount_path="/data"))

    def reconciler(self) -> Reconciler:
        """A new one."""
        stores = Corestores.one(self.store)
        return Reconciler(self.world.cloudly, SwarmPort(self.world.engine), stores, render=self.world.render)

    @property
    def parts(self) -> list[dict[str, bytes]]:
        """What is in the volume, and in what the service is bound to."""
        return [self.store.volume_data[DATA], *self.store.resource_data.values()]

    def fill(self, files: Mapping[str, bytes]) -> None:
        """Have this in every part."""
        for part in self.parts:
            part.clear()
            part.update(files)

    # what must hold at every moment

    @property
    def spec(self) -> Json:
        """The service as the engine has it."""
        found: list[Json] = [live["Spec"] for live in self.world.engine.store.services.values()]
        (spec,) = (spec for spec in found if spec["Name"] == "shop")
        return spec

    def tick(self, check: Callable[[], None]) -> None:
        """Look, from inside of a process."""
        try:
            check()
        except AssertionError as exc:
            self.broken.append(exc)

    def check(self) -> None:
        """Stopped with a lease, or running with its replicas and whole data."""
        labels, replicas = self.spec["Labels"], self.spec["Mode"]["Replicated"]["Replicas"]
        if STOPPED in labels:
            assert (labels[STOPPED], replicas) == ("2", 0)
            assert read_lease(labels[RESTORE]) is not None
        else:
            assert RESTORE not in labels
            assert replicas == 2
            assert all(part in (SAVED, PRESENT) for part in self.parts), self.parts

    def check_stopped(self) -> None:
        """While something is overwritten, nobody uses it."""
        self.check()
        assert STOPPED in self.spec["Labels"]
        assert not self.world.engine.running_tasks("shop")
        assert not any(task.state == "running" for task in self.world.engine.store.tasks.values())

    # processes

    async def process(
        self, life: Life, body: Callable[[Operations], Awaitable[object]], owner: str = DAEMON
    ) -> None:
        """A process that lives until its body ends, or as long as it is let."""
        tick = partial(self.tick, self.check)

        def half_way() -> None:
            self.tick(self.check_stopped)
            life.tick("half")

        self.store.half_way = half_way
        engine = Seen(self.world.engine, life, tick)
        store = Seen(self.store, life, tick)
        corestores = Corestores.one(cast("MemoryCorestore", store))
        tools = Tools(
            cloudly=self.world.cloudly,
            docker=SwarmPort(cast("Any", engine)),
            corestores=corestores,
            bindings=Bindings(corestores, self.world.cloudly),
            replicator=Replicator(self.world.cloudly),
            watcher=Unwatched(),
            clock=lambda: 1_795_000_000.0 + trio.current_time(),
        )
        with capture_logs() as lines, life.scope, trio.move_on_after(1800):
            async with trio.open_nursery() as nursery:
                operations = Operations(tools, owner=owner)
                nursery.start_soon(operations.run)
                await body(operations)
                nursery.cancel_scope.cancel()
        if self.broken:
            raise self.broken[0]
        assert not [line for line in lines if line["event"] == "unexpected error"]

    async def restore(self, life: Life, owner: str = DAEMON) -> RestoreResult | None:
        """Ask for a restore."""
        results: list[RestoreResult] = []

        async def body(operations: Operations) -> None:
            results.append(await operations.restore(RestoreRequest(backup_id="b1", service_id=SHOP)))

        await self.process(life, body, owner)
        return results[0] if results else None

    async def back_up(self, life: Life, *, replicate: bool) -> str:
        """Ask for a backup; how it ended."""
        results: list[str] = []

        async def body(operations: Operations) -> None:
            request = BackupRequest(backup_id="b1", service_id=SHOP, replicate=replicate)
            results.append((await operations.backup(request)).status)

        await self.process(life, body)
        return results[0] if results else "killed"

    def arrange(self, trouble: "Trouble") -> None:
        """Have this go wrong from now on, and nothing else."""
        store, engine = self.store, self.world.engine
        store.faults_of.clear()
        store.late_faults.clear()
        engine.faults.clear()
        engine.revive()
        store.breaks, store.seconds = trouble.breaks, trouble.seconds
        for method, error in trouble.before:
            store.faults_of[method].append(error("before"))
        for method, error in trouble.after:
            store.late_faults[method].append(error("after"))
        engine.crash_after = trouble.crash_after
        for number, is_after in trouble.engine:
            engine.faults.extend([Fault(method="nothing")] * number)
            engine.faults.append(Fault(when="after" if is_after else "before"))


@frozen(kw_only=True)
class Trouble:
    """What goes wrong during one process."""

    before: tuple[tuple[str, type[PortError]], ...] = ()
    after: tuple[tuple[str, type[PortError]], ...] = ()
    breaks: int = 0
    seconds: float = 0.0
    crash_after: int | None = None
    engine: tuple[tuple[int, bool], ...] = ()
    moment: str = ""
    count: int = 1
    is_told: bool = False
    owner: str = DAEMON


MOMENTS = (
    *["", "half", "half", "half", "restore_volume done", "snapshot_volume", "snapshot_volume done"],
    *["snapshots", "update_service", "update_service done", "list_services", "list_tasks done"],
)
failing = st.tuples(st.sampled_from(SNAPSHOTS), st.sampled_from(ERRORS))
overwriting = st.tuples(st.sampled_from(OVERWRITES), st.just(Unavailable))
refusing = st.tuples(st.sampled_from(OVERWRITES), st.just(Refused))
troubles = st.builds(
    Trouble,
    before=st.lists(failing | overwriting | refusing, max_size=2, unique_by=lambda f: f[0]).map(tuple),
    after=st.lists(st.tuples(st.sampled_from(SNAPSHOTS), st.just(Unavailable)) | overwriting, max_size=2).map(
        tuple
    ),
    breaks=st.integers(0, 3),
    seconds=st.sampled_from([0.0, 1.0, 20.0]),
    crash_after=st.none() | st.none() | st.integers(1, 4),
    engine=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=2).map(tuple),
    moment=st.sampled_from(MOMENTS),
    count=st.integers(1, 3),
    is_told=st.booleans(),
    owner=st.sampled_from([DAEMON, DAEMON, "command-1", "command-2"]),
)
lives = st.one_of(
    st.tuples(st.just("restore"), troubles),
    st.tuples(st.just("restore"), troubles),
    st.tuples(st.just("daemon"), troubles),
    st.tuples(st.just("pass"), st.none()),
    st.tuples(st.just("archive lost"), st.none()),
    st.tuples(st.just("used"), st.none()),
)


async def _idle(_: Operations) -> None:
    await trio.sleep(120)


async def _live(shop: Shop, kind: str, what: Any, *, is_replicated: bool) -> None:
    """One thing that happens to the shop."""
    is_stopped = STOPPED in shop.spec["Labels"]
    match kind:
        case "restore" | "daemon":
            shop.arrange(what)
            life = Life(moment=what.moment, count=what.count, is_told=what.is_told)
            if kind == "restore":
                await shop.restore(life, what.owner)
            else:
                await shop.process(life, _idle)
        case "pass":
            shop.arrange(Trouble())
            before = shop.spec
            await shop.reconciler().reconcile()
            assert not is_stopped or shop.spec == before
        case "archive lost":
            if is_replicated and not is_stopped:
                shop.store.archive.clear()
        case "used":
            if not is_stopped:
                shop.fill(PRESENT)
    shop.check()


@settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
@given(
    is_bound=st.booleans(),
    is_replicated=st.booleans(),
    backups=st.lists(troubles, max_size=2),
    story=st.lists(lives, min_size=2, max_size=6),
)
def test_a_restore_that_was_begun_is_finished(
    is_bound: bool, is_replicated: bool, backups: list[Trouble], story: list[tuple[str, Any]]
) -> None:
    """Whatever fails, and whoever is killed: it runs with whole data or not at all, and the last restore is whole."""

    async def scene() -> None:
        shop = Shop(is_bound=is_bound)
        await shop.deploy()
        shop.fill(SAVED)
        for trouble in backups:
            shop.arrange(trouble)
            await shop.back_up(Life(moment=trouble.moment), replicate=is_replicated)
            assert all(part == SAVED for part in shop.parts)
        shop.arrange(Trouble())
        assert await shop.back_up(Life(), replicate=is_replicated) == "completed"
        shop.fill(PRESENT)
        for kind, what in story:
            await _live(shop, kind, what, is_replicated=is_replicated)
        shop.arrange(Trouble())
        result = await shop.restore(Life())
        assert result is not None
        assert result.status == "completed", result
        assert all(part == SAVED for part in shop.parts)
        assert len(shop.parts) == (3 if is_bound else 1)
        assert not {STOPPED, RESTORE} & shop.spec["Labels"].keys()
        shop.check()

    play(scene)
