"""Every name that is spoken between Corestore's control API and coreflow, in one table, with how well it is known.

A correction of a name is a change of this table. What its certainties mean stands in `coreflow.adapters.names`.
"""

from attrs import frozen

from coreflow.adapters.names import Certainty, Member

READ, RECALLED = Certainty.READ, Certainty.RECALLED
INFERRED, PROPOSED = Certainty.INFERRED, Certainty.PROPOSED


@frozen
class Endpoint:
    """A path that is posted to: what is sent, and what of the answer matters."""

    path: str
    certainty: Certainty
    request: tuple[Member, ...]
    answer: tuple[Member, ...]
    meaning: str


# In requests

SERVICE_ID = Member(("serviceId",), READ, "the service's id, from which its credentials are derived")
SERVICE_NAME = Member(("serviceName",), PROPOSED, "for names that people can read")
CAPABILITIES = Member(("capabilities",), PROPOSED, "a list with one of `database` and `objectstorage`")
BINDING_ID = Member(("bindingId",), PROPOSED, "for tracing; has no influence on the credentials")
CONFIG = Member(("config",), PROPOSED, "what the binding says; absent when that is nothing")

# In answers

SUCCESS = Member(("ok", "success"), PROPOSED, "false: it was not done; absent counts as true")
ERROR = Member(("error", "errorText"), PROPOSED, "why not; a text means that it was not done")
MESSAGE = Member(("error", "errorText", "message"), PROPOSED, "why not, when it is known to be not done")
VARIABLES = Member(
    ("env", "environment"), INFERRED, "variables; beside the capability's other facts, or by capability"
)
RESOURCES = Member(("resources",), PROPOSED, "what there is, by capability")
ENDPOINTS = Member(
    ("endpoints",), PROPOSED, "URLs by capability, or a list of `{name, protocol, host, port}`"
)

# An endpoint in an answer

NAME = Member(("name",), PROPOSED, "absent: the capability")
URL = Member(("url", "endpoint"), PROPOSED, "instead of the other three")
PROTOCOL = Member(("protocol", "scheme"), PROPOSED)
HOST = Member(("host", "hostname"), PROPOSED)
PORT = Member(("port",), PROPOSED)

PROTOCOLS = {"database": "mongodb", "objectstorage": "http"}
"""What a capability speaks where the answer does not say (read: the MongoDB wire protocol, and S3 without TLS)."""
PORTS = {"mongodb": 27017, "http": 80, "https": 443}
"""Where a URL leads that names no port."""

PROVISION = Endpoint(
    "/resources/provision",
    INFERRED,
    (SERVICE_ID, SERVICE_NAME, CAPABILITIES, BINDING_ID, CONFIG),
    (VARIABLES, ENDPOINTS),
    "make it or find it, the same values each time (read)",
)
DEPROVISION = Endpoint(
    "/resources/deprovision",
    READ,
    (SERVICE_ID, CAPABILITIES),
    (SUCCESS,),
    "give it back; status 404 means that it is gone already (proposed)",
)

ASKED = (PROVISION, DEPROVISION)


def endpoint_table() -> str:
    """The paths as documentation may have them."""
    rows = ["| path | request | answer | certainty | |", "|---|---|---|---|---|"]
    for endpoint in ASKED:
        request, answer = (
            ", ".join(f"`{member.name}`" for member in members)
            for members in (endpoint.request, endpoint.answer)
        )
        rows.append(
            f"| `POST {endpoint.path}` | {request} | {answer} | {endpoint.certainty} | {endpoint.meaning} |"
        )
    return "\n".join(rows) + "\n"
