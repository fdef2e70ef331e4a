"""Which loaded images nothing needs any more, and which are never touched."""

import pytest
from attrs import evolve

from coreflow.domain.deploy.leftovers import LoadedImage, leftovers
from coreflow.domain.ids import ClusterId, ImageId, ServiceId
from coreflow.domain.records.models import (
    ClusterRecord,
    ImageLocation,
    ImageRecord,
    ImageVersion,
    Records,
    ServiceRecord,
)
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.observed import Observed, ObservedService, ObservedTask
from coreflow.domain.swarm.specs import ServiceBody, fingerprints

INTERNAL = ImageRecord(
    id=ImageId("app"), location=ImageLocation(internal=True), versions=(ImageVersion(version_string="2"),)
)
EXTERNAL = ImageRecord(id=ImageId("shop"), location=ImageLocation(internal=False), versions=())


def image(reference: str, **more: object) -> LoadedImage:
    """An image on the node."""
    return LoadedImage(**{"reference": reference, "id": f"sha256:{reference}", "size": 5, **more})  # type: ignore[arg-type]  # members by name


def records(*services: ServiceRecord) -> Records:
    """Records with an image that Cloudly keeps and one that it does not."""
    images = {record.id: record for record in (INTERNAL, EXTERNAL)}
    return Records(cluster=ClusterRecord(id=ClusterId("c")), services=services, images=images)


def running(image_: str, **more: object) -> ObservedService:
    """A service, anybody's."""
    body = ServiceBody(image=image_)
    values = {
        "id": "s",
        "name": "s",
        "version": 1,
        "labels": {},
        "body": body,
        "fingerprints": fingerprints(body),
    }
    return ObservedService(**{**values, **more})  # type: ignore[arg-type]  # members by name


SERVICE = ServiceRecord(id=ServiceId("s"), name="s", image_id=INTERNAL.id, image_version="1")
NEEDED: dict[str, tuple[Records, Observed]] = {
    "a record": (records(SERVICE), Observed()),
    "a record of a base service": (records(evolve(SERVICE, service_category="base")), Observed()),
    "a service": (records(), Observed(services=(running("app:1"),))),
    "a service, by digest": (records(), Observed(services=(running("app:1@sha256:" + "a" * 64),))),
    "a service before its change": (
        records(),
        Observed(services=(running("app:2", previous_image="app:1"),)),
    ),
    "what was written": (records(), Observed(services=(running("x", labels={naming.IMAGE: "app:1"}),))),
    "what was rolled back": (
        records(),
        Observed(services=(running("x", labels={naming.FAILED_IMAGE: "app:1"}),)),
    ),
    "a task": (
        records(),
        Observed(tasks=(ObservedTask(id="t", service_id="s", state="pending", image="app:1"),)),
    ),
}


@pytest.mark.parametrize("why", NEEDED)
def test_what_is_needed_stays(why: str) -> None:
    """Whatever asks for an image, runs it, or would run it again, keeps it."""
    wanted, seen = NEEDED[why]
    assert leftovers(wanted, seen, [image("app:1")]) == ()


def test_a_task_that_ended_needs_nothing() -> None:
    """Its container may still hold the image, which is another matter."""
    task = ObservedTask(id="t", service_id="s", state="failed", desired_state="shutdown", image="app:1")
    assert leftovers(records(), Observed(tasks=(task,)), [image("app:1")]) == (image("app:1"),)


def test_what_a_container_is_made_from_stays() -> None:
    """Also where somebody started the container by hand."""
    assert leftovers(records(), Observed(), [image("app:1", in_use=True)]) == ()


def test_versions_that_nothing_needs_are_left_over() -> None:
    """Listed in the record or not any more, in the order of their names."""
    found = leftovers(records(SERVICE), Observed(), [image("app:3"), image("app:1"), image("app:2")])
    assert [one.reference for one in found] == ["app:2", "app:3"]


@pytest.mark.parametrize(
    "reference",
    [
        "shop:1",
        "gone:1",
        "app",
        "app/x:1",
        "x/app:1",
        "registry.example:5000/app:1",
        "appendix:1",
        "App:1",
        "nginx:1",
    ],
)
def test_what_may_be_somebody_elses_stays(reference: str) -> None:
    """Only the id of an image record that Cloudly keeps, as the whole name, says that coreflow loaded it."""
    assert leftovers(records(), Observed(), [image(reference)]) == ()
