"""Wire <-> record: the one place that knows Cloudly's spelling.

Strict in types (cattrs alone would turn `"no"` into `True`), calm about unknown fields, which are ignored and listed; or
strict in them, too: then they are errors of their records. A JSON
`null` counts as absent, since the peer is written in a language that sends both. Older spellings of Cloudly's
interfaces are accepted: `servers` for `nodes`, `containers` inside the cluster for `services`, domains as plain text,
`memorySizeMB`, records without the `data` envelope, a registry login inside the cluster record.

Every problem of a document is reported at once, with its path and never with a value. A bad record is rejected
alone: it becomes a `RejectedRecord`, and everything else is decoded.

`RecordDecoder` remembers the raw form of what it decoded: a record whose raw form is unchanged comes back as the very
same object, so that the steps behind it can recognise unchanged records by identity.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import attrs
import orjson

from coreflow.domain.errors import InvalidRecord, Problem
from coreflow.domain.ids import ServiceId, id_problem

from .converter import (
    PLAIN_JSON,
    T,
    Unclear,
    converter,
    decode,
    expected,
    is_text,
    printable,
    problems_of,
)
from .frame import RECORD_LIMIT, Frame, frame_of
from .hosts import canonical_host
from .keys import spelt
from .models import (
    BindingRecord,
    CertificateRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    ImageRecord,
    PlatformRecord,
    Records,
    RejectedRecord,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
    UnknownField,
)
from .places import Origin
from .salvage import Salvaged, salvage
from .shapes import DESIRED_STATE
from .unknown import Found, below, unknown_in, without_space

REJECTED_LIMIT = 1000
"""Records that cannot be read; a document with more is nonsense as a whole."""
PROBLEMS_SHOWN = 20
"""Of one record."""
UNKNOWN_LIMIT = 1000
"""Unknown fields that are told of one document."""
CERTIFICATE = "certificate"


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=_HasId)


def _raw_form(raw: object) -> bytes | None:
    """Return what identifies a raw record: other than the objects, it tells 1 from true. None for what is not JSON."""
    try:
        return hashlib.sha256(orjson.dumps(raw, option=PLAIN_JSON | orjson.OPT_SORT_KEYS)).digest()
    except TypeError:
        return None


class _Memo(Generic[R]):
    """The raw and the decoded form of each record of one kind, by id."""

    def __init__(self, kind: type[R], label: str) -> None:
        self.kind, self.label = kind, label
        self._structure: Callable[[object, type[R]], R] = converter.get_structure_hook(kind)
        self._known: dict[str, tuple[bytes | None, R, Found]] = {}

    def decode(self, raw: object) -> tuple[R, Found]:
        """Decode a record, or find it; and its unknown fields. May raise anything that `problems_of` understands."""
        key = raw.get("id") if type(raw) is dict else None
        if type(key) is not str:
            return self._structure(raw, self.kind), unknown_in(raw, self.kind)
        known, form = self._known.get(key), _raw_form(raw)
        if known is not None and form is not None and known[0] == form:
            return known[1:]
        record, unknown = self._structure(raw, self.kind), unknown_in(raw, self.kind)
        self._known[key] = (form, record, unknown)
        return record, unknown

    def forget_all_but(self, records: list[R]) -> None:
        """Forget what is not among these records."""
        if len(self._known) > len(records):
            ids = {record.id for record in records}
            self._known = {key: value for key, value in self._known.items() if key in ids}


class _Findings:
    """The problems of one document's records, gathered while they are decoded."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.rejected: list[RejectedRecord] = []
        self.unknown: list[UnknownField] = []
        self.positions: list[int] = []
        """Where each service was that could be decoded."""
        self.groups: dict[str, int] = {}
        """Where each secret group was that could be decoded, by its id."""

    def take(self, unknown: Found) -> tuple[Problem, ...]:
        """Keep unknown fields; where they are errors, give these instead."""
        if self.strict:
            return tuple(one.problem for one in unknown)
        self.unknown += unknown[: UNKNOWN_LIMIT - len(self.unknown)]
        return ()

    def decode(self, raw: object, kind: type[T], path: str, label: str) -> T:
        """Decode one record. Raises InvalidRecord with everything that is wrong with it."""
        problems = self.take(below(unknown_in(raw, kind), path, label, *_named(raw, label)))
        try:
            record = decode(raw, kind, path)
        except InvalidRecord as exc:
            problems = (*exc.problems, *problems)
        if problems:
            raise InvalidRecord(*problems[:PROBLEMS_SHOWN])
        return record


class RecordDecoder:
    """Decodes cluster documents, reusing the records of the previous document that did not change.

    With `strict`, a field that nobody reads is an error of its record.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._services = _Memo(ServiceRecord, "service")
        self._images = _Memo(ImageRecord, "image")
        self._registries = _Memo(ExternalRegistryRecord, "external registry")
        self._bundles = _Memo(SecretBundleRecord, "secret bundle")
        self._groups = _Memo(SecretGroupRecord, "secret group")

    def decode(self, document: object, *, consume: bool = False) -> Records:
        """Decode a cluster document: the answers of Cloudly's methods side by side.

        With `consume` the document is the caller's no more: its parts are let go as they are decoded, so that a large one
        is not in memory twice.

        `configData` and `services` are required; `images`, `externalRegistries`, `secretBundles`, `secretGroups`,
        `platform`, `externalGatewayConfig` and `certificates` are optional. Raises InvalidRecord when the document as
        a whole cannot be used; a single bad record is listed in `Records.rejected` instead.
        """
        found = _Findings(strict=self._strict)
        frame = frame_of(document, found.take)
        document = _consumed(frame.document) if consume else frame.document
        platform, unreadable = _platform(document.get("platform"), frame.path("platform"), found)
        gateway = document.get("externalGatewayConfig")
        return Records(
            cluster=frame.cluster,
            services=tuple(self._list(self._services, document, "services", frame, found)),
            images=self._by_id(self._images, document, "images", frame, found),
            external_registries=self._by_id(self._registries, document, "externalRegistries", frame, found),
            secret_bundles=self._by_id(self._bundles, document, "secretBundles", frame, found),
            secret_groups=self._by_id(self._groups, document, "secretGroups", frame, found),
            platform=platform,
            unreadable_bindings=unreadable,
            gateway=_optional(gateway, GatewayRecord, "externalGatewayConfig", frame, found),
            certificates=_certificates(document.get("certificates"), frame.path("certificates"), found),
            rejected=tuple(found.rejected),
            unknown=tuple(found.unknown),
            origin=Origin(
                frame.path("services"),
                tuple(found.positions),
                groups=frame.path("secretGroups"),
                group_positions=found.groups,
            ),
        )

    def _list(
        self, memo: _Memo[R], document: Mapping[str, Any], key: str, frame: Frame, found: _Findings
    ) -> list[R]:
        decoded: list[R] = []
        where = frame.path(key)
        for index, raw in enumerate(_each(document, key)):
            path = f"{where}[{index}]"
            record: R | None = None
            problems: tuple[Problem, ...] = ()
            try:
                record, unknown = memo.decode(raw)
            except Exception as exc:  # noqa: BLE001 - cattrs may raise anything for a hostile document
                problems = tuple(islice(problems_of(exc, path), PROBLEMS_SHOWN))
                unknown = unknown_in(raw, memo.kind)
            if unknown:
                problems += found.take(below(unknown, path, memo.label, *_named(raw, memo.label)))
            if record is not None and not problems:
                decoded.append(record)
                if memo is self._services:
                    found.positions.append(index)
                elif memo is self._groups:
                    found.groups[record.id] = index
                continue
            wrong = InvalidRecord(*problems[:PROBLEMS_SHOWN])
            found.rejected.append(_rejected(memo.label, raw, wrong, path))
            if len(found.rejected) > REJECTED_LIMIT:
                raise InvalidRecord(Problem(where, f"more than {REJECTED_LIMIT} records cannot be read"))
        memo.forget_all_but(decoded)
        return decoded

    def _by_id(
        self, memo: _Memo[R], document: Mapping[str, Any], key: str, frame: Frame, findings: _Findings
    ) -> dict[Any, R]:
        records = self._list(memo, document, key, frame, findings)
        found = {record.id: record for record in records}
        if len(found) == len(records):
            return found
        count: dict[str, int] = {}
        for record in records:
            count[record.id] = count.get(record.id, 0) + 1
        for identity in sorted(identity for identity, times in count.items() if times > 1):
            del found[identity]
            reason = f"id {identity} occurs {count[identity]} times @ {frame.path(key)}"
            findings.rejected.append(
                RejectedRecord(kind=memo.label, id=identity, name=None, reasons=(reason,))
            )
        return found


class _Consumed(dict[str, Any]):
    """A document whose lists are given out once, record by record."""


def _consumed(document: Mapping[str, Any]) -> _Consumed:
    found = _Consumed(document)
    if isinstance(document, dict):
        document.clear()
    return found


def _each(document: Mapping[str, Any], key: str) -> Iterator[object]:
    """The records of a list; those of a consumed document are forgotten one by one."""
    if not isinstance(document, _Consumed):
        yield from document.get(key) or ()
        return
    rest = deque(document.pop(key, None) or ())
    while rest:
        yield rest.popleft()


def decode_records(document: object) -> Records:
    """Decode one cluster document (see `RecordDecoder.decode`) without remembering anything."""
    return RecordDecoder().decode(document)


def _optional(raw: object, kind: type[T], key: str, frame: Frame, found: _Findings) -> T | None:
    if raw is None:
        return None
    try:
        return found.decode(raw, kind, frame.path(key), key)
    except InvalidRecord as exc:
        found.rejected.append(_rejected(key, raw, exc))
        return None


def _state(raw: object) -> object:
    """The desired state inside the answer that has it, if it is one."""
    return raw[DESIRED_STATE] if type(raw) is dict and type(raw.get(DESIRED_STATE)) is dict else raw


def platform_frame(raw: object, path: str) -> PlatformRecord:
    """Decode a platform's desired state without its bindings, which fail one by one. Raises InvalidRecord."""
    if type(raw) is not dict:
        raise InvalidRecord(Problem(path, expected(dict, raw)))
    bindings = raw.get("bindings")
    if bindings is not None and type(bindings) is not list:
        raise InvalidRecord(Problem(f"{path}.bindings", expected(list, bindings)))
    if bindings is not None and len(bindings) > RECORD_LIMIT:
        raise InvalidRecord(Problem(f"{path}.bindings", f"has more than {RECORD_LIMIT} records"))
    return decode({**raw, "bindings": []}, PlatformRecord, path)


def _platform(
    outer: object, path: str, found: _Findings
) -> tuple[PlatformRecord | None, frozenset[ServiceId | None]]:
    """The platform's desired state, and the services with a binding that cannot be read; None: whoever's that may be."""
    raw = _state(outer)
    if raw is None:
        return None, frozenset()
    where = path if raw is outer else f"{path}.{DESIRED_STATE}"
    problems = found.take(below(_unknown_around(outer, raw), path, "platform", None, None))
    try:
        frame = platform_frame(raw, where)
    except InvalidRecord as exc:
        problems = (*exc.problems, *problems)
    if problems:
        found.rejected.append(_rejected("platform", raw, InvalidRecord(*problems)))
        return None, frozenset({None})
    assert type(raw) is dict  # noqa: S101 - see platform_frame
    bindings: list[BindingRecord] = []
    unreadable: set[ServiceId | None] = set()
    for index, one in enumerate(raw.get("bindings") or ()):
        try:
            bindings.append(found.decode(one, BindingRecord, f"{where}.bindings[{index}]", "binding"))
        except InvalidRecord as exc:
            if len(found.rejected) <= REJECTED_LIMIT:
                found.rejected.append(_rejected("binding", one, exc))
            unreadable.add(_service_of(one))
    return attrs.evolve(frame, bindings=tuple(bindings)), frozenset(unreadable)


def _unknown_around(outer: object, raw: object) -> Found:
    """The unknown fields of a platform, but not those of its bindings, which are looked at one by one."""
    bare = {**raw, "bindings": None} if type(raw) is dict else raw
    return unknown_in(
        {**outer, DESIRED_STATE: bare} if type(outer) is dict and outer is not raw else bare, PlatformRecord
    )


def _service_of(raw: object) -> ServiceId | None:
    """The service of a binding that cannot be read, as far as it says."""
    if type(raw) is not dict:
        return None
    data = raw["data"] if type(raw.get("data")) is dict else raw
    service = data.get("serviceId")
    return ServiceId(service) if is_text(service) and service else None


def _certificates(raw: object, path: str, found: _Findings) -> dict[str, CertificateRecord]:
    if raw is None:
        return {}
    if type(raw) is not dict:
        reason = str(Problem(path, expected(dict, raw)))
        found.rejected.append(RejectedRecord(kind=CERTIFICATE, id=None, name=None, reasons=(reason,)))
        return {}
    unknown = tuple(islice(without_space(raw), PROBLEMS_SHOWN))
    for problem in found.take(below(unknown, path, CERTIFICATE, None, None)):
        found.rejected.append(RejectedRecord(kind=CERTIFICATE, id=None, name=None, reasons=(str(problem),)))
    spellings: dict[str, list[str]] = {}
    for key, item in raw.items():
        if item is not None:
            spellings.setdefault(canonical_host(printable(str(key))), []).append(key)
    decoded: dict[str, CertificateRecord] = {}
    for host, keys in spellings.items():
        try:
            decoded[host] = _certificate(raw, keys, path, found)
        except InvalidRecord as exc:
            reasons = tuple(map(str, exc.problems))
            found.rejected.append(
                RejectedRecord(kind=CERTIFICATE, id=spelt(host), name=None, reasons=reasons)
            )
    return decoded


def _certificate(raw: Mapping[Any, Any], keys: list[Any], path: str, found: _Findings) -> CertificateRecord:
    """The certificate under one host name, of which there must be one spelling only. Raises InvalidRecord."""
    names = [spelt(key) for key in keys]
    if len(names) > 1:
        others = (f"the same host name as {' and '.join(n for n in names if n != name)}" for name in names)
        raise InvalidRecord(*(Problem(f"{path}.{n}", text) for n, text in zip(names, others, strict=True)))
    return found.decode(raw[keys[0]], CertificateRecord, f"{path}.{names[0]}", CERTIFICATE)


def _named(raw: object, label: str) -> tuple[str | None, str | None]:
    """The id and the name that a raw record says it has, as far as they can be told."""
    if type(raw) is not dict:
        return None, None
    data = raw["data"] if type(raw.get("data")) is dict else raw
    written: Any = raw.get("id")
    identity: Any = written.known if isinstance(written, Unclear) else written
    name = data.get("domainName" if label == CERTIFICATE else "name")
    is_id = is_text(identity) and id_problem(identity, of_service=label == "service") is None
    return identity if is_id else None, name if is_text(name) else None


def _rejected(label: str, raw: object, exc: InvalidRecord, path: str = "") -> RejectedRecord:
    """Return what can still be said of a record that cannot be decoded."""
    identity, name = _named(raw, label)
    return RejectedRecord(
        kind=label,
        id=identity,
        name=name,
        reasons=tuple(map(str, exc.problems)),
        salvaged=_salvaged(raw) if label == "service" else None,
        path=path,
    )


_PLACEHOLDERS = {"id": "unread", "name": "unread"}


def _salvaged(raw: object) -> Salvaged[ServiceRecord] | None:
    """Return what can be read of a service that cannot be decoded as a whole."""
    if type(raw) is not dict:
        return None
    data = raw["data"] if type(raw.get("data")) is dict else raw
    flat = {key: value for key, value in data.items() if key not in {"id", "data"} and value is not None}
    return salvage({**flat, "id": raw.get("id")}, _decode_service, _PLACEHOLDERS)


def _decode_service(raw: object) -> ServiceRecord:
    return decode(raw, ServiceRecord, "")
