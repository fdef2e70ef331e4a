"""Plans and results as text for a person and as JSON for a program.

Text is made of lines: a mark, a verb's colour, aligned columns, the reason behind. On a terminal long reasons wrap into
their column; elsewhere every line stays whole, so that it can be searched. Nothing here knows a secret: plans carry
names and reasons only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import evolve, frozen
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from coreflow.app.streams import clean
from coreflow.app.telling import told
from coreflow.domain.deploy.desired import Note, Rejection, unit_of
from coreflow.domain.deploy.result import Outcome, ReconcileResult
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.deploy.steps import (
    Action,
    Plan,
    Refusal,
    Step,
    Verb,
    kind_of,
    name_of,
    owner_of,
    stage_of,
    verb_of,
)
from coreflow.domain.ids import BASE
from coreflow.domain.records.models import UnknownField
from coreflow.domain.swarm.convergence import Verdict

Json = dict[str, Any]

MARKS: Mapping[Verb, tuple[str, str]] = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "recreate": ("-/+", "magenta"),
    "mark failed": ("!", "red"),
    "remove": ("-", "red"),
    "provision": ("+", "green"),
    "deprovision": ("-", "red"),
}
"""Mark and colour of each verb."""
PAST: Mapping[Verb, str] = {
    "create": "created",
    "update": "updated",
    "recreate": "recreated",
    "mark failed": "marked as failed",
    "remove": "removed",
    "provision": "provisioned",
    "deprovision": "deprovisioned",
}
PROBLEMS = "problems"
"""The heading of what is wrong."""
PROBLEM = ("!", "bold red")
WAITING = ("·", "cyan")
NOTE = ("i", "dim")
_INDENT = 2
_GAP = "  "
_LEAST_NAME = 8
_LEAST_REASON = 30
"""Columns that a reason gets at least; names that are too long for that push it to a line of its own."""


@frozen(kw_only=True)
class Row:
    """One line: `+ service web   new`. Rows of a block share their columns."""

    mark: tuple[str, str]
    kind: str
    name: str
    reason: str
    is_part: bool = False
    """Belongs to the row above it."""
    dimmed: bool = False


@frozen
class Block:
    """A heading and its rows."""

    heading: str
    rows: tuple[Row, ...]


# plans


def plan_blocks(
    plan: Plan, crash_loops: Sequence[Verdict] = (), *, confirm: str = "coreflow apply"
) -> Iterator[Block]:
    """The plan, grouped: the stages with their actions, then what waits, what is noteworthy, what is wrong."""
    stages: dict[str, dict[str, list[Action]]] = {}
    for step in plan.steps:
        stages.setdefault(stage_of(step.action), {}).setdefault(step.unit, []).append(step.action)
    for stage, units in stages.items():
        yield Block(stage, tuple(row for actions in units.values() for row in _unit_rows(actions)))
    if plan.waits:
        yield Block(
            "waiting", tuple(Row(mark=WAITING, kind="wait", name=w.name, reason=w.reason) for w in plan.waits)
        )
    if plan.notes:
        yield Block("notes", tuple(map(note_row, plan.notes)))
    problems = (*plan_problems(plan, confirm), *map(crash_loop_row, crash_loops))
    if problems:
        yield Block(PROBLEMS, problems)


def explaining(plan: Plan) -> tuple[Note, ...]:
    """Return the notes that may say why records are rejected: those about the same record, and about no service."""
    units = {rejection.unit for rejection in plan.rejections}
    return tuple(note for note in plan.notes if units and note.unit in {"", *units})


def lacks_base_images(plan: Plan) -> bool:
    """Return whether images of base services cannot be had: somebody may not have meant to deploy these at all."""
    held = (one for one in plan.rejections if one.held and not one.awaited)
    return any(rejection.unit == unit_of(BASE, rejection.name) for rejection in held)


def note_row(note: Note) -> Row:
    """Something worth knowing."""
    return Row(mark=NOTE, kind="note", name=note.name, reason=note.text, dimmed=True)


def awaited_row(rejection: Rejection) -> Row:
    """A service whose image is being looked up."""
    return Row(mark=WAITING, kind="wait", name=rejection.name, reason="; ".join(rejection.reasons))


def crash_loop_row(verdict: Verdict) -> Row:
    """A service whose tasks end again and again."""
    return _problem("crash-looping", verdict.service, verdict.detail.removeprefix("crash-looping: "))


def _unit_rows(actions: Sequence[Action]) -> Iterator[Row]:
    """The services of a unit first, what they need and what they leave behind under them."""
    leads = [action for action in actions if kind_of(action) in {"service", "network"}] or actions[:1]
    for action in leads:
        yield action_row(action)
    for action in actions:
        if all(action is not lead for lead in leads):
            yield action_row(action, is_part=True)


def action_row(action: Action, *, is_part: bool = False) -> Row:
    """One action."""
    return Row(
        mark=MARKS[verb_of(action)],
        kind=kind_of(action),
        name=name_of(action),
        reason=action.reason,
        is_part=is_part,
    )


def plan_problems(plan: Plan, confirm: str = "coreflow apply") -> Iterator[Row]:
    """Yield what is wrong with the records, or was tried and failed; `confirm` is the command that takes the token."""
    for rejection in plan.rejections:
        kind = "held" if rejection.held else "rejected"
        yield from _problem_rows(kind, rejection.name, rejection.reasons)
    for failure in plan.failures:
        yield _problem("failed", failure.name, failure.reason)
    for contest in plan.contests:
        yield _problem("contested", contest.name, f"{contest.reason} ({contest.times} times so far)")
    if plan.refusal is not None:
        yield from _problem_rows("refused", "removal", refusal_texts(plan.refusal, confirm))


def refusal_texts(refusal: Refusal, confirm: str) -> tuple[str, ...]:
    """Return what would be removed, and how to say that it is meant."""
    return (
        f"removing {len(refusal.names)} of {refusal.owned} services needs a confirmation",
        f"they are: {', '.join(refusal.names)}",
        f"if that is meant: {confirm} --confirm-removal {refusal.token}",
    )


def wrong_token(reconcile_result: ReconcileResult, given: str | None) -> str:
    """Return what is wrong with the token that was given on the command line; nothing where it confirmed something."""
    plans = (reconcile_result.last.plan, *(report.plan for report in reconcile_result.reports))
    if given is None or any(plan.is_confirmed for plan in plans):
        return ""
    if reconcile_result.last.plan.refusal is not None:
        return "--confirm-removal: another word than that of these services"
    return "--confirm-removal: no removal waits for a confirmation"


def problem_row(kind: str, name: str, reason: str) -> Row:
    """Return the row of something that is wrong."""
    return _problem(kind, name, reason)


def _problem(kind: str, name: str, reason: str) -> Row:
    return Row(mark=PROBLEM, kind=kind, name=name, reason=reason)


def _problem_rows(kind: str, name: str, reasons: Sequence[str]) -> Iterator[Row]:
    for index, reason in enumerate(reasons):
        if index == 0:
            yield _problem(kind, name, reason)
        else:
            yield Row(mark=("", ""), kind="", name="", reason=reason)


def plan_summary(plan: Plan, crash_loops: Sequence[Verdict] = ()) -> Text:
    """`Plan: 3 to create, 1 to update; 12 as desired.`"""
    kept = max(plan.kept - len(crash_loops), 0)
    if not plan.steps:
        text = Text("Nothing to do" if plan.is_clean else "Nothing else to do", style="bold")
        text.append(f": {_services(kept)} as desired", style="not bold")
    else:
        text = Text("Plan: ", style="bold")
        text.append_text(_counts(((verb_of(action), 1) for action in plan.actions), _FUTURE))
        text.append(f"; {kept} as desired", style="not bold")
    for word, number in (problem_counts(plan) | _crash_loop_count(crash_loops)).items():
        text.append("; ", style="not bold")
        text.append(f"{number} {word}", style="red")
    return text.append(".", style="not bold")


def _crash_loop_count(crash_loops: Sequence[Verdict]) -> dict[str, int]:
    return {"crash-looping": len(crash_loops)} if crash_loops else {}


_FUTURE: Mapping[Verb, str] = {
    "create": "to create",
    "update": "to update",
    "recreate": "to recreate",
    "mark failed": "to mark as failed",
    "remove": "to remove",
    "provision": "to provision",
    "deprovision": "to deprovision",
}


def _counts(verbs: Iterable[tuple[Verb, int]], words: Mapping[Verb, str]) -> Text:
    counts: dict[Verb, int] = {}
    for verb, number in verbs:
        counts[verb] = counts.get(verb, 0) + number
    parts = [
        Text(f"{counts[verb]} {words[verb]}", style=f"{style} not bold")
        for verb, (_, style) in MARKS.items()
        if verb in counts
    ]
    return Text(", ").join(parts)


def problem_counts(plan: Plan) -> dict[str, int]:
    """Return how many records are rejected, held or failed, and how many removals refused; those that are none left out."""
    held = sum(rejection.held for rejection in plan.rejections)
    refused = len(plan.refusal.names) if plan.refusal is not None else 0
    counts = {
        "rejected": len(plan.rejections) - held,
        "held": held,
        "failed": len(plan.failures),
        "contested": len(plan.contests),
        "not removed without a confirmation": refused,
    }
    return {word: number for word, number in counts.items() if number}


def _services(number: int) -> str:
    return f"{number} service{'' if number == 1 else 's'}"


# results


def result_problems(reconcile_result: ReconcileResult, confirm: str = "coreflow apply") -> Iterator[Row]:
    """Everything that keeps an apply from being a success."""
    plan = reconcile_result.last.plan
    yield from plan_problems(plan, confirm)
    for outcome in reconcile_result.troubles:
        kind = "blocked" if outcome.status == "blocked" else "not done"
        what = f"{verb_of(outcome.step.action)} {kind_of(outcome.step.action)}"
        yield _problem(kind, name_of(outcome.step.action), f"{what}: {outcome.detail}")
    for outcome in reconcile_result.under_way:
        what = f"{verb_of(outcome.step.action)} {kind_of(outcome.step.action)}"
        yield _problem("unfinished", name_of(outcome.step.action), f"{what}: not done yet")
    explained = explained_names(reconcile_result)
    for name, verdict in reconcile_result.verdicts.items():
        if verdict.is_crash_looping:
            yield crash_loop_row(verdict)
        elif not verdict.done and name not in explained:
            yield _problem("unfinished", name, state_text(verdict))


def explained_names(reconcile_result: ReconcileResult) -> frozenset[str]:
    """Services whose problem has been told already."""
    plan = reconcile_result.last.plan
    return frozenset(
        {rejection.name for rejection in plan.rejections}
        | {failure.name for failure in plan.failures}
        | {
            name_of(outcome.step.action)
            for outcome in (*reconcile_result.troubles, *reconcile_result.under_way)
        }
    )


def result_summary(reconcile_result: ReconcileResult) -> Text:
    """`Applied: 3 created, 1 updated; 12 services as desired.`"""
    plan, applied = reconcile_result.last.plan, reconcile_result.applied
    explained = explained_names(reconcile_result)
    unexplained = [v for name, v in reconcile_result.verdicts.items() if name not in explained and not v.done]
    loops = [verdict for verdict in unexplained if verdict.is_crash_looping]
    unfinished = len(unexplained)
    as_desired = f"{_services(max(plan.kept - unfinished, 0))} as desired"
    if applied:
        text = Text("Applied: ", style="bold")
        text.append_text(_counts(((verb_of(outcome.step.action), 1) for outcome in applied), PAST))
        text.append(f"; {as_desired}", style="not bold")
    elif any(report.outcomes for report in reconcile_result.reports):
        text = Text("Nothing could be done", style="bold")
        text.append(f"; {as_desired}", style="not bold")
    else:
        text = Text("Nothing to do" if plan.is_clean else "Nothing else to do", style="bold")
        text.append(f": {as_desired}", style="not bold")
    counts = {
        **problem_counts(plan),
        **_crash_loop_count(loops),
        "not done": len(reconcile_result.troubles),
        "unfinished": unfinished - len(loops),
    }
    for word, number in counts.items():
        if number:
            text.append("; ", style="not bold")
            text.append(f"{number} {word}", style="red")
    return text.append(".", style="not bold")


def done_row(action: Action) -> Row:
    """An action that was carried out."""
    row = action_row(action)
    return evolve(row, kind=f"{PAST[verb_of(action)]} {row.kind}")


def outcome_row(outcome: Outcome) -> Row:
    """One action that ended."""
    action = outcome.step.action
    if outcome.status == "applied":
        return done_row(action)
    if outcome.status == "under way":
        row = action_row(action)
        return evolve(row, mark=WAITING, kind=f"{verb_of(action)} {row.kind}", reason=outcome.detail)
    word = "blocked" if outcome.status == "blocked" else "failed"
    return _problem(f"{word}: {verb_of(action)} {kind_of(action)}", name_of(action), outcome.detail)


State = Literal["done", "rolled back", "failed", "crash-looping", "waiting"]
_STATES: Mapping[State, tuple[str, str]] = {
    "done": ("✓", "green"),
    "rolled back": ("✗", "bold red"),
    "failed": ("✗", "bold red"),
    "crash-looping": ("✗", "bold red"),
    "waiting": ("·", "cyan"),
}


def state_of(verdict: Verdict) -> State:
    """Return what became of a service. Only a rolled back one has something to tell although all is done."""
    if verdict.is_crash_looping:
        return "crash-looping"
    if verdict.failed:
        return "failed"
    if not verdict.done:
        return "waiting"
    return "rolled back" if verdict.detail else "done"


def state_text(verdict: Verdict) -> str:
    """`1 of 2 ready: no suitable node`. While tasks are replaced, old ones run that are not counted."""
    waiting = state_of(verdict) == "waiting"
    detail = detail_of(verdict)
    return f"{verdict.running} of {verdict.wanted} {'ready' if waiting else 'running'}" + (
        f": {detail}" if detail else ""
    )


def detail_of(verdict: Verdict) -> str:
    """Return what a service waits for, or what went wrong."""
    return verdict.detail or ("roll-out in progress" if state_of(verdict) == "waiting" else "")


def state_row(verdict: Verdict) -> Row:
    """`✓ web  2 of 2 running`."""
    return Row(mark=_STATES[state_of(verdict)], kind="", name=verdict.service, reason=state_text(verdict))


# layout


def print_blocks(console: Console, blocks: Iterable[Block], *, indent: int = _INDENT) -> None:
    """Print blocks with an empty line behind each; all share their columns."""
    blocks = tuple(blocks)
    rows = [row for block in blocks for row in block.rows]
    layout = Layout.of(rows, width_of(console), indent=indent + _INDENT)
    if layout.width is None and console.color_system is None and not console.record:
        console.file.writelines(_plain(blocks, layout, indent))
        return
    for block in blocks:
        print_line(console, Text(" " * indent).append(block.heading, style="bold"))
        for row in block.rows:
            for line in layout.lines(row, console):
                print_line(console, line)
        console.print()


def _plain(blocks: Iterable[Block], layout: "Layout", indent: int) -> Iterator[str]:
    """The lines of blocks for a file or a pipe: rich would take as long for twenty thousand of them as all the rest."""
    for block in blocks:
        yield f"{' ' * indent}{block.heading}".rstrip() + "\n"
        for row in block.rows:
            yield layout.line(row).rstrip() + "\n"
        yield "\n"


def print_line(console: Console, text: Text) -> None:
    """Print one line as it is; only a terminal that is too narrow breaks it."""
    text.rstrip()
    console.print(text, soft_wrap=not console.is_terminal, highlight=False)


def width_of(console: Console) -> int | None:
    """The columns of a terminal; None elsewhere, where nothing wraps."""
    return console.width if console.is_terminal else None


@frozen(kw_only=True)
class Layout:
    """The columns of some rows. Without a width nothing wraps."""

    indent: int
    mark: int
    kind: int
    name: int
    width: int | None

    @classmethod
    def of(cls, rows: Sequence[Row], width: int | None, *, indent: int = _INDENT) -> "Layout":
        """Columns that fit these rows; a name that leaves the reason no room does not count."""
        mark = max((len(row.mark[0]) for row in rows), default=1)
        kind = max((len(row.kind) + _part(row) for row in rows), default=0)
        names = [cell_len(clean(row.name)) for row in rows]
        name = max(names, default=0)
        if width is not None:
            room = max(width - indent - mark - 1 - kind - 2 * len(_GAP) - _LEAST_REASON, _LEAST_NAME)
            name = max((length for length in names if length <= room), default=0)
        return cls(indent=indent, mark=mark, kind=kind, name=name, width=width)

    def line(self, row: Row) -> str:
        """The one line of a row where nothing wraps and nothing has a colour."""
        part = _part(row)
        mark = f"{row.mark[0].rjust(self.mark)}{' ' if self.mark else ''}"
        kind = f"{row.kind.ljust(self.kind - part)}{_GAP}" if self.kind else ""
        name = clean(row.name) if self.name else ""
        padded = f"{name}{' ' * (self.name - cell_len(name))}{_GAP}" if self.name else ""
        return f"{' ' * (self.indent + part)}{mark}{kind}{padded}{clean(told(row.reason))}"

    def lines(self, row: Row, console: Console) -> Iterator[Text]:
        """The lines of one row: one, unless the reason is long or the name is."""
        style = "dim" if row.dimmed else ""
        head = Text(" " * (self.indent + _part(row)))
        head.append(row.mark[0].rjust(self.mark), style=row.mark[1]).append(" " if self.mark else "")
        kind_style = row.mark[1] if row.mark == PROBLEM else style
        indent = self.indent + self.mark + bool(self.mark)
        if self.kind:
            head.append(row.kind.ljust(self.kind - _part(row)) + _GAP, style=kind_style)
            indent += self.kind + len(_GAP)
        if self.name:
            name = clean(row.name)
            head.append(name + " " * (self.name - cell_len(name)) + _GAP, style=style or "bold")
            indent += self.name + len(_GAP)
        reason = Text(clean(told(row.reason)), style=style)
        if self.width is None:
            yield head.append_text(reason)
            return
        wrapped = list(reason.wrap(console, max(self.width - indent, _LEAST_REASON // 2)))
        if wrapped and head.cell_len <= indent:
            head.append_text(wrapped.pop(0))
        yield head
        for line in wrapped:
            yield Text(" " * indent).append_text(line)


def _part(row: Row) -> int:
    return 2 if row.is_part else 0


# JSON


def plan_json(reconcile_state: ReconcileState) -> Json:
    """The plan as documented in docs/commands.md."""
    plan = reconcile_state.plan
    refusal = plan.refusal
    return {
        "cluster": reconcile_state.records.cluster.id,
        "actions": [action_json(step) for step in plan.steps],
        "kept": plan.kept,
        "waits": [
            {"name": wait.name, "unit": wait.unit, "reason": told(wait.reason), "until": _moment(wait.until)}
            for wait in plan.waits
        ],
        "failures": [{"name": f.name, "unit": f.unit, "reason": told(f.reason)} for f in plan.failures],
        "rejected": [
            {"name": r.name, "unit": r.unit, "reasons": list(map(told, r.reasons)), "held": r.held}
            for r in plan.rejections
        ],
        "contested": [
            {"name": c.name, "unit": c.unit, "by": told(c.by), "times": c.times} for c in plan.contests
        ],
        "crash_looping": [
            {
                "name": verdict.service,
                "times": verdict.crashes,
                "since": _moment(verdict.crashing_since),
                "error": told(verdict.error),
            }
            for verdict in reconcile_state.crash_loops
        ],
        "notes": [{"name": note.name, "unit": note.unit, "text": told(note.text)} for note in plan.notes],
        "unknown_fields": [_unknown_json(field) for field in reconcile_state.records.unknown],
        "refusal": None
        if refusal is None
        else {"names": list(refusal.names), "owned": refusal.owned, "token": refusal.token},
    }


def _unknown_json(field: UnknownField) -> Json:
    return {
        "path": told(field.path),
        "suggestion": field.suggestion,
        "place": field.place,
        "kind": field.kind,
        "id": field.id,
        "name": field.record,
    }


def _moment(seconds: float | None) -> str | None:
    """A time in seconds since the epoch as RFC 3339."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def action_json(step: Step) -> Json:
    """One action."""
    action = step.action
    return {
        "action": verb_of(action),
        "kind": kind_of(action),
        "name": name_of(action),
        "owner": owner_of(action),
        "stage": str(stage_of(action)),
        "reason": told(action.reason),
    }


def result_json(reconcile_result: ReconcileResult) -> Json:
    """The result of an apply: what is left as a plan, what was done, how the services are."""
    return {
        **plan_json(reconcile_result.last),
        "outcomes": [
            outcome_json(outcome) for report in reconcile_result.reports for outcome in report.outcomes
        ],
        "services": [service_json(verdict) for verdict in reconcile_result.verdicts.values()],
        "settled": reconcile_result.is_stable,
    }


def outcome_json(outcome: Outcome) -> Json:
    """One action, and how it ended."""
    return {**action_json(outcome.step), "status": outcome.status, "detail": told(outcome.detail)}


def service_json(verdict: Verdict) -> Json:
    """Return how much of a service runs."""
    return {
        "name": verdict.service,
        "running": verdict.running,
        "wanted": verdict.wanted,
        "state": state_of(verdict),
        "detail": told(verdict.detail),
    }
