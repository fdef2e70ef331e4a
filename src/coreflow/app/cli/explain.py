"""`coreflow explain`."""

from collections.abc import Iterator
from typing import Annotated

from attrs import asdict
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from coreflow.app import status_document
from coreflow.app.cli import present
from coreflow.app.cli.deploy import Output
from coreflow.app.cli.looking import see_service
from coreflow.app.cli.running import Format, Records, run
from coreflow.app.cli.status import ago, mark_of, problem_rows, service_row
from coreflow.app.streams import console_for
from coreflow.domain.status.explain import Explanation, Side, TaskStatus
from coreflow.domain.status.model import HostStatus

_PLAIN = ("", "")
_ENDED = ("✗", "bold red")
_RUNS = ("✓", "green")


def explain(
    service: Annotated[str, Parameter(help="The service, by its name or the id of its record.")],
    /,
    *,
    records: Records = None,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """Show one service from its record to its tasks, and why it is as it is. Writes nothing.

    Asks the daemon on this machine, or looks by itself, as `status` does. Exit status: 0 if the service is as desired or
    under way, else 1.
    """

    async def command() -> int:
        found = await see_service(service, records)
        if format is Format.TEXT:
            show(console_for(), found)
        else:
            console = console_for()
            console.file.write(status_document.write(found, indented=True) + "\n")
        return 1 if found.problems else 0

    return run(command, format)


def show(console: Console, found: Explanation) -> None:
    """Print everything about one service."""
    head = Text(found.service.name, style="bold")
    head.append(f" · {found.service.state}", style=f"{mark_of(found.service.state)[1]} not bold")
    present.print_line(
        console, head.append(f" · checked {ago(found.time, found.looked)} ago", style="not bold")
    )
    console.print()
    present.print_blocks(console, _blocks(found), indent=0)


def _blocks(found: Explanation) -> Iterator[present.Block]:
    if found.problems:
        rows = tuple(row for problem in found.problems for row in problem_rows(problem, found.time))
        yield present.Block("problems", rows)
    yield present.Block("service", (service_row(found.service, found.time),))
    yield present.Block("record → spec → live", tuple(_chain(found)))
    if found.tasks:
        yield present.Block("tasks", tuple(_task(task, found.time) for task in found.tasks))
    if found.hosts:
        yield present.Block("routes", tuple(_host(host, found.time) for host in found.hosts))
    others = tuple(_others(found))
    if others:
        yield present.Block("bindings and backups", others)


def _row(kind: str, reason: str) -> present.Row:
    return present.Row(mark=_PLAIN, kind=kind, name="", reason=reason)


def _chain(found: Explanation) -> Iterator[present.Row]:
    yield _row("record", f"{found.service.record}: {found.record}")
    spec, live = found.spec, found.live
    yield _row("spec", _side(spec) if spec is not None else "none")
    if live is None:
        yield _row("live", "it is not in the Swarm")
    else:
        written = f" (written {ago(found.time, found.written)} ago)" if found.written is not None else ""
        yield _row("live", ("the same" if live == spec else _unlike(live, spec)) + written)
    for text in found.differences:
        yield _row("differs", text)
    yield _row("decision", found.decision)


def _side(side: Side) -> str:
    return "; ".join(f"{name} {text}" for name, text in _texts(side).items())


def _unlike(live: Side, spec: Side | None) -> str:
    """The members of the live service that are not those of the spec; all without a spec."""
    wanted = _texts(spec) if spec is not None else {}
    return "; ".join(f"{name} {text}" for name, text in _texts(live).items() if wanted.get(name) != text)


def _texts(side: Side) -> dict[str, str]:
    """Names and texts of the members that say something."""
    found = {
        name: ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
        for name, value in asdict(side).items()
    }
    if side.replicas is None:
        found["replicas"] = "one on every node that fits"
    return {name: text for name, text in found.items() if text}


def _task(task: TaskStatus, now: float) -> present.Row:
    place = " ".join(filter(None, (task.node, "" if task.slot is None else f"slot {task.slot}")))
    old = "" if task.is_current else ", of an earlier spec"
    error = f": {task.error}" if task.error else ""
    return present.Row(
        mark=_RUNS if task.state == "running" else _ENDED if task.error else present.WAITING,
        kind=task.state,
        name=task.id[:12],
        reason=f"{place or 'no node'}, {ago(now, task.since)} ago{old}{error}",
    )


def _host(host: HostStatus, now: float) -> present.Row:
    if not host.is_routed:
        return present.Row(mark=_ENDED, kind="not routed", name=host.host, reason=host.cause)
    days = f"{max((host.expires or now) - now, 0) / 86_400:.0f} days"
    tasks = f"{host.tasks} task{'' if host.tasks == 1 else 's'} at port {host.port}"
    return present.Row(
        mark=_RUNS, kind="routed", name=host.host, reason=f"{tasks}; certificate of {host.issuer} for {days}"
    )


def _others(found: Explanation) -> Iterator[present.Row]:
    for binding in found.bindings:
        error = f": {binding.error}" if binding.error else ""
        yield _row(binding.capability, f"{binding.id} {binding.state}{error}")
    for operation in found.operations:
        error = f": {operation.error}" if operation.error else ""
        when = ago(found.time, operation.since)
        yield _row(operation.kind, f"{operation.backup_id} {operation.state} {when} ago{error}")
