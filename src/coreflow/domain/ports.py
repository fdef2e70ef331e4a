"""The peers, as wishes of the core in the core's words.

Every port has an adapter for the real thing and a memory twin, both held to one contract suite. All methods raise
`Unavailable` when the peer does not answer, and `Refused` when it says no.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

from coreflow._moved import renamed
from coreflow.domain.backup.replication import Copy, Receipt, Slice
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.backup.snapshots import ArchiveObject, Snapshot, StoredVolume, VolumeSpec
from coreflow.domain.deploy.leftovers import LoadedImage
from coreflow.domain.journal import Entry, History, Query
from coreflow.domain.platform.bindings import BindingSpec, BindingStatus, Provisioned
from coreflow.domain.records.models import CertificateRecord, Records
from coreflow.domain.routing.gateway import GatewayAction, ObservedRoute
from coreflow.domain.routing.routes import RouteTable
from coreflow.domain.swarm.actions import SwarmAction
from coreflow.domain.swarm.images import ImageRequest, ResolvedImage
from coreflow.domain.swarm.observed import Observed, ObservedService, ObservedTask
from coreflow.domain.swarm.specs import ImageSpec

from .ids import ServiceId


class DockerPort(Protocol):
    """A Swarm manager."""

    def clock(self) -> float:
        """Its wall clock, in seconds since the epoch, as of its last answer: times of its objects are by this clock."""
        ...

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

    async def apply(self, action: SwarmAction) -> None:
        """Carry out one action. Done already is success.

        Raises LostRace when the object changed since it was observed, Refused when the engine says no.
        """
        ...

    async def load(self, spec: ImageSpec, archive: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> None:
        """Load an image archive (`docker save`, plain or gzip) and tag it with the spec's reference.

        An image that is there already is left as it is, and its archive is not opened.
        """
        ...

    async def images(self) -> tuple[LoadedImage, ...]:
        """Every image on the engine's own node, once for each of its names."""
        ...

    async def remove_image(self, reference: str) -> None:
        """Take a name from an image, and remove the image with its last one. Gone already is success.

        Raises Refused while a container is made from it and it has no other name.
        """
        ...

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Yields whenever something of ours may have changed: a word that says what, and serves to tell subjects apart.

        Missing one must do no harm.
        """
        ...


class ControlPlane(Protocol):
    """The source of records: Cloudly itself, a cluster file, or a test."""

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

    def refresh(self) -> None:
        """Forget what it could not do: it may be another version now."""
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
    """One Corestore: databases, object storage and volumes, snapshots of them, and the archive that holds these.

    No method removes a volume, a snapshot or an archive object: coreflow never does.
    """

    async def provision(self, spec: BindingSpec) -> Provisioned:
        """Make what a binding wants, or find it: the same binding gives the same values again."""
        ...

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back, with its data. Gone already is success."""
        ...

    async def volumes(self) -> tuple[StoredVolume, ...]:
        """All volumes."""
        ...

    async def create_volume(self, spec: VolumeSpec) -> None:
        """Make a volume. There already is success, and changes nothing of it."""
        ...

    async def snapshot_volume(self, name: str, tags: Mapping[str, str]) -> Snapshot:
        """Take a snapshot. Each call takes one more, so after Unavailable there may be one: see `snapshots`.

        Raises Refused when there is no such volume.
        """
        ...

    async def snapshot_resource(
        self, service_id: ServiceId, capability: str, tags: Mapping[str, str]
    ) -> Snapshot:
        """Take a snapshot of a service's database or object storage, as `snapshot_volume` does."""
        ...

    async def snapshots(self, service_id: ServiceId | None = None) -> tuple[Snapshot, ...]:
        """All snapshots; with an id, those of this service and those of which it is not said whose they are."""
        ...

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        """Make a volume what it was at a snapshot, and nothing else. May be repeated.

        Raises Untouched when there is no such volume or snapshot, Unreached when nobody listens, and Refused when it may be
        half overwritten, for instance because the archive lacks something of it.
        """
        ...

    async def restore_resource(self, service_id: ServiceId, capability: str, snapshot_id: str) -> None:
        """The same for a database or object storage."""
        ...

    async def archive_objects(self, snapshot_ids: Iterable[str] = ()) -> tuple[ArchiveObject, ...]:
        """The files of the archive; with snapshots, at least all that these need."""
        ...

    def read_object(self, obj: ArchiveObject) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The content of a file, in pieces of bounded size.

        The last piece is given out only when size and digest are right. Entering raises Refused when there is no such
        file; reading raises Refused when it is another one than described, and Unavailable when it breaks off.
        """
        ...

    async def write_object(self, obj: ArchiveObject, chunks: AsyncIterator[bytes]) -> None:
        """Put a file into the archive. There already, with the same content, is success.

        What `chunks` raises ends the transfer, leaves nothing behind, and comes out. Raises Refused when other content
        is there under this path, or when the chunks are not what `obj` describes.
        """
        ...


class ReplicaPort(Protocol):
    """The keeper of copies of archive objects: Cloudly, which hands them on in small slices."""

    async def copies(self, *, backup_id: str = "", prefix: str = "") -> tuple[Copy, ...]:
        """The copies that there are, whole ones only; of a backup as far as the peer knows, or by prefix of the name."""
        ...

    async def put_slice(
        self, copy: Copy, offset: int, data: bytes, *, final: bool, backup_id: str = ""
    ) -> Receipt:
        """Hand over a piece of a copy, at most `SLICE_BYTES`. It may be repeated, and says how much has arrived.

        With the `final` one the copy is complete: the peer checks size and digest, and stores it or not.
        """
        ...

    async def get_slice(self, name: str, offset: int, max_bytes: int) -> Slice:
        """A piece of a copy. Raises Refused when there is none of this name."""
        ...


class Journal(Protocol):
    """A memory of the actions that were carried out. Writing neither waits nor fails, and neither does reading fail.

    Once `kept` has returned, what was noted before is there after a `kill -9`, unless the journal has a problem: then it
    is in memory, and told with the problem. How much is kept is bounded.
    """

    @property
    def problem(self) -> str:
        """Return why what is noted is not kept where it should be; empty where it is."""
        ...

    def begin(self, entry: Entry) -> str:
        """Note that an action begins; the ticket by which its end is noted."""
        ...

    def end(self, ticket: str, entry: Entry | None) -> None:
        """Note what became of it; with None, forget it."""
        ...

    async def kept(self) -> None:
        """Until what was noted is kept. Returns after a moment all the same, and at once as long as that takes longer."""
        ...

    async def read(self, query: Query) -> History:
        """The last entries that fit. An action that has not ended has none yet."""
        ...


class Operator(Protocol):
    """An operator carries out backups and restores when a control plane asks for them. Neither raises PortError: see `status`."""

    async def backup(self, request: BackupRequest) -> BackupResult:
        """Make a backup, or find what came of the same request before."""
        ...

    async def restore(self, request: RestoreRequest) -> RestoreResult:
        """Bring a backup back."""
        ...


if not TYPE_CHECKING:  # a type checker shall miss names that are not there

    def __getattr__(name: str) -> Any:
        return renamed(name, globals())
