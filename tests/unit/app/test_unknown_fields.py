"""Fields that nobody reads, as an operator sees them: in plan, apply, check, JSON and the log."""

import io
import json
import re
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import yaml
from rich.console import Console
from structlog.testing import capture_logs
from tests.unit.app.test_cli import run
from tests.unit.app.worlds import NO_BASE, World, cluster, new_engine, play, service
from tests.unit.domain.records.test_unknown import MISTAKES

from coreflow.adapters.cloudly.fetching import _without_unknown
from coreflow.adapters.file import FileCloudly
from coreflow.adapters.memory import MemoryCloudly
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.cli import check, present, verbosity
from coreflow.app.cli.deploy import NO_BASE as NO_BASE_SERVICES
from coreflow.app.cli.deploy import show_plan, show_result
from coreflow.app.cli.running import Format
from coreflow.app.cli.verbosity import Verbosity
from coreflow.app.loop import Problems
from coreflow.app.reconcile import Reconciler
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.models import Records

Json = dict[str, Any]
FILE = cluster(service("shop", **dict.fromkeys(MISTAKES, "CANARY")), service("blog"))


def written(folder: Path, document: Json = FILE) -> Path:
    """A cluster file."""
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def line_of(path: Path, word: str) -> int:
    """The line that begins with a key."""
    lines = path.read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{word}:"))
    return number


class Loaded(MemoryCloudly):
    """A control plane with the records of a file: reading it is a matter of real time, which a mock clock jumps over."""

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        super().__init__({})
        self._loaded = trio.run(FileCloudly(path, strict=strict).records)

    async def records(self) -> Records:
        """Those of the file."""
        await trio.lowlevel.checkpoint()
        return self._loaded


def reconciler(cloudly: Loaded, world: World) -> Reconciler:
    """One on a cluster file."""
    return Reconciler(cloudly, SwarmPort(world.engine), render=NO_BASE)


def shown(print_it: Any) -> str:
    """What is printed in a pipe."""
    console = Console(file=(text := io.StringIO()), width=80)
    print_it(console)
    return text.getvalue()


def test_nine_mistakes_are_nine_notes_with_file_and_line(tmp_path: Path) -> None:
    """In the plan, at the end of an apply, in JSON and once in the log; the service is deployed."""
    path, world = written(tmp_path), World(engine=new_engine())
    cloudly = Loaded(path)

    async def scene() -> None:
        one = reconciler(cloudly, world)
        state = await one.look()
        text = shown(lambda console: show_plan(state, Format.TEXT, console))
        for name, meant in MISTAKES.items():
            place = f"{path}:{line_of(path, name)}"
            sentence = (
                f"nobody reads the field {name}: did you mean {meant}? @ $.services[0].data.{name} ({place})"
            )
            assert re.search(rf"^ *i note +shop +{re.escape(sentence)}$", text, re.MULTILINE)
            assert {
                "path": f"$.services[0].data.{name}",
                "suggestion": meant,
                "place": place,
                "kind": "service",
                "id": "id-shop",
                "name": "shop",
            } in present.plan_json(state)["unknown_fields"]
        assert len(present.plan_json(state)["notes"]) == len(MISTAKES)
        with capture_logs() as lines:
            problems = Problems()
            for _ in range(3):
                result = await one.deploy(timeout=60)
                problems.report(result, 0.0)
        assert result.is_stable
        (line,) = (line for line in lines if line["event"] == "note")
        assert all(name in line["reason"] for name in MISTAKES)
        end = shown(lambda console: show_result(result, Format.TEXT, console))
        assert end.count("nobody reads") == len(MISTAKES)
        assert "CANARY" not in text + end + json.dumps(present.result_json(result)) + str(lines)

    play(scene)


def test_a_secret_that_became_a_key_is_shown_nowhere(tmp_path: Path) -> None:
    """Not in the plan, at the end of an apply, in JSON or in the log, strictly or not; where it is, is."""
    group = {"id": "g", "key": "K", "environments": {"production": {"value:CANARY": None}}}
    bundle = {"id": "b", "name": "b", "type": "service", "includedSecretGroupIds": ["g"]}
    document = cluster(service("shop", secretBundleId="b"))
    path = written(tmp_path, {**document, "secretGroups": [group], "secretBundles": [bundle]})
    world = World(engine=new_engine())
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "CANARY" in text)

    sources = [Loaded(path), Loaded(path, strict=True)]

    async def scene() -> None:
        for cloudly in sources:
            one = reconciler(cloudly, world)
            state = await one.look()
            plan = shown(lambda console: show_plan(state, Format.TEXT, console))  # noqa: B023 - called at once
            with capture_logs() as lines:
                problems = Problems()
                result = await one.deploy(timeout=60)
                problems.report(result, 0.0)
            end = shown(lambda console: show_result(result, Format.TEXT, console))  # noqa: B023
            asjson = json.dumps([present.plan_json(state), present.result_json(result)])
            for text in (plan, end, asjson, str(lines)):
                assert "CANARY" not in text
                assert "a space is missing after the colon of value" in text
                assert f"{path}:{line}" in text or f"{path}:{line - 1}" in text  # its own, or its mapping's

    play(scene)


def test_strict_rejects_the_record_and_leaves_what_runs(tmp_path: Path) -> None:
    """Nine reasons with file and line; what the record had deployed before stays, and others go on."""
    good = {**FILE, "services": [service("shop"), service("blog", scaleFactor=2)]}
    earlier = Loaded(written(tmp_path, {**good, "services": good["services"][:1]}))
    later, world = Loaded(path := written(tmp_path), strict=True), World(engine=new_engine())

    async def scene() -> None:
        await reconciler(earlier, world).deploy(timeout=60)
        before = await world.live("shop")
        result = await reconciler(later, world).deploy(timeout=60)
        (rejection,) = result.last.plan.rejections
        assert (rejection.unit, rejection.name, rejection.held) == ("id-shop", "shop", False)
        assert list(rejection.reasons) == [
            f"nobody reads the field {name}: did you mean {meant}? @ $.services[0].data.{name} ({path}:{line_of(path, name)})"
            for name, meant in MISTAKES.items()
        ]
        assert await world.live("shop") == before
        assert await world.names() == ["blog", "shop"]
        assert not result.is_stable
        assert result.last.records.unknown == ()

    play(scene)


async def test_check_notes_them_and_fails_only_strictly(tmp_path: Path) -> None:
    """A note is no failure; a rejected record is."""
    path, engine = written(tmp_path), new_engine()
    for strict in False, True:
        found: list[check.Finding] = []
        cloudly = FileCloudly(path, strict=strict)
        await check.examine(cloudly, SwarmPort(engine), "memory", NO_BASE, found.append)
        about = [finding for finding in found if "nobody reads" in finding.text]
        assert [finding.ok for finding in about] == [not strict] * len(MISTAKES)
        text = shown(lambda console: check.print_findings(console, found))  # noqa: B023 - called at once
        assert ("All is well." in text) is not strict
        assert ("  note record" in text) is not strict


def test_quietly_a_note_that_explains_a_failure_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt key for the bundles is why a bundle is missing; a note about a service that is well is left out."""
    monkeypatch.setattr(verbosity, "_verbosity", ContextVar[Verbosity]("verbosity", default=Verbosity.QUIET))
    broken, well = service("shop", secretBundleId="b"), service("blog", scaleFacto=2)
    document = {"configData": FILE["configData"], "services": [broken, well], "secretBundels": []}
    explained, unrelated = "nobody reads the field secretBundels", "nobody reads the field scaleFacto"
    cloudly, world = Loaded(written(tmp_path, document)), World(engine=new_engine())

    async def scene() -> tuple[str, str, str]:
        one = reconciler(cloudly, world)
        state = await one.look()
        planned = shown(lambda console: show_plan(state, Format.TEXT, console))
        result = await one.deploy(timeout=60)
        applied = shown(lambda console: show_result(result, Format.TEXT, console))
        found: list[check.Finding] = []
        await check.examine(cloudly, SwarmPort(world.engine), "memory", NO_BASE, found.append)
        checked = shown(lambda console: check.print_findings(console, found, failures_only=True))
        return planned, applied, checked

    for text in play(scene):
        assert "secret bundle b does not exist" in text
        assert explained in text
        assert unrelated not in text


def test_base_services_that_cannot_be_had_are_met_with_the_way_to_do_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In plan, apply and check, and only where they cannot be had."""
    base = BaseOptions(services=("corelog",), images={"corelog": "registry.example.com/log:1"})
    world = World(render=RenderOptions(base=base))
    world.engine.push("registry.example.com/log:1")

    async def scene(up: bool) -> None:
        world.engine.registries["registry.example.com"].up = up
        one = world.reconciler()
        state = await one.look()
        shown(lambda console: show_plan(state, Format.TEXT, console))
        result = await one.deploy(timeout=5)
        shown(lambda console: show_result(result, Format.TEXT, console))
        found: list[check.Finding] = []
        port = SwarmPort(world.engine)
        await check.examine(world.cloudly, port, "memory", world.render, found.append)
        (image,) = (finding for finding in found if finding.what == "image")
        assert (image.ok, image.hint) == ((True, "") if up else (False, NO_BASE_SERVICES))

    play(lambda: scene(up=False))
    assert capsys.readouterr().err.splitlines() == [f"hint: {NO_BASE_SERVICES}"] * 2
    play(lambda: scene(up=True))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("environ", [{"COREFLOW_STRICT": "true"}, {}])
def test_the_option_and_the_setting_do_the_same(environ: dict[str, str], tmp_path: Path) -> None:
    """Either makes unknown fields an error; `check` says where that comes from."""
    path = written(tmp_path)
    arguments = ["check", "--records", str(path), *([] if environ else ["--strict"])]
    done = run(*arguments, cwd=tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock", **environ)
    assert done.returncode == 1
    assert done.stdout.count("failed record") == len(MISTAKES), done.stdout
    source = "environment" if environ else "--strict"
    (row,) = (line for line in done.stdout.splitlines() if "COREFLOW_STRICT" in line)
    assert row.split() == ["COREFLOW_STRICT", "true", source]


def test_a_control_plane_is_not_told_off() -> None:
    """What it sends beyond what we know is one line for those who debug, without a value."""
    records = decode_records(FILE)
    with capture_logs() as lines:
        quiet = _without_unknown(records)
        assert _without_unknown(quiet) is quiet
    assert quiet == attrs.evolve(records, unknown=())
    (line,) = lines
    assert (line["log_level"], line["number"]) == ("debug", len(MISTAKES))
    assert line["paths"][0] == "$.services[0].data.scaleFacto"
    assert "CANARY" not in str(line)
