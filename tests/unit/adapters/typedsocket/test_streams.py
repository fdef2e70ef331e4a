"""Streams between two connections of ours: both roles, both directions."""

import json

import pytest
from tests.unit.adapters.typedsocket.peers import (
    CLOSING,
    STREAM,
    Pair,
    answer,
    ask,
    buffer,
    connection,
    every,
    only,
    sent,
    text,
)

from coreflow.adapters.net.typedsocket import (
    Answered,
    Asked,
    CannotDeliver,
    Chunk,
    Connection,
    ConnectionClosed,
    End,
    Failed,
    Ignored,
    Item,
    Limits,
    Nothing,
    StreamBroken,
    StreamFailed,
    StreamReadable,
    StreamRef,
    StreamSent,
    StreamWritable,
    TimedOut,
    Timing,
    TooLarge,
    TooMany,
    Value,
)

PLACEHOLDER = {"_isVirtualStream": True, "streamId": "s1"}


def pair(*, limits: Limits | None = None, timing: Timing | None = None) -> Pair:
    """Two connections on a wire. The left one is always the one that made the first request."""
    return Pair(
        connection("left", limits=limits, timing=timing), connection("right", limits=limits, timing=timing)
    )


def upload(wire: Pair, *, reads: bool = False) -> tuple[StreamRef, StreamRef, int]:
    """A stream from left to right: as the left one knows it, as the right one does, and the request that brought it."""
    stream = wire.left.create_stream(reads=reads)
    wire.send(
        wire.left, wire.left.request("upload", {"deep": [{"stream": stream}]}, wire.now, timeout=9999).frames
    )
    wire.settle()
    asked = only(wire.events_of(wire.right), Asked)
    (received,) = asked.streams
    assert asked.request == {"deep": [{"stream": received}]}
    return stream, received, asked.ask


def download(wire: Pair) -> tuple[StreamRef, StreamRef]:
    """A stream from right to left, in the answer to a request: as the right one knows it, and as the left one does."""
    wire.send(wire.left, wire.left.request("download", {}, wire.now).frames)
    wire.settle()
    stream = wire.right.create_stream()
    asked = only(wire.events_of(wire.right), Asked)
    wire.send(wire.right, wire.right.respond(asked.ask, {"stream": stream}, wire.now))
    wire.settle()
    (received,) = only(wire.events_of(wire.left), Answered).streams
    return stream, received


def write(wire: Pair, writer: Connection, stream: StreamRef, *chunks: bytes, finish: bool = False) -> None:
    """Write chunks, and the end."""
    for chunk in chunks:
        wire.send(writer, writer.write(stream, chunk, wire.now))
    if finish:
        wire.send(writer, writer.finish(stream, wire.now))
    wire.settle()


def read_all(wire: Pair, reader: Connection, stream: StreamRef, *, timeout: float = 5) -> list[Item]:
    """Take everything, up to the end."""
    items: list[Item] = []
    waited = 0.0
    while not items or items[-1] != End():
        item = wire.read(reader, stream)
        if item != Nothing():
            items.append(item)
        elif waited < timeout:
            wire.wait(0.05)
            waited += 0.05
        else:
            raise AssertionError(f"nothing more after {len(items)} items")
    wire.settle()
    return items


CHUNKS = [f"chunk-{number}".encode() for number in range(50)]


def test_an_upload_arrives_in_order_and_ends() -> None:
    """The sender learns that everything was taken, and both forget the stream."""
    wire = pair()
    stream, received, _ = upload(wire)
    write(wire, wire.left, stream, b"a", b"", b"c", finish=True)
    assert only(wire.events_of(wire.left), StreamSent) == StreamSent(stream)
    assert set(every(wire.events_of(wire.right), StreamReadable)) == {StreamReadable(received)}
    assert read_all(wire, wire.right, received) == [Chunk(b"a"), Chunk(b""), Chunk(b"c"), End()]
    assert (wire.left.open_streams, wire.right.open_streams) == (0, 0)


def test_a_download_arrives_in_order_and_ends() -> None:
    """The answering side answers `read`, and says that it is alive until the end."""
    wire = pair()
    stream, received = download(wire)
    write(wire, wire.right, stream, b"a", b"", b"c", finish=True)
    assert read_all(wire, wire.left, received) == [Chunk(b"a"), Chunk(b""), Chunk(b"c"), End()]
    assert only(wire.events_of(wire.right), StreamSent) == StreamSent(stream)
    assert (wire.left.open_streams, wire.right.open_streams) == (0, 0)
    assert (wire.left.held_bytes, wire.right.held_bytes) == (0, 0)


def test_what_was_written_before_sending_goes_along() -> None:
    """A stream takes chunks as soon as it exists, in both roles."""
    wire = pair()
    stream = wire.left.create_stream()
    assert wire.left.write(stream, b"early", 0) == wire.left.finish(stream, 0) == ()
    wire.send(wire.left, wire.left.request("upload", {"stream": stream}, 0).frames)
    wire.settle()
    asked = only(wire.events_of(wire.right), Asked)
    assert read_all(wire, wire.right, asked.streams[0]) == [Chunk(b"early"), End()]
    back = wire.right.create_stream()
    wire.right.write(back, b"back", 0)
    wire.right.finish(back, 0)
    wire.send(wire.right, wire.right.respond(asked.ask, {"stream": back}, 0))
    wire.settle()
    (received,) = only(wire.events_of(wire.left), Answered).streams
    assert read_all(wire, wire.left, received) == [Chunk(b"back"), End()]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_slow_reader_holds_the_writer_back(direction: str) -> None:
    """Never more than a few chunks are queued on either side, and all arrive in the end."""
    wire = pair(limits=Limits(stream_items=4))
    if direction == "up":
        stream, received, _ = upload(wire)
        writer, reader = wire.left, wire.right
    else:
        stream, received = download(wire)
        writer, reader = wire.right, wire.left
    queue, items = list(CHUNKS), list[Item]()
    most = 0
    while not items or items[-1] != End():
        while queue and writer.can_write(stream):
            write(wire, writer, stream, queue.pop(0), finish=not queue)
        wire.wait(0.02)
        most = max(most, writer.held_bytes, reader.held_bytes)
        if (item := wire.read(reader, received)) != Nothing():
            items.append(item)
    assert items == [*map(Chunk, CHUNKS), End()]
    assert most < 1500
    assert every(wire.events_of(writer), StreamWritable)


def test_a_busy_peer_is_asked_every_fifty_milliseconds() -> None:
    """Until it has room."""
    wire = pair(limits=Limits(stream_items=2))
    stream, received, _ = upload(wire)
    for chunk in (b"1", b"2", b"3"):
        write(wire, wire.left, stream, chunk)
    before = wire.frames
    wire.wait(0.5)
    assert 9 <= (wire.frames - before) / 2 <= 11
    assert wire.read(wire.right, received) == Chunk(b"1")
    wire.wait(0.05)
    assert [wire.read(wire.right, received) for _ in range(3)] == [Chunk(b"2"), Chunk(b"3"), Nothing()]


def test_a_full_stream_refuses_a_chunk() -> None:
    """Whoever does not wait for room is told so, and loses nothing that was queued."""
    wire = pair(limits=Limits(stream_items=2))
    stream = wire.left.create_stream()
    wire.left.write(stream, b"1", 0)
    wire.left.write(stream, b"2", 0)
    assert not wire.left.can_write(stream)
    with pytest.raises(TooMany, match="full"):
        wire.left.write(stream, b"3", 0)
    assert wire.left.finish(stream, 0) == ()


def test_a_chunk_over_the_limit_is_refused() -> None:
    """Also where only its text would not fit into a message."""
    wire = pair(limits=Limits(message_bytes=65536))
    stream, received, _ = upload(wire)
    with pytest.raises(TooLarge):
        wire.left.write(stream, b"x" * 8193, 0)
    write(wire, wire.left, stream, b"\xff" * 8192)
    assert wire.read(wire.right, received) == Chunk(b"\xff" * 8192)


def test_nothing_is_written_after_the_end() -> None:
    """Finishing twice is harmless."""
    wire = pair()
    stream, _, _ = upload(wire)
    wire.left.finish(stream, 0)
    assert wire.left.finish(stream, 0) == ()
    assert not wire.left.can_write(stream)
    with pytest.raises(StreamBroken):
        wire.left.write(stream, b"late", 0)


def test_both_directions_at_once() -> None:
    """A stream that was made to read carries data back, too."""
    wire = pair()
    stream, received, _ = upload(wire, reads=True)
    write(wire, wire.right, received, b"back-1", b"back-2")
    write(wire, wire.left, stream, b"up-1", b"up-2", finish=True)
    write(wire, wire.right, received, finish=True)
    assert read_all(wire, wire.right, received) == [Chunk(b"up-1"), Chunk(b"up-2"), End()]
    assert read_all(wire, wire.left, stream) == [Chunk(b"back-1"), Chunk(b"back-2"), End()]
    assert (wire.left.open_streams, wire.right.open_streams) == (0, 0)


def test_data_sent_back_is_left_alone_unless_wanted() -> None:
    """An upload is an upload, whatever the other side announces."""
    wire = pair()
    stream, received, _ = upload(wire)
    write(wire, wire.right, received, b"back")
    write(wire, wire.left, stream, b"up", finish=True)
    wire.wait(3)
    only(wire.events_of(wire.left), StreamSent)
    assert (wire.left.open_streams, wire.left.held_bytes) == (0, 0)


def test_a_stream_lives_on_after_its_request_was_answered() -> None:
    """A handler may answer first and read later."""
    wire = pair()
    stream, received, number = upload(wire)
    (frame,) = wire.right.respond(number, {"accepted": True}, 0)
    reason = "path is under .request: obmitted for deduplication reasons in response cycle."
    assert json.loads(frame)["request"] == {
        "deep": [{"stream": {"_OBMITTED_VIRTUAL_STREAM": True, "reason": reason}}]
    }
    wire.send(wire.right, [frame])
    write(wire, wire.left, stream, b"later", finish=True)
    assert only(wire.events_of(wire.left), Answered).response == {"accepted": True}
    assert read_all(wire, wire.right, received) == [Chunk(b"later"), End()]


def test_an_idle_stream_is_kept_alive_every_second() -> None:
    """For as long as nobody ends it, and without a time limit of its own."""
    wire = pair()
    stream, received, _ = upload(wire)
    before = wire.frames
    wire.wait(60)
    assert (wire.frames - before) / 2 == 60
    write(wire, wire.left, stream, b"at last", finish=True)
    assert read_all(wire, wire.right, received) == [Chunk(b"at last"), End()]
    before = wire.frames
    wire.wait(10)
    assert wire.frames == before


def test_a_slow_writer_is_asked_often_at_first() -> None:
    """A reader that outruns its writer does not wait for the next keep-alive."""
    wire = pair()
    stream, received = download(wire)
    for number in range(5):
        write(wire, wire.right, stream, b"%d" % number)
        start = wire.now
        while wire.read(wire.left, received) == Nothing():
            wire.wait(0.01)
        assert wire.now - start < (1.1 if number == 0 else 0.1)
        wire.wait(0.02)


def test_a_question_that_is_never_answered_breaks_the_stream() -> None:
    """And only the stream."""
    wire = pair(timing=Timing(question=5))
    stream, _, _ = upload(wire)
    me = wire.left
    me.write(stream, b"x", 1)
    events = [*me.tick(1.0), *me.tick(6.0)]
    failed = only(events, StreamFailed)
    assert (failed.stream, type(failed.error)) == (stream, TimedOut)
    assert (me.open_streams, me.held_bytes, me.waiting_requests) == (0, 0, 1)


def test_a_peer_that_never_asks_breaks_the_stream() -> None:
    """A real server that puts a stream into a request never asks about it (captured)."""
    me = connection(timing=Timing(question=5))
    asked = only(me.receive(ask("takeStream", {"stream": PLACEHOLDER}), 0), Asked)
    assert me.next_deadline() == 5
    failed = only(me.tick(5), StreamFailed)
    assert (failed.stream, type(failed.error)) == (asked.streams[0], TimedOut)
    assert me.respond(asked.ask, {"took": True}, 6)


def test_what_arrived_completely_outlives_the_connection() -> None:
    """A stream with its end is as good as a value; any other fails."""
    wire = pair()
    stream, received, _ = upload(wire)
    write(wire, wire.left, stream, b"all", finish=True)
    other, _, _ = upload(wire)
    assert every(wire.right.close("gone"), StreamFailed) != []
    failed = [event for event in wire.left.close("gone") if isinstance(event, StreamFailed)]
    assert [event.stream for event in failed] == [other]
    assert wire.right.take(received, 0).item == Chunk(b"all")
    assert wire.right.take(received, 0).item == End()
    with pytest.raises(StreamBroken):
        wire.right.take(received, 0)
    with pytest.raises(ConnectionClosed):
        wire.left.write(other, b"x", 0)


def test_the_asking_side_gives_up() -> None:
    """It says so, and the answering side's owner learns of it."""
    wire = pair()
    stream, received, _ = upload(wire)
    write(wire, wire.left, stream, b"x")
    wire.events_of(wire.right)
    wire.send(wire.left, wire.left.abort(stream))
    wire.settle()
    assert only(wire.events_of(wire.right), StreamFailed).stream == received
    assert (wire.left.open_streams, wire.right.open_streams, wire.left.abort(stream)) == (0, 0, ())


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_answering_side_gives_up(direction: str) -> None:
    """It cannot say so by itself; the next question finds out."""
    wire = pair()
    if direction == "up":
        stream, received, _ = upload(wire)
        assert wire.right.abort(received) == ()
        write(wire, wire.left, stream, b"x")
    else:
        received, stream = download(wire)
        assert wire.right.abort(received) == ()
    wire.wait(3)
    failed = only(wire.events_of(wire.left), StreamFailed)
    assert (failed.stream, type(failed.error)) == (stream, StreamBroken)
    assert (wire.left.open_streams, wire.right.open_streams) == (0, 0)


def test_an_error_answer_gives_up_the_streams_of_the_request() -> None:
    """On both sides: nobody is going to read them."""
    wire = pair()
    stream, _, number = upload(wire)
    wire.send(wire.right, wire.right.respond_error(number, "no"))
    wire.settle()
    events = wire.events_of(wire.left)
    assert only(events, StreamFailed).stream == stream
    only(events, Failed)
    assert (wire.left.open_streams, wire.right.open_streams) == (0, 0)


def test_a_cancelled_request_takes_its_streams_along() -> None:
    """Without events, but not without a word to the peer."""
    wire = pair()
    stream = wire.left.create_stream()
    requested = wire.left.request("upload", {"stream": stream}, 0)
    wire.send(wire.left, requested.frames)
    wire.settle()
    wire.send(wire.left, wire.left.cancel(requested.id))
    wire.settle()
    only(wire.events_of(wire.right), StreamFailed)
    assert every(wire.events_of(wire.left), StreamFailed) == []
    assert (wire.left.open_streams, wire.right.open_streams) == (0, 0)


def test_the_number_of_streams_is_limited() -> None:
    """Ours raise; a request that brings too many is refused, and its streams are not known."""
    me = connection(limits=Limits(streams=2))
    me.create_stream()
    keep = me.create_stream()
    with pytest.raises(TooMany, match="2 streams"):
        me.create_stream()
    me.abort(keep)
    two = {"a": PLACEHOLDER, "b": {**PLACEHOLDER, "streamId": "s2"}}
    (refusal,) = sent(me.receive(ask("upload", two), 0))
    assert "2 streams" in refusal["error"]["text"]
    assert me.open_streams == 1


def test_an_answer_with_too_many_streams_fails_its_request() -> None:
    """With the limit as reason."""
    me = connection(limits=Limits(streams=1))
    question = me.request("download", {}, 0).frames[0]
    response = {"a": PLACEHOLDER, "b": {**PLACEHOLDER, "streamId": "s2"}}
    assert isinstance(only(me.receive(answer(question, response), 0), Failed).error, TooMany)
    assert me.open_streams == 0


def test_a_stream_that_stands_twice_is_one() -> None:
    """In what arrives, and in what is sent."""
    wire = pair()
    stream = wire.left.create_stream()
    wire.send(wire.left, wire.left.request("upload", {"a": stream, "b": [stream]}, 0).frames)
    wire.settle()
    asked = only(wire.events_of(wire.right), Asked)
    assert asked.request == {"a": asked.streams[0], "b": [asked.streams[0]]}
    assert wire.right.open_streams == 1


def test_a_stream_is_sent_once() -> None:
    """And only on the connection that made it."""
    wire = pair()
    stream, _, number = upload(wire)
    foreign = wire.left.create_stream()
    with pytest.raises(StreamBroken):
        wire.left.request("upload", {"stream": stream}, 0)
    with pytest.raises(StreamBroken):
        wire.right.respond(number, {"stream": foreign}, 0)
    assert wire.right.respond_error(number)


def test_a_stream_with_the_roles_exchanged_is_refused() -> None:
    """Nobody could say who has to ask."""
    wire = pair()
    stream, received, _ = upload(wire)
    (refusal,) = sent(
        wire.left.receive(ask("odd", {"s": {"_isVirtualStream": True, "streamId": stream.id}}), 0)
    )
    assert "roles" in refusal["error"]["text"]
    question = wire.right.request("odd", {}, 0).frames[0]
    response = {"s": {"_isVirtualStream": True, "streamId": received.id}}
    assert isinstance(only(wire.right.receive(answer(question, response), 0), Failed).error, StreamBroken)


NEWER = {
    "_isVirtualStream": True,
    "protocol": "virtual-stream-v1",
    "streamId": "s1",
    "creatorDirection": "send",
    "transport": {},
}


def test_streams_of_the_newer_generation_are_refused_by_name() -> None:
    """Their bytes travel in a way that we do not know."""
    me = connection()
    (refusal,) = sent(me.receive(ask("upload", {"stream": NEWER}), 0))
    assert "virtual-stream-v1" in refusal["error"]["text"]
    question = me.request("download", {}, 0).frames[0]
    assert isinstance(only(me.receive(answer(question, {"stream": NEWER}), 0), Failed).error, CannotDeliver)
    assert me.open_streams == 0


def test_a_peer_without_streams_breaks_ours() -> None:
    """The newer generation answers stream frames like any unknown method (captured)."""
    me = connection()
    stream = me.create_stream()
    _, pulse = me.request("upload", {"stream": stream}, 0).frames
    events = me.receive(answer(pulse, None, error={"text": "There is no available method", "data": {}}), 0)
    assert isinstance(only(events, StreamFailed).error, CannotDeliver)


@pytest.mark.parametrize(
    "value",
    [
        True,
        {"_isVirtualStream": True},
        {"_isVirtualStream": True, "streamId": 5},
        {"_isVirtualStream": "yes"},
    ],
)
def test_what_only_looks_like_a_stream_is_a_value(value: object) -> None:
    """It reaches the owner as it is."""
    me = connection()
    request = {"_isVirtualStream": False, "value": value}
    assert only(me.receive(ask("do", request), 0), Asked).request == request
    assert me.open_streams == 0


def test_a_request_that_is_a_stream_is_refused() -> None:
    """Handlers may rely on an object."""
    assert sent(connection().receive(ask("do", PLACEHOLDER), 0))[0]["error"]


def test_streams_are_not_looked_for_without_end() -> None:
    """A message with streams that nests very deep is refused, or fails."""
    me = connection()
    deep: object = PLACEHOLDER
    for _ in range(150):
        deep = [deep]
    (refusal,) = sent(me.receive(ask("do", {"deep": deep}), 0))
    assert "deep" in refusal["error"]["text"]
    question = me.request("get", {}, 0).frames[0]
    assert isinstance(only(me.receive(answer(question, {"deep": deep}), 0), Failed).error, StreamBroken)


# --- one side against hand-made frames


def question(
    purpose: str, stream_id: str = "s1", cycle_id: str = "c1", response: object = None, **members: object
) -> str:
    """A stream frame, as typedrequest 3.x makes it: without a correlation."""
    packet = {
        "streamId": stream_id,
        "cycleId": cycle_id,
        "cycle": "request",
        "mainPurpose": purpose,
        **members,
    }
    return text(method=STREAM, request=packet, response=response)


def receiving(limits: Limits | None = None) -> Connection:
    """A connection that was asked to take the stream `s1`."""
    me = connection(limits=limits)
    me.receive(ask("upload", {"stream": PLACEHOLDER}), 0)
    return me


def response_to(me: Connection, frame: str) -> object:
    """The packet in the one answer to a stream frame."""
    (reply,) = sent(me.receive(frame, 0))
    return reply["response"]


HEAD = {"streamId": "s1", "cycleId": "c1", "cycle": "response"}


@pytest.mark.parametrize("purpose", ["feedback", "read", "start", "end", "whatever"])
def test_a_question_that_brings_nothing_is_answered_with_the_state(purpose: str) -> None:
    """Never with `null`: a peer could not tell that from a question."""
    expected = {**HEAD, "mainPurpose": "feedback", "next": False, "backpressure": False}
    assert response_to(receiving(), question(purpose)) == expected


def test_an_unknown_stream_is_answered_as_dead() -> None:
    """That ends the keep-alive of a Node peer, which would go on for ever if the question just came back."""
    expected = {**HEAD, "mainPurpose": "keepAlive", "keepAlive": False, "next": False, "backpressure": False}
    for purpose in ("keepAlive", "feedback", "chunk", "read", "end"):
        assert response_to(connection(), question(purpose)) == expected


def test_a_chunk_may_follow_its_request_at_once() -> None:
    """The stream is known before the next message is looked at, and long before a handler runs."""
    me = connection()
    asked = only(me.receive(ask("upload", {"stream": PLACEHOLDER}), 0), Asked)
    me.receive(question("chunk", chunkData=buffer(b"at once")), 0)
    assert me.take(asked.streams[0], 0).item == Chunk(b"at once")


def test_chunks_that_are_not_bytes_are_handed_on() -> None:
    """Real peers allow any JSON in a stream."""
    me = receiving()
    me.receive(question("chunk", chunkData={"any": "json"}), 0)
    me.receive(question("chunk", chunkData="text"), 0)
    taken = [me.take(StreamRef("s1"), 0).item for _ in range(3)]
    assert taken == [Value({"any": "json"}), Value("text"), Nothing()]


def test_an_answer_to_a_chunk_does_not_echo_it() -> None:
    """Real peers leave the question out, too."""
    (reply,) = sent(receiving().receive(question("chunk", chunkData=buffer(b"x")), 0))
    assert reply["request"] is None
    assert "correlation" not in reply


def test_a_frame_that_could_be_an_answer_is_never_answered() -> None:
    """Whatever else it says: this is what keeps two peers from playing ball with it."""
    me = receiving()
    for response in ({}, {"backpressure": False}, "x", {**HEAD, "mainPurpose": "feedback"}):
        assert [type(event) for event in me.receive(question("feedback", response=response), 0)] == [Ignored]


def test_a_question_about_a_stream_of_ours_is_never_answered() -> None:
    """It can only be an echo, late or not, also when the stream is over."""
    wire = pair()
    stream, _, _ = upload(wire)
    assert [type(event) for event in wire.left.receive(question("feedback", stream.id), 0)] == [Ignored]
    wire.left.abort(stream)
    assert [type(event) for event in wire.left.receive(question("feedback", stream.id), 0)] == [Ignored]


def test_an_answer_is_found_by_its_cycle() -> None:
    """Peers of typedrequest 3.x put no correlation into what they answer, if there was none in the question."""
    me = connection()
    stream = me.create_stream()
    me.request("upload", {"stream": stream}, 0)
    (feedback,) = me.write(stream, b"x", 0)
    for_it = json.loads(feedback)
    packet = {**for_it["request"], "cycle": "response", "next": False, "backpressure": False}
    (chunk,) = sent(me.receive(text(method=STREAM, request=None, response=packet), 0))
    assert chunk["request"]["mainPurpose"] == "chunk"
    del chunk["correlation"]
    events = me.receive(json.dumps(chunk), 0)
    assert isinstance(only(events, StreamFailed).error, StreamBroken)


def test_a_peer_that_ignores_back_pressure_loses_its_stream() -> None:
    """Not its connection, and not our memory."""
    me = receiving(Limits(stream_items=4))
    for _ in range(16):
        assert every(me.receive(question("chunk", chunkData=buffer(b"x")), 0), StreamFailed) == []
    events = me.receive(question("chunk", chunkData=buffer(b"x")), 0)
    assert isinstance(only(events, StreamFailed).error, TooMany)
    assert sent(events)[0]["response"]["keepAlive"] is False
    assert (me.open_streams, me.is_closed) == (0, False)


def test_queued_bytes_are_limited_for_all_streams_together() -> None:
    """The stream that goes over the limit is lost, the others are not."""
    me = receiving(Limits(queued_bytes=10_000))
    me.receive(ask("upload", {"stream": {**PLACEHOLDER, "streamId": "s2"}}), 0)
    me.receive(question("chunk", "s1", chunkData=buffer(b"x" * 6000)), 0)
    events = me.receive(question("chunk", "s2", chunkData=buffer(b"x" * 6000)), 0)
    assert only(events, StreamFailed).stream == StreamRef("s2")
    assert me.take(StreamRef("s1"), 0).item == Chunk(b"x" * 6000)


def test_a_chunk_that_nests_too_deep_breaks_the_stream() -> None:
    """It could not be weighed."""
    deep: object = "x"
    for _ in range(300):
        deep = [deep]
    events = receiving().receive(question("chunk", chunkData=deep), 0)
    assert isinstance(only(events, StreamFailed).error, TooMany)


def test_nothing_is_taken_after_the_closing_marker() -> None:
    """A peer that goes on is answered, and that is all."""
    me = receiving()
    me.receive(question("chunk", chunkData=CLOSING), 0)
    assert response_to(me, question("chunk", chunkData=buffer(b"late")))
    assert me.take(StreamRef("s1"), 0).item == End()


def test_a_repeated_request_brings_the_same_stream() -> None:
    """A peer that repeats a request sends its placeholder again."""
    me = receiving()
    asked = only(me.receive(ask("upload", {"stream": PLACEHOLDER}), 0), Asked)
    assert asked.streams == (StreamRef("s1"),)
    assert me.open_streams == 1


def test_a_farewell_ends_an_upload() -> None:
    """A keep-alive question that says no."""
    events = receiving().receive(question("keepAlive", keepAlive=False), 0)
    assert isinstance(only(events, StreamFailed).error, StreamBroken)
    assert sent(events)[0]["response"]["keepAlive"] is False
