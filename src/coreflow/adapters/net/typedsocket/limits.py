"""Bounds of one connection, in sizes and in seconds. Every buffer has one."""

from attrs import field, frozen
from attrs.validators import ge, gt

MIB = 1024 * 1024

_positive = gt(0)
_seconds = gt(0.0)


@frozen(kw_only=True)
class Limits:
    """Limits on what one connection may hold."""

    message_bytes: int = field(default=100 * MIB, validator=ge(64 * 1024))
    """One message, in and out. 100 MiB is what SmartServe accepts (captured: 90 MiB passes, 101 MiB closes)."""
    message_values: int = field(default=2_000_000, validator=_positive)
    """Values in one message, about: each costs up to 100 bytes."""
    requests: int = field(default=1024, validator=_positive)
    """Requests under way, each direction for itself."""
    request_bytes: int = field(default=128 * MIB, validator=_positive)
    """Their texts together, each direction for itself."""
    streams: int = field(default=32, validator=_positive)
    """Open streams, both roles together."""
    stream_items: int = field(default=16, validator=_positive)
    """Chunks queued in one direction of one stream before its sender is asked to wait; the original's number."""
    stream_bytes: int = field(default=2 * MIB, validator=_positive)
    """The same in bytes."""
    queued_bytes: int = field(default=64 * MIB, validator=_positive)
    """All chunks of all streams. A peer that heeds back-pressure does not get there; one that does not loses its stream."""
    chunk_bytes: int = field(default=MIB, validator=_positive)
    """One chunk of ours. On the wire it grows to about 3.6 characters a byte."""
    tags: int = field(default=64, validator=_positive)
    """Tags on one connection."""
    tag_bytes: int = field(default=64 * 1024, validator=_positive)
    """The payload of one tag, as JSON."""
    retries: int = field(default=3, validator=_positive)
    """How often a request is repeated because the peer asked for it."""

    @property
    def own_chunk_bytes(self) -> int:
        """The largest chunk that we send: it has to fit into a message, written as numbers."""
        return min(self.chunk_bytes, (self.message_bytes - 32 * 1024) // 4)


@frozen(kw_only=True)
class Timing:
    """Seconds."""

    request: float = field(default=30.0, validator=_seconds)
    """From a request to its answer, repetitions included. The newer generation's default, too."""
    whole: float = field(default=600.0, validator=_seconds)
    """The same where the answer has begun to arrive in time, and goes on arriving: a long one over a slow line."""
    question: float = field(default=30.0, validator=_seconds)
    """From a stream question to its answer, and longest silence of a peer that ought to ask."""
    keep_alive: float = field(default=1.0, validator=_seconds)
    """From an answer to the next keep-alive question (captured)."""
    busy_poll: float = field(default=0.05, validator=_seconds)
    """Between questions to a peer whose buffer is full (captured)."""
    dry_poll: float = field(default=0.01, validator=_seconds)
    """First wait before asking a peer again that had nothing queued; doubles up to `keep_alive`, which then takes over."""
