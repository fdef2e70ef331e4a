"""Verification of what a Corestore reports: one function for each fact, the same for all callers.

Each returns what speaks against it, or an empty string. What cannot be verified is believed.
"""

from collections.abc import Iterable

from attrs import frozen

from coreflow.domain.ids import ServiceId

from .parts import Part
from .snapshots import VOLUME, ArchiveObject, Snapshot, StoredVolume

FOREIGN = "Corestore has it as another service's: it could not be restored"


def against_snapshot(
    taken: Snapshot, listed: Iterable[Snapshot], part: Part, service_id: ServiceId, tag: tuple[str, str]
) -> str:
    """A snapshot that was taken: is it listed, of this part and this service, with the tag by which it is found again?"""
    if taken.belongs_to not in (None, service_id):
        return FOREIGN
    found = next((one for one in listed if one.id == taken.id), None)
    if found is None:
        return f"Corestore says that it took snapshot {taken.id}, which it does not list"
    if found.belongs_to not in (None, service_id):
        return FOREIGN
    if found.kind != part.kind or (part.kind == VOLUME and found.name not in ("", part.name)):
        return f"Corestore lists snapshot {taken.id} as one of something else"
    name, value = tag
    if found.tags.get(name) != value:
        return f"Corestore lists snapshot {taken.id} without the tag {name} that it was taken with: it is another one"
    return ""


def against_volume(name: str, service_id: ServiceId, listed: Iterable[StoredVolume]) -> str:
    """A volume that was made: is it listed, and this service's?"""
    found = next((one for one in listed if one.name == name), None)
    if found is None:
        return f"Corestore says that it made volume {name}, which it does not list"
    if found.service_id not in (None, service_id):
        return f"Corestore has volume {name} as another service's"
    return ""


@frozen
class Measure:
    """The size of a volume and of a snapshot of it, taken while nobody wrote: do both count the same way?"""

    volume: int | None
    snapshot: int | None

    @property
    def is_fit(self) -> bool:
        """Return whether sizes of volumes and of snapshots can be compared. Two that are empty say nothing."""
        return bool(self.volume) and self.volume == self.snapshot


def is_unchanged(name: str, listed: Iterable[StoredVolume], measure: Measure | None) -> bool:
    """Return whether a volume that refused to be overwritten has the size that it had. An empty one says nothing."""
    found = next((one for one in listed if one.name == name), None)
    return (
        found is not None
        and measure is not None
        and bool(measure.volume)
        and found.size_bytes == measure.volume
    )


def against_restore(
    name: str, size: int | None, listed: Iterable[StoredVolume], measure: Measure | None
) -> str:
    """A volume that was restored: is it still listed, with the size of the snapshot where sizes can be compared?"""
    found = next((one for one in listed if one.name == name), None)
    if found is None:
        return f"Corestore says that it restored volume {name}, which it does not list"
    if measure is None or not measure.is_fit or size is None or found.size_bytes in (None, size):
        return ""
    return (
        f"Corestore says that it restored volume {name}, which has {found.size_bytes} bytes instead of {size}"
    )


def against_import(wanted: Iterable[ArchiveObject], listed: Iterable[ArchiveObject]) -> str:
    """Files that were put into an archive: are all of them listed as they were sent?"""
    there = {obj.path: obj for obj in listed}
    for obj in wanted:
        if obj.path not in there:
            return f"Corestore says that it stored archive object {obj.path}, which it does not list"
        if there[obj.path] != obj:
            return f"Corestore lists archive object {obj.path} with another content than was sent"
    return ""


def against_export(wanted: Iterable[str], listed: Iterable[str]) -> str:
    """Copies that were handed over: are all of them listed?"""
    there = set(listed)
    lost = next((name for name in wanted if name not in there), None)
    return "" if lost is None else f"archive object {lost} was taken, and is not listed"
