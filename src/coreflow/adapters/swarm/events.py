"""Events of the engine that are about us: those of our services and their containers, of our secrets, networks, and nodes.

An engine tells of everything that happens on it: of containers that others start by the minute, of every process that a
health check starts, of networks that containers join and leave. None of that changes what a pass would find.
"""

from collections.abc import Collection
from typing import Final

from coreflow.adapters.engine.protocol import Document
from coreflow.domain.swarm.naming import NETWORKS

SERVICE_ID: Final = "com.docker.swarm.service.id"
_CONTAINER_ACTIONS: Final = frozenset({"start", "die", "oom"})
"""Others come with these, before or after them."""
_HEALTH: Final = "health_status"
_NETWORK_ACTIONS: Final = frozenset({"create", "remove", "destroy"})


def subject_of_event(event: Document, services: Collection[str], secrets: Collection[str]) -> str | None:
    """Return what an event is about, in a word that differs between subjects; None if it is nothing to us.

    `services` and `secrets` are the ids of ours, as far as they are known. A service that is new may be anybody's.
    """
    kind, action = str(event.get("Type", "")), str(event.get("Action", ""))
    actor = event.get("Actor") or {}
    identity, attributes = str(actor.get("ID", "")), actor.get("Attributes") or {}
    name, ours = str(attributes.get("name", "")), identity in services
    match kind:
        case "container":
            service = str(attributes.get(SERVICE_ID, ""))
            counts = action in _CONTAINER_ACTIONS or action.startswith(_HEALTH)
            return f"service {service}" if counts and service in services else None
        case "service":
            if ours:
                return f"service {identity}"
            return f"service {name}" if action != "update" else None
        case "secret":
            return f"secret {name}" if identity in secrets or action == "create" else None
        case "network":
            return f"network {name}" if action in _NETWORK_ACTIONS and name in NETWORKS else None
        case "node":
            return f"node {identity}"
        case _:
            return None
