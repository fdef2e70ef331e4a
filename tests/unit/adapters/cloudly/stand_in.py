"""What the tests talk to: text sockets in memory, and a Cloudly that is played from a table."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
import trio.testing
from attrs import Factory, define, field

from coreflow.adapters.cloudly import NetworkCloudly
from coreflow.adapters.cloudly.methods import ASKED, COLLECTIONS, LOGIN
from coreflow.adapters.net.peer import Handler, Peer
from coreflow.adapters.net.typedsocket import (
    INTERNAL_ERROR,
    NO_SUCH_METHOD,
    SET_TAG,
    Asked,
    Connection,
    Event,
    Send,
    StreamRef,
    StreamWritable,
    make_id,
)
from coreflow.adapters.tasks import nursery_of_one_error
from coreflow.domain.errors import CoreflowError, Refused, Unavailable

Json = dict[str, Any]

TOKEN = "machine-token"
EPOCH = 1_700_000_000.0
"""What the wall clock shows when trio's begins."""

MISSING = Refused(NO_SUCH_METHOD)
CRASH = Refused(INTERNAL_ERROR)
REJECTED = Refused("identity is not valid")
BATCH = tuple(collection.all.name for collection in COLLECTIONS)


async def settle() -> None:
    """Let everything happen that needs no time."""
    await trio.testing.wait_all_tasks_blocked()


async def never(_: object = None) -> Any:
    """An answer that does not come."""
    await trio.sleep_forever()


class Gone(Unavailable):
    """The socket is closed."""


@define(eq=False)
class TextSocket:
    """One end of a pair."""

    peer: str
    outgoing: trio.MemorySendChannel[str]
    incoming: trio.MemoryReceiveChannel[str]
    arriving: int = 0

    async def send(self, text: str) -> None:
        """See `Socket`."""
        try:
            await self.outgoing.send(text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone("the socket is closed") from None

    async def receive(self) -> str:
        """See `Socket`."""
        try:
            return await self.incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise Gone("the socket is closed") from None

    def close(self) -> None:
        """Close both directions."""
        self.outgoing.close()
        self.incoming.close()


def socket_pair(room: int = 16) -> tuple[TextSocket, TextSocket]:
    """Two ends; `room` messages may be on their way in each direction."""
    to_far, from_near = trio.open_memory_channel[str](room)
    to_near, from_far = trio.open_memory_channel[str](room)
    return TextSocket("far:1", to_far, from_far), TextSocket("near:1", to_near, from_near)


def handlers_of(answers: Mapping[str, Any]) -> dict[str, Handler]:
    """Handlers that answer like this: with what is there, with an exception, or with what a function makes of the request."""

    def handle(name: str, body: Mapping[str, Any]) -> Any:
        answer = answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer(body) if callable(answer) else answer

    return {name: partial(handle, name) for name in answers}


@define(eq=False)
class Streaming:
    """A peer that answers every request with a stream of these pieces; then it ends, unless it does not."""

    socket: TextSocket
    pieces: list[bytes]
    ends: bool = True
    rewrite: Callable[[str], str] = str
    connection: Connection = field(init=False)
    stream: StreamRef | None = None

    def __attrs_post_init__(self) -> None:
        numbers = iter(range(1, 1_000_000))
        self.connection = Connection(lambda: make_id(next(numbers).to_bytes(12)))

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            for event in self.connection.receive(await self.socket.receive(), trio.current_time()):
                for text in self._frames(event):
                    await self.socket.send(self.rewrite(text))

    def _frames(self, event: Event) -> tuple[str, ...]:
        match event:
            case Send(text):
                return (text,)
            case Asked(ask=ask):
                self.stream = self.connection.create_stream()
                self._write(self.stream)
                return self.connection.respond(ask, {"stream": self.stream}, trio.current_time())
            case StreamWritable(ref):
                return self._write(ref)
            case _:
                return ()

    def _write(self, ref: StreamRef) -> tuple[str, ...]:
        frames: tuple[str, ...] = ()
        while self.pieces and self.connection.can_write(ref):
            frames += self.connection.write(ref, self.pieces.pop(0), trio.current_time())
        if self.pieces or not self.ends:
            return frames
        return frames + self.connection.finish(ref, trio.current_time())


@define(eq=False)
class CloudlyStandIn:
    """A Cloudly that answers from `answers`: see `handlers_of`. What is not there is a method it does not have."""

    answers: Json = Factory(dict)
    lifetime: float | None = 3600.0
    """Of an identity, in seconds."""
    away: CoreflowError | None = None
    """What dialling fails with."""
    skew: float = 0.0
    """Seconds by which all wall clocks jumped, as after a sleep of the host."""
    delay: float = 0.0
    """How long dialling takes."""
    dials: list[float] = Factory(list)
    calls: list[tuple[float, str, Json]] = Factory(list)
    tags: list[tuple[float, str, Any]] = Factory(list)
    peers: list[Peer] = Factory(list)
    sockets: list[TextSocket] = Factory(list)
    logins: int = 0
    tagged: trio.Event = Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.answers = {LOGIN.name: self.login, "cloudlyStatus": {}, "log": {}, **self.answers}

    def wall_clock(self) -> float:
        """Seconds since 1970, here and there."""
        return EPOCH + trio.current_time() + self.skew

    def login(self, body: Mapping[str, Any]) -> Json:
        """Another identity with every call."""
        if body["token"] != TOKEN:
            raise Refused("no such token")
        self.logins += 1
        identity: Json = {"jwt": f"jwt-{self.logins}-secret"}
        if self.lifetime is not None:
            identity["expiresAt"] = (self.wall_clock() + self.lifetime) * 1000
        return {"identity": identity}

    def know(self, document: Mapping[str, Any], *, batch: bool = True) -> None:
        """Answer with the parts of a cluster document: all of a kind at once, or each by itself."""
        frame = {name: document.get(name) for name in ("configData", "services")}
        self.answers["getClusterConfig"] = frame
        self.answers["getServices"] = {"services": frame["services"]}
        for collection in COLLECTIONS:
            records = document.get(collection.member, [])
            if batch:
                self.answers[collection.all.name] = {collection.all.answer: records}
            by_id = {record["id"]: record for record in records}
            self.answers[collection.one.name] = partial(
                _one, by_id, collection.one.key, collection.one.answer
            )

    def count(self, name: str) -> int:
        """How often a method was asked for."""
        return sum(called == name for _, called, _ in self.calls)

    @property
    def identities(self) -> list[str]:
        """The identities by which connections were tagged."""
        return [payload["jwt"] for _, _, payload in self.tags]

    async def came_up(self) -> None:
        """Wait for the next connection that is tagged."""
        self.tagged = trio.Event()
        await self.tagged.wait()
        await settle()

    def hang_up(self) -> None:
        """Close the present connection."""
        self.sockets[-1].close()

    async def push(self, method: str, body: Mapping[str, object]) -> None:
        """Ask coreflow, and let it take note."""
        await self.peers[-1].request(method, body)
        await settle()

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[TextSocket]:
        """See `Dial`."""
        self.dials.append(trio.current_time())
        await trio.sleep(self.delay)
        if self.away is not None:
            raise type(self.away)(*self.away.args)
        near, far = socket_pair()
        names = [*(method.name for method in ASKED), SET_TAG]
        peer = Peer(
            far,
            handlers={name: partial(self._answer, name) for name in names},
            tag_policy=None if SET_TAG in self.answers else self._tagged,
        )
        self.sockets.append(far)
        self.peers.append(peer)
        async with nursery_of_one_error() as nursery:
            nursery.start_soon(peer.run)
            try:
                yield near
            finally:
                near.close()
                nursery.cancel_scope.cancel()

    def _tagged(self, name: str, payload: object) -> bool:
        self.tags.append((trio.current_time(), name, payload))
        self.tagged.set()
        return True

    def _answer(self, name: str, body: Mapping[str, Any]) -> Any:
        self.calls.append((trio.current_time(), name, dict(body)))
        return handlers_of({name: self.answers.get(name, MISSING)})[name](body)


def _one(by_id: Mapping[str, Json], key: str | None, answer: str | None, body: Mapping[str, Any]) -> Json:
    identity = body[key or ""]
    if identity not in by_id:
        raise Refused("not found")
    return {answer or "": by_id[identity]}


def follow(far: CloudlyStandIn, nursery: trio.Nursery, token: str = TOKEN, **options: Any) -> NetworkCloudly:
    """Our adapter, at work."""
    port = NetworkCloudly(far.dial, token, wall_clock=far.wall_clock, **options)
    nursery.start_soon(port.run)
    return port
