"""More engines beside the one that the tests are given: `scripts/engine`, as a fixture needs it."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ENGINE = Path(__file__).parents[2] / "scripts/engine"


def control(name: str, *arguments: str) -> str:
    """Run `scripts/engine` for one engine; returns its output."""
    command = [str(ENGINE), "--name", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@contextmanager
def another_engine(purpose: str, *, nodes: int = 1) -> Iterator[Mapping[str, str]]:
    """An engine of this process's own, as the variables `COREFLOW_TEST_…` that lead to it.

    Its name begins like that of the engine that was given, so that who started that one finds this one, too.
    """
    given = os.environ["COREFLOW_TEST_ENGINE_NAME"]
    name = f"{given[:14]}-{purpose}-{os.getpid()}"  # an engine's name has at most 32 characters
    try:
        said = control(name, "up", "--nodes", str(nodes))
        exports = (line.removeprefix("export ").partition("=") for line in said.splitlines())
        yield {variable: value for variable, _, value in exports}
    finally:
        control(name, "down")
