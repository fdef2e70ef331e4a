"""What tests can do with the memory Swarm beyond the `Engine` protocol: faults, time, nodes, registries, and a look inside.

That it behaves like an engine is what `tests/integration` shows, on this one and on real ones.
"""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.adapters.memory import Behaviour, Fault, MemoryEngine

Json = dict[str, Any]
GOOD, NEWER, BAD = "good:1", "newer:1", "bad:1"
SECOND = 1_000_000_000
HOST = "r.example.com"


def spec(name: str = "web", image: str = GOOD, replicas: int = 1, **template: Any) -> Json:
    """A service that rolls fast and is rolled back."""
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": image},
            "RestartPolicy": {"Delay": SECOND // 2},
            **template,
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "UpdateConfig": {"Parallelism": 1, "Monitor": SECOND, "FailureAction": "rollback"},
        "RollbackConfig": {"Parallelism": 1, "Monitor": SECOND},
        "EndpointSpec": {"Mode": "dnsrr"},
    }


def secret(name: str, value: bytes) -> Json:
    """The document of a secret as it is sent."""
    return {"Name": name, "Data": base64.b64encode(value).decode()}


def login(username: str, password: str) -> str:
    """Credentials as they travel in `X-Registry-Auth`."""
    return base64.urlsafe_b64encode(
        json.dumps({"username": username, "password": password}).encode()
    ).decode()


@pytest.fixture
def engine() -> MemoryEngine:
    """A Swarm whose time only passes by `advance` and `settle`."""
    made = MemoryEngine(clock=lambda: 0.0)
    made.add_image(GOOD)
    made.add_image(NEWER)
    made.add_image(BAD, Behaviour(exits=1))
    return made


async def names(engine: MemoryEngine) -> list[str]:
    """The names of the services that the list shows."""
    return [document["Spec"]["Name"] for document in await engine.list_services()]


async def change_image(engine: MemoryEngine, name: str, image: str) -> None:
    """Write the live spec with another image."""
    live = await engine.inspect_service(name)
    live["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = image
    await engine.update_service(live["ID"], live["Version"]["Index"], live["Spec"])


async def update_state(engine: MemoryEngine, name: str) -> str:
    """The state of the last roll-out."""
    state: str = (await engine.inspect_service(name))["UpdateStatus"]["State"]
    return state


# faults


async def test_a_fault_before_a_call_has_no_effect(engine: MemoryEngine) -> None:
    """What was asked for did not happen, and the next call works."""
    engine.faults.append(Fault(method="create_service"))
    with pytest.raises(EngineUnreachable):
        await engine.create_service(spec())
    assert await names(engine) == []
    await engine.create_service(spec())
    assert await names(engine) == ["web"]


async def test_a_fault_after_a_call_only_loses_the_answer(engine: MemoryEngine) -> None:
    """What was asked for did happen, although the caller cannot know."""
    engine.faults.append(Fault(method="create_service", when="after"))
    with pytest.raises(EngineUnreachable):
        await engine.create_service(spec())
    assert await names(engine) == ["web"]


async def test_a_fault_waits_for_its_method(engine: MemoryEngine) -> None:
    """Other calls pass; a fault without a method takes the next call, whatever it is."""
    engine.faults.append(Fault(method="list_tasks", error=EngineError(500, "tasks")))
    assert await names(engine) == []
    engine.faults.append(Fault(error=EngineError(500, "any")))
    with pytest.raises(EngineError, match="tasks"):
        await engine.list_tasks()
    with pytest.raises(EngineError, match="any"):
        await engine.info()
    assert not engine.faults


async def test_a_stale_list_is_one_call_old(engine: MemoryEngine) -> None:
    """A list can answer once with what it answered before; other lists are not concerned."""
    await engine.create_service(spec("old"))
    assert await names(engine) == ["old"]
    await engine.create_service(spec("new"))
    engine.stale["list_services"] = 1
    assert await names(engine) == ["old"]
    assert await names(engine) == ["old", "new"]


async def test_the_first_list_cannot_be_stale(engine: MemoryEngine) -> None:
    """A list that was never asked for has no former answer; the fault waits for the second call."""
    await engine.create_service(spec())
    engine.stale["list_services"] = 1
    assert await names(engine) == ["web"]
    await engine.remove_service("web")
    assert await names(engine) == ["web"]
    assert await names(engine) == []


async def test_a_crash_after_a_number_of_writes(engine: MemoryEngine) -> None:
    """The last write has its effect and no answer; nothing answers until the engine is revived."""
    engine.crash_after = 2
    await engine.create_service(spec("one"))
    await engine.list_services()
    with pytest.raises(EngineUnreachable):
        await engine.create_service(spec("two"))
    with pytest.raises(EngineUnreachable):
        await engine.list_services()
    engine.revive()
    assert await names(engine) == ["one", "two"]
    await engine.create_service(spec("three"))


async def test_calls_are_counted(engine: MemoryEngine) -> None:
    """Every call is noted with whether it writes, those that fail included."""
    await engine.list_nodes()
    await engine.create_secret(secret("s", b"value"))
    engine.faults.append(Fault())
    with pytest.raises(EngineUnreachable):
        await engine.remove_secret("s")
    assert engine.calls == [("list_nodes", False), ("create_secret", True), ("remove_secret", True)]
    assert (engine.reads, engine.writes) == (1, 2)


async def test_without_an_ingress_network_no_port_is_published(engine: MemoryEngine) -> None:
    """Measured: `docker network rm ingress`, then a service with a port; one on its host is made."""
    (mesh,) = [n["Id"] for n in await engine.list_networks() if n["Ingress"]]
    await engine.remove_network(mesh)
    port = {"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}
    with pytest.raises(EngineError, match="service needs ingress network") as refusal:
        await engine.create_service({**spec("web"), "EndpointSpec": {"Ports": [port]}})
    assert refusal.value.status == 400
    await engine.create_service({**spec("web"), "EndpointSpec": {"Ports": [{**port, "PublishMode": "host"}]}})


async def test_a_worker_refuses(engine: MemoryEngine) -> None:
    """An engine that is no manager says so, and still tells its version and its own state."""
    engine.is_manager = False
    with pytest.raises(EngineError, match="not a swarm manager") as refusal:
        await engine.list_services()
    assert refusal.value.status == 503
    assert (await engine.info())["Swarm"]["ControlAvailable"] is False
    assert await engine.version()


# answers are copies


async def test_answers_are_copies(engine: MemoryEngine) -> None:
    """Changing a document that was sent or received changes nothing in the engine."""
    sent = spec()
    identity = await engine.create_service(sent)
    sent["TaskTemplate"]["ContainerSpec"]["Image"] = "changed"
    for document in (await engine.inspect_service(identity), *await engine.list_services()):
        assert document["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == GOOD
        document["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = "changed"
    assert (await engine.inspect_service(identity))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == GOOD


# time


async def test_nothing_runs_until_time_passes(engine: MemoryEngine) -> None:
    """A task needs time to start; the same history gives the same ids."""
    await engine.create_service(spec())
    assert engine.running_tasks("web") == []
    engine.advance(5)
    (task,) = engine.running_tasks("web")
    twin = MemoryEngine(clock=lambda: 0.0)
    twin.add_image(GOOD)
    await twin.create_service(spec())
    twin.advance(5)
    assert twin.running_tasks("web") == [task]


async def test_lists_show_what_happened_until_they_are_asked_for() -> None:
    """What is due when a list is asked for comes before its answer."""
    now = 0.0
    engine = MemoryEngine(clock=lambda: now)
    engine.add_image(BAD, Behaviour(exits=1))
    await engine.create_service(spec(image=BAD))
    seen: set[str] = set()
    for _ in range(20):
        now += 0.7
        listed = {task["ID"] for task in await engine.list_running_tasks()}
        assert listed == {t["ID"] for t in await engine.list_tasks() if t["DesiredState"] == "running"}
        seen |= listed
    assert len(seen) > 1


async def test_settle_waits_for_roll_outs(engine: MemoryEngine) -> None:
    """After `settle` a roll-out is over, however it ends."""
    await engine.create_service(spec())
    engine.settle()
    await change_image(engine, "web", NEWER)
    engine.settle()
    assert await update_state(engine, "web") == "completed"
    await change_image(engine, "web", BAD)
    engine.settle()
    assert await update_state(engine, "web") == "rollback_completed"
    (task,) = engine.running_tasks("web")
    assert task["Spec"]["ContainerSpec"]["Image"] == NEWER


async def test_settle_ends_although_a_service_never_does(engine: MemoryEngine) -> None:
    """A container that ends again and again does not keep `settle` from returning."""
    await engine.create_service(spec(image=BAD))
    await engine.create_service(spec("other"))
    engine.settle()
    assert len(engine.running_tasks("other")) == 1
    engine.advance(60)
    ended = {
        task["Status"]["State"] for task in await engine.list_tasks() if task["DesiredState"] == "shutdown"
    }
    assert ended == {"failed"}


async def test_time_follows_the_clock(autojump_clock: trio.testing.MockClock) -> None:
    """With trio's clock, which is the default, sleeping is enough."""
    engine = MemoryEngine()
    engine.add_image(GOOD)
    await engine.create_service(spec())
    await trio.sleep(60)
    assert len(engine.running_tasks("web")) == 1


# events


async def test_events_can_be_lost_and_repeated(engine: MemoryEngine) -> None:
    """A lost event is not sent, a duplicate one is sent twice."""
    async with engine.events() as events:
        engine.lose_events = 1
        await engine.create_secret(secret("lost", b"1"))
        engine.double_events = 1
        await engine.create_secret(secret("duplicate", b"2"))
        await engine.create_secret(secret("once", b"3"))
        seen = [(await anext(events))["Actor"]["Attributes"]["name"] for _ in range(3)]
    assert seen == ["duplicate", "duplicate", "once"]


async def test_every_listener_hears(engine: MemoryEngine) -> None:
    """Two streams get the same events, and one that was left gets none."""
    async with engine.events() as one, engine.events() as other:
        async with engine.events():
            pass
        identity = await engine.create_secret(secret("s", b"value"))
        for events in (one, other):
            event = await anext(events)
            assert (event["Type"], event["Action"], event["Actor"]["ID"]) == ("secret", "create", identity)


async def test_a_hang_up_ends_the_streams(engine: MemoryEngine) -> None:
    """The iterator of events ends when the engine hangs up; a new stream works."""
    async with engine.events() as events:
        engine.hang_up()
        assert [event async for event in events] == []
    async with engine.events() as events:
        await engine.create_secret(secret("s", b"value"))
        assert (await anext(events))["Type"] == "secret"


async def test_a_slow_listener_misses_events_and_blocks_nobody(engine: MemoryEngine) -> None:
    """Writes go on when nobody reads the stream."""
    async with engine.events():
        for number in range(600):
            await engine.create_secret(secret(f"s{number}", b"value"))
    assert len(await engine.list_secrets()) == 600


# a look inside


async def test_secret_payloads_can_be_read(engine: MemoryEngine) -> None:
    """A test sees the bytes that the protocol never gives back."""
    await engine.create_secret(secret("s", b"\x00value"))
    assert engine.secret_payload("s") == b"\x00value"
    assert all("Data" not in document["Spec"] for document in await engine.list_secrets())


async def test_a_running_task_can_be_ended(engine: MemoryEngine) -> None:
    """What ends from outside fails, and Swarm replaces it."""
    await engine.create_service(spec())
    engine.advance(5)
    (task,) = engine.running_tasks("web")
    engine.fail_task(task["ID"])
    assert engine.running_tasks("web") == []
    engine.advance(5)
    (again,) = engine.running_tasks("web")
    assert again["ID"] != task["ID"]
    assert again["Slot"] == task["Slot"]


async def test_a_task_can_be_doubled(engine: MemoryEngine) -> None:
    """Both stay in one place until the service is written; then Swarm calls that an update, and one of them goes on."""
    await engine.create_service(spec())
    engine.advance(5)
    (task,) = engine.running_tasks("web")
    engine.double_task(task["ID"])
    engine.advance(60)
    both = engine.running_tasks("web")
    assert [one["Slot"] for one in both] == [1, 1]
    live = await engine.inspect_service("web")
    await engine.update_service(live["ID"], live["Version"]["Index"], live["Spec"])
    engine.advance(1)
    assert (await engine.inspect_service("web"))["UpdateStatus"]["State"] == "updating"
    engine.advance(10)
    assert (await engine.inspect_service("web"))["UpdateStatus"]["State"] == "completed"
    (left,) = engine.running_tasks("web")
    assert left["ID"] in {one["ID"] for one in both}


# nodes


async def test_tasks_spread_over_nodes() -> None:
    """Replicas go to the nodes with the fewest tasks; a global service has one task on each."""
    engine = MemoryEngine(nodes=3, clock=lambda: 0.0)
    engine.add_image(GOOD)
    await engine.create_service(spec(replicas=6))
    await engine.create_service({**spec("everywhere"), "Mode": {"Global": {}}})
    engine.advance(5)
    placed = [task["NodeID"] for task in engine.running_tasks("web")]
    assert sorted(placed) == sorted([*engine.nodes] * 2)
    assert {task["NodeID"] for task in engine.running_tasks("everywhere")} == {*engine.nodes}


async def test_addresses_differ_between_tasks() -> None:
    """Every task on a network has an address of its own, whatever its node."""
    engine = MemoryEngine(nodes=2, clock=lambda: 0.0)
    engine.add_image(GOOD)
    network = await engine.create_network({"Name": "n", "Driver": "overlay"})
    await engine.create_service(spec(replicas=5, Networks=[{"Target": network}]))
    engine.advance(5)
    attachments = [task["NetworksAttachments"] for task in engine.running_tasks("web")]
    assert len({only["Addresses"][0] for (only,) in attachments}) == 5
    assert {only["Network"]["Spec"]["Name"] for (only,) in attachments} == {"n"}


async def test_a_volume_plugin_belongs_to_a_node() -> None:
    """A service with a volume of some driver runs where that driver is, and its volume is there, too."""
    engine = MemoryEngine(nodes=2, clock=lambda: 0.0)
    engine.add_image(GOOD)
    equipped = [*engine.nodes.values()][1]
    equipped.plugins.add("corestore")
    mount = {
        "Type": "volume",
        "Source": "data",
        "Target": "/data",
        "VolumeOptions": {"DriverConfig": {"Name": "corestore"}},
    }
    await engine.create_service(spec(ContainerSpec={"Image": GOOD, "Mounts": [mount]}))
    engine.advance(5)
    (task,) = engine.running_tasks("web")
    assert task["NodeID"] == equipped.id
    assert equipped.volumes["data"]["Driver"] == "corestore"
    await engine.remove_service("web")
    engine.advance(5)
    assert "data" in equipped.volumes


# images and registries


async def test_a_digest_follows_from_the_content(engine: MemoryEngine) -> None:
    """Pushing other content moves the tag; the same content again has the same digest."""
    first = engine.push(f"{HOST}/web:1")
    second = engine.push(f"{HOST}/web:1", content="other")
    assert engine.push(f"{HOST}/web:1") == first != second
    with pytest.raises(ValueError, match="registry"):
        engine.push("web")


async def test_a_registry_can_be_away(engine: MemoryEngine) -> None:
    """A registry that is down answers nothing, and nodes cannot pull from it."""
    engine.push(f"{HOST}/web:1")
    engine.registries[HOST].up = False
    with pytest.raises(EngineError, match="connection refused"):
        await engine.inspect_distribution(f"{HOST}/web:1")
    await engine.create_service(spec(image=f"{HOST}/web:1"))
    engine.advance(0.3)
    assert "rejected" in {task["Status"]["State"] for task in await engine.list_tasks()}
    engine.registries[HOST].up = True
    engine.settle()
    assert len(engine.running_tasks("web")) == 1


async def test_the_login_of_a_service_is_remembered(engine: MemoryEngine) -> None:
    """A write without credentials keeps those of the service; a later pull uses them."""
    engine.add_registry(HOST, login=("user", "right"))
    engine.push(f"{HOST}/web:1")
    engine.push(f"{HOST}/web:2")
    await engine.create_service(spec(image=f"{HOST}/web:1"), auth=login("user", "right"))
    engine.settle()
    assert len(engine.running_tasks("web")) == 1
    await change_image(engine, "web", f"{HOST}/web:2")
    engine.settle()
    (task,) = engine.running_tasks("web")
    assert task["Spec"]["ContainerSpec"]["Image"] == f"{HOST}/web:2"


async def test_an_archive_comes_in_pieces(engine: MemoryEngine) -> None:
    """An archive is read as one, however it is cut, and a fault hits it as it hits other writes."""

    async def cut() -> AsyncIterator[bytes]:
        for piece in (b"no", b" archive", b" at all"):
            yield piece

    with pytest.raises(EngineError, match="tar"):
        await engine.load_image(cut())
    engine.faults.append(Fault(method="load_image"))
    with pytest.raises(EngineUnreachable):
        await engine.load_image(cut())
