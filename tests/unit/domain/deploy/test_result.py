"""What a report says of a pass."""

import pytest
from tests.unit.domain.examples import desired, report, result, spec, state

from coreflow.domain.deploy.desired import Note, Rejection
from coreflow.domain.deploy.result import Outcome, Report, Status
from coreflow.domain.deploy.steps import Failure, Plan, Refusal, Step, Wait
from coreflow.domain.swarm.actions import Create
from coreflow.domain.swarm.convergence import Verdict

STEP = Step("id-web", Create(spec(), "new"))


@pytest.mark.parametrize(
    ("statuses", "applied", "troubles", "clean"),
    [
        ([], 0, 0, True),
        (["applied"], 1, 0, True),
        (["applied", "applied"], 2, 0, True),
        (["failed"], 0, 1, False),
        (["blocked"], 0, 1, False),
        (["applied", "failed", "blocked"], 1, 2, False),
    ],
)
def test_outcomes_are_counted(statuses: list[Status], applied: int, troubles: int, clean: bool) -> None:
    """What was carried out is counted, what was not is listed, and one trouble spoils the report."""
    report = Report(outcomes=tuple(Outcome(STEP, status) for status in statuses))
    assert (report.applied, len(report.troubles), report.is_clean) == (applied, troubles, clean)


@pytest.mark.parametrize(
    ("plan", "clean"),
    [
        (Plan(), True),
        (Plan(steps=(STEP,), kept=3), True),
        (Plan(waits=(Wait("id-web", "web", "later"),)), True),
        (Plan(notes=(Note(unit="id-web", name="web", text="look"),)), True),
        (Plan(rejections=(Rejection(unit="id-web", name="web", reasons=("no",)),)), False),
        (Plan(rejections=(Rejection(unit="id-web", name="web", reasons=("later",), held=True),)), False),
        (Plan(failures=(Failure("id-web", "web", "rolled back"),)), False),
        (Plan(refusal=Refusal(("web",), 1, "token")), False),
    ],
)
def test_a_plan_that_cannot_do_everything_spoils_the_report(plan: Plan, clean: bool) -> None:
    """Rejections, failures and refusals are not clean; work, waits and notes are."""
    assert plan.is_clean is clean
    assert Report(plan=plan).is_clean is clean


APPLIED, FAILED = Outcome(STEP, "applied"), Outcome(STEP, "failed", retry=True)
OVERTAKEN = Outcome(STEP, "overtaken", retry=True, at_once=True)
UNDER_WAY = Outcome(STEP, "under way")
DONE = Verdict(service="web", running=1, wanted=1, done=True)
PENDING = Verdict(service="web", running=0, wanted=1)


def test_everything_that_was_carried_out_in_any_pass_is_applied() -> None:
    assert result(report(APPLIED), report(APPLIED, FAILED), report()).applied == (APPLIED, APPLIED)
    assert result().applied == ()


@pytest.mark.parametrize(
    ("reports", "troubles"),
    [
        ([], ()),
        ([report(FAILED)], (FAILED,)),
        ([report(FAILED), report(APPLIED)], ()),
        ([report(FAILED), report()], (FAILED,)),
        ([report(OVERTAKEN)], (OVERTAKEN,)),
        ([report(OVERTAKEN, FAILED), report()], (FAILED,)),
        ([report(), report()], ()),
    ],
)
def test_troubles_are_those_of_the_last_pass_that_tried_anything(
    reports: list[Report], troubles: tuple[Outcome, ...]
) -> None:
    """That somebody else was faster is none once a look finds nothing more to do."""
    assert result(*reports).troubles == troubles


@pytest.mark.parametrize(
    ("verdict", "outcomes", "pending"),
    [
        (DONE, (), set()),
        (PENDING, (), {"web"}),
        (Verdict(service="web", running=0, wanted=1, failed=True), (), set()),
        (PENDING, (FAILED,), set()),
        (PENDING, (UNDER_WAY,), set()),
        (PENDING, (APPLIED,), {"web"}),
    ],
)
def test_swarm_is_still_at_what_was_written(
    verdict: Verdict, outcomes: tuple[Outcome, ...], pending: set[str]
) -> None:
    """Not at a service that could not be written, or not yet."""
    assert result(report(*outcomes), verdicts=(verdict,)).pending == pending


@pytest.mark.parametrize(
    ("reports", "plan", "verdict", "stable"),
    [
        ([report()], Plan(), DONE, True),
        ([], Plan(), DONE, True),
        ([report(APPLIED), report()], Plan(), DONE, True),
        ([report(APPLIED)], Plan(), DONE, False),
        ([report()], Plan(), PENDING, False),
        ([report(FAILED)], Plan(), DONE, False),
        ([report(UNDER_WAY)], Plan(), DONE, False),
        ([report()], Plan(waits=(Wait("id-web", "web", "later"),)), DONE, False),
        ([report()], Plan(failures=(Failure("id-web", "web", "rolled back"),)), DONE, False),
    ],
)
def test_stable_is_what_has_nothing_left_to_do_and_nothing_wrong(
    reports: list[Report], plan: Plan, verdict: Verdict, stable: bool
) -> None:
    """The old name says the same, and warns."""
    found = result(*reports, last=state(plan=plan, wanted=desired(spec("web"))), verdicts=(verdict,))
    assert found.is_stable is stable
    with pytest.warns(DeprecationWarning, match="is_stable"):
        assert found.is_settled is stable
