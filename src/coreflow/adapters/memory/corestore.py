"""Corestore in memory: credentials are derived from a service's id and the capability, as in the real one.

Snapshots are kept in the files of an archive, and nowhere else:

    config.json                      what kind of archive this is
    packs/<2 digits>/<sha256>.pack   the content of files, in pieces, shared by all snapshots
    index/<2 digits>/<sha256>.json   the packs of a snapshot, with their sizes
    snapshots/<id>.json              a snapshot: what it is of, its index, and every file with its packs
"""

from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from hashlib import sha256
from typing import Any

import orjson
import trio

from coreflow.adapters.archive import Source, is_path, verified
from coreflow.domain.backup.snapshots import (
    SERVICE_TAG,
    VOLUME,
    ArchiveObject,
    Snapshot,
    SnapshotKind,
    StoredVolume,
    VolumeSpec,
)
from coreflow.domain.errors import PortError, Refused, Unavailable, Untouched
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.bindings import CAPABILITIES, BindingSpec, Endpoint, Provisioned

HOST, REGION = "corestore", "us-east-1"
PACK_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024
"""What is read at once."""
START_MS = 1_700_000_000_000

Files = dict[str, bytes]
"""Content by path."""


class MemoryCorestore:
    """`CorestorePort` with its data in dictionaries that tests may read and change.

    `held` are the service ids and capabilities that are provisioned now, `deprovisioned` the bindings that were given
    back, whether they were there or not. `volume_data` has the files of every volume, `resource_data` those of what is
    held, `archive` the content of the archive's files: what is taken out of it is lost. `specs` tells how volumes were made.

    `counts` has the calls by method, those that failed included. A method named in `hold` waits for the event there.
    Then the errors in `faults` are raised first, one per call of any method, or those in `faults_of`, by method. Those in
    `late_faults` are raised after the effect. A transfer takes from `cuts` after how many bytes it breaks off.
    """

    def __init__(self) -> None:
        self.held: set[tuple[ServiceId, str]] = set()
        self.deprovisioned: list[BindingSpec] = []
        self.specs: dict[str, VolumeSpec] = {}
        self.volume_data: dict[str, Files] = {}
        self.resource_data: dict[tuple[ServiceId, str], Files] = {}
        self.archive: Files = {}
        self.now_ms = START_MS
        """When the last snapshot was taken. Each is a millisecond later."""
        self.faults: deque[PortError] = deque()
        self.faults_of: defaultdict[str, deque[PortError]] = defaultdict(deque)
        self.late_faults: defaultdict[str, deque[PortError]] = defaultdict(deque)
        self.cuts: deque[int] = deque()
        self.hold: dict[str, trio.Event] = {}
        self.counts: Counter[str] = Counter()
        self._turns: Counter[ServiceId] = Counter()

    def rotate(self, service_id: ServiceId) -> None:
        """Change the credentials of a service, as when the master secret is lost."""
        self._turns[service_id] += 1

    # --- bindings

    async def provision(self, spec: BindingSpec) -> Provisioned:
        """Make what a binding wants, or find it. Raises Refused for a capability that is not known."""
        await self._call("provision")
        make = {"database": _database, "objectstorage": _storage}.get(spec.capability)
        if make is None:
            raise Refused(f"corestore: provision {spec.name}: no such capability")
        seed = f"{self._turns[spec.service_id]}\0{spec.service_id}\0{spec.capability}"
        self.held.add((spec.service_id, spec.capability))
        self.resource_data.setdefault((spec.service_id, spec.capability), {})
        self._done("provision")
        return make(sha256(seed.encode()).hexdigest())

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back, with its data. Gone already is success."""
        await self._call("deprovision")
        self.held.discard((spec.service_id, spec.capability))
        self.resource_data.pop((spec.service_id, spec.capability), None)
        self.deprovisioned.append(spec)
        self._done("deprovision")

    # --- volumes

    async def volumes(self) -> tuple[StoredVolume, ...]:
        """All volumes."""
        await self._call("volumes")
        self._done("volumes")
        return tuple(
            StoredVolume(
                name=name,
                service_id=self.specs[name].service_id if name in self.specs else None,
                size_bytes=sum(map(len, files.values())),
            )
            for name, files in sorted(self.volume_data.items())
        )

    async def create_volume(self, spec: VolumeSpec) -> None:
        """Make a volume. There already is success, and changes nothing of it."""
        await self._call("create_volume")
        if spec.name not in self.volume_data:
            self.volume_data[spec.name] = {}
            self.specs[spec.name] = spec
        self._done("create_volume")

    async def snapshot_volume(self, name: str, tags: Mapping[str, str]) -> Snapshot:
        """Take a snapshot, one more with each call. Raises Refused when there is no such volume."""
        await self._call("snapshot_volume")
        files = self._volume(f"snapshot volume {name}", name)
        owner = self.specs[name].service_id if name in self.specs else None
        taken = self._take(VOLUME, name, owner or _service(tags), tags, files)
        self._done("snapshot_volume")
        return taken

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        """Make a volume what it was. Raises Refused when there is no such volume or snapshot, or not all of it."""
        await self._call("restore_volume")
        what = f"restore volume {name}"
        files = self._volume(what, name)
        found = self._contents(what, VOLUME, snapshot_id)
        files.clear()
        files.update(found)
        self._done("restore_volume")

    def _volume(self, what: str, name: str) -> Files:
        if name not in self.volume_data:
            raise Untouched(f"corestore: {what}: no such volume")
        return self.volume_data[name]

    # --- databases and object storage

    async def snapshot_resource(
        self, service_id: ServiceId, capability: str, tags: Mapping[str, str]
    ) -> Snapshot:
        """Take a snapshot of what a service holds. Raises Refused when it does not."""
        await self._call("snapshot_resource")
        kind, files = self._resource(f"snapshot {service_id} {capability}", service_id, capability)
        taken = self._take(kind, capability, service_id, tags, files)
        self._done("snapshot_resource")
        return taken

    async def restore_resource(self, service_id: ServiceId, capability: str, snapshot_id: str) -> None:
        """Make it what it was, as `restore_volume` does."""
        await self._call("restore_resource")
        what = f"restore {service_id} {capability}"
        kind, files = self._resource(what, service_id, capability)
        found = self._contents(what, kind, snapshot_id)
        files.clear()
        files.update(found)
        self._done("restore_resource")

    def _resource(self, what: str, service_id: ServiceId, capability: str) -> tuple[SnapshotKind, Files]:
        match capability:
            case "database" | "objectstorage" if (service_id, capability) in self.held:
                return capability, self.resource_data.setdefault((service_id, capability), {})
        known = "it has none" if capability in CAPABILITIES else "no such capability"
        raise Untouched(f"corestore: {what}: {known}")

    # --- snapshots

    async def snapshots(self, service_id: ServiceId | None = None) -> tuple[Snapshot, ...]:
        """All snapshots, or those that belong to a service, the oldest first."""
        await self._call("snapshots")
        found = [_snapshot(manifest) for manifest in self._manifests()]
        self._done("snapshots")
        wanted = (one for one in found if service_id is None or one.belongs_to in (None, service_id))
        return tuple(sorted(wanted, key=lambda one: (one.created_ms, one.id)))

    def _take(
        self, kind: SnapshotKind, name: str, owner: ServiceId | None, tags: Mapping[str, str], files: Files
    ) -> Snapshot:
        self.now_ms += 1
        self.archive.setdefault("config.json", orjson.dumps({"version": 1}))
        packs = {path: [self._pack(piece) for piece in _split(files[path])] for path in sorted(files)}
        sizes = {digest: len(self.archive[_pack_path(digest)]) for path in packs for digest in packs[path]}
        index = orjson.dumps({"packs": sizes}, option=orjson.OPT_SORT_KEYS)
        index_digest = sha256(index).hexdigest()
        self.archive[_index_path(index_digest)] = index
        manifest = {
            "kind": kind,
            "name": name,
            "serviceId": owner,
            "createdAt": self.now_ms,
            "sizeBytes": sum(map(len, files.values())),
            "tags": dict(tags),
            "index": index_digest,
            "files": packs,
        }
        manifest["id"] = f"snap-{sha256(orjson.dumps(manifest)).hexdigest()[:16]}"
        self.archive[f"snapshots/{manifest['id']}.json"] = orjson.dumps(manifest)
        return _snapshot(manifest)

    def _pack(self, piece: bytes) -> str:
        digest = sha256(piece).hexdigest()
        self.archive[_pack_path(digest)] = piece
        return digest

    def _manifests(self) -> Iterator[dict[str, Any]]:
        for path, content in self.archive.items():
            if path.startswith("snapshots/"):
                try:
                    manifest = orjson.loads(content)
                except orjson.JSONDecodeError:
                    continue
                yield manifest

    def _manifest(self, what: str, snapshot_id: str) -> dict[str, Any]:
        for manifest in self._manifests():
            if manifest["id"] == snapshot_id:
                return manifest
        raise Untouched(f"corestore: {what}: no snapshot {snapshot_id}")

    def _contents(self, what: str, kind: SnapshotKind, snapshot_id: str) -> Files:
        """The files of a snapshot. Raises Refused when the archive has not all of them as they were."""
        manifest = self._manifest(what, snapshot_id)
        if manifest["kind"] != kind:
            raise Untouched(f"corestore: {what}: snapshot {snapshot_id} is one of {manifest['kind']}")
        files = manifest["files"]
        self._whole(what, _index_path(manifest["index"]), manifest["index"])
        return {
            path: b"".join(self._whole(what, _pack_path(digest), digest) for digest in files[path])
            for path in files
        }

    def _whole(self, what: str, path: str, digest: str) -> bytes:
        content = self.archive.get(path)
        if content is None:
            raise Refused(f"corestore: {what}: the archive lacks {path}")
        if sha256(content).hexdigest() != digest:
            raise Refused(f"corestore: {what}: {path} is damaged")
        return content

    # --- the archive

    async def archive_objects(self, snapshot_ids: Iterable[str] = ()) -> tuple[ArchiveObject, ...]:
        """The files of the archive, or as many as are there of those that snapshots need."""
        await self._call("archive_objects")
        manifests = [self._manifest("list archive objects", one) for one in snapshot_ids]
        needed = {path for manifest in manifests for path in _needed(manifest)}
        self._done("archive_objects")
        return tuple(
            _described(path, self.archive[path])
            for path in sorted(self.archive)
            if path in needed or not manifests
        )

    @asynccontextmanager
    async def read_object(self, obj: ArchiveObject) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content of a file, in pieces. Raises Refused when there is none, or another one than described."""
        await self._call("read_object")
        what = f"corestore: read archive object {obj.path}"
        if obj.path not in self.archive:
            raise Refused(f"{what}: no such object")
        cut = self.cuts.popleft() if self.cuts else None
        async with (
            aclosing(_read(self.archive[obj.path], cut, what)) as chunks,
            aclosing(verified(obj, chunks, what)) as pieces,
        ):
            yield pieces
        self._done("read_object")

    async def write_object(self, obj: ArchiveObject, chunks: AsyncIterator[bytes]) -> None:
        """Put a file into the archive. Raises Refused when other content is there, or the chunks are not as described."""
        await self._call("write_object")
        what = f"corestore: write archive object {obj.path}"
        if not is_path(obj.path):
            raise Refused(f"{what}: not a path of an archive")
        cut = self.cuts.popleft() if self.cuts else None
        content = bytearray()
        async for chunk in Source(obj, chunks, what):
            content += chunk
            if cut is not None and len(content) > cut:
                raise Unavailable(f"{what}: it broke off")
        if self.archive.setdefault(obj.path, bytes(content)) != content:
            raise Refused(f"{what}: other content is there")
        self._done("write_object")

    # --- what goes wrong

    async def _call(self, method: str) -> None:
        await trio.lowlevel.checkpoint()
        self.counts[method] += 1
        if method in self.hold:
            await self.hold[method].wait()
        for queue in (self.faults, self.faults_of[method]):
            if queue:
                raise queue.popleft()

    def _done(self, method: str) -> None:
        if self.late_faults[method]:
            raise self.late_faults[method].popleft()


async def _read(content: bytes, cut: int | None, what: str) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), PIECE_BYTES):
        await trio.lowlevel.checkpoint()
        piece = content[start : start + PIECE_BYTES]
        if cut is not None and start + len(piece) > cut:
            raise Unavailable(f"{what}: it broke off")
        yield piece


def _split(content: bytes) -> Iterator[bytes]:
    return (content[start : start + PACK_BYTES] for start in range(0, len(content), PACK_BYTES))


def _pack_path(digest: str) -> str:
    return f"packs/{digest[:2]}/{digest}.pack"


def _index_path(digest: str) -> str:
    return f"index/{digest[:2]}/{digest}.json"


def _needed(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield "config.json"
    yield _index_path(manifest["index"])
    yield f"snapshots/{manifest['id']}.json"
    for digests in manifest["files"].values():
        yield from map(_pack_path, digests)


def _described(path: str, content: bytes) -> ArchiveObject:
    return ArchiveObject(path=path, size=len(content), sha256=sha256(content).hexdigest())


def _service(tags: Mapping[str, str]) -> ServiceId | None:
    return ServiceId(tags[SERVICE_TAG]) if SERVICE_TAG in tags else None


def _snapshot(manifest: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        id=manifest["id"],
        kind=manifest["kind"],
        name=manifest["name"],
        service_id=manifest["serviceId"],
        created_ms=manifest["createdAt"],
        size_bytes=manifest["sizeBytes"],
        tags=manifest["tags"],
    )


def _database(digest: str) -> Provisioned:
    name, user, word = f"db-{digest[:8]}", f"user-{digest[8:16]}", digest[16:48]
    values = {"MONGODB_URI": f"mongodb://{user}:{word}@{HOST}:27017/{name}?authSource={name}"}
    return _provisioned(values, "database", "mongodb", 27017)


def _storage(digest: str) -> Provisioned:
    values = {
        "AWS_ACCESS_KEY_ID": digest[8:28].upper(),
        "AWS_ENDPOINT_URL": f"http://{HOST}:9000",
        "AWS_REGION": REGION,
        "AWS_SECRET_ACCESS_KEY": digest[24:64],
        "S3_BUCKET": f"bucket-{digest[:8]}",
    }
    return _provisioned(values, "objectstorage", "http", 9000)


def _provisioned(values: Mapping[str, str], capability: str, protocol: str, port: int) -> Provisioned:
    endpoint = Endpoint(name=capability, protocol=protocol, host=HOST, port=port)
    return Provisioned(values=values, endpoints=(endpoint,))
