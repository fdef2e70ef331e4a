"""Routes and certificates: our words <-> the gateway's, whichever of its generations wrote them.

Reading never raises for a route: what we could not have written comes back as one that is not ours to understand. It
overlooks what a gateway may fill in by itself, since a difference that cannot be written away would be written for ever.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from coreflow.domain.ids import ClusterId
from coreflow.domain.records.converter import decode
from coreflow.domain.records.hosts import canonical_host
from coreflow.domain.records.models import CertificateRecord
from coreflow.domain.routing.gateway import NAME_PREFIX, GatewayRoute, ObservedRoute, TlsMode

from . import methods as m

PUBLIC_PORT = 443
_ANY_PATH = ("/", "/*", "*")

Json = dict[str, Any]


def route_body(route: GatewayRoute, cluster: ClusterId) -> Json:
    """A route as it is written, with our mark."""
    tls: Json = {m.MODE.name: route.tls_mode}
    if route.tls_mode == "terminate-and-reencrypt":
        tls[m.TLS_CERTIFICATE.name] = "auto"
    return {
        m.NAME.name: route.name,
        m.MATCH.name: {m.PORTS.name: PUBLIC_PORT, m.DOMAINS.name: [route.host]},
        m.ACTION.name: {
            m.TYPE.name: "forward",
            m.TARGETS.name: [{m.HOST.name: route.target_host, m.PORT.name: route.target_port}],
            m.TLS.name: tls,
        },
        m.TAGS.name: [m.MARK + cluster],
    }


def metadata(route: GatewayRoute, cluster: ClusterId) -> Json:
    """Return what stands beside a route that we write."""
    return {
        m.OWNER: NAME_PREFIX,
        m.CLUSTER_ID: cluster,
        m.HOST_NAME: route.host,
        m.TAGS.name: [m.MARK + cluster],
    }


def observed_route(raw: object) -> ObservedRoute:
    """A route of a list. Its id is empty where it has none, or is built in."""
    wrapped = m.ROUTE.of(raw)
    inside = wrapped if isinstance(wrapped, Mapping) else raw
    name = next((found for found in (m.NAME.of(inside), m.NAME.of(raw)) if isinstance(found, str)), "")
    origin = m.ORIGIN.of(raw)
    built_in = isinstance(origin, str) and origin.lower() in m.BUILT_IN
    marks = set(_marks(raw, inside))
    return ObservedRoute(
        id="" if built_in else _identity(raw),
        name=name,
        cluster=ClusterId(marks.pop()) if len(marks) == 1 else None,
        route=_route(raw, inside, name),
    )


def certificate(raw: object, domain: str) -> CertificateRecord:
    """A certificate for `domain`. Raises InvalidRecord when it cannot be used; no text quotes a part of it."""
    known: Json = {"domainName": domain}
    for member, wanted in (
        (m.CERTIFICATE_ID, str),
        (m.DOMAIN_NAME, str),
        (m.CREATED, (int, float)),
        (m.VALID_UNTIL, (int, float)),
    ):
        value = member.of(raw)
        if isinstance(value, wanted) and not isinstance(value, bool):
            known[member.name] = value
    known |= {member.name: member.of(raw) for member in (m.PRIVATE_KEY, m.PUBLIC_KEY)}
    return decode(known, CertificateRecord)


def _identity(raw: object) -> str:
    found = m.FOUND_ID.of(raw)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) else ""


def _marks(raw: object, inside: object) -> Iterator[str]:
    """The clusters whose mark a route bears."""
    beside = m.METADATA.of(raw)
    within = m.METADATA.of(inside)
    for place in (raw, inside, beside, within):
        tags = m.TAGS.of(place)
        for tag in tags if isinstance(tags, list) else [tags]:
            if isinstance(tag, str) and tag.startswith(m.MARK):
                yield tag.removeprefix(m.MARK)
    for place in (beside, within):
        if isinstance(place, Mapping) and place.get(m.OWNER) == NAME_PREFIX:
            cluster = place.get(m.CLUSTER_ID)
            if isinstance(cluster, str):
                yield cluster


def _route(raw: object, inside: object, name: str) -> GatewayRoute | None:
    match, action = m.MATCH.of(inside), m.ACTION.of(inside)
    hosts = _hosts(m.DOMAINS.of(match))
    target = _target(m.TARGETS.of(action))
    mode = _mode(m.TLS.of(action) or m.TLS.of(inside))
    forwards = (m.TYPE.of(action) or "forward") == "forward"
    if not forwards or _narrowed(match) or not _is_public_port(m.PORTS.of(match)):
        return None
    if len(hosts) != 1 or target is None or mode is None:
        return None
    return GatewayRoute(
        name=name,
        host=hosts.pop(),
        target_host=target[0],
        target_port=target[1],
        tls_mode=mode,
        enabled=all(m.ENABLED.of(place) is not False for place in (raw, inside)),
    )


def _hosts(value: object) -> set[str]:
    values = value if isinstance(value, list) else [value]
    return {canonical_host(host) if isinstance(host, str) else "" for host in values} - {""}


def _narrowed(match: object) -> bool:
    """Return whether only a part of the requests for a host is led here."""
    if not isinstance(match, Mapping):
        return True
    return any(match.get(name) and match[name] not in _ANY_PATH for name in m.NARROWING)


def _is_public_port(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(_span(one) == (PUBLIC_PORT, PUBLIC_PORT) for one in values)


def _span(value: object) -> tuple[int | None, int | None]:
    if isinstance(value, Mapping):
        return _port(value.get("from")), _port(value.get("to"))
    return _port(value), _port(value)


def _port(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len("65535"):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _target(value: object) -> tuple[str, int] | None:
    targets = value if isinstance(value, list) else [value]
    if len(targets) != 1:
        return None
    hosts, port = _hosts(m.HOST.of(targets[0])), _port(m.PORT.of(targets[0]))
    return (hosts.pop(), port) if len(hosts) == 1 and port is not None else None


def _mode(value: object) -> TlsMode | None:
    match m.MODE.of(value):
        case "passthrough":
            return "passthrough"
        case "terminate-and-reencrypt":
            return "terminate-and-reencrypt"
        case _:
            return None
