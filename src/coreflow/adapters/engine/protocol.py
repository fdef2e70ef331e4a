"""The part of the Docker Engine API that coreflow uses, as a Protocol in the engine's own JSON.

Documents are the engine's (`GET /services` and so on, API 1.41 and later). Errors come as `EngineError` with the HTTP
status and the engine's message, or as `EngineUnreachable` when there was no answer at all.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

Document = dict[str, Any]
"""One JSON object of the engine."""


class EngineError(Exception):
    """The engine answered with an error: its HTTP status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message

    def __str__(self) -> str:
        return f"{self.message} (HTTP {self.status})"


class EngineUnreachable(Exception):
    """No answer: the engine is not there, hung up, or took too long. A write may or may not have happened."""


class EngineTimeout(EngineUnreachable):
    """It was there, and took too long to answer."""


class Engine(Protocol):
    """An engine that is a Swarm manager. Every method may raise EngineError or EngineUnreachable."""

    def clock(self) -> float:
        """The engine's wall clock, in seconds since the epoch, as far as its answers have told."""
        ...

    async def version(self) -> Document:
        """`GET /version`: at least `Version`, `ApiVersion`."""
        ...

    async def info(self) -> Document:
        """`GET /info`: at least `Swarm` with `NodeID`, `LocalNodeState`, `ControlAvailable`."""
        ...

    async def list_services(self) -> Sequence[Document]:
        """`GET /services`."""
        ...

    async def list_running_tasks(self) -> Sequence[Document]:
        """`GET /tasks` with the filter `desired-state=running`: those that are meant to run, whether they do or not."""
        ...

    async def list_tasks(self) -> Sequence[Document]:
        """`GET /tasks`, ended ones included as far as the engine keeps them."""
        ...

    async def list_secrets(self) -> Sequence[Document]:
        """`GET /secrets`; never with values."""
        ...

    async def list_networks(self) -> Sequence[Document]:
        """`GET /networks`, local ones included."""
        ...

    async def list_nodes(self) -> Sequence[Document]:
        """`GET /nodes`."""
        ...

    async def inspect_service(self, service_id: str) -> Document:
        """`GET /services/{id}`."""
        ...

    async def create_service(self, spec: Mapping[str, Any], auth: str | None = None) -> str:
        """`POST /services/create`; `auth` goes into `X-Registry-Auth`. Returns the id."""
        ...

    async def update_service(
        self, service_id: str, version: int, spec: Mapping[str, Any], auth: str | None = None
    ) -> None:
        """`POST /services/{id}/update?version=`: refused when the service has another version by now."""
        ...

    async def remove_service(self, service_id: str) -> None:
        """`DELETE /services/{id}`."""
        ...

    async def create_secret(self, spec: Mapping[str, Any]) -> str:
        """`POST /secrets/create`; `Data` is base64. Returns the id."""
        ...

    async def remove_secret(self, secret_id: str) -> None:
        """`DELETE /secrets/{id}`: refused while a service's current spec mounts it."""
        ...

    async def create_network(self, config: Mapping[str, Any]) -> str:
        """`POST /networks/create`. Returns the id."""
        ...

    async def remove_network(self, network_id: str) -> None:
        """`DELETE /networks/{id}`: refused while a service names it, or a container that is meant to run is on it."""
        ...

    async def inspect_image(self, reference: str) -> Document:
        """`GET /images/{name}/json`: an image this engine has; at least `Id`, `RepoTags`, `RepoDigests`."""
        ...

    async def list_images(self) -> Sequence[Document]:
        """`GET /images/json`: this node's; at least `Id`, `RepoTags`, `Size`."""
        ...

    async def list_containers(self) -> Sequence[Document]:
        """`GET /containers/json?all=true`: this node's, ended ones included; at least `Id`, `ImageID`."""
        ...

    async def remove_image(self, reference: str) -> None:
        """`DELETE /images/{name}`, not by force: takes the name, and the image with its last name.

        Refused while a container is made from it, if that is its last name.
        """
        ...

    async def inspect_distribution(self, reference: str, auth: str | None = None) -> Document:
        """`GET /distribution/{name}/json`: what the registry says; `Descriptor.digest`."""
        ...

    async def load_image(self, archive: AsyncIterator[bytes]) -> Sequence[str]:
        """`POST /images/load` of a `docker save` archive, plain or compressed. Returns references or ids loaded."""
        ...

    async def tag_image(self, image: str, repository: str, tag: str) -> None:
        """`POST /images/{name}/tag`."""
        ...

    async def list_volumes(self) -> Sequence[Document]:
        """`GET /volumes`. Asking also makes the engine look for volume plugins it has not used yet."""
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Document]]:
        """`GET /events` from now on: `Type`, `Action`, `Actor`. The iterator ends when the engine hangs up."""
        ...
