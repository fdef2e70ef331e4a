"""Keys of a document as messages may spell them.

A slip turns a value into a key: `{value:secret}`, without a space, is one key without a value in YAML, and any file can be
taken for a cluster file. So a key is quoted only if it looks like a name; in its place there is a word that says so.
"""

import re

HIDDEN = "(not shown)"
"""Stands for a key that may be a secret."""

_SEPARATOR = re.compile(r"[:=]")
"""Stands between a key and its value, and is a part of the key where no space follows."""
_NAME = re.compile(r"[\w$*@+./\[\]-]{1,253}")
_FIELD = re.compile(r"(?=.{1,32}$)[A-Za-z_$][A-Za-z_$-]*[0-9]{0,3}[A-Za-z_-]*")
_WORD = re.compile(r"[A-Za-z_-]{1,32}")


def spelt(key: object) -> str:
    """A key that its author chooses, as it is told: a variable's, a host's, an environment's."""
    text = str(key)
    return text if _NAME.fullmatch(text) is not None and text.isprintable() else HIDDEN


def is_field_name(key: str) -> bool:
    """Return whether a key looks like the name of a field, and not like a password, a token or a line of a file."""
    return _FIELD.fullmatch(key) is not None


def is_word(key: str) -> bool:
    """Return whether a key has nothing but letters, as the fields of logins and secrets have."""
    return _WORD.fullmatch(key) is not None


def before_separator(key: str) -> str | None:
    """Return what is before the first separator in a key; None where there is none."""
    found = _SEPARATOR.search(key)
    return None if found is None else key[: found.start()].strip()
