"""What everybody promises who keeps copies of archive objects: one suite, in memory and for Cloudly on the network.

The latter is our adapter on a connection to a stand-in that is built with the real npm packages; it is wiped before each
test.
"""

import hashlib
import json
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import pytest
import trio
from tests.integration.node_harness import FOLDER, TIMEOUT, Cloudly, Json, NodeError, needs_node
from tests.integration.test_cloudly_contract import new_port

from coreflow.adapters.cloudly import RetryPolicy
from coreflow.adapters.memory.cloudly import MemoryReplica
from coreflow.domain.backup.replication import SLICE_BYTES, Copy, Receipt
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ports import ReplicaPort

pytestmark = pytest.mark.guest

DATA = bytes(range(1, 11))
PIECE = 3
SLICES = 4
"""Of `DATA`, in pieces of `PIECE`."""


def flipped(data: bytes) -> bytes:
    """With one bit changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


class Side(Protocol):
    """The other end of a port."""

    @property
    def port(self) -> ReplicaPort:
        """The port under test."""
        ...

    async def contents(self) -> dict[str, bytes]:
        """What is kept in whole."""
        ...

    async def disturb(
        self, *, before: Iterable[int] = (), after: Iterable[int] = (), flip: Iterable[int] = ()
    ) -> None:
        """Count slices from 1 on again. Cut before or after some of them have arrived, or change a bit of them."""
        ...

    async def spoil(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Change what is kept, behind everybody's back."""
        ...

    async def list_in_pages_of(self, count: int) -> None:
        """So many copies are listed at once."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.port = MemoryReplica()

    async def contents(self) -> dict[str, bytes]:
        return self.port.contents

    async def disturb(
        self, *, before: Iterable[int] = (), after: Iterable[int] = (), flip: Iterable[int] = ()
    ) -> None:
        self.port.slices = 0
        self.port.cut_before, self.port.cut_after = set(before), set(after)
        self.port.damage = dict.fromkeys(flip, flipped)

    async def spoil(self, name: str, change: Callable[[bytes], bytes]) -> None:
        self.port.spoil(name, change)

    async def list_in_pages_of(self, count: int) -> None:
        """It knows no pages."""


class SharedCloudly(Cloudly):
    """A stand-in for many tests, one after another. It does what it is told; of its events nobody hears."""

    def __init__(self, node: subprocess.Popen[bytes]) -> None:
        self._node = node
        self._answers: SimpleQueue[Json] = SimpleQueue()
        self._busy = threading.Lock()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        ready = self._answers.get(timeout=TIMEOUT)
        assert "port" in ready, "the stand-in did not start"
        self.port = ready["port"]

    async def ask(self, name: str, **arguments: Any) -> Any:
        """See `NodePeer`."""
        return await trio.to_thread.run_sync(self._ask, {"id": 0, "do": name, **arguments})

    async def wipe(self) -> None:
        """Hang up on everybody, and be as it was when it started."""
        await self.drop()
        with trio.fail_after(TIMEOUT):
            while await self.connections():  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
        await self.lose()
        await self.disturb(slices=0, cutBefore=[], cutAfter=[], flip=[])
        await self.know(pageSize=1000)
        await self.revoke()

    def end(self) -> None:
        """End it without a goodbye."""
        self._node.kill()
        self._listener.join()

    def _ask(self, command: Json) -> Any:
        assert self._node.stdin is not None
        with self._busy:
            self._node.stdin.write(json.dumps(command).encode() + b"\n")
            self._node.stdin.flush()
            answer = self._answers.get(timeout=TIMEOUT)
        if "error" in answer:
            raise NodeError(answer["error"], answer["data"])
        return answer["result"]

    def _listen(self) -> None:
        assert self._node.stdout is not None
        for line in self._node.stdout:
            document = json.loads(line)
            if document.get("event", "ready") == "ready":
                self._answers.put(document)
        self._answers.put({"error": "it has ended", "data": None})


class NetworkSide:
    def __init__(self, cloudly: Cloudly) -> None:
        self.cloudly = cloudly
        self.port = new_port(cloudly, retry=RetryPolicy(first=0.02, longest=0.02))

    async def contents(self) -> dict[str, bytes]:
        return {name: data for name, (data, _) in (await self.cloudly.copies()).items()}

    async def disturb(
        self, *, before: Iterable[int] = (), after: Iterable[int] = (), flip: Iterable[int] = ()
    ) -> None:
        await self.cloudly.disturb(slices=0, cutBefore=list(before), cutAfter=list(after), flip=list(flip))

    async def spoil(self, name: str, change: Callable[[bytes], bytes]) -> None:
        await self.cloudly.spoil(name, change((await self.contents())[name]))

    async def list_in_pages_of(self, count: int) -> None:
        await self.cloudly.know(pageSize=count)


@pytest.fixture(scope="module")
def cloudly() -> Iterator[SharedCloudly]:
    """The stand-in of all tests, with whatever the last one left in it."""
    command = ["node", "cloudly.mjs", "{}"]
    with subprocess.Popen(command, cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        shared = SharedCloudly(node)
        try:
            yield shared
        finally:
            shared.end()


@pytest.fixture(params=["memory", pytest.param("cloudly", marks=needs_node)])
def place(request: pytest.FixtureRequest) -> SharedCloudly | None:
    """Where copies are kept: nowhere (in memory), or at the stand-in."""
    return request.getfixturevalue("cloudly") if request.param == "cloudly" else None


@pytest.fixture
async def side(place: SharedCloudly | None, nursery: trio.Nursery) -> AsyncIterator[Side]:
    """Somebody who keeps nothing yet, and the other end of it."""
    if place is None:
        yield MemorySide()
        return
    await place.wipe()
    side = NetworkSide(place)
    nursery.start_soon(side.port.run)
    await side.port.link.wait()
    yield side
    nursery.cancel_scope.cancel()


def copy_of(data: bytes, name: str = "packs/a") -> Copy:
    """A copy with this content."""
    return Copy(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


async def send(
    port: ReplicaPort,
    copy: Copy,
    data: bytes,
    *,
    piece: int = PIECE,
    offset: int = 0,
    backup_id: str = "",
) -> Receipt:
    """Hand over everything from an offset on, and what was lost on the way once more."""
    while True:
        end = min(offset + piece, copy.size)
        try:
            receipt = await port.put_slice(
                copy, offset, data[offset:end], final=end == copy.size, backup_id=backup_id
            )
        except Unavailable:
            await trio.sleep(0.02)
            continue
        if end == copy.size or receipt.stored:
            return receipt
        offset = receipt.received


async def fetch(port: ReplicaPort, name: str, *, piece: int = PIECE) -> bytes:
    """All of a copy, and what was lost on the way once more."""
    data = b""
    while True:
        try:
            got = await port.get_slice(name, len(data), piece)
        except Unavailable:
            await trio.sleep(0.02)
            continue
        data += got.data
        assert got.final == (len(data) == got.size)
        if got.final:
            return data


async def test_the_life_of_a_copy(side: Side) -> None:
    """It is not there, it arrives in slices, it is there, and it is handed out in slices."""
    copy = copy_of(DATA)
    assert await side.port.copies() == ()
    for number in range(SLICES - 1):
        start = number * PIECE
        receipt = await side.port.put_slice(copy, start, DATA[start : start + PIECE], final=False)
        assert receipt == Receipt(start + PIECE, stored=False)
        assert await side.port.copies() == ()
    assert await side.port.put_slice(copy, 9, DATA[9:], final=True) == Receipt(10, stored=True)
    assert await side.port.copies() == (copy,)
    assert await side.contents() == {copy.name: DATA}
    for piece in (1, PIECE, 10, 11):
        assert await fetch(side.port, copy.name, piece=piece) == DATA


async def test_a_copy_that_is_there_is_not_taken_again(side: Side) -> None:
    """Whatever slice of it comes once more, it is there; another content under its name is refused."""
    copy = copy_of(DATA)
    await send(side.port, copy, DATA)
    assert await side.port.put_slice(copy, 0, DATA[:PIECE], final=False) == Receipt(10, stored=True)
    assert await side.port.put_slice(copy, 9, DATA[9:], final=True) == Receipt(10, stored=True)
    with pytest.raises(Refused):
        await side.port.put_slice(copy_of(DATA[:5]), 0, DATA[:5], final=True)
    assert await side.contents() == {copy.name: DATA}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_transfer_goes_on_after_a_cut(side: Side, when: str) -> None:
    """Wherever the connection ends, before a slice arrived or after, the same slice is sent once more, and all is well."""
    for number in range(1, SLICES + 1):
        copy = copy_of(DATA, f"cut/{number}")
        await side.disturb(**{when: [number]})
        assert await send(side.port, copy, DATA) == Receipt(10, stored=True)
        await side.disturb(**{when: [number]})
        assert await fetch(side.port, copy.name) == DATA
    assert len(await side.port.copies(prefix="cut/")) == SLICES


async def test_somebody_else_goes_on_where_a_transfer_ended(side: Side) -> None:
    """Whoever begins anew may begin at the start, where it ended, or anywhere between; a gap is not taken."""
    for start in range(8):
        copy = copy_of(DATA, f"resumed/{start}")
        await side.port.put_slice(copy, 0, DATA[:7], final=False)
        assert await side.port.put_slice(copy, 8, DATA[8:], final=True) == Receipt(7, stored=False)
        assert await send(side.port, copy, DATA, offset=start) == Receipt(10, stored=True)
        assert (await side.contents())[copy.name] == DATA


async def test_a_slice_may_come_again(side: Side) -> None:
    """Nothing that has arrived is lost by that."""
    copy = copy_of(DATA)
    for offset, size, received in ((0, 3, 3), (0, 3, 3), (3, 3, 6), (0, 3, 6), (2, 5, 7)):
        data = DATA[offset : offset + size]
        receipt = await side.port.put_slice(copy, offset, data, final=False)
        assert receipt == Receipt(received, stored=False)
    assert await side.port.put_slice(copy, 7, DATA[7:], final=True) == Receipt(10, stored=True)
    assert await side.contents() == {copy.name: DATA}


async def test_what_was_changed_on_the_way_is_not_stored(side: Side) -> None:
    """One bit is enough; nothing of it is kept, and the next attempt succeeds."""
    copy = copy_of(DATA)
    for number in range(1, SLICES + 1):
        await side.disturb(flip=[number])
        assert await send(side.port, copy, DATA) == Receipt(0, stored=False)
        assert await side.port.copies() == ()
    await side.disturb()
    assert await send(side.port, copy, DATA) == Receipt(10, stored=True)
    assert await side.contents() == {copy.name: DATA}


async def test_what_ends_too_early_is_not_stored(side: Side) -> None:
    """The size counts, too."""
    assert not (await side.port.put_slice(copy_of(DATA), 0, DATA[:5], final=True)).stored
    assert await side.port.copies() == ()


async def test_what_is_beyond_the_size_is_refused(side: Side) -> None:
    """A slice has to be within the copy."""
    with pytest.raises(Refused):
        await side.port.put_slice(copy_of(DATA[:5]), 3, DATA[3:], final=True)
    assert await side.port.copies() == ()


async def test_another_content_begins_anew(side: Side) -> None:
    """What arrived of one copy is not taken for another one of the same name."""
    await side.port.put_slice(copy_of(DATA), 0, DATA[:5], final=False)
    other = bytes(reversed(DATA))
    receipt = await side.port.put_slice(copy_of(other), 5, other[5:], final=True)
    assert receipt == Receipt(0, stored=False)
    assert await send(side.port, copy_of(other), other) == Receipt(10, stored=True)
    assert await side.contents() == {"packs/a": other}


async def test_an_unknown_name_is_refused(side: Side) -> None:
    """A copy that is not there, or only in part, cannot be had."""
    await side.port.put_slice(copy_of(DATA), 0, DATA[:5], final=False)
    for name in ("packs/a", "packs/b", ""):
        with pytest.raises(Refused):
            await side.port.get_slice(name, 0, 10)


async def test_beyond_the_end_is_refused(side: Side) -> None:
    """At the end there is nothing more; behind it there is nothing at all."""
    await send(side.port, copy_of(DATA), DATA)
    got = await side.port.get_slice("packs/a", 10, 5)
    assert (got.data, got.size, got.final) == (b"", 10, True)
    with pytest.raises(Refused):
        await side.port.get_slice("packs/a", 11, 5)


async def test_an_empty_copy(side: Side) -> None:
    """It is one slice without bytes."""
    copy = copy_of(b"")
    assert await send(side.port, copy, b"") == Receipt(0, stored=True)
    assert await side.port.copies() == (copy,)
    assert await fetch(side.port, copy.name) == b""


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_slices_of_full_size(side: Side, extra: int) -> None:
    """Copies around a multiple of the largest slice."""
    data = bytes(range(256)) * (2 * SLICE_BYTES // 256) + b"x"
    data = data[: 2 * SLICE_BYTES + extra]
    copy = copy_of(data)
    receipt = await send(side.port, copy, data, piece=SLICE_BYTES)
    assert receipt == Receipt(len(data), stored=True)
    assert await fetch(side.port, copy.name, piece=SLICE_BYTES) == data


async def test_a_slice_that_is_too_large(side: Side) -> None:
    """The largest slice is a promise to the peer."""
    data = bytes(SLICE_BYTES + 1)
    with pytest.raises(ValueError, match="slice"):
        await side.port.put_slice(copy_of(data), 0, data, final=True)


@pytest.mark.parametrize("page", [1, 2, 5, 6])
async def test_copies_are_listed_whole(side: Side, page: int) -> None:
    """However many are listed at once; by prefix of the name, by backup, and by both."""
    await side.list_in_pages_of(page)
    copies = {name: copy_of(name.encode(), name) for name in ("a/1", "a/2", "b/1", "b/2", "c")}
    for name, copy in copies.items():
        await send(side.port, copy, name.encode(), backup_id=f"backup-{name[-1]}")
    assert set(await side.port.copies()) == set(copies.values())
    listed = partial(_names, side.port)
    assert await listed(prefix="a/") == {"a/1", "a/2"}
    assert await listed(prefix="c") == {"c"}
    assert await listed(prefix="d") == set()
    assert await listed(backup_id="backup-1") == {"a/1", "b/1"}
    assert await listed(backup_id="backup-1", prefix="b/") == {"b/1"}
    assert await listed(backup_id="none") == set()
    await side.port.put_slice(copies["c"], 0, b"c", final=True, backup_id="backup-1")
    assert await listed(backup_id="backup-1") == {"a/1", "b/1", "c"}
    assert await listed(backup_id="backup-c") == {"c"}


async def _names(port: ReplicaPort, *, prefix: str = "", backup_id: str = "") -> set[str]:
    return {copy.name for copy in await port.copies(prefix=prefix, backup_id=backup_id)}


async def test_names_are_any_text(side: Side) -> None:
    """Slashes, spaces and what is not ASCII included."""
    names = ["a/b/../c", "ä ö", "packs/é.pack@" + "0" * 64, '"quoted"']
    for name in names:
        await send(side.port, copy_of(DATA, name), DATA)
        assert await fetch(side.port, name) == DATA
    assert await _names(side.port) == set(names)


async def test_what_was_changed_later_can_be_seen(side: Side) -> None:
    """Whoever keeps copies hands out what it has: who fetches has to look at size and digest."""
    copy = copy_of(DATA)
    await send(side.port, copy, DATA)
    await side.spoil(copy.name, flipped)
    assert await fetch(side.port, copy.name) == flipped(DATA)
    await side.spoil(copy.name, lambda data: data[:4])
    assert len(await fetch(side.port, copy.name)) == 4


async def test_many_at_once(side: Side) -> None:
    """Transfers do not get into each other's way."""
    contents = {f"many/{n}": bytes([n]) * 50 for n in range(10)}
    async with trio.open_nursery() as nursery:
        for name, data in contents.items():
            nursery.start_soon(partial(send, side.port, copy_of(data, name), data, piece=7))
    assert await side.contents() == contents
