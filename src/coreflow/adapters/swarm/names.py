"""Names that are taken: by a lost race, or for good."""

from collections.abc import Iterable
from typing import Literal

from attrs import Factory, define

from coreflow.domain.errors import LostRace, PortError, Refused, Unavailable

Kind = Literal["service", "secret", "network"]


@define
class Names:
    """The names that were seen in the Swarm, by kind. SwarmKit compares them without case (measured on 20.10 and 26.1)."""

    _seen: dict[tuple[Kind, str], str] = Factory(dict)
    _lost: set[tuple[Kind, str]] = Factory(set)
    _going: set[tuple[Kind, str]] = Factory(set)

    def saw(self, kind: Kind, names: Iterable[str], going: Iterable[str] = ()) -> None:
        """These names there are, and no others of this kind; those that are `going` are removed, and not yet gone."""
        self._going = {key for key in self._going if key[0] != kind} | {_key(kind, name) for name in going}
        self._seen = {key: name for key, name in self._seen.items() if key[0] != kind}
        self._seen.update({_key(kind, name): name for name in names})
        self._lost -= self._seen.keys()

    def made(self, kind: Kind, name: str) -> None:
        """We made one, so nobody else had the name."""
        self._lost.discard(_key(kind, name))

    def removed(self, kind: Kind, name: str) -> None:
        """We removed it: whoever has the name now came after that."""
        self._seen.pop(_key(kind, name), None)

    def conflict(self, kind: Kind, name: str, what: str) -> PortError:
        """The error for a name that is taken.

        One that is going is free in a while. One that we saw, or that we were told of before and still cannot see, is taken for good. One that nobody had when we
        looked is a lost race: the next look shows who has it.
        """
        key = _key(kind, name)
        seen = self._seen.get(key)
        if seen == name:
            return Refused(f"{what}: there is another {kind} of this name")
        if seen is not None:
            return Refused(f"{what}: there is a {kind} {seen}, and Swarm compares names without case")
        if key in self._going:
            return Unavailable(
                f"{what}: the last one of this name is removed and still has containers that end"
            )
        if key in self._lost:
            return Refused(f"{what}: the name is taken, by something that the engine does not list")
        self._lost.add(key)
        return LostRace(f"{what}: somebody else made one of this name")


def _key(kind: Kind, name: str) -> tuple[Kind, str]:
    return kind, name.lower()
