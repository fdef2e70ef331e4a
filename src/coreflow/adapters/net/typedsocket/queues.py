"""Chunks that wait, in either direction, and the bound on all of them together."""

from collections import deque

import orjson
from attrs import Factory, define, frozen

from .errors import TooMany
from .limits import Limits

_ITEM_COST = 64
"""Bytes that an item costs besides its content, so that empty ones are not free."""
_UNHEEDED = 4
"""Times the number of items at which a sender is asked to wait, before it loses its stream."""


@frozen
class Closing:
    """The closing marker: no chunk follows."""


CLOSING_ITEM = Closing()


@define
class Budget:
    """Bytes queued in all streams of a connection."""

    limit: int
    used: int = 0


@define(eq=False)
class Queue:
    """Chunks of one direction of one stream, oldest first, each with its cost."""

    limits: Limits
    budget: Budget
    _items: deque[tuple[object, int]] = Factory(deque)
    bytes: int = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Its sender ought to wait."""
        return len(self._items) >= self.limits.stream_items or self.bytes >= self.limits.stream_bytes

    def put(self, item: object) -> None:
        """Append. Raises `TooMany` at the hard limits, which only those reach who do not wait when asked to."""
        cost = 0 if item is CLOSING_ITEM else _cost(item)
        if self.budget.used + cost > self.budget.limit:
            raise TooMany(f"more than {self.budget.limit} bytes are queued in the streams of this connection")
        if cost and len(self._items) >= _UNHEEDED * self.limits.stream_items:
            raise TooMany(f"{len(self._items)} chunks are queued, and their sender does not wait")
        self._items.append((item, cost))
        self.bytes += cost
        self.budget.used += cost

    def get(self) -> object:
        """Take the oldest item. There has to be one."""
        item, cost = self._items.popleft()
        self.bytes -= cost
        self.budget.used -= cost
        return item

    def clear(self) -> None:
        """Drop everything."""
        self.budget.used -= self.bytes
        self.bytes = 0
        self._items.clear()


def _cost(item: object) -> int:
    if isinstance(item, bytes):
        return len(item) + _ITEM_COST
    try:
        return len(orjson.dumps(item)) + _ITEM_COST
    except TypeError as exc:  # it came as JSON: only its depth can be the matter
        raise TooMany("a chunk nests too deep") from exc
