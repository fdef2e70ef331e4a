"""Errors of an engine about registries that misbehave, by what they do.

Measured on 20.10 and 26.1, which agree unless it is said. `tests/integration/registry_stand_in.py` is a registry that does
all this by the names of its repositories.
"""

from collections.abc import Mapping

_HEAD = 'Head "http://registry/v2/x/manifests/1": '
_PAGE = "<html><head><title>nothing here</title></head><body>a page of something else</body></html>"
_UNEXPECTED = "received unexpected HTTP status: "
_DIAL = 'Get "https://registry/v2/": dial tcp'

ERRORS: Mapping[str, tuple[int, str]] = {
    "limited": (429, "toomanyrequests: You have reached your pull rate limit."),
    "broken": (500, f"{_UNEXPECTED}500 Internal Server Error"),
    "down": (500, f"{_UNEXPECTED}503 Service Unavailable"),
    "missing": (404, "manifest unknown"),
    "denied": (403, "denied"),
    "mixed": (401, "unauthorized"),
    "page403": (403, f"denied: {_PAGE}"),  # 26.1; 20.10 as of page404
    "page404": (
        500,
        f"error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: \"{_PAGE}\"",
    ),  # 20.10
    "page429": (429, f"toomanyrequests: {_PAGE}"),  # 26.1; 20.10 as of page404
    "page502": (500, f"{_UNEXPECTED}502 Bad Gateway"),
    "page503": (500, f"{_UNEXPECTED}503 Service Unavailable"),
    "page504": (500, f"{_UNEXPECTED}504 Gateway Timeout"),
    "text404": (500, "unknown: 404 page not found\n"),  # 26.1; 20.10 as of page404
    "odd": (500, "missing signature key"),
    "portal": (500, "error unmarshalling content: invalid character '<' looking for beginning of value"),
    "silent": (500, f"{_HEAD}EOF"),
    "no-login": (500, f"{_HEAD}no basic auth credentials"),
    "wrong-login": (401, "unauthorized: authentication required"),
    "token-broken": (500, f"{_HEAD}{_UNEXPECTED}500 Internal Server Error"),
    "token-page": (500, f"{_HEAD}{_UNEXPECTED}502 Bad Gateway"),
    "token-denied": (500, f"{_HEAD}unauthorized: incorrect username or password"),
    "token-limited": (500, f"{_HEAD}toomanyrequests: slow down"),
    "token-useless": (401, "unauthorized"),
    "refused": (500, f"{_DIAL} 127.0.0.1:5999: connect: connection refused"),
    "no-route": (500, f"{_DIAL} 192.0.2.1:443: connect: network is unreachable"),
    "no-name": (500, f"{_DIAL}: lookup registry: no such host"),
    "no-name-server": (
        500,
        f"{_DIAL}: lookup registry on 127.0.0.1:53: read udp 127.0.0.1:1->127.0.0.1:53: read: connection refused",
    ),
    "plain": (500, 'Get "https://registry/v2/": tls: first record does not look like a TLS handshake'),
    "certificate": (500, 'Get "https://registry/v2/": x509: certificate is valid for a, not b'),
}
