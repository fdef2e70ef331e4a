"""The status as JSON: written by the daemon, read by commands, documented in docs/status.md.

The members are those of the values in `coreflow.domain.status`. Whatever is a float there is a time, and is written as RFC 3339.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs
import cattrs
import orjson

from coreflow.domain.errors import Unavailable
from coreflow.domain.status.explain import Explanation
from coreflow.domain.status.model import Status

from .telling import told

_TEXTS = frozenset({"cause", "next_step", "error", "drift", "change", "decision"})
"""Members that may have texts of peers in them."""
_LISTS = frozenset({"differences"})
_converter = cattrs.Converter()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(value: Any, _: object) -> float:
    return datetime.fromisoformat(value).timestamp()


_converter.register_structure_hook(float, _seconds)
T = TypeVar("T", Status, Explanation)


def write(value: Status | Explanation, *, indented: bool = False) -> str:
    """The document as text. What must not be told is taken out of every text of a peer."""
    return orjson.dumps(value, default=_members, option=orjson.OPT_INDENT_2 if indented else 0).decode()


def document(value: Status | Explanation) -> Mapping[str, Any]:
    """The document as plain values."""
    found: Mapping[str, Any] = orjson.loads(write(value))
    return found


def read(text: str | bytes, kind: type[T]) -> T:
    """Read what another process wrote, perhaps of another version. Raises Unavailable for what is no such document."""
    try:
        return _converter.structure(orjson.loads(text), kind)
    except (orjson.JSONDecodeError, cattrs.BaseValidationError, KeyError, TypeError, ValueError) as exc:
        raise Unavailable(
            "the daemon answers something else than a status: is it of another version?"
        ) from exc


def _members(value: object) -> Any:
    if not attrs.has(type(value)):
        return dict(value) if isinstance(value, Mapping) else _unknown(value)
    found = {}
    for name in _names(type(value)):
        member = getattr(value, name)
        if isinstance(member, float):
            member = _moment(member)
        elif member and name in _TEXTS:
            member = told(member)
        elif member and name in _LISTS:
            member = [told(text) for text in member]
        found[name] = member
    return found


_known: dict[type, tuple[str, ...]] = {}


def _names(kind: type) -> tuple[str, ...]:
    if kind not in _known:
        _known[kind] = tuple(attribute.name for attribute in attrs.fields(kind))
    return _known[kind]


def _unknown(value: object) -> object:
    raise TypeError(type(value).__name__)
