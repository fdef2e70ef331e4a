"""Jobs beside passes, for what takes long: each waits for it a moment at most, and its end starts another."""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio
from attrs import define, field

from coreflow.domain.errors import CoreflowError, Unavailable

from .lazy_log import LazyLog
from .supervise import described

log = LazyLog()
T = TypeVar("T")

WAIT_SECONDS = 0.3
"""How long a pass waits: what is quick needs no second pass."""


def _nobody() -> None:
    pass


@define(eq=False)
class Job(Generic[T]):
    """Something that goes on beside passes, and what came of it."""

    result: T | None = None
    failure: CoreflowError | None = None
    ended: trio.Event = field(factory=trio.Event)
    is_late: bool = False
    """Whether a pass has stopped waiting for it."""

    def outcome(self) -> T | None:
        """Return what it returned; raises what it raised."""
        if self.failure is not None:
            raise self.failure
        return self.result


class Background:
    """A nursery that outlives passes, for as long as somebody has it open."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._on_news: Callable[[], object] = _nobody
        self.news = trio.Event()
        """Set when something has ended that a pass no longer waited for."""

    @property
    def is_open(self) -> bool:
        """Return whether anything can go on beside passes."""
        return self._nursery is not None

    @asynccontextmanager
    async def open(self, on_news: Callable[[], object] = _nobody) -> AsyncIterator[None]:
        """Open it, unless it is open already; what goes on when the block ends is cancelled.

        `on_news` is called when something has ended that a pass no longer waited for.
        """
        if self._nursery is not None:
            yield
            return
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            self._nursery, self._on_news = nursery, on_news
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - raised again without a group around it
                failure = exc
            finally:
                self._nursery, self._on_news = None, _nobody
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def start(self, call: Callable[[], Awaitable[T]]) -> Job[T]:
        """Begin something. It has to be open."""
        assert self._nursery is not None  # noqa: S101 - see is_open
        job: Job[T] = Job()
        self._nursery.start_soon(self._run, call, job)
        return job

    async def _run(self, call: Callable[[], Awaitable[T]], job: Job[T]) -> None:
        try:
            job.result = await call()
        except CoreflowError as exc:
            job.failure = exc
        except Exception as exc:  # noqa: BLE001 - a bug here must not end what goes on beside it
            kinds, where = described(exc)
            log.error("unexpected error", error=kinds, traceback=where)  # noqa: TRY400 - its text could quote a value
            job.failure = Unavailable(f"unexpected error ({kinds})")
        finally:
            job.ended.set()
            if job.is_late:
                news, self.news = self.news, trio.Event()
                news.set()
                self._on_news()


class UnderWay(Exception):
    """It has begun, and goes on beside the pass."""


@define(eq=False)
class _Slot:
    what: Hashable
    job: Job[None]


class Jobs:
    """Things to be done that may take minutes, one for each subject at a time."""

    def __init__(self, background: Background, *, at_once: int) -> None:
        """No more than `at_once` are worked on; others wait for their turn, and hold up nobody."""
        self._background = background
        self._limiter = trio.CapacityLimiter(at_once)
        self._slots: dict[Hashable, _Slot] = {}

    async def do(
        self, subject: Hashable, what: Hashable, call: Callable[[], Awaitable[None]], until: float
    ) -> None:
        """Do `what` to a subject, or go on with it; raises what it raised, or UnderWay when it is not done `until` then.

        What goes on for this subject and is something else is waited for first. Where nothing goes on beside passes, it
        is waited for to its end.
        """
        if not self._background.is_open:
            self._slots.clear()
            await call()
            return
        slot = self._slots.get(subject)
        if slot is None or (slot.what != what and slot.job.ended.is_set()):
            slot = self._slots[subject] = _Slot(what, self._background.start(lambda: self._in_turn(call)))
        with trio.move_on_at(until):
            await slot.job.ended.wait()
        if slot.what != what or not slot.job.ended.is_set():
            slot.job.is_late = True
            raise UnderWay
        del self._slots[subject]
        slot.job.outcome()

    async def _in_turn(self, call: Callable[[], Awaitable[None]]) -> None:
        async with self._limiter:
            await call()

    def forget(self) -> None:
        """Forget what has ended and was not asked for again: it says nothing about later."""
        self._slots = {key: slot for key, slot in self._slots.items() if not slot.job.ended.is_set()}
