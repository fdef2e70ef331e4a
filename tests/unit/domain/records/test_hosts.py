"""Host names have one spelling, and ports one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.certificates import make, raw

from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.errors import InvalidRecord, Refused
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.hosts import canonical_host, host_problem, port_in
from coreflow.domain.records.models import Records, certificate_in
from coreflow.domain.swarm.images import ResolvedImage
from coreflow.domain.swarm.observed import Observed


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("a.example.com", "a.example.com"),
        (" A.Example.COM. ", "a.example.com"),
        ("*.A.example.com.", "*.a.example.com"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("bücher2.example", "xn--bcher2-3ya.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("ＡＢＣ．example。com｡", "abc.example.com"),
        ("日本語。jp", "xn--wgv71a119e.jp"),
        ("a\u00adb.example.com", "ab.example.com"),
        ("a", "a"),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}", f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"),
    ],
)
def test_every_spelling_of_a_host_name_is_the_same(text: str, host: str) -> None:
    """Case, a final dot, dots of other scripts and composed letters make no difference; Unicode becomes punycode."""
    assert canonical_host(text) == host
    assert host_problem(host) is None
    assert canonical_host(host) == host


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" . ", "is empty"),
        ("my_app.example.com", "is not a host name"),
        ("a..example.com", "is not a host name"),
        ("-a.example.com", "is not a host name"),
        ("a.*.example.com", "is not a host name"),
        ("*", "is not a host name"),
        ("**.example.com", "is not a host name"),
        ("a b", "is not a host name"),
        ("https://a", "is not a host name"),
        ("a:80", "is not a host name"),
        ("a" * 64, "is not a host name"),
        (f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 62}", "is not a host name"),
        ("a\n.example.com", "is not a host name"),
        ("ä\n.example.com", "is not a host name"),
        ("ä\ud800.example.com", "is not a host name"),
        ("faß.example", "is read differently by older clients: write xn--fa-hia.example (or fass.example)"),
        ("*.βόλος.example", "is read differently by older clients: write *.xn--nxasmm1c.example (or *.xn--nxasmq6b.example)"),
        ("💩.example", "is not a host name that all clients read: write xn--ls8h.example if it is meant"),
        ("ä_b.example", "is not a host name that all clients read: write xn--_b-uia.example if it is meant"),
        ("1א.example", "is not a host name that all clients read: write xn--1-0hc.example if it is meant"),
        ("ä" * 60, "is not a host name that all clients read: write xn--"),
    ],
)  # fmt: skip
def test_what_is_no_host_name_is_said(text: str, problem: str) -> None:
    """A Unicode name that is not read alike by everybody is refused with its punycode."""
    found = host_problem(canonical_host(text))
    assert found is not None
    assert found.startswith(problem)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M", "Z", "C"]), max_size=20))
def test_the_canonical_spelling_is_its_own(text: str) -> None:
    """What is a host name is in ASCII and stays as it is; what is none always has a reason."""
    host = canonical_host(text)
    if host_problem(host) is None:
        assert host.isascii()
        assert canonical_host(host) == host


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80", 80), (" 80 ", 80), ("1", 1), ("65535", 65535),
        *((text, None) for text in ("0", "65536", "0443", "000443", "+80", "-80", "8e1", "0x50", "80.0", "22:22", "1_0", "٣", "８０", "", " ", "9" * 5000)),
    ],
)  # fmt: skip
def test_ports_are_decimal_digits(text: str, port: int | None) -> None:
    """Nothing that another reader could take for another number is a port."""
    assert port_in(text) == port


WANTED = make("a.example.com")
OTHER = make("*.example.com")


def records(certificates: dict[str, object]) -> Records:
    """A document's records, of which only these certificates matter."""
    return decode_records({"configData": {"id": "c1"}, "services": [], "certificates": certificates})


@pytest.mark.parametrize("host", ["a.example.com", "A.example.com."])
@pytest.mark.parametrize(
    "key", ["a.example.com", "A.Example.com", "a.example.com.", " a.example.com", "ａ。example．com"]
)
def test_a_certificate_is_found_by_any_spelling(key: str, host: str) -> None:
    """How its key in the mapping is written does not matter."""
    assert certificate_in(records({key: raw(WANTED)}), host).public_key == WANTED.public_key


def test_a_unicode_name_finds_its_certificate() -> None:
    """A name and its punycode are one host."""
    for key, host in (
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "Bücher.example"),
    ):
        assert certificate_in(records({key: raw(WANTED)}), host).public_key == WANTED.public_key


def test_a_wildcard_is_used_for_one_label() -> None:
    """The certificate of `*.example.com` is that of every name beside it that has none of its own."""
    found = records({"A.example.com": raw(WANTED), "*.Example.com.": raw(OTHER)})
    assert certificate_in(found, "a.example.com").public_key == WANTED.public_key
    for host in ("b.example.com", "*.example.com"):
        assert certificate_in(found, host).public_key == OTHER.public_key
    for host in ("example.com", "a.b.example.com", "com", "*.a.example.com"):
        with pytest.raises(Refused, match="there is none"):
            certificate_in(found, host)


def test_two_keys_for_one_host_are_a_mistake() -> None:
    """Nobody can tell which one is meant: both are named, and other hosts are not touched."""
    found = records(
        {"A.example.com": raw(WANTED), "a.example.com.": raw(OTHER), "b.example.com": raw(OTHER), "c": None}
    )
    assert set(found.certificates) == {"b.example.com"}
    (rejected,) = found.rejected
    assert rejected.id == "a.example.com"
    assert rejected.reasons == (
        "the same host name as a.example.com. @ $.certificates.A.example.com",
        "the same host name as A.example.com @ $.certificates.a.example.com.",
    )
    with pytest.raises(InvalidRecord, match=r"the same host name as a\.example\.com\. @ "):
        certificate_in(found, "a.example.com")


def test_two_spellings_of_a_host_in_two_services_clash() -> None:
    """The second service is told whose host it wants; what both are routed by is the punycode."""
    records = decode_records({
        "configData": {"id": "c1"},
        "services": [
            {"id": f"s{n}", "name": f"web{n}", "registryTarget": {"imageUrl": "web:1"}, "ports": {"web": 80}, "domains": [host]}
            for n, host in enumerate(("Bücher.example.", "xn--bcher-kva.EXAMPLE"))
        ],
    })  # fmt: skip
    renderer = Renderer(RenderOptions(base=BaseOptions(services=())))
    requests = renderer.image_requests(records, Observed())
    desired = renderer.render(records, Observed(), dict.fromkeys(requests, ResolvedImage()))
    assert set(desired.hosts) == {"xn--bcher-kva.example"}
    (rejection,) = desired.rejections
    assert rejection.reasons == ("the host name xn--bcher-kva.example belongs to service s0",)
