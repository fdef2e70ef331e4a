"""Certificates for tests, made on the spot."""

import functools
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coreflow.domain.records.models import CertificateRecord

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
START = BEGIN.timestamp()
DAY = 86400.0


@functools.cache
def make(*names: str, days: float = 100, start: float = 0, issuer: str = "Test") -> CertificateRecord:
    """A certificate for these names, valid from `start` days after 2026 began, for `days` days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
    made_by = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, issuer)])
    begin = BEGIN + timedelta(days=start)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(made_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    )
    chain = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return CertificateRecord(domain_name=names[0], private_key=pem.decode(), public_key=chain.decode())


def raw(record: CertificateRecord) -> dict[str, object]:
    """As Cloudly writes it."""
    return {
        "id": record.domain_name,
        "domainName": record.domain_name,
        "created": 1,
        "validUntil": 2,
        "privateKey": record.private_key,
        "publicKey": record.public_key,
        "csr": "",
    }
