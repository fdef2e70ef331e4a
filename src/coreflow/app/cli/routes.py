"""`coreflow routes`."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
from attrs import evolve, field, frozen
from rich.console import Console
from rich.text import Text

from coreflow.app.certificates import LOOKUPS, find_certificate
from coreflow.app.cli import present
from coreflow.app.cli.deploy import Output, write_json
from coreflow.app.cli.running import Format, Records, read_settings, run
from coreflow.app.gateways import gateway_routes
from coreflow.app.peers import make_dcrouter, open_ports
from coreflow.app.reconcile import Reconciler
from coreflow.app.routing import claims_of
from coreflow.app.settings import Settings
from coreflow.app.streams import console_for
from coreflow.domain.deploy.services import host_ports
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.errors import CoreflowError
from coreflow.domain.ports import ControlPlane, GatewayPort
from coreflow.domain.routing.admission import runs_proxy
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.gateway import CreateRoute, UpdateRoute, plan_gateway
from coreflow.domain.routing.routes import Missing, NoCertificate, Route, RouteTable, locate, make_table
from coreflow.domain.swarm import naming
from coreflow.gc_pause import LARGE_CLUSTER, gc_paused

Json = dict[str, Any]
_now = time.time  # noqa: TID251 - the edge


def routes(records: Records = None, *, format: Output = Format.TEXT) -> int:  # noqa: A002 - the option's name
    """Show which host leads where: service, tasks and nodes, certificate, the external gateway, and what is missing.

    Certificates are looked up as the daemon does. Writes nothing. Exit status: 0 only if every host is routed, and a proxy runs.
    """

    async def command() -> int:
        view = await _look(read_settings(need_records=records is None), records)
        if format is Format.JSON:
            write_json(view.json())
        else:
            view.print(console_for())
        return 0 if not view.unrouted and not view.gateway_problem else 1

    return run(command, format, hosted=True)


@frozen(kw_only=True)
class View:
    """The table, and how far the external gateway is."""

    table: RouteTable
    nodes: Mapping[str, str] = field(factory=dict)
    """Host name by node id."""
    gateway: Mapping[str, str] | None = None
    """By host, what has to change at the gateway; None where there is none."""
    gateway_problem: str = ""
    proxy_problem: str = ""
    """The reason why nobody serves what could be routed."""

    @property
    def unrouted(self) -> tuple[Missing, ...]:
        """The hosts that nobody can reach, each with the reason."""
        unserved = self.table.routes if self.proxy_problem else ()
        return (
            *(Missing(host=one.host, service=one.service, reason=self.proxy_problem) for one in unserved),
            *self.table.missing,
        )

    def _nodes_of(self, route: Route) -> list[str]:
        return [self.nodes.get(d.node_id or "", d.node_id or "?") for d in route.destinations]

    def json(self) -> Json:
        """For programs."""
        return {
            "routes": [
                {
                    "host": route.host,
                    "service": route.service,
                    "port": route.port,
                    "tasks": [
                        {"address": destination.address, "node": node}
                        for destination, node in zip(route.destinations, self._nodes_of(route), strict=True)
                    ],
                    "certificate": {
                        "issuer": route.certificate.issuer,
                        "notAfter": _day(route.certificate.not_after),
                    },
                    "gateway": None if self.gateway is None else self.gateway.get(route.host, "as desired"),
                }
                for route in self.table.routes
            ],
            "missing": [{"host": m.host, "service": m.service, "reason": m.reason} for m in self.unrouted],
            "gateway": None if self.gateway is None else {"problem": self.gateway_problem or None},
        }

    def print(self, console: Console) -> None:
        """For people."""
        blocks = [present.Block("routes", tuple(self._rows()))] if self.table.routes else []
        if self.table.missing:
            rows = [
                present.Row(mark=present.PROBLEM, kind=m.host, name=m.service, reason=m.reason)
                for m in self.table.missing
            ]
            blocks.append(present.Block("not routed", tuple(rows)))
        if self.table.routes and self.proxy_problem:
            row = present.Row(
                mark=present.PROBLEM, kind=naming.CORETRAFFIC, name="", reason=self.proxy_problem
            )
            blocks.append(present.Block("proxy", (row,)))
        if self.gateway_problem:
            row = present.Row(mark=present.PROBLEM, kind="gateway", name="", reason=self.gateway_problem)
            blocks.append(present.Block("gateway", (row,)))
        present.print_blocks(console, blocks)
        total = len(self.table.routes) + len(self.table.missing)
        text = Text(f"{total - len(self.unrouted)} of {total} host{'' if total == 1 else 's'} routed", "bold")
        present.print_line(console, text.append("."))

    def _rows(self) -> Iterator[present.Row]:
        for route in self.table.routes:
            count = len(route.destinations)
            nodes = ", ".join(dict.fromkeys(self._nodes_of(route)))
            where = f"{count} task{'' if count == 1 else 's'} on {nodes}"
            certificate = f"{route.certificate.issuer} until {_day(route.certificate.not_after)}"
            gateway = (
                "" if self.gateway is None else f"; gateway: {self.gateway.get(route.host, 'as desired')}"
            )
            yield present.Row(
                mark=("ok", "green"),
                kind=route.host,
                name=f"{route.service}:{route.port}",
                reason=f"{where}; {certificate}{gateway}",
            )


async def _look(settings: Settings, records: Path | None) -> View:
    async with open_ports(settings, records) as ports:
        reconciler = Reconciler(
            ports.cloudly, ports.docker, render=settings.render_options, known=ports.known
        )
        reconcile_state = await reconciler.look()
        record = reconcile_state.records.gateway
        gateway = (
            make_dcrouter(record, reconcile_state.desired.cluster, redact=ports.known.redact)
            if record is not None and record.enabled
            else None
        )
        source = gateway if record is not None and record.export_certificates else None
        found = await _certificates(reconcile_state, ports.cloudly, source)
        table = make_table(
            claims_of(reconcile_state),
            locate(
                reconcile_state.desired.cluster,
                reconcile_state.observed.services,
                reconcile_state.observed.tasks,
                settings.route_tasks,
            ),
            found,
            _now(),
        )
        proxy_problem = _proxy_problem(reconcile_state, settings)
        changes, problem = await _gateway(reconcile_state, table, gateway)
        table = evolve(table, missing=(*table.missing, *_rejected(reconcile_state, table)))
    nodes: dict[str, str] = {node.id: node.hostname for node in reconcile_state.observed.nodes}
    return View(
        table=table, nodes=nodes, gateway=changes, gateway_problem=problem, proxy_problem=proxy_problem
    )


def _proxy_problem(reconcile_state: ReconcileState, settings: Settings) -> str:
    """Return that no proxy runs, if that is so. Those that the operator has elsewhere cannot be seen from here."""
    if settings.render_options.has_proxy:
        return ""
    observed = reconcile_state.observed
    if runs_proxy(reconcile_state.desired.cluster, observed.services, observed.tasks):
        return ""
    if naming.CORETRAFFIC in settings.base_services:
        return "no coretraffic runs: nothing serves these hosts; `coreflow apply` deploys it"
    return (
        "no coretraffic runs: nothing serves these hosts (COREFLOW_BASE_SERVICES, COREFLOW_CORETRAFFIC_PEERS)"
    )


def _rejected(reconcile_state: ReconcileState, table: RouteTable) -> Iterator[Missing]:
    """Hosts that records ask for which are rejected or held, unless somebody has them all the same."""
    claimed = {claim.host for claim in table.claims}
    reasons = {rejection.unit: rejection for rejection in reconcile_state.plan.rejections}
    salvaged = (r.salvaged.record for r in reconcile_state.records.rejected if r.salvaged is not None)
    for record in (*reconcile_state.records.services, *salvaged):
        rejection = reasons.get(record.id)
        if rejection is None:
            continue
        word = "held" if rejection.held else "rejected"
        for host, _ in host_ports(record):
            if host not in claimed:
                claimed.add(host)
                reason = f"its record is {word}: {'; '.join(rejection.reasons)}"
                yield Missing(host=host, service=record.name, reason=reason)


async def _certificates(
    reconcile_state: ReconcileState, cloudly: ControlPlane, gateway: GatewayPort | None
) -> Mapping[str, Certificate | NoCertificate]:
    found: dict[str, Certificate | NoCertificate] = {}
    hosts = [claim.host for claim in claims_of(reconcile_state)]
    rest = iter(hosts)

    async def some() -> None:
        for host in rest:
            try:
                found[host] = await find_certificate(host, cloudly, gateway, _now)
            except CoreflowError as exc:
                found[host] = NoCertificate(reason=str(exc))

    with gc_paused(enabled=len(hosts) >= LARGE_CLUSTER):
        async with trio.open_nursery() as nursery:
            for _ in range(LOOKUPS):
                nursery.start_soon(some)
    return found


async def _gateway(
    reconcile_state: ReconcileState, table: RouteTable, gateway: GatewayPort | None
) -> tuple[Mapping[str, str] | None, str]:
    """Return what would have to change at the gateway, by host, and what is wrong with it."""
    record = reconcile_state.records.gateway
    if record is None or gateway is None or not record.sync_routes:
        return None, ""
    if record.target_host is None:
        return {}, "its record has no targetHost"
    cluster = reconcile_state.desired.cluster
    wanted = gateway_routes(record, cluster, (claim.host for claim in table.claims))
    try:
        actions = plan_gateway(cluster, wanted, await gateway.routes(), complete=False)
    except CoreflowError as exc:
        return {}, str(exc)
    return {a.route.host: a.reason for a in actions if isinstance(a, CreateRoute | UpdateRoute)}, ""


def _day(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).date().isoformat()
