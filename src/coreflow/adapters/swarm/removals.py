"""The part of the Docker port that removes what a Swarm has."""

from contextlib import suppress
from typing import assert_never

from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.domain.errors import LostRace
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.observed import ObservedNetwork, ObservedSecret, ObservedService

from .discreet import Discreet
from .errors import translating
from .names import Names


class RemovalPort:
    """Removes services, secrets and networks."""

    _engine: Discreet
    _names: Names

    async def remove(self, target: ObservedService | ObservedSecret | ObservedNetwork) -> None:
        """Remove one. Gone already is success.

        Raises LostRace for what is used or wanted since it was looked at, Refused when the engine says no.
        """
        match target:
            case ObservedService():
                await self._remove_service(target)
            case ObservedSecret():
                await self._remove_secret(target)
            case ObservedNetwork():
                await self._remove_network(target)
            case _:
                assert_never(target)

    async def _remove_service(self, target: ObservedService) -> None:
        """Remove it, unless it has been stopped for a restore since it was looked at. Gone already is success."""
        with suppress(EngineError, EngineUnreachable):  # whatever is wrong, the removal will say it
            live = await self._engine.inspect_service(target.id)
            if naming.STOPPED in (live["Spec"].get("Labels") or {}):
                raise LostRace(f"removing service {target.name}: it is being restored")
        with translating(f"removing service {target.name}"):
            try:
                await self._engine.remove_service(target.id)
            except EngineError as exc:
                if exc.status != 404:
                    raise
        self._names.removed("service", target.name)

    async def _remove_secret(self, target: ObservedSecret) -> None:
        with translating(f"removing secret {target.name}"):
            try:
                await self._engine.remove_secret(target.id)
            except EngineError as exc:
                if "is in use" in exc.message:
                    raise LostRace(f"removing secret {target.name}: a service mounts it") from exc
                if exc.status != 404:
                    raise
        self._names.removed("secret", target.name)

    async def _remove_network(self, target: ObservedNetwork) -> None:
        """Remove it, unless something is on it: which, only Swarm knows. Gone already is success."""
        with translating(f"removing network {target.name}"):
            try:
                await self._engine.remove_network(target.id)
            except EngineError as exc:
                if exc.status != 404:
                    raise
        self._names.removed("network", target.name)
