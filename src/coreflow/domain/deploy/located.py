"""File and line for reasons that rendering and planning have found: they name fields, and records know where these are.

What the decoder has found has its place already.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve

from coreflow.domain.records.models import Records, ServiceRecord
from coreflow.domain.records.places import place_of
from coreflow.domain.records.shapes import shape_of

from .desired import Rejection

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
    known = places.below(path for several in paths.values() for path in several)
    return tuple(
        evolve(one, reasons=tuple(_with_places(reason, several, known) for reason in one.reasons))
        if (several := paths.get((one.unit, one.name))) and not one.held
        else one
        for one in rejections
    )


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


def _with_places(reason: str, paths: Sequence[str], places: Mapping[str, str]) -> str:
    """A reason with the place of the first record of an id, or, where it is about the id, with those of all."""
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
