"""Wire <-> record: the one place that knows Cloudly's spelling.

Strict in types (cattrs alone would turn `"no"` into `True`), calm about unknown fields, which are ignored. A JSON
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

from .converter import PLAIN_JSON, T, converter, decode, expected, is_text, printable, problems_of
from .hosts import canonical_host
from .models import (
    BindingRecord,
    CertificateRecord,
    ClusterRecord,
    ExternalRegistryRecord,
    GatewayRecord,
    ImageRecord,
    PlatformRecord,
    Records,
    RejectedRecord,
    SecretBundleRecord,
    SecretGroupRecord,
    ServiceRecord,
)
from .salvage import Salvaged, salvage

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
    """What identifies a raw record: other than the objects, it tells 1 from true. None for what is not JSON."""
    try:
        return hashlib.sha256(orjson.dumps(raw, option=PLAIN_JSON | orjson.OPT_SORT_KEYS)).digest()
    except TypeError:
        return None


class _Memo(Generic[R]):
    """The raw and the decoded form of each record of one kind, by id."""

    def __init__(self, kind: type[R], label: str) -> None:
        self.kind, self.label = kind, label
        self._structure: Callable[[object, type[R]], R] = converter.get_structure_hook(kind)
        self._known: dict[str, tuple[bytes | None, R]] = {}

    def decode(self, raw: object) -> R:
        """Decode a record, or find it. May raise anything that `problems_of` understands."""
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

    def decode(self, document: object, *, consume: bool = False) -> Records:
        """Decode a cluster document: the answers of Cloudly's methods side by side.

        With `consume` the document is the caller's no more: its parts are let go as they are decoded, so that a large one
        is not in memory twice.

        `configData` and `services` are required; `images`, `externalRegistries`, `secretBundles`, `secretGroups`,
        `platform`, `externalGatewayConfig` and `certificates` are optional. Raises InvalidRecord when the document as
        a whole cannot be used; a single bad record is listed in `Records.rejected` instead.
        """
        framed, cluster = _frame(document)
        document = _consumed(framed) if consume else framed
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
        for index, raw in enumerate(_each(document, key)):
            try:
                decoded.append(memo.decode(raw))
            except Exception as exc:  # noqa: BLE001 - cattrs may raise anything for a hostile document
                problems = tuple(islice(problems_of(exc, f"$.{key}[{index}]"), PROBLEMS_SHOWN))
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


def _frame(document: object) -> tuple[Mapping[str, Any], ClusterRecord]:
    """Check what must hold before single records can be looked at."""
    if type(document) is not dict:
        raise InvalidRecord(Problem("$", expected(dict, document)))
    document = _with_older_services(_without_envelope(document))
    problems: list[Problem] = []
    cluster = _cluster(document, problems)
    problems += _list_problems(document)
    if problems or cluster is None:
        raise InvalidRecord(*problems)
    return document, cluster


def _without_envelope(document: dict[str, Any]) -> dict[str, Any]:
    """The records of a captured answer, which has them under `response`."""
    response = document.get("response")
    if type(response) is not dict or "method" not in document:
        return document
    return {**response, **{k: v for k, v in document.items() if k not in {"response", "request"}}}


def _with_older_services(document: dict[str, Any]) -> dict[str, Any]:
    """Before 2023 the services travelled inside the cluster record."""
    raw = document.get("configData")
    if document.get("services") is not None or type(raw) is not dict:
        return document
    older = (raw["data"] if type(raw.get("data")) is dict else raw).get("containers")
    return document if older is None else {**document, "services": older}


def _cluster(document: Mapping[str, Any], problems: list[Problem]) -> ClusterRecord | None:
    raw = document.get("configData")
    if raw is None:
        problems.append(Problem("$.configData", "is missing: it says which cluster this is"))
        return None
    try:
        return decode(raw, ClusterRecord, "$.configData")
    except InvalidRecord as exc:
        problems.extend(exc.problems)
        return None


def _list_problems(document: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the lists of records as such."""
    if document.get("services") is None:
        yield Problem("$.services", "is missing: write an empty list if there shall be no services")
    for key in ("services", "images", "externalRegistries", "secretBundles", "secretGroups"):
        value = document.get(key)
        if value is not None and type(value) is not list:
            yield Problem(f"$.{key}", expected(list, value))
        elif value is not None and len(value) > RECORD_LIMIT:
            yield Problem(f"$.{key}", f"has more than {RECORD_LIMIT} records")


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
        raise InvalidRecord(Problem(path, expected(dict, raw)))
    bindings = raw.get("bindings")
    if bindings is not None and type(bindings) is not list:
        raise InvalidRecord(Problem(f"{path}.bindings", expected(list, bindings)))
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
    return ServiceId(service) if is_text(service) and service else None


def _certificates(raw: object, rejected: list[RejectedRecord]) -> dict[str, CertificateRecord]:
    if raw is None:
        return {}
    if type(raw) is not dict:
        reason = str(Problem("$.certificates", expected(dict, raw)))
        rejected.append(RejectedRecord(kind="certificate", id=None, name=None, reasons=(reason,)))
        return {}
    spellings: dict[str, list[str]] = {}
    for key, item in raw.items():
        if item is not None:
            spellings.setdefault(canonical_host(printable(str(key))), []).append(key)
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
    names = [printable(str(key)) for key in keys]
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
        id=identity if is_text(identity) and id_problem(identity, of_service=is_service) is None else None,
        name=name if is_text(name) else None,
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
