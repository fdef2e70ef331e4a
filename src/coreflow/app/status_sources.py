"""The sources of the status in a daemon."""

from collections.abc import Awaitable, Callable, Iterator

import trio

from coreflow.domain.errors import CoreflowError
from coreflow.domain.ports import DockerPort
from coreflow.domain.status.connections import ENGINE, Connection

from .heard import Heard
from .operations import Operations
from .peers import Ports
from .reconcile import Reconciler
from .routing import Router
from .status import TICK_SECONDS, StatusBoard, StatusSources


def status_sources(
    ports: Ports, router: Router | None, reconciler: Reconciler, operations: Operations
) -> StatusSources:
    """Those that nobody reports."""

    def connections() -> Iterator[Connection]:
        for one in ports.connections:
            yield from one()

    return StatusSources(
        connections=connections,
        table=lambda: None if router is None else router.table,
        routed=lambda: 0.0 if router is None else router.table_made,
        bindings=lambda result: reconciler.bindings.statuses(result.last),
        operations=operations.statuses,
        seen=reconciler.as_seen,
        counts_proxies=router is not None and bool(ports.connections),
    )


async def tick(board: StatusBoard) -> None:
    """Say that the loop turns, until cancelled."""
    while True:
        board.tick()
        await trio.sleep(TICK_SECONDS)


async def heard_of(watch: Callable[[], Awaitable[None]], docker: DockerPort, heard: Heard) -> None:
    """Watch the engine; when that ends, find out at once whether it is away. Raises what watching raises."""
    try:
        await watch()
    except CoreflowError:
        try:
            await docker.running_tasks()
        except CoreflowError as exc:
            heard(ENGINE, "", exc)
        else:
            heard(ENGINE, "", None)
        raise
