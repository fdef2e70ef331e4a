"""`coreflow backup`, `coreflow backups` and `coreflow restore`."""

import shlex
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import trio
from attrs import frozen
from cyclopts import Parameter, Token
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from coreflow.adapters.cloudly.backups import backup_document, restore_document
from coreflow.app.backups import Tools, facts_of
from coreflow.app.bindings import Bindings
from coreflow.app.cli import RECORD_SUFFIXES, present
from coreflow.app.cli.asking import is_anybody_there, is_meant
from coreflow.app.cli.deploy import Flag, Output, write_json
from coreflow.app.cli.journaled import journaled
from coreflow.app.cli.running import Format, Records, read_settings, run, say_hints
from coreflow.app.cli.verbosity import is_quiet
from coreflow.app.operations import Operations
from coreflow.app.peers import open_ports
from coreflow.app.progress import Unwatched, Watcher
from coreflow.app.streams import clean, console_for
from coreflow.domain.backup.lease import help_for, read_lease
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import ID_LIMIT, BackupRequest, Replication, RestoreRequest, is_id
from coreflow.domain.backup.snapshots import BACKUP_TAG, VOLUME, Snapshot
from coreflow.domain.errors import PreconditionFailed, Refused
from coreflow.domain.ids import Owner
from coreflow.domain.records.models import ServiceRecord
from coreflow.domain.swarm.naming import STOPPED, replicas_noted
from coreflow.domain.swarm.observed import ObservedService

Json = dict[str, Any]
RUNS_SECONDS = 60.0
"""How long a restore waits for the service to run again before it ends."""
POLL_SECONDS = 0.3

Service = Annotated[str, Parameter(help="The service, by name or id.")]
Name = Annotated[str | None, Parameter(name="--id", help="Name of the backup. Default: made from the time.")]
Replicate = Annotated[bool, Flag, Parameter(help="Send the archive to Cloudly, too.")]
NoVolumes = Annotated[bool, Flag, Parameter(help="Leave out volumes.")]
NoResources = Annotated[bool, Flag, Parameter(help="Leave out databases and object storage.")]
Backup = Annotated[
    str | None, Parameter(help="The backup to restore from. Without it, lists the available backups.")
]
NoPull = Annotated[bool, Flag, Parameter(help="Do not fetch from Cloudly what the archive lacks.")]


def _file_or_backup(_: object, tokens: Sequence[Token]) -> Path:
    """Return the path. Raises ValueError for a word that is no file: most of these are meant as the backup."""
    path = Path(tokens[0].value)
    if tokens[0].keyword is None and path.suffix not in RECORD_SUFFIXES and not path.exists():
        raise ValueError(f"{path} is no file")
    return path


RecordsOfRestore = Annotated[Records, Parameter(converter=_file_or_backup)]
Yes = Annotated[bool, Flag, Parameter(help="Do not ask before anything is overwritten.")]


def backup(
    service: Service,
    /,
    records: Records = None,
    *,
    id: Name = None,  # noqa: A002 - the option's name
    replicate: Replicate = False,
    no_volumes: NoVolumes = False,
    no_resources: NoResources = False,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """Take a snapshot of everything that belongs to a service: volumes marked for backup, databases, object storage.

    The service goes on meanwhile. Made again under the same name, a backup gets only what it lacks. Exit status: 0 only
    if everything is there.
    """

    async def command() -> int:
        async with _at_work(records, format) as work:
            made = f"{datetime.fromtimestamp(time.time(), UTC):%Y%m%d-%H%M%S}"  # noqa: TID251 - the edge
            name = _checked(made if id is None else id)
            record = await work.find(service)
            request = BackupRequest(
                backup_id=name,
                service_id=record.id,
                replicate=replicate,
                include_volumes=not no_volumes,
                include_resources=not no_resources,
            )
            result = await work.operations.backup(request)
        line = f"Backup {result.backup_id}: {result.status}."
        document = backup_document(result)
        work.show(record, document, line, result.error, result.parts, result.replication)
        return 0 if result.status == "completed" else 1

    return run(command, format, hosted=True)


def backups(
    service: Service,
    /,
    records: Records = None,
    *,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """List the backups of a service, the last one first: those that its Corestores have, and those that only Cloudly has.

    Exit status: 0, also where there is none.
    """

    async def command() -> int:
        async with _at_work(records, format) as work:
            await _list(work, await work.find(service))
        return 0

    return run(command, format, hosted=True)


def restore(
    service: Service,
    /,
    records: RecordsOfRestore = None,
    *,
    backup: Backup = None,
    no_pull: NoPull = False,
    yes: Yes = False,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """Bring a backup of a service back. The service is stopped meanwhile, and started again in every case.

    Asks first; where there is no terminal, --yes has to say that it is meant. What is overwritten is saved in snapshots
    first, and the last line is the command that takes the restore back. Stopped in the middle, the next restore or the
    daemon finishes it. Exit status: 0 only if everything was restored; 2 when backups were only listed.
    """

    async def command() -> int:
        async with _at_work(records, format) as work:
            record = await work.find(service)
            if backup is None:
                await _list(work, record)
                return 2
            request = RestoreRequest(
                backup_id=_checked(backup), service_id=record.id, pull_missing=not no_pull
            )
            if not yes:
                await _confirm(record, backup, may_ask=format is Format.TEXT)
            result = await work.operations.restore(request)
            runs = await work.runs_again(record) if result.status != "failed" else ""
        parts = (*result.volumes_restored, *result.resources_restored)
        line = f"Restore of {backup}: {result.status}; restored: {', '.join(parts) or 'nothing'}."
        document = {**restore_document(result), "undoBackupId": result.undo_id or None}
        work.show(record, document, f"{line} {runs}".rstrip(), result.error)
        if result.undo_id and format is Format.TEXT:
            undo = _restore_command(record, result.undo_id, records)
            present.print_line(work.console, Text(f"To take it back: {undo}"))
        return 0 if result.status == "completed" else 1

    return run(command, format, hosted=True)


async def _list(work: "_Work", record: ServiceRecord) -> None:
    facts = await facts_of(work.tools, record.id)
    found = await facts.snapshots()
    snapshots = [snapshot for of_instance in found.values() for snapshot in of_instance]
    work.list_backups(record, snapshots, await work.copied(record), facts.live)


async def _confirm(record: ServiceRecord, backup: str, *, may_ask: bool) -> None:
    """Return if it is meant. Raises PreconditionFailed."""
    if not (may_ask and is_anybody_there()):
        raise PreconditionFailed("nothing was restored: there is nobody to ask, and no --yes")
    question = f"Stop {record.name}, and overwrite its data with that of backup {backup}?"
    if not await is_meant(clean(question)):
        raise PreconditionFailed("nothing was restored")


def _restore_command(record: ServiceRecord, backup_id: str, records: Path | None) -> str:
    """Return what to type to restore another backup of the same service."""
    source = "" if records is None else f" --records {shlex.quote(str(records))}"
    return f"coreflow restore {shlex.quote(record.name)} --backup {shlex.quote(backup_id)}{source}"


# --- what both share


def _checked(backup_id: str) -> str:
    """The name of a backup. Raises PreconditionFailed for one that Cloudly could not ask for."""
    if not is_id(backup_id):
        raise PreconditionFailed(
            f"not a valid backup name: 1 to {ID_LIMIT} characters are allowed, all of them printable"
        )
    return backup_id


@frozen(kw_only=True)
class _Work:
    """Peers that are open, and somebody who carries out what is asked for."""

    tools: Tools
    operations: Operations
    output: Format
    console: Console

    async def find(self, service: str) -> ServiceRecord:
        """A service by its id or its name. Raises PreconditionFailed."""
        records = await self.tools.cloudly.records()
        for record in (*(s for s in records.services if s.id == service), *records.services):
            if service in (record.id, record.name):
                return record
        raise PreconditionFailed(f"no service {service} is recorded")

    async def runs_again(self, record: ServiceRecord) -> str:
        """Wait for a while until the service runs, and say how much of it does."""
        self.tools.watcher.step("waiting until it runs")
        said = shown = ""
        with trio.move_on_after(RUNS_SECONDS):
            while True:
                services, tasks = await self.tools.docker.progress()
                live = next(
                    (s for s in services if s.owner == Owner(record.id) and s.name == record.name), None
                )
                if live is None:
                    return ""
                if not live.body.replicas:
                    return "It is still stopped." if live.is_stopped else ""
                states = [(t.state, t.desired_state) for t in tasks if t.service_id == live.id]
                running = states.count(("running", "running"))
                said = f"{running} of {live.body.replicas} running"
                if running >= live.body.replicas:
                    return f"{said}."
                if said != shown:
                    self.tools.watcher.step(said)
                    shown = said
                await trio.sleep(POLL_SECONDS)
        return f"{said}; Swarm goes on."

    def show(
        self,
        record: ServiceRecord,
        document: Json,
        line: str,
        error: str,
        parts: tuple[Part, ...] = (),
        copies: Replication | None = None,
    ) -> None:
        """Print how it ended."""
        say_hints([error])
        if self.output is Format.JSON:
            write_json(document)
            return
        rows = [*(_row(part) for part in parts), *([_copies(copies)] if copies is not None else [])]
        if rows:
            present.print_blocks(self.console, [present.Block(record.name, tuple(rows))])
        if error:
            row = present.Row(mark=present.PROBLEM, kind=document["status"], name=record.name, reason=error)
            present.print_blocks(self.console, [present.Block("problems", (row,))])
        present.print_line(self.console, Text(line, "bold"))

    async def copied(self, record: ServiceRecord) -> tuple[str, ...]:
        """The backups that Cloudly has copies of."""
        if self.tools.replicator is None:
            return ()
        try:
            return await self.tools.replicator.backups(record.id)
        except Refused:
            return ()

    def list_backups(
        self,
        record: ServiceRecord,
        found: list[Snapshot],
        copied: tuple[str, ...] = (),
        live: ObservedService | None = None,
    ) -> None:
        """Print which backups there are, here and at Cloudly."""
        backups: dict[str, list[Snapshot]] = {}
        for snapshot in sorted(found, key=lambda s: s.created_ms, reverse=True):
            if BACKUP_TAG in snapshot.tags:
                backups.setdefault(snapshot.tags[BACKUP_TAG], []).append(snapshot)
        if self.output is Format.JSON:
            listed = [_backup_json(backup_id, snapshots) for backup_id, snapshots in backups.items()]
            write_json({"serviceId": record.id, "backups": listed, "atCloudly": list(copied)})
            return
        rows = tuple(
            present.Row(mark=present.NOTE, kind=_when(snapshots), name=backup_id, reason=_summary(snapshots))
            for backup_id, snapshots in backups.items()
        ) + tuple(
            present.Row(mark=present.NOTE, kind="", name=backup_id, reason="at Cloudly only")
            for backup_id in copied
            if backup_id not in backups
        )
        if rows:
            present.print_blocks(self.console, [present.Block(f"backups of {record.name}", rows)])
        if live is not None and (lease := read_lease(live.lease)) is not None and live.is_stopped:
            text = f"stopped by an unfinished restore; {help_for(record.name, lease, replicas_noted(live.labels[STOPPED]))}"
            row = present.Row(mark=present.PROBLEM, kind="stopped", name=record.name, reason=text)
            present.print_blocks(self.console, [present.Block("problems", (row,))])
        example = _restore_command(record, rows[0].name, None) if rows else ""
        hint = f"To bring one back: {example}" if rows else f"There is no backup of {record.name} here."
        present.print_line(self.console, Text(clean(hint)))


@asynccontextmanager
async def _at_work(records: Path | None, output: Format) -> AsyncIterator[_Work]:
    """Open everything, and show how far it is."""
    settings = read_settings(need_records=records is None)
    console = console_for()
    async with open_ports(settings, records) as ports, journaled(settings) as recorder:
        with _watching(console, output) as watcher:
            bindings = Bindings(ports.corestores, ports.cloudly, ports.known)
            tools = ports.tools(bindings, watcher, recorder=recorder)
            operations = Operations(tools, owner=f"command-{uuid.uuid4().hex[:12]}", finish_orphans=False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operations.run)
                yield _Work(tools=tools, operations=operations, output=output, console=console)
                nursery.cancel_scope.cancel()


@contextmanager
def _watching(console: Console, output: Format) -> Iterator[Watcher]:
    """Steps as lines, and on a terminal a bar while something travels. Nothing beside JSON, or where quiet is wanted."""
    if output is not Format.TEXT or is_quiet():
        yield Unwatched()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal or console.is_dumb_terminal
    ) as progress:
        yield _Lines(console, progress)


class _Lines:
    """Prints steps, and keeps a bar up to date."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._bar = progress.add_task("", total=0, visible=False)
        self._total = 0

    def step(self, text: str) -> None:
        """One line; what travelled for the last step is over."""
        present.print_line(self._console, Text(f"  · {clean(text)}", "dim"))
        self._total = 0
        self._progress.reset(self._bar, total=0, visible=False, description=clean(text))

    def expect(self, size: int) -> None:
        """More to do."""
        self._total += size
        self._progress.update(self._bar, total=self._total, visible=self._total > 0)

    def moved(self, size: int) -> None:
        """More is done."""
        self._progress.advance(self._bar, size)


def _row(part: Part) -> present.Row:
    size = "" if part.size_bytes is None else f", {part.size_bytes:,} bytes"
    return present.Row(
        mark=present.PROBLEM if part.error else ("ok", "green"),
        kind="volume" if part.kind == VOLUME else part.kind,
        name=part.name if part.kind == VOLUME else part.binding_id,
        reason=part.error or f"snapshot {part.snapshot_id}{size}",
    )


def _copies(replication: Replication) -> present.Row:
    """Return how much of the archive is kept elsewhere."""
    sent = f"{replication.objects_uploaded} of {replication.objects_total} objects sent"
    there = "" if replication.error else ", the others were there"
    text = f"{sent}{there}; {replication.bytes_uploaded:,} bytes"
    return present.Row(
        mark=present.PROBLEM if replication.error else ("ok", "green"),
        kind="copies",
        name="at Cloudly",
        reason=f"{replication.error} ({text})" if replication.error else text,
    )


def _when(snapshots: list[Snapshot]) -> str:
    created = max(s.created_ms for s in snapshots) / 1000
    return f"{datetime.fromtimestamp(created, UTC):%Y-%m-%d %H:%M} UTC"


def _backup_json(backup_id: str, snapshots: list[Snapshot]) -> Json:
    return {
        "backupId": backup_id,
        "createdAt": max(s.created_ms for s in snapshots),
        "sizeBytes": _size(snapshots),
        "snapshots": [
            {"id": s.id, "kind": s.kind, "name": s.name, "sizeBytes": s.size_bytes} for s in snapshots
        ],
    }


def _size(snapshots: list[Snapshot]) -> int | None:
    """Return the bytes of all of them; None where a Corestore does not say."""
    sizes = [snapshot.size_bytes for snapshot in snapshots]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _summary(snapshots: list[Snapshot]) -> str:
    parts = ", ".join(sorted(f"{s.kind} {s.name}" if s.kind == VOLUME else s.kind for s in snapshots))
    size = _size(snapshots)
    return f"{parts}; size unknown" if size is None else f"{parts}; {size:,} bytes"
