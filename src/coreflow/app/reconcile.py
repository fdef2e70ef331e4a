"""One pass, and passes until nothing is left to do.

A pass reads everything, plans, applies, and reports. What one pass cannot do (a roll-out that has not ended, a lost
race, a secret that is still in use) a later one will: nothing waits inside a pass.
"""

import math
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

import trio
from attrs import Factory, evolve, frozen

from coreflow._moved import renamed
from coreflow.domain.deploy.contention import NOTHING_WRITTEN
from coreflow.domain.deploy.desired import Desired, RenderOptions, unit_of
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.result import Outcome, Report
from coreflow.domain.deploy.steps import (
    Action,
    Plan,
    PlanOptions,
    Step,
    kind_of,
    name_of,
)
from coreflow.domain.errors import CoreflowError, Unavailable
from coreflow.domain.ids import Owner
from coreflow.domain.ports import ControlPlane, DockerPort
from coreflow.domain.records.models import Records
from coreflow.domain.swarm.actions import Create, Recreate, Remove, Update
from coreflow.domain.swarm.convergence import (
    NO_HISTORY,
    SETTLE_SECONDS,
    Settling,
    TaskHistory,
    Verdict,
    judge_all,
)
from coreflow.domain.swarm.images import ImageProblem, ImageRequest, distinct
from coreflow.domain.swarm.observed import Observed, ObservedService
from coreflow.domain.swarm.specs import ServiceSpec
from coreflow.gc_pause import LARGE_CLUSTER, quiet

from .applying import Applier
from .beside import Background, Job
from .bindings import Bindings
from .confidential import Confidential
from .corestores import Corestores
from .fetching import Fetching
from .lookups import LookUps
from .reconcile_state import ReconcileState

PASS_LIMIT = 12
"""Passes in a row before a settling gives up: more means that something changes as fast as we put it right."""
LONGEST_SLEEP_SECONDS = 5.0
"""Records may change while an apply waits for something that is not due yet."""
OVERTAKEN_SECONDS = (0.2, 1.0)
"""How long to wait, at least and at most, before looking again after somebody else was faster: it may not be done yet."""
DEFERENCE_SECONDS = (0.5, 2.0)
"""How long to wait, at least and at most, before looking again where somebody else does the same as we."""
DEFERRING_SECONDS = 600.0
"""For how long that is assumed after the last sign of it."""
HANGING_SECONDS = 5.0
"""An engine that fails after so long did not answer."""
POLL_SECONDS = 0.5
"""How often to look whether roll-outs have ended: two lists, whatever the number of services."""


class Listener(Protocol):
    """Somebody who wants to see what happens while it happens."""

    def planned(self, plan: Plan) -> None:
        """A pass has a plan and is about to apply it."""
        ...

    def applied(self, outcome: Outcome) -> None:
        """One action ended."""
        ...

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """The services were looked at again."""
        ...


class NullListener:
    """A listener that does not listen."""

    def planned(self, plan: Plan) -> None:
        """Nothing."""

    def applied(self, outcome: Outcome) -> None:
        """Nothing."""

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """Nothing."""


@frozen(kw_only=True)
class ReconcileResult:
    """How a series of passes went: what was done in all of them, and the state at the end."""

    last: ReconcileState
    reports: tuple[Report, ...] = ()
    verdicts: Mapping[str, Verdict] = Factory(dict)

    @property
    def applied(self) -> tuple[Outcome, ...]:
        """Every action that was carried out."""
        return tuple(o for report in self.reports for o in report.outcomes if o.status == "applied")

    @property
    def troubles(self) -> tuple[Outcome, ...]:
        """What could not be done, as of the last pass that tried anything.

        That somebody else was faster is none as soon as a later look has found nothing more to do.
        """
        if self.reports and not self.reports[-1].outcomes:
            tried = next((report.troubles for report in reversed(self.reports) if report.outcomes), ())
            return tuple(outcome for outcome in tried if outcome.status != "overtaken")
        return self.reports[-1].troubles if self.reports else ()

    @property
    def pending(self) -> frozenset[str]:
        """Services that Swarm is still at. One that could not even be written, or not yet, is not."""
        stuck = {o.step.unit for o in (*self.troubles, *self.under_way)}
        services = self.last.desired.services
        return frozenset(
            name
            for name, verdict in self.verdicts.items()
            if not (verdict.done or verdict.failed) and unit_of(services[name].owner, name) not in stuck
        )

    @property
    def is_waiting(self) -> bool:
        """Whether something is left to do that a later pass may be able to."""
        return bool(self.last.plan.waits) or self.may_retry or self.is_awaiting

    @property
    def under_way(self) -> tuple[Outcome, ...]:
        """What goes on beside the passes."""
        return self.reports[-1].under_way if self.reports else ()

    @property
    def is_awaiting(self) -> bool:
        """Whether something goes on beside the passes whose end starts another."""
        return bool(self.under_way) or self.last.is_awaiting

    @property
    def may_retry(self) -> bool:
        """Whether something that could not be done may be possible later, without anybody doing anything."""
        return any(outcome.retry for report in self.reports[-1:] for outcome in report.troubles)

    def waits_for(self, seconds: float) -> bool:
        """Whether a later pass within so many seconds of the last may be able to do what is left to do."""
        limit = self.last.observed.time + seconds
        waits = self.last.plan.waits
        return self.may_retry or self.is_awaiting or any(w.until is None or w.until <= limit for w in waits)

    @property
    def idle_seconds(self) -> float | None:
        """For how long nothing can be done about what is left, where that is known of all of it."""
        times = [wait.until for wait in self.last.plan.waits]
        if not times or self.may_retry or self.is_awaiting or self.pending:
            return None
        known = [time for time in times if time is not None]
        return max(min(known) - self.last.observed.time, 0.0) if len(known) == len(times) else None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do, and nothing went wrong."""
        done = all(verdict.done for verdict in self.verdicts.values())
        idle = not any(report.applied for report in self.reports[-1:])
        return done and idle and not self.is_waiting and self.last.plan.is_clean and not self.troubles


@frozen(kw_only=True)
class ReconcilerOptions:
    """How a `Reconciler` waits, and what it tells nobody."""

    settle_seconds: float = SETTLE_SECONDS
    """How long tasks must have run for a service to count as done."""
    jitter: Callable[[float, float], float] = random.uniform
    """Chooses a pause between a shortest and a longest one, in seconds."""
    known: Confidential | None = None
    """Learns the records, and what they keep secret is taken out of texts. None: one of its own."""


class _Options(TypedDict, total=False):
    """The fields of `ReconcilerOptions`."""

    settle_seconds: float
    jitter: Callable[[float, float], float]
    known: Confidential | None


class Reconciler:
    """Reconciles one Swarm with one source of records."""

    def __init__(
        self,
        cloudly: ControlPlane,
        docker: DockerPort,
        corestores: Corestores | None = None,
        *,
        render: RenderOptions | None = None,
        plan: PlanOptions | None = None,
        listener: Listener | None = None,
        options: ReconcilerOptions | None = None,
        **single: Unpack[_Options],
    ) -> None:
        """`single` are fields of `ReconcilerOptions`, each as a keyword: they go before those of `options`."""
        options = evolve(options or ReconcilerOptions(), **single)
        self._cloudly, self._docker = cloudly, docker
        self._background = Background()
        self._look_ups = LookUps(docker, self._background)
        self._known = options.known or Confidential()
        self.bindings = Bindings(corestores, cloudly, self._known)
        self._applier = Applier(cloudly, docker, self.bindings, self._background, self._note)
        self.restoring: set[Owner] = set()
        """Services that somebody in this process is about to restore."""
        self._renderer = Renderer(render or RenderOptions())
        self._options = plan or PlanOptions()
        self._listener = listener or NullListener()
        self._settle_seconds, self._jitter = options.settle_seconds, options.jitter
        self._history: TaskHistory = NO_HISTORY
        self._log = NOTHING_WRITTEN
        self._records = Fetching(cloudly, self._background)
        self._reporter: Job[None] | None = None
        self._to_report: ReconcileState | None = None
        self.engine_has_hung = False
        """Whether the engine did not answer the last look at all, rather than refuse to."""
        self._awaited: frozenset[ImageRequest] = frozenset()
        """What the last look did not wait for."""
        self._late: frozenset[ImageRequest] = frozenset()
        """Of what a refresh asked: passes after it take the answers."""
        self._deferring_until = -math.inf
        """While somebody else does the same as we, it goes first."""

    def try_again(self) -> None:
        """Forget what this process has tried: what failed may be tried once more."""
        self._log = self._log.forget_attempts()
        self.try_now()

    def try_now(self) -> None:
        """End every pause: what could not be done, or not be looked up, is tried by the next pass."""
        self._applier.try_again()
        self._look_ups.forget()

    def engine_is_back(self) -> None:
        """What failed since the engine was away is tried by the next pass."""
        self._applier.try_again(refused=False)

    @property
    def due_in(self) -> float | None:
        """In how many seconds something is tried again that could not be done, if there is anything."""
        return self._applier.due_in

    def background(self, on_news: Callable[[], object] = lambda: None) -> AbstractAsyncContextManager[None]:
        """Look up images and load archives beside passes, for as long as the block lasts; `deploy` does it by itself.

        Without it a pass waits for all of it. `on_news` is called when a pass is due because something has ended.
        """
        return self._background.open(on_news)

    async def look(self, *, refresh: bool = False, retry_failed: bool = False) -> ReconcileState:
        """Observe, render and plan; nothing is written.

        With `refresh`, every image reference is looked up again, so that a tag that moved is noticed. With
        `retry_failed`, what was rolled back is tried again, once by this process. Raises
        InvalidRecord when the records as a whole cannot be used, and Unavailable when a peer is away.
        """
        if refresh:
            self._look_ups.forget()
        return await self._look(refresh=refresh, retry_failed=retry_failed)

    async def _look(self, *, refresh: bool, retry_failed: bool, fetch: bool = True) -> ReconcileState:
        records, observed = await self._fetch(fetch=fetch)
        with quiet(enabled=len(records.services) >= LARGE_CLUSTER):
            requests = self._renderer.image_requests(records, observed, refresh=refresh)
            late: frozenset[ImageRequest] = frozenset()
            if self._late and not refresh:
                late = self._late.intersection(self._renderer.image_requests(records, observed, refresh=True))
        images = await self._look_ups.answers(distinct((*requests, *late)), about=_behind_images(records))
        self._awaited = frozenset(
            request
            for request, answer in images.items()
            if isinstance(answer, ImageProblem) and answer.awaited
        )
        with quiet(enabled=len(records.services) >= LARGE_CLUSTER):
            bound = self.bindings.look(records, observed)
            desired = self._renderer.render(records, observed, images, bound, refresh=refresh or bool(late))
            self._remember(desired, observed)
            options = evolve(self._options, retry_failed=retry_failed or self._options.retry_failed)
            plan = make_plan(desired, observed, options, restoring=self.restoring, log=self._log)
        return ReconcileState(
            records=records,
            observed=observed,
            desired=desired,
            plan=plan,
            refreshing=bool(self._awaited) and (refresh or bool(late & self._awaited)),
            settling=self._settling(observed.time),
        )

    def _remember(self, desired: Desired, observed: Observed) -> None:
        """Take what a look found into what this process knows of the past."""
        self._history = self._history.after(observed.services, observed.tasks, observed.time)
        untouchable = {
            service.name
            for service in observed.services
            if service.is_stopped or service.owner in self.restoring
        }
        self._log = self._log.seen(desired.services, observed, desired.cluster, untouchable)

    def _settling(self, now: float) -> Settling:
        return Settling(history=self._history, now=now, seconds=self._settle_seconds)

    async def _fetch(self, *, fetch: bool) -> tuple[Records, Observed]:
        """Records and observation, at the same time.

        Where both fail, what is wrong with the records is the news.
        """
        records: list[Records] = []
        observed: list[Observed] = []
        errors: dict[str, CoreflowError] = {}

        async def fetch_records() -> None:
            try:
                records.append(await self._records.records(fetch=fetch))
            except CoreflowError as exc:
                errors["records"] = exc
                nursery.cancel_scope.cancel()

        async def observe() -> None:
            asked = trio.current_time()
            try:
                observed.append(await self._docker.observe())
            except CoreflowError as exc:
                errors["observed"] = exc
            self.engine_has_hung = "observed" in errors and trio.current_time() - asked >= HANGING_SECONDS

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_records)
            nursery.start_soon(observe)
        if errors:
            raise errors.get("records") or errors["observed"]
        self._known.learn(records[0])
        return records[0], self._known.observed(observed[0])

    async def run_pass(
        self, *, refresh: bool = False, retry_failed: bool = False
    ) -> tuple[ReconcileState, Report]:
        """Look once, and apply what was planned."""
        if refresh:
            self._look_ups.forget()
        return await self._pass(refresh=refresh, retry_failed=retry_failed)

    async def _pass(
        self, *, refresh: bool, retry_failed: bool, fetch: bool = True
    ) -> tuple[ReconcileState, Report]:
        reconcile_state = await self._look(refresh=refresh, retry_failed=retry_failed, fetch=fetch)
        if reconcile_state.plan.steps and not fetch:
            # what others wrote may follow from newer records than ours
            reconcile_state = await self._look(refresh=refresh, retry_failed=retry_failed)
        if reconcile_state.plan.steps and trio.current_time() < self._deferring_until:
            await trio.sleep(self._jitter(*DEFERENCE_SECONDS))
            reconcile_state = await self._look(refresh=refresh, retry_failed=retry_failed)
        self._listener.planned(self._applier.news(reconcile_state.plan))
        outcomes = await self._applier.apply(reconcile_state.plan, self._listener.applied)
        return reconcile_state, Report(plan=reconcile_state.plan, outcomes=outcomes)

    async def settle(
        self, *, refresh: bool = False, retry_failed: bool = False, fetch: bool = True
    ) -> ReconcileResult:
        """Passes until there is nothing to do, or nothing that can be done now.

        Without `fetch`, the records are those of the last look, as long as nothing is to be written.
        """
        if refresh:
            self.bindings.expire()
            self._look_ups.forget()
        reports: list[Report] = []
        overtaken: tuple[Step, ...] = ()
        for number in range(PASS_LIMIT):
            fresh = fetch and number == 0
            reconcile_state, report = await self._pass(
                refresh=refresh, retry_failed=retry_failed, fetch=fresh
            )
            reports.append(report)
            if overtaken and not _still_wanted(overtaken, reconcile_state.plan):
                self._deferring_until = trio.current_time() + DEFERRING_SECONDS
            overtaken = tuple(o.step for o in report.outcomes if o.status == "overtaken")
            progress = report.applied or any(outcome.at_once for outcome in report.troubles)
            if not report.outcomes or not progress:
                break
            if overtaken:
                await trio.sleep(self._jitter(*OVERTAKEN_SECONDS))
        self._late = self._awaited if refresh else self._late & self._awaited
        await self._report(reconcile_state)
        return ReconcileResult(
            last=reconcile_state, reports=tuple(reports), verdicts=reconcile_state.verdicts
        )

    async def deploy(
        self, *, timeout: float, refresh: bool = False, retry_failed: bool = False
    ) -> ReconcileResult:
        """Settle, wait until Swarm has done what it was told, and settle again, for at most `timeout` seconds.

        The deadline ends the waiting, never a write. What is not due before it is not waited for.
        """
        async with self.background():
            reconcile_result = await self._deploy(trio.current_time() + timeout, refresh, retry_failed)
            if self._reporter is not None:
                await self._reporter.ended.wait()
            return reconcile_result

    async def _report(self, reconcile_state: ReconcileState) -> None:
        """Tell the control plane how far bindings are, beside passes where that is possible."""
        self._to_report = reconcile_state
        if not self._background.is_open:
            await self._report_all()
        elif self._reporter is None or self._reporter.ended.is_set():
            self._reporter = self._background.start(self._report_all)

    async def _report_all(self) -> None:
        """Until nothing newer has come meanwhile."""
        while (reconcile_state := self._to_report) is not None:
            self._to_report = None
            await self.bindings.report(reconcile_state)

    async def _deploy(self, deadline: float, refresh: bool, retry_failed: bool) -> ReconcileResult:
        reports: tuple[Report, ...] = ()
        while True:
            news = self._background.news
            reconcile_result = await self.settle(refresh=refresh, retry_failed=retry_failed)
            refresh = False
            reports += reconcile_result.reports
            self._listener.progressed(reconcile_result.verdicts)
            pending = reconcile_result.pending
            left = deadline - trio.current_time()
            if not (pending or reconcile_result.waits_for(left)) or left <= 0:
                break
            await self._wait(reconcile_result, news, deadline)
        return ReconcileResult(
            last=reconcile_result.last, reports=reports, verdicts=reconcile_result.verdicts
        )

    async def _wait(self, reconcile_result: ReconcileResult, news: trio.Event, deadline: float) -> None:
        """Until another pass can do something: poll until every pending service is done or has failed, say.

        The end of what goes on beside the passes ends it, too, and so do the next try of something and the deadline.
        """
        until = min(deadline, self._next_pass(reconcile_result))
        pending = reconcile_result.pending
        while trio.current_time() < until:
            with trio.move_on_after(min(POLL_SECONDS, until - trio.current_time())):
                await news.wait()
            if news.is_set() or (pending and await self._have_ended(reconcile_result.last, pending)):
                return

    def _next_pass(self, reconcile_result: ReconcileResult) -> float:
        """When another pass may do something, as far as that is known."""
        now, due_in = trio.current_time(), self.due_in
        if reconcile_result.may_retry:
            return now + max(POLL_SECONDS, due_in or 0.0)
        if reconcile_result.is_awaiting and not reconcile_result.last.plan.waits:
            return math.inf if reconcile_result.pending else now + LONGEST_SLEEP_SECONDS
        if reconcile_result.pending:
            return math.inf
        return now + max(POLL_SECONDS, min(reconcile_result.idle_seconds or 0.0, LONGEST_SLEEP_SECONDS))

    async def _have_ended(self, reconcile_state: ReconcileState, pending: frozenset[str]) -> bool:
        """Whether every pending service is done or has failed."""
        try:
            services, tasks = self._known.seen(*await self._docker.progress())
        except Unavailable:
            return False
        now = self._docker.clock()
        self._history = self._history.after(services, tasks, now)
        names = sorted(reconcile_state.desired.services)
        verdicts = judge_all(names, services, tasks, reconcile_state.observed.nodes, self._settling(now))
        self._listener.progressed(verdicts)
        return all(verdicts[name].done or verdicts[name].failed for name in pending)

    def _note(self, action: Action) -> None:
        """Remember what was written."""
        now = self._docker.clock()
        match action:
            case Create(ServiceSpec() as spec, _):
                self._log = self._log.wrote(spec, now)
            case Update(spec, target, _) | Recreate(spec, target, _):
                self._log = self._log.wrote(spec, now, target.version)
            case Remove(ObservedService() as target, _, _):
                self._log = self._log.removed(target, now)
            case _:
                pass


def _behind_images(records: Records) -> tuple[object, ...]:
    """The records that say which images there are. Unchanged ones are the same objects, whoever sent them again."""
    images, registries = records.images.values(), records.external_registries.values()
    return records.services, tuple(images), tuple(registries), records.cluster.registry_info


def _still_wanted(steps: Iterable[Step], plan: Plan) -> bool:
    """Whether a plan still wants to do something about what these steps were about."""
    objects = {(kind_of(step.action), name_of(step.action)) for step in steps}
    return any((kind_of(action), name_of(action)) in objects for action in plan.actions)


if not TYPE_CHECKING:  # a type checker shall miss names that are not there

    def __getattr__(name: str) -> Any:
        return renamed(name, globals())
