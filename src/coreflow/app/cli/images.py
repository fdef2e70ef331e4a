"""`coreflow images`."""

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.deploy import Flag, Output, write_json
from coreflow.app.cli.journaled import journaled
from coreflow.app.cli.running import Format, Records, read_settings, run
from coreflow.app.cli.verbosity import is_quiet
from coreflow.app.journaling import NO_RECORDER, Recorder
from coreflow.app.peers import open_ports
from coreflow.app.settings import Settings
from coreflow.app.streams import console_for
from coreflow.domain.deploy.leftovers import LoadedImage, leftovers
from coreflow.domain.errors import PortError
from coreflow.domain.ports import DockerPort

Prune = Annotated[bool, Flag, Parameter(help="Remove them.")]
Outcomes = dict[LoadedImage, str | None]
"""Why an image could not be removed, or nothing."""


def images(records: Records = None, *, prune: Prune = False, format: Output = Format.TEXT) -> int:  # noqa: A002 - the option's name
    """List the images on this engine that were loaded from archives and that nothing needs any more.

    Needed is what a record asks for, what a service runs or ran before its last change, and what a container is made
    from. Exit status: 0 unless one could not be removed.
    """

    async def command() -> int:
        found, removed = await _look(read_settings(need_records=records is None), records, prune=prune)
        if format is Format.JSON:
            write_json(_document(found, removed))
        else:
            _print(console_for(), found, removed)
        return 1 if removed is not None and any(removed.values()) else 0

    return run(command, format, hosted=True)


async def _look(
    settings: Settings, records: Path | None, *, prune: bool
) -> tuple[tuple[LoadedImage, ...], Outcomes | None]:
    """Return what is left over, and, with `prune`, what became of it."""
    async with open_ports(settings, records) as ports, journaled(settings) as recorder:
        wanted = await ports.cloudly.records()
        loaded = (
            await ports.docker.images()
        )  # before the observation: what comes to be needed meanwhile is seen
        found = leftovers(wanted, await ports.docker.observe(), loaded)
        return found, await remove(ports.docker, found, recorder) if prune else None


async def remove(
    docker: DockerPort, images: tuple[LoadedImage, ...], recorder: Recorder = NO_RECORDER
) -> Outcomes:
    """Remove images, one after the other; one that cannot be removed keeps no other."""
    outcomes: Outcomes = {}
    for image in images:
        try:
            await recorder.removal(image.reference, partial(docker.remove_image, image.reference))
        except PortError as exc:
            outcomes[image] = str(exc)
        else:
            outcomes[image] = None
    return outcomes


def _document(found: tuple[LoadedImage, ...], removed: Outcomes | None) -> present.Json:
    return {
        "images": [
            {
                "reference": image.reference,
                "id": image.id,
                "size": image.size,
                "removed": removed is not None and removed[image] is None,
                "problem": None if removed is None else removed[image],
            }
            for image in found
        ]
    }


def _print(console: Console, found: tuple[LoadedImage, ...], removed: Outcomes | None) -> None:
    told = found
    if removed is not None and is_quiet():
        told = tuple(image for image in found if removed[image] is not None)
    rows = tuple(_row(image, removed) for image in told)
    present.print_blocks(console, [present.Block("images", rows)] if rows else [])
    size = sum(image.size for image in found)
    count = f"{len(found)} image{'' if len(found) == 1 else 's'}"
    if removed is not None:
        gone = sum(problem is None for problem in removed.values())
        text = f"{gone} of {count} removed." if found else "Nothing to remove."
    else:
        text = (
            f"{count} that nothing needs, {size:,} bytes; --prune removes them."
            if found
            else "Every image is needed."
        )
    present.print_line(console, Text(text, "bold"))


def _row(image: LoadedImage, removed: Outcomes | None) -> present.Row:
    problem = None if removed is None else removed[image]
    if problem is not None:
        return present.Row(mark=present.PROBLEM, kind="image", name=image.reference, reason=problem)
    mark = ("·", "dim") if removed is None else ("-", "red")
    return present.Row(mark=mark, kind="image", name=image.reference, reason=f"{image.size:,} bytes")
