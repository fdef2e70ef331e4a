"""Messages that are arriving, and what all connections together may hold of them."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
import trio
from tests.unit.adapters.net.peers import Serve

from coreflow.adapters.net import MessageBudget, SocketOptions, WebSocket, connect_websocket
from coreflow.adapters.net.budget import MODEST, SMALL
from coreflow.adapters.net.transport import received_bytes

MIB = 1024 * 1024
LONGEST = 4 * MIB


def holders(count: int) -> tuple[list[Callable[[], None]], list[int]]:
    """Holders of shares, and which of them were called."""
    called: list[int] = []

    def holder(number: int) -> Callable[[], None]:
        return lambda: called.append(number)

    return [holder(number) for number in range(count)], called


def test_a_share_is_waited_for_in_turn() -> None:
    """Who waits is called when there is room, the first one first; who gives up waiting is not."""
    budget = MessageBudget(2 * LONGEST, LONGEST)
    (a, b, c, d, e), called = holders(5)
    assert budget.resize(a, LONGEST)
    assert budget.resize(b, LONGEST)
    assert not any(budget.resize(holder, LONGEST) for holder in (c, d, e))
    assert budget.resize(c, 0)
    assert budget.resize(a, 0)
    assert called == [3]
    assert (budget.taken, budget.waiting) == (2 * LONGEST, 1)


def test_modest_messages_leave_room_for_the_longest() -> None:
    """However many strangers hold what they have begun, the control plane gets through, and they when it is done."""
    budget = MessageBudget(2 * LONGEST, LONGEST)
    (control_plane, *strangers), called = holders(10)
    assert [budget.resize(stranger, MODEST) for stranger in strangers] == [True] * 4 + [False] * 5
    assert budget.resize(control_plane, LONGEST)
    assert budget.taken == budget.total
    assert budget.resize(control_plane, 0)
    assert called == []
    assert budget.resize(strangers[0], 0)
    assert called == [5]


def test_a_share_grows_with_a_message() -> None:
    """What somebody has already does not count against what it wants."""
    budget = MessageBudget(LONGEST + MODEST, LONGEST)
    (a, b), called = holders(2)
    assert budget.resize(a, MODEST)
    assert budget.resize(a, LONGEST)
    assert budget.resize(b, MODEST)
    assert not budget.resize(b, LONGEST)
    assert budget.resize(a, 0)
    assert called == [1]
    assert budget.taken == LONGEST


def test_a_budget_that_no_message_fits_into() -> None:
    """It would hold up everybody for ever."""
    with pytest.raises(ValueError, match="room for the longest message"):
        MessageBudget(LONGEST, LONGEST)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.002)


class Keeper:
    """Receives messages, and goes on after each only when it may."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may_go_on = trio.Event()

    async def __call__(self, connection: WebSocket) -> None:
        while True:
            size = len(await connection.receive())
            self.sizes.append(size)
            if size > SMALL:
                await self.may_go_on.wait()


async def test_a_message_waits_until_there_is_room(serve: Serve, nursery: trio.Nursery) -> None:
    """Two large ones are there and kept; a third is not read, and small ones pass, on its server as on any other."""
    budget, keeper = MessageBudget(2 * LONGEST + MODEST, LONGEST), Keeper()
    listening = await serve(keeper, max_message=LONGEST, budget=budget)
    url = f"ws://127.0.0.1:{listening.port}/"
    async with AsyncExitStack() as stack:
        large = [await stack.enter_async_context(connect_websocket(url)) for _ in range(3)]
        small = await stack.enter_async_context(connect_websocket(url))
        for socket_ in large:
            nursery.start_soon(socket_.send, "x" * (LONGEST - 1))
        await until(lambda: len(keeper.sizes) == 2 and budget.waiting == 1)
        for _ in range(20):
            await small.send("y" * (SMALL - 100))
        await until(lambda: len(keeper.sizes) == 22)
        assert keeper.sizes.count(LONGEST - 1) == 2
        assert (budget.taken, budget.waiting) == (2 * LONGEST + MODEST, 1)
        keeper.may_go_on.set()
        await until(lambda: keeper.sizes.count(LONGEST - 1) == 3)
    await until(lambda: budget.taken == 0)
    assert budget.waiting == 0


async def test_a_client_has_a_budget_too(serve: Serve, nursery: trio.Nursery) -> None:
    """Nothing is read while others have it all; then the message arrives whole."""
    budget = MessageBudget(LONGEST + MODEST, LONGEST)
    text = "z" * (3 * MIB)

    async def say(connection: WebSocket) -> None:
        await connection.send(text)
        await connection.send("done")
        await connection.receive()

    def other() -> None:
        """Nobody waits."""

    assert budget.resize(other, LONGEST)
    listening = await serve(say)
    received: list[str | bytes] = []
    options = SocketOptions(max_message=LONGEST, budget=budget)
    async with connect_websocket(f"ws://127.0.0.1:{listening.port}/", options) as socket_:

        async def receive() -> None:
            received.extend([await socket_.receive() for _ in range(2)])

        nursery.start_soon(receive)
        await until(lambda: budget.waiting == 1)
        assert received == []
        transport = socket_._transport  # what arrives in the system's own buffers does not count here
        await until(lambda: socket_.arriving > received_bytes(transport) + 1)
        assert budget.resize(other, 0)
        await until(lambda: len(received) == 2)
        assert received == [text.encode(), "done"]


async def test_who_waits_for_room_is_not_taken_for_dead(serve: Serve, nursery: trio.Nursery) -> None:
    """Its pongs are unread, so that its silence says nothing."""
    budget, keeper = MessageBudget(LONGEST + MODEST, LONGEST), Keeper()

    def other() -> None:
        """Nobody waits."""

    assert budget.resize(other, LONGEST)
    listening = await serve(keeper, max_message=LONGEST, budget=budget, heartbeat=0.1)
    async with connect_websocket(f"ws://127.0.0.1:{listening.port}/") as socket_:
        nursery.start_soon(socket_.send, "x" * LONGEST)
        await until(lambda: budget.waiting == 1)
        await trio.sleep(0.5)  # several heartbeats
        assert budget.waiting == 1
        budget.resize(other, 0)
        await until(lambda: keeper.sizes == [LONGEST])
        keeper.may_go_on.set()


async def test_a_connection_that_ends_gives_its_share_back(serve: Serve) -> None:
    """Whether it had one or waited."""
    budget, keeper = MessageBudget(LONGEST + MODEST, LONGEST), Keeper()
    listening = await serve(keeper, max_message=LONGEST, budget=budget, grace=0.01)
    url = f"ws://127.0.0.1:{listening.port}/"

    async def send() -> None:
        async with connect_websocket(url) as socket_:
            await socket_.send("x" * LONGEST)
            await trio.sleep_forever()

    async with trio.open_nursery() as senders:
        senders.start_soon(send)
        senders.start_soon(send)
        await until(lambda: keeper.sizes == [LONGEST] and budget.waiting == 1)
        senders.cancel_scope.cancel()
    await until(lambda: not budget.taken and not budget.waiting)


async def test_many_small_messages_at_once_need_no_room(serve: Serve) -> None:
    """Nor do they get lost, or out of order, where there is none."""
    budget = MessageBudget(LONGEST + MODEST, LONGEST)

    def other() -> None:
        """Nobody waits."""

    assert budget.resize(other, budget.total - MODEST + 1)
    received: list[str | bytes] = []

    async def keep(connection: WebSocket) -> None:
        while True:
            received.append(await connection.receive())

    listening = await serve(keep, max_message=LONGEST, budget=budget)
    texts = [f"{number:04}" * 500 for number in range(400)]
    async with connect_websocket(f"ws://127.0.0.1:{listening.port}/") as socket_:
        for text in texts:
            await socket_.send(text)
        await until(lambda: len(received) == len(texts))
    assert received == texts
