"""Logins at Cloudly: the first on a connection, the next in its place, and when another one may help.

A token that is refused is said clearly and tried again slowly; so is a login that did not help with what was asked for.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import structlog
import trio
from attrs import define, evolve, field, frozen

from coreflow._moved import warn_of
from coreflow.adapters.net.peer import Peer
from coreflow.adapters.net.typedsocket import (
    INTERNAL_ERROR,
    NO_SUCH_METHOD,
    ConnectionClosed,
    Limits,
    NoResult,
    PeerError,
    Timing,
)
from coreflow.domain.errors import PortError, Refused, Unavailable
from coreflow.domain.pacing import next_delay
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, TEXT_LIMIT, Redact, Redactor

from .identity import Identity
from .methods import IDENTITY_TAG, LOGIN, Method

log = structlog.get_logger()

_REJECTION = re.compile(
    r"identity|jwt|token|credential|log ?in|log(ged)? ?out|auth|permission|forbidden|expired|guard",
    re.IGNORECASE,
)
"""Texts of errors that may mean that the identity is no longer accepted. The real texts are not known."""


class TokenRefused(Refused):
    """Cloudly does not accept the machine token."""


@frozen(kw_only=True)
class RetryPolicy:
    """Seconds."""

    first: float = 1.0
    longest: float = 60.0
    """Back-off of connecting: from `first`, doubling up to `longest`, each time shortened by up to a quarter."""
    unreached: float = 0.8
    """The longest where nobody listens: a connect costs nobody anything, and the first that succeeds is the return."""
    nobody_behind: float = 5.0
    """The longest where a proxy or the name service says that nobody is there: each attempt costs them something."""
    refused_first: float = 15.0
    refused_longest: float = 300.0
    """The same after a refused token."""
    steady: float = 5.0
    """A connection that was up for so long has worked: the next back-off begins anew."""
    heartbeat: float = 60.0
    """Between two signs of life."""
    relogin: float = 60.0
    """Shortest time between two logins that were made because an answer did not tell clearly what was wrong; longest
    between two that did not help."""


ANSWER_SECONDS = 30.0
"""How long an answer of Cloudly is waited for; while it arrives, ten minutes (`Timing.whole`)."""


def _timing() -> Timing:
    return Timing(request=ANSWER_SECONDS)


@frozen(kw_only=True)
class LinkOptions:
    """Options of a connection: how it is kept up, and what it may cost."""

    retry: RetryPolicy = field(factory=RetryPolicy)
    limits: Limits | None = None
    timing: Timing | None = field(factory=_timing)
    redact: Redact = NOTHING_KNOWN.redact
    """Takes out of Cloudly's texts what must not be told, besides token and identity."""


class LinkKeywords(TypedDict, total=False):
    """The fields of `LinkOptions`, as keywords of old; `pace` is `retry` there."""

    pace: RetryPolicy
    limits: Limits | None
    timing: Timing | None
    redact: Redact


def with_keywords(options: LinkOptions, keywords: LinkKeywords) -> LinkOptions:
    """Return the options with what the keywords of old say, and warn of them."""
    if not keywords:
        return options
    warn_of(
        f"NetworkCloudly({', '.join(keywords)})", "NetworkCloudly(options=LinkOptions(...))", stacklevel=4
    )
    fields: dict[str, Any] = dict(keywords)
    if "pace" in fields:
        fields["retry"] = fields.pop("pace")
    return evolve(options, **fields)


@define(eq=False)
class Live:
    """A connection that is logged in."""

    peer: Peer
    identity: Identity
    logged_in_at: float
    """On trio's clock."""
    wall_at_login: float
    """The same in seconds since 1970, by our clock. Only what passed since then counts: that clock may be wrong."""
    not_offered: set[str] = field(factory=set)
    """Methods that turned out not to be there."""
    in_vain: set[str] = field(factory=set)
    """Methods whose refusal another login did not change: it is not about the identity."""
    refusal: TokenRefused | None = None
    """What the last attempt to log in again came to, if it was this; until the next one, it stands."""
    refused_until: float = 0.0
    refused_delay: float = 0.0
    useless_delay: float = 0.0
    no_login_before: float = 0.0
    """Logins did not help with what was asked for: the next one for that reason has to wait."""

    def logged_in(self, identity: Identity, now: float, wall: float) -> None:
        """Take a new identity."""
        self.identity, self.logged_in_at, self.wall_at_login = identity, now, wall

    def has_expired(self, now: float, wall: float) -> bool:
        """Return whether more time has passed since the login than the identity is good for, by either clock."""
        lifetime = self.identity.lifetime(self.wall_at_login)
        return lifetime is not None and lifetime <= max(now - self.logged_in_at, wall - self.wall_at_login)


class Logins:
    """Logs in with one machine token. `wall_clock` gives seconds since 1970."""

    def __init__(self, token: str, options: LinkOptions, wall_clock: Callable[[], float]) -> None:
        self._token, self._wall_clock = token, wall_clock
        self._retry, self._redact = options.retry, options.redact
        self._lock = trio.Lock()
        self._jwts: deque[str] = deque(maxlen=2)

    async def begin(self, peer: Peer) -> Live:
        """Log in on a new connection, and tag it."""
        identity = await self._login(peer)
        await self._tag(peer, identity)
        return Live(peer, identity, trio.current_time(), self._wall_clock())

    async def again(self, live: Live, old: Identity) -> None:
        """A new identity in the place of an old one, unless somebody was faster, or a short while ago refused."""
        async with self._lock:
            if live.identity is not old:
                return
            if live.refusal is not None and trio.current_time() < live.refused_until:
                raise TokenRefused(*live.refusal.args)
            try:
                identity = await self._login(live.peer)
            except TokenRefused as exc:
                live.refused_delay = next_delay(
                    live.refused_delay, first=self._retry.refused_first, longest=self._retry.refused_longest
                )
                live.refusal, live.refused_until = exc, trio.current_time() + live.refused_delay
                raise
            live.refusal, live.refused_delay = None, 0.0
            live.logged_in(identity, trio.current_time(), self._wall_clock())
            await self._tag(live.peer, live.identity)
            log.debug("login renewed")

    def may_help(self, live: Live, method: Method, exc: PeerError | NoResult) -> bool:
        """Return whether logging in again may help. 3.3.0 tells nothing of an exception in a handler, so null may mean this."""
        now = trio.current_time()
        if live.has_expired(now, self._wall_clock()):
            return True
        if now < live.no_login_before:
            return False
        if isinstance(exc, PeerError) and method.name not in live.in_vain and _REJECTION.search(exc.text):
            return True
        is_vague = isinstance(exc, NoResult) or exc.text == INTERNAL_ERROR
        return is_vague and now - live.logged_in_at > self._retry.relogin

    def was_in_vain(self, live: Live, method: Method) -> None:
        """Another login did not change the refusal of a method: the next one for that reason has to wait."""
        live.in_vain.add(method.name)
        live.useless_delay = next_delay(
            live.useless_delay, first=self._retry.first, longest=self._retry.relogin
        )
        live.no_login_before = trio.current_time() + live.useless_delay

    def clean(self, text: str, limit: int = TEXT_LIMIT, /) -> str:
        """A text of Cloudly's, fit to be told."""
        return self._redact(Redactor([self._token, *self._jwts]).redact(text, limit), limit)

    async def _login(self, peer: Peer) -> Identity:
        assert LOGIN.key is not None  # noqa: S101 - see the table
        try:
            answered = await peer.request(LOGIN.name, {LOGIN.key: self._token})
        except PeerError as exc:
            if exc.text == INTERNAL_ERROR:
                raise Unavailable(f"{LOGIN.name}: Cloudly failed") from None
            if exc.text == NO_SUCH_METHOD:
                raise Refused("CLOUDLY_URL leads to a server that is not Cloudly: it has no login") from None
            raise TokenRefused(f"the machine token (JUMPCODE) is refused: {exc.text}") from None
        response = answered.response
        identity = Identity.parse(response.get(LOGIN.answer) if isinstance(response, Mapping) else None)
        self._jwts.append(identity.jwt)
        return identity

    async def _tag(self, peer: Peer, identity: Identity) -> None:
        """Let Cloudly find this connection. One that keeps no tags may still push, and does not matter otherwise."""
        try:
            await peer.set_tag(IDENTITY_TAG, identity.raw)
        except ConnectionClosed:
            raise
        except PortError as exc:
            log.warning("the connection cannot be tagged, pushes may not arrive", reason=str(exc))
