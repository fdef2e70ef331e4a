"""The present status of a daemon: one place gathers its parts, and everybody who shows something asks here.

Parts are noted as they happen; the status is made when somebody asks, and after every pass, so that no onset is missed.
"""

from collections.abc import Callable, Iterable

from attrs import evolve, frozen

from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.errors import CoreflowError
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.routing.routes import RouteTable
from coreflow.domain.status.connections import (
    CLOUDLY,
    CORESTORE,
    CORETRAFFIC,
    ENGINE,
    GATEWAY,
    NOBODY_HEARD,
    RECORDS,
    Connection,
)
from coreflow.domain.status.explain import Explanation, explain
from coreflow.domain.status.make import make_status
from coreflow.domain.status.model import Status
from coreflow.domain.status.parts import NOTHING_WRONG, Facts, OperationStatus

TICK_SECONDS = 1.0
DEAD_SECONDS = 30.0
"""A loop that has not turned for so long stands still."""
FRESH_SECONDS = 1.0
"""For so long a status is given out again, unless there is news: many may ask at once."""
STALE_PASSES, STALE_MARGIN = 3, 60.0
"""After so many times the pause between passes, and so many seconds, services count as unseen."""


@frozen(kw_only=True)
class StatusSources:
    """The sources of those parts that nobody reports."""

    connections: Callable[[], Iterable[Connection]] = tuple
    """Of adapters that keep connections up by themselves."""
    table: Callable[[], RouteTable | None] = lambda: None
    routed: Callable[[], float] = lambda: 0.0
    """When the table was made."""
    bindings: Callable[[ReconcileResult], tuple[BindingStatus, ...]] = lambda _: ()
    operations: Callable[[], tuple[OperationStatus, ...]] = tuple
    seen: Callable[[ReconcileResult], ReconcileResult | None] = lambda _: None
    """A result with services and tasks as they were seen since, by passes that could not plan."""
    counts_proxies: bool = False


class StatusBoard:
    """Gathers the parts of the status. `wall_clock` gives seconds since 1970; `acts` says whether passes follow."""

    def __init__(
        self, wall_clock: Callable[[], float], *, relist_seconds: float = 60.0, acts: bool = True
    ) -> None:
        self.sources = StatusSources()
        self._clock = wall_clock
        self._stale_seconds = STALE_PASSES * relist_seconds + STALE_MARGIN
        self._heard = NOBODY_HEARD
        self._facts = Facts(now=wall_clock(), stale_seconds=self._stale_seconds, acts=acts)
        self._onsets = NOTHING_WRONG
        self._ticked = wall_clock()
        self._made: Status | None = None

    # --- what happens

    def tick(self) -> None:
        """The loop turns."""
        self._ticked = self._clock()

    def heard(self, peer: str, where: str, error: Exception | None) -> None:
        """A peer has answered, or has not."""
        self._heard = self._heard.after(peer, where, error, self._clock())
        self._made = None

    def reconciled(self, result: ReconcileResult) -> None:
        """Passes have ended."""
        self._become(result, "")

    def failed(self, error: Exception) -> None:
        """A pass did not end. What it could see of services and tasks counts all the same."""
        known = self._facts.result
        seen = self.sources.seen(known) if known is not None else None
        is_peers = any(not entry.is_up for entry in self._heard.entries.values())
        text = str(error) if isinstance(error, CoreflowError) else f"a bug: {type(error).__name__}"
        self._become(seen, "" if is_peers and isinstance(error, CoreflowError) else text)

    def _become(self, result: ReconcileResult | None, pass_error: str) -> None:
        if result is not None:
            self._facts = evolve(self._facts, result=result, looked=self._clock())
        self._facts = evolve(self._facts, pass_error=pass_error)
        self._made = None
        self.current()

    # --- what is asked

    def current(self) -> Status:
        """The status as it is now."""
        return self._present()[0]

    def explain(self, name: str) -> Explanation | None:
        """Everything about one service. None: there is none of this name or with this id."""
        status, facts = self._present()
        return explain(facts, status, name)

    def _present(self) -> tuple[Status, Facts]:
        now = self._clock()
        if self._made is None or not 0 <= now - self._made.time < FRESH_SECONDS:
            self._facts = self._gathered(now)
            self._made, self._onsets = make_status(self._facts, self._onsets)
        return self._made, self._facts

    def _gathered(self, now: float) -> Facts:
        result = self._facts.result
        bindings = self.sources.bindings(result) if result is not None else ()
        gateway = result.last.records.gateway if result is not None else None
        unwanted = {CORESTORE} if not bindings else set()
        if gateway is None or not gateway.enabled:
            unwanted.add(GATEWAY)
        kept = (c for c in self._heard.entries.values() if c.peer not in unwanted)
        located = (_located(c, result) for c in self.sources.connections())
        return evolve(
            self._facts,
            now=now,
            connections=(*kept, *located),
            table=self.sources.table(),
            routed=self.sources.routed(),
            bindings=bindings,
            operations=self.sources.operations(),
            counts_proxies=self.sources.counts_proxies,
        )

    def health(self) -> str:
        """Return what is wrong with this process itself; empty where it lives."""
        stood = self._clock() - self._ticked
        return f"its loop has stood still for {stood:.0f} s" if stood > DEAD_SECONDS else ""

    def readiness(self) -> str:
        """Return why the first pass has not ended; empty from then on."""
        if self._facts.result is not None:
            return ""
        entries = self._heard.entries.values()
        for peer, text in (
            (RECORDS, "the records have not been read"),
            (ENGINE, "the engine has not been seen"),
        ):
            known = [entry for entry in entries if entry.peer == peer]
            if not any(entry.is_up for entry in known):
                causes = [entry.error for entry in known] or [
                    c.error for c in self.sources.connections() if c.peer == CLOUDLY and not c.is_up
                ]
                return f"{text} yet" + (f": {causes[0]}" if causes and causes[0] else "")
        return "the first pass has not ended yet"


def _located(connection: Connection, result: ReconcileResult | None) -> Connection:
    """With the name of its node, where the address of a proxy is that of a task."""
    if connection.peer != CORETRAFFIC or result is None:
        return connection
    host = connection.where.rpartition(":")[0].strip("[]")
    seen = result.last.observed
    node = next((t.node_id for t in seen.tasks if host in t.addresses.values()), None)
    name = next((n.hostname for n in seen.nodes if n.id == node), "")
    return evolve(connection, where=name) if name else connection
