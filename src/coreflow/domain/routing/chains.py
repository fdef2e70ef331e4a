"""X.509 certificates, and the chain from one to its issuers: who signed what, and who may.

Parts of a certificate are parsed when they are looked at, and every kind of nonsense has its own error there.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeVar

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from coreflow.domain.records.hosts import canonical_host

E = TypeVar("E", bound=x509.ExtensionType)

CHAIN_LIMIT = 10
"""Certificates in a chain; more are not sent."""
LEAST_RSA_BITS, LEAST_EC_BITS = 2048, 224
"""What OpenSSL takes at its usual security level (source: OpenSSL's `SSL_CTX_set_security_level`, level 2)."""
_WEAK_HASHES = frozenset({"md5", "sha1"})
_SERVER = ExtendedKeyUsageOID.SERVER_AUTH


@define(eq=False, slots=False)
class Parsed:
    """A certificate of which at least the key can be read. Times are seconds since 1970."""

    x509: x509.Certificate
    key: CertificatePublicKeyTypes
    public: bytes
    """The key, encoded."""

    @cached_property
    def begin(self) -> float:
        """From when on it is valid."""
        return self.x509.not_valid_before_utc.timestamp()

    @cached_property
    def end(self) -> float:
        """From when on it is not valid any more."""
        return self.x509.not_valid_after_utc.timestamp()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Host names and addresses that it covers, `*.` for one label."""
        names = self._extension(x509.SubjectAlternativeName)
        if names is None:
            return ()
        hosts = [canonical_host(name) for name in names.get_values_for_type(x509.DNSName)]
        return tuple(sorted({*hosts, *map(str, names.get_values_for_type(x509.IPAddress))}))

    @cached_property
    def is_self_signed(self) -> bool:
        """Return whether it is its own issuer: the end of every chain."""
        return self._is_signed_by(self)

    def is_valid(self, now: float) -> bool:
        """Return whether it has begun and has not ended."""
        return self.begin <= now < self.end

    def is_for(self, host: str) -> bool:
        """Return whether a client that wants this host accepts it."""
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names

    @cached_property
    def purpose_problems(self) -> tuple[str, ...]:
        """Return why clients refuse it as what a server shows, or as what signed that (source: OpenSSL's purpose `sslserver`)."""
        found = []
        extended = self._extension(x509.ExtendedKeyUsage)
        if extended is not None and _SERVER not in extended:
            found.append("not for servers: serverAuth is not in its extended key usage")
        usage = self._extension(x509.KeyUsage)
        for_tls = usage is None or usage.digital_signature or usage.key_encipherment or usage.key_agreement
        if not for_tls and not self.is_authority:
            found.append("not for TLS: its key usage has neither digitalSignature nor keyEncipherment")
        return tuple(found)

    @cached_property
    def is_authority(self) -> bool:
        """Return whether it may sign others (source: OpenSSL's `X509_check_ca`)."""
        constraints, usage = self._extension(x509.BasicConstraints), self._extension(x509.KeyUsage)
        if usage is not None and not usage.key_cert_sign:
            return False
        if constraints is not None:
            return constraints.ca
        return usage is not None or (self.x509.version is x509.Version.v1 and self.is_self_signed)

    def may_follow(self, authorities: int) -> bool:
        """Return whether as many authorities may be below it in a chain."""
        constraints = self._extension(x509.BasicConstraints)
        limit = constraints.path_length if constraints is not None else None
        return limit is None or authorities <= limit

    def has_signed(self, other: "Parsed") -> bool:
        """Return whether it is the issuer of the other one, and may be."""
        return other._is_signed_by(self) and self.is_authority  # noqa: SLF001 - of its own kind

    def _is_signed_by(self, issuer: "Parsed") -> bool:
        try:
            self.x509.verify_directly_issued_by(issuer.x509)
        except Exception:  # noqa: BLE001 - unsupported algorithms have errors of their own
            return False
        return True

    def weaknesses(self) -> Iterator[str]:
        """Yield why a TLS library refuses the certificate, whoever signed it."""
        key = self.key
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
            yield f"a key of {key.key_size} bits is too short: RSA takes {LEAST_RSA_BITS} or more"
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < LEAST_EC_BITS:
            yield f"a key of {key.curve.key_size} bits is too short: elliptic curves take {LEAST_EC_BITS} or more"
        hash_ = self.x509.signature_hash_algorithm
        if hash_ is not None and hash_.name in _WEAK_HASHES and not self.is_self_signed:
            yield f"it is signed with {hash_.name}, which is no longer trusted"

    def time_problem(self, now: float, margin: float = 0.0) -> str | None:
        """Return why it is of no use now, if so."""
        if now < self.begin:
            return f"is not valid yet (not valid before {_minute(self.begin)})"
        return f"ends on {_minute(self.end)[:10]}" if now + margin >= self.end else None

    @property
    def issuer(self) -> str:
        """Return who made it, for people."""
        for oid in (x509.NameOID.ORGANIZATION_NAME, x509.NameOID.COMMON_NAME):
            for attribute in self.x509.issuer.get_attributes_for_oid(oid):
                return "".join(filter(str.isprintable, str(attribute.value)))[:100]
        return "unknown"

    @property
    def pem(self) -> str:
        """It, as everybody reads it."""
        return self.x509.public_bytes(serialization.Encoding.PEM).decode()

    def _extension(self, kind: type[E]) -> E | None:
        try:
            return self.x509.extensions.get_extension_for_class(kind).value
        except (x509.ExtensionNotFound, ValueError):
            return None


def parsed(body: bytes) -> Parsed | None:
    """A certificate in DER; None for what is none, or has no readable key."""
    try:
        certificate = x509.load_der_x509_certificate(body)
        key = certificate.public_key()
        return Parsed(certificate, key, encoded(key))
    except Exception:  # noqa: BLE001 - unsupported algorithms have errors of their own
        return None


def encoded(key: object) -> bytes:
    """A public key in DER."""
    text: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every kind of public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text


def issuers(leaf: Parsed, certificates: Iterable[Parsed], now: float) -> Iterator[Parsed]:
    """Yield who signed the leaf, who signed that, and so on, as far as they are there; of several one that is good now."""
    last, rest, below = leaf, [one for one in certificates if one is not leaf], 0
    while rest and not last.is_self_signed:
        signers = [one for one in rest if one.has_signed(last)]
        if not signers:
            return
        last = max(signers, key=lambda one: (_is_good(one, below, now), one.end))
        rest.remove(last)
        yield last
        below += 1


def good_issuers(found: list[Parsed], now: float) -> list[Parsed]:
    """The chain up to the first certificate, after the leaf's own issuer, that is no good now.

    Clients that trust what is below, or know another way up, do without it (an authority that is signed crosswise).
    """
    kept = found[:1]
    for below, one in enumerate(found[1 : CHAIN_LIMIT - 1], 1):
        if not _is_good(one, below, now):
            break
        kept.append(one)
    return kept


def _is_good(authority: Parsed, below: int, now: float) -> bool:
    return authority.is_valid(now) and not authority.purpose_problems and authority.may_follow(below)


def _minute(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"
