"""TypedSocket without a socket: the protocol of TypedRequest envelopes over one WebSocket, for both of its ends.

Start at `Connection`. What a reader needs to know of the wire is in `docs/wire.md`.
"""

from .asks import INTERNAL_ERROR, NO_SUCH_METHOD, Retry
from .connection import ID_ENTROPY, Connection, Requested, Taken, make_id
from .envelope import LONG_BYTES, Envelope, StreamRef, Unusable, parse_in_pieces
from .errors import (
    CannotDeliver,
    ComeBackLater,
    ConnectionClosed,
    NoResult,
    NotJson,
    PeerError,
    StreamBroken,
    TimedOut,
    TooLarge,
    TooMany,
    Unreadable,
)
from .events import (
    Answered,
    Asked,
    Event,
    Failed,
    Ignored,
    Send,
    StreamFailed,
    StreamReadable,
    StreamSent,
    StreamWritable,
    TagRefused,
    TagRemoved,
    TagSet,
)
from .limits import Limits, Timing
from .streams import Chunk, End, Item, Nothing, Value
from .tags import REMOVE_TAG, SET_TAG, TagPolicy

__all__ = [
    "ID_ENTROPY",
    "INTERNAL_ERROR",
    "LONG_BYTES",
    "NO_SUCH_METHOD",
    "REMOVE_TAG",
    "SET_TAG",
    "Answered",
    "Asked",
    "CannotDeliver",
    "Chunk",
    "ComeBackLater",
    "Connection",
    "ConnectionClosed",
    "End",
    "Envelope",
    "Event",
    "Failed",
    "Ignored",
    "Item",
    "Limits",
    "NoResult",
    "NotJson",
    "Nothing",
    "PeerError",
    "Requested",
    "Retry",
    "Send",
    "StreamBroken",
    "StreamFailed",
    "StreamReadable",
    "StreamRef",
    "StreamSent",
    "StreamWritable",
    "TagPolicy",
    "TagRefused",
    "TagRemoved",
    "TagSet",
    "Taken",
    "TimedOut",
    "Timing",
    "TooLarge",
    "TooMany",
    "Unreadable",
    "Unusable",
    "Value",
    "make_id",
    "parse_in_pieces",
]
