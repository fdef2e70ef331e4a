"""What is wanted of which records, what is rejected, and what is held."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit.domain.examples import CLUSTER, foreign, live, network, node, spec
from tests.unit.domain.examples import task as example_task
from tests.unit.strategies import SECRET, cluster_documents

from coreflow.adapters.swarm.to_engine import service_labels
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import Desired, Note, Rejection, RenderOptions
from coreflow.domain.deploy.draft import OF_ONE_ID, is_workload
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.removals import NAMED
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.services import login_hash
from coreflow.domain.deploy.steps import PlanOptions
from coreflow.domain.ids import BASE, BundleId, ClusterId, GroupId, ImageId, NodeId, RegistryId, ServiceId
from coreflow.domain.platform.bindings import Bound
from coreflow.domain.records.codec import decode_records
from coreflow.domain.records.models import (
    ClusterRecord,
    DomainRecord,
    ExternalRegistryRecord,
    ImageLocation,
    ImageRecord,
    ImageVersion,
    Records,
    RegistryLogin,
    RegistryTarget,
    RejectedRecord,
    SecretBundleRecord,
    SecretGroupRecord,
    SecretValue,
    ServiceRecord,
    Tag,
    VolumeRecord,
)
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Remove
from coreflow.domain.swarm.images import ImageProblem, ImageRequest, Resolution, ResolvedImage
from coreflow.domain.swarm.observed import Observed, ObservedNode, ObservedService, ObservedTask
from coreflow.domain.swarm.specs import Platform

IMAGE = "app:1"
OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NO_BASE = RenderOptions(base=BaseOptions(services=()))
ONLY_LOG = RenderOptions(base=BaseOptions(services=("corelog",), images={"corelog": "log:1"}))
FOUND: Mapping[ImageRequest, Resolution] = {
    ImageRequest(IMAGE): ResolvedImage(NEW),
    ImageRequest("log:1"): ResolvedImage(NEW),
}
AWAY = ImageProblem("registry away", unavailable=True)
NO = ImageProblem("no such image")


def record(
    name: str = "web", image: str = IMAGE, *, identity: str | None = None, **more: Any
) -> ServiceRecord:
    """A service record with an image from a registry."""
    values: dict[str, Any] = {
        "id": ServiceId(identity or f"id-{name}"),
        "name": name,
        "registry_target": RegistryTarget(image_url=image),
    }
    return ServiceRecord(**(values | more))


def records(*services: ServiceRecord, **more: Any) -> Records:
    """Records of one cluster."""
    return Records(cluster=ClusterRecord(id=CLUSTER), services=services, **more)


def render(
    given: Records,
    seen: Observed | None = None,
    images: Mapping[ImageRequest, Resolution] = FOUND,
    options: RenderOptions = NO_BASE,
    **more: Any,
) -> Desired:
    """Render once, remembering nothing."""
    return Renderer(options).render(given, seen or Observed(), images, **more)


def running(name: str, identity: str | None = None, **more: Any) -> ObservedService:
    """A service of a record, as it runs."""
    return live(spec(name, identity), **more)


def reasons(desired: Desired) -> dict[str, tuple[str, ...]]:
    """Why which unit is rejected."""
    return {rejection.unit: rejection.reasons for rejection in desired.rejections}


def test_a_record_becomes_a_service() -> None:
    """A good record is wanted with the digest that the registry names, and nothing is rejected or held."""
    desired = render(records(record()))
    assert desired.services["web"].body.image == f"{IMAGE}@{NEW}"
    assert (desired.rejections, desired.notes, desired.held, desired.prune) == ((), (), frozenset(), True)
    assert [n.name for n in desired.networks] == ["sznwebgateway", "szncorechat"]


# quarrels

WANTS_IT: list[tuple[tuple[ServiceRecord, ...], tuple[ObservedService, ...], str, dict[str, str]]] = [
    (
        (record("web", identity="a"), record("web", identity="b")),
        (),
        "a",
        {"b": "the name web belongs to service a"},
    ),
    (
        (record("web", identity="a"), record("web", identity="b")),
        (running("web", "b"),),
        "b",
        {"a": "the name web belongs to service b"},
    ),
    (  # a runs under another name, and would like to be called what b is called
        (record("web", identity="a"), record("web", identity="b")),
        (running("shop", "a"), running("web", "b")),
        "b",
        {"a": "the name web belongs to service b"},
    ),
    ((record("web", identity="a"),), (foreign("web"),), "", {"a": "a service named web exists already"}),
]


@pytest.mark.parametrize(("services", "there", "winner", "losers"), WANTS_IT)
def test_who_has_a_name_keeps_it(
    services: tuple[ServiceRecord, ...],
    there: tuple[ObservedService, ...],
    winner: str,
    losers: dict[str, str],
) -> None:
    """Of two records with one name the one whose service has it keeps it, in whatever order they come."""
    for order in permutations(services):
        desired = render(records(*order), Observed(services=there))
        assert {s.owner for s in desired.services.values()} == ({winner} if winner else set())
        assert desired.held == losers.keys()
        assert all(reasons(desired)[unit][0].startswith(text) for unit, text in losers.items())


def domains(*names: str) -> dict[str, Any]:
    """The part of a record that claims host names."""
    return {"domains": tuple(DomainRecord(name=name, port=80) for name in names)}


@pytest.mark.parametrize(("there", "winner", "loser"), [((), "a", "b"), ((running("shop", "b"),), "b", "a")])
def test_who_runs_keeps_a_host_name(there: tuple[ObservedService, ...], winner: str, loser: str) -> None:
    """Of two records with one host name the one that runs keeps it; host names are compared without case and dot."""
    services = (
        record("web", identity="a", **domains("x.example", "only-a.example")),
        record("shop", identity="b", **domains("X.example.", "only-b.example")),
    )
    for order in permutations(services):
        desired = render(records(*order), Observed(services=there))
        assert {s.owner for s in desired.services.values()} == {winner}
        assert reasons(desired) == {loser: (f"the host name x.example belongs to service {winner}",)}


@pytest.mark.parametrize(
    ("image", "answer"), [("Bad Image", NO), (IMAGE, NO), (IMAGE, AWAY)], ids=["invalid", "refused", "away"]
)
@pytest.mark.parametrize("runs", [True, False])
def test_what_runs_keeps_its_host_names_while_it_cannot_be_deployed(
    image: str, answer: Resolution, runs: bool
) -> None:
    """A service that is held or rejected and runs keeps its host names; one that does not run keeps nobody waiting."""
    broken = record("web", image, **domains("x.example"))
    rival = record("shop", f"shop:1@{NEW}", **domains("x.example"))
    there = (running("web", labels={naming.IMAGE: f"app:0@{OLD}"}),) if runs else ()
    for order in permutations((broken, rival)):
        desired = render(records(*order), Observed(services=there), {ImageRequest(IMAGE): answer})
        assert desired.services.keys() == (set() if runs else {"shop"})
        text = "the host name x.example belongs to service id-web"
        assert reasons(desired).get("id-shop") == ((text,) if runs else None)


def test_who_has_no_name_needs_no_host_name() -> None:
    """A record whose name is taken leaves its host names to others, unless its service runs under another name."""
    nameless, rival = record("web", **domains("x.example")), record("shop", **domains("x.example"))
    for there, wanted in (((), {"shop"}), ((running("old", "id-web"),), set())):
        desired = render(records(nameless, rival), Observed(services=(foreign("web"), *there)))
        assert desired.services.keys() == wanted


def test_records_with_one_id_are_all_rejected() -> None:
    """Which of two records with the same id is meant nobody knows: what runs is held."""
    for order in permutations((record("web", identity="a"), record("shop", identity="a"), record("other"))):
        desired = render(records(*order), Observed(services=(running("web", "a"),)))
        assert desired.services.keys() == {"other"}
        assert desired.rejections == (
            Rejection(unit="a", name="shop", reasons=("2 service records have the id a: shop and web",)),
        )
        assert desired.held_names == {"web", "shop"}
        assert desired.doubt == OF_ONE_ID.format("a")


def test_a_copied_id_takes_nothing_from_what_runs() -> None:
    """Services under the names of records that have one id stay and keep their hosts: with the id of another record, too."""
    twins = (
        record("web", identity="a", **domains("web.example")),
        record("worker", identity="a", **domains("worker.example")),
    )
    there = (running("web", "a"), running("worker", "b"), running("gone", "c"))
    for order in permutations(twins):
        seen = Observed(services=there)
        desired = render(records(*order), seen)
        assert not any(isinstance(action, Remove) for action in make_plan(desired, seen).actions)
        assert {h: c.service for h, c in desired.hosts.items()} == {
            "web.example": "web",
            "worker.example": "worker",
        }


def test_domains_that_no_proxy_serves_are_noted_once() -> None:
    """Unless a coretraffic is or will be there, or proxies run elsewhere."""
    wanted = records(record("a", IMAGE, **domains("b.example", "a.example")), record("b", IMAGE))
    (note,) = render(wanted).notes
    assert note.name == naming.CORETRAFFIC
    assert "nothing serves a.example and 1 more" in note.text
    assert render(records(record("b", IMAGE))).notes == ()
    assert render(wanted, Observed(services=(running("coretraffic", "x"),))).notes == ()
    assert render(wanted, options=evolve(NO_BASE, has_proxy=True)).notes == ()
    base = BaseOptions(services=("coretraffic",), images={"coretraffic": "log:1"})
    assert render(wanted, options=RenderOptions(base=base)).notes == ()


@pytest.mark.parametrize("image", ["Bad Image", "app:404"])
def test_a_slip_in_an_id_removes_nothing_while_the_record_is_not_deployed(image: str) -> None:
    """A record that is rejected or held keeps what runs under its name with another id, and its hosts.

    Where another record has that id, the service is that one's.
    """
    seen = Observed(services=(running("web", "a"), running("shop")))
    slip = record("web", image, identity="b", **domains("x.example"))
    desired = render(records(slip, record("shop")), seen, {ImageRequest("app:404"): AWAY, **FOUND})
    plan = make_plan(desired, seen)
    assert not [a for a in plan.actions if isinstance(a, Remove)]
    assert [note.text for note in plan.notes if note.name != naming.CORETRAFFIC] == [NAMED]
    assert desired.hosts["x.example"].service == "web"
    desired = render(records(slip, record("web", "Bad Image", identity="a")), seen)
    assert not desired.hosts


IDS, NAMES = st.sampled_from("abc"), st.sampled_from(["x", "y", "z", "X"])


@settings(max_examples=examples(300))
@given(
    st.lists(st.tuples(IDS, NAMES, st.sampled_from([IMAGE, "Bad Image", "app:404"])), max_size=4),
    st.lists(st.tuples(IDS, st.none() | NAMES), max_size=2),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), IDS),
)
def test_no_slip_in_an_id_removes_anything(
    readable: list[tuple[str, str, str]], unreadable: list[tuple[str, str | None]], there: dict[str, str]
) -> None:
    """A removed service has the name of no record, unless that one is deployed and its own record has another name.

    Nothing at all is removed for want of a record while an id is shared. What would be refused is confirmed.
    """
    bad = [RejectedRecord(kind="service", id=i, name=n, reasons=("wrong",)) for i, n in unreadable]
    wanted = [record(name, image, identity=identity) for identity, name, image in readable]
    seen = Observed(services=tuple(running(name, owner) for name, owner in there.items()))
    desired = render(records(*wanted, rejected=tuple(bad)), seen, {ImageRequest("app:404"): AWAY, **FOUND})
    plan = make_plan(desired, seen)
    if plan.refusal is not None:
        plan = make_plan(desired, seen, PlanOptions(confirmed=plan.refusal.token))
    deployed = {naming.folded(name) for name in desired.services}
    renamed = {spec.owner for spec in desired.services.values()}
    recorded = {naming.folded(name) for name in [s.name for s in wanted] + [r.name for r in bad if r.name]}
    ids = [s.id for s in wanted] + [r.id for r in bad]
    for action in plan.actions:
        if isinstance(action, Remove) and isinstance(action.target, ObservedService):
            assert action.target.name not in recorded - deployed
            assert action.target.owner in renamed or len(set(ids)) == len(ids)


def test_records_with_one_id_that_cannot_be_read_hold_removals() -> None:
    """Nobody knows what they are called, so anything that no record names may be theirs."""
    twins = [RejectedRecord(kind="service", id="a", name=None, reasons=("wrong",)) for _ in range(2)]
    desired = render(records(rejected=tuple(twins)), Observed(services=(running("web", "a"),)))
    assert desired.doubt == OF_ONE_ID.format("a")


def test_many_names_of_one_id_are_not_all_told() -> None:
    """Five are."""
    desired = render(records(*(record(f"n{n}", identity="a") for n in range(8))))
    assert reasons(desired) == {"a": ("8 service records have the id a: n0, n1, n2, n3, n4 and 3 more",)}


def test_an_id_that_an_unreadable_record_has_as_well_is_held() -> None:
    """A record that shares its id with one that cannot be read is not deployed: the id is held."""
    bad = RejectedRecord(kind="service", id="a", name="web", reasons=("name is missing",))
    desired = render(records(record("web", identity="a"), rejected=(bad,)))
    assert not desired.services
    assert desired.held == {"a"}


def test_the_base_has_its_names_first() -> None:
    """A record cannot take the name of a base service."""
    desired = render(records(record("corelog")), options=ONLY_LOG)
    assert desired.services["corelog"].owner == BASE
    assert reasons(desired) == {"id-corelog": ("the name corelog belongs to the base",)}


def test_no_workload_is_taken_for_coreflow() -> None:
    """Proxies dial the name: whoever had it would be asked for routes. It is reserved without base services, too."""
    desired = render(records(record("coreflow")), options=NO_BASE)
    assert reasons(desired) == {"id-coreflow": ("the name coreflow belongs to the base",)}


def test_a_foreign_service_with_the_name_of_a_base_service_is_left_alone() -> None:
    """A base service whose name somebody else took is rejected and held."""
    desired = render(records(), Observed(services=(foreign("corelog"),)), options=ONLY_LOG)
    assert not desired.services
    assert desired.held == {"base/corelog"}


# categories


@pytest.mark.parametrize(
    ("category", "wanted"),
    [(None, True), ("", True), ("workload", True), ("base", False), ("distributed", False)],
)
def test_only_workloads_are_deployed(category: str | None, wanted: bool) -> None:
    """A record of another category is not deployed; what it has is held and noted."""
    given = records(record(service_category=category))
    renderer = Renderer(NO_BASE)
    assert bool(renderer.image_requests(given, Observed())) is wanted
    new = render(given)
    assert bool(new.services) is wanted
    assert not new.held
    assert not new.notes
    old = render(given, Observed(services=(running("web"),)))
    assert old.held == (set() if wanted else {"id-web"})
    text = f"its category is {category}: left alone"
    assert old.notes == (() if wanted else (Note(unit="id-web", name="web", text=text),))
    assert not old.rejections


# records that cannot be read


@pytest.mark.parametrize(
    ("identity", "name", "unit", "shown", "prune", "held_names"),
    [
        ("a", "Web", "a", "Web", True, {"web"}),
        ("there", None, "there", "there", True, set()),
        ("a", None, "a", "a", False, set()),
        (None, "web", "", "web", False, {"web"}),
        (None, None, "", "(no name)", False, set()),
    ],
)
def test_an_unreadable_record_holds_what_it_could_have(
    identity: str | None, name: str | None, unit: str, shown: str, prune: bool, held_names: set[str]
) -> None:
    """Its id holds its objects, and its name what runs under it.

    Without an id, or without a name where nothing has the id, nothing is pruned, for it could be anybody's.
    """
    bad = RejectedRecord(kind="service", id=identity, name=name, reasons=("wrong",))
    desired = render(records(rejected=(bad,)), Observed(services=(running("x", "there"),)))
    assert desired.rejections == (Rejection(unit=unit, name=shown, reasons=("wrong",)),)
    assert desired.held == ({unit} if unit else set())
    assert desired.prune is prune
    assert set(desired.held_names) == held_names


def test_a_name_of_a_record_without_id_is_taken() -> None:
    """A record cannot take a name that a record without an id has."""
    bad = RejectedRecord(kind="service", id=None, name="web", reasons=("wrong",))
    desired = render(records(record(), rejected=(bad,)))
    assert reasons(desired)["id-web"] == ("another record, whose id is missing, has the name web",)


@pytest.mark.parametrize(("identity", "shown"), [("b", "secret bundle b"), (None, "secret bundle (no id)")])
def test_another_unreadable_record_is_a_note(identity: str | None, shown: str) -> None:
    """A record that is no service holds nothing by itself; who needs it is rejected for it."""
    bad = RejectedRecord(kind="secret bundle", id=identity, name=None, reasons=("x", "y"))
    desired = render(records(rejected=(bad,)))
    assert desired.notes == (Note(unit="", name=shown, text="x; y"),)
    assert (desired.rejections, desired.prune) == ((), True)


# images

LOGIN = RegistryLogin(serveraddress="registry.example", username="u", password="p")
HASH = login_hash(CLUSTER, LOGIN)
AT_OLD, AT_NEW = f"{IMAGE}@{OLD}", f"{IMAGE}@{NEW}"
RUNS_OLD = running("web", labels={naming.IMAGE: AT_OLD})
IMAGES: list[tuple[str, ObservedService | None, Resolution | None, bool, str]] = [
    ("new, found", None, ResolvedImage(NEW), False, AT_NEW),
    ("new, only in the engine", None, ResolvedImage(None), False, IMAGE),
    ("new, refused", None, NO, False, "rejected"),
    ("new, away", None, AWAY, False, "held"),
    ("new, not asked", None, None, False, "held"),
    ("same, not asked", RUNS_OLD, None, False, AT_OLD),
    ("same, found", RUNS_OLD, ResolvedImage(NEW), False, AT_OLD),
    ("same, away", RUNS_OLD, AWAY, False, AT_OLD),
    ("same, refused", RUNS_OLD, NO, False, AT_OLD),
    ("refresh, found", RUNS_OLD, ResolvedImage(NEW), True, AT_NEW),
    ("refresh, only in the engine", RUNS_OLD, ResolvedImage(None), True, IMAGE),
    ("refresh, away", RUNS_OLD, AWAY, True, AT_OLD),
    ("refresh, refused", RUNS_OLD, NO, True, AT_OLD),
    ("refresh, not asked", RUNS_OLD, None, True, AT_OLD),
    ("another tag, away", running("web", labels={naming.IMAGE: f"app:0@{OLD}"}), AWAY, False, "held"),
    ("another tag, refused", running("web", labels={naming.IMAGE: f"app:0@{OLD}"}), NO, False, "rejected"),
    (
        "failed tag",
        running("web", labels={naming.IMAGE: "app:0", naming.FAILED_IMAGE: AT_OLD}),
        AWAY,
        False,
        AT_OLD,
    ),
    (
        "failed digest",
        running("web", labels={naming.IMAGE: AT_OLD, naming.FAILED_IMAGE: AT_NEW}),
        AWAY,
        False,
        AT_OLD,
    ),
    ("without a digest", running("web", labels={naming.IMAGE: IMAGE}), AWAY, False, IMAGE),
    ("somebody else's", running("shop", labels={naming.IMAGE: AT_OLD}), AWAY, False, "held"),
    (
        "login removed, found",
        live(spec(login="x"), labels={naming.IMAGE: AT_OLD}),
        ResolvedImage(NEW),
        False,
        AT_OLD,
    ),
    ("login removed, away", live(spec(login="x"), labels={naming.IMAGE: AT_OLD}), AWAY, False, "held"),
    ("login removed, refused", live(spec(login="x"), labels={naming.IMAGE: AT_OLD}), NO, False, "rejected"),
]


@pytest.mark.parametrize(
    ("there", "answer", "refresh", "wanted"), [i[1:] for i in IMAGES], ids=[i[0] for i in IMAGES]
)
def test_an_image_keeps_its_digest(
    there: ObservedService | None, answer: Resolution | None, refresh: bool, wanted: str
) -> None:
    """An unchanged reference keeps its digest; one that is new waits for a registry that is away, and fails if refused."""
    images = {} if answer is None else {ImageRequest(IMAGE): answer}
    desired = render(records(record()), Observed(services=(there,) if there else ()), images, refresh=refresh)
    if wanted in {"held", "rejected"}:
        (rejection,) = desired.rejections
        assert rejection.held is (wanted == "held")
        assert desired.held == {"id-web"}
        text = answer.text if isinstance(answer, ImageProblem) else f"image {IMAGE} was not looked up"
        assert rejection.reasons == (text,)
    else:
        assert desired.services["web"].body.image == wanted


@pytest.mark.parametrize(
    ("answer", "there", "deployed"),
    [
        (ResolvedImage(NEW), False, True),
        (None, False, True),
        (AWAY, False, False),
        (NO, False, False),
        (AWAY, True, True),
    ],
)
def test_a_digest_in_the_record_is_the_digest(answer: Any, there: bool, deployed: bool) -> None:
    """A reference with a digest stays as it is; it is only tried out before it runs for the first time."""
    images = {} if answer is None else {ImageRequest(AT_OLD): answer}
    seen = Observed(services=(RUNS_OLD,) if there else ())
    desired = render(records(record(image=AT_OLD)), seen, images, refresh=True)
    assert [s.body.image for s in desired.services.values()] == ([AT_OLD] if deployed else [])


def test_base_images_follow_the_same_rules() -> None:
    """A base service is held while its image cannot be looked up, rejected when refused, and else has its digest."""
    for answer, held in ((AWAY, True), (NO, False)):
        desired = render(records(), images={ImageRequest("log:1"): answer}, options=ONLY_LOG)
        assert desired.rejections == (
            Rejection(unit="base/corelog", name="corelog", reasons=(answer.text,), held=held),
        )
    there = live(spec("corelog", BASE), labels={naming.IMAGE: f"log:1@{OLD}"})
    desired = render(records(), Observed(services=(there,)), {}, ONLY_LOG)
    assert desired.services["corelog"].body.image == f"log:1@{OLD}"


def test_only_unknown_images_are_looked_up() -> None:
    """What a service of ours has pinned is not asked again, unless refreshed or with another login; each once."""
    private = RegistryTarget(image_url="registry.example/app:1", registry_info=LOGIN)
    known, unknown = record(), record("shop", "app:2")
    twin, secret, bad = record("twin", "app:2"), record("vault", registry_target=private), record("bad", "!")
    given = records(known, unknown, twin, secret, bad)
    log, asked = ImageRequest("log:1"), ImageRequest("registry.example/app:1", LOGIN)
    seen = Observed(services=(RUNS_OLD, live(spec("corelog", BASE), labels={naming.IMAGE: f"log:1@{OLD}"})))
    renderer = Renderer(ONLY_LOG)
    assert renderer.image_requests(given, seen) == (ImageRequest("app:2"), asked)
    assert renderer.image_requests(given, seen, refresh=True) == (
        ImageRequest(IMAGE),
        ImageRequest("app:2"),
        log,
        asked,
    )
    labels = {naming.IMAGE: f"registry.example/app:1@{OLD}", naming.LOGIN: HASH}
    logged_in = evolve(seen, services=(*seen.services, running("vault", labels=labels)))
    assert renderer.image_requests(given, logged_in) == (ImageRequest("app:2"),)
    labels[naming.LOGIN] = "another"
    logged_out = evolve(seen, services=(*seen.services, running("vault", labels=labels)))
    assert asked in renderer.image_requests(given, logged_out)
    assert renderer.image_requests(given, Observed(services=(foreign("corelog"),)))[-2] == log


INTERNAL = ImageRecord(
    id=ImageId("img"), location=ImageLocation(internal=True), versions=(ImageVersion(version_string="1"),)
)


def archived(**more: Any) -> Records:
    """A record whose image Cloudly keeps."""
    service = record(registry_target=None, image_id=ImageId("img"), image_version="1", **more)
    return records(service, images={INTERNAL.id: INTERNAL})


@pytest.mark.parametrize(
    ("nodes", "own", "constraints"),
    [
        ((), None, ()),
        ((node("a"),), "a", ()),
        ((node("a"), node("b")), "a", ("node.id==a",)),
        ((node("a"), node("b")), None, ()),
    ],
)
def test_an_archive_is_loaded_and_keeps_its_service_near(
    nodes: Any, own: str | None, constraints: Any
) -> None:
    """An image that only one node has pins its service to that node where there are several; nobody is asked for it."""
    seen = Observed(nodes=nodes, own_node=NodeId(own) if own else None)
    assert Renderer(NO_BASE).image_requests(archived(), seen) == ()
    desired = render(archived(), seen, {})
    assert desired.images["web"].reference == "img:1"
    assert desired.services["web"].body.image == "img:1"
    assert desired.services["web"].body.constraints == constraints
    assert bool(desired.notes) is bool(constraints)
    assert render(records(record()), seen).services["web"].body.constraints == ()


# secrets


def group(identity: str, *tags: Tag, value: str = "v") -> SecretGroupRecord:
    """A group with one value."""
    values = {"production": SecretValue(value=value)}
    return SecretGroupRecord(id=GroupId(identity), key=identity, tags=tags, environments=values)


def bundle(*groups: str, tags: tuple[Tag, ...] = (), identity: str = "bundle") -> SecretBundleRecord:
    """A bundle of groups, or of tags."""
    included = tuple(GroupId(g) for g in groups)
    return SecretBundleRecord(id=BundleId(identity), included_secret_group_ids=included, included_tags=tags)


def with_secrets(
    bundles: tuple[SecretBundleRecord, ...],
    groups: tuple[SecretGroupRecord, ...],
    service: ServiceRecord | None = None,
    **more: Any,
) -> Records:
    """Records of a service that mounts the first bundle."""
    return records(
        service or record(secret_bundle_id=BundleId("bundle")),
        secret_bundles={b.id: b for b in bundles},
        secret_groups={g.id: g for g in groups},
        **more,
    )


@pytest.mark.parametrize(
    ("bundles", "groups", "payload"),
    [
        ((bundle("A"),), (group("A"), group("B")), b'{"A":"v"}'),
        ((bundle("A", tags=(Tag(key="t"),)),), (group("A"), group("B", Tag(key="t"))), b'{"A":"v"}'),
        ((bundle(tags=(Tag(key="t"),)),), (group("A"), group("B", Tag(key="t"))), b'{"B":"v"}'),
        ((bundle(tags=(Tag(key="nothing"),)),), (group("A"),), b"{}"),
        ((bundle(),), (group("A"),), b"{}"),
    ],
)
def test_a_bundle_chooses_groups(bundles: Any, groups: Any, payload: bytes) -> None:
    """A bundle takes the groups it names, and only where it names none those with its tags."""
    desired = render(with_secrets(bundles, groups))
    assert desired.secrets["web"].payload == payload
    assert desired.services["web"].body.secrets[0].secret_name == desired.secrets["web"].name


def test_everything_that_is_missing_is_said_at_once() -> None:
    """Missing bundles, groups and images all reject the record, each with a reason that tells bad from absent."""
    service = record(
        secret_bundle_id=BundleId("bundle"),
        additional_secret_bundle_ids=(BundleId("gone"), BundleId("bad")),
        registry_target=None,
    )
    bad = RejectedRecord(kind="secret bundle", id="bad", name=None, reasons=("wrong",))
    desired = render(with_secrets((bundle("A"),), (), service, rejected=(bad,)))
    assert reasons(desired) == {
        "id-web": (
            "no image: imageId is missing and there is no registryTarget",
            "secret bundle gone does not exist",
            "secret bundle bad is invalid: wrong",
            "secret group A does not exist (in secret bundle bundle)",
        )
    }


def test_a_fault_of_the_record_comes_before_a_registry_that_is_away() -> None:
    """A record with a fault is rejected, not held, even while its image cannot be looked up; a refusal joins in."""
    for answer, also in ((AWAY, ()), (NO, ("no such image",))):
        desired = render(with_secrets((), ()), images={ImageRequest(IMAGE): answer})
        assert desired.rejections[0].reasons == (*also, "secret bundle bundle does not exist")
        assert not desired.rejections[0].held


# networks


@pytest.mark.parametrize(
    ("there", "bad"),
    [
        (network(), False),
        (network(driver="bridge", scope="local"), True),
        (network(scope="local"), True),
        (network("another", driver="bridge"), False),
        (network(driver="", is_new=True), False),
    ],
)
def test_a_network_of_another_kind_holds_everything(there: Any, bad: bool) -> None:
    """Where a base network's name is taken by something else, nothing is wanted, and everything is held."""
    desired = render(records(record()), Observed(networks=(there,)), options=ONLY_LOG)
    assert desired.services.keys() == (set() if bad else {"web", "corelog"})
    assert desired.held == ({BASE, "id-web", "base/corelog"} if bad else set())
    text = "network sznwebgateway exists and is not a Swarm overlay network: rename or remove it"
    assert reasons(desired) == ({BASE: (text,)} if bad else {})


def test_a_network_without_addresses_holds_everything() -> None:
    """One whose range is taken is told from one that is not ours, with what to do."""
    desired = render(records(record()), Observed(networks=(network(driver=""),)), options=ONLY_LOG)
    assert desired.held == {BASE, "id-web", "base/corelog"}
    text = "network sznwebgateway has no addresses, since Swarm found its range taken by another network: remove it"
    assert reasons(desired) == {BASE: (text,)}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"is_internal": True}, "is internal: no service reaches the world outside through it"),
        (
            {"is_encrypted": True},
            "is encrypted: traffic between nodes is slower, and needs IP protocol 50 (ESP) in firewalls",
        ),
        (
            {"attachable": False},
            "is not attachable: only services can join it, no container of `docker run`",
        ),
        (
            {"subnets": ("10.1.0.0/29",)},
            "has room for 5 addresses: every task, every node and every virtual address needs one",
        ),
        ({"subnets": ("10.1.0.0/24",)}, None),
        ({"subnets": ("fd00::/64",)}, None),
        ({"is_internal": True, "is_remnant": True}, None),
    ],
)
def test_an_unusual_network_is_used_with_a_remark(changes: Any, text: str | None) -> None:
    """Somebody made it by hand: what that means is said, and nothing is held."""
    there = network(**({"attachable": True} | changes))
    desired = render(records(record()), Observed(networks=(there,)), options=ONLY_LOG)
    assert [note.text for note in desired.notes] == ([f"network sznwebgateway {text}"] if text else [])
    assert not desired.held


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"subnets": ("10.1.0.0/30",)},
            "has room for 1 address (10.1.0.0/30), too few for any task: remove it",
        ),
        (
            {"is_ingress": True},
            "is Swarm's ingress network, which no service can join: remove it, and make one of another name",
        ),
    ],
)
def test_a_network_that_takes_no_task_holds_everything(changes: Any, text: str) -> None:
    """It is refused in the plan: no task would ever start on it."""
    desired = render(records(record()), Observed(networks=(network(**changes),)), options=ONLY_LOG)
    assert desired.held == {BASE, "id-web", "base/corelog"}
    assert reasons(desired) == {BASE: (f"network sznwebgateway {text}",)}


def test_no_ports_are_published_without_an_ingress_network() -> None:
    """The engine would refuse the service at every pass. On the hosts themselves no such network is needed."""
    bridge = network("bridge", driver="bridge", scope="local")
    mesh = network("ingress", is_ingress=True)
    for networks, publish, is_held in (
        ((bridge,), "ingress", True),
        ((bridge, evolve(mesh, is_remnant=True)), "ingress", True),
        ((bridge, mesh), "ingress", False),
        ((bridge,), "host", False),
        ((), "ingress", False),
    ):
        options = RenderOptions(
            base=BaseOptions(
                services=("coretraffic", "corelog"),
                images={"corelog": "log:1", "coretraffic": "log:1"},
                coretraffic_publish=publish,
            )
        )
        desired = render(records(), Observed(networks=networks), options=options)
        assert ("coretraffic" in desired.services) is not is_held, (networks, publish)
        assert "corelog" in desired.services
        assert [(r.name, r.held) for r in desired.rejections] == ([("coretraffic", True)] if is_held else [])
        assert all("docker network create" in text for r in desired.rejections for text in r.reasons)


def test_networks_avoid_ranges_that_are_taken() -> None:
    """New networks get address ranges that no other network has."""
    seen = Observed(networks=(network("x", subnets=("10.201.0.0/16", "10.202.7.0/24")),))
    assert [n.subnet for n in render(records(), seen).networks] == ["10.203.0.0/16", "10.204.0.0/16"]


# memory


def test_nothing_new_is_rendered_of_the_same_records() -> None:
    """The same objects give the same specs; whatever one of them is replaced by makes a new one, of its service only."""
    external = ImageRecord(
        id=ImageId("ext"),
        location=ImageLocation(external_registry_id=RegistryId("r"), external_image_tag="app:1"),
    )
    registry = ExternalRegistryRecord(id=RegistryId("r"), url="docker.io")
    web, shop = record(secret_bundle_id=BundleId("bundle")), record("shop")
    vault = record("vault", registry_target=None, image_id=external.id)
    given = evolve(
        with_secrets((bundle("A"),), (group("A"),)),
        services=(web, shop, vault),
        images={external.id: external},
        external_registries={registry.id: registry},
    )
    renderer = Renderer(NO_BASE)

    def again(**changes: Any) -> set[str]:
        """Which services are rendered anew."""
        old = renderer.render(given, Observed(), FOUND).services
        new = renderer.render(evolve(given, **changes), Observed(), FOUND).services
        return {name for name in new if new[name] is not old[name]}

    assert again() == set()
    assert again(secret_groups={GroupId("A"): group("A", value="new")}) == {"web"}
    assert again(secret_bundles={BundleId("bundle"): bundle("A")}) == {"web"}
    assert again(services=(web, evolve(shop, scale_factor=2), vault)) == {"shop"}
    assert again(external_registries={registry.id: evolve(registry, name="x")}) == {"vault"}
    assert again(images={external.id: evolve(external, name="x")}) == {"vault"}
    assert again(cluster=ClusterRecord(id=CLUSTER, registry_info=LOGIN)) == {"web", "shop", "vault"}
    given = evolve(given, cluster=ClusterRecord(id=CLUSTER, registry_info=LOGIN))
    assert again(cluster=ClusterRecord(id=CLUSTER, registry_info=evolve(LOGIN))) == set()
    assert again(cluster=ClusterRecord(id=ClusterId("x"), registry_info=LOGIN)) == {"web", "shop", "vault"}
    first = renderer.render(given, Observed(), FOUND)
    renderer.render(evolve(given, services=(web,)), Observed(), FOUND)
    assert renderer.render(given, Observed(), FOUND).services["shop"] is not first.services["shop"]


def test_provisioned_values_make_a_secret() -> None:
    """What bindings returned goes into the secret, and a new value makes a new spec."""
    renderer = Renderer(NO_BASE)
    given = records(record())
    one, same, two = (
        renderer.render(given, Observed(), FOUND, Bound(variables={ServiceId("id-web"): {"URL": value}}))
        for value in "112"
    )
    assert one.secrets["web"].payload == b'{"URL":"1"}'
    assert one.services["web"] is same.services["web"]
    assert one.secrets["web"].name != two.secrets["web"].name


def test_a_record_that_left_is_forgotten() -> None:
    """Nothing is kept of records that are gone, rendered or not."""
    renderer = Renderer(NO_BASE)
    renderer.render(records(record(), record("shop", "unknown:1")), Observed(), FOUND)
    renderer.render(records(), Observed(), FOUND)
    assert not renderer._memo
    assert not renderer._sources
    assert not renderer._layers._known


def test_a_bundle_that_several_services_mount_is_made_up_once() -> None:
    """Services with the same bundle have the same values, and a bundle that nobody mounts any more is forgotten."""
    mounts: dict[str, Any] = {"secret_bundle_id": BundleId("bundle")}
    given = evolve(
        with_secrets((bundle("A"),), (group("A"),)), services=(record(**mounts), record("shop", **mounts))
    )
    renderer = Renderer(NO_BASE)
    desired = renderer.render(given, Observed(), FOUND)
    assert {s.payload for s in desired.secrets.values()} == {b'{"A":"v"}'}
    assert len({s.name for s in desired.secrets.values()}) == 2
    assert renderer._layers._known.keys() == {"bundle"}
    renderer.render(evolve(given, services=(record(), record("shop"))), Observed(), FOUND)
    assert not renderer._layers._known


def test_one_observation_answers_both_questions() -> None:
    """What was asked of the registry and what is rendered follow from the same labels."""
    renderer = Renderer(NO_BASE)
    seen, given = Observed(services=(RUNS_OLD,)), records(record())
    assert renderer.image_requests(given, seen) == ()
    assert renderer.render(given, seen, {}).services["web"].body.image == AT_OLD
    assert renderer.image_requests(given, Observed()) == (ImageRequest(IMAGE),)


# any document


@settings(max_examples=examples(300))
@given(
    document=cluster_documents(), answer=st.sampled_from([ResolvedImage(NEW), ResolvedImage(None), AWAY, NO])
)
def test_no_document_breaks_a_pass_or_tells_a_secret(document: dict[str, Any], answer: Resolution) -> None:
    """Whatever records say, every service is wanted or refused with reasons, and secrets are in payloads alone."""
    given_, seen = decode_records(document), Observed(nodes=(node("a"), node("b")), own_node=NodeId("a"))
    renderer = Renderer(NO_BASE)
    answers = dict.fromkeys(renderer.image_requests(given_, seen), answer)
    desired = renderer.render(given_, seen, answers, Bound(variables={ServiceId("s0"): {"URL": SECRET}}))
    plan = make_plan(desired, seen)
    accounted = {spec.owner for spec in desired.services.values()} | desired.held
    assert all(service.id in accounted for service in given_.services if is_workload(service))
    for text in (*(reason for rejection in desired.rejections for reason in rejection.reasons), str(plan)):
        text.encode()
        assert SECRET not in text
    for spec_ in desired.services.values():
        assert SECRET not in f"{spec_}{service_labels(spec_)}{spec_.fingerprints}"
    assert SECRET not in f"{given_}{desired}"
    again = Renderer(NO_BASE).render(
        given_, seen, answers, Bound(variables={ServiceId("s0"): {"URL": SECRET}})
    )
    assert again == desired


# where data is


VOLUMES = {"volumes": (VolumeRecord(mount_path="/data"),)}


def _at(*nodes: str, constraint: str = "", state: str = "running") -> tuple[Any, tuple[ObservedTask, ...]]:
    """A live service `web` with a task on each of these nodes."""
    service = live(spec("web", constraints=(constraint,) if constraint else ()))
    tasks = [example_task(service, n, node_id=NodeId(node), state=state) for n, node in enumerate(nodes)]
    return service, tuple(tasks)


@pytest.mark.parametrize(
    ("at", "data", "expected"),
    [
        (_at("b"), VOLUMES, ("node.id==b",)),
        (_at("b"), {}, ()),
        (_at(), VOLUMES, ()),
        (_at("b", state="starting"), VOLUMES, ()),
        (_at("a", "b"), VOLUMES, ()),
        (_at("b"), {**VOLUMES, "scale_factor": 2}, ()),
        (_at("a", constraint="node.id==b"), VOLUMES, ("node.id==b",)),
        (_at(constraint="node.id==b"), VOLUMES, ("node.id==b",)),
        (_at(constraint="node.id==gone"), VOLUMES, ()),
        (_at("b", constraint="node.labels.x==y"), VOLUMES, ("node.id==b",)),
    ],
)
def test_a_service_stays_with_its_volumes(at: Any, data: dict[str, Any], expected: tuple[str, ...]) -> None:
    """On the node that it ran on first, for as long as that is in the Swarm; not on a single node, nor if unwanted."""
    service, tasks = at
    nodes = (node("a"), node("b"))
    seen = Observed(services=(service,), tasks=tasks, nodes=nodes, own_node=NodeId("a"))
    given_ = records(record(**data))
    options = RenderOptions(base=BaseOptions(services=()))
    found = Renderer(options).render(given_, seen, FOUND)
    assert found.services["web"].body.constraints == expected
    texts = [note.text for note in found.notes]
    assert any("the node that has its data" in text for text in texts) is bool(expected)
    off = Renderer(evolve(options, keep_on_node=False)).render(given_, seen, FOUND)
    assert off.services["web"].body.constraints == ()
    alone = Renderer(options).render(given_, evolve(seen, nodes=nodes[1:]), FOUND)
    assert alone.services["web"].body.constraints == ()


ARM, AMD = Platform("linux", "arm64"), Platform("linux", "amd64")
PLATFORMS: list[tuple[str, ObservedService | None, Resolution | None, bool, tuple[Platform, ...]]] = [
    ("new, told", None, ResolvedImage(NEW, (ARM,)), False, (ARM,)),
    ("new, not told", None, ResolvedImage(NEW), False, ()),
    ("same, not asked", evolve(RUNS_OLD, platforms=(ARM,)), None, False, (ARM,)),
    ("same, had none", RUNS_OLD, None, False, ()),
    (
        "same, asked for its login",
        evolve(RUNS_OLD, platforms=(ARM,)),
        ResolvedImage(NEW, (AMD,)),
        False,
        (ARM,),
    ),
    ("refresh, told", evolve(RUNS_OLD, platforms=(ARM,)), ResolvedImage(NEW, (AMD,)), True, (AMD,)),
    ("refresh, away", evolve(RUNS_OLD, platforms=(ARM,)), AWAY, True, (ARM,)),
    (
        "failed, then another image ran",
        evolve(
            running("web", labels={naming.IMAGE: "app:0", naming.FAILED_IMAGE: AT_OLD}),
            platforms=(ARM,),
        ),
        None,
        False,
        (),
    ),
]


@pytest.mark.parametrize(
    ("_", "service", "answer", "refresh", "wanted"), PLATFORMS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_which_platforms_go_along(
    _: str,
    service: ObservedService | None,
    answer: Resolution | None,
    refresh: bool,
    wanted: tuple[Platform, ...],
) -> None:
    """A spec has the platforms of its image as they were told with it, else those that the running service has."""
    if service is not None:  # its body runs what its label says
        service = evolve(service, body=evolve(service.body, image=service.labels[naming.IMAGE]))
    desired = render(
        records(record("web")),
        Observed(services=(service,) if service else ()),
        {ImageRequest(IMAGE): answer} if answer else {},
        refresh=refresh,
    )
    assert desired.services["web"].platforms == wanted


def test_platforms_are_no_difference() -> None:
    """A running service with other platforms, or none, is left alone: they alone change no seal."""
    with_platforms = render(records(record("web")), images={ImageRequest(IMAGE): ResolvedImage(NEW, (ARM,))})
    without = render(records(record("web")), images={ImageRequest(IMAGE): ResolvedImage(NEW)})
    assert with_platforms.services["web"].seal == without.services["web"].seal


def test_nodes_of_another_platform_are_named() -> None:
    """An image that some nodes cannot run is a note with the platforms and the nodes; one whose platforms nobody knows is not."""
    nodes = (
        ObservedNode(id=NodeId("n1"), hostname="big", platform=AMD),
        ObservedNode(id=NodeId("n2"), hostname="pi", platform=ARM),
        ObservedNode(id=NodeId("n3"), hostname="silent"),
    )
    told = ResolvedImage(NEW, (ARM, Platform("unknown", "unknown")))
    desired = render(records(record("web")), Observed(nodes=nodes), {ImageRequest(IMAGE): told})
    assert [note.text for note in desired.notes] == ["its image is for linux/arm64: it cannot run on big"]
    for answer in (
        ResolvedImage(NEW),
        ResolvedImage(NEW, (ARM, AMD)),
        ResolvedImage(NEW, (Platform("linux"),)),
    ):
        assert not render(records(record("web")), Observed(nodes=nodes), {ImageRequest(IMAGE): answer}).notes


def test_nodes_without_a_volume_driver_are_named() -> None:
    """Those on which it is not active; Docker's own driver is everywhere."""
    nodes = (
        node("one", volume_plugins=frozenset({"local", "corestore"})),
        node("two", volume_plugins=frozenset({"local"})),
    )
    for volumes, expected in (
        ((VolumeRecord(mount_path="/data"),), ["a volume driver that it needs is not active on two"]),
        ((VolumeRecord(mount_path="/data", driver="local"),), []),
    ):
        found = Renderer(NO_BASE).render(records(record(volumes=volumes)), Observed(nodes=nodes), FOUND)
        assert [note.text for note in found.notes] == expected


def test_a_service_waits_for_what_it_is_bound_to() -> None:
    """It is held and said to wait, which is no rejection; what runs goes on and keeps its host names."""
    given = records(record(domains=(DomainRecord(name="shop.example", port=80),)))
    waits = Bound(missing={ServiceId("id-web"): "waits for its database"})
    desired = render(given, Observed(services=(running("web"),)), bound=waits)
    assert desired.waiting == (Note(unit="id-web", name="web", text="waits for its database"),)
    assert not desired.services
    assert not desired.rejections
    assert desired.held == {"id-web"}
    assert set(desired.hosts) == {"shop.example"}
