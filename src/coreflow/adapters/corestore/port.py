"""`CorestorePort` on Corestore's control API: JSON, posted.

Both requests may be repeated: what is there is found, and what is gone is gone. So a Corestore that is just starting is
asked a few times within one call.

Requests hold the token and what a binding says, answers hold credentials. So no error of ours has one of the HTTP
client's behind it, and what the far side says is passed on without the token, without the texts that we sent or got,
without users and passwords in URLs and without anything that looks like a PEM block.
"""

import re
from collections.abc import Iterable, Mapping
from errno import ECONNREFUSED
from urllib.parse import quote

import orjson
import trio

from coreflow.adapters.redaction import without
from coreflow.adapters.web import Denied, http_post
from coreflow.domain.bindings import BindingSpec, Provisioned
from coreflow.domain.errors import PortError, Refused, Unavailable

from . import methods as m
from .shapes import endpoints, message, texts, variables

TIMEOUT_SECONDS = 60.0
"""How long one request may take."""
UNHEALTHY_SECONDS = 30.0
"""How long Corestore is not asked again once it could not be reached: services must not wait for it one by one."""
PAUSES = (0.5, 1.0)
"""Seconds before another try, where Corestore seems to be starting."""
TEXT_LIMIT = 500
"""Characters of the far side's texts that are passed on."""
_READ_LIMIT = 10_000
_SECRET_LENGTH = 4
"""A shorter text of a binding or an answer is no secret: without it, other words would suffer."""
_NO_TOKEN = "token mismatch: CORESTORE_API_TOKEN is not the one that Corestore has"
_STARTING = re.compile(r"HTTP status 50[234]$")
_PEM = re.compile(r"-----BEGIN.*", re.DOTALL)
_USER = re.compile(r"://\S*@")


class _Failed(Unavailable):
    """No answer that says anything: `soon` when another try may help, `away` when the network failed."""

    def __init__(self, text: str, *, soon: bool, away: bool) -> None:
        super().__init__(text)
        self.soon, self.away = soon, away


class _NotFound(Refused):
    """Status 404."""


class Corestore:
    """Corestore at `url`, the address of its control API. An empty `token` is not sent.

    `timeout` holds for each try. After a failure of the network everything fails at once for `unhealthy_seconds`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        unhealthy_seconds: float = UNHEALTHY_SECONDS,
    ) -> None:
        self._url = url.strip().rstrip("/")
        self._token = (token or "").strip()
        self._timeout = timeout
        self._unhealthy_seconds = unhealthy_seconds
        self._unhealthy_until = -float("inf")

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
            answer = await self._ask(what, m.PROVISION, body, spec)
        except _NotFound:
            raise Refused(f"{what}: it is too old, it has no {m.PROVISION.path}") from None
        try:
            return Provisioned(
                values=variables(answer, spec.capability), endpoints=endpoints(answer, spec.capability)
            )
        except Refused as exc:
            raise Refused(f"{what}: {self._redacted(str(exc))}") from None

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back, with its data. Gone already is success."""
        what = f"corestore: deprovision {spec.name}"
        body = {m.SERVICE_ID.name: spec.service_id, m.CAPABILITIES.name: [spec.capability]}
        try:
            await self._ask(what, m.DEPROVISION, body, spec)
        except _NotFound:
            return

    async def _ask(
        self, what: str, endpoint: m.Endpoint, body: Mapping[str, object], spec: BindingSpec
    ) -> Mapping[str, object]:
        """Post, a few times if need be, and return the answer. Raises _NotFound besides what ports raise."""
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._unhealthy_until:
            raise Unavailable(f"{what}: unhealthy, it is left alone for a while")
        for pause in (*PAUSES, None):
            try:
                answer = await self._post(what, endpoint, body, spec)
            except _Failed as exc:
                failure = exc
            else:
                self._unhealthy_until = -float("inf")
                break
            if pause is None or not failure.soon:
                if failure.away:
                    self._unhealthy_until = trio.current_time() + self._unhealthy_seconds
                raise failure
            await trio.sleep(pause)
        if answer is None:
            answer = {}
        if not isinstance(answer, Mapping):
            raise Unavailable(f"{what}: the answer is not an object")
        if m.SUCCESS.of(answer) is False or message(answer, m.ERROR):
            raise Refused(f"{what}: {self._reason(answer, spec) or 'declined without a reason'}")
        return answer

    async def _post(
        self, what: str, endpoint: m.Endpoint, body: Mapping[str, object], spec: BindingSpec
    ) -> object:
        """One try."""
        failure: PortError
        try:
            answer = await http_post(
                self._url + endpoint.path,
                body,
                headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
                timeout=self._timeout,
            )
        except Denied as exc:
            failure = self._denied(what, exc, spec)
        except Refused as exc:
            failure = Refused(f"{what}: {self._redacted(str(exc))}")
        except Unavailable as exc:
            failure = _Failed(
                f"{what}: {self._redacted(str(exc))}", soon=_is_starting(exc), away=_is_away(exc)
            )
        except orjson.JSONEncodeError:
            failure = Refused(f"{what}: the binding's config cannot be sent")
        except ValueError:
            failure = Refused(f"{what}: its address or token cannot be used")
        else:
            return answer.body
        raise failure  # out here, so that it does not hold the client's error, which holds request and answer

    def _denied(self, what: str, exc: Denied, spec: BindingSpec) -> Refused:
        if exc.status == 401:
            return Refused(f"{what}: {_NO_TOKEN}")
        reason = self._reason(exc.body, spec)
        text = f"{what}: HTTP status {exc.status}" + (f": {reason}" if reason else "")
        return _NotFound(text) if exc.status == 404 else Refused(text)

    def _reason(self, body: object, spec: BindingSpec) -> str:
        """Why Corestore says no, in its own words, without anything that may be a secret."""
        return self._redacted(message(body), (*texts(spec.config), *texts(m.VARIABLES.of(body))))

    def _redacted(self, text: str, secrets: Iterable[str] = ()) -> str:
        """A text of the far side, fit for a log."""
        text = _printable(_PEM.sub("…", text[:_READ_LIMIT]))
        longest_first = sorted({s for s in secrets if len(s) >= _SECRET_LENGTH}, key=len, reverse=True)
        for secret in (self._token, *longest_first):
            for spelling in _spellings(secret):
                text = without(text, spelling)
        return _USER.sub("://…@", text)[:TEXT_LIMIT]


def _printable(text: str) -> str:
    return "".join(filter(str.isprintable, text))


def _spellings(secret: str) -> set[str]:
    """A secret as it may be quoted."""
    return {_printable(secret), quote(secret, safe=""), orjson.dumps(secret).decode()[1:-1]}


def _is_starting(exc: Unavailable) -> bool:
    """Whether nobody listens yet, or whoever stands before it says that it is not there yet."""
    cause = exc.__cause__
    if cause is None:
        return _STARTING.search(str(exc)) is not None
    return isinstance(cause, OSError) and cause.errno == ECONNREFUSED


def _is_away(exc: Unavailable) -> bool:
    """Whether the network failed or the time was up. A server that answered, with whatever, is not away."""
    return exc.__cause__ is not None and not isinstance(exc.__cause__, ValueError)
