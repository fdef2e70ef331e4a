"""What every journal promises: one suite, for memory and for the file. What only the file does stands below."""

import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs

from coreflow.adapters.journal import (
    FILE_NAME,
    Limits,
    MemoryJournal,
    SqliteJournal,
    open_sqlite_journal,
    read_file,
)
from coreflow.app.journaling import follow
from coreflow.domain.errors import Unavailable
from coreflow.domain.journal import INTERRUPTED, Entry, Query, ended, history_document, history_in
from coreflow.domain.ports import Journal

MIB = 1024 * 1024
NOW = 1_700_000_000.0
SOON = 0.05
"""Between two tries of a file that cannot be written."""


def entry(name: str = "web", time: float = NOW, **others: Any) -> Entry:
    """An action on a service that begins."""
    begun = Entry(
        time=time,
        action="create",
        kind="service",
        name=name,
        owner=f"id-{name}",
        reason="new",
        asked=("file",),
        pass_id=3,
    )
    return evolve(begun, **others)


def clock() -> float:
    """The time of all that is noted here."""
    return NOW


def opened(folder: Path, limits: Limits | None = None) -> AbstractAsyncContextManager[SqliteJournal]:
    """The journal of a folder, which soon tries again what it could not do."""
    return open_sqlite_journal(folder, limits or Limits(), clock, again=SOON)


@pytest.fixture(params=["memory", "file"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    """An empty journal."""
    if request.param == "memory":
        yield MemoryJournal()
        return
    async with opened(tmp_path) as journal:
        yield journal


async def add(journal: Journal, *entries: Entry, outcome: str = "applied") -> None:
    """Note actions from begin to end."""
    for one in entries:
        journal.end(journal.begin(one), ended(one, outcome, "", one.time + 1.5))
    await journal.kept()


async def names(journal: Journal, query: Query | None = None) -> list[str]:
    """The names in an answer."""
    return [record.entry.name for record in (await journal.read(query or Query())).records]


async def test_what_was_noted_is_read(journal: Journal) -> None:
    """An entry comes back as it was written, and so does its document."""
    noted = evolve(entry(), reason="image ü → x", detail="why", asked=("push", "event"))
    ticket = journal.begin(noted)
    done = ended(noted, "failed", "engine: no", NOW + 2)
    journal.end(ticket, done)
    await journal.kept()
    history = await journal.read(Query())
    assert [record.entry for record in history.records] == [done]
    assert history.last == history.records[0].number
    assert history_in(history_document(history)) == history
    assert not history.problem
    assert not journal.problem


async def test_nothing_is_there_at_first(journal: Journal) -> None:
    """An empty journal has an answer, too."""
    history = await journal.read(Query())
    assert (history.records, history.last, history.problem) == ((), 0, "")


async def test_an_action_is_told_once_it_has_ended(journal: Journal) -> None:
    """Not before, not twice, and not at all where nothing came of it."""
    first, second = journal.begin(entry("a")), journal.begin(entry("b"))
    await journal.kept()
    assert await names(journal) == []
    journal.end(second, None)
    journal.end(first, ended(entry("a"), "applied", "", NOW))
    journal.end(first, ended(entry("a"), "failed", "", NOW))
    await journal.kept()
    history = await journal.read(Query())
    assert [(r.entry.name, r.entry.outcome) for r in history.records] == [("a", "applied")]


async def test_the_last_ones_the_oldest_first(journal: Journal) -> None:
    """A limit counts from the end; numbers only grow."""
    await add(journal, *(entry(f"s{number}") for number in range(60)))
    history = await journal.read(Query(limit=3))
    assert [record.entry.name for record in history.records] == ["s57", "s58", "s59"]
    assert len((await journal.read(Query())).records) == 50
    numbers = [record.number for record in (await journal.read(Query(limit=1000))).records]
    assert len(numbers) == 60
    assert numbers == sorted(set(numbers))
    later = await journal.read(Query(after=numbers[-3]))
    assert [record.entry.name for record in later.records] == ["s58", "s59"]
    assert later.last == numbers[-1]


async def test_of_one_service(journal: Journal) -> None:
    """By name or id, and with what it owns; base services share an owner, and are told apart by name."""
    await add(
        journal,
        entry("shop"),
        entry("shop-5ec3e7", kind="secret", owner="id-shop"),
        entry("blog"),
        entry("coretraffic", owner="base"),
        entry("corelog", owner="base"),
    )
    assert await names(journal, Query(service="shop")) == ["shop", "shop-5ec3e7"]
    assert await names(journal, Query(service="id-shop")) == ["shop", "shop-5ec3e7"]
    assert await names(journal, Query(service="corelog")) == ["corelog"]
    assert await names(journal, Query(service="base")) == []
    assert await names(journal, Query(service="sho%")) == []


async def test_since_a_time(journal: Journal) -> None:
    """What began before is left out."""
    await add(journal, entry("old"), entry("new", time=NOW + 60))
    assert await names(journal, Query(since=NOW + 1)) == ["new"]
    assert await names(journal, Query(since=NOW)) == ["old", "new"]


async def test_following(journal: Journal) -> None:
    """Whoever follows gets what is there, and then everything once."""
    await add(journal, entry("a"))
    seen: list[str] = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            async for history in follow(journal, Query(), soon):
                seen.extend(record.entry.name for record in history.records)
                if "d" in seen:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        for name in "bcd":
            await trio.sleep(0.03)
            await add(journal, entry(name))
        nursery.cancel_scope.deadline = trio.current_time() + 10
    assert seen == ["a", "b", "c", "d"]


async def test_it_is_bounded(journal: Journal) -> None:
    """Far more entries than it keeps cost no more than it may have, and the last one is there."""
    for number in range(2500):
        await add(journal, entry(f"s{number}"))
    assert (await names(journal))[-1] == "s2499"
    assert len((await journal.read(Query(limit=1000))).records) == 1000


# --- what only the file does


def files_in(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def soon(_: float) -> None:
    """A short sleep, whatever was asked for."""
    await trio.sleep(0.01)


async def eventually(look: Callable[[], object]) -> None:
    """Look until it is so."""
    with trio.fail_after(10):
        while not look():  # noqa: ASYNC110 - a thread has no event for it
            await trio.sleep(0.01)


def size_of(folder: Path) -> int:
    """Bytes of everything in the folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


async def test_what_was_noted_outlives_the_process(tmp_path: Path) -> None:
    """A journal that is opened again has the entries, goes on counting, and is a file for its owner alone."""
    async with opened(tmp_path) as journal:
        await add(journal, entry("a"))
        journal.begin(entry("b"))
        await journal.kept()
    assert [r.entry.name for r in read_file(tmp_path / FILE_NAME, Query()).records] == ["a", "b"]
    async with opened(tmp_path) as journal:
        await add(journal, entry("c"))
        history = await journal.read(Query())
    assert [(r.number, r.entry.name, r.entry.outcome) for r in history.records] == [
        (1, "a", "applied"),
        (2, "b", INTERRUPTED),
        (3, "c", "applied"),
    ]
    assert history.kept == str(tmp_path / FILE_NAME)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
    assert files_in(tmp_path) == [FILE_NAME]


async def test_two_processes_write_the_same_file(tmp_path: Path) -> None:
    """A command beside a daemon: both are in the file, and neither takes the other for dead."""
    async with opened(tmp_path) as daemon:
        ticket = daemon.begin(entry("slow"))
        await daemon.kept()
        async with opened(tmp_path) as command:
            await add(command, entry("quick"))
            assert await names(daemon) == ["quick"]
        daemon.end(ticket, ended(entry("slow"), "applied", "", NOW))
        await daemon.kept()
        history = await daemon.read(Query())
    assert [(r.entry.name, r.entry.outcome) for r in history.records] == [
        ("quick", "applied"),
        ("slow", "applied"),
    ]


@pytest.mark.parametrize("text", ["r", "é", "𝄞"])
async def test_it_never_grows_past_its_limit(tmp_path: Path, text: str) -> None:
    """Whatever is written, however long, while somebody reads: database, log and index together stay below."""
    limit = Limits(bytes=MIB)
    largest = 0
    async with opened(tmp_path, limit) as journal:
        for number in range(1500):
            noted = entry(f"s{number}", reason=text * 1000)
            journal.end(journal.begin(noted), ended(noted, "failed", text * 1000, NOW))
            if number % 10 == 0:
                await journal.kept()
            largest = max(largest, size_of(tmp_path))
            if number % 100 == 0:
                await journal.read(Query())
        await eventually(lambda: not journal._waiting)
        assert (await names(journal))[-1] == "s1499"
        assert not journal.problem
    assert MIB // 4 < largest <= MIB


async def test_a_lower_limit_makes_the_file_smaller(tmp_path: Path) -> None:
    """The newest entries stay."""
    async with opened(tmp_path, Limits(bytes=4 * MIB)) as journal:
        for number in range(2000):
            noted = entry(f"s{number}", reason="r" * 1000)
            journal.end(journal.begin(noted), ended(noted, "applied", "", NOW))
            if number % 100 == 0:
                await eventually(lambda: not journal._waiting)
    assert size_of(tmp_path) > MIB
    async with opened(tmp_path, Limits(bytes=MIB)) as journal:
        await add(journal, entry("last"))
        await eventually(lambda: not journal._waiting)
        assert size_of(tmp_path) <= MIB
        assert (await names(journal))[-2:] == ["s1999", "last"]


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    """By the time of the entries, whenever the file is opened, and now and then."""
    async with opened(tmp_path) as journal:
        await add(journal, *(entry(f"old{n}", time=NOW - 1000) for n in range(200)), entry("new"))
    async with opened(tmp_path, Limits(seconds=100)) as journal:
        await eventually(lambda: journal._last >= 0 and not journal.problem and journal._thread.is_alive())
        await add(journal, entry("newer"))
        assert await names(journal) == ["new", "newer"]


Damage = Callable[[Path], AbstractContextManager[None]]


@contextmanager
def garbage(folder: Path) -> Iterator[None]:
    """No database at all."""
    (folder / FILE_NAME).write_bytes(os.urandom(20_000))
    yield
    (folder / FILE_NAME).unlink()


@contextmanager
def torn(folder: Path) -> Iterator[None]:
    """A database with holes."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        db.execute("create table t (x)")
        db.executemany("insert into t values (?)", [("x" * 1000,)] * 100)
        db.commit()
    data = bytearray((folder / FILE_NAME).read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    (folder / FILE_NAME).write_bytes(data)
    yield
    (folder / FILE_NAME).unlink()


@contextmanager
def newer(folder: Path) -> Iterator[None]:
    """The file of a version to come."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        db.execute("pragma user_version = 99")
    yield
    (folder / FILE_NAME).unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another process has the file to itself."""
    with closing(sqlite3.connect(folder / FILE_NAME, check_same_thread=False)) as db:
        db.execute("pragma locking_mode = exclusive")
        db.execute("begin exclusive")
        yield


@contextmanager
def no_folder(folder: Path) -> Iterator[None]:
    """A file is where the folder should be."""
    folder.rmdir()
    folder.write_text("")
    yield
    folder.unlink()
    folder.mkdir()


@pytest.mark.parametrize("damage", [garbage, torn, newer, locked, no_folder])
async def test_a_file_that_cannot_be_written(tmp_path: Path, damage: Damage) -> None:
    """It is said once; entries are in memory meanwhile, and in the file as soon as that is possible again."""
    folder = tmp_path / "state"
    folder.mkdir()
    with capture_logs() as lines:
        damaged = damage(folder)
        damaged.__enter__()
        async with opened(folder) as journal:
            await eventually(lambda: journal.problem)
            with trio.fail_after(5):
                await add(journal, entry("a"), entry("b"))
            await trio.sleep(4 * SOON)
            history = await journal.read(Query())
            assert [record.entry.name for record in history.records] == ["a", "b"]
            assert history.problem
            assert [line["event"] for line in lines] == ["the journal is kept in memory only"]
            damaged.__exit__(None, None, None)
            await eventually(lambda: not journal.problem and not journal._waiting)
            await add(journal, entry("c"))
            assert await names(journal) == ["a", "b", "c"]
    assert [line["event"] for line in lines][1:] == ["the journal is written again"]
    assert [r.entry.name for r in read_file(folder / FILE_NAME, Query()).records] == ["a", "b", "c"]


async def test_a_full_disk(tmp_path: Path) -> None:
    """Said once, and no entry is lost when there is room again."""
    with capture_logs() as lines:
        async with opened(tmp_path) as journal:
            await add(journal, entry("a"))
            ticket = journal.begin(entry("long"))
            await journal.kept()
            with full(tmp_path / FILE_NAME):
                for number in range(40):
                    await add(journal, entry(f"b{number}", reason="r" * 1000))
                await eventually(lambda: journal.problem)
                assert (await names(journal))[-1] == "b39"
                assert "long" not in await names(journal), "it goes on, although nobody can write that"
                journal.end(ticket, ended(entry("long"), "applied", "", NOW))
                assert (await names(journal)).count("long") == 1
                async with opened(tmp_path) as other:
                    await other.read(Query())  # who opens the file takes nobody for dead who cannot write
            await eventually(lambda: not journal.problem and not journal._waiting)
            told = [(r.entry.name, r.entry.outcome) for r in (await journal.read(Query(limit=100))).records]
            assert len(told) == 42
            assert [outcome for name, outcome in told if name == "long"] == ["applied"]
    events = [line["event"] for line in lines]
    assert events[0] == "the journal is kept in memory only"
    assert events[-1] == "the journal is written again"
    assert events.count("the journal is kept in memory only") <= 2, "once by each"


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Let nobody in this process make a file larger, as a disk would that is full."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_nobody_waits_for_a_disk_that_hangs(tmp_path: Path) -> None:
    """A moment once, then not at all; what was noted meanwhile is written when the disk answers, as far as there is room."""
    async with opened(tmp_path) as journal:
        await add(journal, entry("a"))
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as db:
            db.execute("begin immediate")  # for the thread, the same as a disk that takes its time
            began = trio.current_time()
            for number in range(3000):
                await add(journal, entry(f"s{number}"))
            assert trio.current_time() - began < 5
            assert (await names(journal))[0] == "a" or journal.problem
            db.execute("rollback")
        await eventually(lambda: not journal._waiting and not journal.problem)
        assert (await names(journal))[-1] == "s2999"


async def test_a_reader_that_never_ends(tmp_path: Path) -> None:
    """Somebody who keeps the log from being emptied does not make it grow past its share."""
    async with opened(tmp_path, Limits(bytes=MIB)) as journal:
        await add(journal, entry("a"))
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as db:
            db.execute("begin")
            db.execute("select count(*) from entries").fetchone()
            for number in range(600):
                await add(journal, entry(f"s{number}", reason="r" * 1000))
                assert size_of(tmp_path) <= MIB
            await eventually(lambda: journal.problem)
        await eventually(lambda: not journal.problem and not journal._waiting)
        assert (await names(journal))[-1] == "s599"


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    """A reader makes no file, and names the one that it looked for."""
    with pytest.raises(Unavailable, match=FILE_NAME):
        read_file(tmp_path / FILE_NAME, Query())
    (tmp_path / FILE_NAME).write_bytes(b"x" * 5000)
    with pytest.raises(Unavailable, match="not a database"):
        read_file(tmp_path / FILE_NAME, Query())
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


async def test_no_thread_is_left(tmp_path: Path) -> None:
    """A journal that is closed has written everything and is gone."""
    async with opened(tmp_path) as journal:
        for number in range(50):
            one = entry(f"s{number}")
            journal.end(journal.begin(one), ended(one, "applied", "", NOW))
    assert "journal" not in {thread.name for thread in threading.enumerate()}
    assert len(read_file(tmp_path / FILE_NAME, Query(limit=100)).records) == 50
