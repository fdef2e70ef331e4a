"""Metrics for operators: counters, in the text form that Prometheus reads."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import structlog
import trio
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from coreflow.domain.deploy.result import Metric

from .net import Page, Room, ServerOptions, WebSocket, serve_websockets
from .tasks import nursery_of_one_error

log = structlog.get_logger()

ROOM = Room(connections=32, per_address=8)


class _Metrics(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for metric in self._read():
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            found = family(f"coreflow_{metric.name}", metric.meaning, labels=metric.labels)
            for labels, value in metric.values.items():
                found.add_metric(labels, value)
            yield found


def exposition(read: Callable[[], Iterable[Metric]]) -> Page:
    """The metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(read))
    return Page(generate_latest(registry).decode(), CONTENT_TYPE_LATEST)


async def serve_admin(
    host: str,
    port: int,
    read: Callable[[], Iterable[Metric]],
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `GET /metrics` until cancelled; starts with the port. Raises Unavailable when it cannot listen."""
    serve = partial(
        serve_websockets,
        host,
        port,
        _nobody,
        ServerOptions(room=ROOM, pages={"/metrics": partial(exposition, read)}),
    )
    async with nursery_of_one_error() as nursery:
        listening = await nursery.start(serve)
        log.info("listening", address=f"{host}:{listening.port}", what="metrics")
        task_status.started(listening.port)


async def _nobody(socket: WebSocket) -> None:
    await socket.close()
