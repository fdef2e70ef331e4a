"""Events: what a connection tells its owner. Take events apart with `match`, in the order in which they come."""

from attrs import field, frozen

from coreflow.domain.errors import PortError

from .envelope import StreamRef


@frozen
class Send:
    """Send this as one text frame, before anything that later calls return."""

    text: str = field(repr=False)


@frozen(kw_only=True)
class Asked:
    """The peer asks. Answer with `respond` or `respond_error`, naming `ask`; there is no hurry, but no other way out.

    `streams` are those in `request`, ready to be read; whoever does not want one aborts it.
    """

    ask: int
    method: str
    request: object = field(repr=False)
    streams: tuple[StreamRef, ...] = ()


@frozen(kw_only=True)
class Answered:
    """The peer answered a request of ours. `response` is `None` only if the request did not need a result."""

    request_id: str
    response: object = field(repr=False)
    streams: tuple[StreamRef, ...] = ()


@frozen(kw_only=True)
class Failed:
    """A request of ours came to nothing. Streams that it carried have failed, too."""

    request_id: str
    error: PortError


@frozen
class StreamReadable:
    """There is something to `take`: a chunk, or the end."""

    stream: StreamRef


@frozen
class StreamWritable:
    """A stream that was full has room for a `write`."""

    stream: StreamRef


@frozen
class StreamSent:
    """The peer took everything, the closing marker included."""

    stream: StreamRef


@frozen
class StreamFailed:
    """The stream is gone, with whatever was still queued."""

    stream: StreamRef
    error: PortError


@frozen
class TagSet:
    """The peer tagged this connection, with the owner's consent."""

    name: str
    payload: object = field(repr=False)


@frozen
class TagRemoved:
    """The peer took a tag away from this connection."""

    name: str


@frozen
class TagRefused:
    """The peer wanted a tag that it does not get."""

    name: str
    reason: str


@frozen
class Ignored:
    """A message was dropped. The connection is none the worse for it."""

    reason: str
    is_loss: bool = False
    """The peer told or asked something by it that nobody gets to hear: it cannot be read, or was refused unread."""
    method: str | None = None
    """Of what is lost, as far as it can be seen. The peer's word: fit to be compared, not to be told."""


Event = (
    Send
    | Asked
    | Answered
    | Failed
    | StreamReadable
    | StreamWritable
    | StreamSent
    | StreamFailed
    | TagSet
    | TagRemoved
    | TagRefused
    | Ignored
)
