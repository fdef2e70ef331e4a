"""A cluster file, the `coreflow` command and a real Swarm, for tests that look at the resulting world."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
from attrs import define, field

Json = dict[str, Any]
LOCAL_IMAGE = "coreflow/test:1"
NEWER_IMAGE = "coreflow/test:2"
EXITING_IMAGE = "coreflow/test:exits"
COMMAND = ("-m", "coreflow")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, whichever tests run beside this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@define
class Result:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """The document on standard output."""
        document: Json = json.loads(self.out)
        return document

    def __str__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


@define
class Lab:
    """One cluster of our own on a shared engine. Names of services carry a prefix, so that tests do not meet."""

    host: str
    folder: Path
    prefix: str
    client: Any = field(init=False)
    """The SDK's low-level client; it has no useful types."""
    environ: dict[str, str] = field(factory=dict)
    _processes: list[subprocess.Popen[str]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.client = docker.APIClient(base_url=self.host, timeout=60)

    # the cluster file

    @property
    def records(self) -> Path:
        """The cluster file."""
        return self.folder / "cluster.json"

    def name(self, short: str) -> str:
        """The full name of a service."""
        return f"{self.prefix}-{short}"

    def write(self, *services: Json, **others: object) -> Json:
        """Write a cluster file with these services; `secretGroups` and so on as keyword arguments."""
        document: Json = {
            "configData": {"id": self.prefix, "data": {"name": self.prefix}},
            "services": [*services],
            **others,
        }
        replacement = self.records.with_suffix(".new")
        replacement.write_text(json.dumps(document))
        replacement.rename(self.records)
        return document

    def service(self, short: str, image: str = LOCAL_IMAGE, **data: object) -> Json:
        """A service record with an image by full reference."""
        registry, _, rest = image.partition("/")
        if "." not in registry and ":" not in registry:
            target: Json = {"imageUrl": image}
        else:
            target = {
                "registryHost": registry,
                "repository": rest.partition(":")[0],
                "tag": rest.partition(":")[2],
            }
        return {
            "id": f"id-{self.prefix}-{short}",
            "data": {
                "name": self.name(short),
                "registryTarget": target,
                "serviceCategory": "workload",
                **data,
            },
        }

    @staticmethod
    def secrets(**values: str) -> Json:
        """One bundle `bundle` with one group per value, as keyword arguments for `write`."""
        groups = [
            {"id": f"g-{key}", "data": {"key": key, "environments": {"production": {"value": value}}}}
            for key, value in values.items()
        ]
        bundle = {"id": "bundle", "data": {"name": "b", "includedSecretGroupIds": [g["id"] for g in groups]}}
        return {"secretBundles": [bundle], "secretGroups": groups}

    # the command

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a run: nothing of ours but what is said here."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("COREFLOW_", "DOCKER_"))
        }
        return {
            **kept,
            "DOCKER_HOST": self.host,
            "COREFLOW_BASE_SERVICES": "",
            "COREFLOW_LISTEN": "127.0.0.1:0",
            "COREFLOW_ADMIN_LISTEN": "127.0.0.1:0",
            "COREFLOW_SETTLE_SECONDS": "1",  # of the images that run here, only those of the soak tests end later
            "NO_COLOR": "1",
            **self.environ,
            **extra,
        }

    def run(self, *arguments: str, timeout: float = 120, **extra: str) -> Result:
        """Run `coreflow` to its end."""
        done = subprocess.run(
            [sys.executable, *COMMAND, *arguments],
            env=self.environment(**extra),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """Start `coreflow` in the background; its log goes to `daemon.log`."""
        with (self.folder / "daemon.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *COMMAND, *arguments],
                env=self.environment(**extra),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._processes.append(process)
        return process

    def kill_last(self) -> None:
        """`kill -9` what was started last."""
        self._processes[-1].kill()

    def plan(self, *options: str, **extra: str) -> Result:
        """`coreflow plan --format json`."""
        return self.run(
            "plan", "--records", str(self.records), "--format", "json", *options, timeout=120, **extra
        )

    def apply(self, *options: str, **extra: str) -> Result:
        """`coreflow apply --format json`."""
        return self.run(
            "apply", "--records", str(self.records), "--format", "json", *options, timeout=120, **extra
        )

    def deploy(self, *options: str, **extra: str) -> Json:
        """An apply that must succeed."""
        result = self.apply("--timeout", "60", *options, **extra)
        assert result.code == 0, str(result)
        return result.json

    # the world

    def inspect(self, short: str) -> Json:
        """A service as the engine describes it now."""
        document: Json = self.client.inspect_service(self.name(short))
        return document

    def services(self) -> list[str]:
        """The names of our services."""
        found = self.client.services(filters={"label": f"serve.zone.cluster={self.prefix}"})
        return sorted(service["Spec"]["Name"] for service in found)

    def secret_names(self) -> list[str]:
        """The names of our secrets."""
        found = self.client.secrets(filters={"label": f"serve.zone.cluster={self.prefix}"})
        return sorted(secret["Spec"]["Name"] for secret in found)

    def tasks(self, short: str) -> list[Json]:
        """All tasks of a service; none of one that is not there."""
        try:
            tasks: list[Json] = self.client.tasks(filters={"service": self.name(short)})
        except docker.errors.NotFound:
            return []
        return tasks

    def running(self, short: str) -> list[Json]:
        """The tasks of a service that run and are meant to."""
        return [
            task
            for task in self.tasks(short)
            if task["Status"]["State"] == "running" and task["DesiredState"] == "running"
        ]

    def at_rest(self, short: str) -> bool:
        """Whether Swarm has ended every roll-out, and as many tasks run as are wanted.

        A roll-out shows only a moment after the write that it follows from: that the tasks are of the present spec does.
        """
        live = self.inspect(short)
        if (live.get("UpdateStatus") or {}).get("State") in {"updating", "rollback_started"}:
            return False
        running = self.running(short)
        container = live["Spec"]["TaskTemplate"]["ContainerSpec"]
        wanted: int = live["Spec"]["Mode"]["Replicated"]["Replicas"]
        return len(running) == wanted and all(t["Spec"]["ContainerSpec"] == container for t in running)

    def exec(self, short: str, *command: str) -> str:
        """Run a command in a container of a service."""
        container = self.running(short)[0]["Status"]["ContainerStatus"]["ContainerID"]
        call = self.client.exec_create(container, list(command))
        output: bytes = self.client.exec_start(call["Id"])
        return output.decode()

    def change(self, short: str, change: Callable[[Json], None]) -> None:
        """Change the live spec of a service, as somebody might by hand."""
        live = self.inspect(short)
        change(live["Spec"])
        self.post(f"/services/{live['ID']}/update?version={live['Version']['Index']}", live["Spec"])

    def post(self, path: str, body: object) -> Json:
        """A raw call to the engine, and its answer."""
        answer = self.client.post(f"{self.client.base_url}/v{self.client.api_version}{path}", json=body)
        answer.raise_for_status()
        document: Json = answer.json() if answer.content else {}
        return document

    def wait(self, what: str, condition: Callable[[], object], seconds: float = 40) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
            time.sleep(0.1)

    def end(self) -> None:
        """End what was started."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def clean(self) -> None:
        """Remove everything of this cluster, and end what was started."""
        self.end()
        for service in self.client.services():
            labels: Mapping[str, str] = service["Spec"].get("Labels") or {}
            if labels.get("serve.zone.cluster") == self.prefix or service["Spec"]["Name"].startswith(
                self.prefix
            ):
                with suppress(docker.errors.NotFound):
                    self.client.remove_service(service["ID"])
        for secret in self.client.secrets(filters={"label": f"serve.zone.cluster={self.prefix}"}):
            with suppress(docker.errors.APIError):
                self.client.remove_secret(secret["ID"])
        self.remove_networks(
            lambda network: (network.get("Labels") or {}).get("serve.zone.cluster") == self.prefix
        )
        self.client.close()

    def remove_networks(self, chosen: Callable[[Json], bool]) -> None:
        """Remove networks once nothing is on them any more, and wait until they are gone."""
        for network in filter(chosen, self.client.networks()):
            self.wait(f"network {network['Name']} is free", partial(self._remove_network, network["Id"]))
            self.wait(f"network {network['Name']} is gone", partial(self._lacks_network, network["Name"]))

    def _lacks_network(self, name: str) -> bool:
        """Whether nothing is left of a network: a node lists it until the last container on it has ended."""
        return all(network["Name"] != name for network in self.client.networks())

    def _remove_network(self, identity: str) -> bool:
        try:
            self.client.remove_network(identity)
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError:
            return False
        return True


def open_lab(host: str, folder: Path, prefix: str) -> Iterator[Lab]:
    """A lab that is cleaned up in the end."""
    lab = Lab(host, folder, prefix)
    try:
        yield lab
    finally:
        lab.clean()
