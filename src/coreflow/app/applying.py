"""Carrying out a plan: stage by stage, units side by side, and what may take minutes beside the passes.

A step that fails blocks the rest of its unit and nothing else, and is tried again after a pause that grows, by whichever
pass comes then.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import Factory, define, evolve

from coreflow.domain.deploy.blocking import blocked, due_now, postponed
from coreflow.domain.deploy.order import batches
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.setbacks import NO_SETBACKS, Setbacks
from coreflow.domain.deploy.steps import Action, Plan, Step, kind_of, name_of, subject_of, verb_of
from coreflow.domain.errors import LostRace, PortError, PreconditionFailed, Refused
from coreflow.domain.platform.actions import Deprovision, Provision
from coreflow.domain.ports import ControlPlane, DockerPort
from coreflow.domain.swarm.actions import Create, Update
from coreflow.domain.swarm.specs import ImageSpec, NetworkSpec

from .beside import WAIT_SECONDS, Background, Jobs, UnderWay
from .bindings import Bindings
from .journaling import NO_RECORDER, Recorder

CONCURRENCY = 8
"""Units that are worked on at once; the engine serialises its writes anyway."""
LOADS = 3
"""Archives of images that are loaded at once."""
LEAD_SECONDS = 1.0
"""How long the others wait for the first step at most."""
UNDER_WAY = "goes on; the rest follows when it is done"


class Applier:
    """Carries out plans, and remembers what could not be done."""

    def __init__(
        self,
        cloudly: ControlPlane,
        docker: DockerPort,
        bindings: Bindings,
        background: Background,
        note: Callable[[Action], None],
        recorder: Recorder = NO_RECORDER,
    ) -> None:
        """`note` is told of everything that was, or may have been, written; `recorder` keeps the journal."""
        self._recorder = recorder
        self._cloudly, self._docker, self._bindings, self._note = cloudly, docker, bindings, note
        self._loads = Jobs(background, at_once=LOADS)
        self._provisions = Jobs(background, at_once=CONCURRENCY)
        self._setbacks: Setbacks = NO_SETBACKS
        self._going: frozenset[tuple[str, str]] = frozenset()
        """What goes on beside passes, by kind and name."""

    def try_again(self, *, refused: bool = True) -> None:
        """Try everything again that could not be done; without `refused`, only what failed since a peer was away."""
        self._setbacks = NO_SETBACKS if refused else self._setbacks.refusals()

    @property
    def due_in(self) -> float | None:
        """In how many seconds something is tried again that could not be done, if there is anything."""
        due = self._setbacks.next_due()
        return max(due - trio.current_time(), 0.0) if due is not None else None

    def news(self, plan: Plan) -> Plan:
        """The plan without the steps of units that have to wait for their next try."""
        return due_now(plan, self._setbacks, trio.current_time())

    async def apply(self, plan: Plan, tell: Callable[[Outcome], None]) -> tuple[Outcome, ...]:
        """Apply stage by stage; within a stage each unit in order, the units concurrently.

        The first step goes alone, and no further unit is begun once somebody else was faster: two that do the same would
        otherwise each write everything. `tell` gets every outcome of what was tried now.
        """
        self._setbacks = self._setbacks.only(plan.steps)
        work = _Application(tell=tell, until=trio.current_time() + WAIT_SECONDS)
        for batch in batches(plan.steps):
            async with trio.open_nursery() as nursery:
                for steps in batch.values():
                    nursery.start_soon(partial(self._apply_unit, steps, work))
        self._loads.forget()
        self._provisions.forget()
        return tuple(work.outcomes)

    async def _apply_unit(self, steps: list[Step], work: "_Application") -> None:
        """The steps of one unit. One that fails blocks the rest."""
        async with work.limiter:
            last: Outcome | None = None
            for step in steps:
                async with work.turn(step):
                    if last is None and work.is_overtaken:
                        return
                    untried = blocked(step, last, work.broken) or postponed(
                        step, self._setbacks, trio.current_time()
                    )
                    if untried is None:
                        last = await self._recorder.step(step.action, partial(self._tried, step, work))
                    else:
                        await self._recorder.blocked(untried)
                        last = untried
                work.take(last)

    async def _tried(self, step: Step, work: "_Application") -> Outcome:
        """Try a step, and remember how it went."""
        outcome = await self._apply_step(step, work)
        now = trio.current_time()
        self._setbacks = self._setbacks.after(outcome, now)
        subject = (kind_of(step.action), name_of(step.action))
        was_going = subject in self._going
        self._going = self._going - {subject}
        if outcome.status == "under way":
            self._going |= {subject}
            return evolve(outcome, is_news=not was_going)
        return evolve(outcome, again=self._setbacks.pause_of(step, now))

    async def _apply_step(self, step: Step, work: "_Application") -> Outcome:
        try:
            match step.action:
                case Create(ImageSpec() as spec, _):
                    load = partial(self._load, spec)
                    await self._beside(self._loads, step.action, load, work)
                case Provision(spec, _):
                    provision = partial(self._bindings.provision, spec)
                    await self._beside(self._provisions, step.action, provision, work)
                case Deprovision(spec, _):
                    deprovision = partial(self._bindings.deprovision, spec)
                    await self._beside(self._provisions, step.action, deprovision, work)
                case action:
                    await self._docker.apply(action)
        except UnderWay:
            return Outcome(step, "under way", UNDER_WAY)
        except LostRace as exc:
            return Outcome(step, "overtaken", str(exc), retry=True, at_once=True)
        except (PortError, PreconditionFailed) as exc:
            is_final = isinstance(exc, Refused | PreconditionFailed)
            if not is_final and isinstance(step.action, Update):
                self._note(step.action)  # it may have arrived
            return Outcome(step, "failed", str(exc), retry=not is_final)
        self._note(step.action)
        return Outcome(step, "applied")

    async def _load(self, spec: ImageSpec) -> None:
        await self._docker.load(spec, self._cloudly.archive(spec))

    @staticmethod
    async def _beside(
        jobs: Jobs, action: Action, call: Callable[[], Awaitable[None]], work: "_Application"
    ) -> None:
        what = (verb_of(action), subject_of(action))
        await jobs.do((kind_of(action), name_of(action)), what, call, work.until)


@define
class _Application:
    """One plan while it is applied."""

    tell: Callable[[Outcome], None]
    until: float
    """How long what goes on beside the pass is waited for."""
    outcomes: list[Outcome] = Factory(list)
    broken: dict[str, bool] = Factory(dict)
    """Networks that could not be created, and whether that is news."""
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
            with trio.move_on_after(LEAD_SECONDS):
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
            self.broken[subject.name] = outcome.is_news
        if outcome.is_news:
            self.tell(outcome)


_SLOW_KINDS = frozenset({"image", "binding"})
