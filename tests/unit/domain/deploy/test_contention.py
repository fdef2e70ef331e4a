"""Who writes against us: what counts as undone, who did it, and when the next answer is due."""

from typing import Any

import pytest
from attrs import evolve
from tests.unit.domain.examples import CLUSTER, desired, live, observed, spec

from coreflow.domain.deploy.contention import CALM_SECONDS, PAUSES, WriteLog
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.removals import removal_token
from coreflow.domain.deploy.steps import PlanOptions, verb_of
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.observed import ObservedService

OURS, THEIRS = spec(), spec(image="theirs:1")
WANTED = {OURS.name: OURS}


def after(log: WriteLog, *services: ObservedService, at: float = 0.0, **more: Any) -> WriteLog:
    """The log after one look at these services."""
    return log.seen(more.pop("wanted", WANTED), observed(*services, time=at), CLUSTER, **more)


def times(log: WriteLog) -> int:
    """How often `web` was undone."""
    entry = log.entries.get(OURS.name)
    return entry.times if entry is not None else 0


def theirs(version: int, **labels: str) -> ObservedService:
    """The service as another coreflow wrote it."""
    return live(THEIRS, version=version, labels=labels)


def test_what_was_as_we_want_and_is_not_any_more_was_undone() -> None:
    """A first difference is no quarrel; one that comes after agreement is, once for each time."""
    assert times(after(WriteLog(), theirs(1))) == 0
    log = after(WriteLog(), live(OURS))
    log = after(log, theirs(8))
    assert times(log) == 1
    assert times(after(log, theirs(8))) == 1, "seen twice, done once"
    log = log.wrote(OURS, 1.0, 8)
    assert times(after(log, theirs(8))) == 1, "a list from before our write"
    assert times(after(log, theirs(9))) == 2


@pytest.mark.parametrize(
    "there",
    [
        live(THEIRS, version=9, update_state="rollback_completed"),
        live(THEIRS, version=9, labels={naming.FAILED: OURS.fingerprints.whole}),
        live(OURS, version=9, by_hand={"replicas": 0}, labels={naming.STOPPED: "1"}),
        evolve(live(spec(login="other")), version=9),
    ],
    ids=["rolled back", "noted as failed", "stopped for a restore", "another login"],
)
def test_what_is_nobodys_doing_does_not_count(there: ObservedService) -> None:
    """Swarm's roll-back, our own note, a restore and a changed login are no quarrel."""
    assert times(after(WriteLog().wrote(OURS, 1.0, 7), there)) == 0


def test_a_new_intent_begins_anew() -> None:
    """A record that changed is written at once, whatever was undone before."""
    log = after(after(WriteLog(), live(OURS)), theirs(8)).wrote(OURS, 1.0, 8)
    log = after(log, theirs(9)).wrote(spec(image="newer:1"), 2.0, 9)
    assert times(log) == 0


@pytest.mark.parametrize(
    ("there", "by"),
    [
        (live(OURS, version=8, by_hand={"replicas": 7}), "somebody changes it by hand"),
        (theirs(8), "another coreflow changes it"),
        (theirs(8, **{naming.WRITER: "host:1"}), "another coreflow with other records (host:1) changes it"),
    ],
)
def test_who_did_it_is_told_as_far_as_labels_tell(there: ObservedService, by: str) -> None:
    """A hand leaves our intent on the service, another coreflow writes its own."""
    assert after(after(WriteLog(), live(OURS)), there).entries[OURS.name].by == by


def test_removals_count_both_ways() -> None:
    """A service that vanishes was undone, and so was the removal of one that comes back."""
    log = after(after(WriteLog(), live(OURS)))
    assert (times(log), log.entries[OURS.name].by) == (1, "somebody removes it")
    log = after(WriteLog().removed(live(OURS), 1.0), wanted={})
    log = after(log, live(OURS, labels={naming.WRITER: "host:1"}), wanted={}, at=2.0)
    assert times(log) == 1
    assert log.entries[OURS.name].by == "another coreflow with other records (host:1) makes it again"


def test_answers_come_at_once_first_and_then_after_pauses() -> None:
    """The first answer is due at once; then 10 s, a minute, and ten minutes for ever."""
    log, version, due = after(WriteLog(), live(OURS)), 8, []
    for _ in range(6):
        log = after(log, theirs(version))
        due.append(log.entries[OURS.name].due - log.entries[OURS.name].at)
        log, version = log.wrote(OURS, 100.0, version), version + 1
    assert due == [*PAUSES[1:], PAUSES[-1], PAUSES[-1]]


def test_a_quarrel_ends_when_nobody_has_touched_the_service_for_long() -> None:
    """A service that stays as we want it for half an hour is no longer contested."""
    log = after(WriteLog(), live(OURS))
    for version in (8, 9):
        log = after(log, theirs(version), at=10.0).wrote(OURS, 10.0, version)
    assert times(after(log, live(OURS, version=10), at=9.0 + CALM_SECONDS)) == 2
    assert times(after(log, live(OURS, version=10), at=10.0 + CALM_SECONDS)) == 0


def quarrel(rounds: int) -> WriteLog:
    """The log of somebody whose writes were undone so many times."""
    log = after(WriteLog(), live(OURS))
    for version in range(8, 8 + rounds):
        log = after(log.wrote(OURS, 100.0, version - 1), theirs(version), at=100.0)
    return log


def test_a_plan_waits_for_its_turn_and_says_who_it_is() -> None:
    """Between two answers the difference waits; the quarrel is told all the time, and to whom it belongs."""
    there = theirs(20)
    for at, verbs in ((101.0, []), (110.0, ["update"])):
        plan = make_plan(desired(OURS), observed(there, time=at), log=quarrel(2))
        assert [verb_of(action) for action in plan.actions] == verbs
        assert [(c.name, c.times) for c in plan.contests] == [("web", 2)]
        assert [wait.until for wait in plan.waits] == ([] if verbs else [110.0])
    gone = make_plan(desired(OURS), observed(time=101.0), log=quarrel(2))
    assert (gone.actions, len(gone.waits)) == ((), 1)


def test_a_removal_that_is_undone_waits_too() -> None:
    """A service that another writer makes again is removed once a pause."""
    log, there = WriteLog(), live(OURS)
    for _ in range(2):
        log = after(log.removed(live(OURS), 100.0), there, wanted={}, at=100.0)
    meant = PlanOptions(confirmed=removal_token([there.id]))
    assert make_plan(desired(), observed(there, time=105.0), meant, log=log).actions == ()
    late = make_plan(desired(), observed(there, time=110.0), meant, log=log)
    assert [verb_of(action) for action in late.actions] == ["remove"]
