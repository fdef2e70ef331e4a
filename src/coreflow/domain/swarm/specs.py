"""Objects as we want Docker to hold them: one frozen value per object, and its fingerprint.

`ServiceBody` is everything about a Swarm service that coreflow decides. The same class describes what is *live*: the
engine's answer is read back into a `ServiceBody`, engine defaults included. So both questions that decide about a
write are comparisons of one kind of fingerprint: does the label equal the desired fingerprint (did the intent
change?), and does the live body's fingerprint equal it too (has the object drifted?).

A fingerprint covers four aspects, each with a hash of its own, so that a plan can name what changed. The canonical
form is JSON with sorted keys; a change of it, or of the rendering, restarts services in production and therefore
shows as a diff of `tests/unit/golden/`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, NewType

import orjson
from attrs import field, frozen

from coreflow.domain.ids import ClusterId, NodeId, Owner
from coreflow.domain.records.models import RegistryLogin

ON_NODE = "node.id=="
"""How a constraint begins that keeps a service on one node."""


def kept_on(constraints: Iterable[str]) -> tuple[NodeId, ...]:
    """The nodes that constraints keep a service on: none or one, unless somebody else made them."""
    return tuple(NodeId(c.removeprefix(ON_NODE)) for c in constraints if c.startswith(ON_NODE))


Fingerprint = NewType("Fingerprint", str)
FINGERPRINT_VERSION = "v1"


class Stage(StrEnum):
    """The parts of a pass, in their order."""

    BASE = "base"
    WORKLOADS = "workloads"


class Aspect(StrEnum):
    """The parts of a service that have a fingerprint of their own."""

    IMAGE = "image"
    SECRET = "secret"
    VOLUMES = "volumes"
    REST = "rest"


@frozen
class SecretFile:
    """A secret as a file below `/run/secrets`."""

    secret_name: str
    file_name: str = "secret.json"
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444


@frozen(kw_only=True)
class Mount:
    """A directory of the node (`bind`) or a volume in the container. Driver, options and labels are for volumes."""

    type: str
    source: str
    target: str
    read_only: bool = False
    driver: str = ""
    options: Mapping[str, str] = field(factory=dict, repr=False)
    labels: Mapping[str, str] = field(factory=dict)
    propagation: str = ""
    other: str = ""
    """Settings that coreflow never makes, as canonical JSON; empty unless somebody made them by hand."""


@frozen
class Attachment:
    """A network that a service's tasks join, and the names they have there. `network` is a name, not an id."""

    network: str
    aliases: tuple[str, ...] = ()


@frozen(kw_only=True)
class PublishedPort:
    """A port of the node, or of all nodes (`ingress`), that leads to a port of the container."""

    published: int
    target: int
    protocol: str = "tcp"
    mode: str = "ingress"


@frozen(kw_only=True)
class Limits:
    """Memory in bytes and CPU in billionths of a CPU; 0 means none."""

    memory_bytes: int = 0
    nano_cpus: int = 0


@frozen(kw_only=True)
class HealthCheck:
    """A command run inside the container; durations in nanoseconds, 0 means the engine's default."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    retries: int = 0


@frozen(kw_only=True)
class RollPolicy:
    """The policy by which an update, or its roll-back, replaces tasks. Durations in nanoseconds."""

    parallelism: int = 1
    delay_ns: int = 0
    on_failure: str = "pause"
    monitor_ns: int = 5_000_000_000
    max_failure_ratio: float = 0.0
    order: str = "stop-first"


@frozen(kw_only=True)
class RestartPolicy:
    """The policy by which a task that ended is started again. Durations in nanoseconds; 0 attempts means without limit."""

    condition: str = "any"
    delay_ns: int = 5_000_000_000
    max_attempts: int = 0
    window_ns: int = 0


@frozen
class Platform:
    """The platform that an image runs on, as Swarm's scheduler asks for it. Without an architecture, any will do."""

    os: str
    architecture: str = ""

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" if self.architecture else self.os


NO_LIMITS = Limits()
_RESTART = RestartPolicy()
_ROLL = RollPolicy()


@frozen(kw_only=True)
class ServiceBody:
    """Everything about a Swarm service that coreflow decides, or finds decided by somebody else."""

    image: str
    """The reference, with its digest where it is known."""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = field(default=(), repr=False)
    secrets: tuple[SecretFile, ...] = ()
    mounts: tuple[Mount, ...] = ()
    networks: tuple[Attachment, ...] = ()
    replicas: int | None = 1
    """The number of tasks, or None for one task on every node (a global service)."""
    endpoint_mode: str = "vip"
    ports: tuple[PublishedPort, ...] = ()
    limits: Limits = NO_LIMITS
    reservations: Limits = NO_LIMITS
    constraints: tuple[str, ...] = ()
    max_per_node: int = 0
    health_check: HealthCheck | None = None
    restart: RestartPolicy = _RESTART
    update: RollPolicy = _ROLL
    rollback: RollPolicy = _ROLL
    other: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Settings that coreflow never makes: (engine path, canonical JSON). Empty unless somebody made them by hand."""


ASPECT_FIELDS: Mapping[Aspect, tuple[str, ...]] = {
    Aspect.IMAGE: ("image",),
    Aspect.SECRET: ("secrets",),
    Aspect.VOLUMES: ("mounts",),
    Aspect.REST: (
        "command",
        "args",
        "env",
        "networks",
        "replicas",
        "endpoint_mode",
        "ports",
        "limits",
        "reservations",
        "constraints",
        "max_per_node",
        "health_check",
        "restart",
        "update",
        "rollback",
        "other",
    ),
}
"""Which fields of a body belong to which aspect; together they are all of them."""


def _volume(m: Mount) -> list[Any]:
    return [m.type, m.source, m.target, m.read_only, m.driver, m.options, m.labels, m.propagation, m.other]


def _roll(p: RollPolicy) -> list[Any]:
    return [p.parallelism, p.delay_ns, p.on_failure, p.monitor_ns, p.max_failure_ratio, p.order]


def _rest(b: ServiceBody) -> list[Any]:
    """The canonical form of everything but image, secrets and mounts. The order of networks and ports means nothing."""
    health = b.health_check
    return [
        b.command,
        b.args,
        b.env,
        sorted([n.network, sorted(n.aliases)] for n in b.networks),
        b.replicas,
        b.endpoint_mode,
        sorted([p.published, p.target, p.protocol, p.mode] for p in b.ports),
        [b.limits.memory_bytes, b.limits.nano_cpus],
        [b.reservations.memory_bytes, b.reservations.nano_cpus],
        b.constraints,
        b.max_per_node,
        health
        and [health.test, health.interval_ns, health.timeout_ns, health.start_period_ns, health.retries],
        [b.restart.condition, b.restart.delay_ns, b.restart.max_attempts, b.restart.window_ns],
        _roll(b.update),
        _roll(b.rollback),
        b.other,
    ]


def canonical(value: object) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@frozen
class Fingerprints:
    """The fingerprint of a body and those of its aspects (image, secret, volumes, rest)."""

    whole: Fingerprint
    image: str
    secret: str
    volumes: str
    rest: str

    def aspect(self, aspect: Aspect) -> str:
        """The hash of one aspect."""
        value: str = getattr(self, aspect.value)
        return value


def fingerprints(body: ServiceBody) -> Fingerprints:
    """Compute the fingerprints of a body. Equal bodies have equal fingerprints, in every process and version."""
    image = _hash(body.image.encode())
    secret = _hash(
        canonical([[s.secret_name, s.file_name, s.uid, s.gid, s.mode] for s in body.secrets])
        if body.secrets
        else b""
    )
    volumes = _hash(canonical(sorted(map(_volume, body.mounts), key=_target)) if body.mounts else b"")
    rest = _hash(canonical(_rest(body)))
    whole = _hash(f"{image}{secret}{volumes}{rest}".encode())
    return Fingerprints(Fingerprint(f"{FINGERPRINT_VERSION}:{whole}"), image, secret, volumes, rest)


def template_fingerprint(body: ServiceBody) -> Fingerprint:
    """The fingerprint of what a task carries of its service: equal templates replace no tasks."""
    rest = _rest(body)
    parts = [
        body.image,
        [[s.secret_name, s.file_name, s.uid, s.gid, s.mode] for s in body.secrets],
        sorted(map(_volume, body.mounts), key=_target),
        *(rest[index] for index in _TEMPLATE_PARTS),
    ]
    return Fingerprint(f"{FINGERPRINT_VERSION}:{_hash(canonical(parts))}")


_TEMPLATE_PARTS = (0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 15)
"""Which parts of `_rest` travel with a task: not replicas, ports, endpoint mode and the policies of the service."""


def _target(volume: list[Any]) -> str:
    target: str = volume[2]
    return target


@frozen(kw_only=True)
class NetworkSpec:
    """An overlay network. `subnet` only matters when the network is made; an existing one is left as it is."""

    name: str
    cluster: ClusterId
    owner: Owner
    stage: Stage
    subnet: str | None = None
    attachable: bool = True
    kind: Literal["network"] = "network"


@frozen(kw_only=True)
class SecretSpec:
    """A Docker secret. Its name carries a hash of its content, so it never changes."""

    name: str
    cluster: ClusterId
    owner: Owner
    stage: Stage
    payload: bytes = field(repr=False)
    kind: Literal["secret"] = "secret"


@frozen(kw_only=True)
class ImageSpec:
    """An image whose archive has to be loaded into the engine under the tag `reference`."""

    reference: str
    owner: Owner
    stage: Stage
    image_id: str
    version: str
    storage_path: str | None = None
    kind: Literal["image"] = "image"

    @property
    def name(self) -> str:
        """The reference."""
        return self.reference


@frozen(kw_only=True)
class ServiceSpec:
    """A Swarm service as we want it: its name, its body, and how to fetch its image."""

    name: str
    cluster: ClusterId
    owner: Owner
    stage: Stage
    body: ServiceBody
    fingerprints: Fingerprints
    login: RegistryLogin | None = None
    """Credentials that the nodes use to pull the image."""
    login_hash: str = ""
    """What the label remembers of the login; empty without one."""
    platforms: tuple[Platform, ...] = ()
    """What its image runs on, if that is known. An observation, not a wish: it is sent along with a change and is none
    itself, so it is no part of the body and of the fingerprints."""
    seal: str = field(init=False, repr=False)
    """What a live service's seal must be for nothing to be done."""
    kind: Literal["service"] = "service"

    @seal.default
    def _sealed(self) -> str:
        whole = self.fingerprints.whole
        return seal(whole, whole, self.login_hash, self.owner)


def seal(intent: str, live: str, login: str, owner: str) -> str:
    """Everything that must agree for a service to be left alone, in one text: one comparison per service."""
    return f"{intent} {live} {login} {owner}"


Spec = NetworkSpec | SecretSpec | ImageSpec | ServiceSpec
