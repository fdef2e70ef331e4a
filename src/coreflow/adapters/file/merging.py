"""Several files as one document: lists follow each other, in the order of the files' names; what is there once stays so.

What two files have both, a record of one id or a certificate of one host, is refused in either, with the other's place: a
copy that somebody forgot must not win by its file's name.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from coreflow.adapters.documents import Lines, parse
from coreflow.domain.errors import InvalidRecord, Problem
from coreflow.domain.records.converter import Unclear, expected
from coreflow.domain.records.keys import HIDDEN, is_field_name
from coreflow.domain.records.shapes import is_own

from .sources import Sources

Places = Mapping[str, str]
"""File and line of a value, by its path in the merged document."""


_CERTIFICATES = "certificates"


@frozen
class Part:
    """One file, parsed."""

    path: Path
    document: object = field(repr=False)
    lines: Lines = field(repr=False)

    def place(self, key: str) -> str:
        """File and line of a member."""
        return f"{self.path}:{self.lines().get(f'$.{key}', 1)}"


def parse_all(sources: Sources) -> tuple[Part, ...]:
    """The documents of all files. Raises InvalidRecord with what is wrong in the first that cannot be parsed."""
    return tuple(Part(one.name, *parse(one.name, one.data)) for one in sources.files)


def places_of(parts: tuple[Part, ...]) -> Places:
    """Find file and line of every value: the parser runs once more over each file."""
    return dict(Locator(parts).every())


class Locator:
    """Finds file and line of values, whenever somebody asks; what was asked for once is kept."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        """Keep of the parts what it takes: not their documents, which are large."""
        self._files: list[tuple[Path, Lines, dict[str, int]]] = []
        counts: dict[str, int] = {}
        for part in parts:
            lists = _lists(part.document)
            self._files.append((part.path, part.lines, {key: counts.get(key, 0) for key in lists}))
            for key, value in lists.items():
                counts[key] = counts.get(key, 0) + len(value)
        self._asked: frozenset[str] = frozenset()
        self._known: dict[str, str] = {}

    def every(self) -> Iterator[tuple[str, str]]:
        """All paths with their places; of one path, the first is right."""
        seen: set[str] = set()
        for file, lines, offsets in self._files:
            for path, line in lines().items():
                whole = _shifted(path, offsets)
                if path != "$" and whole not in seen:
                    seen.add(whole)
                    yield whole, f"{file}:{line}"

    def below(self, paths: Iterable[str]) -> Places:
        """Return the places of everything at these paths or below; the files are gone through for new paths only."""
        new = frozenset(paths) - self._asked
        if new:
            found = {path: place for path, place in self.every() if _is_below(path, new)}
            self._asked, self._known = self._asked | new, self._known | found
        return self._known


def _is_below(path: str, tops: frozenset[str]) -> bool:
    """Tell whether a path is one of those, or leads on from one."""
    if path in tops:
        return True
    ends = (index for index, letter in enumerate(path) if letter in ".[")
    return any(path[:end] in tops for end in ends)


def _lists(document: object) -> dict[str, list[object]]:
    if type(document) is not dict:
        return {}
    return {key: value for key, value in document.items() if type(key) is str and type(value) is list}


def _shifted(path: str, offsets: Mapping[str, int]) -> str:
    """A path of one file as a path of the merged document: its lists begin where those of earlier files end."""
    key, bracket, rest = path.removeprefix("$.").partition("[")
    offset = offsets.get(key, 0) if bracket else 0
    index, _, behind = rest.partition("]")
    return f"$.{key}[{int(index) + offset}]{behind}" if offset else path


def merged(parts: tuple[Part, ...]) -> object:
    """One document of all parts; that of a single file is as it is.

    Raises InvalidRecord when a file holds no mapping, or when two files have what there can be once.
    """
    if len(parts) == 1:
        return parts[0].document
    whole: dict[str, Any] = {}
    owners: dict[str, Part] = {}
    problems: list[Problem] = []
    for part in parts:
        if type(part.document) is not dict:
            problems.append(Problem(str(part.path), expected(dict, part.document)))
            continue
        for key, value in part.document.items():
            if not _add(whole, key, value):
                text = f"{_told(key)} is in {owners[key].place(key)} already, and there can be one only"
                problems.append(Problem(part.place(key), text))
            owners.setdefault(key, part)
    if problems:
        raise InvalidRecord(*problems)
    _refuse_duplicates(whole, parts)
    return whole


def _told(key: str) -> str:
    """A member as messages name it: anything may have been taken for a cluster file."""
    return key if is_field_name(key) else HIDDEN


def _add(whole: dict[str, Any], key: str, value: object) -> bool:
    """Add one member of a file; False where it cannot be added to what is there."""
    known = whole.get(key)
    if known is None or value is None or is_own(key):
        whole[key] = value if known is None else known
    elif type(known) is list and type(value) is list:
        whole[key] = [*known, *value]
    elif key == _CERTIFICATES and type(known) is dict and type(value) is dict:
        whole[key] = {**known, **value}
    else:
        return False
    return True


# what two files have both


def _refuse_duplicates(whole: dict[str, Any], parts: tuple[Part, ...]) -> None:
    """Put, in the merged document, something that cannot be read in the place of what two files have both."""
    ids = {key: _duplicate_ids(key, parts) for key in _lists(whole)}
    hosts = _duplicate_hosts(parts)
    if not hosts and not any(ids.values()):
        return
    places = places_of(parts)
    for key, found in ids.items():
        for identity, indices in found.items():
            paths = {index: f"$.{key}[{index}]" for index in indices}
            for index, path in paths.items():
                others = _others([places[other] for other in paths.values() if other != path])
                unclear = Unclear(f"the same id is in {others}", identity)
                whole[key][index] = {**whole[key][index], "id": unclear}
    for host, owners in hosts.items():
        text = _others([part.place(f"{_CERTIFICATES}.{host}") for part in owners])
        whole[_CERTIFICATES][host] = Unclear(f"{len(owners)} files have it: {text}")


def _others(places: list[str]) -> str:
    return " and ".join(places)


def _duplicate_ids(key: str, parts: tuple[Part, ...]) -> dict[str, list[int]]:
    """The ids of records that several files have, and where these are in the merged list."""
    found: dict[str, list[tuple[int, int]]] = {}
    start = 0
    for number, part in enumerate(parts):
        records = _lists(part.document).get(key, [])
        for index, raw in enumerate(records, start):
            identity = raw.get("id") if type(raw) is dict else None
            if type(identity) is str:
                found.setdefault(identity, []).append((number, index))
        start += len(records)
    return {
        identity: [index for _, index in each]
        for identity, each in found.items()
        if len({number for number, _ in each}) > 1
    }


def _duplicate_hosts(parts: tuple[Part, ...]) -> dict[str, list[Part]]:
    """The keys of certificates that several files have."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        certificates = part.document.get(_CERTIFICATES) if type(part.document) is dict else None
        for host, value in (certificates if type(certificates) is dict else {}).items():
            if value is not None:
                found.setdefault(host, []).append(part)
    return {host: owners for host, owners in found.items() if len(owners) > 1}
