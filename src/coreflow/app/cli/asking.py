"""Questions to the person at the terminal."""

import sys

import trio


def is_anybody_there() -> bool:
    """Return whether there is a terminal on both sides: somebody who reads a question, and can answer it."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


async def is_meant(question: str) -> bool:
    """Ask, and return whether the answer is `yes`, in full."""
    return await trio.to_thread.run_sync(_asked, question, abandon_on_cancel=True)


def _asked(question: str) -> bool:
    sys.stdout.write(f"{question} Only `yes` is an answer: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip() == "yes"
