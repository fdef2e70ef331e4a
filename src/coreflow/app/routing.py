"""From settled records and running tasks to routes, within a second or two of any change.

Three things go on beside the passes, and none waits for another: certificates are looked up, each host for itself; tasks
are looked at, one list, as often as is cheap; and when what follows from both has changed, the proxies get the new table.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog
import trio
from attrs import define, frozen

from coreflow.domain.errors import CoreflowError, Unavailable
from coreflow.domain.ids import ClusterId
from coreflow.domain.pacing import next_delay
from coreflow.domain.ports import CloudlyPort, CoretrafficPort, DockerPort, GatewayPort
from coreflow.domain.routing.certificates import Certificate, read_certificate
from coreflow.domain.routing.routes import (
    RUNNING,
    HostClaim,
    Located,
    NoCertificate,
    RouteTable,
    RouteTasks,
    locate,
    make_table,
)
from coreflow.domain.swarm.observed import ObservedService, ObservedTask

from .reconcile import Settlement
from .situation import Situation

log = structlog.get_logger()

LOOKUPS = 8
"""Certificates that are looked up at once."""
LOOKUP_SECONDS = 120.0
"""How long one look-up may take: a new certificate may have to be made first."""
FIRST_RETRY, LONGEST_RETRY = 15.0, 3600.0
"""Seconds after which a host without a certificate is asked for again; doubling."""
GATEWAY_MARGIN = 24 * 3600.0
"""A certificate of the gateway's has to be valid for so much longer."""
POLL_SECONDS = 0.5
LONGEST_POLL = 1.5
IDLE_SECONDS = 5.0
"""Between looks while there is nothing to route."""
POLL_SHARE = 10
"""A look at the tasks may take up to a tenth of the time, unless the looks get too far apart."""
EVENT_SECONDS = 0.15
"""From an event to the look: the manager knows of a container's start up to 0.1 s after it (measured)."""
FIRST_TABLE_SECONDS = 10.0
"""How long the first table waits for certificates: a proxy may still have the routes of our last life."""


class Sources(Protocol):
    """Where certificates come from."""

    @property
    def cloudly(self) -> CloudlyPort:
        """Everybody's."""
        ...

    @property
    def gateway(self) -> GatewayPort | None:
        """Asked first, where there is one."""
        ...


@define
class _Host:
    """What is known of the certificate of one host."""

    certificate: Certificate | None = None
    reason: str = ""
    due: float = 0.0
    """On the wall clock."""
    delay: float = 0.0
    asked: bool = False
    busy: bool = False


class CertificateBook:
    """A certificate for each wanted host, kept in memory, looked up again in time.

    `wall_clock` gives seconds since 1970; `on_change` is called when one came, changed or could not be had.
    """

    def __init__(
        self, sources: Sources, wall_clock: Callable[[], float], on_change: Callable[[], None]
    ) -> None:
        self._sources, self._wall_clock, self._on_change = sources, wall_clock, on_change
        self._hosts: dict[str, _Host] = {}
        self._news = trio.Event()

    def want(self, hosts: Iterable[str]) -> None:
        """These hosts need certificates, and no others."""
        wanted = set(hosts)
        for gone in self._hosts.keys() - wanted:
            del self._hosts[gone]
        new = wanted - self._hosts.keys()
        self._hosts.update({host: _Host() for host in new})
        if new:
            self._wake()

    def ask_again(self) -> None:
        """Hosts without a certificate are tried again now, whatever their back-off says."""
        for host in self._hosts.values():
            if host.certificate is None:
                host.due = 0.0
        self._wake()

    @property
    def complete(self) -> bool:
        """Whether every host has been looked up at least once."""
        return all(host.asked for host in self._hosts.values())

    def known(self) -> Mapping[str, Certificate | NoCertificate]:
        """What is known, by host; a host that is not there has not been looked up yet."""
        return {
            name: host.certificate or NoCertificate(reason=host.reason)
            for name, host in self._hosts.items()
            if host.asked
        }

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def run(self) -> None:
        """Look up what is due until cancelled."""
        limiter = trio.CapacityLimiter(LOOKUPS)
        async with trio.open_nursery() as nursery:
            while True:
                news, now = self._news, self._wall_clock()
                waits = [3600.0]
                for name, host in self._hosts.items():
                    if host.busy:
                        continue
                    if host.due <= now:
                        host.busy = True
                        nursery.start_soon(self._look_up, name, host, limiter)
                    else:
                        waits.append(host.due - now)
                with trio.move_on_after(min(waits)):
                    await news.wait()

    async def _look_up(self, name: str, host: _Host, limiter: trio.CapacityLimiter) -> None:
        try:
            async with limiter:
                sources = self._sources
                found = await find_certificate(name, sources.cloudly, sources.gateway, self._wall_clock)
        except CoreflowError as exc:
            self._missing(name, host, str(exc))
        except Exception as exc:  # noqa: BLE001 - one host must not cost the others theirs
            self._missing(name, host, f"its certificate cannot be used ({type(exc).__name__})")
        else:
            if found.remarks and (host.certificate is None or host.certificate.remarks != found.remarks):
                log.warning("certificate", host=name, remarks="; ".join(found.remarks))
            host.certificate, host.reason, host.delay = found, "", 0.0
            now = self._wall_clock()
            host.due = max(found.renew_at, now + FIRST_RETRY) + random.uniform(0, 60)  # noqa: S311 - spreads them
        finally:
            host.busy = False
        host.asked = True
        self._wake()
        self._on_change()

    def _missing(self, name: str, host: _Host, reason: str) -> None:
        if reason != host.reason:
            log.warning("no certificate", host=name, reason=reason)
        host.reason = reason
        if host.certificate is not None and not host.certificate.is_valid(self._wall_clock()):
            host.certificate = None
        host.delay = next_delay(host.delay, first=FIRST_RETRY, longest=LONGEST_RETRY)
        host.due = self._wall_clock() + host.delay


async def find_certificate(
    host: str, cloudly: CloudlyPort, gateway: GatewayPort | None, wall_clock: Callable[[], float]
) -> Certificate:
    """From the gateway, if there is one, else from Cloudly. Raises what is wrong with the last one that was asked."""
    if gateway is not None:
        try:
            record = await gateway.certificate(host)
            return read_certificate(record, host, wall_clock(), margin=GATEWAY_MARGIN)
        except CoreflowError as exc:
            log.debug("no certificate from the gateway", host=host, reason=str(exc))
    with trio.move_on_after(LOOKUP_SECONDS):
        record = await cloudly.certificate(host)
        return read_certificate(record, host, wall_clock())
    raise Unavailable(f"certificate of {host}: not answered in {LOOKUP_SECONDS:g} s")


@frozen(kw_only=True)
class _Wanted:
    """What the last passes said about hosts."""

    cluster: ClusterId
    services: tuple[ObservedService, ...]
    claims: tuple[HostClaim, ...]
    complete: bool
    """Whether there can be no others."""


def claims_of(situation: Situation, last: Iterable[HostClaim] = ()) -> tuple[HostClaim, ...]:
    """Hosts that ought to be routed. A service that runs without a record that can be read keeps the hosts it had."""
    hosts, strays = situation.desired.hosts, situation.strays
    return (*hosts.values(), *(c for c in last if c.service in strays and c.host not in hosts))


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
        self.book = CertificateBook(sources, wall_clock, self.poke)
        self._wanted: _Wanted | None = None
        self._since = 0.0
        self._tasks: tuple[ObservedTask, ...] = ()
        self._news, self._poke = trio.Event(), trio.Event()
        self._sent: Located = {}
        self._missing: dict[str, str] = {}
        self.table = RouteTable()

    def claims_after(self, situation: Situation) -> tuple[HostClaim, ...]:
        """Hosts that ought to be routed in this situation."""
        return claims_of(situation, self._wanted.claims if self._wanted is not None else ())

    def settled(self, settlement: Settlement) -> None:
        """Passes have ended: hosts, services and tasks may be others now."""
        situation = settlement.last
        claims = self.claims_after(situation)
        if self._wanted is None:
            self._since = trio.current_time()
        if self._wanted is None or not self._wanted.claims:
            self._news.set()  # there is something to look at from now on
        self._wanted = _Wanted(
            cluster=situation.desired.cluster,
            services=situation.observed.services,
            claims=claims,
            complete=situation.knows_all_hosts,
        )
        self._tasks = tuple(task for task in situation.observed.tasks if task.desired_state == RUNNING)
        self.book.want(claim.host for claim in self._wanted.claims)
        self.poke()

    def refresh(self) -> None:
        """A scheduled pass: everything is sent again, and missing certificates are asked for again."""
        self.book.ask_again()
        self._coretraffic.resend()

    def poke(self) -> None:
        """Something the table is made of has changed."""
        self._poke.set()

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
            wait = min(max(POLL_SECONDS, POLL_SHARE * (trio.current_time() - began)), LONGEST_POLL)
            self._tasks = tasks
            if self._located() != self._sent:
                self.poke()

    async def publish(self) -> None:
        """Publish the table whenever something it is made of has changed, until cancelled."""
        while True:
            await self._poke.wait()
            self._poke = trio.Event()
            wanted = self._wanted
            if wanted is None:
                continue
            rest = self._since + FIRST_TABLE_SECONDS - trio.current_time()
            if not self.table.claims and not self.book.complete and rest > 0:
                with trio.move_on_after(rest):
                    await self._poke.wait()
                self.poke()
                continue
            self._publish(wanted)

    def _located(self) -> Located:
        if self._wanted is None:
            return {}
        return locate(self._wanted.cluster, self._wanted.services, self._tasks, self._which)

    def _publish(self, wanted: _Wanted) -> None:
        located = self._sent = self._located()
        table = make_table(wanted.claims, located, self.book.known(), self._wall_clock(), self.table)
        self._say(table)
        self.table = table
        if table.routes or (table.known_empty and wanted.complete):
            self._coretraffic.publish(table)

    def _say(self, table: RouteTable) -> None:
        """Log what is missing when that begins and ends."""
        found = {missing.host: missing.reason for missing in table.missing}
        for host, reason in found.items():
            if self._missing.get(host) != reason:
                say = log.info if all(text.endswith("yet") for text in reason.split("; ")) else log.warning
                say("not routed", host=host, reason=reason)
        for host in self._missing.keys() - found.keys():
            if any(route.host == host for route in table.routes):
                log.info("routed", host=host)
        self._missing = found
