"""Old import paths work for a release, and say where things are now."""

from importlib import import_module

import pytest

from coreflow._moved import MOVED

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
