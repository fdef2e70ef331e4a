"""Corestore's answers about volumes, snapshots and its archive, read in whichever of the likely shapes.

An entry of a list that cannot be used is left out, as if it were not there. Not so of the archive: whoever copies an
archive and leaves something out has lost data.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from coreflow.adapters.archive import is_path
from coreflow.adapters.names import Member
from coreflow.domain.backup.snapshots import SERVICE_TAG, ArchiveObject, Snapshot, SnapshotKind, StoredVolume
from coreflow.domain.errors import Refused
from coreflow.domain.ids import ServiceId

from . import methods as m

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOISE = re.compile(r"[^a-z0-9]+")
_DIGITS = 18
"""Of the longest number: what is longer is none of bytes or milliseconds."""


def volumes(body: object) -> tuple[StoredVolume, ...] | None:
    """The volumes of a list. None: it is none."""
    entries = _entries(body, m.VOLUMES)
    if entries is None:
        return None
    return tuple(
        StoredVolume(name=name, service_id=_owner(raw), size_bytes=_number(m.SIZE.of(raw)))
        for raw in entries
        if (name := _text(m.ITEM_NAME.of(raw)))
    )


def snapshots(body: object) -> tuple[Snapshot, ...] | None:
    """The snapshots of a list. None: it is none."""
    entries = _entries(body, m.SNAPSHOTS)
    if entries is None:
        return None
    found = (_snapshot(raw, kind, "", {}) for raw in entries if (kind := _kind(m.KIND.of(raw))) is not None)
    return tuple(snapshot for snapshot in found if snapshot is not None)


def snapshot(body: object, kind: SnapshotKind, name: str, tags: Mapping[str, str]) -> Snapshot | None:
    """The one snapshot of that kind that was taken. What the answer does not say is as it was asked for."""
    found = [
        one
        for raw in _taken(body)
        if m.KIND.of(raw) is None or _kind(m.KIND.of(raw)) == kind
        if (one := _snapshot(raw, kind, name, tags)) is not None
    ]
    return found[0] if len({one.id for one in found}) == 1 else None


def objects(body: object) -> tuple[ArchiveObject, ...] | None:
    """The files of a list. None: it is none. Raises Refused when an entry cannot be used."""
    entries = _entries(body, m.OBJECTS)
    if entries is None:
        return None
    found: dict[str, ArchiveObject] = {}
    for raw in entries:
        obj = archive_object(raw)
        if obj is None or found.setdefault(obj.path, obj) != obj:
            raise Refused("the list of the archive has an entry that cannot be used")
    return tuple(found.values())


def archive_object(raw: object) -> ArchiveObject | None:
    """One file, whole and safe, or None."""
    path, size, digest = m.OBJECT_PATH.of(raw), _number(m.SIZE.of(raw)), m.SHA256.of(raw)
    if not isinstance(path, str) or not is_path(path) or size is None or not isinstance(digest, str):
        return None
    digest = digest.strip().lower().removeprefix("sha256:")
    return ArchiveObject(path=path, size=size, sha256=digest) if _SHA256.fullmatch(digest) else None


def _entries(body: object, member: Member) -> list[object] | None:
    found = body if isinstance(body, list) else member.of(body)
    return found if isinstance(found, list) else None


def _taken(body: object) -> Iterator[object]:
    """Yield where a snapshot that was taken may stand in the answer."""
    for holder in (body, m.SNAPSHOT.of(body), m.SNAPSHOTS.of(body)):
        if isinstance(holder, list):
            yield from holder
        elif holder is not None:
            yield holder


def _snapshot(raw: object, kind: SnapshotKind, name: str, tags: Mapping[str, str]) -> Snapshot | None:
    found = _text(m.ID.of(raw))
    if not found:
        return None
    told = m.TAGS.of(raw)
    return Snapshot(
        id=found,
        kind=kind,
        name=_text(m.ITEM_NAME.of(raw)) or name,
        service_id=_service(m.ITEM_SERVICE.of(raw)),
        created_ms=_moment(m.CREATED.of(raw)),
        size_bytes=_number(m.SIZE.of(raw)),
        tags=_tags(told) if isinstance(told, Mapping) else dict(tags),
    )


def _tags(raw: Mapping[object, object]) -> dict[str, str]:
    return {
        str(name): value if isinstance(value, str) else _text(value)
        for name, value in raw.items()
        if isinstance(value, str) or _text(value)
    }


def _owner(raw: object) -> ServiceId | None:
    """Return whose a volume is: as it says, or as the options say with which it was made."""
    return (
        _service(m.ITEM_SERVICE.of(raw))
        or _service(_tag(m.OPTIONS.of(raw)))
        or _service(_tag(m.LABELS.of(raw)))
    )


def _tag(raw: object) -> object:
    return raw.get(SERVICE_TAG) if isinstance(raw, Mapping) else None


def _service(raw: object) -> ServiceId | None:
    text = _text(raw)
    return ServiceId(text) if text else None


def _kind(raw: object) -> SnapshotKind | None:
    spelled = _NOISE.sub("", raw.lower()) if isinstance(raw, str) else ""
    return next((kind for kind, spellings in m.KINDS.items() if spelled in spellings), None)


def _text(raw: object) -> str:
    """A text, or a number as one. Empty: neither."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    return raw if isinstance(raw, str) and raw.strip() else ""


def _number(raw: object) -> int | None:
    """A integer that is not negative."""
    if isinstance(raw, str):
        raw = raw.strip()
        if not raw.isascii() or not raw.isdecimal() or len(raw) > _DIGITS:
            return None
        return int(raw)
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    fine = isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 10**_DIGITS
    return raw if fine and isinstance(raw, int) else None


def _moment(raw: object) -> int:
    """Milliseconds since 1970; 0 where that is not known."""
    number = _number(raw)
    if number is not None or not isinstance(raw, str):
        return number or 0
    try:
        moment = datetime.fromisoformat(raw)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0
