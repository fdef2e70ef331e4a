"""Every name that is spoken between dcrouter's OpsServer and coreflow, in one table, with how well it is known.

A correction of a name is a change of this table. What a row says about its certainty:

- `read`: read in public material;
- `recalled`: somebody's memory of this ecosystem's habits;
- `proposed`: our own shape in the ecosystem's style, because no public source has it.

Where a member may have several names, the first is what we write, and all are read, in this order.
"""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

Certainty = Literal["read", "recalled", "proposed"]


@frozen
class Member:
    """A member of a JSON object, under one of several names."""

    names: tuple[str, ...]
    certainty: Certainty
    meaning: str = ""

    @property
    def name(self) -> str:
        """The name under which it is written."""
        return self.names[0]

    def of(self, raw: object) -> Any:
        """Its value in an object, where a null counts as absent. None: it is not there, or that is no object."""
        if not isinstance(raw, Mapping):
            return None
        return next((raw[name] for name in self.names if raw.get(name) is not None), None)


@frozen
class Method:
    """A method: its name, the members of its request besides the token, and the one of its answer that matters."""

    name: str
    certainty: Certainty
    request: tuple[Member, ...] = ()
    answer: Member | None = None
    meaning: str = ""


PATH = "/typedrequest"
"""Where the OpsServer listens, below its address (recalled)."""
NO_SUCH_METHOD = "There is no available method"
"""How the text begins with which a TypedRequest server answers a method that it does not have (read)."""
CRASHED = "Internal server error"
"""What a TypedRequest server answers for an exception that was not meant for us (read)."""

# In requests and answers

TOKEN = Member(("apiToken",), "recalled", "in every request; also sent as `Authorization: Bearer` (proposed)")
SUCCESS = Member(("success", "ok"), "recalled", "false: it was not done; absent counts as true")
MESSAGE = Member(("message", "errorText", "error"), "recalled", "why not")
DOMAIN = Member(("domain",), "recalled", "a host name, or `*.` and one")
CERTIFICATE = Member(("cert", "certificate"), "recalled", "absent or null: there is none")
ROUTES = Member(("routes", "mergedRoutes"), "recalled", "a list, built-in routes included")
ROUTE = Member(("route",), "recalled", "absent in a list: its members stand beside the id")
ROUTE_ID = Member(("id",), "recalled", "which route to change")
ENABLED = Member(("enabled",), "recalled", "absent counts as true")
METADATA = Member(("metadata",), "recalled", "our mark once more, should tags be lost (proposed)")

# A certificate (ICert)

CERTIFICATE_ID = Member(("id",), "read")
DOMAIN_NAME = Member(("domainName", "domain"), "read")
CREATED = Member(("created",), "read", "ms since 1970")
VALID_UNTIL = Member(("validUntil",), "read", "ms since 1970")
PRIVATE_KEY = Member(("privateKey", "key"), "read", "PEM")
PUBLIC_KEY = Member(("publicKey", "chain", "certificate"), "read", "PEM chain, despite its name")

# A route in a list

FOUND_ID = Member(("storedRouteId", "id", "routeId"), "recalled", "absent: the route is built in")
ORIGIN = Member(("source", "origin"), "recalled", "see `BUILT_IN`")
BUILT_IN = frozenset({"hardcoded", "hard-coded", "builtin", "built-in"})
"""Origins of routes that cannot be changed, even if they have an id (recalled)."""
TAGS = Member(("tags",), "read")
NAME = Member(("name",), "read")

# A route (SmartProxy)

MATCH = Member(("match",), "read")
PORTS = Member(("ports",), "read", "a number, or a list of numbers and of `{from, to}`")
DOMAINS = Member(("domains",), "read", "a text or a list")
NARROWING = ("path", "clientIp", "tlsVersion", "headers")
"""Other members of `match` (read): we never write them, and a route that has one was changed by somebody."""
ACTION = Member(("action",), "read")
TYPE = Member(("type",), "read", "`forward`")
TARGETS = Member(("targets", "target"), "read", "a list, formerly one object")
HOST = Member(("host",), "read", "a text or a list")
PORT = Member(("port",), "read")
TLS = Member(("tls",), "recalled", "inside the action; an old note has it beside")
MODE = Member(("mode",), "read", "`passthrough`, `terminate` or `terminate-and-reencrypt`")
TLS_CERTIFICATE = Member(("certificate",), "read", "`auto`: the gateway gets one by itself")

# Our mark (proposed)

MARK = "coreflow:"
"""What the tag begins with; the cluster's id follows."""
OWNER, CLUSTER_ID, HOST_NAME = "owner", "clusterId", "hostName"
"""Members of the metadata; the owner is `coreflow`."""

EXPORT_CERTIFICATE = Method(
    "exportCertificate", "recalled", (DOMAIN,), CERTIFICATE, "a certificate with its key"
)
LIST_ROUTES = Method("getMergedRoutes", "recalled", (), ROUTES, "every route there is")
CREATE_ROUTE = Method("createRoute", "recalled", (ROUTE, ENABLED, METADATA), None, "a new route")
UPDATE_ROUTE = Method(
    "updateRoute", "recalled", (ROUTE_ID, ROUTE, ENABLED, METADATA), None, "the whole route"
)
DELETE_ROUTE = Method("deleteRoute", "recalled", (ROUTE_ID,), None, "a route")

ASKED = (EXPORT_CERTIFICATE, LIST_ROUTES, CREATE_ROUTE, UPDATE_ROUTE, DELETE_ROUTE)


def method_table() -> str:
    """The methods as documentation may have them."""
    rows = ["| method | request | answer | certainty | |", "|---|---|---|---|---|"]
    for method in ASKED:
        request = ", ".join(f"`{member.name}`" for member in (TOKEN, *method.request))
        answer = f"`{method.answer.name}`" if method.answer else f"`{SUCCESS.name}`"
        rows.append(f"| `{method.name}` | {request} | {answer} | {method.certainty} | {method.meaning} |")
    return "\n".join(rows) + "\n"
