"""Checks of the base networks that exist already."""

from coreflow.domain.ids import ClusterId
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.naming import NETWORKS
from coreflow.domain.swarm.observed import Observed
from coreflow.domain.swarm.specs import NetworkSpec

from .base import render_networks

_FOREIGN = "exists and is not a Swarm overlay network: rename or remove it"
_USELESS = "has no addresses, since Swarm found its range taken by another network: remove it"


def base_networks(observed: Observed, cluster: ClusterId) -> tuple[tuple[NetworkSpec, ...], tuple[str, ...]]:
    """The base networks, and what makes one that exists already unusable."""
    existing = {n.name: n for n in observed.networks if n.name in NETWORKS and not n.is_remnant}
    problems = [
        f"network {name} {_USELESS if network.scope == 'swarm' and not network.driver else _FOREIGN}"
        for name, network in sorted(existing.items())
        if not network.is_new and (network.driver != "overlay" or network.scope != "swarm")
    ]
    wanted = {naming.folded(name): name for name in NETWORKS}
    problems += [
        f"network {network.name} exists, and Swarm knows no case in names: it stands for {wanted[same]}; rename or remove it"
        for network in observed.networks
        if network.scope == "swarm" and network.name not in NETWORKS
        for same in (naming.folded(network.name),)
        if same in wanted and not network.is_remnant
    ]
    taken = [subnet for network in observed.networks for subnet in network.subnets]
    return render_networks(taken, cluster), tuple(problems)
