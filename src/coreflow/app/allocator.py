"""Settings of the C library's allocator: memory that nobody needs any longer is given back, where that can be asked for."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""From glibc's malloc.h."""
_KEPT_BYTES = 128 * 1024


def give_back() -> None:
    """Have what is freed go back to the system: a process lives for months, and needs much only while records change.

    By itself glibc has a heap for each thread, and keeps ever more after a large document. Other libraries cannot be told,
    and need not be.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, 1)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
