"""Backup and restore of one service: what is asked for, the steps that it takes, and what came of them.

Nothing here happens: `coreflow.app.backups` gathers the facts, lets this module say what to do, and does it.

A restore never makes two services' data one: a snapshot of another service is refused. It never destroys what is there:
everything it will overwrite is saved first, and a part that cannot be restored gets that back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from attrs import evolve, frozen

from coreflow.domain.deploy.volumes import DEFAULT_DRIVER, make_mounts, plain
from coreflow.domain.errors import PreconditionFailed
from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.platform.instances import Instance
from coreflow.domain.records.models import ServiceRecord
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import Rejected
from coreflow.domain.swarm.specs import Mount
from coreflow.domain.swarm.stopped import undo_id

from .lease import Lease
from .parts import RESOURCES, Part
from .snapshots import (
    BACKUP_TAG,
    BINDING_TAG,
    NODE_TAG,
    PATH_TAG,
    RESTORE_TAG,
    SERVICE_TAG,
    VOLUME,
    Snapshot,
    SnapshotKind,
    VolumeSpec,
    tagged,
)

Status = Literal["completed", "partial", "failed"]
_BACKUP = naming.PREFIX + "backup"
ID_LIMIT = 256
"""Characters of an id."""
SHOWN = 20
"""How many of the things that are wrong are told."""

# --- what is asked for


def is_id(text: str) -> bool:
    """Return whether a backup may be called so: what cannot be seen gets lost in tags, labels and on the way to others."""
    return 0 < len(text) <= ID_LIMIT and text.isprintable()


@frozen(kw_only=True)
class BackupRequest:
    """A backup of one service, wanted under an id of the asker's choice. Asked again, the same backup is meant."""

    backup_id: str
    service_id: ServiceId
    trigger: str = "manual"
    replicate: bool = False
    """Send the archive to Cloudly, too."""
    include_volumes: bool = True
    include_resources: bool = True


@frozen(kw_only=True)
class RestoreRequest:
    """A restore of one service from a backup: of these parts, or of everything in it."""

    backup_id: str
    service_id: ServiceId
    volumes: tuple[Part, ...] | None = None
    resources: tuple[Part, ...] | None = None
    pull_missing: bool = True
    """Fetch what Corestore's archive lacks from Cloudly."""


# --- what came of it


@frozen(kw_only=True)
class Replication:
    """The extent to which the archive was sent to Cloudly."""

    status: Status
    objects_total: int = 0
    objects_uploaded: int = 0
    bytes_uploaded: int = 0
    error: str = ""


@frozen(kw_only=True)
class BackupResult:
    """The result of a backup. Partial: some of its parts are there."""

    backup_id: str
    service_id: ServiceId
    status: Status
    started_ms: int = 0
    finished_ms: int = 0
    parts: tuple[Part, ...] = ()
    replication: Replication | None = None
    error: str = ""


@frozen(kw_only=True)
class RestoreResult:
    """The result of a restore. Partial: some of its parts were restored; the others are as they were before."""

    backup_id: str
    service_id: ServiceId
    status: Status
    objects_pulled: int = 0
    volumes_created: tuple[str, ...] = ()
    volumes_restored: tuple[str, ...] = ()
    resources_restored: tuple[str, ...] = ()
    """Ids of their bindings."""
    undo_id: str = ""
    """The backup of what was overwritten: restoring that takes this restore back."""
    error: str = ""


# --- a backup, step by step


@frozen
class SnapshotStep:
    """Have a Corestore take the snapshot of a part."""

    instance: Instance
    part: Part
    tags: Mapping[str, str]


@frozen(kw_only=True)
class BackupPlan:
    """The steps of a backup, and what needs none: it is there already, or cannot be had."""

    steps: tuple[SnapshotStep, ...] = ()
    done: tuple[tuple[Instance, Part], ...] = ()


def plan_backup(
    request: BackupRequest,
    service: ServiceRecord,
    bindings: Sequence[BindingSpec],
    instances: Sequence[Instance],
    found: Mapping[Instance, Sequence[Snapshot]],
    live: Iterable[Mount] = (),
) -> BackupPlan:
    """The snapshots to take: volumes first, then databases and buckets. One that `found` has already is not taken again.

    `live` are the mounts that the service has now. Raises PreconditionFailed where the record marks nothing for backup, or cannot be
    read.
    """
    wanted: list[Part] = []
    if request.include_volumes:
        wanted += [
            _volume_part(mount) for mount in volumes_of(service, live) if mount.labels.get(_BACKUP) == "true"
        ]
    if request.include_resources:
        wanted += [
            Part(kind=kind, name=kind, binding_id=spec.id)
            for kind in RESOURCES
            if (spec := _binding_of(kind, bindings)) is not None
        ]
    if not wanted:
        raise PreconditionFailed(
            "nothing to back up: it has no volume that is marked for backup, and no binding"
        )
    steps: list[SnapshotStep] = []
    done: list[tuple[Instance, Part]] = []
    for part in wanted:
        for instance in instances:
            placed = evolve(part, node=instance.node)
            snapshot = _of_backup(placed, request, found.get(instance, ()))
            if snapshot is not None:
                there = evolve(placed, snapshot_id=snapshot.id, size_bytes=snapshot.size_bytes)
                done.append((instance, there))
            elif part.error:
                done.append((instance, placed))
            else:
                steps.append(
                    SnapshotStep(instance, placed, _tags(placed, request.service_id, request.backup_id))
                )
    return BackupPlan(steps=tuple(steps), done=tuple(done))


def volumes_of(service: ServiceRecord, live: Iterable[Mount] = ()) -> tuple[Mount, ...]:
    """The volumes that a record mounts, by the names that they have on the live service. Raises PreconditionFailed when its mounts cannot be read."""
    try:
        return tuple(mount for mount in make_mounts(service, live) if mount.type == "volume")
    except Rejected as exc:
        raise PreconditionFailed("; ".join(exc.reasons)) from exc


def _volume_part(mount: Mount) -> Part:
    error = ""
    if mount.driver != DEFAULT_DRIVER:
        error = f"its driver is {mount.driver}: only volumes of {DEFAULT_DRIVER} can be backed up"
    return Part(kind=VOLUME, name=mount.source, mount_path=mount.target, error=error)


def _binding_of(kind: SnapshotKind, bindings: Iterable[BindingSpec]) -> BindingSpec | None:
    """The binding that leads to a database or a bucket: the first, for all of a service lead to the same one."""
    return next((spec for spec in bindings if spec.capability == kind), None)


def _tags(part: Part, service_id: ServiceId, backup_id: str, **more: str) -> dict[str, str]:
    """By what a snapshot of a part is found again."""
    tags = {
        BACKUP_TAG: backup_id,
        SERVICE_TAG: service_id,
        NODE_TAG: part.node or "",
        PATH_TAG: part.mount_path,
        BINDING_TAG: part.binding_id,
        **more,
    }
    return {name: value for name, value in tags.items() if value}


def _of_backup(part: Part, request: BackupRequest, found: Iterable[Snapshot]) -> Snapshot | None:
    """The snapshot of a part that was taken for this backup before."""
    taken = tagged(found, BACKUP_TAG, request.backup_id)
    ours = (s for s in taken if part.is_in(s) and s.belongs_to in (None, request.service_id))
    return next(ours, None)


def status_of(parts: Iterable[Part], replication: Replication | None = None) -> Status:
    """Completed: everything is there. Failed: nothing is."""
    fine = [not part.error for part in parts]
    if not any(fine):
        return "failed"
    sent = replication is None or replication.status == "completed"
    return "completed" if all(fine) and sent else "partial"


# --- a restore, step by step


@frozen(kw_only=True)
class Target:
    """A part of a backup, and where it is to be put."""

    part: Part
    """With the name that the volume has now."""
    instance: Instance
    volume: VolumeSpec | None = None
    """How to make the volume, should it not be there."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what is overwritten."""
        return self.part.kind, self.part.name, self.instance.url


def parts_in(
    snapshots: Iterable[Snapshot], backup_id: str, service_id: ServiceId, node: NodeId | None
) -> tuple[Part, ...]:
    """The parts of a backup, as the tags of snapshots tell them."""
    found: dict[tuple[str, str], Part] = {}
    for snapshot in tagged(snapshots, BACKUP_TAG, backup_id):
        if snapshot.belongs_to == service_id:
            part = Part(
                kind=snapshot.kind,
                name=snapshot.name if snapshot.kind == VOLUME else snapshot.kind,
                mount_path=snapshot.tags.get(PATH_TAG, ""),
                binding_id=snapshot.tags.get(BINDING_TAG, ""),
                snapshot_id=snapshot.id,
                size_bytes=snapshot.size_bytes,
                node=node,
            )
            found.setdefault((part.kind, part.name), part)
    return tuple(found.values())


def chosen_parts(request: RestoreRequest, known: Iterable[Part]) -> tuple[Part, ...]:
    """Return what to restore: the parts that are named, else all that are known. Raises PreconditionFailed where that is nothing."""
    by_snapshot: dict[tuple[NodeId | None, str], Part] = {}
    for part in known:
        if part.snapshot_id and not part.error:
            by_snapshot.setdefault((part.node, part.snapshot_id), part)
    chosen: list[Part] = []
    for named, is_volume in ((request.volumes, True), (request.resources, False)):
        if named is None:
            chosen += [part for part in by_snapshot.values() if (part.kind == VOLUME) == is_volume]
            continue
        for part in named:
            there = next(
                (
                    one
                    for one in by_snapshot.values()
                    if one.snapshot_id == part.snapshot_id and part.node in (None, one.node)
                ),
                None,
            )
            if not part.snapshot_id:
                there = _same(part, by_snapshot.values())
            chosen.append(_completed(part, there))
    if not chosen:
        raise PreconditionFailed("no such backup of this service is known here")
    return tuple(chosen)


def _same(part: Part, known: Iterable[Part]) -> Part | None:
    """The part of the backup that one without a snapshot means. Raises PreconditionFailed where it holds none."""
    for one in known:
        by_name = one.kind == part.kind and one.name == part.name
        by_place = bool(part.mount_path) and plain(one.mount_path) == plain(part.mount_path)
        by_binding = bool(part.binding_id) and one.binding_id == part.binding_id
        if by_name or by_place or by_binding:
            return one
    raise PreconditionFailed(f"{part} is not in this backup")


def _completed(part: Part, known: Part | None) -> Part:
    """A reference, with what is known besides."""
    if known is None:
        return part
    elsewhere = part.name not in ("", known.name)  # then it is meant for another place than where it is from
    return evolve(
        part,
        name=part.name or known.name,
        mount_path=part.mount_path or ("" if elsewhere else known.mount_path),
        binding_id=part.binding_id or known.binding_id,
        snapshot_id=part.snapshot_id or known.snapshot_id,
        node=part.node or known.node,
    )


def resolve_targets(
    service: ServiceRecord,
    bindings: Sequence[BindingSpec],
    parts: Iterable[Part],
    homes: Sequence[Instance],
    live: Iterable[Mount] = (),
) -> tuple[Target, ...]:
    """Return where every part goes: to the volume of its name or else at its path, on the node where the service has it now.

    How a path is spelt does not matter; `live` are the mounts that the service has now.
    Raises PreconditionFailed for a part that this service has no place for, and for two that would go to the same place.
    """
    mounts = volumes_of(service, live)
    targets: dict[tuple[str, str, str], Target] = {}
    for part in parts:
        there = [instance for instance in homes if instance.node is None or instance.node == part.node]
        if not there and not homes:
            raise PreconditionFailed("no Corestore is known on the node of this service")
        instance = (there or list(homes))[0]
        target = _aimed(service, mounts, bindings, part, instance)
        if target.key in targets:
            raise PreconditionFailed(f"two snapshots are to be restored to {target.part}")
        targets[target.key] = target
    return tuple(sorted(targets.values(), key=lambda t: (t.part.kind != VOLUME, t.part.kind, t.part.name)))


def _aimed(
    service: ServiceRecord,
    mounts: Sequence[Mount],
    bindings: Sequence[BindingSpec],
    part: Part,
    instance: Instance,
) -> Target:
    if part.kind != VOLUME:
        spec = _binding_of(part.kind, bindings)
        if spec is None:
            raise PreconditionFailed(f"the service has no binding for {part}")
        return Target(part=evolve(part, name=part.kind, binding_id=spec.id), instance=instance)
    mount = next((m for m in mounts if m.source == part.name), None)
    place = plain(part.mount_path)
    mount = mount or next((m for m in mounts if place and plain(m.target) == place), None)
    if mount is None:
        raise PreconditionFailed(f"the service has no {part}")
    if mount.driver != DEFAULT_DRIVER:
        raise PreconditionFailed(
            f"{part} has the driver {mount.driver}: only volumes of {DEFAULT_DRIVER} can be restored"
        )
    spec_ = VolumeSpec(
        name=mount.source,
        service_id=service.id,
        mount_path=mount.target,
        options=mount.options,
        labels=mount.labels,
    )
    return Target(
        part=evolve(part, name=mount.source, mount_path=mount.target), instance=instance, volume=spec_
    )


def check_snapshots(
    service_id: ServiceId, targets: Iterable[Target], found: Mapping[Instance, Sequence[Snapshot]]
) -> None:
    """Make sure that every snapshot is there, of the right kind, and of this service. Raises PreconditionFailed with all that is not."""
    problems: list[str] = []
    for target in targets:
        part = target.part
        snapshot = next((s for s in found.get(target.instance, ()) if s.id == part.snapshot_id), None)
        if snapshot is None:
            problems.append(f"{part}: {target.instance} has no snapshot {part.snapshot_id}")
        elif snapshot.belongs_to not in (None, service_id) or _is_strange(snapshot, part, service_id):
            problems.append(f"{part}: snapshot {part.snapshot_id} belongs to another service")
        elif snapshot.kind != part.kind:
            problems.append(f"{part}: snapshot {part.snapshot_id} is one of a {snapshot.kind}")
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise PreconditionFailed("; ".join((*problems[:SHOWN], *more)))


def _is_strange(snapshot: Snapshot, part: Part, service_id: ServiceId) -> bool:
    """Return whether it is not said whose it is, and its name tells that it is of another volume."""
    if snapshot.belongs_to is not None or part.kind != VOLUME or snapshot.name == part.name:
        return False
    path = snapshot.tags.get(PATH_TAG, "")
    other_spelling = bool(path) and snapshot.name == naming.volume_name(service_id, path)
    return not (other_spelling and plain(path) == plain(part.mount_path))


def safety_tags(target: Target, lease: Lease, service_id: ServiceId) -> dict[str, str]:
    """The tags of the snapshot that is taken of what a restore is about to overwrite: a backup of its own."""
    part = evolve(target.part, node=target.instance.node)
    return _tags(part, service_id, undo_id(lease.id), **{RESTORE_TAG: lease.id})


def safety_of(target: Target, lease: Lease, found: Iterable[Snapshot]) -> Snapshot | None:
    """The snapshot that this restore took of what it is about to overwrite, if it did."""
    return next((s for s in tagged(found, RESTORE_TAG, lease.id) if target.part.is_in(s)), None)
