"""Every path of a restore, on values alone: whatever each step comes to, whoever is killed, and whoever takes over."""

from collections.abc import Iterator
from itertools import product
from typing import Literal

import pytest
from attrs import evolve, frozen

from coreflow.domain.backup import restore as machine
from coreflow.domain.backup.lease import Lease, help_for
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import Target
from coreflow.domain.backup.restore import Answer, Outcome, Phase, Restore, after, begin, next_step
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.instances import Instance
from coreflow.domain.swarm.stopped import NOBODY, undo_id

Data = Literal["old", "new", "half"]
SHOP = ServiceId("id-shop")
INSTANCE = Instance(url="http://corestore:3000")
LEASE = Lease(id="0123456789abcdef", backup_id="b1", owner="command-1")


def target(name: str) -> Target:
    """A volume that is restored."""
    return Target(part=Part(kind="volume", name=name, snapshot_id=f"snap-{name}"), instance=INSTANCE)


TARGETS = (target("a"), target("b"))
STOPPED = machine.Facts()


def play(restore: Restore, *answers: Answer | Outcome) -> tuple[Restore, list[machine.Step]]:
    """Give answers, one after the other; then everything goes well."""
    given, steps = list(answers), []
    while not restore.phase.is_over:
        step = next_step(restore, STOPPED)
        steps.append(step)
        outcome = given.pop(0) if given else Outcome(Answer.DONE)
        if isinstance(outcome, Answer):
            outcome = Outcome(outcome, "it says why")
        if isinstance(step, machine.Save) and outcome.answer is Answer.DONE:
            outcome = Outcome(Answer.DONE, found=f"saved-{step.index}")
        restore = after(restore, step, outcome)
    assert not given
    return restore, steps


OK, NO, NOTHING, SILENT, AWAY = Answer.DONE, Answer.REFUSED, Answer.UNTOUCHED, Answer.SILENT, Answer.AWAY
READY = (OK, OK, OK)
"""Stopped, saved, marked: for one part."""


def one() -> Restore:
    """A restore of one part."""
    return begin(SHOP, LEASE, TARGETS[:1])


def test_all_goes_well() -> None:
    """Each part is saved before the first one is overwritten."""
    restore, steps = play(begin(SHOP, LEASE, TARGETS))
    assert steps == [
        machine.Stop(),
        machine.Save(0),
        machine.Save(1),
        machine.Mark(),
        machine.Overwrite(0, "snap-a"),
        machine.Overwrite(1, "snap-b"),
        machine.Start(),
    ]
    assert (restore.phase, restore.result().status) == (Phase.DONE, "completed")


@pytest.mark.parametrize(
    ("answers", "phase", "status", "text"),
    [
        ((*READY, NOTHING), Phase.DONE, "failed", "volume a: it says why; it is as it was before"),
        ((*READY, NO, OK), Phase.DONE, "failed", "volume a: it says why; it is as it was before"),
        ((*READY, *[SILENT] * 4, OK), Phase.DONE, "failed", "volume a: it says why; it is as it was before"),
        ((*READY, *[SILENT] * 3, OK), Phase.DONE, "completed", ""),
        ((*READY, *[AWAY] * 4), Phase.DONE, "failed", "volume a: it says why; it is as it was before"),
        ((*READY, *[SILENT] * 8), Phase.LEFT, "failed", machine.HALF),
        ((*READY, NO, NO, NO), Phase.LEFT, "failed", machine.HALF),
        ((*READY, NO, NO, OK), Phase.DONE, "failed", "but nothing was changed: it is as it was before"),
        ((*READY, SILENT, NO, NO), Phase.LEFT, "failed", machine.HALF),
        ((NO,), Phase.DONE, "failed", "it says why"),
        ((OK, NO), Phase.DONE, "failed", "it says why"),
        ((OK, *[SILENT] * 4), Phase.DONE, "failed", "it says why"),
        ((OK, OK, SILENT), Phase.DONE, "failed", "it says why"),
        ((*READY, OK, NO), Phase.LEFT, "partial", "the workload could not be started: it says why"),
        ((*READY, Answer.ENDED), Phase.LEFT, "failed", machine.HALF),
        ((*READY, NO, Answer.ENDED), Phase.LEFT, "failed", machine.HALF),
        (
            (*READY, NO, SILENT, NO, OK),
            Phase.LEFT,
            "failed",
            "could not be put back either (it says why): snapshot saved-0",
        ),
        ((OK, Answer.ENDED), Phase.DONE, "failed", ""),
        ((*READY, Answer.TAKEN), Phase.LOST, "failed", "it says why"),
    ],
)
def test_what_outcomes_lead_to(answers: tuple[Answer, ...], phase: Phase, status: str, text: str) -> None:
    """One part: how it ends, and what is said."""
    restore, _ = play(one(), *answers)
    assert (restore.phase, restore.result().status) == (phase, status)
    assert text in restore.result().error


def test_a_part_after_one_that_was_given_up_is_asked_for_once() -> None:
    """Or each would cost its share of time."""
    restore, steps = play(begin(SHOP, LEASE, TARGETS), OK, OK, OK, OK, *[SILENT] * 4, OK, SILENT, OK)
    assert restore.result().status == "failed"
    assert restore.phase is Phase.DONE
    assert [s.pause for s in steps if isinstance(s, machine.Overwrite)] == [
        0,
        *machine.ATTEMPT_PAUSES,
        0,
        0,
        0,
    ]


def test_a_note_that_was_found_is_checked_first() -> None:
    """Nothing of one that is not the service's own counts, as long as nothing was overwritten."""
    for answer in (Answer.FOREIGN, NOTHING):
        restore, steps = play(begin(SHOP, LEASE, TARGETS, is_found=True), OK, OK, answer)
        assert steps[-1] == machine.Start()
        assert len(steps) == 4
        assert restore.result().status == "failed"
    begun = begin(SHOP, evolve(LEASE, has_begun=True), TARGETS, is_found=True)
    restore, steps = play(begun, OK, NOTHING, Answer.FOREIGN)
    assert [s.snapshot_id for s in steps if isinstance(s, machine.Overwrite)] == ["saved-0"]
    assert restore.phase is Phase.DONE


def test_what_cannot_be_put_back_stays_as_it_is() -> None:
    """A part that was half overwritten before, and of which nothing was saved: it is said, and the workload starts."""
    part = machine.PartState(target=TARGETS[0], is_checked=True, is_saved=True, is_touched=True)
    begun = evolve(one(), lease=evolve(LEASE, has_begun=True), phase=Phase.OVERWRITING, parts=(part,))
    restore = after(begun, machine.Overwrite(0, "snap-a"), Outcome(NO, "it says why"))
    assert restore.phase is Phase.STARTING
    assert restore.problems == (
        "volume a: it says why",
        "no snapshot of what was there before is known: it stays as it is",
    )


@pytest.mark.parametrize("facts", [machine.Facts(has_service=False), machine.Facts(is_stopped=False)])
@pytest.mark.parametrize(("phase", "over"), [(Phase.STARTING, Phase.DONE), (Phase.LEAVING, Phase.LEFT)])
def test_what_is_not_there_or_runs_is_not_started(facts: machine.Facts, phase: Phase, over: Phase) -> None:
    """Nor is a lease given up that is not there."""
    restore = evolve(one(), phase=phase)
    assert next_step(restore, facts) == machine.End()
    assert after(restore, machine.End(), Outcome(OK)).phase is over


def test_the_table_is_whole() -> None:
    """Every phase has a row, no phase that is over has a way out of it, and all others can be lost."""
    assert set(machine.TRANSITIONS) == set(Phase)
    for phase, row in machine.TRANSITIONS.items():
        assert bool(row) is not phase.is_over
        assert phase.is_over or row[machine.Event.TAKEN] is Phase.LOST


# --- every path


@frozen
class World:
    """What is really there: data and snapshots by part, and the lease as it is written."""

    data: tuple[Data, ...]
    saved: tuple[bool, ...] = (False, False)
    silent: tuple[bool, ...] = (False, False)
    """Whether an overwriting of the part had no answer: it may still go on."""
    is_stopped: bool = False
    has_begun: bool = False
    owner: str = ""
    lives: int = 2
    """How many processes may still die, or lose the lease."""


Move = tuple[Outcome, World]


def moves(restore: Restore, step: machine.Step, world: World) -> Iterator[Move]:
    """Everything that a step may come to, and what it does to the world."""
    failures = [Outcome(answer, "x") for answer in (NO, NOTHING, SILENT, AWAY, Answer.ENDED)]
    match step:
        case machine.Stop():
            done = evolve(world, is_stopped=True, owner=restore.lease.owner)
            yield Outcome(OK), done
            yield from ((failure, there) for failure in failures for there in {world, done})
        case machine.Check():
            yield Outcome(OK), world
            yield Outcome(Answer.FOREIGN, "x"), world
            yield from ((failure, world) for failure in failures)
        case machine.Save(index):
            yield from _saves(step, index, world)
            yield from ((failure, world) for failure in failures)
        case machine.Mark():
            done = evolve(world, has_begun=True)
            yield Outcome(OK), done
            yield from ((failure, there) for failure in failures for there in {world, done})
        case machine.Overwrite(index, undoes=undoes):
            assert world.is_stopped
            assert world.has_begun
            assert step.snapshot_id == (
                f"saved-{index}" if undoes else restore.parts[index].target.part.snapshot_id
            )
            yield from _overwrites(index, "old" if undoes else "new", world)
        case machine.Look(index):
            assert not world.silent[index]  # what can be seen now would be no proof
            if world.data[index] == "old":
                yield Outcome(OK), world
            yield from ((failure, world) for failure in failures)
        case machine.Start():
            assert all(_is_fine(restore, index, data) for index, data in enumerate(world.data))
            yield Outcome(OK), evolve(world, is_stopped=False)
            yield Outcome(NO, "x"), world
            yield Outcome(SILENT, "x"), world
        case machine.LetGo():
            yield Outcome(OK), evolve(world, owner=NOBODY)
            yield Outcome(SILENT, "x"), world
        case _:
            yield Outcome(OK), world
    yield Outcome(Answer.TAKEN, "x"), world


def _saves(step: machine.Save, index: int, world: World) -> Iterator[Move]:
    if world.saved[index]:
        yield Outcome(OK, found=f"saved-{index}"), world
    elif step.may_take:
        assert world.data[index] == "old"  # or what is half restored would be saved
        saved = (*world.saved[:index], True, *world.saved[index + 1 :])
        yield Outcome(OK, found=f"saved-{index}"), evolve(world, saved=saved)
    else:
        yield Outcome(OK), world


def _overwrites(index: int, becomes: Data, world: World) -> Iterator[Move]:
    def there(data: Data) -> World:
        return evolve(world, data=(*world.data[:index], data, *world.data[index + 1 :]))

    yield Outcome(OK), there(becomes)
    for answer in (NOTHING, AWAY):
        yield Outcome(answer, "x"), world
    for data in {world.data[index], "half"}:
        yield Outcome(NO, "x"), there(data)
    for answer in (SILENT, Answer.ENDED):
        for data in {world.data[index], "half", becomes}:
            silent = (*world.silent[:index], True, *world.silent[index + 1 :])
            yield Outcome(answer, "x"), evolve(there(data), silent=silent)


def _is_fine(restore: Restore, index: int, data: Data) -> bool:
    """Whether the workload may run on this."""
    if index >= len(restore.parts):
        return True
    match restore.parts[index].ended:
        case "restored":
            return data == "new"
        case "as before":
            return data == "old"
        case "unsaved" | "foreign":
            return True  # nothing can be put back, ever
    return data == "old"


def check_end(restore: Restore, world: World) -> None:
    """It runs on whole data, or it is stopped with a lease that says how to go on."""
    if restore.phase is Phase.DONE:
        assert not world.is_stopped
    if restore.phase is Phase.LEFT:
        assert restore.problems
        assert restore.result().status != "completed"
        text = help_for("shop", restore.lease, 2)
        assert "coreflow restore shop --backup b1" in text
        assert (undo_id(LEASE.id) in text) is restore.lease.has_begun
        assert "docker service update" in text
        assert world.is_stopped


def folded(restore: Restore) -> Restore:
    """The restore without what was said before the last thing: it makes no difference to what comes."""
    return evolve(restore, problems=restore.problems[-1:])


def facts_of(world: World) -> machine.Facts:
    return machine.Facts(is_stopped=world.is_stopped)


class Explorer:
    """Walks every path, each state once."""

    def __init__(self) -> None:
        self.paths: dict[tuple[Restore, World], int] = {}
        self.under_way: set[tuple[Restore, World]] = set()

    def count(self, restore: Restore, world: World) -> int:
        """How many paths lead on from here. Fails where one goes round in circles, or ends badly."""
        state = (folded(restore), world)
        if (known := self.paths.get(state)) is not None:
            return known
        assert state not in self.under_way, "a circle"
        self.under_way.add(state)
        total = 0
        if world.lives:
            total += sum(self.count(*following) for following in self._others(restore, world))
        if restore.phase.is_over:
            check_end(restore, world)
            total += 1
        else:
            step = next_step(state[0], facts_of(world))
            for outcome, there in moves(restore, step, world):
                total += self.count(after(state[0], step, outcome), there)
        self.under_way.discard(state)
        self.paths[state] = total
        return total

    def _others(self, restore: Restore, world: World) -> Iterator[tuple[Restore, World]]:
        """Killed here, or overtaken: somebody else goes on from the lease, if there is one; snapshots may be pruned by then."""
        if not world.is_stopped or restore.phase is Phase.DONE:
            return
        lease = evolve(restore.lease, owner=f"other-{world.lives}", has_begun=world.has_begun)
        parts = len(restore.parts)
        left = evolve(world, lives=world.lives - 1, silent=(world.has_begun,) * parts)
        pruned = evolve(left, saved=(False,) * parts)
        for is_found, there in product((True, False), {left, pruned}):
            yield begin(SHOP, lease, TARGETS[:parts], is_found=is_found), there


@pytest.mark.parametrize(("parts", "lives"), [(1, 2), (2, 1)])
def test_every_path_ends_well(parts: int, lives: int) -> None:
    """Whole, or stopped with a lease that says how to go on; there is no other end, and no circle."""
    explorer = Explorer()
    old: Data = "old"
    world = World(data=(old,) * parts, saved=(False,) * parts, silent=(False,) * parts, lives=lives)
    paths = explorer.count(begin(SHOP, LEASE, TARGETS[:parts]), world)
    assert paths > 100_000
    ends = {restore.phase for restore, _ in explorer.paths if restore.phase.is_over}
    assert ends == {Phase.DONE, Phase.LEFT, Phase.LOST}


def test_answers_that_no_step_gives() -> None:
    """Whatever a phase is told, it knows a next one."""
    for answer, first in product(
        Answer, (begin(SHOP, LEASE, TARGETS), begin(SHOP, LEASE, (), is_found=True))
    ):
        restore = first
        while not restore.phase.is_over:
            outcome = Outcome(answer, "x")
            restore = after(restore, next_step(restore, STOPPED), outcome)
        assert after(restore, machine.End(), Outcome(answer)) is restore
