"""The engine's JSON -> what was observed. Pure.

The engine stores what it is sent, with additions (`Isolation`, `ForceUpdate`, modes of ports ...), with names of
networks turned into ids, and with empty members dropped. Reading a service back therefore means: fill in the engine's
defaults, turn ids into names, and compare bodies, never documents. What coreflow does not set but somebody else can
(`docker service update --dns-add ...`) is gathered in `other`, so that it shows as drift; members nobody can set by
hand, and members this list does not know, are ignored, so that a newer engine's additions never look like drift.

Measured on Docker Engine 20.10.24 and 26.1; `tests/integration` holds both the engine and the memory Swarm to it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from coreflow.domain.deploy.leftovers import LoadedImage
from coreflow.domain.ids import NodeId
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.observed import (
    ROLLED_BACK,
    ObservedNetwork,
    ObservedNode,
    ObservedSecret,
    ObservedService,
    ObservedTask,
    seconds_of,
)
from coreflow.domain.swarm.specs import (
    Attachment,
    HealthCheck,
    Limits,
    Mount,
    Platform,
    PublishedPort,
    RestartPolicy,
    RollPolicy,
    SecretFile,
    ServiceBody,
    canonical,
    fingerprints,
    template_fingerprint,
)
from coreflow.domain.swarm.templates import BRACES, EXPANDED, read_literal

Json = Mapping[str, Any]

_CONTAINER_EXTRAS = (
    "Labels",
    "Hostname",
    "Dir",
    "User",
    "Groups",
    "Privileges",
    "Init",
    "StopSignal",
    "TTY",
    "OpenStdin",
    "ReadOnly",
    "StopGracePeriod",
    "Hosts",
    "DNSConfig",
    "Configs",
    "Sysctls",
    "CapabilityAdd",
    "CapabilityDrop",
    "Ulimits",
    "OomScoreAdj",
)
"""Members of `ContainerSpec` that `docker service update` can set and coreflow does not."""


def image_platforms(answer: Json) -> tuple[Platform, ...]:
    """Return what an image runs on, from `GET /distribution/{name}/json`, as the docker command line hands it on to Swarm.

    Nodes with 32-bit ARM call it by its variant (`armv7l`), images do not, so that architecture is left open (source:
    docker/cli's `imageDigestAndPlatforms`). All the others go through as they are, `unknown` too.
    """
    told = answer.get("Platforms") or ()
    return tuple(Platform(p.get("os") or "", _unless_arm(p.get("architecture") or "")) for p in told)


def _unless_arm(architecture: str) -> str:
    return "" if architecture.lower() == "arm" else architecture


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What nodes call an architecture, and what images do (source: SwarmKit's `PlatformFilter`)."""


def _node_platform(told: Json | None) -> Platform | None:
    if not told or not told.get("OS"):
        return None
    architecture = told.get("Architecture") or ""
    return Platform(told["OS"], _ARCHITECTURES.get(architecture, architecture))


def observed_service(document: Json, network_names: Mapping[str, str]) -> ObservedService:
    """Read a service. `network_names` maps network ids to names."""
    spec = document.get("Spec") or {}
    previous = document.get("PreviousSpec") or {}
    status = document.get("UpdateStatus") or {}
    body = service_body(spec, network_names)
    return ObservedService(
        id=document["ID"],
        name=spec.get("Name") or "",
        version=document["Version"]["Index"],
        labels=spec.get("Labels") or {},
        body=body,
        fingerprints=fingerprints(body),
        force_update=(spec.get("TaskTemplate") or {}).get("ForceUpdate") or 0,
        previous_secrets=frozenset(_secret_names(previous)),
        previous_image=((previous.get("TaskTemplate") or {}).get("ContainerSpec") or {}).get("Image") or "",
        previous_intent=(previous.get("Labels") or {}).get(naming.FINGERPRINT),
        platforms=_platforms(spec),
        update_state=status.get("State") or "",
        update_message=status.get("Message") or "",
        update_started=status.get("StartedAt") or "",
        updated_at=document.get("UpdatedAt") or "",
    )


def _platforms(spec: Json) -> tuple[Platform, ...]:
    placement = (spec.get("TaskTemplate") or {}).get("Placement") or {}
    return tuple(
        [Platform(p.get("OS") or "", p.get("Architecture") or "") for p in placement.get("Platforms") or ()]
    )


def _secret_names(spec: Json) -> Iterator[str]:
    container = (spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}
    for reference in container.get("Secrets") or ():
        yield reference.get("SecretName") or ""


def service_body(spec: Json, network_names: Mapping[str, str]) -> ServiceBody:
    """The body of a service spec, with everything the engine defaults spelled out."""
    template = spec.get("TaskTemplate") or {}
    container = template.get("ContainerSpec") or {}
    mode = spec.get("Mode") or {}
    endpoint = spec.get("EndpointSpec") or {}
    resources = template.get("Resources") or {}
    placement = template.get("Placement") or {}
    networks = [*(template.get("Networks") or ()), *(spec.get("Networks") or ())]
    return ServiceBody(
        image=container.get("Image") or "",
        command=tuple(container.get("Command") or ()),
        args=tuple(container.get("Args") or ()),
        env=_env(container),
        secrets=tuple([_secret_file(reference) for reference in container.get("Secrets") or ()]),
        mounts=tuple([_mount(mount) for mount in container.get("Mounts") or ()]),
        networks=tuple(
            [
                Attachment(network_names.get(n["Target"], n["Target"]), tuple(n.get("Aliases") or ()))
                for n in networks
            ]
        ),
        replicas=_replicas(mode),
        endpoint_mode=endpoint.get("Mode") or "vip",
        ports=tuple([_port(port) for port in endpoint.get("Ports") or ()]),
        limits=_limits(resources.get("Limits")),
        reservations=_limits(resources.get("Reservations")),
        constraints=tuple(placement.get("Constraints") or ()),
        max_per_node=placement.get("MaxReplicas") or 0,
        health_check=_health(container.get("Healthcheck")),
        restart=_restart(template.get("RestartPolicy")),
        update=_roll(spec.get("UpdateConfig")),
        rollback=_roll(spec.get("RollbackConfig")),
        other=tuple(sorted(_others(spec, template, container, resources, placement))),
    )


def _env(container: Json) -> tuple[str, ...]:
    lines = container.get("Env") or ()
    return tuple([line if BRACES not in line else _read_variable(line) for line in lines])


def _read_variable(line: str) -> str:
    """A variable as its container sees it; one that Swarm expands, as it is (see `_others`)."""
    name, equals, value = line.partition("=")
    text = read_literal(value)
    return line if text is None else f"{name}{equals}{text}"


def _expanded_variables(container: Json) -> list[str]:
    """The names of variables whose values Swarm expands."""
    pairs = [line.partition("=") for line in container.get("Env") or () if BRACES in line]
    return [name for name, _, value in pairs if read_literal(value) is None]


def _read(template: str, path: str, expanded: list[str]) -> str:
    """The text of a template; where it is not `literal`'s, the template, and its path goes to `expanded`."""
    if BRACES not in template:
        return template
    text = read_literal(template)
    if text is None:
        expanded.append(path)
        return template
    return text


def _replicas(mode: Json) -> int | None:
    if "Global" in mode or "GlobalJob" in mode:
        return None
    replicas = (mode.get("Replicated") or {}).get("Replicas")
    return 1 if replicas is None else replicas


def _secret_file(reference: Json) -> SecretFile:
    file = reference.get("File") or {}
    return SecretFile(
        secret_name=reference.get("SecretName") or "",
        file_name=file.get("Name") or "",
        uid=file.get("UID") or "0",
        gid=file.get("GID") or "0",
        mode=file.get("Mode") or 0,
    )


def _mount(mount: Json) -> Mount:
    volume = mount.get("VolumeOptions") or {}
    driver = volume.get("DriverConfig") or {}
    bind = mount.get("BindOptions") or {}
    expanded: list[str] = []
    source = _read(mount.get("Source") or "", "Source", expanded)
    target = _read(mount.get("Target") or "", "Target", expanded)
    options, labels = (
        {key: _read(value, f"{path}.{key}", expanded) for key, value in (texts or {}).items()}
        for path, texts in (("Options", driver.get("Options")), ("Labels", volume.get("Labels")))
    )
    other = {
        EXPANDED: expanded,
        "NoCopy": volume.get("NoCopy"),
        "Subpath": volume.get("Subpath"),
        "Tmpfs": mount.get("TmpfsOptions"),
        "NonRecursive": bind.get("NonRecursive"),
        "Consistency": mount.get("Consistency"),
    }
    other = {key: value for key, value in other.items() if _pruned(value) is not None}
    return Mount(
        type=mount.get("Type") or "",
        source=source,
        target=target,
        read_only=bool(mount.get("ReadOnly")),
        driver=driver.get("Name") or "",
        options=options,
        labels=labels,
        propagation=bind.get("Propagation") or "",
        other=canonical(other).decode() if other else "",
    )


def _port(port: Json) -> PublishedPort:
    return PublishedPort(
        published=port.get("PublishedPort") or 0,
        target=port.get("TargetPort") or 0,
        protocol=port.get("Protocol") or "tcp",
        mode=port.get("PublishMode") or "ingress",
    )


def _limits(limits: Json | None) -> Limits:
    limits = limits or {}
    return Limits(memory_bytes=limits.get("MemoryBytes") or 0, nano_cpus=limits.get("NanoCPUs") or 0)


def _health(check: Json | None) -> HealthCheck | None:
    if not check:
        return None
    return HealthCheck(
        test=tuple(check.get("Test") or ()),
        interval_ns=check.get("Interval") or 0,
        timeout_ns=check.get("Timeout") or 0,
        start_period_ns=check.get("StartPeriod") or 0,
        retries=check.get("Retries") or 0,
    )


_RESTART = RestartPolicy()
_ROLL = RollPolicy()


def _restart(policy: Json | None) -> RestartPolicy:
    policy = policy or {}
    delay = policy.get("Delay")
    return RestartPolicy(
        condition=policy.get("Condition") or _RESTART.condition,
        delay_ns=_RESTART.delay_ns if delay is None else delay,
        max_attempts=policy.get("MaxAttempts") or 0,
        window_ns=policy.get("Window") or 0,
    )


def _roll(policy: Json | None) -> RollPolicy:
    if policy is None:
        return _ROLL
    monitor = policy.get("Monitor")
    return RollPolicy(
        parallelism=policy.get("Parallelism") or 0,
        delay_ns=policy.get("Delay") or 0,
        on_failure=policy.get("FailureAction") or _ROLL.on_failure,
        monitor_ns=_ROLL.monitor_ns if monitor is None else monitor,
        max_failure_ratio=float(policy.get("MaxFailureRatio") or 0.0),
        order=policy.get("Order") or _ROLL.order,
    )


def _pruned(value: Any) -> Any:
    """The value without empty members, or None where nothing is left of it."""
    if isinstance(value, dict):
        value = {key: kept for key, item in value.items() if (kept := _pruned(item)) is not None}
    elif isinstance(value, list):
        value = [kept for item in value if (kept := _pruned(item)) is not None]
    return value if value not in (None, "", 0, False, [], {}) else None


def _others(
    spec: Json, template: Json, container: Json, resources: Json, placement: Json
) -> Iterator[tuple[str, str]]:
    """Everything that somebody else can set on a service and coreflow does not."""
    found: list[tuple[str, Any]] = [
        (f"ContainerSpec.{key}", container[key]) for key in _CONTAINER_EXTRAS if key in container
    ]
    found += [
        ("Healthcheck.StartInterval", (container.get("Healthcheck") or {}).get("StartInterval")),
        ("Resources.Limits.Pids", (resources.get("Limits") or {}).get("Pids")),
        (
            "Resources.Reservations.GenericResources",
            (resources.get("Reservations") or {}).get("GenericResources"),
        ),
        ("Placement.Preferences", placement.get("Preferences")),
        ("LogDriver", template.get("LogDriver")),
    ]
    found += [
        (f"Networks.{member}", [network.get(member) for network in template.get("Networks") or ()])
        for member in ("DriverOpts",)
    ]
    found += [(f"env {name}{EXPANDED}", True) for name in _expanded_variables(container)]
    for path, value in found:
        kept = _pruned(value)
        if kept is not None:
            yield path, canonical(kept).decode()


def observed_task(
    document: Json,
    *,
    templates: Mapping[str, Mapping[str, str]],
    current: Mapping[str, Json] | None = None,
) -> ObservedTask:
    """Read a task.

    `templates` maps ids of services that were rolled back to the names of networks by id; `current` maps ids of services
    to their present task templates.
    """
    status = document.get("Status") or {}
    state = status.get("State") or ""
    spec = document.get("Spec") or {}
    service_id = document.get("ServiceID") or ""
    names = templates.get(service_id)
    return ObservedTask(
        id=document["ID"],
        service_id=service_id,
        node_id=NodeId(document["NodeID"]) if document.get("NodeID") else None,
        slot=document.get("Slot"),
        state=state,
        desired_state=document.get("DesiredState") or "",
        error=status.get("Err") or "",
        message=status.get("Message") or "",
        created_at=document.get("CreatedAt") or "",
        updated_at=document.get("UpdatedAt") or "",
        exit_code=(status.get("ContainerStatus") or {}).get("ExitCode") if state in _EXITED else None,
        image=(spec.get("ContainerSpec") or {}).get("Image") or "",
        addresses=_addresses(document.get("NetworksAttachments") or ()),
        is_current=current is None or service_id not in current or _same_template(spec, current[service_id]),
        template=None if names is None else template_fingerprint(service_body({"TaskTemplate": spec}, names)),
    )


_EXITED = frozenset({"complete", "failed"})
_NOT_OF_A_TASK = {"Runtime", "Placement"}
"""Members of a template that a task's own copy lacks, or that may differ: Swarm keeps a task whose node meets a changed
placement, with the placement it was made from."""


def _same_template(one: Json, other: Json) -> bool:
    """Return whether a task made from one template may stay with the other."""
    return one.keys() - _NOT_OF_A_TASK == other.keys() - _NOT_OF_A_TASK and all(
        one[key] == other[key] for key in one if key not in _NOT_OF_A_TASK
    )


def _addresses(attachments: Iterable[Json]) -> dict[str, str]:
    found = {}
    for attachment in attachments:
        network = (attachment.get("Network") or {}).get("Spec") or {}
        for address in (attachment.get("Addresses") or ())[:1]:
            found[network.get("Name") or ""] = address.partition("/")[0]
    return found


def observed_secret(document: Json) -> ObservedSecret:
    """Read a secret."""
    spec = document.get("Spec") or {}
    return ObservedSecret(
        id=document["ID"],
        name=spec.get("Name") or "",
        version=document["Version"]["Index"],
        labels=spec.get("Labels") or {},
        created_at=document.get("CreatedAt") or "",
    )


NEW_SECONDS = 30.0
"""How long a network without driver and addresses counts as one that Swarm has yet to see to."""


def _is_new(document: Json, now: float) -> bool:
    """Return whether Swarm has yet to give a network its driver and addresses.

    That takes some milliseconds, or more where the manager is busy. A network whose range is taken is listed like that for
    ever: nothing but its age, by the engine's clock, tells them apart (measured on 20.10 and 26.1).
    """
    is_blank = document.get("Scope") == "swarm" and not document.get("Driver")
    return is_blank and now - seconds_of(document.get("Created") or "") < NEW_SECONDS


def observed_network(document: Json, now: float = 0.0) -> ObservedNetwork:
    """Read a network. `now` is the engine's clock, in seconds since the epoch."""
    configs = (document.get("IPAM") or {}).get("Config") or ()
    return ObservedNetwork(
        id=document["Id"],
        name=document.get("Name") or "",
        driver=document.get("Driver") or "",
        scope=document.get("Scope") or "",
        attachable=bool(document.get("Attachable")),
        is_ingress=bool(document.get("Ingress")),
        is_internal=bool(document.get("Internal")),
        is_encrypted="encrypted" in (document.get("Options") or {}),
        subnets=tuple(config["Subnet"] for config in configs if config.get("Subnet")),
        labels=document.get("Labels") or {},
        # the Swarm's own view of a network never lists containers; a node's view of one does, even if there are none
        is_remnant=document.get("Scope") == "swarm" and document.get("Containers") is not None,
        is_new=_is_new(document, now),
    )


def loaded_images(images: Iterable[Json], containers: Iterable[Json]) -> Iterator[LoadedImage]:
    """Read the images of a node, each once for each of its names."""
    used = {container.get("ImageID") for container in containers}
    for document in images:
        for reference in document.get("RepoTags") or ():
            if reference != "<none>:<none>":
                yield LoadedImage(
                    reference=reference,
                    id=document["Id"],
                    size=document.get("Size") or 0,
                    in_use=document["Id"] in used,
                )


def observed_node(document: Json) -> ObservedNode:
    """Read a node."""
    spec = document.get("Spec") or {}
    description = document.get("Description") or {}
    status = document.get("Status") or {}
    plugins = (description.get("Engine") or {}).get("Plugins") or ()
    return ObservedNode(
        id=NodeId(document["ID"]),
        hostname=description.get("Hostname") or "",
        state=status.get("State") or "",
        availability=spec.get("Availability") or "",
        role=spec.get("Role") or "",
        address=status.get("Addr") or "",
        nano_cpus=(description.get("Resources") or {}).get("NanoCPUs") or 0,
        volume_plugins=frozenset(p.get("Name") or "" for p in plugins if p.get("Type") == "Volume"),
        platform=_node_platform(description.get("Platform")),
    )


def rolled_back(services: Iterable[ObservedService]) -> frozenset[str]:
    """Ids of services whose tasks' templates tell what was rolled back."""
    return frozenset(service.id for service in services if service.update_state in ROLLED_BACK)
