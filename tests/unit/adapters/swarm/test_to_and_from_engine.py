"""Specs to the engine's JSON and back: nothing is lost, nothing the engine adds looks like a change."""

import base64
import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit import references

from coreflow.adapters.engine.memory.containers import Context, expanded
from coreflow.adapters.engine.memory.echo import stored_service
from coreflow.adapters.swarm.from_engine import (
    image_platforms,
    observed_network,
    observed_node,
    observed_secret,
    observed_service,
    observed_task,
    rolled_back,
    service_body,
)
from coreflow.adapters.swarm.to_engine import (
    network_document,
    registry_auth,
    secret_document,
    service_document,
)
from coreflow.domain.ids import BASE, ClusterId, Owner
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.specs import (
    Attachment,
    HealthCheck,
    Limits,
    Mount,
    NetworkSpec,
    Platform,
    PublishedPort,
    RestartPolicy,
    RollPolicy,
    SecretFile,
    SecretSpec,
    ServiceBody,
    ServiceSpec,
    Stage,
    fingerprints,
    template_fingerprint,
)

Json = dict[str, Any]
C1 = ClusterId("c1")
NAMES = {"id-n1": "n1", "id-n2": "n2"}
"""Networks by id."""


def spec_of(body: ServiceBody, login_hash: str = "") -> ServiceSpec:
    """The spec of a service named shop."""
    return ServiceSpec(
        name="shop",
        cluster=C1,
        owner=Owner("svc-shop"),
        stage=Stage.WORKLOADS,
        body=body,
        fingerprints=fingerprints(body),
        login_hash=login_hash,
    )


def stored(body: ServiceBody) -> Json:
    """What the engine has after it was sent a body."""
    ids = {file.secret_name: f"id-{file.secret_name}" for file in body.secrets}
    document = service_document(spec_of(body), secret_ids=ids)
    return stored_service(json.loads(json.dumps(document)), lambda name: f"id-{name}")


WORDS = st.text(st.sampled_from('abcÄ=/ .-_1{}"'), min_size=1, max_size=6) | st.just('{{"{{"}}')
TEXTS = st.lists(WORDS, max_size=3).map(tuple)
COUNTS = st.integers(0, 3)
NANOSECONDS = st.integers(0, 10**12)
DURATIONS = st.just(0) | st.integers(10**6, 10**12)
MAPS = st.dictionaries(WORDS, st.text("ab{}", max_size=3), max_size=2)
LIMITS = st.builds(
    Limits,
    memory_bytes=st.just(0) | st.integers(4 * 1024 * 1024, 10**12),
    nano_cpus=st.just(0) | st.integers(10**6, 10**12),
)
ROLLS = st.builds(
    RollPolicy,
    parallelism=COUNTS,
    delay_ns=NANOSECONDS,
    on_failure=st.sampled_from(["pause", "continue", "rollback"]),
    monitor_ns=NANOSECONDS,
    max_failure_ratio=st.sampled_from([0.0, 0.25, 1.0]),
    order=st.sampled_from(["stop-first", "start-first"]),
)
BINDS = st.builds(
    Mount, type=st.just("bind"), source=WORDS, target=WORDS, read_only=st.booleans(),
    propagation=st.sampled_from(["", "rshared"]),
)  # fmt: skip
VOLUMES = st.builds(
    Mount, type=st.just("volume"), source=WORDS, target=WORDS, read_only=st.booleans(), driver=st.just("") | WORDS,
    options=MAPS, labels=MAPS,
)  # fmt: skip
BODIES = st.builds(
    ServiceBody,
    image=st.sampled_from(references.TAKEN),
    command=TEXTS,
    args=TEXTS,
    env=TEXTS,
    secrets=st.lists(st.builds(SecretFile, WORDS, WORDS, WORDS, WORDS, st.integers(0, 0o777)), max_size=2).map(tuple),
    mounts=st.lists(BINDS | VOLUMES, max_size=3, unique_by=lambda mount: mount.target).map(tuple),
    networks=st.lists(st.builds(Attachment, st.sampled_from(["n1", "n2"]), TEXTS), max_size=2).map(tuple),
    replicas=st.none() | COUNTS,
    endpoint_mode=st.sampled_from(["vip", "dnsrr"]),
    ports=st.lists(
        st.builds(
            PublishedPort,
            published=st.integers(0, 65535),
            target=st.integers(0, 65535),
            protocol=st.sampled_from(["tcp", "udp"]),
            mode=st.just("host"),
        ),
        max_size=2,
    ).map(tuple),
    limits=LIMITS,
    reservations=LIMITS,
    constraints=st.lists(st.sampled_from(["node.id==a", "node.role!=b c"]), max_size=2).map(tuple),
    max_per_node=COUNTS,
    health_check=st.none()
    | st.builds(
        HealthCheck,
        test=TEXTS.filter(bool),
        interval_ns=DURATIONS,
        timeout_ns=DURATIONS,
        start_period_ns=DURATIONS,
        retries=COUNTS,
    ),
    restart=st.builds(
        RestartPolicy,
        condition=st.sampled_from(["any", "none", "on-failure"]),
        delay_ns=NANOSECONDS,
        max_attempts=COUNTS,
        window_ns=NANOSECONDS,
    ),
    update=ROLLS,
    rollback=ROLLS,
)  # fmt: skip


@settings(max_examples=examples(300))
@given(BODIES)
def test_round_trip(body: ServiceBody) -> None:
    """What the engine stores reads back as exactly the body that was sent, so that nothing is ever sent twice."""
    found = service_body(stored(body), NAMES)
    assert found == body
    assert fingerprints(found) == fingerprints(body)


@pytest.mark.parametrize(
    "value", ["{{.Service.Name}}", "a{{", "{{{", "{{ x }}", '{{"{{"}}', "{{{{", "{{- }}"]
)
def test_braces_are_sent_so_that_they_arrive(value: str) -> None:
    """Swarm expands what is sent to the very text of the record, wherever it expands anything."""
    mount = Mount(
        type="volume", source="v", target=f"/{value}", driver="d", options={"o": value}, labels={"l": value}
    )
    bind = Mount(type="bind", source=f"/b{value}", target="/c")
    body = ServiceBody(image="shop:1", env=(f"{value}={value}",), mounts=(mount, bind))
    container = service_document(spec_of(body), secret_ids={})["TaskTemplate"]["ContainerSpec"]
    there = expanded(container, Context())
    assert there["Env"] == [f"{value}={value}"]
    assert [m["Target"] for m in there["Mounts"]] == [f"/{value}", "/c"]
    assert there["Mounts"][1]["Source"] == f"/b{value}"
    options = there["Mounts"][0]["VolumeOptions"]
    assert (options["Labels"], options["DriverConfig"]["Options"]) == ({"l": value}, {"o": value})
    assert service_body(stored(body), NAMES) == body


def test_what_swarm_expands_is_no_text() -> None:
    """A template that somebody else made, or a coreflow of old, is never taken for the text of a record."""
    body = ServiceBody(image="shop:1", env=("A={{.Service.Name}}",), mounts=(evolve(VOLUME, source="v"),))
    document = stored(body)
    container = document["TaskTemplate"]["ContainerSpec"]
    container["Env"] = ["A={{.Service.Name}}"]
    container["Mounts"][0]["VolumeOptions"] = {"Labels": {"l": "{{.Node.ID}}"}}
    found = service_body(document, NAMES)
    assert found.env == body.env
    assert found.other == (("env A (a template of Swarm's)", "true"),)
    assert found.mounts[0].other == '{" (a template of Swarm\'s)":["Labels.l"]}'


def plain() -> Json:
    """A plain service as the engine has it."""
    return stored(ServiceBody(image="shop:1", networks=(Attachment("n1"),), mounts=(VOLUME,)))


VOLUME = Mount(type="volume", source="v", target="/v", driver="d")


def put(document: Json, path: str, value: Any) -> Json:
    """Set a member, by its path of keys and indexes; the maps on the way are made."""
    *way, last = path.split("/")
    node: Any = document
    for key in way:
        node = node[int(key)] if key.isdigit() else node.setdefault(key, {})
    node[last] = value
    return document


CONTAINER = "TaskTemplate/ContainerSpec"


@pytest.mark.parametrize(
    ("path", "value", "name", "text"),
    [
        (f"{CONTAINER}/Labels", {"a": "b"}, "ContainerSpec.Labels", '{"a":"b"}'),
        (f"{CONTAINER}/Hostname", "h", "ContainerSpec.Hostname", '"h"'),
        (f"{CONTAINER}/User", "nobody", "ContainerSpec.User", '"nobody"'),
        (f"{CONTAINER}/TTY", True, "ContainerSpec.TTY", "true"),
        (f"{CONTAINER}/DNSConfig", {"Nameservers": ["1.1.1.1"], "Search": []}, "ContainerSpec.DNSConfig", '{"Nameservers":["1.1.1.1"]}'),
        (f"{CONTAINER}/Ulimits", [{"Name": "nofile", "Soft": 0}], "ContainerSpec.Ulimits", '[{"Name":"nofile"}]'),
        (f"{CONTAINER}/StopGracePeriod", 5, "ContainerSpec.StopGracePeriod", "5"),
        (f"{CONTAINER}/Healthcheck", {"StartInterval": 5}, "Healthcheck.StartInterval", "5"),
        ("TaskTemplate/Resources/Limits/Pids", 9, "Resources.Limits.Pids", "9"),
        ("TaskTemplate/Resources/Reservations/GenericResources", [{"x": 1}], "Resources.Reservations.GenericResources", '[{"x":1}]'),
        ("TaskTemplate/Placement/Preferences", [{"Spread": {"SpreadDescriptor": "x"}}], "Placement.Preferences", '[{"Spread":{"SpreadDescriptor":"x"}}]'),
        ("TaskTemplate/LogDriver", {"Name": "none"}, "LogDriver", '{"Name":"none"}'),
        ("TaskTemplate/Networks/0/DriverOpts", {"a": "b"}, "Networks.DriverOpts", '[{"a":"b"}]'),
    ],
)  # fmt: skip
def test_drift(path: str, value: Any, name: str, text: str) -> None:
    """What somebody set by hand and coreflow never sets shows, without its empty members."""
    body = service_body(put(plain(), path, value), NAMES)
    assert body.other == ((name, text),)
    assert fingerprints(body) != fingerprints(service_body(plain(), NAMES))


@pytest.mark.parametrize(
    ("member", "value", "other"),
    [
        ("VolumeOptions/NoCopy", True, '{"NoCopy":true}'),
        ("VolumeOptions/Subpath", "x", '{"Subpath":"x"}'),
        ("TmpfsOptions", {"SizeBytes": 1}, '{"Tmpfs":{"SizeBytes":1}}'),
        ("BindOptions/NonRecursive", True, '{"NonRecursive":true}'),
        ("Consistency", "cached", '{"Consistency":"cached"}'),
        ("VolumeOptions/NoCopy", False, ""),
    ],
)
def test_drift_of_mounts(member: str, value: Any, other: str) -> None:
    """What somebody set by hand on a mount shows as well."""
    (mount,) = service_body(put(plain(), f"{CONTAINER}/Mounts/0/{member}", value), NAMES).mounts
    assert mount == evolve(VOLUME, other=other)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Unknown", {"a": 1}),
        ("TaskTemplate/Unknown", 1),
        ("TaskTemplate/ForceUpdate", 7),
        (f"{CONTAINER}/Unknown", True),
        (f"{CONTAINER}/Isolation", "default"),
        (f"{CONTAINER}/Init", False),
        (f"{CONTAINER}/Hosts", []),
        (f"{CONTAINER}/Labels", {}),
        (f"{CONTAINER}/DNSConfig", {"Nameservers": []}),
        (f"{CONTAINER}/Mounts/0/Unknown", 1),
        ("TaskTemplate/Placement/Platforms", [{"OS": "linux"}]),
        ("TaskTemplate/Resources/Limits", {}),
        ("TaskTemplate/Networks/0/DriverOpts", None),
        ("EndpointSpec/Unknown", 1),
    ],
)
def test_no_drift(path: str, value: Any) -> None:
    """Empty members, members nobody sets by hand and those of a newer engine are no change."""
    assert service_body(put(plain(), path, value), NAMES) == service_body(plain(), NAMES)


DEFAULTS = ServiceBody(image="")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"TaskTemplate": None, "Mode": None, "EndpointSpec": None, "Networks": None},
        {"TaskTemplate": {"ContainerSpec": {}, "Resources": {}, "Placement": {}, "RestartPolicy": {}, "Networks": None}},
        {"Mode": {"Replicated": {}}, "EndpointSpec": {"Ports": None}},
        {"TaskTemplate": {"ContainerSpec": {"Healthcheck": {}, "Mounts": None, "Env": None}}},
    ],
)  # fmt: skip
def test_defaults(document: Json) -> None:
    """Members that the engine leaves out mean its defaults."""
    assert service_body(document, {}) == DEFAULTS


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"Mode": {"Global": {}}}, evolve(DEFAULTS, replicas=None)),
        ({"Mode": {"GlobalJob": {}}}, evolve(DEFAULTS, replicas=None)),
        ({"Mode": {"Replicated": {"Replicas": 0}}}, evolve(DEFAULTS, replicas=0)),
        ({"UpdateConfig": {}}, evolve(DEFAULTS, update=RollPolicy(parallelism=0))),
        ({"Networks": [{"Target": "id-n1"}]}, evolve(DEFAULTS, networks=(Attachment("n1"),))),
        ({"Networks": [{"Target": "gone"}]}, evolve(DEFAULTS, networks=(Attachment("gone"),))),
        ({"EndpointSpec": {"Ports": [{}]}}, evolve(DEFAULTS, ports=(PublishedPort(published=0, target=0),))),
        (
            {"TaskTemplate": {"ContainerSpec": {"Secrets": [{}], "Mounts": [{}]}}},
            evolve(
                DEFAULTS,
                secrets=(SecretFile("", "", "0", "0", 0),),
                mounts=(Mount(type="", source="", target=""),),
            ),
        ),
    ],
)
def test_what_others_make(document: Json, expected: ServiceBody) -> None:
    """Services that were made by hand, in forms that coreflow does not use, are read all the same."""
    assert service_body(document, NAMES) == expected


def test_labels() -> None:
    """Our labels say whose a service is and what was written; labels of others stay, ours win."""
    spec = spec_of(ServiceBody(image="shop:1@sha256:0"), login_hash="abc")
    document = service_document(
        spec, secret_ids={}, force_update=3, foreign_labels={"theirs": "x", naming.OWNER: "wrong"}
    )
    prints = spec.fingerprints
    assert document["Labels"] == {
        "theirs": "x",
        "serve.zone.managed-by": "coreflow",
        "serve.zone.cluster": "c1",
        "serve.zone.owner": "svc-shop",
        "serve.zone.fingerprint": prints.whole,
        "serve.zone.fingerprint.image": prints.image,
        "serve.zone.fingerprint.secret": prints.secret,
        "serve.zone.fingerprint.volumes": prints.volumes,
        "serve.zone.fingerprint.rest": prints.rest,
        "serve.zone.image": "shop:1@sha256:0",
        "serve.zone.login": "abc",
    }
    assert document["TaskTemplate"]["ForceUpdate"] == 3
    assert naming.LOGIN not in service_document(spec_of(spec.body), secret_ids={})["Labels"]


def test_secret_document() -> None:
    """A secret is sent in base 64, with our labels."""
    spec = SecretSpec(name="s", cluster=C1, owner=Owner("o"), stage=Stage.WORKLOADS, payload=b"{}")
    assert secret_document(spec) == {"Name": "s", "Labels": naming.ownership("c1", "o"), "Data": "e30="}


@pytest.mark.parametrize("subnet", [None, "10.201.0.0/16"])
def test_network_document(subnet: str | None) -> None:
    """A network is an overlay that containers may join, with a subnet where one was free."""
    document = network_document(
        NetworkSpec(name="n", cluster=C1, owner=BASE, stage=Stage.BASE, subnet=subnet)
    )
    assert document.pop("IPAM", None) == ({"Config": [{"Subnet": subnet}]} if subnet else None)
    assert document == {
        "Name": "n",
        "Driver": "overlay",
        "Attachable": True,
        "CheckDuplicate": True,
        "Labels": naming.ownership("c1", "base"),
    }


def test_platforms_go_along() -> None:
    """Platforms are sent with a spec and read back from a live service, and change neither body nor fingerprint."""
    platforms = (Platform("linux", "arm64"), Platform("linux"), Platform("unknown", "unknown"))
    spec = evolve(spec_of(ServiceBody(image="a")), platforms=platforms)
    document = service_document(spec, secret_ids={})
    assert document["TaskTemplate"]["Placement"]["Platforms"] == [
        {"OS": "linux", "Architecture": "arm64"},
        {"OS": "linux"},
        {"OS": "unknown", "Architecture": "unknown"},
    ]
    seen = observed_service({"ID": "i", "Version": {"Index": 1}, "Spec": document}, NAMES)
    assert (seen.platforms, seen.body, seen.seal) == (platforms, spec.body, spec.seal)
    assert service_document(spec_of(ServiceBody(image="a")), secret_ids={})["TaskTemplate"]["Placement"] == {}


def test_image_platforms() -> None:
    """They go through as the registry told them, except that 32-bit ARM leaves the architecture open."""
    told = [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm", "variant": "v7"},
        {"os": "linux", "architecture": "ARM"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
        {"os": "unknown", "architecture": "unknown"},
        {},
    ]
    assert [str(p) for p in image_platforms({"Platforms": told})] == [
        "linux/amd64",
        "linux",
        "linux",
        "linux/arm64",
        "unknown/unknown",
        "",
    ]
    assert image_platforms({"Platforms": None}) == image_platforms({}) == ()


@pytest.mark.parametrize(
    ("architecture", "runs"),
    [("x86_64", "amd64"), ("amd64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("armv7l", "armv7l")],
)
def test_what_a_node_runs(architecture: str, runs: str) -> None:
    """A node's own word for its architecture is turned into that of images."""
    told = {"Platform": {"Architecture": architecture, "OS": "linux"}}
    node = observed_node({"ID": "i", "Description": told})
    assert node.platform == Platform("linux", runs)
    assert node.runs(())
    assert node.runs((Platform("windows", runs), Platform("linux", runs)))
    assert node.runs((Platform("linux"),))
    assert not node.runs((Platform("linux", "riscv64"), Platform("windows")))
    assert observed_node({"ID": "i"}).runs((Platform("linux", "riscv64"),))


def test_registry_auth() -> None:
    """A login travels as JSON in URL-safe base 64; without one there is no header."""
    assert registry_auth(None) is None
    header = registry_auth(RegistryLogin(serveraddress="r.example.com", username="ü?>", password="ü?>" * 9))
    assert header is not None
    assert not set("+/") & set(header)
    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "serveraddress": "r.example.com",
        "username": "ü?>",
        "password": "ü?>" * 9,
    }


def test_observed_service() -> None:
    """A service is read with its labels, its roll-out, and what its previous spec mounted and was meant to be."""
    body = ServiceBody(image="shop:1", secrets=(SecretFile("s1"),))
    previous = {**stored(body), "Labels": {naming.FINGERPRINT: "v1:old"}}
    observed = observed_service(
        {
            "ID": "x",
            "Version": {"Index": 7},
            "Spec": put(stored(body), "TaskTemplate/ForceUpdate", 2),
            "PreviousSpec": previous,
            "UpdateStatus": {"State": "rollback_completed", "Message": "m", "StartedAt": "t"},
        },
        NAMES,
    )
    assert (observed.id, observed.name, observed.version, observed.force_update) == ("x", "shop", 7, 2)
    assert (observed.owner, observed.intent) == ("svc-shop", fingerprints(body).whole)
    assert (observed.body, observed.fingerprints) == (body, fingerprints(body))
    assert (observed.previous_secrets, observed.previous_intent) == (frozenset({"s1"}), "v1:old")
    assert (observed.update_state, observed.update_message, observed.update_started) == (
        "rollback_completed",
        "m",
        "t",
    )
    assert rolled_back([observed]) == {"x"}
    bare = observed_service({"ID": "y", "Version": {"Index": 1}}, NAMES)
    assert (bare.name, bare.body, bare.previous_secrets, bare.previous_intent) == (
        "",
        DEFAULTS,
        frozenset(),
        None,
    )
    assert rolled_back([bare]) == set()


def task(**changes: Any) -> Json:
    """A task of the plain service."""
    template = {key: value for key, value in plain()["TaskTemplate"].items() if key != "Runtime"}
    return {"ID": "t", "ServiceID": "x", "Spec": template, **changes}


def test_observed_task() -> None:
    """A task is read with its state, its first address on each network, and its image."""
    observed = observed_task(
        task(
            NodeID="n",
            Slot=2,
            DesiredState="running",
            CreatedAt="t",
            Status={"State": "failed", "Err": "e", "Message": "m"},
            NetworksAttachments=[
                {"Network": {"Spec": {"Name": "n1"}}, "Addresses": ["10.0.0.5/24", "10.0.0.6/24"]},
                {"Network": {"Spec": {"Name": "n2"}}, "Addresses": []},
                {"Addresses": ["10.0.1.5/24"]},
            ],
        ),
        templates={},
    )
    assert (observed.id, observed.service_id, observed.node_id, observed.slot) == ("t", "x", "n", 2)
    assert (observed.state, observed.desired_state, observed.created_at) == ("failed", "running", "t")
    assert (observed.error, observed.message, observed.image) == ("e", "m", "shop:1")
    assert observed.addresses == {"n1": "10.0.0.5", "": "10.0.1.5"}
    assert (observed.is_current, observed.template) == (True, None)
    bare = observed_task({"ID": "t"}, templates={})
    assert (bare.service_id, bare.node_id, bare.state, bare.image, bare.addresses) == ("", None, "", "", {})


@pytest.mark.parametrize(
    ("current", "is_current"),
    [
        ({}, True),
        ({"x": plain()["TaskTemplate"]}, True),
        ({"x": {**plain()["TaskTemplate"], "ForceUpdate": 1}}, False),
        ({"x": {**plain()["TaskTemplate"], "LogDriver": {}}}, False),
    ],
)
def test_current_task(current: dict[str, Json], is_current: bool) -> None:
    """A task is current when it was made from its service's present template."""
    assert observed_task(task(), templates={}, current=current).is_current is is_current


def test_template_of_a_task() -> None:
    """A task of a service that was rolled back has the fingerprint of the body that it was made from."""
    observed = observed_task(task(), templates={"x": NAMES})
    assert observed.template == template_fingerprint(service_body(plain(), NAMES))


def test_other_objects() -> None:
    """Secrets, networks and nodes are read, with nothing but their ids as well."""
    secret = observed_secret(
        {"ID": "i", "Version": {"Index": 3}, "Spec": {"Name": "s", "Labels": {"a": "b"}}}
    )
    assert (secret.id, secret.name, secret.version, secret.labels) == ("i", "s", 3, {"a": "b"})
    assert observed_secret({"ID": "i", "Version": {"Index": 3}}).labels == {}
    network = observed_network(
        {
            "Id": "i",
            "Name": "n",
            "Driver": "overlay",
            "Scope": "swarm",
            "Attachable": True,
            "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}, {}]},
            "Labels": {"a": "b"},
        }
    )
    assert (network.name, network.driver, network.scope, network.attachable) == (
        "n",
        "overlay",
        "swarm",
        True,
    )
    assert (network.subnets, network.labels) == (("10.0.0.0/24",), {"a": "b"})
    assert observed_network({"Id": "i", "IPAM": {"Config": None}}).subnets == ()
    node = observed_node(
        {
            "ID": "i",
            "Spec": {"Availability": "active", "Role": "manager"},
            "Description": {
                "Hostname": "h",
                "Engine": {"Plugins": [{"Type": "Volume", "Name": "local"}, {"Type": "Log", "Name": "x"}]},
            },
            "Status": {"State": "ready", "Addr": "10.0.0.1"},
        }
    )
    assert (node.id, node.hostname, node.state, node.availability) == ("i", "h", "ready", "active")
    assert (node.role, node.address, node.volume_plugins) == ("manager", "10.0.0.1", frozenset({"local"}))
    assert observed_node({"ID": "i"}).volume_plugins == frozenset()
