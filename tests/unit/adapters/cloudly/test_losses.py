"""Pushes that cannot be read: what a person gets to see of them."""

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.adapters.cloudly.stand_in import CloudlyStandIn, Json, follow, settle
from trio.testing import MockClock

from coreflow.adapters.cloudly import LinkOptions
from coreflow.adapters.cloudly.methods import PUSH_CONFIG, PUSH_PLATFORM
from coreflow.adapters.net.typedsocket import Limits
from coreflow.domain.errors import Unavailable

SECRET = "hunter2-hunter2"
LIMITS = Limits(message_bytes=64 * 1024, message_values=2000)


def push(method: str, request: str) -> str:
    """A push as text, which may be no JSON."""
    return (
        f'{{"method": "{method}", "request": {request}, "correlation": {{"id": "c1", "phase": "request"}}}}'
    )


UNREADABLE = {
    "too many values": (f'{{"x": ["{SECRET}"{", 1" * 10_000}]}}', "values is over the limit of 2000"),
    "too large": (f'{{"x": "{SECRET * 10_000}"}}', "bytes is over the limit of 65536"),
    "no JSON": (f'{{"x": {SECRET}}}', "not JSON"),
    "too deep": (f'{{"x": "{SECRET}", "y": {"[" * 1500}{"]" * 1500}}}', "nests too deep"),
    "not an object": (f'"{SECRET}"', "the request is not an object"),
}


@pytest.mark.parametrize(("request_text", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_push_that_is_lost_is_said_when_it_begins(
    autojump_clock: MockClock, request_text: str, reason: str, nursery: trio.Nursery
) -> None:
    """Once for each method, and again after one that was read; never with what it holds."""
    far = CloudlyStandIn()
    port = follow(far, nursery, options=LinkOptions(limits=LIMITS))
    await port.link.wait()
    with capture_logs() as lines:

        async def send(method: str, text: str = request_text) -> list[str]:
            del lines[:]
            await far.sockets[-1].send(push(method, text))
            await settle()
            assert SECRET not in str(lines)
            return [line["method"] for line in lines if line["log_level"] == "warning"]

        assert await send(PUSH_CONFIG.name) == [PUSH_CONFIG.name]
        assert any(reason in line.get("reason", "") for line in lines)
        assert await send(PUSH_CONFIG.name) == []
        assert await send(PUSH_PLATFORM.name) == [PUSH_PLATFORM.name]
        assert await send(PUSH_CONFIG.name, "{}") == []
        assert await send(PUSH_PLATFORM.name) == []
        assert await send(PUSH_CONFIG.name) == [PUSH_CONFIG.name]


async def test_a_method_that_nobody_knows_is_not_told(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Its name is the peer's, and might be anything."""
    port = follow(far := CloudlyStandIn(), nursery)
    await port.link.wait()
    with capture_logs() as lines:
        for text in (push(SECRET.replace("-", "_"), "no JSON"), "no JSON at all"):
            await far.sockets[-1].send(text)
            await settle()
    (line,) = (line for line in lines if line["log_level"] == "warning")
    assert (line["method"], line["reason"]) == ("unknown", "a message is not JSON")


async def test_an_answer_that_is_lost_is_the_business_of_who_asked(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """It fails the request, which is told elsewhere."""
    far = CloudlyStandIn({"getClusterConfig": {"configData": {"id": "c1", "x": ["y"] * 3000}}})
    port = follow(
        far, nursery, options=LinkOptions(limits=Limits(message_bytes=64 * 1024, message_values=500))
    )
    await port.link.wait()
    with capture_logs() as lines, pytest.raises(Unavailable, match="cannot be used: a message of"):
        await port.records()
    assert not [line for line in lines if line["event"] == "message of Cloudly dropped"]


async def test_a_platform_state_that_cannot_be_read_is_said_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """However often it is pushed; and again after one that could."""
    far = CloudlyStandIn()
    port = follow(far, nursery)
    await port.link.wait()
    said = []
    bad: Json = {"bindings": 1}
    good: Json = {"bindings": []}
    for state in (bad, bad, good, bad):
        with capture_logs() as lines:
            await far.push(PUSH_PLATFORM.name, {PUSH_PLATFORM.key or "": state})
        said.append([line["event"] for line in lines if line["log_level"] == "warning"])
    assert said == [["push rejected"], [], [], ["push rejected"]]
