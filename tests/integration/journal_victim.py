"""A process that acts on a Swarm in memory and keeps a journal, until somebody kills it: `python journal_victim.py FOLDER LOG RUN LIMIT`.

The log has a line for everything that the engine has done, written before anybody learns of it, and one for every outcome
that a listener was told. Such a line is one write to a file, so a kill loses none.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from tests.unit.app.worlds import GOOD, NEWER, NO_BASE, cluster, new_engine, service

from coreflow.adapters.journal import Limits, open_sqlite_journal
from coreflow.adapters.memory import MemoryCloudly, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.journaling import Recorder
from coreflow.app.reconcile import NullListener, Reconciler
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.steps import PlanOptions, kind_of, name_of, verb_of

AT_ONCE = 5
"""Services that are made, changed and removed together."""


class Log:
    """Lines that outlive us."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: str) -> None:
        """One line."""
        os.write(self._descriptor, (" ".join(words) + "\n").encode())


class Watched:
    """An engine whose writes are logged as soon as it has done them."""

    def __init__(self, engine: MemoryEngine, log: Log) -> None:
        self._engine, self._log = engine, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def create_service(self, spec: Mapping[str, Any], *rest: Any) -> str:
        """Make a service."""
        made = await self._engine.create_service(spec, *rest)
        self._log.write("done", "create", spec["Name"])
        return made

    async def update_service(self, identity: str, version: int, spec: Mapping[str, Any], *rest: Any) -> None:
        """Change one."""
        await self._engine.update_service(identity, version, spec, *rest)
        self._log.write("done", "update", spec["Name"])

    async def remove_service(self, identity: str) -> None:
        """Remove one."""
        name = (await self._engine.inspect_service(identity))["Spec"]["Name"]
        await self._engine.remove_service(identity)
        self._log.write("done", "remove", name)


class Told(NullListener):
    """A listener that logs the outcomes of services."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def applied(self, outcome: Outcome) -> None:
        """One action ended."""
        action = outcome.step.action
        if kind_of(action) == "service":
            self._log.write("told", verb_of(action), name_of(action), outcome.status)


async def act(folder: Path, log: Log, run: str, limit: int) -> None:
    """Make, change and remove services, on and on."""
    engine, cloudly = new_engine(), MemoryCloudly(cluster())
    async with open_sqlite_journal(folder, Limits(bytes=limit), time.time) as journal:  # noqa: TID251 - a process of its own
        reconciler = Reconciler(
            cloudly,
            SwarmPort(Watched(engine, log)),
            render=NO_BASE,
            plan=PlanOptions(),
            listener=Told(log),
            recorder=Recorder(journal, time.time, asked=("file",)),  # noqa: TID251
        )
        log.write("ready")
        keeper = service("keeper")
        for number in range(1_000_000):
            names = [f"s{run}-{number}-{index}" for index in range(AT_ONCE)]
            for image in (GOOD, NEWER):
                cloudly.set(cluster(keeper, *(service(name, image) for name in names)))
                await reconciler.reconcile()
                engine.settle()
            for kept in range(AT_ONCE - 1, -1, -3):  # more at once would want a confirmation
                cloudly.set(cluster(keeper, *(service(name, NEWER) for name in names[:kept])))
                await reconciler.reconcile()


if __name__ == "__main__":
    trio.run(act, Path(sys.argv[1]), Log(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
