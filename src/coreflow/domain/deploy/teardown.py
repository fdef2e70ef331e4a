"""Taking a cluster down: what its coreflow made is removed, in an order in which that works, and the rest is named.

A plan never does this: it is what an operator asks for. The rules are those of removals: only objects with our labels and
the cluster's id in them, never a volume, never a service that is stopped for a restore, and a word that stands for exactly
the services that go.
"""

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from coreflow.domain.ids import BASE, ClusterId
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Remove
from coreflow.domain.swarm.naming import COREFLOW, NETWORKS
from coreflow.domain.swarm.observed import (
    Observed,
    ObservedNetwork,
    ObservedSecret,
    ObservedService,
    ObservedTask,
)
from coreflow.domain.swarm.specs import Stage
from coreflow.domain.swarm.stopped import told

from .removals import removal_token

REASON = "the cluster is taken down"
_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
Target = ObservedService | ObservedSecret | ObservedNetwork


@frozen
class Left:
    """Something that stays, and why."""

    kind: str
    name: str
    reason: str


@frozen(kw_only=True)
class Teardown:
    """The removals that take a cluster down, in their order, and what they leave."""

    cluster: ClusterId
    services: tuple[Remove, ...] = ()
    rest: tuple[Remove, ...] = ()
    """Secrets and networks: once the services have gone."""
    left: tuple[Left, ...] = ()
    restoring: tuple[Left, ...] = ()
    """Services that cannot be removed now, since they are being restored."""
    daemons: tuple[str, ...] = ()
    """Services that look like a coreflow that runs: it would make everything again."""
    token: str = ""
    """The word that stands for exactly these services and this cluster."""

    @property
    def removals(self) -> tuple[Remove, ...]:
        """All of them."""
        return (*self.services, *self.rest)


def clusters_of(observed: Observed) -> tuple[ClusterId, ...]:
    """The clusters whose coreflow made something in this Swarm."""
    labels = (*(s.labels for s in observed.services), *(s.labels for s in observed.secrets))
    networks = tuple(network.labels for network in observed.networks if not network.is_remnant)
    found = {
        each.get(naming.CLUSTER, "")
        for each in (*labels, *networks)
        if each.get(naming.MANAGED_BY) == naming.PRODUCT
    }
    return tuple(ClusterId(cluster) for cluster in sorted(found - {""}))


def plan_teardown(observed: Observed, cluster: ClusterId) -> Teardown:
    """Say what taking a cluster down removes and leaves. With no cluster, only networks that belong to none are ours."""
    ours = [s for s in observed.services if cluster and s.cluster == cluster]
    going = sorted((s for s in ours if not s.is_stopped), key=lambda s: (s.owner == BASE, s.name))
    gone = {service.id for service in going}
    staying = [service for service in observed.services if service.id not in gone]
    rest, kept = _rest(observed, cluster, staying)
    return Teardown(
        cluster=cluster,
        services=tuple(map(_removal, going)),
        rest=rest,
        left=(*kept, *_volumes(going), *_foreign_networks(observed, cluster)),
        restoring=tuple(Left("service", s.name, told(s)) for s in ours if s.is_stopped),
        daemons=tuple(sorted(service.name for service in staying if _is_daemon(service))),
        token=removal_token((cluster, *(service.id for service in going))),
    )


def _rest(
    observed: Observed, cluster: ClusterId, staying: Iterable[ObservedService]
) -> tuple[tuple[Remove, ...], tuple[Left, ...]]:
    """Secrets and networks of ours: those that go, and those that a service which stays needs."""
    mounted = {name: service.name for service in staying for name in service.named_secrets}
    joined = {attachment.network: service.name for service in staying for attachment in service.body.networks}
    secrets = [s for s in observed.secrets if cluster and naming.is_ours(s.labels, cluster)]
    networks = [n for n in observed.networks if _is_our_network(n, cluster)]
    kept = (
        *_kept("network", networks, joined, "service {} is on it"),
        *_kept("secret", secrets, mounted, "service {} mounts it"),
    )
    names = {(left.kind, left.name) for left in kept}
    free_secrets = (_removal(secret) for secret in secrets if ("secret", secret.name) not in names)
    free_networks = (_removal(network) for network in networks if ("network", network.name) not in names)
    return (*free_secrets, *free_networks), kept


def _kept(
    kind: str, found: Iterable[ObservedSecret | ObservedNetwork], users: Mapping[str, str], reason: str
) -> Iterator[Left]:
    """Those that have a user."""
    for one in found:
        if one.name in users:
            yield Left(kind, one.name, reason.format(users[one.name]))


def lingering(services: Iterable[ObservedService], tasks: Iterable[ObservedTask]) -> tuple[ObservedTask, ...]:
    """Find the tasks whose service is gone and whose container has not ended. One may be a coreflow that still works."""
    there = {service.id for service in services}
    return tuple(t for t in tasks if t.service_id and t.service_id not in there and t.state not in _ENDED)


def is_on_base_network(task: ObservedTask) -> bool:
    """Tell if a task has an address on a base network, as a coreflow of a stack does."""
    return not task.addresses.keys().isdisjoint(NETWORKS)


def _removal(target: Target) -> Remove:
    return Remove(target, Stage.BASE if target.owner == BASE else Stage.WORKLOADS, REASON)


def _is_our_network(network: ObservedNetwork, cluster: ClusterId) -> bool:
    """One that this cluster made, or that was made for whichever cluster would come."""
    labels = network.labels
    is_coreflows = labels.get(naming.MANAGED_BY) == naming.PRODUCT and network.name in NETWORKS
    return is_coreflows and not network.is_remnant and labels.get(naming.CLUSTER, "") in {"", cluster}


def _foreign_networks(observed: Observed, cluster: ClusterId) -> Iterator[Left]:
    for network in observed.networks:
        if network.name in NETWORKS and not network.is_remnant and not _is_our_network(network, cluster):
            yield Left("network", network.name, f"it {naming.whose(network.labels)}")


def _volumes(going: Iterable[ObservedService]) -> Iterator[Left]:
    """Data stays: whoever wants it gone removes it on each node."""
    for service in going:
        for mount in service.body.mounts:
            if mount.type == "volume" and mount.source:
                yield Left("volume", mount.source, f"holds data of service {service.name}")


def _is_daemon(service: ObservedService) -> bool:
    """Tell if proxies find coreflow here, as in the stack files."""
    return (
        service.body.replicas != 0
        and not service.cluster
        and any(
            COREFLOW in (*attachment.aliases, service.name)
            for attachment in service.body.networks
            if attachment.network in NETWORKS
        )
    )
