"""The route table, by example and by property."""

from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.certificates import DAY, START, make
from tests.unit.domain.examples import foreign, live, spec

from coreflow.domain.ids import ClusterId, NodeId
from coreflow.domain.routing.certificates import read_certificate
from coreflow.domain.routing.routes import (
    Destination,
    HostClaim,
    NoCertificate,
    RouteTable,
    locate,
    make_table,
    reverse_configs,
)
from coreflow.domain.swarm.observed import ObservedTask

NOW = START + DAY
HOSTS = ("a.example.com", "b.example.com", "c.example.com")
CERTIFICATES = {host: read_certificate(make(host), host, NOW) for host in HOSTS}


def claim(host: str, service: str = "web", port: int = 80) -> HostClaim:
    return HostClaim(host=host, service=service, port=port)


def task(identity: str, address: str | None = "10.0.0.1", **changes: Any) -> ObservedTask:
    addresses = {} if address is None else {"sznwebgateway": address, "other": "172.16.0.1"}
    facts = {
        "service_id": "id-web",
        "state": "running",
        "created_at": identity,
        "node_id": NodeId("n1"),
        "addresses": addresses,
    }
    return ObservedTask(id=identity, **{**facts, **changes})


def at(*addresses: str) -> tuple[Destination, ...]:
    return tuple(Destination(address=a, task_id=a, node_id=None) for a in addresses)


def test_tasks_that_answer() -> None:
    """Running ones of our services, the oldest first; not those that start, end, or have no address there."""
    tasks = [
        task("3", "10.0.0.3"),
        task("1", "10.0.0.1"),
        task("2", "10.0.0.2", state="starting"),
        task("4", "10.0.0.4", desired_state="shutdown"),
        task("5", None),
        task("6", "10.0.0.6", service_id="id-foreign"),
    ]
    ours, others = live(spec("web"), id="id-web"), evolve(foreign("other"), id="id-foreign")
    found = locate(ClusterId(ours.cluster), [ours, others], tasks)
    assert {name: [d.address for d in there] for name, there in found.items()} == {
        "web": ["10.0.0.1", "10.0.0.3"]
    }
    first = locate(ClusterId(ours.cluster), [ours, others], tasks, "first")
    assert [d.address for d in first["web"]] == ["10.0.0.1"]


def test_the_table_says_why_a_host_is_missing() -> None:
    """Without a task, without a certificate, or with none that is valid."""
    late = read_certificate(make("d.example.com", days=1.5), "d.example.com", NOW)
    table = make_table(
        [
            claim("a.example.com"),
            claim("b.example.com", "idle"),
            claim("c.example.com"),
            claim("d.example.com"),
            claim("e.example.com"),
        ],
        {"web": at("10.0.0.1", "10.0.0.2")},
        {
            **{h: CERTIFICATES[h] for h in ("a.example.com", "b.example.com")},
            "c.example.com": NoCertificate(reason="refused"),
            "d.example.com": late,
        },
        NOW + DAY,
    )
    assert [(r.host, r.addresses, r.port) for r in table.routes] == [
        ("a.example.com", ("10.0.0.1", "10.0.0.2"), 80)
    ]
    assert {m.host: m.reason for m in table.missing} == {
        "b.example.com": "no task of the service runs yet",
        "c.example.com": "refused",
        "d.example.com": "its certificate is not valid any more",
        "e.example.com": "its certificate has not been looked up yet",
    }


def test_a_routed_host_keeps_its_certificate_while_it_is_valid() -> None:
    """A look-up that fails later changes nothing until then."""
    located = {"web": at("10.0.0.1")}
    first = make_table([claim("a.example.com")], located, CERTIFICATES, NOW)
    failed = {"a.example.com": NoCertificate(reason="away")}
    assert make_table([claim("a.example.com")], located, failed, NOW, first).routes == first.routes
    after = make_table([claim("a.example.com")], located, failed, START + 101 * DAY, first)
    assert [m.reason for m in after.missing] == ["away"]


def test_on_the_wire() -> None:
    """One record per host, ports beside addresses, as numbers."""
    table = make_table(
        [claim("a.example.com", port=81)], {"web": at("10.0.0.1", "10.0.0.2")}, CERTIFICATES, NOW
    )
    (config,) = reverse_configs(table)
    certificate = CERTIFICATES["a.example.com"]
    assert config == {
        "hostName": "a.example.com",
        "destinationIps": ["10.0.0.1", "10.0.0.2"],
        "destinationPorts": [81, 81],
        "privateKey": certificate.key,
        "publicKey": certificate.chain,
    }
    assert certificate.key not in repr(table)


@given(
    st.lists(st.sampled_from(HOSTS), unique=True),
    st.dictionaries(st.sampled_from(["web", "api"]), st.just(at("10.0.0.1")), max_size=2),
    st.sets(st.sampled_from(HOSTS)),
    st.randoms(),
)
def test_every_host_is_routed_or_missing(
    hosts: list[str], located: dict[str, Any], known: set[str], random: Any
) -> None:
    """Never both, never neither, whatever the order; and it is known to be empty only where nobody answers."""
    claims = [claim(host, "web" if host < "b" else "api") for host in hosts]
    certificates = {host: CERTIFICATES[host] for host in known}
    table = make_table(claims, located, certificates, NOW)
    assert sorted([r.host for r in table.routes] + [m.host for m in table.missing]) == sorted(hosts)
    assert table.known_empty is not any(one.service in located for one in claims)
    random.shuffle(claims)
    assert make_table(claims, located, certificates, NOW) == table
    assert make_table(claims, located, certificates, NOW, table) == table
    assert isinstance(table, RouteTable)
