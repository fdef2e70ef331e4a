"""Bind mounts and first-class volumes -> mounts.

Volumes are made by Docker where a task first needs them, from what the mount says; an existing volume is never changed
or removed by coreflow.
"""

import posixpath
from collections.abc import Iterable, Iterator, Mapping

from coreflow.domain.records.models import ServiceRecord, VolumeMount, VolumeRecord
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import Rejected
from coreflow.domain.swarm.specs import Mount

DEFAULT_DRIVER = "corestore"
LOCAL_DRIVER = "local"
"""Docker's own driver refuses options it does not know, so it gets the record's options only."""
_LOCAL_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "type": ("device",),
    "device": ("type",),
    "o": ("device", "type"),
    "size": (),
}
"""The options of that driver, and which others each one needs (source: moby's `validateOpts`; 20.10 and 26.1)."""
PATH_LIMIT, PART_LIMIT = 3800, 255
"""Bytes of a path and of each part of it: Linux takes 4095, of which the engine needs some for where the container is."""
DEPTH_LIMIT = 255
"""Parts of a volume's path in its container: an engine follows no more when it makes one (measured on 20.10 and 26.1)."""
_KERNELS = frozenset({"/proc", "/dev"})
_KERNEL_FOLDERS = ("/proc/", "/dev/pts/", "/dev/mqueue/")
_FILES = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"})
_DEVICES = frozenset({"/dev/null", "/dev/ptmx"})
"""With a volume there, or any mount below, no container starts (measured on 20.10)."""


def make_mounts(service: ServiceRecord, live: Iterable[Mount] = ()) -> tuple[Mount, ...]:
    """All mounts of a service, bind mounts first, with paths in their shortest spelling.

    `live` are mounts that the service has now. One that is spelt otherwise there stays so: its data is in a volume whose
    name comes from that spelling, and nothing restarts because a path is written in another way.
    Raises Rejected with every problem found: relative or duplicate paths, unusable names.
    """
    problems: list[str] = []
    mounts: list[Mount] = []
    there = {plain(mount.target): mount for mount in live}
    binds = service.resources.volume_mounts if service.resources is not None else ()
    for index, bind in enumerate(binds):
        found = list(_bind_problems(bind, f"resources.volumeMounts[{index}]"))
        problems += found
        if not found:
            mounts.append(_bind_mount(bind, there))
    for index, volume in enumerate(service.volumes):
        found = list(_volume_problems(volume, f"volumes[{index}]"))
        problems += found
        if not found:
            mounts.append(_volume_mount(service, volume, there))
    seen: set[str] = set()
    for mount in mounts:
        target = plain(mount.target)
        if target in seen:
            problems.append(f"two mounts at {target}")
        seen.add(target)
    if problems:
        raise Rejected(*problems)
    return tuple(mounts)


def plain(path: str) -> str:
    """The shortest spelling of an absolute path, as the engine itself uses it: `..` goes up in the text, not on the disk.

    (Measured on 20.10 and 26.1, for sources of bind mounts, too. POSIX lets two leading slashes mean something else; Linux
    does not.) A path that is not absolute stays as it is.
    """
    if not path.startswith("/"):
        return path
    if "//" not in path and "/." not in path and not path.endswith("/"):  # nearly all
        return path
    return posixpath.normpath(f"/{path.lstrip('/')}")


def is_spelt_otherwise(mount: Mount) -> bool:
    """Return whether a mount has a path that is not in its shortest spelling."""
    return mount.target != plain(mount.target) or (
        mount.type == "bind" and mount.source != plain(mount.source)
    )


def _path_problems(path: str, where: str) -> Iterator[str]:
    if not path.startswith("/"):
        yield f"{where} is not an absolute path"
    elif "\0" in path:
        yield f"{where} contains a null character"
    elif len(path.encode()) > PATH_LIMIT or any(len(part.encode()) > PART_LIMIT for part in path.split("/")):
        yield f"{where} is longer than {PATH_LIMIT} bytes, or a part of it than {PART_LIMIT}"


def _target_problems(path: str, where: str) -> Iterator[str]:
    yield from _path_problems(path, where)
    if path.startswith("/"):
        place = plain(path)
        if place == "/":
            yield f"{where} is the root directory"
        elif place in _KERNELS or place.startswith(_KERNEL_FOLDERS):
            yield f"{where} belongs to the kernel: no container starts with a mount there"
        elif file := next((f for f in _FILES | _DEVICES if place.startswith(f"{f}/")), None):
            yield f"{where} is below {file}, which is no directory: no container starts with a mount there"


def _bind_problems(bind: VolumeMount, where: str) -> Iterator[str]:
    yield from _path_problems(bind.host_fs_path, f"{where}.hostFsPath")
    yield from _target_problems(bind.container_fs_path, f"{where}.containerFsPath")


def _volume_problems(volume: VolumeRecord, where: str) -> Iterator[str]:
    yield from _target_problems(volume.mount_path, f"{where}.mountPath")
    place = plain(volume.mount_path)
    if place.count("/") > DEPTH_LIMIT:
        yield f"{where}.mountPath has more than {DEPTH_LIMIT} parts"
    if place in _FILES:
        yield f"{where}.mountPath is a file that Docker makes: no volume can be there"
    elif place in _DEVICES:
        yield f"{where}.mountPath is a device that every container needs: no volume can be there"
    if volume.name and not naming.is_volume_name(volume.name):
        yield f"{where}.name is not a Docker volume name (two or more of A-Z a-z 0-9 _ . -, at most {naming.VOLUME_NAME_LIMIT})"
    if (volume.driver or DEFAULT_DRIVER) == LOCAL_DRIVER:
        yield from _local_problems(volume.options, f"{where}.options")


def _local_problems(options: Mapping[str, str], where: str) -> Iterator[str]:
    for name in sorted(options.keys() - _LOCAL_OPTIONS.keys()):
        yield f"{where}.{name} is no option of the driver {LOCAL_DRIVER} ({', '.join(sorted(_LOCAL_OPTIONS))})"


def lacking_options(mounts: Iterable[Mount]) -> Iterator[str]:
    """Volumes of Docker's own driver that can only be used if they exist already, and what making them would take."""
    for mount in mounts:
        if mount.driver == LOCAL_DRIVER:
            needed = {other for name in mount.options for other in _LOCAL_OPTIONS.get(name, ())}
            for name in sorted(needed - mount.options.keys()):
                yield f"the volume at {mount.target} has to exist: without the option {name} none is made"


def _bind_mount(bind: VolumeMount, there: Mapping[str, Mount]) -> Mount:
    source, target = plain(bind.host_fs_path), plain(bind.container_fs_path)
    live = there.get(target)
    if live is not None and live.type == "bind":
        target = live.target
        source = live.source if plain(live.source) == source else source
    return Mount(type="bind", source=source, target=target)


def _volume_mount(service: ServiceRecord, volume: VolumeRecord, there: Mapping[str, Mount]) -> Mount:
    driver = volume.driver or DEFAULT_DRIVER
    path = _spelling(service, volume, there.get(plain(volume.mount_path)))
    facts = {
        "serviceId": service.id,
        "serviceName": service.name,
        "mountPath": path,
        "backup": "true" if volume.backup else "false",
    }
    options = dict(volume.options) if driver == LOCAL_DRIVER else {**facts, **volume.options}
    return Mount(
        type="volume",
        source=volume.name or naming.volume_name(service.id, path),
        target=path,
        read_only=volume.read_only,
        driver=driver,
        options=options,
        labels={naming.PREFIX + key: value for key, value in facts.items()},
    )


def _spelling(service: ServiceRecord, volume: VolumeRecord, live: Mount | None) -> str:
    """The path of a volume: the shortest, unless the service runs with another spelling that coreflow gave it."""
    if live is not None and live.type == "volume":
        is_its_own = live.source == (volume.name or naming.volume_name(service.id, live.target))
        if is_its_own and live.labels.get(f"{naming.PREFIX}mountPath") == live.target:
            return live.target
    return plain(volume.mount_path)
