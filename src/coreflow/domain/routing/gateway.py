"""An external gateway in front of the cluster: which of its routes are ours, and what has to change.

A gateway may carry routes of others and of other clusters. Only those that bear our name *and* our cluster are ever
touched, and none is removed unless everything that is wanted is known.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import frozen

from coreflow.domain.ids import ClusterId
from coreflow.domain.records.hosts import canonical_host

TlsMode = Literal["passthrough", "terminate-and-reencrypt"]
NAME_PREFIX = "coreflow"


@frozen(kw_only=True)
class GatewayRoute:
    """A public route that leads a host to this cluster."""

    name: str
    host: str
    target_host: str
    target_port: int
    tls_mode: TlsMode
    enabled: bool = True


@frozen(kw_only=True)
class ObservedRoute:
    """A route as the gateway lists it. `route` is None where it is not one that we could have made."""

    id: str
    """Empty for one that is built in and cannot be changed."""
    name: str
    cluster: ClusterId | None
    """The cluster in our mark, if it bears one."""
    route: GatewayRoute | None


@frozen
class CreateRoute:
    """Make a route."""

    route: GatewayRoute
    reason: str


@frozen
class UpdateRoute:
    """Change one of ours."""

    id: str
    route: GatewayRoute
    reason: str


@frozen
class DeleteRoute:
    """Remove one of ours."""

    id: str
    host: str
    reason: str


GatewayAction = CreateRoute | UpdateRoute | DeleteRoute


def route_name(cluster: ClusterId, host: str) -> str:
    """The name by which a route is known to be ours."""
    return f"{NAME_PREFIX}-{cluster}-{host}"


def cluster_of(route: GatewayRoute) -> ClusterId | None:
    """The cluster that a route's name tells, if it is one that we would give."""
    middle = route.name.removeprefix(f"{NAME_PREFIX}-").removesuffix(f"-{route.host}")
    return ClusterId(middle) if middle and route.name == route_name(ClusterId(middle), route.host) else None


def wanted_routes(
    cluster: ClusterId, hosts: Iterable[str], target_host: str, target_port: int, tls_mode: TlsMode
) -> tuple[GatewayRoute, ...]:
    """One route per host. Names are written as a gateway's are compared."""
    return tuple(
        GatewayRoute(
            name=route_name(cluster, host),
            host=host,
            target_host=canonical_host(target_host),
            target_port=target_port,
            tls_mode=tls_mode,
        )
        for host in sorted(set(map(canonical_host, hosts)))
    )


def plan_gateway(
    cluster: ClusterId, wanted: Iterable[GatewayRoute], live: Iterable[ObservedRoute], *, complete: bool
) -> tuple[GatewayAction, ...]:
    """Return what has to change, in order: new ones, changed ones, and, if `wanted` is `complete`, what is too many.

    A route is ours if it bears our cluster's mark and a name that we would give, and nobody else has its id; nothing
    else is looked at, except that no second route is made with a name that somebody else's has, or for a host that a
    route with our mark and another name leads here: a gateway that changes names would get one more in every pass.
    """
    seen = _Seen.of(cluster, live)
    ours = dict(seen.ours)
    made: list[GatewayAction] = []
    changed: list[GatewayAction] = []
    gone: list[GatewayAction] = []
    for route in _one_per_name(wanted):
        same = sorted(ours.pop(route.name, ()), key=lambda found: (found.route != route, found.id))
        if not same and seen.leaves_room_for(route):
            made.append(CreateRoute(route, "new"))
        elif same and same[0].route != route:
            changed.append(UpdateRoute(same[0].id, route, _difference(same[0].route, route)))
        gone += [DeleteRoute(extra.id, route.host, "there twice") for extra in same[1:]]
    for name, extras in sorted(ours.items()):
        host = name.removeprefix(route_name(cluster, ""))
        gone += [DeleteRoute(extra, host, "no longer wanted") for extra in sorted(e.id for e in extras)]
    return (*made, *changed, *(gone if complete else ()))


@frozen(kw_only=True)
class _Seen:
    """The routes that are there, sorted."""

    ours: Mapping[str, list[ObservedRoute]]
    """By name."""
    foreign: frozenset[str]
    """Names of others' routes."""
    led_here: frozenset[str]
    """Hosts of routes with our mark, and with a name or an id that is not ours."""

    @classmethod
    def of(cls, cluster: ClusterId, live: Iterable[ObservedRoute]) -> "_Seen":
        once = set(live)
        uses = Counter(found.id for found in once)
        prefix = route_name(cluster, "")
        ours: dict[str, list[ObservedRoute]] = {}
        others: list[ObservedRoute] = []
        for found in once:
            if (
                found.cluster == cluster
                and found.id
                and uses[found.id] == 1
                and found.name.startswith(prefix)
            ):
                ours.setdefault(found.name, []).append(found)
            else:
                others.append(found)
        marked = (found for found in others if found.cluster == cluster)
        return cls(
            ours=ours,
            foreign=frozenset(found.name for found in others),
            led_here=frozenset(found.route.host for found in marked if found.route is not None),
        )

    def leaves_room_for(self, route: GatewayRoute) -> bool:
        """Return whether a new route would be the only one of its name and for its host."""
        return route.name not in self.foreign and route.host not in self.led_here


def _one_per_name(routes: Iterable[GatewayRoute]) -> list[GatewayRoute]:
    ordered = sorted(
        routes, key=lambda r: (r.name, r.host, r.target_host, r.target_port, r.tls_mode, r.enabled)
    )
    return list({route.name: route for route in ordered}.values())


def _difference(live: GatewayRoute | None, wanted: GatewayRoute) -> str:
    if live is None:
        return "changed by hand"
    changes = []
    if live.host != wanted.host:
        changes.append("host")
    if (live.target_host, live.target_port) != (wanted.target_host, wanted.target_port):
        changes.append(
            f"target {live.target_host}:{live.target_port} → {wanted.target_host}:{wanted.target_port}"
        )
    if live.tls_mode != wanted.tls_mode:
        changes.append(f"TLS {live.tls_mode} → {wanted.tls_mode}")
    if live.enabled != wanted.enabled:
        changes.append("switched off" if live.enabled else "switched on again")
    return ", ".join(changes)
