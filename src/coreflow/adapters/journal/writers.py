"""The writers of the journal: several processes may write it, and whoever has died left actions that nobody will end.

A process that writes holds a lock on a file of its own beside the journal, which the kernel releases however it ends. So a
writer whose file can be locked, or is not there, is dead; ids of processes say nothing across containers.
"""

import fcntl
import os
import uuid
from contextlib import suppress
from pathlib import Path

_SUFFIX = ".lock"


def _file_of(folder: Path, writer: str) -> Path:
    return folder / f"journal-{writer}{_SUFFIX}"


class Writer:
    """A process as a writer, until it is closed, whether it can write just now or not."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, too, if it does not exist. Raises OSError where that, or the file, cannot be made."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self.name = uuid.uuid4().hex[:12]
        self._path = _file_of(folder, self.name)
        self._descriptor = self._locked()

    def _locked(self) -> int:
        """The file, locked, and still there: before it is locked, others take it for one of the dead."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the lock."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def is_dead(folder: Path, writer: str, *, remove: bool = False) -> bool:
    """Say whether a writer has ended, as far as can be seen; with `remove`, take away what it left beside the journal."""
    path = _file_of(folder, writer)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if remove:
            with suppress(OSError):
                path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_dead(folder: Path) -> None:
    """Remove what dead writers left beside the journal."""
    for path in folder.glob(f"journal-*{_SUFFIX}"):
        is_dead(folder, path.name.removeprefix("journal-").removesuffix(_SUFFIX), remove=True)
