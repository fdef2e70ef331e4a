"""`coreflow help` and `coreflow completion`."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

Shell = Literal["bash", "zsh", "fish"]


def help(command: Annotated[str | None, Parameter(help="The command to describe.")] = None, /) -> int:  # noqa: A001 - the command's name
    """Describe a command, or list them all."""
    from coreflow.app.cli import app

    if command is not None and command not in app:
        app([command])  # says that there is no such command, and which there are
    app.meta(["--help"] if command is None else [command, "--help"], result_action="return_value")
    return 0


def completion(shell: Annotated[Shell, Parameter(help="The shell that reads it.")], /) -> int:
    """Print the script that lets a shell complete commands, options and files.

    docs/commands.md says where each shell looks for it.
    """
    from coreflow.app.cli import app

    sys.stdout.write(app.meta.generate_completion(shell=shell, prog_name="coreflow").rstrip() + "\n")
    return 0
