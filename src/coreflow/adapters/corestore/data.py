"""The data of services: volumes, and snapshots of these, of databases and of object storage."""

from collections.abc import Mapping

from coreflow.domain.backup.snapshots import VOLUME, Snapshot, SnapshotKind, StoredVolume, VolumeSpec
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.bindings import CAPABILITIES

from . import methods as m
from . import parse_archive
from .failures import short
from .parse_bindings import texts
from .requests import Requests


class DataCalls:
    """Makes volumes, and takes and restores snapshots."""

    def __init__(self, requests: Requests) -> None:
        self._requests, self._failures = requests, requests.failures

    # --- volumes

    async def volumes(self) -> tuple[StoredVolume, ...]:
        """All volumes."""
        what = "corestore: list volumes"
        return self._requests.listed(
            what, parse_archive.volumes, await self._requests.ask(what, self._requests.api.list_volumes)
        )

    async def create_volume(self, spec: VolumeSpec) -> None:
        """Make a volume. There already is success, and changes nothing of it."""
        body = {
            m.VOLUME_NAME.name: spec.name,
            m.SERVICE_ID.name: spec.service_id,
            m.MOUNT_PATH.name: spec.mount_path,
            m.OPTIONS.name: dict(spec.options),
            m.LABELS.name: dict(spec.labels),
        }
        what = f"corestore: create volume {short(spec.name)}"
        own = (spec.name, spec.service_id, spec.mount_path)
        secrets = tuple(text for text in texts(spec.options) if text not in own)
        self._failures.check_proven(
            what, await self._requests.ask(what, self._requests.api.create_volume, body, secrets=secrets)
        )

    async def snapshot_volume(self, name: str, tags: Mapping[str, str]) -> Snapshot:
        """Take a snapshot: one more with each call, and maybe also where it is Unavailable."""
        body = {m.VOLUME_NAME.name: name, m.TAGS.name: dict(tags)}
        what = f"corestore: snapshot volume {short(name)}"
        answer = await self._requests.ask(what, self._requests.api.snapshot_volume, body)
        return _taken(what, answer, VOLUME, name, tags)

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        """Make a volume what it was at a snapshot, and nothing else."""
        body = {m.VOLUME_NAME.name: name, m.SNAPSHOT_ID.name: snapshot_id, m.CLEAR.name: True}
        what = f"corestore: restore volume {short(name)}"
        self._failures.check_proven(
            what, await self._requests.ask(what, self._requests.api.restore_volume, body, restores=True)
        )

    # --- databases and object storage

    async def snapshot_resource(
        self, service_id: ServiceId, capability: str, tags: Mapping[str, str]
    ) -> Snapshot:
        """Take a snapshot of a service's database or object storage, as `snapshot_volume` does."""
        what = f"corestore: snapshot {short(service_id)} {short(capability)}"
        kind = _kind(what, capability)
        body = {
            m.SERVICE_ID.name: service_id,
            m.CAPABILITIES.name: [capability],
            m.TAGS.name: dict(tags),
        }
        answer = await self._requests.ask(what, self._requests.api.snapshot_resource, body)
        return _taken(what, answer, kind, capability, tags)

    async def restore_resource(self, service_id: ServiceId, capability: str, snapshot_id: str) -> None:
        """Make a database or object storage what it was at a snapshot."""
        what = f"corestore: restore {short(service_id)} {short(capability)}"
        body = {
            m.SERVICE_ID.name: service_id,
            m.CAPABILITY.name: _kind(what, capability),
            m.SNAPSHOT_ID.name: snapshot_id,
        }
        self._failures.check_proven(
            what, await self._requests.ask(what, self._requests.api.restore_resource, body, restores=True)
        )

    # --- snapshots

    async def snapshots(self, service_id: ServiceId | None = None) -> tuple[Snapshot, ...]:
        """All snapshots; with an id, those that belong to this service, whatever else is answered."""
        what = "corestore: list snapshots"
        query = {} if service_id is None else {m.SERVICE_ID.name: service_id}
        answer = await self._requests.ask(what, self._requests.api.list_snapshots, query)
        found = self._requests.listed(what, parse_archive.snapshots, answer)
        return tuple(one for one in found if service_id is None or one.belongs_to in (None, service_id))


def _taken(what: str, answer: object, kind: SnapshotKind, name: str, tags: Mapping[str, str]) -> Snapshot:
    found = parse_archive.snapshot(answer, kind, name, tags)
    if found is None:
        raise Unavailable(f"{what}: the answer has no snapshot that can be used")
    return found


def _kind(what: str, capability: str) -> SnapshotKind:
    match capability:
        case "database" | "objectstorage":
            return capability
    raise Refused(f"{what}: not one of {', '.join(CAPABILITIES)}")
