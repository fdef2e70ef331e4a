"""The frame of every command: reading settings, running under trio, and ending with one clear line instead of a traceback."""

import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
from attrs import evolve
from cyclopts import Parameter

from coreflow.app.cli.verbosity import is_quiet, is_verbose
from coreflow.app.settings import InvalidSetting, Settings, load_settings
from coreflow.app.streams import clean, json_text
from coreflow.app.telling import told
from coreflow.domain.errors import CoreflowError, InvalidRecord

PACKAGE = Path(__file__).parents[2]


class Format(StrEnum):
    """The format of output."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    """One line per event, as it happens."""


class _Stopped(Exception):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        self.number = number


Records = Annotated[
    Path | None, Parameter(help="Cluster file, YAML or JSON. Default: what CLOUDLY_URL names.")
]
STRICT = "COREFLOW_STRICT"
Strict = Annotated[
    bool,
    Parameter(
        negative=(), show_default=False, help=f"Reject records with fields that nobody reads (or {STRICT})."
    ),
]


def read_settings(*, need_records: bool, strict: bool = False) -> Settings:
    """The settings of this process; warnings go to standard error. `need_records`: no file was given.

    Raises InvalidSetting.
    """
    settings = load_settings(os.environ, require_cloudly=need_records)
    warn(settings.warnings)
    return strictly(settings) if strict else settings


def strictly(settings: Settings) -> Settings:
    """The settings with `--strict`."""
    return evolve(settings, strict=True, sources={**settings.sources, STRICT: "--strict"})


def warn(warnings: tuple[str, ...]) -> None:
    """One line on standard error for each."""
    for warning in warnings:
        say(f"warning: {warning}")


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{clean(text)}\n")


def run(command: Callable[[], Awaitable[int]], output: Format = Format.TEXT, *, hosted: bool = False) -> int:
    """Run a command to its end; its exit status. SIGTERM and Ctrl-C end it cleanly, errors in one line each.

    `hosted` is for commands that may have to reach something on the network other than the engine.
    """
    return guarded(partial(_runner(hosted=hosted), partial(_until_stopped, command)), output)


def _runner(*, hosted: bool) -> Callable[..., int]:
    """Return how to run: with an asyncio loop around trio only where something has to be reached by it, for it takes a while."""
    if is_verbose():
        configure_log()
    try:
        settings = load_settings(os.environ, require_cloudly=False)
    except InvalidSetting:
        return trio.run  # the command will say what is wrong
    if not (hosted or settings.needs_network):
        return trio.run
    from coreflow.adapters import net

    configure_log()
    return net.run


def configure_log() -> None:
    """Log nothing, for a command says itself what there is to say; with --verbose, log everything."""
    from coreflow.app import logs

    logs.configure("console", "debug" if is_verbose() else "critical")
    if is_verbose():
        logs.tell_calls()


def guarded(command: Callable[[], int], output: Format = Format.TEXT) -> int:
    """Call a command; its exit status, or that of the error that ended it, which is told in one line."""
    try:
        return command()
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as exc:  # noqa: BLE001 - whatever it is, a person gets no traceback
        return _ended_by(_alone(exc), output)


async def _until_stopped(command: Callable[[], Awaitable[int]]) -> int:
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals)
        status = await command()
        nursery.cancel_scope.cancel()
    return status


async def _watch_signals(*, task_status: trio.TaskStatus[None]) -> None:
    """Turn the first signal into an exception; a second one acts as if we were not there."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            raise _Stopped(number)


def _alone(exc: BaseException) -> BaseException:
    """The one exception inside the groups that nurseries put around it; a signal before anything else."""
    if isinstance(exc, BaseExceptionGroup):
        exc = exc.subgroup((_Stopped, KeyboardInterrupt)) or exc
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _ended_by(exc: BaseException, output: Format) -> int:
    match exc:
        case _Stopped(number=number):
            say(f"stopped by {signal.Signals(number).name}; run it again to continue")
            return 128 + number
        case KeyboardInterrupt():
            say("stopped by SIGINT; run it again to continue")
            return 128 + signal.SIGINT
        case _:
            return _fail(exc, output)


def _fail(exc: BaseException, output: Format) -> int:
    problems = problems_of(exc)
    if output is not Format.TEXT:
        kind = {"event": "error"} if output is Format.JSONL else {}
        document = {**kind, "error": "; ".join(problems), "problems": problems}
        sys.stdout.write(json_text(document) + "\n")
    if isinstance(exc, InvalidSetting):
        warn(exc.warnings)
    for problem in problems:
        say(f"error: {problem}")
    if is_verbose() and not isinstance(exc, CoreflowError):
        sys.stderr.writelines(frames_of(exc))
    say_hints(problems)
    return 1


def say_hints(problems: Iterable[str]) -> None:
    """Say what usually helps against these, where that is known, unless quiet is wanted."""
    problems = tuple(problems)
    if is_quiet():
        return
    if any(problem.startswith("CLOUDLY_URL is missing") for problem in problems):
        say(f"hint: {NO_RECORDS}")
    if any("the engine does not answer" in problem for problem in problems):
        say(f"hint: {ENGINE_AWAY}")


ENGINE_AWAY = (
    "is Docker running there (systemctl status docker), does DOCKER_HOST name it, and may this user open it "
    "(root, or the group docker)?"
)
NO_RECORDS = (
    "name a cluster file, with --records FILE or CLOUDLY_URL=file:///path/to/cluster.yaml; "
    "a control plane (https://) needs a JUMPCODE, too"
)


def frames_of(exc: BaseException) -> Iterator[str]:
    """Return where a bug and its causes were raised, line by line of the code. Never their texts, which could quote a value."""
    seen: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    for error in reversed(seen):
        yield f"{type(error).__name__}, raised at (the last call below):\n"
        yield from traceback.format_tb(error.__traceback__)


def problems_of(exc: BaseException) -> list[str]:
    """Everything that an error says, one line each. Of a bug only its kind and place: its text could quote a value."""
    match exc:
        case InvalidRecord():
            return [told(str(problem)) for problem in exc.problems]
        case InvalidSetting():
            return list(exc.problems)
        case CoreflowError():
            return [told(str(exc))]
    frames = [Path(frame.filename) for frame in traceback.extract_tb(exc.__traceback__)]
    numbers = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__)]
    ours = [
        f"{file.relative_to(PACKAGE)}:{number}"
        for file, number in zip(frames, numbers, strict=True)
        if file.is_relative_to(PACKAGE)
    ]
    return [
        f"a bug in coreflow: {type(exc).__name__} at {' < '.join(reversed(ours[-3:])) or 'unknown place'}"
    ]
