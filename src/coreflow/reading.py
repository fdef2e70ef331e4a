"""Reading a file whose path somebody gave us: it may be anything that a path can lead to.

A named pipe would be waited for and a device would never end, so neither is read. A hung file system cannot be told from a
slow disk: who must not wait for it reads in a thread that can be abandoned.
"""

import errno
import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1024 * 1024
SMALL_FILE = 16 * MIB
"""Bytes of a file of settings, of a secret, or of certificates; the largest that are usual have a quarter of one MiB."""
PIPE_SECONDS = 60.0
"""How long the command that writes into a pipe may say nothing."""
_NULL_DEVICE = os.makedev(1, 3)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_file(path: Path, limit: int = SMALL_FILE, read: Callable[[int, int], bytes] = os.read) -> bytes:
    """The bytes of a file, or of what a command writes into a pipe (`<(command)` in a shell, `/dev/stdin`).

    Raises OSError, with a reason in `strerror` that is fit to be told: not a file, more than `limit` bytes, changed
    while it was read, or what the system says.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor)
        _check_kind(path, before)
        data = _read_all(descriptor, limit, read)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if stat.S_ISREG(after.st_mode) and (before.st_mtime_ns, before.st_size) != (
        after.st_mtime_ns,
        after.st_size,
    ):
        raise OSError(errno.EBUSY, "it is being written")
    return data


def _wrong_kind(status: os.stat_result) -> str | None:
    """Return what this is, where it can be told that it is no file and no folder."""
    if (
        stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE
    ):  # in the place of a file, it is an empty one
        return None
    return next((name for test, name in _KINDS if test(status.st_mode)), None)


def _check_kind(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    kind = _wrong_kind(status)
    if kind is None or (stat.S_ISFIFO(status.st_mode) and not os.path.lexists(os.path.realpath(path))):
        return  # a pipe without a name belongs to a command that was begun for us
    raise OSError(errno.EINVAL, f"it is {kind}, not a file")


def _read_all(descriptor: int, limit: int, read: Callable[[int, int], bytes]) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := _next(descriptor, read):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit // MIB} MiB")
    return b"".join(pieces)


def _next(descriptor: int, read: Callable[[int, int], bytes]) -> bytes:
    """The next piece; empty at the end. A pipe may have to be waited for."""
    deadline = time.monotonic() + PIPE_SECONDS
    while True:
        try:
            return read(descriptor, MIB)
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            left = max(deadline - time.monotonic(), 0.0)
            if not poll.poll(left * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"nothing came for {PIPE_SECONDS:g} s") from None
