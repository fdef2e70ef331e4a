"""References to values elsewhere: `{fromFile: path}` and `{fromEnv: NAME}` in place of a string.

They are recognised only where a record has a string, by its shape: a variable may be named `fromFile`. They are resolved
before records are decoded, so no later code knows of them.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from coreflow.domain.records.converter import REFERENCES
from coreflow.domain.records.shapes import Choice, Fields, Listed, Mapped, Scalar, Shape, cluster_file

KINDS = REFERENCES
Key = tuple[str, str]
"""Which kind, and what it says."""
Take = Callable[[Key], object]
"""Gives the value for a reference."""


def mentions(data: bytes) -> bool:
    """Tell whether a file may hold references at all."""
    return any(kind.encode() in data for kind in KINDS)


def referenced(document: object) -> frozenset[Key]:
    """The references in a document."""
    found: set[Key] = set()

    def note(key: Key) -> object:
        found.add(key)
        return {key[0]: key[1]}

    replace(document, note)
    return frozenset(found)


def replace(document: object, take: Take) -> None:
    """Put values in the place of references, in the document itself."""
    _walker(cluster_file())(document, take)


Walk = Callable[[Any, Take], object]


def _key(raw: object) -> Key | None:
    if type(raw) is not dict or len(raw) != 1:
        return None
    ((kind, text),) = raw.items()
    return (kind, text) if kind in KINDS and type(text) is str else None


def _text(raw: Any, take: Take) -> object:
    key = _key(raw)
    return raw if key is None else take(key)


def _nothing(raw: Any, _: Take) -> object:
    return raw


@cache
def _walker(shape: Shape) -> Walk:
    match shape:
        case Scalar(kind="text"):
            return _text
        case Fields():
            return _fields(shape)
        case Listed(of=inner):
            return _list(_walker(inner))
        case Mapped(of=inner):
            return _mapping(_walker(inner))
        case Choice(of=choices):
            return _choice(tuple(map(_walker, choices)))
        case _:
            return _nothing


def _fields(shape: Fields) -> Walk:
    every = {name: _walker(one.shape) for name, one in shape.members.items()}
    walks: Mapping[str, Walk] = {name: inner for name, inner in every.items() if inner is not _nothing}
    envelope = shape.envelope

    def walk(raw: Any, take: Take) -> object:
        if type(raw) is dict:
            for key in raw.keys() & walks.keys():
                raw[key] = walks[key](raw[key], take)
            if envelope is not None and type(raw.get(envelope)) is dict:
                walk(raw[envelope], take)
        return raw

    return walk


def _list(inner: Walk) -> Walk:
    def walk(raw: Any, take: Take) -> object:
        if type(raw) is list:
            raw[:] = [inner(item, take) for item in raw]
        return raw

    return walk


def _mapping(inner: Walk) -> Walk:
    def walk(raw: Any, take: Take) -> object:
        if type(raw) is dict:
            for key, item in raw.items():
                raw[key] = inner(item, take)
        return raw

    return walk


def _choice(walks: tuple[Walk, ...]) -> Walk:
    def walk(raw: Any, take: Take) -> object:
        for one in walks:
            raw = one(raw, take)
        return raw

    return walk
