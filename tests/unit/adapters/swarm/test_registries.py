"""What an engine's text about a registry means, for texts that the stand-in registry cannot bring about."""

import pytest

from coreflow.adapters.engine.memory.registries import ERRORS
from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.swarm.registries import registry_error
from coreflow.domain.errors import PortError, RateLimited, Refused, Unavailable
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm.images import ImageRequest

HOST = "r.example.com"
REQUEST = ImageRequest(f"{HOST}/x:1")
WITH_LOGIN = ImageRequest(REQUEST.reference, RegistryLogin(serveraddress=HOST, username="u", password="p"))
DIAL = f'Get "https://{HOST}/v2/": '

CASES: list[tuple[int, str, type[PortError], str]] = [
    # on the way
    (
        500,
        DIAL + f"dial tcp: lookup {HOST} on 10.0.0.2:53: no such host",
        Unavailable,
        "there is no such host name",
    ),
    (
        500,
        DIAL + f"dial tcp: lookup {HOST} on 10.0.0.2:53: server misbehaving",
        Unavailable,
        "no name server tells",
    ),
    (500, DIAL + f"dial tcp: lookup {HOST}: i/o timeout", Unavailable, "no name server tells its address"),
    (500, DIAL + "dial tcp 10.0.0.9:443: connect: no route to host", Unavailable, "there is no route to it"),
    (500, DIAL + "dial tcp 10.0.0.9:443: i/o timeout", Unavailable, "does not answer in time"),
    (500, DIAL + "net/http: TLS handshake timeout", Unavailable, "does not answer in time"),
    (500, DIAL + "context deadline exceeded", Unavailable, "does not answer in time"),
    (
        500,
        DIAL
        + "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)",
        Unavailable,
        f"{HOST} does not answer in time",
    ),
    (500, DIAL + "http: server gave HTTP response to HTTPS client", Unavailable, "plain HTTP, not TLS"),
    (
        500,
        DIAL + "x509: certificate signed by unknown authority",
        Unavailable,
        f"the certificate of {HOST} is not trusted: certificate signed by unknown authority",
    ),
    (
        500,
        DIAL + "remote error: tls: handshake failure",
        Unavailable,
        f"no TLS with {HOST}: handshake failure",
    ),
    (500, DIAL + "read tcp 1.2.3.4:5->6.7.8.9:443: connection reset by peer", Unavailable, f"{HOST} hung up"),
    (
        500,
        DIAL + 'net/http: HTTP/1.x transport connection broken: malformed HTTP response "x"',
        Unavailable,
        "speak HTTP",
    ),
    (
        500,
        DIAL + "proxyconnect tcp: dial tcp 10.0.0.3:3128: connect: connection refused",
        Unavailable,
        f"the engine's proxy does not lead to {HOST}: dial tcp 10.0.0.3:3128: connect: connection refused",
    ),
    # Docker Hub, and others
    (429, "toomanyrequests: You have reached your pull rate limit.", RateLimited, "rate limited (429)"),
    (
        500,
        "error parsing HTTP 429 response body: invalid character 'T': \"Too Many Requests\"",
        RateLimited,
        "(429)",
    ),
    (404, "name unknown: repository name not known to registry", Refused, f"not found on {HOST}"),
    (
        500,
        "errors:\ndenied: requested access to the resource is denied\nunauthorized: x\n",
        Refused,
        "access denied",
    ),
    (500, "manifest invalid: manifest invalid", Refused, "not an image that this engine can read"),
    # containerd's resolver
    (404, f"{HOST}/x:1: not found", Refused, f"not found on {HOST}"),
    (
        500,
        (
            f"failed to resolve reference: unexpected status from HEAD request to https://{HOST}/v2/x/manifests/1: "
            "503 Service Unavailable"
        ),
        Unavailable,
        f"{HOST} answers 503 Service Unavailable",
    ),
    (
        500,
        (
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://auth/token: "
            "502 Bad Gateway"
        ),
        Unavailable,
        "its token server answers 502 Bad Gateway",
    ),
    (
        500,
        f"unexpected status from HEAD request to https://{HOST}/v2/x/manifests/1: 429 Too Many Requests",
        RateLimited,
        "rate limited (429)",
    ),
    (
        403,
        (
            "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: "
            "authorization failed"
        ),
        Refused,
        "a login is needed, or there is no such image",
    ),
    (500, "no manifest found for full image ID", Refused, "no registry can be asked for this reference"),
    (500, 'Get "https:/v2/": http: no Host in request URL', Refused, "no registry can be asked"),
    (
        500,
        'Get "https://r:99999/v2/": dial tcp: address 99999: invalid port',
        Refused,
        "no registry can be asked",
    ),
    # not the registry's
    (400, "invalid reference format", Refused, f"asking {HOST}: invalid reference format"),
    (500, "mkdir /var/lib/docker/tmp: no space left on device", Unavailable, "no space left on device"),
    (503, "Service Unavailable", Unavailable, f"asking {HOST}: Service Unavailable"),
    (500, "open /var/lib/docker/x: permission denied", Unavailable, f"asking {HOST}: open"),
    (500, "what nobody has seen yet", Unavailable, f"asking {HOST}: what nobody has seen yet"),
]


@pytest.mark.parametrize(("status", "text", "kind", "says"), CASES, ids=[case[1][-40:] for case in CASES])
def test_the_reason_of_a_text(status: int, text: str, kind: type[PortError], says: str) -> None:
    """Each text has its reason, the image is named, and a text that nobody knows is passed on."""
    error = registry_error(EngineError(status, text), REQUEST)
    assert type(error) is kind
    assert str(error).startswith(f"image {REQUEST.reference}: ")
    assert says in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("how", sorted(ERRORS))
def test_without_a_login_none_is_blamed(how: str) -> None:
    """No text of any registry makes us say that a login is wrong that nobody gave."""
    assert "login is wrong" not in str(registry_error(EngineError(*ERRORS[how]), REQUEST))
    assert "did not accept the login" not in str(registry_error(EngineError(*ERRORS[how]), REQUEST))


def test_only_a_token_server_knows_that_a_login_is_wrong() -> None:
    """A registry's 401 may mean that it never asked for the login; a token server that names the password has seen it."""
    wrong = str(registry_error(EngineError(*ERRORS["token-denied"]), WITH_LOGIN))
    assert wrong == f"image {REQUEST.reference}: refused by {HOST}: the login is wrong"
    assert "login is wrong" not in str(registry_error(EngineError(*ERRORS["mixed"]), WITH_LOGIN))


def test_a_page_is_shown_short() -> None:
    """A long page of a proxy is cut, without its tags."""
    text = "unknown: <html><head></head><body>" + "blocked " * 100 + "</body></html>"
    said = str(registry_error(EngineError(500, text), REQUEST))
    assert "<" not in said
    assert "blocked blocked" in said
    assert len(said) < 250
