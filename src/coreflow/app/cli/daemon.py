"""`coreflow run`."""

from functools import partial

import trio

from coreflow.app import logs
from coreflow.app.cli.running import failing, read_settings, say
from coreflow.app.main import run_daemon
from coreflow.domain.errors import CoreflowError


def run() -> int:
    """Keep the Swarm as the records say, until SIGTERM.

    Settings come from the environment, .nogit/ and /run/secrets (docs/settings.md). A far side that is away is waited
    for; what runs stays as it is meanwhile.
    """
    settings = failing(partial(read_settings, need_records=True))
    if isinstance(settings, int):
        return settings
    logs.configure(settings.log_format, settings.log_level)
    try:
        trio.run(run_daemon, settings)
    except CoreflowError as exc:
        say(f"error: {exc}")
        return 1
    return 0
