"""The `Engine` protocol over the docker SDK's low-level client.

The SDK blocks, so calls run in worker threads: reads are abandoned when their caller is cancelled, writes are not, since
their outcome would be unknown. Specs go out as they are: the SDK's own spec classes lose members and have wrong defaults,
and it can send no credentials of ours, so writes use the client as what it is, an HTTP session.

The SDK's client also helps itself to what lies around on the machine: headers and logins from `~/.docker/config.json`,
passwords from `.netrc`, proxies from the environment. Ours takes nothing but the endpoint it is given.
"""

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import docker
import docker.errors
import requests
import trio
from docker.utils import parse_host
from requests.adapters import HTTPAdapter

from .connections import BASE_URL, Connect, OnePool, ProgramConnection, UnixConnection, ssh_command
from .endpoint import Endpoint, Tls
from .protocol import Document, EngineError, EngineTimeout, EngineUnreachable
from .timed import OnCall, timed

T = TypeVar("T")

CALLS = 4
"""Calls at once: more do not go faster (measured: the engine and the interpreter lock are the limit)."""
LOOK_UPS = 64
"""Look-ups at once, at all registries together: each costs a thread that waits."""
CALL_SECONDS = 60
LOOK_UP_SECONDS = 180
"""How long a registry may take: only its services wait for it."""
LOAD_SECONDS = 3600


KEPT_CONNECTIONS = 2 * CALLS + LOOK_UPS

CLOCK_STEP_SECONDS = 2.0
"""An answer whose date differs by more from what we make of earlier ones means that the engine's clock was set."""


class _Clock:
    """An engine's clock, by the dates of its answers. They have whole seconds, so the latest beginning of one tells most."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()  # noqa: TID251 - until the engine has said what time it is
        self._heard = False

    def read(self) -> float:
        """Seconds since the epoch."""
        return time.monotonic() + self._offset

    def hear(self, date: str | None) -> None:
        """Take the `Date` of an answer that has just arrived. One without tells nothing."""
        with suppress(TypeError, ValueError, OverflowError):
            offset = parsedate_to_datetime(date or "").timestamp() - time.monotonic()
            known = self._heard and abs(offset - self._offset) < CLOCK_STEP_SECONDS
            self._offset = max(offset, self._offset) if known else offset
            self._heard = True


class _Client(docker.APIClient):
    """The SDK's client, made of the endpoint alone. Being made asks the engine for its version, and nothing else."""

    def __init__(self, endpoint: Endpoint) -> None:
        # not the SDK's own, which reads configuration files, and fails on broken ones
        requests.Session.__init__(self)
        self.trust_env = False
        self.timeout = CALL_SECONDS
        address = str(parse_host(endpoint.url, is_win32=False, tls=endpoint.tls is not None))
        if address.startswith("http+unix://"):
            path = address.removeprefix("http+unix://")
            self._share_pool(partial(UnixConnection, path, CALL_SECONDS))
        elif address.startswith("ssh://"):
            try:
                command = ssh_command(endpoint.url)
            except ValueError as exc:
                raise docker.errors.DockerException(str(exc)) from None
            self._share_pool(partial(ProgramConnection, command, CALL_SECONDS))
        elif address.startswith(("http://", "https://")):
            scheme, _, _ = address.partition("//")
            self.mount(f"{scheme}//", HTTPAdapter(pool_maxsize=KEPT_CONNECTIONS))
            self.base_url = address
            self._secure(endpoint.tls)
        else:
            raise docker.errors.DockerException("only unix://, tcp:// and ssh:// lead to an engine")
        self._version = self._newest_version()

    def _share_pool(self, connect: Connect) -> None:
        self.mount("http+docker://", OnePool(connect, KEPT_CONNECTIONS))
        self.base_url = BASE_URL

    def _secure(self, tls: Tls | None) -> None:
        if tls is not None:
            self.verify = str(tls.authority) if tls.verify else False
            self.cert = (str(tls.certificate), str(tls.key))

    def _newest_version(self) -> str:
        answer = self.get(f"{self.base_url}/version", timeout=CALL_SECONDS)
        _raise_for_status(answer)
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict) or "ApiVersion" not in document:
            raise docker.errors.DockerException("what answers there is not an engine")
        return str(document["ApiVersion"])


def _list_in(answer: object, path: str) -> Sequence[Document]:
    """A list of objects, empty or not: nothing else means that there is nothing."""
    if not isinstance(answer, list):
        raise EngineError(502, f"GET {path} was answered with {_kind(answer)} instead of a list")
    for index, document in enumerate(answer):
        if not isinstance(document, dict):
            raise EngineError(502, f"GET {path}: $[{index}] is {_kind(document)} instead of an object")
    return answer


def _kind(value: object) -> str:
    return {
        type(None): "null",
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
    }.get(type(value), "a number")


def _plain(exc: BaseException) -> str:
    """The innermost reason, in a few words: the SDK wraps it several times, and so does what it is made of."""
    while (inner := exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)) is not None:
        exc = inner
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return type(exc).__name__ if isinstance(exc, requests.exceptions.RequestException) else str(exc)


class DockerEngine:
    """One engine; open it with `open_engine`."""

    def __init__(self, endpoint: Endpoint, on_call: OnCall | None = None) -> None:
        """`on_call` is told of every call that ended: method, path without names, HTTP status, and seconds."""
        self._endpoint, self._on_call = endpoint, on_call
        self._client: docker.APIClient | None = None
        self._opening = trio.Lock()
        self._calls = trio.CapacityLimiter(CALLS)
        self._writes = trio.CapacityLimiter(CALLS)
        """Of their own: a write that waits for a volume plugin must not keep others from reading."""
        self._look_ups = trio.CapacityLimiter(CALLS if endpoint.over_ssh else LOOK_UPS)
        """Of their own: a registry that takes its time must not keep others from the engine."""
        self._loads = trio.CapacityLimiter(CALLS)
        self._followers = trio.CapacityLimiter(CALLS)
        """For events, which must not wait until an archive is loaded."""
        self._clock = _Clock()

    def clock(self) -> float:
        """The engine's wall clock."""
        return self._clock.read()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the SDK raises into errors of an engine. Those without an answer name the address."""
        try:
            yield
        except docker.errors.APIError as exc:
            status = exc.response.status_code if exc.response is not None else 500
            raise EngineError(status, str(exc.explanation or "no explanation")) from None
        except requests.exceptions.ReadTimeout as exc:
            raise EngineTimeout(f"{self._endpoint}: {_plain(exc)}") from None
        except (requests.exceptions.RequestException, OSError, docker.errors.DockerException) as exc:
            raise EngineUnreachable(f"{self._endpoint}: {_plain(exc)}") from None

    async def _connected(self) -> docker.APIClient:
        """The client; the first use asks the engine for its version."""
        if self._client is None:
            async with self._opening:
                if self._client is None:
                    self._client = await trio.to_thread.run_sync(self._connect, abandon_on_cancel=True)
        return self._client

    def _connect(self) -> docker.APIClient:
        with self._translated():
            return _Client(self._endpoint)

    async def _read(
        self,
        path: str,
        *,
        auth: str | None = None,
        limiter: trio.CapacityLimiter | None = None,
        seconds: float = CALL_SECONDS,
        **query: Any,
    ) -> Any:
        return await self._call("GET", path, query=query, auth=auth, limiter=limiter, seconds=seconds)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        auth: str | None = None,
        limiter: trio.CapacityLimiter | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Any:
        def call(client: docker.APIClient) -> Any:
            headers = {"X-Registry-Auth": auth} if auth is not None else {}
            with self._translated():
                url = f"{client.base_url}/v{client.api_version}{path}"
                answer = client.request(
                    method, url, json=body, params=query, headers=headers, timeout=seconds
                )
                self._clock.hear(answer.headers.get("Date"))
                _raise_for_status(answer)
                return answer.json() if answer.content else None

        is_read = method == "GET"
        slots = limiter or (self._calls if is_read else self._writes)
        with timed(self._on_call, method, path):
            client = await self._connected()
            return await trio.to_thread.run_sync(call, client, limiter=slots, abandon_on_cancel=is_read)

    async def _document(self, path: str, **options: Any) -> Document:
        answer = await self._read(path, **options)
        if not isinstance(answer, dict):
            raise EngineError(502, f"GET {path} was answered with {_kind(answer)} instead of an object")
        return answer

    async def _list(self, path: str) -> Sequence[Document]:
        return _list_in(await self._read(path), path)

    async def version(self) -> Document:
        """`GET /version`."""
        return await self._document("/version")

    async def info(self) -> Document:
        """`GET /info`."""
        return await self._document("/info")

    async def list_services(self) -> Sequence[Document]:
        """`GET /services`."""
        return await self._list("/services")

    async def list_running_tasks(self) -> Sequence[Document]:
        """`GET /tasks` with a filter."""
        documents = await self._read("/tasks", filters='{"desired-state":["running"]}')
        return _list_in(documents, "/tasks")

    async def list_tasks(self) -> Sequence[Document]:
        """`GET /tasks`."""
        return await self._list("/tasks")

    async def list_secrets(self) -> Sequence[Document]:
        """`GET /secrets`."""
        return await self._list("/secrets")

    async def list_networks(self) -> Sequence[Document]:
        """`GET /networks`."""
        return await self._list("/networks")

    async def list_nodes(self) -> Sequence[Document]:
        """`GET /nodes`."""
        return await self._list("/nodes")

    async def inspect_service(self, service_id: str) -> Document:
        """`GET /services/{id}`."""
        return await self._document(f"/services/{quote(service_id)}")

    async def create_service(self, spec: Mapping[str, Any], auth: str | None = None) -> str:
        """`POST /services/create`."""
        answer = await self._call("POST", "/services/create", body=spec, auth=auth)
        return str(answer["ID"])

    async def update_service(
        self, service_id: str, version: int, spec: Mapping[str, Any], auth: str | None = None
    ) -> None:
        """`POST /services/{id}/update`."""
        path = f"/services/{quote(service_id)}/update"
        await self._call("POST", path, body=spec, query={"version": version}, auth=auth)

    async def remove_service(self, service_id: str) -> None:
        """`DELETE /services/{id}`."""
        await self._call("DELETE", f"/services/{quote(service_id)}")

    async def create_secret(self, spec: Mapping[str, Any]) -> str:
        """`POST /secrets/create`."""
        answer = await self._call("POST", "/secrets/create", body=spec)
        return str(answer["ID"])

    async def remove_secret(self, secret_id: str) -> None:
        """`DELETE /secrets/{id}`."""
        await self._call("DELETE", f"/secrets/{quote(secret_id)}")

    async def create_network(self, config: Mapping[str, Any]) -> str:
        """`POST /networks/create`."""
        answer = await self._call("POST", "/networks/create", body=config)
        return str(answer["Id"])

    async def remove_network(self, network_id: str) -> None:
        """`DELETE /networks/{id}`."""
        await self._call("DELETE", f"/networks/{quote(network_id)}")

    async def inspect_image(self, reference: str) -> Document:
        """`GET /images/{name}/json`."""
        return await self._document(f"/images/{quote(reference)}/json")

    async def list_images(self) -> Sequence[Document]:
        """`GET /images/json`."""
        return await self._list("/images/json")

    async def list_containers(self) -> Sequence[Document]:
        """`GET /containers/json`."""
        return _list_in(await self._read("/containers/json", all="true"), "/containers/json")

    async def remove_image(self, reference: str) -> None:
        """`DELETE /images/{name}`."""
        await self._call("DELETE", f"/images/{quote(reference)}")

    async def inspect_distribution(self, reference: str, auth: str | None = None) -> Document:
        """`GET /distribution/{name}/json`."""
        path = f"/distribution/{quote(reference)}/json"
        return await self._document(path, auth=auth, limiter=self._look_ups, seconds=LOOK_UP_SECONDS)

    async def load_image(self, archive: AsyncIterator[bytes]) -> Sequence[str]:
        """`POST /images/load`, streamed. May be cancelled at any time: an archive that is cut off loads nothing."""
        client = await self._connected()
        send, receive = trio.open_memory_channel[bytes](0)
        failures: list[Exception] = []

        async def pump() -> None:
            async with send:
                try:
                    async for piece in archive:
                        await send.send(piece)
                except trio.BrokenResourceError:
                    pass  # the engine has said no, and why
                except Exception as exc:  # noqa: BLE001 - it ends the request, and comes out of it
                    failures.append(exc)

        def pieces() -> Iterator[bytes]:
            while True:
                try:
                    piece = trio.from_thread.run(receive.receive)
                except trio.EndOfChannel:
                    if failures:
                        raise failures[0] from None
                    return
                if piece:
                    yield piece

        def call() -> list[str]:
            with self._translated():
                url = f"{client.base_url}/v{client.api_version}/images/load"
                headers = {"Content-Type": "application/x-tar"}
                answer = client.post(
                    url, data=pieces(), params={"quiet": "1"}, headers=headers, timeout=LOAD_SECONDS
                )
                _raise_for_status(answer)
                return list(_loaded(answer.text))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump)
            loaded: Sequence[str] = ()
            try:
                async with receive:
                    loaded = await trio.to_thread.run_sync(call, limiter=self._loads, abandon_on_cancel=True)
            except Exception as exc:  # noqa: BLE001 - raised again without a group around it
                failures.insert(0, exc)
            nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return loaded

    async def tag_image(self, image: str, repository: str, tag: str) -> None:
        """`POST /images/{name}/tag`."""
        await self._call("POST", f"/images/{quote(image)}/tag", query={"repo": repository, "tag": tag})

    async def list_volumes(self) -> Sequence[Document]:
        """`GET /volumes`."""
        # it waits for plugins, as writes do
        volumes = (await self._document("/volumes", limiter=self._writes)).get("Volumes")
        return () if volumes is None else _list_in(volumes, "/volumes")

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Document]]:
        """`GET /events`, from now on."""
        client = await self._connected()
        filters = json.dumps({"type": ["service", "secret", "network", "node", "container"]})
        url = f"{client.base_url}/v{client.api_version}/events"

        def connect() -> requests.Response:
            with self._translated():
                answer = client.get(url, params={"filters": filters}, stream=True, timeout=CALL_SECONDS)
                _raise_for_status(answer)
                _wait_for_ever(answer)
                return answer

        answer = await trio.to_thread.run_sync(connect, limiter=self._followers, abandon_on_cancel=True)
        send, receive = trio.open_memory_channel[Document](64)

        def pump() -> None:
            try:
                for line in answer.iter_lines():
                    if line:
                        trio.from_thread.run(send.send, json.loads(line))
            except (
                requests.exceptions.RequestException,
                OSError,
                ValueError,
                AttributeError,
                trio.BrokenResourceError,
            ):
                pass  # hung up, or closed under our feet: either way the stream has ended

        async def follow() -> None:
            async with send:
                await trio.to_thread.run_sync(pump, limiter=self._followers, abandon_on_cancel=True)

        async with trio.open_nursery() as nursery, receive:
            nursery.start_soon(follow)
            try:
                yield receive
            finally:
                _hang_up(answer)
                nursery.cancel_scope.cancel()

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            self._client.close()


def _hang_up(answer: requests.Response) -> None:
    """End a stream that another thread is reading."""
    raw: Any = answer.raw
    with suppress(AttributeError, OSError):
        raw._fp.fp.raw._sock.shutdown(2)  # noqa: SLF001 - requests has no other way to wake its reader
    answer.close()


def _wait_for_ever(answer: requests.Response) -> None:
    """Let a stream be silent for as long as it wants."""
    raw: Any = answer.raw
    with suppress(AttributeError, OSError):
        raw._fp.fp.raw._sock.settimeout(None)  # noqa: SLF001 - requests has one limit for the answer and what follows


def _raise_for_status(answer: requests.Response) -> None:
    if answer.status_code >= 400:
        try:
            message = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            text = answer.text.strip()
            message = f"{answer.reason} (a page, not an engine's answer)" if text[:1] == "<" else text
        raise EngineError(answer.status_code, message or answer.reason)


def _loaded(text: str) -> Iterator[str]:
    """References, or ids of images without one, from the engine's answer to a load.

    Raises EngineError for an archive that the engine cannot read: it says so in the stream, with status 200.
    """
    for line in text.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if "error" in message:
            raise EngineError(400, str(message["error"]))
        stream = str(message.get("stream", "")).strip()
        for prefix in ("Loaded image ID: ", "Loaded image: "):
            if stream.startswith(prefix):
                yield stream.removeprefix(prefix)


@asynccontextmanager
async def open_engine(where: str | Endpoint, on_call: OnCall | None = None) -> AsyncIterator[DockerEngine]:
    """An engine at `unix:///path`, `tcp://host:port` or `ssh://host`. Nothing is asked of it before the first call."""
    engine = DockerEngine(where if isinstance(where, Endpoint) else Endpoint(where), on_call)
    try:
        yield engine
    finally:
        await engine.close()
