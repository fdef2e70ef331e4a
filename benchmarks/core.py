"""The cost of the pure core for a large cluster file, in units of `json.loads` of the same bytes.

Every figure is the median of rounds in which the reference and all cases take turns, so that a busy machine hurts all of
them alike. `json.loads` runs as anybody would call it, with the interpreter's garbage collection; coreflow runs as in the
application, which pauses collection while it reads and plans (`coreflow.gc_pause`).
"""

import gc
import json
import statistics
import time
from collections.abc import Callable

import orjson
from attrs import evolve

from benchmarks.clusterfile import as_bytes, changed, cluster_document
from benchmarks.table import Row
from coreflow.adapters.swarm import to_engine
from coreflow.domain.deploy.desired import Desired, RenderOptions
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.deploy.steps import Plan
from coreflow.domain.ids import NodeId
from coreflow.domain.records.codec import RecordDecoder
from coreflow.domain.records.models import Records
from coreflow.domain.status.make import make_status
from coreflow.domain.status.parts import Facts
from coreflow.domain.swarm.images import ImageRequest, Resolution, ResolvedImage
from coreflow.domain.swarm.observed import (
    Observed,
    ObservedNetwork,
    ObservedNode,
    ObservedSecret,
    ObservedService,
    ObservedTask,
)
from coreflow.gc_pause import gc_paused

SERVICES = 10_000
ROUNDS = 5
LIMITS = {"cold": 4.0, "warm": 1.5, "diff": 0.05}
STATUS_SERVICES, STATUS_MILLISECONDS = 1000, 5.0
DIGEST = "sha256:" + "a" * 64


class _Answers(dict[ImageRequest, Resolution]):
    """A registry that knows every image."""

    def __missing__(self, request: ImageRequest) -> Resolution:
        return ResolvedImage(DIGEST)

    def get(self, request: ImageRequest, default: object = None) -> Resolution:
        return self[request]


def _pipeline(
    data: bytes, decoder: RecordDecoder, renderer: Renderer, observed: Observed
) -> tuple[Records, Desired, Plan]:
    records = decoder.decode(orjson.loads(data))
    answers = _Answers()
    for request in renderer.image_requests(records, observed):
        answers[request] = ResolvedImage(DIGEST)
    desired = renderer.render(records, observed, answers)
    return records, desired, make_plan(desired, observed)


def deployed(desired: Desired) -> Observed:
    """The Swarm after everything in `desired` was deployed."""
    services = tuple(
        ObservedService(
            id=f"id-{name}",
            name=name,
            version=number,
            labels=to_engine.service_labels(spec),
            body=spec.body,
            fingerprints=spec.fingerprints,
        )
        for number, (name, spec) in enumerate(desired.services.items())
    )
    secrets = tuple(
        ObservedSecret(
            id=f"id-{secret.name}", name=secret.name, labels=to_engine.secret_document(secret)["Labels"]
        )
        for secret in desired.secrets.values()
    )
    networks = tuple(
        ObservedNetwork(
            id=spec.name, name=spec.name, driver="overlay", scope="swarm", subnets=(spec.subnet or "",)
        )
        for spec in desired.networks
    )
    return Observed(services=services, secrets=secrets, networks=networks)


def _timed(job: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def status_row(services: int = STATUS_SERVICES, rounds: int = 50) -> Row:
    """The status of a cluster in which everything runs: CPU time, since it is made while others wait."""
    data = as_bytes(cluster_document(services))
    records, desired, _ = _pipeline(data, RecordDecoder(), Renderer(RenderOptions()), Observed())
    there = deployed(desired)
    node = ObservedNode(id=NodeId("n1"), hostname="n1")
    tasks = tuple(
        ObservedTask(id=f"{s.id}-{slot}", service_id=s.id, slot=slot, node_id=node.id, state="running")
        for s in there.services
        for slot in range(s.body.replicas or 1)
    )
    there = evolve(there, nodes=(node,), tasks=tasks)
    state = ReconcileState(records=records, observed=there, desired=desired, plan=make_plan(desired, there))
    result = ReconcileResult(last=state, verdicts=state.verdicts)
    times: list[float] = []
    for _ in range(rounds):
        started = time.process_time()
        status, _ = make_status(Facts(now=0.0, result=result))
        times.append(time.process_time() - started)
        assert status.verdict == "as desired"
    return Row(
        case="status",
        milliseconds=statistics.median(times) * 1000,
        ratio=0.0,
        limit_milliseconds=STATUS_MILLISECONDS,
        note=f"the status of {services} services, from the result of a pass",
    )


def run(services: int = SERVICES, rounds: int = ROUNDS) -> list[Row]:
    """Measure; one row per case."""
    document = cluster_document(services)
    before = as_bytes(document)
    after = as_bytes(changed(document, 0.01))
    later = as_bytes(changed(document, 0.01, new=services // 200))
    options = RenderOptions()

    decoder, renderer = RecordDecoder(), Renderer(options)
    _, desired, _ = _pipeline(before, decoder, renderer, Observed())
    observed = deployed(desired)
    versions = [before, after]
    newer = _pipeline(later, RecordDecoder(), Renderer(options), observed)[1]
    gc.collect()
    gc.freeze()  # what lies about here is not a case's to look through

    def cold() -> None:
        with gc_paused(enabled=True):
            plan = _pipeline(before, RecordDecoder(), Renderer(options), Observed())[2]
        assert len(plan.steps) >= services

    def warm() -> None:
        versions.reverse()
        with gc_paused(enabled=True):
            plan = _pipeline(versions[0], decoder, renderer, observed)[2]
        assert len(plan.steps) < services

    def diff() -> None:
        with gc_paused(enabled=True):
            plan = make_plan(newer, observed)
        assert 0 < len(plan.steps) < services

    cases: dict[str, Callable[[], object]] = {
        "json.loads": lambda: json.loads(before),
        "cold": cold,
        "warm": warm,
        "diff": diff,
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            times[name].append(_timed(case))
    reference = statistics.median(times["json.loads"])
    meaning = {
        "json.loads": f"{len(before) / 1e6:.1f} MB, {services} services: the reference",
        "cold": "read, decode, render, fingerprint and plan into an empty Swarm",
        "warm": "the same for a file in which 1 % changed, everything deployed",
        "diff": "planning alone: 1 % changed, 0.5 % new",
    }
    return [
        Row(
            case=name,
            milliseconds=statistics.median(times[name]) * 1000,
            ratio=statistics.median(times[name]) / reference,
            limit=LIMITS.get(name),
            note=meaning[name],
        )
        for name in cases
    ] + [status_row()]
