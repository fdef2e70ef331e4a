"""Docker-safe names, and the labels that mark what is ours.

All labels are *service* labels (or labels of a network or secret), never container labels: a change of a service
label restarts nothing, a change of a container label replaces every task.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping

WEB_GATEWAY = "sznwebgateway"
"""The overlay network of public workload traffic."""


CORE_CHAT = "szncorechat"
"""The overlay network of platform-internal traffic."""
NETWORKS = (WEB_GATEWAY, CORE_CHAT)
CORETRAFFIC, CORELOG, CORESTORE = "coretraffic", "corelog", "corestore"
COREFLOW = "coreflow"
"""Where coretraffic finds coreflow on the base networks: a workload of this name would be taken for it, and its routes."""

PREFIX = "serve.zone."
MANAGED_BY = PREFIX + "managed-by"
CLUSTER = PREFIX + "cluster"
OWNER = PREFIX + "owner"
FINGERPRINT = PREFIX + "fingerprint"
IMAGE = PREFIX + "image"
"""The image reference of the last write, digest included: what runs when nobody interferes."""
LOGIN = PREFIX + "login"
"""A salted hash of the registry login of the last write, so that a changed login is noticed."""
FAILED = PREFIX + "failed"
"""The fingerprint that Swarm rolled back: not tried again until the record changes."""
FAILED_IMAGE = PREFIX + "failed-image"
"""The image reference, digest included, of the spec that was rolled back."""
FAILED_REASON = PREFIX + "failed-reason"
FAILED_CAUSE = PREFIX + "failed-cause"
"""Who was to blame: the image, the platform, or unknown."""
FAILED_TIMES = PREFIX + "failed-times"
"""How often this spec was rolled back."""
WRITER = PREFIX + "writer"
"""Which process wrote it last, for people: part of no comparison."""
STOPPED = PREFIX + "stopped"
"""How many replicas a service had before it was stopped for a restore."""
RESTORE = PREFIX + "restore"
"""What that restore is about, so that it can be finished by whoever finds it."""
PRODUCT = "coreflow"

SERVICE_NAME_LIMIT = 63
SECRET_NAME_LIMIT = 64
VOLUME_NAME_LIMIT = 255
"""It is the name of a directory (measured: 255 work, 256 are \"file name too long\")."""
_REPLICAS_DIGITS = 6
_SERVICE_NAME = re.compile(r"[a-zA-Z0-9]+(?:[-_]+[a-zA-Z0-9]+)*")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def aspect_label(aspect: str) -> str:
    """The label that holds the fingerprint of one aspect of a service."""
    return f"{FINGERPRINT}.{aspect}"


def ownership(cluster: str, owner: str) -> dict[str, str]:
    """The labels by which we recognise an object as ours."""
    return {MANAGED_BY: PRODUCT, CLUSTER: cluster, OWNER: owner}


def is_ours(labels: Mapping[str, str], cluster: str) -> bool:
    """Return whether an object with these labels was made by coreflow for this cluster."""
    return labels.get(MANAGED_BY) == PRODUCT and labels.get(CLUSTER) == cluster


def whose(labels: Mapping[str, str]) -> str:
    """Return who made an object that is not ours."""
    if labels.get(MANAGED_BY) == PRODUCT:
        return f"belongs to the coreflow cluster {labels.get(CLUSTER, '')}"
    return "was not made by coreflow"


def folded(name: str) -> str:
    """Return what Swarm compares of the name of a service, secret or network: it ignores case (measured on 20.10 and 26.1)."""
    return name.lower()


def is_service_name(name: str) -> bool:
    """Return whether Swarm takes this as the name of a service (a DNS label; source: swarmkit's name check)."""
    return len(name) <= SERVICE_NAME_LIMIT and _SERVICE_NAME.fullmatch(name) is not None


def is_volume_name(name: str) -> bool:
    """Return whether Docker takes this as the name of a volume."""
    return len(name) <= VOLUME_NAME_LIMIT and _VOLUME_NAME.fullmatch(name) is not None


def replicas_noted(label: str) -> int:
    """Return how many replicas a stopped service had; 1 for a label that somebody else wrote and that says nothing."""
    return int(label) if label.isdecimal() and label.isascii() and len(label) <= _REPLICAS_DIGITS else 1


def slug(text: str, limit: int = 40) -> str:
    """`text` with everything but `[A-Za-z0-9_.-]` replaced by `-`, trimmed and cut."""
    return _UNSAFE.sub("-", text).strip("-_.")[:limit].rstrip("-_.")


def volume_name(service_id: str, mount_path: str) -> str:
    """A stable, Docker-safe volume name for a path of a service; the hash keeps `/a/b` and `/a-b` apart."""
    digest = hashlib.sha256(f"{service_id}\0{mount_path}".encode()).hexdigest()[:8]
    return "-".join(part for part in (slug(service_id), slug(mount_path), digest) if part)


def secret_name(service_name: str, digest: str) -> str:
    """The name of a service's secret: content-addressed, so that a change is a new secret. `digest` has 12 digits."""
    room = SECRET_NAME_LIMIT - len(digest) - 1
    return f"{service_name[:room].rstrip('-_.')}-{digest}"


def salted_hash(salt: str, data: bytes, digits: int = 12) -> str:
    """A short keyed hash: equal for equal data within one cluster, of no use outside it."""
    return hmac.digest(salt.encode(), data, "sha256").hex()[:digits]
