"""From a push of Cloudly's to the first write to Docker, on a real Swarm.

Needs an engine (`scripts/engine up`, `COREFLOW_TEST_DOCKER_HOST`) and Node (`scripts/node-harness`). The daemon's own chain
runs in this process, from the connection with a stand-in for Cloudly to the real engine. Each round changes one variable
of one of many services without replicas, and starts from rest. The clock runs from the moment that the connection hands
over the message until the write is handed to the engine's client; a round in which anything else is written than this
one service is a failure, and no figure.

The reference is what anybody needs to know the services of a Swarm: `GET /services`, with the standard library alone.
"""

import http.client
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio
from attrs import define, field
from tests.integration.node_harness import Cloudly, _missing, start_cloudly

from benchmarks.sockets import WatchedSocket
from benchmarks.swarm import IMAGE, OURS, PREFIX, cluster_document, remove, remove_networks
from benchmarks.table import Row
from coreflow.adapters import net
from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.adapters.engine.client import DockerEngine
from coreflow.adapters.engine.endpoint import Endpoint
from coreflow.adapters.net.peer import Socket
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app import logs
from coreflow.app.loop import ActionLog
from coreflow.app.main import Coreflow, Ports, running
from coreflow.app.settings import Settings, load_settings
from coreflow.domain.deploy.steps import Plan
from coreflow.domain.records.models import Records
from coreflow.domain.swarm.observed import Observed

SERVICES = 100
ROUNDS = 20
LIMIT_MILLISECONDS = 50.0
QUIET_SECONDS = 0.5
"""Nothing has happened for so long: the daemon is at rest. Longer than it waits for companions of an event."""
TIMEOUT = 60.0
PUSH = "pushClusterConfig"
Json = dict[str, Any]


@define
class _Watch:
    """The times at which things first happened since the last push, and everything that was written since."""

    times: dict[str, float] = field(factory=dict)
    writes: list[str] = field(factory=list)
    latest: float = field(factory=time.perf_counter)
    written: trio.Event = field(factory=trio.Event)
    under_way: int = 0
    """Calls of a port, and writes."""

    def mark(self, what: str) -> None:
        """This has just happened."""
        self.latest = time.perf_counter()
        self.times.setdefault(what, self.latest)

    @contextmanager
    def call(self, ends: str | None = None) -> Iterator[None]:
        """Something is under way for the time of the block; its end is worth a mark."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            self.latest = time.perf_counter()
        if ends is not None:
            self.mark(ends)

    def receive(self, text: str) -> None:
        """A message has come in."""
        moment = time.perf_counter()
        if PUSH in text:
            self.push(moment)

    def push(self, moment: float) -> None:
        """A push has come in."""
        assert not self.under_way, "the daemon was not at rest"
        self.times, self.writes, self.written = {"push": moment}, [], trio.Event()
        self.latest = moment

    def write(self, call: str) -> None:
        """A write is about to begin."""
        self.mark("written")
        self.writes.append(call)
        self.written.set()

    async def rest(self) -> None:
        """Until nothing has happened for a while."""
        with trio.fail_after(TIMEOUT):
            while self.under_way or time.perf_counter() - self.latest < QUIET_SECONDS:  # noqa: ASYNC110 - a pause is no event
                await trio.sleep(0.02)


class _Cloudly(NetworkCloudly):
    """Tells when the records are asked for, and when they are there."""

    watch: _Watch

    async def records(self) -> Records:
        self.watch.mark("begun")
        with self.watch.call("records"):
            return await super().records()


class _Swarm(SwarmPort):
    """Tells when the Swarm was observed."""

    watch: _Watch

    async def observe(self) -> Observed:
        with self.watch.call("observed"):
            return await super().observe()


class _Engine(DockerEngine):
    """Tells when something is written, whatever it is."""

    watch: _Watch

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        if method == "GET":
            return await super()._call(method, path, **options)
        self.watch.write(f"{method} {path}")
        with self.watch.call():
            return await super()._call(method, path, **options)


class _Listener(ActionLog):
    """The daemon's own, which also tells when a pass was planned."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def planned(self, plan: Plan) -> None:
        self._watch.mark("planned")
        super().planned(plan)


@asynccontextmanager
async def _daemon(host: str, cloudly: Cloudly, watch: _Watch) -> AsyncIterator[tuple[Coreflow, _Engine]]:
    """Return what `coreflow run` is made of, with a watch at every door."""
    settings = settings_at_rest(cloudly.url)

    @asynccontextmanager
    async def dial() -> AsyncIterator[Socket]:
        async with net.connect_websocket(cloudly.url) as connection:
            yield WatchedSocket(connection, received=watch.receive)

    port = _Cloudly(dial, settings.jumpcode or "", wall_clock=time.time)  # noqa: TID251 - as the daemon does
    engine = _Engine(Endpoint(host))
    swarm = _Swarm(engine)
    port.watch = engine.watch = swarm.watch = watch
    ports = Ports(cloudly=port, docker=swarm)
    with logs.tapped(partial(_report, port)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.run)
            async with running(settings, ports, _Listener(watch)) as coreflow:
                yield coreflow, engine
            nursery.cancel_scope.cancel()
    await engine.close()


def _report(port: NetworkCloudly, level: str, event: Mapping[str, Any]) -> None:
    port.logs.offer(int(time.time() * 1000), level, event)  # noqa: TID251 - as the daemon does


def settings_at_rest(url: str) -> Settings:
    """The daemon's defaults, without base services, and with nothing that happens by the clock."""
    nowhere = Path("/nonexistent")
    environ = {
        "CLOUDLY_URL": url,
        "JUMPCODE": "token",
        "COREFLOW_BASE_SERVICES": "",
        "COREFLOW_INITIAL_DELAY": "0",
        "COREFLOW_RELIST_SECONDS": "0",
        "COREFLOW_SCHEDULE": "0 0 0 29 2 *",
    }
    return load_settings(environ, directory=nowhere, secrets=nowhere)


def _document() -> Json:
    """Services as they are in practice, but for their replicas: with an image of a registry, variables, and a secret."""
    registry = os.environ.get("COREFLOW_TEST_REGISTRY")
    names = [f"{PREFIX}-{number}" for number in range(SERVICES)]
    values = {name: f"secret of {name}" for name in names}
    document = cluster_document(values, f"{registry}/test:1" if registry else IMAGE)
    for service in document["services"]:
        service["data"]["environment"] = {
            "TURN": "before",
            "NODE_ENV": "production",
            **{f"VARIABLE_{n}": f"http://{service['data']['name']}.internal:{3000 + n}" for n in range(6)},
        }
    return document


async def _know(cloudly: Cloudly, document: Json) -> None:
    await cloudly.know(
        cluster=document["configData"],
        services=document["services"],
        bundles=document["secretBundles"],
        groups=document["secretGroups"],
    )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to an engine's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _reference(connection: http.client.HTTPConnection) -> float:
    """Seconds for `GET /services`."""
    started = time.perf_counter()
    connection.request("GET", "/services")
    services = json.loads(connection.getresponse().read())
    taken = time.perf_counter() - started
    assert len(services) >= SERVICES
    return taken


async def _round(
    cloudly: Cloudly, engine: _Engine, watch: _Watch, document: Json, turn: int
) -> dict[str, float]:
    """Change one service, push, and make sure that this one was written, and nothing else. Returns when what was."""
    service = document["services"][turn * 37 % SERVICES]["data"]
    service["environment"]["TURN"] = f"turn {turn}"
    await _know(cloudly, document)
    await watch.rest()
    body = {"configData": document["configData"], "services": document["services"]}
    (answer,) = await cloudly.push(PUSH, body)
    assert "error" not in answer, answer
    with trio.fail_after(TIMEOUT):
        await watch.written.wait()
    times = dict(watch.times)
    await watch.rest()
    found = {s["Spec"]["Name"]: s for s in await engine.list_services()}[service["name"]]
    wanted = [f"POST /services/{found['ID']}/update"]
    if watch.writes != wanted:
        raise AssertionError(f"round {turn}: wanted {wanted}, and there was {watch.writes}")
    if f"TURN=turn {turn}" not in found["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]:
        raise AssertionError(f"round {turn}: the service was not given the new variable")
    order = [times[what] for what in ("push", "begun", "records", "planned", "written")]
    assert order == sorted(order), times
    assert times["begun"] <= times["observed"] <= times["planned"], times
    return times


async def _measure(host: str, rounds: int) -> tuple[list[dict[str, float]], list[float]]:
    watch, document = _Watch(), _document()
    connection = _UnixConnection(host.removeprefix("unix://"))
    times: list[dict[str, float]] = []
    reference: list[float] = []
    async with trio.open_nursery() as nursery:
        cloudly = await start_cloudly(nursery)
        await _know(cloudly, document)
        async with _daemon(host, cloudly, watch) as (coreflow, engine):
            with trio.fail_after(TIMEOUT):
                while coreflow.last is None or not coreflow.last.is_stable:
                    await coreflow.reconciled()
            for turn in range(rounds):
                await watch.rest()
                times.append(await _round(cloudly, engine, watch, document, turn))
                reference.append(_reference(connection))
        nursery.cancel_scope.cancel()
    connection.close()
    return times, reference


def run(rounds: int = ROUNDS) -> list[Row]:
    """Measure; one row per share. Removes what it made, also when it fails."""
    host = os.environ.get("COREFLOW_TEST_DOCKER_HOST")
    if not host:
        sys.exit("benchmarks: COREFLOW_TEST_DOCKER_HOST is not set (scripts/engine up)")
    if missing := _missing():
        sys.exit(f"benchmarks: {missing}")
    logs.configure("json", "info")
    with Path(os.devnull).open("w") as nowhere:  # written as by the daemon, but not read
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        try:
            times, reference = net.run(_measure, host, rounds)
        finally:
            structlog.reset_defaults()
            trio.run(remove, host, OURS)
            trio.run(remove_networks, host)
    return _rows(times, reference)


def _rows(times: list[dict[str, float]], reference: list[float]) -> list[Row]:
    unit = statistics.median(reference)

    def row(case: str, seconds: float, note: str, limit: float | None = None) -> Row:
        return Row(
            case=case,
            milliseconds=seconds * 1000,
            ratio=seconds / unit,
            limit_milliseconds=limit,
            note=note,
        )

    def share(start: str, end: str) -> float:
        return statistics.median(moments[end] - moments[start] for moments in times)

    for moments in times:
        moments["known"] = max(moments["records"], moments["observed"])
    whole = [moments["written"] - moments["push"] for moments in times]
    return [
        row("GET /services", unit, f"{SERVICES} services, with the standard library: the reference"),
        row(
            "push to first write",
            statistics.median(whole),
            f"median of {len(whole)} pushes, each from rest",
            LIMIT_MILLISECONDS,
        ),
        row("worst", max(whole), "the same"),
        row("  pass begun", share("push", "begun"), "the push is parsed, and has woken the loop"),
        row("  records fetched", share("begun", "records"), "six questions to Cloudly at once"),
        row("  Swarm observed", share("begun", "observed"), "five lists at once, meanwhile"),
        row("  planned", share("known", "planned"), "rendered, and compared, once both are there"),
        row("  write begun", share("planned", "written"), "the plan is logged, the spec translated"),
    ]
