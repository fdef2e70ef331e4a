"""What the tests talk to: captured frames, two connections on a wire, and the answering side of Node peers."""

import base64
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from attrs import Factory, define, frozen

from coreflow.adapters.net.typedsocket import (
    Connection,
    Event,
    Item,
    Limits,
    Send,
    StreamRef,
    TagPolicy,
    Timing,
)

STREAM = "##VirtualStream##"
CLOSING = "#############CLOSING BIT#############"

E = TypeVar("E")


def ids(prefix: str = "id") -> Callable[[], str]:
    """An id factory whose ids can be read."""
    numbers = count(1)
    return lambda: f"{prefix}-{next(numbers)}"


def connection(
    prefix: str = "me",
    *,
    limits: Limits | None = None,
    timing: Timing | None = None,
    tags: TagPolicy | None = None,
) -> Connection:
    """A connection with ids that can be read."""
    return Connection(ids(prefix), limits=limits, timing=timing, tag_policy=tags)


def only(events: Iterable[Event], kind: type[E]) -> E:
    """The one event of a kind."""
    (found,) = every(events, kind)
    return found


def every(events: Iterable[Event], kind: type[E]) -> list[E]:
    """All events of a kind."""
    return [event for event in events if isinstance(event, kind)]


def sent(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What is to be sent, decoded."""
    return [json.loads(event.text) for event in every(events, Send)]


def text(**members: object) -> str:
    """A message."""
    return json.dumps(members)


def ask(
    method: str = "do", request: object = None, correlation_id: str = "their-1", **members: object
) -> str:
    """A request, as a Node peer of 3.x makes it."""
    correlation = {"id": correlation_id, "phase": "request"}
    return text(method=method, request=request or {}, response=None, correlation=correlation, **members)


def answer(question: str, response: object = None, **members: object) -> str:
    """An answer to a request, as a Node peer of 3.3.2 makes it."""
    envelope = json.loads(question)
    envelope["correlation"]["phase"] = "response"
    return json.dumps({**envelope, "response": response, **members})


@frozen
class Frame:
    """A captured message."""

    setup: str
    scenario: str
    conn: int
    direction: str
    data: str | bytes

    @property
    def json(self) -> Any:
        """The message, decoded."""
        return json.loads(self.data)


def captured(scenario: str | None = None, setup: str | None = None, conn: int | None = None) -> list[Frame]:
    """Captured messages, in order. Every setup names the version that answers; the other side is a 3.3.0."""
    return [
        frame
        for frame in _frames()
        if scenario in (None, frame.scenario) and setup in (None, frame.setup) and conn in (None, frame.conn)
    ]


def _frames() -> Iterator[Frame]:
    for line in (Path(__file__).parent / "frames.jsonl").read_text().splitlines():
        raw = json.loads(line)
        data = raw["text"] if "text" in raw else base64.b64decode(raw["base64"])
        yield Frame(raw["setup"], raw["scenario"], raw["conn"], raw["dir"], data)


@define
class Pair:
    """Two connections on a wire that never loses anything, and a clock."""

    left: Connection
    right: Connection
    now: float = 0.0
    frames: int = 0
    left_events: list[Event] = Factory(list)
    right_events: list[Event] = Factory(list)
    _wire: deque[tuple[Connection, str | bytes]] = Factory(deque)

    def send(self, sender: Connection, frames: Iterable[str | bytes]) -> None:
        """Put frames on the wire."""
        other = self.right if sender is self.left else self.left
        self._wire.extend((other, frame) for frame in frames)

    def settle(self, limit: int = 10_000) -> None:
        """Deliver until nobody has anything to say."""
        while self._wire:
            self.frames += 1
            assert self.frames <= limit, "the two do not stop talking"
            receiver, frame = self._wire.popleft()
            self._note(receiver, receiver.receive(frame, self.now))

    def wait(self, seconds: float) -> None:
        """Let time pass, with ticks exactly when they are due."""
        end, ticks = self.now + seconds, 0
        while True:
            self.settle()
            times = [
                time for time in (self.left.next_deadline(), self.right.next_deadline()) if time is not None
            ]
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(self.now, min(times))
            self._tick()
            ticks += 1
            assert ticks <= 100 * (seconds + 1), "a tick does not do what is due"

    def events_of(self, which: Connection) -> list[Event]:
        """What a connection told its owner so far; forgotten now."""
        events = self.left_events if which is self.left else self.right_events
        found = list(events)
        events.clear()
        return found

    def read(self, reader: Connection, stream: StreamRef) -> Item:
        """Take one item."""
        taken = reader.take(stream, self.now)
        self.send(reader, taken.frames)
        return taken.item

    def _tick(self) -> None:
        for one in (self.left, self.right):
            self._note(one, one.tick(self.now))

    def _note(self, which: Connection, events: list[Event]) -> None:
        self.send(which, [event.text for event in events if isinstance(event, Send)])
        (self.left_events if which is self.left else self.right_events).extend(events)


@define
class NodeAnswering:
    """The answering side of a Node peer, for one stream that its handler made: the table of `docs/wire.md`.

    `version` is 3.3.0, 3.3.2, or `reads` for the hand-written one that was captured with the real asking side.
    """

    version: str
    chunks: list[object]
    stream_id: str = "node-stream"
    closed: bool = True
    junk: int = 0
    purposes: list[str] = Factory(list)

    def first_answer(self, question: str) -> str:
        """The answer of the handler, with the placeholder."""
        members = {"localData": None} if self.version == "3.3.0" else {}
        return answer(question, {"stream": {"_isVirtualStream": True, "streamId": self.stream_id}}, **members)

    def reply(self, question: str) -> str | None:
        """The answer to a stream frame, if there is any."""
        envelope = json.loads(question)
        packet = envelope["request"]
        self.purposes.append(packet["mainPurpose"])
        head = {"streamId": packet["streamId"], "cycleId": packet["cycleId"], "cycle": "response"}
        flags = {"next": bool(self.chunks), "backpressure": self.junk >= 16}
        match packet["mainPurpose"]:
            case "keepAlive":
                alive = bool(self.chunks) if self.version == "reads" else not self.closed
                envelope["response"] = {**head, "mainPurpose": "keepAlive", "keepAlive": alive, **flags}
            case "feedback":
                envelope["response"] = {**head, "mainPurpose": "feedback", **flags}
            case "read" if self.version == "reads" and self.chunks:
                envelope["request"] = None
                envelope["response"] = self._chunk(head)
            case "chunk":
                if not self._poked(envelope, head):
                    return None
            case _:
                pass
        envelope["localData"] = None
        return json.dumps(envelope)

    def _poked(self, envelope: dict[str, Any], head: dict[str, object]) -> bool:
        self.junk += 1
        prefilled = envelope["response"] is not None
        envelope["request"] = None
        flags = {"next": bool(self.chunks), "backpressure": self.junk >= 16}
        if not self.chunks or (self.version == "3.3.2" and not prefilled):
            envelope["response"] = {**head, "mainPurpose": "feedback", **flags}
            return True
        if not prefilled:
            return False
        if self.version == "3.3.0":
            self.chunks.pop(0)
        envelope["response"] = (
            self._chunk(head) if self.chunks else {**head, "mainPurpose": "feedback", **flags}
        )
        return True

    def _chunk(self, head: dict[str, object]) -> dict[str, object]:
        chunk = self.chunks.pop(0)
        flags = {"next": bool(self.chunks), "backpressure": self.junk >= 16}
        return {**head, "mainPurpose": "chunk", **flags, "chunkData": chunk}


def buffer(data: bytes) -> dict[str, object]:
    """Bytes, as a Node peer sends them."""
    return {"type": "Buffer", "data": list(data)}
