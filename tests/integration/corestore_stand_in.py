"""A stand-in for Corestore's control API, with everything that may go wrong on request.

It is written from what is known of Corestore, not from its source; its names are therefore no proof of ours. The token
is not checked: `Posted` has no headers.
"""

from collections import deque
from hashlib import sha256
from typing import Any, Literal

import orjson
import trio
from attrs import Factory, define
from tests.integration.http_stand_in import serve_posts, text_answer

from coreflow.adapters.net import PostAnswer, Posted

Json = dict[str, Any]
Shape = Literal["env", "environment", "nested", "resources", "inside"]
SHAPES: tuple[Shape, ...] = ("env", "environment", "nested", "resources", "inside")
HOST = "corestore"


@define(eq=False)
class StandIn:
    """The state, and the knobs. A knob that is set holds for every request until it is set back."""

    shape: Shape = "env"
    """How variables and endpoints are answered."""
    master: str = "master"
    """What credentials are derived from."""
    held: set[tuple[str, str]] = Factory(set)
    """Service ids and capabilities that are provisioned."""

    raw: PostAnswer | None = None
    """What to answer instead."""
    once: deque[PostAnswer] = Factory(deque)
    """What to answer first, one per request."""
    seconds: float = 0.0
    """How long an answer takes."""

    asked: list[tuple[str, Json]] = Factory(list)
    """Every request that came in: path and body."""
    port: int = 0

    @property
    def url(self) -> str:
        """The address of the control API."""
        return f"http://127.0.0.1:{self.port}"

    async def post(self, posted: Posted) -> PostAnswer:
        """Answer one request."""
        body = orjson.loads(posted.text)
        self.asked.append((posted.path, body))
        await trio.sleep(self.seconds)
        if self.once:
            return self.once.popleft()
        if self.raw is not None:
            return self.raw
        service, capabilities = body["serviceId"], body["capabilities"]
        keys = {(service, capability) for capability in capabilities}
        if not keys <= {(service, "database"), (service, "objectstorage")}:
            return text_answer({"error": "unknown capability"}, 400)
        if posted.path == "/resources/provision":
            self.held |= keys
            (capability,) = capabilities
            return text_answer(self._answer(service, capability))
        if posted.path == "/resources/deprovision":
            if not keys & self.held:
                return text_answer({"error": "unknown service"}, 404)
            self.held -= keys
            return text_answer({"ok": True})
        return text_answer({"error": "not found"}, 404)

    def _answer(self, service: str, capability: str) -> Json:
        env = self._env(service, capability)
        urls = {"database": f"mongodb://{HOST}:27017", "objectstorage": f"http://{HOST}:9000"}
        match self.shape:
            case "env":
                facts = {"database": {"host": HOST, "port": 27017}, "objectstorage": {"region": "r"}}
                return {"serviceId": service, "env": env, "resources": facts, "endpoints": urls}
            case "environment":
                listed = [
                    {"name": "database", "protocol": "mongodb", "host": HOST, "port": 27017},
                    {"name": "objectstorage", "protocol": "http", "host": HOST, "port": "9000"},
                ]
                return {"ok": True, "environment": env, "endpoints": listed}
            case "nested":
                secret = {name: url.replace("://", "://user:canary@") for name, url in urls.items()}
                return {capability: {"env": env}, "endpoints": secret}
            case "resources":
                return {"resources": {capability: {"env": env, "endpoints": urls[capability]}}}
            case "inside":
                return {"env": {capability: env}, "endpoints": urls}

    def _env(self, service: str, capability: str) -> Json:
        digest = sha256(f"{self.master}/{service}/{capability}".encode()).hexdigest()
        if capability == "database":
            uri = f"mongodb://u{digest[:6]}:{digest[6:30]}@{HOST}:27017/d{digest[:6]}"
            return {"MONGODB_URI": uri, "MONGODB_PORT": 27017}
        return {"S3_BUCKET": digest[:8], "AWS_SECRET_ACCESS_KEY": digest[8:48], "S3_USE_SSL": False}


async def start_stand_in(nursery: trio.Nursery, shape: Shape = "env") -> StandIn:
    """Serve on a free port until the nursery ends."""
    stand_in = StandIn(shape=shape)
    stand_in.port = await serve_posts(nursery, stand_in.post)
    return stand_in
