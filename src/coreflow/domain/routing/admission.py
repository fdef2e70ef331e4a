"""Admission of connections as coretraffic: they receive the routes, and with them the private keys of certificates.

Anybody on a network of ours can connect. What a connection says about itself counts for nothing; its address decides: it
lies in a network that the operator trusts, or it is that of a task of coretraffic, which may still be starting.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from attrs import frozen

from coreflow.domain.ids import BASE, ClusterId
from coreflow.domain.swarm.naming import CORETRAFFIC
from coreflow.domain.swarm.observed import ObservedService, ObservedTask

from .routes import RUNNING

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Admission(Enum):
    """The decision about a connection."""

    PROXY = "proxy"
    """It may have the tag of coretraffic."""
    STRANGER = "stranger"
    """It may have any other."""
    OPEN = "open"
    """It is the coretraffic of some cluster, and which cluster is ours is not known yet."""


@frozen
class ProxyTasks:
    """The tasks of coretraffic services, which a Swarm has one of for each cluster."""

    clusters: Mapping[Address, frozenset[str]]
    """By the addresses of tasks, the clusters whose they are."""


NO_PROXIES = ProxyTasks({})


def proxy_tasks(services: Iterable[ObservedService], tasks: Iterable[ObservedTask]) -> ProxyTasks:
    """Find the tasks of coretraffic among all that there are; one that is to be stopped is none any more."""
    clusters = {s.id: s.cluster for s in services if s.name == CORETRAFFIC and s.owner == BASE}
    found: dict[Address, frozenset[str]] = {}
    for task in tasks:
        if task.service_id not in clusters or task.desired_state != RUNNING:
            continue
        for text in task.addresses.values():
            if (address := address_of(text)) is not None:
                found[address] = found.get(address, frozenset()) | {clusters[task.service_id]}
    return ProxyTasks(found)


def runs_proxy(
    cluster: ClusterId, services: Iterable[ObservedService], tasks: Iterable[ObservedTask]
) -> bool:
    """Return whether a task of the cluster's coretraffic runs."""
    ids = {s.id for s in services if s.name == CORETRAFFIC and s.owner == BASE and s.cluster == cluster}
    return any(task.is_running and task.service_id in ids for task in tasks)


def admit(host: str, trusted: ProxyTasks | Iterable[Network], cluster: str | None) -> Admission:
    """Decide about a connection from an address. `cluster` is ours, by the records; None as long as nobody has read them.

    Networks are trusted whatever the cluster: the operator has named them. An address that several clusters use is
    that of a proxy of each of them.
    """
    address = address_of(host)
    if address is None:
        return Admission.STRANGER
    if not isinstance(trusted, ProxyTasks):
        return Admission.PROXY if any(address in network for network in trusted) else Admission.STRANGER
    clusters = trusted.clusters.get(address)
    if clusters is None:
        return Admission.STRANGER
    if cluster is None:
        return Admission.OPEN
    return Admission.PROXY if cluster in clusters else Admission.STRANGER


def may_have(admission: Admission, tag: str) -> bool:
    """Say whether a connection may have a tag: any but that of coretraffic, or any."""
    return admission is Admission.PROXY or tag != CORETRAFFIC


def address_of(host: str) -> Address | None:
    """An address as it was before a server for both kinds of addresses took it; None for a text that is none."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
