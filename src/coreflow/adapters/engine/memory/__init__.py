"""A small Swarm in memory, behind the same `Engine` protocol as a real one."""

from .engine import Behaviour, Fault, MemoryEngine, Node, Registry

__all__ = ["Behaviour", "Fault", "MemoryEngine", "Node", "Registry"]
