"""What tests of the traffic need: a way into an overlay network, an HTTPS client, and a steady load.

    async with overlay_relay(lab.client, "sznwebgateway") as relay:
        proxy = await start_tls_proxy(nursery, url, relay=relay)
        ...
        async with steady_load(proxy.port, "a.example.com", ca, per_second=50) as load:
            ...
        assert not load.failures

All of it lives in the test's event loop: what blocks (a `Lab`, the engine's client) belongs into a thread.
"""

import itertools
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trustme
from attrs import define, field, frozen
from tests.integration.lab import LOCAL_IMAGE
from tests.integration.node_harness import end

from coreflow.adapters.tasks import nursery_of_one_error

RELAY = Path(__file__).with_name("netns_relay.py")
Json = dict[str, Any]


class NoAnswer(Exception):
    """A request that was not answered to its end."""


# a way into an overlay network


@asynccontextmanager
async def overlay_relay(client: Any, network: str) -> AsyncIterator[str]:
    """The path of the socket of a relay into an overlay network (see `netns_relay.py`).

    `client` is the low-level client of a node's engine. The relay is in the network namespace of a container of its own,
    which is attached to the network as one that belongs to no service: the network has to be attachable.
    """
    config = client.create_host_config(network_mode=network)
    create = partial(client.create_container, LOCAL_IMAGE, host_config=config)
    with trio.CancelScope(shield=True):  # or nobody would know what to remove
        container = (await trio.to_thread.run_sync(create))["Id"]
    try:
        await trio.to_thread.run_sync(client.start, container)
        state = (await trio.to_thread.run_sync(client.inspect_container, container))["State"]
        with tempfile.TemporaryDirectory() as folder:
            socket = str(Path(folder) / "relay")
            enter = ["nsenter", "--target", str(state["Pid"]), "--net", "--"]
            process = await trio.lowlevel.open_process(
                [*enter, sys.executable, str(RELAY), socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            try:
                assert process.stdout is not None
                with trio.fail_after(20):
                    said = await process.stdout.receive_some()
                assert said, f"the relay did not start in the network namespace of {state['Pid']}"
                yield socket
            finally:
                await end(process)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(client.remove_container, container, force=True))


# routes


def reverse_config(ca: trustme.CA, host: str, addresses: list[str], port: int = 8080) -> Json:
    """A route of `updateRouting`, with a new certificate."""
    issued = ca.issue_cert(host)
    return {
        "hostName": host,
        "destinationIps": addresses,
        "destinationPorts": [port] * len(addresses),
        "privateKey": issued.private_key_pem.bytes().decode(),
        "publicKey": b"".join(part.bytes() for part in issued.cert_chain_pems).decode(),
    }


def addresses_on(network: str, tasks: list[Json]) -> list[str]:
    """Where these tasks are on a network."""
    return [
        attachment["Addresses"][0].partition("/")[0]
        for task in tasks
        for attachment in task.get("NetworksAttachments") or ()
        if attachment["Network"]["Spec"]["Name"] == network
    ]


# requests


async def get(
    port: int, host: str, ca: trustme.CA, path: str = "/", *, seconds: float = 10
) -> tuple[int, str]:
    """Status and text of a page of `host`, from a proxy on this machine. Raises NoAnswer.

    The connection is a new one, and its certificate has to be the host's, from `ca`.
    """
    try:
        with trio.fail_after(seconds):
            return _parsed(await _exchange(port, host, ca, path))
    except trio.TooSlowError:
        raise NoAnswer(f"no answer within {seconds} s") from None
    except (OSError, trio.BrokenResourceError) as error:
        raise NoAnswer(str(error.__cause__ or error) or type(error).__name__) from error


async def serving(port: int, host: str, ca: trustme.CA, count: int, *, seconds: float = 60) -> None:
    """Wait until so many tasks answer for `host`: Swarm says that a task runs before its server listens."""
    names: set[str] = set()
    with trio.fail_after(seconds):
        while len(names) < count:
            status, text = await get(port, host, ca)
            names |= {text} if status == 200 else set()


async def _exchange(port: int, host: str, ca: trustme.CA, path: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    plain = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(plain, context, server_hostname=host)
    try:
        # HTTP/1.0, so that the answer ends with the connection; one that breaks off does not end as TLS has it.
        await stream.send_all(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return b"".join([chunk async for chunk in stream])
    finally:
        await trio.aclose_forcefully(stream)


def _parsed(answer: bytes) -> tuple[int, str]:
    head, end, body = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if not end or len(words) < 2:
        raise NoAnswer("it broke off before the body")
    length = re.search(rb"(?im)^content-length: *([0-9]+)", head)
    if length is not None and len(body) != int(length[1]):
        raise NoAnswer("it broke off in the body")
    return int(words[1]), body.decode(errors="replace")


@frozen
class Answered:
    """How a request ended."""

    started: float
    """On the clock of `trio.current_time`."""
    ended: float
    status: int | None
    """None of one that was not answered."""
    text: str
    """The page, or what went wrong."""

    @property
    def is_good(self) -> bool:
        """Whether it was answered with 200."""
        return self.status == 200


@define(eq=False)
class Load:
    """What became of the requests of a steady load."""

    answers: list[Answered] = field(factory=list)
    """In the order in which they ended."""

    @property
    def failures(self) -> list[Answered]:
        """What was not answered with 200."""
        return [answer for answer in self.answers if not answer.is_good]

    def between(self, begin: float, end: float) -> list[Answered]:
        """The requests that were sent in this time."""
        return [answer for answer in self.answers if begin <= answer.started < end]


@asynccontextmanager
async def steady_load(
    port: int, host: str, ca: trustme.CA, path: str = "/", *, per_second: float, seconds: float = 5
) -> AsyncIterator[Load]:
    """Get a page at a steady rate, whether or not it was answered before; in the end, wait for what is under way.

    `seconds` is how long one answer may take.
    """
    load = Load()

    async def one() -> None:
        started = trio.current_time()
        status: int | None = None
        try:
            status, text = await get(port, host, ca, path, seconds=seconds)
        except NoAnswer as error:
            text = str(error)
        load.answers.append(Answered(started, trio.current_time(), status, text))

    async def send(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            begin = trio.current_time()
            for number in itertools.count():
                await trio.sleep_until(begin + number / per_second)
                nursery.start_soon(one)

    async with nursery_of_one_error() as nursery:
        sending: trio.CancelScope = await nursery.start(send)
        yield load
        sending.cancel()
