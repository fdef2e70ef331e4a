"""From stable records and running tasks to routes, within a second or two of any change.

Three things go on beside the passes, and none waits for another: certificates are looked up, each host for itself; tasks
are looked at, one list, as often as is cheap; and when what follows from both has changed, the proxies get the new table.
"""

from collections.abc import Callable, Iterable, Mapping

import structlog
import trio
from attrs import frozen

from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.flapping import FLAPPING_EVENTS, News
from coreflow.domain.ids import ClusterId
from coreflow.domain.ports import CoretrafficPort, DockerPort
from coreflow.domain.records.models import CertificateRecord, GatewayRecord
from coreflow.domain.routing.routes import (
    RUNNING,
    HostClaim,
    Located,
    RouteTable,
    RouteTasks,
    locate,
    make_table,
)
from coreflow.domain.swarm.observed import ObservedService, ObservedTask
from coreflow.episodes import Episodes

from .certificates import CertificateBook, Sources
from .supervise import is_well

log = structlog.get_logger()

POLL_SECONDS = 0.5
LONGEST_POLL = 1.5
IDLE_SECONDS = 5.0
"""Between looks while there is nothing to route."""
POLL_SHARE = 10
"""A look at the tasks may take up to a tenth of the time, unless the looks get too far apart."""
EVENT_SECONDS = 0.15
"""From an event to the look: the manager knows of a container's start up to 0.1 s after it (measured)."""
FIRST_TABLE_SECONDS, LONGEST_FIRST_TABLE = 10.0, 60.0
"""How long the first table waits for the next certificate, and for all of them: a proxy may still have the routes of our
last life."""
LONGEST_PAUSE = 1.5
"""Between two tables that take long to make; otherwise `POLL_SHARE` times that."""


@frozen(kw_only=True)
class _Wanted:
    """The wishes of the last passes about hosts."""

    cluster: ClusterId
    services: tuple[ObservedService, ...]
    claims: tuple[HostClaim, ...]
    unknown: frozenset[str]
    """Services that may have hosts besides these."""
    certificates: Mapping[str, CertificateRecord]
    gateway: GatewayRecord | None


def claims_of(reconcile_state: ReconcileState, last: Iterable[HostClaim] = ()) -> tuple[HostClaim, ...]:
    """Hosts that ought to be routed. A service that runs without a record that can be read keeps the hosts it had."""
    hosts, strays = reconcile_state.desired.hosts, reconcile_state.strays
    return (*hosts.values(), *(c for c in last if c.service in strays and c.host not in hosts))


def _unknown(reconcile_state: ReconcileState, last: _Wanted | None) -> frozenset[str]:
    """Services whose hosts nobody knows: their records cannot be read, and we have not seen others."""
    strays = reconcile_state.unknown_hosts
    if last is None:
        return strays
    seen = {service.name for service in last.services if service.cluster == last.cluster} - last.unknown
    return strays - seen


class Router:
    """Publishes the route table of the cluster."""

    def __init__(
        self,
        docker: DockerPort,
        coretraffic: CoretrafficPort,
        sources: Sources,
        wall_clock: Callable[[], float],
        *,
        which: RouteTasks = "all",
    ) -> None:
        self._docker, self._coretraffic, self._wall_clock = docker, coretraffic, wall_clock
        self._which: RouteTasks = which
        self.book = CertificateBook(sources, wall_clock, self._heard_of_a_certificate)
        self._wanted: _Wanted | None = None
        self._since = self._heard = 0.0
        self._tasks: tuple[ObservedTask, ...] = ()
        self._news, self._poke = trio.Event(), trio.Event()
        self._sent: Located = {}
        self._missing: dict[str, str] = {}
        self._routed: set[str] = set()
        self._episodes = Episodes(self._tell)
        self.table = RouteTable()
        self.table_made = 0.0
        """When the present table was made, or found to be so, in seconds since 1970."""

    def claims_after(self, reconcile_state: ReconcileState) -> tuple[HostClaim, ...]:
        """Hosts that ought to be routed in this state."""
        return claims_of(reconcile_state, self._wanted.claims if self._wanted is not None else ())

    def reconciled(self, reconcile_result: ReconcileResult) -> None:
        """Passes have ended: hosts, services and tasks may be others now."""
        reconcile_state, last = reconcile_result.last, self._wanted
        records = reconcile_state.records
        wanted = _Wanted(
            cluster=reconcile_state.desired.cluster,
            services=reconcile_state.observed.services,
            claims=self.claims_after(reconcile_state),
            unknown=_unknown(reconcile_state, last),
            certificates=records.certificates,
            gateway=records.gateway,
        )
        if last is None:
            self._since = self._heard = trio.current_time()
        if last is None or not last.claims:
            self._news.set()  # there is something to look at from now on
        self._wanted = wanted
        self._tasks = tuple(task for task in reconcile_state.observed.tasks if task.desired_state == RUNNING)
        self.book.want(claim.host for claim in wanted.claims)
        if last is not None and (last.certificates, last.gateway) != (wanted.certificates, wanted.gateway):
            self.book.changed()
        self.poke()

    def refresh(self) -> None:
        """A scheduled pass: everything is sent again, and every certificate is asked for again."""
        self.book.ask_again()
        self._coretraffic.resend()

    def poke(self) -> None:
        """Something the table is made of has changed."""
        self._poke.set()

    def _heard_of_a_certificate(self) -> None:
        self._heard = trio.current_time()
        self.poke()

    def kick(self, *, urgent: bool = False) -> None:
        """The engine has news: look at the tasks now."""
        self._news.set()

    async def watch_tasks(self) -> None:
        """Look at the tasks until cancelled. Raises Unavailable while the engine is away."""
        wait = POLL_SECONDS
        while True:
            with trio.move_on_after(wait):
                await self._news.wait()
            if self._news.is_set():
                await trio.sleep(EVENT_SECONDS)
            self._news = trio.Event()
            if self._wanted is None or not self._wanted.claims:
                wait = IDLE_SECONDS
                continue
            began = trio.current_time()
            tasks = await self._docker.running_tasks()
            is_well()
            wait = min(max(POLL_SECONDS, POLL_SHARE * (trio.current_time() - began)), LONGEST_POLL)
            self._tasks = tasks
            if self._located() != self._sent:
                self.poke()
            elif self.table_made:
                self.table_made = self._wall_clock()

    async def publish(self) -> None:
        """Publish the table whenever something it is made of has changed, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._episodes.run)
            await self._publish_all()

    async def _publish_all(self) -> None:
        while True:
            await self._poke.wait()
            self._poke = trio.Event()
            if (wanted := self._wanted) is None:
                continue
            if (rest := self._first_table_at() - trio.current_time()) > 0:
                with trio.move_on_after(rest):
                    await self._poke.wait()
                self._poke.set()
                continue
            began = trio.current_time()
            self._publish(wanted)
            await trio.sleep(min(POLL_SHARE * (trio.current_time() - began), LONGEST_PAUSE))

    def _first_table_at(self) -> float:
        """Return when the first table may be published; in the past once there was one, or every certificate is known."""
        if self.table.claims or self.book.complete:
            return self._since
        return min(self._heard + FIRST_TABLE_SECONDS, self._since + LONGEST_FIRST_TABLE)

    def _located(self) -> Located:
        if self._wanted is None:
            return {}
        return locate(self._wanted.cluster, self._wanted.services, self._tasks, self._which)

    def _publish(self, wanted: _Wanted) -> None:
        located = self._sent = self._located()
        self.table_made = self._wall_clock()
        table = make_table(wanted.claims, located, self.book.known(), self._wall_clock(), self.table)
        self._say(table)
        self.table = table
        if table.routes or (table.known_empty and not wanted.unknown & located.keys()):
            self._coretraffic.publish(table)

    def _say(self, table: RouteTable) -> None:
        """Log what is missing when that begins and ends, and counts where it does so again and again."""
        found = {missing.host: missing.reason for missing in table.missing}
        if found != self._missing:
            self._routed = {route.host for route in table.routes}
            self._missing = found
            self._episodes.after(found)

    def _tell(self, news: News) -> None:
        host, reason = news.subject, news.state
        if news.what == "ends":
            log.info("routed" if host in self._routed else "no longer to be routed", host=host)
        elif news.what in {"begins", "changes"}:
            say = log.info if all(text.endswith("yet") for text in reason.split("; ")) else log.warning
            say("not routed", host=host, reason=reason)
        else:
            facts: dict[str, object] = {
                "now": "not routed" if reason else "routed",
                "reason": reason or news.was,
            }
            facts |= {"times": news.times, "seconds": round(news.seconds)}
            say = log.info if news.what == "is calm" and not reason else log.warning
            say(FLAPPING_EVENTS[news.what], host=host, **facts)
