"""Copies of archive objects at another keeper: their names, and the order of their transfer.

A copy is named after its path and its digest. So copies never change, archives of several nodes share identical ones, and
an interrupted transfer can be repeated. A manifest lists what belongs to a backup. It is a small object that is written
last: a backup whose manifest is there is complete.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

import orjson
from attrs import field, frozen

from coreflow.domain.errors import Refused
from coreflow.domain.ids import NodeId, ServiceId

from .parts import Part, node_in, part_document, parts_of
from .snapshots import ArchiveObject

SLICE_BYTES = 768 * 1024
"""Bytes of a slice: 1 MiB as base64, which fits into any message."""


@frozen(kw_only=True)
class Copy:
    """A copy of an archive object: its name where it is kept, its size in bytes, and the SHA-256 of its content."""

    name: str
    size: int
    sha256: str


@frozen
class Receipt:
    """The result of sending a slice."""

    received: int
    """Bytes of the copy that have arrived, from its beginning on: where the next slice starts."""
    stored: bool
    """Whether the copy is complete and kept."""


@frozen
class Slice:
    """A piece of a copy."""

    data: bytes = field(repr=False)
    size: int
    """Of the whole copy."""
    final: bool


# --- names

_COPY_NAME = re.compile(r"(.+)@([0-9a-f]{64})", re.DOTALL)
_MANIFESTS = "coreflow/backups/"


def copy_of(obj: ArchiveObject) -> Copy:
    """The copy of an archive object."""
    return Copy(name=f"{obj.path}@{obj.sha256}", size=obj.size, sha256=obj.sha256)


def digest_in(name: str) -> str | None:
    """The digest in the name of a copy, if it is one of our making."""
    match = _COPY_NAME.fullmatch(name)
    return None if match is None else match[2]


def object_of(copy: Copy) -> ArchiveObject:
    """The archive object that a copy is of. A name of somebody else's making is taken for the path."""
    match = _COPY_NAME.fullmatch(copy.name)
    path = match[1] if match is not None and match[2] == copy.sha256 else copy.name
    return ArchiveObject(path=path, size=copy.size, sha256=copy.sha256)


def manifest_prefix(backup_id: str, service_id: str) -> str:
    """Return what the names of the manifests of a backup begin with."""
    return f"{manifests_prefix(service_id)}{quote(backup_id, safe='')}.json@"


def manifests_prefix(service_id: str) -> str:
    """Return what the names of all manifests of a service begin with."""
    return f"{_MANIFESTS}{quote(service_id, safe='')}/"


def backup_of(copy: Copy) -> str:
    """The id of the backup that a manifest describes."""
    return unquote(copy.name.rpartition("@")[0].rpartition("/")[2].removesuffix(".json"))


def is_manifest(copy: Copy) -> bool:
    """Return whether a copy is a manifest of ours and no file of an archive."""
    return copy.name.startswith(_MANIFESTS)


# --- order

_RANKS = (
    (re.compile(r"(^|/)(snapshots?|manifests?)(/|\.|$)"), 2),
    (re.compile(r"(^|/)(config|repository|repo)(\.[^/]*)?$"), 3),
    (re.compile(r"(^|/)(index|indexes|indices|idx|parity)(/|\.|$)|\.(idx|index|parity|par)$"), 1),
)
PACKS, INDEXES, SNAPSHOTS, CONFIG = range(4)
"""What is copied first must be of no use before what comes later: a snapshot without its packs would be broken."""


def rank(path: str) -> int:
    """Return when an archive's file travels: packs, indexes and parity, snapshots, configuration. Unknown ones count as packs."""
    return next((number for pattern, number in _RANKS if pattern.search(path.lower())), PACKS)


def is_fixed(path: str) -> bool:
    """Return whether a file never changes once it is written. Indexes and configuration may be written anew."""
    return rank(path) in (PACKS, SNAPSHOTS)


def in_order(objects: Iterable[ArchiveObject]) -> tuple[tuple[ArchiveObject, ...], ...]:
    """Files in groups; a group travels when the one before has arrived."""
    groups: dict[int, list[ArchiveObject]] = {}
    for obj in objects:
        groups.setdefault(rank(obj.path), []).append(obj)
    return tuple(tuple(sorted(groups[number], key=lambda o: o.path)) for number in sorted(groups))


def to_push(objects: Iterable[ArchiveObject], there: Iterable[Copy]) -> tuple[ArchiveObject, ...]:
    """Return what the keeper of copies lacks."""
    names = {copy.name for copy in there}
    return tuple(obj for obj in objects if copy_of(obj).name not in names)


def expect_unchanged(before: Iterable[ArchiveObject], now: Iterable[ArchiveObject]) -> None:
    """Raises Refused where a file that never changes has another content than it had before."""
    digests = {obj.path: obj.sha256 for obj in before}
    for obj in now:
        if digests.get(obj.path, obj.sha256) != obj.sha256 and is_fixed(obj.path):
            raise Refused(f"archive object {obj.path} has another content than just before")


def to_pull(wanted: Iterable[ArchiveObject], local: Iterable[ArchiveObject]) -> tuple[ArchiveObject, ...]:
    """Return what an archive lacks. A file that may change is left as it is where it is there.

    Raises Refused where a file that never changes is there with other content: these are two archives.
    """
    there = {obj.path: obj.sha256 for obj in local}
    missing: dict[str, ArchiveObject] = {}
    for obj in wanted:
        digest = there.get(obj.path)
        if digest is None:
            missing[obj.path] = obj
        elif digest != obj.sha256 and is_fixed(obj.path):
            raise Refused(f"archive object {obj.path} is there with other content")
    return tuple(missing.values())


# --- manifests


@frozen(kw_only=True)
class Manifest:
    """The list of everything that a backup consists of."""

    backup_id: str
    service_id: ServiceId
    finished_ms: int
    parts: tuple[Part, ...]
    objects: Mapping[NodeId | None, tuple[ArchiveObject, ...]] = field(factory=dict)
    """By the node whose archive they are of."""

    def encode(self) -> bytes:
        """As JSON."""
        document = {
            "version": 1,
            "backupId": self.backup_id,
            "serviceId": self.service_id,
            "finishedAt": self.finished_ms,
            "parts": [part_document(part) for part in self.parts],
            "archives": [
                {
                    "nodeId": node,
                    "objects": [{"path": o.path, "size": o.size, "sha256": o.sha256} for o in objects],
                }
                for node, objects in self.objects.items()
            ],
        }
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

    def copy(self, content: bytes) -> Copy:
        """The copy that holds it, encoded as `content`."""
        digest = hashlib.sha256(content).hexdigest()
        return Copy(
            name=manifest_prefix(self.backup_id, self.service_id) + digest, size=len(content), sha256=digest
        )


def read_manifest(content: bytes) -> Manifest:
    """Decode a manifest. Raises Refused when it is none."""
    try:
        raw = orjson.loads(content)
        objects = {
            node_in(archive.get("nodeId")): tuple(
                ArchiveObject(path=str(o["path"]), size=int(o["size"]), sha256=str(o["sha256"]))
                for o in archive["objects"]
            )
            for archive in raw["archives"]
        }
        return Manifest(
            backup_id=str(raw["backupId"]),
            service_id=ServiceId(str(raw["serviceId"])),
            finished_ms=int(raw["finishedAt"]),
            parts=parts_of(raw["parts"]),
            objects=objects,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Refused("the manifest of the backup cannot be read") from None
