"""The state that both sides of a stream have: what was received and not taken, what is to be sent, and how it ends."""

from abc import ABC, abstractmethod

from attrs import define

from coreflow.domain.errors import PortError

from .envelope import StreamRef
from .errors import TooMany
from .events import Event, StreamFailed, StreamReadable, StreamWritable
from .limits import Timing
from .packets import CLOSING, chunk_from_json
from .queues import CLOSING_ITEM, Queue


@define(eq=False, kw_only=True)
class StreamSide(ABC):
    """One side of a stream."""

    ref: StreamRef
    timing: Timing
    inbox: Queue
    outbox: Queue
    writes: bool = False
    """We send, or mean to."""
    finishing: bool = False
    """Our closing marker is queued, or was."""
    sent: bool = False
    """The peer has our closing marker."""
    ended: bool = False
    """We have the peer's closing marker."""
    failed: bool = False
    was_full: bool = False

    @property
    @abstractmethod
    def active(self) -> bool:
        """There may be something left to ask."""

    @property
    def done(self) -> bool:
        """Nothing is left to ask or to answer, nor to take."""
        return not self.active and not self.inbox

    def fail(self, error: PortError, out: list[Event]) -> None:
        """Give up. What was queued is lost."""
        if not self.failed:
            self.drop()
            out.append(StreamFailed(self.ref, error))

    def drop(self) -> None:
        """Forget everything, without a word."""
        self.failed = True
        self.inbox.clear()
        self.outbox.clear()

    def _put(self, chunk: object, out: list[Event]) -> bool:
        """Keep what has arrived until it is taken; False: there was no room, and the stream has failed."""
        self.ended = chunk == CLOSING
        try:
            self.inbox.put(CLOSING_ITEM if self.ended else chunk_from_json(chunk))
        except TooMany as exc:
            self.fail(exc, out)
            return False
        out.append(StreamReadable(self.ref))
        return True

    def _made_room(self, out: list[Event]) -> None:
        """Say that more can be sent, where that was waited for."""
        if self.was_full and not self.outbox.full:
            self.was_full = False
            out.append(StreamWritable(self.ref))
