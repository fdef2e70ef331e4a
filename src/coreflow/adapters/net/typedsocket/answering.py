"""A stream whose surrounding request was the peer's: the peer asks, we only answer.

Answers to `keepAlive` and `feedback` echo the question, answers about data do not (captured). `read` is answered with
the next chunk: Node peers of 3.3.0 and 3.3.2 do not do that for each other, yet understand it well (captured between
their asking side and a hand-written answering side: 50 chunks and the marker, in order). The other question for data,
a `chunk` without a chunk, comes with a `response` and is dropped before it gets here, as every such frame has to be.
"""

from attrs import define

from .errors import StreamBroken, TimedOut
from .events import Event, StreamSent
from .packets import CLOSING, Packet, chunk_to_json
from .queues import CLOSING_ITEM
from .side import StreamSide


def packet_of_unknown(question: Packet) -> dict[str, object]:
    """The answer about a stream that we do not have (any more). It ends the keep-alive of a Node peer.

    SmartServe returns such a question as it came (captured), whereupon a Node peer asks again every second.
    """
    return _packet(question, "keepAlive", {"keepAlive": False, "next": False, "backpressure": False})


def _packet(question: Packet, purpose: str, members: dict[str, object]) -> dict[str, object]:
    head = {
        "streamId": question.stream_id,
        "cycleId": question.cycle_id,
        "cycle": "response",
        "mainPurpose": purpose,
    }
    return {**head, **members}


@define(eq=False, kw_only=True)
class AnsweringStream(StreamSide):
    """The answering side of one stream. One that was dropped tells the peer when that asks next."""

    heard_at: float
    """When the peer last asked."""
    received: bool = False
    """The peer sent something."""

    @property
    def active(self) -> bool:
        """The peer may still have something to ask."""
        if self.failed:
            return False
        awaits = self.received or not self.writes
        return (awaits and not self.ended) or (self.writes and not self.sent)

    def answer(self, question: Packet, now: float, out: list[Event]) -> dict[str, object]:
        """The answer to a question, as a packet."""
        self.heard_at = now
        match question.purpose:
            case "keepAlive":
                if not question.alive and self.active:
                    self.fail(StreamBroken("the peer gave up this stream"), out)
                return _packet(question, "keepAlive", {"keepAlive": self.active, **self._flags()})
            case "chunk":
                self._got(question.chunk, out)
                if self.failed:
                    return packet_of_unknown(question)
            case "read" if self.outbox:
                return self._next_chunk(question, out)
        return _packet(question, "feedback", self._flags())

    def tick(self, now: float, out: list[Event]) -> None:
        """Give up on a peer that ought to ask, and does not."""
        deadline = self.next_deadline()
        if deadline is not None and deadline <= now:
            self.fail(
                TimedOut(f"the peer has not asked about the stream for {self.timing.question:g} s"), out
            )

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        return self.heard_at + self.timing.question if self.active else None

    def _flags(self) -> dict[str, object]:
        return {"next": len(self.outbox) > 0, "backpressure": self.inbox.full}

    def _got(self, chunk: object, out: list[Event]) -> None:
        if chunk is None or self.ended:
            return
        self.received = True
        self._put(chunk, out)

    def _next_chunk(self, question: Packet, out: list[Event]) -> dict[str, object]:
        item = self.outbox.get()
        data = chunk_to_json(item) if isinstance(item, bytes) else CLOSING
        if item is CLOSING_ITEM:
            self.sent = True
            out.append(StreamSent(self.ref))
        else:
            self._made_room(out)
        return _packet(question, "chunk", {**self._flags(), "chunkData": data})
