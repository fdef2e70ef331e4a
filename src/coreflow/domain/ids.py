"""Names for the strings that identify things, so that a type checker keeps them apart."""

from typing import NewType

BundleId = NewType("BundleId", str)
ClusterId = NewType("ClusterId", str)
GroupId = NewType("GroupId", str)
Hostname = NewType("Hostname", str)
ImageId = NewType("ImageId", str)
NodeId = NewType("NodeId", str)
Owner = NewType("Owner", str)
"""Who an object belongs to: the id of a service record, or `BASE`. The unit of holding, failing and blocking."""
RegistryId = NewType("RegistryId", str)
ServiceId = NewType("ServiceId", str)

BASE = Owner("base")

ID_LIMIT = 255
"""Characters; an id becomes a label of everything that is made for it."""


def id_problem(text: str, *, of_service: bool = False) -> str | None:
    """Return why this cannot be an id, or None: it marks what is ours, so it must be there, readable and nobody else's.

    The owner `base` is coreflow's own, as is everything that begins with `base/` (see `desired.Unit`).
    """
    if not text.strip():
        return "is empty"
    if not text.isprintable():
        return "has a character that cannot be printed"
    if len(text) > ID_LIMIT:
        return f"has more than {ID_LIMIT} characters"
    if of_service and (text == BASE or text.startswith(f"{BASE}/")):
        return f"belongs to the base services: an id is not {BASE} and does not begin with {BASE}/"
    return None
