"""Bringing a backup back: the workload is stopped, everything in its place is saved, overwritten, and it starts again.

What is done next, and what an answer means, is decided in `coreflow.domain.restore`. Here is the loop that does it, the
heartbeat that keeps the lease, and the grace period of a process that is told to end.

The lease on the stopped service says what is going on. So a process that dies in the middle leaves enough for the next one
to finish: whoever finds it restores what it names once more, which does no harm, and starts the workload.
"""

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import structlog
import trio
from attrs import define, evolve, field

from coreflow.domain.backup import restore as machine
from coreflow.domain.backup.lease import DAEMON, Claim, RestoreNote, claim, help_for, read_note
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.proof import Measure, against_restore, against_volume, is_unchanged
from coreflow.domain.backup.replication import Manifest
from coreflow.domain.backup.requests import (
    RestoreRequest,
    RestoreResult,
    Target,
    aim,
    check_snapshots,
    chosen_parts,
    parts_in,
    safety_of,
    safety_tags,
)
from coreflow.domain.backup.restore import Answer, Outcome, Phase, Restore
from coreflow.domain.backup.snapshots import RESTORE_TAG, VOLUME
from coreflow.domain.errors import (
    CoreflowError,
    LostRace,
    PortError,
    Refused,
    Unavailable,
    Unreached,
    Untouched,
)
from coreflow.domain.ids import ClusterId, Owner, ServiceId
from coreflow.domain.platform.instances import Site, Sites
from coreflow.domain.ports import CorestorePort
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Start, Stop
from coreflow.domain.swarm.observed import ROLLED_BACK, ObservedService
from coreflow.domain.swarm.stopped import NOBODY, undo_id

from .backups import Facts, Tools, facts_of, provisioned, take_snapshot
from .patience import patiently

log = structlog.get_logger()

LOST = "somebody else has stopped or started the service meanwhile"
LONG_SECONDS = 60.0
"""After how long of overwriting it is said how to end that."""
TURNS = 5
"""How often a restore is begun anew because the service changed while it was about to be stopped."""
_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "orphaned", "remove"})
_BEFORE = frozenset({Phase.CHECKING, Phase.SAVING})
_OVERWRITES = frozenset(phase for phase in Phase if phase.overwrites)
_LAST = frozenset({Phase.STARTING, Phase.LEAVING})


@define
class _Work:
    """One restore under way: the value, and whom to ask."""

    tools: Tools
    cluster: str
    live: ObservedService | None
    ports: Mapping[Site, CorestorePort]
    restore: Restore
    takes_over: RestoreNote | None = None
    """The note of somebody who is no longer at it, or has to yield."""
    outranks: bool = False
    """Whether that somebody may still be at it."""
    has_stopped: bool = False
    """Whether the lease was ever ours."""
    measures: dict[tuple[str, str, str], Measure] = field(factory=dict)
    lock: trio.Lock = field(factory=trio.Lock)
    """Held while the note is written."""

    @property
    def facts(self) -> machine.Facts:
        """What the next step depends on."""
        return machine.Facts(
            has_service=self.live is not None,
            is_stopped=self.live is not None
            and self.live.is_stopped
            and (self.has_stopped or (self.takes_over is not None and not self.outranks)),
        )

    def settle(self, step: machine.Step, outcome: Outcome) -> None:
        """Go on to what a step leads to."""
        self.restore = machine.after(self.restore, step, outcome)


async def make_restore(tools: Tools, request: RestoreRequest, holder: str) -> RestoreResult:
    """Restore. What goes wrong is in the result. Nothing is touched unless every part can be restored."""
    try:
        for _ in range(TURNS):
            work = await _begun(tools, request, holder)
            await _carry_out(work)
            if work.restore.phase is not Phase.LOST or work.has_stopped:
                return work.restore.result()
            log.info("begun anew", reason="; ".join(work.restore.problems))
    except CoreflowError as exc:
        return RestoreResult(
            backup_id=request.backup_id, service_id=request.service_id, status="failed", error=str(exc)
        )
    return work.restore.result()


async def _begun(tools: Tools, request: RestoreRequest, holder: str) -> _Work:
    """Everything that it takes, once nobody else is at a restore of the service. Raises what stands against it."""
    facts = await facts_of(tools, request.service_id)
    if facts.others:
        raise Refused("it is being renamed: two services of it run; wait until there is one")
    if facts.live is None and not holder.startswith(DAEMON):
        raise Refused("it is not deployed: apply its record first, so that nobody does meanwhile")
    left: tuple[ObservedService, Claim] | None = None
    if facts.live is not None and facts.live.is_stopped:
        left = await _until_granted(tools, facts.live, holder, request.backup_id)
        facts = await facts_of(tools, request.service_id)
    work = await _prepared(tools, request, facts, holder)
    if left is not None:
        return await _taken_over(work, *left, request, facts, holder)
    return work


async def _until_granted(
    tools: Tools, live: ObservedService, holder: str, wants: str
) -> tuple[ObservedService, Claim] | None:
    """Wait until the lease on a stopped service can be had; the service then, or None: its restore has ended."""
    tools.step(waiting_for(read_note(live.restore_note), tools.pace.lease))
    since = trio.current_time()
    while live.is_stopped:
        seconds = trio.current_time() - since
        granted = claim(read_note(live.restore_note), holder, seconds, seconds=tools.pace.lease, wants=wants)
        if granted.is_granted:
            return live, granted
        await trio.sleep(tools.pace.poll)
        services, _ = await tools.docker.progress()
        now = next((s for s in services if s.id == live.id), None)
        if now is None:
            return None
        if now.restore_note != live.restore_note:
            since = trio.current_time()
        live = now
    return None


def waiting_for(note: RestoreNote | None, lease: float) -> str:
    """Say what a restore waits for, and what would not have to wait."""
    text = f"waiting for another restore of it to end, or for {lease:g} s without a sign of life of it"
    if note is None or note.holder == NOBODY:
        return text
    return f"{text} (it is one of backup {note.backup_id}; --backup {undo_id(note.id)} would end it at once)"


async def _taken_over(
    work: _Work, left: ObservedService, granted: Claim, request: RestoreRequest, facts: Facts, holder: str
) -> _Work:
    """Go on where somebody else has left off. What that has begun and this does not overwrite is finished first."""
    note = read_note(left.restore_note)
    if note is not None and not is_outdated(left) and note.has_begun:
        targets = [part.target for part in work.restore.parts]
        covered = {(target.part.kind, target.part.name) for target in targets}
        takes_back = request.backup_id == undo_id(note.id)
        if not takes_back and not {(part.kind, part.name) for part in note.parts} <= covered:
            await finish_restore(work.tools, left, note, holder, outranks=granted is Claim.OUTRANKED)
            facts = await facts_of(work.tools, request.service_id)
            if facts.live is not None and facts.live.is_stopped:
                raise Refused(
                    "an earlier restore of it could not be finished; restore everything that it was about"
                )
            return await _prepared(work.tools, request, facts, holder)
        # what was there before it has been saved under that id
        mine = evolve(work.restore.note, id=note.id, has_begun=True)
        kept = work.restore
        work.restore = machine.begin(
            kept.service_id, mine, tuple(targets), pulled=kept.pulled, created=kept.created
        )
    work.live, work.takes_over, work.outranks = left, note, granted is Claim.OUTRANKED
    work.has_stopped = False
    return work


def is_orphan(
    live: ObservedService, holder: str, seconds: float, lease: float, rivals: Collection[str] = ()
) -> bool:
    """Whether nobody is at the restore of a stopped service. `seconds`: how long its note has not changed."""
    return claim(read_note(live.restore_note), holder, seconds, seconds=lease, rivals=rivals).is_granted


def is_outdated(live: ObservedService) -> bool:
    """Whether its note came back with a roll-back: the restore that it is about has ended long ago."""
    return live.update_state in ROLLED_BACK


async def finish_restore(
    tools: Tools, live: ObservedService, note: RestoreNote, holder: str, *, outranks: bool = False
) -> RestoreResult:
    """Finish what somebody began who is no longer at it. Only the note is needed for that: no records.

    Raises LostRace where somebody is at it after all, and Unavailable where the engine is away.
    """
    ports: dict[Site, CorestorePort] = {}
    targets: list[Target] = []
    problems: list[str] = []
    sites = await _sites_again(tools, live, note)
    for part in note.parts:
        site = next(iter(sites.of([part.node] if part.node else [])), None)
        if site is None or tools.corestores is None:
            if note.has_begun:
                raise Unavailable(f"{part}: no Corestore is known on its node")
            problems.append(f"{part}: no Corestore is known on its node")
            continue
        ports[site] = tools.corestores.at(site)
        targets.append(Target(part=part, site=site))
    restore = machine.begin(
        ServiceId(live.owner),
        evolve(note, holder=holder),
        # where something is missing, nothing was overwritten yet, and half of it is of no use
        () if problems else tuple(targets),
        is_found=True,
        problems=tuple(problems),
    )
    work = _Work(
        tools=tools,
        cluster=live.cluster,
        live=live,
        ports=ports,
        restore=restore,
        takes_over=note,
        outranks=outranks,
    )
    await _carry_out(work)
    if work.restore.phase is Phase.LOST:
        raise LostRace("; ".join(work.restore.problems))
    return work.restore.result()


async def _sites_again(tools: Tools, live: ObservedService, note: RestoreNote) -> Sites:
    """Where the Corestores are; waits a while for those that the note is about."""
    until = trio.current_time() + tools.pace.patience
    while True:
        observed = await tools.docker.observe()
        sites = tools.corestores.sites(observed, ClusterId(live.cluster)) if tools.corestores else Sites()
        known = all(sites.of([part.node] if part.node else []) for part in note.parts)
        if known or tools.corestores is None or trio.current_time() >= until:
            return sites
        await trio.sleep(tools.pace.poll)


# --- before anything is touched


async def _prepared(tools: Tools, request: RestoreRequest, facts: Facts, holder: str) -> _Work:
    """Find out what goes where, and have it there. Raises Refused for anything that cannot be."""
    tools.step("looking for the backup")
    found = await facts.snapshots()
    known = [
        part
        for site, snapshots in found.items()
        for part in parts_in(snapshots, request.backup_id, request.service_id, site.node)
    ]
    manifest, reason = await _manifest(tools, request)
    if manifest is not None:
        known += [part for part in manifest.parts if not any(_is_same(part, one) for one in known)]
    pulled = 0
    if (
        manifest is not None and not manifest.parts
    ):  # somebody else's: its snapshots are known once it is here
        pulled += await _pull(tools, facts, manifest, facts.homes)
        for site, snapshots in (await facts.snapshots()).items():
            known += parts_in(snapshots, request.backup_id, request.service_id, site.node)
    try:
        parts = chosen_parts(request, known)
    except Refused as exc:
        raise Refused(f"{exc}; {reason}" if reason else str(exc)) from exc
    targets = aim(facts.service, facts.bindings, parts, facts.homes, facts.mounts)
    _refuse_shared(facts, targets)
    if manifest is not None and manifest.parts:
        pulled += await _pull(tools, facts, manifest, {target.site for target in targets})
    if manifest is not None:
        found = await facts.snapshots()
    check_snapshots(request.service_id, targets, found)
    if any(target.part.kind != VOLUME for target in targets):
        problems = await provisioned(tools, facts)
        if problems:
            raise Refused("; ".join(problems.values()))
    created = await _created(tools, facts, targets)
    note = RestoreNote(
        id=uuid.uuid4().hex,
        backup_id=request.backup_id,
        holder=holder,
        is_whole=request.volumes is None and request.resources is None,
        parts=tuple(evolve(target.part, node=target.site.node) for target in targets),
    )
    return _Work(
        tools=tools,
        cluster=facts.records.cluster.id,
        live=facts.live,
        ports=facts.ports,
        restore=machine.begin(facts.service.id, note, targets, pulled=pulled, created=created),
    )


def _is_same(part: Part, other: Part) -> bool:
    """Whether two parts are of one snapshot. Ids are those of a Corestore, and several may have the same ones."""
    somewhere_else = part.node is not None and other.node is not None and part.node != other.node
    return part.snapshot_id == other.snapshot_id and not somewhere_else


def _refuse_shared(facts: Facts, targets: Sequence[Target]) -> None:
    """Raises Refused for a volume that another service uses, too: that would go on while it is overwritten."""
    for target in targets:
        for service in facts.observed.services:
            is_other = facts.live is None or service.id != facts.live.id
            mounted = {mount.source for mount in service.body.mounts if mount.type == "volume"}
            if (
                is_other
                and service.body.replicas != 0
                and target.part.kind == VOLUME
                and target.part.name in mounted
            ):
                raise Refused(
                    f"{target.part} is used by the service {service.name}, too, which would go on: stop it first"
                )


async def _manifest(tools: Tools, request: RestoreRequest) -> tuple[Manifest | None, str]:
    """What others keep of this backup. That nobody does is no fault, for all may be here; why, it is told."""
    if tools.replicator is None or not request.pull_missing:
        return None, ""
    try:
        return await tools.replicator.manifest(request.backup_id, request.service_id), ""
    except Refused as exc:
        log.info("nothing to pull", reason=str(exc))
        return None, str(exc)


async def _pull(tools: Tools, facts: Facts, manifest: Manifest, sites: Iterable[Site]) -> int:
    """Fetch what the archives lack: those of the nodes where they were or, where that node is gone, of a node at hand."""
    assert tools.replicator is not None  # noqa: S101 - else there is no manifest
    count = 0
    for site in sites:
        own = manifest.objects.get(site.node)
        wanted = own if own is not None else [o for objects in manifest.objects.values() for o in objects]
        tools.step(f"fetching what the archive of {site} lacks")
        count += await tools.replicator.pull(facts.ports[site], wanted, tools.watcher)
    return count


async def _created(tools: Tools, facts: Facts, targets: Sequence[Target]) -> tuple[str, ...]:
    """Make the volumes that are not there."""
    created: list[str] = []
    there = {site: {v.name for v in await port.volumes()} for site, port in facts.ports.items()}
    for target in targets:
        if target.volume is None:
            continue
        port, name = facts.ports[target.site], target.volume.name
        if name not in there[target.site]:
            tools.step(f"creating {target.part}")
            await port.create_volume(target.volume)
            created.append(name)
        if fault := against_volume(name, facts.service.id, await port.volumes()):
            raise Refused(fault)
    return tuple(created)


# --- the part that must not stop half-way


async def _carry_out(work: _Work) -> None:
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
                work.settle(step, Outcome(Answer.ENDED, "interrupted"))
            await _conclude(work, has_ended=has_ended)
    finally:
        work.tools.restoring.discard(owner)


async def _advance(work: _Work, phases: Collection[Phase]) -> None:
    """Do one step after the other, as long as the restore is in one of these phases."""
    while work.restore.phase in phases:
        step, began = machine.next_step(work.restore, work.facts), trio.current_time()
        outcome = await _outcome(work, step)
        took = trio.current_time() - began - getattr(step, "pause", 0.0)
        outcome = outcome._replace(is_slow=took > machine.SLOW_SECONDS)
        work.settle(step, outcome)
        if outcome.answer in (Answer.AWAY, Answer.SILENT) and not work.restore.phase.is_over:
            work.tools.step(f"no success ({outcome.text})")


async def _gracefully(work: _Work) -> None:
    """Overwrite everything; told to end, go on for a moment."""
    scope, done = trio.CancelScope(shield=True), trio.Event()

    async def end_soon() -> None:
        try:
            await done.wait()
        except trio.Cancelled:
            is_lost = work.restore.phase is Phase.LOST
            scope.deadline = trio.current_time() + (0 if is_lost else work.tools.pace.grace)
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_soon)
        with scope:
            await _advance(work, _OVERWRITES)
        done.set()


async def _conclude(work: _Work, *, has_ended: bool) -> None:
    """Start the workload or, where data may be half restored, leave it stopped with a lease that says how to go on."""
    pace = work.tools.pace
    while not work.restore.phase.is_over:
        step = machine.next_step(work.restore, work.facts)
        outcome = Outcome(Answer.SILENT, "the engine does not answer")
        seconds = (
            pace.let_go if work.restore.phase is Phase.LEAVING else pace.start if has_ended else pace.grace
        )
        with trio.move_on_after(seconds) as scope:
            scope.shield = True
            outcome = await _outcome(work, step)
        work.settle(step, outcome)
    if work.restore.phase is Phase.LEFT and work.live is not None:
        text = help_for(
            work.live.name, work.restore.note, naming.replicas_noted(work.live.labels.get(naming.STOPPED, ""))
        )
        work.restore = evolve(work.restore, problems=(*work.restore.problems, text))
        log.error("left stopped", service=work.live.name, reason="; ".join(work.restore.problems))
        work.tools.watcher.step(f"left stopped: {text}")


async def _outcome(work: _Work, step: machine.Step) -> Outcome:
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
                note = evolve(work.restore.note, has_begun=True)
                await patiently(partial(_hold, work, note), work.tools.pace.patience)
            case machine.Overwrite():
                await _overwrite(work, step)
            case machine.Look():
                await trio.sleep(step.pause)
                await _look_for_change(work, work.restore.parts[step.index].target)
            case machine.Start():
                return await _start(work)
            case machine.LetGo():
                await _write(work, evolve(work.restore.note, holder=NOBODY))
    except LostRace as exc:
        return Outcome(Answer.TAKEN, await _taken_by(work, str(exc)))
    except Untouched as exc:
        return Outcome(Answer.UNTOUCHED, str(exc))
    except Unreached as exc:
        return Outcome(Answer.AWAY, str(exc))
    except Unavailable as exc:
        return Outcome(Answer.SILENT, str(exc))
    except PortError as exc:
        return Outcome(Answer.REFUSED, str(exc))
    return Outcome(Answer.DONE, found=found)


# stopping


async def _stop(work: _Work) -> None:
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
        await trio.sleep(work.tools.pace.yielding)
    await _wait_until_stopped(work)
    await patiently(partial(_hold, work, work.restore.note), work.tools.pace.patience)


async def _look_again(work: _Work) -> None:
    """A service that was not there may have been deployed meanwhile."""
    if work.live is None:
        services, _ = await work.tools.docker.progress()
        ours = (
            s for s in services if s.owner == Owner(work.restore.service_id) and s.cluster == work.cluster
        )
        work.live = next(ours, None)
        _refuse_taken(work)


def _refuse_taken(work: _Work) -> None:
    """Raises LostRace where somebody else has begun a restore of the service since it was looked at."""
    if work.live is not None and work.live.is_stopped and work.takes_over is None:
        raise LostRace("another restore of it has begun meanwhile")


async def _acquire(work: _Work) -> None:
    """Write the lease for the first time. Raises LostRace where somebody else was faster.

    Who has to yield may renew its lease until it sees ours; that does not count, unless it has gone on to overwrite.
    """
    while True:
        try:
            await _write(work, work.restore.note)
        except LostRace:
            services, _ = await work.tools.docker.progress()
            there = next((s for s in services if work.live is not None and s.id == work.live.id), None)
            if not work.outranks or there is None or not _is_same_lease(work, there):
                raise
            work.live = there
        else:
            work.has_stopped = True
            return


def _is_same_lease(work: _Work, there: ObservedService) -> bool:
    note, known = read_note(there.restore_note), work.takes_over
    if note is None or known is None or not there.is_stopped:
        return False
    return (note.id, note.has_begun) == (known.id, known.has_begun)


async def _hold(work: _Work, note: RestoreNote) -> None:
    """Have the note written. Raises LostRace where somebody else has taken over."""
    while True:
        try:
            return await _write(work, note)
        except LostRace:
            if not await _is_still_ours(work):
                raise


async def _write(work: _Work, note: RestoreNote) -> None:
    """Write a note on the service."""
    async with work.lock:
        assert work.live is not None  # noqa: S101 - whoever calls has one
        note = evolve(note, beat=work.restore.note.beat + 1)
        work.restore = evolve(work.restore, note=evolve(work.restore.note, beat=note.beat))
        reason = f"restoring backup {note.backup_id}"
        stop = Stop(work.live, note.label(), work.live.restore_note, reason)
        replicas = str(work.live.body.replicas or 0)
        labels = {naming.STOPPED: replicas, **work.live.labels, naming.RESTORE: note.label()}
        stopped = evolve(work.live, labels=labels)
        try:
            await work.tools.docker.apply(stop)
        except Unavailable:
            work.live = stopped  # it may be
            work.has_stopped = True
            raise
        work.live = stopped


async def _wait_until_stopped(work: _Work, *, only_removed: bool = False) -> None:
    """Wait for tasks to end: all, or those that are to be removed. Raises Refused where they go on."""
    until = trio.current_time() + work.tools.pace.stop
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
            raise Refused(f"the workload does not stop within {work.tools.pace.stop:g} s")
        await trio.sleep(work.tools.pace.poll)


async def _wait_for_roll_out(work: _Work) -> None:
    assert work.live is not None  # noqa: S101 - see above
    until = trio.current_time() + work.tools.pace.roll_out
    while trio.current_time() < until:
        services, _ = await work.tools.docker.progress()
        work.live = next((s for s in services if s.id == work.live.id), work.live)
        _refuse_taken(work)
        if not work.live.in_roll_out:
            return
        await trio.sleep(work.tools.pace.poll)
    log.warning("stopped in the middle of a roll-out", service=work.live.name)


# the lease


async def _keep_lease(work: _Work, scope: trio.CancelScope) -> None:
    """Show that somebody is at it, and look whether somebody else is. Gives up then."""
    pace, renewed, began = work.tools.pace, trio.current_time(), 0.0
    while work.live is not None:
        await trio.sleep(min(pace.look, pace.beat))
        with _ignoring_outages():
            try:
                if await _ours_now(work) is None:
                    raise LostRace(await _taken_by(work))
                began = _tell_way_out(work, began)
                if trio.current_time() - renewed >= pace.beat:
                    await _hold(work, work.restore.note)
                    renewed = trio.current_time()
            except LostRace as exc:
                work.settle(machine.next_step(work.restore, work.facts), Outcome(Answer.TAKEN, str(exc)))
                scope.cancel()
                return


def _tell_way_out(work: _Work, began: float) -> float:
    """Say once, after a while of overwriting, how that can be ended; since when it has been going on, or -1: said."""
    now, note = trio.current_time(), work.restore.note
    if not work.restore.phase.overwrites or began < 0:
        return began
    if not began:
        return now
    if now - began < LONG_SECONDS or work.live is None:
        return began
    undo = f"coreflow restore {work.live.name} --backup {undo_id(note.id)}"
    work.tools.step(
        f"still overwriting; should it hang: `{undo}` ends it, and puts back what was there before"
    )
    return -1.0


async def _taken_by(work: _Work, otherwise: str = LOST) -> str:
    """Say who has it now, as far as that can be seen."""
    try:
        services, _ = await work.tools.docker.progress()
    except PortError:
        return otherwise
    there = next((s for s in services if work.live is not None and s.id == work.live.id), None)
    note = read_note(there.restore_note) if there is not None else None
    if note is None or note.holder == work.restore.note.holder:
        return otherwise
    return f"{LOST}: a restore of backup {note.backup_id} has taken over"


async def _is_still_ours(work: _Work) -> bool:
    """Whether the service says that we are at it. What it says is what we know of it from now on."""
    there = await _ours_now(work)
    if there is None:
        return False
    work.live = there
    return True


async def _ours_now(work: _Work) -> ObservedService | None:
    """The service, as long as it says that we are at it."""
    assert work.live is not None  # noqa: S101 - whoever calls has one
    services, _ = await work.tools.docker.progress()
    there = next((s for s in services if s.id == work.live.id), None)
    note, mine = read_note(there.restore_note) if there is not None else None, work.restore.note
    return there if note is not None and (note.id, note.holder) == (mine.id, mine.holder) else None


# data


async def _check(work: _Work, target: Target) -> Outcome:
    """Find out whether what a note names is of this service."""
    port, part, service_id = work.ports[target.site], target.part, work.restore.service_id
    mounts = work.live.body.mounts if work.live is not None else ()
    if part.kind == VOLUME and part.name not in {mount.source for mount in mounts if mount.type == "volume"}:
        volumes = await port.volumes()
        if not any((v.name, v.service_id) == (part.name, service_id) for v in volumes):
            return Outcome(Answer.FOREIGN, f"the service has no {part}")
    try:
        check_snapshots(service_id, [target], {target.site: await port.snapshots(service_id)})
    except Refused as exc:
        return Outcome(Answer.UNTOUCHED, str(exc).removeprefix(f"{part}: "))
    return Outcome(Answer.DONE)


async def _save(work: _Work, step: machine.Save) -> str:
    """The snapshot of what was there before: found, or taken as long as nothing has been overwritten; its id."""
    await trio.sleep(step.pause)
    target, restore = work.restore.parts[step.index].target, work.restore
    port, part = work.ports[target.site], target.part
    if step.may_take:
        work.tools.step(f"saving {part} as it is")
    known = safety_of(target, restore.note, await port.snapshots(restore.service_id))
    if not step.may_take:
        return known.id if known is not None else ""
    if known is None:
        tags = safety_tags(target, restore.note, restore.service_id)
        known = await take_snapshot(port, restore.service_id, part, tags, RESTORE_TAG)
    if part.kind == VOLUME:
        sizes = {volume.name: volume.size_bytes for volume in await port.volumes()}
        work.measures[target.key] = Measure(sizes.get(part.name), known.size_bytes)
    return known.id


async def _overwrite(work: _Work, step: machine.Overwrite) -> None:
    """Make a part what a snapshot says, and see whether it is."""
    await trio.sleep(step.pause)
    target = work.restore.parts[step.index].target
    part, port = target.part, work.ports[target.site]
    work.tools.step(f"putting {part} back as it was" if step.undoes else f"restoring {part}")
    await patiently(partial(_look_before, work), work.tools.pace.patience)
    if part.kind == VOLUME:
        await port.restore_volume(part.name, step.snapshot_id)
        await _look_after(work, target, step.snapshot_id)
    else:
        await port.restore_resource(work.restore.service_id, part.kind, step.snapshot_id)


async def _look_before(work: _Work) -> None:
    """Make sure that it is still ours to overwrite. Raises LostRace, Untouched, or Unreached where nobody can say."""
    try:
        if work.live is None:
            await _look_again(work)
            if work.live is not None:
                raise Untouched("it has been deployed meanwhile: restore it again")
        elif await _ours_now(work) is None:
            raise LostRace(LOST)  # we were asleep, and others have finished it: its data is in use
    except Unavailable as exc:
        raise Unreached(str(exc)) from exc


async def _look_after(work: _Work, target: Target, snapshot_id: str) -> None:
    """Raises Refused where a volume is not what a Corestore says that it made of it. What cannot be seen is believed."""
    port, service_id = work.ports[target.site], work.restore.service_id
    try:
        sizes = {one.id: one.size_bytes for one in await port.snapshots(service_id)}
        volumes = await port.volumes()
    except PortError as exc:
        log.info("what was restored cannot be looked at", part=str(target.part), reason=str(exc))
        return
    measure = work.measures.get(target.key)
    if fault := against_restore(target.part.name, sizes.get(snapshot_id), volumes, measure):
        raise Refused(fault)


async def _look_for_change(work: _Work, target: Target) -> None:
    """Raises Refused where it cannot be seen that a part is as it was when it was saved."""
    measure = work.measures.get(target.key)
    if measure is None or not is_unchanged(
        target.part.name, await work.ports[target.site].volumes(), measure
    ):
        raise Refused(f"{target.part} may have been changed")


async def _start(work: _Work) -> Outcome:
    """Start the workload, however long the engine is away."""
    work.tools.step("starting the workload")
    while True:
        assert work.live is not None  # noqa: S101 - see `next_step`
        with _ignoring_outages():
            try:
                await work.tools.docker.apply(
                    Start(work.live, work.live.restore_note, "the restore has ended")
                )
                return Outcome(Answer.DONE)
            except LostRace:
                if not await _is_still_ours(work):
                    return Outcome(Answer.TAKEN)
            except Refused as exc:
                return Outcome(Answer.REFUSED, str(exc))
        await trio.sleep(work.tools.pace.poll)


@contextmanager
def _ignoring_outages() -> Iterator[None]:
    try:
        yield
    except PortError as exc:
        log.info("waiting", reason=str(exc))
