"""Every name that is spoken between dcrouter's OpsServer and coreflow, in one table, with how well it is known.

A correction of a name is a change of this table. What its certainties mean stands in `coreflow.adapters.names`.
"""

from attrs import frozen

from coreflow.adapters.names import Certainty, Member

READ, RECALLED = Certainty.READ, Certainty.RECALLED
INFERRED, PROPOSED = Certainty.INFERRED, Certainty.PROPOSED


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

TOKEN = Member(("apiToken",), RECALLED, "in every request; also sent as `Authorization: Bearer` (proposed)")
SUCCESS = Member(("success", "ok"), RECALLED, "false: it was not done; absent counts as true")
MESSAGE = Member(("message", "errorText", "error"), RECALLED, "why not")
DOMAIN = Member(("domain",), RECALLED, "a host name, or `*.` and one")
CERTIFICATE = Member(("cert", "certificate"), RECALLED, "absent or null: there is none")
ROUTES = Member(("routes", "mergedRoutes"), RECALLED, "a list, built-in routes included")
ROUTE = Member(("route",), RECALLED, "absent in a list: its members stand beside the id")
ROUTE_ID = Member(("id",), RECALLED, "which route to change")
ENABLED = Member(("enabled",), RECALLED, "absent counts as true")
METADATA = Member(("metadata",), RECALLED, "our mark once more, should tags be lost (proposed)")

# A certificate (ICert)

CERTIFICATE_ID = Member(("id",), READ)
DOMAIN_NAME = Member(("domainName", "domain"), READ)
CREATED = Member(("created",), READ, "ms since 1970")
VALID_UNTIL = Member(("validUntil",), READ, "ms since 1970")
PRIVATE_KEY = Member(("privateKey", "key"), READ, "PEM")
PUBLIC_KEY = Member(("publicKey", "chain", "certificate"), READ, "PEM chain, despite its name")

# A route in a list

FOUND_ID = Member(("storedRouteId", "id", "routeId"), RECALLED, "absent: the route is built in")
ORIGIN = Member(("source", "origin"), RECALLED, "see `BUILT_IN`")
BUILT_IN = frozenset({"hardcoded", "hard-coded", "builtin", "built-in"})
"""Origins of routes that cannot be changed, even if they have an id (recalled)."""
TAGS = Member(("tags",), READ)
NAME = Member(("name",), READ)

# A route (SmartProxy)

MATCH = Member(("match",), READ)
PORTS = Member(("ports",), READ, "a number, or a list of numbers and of `{from, to}`")
DOMAINS = Member(("domains",), READ, "a string or a list")
NARROWING = ("path", "clientIp", "tlsVersion", "headers")
"""Other members of `match` (read): we never write them, and a route that has one was changed by somebody."""
ACTION = Member(("action",), READ)
TYPE = Member(("type",), READ, "`forward`")
TARGETS = Member(("targets", "target"), READ, "a list, formerly one object")
HOST = Member(("host",), READ, "a string or a list")
PORT = Member(("port",), READ)
TLS = Member(("tls",), RECALLED, "inside the action; an old note has it beside")
MODE = Member(("mode",), READ, "`passthrough`, `terminate` or `terminate-and-reencrypt`")
TLS_CERTIFICATE = Member(("certificate",), READ, "`auto`: the gateway gets one by itself")

# Our mark (proposed)

MARK = "coreflow:"
"""What the tag begins with; the cluster's id follows."""
OWNER, CLUSTER_ID, HOST_NAME = "owner", "clusterId", "hostName"
"""Members of the metadata; the owner is `coreflow`."""

EXPORT_CERTIFICATE = Method(
    "exportCertificate", RECALLED, (DOMAIN,), CERTIFICATE, "a certificate with its key"
)
LIST_ROUTES = Method("getMergedRoutes", RECALLED, (), ROUTES, "every route there is")
CREATE_ROUTE = Method("createRoute", RECALLED, (ROUTE, ENABLED, METADATA), None, "a new route")
UPDATE_ROUTE = Method("updateRoute", RECALLED, (ROUTE_ID, ROUTE, ENABLED, METADATA), None, "the whole route")
DELETE_ROUTE = Method("deleteRoute", RECALLED, (ROUTE_ID,), None, "a route")

ASKED = (EXPORT_CERTIFICATE, LIST_ROUTES, CREATE_ROUTE, UPDATE_ROUTE, DELETE_ROUTE)


def method_table() -> str:
    """The methods as documentation may have them."""
    rows = ["| method | request | answer | certainty | |", "|---|---|---|---|---|"]
    for method in ASKED:
        request = ", ".join(f"`{member.name}`" for member in (TOKEN, *method.request))
        answer = f"`{method.answer.name}`" if method.answer else f"`{SUCCESS.name}`"
        rows.append(f"| `{method.name}` | {request} | {answer} | {method.certainty} | {method.meaning} |")
    return "\n".join(rows) + "\n"
