"""The stack files on a real Swarm, with the image: from nothing to a running workload, in whichever order things are made."""

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from attrs import define, field
from tests.integration.images import IMAGE, SCRIPT, attempted, built, docker
from tests.integration.lab import NEWER_IMAGE, Json, Lab

from coreflow.domain.swarm.naming import CORE_CHAT, NETWORKS, PREFIX

FILES = SCRIPT.parents[1] / "deploy"
SOCKET = "/var/run/docker.sock:/var/run/docker.sock"
on_a_swarm = (pytest.mark.engine, pytest.mark.timeout(900))
_numbers = itertools.count()


def marked(test: Callable[..., None]) -> Callable[..., None]:
    """A test that needs an engine, and the image."""
    for mark in on_a_swarm:
        test = mark(test)
    return test


@define
class Stack:
    """A stack with coreflow in it, and the workloads of its cluster file."""

    lab: Lab
    files: tuple[str, ...] = ()
    environ: dict[str, str] = field(factory=dict)

    @property
    def name(self) -> str:
        """Of the stack."""
        return f"{self.lab.prefix}stack"

    @property
    def service(self) -> str:
        """The name of coreflow's own service."""
        return f"{self.name}_coreflow"

    def docker(self, *arguments: str, stdin: str | None = None) -> str:
        """Run the docker client."""
        return docker(self.lab.host, *arguments, stdin=stdin, **self.environ)

    def networks(self) -> str:
        """The command that comes before the stack."""
        return self.docker("run", "--rm", "--user", "0:0", "--volume", SOCKET, IMAGE, "networks")

    def deploy(self, *files: str, **environ: str) -> None:
        """`docker stack deploy` of files in `deploy/`."""
        self.files = tuple(option for file in files for option in ("--compose-file", str(FILES / file)))
        self.environ = {
            "IMAGE": IMAGE,
            "CLUSTER_VERSION": hashlib.sha256(self.lab.records.read_bytes()).hexdigest()[:12]
            if self.lab.records.exists()
            else "none",
            "CLUSTER_FILE": str(self.lab.records),
            "CLUSTER_FOLDER": str(self.lab.folder),
            "CLUSTER_NAME": self.lab.records.name,
            **environ,
        }
        self.docker("stack", "deploy", "--resolve-image", "never", *self.files, self.name)

    def own(self) -> Json:
        """Coreflow's own service."""
        document: Json = self.lab.client.inspect_service(self.service)
        return document

    def own_tasks(self) -> list[Json]:
        """The tasks of coreflow's own service, the oldest first."""
        tasks: list[Json] = self.lab.client.tasks(filters={"service": self.service})
        return sorted(tasks, key=lambda task: str(task["CreatedAt"]))

    def log(self) -> str:
        """What coreflow has said so far."""
        done = attempted(self.lab.host, "service", "logs", "--raw", self.service)
        return done.stdout + done.stderr

    def is_healthy(self) -> bool:
        """Whether coreflow's task runs: it does so once its health check has passed."""
        return any(
            t["Status"]["State"] == "running" and t["DesiredState"] == "running" for t in self.own_tasks()
        )

    def remove(self) -> None:
        """`docker stack rm`, and wait until it is gone."""
        self.docker("stack", "rm", self.name)
        label = f"label=com.docker.stack.namespace={self.name}"
        self.lab.wait(
            "the stack's containers end", lambda: not self.docker("ps", "--quiet", "--filter", label)
        )


@pytest.fixture
def stack(engine_host: str, tmp_path: Path) -> Iterator[Stack]:
    """A Swarm without the base networks, and the image on its manager."""
    built(engine_host)
    lab = Lab(engine_host, tmp_path, f"k{os.getpid()}x{next(_numbers)}")
    stack = Stack(lab)
    _remove_networks(lab)
    yield stack
    stack.remove()
    lab.clean()
    lab = Lab(engine_host, tmp_path, lab.prefix)
    _remove_networks(lab)
    lab.client.close()


def _remove_networks(lab: Lab) -> None:
    for network in lab.client.networks(names=list(NETWORKS)):
        if network["Name"] in NETWORKS:
            lab.wait(f"{network['Name']} is free", partial(lab._remove_network, network["Id"]))
            lab.wait(f"{network['Name']} is gone", partial(lab._lacks_network, network["Name"]))


def reachable(stack: Stack) -> bool:
    """Whether a container on the network of the platform finds coreflow by the name that proxies dial."""
    script = "import urllib.request as r; print(r.urlopen('http://coreflow:3000/healthz', timeout=5).read().decode())"
    command = ["run", "--rm", "--network", CORE_CHAT, "--entrypoint", "/opt/coreflow/bin/python", IMAGE]
    done = attempted(stack.lab.host, *command, "-c", script)
    return done.returncode == 0 and json.loads(done.stdout)["status"] == "ok"


@marked
def test_from_nothing_to_a_running_workload(stack: Stack) -> None:
    """The two commands that the docs name, on an empty Swarm; coreflow takes nothing of its own for a workload's."""
    lab = stack.lab
    lab.write(lab.service("a"))
    began = time.monotonic()
    assert stack.networks().count("made") == 2
    stack.deploy("coreflow-file.yml")
    lab.wait("the workload runs", lambda: lab.running("a"), 120)
    print(f"a workload runs {time.monotonic() - began:.1f} s after the first command")  # noqa: T201 - for `pytest -rP`
    lab.wait("coreflow is healthy", stack.is_healthy, 120)
    lab.wait("proxies find it", partial(reachable, stack))
    before = stack.own()
    assert not any(label.startswith(PREFIX) for label in before["Spec"]["Labels"])

    lab.write(lab.service("b"))  # the first one is not wanted any more
    stack.deploy("coreflow-file.yml")
    lab.wait("the workload is removed", lambda: lab.services() == [lab.name("b")], 120)
    after = stack.own()
    assert after["ID"] == before["ID"]
    lab.wait("coreflow is healthy", stack.is_healthy, 120)
    assert not any(label.startswith(PREFIX) for label in after["Spec"]["Labels"])
    assert {n["Name"] for n in lab.client.networks(names=list(NETWORKS))} == set(NETWORKS)


@marked
def test_networks_that_coreflow_made_before(stack: Stack) -> None:
    """An apply by hand made networks and workloads; the stack joins those, and changes nothing that runs."""
    lab = stack.lab
    lab.write(lab.service("a"))
    lab.deploy()
    made = {n["Id"] for n in lab.client.networks(names=list(NETWORKS))}
    before = lab.inspect("a")["Version"]
    assert stack.networks().count("exists") == 2
    stack.deploy("coreflow-folder.yml")
    lab.wait("coreflow is healthy", stack.is_healthy, 120)
    lab.wait("proxies find it", partial(reachable, stack))
    assert {n["Id"] for n in lab.client.networks(names=list(NETWORKS))} == made
    assert lab.inspect("a")["Version"] == before
    lab.write(lab.service("a"), lab.service("b"))
    lab.wait("a change of the file is followed", lambda: lab.running("b"), 60)
    assert stack.own()["Spec"]["TaskTemplate"]["ForceUpdate"] == 0


def images_of(tasks: list[Json]) -> set[str]:
    """The images that tasks are made from."""
    return {task["Spec"]["ContainerSpec"]["Image"] for task in tasks}


@marked
def test_it_is_replaced_in_the_middle_of_a_roll_out(stack: Stack) -> None:
    """Coreflow's container goes while Swarm replaces a workload's tasks: each is replaced once, and the last one ended well."""
    lab = stack.lab
    lab.write(lab.service("a", scaleFactor=4), lab.service("b"))
    for name in NETWORKS:  # somebody else's are as good, such as another stack's
        stack.docker("network", "create", "--driver", "overlay", "--attachable", name)
    assert stack.networks().count("exists") == 2
    stack.deploy("coreflow-folder.yml")
    lab.wait("both run", lambda: len(lab.running("a")) == 4 and lab.running("b"), 120)
    before = {short: lab.inspect(short)["ID"] for short in "ab"}
    lab.write(lab.service("a", NEWER_IMAGE, scaleFactor=4), lab.service("b"))
    lab.wait("a roll-out is under way", lambda: len(images_of(lab.running("a"))) == 2, 60)
    stack.docker("service", "update", "--force", "--detach", stack.service)
    lab.wait("coreflow was replaced", lambda: len(stack.own_tasks()) == 2 and stack.is_healthy(), 120)
    lab.wait("the roll-out has ended", lambda: lab.inspect("a")["UpdateStatus"]["State"] == "completed", 120)
    lab.wait("all are new", lambda: images_of(lab.running("a")) == {NEWER_IMAGE}, 60)
    assert len(lab.running("a")) == 4
    assert len(lab.tasks("a")) == 8  # every slot had one of each image
    assert {short: lab.inspect(short)["ID"] for short in "ab"} == before
    assert len(lab.tasks("b")) == 1
    last, _ = stack.own_tasks()
    assert last["Status"]["ContainerStatus"]["ExitCode"] == 0
    lab.write(lab.service("b"))
    lab.wait("the next one goes on", lambda: lab.services() == [lab.name("b")], 60)


@marked
def test_everything_is_taken_down(stack: Stack) -> None:
    """Not while coreflow runs, and not unasked; then all of it goes but data, and what somebody else made."""
    lab = stack.lab
    lab.write(
        lab.service("a", secretBundleId="bundle", volumes=[{"mountPath": "/data", "driver": "local"}]),
        lab.service("b"),
        **lab.secrets(TOKEN="canary-value"),
    )
    stack.networks()
    stack.deploy("coreflow-folder.yml")
    lab.wait("both run", lambda: lab.running("a") and lab.running("b"), 120)
    options = ("run", "--rm", "--user", "0:0", "--volume", SOCKET, IMAGE, "down")
    done = attempted(lab.host, *options, "--yes")
    assert (done.returncode, len(lab.services())) == (1, 2)
    assert f"coreflow runs as service {stack.service}" in done.stderr
    stack.remove()
    done = attempted(lab.host, *options)
    assert (done.returncode, len(lab.services())) == (1, 2)
    assert "there is nobody to ask" in done.stderr
    volume = lab.inspect("a")["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["Source"]
    done = attempted(lab.host, *options, "--format", "json", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    removed = {(entry["kind"], entry["name"]) for entry in report["removed"]}
    assert removed >= {("service", lab.name("a")), ("service", lab.name("b"))}
    assert removed >= {("network", name) for name in NETWORKS}
    assert ["secret" for kind, _ in removed if kind == "secret"] == ["secret"]
    assert [entry["name"] for entry in report["left"] if entry["kind"] == "volume"] == [volume]
    assert (lab.services(), lab.secret_names(), lab.tasks("a")) == ([], [], [])
    assert volume in stack.docker("volume", "ls", "--quiet")
    lab.wait(
        "the volume is free", lambda: attempted(lab.host, "volume", "rm", volume).returncode == 0
    )  # its container is removed a little later
    again = attempted(lab.host, *options)
    assert again.returncode == 0
    assert "Nothing to remove" in again.stdout
    assert "canary-value" not in done.stdout + done.stderr


@marked
def test_with_a_control_plane(stack: Stack) -> None:
    """The tokens come from Docker secrets, and trust in an authority of one's own from a config."""
    lab = stack.lab
    stack.networks()
    made = (("secret", "JUMPCODE"), ("secret", "CORESTORE_API_TOKEN"), ("config", "cloudly-ca"))
    try:
        for kind, name in made:
            stack.docker(kind, "create", name, "-", stdin="canary-value")
        stack.deploy("coreflow.yml", "coreflow-ca.yml", CLOUDLY_URL="https://cloudly.invalid")
        lab.wait("coreflow is healthy although Cloudly is away", stack.is_healthy, 120)
        lab.wait("it has read its settings", lambda: "waiting for Cloudly" in stack.log())
        log = stack.log()
    finally:
        stack.remove()
        for kind, name in made:
            attempted(lab.host, kind, "rm", name)
    assert "canary-value" not in log


def test_the_stack_files_agree() -> None:
    """What the three files share is the same: where the records come from is all they differ in."""
    own = {"environment", "secrets", "volumes"}
    found = {file: yaml.safe_load((FILES / file).read_text()) for file in _names()}
    assert sorted(found) == ["coreflow-file.yml", "coreflow-folder.yml", "coreflow.yml"]
    shared = [
        ({k: v for k, v in d["services"]["coreflow"].items() if k not in own}, d["networks"])
        for d in found.values()
    ]
    assert shared[0] == shared[1] == shared[2]
    assert all("labels" not in service for service, _ in shared)
    for file in found:
        assert f"--compose-file {file} coreflow" in (FILES / file).read_text()


def _names() -> list[str]:
    return [path.name for path in FILES.glob("*.yml") if path.name != "coreflow-ca.yml"]
