"""Where the real engine is; see `scripts/engine`."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engine_host() -> str:
    """The real engine, as `DOCKER_HOST` names it. Skips where there is none, unless one is required."""
    host = os.environ.get("COREFLOW_TEST_DOCKER_HOST")
    if host:
        return host
    reason = "no engine: COREFLOW_TEST_DOCKER_HOST is not set (scripts/engine up)"
    if os.environ.get("COREFLOW_REQUIRE_ENGINE"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine_state(engine_host: str) -> Path:
    """The folder with the engine's sockets and image archives."""
    return Path(os.environ["COREFLOW_TEST_STATE"])
