"""Downloads from the three kinds of peers there are."""

import pytest
from attrs import Factory, define
from tests.unit.adapters.typedsocket.peers import CLOSING, NodeAnswering, buffer, connection, every, only

from coreflow.adapters.net.typedsocket import (
    Answered,
    CannotDeliver,
    Chunk,
    Connection,
    End,
    Event,
    Item,
    Limits,
    Nothing,
    Send,
    StreamBroken,
    StreamFailed,
    StreamRef,
    TooMany,
)

CHUNKS = [f"piece-{number}".encode() for number in range(40)]


def chunks() -> list[object]:
    """What the peer has queued."""
    return [*map(buffer, CHUNKS), CLOSING]


@define
class Download:
    """A download, and a clock."""

    node: NodeAnswering
    me: Connection
    stream: StreamRef
    now: float = 0.0
    waited: float = 0.0
    events: list[Event] = Factory(list)

    def deliver(self, events: list[Event]) -> None:
        """Exchange frames until nobody has anything to say."""
        queue = list(events)
        while queue:
            event = queue.pop(0)
            if isinstance(event, Send):
                reply = self.node.reply(event.text)
                queue += self.me.receive(reply, self.now) if reply is not None else []
            else:
                self.events.append(event)

    def take(self) -> Item:
        """Take one item."""
        taken = self.me.take(self.stream, self.now)
        self.deliver([Send(frame) for frame in taken.frames])
        return taken.item

    def wait(self) -> None:
        """Let the time come for the next tick."""
        deadline = self.me.next_deadline()
        assert deadline is not None
        self.waited += max(0.0, deadline - self.now)
        self.now = max(self.now, deadline)
        self.deliver(self.me.tick(self.now))

    def run(self, limit: float = 60) -> list[Item]:
        """Take what comes, until the end or a failure."""
        items: list[Item] = []
        while self.waited < limit and not every(self.events, StreamFailed):
            item = self.take()
            if item == Nothing():
                self.wait()
                continue
            items.append(item)
            if item == End():
                break
        return items


def start(
    version: str, queued: list[object], *, closed: bool = True, limits: Limits | None = None
) -> Download:
    """Ask a peer for a stream."""
    me = connection(limits=limits)
    node = NodeAnswering(version, queued, closed=closed)
    (question,) = me.request("pullImageVersion", {}, 0).frames
    events = me.receive(node.first_answer(question), 0)
    download = Download(node, me, only(events, Answered).streams[0])
    download.deliver(events)
    return download


def test_a_correct_peer_is_asked_to_read() -> None:
    """It gets no other question for data, and no time is lost."""
    download = start("reads", chunks())
    assert download.run() == [*map(Chunk, CHUNKS), End()]
    assert download.node.purposes.count("read") == 41
    assert "chunk" not in download.node.purposes
    assert (download.waited, download.me.open_streams, download.me.held_bytes) == (0, 0, 0)


def test_a_3_3_2_is_asked_with_empty_chunks() -> None:
    """It answers `read` with nothing, but hands out its chunks when poked; all of them, in order, without waiting."""
    download = start("3.3.2", chunks())
    assert download.run() == [*map(Chunk, CHUNKS), End()]
    assert download.node.purposes.count("read") == 1
    assert download.node.purposes.count("chunk") == 41
    assert (download.waited, download.me.open_streams) == (0, 0)


def test_a_3_3_0_cannot_deliver() -> None:
    """It would lose every other chunk, so it is not even asked for one."""
    download = start("3.3.0", chunks())
    assert download.run() == []
    failed = only(download.events, StreamFailed)
    assert isinstance(failed.error, CannotDeliver)
    assert "3.3.0" in str(failed.error)
    assert len(download.node.chunks) == 41
    assert download.me.open_streams == 0


@pytest.mark.parametrize("version", ["reads", "3.3.2"])
def test_a_slow_producer_is_waited_for(version: str) -> None:
    """Chunks that come later arrive soon after."""
    download = start(version, [buffer(b"0")], closed=False)
    if version == "reads":
        download.node.chunks.append(buffer(b"1"))
    items: list[Item] = []
    for number in range(5):
        while (item := download.take()) == Nothing():
            download.wait()
        items.append(item)
        if number == 1:
            download.now += 0.005
        download.node.chunks.append(buffer(b"%d" % (number + 1)) if number < 4 else CLOSING)
    assert len(items) == 5
    assert download.waited < 2.5


@pytest.mark.parametrize("version", ["reads", "3.3.2"])
def test_an_end_without_its_marker_is_a_failure(version: str) -> None:
    """Half an image is no image. A second passes, since Node says that it is closed before its marker is queued."""
    download = start(version, [buffer(b"half")])
    assert download.run() == [Chunk(b"half")]
    failed = only(download.events, StreamFailed)
    assert isinstance(failed.error, StreamBroken)
    assert "closing marker" in str(failed.error)
    assert 0.5 < download.waited < 3


def test_a_peer_that_forgot_the_stream_is_a_failure() -> None:
    """SmartServe returns frames about unknown streams unchanged."""
    me = connection()
    node = NodeAnswering("3.3.2", chunks())
    (question,) = me.request("pullImageVersion", {}, 0).frames
    (pulse,) = every(me.receive(node.first_answer(question), 0), Send)
    assert isinstance(only(me.receive(pulse.text, 0), StreamFailed).error, StreamBroken)
    assert me.open_streams == 0


def test_a_reader_that_waits_is_not_overrun() -> None:
    """No more is fetched than the queue may hold, whatever the peer has."""
    download = start("reads", [buffer(b"x" * 1000) for _ in range(100)])
    assert download.node.purposes.count("read") == download.me.limits.stream_items
    download.take()
    assert download.node.purposes.count("read") == download.me.limits.stream_items + 1


def test_chunks_in_every_encoding_are_bytes() -> None:
    """Whatever encoder the peer uses."""
    queued = [buffer(b"a"), {"0": 98}, {"type": "EncodedBuffer", "data": "base64:Yw=="}, {}, CLOSING]
    assert start("reads", queued).run() == [Chunk(b"a"), Chunk(b"b"), Chunk(b"c"), Chunk(b""), End()]


def test_a_peer_that_delivers_too_much_loses_the_stream() -> None:
    """One chunk larger than everything that may be queued: the stream fails, the connection does not."""
    download = start("reads", [buffer(b"x" * 3000), CLOSING], limits=Limits(queued_bytes=2000))
    assert download.run() == []
    assert isinstance(only(download.events, StreamFailed).error, TooMany)
    assert (download.me.open_streams, download.me.held_bytes, download.me.is_closed) == (0, 0, False)


def test_a_peer_that_announces_and_does_not_deliver_is_asked_less_and_less() -> None:
    """It cannot make us ask as fast as it answers."""
    download = start("reads", [None] * 1000, closed=False)
    while download.waited < 10:
        download.wait()
    assert download.node.purposes.count("read") < 30
