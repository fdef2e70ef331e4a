"""`coreflow version`."""

import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Annotated

from cyclopts import Parameter


def version(
    *,
    engine: Annotated[bool, Parameter(help="Ask the engine, too.", negative=(), show_default=False)] = False,
) -> int:
    """Print the versions of coreflow and Python, with --engine that of the engine as well."""
    try:
        number = version_of("coreflow")
    except PackageNotFoundError:
        number = "(not installed)"
    sys.stdout.write(f"coreflow {number}\nPython {platform.python_version()}\n")
    return _engine() if engine else 0


def _engine() -> int:
    from coreflow.app.cli.running import read_settings, run
    from coreflow.app.main import open_docker

    async def command() -> int:
        async with open_docker(read_settings(need_records=False)) as docker:
            number, api = await docker.version()
        sys.stdout.write(f"Docker Engine {number} (API {api})\n")
        return 0

    return run(command)
