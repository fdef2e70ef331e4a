"""An archive on its way to Cloudly and back, by a process of its own: how much memory that takes, and what goes wrong.

Corestores and Cloudly are stand-ins in processes, the latter on the real npm packages. `python -m benchmarks archive` does
the same with ten times as much, and takes the time.
"""

from pathlib import Path

from tests.integration.archive_bench import AGAIN_LIMIT, MEMORY_LIMIT, MIB, Moved, open_archive_bench
from tests.integration.node_harness import needs_node

pytestmark = needs_node

MANIFEST_LIMIT = MIB


def check(moved: Moved) -> None:
    """It came through, and in little memory."""
    assert moved.status == "completed", moved
    assert moved.grown_bytes < MEMORY_LIMIT


async def test_a_large_object_takes_little_memory(tmp_path: Path) -> None:
    """There and back, nothing twice; what is there is not sent again."""
    async with open_archive_bench(tmp_path, 96 * MIB, small=100) as bench:
        check(there := await bench.push())
        assert bench.content.bytes < there.sent_bytes < bench.content.bytes + MANIFEST_LIMIT
        target = await bench.empty()
        check(back := await bench.pull(target))
        assert back.fetched_bytes == there.sent_bytes
        assert await bench.is_whole(target)
        assert (await bench.push()).sent_bytes == 0
        assert (await bench.pull(target)).fetched_bytes < MANIFEST_LIMIT


async def test_what_was_cut_goes_on(tmp_path: Path) -> None:
    """Only what was on its way travels again, between Cloudly and us; a Corestore is written to from the beginning."""
    async with open_archive_bench(tmp_path, 24 * MIB, small=20) as bench:
        check(there := await bench.push_with_cuts())
        assert there.sent_bytes < bench.content.bytes + MANIFEST_LIMIT + AGAIN_LIMIT
        assert len(await bench.source.requests(bench.content.large)) == 2
        check(back := await bench.pull_with_cuts(target := await bench.empty()))
        assert len(await bench.cloudly.seen("getIdentityByToken")) == 6, "it was not cut"
        assert back.fetched_bytes < bench.content.bytes + MANIFEST_LIMIT + AGAIN_LIMIT
        assert await bench.is_whole(target)
        target = await bench.empty()
        large = bench.content.large
        await target.fault(kind="cut", path=large, method="PUT", times=1, after_bytes=bench.half)
        check(await bench.pull(target))
        assert await bench.is_whole(target)


async def test_a_changed_bit_is_found(tmp_path: Path) -> None:
    """In the archive, in the copy, and on the way between any two."""
    async with open_archive_bench(tmp_path, 6 * MIB, small=10) as bench:
        await bench.refuse_flips()
