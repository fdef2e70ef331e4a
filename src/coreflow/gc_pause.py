"""No garbage collection while a large document is read or a large cluster rendered.

The collector would look at every record again and again, for nothing: they all live on.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

LARGE_DOCUMENT = 1_000_000
"""Bytes from which it pays."""
LARGE_CLUSTER = 1000
"""Services from which it pays."""


@contextmanager
def gc_paused(*, enabled: bool) -> Iterator[None]:
    """Pause the collector for the block, unless it rests anyway. This is for the whole process: only for a moment."""
    if not (enabled and gc.isenabled()):
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
