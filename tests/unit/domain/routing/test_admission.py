"""Who is taken for coretraffic, and so gets private keys."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.examples import live, spec, task

from coreflow.domain.ids import BASE, ClusterId
from coreflow.domain.routing.admission import NO_PROXIES, Admission, admit, may_have, proxy_tasks, runs_proxy
from coreflow.domain.swarm.naming import CORETRAFFIC, WEB_GATEWAY
from coreflow.domain.swarm.observed import ObservedService, ObservedTask

OURS, THEIRS = "cluster", "another"
PROXY, STRANGER, OPEN = Admission.PROXY, Admission.STRANGER, Admission.OPEN


def coretraffic(cluster: str = OURS, **changes: Any) -> ObservedService:
    """The base service of a cluster."""
    written = evolve(spec(CORETRAFFIC, owner=BASE), cluster=ClusterId(cluster))
    return live(written, id=f"service-{cluster}", **changes)


def at(service: ObservedService, *addresses: str, **changes: Any) -> ObservedTask:
    """A task with an address on each of several networks."""
    found = {f"network-{number}": address for number, address in enumerate(addresses)}
    return task(service, addresses=found, **changes)


@pytest.mark.parametrize(
    ("host", "admission"),
    [
        ("10.0.0.1", PROXY),
        ("::ffff:10.0.0.1", PROXY),
        ("10.0.1.1", STRANGER),
        ("fd00::1", PROXY),
        ("fd00::2", STRANGER),
        ("", STRANGER),
        ("localhost", STRANGER),
    ],
)
def test_networks_are_trusted_however_an_address_is_written(host: str, admission: Admission) -> None:
    """The cluster does not matter to them, and what is no address lies in none."""
    networks = (ip_network("10.0.0.0/24"), ip_network("fd00::1/128"))
    for cluster in (None, OURS, THEIRS):
        assert admit(host, networks, cluster) is admission


def test_no_network_trusts_nobody() -> None:
    assert admit("127.0.0.1", (), OURS) is STRANGER


@pytest.mark.parametrize(
    ("cluster", "admission"), [(None, OPEN), (OURS, PROXY), (THEIRS, STRANGER), ("", STRANGER)]
)
def test_the_address_of_a_task_counts_for_its_cluster(cluster: str | None, admission: Admission) -> None:
    """On each of its networks, and before our cluster is known nothing is decided."""
    service = coretraffic()
    tasks = proxy_tasks([service], [at(service, "10.0.0.1", "10.1.0.1")])
    for host in ("10.0.0.1", "10.1.0.1", "::ffff:10.0.0.1"):
        assert admit(host, tasks, cluster) is admission
    assert admit("10.0.0.2", tasks, cluster) is STRANGER


def test_an_address_that_two_clusters_use_is_that_of_both() -> None:
    ours, theirs = coretraffic(OURS), coretraffic(THEIRS)
    tasks = proxy_tasks([ours, theirs], [at(ours, "10.0.0.1"), at(theirs, "10.0.0.1")])
    assert tasks.clusters == {ip_address("10.0.0.1"): {OURS, THEIRS}}
    assert [admit("10.0.0.1", tasks, cluster) for cluster in (OURS, THEIRS, "third")] == [
        PROXY,
        PROXY,
        STRANGER,
    ]


@pytest.mark.parametrize(
    ("changes", "is_proxy"),
    [
        ({}, True),
        ({"state": "starting"}, True),
        ({"desired_state": "shutdown"}, False),
        ({"desired_state": "remove"}, False),
        ({"service_id": "service-other"}, False),
    ],
)
def test_a_task_that_starts_is_a_proxy_and_one_that_is_to_stop_is_none(
    changes: dict[str, object], is_proxy: bool
) -> None:
    service = coretraffic()
    tasks = proxy_tasks([service], [at(service, "10.0.0.1", **changes)])
    assert admit("10.0.0.1", tasks, OURS) is (PROXY if is_proxy else STRANGER)


def test_the_name_alone_makes_no_proxy() -> None:
    """A record may be called coretraffic; its service is a workload, and its owner is not the base."""
    workload = live(spec(CORETRAFFIC))
    assert proxy_tasks([workload], [at(workload, "10.0.0.1")]) == NO_PROXIES


def test_a_task_without_an_address_that_can_be_read_is_none() -> None:
    service = coretraffic()
    assert proxy_tasks([service], [at(service, "", "10.0.0"), at(service)]) == NO_PROXIES


@pytest.mark.parametrize(
    ("admission", "tag", "allowed"),
    [
        (PROXY, CORETRAFFIC, True),
        (STRANGER, CORETRAFFIC, False),
        (OPEN, CORETRAFFIC, False),
        (PROXY, "other", True),
        (STRANGER, "other", True),
    ],
)
def test_other_tags_are_for_everybody(admission: Admission, tag: str, allowed: bool) -> None:
    assert may_have(admission, tag) is allowed


_ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1", "fd00::1"])
_SERVICES = st.sampled_from(
    [
        coretraffic(OURS),
        coretraffic(THEIRS),
        live(spec(CORETRAFFIC), id="workload"),
        live(spec("web"), id="web"),
    ]
)


@given(
    st.lists(_SERVICES, unique_by=lambda service: service.id),
    st.lists(
        st.tuples(_SERVICES, _ADDRESSES, st.sampled_from(["running", "shutdown", "remove"])), max_size=8
    ),
    _ADDRESSES,
)
def test_whoever_is_admitted_has_the_address_of_a_task_of_our_coretraffic(
    services: list[ObservedService], placed: list[tuple[ObservedService, str, str]], host: str
) -> None:
    """Whatever else runs in the Swarm: keys go to nobody else, and to nobody as long as our cluster is not known."""
    tasks = [task(s, addresses={WEB_GATEWAY: address}, desired_state=wish) for s, address, wish in placed]
    known = proxy_tasks(services, tasks)
    is_ours = any(
        service in services
        and (service.name, service.owner, service.cluster) == (CORETRAFFIC, BASE, OURS)
        and wish == "running"
        and address.removeprefix("::ffff:") == host.removeprefix("::ffff:")
        for service, address, wish in placed
    )
    assert (admit(host, known, OURS) is PROXY) == is_ours
    assert admit(host, known, None) is not PROXY


@pytest.mark.parametrize(
    ("service", "changes", "runs"),
    [
        (coretraffic(), {}, True),
        (coretraffic(), {"state": "starting"}, False),
        (coretraffic(), {"desired_state": "shutdown"}, False),
        (coretraffic(THEIRS), {}, False),
        (live(spec(CORETRAFFIC)), {}, False),
        (live(spec("corelog", owner=BASE)), {}, False),
    ],
    ids=["runs", "starts", "stops", "another cluster's", "a workload", "another base service"],
)
def test_a_proxy_runs(service: ObservedService, changes: dict[str, Any], runs: bool) -> None:
    """A running task of our own coretraffic is one, and nothing else."""
    assert runs_proxy(ClusterId(OURS), [service], [task(service, **changes)]) is runs
    assert not runs_proxy(ClusterId(OURS), [service], [])
