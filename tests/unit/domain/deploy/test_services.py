"""One service record becomes one Swarm service, or a list of reasons why not."""

from typing import Any

import pytest

from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.secrets import Layer, flatten
from coreflow.domain.deploy.services import Ingredients, Rendered, login_hash, render_workload
from coreflow.domain.ids import ClusterId, NodeId
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.converter import decode
from coreflow.domain.records.models import RegistryLogin, SecretBundleRecord, SecretGroupRecord, ServiceRecord
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import ArchiveImage, ImageRequest, RegistryImage, Rejected, ResolvedImage
from coreflow.domain.swarm.observed import Observed
from coreflow.domain.swarm.specs import (
    Attachment,
    HealthCheck,
    ImageSpec,
    Limits,
    RollPolicy,
    SecretFile,
    ServiceBody,
    Stage,
    fingerprints,
)

Json = dict[str, Any]
C1 = ClusterId("c1")
DIGEST = "sha256:" + "0" * 64
MIB = 1024 * 1024
LOGIN = RegistryLogin(serveraddress="r.example.com", username="puller", password="hidden")
PLAIN = RegistryImage(request=ImageRequest("r.example.com/shop:1"))


def render(data: Json | None = None, *, digest: str | None = DIGEST, **given: Any) -> Rendered:
    """Render a service named shop."""
    record = decode({"id": "svc-shop", "name": "shop", **(data or {})}, ServiceRecord)
    return render_workload(
        Ingredients(**{"cluster": C1, "service": record, "source": PLAIN, "digest": digest, **given})
    )


def body(data: Json | None = None) -> ServiceBody:
    """The body of a service named shop."""
    return render(data).service.body


def reasons(data: Json, **given: Any) -> tuple[str, ...]:
    """Why the record is rejected."""
    with pytest.raises(Rejected) as caught:
        render(data, **given)
    return caught.value.reasons


def layer(value: str, identity: str = "b", **bundle: Any) -> Layer:
    """What a bundle of one group gives."""
    group = decode(
        {"id": "g", "key": "KEY", "environments": {"production": {"value": value}}}, SecretGroupRecord
    )
    return flatten(decode({"id": identity, **bundle}, SecretBundleRecord), (group,), "production")


def test_smallest() -> None:
    """A record of a name alone: one replica, 1000 MB, the public network, rolled back when it fails."""
    rendered = render()
    expected = ServiceBody(
        image=f"r.example.com/shop:1@{DIGEST}",
        networks=(Attachment("sznwebgateway", ("shop",)),),
        replicas=1,
        endpoint_mode="dnsrr",
        limits=Limits(memory_bytes=1_000_000_000),
        update=RollPolicy(on_failure="rollback", order="start-first"),
        rollback=RollPolicy(on_failure="pause", order="start-first"),
    )
    spec = rendered.service
    assert spec.body == expected
    assert (spec.name, spec.cluster, spec.owner, spec.stage) == ("shop", "c1", "svc-shop", Stage.WORKLOADS)
    assert spec.fingerprints == fingerprints(expected)
    assert (spec.login, rendered.secret, rendered.image, rendered.notes) == (None, None, None, ())


def test_without_digest() -> None:
    """An image without a known digest runs by its tag."""
    assert render(digest=None).service.body.image == "r.example.com/shop:1"


def test_archive() -> None:
    """An image of Cloudly's store comes with the archive to load, and is kept on the node that has it."""
    source = ArchiveImage(reference="i:1", image_id="i", version="1", storage_path="i/1.tar")
    rendered = render(source=source, digest=None, pin_to=NodeId("n1"))
    assert rendered.image == ImageSpec(
        reference="i:1",
        owner=rendered.service.owner,
        stage=Stage.WORKLOADS,
        image_id="i",
        version="1",
        storage_path="i/1.tar",
    )
    assert rendered.service.body.image == "i:1"
    assert rendered.service.body.constraints == ("node.id==n1",)
    assert rendered.notes == ("kept on this node: its image was loaded here and no registry has it",)


def test_login() -> None:
    """The login of the image's source is the service's; its hash has a salt, and is empty without a login."""
    source = RegistryImage(request=ImageRequest("r.example.com/shop:1", LOGIN))
    assert render(source=source).service.login == LOGIN
    assert login_hash(C1, None) == ""
    one, salted = login_hash(C1, LOGIN), login_hash(ClusterId("c2"), LOGIN)
    other = login_hash(
        C1, RegistryLogin(serveraddress="r.example.com", username="puller", password="changed")
    )
    assert len({one, salted, other}) == 3


def test_secret() -> None:
    """The secret is named by its content, its service and its cluster, and is one file."""
    rendered, same = render(layers=(layer("one"),)), render(layers=(layer("one"),))
    assert rendered.secret is not None
    assert rendered.secret == same.secret
    assert rendered.secret.payload == b'{"KEY":"one"}'
    assert rendered.service.body.secrets == (SecretFile(rendered.secret.name, "secret.json"),)
    digest = naming.salted_hash("c1/svc-shop", rendered.secret.payload)
    assert rendered.secret.name == f"shop-{digest}"
    names = {
        render(layers=(layer("two"),)).secret,
        render(layers=(layer("one"),), cluster=ClusterId("c2")).secret,
        rendered.secret,
    }
    assert len({secret.name for secret in names if secret is not None}) == 3


def test_provisioned_alone() -> None:
    """What a binding returned is a secret even without a bundle; nothing at all is none."""
    assert render(provisioned={"KEY": "x"}).service.body.secrets
    assert not render(provisioned={}).service.body.secrets


def test_empty_bundle_is_a_secret() -> None:
    """A bundle without groups still gives the file, so that a program that reads it finds one."""
    empty = flatten(decode({"id": "b"}, SecretBundleRecord), (), "production")
    secret = render(layers=(empty,)).secret
    assert secret is not None
    assert secret.payload == b"{}"


def _group(key: str, **values: str) -> SecretGroupRecord:
    environments = {name: {"value": value} for name, value in values.items()}
    return decode({"id": key.lower(), "key": key, "environments": environments}, SecretGroupRecord)


@pytest.mark.parametrize(
    ("groups", "mounted", "lost"),
    [
        ((_group("KEY", prod="one"),), True, ["key"]),
        ((_group("KEY", prod="one"), _group("B", production="b")), True, []),
        ((_group("KEY", prod="two"),), True, []),
        ((_group("KEY", prod="one", production="one"),), True, []),
        ((_group("KEY"),), True, []),
        ((_group("KEY", prod="one"),), False, []),
    ],
    ids=["renamed", "with another change", "another value", "both", "no value at all", "not running"],
)
def test_a_variable_that_runs_is_not_lost_with_the_name_of_its_environment(
    groups: tuple[SecretGroupRecord, ...], mounted: bool, lost: list[str]
) -> None:
    """Where nothing but the name of the environment explains the change, what runs stays as it is."""
    there = render(layers=(layer("one"),)).secret
    assert there is not None
    wanted = flatten(decode({"id": "b"}, SecretBundleRecord), groups, "production")
    given: dict[str, Any] = {"layers": (wanted,), "mounted": (there.name,) if mounted else ()}
    if not lost:
        assert render(**given).secret is not None
        return
    assert reasons({}, **given) == tuple(
        f"secret group {g} has no value for environment production; it has values for: prod: what runs has "
        "that value, and would lose the variable"
        for g in lost
    )


def test_environment() -> None:
    """Variables are sorted by name, so that their order in the record restarts nothing."""
    assert body({"environment": {"B": "2", "A": "1=1"}}).env == ("A=1=1", "B=2")


@pytest.mark.parametrize(
    ("data", "replicas"),
    [
        ({}, 1),
        ({"scaleFactor": 0}, 0),
        ({"scaleFactor": 3}, 3),
        ({"scaleFactor": -2}, 0),
        ({"scaleFactor": 5, "maxReplicas": 3}, 3),
        ({"scaleFactor": 2, "maxReplicas": 3}, 2),
        ({"maxReplicas": 0}, 0),
        ({"maxReplicas": -1}, 0),
    ],
)
def test_replicas(data: Json, replicas: int) -> None:
    """One replica unless the record says otherwise, never fewer than none nor more than the most."""
    assert body(data).replicas == replicas


@pytest.mark.parametrize(
    ("resources", "limit", "reserved"),
    [
        (None, (1_000_000_000, 0), (0, 0)),
        ({}, (1_000_000_000, 0), (0, 0)),
        ({"memorySizeLimitMB": 768, "memorySizeMB": 500}, (768_000_000, 0), (0, 0)),
        ({"memorySizeMB": 500}, (500_000_000, 0), (0, 0)),
        ({"memorySizeLimitMB": 0.5, "memorySizeMB": 500}, None, None),
        ({"memorySizeReservationMB": 256.5}, (1_000_000_000, 0), (256_500_000, 0)),
        ({"memorySizeLimitMB": 100, "memorySizeReservationMB": 100}, (100_000_000, 0), (100_000_000, 0)),
        ({"cpuLimit": 1.5, "cpuReservation": 0.1}, (1_000_000_000, 1_500_000_000), (0, 100_000_000)),
        ({"cpuReservation": 2}, (1_000_000_000, 0), (0, 2_000_000_000)),
    ],
)
def test_resources(
    resources: Json | None, limit: tuple[int, int] | None, reserved: tuple[int, int] | None
) -> None:
    """The limit, else its old name, else 1000 MB; CPUs in billionths; no reservation unless asked for."""
    if limit is None:
        assert len(reasons({"resources": resources})) == 1
        return
    found = body({"resources": resources})
    assert (found.limits.memory_bytes, found.limits.nano_cpus) == limit
    assert (found.reservations.memory_bytes, found.reservations.nano_cpus) == reserved


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memorySizeLimitMB": 6}, ("resources.memorySizeLimitMB is below 6 MiB, the least that Docker starts a container with",)),
        ({"memorySizeMB": 0}, ("resources.memorySizeMB is below 6 MiB, the least that Docker starts a container with",)),
        ({"cpuLimit": -1}, ("resources.cpuLimit is negative",)),
        ({"cpuLimit": -1e-12}, ("resources.cpuLimit is negative",)),
        ({"cpuLimit": 0.001}, ("resources.cpuLimit is below 0.01 CPU, the least that Docker starts a container with",)),
        ({"cpuLimit": 1e-12}, ("resources.cpuLimit is below 0.01 CPU, the least that Docker starts a container with",)),
        ({"cpuReservation": -1}, ("resources.cpuReservation is negative",)),
        ({"cpuReservation": 0.0001}, ("resources.cpuReservation is below 0.001 CPU, the least that Swarm takes",)),
        ({"memorySizeReservationMB": -1}, ("resources.memorySizeReservationMB is negative",)),
        ({"memorySizeReservationMB": 4}, ("resources.memorySizeReservationMB is below 4 MiB, the least that Swarm takes",)),
        ({"memorySizeReservationMB": 1001}, ("resources.memorySizeReservationMB: more memory is reserved than the limit allows",)),
        ({"cpuLimit": 1, "cpuReservation": 1.5}, ("resources.cpuReservation: more CPU is reserved than the limit allows",)),
    ],
)  # fmt: skip
def test_bad_resources(resources: Json, expected: tuple[str, ...]) -> None:
    """Limits that Docker or common sense refuse reject the record."""
    assert reasons({"resources": resources}) == expected


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ({"command": "true"}, HealthCheck(test=("CMD-SHELL", "true"))),
        ({"command": ["curl", "x"]}, HealthCheck(test=("CMD", "curl", "x"))),
        ({"command": ["CMD", "curl"]}, HealthCheck(test=("CMD", "curl"))),
        ({"command": ["NONE"]}, HealthCheck(test=("NONE",))),
        (
            {
                "command": "x",
                "intervalSeconds": 1.5,
                "timeoutSeconds": 2,
                "startPeriodSeconds": 3,
                "retries": 4,
            },
            HealthCheck(
                test=("CMD-SHELL", "x"),
                interval_ns=1_500_000_000,
                timeout_ns=2_000_000_000,
                start_period_ns=3_000_000_000,
                retries=4,
            ),
        ),
    ],
)
def test_health_check(check: Json, expected: HealthCheck) -> None:
    """A text is for the shell, a list is a command; seconds become nanoseconds."""
    assert body({"healthCheck": check}).health_check == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ([], "healthCheck.command is empty"),
        ("", "healthCheck.command is empty"),
        ("  \n", "healthCheck.command is empty"),
        (["", "true"], "healthCheck.command names no program to run"),
        (["CMD"], "healthCheck.command names no program to run"),
        (["CMD", " ", "x"], "healthCheck.command names no program to run"),
        (["CMD-SHELL"], "healthCheck.command: CMD-SHELL takes one string"),
        (["CMD-SHELL", "test", "-f"], "healthCheck.command: CMD-SHELL takes one string"),
        (["CMD-SHELL", " "], "healthCheck.command is empty"),
        ("# later\n\n # or never", "healthCheck.command says nothing to the shell"),
        ("NONE", "healthCheck.command: CMD, CMD-SHELL and NONE are words of a list"),
        ("CMD curl x", "healthCheck.command: CMD, CMD-SHELL and NONE are words of a list"),
        (["NONE", "x"], "healthCheck.command: NONE means no check and stands alone"),
        (["a", "b\0"], "healthCheck.command contains a null character"),
        (["x" * 131072], "healthCheck.command has a word of 131072 bytes or more"),
    ],
)
def test_health_checks_that_mean_nothing(command: object, expected: str) -> None:
    """What the engine would not run, or run without a meaning, is rejected with the path."""
    (reason,) = reasons({"healthCheck": {"command": command}})
    assert reason.startswith(expected)


@pytest.mark.parametrize("name", ["intervalSeconds", "timeoutSeconds", "startPeriodSeconds", "retries"])
def test_no_check_has_no_times(name: str) -> None:
    """Times and retries beside NONE are a misunderstanding."""
    assert reasons({"healthCheck": {"command": ["NONE"], name: 1}}) == (
        f"healthCheck.{name} means nothing with NONE",
    )
    assert body({"healthCheck": {"command": ["NONE"], name: 0}}).health_check is not None


def test_variables_that_no_program_can_be_started_with() -> None:
    """A variable with its name has less than 128 KiB, counted in bytes."""
    assert body({"environment": {"A": "x" * (131072 - 3)}}).env
    (reason,) = reasons({"environment": {"A": "ü" * 65536}})
    assert (
        reason == "environment.A has 131072 bytes or more with its name, which no program can be started with"
    )


def test_names_of_variables_are_shown_on_one_line() -> None:
    """However a variable is called, the reason is one short line, without what may be a value."""
    (reason,) = reasons({"environment": {"A" + "x" * 200: "\0"}})
    assert reason == f"environment.A{'x' * 79}… contains a null character"
    for key in ("A\n" + "x" * 500, "A:hunter2", "A hunter2"):
        (reason,) = reasons({"environment": {key: "\0"}})
        assert reason == "environment.(not shown) contains a null character"


def test_a_service_that_could_never_be_changed() -> None:
    """Swarm keeps two specs in one message: what is too large for that is rejected, braces counted as sent."""
    half = {f"A{number}": "x" * 99_000 for number in range(7)}
    assert body({"environment": half}).env
    (reason,) = reasons({"environment": {**half, "B": "{{" * 2_000}})
    assert reason.startswith("environment, volumes and healthCheck have 7")


def test_more_than_the_nodes_can_do() -> None:
    """A limit of more CPUs than any node has, and more tasks than the nodes can take, are rejected."""
    assert reasons({"resources": {"cpuLimit": 3}}, most_nano_cpus=2_000_000_000) == (
        "resources.cpuLimit is more than any node has (2 CPUs): Docker starts no container with it",
    )
    assert reasons({"scaleFactor": 2001}, nodes=2) == (
        "scaleFactor asks for more tasks than the nodes can take (1000 each)",
    )


@pytest.mark.parametrize(
    ("data", "order"),
    [
        ({}, "start-first"),
        ({"volumes": [{"mountPath": "/data"}]}, "stop-first"),
        ({"volumes": [{"mountPath": "/data", "readOnly": True}]}, "start-first"),
        ({"resources": {"volumeMounts": [{"hostFsPath": "/a", "containerFsPath": "/b"}]}}, "stop-first"),
    ],
)
def test_order(data: Json, order: str) -> None:
    """The new task starts first, unless two tasks at once could fight over data."""
    found = body(data)
    assert (found.update, found.rollback) == (
        RollPolicy(on_failure="rollback", order=order),
        RollPolicy(on_failure="pause", order=order),
    )


def test_anti_affinity() -> None:
    """A service that is spread has at most one task per node."""
    assert (body({"antiAffinity": True}).max_per_node, body().max_per_node) == (1, 0)


PORT = "is not a port (1 to 65535)"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"ports": {"web": 0}}, f"ports.web {PORT}"),
        ({"ports": {"web": 65536}}, f"ports.web {PORT}"),
        ({"domains": ["a.example.com"]}, "domains[0] has no port, and ports.web is missing"),
        ({"domains": [{"name": "a.example.com", "port": 0}]}, f"domains[0].port {PORT}"),
        ({"ports": {"custom": {"a.example.com": "x"}}}, f"ports.custom.a.example.com {PORT}"),
        ({"ports": {"custom": {"a.example.com": "0"}}}, f"ports.custom.a.example.com {PORT}"),
        ({"ports": {"custom": {"a.example.com": "9" * 5000}}}, f"ports.custom.a.example.com {PORT}"),
        ({"ports": {"custom": {"a.example.com": "٣"}}}, f"ports.custom.a.example.com {PORT}"),
        ({"ports": {"custom": {"a b": "80"}}}, "ports.custom.(not shown) is not a host name"),
        ({"ports": {"web": 80}, "domains": [" . "]}, "domains[0].name is empty"),
        ({"ports": {"web": 80}, "domains": ["-a.example.com"]}, "domains[0].name is not a host name"),
        ({"ports": {"web": 80}, "domains": ["a*.example.com"]}, "domains[0].name is not a host name"),
        ({"ports": {"web": 80}, "domains": ["https://a.example.com"]}, "domains[0].name is not a host name"),
        ({"ports": {"web": 80}, "domains": [".".join(["a" * 60] * 5)]}, "domains[0].name is not a host name"),
        (
            {"ports": {"web": 80}, "domains": ["a.example.com", "A.example.com."]},
            "domains[1].name: the host name a.example.com occurs twice",
        ),
        (
            {"ports": {"web": 80, "custom": {"a.example.com": "81"}}, "domains": ["a.example.com"]},
            "ports.custom.a.example.com: the host name a.example.com occurs twice",
        ),
        ({"name": "my shop"}, "name is not usable as a service name (letters, digits, - and _, at most 63)"),
        ({"environment": {"": "x"}}, "environment: a variable's name is empty or contains = or a null character"),
        ({"environment": {"A=B": "x"}}, "environment: a variable's name is empty or contains = or a null character"),
        ({"environment": {"A": "\0"}}, "environment.A contains a null character"),
        ({"healthCheck": {"command": []}}, "healthCheck.command is empty"),
        ({"healthCheck": {"command": [""]}}, "healthCheck.command is empty"),
        ({"volumes": [{"mountPath": "x"}]}, "volumes[0].mountPath is not an absolute path"),
    ],
)  # fmt: skip
def test_problems(data: Json, expected: str) -> None:
    """What Swarm would take and what would then not work rejects the record, by field and without its value."""
    assert reasons(data) == (expected,)


@pytest.mark.parametrize(
    ("data", "hosts"),
    [
        ({}, ()),
        ({"domains": ["A.Example.com. "]}, (("a.example.com", 80),)),
        ({"domains": ["*.example.com", "localhost"]}, (("*.example.com", 80), ("localhost", 80))),
        ({"domains": [{"name": "!", "protocol": "ssh"}, {"name": "b.example.com", "port": 81}]}, (("b.example.com", 81),)),
        ({"ports": {"web": 80, "custom": {"B.example.com": " 81 "}}, "domains": ["a.example.com"]}, (("a.example.com", 80), ("b.example.com", 81))),
    ],
)  # fmt: skip
def test_hosts(data: Json, hosts: tuple[tuple[str, int], ...]) -> None:
    """Host names are compared in one spelling, and each has its port; what is for ssh is no web address."""
    assert render({"ports": {"web": 80}, **data}).hosts == hosts


def test_all_problems() -> None:
    """Every problem is found in one go: of the record, of its mounts and of its secrets."""
    data = {
        "name": "!",
        "ports": {"web": 0},
        "resources": {"cpuReservation": -1},
        "volumes": [{"mountPath": "x"}],
    }
    assert len(reasons(data, layers=(layer("x" * 600_000),))) == 5


def test_secret_that_is_no_text() -> None:
    """A provisioned value that UTF-8 cannot spell rejects the record, without a trace of the value."""
    assert reasons({}, provisioned={"KEY": "\ud800"}) == ("a secret value is not valid Unicode text",)


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        ({"scaleFactor": 2, "volumes": [{"mountPath": "/data"}]}, 1),
        ({"scaleFactor": 2, "volumes": [{"mountPath": "/data", "driver": "local"}]}, 0),
        ({"scaleFactor": 1, "volumes": [{"mountPath": "/data"}]}, 0),
        ({"scaleFactor": 2, "resources": {"volumeMounts": [{"hostFsPath": "/a", "containerFsPath": "/b"}]}}, 0),
    ],
)  # fmt: skip
def test_remark_on_volumes(data: Json, notes: int) -> None:
    """Several replicas with a volume of the node are worth a remark."""
    assert len(render(data).notes) == notes


@pytest.mark.parametrize(
    ("bundle", "notes"),
    [
        ({"type": "service", "serviceId": "other"}, ("secret bundle b is meant for service other only",)),
        ({"type": "service", "serviceId": "svc-shop"}, ()),
        ({"type": "service"}, ()),
        ({"type": "external", "serviceId": "other"}, ()),
    ],
)
def test_remark_on_bundles(bundle: Json, notes: tuple[str, ...]) -> None:
    """A bundle that belongs to another service is used, with a remark."""
    assert render(layers=(layer("x", **bundle),)).notes == notes


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"healthCheck": {"command": "true", "intervalSeconds": -1}}, "healthCheck.intervalSeconds"),
        ({"healthCheck": {"command": "true", "timeoutSeconds": 0.0001}}, "healthCheck.timeoutSeconds"),
        ({"healthCheck": {"command": "true", "retries": -1}}, "healthCheck.retries"),
        ({"resources": {"cpuLimit": 0.0001}}, "below 0.01 CPU"),
        ({"healthCheck": {"command": "true", "retries": 2**63}}, "healthCheck.retries"),
        ({"resources": {"memorySizeLimitMB": 1e30}}, "too large"),
        ({"resources": {"memorySizeLimitMB": 1.7e308}}, "too large"),
        ({"resources": {"memorySizeLimitMB": -1.7e308}}, "below 6 MiB"),
        ({"resources": {"cpuLimit": 1.7e308}}, "too large"),
        ({"resources": {"cpuReservation": 1e300}}, "too large"),
        ({"scaleFactor": 2**63}, "scaleFactor is too large"),
    ],
)
def test_what_the_engine_would_refuse_is_rejected_with_the_reason(data: dict[str, Any], reason: str) -> None:
    """Durations, retries, CPUs and memory that no engine takes are named before anything is written."""
    document = {
        "configData": {"id": "c", "data": {}},
        "services": [{"id": "s", "data": {"name": "s", "registryTarget": {"imageUrl": "x:1"}, **data}}],
    }
    records = decode_records(document)
    renderer = Renderer(RenderOptions(base=BaseOptions(services=())))
    answers = {request: ResolvedImage(None) for request in renderer.image_requests(records, Observed())}
    [rejection] = renderer.render(records, Observed(), answers).rejections
    assert reason in " ".join(rejection.reasons)


@pytest.mark.parametrize(
    "path", ["/run/secrets/secret.json", "/run//secrets/x/../secret.json/", "/run/secrets/secret.json/x"]
)
def test_a_volume_where_the_secrets_are(path: str) -> None:
    """A volume is a directory: it cannot be where the file has to be, nor below it. Without secrets it can."""
    data = {"volumes": [{"mountPath": path, "driver": "local"}]}
    (reason,) = reasons(data, layers=(layer("v"),))
    assert reason.endswith("is in the way of the secrets, which are a file at /run/secrets/secret.json")
    assert body(data).mounts


@pytest.mark.parametrize("path", ["/run", "/run/secrets"])
def test_a_sealed_volume_around_the_secrets(path: str) -> None:
    """A file cannot be made in a volume that is read-only; in one that is not, or beside it, it can."""
    data = {"volumes": [{"mountPath": path, "driver": "local", "readOnly": True}]}
    (reason,) = reasons(data, layers=(layer("v"),))
    assert reason.startswith(f"the volume at {path} is read-only, and the secrets have to become a file")
    assert body(data).mounts
    for volume in ({"mountPath": path}, {"mountPath": "/run/x", "readOnly": True}):
        rendered = render({"volumes": [{"driver": "local", **volume}]}, layers=(layer("v"),))
        assert rendered.service.body.mounts


@pytest.mark.parametrize(
    ("path", "is_rejected"), [("/run/secrets/secret.json", False), ("/run/secrets/secret.json/x", True)]
)
def test_a_bind_mount_where_the_secrets_are(path: str, *, is_rejected: bool) -> None:
    """A bind mount may be a file, too, which the secrets then cover."""
    data = {"resources": {"volumeMounts": [{"hostFsPath": "/etc/hostname", "containerFsPath": path}]}}
    if is_rejected:
        assert len(reasons(data, layers=(layer("v"),))) == 1
    else:
        assert render(data, layers=(layer("v"),)).service.body.secrets


def test_a_volume_around_the_secrets() -> None:
    """Docker puts the file into it."""
    data = {"volumes": [{"mountPath": "/run/secrets", "driver": "local"}]}
    assert render(data, layers=(layer("v"),)).service.body.secrets
