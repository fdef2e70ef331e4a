"""VirtualStream frames: the packet inside, and the JSON forms of a chunk.

Captured between typedrequest 3.3.0 and 3.3.2 peers, with plain JSON and with smartjson on the sending side.
"""

import base64
import binascii
from collections.abc import Mapping

from attrs import frozen

STREAM_METHOD = "##VirtualStream##"

CLOSING = "#############CLOSING BIT#############"
"""The last chunk of a stream. Closing without it leaves the reader waiting."""

_BASE64 = "base64:"
_ID_LIMIT = 256


@frozen(kw_only=True)
class Packet:
    """A packet: one side tells the other about a stream. Absent flags read as false."""

    stream_id: str
    cycle_id: str
    purpose: str
    is_answer: bool
    more: bool
    """The sender has data queued."""
    busy: bool
    """The sender's receive buffer is full."""
    alive: bool
    """False only where the packet says so."""
    chunk: object
    """The chunk as JSON; `None` when there is none."""


def parse_packet(raw: object) -> Packet | None:
    """Read a packet; `None` if this is not one."""
    if not isinstance(raw, Mapping):
        return None
    stream_id, cycle_id, purpose = raw.get("streamId"), raw.get("cycleId"), raw.get("mainPurpose")
    if not isinstance(stream_id, str) or not isinstance(cycle_id, str) or not isinstance(purpose, str):
        return None
    if max(len(stream_id), len(cycle_id)) > _ID_LIMIT:
        return None
    return Packet(
        stream_id=stream_id,
        cycle_id=cycle_id,
        purpose=purpose,
        is_answer=raw.get("cycle") == "response",
        more=raw.get("next") is True,
        busy=raw.get("backpressure") is True,
        alive=raw.get("keepAlive") is not False,
        chunk=raw.get("chunkData"),
    )


def chunk_to_json(data: bytes) -> object:
    """The form that every known peer turns back into bytes, even when empty (captured for 3.3.0 and 3.3.2)."""
    return {"type": "Buffer", "data": list(data)}


def chunk_from_json(raw: object) -> object:
    """Bytes, from any of the forms that bytes take on the wire; anything else is returned as it is.

    Node Buffers arrive as `{type: "Buffer", data: [...]}`, plain byte arrays as an object keyed by index (an empty one
    as `{}`), and both as `{type: "EncodedBuffer", data: "base64:..."}` from a smartjson sender.
    """
    if not isinstance(raw, dict):
        return raw
    decoded: bytes | None
    match raw:
        case {"type": "Buffer", "data": list(numbers)}:
            decoded = _from_numbers(numbers)
        case {"type": "EncodedBuffer", "data": str(text)}:
            decoded = _from_base64(text)
        case _:
            decoded = _from_indexed(raw)
    return raw if decoded is None else decoded


def _from_numbers(numbers: list[int]) -> bytes | None:
    try:
        return bytes(numbers)
    except (TypeError, ValueError):
        return None


def _from_base64(text: str) -> bytes | None:
    if not text.startswith(_BASE64):
        return None
    try:
        return base64.b64decode(text.removeprefix(_BASE64), validate=True)
    except (binascii.Error, ValueError):
        return None


def _from_indexed(raw: dict[str, int]) -> bytes | None:
    try:
        return bytes([raw[str(index)] for index in range(len(raw))])
    except (KeyError, TypeError, ValueError):
        return None
