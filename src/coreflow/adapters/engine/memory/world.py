"""Time, identities, versions and events: what every other part of the memory Swarm stands on."""

import copy
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import trio

from coreflow.adapters.engine.protocol import Document

from .conditions import Conditions
from .nodes import NANO

SETTLE_LIMIT = 3600.0
EVENTS = 256
"""How many events wait for a slow reader, as in a real engine."""
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When its clock says 0."""


class World:
    """The course of events: what is due happens in its order, and only when somebody lets time pass."""

    def __init__(self, conditions: Conditions, clock: Callable[[], float]) -> None:
        self._conditions = conditions
        self._clock, self._offset, self.now = clock, 0.0, 0.0
        self.halted = False
        """Whether nothing happens any more, since the daemon has panicked."""
        self._ids = itertools.count(1)
        self._index = 10
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._listeners: list[trio.MemorySendChannel[Document]] = []

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._offset += seconds
        self.catch_up()

    def settle(self, is_at_rest: Callable[[], bool]) -> None:
        """Let time pass until nothing more is due or all is at rest, for an hour at most."""
        deadline = self.time() + SETTLE_LIMIT
        while self._due and self._due[0][0] <= deadline and not self.halted and not is_at_rest():
            self._offset += max(self._due[0][0] - self.time(), 0.0)
            self.catch_up()

    def time(self) -> float:
        """Seconds on its clock. `now`, in contrast, stands still while things happen."""
        return self._clock() + self._offset

    def wall_clock(self) -> float:
        """Seconds since the epoch."""
        return _EPOCH.timestamp() + self.time()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in so many seconds."""
        heapq.heappush(self._due, (self.now + seconds, next(self._ids), action))

    def catch_up(self) -> None:
        """Let everything happen that is due, in its order."""
        now = self.time()
        while self._due and self._due[0][0] <= now and not self.halted:
            self.now, _, action = heapq.heappop(self._due)
            action()
        self.now = max(self.now, now)

    def stamp(self) -> str:
        """The moment as documents have it."""
        seconds, fraction = divmod(self.now, 1)
        moment = _EPOCH + timedelta(seconds=int(seconds))
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(fraction * NANO):09d}Z"

    def new_id(self, kind: str) -> str:
        """An identity that nothing else has; the same history gives the same ones."""
        return f"{kind}{next(self._ids):06d}"

    def touch(self, document: Document) -> None:
        """Note that a document has changed: every change in the Swarm has an index of its own."""
        self._index += 1
        document["Version"] = {"Index": self._index}
        document["UpdatedAt"] = self.stamp()

    def emit(
        self, kind: str, action: str, identity: str, name: str, labels: Mapping[str, str] | None = None
    ) -> None:
        """Tell every listener, unless conditions lose the event; twice if they double it."""
        attributes = {"name": name, **(labels or {})}
        event = {"Type": kind, "Action": action, "Actor": {"ID": identity, "Attributes": attributes}}
        times = 1
        if self._conditions.lose_events > 0:
            self._conditions.lose_events, times = self._conditions.lose_events - 1, 0
        elif self._conditions.double_events > 0:
            self._conditions.double_events, times = self._conditions.double_events - 1, 2
        for listener in self._listeners:
            for _ in range(times):
                with suppress(trio.WouldBlock):  # a slow reader misses some
                    listener.send_nowait(copy.deepcopy(event))

    @contextmanager
    def listen(self) -> Iterator[AsyncIterator[Document]]:
        """Every event from now on, until `hang_up`."""
        send, receive = trio.open_memory_channel[Document](EVENTS)
        self._listeners.append(send)
        try:
            yield receive
        finally:
            if send in self._listeners:
                self._listeners.remove(send)
            send.close()
            receive.close()

    def hang_up(self) -> None:
        """End every stream of events, as an engine that restarts does."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
