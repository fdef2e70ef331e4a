"""Containers of tasks, as Swarm and a node make them: templates expanded, and what keeps it from starting.

Pure functions on the engine's JSON. Each rule was measured on Docker Engine 20.10 and 26.1 and is held by the contract
suite. Of Go's templates the memory Swarm knows the placeholders, texts and comments; it refuses functions and pipes.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

from coreflow.adapters.engine.protocol import Document

LEAST_MEMORY = 6 * 1024 * 1024
LEAST_NANO_CPUS = 10_000_000
WORD_LIMIT = 128 * 1024
NANO = 1_000_000_000
_ACTION = re.compile(r'\{\{(- )?((?:"(?:\\.|[^"\\\n])*"|`[^`]*`|[^"`}]|\}(?!\}))*?)( -)?\}\}')
_LITERAL = re.compile(r'"((?:\\.|[^"\\\n])*)"|`([^`]*)`')
_COMMENT = re.compile(r"/\*.*\*/", re.DOTALL)
_RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: "
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LOCAL_OPTIONS = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}
_FILES = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv", "/version"})
_DEVICES = frozenset({"/dev/null", "/dev/ptmx"})
_KERNEL_FOLDERS = ("/proc/", "/dev/pts/", "/dev/mqueue/")
"""Files that every container has, and that of the test images."""

Probe = Literal["image", "none", "never", "panics", "fails", "passes", "runs"]
"""What comes of a health check: the image's own applies; there is none; it never runs, so that the task stays `starting`;
the daemon panics; it always fails; it always passes; it does what the container does."""


class TemplateError(ValueError):
    """A template that Swarm does not expand; its text is the engine's."""


@frozen(kw_only=True)
class Context:
    """Values for placeholders."""

    service_id: str = "serviceid"
    service: str = "servicename"
    node_id: str = "nodeid"
    hostname: str = "nodeHostname"
    task_id: str = ""
    task: str = "taskname"
    slot: str = "1"

    def value(self, field: str) -> str:
        """Return what `.Service.Name` and the like stand for."""
        known = {
            ".Service.ID": self.service_id,
            ".Service.Name": self.service,
            ".Node.ID": self.node_id,
            ".Node.Hostname": self.hostname,
            ".Task.ID": self.task_id,
            ".Task.Name": self.task,
            ".Task.Slot": self.slot,
        }
        if field not in known:
            raise TemplateError(
                f'template: expansion:1:2: executing "expansion" at <{field}>: can\'t evaluate field '
                f"{field.rpartition('.')[2]} in type template.Context"
            )
        return known[field]


def expand(template: str, context: Context) -> str:
    """Return what Swarm makes of a template. Raises TemplateError."""
    parts: list[str] = []
    position, trim = 0, False
    for action in _ACTION.finditer(template):
        text = template[position : action.start()]
        if "{{" in text:
            break
        text = text.lstrip() if trim else text
        parts += [text.rstrip() if action[1] else text, _evaluated(action[2].strip(), context)]
        position, trim = action.end(), bool(action[3])
    rest = template[position:]
    if "{{" in rest:
        raise TemplateError("template: expansion:1: unclosed action")
    parts.append(rest.lstrip() if trim else rest)
    return "".join(parts)


def _evaluated(action: str, context: Context) -> str:
    literal = _LITERAL.fullmatch(action)
    if literal is not None:
        return literal[2] if literal[1] is None else re.sub(r"\\(.)", r"\1", literal[1])
    if _COMMENT.fullmatch(action):
        return ""
    if re.fullmatch(r"(\.\w+)+", action):
        return context.value(action)
    raise TemplateError("template: expansion:1: missing value for command or a function that is not defined")


def expanded(container: Mapping[str, Any], context: Context) -> Document:
    """A container with every template expanded. Raises TemplateError with the engine's text."""

    def one(text: str, where: str) -> str:
        try:
            return expand(text, context)
        except TemplateError as exc:
            raise TemplateError(f"{where}: {exc}") from exc

    done: Document = copy.deepcopy(dict(container))
    if done.get("Env"):
        done["Env"] = [_variable(line, one) for line in done["Env"]]
    for mount in done.get("Mounts") or ():
        for key in ("Source", "Target"):
            if mount.get(key):
                where = f'expanding mounts failed: expanding mount {key.lower()} "{mount[key]}"'
                mount[key] = one(mount[key], where)
        options = mount.get("VolumeOptions") or {}
        driver = options.get("DriverConfig") or {}
        for texts, what in (
            (options.get("Labels") or {}, "volume labels"),
            (driver.get("Options") or {}, "volume driver config"),
        ):
            for key, value in list(texts.items()):
                where = f'expanding mounts failed: expanding {what}: expanding map entry "{key}"="{value}"'
                texts[key] = one(value, where)
    if done.get("Hostname"):
        done["Hostname"] = one(done["Hostname"], "expanding hostname failed")
    return done


def _variable(line: str, one: Callable[[str, str], str]) -> str:
    name, equals, value = line.partition("=")
    where = f'expanding env failed: expanding env "{line}"'
    return f"{name}{equals}{one(value, where)}"


def obstacle(
    container: Mapping[str, Any], resources: Mapping[str, Any], cpus: float
) -> tuple[str, str] | None:
    """Return what keeps a container from starting: the state of its task, and the error."""
    return next(_obstacles(container, resources.get("Limits") or {}, cpus), None)


def _obstacles(
    container: Mapping[str, Any], limits: Mapping[str, Any], cpus: float
) -> Iterator[tuple[str, str]]:
    env, mounts = container.get("Env") or (), container.get("Mounts") or ()
    yield from (
        ("rejected", f"invalid environment variable: {line}") for line in env if not line.partition("=")[0]
    )
    yield from (("rejected", text) for text in _mount_obstacles(mounts))
    yield from _limit_obstacles(limits, cpus)
    if any("\0" in line for line in env):
        yield "failed", f"{_RUNC}environment variable value can't contain null(\\x00)"
    if any(len(line.encode()) >= WORD_LIMIT for line in env):
        yield "failed", "task: non-zero exit (1)"
    files = (secret.get("File") for secret in container.get("Secrets") or ())
    secrets = {f"/run/secrets/{file['Name']}" for file in files if file}
    for mount in mounts:
        yield from _collisions(mount, secrets)


def _limit_obstacles(limits: Mapping[str, Any], cpus: float) -> Iterator[tuple[str, str]]:
    cpu, memory = limits.get("NanoCPUs") or 0, limits.get("MemoryBytes") or LEAST_MEMORY
    if memory < LEAST_MEMORY:
        yield "rejected", "Minimum memory limit allowed is 6MB"
    if cpu > cpus * NANO:
        text = f"Range of CPUs is from 0.01 to {cpus:.2f}, as there are only {cpus:.0f} CPUs available"
        yield "rejected", text
    if 0 < cpu < LEAST_NANO_CPUS:
        yield "failed", f'{_RUNC}write "{cpu // 10_000}" to cpu.cfs_quota_us: invalid argument: unknown'


def _collisions(mount: Document, secrets: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what a mount runs into: files of every container, those of secrets, what the kernel has there."""
    target = _clean(mount["Target"])
    if any(target.startswith(f"{secret}/") for secret in secrets):
        yield "failed", f"{_RUNC}not a directory: unknown: Are you trying to mount a directory onto a file"
    if any(target.startswith(f"{file}/") for file in _FILES | _DEVICES):
        yield "rejected", f"lstat {target}: not a directory"
    if target in {"/proc", "/dev"} or target.startswith(_KERNEL_FOLDERS):
        yield "failed", f"{_RUNC}{target} cannot be mounted"
    if mount["Type"] != "volume":
        return
    if target in _FILES | _DEVICES | secrets:
        yield "failed", f"{_RUNC}not a directory: unknown: Are you trying to mount a directory onto a file"
    if mount.get("ReadOnly") and any(secret.startswith(f"{target}/") for secret in secrets):
        yield "failed", f"{_RUNC}error mounting a secret: mkdir {target}: read-only file system: unknown"


def _clean(path: str) -> str:
    """The shortest spelling of a path (Go's `filepath.Clean`)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def _mount_obstacles(mounts: Sequence[Document]) -> Iterator[str]:
    for mount in mounts:
        yield from _path_obstacles(mount)
    seen: set[str] = set()
    for mount in mounts:
        target = _clean(mount["Target"])
        if target == "/":
            yield "invalid mount config for type \"volume\": invalid specification: destination can't be '/'"
        if target in seen:
            yield f"Duplicate mount point: {mount['Target']}"
        seen.add(target)
        if mount["Type"] == "volume":
            yield from _volume_obstacles(mount)
            if target.count("/") > 255:
                yield f"evalSymlinksInScope: too many links in {target}"
        if "\0" in target:
            yield f"lstat {target}: invalid argument"
        if len(target.encode()) > 4000 or any(len(part.encode()) > 255 for part in target.split("/")):
            yield f"mkdir {target}: file name too long"


def _path_obstacles(mount: Document) -> Iterator[str]:
    source, target = mount.get("Source") or "", mount.get("Target") or ""
    if not target.startswith("/"):
        yield f"invalid mount target, must be an absolute path: {target}"
    elif mount["Type"] == "bind" and not source.startswith("/"):
        yield f"invalid bind mount source, must be an absolute path: {source}"
    elif mount["Type"] == "volume" and source.startswith("/"):
        yield f"invalid volume mount source, must not be an absolute path: {source}"


def _volume_obstacles(mount: Document) -> Iterator[str]:
    name = mount.get("Source") or ""
    driver = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
    if not name:  # an anonymous one gets a name
        return
    if (driver.get("Name") or "local") != "local":
        return
    if len(name) == 1:
        yield f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
    elif _VOLUME_NAME.fullmatch(name) is None:
        yield f'create {name}: "{name}" includes invalid characters for a local volume name'
    elif len(name) > 255:
        yield f"create {name}: file name too long"
    yield from _option_obstacles(name, driver.get("Options") or {})


def _option_obstacles(name: str, options: Mapping[str, str]) -> Iterator[str]:
    yield from (f'create {name}: invalid option: "{key}"' for key in options if key not in _LOCAL_OPTIONS)
    if "size" in options:
        yield f"create {name}: quota size requested but no quota support"
    for key in options:
        for needed in _LOCAL_OPTIONS.get(key, ()):
            if needed not in options:
                yield f'create {name}: missing required option: "{needed}"'


def probe(check: Mapping[str, Any] | None) -> Probe:
    """Return what comes of a health check."""
    match list((check or {}).get("Test") or ()):
        case []:
            return "image"
        case ["NONE", *_]:
            return "none"
        case ["CMD"]:
            return "panics"
        case ["CMD-SHELL"] | ["CMD", "", *_]:
            return "fails"
        case ["CMD-SHELL", text, *_]:
            lines = str(text).splitlines()
            empty = all(not line.strip() or line.lstrip().startswith("#") for line in lines)
            return "passes" if empty else "runs"
        case ["CMD", *_]:
            return "runs"
        case _:
            return "never"
