"""Images of services: from a registry target, from Cloudly's own store, or from an external registry.

A source names the image; a *resolution* says what the name means right now (its digest). Resolutions are
observations: `image_source` computes which question to ask, a port answers it, rendering uses the answer.
"""

import re
from collections.abc import Iterable

from attrs import field, frozen

from coreflow.domain.errors import CoreflowError
from coreflow.domain.records.models import (
    ExternalRegistryRecord,
    ImageRecord,
    Records,
    RegistryLogin,
    ServiceRecord,
)

from .specs import Platform

_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com"})
_HUB, _OFFICIAL = "docker.io", "library/"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>[\w][\w.-]{{0,127}}))?(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_PATH_LIMIT = 255
"""Characters of a name without its host, `library/` included; engines before 23 count the host, too (measured on 20.10)."""
_HTTPS = ":443"
_LOCAL_LIMIT = _PATH_LIMIT - len(f"{_HUB}/{_OFFICIAL}")
"""Characters of a name that every engine takes for an image without a registry."""
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


_NO_HOST = "needs a dot or a port: Docker takes it for a name on Docker Hub"


class Rejected(CoreflowError):
    """A record cannot be rendered. The reasons name records and fields, never values."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


@frozen
class ImageRequest:
    """A question for a registry: what is this reference, for somebody with this login?"""

    reference: str
    login: RegistryLogin | None = None


@frozen
class ResolvedImage:
    """The answer: a digest, or None for an image that only the engine itself has, and what it runs on, if that is known."""

    digest: str | None = None
    platforms: tuple[Platform, ...] = ()


@frozen
class ImageProblem:
    """The reason why there is no answer. `unavailable`: the registry did not say no, it did not answer."""

    text: str
    unavailable: bool = False
    awaited: bool = False
    """Whether somebody waits for one now."""


Resolution = ResolvedImage | ImageProblem


@frozen(kw_only=True)
class ArchiveImage:
    """An image that Cloudly keeps: loaded into the engine and tagged with `reference`."""

    reference: str
    image_id: str
    version: str
    storage_path: str | None = field(default=None)


@frozen(kw_only=True)
class RegistryImage:
    """An image that a registry serves."""

    request: ImageRequest


ImageSource = ArchiveImage | RegistryImage


def split_reference(reference: str) -> tuple[str, str, str]:
    """Split into name (host and path), tag and digest; the latter two may be empty.

    Raises ValueError when it is not an image reference (source: `ParseNormalizedNamed` of Docker's reference library;
    measured on 26.1). An older engine takes less: hosts in brackets, and hosts that are told by their capital letters
    only, are refused by 20.10 when the image is looked up.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None or _IMAGE_ID.fullmatch(reference) is not None:
        raise ValueError("not an image reference")
    host, path = _host_and_path(match["name"])
    if path.startswith("[") or (host == _HUB and path != path.lower()) or len(path) > _PATH_LIMIT:
        raise ValueError("not an image reference")
    return match["name"], match["tag"] or "", match["digest"] or ""


def _is_host(first: str) -> bool:
    """Return whether the engine takes the part before the first slash for a host, and not for a part of a name on Docker Hub."""
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _names_host(reference: str) -> bool:
    first, slash, _ = reference.partition("/")
    return bool(slash) and _is_host(first)


def _host_and_path(name: str) -> tuple[str, str]:
    host, path = _HUB, name
    if _names_host(name):
        host, _, path = name.partition("/")
    if host in {_HUB, f"index.{_HUB}"}:
        return _HUB, path if "/" in path else _OFFICIAL + path
    return host, path


def registry_host(reference: str) -> str:
    """The host of a reference, or `docker.io` where it names none."""
    return _host_and_path(reference)[0]


def familiar_name(name: str) -> str:
    """A name as the engine lists it: without the host and the folder that Docker Hub's own images have."""
    host, path = _host_and_path(name)
    if host != _HUB:
        return f"{host}/{path}"
    short = path.removeprefix(_OFFICIAL)
    return path if "/" in short else short


def pinned(reference: str, digest: str | None) -> str:
    """The reference with the digest behind it: the same image for ever."""
    return f"{reference}@{digest}" if digest and "@" not in reference else reference


def unpinned(reference: str) -> str:
    """The reference without the digest that `pinned` put behind it."""
    return reference.partition("@")[0]


def _complete(reference: str, record: str) -> str:
    """Strip a scheme, check the syntax, and say `latest` aloud."""
    reference = _SCHEME.sub("", reference.strip())
    try:
        name, tag, digest = split_reference(reference)
    except ValueError:
        hint = ": write its name in lower case" if _is_valid(reference.lower()) else ""
        raise Rejected(f"{record}: not a valid image reference{hint}") from None
    return reference if tag or digest else f"{name}:latest"


def _is_valid(reference: str) -> bool:
    try:
        split_reference(reference)
    except ValueError:
        return False
    return True


def server_address(url: str) -> str:
    """The host of a registry as Docker's login names it: without scheme and trailing slash."""
    return _SCHEME.sub("", url.strip()).rstrip("/")


def _host_of(url: str) -> str:
    return server_address(url).partition("/")[0]


def _cluster_login(reference: str, records: Records) -> RegistryLogin | None:
    login = records.cluster.registry_info
    if login is not None and _is_login_for(login.serveraddress, reference):
        return login
    return None


def _is_login_for(address: str, reference: str) -> bool:
    """Return whether a login's address is that of the registry which the engine asks for this reference.

    Hosts are compared without case and without the port of HTTPS. Docker Hub has several names in addresses; in
    references the engine knows them in lower case and without a port only.
    """
    return _registry(_host_of(address).lower()) == _registry(registry_host(reference))


def _registry(host: str) -> str:
    if host in _HUB_HOSTS:
        return _HUB
    plain = host.lower().removesuffix(_HTTPS)
    return f"{plain}{_HTTPS}" if plain in _HUB_HOSTS else plain


def plain_source(reference: str, records: Records, what: str) -> RegistryImage:
    """The source of an image that is given by reference alone (a base service's)."""
    reference = _complete(reference, what)
    return RegistryImage(request=ImageRequest(reference, _cluster_login(reference, records)))


def image_source(service: ServiceRecord, records: Records) -> ImageSource:
    """Return where the image of a service comes from; a registry target wins over the image record.

    Raises Rejected when the records do not say, or name something that is missing.
    """
    if service.registry_target is not None:
        return _from_target(service, records)
    if not service.image_id:
        raise Rejected("no image: imageId is missing and there is no registryTarget")
    image = records.images.get(service.image_id)
    if image is None:
        raise Rejected(missing("image", service.image_id, records))
    if image.location.internal:
        return _from_archive(service, image)
    return _from_external(service, image, records)


def missing(kind: str, identity: str, records: Records) -> str:
    """Say that a record is not there, or that it is there and cannot be used."""
    for rejected in records.rejected:
        if rejected.kind == kind and rejected.id == identity:
            return f"{kind} {identity} is invalid: {'; '.join(rejected.reasons)}"
    return f"{kind} {identity} does not exist"


def _from_target(service: ServiceRecord, records: Records) -> RegistryImage:
    target = service.registry_target
    assert target is not None  # noqa: S101 - the caller looked
    if target.image_url:
        reference = target.image_url
    else:
        gone = [
            name
            for name, value in (("registryHost", target.registry_host), ("repository", target.repository))
            if not value
        ]
        if gone:
            raise Rejected(*(f"registryTarget: {name} is missing" for name in gone))
        base = f"{server_address(target.registry_host or '')}/{(target.repository or '').strip('/')}"
        if not _names_host(base):
            raise Rejected(f"registryTarget: registryHost {_NO_HOST}")
        tag = target.tag or service.image_version
        if target.digest:
            reference = f"{base}@{target.digest}"
        elif tag:
            reference = f"{base}:{tag}"
        else:
            raise Rejected("registryTarget: neither tag nor digest")
    reference = _complete(reference, "registryTarget")
    login = target.registry_info or _cluster_login(reference, records)
    return RegistryImage(request=ImageRequest(reference, login))


def _from_archive(service: ServiceRecord, image: ImageRecord) -> ArchiveImage:
    wanted = service.image_version
    if not wanted:
        raise Rejected("imageVersion is missing")
    version = next((v for v in image.versions if v.version_string == wanted), None)
    if version is None:
        raise Rejected(f"image {image.id} has no version {wanted}")
    reference = f"{image.id}:{wanted}"
    try:
        split_reference(reference)
        if len(image.id) > _LOCAL_LIMIT:
            raise ValueError(reference)
    except ValueError:
        raise Rejected(f"image {image.id}, version {wanted}: not usable as an image name and tag") from None
    return ArchiveImage(
        reference=reference, image_id=image.id, version=wanted, storage_path=version.storage_path
    )


def _from_external(service: ServiceRecord, image: ImageRecord, records: Records) -> RegistryImage:
    reference = _SCHEME.sub("", (image.location.external_image_tag or "").strip())
    if not reference:
        raise Rejected(f"image {image.id}: externalImageTag is missing")
    if not _has_tag(reference) and service.image_version:
        reference = f"{reference}:{service.image_version}"
    login = None
    if image.location.external_registry_id:
        registry = records.external_registries.get(image.location.external_registry_id)
        if registry is None:
            raise Rejected(missing("external registry", image.location.external_registry_id, records))
        if registry.type not in {None, "docker"}:
            raise Rejected(f"external registry {registry.id} is not a Docker registry")
        host = _host_of(registry.url)
        if not host:
            raise Rejected(f"external registry {registry.id}: url is empty")
        if _registry(host.lower()) != _HUB and not _names_host(reference):
            if not _is_host(host):
                raise Rejected(f"external registry {registry.id}: the host of its url {_NO_HOST}")
            reference = f"{host}/{reference}"
        if _is_login_for(registry.url, reference):  # nobody else gets its password
            login = _registry_login(registry)
    reference = _complete(reference, f"image {image.id}")
    return RegistryImage(request=ImageRequest(reference, login or _cluster_login(reference, records)))


def _has_tag(reference: str) -> bool:
    return "@" in reference or ":" in reference.rpartition("/")[2]


def _registry_login(registry: ExternalRegistryRecord) -> RegistryLogin | None:
    if not registry.username:
        return None
    return RegistryLogin(
        serveraddress=server_address(registry.url),
        username=registry.username,
        password=registry.password or "",
    )


def distinct(requests: Iterable[ImageRequest]) -> tuple[ImageRequest, ...]:
    """Each request once, in a stable order."""
    return tuple(
        sorted(
            set(requests),
            key=lambda r: (r.reference, r.login is not None, (r.login and r.login.username) or ""),
        )
    )
