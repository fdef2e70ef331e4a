"""Corestore's answers -> variables and endpoints, in whichever of the likely shapes.

Variables are what a service cannot do without, so one that cannot be used spoils the answer. Endpoints are there to be
looked at: one that cannot be understood is left out, and so is everything in it that may be a credential.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address
from urllib.parse import unquote, urlsplit

from coreflow.adapters.names import Member
from coreflow.domain.errors import Refused
from coreflow.domain.platform.bindings import CAPABILITIES, Endpoint

from . import methods as m

NAME_LIMIT = 100
"""Characters of a variable's name that are told."""
_HOST = re.compile(r"[a-z0-9_][a-z0-9_.-]*", re.IGNORECASE)
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*")
_NAME = re.compile(r"[a-z0-9][a-z0-9 ._-]{0,99}", re.IGNORECASE)
_SECRET_NAME = re.compile(r"secret|key|pass|pw|token|credential", re.IGNORECASE)
_SAFE_INTEGER = 2**53


def variables(body: object, capability: str) -> dict[str, str]:
    """The variables of a capability, by name. Raises Refused, with the name of what cannot be used and no value."""
    found = {name: value for part in _maps(body, capability) for name, value in part.items()}
    if not found:
        raise Refused("the answer has no variables")
    return {name: _value(name, found[name]) for name in sorted(found)}


def endpoints(body: object, capability: str) -> tuple[Endpoint, ...]:
    """Return where a capability is reached, without credentials."""
    found = {
        endpoint
        for place in _places(body, capability)
        for name, raw in _named(m.ENDPOINTS.of(place), capability)
        if not _is_other(name, capability) and (endpoint := _endpoint(name, raw, capability)) is not None
    }
    return tuple(sorted(found, key=lambda e: (e.name, e.protocol, e.host, e.port)))


def message(body: object, member: Member = m.MESSAGE) -> str:
    """Return what an answer says about itself; empty: nothing."""
    if not isinstance(body, Mapping):
        return ""
    said = (body.get(name) for name in member.names)
    return next((text for text in said if isinstance(text, str) and text.strip()), "")


def texts(raw: object) -> Iterator[str]:
    """Every text in a document that is a value."""
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Mapping):
        for value in raw.values():
            yield from texts(value)
    elif isinstance(raw, (list, tuple)):
        for value in raw:
            yield from texts(value)


def secrets_in(values: Mapping[str, str]) -> Iterator[str]:
    """Yield what of variables must not be seen anywhere else: keys and the like, by their names, and the passwords of URLs."""
    for name, value in values.items():
        if _SECRET_NAME.search(name):
            yield value
        password = value.partition("://")[2].rpartition("@")[0].partition(":")[2]
        if password:
            yield password
            yield unquote(password)


def _places(body: object, capability: str) -> Iterator[object]:
    """Yield where to look: in the answer, and in what it has for the capability."""
    yield body
    for holder in (m.RESOURCES.of(body), body):
        if isinstance(holder, Mapping):
            yield holder.get(capability)


def _is_other(name: object, capability: str) -> bool:
    return name != capability and name in CAPABILITIES


# --- variables


def _maps(body: object, capability: str) -> Iterator[Mapping[str, object]]:
    """All that holds variables; later ones are more to the point."""
    for place in _places(body, capability):
        found = m.VARIABLES.of(place)
        if found is None:
            continue
        if not isinstance(found, Mapping):
            raise Refused("the answer's variables are not an object")
        inner = {name for name in CAPABILITIES if isinstance(found.get(name), Mapping)}
        yield {name: value for name, value in found.items() if name not in inner}
        if capability in inner:
            yield found[capability]


def _value(name: str, value: object) -> str:
    if not name or "=" in name or not name.isprintable():
        raise Refused("a variable has a name that cannot be used")
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < _SAFE_INTEGER else repr(value)
    raise Refused(f"the variable {name[:NAME_LIMIT]} is not a string")


# --- endpoints


def _named(raw: object, capability: str) -> Iterator[tuple[object, object]]:
    if isinstance(raw, Mapping):
        yield from raw.items()
    elif isinstance(raw, list):
        for one in raw:
            yield m.NAME.of(one) or capability, one
    elif raw is not None:
        yield capability, raw


def _endpoint(name: object, raw: object, capability: str) -> Endpoint | None:
    usual = m.PROTOCOLS.get(capability, "tcp")
    url = raw if isinstance(raw, str) else m.URL.of(raw)
    if isinstance(url, str):
        parts = _of_url(url if "://" in url else f"{usual}://{url}")
        if parts is None:
            return None
        protocol, host, port = parts
    else:
        protocol, host, port = m.PROTOCOL.of(raw) or usual, m.HOST.of(raw), m.PORT.of(raw)
    protocol = protocol.lower().rstrip(":/") if isinstance(protocol, str) else ""
    host = _host(host)
    port = _port(m.PORTS.get(protocol) if port is None else port)
    if not _PROTOCOL.fullmatch(protocol) or host is None or port is None:
        return None
    named = isinstance(name, str) and _NAME.fullmatch(name)
    return Endpoint(name=str(name) if named else capability, protocol=protocol, host=host, port=port)


def _of_url(url: str) -> tuple[object, object, object] | None:
    try:
        parts = urlsplit(url)
        if "@" in parts.path + parts.query + parts.fragment:
            return None  # a password with a slash in it: what looks like the host may be the user
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return None


def _host(raw: object) -> str | None:
    if not isinstance(raw, str):
        return None
    host = raw.rpartition("@")[2].strip("[]")
    if _HOST.fullmatch(host):
        return host.lower()
    try:
        return IPv6Address(host).compressed
    except ValueError:
        return None


def _port(raw: object) -> int | None:
    if isinstance(raw, str) and raw.isascii() and raw.isdecimal() and len(raw) <= 5:
        raw = int(raw)
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw < 65536 else None
