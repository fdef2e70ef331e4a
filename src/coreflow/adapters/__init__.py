"""Everything that can block, fail or surprise."""
