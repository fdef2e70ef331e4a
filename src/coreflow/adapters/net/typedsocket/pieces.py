"""Long JSON, read in pieces: whoever shares the interpreter gets a turn between them.

A JSON library reads a document in one call, in which no other thread runs: a second for 100 MB. Here the document is cut
where lists and objects have their commas, and each piece is read for itself. What is cut is only what is longer than a
piece, so most of the work stays with the library. For a thread; it takes some two to four times as long as one call.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

PIECE_BYTES = 256 * 1024
TEXT_LIMIT = 16 * 1024 * 1024
"""Bytes of one text, which cannot be cut."""
DEPTH_LIMIT = 64
"""Levels of lists and objects that are longer than a piece."""

_LEVELS = 5
"""Levels within an element that are passed in one go."""


def _nested(levels: int) -> bytes:
    """A pattern for a list or object with so many levels below; brackets need not be of one kind: pieces are read."""
    inner = rb"" if levels == 0 else b"|" + _nested(levels - 1)
    return rb'[\[{](?:[^"\[\]{}]++|%b%b)*+[\]}]' % (_TEXT_PATTERN, inner)


_TEXT_PATTERN, _SCALAR_PATTERN = rb'"(?:[^"\\]++|\\.)*+"', rb'[^",:\[\]{}\s]++'
_SPACE_PATTERN = rb"[ \t\n\r]*+"
_VALUE_PATTERN = rb"(?:%b|%b|%b)" % (_SCALAR_PATTERN, _TEXT_PATTERN, _nested(_LEVELS))
_SPACE = re.compile(_SPACE_PATTERN)
_TEXT_PART = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SCALAR = re.compile(_SCALAR_PATTERN)
_NO_BRACKETS = re.compile(rb'(?:[^"\[\]{}]++|%b)*+' % _TEXT_PATTERN, re.DOTALL)
_COMMA_PATTERN = _SPACE_PATTERN + b"," + _SPACE_PATTERN
_ELEMENTS = re.compile(rb"(?:%b%b)++" % (_VALUE_PATTERN, _COMMA_PATTERN), re.DOTALL)
_MEMBERS = re.compile(
    rb"(?:%b%b:%b%b%b)++" % (_TEXT_PATTERN, _SPACE_PATTERN, _SPACE_PATTERN, _VALUE_PATTERN, _COMMA_PATTERN),
    re.DOTALL,
)
"""As many as there are with a comma behind each."""
_OPENING, _QUOTE, _COMMA, _COLON = b"[{", ord('"'), ord(","), ord(":")
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}


class CannotRead(ValueError):
    """It is not JSON, or beyond a limit; the message says which."""


def loads_in_pieces(data: bytes, piece: int = PIECE_BYTES, text_limit: int = TEXT_LIMIT) -> Any:
    """Read a document as `orjson.loads` does, in pieces of about so many bytes. Raises CannotRead."""
    try:
        return _Document(data, piece, text_limit).read()
    except orjson.JSONDecodeError as exc:
        nests = "limit" in exc.msg  # "depth limit exceeded", formerly "recursion limit reached"
        raise CannotRead("nests too deep" if nests else "is not JSON") from None
    except IndexError:
        raise CannotRead("is not JSON") from None


def steps(size: int, piece: int = PIECE_BYTES) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of the pieces of so many bytes."""
    return ((start, min(start + piece, size)) for start in range(0, size, piece))


class _Document:
    def __init__(self, data: bytes, piece: int, text_limit: int) -> None:
        self._data, self._piece, self._text_limit = data, piece, text_limit

    def read(self) -> Any:
        start = self._space(0)
        if len(self._data) - start <= self._piece or self._data[start] not in _OPENING:
            if self._data[start] == _QUOTE:
                self._end_of_text(start)
            return orjson.loads(self._data)
        value, end = self._cut(start, 0)
        if self._space(end) != len(self._data):
            raise CannotRead("is not JSON")
        return value

    def _cut(self, start: int, depth: int) -> tuple[Any, int]:
        """The list or object that begins here, read in pieces, and where it ends."""
        if depth >= DEPTH_LIMIT:
            raise CannotRead("nests too deep")
        parts = _List() if self._data[start] == ord("[") else _Object()
        closing, begin = _CLOSING[self._data[start]], self._space(start + 1)
        position = begin
        if self._data[position] == closing:
            return parts.found, position + 1
        while True:
            run = parts.run.match(self._data, position, position + self._piece)
            position = position if run is None else self._space(run.end())
            value_at = self._after_key(position) if isinstance(parts, _Object) else position
            end = self._end(value_at)
            if end is None:
                parts.add(self._data[begin:position].rstrip(b" \t\n\r")[:-1])
                value, end = self._cut(value_at, depth + 1)
                parts.add_one(self._data[position:value_at], value)
                begin = end
            position = self._space(end)
            if self._data[position] == closing:
                parts.add(self._data[begin:end])
                return parts.found, position + 1
            if self._data[position] != _COMMA:
                raise CannotRead("is not JSON")
            position = self._space(position + 1)
            if begin == end:
                begin = position
            elif end - begin >= self._piece:
                parts.add(self._data[begin:end])
                begin = position

    def _end(self, start: int) -> int | None:
        """Find where the value that begins here ends; None when it is a list or object that has to be cut."""
        first = self._data[start]
        if first in _OPENING:
            return self._end_of_short(start)
        if first == _QUOTE:
            return self._end_of_text(start)
        found = _SCALAR.match(self._data, start, start + self._text_limit)
        if found is None:
            raise CannotRead("is not JSON")
        return found.end()

    def _end_of_text(self, start: int) -> int:
        position = start + 1
        while self._data[position] != _QUOTE:
            found = _TEXT_PART.match(self._data, position, position + self._piece)
            if found is None or found.end() == position:
                raise CannotRead("is not JSON")
            position = found.end()
            if position - start > self._text_limit:
                raise CannotRead(f"has a text of more than {self._text_limit >> 20} MiB")
        return position + 1

    def _end_of_short(self, start: int) -> int | None:
        limit = start + self._piece
        position, depth = start, 0
        while True:
            found = _NO_BRACKETS.match(self._data, position, limit)
            position = position if found is None else found.end()
            if position >= limit or position >= len(self._data) or self._data[position] == _QUOTE:
                return None
            depth += 1 if self._data[position] in _OPENING else -1
            position += 1
            if depth == 0:
                return position

    def _after_key(self, start: int) -> int:
        if self._data[start] != _QUOTE:
            raise CannotRead("is not JSON")
        colon = self._space(self._end_of_text(start))
        if self._data[colon] != _COLON:
            raise CannotRead("is not JSON")
        return self._space(colon + 1)

    def _space(self, start: int) -> int:
        found = _SPACE.match(self._data, start)
        return start if found is None else found.end()


class _List:
    """A list that grows."""

    run = _ELEMENTS

    def __init__(self) -> None:
        self.found: list[Any] = []

    def add(self, elements: bytes) -> None:
        self.found += orjson.loads(b"[%b]" % elements)

    def add_one(self, _: bytes, value: Any) -> None:
        self.found.append(value)


class _Object:
    """An object that grows."""

    run = _MEMBERS

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add(self, members: bytes) -> None:
        self.found.update(orjson.loads(b"{%b}" % members))

    def add_one(self, key: bytes, value: Any) -> None:
        (name,) = orjson.loads(b"{%b0}" % key)
        self.found[name] = value
