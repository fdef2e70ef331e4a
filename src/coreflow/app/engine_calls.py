"""Counts of the calls of an engine."""

from collections import Counter

from attrs import define, field

from coreflow.domain.measures import Histogram

Labels = tuple[str, ...]


@define(eq=False)
class EngineCalls:
    """Counts calls of the engine, by method and path without names, and how they were answered."""

    counts: Counter[Labels] = field(factory=Counter)
    seconds: dict[Labels, Histogram] = field(factory=dict)

    def called(self, method: str, path: str, code: str, seconds: float) -> None:
        """One call has ended."""
        self.counts[method, path, code] += 1
        self.seconds[method, path] = self.seconds.get((method, path), Histogram()).after(seconds)
