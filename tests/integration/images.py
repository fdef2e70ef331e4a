"""The image of coreflow on a test engine: `scripts/image`, as tests need it."""

import os
import subprocess
from pathlib import Path

IMAGE = "coreflow/coreflow:ci"
SCRIPT = Path(__file__).parents[2] / "scripts/image"


def built(host: str, *command: str) -> str:
    """Run `scripts/image` on an engine; returns what it printed. What is there already takes no time."""
    environment = {**os.environ, "DOCKER_HOST": host}
    done = subprocess.run(
        [str(SCRIPT), *(command or ("build",))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def docker(host: str, *arguments: str, stdin: str | None = None, **environ: str) -> str:
    """Run the docker client; returns what it printed. It must succeed."""
    done = attempted(host, *arguments, stdin=stdin, **environ)
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


def attempted(
    host: str, *arguments: str, stdin: str | None = None, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Run the docker client, and see how that ends."""
    return subprocess.run(
        ["docker", "--host", host, *arguments],
        input=stdin,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
