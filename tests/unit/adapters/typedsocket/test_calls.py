"""Requests of ours, from sending to their end."""

import json
from collections.abc import Callable
from types import MappingProxyType

import pytest
from tests.unit.adapters.typedsocket.peers import answer, connection, every, only, sent

from coreflow.adapters.net.typedsocket import (
    Answered,
    ComeBackLater,
    Connection,
    ConnectionClosed,
    Failed,
    Ignored,
    Limits,
    NoResult,
    NotJson,
    PeerError,
    Send,
    StreamFailed,
    StreamRef,
    TimedOut,
    TooLarge,
    TooMany,
    Unreadable,
    make_id,
)
from coreflow.domain.errors import Refused, Unavailable


def asked(me: Connection, now: float = 0.0, timeout: float | None = None) -> tuple[str, str]:
    """Send a request; its id and its text."""
    requested = me.request("getThings", {"a": 1}, now, timeout=timeout)
    (frame,) = requested.frames
    return requested.id, frame


def test_a_request_has_the_members_of_both_generations() -> None:
    """The older one wants `response` to be there and null, the newer one `requestInstanceId`."""
    request_id, frame = asked(connection())
    assert json.loads(frame) == {
        "method": "getThings",
        "request": {"a": 1},
        "response": None,
        "requestInstanceId": "me-2",
        "correlation": {"id": request_id, "phase": "request"},
    }


def test_ids_look_like_those_of_the_original() -> None:
    """`uni_` and 24 lower-case hexadecimal digits."""
    assert make_id(bytes(range(12))) == "uni_000102030405060708090a0b"


def test_an_answer_ends_its_request() -> None:
    """The owner gets the response, and nothing is left."""
    me = connection()
    request_id, frame = asked(me)
    assert me.receive(answer(frame, {"b": 2}), 1) == [Answered(request_id=request_id, response={"b": 2})]
    assert (me.waiting_requests, me.next_deadline()) == (0, None)


def test_answers_may_overtake_each_other() -> None:
    """Each answer finds its request, whatever the order."""
    me = connection()
    first, second = asked(me), asked(me)
    assert only(me.receive(answer(second[1], {"n": 2}), 1), Answered).request_id == second[0]
    assert only(me.receive(answer(first[1], {"n": 1}), 1), Answered).request_id == first[0]


@pytest.mark.parametrize("phase", ["request", "else", None])
def test_an_answer_is_known_by_its_id_whatever_its_phase(phase: str | None) -> None:
    """A peer that forgets to flip the phase is understood."""
    me = connection()
    request_id, frame = asked(me)
    odd = json.loads(answer(frame, {"b": 2}))
    odd["correlation"]["phase"] = phase
    assert only(me.receive(json.dumps(odd), 1), Answered).request_id == request_id


def test_an_answer_without_the_instance_is_accepted() -> None:
    """Peers that do not echo unknown members still answer."""
    me = connection()
    _, frame = asked(me)
    odd = json.loads(answer(frame, {"b": 2}))
    del odd["requestInstanceId"]
    only(me.receive(json.dumps(odd), 1), Answered)


def test_an_error_fails_the_request_with_its_text() -> None:
    """Text and data of the peer are there, but only the text in the message."""
    me = connection()
    request_id, frame = asked(me)
    event = only(me.receive(answer(frame, None, error={"text": "no", "data": {"k": 1}}), 1), Failed)
    assert event.request_id == request_id
    assert isinstance(event.error, PeerError)
    assert (event.error.text, event.error.data, str(event.error)) == ("no", {"k": 1}, "no")
    assert isinstance(event.error, Refused)


@pytest.mark.parametrize("error", ["no", {}, {"text": 5}, 7, []])
def test_a_malformed_error_still_fails_the_request(error: object) -> None:
    """An error that cannot be read is no success."""
    me = connection()
    _, frame = asked(me)
    event = only(me.receive(answer(frame, {"b": 2}, error=error), 1), Failed)
    assert isinstance(event.error, PeerError)


def test_a_long_error_text_is_cut() -> None:
    """A peer cannot fill our logs with one error."""
    me = connection()
    _, frame = asked(me)
    assert len(str(only(me.receive(answer(frame, error={"text": "x" * 9999}), 1), Failed).error)) == 500


def test_null_without_an_error_is_a_failure() -> None:
    """That is how a 3.3.0 peer says that its handler crashed."""
    me = connection()
    _, frame = asked(me)
    event = only(me.receive(answer(frame, None, localData=None), 1), Failed)
    assert isinstance(event.error, NoResult)
    assert isinstance(event.error, Unavailable)


def test_null_is_fine_where_no_result_is_needed() -> None:
    """The owner may say so beforehand."""
    me = connection()
    requested = me.request("tell", {}, 0, needs_result=False)
    assert me.receive(answer(requested.frames[0]), 1) == [Answered(request_id=requested.id, response=None)]


def test_no_answer_in_time_is_a_failure() -> None:
    """The time limit is kept to, and not before its time."""
    me = connection()
    request_id, _ = asked(me, now=100)
    assert me.next_deadline() == 130
    assert me.tick(129.9) == []
    event = only(me.tick(130), Failed)
    assert (event.request_id, type(event.error)) == (request_id, TimedOut)
    assert me.next_deadline() is None


def test_an_answer_that_goes_on_arriving_is_waited_for() -> None:
    """The limit is about silence then; without another byte within it, that is said."""
    me = connection()
    request_id, frame = asked(me)
    for now, arriving in ((30, 5000), (60, 6000), (90, 7000)):
        assert me.tick(now, arriving=arriving) == []
        assert me.next_deadline() == now + 30
    assert me.receive(answer(frame, {"b": 2}), 100) == [Answered(request_id=request_id, response={"b": 2})]
    asked(me, now=100)
    assert me.tick(130, arriving=9000) == []
    assert "nothing more came of it for 30 s" in str(only(me.tick(160, arriving=9000), Failed).error)


def test_an_answer_that_arrives_for_ever_is_given_up() -> None:
    """There is a limit for the whole."""
    me = connection()
    asked(me)
    for now in range(30, 600, 30):
        assert me.tick(now, arriving=5000 + now) == []
    error = only(me.tick(600, arriving=9000), Failed).error
    assert "not answered in 600 s, in which something was arriving" in str(error)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (lambda text: text.replace('"b": 2', f'"b": {"[" * 2000}{"]" * 2000}'), "nests too deep"),
        (lambda text: text.replace('"b": 2', '"b": nonsense'), "not JSON"),
        (lambda text: text.replace('"b": 2', '"b": "' + "x" * 300_000 + '", nonsense'), "not JSON"),
    ],
)
def test_an_answer_that_cannot_be_used_is_said_at_once(response: Callable[[str], str], reason: str) -> None:
    """Nobody waits for the time limit; other requests go on."""
    me = connection()
    request_id, frame = asked(me)
    other, _ = asked(me)
    spoilt = response(answer(frame, {"b": 2}))
    for data in (spoilt, spoilt.encode()):
        failed = every(me.receive(data, 1), Failed)
        if data is spoilt:
            assert [event.request_id for event in failed] == [request_id]
            assert isinstance(failed[0].error, Unreadable)
            assert reason in str(failed[0].error)
            assert "nonsense" not in str(failed[0].error)
    assert me.waiting_requests == 1
    me.cancel(other)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_message_of_very_many_values_is_not_read(as_bytes: bool) -> None:
    """Reading it would cost a multiple of its size, and hold up everything."""
    me = connection(limits=Limits(message_values=70_000))
    request_id, frame = asked(me)
    text = answer(frame, {"b": [[]] * 40_000})
    failed = only(me.receive(text.encode() if as_bytes else text, 1), Failed)
    assert failed.request_id == request_id
    assert "values is over the limit of 70000" in str(failed.error)
    _, frame = asked(me)
    assert only(me.receive(answer(frame, {"b": [[]] * 30_000}), 1), Answered).streams == ()


def test_a_late_answer_is_dropped() -> None:
    """After its time limit a request is over."""
    me = connection()
    _, frame = asked(me, timeout=5)
    me.tick(5)
    assert len(every(me.receive(answer(frame, {}), 6), Ignored)) == 1


def test_the_second_answer_is_dropped() -> None:
    """A request ends once."""
    me = connection()
    _, frame = asked(me)
    me.receive(answer(frame, {"n": 1}), 1)
    assert [type(event) for event in me.receive(answer(frame, {"n": 2}), 1)] == [Ignored]


def test_an_answer_with_somebody_elses_id_is_dropped() -> None:
    """It ends no request, and gets no answer."""
    me = connection()
    _, frame = asked(me)
    foreign = json.loads(answer(frame, {"b": 2}))
    foreign["correlation"]["id"] = "somebody"
    assert [type(event) for event in me.receive(json.dumps(foreign), 1)] == [Ignored]
    assert me.waiting_requests == 1


def test_retry_waits_and_asks_again_with_the_same_id() -> None:
    """Same envelope, same correlation id, a new instance; the first response does not count."""
    me = connection()
    request_id, frame = asked(me)
    assert me.receive(answer(frame, {"n": 1}, retry={"waitForMs": 150, "reason": "warming up"}), 1) == []
    assert me.next_deadline() == 1.15
    assert me.tick(1.1) == []
    (again,) = sent(me.tick(1.15))
    first = json.loads(frame)
    assert again.pop("requestInstanceId") != first.pop("requestInstanceId")
    assert again == first
    event = only(me.receive(answer(json.dumps(again), {"n": 2}), 1.2), Answered)
    assert (event.request_id, event.response) == (request_id, {"n": 2})


def test_an_answer_to_an_earlier_attempt_is_dropped() -> None:
    """After a repetition only the new instance counts; while waiting, nothing does."""
    me = connection()
    _, frame = asked(me)
    me.receive(answer(frame, None, retry={"waitForMs": 100, "reason": ""}), 1)
    only(me.receive(answer(frame, {"n": 1}), 1.05), Ignored)
    me.tick(1.1)
    only(me.receive(answer(frame, {"n": 1}), 1.2), Ignored)
    assert me.waiting_requests == 1


def test_retry_is_heeded_three_times() -> None:
    """A peer that always asks to come back is given up in the end."""
    me = connection()
    _, frame = asked(me)
    for attempt in range(3):
        assert (
            me.receive(answer(frame, error={"text": "busy"}, retry={"waitForMs": 0, "reason": ""}), attempt)
            == []
        )
        frame = only(me.tick(attempt), Send).text
    event = only(me.receive(answer(frame, {}, retry={"waitForMs": 0, "reason": ""}), 3), Failed)
    assert isinstance(event.error, ComeBackLater)


def test_a_repetition_that_no_longer_fits_fails() -> None:
    """An id that is longer this time may be too much, and must not raise out of a tick."""
    names = iter(["id", "instance", "instance-of-the-second-attempt"])
    me = Connection(lambda: next(names), limits=Limits(message_bytes=65536))
    room = 65536 - len(Connection(iter(["id", "instance"]).__next__).request("big", {"x": ""}, 0).frames[0])
    (frame,) = me.request("big", {"x": "y" * room}, 0).frames
    assert len(frame) == 65536
    me.receive(answer(frame, None, request=None, retry={"waitForMs": 5, "reason": ""}), 0)
    assert isinstance(only(me.tick(1), Failed).error, TooLarge)


def test_a_retry_after_the_time_limit_fails_at_once() -> None:
    """Waiting for it would be in vain."""
    me = connection()
    _, frame = asked(me, timeout=10)
    event = only(me.receive(answer(frame, {}, retry={"waitForMs": 11_000, "reason": ""}), 1), Failed)
    assert isinstance(event.error, ComeBackLater)


@pytest.mark.parametrize(
    "retry", [5, {}, {"waitForMs": "1"}, {"waitForMs": True}, {"waitForMs": -1}, {"reason": "x"}]
)
def test_a_malformed_retry_is_not_one(retry: object) -> None:
    """The answer then counts as it is."""
    me = connection()
    _, frame = asked(me)
    assert only(me.receive(answer(frame, {"b": 2}, retry=retry), 1), Answered).response == {"b": 2}


def test_a_request_that_carried_a_stream_is_not_repeated() -> None:
    """Its stream may be half read already."""
    me = connection()
    stream = me.create_stream()
    frame, *_ = me.request("upload", {"stream": stream}, 0).frames
    events = me.receive(answer(frame, {}, retry={"waitForMs": 1, "reason": ""}), 1)
    assert isinstance(only(events, Failed).error, ComeBackLater)
    assert only(events, StreamFailed).stream == stream


def test_closing_fails_everything_under_way() -> None:
    """Nobody waits for an answer that cannot come, and nothing is sent any more."""
    me = connection()
    first, second = asked(me), asked(me)
    stream = me.create_stream()
    upload = me.request("upload", {"stream": stream}, 0)
    events = me.close("the peer went away")
    failed = every(events, Failed)
    assert [event.request_id for event in failed] == [first[0], second[0], upload.id]
    assert {type(event.error) for event in failed} == {ConnectionClosed}
    assert only(events, StreamFailed).stream == stream
    assert every(events, Send) == []
    assert me.close("again") == []


def test_nothing_happens_after_closing() -> None:
    """Messages and ticks are without effect, new requests raise."""
    me = connection()
    _, frame = asked(me)
    me.close("done")
    assert me.is_closed
    assert (me.receive(answer(frame, {}), 1), me.tick(999), me.next_deadline()) == ([], [], None)
    with pytest.raises(ConnectionClosed):
        me.request("getThings", {}, 1)
    with pytest.raises(ConnectionClosed):
        me.create_stream()


def test_a_cancelled_request_has_no_end() -> None:
    """Its answer is dropped like any late one."""
    me = connection()
    request_id, frame = asked(me)
    assert me.cancel(request_id) == ()
    assert me.cancel(request_id) == ()
    only(me.receive(answer(frame, {}), 1), Ignored)


def test_the_number_of_requests_is_limited() -> None:
    """One too many raises, and the others are unharmed."""
    me = connection(limits=Limits(requests=2))
    _, frame = asked(me)
    asked(me)
    with pytest.raises(TooMany, match="2 requests"):
        asked(me)
    me.receive(answer(frame, {}), 1)
    asked(me)


def test_the_bytes_of_requests_are_limited() -> None:
    """Few large requests count like many small ones."""
    me = connection(limits=Limits(request_bytes=1000))
    me.request("small", {}, 0)
    frame = me.request("big", {"x": "y" * 900}, 0).frames[0]
    with pytest.raises(TooMany, match="bytes"):
        me.request("big", {"x": "y" * 900}, 0)
    me.receive(answer(frame, {}), 1)
    me.request("big", {"x": "y" * 900}, 0)


def test_a_request_over_the_message_limit_is_refused_here() -> None:
    """The peer would close the connection instead."""
    me = connection(limits=Limits(message_bytes=65536))
    with pytest.raises(TooLarge):
        me.request("big", {"x": "y" * 70_000}, 0)
    with pytest.raises(TooLarge):
        me.request("m" * 2000, {}, 0)
    assert me.waiting_requests == 0


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**70, "\ud800", StreamRef("nobody's")])
def test_a_request_that_is_not_json_raises(value: object) -> None:
    """The mistake is the caller's, and nothing was sent."""
    me = connection()
    with pytest.raises((NotJson, Unavailable)):
        me.request("odd", {"value": value}, 0)
    assert me.waiting_requests == 0


def test_numbers_that_json_does_not_have_become_null() -> None:
    """As in JavaScript."""
    frame = connection().request("odd", {"a": float("nan"), "b": float("inf")}, 0).frames[0]
    assert json.loads(frame)["request"] == {"a": None, "b": None}


def test_any_mapping_is_an_object() -> None:
    """Also one that cannot be changed."""
    frame = connection().request("odd", MappingProxyType({"a": MappingProxyType({"b": 1})}), 0).frames[0]
    assert json.loads(frame)["request"] == {"a": {"b": 1}}


def test_bytes_in_a_request_are_written_as_a_node_buffer() -> None:
    """There, too, and not as text."""
    frame = connection().request("odd", {"a": b"hi"}, 0).frames[0]
    assert json.loads(frame)["request"] == {"a": {"type": "Buffer", "data": [104, 105]}}
