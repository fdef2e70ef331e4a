"""Requests of the peer, from arriving to their answer."""

import json

import pytest
from tests.unit.adapters.typedsocket.peers import ask, connection, every, only, sent, text

from coreflow.adapters.net.typedsocket import (
    Asked,
    Connection,
    Ignored,
    Limits,
    NotJson,
    Retry,
    Send,
    TooLarge,
)


def asked(me: Connection, message: str | bytes) -> Asked:
    """Let the peer ask."""
    return only(me.receive(message, 0), Asked)


def answered(me: Connection, message: str | bytes, response: dict[str, object] | None) -> dict[str, object]:
    """Let the peer ask, and answer it."""
    (frame,) = me.respond(asked(me, message).ask, response, 0)
    decoded: dict[str, object] = json.loads(frame)
    return decoded


def test_a_request_reaches_the_owner() -> None:
    """With its method and what it asks for."""
    event = asked(connection(), ask("pushThings", {"a": 1}))
    assert (event.method, event.request, event.streams) == ("pushThings", {"a": 1}, ())


@pytest.mark.parametrize("as_bytes", [bytes, bytearray, memoryview])
def test_binary_messages_count_as_text(as_bytes: type) -> None:
    """Real peers read both alike."""
    event = only(connection().receive(as_bytes(ask("é").encode()), 0), Asked)
    assert event.method == "é"


def test_an_answer_is_the_question_with_a_response() -> None:
    """Unknown members survive, inside `correlation`, too; `localData` does not, and nothing else is added."""
    question = {
        "method": "echo",
        "authInfo": {"jwt": "j"},
        "requestInstanceId": "inst-1",
        "custom": {"keep": "me"},
        "localData": {"peer": {"id": "spoofed"}},
        "request": {"a": 1},
        "response": None,
        "correlation": {"id": "x2", "phase": "request", "extra": 1},
    }
    expected = {
        **question,
        "response": {"b": 2},
        "correlation": {"id": "x2", "phase": "response", "extra": 1},
    }
    del expected["localData"]
    assert answered(connection(), json.dumps(question), {"b": 2}) == expected


def test_an_error_in_a_question_does_not_spoil_its_answer() -> None:
    """What only an answer may have is not echoed."""
    reply = answered(connection(), ask(error={"text": "x"}, retry={"waitForMs": 1}), {"b": 2})
    assert "error" not in reply
    assert "retry" not in reply


@pytest.mark.parametrize("leftover", [None, {"leftover": True}])
def test_no_result_is_answered_with_null(leftover: object) -> None:
    """The newer generation takes nothing for an answer that lacks `response`; a leftover is overwritten."""
    message = json.loads(ask())
    message["response"] = leftover
    assert answered(connection(), json.dumps(message), None)["response"] is None


@pytest.mark.parametrize("members", [{}, {"request": None}, {"request": {}}])
def test_a_missing_request_is_an_empty_one(members: dict[str, object]) -> None:
    """Absent and null are alike."""
    message = text(method="do", correlation={"id": "x", "phase": "request"}, **members)
    assert asked(connection(), message).request == {}


def test_an_error_has_text_and_data() -> None:
    """Both always, next to a null response."""
    me = connection()
    (frame,) = me.respond_error(asked(me, ask()).ask, "no", {"code": 42})
    assert json.loads(frame)["error"] == {"text": "no", "data": {"code": 42}}
    assert json.loads(frame)["response"] is None


def test_an_unexpected_error_tells_the_peer_nothing() -> None:
    """The text is the one of the newer peers."""
    me = connection()
    (frame,) = me.respond_error(asked(me, ask()).ask)
    assert json.loads(frame)["error"] == {"text": "Internal server error", "data": {}}


def test_an_unknown_method_is_answered_as_real_peers_do() -> None:
    """Clients included."""
    me = connection()
    (frame,) = me.respond_unknown(asked(me, ask("nope")).ask)
    text_of_error = "There is no available method for this call on the server side"
    assert json.loads(frame)["error"] == {"text": text_of_error, "data": {}}


def test_an_answer_may_ask_for_a_repetition() -> None:
    """With a time and a reason."""
    me = connection()
    (frame,) = me.respond(asked(me, ask()).ask, None, 0, retry=Retry(wait_ms=150, reason="warming up"))
    assert json.loads(frame)["retry"] == {"waitForMs": 150, "reason": "warming up"}


def test_a_request_is_answered_once() -> None:
    """The second time is a mistake of ours."""
    me = connection()
    number = asked(me, ask()).ask
    me.respond(number, {}, 0)
    with pytest.raises(LookupError):
        me.respond(number, {}, 0)
    with pytest.raises(LookupError):
        me.respond_error(number)


def test_the_same_id_asked_again_is_another_request() -> None:
    """A peer that repeats a request keeps its id."""
    me = connection()
    first, second = asked(me, ask()), asked(me, ask())
    assert first.ask != second.ask
    assert len(me.respond(first.ask, {}, 0)) == len(me.respond(second.ask, {}, 0)) == 1


def test_after_closing_an_answer_is_not_sent() -> None:
    """There is nobody to read it, and the handler need not know."""
    me = connection()
    number = asked(me, ask()).ask
    me.close("gone")
    assert (me.respond(number, {}, 0), me.respond_error(number), me.held_bytes) == ((), (), 0)


def test_too_many_open_requests_are_refused() -> None:
    """At once, with a text that says why; room comes back with the answers."""
    me = connection(limits=Limits(requests=2))
    first = asked(me, ask(correlation_id="1"))
    asked(me, ask(correlation_id="2"))
    events = me.receive(ask(correlation_id="3"), 0)
    assert every(events, Asked) == []
    only(events, Ignored)
    (refusal,) = sent(events)
    assert refusal["error"]["text"].startswith("2 requests")
    me.respond(first.ask, {}, 0)
    asked(me, ask(correlation_id="4"))


def test_too_large_open_requests_are_refused() -> None:
    """What an answer has to echo is kept, so it is counted."""
    me = connection(limits=Limits(request_bytes=1000))
    number = asked(me, ask(request={"x": "y" * 900})).ask
    assert "bytes" in sent(me.receive(ask(request={"x": "y" * 900}), 0))[0]["error"]["text"]
    assert me.held_bytes > 900
    me.respond(number, {}, 0)
    assert me.held_bytes == 0


@pytest.mark.parametrize("request_", ["text", 5, [1], True])
def test_a_request_that_is_no_object_is_refused(request_: object) -> None:
    """Handlers may rely on an object."""
    (refusal,) = sent(connection().receive(ask(request=request_), 0))
    assert refusal["error"]["text"] == "the request is not an object"


def test_an_answer_that_is_not_json_leaves_the_request_open() -> None:
    """It can still be answered with an error."""
    me = connection()
    number = asked(me, ask()).ask
    with pytest.raises(NotJson):
        me.respond(number, {"x": object()}, 0)
    assert me.respond_error(number)


def test_an_echo_that_does_not_fit_is_left_out() -> None:
    """Question and answer fit each for itself; together they do not, and the answer matters more."""
    me = connection(limits=Limits(message_bytes=65536))
    reply = answered(me, ask(request={"x": "y" * 40_000}), {"z": "z" * 40_000})
    assert reply["request"] is None
    assert reply["correlation"] == {"id": "their-1", "phase": "response"}


def test_an_answer_that_is_too_large_raises() -> None:
    """The owner may answer with an error instead."""
    me = connection(limits=Limits(message_bytes=65536))
    number = asked(me, ask()).ask
    with pytest.raises(TooLarge):
        me.respond(number, {"z": "z" * 70_000}, 0)
    assert me.respond_error(number, "too large")


@pytest.mark.parametrize("member", ["request", "custom"])
def test_an_echo_that_cannot_be_written_is_left_out(member: str) -> None:
    """What nests deeper than the encoder goes is still answered, with the instance."""
    deep = '{"a":' * 500 + "1" + "}" * 500
    head = '"method":"do","requestInstanceId":"i","correlation":{"id":"x","phase":"request"}'
    reply = answered(connection(), f'{{{head},"{member}":{deep}}}', {"b": 2})
    assert (reply["response"], reply["requestInstanceId"]) == ({"b": 2}, "i")


DEEP = "[" * 5000 + "]" * 5000

MALFORMED = {
    "not JSON": "hello",
    "empty": "",
    "null": "null",
    "number": "5",
    "string": '"x"',
    "array": "[1]",
    "empty object": "{}",
    "NaN": '{"method": NaN}',
    "half an object": '{"method":"echo"',
    "not UTF-8": b"\xff\xfe{}",
    "nested for ever": DEEP,
    "no correlation": '{"method":"echo","request":{"a":1},"response":null}',
    "no phase": '{"method":"echo","request":{"a":1},"response":null,"correlation":{"id":"x1"}}',
    "strange phase": '{"method":"echo","request":{},"correlation":{"id":"x1","phase":7}}',
    "correlation is a list": '{"method":"echo","request":{},"correlation":[]}',
    "no id": '{"method":"echo","request":{},"correlation":{"phase":"request"}}',
    "id is a number": '{"method":"echo","request":{},"correlation":{"id":5,"phase":"request"}}',
    "endless id": ask(correlation_id="x" * 2000),
    "no method": '{"request":{},"correlation":{"id":"x","phase":"request"}}',
    "method is an object": '{"method":{},"request":{},"correlation":{"id":"x","phase":"request"}}',
    "answer to nobody": '{"method":"echo","request":{},"response":{},"correlation":{"id":"nobody","phase":"response"}}',
    "stream frame without a packet": '{"method":"##VirtualStream##","request":null,"response":null}',
    "stream frame about nothing": '{"method":"##VirtualStream##","request":{"streamId":"s"},"response":null}',
    "stream answer to nobody": (
        '{"method":"##VirtualStream##","request":null,"correlation":{"id":"s2","phase":"request"},"response":'
        '{"streamId":"s","cycleId":"c","cycle":"response","mainPurpose":"feedback"}}'
    ),
    "stream answer without a response": (
        '{"method":"##VirtualStream##","response":null,"correlation":{"id":"s2","phase":"response"},"request":'
        '{"streamId":"s","cycleId":"c","cycle":"request","mainPurpose":"feedback"}}'
    ),
    "late stream answer that lost its response": (
        '{"method":"##VirtualStream##","response":null,"request":'
        '{"streamId":"s","cycleId":"c","cycle":"response","mainPurpose":"feedback"}}'
    ),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_message_gets_no_answer(message: str | bytes) -> None:
    """It is reported to the owner, and the connection works on."""
    me = connection()
    assert [type(event) for event in me.receive(message, 0)] == [Ignored]
    assert not me.is_closed
    assert asked(me, ask()).request == {}


def test_a_message_over_the_limit_is_not_read() -> None:
    """One byte less is."""
    me = connection(limits=Limits(message_bytes=65536))
    message = ask(request={"x": ""})
    fitting = ask(request={"x": "y" * (65536 - len(message))})
    assert len(fitting) == 65536
    asked(me, fitting)
    assert "65537" in only(me.receive(fitting + " ", 0), Ignored).reason
    only(me.receive(json.dumps({"x": "é" * 40_000}, ensure_ascii=False), 0), Ignored)


def test_ten_thousand_pushes_leave_nothing_behind() -> None:
    """As long as they are answered, nothing grows."""
    me = connection()
    for number in range(10_000):
        event = asked(me, ask("push", {"n": number}))
        assert len(me.respond(event.ask, {}, 0)) == 1
    assert (me.waiting_asks, me.held_bytes, me.open_streams) == (0, 0, 0)


def test_a_text_that_is_sent_does_not_show_in_logs() -> None:
    """Answers echo requests, and those hold tokens."""
    me = connection()
    event = asked(me, ask(request={"token": "hunter2"}))
    (frame,) = me.respond(event.ask, {}, 0)
    assert "hunter2" not in repr(event)
    assert "hunter2" not in repr(Send(frame))
    assert "hunter2" not in repr(me.request("login", {"token": "hunter2"}, 0))
