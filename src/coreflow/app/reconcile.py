"""One pass, and passes until nothing is left to do.

A pass reads everything, plans, applies, and reports. What one pass cannot do (a roll-out that has not ended, a lost
race, a secret that is still in use) a later one will: nothing waits inside a pass.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Protocol

import trio
from attrs import Factory, frozen

from coreflow.domain.convergence import Verdict, judge_all
from coreflow.domain.desired import Renderer, RenderOptions, unit_of
from coreflow.domain.errors import CoreflowError, LostRace, PortError, Refused, Unavailable
from coreflow.domain.ids import Owner
from coreflow.domain.images import ImageProblem, ImageRequest, Resolution
from coreflow.domain.observed import Observed
from coreflow.domain.plan import (
    Create,
    Deprovision,
    Plan,
    PlanOptions,
    Provision,
    Remove,
    Step,
    make_plan,
    stage_of,
    subject_of,
)
from coreflow.domain.ports import CloudlyPort, DockerPort
from coreflow.domain.records import Records
from coreflow.domain.report import Outcome, Report
from coreflow.domain.specs import ImageSpec, NetworkSpec, ServiceSpec, Stage
from coreflow.quiet import LARGE_CLUSTER, quiet

from .bindings import Bindings
from .corestores import Corestores
from .situation import Situation

PASS_LIMIT = 12
"""Passes in a row before a settling gives up: more means that something changes as fast as we put it right."""
CONCURRENCY = 8
"""Units that are worked on at once; the engine serialises its writes anyway."""
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
        """What could not be done, as of the last pass that tried anything."""
        return next((report.troubles for report in reversed(self.reports) if report.outcomes), ())

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
        retry = any(outcome.retry for report in self.reports[-1:] for outcome in report.troubles)
        return bool(self.last.plan.waits) or retry

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
    ) -> None:
        self._cloudly, self._docker = cloudly, docker
        self.bindings = Bindings(corestores, cloudly)
        self.restoring: set[Owner] = set()
        """Services that somebody in this process is about to restore."""
        self._renderer = Renderer(render or RenderOptions())
        self._options = plan or PlanOptions()
        self._listener = listener or Quiet()

    async def look(self, *, refresh: bool = False) -> Situation:
        """Observe, render and plan; nothing is written.

        With `refresh`, every image reference is looked up again, so that a tag that moved is noticed. Raises
        InvalidRecord when the records as a whole cannot be used, and Unavailable when a far side is away.
        """
        records, observed = await self._fetch()
        with quiet(enabled=len(records.services) >= LARGE_CLUSTER):
            requests = self._renderer.image_requests(records, observed, refresh=refresh)
        images = await self._resolve(requests)
        with quiet(enabled=len(records.services) >= LARGE_CLUSTER):
            bound = self.bindings.look(records, observed)
            desired = self._renderer.render(records, observed, images, bound, refresh=refresh)
            plan = make_plan(desired, observed, self._options, restoring=self.restoring)
        return Situation(records=records, observed=observed, desired=desired, plan=plan)

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
        return records[0], observed[0]

    async def _resolve(self, requests: Iterable[ImageRequest]) -> dict[ImageRequest, Resolution]:
        """Look up image references, each once; a failure is an answer too."""
        limiter = trio.CapacityLimiter(CONCURRENCY)
        answers: dict[ImageRequest, Resolution] = {}

        async def one(request: ImageRequest) -> None:
            async with limiter:
                try:
                    answers[request] = await self._docker.resolve(request)
                except PortError as exc:
                    answers[request] = ImageProblem(str(exc), unavailable=not isinstance(exc, Refused))

        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(one, request)
        return answers

    async def run_pass(self, *, refresh: bool = False) -> tuple[Situation, Report]:
        """Look once, and apply what was planned."""
        situation = await self.look(refresh=refresh)
        self._listener.planned(situation.plan)
        outcomes = await self._apply(situation.plan)
        return situation, Report(plan=situation.plan, outcomes=outcomes)

    async def settle(self, *, refresh: bool = False) -> Settlement:
        """Passes until there is nothing to do, or nothing that can be done now."""
        if refresh:
            self.bindings.expire()
        reports: list[Report] = []
        for _ in range(PASS_LIMIT):
            situation, report = await self.run_pass(refresh=refresh)
            reports.append(report)
            progress = report.applied or any(outcome.at_once for outcome in report.troubles)
            if not report.outcomes or not progress:
                break
        await self.bindings.report(situation)
        return Settlement(last=situation, reports=tuple(reports), verdicts=situation.verdicts)

    async def deploy(self, *, timeout: float, refresh: bool = False) -> Settlement:
        """Settle, wait until Swarm has done what it was told, and settle again, for at most `timeout` seconds.

        The deadline ends the waiting, never a write.
        """
        deadline = trio.current_time() + timeout
        reports: tuple[Report, ...] = ()
        while True:
            settlement = await self.settle(refresh=refresh)
            refresh = False
            reports += settlement.reports
            self._listener.progressed(settlement.verdicts)
            pending = settlement.pending
            if not (pending or settlement.is_waiting) or trio.current_time() >= deadline:
                break
            if pending:
                await self._wait(settlement.last, pending, deadline)
            else:
                await self._sleep(deadline)
        return Settlement(last=settlement.last, reports=reports, verdicts=settlement.verdicts)

    async def _wait(self, situation: Situation, pending: frozenset[str], deadline: float) -> None:
        """Poll until every pending service is done or has failed, or the deadline has come."""
        names = sorted(situation.desired.services)
        while trio.current_time() < deadline:
            await self._sleep(deadline)
            try:
                services, tasks = await self._docker.progress()
            except Unavailable:
                continue
            verdicts = judge_all(names, services, tasks, situation.observed.nodes)
            self._listener.progressed(verdicts)
            if all(verdicts[name].done or verdicts[name].failed for name in pending):
                return

    @staticmethod
    async def _sleep(deadline: float) -> None:
        await trio.sleep(min(POLL_SECONDS, max(deadline - trio.current_time(), 0)))

    # applying

    async def _apply(self, plan: Plan) -> tuple[Outcome, ...]:
        """Apply stage by stage; within a stage each unit in order, the units concurrently."""
        broken: set[str] = set()
        outcomes: list[Outcome] = []
        limiter = trio.CapacityLimiter(CONCURRENCY)
        for batch in _batches(plan.steps):
            async with trio.open_nursery() as nursery:
                for steps in batch.values():
                    nursery.start_soon(partial(self._apply_unit, steps, limiter, broken, outcomes))
        return tuple(outcomes)

    async def _apply_unit(
        self, steps: list[Step], limiter: trio.CapacityLimiter, broken: set[str], outcomes: list[Outcome]
    ) -> None:
        """The steps of one unit. One that fails blocks the rest."""
        async with limiter:
            failed = False
            for step in steps:
                outcome = _blocked(step, failed=failed, broken=broken) or await self._apply_step(step)
                if outcome.status != "applied":
                    failed = True
                    subject = subject_of(step.action)
                    if isinstance(subject, NetworkSpec):
                        broken.add(subject.name)
                outcomes.append(outcome)
                self._listener.applied(outcome)

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
        except PortError as exc:
            lost = isinstance(exc, LostRace)
            return Outcome(step, "failed", str(exc), retry=not isinstance(exc, Refused), at_once=lost)
        return Outcome(step, "applied")


def _blocked(step: Step, *, failed: bool, broken: set[str]) -> Outcome | None:
    if failed:
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
