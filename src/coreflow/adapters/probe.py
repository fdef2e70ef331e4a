"""Asking a daemon on this machine whether it is well, by its admin port. Imports next to nothing: it is done every few seconds."""

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

from coreflow.domain.errors import Refused, Unavailable

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to find who listens there
_LARGEST = 64 * 1024 * 1024
"""Bytes of a document that are read."""
_LONGEST = 200
"""Characters of an answer that are told."""


def ask_json(host: str, port: int, path: str, timeout: float) -> tuple[int, Any]:
    """Ask the daemon that listens there for a document; the status, and the document (None where it is no JSON).

    Raises Unavailable where none answers.
    """
    connection = HTTPConnection(_ANY.get(host, host), port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(_LARGEST)
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        raise Unavailable(f"no daemon answers at {host}:{port}: {reason}") from exc
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, None


def ask_health(host: str, port: int, timeout: float) -> None:
    """Return if the daemon that listens there says that it is well.

    Raises Unavailable where none answers, Refused where it says that it is not.
    """
    where = f"no healthy daemon at {host}:{port}"
    connection = HTTPConnection(_ANY.get(host, host), port, timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        text = answer.read(_LONGEST).decode(errors="replace").strip()
    except TimeoutError as exc:
        raise Unavailable(f"{where}: no answer within {timeout:g} s") from exc
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "strerror", None) or type(exc).__name__
        raise Unavailable(f"{where}: {reason}") from exc
    finally:
        connection.close()
    if answer.status != 200:
        raise Refused(f"{where}: {text or f'status {answer.status}'}")
