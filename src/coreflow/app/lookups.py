"""Looking up images, beside passes: each once, and what failed not again at once.

A pass waits a moment for answers, and then goes on with those that have arrived: one that arrives later starts another pass.
Each registry has slots of its own, so that a slow one keeps no other from being asked. One that limits the rate of requests
is left alone as a whole, for a pause that grows; the engine does not pass on what `Retry-After` says. Any other look-up
that failed is repeated after a pause that grows, at once when records have changed, and with a refresh. What the process
remembers is lost with it, and is no more than manners.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import trio
from attrs import define, evolve, frozen

from coreflow.domain.errors import CoreflowError, PortError, RateLimited, Refused
from coreflow.domain.pacing import next_delay
from coreflow.domain.ports import DockerPort
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm.images import ImageProblem, ImageRequest, Resolution, ResolvedImage, registry_host

from .beside import WAIT_SECONDS, Background, Job

SLOTS = 8
"""Look-ups at once at one registry; the engine's adapter may allow fewer in all."""
LONGEST_WAIT_SECONDS = 130.0
"""How long whoever has no passes after this one waits for answers."""
FRESH_SECONDS = 30.0
"""How long an answer counts: the pass that it starts finds it."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 45.0
"""Seconds until a look-up that failed is repeated: the first pause, and what it grows to, below the time between two passes."""
FIRST_LIMITED_PAUSE, LONGEST_LIMITED_PAUSE = 60.0, 3600.0
"""The same for a registry that said 429."""


@frozen
class _Pause:
    """A pause: what is left alone until then, and why."""

    problem: ImageProblem
    seconds: float
    until: float


@frozen
class _Answer:
    """A registry's answer, and when it came."""

    image: ResolvedImage
    at: float


@define(eq=False)
class _UnderWay:
    """A question that is not answered yet."""

    job: Job[Resolution]
    since: float
    """By the engine's clock."""


class LookUps:
    """The look-ups of one process."""

    def __init__(self, docker: DockerPort, background: Background) -> None:
        self._docker, self._background = docker, background
        self._failed: dict[ImageRequest, _Pause] = {}
        self._limited: dict[_Client, _Pause] = {}
        self._answered: dict[ImageRequest, _Answer] = {}
        self._under_way: dict[ImageRequest, _UnderWay] = {}
        self._slots: dict[str, trio.CapacityLimiter] = {}
        self._about: object = None

    def forget(self) -> None:
        """Ask again for everything, also for what has failed a moment ago."""
        self._answered.clear()
        self._failed.clear()

    async def answers(
        self, requests: Iterable[ImageRequest], *, about: object = None, refresh: bool = False
    ) -> dict[ImageRequest, Resolution]:
        """An answer to each request; a failure is one, and so is that it is still waited for.

        `about` is what they came from: what differs has changed. With `refresh`, what is known already does not count.
        """
        requests = tuple(requests)
        eager, self._about = refresh or about != self._about, about
        self._forget_all_but(requests, refresh=refresh)
        if self._background.is_open:
            return await self._ask_all(requests, WAIT_SECONDS, eager=eager)
        async with self._background.open():
            return await self._ask_all(requests, LONGEST_WAIT_SECONDS, eager=eager)

    def _forget_all_but(self, requests: tuple[ImageRequest, ...], *, refresh: bool) -> None:
        self._failed = {request: self._failed[request] for request in requests if request in self._failed}
        oldest = trio.current_time() - FRESH_SECONDS
        self._answered = {
            request: answer
            for request, answer in self._answered.items()
            if answer.at >= oldest and not refresh
        }

    async def _ask_all(
        self, requests: tuple[ImageRequest, ...], seconds: float, *, eager: bool
    ) -> dict[ImageRequest, Resolution]:
        answers: dict[ImageRequest, Resolution] = {}
        asked: dict[ImageRequest, _UnderWay] = {}
        for request in requests:
            known = None if request in self._under_way else self._known(request, eager=eager)
            if known is not None:
                answers[request] = known
            else:
                asked[request] = self._under_way.get(request) or self._begin(request)
        with trio.move_on_after(seconds):
            for question in asked.values():
                await question.job.ended.wait()
        for request, question in asked.items():
            answers[request] = self._heard(request, question)
        return answers

    def _heard(self, request: ImageRequest, question: _UnderWay) -> Resolution:
        """Return what came of a question so far."""
        try:
            return question.job.outcome() or self._waiting(request, question)
        except CoreflowError as exc:
            return ImageProblem(f"image {request.reference}: {exc}", unavailable=True)

    def _waiting(self, request: ImageRequest, question: _UnderWay) -> ImageProblem:
        """That there is no answer yet. What went wrong the last time says more."""
        question.job.is_late = True
        last = self._failed.get(request)
        if last is not None:
            return evolve(last.problem, awaited=True)
        since = datetime.fromtimestamp(question.since, UTC)
        text = f"image {request.reference}: waiting for {registry_host(request.reference)} since {since:%H:%M:%S} UTC"
        return ImageProblem(text, unavailable=True, awaited=True)

    def _known(self, request: ImageRequest, *, eager: bool) -> Resolution | None:
        """Return what is known without asking, or why it is not asked now."""
        answer = self._answered.get(request)
        if answer is not None:
            return answer.image
        failed = self._failed.get(request)
        if failed is not None and failed.until > trio.current_time() and not eager:
            return failed.problem
        return self._limit_of(request)

    def _limit_of(self, request: ImageRequest) -> ImageProblem | None:
        """Return whether its registry is left alone as a whole."""
        limited = self._limited.get(_client(request))
        if limited is not None and limited.until > trio.current_time():
            return ImageProblem(f"image {request.reference}: {limited.problem.text}", unavailable=True)
        return None

    def _begin(self, request: ImageRequest) -> _UnderWay:
        job = self._background.start(lambda: self._look_up(request))
        question = self._under_way[request] = _UnderWay(job, self._docker.clock())
        return question

    async def _look_up(self, request: ImageRequest) -> Resolution:
        slots = self._slots.setdefault(registry_host(request.reference), trio.CapacityLimiter(SLOTS))
        try:
            async with slots:
                return self._limit_of(request) or await self._ask(request)
        finally:
            del self._under_way[request]

    async def _ask(self, request: ImageRequest) -> Resolution:
        client = _client(request)
        try:
            answer = await self._docker.resolve(request)
        except RateLimited as exc:
            seconds = self._limit(client)
            return ImageProblem(f"{exc}; asked again after {seconds:.0f} s", unavailable=True)
        except PortError as exc:
            problem = ImageProblem(str(exc), unavailable=not isinstance(exc, Refused))
            last = self._failed.get(request)
            seconds = next_delay(last.seconds if last else 0.0, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
            self._failed[request] = _Pause(problem, seconds, trio.current_time() + seconds)
            return problem
        self._failed.pop(request, None)
        self._limited.pop(client, None)
        self._answered[request] = _Answer(answer, trio.current_time())
        return answer

    def _limit(self, client: "_Client") -> float:
        """Leave a registry alone for some seconds; several answers at once count as one."""
        now, last = trio.current_time(), self._limited.get(client)
        if last is not None and last.until > now:
            return last.seconds
        seconds = next_delay(
            last.seconds if last else 0.0, first=FIRST_LIMITED_PAUSE, longest=LONGEST_LIMITED_PAUSE
        )
        text = f"{client[0]}: rate limited (429); asked again after {seconds:.0f} s"
        self._limited[client] = _Pause(ImageProblem(text, unavailable=True), seconds, now + seconds)
        return seconds


_Client = tuple[str, RegistryLogin | None]
"""A registry, and as whom it is asked: registries count by that, and a login is what people add against a limit."""


def _client(request: ImageRequest) -> _Client:
    return registry_host(request.reference), request.login
