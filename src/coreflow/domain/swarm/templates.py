"""Text that Swarm would take for a template, so written that it arrives as it is, and read back.

Swarm expands `{{...}}` for every task, and refuses what it cannot expand, in the values of variables, in sources and
targets of mounts, in values of volume options and volume labels, and in host names; never in names of variables and
options, drivers, aliases, images, commands, health checks or labels of the service (source: swarmkit's `template`;
measured on 20.10 and 26.1). Nothing of a record is meant as a template.
"""

BRACES = "{{"
_LITERAL = '{{"{{"}}'
"""A template that expands to two braces."""
GROWTH = len(_LITERAL) - len(BRACES)
"""Bytes more that two braces take so."""
EXPANDED = " (a template of Swarm's)"
"""Behind the name of something live that Swarm expands: made by hand, or by a coreflow that knew of no templates."""


def literal(text: str) -> str:
    """The template that expands to this very text; a text without braces is its own."""
    return text.replace(BRACES, _LITERAL) if BRACES in text else text


def read_literal(template: str) -> str | None:
    """The text that a template expands to, or None for one that `literal` has not made."""
    if BRACES not in template:
        return template
    text = template.replace(_LITERAL, BRACES)
    return text if literal(text) == template else None
