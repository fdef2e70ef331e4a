"""Pages for operators and their programs: health, status and journal of a daemon as JSON, and counters, as Prometheus reads them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import orjson
import structlog
import trio
from attrs import frozen

from coreflow.domain.journal import History, InvalidQuery, Query, history_document, query_in
from coreflow.domain.measures import Metric

from .exposition import exposition
from .net import Page, Room, ServerOptions, WebSocket, always_well, serve_websockets
from .tasks import nursery_of_one_error

log = structlog.get_logger()

ROOM = Room(connections=32, per_address=8)


JSON = "application/json"
STATUS, SERVICES, HISTORY = "/api/v1/status", "/api/v1/services/", "/api/v1/history"


@frozen(kw_only=True)
class AdminPages:
    """The contents of the pages, apart from the metrics. Documents are JSON as text."""

    health: Callable[[], str] = always_well
    """What is wrong with the process, if anything."""
    ready: Callable[[], str] = always_well
    """Why it is not ready, if it is not."""
    status: Callable[[], str] | None = None
    service: Callable[[str], str | None] = lambda _: None
    """By name. None: there is no such service."""
    history: Callable[[Query], Awaitable[History]] | None = None
    """Reads the journal."""

    def readiness(self) -> Page:
        """Ready or not, with the reason."""
        reason = self.ready()
        return _json({"status": reason or "ok"}, 503 if reason else 200)

    def find(self, path: str) -> Page | None:
        """The page of one service."""
        if not path.startswith(SERVICES):
            return None
        name = path.removeprefix(SERVICES)
        document = self.service(name)
        if document is None:
            return _json({"error": "There is no such service"}, 404)
        return Page(document, JSON)


NO_PAGES = AdminPages()


def _json(document: Mapping[str, object], status: int = 200) -> Page:
    return Page(orjson.dumps(document).decode(), JSON, status)


async def history_page(read: Callable[[Query], Awaitable[History]], asked: Mapping[str, str]) -> Page:
    """The journal as JSON: what a query asks for, or what is wrong with it."""
    try:
        query = query_in(asked)
    except InvalidQuery as exc:
        return _json({"error": str(exc)}, 400)
    return _json(history_document(await read(query)))


async def serve_admin(
    host: str,
    port: int,
    read: Callable[[], Iterable[Metric]],
    pages: AdminPages = NO_PAGES,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve metrics, health, status and journal until cancelled; starts with the port. Raises Unavailable when it cannot listen."""
    found: dict[str, Callable[[], Page]] = {"/metrics": partial(exposition, read), "/readyz": pages.readiness}
    if (status := pages.status) is not None:
        found[STATUS] = lambda: Page(status(), JSON)
    answers = {} if pages.history is None else {HISTORY: partial(history_page, pages.history)}
    serve = partial(
        serve_websockets,
        host,
        port,
        _nobody,
        ServerOptions(room=ROOM, healthz=pages.health, pages=found, find_page=pages.find, answers=answers),
    )
    async with nursery_of_one_error() as nursery:
        listening = await nursery.start(serve)
        log.info("listening", address=f"{host}:{listening.port}", what="admin server")
        task_status.started(listening.port)


async def _nobody(socket: WebSocket) -> None:
    await socket.close()
