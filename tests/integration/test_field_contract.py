"""What an engine makes of each field of a service: refused at once, refused by the node, expanded, or taken as it is.

`domain/services.py`, `health.py`, `volumes.py` and `templates.py` build on these facts.
"""

from typing import Any

import pytest
from tests.integration.engine_bench import GOOD, SECOND, Bench, Json
from tests.integration.engines import another_engine
from tests.integration.test_engine_contract import idle, mounted, refused, secret

from coreflow.adapters.engine.client import open_engine
from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.adapters.memory import MemoryEngine

MAX = 2**63 - 1


def with_container(bench: Bench, short: str = "a", **container: Any) -> Json:
    """A spec of one task that is not tried again."""
    spec = bench.spec(short, **container)
    spec["TaskTemplate"]["RestartPolicy"] = {"Condition": "none"}
    return spec


def volume(**members: Any) -> Json:
    """A mount of a volume."""
    return {"Type": "volume", "Source": "field-contract", "Target": "/d", **members}


def driver(**options: str) -> Json:
    """The options of a volume of Docker's own driver."""
    return {"DriverConfig": {"Name": "local", "Options": options}}


# refused at once


@pytest.mark.parametrize(
    ("container", "text"),
    [
        ({"Env": ["A={{.Summary}}"]}, 'expanding env failed: expanding env "A={{.Summary}}": template'),
        ({"Env": ["A={{"]}, "expanding env failed"),
        ({"Env": ["A={{ nothing }}"]}, "expanding env failed"),
        ({"Mounts": [volume(Source="v{{.Bad}}")]}, "expanding mounts failed: expanding mount source"),
        ({"Mounts": [volume(Target="/d{{.Bad}}")]}, "expanding mounts failed: expanding mount target"),
        ({"Mounts": [volume(VolumeOptions=driver(a="{{.Bad}}"))]}, "expanding mounts failed: expanding volume driver config"),
        ({"Mounts": [volume(VolumeOptions={"Labels": {"a": "{{.Bad}}"}})]}, "expanding mounts failed: expanding volume labels"),
        ({"Hostname": "{{.Bad}}"}, "expanding hostname failed"),
        ({"Healthcheck": {"Test": ["CMD", "a"], "Retries": -1}}, "Retries in HealthConfig cannot be negative"),
        ({"Healthcheck": {"Test": ["CMD", "a"], "Retries": 2**31}}, "Retries in HealthConfig cannot be negative"),
        ({"Healthcheck": {"Test": ["CMD", "a"], "Interval": 999_999}}, "Interval in HealthConfig cannot be less than 1ms"),
        ({"Healthcheck": {"Test": ["CMD", "a"], "Timeout": -1}}, "Timeout in HealthConfig cannot be less than 1ms"),
        ({"Healthcheck": {"Test": ["CMD", "a"], "StartPeriod": 1}}, "StartPeriod in HealthConfig cannot be less than 1ms"),
        ({"Healthcheck": {"Test": ["CMD", "a"], "Interval": MAX + 1}}, "cannot unmarshal number"),
    ],
)  # fmt: skip
async def test_containers_that_are_refused(bench: Bench, container: Json, text: str) -> None:
    """What Swarm cannot expand, and times and numbers that it cannot hold, are status 400."""
    with refused(400, text):
        await bench.create(idle(bench, **container))


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"Limits": {"NanoCPUs": 999_999}}, "Must be at least 0.001"),
        ({"Limits": {"NanoCPUs": -1}}, "Must be at least 0.001"),
        ({"Reservations": {"NanoCPUs": 1}}, "Must be at least 0.001"),
        ({"Reservations": {"MemoryBytes": 1}}, "Must be at least 4MiB"),
        ({"Limits": {"MemoryBytes": -1}}, "Must be at least 4MiB"),
        ({"Limits": {"MemoryBytes": MAX + 1}}, "cannot unmarshal number"),
        ({"Limits": {"NanoCPUs": MAX + 1}}, "cannot unmarshal number"),
    ],
)
async def test_resources_that_are_refused(bench: Bench, resources: Json, text: str) -> None:
    """Too little and beyond 64 bits is status 400."""
    spec = idle(bench)
    spec["TaskTemplate"]["Resources"] = resources
    with refused(400, text):
        await bench.create(spec)


@pytest.mark.parametrize("replicas", [-1, 2**64])
async def test_replicas_that_are_refused(bench: Bench, replicas: int) -> None:
    """The number of tasks has 64 bits and no sign."""
    spec = {**idle(bench), "Mode": {"Replicated": {"Replicas": replicas}}}
    with refused(400, "cannot unmarshal number"):
        await bench.create(spec)


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        ("node.id==", "value '' is invalid"),
        ("node.id=={{.Bad}}", "value '{{.Bad}}' is invalid"),
        ("node.id==é", "value 'é' is invalid"),
        ("nonsense", "expected one operator"),
        ("", "expected one operator"),
    ],
)
async def test_constraints_that_are_refused(bench: Bench, constraint: str, text: str) -> None:
    """A constraint that is none is status 500."""
    spec = idle(bench)
    spec["TaskTemplate"]["Placement"] = {"Constraints": [constraint]}
    with refused(500, text):
        await bench.create(spec)


@pytest.mark.parametrize(
    "container",
    [
        {"Env": ["{{.Bad}}=1", "=1", "", "A", "A=1", "A=2", "A\nB=\0", "Ä=ü😀"]},
        {"Mounts": [volume(Target="d"), volume(Target="/"), volume(Target="/a\0"), volume(Source="/x", Target="/x")]},
        {"Mounts": [volume(VolumeOptions=driver(**{"{{.Bad}}": "x"})), volume(Target="/d/")]},
        {"Command": ["{{.Bad}}"], "Args": ["{{.Bad}}"], "Labels": {"a": "{{.Bad}}"}},
        *({"Healthcheck": {"Test": test}} for test in ([], [""], ["CMD"], ["CMD-SHELL"], ["NONE", "x"], ["x"], ["CMD", "{{.Bad}}"])),
        {"Healthcheck": {"Test": ["CMD", "a"], "Retries": 2**31 - 1, "Interval": MAX, "Timeout": MAX, "StartPeriod": MAX}},
    ],
)  # fmt: skip
async def test_containers_that_are_taken(bench: Bench, container: Json) -> None:
    """Swarm itself looks at little, and keeps it as it was sent."""
    live = await bench.live(await bench.create(idle(bench, **container)))
    kept = live["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert {key: kept[key] for key in container if key != "Healthcheck"} == {
        key: value for key, value in container.items() if key != "Healthcheck"
    }


async def test_retries_wrap_around(bench: Bench) -> None:
    """Swarm keeps 32 bits of the retries of a health check."""
    check = {"Test": ["CMD", "a"], "Retries": 2**32 + 3}
    live = await bench.live(await bench.create(idle(bench, Healthcheck=check)))
    assert live["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["Retries"] == 3


# sizes


def large(size: int) -> list[str]:
    """Variables of so many bytes in all."""
    return [f"A{number:03d}=" + "x" * 9_995 for number in range(size // 10_000)]


async def test_a_service_of_four_megabytes_is_refused(bench: Bench) -> None:
    """A request has less than 4 MiB."""
    with refused(500, "grpc: received message larger than max"):
        await bench.create(idle(bench, Env=large(4_300_000)))


async def test_a_service_of_two_megabytes_is_refused(bench: Bench) -> None:
    """A change that Swarm writes down has at most 1.5 MiB."""
    with refused(500, "raft: raft message is too large and can't be sent"):
        await bench.create(idle(bench, Env=large(2_000_000)))


async def test_two_specs_have_to_fit(bench: Bench) -> None:
    """An update is written down with the previous spec: 700 KB can be changed, 800 KB can be made and never be changed."""
    fine = await bench.create(idle(bench, Env=large(700_000)))
    await bench.update(fine, lambda spec: spec["Labels"].update(a="1"))
    stuck = await bench.create(idle(bench, "b", Env=large(800_000)))
    with refused(500, "raft: raft message is too large and can't be sent"):
        await bench.update(stuck, lambda spec: spec["Labels"].update(a="1"))


# names


async def test_service_names_have_no_case(bench: Bench) -> None:
    """A name that differs in case only is taken; by another spelling a service is not found."""
    await bench.create(idle(bench))
    with refused(409, "name conflicts with an existing object"):
        await bench.create(idle(bench, "A"))
    with refused(404, "not found"):
        await bench.live(bench.name("A"))


async def test_secret_names_have_no_case(bench: Bench) -> None:
    """A name that differs in case only is taken."""
    await secret(bench)
    with refused(409, "already exists"):
        await secret(bench, "S")


async def test_network_names_have_no_case(bench: Bench) -> None:
    """A name that differs in case only is a conflict of another kind."""
    await bench.engine.create_network({"Name": bench.name("n"), "Driver": "overlay"})
    with refused(500, "name conflicts with an existing object"):
        await bench.engine.create_network({"Name": bench.name("N"), "Driver": "overlay"})


async def test_a_case_is_not_changed_in_place_but_anew(bench: Bench) -> None:
    """A service is renamed in case only by removing it and making it again, which works at once."""
    identity = await bench.create(idle(bench))
    with refused(501, "renaming services is not supported"):
        await bench.update(identity, lambda spec: spec.update(Name=bench.name("A")))
    await bench.engine.remove_service(identity)
    await bench.create(idle(bench, "A"))


# what nodes make of it

WONT_START: list[tuple[Json, str, str]] = [
    ({"Env": ["=1"]}, "rejected", "invalid environment variable: =1"),
    ({"Env": [""]}, "rejected", "invalid environment variable"),
    ({"Env": ["A=\0"]}, "failed", "environment variable value can't contain null"),
    ({"Env": ["A=" + "x" * (131072 - 2)]}, "failed", "non-zero exit (1)"),
    ({"Mounts": [volume(Target="d")]}, "rejected", "invalid mount target, must be an absolute path"),
    ({"Mounts": [volume(Target="/")]}, "rejected", "destination can't be '/'"),
    ({"Mounts": [volume(Target="/a\0")]}, "rejected", "invalid argument"),
    ({"Mounts": [volume(Target="/" + "a" * 256)]}, "rejected", "file name too long"),
    ({"Mounts": [volume(Target="/proc/x")]}, "failed", "cannot be mounted"),
    ({"Mounts": [volume(Target="/proc")]}, "failed", "cannot be mounted"),
    ({"Mounts": [volume(Target="/etc/hosts")]}, "failed or rejected", ""),  # by what the volume holds already
    ({"Mounts": [volume(Target="/etc/hosts/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Target="/.dockerenv/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Target="/dev/null")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Target="/dev/null/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Target="/dev/ptmx")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Target="/dev/ptmx/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Target="/dev/pts/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Target="/dev/mqueue/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Type="bind", Source="/tmp", Target="/etc/hosts/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Type="bind", Source="/tmp", Target="/dev/null/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Type="bind", Source="/tmp", Target="/dev/ptmx/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(Type="bind", Source="/tmp", Target="/dev/pts/x")]}, "failed or rejected", ""),
    ({"Mounts": [volume(), volume(Target="/d/")]}, "rejected", "Duplicate mount point: /d/"),
    ({"Mounts": [volume(Source="/abs")]}, "rejected", "must not be an absolute path"),
    ({"Mounts": [volume(Source="a b")]}, "rejected", "includes invalid characters"),
    ({"Mounts": [volume(Source="a")]}, "rejected", "volume name is too short"),
    ({"Mounts": [volume(Source="a" * 256)]}, "rejected", "file name too long"),
    ({"Mounts": [volume(Type="bind", Source="a")]}, "rejected", "must be an absolute path"),
    ({"Mounts": [volume(Source="fields-o1", VolumeOptions=driver(a="b"))]}, "rejected", 'invalid option: "a"'),
    ({"Mounts": [volume(Source="fields-o2", VolumeOptions=driver(type="tmpfs"))]}, "rejected", 'missing required option: "device"'),
    ({"Mounts": [volume(Source="fields-o3", VolumeOptions=driver(device="/x"))]}, "rejected", 'missing required option: "type"'),
]  # fmt: skip


@pytest.mark.parametrize("kind", range(4))
async def test_containers_that_no_node_starts(bench: Bench, kind: int) -> None:
    """What Swarm takes and a node does not: the task ends with the reason."""

    async def one(short: str, case: tuple[Json, str, str]) -> None:
        container, state, text = case
        identity = await bench.create(with_container(bench, short, **container))
        task = await bench.task_in(identity, "rejected", "failed")  # some run for a moment
        assert task["Status"]["State"] in state, container
        assert text in task["Status"]["Err"]

    await bench.together(one, *WONT_START[kind::4])


async def test_a_secret_needs_a_place(bench: Bench) -> None:
    """A volume that is read-only leaves no room for a file below it; one that is not does."""
    secrets = mounted(bench, await secret(bench))

    async def one(short: str, case: tuple[str, bool, str]) -> None:
        target, sealed, state = case
        mounts = [volume(Source=f"fields-{short}", Target=target, ReadOnly=sealed)]
        identity = await bench.create(with_container(bench, short, Mounts=mounts, Secrets=secrets))
        await bench.task_in(identity, state)

    await bench.together(
        one,
        ("/run", True, "failed"),
        ("/run/secrets", True, "failed"),
        ("/run", False, "running"),
        ("/run/other", True, "running"),
    )


async def test_resources_that_no_node_starts(bench: Bench) -> None:
    """The kernel takes 0.01 CPU and more, the daemon 6 MiB, and no more CPUs than there are."""

    async def one(short: str, case: tuple[Json, str]) -> None:
        limits, text = case
        spec = with_container(bench, short)
        spec["TaskTemplate"]["Resources"] = {"Limits": limits}
        identity = await bench.create(spec)
        task = await bench.task_in(identity, "rejected", "failed", "running")
        assert text in task["Status"].get("Err", "runs")

    await bench.together(
        one,
        ({"NanoCPUs": 9_999_999}, "invalid argument"),
        ({"NanoCPUs": 10_000_000}, "runs"),
        ({"NanoCPUs": 10**12}, "Range of CPUs is from 0.01 to"),
        ({"MemoryBytes": 6 * 2**20 - 1}, "Minimum memory limit allowed is 6MB"),
        ({"MemoryBytes": MAX}, "runs"),
    )


async def test_nodes_tell_how_many_cpus_they_have(bench: Bench) -> None:
    """In billionths."""
    (node, *_) = await bench.engine.list_nodes()
    assert node["Description"]["Resources"]["NanoCPUs"] >= 1_000_000_000


async def test_more_than_any_node_has_waits(bench: Bench) -> None:
    """A reservation that no node can give leaves the task pending, with a text."""
    spec = with_container(bench)
    spec["TaskTemplate"]["Resources"] = {"Reservations": {"NanoCPUs": 10**12}}
    identity = await bench.create(spec)

    async def error() -> str:
        """What is said of a pending task: it is pending before anything is."""
        tasks = [task for task in await bench.tasks(identity) if task["Status"]["State"] == "pending"]
        return next((str(task["Status"]["Err"]) for task in tasks if task["Status"].get("Err")), "")

    assert "insufficient resources on 1 node" in await bench.eventually(error)


async def test_health_checks(bench: Bench) -> None:
    """Which checks never run, always fail, or say nothing."""

    async def one(short: str, case: tuple[list[str], str]) -> None:
        test, expected = case
        check = {"Test": test, "Interval": SECOND // 2, "Timeout": SECOND, "Retries": 2}
        identity = await bench.create(with_container(bench, short, Healthcheck=check))
        if expected == "starting":
            await bench.pause(6)
        await bench.task_in(identity, expected)

    await bench.together(
        one,
        ([""], "starting"),
        (["x"], "starting"),
        (["", "true"], "starting"),
        (["NONE"], "running"),
        (["CMD-SHELL"], "complete"),
        (["CMD", ""], "complete"),
        (["CMD-SHELL", " "], "running"),
        (["CMD-SHELL", "# x"], "running"),
        (["CMD", "true"], "running"),
    )


async def test_braces_are_expanded_where_swarm_expands(bench: Bench) -> None:
    """Values of variables, sources and targets of mounts; not names, and `{{"{{"}}` gives two braces."""
    name = bench.name("v")
    spec = with_container(
        bench,
        Env=["A={{.Service.Name}}-{{.Task.Slot}}", 'B=a{{"{{"}}b }}', "{{.Bad}}=1"],
        Mounts=[volume(Source="{{.Service.Name}}", Target='/x{{"{{"}}y'), volume(Source=name, Target="/z")],
    )
    identity = await bench.start(spec)
    (task,) = await bench.running(identity)
    if bench.memory is not None:
        container = bench.memory.container(task["ID"])
        env = container["Env"]
        targets = {mount["Target"]: mount["Source"] for mount in container["Mounts"]}
    else:
        inside = task["Status"]["ContainerStatus"]["ContainerID"]
        container = await bench._real("GET", f"/containers/{inside}/json")
        env = container["Config"]["Env"]
        targets = {mount["Destination"]: mount["Name"] for mount in container["Mounts"]}
    assert {f"A={bench.name()}-1", "B=a{{b }}", "{{.Bad}}=1"} <= set(env)
    assert targets == {"/x{{y": bench.name(), "/z": name}


# the worst


async def test_a_check_without_a_program_takes_the_daemon_down_in_memory() -> None:
    """`[CMD]` alone: the first check is the end of the daemon; back again, it is the end once more."""
    memory = MemoryEngine(clock=lambda: 0.0)
    memory.add_image(GOOD)
    bench = Bench(engine=memory, memory=memory)
    await bench.create(bench.spec(Healthcheck={"Test": ["CMD"], "Interval": SECOND}))
    memory.advance(0.4)
    with pytest.raises(EngineUnreachable):
        await memory.list_services()
    memory.revive()
    assert len(await memory.list_services()) == 1
    memory.advance(10)
    with pytest.raises(EngineUnreachable):
        await memory.list_services()


@pytest.mark.engine
async def test_a_check_without_a_program_takes_the_daemon_down(engine_host: str) -> None:
    """The same on a real engine of its own."""
    with another_engine("panic") as variables:
        async with open_engine(variables["COREFLOW_TEST_DOCKER_HOST"]) as engine:
            bench = Bench(engine=engine)
            await bench.create(bench.spec(Healthcheck={"Test": ["CMD"], "Interval": SECOND // 10}))

            async def gone() -> bool:
                try:
                    await engine.list_services()
                except (EngineUnreachable, EngineError):
                    return True
                return False

            await bench.eventually(gone)
