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
