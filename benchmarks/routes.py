"""The route table: what it costs, and how soon a proxy is told of a new task.

The cost is that of the pure part, for many hosts, in units of `json.dumps` of what comes of it: telling who leads where is
not to take longer than writing it down. Rounds take turns, and the median counts, as in `benchmarks.core`.

The other half needs an engine (`scripts/engine up`, `COREFLOW_TEST_DOCKER_HOST`) and Node (`scripts/node-harness`). The
daemon's own chain runs in this process, from records in memory to a client like Coretraffic on the internal server. A
service with a host is scaled up and down. The clock runs from the moment when the node saw the container run - the task's
own timestamp, of the same machine's clock, which needs no look of ours that could disturb what is measured and leaves out
nothing that a client would have to wait for - until the frame with the task's address is handed to the socket.

One series is as on one node: the engine tells when a container starts. A manager hears nothing of the containers of other
nodes, so the other series hides the engine's news; there it is the looks at regular intervals that find the task.
"""

import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio
import trustme
from attrs import define, evolve, field
from tests.integration.node_harness import _missing, start_coretraffic
from tests.unit.domain.examples import CLUSTER, live, spec

from benchmarks.push import settings_at_rest
from benchmarks.sockets import WatchedSocket
from benchmarks.swarm import OURS, PREFIX, remove, remove_networks
from benchmarks.table import Row
from coreflow.adapters import net
from coreflow.adapters.coretraffic import METHOD, CoretrafficRoutes
from coreflow.adapters.engine.client import DockerEngine, open_engine
from coreflow.adapters.engine.endpoint import Endpoint
from coreflow.adapters.internal import InternalServer
from coreflow.adapters.memory.cloudly import MemoryCloudly
from coreflow.adapters.net.peer import Socket
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app import logs
from coreflow.app.main import Ports, running
from coreflow.app.routing import POLL_SECONDS
from coreflow.domain.ids import NodeId
from coreflow.domain.records.models import CertificateRecord
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.certificates import read_certificate
from coreflow.domain.routing.routes import RUNNING, HostClaim, locate, make_table, reverse_configs
from coreflow.domain.swarm.naming import WEB_GATEWAY
from coreflow.domain.swarm.observed import Observed, ObservedTask

Json = dict[str, Any]

SERVICES, HOSTS_EACH, TASKS_EACH = 2_000, 5, 3
ROUNDS = 7
LIMIT = 1.0

TURNS = 20
LIMIT_MILLISECONDS = 2000.0
TIMEOUT = 60.0
NAME, IMAGE = f"{PREFIX}-web", "coreflow/test:web"
HOST = "bench.example.com"
WRITE = "json.dumps"


# --- what it costs


def _certificate(*hosts: str) -> CertificateRecord:
    """As a public authority would issue it: RSA keys, and an intermediate authority in the chain."""
    authority = trustme.CA(organization_name="Bench Root", key_type=trustme.KeyType.RSA)
    issuer = authority.create_child_ca(key_type=trustme.KeyType.RSA)
    issued = issuer.issue_cert(*hosts, key_type=trustme.KeyType.RSA)
    return CertificateRecord(
        domain_name=hosts[0],
        private_key=issued.private_key_pem.bytes().decode(),
        public_key=b"".join(pem.bytes() for pem in issued.cert_chain_pems).decode(),
    )


def _task(service: str, number: int) -> ObservedTask:
    high, low = divmod(number, 250)
    return ObservedTask(
        id=f"task-{number:05}-{number * 7919 % 100_003:06}",
        service_id=f"service-{service}",
        node_id=NodeId(f"node-{number % 20}"),
        state=RUNNING,
        created_at=f"2026-01-{1 + number % 28:02}T00:00:{number % 60:02}.123456789Z",
        addresses={WEB_GATEWAY: f"10.{101 + high // 250}.{high % 250}.{low + 2}", "backend": "172.16.0.1"},
    )


def run_core(rounds: int = ROUNDS) -> list[Row]:
    """Measure the cost; one row per share."""
    now = time.time()  # noqa: TID251 - the certificate is a real one
    names = [f"service-{number:04}" for number in range(SERVICES)]
    services = [live(spec(name)) for name in names]
    tasks = [_task(name, number) for number, name in enumerate(names * TASKS_EACH)]
    claims = [
        HostClaim(host=f"www{index}.{name}.example.com", service=name, port=3000 + index)
        for name in names
        for index in range(HOSTS_EACH)
    ]
    random.Random(1).shuffle(claims)
    one = read_certificate(_certificate(HOST), HOST, now)
    certificates: dict[str, Certificate] = {
        claim.host: evolve(
            one,
            names=(claim.host,),
            chain=f"{one.chain}# {claim.host}\n",
            key=f"{one.key}# {claim.host}\n",
        )
        for claim in claims
    }

    located = locate(CLUSTER, services, tasks)
    table = make_table(claims, located, certificates, now)
    configs = reverse_configs(table)
    written = len(json.dumps(configs))
    assert len(configs) == SERVICES * HOSTS_EACH, table.missing[:1]
    assert all(len(route.destinations) == TASKS_EACH for route in table.routes)
    gc.collect()
    gc.freeze()  # what lies about here is not a case's to look through

    def whole() -> None:
        found = locate(CLUSTER, services, tasks)
        assert len(reverse_configs(make_table(claims, found, certificates, now, table))) == len(claims)

    cases: dict[str, tuple[Callable[[], object], str]] = {
        WRITE: (lambda: json.dumps(configs), f"{written / 1e6:.1f} MB, {len(configs)} hosts: the reference"),
        "records and tasks to wire": (whole, f"{len(tasks)} tasks; all of it"),
        "  locate": (lambda: locate(CLUSTER, services, tasks), "tasks by service; this alone at every look"),
        "  make_table": (
            lambda: make_table(claims, located, certificates, now, table),
            "hosts with tasks and certificates, and the table before",
        ),
        "  reverse_configs": (lambda: reverse_configs(table), "as it is sent"),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (case, _) in cases.items():
            times[name].append(_timed(case))
    unit = statistics.median(times[WRITE])
    return [
        Row(
            case=name,
            milliseconds=statistics.median(taken) * 1000,
            ratio=statistics.median(taken) / unit,
            limit=None if name == WRITE or name.startswith(" ") else LIMIT,
            note=cases[name][1],
        )
        for name, taken in times.items()
    ]


def _timed(job: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


# --- how soon a proxy is told. All moments are those of the wall clock: the engine's are


def _now() -> float:
    return time.time()  # noqa: TID251 - to be compared with the engine's


@define
class _Watch:
    """The times at which addresses were first listed as running and first sent, and the addresses of the newest frame."""

    listed: dict[str, float] = field(factory=dict)
    sent: dict[str, float] = field(factory=dict)
    addresses: frozenset[str] = frozenset()
    looks: list[float] = field(factory=list)
    """Seconds that looks at the tasks took."""
    _news: trio.Event = field(factory=trio.Event)

    def see(self, tasks: tuple[ObservedTask, ...]) -> None:
        """The engine has listed these."""
        moment = _now()
        for task in tasks:
            if task.state == RUNNING and WEB_GATEWAY in task.addresses:
                self.listed.setdefault(task.addresses[WEB_GATEWAY], moment)

    def frame(self, text: str) -> None:
        """This is about to be handed to a socket."""
        moment, document = _now(), json.loads(text)
        if document.get("method") != METHOD or "reverseConfigs" not in (document.get("request") or {}):
            return
        configs = document["request"]["reverseConfigs"]
        found = [address for config in configs for address in config["destinationIps"]]
        for address in found:
            self.sent.setdefault(address, moment)
        self.addresses = frozenset(found)
        news, self._news = self._news, trio.Event()
        news.set()

    async def told(self, count: int) -> frozenset[str]:
        """Wait until the newest frame has so many addresses."""
        with trio.fail_after(TIMEOUT):
            while len(self.addresses) != count:
                await self._news.wait()
        return self.addresses

    def forget(self) -> None:
        """Addresses are used again."""
        self.listed.clear()
        self.sent.clear()


class _Swarm(SwarmPort):
    """Tells when tasks were listed."""

    watch: _Watch

    async def running_tasks(self) -> tuple[ObservedTask, ...]:
        began = time.perf_counter()
        tasks = await super().running_tasks()
        self.watch.looks.append(time.perf_counter() - began)
        self.watch.see(tasks)
        return tasks

    async def observe(self) -> Observed:
        observed = await super().observe()
        self.watch.see(observed.tasks)
        return observed


class _Engine(DockerEngine):
    """Can keep its news to itself."""

    is_silent: bool

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Json]]:
        send, silence = trio.open_memory_channel[Json](0)
        async with super().events() as events, send, silence:
            yield silence if self.is_silent else events


class _Server(InternalServer):
    """The daemon's own, with a watch at every connection."""

    watch: _Watch

    async def _serve(self, socket: Socket) -> None:
        await super()._serve(WatchedSocket(socket, sends=self.watch.frame))  # type: ignore[arg-type]  # all that it needs


async def _anybody(_: str) -> Callable[[str], bool]:
    return lambda _: True


def _document(certificate: CertificateRecord, replicas: int) -> Json:
    return {
        "configData": {"id": PREFIX, "data": {"name": "bench"}},
        "services": [
            {
                "id": f"id-{PREFIX}",
                "data": {
                    "name": NAME,
                    "registryTarget": {"imageUrl": IMAGE},
                    "scaleFactor": replicas,
                    "ports": {"web": 8080},
                    "domains": [{"name": HOST}],
                },
            }
        ],
        "certificates": {
            HOST: {
                "id": HOST,
                "domainName": HOST,
                "created": 1,
                "validUntil": 2,
                "privateKey": certificate.private_key,
                "publicKey": certificate.public_key,
                "csr": "",
            }
        },
    }


@asynccontextmanager
async def _daemon(
    host: str, cloudly: MemoryCloudly, watch: _Watch, *, is_silent: bool
) -> AsyncIterator[_Engine]:
    """Return what `coreflow run` is made of, and a connected client like Coretraffic."""
    engine = _Engine(Endpoint(host))
    swarm = _Swarm(engine)
    server = _Server(_anybody, on_tags=lambda name, peer: coretraffic.tags_changed(name, peer))
    coretraffic = CoretrafficRoutes(server.tagged)
    engine.is_silent, swarm.watch, server.watch = is_silent, watch, watch
    ports = Ports(cloudly=cloudly, docker=swarm, coretraffic=coretraffic)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(server.run, "127.0.0.1", 0)
        nursery.start_soon(coretraffic.run)
        async with running(settings_at_rest("file:///nonexistent"), ports):
            proxy = await start_coretraffic(nursery, f"http://127.0.0.1:{port}")
            await proxy.connect()
            yield engine
        nursery.cancel_scope.cancel()
    await engine.close()


async def _measure(host: str, turns: int, *, is_silent: bool) -> tuple[list[dict[str, float]], list[float]]:
    """For each turn when what was; and how long looks took."""
    watch, certificate = _Watch(), _certificate(HOST)
    cloudly = MemoryCloudly(_document(certificate, 1))
    times: list[dict[str, float]] = []
    async with _daemon(host, cloudly, watch, is_silent=is_silent) as engine:
        for _ in range(turns):
            before = await watch.told(1)
            await trio.sleep(1 + random.random())
            watch.forget()
            cloudly.set(_document(certificate, 2))
            (address,) = await watch.told(2) - before
            running, known = _moments(await engine.list_running_tasks(), address)
            order = [running, known, watch.listed[address], watch.sent[address]]
            assert order == sorted(order), order
            times.append(dict(zip(("running", "known", "listed", "sent"), order, strict=True)))
            cloudly.set(_document(certificate, 1))
    return times, watch.looks


def _moments(tasks: Any, address: str) -> tuple[float, float]:
    """Return when the task with this address began to run, as its node saw it, and when the manager wrote that down."""
    for task in tasks:
        for attachment in task.get("NetworksAttachments") or ():
            if address in {each.partition("/")[0] for each in attachment.get("Addresses") or ()}:
                assert task["Status"]["State"] == RUNNING, task["Status"]
                running, known = (
                    datetime.fromisoformat(text) for text in (task["Status"]["Timestamp"], task["UpdatedAt"])
                )
                return running.timestamp(), known.timestamp()
    raise AssertionError(f"no task has the address {address} that the proxy was told")


async def _ended(host: str) -> None:
    """Wait until the containers are gone: a network that is removed before them stays, and no service can join it."""
    filters = json.dumps({"label": [f"com.docker.swarm.service.name={NAME}"]})
    async with open_engine(host) as engine:
        with trio.fail_after(TIMEOUT):
            while await engine._read("/containers/json", filters=filters):  # noqa: ASYNC110, SLF001 - nobody else asks
                await trio.sleep(0.2)


def run_swarm(turns: int = TURNS) -> list[Row]:
    """Measure how soon a proxy is told; one row per share. Removes what it made, also when it fails."""
    host = os.environ.get("COREFLOW_TEST_DOCKER_HOST")
    if not host:
        sys.exit("benchmarks: COREFLOW_TEST_DOCKER_HOST is not set (scripts/engine up)")
    if missing := _missing():
        sys.exit(f"benchmarks: {missing}")
    series = {}
    logs.configure("json", "info")
    with Path(os.devnull).open("w") as nowhere:  # written as by the daemon, but not read
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        try:
            for where, silent in (("with news", False), ("by looks alone", True)):
                series[where] = net.run(partial(_measure, host, turns, is_silent=silent))
        finally:
            structlog.reset_defaults()
            trio.run(remove, host, OURS)
            trio.run(_ended, host)
            trio.run(remove_networks, host)
    looks = [seconds for _, taken in series.values() for seconds in taken]
    rows = [
        _row("between looks", POLL_SECONDS, "at least: the reference"),
        _row("a look", statistics.median(looks), "GET /tasks for those that shall run, and reading it"),
    ]
    for where, (times, _) in series.items():
        rows += _rows(where, times)
    return rows


def _rows(where: str, times: list[dict[str, float]]) -> list[Row]:
    def share(start: str, end: str) -> list[float]:
        return [moments[end] - moments[start] for moments in times]

    def row(case: str, start: str, end: str, note: str) -> Row:
        return _row(f"  {case}", statistics.median(share(start, end)), note)

    whole = share("running", "sent")
    what = f"median of {len(times)} new tasks"
    return [
        _row(f"{where}: running to frame", statistics.median(whole), what, LIMIT_MILLISECONDS),
        _row("  worst", max(whole), "the same"),
        row("known", "running", "known", "the node has told the manager"),
        row("listed", "known", "listed", "the engine has told us"),
        row("sent", "listed", "sent", "located, put into a table, translated, handed over"),
    ]


def _row(case: str, seconds: float, note: str, limit: float | None = None) -> Row:
    return Row(
        case=case,
        milliseconds=seconds * 1000,
        ratio=seconds / POLL_SECONDS,
        limit_milliseconds=limit,
        note=note,
    )
