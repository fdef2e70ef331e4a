"""Texts of a far side, without what is secret between it and us."""

import re

_TELLING = 8
"""So much of the beginning of a secret must not be seen either."""


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
