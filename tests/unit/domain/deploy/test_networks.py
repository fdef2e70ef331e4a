"""Which networks that are there can be base networks, and which names stand in their way."""

from typing import Any

import pytest
from tests.unit.domain.examples import CLUSTER, network

from coreflow.domain.deploy.networks import base_networks
from coreflow.domain.swarm.naming import WEB_GATEWAY
from coreflow.domain.swarm.observed import Observed

OTHER = (
    "network SznWebGateway exists, and Swarm ignores case in names:"
    " it stands for sznwebgateway; rename or remove it"
)


@pytest.mark.parametrize(
    ("name", "changes", "problems"),
    [
        (WEB_GATEWAY, {}, ()),
        (WEB_GATEWAY, {"driver": "bridge", "scope": "local"}, ("network sznwebgateway exists and is not a Swarm overlay network: rename or remove it",)),
        (WEB_GATEWAY, {"driver": ""}, ("network sznwebgateway has no addresses, since Swarm found its range taken by another network: remove it",)),
        (WEB_GATEWAY, {"driver": "bridge", "scope": "local", "is_remnant": True}, ()),
        ("SznWebGateway", {}, (OTHER,)),
        ("SznWebGateway", {"scope": "local", "driver": "bridge"}, ()),
        ("SznWebGateway", {"is_remnant": True}, ()),
        ("webgateway", {}, ()),
    ],
)  # fmt: skip
def test_what_is_in_the_way(name: str, changes: dict[str, Any], problems: tuple[str, ...]) -> None:
    """A network of another kind under the name, or one of the Swarm under the name in another case."""
    networks, found = base_networks(Observed(networks=(network(name, **changes),)), CLUSTER)
    assert found == problems
    assert [n.name for n in networks] == ["sznwebgateway", "szncorechat"]
