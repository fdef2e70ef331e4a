"""When to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreflow.domain.pacing import (
    FIRST_DELAY,
    LONGEST_DELAY,
    LONGEST_GAP,
    Attention,
    Repeats,
    Thinning,
    next_delay,
)


@pytest.mark.parametrize(
    ("last", "up_for", "expected"),
    [
        (0, 0, 1),
        (-1, 0, 1),
        (1, 0, 2),
        (2, 59, 4),
        (32, 0, 60),
        (60, 60, 60),
        (60, 61, 1),
    ],
)
def test_delays(last: float, up_for: float, expected: float) -> None:
    """The delay doubles up to the longest, and begins anew after an attempt that went well for longer than that."""
    assert next_delay(last, up_for=up_for) == expected


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_bounds(last: float, up_for: float) -> None:
    """A delay is never shorter than the first unless the last one was, and never longer than the longest."""
    delay = next_delay(last, up_for=up_for)
    assert 0 < delay <= LONGEST_DELAY
    assert delay >= min(FIRST_DELAY, last or FIRST_DELAY)


def test_other_bounds() -> None:
    """Both bounds can be chosen."""
    assert [
        next_delay(0, first=0.1),
        next_delay(3, longest=4),
        next_delay(3, up_for=5, first=2, longest=4),
    ] == [
        0.1,
        4,
        2,
    ]


def test_attention_wanes_and_comes_back() -> None:
    """A subject that asks all the time is answered once a minute in the end, one that is new at once."""
    attention = Attention()
    answers = {attention.due("loop", float(now)) for now in range(3600)}
    assert 60 <= len(answers) <= 70
    assert attention.due("other", 3600.5) == 3600.5
    assert attention.due("loop", 3600.0 + 3 * LONGEST_GAP) == 3600.0 + 3 * LONGEST_GAP
    for number in range(10_000):
        attention.due(f"container {number}", 4000.0 + number)
    assert len(attention._heard) <= 1001


def test_an_answer_that_is_due_is_the_answer_to_what_is_asked_until_then() -> None:
    attention = Attention()
    assert attention.due("a", 0) == 0
    later = attention.due("a", 0.1)
    assert later > 0.1
    assert attention.due("a", 0.2) == later


def test_a_thing_is_said_again_after_a_while() -> None:
    """Each by itself; refusals to say it do not put it off."""
    repeats = Repeats(seconds=10)
    assert [repeats.is_new("a", now) for now in (0, 9, 10, 11, 20)] == [True, False, True, False, True]
    assert repeats.is_new("b", 11)


def test_only_so_many_things_are_remembered() -> None:
    """The one that was said longest ago is forgotten, and may be said at once."""
    repeats = Repeats(seconds=10, kept=2)
    assert all(repeats.is_new(what, now) for now, what in enumerate("abc"))
    assert not repeats.is_new("c", 3)
    assert not repeats.is_new("b", 3)
    assert repeats.is_new("a", 3)


def test_many_like_events_are_told_with_counts_and_later_each_time() -> None:
    """The first at once; after a quiet time the next is told at once again, with those that were not."""
    thinning = Thinning(first=10.0, longest=40.0)
    told = [(now, times) for now in range(100) if (times := thinning.times("x", float(now)))]
    assert told == [(0, 1), (1, 1), (11, 10), (31, 20), (71, 40)]
    assert thinning.times("y", 100.0) == 1
    assert thinning.times("x", 200.0) == 29


def test_only_so_many_kinds_of_events_are_remembered() -> None:
    thinning = Thinning(kept=2)
    assert [thinning.times(what, 0.0) for what in "aabbccaa"] == [1, 1, 1, 1, 1, 1, 1, 1]
    assert thinning.times("a", 1.0) == 0
