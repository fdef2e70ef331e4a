"""What speaks against a Corestore's word, fact by fact."""

from collections.abc import Mapping

import pytest

from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.proof import (
    FOREIGN,
    Measure,
    against_export,
    against_import,
    against_restore,
    against_snapshot,
    against_volume,
    is_unchanged,
)
from coreflow.domain.backup.snapshots import ArchiveObject, Snapshot, SnapshotKind, StoredVolume
from coreflow.domain.ids import ServiceId

SHOP, OTHER = ServiceId("id-shop"), ServiceId("id-other")
PART = Part(kind="volume", name="data")
TAGS = {"backupId": "b1"}


def snapshot(
    snapshot_id: str = "s1",
    kind: SnapshotKind = "volume",
    name: str = "data",
    service_id: ServiceId | None = SHOP,
    tags: Mapping[str, str] = TAGS,
) -> Snapshot:
    """One that is fine."""
    return Snapshot(id=snapshot_id, kind=kind, name=name, service_id=service_id, tags=tags)


@pytest.mark.parametrize(
    ("taken", "listed", "text"),
    [
        (snapshot(), snapshot(), ""),
        (snapshot(service_id=None), snapshot(service_id=None), ""),
        (snapshot(), snapshot(name=""), ""),
        (snapshot(), None, "does not list"),
        (snapshot("s2"), snapshot(), "does not list"),
        (snapshot(service_id=OTHER), snapshot(), FOREIGN),
        (snapshot(), snapshot(service_id=OTHER), FOREIGN),
        (snapshot(), snapshot(name="cache"), "something else"),
        (snapshot(), snapshot(kind="database", name=""), "something else"),
        (snapshot(), snapshot(tags={}), "another one"),
        (snapshot(), snapshot(tags={"backupId": "b0"}), "another one"),
    ],
)
def test_a_snapshot(taken: Snapshot, listed: Snapshot | None, text: str) -> None:
    """It is listed, of this part and this service, with the tag."""
    found = [snapshot("s0", tags={}), *([listed] if listed else [])]
    said = against_snapshot(taken, found, PART, SHOP, ("backupId", "b1"))
    assert (text in said) if text else said == ""


def test_a_volume() -> None:
    """It is listed, and nobody else's."""
    for owner, text in ((SHOP, ""), (None, ""), (OTHER, "as another service's")):
        said = against_volume("data", SHOP, [StoredVolume(name="data", service_id=owner)])
        assert (text in said) if text else said == ""
    assert "does not list" in against_volume("data", SHOP, [StoredVolume(name="other")])


@pytest.mark.parametrize(
    ("size", "now", "measure", "is_fine"),
    [
        (9, 9, Measure(5, 5), True),
        (9, 5, Measure(5, 5), False),
        (9, 5, Measure(5, 6), True),  # they count in different ways
        (9, 0, Measure(0, 0), True),  # maybe they do
        (None, 5, Measure(5, 5), True),
        (9, None, Measure(5, 5), True),
        (9, 5, None, True),
    ],
)
def test_a_restore(size: int | None, now: int | None, measure: Measure | None, is_fine: bool) -> None:
    """Its size is that of the snapshot, where sizes can be compared."""
    said = against_restore("data", size, [StoredVolume(name="data", size_bytes=now)], measure)
    assert (said == "") is is_fine
    assert "does not list" in against_restore("data", size, [], measure)


def test_what_refused_to_be_overwritten() -> None:
    """The size is what it was, and says something."""
    for before, now, same in ((5, 5, True), (5, 4, False), (0, 0, False), (5, None, False), (None, 5, False)):
        listed = [StoredVolume(name="data", size_bytes=now)]
        assert is_unchanged("data", listed, Measure(before, before)) is same
    assert not is_unchanged("data", [], Measure(5, 5))
    assert not is_unchanged("data", [StoredVolume(name="data", size_bytes=5)], None)


def test_files_and_copies() -> None:
    """Each is listed as it was sent."""
    one = ArchiveObject(path="a", size=1, sha256="0" * 64)
    assert against_import([one], [one]) == ""
    assert "does not list" in against_import([one], [])
    changed = ArchiveObject(path="a", size=1, sha256="1" * 64)
    assert "another content" in against_import([one], [changed])
    assert against_export(["a"], ["a", "b"]) == ""
    assert "is not listed" in against_export(["a"], ["b"])
