"""What the README and the docs of the command line show is true."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App
from tests.unit.app.test_cli import run
from tests.unit.app.worlds import NO_BASE, World, play

from coreflow.adapters.memory import MemoryCloudly, MemoryEngine
from coreflow.app.cli import COMMANDS, app
from coreflow.domain.records.schema import json_schema

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text()


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_first_cluster_file_works() -> None:
    """Its service runs with its secret, its limit and its variables, and a second apply has nothing to do."""

    async def scene() -> None:
        world = World(
            engine=MemoryEngine(), cloudly=MemoryCloudly(yaml.safe_load(_block("yaml"))), render=NO_BASE
        )
        world.engine.push("docker.io/nginx:1.27")
        world.engine.add_image("nginx:1.27")
        first = await world.reconciler().deploy(timeout=60)
        assert first.is_stable, first.last.plan
        live = (await world.live("hello"))["Spec"]
        assert live["Mode"]["Replicated"]["Replicas"] == 2
        container = live["TaskTemplate"]["ContainerSpec"]
        assert container["Env"] == ["MODE=production"]
        (secret,) = container["Secrets"]
        assert secret["File"]["Name"] == "secret.json"
        assert world.engine.secret_payload(secret["SecretName"]) == b'{"API_TOKEN":"change-me"}'
        again = await world.reconciler().deploy(timeout=60)
        assert again.applied == ()
        assert again.is_stable

    play(scene)


def test_the_embedding_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The program of the README settles a Swarm in memory, and does nothing the second time."""
    program = _block("python")
    assert program.rstrip().endswith("trio.run(main)")
    names: dict[str, Any] = {}
    exec(compile(program.replace("trio.run(main)", ""), "README.md", "exec"), names)  # noqa: S102 - our own
    play(names["main"])
    assert capsys.readouterr().out == "True 3 0\n"


def test_the_set_up_commands_are_the_ones_that_work() -> None:
    """The first one installs what it takes to run, the second what it takes to test; both name files that exist."""
    first, second = re.findall(r"^    (.*pip install .*)$", README, re.MULTILINE)
    assert first == (
        "python3 -m venv .venv && . .venv/bin/activate && pip install -q --disable-pip-version-check -c constraints.txt -e . && coreflow demo"
    )
    assert second == (
        "pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]' && python -m pytest -q -n 2 --dist loadgroup"
    )
    assert (ROOT / "constraints.txt").exists()


def test_the_picture_of_a_plan_is_the_one_of_the_demo(tmp_path: Path) -> None:
    assert _block("text") in run("demo", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    "line", re.findall(r"^    (?:[A-Z_]+=\S* )*(coreflow .*?)(?:  +#.*)?$", README, re.MULTILINE)
)
def test_commands_of_the_readme_are_understood(line: str) -> None:
    """As far as the command line goes: every command, option and argument is one."""
    words = shlex.split(line.partition(" > ")[0])[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)
    assert words[0] in COMMANDS


def test_every_command_and_option_is_documented() -> None:
    """docs/commands.md names every command and every option."""
    for name in COMMANDS:
        assert f"coreflow {name}" in COMMANDS_PAGE
        command = app[name]
        assert isinstance(command, App)
        for argument in command.assemble_argument_collection():
            assert argument.name in COMMANDS_PAGE, (name, argument.name)


def test_the_json_members_are_documented() -> None:
    """docs/commands.md names every member of both documents."""
    from coreflow.app.cli import present

    async def scene() -> dict[str, Any]:
        return present.result_json(await World().reconciler().deploy(timeout=1))

    for member in play(scene):
        assert f"| `{member}` |" in COMMANDS_PAGE, member


def test_the_schema_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """As the README has it: one JSON document, for the file that the editor line names."""
    assert app("schema", result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert app(["schema", "--part"], result_action="return_value") == 0
    assert json.loads(capsys.readouterr().out) == json_schema(part=True)
    assert "coreflow schema > cluster.schema.json" in README
    assert _block("yaml").startswith("# yaml-language-server: $schema=cluster.schema.json\n")
