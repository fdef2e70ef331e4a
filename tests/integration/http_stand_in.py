"""What stand-ins that are posted to have in common, and what their tests look for."""

import traceback
from collections.abc import Awaitable, Callable
from functools import partial

import orjson
import trio

from coreflow.adapters.net import PostAnswer, Posted, ServerOptions, WebSocket, serve_websockets


def text_answer(document: object, status: int = 200) -> PostAnswer:
    """A document as an answer."""
    return PostAnswer(orjson.dumps(document).decode(), status)


async def serve_posts(nursery: trio.Nursery, post: Callable[[Posted], Awaitable[PostAnswer]]) -> int:
    """Serve on a free port until the nursery ends; returns the port."""
    serve = partial(serve_websockets, "127.0.0.1", 0, _no_websocket, ServerOptions(post=post))
    port: int = (await nursery.start(serve)).port
    return port


async def _no_websocket(connection: WebSocket) -> None:
    await connection.close()


async def answer_once(listener: trio.socket.SocketType, marker: bytes, body: bytes) -> None:
    """Listen a little later, take one connection, and answer what holds `marker`.

    Until then the port is taken, and nobody listens there.
    """
    await trio.sleep(0.25)
    listener.listen()
    stream, _ = await listener.accept()
    async with trio.SocketStream(stream) as connection:
        data = b""
        while marker not in data:
            data += await connection.receive_some()
        await connection.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def traceback_of(exc: BaseException | None) -> str:
    """All that an error could tell, and everything behind it, shown or not."""
    told = ""
    while exc is not None:
        told += (
            "".join(traceback.format_exception(exc, chain=False))
            + repr(exc)
            + repr(exc.args)
            + repr(vars(exc))
        )
        exc = exc.__cause__ or exc.__context__
    return told


UNUSABLE = (
    ("nonsense-canary", "token", "address of the form"),
    ("http://user:canary-pass@127.0.0.1:{port}", "token", "cannot be used"),
    ("http://127.0.0.1:{port}", "canary\r\ntoken", "cannot be used"),
)
"""Addresses and tokens of which one cannot be used, and how that is said. All canaries in them are secret."""


def quotes_of(token: str, key: str) -> tuple[str, ...]:
    """How a peer may quote a token, whole and cut, in the middle of others and at limits."""
    return (
        f"token {token} is bad",
        f"Bearer {token.upper()}",
        f"cut off: {token[:-3]}",
        "\x00".join(token),
        f"{token}{token} {key}",
        "x" * 495 + token,
        "x" * 9_990 + token,
    )
