"""`coreflow plan` and `coreflow apply`."""

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.journaled import journaled
from coreflow.app.cli.running import Format, Records, Strict, read_settings, run, say
from coreflow.app.cli.verbosity import is_quiet
from coreflow.app.journaling import NO_RECORDER, Recorder
from coreflow.app.peers import Ports, open_ports
from coreflow.app.reconcile import Listener, Reconciler, ReconcilerOptions
from coreflow.app.settings import Settings
from coreflow.app.streams import console_for, json_text
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.deploy.steps import Plan, PlanOptions
from coreflow.gc_pause import LARGE_CLUSTER, gc_paused

NO_BASE = (
    "base services are deployed unless COREFLOW_BASE_SERVICES leaves them out (empty: none of them); "
    "COREFLOW_CORETRAFFIC_IMAGE and its like name other images"
)
GOES_ON = "The time is up. Swarm goes on with what is unfinished; apply again to see how it ends."


def not_negative(_: object, value: float) -> None:
    """Raises ValueError if that is no number of seconds."""
    if not math.isfinite(value) or value < 0:
        raise ValueError("must be a number of seconds, 0 or more.")


Output = Annotated[
    Literal[Format.TEXT, Format.JSON],
    Parameter(name="--format", help="Output format: text, or JSON for programs."),
]
Events = Annotated[
    Format, Parameter(name="--format", help="Output format: text, JSON, or JSON lines while it happens.")
]
Flag = Parameter(negative=(), show_default=False)
Refresh = Annotated[bool, Flag, Parameter(help="Look up every image again, to notice tags that moved.")]
Retry = Annotated[bool, Flag, Parameter(help="Retry what Swarm has rolled back.")]
Detailed = Annotated[bool, Flag, Parameter(help="Exit with status 2 if something would change.")]
Confirm = Annotated[str | None, Parameter(help="The token of a refused removal, which confirms it.")]
Seconds = Annotated[float, Parameter(help="Seconds to wait until everything runs.", validator=not_negative)]


def plan(
    records: Records = None,
    *,
    format: Output = Format.TEXT,  # noqa: A002 - the option's name
    detailed_exitcode: Detailed = False,
    refresh: Refresh = False,
    retry_failed: Retry = False,
    strict: Strict = False,
) -> int:
    """Show what an apply would do, and why. Writes nothing.

    Exit status: 0; 1 when a record is rejected or held, a roll-out has failed, a service is crash-looping, a removal needs a confirmation, or the
    file or the engine cannot be read. With --detailed-exitcode, 0 means nothing to do, and 2 that something would change.
    """

    async def command() -> int:
        settings = read_settings(need_records=records is None, strict=strict)
        options = attrs.evolve(settings.plan_options, retry_failed=retry_failed)
        async with open_ports(settings, records) as ports:
            reconcile_state = await _reconciler(ports, settings, options).look(refresh=refresh)
            with gc_paused(enabled=len(reconcile_state.desired.services) >= LARGE_CLUSTER):
                show_plan(reconcile_state, format, confirm=_apply_command(records))
                return plan_status(reconcile_state, detailed=detailed_exitcode)

    return run(command, format)


def apply(
    records: Records = None,
    *,
    timeout: Seconds = 300.0,
    format: Events = Format.TEXT,  # noqa: A002 - the option's name
    confirm_removal: Confirm = None,
    refresh: Refresh = False,
    retry_failed: Retry = False,
    strict: Strict = False,
) -> int:
    """Carry out the plan, and wait until everything runs.

    Exit status: 0 only if every service runs as its record says; 1 with the reasons if not; 130 or 143 when stopped by
    Ctrl-C or SIGTERM. Stopping it at any moment is safe: the next apply goes on.
    """

    from coreflow.app.cli.progress import listening

    async def command() -> int:
        settings = read_settings(need_records=records is None, strict=strict)
        confirmed = confirm_removal or settings.plan_options.confirmed
        options = attrs.evolve(settings.plan_options, retry_failed=retry_failed, confirmed=confirmed)
        console = console_for()
        async with open_ports(settings, records) as ports, journaled(settings) as recorder:
            with listening(console, format) as listener:
                reconciler = _reconciler(ports, settings, options, listener, recorder)
                reconcile_result = await reconciler.deploy(timeout=timeout, refresh=refresh)
            wrong = present.wrong_token(reconcile_result, confirm_removal)
            confirm = _apply_command(records)
            show_result(reconcile_result, format, console, confirm=confirm, wrong_token=wrong)
        return 0 if reconcile_result.is_stable and not wrong else 1

    return run(command, format, hosted=True)


def plan_status(reconcile_state: ReconcileState, *, detailed: bool) -> int:
    """The exit status of a plan."""
    if not reconcile_state.plan.is_clean or reconcile_state.crash_loops:
        return 1
    changes = reconcile_state.plan.steps or reconcile_state.plan.waits
    return 2 if detailed and changes else 0


def _apply_command(records: Path | None) -> str:
    """Return what to type to apply the same records."""
    return "coreflow apply" + ("" if records is None else f" --records {shlex.quote(str(records))}")


def _reconciler(
    ports: Ports,
    settings: Settings,
    options: PlanOptions,
    listener: Listener | None = None,
    recorder: Recorder = NO_RECORDER,
) -> Reconciler:
    return Reconciler(
        ports.cloudly,
        ports.docker,
        ports.corestores,
        render=settings.render_options,
        plan=options,
        listener=listener,
        options=ReconcilerOptions(
            known=ports.known, settle_seconds=settings.settle_seconds, recorder=recorder
        ),
    )


def show_plan(
    reconcile_state: ReconcileState,
    output: Format,
    console: Console | None = None,
    *,
    confirm: str = "coreflow apply",
) -> None:
    """Print a plan. `confirm` is the command that takes the token of a refusal."""
    if output is not Format.TEXT:
        write_json(present.plan_json(reconcile_state))
        return
    console = console or console_for()
    plan, loops = reconcile_state.plan, reconcile_state.crash_loops
    if is_quiet():
        plan = attrs.evolve(plan, notes=present.explaining(plan))
    blocks = present.plan_blocks(plan, loops, confirm=confirm)
    told = {"notes", present.PROBLEMS}
    present.print_blocks(console, (b for b in blocks if b.heading in told or not is_quiet()))
    present.print_line(console, present.plan_summary(plan, loops))
    _say_hint(plan)


def show_result(
    reconcile_result: ReconcileResult,
    output: Format,
    console: Console,
    *,
    confirm: str = "coreflow apply",
    wrong_token: str = "",
) -> None:
    """Print how an apply ended. `confirm` is the command that takes the token of a refusal; `wrong_token`, what is wrong with one."""
    if output is not Format.TEXT:
        document = present.result_json(reconcile_result)
        if wrong_token:
            document |= {"settled": False, "wrong_token": wrong_token}
        if output is Format.JSONL:
            from coreflow.app.cli.events import write_event

            write_event("result", document)
        else:
            write_json(document)
        return
    problems = list(present.result_problems(reconcile_result, confirm))
    if wrong_token:
        problems.append(present.problem_row("refused", "removal", wrong_token))
    plan = reconcile_result.last.plan
    notes = tuple(map(present.note_row, present.explaining(plan) if is_quiet() else plan.notes))
    blocks = [present.Block("notes", notes), present.Block(present.PROBLEMS, tuple(problems))]
    if reconcile_result.applied or problems or notes:
        console.print()
    present.print_blocks(console, [block for block in blocks if block.rows])
    present.print_line(console, present.result_summary(reconcile_result))
    if reconcile_result.pending:
        present.print_line(console, Text(GOES_ON, style="dim"))
    _say_hint(plan)


def _say_hint(plan: Plan) -> None:
    """Say how to do without base services, where their images cannot be had."""
    if present.lacks_base_images(plan) and not is_quiet():
        say(f"hint: {NO_BASE}")


def write_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json_text(document, indent=2) + "\n")
    sys.stdout.flush()
