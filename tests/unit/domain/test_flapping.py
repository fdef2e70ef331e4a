"""What is told of what comes and goes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples

from coreflow.domain.flapping import CALM, QUIET_SECONDS, WITHIN_SECONDS, Flapping, News


def played(*states: tuple[float, str]) -> tuple[Flapping, list[News]]:
    """One subject with these states at these times."""
    flapping = CALM
    news: list[News] = []
    for now, state in states:
        flapping, told = flapping.become("a", state, now)
        news += told
    return flapping, news


def test_what_begins_also_ends_with_how_long_it_lasted() -> None:
    flapping, news = played((0, "away"), (10, "away"), (20, "refused"), (50, ""), (60, ""))
    assert [(one.what, one.state, one.was) for one in news] == [
        ("begins", "away", ""),
        ("changes", "refused", "away"),
        ("ends", "", "refused"),
    ]
    assert news[-1].seconds == 50
    assert flapping.state("a") == ""


def test_the_third_beginning_within_half_an_hour_is_flapping() -> None:
    """With a count; then only counts, until a quarter of an hour has passed without a change."""
    flapping, news = played((0, "x"), (9, ""), (20, "x"), (29, ""), (40, "x"))
    assert [one.what for one in news] == ["begins", "ends", "begins", "ends", "flaps"]
    assert (news[-1].times, news[-1].seconds) == (3, 40)
    assert flapping.is_flapping("a")
    flapping, told = flapping.become("a", "", 50)
    assert told == ()
    assert flapping.due == 640
    flapping, (count,) = flapping.at(640)
    assert (count.what, count.state, count.was, count.times) == ("still flaps", "", "x", 3)
    flapping, told = flapping.become("a", "x", 700)
    assert told == ()
    flapping, told = flapping.at(700 + QUIET_SECONDS)
    assert [(one.what, one.state, one.times) for one in told] == [("is calm", "x", 4)]
    assert flapping.due is None
    flapping, told = flapping.become("a", "", 2500)
    assert [one.what for one in told] == ["ends"], "what lasted beyond the flapping has its end, too"


def test_reasons_that_take_turns_are_flapping() -> None:
    _, news = played(*((float(n), "x" if n % 2 else "y") for n in range(100)))
    assert [one.what for one in news] == ["begins", *["changes"] * 5, "flaps"]


def test_three_beginnings_in_a_longer_time_are_not() -> None:
    times = [(n * WITHIN_SECONDS / 2 + step, "x" if step == 0 else "") for n in range(9) for step in (0, 60)]
    assert {one.what for one in played(*times)[1]} == {"begins", "ends"}


def test_subjects_that_are_not_named_are_well() -> None:
    flapping, news = CALM.after({"a": "x", "b": "y"}, 0)
    assert [(one.subject, one.what) for one in news] == [("a", "begins"), ("b", "begins")]
    flapping, news = flapping.after({"b": "y"}, 1)
    assert [(one.subject, one.what) for one in news] == [("a", "ends")]
    assert flapping.after({"b": "y"}, 2)[0] is flapping, "nothing new costs nothing"


def test_the_past_is_forgotten() -> None:
    """A subject for each of many addresses, say."""
    flapping = CALM
    for n in range(1000):
        for state in ("x", ""):
            flapping, _ = flapping.become(f"s{n}", state, n * 60.0)
    assert len(flapping.courses) < 2 * WITHIN_SECONDS / 60 + 2


@given(st.lists(st.tuples(st.floats(0.5, 900), st.sampled_from(["", "", "x", "y"])), max_size=200))
@settings(max_examples=examples(200))
def test_no_subject_costs_more_than_a_dozen_lines_an_hour(moves: list[tuple[float, str]]) -> None:
    """And whatever begins to be wrong is not the last that is said, once it is well for long."""
    flapping, now, state = CALM, 0.0, ""
    told: list[tuple[float, News]] = []
    for pause, state in [*moves, (1.0, "")]:
        while (due := flapping.due) is not None and due <= now + pause:
            flapping, news = flapping.at(due)
            told += [(due, one) for one in news]
        now += pause
        flapping, news = flapping.become("a", state, now)
        told += [(now, one) for one in news]
    while (due := flapping.due) is not None:
        flapping, news = flapping.at(due)
        told += [(due, one) for one in news]
    if told:
        assert told[-1][1].state == ""
        assert told[-1][1].what in {"ends", "is calm"}
    for at, _ in told:
        assert sum(at <= other < at + 3600 for other, _ in told) <= LINES


LINES = 16
"""Worst: flapping ends, and begins anew."""


@given(st.floats(0, 1e9))
@settings(max_examples=examples(200))
def test_what_is_due_is_told_when_it_is_due(start: float) -> None:
    """However times are rounded: nothing is due again at once, for ever."""
    flapping = CALM
    for n in range(7):
        flapping, _ = flapping.become("a", "" if n % 2 else "x", start + n)
    for _ in range(10):
        if (due := flapping.due) is None:
            break
        flapping, news = flapping.at(due)
        assert news
    assert flapping.due is None


@pytest.mark.parametrize("seconds", [20, 60, 180, 600])
def test_an_hour_of_coming_and_going(seconds: int) -> None:
    flapping, told = CALM, 0
    for now in range(0, 3600, 10):
        flapping, news = flapping.become("a", "x" if now // (seconds // 2) % 2 == 0 else "", float(now))
        told += len(news)
    assert told <= 10
