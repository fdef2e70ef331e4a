"""Cloudly on the network, over TypedSocket. Start at `NetworkCloudly`; names and certainties are in `methods`."""

from typing import TYPE_CHECKING, Any

from coreflow._moved import renamed

from .link import LinkOptions, RetryPolicy
from .port import ImageLimits, NetworkCloudly

__all__ = ["ImageLimits", "LinkOptions", "NetworkCloudly", "RetryPolicy"]

if not TYPE_CHECKING:  # a type checker shall miss names that are not there

    def __getattr__(name: str) -> Any:
        return renamed(name, globals())
