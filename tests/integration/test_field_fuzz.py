"""Records with extremes in every field: what a plan accepts, the engine accepts, as the memory Swarm, and it stays as it was sent.

The seed is that of the run, unless `COREFLOW_FUZZ_SEED` has another; a failure tells it. `COREFLOW_FUZZ_RECORDS` and
`COREFLOW_FUZZ_RUNNING` say how many accepted records are tried without tasks and with one task each.
"""

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from random import Random
from typing import Any

import pytest
import trio
from attrs import define
from tests import seeds
from tests.integration import field_fuzz
from tests.integration.engine_bench import GOOD, Bench, Json, open_bench
from tests.integration.records_bench import Records, naming_of, open_records

from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.domain.deploy.steps import kind_of, verb_of
from coreflow.domain.swarm.images import ImageRequest, ResolvedImage

SEED = os.environ.get("COREFLOW_FUZZ_SEED") or str(seeds.SEED)
RECORDS = int(os.environ.get("COREFLOW_FUZZ_RECORDS", "300"))
RUNNING = int(os.environ.get("COREFLOW_FUZZ_RUNNING", "20"))
RAW = int(os.environ.get("COREFLOW_FUZZ_RAW", "300"))
BATCH = 60
PASSES = 20
"""More than any change of records needs, with Swarm's own writes in between."""
ENDED = {"rejected", "failed", "complete", "shutdown", "orphaned"}

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("field-fuzz")]


class Sure(SwarmPort):
    """A port for which every registry has every image."""

    async def resolve(self, request: ImageRequest) -> ResolvedImage:
        """Only the engine's own images are looked up."""
        if request.reference == GOOD:
            return await super().resolve(request)
        return ResolvedImage(request.reference.partition("@")[2] or field_fuzz.DIGEST)


@define
class Pair:
    """A real engine and one in memory, with the same nodes and the same records."""

    real: Records
    memory: Records

    async def both(self, document: Json) -> list[str]:
        """Plan and apply on both; the names of the accepted services. What is done, and said, must be the same."""
        told: list[tuple[list[Any], ...]] = []
        accepted: list[str] = []
        for world in (self.real, self.memory):
            world.renew()
            world.cloudly.set(document)
            reconcile_state, report = await world.reconciler.run_pass()
            plan = reconcile_state.plan
            done = sorted(f"{verb_of(a)} {naming_of(a)}" for a in plan.actions if "szn" not in naming_of(a))
            told.append(
                (done, [(r.unit, r.name, r.reasons) for r in plan.rejections], [str(w) for w in plan.waits])
            )
            assert [(o.step.unit, o.detail) for o in report.troubles] == [], f"seed {SEED}"
            accepted = sorted(reconcile_state.desired.services)
            again = (await world.plan()).plan
            assert [(verb_of(a), naming_of(a), a.reason) for a in again.actions] == [], f"seed {SEED}"
            assert not again.waits, f"seed {SEED}"
        for ours, theirs in zip(*told, strict=True):
            assert [x for x in ours if x not in theirs] == [x for x in theirs if x not in ours], (
                f"seed {SEED}"
            )
        await self.are_alike()
        return accepted

    async def turn_into(self, document: Json) -> int:
        """Make something else of what is there on both; how many services changed. They must be the same ones."""
        told: list[Counter[str]] = []
        for world in (self.real, self.memory):
            world.renew()
            world.cloudly.set(document)
            told.append(await _until_done(world))
        assert (told[0] - told[1], told[1] - told[0]) == (Counter(), Counter()), f"seed {SEED}"
        await self.are_alike()
        return told[0].total()

    async def are_alike(self) -> None:
        """Compare what the engines have."""
        real, memory = [await _live(world) for world in (self.real, self.memory)]
        assert real.keys() == memory.keys(), f"seed {SEED}"
        assert [name for name in real if real[name] != memory[name]] == [], f"seed {SEED}"

    async def empty(self) -> None:
        """Away with all services."""
        for world in (self.real, self.memory):
            for service in await world.bench.engine.list_services():
                if world.is_ours(service["Spec"].get("Labels") or {}):
                    await world.bench.engine.remove_service(service["ID"])
            for secret in await world.bench.engine.list_secrets():
                if world.is_ours(secret["Spec"].get("Labels") or {}):
                    await world.bench.engine.remove_secret(secret["ID"])


@pytest.fixture
async def pair(engine_host: str) -> AsyncIterator[Pair]:
    """Both, with a cluster of our own."""
    async with open_bench(engine_host, None) as real, open_bench(None, None) as memory:
        memory.prefix = real.prefix
        (node,) = await real.engine.list_nodes()
        assert memory.memory is not None
        for one in memory.memory.nodes.values():
            one.cpus = node["Description"]["Resources"]["NanoCPUs"] / 1e9
        async with open_records(real, Sure) as ours, open_records(memory, Sure) as theirs:
            yield Pair(ours, theirs)


def batches(kind: Callable[[Random, str, int], Json], prefix: str, size: int) -> Iterator[Json]:
    """Documents with so many records each, for ever."""
    random = Random(f"{SEED}-{kind.__name__}")
    for start in count(0, size):
        yield field_fuzz.document(prefix, [kind(random, prefix, start + index) for index in range(size)])


async def test_what_a_plan_accepts_the_engine_accepts(pair: Pair) -> None:
    """Without tasks: none refused, none different from what was sent, and the memory Swarm says the same."""
    accepted = tried = 0
    for document in batches(field_fuzz.record, pair.real.bench.prefix, BATCH):
        accepted += len(await pair.both(document))
        tried += BATCH
        await pair.empty()
        if accepted >= RECORDS:
            break
    _tell(f"seed {SEED}: {accepted} of {tried} records accepted and applied")


async def test_what_a_plan_accepts_may_follow_anything(pair: Pair) -> None:
    """One record after another of the same name: as an update, too, none is refused and none ends differently."""
    random = Random(f"{SEED}-changes")
    changes, prefix = 0, pair.real.bench.prefix
    while changes < RECORDS:
        records = [field_fuzz.record(random, prefix, number) for number in range(BATCH)]
        changes += await pair.turn_into(field_fuzz.document(prefix, records))
    _tell(f"seed {SEED}: {changes} changes applied")


async def _until_done(world: Records) -> "Counter[str]":
    """Pass by pass; what became of services, with the reasons."""
    done: Counter[str] = Counter()
    for _ in range(PASSES):
        reconcile_state, report = await world.reconciler.run_pass()
        plan = reconcile_state.plan
        assert [(o.step.unit, o.detail) for o in report.troubles] == [], f"seed {SEED}"
        services = (action for action in plan.actions if kind_of(action) == "service")
        done.update(f"{verb_of(action)} {naming_of(action)}: {action.reason}" for action in services)
        if not plan.actions and not plan.waits:
            return done
        await world.bench.pause(0.2)
    raise AssertionError(f"seed {SEED}: it goes on; last {plan.actions}, {plan.waits}")


async def _live(world: Records) -> dict[str, Json]:
    """The specs of our services, without what each engine numbers by itself."""
    found = {}
    for service in await world.bench.engine.list_services():
        spec = service["Spec"]
        if world.is_ours(spec.get("Labels") or {}):
            template = spec["TaskTemplate"]
            for given in template["ContainerSpec"].get("Secrets") or ():
                given["SecretID"] = ""
            for network in template.get("Networks") or ():
                network["Target"] = ""
            found[spec["Name"]] = spec
    return found


async def test_what_a_plan_accepts_runs(pair: Pair) -> None:
    """With one task each: no node refuses any, and the memory Swarm runs the same ones."""
    accepted = 0
    for document in batches(field_fuzz.running_record, pair.real.bench.prefix, 30):
        names = await pair.both(document)
        accepted += len(names)
        for world in (pair.real, pair.memory):
            await _all_run(world.bench, names)
        await pair.empty()
        await pair.real.bench.pause(1)
        if accepted >= RUNNING:
            break
    _tell(f"seed {SEED}: {accepted} records accepted and run")


async def _all_run(bench: Bench, names: list[str]) -> None:
    ids = {(await bench.live(name))["ID"]: name for name in names}

    async def look() -> bool:
        tasks = [task for task in await bench.engine.list_tasks() if task["ServiceID"] in ids]
        for task in tasks:
            state = task["Status"]["State"]
            assert state not in ENDED, (SEED, ids[task["ServiceID"]], task["Status"])
        started = {
            t["ServiceID"]
            for t in tasks
            if t["Status"]["State"] == "running"
            or (t["Status"]["State"] == "starting" and t["Spec"]["ContainerSpec"].get("Healthcheck"))
        }
        return started == set(ids)

    await bench.eventually(look, seconds=90)


async def test_what_no_plan_lets_through(pair: Pair) -> None:
    """Specs that nobody has checked: both engines take the same ones, and refuse the others alike."""
    random = Random(f"{SEED}-raw")
    refusals = 0
    for number in range(RAW):
        spec = field_fuzz.raw_spec(random, pair.real.bench.prefix, number)
        answers = [await _answer(world.bench, spec) for world in (pair.real, pair.memory)]
        assert answers[0][:2] == answers[1][:2], (SEED, spec, answers)
        refusals += answers[0][0] != 201
    _tell(f"seed {SEED}: {refusals} of {RAW} specs refused alike")


async def _answer(bench: Bench, spec: Json) -> tuple[int, str, str]:
    """The status, the kind of error, and the text."""
    try:
        identity = await bench.engine.create_service(spec)
    except EngineError as exc:
        kind = exc.message.partition("code = ")[2].partition(" ")[0]
        return exc.status, kind, exc.message
    await bench.engine.remove_service(identity)
    await trio.lowlevel.checkpoint()
    return 201, "", ""


def _tell(text: str) -> None:
    """For whoever watches (`pytest -s`)."""
    sys.stderr.write(f"\n{text}\n")
