"""Which problems are told, and when."""

from typing import Any

import pytest
from tests.unit.domain.examples import result, state

from coreflow.domain.deploy.desired import Note, Rejection
from coreflow.domain.deploy.problems import (
    NAME_SHOWN,
    NOTHING_TOLD,
    REASON_SHOWN,
    UNFINISHED_SECONDS,
    Message,
    ProblemLog,
)
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.deploy.steps import Contest, Failure, Plan, Refusal
from coreflow.domain.swarm.convergence import Verdict


def rejected(*reasons: str, name: str = "web", **more: bool) -> Rejection:
    """A record that is not deployed."""
    return Rejection(unit=f"id-{name}", name=name, reasons=reasons, **more)


def found(**plan: Any) -> ReconcileResult:
    """A result whose last plan says this."""
    return result(last=state(plan=Plan(**plan)))


def tell(log: ProblemLog, found: ReconcileResult, now: float = 0.0) -> tuple[ProblemLog, list[str]]:
    """The next log, and each message in a line."""
    log, messages = log.after(found, now)
    return log, [_line(message) for message in messages]


def is_calm(log: ProblemLog) -> bool:
    """Return whether nothing is wrong any more."""
    return not any(course.state for course in log.flapping.courses.values()) and not log.moving


def _line(message: Message) -> str:
    facts = message.facts
    rest = facts.get("reason", facts.get("was", facts.get("tasks")))
    return f"{message.level}: {message.event} {facts['name']}: {rest}"


@pytest.mark.parametrize(
    ("plan", "line"),
    [
        (Plan(rejections=(rejected("no", "and no"),)), "warning: rejected web: no; and no"),
        (Plan(rejections=(rejected("later", held=True),)), "warning: held web: later"),
        (Plan(rejections=(rejected("asking", held=True, awaited=True),)), "info: held web: asking"),
        (Plan(failures=(Failure("id-web", "web", "rolled back"),)), "warning: failed web: rolled back"),
        (
            Plan(contests=(Contest("id-web", "web", "docker", 3),)),
            "warning: contested web: docker, again and again: put right with growing pauses",
        ),
        (Plan(notes=(Note(unit="id-web", name="web", text="look"),)), "warning: note web: look"),
        (
            Plan(refusal=Refusal(("a", "b"), 2, "token")),
            f"warning: refused removal: {Refusal(('a', 'b'), 2, 'token')} (COREFLOW_CONFIRM_REMOVAL); services: a, b",
        ),
    ],
)
def test_each_problem_is_told_when_it_begins(plan: Plan, line: str) -> None:
    """Once: not again while it stays, and a line when it has ended."""
    now = result(last=state(plan=plan))
    log, lines = tell(NOTHING_TOLD, now)
    assert lines == [line]
    log, lines = tell(log, now)
    assert lines == []
    log, lines = tell(log, found())
    assert [text.split(" ")[:2] for text in lines] == [["info:", "resolved"]]
    assert is_calm(log)


def test_several_notes_of_one_service_are_told_together() -> None:
    notes = (Note(unit="id-web", name="web", text="look"), Note(unit="id-web", name="web", text="and there"))
    log, lines = tell(NOTHING_TOLD, found(notes=notes))
    assert lines == ["warning: note web: look; and there"]
    _, lines = tell(log, found(notes=notes[:1]))
    assert lines == ["warning: note web: look"], "one has gone, which is news"


def test_another_reason_is_told_too() -> None:
    log, _ = tell(NOTHING_TOLD, found(rejections=(rejected("no"),)))
    _, lines = tell(log, found(rejections=(rejected("still no"),)))
    assert lines == ["warning: rejected web: still no"]


def test_what_is_only_called_something_else_is_not_resolved() -> None:
    """A record that was held and is rejected now has a problem all along."""
    log, _ = tell(NOTHING_TOLD, found(rejections=(rejected("later", held=True),)))
    _, lines = tell(log, found(rejections=(rejected("no"),)))
    assert lines == ["warning: rejected web: no"]


def test_a_service_that_takes_long_is_unfinished_after_a_minute() -> None:
    """At once where a task fails; and it is told when it runs."""
    slow = result(verdicts=(Verdict(service="web", running=0, wanted=1, detail="starting"),))
    log, lines = tell(NOTHING_TOLD, slow, 5.0)
    assert lines == []
    log, lines = tell(log, slow, 4.9 + UNFINISHED_SECONDS)
    assert lines == []
    log, lines = tell(log, slow, 5.0 + UNFINISHED_SECONDS)
    assert lines == ["warning: unfinished web: 0 of 1 running: starting"]
    log, lines = tell(log, result(verdicts=(Verdict(service="web", running=1, wanted=1, done=True),)), 70.0)
    assert lines == ["info: running web: 1", "info: resolved web: unfinished"]
    assert is_calm(log)
    broken = result(verdicts=(Verdict(service="web", running=0, wanted=1, detail="exits", has_error=True),))
    assert tell(log, broken)[1] == ["warning: unfinished web: 0 of 1 running: exits"]


def test_a_service_without_a_detail_or_without_a_record_is_no_problem() -> None:
    log, lines = tell(NOTHING_TOLD, result(verdicts=(Verdict(service="web", running=0, wanted=0),)))
    assert (is_calm(log), lines) == (True, [])
    log, _ = tell(log, result(verdicts=(Verdict(service="web", running=0, wanted=1, detail="starting"),)))
    assert is_calm(tell(log, result())[0])


def test_a_crash_loop_is_told_once_however_its_tasks_end() -> None:
    for error in ("exit code 1", "exit code 2"):
        verdict = Verdict(service="web", running=0, wanted=1, detail="x", crashes=3, error=error)
        assert tell(NOTHING_TOLD, result(verdicts=(verdict,)))[1] == [
            f"warning: crash-looping web: its tasks end again and again: {error}"
        ]
    log, _ = tell(
        NOTHING_TOLD,
        result(verdicts=(Verdict(service="web", running=0, wanted=1, detail="x", crashes=3, error="a"),)),
    )
    assert (
        tell(
            log,
            result(verdicts=(Verdict(service="web", running=0, wanted=1, detail="x", crashes=4, error="b"),)),
        )[1]
        == []
    )


def test_a_crash_loop_is_told_of_again_with_a_count_and_later_each_time() -> None:
    log, told = NOTHING_TOLD, []
    for minute in range(61):
        verdict = Verdict(service="web", running=0, wanted=1, detail="x", crashes=minute + 2, error="e")
        log, messages = log.after(result(verdicts=(verdict,)), 60.0 * minute)
        told += [(minute, m.event, m.facts.get("times")) for m in messages]
    assert told == [
        (0, "crash-looping", None),
        (10, "still crash-looping", 12),
        (30, "still crash-looping", 32),
        (50, "still crash-looping", 52),
    ]


def test_what_begins_and_ends_every_minute_is_flapping() -> None:
    """Three beginnings, then counts, then one line when it is over; each beginning has its end."""
    log, told = NOTHING_TOLD, []
    for minute in range(61):
        held = (rejected("away", held=True),) if minute < 30 and minute % 2 == 0 else ()
        log, lines = tell(log, found(rejections=held), 60.0 * minute)
        told += lines
    assert [line.split(" ", 1)[1].split(":")[0] for line in told] == [
        "held web",
        "resolved web",
        "held web",
        "resolved web",
        "flapping web",
        "still flapping web",
        "still flapping web",
        "no longer flapping web",
    ]
    assert told[-1].startswith("info: ")
    assert is_calm(log)


def test_long_texts_are_cut() -> None:
    """A record may be called, or complain, at any length."""
    _, messages = NOTHING_TOLD.after(found(rejections=(rejected("r" * 9999, name="n" * 999),)), 0.0)
    (message,) = messages
    assert len(str(message.facts["name"])) == NAME_SHOWN
    assert str(message.facts["reason"]) == f"{'r' * REASON_SHOWN}… and {9999 - REASON_SHOWN} more characters"
