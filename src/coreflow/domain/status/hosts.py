"""Host names: which are routed, with whose certificate and until when, and what is wrong with the others."""

from collections.abc import Iterator, Mapping

from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.routes import Missing, Route, RouteTable

from .model import CurrentProblem, HostStatus, ServiceStatus
from .parts import Facts, Timeline

EXPIRING_SHARE = 0.9
"""After so much of its life a certificate should have been replaced: the first try is after four fifths."""
_DAY = 86_400.0
NO_CERTIFICATE = (
    "`coreflow routes` asks once more; the certificate comes from Cloudly, the gateway or the cluster file"
)


def host_statuses(table: RouteTable) -> tuple[HostStatus, ...]:
    """Every host that ought to be routed, by name."""
    ports = {claim.host: claim.port for claim in table.claims}
    routed = (
        HostStatus(
            host=route.host,
            service=route.service,
            port=route.port,
            is_routed=True,
            tasks=len(route.destinations),
            issuer=route.certificate.issuer,
            expires=route.certificate.not_after,
        )
        for route in table.routes
    )
    missing = (
        HostStatus(
            host=one.host,
            service=one.service,
            port=ports.get(one.host, 0),
            is_routed=False,
            cause=one.reason,
        )
        for one in table.missing
    )
    return tuple(sorted((*routed, *missing), key=lambda host: host.host))


def host_problems(
    facts: Facts, services: Mapping[str, ServiceStatus], timeline: Timeline
) -> Iterator[CurrentProblem]:
    """Yield what is wrong with hosts, unless it follows from what is wrong with their service."""
    table = facts.table
    if table is None:
        return
    for one in table.missing:
        if not _follows(one, services.get(one.service)):
            yield CurrentProblem(
                kind="not routed",
                subjects=(one.host,),
                cause=one.reason,
                since=timeline.since(f"host {one.host}"),
                next_step=NO_CERTIFICATE,
            )
    for route in table.routes:
        if is_expiring(route.certificate, facts.now):
            yield _expiring(route, facts.now, timeline)
    if table.claims and facts.counts_proxies and not any(c.peer == "coretraffic" for c in facts.connections):
        yield CurrentProblem(
            kind="away",
            subjects=("coretraffic",),
            cause=f"no coretraffic is connected: {len(table.claims)} hosts may be served by nobody",
            since=timeline.since("peer coretraffic"),
            next_step="`docker service ps coretraffic`; COREFLOW_CORETRAFFIC_PEERS says who may be it",
        )


def _follows(missing: Missing, service: ServiceStatus | None) -> bool:
    """Return whether nobody answers because the service has a problem, or only begins to run."""
    return missing.is_dead and (service is None or service.state != "as desired")


def is_expiring(certificate: Certificate, now: float) -> bool:
    """Return whether a certificate ends soon, and should have been replaced by now."""
    life = certificate.not_after - certificate.not_before
    return now >= certificate.not_before + EXPIRING_SHARE * life


def _expiring(route: Route, now: float, timeline: Timeline) -> CurrentProblem:
    certificate = route.certificate
    days = max(certificate.not_after - now, 0.0) / _DAY
    left = f"{days:.0f} days" if days >= 2 else f"{days * 24:.0f} hours"
    life = certificate.not_after - certificate.not_before
    return CurrentProblem(
        kind="certificate expires",
        subjects=(route.host,),
        cause=f"the certificate of {certificate.issuer} ends in {left}, and there is no newer one",
        since=timeline.since(f"certificate {route.host}", certificate.not_before + EXPIRING_SHARE * life),
        next_step=NO_CERTIFICATE,
    )
