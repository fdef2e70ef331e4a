"""`coreflow check`."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.running import failing, read_settings, run
from coreflow.app.main import cloudly_for, open_docker
from coreflow.app.settings import Settings
from coreflow.domain.desired import Renderer
from coreflow.domain.errors import CoreflowError, PortError
from coreflow.domain.observed import Observed
from coreflow.domain.ports import DockerPort
from coreflow.domain.records import Records

OLDEST_API = (1, 41)
"""Docker Engine 20.10: the oldest that coreflow is tested with."""


@frozen
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    text: str


def check(
    *,
    records: Annotated[Path | None, Parameter(help="Cluster file. Default: what CLOUDLY_URL names.")] = None,
) -> int:
    """Check the settings, the engine, the records and the images' registries.

    Exit status: 0 if all is well, else 1.
    """
    settings = failing(partial(read_settings, need_records=records is None))
    if isinstance(settings, int):
        return settings
    console = Console(highlight=False)

    async def command() -> int:
        _print_settings(console, settings)
        well = True
        async for finding in _findings(settings, records):
            well = well and finding.ok
            mark, style = ("✓", "green") if finding.ok else ("✗", "bold red")
            line = Text("  ").append(mark, style=style).append(f" {finding.what.ljust(9)} ")
            present.print_line(console, line.append(present.clean(finding.text)))
        return 0 if well else 1

    return run(command)


def _print_settings(console: Console, settings: Settings) -> None:
    rows = settings.describe()
    width = max(len(row.name) for row in rows)
    for row in rows:
        line = Text("  ").append(row.name.ljust(width)).append(f"  {present.clean(row.value)}")
        line.append(f"  ({row.source})", style="dim")
        present.print_line(console, line)
    console.print()


async def _findings(settings: Settings, file: Path | None) -> AsyncIterator[Finding]:
    found: Records | None = None
    try:
        found = await cloudly_for(settings, file).records()
    except CoreflowError as exc:
        yield Finding("records", ok=False, text=str(exc))
    else:
        count = len(found.services)
        yield Finding("records", ok=True, text=f"cluster {found.cluster.id}, {count} service record(s)")
        for rejected in found.rejected:
            name = rejected.name or rejected.id or "without a name"
            yield Finding("record", ok=False, text=f"{rejected.kind} {name}: {'; '.join(rejected.reasons)}")
    async with open_docker(settings) as docker:
        try:
            version, api = await docker.version()
            observed = await docker.observe()
        except PortError as exc:
            yield Finding("engine", ok=False, text=str(exc))
            return
        enough = tuple(int(part) for part in api.split(".")) >= OLDEST_API
        oldest = ".".join(map(str, OLDEST_API))
        text = f"{version}, API {api}" + ("" if enough else f": too old, {oldest} or newer is needed")
        yield Finding("engine", ok=enough, text=text)
        yield Finding("manager", ok=True, text=f"a Swarm of {len(observed.nodes)} node(s)")
        if found is not None:
            async for finding in _images(settings, found, docker):
                yield finding


async def _images(settings: Settings, records: Records, docker: DockerPort) -> AsyncIterator[Finding]:
    """Every distinct image reference, as its registry answers."""
    for request in Renderer(settings.render_options).image_requests(records, Observed()):
        try:
            resolved = await docker.resolve(request)
        except PortError as exc:
            yield Finding("image", ok=False, text=str(exc))
        else:
            where = resolved.digest or "only on this engine"
            yield Finding("image", ok=True, text=f"{request.reference}: {where}")
