"""Recorded deployments: taken at a proxy in front of an engine, and sent to one again."""

import json
import os
import re
import subprocess
from pathlib import Path

from attrs import frozen
from tests.integration.engine_proxy import engine_proxy
from tests.integration.lab import Json, Lab, open_lab

FOLDER = Path(__file__).parent
PREFIX = "upgrade"
"""The cluster of all recordings, and the prefix of its services."""
ENVIRONMENT = {
    "COREFLOW_BASE_SERVICES": "coretraffic,corelog",
    "COREFLOW_CORETRAFFIC_IMAGE": "coreflow/test:1",
    "COREFLOW_CORELOG_IMAGE": "coreflow/test:1",
}
_CREATES = re.compile(r"/(networks|secrets|services)/create")
_PLACEHOLDER = re.compile(r"<<(network|secret):([^>]+)>>")


@frozen
class Deployment:
    """The calls of one version, each a path and a body, and the cluster file that they carry out."""

    records: Json
    calls: list[tuple[str, Json]]

    def replay(self, lab: Lab) -> None:
        """Write the cluster file, and send the calls to the lab's engine."""
        lab.records.write_text(json.dumps(self.records))
        made = {body["Name"] for path, body in self.calls if path == "/networks/create"}
        lab.remove_networks(lambda network: network["Name"] in made)  # of tests before, that left them
        identities: dict[tuple[str, str], str] = {}
        for path, body in self.calls:
            text = _PLACEHOLDER.sub(lambda match: identities[match[1], match[2]], json.dumps(body))
            answer = lab.post(path, json.loads(text))
            identity = answer.get("Id") or answer["ID"]
            identities[path.split("/")[1].removesuffix("s"), body["Name"]] = identity


def load(path: Path) -> Deployment:
    """A recording, read."""
    document = json.loads(path.read_text())
    return Deployment(document["records"], [(call["path"], call["body"]) for call in document["calls"]])


def record(name: str, python: str, host: str, folder: Path) -> Path:
    """Apply the cluster file with another version's `coreflow`, and write down what it sent."""
    calls: list[tuple[str, Json]] = []

    def note(target: str, request: bytes) -> None:
        if found := _CREATES.search(target):
            _, _, body = request.partition(b"\r\n\r\n")
            calls.append((found[0], json.loads(body)))

    for lab in open_lab(host, folder, PREFIX):
        records = _cluster(lab)
        with engine_proxy(host, folder) as proxy:
            proxy.answer = note
            command = (python, "-m", "coreflow", "apply", "--records", str(lab.records), "--timeout", "60")
            environ = lab.environment(DOCKER_HOST=proxy.url, **ENVIRONMENT)
            subprocess.run(command, env=environ, cwd=folder, check=True)
        path = FOLDER / f"{name}.json"
        text = _without_identities(lab, json.dumps([{"path": path, "body": body} for path, body in calls]))
        document = {"records": records, "calls": json.loads(text)}
        path.write_text(json.dumps(document, indent=1) + os.linesep)
    return path


def _without_identities(lab: Lab, text: str) -> str:
    """The calls with placeholders for what is different on every Swarm."""
    named = [(network["Id"], f"network:{network['Name']}") for network in lab.client.networks()]
    named += [(secret["ID"], f"secret:{secret['Spec']['Name']}") for secret in lab.client.secrets()]
    for identity, name in named:
        text = text.replace(identity, f"<<{name}>>")
    return text


def _cluster(lab: Lab) -> Json:
    """A cluster that uses what a Swarm without plugins can carry."""
    full = lab.service(
        "full",
        scaleFactor=2,
        maxReplicas=2,
        environment={"NODE_ENV": "production", "COUNT": "3", "EMPTY": ""},
        secretBundleId="bundle",
        ports={"web": 3000, "custom": {"admin.example.com": "3001"}},
        domains=[{"name": "full.example.com", "protocol": "https"}],
        resources={
            "memorySizeLimitMB": 64,
            "memorySizeReservationMB": 16,
            "cpuLimit": 0.5,
            "volumeMounts": [{"hostFsPath": "/tmp", "containerFsPath": "/import"}],
        },
        volumes=[{"mountPath": "/data", "driver": "local"}],
        healthCheck={"command": ["true"], "intervalSeconds": 1, "timeoutSeconds": 1, "retries": 3},
    )
    return lab.write(
        full,
        lab.service("bare"),
        lab.service("none", scaleFactor=0),
        lab.service("spread", antiAffinity=True, balancingStrategy="least-connections"),
        **Lab.secrets(TOKEN="made-up", OTHER="made-up-too"),
    )
