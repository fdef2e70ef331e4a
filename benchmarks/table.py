"""Rows of figures, as a table."""

from collections.abc import Iterable, Sequence

from attrs import frozen


@frozen(kw_only=True)
class Row:
    """One measured case: how long, how many times the reference, and how many times or how long it may be."""

    case: str
    milliseconds: float
    ratio: float
    limit: float | None = None
    limit_milliseconds: float | None = None
    calls: str = ""
    note: str = ""

    @property
    def is_missed(self) -> bool:
        """Return whether the case took longer than it may."""
        too_slow = self.limit is not None and self.ratio > self.limit
        too_long = self.limit_milliseconds is not None and self.milliseconds > self.limit_milliseconds
        return too_slow or too_long

    @property
    def limits(self) -> str:
        """Return what it is held to, if anything."""
        ratio = [] if self.limit is None else [f"{self.limit:g}"]
        return ", ".join(
            ratio if self.limit_milliseconds is None else [*ratio, f"{self.limit_milliseconds:g} ms"]
        )


def lines(title: str, rows: Iterable[Row]) -> Iterable[str]:
    """The table as text."""
    cells: list[Sequence[str]] = [("case", "ms", "ratio", "limit", "", "calls", "what")]
    for row in rows:
        verdict = "" if not row.limits else "MISSED" if row.is_missed else "ok"
        ratio = f"{row.ratio:.3f}"
        cells.append((row.case, f"{row.milliseconds:.1f}", ratio, row.limits, verdict, row.calls, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    yield title
    for line in cells:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
