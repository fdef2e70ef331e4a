"""Bytes -> a document: JSON or YAML, and where its values are.

Errors name the file and a line, never a piece of its content: a cluster file is full of secrets.

YAML is read from the parser's events rather than with PyYAML's constructor. That is four times as fast on a large
file, does not recurse in C (a file of nothing but brackets would end the process), knows the line of a key that occurs
twice, and leaves timestamps as the text that they are in JSON, too.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from sys import intern
from typing import Any, NoReturn

import orjson
import yaml

from coreflow.domain.errors import InvalidRecord, Problem
from coreflow.domain.records.converter import Unclear

DEPTH_LIMIT = 100
"""Mappings and lists inside each other; a cluster file needs about ten."""
ALIAS_LIMIT = 10_000_000
"""Values, and characters of texts, that aliases bring in: a few lines of aliases of aliases stand for any number."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


Lines = Callable[[], Mapping[str, int]]
"""Gives the lines of a document's values, by path."""


def parse(path: Path, data: bytes) -> tuple[object, Lines]:
    """The document in a file, as JSON or YAML by the file's suffix; without one, by looks. And where its values are.

    Raises InvalidRecord with the line of what is wrong.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if not data.strip():
        _refuse(path, 0, "the file is empty: perhaps it is being written")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return parse_json(path, data), partial(json_lines, data)
    lines = partial(yaml_lines, data)
    if suffix in {".yaml", ".yml"} or not data.lstrip().startswith(b"{"):
        return parse_yaml(path, data), lines
    try:
        return parse_json(path, data), partial(json_lines, data)
    except InvalidRecord as exc:
        problem = exc
    try:
        return parse_yaml(path, data), lines
    except InvalidRecord:
        raise problem from None


def _refuse(path: Path, line: int, text: str) -> NoReturn:
    """Raise InvalidRecord; `line` counts from 0, as parsers do."""
    raise InvalidRecord(Problem(f"{path}:{line + 1}", text))


def _check_encoding(path: Path, data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start)
    else:
        return
    _refuse(path, line, "this is not text in UTF-8")


def parse_json(path: Path, data: bytes) -> object:
    """The document in JSON text. Raises InvalidRecord with the line of what is wrong; `path` is for its text."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        line, reason = exc.lineno - 1, exc.msg
    else:
        _check_keys(path, data)
        return document
    _check_encoding(path, data)
    _refuse(path, line, f"this is not valid JSON ({reason})")


class _Duplicate(Exception):
    """A key occurs twice."""


def _once(pairs: list[tuple[str, object]]) -> None:
    if len(dict.fromkeys(key for key, _ in pairs)) < len(pairs):
        raise _Duplicate


def _check_keys(path: Path, data: bytes) -> None:
    """Refuse valid JSON in which a key occurs twice in its mapping: parsers silently take the last."""
    try:
        json.loads(data, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except _Duplicate:
        line = _line_of_duplicate(data.decode())
    except RecursionError:
        _refuse(path, 0, "too many mappings and lists inside each other")
    else:
        return
    _refuse(path, line, "this key occurs twice in its mapping")


_JSON_TOKEN = re.compile(r'[{}\[\]]|("(?:[^"\\]|\\.)*")(\s*:)?', re.DOTALL)


def _line_of_duplicate(text: str) -> int:
    """The line, from 0, of the first key in valid JSON that was there before in its mapping; 0 if there is none."""
    open_: list[set[str]] = [set()]
    for token in _JSON_TOKEN.finditer(text):
        if token[0] in {"{", "["}:
            open_.append(set())
        elif token[0] in {"}", "]"}:
            open_.pop()
        elif token[2] is not None:
            key = json.loads(token[1])
            if key in open_[-1]:
                return text.count("\n", 0, token.start())
            open_[-1].add(key)
    return 0


def parse_yaml(path: Path, data: bytes, base: type | None = None) -> object:
    """The one document in YAML text: mappings with keys of text, lists, text, numbers, true, false and null.

    Raises InvalidRecord with the line of what is wrong; `path` is for its text. `base` is PyYAML's loader: the one in C
    where there is one.
    """
    _check_encoding(path, data)
    loader: Any = base or getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _YamlReader(path, data, loader).document()
    except yaml.reader.ReaderError as exc:
        line, reason = data.count(b"\n", 0, exc.position), "a character that YAML does not allow"
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line if exc.problem_mark is not None else 0
        reason = exc.problem or ""
        if "'" in reason and not reason.startswith(_HARMLESS):
            reason = ""
    _refuse(path, line, f"this is not valid YAML ({reason})" if reason else "this is not valid YAML")


_HARMLESS = ("did not find expected ", "could not find expected ")
"""How messages begin whose quotes are the parser's own words; others may quote the file."""
_TAG = "tag:yaml.org,2002:"
_TEXT = frozenset({f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value", "!"})
_MERGE = object()
"""Stands for the key `<<`."""
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    "<<": _MERGE,
}
"""Plain scalars that are not text, besides numbers (source: YAML 1.2.2, 10.3.2, and merge keys of YAML 1.1)."""
_NUMBER = re.compile(
    r"(?P<zero>[-+]?0[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)|(?P<int>[-+]?[0-9]+)|0o(?P<oct>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
)
_NUMBERS: dict[str | None, Callable[[str], object]] = {
    "int": int,
    "oct": partial(int, base=8),
    "hex": partial(int, base=16),
    "float": float,
}
_STARTS = frozenset({*"0123456789+-.", *(word[:1] for word in _WORDS)})
"""What a plain scalar begins with that may be something else than text."""
_LEADING_ZERO = Unclear(
    "a number does not begin with 0: leave the 0 out, or put quotes around it if it is text"
)
_TOO_LONG = Unclear("this number has too many digits: put quotes around it if it is text")
_FITS: dict[str, Callable[[object], bool]] = {
    f"{_TAG}null": lambda value: value is None,
    f"{_TAG}bool": lambda value: type(value) is bool,
    f"{_TAG}int": lambda value: type(value) is int or type(value) is Unclear,
    f"{_TAG}float": lambda value: type(value) in {int, float, Unclear},
    f"{_TAG}merge": lambda value: value is _MERGE,
}
"""What a tag allows."""


def _meaning(text: str) -> object:
    """Return what a plain scalar is: the core schema of YAML 1.2, except that a number with a leading zero is unclear.

    Such a number is octal in YAML 1.1 and decimal in 1.2, and its author may have meant text.
    """
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    kind = match.lastgroup
    if kind == "zero":
        return _LEADING_ZERO
    try:
        return _NUMBERS[kind](match[kind or 0])
    except ValueError:  # Python has a limit of digits
        return _TOO_LONG


class _YamlReader:
    """Turns the events of one YAML stream into a document."""

    def __init__(self, path: Path, data: bytes, base: type) -> None:
        self._path = path
        self._loader: Any = base(data)
        self._next: Callable[[], yaml.Event] = self._loader.get_event
        self._anchors: dict[str, tuple[object, int]] = {}
        """What each stands for, and how much that is."""
        self._size = 0
        """How much has been read: values, and characters of texts. What an alias stands for counts anew."""
        self._aliased = 0

    def document(self) -> object:
        """The document, which must be the only one."""
        self._next()  # the stream begins
        if isinstance(event := self._next(), yaml.StreamEndEvent):
            self._wrong(event, "the file holds nothing but comments")
        value = self._value(self._next(), 0)
        self._next()  # the document ends
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            self._wrong(event, "a second document begins here: one file holds one")
        return value

    def _wrong(self, event: Any, text: str) -> NoReturn:
        _refuse(self._path, event.start_mark.line, text)

    def _value(self, event: Any, depth: int) -> object:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            value = self._scalar(event)
            return "<<" if value is _MERGE else value
        if kind is yaml.AliasEvent:
            return self._alias(event)
        if depth == DEPTH_LIMIT:
            self._wrong(event, f"more than {DEPTH_LIMIT} mappings and lists inside each other")
        before = self._size
        self._size += 1
        is_mapping = kind is yaml.MappingStartEvent
        if event.tag not in {None, "!", f"{_TAG}{'map' if is_mapping else 'seq'}"}:
            self._wrong(event, "this tag is not understood")
        collection = self._mapping(depth + 1) if is_mapping else self._list(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = collection, self._size - before
        return collection

    def _alias(self, event: Any) -> object:
        if event.anchor not in self._anchors:
            self._wrong(event, "this alias has no anchor before it")
        value, size = self._anchors[event.anchor]
        self._size += size
        self._aliased += size
        if self._aliased > ALIAS_LIMIT:
            self._wrong(event, "aliases bring in more than a cluster file may hold")
        return value

    def _list(self, depth: int) -> list[object]:
        values = []
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            values.append(self._value(event, depth))
        return values

    def _mapping(self, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        merged: list[dict[str, object]] = []
        take, scalar = self._next, self._scalar
        while type(event := take()) is not yaml.MappingEndEvent:
            key = scalar(event) if type(event) is yaml.ScalarEvent else None
            if key is _MERGE:
                merged += self._merged(depth)
            elif type(key) is not str:
                self._wrong(event, "this key is not text: put quotes around it")
            elif key in values:
                self._wrong(event, "this key occurs twice in its mapping")
            else:
                values[intern(key)] = self._value(take(), depth)
        for other in merged:
            values = {**other, **values}
        return values

    def _merged(self, depth: int) -> list[dict[str, object]]:
        """Return what `<<` brings in: of several mappings the first wins, and the keys around it always do."""
        event = self._next()
        value: Any = self._value(event, depth)
        mappings: list[dict[str, object]] = value if type(value) is list else [value]
        if not all(type(mapping) is dict for mapping in mappings):
            self._wrong(event, "<< takes a mapping, or a list of mappings")
        return mappings

    def _scalar(self, event: Any) -> object:
        text: str = event.value
        value: object = text
        if event.tag is not None:
            value = self._tagged(event)
        elif event.implicit[0] and text[:1] in _STARTS:  # in quotes it is text
            value = _meaning(text)
        size = 1 + len(text)
        self._size += size
        if event.anchor is not None:
            self._anchors[event.anchor] = value, size
        return value

    def _tagged(self, event: Any) -> object:
        text: str = event.value
        tag = event.tag
        if tag in _TEXT:
            return text
        fits = _FITS.get(tag)
        if fits is None:
            self._wrong(event, "this tag is not understood")
        value = _meaning(text)
        if not fits(value):
            self._wrong(event, "this value does not fit its tag")
        return float(value) if tag == f"{_TAG}float" and type(value) is int else value


# paths -> lines


def yaml_lines(data: bytes) -> dict[str, int]:
    """The line of every value of a YAML document that can be read, by its path as problems name it (`$.a[0].b`)."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data)
    lines: dict[str, int] = {}
    open_: list[_Collection] = [_Collection("", is_mapping=False)]
    while type(event := loader.get_event()) is not yaml.StreamEndEvent:
        if isinstance(event, yaml.CollectionEndEvent):
            open_.pop()
        elif isinstance(event, yaml.NodeEvent):
            path = open_[-1].path_of(event)
            if path is not None:
                lines.setdefault(path, open_[-1].line)
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append(_Collection(path or "", is_mapping=isinstance(event, yaml.MappingStartEvent)))
    return lines


_JSON_WORD = re.compile(r'\n|[{}\[\]]|"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+', re.DOTALL)


def json_lines(data: bytes) -> dict[str, int]:
    """The same of valid JSON."""
    lines: dict[str, int] = {}
    open_: list[_Collection] = [_Collection("", is_mapping=False)]
    line = 0
    for match in _JSON_WORD.finditer(data.decode()):
        word = match[0]
        if word == "\n":
            line += 1
        elif word in {"}", "]"}:
            open_.pop()
        else:
            path = open_[-1].step(json.loads(word) if word[0] == '"' else word, line)
            if path is not None:
                lines.setdefault(path, open_[-1].line)
            if word in {"{", "["}:
                open_.append(_Collection(path or "", is_mapping=word == "{"))
    return lines


class _Collection:
    """A mapping or a list whose values are being counted; the outermost one holds the document alone."""

    def __init__(self, path: str, *, is_mapping: bool) -> None:
        self._path, self._is_mapping = path, is_mapping
        self._key: str | None = None
        self._index = 0
        self.line = 0
        """That of the value whose path was given last, or of its key."""

    def path_of(self, event: Any) -> str | None:
        """The path of the next value, or None for a key."""
        return self.step(getattr(event, "value", ""), event.start_mark.line)

    def step(self, text: object, line: int) -> str | None:
        """The same for a key or value that begins in a line, counted from 0."""
        if not self._is_mapping:
            self.line = line + 1
            self._index += 1
            return f"{self._path}[{self._index - 1}]" if self._path else "$"
        if self._key is None:
            self._key, self.line = str(text), line + 1
            return None
        key, self._key = self._key, None
        return f"{self._path}.{key}"
