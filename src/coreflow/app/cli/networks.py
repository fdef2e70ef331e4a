"""`coreflow networks`."""

from contextlib import suppress
from functools import partial

from attrs import frozen
from rich.text import Text

from coreflow.app.cli import present
from coreflow.app.cli.journaled import journaled
from coreflow.app.cli.running import read_settings, run
from coreflow.app.cli.verbosity import is_quiet
from coreflow.app.journaling import NO_RECORDER, Recorder
from coreflow.app.peers import open_docker
from coreflow.app.streams import console_for
from coreflow.domain.deploy.networks import base_networks, missing_networks
from coreflow.domain.errors import LostRace
from coreflow.domain.ids import ClusterId
from coreflow.domain.ports import DockerPort
from coreflow.domain.swarm.actions import Create

NO_CLUSTER = ClusterId("")
"""Networks belong to the Swarm: which records will be deployed on them is not known yet."""


@frozen(kw_only=True)
class Made:
    """The base networks, and what became of them."""

    made: tuple[str, ...] = ()
    existing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """Why one that exists cannot be used: then none is made."""


def networks() -> int:
    """Make the base networks, sznwebgateway and szncorechat, where they do not exist. For stacks that are to join them.

    Exit status: 0; 1 when one that exists cannot be used, or the engine refuses.
    """

    async def command() -> int:
        settings = read_settings(need_records=False)
        async with open_docker(settings) as docker, journaled(settings) as recorder:
            result = await make_networks(docker, recorder)
        _print(result)
        return 1 if result.problems else 0

    return run(command)


async def make_networks(docker: DockerPort, recorder: Recorder = NO_RECORDER) -> Made:
    """Make those that do not exist. One that somebody else makes meanwhile exists, too."""
    observed = await docker.observe()
    wanted, problems = base_networks(observed, NO_CLUSTER)
    if problems:
        return Made(problems=problems)
    missing = missing_networks(wanted, observed)
    made: list[str] = []
    for spec in missing:
        with suppress(LostRace):
            action = Create(spec, "new")
            await recorder.act(action, partial(docker.apply, action))
            made.append(spec.name)
    return Made(made=tuple(made), existing=tuple(spec.name for spec in wanted if spec.name not in made))


def _print(result: Made) -> None:
    console = console_for()
    kind = "network"
    rows = [
        *(present.Row(mark=present.MARKS["create"], kind=kind, name=n, reason="made") for n in result.made),
        *(present.Row(mark=present.WAITING, kind=kind, name=n, reason="exists") for n in result.existing),
    ]
    if rows and not is_quiet():
        present.print_blocks(console, [present.Block("networks", tuple(rows))])
    for problem in result.problems:
        present.print_line(console, Text(problem, "bold red"))
