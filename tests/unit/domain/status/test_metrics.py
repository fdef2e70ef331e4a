"""The status in numbers."""

from coreflow.domain.measures import Metric
from coreflow.domain.status.connections import CLOUDLY, CORESTORE, CORETRAFFIC, Connection
from coreflow.domain.status.metrics import MOST_SUBJECTS, MetricOptions, status_metrics, word
from coreflow.domain.status.model import (
    Checked,
    CurrentProblem,
    HostStatus,
    NetworkStatus,
    ServiceStatus,
    Status,
)


def numbers(status: Status, *, per_service: bool = True) -> dict[str, Metric]:
    """All metrics by name."""
    return {one.name: one for one in status_metrics(status, MetricOptions(per_service=per_service))}


def peer(name: str, where: str = "", *, is_up: bool = True) -> Connection:
    """A connection."""
    return Connection(peer=name, where=where, is_up=is_up, since=1.0, checked=5.0)


def test_each_service_counts_in_one_state() -> None:
    services = (
        ServiceStatus(name="a", record="1", state="as desired", running=2, wanted=2),
        ServiceStatus(name="b", record="2", state="crash-looping", running=0, wanted=1, drift="image"),
        ServiceStatus(name="c", record="3", state="stopped for a restore", wanted=1),
    )
    problem = CurrentProblem(kind="crash-looping", subjects=("b",), cause="x", since=1.0, next_step="y")
    found = numbers(Status(verdict="degraded", time=9.0, services=services, problems=(problem,)))
    counts = found["services"].values
    assert sum(counts.values()) == 3
    assert counts["as_desired",] == counts["crash_looping",] == counts["stopped_for_a_restore",] == 1
    assert found["services_drifted"].values == {(): 1.0}
    assert found["service_tasks_running"].values == {("a",): 2.0, ("b",): 0.0, ("c",): 0.0}
    assert found["problems"].values == {("crash_looping",): 1.0}
    assert found["status"].values == {
        ("as_desired",): 0.0,
        ("under_way",): 0.0,
        ("degraded",): 1.0,
        ("unknown",): 0.0,
    }
    assert word("rolled back") == "rolled_back"


def test_of_several_peers_one_that_is_down_counts() -> None:
    connections = (
        peer(CORESTORE, "n1"),
        peer(CORESTORE, "n2", is_up=False),
        peer(CORETRAFFIC, "n1"),
        peer(CORETRAFFIC, "n2"),
        peer(CLOUDLY, is_up=False),
    )
    found = numbers(Status(verdict="degraded", time=9.0, connections=connections))
    assert found["peer_up"].values == {("corestore",): 0.0, ("coretraffic",): 1.0, ("cloudly",): 0.0}
    assert found["cloudly_up"].values == {(): 0.0}
    assert found["coretraffic_connections"].values == {(): 2.0}
    assert found["peer_last_success_timestamp_seconds"].values == {("corestore",): 5.0, ("coretraffic",): 5.0}
    assert numbers(Status(verdict="unknown", time=9.0))["cloudly_up"].values == {}


def test_looks_hosts_and_networks() -> None:
    hosts = (
        HostStatus(host="b.example.com", service="b", port=80, is_routed=True, expires=50.0),
        HostStatus(host="a.example.com", service="a", port=80, is_routed=True, expires=40.0),
        HostStatus(host="c.example.com", service="c", port=80, is_routed=False, cause="no certificate"),
    )
    status = Status(
        verdict="degraded",
        time=9.0,
        checked=Checked(services=7.0, hosts=8.0),
        hosts=hosts,
        networks=(NetworkStatus(name="web", addresses=250, free=3),),
    )
    found = numbers(status)
    assert found["services_checked_timestamp_seconds"].values == {(): 7.0}
    assert found["records_checked_timestamp_seconds"].values == {}
    assert found["hosts_checked_timestamp_seconds"].values == {(): 8.0}
    assert found["hosts"].values == {("routed",): 2.0, ("not_routed",): 1.0}
    assert found["certificate_expiry_timestamp_seconds"].values == {
        ("a.example.com",): 40.0,
        ("b.example.com",): 50.0,
    }
    assert found["certificate_first_expiry_timestamp_seconds"].values == {(): 40.0}
    assert found["network_addresses_free"].values == {("web",): 3.0}
    assert found["network_addresses"].values == {("web",): 250.0}


def test_series_of_services_and_hosts_are_bounded_and_can_be_left_out() -> None:
    number = MOST_SUBJECTS + 5
    services = tuple(ServiceStatus(name=f"s{n}", record=f"r{n}", state="as desired") for n in range(number))
    hosts = tuple(
        HostStatus(host=f"h{n}", service="s", port=80, is_routed=True, expires=float(n))
        for n in range(1, number)
    )
    status = Status(verdict="as desired", time=9.0, services=services, hosts=hosts)
    many, none = numbers(status), numbers(status, per_service=False)
    for name in ("service_tasks_running", "service_tasks_wanted", "certificate_expiry_timestamp_seconds"):
        assert len(many[name].values) == MOST_SUBJECTS
        assert not none[name].values
    assert none["services"].values["as_desired",] == number
    assert none["certificate_first_expiry_timestamp_seconds"].values == {(): 1.0}
