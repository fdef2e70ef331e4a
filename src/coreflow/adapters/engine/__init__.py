"""The part of Docker's API that we use, as a library of its own: it knows neither the domain nor another adapter.

`protocol` is the narrow interface of an engine, in the engine's own JSON. `client` is a real engine, through the docker SDK;
`memory` is a small Swarm in memory.
"""

from .protocol import Document, Engine, EngineError, EngineTimeout, EngineUnreachable

__all__ = ["Document", "Engine", "EngineError", "EngineTimeout", "EngineUnreachable"]
