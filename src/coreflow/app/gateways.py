"""The external gateway, if the control plane hands one out: its routes for our hosts, and its certificates."""

from collections.abc import Callable, Iterable
from functools import partial

import structlog
import trio
from attrs import frozen

from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.errors import CoreflowError, PortError, Refused
from coreflow.domain.ids import ClusterId
from coreflow.domain.pacing import next_delay
from coreflow.domain.ports import GatewayPort
from coreflow.domain.records.models import GatewayRecord
from coreflow.domain.routing.gateway import (
    CreateRoute,
    DeleteRoute,
    GatewayAction,
    GatewayRoute,
    UpdateRoute,
    plan_gateway,
    wanted_routes,
)
from coreflow.domain.routing.routes import HostClaim
from coreflow.domain.status.connections import GATEWAY

from .heard import Heard, unheard
from .journaling import NO_RECORDER, Recorder

log = structlog.get_logger()

MakeGateway = Callable[[GatewayRecord, ClusterId], GatewayPort]
PUBLIC_PORT = 443
_DONE = {CreateRoute: "created", UpdateRoute: "updated", DeleteRoute: "deleted"}


@frozen(kw_only=True)
class _Wanted:
    record: GatewayRecord
    cluster: ClusterId
    hosts: tuple[str, ...]
    complete: bool


def gateway_routes(
    record: GatewayRecord, cluster: ClusterId, hosts: Iterable[str]
) -> tuple[GatewayRoute, ...]:
    """The routes that the gateway should have. It terminates TLS itself where its certificates are taken."""
    return wanted_routes(
        cluster,
        hosts,
        record.target_host or "",
        record.target_port or PUBLIC_PORT,
        "terminate-and-reencrypt" if record.export_certificates else "passthrough",
    )


class Gateways:
    """Keeps the routes of the present gateway in step. One that fails is left alone for a while, each time longer."""

    def __init__(self, make: MakeGateway, heard: Heard = unheard, recorder: Recorder = NO_RECORDER) -> None:
        self._make, self._heard, self._recorder = make, heard, recorder
        self._record: GatewayRecord | None = None
        self._port: GatewayPort | None = None
        self._wanted: _Wanted | None = None
        self._done: _Wanted | None = None
        self._news = trio.Event()
        self._said: dict[str, str] = {}

    @property
    def certificates(self) -> GatewayPort | None:
        """The gateway, if certificates shall be taken from it."""
        return self._port if self._record is not None and self._record.export_certificates else None

    def reconciled(self, reconcile_state: ReconcileState, claims: Iterable[HostClaim]) -> None:
        """Passes have ended: the gateway or the hosts may be others now."""
        record = reconcile_state.records.gateway
        if record is not None and not record.enabled:
            record = None
        if record != self._record:
            self._record, self._port, self._done = record, None, None
            if record is not None:
                self._port = self._make_port(record, reconcile_state.desired.cluster)
        hosts = tuple(sorted(claim.host for claim in claims))
        if record is None or not record.sync_routes:
            self._wanted = None
            return
        if record.target_host is None:
            self._say("", "the gateway's record has no targetHost: its routes are left alone")
            self._wanted = None
            return
        before = self._wanted
        self._wanted = _Wanted(
            record=record,
            cluster=reconcile_state.desired.cluster,
            hosts=hosts,
            complete=reconcile_state.knows_all_hosts,
        )
        if self._wanted not in (before, self._done):  # what failed is tried again in its own time
            self._news.set()

    def _make_port(self, record: GatewayRecord, cluster: ClusterId) -> GatewayPort | None:
        try:
            return self._make(record, cluster)
        except (Refused, ValueError):
            self._say("", "the gateway's url cannot be used")
            return None

    def refresh(self) -> None:
        """Look at the gateway's routes again, though nothing changed here, and at what it could not do."""
        if self._port is not None:
            self._port.refresh()
        self._done = None
        self._news.set()

    async def run(self) -> None:
        """Sync until cancelled."""
        delay = 0.0
        while True:
            await self._news.wait()
            self._news = trio.Event()
            wanted, port = self._wanted, self._port
            if wanted is None or port is None or wanted == self._done:
                continue
            try:
                clean = await self._sync(wanted, port)
                self._heard(GATEWAY, "", None)
            except CoreflowError as exc:
                self._heard(GATEWAY, "", exc)
                self._say("", str(exc))
                clean = False
            if clean:
                self._done, delay = wanted, 0.0
                self._is_well("")
            else:
                delay = next_delay(delay, first=5.0, longest=600.0)
                with trio.move_on_after(delay):
                    await self._news.wait()
                self._news.set()

    async def _sync(self, wanted: _Wanted, port: GatewayPort) -> bool:
        """List, compare, write what differs; whether all of it could be done. One host that fails, fails alone."""
        routes = gateway_routes(wanted.record, wanted.cluster, wanted.hosts)
        clean = True
        for action in plan_gateway(wanted.cluster, routes, await port.routes(), complete=wanted.complete):
            host = action.host if isinstance(action, DeleteRoute) else action.route.host
            try:
                await self._recorder.route(action, partial(port.apply, action))
            except PortError as exc:
                self._say(host, str(exc))
                clean = False
            else:
                self._is_well(host)
                self._log(action, host)
        return clean

    @staticmethod
    def _log(action: GatewayAction, host: str) -> None:
        log.info(f"gateway route {_DONE[type(action)]}", host=host, reason=action.reason)  # noqa: G004 - three texts

    def _is_well(self, host: str) -> None:
        """End what was said of a host, or of the gateway."""
        if (was := self._said.pop(host, None)) is not None:
            log.info("gateway, resolved", host=host or None, was=was)

    def _say(self, host: str, text: str) -> None:
        if self._said.get(host) != text:
            log.warning("gateway", host=host or None, reason=text)
        self._said[host] = text
