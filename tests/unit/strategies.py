"""Hypothesis strategies for what other people write: cluster documents, from sensible to hostile."""

from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
SECRET = "SECRET-5d0e"
"""Stands in every field that holds a secret, and must appear nowhere but in a Docker secret's payload."""
DIGEST = "sha256:" + "0123456789abcdef" * 4

numbers = st.sampled_from(
    [0, 1, 2, -1, 3.5, 0.0001, 5, 64, 512, 65_536, 2**31, 2**63 - 1, 2**63, 10**30, 1e300, 1.7e308, -1.7e308]
)
"""Numbers as JSON allows them, far beyond what any engine can hold."""
texts = st.sampled_from(["", " ", "a", "web", "ä", "\ud800", "a\0b", "a=b", "../..", "x" * 300, "🚢"])
paths = st.sampled_from(["/data", "//data", "/data/", "/data/../data", "/", "", "data", "/a/b", "/a-b", "/ä", "/\udfff"])  # fmt: skip
names = st.sampled_from(
    ["a", "web", "shop-1", "Shop_2", "coretraffic", "sznwebgateway", "x" * 63, "x" * 64, "a.b", "-a", "a" * 40 + ".", "ä"]
)  # fmt: skip
hosts = st.sampled_from(
    ["a.example.com", "A.Example.com.", "*.example.com", "", "b", "x" * 300, "a..b", "ä.example"]
)
references = st.sampled_from(
    ["r.example.com/shop:1", f"shop@{DIGEST}", "shop", "Shop", "shop:ä", "docker.io/team/shop:1", "https://r.example.com/shop", "shop@sha256:1", "/", "a" * 400]
)  # fmt: skip


LOGIN = {"serveraddress": "https://index.docker.io/v1/", "username": "puller", "password": SECRET}
VOLUME = {"mountPath": "/data", "options": {"password": SECRET}}
SENSIBLE: tuple[Json, ...] = (
    {"registryTarget": {"imageUrl": f"r.example.com/shop@{DIGEST}", "registryInfo": LOGIN}},
    {"imageId": "internal", "imageVersion": "1", "secretBundleId": "bundle"},
    {"imageId": "external", "secretBundleId": "tagged", "additionalSecretBundleIds": ["bundle"]},
    {"imageId": "hub", "imageVersion": "2", "volumes": [VOLUME], "healthCheck": {"command": "true"}},
)
"""The insides of services that can be deployed as they are, one per source of images."""

targets = st.fixed_dictionaries(
    {},
    optional={
        "imageUrl": references,
        "registryHost": st.sampled_from(["r.example.com", "", "http://x:5000/"]),
        "repository": st.sampled_from(["shop", "/", "Shop"]),
        "tag": st.sampled_from(["1", "ä", ""]),
        "digest": st.sampled_from([DIGEST, "1"]),
        "registryInfo": st.just(LOGIN),
    },
)
volumes = st.fixed_dictionaries(
    {"mountPath": paths},
    optional={
        "driver": st.sampled_from(["", "local", "corestore"]),
        "name": texts,
        "readOnly": st.booleans(),
        "options": st.just({"password": SECRET}),
    },
)
domains = st.fixed_dictionaries(
    {"name": hosts}, optional={"port": numbers, "protocol": st.sampled_from(["https", "ssh"])}
)
custom = st.dictionaries(hosts, st.sampled_from(["80", "0", "x", "9" * 30, 443]), max_size=2)
MEASURES = (
    "memorySizeLimitMB",
    "memorySizeReservationMB",
    "memorySizeMB",
    "cpuLimit",
    "cpuReservation",
)
TIMES = ("intervalSeconds", "timeoutSeconds", "startPeriodSeconds", "retries")
ODD: dict[str, st.SearchStrategy[Any]] = {
    "name": names,
    "environment": st.dictionaries(texts, st.just(SECRET), max_size=2),
    "imageId": st.sampled_from(["nowhere", ""]),
    "imageVersion": st.sampled_from(["2", "ä", ""]),
    "registryTarget": targets,
    "secretBundleId": st.sampled_from(["nowhere", ""]),
    "serviceCategory": st.sampled_from(["workload", "base", "", "other"]),
    "scaleFactor": numbers,
    "maxReplicas": numbers,
    "antiAffinity": st.booleans(),
    "ports": st.fixed_dictionaries({}, optional={"web": numbers, "custom": custom}),
    "domains": st.lists(domains, max_size=2),
    "volumes": st.lists(volumes, max_size=2),
    "resources": st.sampled_from(MEASURES).flatmap(lambda name: st.fixed_dictionaries({name: numbers})),
    "healthCheck": st.sampled_from(TIMES).flatmap(
        lambda name: st.fixed_dictionaries({"command": st.just("true"), name: numbers})
    ),
}
"""Every field of a service, with values that somebody may get wrong."""


@st.composite
def service_data(draw: st.DrawFn) -> Json:
    """The inside of a service record: sensible but for two fields at most."""
    name = draw(st.sampled_from(["a", "b", "c"]))
    data = {"name": name, "environment": {"TOKEN": SECRET}, **draw(st.sampled_from(SENSIBLE))}
    for field in draw(st.lists(st.sampled_from(sorted(ODD)), max_size=2, unique=True)):
        data[field] = draw(ODD[field])
    return data


def _group(identity: str, **data: Any) -> Json:
    values = {"production": {"value": SECRET, "history": [{"value": SECRET}]}}
    return {"id": identity, "data": {"key": identity.upper(), "environments": values, **data}}


def cluster_document(services: list[Json]) -> Json:
    """A cluster with images, registries and secrets of every kind, and these services."""
    hub = {"internal": False, "externalRegistryId": "hub", "externalImageTag": "team/shop"}
    own = {"internal": False, "externalRegistryId": "own", "externalImageTag": "shop:1"}
    registry = {"type": "docker", "username": "puller", "password": SECRET}
    return {
        "configData": {
            "id": "cluster",
            "data": {
                "name": "cluster",
                "registryInfo": {"serveraddress": "r.example.com", "username": "u", "password": SECRET},
            },
        },
        "services": services,
        "images": [
            {
                "id": "internal",
                "data": {
                    "location": {"internal": True},
                    "versions": [{"versionString": "1", "storagePath": "1.tar"}, {"versionString": "ä"}],
                },
            },
            {"id": "external", "data": {"location": own}},
            {"id": "hub", "data": {"location": hub}},
        ],
        "externalRegistries": [
            {"id": "hub", "data": {**registry, "url": "https://index.docker.io/v1/"}},
            {"id": "own", "data": {**registry, "url": "https://r.example.com/"}},
        ],
        "secretBundles": [
            {"id": "bundle", "data": {"type": "service", "includedSecretGroupIds": ["first", "second"]}},
            {"id": "tagged", "data": {"includedTags": [{"key": "team"}]}},
        ],
        "secretGroups": [_group("first"), _group("second", key="FIRST", tags=[{"key": "team", "value": "a"}])],
        "platform": {"bindings": [{"id": "b", "data": {"serviceId": "s0", "capability": "database", "config": {"password": SECRET}}}]},
        "externalGatewayConfig": {"type": "dcrouter", "url": "https://gw.example.com", "apiToken": SECRET},
        "certificates": {"a.example.com": {"domainName": "a.example.com", "privateKey": SECRET, "publicKey": SECRET}},
    }  # fmt: skip


@st.composite
def cluster_documents(draw: st.DrawFn) -> Json:
    """A whole cluster document with up to three services; ids and names are duplicate now and then."""
    ids = st.sampled_from(["s0", "s1", "s2", "s3", "ä", None])
    services = st.fixed_dictionaries({"id": ids, "data": service_data()})
    return cluster_document(draw(st.lists(services, max_size=3)))
