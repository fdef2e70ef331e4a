"""One engine to measure: the memory Swarm or a real one, with the little that tests need beyond the `Engine` protocol."""

import io
import itertools
import json
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import Factory, define, field

from coreflow.adapters.engine.client import DockerEngine, open_engine
from coreflow.adapters.engine.protocol import Engine, EngineError
from coreflow.adapters.memory import Behaviour, MemoryEngine

Json = dict[str, Any]
T = TypeVar("T")

GOOD, NEWER, EXITS, WEB = "coreflow/test:1", "coreflow/test:2", "coreflow/test:exits", "coreflow/test:web"
NOWHERE = "node.hostname==nowhere"
"""A constraint that no node meets: tasks stay `pending`, and make nothing on the node."""
USER, PASSWORD = "tester", "correct-horse"
SECOND = 1_000_000_000
ENDED = frozenset({"complete", "failed", "rejected", "shutdown"})
MEANT_TO_RUN = frozenset({"ready", "running"})
_STEP = 0.1
_TIMEOUT = 120.0
"""An engine that knows a volume plugin which is gone asks it for half a minute at each volume that is new."""
_numbers = itertools.count()


@define(kw_only=True)
class Bench:
    """An engine, and names of our own on it: others work there, too."""

    engine: Engine
    memory: MemoryEngine | None = None
    registry: str = "127.0.0.1:5000"
    private_registry: str = "127.0.0.1:5001"
    archives: Path | None = None
    prefix: str = field(factory=lambda: f"ct{os.getpid()}x{next(_numbers)}")
    images: list[str] = Factory(list)
    """References to remove in the end."""

    def name(self, short: str = "a") -> str:
        """A name that is only ours."""
        return f"{self.prefix}-{short}"

    # time

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        if self.memory is not None:
            self.memory.advance(seconds)
        else:
            await trio.sleep(seconds)

    async def eventually(self, look: Callable[[], Awaitable[T]], *, seconds: float = _TIMEOUT) -> T:
        """Look until there is something to see, which comes back."""
        deadline = trio.current_time() + seconds
        for _ in itertools.count():
            found = await look()
            if found:
                return found
            await self.pause(_STEP)
            if self.memory is not None:
                seconds -= _STEP
            if seconds < 0 or (self.memory is None and trio.current_time() > deadline):
                break
        raise AssertionError(f"it did not happen; last seen: {found!r}")

    async def together(self, one: Callable[[str, T], Awaitable[None]], *cases: T) -> None:
        """Look at several cases at once, each with a short name of its own; in memory one after the other."""
        if self.memory is not None:
            for number, case in enumerate(cases):
                await one(f"c{number}", case)
            return
        async with trio.open_nursery() as nursery:
            for number, case in enumerate(cases):
                nursery.start_soon(one, f"c{number}", case)

    # services

    def spec(self, short: str = "a", image: str = GOOD, **container: Any) -> Json:
        """The spec of a service with one task that rolls fast."""
        roll = {"Parallelism": 1, "Monitor": SECOND // 5, "FailureAction": "rollback", "Order": "stop-first"}
        return {
            "Name": self.name(short),
            "Labels": {"made-by": "contract"},
            "TaskTemplate": {
                "ContainerSpec": {"Image": image, **container},
                "RestartPolicy": {"Condition": "any", "Delay": SECOND // 10},
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "UpdateConfig": dict(roll),
            "RollbackConfig": {
                **roll,
                "FailureAction": "pause",
                **({"Monitor": 2 * SECOND} if image == EXITS else {}),
            },
            "EndpointSpec": {"Mode": "dnsrr"},
        }

    async def create(self, spec: Mapping[str, Any], auth: str | None = None) -> str:
        """Make a service; its id."""
        return await self.engine.create_service(spec, auth)

    async def start(self, spec: Mapping[str, Any]) -> str:
        """Make a service and wait until its tasks run."""
        identity = await self.create(spec)
        replicas = spec["Mode"].get("Replicated", {}).get("Replicas", 1)
        await self.eventually(lambda: self.runs(identity, replicas))
        return identity

    async def live(self, identity: str) -> Json:
        """A service as the engine has it now."""
        return await self.engine.inspect_service(identity)

    async def update(self, identity: str, change: Callable[[Json], object], auth: str | None = None) -> Json:
        """Change the live spec; what was there before. Swarm itself writes, too: a lost race is tried again."""
        while True:
            before = await self.live(identity)
            spec = json.loads(json.dumps(before["Spec"]))
            change(spec)
            try:
                await self.engine.update_service(identity, before["Version"]["Index"], spec, auth)
            except EngineError as exc:
                if "out of sequence" not in exc.message:
                    raise
            else:
                return before

    async def tasks(self, identity: str) -> list[Json]:
        """All tasks of a service that the engine still knows, the oldest first."""
        tasks = [task for task in await self.engine.list_tasks() if task["ServiceID"] == identity]
        return sorted(tasks, key=lambda task: str(task["CreatedAt"]))

    async def running(self, identity: str) -> list[Json]:
        """The tasks of a service that run and are meant to."""
        return [
            task
            for task in await self.tasks(identity)
            if task["Status"]["State"] == "running" and task["DesiredState"] == "running"
        ]

    async def runs(self, identity: str, number: int = 1) -> list[str]:
        """The ids of exactly so many running tasks, or nothing."""
        found = await self.running(identity)
        return sorted(task["ID"] for task in found) if len(found) == number else []

    async def state(self, identity: str, *wanted: str) -> Json | None:
        """The service once its update is in one of these states."""
        live = await self.live(identity)
        return live if (live.get("UpdateStatus") or {}).get("State") in wanted else None

    async def ends(self, identity: str, *states: str) -> Json:
        """Wait for the end of a roll-out; the service then."""

        async def look() -> Json | None:
            return await self.state(identity, *states)

        found = await self.eventually(look)
        assert found is not None
        return found

    async def task_in(self, identity: str, *states: str) -> Json:
        """Wait for a task in one of these states. One that has ended is still meant to run for a moment, which is over then."""

        async def look() -> list[Json]:
            return [
                task
                for task in await self.tasks(identity)
                if task["Status"]["State"] in states
                and (task["Status"]["State"] not in ENDED or task["DesiredState"] not in MEANT_TO_RUN)
            ]

        return (await self.eventually(look))[0]

    # what is not in the protocol

    async def roll_back(self, identity: str) -> None:
        """What `docker service rollback` does."""
        live = await self.live(identity)
        version = live["Version"]["Index"]
        if self.memory is not None:
            await self.memory.rollback_service(identity, version)
        else:
            query = {"version": version, "rollback": "previous"}
            await self._real("POST", f"/services/{identity}/update", body=live["Spec"], query=query)

    @asynccontextmanager
    async def task_history(self, limit: int) -> AsyncIterator[None]:
        """What `docker swarm update --task-history-limit` does, for as long as the block lasts."""
        before = await self._set_history(limit)
        try:
            yield
        finally:
            await self._set_history(before)

    async def _set_history(self, limit: int) -> int:
        if self.memory is not None:
            before, self.memory.history = self.memory.history, limit
            return before
        swarm = await self._real("GET", "/swarm")
        spec = swarm["Spec"]
        before = spec["Orchestration"].get("TaskHistoryRetentionLimit", 0)
        spec["Orchestration"]["TaskHistoryRetentionLimit"] = limit
        await self._real("POST", "/swarm/update", body=spec, query={"version": swarm["Version"]["Index"]})
        return int(before)

    async def remove_network(self, identity: str) -> None:
        """`DELETE /networks/{id}`."""
        await self.engine.remove_network(identity)

    async def _real(self, method: str, path: str, **options: Any) -> Any:
        assert isinstance(self.engine, DockerEngine)
        return await self.engine._call(method, path, **options)

    def behaves(self, image: str, behaviour: Behaviour) -> None:
        """Tell the memory Swarm what a container does that a real one is told by its command."""
        if self.memory is not None:
            self.memory.behaviours[image] = behaviour

    def archive(self, name: str, *references: str, untagged: bool = False) -> AsyncIterator[bytes]:
        """An image archive by its file name, in pieces; renamed to `references`, or without any name."""
        if self.archives is None:
            data = _small_archive(references or (() if untagged else (GOOD,)), compressed=name.endswith("gz"))
        else:
            data = (self.archives / name).read_bytes()
            if references or untagged:
                data = _renamed(data, references)
        return pieces(data)

    async def clean_up(self) -> None:
        """Remove everything of ours from a real engine."""
        if self.memory is not None:
            return
        for service in await self.engine.list_services():
            if service["Spec"]["Name"].startswith(self.prefix):
                await self.engine.remove_service(service["ID"])
        for secret in await self.engine.list_secrets():
            if secret["Spec"]["Name"].startswith(self.prefix):
                await self.engine.remove_secret(secret["ID"])
        for network in await self.engine.list_networks():
            if network["Name"].startswith(self.prefix):
                await self.eventually(lambda identity=network["Id"]: self._network_is_gone(identity))  # type: ignore[misc]  # a default binds it
        for image in self.images:
            with suppress(EngineError):
                await self._real("DELETE", f"/images/{image}")

    async def _network_is_gone(self, identity: str) -> bool:
        try:
            await self.remove_network(identity)
        except EngineError as exc:
            return exc.status == 404
        return True


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    """Bytes as they come from a network."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _small_archive(references: Iterable[str], *, compressed: bool) -> bytes:
    """As much of a `docker save` archive as the memory Swarm reads."""
    manifest = json.dumps([{"Config": "0.json", "RepoTags": [*references] or None, "Layers": []}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compressed else "w") as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
    return buffer.getvalue()


def _renamed(data: bytes, references: Iterable[str]) -> bytes:
    """A `docker save` archive with other names for its image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            kept = content.read() if content is not None else b""
            if member.name == "repositories":
                continue
            if member.name == "manifest.json":
                manifest = json.loads(kept)
                for entry in manifest:
                    entry["RepoTags"] = [*references] or None
                kept = json.dumps(manifest).encode()
                member.size = len(kept)
            new.addfile(member, io.BytesIO(kept))
    return buffer.getvalue()


def _memory_engine() -> MemoryEngine:
    """A Swarm in memory with the images and registries of the real test engine."""
    engine = MemoryEngine(clock=lambda: 0.0)
    for image in (GOOD, NEWER, WEB):
        engine.add_image(image)
    engine.add_image(EXITS, Behaviour(exits=1))
    engine.add_registry("127.0.0.1:5001", login=(USER, PASSWORD))
    for version in "12":
        engine.push(f"127.0.0.1:5000/test:{version}")
        engine.push(f"127.0.0.1:5001/private:{version}")
    return engine


@asynccontextmanager
async def open_bench(host: str | None, state: Path | None) -> AsyncIterator[Bench]:
    """The real engine at `host`, or one in memory."""
    if host is None:
        memory = _memory_engine()
        yield Bench(engine=memory, memory=memory)
        return
    async with open_engine(host) as engine:
        bench = Bench(
            engine=engine,
            registry=os.environ["COREFLOW_TEST_REGISTRY"],
            private_registry=os.environ["COREFLOW_TEST_PRIVATE_REGISTRY"],
            archives=None if state is None else state / "images",
        )
        try:
            yield bench
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _TIMEOUT):
                await bench.clean_up()
