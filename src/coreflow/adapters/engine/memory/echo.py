"""Documents as a Swarm engine keeps them: the additions, the omissions and the refusals.

Pure functions on the engine's JSON. Each rule was measured on Docker Engine 20.10 and 26.1 and is held by the contract suite,
which runs on the memory Swarm and on real engines.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from coreflow.adapters.engine.protocol import Document, EngineError

from .containers import Context, TemplateError, expanded

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*")
_SECRET_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")
_CONSTRAINT_VALUE = re.compile(r"(?i)[a-z0-9:\-_\s\.\*\(\)\?\+\[\]\\^\$\|/]+")
_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<name>(?:(?P<host>{_HOST}(?:\.{_HOST})*(?::[0-9]+)?)/)?{_PART}(?:/{_PART})*)"
    r"(?::[\w][\w.-]{0,127})?(?:@(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?",
    re.ASCII,
)
LEAST_MEMORY = 4 * 1024 * 1024
LEAST_NANO_CPUS = 1_000_000
MESSAGE_LIMIT = 1536 * 1024
"""Bytes of a change that Swarm writes down; that of a service has its spec and the previous one."""
REQUEST_LIMIT = 4 * 1024 * 1024
MILLISECOND = 1_000_000
SECRET_LIMIT = 500 * 1024


def invalid(text: str) -> EngineError:
    """The engine's answer to a document that it cannot accept."""
    return EngineError(400, f"rpc error: code = InvalidArgument desc = {text}")


def stored_service(spec: Mapping[str, Any], network_id: Callable[[str], str]) -> Document:
    """The spec as the engine stores and returns it. `network_id` turns a name into an id, or refuses."""
    stored: Document = copy.deepcopy(dict(spec))
    _check_numbers(stored)
    name = stored["Name"] = stored.get("Name") or "a_name_of_its_own"
    if _NAME.fullmatch(name) is None:
        raise invalid("name must be valid as a DNS name component")
    if len(name) > 63:
        raise invalid("name must be 63 characters or fewer")
    stored["Labels"] = stored.get("Labels") or {}
    template = stored.setdefault("TaskTemplate", {})
    _task_template(template, network_id)
    template["ContainerSpec"] = _container(template.get("ContainerSpec") or {})
    mode = stored.get("Mode") or {"Replicated": {}}
    if "Replicated" in mode and (mode["Replicated"] or {}).get("Replicas") is None:
        mode = {"Replicated": {"Replicas": 1}}
    stored["Mode"] = mode
    for key in ("UpdateConfig", "RollbackConfig"):
        if key in stored:
            stored[key] = _roll(stored[key])
    if "EndpointSpec" in stored:
        stored["EndpointSpec"] = _endpoint(stored["EndpointSpec"] or {})
    return stored


def _check_numbers(spec: Document) -> None:
    """The engine's JSON has integers of 64 bits, and replicas without a sign."""
    template = spec.get("TaskTemplate") or {}
    resources = template.get("Resources") or {}
    check = (template.get("ContainerSpec") or {}).get("Healthcheck") or {}
    numbers = [number for part in (*resources.values(), check) for number in (part or {}).values()]
    if any(type(number) is int and not -(2**63) <= number < 2**63 for number in numbers):
        raise EngineError(400, "json: cannot unmarshal number into Go struct field of type int64")
    replicas = ((spec.get("Mode") or {}).get("Replicated") or {}).get("Replicas") or 0
    if not 0 <= replicas < 2**64:
        raise EngineError(400, "json: cannot unmarshal number into Go struct field of type uint64")


def check_size(spec: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> None:
    """Refuse a service that Swarm cannot write down."""
    size = len(json.dumps(spec, ensure_ascii=False).encode())
    if size > REQUEST_LIMIT:
        text = f"grpc: received message larger than max ({size} vs. {REQUEST_LIMIT})"
        raise EngineError(500, f"rpc error: code = ResourceExhausted desc = {text}")
    if previous is not None:
        size += len(json.dumps(previous, ensure_ascii=False).encode())
    if size > MESSAGE_LIMIT:
        text = "raft: raft message is too large and can't be sent"
        raise EngineError(500, f"rpc error: code = Unknown desc = {text}")


def _check_health(check: Document) -> None:
    for name in ("Interval", "Timeout", "StartPeriod"):
        if check.get(name) and check[name] < MILLISECOND:
            raise invalid(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    retries = (check.get("Retries") or 0) & 0xFFFFFFFF  # kept in 32 bits, with a sign
    if retries >= 2**31:
        raise invalid("ContainerSpec: Retries in HealthConfig cannot be negative")
    if check.get("Retries"):
        check["Retries"] = retries


def _check_constraint(constraint: str) -> None:
    operator = "==" if "==" in constraint else "!="
    _, found, value = constraint.partition(operator)
    if not found:
        raise EngineError(
            500, "rpc error: code = Unknown desc = constraint expected one operator from ==, !="
        )
    if _CONSTRAINT_VALUE.fullmatch(value.strip()) is None:
        raise EngineError(500, f"rpc error: code = Unknown desc = value '{value.strip()}' is invalid")


def _is_image(reference: str) -> bool:
    """Return whether the engine takes it for the reference of an image (source: distribution's `reference`).

    As 20.10, which counts the host to the 255 characters, and takes no host that only its capitals tell, and no IPv6 address;
    26.1 does.
    """
    found = _IMAGE.fullmatch(reference)
    if found is None or re.fullmatch(r"[a-f0-9]{64}", reference):
        return False
    name, host = found["name"], found["host"]
    if host is None or not (set(host) & set(".:") or host == "localhost"):
        name = f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
        if name != name.lower():
            return False
    return len(name) <= 255


def is_looked_up(reference: str) -> bool:
    """Return whether the engine looks for it: the reference of an image, or an image's ID."""
    return _is_image(reference) or re.fullmatch(r"[a-f0-9]{64}", reference) is not None


def _container(container: Document) -> Document:
    if not container.get("Image"):
        raise invalid("ContainerSpec: image reference must be provided")
    if not _is_image(container["Image"]):
        raise invalid(f'ContainerSpec: "{container["Image"]}" is not a valid repository/tag')
    container = _without_empty(container, "Env", "Mounts", "Secrets", "Configs", "Labels", "Command", "Args")
    try:
        sample = expanded(container, Context())
    except TemplateError as exc:
        raise invalid(str(exc)) from exc
    if "Mounts" in container:
        targets = [mount.get("Target") for mount in sample["Mounts"]]
        if len(set(targets)) != len(targets):
            raise invalid(
                "ContainerSpec: duplicate mount point: "
                + str(next(t for t in targets if targets.count(t) > 1))
            )
        container["Mounts"] = [_mount(mount) for mount in container["Mounts"]]
    if "Healthcheck" in container:
        check = dict(container["Healthcheck"] or {})
        _check_health(check)
        container["Healthcheck"] = _without_empty(check, "Interval", "Timeout", "StartPeriod", "Retries")
    container["Isolation"] = container.get("Isolation") or "default"
    return container


def _mount(mount: Document) -> Document:
    mount = _without_empty(mount, "ReadOnly")
    if mount.get("VolumeOptions"):
        options = _without_empty(mount["VolumeOptions"], "Labels", "NoCopy")
        if options.get("DriverConfig"):
            options["DriverConfig"] = _without_empty(options["DriverConfig"], "Options")
        mount["VolumeOptions"] = options
    return mount


def _task_template(template: Document, network_id: Callable[[str], str]) -> None:
    """The parts of a task template besides the container, in place."""
    resources = template.get("Resources") or {}
    for key in ("Limits", "Reservations"):
        if key in resources:
            resources[key] = _resources(resources[key] or {})
    if template.get("RestartPolicy") is not None:
        template["RestartPolicy"] = {"Condition": "any", "MaxAttempts": 0, **template["RestartPolicy"]}
    if template.get("Placement") is not None:
        for constraint in template["Placement"].get("Constraints") or ():
            _check_constraint(constraint)
        template["Placement"] = _without_empty(
            template["Placement"], "Constraints", "MaxReplicas", "Preferences", "Platforms"
        )
    networks = template.pop("Networks", None) or ()
    if networks:
        template["Networks"] = [
            {**_without_empty(network, "Aliases"), "Target": network_id(network["Target"])}
            for network in networks
        ]
    template["ForceUpdate"] = template.get("ForceUpdate") or 0
    template["Runtime"] = template.get("Runtime") or "container"


def _resources(resources: Document) -> Document:
    part = _without_empty(resources, "NanoCPUs", "MemoryBytes", "Pids")
    memory, cpus = part.get("MemoryBytes", LEAST_MEMORY), part.get("NanoCPUs", LEAST_NANO_CPUS)
    if memory < LEAST_MEMORY:
        raise invalid(f"invalid memory value {memory}: Must be at least 4MiB")
    if cpus < LEAST_NANO_CPUS:
        raise invalid(f"invalid cpu value {cpus / 1e9:g}: Must be at least 0.001")
    return part


def _roll(policy: Document | None) -> Document:
    policy = dict(policy or {})
    if not policy.get("Delay"):
        policy.pop("Delay", None)
    return {
        **policy,
        "Parallelism": policy.get("Parallelism") or 0,
        "FailureAction": policy.get("FailureAction") or "pause",
        "MaxFailureRatio": policy.get("MaxFailureRatio") or 0,
        "Order": policy.get("Order") or "stop-first",
    }


def _endpoint(endpoint: Document) -> Document:
    endpoint = _without_empty(endpoint, "Ports")
    endpoint["Mode"] = endpoint.get("Mode") or "vip"
    ports = [
        {
            **port,
            "Protocol": port.get("Protocol") or "tcp",
            "PublishMode": port.get("PublishMode") or "ingress",
        }
        for port in endpoint.get("Ports") or ()
    ]
    if endpoint["Mode"] == "dnsrr" and any(port["PublishMode"] == "ingress" for port in ports):
        raise invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
    if ports:
        endpoint["Ports"] = ports
    return endpoint


def _without_empty(document: Mapping[str, Any], *keys: str) -> Document:
    return {
        key: value
        for key, value in document.items()
        if key not in keys or value not in (None, [], {}, 0, False)
    }


def check_secret(spec: Mapping[str, Any], size: int) -> None:
    """Refuse a secret that the engine would refuse."""
    name = spec.get("Name") or ""
    if len(name) > 64 or _SECRET_NAME.fullmatch(name) is None:
        raise invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
        )
    if not 0 < size < SECRET_LIMIT:
        raise invalid(f"secret data must be larger than 0 and less than {SECRET_LIMIT} bytes")


def is_global(spec: Mapping[str, Any]) -> bool:
    """Return whether a stored spec asks for one task on every node."""
    return "Global" in spec["Mode"]


def task_spec(spec: Mapping[str, Any]) -> Document:
    """Return what a task carries of its service's spec."""
    return {key: value for key, value in spec["TaskTemplate"].items() if key != "Runtime"}


def secret_ids(spec: Mapping[str, Any] | None) -> set[str]:
    """The secrets that a spec mounts."""
    if not spec:
        return set()
    return {reference["SecretID"] for reference in spec["TaskTemplate"]["ContainerSpec"].get("Secrets") or ()}
