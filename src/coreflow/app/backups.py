"""Making a backup: snapshots of everything that belongs to a service, and copies of them elsewhere.

Whatever a backup did stays: made again under the same id, it takes only the snapshots that are missing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from coreflow._moved import renamed
from coreflow.domain.backup.lease import LEASE_SECONDS
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.proof import against_snapshot
from coreflow.domain.backup.replication import Manifest
from coreflow.domain.backup.requests import (
    BackupRequest,
    BackupResult,
    Replication,
    SnapshotStep,
    plan_backup,
    status_of,
)
from coreflow.domain.backup.snapshots import BACKUP_TAG, VOLUME, Snapshot, tagged
from coreflow.domain.errors import CoreflowError, PortError, PreconditionFailed, Refused
from coreflow.domain.ids import ClusterId, NodeId, Owner, ServiceId
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.platform.instances import Instance, Instances, instance_of_service, nodes_of_service
from coreflow.domain.ports import ControlPlane, CorestorePort, DockerPort
from coreflow.domain.records.models import Records, ServiceRecord
from coreflow.domain.swarm.actions import Start, Stop
from coreflow.domain.swarm.observed import Observed, ObservedService
from coreflow.domain.swarm.specs import Mount

from .bindings import Bindings
from .corestores import Corestores
from .journaling import NO_RECORDER, Recorder
from .lazy_log import LazyLog
from .progress import Watcher
from .replication import Replicator

log = LazyLog()


@frozen(kw_only=True)
class Timeouts:
    """The times of a backup or a restore, in seconds."""

    heartbeat: float = 15.0
    """How often whoever is at it gives a sign of life."""
    look: float = 3.0
    """How often it looks whether somebody else has taken over."""
    yielding: float = 5.0
    """How long who takes over waits for the other one to see that."""
    lease: float = LEASE_SECONDS
    """How long a lease lasts without a heartbeat."""
    stop: float = 45.0
    """How long a workload may take to stop: Swarm kills a container after ten. Shorter than the lease, for there is no sign
    of life meanwhile."""
    roll_out: float = 60.0
    """How long it waits for a roll-out to end: stopping the service would disarm its roll-back."""
    start: float = 60.0
    """How long starting the workload is tried, come what may."""
    grace: float = 8.0
    """How long one that is told to end goes on with what would leave data half restored."""
    let_go: float = 2.0
    """How long it tries then to say that nobody is at it."""
    peer: float = 120.0
    """How long a peer may be away."""
    poll: float = 0.3
    """How often is looked whether Swarm has done something."""


@frozen(kw_only=True)
class Tools:
    """The tools of backups and restores: peers, time-outs, and who watches."""

    cloudly: ControlPlane
    docker: DockerPort
    corestores: Corestores | None
    bindings: Bindings
    replicator: Replicator | None
    """Without one, there are no copies elsewhere."""
    watcher: Watcher
    clock: Callable[[], float]
    """Seconds since 1970."""
    timeouts: Timeouts = Timeouts()
    restoring: set[Owner] = field(factory=set)
    """Where it is written down for the passes of this process which services are being restored."""
    recorder: Recorder = NO_RECORDER
    """Keeps the journal."""

    def step(self, text: str, **facts: object) -> None:
        """Say that a step begins."""
        log.info("step", step=text, **facts)
        self.watcher.step(text)

    async def apply(self, action: Stop | Start) -> None:
        """Stop or start a service for a restore. A heartbeat, which stops what is stopped, is not worth an entry."""
        call = partial(self.docker.apply, action)
        if isinstance(action, Stop) and action.expected:
            await call()
        else:
            await self.recorder.act(action, call, "restore")

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self.clock() * 1000)


@frozen(kw_only=True)
class Facts:
    """A service, as it is recorded, as it runs, and where its data is."""

    records: Records
    observed: Observed
    service: ServiceRecord
    live: ObservedService | None
    others: tuple[ObservedService, ...]
    """Further services of the same record, while it is being renamed."""
    bindings: tuple[BindingSpec, ...]
    homes: tuple[Instance, ...]
    """The Corestores on the nodes where it runs or, where it does not, ran last."""
    ports: Mapping[Instance, CorestorePort]
    """Of the homes."""

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """Return what the service mounts now, under whatever name it runs."""
        running = (*((self.live,) if self.live is not None else ()), *self.others)
        return tuple(mount for service in running for mount in service.body.mounts)

    async def snapshots(self) -> dict[Instance, tuple[Snapshot, ...]]:
        """The snapshots of the service, by Corestore."""
        return {instance: await port.snapshots(self.service.id) for instance, port in self.ports.items()}


async def facts_of(tools: Tools, service_id: ServiceId) -> Facts:
    """Gather them. Raises PreconditionFailed for a service that is not recorded, and where there is no Corestore."""
    corestores = tools.corestores
    if corestores is None:
        raise PreconditionFailed("there is no Corestore to ask")
    records = await tools.cloudly.records()
    service = next((s for s in records.services if s.id == service_id), None)
    if service is None:
        raise PreconditionFailed("no service of this id is recorded, or its record cannot be read")
    observed = await tools.docker.observe()
    cluster = records.cluster.id
    owned = [s for s in observed.services if s.cluster == cluster and s.owner == Owner(service_id)]
    live = next((s for s in owned if s.name == service.name), owned[0] if owned else None)
    tools.bindings.locate(records, observed)
    homes = _homes(corestores.instances(observed, cluster), observed, cluster, service_id, live)
    return Facts(
        records=records,
        observed=observed,
        service=service,
        live=live,
        others=tuple(s for s in owned if s is not live),
        bindings=tools.bindings.wishes(records).wanted.get(service_id, ()),
        homes=homes,
        ports={instance: corestores.at(instance) for instance in homes},
    )


def _homes(
    instances: Instances,
    observed: Observed,
    cluster: ClusterId,
    service_id: ServiceId,
    live: ObservedService | None,
) -> tuple[Instance, ...]:
    """The Corestores that have the data of a service. Raises PreconditionFailed where one is not known."""
    nodes = nodes_of_service(observed, live.id) if live is not None else ()
    homes = instances.of(nodes)
    if not nodes and (alone := instance_of_service(instances, observed, cluster, service_id)) is not None:
        homes = (alone,)
    if not homes or (instances.shared is None and len(homes) < len(nodes)):
        raise PreconditionFailed("no Corestore is known on a node where it runs")
    return homes


async def make_backup(tools: Tools, request: BackupRequest) -> BackupResult:
    """Make a backup. What goes wrong is in the result."""
    started = tools.now_ms()
    result = BackupResult(
        backup_id=request.backup_id, service_id=request.service_id, status="failed", started_ms=started
    )
    try:
        facts = await facts_of(tools, request.service_id)
        if facts.live is not None and facts.live.is_stopped:
            raise PreconditionFailed("it is being restored")
        for instance in facts.homes:
            tools.step(f"asking {instance}")
        problems = await provisioned(tools, facts) if request.include_resources else {}
        found = await facts.snapshots()
        plan = plan_backup(request, facts.service, facts.bindings, facts.homes, found, facts.mounts)
        parts = list(plan.done)
        for step in plan.steps:
            problem = problems.get(step.part.binding_id, "")
            part = evolve(step.part, error=problem) if problem else await _taken(tools, facts, step)
            parts.append((step.instance, part))
        replication = await _replicated(tools, facts, request, parts) if request.replicate else None
        error = await _tainted(tools, facts)
        if request.include_resources and not facts.records.unreadable_bindings.isdisjoint(
            {facts.service.id, None}
        ):
            error = error or "a binding cannot be read: what the service is bound to may be missing"
    except CoreflowError as exc:
        return evolve(result, finished_ms=tools.now_ms(), error=str(exc))
    all_parts = tuple(part for _, part in parts)
    status = status_of(all_parts, replication)
    return evolve(
        result,
        status="partial" if error and status == "completed" else status,
        error=error,
        finished_ms=tools.now_ms(),
        parts=all_parts,
        replication=replication,
    )


async def _tainted(tools: Tools, facts: Facts) -> str:
    """Return whether somebody has restored the service while it was backed up, in another process."""
    if facts.live is None:
        return ""
    services, _ = await tools.docker.progress()
    now = next((s for s in services if s.id == facts.live.id), None)
    if now is None or not now.is_stopped:
        return ""
    return "it was stopped for a restore meanwhile: what was saved may be of two moments"


async def provisioned(tools: Tools, facts: Facts) -> dict[str, str]:
    """Make sure that what the service is bound to is there. What is not, by binding id, and why."""
    problems: dict[str, str] = {}
    for spec in facts.bindings:
        if not tools.bindings.has(spec):
            tools.step(f"provisioning {spec.name}")
            try:
                await tools.bindings.provision(spec)
            except (PortError, PreconditionFailed) as exc:
                problems[spec.id] = str(exc)
    return problems


async def _taken(tools: Tools, facts: Facts, step: SnapshotStep) -> Part:
    """Have one snapshot taken. Where no answer came, it may be there nevertheless."""
    tools.step(f"snapshot of {step.part}")
    port = facts.ports[step.instance]
    try:
        snapshot = await take_snapshot(port, facts.service.id, step.part, step.tags, BACKUP_TAG)
    except PortError as exc:
        log.warning("no snapshot", part=str(step.part), reason=str(exc))
        return evolve(step.part, error=str(exc))
    return evolve(step.part, snapshot_id=snapshot.id, size_bytes=snapshot.size_bytes)


async def take_snapshot(
    port: CorestorePort, service_id: ServiceId, part: Part, tags: Mapping[str, str], tag: str
) -> Snapshot:
    """Take a snapshot of a part. `tag` is the name of the one among `tags` that tells it from all others.

    An answer that did not come is looked for: the snapshot may have been taken. Raises what the Corestore said, and
    Refused where what it says that it took cannot be seen.
    """
    try:
        if part.kind == VOLUME:
            taken = await port.snapshot_volume(part.name, tags)
        else:
            taken = await port.snapshot_resource(service_id, part.kind, tags)
    except PortError:
        for snapshot in tagged(await port.snapshots(service_id), tag, tags[tag]):
            if part.is_in(snapshot):
                return snapshot
        raise
    listed = await port.snapshots(service_id)
    if fault := against_snapshot(taken, listed, part, service_id, (tag, tags[tag])):
        raise Refused(fault)
    return taken


async def _replicated(
    tools: Tools, facts: Facts, request: BackupRequest, parts: Sequence[tuple[Instance, Part]]
) -> Replication:
    """Send copies of everything that was taken."""
    taken = [(instance, part) for instance, part in parts if part.snapshot_id]
    if not taken:
        return Replication(status="failed", error="there is nothing to replicate")
    if tools.replicator is None:
        return Replication(status="failed", error="nobody keeps copies: the records do not come from Cloudly")
    tools.step("replicating the archive")
    manifest = Manifest(
        backup_id=request.backup_id,
        service_id=request.service_id,
        finished_ms=tools.now_ms(),
        parts=tuple(part for _, part in taken),
    )
    ports: dict[NodeId | None, CorestorePort] = {
        instance.node: facts.ports[instance] for instance, _ in taken
    }
    return await tools.replicator.push(ports, manifest, tools.watcher)


if not TYPE_CHECKING:  # a type checker shall miss names that are not there

    def __getattr__(name: str) -> Any:
        return renamed(name, globals(), {"Pace": "Timeouts"})
