"""Log lines on their way to Cloudly."""

from typing import Any

import pytest
import trio
from tests.unit.adapters.cloudly.stand_in import CRASH, MISSING, TOKEN, CloudlyStandIn, follow, never
from trio.testing import MockClock

from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.adapters.cloudly.reporting import BATCH, KEPT_LINES
from coreflow.domain.errors import Refused, Unavailable


def offer(port: NetworkCloudly, *numbers: int) -> None:
    """Log lines with these numbers."""
    for number in numbers:
        port.logs.offer(number, "info", {"event": "line", "n": number})


def batches(far: CloudlyStandIn) -> list[list[Any]]:
    """What was delivered, request by request."""
    return [body["logPackages"] for _, name, body in far.calls if name == "log"]


async def test_a_line(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It has a level, a message with its facts, and the pass it belongs to; the token says whose it is."""
    far = CloudlyStandIn()
    port = follow(far, nursery)
    await port.link.wait()
    event = {"event": "moved", "level": "warning", "timestamp": "now", "pass_id": "p1", "a": 1, "b": "x"}
    port.logs.offer(1000, "warning", event)
    port.logs.offer(1001, "strange", {})
    await trio.sleep(5)
    ((first, second),) = batches(far)
    assert {name: first[name] for name in ("timestamp", "level", "message", "correlation")} == {
        "timestamp": 1000,
        "level": "warn",
        "message": "moved a=1 b=x",
        "correlation": {"id": "p1", "type": "none"},
    }
    assert (second["level"], second["message"], second["correlation"]["id"]) == ("info", "", "none")
    (body,) = (body for _, name, body in far.calls if name == "log")
    assert body["authToken"] == TOKEN
    assert "identity" not in body


async def test_lines_are_delivered_in_batches(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What comes within a moment goes together; the oldest that do not fit are lost."""
    far = CloudlyStandIn()
    port = follow(far, nursery)
    offer(port, *range(KEPT_LINES + 100))
    await trio.sleep(30)
    assert [len(batch) for batch in batches(far)] == [BATCH] * (KEPT_LINES // BATCH)
    numbers = [line["timestamp"] for batch in batches(far) for line in batch]
    assert numbers == list(range(100, KEPT_LINES + 100))
    far.calls.clear()
    offer(port, 1)
    await trio.sleep(1)
    offer(port, 2)
    await trio.sleep(5)
    assert [[line["timestamp"] for line in batch] for batch in batches(far)] == [[1, 2]]


async def test_lines_wait_for_a_connection(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Those of a time without one go with the first line after it."""
    far = CloudlyStandIn(away=Unavailable("down"))
    port = follow(far, nursery)
    offer(port, 1, 2)
    await trio.sleep(60)
    far.away = None
    await trio.sleep(60)
    offer(port, 3)
    await trio.sleep(5)
    assert [line["timestamp"] for batch in batches(far) for line in batch] == [1, 2, 3]


async def test_a_cloudly_that_takes_no_lines(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It is asked once on a connection, and nothing piles up."""
    far = CloudlyStandIn({"log": MISSING})
    port = follow(far, nursery)
    await port.link.wait()
    offer(port, *range(BATCH + 1))
    await trio.sleep(5)
    assert not port.logs._lines
    for number in range(10):
        offer(port, number)
        await trio.sleep(5)
    assert len(batches(far)) == 1
    assert not port.logs._lines


@pytest.mark.parametrize("answer", [CRASH, Refused("no"), never, [], None])
async def test_lines_that_are_not_taken(
    autojump_clock: MockClock, answer: Any, nursery: trio.Nursery
) -> None:
    """They are lost here, nothing is raised, and later ones are delivered."""
    far = CloudlyStandIn({"log": answer})
    port = follow(far, nursery)
    await port.link.wait()
    offer(port, 1)
    await trio.sleep(60)
    far.answers["log"] = {}
    far.calls.clear()
    offer(port, 2)
    await trio.sleep(5)
    assert [[line["timestamp"] for line in batch] for batch in batches(far)] == [[2]]
    assert port.link.live is not None


async def test_lines_that_are_never_taken(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Cloudly is asked ever less often."""
    far = CloudlyStandIn({"log": Refused("no room")})
    port = follow(far, nursery)
    await port.link.wait()
    for number in range(600):
        offer(port, number)
        await trio.sleep(1)
    assert 5 <= len(batches(far)) <= 10


async def test_lines_while_the_connection_ends(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What was under way is lost, what was not waits for the next connection."""
    far = CloudlyStandIn()
    far.answers["log"] = lambda _: far.hang_up()
    port = follow(far, nursery)
    await port.link.wait()
    offer(port, *range(BATCH + 1))
    await trio.sleep(10)
    far.answers["log"] = {}
    far.calls.clear()
    offer(port, 1000)
    await trio.sleep(5)
    assert [[line["timestamp"] for line in batch] for batch in batches(far)] == [[BATCH, 1000]]
