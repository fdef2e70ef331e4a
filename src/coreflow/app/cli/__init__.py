"""The command line. Commands are named by strings, so that `--help` and `version` import none of what the others need."""

import sys
from collections.abc import Sequence

from cyclopts import App

app = App(
    name="coreflow",
    help="Reconcile a Docker Swarm with a file of service records.",
    help_epilogue="A first look, without Docker: `coreflow demo`. Settings: docs/settings.md.",
    version_flags=["--version"],
)
_COMMANDS = {
    "demo": ("demo:demo", "Show it at work on a Swarm in memory: no Docker, no file, a few seconds."),
    "plan": ("deploy:plan", "Show what an apply would do, and why. Writes nothing."),
    "apply": ("deploy:apply", "Do what the plan says, and wait until it runs."),
    "run": ("daemon:run", "Keep the Swarm as the records say, until SIGTERM."),
    "check": ("check:check", "Check the settings, the engine, the records and the images' registries."),
    "version": ("version:version", "Print the versions of coreflow and Python."),
}
for _name, (_where, _help) in _COMMANDS.items():
    app.command(f"coreflow.app.cli.{_where}", name=_name, help=_help, sort_key=list(_COMMANDS).index(_name))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit status."""
    sys.exit(app(arguments, result_action="return_value") or 0)
