"""Everything that is wrong with a record, at once, and each with its file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.app.test_unknown_fields import Loaded, reconciler, shown
from tests.unit.app.worlds import NO_BASE, World, new_engine, play

from coreflow.adapters.file import FileCloudly
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.cli import check, present
from coreflow.app.cli.deploy import show_plan
from coreflow.app.cli.running import Format
from coreflow.app.loop import Problems

YAML = """\
configData: {id: test}
services:
  - id: id-fine
    data:
      name: fine
      registryTarget: {imageUrl: "good:1"}
  - id: id-shop
    data:
      name: shop shop
      registryTarget: {imageUrl: "good:1"}
      scaleFacto: 3
      ports:
        web: 70000
        custom:
          a.example.com: "0"
      domains:
        - b.example.com
        - name: "..."
          port: 5
      resources:
        memorySizeLimitMB: 1
      volumes:
        - {mountPath: data}
      healthCheck:
        command: []
  - id: id-typed
    name: typed
    antiAffinity: "yes"
    imageId: nowhere
    secretBundleId: nothing
    ports:
      web: 0
    environment:
      PORT: 80
"""
SHOP = {
    9: "name is not usable",
    13: "ports.web is not a port",
    15: "ports.custom.a.example.com is not a port",
    18: "domains[1].name is",
    21: "resources.memorySizeLimitMB is below",
    23: "volumes[0].mountPath is not an absolute path",
    25: "healthCheck.command is empty",
}
"""The line of each value that cannot be deployed."""
TYPED = {
    28: "expected true or false",
    29: "image nowhere does not exist",
    30: "secret bundle nothing does not exist",
    32: "ports.web is not a port",
    34: "expected text, got an integer",
}


def written(folder: Path) -> Path:
    """The file."""
    path = folder / "cluster.yaml"
    path.write_text(YAML)
    return path


def places(path: Path, reasons: tuple[str, ...]) -> dict[int, str]:
    """The lines at the ends of reasons, each with what stands before it."""
    found = {}
    for reason in reasons:
        text, bracket, place = reason.rpartition(" (")
        file, _, line = place.removesuffix(")").rpartition(":")
        assert (bracket, file) == (" (", str(path)), reason
        found[int(line)] = text
    assert len(found) == len(reasons), reasons
    return found


def test_every_error_has_its_line_in_plan_json_and_log(tmp_path: Path) -> None:
    """Of types, of values, of references, and unknown fields where they are errors: all are told at once."""
    path, world = written(tmp_path), World(engine=new_engine())
    calm, strict = Loaded(path), Loaded(path, strict=True)

    async def scene() -> None:
        state = await reconciler(calm, world).look()
        shop, typed = state.plan.rejections
        for rejection, expected in ((shop, SHOP), (typed, TYPED)):
            found = places(path, rejection.reasons)
            assert found.keys() == expected.keys(), found
            assert all(found[line].startswith(text) for line, text in expected.items()), found
        text = shown(lambda console: show_plan(state, Format.TEXT, console))
        assert all(reason in text for one in state.plan.rejections for reason in one.reasons)
        documents = present.plan_json(state)["rejected"]
        assert [one["reasons"] for one in documents] == [list(one.reasons) for one in state.plan.rejections]
        strictly = reconciler(strict, world)
        with capture_logs() as lines:
            problems = Problems()
            for _ in range(2):
                problems.report(await strictly.deploy(timeout=60), 0.0)
        told = {line["name"]: line["reason"] for line in lines if line["event"] == "rejected"}
        assert [line["event"] for line in lines].count("rejected") == 2
        assert set(places(path, tuple(told["shop shop"].split("; ")))) == {11, *SHOP}
        assert set(places(path, tuple(told["typed"].split("; ")))) == set(TYPED)

    play(scene)


async def test_check_tells_all_of_it(tmp_path: Path) -> None:
    """Values that cannot be deployed and references to nothing are found before anything is planned."""
    path = written(tmp_path)
    found: list[check.Finding] = []
    await check.examine(FileCloudly(path), SwarmPort(new_engine()), "memory", NO_BASE, found.append)
    failed = {
        finding.name: [f.text for f in found if f.name == finding.name] for finding in found if not finding.ok
    }
    assert set(places(path, tuple(failed["service shop shop"]))) == SHOP.keys()
    assert set(places(path, tuple(failed["service typed"]))) == TYPED.keys()
    assert len(failed) == 2


@pytest.mark.parametrize("indent", [None, 2])
async def test_json_has_lines_too(indent: int | None, tmp_path: Path) -> None:
    """A problem in a JSON file names the line, be it the only one."""
    path = tmp_path / "cluster.json"
    document: Any = {
        "configData": {"id": "c"},
        "services": [{"id": "s", "data": {"name": "a,]}\n", "scaleFactor": "3"}}],
    }
    path.write_text(json.dumps(document, indent=indent))
    (rejected,) = (await FileCloudly(path).records()).rejected
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "scaleFactor" in text)
    assert rejected.reasons[0].endswith(f" @ $.services[0].data.scaleFactor ({path}:{line})")


def test_the_file_is_gone_through_once_for_the_same_faults(tmp_path: Path) -> None:
    """A daemon that makes a pass a minute does not look for the same places again and again."""
    records = trio.run(FileCloudly(written(tmp_path)).records)
    assert records.origin.places is not None
    first = records.origin.places.below([records.origin.path(1)])
    assert records.origin.places.below([records.origin.path(1)]) is first
    assert first["$.services[1].data.ports.web"] == f"{tmp_path}/cluster.yaml:13"
    assert not any(path.startswith("$.services[0]") for path in first)
    assert "$.services[0].id" in records.origin.places.below([records.origin.path(0)])


def test_services_of_several_files_have_the_places_of_their_own(tmp_path: Path) -> None:
    """In a folder, a reason names the file that its record is in."""
    (tmp_path / "a.yaml").write_text(
        "configData: {id: c}\nservices:\n  - {id: a, name: a, registryTarget: {imageUrl: x}}\n"
    )
    (tmp_path / "b.yaml").write_text(
        "services:\n  - id: b\n    name: b\n    ports: {web: 0}\n    registryTarget: {imageUrl: x}\n"
    )
    cloudly, world = Loaded(tmp_path), World(engine=new_engine())

    async def scene() -> None:
        plan = (await reconciler(cloudly, world).look()).plan
        (reason,) = (reason for one in plan.rejections if one.name == "b" for reason in one.reasons)
        assert reason == f"ports.web is not a port (1 to 65535) ({tmp_path}/b.yaml:4)"

    play(scene)


def _service(identity: str, name: str) -> str:
    return f"  - id: {identity}\n    data: {{name: {name}, registryTarget: {{imageUrl: 'good:1'}}}}\n"


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_copied_id_removes_nothing_and_both_places_are_told(is_folder: bool, tmp_path: Path) -> None:
    """In one file, and in two of a folder: what runs under the name of either record stays."""
    head, world = "configData: {id: test}\nservices:\n", World(engine=new_engine())

    def write(second: str) -> Loaded:
        web, worker = _service("id-web", "web"), _service(second, "worker")
        (tmp_path / "a.yaml").write_text(head + web + ("" if is_folder else worker))
        if is_folder:
            (tmp_path / "b.yaml").write_text(f"services:\n{worker}")
        return Loaded(tmp_path)

    right, wrong = write("id-worker"), write("id-web")

    async def scene() -> None:
        assert (await reconciler(right, world).deploy(timeout=60)).is_stable
        world.engine.calls.clear()
        result = await reconciler(wrong, world).deploy(timeout=60)
        assert await world.names() == ["web", "worker"]
        assert world.engine.writes == 0
        told = "; ".join(reason for one in result.last.plan.rejections for reason in one.reasons)
        first, second = ("a.yaml:3", "b.yaml:2") if is_folder else ("a.yaml:3", "a.yaml:5")
        assert first in told
        assert second in told
        assert [note.name for note in result.last.plan.notes] == ["worker"]
        assert not result.last.knows_all_hosts

    play(scene)
