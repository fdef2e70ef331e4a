"""How connected proxies are, as the status tells it."""

from collections.abc import Mapping
from typing import Any

import trio
from tests.unit.adapters.cloudly.stand_in import handlers_of, socket_pair
from trio.testing import MockClock

from coreflow.adapters.coretraffic import METHOD, TAG, CoretrafficRoutes
from coreflow.adapters.net.peer import Peer
from coreflow.domain.routing.routes import RouteTable


async def test_a_proxy_is_up_as_long_as_it_takes_routes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """With the reason while it does not, and since when."""
    full: Mapping[str, Any] = {"status": "error", "errorText": "disk full"}
    answers = [full, full, {"status": "ok"}]
    near, far = socket_pair()
    ours = Peer(near)
    theirs = Peer(far, handlers=handlers_of({METHOD: lambda _: answers.pop(0)}))
    routes = CoretrafficRoutes(
        lambda name: (ours,) if name == TAG else (), wall_clock=lambda: 1000 + trio.current_time()
    )
    assert routes.connections() == ()
    for run in (ours.run, theirs.run, routes.run):
        nursery.start_soon(run)
    await trio.sleep(5)
    (before,) = routes.connections()
    assert (before.peer, before.is_up, before.error) == ("coretraffic", True, "")
    assert (before.since, before.checked) == (1000, 1005)
    routes.publish(RouteTable())
    await trio.sleep(0.1)
    (refused,) = routes.connections()
    assert (refused.is_up, refused.fault, refused.since) == (False, "refused", 1005)
    assert "disk full" in refused.error
    await trio.sleep(60)
    (again,) = routes.connections()
    assert (again.is_up, again.error) == (True, "")
    assert again.since > refused.since
    assert not answers
