"""Fingerprints: equal for equal bodies, different for every field, and by aspect."""

from typing import Any

import attrs
import pytest
from attrs import evolve

from coreflow.domain.ids import Owner
from coreflow.domain.swarm.specs import (
    ASPECT_FIELDS,
    Aspect,
    Attachment,
    HealthCheck,
    ImageSpec,
    Limits,
    Mount,
    PublishedPort,
    RestartPolicy,
    RollPolicy,
    SecretFile,
    ServiceBody,
    Stage,
    canonical,
    fingerprints,
    template_fingerprint,
)

MOUNT = Mount(
    type="volume", source="v", target="/v", driver="d", options={"a": "1", "b": "2"}, labels={"c": "3"}
)
HEALTH = HealthCheck(test=("CMD", "x"), interval_ns=1, timeout_ns=2, start_period_ns=3, retries=4)
BODY = ServiceBody(
    image="shop:1",
    command=("run",),
    args=("fast",),
    env=("A=1", "B=2"),
    secrets=(SecretFile("s1"),),
    mounts=(MOUNT, Mount(type="bind", source="/a", target="/a")),
    networks=(Attachment("n1", ("a", "b")), Attachment("n2")),
    replicas=2,
    endpoint_mode="dnsrr",
    ports=(PublishedPort(published=80, target=8080), PublishedPort(published=443, target=8443)),
    limits=Limits(memory_bytes=1, nano_cpus=2),
    reservations=Limits(memory_bytes=3, nano_cpus=4),
    constraints=("node.id==n",),
    max_per_node=1,
    health_check=HEALTH,
    restart=RestartPolicy(condition="any"),
    update=RollPolicy(on_failure="rollback"),
    rollback=RollPolicy(),
    other=(("ContainerSpec.TTY", "true"),),
)


def first_mount(**changes: Any) -> ServiceBody:
    """The body with another first mount."""
    return evolve(BODY, mounts=(evolve(MOUNT, **changes), BODY.mounts[1]))


def first_port(**changes: Any) -> ServiceBody:
    """The body with another first port."""
    return evolve(BODY, ports=(evolve(BODY.ports[0], **changes), BODY.ports[1]))


def part(name: str, **changes: Any) -> ServiceBody:
    """The body with another value in one of its parts."""
    return evolve(BODY, **{name: evolve(getattr(BODY, name), **changes)})


def secret(**changes: Any) -> ServiceBody:
    """The body with another secret."""
    return evolve(BODY, secrets=(evolve(BODY.secrets[0], **changes),))


CHANGES: list[tuple[str, ServiceBody, Aspect, bool]] = [
    # what changes, the changed body, its aspect, whether tasks are replaced for it
    ("image", evolve(BODY, image="shop:2"), Aspect.IMAGE, True),
    ("secrets", evolve(BODY, secrets=()), Aspect.SECRET, True),
    *[
        (f"secrets.{name}", secret(**{name: value}), Aspect.SECRET, True)
        for name, value in {"secret_name": "s2", "file_name": "f", "uid": "1", "gid": "1", "mode": 0o400}.items()
    ],
    ("mounts", evolve(BODY, mounts=()), Aspect.VOLUMES, True),
    *[
        (f"mounts.{name}", first_mount(**{name: value}), Aspect.VOLUMES, True)
        for name, value in {
            "type": "bind",
            "source": "w",
            "target": "/w",
            "read_only": True,
            "driver": "e",
            "options": {"a": "1"},
            "labels": {},
            "propagation": "rshared",
            "other": "{}",
        }.items()
    ],
    ("command", evolve(BODY, command=("walk",)), Aspect.REST, True),
    ("command and args", evolve(BODY, command=("run", "fast"), args=()), Aspect.REST, True),
    ("args", evolve(BODY, args=()), Aspect.REST, True),
    ("env", evolve(BODY, env=("A=1", "B=3")), Aspect.REST, True),
    ("order of env", evolve(BODY, env=("B=2", "A=1")), Aspect.REST, True),
    ("networks", evolve(BODY, networks=BODY.networks[:1]), Aspect.REST, True),
    ("networks.network", evolve(BODY, networks=(Attachment("n3", ("a", "b")), Attachment("n2"))), Aspect.REST, True),
    ("networks.aliases", evolve(BODY, networks=(Attachment("n1", ("a",)), Attachment("n2"))), Aspect.REST, True),
    ("replicas", evolve(BODY, replicas=3), Aspect.REST, False),
    ("global", evolve(BODY, replicas=None), Aspect.REST, False),
    ("endpoint_mode", evolve(BODY, endpoint_mode="vip"), Aspect.REST, False),
    ("ports", evolve(BODY, ports=BODY.ports[:1]), Aspect.REST, False),
    *[
        (f"ports.{name}", first_port(**{name: value}), Aspect.REST, False)
        for name, value in {"published": 81, "target": 81, "protocol": "udp", "mode": "host"}.items()
    ],
    ("limits.memory", evolve(BODY, limits=Limits(memory_bytes=9, nano_cpus=2)), Aspect.REST, True),
    ("limits.cpus", evolve(BODY, limits=Limits(memory_bytes=1)), Aspect.REST, True),
    ("reservations", evolve(BODY, reservations=Limits()), Aspect.REST, True),
    ("limits and reservations", evolve(BODY, limits=BODY.reservations, reservations=BODY.limits), Aspect.REST, True),
    ("constraints", evolve(BODY, constraints=()), Aspect.REST, True),
    ("max_per_node", evolve(BODY, max_per_node=0), Aspect.REST, True),
    ("health_check", evolve(BODY, health_check=None), Aspect.REST, True),
    *[
        (f"health_check.{name}", part("health_check", **{name: value}), Aspect.REST, True)
        for name, value in {"test": ("CMD",), "interval_ns": 9, "timeout_ns": 9, "start_period_ns": 9, "retries": 9}.items()
    ],
    *[
        (f"restart.{name}", part("restart", **{name: value}), Aspect.REST, True)
        for name, value in {"condition": "none", "delay_ns": 9, "max_attempts": 9, "window_ns": 9}.items()
    ],
    *[
        (f"{which}.{name}", part(which, **{name: value}), Aspect.REST, False)
        for which in ("update", "rollback")
        for name, value in {
            "parallelism": 9,
            "delay_ns": 9,
            "on_failure": "continue",
            "monitor_ns": 9,
            "max_failure_ratio": 0.5,
            "order": "start-first",
        }.items()
    ],
    ("other", evolve(BODY, other=()), Aspect.REST, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "aspect", "restarts"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_every_change_shows(body: ServiceBody, aspect: Aspect, restarts: bool) -> None:
    """A change of any field changes the whole fingerprint, that of its aspect and of no other, and the template's."""
    before, after = fingerprints(BODY), fingerprints(body)
    assert before.whole != after.whole
    assert [a for a in Aspect if before.aspect(a) != after.aspect(a)] == [aspect]
    assert (template_fingerprint(BODY) != template_fingerprint(body)) is restarts


def test_changes_are_all_different() -> None:
    """No two changes have the same fingerprint."""
    assert len({fingerprints(body).whole for _, body, _, _ in CHANGES}) == len(CHANGES)


def test_every_field_is_tested() -> None:
    """The table above names every field of a body and of its parts, and every field has one aspect."""
    tested = {name for name, *_ in CHANGES}
    fields = {field.name for field in attrs.fields(ServiceBody)}
    assert fields == {name for names in ASPECT_FIELDS.values() for name in names}
    parts = {
        "secrets": SecretFile,
        "mounts": Mount,
        "ports": PublishedPort,
        "health_check": HealthCheck,
        "networks": Attachment,
        "restart": RestartPolicy,
        "update": RollPolicy,
        "rollback": RollPolicy,
    }
    for name in fields:
        if name in parts:
            assert {f"{name}.{field.name}" for field in attrs.fields(parts[name])} <= tested
        else:
            assert {name, f"{name}.memory"} & tested


@pytest.mark.parametrize(
    "body",
    [
        evolve(BODY),
        evolve(BODY, networks=(Attachment("n2"), Attachment("n1", ("b", "a")))),
        evolve(BODY, ports=BODY.ports[::-1]),
        evolve(BODY, mounts=BODY.mounts[::-1]),
        first_mount(options={"b": "2", "a": "1"}),
    ],
)
def test_what_means_nothing(body: ServiceBody) -> None:
    """The order of networks, aliases, ports, mounts and options means nothing."""
    assert fingerprints(body) == fingerprints(BODY)
    assert template_fingerprint(body) == template_fingerprint(BODY)


def test_stable() -> None:
    """The fingerprints of a plain body are the same for ever: others would restart every service."""
    plain = fingerprints(ServiceBody(image="shop:1"))
    assert plain.whole == "v1:ef545b916a09bb10"
    assert plain.secret == plain.volumes == "e3b0c44298fc1c14"


def test_fingerprint_is_no_content() -> None:
    """A fingerprint is a version and 16 hexadecimal digits."""
    version, _, digits = fingerprints(BODY).whole.partition(":")
    assert version == "v1"
    assert len(bytes.fromhex(digits)) == 8


def test_canonical() -> None:
    """Canonical JSON has sorted keys, no spaces and plain UTF-8."""
    assert canonical({"b": [1, "ü"], "a": None}) == '{"a":null,"b":[1,"ü"]}'.encode()


def test_name_of_an_image() -> None:
    """The name of an image spec is its reference."""
    spec = ImageSpec(reference="i:1", owner=Owner("s"), stage=Stage.WORKLOADS, image_id="i", version="1")
    assert spec.name == "i:1"


def test_repr_hides_environment() -> None:
    """The repr of a body shows no variable, no driver option and nothing set by hand."""
    body = evolve(first_mount(options={"a": "hidden"}), env=("A=hidden",), other=(("x", "hidden"),))
    assert "hidden" not in repr(body)
