"""What a service that is stopped for a restore says about that, and the commands that help where it stays stopped.

The whole of the label is read in `coreflow.domain.backup.lease`: here are only the members that tell what to do.
"""

import shlex
from collections.abc import Mapping

import orjson

from .naming import RESTORE, STOPPED, replicas_noted
from .observed import ObservedService

NOBODY = ""
"""The owner of a lease that was given up."""
UNDER_WAY = "being restored; left alone until that has ended"
_UNDO = "before-"
_UNDO_DIGITS = 12


def undo_id(restore_id: str) -> str:
    """The id of the backup that holds what was there before a restore."""
    return f"{_UNDO}{restore_id[:_UNDO_DIGITS]}"


def told(service: ObservedService) -> str:
    """What is said of a service that is stopped: that it waits or, where nobody is at it any more, what helps."""
    try:
        note = orjson.loads(service.restore_note)
    except orjson.JSONDecodeError:
        return UNDER_WAY
    if not isinstance(note, Mapping) or note.get("holder") != NOBODY:
        return UNDER_WAY
    backup_id, restore_id = note.get("backupId"), note.get("id")
    if not isinstance(backup_id, str) or not isinstance(restore_id, str):
        return UNDER_WAY
    undo = undo_id(restore_id) if note.get("hasBegun") else ""
    replicas = replicas_noted(service.labels[STOPPED])
    help_ = way_out(service.name, backup_id, undo, replicas)
    return f"stopped by a restore of backup {backup_id} that could not be finished: {help_}"


def way_out(service: str, backup_id: str, undo: str, replicas: int) -> str:
    """The commands that help, the one that loses nothing first. `undo`: the backup of what was there before, if any."""
    name = shlex.quote(service)
    start = f"docker service update --label-rm {STOPPED} --label-rm {RESTORE} --replicas {replicas} {name}"
    back = f"`coreflow restore {name} --backup {shlex.quote(undo)}` puts back what was there before"
    again = f"`coreflow restore {name} --backup {shlex.quote(backup_id)}` tries it again"
    return "; ".join((*((back,) if undo else ()), again, f"`{start}` starts it as it is"))
