"""Whatever arrives: nothing raises, nothing closes, no answer is answered, and nothing grows without bound.

`COREFLOW_FUZZ_EXAMPLES` sets how many examples each test tries.
"""

import json
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.effort import examples
from tests.unit.adapters.typedsocket.peers import CLOSING, STREAM, Pair, buffer, captured, ids

from coreflow.adapters.net.typedsocket import (
    Answered,
    Asked,
    Connection,
    Event,
    Failed,
    Ignored,
    Limits,
    Send,
    StreamFailed,
    StreamRef,
    Timing,
)
from coreflow.domain.errors import PortError

EXAMPLES = int(os.environ.get("COREFLOW_FUZZ_EXAMPLES", examples(100)))
fuzz = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])

LIMITS = Limits(
    message_bytes=64 * 1024,
    requests=6,
    request_bytes=4000,
    streams=6,
    stream_items=4,
    stream_bytes=500,
    queued_bytes=4000,
    chunk_bytes=200,
    tags=2,
    tag_bytes=100,
)
TIMING = Timing(request=20, question=5)

FRAMES = [frame.json for frame in captured() if frame.scenario != "malformed" or len(frame.data) > 40]

# --- what arrives

names = st.sampled_from(
    [f"{side}-{number}" for side in ("left", "right") for number in range(1, 25)] + ["s1", ""]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | names
values = st.recursive(
    scalars | st.sampled_from([CLOSING, buffer(b"x"), {}]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | names, inner, max_size=3)
    ),
    max_leaves=8,
)
placeholders = st.fixed_dictionaries(
    {"_isVirtualStream": st.sampled_from([True, True, True, 1, None]), "streamId": names | values},
    optional={"protocol": st.just("virtual-stream-v1")},
)
chunks = st.just(CLOSING) | st.binary(max_size=300).map(buffer) | values
packets = st.fixed_dictionaries(
    {},
    optional={
        "streamId": names,
        "cycleId": names,
        "cycle": st.sampled_from(["request", "response"]),
        "mainPurpose": st.sampled_from(["keepAlive", "feedback", "chunk", "read", "start", "end"]) | values,
        "keepAlive": st.booleans(),
        "next": st.booleans() | values,
        "backpressure": st.booleans() | values,
        "chunkData": chunks,
    },
)
methods = st.sampled_from([STREAM, STREAM, "do", "__typedsocket_setTag", "__typedsocket_removeTag"]) | values
bodies = (
    packets
    | values
    | st.dictionaries(st.sampled_from(["name", "payload", "a"]), placeholders | values, max_size=3)
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "method": methods,
        "request": bodies,
        "response": st.none() | bodies,
        "correlation": st.fixed_dictionaries(
            {}, optional={"id": names | values, "phase": st.sampled_from(["request", "response"]) | values}
        )
        | values,
        "error": st.none() | st.fixed_dictionaries({"text": st.text(max_size=5) | values}) | values,
        "retry": st.fixed_dictionaries({"waitForMs": st.integers(-5, 5000) | values}) | values,
        "requestInstanceId": names | values,
        "localData": values,
    },
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A captured message with some members replaced or left out, and perhaps with names that mean something."""
    message = json.loads(json.dumps(draw(st.sampled_from(FRAMES))))
    for _ in range(draw(st.integers(0, 3))):
        place = message
        path = draw(st.lists(st.integers(0, 7), min_size=1, max_size=3))
        for step in path:
            if not isinstance(place, dict) or not place:
                break
            key = sorted(place)[step % len(place)]
            if draw(st.booleans()) and isinstance(place[key], dict):
                place = place[key]
            elif draw(st.booleans()):
                place[key] = json.loads(json.dumps(draw(names | bodies | placeholders)))
            else:
                del place[key]
    return message


spoilt = st.builds(
    lambda text, start, end: text[start:-end],
    mutated().map(json.dumps),
    st.integers(0, 3),
    st.integers(1, 20),
)
messages: st.SearchStrategy[str | bytes] = st.one_of(
    envelopes.map(json.dumps),
    envelopes.map(json.dumps),
    mutated().map(json.dumps),
    mutated().map(lambda message: json.dumps(message).encode()),
    values.map(json.dumps),
    spoilt,
    st.text(max_size=30),
    st.binary(max_size=30),
)


# --- who it arrives at


def busy_pair() -> Pair:
    """Two connections with everything under way: requests, tags, and a stream of each kind."""

    def make(name: str) -> Connection:
        return Connection(ids(name), limits=LIMITS, timing=TIMING, tag_policy=lambda name, _: name != "no")

    pair = Pair(make("left"), make("right"))
    left, right = pair.left, pair.right
    up = left.create_stream()
    pair.send(left, left.request("up", {"stream": up}, 0).frames)
    down = left.request("down", {}, 0)
    pair.send(left, down.frames)
    pair.send(right, right.request("never answered", {}, 0).frames)
    pair.settle()
    asked = [event for event in pair.events_of(right) if isinstance(event, Asked)]
    stream = right.create_stream()
    right.write(stream, b"first", 0)
    pair.send(right, right.respond(asked[1].ask, {"stream": stream}, 0))
    pair.send(left, left.write(up, b"first", 0))
    pair.send(left, left.write(up, b"second", 0))
    pair.settle()
    pair.events_of(left)
    return pair


def check_bounds(one: Connection) -> None:
    """Nothing is over its limit, except by the one message that may be larger than a limit."""
    assert not one.is_closed
    assert one.waiting_requests <= LIMITS.requests
    assert one.waiting_asks <= LIMITS.requests
    assert one.open_streams <= LIMITS.streams
    assert one.held_bytes <= LIMITS.request_bytes + LIMITS.queued_bytes + LIMITS.message_bytes
    assert len(one.tags) <= LIMITS.tags


def check_answers(message: str | bytes, events: list[Event]) -> None:
    """No answer is answered: what we send with the id of what arrived is an answer, and that was a question then."""
    try:
        arrived = json.loads(message)
    except ValueError:
        arrived = None
    replies = [json.loads(event.text) for event in events if isinstance(event, Send)]
    for reply in replies:
        if reply["response"] in (None, {"backpressure": False}) and "error" not in reply:
            continue  # a question of ours
        assert isinstance(arrived, dict)
        assert arrived.get("method") != STREAM or arrived.get("response") is None
        correlation = arrived.get("correlation")
        assert not isinstance(correlation, dict) or correlation.get("phase") != "response"
    assert sum("error" in reply or reply["response"] is not None for reply in replies) <= 2


@given(st.lists(messages, max_size=12))
@fuzz
def test_garbage_changes_nothing_that_matters(garbage: list[str | bytes]) -> None:
    """It never raises, never closes, and never gets an answer that it should not get."""
    pair = busy_pair()
    for message in garbage:
        for one in (pair.left, pair.right):
            check_answers(message, one.receive(message, 1))
            check_bounds(one)
    for one in (pair.left, pair.right):
        one.tick(50)
        check_bounds(one)
        assert one.waiting_requests == 0
        one.close("done")
        assert one.held_bytes == 0 or one.open_streams


@given(st.lists(st.tuples(st.booleans(), messages), max_size=12))
@fuzz
def test_after_garbage_two_peers_fall_silent(garbage: list[tuple[bool, str | bytes]]) -> None:
    """Every message leads to a bounded number of others: no echo loop, also not when owners answer everything."""
    pair = busy_pair()
    for to_left, message in garbage:
        pair.send(pair.right if to_left else pair.left, [message])
    before = pair.frames
    for _ in range(20):
        pair.settle(limit=before + 40 + 12 * len(garbage) * (1 + LIMITS.streams))
        if not answer_everything(pair):
            break
    else:
        raise AssertionError("the owners have to answer for ever")
    before = pair.frames
    pair.wait(2)
    assert pair.frames - before <= 2 * 2 * LIMITS.streams * (2 * 21 + 10)
    check_bounds(pair.left)
    check_bounds(pair.right)


def answer_everything(pair: Pair) -> bool:
    """Answer what was asked, each in another way. False when there was nothing."""
    found = False
    for one in (pair.left, pair.right):
        for event in pair.events_of(one):
            if not isinstance(event, Asked):
                continue
            found = True
            frames = (
                one.respond(event.ask, {"ok": True}, pair.now)
                if event.ask % 2
                else one.respond_error(event.ask, "no")
            )
            pair.send(one, frames)
    return found


@given(st.lists(messages, max_size=6), st.booleans())
@fuzz
def test_a_peer_that_returns_everything_is_not_answered_for_ever(
    garbage: list[str | bytes], only_streams: bool
) -> None:
    """SmartServe returns stream frames that it cannot place; an unkind peer returns all."""
    pair = busy_pair()
    one = pair.left
    queue = deque[str | bytes](garbage)
    rounds = 0
    while queue:
        rounds += 1
        assert rounds <= 20 + 12 * (len(garbage) + LIMITS.streams)
        for event in one.receive(queue.popleft(), 1):
            if isinstance(event, Send) and (not only_streams or STREAM in event.text):
                queue.append(event.text)
            elif isinstance(event, Asked):
                queue.extend(one.respond(event.ask, {}, 1))
    check_bounds(one)


class TwoPeers(RuleBasedStateMachine):
    """Two owners who do what they like, a wire that takes its time, and somebody who throws in garbage."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.left = Connection(
            ids("left"), limits=LIMITS, timing=TIMING, tag_policy=lambda name, _: name != "no"
        )
        self.right = Connection(
            ids("right"), limits=LIMITS, timing=TIMING, tag_policy=lambda name, _: name != "no"
        )
        self.wires: dict[int, deque[str | bytes]] = {0: deque(), 1: deque()}
        self.asks: dict[int, list[int]] = {0: [], 1: []}
        self.streams: dict[int, list[StreamRef]] = {0: [], 1: []}
        self.waiting: dict[int, set[str]] = {0: set(), 1: set()}

    def peer(self, side: int) -> Connection:
        return self.left if side == 0 else self.right

    def note(self, side: int, events: list[Event]) -> None:
        """Be the owner of a side."""
        for event in events:
            match event:
                case Send(text):
                    self.wires[1 - side].append(text)
                case Asked(ask=ask, streams=streams):
                    self.asks[side].append(ask)
                    self.streams[side] += streams
                case Answered(request_id=request_id, streams=streams):
                    self.waiting[side].remove(request_id)
                    self.streams[side] += streams
                case Failed(request_id=request_id):
                    self.waiting[side].remove(request_id)
                case StreamFailed() | Ignored():
                    pass

    def do(self, side: int, action: Callable[[Connection], tuple[str, ...]]) -> None:
        """Do something that a limit or the other side may forbid."""
        with suppress(PortError):  # an owner is told no in no other way
            self.wires[1 - side].extend(action(self.peer(side)))

    def some_stream(self, side: int, index: int) -> StreamRef:
        known = self.streams[side][-8:]
        return known[index % len(known)] if known else StreamRef("none")

    @rule(
        side=st.integers(0, 1),
        with_stream=st.booleans(),
        reads=st.booleans(),
        timeout=st.sampled_from([1.0, None]),
    )
    def request(self, side: int, *, with_stream: bool, reads: bool, timeout: float | None) -> None:
        """Ask for something, perhaps with a stream."""
        with suppress(PortError):  # an owner is told no in no other way
            body: dict[str, object] = {"a": 1}
            if with_stream:
                stream = self.peer(side).create_stream(reads=reads)
                self.streams[side].append(stream)
                body["stream"] = stream
            requested = self.peer(side).request("do", body, self.now, timeout=timeout)
            self.waiting[side].add(requested.id)
            self.wires[1 - side].extend(requested.frames)

    @rule(side=st.integers(0, 1), with_stream=st.booleans())
    @precondition(lambda self: self.asks[0] or self.asks[1])
    def respond(self, side: int, *, with_stream: bool) -> None:
        """Answer the oldest question, perhaps with a stream."""
        if not self.asks[side]:
            return
        ask = self.asks[side].pop(0)
        with suppress(PortError):  # an owner is told no in no other way
            body: dict[str, object] = {"b": 2}
            if with_stream:
                body["stream"] = self.peer(side).create_stream()
                self.streams[side].append(body["stream"])  # type: ignore[arg-type]
            self.wires[1 - side].extend(self.peer(side).respond(ask, body, self.now))
            return
        self.wires[1 - side].extend(self.peer(side).respond_error(ask))

    @rule(side=st.integers(0, 1), index=st.integers(0, 7), data=st.binary(max_size=200), finish=st.booleans())
    def write(self, side: int, index: int, data: bytes, *, finish: bool) -> None:
        """Write to a stream, whatever it is, or end it."""
        stream = self.some_stream(side, index)
        if finish:
            self.do(side, lambda me: me.finish(stream, self.now))
        else:
            self.do(side, lambda me: me.write(stream, data, self.now))

    @rule(side=st.integers(0, 1), index=st.integers(0, 7))
    def take(self, side: int, index: int) -> None:
        """Take from a stream."""
        self.do(side, lambda me: me.take(self.some_stream(side, index), self.now).frames)

    @rule(side=st.integers(0, 1), index=st.integers(0, 7))
    def abort(self, side: int, index: int) -> None:
        """Give a stream up."""
        self.do(side, lambda me: me.abort(self.some_stream(side, index)))

    @rule(side=st.integers(0, 1), count=st.integers(1, 20))
    def deliver(self, side: int, count: int) -> None:
        """Let messages arrive."""
        for _ in range(min(count, len(self.wires[side]))):
            message = self.wires[side].popleft()
            self.note(side, self.peer(side).receive(message, self.now))

    @rule(side=st.integers(0, 1), message=messages)
    def garbage(self, side: int, message: str | bytes) -> None:
        """Let something else arrive."""
        events = self.peer(side).receive(message, self.now)
        check_answers(message, events)
        self.note(side, events)

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.05, 0.5, 1.0, 3.0, 21.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass. A tick does everything that is due."""
        self.now += seconds
        for side in (0, 1):
            self.note(side, self.peer(side).tick(self.now))
            deadline = self.peer(side).next_deadline()
            assert deadline is None or deadline > self.now

    @invariant()
    def bounds(self) -> None:
        """Nothing is over its limit."""
        for side in (0, 1):
            check_bounds(self.peer(side))
            assert self.peer(side).waiting_requests == len(self.waiting[side])

    def teardown(self) -> None:
        """Whatever was under way fails, once."""
        for side in (0, 1):
            events = self.peer(side).close("done")
            assert not any(isinstance(event, Send) for event in events)
            self.note(side, events)
            assert self.waiting[side] == set()


TestTwoPeers = TwoPeers.TestCase
TestTwoPeers.settings = settings(fuzz, max_examples=max(20, EXAMPLES // 3), stateful_step_count=40)
