"""`CorestorePort` on Corestore's control API: JSON, and files of the archive as they are.

Almost everything may be repeated: what is there is found, and what is gone is gone. So a Corestore that is just starting
is asked a few times within one call. A snapshot is asked for once more only where nobody listened, and a transfer is
never begun again.

Requests hold the token and what a binding or a volume says, answers hold credentials. So no error of ours has one of the
HTTP client's behind it, and what Corestore says is redacted: of the token, the texts that we sent or got, and the keys
and passwords that it ever gave us.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from errno import ECONNREFUSED
from itertools import chain
from typing import TypeVar
from urllib.parse import quote, urlencode

import orjson
import trio

from coreflow.adapters.archive import Source, is_path, verified
from coreflow.adapters.net import (
    DIRECT,
    Denied,
    Download,
    Failing,
    HttpAnswer,
    Outbound,
    http_download,
    http_get,
    http_post,
    http_upload,
)
from coreflow.domain.backup.snapshots import (
    VOLUME,
    ArchiveObject,
    Snapshot,
    SnapshotKind,
    StoredVolume,
    VolumeSpec,
)
from coreflow.domain.errors import PortError, Refused, Unavailable, Unreached, Untouched
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.bindings import CAPABILITIES, BindingSpec, Provisioned
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact, Redactor

from . import methods as m
from . import parse_archive
from .parse_bindings import endpoints, message, secrets_in, texts, variables

T = TypeVar("T")

UNHEALTHY_SECONDS = 30.0
"""How long bindings are not asked for again once Corestore could not be reached: services must not wait for it one by one."""
PAUSES = (0.5, 1.0)
"""Seconds before another try, where Corestore seems to be starting."""
_NAME_LIMIT = 200
_NO_TOKEN = "token mismatch: CORESTORE_API_TOKEN is not the one that Corestore has"
_STARTING = frozenset({502, 503, 504})
_STILL_AT_IT = 504
"""Of a restore, which must not run twice at once."""
_STORAGE_FULL = 507


class _Failed(Unavailable):
    """No answer that says anything. `unsent`: nobody listened; `soon`: another try may help; `away`: the network failed."""

    def __init__(self, text: str, *, unsent: bool, soon: bool, away: bool) -> None:
        super().__init__(text)
        self.unsent, self.soon, self.away = unsent, soon, away


class _Unsent(_Failed, Unreached):
    """Nobody listened."""


class _NotFound(Refused):
    """Status 404."""


class Corestore:
    """Corestore at `url`, the address of its control API. An empty `token` is not sent.

    `timeout` holds for each try, instead of what the table of `api` says; a transfer may go for `stall` seconds without a
    byte. After a failure of the network, bindings fail at once for `unhealthy_seconds`. `redact` takes out of its texts
    what else must not be told.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        api: m.Endpoints = m.API,
        timeout: float | None = None,
        stall: float = m.STALL_SECONDS,
        unhealthy_seconds: float = UNHEALTHY_SECONDS,
        redact: Redact = NOTHING_KNOWN.redact,
        via: Outbound = DIRECT,
    ) -> None:
        self._redact, self._via = redact, via
        self._url = url.strip().rstrip("/")
        self._token = (token or "").strip()
        self._api = api
        self._timeout = timeout
        self._stall = stall
        self._unhealthy_seconds = unhealthy_seconds
        self._unhealthy_until = -float("inf")
        self._given: dict[tuple[ServiceId, str], frozenset[str]] = {}
        """The secrets of every service's credentials that we know."""
        self._known = Redactor([self._token])

    # --- bindings

    async def provision(self, spec: BindingSpec) -> Provisioned:
        """Make what a binding wants, or find it. Raises Refused when the answer has no variables that can be used."""
        what = f"corestore: provision {spec.name}"
        body = {
            m.SERVICE_ID.name: spec.service_id,
            m.SERVICE_NAME.name: spec.service_name,
            m.CAPABILITIES.name: [spec.capability],
            m.BINDING_ID.name: spec.id,
            **({m.CONFIG.name: dict(spec.config)} if spec.config else {}),
        }
        try:
            answer = await self._bind(what, self._api.provision, body, spec)
        except _NotFound:
            raise self._too_old(what, self._api.provision) from None
        try:
            values = variables(answer, spec.capability)
            found = Provisioned(values=values, endpoints=endpoints(answer, spec.capability))
        except Refused as exc:
            raise Refused(f"{what}: {self._redacted(str(exc))}") from None
        self._given[spec.service_id, spec.capability] = frozenset(secrets_in(values))
        self._known = Redactor([self._token, *chain.from_iterable(self._given.values())])
        return found

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back, with its data. Gone already is success."""
        what = f"corestore: deprovision {spec.name}"
        body = {m.SERVICE_ID.name: spec.service_id, m.CAPABILITIES.name: [spec.capability]}
        try:
            answer = await self._bind(what, self._api.deprovision, body, spec)
            if not answer:  # it says nothing: whether it is gone is seen when it is asked for once more
                answer = await self._bind(what, self._api.deprovision, body, spec)
            self._proven(what, answer)
        except _NotFound:
            return

    async def _bind(
        self, what: str, endpoint: m.Endpoint, body: Mapping[str, object], spec: BindingSpec
    ) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._unhealthy_until:
            raise Unavailable(f"{what}: unhealthy, it is left alone for a while")
        try:
            answer = await self._ask(what, endpoint, body, secrets=tuple(texts(spec.config)))
        except _Failed as exc:
            if exc.away:
                self._unhealthy_until = trio.current_time() + self._unhealthy_seconds
            raise
        if not isinstance(answer, Mapping):
            raise Unavailable(f"{what}: the answer is not an object")
        if m.SERVICE_ID.of(answer) not in (None, spec.service_id):
            raise Refused(f"{what}: the answer is about another service")
        return answer

    # --- volumes

    async def volumes(self) -> tuple[StoredVolume, ...]:
        """All volumes."""
        what = "corestore: list volumes"
        return self._listed(what, parse_archive.volumes, await self._ask(what, self._api.list_volumes))

    async def create_volume(self, spec: VolumeSpec) -> None:
        """Make a volume. There already is success, and changes nothing of it."""
        body = {
            m.VOLUME_NAME.name: spec.name,
            m.SERVICE_ID.name: spec.service_id,
            m.MOUNT_PATH.name: spec.mount_path,
            m.OPTIONS.name: dict(spec.options),
            m.LABELS.name: dict(spec.labels),
        }
        what = f"corestore: create volume {_short(spec.name)}"
        own = (spec.name, spec.service_id, spec.mount_path)
        secrets = tuple(text for text in texts(spec.options) if text not in own)
        self._proven(what, await self._ask(what, self._api.create_volume, body, secrets=secrets))

    async def snapshot_volume(self, name: str, tags: Mapping[str, str]) -> Snapshot:
        """Take a snapshot: one more with each call, and maybe also where it is Unavailable."""
        body = {m.VOLUME_NAME.name: name, m.TAGS.name: dict(tags)}
        what = f"corestore: snapshot volume {_short(name)}"
        answer = await self._ask(what, self._api.snapshot_volume, body)
        return self._taken(what, answer, VOLUME, name, tags)

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        """Make a volume what it was at a snapshot, and nothing else."""
        body = {m.VOLUME_NAME.name: name, m.SNAPSHOT_ID.name: snapshot_id, m.CLEAR.name: True}
        what = f"corestore: restore volume {_short(name)}"
        self._proven(what, await self._ask(what, self._api.restore_volume, body, restores=True))

    # --- databases and object storage

    async def snapshot_resource(
        self, service_id: ServiceId, capability: str, tags: Mapping[str, str]
    ) -> Snapshot:
        """Take a snapshot of a service's database or object storage, as `snapshot_volume` does."""
        what = f"corestore: snapshot {_short(service_id)} {_short(capability)}"
        kind = _kind(what, capability)
        body = {
            m.SERVICE_ID.name: service_id,
            m.CAPABILITIES.name: [capability],
            m.TAGS.name: dict(tags),
        }
        answer = await self._ask(what, self._api.snapshot_resource, body)
        return self._taken(what, answer, kind, capability, tags)

    async def restore_resource(self, service_id: ServiceId, capability: str, snapshot_id: str) -> None:
        """Make a database or object storage what it was at a snapshot."""
        what = f"corestore: restore {_short(service_id)} {_short(capability)}"
        body = {
            m.SERVICE_ID.name: service_id,
            m.CAPABILITY.name: _kind(what, capability),
            m.SNAPSHOT_ID.name: snapshot_id,
        }
        self._proven(what, await self._ask(what, self._api.restore_resource, body, restores=True))

    # --- snapshots

    async def snapshots(self, service_id: ServiceId | None = None) -> tuple[Snapshot, ...]:
        """All snapshots; with an id, those that belong to this service, whatever else is answered."""
        what = "corestore: list snapshots"
        query = {} if service_id is None else {m.SERVICE_ID.name: service_id}
        answer = await self._ask(what, self._api.list_snapshots, query)
        found = self._listed(what, parse_archive.snapshots, answer)
        return tuple(one for one in found if service_id is None or one.belongs_to in (None, service_id))

    def _taken(
        self, what: str, answer: object, kind: SnapshotKind, name: str, tags: Mapping[str, str]
    ) -> Snapshot:
        found = parse_archive.snapshot(answer, kind, name, tags)
        if found is None:
            raise Unavailable(f"{what}: the answer has no snapshot that can be used")
        return found

    def _listed(self, what: str, read: Callable[[object], T | None], answer: object) -> T:
        try:
            found = read(answer)
        except Refused as exc:
            raise Refused(f"{what}: {exc}") from None
        if found is None:
            raise Unavailable(f"{what}: the answer is not a list")
        return found

    # --- the archive

    async def archive_objects(self, snapshot_ids: Iterable[str] = ()) -> tuple[ArchiveObject, ...]:
        """The files of the archive; with snapshots, at least all that these need."""
        what = "corestore: list archive objects"
        queries = [{m.SNAPSHOT_ID.name: one} for one in dict.fromkeys(snapshot_ids)] or [{}]
        found: dict[str, ArchiveObject] = {}
        for query in queries:
            answer = await self._ask(what, self._api.list_objects, query)
            found.update({obj.path: obj for obj in self._listed(what, parse_archive.objects, answer)})
        return tuple(found.values())

    @asynccontextmanager
    async def read_object(self, obj: ArchiveObject) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content of a file, in pieces of bounded size, the last one only when size and digest are right."""
        endpoint = self._api.read_object
        what = f"corestore: read archive object {_short(obj.path)}"
        url = self._file_url(what, endpoint, obj)
        async with AsyncExitStack() as stack:
            opening = http_download(
                url,
                method=endpoint.verb,
                headers=self._headers(),
                timeout=self._seconds(endpoint),
                stall=self._stall,
                via=self._via,
            )
            failure: PortError | None = None
            try:
                download = await stack.enter_async_context(opening)
            except (PortError, ValueError) as exc:
                failure = self._failure(what, endpoint, exc)
            if failure is not None:
                raise failure
            self._compare(what, obj, download)
            arriving = await stack.enter_async_context(aclosing(self._pieces(what, endpoint, download)))
            yield await stack.enter_async_context(aclosing(verified(obj, arriving, what)))

    async def write_object(self, obj: ArchiveObject, chunks: AsyncIterator[bytes]) -> None:
        """Put a file into the archive. There already, with the same content, is success."""
        endpoint = self._api.write_object
        what = f"corestore: write archive object {_short(obj.path)}"
        url = self._file_url(what, endpoint, obj)
        source = Source(obj, chunks, what)
        failure: PortError | None = None
        try:
            answer = await http_upload(
                url,
                source,
                obj.size,
                method=endpoint.verb,
                headers={**self._headers(), m.DIGEST.name: obj.sha256},
                stall=self._stall,
                via=self._via,
            )
        except (PortError, ValueError) as exc:
            if exc is source.error:
                raise
            failure = self._failure(what, endpoint, exc)
        if failure is not None:
            raise failure
        self._declined(what, answer.body)
        self._proven(what, answer.body)
        stored = m.SHA256.of(m.OBJECT.of(answer.body))
        if isinstance(stored, str) and stored.lower() != obj.sha256:
            raise Refused(f"{what}: it has stored something else, the digest is another one")
        path = m.OBJECT_PATH.of(m.OBJECT.of(answer.body))
        if path not in (None, obj.path):
            raise Refused(f"{what}: it has stored something else, the path is another one")

    def _file_url(self, what: str, endpoint: m.Endpoint, obj: ArchiveObject) -> str:
        if not is_path(obj.path):
            raise Refused(f"{what}: not a path of an archive")
        return self._url + endpoint.at(obj.path)

    def _compare(self, what: str, obj: ArchiveObject, download: Download) -> None:
        digest = download.headers.get(m.DIGEST.name, "").strip().lower()
        if digest not in ("", obj.sha256) or download.size not in (None, obj.size):
            raise Refused(f"{what}: it is not what was described, size or digest are others")

    async def _pieces(
        self, what: str, endpoint: m.Endpoint, download: Download
    ) -> AsyncGenerator[bytes, None]:
        failure: PortError | None = None
        try:
            async for piece in download:
                yield piece
        except PortError as exc:
            failure = self._failure(what, endpoint, exc)
        if failure is not None:
            raise failure

    # --- requests

    async def _ask(
        self,
        what: str,
        endpoint: m.Endpoint,
        content: Mapping[str, object] | None = None,
        *,
        secrets: Iterable[str] = (),
        restores: bool = False,
    ) -> object:
        """Ask, a few times if need be, and return the answer. Raises _NotFound and _Failed besides what ports raise.

        `content` is the body or, for a GET, the query.
        """
        was_reached = False
        for pause in (*PAUSES, None):
            try:
                answer = await self._try(what, endpoint, content or {}, secrets, restores=restores)
            except Untouched as exc:
                if was_reached:
                    raise Refused(str(exc)) from None  # by an earlier try it may be
                raise
            except _Failed as exc:
                if pause is None or not (exc.soon if endpoint.repeatable else exc.unsent):
                    if was_reached and exc.unsent:
                        raise Unavailable(str(exc)) from None
                    raise
                was_reached = was_reached or not exc.unsent
            else:
                break
            await trio.sleep(pause)
        self._unhealthy_until = -float("inf")
        self._declined(what, answer, secrets)
        return {} if answer is None else answer

    async def _try(
        self,
        what: str,
        endpoint: m.Endpoint,
        content: Mapping[str, object],
        secrets: Iterable[str],
        *,
        restores: bool,
    ) -> object:
        try:
            answer = await self._send(endpoint, content)
        except orjson.JSONEncodeError:
            failure: PortError = Refused(f"{what}: the binding's config cannot be sent")
        except (PortError, ValueError) as exc:
            failure = self._failure(what, endpoint, exc, secrets, restores=restores)
        else:
            return answer.body
        raise failure  # out here, so that it does not hold the client's error, which holds request and answer

    async def _send(self, endpoint: m.Endpoint, content: Mapping[str, object]) -> HttpAnswer:
        url, headers, seconds = self._url + endpoint.path, self._headers(), self._seconds(endpoint)
        if endpoint.verb == "POST":
            return await http_post(url, content, headers=headers, timeout=seconds, via=self._via)
        query = f"?{urlencode(content, quote_via=quote)}" if content else ""
        return await http_get(
            url + query, headers=headers, timeout=seconds, via=self._via, max_answer=m.LIST_BYTES
        )

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _seconds(self, endpoint: m.Endpoint) -> float:
        return endpoint.seconds if self._timeout is None else self._timeout

    # --- what goes wrong

    def _failure(
        self,
        what: str,
        endpoint: m.Endpoint,
        exc: PortError | ValueError,
        secrets: Iterable[str] = (),
        *,
        restores: bool = False,
    ) -> PortError:
        """What the HTTP client's error means."""
        match exc:
            case Denied():
                denied = self._denied(what, endpoint, exc, self._reason(exc.body, secrets))
                return Untouched(str(denied)) if restores else denied
            case Failing():
                reason = self._reason(exc.body, secrets)
                text = f"{what}: {self._redacted(str(exc))}" + (f": {reason}" if reason else "")
                hopeless = (restores and exc.status == 500 and m.INCOMPLETE.search(reason)) or (
                    endpoint not in (self._api.provision, self._api.deprovision)
                    and (exc.status == _STORAGE_FULL or m.DISK_FULL.search(reason))
                )
                if hopeless:
                    return Refused(text)
                soon = exc.status in _STARTING and not (restores and exc.status == _STILL_AT_IT)
                return _Failed(text, unsent=False, soon=soon, away=False)
            case Refused():
                return Refused(f"{what}: {self._redacted(str(exc))}")
            case PortError():
                unsent = _is_refused(exc.__cause__)
                failed = _Unsent if unsent else _Failed
                return failed(
                    f"{what}: {self._redacted(str(exc))}", unsent=unsent, soon=unsent, away=_is_away(exc)
                )
            case _:
                return Refused(f"{what}: its address or token cannot be used")

    def _denied(self, what: str, endpoint: m.Endpoint, exc: Denied, reason: str) -> Refused:
        told = f"HTTP status {exc.status}" + (f": {reason}" if reason else "")
        match exc.status:
            case 401:
                return Refused(f"{what}: {_NO_TOKEN}")
            case 403:
                return Refused(f"{what}: {_NO_TOKEN}: {told}")
            case 404 if m.NO_SUCH_PATH.fullmatch(message(exc.body)):
                return _NotFound(str(self._too_old(what, endpoint)))
            case 404:
                return _NotFound(f"{what}: {told}")
            case 405:
                return self._too_old(what, endpoint)
            case 409 if endpoint is self._api.write_object:
                return Refused(f"{what}: other content is there: {told}")
            case 422 if endpoint is self._api.write_object:
                return Refused(f"{what}: what arrived has another digest: {told}")
        return Refused(f"{what}: {told}")

    def _too_old(self, what: str, endpoint: m.Endpoint) -> Refused:
        return Refused(f"{what}: it is too old, it has no {endpoint.path}")

    def _declined(self, what: str, answer: object, secrets: Iterable[str] = ()) -> None:
        """Raises Refused where an answer says, with a status that is fine, that nothing was done."""
        if m.SUCCESS.of(answer) is False or message(answer, m.ERROR):
            raise Refused(f"{what}: {self._reason(answer, secrets) or 'declined without a reason'}")

    def _proven(self, what: str, answer: object) -> None:
        """Raises Unavailable where an answer says nothing at all: whether anything was done is not known."""
        if not isinstance(answer, Mapping) or not answer:
            raise Unavailable(f"{what}: the answer says nothing, so it is not known whether it was done")

    def _reason(self, body: object, secrets: Iterable[str] = ()) -> str:
        """Why Corestore says no, in its own words, without anything that may be a secret."""
        return self._redacted(message(body), (*secrets, *texts(m.VARIABLES.of(body))))

    def _redacted(self, text: str, secrets: Iterable[str] = ()) -> str:
        """A text of the peer, fit to be told."""
        return self._redact((self._known | Redactor(secrets)).redact(text))


def _kind(what: str, capability: str) -> SnapshotKind:
    match capability:
        case "database" | "objectstorage":
            return capability
    raise Refused(f"{what}: not one of {', '.join(CAPABILITIES)}")


def _short(name: str) -> str:
    return "".join(filter(str.isprintable, name))[:_NAME_LIMIT]


def _is_refused(cause: BaseException | None) -> bool:
    """Whether nobody listens."""
    return isinstance(cause, OSError) and cause.errno == ECONNREFUSED


def _is_away(exc: PortError) -> bool:
    """Whether the network failed or the time was up. A server that answered, with whatever, is not away."""
    return exc.__cause__ is not None and not isinstance(exc.__cause__, ValueError)
