"""A budget in bytes for the messages that are arriving, over all connections that share it.

aiohttp hands out whole messages, and says nothing of one before: neither that it has begun nor how long it will be. So
what is counted is the bytes that were handed to aiohttp and have not come out as messages that were dealt with. A
connection that has more of them than a small message needs a share, as large as its message may still become; while
there is no room for that, nothing more is read from it, and TCP slows its peer down. Shares are for the whole rest of a
message, so those who hold one never wait for each other.

The bound: at most `MessageBudget.total` bytes are arriving, and `SMALL` and one read of asyncio (256 KiB) for each
connection besides. For the moment in which a message is joined and unmasked it takes two to three times its bytes, which
happens to one message at a time, since there is one loop; its values take up to 200 MB (`Limits.message_values`), and
are read one message at a time, too. What handlers keep of requests is bounded by `Limits.request_bytes` for each connection.
"""

import asyncio
from collections.abc import Callable

from aiohttp.base_protocol import BaseProtocol
from attrs import define, field

SMALL = 64 * 1024
"""Bytes of a message that need no share."""
MODEST = 1024 * 1024
"""Bytes of the first share; whoever needs more gets one for the longest message. As much as strangers may send."""
_PONG_BYTES, _PONG_SECONDS = 131, 1.0
"""A read of so few bytes, once in that time, counts as a ping or pong, which never comes out as a message."""


@define(eq=False)
class MessageBudget:
    """Shares of `total` bytes, for those who were given the same object. Nobody waits for ever.

    One message of `longest` bytes always has room beside all modest ones: these may have no more than what it leaves.
    Raises ValueError when that leaves no room for a modest one.
    """

    total: int
    longest: int
    _shares: dict[Callable[[], None], int] = field(factory=dict, init=False)
    _waiting: dict[Callable[[], None], int] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        if self.total < self.longest + MODEST:
            raise ValueError("a budget has room for the longest message and a modest one")

    @property
    def taken(self) -> int:
        """Bytes of all shares."""
        return sum(self._shares.values())

    @property
    def waiting(self) -> int:
        """Return how many wait for a share."""
        return len(self._waiting)

    def resize(self, holder: Callable[[], None], wanted: int) -> bool:
        """Make the share of a holder this large; 0 gives it back. False: it waits, with what it has, and is called once it has it."""
        if self._fits(holder, wanted):
            self._grant(holder, wanted)
            self._serve_waiting()
            return True
        self._waiting[holder] = wanted
        return False

    def _fits(self, holder: Callable[[], None], wanted: int) -> bool:
        if wanted <= self._shares.get(holder, 0):
            return True
        others = [share for other, share in self._shares.items() if other != holder]
        if sum(others) + wanted > self.total:
            return False
        modest = sum(share for share in others if share <= MODEST)
        return wanted > MODEST or modest + wanted <= self.total - self.longest

    def _grant(self, holder: Callable[[], None], wanted: int) -> None:
        self._waiting.pop(holder, None)
        if wanted:
            self._shares[holder] = wanted
        else:
            self._shares.pop(holder, None)

    def _serve_waiting(self) -> None:
        for holder, wanted in list(self._waiting.items()):
            if self._fits(holder, wanted):
                self._grant(holder, wanted)
                holder()


class Intake(asyncio.Protocol):
    """Stands between a transport and aiohttp's protocol, and lets through what the budget has room for.

    A connection that waits is not taken for dead, though its pongs are unread: every `alive_seconds` a byte of what it
    sent passes. One that falls silent, with a share or waiting, ends by its heartbeat.
    """

    def __init__(
        self, inner: BaseProtocol, budget: MessageBudget, longest: int, alive_seconds: float
    ) -> None:
        self._inner, self._budget = inner, budget
        self._longest, self._alive_seconds = longest, alive_seconds
        self._loop = asyncio.get_running_loop()
        self._unfinished = 0
        self._pong_at = 0.0
        self._held: list[bytes] = []
        self._alive: asyncio.TimerHandle | None = None
        self._waits_since = 0.0
        self._ended = False

    @classmethod
    def on(
        cls, transport: asyncio.Transport, budget: MessageBudget, longest: int, alive_seconds: float
    ) -> "Intake | None":
        """Put one on the transport of a WebSocket; None when that is closed already."""
        inner = transport.get_protocol()
        if transport.is_closing() or not isinstance(inner, BaseProtocol):
            return None
        intake = cls(inner, budget, longest, alive_seconds)
        transport.set_protocol(intake)
        return intake

    @property
    def is_waiting(self) -> bool:
        """Return whether nothing is read, because the budget has no room."""
        return self._alive is not None

    @property
    def waited(self) -> int:
        """Tenths of a second for which it has been waiting, and one more; 0 when it is not."""
        return 1 + int(10 * (self._loop.time() - self._waits_since)) if self.is_waiting else 0

    def dealt_with(self, size: int) -> None:
        """A message of so many bytes came out, and nobody holds it any longer."""
        self._unfinished = max(0, self._unfinished - size)
        self._settle()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.is_waiting:  # aiohttp may have gone on reading, after a ping
            self._held.append(data)
            self._inner.pause_reading()
            return
        self._inner.data_received(data)
        if len(data) > _PONG_BYTES or self._loop.time() - self._pong_at < _PONG_SECONDS:
            self._unfinished += len(data)
        else:
            self._pong_at = self._loop.time()
        self._settle()

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._inner.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._ended = True
        self._stop_waiting()
        self._held.clear()
        self._budget.resize(self._granted, 0)
        self._inner.connection_lost(exc)

    def _needed(self) -> int:
        if self._unfinished <= SMALL:
            return 0
        return min(MODEST if self._unfinished <= MODEST else self._longest, self._longest)

    def _granted(self) -> None:
        self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        if self._ended:
            return
        has_room = self._budget.resize(self._granted, self._needed())
        if not has_room and self._alive is None:
            self._inner.pause_reading()
            self._waits_since = self._loop.time()
            self._alive = self._loop.call_later(self._alive_seconds, self._show_life)
        elif has_room and self._alive is not None:
            self._stop_waiting()
            self._go_on()

    def _go_on(self) -> None:
        """Read on, beginning with what came although reading was paused; this may use up the room."""
        held, self._held = self._held, []
        for piece in held:
            self.data_received(piece)
        if not self.is_waiting:
            self._inner.resume_reading()

    def _show_life(self) -> None:
        """Let one byte through, which is a sign of life to aiohttp. Where there is none, the peer may well be dead."""
        self._alive = self._loop.call_later(self._alive_seconds, self._show_life)
        if not self._held:
            self._inner.resume_reading()  # for one piece, which is held
            return
        first = self._held[0]
        self._held[:1] = [first[1:]] if len(first) > 1 else []
        self._unfinished += 1
        self._inner.data_received(first[:1])

    def _stop_waiting(self) -> None:
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None
