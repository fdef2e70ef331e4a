"""Texts of a far side, without what is secret between it and us."""

import re

_TELLING = 8
"""So much of the beginning of a secret must not be seen either."""


_PEM = re.compile(r"-----BEGIN.*", re.DOTALL)
TEXT_LIMIT = 500
"""Characters of a far side's text that are passed on."""


def printable(text: str) -> str:
    """A text of a far side on one short line, without anything that looks like a key or a certificate."""
    return "".join(char if char.isprintable() else " " for char in _PEM.sub("…", text))[:TEXT_LIMIT]


def without(text: str, secret: str) -> str:
    """A text in which the secret, or a beginning of it that tells something, is replaced, in whatever case."""
    if not secret:
        return text
    head = re.compile(re.escape(secret[:_TELLING]), re.IGNORECASE)
    kept, at = "", 0
    while found := head.search(text, at):
        end = found.end()
        for char in secret[_TELLING:]:
            if text[end : end + 1].lower() != char.lower():
                break
            end += 1
        kept, at = kept + text[at : found.start()] + "…", end
    return kept + text[at:]
