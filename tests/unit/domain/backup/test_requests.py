"""What a backup takes, where a restore puts it, and what a stopped service says of itself."""

from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from coreflow.domain.backup.lease import Lease, read_lease
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import (
    BackupPlan,
    BackupRequest,
    Replication,
    RestoreRequest,
    Target,
    check_snapshots,
    chosen_parts,
    parts_in,
    plan_backup,
    resolve_targets,
    safety_of,
    safety_tags,
    status_of,
)
from coreflow.domain.backup.snapshots import Snapshot, SnapshotKind
from coreflow.domain.deploy.volumes import make_mounts
from coreflow.domain.errors import PreconditionFailed
from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.platform.instances import Instance
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.models import ServiceRecord
from coreflow.domain.swarm.naming import volume_name

SHOP, OTHER = ServiceId("id-shop"), ServiceId("id-other")
N1, N2 = NodeId("n1"), NodeId("n2")
STORE = Instance(url="http://store:3000")
ONE, TWO = Instance(url="http://10.0.0.1:3000", node=N1), Instance(url="http://10.0.0.2:3000", node=N2)
DATA, CACHE = volume_name(SHOP, "/data"), volume_name(SHOP, "/cache")
BACKUP = BackupRequest(backup_id="b1", service_id=SHOP)
RESTORE = RestoreRequest(backup_id="b1", service_id=SHOP)
DB = BindingSpec(id="b-db", service_id=SHOP, service_name="shop", capability="database")
S3 = evolve(DB, id="b-s3", capability="objectstorage")
LEASE = Lease(id="r1", backup_id="b1", owner="daemon")


def record(*volumes: dict[str, Any]) -> ServiceRecord:
    """The service, with these volumes."""
    data = {"name": "shop", "registryTarget": {"imageUrl": "shop:1"}, "volumes": list(volumes)}
    document = {"configData": {"id": "c"}, "services": [{"id": SHOP, "data": data}]}
    return decode_records(document).services[0]


SERVICE = record({"mountPath": "/data", "backup": True}, {"mountPath": "/cache"})


def snapshot(identity: str, kind: SnapshotKind = "volume", **changes: Any) -> Snapshot:
    """A snapshot of this service and backup."""
    tags = {"backupId": "b1", "serviceId": SHOP}
    name = DATA if kind == "volume" else f"{kind}-of-shop"
    values: dict[str, Any] = {"name": name, "service_id": SHOP, "size_bytes": 5, "tags": tags}
    return Snapshot(id=identity, kind=kind, **(values | changes))


def planned(service: ServiceRecord = SERVICE, **options: Any) -> BackupPlan:
    """The plan of a backup, at one Corestore unless said otherwise."""
    values: dict[str, Any] = {"bindings": (), "instances": (STORE,), "found": {}, "request": BACKUP}
    return plan_backup(service=service, **(values | options))


def volume(name: str = DATA, **changes: Any) -> Part:
    """A volume of a backup."""
    values: dict[str, Any] = {"mount_path": "/data", "snapshot_id": "s1"}
    return Part(kind="volume", name=name, **(values | changes))


def database(**changes: Any) -> Part:
    """The database of a backup."""
    values: dict[str, Any] = {
        "kind": "database",
        "name": "database",
        "binding_id": "b-db",
        "snapshot_id": "s2",
    }
    return Part(**(values | changes))


# --- what a backup takes


def test_marked_volumes_first_then_databases_and_buckets() -> None:
    """Each with the tags that tell what it is; a volume that is not marked is left out."""
    plan = planned(bindings=(S3, DB, evolve(DB, id="b-x", capability="mail")))
    assert [(str(step.part), step.part.binding_id) for step in plan.steps] == [
        (f"volume {DATA}", ""),
        ("database", "b-db"),
        ("objectstorage", "b-s3"),
    ]
    assert plan.steps[0].tags == {"backupId": "b1", "serviceId": SHOP, "mountPath": "/data"}
    assert plan.steps[1].tags == {"backupId": "b1", "serviceId": SHOP, "bindingId": "b-db"}
    assert plan.done == ()


def test_what_is_on_several_nodes_is_taken_on_each() -> None:
    """A part for every node, told apart by it."""
    plan = planned(instances=(ONE, TWO))
    assert [(step.instance, step.part.node, step.tags["nodeId"]) for step in plan.steps] == [
        (ONE, N1, N1),
        (TWO, N2, N2),
    ]
    assert len({(step.part.name, step.part.node) for step in plan.steps}) == 2


@pytest.mark.parametrize(
    ("request_", "taken"),
    [
        (BACKUP, {"volume", "database"}),
        (evolve(BACKUP, include_volumes=False), {"database"}),
        (evolve(BACKUP, include_resources=False), {"volume"}),
    ],
)
def test_only_what_is_asked_for(request_: BackupRequest, taken: set[str]) -> None:
    """Volumes or resources can be left out."""
    plan = planned(request=request_, bindings=(DB,))
    assert {step.part.kind for step in plan.steps} == taken


def test_what_was_taken_before_is_not_taken_again() -> None:
    """The oldest snapshot of the same backup, kind, volume and service counts."""
    plan = planned(
        bindings=(DB,),
        found={
            STORE: (
                snapshot("s3", created_ms=3),
                snapshot("s1", created_ms=1),
                snapshot("d1", "database", service_id=None),
            )
        },
    )
    assert plan.steps == ()
    assert [(part.snapshot_id, part.size_bytes) for _, part in plan.done] == [("s1", 5), ("d1", 5)]


@pytest.mark.parametrize(
    "changes",
    [
        {"tags": {"backupId": "b2", "serviceId": SHOP}},
        {"tags": {}},
        {"kind": "database"},
        {"name": CACHE},
        {"service_id": OTHER},
        {"service_id": None, "tags": {"backupId": "b1", "serviceId": OTHER}},
    ],
)
def test_snapshots_that_are_not_of_this_part(changes: dict[str, Any]) -> None:
    """It is taken."""
    assert len(planned(found={STORE: (snapshot("s1", **{"kind": "volume", **changes}),)}).steps) == 1


def test_a_snapshot_at_another_corestore_does_not_count() -> None:
    """Each node has data of its own."""
    plan = planned(instances=(ONE, TWO), found={ONE: (snapshot("s1"),)})
    assert [step.instance for step in plan.steps] == [TWO]
    assert [instance for instance, _ in plan.done] == [ONE]


def test_volumes_of_other_drivers_are_planned_with_an_error() -> None:
    """So the backup cannot be complete, nor be empty without a word."""
    plan = planned(record({"mountPath": "/x", "driver": "local", "backup": True}))
    ((_, part),) = plan.done
    assert "driver is local" in part.error
    assert plan.steps == ()


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (record({"mountPath": "/data"}), "nothing to back up"),
        (record(), "nothing to back up"),
        (record({"mountPath": "data", "backup": True}), "not an absolute path"),
    ],
)
def test_backups_that_are_none(service: ServiceRecord, reason: str) -> None:
    """Nothing is marked or bound; or the record cannot be read."""
    with pytest.raises(PreconditionFailed, match=reason):
        planned(service)


def test_how_a_backup_ended() -> None:
    """Failed is only what saved nothing."""
    fine, bad = volume(), volume(error="disk full")
    sent, unsent = Replication(status="completed"), Replication(status="failed")
    assert status_of([]) == status_of([bad]) == status_of([bad], sent) == "failed"
    assert status_of([fine, bad]) == status_of([fine, bad], sent) == status_of([fine], unsent) == "partial"
    assert status_of([fine]) == status_of([fine], sent) == "completed"


# --- what a restore takes


def test_parts_are_known_by_the_tags_of_snapshots() -> None:
    """Those of this backup and service; of two of the same part, the older one."""
    tags = {"backupId": "b1", "mountPath": "/data"}
    found = (
        snapshot("s2", created_ms=2),
        snapshot("s1", created_ms=1, tags=tags),
        snapshot("d1", "database", tags={"backupId": "b1", "bindingId": "b-db"}),
        snapshot("x1", service_id=OTHER),
        snapshot("x2", service_id=None, tags={"backupId": "b1"}),
        snapshot("x3", tags={"backupId": "b2"}),
    )
    assert set(parts_in(found, "b1", SHOP, N1)) == {
        volume(size_bytes=5, node=N1),
        database(snapshot_id="d1", size_bytes=5, node=N1),
    }


def test_everything_is_chosen_unless_parts_are_named() -> None:
    """What could not be saved is not; a snapshot that is known twice is chosen once."""
    known = (volume(), volume(name="again"), database(), volume("x", snapshot_id=""), volume("y", error="e"))
    assert chosen_parts(RESTORE, known) == (volume(), database())
    assert chosen_parts(evolve(RESTORE, volumes=()), known) == (database(),)
    assert chosen_parts(evolve(RESTORE, resources=()), known) == (volume(),)


@pytest.mark.parametrize(
    "named",
    [
        volume("", mount_path=""),
        volume(DATA, mount_path="", snapshot_id=""),
        volume("", snapshot_id=""),
        volume(),
    ],
)
def test_a_reference_is_completed(named: Part) -> None:
    """By its snapshot, its name or its path."""
    known = (volume(node=N1), volume(CACHE, mount_path="/cache", snapshot_id="s9"), database())
    assert chosen_parts(evolve(RESTORE, volumes=(named,), resources=()), known) == (volume(node=N1),)


def test_a_resource_is_named_by_its_binding() -> None:
    """Or by what it is."""
    known = (volume(), database(), database(kind="objectstorage", name="objectstorage", binding_id="b-s3", snapshot_id="s3"))  # fmt: skip
    for named in (Part(kind="objectstorage", name="", binding_id="b-s3"), Part(kind="objectstorage", name="objectstorage")):  # fmt: skip
        (chosen,) = chosen_parts(evolve(RESTORE, volumes=(), resources=(named,)), known)
        assert (chosen.snapshot_id, chosen.name) == ("s3", "objectstorage")


def test_what_is_meant_for_another_place_keeps_no_path() -> None:
    """Else it would end up where it came from."""
    named = volume("elsewhere", mount_path="")
    (chosen,) = chosen_parts(evolve(RESTORE, volumes=(named,), resources=()), (volume(),))
    assert (chosen.name, chosen.mount_path) == ("elsewhere", "")


def test_a_snapshot_that_is_not_known_yet_may_be_named() -> None:
    """Whether it is there is looked into later."""
    named = volume(snapshot_id="s77")
    assert chosen_parts(evolve(RESTORE, volumes=(named,), resources=()), ()) == (named,)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (RESTORE, "no such backup"),
        (evolve(RESTORE, volumes=(), resources=()), "no such backup"),
        (evolve(RESTORE, volumes=(volume("x", mount_path="/x", snapshot_id=""),)), "volume x is not in this"),
    ],
)
def test_nothing_to_choose(request_: RestoreRequest, reason: str) -> None:
    """No backup is known, nothing is wanted, or what is wanted is not in it."""
    known = () if request_ is RESTORE else (volume(),)
    with pytest.raises(PreconditionFailed, match=reason):
        chosen_parts(request_, known)


# --- where it goes


def test_parts_go_to_where_the_service_has_them_now() -> None:
    """By name, or after a renaming by path; volumes first."""
    renamed = record(
        {"mountPath": "/data", "name": "new-name", "options": {"k": "v"}}, {"mountPath": "/cache"}
    )
    cache = volume(CACHE, mount_path="/old", snapshot_id="s9")
    first, second, third = resolve_targets(
        renamed, (DB,), (database(binding_id="gone"), volume(), cache), (STORE,)
    )
    assert (first.part.name, first.part.mount_path) == (CACHE, "/cache")
    assert (second.part.name, third.part.binding_id) == ("new-name", "b-db")
    assert second.volume is not None
    assert second.volume.options["k"] == "v"
    assert second.volume.service_id == SHOP
    assert third.volume is None


@pytest.mark.parametrize(
    ("then", "now"), [("/data/", "/data"), ("/data", "//data"), ("/x/../data", "/data/")]
)
def test_a_path_may_be_spelt_otherwise(then: str, now: str) -> None:
    """A backup goes back to the same place, however its path was written, be it known whose the snapshot is or not."""
    service = record({"mountPath": now, "backup": True})
    part = volume(volume_name(SHOP, then), mount_path=then)
    (target,) = resolve_targets(service, (), (part,), (STORE,))
    assert (target.part.name, target.part.mount_path) == (DATA, "/data")
    for identity in (SHOP, None):
        tags = {"backupId": "b1", "mountPath": then}
        there = snapshot("s1", name=part.name, service_id=identity, tags=tags)
        check_snapshots(SHOP, (target,), {STORE: (there,)})


def test_the_volume_that_is_in_use_counts() -> None:
    """A volume that is named after another spelling, as the service has it, is backed up and restored under that name."""
    (live,) = make_mounts(record({"mountPath": "/data"}))
    path = "/data/"
    old = evolve(
        live,
        source=volume_name(SHOP, path),
        target=path,
        labels={**live.labels, "serve.zone.mountPath": path},
    )
    service = record({"mountPath": "/data", "backup": True})
    (step,) = planned(service, live=(old,)).steps
    assert (step.part.name, step.part.mount_path) == (old.source, path)
    (target,) = resolve_targets(service, (), (volume(),), (STORE,), (old,))
    assert target.part.name == old.source


def test_parts_go_to_the_node_they_are_of() -> None:
    """Or where that has no Corestore any more, to one that the service is on."""
    for homes, instances in (
        ((ONE, TWO), [ONE, TWO]),
        ((TWO, ONE), [ONE, TWO]),
        ((STORE,), None),
    ):
        parts = (volume(node=N1), volume(CACHE, mount_path="/cache", snapshot_id="s9", node=N2))
        targets = {target.part.name: target.instance for target in resolve_targets(SERVICE, (), parts, homes)}
        assert targets == dict(zip((DATA, CACHE), instances or [STORE, STORE], strict=True))
    (gone,) = resolve_targets(SERVICE, (), (volume(node=NodeId("n9")),), (TWO, ONE))
    assert gone.instance == TWO


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([volume("theirs", mount_path="")], "the service has no volume theirs"),
        ([volume("theirs", mount_path="/elsewhere")], "the service has no volume theirs"),
        ([database(kind="objectstorage", name="objectstorage")], "no binding for objectstorage"),
        (
            [volume(), volume("old-name", snapshot_id="s9")],
            f"two snapshots are to be restored to volume {DATA}",
        ),
        ([volume(node=N1), volume(node=N2, snapshot_id="s9")], "two snapshots"),
        ([database(), database(binding_id="other", snapshot_id="s9")], "two snapshots"),
    ],
)
def test_parts_without_a_place(parts: list[Part], reason: str) -> None:
    """Not of this service, not bound, or two for one place."""
    with pytest.raises(PreconditionFailed, match=reason):
        resolve_targets(SERVICE, (DB,), parts, (STORE,))


def test_no_corestore_and_other_drivers() -> None:
    """Both are refused."""
    with pytest.raises(PreconditionFailed, match="no Corestore is known"):
        resolve_targets(SERVICE, (), (volume(),), ())
    local = record({"mountPath": "/data", "driver": "local"})
    with pytest.raises(PreconditionFailed, match="has the driver local"):
        resolve_targets(local, (), (volume(),), (STORE,))


def test_snapshots_are_looked_at_before_anything_is_touched() -> None:
    """There, of this service and of this kind; all that is wrong is named."""
    targets = resolve_targets(SERVICE, (DB,), (volume(), database()), (STORE,))
    good = (snapshot("s1"), snapshot("s2", "database"))
    check_snapshots(SHOP, targets, {STORE: good})
    check_snapshots(SHOP, targets, {STORE: tuple(evolve(one, service_id=None, tags={}) for one in good)})
    bad: dict[str, tuple[Snapshot, ...]] = {
        "has no snapshot s1": good[1:],
        "has no snapshot s2": good[:1],
        "s1 belongs to another service": (snapshot("s1", service_id=OTHER), good[1]),
        "s2 belongs to another service": (good[0], snapshot("s2", "database", service_id=OTHER)),
        "s2 is one of a objectstorage": (good[0], snapshot("s2", "objectstorage")),
    }
    for reason, found in bad.items():
        with pytest.raises(PreconditionFailed, match=reason):
            check_snapshots(SHOP, targets, {STORE: found})
    strange = snapshot("s1", service_id=None, tags={}, name=CACHE)
    with pytest.raises(PreconditionFailed, match="s1 belongs to another service"):
        check_snapshots(SHOP, targets, {STORE: (strange, good[1])})
    with pytest.raises(PreconditionFailed, match=r"s1.*; .*s2"):
        check_snapshots(SHOP, targets, {ONE: good})


def test_the_snapshot_that_was_taken_of_what_is_overwritten() -> None:
    """Of this restore, kind and volume; found again by its tags."""
    target = Target(part=volume(), instance=STORE)
    tags = safety_tags(target, LEASE, SHOP)
    assert tags == {
        "restoreId": "r1",
        "backupId": "before-r1",
        "serviceId": SHOP,
        "mountPath": "/data",
    }
    mine = snapshot("s5", tags=tags)
    others = (
        snapshot("s1"),
        snapshot("s2", tags={**tags, "restoreId": "r2"}),
        snapshot("s3", tags=tags, name=CACHE),
        snapshot("s4", "database", tags=tags),
    )
    assert safety_of(target, LEASE, (*others, mine)) == mine
    assert safety_of(target, LEASE, others) is None
    assert safety_of(Target(part=database(), instance=STORE), LEASE, (*others, mine)) == others[3]


# --- what a stopped service says of itself

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
filled = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
kinds: st.SearchStrategy[SnapshotKind] = st.sampled_from(["volume", "database", "objectstorage"])
parts = st.builds(
    Part,
    kind=kinds,
    name=filled,
    snapshot_id=filled,
    binding_id=texts,
    node=st.none() | st.builds(NodeId, filled),
)
notes = st.builds(
    Lease,
    id=texts,
    backup_id=texts,
    owner=texts,
    heartbeat=st.integers(0, 2**53),
    has_begun=st.booleans(),
    parts=st.lists(parts, max_size=4).map(tuple),
)


@given(notes)
def test_a_lease_is_read_as_it_was_written(lease: Lease) -> None:
    """Round trip."""
    assert read_lease(lease.label()) == lease


@given(notes, texts, texts, st.integers(0, 100))
def test_a_label_holds_ids_only(lease: Lease, path: str, error: str, size: int) -> None:
    """No text of an error, no path, no size: a label is for everybody to read."""
    more = [evolve(part, mount_path=path, error=error, size_bytes=size) for part in lease.parts]
    assert evolve(lease, parts=tuple(more)).label() == lease.label()
    document = orjson.loads(lease.label())
    assert document.keys() == {"id", "backupId", "holder", "beat", "hasBegun", "parts"}
    for part in document["parts"]:
        assert part.keys() <= {"kind", "name", "snapshotId", "bindingId", "nodeId"}


def test_the_label_as_it_is() -> None:
    """Other processes, of other versions, read it: it must not change."""
    lease = evolve(LEASE, heartbeat=3, parts=(volume(node=N1), database()))
    assert lease.label() == (
        '{"id":"r1","backupId":"b1","holder":"daemon","beat":3,"hasBegun":false,"parts":['
        f'{{"kind":"volume","name":"{DATA}","snapshotId":"s1","nodeId":"n1"}},'
        '{"kind":"database","name":"database","snapshotId":"s2","bindingId":"b-db"}]}'
    )


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
GOOD_NOTE = evolve(LEASE, parts=(volume(node=N1), database())).label()


@st.composite
def garbage(draw: st.DrawFn) -> str:
    """A lease with one thing in it replaced by something else, or taken away."""
    document = orjson.loads(GOOD_NOTE)
    here = draw(st.sampled_from([document, *document["parts"]]))
    key = draw(st.sampled_from(sorted(here)))
    if draw(st.booleans()):
        here[key] = draw(values)
    else:
        del here[key]
    return orjson.dumps(document).decode()


@given(st.text(max_size=20) | garbage() | values.map(lambda value: orjson.dumps(value).decode()))
def test_a_label_that_cannot_be_read_is_no_note(label: str) -> None:
    """And no error; what can be read is of the types that it says."""
    lease = read_lease(label)
    if lease is not None:
        assert type(lease.id) is type(lease.backup_id) is type(lease.owner) is str
        assert type(lease.heartbeat) is int
        for part in lease.parts:
            assert part.kind in ("volume", "database", "objectstorage")
            assert type(part.name) is type(part.snapshot_id) is type(part.binding_id) is str
            assert part.node is None or type(part.node) is str
        assert read_lease(lease.label()) is not None or not all(p.name and p.snapshot_id for p in lease.parts)


@pytest.mark.parametrize(
    "label",
    ["", "null", "[]", "1", '"x"', "{", "{}", '{"id":1}', GOOD_NOTE[:-1], GOOD_NOTE.replace('"n1"', "[1]")],
)
def test_garbage_on_a_label(label: str) -> None:
    """As somebody's hand, or another version, may have left it."""
    assert read_lease(label) is None
