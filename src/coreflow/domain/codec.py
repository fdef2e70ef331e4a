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
from typing import Any, Generic, TypeVar, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from .errors import InvalidRecord, Problem
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

_TYPE_NAMES: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    type(None): "null",
}


class _Wrong(ValueError):
    """A value of the wrong type; `path` leads from the field to the culprit."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.path = path


def _expected(kind: type, value: object) -> str:
    return f"expected {_TYPE_NAMES[kind]}, got {_TYPE_NAMES.get(type(value), type(value).__name__)}"


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _Wrong(_expected(kind, value))
        return value

    return check


def _whole(value: Any, _: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():  # JavaScript has one kind of number
        return int(value)
    raise _Wrong(_expected(int, value))


def _number(value: Any, _: Any) -> float:
    if (type(value) is int or type(value) is float) and math.isfinite(value):
        return float(value)
    raise _Wrong(_expected(float, value))


def _text_map(value: Any, _: Any = None) -> dict[str, str]:
    if type(value) is not dict:
        raise _Wrong(_expected(dict, value))
    for key, item in value.items():
        if type(item) is not str:
            raise _Wrong(_expected(str, item), f".{key}")
        if type(key) is not str:
            raise _Wrong("expected text as key")
    return value


def _object_map(value: Any, _: Any) -> dict[str, object]:
    if type(value) is not dict:
        raise _Wrong(_expected(dict, value))
    return value


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
                    problems.extend(_problems(exc, f"[{index}]", item))
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
            try:
                decoded[str(key)] = handler(element, item)
            except Exception as exc:  # noqa: BLE001 - collected, not swallowed: raised below
                problems.extend(_problems(exc, f".{key}", item))
        if problems:
            raise InvalidRecord(*problems)
        return decoded

    return structure


def _respell(kind: type, raw: Any) -> Any:
    """Turn older and shorter spellings of one class into the current one. Returns `raw` itself where nothing is to do."""
    if kind is DomainRecord and type(raw) is str:
        return {"name": raw}
    if type(raw) is not dict:
        return raw
    if kind in _ENVELOPED and type(raw.get("data")) is dict:
        raw = {**raw["data"], "id": raw.get("id")}
    if kind is ClusterRecord:
        if "nodes" not in raw and "servers" in raw:
            raw = {**raw, "nodes": raw["servers"]}
        if raw.get("id") is None and type(raw.get("name")) is str:  # records of 2022 have no id
            raw = {**raw, "id": raw["name"]}
    elif kind is Ports and type(raw.get("custom")) is dict:
        raw = {**raw, "custom": {k: str(v) if type(v) is int else v for k, v in raw["custom"].items()}}
    elif kind is HealthCheckRecord and type(raw.get("command")) is str:
        raw = {**raw, "command": ["CMD-SHELL", raw["command"]]}
    if None in raw.values():
        raw = {key: value for key, value in raw.items() if value is not None}
    return raw


_RESPELLED = {*_ENVELOPED, DomainRecord, Ports, HealthCheckRecord}


def _class_hook(kind: type, converter: Any) -> Callable[[Any, Any], Any]:
    attrs.resolve_types(kind)
    names: dict[str, Any] = {a.name: override(rename=_wire_name(a.name)) for a in attrs.fields(kind)}
    base: Callable[[Any, Any], Any] = make_dict_structure_fn(
        kind, converter, _cattrs_detailed_validation=True, **names
    )
    respelled = kind in _RESPELLED

    def structure(raw: Any, _: Any) -> Any:
        if respelled:
            raw = _respell(kind, raw)
            if type(raw) is not dict:
                raise _Wrong(_expected(dict, raw))
        elif type(raw) is not dict:
            raise _Wrong(_expected(dict, raw))
        elif None in raw.values():
            raw = {key: value for key, value in raw.items() if value is not None}
        return base(raw, kind)

    return structure


def _is_a(origin: object) -> Callable[[Any], bool]:
    def check(kind: Any) -> bool:
        return get_origin(kind) is origin

    return check


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _exact(str))
    converter.register_structure_hook(bool, _exact(bool))
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    converter.register_structure_hook_factory(_is_a(tuple), _tuple_of)
    converter.register_structure_hook_factory(_is_a(Mapping), _map_of)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, str], _text_map)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, object], _object_map)
    return converter


_converter = _make_converter()


def _problems(exc: BaseException, path: str, kind: type | None) -> Iterator[Problem]:
    """Flatten what cattrs raised into problems with wire paths. `kind` is the class that was being decoded."""
    if isinstance(exc, InvalidRecord):
        for problem in exc.problems:
            yield Problem(path + problem.path, problem.text)
    elif isinstance(exc, _Wrong):
        yield Problem(path + exc.path, str(exc))
    elif isinstance(exc, cattrs.ClassValidationError):
        found, others = exc.group_exceptions()
        inside = ".data" if kind in _ENVELOPED else ""
        for inner, note in found:
            below = f"{path}.{note.name}" if note.name == "id" else f"{path}{inside}.{_wire_name(note.name)}"
            yield from _problems(inner, below, _class_of(note.type))
        for inner in others:
            yield from _problems(inner, path + inside, kind)
    elif isinstance(exc, KeyError):
        name = str(exc.args[0])
        # KeyError carries the wire name; cattrs puts the attribute's note around it, so `path` may end in it already
        yield Problem(path if path.endswith(f".{name}") else f"{path}.{name}", "is missing")
    else:
        yield Problem(path, f"cannot be decoded ({type(exc).__name__})")


def _class_of(kind: Any) -> type | None:
    for candidate in (kind, *getattr(kind, "__args__", ())):
        if isinstance(candidate, type) and attrs.has(candidate):
            return candidate
    return None


def decode(raw: object, kind: type[T], path: str = "$") -> T:
    """Decode one record of class `kind`. Raises InvalidRecord with every problem found, paths starting at `path`."""
    try:
        return _converter.structure(raw, kind)
    except Exception as exc:  # noqa: BLE001 - cattrs may raise anything for a hostile document
        raise InvalidRecord(*_problems(exc, path, kind)) from None


class _Memo(Generic[T]):
    """The raw and the decoded form of each record of one kind, by place and by id."""

    def __init__(self, kind: type[T], label: str) -> None:
        self.kind, self.label = kind, label
        self.known: dict[str, tuple[object, T]] = {}

    def decode(self, raw: object, path: str) -> T:
        key = raw.get("id") if type(raw) is dict else None
        if type(key) is str:
            known = self.known.get(key)
            if known is not None and known[0] == raw:
                return known[1]
        record = decode(raw, self.kind, path)
        if type(key) is str:
            self.known[key] = (raw, record)
        return record

    def forget_all_but(self, keys: set[str]) -> None:
        if len(self.known) > len(keys):
            self.known = {key: value for key, value in self.known.items() if key in keys}


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
        services = [record for _, record in self._list(self._services, document, "services", rejected)]
        return Records(
            cluster=cluster,
            services=tuple(services),
            images=self._by_id(self._images, document, "images", rejected),
            external_registries=self._by_id(self._registries, document, "externalRegistries", rejected),
            secret_bundles=self._by_id(self._bundles, document, "secretBundles", rejected),
            secret_groups=self._by_id(self._groups, document, "secretGroups", rejected),
            platform=_optional(document, "platform", PlatformRecord, rejected),
            gateway=_optional(document, "externalGatewayConfig", GatewayRecord, rejected),
            certificates=_certificates(document.get("certificates"), rejected),
            rejected=tuple(rejected),
        )

    def _list(
        self, memo: _Memo[T], document: Mapping[str, Any], key: str, rejected: list[RejectedRecord]
    ) -> list[tuple[str, T]]:
        decoded: list[tuple[str, T]] = []
        seen: set[str] = set()
        for index, raw in enumerate(document.get(key) or ()):
            try:
                record = memo.decode(raw, f"$.{key}[{index}]")
            except InvalidRecord as exc:
                rejected.append(_rejected(memo.label, raw, exc))
            else:
                identity = record.id  # type: ignore[attr-defined]  # every record with a memo has one
                seen.add(identity)
                decoded.append((identity, record))
        memo.forget_all_but(seen)
        return decoded

    def _by_id(
        self, memo: _Memo[T], document: Mapping[str, Any], key: str, rejected: list[RejectedRecord]
    ) -> dict[Any, T]:
        pairs = self._list(memo, document, key, rejected)
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        count: dict[str, int] = {}
        for identity, _ in pairs:
            count[identity] = count.get(identity, 0) + 1
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
        old = raw.get("containers") or (
            raw["data"].get("containers") if type(raw.get("data")) is dict else None
        )
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
    if problems or cluster is None:
        raise InvalidRecord(*problems)
    return document, cluster


def _optional(
    document: Mapping[str, Any], key: str, kind: type[T], rejected: list[RejectedRecord]
) -> T | None:
    raw = document.get(key)
    if type(raw) is dict and type(raw.get("desiredState")) is dict:
        raw = raw["desiredState"]
    if raw is None:
        return None
    try:
        return decode(raw, kind, f"$.{key}")
    except InvalidRecord as exc:
        rejected.append(_rejected(key, raw, exc))
        return None


def _certificates(raw: object, rejected: list[RejectedRecord]) -> dict[str, CertificateRecord]:
    if raw is None:
        return {}
    if type(raw) is not dict:
        reason = str(Problem("$.certificates", _expected(dict, raw)))
        rejected.append(RejectedRecord(kind="certificate", id=None, name=None, reasons=(reason,)))
        return {}
    decoded: dict[str, CertificateRecord] = {}
    for host, item in raw.items():
        try:
            decoded[str(host)] = decode(item, CertificateRecord, f"$.certificates.{host}")
        except InvalidRecord as exc:
            reasons = tuple(map(str, exc.problems))
            rejected.append(RejectedRecord(kind="certificate", id=str(host), name=None, reasons=reasons))
    return decoded


def _rejected(label: str, raw: object, exc: InvalidRecord) -> RejectedRecord:
    """What can still be said of a record that cannot be decoded."""
    identity = name = None
    if type(raw) is dict:
        data = raw["data"] if type(raw.get("data")) is dict else raw
        identity, name = raw.get("id"), data.get("name")
    return RejectedRecord(
        kind=label,
        id=identity if type(identity) is str else None,
        name=name if type(name) is str else None,
        reasons=tuple(map(str, exc.problems)),
    )
