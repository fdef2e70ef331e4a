"""An archive with a large object on its way from a Corestore to Cloudly, and on to an empty Corestore.

Needs Node (`scripts/node-harness`), and room for six times the object on the disk of temporary files. Stand-ins and what
moves the objects are processes of their own, see `tests.integration.archive_bench`. Each row of ours is a new process.

The reference is a plain copy of the large object: a download into a file with aiohttp, over loopback. It does neither
of what ours cannot do without: every byte is hashed twice, and travels as base64 in JSON, which Cloudly's side writes and
reads in JavaScript; a slice waits for the answer to the one before.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import trio
from tests.integration.archive_bench import (
    AGAIN_LIMIT,
    MEMORY_LIMIT,
    MIB,
    ArchiveBench,
    Moved,
    open_archive_bench,
)
from tests.integration.corestore_server import CorestoreServer
from tests.integration.node_harness import _missing

from benchmarks.table import Row

LARGE_BYTES = 1024 * MIB
SMALL = 300
"""Objects beside the large one."""
FLIPPED_BYTES = 32 * MIB
"""Of the large object in which bits are changed: that takes a dozen transfers."""
COPIES = 3
RATIO_LIMIT = 60.0


async def _measure(folder: Path) -> list[Row]:
    async with open_archive_bench(folder, LARGE_BYTES, SMALL) as bench:
        await bench.copy()  # so that what is measured is in the memory of the machine
        copies = [(await bench.copy()).seconds for _ in range(COPIES)]
        there = await bench.push()
        back = await bench.pull(target := await bench.empty())
        await _expect_whole(bench, target)
        copies += [(await bench.copy()).seconds for _ in range(COPIES)]
        cut_there = await bench.push_with_cuts()
        cut_back = await bench.pull_with_cuts(target := await bench.empty())
        await _expect_whole(bench, target)
    async with open_archive_bench(folder / "flips", FLIPPED_BYTES, SMALL) as flipped:
        await flipped.refuse_flips()
    whole = there.sent_bytes
    unit = statistics.median(copies)
    return [
        _row("plain copy", Moved(seconds=unit), unit, bench, f"median of {len(copies)}: the reference"),
        *_rows("push", there, unit, bench),
        *_rows("pull", back, unit, bench),
        *_cut_rows("push, cut", cut_there, cut_there.sent_bytes - whole, unit, bench),
        *_cut_rows("pull, cut", cut_back, cut_back.fetched_bytes - whole, unit, bench),
    ]


async def _expect_whole(bench: ArchiveBench, corestore: CorestoreServer) -> None:
    if not await bench.is_whole(corestore):
        raise AssertionError("what was moved is not what is there")


def _rows(case: str, moved: Moved, unit: float, bench: ArchiveBench) -> list[Row]:
    """Time and memory."""
    if moved.status != "completed":
        raise AssertionError(f"{case}: {moved.error}")
    note = f"{moved.cpu_seconds:.1f} s of it are work of ours"
    memory = Row(
        case="  memory",
        milliseconds=moved.seconds * 1000,
        ratio=moved.grown_bytes / MEMORY_LIMIT,
        limit=1.0,
        note=f"{moved.grown_bytes / 1e6:.0f} MB more at most, in units of {MEMORY_LIMIT / 1e6:g} MB",
    )
    return [_row(case, moved, unit, bench, note, RATIO_LIMIT), memory]


def _cut_rows(case: str, moved: Moved, again: int, unit: float, bench: ArchiveBench) -> list[Row]:
    """Time, memory, and what travelled twice."""
    twice = Row(
        case="  twice",
        milliseconds=moved.seconds * 1000,
        ratio=again / AGAIN_LIMIT,
        limit=1.0,
        note=f"{again / 1e6:.1f} MB to or from Cloudly once more, in units of {AGAIN_LIMIT / 1e6:.1f} MB",
    )
    return [*_rows(case, moved, unit, bench), twice]


def _row(
    case: str, moved: Moved, unit: float, bench: ArchiveBench, note: str, limit: float | None = None
) -> Row:
    rate = bench.content.large_bytes / moved.seconds / 1e6
    return Row(
        case=case,
        milliseconds=moved.seconds * 1000,
        ratio=moved.seconds / unit,
        limit=limit,
        note=f"{rate:.0f} MB/s; {note}",
    )


def run() -> list[Row]:
    """Measure; one row per figure. What goes wrong otherwise is an exception."""
    if missing := _missing():
        sys.exit(f"benchmarks: {missing}")
    with tempfile.TemporaryDirectory(prefix="coreflow-benchmark-") as folder:
        return trio.run(_measure, Path(folder))
