"""Streams that a process is given: standard streams that may be closed, full or unread, and a terminal of any size.

Work that was begun goes on although nobody can read about it: a restore must not stop half-way because of a full disk
under its output. What could not be written is said at the end, and is the exit status then.
"""

import codecs
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from rich.console import Console

LEAST_COLUMNS, MOST_COLUMNS = 20, 500
"""Narrower than this every word breaks; wider, and somebody means "do not wrap": libraries fill lines with blanks."""
MOST_LINES = 1000
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_PLAIN = {"✓": "+", "✗": "x", "·": ".", "…": "..."}
"""What a stream gets whose encoding has no such characters."""


def clean(text: str) -> str:
    """`text` on one line, without anything that a terminal would obey, or that shows it in another order."""
    return (text if text.isprintable() else "".join(map(_harmless, text))).strip()


def json_text(document: object, *, indent: int | None = None) -> str:
    """JSON that standard output can encode, and that a terminal shows as it is."""
    is_unicode = str(sys.stdout.encoding).lower().startswith("utf")
    text = json.dumps(document, ensure_ascii=not is_unicode, indent=indent)
    return text if text.isascii() else "".join(map(_json_harmless, text))


def _json_harmless(character: str) -> str:
    return character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]


def _harmless(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    escaped = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in bad)
    return "".join(escaped), error.end


codecs.register_error("coreflow", _replace)


class Stream:
    """A text stream whose writes never fail. What went wrong is kept in `error`.

    One that `gives_up` drops everything after a failure; the other tries each time: a disk does not stay full for ever.
    """

    def __init__(self, stream: TextIO, *, gives_up: bool) -> None:
        self._stream, self._gives_up = stream, gives_up
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as much as is possible; always the length of the text."""
        with self._tolerant():
            if self.error is None or not self._gives_up:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with self._tolerant():
            if self.error is None or not self._gives_up:
                self._stream.flush()

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            self.error = self.error or exc
        except ValueError as exc:  # somebody closed it
            self.error = self.error or OSError(str(exc))

    def close(self) -> None:
        """Flush for the last time. What cannot be written must not be tried again, loudly, when Python ends."""
        self.error = None if not self._gives_up else self.error
        self.flush()
        if self.error is not None:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def owned() -> Iterator[Stream]:
    """Own the standard streams for the length of the block; the one for results."""
    before = sys.stdout, sys.stderr
    for stream in before:
        with suppress(AttributeError):  # whoever replaced it knows what it can write
            stream.reconfigure(errors="coreflow")  # type: ignore[union-attr]
    results, errors = Stream(sys.stdout, gives_up=True), Stream(sys.stderr, gives_up=False)
    sys.stdout, sys.stderr = cast(TextIO, results), cast(TextIO, errors)
    try:
        yield results
    finally:
        results.close()
        errors.close()
        sys.stdout, sys.stderr = before


def status_after(results: Stream, status: int) -> int:
    """The exit status of a command that ended with `status`, if its results could be written; if not, that is said."""
    results.flush()
    match results.error:
        case None:
            return status
        case BrokenPipeError():  # whoever read has seen enough
            return status or 128 + signal.SIGPIPE
        case error:
            sys.stderr.write(f"error: standard output cannot be written: {error.strerror or error}\n")
            return status or 1


def tame(environ: MutableMapping[str, str]) -> None:
    """Correct the size of the terminal in an environment, where it is none that text can be laid out in."""
    for name, least, most, real in (
        ("COLUMNS", LEAST_COLUMNS, MOST_COLUMNS, _columns()),
        ("LINES", 1, MOST_LINES, 0),
    ):
        text = environ.pop(name, "")
        asked = int(text) if _NUMBER.fullmatch(text) else 0
        wanted = asked or real
        within = min(max(wanted, least), most)
        if wanted and (asked or within != real):
            environ[name] = str(within)


def _columns() -> int:
    """The columns of the terminal; 0 where there is none, or where it does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 0


def console_for(stream: TextIO | None = None) -> Console:
    """A console on standard output, or on `stream`. FORCE_COLOR asks for colours, not for the ways of a terminal."""
    is_terminal = (stream or sys.stdout).isatty()
    forced = bool(os.environ.get("FORCE_COLOR"))
    return Console(
        file=stream,
        highlight=False,
        force_terminal=is_terminal,
        color_system="auto" if is_terminal or not forced else "standard",
    )


def has_colours(stream: TextIO) -> bool:
    """Return whether what is written there may have colours."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
