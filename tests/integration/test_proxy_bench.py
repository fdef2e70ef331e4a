"""The bench for traffic itself: a proxy on the real packages is told routes, ends TLS, and reaches tasks of a real Swarm."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
import trustme
from attrs import frozen
from tests.integration.lab import Lab, open_lab
from tests.integration.node_harness import Json, TlsProxy, needs_node, start_tls_proxy
from tests.integration.proxy_bench import (
    NoAnswer,
    addresses_on,
    get,
    overlay_relay,
    reverse_config,
    steady_load,
)

from coreflow.adapters.internal import InternalServer
from coreflow.domain.swarm.naming import WEB_GATEWAY as NETWORK

pytestmark = [needs_node, pytest.mark.engine, pytest.mark.guest, pytest.mark.xdist_group("proxy-bench")]

HOST = "a.example.com"
WEB_IMAGE = "coreflow/test:web"
UNUSED_PORT = 8081


@pytest.fixture(scope="module")
def lab(engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A service with one task, and one with three."""
    for lab in open_lab(engine_host, tmp_path_factory.mktemp("lab"), f"p{os.getpid()}"):
        lab.write(lab.service("one", WEB_IMAGE), lab.service("three", WEB_IMAGE, scaleFactor=3))
        lab.deploy()
        yield lab


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """Who issues certificates."""
    return trustme.CA()


@frozen
class Traffic:
    """The services, and a proxy that can reach their tasks."""

    lab: Lab
    server: InternalServer
    proxy: TlsProxy

    async def told(self, *routes: Json) -> Any:
        """Tell the proxy its routes; returns its answer."""
        (peer,) = self.server.tagged("coretraffic")
        return (await peer.request("updateRouting", {"reverseConfigs": list(routes)})).response

    def addresses(self, service: str) -> dict[str, str]:
        """Where the tasks of a service are, by host name."""
        tasks = self.lab.running(service)
        names = [task["Status"]["ContainerStatus"]["ContainerID"][:12] for task in tasks]
        return dict(zip(names, addresses_on(NETWORK, tasks), strict=True))


@pytest.fixture
async def traffic(nursery: trio.Nursery, lab: Lab) -> AsyncIterator[Traffic]:
    """A proxy that is connected and knows no route yet."""

    async def admit(_: str) -> Any:
        return lambda _: True

    server = InternalServer(admit)
    port = await nursery.start(server.run, "127.0.0.1", 0)
    async with overlay_relay(lab.client, NETWORK) as relay:
        proxy = await start_tls_proxy(nursery, f"http://127.0.0.1:{port}", relay=relay)
        await proxy.connect()
        yield Traffic(lab, server, proxy)
        nursery.cancel_scope.cancel()


async def test_a_request_reaches_the_one_task(traffic: Traffic, ca: trustme.CA) -> None:
    """Over TLS, with the certificate that the proxy was sent; a table without the host takes it down."""
    ((name, address),) = traffic.addresses("one").items()
    with pytest.raises(NoAnswer):
        await get(traffic.proxy.port, HOST, ca)
    assert await traffic.told(reverse_config(ca, HOST, [address])) == {"status": "ok", "errorText": ""}
    assert await get(traffic.proxy.port, HOST, ca) == (200, f"{name}\n")
    assert await get(traffic.proxy.port, HOST, ca, "/version") == (200, "1\n")
    assert (await get(traffic.proxy.port, HOST, ca, "/nothing"))[0] == 404
    with pytest.raises(NoAnswer, match="certificate verify failed"):
        await get(traffic.proxy.port, HOST, trustme.CA())
    await traffic.told()
    with pytest.raises(NoAnswer):
        await get(traffic.proxy.port, HOST, ca)


async def test_requests_go_to_all_tasks_in_turn(traffic: Traffic, ca: trustme.CA) -> None:
    """All three answer, each as often as the others, and a steady load loses nothing."""
    addresses = traffic.addresses("three")
    assert len(addresses) == 3
    await traffic.told(reverse_config(ca, HOST, list(addresses.values())))
    texts = [(await get(traffic.proxy.port, HOST, ca))[1].strip() for _ in range(6)]
    assert sorted(texts) == sorted([*addresses] * 2)
    async with steady_load(traffic.proxy.port, HOST, ca, per_second=50) as load:
        await trio.sleep(1)
    assert load.failures == []
    assert 40 <= len(load.answers) <= 55
    assert {answer.text.strip() for answer in load.answers} == set(addresses)


async def test_failures_show(traffic: Traffic, ca: trustme.CA) -> None:
    """A destination that refuses, or that is not there, costs its share of the requests, and says which it was."""
    ((_, address),) = traffic.addresses("one").items()
    refusing = reverse_config(ca, HOST, [address, address])
    refusing["destinationPorts"] = [8080, UNUSED_PORT]
    await traffic.told(refusing)
    async with steady_load(traffic.proxy.port, HOST, ca, per_second=50) as load:
        await trio.sleep(0.5)
    assert abs(len(load.failures) - len(load.answers) / 2) <= 1
    assert {answer.status for answer in load.failures} == {502}
    assert all(f"{address}:{UNUSED_PORT}: " in answer.text for answer in load.failures)
    assert "Connection refused" in (await traffic.proxy.event("failed", host=HOST))["error"]

    nowhere = address.rpartition(".")[0] + ".251"
    await traffic.told(reverse_config(ca, HOST, [nowhere]))
    begin = trio.current_time()
    status, text = await get(traffic.proxy.port, HOST, ca)
    assert (status, text) == (502, f"{nowhere}:8080: no connection within 1 s\n")
    assert 0.9 < trio.current_time() - begin < 3


async def test_a_table_that_cannot_be_used(traffic: Traffic, ca: trustme.CA) -> None:
    """It is refused as a whole, and the one before stays."""
    ((name, address),) = traffic.addresses("one").items()
    await traffic.told(reverse_config(ca, HOST, [address]))
    answer = await traffic.told({**reverse_config(ca, HOST, [address]), "privateKey": "no key"})
    assert answer["status"] == "error"
    assert answer["errorText"]
    assert await get(traffic.proxy.port, HOST, ca) == (200, f"{name}\n")


async def test_an_answer_that_breaks_off(traffic: Traffic, ca: trustme.CA) -> None:
    """The request fails, and does not look as if it were complete."""
    ((_, address),) = traffic.addresses("one").items()
    answer = r"read line; printf 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf'"
    serve = f'echo "{answer}" >/tmp/answer; nc -l -p 8082 -e sh /tmp/answer'
    await traffic.told(reverse_config(ca, HOST, [address], 8082))
    async with trio.open_nursery() as background:
        background.start_soon(trio.to_thread.run_sync, traffic.lab.exec, "one", "sh", "-c", serve)
        with trio.fail_after(10):
            while True:
                try:
                    status, text = await get(traffic.proxy.port, HOST, ca)
                except NoAnswer:
                    break
                assert (status, "Connection refused" in text) == (502, True)  # it does not listen yet
                await trio.sleep(0.05)
