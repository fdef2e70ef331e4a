"""Chunks in all their spellings, and packets."""

import pytest

from coreflow.adapters.net.typedsocket.packets import chunk_from_json, chunk_to_json, parse_packet

BYTES = [
    ({"type": "Buffer", "data": [112, 105]}, b"pi"),
    ({"type": "Buffer", "data": []}, b""),
    ({"data": "base64:cGk=", "type": "EncodedBuffer"}, b"pi"),
    ({"data": "base64:", "type": "EncodedBuffer"}, b""),
    ({"0": 112, "1": 105}, b"pi"),
    ({"1": 105, "0": 112}, b"pi"),
    ({str(i): i for i in range(256)}, bytes(range(256))),
    ({}, b""),
]

NOT_BYTES: list[object] = [
    "text",
    3,
    True,
    [1, 2],
    {"any": "json"},
    {"0": 112, "2": 105},
    {"0": 256},
    {"0": "a"},
    {"type": "Buffer", "data": [256]},
    {"type": "Buffer", "data": [-1]},
    {"type": "Buffer", "data": ["a"]},
    {"type": "Buffer", "data": "base64:cGk="},
    {"type": "EncodedBuffer", "data": "cGk="},
    {"type": "EncodedBuffer", "data": "base64:c!"},
    {"type": "EncodedBuffer", "data": "base64:é"},
]


@pytest.mark.parametrize(("raw", "data"), BYTES)
def test_bytes_are_read_from_every_form_they_take(raw: object, data: bytes) -> None:
    """Node Buffers, byte arrays and smartjson's base64 all become bytes, empty ones included."""
    assert chunk_from_json(raw) == data


@pytest.mark.parametrize("raw", NOT_BYTES)
def test_what_is_not_bytes_stays_as_it_is(raw: object) -> None:
    """Anything else, spoilt bytes included, is handed on unchanged."""
    assert chunk_from_json(raw) is raw


def test_bytes_are_written_as_a_node_buffer() -> None:
    """Of all forms this is the one that every known peer reads, even when empty."""
    assert chunk_to_json(b"pi") == {"type": "Buffer", "data": [112, 105]}
    assert chunk_from_json(chunk_to_json(b"")) == b""


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"backpressure": False},
        {"streamId": 1, "cycleId": "c", "mainPurpose": "read"},
        {"streamId": "s", "mainPurpose": "read"},
        {"streamId": "s", "cycleId": "c", "mainPurpose": None},
        {"streamId": "s" * 257, "cycleId": "c", "mainPurpose": "read"},
    ],
)
def test_what_lacks_the_three_names_is_no_packet(raw: object) -> None:
    """Without stream, cycle and purpose there is nothing to answer."""
    assert parse_packet(raw) is None


def test_absent_flags_read_as_not_set() -> None:
    """A packet with only its names announces nothing, is not busy, and is alive."""
    packet = parse_packet({"streamId": "s", "cycleId": "c", "mainPurpose": "start"})
    assert packet is not None
    assert (packet.more, packet.busy, packet.alive, packet.is_answer, packet.chunk) == (
        False,
        False,
        True,
        False,
        None,
    )
