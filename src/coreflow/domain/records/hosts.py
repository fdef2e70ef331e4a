"""Host names and ports as records spell them, and the one spelling that everybody else is given.

Proxies, gateways and certificates compare host names in lower case, without a final dot, and in ASCII: a Unicode name
becomes its punycode (`xn--…`), by the mapping that browsers use (source: UTS 46, without transitional processing).
"""

import re

NAME_LIMIT = 253
"""Characters of a host name (source: RFC 1035, without the final dot)."""
_HOST_NAME = re.compile(
    r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_DOTS = str.maketrans("。．｡", "...")
_WILDCARD = "*."
_OTHER_READINGS = {"ß": "ss", "ς": "σ", "\u200c": "", "\u200d": ""}
"""Characters that older clients read otherwise (source: UTS 46, table of deviations)."""
_PORT = re.compile(r"[1-9][0-9]{0,4}")
LAST_PORT = 65535


def canonical_host(text: str) -> str:
    """The one spelling of a host name. What is none comes back as it is, in lower case; see `host_problem`."""
    host = text.strip()
    if host.isascii():
        return host.rstrip(".").lower()
    host = host.translate(_DOTS).rstrip(".").lower()
    if any(character in host for character in _OTHER_READINGS):
        return host
    return _punycode(host) or host


def host_problem(host: str) -> str | None:
    """Return why a host name in its canonical spelling cannot be used, or None."""
    if not host:
        return "is empty"
    if len(host) <= NAME_LIMIT and _HOST_NAME.fullmatch(host) is not None:
        return None
    if host.isascii() or not host.isprintable():
        return "is not a host name"
    ours, older = _punycode(host), _punycode(_as_older_clients(host))
    if ours and older and ours != older:
        return f"is read differently by older clients: write {ours} (or {older})"
    return f"is not a host name that all clients read: write {_spelt_out(host)} if it is meant"


def _as_older_clients(host: str) -> str:
    for character, reading in _OTHER_READINGS.items():
        host = host.replace(character, reading)
    return host


def _punycode(host: str) -> str | None:
    """The name in ASCII, or None where there is no valid one."""
    import idna  # its tables take 10 ms, and few names need them

    wildcard = _WILDCARD if host.startswith(_WILDCARD) else ""
    try:
        name = idna.encode(host.removeprefix(_WILDCARD), uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError):
        return None
    return f"{wildcard}{name.lower()}"


def _spelt_out(host: str) -> str:
    """Each label in punycode, valid or not."""
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in host.split(".")
    )


def port_in(text: str) -> int | None:
    """The port that a text is, or None: decimal digits that do not begin with 0."""
    digits = text.strip()
    return int(digits) if _PORT.fullmatch(digits) is not None and is_port(int(digits)) else None


def is_port(port: int) -> bool:
    """Return whether a number can be a port."""
    return 1 <= port <= LAST_PORT
