"""File and line for reasons that rendering and planning have found: they name fields, and records know where these are.

What the decoder has found has its place already.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve

from coreflow.domain.records.models import Records, ServiceRecord
from coreflow.domain.records.places import place_of
from coreflow.domain.records.shapes import shape_of

from .desired import Note, Rejection

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\.[^\s:,;\[]+|\[[0-9]+\])*")
_SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "secret": ("secretBundleId", "additionalSecretBundleIds"),
    "image": ("imageVersion", "imageId", "registryTarget"),
    "external": ("imageId",),
    "the host": ("domains", "ports"),
    "the name": ("name",),
    "a service": ("name",),
    "another record": ("name",),
    "the volume": ("volumes",),
    "the mount": ("volumes", "resources"),
    "no image": ("registryTarget",),
}
"""The fields that a reason is about which begins with these words."""
_GROUP = re.compile(r"secret group (?P<id>.+) has no value for environment ", re.DOTALL)
_SHARED_ID = re.compile(r"[0-9]+ service records have the id ")
PLACES_SHOWN = 5
_HAS_PLACE = " @ $"


def located(rejections: tuple[Rejection, ...], records: Records) -> tuple[Rejection, ...]:
    """Add file and line to reasons that have none, of services that were written by hand.

    What is held is no fault of a record, and has no place in it.
    """
    places = records.origin.places
    paths = _paths([one for one in rejections if not one.held], records) if places is not None else {}
    if places is None or not paths:
        return rejections
    groups = _groups((reason for one in rejections for reason in one.reasons), records)
    known = places.below([*(path for several in paths.values() for path in several), *groups.values()])
    return tuple(
        evolve(
            one,
            reasons=tuple(_with_places(reason, groups.get(reason), several, known) for reason in one.reasons),
        )
        if (several := paths.get((one.unit, one.name))) and not one.held
        else one
        for one in rejections
    )


def located_notes(notes: tuple[Note, ...], records: Records) -> tuple[Note, ...]:
    """Add file and line to notes about secret groups that were written by hand."""
    places = records.origin.places
    groups = _groups((note.text for note in notes), records) if places is not None else {}
    if places is None or not groups:
        return notes
    known = places.below(groups.values())
    return tuple(
        evolve(note, text=_with_place(note.text, path, known)) if (path := groups.get(note.text)) else note
        for note in notes
    )


def _groups(texts: Iterable[str], records: Records) -> dict[str, str]:
    """The paths of the secret groups that texts are about."""
    found: dict[str, str] = {}
    for text in texts:
        match = _GROUP.match(text)
        path = records.origin.path_of_group(match["id"]) if match is not None else None
        if path is not None:
            found[text] = path
    return found


def _paths(rejections: Iterable[Rejection], records: Records) -> dict[tuple[str, str], list[str]]:
    """The paths of the records of rejections, in the order of the document."""
    wanted = {(one.unit, one.name) for one in rejections}
    units = {unit for unit, _ in wanted}
    found: dict[str, list[str]] = {}
    for number, service in enumerate(records.services if units else ()):
        if service.id in units:
            found.setdefault(service.id, []).append(records.origin.path(number))
    nameless: dict[str, list[str]] = {}
    for rejected in records.rejected:
        if rejected.kind == "service" and rejected.path:
            known, key = (nameless, rejected.name) if rejected.id is None else (found, rejected.id)
            known.setdefault(key or "(no name)", []).append(rejected.path)
    paths = {(unit, name): found.get(unit) if unit else nameless.get(name) for unit, name in wanted}
    return {key: several for key, several in paths.items() if several is not None}


def _with_places(reason: str, group: str | None, paths: Sequence[str], places: Mapping[str, str]) -> str:
    """A reason with the place of the first record of an id, or, where it is about the id, with those of all.

    One about a secret group has that of the group.
    """
    if group is not None:
        return _with_place(reason, group, places)
    if not _SHARED_ID.match(reason):
        return _with_place(reason, paths[0], places)
    known = [place for path in paths if (place := place_of(path, places)) is not None]
    return f"{reason} ({' and '.join(known[:PLACES_SHOWN])})" if known else reason


def _with_place(reason: str, path: str, places: Mapping[str, str]) -> str:
    if _HAS_PLACE in reason:
        return reason
    for field in _fields_of(reason):
        for base in (f"{path}.data", path):
            place = _below(base, field, places)
            if place is not None:
                return f"{reason} ({place})"
    place = place_of(path, places)
    return reason if place is None else f"{reason} ({place})"


def _fields_of(reason: str) -> Iterator[str]:
    """The fields that a reason may be about: the one that it begins with, or those of what it begins with."""
    match = _FIELD.match(reason)
    if match is not None and _first(match[0]) in shape_of(ServiceRecord).members:
        yield match[0]
    for words, fields in _SUBJECTS.items():
        if reason.startswith(f"{words} "):
            yield from fields


def _below(base: str, field: str, places: Mapping[str, str]) -> str | None:
    """The place of a field, or of what is around it inside the record."""
    first = _first(field)
    return place_of(f"{base}.{field}", places) if f"{base}.{first}" in places else None


def _first(field: str) -> str:
    return re.split(r"[.\[]", field, maxsplit=1)[0]
