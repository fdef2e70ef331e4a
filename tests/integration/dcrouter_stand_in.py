"""A stand-in for dcrouter's OpsServer: TypedRequest over HTTP, with everything that may go wrong on request.

It is written from what is known of dcrouter, not from its source; its names are therefore no proof of ours.
"""

from collections.abc import Callable
from typing import Any, Literal

import orjson
import trio
from attrs import Factory, define
from tests.integration.http_stand_in import serve_posts

from coreflow.adapters.net import PostAnswer, Posted

Json = dict[str, Any]
Shape = Literal["new", "old", "flat"]
NO_METHOD = "There is no available method for this call on the server side"


@define(eq=False)
class StandIn:
    """The state, and the knobs. A knob that is set holds for every request until it is set back."""

    token: str = "dcr_canary-0123456789abcdef"
    shape: Shape = "new"
    """How routes are listed."""
    stored: dict[str, Json] = Factory(dict)
    """Requests of `createRoute` and `updateRoute`, by id."""
    built_in: list[Json] = Factory(list)
    """Routes as they are listed, besides."""
    certificates: dict[str, Json] = Factory(dict)

    missing: set[str] = Factory(set)
    """Methods that it does not have."""
    error: str | None = None
    """The text of an error in the envelope."""
    null: bool = False
    """Whether the response is null, as when a handler crashes."""
    raw: PostAnswer | None = None
    """What to answer instead of an envelope."""
    seconds: float = 0.0
    """How long an answer takes."""
    deny: str | None = None
    """The message of a `success: false`."""
    denied: set[str] = Factory(set)
    """Methods for which that holds; empty: for all."""

    asked: list[tuple[str, Json]] = Factory(list)
    """Every request that came in: method and body."""
    writes: int = 0
    port: int = 0
    _made: int = 0

    @property
    def url(self) -> str:
        """The address of the OpsServer."""
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str) -> int:
        """How often a method was asked for."""
        return sum(name == method for name, _ in self.asked)

    async def post(self, posted: Posted) -> PostAnswer:
        """Answer one request."""
        envelope = orjson.loads(posted.text)
        method, body = envelope["method"], envelope["request"]
        self.asked.append((method, body))
        await trio.sleep(self.seconds)
        if self.raw is not None:
            return self.raw
        if posted.path != "/typedrequest":
            return PostAnswer('{"error":"not found"}', 404)
        envelope["correlation"]["phase"] = "response"
        members = self._members(method, body)
        return PostAnswer(orjson.dumps({**envelope, **members}).decode())

    def _members(self, method: str, body: Json) -> Json:
        answer = METHODS.get(method)
        text = self.error
        if answer is None or method in self.missing:
            text = NO_METHOD
        elif text is None and body.get("apiToken") != self.token:
            text = f"the token {body.get('apiToken')} is not valid"
        if text is not None or answer is None:
            return {"error": {"text": text, "data": {}}, "response": None}
        if self.null:
            return {"response": None}
        if self.deny is not None and (not self.denied or method in self.denied):
            return {"response": {"success": False, "message": self.deny}}
        return {"response": answer(self, body)}

    def export_certificate(self, body: Json) -> Json:
        """A certificate, or `success: false`."""
        found = self.certificates.get(body["domain"])
        if found is None:
            return {"success": False, "message": f"No certificate for {body['domain']}"}
        return {"success": True, "cert": found}

    def list_routes(self, _: Json) -> Json:
        """What is stored and what is built in, in the chosen shape."""
        render = {"new": _new, "old": _old, "flat": _flat}[self.shape]
        routes = [render(identity, request) for identity, request in self.stored.items()]
        return {"routes": [*self.built_in, *routes], "warnings": []}

    def create(self, body: Json) -> Json:
        """Store a route. A name is taken once."""
        names = [request["route"]["name"] for request in self.stored.values()]
        names += [found["route"].get("name") for found in self.built_in]
        if body["route"]["name"] in names:
            return {"success": False, "message": "a route of this name exists"}
        self._made += 1
        self.stored[f"made-{self._made}"] = _kept(body)
        self.writes += 1
        return {"success": True, "storedRouteId": f"made-{self._made}"}

    def update(self, body: Json) -> Json:
        """Replace a stored route."""
        if body["id"] not in self.stored:
            return {"success": False, "message": "Route not found"}
        self.stored[body["id"]] |= _kept(body)
        self.writes += 1
        return {"success": True}

    def delete(self, body: Json) -> Json:
        """Remove a stored route."""
        if self.stored.pop(body["id"], None) is None:
            return {"success": False, "message": "Route not found"}
        self.writes += 1
        return {"success": True}


METHODS: dict[str, Callable[[StandIn, Json], Json]] = {
    "exportCertificate": StandIn.export_certificate,
    "getMergedRoutes": StandIn.list_routes,
    "createRoute": StandIn.create,
    "updateRoute": StandIn.update,
    "deleteRoute": StandIn.delete,
}


def _kept(body: Json) -> Json:
    return {key: value for key, value in body.items() if key in ("route", "enabled", "metadata")}


def _new(identity: str, request: Json) -> Json:
    return {
        "source": "programmatic",
        "storedRouteId": identity,
        "createdAt": 1,
        "updatedAt": 2,
        "enabled": True,
        **request,
    }


def _old(identity: str, request: Json) -> Json:
    """One target, TLS beside the action, a list of ports, and no tags: the mark is in the metadata."""
    route = request["route"]
    action = {key: value for key, value in route["action"].items() if key not in ("tls", "targets")}
    (target,) = route["action"]["targets"]
    listed = {
        "name": route["name"],
        "match": {
            "ports": [{"from": 443, "to": 443}],
            "domains": [d.upper() + "." for d in route["match"]["domains"]],
        },
        "action": {**action, "target": {**target, "port": str(target["port"])}},
        "tls": route["action"]["tls"],
    }
    answer: Json = {"origin": "api", "id": identity, "route": listed, "metadata": request.get("metadata")}
    return answer if request.get("enabled") is not False else {**answer, "enabled": False}


def _flat(identity: str, request: Json) -> Json:
    """No route around the route, no metadata, text instead of lists of one."""
    route = request["route"]
    match = {"ports": [443], "domains": route["match"]["domains"][0], "path": None}
    return {**route, "match": match, "routeId": identity, "enabled": request.get("enabled", True)}


async def start_stand_in(nursery: trio.Nursery, shape: Shape = "new") -> StandIn:
    """Serve on a free port until the nursery ends."""
    stand_in = StandIn(shape=shape)
    stand_in.port = await serve_posts(nursery, stand_in.post)
    return stand_in
