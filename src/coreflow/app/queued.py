"""Standard error without waiting: a queue, and a thread that writes it out.

A write to a pipe that its reader no longer empties, a terminal that was stopped with Ctrl-S, or a disk that hangs may
never end, and would stop a daemon. So a thread writes from a bounded queue, and below Python's buffers, whose locks would
keep the process from ending. What does not fit is dropped, the oldest first; how much that was is written as soon as there
is room again.
"""

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

MOST_BYTES = 1024 * 1024
"""What may wait to be written."""
GOODBYE_SECONDS = 1.0
"""How long the end of a process waits for what is still to be written."""
_PIECE_BYTES = 16 * 1024
"""What is written at once, about."""
_PAUSE_SECONDS = 1.0
"""After a failure, such as that of a full disk, before anything is tried again."""


class QueuedStream:
    """A text stream on a file descriptor, whose writes neither wait nor fail. `notice` makes the text that says how many
    lines were dropped."""

    def __init__(self, stream: TextIO, notice: Callable[[int], str], *, most_bytes: int = MOST_BYTES) -> None:
        self._stream, self._notice, self._most_bytes = stream, notice, most_bytes
        self._descriptor = stream.fileno()
        self._news = threading.Condition()
        self._texts: deque[bytes] = deque()
        self._size = self._dropped = 0
        self._is_writing = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Take a text; always its length."""
        data = text.encode(self._stream.encoding or "utf-8", self._stream.errors or "backslashreplace")
        with self._news:
            self._texts.append(data)
            self._size += len(data)
            while self._size > self._most_bytes and self._texts:
                self._drop(self._texts.popleft())
            self._news.notify()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def close(self, seconds: float = GOODBYE_SECONDS) -> None:
        """Wait a moment for what is still to be written. What is written later is lost."""
        with self._news:
            self._is_closed = True
            self._news.notify()
        self._thread.join(seconds)

    def _drop(self, data: bytes) -> None:
        self._size -= len(data)
        self._dropped += data.count(b"\n")

    def _run(self) -> None:
        while (piece := self._next()) is not None:
            data, lines = piece
            try:
                while data:
                    data = data[self._write(data) :]
            except (OSError, ValueError):
                with self._news:
                    self._dropped += lines or data.count(b"\n")
                    self._news.wait_for(lambda: self._is_closed, _PAUSE_SECONDS)

    def _next(self) -> tuple[bytes, int] | None:
        """Return what to write next, and of how many lost lines it tells; None at the end. They are older than what waits."""
        with self._news:
            self._news.wait_for(lambda: self._texts or self._is_closed)
            if not self._texts:
                return None
            if self._dropped:
                lines, self._dropped = self._dropped, 0
                return self._notice(lines).encode(errors="backslashreplace"), lines
            pieces: list[bytes] = []
            while self._texts and sum(map(len, pieces)) < _PIECE_BYTES:
                pieces.append(self._texts.popleft())
            self._size -= sum(map(len, pieces))
            return b"".join(pieces), 0

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody else made it so; waiting is what this thread is for
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


@contextmanager
def unwaited(notice: Callable[[int], str]) -> Iterator[None]:
    """Let nobody wait for standard error, as long as the block lasts. Where it is no file, nothing changes."""
    before = sys.stderr
    queued: QueuedStream | None = None
    with suppress(OSError, AttributeError):
        before.flush()
        queued = QueuedStream(before, notice)
        sys.stderr = cast(TextIO, queued)
    try:
        yield
    finally:
        if queued is not None:
            queued.close()
            sys.stderr = before
