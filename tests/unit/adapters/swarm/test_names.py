"""What a name that is taken means, by what was seen before."""

import pytest

from coreflow.adapters.swarm.names import Kind, Names
from coreflow.domain.errors import LostRace, PortError, Refused, Unavailable


def verdict(names: Names, name: str = "web", kind: Kind = "service") -> type[PortError]:
    """The class of a conflict."""
    error = names.conflict(kind, name, f"creating {kind} {name}")
    assert str(error).startswith(f"creating {kind} {name}: ")
    return type(error)


@pytest.mark.parametrize("other", ["web", "Web", "WEB"])
def test_a_name_that_was_seen_is_refused(other: str) -> None:
    """In whichever case it is written, and as often as it is tried."""
    names = Names()
    names.saw("service", [other])
    assert [verdict(names) for _ in range(3)] == [Refused] * 3


def test_kinds_have_names_of_their_own() -> None:
    """A secret's name keeps no service from having it."""
    names = Names()
    names.saw("secret", ["web"])
    assert verdict(names) is LostRace


def test_an_unseen_name_is_a_lost_race_once() -> None:
    """Until it is seen, or we could make it ourselves."""
    names = Names()
    assert [verdict(names) for _ in range(3)] == [LostRace, Refused, Refused]
    names.saw("service", ["web"])
    names.saw("service", [])
    assert verdict(names) is LostRace
    names.made("service", "web")
    assert verdict(names) is LostRace


def test_a_name_that_we_gave_up_is_a_lost_race() -> None:
    """Whoever has it now came after our removal."""
    names = Names()
    names.saw("service", ["web"])
    names.removed("service", "Web")
    assert verdict(names) is LostRace


def test_a_network_that_is_leaving_is_waited_for() -> None:
    """Its name is free once its last container has ended, however long that takes."""
    names = Names()
    names.saw("network", [], going=["web"])
    assert [verdict(names, kind="network") for _ in range(3)] == [Unavailable] * 3
    assert verdict(names) is LostRace
    names.saw("network", [])
    assert verdict(names, kind="network") is LostRace
