"""A restore as a value: what it does next, and what it is after that.

    restore = begin(...)
    while not restore.phase.is_over:
        step = next_step(restore, facts)
        restore = after(restore, step, outcome of the step)

Whatever happens, it ends in one of four ways. *Done*: the workload runs, and every part is either restored or as it was.
*Left*: the workload is stopped, and the lease on it says how to go on. *Lost*: somebody else holds the lease. (Or nothing was
touched at all, which is done, too.) A step that gets no answer is tried a few times; then what was there is put back.

`TRANSITIONS` is the whole table. Nothing here waits or happens: `coreflow.app.restores` does that.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Literal, NamedTuple

from attrs import evolve, frozen

from coreflow.domain.ids import ServiceId
from coreflow.domain.swarm.stopped import NOBODY, undo_id

from .lease import Lease
from .requests import RestoreResult, Target
from .requests import Status as ResultStatus
from .snapshots import VOLUME

ATTEMPT_PAUSES = (1.0, 4.0, 10.0)
"""Seconds before a step is tried once more. After as many pauses it is given up."""
SLOW_SECONDS = 10.0
"""What took longer to fail than this is not tried once more: a workload is waiting."""
HALF = "left stopped: data is half restored"
UNSTARTED = "the workload could not be started"


class Phase(Enum):
    """The phase of a restore."""

    STOPPING = "stopping"
    CHECKING = "checking"
    """Of a restore that was found: is what its lease names the service's own?"""
    SAVING = "saving"
    OVERWRITING = "overwriting"
    UNDOING = "undoing"
    """Putting back one part as it was."""
    LOOKING = "looking"
    """Putting back was refused, too: is the part as it was all the same?"""
    STARTING = "starting"
    LEAVING = "leaving"
    """Giving up the lease of a workload that stays stopped."""
    DONE = "done"
    LEFT = "left"
    LOST = "lost"

    @property
    def is_over(self) -> bool:
        """Return whether nothing is left to do."""
        return self in (Phase.DONE, Phase.LEFT, Phase.LOST)

    @property
    def overwrites(self) -> bool:
        """Return whether data is being overwritten, so that the workload cannot be started any moment."""
        return self in (Phase.OVERWRITING, Phase.UNDOING, Phase.LOOKING)


class Event(Enum):
    """The meaning of an outcome for the phase."""

    MORE = "more"
    """There is more to do in this phase, or the same once again."""
    READY = "ready"
    """The phase is through."""
    FAILED = "failed"
    """It cannot be done, and all data is whole."""
    UNDO = "undo"
    """A part may be half overwritten."""
    LOOK = "look"
    """A part was refused in both directions: it may be as it was."""
    HALF = "half"
    """It cannot be done, and a part may be half overwritten."""
    TAKEN = "taken"
    """Somebody else holds the lease."""


_ALWAYS = {Event.TAKEN: Phase.LOST}
_BEFORE = {Event.FAILED: Phase.STARTING, Event.HALF: Phase.LEAVING, **_ALWAYS}
TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.STOPPING: {Event.MORE: Phase.STOPPING, Event.READY: Phase.CHECKING, **_BEFORE},
    Phase.CHECKING: {Event.MORE: Phase.CHECKING, Event.READY: Phase.SAVING, **_BEFORE},
    Phase.SAVING: {Event.MORE: Phase.SAVING, Event.READY: Phase.OVERWRITING, **_BEFORE},
    Phase.OVERWRITING: {
        Event.MORE: Phase.OVERWRITING,
        Event.UNDO: Phase.UNDOING,
        Event.READY: Phase.STARTING,
        Event.FAILED: Phase.STARTING,
        Event.HALF: Phase.LEAVING,
        **_ALWAYS,
    },
    Phase.UNDOING: {
        Event.MORE: Phase.OVERWRITING,
        Event.UNDO: Phase.UNDOING,
        Event.LOOK: Phase.LOOKING,
        Event.READY: Phase.STARTING,
        Event.FAILED: Phase.STARTING,
        Event.HALF: Phase.LEAVING,
        **_ALWAYS,
    },
    Phase.LOOKING: {
        Event.MORE: Phase.OVERWRITING,
        Event.LOOK: Phase.LOOKING,
        Event.READY: Phase.STARTING,
        Event.HALF: Phase.LEAVING,
        **_ALWAYS,
    },
    Phase.STARTING: {Event.READY: Phase.DONE, Event.FAILED: Phase.LEAVING, **_ALWAYS},
    Phase.LEAVING: {Event.READY: Phase.LEFT, Event.FAILED: Phase.LEFT, **_ALWAYS},
    Phase.DONE: {},
    Phase.LEFT: {},
    Phase.LOST: {},
}

# --- the value

Ended = Literal["", "restored", "as before", "unsaved", "foreign"]


@frozen(kw_only=True)
class PartState:
    """The state of one part."""

    target: Target
    is_checked: bool = False
    refused: str = ""
    """Why its snapshot must not be restored."""
    is_saved: bool = False
    saved: str = ""
    """The snapshot of what was there before; empty: none is known."""
    is_touched: bool = False
    """Whether it may be half overwritten."""
    is_unclear: bool = False
    """Whether an attempt had no answer: it may still go on, so that what can be seen now is no proof."""
    tries: int = 0
    """How often the present step had no answer."""
    ended: Ended = ""
    """Unsaved: nothing can be put back, ever. Foreign: it is not the service's, and is left alone."""


@frozen(kw_only=True)
class Restore:
    """One restore of one service."""

    service_id: ServiceId
    lease: Lease
    parts: tuple[PartState, ...]
    phase: Phase = Phase.STOPPING
    is_found: bool = False
    """Whether it is known from its lease only, which anybody may have written."""
    gave_up: bool = False
    """Whether a part had no answer so often that the others are asked for only once."""
    pulled: int = 0
    created: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Return whether every part is as it is to be or as it was, so that the workload may run."""
        return not self.lease.has_begun or all(part.ended or not part.is_touched for part in self.parts)

    @property
    def restored(self) -> tuple[PartState, ...]:
        """The parts that are restored."""
        return tuple(part for part in self.parts if part.ended == "restored")

    def result(self) -> RestoreResult:
        """Return what came of it."""
        done: ResultStatus = "completed" if not self.problems else "partial" if self.restored else "failed"
        restored = [part.target.part for part in self.restored]
        return RestoreResult(
            backup_id=self.lease.backup_id,
            service_id=self.service_id,
            status=done,
            objects_pulled=self.pulled,
            volumes_created=self.created,
            volumes_restored=tuple(p.name for p in restored if p.kind == VOLUME),
            resources_restored=tuple(p.binding_id for p in restored if p.kind != VOLUME),
            undo_id=undo_id(self.lease.id) if any(part.saved for part in self.restored) else "",
            error="; ".join(self.problems),
        )


def begin(
    service_id: ServiceId,
    lease: Lease,
    targets: tuple[Target, ...],
    *,
    is_found: bool = False,
    pulled: int = 0,
    created: tuple[str, ...] = (),
    problems: tuple[str, ...] = (),
) -> Restore:
    """A restore of these targets. A lease that has begun says that each of them may be half overwritten."""
    parts = tuple(
        PartState(target=target, is_touched=lease.has_begun, is_unclear=lease.has_begun) for target in targets
    )
    return Restore(
        service_id=service_id,
        lease=lease,
        parts=parts,
        is_found=is_found,
        pulled=pulled,
        created=created,
        problems=problems,
    )


# --- steps


@frozen
class Stop:
    """Stop the workload, write the lease on it, and wait until its tasks have ended."""


@frozen
class Check:
    """Find out whether a part and its snapshot are the service's own."""

    index: int


@frozen
class Save:
    """Have a snapshot of what is there: found, or taken where that is still possible."""

    index: int
    pause: float = 0.0
    may_take: bool = True


@frozen
class Mark:
    """Write into the lease that something may be overwritten from now on."""


@frozen
class Overwrite:
    """Make a part what a snapshot says. `undoes`: the snapshot is the one of what was there before."""

    index: int
    snapshot_id: str
    pause: float = 0.0
    undoes: bool = False


@frozen
class Look:
    """Find out whether a part is as it was when it was saved."""

    index: int
    pause: float = 0.0


@frozen
class Start:
    """Start the workload, and take the lease off."""


@frozen
class LetGo:
    """Write into the lease that nobody is at it any more."""


@frozen
class End:
    """Do nothing: there is nothing to start, or to let go."""


Step = Stop | Check | Save | Mark | Overwrite | Look | Start | LetGo | End


@frozen(kw_only=True)
class Facts:
    """Facts that a step depends on besides."""

    has_service: bool = True
    """Whether the service is deployed at all."""
    is_stopped: bool = True
    """Whether it is stopped for this restore."""


class Answer(Enum):
    """The answer to a step."""

    DONE = "done"
    UNTOUCHED = "untouched"
    """It was refused, and nothing was done."""
    REFUSED = "refused"
    """It was refused, and may have been half done."""
    AWAY = "away"
    """Nobody listened: nothing was done. It may be repeated."""
    SILENT = "silent"
    """There was no answer: anything may have happened. It may be repeated."""
    FOREIGN = "foreign"
    """Of a check: it is not the service's own."""
    TAKEN = "taken"
    """Somebody else holds the lease."""
    ENDED = "ended"
    """The process was told to end before there was an answer."""


class Outcome(NamedTuple):
    """The outcome of a step: the answer, why, and what it found (the id of a snapshot)."""

    answer: Answer
    text: str = ""
    found: str = ""
    is_slow: bool = False
    """Whether it took so long that it is not tried once more."""


def next_step(restore: Restore, facts: Facts) -> Step:
    """Return what to do now."""
    match restore.phase:
        case Phase.STOPPING:
            return Stop()
        case Phase.CHECKING:
            return Check(_first(restore, lambda part: not part.is_checked))
        case Phase.SAVING:
            index = _first(restore, lambda part: not part.is_saved and not part.ended)
            if index < 0:
                return Mark()
            return Save(index, _pause(restore.parts[index]), may_take=not restore.lease.has_begun)
        case Phase.OVERWRITING | Phase.UNDOING:
            return _overwrite(restore, undoes=restore.phase is Phase.UNDOING)
        case Phase.LOOKING:
            index = _open(restore)
            return Look(index, _pause(restore.parts[index]))
        case Phase.STARTING if facts.has_service and facts.is_stopped:
            return Start()
        case Phase.LEAVING if facts.has_service and facts.is_stopped:
            return LetGo()
    return End()


def _first(restore: Restore, is_due: Callable[[PartState], bool]) -> int:
    return next((index for index, part in enumerate(restore.parts) if is_due(part)), -1)


def _open(restore: Restore) -> int:
    """The part that is overwritten now; -1: none is left."""
    return _first(restore, lambda part: not part.ended)


def _overwrite(restore: Restore, *, undoes: bool) -> Step:
    index = _open(restore)
    part = restore.parts[index]
    snapshot = part.saved if undoes else part.target.part.snapshot_id
    return Overwrite(index, snapshot, _pause(part), undoes)


def _pause(part: PartState) -> float:
    return ATTEMPT_PAUSES[part.tries - 1] if part.tries else 0.0


# --- what a step leads to


def after(restore: Restore, step: Step, outcome: Outcome) -> Restore:
    """The restore after a step."""
    if restore.phase.is_over:
        return restore
    if outcome.answer is Answer.TAKEN:
        return _after_take_over(restore, outcome)
    match step:
        case Stop():
            return _arrived(*_after_simple(restore, outcome))
        case Check(index):
            return _arrived(*_after_check(restore, index, outcome))
        case Save(index):
            return _arrived(*_after_save(restore, index, outcome))
        case Mark():
            return _arrived(*_after_mark(restore, outcome))
        case Overwrite(index, undoes=undoes):
            undone = _after_undo if undoes else _after_overwrite
            return _arrived(*undone(restore, index, outcome))
        case Look(index):
            return _arrived(*_after_look(restore, index, outcome))
        case Start() if outcome.answer is not Answer.DONE:
            why = f": {outcome.text}" if outcome.text else ""
            return _moved(_with_problems(restore, f"{UNSTARTED}{why}"), Event.FAILED)
        case LetGo() if outcome.answer is Answer.DONE:
            given_up = evolve(restore, lease=evolve(restore.lease, owner=NOBODY))
            return _moved(given_up, Event.READY)
    return _moved(restore, Event.READY)


def _after_take_over(restore: Restore, outcome: Outcome) -> Restore:
    """Somebody else goes on; that is no problem where only the start was left to do."""
    told = () if restore.phase is Phase.STARTING else (outcome.text,)
    return _moved(_with_problems(restore, *told), Event.TAKEN)


def _after_mark(restore: Restore, outcome: Outcome) -> tuple[Restore, Event]:
    if outcome.answer is Answer.DONE:
        restore = evolve(restore, lease=evolve(restore.lease, has_begun=True))
    return _after_simple(restore, outcome)


def _after_simple(restore: Restore, outcome: Outcome) -> tuple[Restore, Event]:
    """One attempt, nothing of a part."""
    if outcome.answer is Answer.DONE:
        return restore, Event.READY
    return _cannot(restore, outcome.text)


def _cannot(restore: Restore, *texts: str) -> tuple[Restore, Event]:
    """It cannot go on. Where an earlier attempt may have left a part half overwritten, that is not whole."""
    told = _with_problems(restore, *texts)
    return told, Event.FAILED if told.is_whole else Event.HALF


def _after_check(restore: Restore, index: int, outcome: Outcome) -> tuple[Restore, Event]:
    """Drop what is not the service's own; before anything was, none of the lease counts then."""
    part = restore.parts[index]
    match outcome.answer:
        case Answer.DONE:
            part = evolve(part, is_checked=True)
        case Answer.UNTOUCHED | Answer.REFUSED:
            part = evolve(part, is_checked=True, refused=outcome.text)
        case Answer.FOREIGN:
            part = evolve(part, is_checked=True, ended="foreign")
            restore = _with_problems(restore, outcome.text)
        case _:
            return _again(restore, index, outcome, Event.MORE) or _cannot(restore, outcome.text)
    restore = _with_part(restore, index, evolve(part, tries=0))
    if _first(restore, lambda one: not one.is_checked) >= 0:
        return restore, Event.MORE
    refused = [f"{one.target.part}: {one.refused}" for one in restore.parts if one.refused]
    if not restore.lease.has_begun and (refused or any(one.ended for one in restore.parts)):
        return _cannot(restore, *refused)
    return restore, Event.READY


def _after_save(restore: Restore, index: int, outcome: Outcome) -> tuple[Restore, Event]:
    if outcome.answer is not Answer.DONE:
        return _again(restore, index, outcome, Event.MORE) or _cannot(restore, outcome.text)
    part = evolve(restore.parts[index], is_saved=True, saved=outcome.found, tries=0)
    restore = _with_part(restore, index, part)
    more = _first(restore, lambda one: not one.is_saved and not one.ended) >= 0
    return restore, Event.MORE if more or not restore.lease.has_begun else Event.READY


def _after_overwrite(restore: Restore, index: int, outcome: Outcome) -> tuple[Restore, Event]:
    part = restore.parts[index]
    name = part.target.part
    match outcome.answer:
        case Answer.DONE:
            return _ended(restore, index, "restored")
        case Answer.ENDED:
            return _cannot(_with_part(restore, index, evolve(part, is_touched=True)), outcome.text)
        case Answer.REFUSED | Answer.SILENT:
            part = evolve(
                part, is_touched=True, is_unclear=part.is_unclear or outcome.answer is Answer.SILENT
            )
            restore = _with_part(restore, index, part)
    if (again := _again(restore, index, outcome, Event.MORE)) is not None:
        return again
    is_silent = outcome.answer in (Answer.AWAY, Answer.SILENT)
    restore = evolve(restore, gave_up=restore.gave_up or is_silent)
    restore = _with_problems(restore, f"{name}: {outcome.text}")
    return _undone_or_not(restore, index)


def _undone_or_not(restore: Restore, index: int) -> tuple[Restore, Event]:
    """One part cannot be restored: put it back, unless nothing has happened to it, or nothing can be put back."""
    part = restore.parts[index]
    if not part.is_touched:
        return _ended(_with_last(restore, "it is as it was before"), index, "as before")
    if not part.saved:
        text = "no snapshot of what was there before is known: it stays as it is"
        return _ended(_with_problems(restore, text), index, "unsaved")
    return _with_part(restore, index, evolve(part, tries=0)), Event.UNDO


def _after_undo(restore: Restore, index: int, outcome: Outcome) -> tuple[Restore, Event]:
    part = restore.parts[index]
    match outcome.answer:
        case Answer.DONE:
            return _ended(_with_last(restore, "it is as it was before"), index, "as before")
        case Answer.ENDED:
            return _cannot(restore, outcome.text)
    if outcome.answer is Answer.SILENT:
        part = evolve(part, is_unclear=True)
        restore = _with_part(restore, index, part)
    if (again := _again(restore, index, outcome, Event.UNDO)) is not None:
        return again
    text = f"what was there before could not be put back either ({outcome.text}): snapshot {part.saved}"
    restore = _with_problems(restore, text)
    is_clear = outcome.answer in (Answer.UNTOUCHED, Answer.REFUSED) and not part.is_unclear
    if not is_clear:
        return _cannot(restore)
    return _with_part(restore, index, evolve(part, tries=0)), Event.LOOK


def _after_look(restore: Restore, index: int, outcome: Outcome) -> tuple[Restore, Event]:
    if outcome.answer is Answer.DONE:
        return _ended(
            _with_last(restore, "but nothing was changed: it is as it was before"), index, "as before"
        )
    return _again(restore, index, outcome, Event.LOOK) or _cannot(restore)


def _again(restore: Restore, index: int, outcome: Outcome, event: Event) -> tuple[Restore, Event] | None:
    """The same step once more, where it had no answer and was not tried too often; else None."""
    part = restore.parts[index]
    limit = 0 if restore.gave_up and event is Event.MORE else len(ATTEMPT_PAUSES)
    may_help = outcome.answer in (Answer.AWAY, Answer.SILENT) and not outcome.is_slow
    if not may_help or part.tries >= limit:
        return None
    return _with_part(restore, index, evolve(part, tries=part.tries + 1)), event


def _ended(restore: Restore, index: int, how: Ended) -> tuple[Restore, Event]:
    part = evolve(restore.parts[index], ended=how, tries=0)
    restore = _with_part(restore, index, part)
    return restore, Event.READY if _open(restore) < 0 else Event.MORE


def _arrived(restore: Restore, event: Event) -> Restore:
    """The restore in its next phase; one in which nothing is to be done is passed through."""
    restore = _moved(restore, event)
    if restore.phase is Phase.CHECKING and (not restore.is_found or not restore.parts):
        return _arrived(restore, Event.READY)
    if restore.phase is Phase.SAVING and _open(restore) < 0:
        return _moved(_moved(restore, Event.READY), Event.READY)
    if restore.phase is Phase.OVERWRITING:
        return _refused_first(restore)
    return restore


def _refused_first(restore: Restore) -> Restore:
    """Put back what was there: what must not be restored is not tried."""
    index = _open(restore)
    part = restore.parts[index]
    if not part.refused:
        return restore
    told = _with_problems(restore, f"{part.target.part}: {part.refused}")
    return _arrived(*_undone_or_not(told, index))


def _moved(restore: Restore, event: Event) -> Restore:
    """Look up the next phase."""
    phase = TRANSITIONS[restore.phase][event]
    if phase is Phase.LEAVING and event is Event.HALF:
        restore = _with_problems(restore, HALF)
    return evolve(restore, phase=phase)


def _with_part(restore: Restore, index: int, part: PartState) -> Restore:
    return evolve(restore, parts=(*restore.parts[:index], part, *restore.parts[index + 1 :]))


def _with_problems(restore: Restore, *texts: str) -> Restore:
    return evolve(restore, problems=(*restore.problems, *filter(None, texts))) if texts else restore


def _with_last(restore: Restore, text: str) -> Restore:
    """The last problem, with how that part is now."""
    return evolve(restore, problems=(*restore.problems[:-1], f"{restore.problems[-1]}; {text}"))
