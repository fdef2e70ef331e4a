"""Calls: counted, and gone wrong on request."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from coreflow.adapters.engine.protocol import Document, EngineError, EngineTimeout, EngineUnreachable

from .conditions import Conditions, Fault
from .world import World

T = TypeVar("T")

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used."
    ' Please use "docker swarm unlock" to unlock it.'
)
"""What an engine with autolock says from its restart until it is unlocked (measured on 20.10)."""
CALL_SECONDS = 60.0
"""How long callers wait for an answer."""


class Calls:
    """The way in: every call passes here."""

    def __init__(self, conditions: Conditions, world: World) -> None:
        self._conditions, self._world = conditions, world
        self.crashed = False
        """Whether it answers nothing, until `revive`."""
        self._paused: trio.Event | None = None
        self._last_lists: dict[str, Sequence[Document]] = {}

    def revive(self) -> None:
        """Answer again after a crash, or after the daemon panicked."""
        self.crashed, self._world.halted, self._conditions.crash_after = False, False, None

    def pause(self) -> None:
        """Take requests and answer none, as a process that is stopped does, until `go_on`. Streams stay open."""
        self._paused = trio.Event()

    def go_on(self) -> None:
        """Answer whoever is still waiting."""
        if self._paused is not None:
            self._paused.set()
            self._paused = None

    async def _wait_while_paused(self) -> None:
        if self._paused is not None:
            with trio.move_on_after(CALL_SECONDS) as waiting:
                await self._paused.wait()
            if waiting.cancelled_caught:
                raise EngineTimeout("timed out")

    async def call(
        self, method: str, answer: Callable[[], T], *, write: bool = False, seconds: float = 0.0
    ) -> T:
        """One call: faults first, then what takes so many seconds, then what is due, then the answer."""
        await trio.lowlevel.checkpoint()
        await self._wait_while_paused()
        if self._is_down():
            raise EngineUnreachable("connection refused")
        self._conditions.calls.append((method, write))
        fault = self._fault(method)
        if fault is not None:
            await trio.sleep(fault.seconds)
        if fault is not None and fault.when == "before":
            raise fault.error
        if seconds:
            await trio.sleep(seconds)
        self._world.catch_up()
        if self._is_down():
            raise EngineUnreachable("connection reset")
        if method not in {"version", "info"}:
            self._check_manager()
        result = answer()
        if write and self._conditions.crash_after is not None:
            self._conditions.crash_after -= 1
            if self._conditions.crash_after <= 0:
                self.crashed = True
                raise EngineUnreachable("connection reset")
        if fault is not None:
            raise fault.error
        return result

    def _is_down(self) -> bool:
        return self.crashed or self._world.halted

    def _check_manager(self) -> None:
        """Refuse as an engine does that manages no Swarm: only of a lock and of a worker does its text tell."""
        state = self._conditions.swarm_state
        if state == "locked":
            raise EngineError(503, LOCKED)
        if state != "active":
            how = (
                'Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
            )
            raise EngineError(503, f"This node is not a swarm manager. {how}")
        if not self._conditions.is_manager:
            how = "Please run this command on a manager node or promote the current node to a manager."
            text = f"Worker nodes can't be used to view or modify cluster state. {how}"
            raise EngineError(503, f"This node is not a swarm manager. {text}")

    def _fault(self, method: str) -> Fault | None:
        for fault in self._conditions.faults:
            if fault.method in {"", method}:
                self._conditions.faults.remove(fault)
                return fault
        return None

    async def listed(self, method: str, documents: Callable[[], Sequence[Document]]) -> Sequence[Document]:
        """One call of a list, which may be stale."""

        def answer() -> Sequence[Document]:
            if self._conditions.stale[method] > 0 and method in self._last_lists:
                self._conditions.stale[method] -= 1
                return copy.deepcopy(self._last_lists[method])
            found = copy.deepcopy(list(documents()))
            self._last_lists[method] = copy.deepcopy(found)
            return found

        return await self.call(method, answer)
