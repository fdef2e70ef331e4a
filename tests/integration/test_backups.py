"""Backup and restore on a real Swarm, through the daemon and the command: what was destroyed comes back, whoever is killed."""

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import docker.errors
import pytest
import trio
from attrs import define, field, frozen
from tests.integration.corestore_server import CorestoreServer, start_corestore
from tests.integration.engine_proxy import EngineProxy, Trap, When, engine_proxy
from tests.integration.lab import Json, Lab, Result, open_lab
from tests.integration.node_harness import TOKEN, Cloudly, needs_node, start_cloudly, tell
from tests.integration.test_corestore_server import (
    find_documents,
    find_objects,
    spoil_documents,
    spoil_objects,
    write_documents,
    write_objects,
)
from tests.integration.test_daemon import push, start, stopped, version_index, wait

from coreflow.domain.backup.snapshots import RESTORE_TAG
from coreflow.domain.swarm.naming import RESTORE, STOPPED, volume_name

pytestmark = [pytest.mark.engine, pytest.mark.guest, needs_node]
_numbers = itertools.count()
T = TypeVar("T")
GOOD, LATER = "canary-content", "destroyed"


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"b{os.getpid()}x{next(_numbers)}")


@define(eq=False)
class Bench:
    """A service with two tasks and a volume that is marked for backup, its Corestore, and a Cloudly."""

    lab: Lab
    cloudly: Cloudly
    corestore: CorestoreServer
    shop: Json = field(init=False)
    platform: Json | None = None
    daemon: "subprocess.Popen[str] | None" = None

    def __attrs_post_init__(self) -> None:
        volumes = [{"mountPath": "/data", "backup": True}]
        self.shop = self.lab.service("shop", scaleFactor=2, volumes=volumes)

    def bind(self) -> None:
        """Have it bound to a database and to object storage from now on."""
        self.platform = {
            "clusterId": self.lab.prefix,
            "revision": 1,
            "providers": [{"id": "p", "type": "corestore", "capabilities": [], "enabled": True}],
            "bindings": [
                self.binding("shop", "database"),
                self.binding("shop", "objectstorage"),
            ],
        }

    def binding(self, short: str, capability: str) -> Json:
        """The record of a binding."""
        name, identity = self.lab.name(short), self.lab.service(short)["id"]
        data = {"serviceId": identity, "serviceName": name, "capability": capability}
        return {"id": f"b-{short}-{capability}", "data": data}

    @property
    def settings(self) -> dict[str, str]:
        """Where its Corestore is."""
        return {
            "CORESTORE_CONTROL_URL": self.corestore.url,
            "CORESTORE_API_TOKEN": self.corestore.token,
            "COREFLOW_BASE_SERVICES": "",
        }

    @property
    def volume(self) -> str:
        """The name of its volume."""
        return volume_name(self.shop["id"], "/data")

    # the daemon

    async def tell(self, *others: Json) -> None:
        """Have Cloudly know the service, and others."""
        await tell(self.cloudly, self.lab, self.shop, *others, platform=self.platform)

    async def push(self, *others: Json) -> None:
        """The same, and say so to the daemon."""
        await push(self.cloudly, self.lab, self.shop, *others, platform=self.platform)

    async def start(self, **extra: str) -> None:
        """Start the daemon, and wait until Cloudly can ask it for something."""
        self.daemon = start(self.lab, self.cloudly, **{**self.settings, **extra})
        with trio.fail_after(30):
            while not [c for c in await self.cloudly.connections() if "identity" in c["tags"]]:  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def kill(self) -> None:
        """`kill -9` the daemon."""
        assert self.daemon is not None
        self.daemon.kill()
        await self.gone()

    async def gone(self) -> None:
        """Wait until the daemon has ended, and Cloudly knows."""
        assert self.daemon is not None
        await in_thread(self.daemon.wait)
        self.daemon = None
        with trio.fail_after(30):
            while await self.cloudly.connections():  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def backup(self, backup_id: str = "b1", **request: Any) -> Json:
        """Have Cloudly ask for a backup; the result."""
        return await self._operate("executeServiceBackup", backup_id, **request)

    async def restore(self, backup_id: str = "b1", **request: Any) -> Json:
        """Have Cloudly ask for a restore; the result."""
        return await self._operate("executeServiceRestore", backup_id, **request)

    async def _operate(self, method: str, backup_id: str, **request: Any) -> Json:
        answer = await self.cloudly.operate(method, backupId=backup_id, serviceId=self.shop["id"], **request)
        assert "response" in answer, answer
        result: Json = answer["response"]["result"]
        return result

    async def begin_restore(self) -> None:
        """Have Cloudly ask for a restore without waiting for the result."""
        body = {"backupId": "b1", "serviceId": self.shop["id"]}
        await self.cloudly.flood("executeServiceRestore", body, 1, tag="identity")

    async def command(self, verb: str, *options: str) -> Result:
        """Run `coreflow backup` or `coreflow restore` with the cluster file."""
        arguments = (verb, self.lab.name("shop"), *options, "--records", str(self.lab.records))
        return await in_thread(partial(self.lab.run, *arguments, timeout=120, **self.settings))

    # the service

    async def runs(self) -> None:
        """Wait until it runs as ever: two tasks, and no trace of a restore."""

        def as_ever() -> bool:
            spec = self.lab.inspect("shop")["Spec"]
            wanted = spec["Mode"]["Replicated"]["Replicas"] == 2 and not {STOPPED, RESTORE} & set(
                spec["Labels"]
            )
            return wanted and len(self.lab.running("shop")) == 2

        await wait(self.lab, "two tasks run", lambda: self.lab.services() and as_ever())

    def labels(self) -> dict[str, str]:
        """Its labels."""
        labels: dict[str, str] = self.lab.inspect("shop")["Spec"]["Labels"]
        return labels

    async def shell(self, command: str) -> str:
        """What a command says in one of its containers."""
        return (await in_thread(self.lab.exec, "shop", "sh", "-c", command)).strip()

    async def write(self, text: str) -> None:
        """Put a text into its volume, and nothing else."""
        await self.shell(f"rm -rf /data/*; mkdir -p /data/sub; echo {text} >/data/sub/file")

    async def read(self) -> str:
        """What is in its volume."""
        return await self.shell("find /data -type f | while read f; do cat $f; done")

    def lose_archive(self) -> None:
        """Destroy everything in the archive."""
        shutil.rmtree(self.corestore.archive)
        self.corestore.archive.mkdir()

    async def lose_volume(self) -> None:
        """Destroy the volume, whoever has it."""
        status, _ = await self.corestore.ask("POST", "/volumes/remove", {"name": self.volume, "force": True})
        assert status == 200

    def clear(self) -> None:
        """End what was started, and leave no volume behind; the volume plugin is still needed for that."""
        lab = self.lab
        for process in lab._processes:
            process.kill()
            process.wait()
        for name in lab.services():
            lab.client.remove_service(name)
        ours = {"name": lab.prefix}
        lab.wait("no container is left", lambda: not lab.client.containers(all=True, filters=ours))
        with suppress(docker.errors.APIError):  # without the plugin, which a failed test may have ended
            lab.client.remove_volume(self.volume)


@pytest.fixture
async def bench(nursery: trio.Nursery, lab: Lab, engine_state: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    """A cluster whose only node has a volume plugin that is called `corestore`."""
    cloudly = await start_cloudly(nursery)
    socket = engine_state / "node1" / "run" / "docker" / "plugins" / "corestore.sock"
    corestore = await start_corestore(nursery, tmp_path / "corestore", plugin_socket=socket, databases=True)
    bench = Bench(lab, cloudly, corestore)
    try:
        yield bench
    finally:
        with trio.CancelScope(shield=True):
            await in_thread(bench.clear)
        nursery.cancel_scope.cancel()


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Call something that takes a while."""
    return await trio.to_thread.run_sync(partial(call, *arguments))


# --- the daemon


async def test_what_was_destroyed_comes_back(bench: Bench) -> None:
    """Files, documents and objects; from the archive and, where that is lost, from copies. No secret is told meanwhile."""
    lab, cloudly = bench.lab, bench.cloudly
    bench.bind()
    await bench.tell()
    await bench.start()
    await bench.runs()
    env = json.loads(await bench.shell("cat /run/secrets/secret.json"))
    await bench.write(GOOD)
    await in_thread(write_documents, env["MONGODB_URI"])
    await in_thread(write_objects, env)
    backup = await bench.backup(replicate=True)
    assert backup["status"] == "completed", backup
    assert [(v["volumeName"], v["mountPath"]) for v in backup["volumes"]] == [(bench.volume, "/data")]
    assert {r["capability"] for r in backup["resources"]} == {"database", "objectstorage"}
    sent = backup["replication"]["objectsUploaded"]
    assert len(await cloudly.copies()) == sent + 1

    results = [backup]
    for is_lost in (False, True):
        await bench.write(LATER)
        await in_thread(spoil_documents, env["MONGODB_URI"])
        await in_thread(spoil_objects, env)
        if is_lost:
            bench.lose_archive()
        restored = await bench.restore()
        results.append(restored)
        assert restored["status"] == "completed", restored
        assert restored["objectsPulled"] == (sent if is_lost else 0)
        assert restored["volumesRestored"] == [bench.volume]
        assert set(restored["resourcesRestored"]) == {"b-shop-database", "b-shop-objectstorage"}
        await bench.runs()
        assert await bench.read() == GOOD
        await in_thread(find_documents, env["MONGODB_URI"])
        await in_thread(find_objects, env)

    before = version_index(lab, "shop")
    await bench.push(lab.service("marker"))
    await wait(lab, "a pass was made", lambda: lab.running("marker"))
    assert version_index(lab, "shop") == before
    results += await _without_corestore(bench)
    assert version_index(lab, "shop") == before
    assert bench.daemon is not None
    await stopped(bench.daemon)
    plan = await in_thread(
        partial(lab.run, "plan", timeout=120, CLOUDLY_URL=cloudly.url, JUMPCODE=TOKEN, **bench.settings)
    )
    assert plan.code == 0, plan
    told = {
        "log": (lab.folder / "daemon.log").read_text(),
        "answers": json.dumps(results),
        "requests": json.dumps(await cloudly.seen()),
        "service": json.dumps(lab.inspect("shop")),
        "plan": str(plan),
    }
    for secret in (bench.corestore.token, env["AWS_SECRET_ACCESS_KEY"], env["MONGODB_URI"], GOOD, LATER):
        assert [where for where, text in told.items() if secret in text] == []
    assert [where for where, text in told.items() if TOKEN in text] == ["requests"]  # it logs in with it


async def _without_corestore(bench: Bench) -> list[Json]:
    """Corestore is away: others are deployed, bound ones wait, and nobody is stopped. What backup and restore say."""
    lab = bench.lab
    bench.corestore.kill()
    late = lab.service("late")
    assert bench.platform is not None
    bench.platform["bindings"].append(bench.binding("late", "database"))
    await bench.push(lab.service("marker"), lab.service("another"), late)
    await wait(lab, "others are deployed", lambda: lab.running("another"))
    assert lab.name("late") not in lab.services()
    results = [await bench.backup("b2"), await bench.restore()]
    assert [result["status"] for result in results] == ["failed", "failed"]
    assert all("cannot be reached" in result["errorText"] for result in results), results
    await bench.corestore.restart()
    assert await bench.read() == GOOD
    return results


# --- killed

SAVE = {"method": "POST", "path": "/volumes/snapshot"}
OVERWRITE = {"method": "POST", "path": "/volumes/restore"}


@frozen(kw_only=True)
class Step:
    """A moment of a restore, at which the daemon is killed."""

    what: str
    hangs: Json = field(factory=dict)
    """The request to Corestore that is not answered then."""
    is_carried_out: bool = True
    """Whether Corestore carries it out nevertheless."""
    write: When | None = None
    """Instead of that request, the next write to the engine: before or after it."""
    is_stopped: bool = True
    """Whether the workload is stopped by then."""


STEPS = (
    Step(what="snapshots are listed", hangs={"method": "GET", "path": "/snapshots"}, is_stopped=False),
    Step(
        what="a file of the archive is put there",
        hangs={"method": "PUT", "path": "/archive/objects"},
        is_stopped=False,
    ),
    Step(
        what="the volume is made",
        hangs={"method": "POST", "path": "/volumes/create"},
        is_carried_out=False,
        is_stopped=False,
    ),
    Step(what="the workload was just stopped", write="after"),
    Step(what="what is there is to be saved", hangs=SAVE, is_carried_out=False),
    Step(what="what is there was saved", hangs={**SAVE, "late": True}),
    Step(what="it is to be overwritten", hangs=OVERWRITE, is_carried_out=False),
    Step(what="it was overwritten", hangs={**OVERWRITE, "late": True}),
    Step(what="the workload is to be started", hangs={**OVERWRITE, "late": True}, write="before"),
)


def trap(proxy: EngineProxy, step: Step, lab: Lab) -> None:
    """Have the next write to the engine kill the daemon."""
    assert step.write is not None
    proxy.reset()
    proxy.trap = Trap(1, step.write, lab.kill_last)


async def killed(bench: Bench, proxy: EngineProxy, step: Step, *, has_begun: bool = False) -> bool:
    """Have a restore go on to a step, asked for unless it `has_begun`, and `kill -9` there; whether it is stopped then."""
    lab, corestore = bench.lab, bench.corestore
    before = version_index(lab, "shop")
    if step.hangs:
        await corestore.fault(kind="hang", **step.hangs)
    if bench.daemon is None:
        await bench.start(DOCKER_HOST=proxy.url)
    if not step.hangs:
        trap(proxy, step, lab)
    if not has_begun:
        await bench.begin_restore()
    if step.hangs:
        await corestore.hanging()
        assert not (has_begun and lab.client.containers(filters={"name": lab.prefix})), step
    if step.hangs and step.write:
        trap(proxy, step, lab)
        await corestore.release()
    if step.write:
        await bench.gone()
        proxy.trap = None
    else:
        await bench.kill()
        await (corestore.release() if step.is_carried_out else corestore.restart())
    is_stopped = STOPPED in bench.labels()
    assert is_stopped is step.is_stopped, step
    assert is_stopped or version_index(lab, "shop") == before, step
    return is_stopped


async def ready(bench: Bench, proxy: EngineProxy) -> None:
    """A service that runs, and was backed up and replicated."""
    await bench.tell()
    await bench.start(DOCKER_HOST=proxy.url)
    await bench.runs()
    await bench.write(GOOD)
    assert (await bench.backup(replicate=True))["status"] == "completed"


async def destroyed(bench: Bench) -> None:
    """Nothing of it is left but the copies at Cloudly."""
    await bench.write(LATER)
    bench.lose_archive()
    await bench.lose_volume()


async def test_killed_at_each_step(bench: Bench) -> None:
    """After each kill one more start: what had begun goes on without being asked, else it is asked for. All is whole, always."""
    with engine_proxy(bench.lab.host, bench.lab.folder) as proxy:
        await ready(bench, proxy)
        for step in STEPS:
            await destroyed(bench)
            has_begun = await killed(bench, proxy, step)
            await bench.start(DOCKER_HOST=proxy.url)
            if has_begun:
                await bench.runs()
                assert await bench.read() == GOOD, step
            result = await bench.restore()  # the result waits for whoever asks
            assert result["status"] == "completed", (step, result)
            await bench.runs()
            assert await bench.read() == GOOD, step


async def test_killed_at_every_step(bench: Bench) -> None:
    """One restore, killed again and again, wherever it gets to. It ends where nobody kills it any more."""
    corestore, has_begun = bench.corestore, False
    with engine_proxy(bench.lab.host, bench.lab.folder) as proxy:
        await ready(bench, proxy)
        await destroyed(bench)
        for step in STEPS:
            has_begun = await killed(bench, proxy, step, has_begun=has_begun)
        await bench.start(DOCKER_HOST=proxy.url)
        await bench.runs()
        assert await bench.read() == GOOD
        result = await bench.restore()
        assert result["status"] == "completed", result
        assert await bench.read() == GOOD
    tags = [snapshot["tags"] for snapshot in (await corestore.ask("GET", "/snapshots"))[1]["snapshots"]]
    assert (
        sum(RESTORE_TAG in tag for tag in tags) == 1
    )  # it is saved once, or what is half restored would be saved


# --- the command


async def test_the_commands(bench: Bench) -> None:
    """From a file, without Cloudly and daemon. One that is told to end leaves a service that runs, or what the next one finishes."""
    lab, corestore = bench.lab, bench.corestore
    bench.bind()
    lab.write(bench.shop, platform=bench.platform)
    await in_thread(partial(lab.deploy, **bench.settings))
    env = json.loads(await bench.shell("cat /run/secrets/secret.json"))
    await bench.write(GOOD)
    results = [
        await bench.command("backup", "--id", "b1"),
        await bench.command("restore"),
        await bench.command("backups"),
    ]
    assert [(result.code, "b1" in result.out) for result in results] == [(0, True), (2, True), (0, True)], (
        results
    )
    unasked = await bench.command("restore", "--backup", "b1")
    assert (unasked.code, "no --yes" in unasked.err) == (1, True), unasked
    assert await bench.read() == GOOD

    arguments = ("restore", lab.name("shop"), "--backup", "b1", "--yes", "--records", str(lab.records))
    for is_short in (True, False):
        await bench.write(LATER)
        await corestore.fault(kind="hang", **OVERWRITE)
        command = lab.start(*arguments, **bench.settings)
        await corestore.hanging()
        command.send_signal(signal.SIGTERM)
        if is_short:
            await trio.sleep(1)
            await corestore.release()
        assert await in_thread(partial(command.wait, timeout=30)) == 128 + signal.SIGTERM
        if is_short:
            await bench.runs()
            assert await bench.read() == GOOD
    assert STOPPED in bench.labels()
    assert not lab.running("shop")
    await corestore.restart()
    next_one = await bench.command("restore", "--backup", "b1", "--yes")
    results.append(next_one)
    assert next_one.code == 0, next_one
    assert "waiting for another restore of it to end" in next_one.out
    await bench.runs()
    assert await bench.read() == GOOD
    back = next_one.out.splitlines()[-1].partition("To take it back: coreflow ")[2]
    assert f"restore {lab.name('shop')} --backup before-" in back, next_one
    results.append(
        await in_thread(partial(lab.run, *shlex.split(back), "--yes", timeout=120, **bench.settings))
    )
    assert results[-1].code == 0, results[-1]
    assert await bench.read() == LATER
    told = (lab.folder / "daemon.log").read_text() + "".join(map(str, results))
    for secret in (corestore.token, env["AWS_SECRET_ACCESS_KEY"], env["MONGODB_URI"], GOOD, LATER):
        assert secret not in told
