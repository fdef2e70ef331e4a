"""The far sides in memory: for tests, for embedding, and for `coreflow demo`."""
