"""Cloudly on the network, over TypedSocket. Start at `NetworkCloudly`; names and certainties are in `methods`."""

from .link import LinkOptions, Pace
from .port import ImageLimits, NetworkCloudly

__all__ = ["ImageLimits", "LinkOptions", "NetworkCloudly", "Pace"]
