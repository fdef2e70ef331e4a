"""Looking up images: each once per pass, and what failed not again at once.

A registry that limits the rate of requests is left alone as a whole, for a pause that grows; the engine does not pass on
what `Retry-After` says. Any other look-up that failed is repeated after a pause that grows, at once when records have
changed, and with a refresh. What the process remembers is lost with it, and is no more than manners.
"""

from collections.abc import Iterable

import trio
from attrs import frozen

from coreflow.domain.errors import PortError, RateLimited, Refused
from coreflow.domain.pacing import next_delay
from coreflow.domain.ports import DockerPort
from coreflow.domain.swarm.images import ImageProblem, ImageRequest, Resolution, registry_host

CONCURRENCY = 8
"""Look-ups at once; the engine's adapter may allow fewer."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 45.0
"""Seconds until a look-up that failed is repeated: the first pause, and what it grows to, below the time between two passes."""
FIRST_LIMITED_PAUSE, LONGEST_LIMITED_PAUSE = 60.0, 3600.0
"""The same for a registry that said 429."""


@frozen
class _Pause:
    """What is left alone until then, and why."""

    problem: ImageProblem
    seconds: float
    until: float


class LookUps:
    """The look-ups of one process."""

    def __init__(self, docker: DockerPort) -> None:
        self._docker = docker
        self._failed: dict[ImageRequest, _Pause] = {}
        self._limited: dict[str, _Pause] = {}
        self._about: object = None

    async def answers(
        self, requests: Iterable[ImageRequest], *, about: object = None, refresh: bool = False
    ) -> dict[ImageRequest, Resolution]:
        """An answer to each request; a failure is one, too. `about` is what they came from: what differs has changed."""
        requests = tuple(requests)
        eager, self._about = refresh or about != self._about, about
        self._failed = {request: self._failed[request] for request in requests if request in self._failed}
        answers: dict[ImageRequest, Resolution] = {}
        limiter = trio.CapacityLimiter(CONCURRENCY)

        async def one(request: ImageRequest) -> None:
            async with limiter:
                answers[request] = self._known(request, eager=eager) or await self._ask(request)

        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(one, request)
        return answers

    def _known(self, request: ImageRequest, *, eager: bool) -> ImageProblem | None:
        """Why it is not asked now."""
        now, failed = trio.current_time(), self._failed.get(request)
        if failed is not None and failed.until > now and not eager:
            return failed.problem
        limited = self._limited.get(registry_host(request.reference))
        if limited is not None and limited.until > now:
            return ImageProblem(f"image {request.reference}: {limited.problem.text}", unavailable=True)
        return None

    async def _ask(self, request: ImageRequest) -> Resolution:
        host = registry_host(request.reference)
        try:
            answer = await self._docker.resolve(request)
        except RateLimited as exc:
            seconds = self._limit(host)
            return ImageProblem(f"{exc}; asked again after {seconds:.0f} s", unavailable=True)
        except PortError as exc:
            problem = ImageProblem(str(exc), unavailable=not isinstance(exc, Refused))
            last = self._failed.get(request)
            seconds = next_delay(last.seconds if last else 0.0, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
            self._failed[request] = _Pause(problem, seconds, trio.current_time() + seconds)
            return problem
        self._failed.pop(request, None)
        self._limited.pop(host, None)
        return answer

    def _limit(self, host: str) -> float:
        """Leave a registry alone for some seconds; several answers at once count as one."""
        now, last = trio.current_time(), self._limited.get(host)
        if last is not None and last.until > now:
            return last.seconds
        seconds = next_delay(
            last.seconds if last else 0.0, first=FIRST_LIMITED_PAUSE, longest=LONGEST_LIMITED_PAUSE
        )
        text = f"{host}: rate limited (429); asked again after {seconds:.0f} s"
        self._limited[host] = _Pause(ImageProblem(text, unavailable=True), seconds, now + seconds)
        return seconds
