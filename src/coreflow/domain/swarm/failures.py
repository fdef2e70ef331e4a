"""Causes for which tasks end, by what the engine says of them: is the image to blame, or the platform that runs it?

One table, the first match wins. The texts are those of SwarmKit, of dockerd and of its container run time. A failure of
the image will be the same the next time; one of the platform (somebody killed the container, a port was still taken, a
network did not exist yet) may not.
"""

import re
from collections.abc import Iterable
from enum import StrEnum

from .observed import ObservedTask


class Cause(StrEnum):
    """The one to blame for a task that ended."""

    IMAGE = "image"
    PLATFORM = "platform"
    UNKNOWN = "unknown"


_TABLE: tuple[tuple[str, Cause], ...] = (
    # before the exit status: an unhealthy container is killed
    (r"unhealthy container", Cause.IMAGE),
    # SIGKILL and SIGTERM come from outside, as long as nothing else is said
    (r"non-zero exit \((?:137|143)\)", Cause.PLATFORM),
    (r"address already in use|port is already allocated|host port .* in use", Cause.PLATFORM),
    (r"no such network|network \S+ not found|could not find (?:an available|network)", Cause.PLATFORM),
    (r"no such container|container \S+ (?:is )?not (?:found|running)|marked for removal", Cause.PLATFORM),
    (r"no space left|cannot allocate memory|too many open files|resource temporarily", Cause.PLATFORM),
    (r"device or resource busy|input/output error|read-only file system", Cause.PLATFORM),
    (r"node is (?:down|not active)|heartbeat failure|(?:agent|daemon) is shutting down", Cause.PLATFORM),
    (r"deadline exceeded|i/o timeout|timed? ?out|connection (?:refused|reset)|broken pipe", Cause.PLATFORM),
    (r"no such host|temporary failure|service unavailable|toomanyrequests", Cause.PLATFORM),
    (r"volumedriver|error while mounting volume|plugin .*not found", Cause.PLATFORM),
    (r"secret store|config store", Cause.PLATFORM),
    # dockerd's, for a container that was gone with its node, or with containerd; also what some programs end with
    (r"non-zero exit \(255\)", Cause.UNKNOWN),
    (r"non-zero exit", Cause.IMAGE),
    (r"no such image|manifest unknown|pull access denied|repository does not exist", Cause.IMAGE),
    (r"executable file not found|exec format error|exec: |no command specified", Cause.IMAGE),
    (r"no such file or directory|permission denied|not a directory", Cause.IMAGE),
    (r"unable to find user|invalid reference format", Cause.IMAGE),
    # last: the run time's name stands before texts about the image, too
    (r"containerd|shim|transport is closing|code = unavailable", Cause.PLATFORM),
)
_CAUSES = tuple((re.compile(pattern, re.IGNORECASE), cause) for pattern, cause in _TABLE)


def cause_of_text(error: str) -> Cause:
    """Return who is to blame, by the error text of a task."""
    return next((cause for pattern, cause in _CAUSES if pattern.search(error)), Cause.UNKNOWN)


def cause_of(task: ObservedTask) -> Cause:
    """Return who is to blame for a task that ended. One that has finished with status 0 ended by itself."""
    if task.state == "complete":
        return Cause.IMAGE
    if task.state == "orphaned":  # its node is gone
        return Cause.PLATFORM
    return cause_of_text(task.error or task.message)


def common_cause(tasks: Iterable[ObservedTask]) -> Cause:
    """Return who is to blame for several: the image as soon as it is for one of them."""
    causes = {cause_of(task) for task in tasks}
    return next((cause for cause in Cause if cause in causes), Cause.UNKNOWN)
