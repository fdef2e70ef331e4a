"""Unknown fields: typing errors, more often than not.

A field is unknown where no record has it at this place. What was probably meant is the nearest name: one of the same
level, else one of another level of the same record. Values are not looked at, but for the fields inside them.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import islice
from typing import Any

from attrs import evolve, frozen

from .about import About
from .converter import Unclear, printable
from .keys import HIDDEN, before_separator, is_field_name, is_word, spelt
from .models import ClusterRecord, UnknownField
from .nearest import Elsewhere, is_near, nearest, paths_of
from .shapes import (
    Anything,
    Choice,
    Fields,
    Listed,
    Mapped,
    Member,
    Shape,
    cluster_file,
    fields_of,
    is_own,
    shape_of,
    walk,
)

FOUND_LIMIT = 20
"""Unknown fields of one record that are told: more of them are no slips."""


GUARDED = frozenset(
    {"Certificate", "ExternalRegistry", "Gateway", "RegistryLogin", "SecretGroup", "SecretValue"}
)
"""Mappings that hold secrets, by the names of their shapes."""

Found = tuple[UnknownField, ...]


def unknown_in(raw: object, kind: type) -> Found:
    """The unknown fields of one raw record of class `kind`, with paths that begin at the record."""
    return _found(raw, shape_of(kind))


def below(found: Found, path: str, kind: str, identity: str | None, name: str | None) -> Found:
    """The unknown fields of a record that is at `path`, and which record that is."""
    return tuple(evolve(one, above=path + one.above, kind=kind, id=identity, record=name) for one in found)


def unknown_in_document(document: Mapping[str, Any], path: str = "$") -> Found:
    """The unknown keys of a cluster document, and the unknown fields of its cluster; not those of the other records."""
    level, elsewhere = _level(cluster_file()), _elsewhere(cluster_file())
    keys = [key for key in document if key not in level.known and not is_own(str(key))]
    top = (_unknown(path, key, level, elsewhere) for key in keys)
    raw = document.get("configData")
    shape = shape_of(ClusterRecord) if document.get("services") is not None else _with_containers()
    cluster = below(_found(raw, shape), f"{path}.configData", "cluster", None, None)
    return (*islice(top, FOUND_LIMIT), *cluster)


@cache
def _with_containers() -> Fields:
    """The cluster as it was when it held the services; these are looked at one by one."""
    shape = shape_of(ClusterRecord)
    services = Member(shape=Anything(), about=About(older=True))
    return evolve(shape, members={**shape.members, "containers": services})


# the walk


@frozen(eq=False)
class _Level:
    """One mapping with known fields, ready to be compared with what is there."""

    names: tuple[str, ...]
    known: frozenset[str]
    nested: tuple[tuple[str, Shape], ...]
    """The members that may have fields inside."""
    instead_of: tuple[tuple[str, str], ...]
    is_guarded: bool = False
    """True where a value is a secret: a key there may be one, too, even if it is a word."""


@cache
def _level(shape: Fields, *, inside: bool = False) -> _Level:
    members = shape.inside if inside else shape.members
    return _Level(
        tuple(members),
        frozenset(members),
        tuple((name, one.shape) for name, one in members.items() if _has_keys(one.shape)),
        tuple((name, one.instead_of) for name, one in members.items() if one.instead_of is not None),
        shape.name in GUARDED,
    )


def _has_keys(shape: Shape) -> bool:
    """Tell whether there are keys inside that can be looked at."""
    is_plain_mapping = isinstance(shape, Mapped) and not isinstance(shape.of, Anything)
    return is_plain_mapping or fields_of(shape) is not None


@cache
def _elsewhere(root: Fields) -> Elsewhere:
    return tuple(paths_of((path, shape.members) for path, shape in walk(root)))


def _found(raw: object, root: Fields) -> Found:
    if _check_of(root)(raw):
        return ()
    return tuple(islice(_walk(raw, root, "", root), FOUND_LIMIT))


Check = Callable[[Any], bool]
"""Whether all of a value is known: quick, since that is the common case."""


@cache
def _check_of(shape: Shape) -> Check:
    match shape:
        case Fields():
            return _check_fields(shape)
        case Listed(of=inner):
            return partial(_check_each, _check_of(inner))
        case Mapped(of=inner):
            return partial(_check_values, _check_of(inner))
        case _:
            found = fields_of(shape)
            return _check_fields(found) if found is not None else _is_fine


def _is_fine(_: object) -> bool:
    return True


def _check_each(check: Check, raw: Any) -> bool:
    return type(raw) is not list or all(map(check, raw))


def _check_values(check: Check, raw: Any) -> bool:
    return type(raw) is not dict or (None not in raw.values() and all(map(check, raw.values())))


def _check_fields(shape: Fields) -> Check:
    envelope, beside = shape.envelope, {shape.envelope, *shape.beside}
    flat = _check_level(_level(shape))
    if envelope is None:
        return flat
    inner = _check_level(_level(shape, inside=True))

    def check(raw: Any) -> bool:
        enclosed = raw.get(envelope) if type(raw) is dict else None
        return raw.keys() <= beside and inner(enclosed) if type(enclosed) is dict else flat(raw)

    return check


def _check_level(level: _Level) -> Check:
    known, nested = level.known, {name: _check_of(shape) for name, shape in level.nested}
    older = {name for name, _ in level.instead_of}

    def check(raw: Any) -> bool:
        if type(raw) is not dict:
            return True
        if not raw.keys() <= known or not older.isdisjoint(raw):
            return False
        for key in nested.keys() & raw.keys():  # noqa: SIM110 - a generator takes longer than what it does
            if not nested[key](raw[key]):
                return False
        return True

    return check


def _walk(raw: object, shape: Shape, path: str, root: Fields) -> Iterator[UnknownField]:
    kind = type(shape)
    if kind is Fields and type(raw) is dict:
        assert isinstance(shape, Fields)  # noqa: S101 - for the type checker
        yield from _fields(raw, shape, path, root)
    elif isinstance(shape, Listed) and type(raw) is list:
        for index, item in enumerate(raw):
            if type(item) is dict or type(item) is list:
                yield from _walk(item, shape.of, f"{path}[{index}]", root)
    elif isinstance(shape, Mapped) and type(raw) is dict:
        yield from without_space(raw, path)
        for key, item in raw.items():
            yield from _walk(item, shape.of, f"{path}.{spelt(key)}", root)
    elif isinstance(shape, Choice):
        inner = fields_of(shape)
        if inner is not None:
            yield from _walk(raw, inner, path, root)


def without_space(raw: Mapping[Any, Any], path: str = "") -> Iterator[UnknownField]:
    """Yield the keys of a free mapping that hold their value, too, since no space is between the two."""
    if None in raw.values():
        for key, item in raw.items():
            if item is None and ":" in str(key):
                yield UnknownField(above=path, key=_word(key), missing_space=True)


def _fields(raw: dict[str, Any], shape: Fields, path: str, root: Fields) -> Iterator[UnknownField]:
    envelope = shape.envelope
    enclosed = raw.get(envelope) if envelope is not None else None
    if envelope is None or type(enclosed) is not dict:
        yield from _members(raw, _level(shape), path, root, envelope)
        return
    for key in raw.keys() - {envelope, *shape.beside}:
        one = _unknown(path, key, _level(shape))
        near = one.suggestion
        is_inside = near is not None and near not in shape.beside
        yield evolve(one, suggestion=f"{envelope}.{near}") if is_inside else one
    for key in enclosed.keys() & set(shape.beside):
        yield _known(f"{path}.{envelope}", key, f"{key} beside {envelope}")
    level = _level(shape, inside=True)
    yield from _members(enclosed, level, f"{path}.{envelope}", root, beside=shape.beside)


def _members(
    raw: dict[str, Any],
    level: _Level,
    path: str,
    root: Fields,
    envelope: str | None = None,
    beside: tuple[str, ...] = (),
) -> Iterator[UnknownField]:
    if not raw.keys() <= level.known:
        for key in raw:
            if (
                key in level.known
                or key in beside
                or (key == envelope and isinstance(raw[key], Unclear | None))
            ):
                continue
            yield _unknown(path, key, level, _elsewhere(root))
    for older, name in level.instead_of:
        if older in raw and name in raw:
            yield _known(path, older, name)
    for key, shape in level.nested:
        item = raw.get(key)
        if type(item) is dict or type(item) is list:
            yield from _walk(item, shape, f"{path}.{key}", root)


def _word(key: object) -> str:
    return printable(str(key))


def _known(path: str, key: str, suggestion: str) -> UnknownField:
    """A field that is known, but in the wrong place."""
    return UnknownField(above=path, key=key, suggestion=suggestion, spelling=key)


def _unknown(path: str, key: object, level: _Level, elsewhere: Elsewhere = ()) -> UnknownField:
    word = _word(key)
    head = before_separator(word)
    near = nearest(word if head is None else head, level.names, elsewhere)
    if head is not None:
        is_meant = is_near(head, level.names, elsewhere)
        missing = ":" in word
        return UnknownField(
            above=path, key=word, suggestion=near if is_meant else None, missing_space=missing
        )
    is_shown = is_field_name(word) and (
        not level.is_guarded or (is_word(word) and is_near(word, level.names, elsewhere))
    )
    return UnknownField(above=path, key=word, suggestion=near, spelling=word if is_shown else HIDDEN)
