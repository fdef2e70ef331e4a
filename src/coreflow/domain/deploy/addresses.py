"""Addresses: how many the overlay networks have left, and which services they suffice for."""

import ipaddress

from coreflow.domain.swarm.observed import Observed, ObservedService
from coreflow.domain.swarm.specs import ServiceBody, ServiceSpec, template_fingerprint

from .desired import Desired


class AddressRoom:
    """The addresses that the overlay networks have left.

    Every task takes one on each of its networks, every virtual address one more, and every node one for itself. A network
    without a free one leaves tasks hanging in state `new` or `preparing`, without a word.
    """

    def __init__(self, desired: Desired, observed: Observed, changed: list[ServiceSpec]) -> None:
        self._nodes = max(len(observed.nodes), 1)
        self.left: dict[str, int] = {}
        if changed:
            self.left = _sizes(desired, observed, self._nodes)
            for service in observed.services:
                for network, need in _needs(service.body, self._nodes).items():
                    if network in self.left:
                        self.left[network] -= need

    def shortage(self, spec: ServiceSpec, live: ObservedService | None) -> str | None:
        """Reserve what the spec needs beyond what it has; says so where a network lacks it."""
        has = _needs(live.body, self._nodes) if live is not None else {}
        more = {
            network: need - has.get(network, 0) for network, need in _needs(spec.body, self._nodes).items()
        }
        for network, need in more.items():
            if need > 0 and network in self.left and self.left[network] < need:
                return f"network {network} has {max(self.left[network], 0)} free addresses, {need} more are needed"
        for network, need in more.items():
            if network in self.left:
                self.left[network] -= need
        return None

    def lacks_a_spare(self, spec: ServiceSpec, live: ObservedService) -> bool:
        """Return whether a start-first roll-out would find no address for its additional task. Reserves it otherwise."""
        if spec.body.update.order != "start-first" or not spec.body.replicas or not live.body.replicas:
            return False
        if template_fingerprint(spec.body) == template_fingerprint(live.body):
            return False
        networks = [a.network for a in spec.body.networks if a.network in self.left]
        if any(self.left[network] < 1 for network in networks):
            return True
        for network in networks:
            self.left[network] -= 1
        return False


def network_room(desired: Desired, observed: Observed) -> dict[str, tuple[int, int]]:
    """Return, by network, how many addresses it has for tasks and virtual addresses, and how many of them are free."""
    nodes = max(len(observed.nodes), 1)
    sizes = _sizes(desired, observed, nodes)
    free = dict(sizes)
    for service in observed.services:
        body = service.body
        need = (nodes if body.replicas is None else body.replicas) + (body.endpoint_mode == "vip")
        for attachment in body.networks:
            if attachment.network in free:
                free[attachment.network] -= need
    return {name: (size, max(free[name], 0)) for name, size in sizes.items()}


def _sizes(desired: Desired, observed: Observed, nodes: int) -> dict[str, int]:
    """Return how many addresses each overlay network has for tasks and virtual addresses."""
    subnets: dict[str, tuple[str, ...]] = {s.name: (s.subnet,) for s in desired.networks if s.subnet}
    subnets |= {
        n.name: n.subnets
        for n in observed.networks
        if n.driver == "overlay" and n.scope == "swarm" and not n.is_remnant
    }
    found: dict[str, int] = {}
    for name, ranges in subnets.items():
        networks = [ipaddress.ip_network(subnet, strict=False) for subnet in ranges]
        sizes = [network.num_addresses for network in networks if network.version == 4]
        if sizes:
            # without the network's own, broadcast, gateway, and one per node for its end of the network
            found[name] = sum(size - 3 for size in sizes) - nodes
    return found


def _needs(body: ServiceBody, nodes: int) -> dict[str, int]:
    tasks = nodes if body.replicas is None else body.replicas
    virtual = 1 if body.endpoint_mode == "vip" else 0
    return {attachment.network: tasks + virtual for attachment in body.networks}
