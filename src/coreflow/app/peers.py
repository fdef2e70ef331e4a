"""Peers, opened as the settings say: with `main`, the only modules that name adapters.

Nothing here stands on the daemon or on the network, which a command that looks once does without.
"""

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from attrs import Factory, evolve, frozen

from coreflow.domain.errors import PreconditionFailed
from coreflow.domain.ids import ClusterId, Owner
from coreflow.domain.journal import Asker
from coreflow.domain.ports import (
    ControlPlane,
    CorestorePort,
    CoretrafficPort,
    DockerPort,
    GatewayPort,
    Journal,
    Operator,
    ReplicaPort,
)
from coreflow.domain.records.models import GatewayRecord
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact
from coreflow.domain.status.connections import Connection
from coreflow.domain.swarm.naming import CORESTORE

from .backups import Tools
from .bindings import Bindings
from .confidential import Confidential
from .corestores import Corestores
from .engine_calls import EngineCalls
from .journaling import NO_RECORDER, Recorder
from .lazy_log import LazyLog
from .progress import Unwatched, Watcher
from .replication import Replicator
from .settings import Settings, travels_in_the_clear
from .supervise import supervise
from .telling import redacting

if TYPE_CHECKING:
    from coreflow.adapters.cloudly import NetworkCloudly
    from coreflow.adapters.engine.endpoint import Endpoint
    from coreflow.adapters.net import MessageBudget, Proxies

    from .gateways import MakeGateway

log = LazyLog()


@frozen(kw_only=True)
class Ports:
    """One adapter per peer."""

    cloudly: ControlPlane
    docker: DockerPort
    corestores: Corestores | None = None
    """Without any, services that are bound to something are held, and nothing can be backed up."""
    coretraffic: CoretrafficPort | None = None
    """Without it nothing is routed."""
    make_gateway: "MakeGateway | None" = None
    """Makes the port of the gateway that the records name, if they name one."""
    replica: ReplicaPort | None = None
    """Without it, backups have no copies elsewhere."""
    connections: tuple[Callable[[], Iterable[Connection]], ...] = ()
    """How connections are that adapters keep up by themselves."""
    calls: EngineCalls = Factory(EngineCalls)
    """Counts of the calls of the engine, where they are counted."""
    connects: Callable[[], int | None] = lambda: None
    """How often a connection to Cloudly was made. None: there is none to be made."""
    serve: Callable[[Operator], None] | None = None
    """Tells who asks for backups and restores whom to ask."""
    known: Confidential = Factory(Confidential)
    """What must not be told: it learns the records, and the adapters ask it."""

    def tools(
        self,
        bindings: Bindings,
        watcher: Watcher | None = None,
        restoring: set[Owner] | None = None,
        recorder: Recorder = NO_RECORDER,
    ) -> Tools:
        """Return what it takes to back up and restore. `restoring` is the set that a `Reconciler` of this process looks at."""
        return Tools(
            cloudly=self.cloudly,
            docker=self.docker,
            corestores=self.corestores,
            bindings=bindings,
            replicator=Replicator(self.replica) if self.replica is not None else None,
            watcher=watcher or Unwatched(),
            clock=time.time,  # noqa: TID251 - the edge
            restoring=set() if restoring is None else restoring,
            recorder=recorder,
        )


def new_confidential(settings: Settings) -> Confidential:
    """Return what a process with these settings must not tell, as long as it knows no records."""
    tokens = (settings.jumpcode, settings.corestore_api_token, settings.age_identity)
    return Confidential((*tokens, *settings.proxy_secrets))


@asynccontextmanager
async def open_journal(settings: Settings) -> AsyncIterator[Journal]:
    """The journal: a file where the settings name a folder for it, else in memory."""
    from coreflow.adapters.journal import Limits, MemoryJournal, open_sqlite_journal

    if settings.state_dir is None:
        yield MemoryJournal()
        return
    limits = Limits(bytes=settings.journal_limit_mb * MIB, seconds=settings.journal_days * _DAY)
    async with open_sqlite_journal(settings.state_dir, limits, time.time) as journal:  # noqa: TID251 - the edge
        yield journal


def recorder_of(journal: Journal, *asked: Asker) -> Recorder:
    """Keep a journal by the clock of this machine."""
    return Recorder(journal, time.time, asked=asked)  # noqa: TID251 - the edge


@asynccontextmanager
async def open_docker(
    settings: Settings, known: Confidential | None = None, calls: EngineCalls | None = None
) -> AsyncIterator[DockerPort]:
    """The Docker port for the engine that the settings name. Raises PreconditionFailed when its certificates or context are missing."""
    known = known or new_confidential(settings)
    from coreflow.adapters.engine.client import open_engine
    from coreflow.adapters.swarm.port import SwarmPort

    on_call = calls.called if calls is not None else None
    async with open_engine(_endpoint(settings), on_call) as engine:
        yield SwarmPort(engine, writer=f"{socket.gethostname()}:{os.getpid()}", redact=known.redact)


def _endpoint(settings: Settings) -> "Endpoint":
    from coreflow.adapters.engine import endpoint

    try:
        if settings.engine_context is not None:
            return endpoint.endpoint_in_context(settings.engine_context, settings.docker_config)
        is_secure = settings.docker_tls_verify and settings.docker_host.startswith("tcp:")
        folder = settings.docker_cert_path or settings.docker_config
        return endpoint.Endpoint(settings.docker_host, tls=endpoint.tls_in(folder) if is_secure else None)
    except endpoint.EndpointError as exc:
        raise PreconditionFailed(f"engine: {exc}") from None


@asynccontextmanager
async def open_cloudly(
    settings: Settings,
    known: Confidential,
    records: Path | None = None,
    budget: "MessageBudget | None" = None,
) -> AsyncIterator[ControlPlane]:
    """The source of records: a cluster file, given or named by `CLOUDLY_URL`, or a control plane on the network.

    What arrives from a control plane takes of the budget.

    Raises PreconditionFailed for a URL that names no file. A control plane wants the process to run under `adapters.net.run`.
    """
    from coreflow.adapters.file import AgeIdentity, FileCloudly

    identity = AgeIdentity(settings.age_identity, settings.age_identity_file)
    from_file = partial(FileCloudly, learn=known.learn, strict=settings.strict, identity=identity)
    if records is not None:
        yield from_file(records)
    elif settings.needs_network:
        from . import logs

        cloudly = _network_cloudly(settings, known, budget)
        reporting = logs.tapped(partial(_report, cloudly)) if settings.report_logs else nullcontext()
        with reporting:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervise, "cloudly", cloudly.run)
                yield cloudly
                nursery.cancel_scope.cancel()
    else:
        yield from_file(FileCloudly.path_of(settings.cloudly_url or ""))


def proxies_of(settings: Settings) -> "Proxies":
    """The proxies that the settings name."""
    from coreflow.adapters.net import Proxies

    return Proxies(https=settings.https_proxy, http=settings.http_proxy, bypass=settings.no_proxy)


def message_budget(settings: Settings) -> "MessageBudget":
    """Return what messages that are arriving may take in this process: two of the longest, and some modest ones."""
    from coreflow.adapters.net import MessageBudget
    from coreflow.adapters.net.budget import MODEST

    longest = settings.message_limit_mb * MIB
    return MessageBudget(2 * longest + _MODEST_MESSAGES * MODEST, longest)


def _network_cloudly(
    settings: Settings, known: Confidential, budget: "MessageBudget | None"
) -> "NetworkCloudly":
    from coreflow.adapters.cloudly import ImageLimits, LinkOptions, NetworkCloudly
    from coreflow.adapters.net import Outbound, SocketOptions, connect_websocket
    from coreflow.adapters.net.typedsocket import Limits

    limits = Limits(message_bytes=settings.message_limit_mb * MIB)
    dial = partial(
        connect_websocket,
        settings.cloudly_url or "",
        SocketOptions(max_message=limits.message_bytes, budget=budget),
        via=Outbound(ca_file=settings.cloudly_ca_file, proxies=proxies_of(settings)),
    )
    return NetworkCloudly(
        dial,
        settings.jumpcode or "",
        wall_clock=time.time,  # noqa: TID251 - the edge
        options=LinkOptions(limits=limits, redact=known.redact),
        image_limits=ImageLimits(bytes=settings.image_limit_mb * 1_000_000, seconds=settings.image_timeout),
        learn=known.learn,
        strict=settings.strict,
    )


def _report(cloudly: "NetworkCloudly", level: str, event: Mapping[str, Any]) -> None:
    cloudly.logs.offer(int(time.time() * 1000), level, event)  # noqa: TID251 - the edge


MIB = 1024 * 1024
_DAY = 86400.0
_MODEST_MESSAGES = 32
"""So many connections may have messages of up to 1 MiB under way beside the long ones."""


@asynccontextmanager
async def open_ports(
    settings: Settings,
    records: Path | None = None,
    known: Confidential | None = None,
    budget: "MessageBudget | None" = None,
) -> AsyncIterator[Ports]:
    """Open every peer. What `known` holds is told nowhere meanwhile; what arrives takes of the budget."""
    known, calls = known or new_confidential(settings), EngineCalls()
    async with AsyncExitStack() as stack:
        stack.enter_context(redacting(known.redact_ours))
        cloudly = await stack.enter_async_context(open_cloudly(settings, known, records, budget))
        docker = await stack.enter_async_context(open_docker(settings, known, calls))
        is_chosen = "CORESTORE_CONTROL_URL" in settings.sources
        corestores = Corestores(
            partial(_corestore, settings, known, is_chosen=is_chosen),
            settings.corestore_control_url if is_chosen else None,
            is_ours=CORESTORE in settings.render_options.base.services,
        )
        ports = Ports(cloudly=cloudly, docker=docker, corestores=corestores, known=known, calls=calls)
        if settings.needs_network and records is None:
            from coreflow.adapters.cloudly import NetworkCloudly

            assert isinstance(cloudly, NetworkCloudly)  # noqa: S101 - see open_cloudly
            ports = evolve(
                ports,
                replica=cloudly,
                serve=cloudly.serve,
                connections=(cloudly.link.connections,),
                connects=lambda: cloudly.link.connects,
            )
        yield ports


def _corestore(settings: Settings, known: Confidential, url: str, *, is_chosen: bool) -> CorestorePort:
    """Return the port of one Corestore. What it stands on is large, and most commands need none."""
    from coreflow.adapters.corestore import Corestore
    from coreflow.adapters.net import DIRECT, Outbound

    via = Outbound(proxies=proxies_of(settings)) if is_chosen else DIRECT  # else it is in the cluster
    return Corestore(url, settings.corestore_api_token, redact=known.redact, via=via)


def make_dcrouter(
    record: GatewayRecord,
    cluster: ClusterId,
    *,
    redact: Redact = NOTHING_KNOWN.redact,
    settings: Settings | None = None,
) -> GatewayPort:
    """The port of the gateway that a record describes, reached through the proxies of the settings, if there are any."""
    from coreflow.adapters.dcrouter import Dcrouter
    from coreflow.adapters.net import DIRECT, Outbound

    via = DIRECT if settings is None else Outbound(proxies=proxies_of(settings))

    if travels_in_the_clear(record.url):
        log.warning("gateway", reason="its url is not encrypted: the token and all keys travel in the clear")
    return Dcrouter(record.url, record.api_token or "", cluster, redact=redact, via=via)
