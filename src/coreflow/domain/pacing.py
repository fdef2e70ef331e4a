"""Back-off: when to try again, and when to say again, as functions of numbers."""

from collections.abc import Hashable

from attrs import frozen

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
AGAIN_SECONDS = 600.0
"""Between two times that the same thing is said."""
REPEATS_KEPT = 1000


FIRST_GAP, LONGEST_GAP = 0.5, 60.0
"""Seconds between two answers to the same subject, while it goes on asking."""
SUBJECTS = 1000
"""So many are remembered before those that have been quiet are forgotten."""


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


@frozen
class _Thinned:
    at: float
    gap: float
    untold: int = 0


class Thinning:
    """Tells the first of many like events at once, and how many there were since, later each time while they go on."""

    def __init__(self, first: float = 60.0, longest: float = AGAIN_SECONDS, kept: int = REPEATS_KEPT) -> None:
        self._first, self._longest, self._kept = first, longest, kept
        self._told: dict[Hashable, _Thinned] = {}

    def times(self, what: Hashable, now: float) -> int:
        """Return how many of this to tell of at `now`, in seconds of any steady clock: 0 for none."""
        last = self._told.get(what)
        if last is None or now - last.at > 2 * self._longest:
            if len(self._told) >= self._kept:
                del self._told[next(iter(self._told))]
            self._told[what] = _Thinned(now, 0.0)
            return 1 + (last.untold if last is not None else 0)
        if now - last.at < last.gap:
            self._told[what] = _Thinned(last.at, last.gap, last.untold + 1)
            return 0
        self._told[what] = _Thinned(now, next_delay(last.gap, first=self._first, longest=self._longest))
        return 1 + last.untold


@frozen
class _Heard:
    """The time at which a subject was answered last, or is going to be, and the pause after that."""

    at: float
    gap: float


class Attention:
    """Answers to subjects: the first time at once, later each time while they go on, each by itself."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def due(self, subject: str, now: float) -> float:
        """Return when to answer a subject that asks now. One that was quiet for a while is answered at once."""
        last = self._heard.get(subject)
        if last is not None and last.at > now:
            return last.at  # which is going to be the answer to this, too
        if last is None or now - last.at > 2 * max(last.gap, LONGEST_GAP / 6):
            at, gap = now, FIRST_GAP
        else:
            at, gap = max(last.at + last.gap, now), next_delay(last.gap, longest=LONGEST_GAP)
        self._forget(now)
        self._heard[subject] = _Heard(at, gap)
        return at

    def _forget(self, now: float) -> None:
        """Drop those that would be answered at once anyway."""
        if len(self._heard) >= SUBJECTS:
            self._heard = {s: heard for s, heard in self._heard.items() if now - heard.at <= 2 * LONGEST_GAP}
