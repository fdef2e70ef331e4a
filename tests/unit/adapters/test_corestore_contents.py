"""What Corestore answers of volumes, snapshots and its archive, in whichever shape."""

import re
from typing import Any

import pytest

from coreflow.adapters.archive import is_path
from coreflow.adapters.corestore import methods as m
from coreflow.adapters.corestore.parse_archive import objects, snapshot, snapshots, volumes
from coreflow.domain.backup.snapshots import ArchiveObject, Snapshot, StoredVolume
from coreflow.domain.errors import Refused
from coreflow.domain.ids import ServiceId

DIGEST = "0123456789abcdef" * 4
TAGS = {"backupId": "b1", "serviceId": "s1"}
NO_SIZES: tuple[object, ...] = (-1, "x", "5.5", True, "1" * 30, [], 1e30)
OBJECT = ArchiveObject(path="packs/x", size=5, sha256=DIGEST)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], ()),
        ({"volumes": []}, ()),
        ({"items": [{"name": "v"}], "other": 1}, (StoredVolume(name="v"),)),
        (
            [{"name": "v", "serviceId": "s", "sizeBytes": 5, "mountpoint": "/x"}],
            (StoredVolume(name="v", service_id=ServiceId("s"), size_bytes=5),),
        ),
        ([{"name": "v", "size": "5"}], (StoredVolume(name="v", size_bytes=5),)),
        ([{"name": "v", "size": 5.0}], (StoredVolume(name="v", size_bytes=5),)),
        (
            [{"name": "v", "options": {"serviceId": "s"}}],
            (StoredVolume(name="v", service_id=ServiceId("s")),),
        ),
        ([{"name": "v", "labels": {"serviceId": 7}}], (StoredVolume(name="v", service_id=ServiceId("7")),)),
        (
            [{"name": "v", "size": bad} for bad in NO_SIZES],
            (StoredVolume(name="v"),) * 7,
        ),
        ([{}, None, "v", {"name": ""}, {"name": ["v"]}, {"id": "v"}], ()),
        (None, None),
        ({}, None),
        ({"volumes": {}}, None),
        ("x", None),
    ],
)
def test_volumes(body: object, expected: tuple[StoredVolume, ...] | None) -> None:
    """What can be used of a list, which may be the whole answer."""
    assert volumes(body) == expected


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("volume", "volume"),
        ("Volumes", "volume"),
        ("DB", "database"),
        ("mongo-db", "database"),
        ("S3", "objectstorage"),
        ("bucket", "objectstorage"),
        ("objectStorage", "objectstorage"),
        ("object_storage", "objectstorage"),
        ("object store", "objectstorage"),
        ("queue", None),
        ("", None),
        (None, None),
        (["volume"], None),
    ],
)
def test_kinds(raw: object, kind: str | None) -> None:
    """However they are spelled; one of another kind is none of ours."""
    found = snapshots([{"id": "1", "kind": raw}])
    assert found is not None
    assert [one.kind for one in found] == ([] if kind is None else [kind])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"id": "1"}, {}),
        ({"snapshotId": 1}, {}),
        ({"id": "1", "name": "v", "serviceId": "s"}, {"name": "v", "service_id": "s"}),
        ({"id": "1", "createdAt": 17}, {"created_ms": 17}),
        ({"id": "1", "createdAt": "17"}, {"created_ms": 17}),
        ({"id": "1", "created": "1970-01-01T00:00:01Z"}, {"created_ms": 1000}),
        ({"id": "1", "created": "1970-01-01T00:00:01.5"}, {"created_ms": 1500}),
        ({"id": "1", "created": "yesterday"}, {}),
        ({"id": "1", "size": "9", "extra": {}}, {"size_bytes": 9}),
        (
            {"id": "1", "tags": {"a": "b", "c": 5, "d": None, "e": [], "f": ""}},
            {"tags": {"a": "b", "c": "5", "f": ""}},
        ),
        ({"id": "1", "tags": ["a"]}, {}),
        ({"id": ""}, None),
        ({"id": True}, None),
        ({}, None),
    ],
)
def test_snapshots(raw: dict[str, Any], expected: dict[str, Any] | None) -> None:
    """What is said of them, in several spellings; without an id there is none."""
    found = snapshots({"snapshots": [{**raw, "type": "volume"}]})
    assert found == (() if expected is None else (Snapshot(**{"id": "1", "kind": "volume", **expected}),))


ONE = {"id": "1", "kind": "volume"}


@pytest.mark.parametrize(
    "body",
    [
        ONE,
        [ONE],
        {"snapshot": ONE, "ok": True},
        {"snapshot": [ONE]},
        {"snapshots": [ONE]},
        {"snapshots": ONE},
        {"snapshot": ONE, "snapshots": [ONE]},
        {"snapshots": [{"id": "2", "kind": "database"}, ONE]},
        {"snapshots": [{}, ONE]},
        {"snapshotId": "1"},
        {"snapshot": {"snapshotId": "1", "kind": "Volume"}},
    ],
)
def test_a_snapshot_that_was_taken(body: object) -> None:
    """Wherever it stands; what is not said is as it was asked for."""
    expected = Snapshot(id="1", kind="volume", name="v", tags=TAGS)
    assert snapshot(body, "volume", "v", TAGS) == expected


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [],
        "1",
        {"snapshot": None},
        {"snapshots": []},
        {"snapshot": {"kind": "volume"}},
        {"snapshot": {"id": "1", "kind": "database"}},
        {"snapshot": {"id": "1", "kind": "queue"}},
        {"snapshots": [ONE, {**ONE, "id": "2"}]},
    ],
)
def test_no_snapshot_that_was_taken(body: object) -> None:
    """None, one of another kind, or more than one."""
    assert snapshot(body, "volume", "v", TAGS) is None


@pytest.mark.parametrize(
    "raw",
    [
        {"path": "packs/x", "size": 5, "sha256": DIGEST},
        {"key": "packs/x", "sizeBytes": "5", "hash": DIGEST.upper()},
        {"name": "packs/x", "size": 5.0, "sha256": f"sha256:{DIGEST}", "etag": "x"},
    ],
)
def test_objects(raw: object) -> None:
    """In several spellings; one that is told twice is one."""
    for body in ([raw], {"objects": [raw, raw]}, {"items": [raw]}):
        assert objects(body) == (OBJECT,)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": None},
        {"path": ""},
        {"path": 7},
        {"path": "/x"},
        {"path": "a/../x"},
        {"path": "a\\x"},
        {"path": "a\x00x"},
        {"size": None},
        {"size": -1},
        {"size": "x"},
        {"size": True},
        {"sha256": None},
        {"sha256": "x"},
        {"sha256": DIGEST[:-1]},
        {"sha256": "g" * 64},
    ],
)
def test_an_object_that_cannot_be_used(changes: dict[str, object]) -> None:
    """Then nobody knows what the archive has: the whole list is refused."""
    fine = {"path": "packs/x", "size": 5, "sha256": DIGEST}
    with pytest.raises(Refused, match="an entry that cannot be used"):
        objects([{**fine, "path": "y"}, {**fine, **changes}])


def test_objects_that_contradict_each_other() -> None:
    """One path with two contents, or no object at all."""
    fine = {"path": "packs/x", "size": 5, "sha256": DIGEST}
    for other in ({**fine, "size": 6}, None, "packs/y"):
        with pytest.raises(Refused, match="an entry that cannot be used"):
            objects([fine, other])
    assert objects({"objects": None}) is None
    assert objects(None) is None


@pytest.mark.parametrize(
    ("path", "fine"),
    [
        ("a", True),
        ("a/b.c", True),
        ("...", True),
        ("a..b/.c", True),
        ("ü/日本 x", True),
        ("", False),
        (".", False),
        ("..", False),
        ("/a", False),
        ("a/", False),
        ("a//b", False),
        ("./a", False),
        ("a/../b", False),
        ("a\\b", False),
        ("a\tb", False),
        ("a\x7f", False),
        ("a\ud800", False),
        ("x" * 1025, False),
    ],
)
def test_paths(path: str, fine: bool) -> None:
    """Relative, and nothing in them that leads elsewhere."""
    assert is_path(path) is fine


@pytest.mark.parametrize(
    ("text", "is_path_unknown"),
    [
        ("", True),
        ("Not found", True),
        ("not_found.", True),
        ("404: Not Found", True),
        ("Cannot POST /volumes/snapshot", True),
        ("Cannot GET /x\nmore", True),
        ("no such route", True),
        ("unknown endpoint /volumes", True),
        ("Route not found: POST /volumes", True),
        ("no such volume: x", False),
        ("volume not found", False),
        ("snapshot x not found", False),
        ("no archive object x", False),
        ("unknown service: x", False),
        ("the archive lacks pack x", False),
        ("cannotget", False),
    ],
)
def test_texts_of_what_is_not_there(text: str, is_path_unknown: bool) -> None:
    """A path that Corestore does not know is another matter than something that it does not have."""
    assert (m.NO_SUCH_PATH.fullmatch(text) is not None) is is_path_unknown


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (m.DISK_FULL, "ENOSPC: no space left on device, write", True),
        (m.DISK_FULL, "the disk is full", True),
        (m.DISK_FULL, "Disk quota exceeded", True),
        (m.DISK_FULL, "full restore of volume failed", False),
        (m.DISK_FULL, "out of memory", False),
        (m.INCOMPLETE, "pack x is damaged", True),
        (m.INCOMPLETE, "snapshot manifest missing", True),
        (m.INCOMPLETE, "it went wrong", False),
    ],
)
def test_texts_of_failures(pattern: re.Pattern[str], text: str, found: bool) -> None:
    """Some say that asking again is pointless."""
    assert bool(pattern.search(text)) is found
