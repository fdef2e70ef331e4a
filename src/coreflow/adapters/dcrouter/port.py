"""`GatewayPort` on dcrouter's OpsServer: TypedRequest envelopes, posted.

A TypedRequest server says with HTTP status 200 also that something went wrong: `error` in the envelope comes first,
then `response: null` (its handler crashed), then `success` in the response.

The token travels in every request, so no error of ours has one of the HTTP client's behind it: those hold the request.
What the peer says is redacted, and so are the keys that it gave us.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from secrets import token_hex
from typing import Any, NoReturn

import structlog
import trio

from coreflow.adapters.net import DIRECT, Outbound, http_post
from coreflow.domain.errors import InvalidRecord, PortError, Refused, Unavailable
from coreflow.domain.ids import ClusterId
from coreflow.domain.records.models import CertificateRecord
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact, Redactor
from coreflow.domain.routing.gateway import (
    CreateRoute,
    DeleteRoute,
    GatewayAction,
    ObservedRoute,
    UpdateRoute,
    cluster_of,
)

from . import methods as m
from .parse_routes import certificate, metadata, observed_route, route_body

log = structlog.get_logger()

TIMEOUT_SECONDS = 10.0
"""How long one request may take."""
UNHEALTHY_SECONDS = 30.0
"""How long the gateway is not asked again once it could not be reached: hosts must not wait for it one by one."""
_KEYS_KEPT = 100
"""Keys of certificates that are kept out of the gateway's later texts."""
_NOT_FOUND = re.compile(r"not found|no certificate|does not exist|no such|unknown domain", re.IGNORECASE)


class _Declined(Refused):
    """The gateway itself said no, with a text."""


class Dcrouter:
    """A gateway at `url`, the address of its OpsServer. A function that it does not have is asked for again after `refresh`.

    An empty `token` is not sent. Routes are written for `cluster` only, and bear its mark. `redact` takes out of the
    gateway's texts what else must not be told.
    """

    def __init__(
        self,
        url: str,
        token: str,
        cluster: ClusterId,
        *,
        via: Outbound = DIRECT,
        timeout: float = TIMEOUT_SECONDS,
        unhealthy_seconds: float = UNHEALTHY_SECONDS,
        redact: Redact = NOTHING_KNOWN.redact,
    ) -> None:
        self._redact = redact
        self._keys: deque[str] = deque(maxlen=_KEYS_KEPT)
        self._url = url.strip().rstrip("/").removesuffix(m.PATH) + m.PATH
        self._token = token.strip()
        self._cluster = cluster
        self._via = via
        self._timeout = timeout
        self._unhealthy_seconds = unhealthy_seconds
        self._unhealthy_until = -float("inf")
        self._missing: set[str] = set()
        self._told_missing: set[str] = set()

    def refresh(self) -> None:
        """Forget which functions it does not have, and that it could not be reached."""
        self._missing.clear()
        self._unhealthy_until = -float("inf")

    async def certificate(self, host: str) -> CertificateRecord:
        """The certificate for a host, or for its parent as a wildcard. It is not checked beyond its form.

        Raises Refused when the gateway has none, or one that cannot be used.
        """
        reasons = []
        for domain in _names_for(host):
            try:
                answer = await self._call(m.EXPORT_CERTIFICATE, {m.DOMAIN.name: domain})
            except _Declined as exc:
                if not _NOT_FOUND.search(str(exc)):
                    raise
                reasons.append(str(exc))
                continue
            if m.SUCCESS.of(answer) is False:
                reasons.append(self._redacted(m.MESSAGE.of(answer)))
            elif (raw := m.CERTIFICATE.of(answer)) is not None:
                try:
                    found = certificate(raw, domain)
                except InvalidRecord as exc:
                    raise Refused(f"certificate of {host}: the gateway's cannot be used: {exc}") from None
                self._keys.append(found.private_key)
                return found
        reason = next((f" ({reason})" for reason in reasons if reason), "")
        raise Refused(f"certificate of {host}: the gateway has none{reason}")

    async def routes(self) -> tuple[ObservedRoute, ...]:
        """Every route there is, built-in ones included."""
        answer = await self._call(m.LIST_ROUTES, {})
        if m.SUCCESS.of(answer) is False:
            self._decline(m.LIST_ROUTES, m.MESSAGE.of(answer))
        found = m.ROUTES.of(answer)
        if not isinstance(found, list):  # by no means an empty list: everything would be created again
            raise Unavailable(f"gateway: {m.LIST_ROUTES.name}: the answer has no list of routes")
        for index, raw in enumerate(found):
            if not isinstance(raw, Mapping):  # it may stand for one of ours, which would be created again
                where = f"$.{m.ROUTES.name}[{index}]"
                raise Unavailable(f"gateway: {m.LIST_ROUTES.name}: {where} is not an object")
        return tuple(map(observed_route, found))

    async def apply(self, action: GatewayAction) -> None:
        """Write, change or remove a route. When the gateway declines, it is looked up whether that was done already."""
        method, body = self._request(action)
        try:
            answer = await self._call(method, body)
            if m.SUCCESS.of(answer) is False:
                self._decline(method, m.MESSAGE.of(answer))
        except _Declined:
            if not await self._is_done(action):
                raise

    def _request(self, action: GatewayAction) -> tuple[m.Method, Mapping[str, object]]:
        if not isinstance(action, CreateRoute) and not action.id:
            raise Refused("gateway: a built-in route cannot be changed")
        if isinstance(action, DeleteRoute):
            return m.DELETE_ROUTE, {m.ROUTE_ID.name: action.id}
        if cluster_of(action.route) != self._cluster:
            raise Refused(f"gateway: {action.route.host}: the route's name is not one of ours")
        body = {
            m.ROUTE.name: route_body(action.route, self._cluster),
            m.ENABLED.name: action.route.enabled,
            m.METADATA.name: metadata(action.route, self._cluster),
        }
        if isinstance(action, UpdateRoute):
            return m.UPDATE_ROUTE, {m.ROUTE_ID.name: action.id, **body}
        return m.CREATE_ROUTE, body

    async def _is_done(self, action: GatewayAction) -> bool:
        """Return whether things are as the action would have them. What cannot be found out counts as no."""
        try:
            live = await self.routes()
        except PortError:
            return False
        if isinstance(action, DeleteRoute):
            return all(found.id != action.id for found in live)
        same = {found.id for found in live if found.route == action.route and found.cluster == self._cluster}
        return bool(same - {""}) if isinstance(action, CreateRoute) else action.id in same

    # --- one request

    async def _call(self, method: m.Method, body: Mapping[str, object]) -> Mapping[str, Any]:
        """Ask, and return the response.

        Raises Refused for a method that is not there, _Declined for an error in the envelope, Unavailable for a crash.
        """
        await trio.lowlevel.checkpoint()
        if method.name in self._missing:
            raise Refused(f"gateway: {method.name} is not offered")
        if trio.current_time() < self._unhealthy_until:
            raise Unavailable(f"gateway: {method.name}: unhealthy, it is left alone for a while")
        envelope = await self._post(method, body)
        if not isinstance(envelope, Mapping):
            raise Unavailable(f"gateway: {method.name}: the answer is not an envelope")
        if (error := envelope.get("error")) is not None:
            self._fail(method, error)
        if envelope.get("retry") is not None:
            raise Unavailable(f"gateway: {method.name}: asks to come back later")
        response = envelope.get("response")
        if response is None:
            raise Unavailable(f"gateway: {method.name}: no result")
        if not isinstance(response, Mapping):
            raise Unavailable(f"gateway: {method.name}: the answer is not an object")
        return response

    async def _post(self, method: m.Method, body: Mapping[str, object]) -> object:
        token = self._token
        envelope = {
            "method": method.name,
            "request": {**({m.TOKEN.name: token} if token else {}), **body},
            "response": None,
            "requestInstanceId": token_hex(16),
            "correlation": {"id": token_hex(16), "phase": "request"},
        }
        failure: PortError
        try:
            answer = await http_post(
                self._url,
                envelope,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                via=self._via,
                timeout=self._timeout,
            )
        except Refused as exc:
            failure = Refused(f"gateway: {method.name}: {self._redacted(str(exc))}")
        except Unavailable as exc:
            if _is_away(exc):
                self._unhealthy_until = trio.current_time() + self._unhealthy_seconds
            failure = Unavailable(f"gateway: {method.name}: {self._redacted(str(exc))}")
        except ValueError:
            failure = Refused(f"gateway: {method.name}: its address or token cannot be used")
        else:
            self._unhealthy_until = -float("inf")
            return answer.body
        raise failure  # out here, so that it does not hold the client's error, which holds the request

    def _fail(self, method: m.Method, error: object) -> NoReturn:
        """Return what an error in the envelope means."""
        text = error.get("text") if isinstance(error, Mapping) else error
        text = text.strip() if isinstance(text, str) else ""
        if text.startswith(m.NO_SUCH_METHOD):
            self._missing.add(method.name)
            if method.name not in self._told_missing:
                self._told_missing.add(method.name)
                log.warning("gateway lacks a method, it is not asked for it again", method=method.name)
            raise Refused(f"gateway: {method.name} is not offered")
        if text.startswith(m.CRASHED):
            raise Unavailable(f"gateway: {method.name}: {m.CRASHED}")
        self._decline(method, text)

    def _decline(self, method: m.Method, text: object) -> NoReturn:
        raise _Declined(f"gateway: {method.name}: {self._redacted(text) or 'declined without a reason'}")

    def _redacted(self, text: object) -> str:
        """A text of the peer, fit to be told."""
        return self._redact(Redactor([self._token, *self._keys]).redact(text))


def _names_for(host: str) -> Iterator[str]:
    """Yield what to ask for: the host, then its parent as a wildcard, unless that would be a whole top-level domain."""
    yield host
    label, _, parent = host.partition(".")
    if label != "*" and "." in parent:
        yield f"*.{parent}"


def _is_away(exc: Unavailable) -> bool:
    """Return whether the network failed or the time was up. A server that answered, with whatever, is not away."""
    return exc.__cause__ is not None and not isinstance(exc.__cause__, ValueError)
