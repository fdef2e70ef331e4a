"""Members of JSON documents, of lines of the log, of calls, and labels: programs and running services go by them.

Texts may be said better; a member that vanishes or gets another name breaks whoever reads it. What is there is recorded in
`golden/members.json`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import asdict, evolve
from tests.unit.app.worlds import World, cluster, play, service
from tests.unit.domain import examples
from tests.unit.members import logged, paths, written

import coreflow
from coreflow.adapters.cloudly import methods
from coreflow.adapters.cloudly.backups import backup_document, restore_document
from coreflow.adapters.names import Member
from coreflow.app import status_document
from coreflow.app.cli import check, images, present, routes, running
from coreflow.app.cli.running import Format
from coreflow.app.settings import load_settings
from coreflow.domain.backup.lease import Lease
from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.replication import Manifest
from coreflow.domain.backup.requests import BackupResult, Replication, RestoreResult
from coreflow.domain.backup.snapshots import ArchiveObject
from coreflow.domain.deploy.desired import Note, Rejection
from coreflow.domain.deploy.leftovers import LoadedImage
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.deploy.steps import Contest, Failure, Refusal, Wait
from coreflow.domain.errors import Unavailable
from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.journal import Entry, History, Record, history_document
from coreflow.domain.platform.bindings import BindingStatus
from coreflow.domain.records.models import BindingRecord
from coreflow.domain.routing.certificate import Certificate
from coreflow.domain.routing.routes import Destination, HostClaim, Missing, Route, RouteTable
from coreflow.domain.status.connections import Connection
from coreflow.domain.status.explain import Explanation, explain
from coreflow.domain.status.make import make_status
from coreflow.domain.status.model import Status
from coreflow.domain.status.parts import Facts, OperationStatus
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.convergence import Verdict
from coreflow.domain.swarm.specs import PublishedPort

Members = dict[str, list[str]]
EXPECTED = Path(__file__).parent / "golden" / "members.json"
REGENERATE = "COREFLOW_REGENERATE_GOLDEN"
ADVICE = f"""
Members were added, renamed or removed. A new one is news; one that has gone breaks programs that read it, and a label
that has gone loses what running services know. If that is meant, run this test again with {REGENERATE}=1, and say so in
docs/news and in the page that documents them.
"""
SOURCE = Path(coreflow.__file__).parent
AREAS = (
    "adapters/cloudly",
    "adapters/corestore",
    "adapters/coretraffic.py",
    "adapters/dcrouter",
    "adapters/net/typedsocket",
    "app/cli/backups.py",
    "domain/backup",
    "domain/routing",
)
"""Where documents are written, and what peers are sent."""
PART = Part(
    kind="volume",
    name="data",
    mount_path="/data",
    binding_id="binding",
    snapshot_id="s1",
    size_bytes=1,
    node=NodeId("n1"),
    error="gone",
)
ENTRY = Entry(
    time=1.0,
    action="create",
    kind="service",
    name="web",
    owner="id-web",
    reason="new",
    asked=("file",),
    pass_id=1,
    outcome="failed",
    detail="why",
)
PARTS = (PART, evolve(PART, kind="database"))
SHOP = ServiceId("id-shop")
BINDING = BindingRecord(id="b1", service_id=ServiceId("id-web"), capability="database")
NAMES = frozenset({"volumesCreated", "volumesRestored", "resourcesRestored"})
"""Lists of names, which have no members."""


def result() -> ReconcileResult:
    """The result of an apply in which there is something of everything."""

    async def scene() -> ReconcileResult:
        world = World()
        world.cloudly.set(cluster(service("web", replica=2)))
        return await world.reconciler().deploy(timeout=60)

    done = play(scene)
    plan = evolve(
        done.last.plan,
        steps=done.reports[0].plan.steps,
        waits=(Wait(unit="u", name="n", reason="r", until=1.0),),
        failures=(Failure(unit="u", name="n", reason="r"),),
        contests=(Contest(unit="u", name="n", by="b", times=2),),
        rejections=(Rejection(unit="u", name="n", reasons=("r",)),),
        notes=(Note(unit="u", name="n", text="t"),),
        refusal=Refusal(names=("n",), owned=1, token="t"),
    )
    return evolve(done, last=evolve(done.last, plan=plan))


def view() -> routes.View:
    """A table of routes with a gateway, and a host that is missing."""
    certificate = Certificate(
        chain="", key="", names=("a.example",), issuer="CA", not_before=0.0, not_after=1.0
    )
    route = Route(
        host="a.example",
        service="web",
        port=80,
        destinations=(Destination(address="10.0.0.2", task_id="t1", node_id=NodeId("n1")),),
        certificate=certificate,
    )
    table = RouteTable(routes=(route,), missing=(Missing(host="b.example", service="web", reason="none"),))
    return routes.View(table=table, gateway={})


class Looping(ReconcileState):
    """A look that found a crash loop."""

    @property
    def crash_loops(self) -> tuple[Verdict, ...]:
        """One."""
        return (Verdict(service="web", running=0, wanted=1, crashes=3, crashing_since=1.0, error="e"),)


def current() -> tuple[Status, Explanation]:
    """A status with something in every list, and one of its services."""
    spec_, now = (
        examples.spec("web", mounts=(examples.volume(),), env=("A=1",), **examples.mounting("s")),
        1000.0,
    )
    spec = evolve(
        spec_,
        body=evolve(
            spec_.body,
            networks=(examples.WEB,),
            ports=(PublishedPort(published=80, target=80, mode="host"),),
        ),
    )
    live = examples.live(spec, by_hand={"replicas": 2}, update_state="updating")
    seen = examples.observed(
        live,
        tasks=(examples.task(live, state="failed", error="e", exit_code=1),),
        networks=(examples.network(subnets=("10.0.0.0/24",)),),
        time=now,
    )
    verdict = Verdict(service="web", running=0, wanted=1, has_error=True, error="e", detail="e")
    last = examples.state(wanted=examples.desired(spec), observed=seen)
    table = evolve(view().table, claims=(HostClaim(host="a.example", service="web", port=80),))
    facts = Facts(
        now=now,
        looked=now,
        result=examples.result(last=last, verdicts=(verdict,)),
        connections=(Connection(peer="engine", is_up=True, since=now, checked=now),),
        table=table,
        routed=now,
        bindings=(BindingStatus(binding=BINDING, state="ready"),),
        operations=(
            OperationStatus(kind="backup", service_id="id-web", backup_id="b1", state="completed", since=now),
        ),
    )
    status, _ = make_status(facts)
    told = explain(facts, status, "web")
    assert told is not None
    return status, told


def documents() -> dict[str, object]:
    """One of each, with something in every list."""
    done = result()
    done = evolve(done, last=Looping(**asdict(done.last, recurse=False)))
    status, told = current()
    image = LoadedImage(reference="app:1", id="sha256:1")
    backup = BackupResult(
        backup_id="b1",
        service_id=SHOP,
        status="partial",
        parts=PARTS,
        replication=Replication(status="failed", error="gone"),
        error="gone",
    )
    objects: dict[NodeId | None, tuple[ArchiveObject, ...]] = {
        NodeId("n1"): (ArchiveObject(path="a", size=1, sha256="0" * 64),)
    }
    manifest = Manifest(backup_id="b1", service_id=SHOP, finished_ms=1, parts=PARTS, objects=objects)
    lease = Lease(id="r1", backup_id="b1", owner="h", has_begun=True, is_whole=True, parts=PARTS)
    return {
        "plan": present.plan_json(done.last),
        "apply": present.result_json(done),
        "routes": view().json(),
        "check": check.check_json(
            load_settings({}, require_cloudly=False),
            [check.Finding(ok=True, what="engine", name="local", text="version 1")],
        ),
        "status": status_document.document(status),
        "service": status_document.document(told),
        "history": {
            "source": "the daemon",
            **history_document(
                History(records=(Record(1, ENTRY),), kept="/journal.db", problem="full", last=1)
            ),
        },
        "images": images._document((image,), {image: None}),
        "backup": backup_document(backup),
        "restore": restore_document(
            RestoreResult(backup_id="b1", service_id=SHOP, status="failed", error="gone")
        ),
        "manifest of a backup": json.loads(manifest.encode()),
        "label of a restore": json.loads(lease.label()),
    }


def found() -> Members:
    """All members, as they are now."""
    tables = [value for value in vars(methods).values() if isinstance(value, Member)]
    calls = (*methods.ASKED, *methods.ANSWERED)
    facts = written([*(SOURCE / "app").glob("*.py"), SOURCE / "domain/deploy/problems.py"])
    labels = [v for v in vars(naming).values() if isinstance(v, str) and v.startswith(naming.PREFIX)]
    all_of: dict[str, set[str]] = {
        **{f"document: {name}": paths(document) for name, document in documents().items()},
        **{f"written in {area}": written(_sources(area)) for area in AREAS},
        "lines of the log": logged(SOURCE.rglob("*.py")) | {name for name in facts if name.isidentifier()},
        "labels": {*labels} - {naming.PREFIX},
        "calls of Cloudly": {
            *(f"{call.name}({call.key or ''}) -> {call.answer or ''}" for call in calls),
            *(name for member in tables for name in member.names),
        },
    }
    return {name: sorted(members) for name, members in all_of.items()}


def _sources(area: str) -> list[Path]:
    place = SOURCE / area
    return [place] if place.is_file() else [*place.rglob("*.py")]


def test_members_are_as_recorded() -> None:
    """Nothing vanished, changed its name, or came unnoticed."""
    now = found()
    if os.environ.get(REGENERATE) == "1":
        EXPECTED.write_text(json.dumps(now, indent=2, ensure_ascii=False) + "\n")
    expected: Members = json.loads(EXPECTED.read_text())
    assert now.keys() == expected.keys(), ADVICE
    for name, members in now.items():
        gone, new = set(expected[name]) - set(members), set(members) - set(expected[name])
        assert not gone | new, f"{ADVICE}\n{name}: gone: {sorted(gone)}, new: {sorted(new)}"


def test_every_list_of_a_document_has_something() -> None:
    """The members of an empty list would be seen by nobody."""
    for name, document in documents().items():
        assert not list(_empty(document, name))


def _empty(document: object, at: str) -> Iterator[str]:
    match document:
        case dict():
            for key, value in document.items():
                yield from _empty(value, f"{at}.{key}")
        case list() if not document and at.rpartition(".")[2] not in NAMES:
            yield at
        case list():
            for value in document:
                yield from _empty(value, f"{at}[]")


def test_an_error_has_the_members_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """What a command prints instead of its document."""

    def command() -> int:
        raise Unavailable("away")

    assert running.guarded(command, Format.JSON) == 1
    assert json.loads(capsys.readouterr().out) == {"error": "away", "problems": ["away"]}
