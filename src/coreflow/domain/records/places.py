"""Places of values in a document: as problems name them, by path, and for people, by file and line."""

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from attrs import Factory, frozen

_LAST_STEP = re.compile(r"(?:\.[^.\[]*|\[[0-9]*\]| \(key\))$")


class Places(Protocol):
    """The places of the values of a document that was written by hand."""

    def below(self, paths: Iterable[str]) -> Mapping[str, str]:
        """Return `FILE:LINE` of everything that is at these paths or below them, by path."""
        ...


@frozen(eq=False)
class Origin:
    """The origin of services: the document that they are from, where they are found by their order."""

    services: str = "$.services"
    positions: tuple[int, ...] = ()
    """Of each service that could be decoded, its index in the list."""
    places: Places | None = None
    """None where nobody wrote the document by hand."""
    groups: str = "$.secretGroups"
    group_positions: Mapping[str, int] = Factory(dict)
    """Of each secret group that could be decoded, its index in the list, by its id."""

    def path(self, number: int) -> str:
        """The path of a decoded service, by its number."""
        return f"{self.services}[{self.positions[number]}]"

    def path_of_group(self, identity: str) -> str | None:
        """The path of a decoded secret group, by its id."""
        index = self.group_positions.get(identity)
        return None if index is None else f"{self.groups}[{index}]"


NOWHERE = Origin()


def place_of(path: str, places: Mapping[str, str]) -> str | None:
    """File and line of a path, or of what is nearest above it; None where that is the whole document."""
    while path not in places:
        path, before = _LAST_STEP.sub("", path), path
        if path == before:
            return None
    return None if path == "$" else places[path]
