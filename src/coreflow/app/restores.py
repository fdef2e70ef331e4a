"""Restoring a backup: the workload is stopped, the present data is saved and overwritten, and the workload starts again.

This module finds out which snapshot goes where, and who may have the lease; `restoring` does the rest.

The lease on the stopped service records the restore. So a process that dies in the middle leaves enough for the next one:
that one repeats the restore that the lease names, which does no harm, and starts the workload.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog
import trio
from attrs import evolve

from coreflow.domain.backup import restore as machine
from coreflow.domain.backup.lease import DAEMON, Claim, Lease, claim, read_lease
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.proof import against_volume
from coreflow.domain.backup.replication import Manifest
from coreflow.domain.backup.requests import (
    RestoreRequest,
    RestoreResult,
    Target,
    check_snapshots,
    chosen_parts,
    parts_in,
    resolve_targets,
)
from coreflow.domain.backup.restore import Phase
from coreflow.domain.backup.snapshots import VOLUME, Snapshot
from coreflow.domain.errors import (
    CoreflowError,
    LostRace,
    PreconditionFailed,
    Refused,
    Unavailable,
)
from coreflow.domain.ids import ClusterId, ServiceId
from coreflow.domain.platform.instances import Instance, Instances
from coreflow.domain.ports import CorestorePort
from coreflow.domain.swarm.observed import ROLLED_BACK, ObservedService
from coreflow.domain.swarm.stopped import NOBODY, undo_id

from .backups import Facts, Tools, facts_of, provisioned
from .restoring import Work, carry_out

log = structlog.get_logger()

TURNS = 20
"""How often a restore is begun anew because the service changed while it was about to be stopped."""


async def make_restore(tools: Tools, request: RestoreRequest, owner: str) -> RestoreResult:
    """Restore. What goes wrong is in the result. Nothing is touched unless every part can be restored."""
    try:
        for _ in range(TURNS):
            work = await _begun(tools, request, owner)
            await carry_out(work)
            if work.restore.phase is not Phase.LOST or work.has_stopped:
                return work.restore.result()
            log.info("restore starts over", reason="; ".join(work.restore.problems))
    except CoreflowError as exc:
        return RestoreResult(
            backup_id=request.backup_id, service_id=request.service_id, status="failed", error=str(exc)
        )
    return work.restore.result()


async def _begun(tools: Tools, request: RestoreRequest, owner: str) -> Work:
    """Everything that it takes, once nobody else is at a restore of the service. Raises what stands against it."""
    facts = await facts_of(tools, request.service_id)
    if facts.others:
        raise PreconditionFailed("it is being renamed: two services of it run; wait until there is one")
    if facts.live is None and not owner.startswith(DAEMON):
        raise PreconditionFailed("it is not deployed: apply its record first, so that nobody does meanwhile")
    left: tuple[ObservedService, Claim] | None = None
    if facts.live is not None and facts.live.is_stopped:
        left = await _until_granted(tools, facts.live, owner, request.backup_id)
        facts = await facts_of(tools, request.service_id)
    work = await _prepared(tools, request, facts, owner)
    if left is not None:
        return await _taken_over(work, *left, request, facts, owner)
    return work


async def _until_granted(
    tools: Tools, live: ObservedService, owner: str, wants: str
) -> tuple[ObservedService, Claim] | None:
    """Wait until the lease on a stopped service can be had; the service then, or None: its restore has ended."""
    tools.step(waiting_for(read_lease(live.lease), tools.timeouts.lease, wants))
    since = trio.current_time()
    while live.is_stopped:
        seconds = trio.current_time() - since
        granted = claim(read_lease(live.lease), owner, seconds, seconds=tools.timeouts.lease, wants=wants)
        if granted.is_granted:
            return live, granted
        await trio.sleep(tools.timeouts.poll)
        services, _ = await tools.docker.progress()
        now = next((s for s in services if s.id == live.id), None)
        if now is None:
            return None
        if now.lease != live.lease:
            since = trio.current_time()
        live = now
    return None


def waiting_for(lease: Lease | None, lease_seconds: float, wants: str) -> str:
    """Say what a restore waits for, and what would not have to wait."""
    text = f"waiting for another restore of it to end, or for {lease_seconds:g} s without a heartbeat"
    if lease is None or lease.owner == NOBODY or wants == undo_id(lease.id):
        return text
    return (
        f"{text} (it is one of backup {lease.backup_id}; --backup {undo_id(lease.id)} would end it at once)"
    )


async def _taken_over(
    work: Work, left: ObservedService, granted: Claim, request: RestoreRequest, facts: Facts, owner: str
) -> Work:
    """Go on where somebody else has left off. What that has begun and this does not overwrite is finished first."""
    lease = read_lease(left.lease)
    if lease is not None and not is_outdated(left) and lease.has_begun:
        targets = [part.target for part in work.restore.parts]
        covered = {(target.part.kind, target.part.name) for target in targets}
        takes_back = request.backup_id == undo_id(lease.id)
        if not takes_back and not {(part.kind, part.name) for part in lease.parts} <= covered:
            await finish_restore(work.tools, left, lease, owner, outranks=granted is Claim.OUTRANKED)
            facts = await facts_of(work.tools, request.service_id)
            if facts.live is not None and facts.live.is_stopped:
                raise PreconditionFailed(
                    "an earlier restore of it could not be finished; restore everything that it was about"
                )
            return await _prepared(work.tools, request, facts, owner)
        # what was there before it has been saved under that id
        mine = evolve(work.restore.lease, id=lease.id, has_begun=True)
        kept = work.restore
        work.restore = machine.begin(
            kept.service_id, mine, tuple(targets), pulled=kept.pulled, created=kept.created
        )
    work.live, work.takes_over, work.outranks = left, lease, granted is Claim.OUTRANKED
    work.has_stopped = False
    return work


def is_orphan(
    live: ObservedService, owner: str, seconds: float, lease_seconds: float, competing: Collection[str] = ()
) -> bool:
    """Return whether nobody is at the restore of a stopped service. `seconds`: how long its lease has not changed."""
    return claim(
        read_lease(live.lease), owner, seconds, seconds=lease_seconds, competing=competing
    ).is_granted


def is_outdated(live: ObservedService) -> bool:
    """Return whether its lease came back with a roll-back: the restore that it is about has ended long ago."""
    return live.update_state in ROLLED_BACK


async def finish_restore(
    tools: Tools, live: ObservedService, lease: Lease, owner: str, *, outranks: bool = False
) -> RestoreResult:
    """Finish what somebody began who is no longer at it. Only the lease is needed for that: no records.

    Raises LostRace where somebody is at it after all, and Unavailable where the engine is away.
    """
    ports: dict[Instance, CorestorePort] = {}
    targets: list[Target] = []
    problems: list[str] = []
    instances = await _instances_again(tools, live, lease)
    for part in lease.parts:
        instance = next(iter(instances.of([part.node] if part.node else [])), None)
        if instance is None or tools.corestores is None:
            if lease.has_begun:
                raise Unavailable(f"{part}: no Corestore is known on its node")
            problems.append(f"{part}: no Corestore is known on its node")
            continue
        ports[instance] = tools.corestores.at(instance)
        targets.append(Target(part=part, instance=instance))
    restore = machine.begin(
        ServiceId(live.owner),
        evolve(lease, owner=owner),
        # where something is missing, nothing was overwritten yet, and half of it is of no use
        () if problems else tuple(targets),
        is_found=True,
        problems=tuple(problems),
    )
    work = Work(
        tools=tools,
        cluster=live.cluster,
        live=live,
        ports=ports,
        restore=restore,
        takes_over=lease,
        outranks=outranks,
    )
    await carry_out(work)
    if work.restore.phase is Phase.LOST:
        raise LostRace("; ".join(work.restore.problems))
    return work.restore.result()


async def _instances_again(tools: Tools, live: ObservedService, lease: Lease) -> Instances:
    """Find the Corestores; waits a while for those that the lease is about."""
    until = trio.current_time() + tools.timeouts.peer
    while True:
        observed = await tools.docker.observe()
        instances = (
            tools.corestores.instances(observed, ClusterId(live.cluster)) if tools.corestores else Instances()
        )
        known = all(instances.of([part.node] if part.node else []) for part in lease.parts)
        if known or tools.corestores is None or trio.current_time() >= until:
            return instances
        await trio.sleep(tools.timeouts.poll)


# --- before anything is touched


async def _prepared(tools: Tools, request: RestoreRequest, facts: Facts, owner: str) -> Work:
    """Find out what goes where, and have it there. Raises PreconditionFailed for anything that cannot be, and what peers say."""
    tools.step("looking for the backup")
    found = await facts.snapshots()
    known, pulled = _parts_in(found, request), 0
    manifest, reason = await _manifest(tools, request)
    if manifest is not None and not manifest.parts:
        # somebody else's: its snapshots are known once it is here
        pulled += await _pull(tools, facts, manifest, facts.homes)
        known += _parts_in(await facts.snapshots(), request)
    elif manifest is not None:
        known += [part for part in manifest.parts if not any(_is_same(part, one) for one in known)]
    try:
        parts = chosen_parts(request, known)
    except PreconditionFailed as exc:
        raise PreconditionFailed(f"{exc}; {reason}" if reason else str(exc)) from exc
    targets = resolve_targets(facts.service, facts.bindings, parts, facts.homes, facts.mounts)
    _refuse_shared(facts, targets)
    if manifest is not None and manifest.parts:
        pulled += await _pull(tools, facts, manifest, {target.instance for target in targets})
    if manifest is not None:
        found = await facts.snapshots()
    check_snapshots(request.service_id, targets, found)
    await _provision(tools, facts, targets)
    created = await _created(tools, facts, targets)
    lease = Lease(
        id=uuid.uuid4().hex,
        backup_id=request.backup_id,
        owner=owner,
        is_whole=request.volumes is None and request.resources is None,
        parts=tuple(evolve(target.part, node=target.instance.node) for target in targets),
    )
    return Work(
        tools=tools,
        cluster=facts.records.cluster.id,
        live=facts.live,
        ports=facts.ports,
        restore=machine.begin(facts.service.id, lease, targets, pulled=pulled, created=created),
    )


def _parts_in(found: Mapping[Instance, Iterable[Snapshot]], request: RestoreRequest) -> list[Part]:
    """The parts of the backup whose snapshots are in these Corestores."""
    return [
        part
        for instance, snapshots in found.items()
        for part in parts_in(snapshots, request.backup_id, request.service_id, instance.node)
    ]


def _is_same(part: Part, other: Part) -> bool:
    """Return whether two parts are of one snapshot. Ids are those of a Corestore, and several may have the same ones."""
    somewhere_else = part.node is not None and other.node is not None and part.node != other.node
    return part.snapshot_id == other.snapshot_id and not somewhere_else


def _refuse_shared(facts: Facts, targets: Sequence[Target]) -> None:
    """Raises PreconditionFailed for a volume that another service uses, too: that would go on while it is overwritten."""
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
                raise PreconditionFailed(
                    f"{target.part} is used by the service {service.name}, too, which would go on: stop it first"
                )


async def _manifest(tools: Tools, request: RestoreRequest) -> tuple[Manifest | None, str]:
    """Return what others keep of this backup. That nobody does is no fault, for all may be here; why, it is told."""
    if tools.replicator is None or not request.pull_missing:
        return None, ""
    try:
        return await tools.replicator.manifest(request.backup_id, request.service_id), ""
    except Refused as exc:
        log.info("nothing to pull", reason=str(exc))
        return None, str(exc)


async def _pull(tools: Tools, facts: Facts, manifest: Manifest, instances: Iterable[Instance]) -> int:
    """Fetch what the archives lack: those of the nodes where they were or, where that node is gone, of a node at hand."""
    assert tools.replicator is not None  # noqa: S101 - else there is no manifest
    count = 0
    for instance in instances:
        own = manifest.objects.get(instance.node)
        wanted = own if own is not None else [o for objects in manifest.objects.values() for o in objects]
        tools.step(f"fetching what the archive of {instance} lacks")
        count += await tools.replicator.pull(facts.ports[instance], wanted, tools.watcher)
    return count


async def _provision(tools: Tools, facts: Facts, targets: Iterable[Target]) -> None:
    """Have the databases and object storage there that something goes into. Raises PreconditionFailed where one cannot be."""
    if all(target.part.kind == VOLUME for target in targets):
        return
    problems = await provisioned(tools, facts)
    if problems:
        raise PreconditionFailed("; ".join(problems.values()))


async def _created(tools: Tools, facts: Facts, targets: Sequence[Target]) -> tuple[str, ...]:
    """Make the volumes that are not there."""
    created: list[str] = []
    there = {instance: {v.name for v in await port.volumes()} for instance, port in facts.ports.items()}
    for target in targets:
        if target.volume is None:
            continue
        port, name = facts.ports[target.instance], target.volume.name
        if name not in there[target.instance]:
            tools.step(f"creating {target.part}")
            await port.create_volume(target.volume)
            created.append(name)
        if fault := against_volume(name, facts.service.id, await port.volumes()):
            raise Refused(fault)
    return tuple(created)
