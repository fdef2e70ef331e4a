"""Where an image comes from: a registry target, Cloudly's store, or an external registry."""

from typing import Any

import pytest
from tests.unit import references

from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.models import Records, RegistryLogin
from coreflow.domain.swarm.images import (
    ArchiveImage,
    ImageRequest,
    RegistryImage,
    Rejected,
    distinct,
    familiar_name,
    image_source,
    missing,
    pinned,
    plain_source,
    registry_host,
    server_address,
    split_reference,
    unpinned,
)

Json = dict[str, Any]
DIGEST = "sha256:" + "0123456789abcdef" * 4
CLUSTER_LOGIN = {"serveraddress": "https://old.example.com/", "username": "cluster", "password": "pw"}
TARGET_LOGIN = {"serveraddress": "r.example.com", "username": "target", "password": "pw"}


def world(service: Json, image: Json | None = None, registry: Json | None = None, **others: Any) -> Records:
    """Records of one service, with its image `i` and the external registry `r`."""
    return decode_records(
        {
            "configData": {"id": "c1", "registryInfo": CLUSTER_LOGIN},
            "services": [{"id": "s", "name": "shop", **service}],
            "images": [{"id": "i", **image}] if image is not None else [],
            "externalRegistries": [{"id": "r", **registry}] if registry is not None else [],
            **others,
        }
    )


def source(records: Records) -> ArchiveImage | RegistryImage:
    """The source of the one service's image."""
    return image_source(records.services[0], records)


def request(records: Records) -> ImageRequest:
    """The question for the registry."""
    found = source(records)
    assert isinstance(found, RegistryImage)
    return found.request


def reasons(records: Records) -> tuple[str, ...]:
    """Why there is no source."""
    with pytest.raises(Rejected) as caught:
        source(records)
    return caught.value.reasons


def login(values: Json) -> RegistryLogin:
    """A login from its fields."""
    return RegistryLogin(**values)


NO_HOST = "needs a dot or a port: Docker takes it for a name on Docker Hub"
PARTS = {"registryHost": "r.example.com", "repository": "team/shop"}


@pytest.mark.parametrize(
    ("target", "reference"),
    [
        ({"imageUrl": "r.example.com/team/shop:1"}, "r.example.com/team/shop:1"),
        ({"imageUrl": "https://r.example.com/team/shop"}, "r.example.com/team/shop:latest"),
        ({"imageUrl": " shop:1 "}, "shop:1"),
        ({"imageUrl": "shop:1", **PARTS, "tag": "2"}, "shop:1"),
        ({"imageUrl": "", **PARTS, "tag": "2"}, "r.example.com/team/shop:2"),
        ({**PARTS, "tag": "2", "digest": DIGEST}, f"r.example.com/team/shop@{DIGEST}"),
        (PARTS, "r.example.com/team/shop:9.9"),
        ({"registryHost": "http://localhost:5000/", "repository": "/shop/", "tag": "1"}, "localhost:5000/shop:1"),
        ({"registryHost": "[::1]:5000", "repository": "shop", "tag": "1"}, "[::1]:5000/shop:1"),
    ],
)  # fmt: skip
def test_registry_target(target: Json, reference: str) -> None:
    """A complete reference wins over the parts, a digest over the tag, and the tag over the record's version."""
    assert request(world({"registryTarget": target, "imageVersion": "9.9"})).reference == reference


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({}, ("registryTarget: registryHost is missing", "registryTarget: repository is missing")),
        ({"registryHost": "r.example.com", "repository": ""}, ("registryTarget: repository is missing",)),
        (PARTS, ("registryTarget: neither tag nor digest",)),
        ({"imageUrl": "Not An Image"}, ("registryTarget: not a valid image reference",)),
        ({"imageUrl": "shop:ä"}, ("registryTarget: not a valid image reference",)),
        ({**PARTS, "digest": "sha256:short"}, ("registryTarget: not a valid image reference",)),
        ({**PARTS, "tag": "1", "registryHost": "registry"}, (f"registryTarget: registryHost {NO_HOST}",)),
        ({**PARTS, "tag": "a b"}, ("registryTarget: not a valid image reference",)),
        ({"imageUrl": "ftp://"}, ("registryTarget: not a valid image reference",)),
    ],
)
def test_bad_registry_target(target: Json, expected: tuple[str, ...]) -> None:
    """What is missing of a target, or unusable, is named; its value is not."""
    assert reasons(world({"registryTarget": target})) == expected


def test_target_wins() -> None:
    """A registry target wins over an image record, even over a missing one."""
    assert request(world({"imageId": "gone", "registryTarget": {"imageUrl": "shop:1"}})).reference == "shop:1"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"imageUrl": "r.example.com/shop:1", "registryInfo": TARGET_LOGIN}, TARGET_LOGIN),
        ({"imageUrl": "old.example.com/shop:1", "registryInfo": TARGET_LOGIN}, TARGET_LOGIN),
        ({"imageUrl": "old.example.com/shop:1"}, CLUSTER_LOGIN),
        ({"imageUrl": "r.example.com/shop:1"}, None),
        ({"imageUrl": "shop:1"}, None),
    ],
)
def test_target_login(target: Json, expected: Json | None) -> None:
    """A target's own login, else the cluster's where it is for this registry, else none."""
    found = request(world({"registryTarget": target})).login
    assert found == (None if expected is None else login(expected))


HUB_NAMES = ["docker.io", "https://index.docker.io/v1/", "registry-1.docker.io", "hub.docker.com"]


@pytest.mark.parametrize("address", HUB_NAMES)
@pytest.mark.parametrize("image", ["team/shop:1", "docker.io/team/shop:1", "index.docker.io/team/shop:1"])
def test_names_of_the_hub(address: str, image: str) -> None:
    """A login of the cluster for Docker Hub, under any of its names, goes with the images of Docker Hub alone."""
    hub = {"serveraddress": address, "username": "cluster", "password": "pw"}
    config = {"id": "c1", "registryInfo": hub}
    assert request(world({"registryTarget": {"imageUrl": image}}, configData=config)).login == login(hub)
    elsewhere = world({"registryTarget": {"imageUrl": "r.example.com/shop:1"}}, configData=config)
    assert request(elsewhere).login is None


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (
            {"versions": [{"versionString": "1.0"}, {"versionString": "1.4", "storagePath": "i/1.4.tar"}]},
            None,
        ),
        ({"versions": [{"versionString": "1.0"}]}, "image i has no version 1.4"),
        ({}, "image i has no version 1.4"),
    ],
)
def test_archive(image: Json, expected: str | None) -> None:
    """An image in Cloudly's store needs a version that the image record lists."""
    records = world({"imageId": "i", "imageVersion": "1.4"}, {"location": {"internal": True}, **image})
    if expected is not None:
        assert reasons(records) == (expected,)
    else:
        assert source(records) == ArchiveImage(
            reference="i:1.4", image_id="i", version="1.4", storage_path="i/1.4.tar"
        )


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({}, "no image: imageId is missing and there is no registryTarget"),
        ({"imageId": ""}, "no image: imageId is missing and there is no registryTarget"),
        ({"imageId": "x"}, "image x does not exist"),
        ({"imageId": "i"}, "imageVersion is missing"),
        (
            {"imageId": "i", "imageVersion": "a b"},
            "image i, version a b: not usable as an image name and tag",
        ),
    ],
)
def test_no_archive(service: Json, expected: str) -> None:
    """A missing image, a missing version and a version that is no tag are each said."""
    image = {"location": {"internal": True}, "versions": [{"versionString": "a b"}]}
    assert reasons(world(service, image)) == (expected,)


NOBODYS = {
    ("r.example.com", "other.example.com/shop:1"),
    ("r.example.com", "docker.io/team/shop:1"),
    ("r.example.com", "index.docker.io/shop:1"),
    ("r.example.com", "r.example.com:80/shop:1"),
    ("docker.io", "docker.io:443/team/shop:1"),
    ("docker.io", "DOCKER.IO/team/shop:1"),
}
"""References that lead elsewhere than to the registry at that address, as engines see it."""
REGISTRY = {"type": "docker", "url": "https://r.example.com/", "username": "puller", "password": "pw"}


@pytest.mark.parametrize(
    ("url", "tag", "version", "reference"),
    [
        ("https://r.example.com/", "shop:1", "2", "r.example.com/shop:1"),
        ("r.example.com", "team/shop", "2", "r.example.com/team/shop:2"),
        ("r.example.com", "team/shop", None, "r.example.com/team/shop:latest"),
        ("r.example.com", "r.example.com/shop:1", None, "r.example.com/shop:1"),
        ("r.example.com", "other.example.com/shop:1", None, "other.example.com/shop:1"),
        ("r.example.com/v2", "shop:1", None, "r.example.com/shop:1"),
        ("localhost:5000", "shop:1", None, "localhost:5000/shop:1"),
        ("registry:5000", "shop:1", None, "registry:5000/shop:1"),
        ("registry:443", "registry:443/shop:1", None, "registry:443/shop:1"),
        ("REG.example.com:443", "reg.example.com/shop:1", None, "reg.example.com/shop:1"),
        ("https://reg.example.com", "REG.EXAMPLE.com:443/shop:1", None, "REG.EXAMPLE.com:443/shop:1"),
        ("https://INDEX.docker.io/v1/", "index.docker.io/team/shop:1", None, "index.docker.io/team/shop:1"),
        ("docker.io", "docker.io:443/team/shop:1", None, "docker.io:443/team/shop:1"),
        ("docker.io", "DOCKER.IO/team/shop:1", None, "DOCKER.IO/team/shop:1"),
        ("[::1]:5000", "shop:1", None, "[::1]:5000/shop:1"),
        ("r.example.com", "r.example.com:80/shop:1", None, "r.example.com:80/shop:1"),
        ("r.example.com", "index.docker.io/shop:1", None, "index.docker.io/shop:1"),
        ("r.example.com", f"shop@{DIGEST}", "2", f"r.example.com/shop@{DIGEST}"),
        ("r.example.com", "https://r.example.com/shop:1", None, "r.example.com/shop:1"),
        ("docker.io", "team/shop:1", None, "team/shop:1"),
        ("https://index.docker.io/v1/", "shop", "2", "shop:2"),
        ("registry-1.docker.io", "shop", "2", "shop:2"),
        ("https://hub.docker.com", "docker.io/team/shop:1", None, "docker.io/team/shop:1"),
        ("r.example.com", "docker.io/team/shop:1", None, "docker.io/team/shop:1"),
    ],
)
def test_external_reference(url: str, tag: str, version: str | None, reference: str) -> None:
    """The registry's host comes before a reference without host, except for Docker Hub; a tag wins over the version."""
    image = {"location": {"externalRegistryId": "r", "externalImageTag": tag}}
    found = request(world({"imageId": "i", "imageVersion": version}, image, {**REGISTRY, "url": url}))
    assert found.reference == reference
    assert (found.login is None) is ((url, tag) in NOBODYS)  # nobody else gets the password
    assert found.login is None or found.login.serveraddress == server_address(url)


@pytest.mark.parametrize(
    ("location", "registry", "expected"),
    [
        ({}, REGISTRY, "image i: externalImageTag is missing"),
        ({"externalImageTag": "https://"}, REGISTRY, "image i: externalImageTag is missing"),
        ({"externalImageTag": "shop", "externalRegistryId": "x"}, REGISTRY, "external registry x does not exist"),
        ({"externalImageTag": "shop", "externalRegistryId": "r"}, {**REGISTRY, "type": "npm"}, "external registry r is not a Docker registry"),
        ({"externalImageTag": "shop", "externalRegistryId": "r"}, {**REGISTRY, "url": "https://"}, "external registry r: url is empty"),
        ({"externalImageTag": "shop", "externalRegistryId": "r"}, {**REGISTRY, "url": "https://registry/"}, f"external registry r: the host of its url {NO_HOST}"),
        ({"externalImageTag": "registry/shop", "externalRegistryId": "r"}, {**REGISTRY, "url": "registry"}, f"external registry r: the host of its url {NO_HOST}"),
        ({"externalImageTag": "Shop:1"}, None, "image i: not a valid image reference: write its name in lower case"),
    ],
)  # fmt: skip
def test_bad_external(location: Json, registry: Json | None, expected: str) -> None:
    """What keeps an external image from being found is named by record and field."""
    assert reasons(world({"imageId": "i"}, {"location": location}, registry)) == (expected,)


@pytest.mark.parametrize(
    ("registry", "tag", "username"),
    [
        (REGISTRY, "shop:1", "puller"),
        ({**REGISTRY, "username": ""}, "shop:1", None),
        ({"url": "old.example.com"}, "shop:1", "cluster"),
        (None, "old.example.com/shop:1", "cluster"),
        (None, "shop:1", None),
    ],
)
def test_external_login(registry: Json | None, tag: str, username: str | None) -> None:
    """The registry's login if it has a user name, else the cluster's where it is for this registry."""
    location = {"externalImageTag": tag, **({"externalRegistryId": "r"} if registry else {})}
    found = request(world({"imageId": "i"}, {"location": location}, registry)).login
    assert (found.username if found is not None else None) == username


def test_no_password() -> None:
    """A registry with a user name and no password has an empty one."""
    image = {"location": {"externalImageTag": "shop", "externalRegistryId": "r"}}
    found = request(world({"imageId": "i"}, image, {"url": "r.example.com", "username": "puller"})).login
    assert found == RegistryLogin(serveraddress="r.example.com", username="puller", password="")


def test_missing_because_invalid() -> None:
    """A record that is there and cannot be used is not said to be missing."""
    records = world({"imageId": "i"}, {"location": 5})
    assert missing("image", "other", records) == "image other does not exist"
    assert reasons(records) == (
        "image i is invalid: expected a mapping, got an integer @ $.images[0].location",
    )


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("shop", ("shop", "", "")),
        ("shop:1.0_a-b", ("shop", "1.0_a-b", "")),
        ("r.example.com:5000/a/b__c:1", ("r.example.com:5000/a/b__c", "1", "")),
        (f"shop:1@{DIGEST}", ("shop", "1", DIGEST)),
        (f"shop@{DIGEST}", ("shop", "", DIGEST)),
    ],
)
def test_split(reference: str, parts: tuple[str, str, str]) -> None:
    """A reference has a name, and perhaps a tag and a digest."""
    assert split_reference(reference) == parts


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "Shop",
        "shop:",
        "shop/",
        "/shop",
        "a//b",
        "shop:" + "a" * 129,
        "a" * 500,
        "shop@sha256:1",
        "shop:1\n",
        "a b",
    ],
)
def test_no_reference(reference: str) -> None:
    """What Docker would refuse as a reference is refused here."""
    with pytest.raises(ValueError, match="not an image reference"):
        split_reference(reference)


def test_references_are_those_of_the_engine() -> None:
    """The contract suite holds engines to the same lists."""
    for reference in (*references.TAKEN, *references.NEWER):
        name, tag, digest = split_reference(reference)
        assert reference == f"{name}{':' if tag else ''}{tag}{'@' if digest else ''}{digest}"
    for reference in references.REFUSED:
        with pytest.raises(ValueError, match="not an image reference"):
            split_reference(reference)


@pytest.mark.parametrize("identity", ["a" * 238, "D", "a" * 64 + "/B", "[::1]"])
def test_an_archive_has_a_name_that_every_engine_takes(identity: str) -> None:
    """The id of an image in Cloudly's store becomes its name in the engine."""
    image = {"id": identity, "location": {"internal": True}, "versions": [{"versionString": "1"}]}
    service = {"imageId": identity, "imageVersion": "1"}
    assert reasons(world(service, image)) == (
        f"image {identity}, version 1: not usable as an image name and tag",
    )


@pytest.mark.parametrize(
    ("name", "familiar"),
    [
        ("nginx", "nginx"), ("library/nginx", "nginx"), ("docker.io/nginx", "nginx"), ("index.docker.io/library/nginx", "nginx"),
        ("docker.io/library/library/nginx", "library/library/nginx"), ("docker.io/a/b", "a/b"), ("r.example.com/library/nginx", "r.example.com/library/nginx"),
        ("DOCKER.IO/nginx", "DOCKER.IO/nginx"), ("docker.io/docker.io/nginx", "docker.io/nginx"),
    ],
)  # fmt: skip
def test_familiar_names(name: str, familiar: str) -> None:
    """An engine lists what comes from Docker Hub without its host."""
    assert familiar_name(name) == familiar


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("index.docker.io/shop", "docker.io"),
        ("docker.io:443/shop", "docker.io:443"),
        ("DOCKER.IO/shop", "DOCKER.IO"),
        ("Registry/shop", "Registry"),
        ("[::1]:5000/shop", "[::1]:5000"),
        ("shop", "docker.io"),
        ("team/shop:1", "docker.io"),
        ("localhost/shop", "localhost"),
        ("r.example.com/shop", "r.example.com"),
        ("registry:5000/shop", "registry:5000"),
    ],
)
def test_host(reference: str, host: str) -> None:
    """The part before the first slash is a host when it looks like one."""
    assert registry_host(reference) == host


def test_pinning() -> None:
    """A digest goes behind a reference that has none, and comes off again."""
    assert pinned("shop:1", DIGEST) == f"shop:1@{DIGEST}"
    assert pinned(f"shop@{DIGEST}", "sha256:other") == f"shop@{DIGEST}"
    assert pinned("shop:1", None) == unpinned(f"shop:1@{DIGEST}") == unpinned("shop:1") == "shop:1"


def test_plain_source() -> None:
    """The image of a base service is given by reference, and has the cluster's login where that fits."""
    records = world({})
    assert plain_source("old.example.com/corelog", records, "the image of corelog") == RegistryImage(
        request=ImageRequest("old.example.com/corelog:latest", login(CLUSTER_LOGIN))
    )
    with pytest.raises(Rejected, match="the image of corelog: not a valid image reference"):
        plain_source("Core Log", records, "the image of corelog")


def test_distinct() -> None:
    """Each question is asked once, in an order that does not depend on where it came from."""
    plain, other = ImageRequest("b"), ImageRequest("a")
    mine, theirs = ImageRequest("b", login(TARGET_LOGIN)), ImageRequest("b", login(CLUSTER_LOGIN))
    expected = (other, plain, theirs, mine)
    assert distinct([mine, plain, theirs, other, plain]) == expected == distinct(reversed(expected))


@pytest.mark.parametrize(
    ("tag", "gets_login"),
    [
        ("team/web:1", True),
        ("r.example.com/team/web:1", True),
        ("elsewhere.example.com/team/web:1", False),
    ],
)
def test_a_login_goes_to_its_own_registry_only(tag: str, gets_login: bool) -> None:
    """An image that names another host is fetched without the registry's password."""
    document = {
        "configData": {"id": "c", "data": {}},
        "services": [{"id": "s", "data": {"name": "s", "imageId": "i"}}],
        "images": [
            {"id": "i", "data": {"location": {"externalRegistryId": "r", "externalImageTag": tag}}},
        ],
        "externalRegistries": [
            {"id": "r", "data": {"url": "https://r.example.com/", "username": "u", "password": "p"}}
        ],
    }
    records = decode_records(document)
    source = image_source(records.services[0], records)
    assert isinstance(source, RegistryImage)
    assert (source.request.login is not None) is gets_login
