"""A connection that lives: what a `Peer` promises to both of its ends."""

import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
import trio
from attrs import frozen
from structlog.testing import capture_logs
from tests.unit.adapters.cloudly.stand_in import (
    Streaming,
    TextSocket,
    handlers_of,
    never,
    settle,
    socket_pair,
)
from trio.testing import MockClock

from coreflow.adapters.net import peer as peer_module
from coreflow.adapters.net.peer import Handler, Peer
from coreflow.adapters.net.typedsocket import (
    INTERNAL_ERROR,
    NO_SUCH_METHOD,
    Answered,
    ConnectionClosed,
    PeerError,
    StreamBroken,
    StreamRef,
    TimedOut,
)
from coreflow.adapters.net.typedsocket.envelope import Envelope, Unusable, parse_in_pieces
from coreflow.domain.errors import LostRace, PortError, PreconditionFailed, Refused, Unavailable


def pair(
    nursery: trio.Nursery, handlers: Mapping[str, Handler] | None = None, **options: Any
) -> tuple[Peer, Peer, TextSocket]:
    """Two peers at work, the second with these handlers; and the second's socket."""
    near, far = socket_pair()
    asking, answering = Peer(near), Peer(far, handlers=handlers, **options)
    nursery.start_soon(asking.run)
    nursery.start_soon(answering.run)
    return asking, answering, far


def request(number: int, method: str = "do", **members: object) -> str:
    """A request, as it travels."""
    return json.dumps(
        {
            "method": method,
            "request": {"n": number, **members},
            "response": None,
            "correlation": {"id": f"r-{number}", "phase": "request"},
        }
    )


async def failing(peer: Peer, errors: dict[str, PortError], method: str) -> None:
    """Ask for something that comes to nothing, and note why."""
    try:
        await peer.request(method, {})
    except PortError as exc:
        errors[method] = exc


# --- requests


async def test_answers_find_their_requests_in_any_order(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Requests under way at once are answered as each is ready."""

    async def wait(body: Mapping[str, Any]) -> Mapping[str, object]:
        await trio.sleep(body["seconds"])
        return {"waited": body["seconds"]}

    asking, _, _ = pair(nursery, {"wait": wait})
    ready: list[object] = []

    async def ask(seconds: int) -> None:
        ready.append((await asking.request("wait", {"seconds": seconds})).response)

    async with trio.open_nursery() as requests:
        for seconds in (3, 1, 2):
            requests.start_soon(ask, seconds)
    assert ready == [{"waited": 1}, {"waited": 2}, {"waited": 3}]
    assert asking._connection.waiting_requests == 0


async def test_handlers_are_called_in_order(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Whatever a handler returns, it is called in the order of the requests."""
    called: list[int] = []

    def note(body: Mapping[str, Any]) -> Mapping[str, object] | Awaitable[Mapping[str, object]]:
        called.append(body["n"])
        return {} if body["n"] % 2 else later()

    async def later() -> Mapping[str, object]:
        await trio.sleep(1)
        return {}

    near, far = socket_pair(room=100)
    for number in range(50):
        await near.send(request(number, "note"))
    nursery.start_soon(Peer(far, handlers={"note": note}).run)
    await trio.sleep(2)
    assert called == list(range(50))


class LongSocket:
    """A socket all of whose messages are long."""

    def __init__(self, socket: TextSocket) -> None:
        self.socket, self.peer, self.arriving = socket, socket.peer, 0

    async def send(self, text: str) -> None:
        """Send it as it is."""
        await self.socket.send(text)

    async def receive(self) -> bytes:
        """As a WebSocket hands out what is long."""
        return (await self.socket.receive()).encode()


async def test_a_long_message_is_read_beside_everything_else(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread; the time limit of what it may answer does not run meanwhile."""
    monkeypatch.setattr(peer_module, "LONG_BYTES", 0)
    may_go_on = threading.Event()
    threads: set[int] = set()

    def slowly(data: bytes, *limits: int) -> Envelope | Unusable:
        threads.add(threading.get_ident())
        assert may_go_on.wait(20)
        return parse_in_pieces(data, *limits)

    monkeypatch.setattr(peer_module, "parse_in_pieces", slowly)
    near, far = socket_pair()
    asking = Peer(LongSocket(near))
    nursery.start_soon(asking.run)
    nursery.start_soon(Peer(far, handlers={"ask": lambda _: {"n": 1}}).run)
    answers: list[object] = []

    async def ask() -> None:
        answers.append((await asking.request("ask", {}, timeout=5)).response)
        answered.set()

    answered = trio.Event()
    nursery.start_soon(ask)
    await trio.sleep(300)
    assert answers == []
    autojump_clock.autojump_threshold = 1  # for the thread's own time
    may_go_on.set()
    await answered.wait()
    autojump_clock.autojump_threshold = 0
    assert answers == [{"n": 1}]
    assert threading.get_ident() not in threads


async def test_what_a_handler_raises(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A refusal is told, of anything else the peer learns nothing; the connection goes on in any case."""

    async def later(body: object) -> Mapping[str, object]:
        await trio.sleep(1)
        raise ValueError("secret")

    answers: dict[str, Any] = {
        "refused": Refused("you may not"),
        "against a rule": PreconditionFailed("not ready"),
        "unavailable": Unavailable("secret"),
        "lost": LostRace("secret"),
        "wrong": KeyError("secret"),
        "later": later,
        "not json": lambda _: {"a": object()},
        "fine": {"a": 1},
    }
    asking, answering, _ = pair(nursery, handlers_of(answers))
    errors: dict[str, PortError] = {}
    with capture_logs() as lines:
        for method in [*answers, "unheard of"]:
            await failing(asking, errors, method)
    texts = {method: str(error) for method, error in errors.items()}
    assert texts.pop("not json").startswith("cannot be written as JSON")
    assert texts == {
        "refused": "you may not",
        "against a rule": "not ready",
        "unheard of": NO_SUCH_METHOD,
        **dict.fromkeys(("unavailable", "lost", "wrong", "later"), INTERNAL_ERROR),
    }
    assert all(isinstance(error, PeerError) for error in errors.values())
    assert answering._connection.waiting_asks == 0
    assert [line["error"] for line in lines] == ["Unavailable", "LostRace", "KeyError", "ValueError"]
    assert "'secret'" not in repr([{**line, "traceback": ""} for line in lines])


async def test_garbage_is_ignored(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What cannot be understood gets no answer and ends nothing."""
    near, far = socket_pair()
    peer = Peer(far, handlers={"do": lambda _: {}})
    nursery.start_soon(peer.run)
    for text in (
        "",
        "not json",
        "[]",
        "null",
        "{}",
        '{"method":"do"}',
        '{"correlation":{"id":"x","phase":"response"}}',
    ):
        await near.send(text)
    await near.send(request(1))
    assert json.loads(await near.receive())["correlation"]["id"] == "r-1"
    assert not peer.ended.is_set()


async def test_a_request_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A cancelled request is forgotten, and its late answer ignored."""

    async def slow(_: object) -> Mapping[str, object]:
        await trio.sleep(5)
        return {}

    asking, _, _ = pair(nursery, {"slow": slow, "fine": lambda _: {}})
    with trio.move_on_after(1) as scope:
        await asking.request("slow", {})
    assert scope.cancelled_caught
    assert asking._connection.waiting_requests == 0
    assert asking._pending == {}
    await trio.sleep(10)
    await asking.request("fine", {})


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 30), (7.0, 7)])
async def test_a_request_has_a_time_limit(
    autojump_clock: MockClock, timeout: float | None, seconds: float, nursery: trio.Nursery
) -> None:
    """After the timing's time, or its own, a request fails; the connection stays."""
    asking, _, _ = pair(nursery, {"never": never})
    started = trio.current_time()
    with pytest.raises(TimedOut):
        await asking.request("never", {}, timeout=timeout)
    assert trio.current_time() - started == pytest.approx(seconds)
    assert not asking.ended.is_set()


# --- the end


def by_socket(_: Peer, socket: TextSocket) -> None:
    socket.close()


def by_us(asking: Peer, _: TextSocket) -> None:
    asking.hang_up("enough")


@pytest.mark.parametrize(("end", "reason"), [(by_socket, "the socket is closed"), (by_us, "enough")])
async def test_the_end_of_a_connection(
    autojump_clock: MockClock, end: Callable[[Peer, TextSocket], None], reason: str, nursery: trio.Nursery
) -> None:
    """Everything under way fails, later requests fail at once, and it is known why, at both ends."""
    asking, answering, socket = pair(nursery, {"one": never, "two": never})
    errors: dict[str, PortError] = {}
    async with trio.open_nursery() as requests:
        for method in ("one", "two"):
            requests.start_soon(failing, asking, errors, method)
        await settle()
        end(asking, socket)
    await asking.ended.wait()
    assert asking.reason == reason
    await failing(asking, errors, "late")
    assert all(isinstance(error, ConnectionClosed) and reason in str(error) for error in errors.values())
    assert set(errors) == {"one", "two", "late"}
    asking.hang_up("once more")
    assert asking.reason == reason
    if end is by_us:
        socket.close()
    await answering.ended.wait()


async def test_cancelling_ends_a_connection(autojump_clock: MockClock) -> None:
    """Whoever cancels `run` ends it, with what is under way."""
    errors: dict[str, PortError] = {}
    async with trio.open_nursery() as requests:
        async with trio.open_nursery() as nursery:
            asking, answering, _ = pair(nursery, {"never": never})
            requests.start_soon(failing, asking, errors, "never")
            await settle()
            nursery.cancel_scope.cancel()
        assert asking.ended.is_set()
        assert answering.ended.is_set()
    assert isinstance(errors["never"], ConnectionClosed)


# --- streams in answers


async def ask_for_stream(
    nursery: trio.Nursery, pieces: list[bytes], **options: Any
) -> tuple[Peer, StreamRef, Streaming]:
    """A stream of these pieces, from a peer that was asked for one."""
    near, far = socket_pair()
    asking, streaming = Peer(near), Streaming(far, pieces, **options)
    nursery.start_soon(asking.run)

    async def run() -> None:
        with suppress(Unavailable):
            await streaming.run()

    nursery.start_soon(run)
    answered: Answered = await asking.request("stream", {})
    (ref,) = answered.streams
    assert answered.response == {"stream": ref}
    return asking, ref, streaming


async def read(peer: Peer, stream: StreamRef) -> bytes:
    """All of a stream."""
    data = b""
    while (piece := await peer.take(stream)) is not None:
        assert piece
        data += piece
    return data


async def test_a_stream_is_taken_whole(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """All pieces come in their order, empty ones are nothing, and after the end there is no stream."""
    pieces = [bytes([number]) * number for number in range(100)]
    asking, ref, _ = await ask_for_stream(nursery, list(pieces))
    assert await read(asking, ref) == b"".join(pieces)
    assert asking._connection.open_streams == 0
    assert asking._streams == {}
    with pytest.raises(StreamBroken):
        await asking.take(ref)


async def test_a_stream_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Whoever has seen enough says so: nothing is kept on either side."""
    asking, ref, streaming = await ask_for_stream(nursery, [b"x" * 1000] * 200)
    assert await asking.take(ref) == b"x" * 1000
    asking.give_up(ref)
    await trio.sleep(5)
    assert asking._connection.open_streams == asking._connection.held_bytes == 0
    assert streaming.connection.open_streams == 0


async def test_a_stream_that_nobody_reads_is_held_back(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Not taking leaves the rest with the peer, and nothing is lost by it."""
    asking, ref, streaming = await ask_for_stream(nursery, [b"x"] * 200)
    await trio.sleep(60)
    assert len(streaming.pieces) > 100
    assert await read(asking, ref) == b"x" * 200


def as_text(text: str) -> str:
    """The message, with a text in the place of a chunk of bytes."""
    envelope = json.loads(text)
    response = envelope.get("response")
    if isinstance(response, dict) and isinstance(response.get("chunkData"), dict):
        response["chunkData"] = "no bytes"
    return json.dumps(envelope)


async def test_a_stream_of_something_else(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A piece that is not bytes raises, and the stream is given up."""
    asking, ref, streaming = await ask_for_stream(nursery, [b"x", b"y"], rewrite=as_text)
    with pytest.raises(StreamBroken, match="something else than bytes"):
        await asking.take(ref)
    await trio.sleep(5)
    assert asking._streams == {}
    assert asking._connection.open_streams == streaming.connection.open_streams == 0


def by_its_maker(_: Peer, streaming: Streaming) -> None:
    assert streaming.stream is not None
    streaming.connection.abort(streaming.stream)


def by_hanging_up(asking: Peer, _: Streaming) -> None:
    asking.hang_up("enough")


@pytest.mark.parametrize(
    ("breaks", "error"), [(by_its_maker, StreamBroken), (by_hanging_up, ConnectionClosed)]
)
async def test_a_stream_that_breaks(
    autojump_clock: MockClock,
    breaks: Callable[[Peer, Streaming], None],
    error: type[Exception],
    nursery: trio.Nursery,
) -> None:
    """Whoever waits for the next piece of a stream that was given up, or lost its connection, learns that."""
    asking, ref, streaming = await ask_for_stream(nursery, [b"x"], ends=False)
    assert await asking.take(ref) == b"x"

    async def break_it() -> None:
        await trio.sleep(3)
        breaks(asking, streaming)

    nursery.start_soon(break_it)
    with pytest.raises(error):
        await asking.take(ref)
    assert asking._streams == {}
    assert asking._connection.open_streams == 0


@frozen
class CancellingSocket:
    """Cancels with every message that arrives."""

    socket: TextSocket
    scope: trio.CancelScope
    peer: str = "far:1"
    arriving: int = 0

    async def send(self, text: str) -> None:
        """See `Socket`."""
        await self.socket.send(text)

    async def receive(self) -> str:
        """See `Socket`."""
        text = await self.socket.receive()
        self.scope.cancel()
        return text


async def test_an_answer_that_nobody_waits_for_leaves_no_stream(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A request that is cancelled when its answer is there already gives up the streams in it."""
    near, far = socket_pair()
    scope = trio.CancelScope()
    asking, streaming = Peer(CancellingSocket(near, scope)), Streaming(far, [b"x"] * 10)
    nursery.start_soon(asking.run)
    nursery.start_soon(streaming.run)
    with scope:
        await asking.request("stream", {})
    assert scope.cancelled_caught
    await trio.sleep(5)
    assert asking._streams == {}
    assert asking._connection.open_streams == 0


# --- bounds and tags


async def test_a_peer_that_does_not_read_is_not_read(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What waits to be sent stays bounded, however much is asked; nothing is lost when it is fetched at last."""
    count, size = 10_000, 2_000
    near, far = socket_pair(room=0)
    peer = Peer(far, handlers={"do": lambda body: {"echo": body["text"]}})
    nursery.start_soon(peer.run)
    sent = 0

    async def ask() -> None:
        nonlocal sent
        for number in range(count):
            await near.send(request(number, text="x" * size))
            sent += 1

    nursery.start_soon(ask)
    await settle()
    answer_size = 2 * size + 1000
    assert peer_module.HIGH_WATER < peer._outbox.size < peer_module.HIGH_WATER + answer_size
    assert sent < count / 5
    for number in range(count):
        assert json.loads(await near.receive())["correlation"]["id"] == f"r-{number}"
    assert sent == count
    await settle()
    assert peer._outbox.size == 0


class Tagged:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Mapping[str, object]]] = []

    def tagged_by(self, peer: Peer, name: str) -> None:
        """See `TagListener`."""
        self.heard.append((f"+{name}", peer.tags))

    def untagged(self, peer: Peer, name: str) -> None:
        """See `TagListener`."""
        self.heard.append((f"-{name}", peer.tags))

    def refused(self, peer: Peer, name: str, reason: str) -> None:
        """See `TagListener`."""
        self.heard.append((f"?{name}", peer.tags))


async def test_tags(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The listener hears of every tag that the policy lets through; at the end of the connection there are none."""
    listener = Tagged()
    asking, answering, socket = pair(
        nursery, tag_policy=lambda name, _: name != "admin", tag_listener=listener
    )
    await asking.set_tag("a", {"n": 1})
    await asking.set_tag("a", {"n": 2})
    await asking.set_tag("b", None)
    with pytest.raises(Refused):
        await asking.set_tag("admin", None)
    await asking._answer(asking._connection.remove_tag("a", trio.current_time()))
    assert listener.heard == [
        ("+a", {"a": {"n": 1}}),
        ("+a", {"a": {"n": 2}}),
        ("+b", {"a": {"n": 2}, "b": None}),
        ("?admin", {"a": {"n": 2}, "b": None}),
        ("-a", {"b": None}),
    ]
    assert answering.tags == {"b": None}
    socket.close()
    await answering.ended.wait()
    assert answering.tags == {}
