"""Which Corestore serves which node and which service."""

from typing import Any

import pytest
from attrs import evolve
from tests.unit.domain.examples import CLUSTER, body, live, spec, task

from coreflow.domain.ids import BASE, NodeId
from coreflow.domain.platform.bindings import Endpoint, Provisioned
from coreflow.domain.platform.instances import (
    DEFAULT_URL,
    Instance,
    Instances,
    find_instances,
    instance_of_service,
    is_ambiguous,
    nodes_of_service,
)
from coreflow.domain.swarm.naming import CORE_CHAT, CORESTORE, WEB_GATEWAY
from coreflow.domain.swarm.observed import Observed, ObservedNode, ObservedTask
from coreflow.domain.swarm.specs import ON_NODE

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
STORE = live(spec(CORESTORE, BASE))
SHOP = live(spec("shop"))


def store(number: int, **changes: Any) -> ObservedTask:
    """A task of the Corestore on a node."""
    values: dict[str, Any] = {
        "node_id": NodeId(f"n{number}"),
        "addresses": {CORE_CHAT: f"10.0.0.{number}"},
        "created_at": "1",
    }
    return task(STORE, number, **(values | changes))


def shop(number: int, node: NodeId | None, **changes: Any) -> ObservedTask:
    """A task of a service."""
    return task(SHOP, number, node_id=node, slot=number, **changes)


def swarm(nodes: int, *tasks: ObservedTask, **changes: Any) -> Observed:
    """A Swarm with a Corestore."""
    values: dict[str, Any] = {
        "services": (STORE, SHOP),
        "tasks": tasks,
        "nodes": tuple(ObservedNode(id=NodeId(f"n{n}"), hostname=f"host{n}") for n in range(1, nodes + 1)),
    }
    return Observed(**(values | changes))


def found(observed: Observed, **options: Any) -> Instances:
    """The Corestores of it."""
    return find_instances(observed, CLUSTER, **options)


def test_a_configured_one_serves_everybody() -> None:
    """Whatever runs."""
    instances = found(swarm(2, store(1), store(2)), configured="http://store.example.com")
    instance = Instance(url="http://store.example.com")
    assert instances.all == instances.of([N1, N2]) == (instance,)
    assert str(instance) == "the Corestore at http://store.example.com"
    assert instance.key == instance.url


def test_a_single_node_has_a_single_one() -> None:
    """The task's address, or where none runs, the name that it should have."""
    instances = found(swarm(1, store(1)))
    assert instances.shared == Instance(url="http://10.0.0.1:3000", node=N1, hostname="host1")
    assert str(instances.shared) == "the Corestore on host1"
    assert found(swarm(1), is_ours=True).shared == found(swarm(0)).shared == Instance(url=DEFAULT_URL)


def test_every_node_has_its_own() -> None:
    """Each is asked for the nodes it serves, each once; a node without one has none."""
    instances = found(swarm(3, store(1), store(2)))
    one, two = instances.by_node[N1], instances.by_node[N2]
    assert instances.shared is None
    assert instances.all == (one, two)
    assert instances.of([N3, N2, N1, N2]) == (one, two)
    assert instances.of([N3]) == instances.of([]) == ()
    assert one.url == "http://10.0.0.1:3000"


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "starting"},
        {"state": "failed"},
        {"desired_state": "shutdown"},
        {"addresses": {}},
        {"addresses": {"other": "10.1.0.1"}},
        {"addresses": {CORE_CHAT: ""}},
        {"node_id": None},
        {"service_id": "another"},
    ],
)
def test_tasks_that_cannot_be_asked(changes: dict[str, Any]) -> None:
    """Not running, not meant to run, without an address of ours, or of another service: no Corestore on this node."""
    instances = found(swarm(2, store(1), store(2, **changes)))
    assert instances.all == (instances.by_node[N1],)
    assert found(swarm(1, store(1, **changes))).shared == Instance(url=DEFAULT_URL)


def test_the_other_network_will_do() -> None:
    """Where a task has no address on the first."""
    instances = found(swarm(2, store(1, addresses={WEB_GATEWAY: "10.2.0.1"})))
    assert instances.by_node[N1].url == "http://10.2.0.1:3000"


def test_the_newest_task_of_a_node_counts() -> None:
    """In a roll-out two may run for a moment."""
    newer = store(1, id="newer", created_at="2", addresses={CORE_CHAT: "10.0.0.9"})
    for tasks in ((store(1), newer), (newer, store(1))):
        assert found(swarm(2, *tasks)).by_node[N1].url == "http://10.0.0.9:3000"


@pytest.mark.parametrize(
    "other",
    [
        live(spec(CORESTORE, "id-somebody")),
        evolve(STORE, name="corestore2"),
        evolve(STORE, labels={}),
    ],
)
def test_a_corestore_that_is_not_ours_is_not_taken_for_one_of_ours(other: Any) -> None:
    """By name, owner and cluster. Where ours shall be there, nobody else's is asked."""
    observed = swarm(2, store(1), services=(other, SHOP))
    assert found(observed) == Instances(shared=Instance(url=DEFAULT_URL))
    assert found(observed, is_ours=True) == Instances()


def test_the_nodes_of_a_service() -> None:
    """Where its tasks are meant to run; where none is, where those of each slot were last."""
    running = (shop(1, N1), shop(2, N2), shop(3, N3, desired_state="shutdown"), shop(4, None))
    assert nodes_of_service(swarm(3, *running), SHOP.id) == (N1, N2)
    ended = (
        shop(1, N1, desired_state="shutdown", created_at="1"),
        shop(1, N2, desired_state="shutdown", created_at="2"),
        shop(2, N3, desired_state="shutdown", created_at="1"),
    )
    assert nodes_of_service(swarm(3, *ended), SHOP.id) == (N2, N3)
    assert nodes_of_service(swarm(3), SHOP.id) == ()


def test_the_one_corestore_of_a_service() -> None:
    """On the node where it is kept, else where it runs, else on ours; and nowhere, where that node has none."""
    kept = evolve(SHOP, body=body(constraints=(ON_NODE + "n2",)))
    runs = (store(1), store(2), shop(1, N1))

    def chosen(observed: Observed, owner: str = "id-shop") -> str | None:
        instance = instance_of_service(found(observed), observed, CLUSTER, owner)
        return instance.node if instance is not None else None

    assert chosen(swarm(3, *runs, services=(STORE, kept))) == N2
    assert chosen(swarm(3, *runs)) == N1
    assert chosen(swarm(3, store(1), store(2), shop(1, N3))) is None
    assert chosen(swarm(3, *runs, own_node=N2), "id-new") == N2
    assert chosen(swarm(3, *runs, own_node=N3), "id-new") is None
    assert chosen(swarm(3, *runs), "id-new") == N1
    assert chosen(swarm(3), "id-new") is None
    assert chosen(swarm(1, store(1), shop(1, N2))) == N1


def test_a_name_that_all_of_them_share_is_ambiguous() -> None:
    """An endpoint there leads to any node."""

    def at(*hosts: str) -> Provisioned:
        return Provisioned(
            values={}, endpoints=tuple(Endpoint(name="e", protocol="http", host=h, port=1) for h in hosts)
        )

    assert is_ambiguous(at("10.0.0.1", CORESTORE))
    assert not is_ambiguous(at("10.0.0.1"))
    assert not is_ambiguous(at())
