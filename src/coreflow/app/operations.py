"""Backups and restores on demand: one at a time for each service, however often they are requested.

An operation goes on when its caller disconnects, and keeps its result. What another process left unfinished is found by
the lease on the stopped service, and finished.
"""

import math
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import structlog
import trio
from attrs import Factory, define, evolve

from coreflow.domain.backup.lease import DAEMON, read_lease
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.backup.snapshots import VOLUME
from coreflow.domain.errors import CoreflowError, PortError
from coreflow.domain.ids import Owner, ServiceId
from coreflow.domain.journal import Asker
from coreflow.domain.measures import LONG_SECONDS, Histogram
from coreflow.domain.status.parts import OperationState, OperationStatus
from coreflow.domain.swarm.actions import Start
from coreflow.domain.swarm.observed import ObservedService
from coreflow.domain.swarm.stopped import NOBODY, UNDO, undo_id

from .backups import Tools, make_backup
from .progress import Reminding, Watcher
from .restores import finish_restore, is_orphan, is_outdated, make_restore
from .supervise import described

log = structlog.get_logger()

LOOK_SECONDS = 5.0
AGAIN_SECONDS = 20.0
RECORDS_SECONDS = 5.0
REMEMBERED = 1000
KEPT_SECONDS = 600.0
"""How long a result waits for somebody who has lost the connection; later, the same request means another restore."""
INTERRUPTED = "interrupted; what was begun is finished by the next start"
TAKEN_BACK = "it was taken back before it had ended"

Request = BackupRequest | RestoreRequest
"""What is done, and how much of it: whoever wants more must not get the result of less."""


@define
class Counters:
    """Counts of what was done since the process began."""

    running: int = 0
    backups: dict[str, int] = Factory(dict)
    """How many ended in which way."""
    restores: dict[str, int] = Factory(dict)
    left_stopped: int = 0
    """How many services are stopped by a restore that could not be finished, as of the last look."""
    seconds: dict[str, Histogram] = Factory(dict)
    """How long they took, by kind."""
    completed: dict[str, float] = Factory(dict)
    """When the last backup of a service was completed, by the id of its record; in seconds since 1970."""
    bytes_moved: int = 0
    """Of archive objects, in both directions."""

    def took(self, kind: str, seconds: float) -> None:
        """Count how long one took."""
        known = self.seconds.get(kind, Histogram(bounds=LONG_SECONDS))
        self.seconds[kind] = known.after(seconds)


@define(eq=False)
class _Operation:
    """One under way, or over."""

    done: trio.Event = Factory(trio.Event)
    result: Any = None
    asked: tuple[Asker, ...] = ()
    """Who asked for it, where it is not who asks otherwise."""


class Operations:
    """`Operator` on a cluster. `run` has to run for anything to happen.

    `owner` is who we are to others that see a restore of ours: by default a daemon, of which a cluster has one. With
    `finish_orphans`, what others left unfinished is finished at once; without, only when a restore of the same service is
    asked for.
    """

    def __init__(self, tools: Tools, *, owner: str | None = None, finish_orphans: bool = True) -> None:
        self.counters = Counters()
        self._tools = evolve(tools, watcher=_Counting(tools.watcher, self.counters))
        self._owner = owner or f"{DAEMON}-{uuid.uuid4().hex[:12]}"
        self._finish_orphans = finish_orphans
        self._send, self._receive = trio.open_memory_channel[Callable[[], Awaitable[None]]](math.inf)
        self._operations: dict[Request, _Operation] = {}
        self._completed: OrderedDict[BackupRequest, BackupResult] = OrderedDict()
        self._undelivered: OrderedDict[Request, tuple[RestoreResult, float]] = OrderedDict()
        """With the time at which it ended."""
        self._locks: dict[str, trio.Lock] = {}
        self._under_way: dict[str, trio.CancelScope] = {}
        """By service: the restore that is being made."""
        self._not_before: dict[str, float] = {}
        """By service: when an attempt to finish its restore may be repeated."""
        self._nursery: trio.Nursery | None = None
        self._last: dict[tuple[str, str], OperationStatus] = {}
        """By kind and service: what is under way, or else the last that has ended."""
        self._found = trio.Event()
        self._seen: dict[str, tuple[str, float]] = {}
        """By service: its lease, and since when it is that one."""
        self._once_ours: set[str] = set()
        """The restores of services that are stopped at which we were seen."""
        self._competing: set[str] = set()
        """Who took one over from us: another daemon, which is not dead."""

    async def run(self) -> None:
        """Carry out what is asked for, and finish what others left unfinished, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            if self._finish_orphans:
                nursery.start_soon(self._look_for_orphans)
            async for job in self._receive:
                nursery.start_soon(job)

    def statuses(self) -> tuple[OperationStatus, ...]:
        """Return what is under way, and the last backup and restore of each service since this process began."""
        return tuple(self._last.values())

    def _note(self, request: Request, state: OperationState, error: str = "") -> None:
        kind: Literal["backup", "restore"] = "backup" if isinstance(request, BackupRequest) else "restore"
        self._last[kind, request.service_id] = OperationStatus(
            kind=kind,
            service_id=request.service_id,
            backup_id=request.backup_id,
            state=state,
            since=self._tools.clock(),
            error=error,
        )

    # --- asking

    async def backup(self, request: BackupRequest) -> BackupResult:
        """Make a backup. Asked again while it is made, or once it is complete, the result is the same."""
        request = evolve(request, trigger="")  # why it is wanted makes no other backup of it
        replicated = evolve(request, replicate=True)
        known = self._completed.get(replicated) or self._completed.get(request)
        if known is not None:
            await trio.lowlevel.checkpoint()
            return known
        if replicated in self._operations:
            request = replicated
        result: BackupResult = await self._result(request, partial(make_backup, request=request))
        if result.status == "completed":
            _remember(self._completed, request, result)
        return result

    async def restore(self, request: RestoreRequest) -> RestoreResult:
        """Restore. Asked again meanwhile, the result is the same; so it is a little later, where nobody has got it yet."""
        if request not in self._operations and (known := self._undelivered.pop(request, None)) is not None:
            await trio.lowlevel.checkpoint()
            if trio.current_time() - known[1] < KEPT_SECONDS:
                return known[0]
        await self._make_way(request)
        make = partial(make_restore, request=request, owner=self._owner)
        result: RestoreResult = await self._result(request, make)
        self._undelivered.pop(request, None)
        return result

    async def _make_way(self, request: RestoreRequest) -> None:
        """End the restore of ours that a request takes back."""
        scope = self._under_way.get(request.service_id)
        if scope is None or not request.backup_id.startswith(UNDO):
            return
        with suppress(PortError):
            services, _ = await self._tools.docker.progress()
            leases = [read_lease(s.lease) for s in services if s.owner == Owner(request.service_id)]
            ours = [lease.id for lease in leases if lease is not None and lease.owner == self._owner]
            if request.backup_id in map(undo_id, ours):
                scope.cancel()

    async def _result(self, request: Request, make: Callable[[Tools], Awaitable[Any]]) -> Any:
        """The result of an operation that is under way already, or begins now. It goes on when we do not wait for it."""
        operation = self._operations.get(request) or self._begin(request, make)
        await operation.done.wait()
        return operation.result if operation.result is not None else _failed(request, INTERRUPTED)

    def _begin(self, request: Request, make: Callable[[Tools], Awaitable[Any]], *asked: Asker) -> _Operation:
        operation = self._operations[request] = _Operation(asked=asked)
        self._send.send_nowait(partial(self._carry_out, request, operation, make))
        return operation

    async def _carry_out(
        self, request: Request, operation: _Operation, make: Callable[[Tools], Awaitable[Any]]
    ) -> None:
        kind = "backup" if isinstance(request, BackupRequest) else "restore"
        service = request.service_id
        self.counters.running += 1
        began = trio.current_time()
        self._note(request, "under way")
        lock, scope = self._locks.setdefault(service, trio.Lock()), trio.CancelScope()
        try:
            with structlog.contextvars.bound_contextvars(owner=service, backup=request.backup_id):
                async with lock:
                    log.info("operation begins", kind=kind)
                    with scope:
                        if kind == "restore":
                            self._under_way[service] = scope
                        async with self._tools.recorder.operation(request, *operation.asked) as take:
                            operation.result = await self._reminded(make)
                            take(operation.result)
                    if scope.cancelled_caught:
                        operation.result = _failed(request, TAKEN_BACK)
                if operation.result is not None:
                    self._ended(kind, operation.result)
                    self.counters.took(kind, trio.current_time() - began)
                if isinstance(operation.result, RestoreResult) and operation.result.status != "failed":
                    _remember(self._undelivered, request, (operation.result, trio.current_time()))
        except Exception as exc:  # noqa: BLE001 - it costs one operation
            kinds, where = described(exc)
            log.error("unexpected error", job=kind, error=kinds, traceback=where)  # noqa: TRY400 - see `described`
            operation.result = _failed(request, "a bug: see the log")
        finally:
            if operation.result is not None:
                self._note(request, operation.result.status, operation.result.error)
            else:
                self._last.pop((kind, service), None)
            self.counters.running -= 1
            if self._under_way.get(service) is scope:
                del self._under_way[service]
            del self._operations[request]
            operation.done.set()
            self._found.set()  # it may have left something behind
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._locks.pop(service, None)

    async def _reminded(self, make: Callable[[Tools], Awaitable[Any]]) -> Any:
        """Do it, and have whoever watches reminded of every step that takes long."""
        assert self._nursery is not None  # noqa: S101 - jobs are started by `run`
        reminding = Reminding(self._tools.watcher)
        self._nursery.start_soon(reminding.remind)
        try:
            return await make(evolve(self._tools, watcher=reminding))
        finally:
            reminding.scope.cancel()

    def _ended(self, kind: str, result: BackupResult | RestoreResult) -> None:
        counts = self.counters.backups if kind == "backup" else self.counters.restores
        counts[result.status] = counts.get(result.status, 0) + 1
        if kind == "backup" and result.status == "completed":
            self.counters.completed[result.service_id] = self._tools.clock()
        say = log.info if result.status == "completed" else log.warning
        facts = {"reason": result.error} if result.error else {}
        if isinstance(result, BackupResult):
            facts["parts"] = "; ".join(f"{part}: {part.error or part.snapshot_id}" for part in result.parts)
        say("operation ended", kind=kind, status=result.status, **facts)

    # --- what was left unfinished

    def observed(self, services: Iterable[ObservedService]) -> None:
        """Somebody has looked at the services: among them may be one that is stopped."""
        if any(service.is_stopped for service in services):
            self._found.set()

    async def _look_for_orphans(self) -> None:
        """Look once, and again and again as long as something is stopped."""
        while True:
            self._found = trio.Event()
            try:
                services, _ = await self._tools.docker.progress()
                if any(service.is_stopped for service in services):
                    self._found.set()
                    self._adopt(await self._ours(services))
                else:
                    self.counters.left_stopped = 0
            except PortError as exc:
                log.debug("cannot look for unfinished restores", reason=str(exc))
                self._seen.clear()  # nobody could give a sign of life meanwhile
                self._found.set()
            await trio.sleep(LOOK_SECONDS)
            await self._found.wait()

    async def _ours(self, services: Iterable[ObservedService]) -> list[ObservedService]:
        """Those of our cluster. As long as nobody says which that is, it is the only one that has services here."""
        clusters = {service.cluster for service in services if service.cluster}
        with trio.move_on_after(RECORDS_SECONDS), suppress(CoreflowError):
            clusters = {(await self._tools.cloudly.records()).cluster.id}
        return [service for service in services if {service.cluster} == clusters]

    def _adopt(self, services: Iterable[ObservedService]) -> None:
        now = trio.current_time()
        stopped = {s.id: s for s in services if s.is_stopped}
        self._not_before = {i: when for i, when in self._not_before.items() if i in stopped}
        self._seen = {identity: seen for identity, seen in self._seen.items() if identity in stopped}
        self._look_for_competing_daemons(stopped.values())
        given_up = {i for i, s in stopped.items() if (n := read_lease(s.lease)) and n.owner == NOBODY}
        self.counters.left_stopped = len(given_up | self._not_before.keys())
        for live in stopped.values():
            if not self._is_abandoned(live, now) or now < self._not_before.get(live.id, now):
                continue
            self._not_before[live.id] = now + AGAIN_SECONDS
            request = _request_of(live)
            if request not in self._operations:
                self._begin(request, partial(self._finish, live=live), "restore")

    def _is_abandoned(self, live: ObservedService, now: float) -> bool:
        """Return whether nobody is at the restore of a stopped service. Notes since when its lease has been the same."""
        lease, since = self._seen.setdefault(live.id, (live.lease, now))
        if lease != live.lease:
            self._seen[live.id] = (live.lease, now)
            return False
        return live.owner not in self._locks and is_orphan(
            live, self._owner, now - since, self._tools.timeouts.lease, self._competing
        )

    def _look_for_competing_daemons(self, stopped: Iterable[ObservedService]) -> None:
        """Two daemons that took restores over from each other would never finish one."""
        leases = [lease for live in stopped if (lease := read_lease(live.lease)) is not None]
        self._once_ours = {n.id for n in leases if n.owner == self._owner or n.id in self._once_ours}
        for lease in leases:
            is_other = lease.owner.startswith(DAEMON) and lease.owner not in {self._owner, *self._competing}
            if lease.id in self._once_ours and is_other:
                log.warning("another daemon is at work in this cluster", holder=lease.owner)
                self._competing.add(lease.owner)

    async def _finish(self, tools: Tools, *, live: ObservedService) -> RestoreResult | None:
        """Finish an orphan. None: it cannot be had (yet), which is looked into again later."""
        lease = read_lease(live.lease)
        try:
            services, _ = await self._tools.docker.progress()
            if not any(s.id == live.id and s.lease == live.lease and s.is_stopped for s in services):
                return None
            log.warning("unfinished restore found", service=live.name)
            if lease is None or is_outdated(live):
                await self._tools.apply(Start(live, live.lease, "no restore is under way"))
                return None
            return await finish_restore(tools, live, lease, self._owner)
        except CoreflowError as exc:
            log.warning("restore not finished yet", service=live.name, reason=str(exc))
            return None


def _request_of(live: ObservedService) -> RestoreRequest:
    """Return what somebody asked for, as the lease tells. Who asks a daemon for the same gets the result, and nobody else does."""
    lease = read_lease(live.lease)
    if lease is None:
        return RestoreRequest(backup_id="", service_id=ServiceId(live.owner))
    request = RestoreRequest(backup_id=lease.backup_id, service_id=ServiceId(live.owner))
    if lease.is_whole and lease.owner.startswith(DAEMON):
        return request
    return evolve(
        request,
        volumes=tuple(part for part in lease.parts if part.kind == VOLUME),
        resources=tuple(part for part in lease.parts if part.kind != VOLUME),
    )


def _failed(request: Request, error: str) -> BackupResult | RestoreResult:
    """The result of an operation that came to nothing."""
    result = BackupResult if isinstance(request, BackupRequest) else RestoreResult
    return result(backup_id=request.backup_id, service_id=request.service_id, status="failed", error=error)


def _remember(results: OrderedDict[Any, Any], request: Request, result: object) -> None:
    results[request] = result
    while len(results) > REMEMBERED:
        results.popitem(last=False)


class _Counting:
    """A watcher that counts what is moved."""

    def __init__(self, inner: Watcher, counters: Counters) -> None:
        self._inner, self._counters = inner, counters

    def step(self, text: str) -> None:
        self._inner.step(text)

    def expect(self, size: int) -> None:
        self._inner.expect(size)

    def moved(self, size: int) -> None:
        self._counters.bytes_moved += size
        self._inner.moved(size)
