"""The parts that a status is made of, and since when what is wrong has been so."""

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import field, frozen

from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.routing.routes import RouteTable

from .connections import Connection

OperationState = Literal["under way", "completed", "partial", "failed"]


@frozen(kw_only=True)
class OperationStatus:
    """A backup or a restore: under way, or the last of its kind that has ended."""

    kind: Literal["backup", "restore"]
    service_id: str
    backup_id: str
    state: OperationState
    since: float
    """When it began, or ended."""
    error: str = ""


@frozen(kw_only=True)
class Facts:
    """Everything that a status is made of."""

    now: float
    """In seconds since 1970, by the clock of whoever asks."""
    result: ReconcileResult | None = None
    """Of the last passes that ended."""
    looked: float = 0.0
    """When the services were last seen, by the same clock."""
    stale_seconds: float = 600.0
    """After so long without a look nobody knows how the services are."""
    connections: tuple[Connection, ...] = ()
    table: RouteTable | None = None
    """None: nothing is routed from here."""
    routed: float = 0.0
    """When the table was made."""
    counts_proxies: bool = False
    """Whether proxies that are connected are among the connections."""
    bindings: tuple[BindingStatus, ...] = ()
    operations: tuple[OperationStatus, ...] = ()
    acts: bool = True
    """Whether somebody carries out what is left to do, as a daemon does."""
    pass_error: str = ""
    """Why the last pass did not end, if it did not, and no peer is to blame."""

    def down(self, peer: str) -> Connection | None:
        """A connection of this kind that is down, if there is one."""
        return next((c for c in self.connections if c.peer == peer and not c.is_up), None)


@frozen(kw_only=True)
class Onsets:
    """Since when what is not as it should be has not been so, in seconds since 1970, by what it is about."""

    entries: Mapping[str, float] = field(factory=dict)

    def with_only(self, found: Mapping[str, float]) -> "Onsets":
        """Return those of what still goes on."""
        return self if found == self.entries else Onsets(entries=dict(found))


NOTHING_WRONG = Onsets()


class Timeline:
    """Looks up when things began, and collects what goes on, for the next `Onsets`."""

    def __init__(self, before: Onsets, now: float) -> None:
        self._before, self._now = before.entries, now
        self.found: dict[str, float] = {}

    def since(self, key: str, evidence: float = 0.0) -> float:
        """Return since when this goes on. `evidence` is a time that labels or tasks tell, or 0."""
        known = self._before.get(key, self._now)
        self.found[key] = min(known, evidence) if evidence > 0 else known
        return self.found[key]

    def keep(self, keys: Iterable[str]) -> None:
        """Note that nobody knows whether these still go on."""
        for key in keys:
            self.found.setdefault(key, self._before[key])
