"""Certificates: PEM texts in, what they are good for out. Parsed and checked before anybody relies on them.

What a record holds is not passed on as it is: the leaf is the certificate that belongs to the key, its chain is built by
who signed what, and both are written again in the order in which a server sends them. A proxy gets one list for all hosts,
so that a certificate that its TLS library refuses would cost everybody else theirs, too.
"""

import hashlib
from collections.abc import Iterable, Iterator

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from coreflow.domain.errors import InvalidRecord, Problem
from coreflow.domain.records.models import CertificateRecord

from .certificate import Certificate
from .chains import Parsed, encoded, good_issuers, issuers, parsed
from .pem import CERTIFICATES, Block, blocks

_KEYS = "PRIVATE KEY"
_TLS_KEYS = rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey


def read_certificate(
    record: CertificateRecord,
    host: str,
    now: float,
    *,
    margin: float = 0.0,
    known: Certificate | None = None,
) -> Certificate:
    """Check the certificate for a host: both parts are there, belong together, cover the host and are valid.

    The `known` one is given out again where it was read from the same record, for this host, and is valid. Raises InvalidRecord with every reason; no text quotes a part of either.
    """
    where = f"certificate of {host}"
    digest = hashlib.sha256(
        f"{record.public_key}\0{record.private_key}".encode(errors="surrogatepass")
    ).digest()
    if (
        known is not None
        and known.digest == digest
        and known.covers(host)
        and known.is_valid(now, margin=margin)
    ):
        return known
    try:
        return _read(record, host, now, margin, digest)
    except InvalidRecord:
        raise
    except _Unusable as exc:
        raise InvalidRecord(Problem(where, str(exc))) from None
    except Exception as exc:  # noqa: BLE001 - parts are parsed when they are looked at, and every kind of nonsense has its error
        raise InvalidRecord(Problem(where, f"publicKey cannot be used ({type(exc).__name__})")) from None


class NotYetValid(InvalidRecord):
    """Nothing is wrong with the certificate but that it has not begun. `begins` is in seconds since 1970."""

    begins: float = 0.0


class _Unusable(Exception):
    """A part that nothing can be made of."""


def _read(record: CertificateRecord, host: str, now: float, margin: float, digest: bytes) -> Certificate:
    certificates = _certificates(record.public_key)
    if not certificates:
        raise _Unusable("publicKey holds no PEM certificate")
    block, public = _key(record.private_key, certificates)
    own = [one for one in certificates if one.public == public]
    leaf = max(own, key=lambda one: (one.is_for(host), one.is_valid(now), one.end), default=certificates[0])
    found = list(issuers(leaf, certificates, now))
    chain = [leaf, *good_issuers(found, now)]
    needed = [leaf, *(one for one in found[:1] if not one.is_self_signed)]
    certificate = Certificate(
        chain="".join(one.pem for one in chain),
        key=block.text(),
        names=leaf.names,
        issuer=leaf.issuer,
        not_before=max(one.begin for one in needed),
        not_after=min(one.end for one in needed),
        remarks=tuple(_remarks(certificates, own, chain, found)),
        digest=digest,
    )
    problems = [] if own else ["privateKey and publicKey do not belong together"]
    problems += [] if certificate.covers(host) else ["it does not cover this host name"]
    problems += _problems(needed, now, margin)
    _refuse(problems, host, certificate.not_before, now)
    return certificate


def _problems(needed: list[Parsed], now: float, margin: float) -> Iterator[str]:
    """Yield what is wrong with the leaf, and with the certificate of its issuer."""
    for one, what in zip(needed, ("it", "the certificate of its issuer, in publicKey,"), strict=False):
        if (problem := one.time_problem(now, margin)) is not None:
            yield f"{what} {problem}"
        yield from (f"{what} is {text}" for text in one.purpose_problems)
    for one in needed:
        yield from one.weaknesses()


def _refuse(problems: list[str], host: str, begins: float, now: float) -> None:
    """Raise what is wrong, if anything."""
    found = [Problem(f"certificate of {host}", text) for text in dict.fromkeys(problems)]
    if found and now < begins and all("is not valid yet" in text for text in problems):
        error = NotYetValid(*found)
        error.begins = begins
        raise error
    if found:
        raise InvalidRecord(*found)


# the parts


def _certificates(text: str) -> list[Parsed]:
    """Every certificate that can be read, each once."""
    bodies = (block.body for block in blocks(text) if block.label in CERTIFICATES)
    found = (parsed(body) for body in dict.fromkeys(bodies) if body is not None)
    return [one for one in found if one is not None]


def _key(text: str, certificates: Iterable[Parsed]) -> tuple[Block, bytes]:
    """The key, and its public part: of several, one that belongs to a certificate. Raises _Unusable."""
    found = [block for block in blocks(text) if block.label.endswith(_KEYS)]
    usable = [(block, encoded(key.public_key())) for block in found if (key := _loaded(block)) is not None]
    if not usable and any(block.is_encrypted for block in found):
        raise _Unusable("privateKey is encrypted, and there is nobody to type its password")
    if not usable:
        raise _Unusable("privateKey holds no usable PEM key")
    fitting = {one.public for one in certificates}
    return next((pair for pair in usable if pair[1] in fitting), usable[0])


def _loaded(block: Block) -> PrivateKeyTypes | None:
    if block.body is None or block.is_encrypted:
        return None
    try:
        # the library would look for factors of a prime, for 0.1 to 0.5 s
        key = serialization.load_pem_private_key(
            block.text().encode(), password=None, unsafe_skip_rsa_key_validation=True
        )
        if isinstance(key, rsa.RSAPrivateKey) and not _belongs_together(key.private_numbers()):
            return None
    except Exception:  # noqa: BLE001 - unsupported algorithms have errors of their own
        return None
    return key if isinstance(key, _TLS_KEYS) else None


def _belongs_together(key: rsa.RSAPrivateNumbers) -> bool:
    """Return whether the parts of an RSA key fit each other: everything that damage to the text can break."""
    p, q, public = key.p, key.q, key.public_numbers
    return (
        p * q == public.n
        and key.d * public.e % (p - 1) == 1
        and key.d * public.e % (q - 1) == 1
        and (key.dmp1, key.dmq1) == (key.d % (p - 1), key.d % (q - 1))
        and key.iqmp * q % p == 1
    )


def _remarks(
    certificates: list[Parsed], own: list[Parsed], chain: list[Parsed], found: list[Parsed]
) -> Iterator[str]:
    if len(found) >= len(chain):
        yield "a certificate of its chain is not valid and is left out"
    unrelated = len(certificates) - len({*chain, *own, *found})
    if unrelated > 0:
        yield f"publicKey holds {unrelated} unrelated certificate{'s' if unrelated > 1 else ''}: left out"
    if len(chain) == 1 and unrelated > 0 and not chain[0].is_self_signed:
        yield "the certificate of its issuer is not there: some clients will not trust it"
