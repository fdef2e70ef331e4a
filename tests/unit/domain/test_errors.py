"""Errors of the domain."""

from coreflow.domain.errors import LostRace, PortError, PreconditionFailed, Refused, leaves


def test_leaves_of_groups_in_groups() -> None:
    """Every exception that some nursery has wrapped, in order."""
    one, two, three = Refused("1"), LostRace("2"), KeyboardInterrupt()
    group = BaseExceptionGroup("outer", [one, BaseExceptionGroup("inner", [two, three])])
    assert list(leaves(group)) == [one, two, three]
    assert list(leaves(one)) == [one]


def test_a_rule_of_ours_is_no_peer() -> None:
    """Whoever waits for a peer to come back, or to say something else, must not take our own no for its answer."""
    assert not issubclass(PreconditionFailed, PortError)
    assert not issubclass(Refused, PreconditionFailed)
