"""Every name that is spoken between Corestore's control API and coreflow, in one table, with how well it is known.

A correction of a name is a change of this table. What a row says about its certainty:

- `read`: read in public material;
- `inferred`: follows from what was read, and stands nowhere;
- `proposed`: our own shape in the ecosystem's style, because no public source has it.

Where a member may have several names, the first is what we write, and all are read, in this order.
"""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

Certainty = Literal["read", "inferred", "proposed"]


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
class Endpoint:
    """A path that is posted to: what is sent, and what of the answer matters."""

    path: str
    certainty: Certainty
    request: tuple[Member, ...]
    answer: tuple[Member, ...]
    meaning: str


# In requests

SERVICE_ID = Member(("serviceId",), "read", "the service's id, from which its credentials are derived")
SERVICE_NAME = Member(("serviceName",), "proposed", "for names that people can read")
CAPABILITIES = Member(("capabilities",), "proposed", "a list with one of `database` and `objectstorage`")
BINDING_ID = Member(("bindingId",), "proposed", "for tracing; has no influence on the credentials")
CONFIG = Member(("config",), "proposed", "what the binding says; absent when that is nothing")

# In answers

SUCCESS = Member(("ok", "success"), "proposed", "false: it was not done; absent counts as true")
ERROR = Member(("error", "errorText"), "proposed", "why not; a text means that it was not done")
MESSAGE = Member(("error", "errorText", "message"), "proposed", "why not, when it is known to be not done")
VARIABLES = Member(
    ("env", "environment"), "inferred", "variables; beside the capability's other facts, or by capability"
)
RESOURCES = Member(("resources",), "proposed", "what there is, by capability")
ENDPOINTS = Member(
    ("endpoints",), "proposed", "URLs by capability, or a list of `{name, protocol, host, port}`"
)

# An endpoint in an answer

NAME = Member(("name",), "proposed", "absent: the capability")
URL = Member(("url", "endpoint"), "proposed", "instead of the other three")
PROTOCOL = Member(("protocol", "scheme"), "proposed")
HOST = Member(("host", "hostname"), "proposed")
PORT = Member(("port",), "proposed")

PROTOCOLS = {"database": "mongodb", "objectstorage": "http"}
"""What a capability speaks where the answer does not say (read: the MongoDB wire protocol, and S3 without TLS)."""
PORTS = {"mongodb": 27017, "http": 80, "https": 443}
"""Where a URL leads that names no port."""

PROVISION = Endpoint(
    "/resources/provision",
    "inferred",
    (SERVICE_ID, SERVICE_NAME, CAPABILITIES, BINDING_ID, CONFIG),
    (VARIABLES, ENDPOINTS),
    "make it or find it, the same values each time (read)",
)
DEPROVISION = Endpoint(
    "/resources/deprovision",
    "read",
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
