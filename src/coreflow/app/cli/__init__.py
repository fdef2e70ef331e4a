"""The command line. Commands are named by strings, so that `--help` and `version` import none of what the others need."""

import os
import signal
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.text import Text

from coreflow.app import streams

COMMANDS = {
    "demo": (
        "demo:demo",
        "Show coreflow at work on a Swarm in memory, in a few seconds: no Docker, no file.",
    ),
    "plan": ("deploy:plan", "Show what an apply would do, and why. Writes nothing."),
    "apply": ("deploy:apply", "Carry out the plan, and wait until everything runs."),
    "run": ("daemon:run", "Keep the Swarm in the state that the records describe, until SIGTERM."),
    "routes": (
        "routes:routes",
        "Show which host leads to which tasks, with which certificate, and what is missing.",
    ),
    "images": ("images:images", "List the images from archives that nothing needs any more, or remove them."),
    "backup": ("backups:backup", "Take snapshots of everything that belongs to a service."),
    "restore": ("backups:restore", "Restore a service from a backup, or list its backups."),
    "check": ("check:check", "Check the settings, the engine, the records and the images' registries."),
    "down": ("down:down", "Remove everything that coreflow made for a cluster. Data stays."),
    "networks": ("networks:networks", "Make the base networks, where there are none, for a stack to join."),
    "health": ("health:health", "Ask the daemon on this machine whether it is well."),
    "schema": ("schema:schema", "Print the JSON Schema of a cluster file, for editors."),
    "version": ("version:version", "Print the versions of coreflow and Python."),
}
"""Where each command is, and what the list of commands says of it."""


def _in_one_line(exc: CycloptsError) -> Text:
    return Text(f"error: {streams.clean(str(exc))}").append(
        "\nhint: coreflow --help, or --help behind a command"
    )


app = App(
    name="coreflow",
    help="Keep a Docker Swarm in the state that a file of records describes.",
    help_epilogue="A first look, without Docker: coreflow demo. Everything else: README.md and docs/.",
    version_flags=[],
    error_formatter=_in_one_line,
)
for _name, (_where, _help) in COMMANDS.items():
    app.command(f"coreflow.app.cli.{_where}", name=_name, help=_help, sort_key=list(COMMANDS).index(_name))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit status."""
    streams.tame(os.environ)
    with streams.owned() as results:
        app.help_formatter = "default" if sys.stdout.isatty() else "plain"
        app.console = streams.console_for()
        app.error_console = streams.console_for(sys.stderr)
        app.error_console.soft_wrap = True
        status = streams.status_after(results, _run(arguments))
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return app(arguments, result_action="return_value") or 0
    except SystemExit as exc:  # a wrong command line
        return exc.code if isinstance(exc.code, int) else 1
    except KeyboardInterrupt:  # before the command could take care of it
        return 128 + signal.SIGINT
