"""The network for trio programs: WebSockets, HTTP and transfers over it, a server, and the entry point of a process.

The only package that knows asyncio and aiohttp; what it offers speaks trio, and its errors are the domain's. It knows no
other adapter. `typedsocket` is the protocol over a WebSocket, `peer` one end of it that lives.
"""

from .accepting import Room
from .bridge import in_asyncio, in_trio, is_hosted, run
from .budget import MessageBudget
from .errors import Closed, Denied, Failing, Interrupted, NotHosted
from .http import MAX_ANSWER, HttpAnswer, http_get, http_post
from .outbound import DIRECT, Outbound
from .proxies import Proxies
from .server import Listening, Page, PostAnswer, Posted, ServerOptions, always_well, serve_websockets
from .transfers import PIECE_BYTES, STALL_SECONDS, Download, http_download, http_upload
from .websocket import (
    ABNORMAL,
    GOING_AWAY,
    HEARTBEAT_SECONDS,
    INTERNAL_ERROR,
    MAX_MESSAGE,
    SocketOptions,
    WebSocket,
    connect_websocket,
)

__all__ = [
    "ABNORMAL",
    "DIRECT",
    "GOING_AWAY",
    "HEARTBEAT_SECONDS",
    "INTERNAL_ERROR",
    "MAX_ANSWER",
    "MAX_MESSAGE",
    "PIECE_BYTES",
    "STALL_SECONDS",
    "Closed",
    "Denied",
    "Download",
    "Failing",
    "HttpAnswer",
    "Interrupted",
    "Listening",
    "MessageBudget",
    "NotHosted",
    "Outbound",
    "Page",
    "PostAnswer",
    "Posted",
    "Proxies",
    "Room",
    "ServerOptions",
    "SocketOptions",
    "WebSocket",
    "always_well",
    "connect_websocket",
    "http_download",
    "http_get",
    "http_post",
    "http_upload",
    "in_asyncio",
    "in_trio",
    "is_hosted",
    "run",
    "serve_websockets",
]
