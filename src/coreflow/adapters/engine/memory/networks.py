"""Networks: names, subnets, and what is left of those that were removed."""

import ipaddress
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from coreflow.adapters.engine.protocol import Document, EngineError

from . import echo
from .conditions import Conditions
from .store import Store, same_name
from .world import World

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_BLANK_IPAM: Document = {"Driver": "", "Options": None, "Config": None}


class Networks:
    """Those of the Swarm and of the engine's node."""

    def __init__(self, conditions: Conditions, world: World, store: Store) -> None:
        self._conditions, self._world, self._store = conditions, world, store
        self._going: dict[str, Document] = {}
        self._made_at: dict[str, float] = {}

    def swarm_wide_id(self, name: str) -> str:
        """The id of a network that services can use, by id or name. Raises EngineError."""
        for document in self._store.networks.values():
            if name in {document["Id"], document["Name"]}:
                if document["Scope"] != "swarm":
                    raise EngineError(
                        403,
                        f"The network {name} cannot be used with services. Only networks scoped to the swarm can be used",
                    )
                identity: str = document["Id"]
                return identity
        raise EngineError(500, f"network {name} not found")

    def joined(self, name: str) -> str:
        """The id of a network that a service joins. Raises EngineError."""
        identity = self.swarm_wide_id(name)
        network = self._store.networks[identity]
        if network["Ingress"]:
            text = f'Service cannot be explicitly attached to the ingress network "{network["Name"]}"'
            raise echo.invalid(text)
        return identity

    @property
    def has_ingress(self) -> bool:
        """Return whether the Swarm has a routing mesh."""
        return any(network["Ingress"] for network in self._store.networks.values())

    def listed(self) -> list[Document]:
        """All of them, as the engine's list shows them."""
        return [*map(self._listed, self._store.networks.values()), *self._remnants()]

    def _listed(self, document: Document) -> Document:
        """A network as the list shows it: for a moment without what Swarm has yet to find for it."""
        made = self._made_at.get(document["Id"])
        if (
            document["Scope"] != "swarm"
            or made is None
            or self._world.now >= made + self._conditions.network_seconds
        ):
            return document
        return {**document, "Driver": "", "IPAM": dict(_BLANK_IPAM)}

    def _remnants(self) -> list[Document]:
        """Networks that were removed while a container on them has yet to end: a node's view, with containers."""
        used = {
            network
            for task in self._store.tasks.values()
            if task.holds_addresses
            for network in task.networks
        }
        self._going = {identity: document for identity, document in self._going.items() if identity in used}
        return [{**document, "Containers": {}} for document in self._going.values()]

    def create(self, config: Mapping[str, Any]) -> str:
        """`POST /networks/create`. Returns the id."""
        name = config["Name"]
        is_overlay = config.get("Driver") == "overlay"
        self._check_name(name, is_overlay=is_overlay)
        wanted = ((config.get("IPAM") or {}).get("Config") or [{}])[0].get("Subnet")
        taken = [
            ipaddress.ip_network(s, strict=False)
            for document in self._store.networks.values()
            for s in subnets(document)
        ]
        if wanted is None:
            wanted = next(s for n in itertools.count(1) if _is_free(s := f"10.0.{n}.0/24", taken))
        if _is_free(wanted, taken):
            identity = self.make(config, scope="swarm" if is_overlay else "local", subnet=wanted)
            self._made_at[identity] = self._world.now
        else:  # made all the same, and useless
            identity = self.make({**config, "Driver": ""}, scope="swarm", subnet=None)
            self._store.networks[identity]["IPAM"] = dict(_BLANK_IPAM)
        self._world.emit("network", "create", identity, name)
        return identity

    def _check_name(self, name: str, *, is_overlay: bool) -> None:
        if any(document["Name"] == name for document in (*self._store.networks.values(), *self._remnants())):
            raise EngineError(409, f"network with name {name} already exists")
        swarm_wide = [d["Name"] for d in self._store.networks.values() if d["Scope"] == "swarm"]
        if is_overlay and any(same_name(other, name) for other in swarm_wide):
            raise EngineError(500, "rpc error: code = Unknown desc = name conflicts with an existing object")

    def make(self, config: Mapping[str, Any], *, scope: str, subnet: str | None) -> str:
        """Put a network there, without a question. Returns its id."""
        identity = self._world.new_id("network")
        self._store.networks[identity] = {
            "Id": identity,
            "Name": config["Name"],
            "Created": self._world.stamp(),
            "Scope": scope,
            "Driver": config.get("Driver", "bridge"),
            "Attachable": bool(config.get("Attachable")),
            "Ingress": bool(config.get("Ingress")),
            "Internal": bool(config.get("Internal")),
            "Options": dict(config.get("Options") or {}),
            "Labels": dict(config.get("Labels") or {}),
            "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet}] if subnet else []},
        }
        return identity

    def remove(self, identity: str) -> None:
        """`DELETE /networks/{id}`."""
        if identity not in {i for d in self._store.networks.values() for i in (d["Id"], d["Name"])}:
            raise EngineError(404, f"network {identity} not found")
        network = self.swarm_wide_id(identity)
        for document in self._store.services.values():
            if any(n["Target"] == network for n in document["Spec"]["TaskTemplate"].get("Networks") or ()):
                raise EngineError(
                    400,
                    f"rpc error: code = FailedPrecondition desc = network {network} is in use by service {document['ID']}",
                )
        task = next((t for t in self._store.tasks.values() if network in t.networks and t.is_active), None)
        if task is not None:
            raise EngineError(
                400,
                f"rpc error: code = FailedPrecondition desc = network {network} is in use by task {task.id}",
            )
        self._going[network] = self._store.networks.pop(network)
        self._world.emit("network", "remove", network, self._going[network]["Name"])


def _is_free(subnet: str, taken: Iterable[Network]) -> bool:
    mine = ipaddress.ip_network(subnet, strict=False)
    return not any(mine.overlaps(other) for other in taken)


def subnets(network: Document) -> Iterator[str]:
    """The subnets of a network, as texts."""
    for config in network["IPAM"]["Config"] or ():
        yield config["Subnet"]
