"""The composition root: the life of the daemon, and with `peers` the only modules that name adapters.

Start-up order is deliberate: the peers first, then whoever listens for changes, then the chain of passes. They stop
in reverse, which the nesting of context managers and nurseries gives for free.
"""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from attrs import evolve

from coreflow._moved import warn_of
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.pacing import LONGEST_DELAY
from coreflow.domain.ports import (
    GatewayPort,
    Journal,
)
from coreflow.domain.redaction.redactor import TEXT_LIMIT
from coreflow.domain.status.metrics import MetricOptions
from coreflow.domain.status.model import Status

from . import status_document
from .confidential import Confidential
from .gate import Gate
from .gateways import Gateways
from .heard import Heard, unheard
from .journaling import NO_RECORDER, Recorder
from .loop import ActionLog, Kicks, KicksBy, Loop, kick_on_changes, kick_on_events, kick_on_schedule
from .metrics import Metrics
from .notifying import READY_SECONDS, telling
from .operations import Operations
from .peers import (
    MIB,
    Ports,
    make_dcrouter,
    message_budget,
    new_confidential,
    open_journal,
    open_ports,
    recorder_of,
)
from .reconcile import Listener, Reconciler, ReconcilerOptions
from .retries import until_back
from .routing import Router
from .settings import Settings
from .status import StatusBoard
from .status_sources import heard_of, status_sources, tick
from .supervise import supervise
from .telling import told

if TYPE_CHECKING:
    from coreflow.adapters.admin import AdminPages
    from coreflow.adapters.coretraffic import CoretrafficRoutes
    from coreflow.adapters.net import MessageBudget

__all__ = ["Coreflow", "Ports", "Routing", "run_daemon", "running"]
log = structlog.get_logger()


class Coreflow:
    """A running engine, for an embedding program: ask for a pass, and see how the last one went."""

    def __init__(self, kicks: Kicks) -> None:
        self._kicks = kicks
        self.last: ReconcileResult | None = None
        self.operations: Operations | None = None
        """Backups and restores."""
        self.metrics: Metrics | None = None
        """What was done, in numbers."""
        self.status: StatusBoard | None = None
        """What runs, what is wrong, since when, and what to do about it."""
        self.journal: Journal | None = None
        """What has been done, entry by entry."""
        self.routing: Routing | None = None
        """Hosts and their certificates, where there is a proxy to tell of them."""
        self._ended = trio.Event()

    def kick(self) -> None:
        """Ask for a pass now, which tries what could not be done although its next try is not due."""
        self._kicks.kick(try_now=True, urgent=True, by="hand")

    def refresh(self) -> None:
        """Trust nothing that was looked up before: ask for certificates now, and for a pass that looks up every image."""
        if self.routing is not None:
            self.routing.refresh()
        self._kicks.kick(refresh=True, try_now=True, urgent=True, by="hand")

    def retry_failed(self) -> None:
        """Ask for a pass now that tries again what was rolled back."""
        self._kicks.kick(retry_failed=True, urgent=True, by="hand")

    async def reconciled(self) -> ReconcileResult:
        """Wait for the end of the next series of passes."""
        await self._ended.wait()
        assert self.last is not None  # noqa: S101 - set before the event
        return self.last

    def present_status(self) -> Status:
        """The status as it is now."""
        assert self.status is not None  # noqa: S101 - of a running engine
        return self.status.current()

    async def settled(self) -> ReconcileResult:
        """The old name of `reconciled`."""
        warn_of("Coreflow.settled", "reconciled")
        return await self.reconciled()

    def _take(self, reconcile_result: ReconcileResult) -> None:
        self.last = reconcile_result
        event, self._ended = self._ended, trio.Event()
        event.set()


@asynccontextmanager
async def running(
    settings: Settings, ports: Ports | None = None, listener: Listener | None = None
) -> AsyncIterator[Coreflow]:
    """Start everything; stop everything, in reverse, when the block ends.

    With `ports` the peers are the caller's (memory adapters, say), stay open, and are all there is; without, they
    are opened as the settings say, and the internal server is started before them. That server, and a control plane on
    the network, need a process that was started with `adapters.net.run` instead of `trio.run`.
    """
    kicks = Kicks()
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(open_journal(settings))
        if ports is None:
            gate, known = Gate(settings.coretraffic_peers), new_confidential(settings)
            budget = message_budget(settings)
            coretraffic = await stack.enter_async_context(_serving(settings, gate, known, budget))
            opened = await stack.enter_async_context(open_ports(settings, known=known, budget=budget))
            ports = evolve(
                opened,
                coretraffic=coretraffic,
                connections=(
                    *opened.connections,
                    *(() if coretraffic is None else (coretraffic.connections,)),
                ),
                make_gateway=partial(make_dcrouter, redact=known.redact, settings=settings),
            )
            gate.docker = ports.docker
            engine = await stack.enter_async_context(
                _running(
                    settings, ports, kicks, listener, journal, lambda s: gate.learn(s.last.desired.cluster)
                )
            )
            await stack.enter_async_context(_administered(settings, engine))
            yield engine
        else:
            yield await stack.enter_async_context(_running(settings, ports, kicks, listener, journal))


@asynccontextmanager
async def _administered(settings: Settings, engine: Coreflow) -> AsyncIterator[None]:
    """Metrics for operators, for as long as the block lasts."""
    from coreflow.adapters.net import is_hosted

    if not is_hosted() or engine.metrics is None:
        yield
        return
    from coreflow.adapters.admin import serve_admin

    address, pages = settings.admin_listen, admin_pages(engine)
    async with trio.open_nursery() as nursery:
        serve = partial(serve_admin, address.host, address.port, engine.metrics.read, pages)
        nursery.start_soon(supervise, "admin server", serve)
        yield
        nursery.cancel_scope.cancel()


def admin_pages(engine: Coreflow) -> "AdminPages":
    """Return what the admin server says of a running engine."""
    from coreflow.adapters.admin import NO_PAGES, AdminPages

    board = engine.status
    if board is None:
        return NO_PAGES

    def service(name: str) -> str | None:
        found = board.explain(name)
        return None if found is None else status_document.write(found)

    return AdminPages(
        health=board.health,
        ready=lambda: told(board.readiness()),
        status=lambda: status_document.write(board.current()),
        service=service,
        history=engine.journal.read if engine.journal is not None else None,
    )


@asynccontextmanager
async def _serving(
    settings: Settings, gate: Gate, known: Confidential, budget: "MessageBudget"
) -> AsyncIterator["CoretrafficRoutes | None"]:
    """The internal server and the proxies that dial it, for as long as the block lasts."""
    from coreflow.adapters.net import is_hosted

    if not is_hosted():
        log.warning("no internal server", reason="the process was not started with coreflow.adapters.net.run")
        yield None
        return
    from coreflow.adapters.coretraffic import CoretrafficRoutes
    from coreflow.adapters.internal import InternalOptions, InternalServer
    from coreflow.adapters.net.typedsocket import Limits

    def clean(text: str, limit: int = TEXT_LIMIT, /) -> str:
        return coretraffic.clean(text, limit)

    server = InternalServer(
        gate.admit,
        on_tags=lambda name, peer: coretraffic.tags_changed(name, peer),
        clean=clean,
        options=InternalOptions(limits=Limits(message_bytes=settings.message_limit_mb * MIB), budget=budget),
    )
    coretraffic: CoretrafficRoutes = CoretrafficRoutes(
        server.tagged,
        redact=known.redact,
        wall_clock=time.time,  # noqa: TID251 - the edge
    )
    serve = partial(server.run, settings.listen.host, settings.listen.port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, "internal server", serve)
        nursery.start_soon(supervise, "coretraffic", coretraffic.run)
        yield coretraffic
        nursery.cancel_scope.cancel()


ENGINE_SECONDS = 0.5
"""How often an engine that is away is asked whether it is back: a connect costs next to nothing."""


@asynccontextmanager
async def _running(
    settings: Settings,
    ports: Ports,
    kicks: Kicks,
    listener: Listener | None,
    journal: Journal,
    on_reconciled: Callable[[ReconcileResult], None] = lambda _: None,
) -> AsyncIterator[Coreflow]:
    engine, board = Coreflow(kicks), _status_board(settings)
    recorder = recorder_of(journal)
    routing = Routing(settings, ports, board.heard, recorder) if ports.coretraffic is not None else None
    engine.routing, engine.status, engine.journal = routing, board, journal

    def reconciled(reconcile_result: ReconcileResult, refresh: bool) -> None:
        engine._take(reconcile_result)  # noqa: SLF001 - its own module
        operations.observed(reconcile_result.last.observed.services)
        metrics.reconciled(reconcile_result, trio.current_time() - loop.began)
        board.reconciled(reconcile_result)
        on_reconciled(reconcile_result)
        if routing is not None:
            routing.reconciled(reconcile_result, refresh=refresh)

    def failed(error: Exception) -> None:
        board.failed(error)
        metrics.failed(error, trio.current_time() - loop.began)

    reconciler = _reconciler(settings, ports, listener or ActionLog(), board.heard, recorder)
    make_loop = partial(Loop, reconciler, kicks, on_reconciled=reconciled, on_failed=failed)
    loop = make_loop(initial_delay=settings.first_pass_after, relist_seconds=settings.relist_seconds)
    engine.operations = operations = _operations(ports, reconciler, journal)
    engine.metrics = metrics = _metrics(settings, ports, kicks, operations, board)
    board.sources = status_sources(ports, routing.router if routing else None, reconciler, operations)
    if ports.serve is not None:
        ports.serve(operations)
    engine_is_back = partial(until_back, ports.docker.running_tasks, lambda: reconciler.engine_has_hung)
    run_loop = partial(supervise, "reconcile", loop.run_forever, kicks.wait_urgent, engine_is_back)
    answered = partial(kicks.kick, records=False, by="answer")
    async with reconciler.background(answered), trio.open_nursery() as nursery:
        for name, watch, longest in (
            *_watches(settings, ports, kicks, routing, board.heard),
            *(() if routing is None else routing.supervised),
        ):
            nursery.start_soon(partial(supervise, name, watch, longest=longest))
        nursery.start_soon(run_loop)
        nursery.start_soon(supervise, "operations", operations.run)
        nursery.start_soon(tick, board)
        yield engine
        nursery.cancel_scope.cancel()


def _operations(ports: Ports, reconciler: Reconciler, journal: Journal) -> Operations:
    """Backups and restores that the control plane asks for."""
    recorder = recorder_of(journal, "push")
    return Operations(ports.tools(reconciler.bindings, restoring=reconciler.restoring, recorder=recorder))


def _metrics(
    settings: Settings, ports: Ports, kicks: Kicks, operations: Operations, board: StatusBoard
) -> Metrics:
    return Metrics(
        operations,
        board.current,
        time.time,  # noqa: TID251 - the edge
        calls=ports.calls,
        triggers=kicks.causes,
        connects=ports.connects,
        options=MetricOptions(per_service=settings.metrics_per_service),
    )


def _status_board(settings: Settings) -> StatusBoard:
    return StatusBoard(
        time.time,  # noqa: TID251 - the edge
        relist_seconds=settings.relist_seconds,
    )


def _reconciler(
    settings: Settings, ports: Ports, listener: Listener, heard: Heard, recorder: Recorder
) -> Reconciler:
    return Reconciler(
        ports.cloudly,
        ports.docker,
        ports.corestores,
        render=settings.render_options,
        plan=settings.plan_options,
        listener=listener,
        options=ReconcilerOptions(
            known=ports.known, settle_seconds=settings.settle_seconds, heard=heard, recorder=recorder
        ),
    )


def _watches(
    settings: Settings, ports: Ports, kicks: Kicks, routing: "Routing | None", heard: Heard
) -> tuple[tuple[str, Callable[[], Awaitable[None]], float], ...]:
    """Return what asks for passes: name, job, and the longest pause before it is tried again, in seconds."""
    others = () if routing is None else (routing.router,)
    of_records = () if routing is None else (routing,)
    source = KicksBy(kicks, "push" if settings.needs_network else "file")
    records = partial(kick_on_changes, ports.cloudly.changes, source, of_records, urgent=True)
    events = partial(kick_on_events, ports.docker.changes, kicks, others)
    docker = partial(heard_of, events, ports.docker, heard)
    tick = partial(kick_on_schedule, settings.schedule, kicks, partial(datetime.now, UTC))  # noqa: TID251 - the edge
    return (
        ("watch records", records, LONGEST_DELAY),
        ("watch docker", docker, ENGINE_SECONDS),
        ("schedule", tick, LONGEST_DELAY),
    )


class Routing:
    """Jobs beside the passes so that hosts lead to tasks: certificates, proxies, the external gateway."""

    def __init__(
        self, settings: Settings, ports: Ports, heard: Heard = unheard, recorder: Recorder = NO_RECORDER
    ) -> None:
        assert ports.coretraffic is not None  # noqa: S101 - else there is no routing
        self.cloudly = ports.cloudly
        make = ports.make_gateway
        self._gateways = Gateways(make, heard, recorder) if make is not None else None
        self.router = Router(
            ports.docker,
            ports.coretraffic,
            self,
            time.time,  # noqa: TID251 - the edge
            which=settings.route_tasks,
        )
        jobs = [
            ("watch tasks", self.router.watch_tasks),
            ("routes", self.router.publish),
            ("certificates", self.router.book.run),
        ]
        if self._gateways is not None:
            jobs.append(("gateway", self._gateways.run))
        self.jobs: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = tuple(jobs)

    @property
    def supervised(self) -> tuple[tuple[str, Callable[[], Awaitable[None]], float], ...]:
        """Return the jobs, each with the longest pause before it is tried again, in seconds."""
        return tuple(
            (name, job, ENGINE_SECONDS if name == "watch tasks" else LONGEST_DELAY) for name, job in self.jobs
        )

    @property
    def gateway(self) -> GatewayPort | None:
        """Return where certificates come from first, if anywhere."""
        return self._gateways.certificates if self._gateways is not None else None

    def kick(self, *, urgent: bool = False) -> None:
        """The records may be others: certificates do not wait for a pass."""
        self.router.book.changed()

    def reconciled(self, reconcile_result: ReconcileResult, *, refresh: bool) -> None:
        """Passes have ended; with `refresh`, everything is looked at and sent again."""
        if self._gateways is not None:
            self._gateways.reconciled(reconcile_result.last, self.router.claims_after(reconcile_result.last))
        self.router.reconciled(reconcile_result)
        if refresh:
            self.refresh()

    def refresh(self) -> None:
        """Ask for every certificate, look at the gateway's routes, and send the table again, though nothing changed here."""
        if self._gateways is not None:
            self._gateways.refresh()
        self.router.refresh()


async def run_daemon(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP looks up everything again, SIGUSR1 tries again what was rolled back."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        from coreflow.adapters.notify import Manager

        manager = Manager.of(os.environ)
        ready_seconds = settings.first_pass_after + READY_SECONDS
        async with running(settings) as engine, telling(manager, engine, ready_seconds=ready_seconds):
            log.info("started", records=settings.cloudly_url, engine=settings.engine_name)
            async for number in signals:
                if number == signal.SIGHUP:
                    log.info("looking everything up again")
                    engine.refresh()
                elif number == signal.SIGUSR1:
                    log.info("trying again what was rolled back")
                    engine.retry_failed()
                else:
                    log.info("stopping", signal=signal.Signals(number).name)
                    break
    log.info("stopped")
