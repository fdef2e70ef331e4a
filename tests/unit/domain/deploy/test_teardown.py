"""What goes and what stays when a cluster is taken down."""

from typing import Any

from attrs import evolve
from tests.unit.domain.examples import (
    CLUSTER,
    WEB,
    foreign,
    live,
    mounting,
    network,
    observed,
    secret,
    spec,
    task,
    volume,
)

from coreflow.domain.deploy.steps import kind_of, name_of
from coreflow.domain.deploy.teardown import Left, clusters_of, is_on_base_network, lingering, plan_teardown
from coreflow.domain.ids import BASE, ClusterId
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.naming import CORE_CHAT, WEB_GATEWAY
from coreflow.domain.swarm.observed import ObservedNetwork, ObservedService
from coreflow.domain.swarm.specs import Attachment, fingerprints

OTHER = ClusterId("other")


def ours(name: str = WEB_GATEWAY, cluster: str = CLUSTER) -> ObservedNetwork:
    """A network that coreflow made."""
    return network(name, labels=naming.ownership(ClusterId(cluster), BASE))


def of_another_cluster(name: str, **changes: Any) -> ObservedService:
    """A service of another coreflow."""
    return live(spec(name, **changes), labels={naming.CLUSTER: OTHER})


def test_everything_of_ours_goes_workloads_first() -> None:
    """Then the base, then secrets and networks; nobody else's things are touched."""
    world = observed(
        live(spec("corelog", owner=BASE)),
        live(spec("web", **mounting("web-1"))),
        foreign("other"),
        of_another_cluster("theirs"),
        secrets=(secret("web-1"), secret("theirs", ours=False)),
        networks=(ours(WEB_GATEWAY), ours(CORE_CHAT, ""), network("bridge")),
    )
    plan = plan_teardown(world, CLUSTER)
    assert [(kind_of(r), name_of(r)) for r in plan.removals] == [
        ("service", "web"),
        ("service", "corelog"),
        ("secret", "web-1"),
        ("network", WEB_GATEWAY),
        ("network", CORE_CHAT),
    ]
    assert (plan.left, plan.restoring, plan.daemons) == ((), (), ())


def test_what_others_use_stays() -> None:
    """A secret that a foreign service mounts, a network that another cluster's service is on; and both say why."""
    world = observed(
        live(spec("web", **mounting("web-1"))),
        foreign("other", **mounting("web-1")),
        of_another_cluster("theirs", networks=(WEB,)),
        secrets=(secret("web-1"),),
        networks=(ours(WEB_GATEWAY, ""), network(CORE_CHAT)),
    )
    plan = plan_teardown(world, CLUSTER)
    assert [name_of(r) for r in plan.removals] == ["web"]
    assert plan.left == (
        Left("network", WEB_GATEWAY, "service theirs is on it"),
        Left("secret", "web-1", "service other mounts it"),
        Left("network", CORE_CHAT, "it was not made by coreflow"),
    )


def test_a_network_of_another_cluster_stays() -> None:
    """Whoever made it removes it."""
    plan = plan_teardown(observed(networks=(ours(WEB_GATEWAY, OTHER),)), CLUSTER)
    assert plan.removals == ()
    assert plan.left == (Left("network", WEB_GATEWAY, "it belongs to the coreflow cluster other"),)


def test_a_network_that_is_going_is_nobodys_business() -> None:
    """What is left of a removed network is neither removed again nor named."""
    plan = plan_teardown(observed(networks=(evolve(ours(), is_remnant=True),)), CLUSTER)
    assert (plan.removals, plan.left) == ((), ())


def test_data_stays() -> None:
    """Volumes are named; a bind mount is a folder of the node's, and says nothing."""
    mounts = (volume("/data"), evolve(volume("/etc"), type="bind", source="/etc"))
    plan = plan_teardown(observed(live(spec("web", mounts=mounts))), CLUSTER)
    assert plan.left == (Left("volume", "data", "holds data of service web"),)


def test_what_is_being_restored_stays_with_its_secret() -> None:
    """Removing it would lose what the restore is about."""
    stopped = live(spec("web", **mounting("web-1")), labels={naming.STOPPED: "1", naming.RESTORE: "{}"})
    plan = plan_teardown(observed(stopped, secrets=(secret("web-1"),)), CLUSTER)
    assert plan.removals == ()
    ((kind, name, reason),) = [(r.kind, r.name, r.reason) for r in plan.restoring]
    assert (kind, name) == ("service", "web")
    assert "restore" in reason


def test_a_coreflow_that_runs_is_noticed() -> None:
    """Proxies find it by its alias or its name; one without tasks, a workload, or an alias elsewhere is none."""
    alias = {"networks": (Attachment(CORE_CHAT, ("coreflow",)),)}
    assert plan_teardown(observed(foreign("stack_coreflow", **alias)), CLUSTER).daemons == ("stack_coreflow",)
    named = foreign("coreflow", networks=(Attachment(CORE_CHAT),))
    assert plan_teardown(observed(named), CLUSTER).daemons == ("coreflow",)
    for other in (
        foreign("stack_coreflow", replicas=0, **alias),
        foreign("stack_coreflow", networks=(Attachment("elsewhere", ("coreflow",)),)),
        of_another_cluster("web", **alias),
        foreign("coreflow"),
    ):
        assert plan_teardown(observed(other), CLUSTER).daemons == ()


def test_the_word_stands_for_exactly_these_services() -> None:
    """One more, one less, one made anew, or another cluster has another word."""
    web, shop = live(spec("web")), live(spec("shop"))
    words = {
        plan_teardown(world, cluster).token
        for world, cluster in (
            (observed(web), CLUSTER),
            (observed(web, shop), CLUSTER),
            (observed(evolve(web, id="another")), CLUSTER),
            (observed(web), OTHER),
        )
    }
    assert len(words) == 4
    assert (
        plan_teardown(observed(shop, web), CLUSTER).token == plan_teardown(observed(web, shop), CLUSTER).token
    )


def test_the_clusters_of_a_swarm() -> None:
    """By services, secrets and networks; labels of others do not count, nor what is left of a removed network."""
    assert clusters_of(observed(foreign(), networks=(ours(CORE_CHAT, ""),))) == ()
    world = observed(
        of_another_cluster("theirs"),
        secrets=(secret("web-1"), secret("x", ours=False)),
        networks=(ours(WEB_GATEWAY, "third"), evolve(ours(CORE_CHAT, "gone"), is_remnant=True)),
    )
    assert clusters_of(world) == (CLUSTER, OTHER, "third")
    lookalike = ObservedService(
        id="x", name="x", version=1, labels={naming.CLUSTER: "y"}, body=foreign().body,
        fingerprints=fingerprints(foreign().body),
    )  # fmt: skip
    assert clusters_of(observed(lookalike)) == ()


def test_without_a_cluster_only_networks_of_none_go() -> None:
    """What `coreflow networks` made, and no coreflow has used."""
    world = observed(foreign(), secrets=(secret("web-1"),), networks=(ours(CORE_CHAT, ""), ours(WEB_GATEWAY)))
    plan = plan_teardown(world, ClusterId(""))
    assert [name_of(r) for r in plan.removals] == [CORE_CHAT]


def test_containers_of_removed_services_linger() -> None:
    """Until they have ended; a task of no service is a container that somebody attached by hand."""
    web, gone = live(spec("web")), foreign("stack_coreflow")
    tasks = (
        task(web),
        task(gone, 1, desired_state="remove", addresses={CORE_CHAT: "10.0.0.2"}),
        task(gone, 2, desired_state="remove", state="starting"),
        task(gone, 3, desired_state="remove", state="shutdown"),
        task(gone, 4, service_id=""),
    )
    first, second = lingering([web], tasks)
    assert [t.id for t in (first, second)] == ["task-stack_coreflow-1", "task-stack_coreflow-2"]
    assert [is_on_base_network(t) for t in (first, second)] == [True, False]
    assert lingering([web, gone], tasks) == ()
