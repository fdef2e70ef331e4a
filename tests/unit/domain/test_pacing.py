"""When to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreflow.domain.pacing import FIRST_DELAY, LONGEST_DELAY, next_delay


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
