"""Images that coreflow loaded from archives and that nothing needs any more.

Docker gives an image no place to say who loaded it. What says it is the name: coreflow tags what it loads with the id of an
image record that Cloudly keeps and a version, and nobody pulls an image by such a name. Names of other forms, and of image
records that are gone, are never touched, since they may be somebody else's.
"""

from collections.abc import Iterable, Iterator

from attrs import frozen

from coreflow.domain.records.models import Records
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import unpinned
from coreflow.domain.swarm.observed import Observed

_WANTED = frozenset({"running", "ready"})


@frozen(kw_only=True)
class LoadedImage:
    """An image on the engine's own node, under one of its names."""

    reference: str
    id: str
    size: int = 0
    """Bytes, layers shared with other images included."""
    in_use: bool = False
    """Whether a container on this node is made from it, running or not, under whichever name."""


def leftovers(records: Records, observed: Observed, images: Iterable[LoadedImage]) -> tuple[LoadedImage, ...]:
    """The images that nothing needs: no record, no service now or before its last change, no container.

    A version that was rolled back is needed, too: it is what the record asks for.
    """
    ours = {image.id for image in records.images.values() if image.location.internal}
    needed = set(_needed(records, observed))
    return tuple(
        sorted(
            (
                image
                for image in images
                if image.reference.rpartition(":")[0] in ours
                and image.reference not in needed
                and not image.in_use
            ),
            key=lambda image: image.reference,
        )
    )


def _needed(records: Records, observed: Observed) -> Iterator[str]:
    """References, without digests."""
    for record in records.services:
        if record.image_id and record.image_version:
            yield f"{record.image_id}:{record.image_version}"
    for service in observed.services:
        yield unpinned(service.body.image)
        yield unpinned(service.previous_image)
        for label in (naming.IMAGE, naming.FAILED_IMAGE):
            yield unpinned(service.labels.get(label, ""))
    for task in observed.tasks:
        if task.desired_state in _WANTED:  # what has ended needs no image, and holds it through its container
            yield unpinned(task.image)
