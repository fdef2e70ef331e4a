"""`coreflow health`."""

import sys
from typing import Annotated

from cyclopts import Parameter


def health(
    *,
    timeout: Annotated[float, Parameter(help="Seconds to wait for the answer.")] = 4.0,
) -> int:
    """Ask the daemon on this machine whether it is well, by its admin port. For health checks of containers.

    Exit status: 0 if it answers, else 1. A daemon that waits for its engine or its control plane is well.
    """
    from coreflow.adapters.probe import ask_health
    from coreflow.app.cli.running import guarded, read_settings

    def command() -> int:
        address = read_settings(need_records=False).admin_listen
        ask_health(address.host, address.port, timeout)
        sys.stdout.write("healthy\n")
        return 0

    return guarded(command)
