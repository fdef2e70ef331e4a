"""Progress of an apply: lines for a log, a board on a terminal, nothing beside JSON."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.events import Events
from coreflow.app.cli.running import Format
from coreflow.app.cli.verbosity import is_quiet
from coreflow.app.reconcile import Listener, NullListener
from coreflow.app.streams import clean
from coreflow.app.telling import told
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.steps import Plan
from coreflow.domain.swarm.convergence import Verdict

FRAMES_PER_SECOND = 10
_BAR = 20
_WORTH_A_LINE = 2
_LEAST_ROOM, _MOST_ROOM = 3, 12
"""Services that the board shows at least, however low the terminal is, and at most."""


@contextmanager
def listening(console: Console, output: Format) -> Iterator[Listener]:
    """The listener for this console: a board on a terminal, lines elsewhere, nothing for JSON or where quiet is wanted."""
    if output is Format.JSONL:
        yield Events()
    elif output is Format.JSON or is_quiet():
        yield NullListener()
    elif console.is_terminal and not console.is_dumb_terminal:
        board = Board(console)
        live = Live(board, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True)
        with live:
            yield board
    else:
        yield Lines(console)


class Lines:
    """Plain lines: one per action, one per service whenever its state changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._actions = self._services = self._layout(())
        self._said: dict[str, Verdict] = {}
        self._awaited: dict[str, int] = {}
        """How often a pass has found that the image of a service is still being looked up."""

    def _layout(self, rows: Sequence[present.Row]) -> present.Layout:
        return present.Layout.of(rows, present.width_of(self._console))

    def _print(self, row: present.Row, layout: present.Layout) -> None:
        for line in layout.lines(row, self._console):
            present.print_line(self._console, line)

    def planned(self, plan: Plan) -> None:
        """Make room for what is going to be said. What a look has waited for twice is worth a line."""
        self._actions = self._layout([present.done_row(action) for action in plan.actions])
        awaited = [rejection for rejection in plan.rejections if rejection.awaited]
        counts = {rejection.name: self._awaited.get(rejection.name, 0) + 1 for rejection in awaited}
        self._awaited.update(counts)
        rows = [present.awaited_row(r) for r in awaited if counts[r.name] == _WORTH_A_LINE]
        layout = self._layout(rows)
        for row in rows:
            self._print(row, layout)

    def applied(self, outcome: Outcome) -> None:
        """Print what was done, or why it was not. Where somebody else was faster, the next pass tells what became of it."""
        if outcome.status == "overtaken":
            return
        self._print(present.outcome_row(outcome), self._actions)

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """Print what changed. A service that runs from the start, or again after a roll-back, is not worth a line."""
        changed = []
        for name, verdict in verdicts.items():
            before = self._said.get(name)
            state = present.state_of(verdict)
            if verdict == before:
                continue
            if state == "done" and (before is None or present.state_of(before) != "waiting"):
                continue
            self._said[name] = verdict
            changed.append(verdict)
        if changed and self._services.name == 0:
            self._services = self._layout([present.state_row(verdict) for verdict in changed])
        for verdict in changed:
            self.changed(verdict)

    def changed(self, verdict: Verdict) -> None:
        """One service has another state than before."""
        self._print(present.state_row(verdict), self._services)


class Board(Lines):
    """On a terminal: what is done scrolls by, and what is still at it stays below."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._verdicts: Mapping[str, Verdict] = {}
        self._spinner = Spinner("dots", style="cyan")

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """Show the new state."""
        self._verdicts = verdicts
        super().progressed(verdicts)

    def changed(self, verdict: Verdict) -> None:
        """Only an end is worth a line that stays."""
        if present.state_of(verdict) != "waiting":
            super().changed(verdict)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what is still at it, as many as there is room for, and how many of all are done."""
        open_ones = [v for v in self._verdicts.values() if not (v.done or v.failed)]
        if not open_ones:
            return
        room = min(max(options.size.height - 6, _LEAST_ROOM), _MOST_ROOM)
        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(4):
            table.add_column(no_wrap=True, overflow="ellipsis")
        for verdict in open_ones[:room]:
            table.add_row(
                Text("  ").append_text(self._frame(console)),
                Text(clean(verdict.service)),
                Text(f"{verdict.running} of {verdict.wanted} ready"),
                Text(clean(told(present.detail_of(verdict))), style="dim"),
            )
        yield table
        if len(open_ones) > room:
            yield Text(f"    … and {len(open_ones) - room} more", style="dim")
        total, done = len(self._verdicts), len(self._verdicts) - len(open_ones)
        line = Table.grid(padding=(0, 1))
        line.add_row(
            "  ", ProgressBar(total, done, width=_BAR), Text(f"{done} of {total} services", style="dim")
        )
        yield line

    def _frame(self, console: Console) -> Text:
        frame = self._spinner.render(console.get_time())
        return frame if isinstance(frame, Text) else Text("*")
