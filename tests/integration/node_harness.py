"""Peers on the real npm packages: a stand-in for Cloudly, a client like Coretraffic, and one that really proxies.

`scripts/node-harness` prepares the machine; tests that need it say so with `needs_node`. The processes belong to a
nursery (`nursery` of pytest-trio, for instance) and end with it.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from attrs import define, field
from tests.integration.lab import Lab

Json = dict[str, Any]
TOKEN = "canary-token"
"""Which a Cloudly that was told of a lab accepts."""
FOLDER = Path(__file__).parent / "node"
P = TypeVar("P", bound="NodePeer")
TIMEOUT = 30.0


def _missing() -> str:
    """What is not there, if anything."""
    if shutil.which("node") is None:
        return "Node is not installed: scripts/node-harness does that"
    if not (FOLDER / "node_modules/.coreflow").exists():
        return "npm packages are not installed: scripts/node-harness does that"
    return ""


needs_node = pytest.mark.skipif(
    bool(_missing()) and not os.environ.get("COREFLOW_REQUIRE_NODE"), reason=_missing()
)
"""For tests that use this module: without Node they are skipped, or fail where it is required."""


class NodeError(Exception):
    """A command failed in the Node process: its text, and the data of a typed error."""

    def __init__(self, text: str, data: object) -> None:
        super().__init__(text, data)
        self.text, self.data = text, data


@define(eq=False)
class NodePeer:
    """A Node process that obeys commands and reports events."""

    process: trio.Process
    port: int = 0
    _asked: dict[int, trio.MemorySendChannel[Json]] = field(factory=dict)
    _events: list[Json] = field(factory=list)
    _news: trio.Event = field(factory=trio.Event)
    _count: int = 0

    async def ask(self, name: str, **arguments: Any) -> Any:
        """Give a command and wait for its result. Raises NodeError."""
        self._count += 1
        number = self._count
        tell, told = trio.open_memory_channel[Json](1)
        self._asked[number] = tell
        line = json.dumps({"id": number, "do": name, **arguments}) + "\n"
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode())
        with trio.fail_after(TIMEOUT):
            answer = await told.receive()
        if "error" in answer:
            raise NodeError(answer["error"], answer["data"])
        return answer["result"]

    async def event(self, kind: str, **facts: Any) -> Json:
        """The first event of this kind with these facts that was not taken yet; waits for one if need be."""
        with trio.fail_after(TIMEOUT):
            while True:
                for event in self._events:
                    if {"event": kind, **facts}.items() <= event.items():
                        self._events.remove(event)
                        return event
                await self._news.wait()

    def freeze(self) -> None:
        """Stop it in its tracks, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it without a goodbye, and wait until it is gone."""
        self.process.kill()
        await self.process.wait()

    def _take(self, document: Json) -> None:
        if "id" in document:
            self._asked.pop(document["id"]).send_nowait(document)
            return
        if document["event"] == "ready":
            self.port = document["port"]
        self._events.append(document)
        news, self._news = self._news, trio.Event()
        news.set()


class Cloudly(NodePeer):
    """The stand-in for Cloudly. What it knows is in `node/cloudly.mjs`, at the top."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def know(self, **documents: Any) -> None:
        """Replace what it knows: `cluster`, `services`, `images`, `tokens`, `archives`, `missing`, ..."""
        await self.ask("know", documents=documents)

    async def revoke(self) -> None:
        """Forget every identity that it has issued."""
        await self.ask("revoke")

    async def misbehave(self, method: str, **manner: Any) -> None:
        """From now on (`times` times) `delayMs`, `error`, `crash`, `silent`, `twice`, `foreignId`, `retry`, `response`."""
        await self.ask("misbehave", method=method, **manner)

    async def behave(self) -> None:
        """Forget about every misbehaviour."""
        await self.ask("behave")

    async def push(self, method: str, body: Json, **choice: Any) -> list[Json]:
        """Send a request to connections (all, or by `tag`, or one `connection`); returns their answers."""
        answers: list[Json] = await self.ask("push", method=method, body=body, **choice)
        return answers

    async def flood(self, method: str, body: Json, count: int, **choice: Any) -> None:
        """Push as often as `count`, at once, without waiting for answers."""
        await self.ask("flood", method=method, body=body, count=count, **choice)

    async def send(self, text: str, **choice: Any) -> int:
        """Send any text to connections; returns to how many."""
        count: int = await self.ask("send", text=text, **choice)
        return count

    async def drop(self, **choice: Any) -> int:
        """End connections, without a goodbye or with a `code` and a `reason`; returns how many."""
        count: int = await self.ask("drop", **choice)
        return count

    async def connections(self) -> list[Json]:
        """Who is connected: `id`, `url`, `tags` with their payloads."""
        connections: list[Json] = await self.ask("connections")
        return connections

    async def seen(self, method: str | None = None, *, forget: bool = False) -> list[Json]:
        """The requests so far: `method`, `connection`, `envelope`."""
        requests: list[Json] = await self.ask("seen", method=method, forget=forget)
        return requests

    async def operate(self, method: str, **request: Any) -> Json:
        """Ask the coreflow that is connected for a backup or a restore; returns `response`, or `error` and `data`."""
        (answer,) = await self.push(method, request, tag="identity")
        return answer

    async def copies(self) -> dict[str, tuple[bytes, list[str]]]:
        """The copies of archive objects that are whole: content and ids of backups by name."""
        copies = await self.ask("copies")
        return {copy["name"]: (base64.b64decode(copy["data"]), copy["backups"]) for copy in copies}

    async def arriving(self) -> dict[str, int]:
        """How many bytes have arrived of the copies that are not whole."""
        received: dict[str, int] = await self.ask("arriving")
        return received

    async def spoil(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of those of a copy; what was said of it stays."""
        await self.ask("spoil", copy=name, data=base64.b64encode(data).decode())

    async def lose(self, name: str | None = None) -> None:
        """Forget a copy, or all of them."""
        await self.ask("lose", copy=name)

    async def disturb(self, **trouble: Any) -> None:
        """By the number of a slice: `cutBefore` it arrives, `cutAfter` it has, `flip` a bit. `slices` sets the count."""
        await self.ask("disturb", **trouble)

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        await self.ask("stop")

    async def start(self) -> None:
        """Listen again, on the same port."""
        await self.ask("start")


class Coretraffic(NodePeer):
    """The client of the internal server."""

    async def connect(self) -> None:
        """Dial and tag."""
        await self.ask("connect")

    async def answer(self, **change: Any) -> None:
        """How to answer from now on: `answer`, `error`, `crash`, `silent`, `delayMs`."""
        await self.ask("answer", **change)

    async def received(self) -> list[Json]:
        """The routing updates so far."""
        updates: list[Json] = await self.ask("received")
        return updates

    async def request(self, method: str, body: Json) -> Any:
        """Ask the server something. Raises NodeError."""
        return await self.ask("request", method=method, body=body)


class TlsProxy(Coretraffic):
    """A client of the internal server that does what it is told: it ends TLS, and proxies to the tasks.

    It listens on `port` of 127.0.0.1. What it could not proxy is an event: `failed`, with `host` and `error`.
    """


async def start_cloudly(nursery: trio.Nursery, **options: Any) -> Cloudly:
    """Start a stand-in. Options: `port`, `tls` (paths of `cert` and `key`)."""
    return await _start(nursery, Cloudly, ["cloudly.mjs", json.dumps(options)])


async def tell(cloudly: Cloudly, lab: Lab, *services: Json, **others: Any) -> Json:
    """Make these the services that Cloudly knows; returns what a push of them says."""
    config = {"id": lab.prefix, "data": {"name": lab.prefix, "userId": "user", "nodes": []}}
    await cloudly.know(cluster=config, services=[*services], tokens=[TOKEN], **others)
    return {"configData": config, "services": [*services]}


async def start_coretraffic(nursery: trio.Nursery, url: str, **options: Any) -> Coretraffic:
    """Start a client; it does not dial yet. Options are at the top of `node/coretraffic.mjs`."""
    return await _start(nursery, Coretraffic, ["coretraffic.mjs", json.dumps({"url": url, **options})])


async def start_tls_proxy(nursery: trio.Nursery, url: str, *, relay: str, **options: Any) -> TlsProxy:
    """Start a proxy that reaches the tasks through `relay` (see `proxy_bench.overlay_relay`); it does not dial yet.

    Options: `port` and `connectSeconds`, and those of a Coretraffic.
    """
    options = {"url": url, "relay": relay, **options}
    return await _start(nursery, TlsProxy, ["coretraffic.mjs", json.dumps(options)])


async def _start(nursery: trio.Nursery, kind: type[P], arguments: list[str]) -> P:
    if missing := _missing():
        pytest.fail(missing)
    peer: P = await nursery.start(partial(_live, kind, ["node", *arguments]))
    await peer.event("ready")
    return peer


async def _live(kind: type[P], command: list[str], *, task_status: trio.TaskStatus[P]) -> None:
    process = await trio.lowlevel.open_process(
        command,
        cwd=FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    peer = kind(process)
    try:
        task_status.started(peer)
        assert process.stdout is not None
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                peer._take(json.loads(line))
    finally:
        await end(process)


async def end(process: trio.Process) -> None:
    """Kill a process that was talked to by pipes, and close them."""
    process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        await trio.aclose_forcefully(stream)
