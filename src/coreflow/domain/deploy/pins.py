"""Digests that the labels of our services remember."""

from collections.abc import Mapping

from attrs import frozen

from coreflow.domain.ids import ClusterId
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.images import ImageRequest, unpinned
from coreflow.domain.swarm.observed import Observed
from coreflow.domain.swarm.specs import Platform

from .desired import Unit, unit_of


@frozen
class PinnedImage:
    """The digest that a reference had when we last wrote it, the hash of the login for it, and what it runs on."""

    digest: str | None
    login: str
    platforms: tuple[Platform, ...] = ()
    """Those that the live service is placed by, if this is what it runs."""


PinnedImages = Mapping[tuple[Unit, str], PinnedImage]
"""By unit and reference."""


def pinned_images(observed: Observed, cluster: ClusterId) -> PinnedImages:
    """Return what the labels of our services remember of images, by unit and reference; of those that failed, too."""
    known: dict[tuple[Unit, str], PinnedImage] = {}
    for service in observed.services:
        if service.cluster == cluster:
            labels, unit, login = service.labels, unit_of(service.owner, service.name), service.login
            for label in (naming.FAILED_IMAGE, naming.IMAGE):
                image = labels.get(label)
                if image:
                    reference = unpinned(image)
                    platforms = service.platforms if service.body.image == image else ()
                    found = PinnedImage(image[len(reference) + 1 :] or None, login, platforms)
                    known[unit, reference] = known[unit, image] = found
    return known


def is_known(known: PinnedImages, unit: Unit, request: ImageRequest, login: str) -> bool:
    """Return whether a running service says what the reference means, and has the same login for it."""
    image = known.get((unit, request.reference))
    return image is not None and image.login == login
