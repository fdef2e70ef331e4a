"""`coreflow version`."""

import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


def version() -> int:
    """Print the versions of coreflow and Python."""
    try:
        number = version_of("coreflow")
    except PackageNotFoundError:
        number = "(not installed)"
    sys.stdout.write(f"coreflow {number} (Python {platform.python_version()})\n")
    return 0
