"""What every cluster gets: two networks with room, and three services."""

import pytest

from coreflow.domain.deploy.base import SERVICES, BaseOptions, render_base, render_networks
from coreflow.domain.deploy.services import login_hash
from coreflow.domain.ids import BASE, ClusterId
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm.naming import CORELOG, CORESTORE, CORETRAFFIC, NETWORKS
from coreflow.domain.swarm.specs import (
    Attachment,
    Mount,
    PublishedPort,
    RollPolicy,
    ServiceSpec,
    Stage,
    fingerprints,
)

C1 = ClusterId("c1")
BOTH = ("sznwebgateway", "szncorechat")


def base(name: str, options: BaseOptions | None = None) -> ServiceSpec:
    """One base service."""
    return render_base(name, f"{name}:1", options or BaseOptions(), C1)


def subnets(*taken: str) -> list[str | None]:
    """The subnets of the two networks."""
    return [network.subnet for network in render_networks(taken, C1)]


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ((), ["10.201.0.0/16", "10.202.0.0/16"]),
        (("10.0.0.0/24", "172.17.0.0/16"), ["10.201.0.0/16", "10.202.0.0/16"]),
        (("10.201.5.0/24",), ["10.202.0.0/16", "10.203.0.0/16"]),
        (("10.202.0.1/16",), ["10.201.0.0/16", "10.203.0.0/16"]),
        (("10.200.0.0/13",), ["10.208.0.0/16", "10.209.0.0/16"]),
        (("fd00::/8", "10.201.0.0/16"), ["10.202.0.0/16", "10.203.0.0/16"]),
        (tuple(f"10.{n}.0.0/16" for n in range(201, 255)), ["10.255.0.0/16", None]),
        (("10.0.0.0/8",), [None, None]),
    ],
)
def test_subnets(taken: tuple[str, ...], expected: list[str | None]) -> None:
    """The networks get ranges that overlap none of those that are taken; without any left, Docker chooses."""
    assert subnets(*taken) == expected


def test_networks() -> None:
    """Both networks are the base's, and containers started by hand may join them."""
    networks = render_networks((), C1)
    assert tuple(network.name for network in networks) == NETWORKS == BOTH
    assert {(n.cluster, n.owner, n.stage, n.attachable) for n in networks} == {("c1", BASE, Stage.BASE, True)}


@pytest.mark.parametrize("name", SERVICES)
def test_spec(name: str) -> None:
    """A base service is the base's, has its own name on its networks, and rolls back when an update fails."""
    spec = base(name)
    assert (spec.name, spec.cluster, spec.owner, spec.stage) == (name, "c1", BASE, Stage.BASE)
    assert spec.body.image == f"{name}:1"
    assert spec.fingerprints == fingerprints(spec.body)
    assert {network.aliases for network in spec.body.networks} == {(name,)}
    assert (spec.body.update.on_failure, spec.body.rollback.on_failure) == ("rollback", "pause")
    assert spec.body.update.order == spec.body.rollback.order
    assert (spec.login, spec.login_hash) == (None, "")


def test_login() -> None:
    """The login for the image goes with the spec, with its hash."""
    login = RegistryLogin(serveraddress="r.example.com", username="u", password="hidden")
    spec = render_base(CORELOG, "x:1", BaseOptions(), C1, login)
    assert (spec.login, spec.login_hash) == (login, login_hash(C1, login))


def test_coretraffic_on_ingress() -> None:
    """By default the proxy is one task behind the routing mesh, which needs a virtual address."""
    body = base(CORETRAFFIC).body
    assert body.ports == (PublishedPort(published=80, target=7999), PublishedPort(published=443, target=8000))
    assert (body.replicas, body.endpoint_mode) == (1, "vip")
    assert body.networks == tuple(Attachment(network, ("coretraffic",)) for network in BOTH)
    assert body.update == RollPolicy(on_failure="rollback", order="start-first")


def test_coretraffic_on_hosts() -> None:
    """With ports of the hosts it runs on every node, and the old task stops first: both need the ports."""
    body = base(CORETRAFFIC, BaseOptions(coretraffic_publish="host")).body
    assert [(port.published, port.target, port.mode) for port in body.ports] == [
        (80, 7999, "host"),
        (443, 8000, "host"),
    ]
    assert (body.replicas, body.endpoint_mode) == (None, "dnsrr")
    assert body.update == RollPolicy(on_failure="rollback", order="stop-first")


def test_corelog() -> None:
    """The log receiver is one task on the internal network only."""
    body = base(CORELOG).body
    assert body.networks == (Attachment("szncorechat", ("corelog",)),)
    assert (body.replicas, body.endpoint_mode, body.mounts) == (1, "dnsrr", ())
    assert body.update.order == "start-first"


@pytest.mark.parametrize(
    ("token", "env"),
    [
        (None, ("CORESTORE_DATA_DIR=/var/lib/serve.zone/corestore",)),
        ("", ("CORESTORE_DATA_DIR=/var/lib/serve.zone/corestore",)),
        ("t", ("CORESTORE_API_TOKEN=t", "CORESTORE_DATA_DIR=/var/lib/serve.zone/corestore")),
    ],
)
def test_corestore(token: str | None, env: tuple[str, ...]) -> None:
    """Corestore runs on every node with its data and the plugin sockets at the node's own paths."""
    body = base(CORESTORE, BaseOptions(corestore_api_token=token)).body
    assert body.env == env
    assert body.mounts == tuple(
        Mount(type="bind", source=path, target=path)
        for path in ("/var/lib/serve.zone/corestore", "/run/docker/plugins")
    )
    assert (body.replicas, body.endpoint_mode) == (None, "dnsrr")
    assert body.networks == tuple(Attachment(network, ("corestore",)) for network in BOTH)
    assert body.update.order == "stop-first"


def test_options_hide_the_token() -> None:
    """Neither the options nor the body of corestore show the token in their repr."""
    options = BaseOptions(corestore_api_token="hidden")
    assert "hidden" not in repr(options) + repr(base(CORESTORE, options))


def test_default_images() -> None:
    """Every base service has an image unless the operator names another."""
    assert tuple(BaseOptions().images) == BaseOptions().services == SERVICES
