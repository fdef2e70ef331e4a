"""`coreflow version`."""

import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Annotated, Literal

from cyclopts import Parameter

from coreflow.app.streams import json_text


def version(
    *,
    engine: Annotated[bool, Parameter(help="Ask the engine, too.", negative=(), show_default=False)] = False,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["text", "json"], Parameter(help="Output format: text, or JSON for programs.")
    ] = "text",
) -> int:
    """Print the versions of coreflow and Python, with --engine that of the engine as well."""
    if format == "text":
        sys.stdout.write(f"{short()}\nPython {platform.python_version()}\n")
    elif not engine:
        _write_json(None)
    return _engine(is_json=format == "json") if engine else 0


def short() -> str:
    """`coreflow 1.2.3`, as --version has it."""
    return f"coreflow {_number()}"


def _number() -> str:
    try:
        return version_of("coreflow")
    except PackageNotFoundError:
        return "(not installed)"


def _write_json(engine: dict[str, str] | None) -> None:
    document = {"coreflow": _number(), "python": platform.python_version(), "engine": engine}
    sys.stdout.write(json_text(document, indent=2) + "\n")


def _engine(*, is_json: bool) -> int:
    from coreflow.app.cli.running import Format, read_settings, run
    from coreflow.app.peers import open_docker

    async def command() -> int:
        async with open_docker(read_settings(need_records=False)) as docker:
            number, api = await docker.version()
        if is_json:
            _write_json({"version": number, "api": api})
        else:
            sys.stdout.write(f"Docker Engine {number} (API {api})\n")
        return 0

    return run(command, Format.JSON if is_json else Format.TEXT)
