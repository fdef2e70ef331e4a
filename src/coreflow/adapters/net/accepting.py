"""Accepting connections: how many there may be, of one address and in all, counted before anything is read.

asyncio's own acceptor knows no address when it makes a protocol, and writes a traceback for each of a hundred attempts
when file descriptors run out. So the loop is ours; what becomes of a connection is asyncio's.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import structlog
from attrs import define, field, frozen

from coreflow.domain.pacing import Repeats, next_delay

from .transport import seen

log = structlog.get_logger()

BACKLOG = 128
EXPECTED_SECONDS = 5.0
"""How long it may take to find out whether an address is one that room is reserved for."""
MAX_ASKED = 32
"""Connections that may wait for that at once, one of each address."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Between two attempts to accept when the process or the machine has run out of something."""
_REQUEST_BYTES = 64 * 1024
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


Shortage = Literal["address", "server"]


@frozen(kw_only=True)
class Room:
    """The room for connections."""

    connections: int
    per_address: int | None = None
    reserved: int = 0
    """So many of `connections` are kept for addresses that are expected; these may also have twice their share."""


@define(eq=False)
class Places:
    """Counts the connections that there are."""

    room: Room
    taken: int = 0
    _of_address: Counter[str] = field(factory=Counter, init=False)

    def shortage(self, address: str, *, expected: bool = False) -> Shortage | None:
        """Say where there is no room for one more, if there is none."""
        share = self.room.per_address
        if share is not None and self._of_address[address] >= share * (1 + expected):
            return "address"
        if self.taken >= self.room.connections - (0 if expected else self.room.reserved):
            return "server"
        return None

    def take(self, address: str) -> None:
        """Count one more."""
        self.taken += 1
        self._of_address[address] += 1

    def free(self, address: str) -> None:
        """Count one less."""
        self.taken -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]


@define(eq=False)
class Acceptor:
    """Accepts connections for as long as there is room. For asyncio.

    `serve` has a connection that was let in until it ends. `is_expected` is asked about an address for which there is no
    room otherwise.
    """

    places: Places
    serve: Callable[[socket.socket, str], Awaitable[None]]
    is_expected: Callable[[str], Awaitable[bool]] | None = None
    speaks_plainly: bool = True
    """Whether a connection too many would understand a plain answer."""
    _repeats: Repeats = field(factory=Repeats, init=False)
    _asked: set[str] = field(factory=set, init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set, init=False)

    async def run(self, listener: socket.socket) -> None:
        """Accept until cancelled. Running out of file descriptors slows it down, and is said once."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            try:
                connection, name = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as exc:
                if self._repeats.is_new(exc.errno, loop.time()):
                    reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
                    log.warning("cannot accept connections, trying again", reason=reason)
                pause = next_delay(pause, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
                await asyncio.sleep(pause)
                continue
            pause = 0.0
            self._arrived(connection, name[0])
            await asyncio.sleep(0)  # a crowd at the door must not hold up those inside

    def stop(self) -> None:
        """Let go of connections that are not being served yet."""
        for task in self._tasks:
            task.cancel()

    def _arrived(self, connection: socket.socket, address: str) -> None:
        shortage = self.places.shortage(address)
        if shortage is None:
            self._let_in(connection, address)
        elif self.is_expected is None or address in self._asked or len(self._asked) >= MAX_ASKED:
            self._turn_away(connection, address, shortage)
        else:
            self._asked.add(address)
            self._start(self._ask(connection, address, shortage, self.is_expected))

    async def _ask(
        self,
        connection: socket.socket,
        address: str,
        shortage: Shortage,
        is_expected: Callable[[str], Awaitable[bool]],
    ) -> None:
        """Use the reserved room, if this address may."""
        expected = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(EXPECTED_SECONDS):
                    expected = await is_expected(address)
        except BaseException:
            connection.close()
            raise
        finally:
            self._asked.discard(address)
        if expected and self.places.shortage(address, expected=True) is None:
            self._let_in(connection, address)
        else:
            self._turn_away(connection, address, shortage)

    def _let_in(self, connection: socket.socket, address: str) -> None:
        self.places.take(address)
        self._start(self.serve(connection, address))

    def _start(self, job: Awaitable[None]) -> None:
        task = asyncio.ensure_future(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(seen)

    def _turn_away(self, connection: socket.socket, address: str, shortage: Shortage) -> None:
        now, room = asyncio.get_running_loop().time(), self.places.room
        if shortage == "address" and self._repeats.is_new(address, now):
            log.warning(
                "too many connections of one address, turning new ones away",
                peer=address,
                limit=room.per_address,
            )
        elif shortage == "server" and self._repeats.is_new(shortage, now):
            log.warning("too many connections, turning new ones away", limit=room.connections)
        with connection, suppress(OSError):
            if self.speaks_plainly:
                connection.send(_TURNED_AWAY)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(_REQUEST_BYTES)  # unread, it would make the answer get lost
