"""Hosts to tasks on a real Swarm: the daemon, a proxy on the real npm packages that ends TLS, and clients that verify."""

import itertools
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from tests.integration.dcrouter_stand_in import start_stand_in
from tests.integration.lab import Json, Lab, free_port, open_lab
from tests.integration.node_harness import (
    TOKEN,
    Cloudly,
    Coretraffic,
    TlsProxy,
    needs_node,
    start_coretraffic,
    start_tls_proxy,
    tell,
)
from tests.integration.proxy_bench import NoAnswer, addresses_on, get, overlay_relay, serving, steady_load
from tests.integration.test_daemon import log_of, push, start, stopped, wait

pytestmark = [pytest.mark.engine, pytest.mark.guest, needs_node]
_numbers = itertools.count()
WEB = "coreflow/test:web"
NETWORK = "sznwebgateway"


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"r{os.getpid()}x{next(_numbers)}")


@pytest.fixture
def ca() -> trustme.CA:
    """Whom clients trust."""
    return trustme.CA(organization_name="Test Authority")


def certificate(ca: trustme.CA, host: str) -> Json:
    """As Cloudly hands it out."""
    issued = ca.issue_cert(host)
    return {
        "id": host,
        "domainName": host,
        "created": 1,
        "validUntil": 2,
        "privateKey": issued.private_key_pem.bytes().decode(),
        "publicKey": b"".join(pem.bytes() for pem in issued.cert_chain_pems).decode(),
        "csr": "",
    }


def web(lab: Lab, short: str, host: str, **data: Any) -> Json:
    """A service that answers on port 8080."""
    return lab.service(short, WEB, ports={"web": 8080}, domains=[{"name": host}], **data)


async def told(proxy: Coretraffic, host: str, count: int, seconds: float = 30) -> list[str]:
    """Wait until a proxy has a route to so many tasks of a host; their addresses."""
    with trio.fail_after(seconds):
        while True:
            updates = await proxy.received()
            for config in updates[-1]["reverseConfigs"] if updates else ():
                if config["hostName"] == host and len(config["destinationIps"]) == count:
                    found: list[str] = config["destinationIps"]
                    return found
            await trio.sleep(0.05)


async def test_hosts_reach_their_tasks(
    lab: Lab, cloudly: Cloudly, ca: trustme.CA, nursery: trio.Nursery
) -> None:
    """Two hosts with their certificates; three tasks take turns; a killed task, a rolling update, a proxy's restart."""
    run = trio.to_thread.run_sync
    hosts = {name: f"{name}.example.com" for name in ("one", "two")}
    certificates = {host: certificate(ca, host) for host in hosts.values()}
    one, two = (web(lab, name, host) for name, host in hosts.items())
    await tell(cloudly, lab, one, two, certificates=certificates)
    port = free_port()
    daemon = start(
        lab,
        cloudly,
        COREFLOW_LISTEN=f"127.0.0.1:{port}",
        COREFLOW_CORETRAFFIC_PEERS="127.0.0.0/8",
        COREFLOW_RELIST_SECONDS="60",
    )
    await wait(lab, "both run", lambda: lab.running("one") and lab.running("two"))
    async with overlay_relay(lab.client, NETWORK) as relay:
        proxy = await start_tls_proxy(nursery, f"http://127.0.0.1:{port}", relay=relay)
        await proxy.connect()
        for host in hosts.values():
            await told(proxy, host, 1)
            await serving(proxy.port, host, ca, 1)
            status, _ = await get(proxy.port, host, ca)
            assert status == 200
        with pytest.raises(NoAnswer):
            await get(proxy.port, hosts["one"], trustme.CA())

        one["data"]["scaleFactor"] = 3
        await push(cloudly, lab, one, two)
        await told(proxy, hosts["one"], 3)
        await serving(proxy.port, hosts["one"], ca, 3)
        answers = {(await get(proxy.port, hosts["one"], ca))[1] for _ in range(9)}
        assert len(answers) == 3

        async with steady_load(proxy.port, hosts["one"], ca, per_second=20) as load:
            victim = await run(lambda: lab.running("one")[0]["Status"]["ContainerStatus"]["ContainerID"])
            await run(partial(lab.client.kill, victim))
            killed = trio.current_time()
            await trio.sleep(8)
        late = [answer for answer in load.failures if answer.started > killed + 2]
        assert late == []

        await told(proxy, hosts["one"], 3)
        one["data"]["environment"] = {"N": "2"}
        async with steady_load(proxy.port, hosts["one"], ca, per_second=20) as load:
            await push(cloudly, lab, one, two)
            await wait(lab, "the update is through", lambda: _updated(lab, "one"), seconds=90)
            await trio.sleep(2)
        print(f"rolling update: {len(load.failures)} of {len(load.answers)} failed")  # noqa: T201 - for the note
        assert len(load.failures) <= 3  # in flight to a task that was stopped: one for each

        await proxy.kill()
        again = await start_tls_proxy(nursery, f"http://127.0.0.1:{port}", relay=relay)
        await again.connect()
        tagged = trio.current_time()
        await told(again, hosts["one"], 3, seconds=1)
        assert trio.current_time() - tagged < 1
        (first, *_) = await again.received()
        assert sorted(config["hostName"] for config in first["reverseConfigs"]) == sorted(hosts.values())
        assert first["reverseConfigs"][0]["privateKey"] == certificates[hosts["one"]]["privateKey"]
    await stopped(daemon)
    assert "PRIVATE KEY" not in (lab.folder / "daemon.log").read_text()


def _updated(lab: Lab, short: str) -> bool:
    live = lab.inspect(short)
    state = (live.get("UpdateStatus") or {}).get("State")
    return "N=2" in live["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env", []) and state == "completed"


SELDOM = {"COREFLOW_RELIST_SECONDS": "0", "COREFLOW_SCHEDULE": "0 0 0 29 2 *"}
"""Nothing is looked at again unless there is a reason."""


async def test_a_certificate_that_was_replaced_in_the_file_is_used(lab: Lab, nursery: trio.Nursery) -> None:
    """The old one is valid for years: a change of the file is reason enough, with SIGHUP as without it."""
    host, port = "a.example.com", free_port()
    authorities = [trustme.CA(organization_name=name) for name in ("First", "Second", "Third")]
    first, second, third = authorities

    def write(ca: trustme.CA) -> None:
        lab.write(web(lab, "a", host), certificates={host: certificate(ca, host)})

    write(first)
    daemon = lab.start(
        "run",
        CLOUDLY_URL=lab.records.as_uri(),
        COREFLOW_INITIAL_DELAY="0",
        COREFLOW_LOG_FORMAT="json",
        COREFLOW_LISTEN=f"127.0.0.1:{port}",
        COREFLOW_CORETRAFFIC_PEERS="127.0.0.0/8",
        **SELDOM,
    )
    await wait(lab, "it runs", lambda: lab.running("a"))
    async with overlay_relay(lab.client, NETWORK) as relay:
        proxy = await start_tls_proxy(nursery, f"http://127.0.0.1:{port}", relay=relay)
        await proxy.connect()
        await told(proxy, host, 1)
        await serving(proxy.port, host, first, 1)
        write(second)
        await trusted(proxy, host, second)
        write(third)
        daemon.send_signal(signal.SIGHUP)
        await trusted(proxy, host, third)
        for old in (first, second):
            with pytest.raises(NoAnswer, match="certificate"):
                await get(proxy.port, host, old)
    await stopped(daemon)
    assert "PRIVATE KEY" not in (lab.folder / "daemon.log").read_text()
    nursery.cancel_scope.cancel()


async def test_a_certificate_that_was_replaced_without_a_word_is_used_after_sighup(
    lab: Lab, cloudly: Cloudly, ca: trustme.CA, nursery: trio.Nursery
) -> None:
    """The old one is valid for years, and Cloudly says nothing of the new one: it is asked for when somebody wants it."""
    host, port, new = "a.example.com", free_port(), trustme.CA(organization_name="Another")
    service = web(lab, "a", host)
    await tell(cloudly, lab, service, certificates={host: certificate(ca, host)})
    daemon = start(
        lab,
        cloudly,
        COREFLOW_LISTEN=f"127.0.0.1:{port}",
        COREFLOW_CORETRAFFIC_PEERS="127.0.0.0/8",
        **SELDOM,
    )
    await wait(lab, "it runs", lambda: lab.running("a"))
    async with overlay_relay(lab.client, NETWORK) as relay:
        proxy = await start_tls_proxy(nursery, f"http://127.0.0.1:{port}", relay=relay)
        await proxy.connect()
        await told(proxy, host, 1)
        await serving(proxy.port, host, ca, 1)
        await tell(cloudly, lab, service, certificates={host: certificate(new, host)})
        await trio.sleep(3)
        assert (await get(proxy.port, host, ca))[0] == 200
        daemon.send_signal(signal.SIGHUP)
        await trusted(proxy, host, new)
        with pytest.raises(NoAnswer, match="certificate"):
            await get(proxy.port, host, ca)
    await stopped(daemon)


async def trusted(proxy: TlsProxy, host: str, ca: trustme.CA, seconds: float = 20) -> None:
    """Wait until a proxy answers with a certificate from this authority."""
    with trio.fail_after(seconds):
        while True:
            with suppress(NoAnswer):
                assert (await get(proxy.port, host, ca))[0] == 200
                return
            await trio.sleep(0.1)


async def test_keys_go_to_nobody_else(
    lab: Lab, cloudly: Cloudly, ca: trustme.CA, nursery: trio.Nursery
) -> None:
    """A connection that is not Coretraffic's is refused the tag and never sent anything."""
    host = "a.example.com"
    await tell(cloudly, lab, web(lab, "a", host), certificates={host: certificate(ca, host)})
    port = free_port()
    daemon = start(lab, cloudly, COREFLOW_LISTEN=f"127.0.0.1:{port}")
    foreign = await start_coretraffic(nursery, f"http://127.0.0.1:{port}")
    await wait(lab, "it runs", lambda: lab.running("a"))
    await foreign.connect()
    await trio.sleep(3)
    assert await foreign.received() == []
    assert log_of(lab, "tag refused", tag="coretraffic")[0]["peer"].startswith("127.0.0.1:")
    await stopped(daemon)


async def test_what_an_operator_sees(lab: Lab, cloudly: Cloudly, ca: trustme.CA) -> None:
    """`coreflow routes`: hosts with tasks, nodes and certificates, and why one is missing; no key anywhere."""
    host, bare = "a.example.com", "b.example.com"
    services = [web(lab, "a", host, scaleFactor=2), web(lab, "b", bare)]
    await tell(cloudly, lab, *services, certificates={host: certificate(ca, host)})
    environ = {
        "CLOUDLY_URL": cloudly.url,
        "JUMPCODE": TOKEN,
        "COREFLOW_CORETRAFFIC_PEERS": "127.0.0.0/8",
    }

    async def run(*arguments: str, **others: str) -> Any:
        return await trio.to_thread.run_sync(partial(lab.run, *arguments, **(environ | others)))  # type: ignore[arg-type]

    assert (await run("apply")).code == 0
    unserved = await run("routes", COREFLOW_CORETRAFFIC_PEERS="tasks")
    assert "no coretraffic runs" in unserved.out
    assert "0 of 2 hosts routed" in unserved.out
    done = await run("routes")
    assert done.code == 1, str(done)
    assert f"{lab.name('a')}:8080" in done.out
    assert "2 tasks on" in done.out
    assert "Test Authority" in done.out
    assert f"certificate of {bare}" in done.out
    document = (await run("routes", "--format", "json")).json
    (route,) = document["routes"]
    live = await trio.to_thread.run_sync(lambda: addresses_on(NETWORK, lab.running("a")))
    assert sorted(task["address"] for task in route["tasks"]) == sorted(live)
    assert [missing["host"] for missing in document["missing"]] == [bare]
    assert "PRIVATE" not in done.out + done.err + json.dumps(document)


async def test_a_gateway_in_front(lab: Lab, cloudly: Cloudly, ca: trustme.CA, nursery: trio.Nursery) -> None:
    """Its certificate comes first, Cloudly's where it has none; its routes follow the hosts, others' are left alone."""
    theirs, ours = trustme.CA(organization_name="Gateway"), ca
    a, b = "a.example.com", "b.example.com"
    stand_in = await start_stand_in(nursery)
    foreign = {"route": {"name": "theirs", "match": {"domains": ["x.example.com"]}}, "id": "foreign"}
    stand_in.built_in.append(foreign)
    stand_in.certificates[a] = certificate(theirs, a)
    gateway = {
        "type": "dcrouter",
        "url": stand_in.url,
        "apiToken": stand_in.token,
        "targetHost": "203.0.113.20",
    }
    services = [web(lab, "a", a), web(lab, "b", b)]
    certificates = {host: certificate(ours, host) for host in (a, b)}
    await tell(cloudly, lab, *services, certificates=certificates, gateway=gateway)
    port = free_port()
    daemon = start(
        lab, cloudly, COREFLOW_LISTEN=f"127.0.0.1:{port}", COREFLOW_CORETRAFFIC_PEERS="127.0.0.0/8"
    )
    await wait(lab, "it listens", lambda: log_of(lab, "listening", what="internal server"))
    proxy = await start_coretraffic(nursery, f"http://127.0.0.1:{port}")
    await proxy.connect()
    with trio.fail_after(40):
        while not (updates := await proxy.received()) or len(updates[-1]["reverseConfigs"]) < 2:  # noqa: ASYNC110
            await trio.sleep(0.1)
    keys = {config["hostName"]: config["privateKey"] for config in updates[-1]["reverseConfigs"]}
    assert keys == {a: stand_in.certificates[a]["privateKey"], b: certificates[b]["privateKey"]}
    with trio.fail_after(20):
        while len(stand_in.stored) < 2:  # noqa: ASYNC110 - it is looked at from outside
            await trio.sleep(0.1)
    writes = stand_in.writes
    await push(cloudly, lab, services[1], certificates=certificates, gateway=gateway)
    with trio.fail_after(20):
        while len(stand_in.stored) > 1:  # noqa: ASYNC110 - it is looked at from outside
            await trio.sleep(0.1)
    assert stand_in.writes == writes + 1
    assert foreign in stand_in.built_in
    daemon.send_signal(signal.SIGHUP)
    await trio.sleep(2)
    assert stand_in.writes == writes + 1
    await stopped(daemon)
    log = (lab.folder / "daemon.log").read_text()
    assert stand_in.token not in log
    assert "PRIVATE KEY" not in log
    assert TOKEN not in log
