"""Errors of the domain."""

from coreflow.domain.errors import LostRace, Refused, leaves


def test_leaves_of_groups_in_groups() -> None:
    """Every exception that some nursery has wrapped, in order."""
    one, two, three = Refused("1"), LostRace("2"), KeyboardInterrupt()
    group = BaseExceptionGroup("outer", [one, BaseExceptionGroup("inner", [two, three])])
    assert list(leaves(group)) == [one, two, three]
    assert list(leaves(one)) == [one]
