"""Errors of a connection. Each error is also one of the port's two: try later, or do not.

A text never quotes what travelled: answers echo requests, and requests carry tokens and keys. The one exception is
the text of a `PeerError`, which the peer wrote for us to read.
"""

from coreflow.domain.errors import Refused, Unavailable

TEXT_LIMIT = 500
"""Characters of a peer's error text that are kept."""


class PeerError(Refused):
    """The peer answered with an error. `data` is whatever it attached (never part of the message)."""

    def __init__(self, text: str, data: object = None) -> None:
        super().__init__(text[:TEXT_LIMIT])
        self.text = text[:TEXT_LIMIT]
        self.data = data


class NoResult(Unavailable):
    """The peer answered `null` without an error, which is how an older peer reports a crash of its handler."""


class TimedOut(Unavailable):
    """No answer within the time limit."""


class Unreadable(Unavailable):
    """There is an answer, and it cannot be read."""


class ComeBackLater(Unavailable):
    """The peer asks to repeat the request later than, or more often than, we are willing to wait."""


class ConnectionClosed(Unavailable):
    """The connection ended first. Whether the peer acted on the request is not known."""


class TooMany(Unavailable):
    """A limit on how much may be under way at once: requests, streams or queued bytes."""


class TooLarge(Refused):
    """A single message or chunk is over its limit."""


class NotJson(Refused):
    """A value of ours cannot be written as JSON."""


class StreamBroken(Unavailable):
    """A stream ended before its closing marker, or is not known (any more)."""


class CannotDeliver(Refused):
    """The peer's kind of stream is one we cannot receive from or send to. Asking again does not help."""
