"""`coreflow run`."""

import gc

from coreflow.app import logs
from coreflow.app.allocator import give_back
from coreflow.app.cli.running import Strict, guarded, read_settings
from coreflow.app.main import run_daemon
from coreflow.app.queued import unwaited


def run(*, strict: Strict = False) -> int:
    """Keep the Swarm in the state that the records describe, until SIGTERM.

    Settings come from the environment, .nogit/ and /run/secrets (docs/settings.md). A peer that is away is waited
    for; what runs stays as it is meanwhile. SIGHUP looks up everything again, images and
    certificates too; SIGUSR1 tries again what Swarm has rolled back; SIGTERM and Ctrl-C end it with status 0.
    """

    def command() -> int:
        from coreflow.adapters import net

        settings = read_settings(need_records=True, strict=strict)
        logs.configure(settings.log_format, settings.log_level)
        give_back()
        gc.collect()
        gc.freeze()  # what was imported stays: looking through it would stop everything for 20 ms now and then
        net.run(run_daemon, settings)
        return 0

    with unwaited(logs.lines_dropped):
        return guarded(command)
