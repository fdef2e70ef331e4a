"""When to try again, and when to say again, as functions of numbers."""

from collections.abc import Hashable

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
AGAIN_SECONDS = 600.0
"""Between two times that the same thing is said."""
REPEATS_KEPT = 1000


def next_delay(
    last: float, *, up_for: float = 0.0, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY
) -> float:
    """Seconds to wait before the next attempt: doubling up to `longest`, and `first` again after a long success.

    `last` is the previous delay (0 before the first), `up_for` how many seconds the last attempt went well.
    """
    if last <= 0 or up_for > longest:
        return first
    return min(last * 2, longest)


class Repeats:
    """Remembers what was said. Each thing may be said again after `seconds`; only so many are remembered."""

    def __init__(self, seconds: float = AGAIN_SECONDS, kept: int = REPEATS_KEPT) -> None:
        self._seconds, self._kept = seconds, kept
        self._said: dict[Hashable, float] = {}

    def is_new(self, what: Hashable, now: float) -> bool:
        """Return whether to say this at `now`, in seconds of any steady clock. From then on it counts as said."""
        said_at = self._said.get(what)
        if said_at is not None and now - said_at < self._seconds:
            return False
        self._said.pop(what, None)
        if len(self._said) >= self._kept:
            del self._said[next(iter(self._said))]
        self._said[what] = now
        return True
