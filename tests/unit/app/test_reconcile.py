"""Passes on a memory Swarm: what is written, what is not, and what is said about it."""

import copy
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio
from tests.unit.app.worlds import BAD, GOOD, MISSING, NEWER, World, cluster, new_engine, play, service

from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.memory import Behaviour, Fault, MemoryCloudly
from coreflow.domain.deploy.base import SERVICES, BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.deploy.steps import verb_of
from coreflow.domain.errors import InvalidRecord, Refused, Unavailable


def _done(reconcile_result: ReconcileResult, kind: str = "service") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for outcome in reconcile_result.applied:
        action = outcome.step.action
        subject: Any = getattr(action, "spec", None) or getattr(action, "target", None)
        if kind in type(subject).__name__.lower():
            found.append((verb_of(action), action.reason))
    return found


def test_a_cluster_is_deployed_and_then_left_alone() -> None:
    """Networks, secrets and services are made once; the second run reads five lists and writes nothing."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a", secretBundleId="b"), service("b"), secrets={"b": "value"}))
        first = await world.reconciler().deploy(timeout=60)
        assert first.is_stable
        assert await world.names() == ["a", "b"]
        world.engine.calls.clear()
        again = await world.reconciler().deploy(timeout=60)
        assert again.is_stable
        assert (world.engine.reads, world.engine.writes) == (5, 0)

    play(scene)


def test_a_task_too_many_is_ended_and_nothing_else_is() -> None:
    """Where Swarm has put two tasks in one place, one write ends one of them; the other goes on."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a", scaleFactor=2)))
        assert (await world.reconciler().deploy(timeout=60)).is_stable
        before = {task["ID"] for task in world.engine.running_tasks("a")}
        world.engine.double_task(min(before))
        world.engine.advance(10)
        assert len(world.engine.running_tasks("a")) == 3
        world.engine.calls.clear()
        result = await world.reconciler().deploy(timeout=120)
        assert result.is_stable
        assert [verb for verb, _ in _done(result)] == ["update"]
        assert world.engine.writes == 1
        left = world.engine.running_tasks("a")
        assert sorted(task["Slot"] for task in left) == [1, 2]
        assert len(before & {task["ID"] for task in left}) >= 1

    play(scene)


def test_the_base_comes_with_every_cluster() -> None:
    """Base services run, the global one on every node, and go when the operator does not want them."""

    async def scene() -> None:
        images = {name: f"base/{name}" for name in SERVICES}
        world = World(new_engine(nodes=3), render=RenderOptions(base=BaseOptions(images=images)))
        for image in images.values():
            world.engine.add_image(f"{image}:latest")
        reconcile_result = await world.reconciler().deploy(timeout=60)
        assert reconcile_result.is_stable
        assert len(world.engine.running_tasks("corestore")) == 3
        fewer = attrs.evolve(
            world, render=RenderOptions(base=BaseOptions(services=("corelog",), images=images))
        )
        assert (await fewer.reconciler().deploy(timeout=60)).is_stable
        assert await world.names() == ["corelog"]

    play(scene)


def test_a_secret_goes_when_no_spec_and_no_previous_spec_names_it() -> None:
    """Rotated twice, the first secret is gone and the second stays for a roll-back."""

    async def scene() -> None:
        world = World()
        seen = []
        for value in ("one", "two", "three"):
            world.cloudly.set(cluster(service("a", secretBundleId="b"), secrets={"b": value}))
            assert (await world.reconciler().deploy(timeout=60)).is_stable
            mounted = (await world.live("a"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"]
            seen.append(mounted[0]["SecretName"])
        assert await world.secrets() == sorted(seen[1:])

    play(scene)


@pytest.mark.parametrize(
    ("code", "cause"), [(1, "task: non-zero exit (1)"), (0, "its container ended (exit code 0)")]
)
def test_a_rolled_back_spec_is_remembered_across_restarts(code: int, cause: str) -> None:
    """An image that ends is tried once, whatever its exit code; a new process knows; a changed record is tried again."""

    async def scene() -> None:
        world = World()
        world.engine.behaviours[BAD] = Behaviour(exits=code)
        world.cloudly.set(cluster(service("a")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("a", BAD)))
        failed = await world.reconciler().deploy(timeout=60)
        assert not failed.is_stable
        assert [f.reason for f in failed.last.plan.failures] == [
            f"image {GOOD} → {BAD}: rolled back: {cause}; not tried again"
        ]
        assert len(world.engine.running_tasks("a")) == 1
        writes = world.engine.writes
        assert not (await world.reconciler().deploy(timeout=60)).is_stable
        assert world.engine.writes == writes
        world.cloudly.set(cluster(service("a", NEWER)))
        assert (await world.reconciler().deploy(timeout=60)).is_stable

    play(scene)


def test_a_failure_is_found_by_a_process_that_did_not_see_it() -> None:
    """Killed right after its write, the next process reads the roll-back off the failed tasks, and does not retry."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("a", BAD)))
        await world.reconciler().run_pass()
        world.engine.settle()
        reconcile_result = await world.reconciler().deploy(timeout=60)
        assert [verb for verb, _ in _done(reconcile_result)] == ["mark failed"]
        assert not reconcile_result.is_stable

    play(scene)


def test_a_failed_spec_is_retried_when_somebody_says_so() -> None:
    """`retry_failed` tries a remembered spec again."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("a", BAD)))
        await world.reconciler().deploy(timeout=60)
        world.engine.behaviours[BAD] = Behaviour()
        reconcile_result = await world.reconciler(retry_failed=True).deploy(timeout=60)
        assert reconcile_result.is_stable
        assert (await world.live("a"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == BAD

    play(scene)


def test_a_roll_back_by_hand_is_respected() -> None:
    """What an operator rolled back is reported as failed, not put back."""

    async def scene() -> None:
        world = World()
        for image in (GOOD, NEWER):
            world.cloudly.set(cluster(service("a", image)))
            await world.reconciler().deploy(timeout=60)
        live = await world.live("a")
        await world.engine.rollback_service(live["ID"], live["Version"]["Index"])
        world.engine.settle()
        reconcile_result = await world.reconciler().deploy(timeout=60)
        assert "rolled back by hand" in reconcile_result.last.plan.failures[0].reason
        assert (await world.live("a"))["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == GOOD

    play(scene)


def test_a_lost_race_is_planned_again() -> None:
    """Somebody writes between our look and our write: the next pass sees it, and both changes end well."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("a", scaleFactor=2)))
        lost = EngineError(500, "rpc error: code = Unknown desc = update out of sequence")
        world.engine.faults.append(Fault(method="update_service", error=lost))
        reconcile_result = await world.reconciler().deploy(timeout=60)
        assert reconcile_result.is_stable
        assert len(reconcile_result.reports[0].troubles) == 1

    play(scene)


def test_a_failed_network_blocks_what_joins_it() -> None:
    """Without the network nothing is made, and the reason is said once per service."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        world.engine.faults += [Fault(method="create_network", error=EngineError(403, "no"))] * 2
        reconcile_result = await world.reconciler().reconcile()
        details = [outcome.detail for outcome in reconcile_result.reports[0].troubles]
        assert "creating network sznwebgateway: no" in details
        assert "network sznwebgateway could not be created" in details

    play(scene)


def test_a_network_that_was_just_made_is_taken_for_nothing_else() -> None:
    """Swarm lists a new network without driver and addresses for a moment, which no pass minds."""

    async def scene() -> None:
        world = World()
        world.engine.network_seconds = 3.0
        world.cloudly.set(cluster(service("a")))
        reconcile_result = await world.reconciler().deploy(timeout=60)
        assert reconcile_result.is_stable
        assert not any(report.plan.rejections for report in reconcile_result.reports)

    play(scene)


def test_one_service_fails_alone() -> None:
    """An engine that refuses one service does not keep the others from running."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a", secretBundleId="b"), service("b"), secrets={"b": "x"}))
        refusal = EngineError(400, "rpc error: code = InvalidArgument desc = no")
        world.engine.faults += [Fault(method="create_secret", error=refusal)] * 9
        reconcile_result = await world.reconciler().deploy(timeout=30)
        assert not reconcile_result.is_stable
        assert await world.names() == ["b"]
        assert {outcome.status for outcome in reconcile_result.troubles} == {"failed", "blocked"}

    play(scene)


def test_unusable_records_touch_nothing() -> None:
    """A document that cannot be used as a whole is an error, not an empty cluster."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set({"services": []})
        with pytest.raises(InvalidRecord):
            await world.reconciler().deploy(timeout=60)
        assert await world.names() == ["a"]

    play(scene)


def test_an_engine_that_is_away_is_unavailable() -> None:
    """A failed listing is not an empty list: the pass ends with an error."""

    async def scene() -> None:
        world = World()
        world.engine.faults.append(Fault(method="list_secrets"))
        with pytest.raises(Unavailable, match="the engine does not answer"):
            await world.reconciler().deploy(timeout=60)
        world.engine.is_manager = False
        with pytest.raises(Unavailable, match="this engine is a worker: let DOCKER_HOST name a manager"):
            await world.reconciler().deploy(timeout=60)

    play(scene)


def test_an_engine_that_hangs_up_while_we_wait_is_asked_again() -> None:
    """Waiting for convergence survives a hiccup."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))

        class Hiccup:
            def planned(self, plan: object) -> None: ...
            def applied(self, outcome: object) -> None:
                world.engine.faults.clear()

            def progressed(self, verdicts: object) -> None:
                if not world.engine.running_tasks("a") and not world.engine.faults:
                    world.engine.faults.append(Fault(method="list_tasks"))

        reconcile_result = await world.reconciler(Hiccup()).deploy(timeout=60)
        assert reconcile_result.is_stable

    play(scene)


def test_a_network_of_our_name_in_another_case_is_in_the_way() -> None:
    """A network that Swarm takes for one of ours is named in the plan, with what to do about it."""

    async def scene() -> None:
        world = World()
        await world.engine.create_network({"Name": "SznWebGateway", "Driver": "overlay"})
        world.cloudly.set(cluster(service("a")))
        rejections = (await world.reconciler().look()).plan.rejections
        assert [reason for rejection in rejections for reason in rejection.reasons] == [
            "network SznWebGateway exists, and Swarm ignores case in names: it stands for sznwebgateway; rename or remove it"
        ]

    play(scene)


def test_a_deadline_ends_the_waiting() -> None:
    """What does not run is reported with the reason when the time is up, and a crash loop before that."""

    async def scene() -> None:
        world = World()
        world.engine.add_image(MISSING)
        for node in world.engine.nodes.values():
            node.images.discard(MISSING)
        registry = world.engine.push("r.example.com/gone:1")
        assert registry
        world.cloudly.set(cluster(service("a", "r.example.com/gone:1")))
        reconciler = world.reconciler()
        await reconciler.look()
        started = trio.current_time()
        world.engine.registries["r.example.com"].images.clear()
        rejected = await world.reconciler().deploy(timeout=20)
        assert [r.reasons for r in rejected.last.plan.rejections] == [
            ("image r.example.com/gone:1: not found on r.example.com",)
        ]
        world.engine.push("r.example.com/gone:1", Behaviour(unhealthy=True))
        slow = await world.reconciler().deploy(timeout=3)
        assert not slow.is_stable
        assert "health check" in slow.verdicts["a"].detail
        assert trio.current_time() - started >= 3
        unhealthy = await world.reconciler().deploy(timeout=60)
        assert unhealthy.verdicts["a"].is_crash_looping
        assert trio.current_time() - started < 40

    play(scene)


def test_a_tag_that_moved_is_noticed_by_a_refresh_only() -> None:
    """An unchanged reference keeps its digest; a refresh looks it up again; a registry that is down changes nothing."""

    async def scene() -> None:
        world = World()
        old = world.engine.push("r.example.com/web:1")
        world.cloudly.set(cluster(service("a", "r.example.com/web:1")))
        await world.reconciler().deploy(timeout=60)

        async def image() -> str:
            spec = (await world.live("a"))["Spec"]
            found: str = spec["TaskTemplate"]["ContainerSpec"]["Image"]
            return found

        assert await image() == f"r.example.com/web:1@{old}"
        new = world.engine.push("r.example.com/web:1", content="newer")
        await world.reconciler().deploy(timeout=60)
        assert await image() == f"r.example.com/web:1@{old}"
        world.engine.registries["r.example.com"].up = False
        assert (await world.reconciler().deploy(timeout=60, refresh=True)).is_stable
        assert await image() == f"r.example.com/web:1@{old}"
        world.engine.registries["r.example.com"].up = True
        await world.reconciler().deploy(timeout=60, refresh=True)
        assert await image() == f"r.example.com/web:1@{new}"

    play(scene)


def test_a_login_is_used_checked_and_refreshed() -> None:
    """Wrong credentials reject, right ones deploy, changed ones are written without a restart."""

    async def scene() -> None:
        world = World()
        registry = world.engine.add_registry("r.example.com", login=("user", "right"))
        world.engine.push("r.example.com/web:1")

        def record(password: str) -> Any:
            login = {"serveraddress": "r.example.com", "username": "user", "password": password}
            found = service("a", "r.example.com/web:1")
            found["data"]["registryTarget"]["registryInfo"] = login
            return cluster(found)

        world.cloudly.set(record("wrong"))
        assert (
            "login is wrong"
            in (await world.reconciler().deploy(timeout=10)).last.plan.rejections[0].reasons[0]
        )
        assert await world.names() == []
        world.cloudly.set(record("right"))
        assert (await world.reconciler().deploy(timeout=60)).is_stable
        [task] = world.engine.running_tasks("a")
        registry.login = ("user", "newer")
        world.cloudly.set(record("newer"))
        reconcile_result = await world.reconciler().deploy(timeout=60)
        assert _done(reconcile_result) == [("update", "registry login changed")]
        assert world.engine.running_tasks("a")[0]["ID"] == task["ID"]
        world.cloudly.set(record("wrong"))
        writes = world.engine.writes
        assert not (await world.reconciler().deploy(timeout=10)).is_stable
        assert world.engine.writes == writes

    play(scene)


def test_an_internal_image_is_loaded_once() -> None:
    """The archive is opened only where the engine lacks the image; a missing one fails that service alone."""

    async def scene() -> None:
        import io
        import json
        import tarfile

        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            manifest = json.dumps([{"Config": "c.json", "RepoTags": ["whatever:1"], "Layers": []}]).encode()
            member = tarfile.TarInfo("manifest.json")
            member.size = len(manifest)
            archive.addfile(member, io.BytesIO(manifest))
        image = {
            "id": "img",
            "data": {
                "location": {"internal": True},
                "versions": [{"versionString": "1"}, {"versionString": "2"}],
            },
        }

        def records(version: str) -> Any:
            data = {"name": "a", "imageId": "img", "imageVersion": version}
            return cluster({"id": "id-a", "data": data}, images=[image])

        world = World(cloudly=MemoryCloudly(records("1"), archives={("img", "1"): buffer.getvalue()}))
        assert (await world.reconciler().deploy(timeout=60)).is_stable
        assert sum(method == "load_image" for method, _ in world.engine.calls) == 1
        world.cloudly.set(records("2"))
        reconcile_result = await world.reconciler().deploy(timeout=10)
        assert not reconcile_result.is_stable
        assert reconcile_result.troubles[0].detail
        assert len(world.engine.running_tasks("a")) == 1
        world.cloudly.archives["img", "2"] = b"no archive at all"
        garbage = await world.reconciler().deploy(timeout=10)
        assert "archive" in garbage.troubles[0].detail

    play(scene)


def test_several_nodes_keep_a_loaded_image_where_it_is() -> None:
    """With more than one node, a service with a loaded image is placed on the node that has it, and says so."""

    async def scene() -> None:
        image = {"id": "img", "data": {"location": {"internal": True}, "versions": [{"versionString": "1"}]}}
        data = {"name": "a", "imageId": "img", "imageVersion": "1"}
        world = World(new_engine(nodes=3))
        next(iter(world.engine.nodes.values())).images.add("img:1")
        world.cloudly.set(cluster({"id": "id-a", "data": data}, images=[image]))
        reconcile_result = await world.reconciler().deploy(timeout=60)
        assert reconcile_result.is_stable
        own = next(iter(world.engine.nodes))
        assert world.engine.running_tasks("a")[0]["NodeID"] == own
        assert "kept on this node" in reconcile_result.last.plan.notes[0].text

    play(scene)


def test_a_slip_in_the_name_of_an_environment_takes_no_secret_away() -> None:
    """The service runs on with what it has, and the reason is told; where nothing runs yet, it is a note."""

    async def scene() -> None:
        world = World()
        right = cluster(service("a", secretBundleId="b"), secrets={"b": "value"})
        wrong = copy.deepcopy(right)
        environments = wrong["secretGroups"][0]["data"]["environments"]
        environments["prod"] = environments.pop("production")
        world.cloudly.set(right)
        assert (await world.reconciler().deploy(timeout=60)).is_stable
        secrets = await world.secrets()
        world.cloudly.set(wrong)
        result = await world.reconciler().deploy(timeout=60)
        assert ["would lose the variable" in r.reasons[0] for r in result.last.plan.rejections] == [True]
        assert await world.secrets() == secrets
        fresh = World()
        fresh.cloudly.set(wrong)
        result = await fresh.reconciler().deploy(timeout=60)
        assert result.is_stable
        assert ["left out; it has values for: prod" in n.text for n in result.last.plan.notes] == [True]

    play(scene)


def test_a_copied_id_removes_nothing() -> None:
    """A record whose id is that of another keeps what runs under its name, until the id is mended."""

    async def scene() -> None:
        world = World()
        right = cluster(service("web"), service("worker"), service("third"))
        world.cloudly.set(right)
        assert (await world.reconciler().deploy(timeout=60)).is_stable
        wrong = cluster(service("web"), {**service("worker"), "id": service("web")["id"]}, service("third"))
        world.cloudly.set(wrong)
        world.engine.calls.clear()
        result = await world.reconciler().deploy(timeout=60)
        assert not result.is_stable
        assert [r.name for r in result.last.plan.rejections] == ["web"]
        assert world.engine.writes == 0
        world.cloudly.set(right)
        assert (await world.reconciler().deploy(timeout=60)).is_stable
        assert world.engine.writes == 0

    play(scene)


def test_a_renamed_record_runs_all_the_time() -> None:
    """The new service comes first; the old one goes once the new one runs."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("old", identity="id-1")))
        await world.reconciler().deploy(timeout=60)
        world.cloudly.set(cluster(service("new", identity="id-1")))
        fewest = [9]

        class Watch:
            def planned(self, plan: object) -> None:
                self.progressed(None)

            def applied(self, outcome: object) -> None:
                self.progressed(None)

            def progressed(self, verdicts: object) -> None:
                running = world.engine.running_tasks("old") + world.engine.running_tasks("new")
                fewest[0] = min(fewest[0], len(running))

        reconcile_result = await world.reconciler(Watch()).deploy(timeout=60)
        assert reconcile_result.is_stable
        assert await world.names() == ["new"]
        assert fewest == [1]

    play(scene)


def test_what_changes_as_fast_as_it_is_put_right_is_left_for_a_while() -> None:
    """Whoever undoes every write at once is answered once at once, and then after pauses."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        await world.reconciler().deploy(timeout=60)

        def vandalise() -> None:
            for document in world.engine.store.services.values():
                document["Spec"]["Mode"] = {"Replicated": {"Replicas": 7}}
                document["Version"] = {"Index": document["Version"]["Index"] + 1}

        class Vandal:
            def planned(self, plan: object) -> None: ...
            def applied(self, outcome: object) -> None:
                vandalise()

            def progressed(self, verdicts: object) -> None: ...

        vandalise()
        reconcile_result = await world.reconciler(Vandal()).reconcile()
        assert len(reconcile_result.applied) == 2
        assert not reconcile_result.is_stable
        assert [contest.name for contest in reconcile_result.last.plan.contests] == ["a"]
        assert [wait.until for wait in reconcile_result.last.plan.waits] == [world.engine.clock() + 10]

    play(scene)


def test_somebody_who_was_faster_is_no_trouble() -> None:
    """A service that somebody else makes at the same moment: the next look finds it as desired, and that is all."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        taken = EngineError(
            409, "rpc error: code = AlreadyExists desc = name conflicts with an existing object"
        )
        world.engine.faults.append(Fault(method="create_service", when="after", error=taken))
        reconcile_result = await world.reconciler().reconcile()
        assert [o.status for o in reconcile_result.reports[0].outcomes][-1] == "overtaken"
        assert reconcile_result.troubles == ()
        assert await world.names() == ["a"]

    play(scene)


def test_a_crash_leaves_no_duplicate() -> None:
    """Killed after any of its writes, the next run finishes with the same objects."""

    async def scene() -> None:
        for writes in range(1, 7):
            world = World()
            world.cloudly.set(
                cluster(
                    service("a", secretBundleId="b"), service("b", secretBundleId="b"), secrets={"b": "x"}
                )
            )
            world.engine.crash_after = writes
            with suppress(Unavailable):
                await world.reconciler().reconcile()
            world.engine.revive()
            assert (await world.reconciler().deploy(timeout=60)).is_stable
            assert await world.names() == ["a", "b"]
            assert len(await world.secrets()) == 2

    play(scene)


def test_errors_of_the_source_are_passed_on() -> None:
    """What the source of records says goes to the caller, without a group around it."""

    async def scene() -> None:
        world = World()
        for error in (Unavailable("away"), Refused("no")):
            world.cloudly.faults.append(error)
            with pytest.raises(type(error)):
                await world.reconciler().look()

    play(scene)


@pytest.mark.parametrize("count", [2, 10])
def test_another_file_in_the_place_of_this_one_removes_nothing_unasked(count: int) -> None:
    """However often it is applied: what is new would make the removal one of few among many. The word lets all of it happen."""

    async def scene() -> None:
        world = World()
        ours, others = ([service(f"{name}{n}") for n in range(count)] for name in ("ours", "others"))
        world.cloudly.set(cluster(*ours))
        await world.reconciler().deploy(timeout=60)
        before = await world.names()
        world.cloudly.set(cluster(*others))
        token = ""
        for _ in range(3):
            done = await world.reconciler().deploy(timeout=60)
            assert not done.is_stable
            assert done.last.plan.refusal is not None
            token = done.last.plan.refusal.token
            assert await world.names() == before
        confirmed = await world.reconciler(confirmed=token).deploy(timeout=60)
        assert confirmed.is_stable
        assert sorted(await world.names()) == sorted(f"others{n}" for n in range(count))

    play(scene)
