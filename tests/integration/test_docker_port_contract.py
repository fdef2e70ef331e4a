"""What the app takes for granted about the Docker port, over the memory Swarm and over a real engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from tests.integration.engine_bench import (
    EXITS,
    GOOD,
    NEWER,
    NOWHERE,
    PASSWORD,
    SECOND,
    USER,
    Bench,
    Json,
    pieces,
)

from coreflow.adapters.swarm import from_engine
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.domain.errors import LostRace, Refused, Unavailable
from coreflow.domain.ids import ClusterId, Owner
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.actions import Create, MarkFailed, Recreate, Remove, Start, Stop, Update
from coreflow.domain.swarm.images import ImageRequest, ResolvedImage
from coreflow.domain.swarm.observed import (
    ObservedNetwork,
    ObservedSecret,
    ObservedService,
    ObservedTask,
    seconds_of,
)
from coreflow.domain.swarm.specs import (
    Aspect,
    Attachment,
    HealthCheck,
    ImageSpec,
    Limits,
    Mount,
    NetworkSpec,
    PublishedPort,
    RestartPolicy,
    RollPolicy,
    SecretFile,
    SecretSpec,
    ServiceBody,
    ServiceSpec,
    Stage,
    fingerprints,
)

CLUSTER, STAGE = ClusterId("contract"), Stage.WORKLOADS
ROLL = RollPolicy(monitor_ns=SECOND // 2, on_failure="rollback")
ROLLBACK = RollPolicy(monitor_ns=SECOND // 2)
RESTART = RestartPolicy(delay_ns=SECOND // 10)
MEBIBYTE = 1024 * 1024


@define
class Port(SwarmPort):
    """A port on a bench."""

    bench: Bench
    owner: Owner = field(init=False)

    def __attrs_pre_init__(self, bench: Bench) -> None:
        super().__init__(bench.engine)

    def __attrs_post_init__(self) -> None:
        self.owner = Owner(self.bench.name("owner"))

    def spec(self, short: str = "a", *, login: RegistryLogin | None = None, **body: Any) -> ServiceSpec:
        """A service that runs, unless told otherwise."""
        defaults = {
            "image": GOOD,
            "update": ROLL,
            "rollback": ROLLBACK,
            "restart": RESTART,
            "endpoint_mode": "dnsrr",
        }
        return self.of(ServiceBody(**{**defaults, **body}), short, login)

    def idle(self, short: str = "a", **body: Any) -> ServiceSpec:
        """A service without tasks."""
        return self.spec(short, replicas=0, **body)

    def of(self, body: ServiceBody, short: str = "a", login: RegistryLogin | None = None) -> ServiceSpec:
        """A service with this body."""
        return ServiceSpec(
            name=self.bench.name(short),
            cluster=CLUSTER,
            owner=self.owner,
            stage=STAGE,
            body=body,
            fingerprints=fingerprints(body),
            login=login,
            login_hash="hash" if login is not None else "",
        )

    def secret(self, short: str = "s") -> SecretSpec:
        """A secret."""
        return SecretSpec(
            name=self.bench.name(short), cluster=CLUSTER, owner=self.owner, stage=STAGE, payload=b"value"
        )

    def network(self, short: str = "n", subnet: str | None = None) -> NetworkSpec:
        """A network."""
        return NetworkSpec(
            name=self.bench.name(short), cluster=CLUSTER, owner=self.owner, stage=STAGE, subnet=subnet
        )

    def image(self) -> ImageSpec:
        """An image that comes in an archive."""
        reference = f"{self.bench.prefix}/image:1"
        self.bench.images.append(reference)
        return ImageSpec(reference=reference, owner=self.owner, stage=STAGE, image_id="i", version="1")

    async def make(self, spec: ServiceSpec | SecretSpec | NetworkSpec) -> None:
        """Create."""
        await self.apply(Create(spec, "new"))

    async def service(self, short: str = "a") -> ObservedService:
        """One service as observed."""
        (found,) = [s for s in (await self.observe()).services if s.name == self.bench.name(short)]
        return found

    async def seen_secret(self, short: str = "s") -> ObservedSecret:
        """One secret as observed."""
        (found,) = [s for s in (await self.observe()).secrets if s.name == self.bench.name(short)]
        return found

    async def seen_network(self, short: str = "n") -> ObservedNetwork:
        """One network as observed."""
        (found,) = [n for n in (await self.observe()).networks if n.name == self.bench.name(short)]
        return found

    async def ready_network(self, short: str = "n") -> ObservedNetwork:
        """Wait until Swarm has seen to a network; the network then. Until then it is nothing but new."""

        async def look() -> ObservedNetwork | None:
            network = await self.seen_network(short)
            assert network.is_new == (not network.driver)
            assert network.scope == "swarm"
            return None if network.is_new else network

        found = await self.bench.eventually(look)
        assert found is not None
        return found

    async def tasks(self, service: ObservedService) -> list[ObservedTask]:
        """The tasks of a service, by `progress`."""
        return [task for task in (await self.progress())[1] if task.service_id == service.id]

    async def running(self, short: str = "a") -> ObservedTask:
        """Wait for a task of the present spec that runs; that task."""
        service = await self.service(short)

        async def look() -> list[ObservedTask]:
            return [
                task
                for task in await self.tasks(service)
                if (task.state, task.desired_state, task.is_current) == ("running", "running", True)
            ]

        return (await self.bench.eventually(look))[0]

    async def ends(self, short: str, *states: str) -> ObservedService:
        """Wait for the end of a roll-out; the service then."""

        async def look() -> ObservedService | None:
            service = await self.service(short)
            return service if service.update_state in states else None

        found = await self.bench.eventually(look)
        assert found is not None
        return found


def in_upper_case(name: str) -> str:
    """The same name to the engine: only the last letter differs, so that it is cleaned up with the others."""
    return name[:-1] + name[-1].upper()


@pytest.fixture
def port(bench: Bench) -> Port:
    """The port, on one engine after the other."""
    return Port(bench)


# what is seen


BODIES = {
    "small": ServiceBody(image=GOOD, replicas=0),
    "command": ServiceBody(image=GOOD, replicas=0, command=("sh",), args=("-c", "exit")),
    "environment": ServiceBody(image=GOOD, replicas=0, env=("B=2", "A=1", "EMPTY=", "TEXT=ü\n'\"")),
    "volumes": ServiceBody(
        image=GOOD,
        constraints=(NOWHERE,),
        mounts=(
            Mount(type="volume", source="v-w", target="/w"),
            Mount(
                type="volume",
                source="v-v",
                target="/v",
                read_only=True,
                driver="local",
                options={"o": "size=1m", "type": "tmpfs"},
                labels={"backup": "true"},
            ),
        ),
    ),
    "driver": ServiceBody(
        image=GOOD,
        constraints=(NOWHERE,),
        mounts=(Mount(type="volume", source="v-v", target="/v", driver="corestore"),),
    ),
    "directory": ServiceBody(
        image=GOOD,
        replicas=0,
        mounts=(
            Mount(type="bind", source="/tmp", target="/t", read_only=True),
            Mount(type="bind", source="/var", target="/v", propagation="rslave"),
        ),
    ),
    "host port": ServiceBody(
        image=GOOD,
        replicas=0,
        endpoint_mode="dnsrr",
        ports=(PublishedPort(published=38221, target=80, mode="host"),),
    ),
    "ingress ports": ServiceBody(
        image=GOOD,
        replicas=0,
        ports=(
            PublishedPort(published=38222, target=80),
            PublishedPort(published=38223, target=53, protocol="udp"),
        ),
    ),
    "limits": ServiceBody(
        image=GOOD,
        replicas=0,
        limits=Limits(memory_bytes=64 * MEBIBYTE, nano_cpus=SECOND // 2),
        reservations=Limits(memory_bytes=16 * MEBIBYTE),
    ),
    "placement": ServiceBody(
        image=GOOD, replicas=0, constraints=("node.role==manager", "node.id!=none"), max_per_node=2
    ),
    "health check": ServiceBody(
        image=GOOD,
        replicas=0,
        health_check=HealthCheck(
            test=("CMD", "true"), interval_ns=SECOND, timeout_ns=SECOND, start_period_ns=SECOND, retries=2
        ),
    ),
    "half a health check": ServiceBody(
        image=GOOD, replicas=0, health_check=HealthCheck(test=("CMD-SHELL", "true"))
    ),
    "policies": ServiceBody(
        image=GOOD,
        replicas=0,
        restart=RestartPolicy(condition="on-failure", delay_ns=0, max_attempts=2, window_ns=SECOND),
        update=RollPolicy(
            parallelism=0, delay_ns=SECOND, on_failure="rollback", max_failure_ratio=0.25, order="start-first"
        ),
        rollback=RollPolicy(parallelism=3, on_failure="continue", monitor_ns=SECOND),
    ),
    "global": ServiceBody(image=GOOD, replicas=None, constraints=(NOWHERE,)),
    "digest": ServiceBody(image=f"{GOOD}@sha256:{'0' * 64}", replicas=0),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_is_seen_as_it_was_sent(port: Port, body: ServiceBody) -> None:
    """Whatever is sent comes back as the same body, with the fingerprints that it was given, and stays so."""
    body = evolve(body, mounts=tuple(evolve(m, source=_own(port, m)) for m in body.mounts))
    spec = port.of(body)
    await port.make(spec)
    seen = await port.service()
    assert seen.body == body
    assert seen.fingerprints == spec.fingerprints
    assert seen.intent == spec.fingerprints.whole

    async def updated() -> bool:
        try:
            await port.apply(Update(spec, await port.service(), "again"))
        except LostRace:  # Swarm writes to a new service when it has found addresses for it
            return False
        return True

    await port.bench.eventually(updated)
    assert (await port.service()).body == body


def _own(port: Port, mount: Mount) -> str:
    return port.bench.name(mount.source) if mount.type == "volume" else mount.source


async def test_secrets_and_networks_of_a_service_are_seen_by_name(port: Port) -> None:
    """The engine wants ids, a body has names."""
    await port.make(port.network("m"))
    await port.make(port.network("n"))
    await port.make(port.secret())
    await port.observe()
    spec = port.idle(
        secrets=(SecretFile(port.bench.name("s")), SecretFile(port.bench.name("s"), "b", "1", "2", 0o400)),
        networks=(Attachment(port.bench.name("n"), ("z", "a")), Attachment(port.bench.name("m"))),
    )
    await port.make(spec)
    seen = await port.service()
    assert seen.body == spec.body
    assert seen.fingerprints == spec.fingerprints


async def test_a_service_says_whose_it_is(port: Port) -> None:
    """Our labels tell owner, cluster, intent, aspects, image and login of a service."""
    login = RegistryLogin(username=USER, password=PASSWORD, serveraddress=port.bench.registry)
    spec = port.spec(login=login, replicas=0)
    await port.make(spec)
    seen = await port.service()
    assert seen.owner == port.owner
    assert naming.is_ours(seen.labels, CLUSTER)
    assert seen.labels[naming.IMAGE] == GOOD
    assert seen.labels[naming.LOGIN] == "hash"
    for aspect in Aspect:
        assert seen.labels[naming.aspect_label(aspect.value)] == spec.fingerprints.aspect(aspect)


async def test_secrets_and_networks_say_whose_they_are(port: Port) -> None:
    """Labels of a secret and of a network are like those of a service; a network has what was asked for."""
    await port.make(port.secret())
    await port.make(port.network(subnet="10.231.246.0/24"))
    network = await port.ready_network()
    secret = await port.seen_secret()
    assert secret.labels == naming.ownership(CLUSTER, port.owner)
    assert secret.owner == port.owner
    assert network == ObservedNetwork(
        id=network.id,
        name=network.name,
        driver="overlay",
        scope="swarm",
        attachable=True,
        subnets=("10.231.246.0/24",),
        labels=naming.ownership(CLUSTER, port.owner),
    )


async def test_a_network_is_new_until_swarm_has_seen_to_it(port: Port) -> None:
    """For a moment a network is listed without driver and subnets: services can join it already, and have it in the end."""
    if port.bench.memory is not None:
        port.bench.memory.network_seconds = 1.0
    await port.make(port.network(subnet="10.231.244.0/24"))
    await port.make(port.idle(networks=(Attachment(port.bench.name("n")),)))
    network = await port.ready_network()
    assert (network.driver, network.subnets) == ("overlay", ("10.231.244.0/24",))
    assert [attachment.network for attachment in (await port.service()).body.networks] == [network.name]


async def test_a_network_without_addresses_is_new_for_a_while_only(port: Port) -> None:
    """One whose range is taken looks like a new one for ever: its age, by the engine's clock, tells them apart."""
    await port.make(port.network("n", subnet="10.231.243.0/24"))
    await port.ready_network()
    await port.make(port.network("m", subnet="10.231.243.0/24"))
    assert (await port.seen_network("m")).is_new
    (document,) = [n for n in await port.bench.engine.list_networks() if n["Name"] == port.bench.name("m")]
    # from when it was made: a clock in whole seconds may say less than that
    later = from_engine.observed_network(document, seconds_of(document["Created"]) + from_engine.NEW_SECONDS)
    assert (later.is_new, later.driver, later.subnets) == (False, "", ())


async def test_the_name_of_a_removed_network_is_free_once_its_containers_have_ended(port: Port) -> None:
    """Until then the engine lists the old one, and may say that the name is taken: that is no reason to give up.

    26.1 refuses the name until the last container has ended, 20.10 mostly takes it at once.
    """
    if port.bench.memory is not None:
        port.bench.memory.stop_seconds = 3.0
    await port.make(port.network())
    network = await port.ready_network()
    stubborn = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    await port.make(port.spec(command=stubborn, networks=(Attachment(network.name),)))
    await port.running()
    await port.apply(Remove(await port.service(), STAGE, "no longer wanted"))
    await port.bench.remove_network(network.id)

    async def make() -> bool:
        await port.observe()
        try:
            await port.make(port.network())
        except (Unavailable, LostRace):
            return False
        return True

    assert await port.bench.eventually(make)
    assert (await port.ready_network()).id != network.id


async def test_the_nodes_are_seen(port: Port) -> None:
    """Every node has a name, a role, an address and the volume driver `local`; alone, it needs no own id."""
    observed = await port.observe()
    (node,) = observed.nodes
    assert (node.state, node.availability, node.role) == ("ready", "active", "manager")
    assert node.hostname
    assert node.address
    assert "local" in node.volume_plugins
    assert observed.own_node is None


async def test_a_task_is_seen(port: Port) -> None:
    """A task has its image, its node, its slot, and addresses by the names of networks, without a prefix length."""
    await port.make(port.network(subnet="10.231.247.0/24"))
    await port.observe()
    await port.make(port.spec(networks=(Attachment(port.bench.name("n")),)))
    task = await port.running()
    assert (task.image, task.slot, task.error, task.template) == (GOOD, 1, "", None)
    assert task.node_id == (await port.observe()).nodes[0].id
    address = task.addresses[port.bench.name("n")]
    assert address.startswith("10.231.247.")
    assert "/" not in address


async def test_the_version_is_known(port: Port) -> None:
    """The engine has a version, and its API has one."""
    engine, api = await port.version()
    assert engine
    assert tuple(map(int, api.split("."))) >= (1, 41)


async def test_somebody_interferes(port: Port) -> None:
    """A change by hand shows in the body, not in the intent; what coreflow never sets shows as well."""
    spec = port.idle()
    await port.make(spec)
    seen = await port.service()

    def change(live: Json) -> None:
        live["TaskTemplate"]["ContainerSpec"]["Hostname"] = "other"
        live["Mode"]["Replicated"]["Replicas"] = 0
        live["TaskTemplate"]["ContainerSpec"]["Env"] = ["A=1"]

    await port.bench.update(seen.id, change)
    after = await port.service()
    assert after.intent == spec.fingerprints.whole != after.fingerprints.whole
    assert after.body.env == ("A=1",)
    assert after.body.other == (("ContainerSpec.Hostname", '"other"'),)
    assert after.version > seen.version


# writes


async def test_an_update_is_seen(port: Port) -> None:
    """A service changes in place; its previous secrets and intent are known."""
    await port.make(port.secret())
    old = port.idle(secrets=(SecretFile(port.bench.name("s")),))
    await port.make(old)
    before = await port.service()
    new = port.idle(image=NEWER)
    await port.apply(Update(new, before, "image"))
    after = await port.service()
    assert after.id == before.id
    assert after.body == new.body
    assert after.intent == new.fingerprints.whole
    assert after.previous_secrets == {port.bench.name("s")}
    assert after.previous_intent == old.fingerprints.whole


async def test_an_update_rolls_out(port: Port) -> None:
    """A change of image ends the old task; only a task of the present spec is current."""
    await port.make(port.spec())
    old = await port.running()
    await port.apply(Update(port.spec(image=NEWER), await port.service(), "image"))
    new = await port.running()
    assert new.image == NEWER
    assert new.id != old.id
    service = await port.ends("a", "completed")
    assert not service.in_roll_out
    assert {task.id: task.is_current for task in await port.tasks(service)} == {
        old.id: False,
        new.id: True,
    }


async def test_another_placement_keeps_a_current_task(port: Port) -> None:
    """A task that may stay where it is counts as one of the present spec."""
    await port.make(port.spec())
    old = await port.running()
    spec = port.spec(constraints=("node.role==manager",), max_per_node=1)
    await port.apply(Update(spec, await port.service(), "placement"))
    assert (await port.running()).id == old.id


async def test_a_failed_update_is_seen(port: Port) -> None:
    """After a roll-back the old intent is back; the template of the failed tasks is that of the refused spec."""
    good, bad = port.spec(), port.spec(image=EXITS, update=evolve(ROLL, monitor_ns=2 * SECOND))
    await port.make(good)
    await port.running()
    await port.apply(Update(bad, await port.service(), "image"))
    started = (await port.ends("a", "updating", "rollback_started")).update_started
    service = await port.ends("a", "rollback_completed")
    assert service.intent == good.fingerprints.whole
    assert service.fingerprints == good.fingerprints
    assert service.previous_intent is None
    assert service.update_started == started
    failed = [task for task in await port.tasks(service) if task.state == "failed"]
    assert failed
    for task in failed:
        assert task.image == EXITS
        assert task.error == "task: non-zero exit (1)"
        assert not task.is_current
        assert task.created_at >= started
    current = await port.running()
    assert current.template is not None
    assert {task.template for task in failed} != {current.template}


async def test_a_mark_restarts_nothing(port: Port) -> None:
    """A service keeps its spec, its tasks and its labels when it is marked; the mark says what failed and why."""
    good, bad = port.spec(), port.spec(image=EXITS)
    await port.make(good)
    task = await port.running()
    before = await port.service()
    await port.apply(MarkFailed(bad, before, "why " * 100))
    await port.bench.pause(0.5)
    after = await port.service()
    assert after.body == before.body
    assert after.labels.items() > before.labels.items()
    assert after.labels[naming.FAILED] == bad.fingerprints.whole
    assert after.labels[naming.FAILED_IMAGE] == EXITS
    assert after.labels[naming.FAILED_REASON] == ("why " * 50)[:200]
    assert not after.update_state
    assert [t.id for t in await port.tasks(after)] == [task.id]


async def test_a_service_stops_and_starts(port: Port) -> None:
    """Its tasks end, and how many it had is noted; it starts as it was, but for new tasks. Started already is done."""
    await port.make(port.spec(replicas=2))
    await port.running()
    before = await port.service()
    await port.apply(Stop(before, "lease 1", "", "why"))
    stopped = await port.service()
    assert (stopped.is_stopped, stopped.lease, stopped.body.replicas) == (True, "lease 1", 0)
    assert stopped.labels[naming.STOPPED] == "2"
    assert not stopped.in_roll_out

    async def is_empty() -> bool:
        return not [t for t in await port.tasks(stopped) if t.state == "running"]

    await port.bench.eventually(is_empty)
    await port.apply(Stop(before, "lease 2", "lease 1", "still"))
    assert (await port.service()).labels[naming.STOPPED] == "2"
    with pytest.raises(LostRace):
        await port.apply(Start(before, "lease 1", "too late"))
    await port.apply(Start(before, "lease 2", "done"))
    after = await port.service()
    assert (after.body, after.labels, after.fingerprints) == (before.body, before.labels, before.fingerprints)
    await port.running()
    await port.apply(Start(before, "lease 2", "done already"))
    assert (await port.service()).version == after.version


async def test_stopping_what_somebody_else_has_stopped_is_a_lost_race(port: Port) -> None:
    """Only who knows the present lease may replace it; one that is started is not stopped for its sake."""
    await port.make(port.idle())
    service = await port.service()
    with pytest.raises(LostRace):
        await port.apply(Stop(service, "mine", "theirs", "why"))
    await port.apply(Stop(service, "theirs", "", "why"))
    for expected in ("", "mine"):
        with pytest.raises(LostRace):
            await port.apply(Stop(service, "mine", expected, "why"))
    assert (await port.service()).lease == "theirs"


async def test_what_is_being_restored_is_not_removed(port: Port) -> None:
    """Nor made anew: a pass that was planned before the stop must not end it."""
    spec = port.idle()
    await port.make(spec)
    service = await port.service()
    await port.apply(Stop(service, "lease", "", "why"))
    for action in (Remove(service, STAGE, "unwanted"), Recreate(spec, service, "mode")):
        with pytest.raises(LostRace):
            await port.apply(action)
    assert (await port.service()).lease == "lease"


async def test_a_global_service_cannot_be_stopped(port: Port) -> None:
    """It has no number of tasks that could be put back."""
    await port.make(port.spec(replicas=None, constraints=(NOWHERE,)))
    with pytest.raises(Refused, match="no number of replicas"):
        await port.apply(Stop(await port.service(), "lease", "", "why"))


async def test_a_service_is_made_anew(port: Port) -> None:
    """Another mode needs another service of the same name, with the same foreign labels."""
    await port.make(port.idle())
    before = await port.service()
    await port.bench.update(before.id, lambda spec: spec["Labels"].update(theirs="1"))
    spec = port.spec(replicas=None, constraints=(NOWHERE,))
    await port.apply(Recreate(spec, await port.service(), "mode"))
    after = await port.service()
    assert after.id != before.id
    assert after.body == spec.body
    assert after.labels["theirs"] == "1"


async def test_what_others_set_survives_an_update(port: Port) -> None:
    """Foreign labels stay, our outdated ones go, and a forced restart is not forced again."""
    await port.make(port.spec())
    await port.running()
    before = await port.service()

    def change(spec: Json) -> None:
        spec["Labels"] |= {"theirs": "1", naming.FAILED: "x"}
        spec["TaskTemplate"]["ForceUpdate"] = 7

    await port.bench.update(before.id, change)
    target = await port.ends("a", "completed")  # which is a write of Swarm's own
    task = await port.running()
    assert target.force_update == 7
    await port.apply(Update(port.spec(rollback=RollPolicy(parallelism=2)), target, "policy"))
    await port.bench.pause(0.5)
    after = await port.service()
    assert after.labels["theirs"] == "1"
    assert naming.FAILED not in after.labels
    assert after.force_update == 7
    assert (await port.running()).id == task.id


async def test_a_lost_race(port: Port) -> None:
    """A write that names an older version changes nothing."""
    await port.make(port.idle())
    stale = await port.service()
    await port.apply(Update(port.idle(image=NEWER), stale, "image"))
    with pytest.raises(LostRace, match="it changed in between"):
        await port.apply(Update(port.idle(), stale, "image"))
    with pytest.raises(LostRace, match="it changed in between"):
        await port.apply(MarkFailed(port.idle(), stale, "why"))
    assert (await port.service()).body.image == NEWER


async def test_what_is_there_already_is_a_lost_race(port: Port) -> None:
    """Somebody made the object in between: look again."""
    for spec in (port.idle(), port.secret(), port.network()):
        await port.make(spec)
        with pytest.raises(LostRace, match="somebody else made one of this name"):
            await port.make(spec)


async def test_a_name_that_was_seen_is_taken_for_good(port: Port) -> None:
    """What was there when we looked is no race: the engine compares names without case, and the refusal shows the other."""
    specs: dict[str, ServiceSpec | SecretSpec | NetworkSpec] = {
        "service": port.idle(),
        "secret": port.secret(),
        "network": port.network(),
    }
    for kind, spec in specs.items():
        await port.make(spec)
        await port.observe()
        with pytest.raises(
            Refused, match=f"creating {kind} {spec.name}: there is another {kind} of this name"
        ):
            await port.make(spec)
        other = evolve(spec, name=in_upper_case(spec.name))
        with pytest.raises(Refused, match=f"{kind} {spec.name}, and Swarm compares names without case"):
            await port.make(other)


async def test_a_name_that_is_taken_unseen_is_refused_the_second_time(port: Port) -> None:
    """A conflict with something that no look shows is a lost race once, and then a refusal."""
    specs: tuple[ServiceSpec | SecretSpec | NetworkSpec, ...] = (port.idle(), port.secret(), port.network())
    for spec in specs:
        await port.make(spec)
        with pytest.raises(LostRace):
            await port.make(spec)
        with pytest.raises(Refused, match="taken, by something that the engine does not list"):
            await port.make(spec)


async def test_a_name_is_free_again_once_its_object_is_removed(port: Port) -> None:
    """A service that is renamed in case only is made after the old one went."""
    await port.make(port.idle())
    old = await port.service()
    await port.apply(Remove(old, STAGE, "unwanted"))
    await port.make(evolve(port.idle(), name=in_upper_case(old.name)))
    assert (await port.service("A")).name == in_upper_case(old.name)


async def test_a_network_that_is_leaving_keeps_nobody_from_being_made_for_good(port: Port) -> None:
    """A removed network keeps its name on the node until its last container has ended: tried again, it can be made."""
    spec = port.network(subnet="10.231.242.0/24")
    await port.make(spec)
    await port.make(port.spec(networks=(Attachment(spec.name),)))
    await port.running()
    old = await port.seen_network()
    await port.apply(Remove(await port.service(), STAGE, "unwanted"))
    await port.bench.remove_network(old.id)

    async def make() -> bool:
        await port.observe()
        try:
            await port.make(spec)
        except (LostRace, Unavailable):
            return False
        return True

    await port.bench.eventually(make)
    networks = [n for n in (await port.observe()).networks if n.name == spec.name and not n.is_remnant]
    assert [network.id == old.id for network in networks] == [False]


async def test_a_network_is_removed_once_nothing_is_on_it(port: Port) -> None:
    """While a service is on it that is refused, and says so; gone already is success."""
    await port.make(port.network())
    network = await port.ready_network()
    await port.make(port.idle(networks=(Attachment(network.name),)))
    with pytest.raises(Refused, match=f"removing network {network.name}: .*is in use by service"):
        await port.apply(Remove(network, STAGE, "unwanted"))
    await port.apply(Remove(await port.service(), STAGE, "unwanted"))
    await port.apply(Remove(network, STAGE, "unwanted"))
    assert all(n.name != network.name or n.is_remnant for n in (await port.observe()).networks)
    await port.apply(Remove(network, STAGE, "unwanted"))


async def test_a_secret_that_vanished_before_its_service_was_made_is_a_lost_race(port: Port) -> None:
    """The engine calls it an invalid argument; it was there when we looked."""
    await port.make(port.secret())
    secret = await port.seen_secret()
    await port.bench.engine.remove_secret(secret.id)
    with pytest.raises(LostRace, match="secret not found"):
        await port.make(port.idle(secrets=(SecretFile(port.bench.name("s")),)))


async def test_what_is_gone_is_a_lost_race(port: Port) -> None:
    """Somebody removed the object in between: look again."""
    await port.make(port.idle())
    gone = await port.service()
    await port.apply(Remove(gone, STAGE, "unwanted"))
    with pytest.raises(LostRace, match="it is gone"):
        await port.apply(Update(port.idle(), gone, "image"))
    with pytest.raises(LostRace, match=r"secret .* is gone"):
        await port.make(port.idle(secrets=(SecretFile(port.bench.name("none")),)))
    with pytest.raises(LostRace, match=r"network .* not found"):
        await port.make(port.idle(networks=(Attachment(port.bench.name("none")),)))


async def test_marking_what_is_gone_is_a_lost_race(port: Port) -> None:
    """A service that vanished before it could be marked: look again."""
    await port.make(port.idle())
    gone = await port.service()
    await port.apply(Remove(gone, STAGE, "unwanted"))
    with pytest.raises(LostRace):
        await port.apply(MarkFailed(port.idle(), gone, "why"))


async def test_removing_twice_is_done(port: Port) -> None:
    """What is gone already counts as removed."""
    await port.make(port.idle())
    await port.make(port.secret())
    for target in (await port.service(), await port.seen_secret()):
        await port.apply(Remove(target, STAGE, "unwanted"))
        await port.apply(Remove(target, STAGE, "unwanted"))
    observed = await port.observe()
    assert port.bench.name() not in {service.name for service in observed.services}
    assert port.bench.name("s") not in {secret.name for secret in observed.secrets}


async def test_a_mounted_secret_stays(port: Port) -> None:
    """A secret that a service has mounted in between is a lost race."""
    await port.make(port.secret())
    await port.make(port.idle(secrets=(SecretFile(port.bench.name("s")),)))
    secret = await port.seen_secret()
    with pytest.raises(LostRace, match="a service mounts it"):
        await port.apply(Remove(secret, STAGE, "unwanted"))


async def test_a_refusal(port: Port) -> None:
    """What the engine cannot accept is refused, and says which object and why."""
    spec = port.idle(limits=Limits(memory_bytes=MEBIBYTE))
    with pytest.raises(Refused, match=f"creating service {spec.name}: .*Must be at least 4MiB"):
        await port.make(spec)


# images


async def test_an_image_of_the_engine_needs_no_registry(port: Port) -> None:
    """An image that only the engine has is resolved to no digest."""
    assert await port.resolve(ImageRequest(GOOD)) == ResolvedImage(None)


async def test_an_image_of_a_registry_has_a_digest(port: Port) -> None:
    """Reference and digest; a reference with a digest keeps it."""
    reference = f"{port.bench.registry}/test:1"
    image = await port.resolve(ImageRequest(reference))
    assert image.digest is not None
    assert image.digest.startswith("sha256:")
    assert await port.resolve(ImageRequest(f"{reference}@{image.digest}")) == image
    assert await port.resolve(ImageRequest(f"{port.bench.registry}/test:2")) != image


async def test_an_image_is_not_there(port: Port) -> None:
    """A registry that has no such image refuses."""
    reference = f"{port.bench.registry}/test:none"
    with pytest.raises(Refused, match=f"image {reference}: not found on {port.bench.registry}"):
        await port.resolve(ImageRequest(reference))


async def test_an_image_needs_a_login(port: Port) -> None:
    """No login and a wrong one are refused, each with its text; the right one resolves."""
    reference = f"{port.bench.private_registry}/private:1"

    def login(password: str) -> RegistryLogin:
        return RegistryLogin(username=USER, password=password, serveraddress=port.bench.private_registry)

    with pytest.raises(Refused, match="a login is needed, or there is no such image"):
        await port.resolve(ImageRequest(reference))
    with pytest.raises(Refused, match="the login is wrong"):
        await port.resolve(ImageRequest(reference, login("wrong-horse")))
    assert (await port.resolve(ImageRequest(reference, login(PASSWORD)))).digest


async def test_a_registry_does_not_answer(port: Port) -> None:
    """Silence is not a no."""
    with pytest.raises(
        Unavailable, match=r"image 127.0.0.1:5999/test:1: 127.0.0.1:5999 does not answer: connection refused"
    ):
        await port.resolve(ImageRequest("127.0.0.1:5999/test:1"))


@define
class Archive:
    """An archive that counts how often it is opened."""

    data: AsyncIterator[bytes]
    opened: int = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open it."""
        self.opened += 1
        yield self.data


@pytest.mark.parametrize(
    ("name", "untagged"), [("test-1.tar", False), ("test-1.tar.gz", False), ("test-1.tar", True)]
)
async def test_an_archive_is_loaded_once(port: Port, name: str, *, untagged: bool) -> None:
    """The image gets the name that the spec says; an image that is there is not loaded again."""
    spec = port.image()
    assert not await port.has_image(spec.reference)
    archive = Archive(port.bench.archive(name, untagged=untagged))
    await port.load(spec, archive.open())
    assert await port.has_image(spec.reference)
    assert await port.resolve(ImageRequest(spec.reference)) == ResolvedImage(None)
    await port.load(spec, archive.open())
    assert archive.opened == 1


async def test_a_broken_archive_is_refused(port: Port) -> None:
    """Garbage is refused, and so is an archive with several images."""
    spec = port.image()
    with pytest.raises(Refused, match=f"loading image {spec.reference}: .*tar"):
        await port.load(spec, Archive(pieces(b"garbage" * 1000)).open())
    others = [f"{port.bench.prefix}:{number}" for number in (1, 2)]
    port.bench.images += others
    with pytest.raises(Refused, match="its archive holds 2 images, expected one"):
        await port.load(spec, Archive(port.bench.archive("test-1.tar", *others)).open())
    assert not await port.has_image(spec.reference)


# changes


async def test_changes_wake(port: Port) -> None:
    """Something comes after a write."""
    with trio.fail_after(10):
        async with port.changes() as changes:
            await port.make(port.secret())
            await anext(changes)
            await port.make(port.idle())
            await anext(changes)


async def test_what_others_do_does_not_wake(port: Port) -> None:
    """A service that somebody makes may have our name; its containers, and whatever else becomes of it, are nothing to us."""
    with trio.fail_after(60):
        async with port.changes() as changes:
            identity = await port.bench.start(port.bench.spec())
            assert (await anext(changes)).startswith("service ")
            assert await port.bench.running(identity)
            await port.bench.update(identity, lambda spec: spec["Labels"].update(a="1"))
            await port.make(port.secret())
            assert (await anext(changes)).startswith("secret ")


async def test_what_ours_do_wakes(port: Port) -> None:
    """A task of a service of ours that starts, and a change of the service, are changes of the same subject."""
    with trio.fail_after(60):
        async with port.changes() as changes:
            await port.make(port.spec())
            await anext(changes)
            identity = (await port.service()).id

            async def runs() -> bool:
                return bool(await port.bench.running(identity))

            assert await port.bench.eventually(runs)
            assert await anext(changes) == f"service {identity}"


async def test_images_are_listed_by_each_name_and_removed_by_it(port: Port) -> None:
    """A name goes, and the image with its last one; a name that is gone already counts as removed."""
    spec = port.image()
    await port.load(spec, Archive(port.bench.archive("test-1.tar")).open())
    other = f"{port.bench.prefix}/image:2"
    port.bench.images.append(other)
    await port.bench.engine.tag_image(spec.reference, f"{port.bench.prefix}/image", "2")
    found = {image.reference: image for image in await port.images()}
    assert found[spec.reference].id == found[other].id
    assert found[spec.reference].size > 0
    for _ in range(2):
        await port.remove_image(other)
    assert not await port.has_image(other)
    assert await port.has_image(spec.reference)
    await port.remove_image(spec.reference)
    assert not {spec.reference, other} & {image.reference for image in await port.images()}


async def test_an_image_in_use_is_told_and_its_last_name_stays(port: Port) -> None:
    """A container is made from it: that is seen, and its last name is refused to go."""
    await port.make(port.spec())
    await port.running()
    (image,) = [image for image in await port.images() if image.reference == GOOD]
    assert image.in_use
    document = await port.bench.engine.inspect_image(GOOD)
    if document["RepoTags"] != [GOOD] or document["RepoDigests"]:
        return  # another test has left it a second name: then it would not be refused
    try:
        with pytest.raises(Refused, match=f"removing image {GOOD}: a container is made from it"):
            await port.remove_image(GOOD)
    finally:  # other tests need it
        name, _, tag = GOOD.partition(":")
        await port.bench.engine.tag_image(image.id, name, tag)
