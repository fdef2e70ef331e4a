"""Fetching the records, beside passes: a slow control plane does not delay work with the engine."""

import trio

from coreflow.domain.errors import CoreflowError
from coreflow.domain.ports import ControlPlane
from coreflow.domain.records.models import Records
from coreflow.domain.status.connections import RECORDS

from .beside import Background, Job
from .heard import Heard, unheard

WAIT_SECONDS = 2.0
"""How long a pass waits for records that may have changed, before it goes on with the last ones."""


class Fetching:
    """The records, as of the last answer that has arrived."""

    def __init__(self, cloudly: ControlPlane, background: Background, heard: Heard = unheard) -> None:
        self._cloudly, self._background, self._heard = cloudly, background, heard
        self._known: Records | None = None
        self._job: Job[Records] | None = None
        self._is_due = False
        """Whether to ask again after what is under way."""

    async def records(self, *, fetch: bool) -> Records:
        """The records; with `fetch`, asked for anew, and waited for a moment. Raises what asking raised.

        An answer that arrives later is what the pass finds that it starts. The first one is waited for to its end.
        """
        if self._known is None or not self._background.is_open:
            if fetch or self._known is None:
                self._known, self._job = await self._ask(), None
            return self._known
        if self._job is not None and self._job.ended.is_set():
            self._known = self._taken(self._job)
        if self._job is not None:
            self._is_due = self._is_due or fetch  # what is under way may have begun before the change
        elif fetch or self._is_due:
            self._is_due = False
            self._job = self._background.start(self._ask)
        if fetch and self._job is not None:
            with trio.move_on_after(WAIT_SECONDS):
                await self._job.ended.wait()
            if self._job.ended.is_set():
                self._known = self._taken(self._job)
        if self._job is not None:
            self._job.is_late = True
        return self._known

    async def _ask(self) -> Records:
        try:
            records = await self._cloudly.records()
        except CoreflowError as exc:
            self._heard(RECORDS, "", exc)
            raise
        self._heard(RECORDS, "", None)
        return records

    def _taken(self, job: Job[Records]) -> Records:
        """The answer. Raises what asking raised, and has it asked again."""
        self._job = None
        try:
            return job.outcome() or self._last()
        except CoreflowError:
            self._is_due = True
            raise

    def _last(self) -> Records:
        assert self._known is not None  # noqa: S101 - the first answer is waited for
        return self._known
