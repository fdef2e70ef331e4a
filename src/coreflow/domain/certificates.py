"""Certificates: PEM texts in, what they are good for out. Parsed and checked before anybody relies on them."""

import ipaddress
from datetime import UTC, datetime

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from .errors import InvalidRecord, Problem
from .records import CertificateRecord

KEPT_SHARE = 0.8
"""Of its whole life, the part after which a certificate is asked for anew."""


@frozen(kw_only=True)
class Certificate:
    """A certificate chain with the key that belongs to it. Times are seconds since 1970."""

    chain: str = field(repr=False)
    key: str = field(repr=False)
    names: tuple[str, ...]
    """Host names that it covers, `*.` for one label."""
    issuer: str
    not_before: float
    not_after: float

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
        chain = x509.load_pem_x509_certificates(record.public_key.encode())
    except ValueError:
        raise InvalidRecord(Problem(where, "publicKey holds no PEM certificate")) from None
    try:
        key = serialization.load_pem_private_key(record.private_key.encode(), password=None)
    except (ValueError, TypeError):
        raise InvalidRecord(Problem(where, "privateKey holds no usable PEM key")) from None
    except Exception as exc:  # noqa: BLE001 - unsupported algorithms have errors of their own
        raise InvalidRecord(Problem(where, f"privateKey cannot be used ({type(exc).__name__})")) from None
    try:
        return _checked(chain[0], key, record, host, now, margin)
    except InvalidRecord:
        raise
    except Exception as exc:  # noqa: BLE001 - parts are parsed when they are looked at, and every kind of nonsense has its error
        raise InvalidRecord(Problem(where, f"publicKey cannot be used ({type(exc).__name__})")) from None


def _checked(
    leaf: x509.Certificate,
    key: PrivateKeyTypes,
    record: CertificateRecord,
    host: str,
    now: float,
    margin: float,
) -> Certificate:
    where = f"certificate of {host}"
    certificate = Certificate(
        chain=record.public_key,
        key=record.private_key,
        names=_names(leaf),
        issuer=_issuer(leaf),
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
    )
    problems: list[Problem] = []
    if _public(leaf.public_key()) != _public(key.public_key()):
        problems.append(Problem(where, "privateKey and publicKey do not belong together"))
    if not certificate.covers(host):
        problems.append(Problem(where, "it does not cover this host name"))
    if now < certificate.not_before:
        problems.append(Problem(where, f"it is not valid before {_day(certificate.not_before)}"))
    elif not certificate.is_valid(now, margin=margin):
        problems.append(Problem(where, f"it ends on {_day(certificate.not_after)}"))
    if problems:
        raise InvalidRecord(*problems)
    return certificate


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    hosts = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
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
