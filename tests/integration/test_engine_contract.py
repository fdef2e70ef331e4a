"""What coreflow takes for granted about an engine, one fact per test, on the memory Swarm and on a real one.

Documents, refusals, images, events. `test_roll_out_contract.py` has what Swarm does with tasks.
"""

import base64
from contextlib import AbstractContextManager
from typing import Any

import pytest
import trio
from tests.integration.engine_bench import GOOD, NEWER, NOWHERE, PASSWORD, SECOND, USER, Bench, Json, pieces
from tests.unit import references

from coreflow.adapters.engine.protocol import Document, EngineError
from coreflow.adapters.swarm.to_engine import registry_auth
from coreflow.domain.records.models import RegistryLogin

MEBIBYTE = 1024 * 1024
UNKNOWN = "x" * 25


async def secret(bench: Bench, short: str = "s", data: bytes = b"value", **members: Any) -> str:
    """Make a secret; its id."""
    value = base64.b64encode(data).decode()
    return await bench.engine.create_secret({"Name": bench.name(short), "Data": value, **members})


def mounted(bench: Bench, identity: str, short: str = "s") -> list[Json]:
    """The member `Secrets` that mounts one secret."""
    file = {"Name": "secret.json", "UID": "0", "GID": "0", "Mode": 0o444}
    return [{"File": file, "SecretID": identity, "SecretName": bench.name(short)}]


def idle(bench: Bench, short: str = "a", **container: Any) -> Json:
    """A spec that nothing runs from."""
    return {**bench.spec(short, **container), "Mode": {"Replicated": {"Replicas": 0}}}


def refused(status: int, text: str) -> AbstractContextManager[Any]:
    """The engine refuses, with this status and a message that has this text."""
    return pytest.raises(EngineError, check=lambda exc: exc.status == status and text in exc.message)


# versions


async def test_every_write_raises_the_version(bench: Bench) -> None:
    """A service's version index grows with every write to it."""
    identity = await bench.create(idle(bench))
    before = await bench.update(identity, lambda spec: spec["Labels"].update(a="1"))
    after = await bench.live(identity)
    assert after["Version"]["Index"] > before["Version"]["Index"]


async def test_a_write_that_names_an_older_version_is_out_of_sequence(bench: Bench) -> None:
    """A lost race is status 500 with a text."""
    identity = await bench.create(idle(bench))
    before = await bench.update(identity, lambda spec: spec["Labels"].update(a="1"))
    with refused(500, "update out of sequence"):
        await bench.engine.update_service(identity, before["Version"]["Index"], before["Spec"])


async def test_listed_services_are_whole(bench: Bench) -> None:
    """The list has the same documents as asking for one service."""
    identity = await bench.create(idle(bench))
    listed = [document for document in await bench.engine.list_services() if document["ID"] == identity]
    assert listed == [await bench.live(identity)]


async def test_a_service_can_be_asked_for_by_name(bench: Bench) -> None:
    """Names work as ids."""
    identity = await bench.create(idle(bench))
    assert (await bench.live(bench.name()))["ID"] == identity


# refusals


async def test_a_service_name_is_taken_once(bench: Bench) -> None:
    """A second service of one name is a conflict."""
    await bench.create(idle(bench))
    with refused(409, "name conflicts with an existing object"):
        await bench.create(idle(bench))


async def test_a_secret_name_is_taken_once(bench: Bench) -> None:
    """A second secret of one name is a conflict."""
    await secret(bench)
    with refused(409, "already exists"):
        await secret(bench)


async def test_a_network_name_is_taken_once(bench: Bench) -> None:
    """A second network of one name is a conflict."""
    config = {"Name": bench.name("n"), "Driver": "overlay", "CheckDuplicate": True}
    await bench.engine.create_network(config)
    with refused(409, f"network with name {bench.name('n')} already exists"):
        await bench.engine.create_network(config)


# platforms


PLATFORMS: dict[str, tuple[list[Json], str]] = {
    "its own": ([{"Architecture": "amd64", "OS": "linux"}], ""),
    "in the node's words": ([{"Architecture": "x86_64", "OS": "linux"}], ""),
    "no architecture": ([{"OS": "linux"}], ""),
    "nothing": ([{}], ""),
    "one of several": (
        [{"Architecture": "arm64", "OS": "linux"}, {"Architecture": "amd64", "OS": "linux"}],
        "",
    ),
    "another architecture": ([{"Architecture": "arm64", "OS": "linux"}], "unsupported platform on 1 node"),
    "another system": ([{"Architecture": "amd64", "OS": "windows"}], "unsupported platform on 1 node"),
    "unknown": ([{"Architecture": "unknown", "OS": "unknown"}], "unsupported platform on 1 node"),
}


async def said_of_task(bench: Bench, identity: str) -> Json:
    """Wait until Swarm says why a task is not placed; the task then."""

    async def look() -> list[Json]:
        return [task for task in await bench.tasks(identity) if task["Status"].get("Err")]

    return (await bench.eventually(look))[0]


async def test_tasks_are_placed_by_platform(bench: Bench) -> None:
    """A node whose platform is none of those named gets no task, which says why; the spec comes back as it was sent."""

    async def one(short: str, case: str) -> None:
        platforms, error = PLATFORMS[case]
        spec = bench.spec(short)
        spec["TaskTemplate"]["Placement"] = {"Platforms": platforms}
        identity = await bench.create(spec)
        if error:
            assert (await said_of_task(bench, identity))["Status"]["Err"] == f"no suitable node ({error})", (
                case
            )
        else:
            await bench.task_in(identity, "running")
        assert (await bench.live(identity))["Spec"]["TaskTemplate"]["Placement"] == {"Platforms": platforms}

    await bench.together(one, *PLATFORMS)


async def test_a_global_task_is_told_of_its_own_node(bench: Bench) -> None:
    """A global service's task for a node of another platform waits on that node."""
    spec = bench.spec()
    spec["TaskTemplate"]["Placement"] = {"Platforms": PLATFORMS["another architecture"][0]}
    spec["Mode"] = {"Global": {}}
    task = await said_of_task(bench, await bench.create(spec))
    assert task["Status"]["Err"] == "unsupported platform on 1 node"
    assert task["NodeID"] in {node["ID"] for node in await bench.engine.list_nodes()}


async def test_a_change_of_platforms_replaces_no_task(bench: Bench) -> None:
    """A running task stays when platforms are added, even others than its node's, and when they go."""
    identity = await bench.start(bench.spec())
    (before,) = await bench.running(identity)
    for platforms in (PLATFORMS["its own"][0], PLATFORMS["another architecture"][0], []):

        def change(spec: Json, platforms: list[Json] = platforms) -> None:
            spec["TaskTemplate"]["Placement"] = {"Platforms": platforms}

        await bench.update(identity, change)
        await bench.pause(1.0)
        assert [task["ID"] for task in await bench.running(identity)] == [before["ID"]]
    assert (await bench.live(identity))["Spec"]["TaskTemplate"]["Placement"] == {}


async def test_names_are_compared_without_case(bench: Bench) -> None:
    """A name that differs in case only is taken; of a network that is said with 500."""
    await bench.create(idle(bench, "a"))
    with refused(409, "name conflicts with an existing object"):
        await bench.create(idle(bench, "A"))
    await secret(bench, "s")
    with refused(409, "already exists"):
        await secret(bench, "S")
    await bench.engine.create_network({"Name": bench.name("n"), "Driver": "overlay"})
    with refused(500, "name conflicts with an existing object"):
        await bench.engine.create_network({"Name": bench.name("N"), "Driver": "overlay"})


async def test_a_service_keeps_its_mode(bench: Bench) -> None:
    """A replicated service cannot become a global one."""
    identity = await bench.create(idle(bench))
    with refused(501, "service mode change is not allowed"):
        await bench.update(identity, lambda spec: spec.update(Mode={"Global": {}}))


async def test_a_service_keeps_its_name(bench: Bench) -> None:
    """A service cannot be renamed."""
    identity = await bench.create(idle(bench))
    with refused(501, "renaming services is not supported"):
        await bench.update(identity, lambda spec: spec.update(Name=bench.name("b")))


async def test_what_is_not_there_cannot_be_inspected_changed_or_removed(bench: Bench) -> None:
    """An unknown id is status 404."""
    with refused(404, f"service {UNKNOWN} not found"):
        await bench.live(UNKNOWN)
    with refused(404, f"service {UNKNOWN} not found"):
        await bench.engine.update_service(UNKNOWN, 1, idle(bench))
    with refused(404, f"service {UNKNOWN} not found"):
        await bench.engine.remove_service(UNKNOWN)
    with refused(404, f"secret {UNKNOWN} not found"):
        await bench.engine.remove_secret(UNKNOWN)


async def test_a_mounted_secret_cannot_be_removed(bench: Bench) -> None:
    """A secret in use is status 400 with a text that names the service."""
    identity = await secret(bench)
    await bench.create(idle(bench, Secrets=mounted(bench, identity)))
    text = f"secret '{bench.name('s')}' is in use by the following service: {bench.name()}"
    with refused(400, text):
        await bench.engine.remove_secret(identity)


async def test_a_previous_spec_does_not_protect_its_secret(bench: Bench) -> None:
    """Only the live spec counts as use: a secret that a roll-back would need can be removed."""
    identity = await secret(bench)
    service = await bench.create(idle(bench, Secrets=mounted(bench, identity)))
    await bench.update(service, lambda spec: spec["TaskTemplate"]["ContainerSpec"].pop("Secrets"))
    await bench.engine.remove_secret(identity)
    previous = (await bench.live(service))["PreviousSpec"]
    assert previous["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretID"] == identity


async def test_a_service_cannot_mount_an_unknown_secret(bench: Bench) -> None:
    """An unknown secret is status 400."""
    with refused(400, "secret not found"):
        await bench.create(idle(bench, Secrets=mounted(bench, UNKNOWN)))


async def test_a_service_cannot_join_an_unknown_network(bench: Bench) -> None:
    """An unknown network of a service is status 500, unlike every other unknown object."""
    spec = idle(bench)
    spec["TaskTemplate"]["Networks"] = [{"Target": bench.name("none")}]
    with refused(500, f"network {bench.name('none')} not found"):
        await bench.create(spec)


async def test_a_service_cannot_join_a_local_network(bench: Bench) -> None:
    """Only networks of the Swarm take services."""
    network = await bench.engine.create_network({"Name": bench.name("n"), "Driver": "bridge"})
    spec = idle(bench)
    spec["TaskTemplate"]["Networks"] = [{"Target": network}]
    with refused(403, "cannot be used with services"):
        await bench.create(spec)


async def test_a_service_cannot_join_the_ingress_network(bench: Bench) -> None:
    """It is marked as such, and takes only the ports that services publish."""
    (mesh,) = [network for network in await bench.engine.list_networks() if network.get("Ingress")]
    spec = idle(bench)
    spec["TaskTemplate"]["Networks"] = [{"Target": mesh["Id"]}]
    with refused(400, f'cannot be explicitly attached to the ingress network "{mesh["Name"]}"'):
        await bench.create(spec)


async def test_a_network_tells_what_is_special_about_it(bench: Bench) -> None:
    """Internal and encrypted ones are listed as such."""
    config = {"Name": bench.name("n"), "Driver": "overlay", "Internal": True, "Options": {"encrypted": ""}}
    identity = await bench.engine.create_network(config)

    async def ready() -> Json | None:
        found = next(n for n in await bench.engine.list_networks() if n["Id"] == identity)
        return found if found["Driver"] else None

    found = await bench.eventually(ready)
    assert found is not None
    assert (found["Internal"], found["Attachable"], found["Ingress"]) == (True, False, False)
    assert "encrypted" in found["Options"]


async def test_a_network_for_four_addresses_takes_no_task(bench: Bench) -> None:
    """Of a /30, one is the network's, one the gateway's, one for broadcasts, and the virtual address takes the last."""
    pool = {"Config": [{"Subnet": "10.231.241.0/30"}]}
    config = {"Name": bench.name("n"), "Driver": "overlay", "IPAM": pool}
    spec = bench.spec()
    spec["TaskTemplate"]["Networks"] = [{"Target": await bench.engine.create_network(config)}]
    service = await bench.create(spec)
    await bench.task_in(service, "new", "preparing")  # by who came first, the service or its task
    await bench.pause(3)
    (task,) = await bench.tasks(service)
    assert task["Status"]["State"] in {"new", "preparing"}


async def test_dnsrr_excludes_ingress_ports(bench: Bench) -> None:
    """A service without a virtual address cannot publish on all nodes."""
    port = {"TargetPort": 80, "PublishedPort": 38201, "PublishMode": "ingress"}
    spec = {**idle(bench), "EndpointSpec": {"Mode": "dnsrr", "Ports": [port]}}
    with refused(400, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"):
        await bench.create(spec)


async def test_dnsrr_allows_host_ports(bench: Bench) -> None:
    """A service without a virtual address can publish on its own node."""
    port = {"TargetPort": 80, "PublishedPort": 38202, "PublishMode": "host", "Protocol": "tcp"}
    identity = await bench.create({**idle(bench), "EndpointSpec": {"Mode": "dnsrr", "Ports": [port]}})
    assert (await bench.live(identity))["Spec"]["EndpointSpec"] == {"Mode": "dnsrr", "Ports": [port]}


async def test_an_ingress_port_belongs_to_one_service(bench: Bench) -> None:
    """A second service cannot publish the same port."""
    port = {"TargetPort": 80, "PublishedPort": 38203}
    first = await bench.create({**idle(bench), "EndpointSpec": {"Mode": "vip", "Ports": [port]}})
    text = f"port '38203' is already in use by service '{bench.name()}' ({first}) as an ingress port"
    with refused(400, text):
        await bench.create({**idle(bench, "b"), "EndpointSpec": {"Mode": "vip", "Ports": [port]}})


@pytest.mark.parametrize("kind", ["Limits", "Reservations"])
async def test_less_than_four_mebibytes_are_refused(bench: Bench, kind: str) -> None:
    """Memory below 4 MiB is refused, 4 MiB is not."""
    spec = idle(bench)
    spec["TaskTemplate"]["Resources"] = {kind: {"MemoryBytes": 4 * MEBIBYTE - 1}}
    with refused(400, f"invalid memory value {4 * MEBIBYTE - 1}: Must be at least 4MiB"):
        await bench.create(spec)
    spec["TaskTemplate"]["Resources"] = {kind: {"MemoryBytes": 4 * MEBIBYTE}}
    await bench.create(spec)


async def test_two_mounts_cannot_share_a_path(bench: Bench) -> None:
    """A path in the container is mounted once."""
    mounts = [{"Type": "volume", "Source": bench.name(v), "Target": "/data"} for v in "vw"]
    with refused(400, "duplicate mount point: /data"):
        await bench.create(idle(bench, Mounts=mounts))


async def test_image_references_that_are_taken(bench: Bench) -> None:
    """Hosts, digests, lengths and marks that every engine understands."""
    for image in references.TAKEN:
        await bench.engine.remove_service(await bench.create(idle(bench, Image=image)))


async def test_image_references_that_are_refused(bench: Bench) -> None:
    """What is no reference is refused when a service is made, and changes none."""
    identity = await bench.create(idle(bench))
    live = await bench.live(identity)
    for image in references.REFUSED:
        with refused(400, "is not a valid repository/tag"):
            await bench.create(idle(bench, "b", Image=image))
    live["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = references.REFUSED[0]
    with refused(400, "is not a valid repository/tag"):
        await bench.engine.update_service(identity, live["Version"]["Index"], live["Spec"])


async def test_image_references_that_only_newer_engines_take(bench: Bench) -> None:
    """Hosts in brackets or with capital letters alone, and names whose host makes them too long. An older engine refuses
    them when they are looked up, too."""
    version = tuple(map(int, (await bench.engine.version())["ApiVersion"].split(".")))
    for image in references.NEWER:
        if version >= (1, 42):
            await bench.engine.remove_service(await bench.create(idle(bench, Image=image)))
            continue
        with refused(400, "is not a valid repository/tag"):
            await bench.create(idle(bench, Image=image))
        for look in (bench.engine.inspect_image, bench.engine.inspect_distribution):
            with refused(400, ""):
                await look(image)


@pytest.mark.parametrize("name", ["a.b", "-a", "a-", "a b"])
async def test_service_names_are_labels_of_host_names(bench: Bench, name: str) -> None:
    """Names of services have letters, digits, inner dashes and underscores, 63 at most."""
    spec = {**idle(bench), "Name": name}
    with refused(400, "name must be valid as a DNS name component"):
        await bench.create(spec)


async def test_a_service_name_has_63_characters_at_most(bench: Bench) -> None:
    """63 are fine, 64 are not."""
    with refused(400, "name must be 63 characters or fewer"):
        await bench.create({**idle(bench), "Name": "a" * 64})
    await bench.create({**idle(bench), "Name": bench.prefix + "_" * (62 - len(bench.prefix)) + "z"})


@pytest.mark.parametrize("suffix", ["-", ".", " b", "/b", "b" * 65])
async def test_secret_names_are_plain(bench: Bench, suffix: str) -> None:
    """Names of secrets have letters, digits and inner dashes, dots and underscores, 64 at most."""
    with refused(400, "invalid name"):
        await secret(bench, suffix)


async def test_a_secret_name_has_64_characters_at_most(bench: Bench) -> None:
    """64 are fine, with dots."""
    await secret(bench, "b." * 20 + "c" * (23 - len(bench.prefix)))
    assert any(
        len(document["Spec"]["Name"]) == 64 and document["Spec"]["Name"].startswith(bench.prefix)
        for document in await bench.engine.list_secrets()
    )


@pytest.mark.parametrize("size", [0, 500 * 1024 + 1])
async def test_a_secret_is_neither_empty_nor_large(bench: Bench, size: int) -> None:
    """A secret has between one byte and 500 KiB."""
    with refused(400, "secret data must be larger than 0 and less than 512000 bytes"):
        await secret(bench, data=b"x" * size)


async def test_the_largest_secret(bench: Bench) -> None:
    """One byte less than 500 KiB is taken."""
    await secret(bench, data=b"x" * (500 * 1024 - 1))


# what comes back


async def test_secrets_come_back_without_their_value(bench: Bench) -> None:
    """A secret shows its name and labels, never its data."""
    identity = await secret(bench, Labels={"a": "1"})
    documents = [document for document in await bench.engine.list_secrets() if document["ID"] == identity]
    assert [document["Spec"] for document in documents] == [
        {"Name": bench.name("s"), "Labels": {"a": "1"}},
    ]


async def test_networks_get_a_subnet(bench: Bench) -> None:
    """An overlay network belongs to the Swarm and soon has one /24 of its own unless told otherwise."""
    config = {"Name": bench.name("n"), "Driver": "overlay", "Attachable": True, "Labels": {"a": "1"}}
    identity = await bench.engine.create_network(config)

    async def ready() -> Json | None:
        found = next(n for n in await bench.engine.list_networks() if n["Id"] == identity)
        return found if found["IPAM"]["Config"] else None

    found = await bench.eventually(ready)
    assert found is not None
    (pool,) = found["IPAM"]["Config"]
    assert {key: found[key] for key in config} == config
    assert found["Scope"] == "swarm"
    assert pool["Subnet"].endswith("/24")


async def test_an_overlapping_subnet_is_not_refused_but_useless(bench: Bench) -> None:
    """A network with a taken range is made without driver and addresses, and its tasks stay `new`."""
    pool = {"Config": [{"Subnet": "10.231.240.0/24"}]}
    await bench.engine.create_network({"Name": bench.name("n"), "Driver": "overlay", "IPAM": pool})
    identity = await bench.engine.create_network({"Name": bench.name("m"), "Driver": "overlay", "IPAM": pool})
    spec = bench.spec()
    spec["TaskTemplate"]["Networks"] = [{"Target": identity}]
    service = await bench.create(spec)
    await bench.task_in(service, "new")
    await bench.pause(1)
    (task,) = await bench.tasks(service)
    assert task["Status"]["State"] == "new"
    found = next(n for n in await bench.engine.list_networks() if n["Id"] == identity)
    assert (found["Driver"], found["IPAM"]) == ("", {"Driver": "", "Options": None, "Config": None})


async def test_a_small_spec_comes_back_with_defaults(bench: Bench) -> None:
    """Little is added to a spec that says little."""
    template = {"ContainerSpec": {"Image": GOOD}, "Placement": {"Constraints": [NOWHERE]}}
    spec = {"Name": bench.name(), "TaskTemplate": template}
    live = await bench.live(await bench.create(spec))
    assert live["Spec"] == {
        "Name": bench.name(),
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": GOOD, "Isolation": "default"},
            "Placement": {"Constraints": [NOWHERE]},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 1}},
    }
    assert "PreviousSpec" not in live
    assert "UpdateStatus" not in live


async def test_empty_parts_get_defaults_or_go(bench: Bench) -> None:
    """Empty lists and zeros vanish, empty policies are filled in."""
    spec: Json = {
        "Name": bench.name(),
        "Labels": None,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": GOOD,
                "Env": [],
                "Mounts": [],
                "Secrets": [],
                "Labels": {},
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 0, "Retries": 0, "Timeout": 0},
            },
            "Resources": {"Limits": {}, "Reservations": {"NanoCPUs": 0, "MemoryBytes": 0}},
            "RestartPolicy": {},
            "Placement": {"Constraints": [], "MaxReplicas": 0},
            "Networks": [],
        },
        "Mode": {"Replicated": {"Replicas": 0}},
        "UpdateConfig": {"Delay": 0},
        "RollbackConfig": {},
        "EndpointSpec": {"Ports": []},
    }
    roll = {"Parallelism": 0, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"}
    assert (await bench.live(await bench.create(spec)))["Spec"] == {
        "Name": bench.name(),
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": GOOD,
                "Healthcheck": {"Test": ["CMD", "true"]},
                "Isolation": "default",
            },
            "Resources": {"Limits": {}, "Reservations": {}},
            "RestartPolicy": {"Condition": "any", "MaxAttempts": 0},
            "Placement": {},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 0}},
        "UpdateConfig": roll,
        "RollbackConfig": roll,
        "EndpointSpec": {"Mode": "vip"},
    }


async def test_a_full_spec_comes_back_as_it_was_sent(bench: Bench) -> None:
    """What is set stays as it is, but for modes of ports that are added, and network names that become ids."""
    network = await bench.engine.create_network({"Name": bench.name("n"), "Driver": "overlay"})
    token = await secret(bench)
    volume = {
        "Type": "volume",
        "Source": bench.name("v"),
        "Target": "/data",
        "ReadOnly": True,
        "VolumeOptions": {"Labels": {"l": "1"}, "DriverConfig": {"Name": "local", "Options": {"o": "1"}}},
    }
    bare = {"Type": "volume", "Source": bench.name("w"), "Target": "/bare"}
    bind = {"Type": "bind", "Source": "/tmp", "Target": "/t", "BindOptions": {"Propagation": "rslave"}}
    roll = {
        "Parallelism": 2,
        "Delay": SECOND,
        "FailureAction": "rollback",
        "Monitor": 3 * SECOND,
        "MaxFailureRatio": 0.5,
        "Order": "start-first",
    }
    spec: Json = {
        "Name": bench.name(),
        "Labels": {"b": "2", "a": ""},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": GOOD,
                "Command": ["sh"],
                "Args": ["-c", "sleep 1"],
                "Env": ["B=2", "A=1", "EMPTY="],
                "Mounts": [{**bare, "ReadOnly": False}, bind, volume],
                "Secrets": mounted(bench, token),
                "Healthcheck": {
                    "Test": ["CMD", "true"],
                    "Interval": 10 * SECOND,
                    "Timeout": SECOND,
                    "Retries": 2,
                    "StartPeriod": SECOND,
                },
            },
            "Resources": {
                "Limits": {"MemoryBytes": 64 * MEBIBYTE, "NanoCPUs": SECOND},
                "Reservations": {"MemoryBytes": 16 * MEBIBYTE, "NanoCPUs": SECOND // 10},
            },
            "RestartPolicy": {
                "Condition": "on-failure",
                "Delay": 2 * SECOND,
                "MaxAttempts": 3,
                "Window": 0,
            },
            "Placement": {"Constraints": [NOWHERE, "node.role==manager"], "MaxReplicas": 1},
            "Networks": [{"Target": bench.name("n"), "Aliases": ["z", "a"]}],
            "ForceUpdate": 0,
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": roll,
        "RollbackConfig": {**roll, "FailureAction": "pause", "Order": "stop-first"},
        "EndpointSpec": {
            "Mode": "vip",
            "Ports": [
                {"TargetPort": 80, "PublishedPort": 38204},
                {"TargetPort": 53, "PublishedPort": 38205, "Protocol": "udp", "PublishMode": "host"},
            ],
        },
    }
    template = spec["TaskTemplate"]
    first, second = spec["EndpointSpec"]["Ports"]
    identity = await bench.create(spec)
    assert (await bench.live(identity))["Spec"] == {
        **spec,
        "TaskTemplate": {
            **template,
            "ContainerSpec": {
                **template["ContainerSpec"],
                "Mounts": [bare, bind, volume],
                "Isolation": "default",
            },
            "Networks": [{"Target": network, "Aliases": ["z", "a"]}],
            "Runtime": "container",
        },
        "EndpointSpec": {
            "Mode": "vip",
            "Ports": [{**first, "Protocol": "tcp", "PublishMode": "ingress"}, second],
        },
    }


# images and registries


async def test_an_image_that_the_engine_has(bench: Bench) -> None:
    """A local image has an id and its names, and no digests."""
    image = await bench.engine.inspect_image(GOOD)
    assert image["Id"].startswith("sha256:")
    assert GOOD in image["RepoTags"]
    assert not any(digest.startswith("coreflow/test@") for digest in image["RepoDigests"])


async def test_an_image_that_the_engine_has_not(bench: Bench) -> None:
    """An unknown image is status 404."""
    with refused(404, "No such image"):
        await bench.engine.inspect_image(f"{bench.prefix}:1")


async def test_a_registry_gives_the_digest(bench: Bench) -> None:
    """A reference has a digest, and so has the reference with that digest."""
    reference = f"{bench.registry}/test:1"
    digest = (await bench.engine.inspect_distribution(reference))["Descriptor"]["digest"]
    assert digest.startswith("sha256:")
    other = (await bench.engine.inspect_distribution(f"{bench.registry}/test:2"))["Descriptor"]["digest"]
    assert other != digest
    pinned = await bench.engine.inspect_distribution(f"{reference}@{digest}")
    assert pinned["Descriptor"]["digest"] == digest


@pytest.mark.parametrize("path", ["test:none", "none:1"])
async def test_a_registry_has_no_such_image(bench: Bench, path: str) -> None:
    """An unknown tag or repository is status 404."""
    with refused(404, "manifest unknown"):
        await bench.engine.inspect_distribution(f"{bench.registry}/{path}")


def login(bench: Bench, password: str) -> str | None:
    """A login as it travels."""
    return registry_auth(
        RegistryLogin(username=USER, password=password, serveraddress=bench.private_registry)
    )


async def test_a_private_registry_wants_a_login(bench: Bench) -> None:
    """No login at all is status 500 with a text."""
    with refused(500, "no basic auth credentials"):
        await bench.engine.inspect_distribution(f"{bench.private_registry}/private:1")


async def test_a_private_registry_refuses_a_wrong_login(bench: Bench) -> None:
    """A wrong login is status 401."""
    with refused(401, "unauthorized"):
        await bench.engine.inspect_distribution(
            f"{bench.private_registry}/private:1", login(bench, "wrong-horse")
        )


async def test_a_private_registry_takes_a_login(bench: Bench) -> None:
    """With the login there is a digest."""
    auth = login(bench, PASSWORD)
    answer = await bench.engine.inspect_distribution(f"{bench.private_registry}/private:1", auth)
    assert answer["Descriptor"]["digest"].startswith("sha256:")


async def test_a_registry_is_away(bench: Bench) -> None:
    """No registry at all is status 500 with a text."""
    with refused(500, "connection refused"):
        await bench.engine.inspect_distribution("127.0.0.1:5999/test:1")


@pytest.mark.parametrize("name", ["test-1.tar", "test-1.tar.gz"])
async def test_archives_are_loaded(bench: Bench, name: str) -> None:
    """An archive, plain or compressed, brings an image and tells its name."""
    assert await bench.engine.load_image(bench.archive(name)) == [GOOD]
    await bench.engine.inspect_image(GOOD)


async def test_an_archive_without_a_name_tells_an_id(bench: Bench) -> None:
    """An image without a name is loaded, and can be given one."""
    reference = f"{bench.prefix}:1"
    bench.images.append(reference)
    (identity,) = await bench.engine.load_image(bench.archive("test-1.tar", untagged=True))
    assert identity.startswith("sha256:")
    await bench.engine.tag_image(identity, bench.prefix, "1")
    assert (await bench.engine.inspect_image(reference))["Id"] == identity


async def test_an_archive_with_two_names_tells_both(bench: Bench) -> None:
    """An image with two names is reported once per name."""
    bench.images += [f"{bench.prefix}:1", f"{bench.prefix}:2"]
    loaded = await bench.engine.load_image(bench.archive("test-1.tar", *bench.images))
    assert sorted(loaded) == bench.images


async def test_an_archive_of_something_else_is_refused(bench: Bench) -> None:
    """Garbage is not an image."""
    with pytest.raises(EngineError, match="tar") as refusal:
        await bench.engine.load_image(pieces(b"garbage" * 1000))
    assert refusal.value.status == 400


async def test_an_image_gets_another_name(bench: Bench) -> None:
    """A tag is one more name of the same image."""
    bench.images.append(f"{bench.prefix}:1")
    await bench.engine.tag_image(GOOD, bench.prefix, "1")
    image, same = [await bench.engine.inspect_image(r) for r in (GOOD, f"{bench.prefix}:1")]
    assert image["Id"] == same["Id"]


async def test_an_unknown_image_gets_no_name(bench: Bench) -> None:
    """Tagging what is not there is status 404."""
    with refused(404, "No such image"):
        await bench.engine.tag_image(f"{bench.prefix}:1", bench.prefix, "2")


# events and the rest


async def test_events_follow_writes(bench: Bench) -> None:
    """Services, secrets and networks that are made, changed or removed send events."""
    seen: list[tuple[str, str, str]] = []

    async def wait_for(kind: str, action: str, identity: str) -> None:
        with trio.fail_after(10):
            while (kind, action, identity) not in seen:
                event: Document = await anext(events)
                seen.append((event["Type"], event["Action"], event["Actor"]["ID"]))

    async with bench.engine.events() as events:
        token = await secret(bench)
        await wait_for("secret", "create", token)
        network = await bench.engine.create_network({"Name": bench.name("n"), "Driver": "overlay"})
        await wait_for("network", "create", network)
        service = await bench.create(idle(bench))
        await wait_for("service", "create", service)
        await bench.update(service, lambda spec: spec["Labels"].update(a="1"))
        await wait_for("service", "update", service)
        await bench.engine.remove_service(service)
        await wait_for("service", "remove", service)
        await bench.engine.remove_secret(token)
        await wait_for("secret", "remove", token)
        await bench.remove_network(network)
        await wait_for("network", "remove", network)


async def test_a_network_stays_while_a_task_on_it_is_meant_to_run(bench: Bench) -> None:
    """A roll-out that waits leaves tasks on a network that no spec names any more; those of a removed service do not count."""
    network = await bench.engine.create_network({"Name": bench.name("n"), "Driver": "overlay"})
    spec = bench.spec()
    spec["Mode"] = {"Replicated": {"Replicas": 2}}
    spec["TaskTemplate"]["Networks"] = [{"Target": network}]
    identity = await bench.start(spec)

    def leave(spec: Json) -> None:
        del spec["TaskTemplate"]["Networks"]
        spec["TaskTemplate"]["Placement"] = {"Constraints": [NOWHERE]}

    await bench.update(identity, leave)
    await bench.eventually(lambda: bench.runs(identity, 1))
    with pytest.raises(EngineError, match=f"network {network} is in use by task") as refusal:
        await bench.remove_network(network)
    assert refusal.value.status == 400
    await bench.engine.remove_service(identity)
    await bench.remove_network(network)


async def test_a_task_that_starts_sends_an_event(bench: Bench) -> None:
    """Containers of this node send events, too."""
    with trio.fail_after(20):
        async with bench.engine.events() as events:
            identity = await bench.start(bench.spec(image=NEWER))
            async for event in events:
                if (event["Type"], event["Action"]) == ("container", "start"):
                    break
    assert await bench.running(identity)


async def test_the_engine_is_a_manager(bench: Bench) -> None:
    """Version, own node id and the node list fit together."""
    version = await bench.engine.version()
    assert version["Version"]
    assert tuple(map(int, version["ApiVersion"].split("."))) >= (1, 41)
    swarm = (await bench.engine.info())["Swarm"]
    assert swarm["LocalNodeState"] == "active"
    assert swarm["ControlAvailable"] is True
    nodes = await bench.engine.list_nodes()
    own = next(node for node in nodes if node["ID"] == swarm["NodeID"])
    assert (own["Spec"]["Role"], own["Spec"]["Availability"]) == ("manager", "active")
    assert own["Status"]["State"] == "ready"
    assert own["Status"]["Addr"]
    assert {"Type": "Volume", "Name": "local"} in own["Description"]["Engine"]["Plugins"]
