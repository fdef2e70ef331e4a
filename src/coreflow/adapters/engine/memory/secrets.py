"""Secrets: immutable, and kept while a service mounts them."""

import base64
from collections.abc import Mapping
from typing import Any

from coreflow.adapters.engine.protocol import Document, EngineError

from . import echo
from .store import Store, same_name
from .world import World


class Secrets:
    """The control API for secrets."""

    def __init__(self, world: World, store: Store) -> None:
        self._world, self._store = world, store

    def payload(self, name: str) -> bytes:
        """The value of a secret, which the API never gives."""
        return next(
            data for document, data in self._store.secrets.values() if document["Spec"]["Name"] == name
        )

    def create(self, spec: Mapping[str, Any]) -> str:
        """`POST /secrets/create`. Returns the id."""
        data = base64.b64decode(spec.get("Data") or "")
        echo.check_secret(spec, len(data))
        name = spec["Name"]
        if any(same_name(document["Spec"]["Name"], name) for document, _ in self._store.secrets.values()):
            raise EngineError(409, f"rpc error: code = AlreadyExists desc = secret {name} already exists")
        identity = self._world.new_id("secret")
        document: Document = {
            "ID": identity,
            "CreatedAt": self._world.stamp(),
            "Spec": {"Name": name, "Labels": dict(spec.get("Labels") or {})},
        }
        self._world.touch(document)
        self._store.secrets[identity] = (document, data)
        self._world.emit("secret", "create", identity, name)
        return identity

    def remove(self, identity: str) -> None:
        """`DELETE /secrets/{id}`."""
        if identity not in self._store.secrets:
            raise EngineError(404, f"rpc error: code = NotFound desc = secret {identity} not found")
        name = self._store.secrets[identity][0]["Spec"]["Name"]
        users = [
            d["Spec"]["Name"] for d in self._store.services.values() if identity in echo.secret_ids(d["Spec"])
        ]
        if users:
            noun = "service" if len(users) == 1 else "services"
            raise echo.invalid(
                f"secret '{name}' is in use by the following {noun}: {', '.join(sorted(users))}"
            )
        del self._store.secrets[identity]
        self._world.emit("secret", "remove", identity, name)
