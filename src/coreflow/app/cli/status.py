"""`coreflow status`."""

from collections.abc import Iterator
from typing import Annotated

import trio
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from coreflow.app import status_document
from coreflow.app.cli import present
from coreflow.app.cli.deploy import Flag, Output
from coreflow.app.cli.looking import Seen, no_such_service, see
from coreflow.app.cli.running import Format, Records, run
from coreflow.app.cli.verbosity import is_quiet
from coreflow.app.streams import console_for
from coreflow.domain.status.model import CurrentProblem, ServiceStatus, State, Status

WATCH_SECONDS = 2.0
"""Between two looks."""
Name = Annotated[
    str | None, Parameter(help="The service, by its name or the id of its record. Default: all.")
]
Watch = Annotated[bool, Flag, Parameter(help="Show it again whenever it changes, until Ctrl-C.")]
All = Annotated[bool, Flag, Parameter(name="--all", help="List services that are as desired, too.")]

_ROUTES_SHOWN = 5
_MARKS = {"as desired": ("✓", "green"), "rolling out": ("~", "yellow"), "waiting": present.WAITING}
_WRONG = ("✗", "bold red")
_STEP = ("→", "cyan")
_VERDICTS = {"as desired": "green", "under way": "yellow", "degraded": "bold red", "unknown": "bold magenta"}


def status(
    service: Name = None,
    /,
    *,
    records: Records = None,
    watch: Watch = False,
    everything: All = False,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """Show what runs, what is wrong, since when, and what to do about it. Writes nothing.

    Asks the daemon on this machine (COREFLOW_ADMIN_LISTEN). Where none runs, or with --records, it looks by itself, and
    says so. Exit status: 0 if everything is as desired or under way; 1 if there is a problem, or nobody knows.
    """

    async def command() -> int:
        console, shown = console_for(), ""
        while True:
            seen = await see(records)
            found = seen.status if service is None else seen.status.of(service)
            if found is None:
                raise no_such_service(service or "")
            shown = _show(console, seen, found, format, shown, everything=everything or service is not None)
            if not watch:
                return status_of(found)
            await trio.sleep(WATCH_SECONDS)

    return run(command, format)


def status_of(found: Status) -> int:
    """The exit status."""
    return 0 if found.verdict in {"as desired", "under way"} else 1


def _show(
    console: Console, seen: Seen, found: Status, output: Format, shown: str, *, everything: bool
) -> str:
    """Print it, unless it was shown already. A terminal has one screen, always the newest. Returns what counts as the same."""
    document = status_document.write(found, indented=True)
    same = _without_times(document)
    is_screen = output is Format.TEXT and console.is_terminal and not console.is_dumb_terminal
    if same == shown and not is_screen:
        return shown
    if output is not Format.TEXT:
        console.file.write(document + "\n")
    else:
        if is_screen and shown:
            console.clear()
        show(console, found, seen.by, everything=everything)
    console.file.flush()
    return same


def _without_times(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if '"time"' not in line and '"checked"' not in line)


def show(console: Console, found: Status, by: str, *, everything: bool = False) -> None:
    """Print one screen: the verdict, problems, what is under way, and the rest in numbers."""
    present.print_line(console, _headline(found, by))
    blocks = [*_problem_blocks(found), *_service_blocks(found, everything=everything)]
    if blocks:
        console.print()
        present.print_blocks(console, blocks, indent=0)
    for line in () if is_quiet() else _rest(found):
        present.print_line(console, Text(line))


def _headline(found: Status, by: str) -> Text:
    text = Text(found.cluster or "cluster", style="bold")
    text.append(
        f" · {len(found.services)} service{'' if len(found.services) == 1 else 's'} · ", style="not bold"
    )
    text.append(found.verdict, style=_VERDICTS[found.verdict])
    checked = found.checked.services
    when = f"checked {ago(found.time, checked)} ago" if checked is not None else "never checked"
    return text.append(f" · {when} {by}", style="not bold")


def ago(now: float, then: float) -> str:
    """`12 s`, `5 min`, `3 h`, `4 days`: how long ago, in the largest unit of which there are at least two."""
    seconds = max(now - then, 0.0)
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _problem_blocks(found: Status) -> Iterator[present.Block]:
    rows = tuple(row for problem in found.problems for row in problem_rows(problem, found.time))
    if rows:
        number = len(found.problems)
        yield present.Block(f"{number} problem{'' if number == 1 else 's'}", rows)


def problem_rows(problem: CurrentProblem, now: float) -> Iterator[present.Row]:
    """One problem with its age, whom it concerns, and the next step."""
    one = len(problem.subjects) == 1
    yield present.Row(
        mark=_WRONG,
        kind=problem.kind,
        name=problem.subjects[0] if one else f"{len(problem.subjects)} services",
        reason=f"{problem.cause} (since {ago(now, problem.since)})",
    )
    if not one:
        yield present.Row(mark=("", ""), kind="", name="", reason=", ".join(problem.subjects))
    yield present.Row(mark=_STEP, kind="", name="", reason=problem.next_step)


def _service_blocks(found: Status, *, everything: bool) -> Iterator[present.Block]:
    problems = {subject for problem in found.problems for subject in problem.subjects}
    moving = [s for s in found.services if s.state != "as desired" and s.name not in problems]
    if found.verdict == "unknown" and not everything:
        moving = []
    if moving:
        heading = "unknown" if found.verdict == "unknown" else "under way"
        yield present.Block(heading, tuple(service_row(s, found.time) for s in moving))
    if everything:
        rest = [s for s in found.services if s not in moving]
        yield present.Block("services", tuple(service_row(s, found.time) for s in rest))


def service_row(service: ServiceStatus, now: float) -> present.Row:
    """`✓ as desired  web  2 of 2  registry.example/web:1.2`."""
    count = f"{service.running} of {service.wanted}"
    detail = service.cause or service.image
    is_said = detail.startswith(count) or not service.wanted
    since = f" (since {ago(now, service.since)})" if service.since is not None else ""
    text = f"{detail}{since}" if is_said else f"{count} running; {detail}{since}"
    return present.Row(mark=mark_of(service.state), kind=service.state, name=service.name, reason=text)


def mark_of(state: State) -> tuple[str, str]:
    """A shape and a colour for a state."""
    return _MARKS.get(state, _WRONG if state != "unknown" else ("?", "magenta"))


def _rest(found: Status) -> Iterator[str]:
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found.counts.items(), key=_by_number))
    parts = [counts] if counts else []
    if found.hosts:
        routed = sum(host.is_routed for host in found.hosts)
        parts.append(f"routes {routed} of {len(found.hosts)}")
    if parts:
        yield " · ".join(parts)
    peers = [
        f"{c.peer}{' ' + c.where if c.where else ''} {'up' if c.is_up else 'down'} {ago(found.time, c.since)}"
        for c in found.connections
    ]
    if peers:
        yield " · ".join(peers)
    yield from (
        f"{operation.kind} of {operation.service_id} {operation.state} {ago(found.time, operation.since)} ago"
        for operation in found.operations
    )


def _by_number(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]
