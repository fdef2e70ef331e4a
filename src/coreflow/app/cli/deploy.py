"""`coreflow plan` and `coreflow apply`."""

import json
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.running import Format, failing, read_settings, run
from coreflow.app.main import open_ports
from coreflow.app.reconcile import Listener, Quiet, Reconciler, Settlement, Situation
from coreflow.app.settings import Settings
from coreflow.domain.convergence import Verdict
from coreflow.domain.plan import Plan, PlanOptions
from coreflow.domain.report import Outcome

Records = Annotated[
    Path | None, Parameter(help="Cluster file, YAML or JSON. Default: what CLOUDLY_URL names.")
]
Output = Annotated[Format, Parameter(name="--format", help="text for people, json for programs.")]
Refresh = Annotated[
    bool, Parameter(negative=(), help="Look up every image again, to notice tags that moved.")
]
Retry = Annotated[bool, Parameter(negative=(), help="Try specs again that were rolled back.")]
Confirm = Annotated[str | None, Parameter(help="The word that confirms the removals that were refused.")]


def plan(
    *,
    records: Records = None,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
    detailed_exitcode: Annotated[
        bool, Parameter(negative=(), help="Exit with 2 where something would change.")
    ] = False,
    refresh: Refresh = False,
    retry_failed: Retry = False,
) -> int:
    """Show what an apply would do, and why. Writes nothing.

    Exit status: 0, or 1 when something is wrong with a record or a far side. With --detailed-exitcode 0 means nothing to
    do and 2 that something would change.
    """
    settings = failing(partial(read_settings, need_records=records is None), format)
    if isinstance(settings, int):
        return settings
    options = attrs.evolve(settings.plan_options, retry_failed=retry_failed)

    async def command() -> int:
        async with open_ports(settings, records) as ports:
            reconciler = _reconciler(ports, settings, options)
            situation = await reconciler.look(refresh=refresh)
        show_plan(situation, format)
        if not situation.plan.is_clean:
            return 1
        changes = situation.plan.steps or situation.plan.waits
        return 2 if detailed_exitcode and changes else 0

    return run(command, format)


def apply(
    *,
    records: Records = None,
    timeout: Annotated[float, Parameter(help="Seconds to wait until everything runs.")] = 300.0,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
    confirm_removal: Confirm = None,
    refresh: Refresh = False,
    retry_failed: Retry = False,
) -> int:
    """Do what the plan says, and wait until it runs.

    Exit status: 0 only if every service runs as its record says; 1 with the reasons if not.
    """
    settings = failing(partial(read_settings, need_records=records is None), format)
    if isinstance(settings, int):
        return settings
    options = attrs.evolve(
        settings.plan_options,
        retry_failed=retry_failed,
        confirmed=confirm_removal or settings.plan_options.confirmed,
    )

    async def command() -> int:
        console = Console(highlight=False)
        async with open_ports(settings, records) as ports:
            with listening(console, format) as listener:
                reconciler = _reconciler(ports, settings, options, listener)
                settlement = await reconciler.deploy(timeout=timeout, refresh=refresh)
        show_settlement(settlement, format, console)
        return 0 if settlement.is_settled else 1

    return run(command, format)


def _reconciler(
    ports: Any, settings: Settings, options: PlanOptions, listener: Listener | None = None
) -> Reconciler:
    return Reconciler(
        ports.cloudly, ports.docker, render=settings.render_options, plan=options, listener=listener
    )


def show_plan(situation: Situation, output: Format, console: Console | None = None) -> None:
    """Print a plan."""
    if output is Format.JSON:
        write_json(present.plan_json(situation))
        return
    console = console or Console(highlight=False)
    present.print_blocks(console, present.plan_blocks(situation.plan))
    present.print_line(console, present.plan_summary(situation.plan))


def show_settlement(settlement: Settlement, output: Format, console: Console) -> None:
    """Print how an apply ended."""
    if output is Format.JSON:
        write_json(present.settlement_json(settlement))
        return
    problems = tuple(present.settlement_problems(settlement))
    if problems:
        present.print_blocks(console, [present.Block("problems", problems)])
    present.print_line(console, present.settlement_summary(settlement))


def write_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def listening(console: Console, output: Format) -> Any:
    """The listener that shows progress: bars on a terminal, lines elsewhere, nothing for JSON."""
    if output is Format.JSON:
        yield Quiet()
    elif console.is_terminal:
        bars = Bars(console)
        with bars.live:
            yield bars
    else:
        yield Lines(console)


class Lines:
    """Progress as plain lines: one per action, one per service whenever its state changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, str] = {}
        self._touched: set[str] = set()

    def planned(self, plan: Plan) -> None:
        """Nothing: the actions follow."""

    def applied(self, outcome: Outcome) -> None:
        """One line."""
        self._touched.add(outcome.step.unit)
        present.print_line(self._console, present.outcome_text(outcome))

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """One line per service that changed, once something was done at all."""
        for name, verdict in verdicts.items():
            text = present.state_text(verdict)
            if self._said.get(name) == text or (not self._said.get(name) and verdict.done):
                continue
            self._said[name] = text
            present.print_line(self._console, Text(f"  {name}: {present.clean(text)}"))


class Bars:
    """Progress on a terminal: actions scroll by, one bar per service that is not there yet."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f} of {task.total:.0f} running"),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=console,
        )
        self.live = Live(self._progress, console=console, refresh_per_second=8)

    def planned(self, plan: Plan) -> None:
        """Nothing: the actions follow."""

    def applied(self, outcome: Outcome) -> None:
        """One line above the bars."""
        present.print_line(self._console, present.outcome_text(outcome))

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """Move the bars; a service that runs from the start gets none."""
        for name, verdict in verdicts.items():
            if name not in self._bars:
                if verdict.done:
                    continue
                self._bars[name] = self._progress.add_task(name, total=verdict.wanted, detail="")
            detail = Text("✓") if verdict.done else Text(present.clean(verdict.detail))
            self._progress.update(
                self._bars[name],
                completed=verdict.running,
                total=max(verdict.wanted, 1),
                detail=detail.plain[:60],
            )
