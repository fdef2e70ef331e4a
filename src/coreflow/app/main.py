"""The composition root: the only module that names adapters, and the life of the daemon.

Start-up order is deliberate: the far sides first, then whoever listens for changes, then the chain of passes. They stop
in reverse, which the nesting of context managers and nurseries gives for free.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog
import trio
from attrs import frozen

from coreflow.domain.errors import CoreflowError
from coreflow.domain.ports import CloudlyPort, DockerPort

from .loop import ActionLog, Kicks, Loop, kick_on_changes, kick_on_schedule
from .reconcile import Listener, Reconciler, Settlement
from .settings import Settings
from .supervise import supervise

log = structlog.get_logger()


class NotSupported(CoreflowError):
    """The settings ask for something that this version does not have."""


@frozen(kw_only=True)
class Ports:
    """One adapter per far side."""

    cloudly: CloudlyPort
    docker: DockerPort


@asynccontextmanager
async def open_docker(settings: Settings) -> AsyncIterator[DockerPort]:
    """The Docker port for the engine that the settings name."""
    from coreflow.adapters.docker import open_engine
    from coreflow.adapters.swarm.port import SwarmPort

    async with open_engine(settings.docker_host) as engine:
        yield SwarmPort(engine)


def cloudly_for(settings: Settings, records: Path | None = None) -> CloudlyPort:
    """The source of records: a cluster file, given or named by `CLOUDLY_URL`.

    Raises NotSupported for a control plane on the network.
    """
    from coreflow.adapters.file import FileCloudly

    if records is not None:
        return FileCloudly(records)
    if settings.cloudly_url is not None and settings.cloudly_url.startswith("file:"):
        return FileCloudly.from_url(settings.cloudly_url)
    raise NotSupported("CLOUDLY_URL: this version reads cluster files only (file:///path/to/cluster.yaml)")


@asynccontextmanager
async def open_ports(settings: Settings, records: Path | None = None) -> AsyncIterator[Ports]:
    """Open every far side."""
    cloudly = cloudly_for(settings, records)
    async with open_docker(settings) as docker:
        yield Ports(cloudly=cloudly, docker=docker)


class Coreflow:
    """A running engine, for an embedding program: ask for a pass, and see how the last one went."""

    def __init__(self, kicks: Kicks) -> None:
        self._kicks = kicks
        self.last: Settlement | None = None
        self._settled = trio.Event()

    def kick(self) -> None:
        """Ask for a pass now."""
        self._kicks.kick()

    async def settled(self) -> Settlement:
        """Wait for the end of the next series of passes."""
        await self._settled.wait()
        assert self.last is not None  # noqa: S101 - set before the event
        return self.last

    def _take(self, settlement: Settlement) -> None:
        self.last = settlement
        event, self._settled = self._settled, trio.Event()
        event.set()


@asynccontextmanager
async def running(
    settings: Settings, ports: Ports | None = None, listener: Listener | None = None
) -> AsyncIterator[Coreflow]:
    """Start everything; stop everything, in reverse, when the block ends.

    With `ports` the far sides are the caller's (memory adapters, say) and stay open; without, they are opened as the
    settings say.
    """
    if ports is None:
        async with open_ports(settings) as opened, _running(settings, opened, listener) as engine:
            yield engine
    else:
        async with _running(settings, ports, listener) as engine:
            yield engine


@asynccontextmanager
async def _running(settings: Settings, ports: Ports, listener: Listener | None) -> AsyncIterator[Coreflow]:
    kicks = Kicks()
    engine = Coreflow(kicks)
    reconciler = Reconciler(
        ports.cloudly,
        ports.docker,
        render=settings.render_options,
        plan=settings.plan_options,
        listener=listener or ActionLog(),
    )
    loop = Loop(
        reconciler,
        kicks,
        initial_delay=settings.initial_delay,
        relist_seconds=settings.relist_seconds,
        on_settled=engine._take,  # noqa: SLF001 - its own module
    )
    async with trio.open_nursery() as nursery:
        watch_records = partial(kick_on_changes, ports.cloudly.changes, kicks)
        watch_docker = partial(kick_on_changes, ports.docker.changes, kicks)
        tick = partial(kick_on_schedule, settings.schedule, kicks, partial(datetime.now, UTC))  # noqa: TID251 - the edge
        nursery.start_soon(supervise, "watch records", watch_records)
        nursery.start_soon(supervise, "watch docker", watch_docker)
        nursery.start_soon(supervise, "schedule", tick)
        nursery.start_soon(supervise, "reconcile", loop.run_forever)
        yield engine
        nursery.cancel_scope.cancel()


async def run_daemon(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP asks for a pass."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with running(settings) as engine:
            log.info("started", records=settings.cloudly_url, engine=settings.docker_host)
            async for number in signals:
                if number == signal.SIGHUP:
                    engine.kick()
                else:
                    log.info("stopping", signal=signal.Signals(number).name)
                    break
    log.info("stopped")
