"""What a report says of a pass."""

import pytest
from tests.unit.domain.examples import spec

from coreflow.domain.deploy.desired import Note, Rejection
from coreflow.domain.deploy.result import Outcome, Report, Status
from coreflow.domain.deploy.steps import Failure, Plan, Refusal, Step, Wait
from coreflow.domain.swarm.actions import Create

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
