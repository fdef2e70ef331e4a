"""Routes for the reverse proxies: each Coretraffic that is connected gets the newest set, one update at a time.

A Coretraffic that receives a second set while it works on the first may go on with the first one (read in taskbuffer
3.5.0), so the next is sent only when it has answered, and sets in between are skipped. One that restarted has no routes
at all, so a connection that gets the tag gets everything at once.
"""

from collections import deque
from collections.abc import Callable

import structlog
import trio
from attrs import define, field

from coreflow.domain.errors import CoreflowError, Refused, Unavailable
from coreflow.domain.pacing import Thinning, next_delay
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, TEXT_LIMIT, Redact, Redactor
from coreflow.domain.routing.routes import RouteTable, reverse_configs
from coreflow.domain.status.connections import Connection

from .net.peer import Peer

log = structlog.get_logger()

TAG = "coretraffic"
METHOD = "updateRouting"
"""Request `{reverseConfigs}`, answer `{status, errorText}` (read in loint 2.0.85 and interfaces 5.0.4)."""
ANSWER_SECONDS = 30.0
"""The answer comes only after the proxy was updated, which can take seconds (read in coretraffic 1.0.135)."""
FIRST_DELAY, LONGEST_DELAY, LONGEST_REFUSED_DELAY = 1.0, 30.0, 300.0
"""Between two attempts; a new table, or a proxy that sets its tag again, ends the wait."""


@define(eq=False)
class _Proxy:
    """One connected Coretraffic, and what it has."""

    peer: Peer
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    has: int = 0
    said: str = ""
    sent: Thinning = field(factory=Thinning)
    """So that a service that comes and goes is no line each time."""
    since: float = 0.0
    """Since when it takes routes, or does not, in seconds since 1970."""


class CoretrafficRoutes:
    """`CoretrafficPort` on the connections of the internal server. `run` does the sending.

    `redact` takes out of their texts what must not be told, besides the keys that they have.
    """

    def __init__(
        self,
        tagged: Callable[[str], tuple[Peer, ...]],
        *,
        answer_seconds: float = ANSWER_SECONDS,
        first_delay: float = FIRST_DELAY,
        redact: Redact = NOTHING_KNOWN.redact,
        wall_clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._redact, self._wall_clock = redact, wall_clock
        self._keys: deque[Redactor] = deque(maxlen=2)
        """Of the present table and the last."""
        self._tagged, self._answer_seconds, self._first_delay = tagged, answer_seconds, first_delay
        self._table: RouteTable | None = None
        self._configs: list[dict[str, object]] = []
        self._version = 0
        self._proxies: dict[Peer, _Proxy] = {}
        self._news = trio.Event()

    @property
    def connected(self) -> int:
        """Return how many proxies there are."""
        return len(self._proxies)

    def connections(self) -> tuple[Connection, ...]:
        """Return the state of each connected proxy."""
        now = self._wall_clock()
        return tuple(
            Connection(
                peer=TAG,
                where=proxy.peer.address,
                is_up=not proxy.said,
                since=proxy.since,
                checked=now,
                fault="refused" if proxy.said else "",
                error=proxy.said,
            )
            for proxy in self._proxies.values()
        )

    @property
    def is_up_to_date(self) -> bool:
        """Return whether every proxy has acknowledged the newest table."""
        return all(proxy.has == self._version for proxy in self._proxies.values())

    def publish(self, table: RouteTable) -> None:
        """See `CoretrafficPort`. The same table as before is not sent again."""
        configs = reverse_configs(table)
        if self._table is None or configs != self._configs:
            self._configs = configs
            self._keys.append(Redactor(route.certificate.key for route in table.routes))
            self._version += 1
            self._wake()
        self._table = table

    def clean(self, text: str, limit: int = TEXT_LIMIT, /) -> str:
        """A text of a proxy, fit to be told."""
        return self._redact(Redactor(others=self._keys).redact(text, limit), limit)

    def resend(self) -> None:
        """See `CoretrafficPort`."""
        if self._table is not None:
            self._version += 1
            self._wake()

    def tags_changed(self, name: str, peer: Peer) -> None:
        """A connection has set a tag, or lost it. One that set ours, perhaps again, gets everything."""
        if name == TAG:
            if peer in self._proxies:
                self._proxies[peer].has = 0
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def run(self) -> None:
        """Look after every connection until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                news = self._news
                wanted = self._newest_of_each()
                for peer in [peer for peer in self._proxies if peer not in wanted]:
                    self._proxies.pop(peer).scope.cancel()
                for peer in wanted:
                    if peer not in self._proxies:
                        proxy = self._proxies[peer] = _Proxy(peer, since=self._wall_clock())
                        nursery.start_soon(self._serve, proxy)
                await news.wait()

    def _newest_of_each(self) -> tuple[Peer, ...]:
        """One connection per address: after a restart the old one may not have noticed yet that it is dead."""
        newest = {peer.address.rpartition(":")[0]: peer for peer in self._tagged(TAG)}
        return tuple(newest.values())

    async def _serve(self, proxy: _Proxy) -> None:
        """Keep one proxy up to date for as long as it is connected."""
        with proxy.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_gone, proxy, nursery.cancel_scope)
                delay = 0.0
                while True:
                    while self._table is None or proxy.has == self._version:
                        await self._news.wait()
                    try:
                        await self._send(proxy)
                        delay = 0.0
                    except CoreflowError as exc:
                        self._failed(proxy, exc)
                        longest = LONGEST_REFUSED_DELAY if isinstance(exc, Refused) else LONGEST_DELAY
                        delay = next_delay(delay, first=self._first_delay, longest=longest)
                        with trio.move_on_after(delay):
                            await self._news.wait()
                            await trio.sleep(self._first_delay)

    async def _until_gone(self, proxy: _Proxy, scope: trio.CancelScope) -> None:
        await proxy.peer.ended.wait()
        self._proxies.pop(proxy.peer, None)
        scope.cancel()

    async def _send(self, proxy: _Proxy) -> None:
        version, configs = self._version, self._configs
        answered = await proxy.peer.request(METHOD, {"reverseConfigs": configs}, timeout=self._answer_seconds)
        answer = answered.response
        if not isinstance(answer, dict) or answer.get("status") != "ok":
            text = answer.get("errorText") if isinstance(answer, dict) else None
            raise Unavailable(f"it answered: {self.clean(text) if isinstance(text, str) else 'no status'}")
        if version == self._version:
            if proxy.said:
                log.info("routes accepted again", peer=proxy.peer.address)
            if times := proxy.sent.times("", trio.current_time()):
                log.info("routes sent", peer=proxy.peer.address, hosts=len(configs), times=times)
        if proxy.said:
            proxy.since = self._wall_clock()
        proxy.has, proxy.said = version, ""

    def _failed(self, proxy: _Proxy, exc: CoreflowError) -> None:
        text = self.clean(str(exc))
        if text != proxy.said and not proxy.peer.ended.is_set():
            hint = {"advice": "is it in another mode, or too old?"} if isinstance(exc, Refused) else {}
            log.warning("routes not accepted", peer=proxy.peer.address, reason=text, **hint)
        if not proxy.said:
            proxy.since = self._wall_clock()
        proxy.said = text
