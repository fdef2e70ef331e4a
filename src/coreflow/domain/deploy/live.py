"""Facts about the live cluster that rendering depends on."""

from collections.abc import Mapping
from functools import cached_property

from attrs import frozen

from coreflow.domain.ids import ClusterId, NodeId, Owner
from coreflow.domain.records.models import ServiceRecord
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.observed import Observed, ObservedService
from coreflow.domain.swarm.specs import Mount, Platform, kept_on

from .networks import lacks_ingress
from .services import replicas
from .volumes import DEFAULT_DRIVER, LOCAL_DRIVER, is_spelt_otherwise


@frozen
class Live:
    """Queries about nodes, and about the services and secrets of one cluster."""

    observed: Observed
    cluster: ClusterId

    @cached_property
    def owned(self) -> Mapping[Owner, tuple[ObservedService, ...]]:
        """The services of the cluster, by owner."""
        found: dict[Owner, tuple[ObservedService, ...]] = {}
        for service in self.observed.services:
            if service.cluster == self.cluster:
                found[service.owner] = (*found.get(service.owner, ()), service)
        return found

    @cached_property
    def owned_names(self) -> frozenset[tuple[Owner, str]]:
        """The services of the cluster, as pairs of owner and what Swarm compares of the name."""
        return frozenset((s.owner, naming.folded(s.name)) for lives in self.owned.values() for s in lives)

    @cached_property
    def by_folded_name(self) -> Mapping[str, ObservedService]:
        """The services of the cluster, by what Swarm compares of their names."""
        return {naming.folded(s.name): s for lives in self.owned.values() for s in lives}

    @cached_property
    def foreign(self) -> Mapping[str, ObservedService]:
        """Services that are not the cluster's, by what Swarm compares of their names."""
        return {naming.folded(s.name): s for s in self.observed.services if s.cluster != self.cluster}

    @cached_property
    def nodes(self) -> int:
        """Return how many nodes there are."""
        return len(self.observed.nodes)

    @cached_property
    def most_nano_cpus(self) -> int:
        """The CPUs of the largest node."""
        return max((node.nano_cpus for node in self.observed.nodes), default=0)

    @cached_property
    def lacks_ingress(self) -> bool:
        """Return whether ports cannot be published on every node."""
        return lacks_ingress(self.observed)

    @property
    def own_node(self) -> NodeId | None:
        """The node that images are loaded on, where there are others."""
        return self.observed.own_node if self.nodes > 1 else None

    def names_of(self, service: ServiceRecord) -> tuple[str, ...]:
        """The names under which a record's service runs."""
        return tuple(sorted({live.name for live in self.owned.get(Owner(service.id), ())}))

    def secret_names(self, service: ServiceRecord) -> tuple[str, ...]:
        """The names of the secrets that the service has or had."""
        return tuple(sorted(self._secrets.get(Owner(service.id), ())))

    def mounted(self, service: ServiceRecord) -> tuple[str, ...]:
        """The names of the secrets that a record's services mount."""
        lives = self.owned.get(Owner(service.id), ())
        return tuple(sorted({file.secret_name for live in lives for file in live.body.secrets}))

    def spelt(self, service: ServiceRecord) -> tuple[Mount, ...]:
        """The live mounts of a service whose paths are not in their shortest spelling."""
        lives = self.owned.get(Owner(service.id), ())
        return tuple(mount for live in lives for mount in live.body.mounts if is_spelt_otherwise(mount))

    def home(self, service: ServiceRecord) -> NodeId | None:
        """The node that a service with volumes stays on: where it was kept so far, else where its tasks are, if on one.

        None on a Swarm of one node, for several replicas (each has data of its own), and when that node has left.
        """
        if self.nodes < 2 or not service.volumes or replicas(service) > 1:
            return None
        for live in self.owned.get(Owner(service.id), ())[:1]:
            found = set(kept_on(live.body.constraints)) or self._nodes_with_tasks.get(live.id, set())
            if len(found) == 1 and found <= {node.id for node in self.observed.nodes}:
                return min(found)
        return None

    def lacking(self, service: ServiceRecord) -> tuple[str, ...]:
        """The nodes on which one of a service's volume drivers is not active."""
        drivers = {volume.driver or DEFAULT_DRIVER for volume in service.volumes} - {LOCAL_DRIVER}
        if not drivers:
            return ()
        return tuple(sorted(n.hostname for n in self.observed.nodes if not drivers <= n.volume_plugins))

    def unsuited(self, platforms: tuple[Platform, ...]) -> tuple[str, ...]:
        """The nodes that an image for these platforms cannot run on."""
        if not platforms:
            return ()
        return tuple(sorted(node.hostname for node in self.observed.nodes if not node.runs(platforms)))

    @cached_property
    def _secrets(self) -> Mapping[Owner, list[str]]:
        found: dict[Owner, list[str]] = {}
        for secret in self.observed.secrets:
            if naming.is_ours(secret.labels, self.cluster):
                found.setdefault(secret.owner, []).append(secret.name)
        return found

    @cached_property
    def _nodes_with_tasks(self) -> Mapping[str, set[NodeId]]:
        found: dict[str, set[NodeId]] = {}
        for task in self.observed.tasks:
            if task.is_running and task.node_id is not None:
                found.setdefault(task.service_id, set()).add(task.node_id)
        return found
