"""Certificates: PEM texts in, what they are good for out. Parsed and checked before anybody relies on them.

What a record holds is not passed on as it is: the leaf is the certificate that belongs to the key, its chain is built by
who signed what, and both are written again in the order in which a server sends them. A proxy gets one list for all hosts,
so that a certificate that its TLS library refuses would cost everybody else theirs, too.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from coreflow.domain.errors import InvalidRecord, Problem
from coreflow.domain.records.hosts import canonical_host
from coreflow.domain.records.models import CertificateRecord

from .pem import Block, blocks

KEPT_SHARE = 0.8
"""Of its whole life, the part after which a certificate is asked for anew."""
CHAIN_LIMIT = 10
"""Certificates in a chain; more are not sent."""
LEAST_RSA_BITS, LEAST_EC_BITS = 2048, 224
"""What OpenSSL takes at its usual security level (source: OpenSSL's `SSL_CTX_set_security_level`, level 2)."""
_WEAK_HASHES = frozenset({"md5", "sha1"})
_CERTIFICATES = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
_KEYS = "PRIVATE KEY"
_TLS_KEYS = rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey


@frozen(kw_only=True)
class Certificate:
    """A certificate chain with the key that belongs to it. Times are seconds since 1970."""

    chain: str = field(repr=False)
    """PEM: the leaf, and after each certificate the one of its issuer, as far as they are known."""
    key: str = field(repr=False)
    names: tuple[str, ...]
    """Host names that it covers, `*.` for one label."""
    issuer: str
    not_before: float
    not_after: float
    """The end of the leaf or of its issuer's certificate, whichever comes first."""
    remarks: tuple[str, ...] = ()
    """What a person should know about the chain."""

    def covers(self, host: str) -> bool:
        """Whether a client that wants this host accepts it."""
        parent = host.partition(".")[2]
        return host in self.names or (bool(parent) and f"*.{parent}" in self.names)

    def is_valid(self, now: float, *, margin: float = 0.0) -> bool:
        """Whether it is valid now, and still will be in `margin` seconds."""
        return self.not_before <= now and now + margin < self.not_after

    @property
    def renew_at(self) -> float:
        """When to ask for the next one."""
        return self.not_before + KEPT_SHARE * (self.not_after - self.not_before)


def read_certificate(record: CertificateRecord, host: str, now: float, *, margin: float = 0.0) -> Certificate:
    """Check the certificate for a host: both parts are there, belong together, cover the host and are valid.

    Raises InvalidRecord with every reason; no text quotes a part of either.
    """
    where = f"certificate of {host}"
    try:
        return _read(record, host, now, margin)
    except InvalidRecord:
        raise
    except _Unusable as exc:
        raise InvalidRecord(Problem(where, str(exc))) from None
    except Exception as exc:  # noqa: BLE001 - parts are parsed when they are looked at, and every kind of nonsense has its error
        raise InvalidRecord(Problem(where, f"publicKey cannot be used ({type(exc).__name__})")) from None


class _Unusable(Exception):
    """A part that nothing can be made of."""


def _read(record: CertificateRecord, host: str, now: float, margin: float) -> Certificate:
    where = f"certificate of {host}"
    certificates = _certificates(record.public_key)
    if not certificates:
        raise _Unusable("publicKey holds no PEM certificate")
    block, key = _key(record.private_key, certificates)
    own = [one for one in certificates if _public(one.public_key()) == _public(key.public_key())]
    leaf = max(
        own, key=lambda one: (_is_for(one, host), _is_valid(one, now), _end(one)), default=certificates[0]
    )
    issuers = list(_issuers(leaf, certificates, now))
    chain = [leaf, *_valid_issuers(issuers, now)]
    needed = [one for one in (leaf, *issuers[:1]) if one is leaf or not _is_self_signed(one)]
    certificate = Certificate(
        chain="".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in chain),
        key=block.text(),
        names=_names(leaf),
        issuer=_issuer(leaf),
        not_before=max(map(_begin, needed)),
        not_after=min(map(_end, needed)),
        remarks=tuple(_remarks(certificates, own, chain, issuers)),
    )
    problems = [] if own else ["privateKey and publicKey do not belong together"]
    if not certificate.covers(host):
        problems.append("it does not cover this host name")
    problems += _time_problems("it", leaf, now, margin)
    for issuer in needed[1:]:
        problems += _time_problems("the certificate of its issuer, in publicKey,", issuer, now, margin)
    problems += [text for one in needed for text in _weaknesses(one)]
    if problems:
        raise InvalidRecord(*(Problem(where, text) for text in dict.fromkeys(problems)))
    return certificate


# the parts


def _certificates(text: str) -> list[x509.Certificate]:
    """Every certificate that can be read, each once."""
    found: dict[bytes, x509.Certificate] = {}
    for block in blocks(text):
        if block.label in _CERTIFICATES and block.body is not None and block.body not in found:
            certificate = _readable(block.body)
            if certificate is not None:
                found[block.body] = certificate
    return list(found.values())


def _readable(body: bytes) -> x509.Certificate | None:
    """A certificate of which at least the names and the key can be read; the rest is parsed when it is looked at."""
    try:
        certificate = x509.load_der_x509_certificate(body)
        _public(certificate.public_key())
        _ = certificate.subject, certificate.issuer
    except Exception:  # noqa: BLE001 - unsupported algorithms have errors of their own
        return None
    return certificate


def _key(text: str, certificates: Iterable[x509.Certificate]) -> tuple[Block, PrivateKeyTypes]:
    """The key: of several, one that belongs to a certificate. Raises _Unusable."""
    found = [block for block in blocks(text) if block.label.endswith(_KEYS)]
    usable = [(block, key) for block in found if (key := _loaded(block)) is not None]
    if not usable and any(block.is_encrypted for block in found):
        raise _Unusable("privateKey is encrypted, and there is nobody to type its password")
    if not usable:
        raise _Unusable("privateKey holds no usable PEM key")
    fitting = {_public(one.public_key()) for one in certificates}
    return next((pair for pair in usable if _public(pair[1].public_key()) in fitting), usable[0])


def _loaded(block: Block) -> PrivateKeyTypes | None:
    if block.body is None or block.is_encrypted:
        return None
    try:
        key = serialization.load_pem_private_key(block.text().encode(), password=None)
    except Exception:  # noqa: BLE001 - unsupported algorithms have errors of their own
        return None
    return key if isinstance(key, _TLS_KEYS) else None


# the chain


def _issuers(
    leaf: x509.Certificate, certificates: Iterable[x509.Certificate], now: float
) -> Iterator[x509.Certificate]:
    """Who signed the leaf, who signed that, and so on, as far as they are there; of several a valid one."""
    last, rest = leaf, [one for one in certificates if one is not leaf]
    while not _is_self_signed(last):
        signers = [one for one in rest if _has_signed(one, last)]
        if not signers:
            return
        last = max(signers, key=lambda one: (_is_valid(one, now), _end(one)))
        rest.remove(last)
        yield last


def _valid_issuers(issuers: list[x509.Certificate], now: float) -> list[x509.Certificate]:
    """The chain up to the first certificate, after the leaf's own issuer, that is not valid.

    Clients that trust what is below, or know another way up, do without it (an authority that is signed crosswise).
    """
    kept = issuers[:1]
    for one in issuers[1 : CHAIN_LIMIT - 1]:
        if not _is_valid(one, now):
            break
        kept.append(one)
    return kept


def _has_signed(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    try:
        subject.verify_directly_issued_by(issuer)
        return _may_sign(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    except Exception:  # noqa: BLE001 - unsupported algorithms have errors of their own
        return False


def _may_sign(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:  # the first version of certificates had none
        return True


def _is_self_signed(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and _has_signed_itself(certificate)


def _has_signed_itself(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _remarks(
    certificates: list[x509.Certificate],
    own: list[x509.Certificate],
    chain: list[x509.Certificate],
    issuers: list[x509.Certificate],
) -> Iterator[str]:
    if len(issuers) >= len(chain):
        yield "a certificate of its chain is not valid and is left out"
    unrelated = len(certificates) - len({*chain, *own, *issuers})
    if unrelated > 0:
        yield f"publicKey holds {unrelated} unrelated certificate{'s' if unrelated > 1 else ''}: left out"
    if len(chain) == 1 and unrelated > 0 and not _is_self_signed(chain[0]):
        yield "the certificate of its issuer is not there: some clients will not trust it"


# one certificate


def _begin(certificate: x509.Certificate) -> float:
    return certificate.not_valid_before_utc.timestamp()


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _is_valid(certificate: x509.Certificate, now: float) -> bool:
    return _begin(certificate) <= now < _end(certificate)


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    names = _names(certificate)
    return host in names or f"*.{host.partition('.')[2]}" in names


def _time_problems(what: str, certificate: x509.Certificate, now: float, margin: float) -> Iterator[str]:
    if now < _begin(certificate):
        yield f"{what} is not valid before {_day(_begin(certificate))}"
    elif now + margin >= _end(certificate):
        yield f"{what} ends on {_day(_end(certificate))}"


def _weaknesses(certificate: x509.Certificate) -> Iterator[str]:
    """Why a TLS library refuses the certificate, whoever signed it."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        yield f"a key of {key.key_size} bits is too short: RSA takes {LEAST_RSA_BITS} or more"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < LEAST_EC_BITS:
        yield f"a key of {key.curve.key_size} bits is too short: elliptic curves take {LEAST_EC_BITS} or more"
    hash_ = certificate.signature_hash_algorithm
    if hash_ is not None and hash_.name in _WEAK_HASHES and not _is_self_signed(certificate):
        yield f"it is signed with {hash_.name}, which is no longer trusted"


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    hosts = [canonical_host(name) for name in names.get_values_for_type(x509.DNSName)]
    addresses = names.get_values_for_type(x509.IPAddress)
    hosts += [str(a) for a in addresses if isinstance(a, ipaddress.IPv4Address | ipaddress.IPv6Address)]
    return tuple(sorted(set(hosts)))


def _issuer(leaf: x509.Certificate) -> str:
    for oid in (x509.NameOID.ORGANIZATION_NAME, x509.NameOID.COMMON_NAME):
        for attribute in leaf.issuer.get_attributes_for_oid(oid):
            return "".join(filter(str.isprintable, str(attribute.value)))[:100]
    return "unknown"


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every kind of public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _day(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).date().isoformat()
