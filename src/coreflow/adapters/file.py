"""A cluster file as the source of records: YAML or JSON, watched, with image archives beside it.

Errors name the file and a line, never a piece of its content: a cluster file is full of secrets.

YAML is read from the parser's events rather than with PyYAML's constructor. That is four times as fast on a large
file, does not recurse in C (a file of nothing but brackets would end the process), knows the line of a key that occurs
twice, and leaves timestamps as the text that they are in JSON, too.
"""

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes, urlsplit

import orjson
import trio
import yaml
from attrs import evolve

from coreflow.domain.errors import InvalidRecord, Problem, Refused, Unavailable
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.records.codec import RecordDecoder
from coreflow.domain.records.converter import Unclear
from coreflow.domain.records.models import CertificateRecord, Records, certificate_in
from coreflow.domain.swarm.specs import ImageSpec
from coreflow.quiet import LARGE_DOCUMENT, quiet

POLL_SECONDS = 1.0
"""How often the file is looked at."""
CHUNK = 1024 * 1024
"""Bytes of an archive that are read at once."""
DEPTH_LIMIT = 100
"""Mappings and lists inside each other; a cluster file needs about ten."""
ALIAS_LIMIT = 10_000_000
"""Values, and characters of texts, that aliases bring in: a few lines of aliases of aliases stand for any number."""

Signature = tuple[int, ...]
"""What tells one state of a file from another, without reading it."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FileCloudly:
    """`CloudlyPort` on a cluster file.

    The file may be missing, or broken: calls fail until it is there and right, and changes are seen all the same.
    Replace it in one step (write beside it, then rename), since a YAML file that is half there may be a valid one.
    `learn` is called with the records.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        poll_seconds: float = POLL_SECONDS,
        learn: Callable[[Records], None] = lambda _: None,
    ) -> None:
        self.path = Path(path)
        self._learn = learn
        self._poll_seconds = poll_seconds
        self._lock = trio.Lock()
        self._decoder = RecordDecoder()
        self._known: tuple[bytes, Records] | None = None

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        poll_seconds: float = POLL_SECONDS,
        learn: Callable[[Records], None] = lambda _: None,
    ) -> "FileCloudly":
        """The file that a `file:` URL names by its absolute path, percent-encoded where need be.

        Raises Refused when it names none.
        """
        parts = urlsplit(url)
        if parts.scheme != "file":
            raise Refused("a cluster file's URL begins with file:")
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise Refused("a cluster file's URL has three slashes and an absolute path: file:///path/to/file")
        path = unquote_to_bytes(parts.path)
        if parts.query or parts.fragment or b"\0" in path:
            raise Refused("a cluster file's URL has a path only: write ? as %3F and # as %23")
        return cls(Path(os.fsdecode(path)), poll_seconds=poll_seconds, learn=learn)

    async def records(self) -> Records:
        """Read and decode the file. Unchanged content gives the very same object as before.

        Raises Unavailable when the file cannot be read, and InvalidRecord when its content cannot be used.
        """
        async with self._lock:
            records = await trio.to_thread.run_sync(self._read)
        self._learn(records)
        return records

    def _read(self) -> Records:
        try:
            data = self._content()
        except OSError as exc:
            raise Unavailable(f"{self.path}: {exc.strerror or type(exc).__name__}") from None
        digest = hashlib.sha256(data).digest()
        if self._known is None or self._known[0] != digest:
            with quiet(enabled=len(data) >= LARGE_DOCUMENT):
                self._known = digest, self._decode(data)
        return self._known[1]

    def _decode(self, data: bytes) -> Records:
        document, lines = _parse(self.path, data)
        try:
            records = self._decoder.decode(document)
        except InvalidRecord as exc:
            known = lines()
            problems = (Problem(_with_line(problem.path, known), problem.text) for problem in exc.problems)
        else:
            return _with_lines(records, lines) if records.rejected else records
        raise InvalidRecord(*problems)

    def _content(self) -> bytes:
        """The bytes of the file. Raises Unavailable when somebody wrote to it meanwhile."""
        with self.path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
        is_file = stat.S_ISREG(after.st_mode)  # reading a pipe changes its times
        if is_file and (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            raise Unavailable(f"{self.path}: it is being written")
        return data

    @asynccontextmanager
    async def archive(self, spec: ImageSpec) -> AsyncIterator[AsyncIterator[bytes]]:
        """The archive of an image, a `.tar` or `.tar.gz` at its `storagePath`, in pieces of 1 MiB.

        The path is relative to the folder of the cluster file and stays inside it. Entering raises Refused when there
        is no such path or file; reading raises Unavailable when the disk fails.
        """
        file = trio.wrap_file(await trio.to_thread.run_sync(self._open_archive, spec))

        async def chunks() -> AsyncGenerator[bytes, None]:
            try:
                while chunk := await file.read(CHUNK):
                    yield chunk
            except OSError as exc:
                raise Unavailable(f"{_archive_of(spec)}: {exc.strerror}") from None

        async with file, aclosing(chunks()) as pieces:
            yield pieces

    def _open_archive(self, spec: ImageSpec) -> BufferedReader:
        if not spec.storage_path:
            raise Refused(f"{_archive_of(spec)}: the record has no storagePath, so there is nothing to load")
        try:
            folder = self.path.parent.resolve()
            path = (folder / spec.storage_path).resolve()
            if Path(spec.storage_path).is_absolute() or not path.is_relative_to(folder):
                reason = f"must be relative and stay inside {folder}, the folder of the cluster file"
            elif not stat.S_ISREG(path.stat().st_mode):
                reason = f"not a file in {folder}"
            else:
                return path.open("rb")
        except OSError as exc:
            reason = f"{exc.strerror} (in {self.path.parent})"
        except (RuntimeError, ValueError):  # a loop of links, a null byte
            reason = "not a usable path"
        raise Refused(f"{_archive_of(spec)}: {reason}")

    async def certificate(self, domain: str) -> CertificateRecord:
        """The certificate that the file has for a domain. Raises Refused when it has none."""
        return certificate_in(await self.records(), domain)

    async def report_binding(self, status: BindingStatus) -> None:
        """Nobody reads it."""

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        """Yields when the file is another one than at the last look, or is gone, or there again.

        Looks every `poll_seconds`, beginning when this is entered. While somebody writes to the file it waits for the
        end: it yields once two looks in a row, a tenth of that time apart, found the same.
        """
        look = partial(trio.to_thread.run_sync, self._look)
        async with aclosing(_differences(await look(), look, self._poll_seconds)) as notices:
            yield notices

    def _look(self) -> Signature:
        try:
            return _signature(self.path.stat())
        except OSError as exc:
            return (exc.errno or 0,)


def _signature(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def _archive_of(spec: ImageSpec) -> str:
    return f"image {spec.image_id} {spec.version}: archive {spec.storage_path or ''}".rstrip()


async def _differences(
    seen: Signature, look: Callable[[], Awaitable[Signature]], seconds: float
) -> AsyncGenerator[None, None]:
    """Yield when what `look` finds differs from `seen`, and has come to rest."""
    while True:
        await trio.sleep(seconds)
        found = await look()
        changed = found != seen
        while found != seen:
            seen = found
            await trio.sleep(seconds / 10)
            found = await look()
        if changed:
            yield None


# bytes -> document


def _no_lines() -> dict[str, int]:
    return {}


Lines = Callable[[], Mapping[str, int]]
"""Gives the lines of a document's values, by path; empty where that is not known."""


def _parse(path: Path, data: bytes) -> tuple[object, Lines]:
    """The document in a file, as JSON or YAML by the file's suffix; without one, by looks. And where its values are.

    Raises InvalidRecord with the line of what is wrong.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if not data.strip():
        _refuse(path, 0, "the file is empty: perhaps it is being written")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return parse_json(path, data), _no_lines
    lines = partial(yaml_lines, data)
    if suffix in {".yaml", ".yml"} or not data.lstrip().startswith(b"{"):
        return parse_yaml(path, data), lines
    try:
        return parse_json(path, data), _no_lines
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


class _Doubled(Exception):
    """A key occurs twice."""


def _once(pairs: list[tuple[str, object]]) -> None:
    if len(dict.fromkeys(key for key, _ in pairs)) < len(pairs):
        raise _Doubled


def _check_keys(path: Path, data: bytes) -> None:
    """Refuse valid JSON in which a key occurs twice in its mapping: parsers silently take the last."""
    try:
        json.loads(data, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except _Doubled:
        line = _line_of_doubled(data.decode())
    except RecursionError:
        _refuse(path, 0, "too many mappings and lists inside each other")
    else:
        return
    _refuse(path, line, "this key occurs twice in its mapping")


_JSON_TOKEN = re.compile(r'[{}\[\]]|("(?:[^"\\]|\\.)*")(\s*:)?', re.DOTALL)


def _line_of_doubled(text: str) -> int:
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
    """What a plain scalar is: the core schema of YAML 1.2, except that a number with a leading zero is unclear.

    Such a number is octal in YAML 1.1 and decimal in 1.2, and its author may have meant text.
    """
    if text[:1] not in _STARTS:
        return text
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
        while type(event := self._next()) is not yaml.MappingEndEvent:
            key = self._scalar(event) if type(event) is yaml.ScalarEvent else None
            if key is _MERGE:
                merged += self._merged(depth)
            elif type(key) is not str:
                self._wrong(event, "this key is not text: put quotes around it")
            elif key in values:
                self._wrong(event, "this key occurs twice in its mapping")
            else:
                values[key] = self._value(self._next(), depth)
        for other in merged:
            values = {**other, **values}
        return values

    def _merged(self, depth: int) -> list[dict[str, object]]:
        """What `<<` brings in: of several mappings the first wins, and the keys around it always do."""
        event = self._next()
        value: Any = self._value(event, depth)
        mappings: list[dict[str, object]] = value if type(value) is list else [value]
        if not all(type(mapping) is dict for mapping in mappings):
            self._wrong(event, "<< takes a mapping, or a list of mappings")
        return mappings

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        value = self._plain(event)
        size = 1 + len(event.value)
        self._size += size
        if event.anchor is not None:
            self._anchors[event.anchor] = value, size
        return value

    def _plain(self, event: Any) -> object:
        text: str = event.value
        tag = event.tag
        if tag is None:
            return _meaning(text) if event.implicit[0] else text  # in quotes it is text
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
        if not self._is_mapping:
            self.line = event.start_mark.line + 1
            self._index += 1
            return f"{self._path}[{self._index - 1}]" if self._path else "$"
        if self._key is None:
            self._key, self.line = str(getattr(event, "value", "")), event.start_mark.line + 1
            return None
        key, self._key = self._key, None
        return f"{self._path}.{key}"


_LAST_STEP = re.compile(r"(?:\.[^.\[]*|\[[0-9]*\]| \(key\))$")


def _with_lines(records: Records, lines: Lines) -> Records:
    known = lines()
    rejected = (
        evolve(one, reasons=tuple(_with_line(reason, known) for reason in one.reasons))
        for one in records.rejected
    )
    return evolve(records, rejected=tuple(rejected))


def _with_line(reason: str, lines: Mapping[str, int]) -> str:
    """A problem's text with the line of its path, or of what is nearest above it."""
    path = reason.rpartition(" @ ")[2]
    while path not in lines:
        path, before = _LAST_STEP.sub("", path), path
        if path == before:
            return reason
    return reason if path == "$" else f"{reason} (line {lines[path]})"
