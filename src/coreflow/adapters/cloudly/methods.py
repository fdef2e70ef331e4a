"""Every name that is spoken between Cloudly and coreflow, in one table, with how well it is known.

A correction of a name is a change of this table. What its certainties mean stands in `coreflow.adapters.names`; `read` is
in a published copy of the interfaces package (5.0 to 5.3).

A `proposed` method that the peer does not have is not asked for again on that connection.
"""

from attrs import frozen

from coreflow.adapters.names import Certainty, Member


@frozen
class Method:
    """A method: its name, the member of the request that says what is wanted, and that of the answer that holds it.

    Requests to Cloudly carry `identity` besides, unless the row says otherwise.
    """

    name: str
    certainty: Certainty
    key: str | None = None
    answer: str | None = None
    meaning: str = ""


@frozen
class Collection:
    """A kind of record: its member in a cluster document, and the two ways to ask for it."""

    member: str
    kind: str
    all: Method
    one: Method


_READ, _OLDER, _PROPOSED = Certainty.READ, Certainty.OLDER, Certainty.PROPOSED

# coreflow -> Cloudly

LOGIN = Method("getIdentityByToken", _READ, "token", "identity", "login with the machine token; no identity")
CLUSTER_CONFIG = Method("getClusterConfig", _READ, None, "configData", "`services` stand beside the answer")
SERVICES = Method("getServices", _READ, None, "services", "all services")
CERTIFICATE = Method(
    "getCertificateForDomain", _READ, "domainName", "certificate", "with `type`: `ssl`; on demand"
)
PLATFORM = Method("getPlatformDesiredState", _PROPOSED, None, "desiredState", "bindings")
REPORT_BINDING = Method(
    "reportPlatformBindingStatus", _PROPOSED, "bindingId", None, "with `status`: references, no credentials"
)
GATEWAY = Method(
    "getExternalGatewayConfig", _PROPOSED, None, "externalGatewayConfig", "an external gateway, or null"
)
PULL_IMAGE = Method(
    "pullImageVersion", _READ, "imageId", "imageStream", "with `versionString`; fields proposed"
)
STATUS = Method("cloudlyStatus", _READ, None, None, "a heartbeat, once a minute")
LOG = Method("log", _READ, "logPackages", None, "with `authToken` instead of an identity")
LIST_ARCHIVE = Method(
    "listBackupArchiveObjects",
    _PROPOSED,
    "cursor",
    "objects",
    "copies of archive objects, in pages: with `backupId` or `prefix`; `nextCursor` beside the answer",
)
PUT_ARCHIVE = Method(
    "putBackupArchiveObject",
    _PROPOSED,
    "objectId",
    "receivedBytes",
    "a slice: with `sha256`, `sizeBytes`, `offset`, `final`, `dataBase64`, `backupId`; `stored` beside the answer",
)
GET_ARCHIVE = Method(
    "getBackupArchiveObject",
    _PROPOSED,
    "objectId",
    "dataBase64",
    "a slice: with `offset`, `maxBytes`; `sizeBytes`, `final` beside the answer",
)

COLLECTIONS = (
    Collection(
        "images",
        "image",
        Method("getAllImages", _READ, None, "images", "all images"),
        Method("getImage", _READ, "imageId", "image", "one image, if all cannot be fetched"),
    ),
    Collection(
        "externalRegistries",
        "external registry",
        Method("getExternalRegistries", _READ, None, "registries", "all external registries"),
        Method("getExternalRegistryById", _READ, "id", "registry", "one, if all cannot be fetched"),
    ),
    Collection(
        "secretBundles",
        "secret bundle",
        Method("getSecretBundles", _READ, None, "secretBundles", "all secret bundles"),
        Method(
            "getSecretBundleById", _READ, "secretBundleId", "secretBundle", "one, if all cannot be fetched"
        ),
    ),
    Collection(
        "secretGroups",
        "secret group",
        Method("getSecretGroups", _READ, None, "secretGroups", "all secret groups"),
        Method("getSecretGroupById", _READ, "secretGroupId", "secretGroup", "one, if all cannot be fetched"),
    ),
)
IMAGES, REGISTRIES, BUNDLES, GROUPS = COLLECTIONS

# Cloudly -> coreflow

PUSH_CONFIG = Method(
    "pushClusterConfig", _READ, "configData", None, "the whole state; answered `{}`, triggers a pass"
)
PUSH_PLATFORM = Method(
    "pushPlatformConfig", _PROPOSED, "desiredState", None, "answered `{}`, triggers a pass"
)
SERVER_ACTION = Method(
    "triggerServerAction", _READ, "actionName", "actionConfirmed", "answered `false`: the host is not ours"
)
METRICS = Method("getOrSendServerMetrics", _READ, "getOrSend", None, "answered `{}`")
BACKUP = Method(
    "executeServiceBackup",
    _READ,
    "backupId",
    "result",
    "with `serviceId` or `service`; answered when it is done; fields proposed",
)
RESTORE = Method(
    "executeServiceRestore",
    _READ,
    "backupId",
    "result",
    "with `serviceId` or `service`; answered when it is done; fields proposed",
)
OLD_PUSHES = (
    Method("pushContainerUpdate", _OLDER, None, None, "answered `{}`, triggers a pass"),
    Method("informCoreflowAboutNewContainerVersion", _OLDER, None, None, "answered `{}`, triggers a pass"),
)

IDENTITY_TAG = "identity"
"""The tag by which Cloudly finds this connection for its pushes; the payload is the identity (recalled)."""
SERVICES_MEMBER = "services"
GATEWAY_MEMBER = "externalGatewayConfig"

# Members of what is said about copies of archive objects. Where they have several names, the peer may use any.

CURSOR, NEXT_CURSOR = Member(("cursor",), _PROPOSED), Member(("nextCursor",), _PROPOSED)
PREFIX = Member(("prefix",), _PROPOSED, "of the copies' names")
BACKUP_ID = Member(("backupId",), _PROPOSED, "what a copy was sent for, or is to be listed for")
OBJECTS = Member(("objects",), _PROPOSED)
OBJECT_ID = Member(("objectId", "id", "path", "name"), _PROPOSED, "the name of a copy")
SIZE = Member(("sizeBytes", "size"), _PROPOSED, "of the whole copy")
DIGEST = Member(("sha256", "hash"), _PROPOSED, "SHA-256 of the whole copy, in hexadecimal digits")
OFFSET, FINAL = Member(("offset",), _PROPOSED), Member(("final",), _PROPOSED)
DATA = Member(("dataBase64",), _PROPOSED)
MAX_BYTES = Member(("maxBytes",), _PROPOSED)
RECEIVED = Member(("receivedBytes",), _PROPOSED, "how much has arrived; absent: up to the end of this slice")
STORED = Member(
    ("stored",),
    _PROPOSED,
    "whether the copy is complete and kept; absent: if `receivedBytes` says so at the end",
)

ASKED = (
    LOGIN,
    CLUSTER_CONFIG,
    SERVICES,
    *(method for collection in COLLECTIONS for method in (collection.all, collection.one)),
    CERTIFICATE,
    PLATFORM,
    REPORT_BINDING,
    GATEWAY,
    PULL_IMAGE,
    STATUS,
    LOG,
    LIST_ARCHIVE,
    PUT_ARCHIVE,
    GET_ARCHIVE,
)
ANSWERED = (PUSH_CONFIG, PUSH_PLATFORM, SERVER_ACTION, METRICS, BACKUP, RESTORE, *OLD_PUSHES)


def method_table() -> str:
    """The table as docs/cloudly.md has it."""
    rows = ["| method | request | answer | certainty | |", "|---|---|---|---|---|"]
    for direction, methods in (("→ Cloudly", ASKED), ("→ coreflow", ANSWERED)):
        rows.append(f"| **{direction}** | | | | |")
        rows += [
            f"| `{m.name}` | {_code(m.key)} | {_code(m.answer)} | {m.certainty} | {m.meaning} |"
            for m in methods
        ]
    return "\n".join(rows) + "\n"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""
