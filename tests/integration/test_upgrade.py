"""A Swarm that an earlier version deployed: the present one has nothing to do there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.deployments.recording import ENVIRONMENT, FOLDER, PREFIX, load
from tests.integration.lab import Lab, open_lab

pytestmark = pytest.mark.engine


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm, under the name that the recordings have."""
    yield from open_lab(engine_host, tmp_path, PREFIX)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_an_upgrade_restarts_nothing(lab: Lab, path: Path) -> None:
    """What the version before wrote is what the present one wants, label by label: no call that writes."""
    deployment = load(path)
    deployment.replay(lab)
    names = {body["Name"] for target, body in deployment.calls if target == "/services/create"}
    assert set(lab.services()) == names
    versions = {name: lab.client.inspect_service(name)["Version"]["Index"] for name in names}
    plan = lab.plan(**ENVIRONMENT)
    assert plan.json["actions"] == [], str(plan)
    assert lab.deploy(**ENVIRONMENT)["outcomes"] == []
    assert versions == {name: lab.client.inspect_service(name)["Version"]["Index"] for name in names}
