"""No garbage collection while a large cluster is rendered: it would look at every record again and again, for nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 1000
"""So many services that it pays."""


@contextmanager
def quiet(services: int) -> Iterator[None]:
    """Pause collection for the block, where there are many services and it was not paused already."""
    if services < LARGE or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
