"""What commands share: reading settings, running under trio, and ending with one clear line instead of a traceback."""

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial

import trio

from coreflow.app.cli.present import clean
from coreflow.app.settings import InvalidSetting, Settings, load_settings
from coreflow.domain.errors import CoreflowError, InvalidRecord


class Format(StrEnum):
    """How a result is written."""

    TEXT = "text"
    JSON = "json"


class _Stopped(Exception):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        self.number = number


def read_settings(*, need_records: bool) -> Settings:
    """The settings of this process; warnings go to standard error. `need_records`: no file was given."""
    settings = load_settings(os.environ, require_cloudly=need_records)
    for warning in settings.warnings:
        say(f"warning: {warning}")
    return settings


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{clean(text)}\n")


def run(command: Callable[[], Awaitable[int]], output: Format = Format.TEXT) -> int:
    """Run a command to its end; its exit status. SIGTERM and Ctrl-C end it cleanly, errors in one line each."""
    try:
        return trio.run(partial(_until_stopped, command))
    except BaseException as exc:
        plain = _alone(exc)
        match plain:
            case _Stopped(number=number):
                say(f"stopped by {signal.Signals(number).name}; run it again to go on")
                return 128 + number
            case KeyboardInterrupt():
                say("stopped; run it again to go on")
                return 128 + signal.SIGINT
            case CoreflowError():
                return _fail(plain, output)
        raise


def failing(read: Callable[[], Settings], output: Format = Format.TEXT) -> Settings | int:
    """The settings, or the exit status after saying what is wrong with them."""
    try:
        return read()
    except CoreflowError as exc:
        return _fail(exc, output)


async def _until_stopped(command: Callable[[], Awaitable[int]]) -> int:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals)
        status = await command()
        nursery.cancel_scope.cancel()
    return status


async def _watch_signals() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            raise _Stopped(number)


def _alone(exc: BaseException) -> BaseException:
    """The one exception inside the groups that nurseries put around it."""
    while isinstance(exc, BaseExceptionGroup):
        chosen = [e for e in exc.exceptions if not isinstance(e, trio.Cancelled)] or list(exc.exceptions)
        exc = chosen[0]
    return exc


def _fail(exc: CoreflowError, output: Format) -> int:
    match exc:
        case InvalidRecord():
            problems = [str(problem) for problem in exc.problems]
        case InvalidSetting():
            problems = list(exc.problems)
            for warning in exc.warnings:
                say(f"warning: {warning}")
        case _:
            problems = [str(exc)]
    if output is Format.JSON:
        sys.stdout.write(json.dumps({"error": problems[0], "problems": problems}, ensure_ascii=False) + "\n")
    for problem in problems:
        say(f"error: {problem}")
    if isinstance(exc, InvalidSetting) and any(
        text.startswith("CLOUDLY_URL is missing") for text in problems
    ):
        say(
            "hint: CLOUDLY_URL=file:///path/to/cluster.yaml needs no JUMPCODE; plan and apply take --records FILE, too"
        )
    return 1
