"""`coreflow history`."""

import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import trio
from attrs import evolve
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.running import Format, read_settings, run
from coreflow.app.journaling import follow as following
from coreflow.app.settings import Settings
from coreflow.app.settings.parsers import Address
from coreflow.app.streams import clean, console_for, json_text
from coreflow.app.telling import told, told_all
from coreflow.domain.errors import PreconditionFailed, Unavailable
from coreflow.domain.journal import (
    FEW_ENTRIES,
    MOST_ENTRIES,
    Entry,
    History,
    Query,
    Record,
    document,
    history_document,
    history_in,
    moment_in,
    query_text,
)

ANSWER_SECONDS = 4.0
_AGO = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FINE = frozenset({"applied", "completed"})
_MARKS = {
    "create": "+",
    "update": "~",
    "recreate": "-/+",
    "remove": "-",
    "mark failed": "!",
    "provision": "+",
    "deprovision": "-",
    "stop": "■",
    "start": "▶",
    "backup": "⇧",
    "restore": "⇩",
}

Service = Annotated[
    str, Parameter(help="Only what was done for this service, by name or id.", show_default=False)
]
Follow = Annotated[
    bool, Parameter(negative=(), show_default=False, help="Go on with what happens, until Ctrl-C.")
]
Since = Annotated[
    str | None,
    Parameter(help="Only what began since then: 90s, 30m, 12h, 7d ago, or a time (2026-11-30T08:00, UTC)."),
]
Limit = Annotated[int, Parameter(help=f"The last so many entries, {MOST_ENTRIES} at most.")]
Output = Annotated[
    Format, Parameter(name="--format", help="Output format: text, JSON, or JSON lines, one for each entry.")
]


def history(
    service: Service = "",
    /,
    *,
    follow: Follow = False,
    since: Since = None,
    limit: Limit = FEW_ENTRIES,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """Show what was done: when, to what, why, who asked, and what became of it.

    Asks the daemon on this machine, by its admin port, and reads the journal in COREFLOW_STATE_DIR where none answers. Says
    which it was. Exit status: 0, also where there is no entry.
    """

    async def command() -> int:
        query = asked_for(service, since, limit, time.time())  # noqa: TID251 - the edge
        if follow and format is Format.JSON:
            raise PreconditionFailed("--follow has no end, and so no JSON document: use --format jsonl")
        reader = await reader_of(read_settings(need_records=False))
        await show(reader, query, format, follows=follow)
        return 0

    return run(command, format)


def asked_for(service: str, since: str | None, limit: int, now: float) -> Query:
    """The question that the command line asks. Raises PreconditionFailed."""
    if not 1 <= limit <= MOST_ENTRIES:
        raise PreconditionFailed(f"--limit must be from 1 to {MOST_ENTRIES}")
    moment: float | None = 0.0
    if since is not None:
        ago = _AGO.fullmatch(since)
        moment = now - int(ago[1]) * _SECONDS[ago[2]] if ago is not None else moment_in(since)
    if moment is None:
        raise PreconditionFailed(
            "--since must be such as 90s, 30m, 12h, 7d, or a time as in 2026-11-30T08:00"
        )
    return Query(service=service, since=max(moment, 0.0), limit=limit)


class Daemon:
    """The journal of a daemon that runs."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.name = f"the daemon at {address}"

    async def read(self, query: Query) -> History:
        """The last entries that fit. Raises Unavailable."""
        from coreflow.adapters.probe import ask_json

        path = f"/api/v1/history?{urlencode(query_text(query))}"
        ask = partial(ask_json, self._address.host, self._address.port, path, ANSWER_SECONDS)
        status, answer = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        try:
            if status == 200:
                return history_in(answer)
        except (KeyError, TypeError, ValueError):
            pass
        raise Unavailable(f"what answers at {self._address} has no history (status {status})")


class File:
    """The journal in a file, whoever writes it."""

    def __init__(self, path: Path, why: str) -> None:
        self._path = path
        self.name = f"{path} ({why})"

    async def read(self, query: Query) -> History:
        """The last entries that fit. Raises Unavailable."""
        from coreflow.adapters.journal import read_file

        return await trio.to_thread.run_sync(partial(read_file, self._path, query), abandon_on_cancel=True)


async def reader_of(settings: Settings) -> Daemon | File:
    """The daemon, if one answers, or the file. Raises Unavailable where there is neither."""
    from coreflow.adapters.journal import FILE_NAME

    daemon = Daemon(settings.admin_listen)
    try:
        await daemon.read(Query(limit=1))
    except Unavailable as exc:
        if settings.state_dir is None:
            raise Unavailable(f"{exc}, and COREFLOW_STATE_DIR is not set: there is no history") from exc
        return File(settings.state_dir / FILE_NAME, str(exc))
    return daemon


async def show(reader: Daemon | File, query: Query, output: Format, *, follows: bool) -> None:
    """Print what there is and, with `follows`, what comes."""
    console = console_for()
    first = await reader.read(query)
    if output is Format.JSON:
        said = {"source": reader.name, **history_document(first)}
        sys.stdout.write(json_text(told_all(said), indent=2) + "\n")
        return
    if output is Format.TEXT:
        present.print_line(console, Text(source_line(reader.name, first), style="dim"))
    _print(console, first, output)
    if follows:
        rest = evolve(query, after=first.last, limit=MOST_ENTRIES)
        async for found in following(reader, rest):
            _print(console, found, output)


def source_line(name: str, found: History) -> str:
    """Say where entries come from, and where they are kept."""
    kept = (
        f"kept in {found.kept}" if found.kept else "kept in memory only: COREFLOW_STATE_DIR is not set there"
    )
    if found.problem:
        kept = f"kept in memory for now, {found.kept} is not written: {found.problem}"
    return clean(told(f"from {name}" if found.kept and found.kept in name else f"from {name}, {kept}"))


def _print(console: Console, found: History, output: Format) -> None:
    """Print entries."""
    for record in found.records:
        if output is Format.JSONL:
            sys.stdout.write(json_text(told_all(document(record))) + "\n")
        else:
            present.print_line(console, entry_line(record.entry))
    sys.stdout.flush()
    if output is Format.TEXT and not found.records and not found.last:
        present.print_line(console, Text("Nothing has been done yet."))


def entry_line(entry: Entry) -> Text:
    """`2026-11-30 08:00:01  + create service shop  new  (file)`."""
    moment = document(Record(0, entry))["time"]
    is_fine = entry.outcome in _FINE
    line = Text(f"{moment[:10]} {moment[11:19]}  ", "dim")
    line.append(f"{_MARKS.get(entry.action, '·') if is_fine else '!':<3} ", "" if is_fine else "bold red")
    line.append(f"{entry.action} {entry.kind} {clean(entry.name)}", "bold")
    line.append(f"  {clean(told(entry.reason))}")
    if not is_fine:
        detail = f": {clean(told(entry.detail))}" if entry.detail else ""
        line.append(f"  {entry.outcome}{detail}", "red")
    elif entry.detail:
        line.append(f"; {clean(told(entry.detail))}")
    asked = ", ".join(entry.asked) or "nobody"
    return line.append(f"  ({asked}{f', pass {entry.pass_id}' if entry.pass_id else ''})", "dim")
