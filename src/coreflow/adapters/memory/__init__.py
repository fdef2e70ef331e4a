"""The far sides in memory: for tests, for embedding, and for `coreflow demo`."""

from .cloudly import MemoryCloudly
from .corestore import MemoryCorestore
from .coretraffic import MemoryCoretraffic
from .gateway import MemoryGateway
from .swarm import Behaviour, Fault, MemoryEngine, Node, Registry

__all__ = [
    "Behaviour",
    "Fault",
    "MemoryCloudly",
    "MemoryCorestore",
    "MemoryCoretraffic",
    "MemoryEngine",
    "MemoryGateway",
    "Node",
    "Registry",
]
