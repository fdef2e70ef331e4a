"""Snapshots that a Corestore keeps of volumes, databases and buckets, and the files of the archive that hold it."""

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import Factory, field, frozen

from coreflow.domain.ids import ServiceId

SnapshotKind = Literal["volume", "database", "objectstorage"]
VOLUME: SnapshotKind = "volume"

BACKUP_TAG, RESTORE_TAG = "backupId", "restoreId"
"""Which backup a snapshot belongs to; which restore it was taken before, so that what was there can be had back."""
SERVICE_TAG, NODE_TAG, PATH_TAG, BINDING_TAG = "serviceId", "nodeId", "mountPath", "bindingId"


@frozen(kw_only=True)
class VolumeSpec:
    """A volume as Corestore is to make it, with the facts that its mount has, too."""

    name: str
    service_id: ServiceId
    mount_path: str
    options: Mapping[str, str] = field(factory=dict, repr=False)
    labels: Mapping[str, str] = Factory(dict)


@frozen(kw_only=True)
class StoredVolume:
    """A volume that Corestore has."""

    name: str
    service_id: ServiceId | None = None
    size_bytes: int | None = None


@frozen(kw_only=True)
class Snapshot:
    """The content of a volume, a database or a bucket at one moment. Never changes."""

    id: str
    kind: SnapshotKind
    name: str = ""
    """Of the volume, or of the resource."""
    service_id: ServiceId | None = None
    created_ms: int = 0
    size_bytes: int | None = None
    tags: Mapping[str, str] = Factory(dict)

    @property
    def belongs_to(self) -> str | None:
        """The id of its service, as far as Corestore says."""
        return self.service_id or self.tags.get(SERVICE_TAG)


@frozen(kw_only=True)
class ArchiveObject:
    """A file of a Corestore's archive. Packs are shared by many snapshots."""

    path: str
    size: int
    sha256: str


def tagged(snapshots: Iterable[Snapshot], tag: str, value: str) -> tuple[Snapshot, ...]:
    """Those with this tag, the oldest first."""
    found = [snapshot for snapshot in snapshots if snapshot.tags.get(tag) == value]
    return tuple(sorted(found, key=lambda s: (s.created_ms, s.id)))
