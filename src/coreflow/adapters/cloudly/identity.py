"""The identity that a login brings, and when to renew it."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from coreflow.domain.errors import InvalidRecord, Problem

UNKNOWN_LIFETIME = 3600.0
"""Seconds to the next renewal when the identity does not say, or says nonsense (a clock that is wrong, here or there)."""
SHORTEST_WAIT = 1.0
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

    @classmethod
    def parse(cls, raw: object) -> "Identity":
        """Read an identity. Raises InvalidRecord when it has no token."""
        if not isinstance(raw, Mapping):
            raise InvalidRecord(Problem("$.identity", "is missing or not an object"))
        jwt = raw.get("jwt")
        if not isinstance(jwt, str) or not jwt:
            raise InvalidRecord(Problem("$.identity.jwt", "is missing or not a text"))
        expires = raw.get("expiresAt")
        if isinstance(expires, bool) or not isinstance(expires, int | float) or expires <= 0:
            return cls(raw, jwt, None)
        return cls(raw, jwt, expires if expires < _SECONDS_BELOW else expires / 1000)

    def seconds_to_renewal(self, now: float) -> float:
        """How long after `now` (seconds since 1970) a new one should be asked for.

        When a fifth of its life or five minutes are left, whichever comes first; of a short life the half.
        """
        lifetime = -1.0 if self.expires_at is None else self.expires_at - now
        if lifetime <= 0:
            return UNKNOWN_LIFETIME
        margin = max(0.2 * lifetime, min(_LATEST_MARGIN, lifetime / 2))
        return max(lifetime - margin, SHORTEST_WAIT)
