"""Where the real engine is; see `scripts/engine`."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from tests.integration.engine_bench import Bench, open_bench
from tests.integration.engines import another_engine
from tests.integration.lab import Lab
from tests.integration.node_harness import Cloudly, start_cloudly, tell

from coreflow.adapters.net import run


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is marked `guest` under trio as a guest of asyncio: of several runners, the first one wins."""
    for item in items:
        if item.get_closest_marker("guest") and item.get_closest_marker("trio"):
            item.add_marker(pytest.mark.trio(run=run), append=False)


@pytest.fixture(scope="session")
def engine_host() -> Iterator[str]:
    """The real engine, as `DOCKER_HOST` names it. Skips where there is none, unless one is required.

    Where tests run in several processes (`pytest -n`), the first has the engine that was given, and every other one
    starts its own: what tests see of an engine is theirs alone.
    """
    host = os.environ.get("COREFLOW_TEST_DOCKER_HOST")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    if not host:
        reason = "no engine: COREFLOW_TEST_DOCKER_HOST is not set (scripts/engine up)"
        if os.environ.get("COREFLOW_REQUIRE_ENGINE"):
            pytest.fail(reason)
        pytest.skip(reason)
    if worker == "gw0":
        yield host
        return
    with another_engine(worker) as variables, pytest.MonkeyPatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        yield variables["COREFLOW_TEST_DOCKER_HOST"]


@pytest.fixture(scope="session")
def engine_state(engine_host: str) -> Path:
    """The folder with the engine's sockets and image archives."""
    return Path(os.environ["COREFLOW_TEST_STATE"])


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.engine)])
def engine_place(request: pytest.FixtureRequest) -> tuple[str | None, Path | None]:
    """Where the engine of a contract test is: nowhere (in memory), or a host and a folder."""
    if request.param == "memory":
        return None, None
    return request.getfixturevalue("engine_host"), request.getfixturevalue("engine_state")


@pytest.fixture
async def bench(engine_place: tuple[str | None, Path | None]) -> AsyncIterator[Bench]:
    """An engine to measure, in memory and for real."""
    async with open_bench(*engine_place) as bench:
        yield bench


@pytest.fixture
async def cloudly(nursery: trio.Nursery, lab: Lab) -> AsyncIterator[Cloudly]:
    """A Cloudly that knows the cluster of the lab."""
    cloudly = await start_cloudly(nursery)
    await tell(cloudly, lab)
    yield cloudly
    nursery.cancel_scope.cancel()
