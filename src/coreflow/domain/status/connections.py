"""Peers, and how they were when somebody last asked something of them."""

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, evolve, frozen

from coreflow.domain.errors import InvalidRecord, Unavailable

Fault = Literal["", "away", "refused", "invalid"]
"""How a peer failed: it did not answer, it said no, or what it said cannot be used."""
CLOUDLY, CORESTORE, CORETRAFFIC, ENGINE, GATEWAY, RECORDS = (
    "cloudly",
    "corestore",
    "coretraffic",
    "engine",
    "gateway",
    "records",
)
"""Peers, by the names under which connections are kept."""


def fault_of(error: Exception | None) -> Fault:
    """Return how a call failed, if it did."""
    match error:
        case None:
            return ""
        case Unavailable():
            return "away"
        case InvalidRecord():
            return "invalid"
        case _:
            return "refused"


@frozen(kw_only=True)
class Connection:
    """A peer: up or down, since when, and the last thing that went wrong. Times are seconds since 1970."""

    peer: str
    where: str = ""
    """Its node or address, where there are several."""
    is_up: bool
    since: float
    """Since when it is up, or down."""
    checked: float
    """When that was last known."""
    fault: Fault = ""
    error: str = ""
    """What went wrong last, also while it is up again."""


@frozen(kw_only=True)
class Connections:
    """The peers as they were when somebody last asked something of them."""

    entries: Mapping[tuple[str, str], Connection] = Factory(dict)

    def after(self, peer: str, where: str, error: Exception | None, now: float) -> "Connections":
        """Return them after one more answer of a peer, or none."""
        known = self.entries.get((peer, where))
        fault = fault_of(error)
        since = known.since if known is not None and known.is_up == (not fault) else now
        text = str(error) if error is not None else known.error if known is not None else ""
        entry = Connection(
            peer=peer, where=where, is_up=not fault, since=since, checked=now, fault=fault, error=text
        )
        return evolve(self, entries={**self.entries, (peer, where): entry})

    def of(self, peer: str) -> tuple[Connection, ...]:
        """The connections to one kind of peer."""
        return tuple(entry for entry in self.entries.values() if entry.peer == peer)


NOBODY_HEARD = Connections()
