"""The identity that a login brings, and when to renew it.

How long it is good for follows from its token, which names its beginning and its end on one and the same clock, and only
without that from our own clock, which may be wrong.
"""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

import orjson
from attrs import field, frozen

from coreflow.domain.errors import InvalidRecord, Problem

UNKNOWN_LIFETIME = 3600.0
"""Seconds to the next renewal when the identity does not say, or says nonsense (a clock that is wrong, here or there)."""
SHORTEST_WAIT = 1.0
SHORTEST_UNSURE_WAIT = 15.0
"""Where only our own clock tells a life, a shorter one is more likely a clock that is wrong; a refused call logs in again."""
_LATEST_MARGIN = 300.0
_SECONDS_BELOW = 1e11
"""`expiresAt` is in milliseconds by convention; a smaller number can only be seconds."""


@frozen
class Identity:
    """Proof of a login. It travels as it came; nothing of it is shown anywhere."""

    raw: Mapping[str, Any] = field(repr=False)
    jwt: str = field(repr=False)
    expires_at: float | None
    """Seconds since 1970 on Cloudly's clock, if known."""
    issued_at: float | None = None
    """The same for its beginning."""

    @classmethod
    def parse(cls, raw: object) -> "Identity":
        """Read an identity. Raises InvalidRecord when it has no token."""
        if not isinstance(raw, Mapping):
            raise InvalidRecord(Problem("$.identity", "is missing or not an object"))
        jwt = raw.get("jwt")
        if not isinstance(jwt, str) or not jwt:
            raise InvalidRecord(Problem("$.identity.jwt", "is missing or not a string"))
        expires = raw.get("expiresAt")
        if isinstance(expires, bool) or not isinstance(expires, int | float) or expires <= 0:
            return cls(raw, jwt, None)
        return cls(raw, jwt, expires if expires < _SECONDS_BELOW else expires / 1000, _issued_at(jwt))

    def lifetime(self, now: float) -> float | None:
        """Seconds that it is good for if it was issued just now, at `now` by our clock. None where that is not known."""
        if self.expires_at is None:
            return None
        begin = now if self.issued_at is None or self.issued_at >= self.expires_at else self.issued_at
        return self.expires_at - begin if self.expires_at > begin else None

    def seconds_to_renewal(self, now: float) -> float:
        """Return how long after `now` (seconds since 1970), when it was issued, a new one should be asked for.

        When a fifth of its life or five minutes are left, whichever comes first; of a short life the half.
        """
        lifetime = self.lifetime(now)
        if lifetime is None:
            return UNKNOWN_LIFETIME
        margin = max(0.2 * lifetime, min(_LATEST_MARGIN, lifetime / 2))
        is_sure = self.issued_at is not None
        return max(lifetime - margin, SHORTEST_WAIT if is_sure else SHORTEST_UNSURE_WAIT)


def _issued_at(jwt: str) -> float | None:
    """The claim `iat` of a JSON web token, if this is one that has it."""
    payload = jwt.split(".")[1] if jwt.count(".") == 2 else ""
    try:
        claims = orjson.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError):
        return None
    issued = claims.get("iat") if isinstance(claims, dict) else None
    return issued if isinstance(issued, int | float) and not isinstance(issued, bool) and issued > 0 else None
