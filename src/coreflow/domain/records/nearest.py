"""The name that was probably meant by one that is misspelt, or in the wrong place."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

LONGEST = 100
"""Characters of a name that is compared; no field has half as many."""
NEAR = 0.8
"""How alike names are (0 to 1) that count as one misspelt."""
_FAR, _FAR_SHORT, _SHORT = 0.6, 0.5, 4
"""The same where nothing is nearer, and for names of so many characters: one letter is much of them."""

Elsewhere = tuple[tuple[str, str], ...]
"""Names of other levels, each with its path."""


@lru_cache(10_000)
def nearest(name: str, names: tuple[str, ...], elsewhere: Elsewhere = ()) -> str | None:
    """The name of the same level, or the path of one of another level, that is most like `name`.

    Case, `-` and `_` hardly make names differ. A name of the same level goes before the same word on another level, and
    that before what is less alike.
    """
    if not name or len(name) > LONGEST:
        return None
    word = _plain(name)
    close = _ranked(word, names)
    if close and close[0][0] >= NEAR:
        return close[0][1]
    for path, other in elsewhere:
        if _plain(other) == word:
            return path
    if close and close[0][0] >= (_FAR_SHORT if min(len(word), len(close[0][1])) <= _SHORT else _FAR):
        return close[0][1]
    paths = {other: path for path, other in reversed(elsewhere)}
    close = _ranked(word, tuple(paths))
    return paths[close[0][1]] if close and close[0][0] >= NEAR else None


@lru_cache(10_000)
def is_near(name: str, names: tuple[str, ...], elsewhere: Elsewhere = ()) -> bool:
    """Tell whether a name says no more than the names that are known: it is like one of them, or a part of it."""
    if not name or len(name) > LONGEST:
        return False
    word = _plain(name)
    others = map(_plain, (*names, *(other for _, other in elsewhere)))
    return any(word in other or _likeness(word, other) >= NEAR for other in others)


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def _ranked(word: str, names: Sequence[str]) -> list[tuple[float, str]]:
    """The names with how alike they are, best first; of those alike, the one with the same letters."""
    letters = sorted(word)
    found = [(_likeness(word, _plain(name)), sorted(_plain(name)) == letters, name) for name in names]
    return [(likeness, name) for likeness, _, name in sorted(found, key=lambda f: (-f[0], not f[1]))]


def _likeness(word: str, other: str) -> float:
    return difflib.SequenceMatcher(None, word, other, autojunk=False).ratio()


def paths_of(levels: Iterable[tuple[str, Iterable[str]]]) -> Iterator[tuple[str, str]]:
    """The names of levels with their paths; each level has the path of its own."""
    for path, names in levels:
        for name in names:
            yield f"{path}.{name}".removeprefix("."), name
