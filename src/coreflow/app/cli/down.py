"""`coreflow down`."""

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.asking import is_anybody_there, is_meant
from coreflow.app.cli.deploy import Flag, Output, not_negative, write_json
from coreflow.app.cli.journaled import journaled
from coreflow.app.cli.running import Format, read_settings, run
from coreflow.app.cli.verbosity import is_quiet
from coreflow.app.peers import open_docker
from coreflow.app.streams import console_for
from coreflow.app.teardown import Removed, TearDown, tear_down
from coreflow.domain.deploy.steps import kind_of, name_of
from coreflow.domain.deploy.teardown import Left, Teardown, clusters_of, plan_teardown
from coreflow.domain.errors import Refused
from coreflow.domain.ids import ClusterId
from coreflow.domain.swarm.naming import WRITER
from coreflow.domain.swarm.observed import Observed

STAYS = "What stays: volumes, images, what Corestore and the control plane keep, and everything that coreflow did not make."
Cluster = Annotated[
    str | None, Parameter(help="Id of the cluster. Default: the only one that coreflow made something for.")
]
Yes = Annotated[bool, Flag, Parameter(help="Do not ask.")]
Confirm = Annotated[str | None, Parameter(help="Do not ask if exactly what this word stands for goes.")]
Wait = Annotated[
    float,
    Parameter(
        help="Seconds to wait for a coreflow that is ending, and again until the last container has stopped.",
        validator=not_negative,
    ),
]


def down(
    *,
    cluster: Cluster = None,
    yes: Yes = False,
    confirm_removal: Confirm = None,
    timeout: Wait = 60.0,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
) -> int:
    """Remove everything that coreflow made for a cluster: services, then secrets and networks. Data stays.

    Needs no records, only the engine. Shows what goes and what stays, and asks. Stop the daemon first: it would make
    everything again. Exit status: 0 if nothing is left that should be gone, else 1.
    """

    async def command() -> int:
        console = console_for()
        settings = read_settings(need_records=False)
        async with open_docker(settings) as docker, journaled(settings) as recorder:
            observed = await docker.observe()
            plan = plan_teardown(observed, chosen(observed, cluster))
            is_text = format is Format.TEXT
            if is_text:
                show_teardown(plan, console, asks=not yes and confirm_removal is None)
            _check(plan)
            if plan.removals:
                await _confirm(plan, yes=yes, word=confirm_removal, may_ask=is_text)

            def tell(removed: Removed) -> None:
                if is_text:
                    show_removed(removed, console)

            result = await tear_down(docker, plan, tell, timeout=timeout, recorder=recorder)
        if is_text:
            present.print_line(console, summary(result))
        else:
            write_json(document(plan, result))
        return 0 if result.is_done else 1

    return run(command, format)


def chosen(observed: Observed, wanted: str | None) -> ClusterId:
    """The cluster to take down. Raises Refused where it is not clear which, or not there."""
    found = clusters_of(observed)
    if wanted is None and len(found) > 1:
        raise Refused(
            f"several clusters have something in this Swarm, name one with --cluster: {', '.join(found)}"
        )
    if wanted is not None and wanted not in found:
        there = ", ".join(found) or "there is none"
        raise Refused(f"nothing in this Swarm belongs to a cluster {wanted!r} (clusters: {there})")
    return ClusterId(wanted) if wanted is not None else (found[0] if found else ClusterId(""))


def _check(plan: Teardown) -> None:
    """Raises Refused while a coreflow runs."""
    if plan.daemons:
        names = ", ".join(plan.daemons)
        raise Refused(
            f"coreflow runs as service {names} and would make everything again: remove that first"
            " (docker stack rm, docker service rm)"
        )


async def _confirm(plan: Teardown, *, yes: bool, word: str | None, may_ask: bool) -> None:
    """Return if it is meant. Raises Refused."""
    if word is not None:
        if word != plan.token:
            raise Refused(f"{word!r} does not stand for what would be removed now, which is {plan.token}")
        return
    if yes:
        return
    if not (may_ask and is_anybody_there()):
        raise Refused(
            f"nothing was removed: there is nobody to ask. --yes, or --confirm-removal {plan.token}, is an answer"
        )
    if not await is_meant("Remove all this?"):
        raise Refused("nothing was removed")


def show_teardown(plan: Teardown, console: Console, *, asks: bool = False) -> None:
    """Print what goes and what stays; quietly, only where somebody is asked whether that is meant, and problems."""
    is_short = is_quiet() and not asks
    mark = present.MARKS["remove"]
    going = [present.Row(mark=mark, kind=kind_of(r), name=name_of(r), reason=r.reason) for r in plan.removals]
    blocks = [
        present.Block(heading, tuple(rows))
        for heading, rows in (
            (f"cluster {plan.cluster}" if plan.cluster else "no cluster", going),
            ("stays", [_row(left, present.NOTE) for left in plan.left]),
            (present.PROBLEMS, [_row(left, present.PROBLEM) for left in plan.restoring]),
        )
        if rows and (heading == present.PROBLEMS or not is_short)
    ]
    if blocks:
        present.print_blocks(console, blocks)
    if not plan.removals:
        present.print_line(console, Text("Nothing to remove.", "bold"))
    elif not is_short:
        present.print_line(console, Text(STAYS, "dim"))


def _row(left: Left, mark: tuple[str, str]) -> present.Row:
    return present.Row(mark=mark, kind=left.kind, name=left.name, reason=left.reason)


def show_removed(removed: Removed, console: Console) -> None:
    """Print what became of one object; quietly, only if something is wrong."""
    if removed.problem or not is_quiet():
        present.print_line(console, told_of(removed))


def told_of(removed: Removed) -> Text:
    """One line about one object."""
    mark, style = present.PROBLEM if removed.problem else present.MARKS["remove"]
    text = removed.problem or f"{removed.kind} {removed.name} removed"
    return Text(f"  {mark} {text}", style)


def summary(result: TearDown) -> Text:
    """Say how it ended, in one line."""
    gone = sum(not removed.problem for removed in result.removed)
    text = f"{gone} removed."
    last = result.last
    if last is not None and last.removals:
        names = ", ".join(f"{kind_of(r)} {name_of(r)}" for r in last.removals)
        text += f" Not removed, or made again: {names}."
        writers = sorted({w for r in last.services if (w := r.target.labels.get(WRITER))})
        text += f" Written by {', '.join(writers)}: is that a coreflow that runs?" if writers else ""
    if last is not None and last.restoring:
        text += f" {len(last.restoring)} being restored: not removed."
    if not result.is_over:
        text += " Some containers have not ended yet."
    return Text(text, "bold" if result.is_done else "bold red")


def document(plan: Teardown, result: TearDown) -> present.Json:
    """The whole as JSON."""
    last = result.last
    return {
        "cluster": plan.cluster,
        "removed": [{"kind": r.kind, "name": r.name, "problem": r.problem or None} for r in result.removed],
        "left": [
            {"kind": left.kind, "name": left.name, "reason": left.reason}
            for left in (*plan.left, *(last.restoring if last is not None else ()))
        ],
        "done": result.is_done,
    }
