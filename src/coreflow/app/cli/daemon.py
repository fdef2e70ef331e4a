"""`coreflow run`."""

import gc
from pathlib import Path

from attrs import evolve

from coreflow.app import logs
from coreflow.app.allocator import give_back
from coreflow.app.cli.running import Records, Strict, guarded, read_settings
from coreflow.app.cli.verbosity import is_quiet, is_verbose
from coreflow.app.main import run_daemon
from coreflow.app.queued import unwaited
from coreflow.app.settings import Settings


def run(records: Records = None, *, strict: Strict = False) -> int:
    """Keep the Swarm in the state that the records describe, until SIGTERM.

    Settings come from the environment, .nogit/ and /run/secrets (docs/settings.md). A peer that is away is waited
    for; what runs stays as it is meanwhile. SIGHUP looks up everything again, images and
    certificates too; SIGUSR1 tries again what Swarm has rolled back; SIGTERM and Ctrl-C end it with status 0.
    """

    def command() -> int:
        from coreflow.adapters import net

        settings = read_settings(need_records=records is None, strict=strict)
        if records is not None:
            settings = of_file(settings, records)
        level = "debug" if is_verbose() else "warning" if is_quiet() else settings.log_level
        logs.configure(settings.log_format, level)
        give_back()
        gc.collect()
        gc.freeze()  # what was imported stays: looking through it would stop everything for 20 ms now and then
        net.run(run_daemon, settings)
        return 0

    with unwaited(logs.lines_dropped):
        return guarded(command)


def of_file(settings: Settings, records: Path) -> Settings:
    """The settings with a cluster file as the source of records, whatever `CLOUDLY_URL` names."""
    sources = {**settings.sources, "CLOUDLY_URL": "--records"}
    return evolve(settings, cloudly_url=records.absolute().as_uri(), sources=sources)
