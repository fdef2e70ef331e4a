"""Errors of the network: what a peer, or the way to it, can do to a call."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp.client_exceptions import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientHttpProxyError,
    ClientProxyConnectionError,
    ClientResponseError,
    WSServerHandshakeError,
)

from coreflow.domain.errors import CoreflowError, PortError, Refused, Unavailable, Unreached


class Interrupted(Unavailable):
    """The other side of a bridge was cancelled, while nobody had asked for that on this side."""


class Closed(Unavailable):
    """A WebSocket is no longer there. `code` is as in RFC 6455: 1006 when it went without a goodbye."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __str__(self) -> str:
        return (
            f"connection closed: {self.reason} ({self.code})"
            if self.reason
            else f"connection closed ({self.code})"
        )


class NobodyBehind(Unavailable):
    """A proxy, or the name service, says that the peer is not there. It will be, and nothing but asking tells when."""


class Denied(Refused):
    """An HTTP request was answered with a status that will not change by asking again."""

    def __init__(self, where: str, status: int, body: object = None, location: str = "") -> None:
        super().__init__(where, status)
        self.where, self.status, self.body, self.location = where, status, body, location

    def __str__(self) -> str:
        if self.location:
            return f"{self.where} redirects to {self.location}, which is not followed"
        return f"{self.where} answered with HTTP status {self.status}"


class Failing(Unavailable):
    """An HTTP request was answered with a status that may change by asking again. The text is without the body."""

    def __init__(self, where: str, status: int, body: object = None) -> None:
        super().__init__(f"{where} answered with HTTP status {status}")
        self.where, self.status, self.body = where, status, body


class NotHosted(CoreflowError, RuntimeError):
    """The process runs trio alone, and aiohttp needs asyncio around it."""


_BEHIND_A_PROXY = frozenset({502, 503, 504})
_ASK_AGAIN = frozenset({408, 425, 429})


def is_passing(status: int) -> bool:
    return status >= 500 or status in _ASK_AGAIN


_TLS_ALERT = "\\x15\\x03"
"""How an answer begins that is a TLS alert, as the HTTP library quotes it."""
_NO_TLS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    }
)
"""What OpenSSL makes of a peer that answers a greeting with something else."""


def _tls_trouble(exc: ClientConnectorSSLError | ssl.SSLError) -> str:
    cause = exc.os_error if isinstance(exc, ClientConnectorSSLError) else exc
    reason = str(getattr(cause, "reason", None) or type(cause).__name__)
    if reason in _NO_TLS:
        return "does not speak TLS, though its address says so (https or wss)"
    return f"cannot agree on TLS with us: {reason.replace('_', ' ').lower()}"


@contextmanager
def translated(where: str, seconds: float) -> Iterator[None]:
    """Turn what connecting to `where` may raise into the domain's two errors. Texts name the peer, no values."""
    try:
        yield
    except TimeoutError as exc:
        raise Unavailable(f"{where} did not answer within {seconds:g} s") from exc
    except ClientResponseError as exc:
        raise _of_answer(where, exc) from exc
    except aiohttp.InvalidURL as exc:
        raise Refused(f"{where}: not an address that can be used") from exc
    except (ClientConnectorError, ssl.SSLError) as exc:
        raise _of_connecting(where, exc) from exc
    except UnicodeError as exc:
        raise Refused(f"{where}: not a host name that can be used") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise Unavailable(f"{where}: {type(exc).__name__}") from exc


def _of_answer(where: str, exc: ClientResponseError) -> PortError:
    """Return what it means that the peer, or a proxy, answered with something else than was wanted."""
    match exc:
        case WSServerHandshakeError() if exc.status in _BEHIND_A_PROXY:
            return NobodyBehind(f"{where} answered with HTTP status {exc.status}")
        case WSServerHandshakeError() if is_passing(exc.status):
            return Unavailable(f"{where} answered with HTTP status {exc.status}")
        case WSServerHandshakeError() if exc.status < 300:
            return Refused(f"{where} does not speak WebSocket")
        case WSServerHandshakeError():
            return Denied(where, exc.status)
        case ClientHttpProxyError():
            return Unavailable(f"the proxy on the way to {where} answered with HTTP status {exc.status}")
    hint = " (it speaks TLS: the address needs https)" if _TLS_ALERT in exc.message else ""
    return Unavailable(f"{where} does not speak HTTP{hint}")


def _of_connecting(where: str, exc: ClientConnectorError | ssl.SSLError) -> PortError:
    """Return why there is no connection."""
    match exc:
        case ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            cause = exc.certificate_error if isinstance(exc, ClientConnectorCertificateError) else exc
            reason = getattr(cause, "verify_message", "") or type(cause).__name__
            return Refused(f"the certificate of {where} is not trusted: {reason}")
        case ClientConnectorSSLError() | ssl.SSLError():
            return Unavailable(f"{where} {_tls_trouble(exc)}")
        case ClientProxyConnectionError():
            proxy = f"the proxy {exc.host}:{exc.port} on the way to {where}"
            return Unavailable(f"{proxy} cannot be reached: {_system_reason(exc)}")
        case ClientConnectorDNSError():
            return NobodyBehind(f"{where}: no address is known for this name")
    return Unreached(f"{where} cannot be reached: {_system_reason(exc)}")


def _system_reason(exc: ClientConnectorError) -> str:
    """Return why the system could not connect: asyncio's own text names the address once more."""
    number = exc.os_error.errno
    return os.strerror(number) if number else type(exc.os_error).__name__
