"""The domain's Docker port over any engine of `coreflow.adapters.engine`.

`wire` translates specs to the engine's JSON and back, `errors` says what its errors mean, `port` does the rest. The real
engine and the one in memory share all of it, so that the tests with the one speak for the other.
"""
