"""Tags, on both sides."""

import json

import pytest
from tests.unit.adapters.typedsocket.peers import Pair, ask, connection, every, only, sent

from coreflow.adapters.net.typedsocket import (
    Answered,
    Asked,
    Connection,
    Failed,
    Limits,
    PeerError,
    TagRefused,
    TagRemoved,
    TagSet,
)


def allow(name: str, payload: object) -> bool:
    """Let everybody have any tag."""
    return True


def only_coretraffic(name: str, payload: object) -> bool:
    """Let nobody have another tag."""
    return name == "coretraffic"


def pair(server: Connection) -> Pair:
    """A client on a server."""
    return Pair(connection("client"), server)


def set_tag(wire: Pair, name: str, payload: object = None) -> None:
    """Let the client tag itself."""
    wire.send(wire.left, wire.left.set_tag(name, payload, wire.now).frames)
    wire.settle()


def test_a_client_tags_its_connection() -> None:
    """The server's owner learns of it, the client's of its success."""
    wire = pair(connection("server", tags=allow))
    set_tag(wire, "coretraffic", {"hello": "payload"})
    assert only(wire.right_events, TagSet) == TagSet("coretraffic", {"hello": "payload"})
    assert only(wire.left_events, Answered).response == {"success": True}
    assert dict(wire.right.tags) == {"coretraffic": {"hello": "payload"}}


def test_a_tag_needs_no_payload() -> None:
    """It is then left out, as real clients leave it out."""
    wire = pair(connection("server", tags=allow))
    requested = wire.left.set_tag("bare", None, 0)
    assert json.loads(requested.frames[0])["request"] == {"name": "bare"}
    wire.send(wire.left, requested.frames)
    wire.settle()
    assert dict(wire.right.tags) == {"bare": None}


def test_setting_a_tag_again_overwrites_it() -> None:
    """The last payload counts, also at the limit."""
    wire = pair(connection("server", tags=allow, limits=Limits(tags=1)))
    set_tag(wire, "coretraffic", 1)
    set_tag(wire, "coretraffic", 2)
    assert dict(wire.right.tags) == {"coretraffic": 2}


def test_a_tag_is_removed() -> None:
    """Once; removing what is not there succeeds as well, in silence."""
    wire = pair(connection("server", tags=allow))
    set_tag(wire, "coretraffic")
    for _ in range(2):
        wire.send(wire.left, wire.left.remove_tag("coretraffic", 0).frames)
        wire.settle()
    assert only(wire.right_events, TagRemoved) == TagRemoved("coretraffic")
    assert [event.response for event in every(wire.left_events, Answered)] == [{"success": True}] * 3
    assert dict(wire.right.tags) == {}


def test_the_owner_may_refuse_a_tag() -> None:
    """The client's request fails, the server's owner learns who wanted what."""
    wire = pair(connection("server", tags=only_coretraffic))
    set_tag(wire, "admin")
    assert isinstance(only(wire.left_events, Failed).error, PeerError)
    assert only(wire.right_events, TagRefused).name == "admin"
    assert dict(wire.right.tags) == {}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"name": 5},
        {"name": ""},
        {"name": "x" * 300},
        {"name": "a", "payload": "x" * 200},
        {"name": "b"},
    ],
)
def test_a_tag_over_a_limit_is_refused(request_: dict[str, object]) -> None:
    """Names, payloads and their number are bounded, and the answer is still one."""
    server = connection("server", tags=allow, limits=Limits(tags=1, tag_bytes=100))
    server.receive(ask("__typedsocket_setTag", {"name": "a"}), 0)
    events = server.receive(ask("__typedsocket_setTag", request_), 0)
    assert [message["response"] for message in sent(events)] == [{"success": False}]
    only(events, TagRefused)
    assert list(server.tags) == ["a"]


def test_without_a_policy_tags_are_requests_like_any_other() -> None:
    """A client leaves them to its owner, who knows no such method."""
    me = connection()
    only(me.receive(ask("__typedsocket_setTag", {"name": "a"}), 0), Asked)
    assert dict(me.tags) == {}


def test_tags_go_with_the_connection() -> None:
    """The next one starts without any."""
    wire = pair(connection("server", tags=allow))
    set_tag(wire, "coretraffic")
    wire.right.close("gone")
    assert dict(wire.right.tags) == {}


def test_a_malformed_tag_request_is_answered() -> None:
    """Even one whose request is not an object."""
    server = connection("server", tags=allow)
    (reply,) = sent(server.receive(ask("__typedsocket_setTag", ["coretraffic"]), 0))
    assert reply["response"] == {"success": False}
