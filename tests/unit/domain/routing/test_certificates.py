"""What is checked before a certificate is relied on."""

import base64
from typing import Any

import attrs
import pytest
from tests.unit.certificates import DAY, START, make

from coreflow.domain.errors import InvalidRecord
from coreflow.domain.routing.certificates import read_certificate

NOW = START + 10 * DAY
GOOD = make("a.example.com", "*.b.example.com")


@pytest.mark.parametrize("host", ["a.example.com", "x.b.example.com", "*.b.example.com"])
def test_a_good_certificate(host: str) -> None:
    """Names, issuer and times are read; the key stays out of sight."""
    found = read_certificate(GOOD, host, NOW)
    assert (found.issuer, found.not_before, found.not_after) == ("Test", START, START + 100 * DAY)
    assert found.renew_at == START + 80 * DAY
    assert found.is_valid(NOW)
    assert not found.is_valid(START + 100 * DAY)
    assert "PRIVATE" not in repr(found)


OTHER = make("other.example.com")


@pytest.mark.parametrize(
    ("record", "host", "now", "margin", "reason"),
    [
        (GOOD, "b.example.com", NOW, 0, "does not cover"),
        (GOOD, "x.y.b.example.com", NOW, 0, "does not cover"),
        (GOOD, "a.example.com", START - 1, 0, "not valid before 2026-01-01"),
        (GOOD, "a.example.com", START + 100 * DAY, 0, "ends on 2026-04-11"),
        (GOOD, "a.example.com", START + 99.5 * DAY, DAY, "ends on 2026-04-11"),
        (attrs.evolve(GOOD, private_key=OTHER.private_key), "a.example.com", NOW, 0, "do not belong together"),
        (attrs.evolve(GOOD, private_key="canary"), "a.example.com", NOW, 0, "no usable PEM key"),
        (attrs.evolve(GOOD, private_key=GOOD.public_key), "a.example.com", NOW, 0, "no usable PEM key"),
        (attrs.evolve(GOOD, public_key="canary"), "a.example.com", NOW, 0, "no PEM certificate"),
        (attrs.evolve(GOOD, public_key=""), "a.example.com", NOW, 0, "no PEM certificate"),
    ],
)  # fmt: skip
def test_a_bad_certificate(record: Any, host: str, now: float, margin: float, reason: str) -> None:
    """The reason names the host and quotes neither part."""
    with pytest.raises(InvalidRecord, match=reason) as caught:
        read_certificate(record, host, now, margin=margin)
    assert f"certificate of {host}" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # the library has something to say about some of them
def test_a_certificate_that_breaks_its_parser() -> None:
    """Parts are parsed when they are looked at: nonsense there is a reason like any other, without its text."""
    good = make("a.example.com")
    der = bytearray(base64.b64decode("".join(good.public_key.splitlines()[1:-1])))
    refused = 0
    for position in range(len(der)):
        broken = bytearray(der)
        broken[position] ^= 0xFF
        text = base64.encodebytes(bytes(broken)).decode()
        pem = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
        try:
            read_certificate(attrs.evolve(good, public_key=pem), "a.example.com", NOW)
        except InvalidRecord:
            refused += 1
    assert refused > len(der) / 2
