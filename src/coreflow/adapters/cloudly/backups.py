"""Cloudly's requests for backups and restores -> requests, and results -> what it is answered. All fields are proposed."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import astuple, frozen

from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import (
    ID_LIMIT,
    BackupRequest,
    BackupResult,
    RestoreRequest,
    RestoreResult,
    is_id,
)
from coreflow.domain.backup.snapshots import VOLUME, SnapshotKind
from coreflow.domain.errors import InvalidRecord, Problem
from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.records.converter import decode

TEXT_LIMIT = 4096
"""Characters of any other text that names something."""
REFERENCES_LIMIT = 1000
"""How many volumes, or databases and buckets, a request may name."""
_KINDS: dict[str, SnapshotKind] = {"database": "database", "objectstorage": "objectstorage"}

CapabilityOf = Callable[[str], str | None]
"""The capability of a binding, by its id, where that is known."""


@frozen(kw_only=True)
class _Service:
    """As much of a service's record as says which one it is."""

    id: str


@frozen(kw_only=True)
class _Asked:
    """The members that both requests have."""

    backup_id: str
    service_id: str | None = None
    service: _Service | None = None


@frozen(kw_only=True)
class _Backup(_Asked):
    trigger: str = "manual"
    replicate: bool = False
    include_volumes: bool = True
    include_resources: bool = True


@frozen(kw_only=True)
class _VolumeReference:
    volume_name: str = ""
    mount_path: str = ""
    snapshot_id: str = ""
    node_id: NodeId | None = None


@frozen(kw_only=True)
class _ResourceReference:
    capability: str = ""
    binding_id: str = ""
    snapshot_id: str = ""
    node_id: NodeId | None = None


@frozen(kw_only=True)
class _Restore(_Asked):
    volumes: tuple[_VolumeReference, ...] | None = None
    resources: tuple[_ResourceReference, ...] | None = None
    pull_missing_objects: bool = True


def backup_request(body: Mapping[str, Any]) -> BackupRequest:
    """Read a request for a backup. Raises InvalidRecord with the paths of what is wrong, and no values."""
    asked = decode(body, _Backup)
    backup_id, service_id = _ids(asked)
    return BackupRequest(
        backup_id=backup_id,
        service_id=service_id,
        trigger=asked.trigger,
        replicate=asked.replicate,
        include_volumes=asked.include_volumes,
        include_resources=asked.include_resources,
    )


def restore_request(body: Mapping[str, Any], capability_of: CapabilityOf) -> RestoreRequest:
    """Read a request for a restore. Raises as `backup_request` does.

    A resource that is named by its binding alone is what `capability_of` says; where that is not known, it is wrong.
    """
    asked = decode(body, _Restore)
    backup_id, service_id = _ids(asked)
    problems: list[Problem] = []
    volumes = resources = None
    for name, references in (("volumes", asked.volumes), ("resources", asked.resources)):
        if len(references or ()) > REFERENCES_LIMIT:
            raise InvalidRecord(Problem(f"$.{name}", f"has more than {REFERENCES_LIMIT} entries"))
    if asked.volumes is not None:
        volumes = tuple(
            _volume(reference, f"$.volumes[{number}]", problems)
            for number, reference in enumerate(asked.volumes)
        )
    if asked.resources is not None:
        resources = tuple(
            _resource(reference, f"$.resources[{number}]", capability_of, problems)
            for number, reference in enumerate(asked.resources)
        )
    if problems:
        raise InvalidRecord(*problems)
    return RestoreRequest(
        backup_id=backup_id,
        service_id=service_id,
        volumes=volumes,
        resources=resources,
        pull_missing=asked.pull_missing_objects,
    )


def backup_document(result: BackupResult) -> dict[str, object]:
    """A result as Cloudly gets it. Members that may be absent are there only where they say something."""
    document: dict[str, object] = {
        "backupId": result.backup_id,
        "serviceId": result.service_id,
        "status": result.status,
        "startedAt": result.started_ms,
        "finishedAt": result.finished_ms,
        "volumes": [_volume_document(part) for part in result.parts if part.kind == VOLUME],
        "resources": [_resource_document(part) for part in result.parts if part.kind != VOLUME],
    }
    if result.replication is not None:
        document["replication"] = {
            "status": result.replication.status,
            "objectsTotal": result.replication.objects_total,
            "objectsUploaded": result.replication.objects_uploaded,
            "bytesUploaded": result.replication.bytes_uploaded,
            **_error(result.replication.error),
        }
    return {**document, **_error(result.error)}


def restore_document(result: RestoreResult) -> dict[str, object]:
    """The same for a restore."""
    return {
        "backupId": result.backup_id,
        "serviceId": result.service_id,
        "status": result.status,
        "objectsPulled": result.objects_pulled,
        "volumesCreated": list(result.volumes_created),
        "volumesRestored": list(result.volumes_restored),
        "resourcesRestored": list(result.resources_restored),
        **_error(result.error),
    }


# --- requests


def _ids(asked: _Asked) -> tuple[str, ServiceId]:
    """The ids of the backup and of the service, which may be given by its record instead."""
    problems: list[Problem] = []
    _check_id(asked.backup_id, "$.backupId", problems)
    service_id = asked.service_id
    if service_id is not None:
        _check_id(service_id, "$.serviceId", problems)
    elif asked.service is None:
        problems.append(Problem("$.serviceId", "is missing"))
    if asked.service is not None:
        _check_id(asked.service.id, "$.service.id", problems)
        if service_id is not None and service_id != asked.service.id:
            problems.append(Problem("$.service.id", "is another service than serviceId"))
        service_id = asked.service.id
    if problems:
        raise InvalidRecord(*problems)
    return asked.backup_id, ServiceId(service_id or "")


def _check_id(text: str, path: str, problems: list[Problem]) -> None:
    if not text:
        problems.append(Problem(path, "is empty"))
    elif not is_id(text):
        problems.append(Problem(path, f"is no id: at most {ID_LIMIT} characters, and all of them printable"))


def _check_texts(
    reference: _VolumeReference | _ResourceReference, path: str, problems: list[Problem]
) -> None:
    if any(isinstance(text, str) and len(text) > TEXT_LIMIT for text in astuple(reference)):
        problems.append(Problem(path, f"is a string of more than {TEXT_LIMIT} characters"))


def _volume(reference: _VolumeReference, path: str, problems: list[Problem]) -> Part:
    if not (reference.volume_name or reference.mount_path or reference.snapshot_id):
        problems.append(Problem(path, "names nothing: expected volumeName, mountPath or snapshotId"))
    _check_texts(reference, path, problems)
    return Part(
        kind=VOLUME,
        name=reference.volume_name,
        mount_path=reference.mount_path,
        snapshot_id=reference.snapshot_id,
        node=reference.node_id,
    )


def _resource(
    reference: _ResourceReference, path: str, capability_of: CapabilityOf, problems: list[Problem]
) -> Part:
    _check_texts(reference, path, problems)
    capability = reference.capability or (capability_of(reference.binding_id) or "")
    kind = _KINDS.get(capability, "database")
    if not capability and reference.binding_id:
        problems.append(Problem(f"{path}.capability", "is missing, and no such binding is known"))
    elif not capability:
        problems.append(Problem(f"{path}.capability", "is missing"))
    elif capability not in _KINDS:
        problems.append(Problem(f"{path}.capability", f"is none of {', '.join(_KINDS)}"))
    return Part(
        kind=kind,
        name=kind,
        binding_id=reference.binding_id,
        snapshot_id=reference.snapshot_id,
        node=reference.node_id,
    )


# --- results


def _volume_document(part: Part) -> dict[str, object]:
    where = {} if part.node is None else {"nodeId": part.node}
    return {"volumeName": part.name, "mountPath": part.mount_path, **_facts(part), **where}


def _resource_document(part: Part) -> dict[str, object]:
    return {"capability": part.kind, "bindingId": part.binding_id, **_facts(part)}


def _facts(part: Part) -> dict[str, object]:
    facts: dict[str, object] = {"snapshotId": part.snapshot_id}
    if part.size_bytes is not None:
        facts["sizeBytes"] = part.size_bytes
    return {**facts, **_error(part.error)}


def _error(text: str) -> dict[str, object]:
    return {"errorText": text} if text else {}
