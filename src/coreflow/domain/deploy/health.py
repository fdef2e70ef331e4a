"""A record's health check -> what the engine runs, or why it would mean nothing.

The engine takes any list of words. What it makes of them was measured on 20.10 and 26.1: `[CMD]` alone makes the daemon
panic at the first check, on every node that the task moves to; an empty word, or one that is no kind of check, is never
run and leaves the task `starting` for ever; an empty text of the shell is always healthy; words behind the text of the
shell are arguments that it ignores.
"""

from collections.abc import Iterator

from coreflow.domain.records.models import HealthCheckRecord, ServiceRecord
from coreflow.domain.swarm.specs import HealthCheck

EXEC, SHELL, NONE = "CMD", "CMD-SHELL", "NONE"
KINDS = frozenset({EXEC, SHELL, NONE})
SECOND = 1_000_000_000
LEAST_DURATION, MOST_SECONDS = 0.001, 1e9
"""The engine refuses health checks with shorter durations (source: moby's `validateHealthCheck`)."""
MOST_RETRIES = 2**31 - 1
"""Swarm keeps the number in 32 bits: a larger one wraps around, or is refused as negative."""
WORD_LIMIT = 128 * 1024
"""Bytes of one argument or variable of a program, with the null at its end (Linux's `MAX_ARG_STRLEN`)."""


def health_check(record: ServiceRecord) -> HealthCheck | None:
    """The record's health check; without one the image's own applies."""
    check = record.health_check
    if check is None:
        return None
    return HealthCheck(
        test=test_of(check),
        interval_ns=round((check.interval_seconds or 0) * SECOND),
        timeout_ns=round((check.timeout_seconds or 0) * SECOND),
        start_period_ns=round((check.start_period_seconds or 0) * SECOND),
        retries=check.retries or 0,
    )


def test_of(check: HealthCheckRecord) -> tuple[str, ...]:
    """The words of the check, with their kind in front: a list without one is a program with its arguments."""
    return check.command if check.command[:1] and check.command[0] in KINDS else (EXEC, *check.command)


def health_problems(check: HealthCheckRecord) -> Iterator[str]:
    """Everything that would make the check mean nothing, or hurt the engine."""
    yield from _command_problems(check.command)
    durations = _durations(check)
    for name, seconds in durations:
        if seconds is not None and seconds != 0 and not LEAST_DURATION <= seconds < MOST_SECONDS:
            yield f"healthCheck.{name} is negative, below a millisecond or too large"
    if check.retries is not None and not 0 <= check.retries <= MOST_RETRIES:
        yield "healthCheck.retries is negative or too large"
    if check.command[:1] == (NONE,):
        for name, number in (*durations, ("retries", check.retries)):
            if number:
                yield f"healthCheck.{name} means nothing with NONE"


def _durations(check: HealthCheckRecord) -> tuple[tuple[str, float | None], ...]:
    return (
        ("intervalSeconds", check.interval_seconds),
        ("timeoutSeconds", check.timeout_seconds),
        ("startPeriodSeconds", check.start_period_seconds),
    )


def _command_problems(command: tuple[str, ...]) -> Iterator[str]:
    kind, words = (command[0], command[1:]) if command[:1] and command[0] in KINDS else (EXEC, command)
    if not any(word.strip() for word in command) or (kind == SHELL and words and not "".join(words).strip()):
        yield "healthCheck.command is empty"
    elif kind == NONE and words:
        yield "healthCheck.command: NONE means no check and stands alone"
    elif kind == EXEC and not (words and words[0].strip()):
        yield "healthCheck.command names no program to run"
    elif kind == SHELL:
        yield from _shell_problems(words)
    yield from _word_problems(words)


def _word_problems(words: tuple[str, ...]) -> Iterator[str]:
    for word in words:
        if "\0" in word:
            yield "healthCheck.command contains a null character"
        if len(word.encode()) >= WORD_LIMIT:
            yield f"healthCheck.command has a word of {WORD_LIMIT} bytes or more, which Linux cannot run"


def _shell_problems(words: tuple[str, ...]) -> Iterator[str]:
    if len(words) != 1:
        yield "healthCheck.command: CMD-SHELL takes one string; write the program and its arguments as a list without it"
    elif _says_nothing(words[0]):
        yield "healthCheck.command says nothing to the shell, which then counts as healthy"
    elif words[0].split(maxsplit=1)[0] in KINDS:
        yield "healthCheck.command: CMD, CMD-SHELL and NONE are words of a list; in a string they are run as a program"


def _says_nothing(text: str) -> bool:
    """Return whether a shell finds nothing to do in it: blanks and comments only."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())
