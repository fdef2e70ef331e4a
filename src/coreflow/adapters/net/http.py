"""Plain HTTP requests for JSON documents."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from attrs import frozen

from coreflow.domain.errors import Unavailable

from .bridge import in_asyncio
from .errors import Denied, Failing, is_passing, translated
from .outbound import DIRECT, Outbound, Target, destination, new_session, target_of, trust
from .transport import Idle, TooLong, read_body

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of the longest answer to a plain request."""


@frozen
class HttpAnswer:
    """The answer of an HTTP server: the status, and the body as JSON (None when there was none)."""

    status: int
    body: Any


async def http_get(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    via: Outbound = DIRECT,
    timeout: float = 30.0,
    max_answer: int = MAX_ANSWER,
) -> HttpAnswer:
    """Ask for a JSON document. It must begin within `timeout` seconds, and go on at least as often. Raises Unavailable, or Denied for a status that asking again will not change."""
    return await _request("GET", url, None, headers, via, timeout, max_answer)


async def http_post(
    url: str,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    via: Outbound = DIRECT,
    timeout: float = 30.0,
    max_answer: int = MAX_ANSWER,
) -> HttpAnswer:
    """Post a JSON document. Raises Unavailable (it may have been received), or Denied as `http_get`."""
    return await _request("POST", url, orjson.dumps(body), headers, via, timeout, max_answer)


async def _request(
    method: str,
    url: str,
    data: bytes | None,
    headers: Mapping[str, str] | None,
    via: Outbound,
    seconds: float,
    max_answer: int,
) -> HttpAnswer:
    target = target_of(url, "http")
    tls = await trust(target, via.ca_file)
    wanted = {"Accept": "application/json", **(headers or {})}
    if data is not None:
        wanted["Content-Type"] = "application/json"

    async def ask() -> tuple[int, bytes, str]:
        async with (
            asyncio.timeout(seconds) as limit,
            new_session(tls) as session,
            session.request(
                method,
                target.url,
                data=data,
                headers=wanted,
                allow_redirects=False,
                **via.proxies.options(target.url),
            ) as answer,
        ):
            body = await read_body(answer.content, max_answer, Idle(limit, seconds))
            return answer.status, body, destination(target.url, answer.headers.get("Location"))

    with translated(target.where, seconds):
        try:
            status, text, location = await in_asyncio(ask)
        except TooLong as exc:
            raise Unavailable(f"{target.where} answered with more than {max_answer} bytes") from exc
    return judged(target, status, text, location)


def judged(target: Target, status: int, text: bytes, location: str = "") -> HttpAnswer:
    """An answer that is fine. Raises Failing or Denied for others, Unavailable for one that is not JSON."""
    fine = 200 <= status < 300
    try:
        body = orjson.loads(text) if text.strip() else None
    except orjson.JSONDecodeError as exc:
        if fine:
            raise Unavailable(f"{target.where} did not answer in JSON") from exc
        body = None
    if is_passing(status):
        raise Failing(target.where, status, body)
    if not fine:
        raise Denied(target.where, status, body, location if 300 <= status < 400 else "")
    return HttpAnswer(status, body)
