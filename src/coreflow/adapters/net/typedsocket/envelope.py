"""The envelope: one JSON object per message, read and written.

Reading never raises: what cannot be used comes back as `Unusable`. Writing raises `NotJson` or `TooLarge`, since then
the mistake is ours. Captured between Node peers of typedrequest 3.3.0, 3.3.2 and 8.0.3 on SmartServe 2.0.3; what the
members mean is told in `docs/wire.md`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from attrs import field, frozen

from coreflow.gc_pause import LARGE_DOCUMENT, gc_paused

from .errors import NotJson, TooLarge
from .packets import chunk_to_json
from .pieces import PIECE_BYTES, CannotRead, loads_in_pieces, steps

NAME_LIMIT = 1000
"""Characters of a method or a correlation id; far above anything seen, far below what could hurt."""

_STREAM_MARK = "_isVirtualStream"
_OMITTED = {
    "_OBMITTED_VIRTUAL_STREAM": True,  # spelt like this on the wire
    "reason": "path is under .request: obmitted for deduplication reasons in response cycle.",
}
_STREAM_ID_LIMIT = 256
_ECHO_LIMIT = 1024 * 1024
"""Bytes of the longest question that is echoed: writing one of 100 MB costs four times that."""
LONG_BYTES = 1024 * 1024
"""A longer message is read in pieces, by a thread."""
_DEPTH_LIMIT = 100
"""Levels below which no stream is looked for."""

_END_SIZE = 64 * 1024
_METHOD = re.compile(rb'"method"\s*:\s*"(\w{1,100})"', re.ASCII)

_NOT_ECHOED = frozenset({"localData", "error", "retry"})


@frozen
class StreamRef:
    """A stream inside a request or an answer, at any depth: stands where the wire has its placeholder."""

    id: str


@frozen
class Unusable:
    """A message that is dropped, and why."""

    reason: str


@frozen(kw_only=True)
class Envelope:
    """A message that is at least a JSON object. Nothing else about it is certain."""

    raw: dict[str, Any] = field(repr=False)
    size: int
    may_hold_streams: bool

    @property
    def method(self) -> str | None:
        """The method, if it is a usable name."""
        return _name(self.raw.get("method"))

    @property
    def correlation_id(self) -> str | None:
        """The correlation id, if it is a usable name."""
        return _name(self._correlation.get("id"))

    @property
    def phase(self) -> object:
        """`request` or `response`, if all is well. Stream frames of typedrequest 3.x have none."""
        return self._correlation.get("phase")

    @property
    def request(self) -> Any:
        """Absent and `null` alike are `None`."""
        return self.raw.get("request")

    @property
    def response(self) -> Any:
        """Absent and `null` alike are `None`."""
        return self.raw.get("response")

    @property
    def _correlation(self) -> Mapping[str, object]:
        correlation = self.raw.get("correlation")
        return correlation if isinstance(correlation, dict) else {}


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= NAME_LIMIT else None


def parse(
    data: str | bytes | bytearray | memoryview, limit: int, most_values: int = 2_000_000
) -> Envelope | Unusable:
    """Read a message. Text and binary are the same to us, as they are to SmartServe (captured).

    How many values it has is estimated, from above: a comma in a text counts, too.
    """
    size = _size(data)
    if size > limit:
        return Unusable(f"a message of {size} bytes is over the limit of {limit}")
    if size > most_values and (count := _count_values(data)) > most_values:
        return Unusable(f"a message of {count} values is over the limit of {most_values}")
    try:
        with gc_paused(enabled=size >= LARGE_DOCUMENT):
            raw = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        nests = "limit" in exc.msg  # "depth limit exceeded", formerly "recursion limit reached"
        return Unusable("a message nests too deep" if nests else "a message is not JSON")
    if not isinstance(raw, dict):
        return Unusable("a message is not a JSON object")
    may_hold = _STREAM_MARK in data if isinstance(data, str) else _STREAM_MARK.encode() in bytes(data)
    return Envelope(raw=raw, size=size, may_hold_streams=may_hold)


def parse_in_pieces(
    data: bytes, limit: int, most_values: int = 2_000_000, piece: int = PIECE_BYTES
) -> Envelope | Unusable:
    """Read a long message as `parse` does, for a thread, which lets others have their turn all the time."""
    size = len(data)
    if size > limit:
        return Unusable(f"a message of {size} bytes is over the limit of {limit}")
    count = sum(data.count(mark, *step) for step in steps(size, piece) for mark in (b",", b"[", b"{"))
    if count > most_values:
        return Unusable(f"a message of {count} values is over the limit of {most_values}")
    try:
        with gc_paused(enabled=size >= LARGE_DOCUMENT):
            raw = loads_in_pieces(data, piece)
    except CannotRead as exc:
        return Unusable(f"a message {exc}")
    if not isinstance(raw, dict):
        return Unusable("a message is not a JSON object")
    mark = _STREAM_MARK.encode()
    may_hold = any(data.find(mark, start, end + len(mark)) >= 0 for start, end in steps(size, piece))
    return Envelope(raw=raw, size=size, may_hold_streams=may_hold)


def ends_of(data: str | bytes | bytearray | memoryview) -> bytes:
    """The beginning and the end of a message: the correlation stands in one of them, whatever is between."""
    parts = (data,) if len(data) <= 2 * _END_SIZE else (data[:_END_SIZE], data[-_END_SIZE:])
    return b" ".join(p.encode(errors="replace") if isinstance(p, str) else bytes(p) for p in parts)


def method_seen_in(data: str | bytes | bytearray | memoryview) -> str | None:
    """Return what a message that cannot be read names as its method, at its beginning or end."""
    seen = _METHOD.search(ends_of(data))
    return None if seen is None else seen[1].decode()


def _count_values(data: str | bytes | bytearray | memoryview) -> int:
    if isinstance(data, str):
        return data.count(",") + data.count("[") + data.count("{")
    text = bytes(data)
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _size(data: str | bytes | bytearray | memoryview) -> int:
    if isinstance(data, str):
        return len(data) if data.isascii() else len(data.encode(errors="surrogatepass"))
    return data.nbytes if isinstance(data, memoryview) else len(data)


def encode(value: object, limit: int, on_stream: Callable[[StreamRef], None] | None = None) -> bytes:
    """Write JSON, telling `on_stream` of every stream in it. NaN and Infinity become `null`, as in JavaScript."""

    def default(other: object) -> object:
        if isinstance(other, StreamRef) and on_stream is not None:
            on_stream(other)
            return {_STREAM_MARK: True, "streamId": other.id}
        if isinstance(other, bytes | bytearray):
            return chunk_to_json(bytes(other))
        if isinstance(other, Mapping):
            return dict(other)
        raise TypeError(f"{type(other).__name__} is not JSON")

    try:
        text = orjson.dumps(value, default=default)
    except (TypeError, ValueError) as exc:
        raise NotJson(f"cannot be written as JSON: {exc}") from exc
    if len(text) > limit:
        raise TooLarge(f"{len(text)} bytes of JSON are over the limit of {limit}")
    return text


def fragment(text: bytes) -> orjson.Fragment:
    """JSON that is written already, to be put into more JSON."""
    return orjson.Fragment(text)


def request_text(
    method: str, body: bytes, correlation_id: str, instance: str | None, limit: int, response: object = None
) -> str:
    """A request or a stream question.

    `response` has to be there and `null`: a handler of 3.x that returns nothing leaves it as it came (captured).
    Ordinary requests carry an `instance`, which the newer generation needs and the older one echoes (captured).
    """
    envelope: dict[str, object] = {"method": method, "request": fragment(body), "response": response}
    if instance is not None:
        envelope["requestInstanceId"] = instance
    envelope["correlation"] = {"id": correlation_id, "phase": "request"}
    return encode(envelope, limit).decode()


def answer_text(question: Envelope, members: Mapping[str, object], limit: int, *, echo: bool = True) -> str:
    """The question with `members` filled in and its phase flipped.

    Members we do not know survive, also inside `correlation`, as they do with real peers (captured); the newer
    generation relies on it for `requestInstanceId`. `localData` is the answering side's own business and is left out.
    Without `echo`, `request` is `null`, as real peers have it in answers to chunks. An echo that is large, or cannot be
    sent (nested too deep), is left out as well: whoever asked does not need it.
    """
    envelope = {key: value for key, value in question.raw.items() if key not in _NOT_ECHOED}
    if isinstance(correlation := envelope.get("correlation"), dict):
        envelope["correlation"] = {**correlation, "phase": "response"}
    if not echo or question.size > _ECHO_LIMIT:
        envelope["request"] = None
    elif question.may_hold_streams:
        envelope["request"] = _without_streams(question.request)
    for candidate in ({**envelope, **members}, {**envelope, "request": None, **members}):
        try:
            return encode(candidate, limit).decode()
        except (NotJson, TooLarge):
            continue
    return encode({**_bare(question), **members}, limit).decode()


def _bare(question: Envelope) -> dict[str, object]:
    """Return what an answer cannot do without."""
    bare: dict[str, object] = {"method": question.method, "request": None}
    if (instance := _name(question.raw.get("requestInstanceId"))) is not None:
        bare["requestInstanceId"] = instance
    if question.correlation_id is not None:
        bare["correlation"] = {"id": question.correlation_id, "phase": "response"}
    return bare


class NestedTooDeep(ValueError):
    """A message nests deeper than streams are looked for."""


@frozen
class Streams:
    """A value with its streams found: `value` has references in their places."""

    value: Any
    ids: tuple[str, ...]
    newer: bool
    """One of them belongs to the newer generation's protocol, which moves bytes in a way we do not know."""


def find_streams(value: Any) -> Streams:
    """Put a `StreamRef` in the place of every stream placeholder. Raises `NestedTooDeep`."""
    ids: dict[str, None] = {}
    newer = False

    def replace(item: dict[str, Any]) -> object:
        nonlocal newer
        stream_id = item.get("streamId")
        if not isinstance(stream_id, str) or not 0 < len(stream_id) <= _STREAM_ID_LIMIT:
            return item
        newer = newer or item.get("protocol") is not None
        ids[stream_id] = None
        return StreamRef(stream_id)

    found = _replace_placeholders(value, replace)
    return Streams(found, tuple(ids), newer)


def _without_streams(value: Any) -> Any:
    """Replace placeholders by the form in which an answer echoes them (captured)."""
    try:
        return _replace_placeholders(value, lambda _: _OMITTED)
    except NestedTooDeep:
        return None


def _replace_placeholders(value: Any, replace: Callable[[dict[str, Any]], object], depth: int = 0) -> Any:
    if depth > _DEPTH_LIMIT:
        raise NestedTooDeep
    if isinstance(value, dict):
        if value.get(_STREAM_MARK) is True:
            return replace(value)
        return {key: _replace_placeholders(item, replace, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_placeholders(item, replace, depth + 1) for item in value]
    return value
