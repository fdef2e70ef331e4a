"""Records that cannot be decoded: what can still be read of them, so that everything wrong with it is said at once.

A value of the wrong type is left out, and with it whatever cannot be without it: a domain without a name, say. What is left
is decoded and may be checked like any other record; what the checks say of the parts that were left out, or of what
depends on them, is no fault of the record's and is dropped.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from attrs import Factory, define, field, frozen

from coreflow.domain.errors import InvalidRecord

T = TypeVar("T")

ROUNDS = 20
"""Leaving something out may show what it was needed for; nothing nests that deep."""
DEPTH = 8
"""A service nests half as deep; what is below is never left out alone."""
_STEP = re.compile(r"\.(?P<key>[^.\[]*)|\[(?P<index>[0-9]+)\]")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\.[^\s:,;.\[]+|\[[0-9]+\])*")
_ELEMENT = re.compile(r"(?P<list>[A-Za-z][A-Za-z0-9.]*)\[(?P<index>[0-9]+)\]")


@frozen
class Salvaged(Generic[T]):
    """A record without what could not be read, and what that was, by paths such as `domains[0].port`."""

    record: T = field(repr=False)
    unread: frozenset[str] = frozenset()
    places: Mapping[str, tuple[int, ...]] = Factory(dict)
    """For each list that lost elements: where those that are left were."""

    def reasons(self, found: list[str]) -> tuple[str, ...]:
        """Of what checks found wrong with the record, that which is true of the whole one, too."""
        texts = (_ELEMENT.sub(self._numbered, text) for text in found)
        return tuple(text for text in texts if not self._is_of_unread(text))

    def has(self, *fields: str) -> bool:
        """Return whether these could be read as a whole."""
        return not any(
            path == name or path.startswith((f"{name}.", f"{name}["))
            for path in self.unread
            for name in fields
        )

    def _numbered(self, match: re.Match[str]) -> str:
        places, index = self.places.get(match["list"]), int(match["index"])
        return f"{match['list']}[{places[index]}]" if places and index < len(places) else match[0]

    def _is_of_unread(self, text: str) -> bool:
        words = _WORD.findall(text)
        return any(_depends(word, path) for word in words for path in self.unread)


_INDEPENDENT = frozenset({"environment", "ports.custom"})
"""Mappings of which each entry is checked for itself."""
_DEFAULTS: Mapping[str, str] = dict.fromkeys(
    ("resources.memorySizeLimitMB", "resources.memorySizeMB"), "resources.memorySizeReservationMB"
)
"""What is compared with a field that has a default of its own."""


def _depends(word: str, path: str) -> bool:
    """Return whether what is said of `word` may be due to `path`: it is inside, exactly what is around it, or compared with it."""
    around = path[: max(path.rfind("."), path.rfind("["), 0)]
    if word == path or word.startswith((f"{path}.", f"{path}[")) or word == _DEFAULTS.get(path):
        return True
    return word == around and around not in _INDEPENDENT


def salvage(
    raw: Mapping[str, Any], decode: Callable[[object], T], placeholders: Mapping[str, object]
) -> Salvaged[T] | None:
    """Decode what can be decoded of a raw record.

    `decode` raises InvalidRecord with paths that begin at the record (`.domains[0].port`); `placeholders` stand for
    fields without which there is no record at all. None when nothing can be made of it.
    """
    work = _Work(_copy(raw))
    for _ in range(ROUNDS):
        try:
            record = decode(work.document)
        except InvalidRecord as exc:
            # from the end, so that what is left out does not move what is yet to be
            if not all(work.leave_out(path, placeholders) for path in _from_the_end(exc)):
                return None
        else:
            return Salvaged(record, frozenset(work.unread), {k: tuple(v) for k, v in work.places.items()})
    return None


def _from_the_end(exc: InvalidRecord) -> list[str]:
    paths = {problem.path.removesuffix(" (key)") for problem in exc.problems}
    return sorted(paths, key=lambda path: [int(n) for n in re.findall(r"\[([0-9]+)\]", path)], reverse=True)


def _copy(value: Any, depth: int = DEPTH) -> Any:
    if type(value) is dict and depth:
        return {key: _copy(item, depth - 1) for key, item in value.items()}
    return [_copy(item, depth - 1) for item in value] if type(value) is list and depth else value


@define
class _Work:
    document: dict[str, Any]
    unread: set[str] = Factory(set)
    places: dict[str, list[int]] = Factory(dict)

    def leave_out(self, path: str, placeholders: Mapping[str, object]) -> bool:
        """Remove what is at a path, or, where nothing is there, what misses it; whether that was possible."""
        steps, rest = self._find(path)
        missing = rest.removeprefix(".")
        if not steps or (len(steps) == 1 and steps[0][1] in placeholders):
            name = steps[0][1] if steps else missing
            if name not in placeholders or self.document.get(name) == placeholders[name]:
                return False
            self.document[name] = placeholders[name]
            self.unread.add(str(name))
            return True
        around, key = steps[-1]
        if type(around) is list:
            name = _spelt(steps[:-1])
            places = self.places.setdefault(name, list(range(len(around))))
            self.unread.add(f"{name}[{places.pop(int(key))}]")
        else:
            self.unread.add(self._original(steps))
        del around[key]
        return True

    def _find(self, path: str) -> tuple[list[tuple[Any, Any]], str]:
        """The steps (container and key) along a path as far as they lead, and the rest of the path."""
        steps: list[tuple[Any, Any]] = []
        here: Any = self.document
        while path:
            key = _next_key(here, path)
            if key is None:
                break
            path = path[len(_spelt([(here, key)], absolute=True)) :]
            steps.append((here, key))
            here = here[key]
        return steps, path

    def _original(self, steps: list[tuple[Any, Any]]) -> str:
        """The path with the numbers that the elements had."""
        text = ""
        for around, key in steps:
            if type(around) is list:
                places = self.places.get(text)
                text += f"[{places[key] if places else key}]"
            else:
                text += f"{'.' if text else ''}{key}"
        return text


def _next_key(here: Any, path: str) -> Any:
    """The key of `here` that a path goes through first; keys may have dots in them."""
    if type(here) is list:
        match = _STEP.match(path)
        index = match["index"] if match is not None else None
        return int(index) if index is not None and int(index) < len(here) else None
    if type(here) is dict:
        fitting = [key for key in here if path == f".{key}" or path.startswith((f".{key}.", f".{key}["))]
        return max(fitting, key=lambda key: len(str(key)), default=None)
    return None


def _spelt(steps: list[tuple[Any, Any]], *, absolute: bool = False) -> str:
    text = "".join(f"[{key}]" if type(around) is list else f".{key}" for around, key in steps)
    return text if absolute else text.removeprefix(".")
