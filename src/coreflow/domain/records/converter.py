"""The one converter of records: strict in types, with the path of every problem."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Any, NewType, TypeGuard, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, override

from coreflow.domain.errors import InvalidRecord, Problem
from coreflow.domain.ids import id_problem

from .keys import spelt
from .models import (
    BindingRecord,
    ClusterRecord,
    DomainRecord,
    ExternalRegistryRecord,
    HealthCheckRecord,
    ImageRecord,
    NodeRecord,
    Ports,
    SecretBundleRecord,
    SecretGroupRecord,
    SecretValue,
    ServiceRecord,
)
from .nearest import nearest

T = TypeVar("T")

_WIRE_NAMES = {
    "memory_size_limit_mb": "memorySizeLimitMB",
    "memory_size_reservation_mb": "memorySizeReservationMB",
    "memory_size_mb": "memorySizeMB",
}
"""Fields whose wire name is not simply their name in camel case."""

ENVELOPED: tuple[type, ...] = (
    BindingRecord,
    ClusterRecord,
    ExternalRegistryRecord,
    ImageRecord,
    NodeRecord,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
)
"""Records that travel as `{id, data: {...}}`."""

WITH_ID = frozenset(ENVELOPED) - {NodeRecord}
"""Records whose ids mark something or are referred to."""

_TYPE_NAMES: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    type(None): "null",
}


PLAIN_JSON = (
    orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
)
"""Only what JSON itself has: a date is not its text."""


@attrs.frozen
class Unclear:
    """Stands in a document for a value that its reader will not guess: the record that uses it is rejected.

    `text` says what to write instead, and nothing of the value.
    """

    text: str
    known: object = attrs.field(default=None, repr=False)
    """The value, where it may be used to say whose record this is."""


_NUMBERS = (int, float)
_BEYOND_WHOLE = 2**63
_BEYOND_FLOATS = 2**1023
"""An integer that some float cannot hold."""


class _Wrong(ValueError):
    """A value of the wrong type; `path` leads from the field to the culprit."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.path = path


_HINTS: dict[tuple[type, type], str] = {
    (str, int): ": put quotes around it",
    (str, float): ": put quotes around it",
    (str, bool): ": put quotes around it",
    (bool, str): ": write true or false, without quotes",
    (int, str): ": write a number, without quotes or a unit",
    (float, str): ": write a number, without quotes or a unit",
}
"""What to write instead, by what is expected and what is there."""


_INSTEAD_OF_TEXT: Mapping[type, str] = {SecretValue: ": write {value: ...}"}
"""What to write where a text stands for a mapping."""
REFERENCES = ("fromFile", "fromEnv")
"""The members of what stands for a text that is elsewhere."""


def expected(kind: type, value: object) -> str:
    got = type(value)
    if isinstance(value, Unclear):
        return value.text
    hint = _HINTS.get((kind, got)) or (_reference_hint(value) if kind is str else "")
    return f"expected {_TYPE_NAMES[kind]}, got {_TYPE_NAMES.get(got, got.__name__)}{hint}"


def _reference_hint(value: object) -> str:
    """Return what a misspelt reference was meant to be: `{fromfile: path}`."""
    (key, *others) = value if type(value) is dict and value else ("",)
    meant = None if others else nearest(str(key), REFERENCES)
    return f": did you mean {meant}?" if meant is not None and meant != key else ""


def _text(value: Any, _: Any = None) -> str:
    if type(value) is not str:
        raise _Wrong(expected(str, value))
    if not value.isascii() and printable(value) != value:
        raise _Wrong("expected Unicode text, got half a surrogate pair")
    return value


def printable(text: str) -> str:
    """The text with what UTF-8 cannot spell (and JSON can: half a surrogate pair) escaped."""
    return text.encode(errors="backslashreplace").decode()


def _id(value: Any, _: Any = None, *, of_service: bool = False) -> str:
    text = _text(value)
    if (problem := id_problem(text, of_service=of_service)) is not None:
        raise _Wrong(problem)
    return text


_service_id = partial(_id, of_service=True)


def _truth(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise _Wrong(expected(bool, value))
    return value


def _whole(value: Any, _: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():  # JavaScript has one kind of number
        return int(value)
    raise _Wrong(expected(int, value))


def _number(value: Any, _: Any) -> float:
    if type(value) is int and abs(value) < _BEYOND_FLOATS:
        return float(value)
    if type(value) is float and math.isfinite(value):
        return value
    raise _Wrong(
        "expected a number that can be written in digits"
        if type(value) in _NUMBERS
        else expected(float, value)
    )


def _text_map(value: Any, _: Any = None) -> dict[str, str]:
    if type(value) is not dict:
        hint = ": write NAME: value in each line, without - and =" if type(value) in {list, str} else ""
        raise _Wrong(expected(dict, value) + hint)
    for key, item in value.items():
        if type(key) is not str or type(item) is not str or not (key.isascii() and item.isascii()):
            return _entries(value)  # in the common case there is nothing to look at closely
    return dict(value)


def _entries(value: Mapping[Any, Any]) -> dict[str, str]:
    """The entries that are there: one whose value is null counts as left out."""
    problems: list[Problem] = []
    for key, item in value.items():
        for part, where in ((key, " (key)"), ("" if item is None else item, "")):
            try:
                _text(part)
            except _Wrong as exc:
                problems.append(Problem(f".{spelt(key)}{where}", str(exc)))
    if problems:
        raise InvalidRecord(*problems)
    return {key: item for key, item in value.items() if item is not None}


def _object_map(value: Any, _: Any) -> dict[str, object]:
    if type(value) is not dict:
        raise _Wrong(expected(dict, value))
    if problems := list(_not_plain(value, "")):
        raise InvalidRecord(*problems)
    return dict(value)


def _not_plain(value: object, path: str) -> Iterator[Problem]:
    """Yield what a value has in it that JSON has no word for: another JSON text could not be made of it."""
    if type(value) is dict:
        for key, item in value.items():
            here = f"{path}.{spelt(key)}"
            if not is_text(key):
                yield Problem(f"{here} (key)", "expected Unicode text")
            yield from _not_plain(item, here)
    elif type(value) is list:
        for index, item in enumerate(value):
            yield from _not_plain(item, f"{path}[{index}]")
    elif type(value) is str:
        if not is_text(value):
            yield Problem(path, "expected Unicode text, got half a surrogate pair")
    elif type(value) is float:
        if not math.isfinite(value):
            yield Problem(path, "expected a number that can be written in digits")
    elif type(value) is int:
        if not -_BEYOND_WHOLE <= value < _BEYOND_WHOLE:
            yield Problem(path, "expected a number that 64 bits can hold")
    elif value is not None and type(value) is not bool:
        yield Problem(path, expected(dict, value))


def wire_name(name: str) -> str:
    head, *rest = name.split("_")
    return _WIRE_NAMES.get(name) or head + "".join(part.capitalize() for part in rest)


def _tuple_of(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    item = kind.__args__[0]
    handler = converter.get_structure_hook(item)

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _Wrong(expected(list, value) + (": put brackets around it" if type(value) is str else ""))
        try:
            return tuple([handler(element, item) for element in value])
        except Exception:  # noqa: BLE001 - looked at again, one by one
            problems: list[Problem] = []
            for index, element in enumerate(value):
                try:
                    handler(element, item)
                except Exception as exc:  # noqa: BLE001 - collected, not swallowed: raised below
                    problems.extend(problems_of(exc, f"[{index}]"))
            raise InvalidRecord(*problems) from None

    return structure


def _map_of(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    item = kind.__args__[1]
    handler = converter.get_structure_hook(item)

    def structure(value: Any, _: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _Wrong(expected(dict, value))
        decoded: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, element in value.items():
            if element is None:
                continue
            try:
                decoded[_text(key)] = handler(element, item)
            except Exception as exc:  # noqa: BLE001 - collected, not swallowed: raised below
                problems.extend(problems_of(exc, f".{spelt(key)}"))
        if problems:
            raise InvalidRecord(*problems)
        return decoded

    return structure


def _port_text(value: Any) -> Any:
    """A port as the text that it is on the wire."""
    is_whole = type(value) is int or (type(value) is float and value.is_integer())
    return str(int(value)) if is_whole else value


def _respell_cluster(raw: dict[str, Any]) -> dict[str, Any]:
    if "nodes" not in raw and "servers" in raw:
        raw = {**raw, "nodes": raw["servers"]}
    if raw.get("id") is None and type(raw.get("name")) is str:  # records of 2022 have no id
        raw = {**raw, "id": raw["name"]}
    return raw


def _respell_ports(raw: dict[str, Any]) -> dict[str, Any]:
    custom = raw.get("custom")
    if type(custom) is not dict:
        return raw
    return {**raw, "custom": {name: _port_text(port) for name, port in custom.items()}}


def _respell_health_check(raw: dict[str, Any]) -> dict[str, Any]:
    command = raw.get("command")
    return {**raw, "command": ["CMD-SHELL", command]} if type(command) is str else raw


_RESPELLINGS: Mapping[type, Callable[[dict[str, Any]], dict[str, Any]]] = {
    ClusterRecord: _respell_cluster,
    Ports: _respell_ports,
    HealthCheckRecord: _respell_health_check,
}
"""What turns older and shorter spellings of a class into the current one."""
_RESPELLED = {*ENVELOPED, *_RESPELLINGS, DomainRecord}


def _respell(kind: type, raw: Any) -> Any:
    """The current spelling of a record, without envelope and nulls: `raw` itself where nothing is to do."""
    if kind is DomainRecord and type(raw) is str:
        return {"name": raw}
    if type(raw) is not dict:
        return raw
    if kind in ENVELOPED:
        raw = _without_envelope(raw)
    respell = _RESPELLINGS.get(kind)
    return _without_nulls(raw if respell is None else respell(raw))


def _without_envelope(raw: dict[str, Any]) -> dict[str, Any]:
    data = raw.get("data")
    if data is None:
        return raw
    if type(data) is not dict:
        raise _Wrong(expected(dict, data), ".data")
    return {**data, "id": raw.get("id")}


def _without_nulls(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value is not None} if None in raw.values() else raw


def _class_hook(kind: type, converter: Any) -> Callable[[Any, Any], Any]:
    attrs.resolve_types(kind)
    names: dict[str, Any] = {a.name: override(rename=wire_name(a.name)) for a in attrs.fields(kind)}
    if kind in WITH_ID:
        names["id"] = override(struct_hook=_service_id if kind is ServiceRecord else _id)
    base: Callable[[Any, Any], Any] = make_dict_structure_fn(
        kind, converter, _cattrs_detailed_validation=True, **names
    )
    respelled, hint = kind in _RESPELLED, _INSTEAD_OF_TEXT.get(kind, "")

    def structure(raw: Any, _: Any) -> Any:
        given = raw
        if respelled:
            raw = _respell(kind, raw)
            if type(raw) is not dict:
                raise _Wrong(expected(dict, raw))
        elif type(raw) is not dict:
            raise _Wrong(expected(dict, raw) + (hint if type(raw) is str else ""))
        else:
            raw = _without_nulls(raw)
        try:
            return base(raw, kind)
        except cattrs.ClassValidationError as exc:
            enveloped = kind in ENVELOPED and given.get("data") is not None
            raise InvalidRecord(*problems_of(exc, "", ".data" if enveloped else "")) from None

    return structure


def _is_a(*origins: object) -> Callable[[Any], bool]:
    def check(kind: Any) -> bool:
        return get_origin(kind) in origins

    return check


def _is_new_type(kind: Any) -> bool:
    return isinstance(kind, NewType)


def _same_as_base(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    """The hook of the type behind a NewType, itself: cattrs would look it up for every value."""
    hook: Callable[[Any, Any], Any] = converter.get_structure_hook(kind.__supertype__)
    return hook


def _unless_absent(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    """The hook of `X` for `X | None`: a null counts as absent and is gone before a field is looked at."""
    (inner,) = (choice for choice in get_args(kind) if choice is not NoneType)
    hook: Callable[[Any, Any], Any] = converter.get_structure_hook(inner)
    return hook


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    converter.register_structure_hook_factory(_is_new_type, _same_as_base)
    converter.register_structure_hook_factory(_is_a(Union, UnionType), _unless_absent)
    converter.register_structure_hook_factory(_is_a(tuple), _tuple_of)
    converter.register_structure_hook_factory(_is_a(Mapping), _map_of)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, str], _text_map)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, object], _object_map)
    return converter


converter = _make_converter()


def problems_of(exc: BaseException, path: str, inside: str = "") -> Iterator[Problem]:
    """Flatten what cattrs raised into problems with wire paths. `inside` leads from a record to its fields."""
    if isinstance(exc, InvalidRecord):
        for problem in exc.problems:
            yield Problem(path + problem.path, problem.text)
    elif isinstance(exc, _Wrong):
        yield Problem(path + exc.path, str(exc))
    elif isinstance(exc, cattrs.ClassValidationError):
        found, others = exc.group_exceptions()
        for inner, note in found:
            below = f"{path}.{note.name}" if note.name == "id" else f"{path}{inside}.{wire_name(note.name)}"
            yield from problems_of(inner, below)
        for inner in others:
            yield from problems_of(inner, path + inside)
    elif isinstance(exc, KeyError):
        name = str(exc.args[0])
        # KeyError carries the wire name; cattrs puts the attribute's note around it, so `path` may end in it already
        yield Problem(path if path.endswith(f".{name}") else f"{path}.{name}", f"{name} is missing")
    else:
        yield Problem(path, f"cannot be decoded ({type(exc).__name__})")


def decode(raw: object, kind: type[T], path: str = "$") -> T:
    """Decode one record of class `kind`. Raises InvalidRecord with every problem found, paths starting at `path`."""
    try:
        return converter.structure(raw, kind)
    except Exception as exc:  # noqa: BLE001 - cattrs may raise anything for a hostile document
        raise InvalidRecord(*problems_of(exc, path)) from None


def is_text(value: object) -> TypeGuard[str]:
    return type(value) is str and printable(value) == value
