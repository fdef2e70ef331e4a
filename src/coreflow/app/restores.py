"""Bringing a backup back: the workload is stopped, everything in its place is saved, overwritten, and it starts again.

A note on the stopped service says what is going on. So a process that dies in the middle leaves enough for the next one
to finish: whoever finds the note restores what it names once more, which does no harm, and starts the workload.
"""

import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import structlog
import trio
from attrs import define, evolve, field

from coreflow.domain.backup.replication import Manifest
from coreflow.domain.backup.requests import (
    Part,
    RestoreNote,
    RestoreRequest,
    RestoreResult,
    Status,
    Target,
    aim,
    check_snapshots,
    chosen_parts,
    parts_in,
    read_note,
    safety_of,
    safety_tags,
)
from coreflow.domain.backup.snapshots import RESTORE_TAG, VOLUME, Snapshot
from coreflow.domain.errors import CoreflowError, LostRace, PortError, Refused, Unavailable, leaves
from coreflow.domain.ids import ClusterId, Owner, ServiceId
from coreflow.domain.platform.instances import Site, Sites
from coreflow.domain.ports import CorestorePort
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Start, Stop
from coreflow.domain.swarm.observed import ROLLED_BACK, ObservedService

from .backups import Facts, Pace, Tools, facts_of, provisioned, take_snapshot
from .patience import patiently

log = structlog.get_logger()
T = TypeVar("T")

NOBODY = ""
"""The holder of a restore that was left."""
DAEMON = "daemon"
"""What the holders of the restores of daemons begin with."""
HALF = "data is half restored; the next who looks finishes it, and starts the workload"
LOST = "somebody else has stopped or started the service meanwhile"
_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "orphaned", "remove"})


@define
class _Work:
    """One restore under way."""

    tools: Tools
    cluster: str
    service_id: ServiceId
    live: ObservedService | None
    ports: Mapping[Site, CorestorePort]
    note: RestoreNote
    targets: tuple[Target, ...]
    pulled: int = 0
    created: tuple[str, ...] = ()
    restored: list[Part] = field(factory=list)
    problems: list[str] = field(factory=list)
    saved: dict[tuple[str, str, str], Snapshot] = field(factory=dict)
    is_done: bool = False
    """Whether every part is either restored or as it was."""
    is_lost: bool = False
    """Whether somebody else is at it now."""
    is_found: bool = False
    """Whether it is known from its note only, which anybody may have written."""
    takes_over: bool = False
    """Whether the service was stopped already, by somebody who is no longer at it."""
    lock: trio.Lock = field(factory=trio.Lock)
    """Held while the note is written."""
    refused: dict[tuple[str, str, str], str] = field(factory=dict)
    """Why the snapshot of a target must not be restored."""

    def result(self) -> RestoreResult:
        """What came of it."""
        done: Status = "completed" if not self.problems else "partial" if self.restored else "failed"
        return RestoreResult(
            backup_id=self.note.backup_id,
            service_id=self.service_id,
            status=done,
            objects_pulled=self.pulled,
            volumes_created=self.created,
            volumes_restored=tuple(p.name for p in self.restored if p.kind == VOLUME),
            resources_restored=tuple(p.binding_id for p in self.restored if p.kind != VOLUME),
            error="; ".join(self.problems),
        )


async def make_restore(tools: Tools, request: RestoreRequest, holder: str) -> RestoreResult:
    """Restore. What goes wrong is in the result. Nothing is touched unless every part can be restored."""
    try:
        facts = await facts_of(tools, request.service_id)
        if facts.others:
            raise Refused("it is being renamed: two services of it run; wait until there is one")
        if facts.live is None and not holder.startswith(DAEMON):
            raise Refused("it is not deployed: apply its record first, so that nobody does meanwhile")
        left = None
        if facts.live is not None and facts.live.is_stopped:
            left = await _until_left(tools, facts.live, holder)
            facts = await facts_of(tools, request.service_id)
        work = await _prepared(tools, request, facts, holder)
        if left is not None:
            work = await _taken_over(work, left, request, facts, holder)
    except CoreflowError as exc:
        return RestoreResult(
            backup_id=request.backup_id, service_id=request.service_id, status="failed", error=str(exc)
        )
    await _carry_out(work)
    return work.result()


async def _until_left(tools: Tools, live: ObservedService, holder: str) -> ObservedService | None:
    """Wait until nobody is at the restore of a stopped service any more; the service then, or None: it has ended."""
    tools.step(
        f"waiting for another restore of it to end, or for {tools.pace.lease:g} s without a sign of life of it"
    )
    since = trio.current_time()
    while live.is_stopped:
        if is_orphan(live, holder, trio.current_time() - since, tools.pace):
            return live
        await trio.sleep(tools.pace.poll)
        services, _ = await tools.docker.progress()
        now = next((s for s in services if s.id == live.id), None)
        if now is None:
            return None
        if now.restore_note != live.restore_note:
            since = trio.current_time()
        live = now
    return None


async def _taken_over(
    work: _Work, left: ObservedService, request: RestoreRequest, facts: Facts, holder: str
) -> _Work:
    """Go on where somebody else has left off. What that has begun and this does not overwrite is finished first."""
    note = read_note(left.restore_note)
    if note is not None and not is_outdated(left) and note.has_begun:
        covered = {(target.part.kind, target.part.name) for target in work.targets}
        if not {(part.kind, part.name) for part in note.parts} <= covered:
            await finish_restore(work.tools, left, note, holder)
            facts = await facts_of(work.tools, request.service_id)
            if facts.live is not None and facts.live.is_stopped:
                raise Refused(
                    "an earlier restore of it could not be finished; restore everything that it was about"
                )
            return await _prepared(work.tools, request, facts, holder)
        work.note = evolve(
            work.note, id=note.id, has_begun=True
        )  # what was there before it has been saved under that id
    work.live, work.takes_over = left, True
    return work


def is_orphan(
    live: ObservedService, holder: str, seconds: float, pace: Pace, rivals: Collection[str] = ()
) -> bool:
    """Whether nobody is at the restore of a stopped service. `seconds`: how long its note has not changed.

    There is one daemon for a cluster: the note of another one was left by its predecessor, unless it is a rival's.
    """
    note = read_note(live.restore_note)
    if note is None or seconds >= pace.lease:
        return seconds >= pace.lease
    if note.holder == NOBODY:
        return True
    is_predecessor = note.holder.startswith(DAEMON) and note.holder not in rivals
    return is_predecessor and holder.startswith(DAEMON)


def is_outdated(live: ObservedService) -> bool:
    """Whether its note came back with a roll-back: the restore that it is about has ended long ago."""
    return live.update_state in ROLLED_BACK


async def finish_restore(
    tools: Tools, live: ObservedService, note: RestoreNote, holder: str
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
    work = _Work(
        tools=tools,
        cluster=live.cluster,
        service_id=ServiceId(live.owner),
        live=live,
        ports=ports,
        note=evolve(note, holder=holder),
        # where something is missing, nothing was overwritten yet, and half of it is of no use
        targets=() if problems else tuple(targets),
        problems=problems,
        is_found=True,
        takes_over=True,
    )
    await _carry_out(work)
    if work.is_lost:
        raise LostRace("; ".join(work.problems))
    return work.result()


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
        service_id=facts.service.id,
        live=facts.live,
        ports=facts.ports,
        note=note,
        targets=targets,
        pulled=pulled,
        created=created,
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
        if target.volume is not None and target.volume.name not in there[target.site]:
            tools.step(f"creating {target.part}")
            await facts.ports[target.site].create_volume(target.volume)
            created.append(target.volume.name)
    return tuple(created)


# --- the part that must not stop half-way


async def _carry_out(work: _Work) -> None:
    """Stop, save, overwrite, start. Told to end, it starts the workload, unless data may be half restored then."""
    ended, owner = False, Owner(work.service_id)
    work.tools.restoring.add(owner)
    try:
        try:
            await _look_again(work)
            await _stop(work)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_beat, work, nursery.cancel_scope)
                await _check(work)
                await _save(work)
                await _gracefully(work)
                nursery.cancel_scope.cancel()
        except* CoreflowError as group:
            work.problems += [str(exc) for exc in leaves(group)]
        ended = True
    finally:
        try:
            await _put_back(work, ended=ended)
        finally:
            work.tools.restoring.discard(owner)


async def _look_again(work: _Work) -> None:
    """A service that was not there may have been deployed meanwhile."""
    if work.live is None:
        services, _ = await work.tools.docker.progress()
        ours = (s for s in services if s.owner == Owner(work.service_id) and s.cluster == work.cluster)
        work.live = next(ours, None)
        _refuse_taken(work)


def _refuse_taken(work: _Work) -> None:
    """Raises LostRace where somebody else has begun a restore of the service since it was looked at."""
    if work.live is not None and work.live.is_stopped and not work.takes_over:
        work.is_lost = True
        raise LostRace("another restore of it has begun meanwhile")


async def _stop(work: _Work) -> None:
    """Stop the workload, and wait until it is. Raises LostRace where somebody else is at it.

    At any write to a service, Swarm forgets those of its tasks that are to be removed, although their containers may
    still run. So nothing is written while tasks are stopping, not even a sign of life.
    """
    if work.live is None:
        return
    if not work.live.is_stopped:
        await _wait_for_roll_out(work)
    work.tools.step("stopping the workload")
    await _wait_until_stopped(work, only_removed=not work.live.is_stopped)
    try:
        await _renew(work)
    except LostRace:
        work.is_lost = True
        raise
    await _wait_until_stopped(work)
    await _patiently(work, partial(_hold, work))


async def _hold(work: _Work) -> None:
    """Have the note written as it is now. Raises LostRace where somebody else has taken over."""
    while True:
        try:
            return await _renew(work)
        except LostRace:
            if not await _is_still_ours(work):
                raise


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


async def _renew(work: _Work) -> None:
    """Write the note on the service."""
    async with work.lock:
        assert work.live is not None  # noqa: S101 - whoever calls has one
        work.note = evolve(work.note, beat=work.note.beat + 1)
        reason = f"restoring backup {work.note.backup_id}"
        stop = Stop(work.live, work.note.label(), work.live.restore_note, reason)
        labels = {naming.STOPPED: "", **work.live.labels, naming.RESTORE: work.note.label()}
        stopped = evolve(work.live, labels=labels)
        try:
            await work.tools.docker.apply(stop)
        except Unavailable:
            work.live = stopped  # it may be
            raise
        work.live = stopped


async def _beat(work: _Work, scope: trio.CancelScope) -> None:
    """Show that somebody is at it. Gives up when somebody else is."""
    while work.live is not None:
        await trio.sleep(work.tools.pace.beat)
        with _ignoring_outages():
            try:
                await _renew(work)
            except LostRace:
                if not await _is_still_ours(work):
                    work.problems.append(LOST)
                    scope.cancel()
                    return


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
    note = read_note(there.restore_note) if there is not None else None
    if there is None or note is None or (note.id, note.holder) != (work.note.id, work.note.holder):
        work.is_lost = True
        return None
    return there


async def _check(work: _Work) -> None:
    """Find out what of a note that was found is not of this service. Raises Refused as long as nothing is overwritten."""
    if not work.is_found or work.live is None:
        return
    mounted = {mount.source for mount in work.live.body.mounts if mount.type == "volume"}
    kept: list[Target] = []
    strange: list[str] = []
    for target in work.targets:
        port, part = work.ports[target.site], target.part
        if part.kind == VOLUME and part.name not in mounted:
            volumes = await _patiently(work, port.volumes)
            if not any((v.name, v.service_id) == (part.name, work.service_id) for v in volumes):
                strange.append(f"the service has no {part}")
                continue
        kept.append(target)
        found = await _patiently(work, partial(port.snapshots, work.service_id))
        try:
            check_snapshots(work.service_id, [target], {target.site: found})
        except Refused as exc:
            work.refused[target.key] = str(exc).removeprefix(f"{part}: ")
    if not work.note.has_begun and (strange or work.refused):
        refused = (f"{t.part}: {work.refused[t.key]}" for t in kept if t.key in work.refused)
        raise Refused("; ".join((*strange, *refused)))
    work.targets = tuple(kept)
    work.problems += strange


async def _save(work: _Work) -> None:
    """Have a snapshot of everything that will be overwritten. Raises where there is none, unless it was taken before."""
    for target in work.targets:
        if not work.note.has_begun:
            work.tools.step(f"saving {target.part} as it is")
        saved = await _patiently(work, partial(_saved, work, target))
        if saved is not None:
            work.saved[target.key] = saved


async def _saved(work: _Work, target: Target) -> Snapshot | None:
    """The snapshot of what was there before: found, or taken as long as nothing has been overwritten."""
    port = work.ports[target.site]
    known = safety_of(target, work.note, await port.snapshots(work.service_id))
    if known is not None or work.note.has_begun:
        return known
    tags = safety_tags(target, work.note, work.service_id)
    return await take_snapshot(port, work.service_id, target.part, tags, RESTORE_TAG)


async def _gracefully(work: _Work) -> None:
    """Overwrite everything; told to end, go on for a moment."""
    scope, done = trio.CancelScope(shield=True), trio.Event()

    async def end_soon() -> None:
        try:
            await done.wait()
        except trio.Cancelled:
            scope.deadline = trio.current_time() + (0 if work.is_lost else work.tools.pace.grace)
            raise

    if work.live is not None and not work.note.has_begun:
        work.note = evolve(work.note, has_begun=True)
        await _patiently(work, partial(_hold, work))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_soon)
        with scope:
            whole = [await _restore(work, target) for target in work.targets]
            work.is_done = all(whole)
        done.set()


async def _restore(work: _Work, target: Target) -> bool:
    """Overwrite one part; where that fails, put back what was there. Whether it is whole then, one way or the other.

    Raises Unavailable where neither can be done now, and LostRace where somebody else is at it.
    """
    part = target.part
    work.tools.step(f"restoring {part}")
    try:
        if target.key in work.refused:
            raise Refused(work.refused[target.key])
        await _patiently(work, partial(_overwrite, work, target, part.snapshot_id))
    except LostRace:
        raise
    except PortError as exc:
        work.problems.append(f"{part}: {exc}")
        return await _undone(work, target)
    work.restored.append(part)
    return True


async def _undone(work: _Work, target: Target) -> bool:
    """Put back what was there. Whether that, or the attempt, is over."""
    saved = work.saved.get(target.key)
    if saved is None:
        work.problems.append("no snapshot of what was there before is known: it stays as it is")
        return True  # nothing more can be done, ever
    work.tools.step(f"putting {target.part} back as it was")
    try:
        await _patiently(work, partial(_overwrite, work, target, saved.id))
    except Refused as exc:
        work.problems.append(
            f"what was there before could not be put back either ({exc}): snapshot {saved.id}"
        )
        return False
    work.problems[-1] += "; it is as it was before"
    return True


async def _overwrite(work: _Work, target: Target, snapshot_id: str) -> None:
    if work.live is None:
        await _look_again(work)
        if work.live is not None:
            raise Refused("it has been deployed meanwhile: restore it again")
    elif await _ours_now(work) is None:
        raise LostRace(LOST)  # we were asleep, and others have finished it: its data is in use
    port, part = work.ports[target.site], target.part
    if part.kind == VOLUME:
        await port.restore_volume(part.name, snapshot_id)
    else:
        await port.restore_resource(work.service_id, part.kind, snapshot_id)


async def _put_back(work: _Work, *, ended: bool) -> None:
    """Start the workload: in every case but two. One is that somebody else is at it; the other, that data is half restored.

    Then whoever looks next finishes it first.
    """
    if work.live is None or work.is_lost or not work.live.is_stopped:
        return
    if work.note.has_begun and not work.is_done:
        log.error("left stopped", service=work.live.name, reason=HALF)
        work.tools.watcher.step(f"left stopped: {HALF}")
        work.problems.append(f"left stopped: {HALF}")
        await _let_go(work)
        return
    seconds = work.tools.pace.start if ended else work.tools.pace.grace
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
        work.tools.step("starting the workload")
        while True:
            with _ignoring_outages():
                try:
                    await work.tools.docker.apply(
                        Start(work.live, work.live.restore_note, "the restore has ended")
                    )
                    return
                except LostRace:
                    if not await _is_still_ours(work):
                        return
                except Refused as exc:
                    work.problems.append(f"the workload could not be started: {exc}")
                    return
            await trio.sleep(work.tools.pace.poll)
    work.problems.append("the workload could not be started: the engine does not answer")


async def _let_go(work: _Work) -> None:
    """Say that nobody is at it any more, so that the next need not wait for a sign of life."""
    work.note = evolve(work.note, holder=NOBODY)
    with trio.move_on_after(work.tools.pace.let_go) as scope, _ignoring_outages():
        scope.shield = True
        await _renew(work)


# --- patience


async def _patiently(work: _Work, call: Callable[[], Awaitable[T]]) -> T:
    """Call, again and again while the far side is away. Only for what may be repeated."""
    return await patiently(call, work.tools.pace.patience)


@contextmanager
def _ignoring_outages() -> Iterator[None]:
    try:
        yield
    except PortError as exc:
        log.info("waiting", reason=str(exc))
