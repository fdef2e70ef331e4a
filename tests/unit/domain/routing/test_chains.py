"""Certificates as people put them into files: what is found in them, what is sent, and that OpenSSL takes it."""

import shutil
import ssl
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.unit.certificates import BEGIN, DAY, START

from coreflow.domain.errors import InvalidRecord
from coreflow.domain.records.models import CertificateRecord
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.certificates import NotYetValid, read_certificate
from coreflow.domain.routing.pem import Block, blocks

HOST = "a.example.com"
CLEAR = s.NoEncryption()
NOW = START + 10 * DAY
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key that is made quickly."""
    return ec.generate_private_key(ec.SECP256R1())


def signed(
    name: str, key: Key, issuer: str, issuer_key: Key, *, start: float = 0, days: float = 100, ca: bool = True,
    sans: tuple[str, ...] = (), path_length: int | None = None, more: tuple[x509.ExtensionType, ...] = (),
) -> x509.Certificate:  # fmt: skip
    """A certificate valid from `start` days after 2026 began."""
    begin = BEGIN + timedelta(days=start)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    if sans:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in sans])
        builder = builder.add_extension(names, critical=False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, algorithm)


ROOT_KEY, UPPER_KEY, INTER_KEY, LEAF_KEY = (new_key() for _ in range(4))
ROOT = signed("Root", ROOT_KEY, "Root", ROOT_KEY)
UPPER = signed("Upper", UPPER_KEY, "Root", ROOT_KEY)
INTER = signed("Inter", INTER_KEY, "Upper", UPPER_KEY)
OLD_INTER = signed("Inter", INTER_KEY, "Upper", UPPER_KEY, start=-50, days=20)
LATE_INTER = signed("Inter", INTER_KEY, "Upper", UPPER_KEY, start=50)
OLD_UPPER = signed("Upper", UPPER_KEY, "Root", ROOT_KEY, start=-50, days=20)
FALSE_INTER = signed("Inter", new_key(), "Upper", UPPER_KEY)
NO_CA = signed("Inter", INTER_KEY, "Upper", UPPER_KEY, ca=False)
LEAF = signed("leaf", LEAF_KEY, "Inter", INTER_KEY, ca=False, sans=(HOST,))
SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
ANYBODY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])


def usage(*names: str) -> x509.KeyUsage:
    """What a key may be used for."""
    kinds = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{kind: kind in names for kind in kinds})


def leaf_for(*more: x509.ExtensionType) -> x509.Certificate:
    """A leaf with extensions."""
    return signed("leaf", LEAF_KEY, "Inter", INTER_KEY, ca=False, sans=(HOST,), more=more)


CLIENT_INTER = signed("Inter", INTER_KEY, "Upper", UPPER_KEY, more=(CLIENTS,))
CLIENT_UPPER = signed("Upper", UPPER_KEY, "Root", ROOT_KEY, more=(CLIENTS,))
SHORT_UPPER = signed("Upper", UPPER_KEY, "Root", ROOT_KEY, path_length=0)
NO_SIGNER = signed("Inter", INTER_KEY, "Upper", UPPER_KEY, more=(usage("digital_signature"),))
UNRELATED = signed("Else", new_key(), "Root", ROOT_KEY)


def pem(*certificates: x509.Certificate) -> str:
    """As a certificate authority sends them."""
    return "".join(one.public_bytes(s.Encoding.PEM).decode() for one in certificates)


def key_pem(
    key: Key = LEAF_KEY,
    form: s.PrivateFormat = s.PrivateFormat.PKCS8,
    encryption: s.KeySerializationEncryption = CLEAR,
) -> str:
    """A key as tools write it."""
    return key.private_bytes(s.Encoding.PEM, form, encryption).decode()


def read(public: str, private: str = key_pem(), now: float = NOW, host: str = HOST) -> Certificate:
    """The certificate for the host in these texts."""
    record = CertificateRecord(domain_name=host, public_key=public, private_key=private)
    return read_certificate(record, host, now)


def problems(public: str, private: str = key_pem(), now: float = NOW, host: str = HOST) -> list[str]:
    """Why they cannot be used."""
    with pytest.raises(InvalidRecord) as caught:
        read(public, private, now, host)
    return [problem.text for problem in caught.value.problems]


def check_with_openssl(certificate: Certificate, folder: Path) -> None:
    """A TLS library takes the chain and the key as they are sent."""
    path = folder / "both.pem"
    path.write_text(certificate.chain + certificate.key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)


def indented(text: str) -> str:
    """As in a YAML block that was pasted."""
    return "".join(f"  {line}  \n" for line in text.splitlines())


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "BOM": lambda text: f"\ufeff{text}",
    "indented": indented,
    "no final newline": str.strip,
    "blank lines": lambda text: text.replace("\n", "\n\n"),
    "one line": lambda text: text.replace("\n", " "),
    "text around": lambda text: f"Certificate:\n  Data - of - something\n{text}\n# end -----\n",
    "twice": lambda text: text + text,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_pem_in_any_shape_is_sent_in_the_strict_one(spelling: str, tmp_path: Path) -> None:
    """What is around the blocks, and how their lines end, does not matter, and is not passed on."""
    spell = SPELLINGS[spelling]
    found = read(spell(pem(LEAF, INTER, UPPER)), spell(key_pem()))
    assert found.chain == pem(LEAF, INTER, UPPER)
    assert found.key == key_pem()
    assert found.remarks == ()
    check_with_openssl(found, tmp_path)


@pytest.mark.parametrize(
    ("given", "sent", "remarks"),
    [
        ([LEAF], [LEAF], []),
        ([LEAF, INTER], [LEAF, INTER], []),
        ([UPPER, INTER, LEAF], [LEAF, INTER, UPPER], []),
        ([ROOT, LEAF, UPPER, INTER], [LEAF, INTER, UPPER, ROOT], []),
        ([LEAF, UNRELATED, INTER], [LEAF, INTER], ["1 unrelated certificate:"]),
        ([LEAF, FALSE_INTER, INTER], [LEAF, INTER], ["1 unrelated"]),
        ([LEAF, NO_CA, INTER], [LEAF, INTER], ["1 unrelated"]),
        ([LEAF, OLD_INTER, INTER], [LEAF, INTER], ["1 unrelated"]),
        ([LEAF, NO_SIGNER, INTER], [LEAF, INTER], ["1 unrelated"]),
        ([LEAF, CLIENT_INTER, INTER], [LEAF, INTER], ["1 unrelated"]),
        ([LEAF, INTER, CLIENT_UPPER, ROOT], [LEAF, INTER], ["a certificate of its chain is not valid and is left out"]),
        ([LEAF, INTER, SHORT_UPPER, ROOT], [LEAF, INTER], ["a certificate of its chain is not valid and is left out"]),
        ([leaf_for(SERVERS, usage("digital_signature")), INTER], None, []),
        ([LEAF, LATE_INTER, INTER, UPPER], [LEAF, INTER, UPPER], ["1 unrelated"]),
        ([LEAF, UNRELATED, UPPER], [LEAF], ["2 unrelated certificates:", "the certificate of its issuer is not there"]),
        ([LEAF, FALSE_INTER], [LEAF], ["1 unrelated", "the certificate of its issuer is not there"]),
        ([LEAF, INTER, OLD_UPPER, ROOT], [LEAF, INTER], ["a certificate of its chain is not valid and is left out"]),
    ],
)  # fmt: skip
def test_a_chain_is_built_by_who_signed_what(
    given: list[x509.Certificate], sent: list[x509.Certificate] | None, remarks: list[str], tmp_path: Path
) -> None:
    """The leaf first, then each issuer; what has nothing to do with it, or is not valid, is left out and said."""
    found = read(pem(*given))
    assert found.chain == pem(*(given if sent is None else sent))
    assert len(found.remarks) == len(remarks)
    assert all(any(part in remark for remark in found.remarks) for part in remarks)
    check_with_openssl(found, tmp_path)


def test_the_certificate_of_the_key_is_the_leaf(tmp_path: Path) -> None:
    """Of several for one key the one for the host counts, and of those the one that is valid longest."""
    other = signed("leaf", LEAF_KEY, "Inter", INTER_KEY, ca=False, sans=("b.example.com",), days=200)
    old = signed("leaf", LEAF_KEY, "Inter", INTER_KEY, ca=False, sans=(HOST,), start=-50, days=20)
    for order in ((other, old, LEAF, INTER), (INTER, LEAF, old, other)):
        found = read(pem(*order))
        assert found.chain == pem(LEAF, INTER)
        check_with_openssl(found, tmp_path)
    assert read(pem(other, LEAF, INTER), host="b.example.com").chain == pem(other, INTER)


RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()
RSA_LEAF = signed("leaf", RSA_KEY, "Inter", INTER_KEY, ca=False, sans=(HOST,))
ED_LEAF = signed("leaf", ED_KEY, "Inter", INTER_KEY, ca=False, sans=(HOST,))
PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


@pytest.mark.parametrize(
    ("leaf", "private", "sent"),
    [
        (LEAF, key_pem(form=s.PrivateFormat.TraditionalOpenSSL), None),
        (LEAF, PARAMETERS + key_pem(form=s.PrivateFormat.TraditionalOpenSSL), key_pem(form=s.PrivateFormat.TraditionalOpenSSL)),
        (RSA_LEAF, key_pem(RSA_KEY, s.PrivateFormat.TraditionalOpenSSL), None),
        (RSA_LEAF, key_pem(RSA_KEY), None),
        (ED_LEAF, key_pem(ED_KEY), None),
        (LEAF, pem(INTER) + key_pem() + pem(LEAF), key_pem()),
        (LEAF, key_pem(RSA_KEY) + key_pem(), key_pem()),
    ],
    ids=["SEC1", "EC parameters", "PKCS1", "RSA", "Ed25519", "with certificates", "two keys"],
)  # fmt: skip
def test_keys_of_every_usual_kind(
    leaf: x509.Certificate, private: str, sent: str | None, tmp_path: Path
) -> None:
    """The block of the key that belongs to the certificate is sent, and nothing else of that text."""
    found = read(pem(leaf, INTER), private)
    assert found.key == (sent or private)
    check_with_openssl(found, tmp_path)


def test_a_key_among_the_certificates_is_not_sent_with_them() -> None:
    """What is public holds certificates only, whatever was in the text."""
    found = read(key_pem() + pem(LEAF) + key_pem(RSA_KEY) + pem(INTER))
    assert found.chain == pem(LEAF, INTER)
    assert "KEY" not in found.chain


NOT_FOR_SERVERS = "{} is not for servers: serverAuth is not in its extended key usage"
WEAK_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - as bad as can be
ENCRYPTED = s.BestAvailableEncryption(b"canary")


@pytest.mark.parametrize(
    ("public", "private", "expected"),
    [
        (pem(LEAF, INTER), key_pem(encryption=ENCRYPTED), ["privateKey is encrypted, and there is nobody to type its password"]),
        (pem(LEAF), key_pem(RSA_KEY, s.PrivateFormat.TraditionalOpenSSL, ENCRYPTED), ["privateKey is encrypted, and there is nobody to type its password"]),
        (pem(LEAF), pem(LEAF), ["privateKey holds no usable PEM key"]),
        (pem(LEAF), PARAMETERS, ["privateKey holds no usable PEM key"]),
        (pem(LEAF), key_pem().replace("M", "-"), ["privateKey holds no usable PEM key"]),
        (pem(LEAF), x25519.X25519PrivateKey.generate().private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode(), ["privateKey holds no usable PEM key"]),
        (key_pem(), key_pem(), ["publicKey holds no PEM certificate"]),
        (pem(LEAF)[:-30], key_pem(), ["publicKey holds no PEM certificate"]),
        (pem(INTER, UPPER), key_pem(), ["privateKey and publicKey do not belong together", "it does not cover this host name"]),
        (pem(LEAF, OLD_INTER), key_pem(), ["the certificate of its issuer, in publicKey, ends on 2025-12-02"]),
        (pem(LEAF, LATE_INTER), key_pem(), ["the certificate of its issuer, in publicKey, is not valid yet (not valid before 2026-02-20 00:00 UTC)"]),
        (pem(leaf_for(CLIENTS), INTER), key_pem(), [NOT_FOR_SERVERS.format("it")]),
        (pem(leaf_for(ANYBODY), INTER), key_pem(), [NOT_FOR_SERVERS.format("it")]),
        (pem(leaf_for(usage("key_cert_sign")), INTER), key_pem(), ["it is not for TLS: its key usage has neither digitalSignature nor keyEncipherment"]),
        (pem(LEAF, CLIENT_INTER), key_pem(), [NOT_FOR_SERVERS.format("the certificate of its issuer, in publicKey,")]),
        (pem(signed("leaf", LEAF_KEY, "Inter", INTER_KEY, ca=False), INTER), key_pem(), ["it does not cover this host name"]),
        (pem(signed("leaf", WEAK_RSA, "Inter", INTER_KEY, ca=False, sans=(HOST,))), key_pem(WEAK_RSA), ["a key of 1024 bits is too short: RSA takes 2048 or more"]),
    ],
)  # fmt: skip
def test_what_openssl_or_a_client_refuses_is_said(public: str, private: str, expected: list[str]) -> None:
    """Every reason is there, and nothing of the key or its password."""
    assert problems(public, private) == expected


def verifies(folder: Path, *certificates: x509.Certificate) -> bool:
    """Whether OpenSSL would trust the first one as a server's, by the last one, with those in between at hand."""
    leaf, *middle, root = (folder / f"{number}.pem" for number in range(len(certificates)))
    for path, one in zip((leaf, *middle, root), certificates, strict=True):
        path.write_text(pem(one))
    at_hand = [part for path in middle for part in ("-untrusted", str(path))]
    command = ["openssl", "verify", "-attime", str(int(NOW)), "-purpose", "sslserver", "-CAfile", str(root)]
    return subprocess.run([*command, *at_hand, str(leaf)], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    "leaf", [LEAF, leaf_for(SERVERS), leaf_for(CLIENTS), leaf_for(ANYBODY), leaf_for(usage("key_cert_sign"))]
)
@pytest.mark.parametrize("inter", [INTER, CLIENT_INTER, NO_SIGNER, NO_CA, OLD_INTER])
@pytest.mark.parametrize("upper", [UPPER, CLIENT_UPPER, SHORT_UPPER, OLD_UPPER])
def test_the_same_verdict_as_openssl(
    leaf: x509.Certificate, inter: x509.Certificate, upper: x509.Certificate, tmp_path: Path
) -> None:
    """A chain that is sent as a whole, without a remark, is one that OpenSSL trusts, and no other is."""
    try:
        found = read(pem(leaf, inter, upper, ROOT))
    except InvalidRecord:
        is_whole = False
    else:
        is_whole = found.chain == pem(leaf, inter, upper, ROOT)
    assert is_whole == verifies(tmp_path, leaf, inter, upper, ROOT)


def test_a_damaged_rsa_key_is_no_key() -> None:
    """Whatever part of the numbers is another one, the key is refused, without looking for prime factors."""
    clear = RSA_KEY.private_bytes(s.Encoding.DER, s.PrivateFormat.TraditionalOpenSSL, CLEAR)
    for position in range(300, len(clear), 97):  # behind the modulus, which decides whose key it is
        broken = bytearray(clear)
        broken[position] ^= 1
        text = Block("RSA PRIVATE KEY", bytes(broken)).text()
        assert problems(pem(RSA_LEAF, INTER), text) == ["privateKey holds no usable PEM key"]


def test_one_that_has_not_begun_says_when_it_does() -> None:
    """Whoever waits for it knows until when."""
    late = signed("leaf", LEAF_KEY, "Inter", INTER_KEY, ca=False, sans=(HOST,), start=20)
    with pytest.raises(
        NotYetValid, match=r"it is not valid yet \(not valid before 2026-01-21 00:00 UTC\)"
    ) as caught:
        read(pem(late, INTER))
    assert caught.value.begins == START + 20 * DAY
    with pytest.raises(InvalidRecord) as other:
        read(pem(late, INTER), host="b.example.com")
    assert not isinstance(other.value, NotYetValid)


def test_it_ends_with_the_certificate_of_its_issuer() -> None:
    """A chain is as good as its first two certificates; an authority's own that is no longer valid does no harm."""
    short = signed("Inter", INTER_KEY, "Upper", UPPER_KEY, days=20)
    assert read(pem(LEAF, short)).not_after == START + 20 * DAY
    assert not read(pem(LEAF, short)).is_valid(START + 20 * DAY)
    assert read(pem(LEAF, INTER)).not_after == START + 100 * DAY
    root = signed("Inter", INTER_KEY, "Inter", INTER_KEY, start=-50, days=20)
    assert read(pem(LEAF, root)).not_after == START + 100 * DAY


def test_damaged_blocks_are_not_blocks() -> None:
    """A block has both ends, and what is between is base64."""
    text = "-----BEGIN A-----\nAAAA\n-----END B-----\n-----BEGIN C-----\nA?\n-----END C-----\n-----BEGIN D-----\nAAAA\n-----END D-----"
    assert [(block.label, block.body) for block in blocks(text)] == [("C", None), ("D", b"\0\0\0")]
    assert "AAAA" not in repr(list(blocks(text)))
