"""The peers in memory: for tests, for embedding, and for `coreflow demo`."""

from coreflow.adapters.engine.memory import Behaviour, Fault, MemoryEngine, Node, Registry

from .cloudly import MemoryCloudly
from .corestore import MemoryCorestore
from .coretraffic import MemoryCoretraffic
from .gateway import MemoryGateway

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
