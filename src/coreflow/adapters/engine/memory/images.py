"""Images: on the engine's node, in registries, in archives; and what a container of each does."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator

from coreflow.adapters.engine.protocol import Document, EngineError

from . import echo
from .conditions import RUNS, Behaviour, Conditions, Registry
from .store import Store, Task

IMAGE_SIZE = 1_000_000
_WITHOUT_CONTAINER = frozenset({"new", "pending", "preparing", "rejected"})


class Images:
    """The images that the engine's node has, and those that it finds at registries."""

    def __init__(self, conditions: Conditions, store: Store) -> None:
        self._conditions, self._store = conditions, store
        self._image_ids: dict[str, str] = {}

    def add(self, reference: str, behaviour: Behaviour = RUNS) -> None:
        """An image that every node has and no registry knows."""
        self._conditions.behaviours[reference] = behaviour
        for node in self._conditions.nodes.values():
            node.images.add(reference)

    def push(self, reference: str, behaviour: Behaviour = RUNS, *, content: str = "") -> str:
        """Put an image into its registry (made if it is not there); its digest, which follows from the content."""
        host, _, path = reference.partition("/")
        if not path:
            raise ValueError("push needs a reference with a registry's host")
        digest = "sha256:" + _digest_of(f"{reference}\0{content}")
        self._conditions.registries.setdefault(host, Registry()).images[path] = digest
        self._conditions.behaviours[reference] = behaviour
        self._conditions.behaviours[f"{reference}@{digest}"] = behaviour
        return digest

    def inspect(self, reference: str) -> Document:
        """`GET /images/{name}/json`."""
        node = self._conditions.own_node
        if reference not in node.images:
            if not echo.is_looked_up(reference):
                raise EngineError(400, "invalid reference format")
            raise EngineError(404, f"No such image: {reference}")
        host, _, path = reference.partition("/")
        registry = self._conditions.registries.get(host)
        digest = registry.images.get(path) if registry is not None else None
        repository = reference.rpartition(":")[0]
        digests = [f"{repository}@{digest}"] if digest else []
        identity = self.identity(reference)
        names = [
            name
            for name in sorted(node.images)
            if self.identity(name) == identity and not name.startswith("sha256:")
        ]
        return {"Id": identity, "RepoTags": names, "RepoDigests": digests}

    def listed(self) -> list[Document]:
        """`GET /images/json`."""
        names: dict[str, list[str]] = {}
        for reference in sorted(self._conditions.own_node.images):
            tags = names.setdefault(self.identity(reference), [])
            if not reference.startswith("sha256:") and "@" not in reference:
                tags.append(reference)
        return [{"Id": identity, "RepoTags": tags, "Size": IMAGE_SIZE} for identity, tags in names.items()]

    def containers(self) -> Iterator[Document]:
        """`GET /containers/json`: those of tasks that have not been forgotten."""
        node = self._conditions.own_node
        for task in self._store.tasks.values():
            if task.document.get("NodeID") == node.id and task.state not in _WITHOUT_CONTAINER:
                image = task.spec["ContainerSpec"]["Image"]
                yield {"Id": task.id, "Image": image, "ImageID": self.identity(image)}

    def remove(self, reference: str) -> None:
        """`DELETE /images/{name}`."""
        node = self._conditions.own_node
        if reference not in node.images:
            raise EngineError(404, f"No such image: {reference}")
        identity = self.identity(reference)
        others = [name for name in node.images - {reference} if self.identity(name) == identity]
        user = next((c["Id"] for c in self.containers() if c["ImageID"] == identity), None)
        if user is not None and not others:
            text = f'conflict: unable to remove repository reference "{reference}" (must force)'
            raise EngineError(
                409, f"{text} - container {user} is using its referenced image {identity[7:19]}"
            )
        node.images.discard(reference)
        self._image_ids.pop(reference, None)

    def identity(self, reference: str) -> str:
        """The id of an image."""
        if reference.startswith("sha256:"):
            return reference
        return self._image_ids.get(reference, f"sha256:{_digest_of(reference)}")

    def ask_registry(self, reference: str, auth: str | None) -> str:
        """The digest of a reference; refuses as the engine passes on what a registry says."""
        if not echo.is_looked_up(reference):
            raise EngineError(400, "invalid reference format")
        name, _, pinned = reference.partition("@")
        host, _, path = name.partition("/")
        registry = self._conditions.registries.get(host)
        if registry is None or not registry.up:
            raise EngineError(500, f'Get "https://{host}/v2/": dial tcp: connect: connection refused')
        error = registry.errors.get(path.rpartition(":")[0]) or registry.errors.get("*")
        if error is not None:
            raise EngineError(*error)
        if registry.login is not None:
            if auth is None:
                raise EngineError(500, f'Get "https://{host}/v2/": no basic auth credentials')
            login = json.loads(base64.urlsafe_b64decode(auth))
            if (login.get("username"), login.get("password")) != registry.login:
                raise EngineError(401, "unauthorized: authentication required")
        digest = registry.images.get(path)
        if digest is None or (pinned and pinned not in set(registry.images.values())):
            raise EngineError(404, f"manifest unknown: manifest unknown for {path}")
        return pinned or digest

    def load(self, data: bytes) -> list[str]:
        """Read a `docker save` archive; a container of its image runs."""
        try:
            if data[:2] == b"\x1f\x8b":
                data = gzip.decompress(data)
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                member = archive.extractfile("manifest.json")
                manifest = json.load(member) if member is not None else []
        except (tarfile.TarError, KeyError, ValueError, OSError, EOFError) as exc:
            raise EngineError(
                400, "Error processing tar file(exit status 1): archive/tar: invalid tar header"
            ) from exc
        loaded = [
            tag
            for entry in manifest
            for tag in (entry.get("RepoTags") or [f"sha256:{_digest_of(entry['Config'])}"])
        ]
        for tag in loaded:
            self._conditions.own_node.images.add(tag)
            self._conditions.behaviours.setdefault(tag, RUNS)
        return loaded

    def tag(self, image: str, reference: str) -> None:
        """`POST /images/{name}/tag`."""
        node = self._conditions.own_node
        named = sorted(name for name in node.images if image in {name, self.identity(name)})
        if not named:
            raise EngineError(404, f"No such image: {image}")
        behaviours = self._conditions.behaviours
        behaviour = behaviours.get(image, behaviours.get(named[0], RUNS))
        node.images.add(reference)
        self._image_ids[reference] = self.identity(image)
        behaviours[reference] = behaviour

    def behaviour(self, task: Task) -> Behaviour | None:
        """Return what a task's container does, if anybody has said."""
        image: str = task.spec["ContainerSpec"]["Image"]
        behaviours = self._conditions.behaviours
        return behaviours.get(image) or behaviours.get(image.partition("@")[0])


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
