"""A service record -> the specs of its Swarm service and its secret, or why not.

`render_workload` is one flat function over small converters, one per part. Everything it needs is in `Ingredients`,
which names the very objects it depends on: two equal sets of ingredients give equal results, so a renderer may keep
the result while all ingredients are the same objects.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from attrs import frozen

from coreflow.domain.ids import ClusterId, NodeId, Owner
from coreflow.domain.records.hosts import canonical_host, host_problem, is_port, port_in
from coreflow.domain.records.keys import spelt
from coreflow.domain.records.models import RegistryLogin, Resources, ServiceRecord
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import ArchiveImage, RegistryImage, Rejected, pinned
from coreflow.domain.swarm.naming import WEB_GATEWAY
from coreflow.domain.swarm.specs import (
    ON_NODE,
    Attachment,
    ImageSpec,
    Limits,
    Mount,
    Platform,
    RollPolicy,
    SecretFile,
    SecretSpec,
    ServiceBody,
    ServiceSpec,
    Stage,
    fingerprints,
)
from coreflow.domain.swarm.templates import BRACES, GROWTH

from .health import WORD_LIMIT, health_check, health_problems
from .secrets import Layer, Payload, as_elsewhere, make_payload, no_value, other_values
from .volumes import LOCAL_DRIVER, lacking_options, make_mounts, plain

WORKLOAD = "workload"
DEFAULT_MEMORY_MB = 1000
MEGABYTE = 1_000_000
LEAST_MEMORY = 6 * 1024 * 1024
"""The engine starts no container with less (source: moby's `linuxMinMemory`)."""
NANO_CPUS = 1_000_000_000
LEAST_NANO_CPUS = 10_000_000
"""The kernel gives a container no less than 1 ms in 100 ms: with a lower limit none starts (measured on 20.10 and 26.1)."""
LEAST_RESERVED_NANO_CPUS = 1_000_000
LEAST_RESERVED_MEMORY = 4 * 1024 * 1024
"""Swarm refuses to reserve less (source: swarmkit's `validateResources`)."""
TASKS_PER_NODE = 1000
"""Each has a port on bridges of its node, which have 1,023 (Linux's `BR_MAX_PORTS`)."""
SPEC_LIMIT = 700_000
"""Bytes of a service. Swarm keeps the spec and the previous one in one message of at most 1.5 MiB: a larger service can be
made and never be changed again (measured on 20.10 and 26.1: 780,000 bytes could be changed, 800,000 not)."""
_KEY_SHOWN = 80
_OVERHEAD = 6
"""Bytes that a text takes beside its own."""
_MOST_BYTES = 12
"""No character takes more, counted so."""
BEYOND = 2**63
"""The first number that the engine cannot hold."""
SECRET_FILE = "secret.json"
_SECRET_PATH = f"/run/secrets/{SECRET_FILE}"


@frozen(kw_only=True)
class Ingredients:
    """All that the rendering of one workload depends on."""

    cluster: ClusterId
    service: ServiceRecord
    source: ArchiveImage | RegistryImage
    digest: str | None
    """What the registry, or the label of the running service, says of the image."""
    platforms: tuple[Platform, ...] = ()
    """What the image runs on, as the registry said it now or when the running service was written."""
    unsuited: tuple[str, ...] = ()
    """Nodes, by name, that are of another platform."""
    login_hash: str = ""
    """What a label may know of the login for the image."""
    layers: tuple[Layer, ...] = ()
    """What each secret bundle gives, in rising order of precedence."""
    provisioned: Mapping[str, str] | None = None
    pin_to: NodeId | None = None
    """The only node that has the image, where the Swarm has more than one."""
    home: NodeId | None = None
    """The node that has the data of its volumes, where the Swarm has more than one."""
    nodes: int = 0
    """How many nodes the Swarm has; 0 where that is not known."""
    most_nano_cpus: int = 0
    """What the largest node has; 0 where that is not known."""
    secret_names: tuple[str, ...] = ()
    """The secrets that it has or had: one of the same content under its name in another case is used as it is."""
    mounted: tuple[str, ...] = ()
    """The secrets that what runs mounts."""
    spelt: tuple[Mount, ...] = ()
    """Live mounts of it whose paths are not in their shortest spelling."""
    lacking: tuple[str, ...] = ()
    """Nodes, by name, on which a volume driver that it needs is not active."""


@frozen(kw_only=True)
class Rendered:
    """The specs of one workload, in the order in which they are made, and remarks for a person."""

    service: ServiceSpec
    secret: SecretSpec | None = None
    image: ImageSpec | None = None
    hosts: tuple[tuple[str, int], ...] = ()
    """The host names that lead to it, normalised, and the port of each."""
    notes: tuple[str, ...] = ()


SIZES_KEPT = 1000
"""Different sets of limits that are remembered; thousands of services share a few."""
_UPDATES = {order: RollPolicy(on_failure="rollback", order=order) for order in ("stop-first", "start-first")}
_ROLLBACKS = {order: RollPolicy(on_failure="pause", order=order) for order in _UPDATES}


def render_workload(given: Ingredients) -> Rendered:
    """Render one workload.

    Raises Rejected with every reason found.
    """
    record, owner = given.service, Owner(given.service.id)
    mounts, payload = _checked(given)
    secret = _secret(given, payload)
    order = "stop-first" if holds_node_data(mounts) else "start-first"
    body = ServiceBody(
        image=pinned(reference_of(given.source), given.digest),
        env=environment(record),
        secrets=(SecretFile(secret.name, SECRET_FILE),) if secret is not None else (),
        mounts=mounts,
        networks=(Attachment(WEB_GATEWAY, (record.name,)),),
        replicas=replicas(record),
        endpoint_mode="dnsrr",
        limits=limits(record.resources),
        reservations=reservations(record.resources),
        constraints=(f"{ON_NODE}{node}",) if (node := given.pin_to or given.home) else (),
        max_per_node=1 if record.anti_affinity else 0,
        health_check=health_check(record),
        update=_UPDATES[order],
        rollback=_ROLLBACKS[order],
    )
    login = given.source.request.login if isinstance(given.source, RegistryImage) else None
    return Rendered(
        service=ServiceSpec(
            name=record.name,
            cluster=given.cluster,
            owner=owner,
            stage=Stage.WORKLOADS,
            body=body,
            fingerprints=fingerprints(body),
            login=login,
            login_hash=given.login_hash,
            platforms=given.platforms,
        ),
        secret=secret,
        image=image_spec(given.source, owner),
        hosts=tuple(host_ports(record)),
        notes=(*(payload.notes if payload is not None else ()), *_remarks(given, mounts)),
    )


def value_problems(record: ServiceRecord) -> list[str]:
    """Everything that is wrong with a record by itself, whatever its image and its secrets are."""
    return _own_parts(record)[1]


def _own_parts(record: ServiceRecord, spelt: tuple[Mount, ...] = ()) -> tuple[tuple[Mount, ...], list[str]]:
    """The mounts, none where they cannot be made, and everything that is wrong with the record by itself."""
    problems = [*_record_problems(record, tuple(host_names(record))), *_resource_problems(record.resources)]
    mounts: tuple[Mount, ...] = ()
    try:
        mounts = make_mounts(record, spelt)
    except Rejected as exc:
        problems += exc.reasons
    if (size := _size(record, mounts)) > SPEC_LIMIT:
        problems.append(
            f"environment, volumes and healthCheck have {size} bytes in all; Swarm can change no service of more than {SPEC_LIMIT}"
        )
    return mounts, problems


def _checked(given: Ingredients) -> tuple[tuple[Mount, ...], Payload | None]:
    """The parts that can fail, all tried before any reason is raised."""
    mounts, problems = _own_parts(given.service, given.spelt)
    problems += _room_problems(given)
    payload = None
    if given.layers or given.provisioned:
        try:
            payload = make_payload(given.layers, given.provisioned or {})
        except Rejected as exc:
            problems += exc.reasons
        except TypeError:  # the encoder's complaint quotes nothing, but says nothing either
            problems.append("a secret value is not valid Unicode text")
        else:
            problems += _lost_variables(given, payload)
        problems += _covered(mounts)
    if problems:
        raise Rejected(*problems)
    return mounts, payload


def _lost_variables(given: Ingredients, payload: Payload) -> Iterator[str]:
    """Variables that the service has now and would lose, since its groups name the environment otherwise.

    A secret cannot be read back. But if another environment's values make exactly what is mounted, nothing but the name
    of the environment has changed.
    """
    mounted = {name.rpartition("-")[2] for name in given.mounted}
    if not mounted or _digest(given, payload) in mounted:
        return
    for environment, layers in as_elsewhere(given.layers):
        try:
            before = make_payload(layers, given.provisioned or {})
        except Rejected:
            continue
        if _digest(given, before) in mounted:
            for layer in given.layers:
                for group in layer.omitted:
                    if environment in group.environments:
                        text = no_value(group, layer.environment)
                        yield f"{text}; {other_values(group)}: what runs has that value, and would lose the variable"
            return


def _digest(given: Ingredients, payload: Payload) -> str:
    return naming.salted_hash(f"{given.cluster}/{given.service.id}", payload.data)


def _covered(mounts: Iterable[Mount]) -> Iterator[str]:
    """Mounts where the file with the secrets has to be: no container starts with them (measured on 20.10)."""
    for mount in mounts:
        target = plain(mount.target)
        if target.startswith(f"{_SECRET_PATH}/") or (mount.type == "volume" and target == _SECRET_PATH):
            yield f"the mount at {target} is in the way of the secrets, which are a file at {_SECRET_PATH}"
        elif mount.type == "volume" and mount.read_only and _SECRET_PATH.startswith(f"{target}/"):
            yield f"the volume at {target} is read-only, and the secrets have to become a file at {_SECRET_PATH} in it"


def _size(record: ServiceRecord, mounts: tuple[Mount, ...]) -> int:
    """Roughly the bytes of what can be large in a service."""
    check = record.health_check.command if record.health_check is not None else ()
    texts = [*environment(record), *check, record.id]
    for mount in mounts:
        texts += [mount.source, mount.target, mount.driver]
        texts += [text for pair in (*mount.options.items(), *mount.labels.items()) for text in pair]
    if sum(map(len, texts)) * _MOST_BYTES < SPEC_LIMIT:  # the common case: nothing to look at closely
        return 0
    return sum(len(text.encode()) + _OVERHEAD + GROWTH * text.count(BRACES) for text in texts)


def environment(record: ServiceRecord) -> tuple[str, ...]:
    """The variables of a record, in the order of their names."""
    return tuple([f"{key}={value}" for key, value in sorted(record.environment.items())])


def reference_of(source: ArchiveImage | RegistryImage) -> str:
    """The image reference as the records ask for it."""
    return source.reference if isinstance(source, ArchiveImage) else source.request.reference


def image_spec(source: ArchiveImage | RegistryImage, owner: Owner) -> ImageSpec | None:
    """The image to load, for an image that Cloudly keeps."""
    if isinstance(source, RegistryImage):
        return None
    return ImageSpec(
        reference=source.reference,
        owner=owner,
        stage=Stage.WORKLOADS,
        image_id=source.image_id,
        version=source.version,
        storage_path=source.storage_path,
    )


def login_hash(cluster: ClusterId, login: RegistryLogin | None) -> str:
    """Return what a label may know of a login: whether it is the same as before."""
    if login is None:
        return ""
    return naming.salted_hash(cluster, f"{login.serveraddress}\0{login.username}\0{login.password}".encode())


def _secret(given: Ingredients, payload: Payload | None) -> SecretSpec | None:
    if payload is None:
        return None
    name = naming.secret_name(given.service.name, _digest(given, payload))
    there = (other for other in given.secret_names if naming.folded(other) == naming.folded(name))
    return SecretSpec(
        name=next(there, name),
        cluster=given.cluster,
        owner=Owner(given.service.id),
        stage=Stage.WORKLOADS,
        payload=payload.data,
    )


def holds_node_data(mounts: tuple[Mount, ...]) -> bool:
    """Return whether two tasks at once could fight over data of the node."""
    return any(not mount.read_only for mount in mounts)


def replicas(record: ServiceRecord) -> int:
    """`scaleFactor`, 1 if absent, at most `maxReplicas`."""
    wanted = 1 if record.scale_factor is None else max(record.scale_factor, 0)
    return wanted if record.max_replicas is None else min(wanted, max(record.max_replicas, 0))


def _units(amount: float, size: int) -> int:
    """The amount in whole units; one too large to be true stays too large, and a negative one negative."""
    return round(max(min(amount * size, float(BEYOND)), -1.0))


@lru_cache(SIZES_KEPT)
def limits(resources: Resources | None) -> Limits:
    """Memory limit (`memorySizeLimitMB`, its old name, else 1000 MB) and CPU limit (none if absent)."""
    if resources is None:
        return Limits(memory_bytes=DEFAULT_MEMORY_MB * MEGABYTE)
    memory = next(
        (size for size in (resources.memory_size_limit_mb, resources.memory_size_mb) if size is not None),
        DEFAULT_MEMORY_MB,
    )
    return Limits(
        memory_bytes=_units(memory, MEGABYTE), nano_cpus=_units(resources.cpu_limit or 0, NANO_CPUS)
    )


@lru_cache(SIZES_KEPT)
def reservations(resources: Resources | None) -> Limits:
    """Return what the scheduler sets aside; nothing if absent."""
    if resources is None:
        return Limits()
    return Limits(
        memory_bytes=_units(resources.memory_size_reservation_mb or 0, MEGABYTE),
        nano_cpus=_units(resources.cpu_reservation or 0, NANO_CPUS),
    )


def host_names(record: ServiceRecord) -> Iterator[tuple[str, str]]:
    """Every host name that leads to this service, in its canonical spelling, with the field that says so."""
    for index, domain in enumerate(record.domains):
        if domain.protocol != "ssh":
            yield canonical_host(domain.name), f"domains[{index}].name"
    if record.ports is not None:
        for name in record.ports.custom:
            yield canonical_host(name), f"ports.custom.{spelt(name)}"


def host_ports(record: ServiceRecord) -> Iterator[tuple[str, int]]:
    """Every usable host name of a record with a usable port: that of the domain, else of `ports.web`."""
    web = record.ports.web if record.ports is not None else None
    ports = [domain.port or web for domain in record.domains if domain.protocol != "ssh"]
    if record.ports is not None:
        ports += [port_in(text) for text in record.ports.custom.values()]
    for (host, _), port in zip(host_names(record), ports, strict=True):
        if port is not None and is_port(port) and host_problem(host) is None:
            yield host, port


def _record_problems(record: ServiceRecord, hosts: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Everything that Swarm would accept and that would then not work."""
    if not naming.is_service_name(record.name):
        yield f"name is not usable as a service name (letters, digits, - and _, at most {naming.SERVICE_NAME_LIMIT})"
    if replicas(record) >= BEYOND:
        yield "scaleFactor is too large"
    yield from _port_problems(record)
    seen: set[str] = set()
    for host, where in hosts:
        if (problem := host_problem(host)) is not None:
            yield f"{where} {problem}"
        elif host in seen:
            yield f"{where}: the host name {host} occurs twice"
        seen.add(host)
    for key, value in record.environment.items():
        if not key or "=" in key or "\0" in key:
            yield "environment: a variable's name is empty or contains = or a null character"
        elif "\0" in value:
            yield f"environment.{_shown(key)} contains a null character"
        elif len(key) + len(value) > WORD_LIMIT // 4 and len(f"{key}={value}".encode()) >= WORD_LIMIT:
            yield f"environment.{_shown(key)} has {WORD_LIMIT} bytes or more with its name, which no program can be started with"
    if record.health_check is not None:
        yield from health_problems(record.health_check)


def _shown(key: str) -> str:
    """A name that somebody chose, if it looks like one."""
    text = spelt(key)
    return text if len(text) <= _KEY_SHOWN else f"{text[:_KEY_SHOWN]}…"


def _port_problems(record: ServiceRecord) -> Iterator[str]:
    web = record.ports.web if record.ports is not None else None
    if web is not None and not is_port(web):
        yield "ports.web is not a port (1 to 65535)"
    for index, domain in enumerate(record.domains):
        if domain.protocol == "ssh":
            continue
        if domain.port is not None and not is_port(domain.port):
            yield f"domains[{index}].port is not a port (1 to 65535)"
        elif domain.port is None and web is None:
            yield f"domains[{index}] has no port, and ports.web is missing"
    for name, text in record.ports.custom.items() if record.ports is not None else ():
        if port_in(text) is None:
            yield f"ports.custom.{spelt(name)} is not a port (1 to 65535)"


@lru_cache(SIZES_KEPT)
def _resource_problems(resources: Resources | None) -> tuple[str, ...]:
    return tuple(_resource_problems_of(resources))


def _resource_problems_of(resources: Resources | None) -> Iterator[str]:
    """Limits with which no container starts, and reservations that Swarm refuses."""
    limit, reserved = limits(resources), reservations(resources)
    if resources is None:
        return
    old = resources.memory_size_limit_mb is None and resources.memory_size_mb is not None
    memory = "memorySizeMB" if old else "memorySizeLimitMB"
    if limit.memory_bytes < LEAST_MEMORY:
        yield f"resources.{memory} is below 6 MiB, the least that Docker starts a container with"
    for name, amount, units, least, text in (
        (
            "cpuLimit",
            resources.cpu_limit,
            limit.nano_cpus,
            LEAST_NANO_CPUS,
            "0.01 CPU, the least that Docker starts a container with",
        ),
        (
            "cpuReservation",
            resources.cpu_reservation,
            reserved.nano_cpus,
            LEAST_RESERVED_NANO_CPUS,
            "0.001 CPU, the least that Swarm takes",
        ),
        (
            "memorySizeReservationMB",
            resources.memory_size_reservation_mb,
            reserved.memory_bytes,
            LEAST_RESERVED_MEMORY,
            "4 MiB, the least that Swarm takes",
        ),
    ):
        if amount is not None and amount < 0:
            yield f"resources.{name} is negative"
        elif amount and units < least:
            yield f"resources.{name} is below {text}"
        elif units >= BEYOND:
            yield f"resources.{name} is too large"
    if limit.memory_bytes >= BEYOND:
        yield f"resources.{memory} is too large"
    if reserved.memory_bytes > limit.memory_bytes >= LEAST_MEMORY:
        yield "resources.memorySizeReservationMB: more memory is reserved than the limit allows"
    if limit.nano_cpus > 0 and reserved.nano_cpus > limit.nano_cpus:
        yield "resources.cpuReservation: more CPU is reserved than the limit allows"


def _room_problems(given: Ingredients) -> Iterator[str]:
    """Yield what no node of this Swarm can do."""
    most = given.most_nano_cpus
    if most and limits(given.service.resources).nano_cpus > most:
        yield f"resources.cpuLimit is more than any node has ({most / NANO_CPUS:g} CPUs): Docker starts no container with it"
    if given.nodes and replicas(given.service) > given.nodes * TASKS_PER_NODE:
        yield f"scaleFactor asks for more tasks than the nodes can take ({TASKS_PER_NODE} each)"


def unsuited_note(platforms: Iterable[Platform], nodes: Iterable[str]) -> str:
    """Return what to say of an image that some nodes cannot run."""
    told = dict.fromkeys(str(platform) for platform in platforms if platform.os != "unknown")
    return f"its image is for {', '.join(told) or 'no known platform'}: it cannot run on {', '.join(nodes)}"


def _remarks(given: Ingredients, mounts: tuple[Mount, ...]) -> Iterator[str]:
    record = given.service
    if replicas(record) > 1 and any(m.type == "volume" and m.driver != LOCAL_DRIVER for m in mounts):
        yield "several replicas, but a volume's data stays on its node: each node has its own"
    yield from lacking_options(mounts)
    for layer in given.layers:
        bundle = layer.bundle
        if bundle.type == "service" and bundle.service_id and bundle.service_id != record.id:
            yield f"secret bundle {bundle.id} is meant for service {bundle.service_id} only"
    ssh = [domain.name for domain in record.domains if domain.protocol == "ssh"]
    if ssh:
        yield f"not routed, since they are for ssh: {', '.join(ssh)}"
    yield from _placement_remarks(given)


def _placement_remarks(given: Ingredients) -> Iterator[str]:
    """Yield what keeps a service on some of the nodes."""
    if given.pin_to:
        yield "kept on this node: its image was loaded here and no registry has it"
    elif given.home:
        yield "kept on the node that has its data (COREFLOW_KEEP_ON_NODE)"
    if given.unsuited:
        yield unsuited_note(given.platforms, given.unsuited)
    if given.lacking:
        yield f"a volume driver that it needs is not active on {', '.join(given.lacking)}"
