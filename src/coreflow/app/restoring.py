"""A restore under way: the loop, the heartbeat that keeps the lease, and the grace period of one that is told to end.

What is done next, and what an answer means, is decided in `coreflow.domain.backup.restore`.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import structlog
import trio
from attrs import define, evolve, field

from coreflow.domain.backup import restore as machine
from coreflow.domain.backup.lease import Lease, help_for, read_lease
from coreflow.domain.backup.proof import Measure, against_restore, is_unchanged
from coreflow.domain.backup.requests import (
    Target,
    check_snapshots,
    safety_of,
    safety_tags,
)
from coreflow.domain.backup.restore import Answer, Outcome, Phase, Restore
from coreflow.domain.backup.snapshots import RESTORE_TAG, VOLUME
from coreflow.domain.errors import (
    LostRace,
    PortError,
    PreconditionFailed,
    Refused,
    Unavailable,
    Unreached,
    Untouched,
)
from coreflow.domain.ids import Owner
from coreflow.domain.platform.instances import Instance
from coreflow.domain.ports import CorestorePort
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Start, Stop
from coreflow.domain.swarm.observed import ObservedService
from coreflow.domain.swarm.stopped import NOBODY, start_command, undo_command, undo_id

from .backups import Tools, take_snapshot
from .retries import with_retries

log = structlog.get_logger()

LOST = "somebody else has stopped or started the service meanwhile"
LONG_SECONDS = 60.0
"""After how long of saving, or of overwriting, it is said how to end that."""
_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "orphaned", "remove"})
_BEFORE = frozenset({Phase.CHECKING, Phase.SAVING})
_OVERWRITES = frozenset(phase for phase in Phase if phase.overwrites)
_LAST = frozenset({Phase.STARTING, Phase.LEAVING})


@define
class Work:
    """One restore under way: the value, and whom to ask."""

    tools: Tools
    cluster: str
    live: ObservedService | None
    ports: Mapping[Instance, CorestorePort]
    restore: Restore
    takes_over: Lease | None = None
    """The lease of somebody who is no longer at it, or has to yield."""
    outranks: bool = False
    """Whether that somebody may still be at it."""
    has_stopped: bool = False
    """Whether the lease was ever ours."""
    measures: dict[tuple[str, str, str], Measure] = field(factory=dict)
    lock: trio.Lock = field(factory=trio.Lock)
    """Held while the lease is written."""

    @property
    def facts(self) -> machine.Facts:
        """Return what the next step depends on."""
        return machine.Facts(
            has_service=self.live is not None,
            is_stopped=self.live is not None
            and self.live.is_stopped
            and (self.has_stopped or (self.takes_over is not None and not self.outranks)),
        )

    def advance(self, step: machine.Step, outcome: Outcome) -> None:
        """Go on to what a step leads to."""
        self.restore = machine.after(self.restore, step, outcome)


async def carry_out(work: Work) -> None:
    """Stop, save, overwrite, start. Told to end, it starts the workload, unless data may be half restored then."""
    has_ended, owner = False, Owner(work.restore.service_id)
    work.tools.restoring.add(owner)
    try:
        try:
            await _advance(work, {Phase.STOPPING})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_lease, work, nursery.cancel_scope)
                await _advance(work, _BEFORE)
                await _gracefully(work)
                nursery.cancel_scope.cancel()
            has_ended = True
        finally:
            if not work.restore.phase.is_over and work.restore.phase not in _LAST:
                step = machine.next_step(work.restore, work.facts)
                work.advance(step, Outcome(Answer.ENDED, "interrupted"))
            await _conclude(work, has_ended=has_ended)
    finally:
        work.tools.restoring.discard(owner)


async def _advance(work: Work, phases: Collection[Phase]) -> None:
    """Do one step after the other, as long as the restore is in one of these phases."""
    while work.restore.phase in phases:
        step, began = machine.next_step(work.restore, work.facts), trio.current_time()
        outcome = await _outcome(work, step)
        took = trio.current_time() - began - getattr(step, "pause", 0.0)
        outcome = outcome._replace(is_slow=took > machine.SLOW_SECONDS)
        work.advance(step, outcome)
        if work.restore.phase.is_over:
            return
        pause = getattr(machine.next_step(work.restore, work.facts), "pause", 0.0)
        if pause:
            work.tools.step(f"{outcome.text}; trying again in {pause:g} s")


async def _gracefully(work: Work) -> None:
    """Overwrite everything; told to end, go on for a moment."""
    scope, done = trio.CancelScope(shield=True), trio.Event()

    async def end_soon() -> None:
        try:
            await done.wait()
        except trio.Cancelled:
            is_lost = work.restore.phase is Phase.LOST
            scope.deadline = trio.current_time() + (0 if is_lost else work.tools.timeouts.grace)
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_soon)
        with scope:
            await _advance(work, _OVERWRITES)
        done.set()


async def _conclude(work: Work, *, has_ended: bool) -> None:
    """Start the workload or, where data may be half restored, leave it stopped with a lease that says how to go on."""
    timeouts = work.tools.timeouts
    while not work.restore.phase.is_over:
        step = machine.next_step(work.restore, work.facts)
        outcome = Outcome(Answer.SILENT, "the engine does not answer")
        seconds = (
            timeouts.let_go
            if work.restore.phase is Phase.LEAVING
            else timeouts.start
            if has_ended
            else timeouts.grace
        )
        with trio.move_on_after(seconds) as scope:
            scope.shield = True
            outcome = await _outcome(work, step)
        work.advance(step, outcome)
    if work.restore.phase is Phase.LEFT and work.live is not None:
        text = help_for(work.live.name, work.restore.lease, _replicas(work.live))
        work.restore = evolve(work.restore, problems=(*work.restore.problems, text))
        log.error("service left stopped", service=work.live.name, reason="; ".join(work.restore.problems))
        work.tools.watcher.step(f"left stopped: {text}")


async def _outcome(work: Work, step: machine.Step) -> Outcome:
    """Do a step, and say how it went."""
    found = ""
    try:
        match step:
            case machine.Stop():
                await _stop(work)
            case machine.Check(index):
                return await _check(work, work.restore.parts[index].target)
            case machine.Save():
                found = await _save(work, step)
            case machine.Mark() if work.live is not None:
                lease = evolve(work.restore.lease, has_begun=True)
                await with_retries(partial(_hold, work, lease), work.tools.timeouts.peer)
            case machine.Overwrite():
                await _overwrite(work, step)
            case machine.Look():
                await trio.sleep(step.pause)
                await _look_for_change(work, work.restore.parts[step.index].target)
            case machine.Start():
                return await _start(work)
            case machine.LetGo():
                await _write(work, evolve(work.restore.lease, owner=NOBODY))
    except LostRace as exc:
        return Outcome(Answer.TAKEN, await _taken_by(work, str(exc)))
    except (Untouched, _DeployedMeanwhile) as exc:
        return Outcome(Answer.UNTOUCHED, str(exc))
    except Unreached as exc:
        return Outcome(Answer.AWAY, str(exc))
    except Unavailable as exc:
        return Outcome(Answer.SILENT, str(exc))
    except (PortError, PreconditionFailed) as exc:
        return Outcome(Answer.REFUSED, str(exc))
    return Outcome(Answer.DONE, found=found)


# stopping


async def _stop(work: Work) -> None:
    """Stop the workload, and wait until it is. Raises LostRace where somebody else is at it.

    At any write to a service, Swarm forgets those of its tasks that are to be removed, although their containers may
    still run. So nothing is written while tasks are stopping, not even a sign of life.
    """
    await _look_again(work)
    if work.live is None:
        return
    if not work.live.is_stopped:
        await _wait_for_roll_out(work)
    work.tools.step("stopping the workload")
    await _wait_until_stopped(work, only_removed=not work.live.is_stopped)
    await _acquire(work)
    if work.outranks:
        work.tools.step("waiting for the other restore to yield")
        await trio.sleep(work.tools.timeouts.yielding)
    await _wait_until_stopped(work)
    await with_retries(partial(_hold, work, work.restore.lease), work.tools.timeouts.peer)


async def _look_again(work: Work) -> None:
    """A service that was not there may have been deployed meanwhile."""
    if work.live is None:
        services, _ = await work.tools.docker.progress()
        ours = (
            s for s in services if s.owner == Owner(work.restore.service_id) and s.cluster == work.cluster
        )
        work.live = next(ours, None)
        _refuse_taken(work)


def _refuse_taken(work: Work) -> None:
    """Raises LostRace where somebody else has begun a restore of the service since it was looked at."""
    if work.live is not None and work.live.is_stopped and work.takes_over is None:
        raise LostRace("another restore of it has begun meanwhile")


async def _acquire(work: Work) -> None:
    """Write the lease for the first time. Raises LostRace where somebody else was faster.

    Who has to yield may renew its lease until it sees ours; that does not count, unless it has gone on to overwrite.
    """
    while True:
        try:
            await _write(work, work.restore.lease)
        except LostRace:
            services, _ = await work.tools.docker.progress()
            there = next((s for s in services if work.live is not None and s.id == work.live.id), None)
            if not work.outranks or there is None or not _is_same_lease(work, there):
                raise
            work.live = there
        else:
            work.has_stopped = True
            return


def _is_same_lease(work: Work, there: ObservedService) -> bool:
    lease, known = read_lease(there.lease), work.takes_over
    if lease is None or known is None or not there.is_stopped:
        return False
    return (lease.id, lease.has_begun) == (known.id, known.has_begun)


async def _hold(work: Work, lease: Lease) -> None:
    """Have the lease written. Raises LostRace where somebody else has taken over."""
    while True:
        try:
            return await _write(work, lease)
        except LostRace:
            if not await _is_still_ours(work):
                raise


async def _write(work: Work, lease: Lease) -> None:
    """Write the lease on the service."""
    async with work.lock:
        assert work.live is not None  # noqa: S101 - whoever calls has one
        lease = evolve(lease, heartbeat=work.restore.lease.heartbeat + 1)
        work.restore = evolve(work.restore, lease=evolve(work.restore.lease, heartbeat=lease.heartbeat))
        reason = f"restoring backup {lease.backup_id}"
        stop = Stop(work.live, lease.label(), work.live.lease, reason)
        replicas = str(work.live.body.replicas or 0)
        labels = {naming.STOPPED: replicas, **work.live.labels, naming.RESTORE: lease.label()}
        stopped = evolve(work.live, labels=labels)
        try:
            await work.tools.apply(stop)
        except Unavailable:
            work.live = stopped  # it may be
            work.has_stopped = True
            raise
        work.live = stopped


async def _wait_until_stopped(work: Work, *, only_removed: bool = False) -> None:
    """Wait for tasks to end: all, or those that are to be removed. Raises PreconditionFailed where they go on."""
    until = trio.current_time() + work.tools.timeouts.stop
    while work.live is not None:
        with _ignoring_outages():
            observed = await work.tools.docker.observe()
            lost = {
                node.id for node in observed.nodes if node.state == "down"
            }  # it cannot say that they have ended
            ours = [t for t in observed.tasks if t.service_id == work.live.id and t.node_id not in lost]
            if all(t.state in _ENDED for t in ours if not only_removed or t.desired_state == "remove"):
                return
        if trio.current_time() >= until:
            raise PreconditionFailed(f"the workload does not stop within {work.tools.timeouts.stop:g} s")
        await trio.sleep(work.tools.timeouts.poll)


async def _wait_for_roll_out(work: Work) -> None:
    assert work.live is not None  # noqa: S101 - see above
    until = trio.current_time() + work.tools.timeouts.roll_out
    while trio.current_time() < until:
        services, _ = await work.tools.docker.progress()
        work.live = next((s for s in services if s.id == work.live.id), work.live)
        _refuse_taken(work)
        if not work.live.in_roll_out:
            return
        await trio.sleep(work.tools.timeouts.poll)
    log.warning("stopped in the middle of a roll-out", service=work.live.name)


# the lease


async def _keep_lease(work: Work, scope: trio.CancelScope) -> None:
    """Show that somebody is at it, and look whether somebody else is. Gives up then."""
    timeouts, renewed, hint = work.tools.timeouts, trio.current_time(), _Hint()
    while work.live is not None:
        await trio.sleep(min(timeouts.look, timeouts.heartbeat))
        with _ignoring_outages():
            try:
                if await _ours_now(work) is None:
                    raise LostRace(await _taken_by(work))
                _tell_way_out(work, hint)
                if trio.current_time() - renewed >= timeouts.heartbeat:
                    await _hold(work, work.restore.lease)
                    renewed = trio.current_time()
            except LostRace as exc:
                work.advance(machine.next_step(work.restore, work.facts), Outcome(Answer.TAKEN, str(exc)))
                scope.cancel()
                return


@define
class _Hint:
    """Since when data is being saved, or overwritten, and whether it was said how that can be ended."""

    about: str = ""
    since: float = 0.0
    is_told: bool = False


def _tell_way_out(work: Work, hint: _Hint) -> None:
    """Say once, where a workload has been stopped for long, how that can be ended."""
    now, phase, live = trio.current_time(), work.restore.phase, work.live
    about = "overwriting" if phase.overwrites else "saving" if phase in _BEFORE else ""
    if about != hint.about:
        hint.about, hint.since, hint.is_told = about, now, False
    if not about or live is None or hint.is_told or now - hint.since < LONG_SECONDS:
        return
    hint.is_told = True
    if phase.overwrites:
        undo = undo_command(live.name, undo_id(work.restore.lease.id))
        text = f"{undo} ends it, and puts back what was there before"
    else:
        text = f"{start_command(live.name, _replicas(live))} ends it, with the data as it is"
    log.warning("restore takes long", service=live.name, phase=phase.value, help=text)
    work.tools.step(f"still {about}; should it hang: {text}")


def _replicas(live: ObservedService) -> int:
    """Return how many tasks it had."""
    return naming.replicas_noted(live.labels.get(naming.STOPPED, ""))


async def _taken_by(work: Work, otherwise: str = LOST) -> str:
    """Say who has it now, as far as that can be seen."""
    try:
        services, _ = await work.tools.docker.progress()
    except PortError:
        return otherwise
    there = next((s for s in services if work.live is not None and s.id == work.live.id), None)
    lease = read_lease(there.lease) if there is not None else None
    if lease is None or lease.owner == work.restore.lease.owner:
        return otherwise
    return f"{LOST}: a restore of backup {lease.backup_id} has taken over"


async def _is_still_ours(work: Work) -> bool:
    """Return whether the service says that we are at it. What it says is what we know of it from now on."""
    there = await _ours_now(work)
    if there is None:
        return False
    work.live = there
    return True


async def _ours_now(work: Work) -> ObservedService | None:
    """The service, as long as it says that we are at it."""
    assert work.live is not None  # noqa: S101 - whoever calls has one
    services, _ = await work.tools.docker.progress()
    there = next((s for s in services if s.id == work.live.id), None)
    lease, mine = read_lease(there.lease) if there is not None else None, work.restore.lease
    return there if lease is not None and (lease.id, lease.owner) == (mine.id, mine.owner) else None


# data


async def _check(work: Work, target: Target) -> Outcome:
    """Find out whether what a lease names is of this service."""
    port, part, service_id = work.ports[target.instance], target.part, work.restore.service_id
    mounts = work.live.body.mounts if work.live is not None else ()
    if part.kind == VOLUME and part.name not in {mount.source for mount in mounts if mount.type == "volume"}:
        volumes = await port.volumes()
        if not any((v.name, v.service_id) == (part.name, service_id) for v in volumes):
            return Outcome(Answer.FOREIGN, f"the service has no {part}")
    try:
        check_snapshots(service_id, [target], {target.instance: await port.snapshots(service_id)})
    except (Refused, PreconditionFailed) as exc:
        return Outcome(Answer.UNTOUCHED, str(exc).removeprefix(f"{part}: "))
    return Outcome(Answer.DONE)


async def _save(work: Work, step: machine.Save) -> str:
    """The snapshot of what was there before: found, or taken as long as nothing has been overwritten; its id."""
    await trio.sleep(step.pause)
    target, restore = work.restore.parts[step.index].target, work.restore
    port, part = work.ports[target.instance], target.part
    if step.may_take:
        work.tools.step(f"saving {part} as it is")
    known = safety_of(target, restore.lease, await port.snapshots(restore.service_id))
    if not step.may_take:
        return known.id if known is not None else ""
    if known is None:
        tags = safety_tags(target, restore.lease, restore.service_id)
        known = await take_snapshot(port, restore.service_id, part, tags, RESTORE_TAG)
    if part.kind == VOLUME:
        sizes = {volume.name: volume.size_bytes for volume in await port.volumes()}
        work.measures[target.key] = Measure(sizes.get(part.name), known.size_bytes)
    return known.id


async def _overwrite(work: Work, step: machine.Overwrite) -> None:
    """Make a part what a snapshot says, and see whether it is."""
    await trio.sleep(step.pause)
    target = work.restore.parts[step.index].target
    part, port = target.part, work.ports[target.instance]
    work.tools.step(f"putting {part} back as it was" if step.undoes else f"restoring {part}")
    await with_retries(partial(_look_before, work), work.tools.timeouts.peer)
    if part.kind == VOLUME:
        await port.restore_volume(part.name, step.snapshot_id)
        await _look_after(work, target, step.snapshot_id)
    else:
        await port.restore_resource(work.restore.service_id, part.kind, step.snapshot_id)


class _DeployedMeanwhile(PreconditionFailed):
    """There was no service to stop when the restore began, and there is one now."""


async def _look_before(work: Work) -> None:
    """Make sure that it is still ours to overwrite. Raises LostRace, _DeployedMeanwhile, or Unreached where nobody can say."""
    try:
        if work.live is None:
            await _look_again(work)
            if work.live is not None:
                raise _DeployedMeanwhile("it has been deployed meanwhile: restore it again")
        elif await _ours_now(work) is None:
            raise LostRace(LOST)  # we were asleep, and others have finished it: its data is in use
    except Unavailable as exc:
        raise Unreached(str(exc)) from exc


async def _look_after(work: Work, target: Target, snapshot_id: str) -> None:
    """Raises Refused where a volume is not what a Corestore says that it made of it. What cannot be seen is believed."""
    port, service_id = work.ports[target.instance], work.restore.service_id
    try:
        sizes = {one.id: one.size_bytes for one in await port.snapshots(service_id)}
        volumes = await port.volumes()
    except PortError as exc:
        log.info("cannot verify what was restored", part=str(target.part), reason=str(exc))
        return
    measure = work.measures.get(target.key)
    if fault := against_restore(target.part.name, sizes.get(snapshot_id), volumes, measure):
        raise Refused(fault)


async def _look_for_change(work: Work, target: Target) -> None:
    """Raises PreconditionFailed where it cannot be seen that a part is as it was when it was saved."""
    measure = work.measures.get(target.key)
    if measure is None or not is_unchanged(
        target.part.name, await work.ports[target.instance].volumes(), measure
    ):
        raise PreconditionFailed(f"{target.part} may have been changed")


async def _start(work: Work) -> Outcome:
    """Start the workload, however long the engine is away."""
    work.tools.step("starting the workload")
    while True:
        assert work.live is not None  # noqa: S101 - see `next_step`
        with _ignoring_outages():
            try:
                await work.tools.apply(Start(work.live, work.live.lease, "the restore has ended"))
                return Outcome(Answer.DONE)
            except LostRace:
                if not await _is_still_ours(work):
                    return Outcome(Answer.TAKEN)
            except Refused as exc:
                return Outcome(Answer.REFUSED, str(exc))
        await trio.sleep(work.tools.timeouts.poll)


@contextmanager
def _ignoring_outages() -> Iterator[None]:
    try:
        yield
    except PortError as exc:
        log.info("waiting for the engine", reason=str(exc))
