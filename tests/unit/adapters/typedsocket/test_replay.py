"""What real peers sent is understood, and what we send in their place has the same members.

Captured between Node peers. We stand in for one side at a time.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import pytest
from tests.unit.adapters.typedsocket.peers import (
    CLOSING,
    STREAM,
    Frame,
    buffer,
    captured,
    connection,
    every,
    only,
    sent,
)

from coreflow.adapters.net.typedsocket import (
    Answered,
    Asked,
    Chunk,
    Connection,
    End,
    Event,
    Failed,
    Ignored,
    Item,
    Nothing,
    Send,
    StreamFailed,
    StreamRef,
    StreamSent,
    TagRemoved,
    TagSet,
    Value,
)

NOT_OURS = {"localData"}


def members(message: object) -> object:
    """The shape of a message: names of members, kinds of values."""
    match message:
        case dict():
            return {key: members(value) for key, value in message.items() if key not in NOT_OURS}
        case list():
            return [members(value) for value in message]
        case bool() | None:
            return message
    return type(message).__name__


def conversations() -> Iterator[tuple[str, list[Frame]]]:
    """All connections that were captured."""
    found: dict[tuple[str, str, int], list[Frame]] = defaultdict(list)
    for frame in captured():
        found[frame.setup, frame.scenario, frame.conn].append(frame)
    for (setup, scenario, conn), frames in found.items():
        yield f"{scenario}-{setup}-{conn}", frames


CONVERSATIONS = dict(conversations())
SCENARIOS = [name for name in CONVERSATIONS if not name.startswith("malformed")]


def is_request(frame: Frame) -> bool:
    """Somebody asks for something other than stream data."""
    message = frame.json
    return bool(message["method"] != STREAM and message["correlation"]["phase"] == "request")


def scripted(*names: str) -> Callable[[], str]:
    """An id factory that begins with given ids."""
    rest = (f"more-{number}" for number in count())
    return chain(names, rest).__next__


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("listening_to", ["c2s", "s2c"])
def test_every_captured_request_is_understood(name: str, listening_to: str) -> None:
    """By method and content, in place of the side that got it; and our answer has the members of theirs."""
    frames = CONVERSATIONS[name]
    theirs = {
        frame.json["correlation"]["id"]: frame.json
        for frame in frames
        if not is_request(frame) and "correlation" in frame.json
    }
    for frame in frames:
        if frame.direction != listening_to or not is_request(frame):
            continue
        me = connection()
        event = only(me.receive(frame.data, 0), Asked)
        assert event.method == frame.json["method"]
        assert len(event.streams) == json.dumps(frame.json).count("_isVirtualStream")
        expected = theirs.get(frame.json["correlation"]["id"])
        if expected is not None:
            check_answer(me, event, expected)


def check_answer(me: Connection, event: Asked, expected: dict[str, Any]) -> None:
    """Answer like the captured peer, and compare."""
    error = expected.get("error")
    if error is None and (retry := expected.pop("retry", None)) is not None:
        assert set(retry) == {"waitForMs", "reason"}
    if error is not None:
        frames = me.respond_error(event.ask, error["text"], error.get("data"))
        error.setdefault("data", {})  # a 3.3.0 leaves it out, if there is none
    else:
        frames = me.respond(event.ask, expected["response"], 0)
    assert members(json.loads(frames[0])) == members(expected)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("asked_by", ["c2s", "s2c"])
def test_every_captured_answer_is_understood(name: str, asked_by: str) -> None:
    """In place of the side that asked: our request has the members of theirs, and ends as theirs did."""
    frames = CONVERSATIONS[name]
    answers = {
        (frame.json["correlation"]["id"], frame.json.get("requestInstanceId")): frame.json
        for frame in frames
        if frame.direction != asked_by and frame.json["method"] != STREAM and not is_request(frame)
    }
    for frame in frames:
        if frame.direction != asked_by or not is_request(frame) or "_isVirtualStream" in str(frame.data):
            continue
        question = frame.json
        instance = question.setdefault("requestInstanceId", "ours")
        me = Connection(scripted(question["correlation"]["id"], instance))
        (ours,) = me.request(question["method"], question["request"], 0).frames
        assert json.loads(ours) == question
        reply = answers.get((question["correlation"]["id"], frame.json.get("requestInstanceId")))
        if reply is not None:
            check_end(me.receive(json.dumps(reply), 0), reply)


def check_end(events: list[Event], reply: dict[str, Any]) -> None:
    """A request ends with its result, with its error, or with a repetition."""
    if "retry" in reply:
        assert events == []
    elif reply.get("error") is not None:
        assert str(only(events, Failed).error) == reply["error"]["text"]
    elif reply["response"] is None:
        only(events, Failed)
    elif "_isVirtualStream" in json.dumps(reply["response"]):
        assert only(events, Answered).streams
    else:
        assert only(events, Answered).response == reply["response"]


def received(me: Connection, stream: StreamRef) -> list[Item]:
    """What has arrived in a stream."""
    items: list[Item] = []
    while (item := me.take(stream, 0).item) != Nothing():
        items.append(item)
        if item == End():
            break
    return items


UPLOADS = {
    "uploadWait-3.3.0": [Chunk(b"chunk-0"), Chunk(b"chunk-1"), End()],
    "uploadWait-smartjson": [Chunk(b"chunk-0"), Chunk(b"chunk-1"), End()],
    "uploadReturn-3.3.0": [*(Chunk(b"part-%d" % number) for number in range(3)), End()],
    "uploadEmptyChunk-3.3.0": [Chunk(b""), Chunk(b""), Value({"any": "json"}), End()],
    "uploadBackpressure-3.3.0": [*(Chunk(b"%d" % number) for number in range(40)), End()],
    "streamWithoutCorrelation-3.3.0": [Chunk(b"no-correlation"), End()],
    "duplex-3.3.0": [Chunk(b"ping")],
}


@pytest.mark.parametrize("name", UPLOADS)
def test_captured_uploads_arrive(name: str) -> None:
    """We answer in place of the server: each question once, in the shape of its answer, and the bytes are right."""
    frames = next(frames for full, frames in CONVERSATIONS.items() if full.startswith(name))
    theirs = {
        reply["cycleId"]: frame.json
        for frame in frames
        if (reply := frame.json["response"]) and "cycleId" in reply
    }
    me, streams, items = connection(), list[StreamRef](), list[Item]()
    for frame in frames:
        if frame.direction != "c2s":
            continue
        events = me.receive(frame.data, 0)
        streams += chain(*(event.streams for event in every(events, Asked)))
        if frame.json["method"] == STREAM:
            (ours,) = sent(events)
            expected = theirs.get(frame.json["request"]["cycleId"])
            if expected is None:  # `read`, which they do not answer
                continue
            assert set(ours["response"]) == set(expected["response"])
            assert ours["response"]["mainPurpose"] == expected["response"]["mainPurpose"]
            assert set(ours) == set(expected) - NOT_OURS
            assert (ours["request"] is None) == (expected["request"] is None)
        items += received(me, streams[0]) if streams and me.open_streams else []
        assert every(events, Ignored) == []
    assert items == UPLOADS[name]


def test_the_captured_asking_side_can_download_from_us() -> None:
    """The real one of 3.3.0 got its chunks from a hand-written peer; in that peer's place we answer as it did."""
    frames = captured("conformantDownload")
    streams: dict[str, Connection] = {}
    replies = {
        reply["cycleId"]: reply for frame in frames if "cycleId" in (reply := frame.json["response"] or {})
    }
    done = []
    for frame in frames:
        message = frame.json
        if frame.direction == "s2c" and message["method"] == "pull":
            stream_id = message["response"]["stream"]["streamId"]
            streams[stream_id] = offer(stream_id, message["request"]["n"])
        elif frame.direction == "c2s" and message["method"] == STREAM:
            me = streams[message["request"]["streamId"]]
            events = me.receive(frame.data, 0)
            (ours,) = sent(events)
            theirs = replies[message["request"]["cycleId"]]
            if isinstance(theirs.get("chunkData"), dict):
                theirs["chunkData"] = ours["response"]["chunkData"]  # they tried three encodings, we have one
            assert ours["response"] == theirs
            assert ours["correlation"]["phase"] == "response"
            done += every(events, StreamSent)
    assert len(done) == len(streams) == 4


def offer(stream_id: str, number: int) -> Connection:
    """A connection that offers a stream with so many pieces."""
    me = Connection(scripted(stream_id))
    asked = only(me.receive(json.dumps(captured("conformantDownload")[0].json), 0), Asked)
    stream = me.create_stream()
    pieces = [b"piece-%d" % piece for piece in range(number)]
    me.respond(asked.ask, {"stream": stream}, 0)
    # more than a queue holds: as if the owner had written in time
    queue = me._streams._answering[stream_id].outbox
    for piece in pieces:
        queue.put(piece)
    me.finish(stream, 0)
    return me


@pytest.mark.parametrize("form", ["buffer", "indexed", "encoded"])
def test_captured_downloads_arrive(form: str) -> None:
    """In place of the asking side we ask for what was captured, with the same members, and understand every form."""
    pieces = [Chunk(b"piece-%d" % number) for number in range(3)]
    assert download_again(captured("conformantDownload"), f"stream-{form}-3") == [*pieces, End()]


def test_what_a_3_3_2_was_made_to_send_arrives() -> None:
    """The hand-made questions that got it to deliver are the ones that we ask."""
    frames = captured("downloadPoke", "3.3.2")
    stream_id = frames[1].json["response"]["stream"]["streamId"]
    assert download_again(frames, stream_id)[:4] == [Chunk(b"down-%d" % number) for number in range(4)]


def test_a_captured_3_3_0_is_not_asked_to_deliver() -> None:
    """Its answers tell its version, and `read` brings nothing."""
    frames = captured("download", "3.3.0")
    stream_id = frames[1].json["response"]["stream"]["streamId"]
    assert download_again(frames, stream_id) == []


def download_again(frames: list[Frame], stream_id: str) -> list[Item]:
    """Ask, and let each question be answered by the next captured answer to one of its kind."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    shapes: dict[str, object] = {}
    asked: dict[str, str] = {}
    for frame in frames:
        packet = frame.json["request"] or frame.json["response"]
        if frame.json["method"] != STREAM or packet["streamId"] != stream_id:
            continue
        if frame.direction == "c2s":
            asked[packet["cycleId"]] = kind = kind_of(frame.json)
            shapes[kind] = members(frame.json)
        else:
            kinds[asked[packet["cycleId"]]].append(frame.json)
    placeholder = next(f.json for f in frames if stream_id in json.dumps(f.json["response"]))
    me = Connection(scripted(placeholder["correlation"]["id"]))
    me.request(placeholder["method"], placeholder["request"], 0)
    events = me.receive(json.dumps(placeholder), 0)
    (stream,) = only(events, Answered).streams
    queue, items = list(events), list[Item]()
    while queue:
        event = queue.pop(0)
        if isinstance(event, Send):
            question = json.loads(event.text)
            kind = kind_of(question)
            assert members(question) == shapes[kind]
            if kinds[kind]:
                queue += me.receive(json.dumps(adapted(kinds[kind].pop(0), question)), 0)
        if not every(queue, Send) and me.open_streams:
            items += received(me, stream)
    return items


def kind_of(question: dict[str, Any]) -> str:
    """What a question is for; a poke is not a chunk."""
    purpose: str = question["request"]["mainPurpose"]
    return f"{purpose}{'-poke' if question['response'] is not None else ''}"


def adapted(reply: dict[str, Any], question: dict[str, Any]) -> dict[str, Any]:
    """A captured answer, as if it had been given to our question."""
    adapted = {**reply, "correlation": {**reply["correlation"], "id": question["correlation"]["id"]}}
    for member in ("request", "response"):
        if isinstance(reply[member], dict):
            adapted[member] = {**reply[member], "cycleId": question["request"]["cycleId"]}
    return adapted


def test_our_uploads_look_like_theirs() -> None:
    """The placeholder, and every kind of question, have the members of the captured ones."""
    theirs = [frame.json for frame in captured("uploadWait", "3.3.0") if frame.direction == "c2s"]
    shapes: dict[str, list[object]] = defaultdict(list)
    for message in theirs:
        if message["method"] == STREAM:
            shapes[kind_of(message)].append(sorted(message["request"]))
    me = connection()
    stream = me.create_stream()
    opening, *frames = me.request("uploadAndWait", {"stream": stream, "note": "upload"}, 0).frames
    ours = json.loads(opening)
    assert ours.pop("requestInstanceId")
    assert members(ours) == members(theirs[0])
    frames += me.write(stream, b"chunk-0", 0)
    me.finish(stream, 0)
    chunks: list[object] = []
    while frames:
        question = json.loads(frames.pop(0))
        assert sorted(question["request"]) in shapes[kind_of(question)]
        assert set(question) == set(theirs[1])
        chunks += [question["request"]["chunkData"]] if "chunkData" in question["request"] else []
        state = {**question["request"], "cycle": "response", "next": False, "backpressure": False}
        reply = {
            **question,
            "response": {**state, "mainPurpose": state["mainPurpose"].replace("chunk", "feedback")},
        }
        frames += [event.text for event in me.receive(json.dumps(reply), 0) if isinstance(event, Send)]
    assert chunks == [buffer(b"chunk-0"), CLOSING]
    assert me.open_streams == 0


@pytest.mark.parametrize("setup", ["3.3.0", "8.0.3"])
def test_captured_tags_are_set_and_removed(setup: str) -> None:
    """Of both generations."""
    me = connection(tags=lambda name, payload: True)
    conn = captured("tags", setup)[0].conn
    events: list[Event] = []
    for frame in captured("tags", setup, conn):
        if frame.direction == "c2s" and frame.json["method"].startswith("__typedsocket"):
            events += me.receive(frame.data, 0)
    assert every(events, TagSet) == [TagSet("coretraffic", {"hello": "payload"}), TagSet("bare", None)]
    assert every(events, TagRemoved) == [TagRemoved("bare")]
    assert [message["response"] for message in sent(events)] == [{"success": True}] * 3


def test_captured_bad_input_gets_no_answer_that_could_be_one() -> None:
    """What SmartServe ignored is ignored; what it returned unchanged is ignored or answered as an unknown stream."""
    for frame in captured("malformed"):
        if frame.direction != "c2s":
            continue
        events = connection().receive(frame.data, 0)
        assert every(events, StreamFailed) == []
        for message in sent(events):
            assert message["response"]["keepAlive"] is False
        assert len(events) == 1
