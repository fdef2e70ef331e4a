"""Cloudly's answers -> records.

Everything is asked for at once: one round trip, whatever the number of records. Where Cloudly does not have a method
for all records of a kind (or does not let us use it), those that are referred to are fetched one by one.

An answer that cannot be used never takes anything away: the last good one stays in its place, and the records say so.
Only what is complete is handed out, since a secret with a group missing would be another secret.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import orjson
import structlog
import trio
from attrs import define, evolve, field, frozen

from coreflow.adapters.net.typedsocket import ConnectionClosed, TimedOut
from coreflow.adapters.tasks import nursery_of_one_error
from coreflow.domain.errors import CoreflowError, InvalidRecord, Problem, Refused, Unavailable
from coreflow.domain.pacing import Thinning
from coreflow.domain.records.codec import RecordDecoder, platform_frame
from coreflow.domain.records.converter import decode
from coreflow.domain.records.models import GatewayRecord, Records, RejectedRecord
from coreflow.gc_pause import LARGE_DOCUMENT, gc_paused

from .link import Link, Live, NotOffered, TokenRefused
from .methods import (
    BUNDLES,
    CLUSTER_CONFIG,
    COLLECTIONS,
    GATEWAY,
    GATEWAY_MEMBER,
    GROUPS,
    IMAGES,
    PLATFORM,
    REGISTRIES,
    SERVICES,
    SERVICES_MEMBER,
    Collection,
    Method,
)

log = structlog.get_logger()

CONCURRENCY = 8
"""Records that are asked for at once, where it has to be one by one."""
LOOP_BYTES = 64 * 1024
"""The largest document that is decoded in the loop (some 25 ms); a larger one is in a thread, while pings, health and
routes go on."""
_UNKNOWN_SHOWN = 20
LOOP_RECORDS = 200
"""The same, in records, for finding out whether they changed."""
PLATFORM_MEMBER = "platform"
CONFIG_MEMBER = "configData"
_CONFIG = (CONFIG_MEMBER, GATEWAY_MEMBER)
_ASKED_GATEWAY = f"asked {GATEWAY_MEMBER}"
_GONE = ConnectionClosed, TokenRefused
_NO_ANSWER = *_GONE, TimedOut
"""Nothing is known of the record in question, nor will be of the next one."""

Document = dict[str, Any]


@define
class _Findings:
    """The parts of one cluster document as they come in, and what was wrong with the answers."""

    parts: Document = field(factory=dict, repr=False)
    one_by_one: set[str] = field(factory=set)
    rejected: list[RejectedRecord] = field(factory=list)

    def reject(self, method: Method, exc: CoreflowError) -> None:
        reasons = tuple(map(str, exc.problems)) if isinstance(exc, InvalidRecord) else (str(exc),)
        self.rejected.append(RejectedRecord(kind="answer to", id=method.name, name=None, reasons=reasons))


class Fetcher:
    """Fetches the records, and remembers what it needs to get by when an answer is of no use."""

    def __init__(self, link: Link, *, strict: bool = False) -> None:
        self._link = link
        self._decoder, self._discovery = RecordDecoder(strict=strict), RecordDecoder()
        self._pushed: Mapping[str, Any] | None = None
        self._pushed_platform: object = None
        self._rejected_push = self._rejected_platform = ""
        self._config_of: Live | None = None
        self._config: Document = {}
        self._good: Document = {}
        self._thinning = Thinning()
        self._good_ones: dict[str, dict[str, Any]] = {collection.member: {} for collection in COLLECTIONS}
        self._known: tuple[bytes, tuple[RejectedRecord, ...], Records] | None = None

    @property
    def known(self) -> Records | None:
        """The last records, if there were any."""
        return None if self._known is None else self._known[2]

    def push(self, body: Mapping[str, Any]) -> None:
        """Cloudly said by itself how things should be. The newest counts; it is looked at by the next `fetch`."""
        self._pushed = body

    def push_platform(self, state: object) -> None:
        """The same for platform bindings. One that cannot be read is rejected at once: the last one counts."""
        try:
            if state is not None:
                platform_frame(state, "$.desiredState")
        except InvalidRecord as exc:
            if str(exc) != self._rejected_platform:
                log.warning("push rejected", reason=str(exc))
            self._rejected_platform = str(exc)
        else:
            self._pushed_platform, self._rejected_platform = state, ""

    def forget_pushes(self) -> None:
        """There is a new connection, so what was pushed on the last one is older than what will be asked for."""
        self._pushed = self._pushed_platform = None

    async def fetch(self, live: Live) -> Records:
        """Ask for everything. What is as it was gives the very same object as before.

        Raises Unavailable when the connection ends or answers stay away, and InvalidRecord or Refused for an answer
        that cannot be used while there is no older one to take its place.
        """
        found = _Findings()
        pushed = await self._take_pushed()
        if self._config_of is not live:
            self._config = {}
        try:
            async with nursery_of_one_error() as nursery:
                nursery.start_soon(self._frame, pushed, found)
                for collection in COLLECTIONS:
                    nursery.start_soon(self._all, live, collection, found)
                nursery.start_soon(self._platform, live, found)
                nursery.start_soon(self._gateway, live, found)
            await self._one_by_one(found)
            return await self._decode(live, found)
        except (ConnectionClosed, TimedOut):
            raise
        except (InvalidRecord, Refused, Unavailable) as exc:
            return self._stand_by(exc)

    # --- the frame: cluster and services

    async def _take_pushed(self) -> Document | None:
        """Return what was pushed, if it can be used."""
        pushed, self._pushed = self._pushed, None
        if pushed is None:
            return None
        frame = {CONFIG_MEMBER: pushed.get(CONFIG_MEMBER), SERVICES_MEMBER: pushed.get(SERVICES_MEMBER)}
        try:
            await _decoded(self._discovery, frame, (await _form(frame)).size)
        except InvalidRecord as exc:
            if str(exc) != self._rejected_push:
                log.warning("push rejected, asking instead", reason=str(exc))
            self._rejected_push = str(exc)
            return None
        self._rejected_push = ""
        known = pushed if GATEWAY_MEMBER in pushed else self._config
        if GATEWAY_MEMBER in known:
            frame[GATEWAY_MEMBER] = known[GATEWAY_MEMBER]
        return frame

    async def _frame(self, pushed: Document | None, found: _Findings) -> None:
        if pushed is not None:
            found.parts.update(pushed)
        elif not self._config:
            found.parts.update(await self._asked_config())
        else:
            try:
                answer = await self._link.call(SERVICES)
            except NotOffered:
                found.parts.update(await self._asked_config())
            else:
                found.parts.update(self._config)
                found.parts[SERVICES_MEMBER] = answer.get(SERVICES_MEMBER)

    async def _asked_config(self) -> Document:
        answer = await self._link.call(CLUSTER_CONFIG)
        config = {CONFIG_MEMBER: answer.get(CONFIG_MEMBER), SERVICES_MEMBER: answer.get(SERVICES_MEMBER)}
        if GATEWAY_MEMBER in answer:
            config[GATEWAY_MEMBER] = answer[GATEWAY_MEMBER]
        if config[SERVICES_MEMBER] is None:
            with suppress(NotOffered):  # long ago they were inside the cluster record
                config[SERVICES_MEMBER] = (await self._link.call(SERVICES)).get(SERVICES_MEMBER)
        return config

    # --- everything else

    async def _all(self, live: Live, collection: Collection, found: _Findings) -> None:
        """All records of a kind, if they can be had at once."""
        method, member = collection.all, collection.member
        try:
            found.parts[member] = _list_in(await self._link.call(method), method)
        except NotOffered:
            found.one_by_one.add(member)
        except _GONE:
            raise
        except Refused as exc:  # not for us: each by itself may be
            if times := self._thinning.times((collection.kind, str(exc)), trio.current_time()):
                log.info("asking for records one by one", kind=collection.kind, reason=str(exc), times=times)
            live.not_offered.add(method.name)
            found.one_by_one.add(member)
        except CoreflowError as exc:
            found.reject(method, exc)
            if isinstance(exc, TimedOut):  # not every time
                live.not_offered.add(method.name)
            if member in self._good:
                found.parts[member] = self._good[member]
            else:
                found.one_by_one.add(member)

    async def _platform(self, live: Live, found: _Findings) -> None:
        """Fetch what services are bound to. Where that is not known they must not be deployed, so nothing is."""
        pushed = self._pushed_platform
        found.parts[PLATFORM_MEMBER] = self._good.get(PLATFORM_MEMBER) if pushed is None else pushed
        failure = await self._proposed(live, PLATFORM, PLATFORM_MEMBER, platform_frame, found, must_stay=True)
        if failure is not None and pushed is None and PLATFORM_MEMBER not in self._good:
            raise Unavailable(f"what services are bound to is not known: {failure}")

    async def _gateway(self, live: Live, found: _Findings) -> None:
        """Ask for the gateway; where that is not offered, it stands beside the cluster, if anywhere."""

        def check(answer: object, path: str) -> None:
            decode(answer, GatewayRecord, path)

        await self._proposed(live, GATEWAY, _ASKED_GATEWAY, check, found)

    async def _proposed(
        self,
        live: Live,
        method: Method,
        member: str,
        check: Callable[[object, str], object],
        found: _Findings,
        *,
        must_stay: bool = False,
    ) -> CoreflowError | None:
        """The answer of a method that may not be there. Without one that can be used, the last one counts, or none.

        An answer without a value is usable, unless there was a value before and it `must_stay`.

        `check` raises InvalidRecord for an answer that cannot be used. Returns what was wrong with it.
        """
        assert method.answer is not None  # noqa: S101 - see the table
        try:
            answer = (await self._link.call(method)).get(method.answer)
            if answer is None and must_stay and self._good.get(member) is not None:
                text = "is missing or null, and was there before; an empty list of bindings says that there are none"
                raise InvalidRecord(Problem(f"$.{method.answer}", text))
            if answer is not None:
                check(answer, f"$.{method.answer}")
            found.parts[member] = answer
        except NotOffered:
            pass
        except _GONE:
            raise
        except CoreflowError as exc:
            found.reject(method, exc)
            if isinstance(exc, TimedOut):  # not every time
                live.not_offered.add(method.name)
            if member in self._good:
                found.parts.setdefault(member, self._good[member])
            return exc
        return None

    # --- one by one

    async def _one_by_one(self, found: _Findings) -> None:
        """Fetch what is referred to, kind after kind: a reference may stand in a record of the kind before."""
        for collection, ids in _REFERENCES:
            if collection.member in found.one_by_one:
                so_far = await _decoded(self._discovery, found.parts, (await _form(found.parts)).size)
                if collection is GROUPS:
                    self._leave_out_tagged(so_far, found)
                await self._these(collection, sorted({i for i in ids(so_far) if i}), found)

    async def _these(self, collection: Collection, ids: Iterable[str], found: _Findings) -> None:
        limiter = trio.CapacityLimiter(CONCURRENCY)
        good = self._good_ones[collection.member]
        records: dict[str, Any] = {}

        async def one(identity: str) -> None:
            method = collection.one
            assert method.key is not None and method.answer is not None  # noqa: S101, PT018 - see the table
            async with limiter:
                try:
                    answer = await self._link.call(method, {method.key: identity})
                    if answer.get(method.answer) is None:
                        raise InvalidRecord(Problem(f"$.{method.answer}", "is missing"))
                    records[identity] = answer[method.answer]
                except _NO_ANSWER:
                    raise
                except Refused as exc:  # gone, or not for us: whoever refers to it cannot be deployed
                    found.rejected.append(_one_rejected(collection, identity, exc))
                except CoreflowError as exc:
                    found.rejected.append(_one_rejected(collection, identity, exc))
                    if identity in good:
                        records[identity] = good[identity]

        async with nursery_of_one_error() as nursery:
            for identity in ids:
                nursery.start_soon(one, identity)
        self._good_ones[collection.member] = records
        found.parts[collection.member] = [records[identity] for identity in sorted(records)]

    @staticmethod
    def _leave_out_tagged(so_far: Records, found: _Findings) -> None:
        """A bundle that chooses its groups by tag cannot be filled where groups come one by one."""
        tagged = {
            bundle.id
            for bundle in so_far.secret_bundles.values()
            if bundle.included_tags and not bundle.included_secret_group_ids
        }
        if tagged:
            found.parts[BUNDLES.member] = [
                raw
                for raw in found.parts[BUNDLES.member]
                if not (isinstance(raw, dict) and isinstance(raw.get("id"), str) and raw["id"] in tagged)
            ]
            reason = f"chooses secret groups by tag, and Cloudly has no {GROUPS.all.name}"
            found.rejected += [
                RejectedRecord(kind=BUNDLES.kind, id=identity, name=None, reasons=(reason,))
                for identity in sorted(tagged)
            ]

    # --- putting it together

    async def _decode(self, live: Live, found: _Findings) -> Records:
        parts = dict(found.parts)
        if _ASKED_GATEWAY in parts:
            parts[GATEWAY_MEMBER] = parts.pop(_ASKED_GATEWAY)
        form, rejected = await _form(parts), tuple(found.rejected)
        if not form.size or self._known is None or self._known[:2] != (form.digest, rejected):
            records = _without_unknown(await _decoded(self._decoder, parts, form.size))
            self._known = form.digest, rejected, evolve(records, rejected=records.rejected + rejected)
        self._good = {member: part for member, part in found.parts.items() if member != SERVICES_MEMBER}
        self._config = {member: parts[member] for member in _CONFIG if member in parts}
        self._config_of = live
        return self._known[2]

    def _stand_by(self, exc: CoreflowError) -> Records:
        """The last records, saying why these are not newer. Raises where there are none."""
        if self._known is None:
            raise exc
        found = _Findings()
        found.reject(SERVICES, exc)
        _, known, last = self._known
        if known != tuple(found.rejected):
            own = last.rejected[: len(last.rejected) - len(known)]
            self._known = b"", tuple(found.rejected), evolve(last, rejected=own + tuple(found.rejected))
        return self._known[2]


_REFERENCES: tuple[tuple[Collection, Callable[[Records], Iterable[str | None]]], ...] = (
    (IMAGES, lambda records: (s.image_id for s in records.services)),
    (REGISTRIES, lambda records: (i.location.external_registry_id for i in records.images.values())),
    (
        BUNDLES,
        lambda records: (
            identity
            for s in records.services
            for identity in (s.secret_bundle_id, *s.additional_secret_bundle_ids)
        ),
    ),
    (
        GROUPS,
        lambda records: (g for b in records.secret_bundles.values() for g in b.included_secret_group_ids),
    ),
)


@frozen
class _Form:
    """A document as it can be compared and measured; without a size when it nests deeper than can be written."""

    digest: bytes
    size: int


async def _form(document: Document) -> _Form:
    """The form of a document; that of a large one is found in a thread, record by record."""
    records = sum(len(part) for part in document.values() if isinstance(part, list))
    if records <= LOOP_RECORDS:
        return _form_of(document)
    return await trio.to_thread.run_sync(_form_of, document)


def _form_of(document: Document) -> _Form:
    digest, size = hashlib.sha256(), 0
    try:
        for member, part in sorted(document.items()):
            pieces = part if isinstance(part, list) else [part]
            digest.update(orjson.dumps([member, isinstance(part, list), len(pieces)]))
            for piece in pieces:
                text = orjson.dumps(piece, default=lambda _: None, option=orjson.OPT_SORT_KEYS)
                digest.update(b"%d:" % len(text))
                digest.update(text)
                size += len(text)
    except TypeError:
        return _Form(b"", 0)
    return _Form(digest.digest(), size)


async def _decoded(decoder: RecordDecoder, document: Document, size: int) -> Records:
    """Decode a document of so many bytes when written; a large one in a thread. Raises InvalidRecord.

    A decoder remembers what it decoded, so it has one document at a time: whoever is cancelled waits for the thread.
    """

    def decode_without_gc() -> Records:
        with gc_paused(enabled=size >= LARGE_DOCUMENT):
            return decoder.decode(document)

    if 0 < size <= LOOP_BYTES:  # one that cannot be written may have any size
        return decode_without_gc()
    return await trio.to_thread.run_sync(decode_without_gc)


def _without_unknown(records: Records) -> Records:
    """The records without the fields that nobody reads: a control plane that is newer than we sends some in each."""
    if not records.unknown:
        return records
    paths = [field.path for field in records.unknown[:_UNKNOWN_SHOWN]]
    log.debug("fields that nobody reads", number=len(records.unknown), paths=paths)
    return evolve(records, unknown=())


def _list_in(answer: Mapping[str, Any], method: Method) -> list[Any]:
    value = answer.get(method.answer or "")
    if not isinstance(value, list):
        raise InvalidRecord(Problem(f"$.{method.answer}", "is missing or not a list"))
    return value


def _one_rejected(collection: Collection, identity: str, exc: CoreflowError) -> RejectedRecord:
    return RejectedRecord(kind=collection.kind, id=identity, name=None, reasons=(str(exc),))
