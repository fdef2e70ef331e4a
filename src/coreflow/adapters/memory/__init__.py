"""The far sides in memory: for tests, for embedding, and for `coreflow demo`."""

from .cloudly import MemoryCloudly
from .swarm import Behaviour, Fault, MemoryEngine, Node, Registry

__all__ = ["Behaviour", "Fault", "MemoryCloudly", "MemoryEngine", "Node", "Registry"]
