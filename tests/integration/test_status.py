"""What a person is told of a daemon on a real Swarm: failures of many kinds, each by its word, cause and next step."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from tests.integration.engine_proxy import EngineProxy, engine_proxy
from tests.integration.lab import Json, Lab, free_port, open_lab

from coreflow.domain.swarm.convergence import SETTLE_SECONDS

pytestmark = pytest.mark.engine
DOWN = "127.0.0.1:9"
"""A registry where nobody listens."""


@define
class Told:
    """A daemon, and what `coreflow status` says of it."""

    lab: Lab
    port: int = field(factory=free_port)

    def __attrs_post_init__(self) -> None:
        """What daemon and command have in common."""
        self.lab.environ |= {
            "CLOUDLY_URL": self.lab.records.as_uri(),
            "COREFLOW_ADMIN_LISTEN": f"127.0.0.1:{self.port}",
            "COREFLOW_INITIAL_DELAY": "0",
            "COREFLOW_RELIST_SECONDS": "5",
        }

    def start(self, **extra: str) -> "subprocess.Popen[str]":
        """Start the daemon, and wait until it is ready."""
        daemon = self.lab.start("run", **extra)
        self.lab.wait("ready", lambda: self.lab.run("health").code == 0)
        return daemon

    def status(self, *arguments: str) -> Json:
        """The document, from the daemon."""
        done = self.lab.run("status", "--format", "json", *arguments)
        assert done.out, str(done)
        assert done.code == (0 if done.json["verdict"] in {"as desired", "under way"} else 1)
        return done.json

    def problem(self, subject: str) -> Json:
        """What is wrong with somebody, if anything."""
        return next((p for p in self.status()["problems"] if subject in p["subjects"]), {})

    def wait_for(self, subject: str, kind: str, cause: str, step: str) -> Json:
        """Until this is said."""

        def is_said() -> bool:
            problem = self.problem(subject)
            return problem.get("kind") == kind and cause in problem["cause"] and step in problem["next_step"]

        try:
            self.lab.wait(f"{subject} is {kind}", is_said)
        except AssertionError:
            raise AssertionError(f"{subject}: {kind}: {cause}: {step}\n{self.status()['problems']}") from None
        return self.problem(subject)


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"st{os.getpid()}")


@pytest.fixture
def proxy(lab: Lab) -> Iterator[EngineProxy]:
    """The socket that the daemon asks."""
    with engine_proxy(lab.host, lab.folder) as proxy:
        yield proxy


CATALOGUE: tuple[tuple[str, str, dict[str, Any], str, str, str], ...] = (
    ("exits1", "coreflow/test:exits", {}, "crash-looping", "non-zero exit (1)", "docker service logs"),
    ("exits0", "coreflow/test:ends", {}, "crash-looping", "exit code 0", "docker service logs"),
    (
        "ill",
        "coreflow/test:1",
        {"healthCheck": {"command": ["CMD", "false"], "intervalSeconds": 1, "retries": 1}},
        "crash-looping",
        "health check fail",
        "healthCheck",
    ),
    (
        "large",
        "coreflow/test:1",
        {"resources": {"memorySizeReservationMB": 900_000_000, "memorySizeLimitMB": 900_000_000}},
        "unfinished",
        "no suitable node (insufficient resources on 1 node)",
        "`resources`",
    ),
    (
        "plugin",
        "coreflow/test:1",
        {"volumes": [{"mountPath": "/data", "driver": "nobody"}]},
        "unfinished",
        "volume plugin missing",
        "docker plugin ls",
    ),
    ("gone", "{registry}/nobody:1", {}, "rejected", "not found", "mend the record"),
    ("away", f"{DOWN}/app:1", {}, "held", "refused", "tried again by itself"),
    (
        "secret",
        "coreflow/test:1",
        {"secretBundleId": "nobody"},
        "rejected",
        "secret bundle",
        "mend the record",
    ),
)


def test_failures_of_services(lab: Lab) -> None:
    """One service for each; one that runs beside them is as desired all along."""
    registry = os.environ.get("COREFLOW_TEST_REGISTRY", "127.0.0.1:5000")
    told = Told(lab)
    lab.write(
        lab.service("fine"),
        *(lab.service(name, image.format(registry=registry), **data) for name, image, data, *_ in CATALOGUE),
    )
    told.start()
    for name, _, _, kind, cause, step in CATALOGUE:
        problem = told.wait_for(lab.name(name), kind, cause, step)
        found = told.status(lab.name(name))
        assert [service["state"] for service in found["services"]] == [kind]
        assert problem["since"] <= found["time"]
    lab.wait(
        "one runs", lambda: told.status(lab.name("fine"))["verdict"] == "as desired", SETTLE_SECONDS + 20
    )
    text = lab.run("status")
    assert text.code == 1
    assert text.out.splitlines()[0].startswith(f"{lab.prefix} · 9 services · degraded · checked ")
    assert f"{len(CATALOGUE)} problems" in text.out
    explained = lab.run("explain", lab.name("exits1"))
    assert explained.code == 1
    assert "exits: task: non-zero exit (1)" in explained.out
    assert "record → spec → live" in explained.out
    assert lab.run("explain", "nobody").err.startswith("error: there is no service nobody")


def test_failures_of_peers_and_records(lab: Lab, proxy: EngineProxy) -> None:
    """The file is broken, the engine away, a removal refused; each ends when its cause does."""
    told = Told(lab)
    services = [lab.service(name, "coreflow/test:1") for name in "abcdef"]
    lab.write(*services)
    told.start(DOCKER_HOST=proxy.url)
    lab.wait("all run", lambda: told.status()["verdict"] == "as desired")
    good = lab.records.read_text()
    lab.records.write_text("{")
    told.wait_for("records", "rejected", str(lab.records.name), "coreflow check")
    assert told.status()["counts"] == {"as desired": 6}
    lab.records.write_text(good)
    lab.wait("mended", lambda: told.status()["verdict"] == "as desired")
    lab.write(services[0])
    problem = told.wait_for("removal", "refused", "removing 5 of 6 services", "--confirm-removal")
    assert lab.name("f") in problem["cause"]
    lab.write(*services)
    lab.wait("meant otherwise", lambda: told.status()["verdict"] == "as desired")
    Path(proxy.url.removeprefix("unix://")).rename(lab.folder / "away.sock")
    proxy.hang_up()
    lab.wait("noticed", lambda: told.status()["verdict"] == "unknown", seconds=10)
    told.wait_for("engine", "away", "the engine does not answer", "systemctl status docker")
    assert told.status()["counts"] == {"unknown": 6}
    (lab.folder / "away.sock").rename(proxy.url.removeprefix("unix://"))
    lab.wait("back", lambda: told.status()["verdict"] == "as desired")


def test_a_command_looks_by_itself_where_no_daemon_runs(lab: Lab) -> None:
    """And says so: before anything is deployed, and after."""
    told = Told(lab)
    lab.write(lab.service("a", "coreflow/test:1"))
    before = lab.run("status")
    assert before.code == 1
    assert f"by this command (no daemon answers at 127.0.0.1:{told.port}: Connection refused)" in before.out
    assert told.problem(lab.name("a"))["kind"] == "missing"
    lab.deploy()
    after = lab.run("status")
    assert (after.code, "problem" in after.out) == (0, False), str(after)
    explained = lab.run("explain", lab.name("a"))
    assert explained.code == 0
    assert "nothing differs: nothing is written" in explained.out
