"""The picture of a restore's states shows what the table says."""

import re
from pathlib import Path

from coreflow.domain.backup.restore import TRANSITIONS, Event

DIAGRAM = Path(__file__).parents[4] / "docs" / "diagrams" / "restore.dot"
_ARROW = re.compile(r"^  ([A-Z]+) -> ([A-Z]+) \[label=\"([A-Z]+)\"", re.MULTILINE)


def test_every_transition_is_drawn_and_nothing_else() -> None:
    """But for what the picture says that it leaves out: loss of the lease, and one phase going on."""
    drawn = {(phase, event, then) for phase, then, event in _ARROW.findall(DIAGRAM.read_text())}
    table = {
        (phase.name, event.name, then.name)
        for phase, row in TRANSITIONS.items()
        for event, then in row.items()
        if event is not Event.TAKEN and then is not phase
    }
    assert drawn == table
