"""When an identity is renewed, and what is said of one that cannot be read."""

import json
from base64 import b64encode
from typing import Any

import pytest
from tests.unit.adapters.cloudly.stand_in import EPOCH

from coreflow.adapters.cloudly.identity import UNKNOWN_LIFETIME, Identity
from coreflow.domain.errors import InvalidRecord

NONSENSE: tuple[object, ...] = (None, 0, -5, True, "soon", "1700086400000", [], {})


@pytest.mark.parametrize(
    ("expires_at", "seconds"),
    [
        pytest.param((EPOCH + 86400) * 1000, 0.8 * 86400, id="a day: a fifth is left"),
        pytest.param(EPOCH + 86400, 0.8 * 86400, id="in seconds"),
        pytest.param((EPOCH + 1200) * 1000, 900, id="twenty minutes: five are left"),
        pytest.param((EPOCH + 600) * 1000, 300, id="ten minutes: half"),
        pytest.param((EPOCH + 60) * 1000, 30, id="a minute: half"),
        pytest.param((EPOCH + 1) * 1000, 15, id="a second: not at once"),
        pytest.param(EPOCH * 1000, UNKNOWN_LIFETIME, id="expires now"),
        pytest.param((EPOCH - 1) * 1000, UNKNOWN_LIFETIME, id="expired"),
        *(pytest.param(value, UNKNOWN_LIFETIME, id=f"nonsense: {value!r}") for value in NONSENSE),
    ],
)
def test_when_an_identity_is_renewed(expires_at: object, seconds: float) -> None:
    """In time before it expires, whatever the unit; after an hour where that cannot be known."""
    identity = Identity.parse({"jwt": "j", "expiresAt": expires_at})
    assert identity.seconds_to_renewal(EPOCH) == pytest.approx(seconds)


def test_an_identity_may_not_say_when_it_expires() -> None:
    """Without `expiresAt` it is renewed every hour."""
    assert Identity.parse({"jwt": "j"}).seconds_to_renewal(EPOCH) == UNKNOWN_LIFETIME


@pytest.mark.parametrize("clock", [EPOCH, EPOCH + 86400, EPOCH + 3599, EPOCH - 86400])
def test_a_token_tells_its_lifetime_whatever_our_clock_says(clock: float) -> None:
    """Beginning and end are on Cloudly's clock."""
    claims = b64encode(json.dumps({"iat": EPOCH}).encode()).decode().rstrip("=")
    identity = Identity.parse({"jwt": f"e30.{claims}.x", "expiresAt": (EPOCH + 3600) * 1000})
    assert (identity.lifetime(clock), identity.seconds_to_renewal(clock)) == (3600, 0.8 * 3600)


@pytest.mark.parametrize("claims", ["", "!", "e30", "W10", "eyJpYXQiOiJ4In0", "eyJpYXQiOnRydWV9", "gAAA"])
def test_a_token_that_tells_nothing(claims: str) -> None:
    """Then our clock has to do, unless it must be wrong."""
    identity = Identity.parse({"jwt": f"e30.{claims}.x", "expiresAt": (EPOCH + 3600) * 1000})
    assert identity.lifetime(EPOCH) == 3600
    assert identity.lifetime(EPOCH + 86400) is None


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (None, "$.identity"),
        ("secret", "$.identity"),
        (["secret"], "$.identity"),
        ({}, "$.identity.jwt"),
        ({"jwt": ""}, "$.identity.jwt"),
        ({"jwt": ["secret"]}, "$.identity.jwt"),
        ({"jwt": 7, "userId": "secret"}, "$.identity.jwt"),
    ],
)
def test_what_is_no_identity(raw: Any, path: str) -> None:
    """The error says where, and shows nothing."""
    with pytest.raises(InvalidRecord) as caught:
        Identity.parse(raw)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert "secret" not in str(caught.value)


def test_an_identity_is_not_shown() -> None:
    """Its repr has neither the token nor anything else that came."""
    assert "secret" not in repr(Identity.parse({"jwt": "secret", "userId": "secret"}))
