"""What a sample cluster is rendered to, down to the byte: the names, the engine's documents and the fingerprints."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from coreflow.adapters.swarm.to_engine import network_document, secret_document, service_document
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import Desired, RenderOptions
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.ids import NodeId
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.models import Records
from coreflow.domain.swarm.images import ResolvedImage
from coreflow.domain.swarm.observed import Observed, ObservedNode
from coreflow.domain.swarm.specs import Aspect, ServiceSpec

Json = dict[str, Any]
FOLDER = Path(__file__).parents[2] / "golden"
EXPECTED = FOLDER / "specs.json"
REGENERATE = "COREFLOW_REGENERATE_GOLDEN"
ADVICE = f"""
What coreflow renders is no longer what it rendered before. With the next version, every service below is updated in
every cluster, and most are restarted. If that is not meant, undo the change. If it is, run this test again with
{REGENERATE}=1, review the diff of {EXPECTED.name}, and add a news fragment of type `restarts` (docs/news/*.restarts.md)
that says which services restart, and why.
"""


def records() -> Records:
    """The sample cluster."""
    return decode_records(yaml.safe_load((FOLDER / "cluster.yaml").read_text()))


def render() -> Desired:
    """The sample cluster rendered on two nodes, with a digest for every image that is derived from its name."""
    nodes = tuple(
        ObservedNode(
            id=NodeId(name), hostname=name, state="ready", availability="active", role="manager", address=""
        )
        for name in ("node-one", "node-two")
    )
    observed = Observed(nodes=nodes, own_node=NodeId("node-one"))
    renderer = Renderer(RenderOptions(base=BaseOptions(corestore_api_token="example-token")))
    requests = renderer.image_requests(records(), observed)
    images = {
        request: ResolvedImage("sha256:" + hashlib.sha256(request.reference.encode()).hexdigest())
        for request in requests
    }
    return renderer.render(records(), observed, images)


def described(spec: ServiceSpec) -> Json:
    """Everything that is written of a service, and by which it is recognised."""
    return {
        "fingerprint": spec.fingerprints.whole,
        "aspects": {aspect.value: spec.fingerprints.aspect(aspect) for aspect in Aspect},
        "document": service_document(
            spec, secret_ids={file.secret_name: f"id of {file.secret_name}" for file in spec.body.secrets}
        ),
    }


def actual() -> Json:
    """The sample cluster as it would be written, in JSON's types."""
    desired = render()
    assert desired.rejections == ()
    found = {
        "networks": [network_document(spec) for spec in desired.networks],
        "images": {name: [spec.reference, spec.storage_path] for name, spec in desired.images.items()},
        "secrets": {name: secret_document(spec) for name, spec in desired.secrets.items()},
        "services": {name: described(spec) for name, spec in sorted(desired.services.items())},
    }
    as_json: Json = json.loads(json.dumps(found))
    return as_json


def write(found: Json) -> None:
    """Make the expectation of what is found."""
    EXPECTED.write_text(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def test_rendering_is_unchanged() -> None:
    """A diff here restarts services in production: it is a decision, and news."""
    found = actual()
    if os.environ.get(REGENERATE) == "1":
        write(found)
    expected = json.loads(EXPECTED.read_text())
    services = {**expected["services"], **found["services"]}
    different = [name for name in services if expected["services"].get(name) != found["services"].get(name)]
    assert not different, f"{ADVICE}\nDifferent: {', '.join(sorted(different))}"
    assert found == expected, ADVICE


def test_sample_uses_everything() -> None:
    """The sample has a service with every part of a body that a record can ask for."""
    body = render().services["shop"].body
    assert all(
        (
            body.env,
            body.secrets,
            body.mounts,
            body.networks,
            body.constraints,
            body.max_per_node,
            body.health_check,
            body.limits.nano_cpus,
            body.reservations.nano_cpus,
        )
    )


@pytest.mark.parametrize(
    "name", ["shop", "api", "blog", "tiny", "asleep", "coretraffic", "corelog", "corestore"]
)
def test_sample_is_complete(name: str) -> None:
    """Every service of the sample, and of the base, is in the expectation."""
    assert name in json.loads(EXPECTED.read_text())["services"]
