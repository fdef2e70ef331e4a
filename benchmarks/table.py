"""Rows of figures, as a table."""

from collections.abc import Iterable, Sequence

from attrs import frozen


@frozen(kw_only=True)
class Row:
    """One measured case: how long, how many times the reference, and how many times it may be."""

    case: str
    milliseconds: float
    ratio: float
    limit: float | None = None
    calls: str = ""
    note: str = ""

    @property
    def is_missed(self) -> bool:
        """Whether the case took longer than it may."""
        return self.limit is not None and self.ratio > self.limit


def lines(title: str, rows: Iterable[Row]) -> Iterable[str]:
    """The table as text."""
    cells: list[Sequence[str]] = [("case", "ms", "ratio", "limit", "", "calls", "what")]
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:g}"
        verdict = "" if row.limit is None else "MISSED" if row.is_missed else "ok"
        ratio = f"{row.ratio:.3f}"
        cells.append((row.case, f"{row.milliseconds:.1f}", ratio, limit, verdict, row.calls, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    yield title
    for line in cells:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
