"""Next steps, which get on from a problem: a command or a field, never a page of advice."""

import shlex

from coreflow.domain.deploy.steps import Refusal
from coreflow.domain.swarm.specs import ServiceSpec

from .connections import CLOUDLY, CORESTORE, CORETRAFFIC, ENGINE, GATEWAY, RECORDS, Connection

BY_ITSELF = "tried again by itself; at once with SIGHUP to the daemon"
RETRY_FAILED = "change the record, or `coreflow apply --retry-failed`"
MEND_RECORD = "mend the record; `coreflow plan` tells whether it is enough"
_OF_TASKS = (
    (
        "volume plugin missing",
        "install the volume plugin on the nodes that may run it (`docker plugin ls`), or change `volumes`",
    ),
    ("image missing", "push {image} to its registry, or change the image of {record}"),
    ("health check fail", "{logs} tells more; then mend the image, or `healthCheck` of {record}"),
    (
        "insufficient resources",
        "`docker node ls`: a node with more room, or smaller reservations in `resources` of its record",
    ),
    (
        "no suitable node",
        "`docker node ls`, then `docker node update --availability active NODE`, or change the placement",
    ),
    (
        "no free address",
        "a larger network for {record}, or fewer tasks: `coreflow status` lists free addresses",
    ),
    ("exits", "{logs} has its last words; then mend the image, environment or secrets of {record}"),
)
"""By what the error of a task says, the most telling first."""


def for_tasks(name: str, spec: ServiceSpec | None, image: str, error: str) -> str:
    """The next step where tasks do not run."""
    record = f"record {spec.owner}" if spec is not None else "its record"
    logs = f"`docker service logs --tail 20 {shlex.quote(name)}`"
    for text, step in _OF_TASKS:
        if text in error:
            return step.format(record=record, image=image, logs=logs)
    return f"`docker service ps --no-trunc {shlex.quote(name)}` shows its tasks"


def for_removal(refusal: Refusal) -> str:
    """The next step where removals wait for a confirmation."""
    token = refusal.token
    return (
        f"if it is meant: `coreflow apply --confirm-removal {token}`, or COREFLOW_CONFIRM_REMOVAL={token}; "
        "else bring the records back"
    )


_OF_PEERS = {
    (ENGINE, "away"): "`systemctl status docker` on that machine; DOCKER_HOST names it; what runs goes on",
    (ENGINE, "refused"): "`docker info`: coreflow needs a manager of a Swarm",
    (RECORDS, "away"): "CLOUDLY_URL names where they are; what runs goes on",
    (RECORDS, "invalid"): "mend the records; `coreflow check` tells whether it is enough; what runs goes on",
    (RECORDS, "refused"): "`coreflow check` asks once more; what runs goes on",
    (CLOUDLY, "away"): "tried again by itself; CLOUDLY_URL names it; what runs goes on",
    (CLOUDLY, "refused"): "check JUMPCODE; what runs goes on",
    (CORESTORE, "away"): "`docker service ps corestore`; tried again by itself",
    (CORESTORE, "refused"): "`coreflow check`; CORESTORE_API_TOKEN must be that of Corestore",
    (GATEWAY, "away"): "tried again by itself; the record of the gateway has its url",
    (GATEWAY, "refused"): "check url and token in the record of the gateway",
    (CORETRAFFIC, "away"): "`docker service ps coretraffic`; COREFLOW_CORETRAFFIC_PEERS says who may be it",
}


def for_peer(connection: Connection) -> str:
    """The next step where a peer is down."""
    return _OF_PEERS.get((connection.peer, connection.fault), "tried again by itself")
