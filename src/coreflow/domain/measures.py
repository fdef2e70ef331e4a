"""Measures: numbers that operators read, and how often something took how long."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Literal

from attrs import Factory, frozen

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of calls and passes."""
LONG_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""Upper bounds of backups."""


@frozen(kw_only=True)
class Histogram:
    """Counts of how often something took how long, in seconds."""

    bounds: tuple[float, ...] = SECONDS
    counts: tuple[int, ...] = ()
    """By bound, and beyond the last; none: nothing has happened."""
    total: float = 0.0

    def after(self, seconds: float) -> "Histogram":
        """Return it with one more."""
        counts = list(self.counts or (0,) * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, seconds)] += 1
        return Histogram(bounds=self.bounds, counts=tuple(counts), total=self.total + seconds)

    def buckets(self) -> tuple[tuple[str, float], ...]:
        """Return how many there are up to each bound, as Prometheus wants it."""
        found, number = [], 0
        names = (*map(str, self.bounds), "+Inf")
        for name, count in zip(names, self.counts or (0,) * len(names), strict=True):
            number += count
            found.append((name, float(number)))
        return tuple(found)


@frozen(kw_only=True)
class Metric:
    """A number, or several that differ in their labels."""

    name: str
    """Without the prefix, and without the `_total` of a counter."""
    meaning: str
    kind: Literal["counter", "gauge", "histogram"] = "counter"
    labels: tuple[str, ...] = ()
    values: Mapping[tuple[str, ...], float] = Factory(dict)
    """By the values of the labels."""
    histograms: Mapping[tuple[str, ...], Histogram] = Factory(dict)
    """The same for a histogram."""
