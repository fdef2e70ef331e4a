"""trio as a guest of asyncio: what crosses, and who waits for whom."""

import asyncio

import pytest
import trio

from coreflow.adapters.net import Interrupted, in_asyncio, in_trio, run


def test_run_returns_what_main_returns() -> None:
    """The entry point passes arguments in, and the result or the exception out."""

    async def divide(one: int, other: int) -> int:
        await trio.lowlevel.checkpoint()
        return one // other

    assert run(divide, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        run(divide, 6, 0)


def test_a_crossing_outside_of_run_says_what_is_missing() -> None:
    """Under plain trio there is no asyncio to cross to."""
    with pytest.raises(RuntimeError, match=r"started with coreflow\.adapters\.net\.run"):
        trio.run(in_asyncio, asyncio.sleep, 0)


async def test_results_and_exceptions_cross_to_trio() -> None:
    """A trio task gets what a coroutine returns or raises."""

    async def divide(one: int, other: int) -> int:
        await asyncio.sleep(0)
        return one // other

    assert await in_asyncio(divide, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        await in_asyncio(divide, 6, 0)


async def test_cancelling_a_trio_task_waits_for_the_end_of_its_coroutine() -> None:
    """A cancelled coroutine may clean up, and its caller goes on only after that."""
    cleaned: list[str] = []

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append("up")

    with trio.move_on_after(0.01) as scope:
        await in_asyncio(slow_to_end)
    assert scope.cancelled_caught
    assert cleaned == ["up"]


async def test_a_result_is_not_lost_to_a_cancellation() -> None:
    """A coroutine that ends in spite of being cancelled delivers its result."""

    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done"
        return "never"

    with trio.move_on_after(0.01):
        assert await in_asyncio(stubborn) == "done"


async def test_nothing_starts_for_a_task_that_is_cancelled_already() -> None:
    """A crossing is a checkpoint before anything happens."""
    started: list[bool] = []

    async def start() -> None:
        started.append(True)

    with trio.CancelScope() as scope:
        scope.cancel()
        await in_asyncio(start)
    assert not started


async def test_a_cancellation_from_within_asyncio_is_an_ordinary_error() -> None:
    """What nobody in trio asked for does not look like a cancellation of trio's."""

    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(Interrupted):
        await in_asyncio(give_up)


async def test_results_and_exceptions_cross_to_asyncio(nursery: trio.Nursery) -> None:
    """An asyncio task gets what a trio function returns or raises."""

    async def divide(one: int, other: int) -> int:
        await trio.lowlevel.checkpoint()
        return one // other

    async def host() -> int:
        with pytest.raises(ZeroDivisionError):
            await in_trio(nursery, divide, 6, 0)
        return await in_trio(nursery, divide, 6, 3)

    assert await in_asyncio(host) == 2


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_trio_function_never_outlives_the_asyncio_task_that_called_it(
    nursery: trio.Nursery, cancels: int
) -> None:
    """A cancelled asyncio task ends after the trio function that it called, however often it is cancelled."""
    events: list[str] = []

    async def slow_to_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            events.append("function")

    async def host() -> None:
        call = asyncio.create_task(in_trio(nursery, slow_to_end))
        for _ in range(cancels):
            await asyncio.sleep(0.01)
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        events.append("caller")

    await in_asyncio(host)
    assert events == ["function", "caller"]


async def test_a_trio_function_may_have_a_grace_to_end_by_itself(nursery: trio.Nursery) -> None:
    """Within its grace, a function whose caller was cancelled goes on to its own end."""
    ended: list[str] = []

    async def nearly_done() -> None:
        await trio.sleep(0.05)
        ended.append("by itself")

    async def host() -> None:
        call = asyncio.create_task(in_trio(nursery, nearly_done, grace=5))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    await in_asyncio(host)
    assert ended == ["by itself"]


async def test_a_cancelled_nursery_interrupts_the_asyncio_tasks_that_called_into_it() -> None:
    """An asyncio task whose trio function was cancelled by trio, or may not even start, gets an ordinary error."""
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            nursery.cancel_scope.cancel()
            await trio.sleep_forever()

        async def host() -> None:
            with pytest.raises(Interrupted):
                await in_trio(nursery, stop)

        with trio.CancelScope(shield=True):
            await in_asyncio(host)

    async def late() -> None:
        with pytest.raises(Interrupted):
            await in_trio(nursery, stop)

    await in_asyncio(late)


async def test_many_crossings_at_once_keep_apart(nursery: trio.Nursery) -> None:
    """Hundreds of tasks cross there and back at the same time, some are cancelled, and each gets its own answer."""

    async def double(number: int) -> int:
        await trio.sleep(number % 7 / 1000)
        return 2 * number

    async def there(number: int) -> int:
        await asyncio.sleep(number % 5 / 1000)
        return await in_trio(nursery, double, number)

    answers: dict[int, int] = {}

    async def ask(number: int) -> None:
        with trio.move_on_after(0 if number % 10 == 0 else 60):
            answers[number] = await in_asyncio(there, number)

    async with trio.open_nursery() as askers:
        for number in range(500):
            askers.start_soon(ask, number)
    assert answers == {number: 2 * number for number in range(500) if number % 10}
