"""The domain's Docker port over any engine of `coreflow.adapters.engine`.

`to_engine` translates specs to the engine's JSON, `from_engine` its documents to what was observed, `errors` says what its
errors mean, `port` does the rest. The real engine and the one in memory share all of it, so that the tests with the one
speak for the other.
"""
