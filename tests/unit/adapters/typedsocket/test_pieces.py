"""Long JSON in pieces: the same values as in one call, the same refusals, and nothing that takes long at once."""

import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreflow.adapters.net.typedsocket import pieces
from coreflow.adapters.net.typedsocket.envelope import Envelope, Unusable, parse, parse_in_pieces
from coreflow.adapters.net.typedsocket.pieces import CannotRead, loads_in_pieces

MIB = 1024 * 1024

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=60,
)


def cut(data: bytes, text_limit: int = pieces.TEXT_LIMIT) -> Any:
    """Read in pieces so short that short documents are cut."""
    return loads_in_pieces(data, 16, text_limit)


def outcome(read: Any, data: bytes) -> object:
    """What was read, or that it could not be."""
    try:
        return read(data)
    except ValueError:
        return ValueError


@given(value=JSON, indent=st.sampled_from([None, 0, 1]), ascii=st.booleans())
def test_the_same_values(value: object, indent: int | None, ascii: bool) -> None:  # noqa: A002 - json's word
    """However it is written."""
    data = json.dumps(value, indent=indent, ensure_ascii=ascii).encode(errors="surrogatepass")
    assert outcome(cut, data) == outcome(orjson.loads, data)


@given(value=JSON, seed=st.integers())
def test_the_same_refusals(value: object, seed: int) -> None:
    """One byte more, one less, or another one."""
    choose = random.Random(seed)
    data = bytearray(orjson.dumps(value))
    place = choose.randrange(len(data))
    match choose.randrange(3):
        case 0:
            del data[place]
        case 1:
            data.insert(place, choose.choice(b'[]{},:"\\ 1e\x80'))
        case _:
            data[place] = choose.choice(b'[]{},:"\\ 1e\x80')
    assert outcome(cut, bytes(data)) == outcome(orjson.loads, bytes(data))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[",
        '{"a":1' + " " * 40,
        "[" + "1," * 40 + "]",
        "[" + "1" * 40 + ",,2]",
        "[" + " " * 40 + ",1]",
        '{"a" 1,' + '"b":2' * 20 + "}",
        '{"a":[' + "1," * 40 + "1],}",
        "[[" + "1," * 40 + "1]}",
        "[" + "1," * 40 + "1] x",
        '["' + "x" * 60,
        '["' + "x" * 60 + "\\",
        "{" + "[1]:2," * 20 + "}",
    ],
)
def test_what_is_not_json(text: str) -> None:
    """It is refused, wherever it was cut."""
    with pytest.raises(CannotRead, match="is not JSON"):
        cut(text.encode())
    assert outcome(orjson.loads, text.encode()) is ValueError


def test_the_last_of_equal_keys_counts() -> None:
    """Whichever pieces they are in."""
    data = b'{"a":1,"b":[%b0],"a":2,"b":[%b1],"c":"%b","a":3}' % (b"0," * 40, b"0," * 40, b"x" * 40)
    assert cut(data) == orjson.loads(data)


def test_limits() -> None:
    """A text that cannot be cut, and levels that were cut."""
    assert cut(b'["%b"]' % (b"x" * 2 * MIB), 3 * MIB) == ["x" * 2 * MIB]
    for form in (b'["%b"]', b'{"a":"%b"}', b'{"%b":1}', b'"%b"'):
        with pytest.raises(CannotRead, match="has a text of more than 3 MiB"):
            cut(form % (b"x" * 4 * MIB), 3 * MIB)
    deep = pieces.DEPTH_LIMIT - 1
    assert json.dumps(cut(b"[" * deep + b"1" * 16 + b"]" * deep)).count("[") == deep
    with pytest.raises(CannotRead, match="nests too deep"):
        cut(b"[" * 1000 + b"1" * 40 + b"]" * 1000)


def test_the_same_envelope() -> None:
    """What is said of a message, and whether it may hold a stream, wherever the mark stands."""
    for pad in range(130):
        body = {"pad": "x" * pad, "stream": {"_isVirtualStream": True, "streamId": "s"}}
        data = orjson.dumps({"method": "m", "request": body, "correlation": {"id": "1", "phase": "request"}})
        assert parse_in_pieces(data, MIB, piece=64) == parse(data, MIB)
        found = parse_in_pieces(data, MIB, piece=64)
        assert isinstance(found, Envelope)
        assert found.may_hold_streams
    for data, limit, values in (
        (b"[1]", MIB, 9),
        (b"{", MIB, 9),
        (b"{}" + b" " * 9, 5, 9),
        (b"[" * 99, MIB, 9),
    ):
        assert isinstance(parse(data, limit, values), Unusable)
        assert parse_in_pieces(data, limit, values, 16) == parse(data, limit, values)
