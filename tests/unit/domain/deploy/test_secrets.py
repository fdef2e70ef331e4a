"""Secret bundles and what becomes of them: the bytes of `secret.json`."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreflow.domain.deploy.secrets import PAYLOAD_LIMIT, Layer, flatten, make_payload, matches
from coreflow.domain.records.converter import decode
from coreflow.domain.records.models import SecretBundleRecord, SecretGroupRecord, Tag
from coreflow.domain.swarm.images import Rejected


def group(key: str, value: str, *, identity: str = "g", priority: float | None = None) -> SecretGroupRecord:
    """A group with a value in production, and the same with a mark in staging."""
    environments = {"production": {"value": value}, "staging": {"value": f"{value}-staging"}}
    raw = {"id": identity, "key": key, "priority": priority, "environments": environments}
    return decode(raw, SecretGroupRecord)


def bundle(*groups: SecretGroupRecord, environment: str = "production") -> Layer:
    """What a bundle of groups gives."""
    return flatten(decode({"id": "b"}, SecretBundleRecord), groups, environment)


def content(*layers: Layer, **provisioned: str) -> Any:
    """What a workload reads."""
    return json.loads(make_payload(layers, provisioned).data)


@pytest.mark.parametrize(
    ("priorities", "winner"),
    [
        ((None, None), "second"),
        ((1, 1), "second"),
        ((2, 1), "first"),
        ((1, 2), "second"),
        ((0, None), "second"),
        ((None, -1), "first"),
        ((0.5, None), "first"),
        ((1, 10), "second"),
    ],
)
def test_priority(priorities: tuple[float | None, float | None], winner: str) -> None:
    """Of two groups with one key the higher priority wins, the later one among equals; absent counts as 0."""
    first = group("KEY", "first", priority=priorities[0])
    second = group("KEY", "second", priority=priorities[1])
    assert content(bundle(first, second)) == {"KEY": winner}


@pytest.mark.parametrize(("environment", "value"), [("production", "x"), ("staging", "x-staging")])
def test_environments(environment: str, value: str) -> None:
    """The environment chooses the value."""
    assert content(bundle(group("KEY", "x"), environment=environment)) == {"KEY": value}


def test_no_value_there() -> None:
    """A group without a value in the environment is left out, with a note that has no value."""
    layer = bundle(group("A", "hidden", identity="g1"), environment="testing")
    assert layer.values == {}
    text = "secret group g1 has no value for environment testing: left out"
    assert layer.notes == (f"{text}; it has values for: production, staging",)
    payload = make_payload([layer], {})
    assert (payload.data, payload.notes) == (b"{}", layer.notes)


@pytest.mark.parametrize(
    ("environments", "told"),
    [
        ((), "it has none"),
        (("prod",), "it has values for: prod"),
        (("prod", "a:b"), "it has values for: prod, 1 other"),
        (("x y", "s" * 40), "it has values for: 2 others"),
        (tuple("abcdefg"), "it has values for: a, b, c, d, e, 2 others"),
    ],
)
def test_environments_that_a_group_has_are_told_where_they_look_like_names(
    environments: tuple[str, ...], told: str
) -> None:
    """Anything else may be a secret in the wrong place."""
    raw = {"id": "g", "key": "K", "environments": {name: {"value": "v"} for name in environments}}
    (note,) = bundle(decode(raw, SecretGroupRecord)).notes
    assert note == f"secret group g has no value for environment production: left out; {told}"


def test_bundles_in_order() -> None:
    """A later bundle lies on top of an earlier one, whatever the priorities: the main bundle comes last."""
    additional = bundle(group("A", "additional", priority=100), group("B", "additional"))
    main = bundle(group("A", "main"), group("C", "main"))
    assert content(additional, main) == {"A": "main", "B": "additional", "C": "main"}


def test_provisioned() -> None:
    """What a binding returned lies below every bundle, and is noted by name where a bundle hides it."""
    payload = make_payload([bundle(group("A", "mine"))], {"A": "theirs", "Z": "z"})
    assert payload.data == b'{"A":"mine","Z":"z"}'
    assert payload.notes == ("secret bundle overrides the provisioned A",)
    assert content(Z="z") == {"Z": "z"}


def test_bytes() -> None:
    """The same variables are the same bytes, whatever their order: sorted, without spaces, in UTF-8."""
    one = make_payload([bundle(group("B", "ü"), group("A", 'quote"'))], {})
    other = make_payload([bundle(group("A", 'quote"'), group("B", "ü"))], {})
    assert one.data == other.data == '{"A":"quote\\"","B":"ü"}'.encode()


@given(st.dictionaries(st.text(), st.text(), max_size=5), st.dictionaries(st.text(), st.text(), max_size=5))
def test_merge(mine: dict[str, str], theirs: dict[str, str]) -> None:
    """The payload is the two maps merged, for any text."""
    groups = tuple(group(key, value) for key, value in mine.items())
    assert json.loads(make_payload([bundle(*groups)], theirs).data) == {**theirs, **mine}


def test_size() -> None:
    """A payload that Docker would refuse is rejected with its size; one byte less is taken."""
    frame = len(b'{"A":""}')
    fits = bundle(group("A", "x" * (PAYLOAD_LIMIT - frame - 1)))
    assert len(make_payload([fits], {}).data) == PAYLOAD_LIMIT - 1
    with pytest.raises(Rejected, match=r"secret.json has 500000 bytes; Docker takes less than 500000"):
        make_payload([bundle(group("A", "x" * (PAYLOAD_LIMIT - frame)))], {})


def test_repr() -> None:
    """The repr of a payload shows its size only, and that of a layer no value."""
    payload = make_payload([bundle(group("A", "hidden"))], {})
    assert repr(payload) == "Payload(14 bytes)"
    assert "hidden" not in repr(bundle(group("A", "hidden")))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([Tag(key="a", value="1")], True),
        ([Tag(key="a")], True),
        ([Tag(key="a", value="2")], False),
        ([Tag(key="b")], False),
        ([Tag(key="b"), Tag(key="a", value="1")], True),
        ([], False),
    ],
)
def test_tags(wanted: list[Tag], found: bool) -> None:
    """One matching tag is enough, and a tag without a value matches every value of its key."""
    assert matches(wanted, [Tag(key="a", value="1"), Tag(key="c", value="2")]) is found
