"""What is in the image. How large it is, and how soon it starts and ends, is measured by `scripts/image check`."""

import json
import re

import pytest
from tests.integration.images import IMAGE, attempted, built, docker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def test_it_holds_what_it_needs_to_run(engine_host: str) -> None:
    """No compiler, no pip, no tools of tests; it is nobody's in particular, and says what it is."""
    built(engine_host)
    (about,) = json.loads(docker(engine_host, "image", "inspect", IMAGE))
    config = about["Config"]
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert (config["Entrypoint"], config["Cmd"]) == (["coreflow"], ["run"])
    assert config["Healthcheck"]["Test"] == ["CMD", "coreflow", "health"]
    labels = {label.rpartition(".")[2] for label in config["Labels"]}
    assert labels == {"title", "description", "licenses", "version", "revision"}
    script = (
        "import importlib.util, json, os, shutil\n"
        "tools = [t for t in ('cc', 'gcc', 'g++', 'make', 'pip') if shutil.which(t)]\n"
        "modules = [m for m in ('pip', 'pytest', 'mypy', 'hatchling') if importlib.util.find_spec(m)]\n"
        "print(json.dumps([os.getuid(), os.getcwd(), tools, modules]))"
    )
    found = docker(
        engine_host,
        "run",
        "--rm",
        "--read-only",
        "--entrypoint",
        "/opt/coreflow/bin/python",
        IMAGE,
        "-c",
        script,
    )
    assert json.loads(found) == [65532, "/etc/coreflow", [], []]
    said = docker(engine_host, "run", "--rm", "--read-only", IMAGE, "version")
    assert re.match(r"coreflow \d+\.\d+", said)


def test_a_container_without_a_daemon_is_not_well(engine_host: str) -> None:
    """The health check says so in one line."""
    built(engine_host)
    done = attempted(engine_host, "run", "--rm", "--read-only", IMAGE, "health")
    assert done.returncode == 1
    assert "no healthy daemon at 127.0.0.1:3001: Connection refused" in done.stderr
