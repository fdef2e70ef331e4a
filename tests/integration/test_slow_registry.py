"""A registry that takes its time, a daemon and a real Swarm: who does not need its answer is served as ever."""

import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from tests.integration.engine_proxy import EngineProxy, engine_proxy
from tests.integration.lab import Json, Lab, free_port, open_lab
from tests.integration.node_harness import needs_node, start_coretraffic
from tests.integration.test_daemon import log_of, stopped, wait
from tests.integration.test_registry_contract import OPEN, stand_in
from tests.integration.test_routing import certificate, told, web

pytestmark = [pytest.mark.engine, needs_node]
_numbers = itertools.count()
HOST = "ok.example.com"
WAITING = 6


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"sr{os.getpid()}x{next(_numbers)}")


@pytest.fixture
def engine(lab: Lab) -> Iterator[EngineProxy]:
    """The socket that the daemon asks, which counts."""
    with engine_proxy(lab.host, lab.folder) as proxy:
        yield proxy


@pytest.fixture
def registry(engine_host: str, tmp_path: Path) -> Iterator[str]:
    """A registry that never answers for the repository `slow`."""
    with stand_in(tmp_path) as hosts:
        yield hosts[OPEN]


async def test_a_slow_registry_holds_only_its_services(
    lab: Lab,
    engine: EngineProxy,
    registry: str,
    nursery: trio.Nursery,
    record_property: Callable[[str, object], None],
) -> None:
    """Six services wait for answers that do not come: a seventh is created, routed, repaired, changed all the same."""
    ca = trustme.CA()
    certificates = {HOST: certificate(ca, HOST)}
    slow = [lab.service(f"slow{number}", f"{registry}/slow:{number}") for number in range(WAITING)]

    def write(**data: object) -> None:
        lab.write(*slow, web(lab, "ok", HOST, **data), certificates=certificates)

    def look_ups() -> int:
        return sum("/distribution/" in path for _, path in engine.requests)

    write()
    port = free_port()
    daemon = lab.start(
        "run",
        CLOUDLY_URL=lab.records.as_uri(),
        DOCKER_HOST=engine.url,
        COREFLOW_INITIAL_DELAY="0",
        COREFLOW_RELIST_SECONDS="0",
        COREFLOW_LOG_FORMAT="json",
        COREFLOW_LISTEN=f"127.0.0.1:{port}",
        COREFLOW_CORETRAFFIC_PEERS="127.0.0.0/8",
    )
    await wait(lab, "all registries' answers are awaited", lambda: look_ups() == WAITING)
    began = trio.current_time()
    await wait(lab, "the seventh is created", lambda: lab.services() == [lab.name("ok")], seconds=20)
    record_property("created after", round(trio.current_time() - began, 2))

    proxy = await start_coretraffic(nursery, f"http://127.0.0.1:{port}", tag="coretraffic")
    await proxy.connect()
    await told(proxy, HOST, 1)
    await trio.to_thread.run_sync(partial(lab.change, "ok", partial(scale, 4)))
    await wait(lab, "a change by hand is put right", lambda: replicas(lab) == 1)
    write(scaleFactor=2)
    await wait(lab, "a change of the records is followed", lambda: replicas(lab) == 2)
    await told(proxy, HOST, 2)

    assert lab.services() == [lab.name("ok")]
    assert look_ups() == WAITING  # each was asked once, and is still waited for
    held = {line["name"]: line["reason"] for line in log_of(lab, "held")}
    assert held.keys() == {lab.name(f"slow{number}") for number in range(WAITING)}
    assert all(f"waiting for {registry} since" in reason for reason in held.values())
    await stopped(daemon)
    nursery.cancel_scope.cancel()


def scale(number: int, spec: Json) -> None:
    """A change of how many tasks there are."""
    spec["Mode"]["Replicated"]["Replicas"] = number


def replicas(lab: Lab) -> int:
    """How many tasks the seventh service is to have."""
    found: int = lab.inspect("ok")["Spec"]["Mode"]["Replicated"]["Replicas"]
    return found
