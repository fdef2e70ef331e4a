"""A certificate for each routed host: looked up each for itself, kept, and asked for again when it may be another one.

When to ask again has two answers. Whatever says that something may have changed (records, a push, the schedule, SIGHUP)
makes every host due at once. Without that, a certificate is asked for when four fifths of its life are over. Only what gives
the same answer again and again backs off.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import structlog
import trio
from attrs import define

from coreflow.domain.errors import CoreflowError, Unavailable, Unreadable
from coreflow.domain.pacing import next_delay
from coreflow.domain.ports import ControlPlane, GatewayPort
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.certificates import NotYetValid, read_certificate
from coreflow.domain.routing.routes import NoCertificate

log = structlog.get_logger()

LOOKUPS = 8
"""Certificates that are looked up at once."""
LOOKUP_SECONDS = 120.0
"""How long one look-up may take: a new certificate may have to be made first."""
FIRST_RETRY, LONGEST_RETRY = 15.0, 3600.0
"""Seconds after which a host that got no certificate, or the same one in the last fifth of its life, is asked for again."""
FIRST_ROUND, LONGEST_ROUND = 1.0, 60.0
"""Seconds between two rounds of all hosts because of changes; doubling while rounds find nothing new."""
SPREAD_SECONDS = 60.0
"""Renewals that are due at once are spread over this time."""
GATEWAY_MARGIN = 24 * 3600.0
"""A certificate of the gateway's has to be valid for so much longer."""


class Sources(Protocol):
    """The sources of certificates."""

    @property
    def cloudly(self) -> ControlPlane:
        """Everybody's."""
        ...

    @property
    def gateway(self) -> GatewayPort | None:
        """Asked first, where there is one."""
        ...


@define(eq=False)
class _Host:
    """The state of one host's certificate."""

    name: str
    certificate: Certificate | None = None
    reason: str = ""
    due: float = -math.inf
    """When to look at it again, on the steady clock."""
    rests_until: float = 0.0
    """On the wall clock: before that nothing new is expected, unless somebody says so."""
    delay: float = 0.0
    is_asked: bool = False
    is_busy: bool = False
    is_wanted_again: bool = False
    """Somebody said that it may be another one now."""


class CertificateBook:
    """A certificate for each wanted host, kept in memory.

    `wall_clock` gives seconds since 1970; `on_change` is called when one came, changed or could not be had.
    """

    def __init__(
        self, sources: Sources, wall_clock: Callable[[], float], on_change: Callable[[], None]
    ) -> None:
        self._sources, self._wall_clock, self._on_change = sources, wall_clock, on_change
        self._hosts: dict[str, _Host] = {}
        self._unasked: set[str] = set()
        self._queue: list[tuple[float, int, _Host]] = []
        self._numbers = itertools.count()
        self._news = trio.Event()
        self._rounds = _Rounds()

    def want(self, hosts: Iterable[str]) -> None:
        """These hosts need certificates, and no others."""
        wanted = set(hosts)
        for gone in self._hosts.keys() - wanted:
            del self._hosts[gone]
        self._unasked &= wanted
        new = sorted(wanted - self._hosts.keys())
        for name in new:
            self._hosts[name] = _Host(name)
            self._enqueue(self._hosts[name])
        self._unasked.update(new)
        if new:
            self._wake()

    def ask_again(self) -> None:
        """Every host is asked for now, whatever any back-off says: somebody wants to know."""
        for host in self._hosts.values():
            host.is_wanted_again, host.due = True, -math.inf
            self._enqueue(host)
        self._wake()

    def changed(self) -> None:
        """Records may be others now: every host is asked for, soon if this is said often and nothing is new."""
        self._rounds.ask(trio.current_time())
        self._wake()

    @property
    def complete(self) -> bool:
        """Return whether every host has been looked up at least once."""
        return not self._unasked

    def known(self) -> Mapping[str, Certificate | NoCertificate]:
        """Return what is known, by host; a host that is not there has not been looked up yet."""
        return {
            name: host.certificate or NoCertificate(reason=host.reason)
            for name, host in self._hosts.items()
            if host.is_asked
        }

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    def _enqueue(self, host: _Host) -> None:
        heapq.heappush(self._queue, (host.due, next(self._numbers), host))

    async def run(self) -> None:
        """Look up what is due until cancelled."""
        self._queue.clear()
        for host in self._hosts.values():
            host.is_busy = False
            self._enqueue(host)
        send, receive = trio.open_memory_channel[_Host](0)
        async with trio.open_nursery() as nursery, send, receive:
            for _ in range(LOOKUPS):
                nursery.start_soon(self._look_up_all, receive.clone())
            while True:
                news = self._news
                if self._rounds.begin(trio.current_time()):
                    self.ask_again()
                for host in self._take_due():
                    host.is_busy = True
                    await send.send(host)
                due = min(self._rounds.due, self._queue[0][0] if self._queue else math.inf)
                with trio.move_on_at(due):
                    await news.wait()

    def _take_due(self) -> Iterator[_Host]:
        """Take from the queue what shall be asked for now."""
        while self._queue and self._queue[0][0] <= trio.current_time():
            due, _, host = heapq.heappop(self._queue)
            if self._hosts.get(host.name) is not host or host.is_busy or due != host.due:
                continue  # no longer wanted, under way, or in the queue once more
            rest = host.rests_until - self._wall_clock()
            if rest > 0 and not host.is_wanted_again:
                self._wait(host, rest)  # a wall clock may jump, so it is looked at now and then
            else:
                yield host

    def _wait(self, host: _Host, seconds: float) -> None:
        host.due = trio.current_time() + min(seconds, LONGEST_RETRY)
        self._enqueue(host)

    async def _look_up_all(self, hosts: trio.MemoryReceiveChannel[_Host]) -> None:
        async with hosts:
            async for host in hosts:
                host.is_busy, host.is_wanted_again = True, False
                try:
                    await self._look_up(host)
                finally:
                    host.is_busy = False
                if host.is_wanted_again:
                    host.due = -math.inf
                    self._enqueue(host)
                self._wake()

    async def _look_up(self, host: _Host) -> None:
        sources, before = self._sources, (host.certificate, host.reason)
        try:
            found = await find_certificate(
                host.name, sources.cloudly, sources.gateway, self._wall_clock, host.certificate
            )
        except (
            Unreadable
        ) as exc:  # no news of this host: whoever reads the records tells what is wrong with them
            is_well = host.certificate is not None and host.certificate.is_valid(self._wall_clock())
            self._missing(host, host.reason or ("" if is_well else str(exc)))
        except CoreflowError as exc:
            self._missing(host, str(exc), exc.begins if isinstance(exc, NotYetValid) else 0.0)
        except Exception as exc:  # noqa: BLE001 - one host must not cost the others theirs
            self._missing(host, f"its certificate cannot be used ({type(exc).__name__})")
        else:
            self._found(host, found)
        if not host.is_asked or before != (host.certificate, host.reason):
            self._rounds.found_news()
            self._on_change()
        host.is_asked = True
        self._unasked.discard(host.name)

    def _found(self, host: _Host, found: Certificate) -> None:
        old = host.certificate
        if found.remarks and (old is None or old.remarks != found.remarks):
            log.warning("certificate", host=host.name, remarks="; ".join(found.remarks))
        if old is not None and found != old:
            log.info("certificate replaced", host=host.name, issuer=found.issuer)
        if host.reason:
            log.info("certificate found", host=host.name, issuer=found.issuer)
        host.certificate, host.reason = found, ""
        rest = found.renew_at - self._wall_clock()
        if rest > 0 or found != old:
            host.delay = 0.0
            spread = random.uniform(0, SPREAD_SECONDS)  # noqa: S311 - no secret
            host.rests_until = found.renew_at + spread
            self._wait(host, max(rest + spread, FIRST_RETRY))
        else:
            self._back_off(host)

    def _missing(self, host: _Host, reason: str, begins: float = 0.0) -> None:
        if reason != host.reason:
            log.warning("no certificate", host=host.name, reason=reason)
        host.reason = reason
        if host.certificate is not None and not host.certificate.is_valid(self._wall_clock()):
            host.certificate = None
        self._back_off(host, begins)

    def _back_off(self, host: _Host, rests_until: float = 0.0) -> None:
        host.delay = next_delay(host.delay, first=FIRST_RETRY, longest=LONGEST_RETRY)
        host.rests_until = rests_until
        self._wait(host, host.delay)


class _Rounds:
    """Rounds in which all hosts are asked for because of a change: at once, unless that found nothing new the last times."""

    def __init__(self) -> None:
        self.due = math.inf
        self._began = -math.inf
        self._pause = 0.0

    def ask(self, now: float) -> None:
        """Somebody said that something changed."""
        if now - self._began > 10 * LONGEST_ROUND:
            self._pause = 0.0
        self.due = min(self.due, max(now, self._began + self._pause))

    def begin(self, now: float) -> bool:
        """Return whether a round begins now."""
        if now < self.due:
            return False
        self.due, self._began = math.inf, now
        self._pause = next_delay(self._pause, first=FIRST_ROUND, longest=LONGEST_ROUND)
        return True

    def found_news(self) -> None:
        """A certificate is another one than it was: whoever says so next is believed sooner."""
        self._pause = FIRST_ROUND


async def find_certificate(
    host: str,
    cloudly: ControlPlane,
    gateway: GatewayPort | None,
    wall_clock: Callable[[], float],
    known: Certificate | None = None,
) -> Certificate:
    """From the gateway, if there is one, else from Cloudly. Raises what is wrong with the last one that was asked.

    The same record as last time gives the `known` certificate.
    """
    if gateway is not None:
        try:
            record = await gateway.certificate(host)
            return read_certificate(record, host, wall_clock(), margin=GATEWAY_MARGIN, known=known)
        except CoreflowError as exc:
            log.debug("no certificate from the gateway", host=host, reason=str(exc))
    with trio.move_on_after(LOOKUP_SECONDS):
        record = await cloudly.certificate(host)
        return read_certificate(record, host, wall_clock(), known=known)
    raise Unavailable(f"certificate of {host}: not answered in {LOOKUP_SECONDS:g} s")
