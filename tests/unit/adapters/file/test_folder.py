"""A folder of cluster files, read as one."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.unit.domain.records.test_salvage import rendered_records

from coreflow.adapters.file import FileCloudly
from coreflow.domain.deploy.desired import Rejection
from coreflow.domain.errors import InvalidRecord, Unavailable
from coreflow.domain.records.models import Records

CONFIG: dict[str, Any] = {"configData": {"id": "lake", "data": {"name": "lake"}}}


def service(short: str, **data: object) -> dict[str, Any]:
    """A service record."""
    return {"id": f"svc-{short}", "data": {"name": short, **data}}


def write(folder: Path, name: str, text: str | dict[str, Any]) -> None:
    """Write one file of the folder."""
    (folder / name).write_text(text if isinstance(text, str) else json.dumps(text))


async def names(folder: Path) -> list[str]:
    """The services in their order."""
    return [one.name for one in (await FileCloudly(folder).records()).services]


async def test_files_follow_each_other(tmp_path: Path) -> None:
    """Lists are joined in the order of the names; hidden files, folders and other files are left out."""
    write(tmp_path, "20-more.json", {"services": [service("c")]})
    write(tmp_path, "10-services.yaml", "services:\n- {id: svc-a, name: a}\n- {id: svc-b, name: b}\n")
    write(tmp_path, "00-cluster.yml", CONFIG)
    write(tmp_path, ".hidden.yaml", "][")
    write(tmp_path, "10-services.yaml~", "][")
    write(tmp_path, "README.md", "][")
    (tmp_path / "folder.yaml").mkdir()
    assert await names(tmp_path) == ["a", "b", "c"]


async def test_problems_have_their_own_file_and_line(tmp_path: Path) -> None:
    """Whatever is wrong is found where it was written."""
    write(tmp_path, "a.yaml", "configData: {id: lake, name: lake}\nservices:\n- {id: svc-a, name: a}\n")
    write(
        tmp_path,
        "b.yaml",
        "services:\n- {id: svc-b, name: b}\n- id: svc-c\n  name: c\n  scaleFactor: many\n  colour: x\n",
    )
    records = await FileCloudly(tmp_path).records()
    (rejected,) = records.rejected
    assert any(f"({tmp_path}/b.yaml:5)" in reason for reason in rejected.reasons)
    assert [one.place for one in records.unknown] == [f"{tmp_path}/b.yaml:6"]
    write(tmp_path, "b.yaml", "services:\n- {id: svc-b, name: b}\n- {\n")
    with pytest.raises(InvalidRecord, match=r"b\.yaml:\d"):
        await FileCloudly(tmp_path).records()


async def test_what_there_can_be_once(tmp_path: Path) -> None:
    """Two files with a cluster are refused as a whole, with both places."""
    write(tmp_path, "a.yaml", "configData: {id: lake}\nservices: []\n")
    write(tmp_path, "b.yaml", "images: []\nconfigData: {id: sea}\n")
    with pytest.raises(InvalidRecord) as caught:
        await FileCloudly(tmp_path).records()
    (problem,) = caught.value.problems
    assert problem.path == f"{tmp_path}/b.yaml:2"
    assert problem.text == f"configData is in {tmp_path}/a.yaml:1 already, and there can be one only"
    write(tmp_path, "b.yaml", "[]")
    with pytest.raises(InvalidRecord, match="expected a mapping, got a list"):
        await FileCloudly(tmp_path).records()


async def test_a_record_that_two_files_have(tmp_path: Path) -> None:
    """Neither is used, each says where the other is, and everything else goes on."""
    write(
        tmp_path,
        "a.yaml",
        "configData: {id: lake}\nservices:\n- {id: svc-a, name: a}\n- {id: svc-b, name: b}\n",
    )
    write(tmp_path, "b.yaml", "services:\n- {id: svc-c, name: c}\n- {id: svc-a, name: other}\n")
    certificate = "{domainName: h, privateKey: k, publicKey: p}"
    for name in ("c.yaml", "d.yaml"):
        write(tmp_path, name, f"certificates:\n  h.example.com: {certificate}\n  {name}: {certificate}\n")
    records = await FileCloudly(tmp_path).records()
    assert [one.name for one in records.services] == ["b", "c"]
    told = {(one.kind, one.id): one.reasons for one in records.rejected}
    reasons = [reason for one in records.rejected if one.kind == "service" for reason in one.reasons]
    assert f"the same id is in {tmp_path}/b.yaml:3 @ $.services[0].id ({tmp_path}/a.yaml:3)" in reasons
    assert f"the same id is in {tmp_path}/a.yaml:3 @ $.services[3].id ({tmp_path}/b.yaml:3)" in reasons
    (reason,) = told["certificate", "h.example.com"]
    assert f"2 files have it: {tmp_path}/c.yaml:2 and {tmp_path}/d.yaml:2" in reason
    assert set(records.certificates) == {"c.yaml", "d.yaml"}
    assert records.unknown == ()


async def test_a_record_that_two_files_have_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    """Its id, its name and its content are read as ever: nothing else is said of it than what is wrong with it."""
    image = "registryTarget: {imageUrl: a:1}"
    write(
        tmp_path,
        "a.yaml",
        f"configData: {{id: lake}}\nservices:\n- id: svc-a\n  data:\n    name: a\n    {image}\n",
    )
    write(tmp_path, "b.yaml", f"services:\n- {{id: svc-a, name: other, {image}}}\n")
    records = await FileCloudly(tmp_path).records()
    assert [(one.id, one.name, one.reasons) for one in records.rejected] == [
        ("svc-a", "a", (f"the same id is in {tmp_path}/b.yaml:2 @ $.services[0].id ({tmp_path}/a.yaml:3)",)),
        (
            "svc-a",
            "other",
            (f"the same id is in {tmp_path}/a.yaml:3 @ $.services[1].id ({tmp_path}/b.yaml:2)",),
        ),
    ]
    for one in records.rejected:
        assert one.salvaged is not None
        assert one.salvaged.unread == {"id"}
        assert one.salvaged.record.registry_target is not None
        rejections = [r for r in _rejections(records) if r.name == one.name]
        assert [list(r.reasons) for r in rejections] == [list(one.reasons)]


def _rejections(records: Records) -> tuple[Rejection, ...]:
    """The services that a plan would reject."""
    return rendered_records(records).rejections


async def test_a_member_that_two_files_have_is_named_only_if_it_looks_like_one(tmp_path: Path) -> None:
    """Any folder may be taken for that of a cluster, and its lines for members."""
    write(tmp_path, "a.yaml", "configData: {id: lake}\n'root:CANARY': 1\n")
    write(tmp_path, "b.yaml", "'root:CANARY': 1\n")
    with pytest.raises(InvalidRecord) as caught:
        await FileCloudly(tmp_path).records()
    assert "CANARY" not in str(caught.value)
    assert f"{tmp_path}/a.yaml:2" in str(caught.value)


async def test_a_folder_without_files(tmp_path: Path) -> None:
    """It is not a cluster without services."""
    with pytest.raises(Unavailable, match=r"the folder has no file that ends in \.yaml"):
        await FileCloudly(tmp_path).records()


async def test_changes_of_any_file_are_noticed(tmp_path: Path) -> None:
    """One that is written to, one that is new, one that is gone."""
    write(tmp_path, "a.yaml", CONFIG)
    write(tmp_path, "b.yaml", {"services": [service("b")]})
    cloudly = FileCloudly(tmp_path, poll_seconds=0.01)
    first = await cloudly.records()
    assert await cloudly.records() is first

    async def noticed() -> list[str]:
        with trio.fail_after(5):
            await anext(aiter(changes))
        return [one.name for one in (await cloudly.records()).services]

    async with cloudly.changes() as changes:
        with (tmp_path / "b.yaml").open("w") as file:
            json.dump({"services": [service("b"), service("bb")]}, file)
        assert await noticed() == ["b", "bb"]
        write(tmp_path, "c.yaml", {"services": [service("c")]})
        assert await noticed() == ["b", "bb", "c"]
        (tmp_path / "b.yaml").unlink()
        assert await noticed() == ["c"]


async def test_archives_are_in_the_folder(tmp_path: Path) -> None:
    """A `storagePath` is relative to the folder itself, and so is a reference."""
    (tmp_path / "token").write_text("x")
    write(tmp_path, "a.yaml", CONFIG)
    write(tmp_path, "b.yaml", {"services": [service("b", environment={"A": {"fromFile": "token"}})]})
    (one,) = (await FileCloudly(tmp_path).records()).services
    assert one.environment == {"A": "x"}
