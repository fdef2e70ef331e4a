"""The lease of a restore: a label of the stopped service with the owner, and with what another process needs to go on.

There is one for each restore. The process that writes it owns it, and renews it with a heartbeat until the restore ends.
`claim` decides who may have it; `LEASE_SECONDS` is how long it lasts without a heartbeat.
"""

from collections.abc import Collection
from enum import Enum

import orjson
from attrs import evolve, frozen

from coreflow.domain.swarm.stopped import NOBODY, undo_id, way_out

from .parts import Part, part_document, parts_of

DAEMON = "daemon"
"""What the owners of leases begin with that are daemons."""
LEASE_SECONDS = 60.0
"""How long a lease lasts without a heartbeat: then others may finish the restore."""
_LAST_HEARTBEAT = 2**53


@frozen(kw_only=True)
class Lease:
    """A text on a service that is stopped for a restore, so that anybody can finish that."""

    id: str
    """Of this restore: two restores of one backup are two."""
    backup_id: str
    owner: str
    """Who is at it."""
    heartbeat: int = 0
    """Grows as long as somebody is."""
    has_begun: bool = False
    """Whether something may have been overwritten."""
    is_whole: bool = False
    """Whether everything was wanted that the backup holds."""
    parts: tuple[Part, ...] = ()

    def label(self) -> str:
        """As the text of a label."""
        document = {
            "id": self.id,
            "backupId": self.backup_id,
            "holder": self.owner,
            "beat": self.heartbeat,
            "hasBegun": self.has_begun,
            **({"isWhole": True} if self.is_whole else {}),
            "parts": [part_document(evolve(p, mount_path="", size_bytes=None)) for p in self.parts],
        }
        return orjson.dumps(document).decode()


def read_lease(label: str) -> Lease | None:
    """Return what such a label says; None when it cannot be read."""
    try:
        raw = orjson.loads(label)
        parts = parts_of(raw["parts"])
        heartbeat = int(raw["beat"])
        if not 0 <= heartbeat <= _LAST_HEARTBEAT:
            return None
        return Lease(
            id=str(raw["id"]),
            backup_id=str(raw["backupId"]),
            owner=str(raw["holder"]),
            heartbeat=heartbeat,
            has_begun=bool(raw.get("hasBegun")),
            is_whole=bool(raw.get("isWhole")),
            parts=parts,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


# --- who may have it


class Claim(Enum):
    """The state of a lease, as somebody sees it who wants it."""

    MINE = "mine"
    FREE = "free"
    """Nobody is at it any more."""
    OUTRANKED = "outranked"
    """Somebody may be at it, and has to yield."""
    TAKEN = "taken"
    """Somebody is at it, and has to be waited for."""

    @property
    def is_granted(self) -> bool:
        """Return whether the lease may be written anew."""
        return self is not Claim.TAKEN


def claim(
    lease: Lease | None,
    owner: str,
    unchanged_for: float,
    *,
    seconds: float,
    competing: Collection[str] = (),
    wants: str | None = None,
) -> Claim:
    """Decide whether `owner` may have the lease of a stopped service.

    `unchanged_for` is how long its lease (None: one that cannot be read) has been as it is, `seconds` how long one lasts
    without being renewed. There is one daemon for a cluster: the lease of another one was left by its predecessor, unless it
    is one of the `competing` owners. `wants` is the backup that is to be restored, None where what was begun is to be finished: an operator's
    restore outranks a daemon's, and taking back what a restore does outranks that restore.
    """
    is_old = unchanged_for >= seconds
    if lease is None:
        return Claim.FREE if is_old else Claim.TAKEN
    if lease.owner == owner:
        return Claim.MINE
    is_daemon, asked_by_daemon = lease.owner.startswith(DAEMON), owner.startswith(DAEMON)
    is_predecessor = is_daemon and asked_by_daemon and lease.owner not in competing
    if is_old or lease.owner == NOBODY or is_predecessor:
        return Claim.FREE
    by_operator = is_daemon and not asked_by_daemon and wants is not None
    if by_operator or wants == undo_id(lease.id):
        return Claim.OUTRANKED
    return Claim.TAKEN


# --- the way out


def help_for(service: str, lease: Lease, replicas: int) -> str:
    """The commands that help where a restore has left a service stopped."""
    return way_out(service, lease.backup_id, undo_id(lease.id) if lease.has_begun else "", replicas)
