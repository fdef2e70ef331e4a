"""Checks of the networks that exist already: the base networks, and that of the routing mesh."""

import ipaddress
from collections.abc import Iterable, Iterator

from coreflow.domain.ids import ClusterId
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.naming import NETWORKS
from coreflow.domain.swarm.observed import Observed, ObservedNetwork
from coreflow.domain.swarm.specs import NetworkSpec

from .base import render_networks

_FOREIGN = "exists and is not a Swarm overlay network: rename or remove it"
_USELESS = "has no addresses, since Swarm found its range taken by another network: remove it"
_MESH = "is Swarm's ingress network, which no service can join: remove it, and make one of another name"
NO_INGRESS = (
    "publishes ports through the routing mesh, and this Swarm has no ingress network"
    " (docker network create --driver overlay --ingress ingress)"
)
_ROOMY = 253
"""Addresses of a /24, which Swarm gives a network by itself: gateway, network and broadcast are none."""
_LEAST_ROOM = 2
"""With fewer, no task gets an address beside the virtual one of its service (measured)."""


def base_networks(observed: Observed, cluster: ClusterId) -> tuple[tuple[NetworkSpec, ...], tuple[str, ...]]:
    """The base networks, and what makes one that exists already unusable."""
    taken = [subnet for network in observed.networks for subnet in network.subnets]
    return render_networks(taken, cluster), (*_unusable(observed), *_in_another_case(observed))


def missing_networks(networks: Iterable[NetworkSpec], observed: Observed) -> tuple[NetworkSpec, ...]:
    """Those that do not exist yet, whoever may have made the others."""
    there = {network.name for network in observed.networks if not network.is_remnant}
    return tuple(spec for spec in networks if spec.name not in there)


def _unusable(observed: Observed) -> Iterator[str]:
    """Base networks that exist already, and that no service could use."""
    existing = {n.name: n for n in observed.networks if n.name in NETWORKS and not n.is_remnant}
    for name, network in sorted(existing.items()):
        if not network.is_new and (problem := _problem(network)):
            yield f"network {name} {problem}"


def _in_another_case(observed: Observed) -> Iterator[str]:
    """Networks whose names Swarm takes for those of base networks."""
    wanted = {naming.folded(name): name for name in NETWORKS}
    for network in observed.networks:
        name = wanted.get(naming.folded(network.name), network.name)
        if network.scope == "swarm" and network.name != name and not network.is_remnant:
            yield (
                f"network {network.name} exists, and Swarm ignores case in names:"
                f" it stands for {name}; rename or remove it"
            )


def _problem(network: ObservedNetwork) -> str:
    """Return why a base network cannot be used, or nothing."""
    if network.driver != "overlay" or network.scope != "swarm":
        return _USELESS if network.scope == "swarm" and not network.driver else _FOREIGN
    if network.is_ingress:
        return _MESH
    room = _room(network)
    if room is not None and room < _LEAST_ROOM:
        return f"has {_addresses(room)} ({', '.join(network.subnets)}), too few for any task: remove it"
    return ""


def network_notes(observed: Observed) -> Iterator[str]:
    """Yield what is unusual about base networks that somebody else made, and what that means."""
    for network in sorted(observed.networks, key=lambda n: n.name):
        if network.name in NETWORKS and not (network.is_remnant or network.is_new or _problem(network)):
            yield from (f"network {network.name} {oddity}" for oddity in _oddities(network))


def _oddities(network: ObservedNetwork) -> Iterator[str]:
    if network.is_internal:
        yield "is internal: no service reaches the world outside through it"
    if network.is_encrypted:
        yield "is encrypted: traffic between nodes is slower, and needs IP protocol 50 (ESP) in firewalls"
    if not network.attachable:
        yield "is not attachable: only services can join it, no container of `docker run`"
    room = _room(network)
    if room is not None and room < _ROOMY:
        yield f"has {_addresses(room)}: every task, every node and every virtual address needs one"


def _room(network: ObservedNetwork) -> int | None:
    """Return how many addresses a network has to give: all but its own, the gateway's and that for broadcasts."""
    subnets = [ipaddress.ip_network(subnet, strict=False) for subnet in network.subnets]
    sizes = [subnet.num_addresses - 3 for subnet in subnets if subnet.version == 4]
    return max(sum(sizes), 0) if sizes else None


def _addresses(count: int) -> str:
    return f"room for {count} address{'' if count == 1 else 'es'}"


def lacks_ingress(observed: Observed) -> bool:
    """Return whether the Swarm has no routing mesh. An engine always lists a network: an empty list says nothing."""
    return bool(observed.networks) and not any(
        network.is_ingress and not network.is_remnant for network in observed.networks
    )
