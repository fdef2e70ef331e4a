"""Old import paths work for a release, and say where things are now."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import coreflow
from coreflow import BaseOptions, RenderOptions
from coreflow._moved import MOVED
from coreflow.adapters.cloudly import LinkOptions, NetworkCloudly, RetryPolicy
from coreflow.adapters.memory import MemoryCloudly, MemoryEngine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.reconcile import Reconciler

EXAMPLES = {
    "coreflow.adapters.docker": ("open_engine", "coreflow.adapters.engine.client"),
    "coreflow.adapters.docker.client": ("DockerEngine", "coreflow.adapters.engine.client"),
    "coreflow.adapters.memory.registries": ("ERRORS", "coreflow.adapters.engine.memory.registries"),
    "coreflow.adapters.memory.swarm": ("MemoryEngine", "coreflow.adapters.engine.memory"),
    "coreflow.adapters.peer": ("Peer", "coreflow.adapters.net.peer"),
    "coreflow.adapters.swarm.engine": ("EngineError", "coreflow.adapters.engine.protocol"),
    "coreflow.adapters.swarm.wire": ("service_document", "coreflow.adapters.swarm.to_engine"),
    "coreflow.adapters.typedsocket": ("Connection", "coreflow.adapters.net.typedsocket"),
    "coreflow.adapters.web": ("run", "coreflow.adapters.net"),
    "coreflow.domain.backup": ("BackupRequest", "coreflow.domain.backup.requests"),
    "coreflow.domain.base": ("CORETRAFFIC", "coreflow.domain.swarm.naming"),
    "coreflow.domain.codec": ("decode", "coreflow.domain.records.converter"),
    "coreflow.domain.plan": ("Create", "coreflow.domain.swarm.actions"),
    "coreflow.domain.records": ("ServiceRecord", "coreflow.domain.records.models"),
    "coreflow.domain.redaction": ("Redactor", "coreflow.domain.redaction.redactor"),
    "coreflow.domain.services": ("kept_on", "coreflow.domain.swarm.specs"),
}


RENAMED = {
    "coreflow": ("CloudlyPort", "ControlPlane"),
    "coreflow.domain.ports": ("CloudlyPort", "ControlPlane"),
    "coreflow.app.reconcile": ("Settlement", "ReconcileResult"),
    "coreflow.app.situation": ("Situation", "ReconcileState"),
    "coreflow.adapters.cloudly": ("Pace", "RetryPolicy"),
    "coreflow.app.backups": ("Pace", "Timeouts"),
    "coreflow.domain.backup": ("RestoreNote", "Lease"),
    "coreflow.domain.sites": ("Site", "Instance"),
    "coreflow.quiet": ("quiet", "gc_paused"),
}


@pytest.mark.parametrize(("module", "old", "new"), [(module, *names) for module, names in RENAMED.items()])
def test_an_old_name_is_the_new_one_and_warns(module: str, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=new):
        found = getattr(import_module(module), old)
    assert found.__name__ == new


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_can_be_imported_and_leads_only_to_what_exists(old: str) -> None:
    module = import_module(old)
    for new in MOVED[old]:
        import_module(new)
    with pytest.raises(AttributeError, match="nothing_like_this"):
        module.nothing_like_this  # noqa: B018


@pytest.mark.parametrize(("old", "name", "new"), [(old, *rest) for old, rest in EXAMPLES.items()])
def test_a_moved_name_is_the_same_object_and_warns(old: str, name: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"import it from {new}"):
        found = getattr(import_module(old), name)
    assert found is getattr(import_module(new), name)


def test_the_entry_point_imports_little() -> None:
    """What is imported before signals are taken care of costs hardly more than Python itself."""
    source = Path(coreflow.__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import coreflow.__main__; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"typing", "tempfile", "importlib.abc", "attrs", "trio"} & set(done.stdout.split())


async def _nobody(*_: object) -> None:
    """Dials, and gets nowhere."""


def test_old_keywords_are_fields_of_options_and_warn() -> None:
    """Whoever made a `NetworkCloudly` with the keywords of the last release gets the same one."""
    retry = RetryPolicy(first=3.0)
    with pytest.warns(DeprecationWarning, match=r"NetworkCloudly\(pace, redact\).*LinkOptions"):
        port = NetworkCloudly(_nobody, "token", wall_clock=float, pace=retry, redact=str.upper)  # type: ignore[arg-type]
    assert port.link._options == LinkOptions(retry=retry, redact=str.upper)  # type: ignore[arg-type]


async def test_old_names_of_methods_do_the_same_and_warn() -> None:
    reconciler = Reconciler(
        MemoryCloudly({"configData": {"id": "c"}, "services": []}),
        SwarmPort(MemoryEngine()),
        render=RenderOptions(base=BaseOptions(services=())),
    )
    with pytest.warns(DeprecationWarning, match=r"Reconciler\.settle is reconcile now") as told:
        found = await reconciler.settle()
    assert found.is_stable
    assert told[0].filename == __file__
