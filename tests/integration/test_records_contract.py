"""What becomes of records whose names, paths and values an engine takes otherwise than they are written."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.engine_bench import Bench, Json
from tests.integration.records_bench import Records, open_records

from coreflow.domain.swarm import naming


@pytest.fixture
async def world(bench: Bench) -> AsyncIterator[Records]:
    """A cluster of our own, in memory and for real."""
    async with open_records(bench) as records:
        yield records


def secrets(value: str) -> Json:
    """A bundle with one value."""
    group = {"id": "g", "data": {"key": "TOKEN", "environments": {"production": {"value": value}}}}
    return {
        "secretBundles": [{"id": "b", "data": {"includedSecretGroupIds": ["g"]}}],
        "secretGroups": [group],
    }


def mounts(document: Json) -> list[tuple[str, str]]:
    """Where the volumes of a service are in its containers, and their names."""
    found = document["Spec"]["TaskTemplate"]["ContainerSpec"].get("Mounts") or ()
    return [(mount["Target"], mount["Source"]) for mount in found]


async def settled(world: Records) -> None:
    """Nothing is left to do, also for a process that has just begun."""
    world.renew()
    assert await world.apply() == []


# names


async def test_two_records_whose_names_differ_in_case_only(world: Records) -> None:
    """The second one is rejected in the plan: Swarm has one of them at most."""
    world.write(world.service("shop", "id-1"), world.service("SHOP", "id-2"))
    plan = (await world.plan()).plan
    assert [(r.name, r.reasons) for r in plan.rejections] == [
        (
            world.bench.name("SHOP"),
            (f"the name {world.bench.name('shop')} belongs to service id-1; Swarm ignores case in names",),
        )
    ]
    assert len(await world.apply()) >= 1
    await settled(world)


async def test_a_foreign_service_in_another_case(world: Records) -> None:
    """A service that somebody else made is left alone, however its name is written."""
    await world.bench.create({**world.bench.spec("shop"), "Mode": {"Replicated": {"Replicas": 0}}})
    world.write(world.service("SHOP"))
    (rejection,) = (await world.plan()).plan.rejections
    assert rejection.reasons == (
        (
            f"a service named {world.bench.name('shop')} exists already and was not made by coreflow: "
            "it is left alone; Swarm ignores case in names"
        ),
    )


async def test_a_service_of_another_cluster(world: Records) -> None:
    """It is called that."""
    labels = naming.ownership("elsewhere", "id-1")
    spec = {**world.bench.spec("shop"), "Labels": labels, "Mode": {"Replicated": {"Replicas": 0}}}
    await world.bench.create(spec)
    world.write(world.service("shop"))
    (rejection,) = (await world.plan()).plan.rejections
    assert rejection.reasons == (
        (
            f"a service named {world.bench.name('shop')} exists already and belongs to the coreflow cluster elsewhere: "
            "it is left alone"
        ),
    )


async def test_a_renaming_in_case_only(world: Records) -> None:
    """The service is made anew under the new name, with the secret that it has, and that is the end of it."""
    world.write(world.service("shop", "id-1", secretBundleId="b"), **secrets("one"))
    await world.apply()
    before = await world.secret_names()
    world.write(world.service("SHOP", "id-1", secretBundleId="b"), **secrets("one"))
    name = world.bench.name("shop")
    assert await world.apply() == [f"recreate {name}: renamed from {name}; Swarm ignores case in names"]
    assert (await world.live("SHOP"))["Spec"]["Name"] == world.bench.name("SHOP")
    await settled(world)
    assert await world.secret_names() == before
    world.write(world.service("SHOP", "id-1", secretBundleId="b"), **secrets("two"))
    await world.apply()
    await settled(world)


async def test_a_name_that_was_taken_from_somebody_else(world: Records) -> None:
    """A record that takes the name of another's live service, in another case, waits until it is free."""
    world.write(world.service("shop", "id-1"))
    await world.apply()
    world.write(world.service("other", "id-1"), world.service("SHOP", "id-2"))
    (rejection,) = (await world.plan()).plan.rejections
    assert "belongs to id-1" in rejection.reasons[0]
    for _ in range(3):
        await world.apply()
    await settled(world)
    assert (await world.live("SHOP"))["Spec"]["Labels"][naming.OWNER] == "id-2"


# paths


def with_volume(world: Records, path: str, **volume: Any) -> Json:
    """A service with a volume at a path."""
    return world.service("db", volumes=[{"mountPath": path, "driver": "local", **volume}])


@pytest.mark.parametrize("path", ["/var/lib/data/", "//var/lib/./data", "/var/x/../lib/data"])
async def test_a_path_has_one_spelling(world: Records, path: str) -> None:
    """However a path is written, the volume is the same, and nothing changes."""
    world.write(with_volume(world, "/var/lib/data"))
    await world.apply()
    before = await world.live("db")
    assert mounts(before) == [("/var/lib/data", naming.volume_name("id-db", "/var/lib/data"))]
    world.write(with_volume(world, path))
    assert await world.apply() == []
    assert await world.live("db") == before


async def of_old(world: Records, path: str) -> Json:
    """A service as a coreflow made it that did not know that paths have several spellings."""
    world.write(with_volume(world, "/place"))
    await world.apply()
    live = await world.live("db")
    text = path
    volume = naming.volume_name("id-db", path)

    def change(spec: Json) -> None:
        (mount,) = spec["TaskTemplate"]["ContainerSpec"]["Mounts"]
        mount.update(Source=volume, Target=text)
        mount["VolumeOptions"]["Labels"]["serve.zone.mountPath"] = text

    await world.bench.update(live["ID"], change)
    world.write(with_volume(world, path))
    await world.apply()  # the label of its intent
    return await world.live("db")


@pytest.mark.parametrize("path", ["/data/", "//data", "/data/../data"])
async def test_a_volume_of_old_keeps_its_name(world: Records, path: str) -> None:
    """A volume that is named after another spelling stays in use, whichever spelling the record has now."""
    before = await of_old(world, path)
    assert mounts(before) == [(path, naming.volume_name("id-db", path))]
    await settled(world)
    for other in ("/data", "/data/", "/./data"):
        world.write(with_volume(world, other))
        assert await world.apply() == []
    assert await world.live("db") == before


async def test_a_volume_of_old_is_kept_over_a_renaming(world: Records) -> None:
    """Also where the service is made anew under another name."""
    before = await of_old(world, "/data/")
    world.write(world.service("database", "id-db", volumes=[{"mountPath": "/data", "driver": "local"}]))
    await world.apply()
    assert mounts(await world.live("database")) == mounts(before)
    await settled(world)


async def test_a_path_that_somebody_respelt_by_hand(world: Records) -> None:
    """What coreflow did not write is put right: the volume keeps the name that has the data."""
    world.write(with_volume(world, "/data"))
    await world.apply()
    before = await world.live("db")

    def change(spec: Json) -> None:
        spec["TaskTemplate"]["ContainerSpec"]["Mounts"][0]["Target"] = "/data/"

    await world.bench.update(before["ID"], change)
    await world.apply()
    assert mounts(await world.live("db")) == mounts(before)


async def test_directories_of_the_node_have_one_spelling(world: Records) -> None:
    """Both sides of a bind mount."""
    bind = [{"hostFsPath": "/tmp//x/..", "containerFsPath": "/host/"}]
    world.write(world.service("db", resources={"volumeMounts": bind}))
    await world.apply()
    assert mounts(await world.live("db")) == [("/host", "/tmp")]
    bind[0] = {"hostFsPath": "/tmp/", "containerFsPath": "//host"}
    world.write(world.service("db", resources={"volumeMounts": bind}))
    assert await world.apply() == []


# values


async def test_braces_arrive(world: Records) -> None:
    """Braces in a value, a path and an option arrive as they are written, and are read back as that."""
    values = {"A": "{{ .Summary }} is down", "B": "{{.Service.Name}}", "C": 'a{{"{{"}}b', "D": "{{{"}
    volume = {"mountPath": "/x{{y", "driver": "local"}
    world.write(world.service("web", scaleFactor=1, environment=values, volumes=[volume]))
    await world.apply()
    await settled(world)
    bench, identity = world.bench, (await world.live("web"))["ID"]
    (task_id,) = await bench.eventually(lambda: bench.runs(identity))
    if bench.memory is not None:
        container = bench.memory.container(task_id)
        env, targets = container["Env"], [mount["Target"] for mount in container["Mounts"]]
    else:
        (task,) = await bench.running(identity)
        inside = task["Status"]["ContainerStatus"]["ContainerID"]
        found = await bench._real("GET", f"/containers/{inside}/json")
        env, targets = found["Config"]["Env"], [mount["Destination"] for mount in found["Mounts"]]
    assert {f"{key}={value}" for key, value in values.items()} <= set(env)
    assert targets == ["/x{{y"]


async def test_what_swarm_expanded_becomes_literal_once(world: Records) -> None:
    """A service of a coreflow that sent braces as they are is changed once, and the reason says so."""
    world.write(world.service("web", environment={"A": "{{.Service.Name}}", "B": 'x{{"{{"}}y'}))
    await world.apply()

    def change(spec: Json) -> None:
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["A={{.Service.Name}}", 'B=x{{"{{"}}y']

    await world.bench.update((await world.live("web"))["ID"], change)
    world.renew()
    name = world.bench.name("web")
    assert await world.apply() == [
        f"update {name}: becomes literal text: env B, env A (a template of Swarm's)"
    ]
    await settled(world)
