"""Archive objects on their way from one Corestore to Cloudly, and from there to another, as ours moves them.

    python -m tests.integration.archive_bench push|pull|copy --corestore URL --token TOKEN ...

The stand-ins are processes with disks and connections of their own. What moves the objects is a process, too: it does
nothing else, so what its memory grows by is what moving takes. It prints one line of JSON, see `Moved`.

`copy` is what ours is compared with: a download of one object into a file, with aiohttp and nothing around it.
"""

import argparse
import asyncio
import gc
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import aiohttp
import structlog
import trio
from attrs import asdict, define, field, frozen
from tests.integration.corestore_archive import replace_file
from tests.integration.corestore_server import CorestoreServer, start_corestore
from tests.integration.node_harness import Cloudly, start_cloudly

from coreflow.adapters import net
from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.adapters.cloudly.link import LinkOptions, RetryPolicy
from coreflow.adapters.corestore import Corestore
from coreflow.app.progress import NoMeter
from coreflow.app.replication import Replicator
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.replication import SLICE_BYTES, Copy, Manifest, Receipt, Slice
from coreflow.domain.errors import CoreflowError
from coreflow.domain.ids import ServiceId
from coreflow.domain.ports import ReplicaPort

Action = Literal["push", "pull", "copy"]
Json = dict[str, Any]
MIB = 1024 * 1024
SMALL_BYTES = 64 * 1024
"""Of the largest small object."""
MEMORY_LIMIT = 64 * 1000 * 1000
"""Bytes by which the memory of a process may grow while it moves objects of any size."""
AGAIN_LIMIT = 8 * SLICE_BYTES
"""Bytes of content that two cuts may cost: what was on its way at the time."""
SERVICE, BACKUP, SNAPSHOT = ServiceId("svc-large"), "backup-large", "snap-large"
SNAPSHOT_PATH = f"snapshots/{SNAPSHOT}.json"
TIMEOUT = 900.0


# ---------------------------------------------------------------- what is moved


@frozen(kw_only=True)
class Content:
    """What is in an archive with one snapshot."""

    large: str
    """The path of the one large object."""
    large_bytes: int
    bytes: int
    """Of all objects of the snapshot."""
    objects: int


def fill(archive: Path, large_bytes: int, small: int) -> Content:
    """Make the archive of a snapshot of one large and many small files, without anything in memory."""
    scratch = archive.parent / "incomplete"
    draw = random.Random(large_bytes)
    sizes = [large_bytes, *(draw.randrange(1, SMALL_BYTES) for _ in range(small))]
    packs = {_pack(archive, scratch, draw, size): size for size in sizes}
    large, *_ = packs
    index = json.dumps({"packs": packs}).encode()
    digest = hashlib.sha256(index).hexdigest()
    files = [
        {"path": f"{pack}.bin", "type": "file", "mode": 0o644, "uid": 0, "gid": 0, "mtimeNs": 0}
        | {"size": size, "packs": [pack]}
        for pack, size in packs.items()
    ]
    facts = {
        "id": SNAPSHOT,
        "kind": "volume",
        "name": "data",
        "serviceId": SERVICE,
        "createdAt": 0,
        "tags": {},
    }
    whole = json.dumps({**facts, "sizeBytes": sum(sizes), "index": digest, "files": files}).encode()
    documents = {
        f"index/{digest[:2]}/{digest}.json": index,
        SNAPSHOT_PATH: whole,
        "config.json": b"{}",
    }
    for path, content in documents.items():
        replace_file(scratch, archive / path, content)
    total = sum(sizes) + sum(map(len, documents.values()))
    return Content(
        large=_path(large), large_bytes=large_bytes, bytes=total, objects=len(packs) + len(documents)
    )


def _pack(archive: Path, scratch: Path, draw: random.Random, size: int) -> str:
    scratch.mkdir(parents=True, exist_ok=True)
    draft, digest = scratch / "pack", hashlib.sha256()
    with draft.open("wb") as file:
        for start in range(0, size, MIB):
            piece = draw.randbytes(min(MIB, size - start))
            digest.update(piece)
            file.write(piece)
    place = archive / _path(digest.hexdigest())
    place.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(place)
    return digest.hexdigest()


def _path(pack: str) -> str:
    return f"packs/{pack[:2]}/{pack}.pack"


def flip(place: Path) -> None:
    """Change one bit in the middle of a file."""
    with place.open("r+b") as file:
        file.seek(place.stat().st_size // 2)
        found = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((found[0] ^ 1,)))


# ---------------------------------------------------------------- the process that moves it


@frozen(kw_only=True)
class Moved:
    """How it went."""

    status: str = "completed"
    """`completed`, or what the result or the error is called."""
    error: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the process that moves."""
    grown_bytes: int = 0
    """What was resident at most, less what was resident right before."""
    sent_bytes: int = 0
    """Content that was handed to Cloudly, also in vain."""
    fetched_bytes: int = 0
    """Content that came from Cloudly."""


class _Counted(ReplicaPort):
    """Counts what passes."""

    def __init__(self, replica: ReplicaPort) -> None:
        self._replica = replica
        self.sent = self.fetched = 0

    async def copies(self, *, backup_id: str = "", prefix: str = "") -> tuple[Copy, ...]:
        return await self._replica.copies(backup_id=backup_id, prefix=prefix)

    async def put_slice(
        self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str = ""
    ) -> Receipt:
        self.sent += len(data)
        return await self._replica.put_slice(copy, offset, data, final=final, backup_id=backup_id)

    async def get_slice(self, name: str, offset: int, max_bytes: int) -> Slice:
        found = await self._replica.get_slice(name, offset, max_bytes)
        self.fetched += len(found.data)
        return found


def _resident(what: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes: now, or at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) * 1024
    raise LookupError(what)


def _resident_anew() -> int:
    """Bytes now, which is the most so far from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


async def _move(options: argparse.Namespace) -> Moved:
    retry = RetryPolicy(first=0.05, longest=0.5)
    dial = partial(net.connect_websocket, options.cloudly)
    cloudly = NetworkCloudly(dial, "token", wall_clock=time.time, options=LinkOptions(retry=retry))  # noqa: TID251 - as the daemon does
    counted = _Counted(cloudly)
    corestore = Corestore(options.corestore, options.token)
    move = partial(_push if options.action == "push" else _pull, Replicator(counted), corestore)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cloudly.run)
        await cloudly.link.wait()
        gc.collect()
        before, started, worked = _resident_anew(), time.perf_counter(), time.process_time()
        status, error = await move()
        moved = Moved(
            status=status,
            error=error,
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - worked,
            grown_bytes=_resident("VmHWM") - before,
            sent_bytes=counted.sent,
            fetched_bytes=counted.fetched,
        )
        nursery.cancel_scope.cancel()
    return moved


async def _push(replicator: Replicator, corestore: Corestore) -> tuple[str, str]:
    part = Part(kind="volume", name="data", mount_path="/data", snapshot_id=SNAPSHOT)
    manifest = Manifest(backup_id=BACKUP, service_id=SERVICE, finished_ms=1, parts=(part,))
    result = await replicator.push({None: corestore}, manifest, NoMeter())
    return result.status, result.error


async def _pull(replicator: Replicator, corestore: Corestore) -> tuple[str, str]:
    manifest = await replicator.manifest(BACKUP, SERVICE)
    assert manifest is not None
    try:
        await replicator.pull(corestore, manifest.objects[None], NoMeter())
    except CoreflowError as exc:
        return type(exc).__name__, str(exc)
    return "completed", ""


async def _copy(options: argparse.Namespace) -> Moved:
    url = f"{options.corestore}/archive/objects/{options.object}"
    timeout = aiohttp.ClientTimeout(total=None)
    headers = {"Authorization": f"Bearer {options.token}"}
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        started, worked = time.perf_counter(), time.process_time()
        async with session.get(url) as response:
            response.raise_for_status()
            with options.to.open("wb") as file:
                async for chunk in response.content.iter_any():
                    file.write(chunk)
        return Moved(seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - worked)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Moves an archive.")
    parser.add_argument("action", choices=("push", "pull", "copy"))
    parser.add_argument("--corestore", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--cloudly")
    parser.add_argument("--object")
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    moved = asyncio.run(_copy(options)) if options.action == "copy" else net.run(_move, options)
    sys.stdout.write(json.dumps(asdict(moved)) + "\n")


# ---------------------------------------------------------------- whoever has it moved


@define(eq=False)
class ArchiveBench:
    """A Corestore with a snapshot, a Cloudly that has nothing, and Corestores that have nothing."""

    source: CorestoreServer
    cloudly: Cloudly
    content: Content
    _folder: Path
    _nursery: trio.Nursery
    _numbers: Iterator[int] = field(factory=lambda: iter(range(1, 1000)))

    @property
    def slices(self) -> int:
        """How many the large object travels in, at least."""
        return self.content.large_bytes // SLICE_BYTES

    @property
    def half(self) -> int:
        """Bytes of the large object before its middle."""
        return self.content.large_bytes // 2

    async def empty(self) -> CorestoreServer:
        """One more Corestore, with nothing in it."""
        return await start_corestore(self._nursery, self._folder / f"empty-{next(self._numbers)}")

    async def push(self) -> Moved:
        """From the full Corestore to Cloudly."""
        return await self._run("push", self.source, "--cloudly", self.cloudly.url)

    async def pull(self, corestore: CorestoreServer) -> Moved:
        """From Cloudly to a Corestore."""
        return await self._run("pull", corestore, "--cloudly", self.cloudly.url)

    async def copy(self) -> Moved:
        """The large object from the full Corestore into a file, in the plainest way."""
        place = self._folder / "copy"
        try:
            return await self._run("copy", self.source, "--object", self.content.large, "--to", str(place))
        finally:
            await trio.to_thread.run_sync(partial(place.unlink, missing_ok=True))

    async def disturb(self, *, before: int = 0, after: int = 0, flip: int = 0) -> None:
        """Count slices from 1 on again. Cut before or after one of them, or change a bit of it; 0: none."""
        await self.cloudly.disturb(slices=0, cutBefore=[before], cutAfter=[after], flip=[flip])

    async def push_with_cuts(self) -> Moved:
        """The same to a Cloudly that has nothing, while Cloudly hangs up twice and the Corestore once."""
        await self.cloudly.lose()
        await self.disturb(before=self.slices // 3, after=2 * self.slices // 3)
        await self.source.fault(kind="cut", path=self.content.large, times=1, after_bytes=self.half)
        moved = await self.push()
        await self.disturb()
        return moved

    async def pull_with_cuts(self, corestore: CorestoreServer) -> Moved:
        """The same while Cloudly hangs up twice."""
        await self.disturb(before=self.slices // 3, after=2 * self.slices // 3)
        moved = await self.pull(corestore)
        await self.disturb()
        return moved

    async def refuse_flips(self) -> None:
        """Change one bit in every place, and see that it is found. Wants a Cloudly that has nothing."""
        there = await self.push()
        assert there.status == "completed", there
        await self._refuse_flipped_file()
        await self._refuse_flipped_copy()
        target = await self.empty()
        await self.disturb(flip=self.slices // 2)
        await self._refuse(target, "digest is another one")
        await self.disturb()
        await target.fault(kind="flip", path=self.content.large, method="PUT", times=1, after_bytes=self.half)
        await self._refuse(target, "digest")
        assert (await self.pull(target)).status == "completed"
        assert await self.is_whole(target)
        for where in ("in the Corestore", "to Cloudly"):
            await self._mend_flip(where, there.sent_bytes)
        await self._refuse_file_that_is_flipped_late()

    async def _refuse_flipped_file(self) -> None:
        """A file of an archive is not what it was: neither is it taken for it, nor overwritten."""
        place = self.source.archive / self.content.large
        await trio.to_thread.run_sync(flip, place)
        moved = await self.pull(self.source)
        assert moved.status == "Refused", moved
        assert "other content" in moved.error
        await trio.to_thread.run_sync(flip, place)

    async def _refuse_file_that_is_flipped_late(self) -> None:
        """A file changes after it was listed: listed once more, it is not taken for what it was."""
        await self.cloudly.lose()
        await self.source.fault(kind="hang", path=self.content.large, times=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flip_once_asked)
            moved = await self.push()
        assert moved.status != "completed", moved
        assert "another content" in moved.error
        await trio.to_thread.run_sync(flip, self.source.archive / self.content.large)

    async def _flip_once_asked(self) -> None:
        await self.source.hanging()
        await trio.to_thread.run_sync(flip, self.source.archive / self.content.large)
        await self.source.release()

    async def _refuse_flipped_copy(self) -> None:
        content = (self.source.archive / SNAPSHOT_PATH).read_bytes()
        name = f"{SNAPSHOT_PATH}@{hashlib.sha256(content).hexdigest()}"
        await self.cloudly.spoil(name, bytes((content[0] ^ 1,)) + content[1:])
        await self._refuse(await self.empty(), "digest is another one")
        await self.cloudly.spoil(name, content)

    async def _refuse(self, corestore: CorestoreServer, why: str) -> None:
        moved = await self.pull(corestore)
        assert moved.status == "Refused", moved
        assert why in moved.error
        assert not await self.is_whole(corestore)

    async def _mend_flip(self, where: str, whole: int) -> None:
        """What is changed on the way there is not kept, and sent again: more than the bytes of the whole."""
        await self.cloudly.lose()
        if where == "to Cloudly":
            await self.disturb(flip=self.slices // 2)
        else:
            await self.source.fault(kind="flip", path=self.content.large, times=1, after_bytes=self.half)
        moved = await self.push()
        await self.disturb()
        assert moved.status == "completed", moved
        assert moved.sent_bytes > whole, "nobody has seen it"
        target = await self.empty()
        assert (await self.pull(target)).status == "completed"
        assert await self.is_whole(target)

    async def is_whole(self, corestore: CorestoreServer) -> bool:
        """Whether a Corestore's archive is as that of the full one, by the digests of its files as they are."""
        (_, there), (_, here) = [await one.ask("GET", "/archive/objects") for one in (corestore, self.source)]
        return bool(there["objects"] == here["objects"])

    async def _run(self, action: Action, corestore: CorestoreServer, *options: str) -> Moved:
        root = Path(__file__).parents[2]
        command = [sys.executable, "-m", "tests.integration.archive_bench", action, *options]
        command += ["--corestore", corestore.url, "--token", corestore.token]
        paths = (str(root), os.environ.get("PYTHONPATH", ""))
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with trio.fail_after(TIMEOUT):
            ended = await trio.run_process(
                command,
                cwd=root,
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        if ended.returncode:
            raise AssertionError(ended.stderr.decode(errors="replace"))
        return Moved(**json.loads(ended.stdout))


@asynccontextmanager
async def open_archive_bench(folder: Path, large_bytes: int, small: int) -> AsyncIterator[ArchiveBench]:
    """Everything started, in a folder that may go afterwards."""
    content = await trio.to_thread.run_sync(fill, folder / "full" / "archive", large_bytes, small)
    async with trio.open_nursery() as nursery:
        source = await start_corestore(nursery, folder / "full")
        cloudly = await start_cloudly(nursery)
        yield ArchiveBench(source, cloudly, content, folder, nursery)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
