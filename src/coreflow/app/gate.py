"""Asks the engine who coretraffic is, for the decision who may be: see `domain/routing/admission.py`."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import structlog
import trio

from coreflow.domain.errors import PortError
from coreflow.domain.pacing import Thinning
from coreflow.domain.ports import DockerPort
from coreflow.domain.routing.admission import (
    NO_PROXIES,
    Admission,
    Network,
    ProxyTasks,
    admit,
    may_have,
    proxy_tasks,
)

log = structlog.get_logger()

LOOK_AGAIN_SECONDS = 1.0
"""Anybody can connect, as often as they like: the engine is not asked more often than this because of it."""


class Gate:
    """Admits connections. `peers` are the networks that the operator trusts, or the word for coretraffic's tasks."""

    def __init__(self, peers: Literal["tasks"] | Iterable[Network]) -> None:
        self._networks = None if peers == "tasks" else tuple(peers)
        self.docker: DockerPort | None = None
        self._lock = trio.Lock()
        self._tasks = NO_PROXIES
        self._cluster: str | None = None
        self._knows_cluster = trio.Event()
        self._looks, self._looked_at = 0, -math.inf
        self._thinning = Thinning()

    async def admit(self, host: str) -> Callable[[str], bool]:
        """The tags that a connection from this address may have: any but that of coretraffic, or any."""
        trusted = self._networks if self._networks is not None else await self._recent(host)
        admission = admit(host, trusted, self._cluster)
        if admission is Admission.OPEN:
            await self._knows_cluster.wait()  # until then there are no routes to send
            admission = admit(host, trusted, self._cluster)
        return partial(may_have, admission)

    def learn(self, cluster: str) -> None:
        """This cluster is ours, by the records."""
        self._cluster = cluster
        self._knows_cluster.set()

    async def _recent(self, host: str) -> ProxyTasks:
        """The tasks of coretraffic, as of a look that began after this connection came."""
        before = self._looks
        async with self._lock:
            if self._looks == before:  # else whoever came at the same time has looked already
                await trio.sleep_until(self._looked_at + LOOK_AGAIN_SECONDS)
                self._looks, self._looked_at = self._looks + 1, trio.current_time()
                try:
                    self._tasks = await self._look()
                except PortError as exc:
                    if times := self._thinning.times(str(exc), trio.current_time()):
                        log.warning(
                            "cannot tell whether a connection is coretraffic's",
                            peer=host,
                            reason=str(exc),
                            times=times,
                        )
                    self._tasks = NO_PROXIES
            return self._tasks

    async def _look(self) -> ProxyTasks:
        if self.docker is None:
            return NO_PROXIES
        return proxy_tasks(*await self.docker.progress())
