"""The journal of a command that acts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coreflow.app.cli.running import say
from coreflow.app.journaling import NO_RECORDER, Recorder
from coreflow.app.peers import open_journal, recorder_of
from coreflow.app.settings import Settings


@asynccontextmanager
async def journaled(settings: Settings) -> AsyncIterator[Recorder]:
    """Keep the journal where the settings name a folder for it; else nobody would read it."""
    if settings.state_dir is None:
        yield NO_RECORDER
        return
    async with open_journal(settings) as journal:
        yield recorder_of(journal, "command")
        await journal.kept()
        if journal.problem:
            say(f"warning: the journal in {settings.state_dir} is not written: {journal.problem}")
