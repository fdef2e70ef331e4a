"""Going out to a server: its address, whom to trust, and sessions of aiohttp in which nothing is left over."""

import asyncio
import socket
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import aiohttp
import outcome
import trio
from aiohttp import ClientTimeout
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import frozen

from coreflow.domain.errors import Refused
from coreflow.domain.redaction.redactor import NOTHING_KNOWN

from .errors import Denied
from .proxies import Proxies
from .transport import abort
from .trust import trusting

_NO_PROXIES = Proxies()


@frozen(kw_only=True)
class Outbound:
    """The way to servers."""

    ca_file: Path | None = None
    """Certificates that are trusted instead of those that the system trusts."""
    proxies: Proxies = _NO_PROXIES


DIRECT = Outbound()


@frozen
class Target:
    url: str
    where: str
    secure: bool


def target_of(url: str, scheme: str) -> Target:
    """Return where `url` leads, with `http` or `ws` (and the `s` of a secure one) as scheme. Raises Refused."""
    try:
        parts: SplitResult = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https", "ws", "wss"):
        raise Refused("not an address of the form http(s)://host or ws(s)://host")
    if port == 0:
        raise Refused("port 0 is no address: it leads nowhere")
    secure = parts.scheme in ("https", "wss")
    name = f"[{host}]" if ":" in host else host
    where = f"{name}:{port or (443 if secure else 80)}"
    return Target(parts._replace(scheme=scheme + "s" * secure).geturl(), where, secure)


async def trust(target: Target, ca_file: Path | None) -> ssl.SSLContext | Literal[True]:
    """Return whom to trust: those that the system trusts or, when a file is given, those in the file and nobody else."""
    if not target.secure:
        return True
    return await trusting(ca_file)


class _DaemonResolver(AbstractResolver):
    """Looks up names in threads that a process does not wait for when it ends; the loop's own would be waited for."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[outcome.Outcome[list[Any]]] = loop.create_future()

        def settle(found: outcome.Outcome[list[Any]]) -> None:
            if not answer.done():
                answer.set_result(found)

        def deliver(found: outcome.Outcome[list[Any]]) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found)

        look_up = partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        trio.lowlevel.start_thread_soon(look_up, deliver)
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in (await answer).unwrap()
        ]

    async def close(self) -> None:
        """Nothing is held."""


def destination(url: str, location: str | None) -> str:
    """Return where a redirect leads, without what may be secret: no user, no query. Empty when it leads nowhere."""
    try:
        parts = urlsplit(urljoin(url, location or ""))
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not location or not host:
        return ""
    name = f"[{host}]" if ":" in host else host
    told = urlunsplit((parts.scheme, name if port is None else f"{name}:{port}", parts.path, "", ""))
    return NOTHING_KNOWN.redact(told, 200)


async def _refuse_redirect(_: object, __: object, told: aiohttp.TraceRequestRedirectParams) -> None:
    url = str(told.url)
    raise Denied(
        target_of(url, "http").where,
        told.response.status,
        location=destination(url, told.response.headers.get("Location")) or "nowhere",
    )


class Connector(aiohttp.TCPConnector):
    """aiohttp's own, which can also drop what it has connected."""

    def __init__(self, tls: ssl.SSLContext | Literal[True]) -> None:
        super().__init__(ssl=tls, resolver=_DaemonResolver(), force_close=True)
        self._transports: list[asyncio.Transport] = []

    async def connect(self, *args: Any, **options: Any) -> Any:
        connection = await super().connect(*args, **options)
        if connection.transport is not None:
            self._transports.append(connection.transport)
        return connection

    def abort(self) -> None:
        """Close every connection without waiting for what is still to be sent."""
        for transport in self._transports:
            abort(transport)


def new_session(
    tls: ssl.SSLContext | Literal[True],
    connector: aiohttp.BaseConnector | None = None,
    *,
    socket_class: type[aiohttp.ClientWebSocketResponse[Any]] = aiohttp.ClientWebSocketResponse,
) -> aiohttp.ClientSession:
    """A session for one use: nothing is shared, so nothing can be left over."""
    redirects = aiohttp.TraceConfig()
    redirects.on_request_redirect.append(_refuse_redirect)
    return aiohttp.ClientSession(
        connector=Connector(tls) if connector is None else connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "coreflow"},
        timeout=ClientTimeout(total=None),
        trace_configs=[redirects],
        ws_response_class=socket_class,
    )
