"""The route table: the tasks and the certificate of each host, and why a host is left out.

Hosts come from records (see `Desired.hosts`), addresses from tasks, certificates are looked up by host. A table is always
complete: a proxy removes every route that is missing from it.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import field, frozen

from coreflow.domain.ids import ClusterId, NodeId
from coreflow.domain.swarm.naming import WEB_GATEWAY
from coreflow.domain.swarm.observed import ObservedService, ObservedTask

from .certificate import Certificate

RUNNING = "running"
RouteTasks = Literal["all", "first"]


@frozen(kw_only=True)
class HostClaim:
    """A host name that leads to a service, and the port there."""

    host: str
    service: str
    """The name of the service."""
    port: int


@frozen(kw_only=True)
class Destination:
    """A task that answers."""

    address: str
    task_id: str
    node_id: NodeId | None


@frozen(kw_only=True)
class Route:
    """One entry of the table."""

    host: str
    service: str
    port: int
    destinations: tuple[Destination, ...]
    certificate: Certificate

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return where the tasks are, in a stable order."""
        return tuple(destination.address for destination in self.destinations)


@frozen(kw_only=True)
class Missing:
    """A host without an entry, and why. `is_dead`: nobody is there to answer, whatever else is wrong."""

    host: str
    service: str
    reason: str
    is_dead: bool = False


@frozen(kw_only=True)
class RouteTable:
    """All routes, by host in order, and what could not be routed."""

    routes: tuple[Route, ...] = ()
    missing: tuple[Missing, ...] = ()
    claims: tuple[HostClaim, ...] = field(factory=tuple)
    """Every host that ought to be routed."""

    @property
    def known_empty(self) -> bool:
        """Return whether nobody is there to be routed to, as opposed to nobody that can be routed to now."""
        return not self.routes and all(missing.is_dead for missing in self.missing)


Located = Mapping[str, tuple[Destination, ...]]
"""Where services answer, by name."""


def locate(
    cluster: ClusterId,
    services: Iterable[ObservedService],
    tasks: Iterable[ObservedTask],
    which: RouteTasks = "all",
) -> Located:
    """Running tasks of our services on the web gateway network, by service; the oldest first.

    Swarm calls a task running once its health check, if it has one, has passed. One that is to be stopped is left out.
    """
    names = {service.id: service.name for service in services if service.cluster == cluster}
    found: dict[str, list[tuple[str, Destination]]] = {}
    for task in tasks:
        name = names.get(task.service_id)
        address = task.addresses.get(WEB_GATEWAY)
        if name is None or address is None or not task.is_running:
            continue
        destination = Destination(address=address, task_id=task.id, node_id=task.node_id)
        found.setdefault(name, []).append((task.created_at, destination))
    limit = 1 if which == "first" else None
    return {
        name: tuple(d for _, d in sorted(there, key=lambda pair: (pair[0], pair[1].task_id))[:limit])
        for name, there in found.items()
    }


@frozen(kw_only=True)
class NoCertificate:
    """The reason why there is no certificate for a host (yet)."""

    reason: str


Certificates = Mapping[str, Certificate | NoCertificate]
"""What is known of certificates, by host."""


def make_table(
    claims: Iterable[HostClaim],
    located: Located,
    certificates: Certificates,
    now: float,
    last: RouteTable = RouteTable(),
) -> RouteTable:
    """The table for these hosts. `now` is in seconds since 1970.

    Where a certificate cannot be had, the one of the last table goes on as long as it is valid.
    """
    last_certificates = {route.host: route.certificate for route in last.routes}
    routes: list[Route] = []
    missing: list[Missing] = []
    ordered = tuple(sorted(claims, key=lambda claim: claim.host))
    for claim in ordered:
        certificate = _certificate(certificates.get(claim.host), last_certificates.get(claim.host), now)
        destinations = located.get(claim.service, ())
        if isinstance(certificate, NoCertificate) or not destinations:
            missing.append(_missing(claim, destinations, certificate))
            continue
        routes.append(
            Route(
                host=claim.host,
                service=claim.service,
                port=claim.port,
                destinations=destinations,
                certificate=certificate,
            )
        )
    return RouteTable(routes=tuple(routes), missing=tuple(missing), claims=ordered)


def _certificate(
    found: Certificate | NoCertificate | None, last: Certificate | None, now: float
) -> Certificate | NoCertificate:
    """The certificate of a host that is valid now, or why there is none."""
    if not isinstance(found, Certificate) and last is not None and last.is_valid(now):
        return last
    if found is None:
        return NoCertificate(reason="its certificate has not been looked up yet")
    if isinstance(found, Certificate) and not found.is_valid(now):
        return NoCertificate(reason="its certificate is not valid any more")
    return found


def _missing(
    claim: HostClaim, destinations: tuple[Destination, ...], certificate: Certificate | NoCertificate
) -> Missing:
    reasons = [] if destinations else ["no task of the service runs yet"]
    if isinstance(certificate, NoCertificate):
        reasons.append(certificate.reason)
    return Missing(
        host=claim.host, service=claim.service, reason="; ".join(reasons), is_dead=not destinations
    )


def reverse_configs(table: RouteTable) -> list[dict[str, object]]:
    """The table as `IReverseProxyConfig` records (tsclass 9.5.0): the complete set, which replaces the last one."""
    return [
        {
            "hostName": route.host,
            "destinationIps": list(route.addresses),
            "destinationPorts": [route.port] * len(route.addresses),
            "privateKey": route.certificate.key,
            "publicKey": route.certificate.chain,
        }
        for route in table.routes
    ]
