"""Redaction of output: the last step before a message reaches a log, a terminal or a program.

Messages of peers are redacted where they arrive. Whatever got past that, or came from a library, is redacted here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from coreflow.domain.redaction.redactor import NOTHING_KNOWN, Redact

LIMIT = 4_000
"""Characters of one text: ours may name many records."""
_redactors: list[Redact] = []
_without_any = lru_cache(10_000)(NOTHING_KNOWN.redact)


@contextmanager
def redacting(redact: Redact) -> Iterator[None]:
    """Take out of everything that is told what `redact` knows, for as long as the block lasts."""
    _redactors.append(redact)
    try:
        yield
    finally:
        _redactors.remove(redact)


def told(text: str) -> str:
    """Return what may be told of a text."""
    for redact in _redactors or (_without_any,):
        text = redact(text, LIMIT)
    return text


def told_all(value: object) -> object:
    """The same for every text in lists and mappings; their keys are ours."""
    if isinstance(value, str):
        return told(value)
    if isinstance(value, Mapping):
        return {key: told_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [told_all(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else told(str(value))
