"""When passes happen, as values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.examples import desired, report, result, spec, state

from coreflow.domain.deploy.desired import Desired, Rejection
from coreflow.domain.deploy.result import Outcome, Report
from coreflow.domain.deploy.schedule import (
    AT_ONCE,
    BURST_SECONDS,
    BUSY_SECONDS,
    DEFERENCE_SECONDS,
    EMPTY_AGENDA,
    LONGEST_SLEEP_SECONDS,
    NO_DEFERENCE,
    NOTHING_ASKED,
    OVERTAKEN_PAUSE,
    PASS_LIMIT,
    POLL_SECONDS,
    Agenda,
    PassRequest,
    Pause,
    has_work_within,
    overtaken,
    pause_before_next,
    seconds_to_next_pass,
    seconds_to_next_try,
)
from coreflow.domain.deploy.steps import Plan, Step, Wait
from coreflow.domain.swarm.actions import Create
from coreflow.domain.swarm.convergence import Verdict

WEB, DB = (Step(f"id-{name}", Create(spec(name), "new")) for name in ("web", "db"))
APPLIED = Outcome(WEB, "applied")
FAILED = Outcome(WEB, "failed", retry=True)
REFUSED = Outcome(WEB, "failed")
OVERTAKEN = Outcome(WEB, "overtaken", retry=True, at_once=True)
UNDER_WAY = Outcome(WEB, "under way")
PENDING = (Verdict(service="db", running=0, wanted=1),)
DONE = (Verdict(service="db", running=1, wanted=1, done=True),)
RELIST = 60.0


def waiting(*until: float | None) -> Plan:
    """A plan in which something is not due before these times."""
    return Plan(waits=tuple(Wait("id-web", "web", "later", time) for time in until))


# --- kicks


def test_requests_are_joined() -> None:
    """One pass does all that was asked for since the last one began."""
    agenda = EMPTY_AGENDA.kicked(PassRequest(refresh=True)).kicked(PassRequest(records=True), urgent=True)
    assert agenda == Agenda(request=PassRequest(refresh=True, records=True), is_kicked=True, is_urgent=True)
    assert agenda.kicked(PassRequest(try_now=True, retry_failed=True)).is_urgent
    assert agenda.taken(0.0) == EMPTY_AGENDA


@pytest.mark.parametrize(
    ("time", "is_kicked", "due"), [(9.0, True, math.inf), (10.0, True, math.inf), (11.0, False, 11.0)]
)
def test_a_time_that_has_come_is_a_kick(time: float, is_kicked: bool, due: float) -> None:
    """Records are not fetched for it: it is the engine that has changed."""
    agenda = EMPTY_AGENDA.kicked_at(time, 10.0)
    assert (agenda.is_kicked, agenda.due, agenda.request) == (is_kicked, due, NOTHING_ASKED)


def test_the_earliest_time_counts_until_a_pass_begins_after_it() -> None:
    agenda = EMPTY_AGENDA.kicked_at(30.0, 10.0).kicked_at(20.0, 10.0).kicked_at(25.0, 10.0)
    assert agenda.due == 20.0
    assert agenda.at(19.9) == agenda
    assert agenda.at(20.0) == Agenda(is_kicked=True)
    assert agenda.taken(19.9) == Agenda(due=20.0)
    assert agenda.taken(20.0) == EMPTY_AGENDA


def test_what_a_failed_pass_was_asked_for_is_asked_again() -> None:
    """The usual comes by itself: it is no reason for a pass."""
    assert EMPTY_AGENDA.failed(PassRequest(refresh=True)) == Agenda(
        request=PassRequest(refresh=True), is_kicked=True
    )
    assert EMPTY_AGENDA.failed(NOTHING_ASKED) == EMPTY_AGENDA


@pytest.mark.parametrize(
    ("asked", "now", "fetches"),
    [(True, 1.0, True), (False, 1.0, False), (False, 59.9, False), (False, 60.0, True)],
)
def test_records_are_fetched_when_they_may_have_changed_and_now_and_then(
    asked: bool, now: float, fetches: bool
) -> None:
    assert PassRequest(records=asked).fetches(now, 0.0, RELIST) is fetches


_REQUESTS = st.builds(
    PassRequest,
    refresh=st.booleans(),
    retry_failed=st.booleans(),
    try_now=st.booleans(),
    records=st.booleans(),
)
_EVENTS = st.one_of(
    st.tuples(st.just("kick"), _REQUESTS, st.booleans()),
    st.tuples(st.just("at"), st.floats(0, 100), st.floats(0, 100)),
    st.tuples(st.just("look"), st.floats(0, 100), st.none()),
)


@given(st.lists(_EVENTS))
def test_no_kick_is_lost_until_a_pass_begins(events: list[tuple[str, object, object]]) -> None:
    """In whatever order kicks and times come, the pass is due, and does everything that was asked for."""
    agenda, asked, times = EMPTY_AGENDA, NOTHING_ASKED, list[float]()
    is_kicked = is_urgent = False
    for kind, first, second in events:
        if kind == "kick":
            assert isinstance(first, PassRequest)
            agenda = agenda.kicked(first, urgent=bool(second))
            asked, is_kicked, is_urgent = asked.joined(first), True, is_urgent or bool(second)
        elif kind == "at":
            assert isinstance(first, float)
            assert isinstance(second, float)
            agenda = agenda.kicked_at(first, second)
            times.append(first)
        else:
            assert isinstance(first, float)
            agenda = agenda.at(first)
    assert agenda.request == asked
    assert agenda.is_urgent == is_urgent
    assert agenda.is_kicked >= is_kicked
    assert agenda.at(100.0).is_kicked == (is_kicked or bool(times))
    assert agenda.taken(100.0) == EMPTY_AGENDA


# --- the next pass


@pytest.mark.parametrize(
    ("reports", "plan", "verdicts", "due_in", "seconds"),
    [
        ([], Plan(), DONE, None, RELIST),
        ([], Plan(), PENDING, None, BUSY_SECONDS),
        ([report(FAILED)], Plan(), DONE, None, BUSY_SECONDS),
        ([report(FAILED)], Plan(), DONE, 20.0, 20.0),
        ([report(FAILED)], Plan(), DONE, 0.0, BURST_SECONDS),
        ([report(REFUSED)], Plan(), DONE, 3600.0, RELIST),
        ([report(UNDER_WAY)], Plan(), DONE, None, RELIST),
        ([], waiting(1020.0), DONE, None, 20.0),
        ([], waiting(1030.0, 1020.0), DONE, None, 20.0),
        ([], waiting(1000.0), DONE, None, BURST_SECONDS),
        ([], waiting(None), DONE, None, BUSY_SECONDS),
        ([], waiting(1020.0, None), DONE, None, BUSY_SECONDS),
        ([], waiting(1020.0), PENDING, None, BUSY_SECONDS),
        ([], waiting(1020.0), DONE, 7.0, 7.0),
        ([], waiting(5000.0), DONE, None, RELIST),
    ],
)
def test_the_daemon_looks_again(
    reports: list[Report], plan: Plan, verdicts: tuple[Verdict, ...], due_in: float | None, seconds: float
) -> None:
    """Soon while Swarm is at work, when something is due where that is known, and now and then in any case."""
    found = result(*reports, last=state(plan=plan, wanted=_wanted(verdicts)), verdicts=verdicts)
    assert seconds_to_next_pass(found, due_in, RELIST) == seconds


def _wanted(verdicts: tuple[Verdict, ...]) -> Desired:
    return desired(*(spec(verdict.service) for verdict in verdicts))


@given(
    st.lists(st.sampled_from([APPLIED, FAILED, REFUSED, OVERTAKEN, UNDER_WAY]), max_size=3),
    st.lists(st.none() | st.floats(0, 5000), max_size=3),
    st.sampled_from([DONE, PENDING, ()]),
    st.none() | st.floats(0, 5000),
)
def test_the_daemon_neither_spins_nor_sleeps_past_the_relist(
    outcomes: list[Outcome], times: list[float | None], verdicts: tuple[Verdict, ...], due_in: float | None
) -> None:
    """Whatever a series of passes leaves, the next one begins after a moment at least, and with the relist at most."""
    last = state(plan=waiting(*times), wanted=_wanted(verdicts))
    found = result(report(*outcomes), last=last, verdicts=verdicts)
    assert BURST_SECONDS <= seconds_to_next_pass(found, due_in, RELIST) <= RELIST
    assert seconds_to_next_try(found, due_in) >= POLL_SECONDS


@pytest.mark.parametrize(
    ("reports", "plan", "verdicts", "due_in", "seconds"),
    [
        ([report(FAILED)], Plan(), DONE, None, POLL_SECONDS),
        ([report(FAILED)], Plan(), DONE, 9.0, 9.0),
        ([report(UNDER_WAY)], Plan(), DONE, None, LONGEST_SLEEP_SECONDS),
        ([report(UNDER_WAY)], Plan(), PENDING, None, math.inf),
        ([], Plan(), PENDING, None, math.inf),
        ([], waiting(1002.0), PENDING, None, math.inf),
        ([], waiting(1002.0), DONE, None, 2.0),
        ([], waiting(1100.0), DONE, None, LONGEST_SLEEP_SECONDS),
        ([], waiting(None), DONE, None, POLL_SECONDS),
    ],
)
def test_apply_tries_again(
    reports: list[Report], plan: Plan, verdicts: tuple[Verdict, ...], due_in: float | None, seconds: float
) -> None:
    """When a try is due, or something is; where Swarm has to do something first, its end is looked for instead."""
    found = result(*reports, last=state(plan=plan, wanted=_wanted(verdicts)), verdicts=verdicts)
    assert seconds_to_next_try(found, due_in) == seconds


@pytest.mark.parametrize(
    ("reports", "plan", "verdicts", "left", "expected"),
    [
        ([], Plan(), DONE, 100.0, False),
        ([], Plan(), PENDING, 100.0, True),
        ([], Plan(), PENDING, 0.0, False),
        ([report(FAILED)], Plan(), DONE, 1.0, True),
        ([report(REFUSED)], Plan(), DONE, 1.0, False),
        ([report(UNDER_WAY)], Plan(), DONE, 1.0, True),
        ([], waiting(1010.0), DONE, 9.0, False),
        ([], waiting(1010.0), DONE, 10.0, True),
        ([], waiting(None), DONE, 1.0, True),
    ],
)
def test_apply_goes_on_for_what_it_can_still_do(
    reports: list[Report], plan: Plan, verdicts: tuple[Verdict, ...], left: float, expected: bool
) -> None:
    """What is not due before the deadline is not waited for."""
    found = result(*reports, last=state(plan=plan, wanted=_wanted(verdicts)), verdicts=verdicts)
    assert has_work_within(found, left) is expected


def test_an_answer_that_is_on_its_way_is_waited_for() -> None:
    awaited = Rejection(unit="id-web", name="web", reasons=("asking",), held=True, awaited=True)
    for last in (state(plan=Plan(rejections=(awaited,))), state(refreshing=True)):
        assert has_work_within(result(last=last), 1.0)
        assert seconds_to_next_try(result(last=last), None) == LONGEST_SLEEP_SECONDS


# --- passes in a row


@pytest.mark.parametrize(
    ("reports", "pause"),
    [
        ([], AT_ONCE),
        ([report()], None),
        ([report(APPLIED)], AT_ONCE),
        ([report(APPLIED, FAILED)], AT_ONCE),
        ([report(FAILED)], None),
        ([report(UNDER_WAY)], None),
        ([report(OVERTAKEN)], OVERTAKEN_PAUSE),
        ([report(APPLIED, OVERTAKEN)], OVERTAKEN_PAUSE),
        ([report(APPLIED), report()], None),
        ([report(APPLIED)] * (PASS_LIMIT - 1), AT_ONCE),
        ([report(APPLIED)] * PASS_LIMIT, None),
    ],
)
def test_passes_follow_one_another_while_they_get_something_done(
    reports: list[Report], pause: Pause | None
) -> None:
    assert pause_before_next(reports) == pause


def test_who_loses_to_one_that_does_the_same_lets_it_go_first() -> None:
    """For a while, and only where the next look finds done what was lost."""
    lost = overtaken((OVERTAKEN, FAILED, APPLIED))
    assert lost == (WEB,)
    deference = NO_DEFERENCE.after(lost, Plan(steps=(DB,)), 100.0)
    assert deference.holds(100.0)
    assert deference.holds(99.9 + DEFERENCE_SECONDS)
    assert not deference.holds(100.0 + DEFERENCE_SECONDS)
    assert deference.after((), Plan(), 200.0) == deference


@pytest.mark.parametrize(
    ("lost", "plan"), [((), Plan()), ((WEB,), Plan(steps=(WEB,))), ((WEB, DB), Plan(steps=(DB,)))]
)
def test_one_that_undoes_what_we_do_is_not_let_go_first(lost: tuple[Step, ...], plan: Plan) -> None:
    assert not NO_DEFERENCE.after(lost, plan, 100.0).holds(100.0)
