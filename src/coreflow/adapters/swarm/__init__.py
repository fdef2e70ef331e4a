"""What every Swarm engine has in common: its API in Python terms, its documents, and the Docker port on top of both.

`engine` is the narrow interface of an engine, in the engine's own JSON. `wire` translates specs to that JSON and back.
`port` implements the domain's Docker port over any engine: the real one (`coreflow.adapters.docker`) and the one in
memory (`coreflow.adapters.memory`) share all of it, so that the tests with the one speak for the other.
"""
