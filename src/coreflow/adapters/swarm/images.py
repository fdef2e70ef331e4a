"""The part of the Docker port that deals with images: at registries, in archives, on the engine's own node."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from coreflow.adapters.engine.protocol import Document, EngineError, EngineTimeout, EngineUnreachable
from coreflow.domain.deploy.leftovers import LoadedImage
from coreflow.domain.errors import Refused, Unavailable
from coreflow.domain.swarm.images import (
    ImageRequest,
    ResolvedImage,
    familiar_name,
    registry_host,
    split_reference,
)
from coreflow.domain.swarm.specs import ImageSpec

from . import from_engine, to_engine
from .discreet import Discreet
from .errors import translated, translating
from .parse_documents import readable
from .registries import registry_error


class ImagePort:
    """Looks images up, loads and removes them."""

    def __init__(self, engine: Discreet) -> None:
        self._engine = engine

    async def resolve(self, request: ImageRequest) -> ResolvedImage:
        """Ask the engine first (an image that only it has needs no registry), then the registry."""
        name, _, digest = split_reference(request.reference)
        if not digest and await self._is_local(request.reference, name):
            return ResolvedImage(None)
        what = f"image {request.reference}"
        try:
            answer = await self._engine.inspect_distribution(
                request.reference, to_engine.registry_auth(request.login)
            )
        except EngineTimeout as exc:  # it waits for the registry
            raise Unavailable(f"{what}: {registry_host(request.reference)} does not answer in time") from exc
        except EngineUnreachable as exc:
            raise Unavailable(f"{what}: the engine does not answer ({exc})") from exc
        except EngineError as exc:
            raise registry_error(exc, request) from exc
        with readable(f"$ ({what})"):
            return ResolvedImage(answer["Descriptor"]["digest"], from_engine.image_platforms(answer))

    async def _is_local(self, reference: str, name: str) -> bool:
        """Return whether the engine has this image and no registry is known to have it."""
        image = await self._inspected(reference)
        if image is None:
            return False
        familiar = familiar_name(name)
        return not any(known.partition("@")[0] == familiar for known in image.get("RepoDigests") or ())

    async def load(self, spec: ImageSpec, archive: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> None:
        """Load an archive that holds one image, and tag that image, unless the engine has it already."""
        if await self.has_image(spec.reference):
            return
        what = f"image {spec.reference}"
        async with archive as chunks:
            with translating(f"loading {what}"):
                loaded = await self._engine.load_image(chunks)
        if len(loaded) != 1:
            raise Refused(f"{what}: its archive holds {len(loaded)} images, expected one")
        if loaded[0] != spec.reference:
            name, tag, _ = split_reference(spec.reference)
            with translating(f"tagging {what}"):
                await self._engine.tag_image(loaded[0], name, tag)

    async def images(self) -> tuple[LoadedImage, ...]:
        """Every image on the engine's own node: two reads."""
        with translating("listing images"):
            images = await self._engine.list_images()
            containers = await self._engine.list_containers()
        return tuple(from_engine.loaded_images(images, containers))

    async def remove_image(self, reference: str) -> None:
        """Take a name from an image, never by force."""
        what = f"removing image {reference}"
        try:
            await self._engine.remove_image(reference)
        except EngineError as exc:
            if exc.status == 409:
                raise Refused(f"{what}: a container is made from it") from exc
            if exc.status != 404:
                raise translated(exc, what) from exc
        except EngineUnreachable as exc:
            raise Unavailable(f"{what}: the engine does not answer ({exc})") from exc

    async def has_image(self, reference: str) -> bool:
        """Return whether the engine has an image by this name."""
        return await self._inspected(reference) is not None

    async def _inspected(self, reference: str) -> Document | None:
        """The engine's image by this name; None: it has none."""
        try:
            return await self._engine.inspect_image(reference)
        except EngineError as exc:
            if exc.status == 404:
                return None
            raise translated(exc, f"image {reference}") from exc
        except EngineUnreachable as exc:
            raise Unavailable(f"image {reference}: the engine does not answer ({exc})") from exc
