"""An engine with redacted messages: the one place where they are redacted, before other code reads them.

An engine quotes what it was sent (SwarmKit's `expanding env "NAME=value"`, measured on 20.10 and 26.1), a proxy in front
of it may echo the whole request, and a task's error has whatever a volume plugin or a registry said. So errors are
redacted with the secrets of their own request, messages of tasks with those of the task's spec, and all with those that the
process knows besides.
"""

import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson

from coreflow.adapters.engine.protocol import Document, Engine, EngineError, EngineUnreachable
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact, Redactor
from coreflow.domain.swarm.templates import read_literal

from .parse_documents import read_each, readable

T = TypeVar("T")
Json = Mapping[str, Any]

TEXT_LIMIT = 2_000
"""Characters of an error that are kept: what it means may stand at its end."""
_KEPT = 20_000
"""Tasks and services whose texts are remembered."""
_FIXED = re.compile(
    r"|started|starting|preparing|prepared|ready|accepted|assigned|finished|shutdown|created|removed"
    r"|task: non-zero exit \(\d+\)|No such container: [0-9a-z.-]+"
    r"|pending task scheduling|scheduler assigned task to node|set to run by orchestrator"
    r"|scheduler confirmed task can run on preassigned node"
    r"|(?:update|rollback) (?:completed|in progress)"
    r"|update (?:paused|rolled back) due to failure or early termination of task [0-9a-z]+"
)
"""Texts of tasks and roll-outs that quote nothing: most are these, and there are very many."""


class _Newest(OrderedDict[str, tuple[Json | None, Json]]):
    """The newest of very many."""

    def __setitem__(self, key: str, value: tuple[Json | None, Json]) -> None:
        super().__setitem__(key, value)
        if len(self) > _KEPT:
            self.popitem(last=False)


class Discreet:
    """`Engine` on another one. `redact` takes out of its texts what its requests and tasks do not hold themselves."""

    def __init__(self, engine: Engine, redact: Redact = NOTHING_KNOWN.redact) -> None:
        self._engine, self._redact = engine, redact
        self._told = _Newest()
        """By task or service, what it said of itself, and what may be told of that."""

    async def _asked(self, call: Awaitable[T], known: Redactor = NOTHING_KNOWN) -> T:
        try:
            return await call
        except (EngineError, EngineUnreachable) as exc:
            failure = self._cleaned(exc, known)
        raise failure  # out here, so that it does not hold the other

    def _cleaned(
        self, exc: EngineError | EngineUnreachable, known: Redactor
    ) -> EngineError | EngineUnreachable:
        if isinstance(exc, EngineError):
            return EngineError(exc.status, self._clean(exc.message, known))
        return type(exc)(self._clean(str(exc), known))

    def _clean(self, text: str, known: Redactor) -> str:
        return self._redact(known.redact(text, TEXT_LIMIT), TEXT_LIMIT)

    # --- what it says

    def clock(self) -> float:
        """See `Engine`."""
        return self._engine.clock()

    async def version(self) -> Document:
        """See `Engine`."""
        return await self._asked(self._engine.version())

    async def info(self) -> Document:
        """See `Engine`."""
        return await self._asked(self._engine.info())

    async def list_services(self) -> Sequence[Document]:
        """See `Engine`."""
        return read_each("services", await self._asked(self._engine.list_services()), self._service)

    async def list_running_tasks(self) -> Sequence[Document]:
        """See `Engine`."""
        return read_each("tasks", await self._asked(self._engine.list_running_tasks()), self._task)

    async def list_tasks(self) -> Sequence[Document]:
        """See `Engine`."""
        return read_each("tasks", await self._asked(self._engine.list_tasks()), self._task)

    async def list_secrets(self) -> Sequence[Document]:
        """See `Engine`."""
        return await self._asked(self._engine.list_secrets())

    async def list_networks(self) -> Sequence[Document]:
        """See `Engine`."""
        return await self._asked(self._engine.list_networks())

    async def list_nodes(self) -> Sequence[Document]:
        """See `Engine`."""
        return await self._asked(self._engine.list_nodes())

    async def list_volumes(self) -> Sequence[Document]:
        """See `Engine`."""
        return await self._asked(self._engine.list_volumes())

    async def inspect_service(self, service_id: str) -> Document:
        """See `Engine`."""
        document = await self._asked(self._engine.inspect_service(service_id))
        with readable("$"):
            return self._service(document)

    async def inspect_image(self, reference: str) -> Document:
        """See `Engine`."""
        return await self._asked(self._engine.inspect_image(reference))

    async def list_images(self) -> Sequence[Document]:
        """See `Engine`."""
        return await self._asked(self._engine.list_images())

    async def list_containers(self) -> Sequence[Document]:
        """See `Engine`."""
        return await self._asked(self._engine.list_containers())

    async def inspect_distribution(self, reference: str, auth: str | None = None) -> Document:
        """See `Engine`."""
        return await self._asked(
            self._engine.inspect_distribution(reference, auth), Redactor(_credentials(auth))
        )

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Document]]:
        """See `Engine`. The events themselves are nobody's text."""
        failure: EngineError | EngineUnreachable | None = None
        try:
            async with self._engine.events() as events:
                yield events
        except (EngineError, EngineUnreachable) as exc:
            failure = self._cleaned(exc, NOTHING_KNOWN)
        if failure is not None:
            raise failure

    # --- what it does

    async def create_service(self, spec: Json, auth: str | None = None) -> str:
        """See `Engine`."""
        return await self._asked(self._engine.create_service(spec, auth), _held(spec, auth))

    async def update_service(
        self, service_id: str, version: int, spec: Json, auth: str | None = None
    ) -> None:
        """See `Engine`."""
        await self._asked(self._engine.update_service(service_id, version, spec, auth), _held(spec, auth))

    async def remove_service(self, service_id: str) -> None:
        """See `Engine`."""
        await self._asked(self._engine.remove_service(service_id))

    async def create_secret(self, spec: Json) -> str:
        """See `Engine`."""
        return await self._asked(self._engine.create_secret(spec), _payload(spec))

    async def remove_secret(self, secret_id: str) -> None:
        """See `Engine`."""
        await self._asked(self._engine.remove_secret(secret_id))

    async def create_network(self, config: Json) -> str:
        """See `Engine`."""
        return await self._asked(self._engine.create_network(config))

    async def remove_network(self, network_id: str) -> None:
        """See `Engine`."""
        await self._asked(self._engine.remove_network(network_id))

    async def load_image(self, archive: AsyncIterator[bytes]) -> Sequence[str]:
        """See `Engine`."""
        return await self._asked(self._engine.load_image(archive))

    async def tag_image(self, image: str, repository: str, tag: str) -> None:
        """See `Engine`."""
        await self._asked(self._engine.tag_image(image, repository, tag))

    async def remove_image(self, reference: str) -> None:
        """See `Engine`."""
        await self._asked(self._engine.remove_image(reference))

    # --- texts in documents

    def _service(self, document: Document) -> Document:
        status = document.get("UpdateStatus") or {}
        spec = (document.get("Spec") or {}).get("TaskTemplate") or {}
        return (
            {**document, "UpdateStatus": self._status(document["ID"], status, spec)} if status else document
        )

    def _task(self, document: Document) -> Document:
        status = self._status(document["ID"], document.get("Status") or {}, document.get("Spec") or {})
        return {**document, "Status": status}

    def _status(self, identity: str, status: Json, spec: Json) -> Json:
        """A status whose texts may be told. The same is seen in every look, and looked through once."""
        said = {member: status[member] for member in ("Err", "Message") if status.get(member)}
        if all(_FIXED.fullmatch(text) for text in said.values()):
            return status
        before, told = self._told.get(identity, (None, {}))
        if before != said:
            known = Redactor(values=_values(spec))
            told = {member: self._clean(text, known) for member, text in said.items()}
            self._told[identity] = said, told
        return {**status, **told}


# --- what requests and tasks hold


def _held(spec: Json, auth: str | None) -> Redactor:
    """Return what the engine is sent with a service."""
    return Redactor(_credentials(auth), _values(spec.get("TaskTemplate") or {}))


def _values(template: Json) -> Iterator[tuple[str, str]]:
    """Variables, options of volumes and the words of a health check, of what a task is made from.

    Both as they are sent and as they arrive: whoever refuses one later, a volume driver, say, quotes what has arrived.
    """
    for name, value in _sent(template):
        yield name, value
        arrived = read_literal(value)
        if arrived is not None and arrived != value:
            yield name, arrived


def _sent(template: Json) -> Iterator[tuple[str, str]]:
    container = template.get("ContainerSpec") or {}
    for variable in container.get("Env") or ():
        name, _, value = variable.partition("=")
        yield name, value
    for mount in container.get("Mounts") or ():
        driver = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
        yield from (driver.get("Options") or {}).items()
    for word in ((container.get("Healthcheck") or {}).get("Test") or ())[1:]:
        yield "", word


def _credentials(auth: str | None) -> Iterable[str]:
    """The header, and the password in it."""
    password = _object(auth).get("password") if auth else None
    return tuple(text for text in (auth, password) if isinstance(text, str))


def _payload(spec: Json) -> Redactor:
    """The content of a secret, as it is sent and as it is: variables, if it is `secret.json`."""
    data = str(spec.get("Data") or "")
    values = {name: value for name, value in _object(data).items() if isinstance(value, str)}
    return Redactor([data, *([] if values else [_decoded(data).decode(errors="replace")])], values.items())


def _object(data: str) -> Json:
    """The JSON object that a text in base64 is, or an empty one."""
    try:
        found = orjson.loads(_decoded(data))
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, altchars=b"-_" if {"-", "_"} & {*data} else None)
    except (binascii.Error, ValueError):
        return b""


__all__ = ["Discreet"]
