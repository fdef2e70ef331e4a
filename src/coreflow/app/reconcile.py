"""One pass, and passes until nothing is left to do.

A pass reads everything, plans, applies, and reports. What one pass cannot do (a roll-out that has not ended, a lost
race, a secret that is still in use) a later one will: nothing waits inside a pass.
"""

import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import trio
from attrs import Factory, define, evolve, frozen

from coreflow.domain.deploy.contention import NOTHING_WRITTEN
from coreflow.domain.deploy.desired import Desired, RenderOptions, unit_of
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.result import Outcome, Report
from coreflow.domain.deploy.steps import (
    Action,
    Deprovision,
    Plan,
    PlanOptions,
    Provision,
    Step,
    kind_of,
    name_of,
    stage_of,
    subject_of,
)
from coreflow.domain.errors import CoreflowError, LostRace, PortError, Refused, Unavailable
from coreflow.domain.ids import Owner
from coreflow.domain.ports import CloudlyPort, DockerPort
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
from coreflow.domain.swarm.observed import Observed, ObservedService
from coreflow.domain.swarm.specs import ImageSpec, NetworkSpec, ServiceSpec, Stage
from coreflow.quiet import LARGE_CLUSTER, quiet

from .bindings import Bindings
from .confidential import Confidential
from .corestores import Corestores
from .lookups import LookUps
from .situation import Situation

PASS_LIMIT = 12
"""Passes in a row before a settling gives up: more means that something changes as fast as we put it right."""
CONCURRENCY = 8
"""Units that are worked on at once; the engine serialises its writes anyway."""
LONGEST_SLEEP_SECONDS = 5.0
"""Records may change while an apply waits for something that is not due yet."""
OVERTAKEN_SECONDS = (0.2, 1.0)
"""How long to wait, at least and at most, before looking again after somebody else was faster: it may not be done yet."""
DEFERENCE_SECONDS = (0.5, 2.0)
"""How long to wait, at least and at most, before looking again where somebody else does the same as we."""
DEFERRING_SECONDS = 600.0
"""For how long that is assumed after the last sign of it."""
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


class Quiet:
    """A listener that does not listen."""

    def planned(self, plan: Plan) -> None:
        """Nothing."""

    def applied(self, outcome: Outcome) -> None:
        """Nothing."""

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """Nothing."""


@frozen(kw_only=True)
class Settlement:
    """How a series of passes went: what was done in all of them, and the situation at the end."""

    last: Situation
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
        """Services that Swarm is still at. One that could not even be written is not: nothing more will come of it."""
        stuck = {o.step.unit for o in self.troubles if not o.retry}
        services = self.last.desired.services
        return frozenset(
            name
            for name, verdict in self.verdicts.items()
            if not (verdict.done or verdict.failed) and unit_of(services[name].owner, name) not in stuck
        )

    @property
    def is_waiting(self) -> bool:
        """Whether something is left to do that a later pass may be able to."""
        return bool(self.last.plan.waits) or self._may_retry

    @property
    def _may_retry(self) -> bool:
        return any(outcome.retry for report in self.reports[-1:] for outcome in report.troubles)

    def waits_for(self, seconds: float) -> bool:
        """Whether a later pass within so many seconds of the last may be able to do what is left to do."""
        limit = self.last.observed.time + seconds
        return self._may_retry or any(w.until is None or w.until <= limit for w in self.last.plan.waits)

    @property
    def idle_seconds(self) -> float | None:
        """For how long nothing can be done about what is left, where that is known of all of it."""
        times = [wait.until for wait in self.last.plan.waits]
        if not times or self._may_retry or self.pending:
            return None
        known = [time for time in times if time is not None]
        return max(min(known) - self.last.observed.time, 0.0) if len(known) == len(times) else None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do, and nothing went wrong."""
        done = all(verdict.done for verdict in self.verdicts.values())
        idle = not any(report.applied for report in self.reports[-1:])
        return done and idle and not self.is_waiting and self.last.plan.is_clean and not self.troubles


class Reconciler:
    """Reconciles one Swarm with one source of records."""

    def __init__(
        self,
        cloudly: CloudlyPort,
        docker: DockerPort,
        corestores: Corestores | None = None,
        *,
        render: RenderOptions | None = None,
        plan: PlanOptions | None = None,
        listener: Listener | None = None,
        settle_seconds: float = SETTLE_SECONDS,
        jitter: Callable[[float, float], float] = random.uniform,
        known: Confidential | None = None,
    ) -> None:
        """`settle_seconds` is how long tasks must have run for a service to count as done."""
        self._cloudly, self._docker = cloudly, docker
        self._look_ups = LookUps(docker)
        self._known = known or Confidential()
        self.bindings = Bindings(corestores, cloudly, self._known)
        self.restoring: set[Owner] = set()
        """Services that somebody in this process is about to restore."""
        self._renderer = Renderer(render or RenderOptions())
        self._options = plan or PlanOptions()
        self._listener = listener or Quiet()
        self._settle_seconds, self._jitter = settle_seconds, jitter
        self._history: TaskHistory = NO_HISTORY
        self._log = NOTHING_WRITTEN
        self._deferring_until = -math.inf
        """While somebody else does the same as we, it goes first."""

    def try_again(self) -> None:
        """Forget what this process has tried: what failed may be tried once more."""
        self._log = self._log.forget_attempts()

    async def look(self, *, refresh: bool = False, retry_failed: bool = False) -> Situation:
        """Observe, render and plan; nothing is written.

        With `refresh`, every image reference is looked up again, so that a tag that moved is noticed. With
        `retry_failed`, what was rolled back is tried again, once by this process. Raises
        InvalidRecord when the records as a whole cannot be used, and Unavailable when a far side is away.
        """
        records, observed = await self._fetch()
        with quiet(enabled=len(records.services) >= LARGE_CLUSTER):
            requests = self._renderer.image_requests(records, observed, refresh=refresh)
        images = await self._look_ups.answers(requests, about=_behind_images(records), refresh=refresh)
        with quiet(enabled=len(records.services) >= LARGE_CLUSTER):
            bound = self.bindings.look(records, observed)
            desired = self._renderer.render(records, observed, images, bound, refresh=refresh)
            self._remember(desired, observed)
            options = evolve(self._options, retry_failed=retry_failed or self._options.retry_failed)
            plan = make_plan(desired, observed, options, restoring=self.restoring, log=self._log)
        return Situation(
            records=records,
            observed=observed,
            desired=desired,
            plan=plan,
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

    async def _fetch(self) -> tuple[Records, Observed]:
        """Records and observation at the same time. Where both fail, what is wrong with the records is the news."""
        records: list[Records] = []
        observed: list[Observed] = []
        errors: dict[str, CoreflowError] = {}

        async def fetch_records() -> None:
            try:
                records.append(await self._cloudly.records())
            except CoreflowError as exc:
                errors["records"] = exc
                nursery.cancel_scope.cancel()

        async def observe() -> None:
            try:
                observed.append(await self._docker.observe())
            except CoreflowError as exc:
                errors["observed"] = exc

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_records)
            nursery.start_soon(observe)
        if errors:
            raise errors.get("records") or errors["observed"]
        self._known.learn(records[0])
        return records[0], self._known.observed(observed[0])

    async def run_pass(
        self, *, refresh: bool = False, retry_failed: bool = False
    ) -> tuple[Situation, Report]:
        """Look once, and apply what was planned."""
        situation = await self.look(refresh=refresh, retry_failed=retry_failed)
        if situation.plan.steps and trio.current_time() < self._deferring_until:
            await trio.sleep(self._jitter(*DEFERENCE_SECONDS))
            situation = await self.look(refresh=refresh, retry_failed=retry_failed)
        self._listener.planned(situation.plan)
        outcomes = await self._apply(situation.plan)
        return situation, Report(plan=situation.plan, outcomes=outcomes)

    async def settle(self, *, refresh: bool = False, retry_failed: bool = False) -> Settlement:
        """Passes until there is nothing to do, or nothing that can be done now."""
        if refresh:
            self.bindings.expire()
        reports: list[Report] = []
        overtaken: tuple[Step, ...] = ()
        for _ in range(PASS_LIMIT):
            situation, report = await self.run_pass(refresh=refresh, retry_failed=retry_failed)
            reports.append(report)
            if overtaken and not _still_wanted(overtaken, situation.plan):
                self._deferring_until = trio.current_time() + DEFERRING_SECONDS
            overtaken = tuple(o.step for o in report.outcomes if o.status == "overtaken")
            progress = report.applied or any(outcome.at_once for outcome in report.troubles)
            if not report.outcomes or not progress:
                break
            if overtaken:
                await trio.sleep(self._jitter(*OVERTAKEN_SECONDS))
        await self.bindings.report(situation)
        return Settlement(last=situation, reports=tuple(reports), verdicts=situation.verdicts)

    async def deploy(
        self, *, timeout: float, refresh: bool = False, retry_failed: bool = False
    ) -> Settlement:
        """Settle, wait until Swarm has done what it was told, and settle again, for at most `timeout` seconds.

        The deadline ends the waiting, never a write. What is not due before it is not waited for.
        """
        deadline = trio.current_time() + timeout
        reports: tuple[Report, ...] = ()
        while True:
            settlement = await self.settle(refresh=refresh, retry_failed=retry_failed)
            refresh = False
            reports += settlement.reports
            self._listener.progressed(settlement.verdicts)
            pending = settlement.pending
            left = deadline - trio.current_time()
            if not (pending or settlement.waits_for(left)) or left <= 0:
                break
            if pending:
                await self._wait(settlement.last, pending, deadline)
            else:
                await self._sleep(deadline, settlement.idle_seconds)
        return Settlement(last=settlement.last, reports=reports, verdicts=settlement.verdicts)

    async def _wait(self, situation: Situation, pending: frozenset[str], deadline: float) -> None:
        """Poll until every pending service is done or has failed, or the deadline has come."""
        names = sorted(situation.desired.services)
        while trio.current_time() < deadline:
            await self._sleep(deadline)
            try:
                services, tasks = self._known.seen(*await self._docker.progress())
            except Unavailable:
                continue
            now = self._docker.clock()
            self._history = self._history.after(services, tasks, now)
            verdicts = judge_all(names, services, tasks, situation.observed.nodes, self._settling(now))
            self._listener.progressed(verdicts)
            if all(verdicts[name].done or verdicts[name].failed for name in pending):
                return

    @staticmethod
    async def _sleep(deadline: float, seconds: float | None = None) -> None:
        """Until the next look; `seconds` is for how long nothing can be done, if that is known."""
        wanted = max(POLL_SECONDS, min(seconds or 0.0, LONGEST_SLEEP_SECONDS))
        await trio.sleep(min(wanted, max(deadline - trio.current_time(), 0)))

    # applying

    async def _apply(self, plan: Plan) -> tuple[Outcome, ...]:
        """Apply stage by stage; within a stage each unit in order, the units concurrently.

        The first step goes alone, and no further unit is begun once somebody else was faster: two that do the same would
        otherwise each write everything.
        """
        work = _Application()
        for batch in _batches(plan.steps):
            async with trio.open_nursery() as nursery:
                for steps in batch.values():
                    nursery.start_soon(partial(self._apply_unit, steps, work))
        return tuple(work.outcomes)

    async def _apply_unit(self, steps: list[Step], work: "_Application") -> None:
        """The steps of one unit. One that fails blocks the rest."""
        async with work.limiter:
            last: Outcome | None = None
            for step in steps:
                async with work.turn(step):
                    if last is None and work.is_overtaken:
                        return
                    last = _blocked(step, last, work.broken) or await self._apply_step(step)
                work.take(last)
                self._listener.applied(last)

    async def _apply_step(self, step: Step) -> Outcome:
        try:
            match step.action:
                case Create(ImageSpec() as spec, _):
                    await self._docker.load(spec, self._cloudly.archive(spec))
                case Provision(spec, _):
                    await self.bindings.provision(spec)
                case Deprovision(spec, _):
                    await self.bindings.deprovision(spec)
                case action:
                    await self._docker.apply(action)
        except LostRace as exc:
            return Outcome(step, "overtaken", str(exc), retry=True, at_once=True)
        except PortError as exc:
            is_final = isinstance(exc, Refused)
            if not is_final and isinstance(step.action, Update):
                self._note(step.action)  # it may have arrived
            return Outcome(step, "failed", str(exc), retry=not is_final)
        self._note(step.action)
        return Outcome(step, "applied")

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


@define
class _Application:
    """One plan while it is applied."""

    outcomes: list[Outcome] = Factory(list)
    broken: set[str] = Factory(set)
    """Networks that could not be created."""
    limiter: trio.CapacityLimiter = Factory(lambda: trio.CapacityLimiter(CONCURRENCY))
    is_overtaken: bool = False
    """Whether somebody else changed something first."""
    _leader: Step | None = None
    _led: trio.Event = Factory(trio.Event)

    @asynccontextmanager
    async def turn(self, step: Step) -> AsyncIterator[None]:
        """The first step goes alone, unless it takes long."""
        if self._leader is None:
            self._leader = step
            if kind_of(step.action) in _SLOW_KINDS:
                self._led.set()
        if self._leader is not step:
            await self._led.wait()
        try:
            yield
        finally:
            self._led.set()

    def take(self, outcome: Outcome) -> None:
        """One step has ended."""
        self.outcomes.append(outcome)
        self.is_overtaken = self.is_overtaken or outcome.status == "overtaken"
        subject = subject_of(outcome.step.action)
        if outcome.status != "applied" and isinstance(subject, NetworkSpec):
            self.broken.add(subject.name)


def _behind_images(records: Records) -> tuple[object, ...]:
    """The records that say which images there are. Unchanged ones are the same objects, whoever sent them again."""
    images, registries = records.images.values(), records.external_registries.values()
    return records.services, tuple(images), tuple(registries), records.cluster.registry_info


_SLOW_KINDS = frozenset({"image", "binding"})


def _still_wanted(steps: Iterable[Step], plan: Plan) -> bool:
    """Whether a plan still wants to do something about what these steps were about."""
    objects = {(kind_of(step.action), name_of(step.action)) for step in steps}
    return any((kind_of(action), name_of(action)) in objects for action in plan.actions)


def _blocked(step: Step, last: Outcome | None, broken: set[str]) -> Outcome | None:
    """What becomes of a step that cannot be carried out; `last` is how the one before it in its unit went."""
    if last is not None and last.status == "overtaken":
        return Outcome(step, "overtaken", last.detail, retry=True, at_once=True)
    if last is not None and last.status != "applied":
        return Outcome(step, "blocked", "an earlier step failed")
    subject = subject_of(step.action)
    if isinstance(subject, ServiceSpec) and not isinstance(step.action, Remove):
        missing = sorted({attachment.network for attachment in subject.body.networks} & broken)
        if missing:
            return Outcome(step, "blocked", f"network {missing[0]} could not be created")
    return None


def _batches(steps: Iterable[Step]) -> list[dict[str, list[Step]]]:
    """Steps by stage and unit; networks come before everything, since everything joins them."""
    networks: dict[str, list[Step]] = {}
    stages: dict[Stage, dict[str, list[Step]]] = {stage: {} for stage in Stage}
    for step in steps:
        if isinstance(subject_of(step.action), NetworkSpec):
            networks.setdefault(step.unit, []).append(step)
        else:
            stages[stage_of(step.action)].setdefault(step.unit, []).append(step)
    return [batch for batch in (networks, *stages.values()) if batch]
