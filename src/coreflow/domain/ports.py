"""The far sides, as wishes of the core in the core's words.

Every port has an adapter for the real thing and a memory twin, both held to one contract suite. All methods raise
`Unavailable` when the far side does not answer, and `Refused` when it says no.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from .bindings import BindingSpec, BindingStatus, Provisioned
from .gateway import GatewayAction, ObservedRoute
from .images import ImageRequest, ResolvedImage
from .observed import Observed, ObservedService, ObservedTask
from .plan import Action
from .records import CertificateRecord, Records
from .routes import RouteTable
from .specs import ImageSpec


class DockerPort(Protocol):
    """A Swarm manager."""

    async def version(self) -> tuple[str, str]:
        """The engine's version, and that of its API."""
        ...

    async def observe(self) -> Observed:
        """List everything that matters: one list per kind, whatever the number of objects."""
        ...

    async def progress(self) -> tuple[tuple[ObservedService, ...], tuple[ObservedTask, ...]]:
        """Services and tasks only: enough to see whether roll-outs have ended."""
        ...

    async def running_tasks(self) -> tuple[ObservedTask, ...]:
        """Tasks that are meant to run, with their addresses, in one list: cheap enough to be asked for every second.

        Whether a task was made from its service's present spec is not known here.
        """
        ...

    async def resolve(self, request: ImageRequest) -> ResolvedImage:
        """Find out what an image reference means right now.

        Raises Refused when the registry says that it does not exist or that the login is wrong.
        """
        ...

    async def apply(self, action: Action) -> None:
        """Carry out one action. Done already is success.

        Raises LostRace when the object changed since it was observed, Refused when the engine says no.
        """
        ...

    async def load(self, spec: ImageSpec, archive: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> None:
        """Load an image archive (`docker save`, plain or gzip) and tag it with the spec's reference.

        An image that is there already is left as it is, and its archive is not opened.
        """
        ...

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Yields whenever something may have changed. Carries no data; missing one must do no harm."""
        ...


class CloudlyPort(Protocol):
    """Whoever has the records: Cloudly itself, a cluster file, or a test."""

    async def records(self) -> Records:
        """Everything that is wanted now.

        Raises InvalidRecord when the answer as a whole cannot be used.
        """
        ...

    def archive(self, spec: ImageSpec) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The archive of an internal image, in pieces.

        Entering raises Refused when there is none.
        """
        ...

    async def certificate(self, domain: str) -> CertificateRecord:
        """The certificate for a host name, with its key.

        Raises Refused when there is none, and InvalidRecord when what there is cannot be used.
        """
        ...

    async def report_binding(self, status: BindingStatus) -> None:
        """Say how far a binding is. Raises Refused where nobody wants to know."""
        ...

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Yields whenever the records may have changed."""
        ...


class GatewayPort(Protocol):
    """An external gateway that carries public routes, and may have certificates."""

    async def certificate(self, host: str) -> CertificateRecord:
        """The certificate that the gateway has for a host, or for its parent as a wildcard. Raises Refused: it has none."""
        ...

    async def routes(self) -> tuple[ObservedRoute, ...]:
        """Every route there is, ours and others'."""
        ...

    async def apply(self, action: GatewayAction) -> None:
        """Carry out one action. Done already is success."""
        ...


class CoretrafficPort(Protocol):
    """The reverse proxies of the cluster, as many as are connected."""

    def publish(self, table: RouteTable) -> None:
        """From now on this is what they should have: sent to each where it differs from what that one has.

        Returns at once. Each gets one update at a time, and the newest table when it is done with that.
        """
        ...

    def resend(self) -> None:
        """Send it once more to everybody, though nothing changed."""
        ...


class CorestorePort(Protocol):
    """Databases and object storage of the cluster."""

    async def provision(self, spec: BindingSpec) -> Provisioned:
        """Make what a binding wants, or find it: the same binding gives the same values again."""
        ...

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back, with its data. Gone already is success."""
        ...
