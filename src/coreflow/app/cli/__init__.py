"""The command line. Commands are named by strings, so that `--help` and `version` import none of what the others need."""

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CoercionError, CycloptsError, Parameter, UnknownCommandError, UnusedCliTokensError
from rich.text import Text

from coreflow.app import streams
from coreflow.app.cli import verbosity

if TYPE_CHECKING:
    from cyclopts.help import DefaultFormatter, HelpPanel, PlainFormatter
    from rich.console import Console, ConsoleOptions

COMMANDS = {
    "demo": (
        "demo:demo",
        "Show coreflow at work on a Swarm in memory, in a few seconds: no Docker, no file.",
    ),
    "plan": ("deploy:plan", "Show what an apply would do, and why. Writes nothing."),
    "apply": ("deploy:apply", "Carry out the plan, and wait until everything runs."),
    "run": ("daemon:run", "Keep the Swarm in the state that the records describe, until SIGTERM."),
    "status": ("status:status", "Show what runs, what is wrong, since when, and what to do about it."),
    "explain": ("explain:explain", "Show one service from its record to its tasks, and why it is as it is."),
    "routes": (
        "routes:routes",
        "Show which host leads to which tasks, with which certificate, and what is missing.",
    ),
    "history": (
        "history:history",
        "Show what was done, when, why, who asked, and what became of it.",
    ),
    "images": ("images:images", "List the images from archives that nothing needs any more, or remove them."),
    "backup": ("backups:backup", "Take snapshots of everything that belongs to a service."),
    "backups": ("backups:backups", "List the backups of a service, here and at Cloudly."),
    "restore": ("backups:restore", "Restore a service from a backup, or list its backups."),
    "check": ("check:check", "Check the settings, the engine, the records and the images' registries."),
    "down": ("down:down", "Remove everything that coreflow made for a cluster. Data stays."),
    "networks": ("networks:networks", "Make the base networks, where there are none, for a stack to join."),
    "health": ("health:health", "Ask the daemon on this machine whether it is well."),
    "schema": ("schema:schema", "Print the JSON Schema of a cluster file, for editors."),
    "version": ("version:version", "Print the versions of coreflow and Python."),
    "help": ("help:help", "Describe a command."),
    "completion": (
        "help:completion",
        "Print the script that lets bash, zsh or fish complete a command line.",
    ),
}
"""Where each command is, and what the list of commands says of it."""
RECORD_SUFFIXES = (".yaml", ".yml", ".json")
"""Words that end so are taken for cluster files."""


def _in_one_line(exc: CycloptsError) -> Text:
    said = str(exc)
    if isinstance(exc, UnusedCliTokensError):
        said = f"not expected: {shlex.join(exc.unused_tokens or ())}"
    text = Text(f"error: {streams.clean(said)}")
    if meant := _meant_by(exc):
        text.append(f"\nhint: did you mean {meant}?")
    return text.append(f"\nhint: {' '.join(('coreflow', *(exc.command_chain or ())))} --help")


def _meant_by(exc: CycloptsError) -> str:
    """The option or command that somebody has forgotten to write, if a word shows which."""
    if isinstance(exc, CoercionError) and exc.token is not None:
        word = exc.token.value
    elif isinstance(exc, UnusedCliTokensError | UnknownCommandError):
        word = next(iter(exc.unused_tokens or ()), "")
    else:
        return ""
    if word.endswith(RECORD_SUFFIXES):
        if not _takes_records(exc):
            return ""
        option = f"--records {shlex.quote(streams.clean(word))}"
        return f"coreflow plan {option}" if isinstance(exc, UnknownCommandError) else option
    is_restore = (exc.command_chain or ())[:1] == ("restore",)
    return f"--backup {shlex.quote(streams.clean(word))}" if is_restore and word[:1] not in {"", "-"} else ""


def _takes_records(exc: CycloptsError) -> bool:
    """Tell whether the command has an option for the cluster file; `plan` has, which is suggested without a command."""
    from inspect import signature

    return exc.target is None or "records" in signature(exc.target).parameters


class _Pages:
    """Layout of help pages: boxes on a terminal, plain lines elsewhere. What it takes is imported once it is asked for."""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        self._formatter(console, options, panel)

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """Print the line that says how a command is used."""
        self._formatter.render_usage(console, options, _with_names(usage))

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """Print what a command does."""
        self._formatter.render_description(console, options, description)

    @property
    def _formatter(self) -> "DefaultFormatter | PlainFormatter":
        from cyclopts.help import DefaultFormatter, PlainFormatter

        return DefaultFormatter() if sys.stdout.isatty() else PlainFormatter()


def _with_names(usage: Any) -> Any:
    """The line that says how a command is used, with the name of what may stand there instead of `ARGS`."""
    words = usage.plain.split() if isinstance(usage, Text) else []
    named = [word for word in words if word in COMMANDS]
    if not named or "[ARGS]" not in words:
        return usage
    arguments = app[named[0]].assemble_argument_collection()
    *_, last = [argument.name for argument in arguments if argument.index is not None]
    return Text(usage.plain.replace("ARGS", "FILE" if last == "--records" else last), usage.style)


def _version() -> str:
    from coreflow.app.cli.version import short

    return short()


app = App(
    name="coreflow",
    help="Keep a Docker Swarm in the state that a file of records describes.",
    help_epilogue="A first look, without Docker: coreflow demo. Everything else: README.md and docs/.",
    help_formatter=_Pages(),
    version=_version,
    version_flags=["--version", "-V"],
    error_formatter=_in_one_line,
)
for _name, (_where, _help) in COMMANDS.items():
    app.command(f"coreflow.app.cli.{_where}", name=_name, help=_help, sort_key=list(COMMANDS).index(_name))


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    verbose: Annotated[
        bool,
        Parameter(
            name=["--verbose", "-v"],
            negative=(),
            show_default=False,
            help="Say everything: a debug log on standard error, and where a bug was raised.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        Parameter(
            name=["--quiet", "-q"],
            negative=(),
            show_default=False,
            help="Say no more than problems and the last line.",
        ),
    ] = False,
) -> Any:
    """Run a command; what it returns is its exit status."""
    verbosity.choose(verbose=verbose, quiet=quiet)
    return app(tokens, result_action="return_value")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit status."""
    streams.tame(os.environ)
    with streams.owned() as results:
        app.console = streams.console_for()
        if not sys.stdout.isatty():  # lines stay whole, and end without blanks
            app.console.soft_wrap, app.console.width = True, streams.MOST_COLUMNS
        app.error_console = streams.console_for(sys.stderr)
        app.error_console.soft_wrap = True
        status = streams.status_after(results, _run(arguments))
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return app.meta(arguments, result_action="return_value") or 0
    except SystemExit as exc:  # a wrong command line
        return exc.code if isinstance(exc.code, int) else 1
    except KeyboardInterrupt:  # before the command could take care of it
        return 128 + signal.SIGINT
