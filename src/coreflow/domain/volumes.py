"""Bind mounts and first-class volumes -> mounts.

Volumes are made by Docker where a task first needs them, from what the mount says; an existing volume is never changed
or removed by coreflow.
"""

import posixpath
from collections.abc import Iterator

from . import naming
from .images import Rejected
from .records import ServiceRecord, VolumeMount, VolumeRecord
from .specs import Mount

DEFAULT_DRIVER = "corestore"
LOCAL_DRIVER = "local"
"""Docker's own driver refuses options it does not know, so it gets the record's options only."""


def make_mounts(service: ServiceRecord) -> tuple[Mount, ...]:
    """All mounts of a service, bind mounts first.

    Raises Rejected with every problem found: relative or doubled paths, unusable names.
    """
    problems: list[str] = []
    mounts: list[Mount] = []
    binds = service.resources.volume_mounts if service.resources is not None else ()
    for index, bind in enumerate(binds):
        found = list(_bind_problems(bind, f"resources.volumeMounts[{index}]"))
        problems += found
        if not found:
            mounts.append(Mount(type="bind", source=bind.host_fs_path, target=bind.container_fs_path))
    for index, volume in enumerate(service.volumes):
        found = list(_volume_problems(volume, f"volumes[{index}]"))
        problems += found
        if not found:
            mounts.append(_volume_mount(service, volume))
    seen: set[str] = set()
    for mount in mounts:
        target = _plain(mount.target)
        if target in seen:
            problems.append(f"two mounts at {target}")
        seen.add(target)
    if problems:
        raise Rejected(*problems)
    return tuple(mounts)


def _plain(path: str) -> str:
    """The shortest spelling of an absolute path. (POSIX lets two leading slashes mean something else; Linux does not.)"""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def _path_problems(path: str, where: str) -> Iterator[str]:
    if not path.startswith("/"):
        yield f"{where} is not an absolute path"
    elif "\0" in path:
        yield f"{where} contains a null character"


def _target_problems(path: str, where: str) -> Iterator[str]:
    yield from _path_problems(path, where)
    if path.startswith("/") and _plain(path) == "/":
        yield f"{where} is the root directory"


def _bind_problems(bind: VolumeMount, where: str) -> Iterator[str]:
    yield from _path_problems(bind.host_fs_path, f"{where}.hostFsPath")
    yield from _target_problems(bind.container_fs_path, f"{where}.containerFsPath")


def _volume_problems(volume: VolumeRecord, where: str) -> Iterator[str]:
    yield from _target_problems(volume.mount_path, f"{where}.mountPath")
    if volume.name and not naming.is_volume_name(volume.name):
        yield f"{where}.name is not a Docker volume name (two or more of A-Z a-z 0-9 _ . -)"


def _volume_mount(service: ServiceRecord, volume: VolumeRecord) -> Mount:
    driver = volume.driver or DEFAULT_DRIVER
    facts = {
        "serviceId": service.id,
        "serviceName": service.name,
        "mountPath": volume.mount_path,
        "backup": "true" if volume.backup else "false",
    }
    options = dict(volume.options) if driver == LOCAL_DRIVER else {**facts, **volume.options}
    return Mount(
        type="volume",
        source=volume.name or naming.volume_name(service.id, volume.mount_path),
        target=volume.mount_path,
        read_only=volume.read_only,
        driver=driver,
        options=options,
        labels={naming.PREFIX + key: value for key, value in facts.items()},
    )
