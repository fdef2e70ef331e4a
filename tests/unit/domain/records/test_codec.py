"""The wire form of records: every spelling, strict types, all errors at once, and never a value in a text."""

import copy
from collections.abc import Iterator
from typing import Any

import attrs
import cattrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples

from coreflow.domain.errors import InvalidRecord
from coreflow.domain.records.codec import REJECTED_LIMIT, RecordDecoder, decode_records
from coreflow.domain.records.converter import Unclear, decode, problems_of
from coreflow.domain.records.models import (
    BindingRecord,
    CertificateRecord,
    ClusterRecord,
    DomainRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    HealthCheckRecord,
    ImageRecord,
    ImageVersion,
    NodeRecord,
    PlatformProvider,
    PlatformRecord,
    Ports,
    Records,
    RegistryLogin,
    RegistryTarget,
    Resources,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
    Tag,
    VolumeMount,
    VolumeRecord,
)

Json = dict[str, Any]
CANARY = "CANARY-8b1f"


def good() -> Json:
    """A cluster document that uses every field; every value that is not an id or a number contains the canary."""
    login = {"serveraddress": f"{CANARY}.example.com", "username": CANARY, "password": CANARY}
    return {
        "configData": {
            "id": "c1",
            "data": {
                "name": CANARY,
                "cloudlyUrl": CANARY,
                "setupMode": CANARY,
                "nodes": [{"id": "n1", "data": {"role": CANARY, "swarmNodeId": CANARY}}],
                "registryInfo": login,
            },
        },
        "services": [
            {
                "id": "s1",
                "data": {
                    "name": "shop",
                    "imageId": "i1",
                    "imageVersion": CANARY,
                    "registryTarget": {
                        "protocol": CANARY,
                        "registryHost": CANARY,
                        "repository": CANARY,
                        "tag": CANARY,
                        "digest": CANARY,
                        "imageUrl": CANARY,
                        "registryInfo": login,
                    },
                    "environment": {"KEY": CANARY},
                    "secretBundleId": "b1",
                    "additionalSecretBundleIds": ["b2"],
                    "serviceCategory": "workload",
                    "deploymentStrategy": CANARY,
                    "maxReplicas": 3,
                    "antiAffinity": True,
                    "scaleFactor": 2,
                    "ports": {"web": 3000, "custom": {"a.example.com": "3001"}},
                    "resources": {
                        "memorySizeLimitMB": 768,
                        "memorySizeReservationMB": 256.5,
                        "memorySizeMB": 500,
                        "cpuLimit": 1,
                        "cpuReservation": 0.25,
                        "volumeMounts": [{"hostFsPath": CANARY, "containerFsPath": CANARY}],
                    },
                    "domains": [{"name": CANARY, "port": 80, "protocol": CANARY}, CANARY],
                    "volumes": [
                        {
                            "mountPath": CANARY,
                            "driver": CANARY,
                            "backup": True,
                            "name": CANARY,
                            "readOnly": True,
                            "options": {"size": CANARY},
                        }
                    ],
                    "healthCheck": {
                        "command": ["CMD", CANARY],
                        "intervalSeconds": 1,
                        "timeoutSeconds": 2,
                        "startPeriodSeconds": 3.5,
                        "retries": 4,
                    },
                },
            },
            {"id": "s2", "data": {"name": "api"}},
        ],
        "images": [
            {
                "id": "i1",
                "data": {
                    "name": CANARY,
                    "location": {"internal": True, "externalRegistryId": "r1", "externalImageTag": CANARY},
                    "versions": [{"versionString": CANARY, "storagePath": CANARY, "size": 12}],
                },
            }
        ],
        "externalRegistries": [
            {
                "id": "r1",
                "data": {
                    "type": "docker",
                    "name": CANARY,
                    "url": CANARY,
                    "username": CANARY,
                    "password": CANARY,
                },
            }
        ],
        "secretBundles": [
            {
                "id": "b1",
                "data": {
                    "name": CANARY,
                    "type": "service",
                    "serviceId": "s1",
                    "includedSecretGroupIds": ["g1"],
                    "includedTags": [{"key": CANARY, "value": CANARY}, {"key": CANARY}],
                },
            }
        ],
        "secretGroups": [
            {
                "id": "g1",
                "data": {
                    "key": "TOKEN",
                    "priority": 1,
                    "tags": [{"key": CANARY, "value": CANARY}],
                    "environments": {"production": {"value": CANARY}},
                },
            }
        ],
        "platform": {
            "clusterId": "c1",
            "revision": 7,
            "providers": [{"id": "p1", "type": CANARY, "capabilities": [CANARY], "enabled": False}],
            "bindings": [
                {
                    "id": "d1",
                    "data": {
                        "serviceId": "s1",
                        "serviceName": CANARY,
                        "capability": CANARY,
                        "providerId": "p1",
                        "desiredState": CANARY,
                        "config": {"password": CANARY, "nested": {"deep": [CANARY]}},
                        "envPrefix": CANARY,
                    },
                }
            ],
        },
        "externalGatewayConfig": {
            "type": CANARY,
            "enabled": False,
            "url": CANARY,
            "apiToken": CANARY,
            "targetHost": CANARY,
            "targetPort": 443,
            "syncRoutes": False,
            "exportCertificates": False,
        },
        "certificates": {
            "a.example.com": {
                "id": "k1",
                "domainName": CANARY,
                "created": 1.5,
                "validUntil": 2,
                "privateKey": CANARY,
                "publicKey": CANARY,
                "csr": CANARY,
            }
        },
    }


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all nodes of a document."""
    if path:
        yield path
    items = node.items() if type(node) is dict else enumerate(node) if type(node) is list else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = tuple(places(good()))


def changed(path: tuple[Any, ...], value: Any, document: Json | None = None) -> Json:
    """The good document with another value at a path."""
    document = copy.deepcopy(document or good())
    node: Any = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return document


def texts(document: Any) -> list[str]:
    """What is said about a document: the problems, or the reasons of what was rejected."""
    try:
        records = decode_records(document)
    except InvalidRecord as exc:
        return str(exc).split("; ")
    return [reason for rejected in records.rejected for reason in rejected.reasons]


def service(data: Json) -> ServiceRecord:
    """One service, decoded from its inner fields."""
    return decode({"id": "s1", "data": {"name": "shop", **data}}, ServiceRecord)


def test_every_field() -> None:
    """Every field of every record arrives under its Python name, numbers included."""
    login = RegistryLogin(serveraddress=f"{CANARY}.example.com", username=CANARY, password=CANARY)
    records = decode_records(good())
    shop, api = records.services
    assert records.rejected == ()
    assert records.cluster == decode(good()["configData"], ClusterRecord)
    assert records.cluster.nodes[0].swarm_node_id == CANARY
    assert records.cluster.registry_info == login
    assert shop.registry_target == RegistryTarget(
        protocol=CANARY, registry_host=CANARY, repository=CANARY, tag=CANARY, digest=CANARY, image_url=CANARY,
        registry_info=login,
    )  # fmt: skip
    assert shop.environment == {"KEY": CANARY}
    assert (shop.image_id, shop.secret_bundle_id, shop.additional_secret_bundle_ids) == ("i1", "b1", ("b2",))
    assert (shop.max_replicas, shop.anti_affinity, shop.scale_factor) == (3, True, 2)
    assert shop.ports == Ports(web=3000, custom={"a.example.com": "3001"})
    assert shop.resources == Resources(
        memory_size_limit_mb=768.0,
        memory_size_reservation_mb=256.5,
        memory_size_mb=500.0,
        cpu_limit=1.0,
        cpu_reservation=0.25,
        volume_mounts=(VolumeMount(host_fs_path=CANARY, container_fs_path=CANARY),),
    )
    assert shop.domains == (DomainRecord(name=CANARY, port=80, protocol=CANARY), DomainRecord(name=CANARY))
    assert shop.volumes == (
        VolumeRecord(
            mount_path=CANARY,
            driver=CANARY,
            backup=True,
            name=CANARY,
            read_only=True,
            options={"size": CANARY},
        ),
    )
    assert shop.health_check == HealthCheckRecord(
        command=("CMD", CANARY),
        interval_seconds=1.0,
        timeout_seconds=2.0,
        start_period_seconds=3.5,
        retries=4,
    )
    image = records.images[next(iter(records.images))]
    assert (image.location.internal, image.location.external_registry_id) == (True, "r1")
    assert image.versions == (ImageVersion(version_string=CANARY, storage_path=CANARY, size=12.0),)
    (registry,) = records.external_registries.values()
    assert (registry.type, registry.url, registry.password) == ("docker", CANARY, CANARY)
    (bundle,) = records.secret_bundles.values()
    assert bundle.included_tags == (Tag(key=CANARY, value=CANARY), Tag(key=CANARY))
    (group,) = records.secret_groups.values()
    assert group.environments["production"].value == CANARY
    assert records.platform is not None
    assert records.platform.providers == (
        PlatformProvider(id="p1", type=CANARY, capabilities=(CANARY,), enabled=False),
    )
    assert records.platform.bindings[0].config == {"password": CANARY, "nested": {"deep": [CANARY]}}
    assert records.gateway is not None
    assert (records.gateway.target_port, records.gateway.sync_routes) == (443, False)
    assert records.certificates["a.example.com"].valid_until == 2.0
    assert api == ServiceRecord(id=api.id, name="api")


@pytest.mark.parametrize(
    "older",
    [
        {**{k: v for k, v in good()["configData"]["data"].items() if k != "nodes"}, "id": "c1",
         "servers": [{"id": "n1", "role": CANARY, "swarmNodeId": CANARY}]},
        {"id": "c1", "data": {**good()["configData"]["data"], "unknown": {"x": [1]}}, "alsoUnknown": 1},
        {**good()["configData"], "data": {**good()["configData"]["data"], "servers": "ignored beside nodes"}},
    ],
)  # fmt: skip
def test_cluster_spellings(older: Json) -> None:
    """A cluster without envelope, with `servers`, or with unknown fields is the same cluster."""
    assert decode(older, ClusterRecord) == decode_records(good()).cluster


def test_cluster_of_old() -> None:
    """A cluster record of the first control planes has a name for an id and its services inside."""
    records = decode_records(
        {
            "configData": {
                "name": "old",
                "containers": [{"id": "s1", "name": "shop", "domains": ["a.example.com"]}],
            }
        }
    )
    assert (records.cluster.id, records.cluster.name) == ("old", "old")
    assert records.services[0].domains == (DomainRecord(name="a.example.com"),)
    inside = {"configData": {"id": "c1", "data": {"containers": [{"id": "s1", "data": {"name": "shop"}}]}}}
    assert [s.name for s in decode_records(inside).services] == ["shop"]
    assert decode_records({**inside, "services": []}).services == ()


def test_a_document_of_which_nothing_can_be_read_is_refused() -> None:
    """A thousand records that cannot be read are rejected one by one, more as a whole."""
    document: Json = {"configData": {"id": "c1", "data": {}}, "services": [{"id": 1}] * REJECTED_LIMIT}
    assert len(decode_records(document).rejected) == REJECTED_LIMIT
    document["services"] *= 2
    with pytest.raises(InvalidRecord, match=r"more than 1000 records cannot be read @ \$\.services"):
        decode_records(document)


def test_captured_answer() -> None:
    """A captured answer of the control plane, with method and correlation around it, is read like its response."""
    document = good()
    rest = {key: document.pop(key) for key in ("images", "certificates")}
    captured = {
        "method": "getClusterConfig",
        "correlation": {},
        "request": {"identity": {}},
        "response": document,
    }
    assert decode_records({**captured, **rest}) == decode_records(good())


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (NodeRecord, {"role": "master"}),
        (ServiceRecord, {"name": "shop", "scaleFactor": 2}),
        (ImageRecord, {"location": {"internal": True}}),
        (ExternalRegistryRecord, {"url": "registry.example.com"}),
        (SecretBundleRecord, {"type": "service"}),
        (SecretGroupRecord, {"key": "TOKEN"}),
        (BindingRecord, {"serviceId": "s1", "capability": "database"}),
        (ClusterRecord, {"name": "one"}),
    ],
)
def test_envelope(kind: type, plain: Json) -> None:
    """Records are the same with and without the envelope, and a null envelope is none."""
    spellings = ({"id": "x", "data": plain}, {"id": "x", **plain}, {"id": "x", **plain, "data": None})
    one, *others = [repr(attrs.asdict(decode(raw, kind))) for raw in spellings]
    assert others == [one, one]


def test_wrapped_platform_state() -> None:
    """The platform's state may come as the whole answer of its method."""
    document = good()
    document["platform"] = {"desiredState": document["platform"]}
    assert decode_records(document) == decode_records(good())


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"ports": {"web": 80.0, "custom": {"a.example.com": 3001}}}, {"ports": Ports(web=80, custom={"a.example.com": "3001"})}),
        ({"ports": {"custom": None}}, {"ports": Ports()}),
        ({"ports": {"custom": {"a.example.com": 80.0, "b.example.com": None}}}, {"ports": Ports(custom={"a.example.com": "80"})}),
        ({"environment": {"A": None, "B": ""}}, {"environment": {"B": ""}}),
        ({"environment": {"ä": None, "B": "ö"}}, {"environment": {"B": "ö"}}),
        ({"volumes": [{"mountPath": "/d", "options": {"a": None}}]}, {"volumes": (VolumeRecord(mount_path="/d"),)}),
        ({"domains": ["a.example.com"]}, {"domains": (DomainRecord(name="a.example.com"),)}),
        ({"healthCheck": {"command": "true"}}, {"health_check": HealthCheckRecord(command=("CMD-SHELL", "true"))}),
        ({"resources": {"memorySizeMB": 500}}, {"resources": Resources(memory_size_mb=500.0)}),
        ({"resources": None, "environment": None, "volumes": None, "maxReplicas": None}, {}),
        ({"resources": {"cpuLimit": None}}, {"resources": Resources()}),
        ({"environment": {"CITY": "Köln"}}, {"environment": {"CITY": "Köln"}}),
        ({"environment": {"STADT-Ü": "x"}}, {"environment": {"STADT-Ü": "x"}}),
    ],
)  # fmt: skip
def test_short_spellings(given_: Json, expected: dict[str, object]) -> None:
    """Shorter spellings, JavaScript's numbers and nulls mean what they say."""
    assert service(given_) == ServiceRecord(id=service({}).id, name="shop", **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        ({"name": 5}, "expected text, got an integer: put quotes around it @ $.data.name"),
        ({"name": None}, "name is missing @ $.data.name"),
        ({"antiAffinity": "no"}, "expected true or false, got text: write true or false, without quotes @ $.data.antiAffinity"),
        ({"antiAffinity": 0}, "expected true or false, got an integer @ $.data.antiAffinity"),
        ({"scaleFactor": True}, "expected an integer, got true or false @ $.data.scaleFactor"),
        ({"scaleFactor": 1.5}, "expected an integer, got a number @ $.data.scaleFactor"),
        ({"scaleFactor": "2"}, "expected an integer, got text: write a number, without quotes or a unit @ $.data.scaleFactor"),
        ({"domains": {}}, "expected a list, got a mapping @ $.data.domains"),
        ({"domains": [None]}, "expected a mapping, got null @ $.data.domains[0]"),
        ({"domains": ["a", {"name": "b", "port": "80"}]}, "expected an integer, got text: write a number, without quotes or a unit @ $.data.domains[1].port"),
        ({"environment": {"A": Unclear("write it so")}}, "write it so @ $.data.environment.A"),
        ({"scaleFactor": Unclear("write it so")}, "write it so @ $.data.scaleFactor"),
        ({"domains": Unclear("write it so")}, "write it so @ $.data.domains"),
        ({"ports": {"custom": {"a": Unclear("write it so")}}}, "write it so @ $.data.ports.custom.a"),
        ({"resources": {"cpuLimit": 10**400}}, "expected a number that can be written in digits @ $.data.resources.cpuLimit"),
        ({"resources": {"cpuLimit": float("inf")}}, "expected a number that can be written in digits @ $.data.resources.cpuLimit"),
        ({"environment": ["A=b"]}, "expected a mapping, got a list: write NAME: value in each line, without - and = @ $.data.environment"),
        ({"environment": {"A": "x", "B": 1}}, "expected text, got an integer: put quotes around it @ $.data.environment.B"),
        ({"environment": {5: "x"}}, "expected text, got an integer: put quotes around it @ $.data.environment.5 (key)"),
        ({"environment": {"A": "\ud800"}}, "expected Unicode text, got half a surrogate pair @ $.data.environment.A"),
        ({"name": "\ud800"}, "expected Unicode text, got half a surrogate pair @ $.data.name"),
        ({"resources": 1}, "expected a mapping, got an integer @ $.data.resources"),
        ({"resources": {"cpuLimit": float("nan")}}, "expected a number that can be written in digits @ $.data.resources.cpuLimit"),
        ({"resources": {"cpuLimit": "1"}}, "expected a number, got text: write a number, without quotes or a unit @ $.data.resources.cpuLimit"),
        ({"resources": {"volumeMounts": [{"hostFsPath": "/a"}]}}, "containerFsPath is missing @ $.data.resources.volumeMounts[0].containerFsPath"),
        ({"ports": {"custom": {"a": True}}}, "expected text, got true or false: put quotes around it @ $.data.ports.custom.a"),
        ({"ports": {"custom": "x"}}, "expected a mapping, got text: write NAME: value in each line, without - and = @ $.data.ports.custom"),
        ({"environment": {"A": {"fromfile": "x"}}}, "expected text, got a mapping: did you mean fromFile? @ $.data.environment.A"),
        ({"environment": {"A": {"from_env": "x"}}}, "expected text, got a mapping: did you mean fromEnv? @ $.data.environment.A"),
        ({"environment": {"A": {"hunter2": "x"}}}, "expected text, got a mapping @ $.data.environment.A"),
        ({"environment": {"A": {"fromFile": "x", "fromEnv": "y"}}}, "expected text, got a mapping @ $.data.environment.A"),
        ({"environment": {"A": {}}}, "expected text, got a mapping @ $.data.environment.A"),
        ({"domains": "a.example.com"}, "expected a list, got text: put brackets around it @ $.data.domains"),
        ({"healthCheck": {"command": [1]}}, "expected text, got an integer: put quotes around it @ $.data.healthCheck.command[0]"),
        ({"additionalSecretBundleIds": "b1"}, "expected a list, got text: put brackets around it @ $.data.additionalSecretBundleIds"),
    ],
)  # fmt: skip
def test_strict_types(given_: Json, problem: str) -> None:
    """A value of another type is a problem with its path, never a conversion."""
    with pytest.raises(InvalidRecord) as caught:
        service(given_)
    assert list(map(str, caught.value.problems)) == [problem]


def test_a_secret_without_its_mapping() -> None:
    """What to write is said, and nothing of what was written."""
    group = {"id": "g", "key": "K", "environments": {"production": "hunter2"}}
    (rejected,) = decode_records(
        {"configData": {"id": "c"}, "services": [], "secretGroups": [group]}
    ).rejected
    assert rejected.reasons == (
        "expected a mapping, got text: write {value: ...} @ $.secretGroups[0].environments.production",
    )


def test_a_compose_file_is_recognised() -> None:
    """One sentence says so, in place of all that is wrong with it as a cluster file."""
    compose = {"version": "3", "services": {"web": {"image": "web:1", "ports": ["80:80"]}}, "volumes": {}}
    with pytest.raises(InvalidRecord, match=r"^this looks like a Compose file; .* @ \$$"):
        decode_records(compose)
    with pytest.raises(InvalidRecord) as caught:
        decode_records({"services": {"web": {}}})
    assert "Compose" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ([], "expected a mapping, got a list @ $"),
        ({"id": "s1", "data": 5}, "expected a mapping, got an integer @ $.data"),
        ({"data": {"name": "shop", "id": "inside"}}, "id is missing @ $.id"),
        ({"name": "shop"}, "id is missing @ $.id"),
        (
            {"id": 5, "data": {"name": "shop"}},
            "expected text, got an integer: put quotes around it @ $.id",
        ),
        ({"id": "s1"}, "name is missing @ $.name"),
    ],
)
def test_bad_envelope(raw: object, problem: str) -> None:
    """The id is outside of the envelope, and a problem's path tells whether there was one."""
    with pytest.raises(InvalidRecord) as caught:
        decode(raw, ServiceRecord)
    assert list(map(str, caught.value.problems)) == [problem]


def test_all_problems_at_once() -> None:
    """Every problem of the document's frame is in one error, and every problem of a record in one rejection."""
    bad = {
        "configData": {"data": {"nodes": [{"id": "n1", "role": 1}, {}]}},
        "images": {},
        "secretGroups": "x",
    }
    assert texts(bad) == [
        "id is missing @ $.configData.id",
        "expected text, got an integer: put quotes around it @ $.configData.data.nodes[0].role",
        "id is missing @ $.configData.data.nodes[1].id",
        "services is missing: write an empty list if there shall be no services @ $.services",
        "expected a list, got a mapping @ $.images",
        "expected a list, got text @ $.secretGroups",
    ]
    document = good()
    document["services"][1]["data"] = {"scaleFactor": "2", "environment": {"A": 1, "B": 2}, "volumes": [{}]}
    assert sorted(texts(document)) == [
        "expected an integer, got text: write a number, without quotes or a unit @ $.services[1].data.scaleFactor",
        "expected text, got an integer: put quotes around it @ $.services[1].data.environment.A",
        "expected text, got an integer: put quotes around it @ $.services[1].data.environment.B",
        "mountPath is missing @ $.services[1].data.volumes[0].mountPath",
        "name is missing @ $.services[1].data.name",
    ]


JSON_VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 70_000)
    | st.floats()
    | st.sampled_from(["", CANARY, "\ud800", "id", "data"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "data", "name", "key", "\udfff"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=examples(600))
@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON_VALUES), min_size=1, max_size=2))
def test_any_mutation(mutations: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Whatever a node is replaced by: an answer or InvalidRecord, UTF-8 texts, and no text with a piece of content."""
    document = good()
    for path, value in mutations:
        try:
            document = changed(path, value, document)
        except (KeyError, IndexError, TypeError):  # the first mutation removed the place of the second
            continue
    for text in texts(document):
        assert CANARY not in text
        text.encode()


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", [None, 5.5, CANARY, [CANARY], {CANARY: CANARY}, {"data": CANARY}, object()])
def test_every_node_replaced(path: tuple[Any, ...], value: object) -> None:
    """Every single node replaced by each kind of value; a key may be quoted in a path, its value never."""
    key = value == {CANARY: CANARY}
    assert key or not [text for text in texts(changed(path, value)) if CANARY in text]


@pytest.mark.parametrize(
    "kind", [RegistryLogin, SecretGroupRecord, CertificateRecord, ServiceRecord, GatewayRecord]
)
def test_reprs_hide_secrets(kind: type) -> None:
    """The repr of a record shows no password, secret value, private key, token or environment."""
    records = decode_records(good())
    found: dict[type, Any] = {
        RegistryLogin: RegistryLogin(serveraddress="a", username="b", password=CANARY),
        SecretGroupRecord: decode({"id": "g", "key": "K", "environments": {"e": {"value": CANARY}}}, SecretGroupRecord),
        CertificateRecord: decode({"domainName": "a", "privateKey": CANARY, "publicKey": CANARY}, CertificateRecord),
        ServiceRecord: decode({"id": "s", "name": "a", "environment": {"A": CANARY}}, ServiceRecord),
        GatewayRecord: decode({"type": "x", "url": "u", "apiToken": CANARY}, GatewayRecord),
    }  # fmt: skip
    assert CANARY not in repr(found[kind])
    assert records.platform is not None
    assert "nested" not in repr(records.platform.bindings[0])


@pytest.mark.parametrize(
    ("path", "kind", "identity", "name"),
    [
        (("services", 0, "data", "name"), "service", "s1", None),
        (("services", 0, "data", "scaleFactor"), "service", "s1", "shop"),
        (("services", 0, "id"), "service", None, "shop"),
        (("services", 0), "service", None, None),
        (("images", 0, "data", "versions"), "image", "i1", CANARY),
        (("externalRegistries", 0, "data", "url"), "external registry", "r1", CANARY),
        (("secretBundles", 0, "data", "includedTags"), "secret bundle", "b1", CANARY),
        (("secretGroups", 0, "data", "environments"), "secret group", "g1", None),
        (("platform", "providers"), "platform", None, None),
        (("externalGatewayConfig", "enabled"), "externalGatewayConfig", None, None),
        (("certificates", "a.example.com", "csr"), "certificate", "a.example.com", None),
        (("certificates", "a.example.com"), "certificate", "a.example.com", None),
        (("certificates",), "certificate", None, None),
    ],
)
def test_one_bad_record(path: tuple[Any, ...], kind: str, identity: str | None, name: str | None) -> None:
    """A bad record is rejected alone, with what can still be said of it; everything else is decoded."""
    records, whole = (
        decode_records(changed(path, 5 if path[-1] != "scaleFactor" else "5")),
        decode_records(good()),
    )
    (rejected,) = records.rejected
    assert (rejected.kind, rejected.id, rejected.name) == (kind, identity, name)
    counts = {
        field: (len(getattr(records, field)), len(getattr(whole, field)))
        for field in ("services", "images", "external_registries", "secret_bundles", "secret_groups", "certificates")
    }  # fmt: skip
    lost = sum(all_ - some for some, all_ in counts.values())
    lost += (records.platform is None) + (records.gateway is None)
    assert lost == 1


@pytest.mark.parametrize("key", ["images", "externalRegistries", "secretBundles", "secretGroups"])
def test_duplicate_ids(key: str) -> None:
    """Which of two records with one id is meant cannot be known, so neither is used."""
    document = good()
    document[key] = [*document[key], *document[key], {**document[key][0], "id": "other"}]
    records = decode_records(document)
    (rejected,) = records.rejected
    identity = document[key][0]["id"]
    assert (rejected.id, rejected.reasons) == (identity, (f"id {identity} occurs 2 times @ $.{key}",))
    tables = (records.images, records.external_registries, records.secret_bundles, records.secret_groups)
    assert sum(len(table) for table in tables) == 4
    assert [set(table) for table in tables].count({"other"}) == 1


def test_a_consumed_document_gives_the_same_records() -> None:
    """What is let go while it is decoded is decoded all the same, unchanged records are found again, and nothing is left."""
    decoder = RecordDecoder()
    kept, consumed = decoder.decode(good()), good()
    again = decoder.decode(consumed, consume=True)
    assert again == kept
    assert all(one is other for one, other in zip(again.services, kept.services, strict=True))
    assert consumed == {}


def test_duplicate_services_stay() -> None:
    """Service records with one id are all kept: rendering rejects them by name."""
    document = good()
    document["services"] *= 2
    assert len(decode_records(document).services) == 4


@pytest.mark.parametrize("key", ["images", "externalRegistries", "secretBundles", "secretGroups", "platform",
                                 "externalGatewayConfig", "certificates"])  # fmt: skip
def test_optional_parts(key: str) -> None:
    """Everything but the cluster and its services may be absent or null."""
    without = {k: v for k, v in good().items() if k != key}
    assert decode_records(without) == decode_records({**without, key: None})
    assert decode_records(without).rejected == ()


def test_minimal() -> None:
    """A cluster with an id and no services is a document."""
    records = decode_records({"configData": {"id": "c1"}, "services": []})
    assert records == Records(cluster=decode({"id": "c1"}, ClusterRecord))
    assert (
        decode_records({"configData": {"id": "c1"}, "services": [], "platform": {}}).platform
        == PlatformRecord()
    )


@pytest.mark.parametrize("document", [None, 5, "text", [], {}, {"method": "x", "response": {}}])
def test_not_a_document(document: object) -> None:
    """What is no cluster document at all is an error, not an empty cluster."""
    with pytest.raises(InvalidRecord, match=r"expected a mapping|is missing"):
        decode_records(document)


def test_memo() -> None:
    """An unchanged record is the very same object the next time; a changed one is new, a forgotten one too."""
    decoder = RecordDecoder()
    first, second = decoder.decode(good()), decoder.decode(good())
    assert first == second
    assert all(a is b for a, b in zip(first.services, second.services, strict=True))
    assert first.images["i1"] is second.images["i1"]  # type: ignore[index]
    third = decoder.decode(changed(("services", 0, "data", "scaleFactor"), 3))
    assert third.services[0] is not first.services[0]
    assert third.services[1] is first.services[1]
    document = good()
    del document["services"][1:]
    decoder.decode(document)
    assert decoder.decode(good()).services[1] is not first.services[1]


def test_memo_of_another_order() -> None:
    """The order of keys means nothing: a record that was only written anew is the same object."""
    decoder = RecordDecoder()
    one, other = good(), good()
    other["services"][0]["data"] = dict(reversed(other["services"][0]["data"].items()))
    assert decoder.decode(one).services[0] is decoder.decode(other).services[0]


def test_memo_of_numbers_that_are_equal() -> None:
    """Numbers that only compare equal (1 and true) are still told apart."""
    decoder = RecordDecoder()
    decoder.decode(changed(("services", 0, "data", "scaleFactor"), 1))
    (rejected,) = decoder.decode(changed(("services", 0, "data", "scaleFactor"), value=True)).rejected
    assert rejected.id == "s1"


def test_nested_too_deep() -> None:
    """A document that is deeper than Python can follow is an error of its record, not the end of the process."""
    deep: Any = CANARY
    for _ in range(100_000):
        deep = [deep]
    document = changed(("services", 1, "data", "environment"), deep)
    assert len(texts(document)) == 1


def test_memo_of_what_is_no_json() -> None:
    """A record with something in an ignored field that JSON does not have is decoded anew each time."""
    decoder = RecordDecoder()
    document = changed(("services", 1, "data", "ignored"), {1, 2})
    assert decoder.decode(document).services[1] is not decoder.decode(document).services[1]


def test_memo_of_what_is_too_deep() -> None:
    """A record that is too deep to compare in an ignored field is decoded anew each time, too."""
    decoder = RecordDecoder()
    for _ in range(2):
        deep: Any = 1
        for _ in range(100_000):
            deep = [deep]
        assert decoder.decode(changed_shallow(deep)).rejected == ()


def changed_shallow(value: object) -> Json:
    """The good document with a value in an ignored field of the second service."""
    document = good()
    document["services"][1]["data"]["ignored"] = value
    return document


def test_what_nobody_expects() -> None:
    """An error of another kind is told by its class, without its text."""
    error = cattrs.ClassValidationError("x", [OSError(CANARY)], ServiceRecord)
    assert list(map(str, problems_of(error, "$", ".data"))) == ["cannot be decoded (OSError) @ $.data"]
