"""Carrying out that a cluster is taken down: its services, then its secrets and networks, and the end of its containers."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import trio
from attrs import Factory, define, frozen

from coreflow.domain.deploy.steps import kind_of, name_of
from coreflow.domain.deploy.teardown import Teardown, is_on_base_network, lingering, plan_teardown
from coreflow.domain.errors import PortError
from coreflow.domain.ports import DockerPort
from coreflow.domain.swarm.actions import Remove
from coreflow.domain.swarm.observed import ObservedTask

from .journaling import NO_RECORDER, Recorder

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


async def tear_down(
    docker: DockerPort, plan: Teardown, tell: Tell, *, timeout: float, recorder: Recorder = NO_RECORDER
) -> TearDown:
    """Remove what the plan says, wait until its containers have ended, and look again. Each wait ends after `timeout`.

    A stack that was removed a moment ago may still have a coreflow that ends, and that would make again what it sees go:
    its end comes first.
    """
    work = TearDown()
    await _ended(docker, is_on_base_network, timeout)
    services: set[str] = set()

    def is_ours(task: ObservedTask) -> bool:
        return task.service_id in services

    for _ in range(ROUNDS):
        services |= {removal.target.id for removal in plan.services}
        for removals in (plan.services, plan.rest):
            await _remove_all(partial(_remove, docker, recorder), removals, work, tell)
        work.is_over = await _ended(docker, is_ours, timeout)
        work.last = plan = plan_teardown(await docker.observe(), plan.cluster)
        if not plan.removals:
            break
    return work


async def _remove(docker: DockerPort, recorder: Recorder, removal: Remove) -> None:
    await recorder.act(removal, partial(docker.apply, removal))


async def _remove_all(
    remove: Callable[[Remove], Awaitable[None]], removals: Iterable[Remove], work: TearDown, tell: Tell
) -> None:
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def one(removal: Remove) -> None:
        async with limiter:
            problem = ""
            try:
                await remove(removal)
            except PortError as exc:
                problem = str(exc)
            outcome = Removed(kind_of(removal), name_of(removal), problem)
            work.removed.append(outcome)
            tell(outcome)

    async with trio.open_nursery() as nursery:
        for removal in removals:
            nursery.start_soon(one, removal)


async def _ended(docker: DockerPort, is_meant: Callable[[ObservedTask], bool], timeout: float) -> bool:
    """Wait until no such task of a service that is gone is left; tell if that was in time."""
    with trio.move_on_after(timeout):
        while any(map(is_meant, lingering(*await docker.progress()))):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(POLL_SECONDS)
        return True
    return False
