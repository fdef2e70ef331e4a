"""Specs -> the engine's JSON. Pure.

What is left out, the engine would reset: a document is always the whole one.
"""

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from coreflow.adapters.engine.protocol import Document
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.specs import (
    Aspect,
    HealthCheck,
    Limits,
    Mount,
    NetworkSpec,
    RollPolicy,
    SecretSpec,
    ServiceSpec,
)
from coreflow.domain.swarm.templates import BRACES, literal


def _known(**members: Any) -> Document:
    """A document without its empty members: the engine drops most of them anyway."""
    return {key: value for key, value in members.items() if value not in (None, (), [], {}, "", 0, False)}


def service_document(
    spec: ServiceSpec,
    *,
    secret_ids: Mapping[str, str],
    force_update: int = 0,
    foreign_labels: Mapping[str, str] | None = None,
) -> Document:
    """The whole spec of a service, for `create` and `update` alike: what is left out, the engine would reset.

    `secret_ids` has the id of every secret that the spec mounts. `foreign_labels` are somebody else's labels on the
    live service, which stay.
    """
    body = spec.body
    return {
        "Name": spec.name,
        "Labels": {**(foreign_labels or {}), **service_labels(spec)},
        "TaskTemplate": _task_template(spec, secret_ids, force_update),
        "Mode": {"Global": {}} if body.replicas is None else {"Replicated": {"Replicas": body.replicas}},
        "UpdateConfig": _roll_document(body.update),
        "RollbackConfig": _roll_document(body.rollback),
        "EndpointSpec": {
            "Mode": body.endpoint_mode,
            "Ports": [
                {
                    "Protocol": port.protocol,
                    "TargetPort": port.target,
                    "PublishedPort": port.published,
                    "PublishMode": port.mode,
                }
                for port in body.ports
            ],
        },
    }


def service_labels(spec: ServiceSpec) -> dict[str, str]:
    """Our labels on a service: whose it is, what it was rendered from, which image and login it got."""
    labels = naming.ownership(spec.cluster, spec.owner)
    labels[naming.FINGERPRINT] = spec.fingerprints.whole
    for aspect in Aspect:
        labels[naming.aspect_label(aspect.value)] = spec.fingerprints.aspect(aspect)
    labels[naming.IMAGE] = spec.body.image
    if spec.login_hash:
        labels[naming.LOGIN] = spec.login_hash
    return labels


def _task_template(spec: ServiceSpec, secret_ids: Mapping[str, str], force_update: int) -> Document:
    body = spec.body
    container = _known(
        Image=body.image,
        Command=list(body.command),
        Args=list(body.args),
        Env=[_variable(line) for line in body.env],
        Mounts=[_mount_document(mount) for mount in body.mounts],
        Secrets=[
            {
                "File": {"Name": file.file_name, "UID": file.uid, "GID": file.gid, "Mode": file.mode},
                "SecretID": secret_ids[file.secret_name],
                "SecretName": file.secret_name,
            }
            for file in body.secrets
        ],
        Healthcheck=_health_document(body.health_check),
    )
    return {
        "ContainerSpec": container,
        "Resources": _known(
            Limits=_limits_document(body.limits), Reservations=_limits_document(body.reservations)
        ),
        "RestartPolicy": {
            "Condition": body.restart.condition,
            "Delay": body.restart.delay_ns,
            "MaxAttempts": body.restart.max_attempts,
            "Window": body.restart.window_ns,
        },
        "Placement": _known(
            Constraints=list(body.constraints),
            MaxReplicas=body.max_per_node,
            Platforms=[_known(Architecture=p.architecture, OS=p.os) for p in spec.platforms],
        ),
        "Networks": [
            _known(Target=network.network, Aliases=list(network.aliases)) for network in body.networks
        ],
        "ForceUpdate": force_update,
    }


def _variable(line: str) -> str:
    """A variable whose value arrives as it is. Names are never taken for templates."""
    if BRACES not in line:
        return line
    name, equals, value = line.partition("=")
    return f"{name}{equals}{literal(value)}"


def _literals(texts: Mapping[str, str]) -> dict[str, str]:
    return {key: literal(value) for key, value in texts.items()}


def _mount_document(mount: Mount) -> Document:
    document = _known(
        Type=mount.type,
        Source=literal(mount.source),
        Target=literal(mount.target),
        ReadOnly=mount.read_only,
    )
    if mount.type == "volume":
        driver = _known(Name=mount.driver, Options=_literals(mount.options))
        options = _known(Labels=_literals(mount.labels), DriverConfig=driver)
        if options:
            document["VolumeOptions"] = options
    elif mount.propagation:
        document["BindOptions"] = {"Propagation": mount.propagation}
    return document


def _health_document(check: HealthCheck | None) -> Document | None:
    if check is None:
        return None
    return _known(
        Test=list(check.test),
        Interval=check.interval_ns,
        Timeout=check.timeout_ns,
        StartPeriod=check.start_period_ns,
        Retries=check.retries,
    )


def _limits_document(limits: Limits) -> Document:
    return _known(NanoCPUs=limits.nano_cpus, MemoryBytes=limits.memory_bytes)


def _roll_document(policy: RollPolicy) -> Document:
    return {
        "Parallelism": policy.parallelism,
        "Delay": policy.delay_ns,
        "FailureAction": policy.on_failure,
        "Monitor": policy.monitor_ns,
        "MaxFailureRatio": policy.max_failure_ratio,
        "Order": policy.order,
    }


def secret_document(spec: SecretSpec) -> Document:
    """For `POST /secrets/create`."""
    return {
        "Name": spec.name,
        "Labels": naming.ownership(spec.cluster, spec.owner),
        "Data": base64.b64encode(spec.payload).decode(),
    }


def network_document(spec: NetworkSpec) -> Document:
    """For `POST /networks/create`."""
    document: Document = {
        "Name": spec.name,
        "Driver": "overlay",
        "Attachable": spec.attachable,
        "CheckDuplicate": True,
        "Labels": naming.ownership(spec.cluster, spec.owner),
    }
    if spec.subnet:
        document["IPAM"] = {"Config": [{"Subnet": spec.subnet}]}
    return document


def registry_auth(login: RegistryLogin | None) -> str | None:
    """The value of `X-Registry-Auth`."""
    if login is None:
        return None
    auth = {"username": login.username, "password": login.password, "serveraddress": login.serveraddress}
    return base64.urlsafe_b64encode(orjson.dumps(auth)).decode()
