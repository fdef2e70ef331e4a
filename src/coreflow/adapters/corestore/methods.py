"""Every name that is spoken between Corestore's control API and coreflow, in one table, with how well it is known.

A correction of a name is a change of this table. What its certainties mean stands in `coreflow.adapters.names`.
"""

import re
from urllib.parse import quote

from attrs import field, fields, frozen

from coreflow.adapters.names import Certainty, Member
from coreflow.domain.backup.snapshots import SnapshotKind

READ, RECALLED = Certainty.READ, Certainty.RECALLED
INFERRED, PROPOSED = Certainty.INFERRED, Certainty.PROPOSED


LIST_SECONDS, CHANGE_SECONDS, DATA_SECONDS = 10.0, 60.0, 2 * 3600.0
"""How long a request may take: one that looks, one that changes something small, one that copies all data of something."""
STALL_SECONDS = 60.0
"""How long a transfer may go without a byte. It has no other limit once it has begun."""
LIST_BYTES = 64 * 1024 * 1024
"""The longest list that is read."""


@frozen
class Endpoint:
    """A path: what is sent there, and what of the answer matters. `{path}` in it is a file's path, percent-encoded.

    What is not `repeatable` is not asked again where it may have had an effect.
    """

    path: str
    certainty: Certainty
    request: tuple[Member, ...]
    answer: tuple[Member, ...]
    meaning: str
    verb: str = field(default="POST", kw_only=True)
    seconds: float = field(default=CHANGE_SECONDS, kw_only=True)
    repeatable: bool = field(default=True, kw_only=True)

    def at(self, file: str) -> str:
        """The path for a file: its slashes are encoded, too."""
        return self.path.replace("{path}", quote(file, safe=""))


# In requests

SERVICE_ID = Member(("serviceId",), READ, "the service's id, from which its credentials are derived")
SERVICE_NAME = Member(("serviceName",), PROPOSED, "for names that people can read")
CAPABILITIES = Member(("capabilities",), PROPOSED, "a list with one of `database` and `objectstorage`")
BINDING_ID = Member(("bindingId",), PROPOSED, "for tracing; has no influence on the credentials")
CONFIG = Member(("config",), PROPOSED, "what the binding says; absent when that is nothing")
VOLUME_NAME = Member(("name",), PROPOSED, "the volume's")
MOUNT_PATH = Member(("mountPath",), PROPOSED, "where the service has it")
OPTIONS = Member(("options",), PROPOSED, "as the mount gives them to the volume driver, all texts")
LABELS = Member(("labels",), PROPOSED, "as the mount has them, all texts")
TAGS = Member(("tags", "labels"), PROPOSED, "texts by name, kept with the snapshot and told with it")
CAPABILITY = Member(("capability",), PROPOSED, "`database` or `objectstorage`")
SNAPSHOT_ID = Member(("snapshotId",), PROPOSED, "the snapshot's id")
CLEAR = Member(("clear",), PROPOSED, "true: what is not in the snapshot goes")
FILE = Member(("path",), PROPOSED, "in the path itself, percent-encoded, slashes included")
BYTES = Member(("Content-Length",), PROPOSED, "a header, with the content as body")
DIGEST = Member(("x-corestore-sha256",), PROPOSED, "a header: the content's SHA-256 in hexadecimal")

# In answers

SUCCESS = Member(
    ("ok", "success"),
    PROPOSED,
    "false: it was not done; may be absent, but an answer that says nothing at all is no success",
)
ERROR = Member(("error", "errorText"), PROPOSED, "why not; a text means that it was not done")
MESSAGE = Member(("error", "errorText", "message"), PROPOSED, "why not, when it is known to be not done")
VARIABLES = Member(
    ("env", "environment"), INFERRED, "variables; beside the capability's other facts, or by capability"
)
RESOURCES = Member(("resources",), PROPOSED, "what there is, by capability")
ENDPOINTS = Member(
    ("endpoints",), PROPOSED, "URLs by capability, or a list of `{name, protocol, host, port}`"
)

VOLUMES = Member(("volumes", "items"), PROPOSED, "a list; may be the whole answer")
SNAPSHOT = Member(("snapshot",), PROPOSED, "may be the whole answer, or the only one of a list")
SNAPSHOTS = Member(("snapshots", "items"), PROPOSED, "a list; may be the whole answer")
OBJECTS = Member(("objects", "items"), PROPOSED, "a list; may be the whole answer")
OBJECT = Member(("object",), PROPOSED, "what was stored; may be absent")

# A volume, a snapshot or an archive object in an answer

ITEM_NAME = Member(("name",), PROPOSED, "of the volume, or of the resource")
ITEM_SERVICE = Member(("serviceId",), PROPOSED, "whose it is; may be absent")
SIZE = Member(("sizeBytes", "size"), PROPOSED, "a number, or one as text")
ID = Member(("id", "snapshotId"), PROPOSED)
KIND = Member(("kind", "type"), PROPOSED, "`volume`, `database` or `objectstorage`, in many spellings")
CREATED = Member(("createdAt", "created"), PROPOSED, "milliseconds since 1970, or ISO 8601")
OBJECT_PATH = Member(("path", "key", "name"), PROPOSED)
SHA256 = Member(("sha256", "hash"), PROPOSED)

KINDS: dict[SnapshotKind, tuple[str, ...]] = {
    "volume": ("volume", "volumes", "vol"),
    "database": ("database", "databases", "db", "mongo", "mongodb", "smartdb"),
    "objectstorage": ("objectstorage", "objectstore", "storage", "s3", "bucket", "buckets", "smartstorage"),
}
"""How kinds may be spelled, in lower case and without anything but letters and digits."""

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

LIST_VOLUMES = Endpoint("/volumes", PROPOSED, (), (VOLUMES,), "all volumes", verb="GET", seconds=LIST_SECONDS)
CREATE_VOLUME = Endpoint(
    "/volumes/create",
    PROPOSED,
    (VOLUME_NAME, SERVICE_ID, MOUNT_PATH, OPTIONS, LABELS),
    (SUCCESS,),
    "there already is success, and changes nothing",
)
SNAPSHOT_VOLUME = Endpoint(
    "/volumes/snapshot",
    PROPOSED,
    (VOLUME_NAME, TAGS),
    (SNAPSHOT,),
    "each call takes one more, so it is not repeated",
    seconds=DATA_SECONDS,
    repeatable=False,
)
SNAPSHOT_RESOURCE = Endpoint(
    "/resources/snapshot",
    PROPOSED,
    (SERVICE_ID, CAPABILITIES, TAGS),
    (SNAPSHOTS,),
    "the same for one capability of a service",
    seconds=DATA_SECONDS,
    repeatable=False,
)
LIST_SNAPSHOTS = Endpoint(
    "/snapshots",
    PROPOSED,
    (SERVICE_ID,),
    (SNAPSHOTS,),
    "all, or those of a service (in the query); those of others are left out here, too",
    verb="GET",
    seconds=LIST_SECONDS,
)
RESTORE_VOLUME = Endpoint(
    "/volumes/restore",
    PROPOSED,
    (VOLUME_NAME, SNAPSHOT_ID, CLEAR),
    (SUCCESS,),
    "make it what it was; may be repeated",
    seconds=DATA_SECONDS,
)
RESTORE_RESOURCE = Endpoint(
    "/resources/restore",
    PROPOSED,
    (SERVICE_ID, CAPABILITY, SNAPSHOT_ID),
    (SUCCESS,),
    "the same for one capability of a service",
    seconds=DATA_SECONDS,
)
LIST_OBJECTS = Endpoint(
    "/archive/objects",
    PROPOSED,
    (SNAPSHOT_ID,),
    (OBJECTS,),
    "the archive's files, or what a snapshot needs (in the query; asked for one at a time)",
    verb="GET",
    seconds=LIST_SECONDS,
)
READ_OBJECT = Endpoint(
    "/archive/objects/{path}",
    PROPOSED,
    (FILE,),
    (BYTES, DIGEST),
    "a file's content; the digest may be absent",
    verb="GET",
)
WRITE_OBJECT = Endpoint(
    "/archive/objects/{path}",
    PROPOSED,
    (FILE, BYTES, DIGEST),
    (OBJECT,),
    "put a file there; status 409: other content is there, 422: the digest is another one",
    verb="PUT",
)


@frozen(kw_only=True)
class Endpoints:
    """Everything that is asked for. Another Corestore may have other paths: evolve this."""

    provision: Endpoint = PROVISION
    deprovision: Endpoint = DEPROVISION
    list_volumes: Endpoint = LIST_VOLUMES
    create_volume: Endpoint = CREATE_VOLUME
    snapshot_volume: Endpoint = SNAPSHOT_VOLUME
    snapshot_resource: Endpoint = SNAPSHOT_RESOURCE
    list_snapshots: Endpoint = LIST_SNAPSHOTS
    restore_volume: Endpoint = RESTORE_VOLUME
    restore_resource: Endpoint = RESTORE_RESOURCE
    list_objects: Endpoint = LIST_OBJECTS
    read_object: Endpoint = READ_OBJECT
    write_object: Endpoint = WRITE_OBJECT


API = Endpoints()
ASKED: tuple[Endpoint, ...] = tuple(getattr(API, one.name) for one in fields(Endpoints))
UNASKED = (
    Endpoint("/health", INFERRED, (), (), "status 200: it is up; needs no token (read)", verb="GET"),
    Endpoint("/metrics", PROPOSED, (), (), "its numbers (that there are some was read)", verb="GET"),
    Endpoint("/volumes/remove", PROPOSED, (VOLUME_NAME,), (SUCCESS,), "remove a volume"),
)
"""What there is besides. Nothing is ever removed by us."""

# What texts of errors mean

NO_SUCH_PATH = re.compile(
    r"((404|error)\W*)*(not[ _-]?found|(no such|unknown|no) (route|path|endpoint|method|url|page)\b.*"
    r"|(route|path|endpoint|url|page) not found\b.*|cannot (get|put|post)\b.*)?\W*",
    re.IGNORECASE | re.DOTALL,
)
"""All of a text of status 404 that says nothing of a volume, a snapshot or a file: the path is not known there."""
DISK_FULL = re.compile(
    r"no space left|enospc|(disk|volume|device|storage|file ?system)\b.{0,20}\bfull\b|quota|edquot|out of space",
    re.IGNORECASE,
)
INCOMPLETE = re.compile(
    r"missing|not found|no such|lacks|lost|corrupt|damaged|digest|checksum|hash|integrity", re.IGNORECASE
)
"""Of status 500 after a restore: the archive cannot give it, however often it is asked."""


def endpoint_table() -> str:
    """The paths as documentation may have them, those that are never asked for last."""
    rows = ["| path | request | answer | certainty | |", "|---|---|---|---|---|"]
    for endpoint in (*ASKED, *UNASKED):
        request, answer = (
            ", ".join(f"`{member.name}`" for member in members)
            for members in (endpoint.request, endpoint.answer)
        )
        meaning = endpoint.meaning + ("; never asked for" if endpoint in UNASKED else "")
        rows.append(
            f"| `{endpoint.verb} {endpoint.path}` | {request} | {answer} | {endpoint.certainty} | {meaning} |"
        )
    return "\n".join(rows) + "\n"
