"""From any world, through any meddling and any faults, passes end in the desired world, and the next writes nothing."""

from typing import Any

import trio
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.effort import examples
from tests.unit.app.worlds import BAD, GOOD, MISSING, NEWER, Json, World, cluster, new_engine, play, service

from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.adapters.memory import Fault, MemoryCloudly
from coreflow.domain.errors import PortError

NAMES = ("a", "b", "c", "d")
LISTS = ("list_services", "list_tasks", "list_secrets", "list_networks", "list_nodes")


@frozen
class Wish:
    """One record, as a draw."""

    name: str
    image: str
    replicas: int
    secret: str | None
    variable: str | None
    volume: bool
    renamed: bool

    def record(self) -> Json:
        data: dict[str, Any] = {"scaleFactor": self.replicas}
        if self.secret is not None:
            data["secretBundleId"] = f"bundle-{self.secret}"
        if self.variable is not None:
            data["environment"] = {"VARIABLE": self.variable}
        if self.volume:
            data["volumes"] = [{"mountPath": "/data", "driver": "local"}]
        name = f"{self.name}-new" if self.renamed else self.name
        return service(name, self.image, identity=f"id-{self.name}", **data)


def wishes(images: tuple[str, ...]) -> st.SearchStrategy[list[Wish]]:
    wish = st.builds(
        Wish,
        name=st.sampled_from(NAMES),
        image=st.sampled_from(images),
        replicas=st.integers(0, 3),
        secret=st.sampled_from([None, "x", "y"]),
        variable=st.sampled_from([None, "1", "2"]),
        volume=st.booleans(),
        renamed=st.booleans(),
    )
    return st.lists(wish, max_size=4, unique_by=lambda w: w.name)


def document(wanted: list[Wish]) -> Json:
    secrets = {"bundle-x": "value of x", "bundle-y": "value of y"}
    return cluster(*(wish.record() for wish in wanted), secrets=secrets)


def _env(spec: Json) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["MEDDLED=1"]


def _scale(spec: Json) -> None:
    spec["Mode"] = {"Replicated": {"Replicas": 4}}


def _image(spec: Json) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = NEWER


def _broken(spec: Json) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = BAD


def _secret(spec: Json) -> None:
    spec["TaskTemplate"]["ContainerSpec"].pop("Secrets", None)


def _dns(spec: Json) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["DNSConfig"] = {"Nameservers": ["192.0.2.53"]}


MEDDLING = (_env, _scale, _image, _broken, _secret, _dns)
events = st.one_of(
    st.tuples(st.just("records"), wishes((GOOD, NEWER))),
    st.tuples(st.just("records"), wishes((GOOD, NEWER, BAD, MISSING))),
    st.tuples(st.just("records unseen"), wishes((GOOD, NEWER, BAD, MISSING))),
    st.tuples(st.just("meddle"), st.tuples(st.sampled_from(NAMES), st.sampled_from(MEDDLING))),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("roll back"), st.sampled_from(NAMES)),
    st.tuples(st.just("crash"), st.integers(1, 6)),
    st.tuples(st.just("refuse"), st.integers(0, 12)),
    st.tuples(st.just("stale"), st.sampled_from(LISTS)),
    st.tuples(st.just("pass"), st.none()),
    st.tuples(st.just("time"), st.floats(0.1, 20)),
)


async def _happen(world: World, kind: str, what: Any) -> None:
    """One event; whatever goes wrong, the next one follows."""
    engine = world.engine
    try:
        match kind:
            case "records":
                world.cloudly.set(document(what))
                await world.reconciler().deploy(timeout=15)
            case "records unseen":
                world.cloudly.set(document(what))
            case "meddle":
                await world.change(*what)
            case "remove":
                await engine.remove_service(what)
            case "roll back":
                live = await world.live(what)
                await engine.rollback_service(what, live["Version"]["Index"])
            case "crash":
                engine.crash_after = what
                await world.reconciler().reconcile()
            case "refuse":
                engine.faults.extend([Fault(method="nothing")] * what)
                engine.faults.append(Fault(when="after" if what % 2 else "before"))
            case "stale":
                engine.stale[what] = 1
            case "pass":
                await world.reconciler().reconcile()
            case "time":
                await trio.sleep(what)
    except (PortError, EngineError, EngineUnreachable):
        pass
    engine.revive()
    await _invariants(world)


async def _invariants(world: World) -> None:
    """What must hold at every moment, whatever went wrong."""
    engine = world.engine
    engine.faults.clear()
    secrets = set(await world.secrets())
    for live in await engine.list_services():
        if live["Spec"]["Name"] == "foreign":
            assert live["Version"]["Index"] == world.engine_foreign_version  # type: ignore[attr-defined]
            continue
        for spec in (live["Spec"], live.get("PreviousSpec")):
            mounted = ((spec or {}).get("TaskTemplate") or {}).get("ContainerSpec", {}).get("Secrets") or ()
            for reference in mounted:
                assert reference["SecretName"] in secrets, "a secret that a spec names is gone"


@settings(max_examples=examples(400), suppress_health_check=list(HealthCheck))
@given(story=st.lists(events, max_size=14), final=wishes((GOOD, NEWER)))
def test_any_story_ends_in_the_desired_world(story: list[tuple[str, Any]], final: list[Wish]) -> None:
    """After records, meddling, crashes, refusals and stale lists in any order, the last records win, and then rest."""

    async def scene() -> None:
        world = World(new_engine(), MemoryCloudly(document([])))
        await world.engine.create_service(
            {"Name": "foreign", "TaskTemplate": {"ContainerSpec": {"Image": GOOD}}}
        )
        version = (await world.live("foreign"))["Version"]["Index"]
        for kind, what in story:
            await _happen(_Guarded(world, version), kind, what)
        world.engine.stale.clear()
        world.cloudly.set(document(final))
        await trio.sleep(60)  # let roll-outs end: a spec must not be blamed for an older one's failure
        token = (await world.reconciler().look()).plan.refusal
        options = {"confirmed": token.token, "retry_failed": True} if token else {"retry_failed": True}
        reconcile_result = await world.reconciler(**options).deploy(timeout=600)
        assert reconcile_result.is_stable, _explain(reconcile_result)
        wanted = sorted(wish.record()["data"]["name"] for wish in final)
        assert [name for name in await world.names() if name != "foreign"] == wanted
        for wish in final:
            name = wish.record()["data"]["name"]
            live = await world.live(name)
            container = live["Spec"]["TaskTemplate"]["ContainerSpec"]
            assert container["Image"] == wish.image
            assert len(world.engine.running_tasks(name)) == wish.replicas
            mounted = container.get("Secrets") or []
            assert len(mounted) == (wish.secret is not None)
            if wish.secret is not None:
                payload = world.engine.secret_payload(mounted[0]["SecretName"])
                assert payload == b'{"KEY":"value of %s"}' % wish.secret.encode()
        assert (await world.live("foreign"))["Version"]["Index"] == version
        before = world.engine.writes
        again = await world.reconciler().deploy(timeout=600)
        assert again.is_stable
        assert world.engine.writes == before

    play(scene)


class _Guarded(World):
    """A world that knows the version of the service that is not ours."""

    def __init__(self, world: World, version: int) -> None:
        super().__init__(world.engine, world.cloudly, world.render, world.options)
        self.engine_foreign_version = version


def _explain(reconcile_result: Any) -> str:
    plan = reconcile_result.last.plan
    parts = [
        *plan.actions,
        *plan.waits,
        *plan.failures,
        *plan.rejections,
        plan.refusal,
        *reconcile_result.troubles,
        *(v for v in reconcile_result.verdicts.values() if not v.done),
    ]
    return "\n".join(map(str, parts))
