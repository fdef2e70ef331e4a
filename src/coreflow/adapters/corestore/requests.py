"""One request of Corestore's control API: sent with the token, a few times if need be, and the answer read."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar
from urllib.parse import quote, urlencode

import orjson
import trio
from attrs import define, field

from coreflow.adapters.net import HttpAnswer, Outbound, http_get, http_post
from coreflow.domain.errors import PortError, Refused, Unavailable, Untouched

from . import methods as m
from .failures import Failed, Failures

T = TypeVar("T")

PAUSES = (0.5, 1.0)
"""Seconds before another try, where Corestore seems to be starting."""


@define(eq=False, kw_only=True)
class Requests:
    """Asks Corestore at `url`. See `Corestore` for what the fields mean."""

    url: str
    token: str = field(repr=False)
    api: m.Endpoints
    timeout: float | None
    stall: float
    via: Outbound
    failures: Failures
    unhealthy_until: float = -float("inf")
    """Until then bindings are not asked for: an answer to anything ends that."""

    async def ask(
        self,
        what: str,
        endpoint: m.Endpoint,
        content: Mapping[str, object] | None = None,
        *,
        secrets: Iterable[str] = (),
        restores: bool = False,
    ) -> object:
        """Ask, a few times if need be, and return the answer. Raises NotFound and Failed besides what ports raise.

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
            except Failed as exc:
                if pause is None or not (exc.soon if endpoint.repeatable else exc.unsent):
                    if was_reached and exc.unsent:
                        raise Unavailable(str(exc)) from None
                    raise
                was_reached = was_reached or not exc.unsent
            else:
                break
            await trio.sleep(pause)
        self.unhealthy_until = -float("inf")
        self.failures.check_not_declined(what, answer, secrets)
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
            failure = self.failures.meaning(what, endpoint, exc, secrets, restores=restores)
        else:
            return answer.body
        raise failure  # out here, so that it does not hold the client's error, which holds request and answer

    async def _send(self, endpoint: m.Endpoint, content: Mapping[str, object]) -> HttpAnswer:
        url, headers, seconds = self.url + endpoint.path, self.headers(), self.seconds(endpoint)
        if endpoint.verb == "POST":
            return await http_post(url, content, headers=headers, timeout=seconds, via=self.via)
        query = f"?{urlencode(content, quote_via=quote)}" if content else ""
        return await http_get(
            url + query, headers=headers, timeout=seconds, via=self.via, max_answer=m.LIST_BYTES
        )

    def headers(self) -> dict[str, str]:
        """Return what every request says of us."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def seconds(self, endpoint: m.Endpoint) -> float:
        """Return how long one try may take."""
        return endpoint.seconds if self.timeout is None else self.timeout

    def listed(self, what: str, read: Callable[[object], T | None], answer: object) -> T:
        """Read an answer that is a list. Raises Refused or Unavailable for another."""
        try:
            found = read(answer)
        except Refused as exc:
            raise Refused(f"{what}: {exc}") from None
        if found is None:
            raise Unavailable(f"{what}: the answer is not a list")
        return found
