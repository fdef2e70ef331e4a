"""One pass, and passes until nothing is left to do.

A pass reads everything, plans, applies, and reports. What one pass cannot do (a roll-out that has not ended, a lost
race, a secret that is still in use) a later one will: nothing waits inside a pass.
"""

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

import trio
from attrs import evolve, frozen

from coreflow._moved import renamed, warn_of
from coreflow.domain.deploy.contention import NOTHING_WRITTEN
from coreflow.domain.deploy.desired import Desired, RenderOptions
from coreflow.domain.deploy.located import located, located_notes
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.result import Outcome, ReconcileResult, Report
from coreflow.domain.deploy.schedule import (
    AT_ONCE,
    DEFERENCE_PAUSE,
    NO_DEFERENCE,
    POLL_SECONDS,
    has_work_within,
    overtaken,
    pause_before_next,
    seconds_to_next_try,
)
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.deploy.steps import (
    Action,
    Plan,
    PlanOptions,
    Step,
)
from coreflow.domain.errors import CoreflowError, Unavailable
from coreflow.domain.ids import Owner
from coreflow.domain.ports import ControlPlane, DockerPort
from coreflow.domain.records.models import Records
from coreflow.domain.status.connections import ENGINE
from coreflow.domain.swarm.actions import Create, Recreate, Remove, Update
from coreflow.domain.swarm.convergence import (
    NO_HISTORY,
    SETTLE_SECONDS,
    Settling,
    Verdict,
    judge_all,
)
from coreflow.domain.swarm.images import ImageProblem, ImageRequest, distinct
from coreflow.domain.swarm.observed import Observed, ObservedService
from coreflow.domain.swarm.specs import ServiceSpec
from coreflow.gc_pause import LARGE_CLUSTER, gc_paused

from .applying import Applier
from .beside import Background, Job
from .bindings import Bindings
from .confidential import Confidential
from .corestores import Corestores
from .fetching import Fetching
from .heard import Heard, unheard
from .journaling import NO_RECORDER, Recorder
from .lookups import LookUps

SEEN_SECONDS = 2.0
"""How long a look at the engine may take that began beside one for records that cannot be had."""
NOTHING_SEEN = Observed()
HANGING_SECONDS = 5.0
"""An engine that fails after so long did not answer."""


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
class ReconcilerOptions:
    """Options of a `Reconciler`: how it waits, and what it tells nobody."""

    settle_seconds: float = SETTLE_SECONDS
    """How long tasks must have run for a service to count as done."""
    jitter: Callable[[float, float], float] = random.uniform
    """Chooses a pause between a shortest and a longest one, in seconds."""
    known: Confidential | None = None
    """Learns the records, and what they keep secret is taken out of texts. None: one of its own."""
    heard: Heard = unheard
    """Is told how each peer answered."""
    recorder: Recorder = NO_RECORDER
    """Keeps the journal."""


class _Options(TypedDict, total=False):
    """The fields of `ReconcilerOptions`."""

    settle_seconds: float
    jitter: Callable[[float, float], float]
    known: Confidential | None
    heard: Heard
    recorder: Recorder


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
        self._known, self._heard = options.known or Confidential(), options.heard
        self._seen = NOTHING_SEEN
        self.bindings = Bindings(corestores, cloudly, self._known, options.heard)
        self.recorder, note = options.recorder, self._note
        self._applier = Applier(cloudly, docker, self.bindings, self._background, note, self.recorder)
        self.restoring: set[Owner] = set()
        """Services that somebody in this process is about to restore."""
        self._renderer = Renderer(render or RenderOptions())
        self._options = plan or PlanOptions()
        self._listener = listener or NullListener()
        self._settle_seconds, self._jitter = options.settle_seconds, options.jitter
        self._history, self._log = NO_HISTORY, NOTHING_WRITTEN
        self._records = Fetching(cloudly, self._background, self._heard)
        self._reporter: Job[None] | None = None
        self._to_report: ReconcileState | None = None
        self.engine_has_hung = False
        """Whether the engine did not answer the last look at all, rather than refuse to."""
        self._awaited: frozenset[ImageRequest] = frozenset()
        """What the last look did not wait for."""
        self._late: frozenset[ImageRequest] = frozenset()
        """Of what a refresh asked: passes after it take the answers."""
        self._deference = NO_DEFERENCE

    def try_again(self) -> None:
        """Forget what this process has tried: what failed may be tried once more."""
        self._log = self._log.forget_attempts()
        self.try_now()

    def try_now(self) -> None:
        """End every pause: what could not be done, or not be looked up, is tried by the next pass."""
        self._applier.try_again()
        self._look_ups.forget()

    def engine_is_back(self) -> None:
        """Let the next pass try what failed since the engine was away."""
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
        with gc_paused(enabled=len(records.services) >= LARGE_CLUSTER):
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
        with gc_paused(enabled=len(records.services) >= LARGE_CLUSTER):
            bound = self.bindings.look(records, observed)
            desired = self._renderer.render(records, observed, images, bound, refresh=refresh or bool(late))
            self._remember(desired, observed)
            options = evolve(self._options, retry_failed=retry_failed or self._options.retry_failed)
            plan = make_plan(desired, observed, options, restoring=self.restoring, log=self._log)
        plan = await _located(plan, records)
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
                nursery.cancel_scope.deadline = trio.current_time() + SEEN_SECONDS

        async def observe() -> None:
            asked = trio.current_time()
            try:
                self._seen = await self._docker.observe()
                observed.append(self._seen)
                self._heard(ENGINE, "", None)
            except CoreflowError as exc:
                errors["observed"] = exc
                self._heard(ENGINE, "", exc)
            self.engine_has_hung = "observed" in errors and trio.current_time() - asked >= HANGING_SECONDS

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_records)
            nursery.start_soon(observe)
        if errors:
            raise errors.get("records") or errors["observed"]
        self._known.learn(records[0])
        return records[0], self._known.observed(observed[0])

    def as_seen(self, result: ReconcileResult) -> ReconcileResult | None:
        """Return a result with what was seen since by passes that had no records to plan with; None: nothing was."""
        if self._seen.time <= result.last.observed.time:
            return None
        observed = self._known.observed(self._seen)
        self._history = self._history.after(observed.services, observed.tasks, observed.time)
        return result.as_seen(observed, self._settling(observed.time))

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
        if reconcile_state.plan.steps and self._deference.holds(trio.current_time()):
            await trio.sleep(self._jitter(*DEFERENCE_PAUSE))
            reconcile_state = await self._look(refresh=refresh, retry_failed=retry_failed)
        self._listener.planned(self._applier.news(reconcile_state.plan))
        outcomes = await self._applier.apply(reconcile_state.plan, self._listener.applied)
        return reconcile_state, Report(plan=reconcile_state.plan, outcomes=outcomes)

    async def reconcile(
        self, *, refresh: bool = False, retry_failed: bool = False, fetch: bool = True
    ) -> ReconcileResult:
        """Passes until there is nothing to do, or nothing that can be done now.

        Without `fetch`, the records are those of the last look, as long as nothing is to be written.
        """
        if refresh:
            self.bindings.expire()
            self._look_ups.forget()
        reports: list[Report] = []
        lost: tuple[Step, ...] = ()
        while (pause := pause_before_next(reports)) is not None:
            if pause != AT_ONCE:
                await trio.sleep(self._jitter(*pause))
            fresh = fetch and not reports
            reconcile_state, report = await self._pass(
                refresh=refresh, retry_failed=retry_failed, fetch=fresh
            )
            reports.append(report)
            self._deference = self._deference.after(lost, reconcile_state.plan, trio.current_time())
            lost = overtaken(report.outcomes)
        self._late = self._awaited if refresh else self._late & self._awaited
        await self._report(reconcile_state)
        return ReconcileResult(
            last=reconcile_state, reports=tuple(reports), verdicts=reconcile_state.verdicts
        )

    async def settle(
        self, *, refresh: bool = False, retry_failed: bool = False, fetch: bool = True
    ) -> ReconcileResult:
        """The old name of `reconcile`."""
        warn_of("Reconciler.settle", "reconcile")
        return await self.reconcile(refresh=refresh, retry_failed=retry_failed, fetch=fetch)

    async def deploy(
        self, *, timeout: float, refresh: bool = False, retry_failed: bool = False
    ) -> ReconcileResult:
        """Reconcile, wait until Swarm has done what it was told, and reconcile again, for at most `timeout` seconds.

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
            reconcile_result = await self.reconcile(refresh=refresh, retry_failed=retry_failed)
            refresh = False
            reports += reconcile_result.reports
            self._listener.progressed(reconcile_result.verdicts)
            if not has_work_within(reconcile_result, deadline - trio.current_time()):
                break
            await self._wait(reconcile_result, news, deadline)
        return ReconcileResult(
            last=reconcile_result.last, reports=reports, verdicts=reconcile_result.verdicts
        )

    async def _wait(self, reconcile_result: ReconcileResult, news: trio.Event, deadline: float) -> None:
        """Until another pass can do something: poll until every pending service is done or has failed, say.

        The end of what goes on beside the passes ends it, too, and so do the next try of something and the deadline.
        """
        until = min(deadline, trio.current_time() + seconds_to_next_try(reconcile_result, self.due_in))
        pending = reconcile_result.pending
        while trio.current_time() < until:
            with trio.move_on_after(min(POLL_SECONDS, until - trio.current_time())):
                await news.wait()
            if news.is_set() or (pending and await self._have_ended(reconcile_result.last, pending)):
                return

    async def _have_ended(self, reconcile_state: ReconcileState, pending: frozenset[str]) -> bool:
        """Return whether every pending service is done or has failed."""
        try:
            services, tasks = self._known.seen(*await self._docker.progress())
        except Unavailable:
            return False
        now = self._docker.clock()
        self._history = self._history.after(services, tasks, now)
        names, nodes = sorted(reconcile_state.desired.services), reconcile_state.observed.nodes
        verdicts = judge_all(names, services, tasks, nodes, self._settling(now))
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


async def _located(plan: Plan, records: Records) -> Plan:
    """A plan with places in it; these are looked for beside the loop where there is much to go through."""
    if len(records.services) < LARGE_CLUSTER or records.origin.places is None:
        return _with_places(plan, records)
    return await trio.to_thread.run_sync(_with_places, plan, records)


def _with_places(plan: Plan, records: Records) -> Plan:
    return evolve(
        plan, rejections=located(plan.rejections, records), notes=located_notes(plan.notes, records)
    )


def _behind_images(records: Records) -> tuple[object, ...]:
    """The records that say which images there are. Unchanged ones are the same objects, whoever sent them again."""
    images, registries = records.images.values(), records.external_registries.values()
    return records.services, tuple(images), tuple(registries), records.cluster.registry_info


if not TYPE_CHECKING:  # a type checker shall miss names that are not there

    def __getattr__(name: str) -> Any:
        return renamed(name, globals())
