"""Errors of registries, as the engine passes them on: one table from texts to a reason, and whether asking again may help.

The engine hides the registry's status and headers behind a text of its own, so the text decides. It differs between
engines: 20.10 says `error parsing HTTP 404 response body` where 26.1 says `unknown: 404 page not found`. `Retry-After` is
not passed on by either. The texts are measured on 20.10 and 26.1 with `tests/integration/registry_stand_in.py`, except
those of containerd's resolver, which engines with its image store pass on.

The registry is blamed for what it did, by its name. What no rule knows is passed on as it is.
"""

import re
from typing import Final

from attrs import field, frozen

from coreflow.adapters.engine.protocol import EngineError
from coreflow.domain.errors import PortError, RateLimited, Refused, Unavailable
from coreflow.domain.swarm.images import ImageRequest, registry_host

from .errors import said, translated

PAGE_SHOWN: Final = 100
"""Characters of a page that a message keeps."""


@frozen
class Rule:
    """Something that registries do, or that happens on the way to them."""

    kind: type[PortError]
    text: re.Pattern[str]
    says: str
    """The reason: a template with `host`, and with what the text's groups matched."""
    without_login: str = ""
    """The reason where no login was given, if it is another one."""
    statuses: frozenset[int] = field(default=frozenset())

    def match(self, exc: EngineError) -> re.Match[str] | None:
        """Return whether this is it."""
        return self.text.search(exc.message) if not self.statuses or exc.status in self.statuses else None

    def reason(self, match: re.Match[str], host: str, *, has_login: bool) -> str:
        """Return what to tell a person."""
        template = self.says if has_login or not self.without_login else self.without_login
        groups = {name: value or "" for name, value in match.groupdict().items()}
        shown = {name: _page(value) if name == "page" else said(value) for name, value in groups.items()}
        return template.format(host=host, **shown)


def _page(text: str) -> str:
    """A page of something that is not a registry, in one short line without its tags."""
    line = said(re.sub(r"<[^>]*>", " ", text.replace("\\n", " "))).strip('" ')[:PAGE_SHOWN]
    return f" ({line})" if line else ""


def _rule(kind: type[PortError], text: str, says: str, *statuses: int, without: str = "") -> Rule:
    return Rule(kind, re.compile(text, re.IGNORECASE), says, without, frozenset(statuses))


_STATUS = r"(?P<status>[45]\d\d(?: [A-Za-z]+)*)"
_NOT_LET_IN = "refused by {host}: unauthorized (401): it did not accept the login, or never asked for one"
"""The engine sends a login only to a registry that asks for one before it is asked for an image, and does not tell."""
_WRONG = "refused by {host}: unauthorized (401): the login is wrong, or was never asked for"
_NO_LOGIN = "refused by {host}: unauthorized (401): a login is needed, or there is no such image"
_DENIED = "refused by {host}: access denied (403) to this login"
_DENIED_TO_ALL = "refused by {host}: access denied (403): a login is needed, or there is no such image"
_LIMITED = "{host}: rate limited (429)"

RULES: tuple[Rule, ...] = (
    # too much asked of it
    _rule(RateLimited, r"toomanyrequests|too many requests|HTTP 429 ", _LIMITED),
    _rule(RateLimited, r"", _LIMITED, 429),
    # a fault of the server that gives out its tokens (its texts have the request before them), or of its own
    _rule(
        Unavailable,
        rf'^(?:Head|Get) "[^"]*": received unexpected HTTP status: {_STATUS}',
        "{host} cannot be asked: its token server answers {status}",
    ),
    _rule(
        Unavailable,
        rf"fetch \w+ token: unexpected status.*: {_STATUS}",  # containerd
        "{host} cannot be asked: its token server answers {status}",
    ),
    _rule(Unavailable, rf"unexpected (?:HTTP )?status\b.*: (?=5){_STATUS}", "{host} answers {status}"),
    # a page of a proxy, of a portal, or of another server
    _rule(
        Refused,
        r"^error parsing HTTP 403 response body: .*?(?P<page><.*)|^denied: (?P<newer><)",
        "refused by {host}: access denied (403), with a page that is not a registry's{page}",
    ),
    _rule(
        Unavailable,
        r"^error parsing HTTP (?P<status>\d+) response body: [^\"]*\"(?P<page>.*)\"",
        "{host} answers {status} with a page that is not a registry's{page}",
    ),
    _rule(
        Unavailable,
        r"^unknown: (?P<page>[^\0]*)",
        "{host} answers with a page that is not a registry's{page}",
    ),
    _rule(
        Unavailable, r"error unmarshalling content", "{host} answers with something that is not a registry's"
    ),
    # it says no
    _rule(
        Refused,
        r"incorrect username or password|invalid username/password",
        "refused by {host}: the login is wrong",
        without=_NO_LOGIN,
    ),
    _rule(Refused, r"(?<!permission )\bdenied\b", _DENIED, without=_DENIED_TO_ALL),
    _rule(Refused, r"unauthorized: authentication required", _WRONG, without=_NO_LOGIN),
    _rule(
        Refused,
        r"unauthorized|authentication required|no basic auth|authorization failed",
        _NOT_LET_IN,
        without=_NO_LOGIN,
    ),
    _rule(Refused, r"", _NOT_LET_IN, 401, without=_NO_LOGIN),
    _rule(Refused, r"", _DENIED, 403, without=_DENIED_TO_ALL),
    # a reference that engines take and no registry can be asked for: an image ID, a host with an underscore, port 99999
    _rule(
        Refused,
        r"no manifest found for full image ID|no Host in request URL|: invalid port$",
        "no registry can be asked for this reference",
    ),
    # on the way to it
    _rule(Unavailable, r"proxyconnect \w+: (?P<why>.*)", "the engine's proxy does not lead to {host}: {why}"),
    _rule(Unavailable, r"\blookup \S+.*no such host", "{host} does not answer: there is no such host name"),
    _rule(Unavailable, r"\blookup \S+", "{host} does not answer: no name server tells its address"),
    _rule(Unavailable, r"connection refused", "{host} does not answer: connection refused"),
    _rule(Unavailable, r"no route to host|is unreachable", "{host} does not answer: there is no route to it"),
    _rule(
        Unavailable,
        r"server gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        "{host} answers with plain HTTP, not TLS",
    ),
    _rule(Unavailable, r"x509: (?P<why>.*)", "the certificate of {host} is not trusted: {why}"),
    _rule(
        Unavailable,
        r"i/o timeout|TLS handshake timeout|Client\.Timeout|deadline exceeded|connection timed out",
        "{host} does not answer in time",
    ),
    _rule(Unavailable, r"\btls: (?P<why>.*)", "no TLS with {host}: {why}"),
    _rule(Unavailable, r"connection reset|broken pipe|unexpected EOF|: EOF$|server closed", "{host} hung up"),
    _rule(Unavailable, r"malformed HTTP", "{host} does not speak HTTP"),
    # it has none, or not one that the engine can read
    _rule(
        Refused, r"manifest unknown|name unknown|name invalid|no such image|not found", "not found on {host}"
    ),
    _rule(Refused, r"", "not found on {host}", 404),
    _rule(
        Refused,
        r"missing signature key|unsupported (?:manifest|schema|media)|manifest (?:invalid|unverified)|schema version",
        "what {host} has is not an image that this engine can read",
    ),
)
"""First match wins."""


def registry_error(exc: EngineError, request: ImageRequest) -> PortError:
    """The port error for a look-up that failed."""
    what, host = f"image {request.reference}", registry_host(request.reference)
    for rule in RULES:
        match = rule.match(exc)
        if match is not None:
            reason = rule.reason(match, host, has_login=request.login is not None)
            return rule.kind(f"{what}: {reason}")
    return translated(exc, f"{what}: asking {host}")
