"""The TypedSocket server that services of the cluster dial: Coretraffic for its routes, above all.

Anybody on a network of ours can connect, workloads included. So a connection can do nothing by itself but tag itself,
as far as whoever opened the server lets its address do that; what is sent to a tag goes to connections that hold it.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog
import trio
from attrs import field, frozen

from coreflow.domain.errors import PreconditionFailed
from coreflow.domain.flapping import FLAPPING_EVENTS, News
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact
from coreflow.episodes import Episodes

from .net import HEARTBEAT_SECONDS, MessageBudget, Room, ServerOptions, WebSocket, serve_websockets
from .net.peer import Handler, Peer, Response
from .net.typedsocket import Limits, Timing
from .tasks import nursery_of_one_error

log = structlog.get_logger()

MAX_CONNECTIONS = 256
NOT_HERE = ("executeServiceBackup", "executeServiceRestore")
"""Methods that only Cloudly may call, on its own connection: workloads can reach this server."""

Admission = Callable[[str], Awaitable[Callable[[str], bool]]]
"""For the address of a new connection: which tags it may have. Asked once, before anything is read from it."""
STRANGERS = Limits(
    message_bytes=1024 * 1024,
    requests=32,
    request_bytes=4 * 1024 * 1024,
    streams=1,
    queued_bytes=1024 * 1024,
    tags=4,
    tag_bytes=4096,
)
"""What a connection may hold that may not have the tag of a proxy. What is longer is not even looked at."""
PER_ADDRESS = 16
"""Connections of one address, of whatever kind, silent ones included."""
RESERVED_SHARE = 8
"""One place in so many is kept for addresses that may have the tag of a proxy."""
_REFUSALS_KEPT = 1000
_ADMITTED_SECONDS = 1.0
"""From the question about an address to the upgrade of its connection, about."""
_DECIDE_SECONDS = 0.05
"""How long an upgrade waits for the answer; it may take longer where many ask."""


def _refuse(method: str, _: Mapping[str, object]) -> Response:
    raise PreconditionFailed(f"{method} is not available on this server")


@frozen(kw_only=True)
class InternalOptions:
    """Options of the server: what it may hold, and whom it trusts."""

    tag: str = "coretraffic"
    """The one that matters: whoever may have it is trusted."""
    max_connections: int = MAX_CONNECTIONS
    heartbeat: float = HEARTBEAT_SECONDS
    limits: Limits = field(factory=Limits)
    """Of a connection that is trusted."""
    timing: Timing | None = None
    budget: MessageBudget | None = None
    """What messages that are arriving may take, over all connections."""


class InternalServer:
    """Connections by tag. `run` serves them; `on_tags` is called with a tag that was set or is gone, and whose.

    `clean` makes what a connection says fit to be told.
    """

    def __init__(
        self,
        admit: Admission,
        *,
        on_tags: Callable[[str, Peer], None] | None = None,
        handlers: Mapping[str, Handler] | None = None,
        clean: Redact = NOTHING_KNOWN.redact,
        options: InternalOptions | None = None,
    ) -> None:
        self._clean = clean
        self._admit, self._on_tags = admit, on_tags
        self._handlers: dict[str, Handler] = {
            **{name: partial(_refuse, name) for name in NOT_HERE},
            **(handlers or {}),
        }
        self._options = options or InternalOptions()
        self._refusals: set[tuple[str, str]] = set()
        self._tagged: dict[str, list[Peer]] = {}
        self._episodes = Episodes(self._tell)
        self._peers: dict[str, str] = {}
        """Addresses that had the tag: the newest port of each."""
        self._admitted: dict[str, tuple[Callable[[str], bool], float]] = {}

    def tagged(self, name: str) -> tuple[Peer, ...]:
        """The connections that hold a tag now; who got it last comes last."""
        return tuple(self._tagged.get(name, ()))

    async def run(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; starts with the port. Raises Unavailable when it cannot listen."""
        async with nursery_of_one_error() as nursery:
            nursery.start_soon(self._episodes.run)
            listening = await nursery.start(
                partial(
                    serve_websockets,
                    host,
                    port,
                    self._serve,
                    ServerOptions(
                        room=Room(
                            connections=self._options.max_connections,
                            per_address=PER_ADDRESS,
                            reserved=self._options.max_connections // RESERVED_SHARE,
                        ),
                        is_expected=self._may_be_proxy,
                        message_limit=self._message_limit,
                        max_message=self._options.limits.message_bytes,
                        heartbeat=self._options.heartbeat,
                        budget=self._options.budget,
                    ),
                )
            )
            log.info("listening", address=f"{host}:{listening.port}", what="internal server")
            task_status.started(listening.port)

    async def _may_be_proxy(self, address: str) -> bool:
        return (await self._admission(address))(self._options.tag)

    async def _message_limit(self, address: str) -> int:
        """Hold no long message of a stranger, not even until it is complete."""
        limit = min(STRANGERS.message_bytes, self._options.limits.message_bytes)
        with trio.move_on_after(_DECIDE_SECONDS):
            if await self._may_be_proxy(address):
                limit = self._options.limits.message_bytes
        return limit

    async def _admission(self, address: str) -> Callable[[str], bool]:
        """Return what an address may have, asked for once for all that is decided about one connection."""
        now = trio.current_time()
        for old in [name for name, (_, at) in self._admitted.items() if now - at > _ADMITTED_SECONDS]:
            del self._admitted[old]
        if address not in self._admitted:
            self._admitted[address] = await self._admit(address), trio.current_time()
        return self._admitted[address][0]

    async def _serve(self, socket: WebSocket) -> None:
        may_have = await self._admission(socket.peer.rpartition(":")[0])
        trusted = may_have(self._options.tag)
        peer = Peer(
            socket,
            handlers=self._handlers,
            limits=self._options.limits if trusted else STRANGERS,
            timing=self._options.timing,
            tag_policy=lambda name, _: may_have(name),
            tag_listener=self,
            clean=self._clean,
        )
        try:
            await peer.run()
        finally:
            for name in list(self._tagged):
                self.untagged(peer, name, reason=peer.reason)

    def refused(self, peer: Peer, name: str, reason: str) -> None:
        """See `TagListener`. Said once for each address and tag."""
        key = (_host_of(peer), name)
        if key not in self._refusals:
            log.warning("tag refused", peer=peer.address, tag=name, reason=reason)
        if len(self._refusals) >= _REFUSALS_KEPT:
            self._refusals.clear()
        self._refusals.add(key)

    def tagged_by(self, peer: Peer, name: str) -> None:
        """See `TagListener`."""
        is_new = peer not in self._tagged.get(name, ())
        self._forget(peer, name)
        self._tagged.setdefault(name, []).append(peer)
        if is_new:
            self._say(name, peer, "")
        if self._on_tags is not None:
            self._on_tags(name, peer)

    def untagged(self, peer: Peer, name: str, reason: str = "by its own wish") -> None:
        """See `TagListener`."""
        if self._forget(peer, name):
            self._say(name, peer, reason)
            if self._on_tags is not None:
                self._on_tags(name, peer)

    def _say(self, name: str, peer: Peer, reason: str) -> None:
        """Tags that nobody here uses are nobody's business: anybody may set them, as often as they like."""
        if name != self._options.tag:
            log.debug("no longer tagged" if reason else "tagged", tag=name, peer=peer.address)
            return
        host = _host_of(peer)
        has_tag = any(_host_of(other) == host for other in self._tagged.get(name, ()))
        is_new, was = host not in self._peers, self._episodes.state(host)
        if is_new and len(self._peers) >= _REFUSALS_KEPT:
            self._peers.clear()
            self._episodes.forget()
        self._peers[host] = peer.address
        if has_tag and not was:  # one more, or the first of all
            (log.info if is_new else log.debug)("tagged", tag=name, peer=peer.address)
        self._episodes.become(host, "" if has_tag else reason or was or "gone")

    def _tell(self, news: News) -> None:
        """Log what has become of the connections of an address."""
        facts: dict[str, object] = {"tag": self._options.tag, "peer": self._peers[news.subject]}
        if news.what in {"begins", "changes"}:
            log.info("no longer tagged", **facts, reason=news.state)
        elif news.what == "ends":
            log.info("tagged", **facts)
        else:
            facts |= {"now": "no longer tagged" if news.state else "tagged", "reason": news.state or news.was}
            facts |= {"times": news.times, "seconds": round(news.seconds)}
            say = log.info if news.what == "is calm" else log.warning
            say(f"connection {FLAPPING_EVENTS[news.what]}", **facts)

    def _forget(self, peer: Peer, name: str) -> bool:
        peers = self._tagged.get(name, [])
        if peer not in peers:
            return False
        peers.remove(peer)
        if not peers:
            del self._tagged[name]
        return True


def _host_of(peer: Peer) -> str:
    return peer.address.rpartition(":")[0]
