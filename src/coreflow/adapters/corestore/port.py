"""`CorestorePort` on Corestore's control API: JSON, and files of the archive as they are.

Almost everything may be repeated: what is there is found, and what is gone is gone. So a Corestore that is just starting
is asked a few times within one call. A snapshot is asked for once more only where nobody listened, and a transfer is
never begun again.

Requests hold the token and what a binding or a volume says, answers hold credentials. So no error of ours has one of the
HTTP client's behind it, and what Corestore says is redacted: of the token, the texts that we sent or got, and the keys
and passwords that it ever gave us.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager

from attrs import define, field

from coreflow.adapters.net import DIRECT, Outbound
from coreflow.domain.backup.snapshots import ArchiveObject, Snapshot, StoredVolume, VolumeSpec
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.bindings import BindingSpec, Provisioned
from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact

from . import methods as m
from .archive import ArchiveCalls
from .bindings import BindingCalls
from .data import DataCalls
from .failures import Failures
from .requests import Requests

UNHEALTHY_SECONDS = 30.0
"""How long bindings are not asked for again once Corestore could not be reached: services must not wait for it one by one."""


def _stripped(token: str | None) -> str:
    return (token or "").strip()


@define(eq=False, repr=False)
class Corestore:
    """Corestore at `url`, the address of its control API. An empty `token` is not sent."""

    _url: str
    _token: str = field(default=None, converter=_stripped)
    _api: m.Endpoints = field(default=m.API, kw_only=True)
    _timeout: float | None = field(default=None, kw_only=True)
    """Holds for each try, instead of what the table of `api` says."""
    _stall: float = field(default=m.STALL_SECONDS, kw_only=True)
    """Seconds that a transfer may go without a byte."""
    _unhealthy_seconds: float = field(default=UNHEALTHY_SECONDS, kw_only=True)
    """For so long bindings fail at once after a failure of the network."""
    _redact: Redact = field(default=NOTHING_KNOWN.redact, kw_only=True)
    """Takes out of its texts what else must not be told."""
    _via: Outbound = field(default=DIRECT, kw_only=True)
    _bindings: BindingCalls = field(init=False)
    _data: DataCalls = field(init=False)
    _archive: ArchiveCalls = field(init=False)

    def __attrs_post_init__(self) -> None:
        requests = Requests(
            url=self._url.strip().rstrip("/"),
            token=self._token,
            api=self._api,
            timeout=self._timeout,
            stall=self._stall,
            via=self._via,
            failures=Failures(self._api, self._token, self._redact),
        )
        self._bindings = BindingCalls(requests, self._unhealthy_seconds)
        self._data, self._archive = DataCalls(requests), ArchiveCalls(requests)

    # --- bindings

    async def provision(self, spec: BindingSpec) -> Provisioned:
        """Make what a binding wants, or find it. Raises Refused when the answer has no variables that can be used."""
        return await self._bindings.provision(spec)

    async def deprovision(self, spec: BindingSpec) -> None:
        """Give it back, with its data. Gone already is success."""
        await self._bindings.deprovision(spec)

    # --- volumes and snapshots

    async def volumes(self) -> tuple[StoredVolume, ...]:
        """All volumes."""
        return await self._data.volumes()

    async def create_volume(self, spec: VolumeSpec) -> None:
        """Make a volume. There already is success, and changes nothing of it."""
        await self._data.create_volume(spec)

    async def snapshot_volume(self, name: str, tags: Mapping[str, str]) -> Snapshot:
        """Take a snapshot: one more with each call, and maybe also where it is Unavailable."""
        return await self._data.snapshot_volume(name, tags)

    async def restore_volume(self, name: str, snapshot_id: str) -> None:
        """Make a volume what it was at a snapshot, and nothing else."""
        await self._data.restore_volume(name, snapshot_id)

    async def snapshot_resource(
        self, service_id: ServiceId, capability: str, tags: Mapping[str, str]
    ) -> Snapshot:
        """Take a snapshot of a service's database or object storage, as `snapshot_volume` does."""
        return await self._data.snapshot_resource(service_id, capability, tags)

    async def restore_resource(self, service_id: ServiceId, capability: str, snapshot_id: str) -> None:
        """Make a database or object storage what it was at a snapshot."""
        await self._data.restore_resource(service_id, capability, snapshot_id)

    async def snapshots(self, service_id: ServiceId | None = None) -> tuple[Snapshot, ...]:
        """All snapshots; with an id, those that belong to this service, whatever else is answered."""
        return await self._data.snapshots(service_id)

    # --- the archive

    async def archive_objects(self, snapshot_ids: Iterable[str] = ()) -> tuple[ArchiveObject, ...]:
        """The files of the archive; with snapshots, at least all that these need."""
        return await self._archive.objects(snapshot_ids)

    def read_object(self, obj: ArchiveObject) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The content of a file, in pieces of bounded size, the last one only when size and digest are right."""
        return self._archive.read(obj)

    async def write_object(self, obj: ArchiveObject, chunks: AsyncIterator[bytes]) -> None:
        """Put a file into the archive. There already, with the same content, is success."""
        await self._archive.write(obj, chunks)
