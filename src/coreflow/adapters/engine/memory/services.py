"""The control API for services: create, update, roll back by hand, remove."""

import copy
from collections.abc import Mapping
from typing import Any

from coreflow.adapters.engine.protocol import Document, EngineError

from . import echo
from .conditions import Conditions
from .networks import Networks
from .roll_outs import RollOuts
from .store import Store, same_name
from .tasks import Tasks
from .world import World


class Services:
    """Requests about services, with the refusals."""

    def __init__(
        self,
        conditions: Conditions,
        world: World,
        store: Store,
        networks: Networks,
        tasks: Tasks,
        roll_outs: RollOuts,
    ) -> None:
        self._conditions, self._world, self._store = conditions, world, store
        self._networks, self._tasks, self._roll_outs = networks, tasks, roll_outs

    def _checked(self, spec: Mapping[str, Any]) -> Document:
        stored = echo.stored_service(spec, self._networks.joined)
        for identity in sorted(echo.secret_ids(stored)):
            if identity not in self._store.secrets:
                raise echo.invalid(f"secret not found: {identity}")
        return stored

    def create(self, spec: Mapping[str, Any], auth: str | None) -> str:
        """`POST /services/create`. Returns the id."""
        echo.check_size(spec)
        stored = self._checked(spec)
        if any(
            same_name(document["Spec"]["Name"], stored["Name"]) for document in self._store.services.values()
        ):
            raise EngineError(
                409,
                f"rpc error: code = AlreadyExists desc = name conflicts with an existing object: service {stored['Name']} already exists",
            )
        self._check_ports(stored, None)
        identity = self._world.new_id("service")
        document: Document = {
            "ID": identity,
            "CreatedAt": self._world.stamp(),
            "Spec": stored,
            "Endpoint": {"Spec": {}},
        }
        self._world.touch(document)
        self._store.services[identity] = document
        self._store.auth[identity] = auth
        self._world.emit("service", "create", identity, stored["Name"])
        self._note("create_service", stored)
        self._tasks.fill(identity)
        return identity

    def _check_ports(self, spec: Document, own: str | None) -> None:
        """A port of the ingress network belongs to one service; without that network there is none."""
        ports = (spec.get("EndpointSpec") or {}).get("Ports") or ()
        wanted = {port.get("PublishedPort") for port in ports if port["PublishMode"] == "ingress"}
        if wanted and not self._networks.has_ingress:
            text = "service needs ingress network, but no ingress network is present"
            raise EngineError(400, f"rpc error: code = FailedPrecondition desc = {text}")
        for identity, other in self._store.services.items():
            for port in (other["Spec"].get("EndpointSpec") or {}).get("Ports") or ():
                if (
                    identity != own
                    and port["PublishMode"] == "ingress"
                    and port.get("PublishedPort") in wanted
                ):
                    name = other["Spec"]["Name"]
                    raise echo.invalid(
                        f"port '{port['PublishedPort']}' is already in use by service '{name}' ({identity}) as an ingress port"
                    )

    def update(self, identity: str, version: int, spec: Mapping[str, Any], auth: str | None) -> None:
        """`POST /services/{id}/update?version=`."""
        document = self._store.service(identity)
        if document["Version"]["Index"] != version:
            raise EngineError(500, "rpc error: code = Unknown desc = update out of sequence")
        echo.check_size(spec, document["Spec"])
        stored, live = self._checked(spec), document["Spec"]
        if stored["Name"] != live["Name"]:
            raise EngineError(
                501, "rpc error: code = Unimplemented desc = renaming services is not supported"
            )
        if echo.is_global(stored) != echo.is_global(live):
            raise EngineError(
                501, "rpc error: code = Unimplemented desc = service mode change is not allowed"
            )
        self._check_ports(stored, document["ID"])
        if auth is not None:
            self._store.auth[document["ID"]] = auth
        self._write(document, stored, previous=live)
        self._note("update_service", stored)
        self._roll_outs.begin(document["ID"], backwards=False)

    def _write(self, document: Document, spec: Document, previous: Document | None) -> None:
        """A write raises the version, keeps the last spec as the previous one, and forgets the last roll-out."""
        document["Spec"] = spec
        if previous is None:
            document.pop("PreviousSpec", None)
        else:
            document["PreviousSpec"] = copy.deepcopy(previous)
        document.pop("UpdateStatus", None)
        self._world.touch(document)
        self._world.emit("service", "update", document["ID"], spec["Name"])

    def roll_back(self, identity: str, version: int) -> None:
        """`POST /services/{id}/update?rollback=previous`."""
        document = self._store.service(identity)
        if document["Version"]["Index"] != version:
            raise EngineError(500, "rpc error: code = Unknown desc = update out of sequence")
        if "PreviousSpec" not in document:
            raise EngineError(
                400,
                f"rpc error: code = FailedPrecondition desc = service {document['ID']} does not have a previous spec",
            )
        live = document["Spec"]
        self._write(document, document["PreviousSpec"], previous=live)
        document["UpdateStatus"] = {
            "State": "rollback_started",
            "StartedAt": self._world.stamp(),
            "Message": "manually requested rollback",
        }
        self._note("rollback_service", live)
        self._roll_outs.begin(document["ID"], backwards=True)

    def remove(self, identity: str) -> None:
        """`DELETE /services/{id}`."""
        document = self._store.service(identity)
        del self._store.services[document["ID"]]
        self._roll_outs.drop(document["ID"])
        for task in self._store.tasks_of(document["ID"]):
            self._tasks.take_away(task)
        self._world.emit("service", "remove", document["ID"], document["Spec"]["Name"])
        self._note("remove_service", document["Spec"])

    def _note(self, method: str, spec: Document) -> None:
        self._conditions.service_writes.append((method, spec["Name"]))
