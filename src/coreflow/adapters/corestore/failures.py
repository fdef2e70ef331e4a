"""Failures of Corestore, as the errors that ports raise: texts are redacted, and no client's error is behind them."""

from collections.abc import Iterable, Mapping
from errno import ECONNREFUSED

from coreflow.adapters.net import Denied, Failing
from coreflow.domain.errors import PortError, Refused, Unavailable, Unreached, Untouched
from coreflow.domain.redaction.redactor import Redact, Redactor

from . import methods as m
from .parse_bindings import message, texts

_NAME_LIMIT = 200
_NO_TOKEN = "token mismatch: CORESTORE_API_TOKEN is not the one that Corestore has"
_STARTING = frozenset({502, 503, 504})
_STILL_AT_IT = 504
"""Of a restore, which must not run twice at once."""
_STORAGE_FULL = 507


class Failed(Unavailable):
    """No answer that says anything. `unsent`: nobody listened; `soon`: another try may help; `away`: the network failed."""

    def __init__(self, text: str, *, unsent: bool, soon: bool, away: bool) -> None:
        super().__init__(text)
        self.unsent, self.soon, self.away = unsent, soon, away


class Unsent(Failed, Unreached):
    """Nobody listened."""


class NotFound(Refused):
    """Status 404."""


class Failures:
    """Tells what an answer, or the lack of one, means. `learn` adds to what must not be told."""

    def __init__(self, api: m.Endpoints, token: str, redact: Redact) -> None:
        self._api, self._token, self._redact = api, token, redact
        self._known = Redactor([token])

    def learn(self, secrets: Iterable[str]) -> None:
        """These are all secrets that Corestore gave us, by now."""
        self._known = Redactor([self._token, *secrets])

    def meaning(
        self,
        what: str,
        endpoint: m.Endpoint,
        exc: PortError | ValueError,
        secrets: Iterable[str] = (),
        *,
        restores: bool = False,
    ) -> PortError:
        """Return what the HTTP client's error means."""
        match exc:
            case Denied():
                denied = self._denied(what, endpoint, exc, self.reason(exc.body, secrets))
                return Untouched(str(denied)) if restores else denied
            case Failing():
                return self._failing(what, endpoint, exc, secrets, restores=restores)
            case Refused():
                return Refused(f"{what}: {self.redacted(str(exc))}")
            case PortError():
                unsent = _is_refused(exc.__cause__)
                failed = Unsent if unsent else Failed
                return failed(
                    f"{what}: {self.redacted(str(exc))}", unsent=unsent, soon=unsent, away=_is_away(exc)
                )
            case _:
                return Refused(f"{what}: its address or token cannot be used")

    def _failing(
        self, what: str, endpoint: m.Endpoint, exc: Failing, secrets: Iterable[str], *, restores: bool
    ) -> PortError:
        reason = self.reason(exc.body, secrets)
        text = f"{what}: {self.redacted(str(exc))}" + (f": {reason}" if reason else "")
        if restores and exc.status == 500 and m.INCOMPLETE.search(reason):
            return Refused(text)
        copies_data = endpoint not in (self._api.provision, self._api.deprovision)
        if copies_data and (exc.status == _STORAGE_FULL or m.DISK_FULL.search(reason)):
            return Refused(text)
        soon = exc.status in _STARTING and not (restores and exc.status == _STILL_AT_IT)
        return Failed(text, unsent=False, soon=soon, away=False)

    def _denied(self, what: str, endpoint: m.Endpoint, exc: Denied, reason: str) -> Refused:
        told = f"HTTP status {exc.status}" + (f": {reason}" if reason else "")
        match exc.status:
            case 401:
                return Refused(f"{what}: {_NO_TOKEN}")
            case 403:
                return Refused(f"{what}: {_NO_TOKEN}: {told}")
            case 404 if m.NO_SUCH_PATH.fullmatch(message(exc.body)):
                return NotFound(str(self.too_old(what, endpoint)))
            case 404:
                return NotFound(f"{what}: {told}")
            case 405:
                return self.too_old(what, endpoint)
            case 409 if endpoint is self._api.write_object:
                return Refused(f"{what}: other content is there: {told}")
            case 422 if endpoint is self._api.write_object:
                return Refused(f"{what}: what arrived has another digest: {told}")
        return Refused(f"{what}: {told}")

    def too_old(self, what: str, endpoint: m.Endpoint) -> Refused:
        """An error for an endpoint that is not there."""
        return Refused(f"{what}: it is too old, it has no {endpoint.path}")

    def check_not_declined(self, what: str, answer: object, secrets: Iterable[str] = ()) -> None:
        """Raises Refused where an answer says, with a status that is fine, that nothing was done."""
        if m.SUCCESS.of(answer) is False or message(answer, m.ERROR):
            raise Refused(f"{what}: {self.reason(answer, secrets) or 'declined without a reason'}")

    def check_proven(self, what: str, answer: object) -> None:
        """Raises Unavailable where an answer says nothing at all: whether anything was done is not known."""
        if not isinstance(answer, Mapping) or not answer:
            raise Unavailable(f"{what}: the answer says nothing, so it is not known whether it was done")

    def reason(self, body: object, secrets: Iterable[str] = ()) -> str:
        """Return why Corestore says no, in its own words, without anything that may be a secret."""
        return self.redacted(message(body), (*secrets, *texts(m.VARIABLES.of(body))))

    def redacted(self, text: str, secrets: Iterable[str] = ()) -> str:
        """A text of the peer, fit to be told."""
        return self._redact((self._known | Redactor(secrets)).redact(text))


def short(name: str) -> str:
    """A name that may be told: printable, and not too long."""
    return "".join(filter(str.isprintable, name))[:_NAME_LIMIT]


def _is_refused(cause: BaseException | None) -> bool:
    """Return whether nobody listens."""
    return isinstance(cause, OSError) and cause.errno == ECONNREFUSED


def _is_away(exc: PortError) -> bool:
    """Return whether the network failed or the time was up. A server that answered, with whatever, is not away."""
    return exc.__cause__ is not None and not isinstance(exc.__cause__, ValueError)
