"""Corestore instances, and which to ask: every node may have one, with volumes, databases and an archive of its own."""

from collections.abc import Collection, Iterable, Mapping

from attrs import Factory, frozen

from coreflow.domain.ids import BASE, NodeId
from coreflow.domain.swarm.naming import CORE_CHAT, CORESTORE, WEB_GATEWAY
from coreflow.domain.swarm.observed import Observed, ObservedTask
from coreflow.domain.swarm.specs import kept_on

from .bindings import Provisioned

CONTROL_PORT = 3000
"""Where a Corestore's control API listens (read: its readme, `CORESTORE_CONTROL_PORT`)."""
DEFAULT_URL = f"http://{CORESTORE}:{CONTROL_PORT}"
_NETWORKS = (CORE_CHAT, WEB_GATEWAY)


@frozen(kw_only=True)
class Instance:
    """One Corestore: the address of its control API, and the node it is on where that is known."""

    url: str
    node: NodeId | None = None
    hostname: str = ""

    @property
    def key(self) -> str:
        """Return what stays the same when it is restarted."""
        return self.node or self.url

    def __str__(self) -> str:
        if self.node:
            return f"the Corestore on {self.hostname or self.node}"
        return f"the Corestore at {self.url.rpartition('@')[2]}"


@frozen(kw_only=True)
class Instances:
    """All Corestores of a Swarm. `shared` serves every node; without it each of `by_node` serves its own."""

    shared: Instance | None = None
    by_node: Mapping[NodeId, Instance] = Factory(dict)

    def of(self, nodes: Iterable[NodeId]) -> tuple[Instance, ...]:
        """Those that serve these nodes, each once; nodes without one are left out."""
        if self.shared is not None:
            return (self.shared,)
        return tuple(self.by_node[node] for node in sorted(set(nodes)) if node in self.by_node)

    @property
    def all(self) -> tuple[Instance, ...]:
        """Every one, by node."""
        return (self.shared,) if self.shared is not None else self.of(self.by_node)


def find_instances(
    observed: Observed, cluster: str, configured: str | None = None, *, is_ours: bool = False
) -> Instances:
    """Find the Corestores of a cluster.

    One that is configured serves everybody. Else every running task of our corestore service serves its node, at its
    overlay address; a single node has a single one. Where we have no such service (and shall have none: `is_ours`), or a
    single node and no task of it, the name that it should have is tried.
    """
    if configured:
        return Instances(shared=Instance(url=configured))
    ours = {
        s.id for s in observed.services if s.name == CORESTORE and s.owner == BASE and s.cluster == cluster
    }
    found = _by_node(observed, ours)
    if (ours or is_ours) and len(observed.nodes) > 1:
        return Instances(by_node=found)
    return Instances(shared=next(iter(found.values()), Instance(url=DEFAULT_URL)))


def _by_node(observed: Observed, service_ids: Collection[str]) -> dict[NodeId, Instance]:
    """The running tasks of these services that can be reached; of several on one node the newest."""
    hostnames = {node.id: node.hostname for node in observed.nodes}
    found: dict[NodeId, Instance] = {}
    for task in sorted(observed.tasks, key=lambda t: t.created_at):
        address = _address(task)
        if task.service_id in service_ids and task.is_running and address and task.node_id:
            found[task.node_id] = Instance(
                url=f"http://{address}:{CONTROL_PORT}",
                node=task.node_id,
                hostname=hostnames.get(task.node_id, ""),
            )
    return found


def _address(task: ObservedTask) -> str:
    return next((task.addresses[network] for network in _NETWORKS if task.addresses.get(network)), "")


def nodes_of_service(observed: Observed, service_id: str) -> tuple[NodeId, ...]:
    """The nodes where the tasks of a Swarm service are or, where none is meant to run, where they were last."""
    tasks = [task for task in observed.tasks if task.service_id == service_id and task.node_id is not None]
    meant = [task for task in tasks if task.desired_state == "running"]
    if not meant:
        meant = list({task.slot: task for task in sorted(tasks, key=lambda t: t.created_at)}.values())
    return tuple(sorted({task.node_id for task in meant if task.node_id is not None}))


def instance_of_service(
    instances: Instances, observed: Observed, cluster: str, owner: str
) -> Instance | None:
    """The Corestore of a service that needs exactly one: on the node where it is kept or runs, else on ours."""
    if instances.shared is not None:
        return instances.shared
    nodes: tuple[NodeId, ...] = ()
    for live in observed.services:
        if live.cluster == cluster and live.owner == owner:
            nodes = kept_on(live.body.constraints) or nodes_of_service(observed, live.id)
    candidates = nodes or (
        (observed.own_node,) if observed.own_node is not None else tuple(instances.by_node)
    )
    found = instances.of(candidates)
    return found[0] if found else None


def is_ambiguous(provisioned: Provisioned) -> bool:
    """Return whether what was provisioned is reached under the name that all Corestores share."""
    return any(endpoint.host == CORESTORE for endpoint in provisioned.endpoints)
