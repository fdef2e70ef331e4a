"""The connection to Cloudly: dialled, logged in and tagged, again and again, as long as somebody wants it.

Whoever asks while there is none learns at once why. A token that is refused is not a fault of the network: it is said
clearly, tried again slowly, and touches nothing that runs.
"""

import random
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import structlog
import trio
from attrs import define, field, frozen

from coreflow.adapters.net.peer import Handler, Peer, Socket
from coreflow.adapters.net.typedsocket import (
    INTERNAL_ERROR,
    NO_SUCH_METHOD,
    ConnectionClosed,
    Limits,
    NoResult,
    PeerError,
    StreamRef,
    Timing,
)
from coreflow.domain.errors import (
    CoreflowError,
    InvalidRecord,
    PortError,
    Problem,
    Refused,
    Unavailable,
    Unreached,
)
from coreflow.domain.pacing import next_delay
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, TEXT_LIMIT, Redact, Redactor

from .identity import Identity
from .methods import IDENTITY_TAG, LOGIN, STATUS, Method

log = structlog.get_logger()

Dial = Callable[[], AbstractAsyncContextManager[Socket]]
_AWAY = "not connected to Cloudly yet"
_REJECTION = re.compile(
    r"identity|jwt|token|credential|log ?in|log(ged)? ?out|auth|permission|forbidden|expired|guard",
    re.IGNORECASE,
)
"""Texts of errors that may mean that the identity is no longer accepted. The real texts are not known."""


class NotOffered(Refused):
    """The peer does not have this method."""


class TokenRefused(Refused):
    """Cloudly does not accept the machine token."""


@frozen(kw_only=True)
class Pace:
    """Seconds."""

    first: float = 1.0
    longest: float = 60.0
    """Back-off of connecting: from `first`, doubling up to `longest`, each time shortened by up to a quarter."""
    unreached: float = 0.8
    """The longest where nobody listens: a connect costs nobody anything, and the first that succeeds is the return."""
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
        """Whether more time has passed since the login than the identity is good for, by either clock."""
        lifetime = self.identity.lifetime(self.wall_at_login)
        return lifetime is not None and lifetime <= max(now - self.logged_in_at, wall - self.wall_at_login)


class Link:
    """Keeps one connection to Cloudly up. `run` does the work; everything else asks over the present connection.

    `wall_clock` gives seconds since 1970; `on_up` is called after every login on a new connection.
    `redact` takes out of Cloudly's texts what must not be told, besides token and identity.
    """

    def __init__(
        self,
        dial: Dial,
        token: str,
        *,
        handlers: Mapping[str, Handler],
        wall_clock: Callable[[], float],
        on_up: Callable[[], None],
        pace: Pace | None = None,
        limits: Limits | None = None,
        timing: Timing | None = None,
        redact: Redact = NOTHING_KNOWN.redact,
    ) -> None:
        self._redact = redact
        self._dial, self._token, self._handlers = dial, token, handlers
        self._wall_clock, self._on_up = wall_clock, on_up
        self._pace = pace or Pace()
        self._limits, self._timing = limits, timing
        self._live: Live | None = None
        self._failure: CoreflowError | None = None
        self._known = trio.Event()
        self._login_lock = trio.Lock()
        self._up_since = 0.0
        self._jwts: deque[str] = deque(maxlen=2)
        self._said = ""

    @property
    def live(self) -> Live | None:
        """The connection, if there is one that is logged in."""
        return self._live

    async def wait(self) -> Live:
        """The connection. The first attempt to get one is waited for.

        Raises what that, or the last one since, failed with.
        """
        await self._known.wait()
        return self._require()

    def _require(self) -> Live:
        if self._live is None:
            failure = self._failure or Unavailable(_AWAY)
            raise type(failure)(*failure.args)  # a fresh one, without the traceback of the first
        return self._live

    # --- its life

    async def run(self) -> None:
        """Connect, and connect again whenever the connection ends. Ends only when cancelled."""
        delay = refused_delay = 0.0
        while True:
            try:
                await self._connect()
            except TokenRefused as exc:
                self._down(exc)
                refused_delay = next_delay(
                    refused_delay, first=self._pace.refused_first, longest=self._pace.refused_longest
                )
                pause = refused_delay
            except CoreflowError as exc:
                was_up = self._live is not None
                self._down(exc)
                up_for = trio.current_time() - self._up_since if was_up else 0.0
                refused_delay = 0.0 if was_up else refused_delay
                delay = next_delay(
                    0.0 if up_for > self._pace.steady else delay,
                    first=self._pace.first,
                    longest=self._pace.longest,
                )
                pause = min(delay, self._pace.unreached) if isinstance(exc, Unreached) else delay
            except BaseException as exc:
                self._live = None
                self._failure = Unavailable(f"connecting failed: {type(exc).__name__}")
                self._known.set()
                raise
            await trio.sleep(pause * random.uniform(0.75, 1.0))  # noqa: S311 - only spreads reconnects

    async def _connect(self) -> None:
        """One connection, from dialling to its end, which is always an exception."""
        async with self._dial() as socket:
            peer = Peer(
                socket,
                handlers=self._handlers,
                limits=self._limits,
                timing=self._timing,
                clean=self._clean,
            )
            failure: list[CoreflowError] = []

            async def serve() -> None:
                await peer.run()
                nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                try:
                    identity = await self._login(peer)
                    await self._tag(peer, identity)
                except CoreflowError as exc:
                    failure.append(exc)
                    nursery.cancel_scope.cancel()
                else:
                    self._up(Live(peer, identity, trio.current_time(), self._wall_clock()))
                    nursery.start_soon(self._renew)
                    nursery.start_soon(self._show_life)
        if failure and not isinstance(failure[0], ConnectionClosed):
            raise failure[0]
        raise Unavailable(peer.reason)

    def _up(self, live: Live) -> None:
        self._live, self._failure, self._said = live, None, ""
        self._up_since = trio.current_time()
        log.info("connected to Cloudly", address=live.peer.address)
        self._known.set()
        self._on_up()

    def _down(self, failure: CoreflowError) -> None:
        """Say so once, and whenever the reason is another one."""
        was_up, self._live = self._live is not None, None
        text = str(failure)
        self._failure = failure if isinstance(failure, PortError) else Unavailable(text)
        self._known.set()
        if isinstance(failure, TokenRefused):
            if text != self._said:
                log.error(
                    "Cloudly refuses the token",
                    reason=text,
                    advice="check JUMPCODE; what runs stays as it is",
                )
        elif was_up:
            log.warning("connection to Cloudly lost", reason=text)
        elif text != self._said:
            log.warning("waiting for Cloudly", reason=text)
        self._said = text

    def drop(self, reason: str) -> None:
        """End the present connection, so that a new one is made."""
        if self._live is not None:
            self._live.peer.hang_up(reason)

    # --- login

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

    async def _renew(self) -> None:
        """Log in again in time, for as long as the connection is there."""
        wait, said = 0.0, ""
        while (live := self._live) is not None:
            await trio.sleep(wait or live.identity.seconds_to_renewal(live.wall_at_login))
            try:
                await self._log_in_again(live, live.identity)
                wait, said = 0.0, ""
            except TokenRefused as exc:
                if str(exc) != said:
                    log.error("Cloudly refuses the token", reason=str(exc))  # noqa: TRY400 - no traceback for a person
                said = str(exc)
                wait = next_delay(wait, first=self._pace.refused_first, longest=self._pace.refused_longest)
            except CoreflowError as exc:
                if str(exc) != said:
                    log.warning("the login was not renewed", reason=str(exc))
                said = str(exc)
                wait = next_delay(wait, first=self._pace.first, longest=self._pace.longest)

    async def _log_in_again(self, live: Live, old: Identity) -> None:
        """A new identity in the place of an old one, unless somebody was faster, or a short while ago refused."""
        async with self._login_lock:
            if live.identity is not old:
                return
            if live.refusal is not None and trio.current_time() < live.refused_until:
                raise TokenRefused(*live.refusal.args)
            try:
                identity = await self._login(live.peer)
            except TokenRefused as exc:
                live.refused_delay = next_delay(
                    live.refused_delay, first=self._pace.refused_first, longest=self._pace.refused_longest
                )
                live.refusal, live.refused_until = exc, trio.current_time() + live.refused_delay
                raise
            live.refusal, live.refused_delay = None, 0.0
            live.logged_in(identity, trio.current_time(), self._wall_clock())
            await self._tag(live.peer, live.identity)
            log.debug("login renewed")

    async def _show_life(self) -> None:
        while self._live is not None:
            try:
                await self.call(STATUS, needs_result=False)
            except NotOffered:
                return
            except CoreflowError as exc:
                log.debug("sign of life not taken", reason=str(exc))
            await trio.sleep(self._pace.heartbeat)

    # --- requests

    async def call(
        self,
        method: Method,
        fields: Mapping[str, object] | None = None,
        *,
        needs_result: bool = True,
        timeout: float | None = None,
    ) -> Mapping[str, Any]:
        """Ask Cloudly, with our identity. A rejected identity is replaced once, and the request repeated.

        An answer may take `timeout` seconds, by default the timing's. Raises Unavailable, Refused (`NotOffered`: there is no such method), or InvalidRecord for an answer that is
        not an object. An answer of null is an empty one, unless `needs_result`.
        """
        live = self._require()
        response, streams = await self._call(
            live, method, fields or {}, needs_result=needs_result, timeout=timeout
        )
        live.peer.give_up(*streams)
        return response

    async def call_without_identity(self, method: Method, body: Mapping[str, object]) -> None:
        """Tell Cloudly something by a method that wants no identity. Raises as `call` does."""
        live = self._require()
        try:
            _, streams = await self._ask(live, method, body, needs_result=False)
        except (PeerError, NoResult) as exc:
            raise self._told(method, exc) from None
        live.peer.give_up(*streams)

    async def call_for_stream(self, method: Method, fields: Mapping[str, object]) -> tuple[Peer, StreamRef]:
        """Ask for a stream. Whoever gets it reads it from the peer or gives it up. Raises as `call` does."""
        live = self._require()
        response, streams = await self._call(live, method, fields)
        wanted = response.get(method.answer) if method.answer is not None else None
        live.peer.give_up(*(ref for ref in streams if ref != wanted))
        if not isinstance(wanted, StreamRef):
            raise Refused(f"{method.name} was answered without a stream")
        return live.peer, wanted

    async def _call(
        self,
        live: Live,
        method: Method,
        fields: Mapping[str, object],
        *,
        needs_result: bool = True,
        timeout: float | None = None,
    ) -> tuple[Mapping[str, Any], tuple[StreamRef, ...]]:
        identity = live.identity
        ask = partial(self._ask, live, method, needs_result=needs_result, timeout=timeout)
        try:
            return await ask(self._signed(live, fields))
        except (PeerError, NoResult) as exc:
            if not self._may_be_rejected(live, method, exc):
                raise self._told(method, exc) from None
        await self._log_in_again(live, identity)
        try:
            answer = await ask(self._signed(live, fields))
        except PeerError as exc:
            live.in_vain.add(method.name)
            live.useless_delay = next_delay(
                live.useless_delay, first=self._pace.first, longest=self._pace.relogin
            )
            live.no_login_before = trio.current_time() + live.useless_delay
            raise self._told(method, exc) from None
        live.useless_delay = 0.0
        return answer

    @staticmethod
    def _signed(live: Live, fields: Mapping[str, object]) -> Mapping[str, object]:
        return {"identity": live.identity.raw, **fields}

    async def _ask(
        self,
        live: Live,
        method: Method,
        body: Mapping[str, object],
        *,
        needs_result: bool,
        timeout: float | None = None,
    ) -> tuple[Mapping[str, Any], tuple[StreamRef, ...]]:
        if method.name in live.not_offered:
            raise NotOffered(f"Cloudly has no method {method.name}")
        try:
            answered = await live.peer.request(method.name, body, needs_result=needs_result, timeout=timeout)
        except PeerError as exc:
            if exc.text == NO_SUCH_METHOD:
                live.not_offered.add(method.name)
                raise NotOffered(f"Cloudly has no method {method.name}") from None
            raise
        if answered.response is None:
            return {}, answered.streams
        if not isinstance(answered.response, Mapping):
            live.peer.give_up(*answered.streams)
            raise InvalidRecord(Problem("$", f"the answer to {method.name} is not an object"))
        return answered.response, answered.streams

    def _may_be_rejected(self, live: Live, method: Method, exc: PeerError | NoResult) -> bool:
        """Whether logging in again may help. 3.3.0 tells nothing of an exception in a handler, so null may mean this."""
        now = trio.current_time()
        if live.has_expired(now, self._wall_clock()):
            return True
        if now < live.no_login_before:
            return False
        if isinstance(exc, PeerError) and method.name not in live.in_vain and _REJECTION.search(exc.text):
            return True
        is_vague = isinstance(exc, NoResult) or exc.text == INTERNAL_ERROR
        return is_vague and now - live.logged_in_at > self._pace.relogin

    def _told(self, method: Method, exc: PeerError | NoResult) -> PortError:
        if isinstance(exc, NoResult):
            return exc
        if exc.text == INTERNAL_ERROR:
            return Unavailable(f"{method.name}: Cloudly failed")
        return Refused(f"{method.name} is refused: {exc.text}")

    def _clean(self, text: str, limit: int = TEXT_LIMIT, /) -> str:
        """A text of Cloudly's, fit to be told."""
        return self._redact(Redactor([self._token, *self._jwts]).redact(text, limit), limit)


__all__ = ["Dial", "Link", "Live", "NotOffered", "Pace", "TokenRefused"]
