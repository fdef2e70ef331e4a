"""Old import paths: they work for one release, with a `DeprecationWarning` that names the new one.

Imports little: until the command has been imported, a SIGTERM ends the process before it can be asked how.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TYPE_CHECKING = False
"""Instead of the one in `typing`, which takes longer to import than everything else here."""
if TYPE_CHECKING:
    from typing import Any

_DOMAIN = {
    "backup": ("backup.requests", "backup.parts", "backup.lease"),
    "base": ("swarm.naming", "deploy.base"),
    "bindings": ("platform.bindings",),
    "certificates": ("routing.certificates",),
    "codec": ("records.converter", "records.codec"),
    "confidential": ("records.confidential",),
    "contention": ("deploy.contention",),
    "convergence": ("swarm.convergence",),
    "desired": ("deploy.desired", "deploy.pins", "deploy.draft", "deploy.render"),
    "failures": ("swarm.failures",),
    "gateway": ("routing.gateway",),
    "health": ("deploy.health",),
    "hosts": ("records.hosts",),
    "images": ("swarm.images",),
    "leftovers": ("deploy.leftovers",),
    "naming": ("swarm.naming",),
    "observed": ("swarm.observed",),
    "pem": ("routing.pem",),
    "plan": ("swarm.actions", "platform.actions", "deploy.steps", "deploy.removals", "deploy.plan"),
    "records": ("records.models",),
    "redaction": ("redaction.redactor",),
    "replication": ("backup.replication",),
    "report": ("deploy.result", "measures"),
    "rollback": ("deploy.rollback",),
    "routes": ("routing.routes",),
    "salvage": ("records.salvage",),
    "secrets": ("deploy.secrets",),
    "services": ("swarm.naming", "swarm.specs", "deploy.services"),
    "sites": ("platform.instances",),
    "snapshots": ("backup.snapshots",),
    "specs": ("swarm.specs",),
    "spellings": ("redaction.spellings",),
    "templates": ("swarm.templates",),
    "volumes": ("deploy.volumes",),
}
_ADAPTERS = {
    "corestore.contents": ("corestore.parse_archive",),
    "corestore.shapes": ("corestore.parse_bindings",),
    "dcrouter.shapes": ("dcrouter.parse_routes",),
    "docker": ("engine.client",),
    "docker.client": ("engine.client",),
    "memory.containers": ("engine.memory.containers",),
    "memory.echo": ("engine.memory.echo",),
    "memory.registries": ("engine.memory.registries",),
    "memory.swarm": ("engine.memory",),
    "peer": ("net.peer",),
    "swarm.engine": ("engine.protocol",),
    "swarm.wire": ("swarm.to_engine", "swarm.from_engine"),
    "typedsocket": ("net.typedsocket",),
    "web": ("net",),
}
_TYPEDSOCKET = (
    "answering",
    "asking",
    "asks",
    "calls",
    "connection",
    "envelope",
    "errors",
    "events",
    "limits",
    "packets",
    "queues",
    "streams",
    "tags",
)
_ADAPTERS |= {f"typedsocket.{module}": (f"net.typedsocket.{module}",) for module in _TYPEDSOCKET}
MOVED: Mapping[str, tuple[str, ...]] = {
    f"coreflow.{package}.{old}": tuple(f"coreflow.{package}.{module}" for module in new)
    for package, table in (("domain", _DOMAIN), ("adapters", _ADAPTERS))
    for old, new in table.items()
} | {
    "coreflow.app.patience": ("coreflow.app.retries",),
    "coreflow.app.reconcile_state": ("coreflow.domain.deploy.state",),
    "coreflow.app.situation": ("coreflow.domain.deploy.state",),
    "coreflow.quiet": ("coreflow.gc_pause",),
}
"""Where the public names of a module of old are now, by its path: those that others import come first.

A path that is a package now forwards by itself.
"""


RENAMED = {
    "CloudlyPort": "ControlPlane",
    "Pace": "RetryPolicy",
    "Quiet": "NullListener",
    "RestoreNote": "Lease",
    "Settlement": "ReconcileResult",
    "Site": "Instance",
    "Sites": "Instances",
    "Situation": "ReconcileState",
    "patiently": "with_retries",
    "quiet": "gc_paused",
    "read_note": "read_lease",
    "site_of_service": "instance_of_service",
    "sites_of": "find_instances",
}
"""Public names that have become others."""


def forward(old: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module whose public names have moved.

    It raises `AttributeError` for names that the module never had.
    """

    def look_up(name: str) -> Any:
        if not name.startswith("_"):
            for new in MOVED[old]:
                module = import_module(new)
                for now in (name, RENAMED.get(name, name)):
                    if hasattr(module, now):
                        text = f"{old}.{name} has moved: import it from {new}{'' if now == name else f' as {now}'}"
                        warnings.warn(text, DeprecationWarning, stacklevel=2)
                        return getattr(module, now)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return look_up


def renamed(name: str, values: Mapping[str, Any], own: Mapping[str, str] | None = None) -> Any:
    """Find what was called `name` in a module with these `values`, for its `__getattr__`; `own` are its own renamings.

    It raises `AttributeError` for names that the module never had.
    """
    module, now = values["__name__"], {**RENAMED, **(own or {})}.get(name)
    if now is None or now not in values:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is {now} now", DeprecationWarning, stacklevel=3)
    return values[now]


def warn_of(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn the caller of whoever calls this that a public name has become another."""
    warnings.warn(f"{old} is {new} now", DeprecationWarning, stacklevel=stacklevel)


class _Finder:
    """Finds the modules of old."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        real = PathFinder.find_spec(fullname, path)
        if real is not None and real.origin is not None:  # a folder that was left behind has none
            return None
        is_package = any(old.startswith(f"{fullname}.") for old in MOVED)
        return ModuleSpec(fullname, self, is_package=is_package)  # type: ignore[arg-type]  # none of its old methods

    def create_module(self, _: ModuleSpec) -> None:
        """A plain one."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = forward(module.__name__)


def install() -> None:
    """Make the old paths importable, once in a process."""
    if not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
