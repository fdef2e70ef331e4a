"""Old import paths of the domain: they work for one release, with a `DeprecationWarning` that names the new one."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_DOMAIN = "coreflow.domain"
MOVED: Mapping[str, tuple[str, ...]] = {
    f"{_DOMAIN}.{old}": tuple(f"{_DOMAIN}.{module}" for module in new)
    for old, new in {
        "backup": ("backup.requests",),
        "base": ("swarm.naming", "deploy.base"),
        "bindings": ("platform.bindings",),
        "certificates": ("routing.certificates",),
        "codec": ("records.converter", "records.codec"),
        "confidential": ("records.confidential",),
        "contention": ("deploy.contention",),
        "convergence": ("swarm.convergence",),
        "desired": ("deploy.desired", "deploy.pins", "deploy.render"),
        "failures": ("swarm.failures",),
        "gateway": ("routing.gateway",),
        "health": ("deploy.health",),
        "hosts": ("records.hosts",),
        "images": ("swarm.images",),
        "leftovers": ("deploy.leftovers",),
        "naming": ("swarm.naming",),
        "observed": ("swarm.observed",),
        "pem": ("routing.pem",),
        "plan": ("swarm.actions", "deploy.steps", "deploy.plan"),
        "records": ("records.models",),
        "redaction": ("redaction.redactor",),
        "replication": ("backup.replication",),
        "report": ("deploy.result",),
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
    }.items()
}
"""Where the public names of a module of old are now, by its path: those that others import come first.

A path that is a package now forwards by itself.
"""


def forward(old: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module whose public names have moved.

    It raises `AttributeError` for names that the module never had.
    """

    def look_up(name: str) -> Any:
        if not name.startswith("_"):
            for new in MOVED[old]:
                module = import_module(new)
                if hasattr(module, name):
                    text = f"{old}.{name} has moved: import it from {new}"
                    warnings.warn(text, DeprecationWarning, stacklevel=2)
                    return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return look_up


class _Finder(MetaPathFinder, Loader):
    """Finds the modules of old, after everything else has been asked."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = forward(module.__name__)


def install() -> None:
    """Make the old paths importable, once in a process."""
    if not any(type(finder).__name__ == _Finder.__name__ for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
