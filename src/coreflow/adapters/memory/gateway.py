"""An external gateway in memory: a list of routes, ours and others', and certificates in a dictionary."""

from collections import deque

import trio

from coreflow.domain.errors import PortError, Refused
from coreflow.domain.records.models import CertificateRecord
from coreflow.domain.routing.gateway import (
    CreateRoute,
    GatewayAction,
    GatewayRoute,
    ObservedRoute,
    UpdateRoute,
    cluster_of,
)


class MemoryGateway:
    """`GatewayPort` on `listed`, the routes as they would be listed, and `certificates`, by host name or wildcard.

    `listed` may be changed at any time, to add routes of others (those without an id are built in) or to change ours.
    The errors in `faults` are raised first, one per call of any method. `writes` counts what changed something.
    """

    def __init__(self) -> None:
        self.listed: list[ObservedRoute] = []
        self.certificates: dict[str, CertificateRecord] = {}
        self.faults: deque[PortError] = deque()
        self.writes = 0
        self._made = 0

    async def certificate(self, host: str) -> CertificateRecord:
        """The certificate for a host, or for its parent as a wildcard. Raises Refused when there is none."""
        await self._call()
        for name in (host, "*." + host.partition(".")[2]):
            if name in self.certificates:
                return self.certificates[name]
        raise Refused(f"certificate of {host}: the gateway has none")

    def refresh(self) -> None:
        """Nothing: it can do everything."""

    async def routes(self) -> tuple[ObservedRoute, ...]:
        """Every route there is, built-in ones included."""
        await self._call()
        return tuple(self.listed)

    async def apply(self, action: GatewayAction) -> None:
        """Write, change or remove a route. Done already is success.

        Raises Refused for a route that is not there or built in, and for a name that is taken.
        """
        await self._call()
        if isinstance(action, CreateRoute):
            self._create(action.route)
            return
        place = next((n for n, found in enumerate(self.listed) if found.id == action.id), None)
        if not action.id:
            raise Refused("gateway: a built-in route cannot be changed")
        if isinstance(action, UpdateRoute):
            if place is None:
                raise Refused(f"gateway: {action.route.host}: there is no such route")
            self.listed[place] = self._observed(action.id, action.route)
            self.writes += 1
        elif place is not None:
            del self.listed[place]
            self.writes += 1

    def _create(self, route: GatewayRoute) -> None:
        same = [found for found in self.listed if found.name == route.name]
        if any(found.id and found.route == route and found.cluster == cluster_of(route) for found in same):
            return
        if same:
            raise Refused(f"gateway: {route.host}: the route's name is taken")
        self._made += 1
        self.listed.append(self._observed(f"made-{self._made}", route))
        self.writes += 1

    @staticmethod
    def _observed(identity: str, route: GatewayRoute) -> ObservedRoute:
        cluster = cluster_of(route)
        if cluster is None:
            raise Refused(f"gateway: {route.host}: the route's name is not one of ours")
        return ObservedRoute(id=identity, name=route.name, cluster=cluster, route=route)

    async def _call(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.popleft()
