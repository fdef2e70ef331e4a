"""A small Swarm in memory, behind the same `Engine` protocol as a real one.

It keeps what decides about a reconciler: version indexes and lost races, previous specs, roll-outs with roll-back,
immutable secrets in use, name conflicts, modes that cannot change, addresses that run out, tasks on several nodes with
their errors, registries with logins and digests, events. The contract suite in `tests/integration` runs on it and on real
engines.

Time is an argument: a clock (trio's by default, so that it follows a mock clock), and `advance` for tests without one.
Nothing happens between calls; every call first lets happen what is due.

It also takes faults: an error before a call or after its effect, a list that is one call old, events lost or duplicate, and
a crash after a number of writes (`crash_after`), until `revive`.

Each module is a room that knows only those before it: `conditions` (what tests arrange), `world` (time, versions, events),
`store` (what the managers keep), `images`, `networks`, `secrets`, `addresses`, `placement` (the scheduler), `agent` (a task's
life), `tasks` (the orchestrator), `roll_outs` (the updater), `services`, `engine`. `echo` and `containers` are pure: what an
engine makes of a document, what a node makes of a container.
"""

from .conditions import Behaviour, Fault, Registry
from .engine import MemoryEngine
from .nodes import Node

__all__ = ["Behaviour", "Fault", "MemoryEngine", "Node", "Registry"]
