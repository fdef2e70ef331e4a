"""The picture of a restore's states shows what the table says."""

import re
from pathlib import Path

from coreflow.domain.backup.restore import TRANSITIONS, Event

DIAGRAM = Path(__file__).parents[4] / "docs" / "diagrams" / "restore.dot"
_ARROW = re.compile(r"^  ([A-Z]+) -> ([A-Z]+) \[event=\"([A-Z]+)\", label=\"([^\"]+)\"", re.MULTILINE)
_STATE = re.compile(r"^  ([A-Z]+) \[label=", re.MULTILINE)
_ANY = "ANY"
"""In the picture: every phase that is not over."""


def _drawn() -> set[tuple[str, str, str]]:
    """The arrows: phase, event, next phase."""
    going_on = [phase.name for phase in TRANSITIONS if not phase.is_over]
    return {
        (phase, event, then)
        for drawn, then, event, _ in _ARROW.findall(DIAGRAM.read_text())
        for phase in (going_on if drawn == _ANY else [drawn])
    }


def test_every_transition_is_drawn_and_nothing_else() -> None:
    """But for what the picture says that it leaves out: one phase going on."""
    table = {
        (phase.name, event.name, then.name)
        for phase, row in TRANSITIONS.items()
        for event, then in row.items()
        if then is not phase
    }
    assert _drawn() == table


def test_every_state_is_drawn() -> None:
    """Each phase has a box with words, and there is no other box."""
    assert {*_STATE.findall(DIAGRAM.read_text())} - {_ANY} == {phase.name for phase in TRANSITIONS}


def test_arrows_say_in_words_when() -> None:
    """A label is for readers of the picture, who do not know the names of events; every arrow has one."""
    text = DIAGRAM.read_text()
    arrows = _ARROW.findall(text)
    assert len(arrows) == text.count("->")
    for _, _, _, label in arrows:
        assert not {event.name for event in Event} & {*re.split(r"\W+", label)}, label
