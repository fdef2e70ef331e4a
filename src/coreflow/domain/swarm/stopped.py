"""Services that are stopped for a restore: what they say about that, and the commands that help where it stays stopped.

The whole of the label is read in `coreflow.domain.backup.lease`: here are only the members that tell what to do.
"""

import shlex
from collections.abc import Mapping

import orjson

from .naming import RESTORE, STOPPED, replicas_noted
from .observed import ObservedService

NOBODY = ""
"""The owner of a lease that was given up."""
UNDER_WAY = "restore in progress; unchanged until it ends"
UNDO = "before-"
"""What the ids of backups of what was there before a restore begin with."""
_UNDO_DIGITS = 12


def undo_id(restore_id: str) -> str:
    """The id of the backup that holds what was there before a restore."""
    return f"{UNDO}{restore_id[:_UNDO_DIGITS]}"


def told(service: ObservedService) -> str:
    """Return what is said of a service that is stopped: that it waits and, once something is overwritten, what helps."""
    try:
        lease = orjson.loads(service.lease)
    except orjson.JSONDecodeError:
        return UNDER_WAY
    if not isinstance(lease, Mapping):
        return UNDER_WAY
    backup_id, restore_id = lease.get("backupId"), lease.get("id")
    if not isinstance(backup_id, str) or not isinstance(restore_id, str):
        return UNDER_WAY
    undo = undo_id(restore_id) if lease.get("hasBegun") else ""
    if lease.get("holder") == NOBODY:
        help_ = way_out(service.name, backup_id, undo, replicas_noted(service.labels[STOPPED]))
        return f"stopped by a restore of backup {backup_id} that could not be finished: {help_}"
    return f"{UNDER_WAY}; should it hang: {undo_command(service.name, undo)}" if undo else UNDER_WAY


def way_out(service: str, backup_id: str, undo: str, replicas: int) -> str:
    """The commands that help, the one that loses nothing first. `undo`: the backup of what was there before, if any."""
    back = f"{undo_command(service, undo)} puts back what was there before"
    again = f"`coreflow restore {shlex.quote(service)} --backup {shlex.quote(backup_id)}` tries it again"
    start = f"{start_command(service, replicas)} starts it as it is"
    return "; ".join((*((back,) if undo else ()), again, start))


def undo_command(service: str, undo: str) -> str:
    """The command that brings back what was there before a restore, and ends that."""
    return f"`coreflow restore {shlex.quote(service)} --backup {shlex.quote(undo)}`"


def start_command(service: str, replicas: int) -> str:
    """The command that starts a service that is stopped for a restore, and ends that."""
    labels = f"--label-rm {STOPPED} --label-rm {RESTORE}"
    return f"`docker service update {labels} --replicas {replicas} {shlex.quote(service)}`"
