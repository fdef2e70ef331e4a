"""Names and order of copies, what has to travel, and what manifests say."""

import string
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.replication import (
    CONFIG,
    INDEXES,
    PACKS,
    SNAPSHOTS,
    Copy,
    Manifest,
    backup_of,
    copy_of,
    digest_in,
    expect_unchanged,
    in_order,
    is_fixed,
    is_manifest,
    manifest_prefix,
    object_of,
    rank,
    read_manifest,
    to_pull,
    to_push,
)
from coreflow.domain.backup.snapshots import ArchiveObject
from coreflow.domain.errors import Refused
from coreflow.domain.ids import NodeId, ServiceId

A, B = "a" * 64, "b" * 64
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
filled = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
paths = filled | st.builds("{}@{}".format, filled, digests)
objects = st.builds(ArchiveObject, path=paths, size=st.integers(0, 10**12), sha256=digests)
nodes = st.none() | st.sampled_from([NodeId("n1"), NodeId("n2")])
parts = st.builds(
    Part,
    kind=st.sampled_from(["volume", "database", "objectstorage"]),
    name=texts,
    mount_path=texts,
    binding_id=texts,
    snapshot_id=texts,
    size_bytes=st.none() | st.integers(0, 10**12),
    node=nodes,
)
manifests = st.builds(
    Manifest,
    backup_id=texts,
    service_id=st.builds(ServiceId, texts),
    finished_ms=st.integers(0, 2**50),
    parts=st.lists(parts, max_size=3).map(tuple),
    objects=st.dictionaries(nodes, st.lists(objects, max_size=3).map(tuple), max_size=3),
)


def obj(path: str, sha256: str = A) -> ArchiveObject:
    """An object of the archive."""
    return ArchiveObject(path=path, size=1, sha256=sha256)


# --- names


@given(objects)
def test_a_copy_tells_what_it_is_of(one: ArchiveObject) -> None:
    """Whatever the path is, even one that looks like the name of a copy."""
    assert object_of(copy_of(one)) == one


@pytest.mark.parametrize("name", ["packs/1", f"packs/1@{B}", "packs/1@", "@", f"@{A}", f"packs/1@{A[:-1]}"])
def test_a_name_of_somebody_elses_making_is_a_path(name: str) -> None:
    """Only the copy's own digest is cut off, and never all of the name."""
    assert object_of(Copy(name=name, size=1, sha256=A)).path == name


@given(backup=filled, service=filled, other_backup=filled, other_service=filled)
def test_manifests_of_different_backups_have_different_prefixes(
    backup: str, service: str, other_backup: str, other_service: str
) -> None:
    """No prefix is the beginning of another, and none holds a slash or an at sign of an id."""
    mine, theirs = manifest_prefix(backup, service), manifest_prefix(other_backup, other_service)
    assert mine.startswith(theirs) == ((backup, service) == (other_backup, other_service))
    assert mine.count("/") == 3
    assert mine.count("@") == 1
    assert is_manifest(Copy(name=mine + A, size=1, sha256=A))


def test_names_tell_digest_and_backup() -> None:
    """The name of a copy has the digest of its content, that of a manifest the backup, whatever its id is."""
    copy = copy_of(obj("packs/1", B))
    assert (copy.name, digest_in(copy.name), object_of(copy).path) == (f"packs/1@{B}", B, "packs/1")
    assert digest_in("packs/1") is None
    assert not is_manifest(copy)
    manifest = Manifest(backup_id="b/1 @x", service_id=ServiceId("s/1"), finished_ms=1, parts=())
    held = manifest.copy(manifest.encode())
    assert is_manifest(held)
    assert held.name.startswith(manifest_prefix("b/1 @x", "s/1"))
    assert (backup_of(held), held.size) == ("b/1 @x", len(manifest.encode()))


# --- order


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("packs/ab/abcd.pack", PACKS),
        ("data/ab/abcd", PACKS),
        ("data/config-of-somebody/x", PACKS),
        ("chunks/ab", PACKS),
        ("anything", PACKS),
        ("", PACKS),
        ("index/ab/abcd.json", INDEXES),
        ("packs/ab/abcd.idx", INDEXES),
        ("index.json", INDEXES),
        ("indexes/1", INDEXES),
        ("parity/ab/abcd.par", INDEXES),
        ("parity/ab/abcd", INDEXES),
        ("snapshots/snap-1.json", SNAPSHOTS),
        ("snapshot/1", SNAPSHOTS),
        ("manifests/1.json", SNAPSHOTS),
        ("node/manifest.json", SNAPSHOTS),
        ("SNAPSHOTS/1", SNAPSHOTS),
        ("config", CONFIG),
        ("config.json", CONFIG),
        ("repo.json", CONFIG),
        ("repository", CONFIG),
        ("archive/config.json", CONFIG),
    ],
)
def test_ranks(path: str, expected: int) -> None:
    """Layouts that archives addressed by content have."""
    assert rank(path) == expected
    assert is_fixed(path) == (expected in (PACKS, SNAPSHOTS))


LAYOUT = (
    "config.json",
    "snapshots/s1.json",
    "index/aa/1.json",
    "parity/aa/1.par",
    "packs/bb/2.pack",
    "packs/aa/1.pack",
)


@given(st.permutations(LAYOUT))
def test_what_refers_to_something_travels_after_it(drawn: list[str]) -> None:
    """Groups in order of rank, in each by path; nothing is left out, however it is listed."""
    groups = in_order(map(obj, drawn))
    assert [[one.path for one in group] for group in groups] == [
        ["packs/aa/1.pack", "packs/bb/2.pack"],
        ["index/aa/1.json", "parity/aa/1.par"],
        ["snapshots/s1.json"],
        ["config.json"],
    ]
    assert in_order(()) == ()


# --- what travels


def test_only_what_is_missing_is_pushed() -> None:
    """The same path with other content is another copy; the same content under another path, too."""
    there = [copy_of(obj("packs/1")), copy_of(obj("config", B)), Copy(name="packs/3", size=1, sha256=A)]
    wanted = [obj("packs/1"), obj("packs/2"), obj("packs/3"), obj("config")]
    assert to_push(wanted, there) == tuple(wanted[1:])


@given(st.lists(objects), st.lists(objects))
def test_what_was_pushed_is_there(wanted: list[ArchiveObject], there: list[ArchiveObject]) -> None:
    """After the transfer nothing is missing."""
    copies = [copy_of(one) for one in there]
    missing = to_push(wanted, copies)
    assert to_push(wanted, [*copies, *map(copy_of, missing)]) == ()


def test_only_what_is_missing_is_pulled() -> None:
    """An index and a configuration that are there are left, each path is fetched once."""
    local = [obj("packs/1"), obj("index/1", B), obj("config.json", B)]
    wanted = [obj("packs/1"), obj("packs/2"), obj("packs/2"), obj("index/1"), obj("config.json")]
    assert to_pull(wanted, local) == (obj("packs/2"),)


@pytest.mark.parametrize("path", ["packs/1", "data/1", "snapshots/1.json"])
def test_another_archive_is_not_mixed_with_ours(path: str) -> None:
    """A file that never changes is there, with other content."""
    with pytest.raises(Refused, match=f"{path} is there with other content"):
        to_pull([obj("packs/0"), obj(path)], [obj(path, B)])


# --- manifests


@given(manifests)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    """Round trip; equal ones are equal bytes, and their copy is called after these."""
    content = manifest.encode()
    assert read_manifest(content) == manifest
    assert read_manifest(content).encode() == content
    copy = manifest.copy(content)
    assert copy.size == len(content)
    assert copy.name == manifest_prefix(manifest.backup_id, manifest.service_id) + copy.sha256


def test_errors_and_secrets_are_not_in_a_manifest() -> None:
    """It says what there is, by ids, names, sizes and digests."""
    part = Part(kind="volume", name="data", snapshot_id="s1", error="disk full")
    manifest = Manifest(
        backup_id="b", service_id=ServiceId("s"), finished_ms=1, parts=(part,), objects={None: (obj("p"),)}
    )
    assert orjson.loads(manifest.encode()) == {
        "version": 1,
        "backupId": "b",
        "serviceId": "s",
        "finishedAt": 1,
        "parts": [
            {"kind": "volume", "name": "data", "snapshotId": "s1"},
        ],
        "archives": [{"nodeId": None, "objects": [{"path": "p", "size": 1, "sha256": A}]}],
    }


values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
WHOLE = orjson.loads(
    Manifest(
        backup_id="b",
        service_id=ServiceId("s"),
        finished_ms=1,
        parts=(Part(kind="volume", name="data", snapshot_id="s1"),),
        objects={NodeId("n1"): (obj("p"),)},
    ).encode()
)


@st.composite
def spoiled(draw: st.DrawFn, whole: Any = WHOLE) -> Any:
    """A manifest with one thing in it replaced by something else, or taken away."""
    here = document = orjson.loads(orjson.dumps(whole))
    while True:
        keys = sorted(here) if isinstance(here, dict) else list(range(len(here)))
        key = draw(st.sampled_from(keys))
        if isinstance(here[key], dict | list) and here[key] and draw(st.booleans()):
            here = here[key]
            continue
        if draw(st.booleans()):
            here[key] = draw(values)
        else:
            del here[key]
        return document


@given(
    st.binary(max_size=50)
    | (spoiled() | values).map(lambda v: orjson.dumps(v, option=orjson.OPT_NON_STR_KEYS))
)
def test_a_manifest_that_cannot_be_read_is_refused(content: bytes) -> None:
    """By no other error; what can be read is of the types that it says."""
    with suppress(Refused):
        manifest = read_manifest(content)
        for part in manifest.parts:
            assert type(part.name) is type(part.snapshot_id) is str
            assert part.node is None or type(part.node) is str
            assert part.size_bytes is None or type(part.size_bytes) is int
        for node, listed in manifest.objects.items():
            assert node is None or type(node) is str
            assert all(type(one.path) is type(one.sha256) is str and type(one.size) is int for one in listed)


def test_a_manifest_is_read_back() -> None:
    """With the parts, and the files of each node's archive."""
    part = Part(kind="volume", name="data", snapshot_id="s1", size_bytes=7, node=NodeId("n1"))
    whole = Manifest(
        backup_id="b1",
        service_id=ServiceId("shop"),
        finished_ms=12,
        parts=(part,),
        objects={NodeId("n1"): (obj("packs/1"), obj("config", B)), None: ()},
    )
    assert read_manifest(whole.encode()) == whole


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"archives": [{}]}', b'{"archives": [], "backupId": "b", "serviceId": "s"}'],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(Refused, match="the manifest of the backup cannot be read"):
        read_manifest(content)


def test_files_that_never_change_have_not_changed() -> None:
    """An archive whose packs or snapshots differ from just before is not the same archive; indexes may be new."""
    before = [obj("packs/1"), obj("index/1"), obj("snapshots/1")]
    expect_unchanged(before, [obj("packs/1"), obj("index/1", B), obj("packs/2", B)])
    with pytest.raises(Refused, match=r"archive object snapshots/1 has another content than just before"):
        expect_unchanged(before, [obj("snapshots/1", B)])


def test_what_needs_others_travels_behind_them() -> None:
    """Packs, then indexes, then snapshots, then the configuration; groups without files are left out."""
    files = ["config", "snapshots/1", "packs/2", "index/1", "packs/1"]
    assert [[one.path for one in group] for group in in_order(map(obj, files))] == [
        ["packs/1", "packs/2"],
        ["index/1"],
        ["snapshots/1"],
        ["config"],
    ]
    assert [len(group) for group in in_order([obj("config"), obj("packs/1")])] == [1, 1]
