"""Carrying out that a cluster is taken down: its services, then its secrets and networks, then the end of its containers."""

import itertools
from collections.abc import Callable, Iterable

import trio
from attrs import Factory, define, frozen

from coreflow.domain.deploy.steps import kind_of, name_of
from coreflow.domain.deploy.teardown import Teardown, plan_teardown
from coreflow.domain.errors import PortError
from coreflow.domain.ports import DockerPort
from coreflow.domain.swarm.actions import Remove

AT_ONCE = 8
"""Removals at once; the engine serialises its writes anyway."""
ROUNDS = 3
"""How often is looked again whether something is left: whoever makes it anew makes it a fourth time, too."""
POLL_SECONDS = 0.5


@frozen
class Removed:
    """One object and what became of it. Without a problem, it is gone."""

    kind: str
    name: str
    problem: str = ""


Tell = Callable[[Removed], None]


@define
class TearDown:
    """Everything that was tried."""

    removed: list[Removed] = Factory(list)
    last: Teardown | None = None
    """What a last look showed."""
    is_over: bool = True
    """Whether all containers have ended."""

    @property
    def is_done(self) -> bool:
        """Tell if nothing is left but what was said before."""
        last = self.last
        return self.is_over and last is not None and not (last.removals or last.restoring)


async def tear_down(docker: DockerPort, plan: Teardown, tell: Tell, *, timeout: float) -> TearDown:
    """Remove what the plan says, look again, and wait until the last container has ended, `timeout` seconds at most."""
    work = TearDown()
    services: set[str] = set()
    for number in itertools.count(1):
        services |= {removal.target.id for removal in plan.services}
        for removals in (plan.services, plan.rest):
            await _remove_all(docker, removals, work, tell)
        work.last = plan = plan_teardown(await docker.observe(), plan.cluster)
        if not plan.removals or number == ROUNDS:
            break
    with trio.move_on_after(timeout):
        await _ended(docker, services)
        return work
    work.is_over = False
    return work


async def _remove_all(docker: DockerPort, removals: Iterable[Remove], work: TearDown, tell: Tell) -> None:
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def one(removal: Remove) -> None:
        async with limiter:
            problem = ""
            try:
                await docker.apply(removal)
            except PortError as exc:
                problem = str(exc)
            outcome = Removed(kind_of(removal), name_of(removal), problem)
            work.removed.append(outcome)
            tell(outcome)

    async with trio.open_nursery() as nursery:
        for removal in removals:
            nursery.start_soon(one, removal)


async def _ended(docker: DockerPort, services: set[str]) -> None:
    """Until no task of these services is left."""
    while services:
        _, tasks = await docker.progress()
        if services.isdisjoint(task.service_id for task in tasks):
            return
        await trio.sleep(POLL_SECONDS)
