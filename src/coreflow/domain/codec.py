"""Wire <-> record: the one place that knows Cloudly's spelling.

Strict in types (cattrs alone would turn `"no"` into `True`), calm about unknown fields, which are ignored. A JSON
`null` counts as absent, since the far side is written in a language that sends both. Older spellings of Cloudly's
interfaces are accepted: `servers` for `nodes`, `containers` inside the cluster for `services`, domains as plain text,
`memorySizeMB`, records without the `data` envelope, a registry login inside the cluster record.

Every problem of a document is reported at once, with its path and never with a value. A bad record is rejected
alone: it becomes a `RejectedRecord`, and everything else is decoded.

`RecordDecoder` remembers the raw form of what it decoded: a record whose raw form is unchanged comes back as the very
same object, so that the steps behind it can recognise unchanged records by identity.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import NoneType, UnionType
from typing import Any, Generic, NewType, Protocol, TypeGuard, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, override

from .errors import InvalidRecord, Problem
from .hosts import canonical_host
from .ids import ServiceId, id_problem
from .records import (
    BindingRecord,
    CertificateRecord,
    ClusterRecord,
    DomainRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    HealthCheckRecord,
    ImageRecord,
    NodeRecord,
    PlatformRecord,
    Ports,
    Records,
    RejectedRecord,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
)
from .salvage import Salvaged, salvage

T = TypeVar("T")

_WIRE_NAMES = {
    "memory_size_limit_mb": "memorySizeLimitMB",
    "memory_size_reservation_mb": "memorySizeReservationMB",
    "memory_size_mb": "memorySizeMB",
}
"""Fields whose wire name is not simply their name in camel case."""

_ENVELOPED: tuple[type, ...] = (
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

_WITH_ID = frozenset(_ENVELOPED) - {NodeRecord}
"""Records whose ids mark something or are referred to."""

_TYPE_NAMES: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    type(None): "null",
}


_PLAIN_JSON = (
    orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
)
"""Only what JSON itself has: a date is not its text."""


@attrs.frozen
class Unclear:
    """Stands in a document for a value that its reader will not guess: the record that uses it is rejected.

    `text` says what to write instead, and nothing of the value.
    """

    text: str


_NUMBERS = (int, float)
_BEYOND_WHOLE = 2**63
_BEYOND_FLOATS = 2**1023
"""A whole number that some float cannot hold."""


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
    (int, str): ": write digits, without quotes",
    (float, str): ": write digits, without quotes",
}
"""What to write instead, by what is expected and what is there."""


def _expected(kind: type, value: object) -> str:
    got = type(value)
    if isinstance(value, Unclear):
        return value.text
    return (
        f"expected {_TYPE_NAMES[kind]}, got {_TYPE_NAMES.get(got, got.__name__)}{_HINTS.get((kind, got), '')}"
    )


def _text(value: Any, _: Any = None) -> str:
    if type(value) is not str:
        raise _Wrong(_expected(str, value))
    if not value.isascii() and _printable(value) != value:
        raise _Wrong("expected Unicode text, got half a surrogate pair")
    return value


def _printable(text: str) -> str:
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
        raise _Wrong(_expected(bool, value))
    return value


def _whole(value: Any, _: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():  # JavaScript has one kind of number
        return int(value)
    raise _Wrong(_expected(int, value))


def _number(value: Any, _: Any) -> float:
    if type(value) is int and abs(value) < _BEYOND_FLOATS:
        return float(value)
    if type(value) is float and math.isfinite(value):
        return value
    raise _Wrong(
        "expected a number that can be written in digits"
        if type(value) in _NUMBERS
        else _expected(float, value)
    )


def _text_map(value: Any, _: Any = None) -> dict[str, str]:
    if type(value) is not dict:
        raise _Wrong(_expected(dict, value))
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
                problems.append(Problem(f".{_printable(str(key))}{where}", str(exc)))
    if problems:
        raise InvalidRecord(*problems)
    return {key: item for key, item in value.items() if item is not None}


def _object_map(value: Any, _: Any) -> dict[str, object]:
    if type(value) is not dict:
        raise _Wrong(_expected(dict, value))
    if problems := list(_not_plain(value, "")):
        raise InvalidRecord(*problems)
    return dict(value)


def _not_plain(value: object, path: str) -> Iterator[Problem]:
    """What a value has in it that JSON has no word for: another JSON text could not be made of it."""
    if type(value) is dict:
        for key, item in value.items():
            here = f"{path}.{_printable(str(key))}"
            if not _is_text(key):
                yield Problem(f"{here} (key)", "expected Unicode text")
            yield from _not_plain(item, here)
    elif type(value) is list:
        for index, item in enumerate(value):
            yield from _not_plain(item, f"{path}[{index}]")
    elif type(value) is str:
        if not _is_text(value):
            yield Problem(path, "expected Unicode text, got half a surrogate pair")
    elif type(value) is float:
        if not math.isfinite(value):
            yield Problem(path, "expected a number that can be written in digits")
    elif type(value) is int:
        if not -_BEYOND_WHOLE <= value < _BEYOND_WHOLE:
            yield Problem(path, "expected a number that 64 bits can hold")
    elif value is not None and type(value) is not bool:
        yield Problem(path, _expected(dict, value))


def _wire_name(name: str) -> str:
    head, *rest = name.split("_")
    return _WIRE_NAMES.get(name) or head + "".join(part.capitalize() for part in rest)


def _tuple_of(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    item = kind.__args__[0]
    handler = converter.get_structure_hook(item)

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _Wrong(_expected(list, value))
        try:
            return tuple([handler(element, item) for element in value])
        except Exception:  # noqa: BLE001 - looked at again, one by one
            problems: list[Problem] = []
            for index, element in enumerate(value):
                try:
                    handler(element, item)
                except Exception as exc:  # noqa: BLE001 - collected, not swallowed: raised below
                    problems.extend(_problems(exc, f"[{index}]"))
            raise InvalidRecord(*problems) from None

    return structure


def _map_of(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    item = kind.__args__[1]
    handler = converter.get_structure_hook(item)

    def structure(value: Any, _: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _Wrong(_expected(dict, value))
        decoded: dict[str, Any] = {}
        problems: list[Problem] = []
        for key, element in value.items():
            if element is None:
                continue
            try:
                decoded[_text(key)] = handler(element, item)
            except Exception as exc:  # noqa: BLE001 - collected, not swallowed: raised below
                problems.extend(_problems(exc, f".{_printable(str(key))}"))
        if problems:
            raise InvalidRecord(*problems)
        return decoded

    return structure


def _port_text(value: Any) -> Any:
    """A port as the text that it is on the wire."""
    is_whole = type(value) is int or (type(value) is float and value.is_integer())
    return str(int(value)) if is_whole else value


def _respell(kind: type, raw: Any) -> Any:
    """Turn older and shorter spellings of one class into the current one. Returns `raw` itself where nothing is to do."""
    if kind is DomainRecord and type(raw) is str:
        return {"name": raw}
    if type(raw) is not dict:
        return raw
    if kind in _ENVELOPED and raw.get("data") is not None:
        if type(raw["data"]) is not dict:
            raise _Wrong(_expected(dict, raw["data"]), ".data")
        raw = {**raw["data"], "id": raw.get("id")}
    if kind is ClusterRecord:
        if "nodes" not in raw and "servers" in raw:
            raw = {**raw, "nodes": raw["servers"]}
        if raw.get("id") is None and type(raw.get("name")) is str:  # records of 2022 have no id
            raw = {**raw, "id": raw["name"]}
    elif kind is Ports and type(raw.get("custom")) is dict:
        raw = {**raw, "custom": {k: _port_text(v) for k, v in raw["custom"].items()}}
    elif kind is HealthCheckRecord and type(raw.get("command")) is str:
        raw = {**raw, "command": ["CMD-SHELL", raw["command"]]}
    if None in raw.values():
        raw = {key: value for key, value in raw.items() if value is not None}
    return raw


_RESPELLED = {*_ENVELOPED, DomainRecord, Ports, HealthCheckRecord}


def _class_hook(kind: type, converter: Any) -> Callable[[Any, Any], Any]:
    attrs.resolve_types(kind)
    names: dict[str, Any] = {a.name: override(rename=_wire_name(a.name)) for a in attrs.fields(kind)}
    if kind in _WITH_ID:
        names["id"] = override(struct_hook=_service_id if kind is ServiceRecord else _id)
    base: Callable[[Any, Any], Any] = make_dict_structure_fn(
        kind, converter, _cattrs_detailed_validation=True, **names
    )
    respelled = kind in _RESPELLED

    def structure(raw: Any, _: Any) -> Any:
        given = raw
        if respelled:
            raw = _respell(kind, raw)
            if type(raw) is not dict:
                raise _Wrong(_expected(dict, raw))
        elif type(raw) is not dict:
            raise _Wrong(_expected(dict, raw))
        elif None in raw.values():
            raw = {key: value for key, value in raw.items() if value is not None}
        try:
            return base(raw, kind)
        except cattrs.ClassValidationError as exc:
            enveloped = kind in _ENVELOPED and given.get("data") is not None
            raise InvalidRecord(*_problems(exc, "", ".data" if enveloped else "")) from None

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


_converter = _make_converter()


def _problems(exc: BaseException, path: str, inside: str = "") -> Iterator[Problem]:
    """Flatten what cattrs raised into problems with wire paths. `inside` leads from a record to its fields."""
    if isinstance(exc, InvalidRecord):
        for problem in exc.problems:
            yield Problem(path + problem.path, problem.text)
    elif isinstance(exc, _Wrong):
        yield Problem(path + exc.path, str(exc))
    elif isinstance(exc, cattrs.ClassValidationError):
        found, others = exc.group_exceptions()
        for inner, note in found:
            below = f"{path}.{note.name}" if note.name == "id" else f"{path}{inside}.{_wire_name(note.name)}"
            yield from _problems(inner, below)
        for inner in others:
            yield from _problems(inner, path + inside)
    elif isinstance(exc, KeyError):
        name = str(exc.args[0])
        # KeyError carries the wire name; cattrs puts the attribute's note around it, so `path` may end in it already
        yield Problem(path if path.endswith(f".{name}") else f"{path}.{name}", "is missing")
    else:
        yield Problem(path, f"cannot be decoded ({type(exc).__name__})")


def decode(raw: object, kind: type[T], path: str = "$") -> T:
    """Decode one record of class `kind`. Raises InvalidRecord with every problem found, paths starting at `path`."""
    try:
        return _converter.structure(raw, kind)
    except Exception as exc:  # noqa: BLE001 - cattrs may raise anything for a hostile document
        raise InvalidRecord(*_problems(exc, path)) from None


RECORD_LIMIT = 100_000
"""Records of one kind; a document with more is no cluster."""
REJECTED_LIMIT = 1000
"""Records that cannot be read; a document with more is nonsense as a whole."""
PROBLEMS_SHOWN = 20
"""Of one record."""


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=_HasId)


def _raw_form(raw: object) -> bytes | None:
    """The bytes of a raw record: other than the objects, they tell 1 from true. None for what is not JSON."""
    try:
        return orjson.dumps(raw, option=_PLAIN_JSON | orjson.OPT_SORT_KEYS)
    except TypeError:
        return None


class _Memo(Generic[R]):
    """The raw and the decoded form of each record of one kind, by id."""

    def __init__(self, kind: type[R], label: str) -> None:
        self.kind, self.label = kind, label
        self._structure: Callable[[object, type[R]], R] = _converter.get_structure_hook(kind)
        self._known: dict[str, tuple[bytes | None, R]] = {}

    def decode(self, raw: object) -> R:
        """Decode a record, or find it. May raise anything that `_problems` understands."""
        key = raw.get("id") if type(raw) is dict else None
        if type(key) is not str:
            return self._structure(raw, self.kind)
        known, form = self._known.get(key), _raw_form(raw)
        if known is not None and form is not None and known[0] == form:
            return known[1]
        record = self._structure(raw, self.kind)
        self._known[key] = (form, record)
        return record

    def forget_all_but(self, records: list[R]) -> None:
        """Forget what is not among these records."""
        if len(self._known) > len(records):
            ids = {record.id for record in records}
            self._known = {key: value for key, value in self._known.items() if key in ids}


class RecordDecoder:
    """Decodes cluster documents, reusing the records of the previous document that did not change."""

    def __init__(self) -> None:
        self._services = _Memo(ServiceRecord, "service")
        self._images = _Memo(ImageRecord, "image")
        self._registries = _Memo(ExternalRegistryRecord, "external registry")
        self._bundles = _Memo(SecretBundleRecord, "secret bundle")
        self._groups = _Memo(SecretGroupRecord, "secret group")

    def decode(self, document: object) -> Records:
        """Decode a cluster document: the answers of Cloudly's methods side by side.

        `configData` and `services` are required; `images`, `externalRegistries`, `secretBundles`, `secretGroups`,
        `platform`, `externalGatewayConfig` and `certificates` are optional. Raises InvalidRecord when the document as
        a whole cannot be used; a single bad record is listed in `Records.rejected` instead.
        """
        document, cluster = _frame(document)
        rejected: list[RejectedRecord] = []
        platform, unreadable = _platform(_state(document.get("platform")), rejected)
        return Records(
            cluster=cluster,
            services=tuple(self._list(self._services, document, "services", rejected)),
            images=self._by_id(self._images, document, "images", rejected),
            external_registries=self._by_id(self._registries, document, "externalRegistries", rejected),
            secret_bundles=self._by_id(self._bundles, document, "secretBundles", rejected),
            secret_groups=self._by_id(self._groups, document, "secretGroups", rejected),
            platform=platform,
            unreadable_bindings=unreadable,
            gateway=_optional(document, "externalGatewayConfig", GatewayRecord, rejected),
            certificates=_certificates(document.get("certificates"), rejected),
            rejected=tuple(rejected),
        )

    def _list(
        self, memo: _Memo[R], document: Mapping[str, Any], key: str, rejected: list[RejectedRecord]
    ) -> list[R]:
        decoded: list[R] = []
        for index, raw in enumerate(document.get(key) or ()):
            try:
                decoded.append(memo.decode(raw))
            except Exception as exc:  # noqa: BLE001 - cattrs may raise anything for a hostile document
                problems = tuple(islice(_problems(exc, f"$.{key}[{index}]"), PROBLEMS_SHOWN))
                rejected.append(_rejected(memo.label, raw, InvalidRecord(*problems)))
                if len(rejected) > REJECTED_LIMIT:
                    text = f"more than {REJECTED_LIMIT} records cannot be read"
                    raise InvalidRecord(Problem(f"$.{key}", text)) from None
        memo.forget_all_but(decoded)
        return decoded

    def _by_id(
        self, memo: _Memo[R], document: Mapping[str, Any], key: str, rejected: list[RejectedRecord]
    ) -> dict[Any, R]:
        records = self._list(memo, document, key, rejected)
        found = {record.id: record for record in records}
        if len(found) == len(records):
            return found
        count: dict[str, int] = {}
        for record in records:
            count[record.id] = count.get(record.id, 0) + 1
        for identity in sorted(identity for identity, times in count.items() if times > 1):
            del found[identity]
            reason = f"id {identity} occurs {count[identity]} times @ $.{key}"
            rejected.append(RejectedRecord(kind=memo.label, id=identity, name=None, reasons=(reason,)))
        return found


def decode_records(document: object) -> Records:
    """Decode one cluster document (see `RecordDecoder.decode`) without remembering anything."""
    return RecordDecoder().decode(document)


def _frame(document: object) -> tuple[Mapping[str, Any], ClusterRecord]:
    """Check what must hold before single records can be looked at."""
    if type(document) is not dict:
        raise InvalidRecord(Problem("$", _expected(dict, document)))
    if type(document.get("response")) is dict and "method" in document:  # a captured answer, envelope and all
        document = {
            **document["response"],
            **{k: v for k, v in document.items() if k not in {"response", "request"}},
        }
    problems: list[Problem] = []
    raw = document.get("configData")
    cluster = None
    if raw is None:
        problems.append(Problem("$.configData", "is missing: it says which cluster this is"))
    else:
        try:
            cluster = decode(raw, ClusterRecord, "$.configData")
        except InvalidRecord as exc:
            problems.extend(exc.problems)
    if document.get("services") is None and type(raw) is dict:
        old = (raw["data"] if type(raw.get("data")) is dict else raw).get("containers")
        if old is not None:  # before 2023 the services travelled inside the cluster record
            document = {**document, "services": old}
    if document.get("services") is None:
        problems.append(
            Problem("$.services", "is missing: write an empty list if there shall be no services")
        )
    for key in ("services", "images", "externalRegistries", "secretBundles", "secretGroups"):
        value = document.get(key)
        if value is not None and type(value) is not list:
            problems.append(Problem(f"$.{key}", _expected(list, value)))
        elif value is not None and len(value) > RECORD_LIMIT:
            problems.append(Problem(f"$.{key}", f"has more than {RECORD_LIMIT} records"))
    if problems or cluster is None:
        raise InvalidRecord(*problems)
    return document, cluster


def _optional(
    document: Mapping[str, Any], key: str, kind: type[T], rejected: list[RejectedRecord]
) -> T | None:
    raw = document.get(key)
    if raw is None:
        return None
    try:
        return decode(raw, kind, f"$.{key}")
    except InvalidRecord as exc:
        rejected.append(_rejected(key, raw, exc))
        return None


def _state(raw: object) -> object:
    """The desired state inside the answer that has it, if it is one."""
    return raw["desiredState"] if type(raw) is dict and type(raw.get("desiredState")) is dict else raw


def platform_frame(raw: object, path: str) -> PlatformRecord:
    """Decode a platform's desired state without its bindings, which fail one by one. Raises InvalidRecord."""
    if type(raw) is not dict:
        raise InvalidRecord(Problem(path, _expected(dict, raw)))
    bindings = raw.get("bindings")
    if bindings is not None and type(bindings) is not list:
        raise InvalidRecord(Problem(f"{path}.bindings", _expected(list, bindings)))
    if bindings is not None and len(bindings) > RECORD_LIMIT:
        raise InvalidRecord(Problem(f"{path}.bindings", f"has more than {RECORD_LIMIT} records"))
    return decode({**raw, "bindings": []}, PlatformRecord, path)


def _platform(
    raw: object, rejected: list[RejectedRecord]
) -> tuple[PlatformRecord | None, frozenset[ServiceId | None]]:
    """The platform's desired state, and the services with a binding that cannot be read; None: whoever's that may be."""
    if raw is None:
        return None, frozenset()
    try:
        frame = platform_frame(raw, "$.platform")
    except InvalidRecord as exc:
        rejected.append(_rejected("platform", raw, exc))
        return None, frozenset({None})
    assert type(raw) is dict  # noqa: S101 - see platform_frame
    bindings: list[BindingRecord] = []
    unreadable: set[ServiceId | None] = set()
    for index, one in enumerate(raw.get("bindings") or ()):
        try:
            bindings.append(decode(one, BindingRecord, f"$.platform.bindings[{index}]"))
        except InvalidRecord as exc:
            if len(rejected) <= REJECTED_LIMIT:
                rejected.append(_rejected("binding", one, exc))
            unreadable.add(_service_of(one))
    return attrs.evolve(frame, bindings=tuple(bindings)), frozenset(unreadable)


def _service_of(raw: object) -> ServiceId | None:
    """The service of a binding that cannot be read, as far as it says."""
    if type(raw) is not dict:
        return None
    data = raw["data"] if type(raw.get("data")) is dict else raw
    service = data.get("serviceId")
    return ServiceId(service) if _is_text(service) and service else None


def _certificates(raw: object, rejected: list[RejectedRecord]) -> dict[str, CertificateRecord]:
    if raw is None:
        return {}
    if type(raw) is not dict:
        reason = str(Problem("$.certificates", _expected(dict, raw)))
        rejected.append(RejectedRecord(kind="certificate", id=None, name=None, reasons=(reason,)))
        return {}
    spellings: dict[str, list[str]] = {}
    for key, item in raw.items():
        if item is not None:
            spellings.setdefault(canonical_host(_printable(str(key))), []).append(key)
    decoded: dict[str, CertificateRecord] = {}
    for host, keys in spellings.items():
        try:
            decoded[host] = _certificate(raw, keys)
        except InvalidRecord as exc:
            reasons = tuple(map(str, exc.problems))
            rejected.append(RejectedRecord(kind="certificate", id=host, name=None, reasons=reasons))
    return decoded


def _certificate(raw: Mapping[Any, Any], keys: list[Any]) -> CertificateRecord:
    """The certificate under one host name, of which there must be one spelling only. Raises InvalidRecord."""
    names = [_printable(str(key)) for key in keys]
    if len(names) > 1:
        others = (f"the same host name as {' and '.join(n for n in names if n != name)}" for name in names)
        raise InvalidRecord(
            *(Problem(f"$.certificates.{n}", text) for n, text in zip(names, others, strict=True))
        )
    return decode(raw[keys[0]], CertificateRecord, f"$.certificates.{names[0]}")


def _rejected(label: str, raw: object, exc: InvalidRecord) -> RejectedRecord:
    """What can still be said of a record that cannot be decoded."""
    identity = name = None
    if type(raw) is dict:
        data = raw["data"] if type(raw.get("data")) is dict else raw
        identity, name = raw.get("id"), data.get("name")
    is_service = label == "service"
    return RejectedRecord(
        kind=label,
        id=identity if _is_text(identity) and id_problem(identity, of_service=is_service) is None else None,
        name=name if _is_text(name) else None,
        reasons=tuple(map(str, exc.problems)),
        salvaged=_salvaged(raw) if is_service else None,
    )


_PLACEHOLDERS = {"id": "unread", "name": "unread"}


def _salvaged(raw: object) -> Salvaged[ServiceRecord] | None:
    """What can be read of a service that cannot be decoded as a whole."""
    if type(raw) is not dict:
        return None
    data = raw["data"] if type(raw.get("data")) is dict else raw
    flat = {key: value for key, value in data.items() if key not in {"id", "data"} and value is not None}
    return salvage({**flat, "id": raw.get("id")}, _decode_service, _PLACEHOLDERS)


def _decode_service(raw: object) -> ServiceRecord:
    return decode(raw, ServiceRecord, "")


def _is_text(value: object) -> TypeGuard[str]:
    return type(value) is str and _printable(value) == value
