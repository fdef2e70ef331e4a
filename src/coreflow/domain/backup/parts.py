"""The parts of a backup, and their form in JSON: names and ids, no text of an error."""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from coreflow.domain.ids import NodeId

from .snapshots import VOLUME, Snapshot, SnapshotKind

RESOURCES: tuple[SnapshotKind, ...] = ("database", "objectstorage")


@frozen(kw_only=True)
class Part:
    """One thing that a backup holds: a volume, a database or a bucket, and the snapshot of it."""

    kind: SnapshotKind
    name: str
    """The volume's name; of a database or a bucket, the capability."""
    mount_path: str = ""
    binding_id: str = ""
    snapshot_id: str = ""
    """Empty where it could not be taken; `error` says why then."""
    size_bytes: int | None = None
    node: NodeId | None = None
    """Where its Corestore is, if that is known."""
    error: str = ""

    def is_in(self, snapshot: Snapshot) -> bool:
        """Return whether a snapshot is one of this part, if it is of the same service at all."""
        return snapshot.kind == self.kind and (self.kind != VOLUME or snapshot.name == self.name)

    def __str__(self) -> str:
        return f"{'volume ' if self.kind == VOLUME else ''}{self.name}"


def part_document(part: Part) -> dict[str, object]:
    """A part for a label or a manifest; what is empty is left out."""
    more = {
        "bindingId": part.binding_id,
        "nodeId": part.node,
        "mountPath": part.mount_path,
        "sizeBytes": part.size_bytes,
    }
    known = {name: value for name, value in more.items() if value not in (None, "")}
    return {"kind": part.kind, "name": part.name, "snapshotId": part.snapshot_id, **known}


def parts_of(documents: Iterable[Mapping[str, Any]]) -> tuple[Part, ...]:
    """Parts as JSON has them; those of kinds that are not known are left out. May raise anything for nonsense."""
    return tuple(
        Part(
            kind=document["kind"],
            name=str(document["name"]),
            mount_path=str(document.get("mountPath") or ""),
            binding_id=str(document.get("bindingId") or ""),
            snapshot_id=str(document["snapshotId"]),
            size_bytes=None if document.get("sizeBytes") is None else int(document["sizeBytes"]),
            node=node_in(document.get("nodeId")),
        )
        for document in documents
        if document["kind"] in (VOLUME, *RESOURCES)
    )


def node_in(raw: object) -> NodeId | None:
    """The id of a node, as JSON has it. Raises TypeError where it is no text."""
    if raw is not None and not isinstance(raw, str):
        raise TypeError("not the id of a node")
    return NodeId(raw) if raw else None
