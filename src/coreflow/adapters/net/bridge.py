"""Trio as a guest of asyncio: the entry point of a process, and two bridges between the loops.

aiohttp needs asyncio, everything else here is trio. So trio runs as a guest: `run` starts a stock asyncio loop, and
trio's scheduler takes its turns in it. Both live in one thread, neither is patched, and what either does can be read
by the other without a lock.

Two bridges carry calls across, and each keeps the promise of the side it comes from:

- `in_asyncio` runs a coroutine for a trio task. Cancelling the trio task cancels the coroutine and waits for its end.
- `in_trio` runs an async function for an asyncio task, as a child of a given nursery. It never outlives its caller.

A crossing costs some 60 microseconds. One per message is fine; a loop over many chunks belongs in one coroutine, of
which only the result crosses. Work that computes for more than 50 ms belongs in a thread: meanwhile nobody answers
pings.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio

from .errors import Interrupted, NotHosted

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(
    main: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """Run `main` under trio, as `trio.run` does, with an asyncio loop around it. The entry point of the process.

    In tests: `pytest.mark.trio(run=run)`. A clock that jumps sees a task that waits for asyncio as idle.
    """
    return asyncio.run(_host(partial(main, *args), clock, instruments))


async def _host(
    main: Callable[[], Awaitable[T]], clock: trio.abc.Clock | None, instruments: Sequence[trio.abc.Instrument]
) -> T:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[outcome.Outcome[T | None]] = loop.create_future()
    scope = trio.CancelScope()

    async def guest() -> T | None:
        with scope:
            return await main()
        return None

    trio.lowlevel.start_guest_run(
        guest,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        run_sync_soon_not_threadsafe=loop.call_soon,
        done_callback=ended.set_result,
        # asyncio does not, unless asked for signals: without trio's, a signal that another thread took would wait.
        host_uses_signal_set_wakeup_fd=False,
        clock=clock,
        instruments=list(instruments),
    )
    while not ended.done():  # whatever happens to asyncio: trio must run to its end
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError:  # Ctrl-C, unless somebody else took the signal
            scope.cancel()
    result = ended.result().unwrap()
    if scope.cancelled_caught:
        raise asyncio.CancelledError
    return result  # type: ignore[return-value]  # None only when the scope caught


def is_hosted() -> bool:
    """Return whether there is an asyncio loop around the present trio, so that this module works."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def in_asyncio(job: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """For a trio task: run `job` as an asyncio task and wait for it. Results and exceptions cross.

    Raises Interrupted when the asyncio side cancels it on its own.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise NotHosted("the process must be started with coreflow.adapters.net.run") from None
    waiting = trio.lowlevel.current_task()
    task: asyncio.Task[T] = loop.create_task(job(*args))
    raise_cancelled: Callable[[], Any] | None = None

    def wake(done: asyncio.Task[T]) -> None:
        trio.lowlevel.reschedule(waiting, outcome.capture(done.result))

    def abort(raiser: Callable[[], Any]) -> trio.lowlevel.Abort:
        nonlocal raise_cancelled
        raise_cancelled = raiser
        task.cancel()
        return trio.lowlevel.Abort.FAILED  # `wake` follows once the task has ended

    task.add_done_callback(wake)
    try:
        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
    except asyncio.CancelledError as exc:
        if raise_cancelled is not None:
            raise_cancelled()
        raise Interrupted("an asyncio task was cancelled from within") from exc
    return result


async def in_trio(
    nursery: trio.Nursery, job: Callable[[*Ts], Awaitable[T]], *args: *Ts, grace: float = 0.0
) -> T:
    """For an asyncio task: run `job` as a trio task in `nursery` and wait for it. Results and exceptions cross.

    When the caller is cancelled, `job` may go on for `grace` seconds, then it is cancelled; the caller ends after it.
    Raises Interrupted when the trio side cancels it on its own.
    """
    ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    scope = trio.CancelScope()

    async def body() -> None:
        try:
            with scope:
                ended.set_result(await job(*args))
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            ended.set_exception(exc)
        finally:
            if not ended.done():
                ended.set_exception(Interrupted("a trio task was cancelled from within"))

    try:
        nursery.start_soon(body)
    except RuntimeError as exc:  # the nursery is closed
        raise Interrupted("no more tasks are started") from exc
    try:
        await asyncio.wait([ended])
    except asyncio.CancelledError:
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ended], timeout=grace)
        scope.cancel()
        while not ended.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([ended])
        ended.exception()  # seen
        raise
    return ended.result()
