"""Names that Docker takes, derived names that never change, and labels."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreflow.domain.swarm import naming

SWARM_SECRET = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("shop", True),
        ("a", True),
        ("Shop_1--x", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("", False),
        ("-shop", False),
        ("shop-", False),
        ("shop.web", False),
        ("shöp", False),
        ("shop\n", False),
    ],
)
def test_service_names(name: str, fits: bool) -> None:
    """A service name is what Swarm takes: letters, digits, separators inside, at most 63 characters."""
    assert naming.is_service_name(name) is fits


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("ab", True),
        ("shop-data_1.x", True),
        ("a", False),
        ("", False),
        (".ab", False),
        ("a/b", False),
        ("ab\n", False),
    ],
)
def test_volume_names(name: str, fits: bool) -> None:
    """A volume name has at least two characters and begins with a letter or digit."""
    assert naming.is_volume_name(name) is fits


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("shop", "shop"),
        ("/var/lib/data", "var-lib-data"),
        ("a b//c", "a-b-c"),
        ("Ä/ö", ""),
        ("x" * 39 + "/y", "x" * 39),
        ("x" * 50, "x" * 40),
        ("-_.a.-_", "a"),
    ],
)
def test_slugs(text: str, slug: str) -> None:
    """A slug keeps what Docker takes, has no separators around it and at most 40 characters."""
    assert naming.slug(text) == slug


@pytest.mark.parametrize(
    ("service", "path", "name"),
    [
        ("svc-shop", "/data", "svc-shop-data-796cf2c8"),
        ("svc-shop", "/a/b", "svc-shop-a-b-6aed2699"),
        ("svc-shop", "/a-b", "svc-shop-a-b-04e169a3"),
        ("ö", "/ö", "2e78375a"),
    ],
)
def test_volume_name_never_changes(service: str, path: str, name: str) -> None:
    """The derived name of a volume is the same for ever: another one would be an empty volume."""
    assert naming.volume_name(service, path) == name


@given(st.text(min_size=1), st.text(min_size=1))
def test_volume_names_fit(service: str, path: str) -> None:
    """A derived volume name is one that Docker takes."""
    name = naming.volume_name(service, f"/{path}")
    assert naming.is_volume_name(name)
    assert len(name) <= 90


@given(st.from_regex(r"[a-zA-Z0-9]+(?:[-_]+[a-zA-Z0-9]+)*", fullmatch=True).filter(naming.is_service_name))
def test_secret_names_fit(service: str) -> None:
    """The secret's name is one that Swarm takes, whatever the service's name, and ends in the hash."""
    name = naming.secret_name(service, "0123456789ab")
    assert len(name) <= naming.SECRET_NAME_LIMIT
    assert SWARM_SECRET.fullmatch(name)
    assert name.endswith("-0123456789ab")
    assert service.startswith(name.removesuffix("-0123456789ab"))


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("shop", "shop-0123456789ab"),
        ("a" * 63, "a" * 51 + "-0123456789ab"),
        ("a" * 50 + "-" + "b" * 12, "a" * 50 + "-0123456789ab"),
    ],
)
def test_secret_name(service: str, name: str) -> None:
    """A long service name is cut to leave room for the hash, and ends in no separator."""
    assert naming.secret_name(service, "0123456789ab") == name


def test_salted_hash() -> None:
    """The hash depends on the salt and on the data, is stable, and has as many digits as asked for."""
    assert naming.salted_hash("c1", b"x") == naming.salted_hash("c1", b"x") == "16bf489a90cc"
    assert naming.salted_hash("c2", b"x") != naming.salted_hash("c1", b"x") != naming.salted_hash("c1", b"y")
    assert naming.salted_hash("c1", b"x", digits=4) == "16bf"


def test_ownership() -> None:
    """An object is ours with our mark and our cluster's id, and only then."""
    labels = naming.ownership("c1", "s1")
    assert labels == {
        "serve.zone.managed-by": "coreflow",
        "serve.zone.cluster": "c1",
        "serve.zone.owner": "s1",
    }
    assert naming.is_ours(labels, "c1")
    assert not naming.is_ours(labels, "c2")
    assert not naming.is_ours({**labels, naming.MANAGED_BY: "somebody"}, "c1")
    assert not naming.is_ours({}, "c1")


def test_label_names() -> None:
    """The labels' names are remembered by running services, so they never change."""
    assert (naming.FINGERPRINT, naming.IMAGE, naming.LOGIN, naming.aspect_label("rest")) == (
        "serve.zone.fingerprint",
        "serve.zone.image",
        "serve.zone.login",
        "serve.zone.fingerprint.rest",
    )
    assert (naming.FAILED, naming.FAILED_IMAGE, naming.FAILED_REASON) == (
        "serve.zone.failed",
        "serve.zone.failed-image",
        "serve.zone.failed-reason",
    )


@pytest.mark.parametrize(
    ("label", "replicas"), [("3", 3), ("0", 0), ("", 1), ("x", 1), ("-1", 1), ("٣", 1), ("9" * 5000, 1)]
)
def test_replicas_that_were_noted(label: str, replicas: int) -> None:
    """Whatever stands there."""
    assert naming.replicas_noted(label) == replicas
