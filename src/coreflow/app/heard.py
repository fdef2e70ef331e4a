"""Hearing of peers: whoever asks one says how that ended, for the status."""

from collections.abc import Callable

Heard = Callable[[str, str, Exception | None], None]
"""Takes a peer, where it is, and the error that asking it ended with, if any."""


def unheard(peer: str, where: str, error: Exception | None) -> None:
    """Nobody wants to know."""
