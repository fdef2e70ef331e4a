"""Asking a daemon on this machine, by its admin port, how it is. Imports next to nothing: it is done every few seconds."""

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

from coreflow.domain.errors import Refused, Unavailable

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to find who listens there
_LARGEST = 64 * 1024 * 1024
"""Bytes of an answer that are read: the status of some 100,000 services."""
_LONGEST = 200
"""Characters of an answer that are told."""


def ask_json(host: str, port: int, path: str, timeout: float) -> tuple[int, Any]:
    """Ask the daemon that listens there for a document; the status, and the document (None where it is no JSON).

    Raises Unavailable where none answers.
    """
    status, text = _get(host, port, path, timeout, f"no daemon answers at {host}:{port}")
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def ask_health(host: str, port: int, timeout: float) -> None:
    """Return if the daemon that listens there says that it is well.

    Raises Unavailable where none answers, Refused where it says that it is not.
    """
    where = f"no healthy daemon at {host}:{port}"
    status, text = _get(host, port, "/healthz", timeout, where)
    if status != 200:
        raise Refused(f"{where}: {text[:_LONGEST].strip() or f'status {status}'}")


def ask_page(host: str, port: int, path: str, timeout: float) -> str:
    """Return a page of the daemon that listens there.

    Raises Unavailable where none answers, Refused where there is no such page.
    """
    where = f"no daemon answers at {host}:{port}"
    status, text = _get(host, port, path, timeout, where)
    if status != 200:
        raise Refused(f"the daemon at {host}:{port} has no {path}: status {status}")
    return text


def _get(host: str, port: int, path: str, timeout: float, where: str) -> tuple[int, str]:
    connection = HTTPConnection(_ANY.get(host, host), port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_LARGEST).decode(errors="replace")
    except TimeoutError as exc:
        raise Unavailable(f"{where}: no answer within {timeout:g} s") from exc
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        raise Unavailable(f"{where}: {reason}") from exc
    finally:
        connection.close()
