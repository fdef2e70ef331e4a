"""Addresses on overlay networks, which run out: each task takes one, and each service and each node."""

import ipaddress
import itertools

from coreflow.adapters.engine.protocol import Document

from .networks import subnets
from .store import Store, Task


class Addresses:
    """The addresses, and who has them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def attach_node(self, task: Task) -> bool:
        """Give a task's node an address on each of the task's networks, if it has none there yet and there is one left."""
        if not task.node_is_attached:
            node = task.document["NodeID"]
            for network in task.networks:
                attached = any(
                    other.node_is_attached and network in other.networks and other.document["NodeID"] == node
                    for other in self._store.tasks.values()
                )
                if not attached and self._used(network) >= self._capacity(self._store.networks[network]):
                    return False
            task.node_is_attached = True
        return True

    def take(self, task: Task) -> bool:
        """Give a task an address on each of its networks, if every one has any left."""
        if task.holds_addresses:
            return True
        if any(
            self._used(network) >= self._capacity(self._store.networks[network]) for network in task.networks
        ):
            return False
        attachments = []
        for network in task.networks:
            document = self._store.networks[network]
            subnet = ipaddress.ip_network(document["IPAM"]["Config"][0]["Subnet"])
            taken = {
                address.partition("/")[0]
                for other in self._store.tasks.values()
                if other.holds_addresses
                for attachment in other.document.get("NetworksAttachments") or ()
                if attachment["Network"]["ID"] == network
                for address in attachment["Addresses"]
            }
            host = next(str(h) for h in itertools.islice(subnet.hosts(), 1, None) if str(h) not in taken)
            attachments.append(
                {
                    "Network": {"ID": network, "Spec": {"Name": document["Name"]}},
                    "Addresses": [f"{host}/{subnet.prefixlen}"],
                }
            )
        task.document["NetworksAttachments"] = attachments
        task.holds_addresses = True
        return True

    def _used(self, network: str) -> int:
        holders = [
            task for task in self._store.tasks.values() if task.holds_addresses and network in task.networks
        ]
        tasks = len(holders) + len({task.document["NodeID"] for task in holders if task.node_is_attached})
        virtual = sum(
            (document["Spec"].get("EndpointSpec") or {}).get("Mode", "vip") == "vip"
            and any(n["Target"] == network for n in document["Spec"]["TaskTemplate"].get("Networks") or ())
            for document in self._store.services.values()
        )
        return int(tasks + virtual)

    def _capacity(self, network: Document) -> int:
        """Addresses for tasks, services and nodes: not the gateway, not the first and the last one."""
        return sum(int(ipaddress.ip_network(s, strict=False).num_addresses) - 3 for s in subnets(network))
