"""Small worlds for tests of the domain: specs, what the engine says of them, and everything that is desired."""

from typing import Any

from attrs import evolve

from coreflow.adapters.swarm.to_engine import service_labels
from coreflow.domain.deploy.desired import Desired
from coreflow.domain.deploy.result import Outcome, ReconcileResult, Report
from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.deploy.steps import Plan
from coreflow.domain.ids import BASE, ClusterId, NodeId, Owner
from coreflow.domain.records.models import ClusterRecord, Records
from coreflow.domain.swarm import naming
from coreflow.domain.swarm.convergence import Verdict
from coreflow.domain.swarm.naming import WEB_GATEWAY
from coreflow.domain.swarm.observed import (
    Observed,
    ObservedNetwork,
    ObservedNode,
    ObservedSecret,
    ObservedService,
    ObservedTask,
)
from coreflow.domain.swarm.specs import (
    Attachment,
    ImageSpec,
    Mount,
    NetworkSpec,
    RollPolicy,
    SecretFile,
    SecretSpec,
    ServiceBody,
    ServiceSpec,
    Stage,
    fingerprints,
)

CLUSTER = ClusterId("cluster")
START_FIRST = RollPolicy(on_failure="rollback", order="start-first")
STOP_FIRST = RollPolicy(on_failure="rollback", order="stop-first")
WEB = Attachment(WEB_GATEWAY)


def body(**changes: Any) -> ServiceBody:
    """A service's body."""
    values: dict[str, Any] = {"image": "app:1@sha256:aa", "endpoint_mode": "dnsrr", "update": START_FIRST}
    return ServiceBody(**(values | changes))


def spec(name: str = "web", owner: str | None = None, *, login: str = "", **changes: Any) -> ServiceSpec:
    """A service that we want; its owner is `id-NAME` unless said otherwise."""
    whole = body(**changes)
    identity = Owner(f"id-{name}" if owner is None else owner)
    return ServiceSpec(
        name=name,
        cluster=CLUSTER,
        owner=identity,
        stage=Stage.BASE if identity == BASE else Stage.WORKLOADS,
        body=whole,
        fingerprints=fingerprints(whole),
        login_hash=login,
    )


def live(
    written: ServiceSpec, *, labels: dict[str, str] | None = None, by_hand: Any = None, **more: Any
) -> ObservedService:
    """The service as it is after `written` was written, with further labels and changes of the body by hand."""
    found = evolve(written.body, **(by_hand or {}))
    values: dict[str, Any] = {
        "id": f"service-{written.name}",
        "name": written.name,
        "version": 7,
        "labels": service_labels(written) | (labels or {}),
        "body": found,
        "fingerprints": fingerprints(found),
    }
    return ObservedService(**(values | more))


def foreign(name: str = "other", **changes: Any) -> ObservedService:
    """A service that somebody else made."""
    found = body(**changes)
    return ObservedService(
        id=f"service-{name}", name=name, version=1, labels={}, body=found, fingerprints=fingerprints(found)
    )


def task(service: ObservedService, number: int = 1, **changes: Any) -> ObservedTask:
    """A running task."""
    values: dict[str, Any] = {
        "id": f"task-{service.name}-{number}",
        "service_id": service.id,
        "state": "running",
    }
    return ObservedTask(**(values | changes))


def mounting(*names: str) -> dict[str, Any]:
    """The part of a body that mounts secrets."""
    return {"secrets": tuple(SecretFile(name, f"{name}.json") for name in names)}


def volume(target: str = "/data", **changes: Any) -> Mount:
    """A volume in a container."""
    return Mount(type="volume", source="data", target=target, **changes)


def secret_spec(name: str, owner: str = "id-web") -> SecretSpec:
    """A secret that we want."""
    return SecretSpec(
        name=name, cluster=CLUSTER, owner=Owner(owner), stage=Stage.WORKLOADS, payload=name.encode()
    )


def secret(name: str, owner: str = "id-web", *, ours: bool = True) -> ObservedSecret:
    """A secret that is there."""
    labels = naming.ownership(CLUSTER, owner) if ours else {}
    return ObservedSecret(id=f"secret-{name}", name=name, labels=labels)


def image_spec(reference: str, owner: str = "id-web") -> ImageSpec:
    """An archive that has to be loaded."""
    return ImageSpec(
        reference=reference, owner=Owner(owner), stage=Stage.WORKLOADS, image_id="app", version="1"
    )


def network_spec(name: str = WEB_GATEWAY, subnet: str | None = "10.201.0.0/16") -> NetworkSpec:
    """A network that we want."""
    return NetworkSpec(name=name, cluster=CLUSTER, owner=BASE, stage=Stage.BASE, subnet=subnet)


def network(name: str = WEB_GATEWAY, **changes: Any) -> ObservedNetwork:
    """An overlay network that is there."""
    values: dict[str, Any] = {"id": f"network-{name}", "name": name, "driver": "overlay", "scope": "swarm"}
    return ObservedNetwork(**(values | changes))


def node(name: str = "node", **changes: Any) -> ObservedNode:
    """A member of the Swarm."""
    return ObservedNode(id=NodeId(name), hostname=name, **changes)


def desired(*specs: ServiceSpec, secrets: dict[str, SecretSpec] | None = None, **more: Any) -> Desired:
    """Everything that we want; `secrets` by service name."""
    return Desired(cluster=CLUSTER, services={s.name: s for s in specs}, secrets=secrets or {}, **more)


def observed(*services: ObservedService, **more: Any) -> Observed:
    """Everything that is there."""
    return Observed(services=services, **more)


def state(*there: ObservedService, wanted: Desired | None = None, **more: Any) -> ReconcileState:
    """What a look found, 1000 s after the epoch."""
    values: dict[str, Any] = {
        "records": Records(cluster=ClusterRecord(id=CLUSTER)),
        "observed": observed(*there, time=1000.0),
        "desired": wanted or desired(),
        "plan": Plan(),
    }
    return ReconcileState(**(values | more))


def result(
    *reports: Report, last: ReconcileState | None = None, verdicts: tuple[Verdict, ...] = ()
) -> ReconcileResult:
    """How a series of passes went."""
    return ReconcileResult(
        last=last or state(wanted=desired(*(spec(verdict.service) for verdict in verdicts))),
        reports=reports,
        verdicts={verdict.service: verdict for verdict in verdicts},
    )


def report(*outcomes: Outcome) -> Report:
    """A pass in which steps went so."""
    return Report(plan=Plan(steps=tuple(outcome.step for outcome in outcomes)), outcomes=outcomes)
