"""The connection to Cloudly: opened, logged in and tagged, and opened again whenever it ends.

A call without a connection fails at once, with the reason. A refused token is not a fault of the network: it is logged,
retried slowly, and touches no running service.
"""

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import structlog
import trio
from attrs import evolve

from coreflow.adapters.net.errors import NobodyBehind
from coreflow.adapters.net.peer import Handler, Peer, Socket
from coreflow.adapters.net.typedsocket import (
    INTERNAL_ERROR,
    NO_SUCH_METHOD,
    ConnectionClosed,
    NoResult,
    PeerError,
    StreamRef,
)
from coreflow.adapters.tasks import nursery_of_one_error
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
from coreflow.domain.status.connections import CLOUDLY, NOBODY_HEARD, Connection

from .link_log import REFUSED, LinkLog
from .login import LinkOptions, Live, Logins, RetryPolicy, TokenRefused
from .losses import Losses
from .methods import STATUS, Method

log = structlog.get_logger()

Dial = Callable[[], AbstractAsyncContextManager[Socket]]
_AWAY = "not connected to Cloudly yet"


class NotOffered(Refused):
    """The peer does not have this method."""


class Link:
    """Keeps one connection to Cloudly up. `run` does the work; everything else asks over the present connection.

    `wall_clock` gives seconds since 1970; `on_up` is called after every login on a new connection.
    """

    def __init__(
        self,
        dial: Dial,
        token: str,
        *,
        handlers: Mapping[str, Handler],
        wall_clock: Callable[[], float],
        on_up: Callable[[], None],
        options: LinkOptions | None = None,
    ) -> None:
        self._options = options or LinkOptions()
        self._losses = Losses()
        self._dial, self._handlers, self._on_up = dial, self._losses.watched(handlers), on_up
        self._logins = Logins(token, self._options, wall_clock)
        self._live: Live | None = None
        self._failure: CoreflowError | None = None
        self._known = trio.Event()
        self._wall_clock, self._heard = wall_clock, NOBODY_HEARD
        self._up_since = 0.0
        self._log = LinkLog()
        self.connects = 0
        """How often a connection was made and logged in."""

    @property
    def live(self) -> Live | None:
        """The connection, if there is one that is logged in."""
        return self._live

    def connections(self) -> tuple[Connection, ...]:
        """Return the state of the connection; nothing before the first attempt has ended."""
        now = self._wall_clock()
        return tuple(evolve(c, checked=now) if c.is_up else c for c in self._heard.of(CLOUDLY))

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
        async with nursery_of_one_error() as nursery:
            nursery.start_soon(self._log.run)
            nursery.start_soon(self._losses.run)
            await self._connect_again_and_again()

    async def _connect_again_and_again(self) -> None:
        delay = refused_delay = 0.0
        while True:
            try:
                await self._connect()
            except TokenRefused as exc:
                self._down(exc)
                refused_delay = next_delay(
                    refused_delay,
                    first=self._options.retry.refused_first,
                    longest=self._options.retry.refused_longest,
                )
                pause = refused_delay
            except CoreflowError as exc:
                was_up = self._live is not None
                self._down(exc)
                up_for = trio.current_time() - self._up_since if was_up else 0.0
                refused_delay = 0.0 if was_up else refused_delay
                delay = next_delay(
                    0.0 if up_for > self._options.retry.steady else delay,
                    first=self._options.retry.first,
                    longest=self._options.retry.longest,
                )
                pause = min(delay, self._longest_after(exc))
            except BaseException as exc:
                self._live = None
                self._failure = Unavailable(f"connecting failed: {type(exc).__name__}")
                self._known.set()
                raise
            await trio.sleep(pause * random.uniform(0.75, 1.0))  # noqa: S311 - only spreads reconnects

    def _longest_after(self, exc: CoreflowError) -> float:
        """The longest pause: nothing but another attempt tells that a peer is back that was not there."""
        match exc:
            case Unreached():
                return self._options.retry.unreached
            case NobodyBehind():
                return self._options.retry.nobody_behind
            case _:
                return self._options.retry.longest

    async def _connect(self) -> None:
        """One connection, from dialling to its end, which is always an exception."""
        async with self._dial() as socket:
            peer = Peer(
                socket,
                handlers=self._handlers,
                limits=self._options.limits,
                timing=self._options.timing,
                clean=self._logins.clean,
            )
            peer.on_loss = self._losses.lost
            failure: list[CoreflowError] = []

            async def serve() -> None:
                await peer.run()
                nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                try:
                    live = await self._logins.begin(peer)
                except CoreflowError as exc:
                    failure.append(exc)
                    nursery.cancel_scope.cancel()
                else:
                    self._up(live)
                    nursery.start_soon(self._renew)
                    nursery.start_soon(self._show_life)
        if failure and not isinstance(failure[0], ConnectionClosed):
            raise failure[0]
        raise Unavailable(peer.reason)

    def _up(self, live: Live) -> None:
        self._live, self._failure = live, None
        self._up_since = trio.current_time()
        self.connects += 1
        self._log.is_up(live.peer.address)
        self._heard = self._heard.after(CLOUDLY, "", None, self._wall_clock())
        self._known.set()
        self._on_up()

    def _down(self, failure: CoreflowError) -> None:
        """Say so once, and whenever the reason is another one; counts where it comes and goes."""
        was_up, self._live = self._live is not None, None
        text = str(failure)
        self._heard = self._heard.after(CLOUDLY, "", failure, self._wall_clock())
        self._failure = failure if isinstance(failure, PortError) else Unavailable(text)
        self._known.set()
        self._log.is_down(text, was_up=was_up, is_refused=isinstance(failure, TokenRefused))

    def drop(self, reason: str) -> None:
        """End the present connection, so that a new one is made."""
        if self._live is not None:
            self._live.peer.hang_up(reason)

    # --- signs of life

    async def _renew(self) -> None:
        """Log in again in time, for as long as the connection is there."""
        wait, said = 0.0, ""
        while (live := self._live) is not None:
            await trio.sleep(wait or live.identity.seconds_to_renewal(live.wall_at_login))
            try:
                await self._logins.again(live, live.identity)
                if said:
                    log.info("the login was renewed after all")
                wait, said = 0.0, ""
            except TokenRefused as exc:
                if str(exc) != said:
                    log.error(REFUSED, reason=str(exc))  # noqa: TRY400 - no traceback for a person
                said = str(exc)
                wait = next_delay(
                    wait, first=self._options.retry.refused_first, longest=self._options.retry.refused_longest
                )
            except CoreflowError as exc:
                if str(exc) != said:
                    log.warning("the login was not renewed", reason=str(exc))
                said = str(exc)
                wait = next_delay(wait, first=self._options.retry.first, longest=self._options.retry.longest)

    async def _show_life(self) -> None:
        while self._live is not None:
            try:
                await self.call(STATUS, needs_result=False)
            except NotOffered:
                return
            except CoreflowError as exc:
                log.debug("heartbeat not accepted", reason=str(exc))
            await trio.sleep(self._options.retry.heartbeat)

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

        An answer may take `timeout` seconds, by default `ANSWER_SECONDS` (or what the options' timing says). An answer of
        null is an empty one, unless `needs_result`. Raises Unavailable, Refused (`NotOffered`: there is no such method), or
        InvalidRecord for an answer that is not an object.
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
            if not self._logins.may_help(live, method, exc):
                raise self._told(method, exc) from None
        await self._logins.again(live, identity)
        try:
            answer = await ask(self._signed(live, fields))
        except PeerError as exc:
            self._logins.was_in_vain(live, method)
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

    def _told(self, method: Method, exc: PeerError | NoResult) -> PortError:
        if isinstance(exc, NoResult):
            return exc
        if exc.text == INTERNAL_ERROR:
            return Unavailable(f"{method.name}: Cloudly failed")
        return Refused(f"{method.name} is refused: {exc.text}")


__all__ = ["Dial", "Link", "LinkOptions", "Live", "NotOffered", "RetryPolicy", "TokenRefused"]
