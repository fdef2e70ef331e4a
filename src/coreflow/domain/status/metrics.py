"""The status in numbers, for Prometheus.

Nothing here outlives its time: services that nobody has seen lately are `unknown`, and every look has its time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import get_args

from attrs import frozen

from coreflow.domain.measures import Metric

from .connections import CLOUDLY, CORETRAFFIC
from .model import HostStatus, Overall, ServiceStatus, State, Status

MOST_SUBJECTS = 1000
"""So many services and hosts have series of their own at most."""


@frozen(kw_only=True)
class MetricOptions:
    """Options of metrics."""

    per_service: bool = True
    """Whether services and hosts have series of their own."""


def status_metrics(status: Status, options: MetricOptions) -> Iterator[Metric]:
    """Yield all that a status has in numbers."""
    yield from _overall(status)
    yield from _peers(status)
    yield from _services(status.services, options)
    yield from _hosts(status, options)
    yield _gauge(
        "network_addresses",
        "Addresses of overlay networks for tasks and virtual addresses.",
        ("network",),
        {(n.name,): float(n.addresses) for n in status.networks},
    )
    yield _gauge(
        "network_addresses_free",
        "Those of them that are free.",
        ("network",),
        {(n.name,): float(n.free) for n in status.networks},
    )


def word(text: str) -> str:
    """Return a state as the value of a label."""
    return text.replace(" ", "_").replace("-", "_")


def _gauge(name: str, meaning: str, labels: tuple[str, ...], values: dict[tuple[str, ...], float]) -> Metric:
    return Metric(name=name, meaning=meaning, kind="gauge", labels=labels, values=values)


def _times(name: str, meaning: str, time: float | None) -> Metric:
    return _gauge(name, meaning, (), {} if not time else {(): time})


def _overall(status: Status) -> Iterator[Metric]:
    yield _gauge(
        "status",
        "1 for the verdict on everything.",
        ("verdict",),
        {(word(one),): float(one == status.verdict) for one in get_args(Overall)},
    )
    kinds = Counter(problem.kind for problem in status.problems)
    yield _gauge(
        "problems",
        "Problems that there are now, by kind; what has one cause is one problem.",
        ("kind",),
        {(word(kind),): float(count) for kind, count in kinds.items()},
    )
    yield _times(
        "services_checked_timestamp_seconds", "When services were last seen.", status.checked.services
    )
    yield _times("records_checked_timestamp_seconds", "When records were last read.", status.checked.records)
    yield _times("hosts_checked_timestamp_seconds", "When the routes were last made.", status.checked.hosts)


def _peers(status: Status) -> Iterator[Metric]:
    """Peers by kind: of several, one that is down counts. Their addresses would be labels without end."""
    up: dict[tuple[str, ...], float] = {}
    checked: dict[tuple[str, ...], float] = {}
    for one in status.connections:
        key = (one.peer,)
        up[key] = min(up.get(key, 1.0), float(one.is_up))
        if one.is_up:
            checked[key] = max(checked.get(key, 0.0), one.checked)
    yield _gauge("peer_up", "Whether a peer answers; of several, whether all do.", ("peer",), up)
    yield _gauge(
        "peer_last_success_timestamp_seconds",
        "When a peer that answers last did.",
        ("peer",),
        checked,
    )
    cloudly = [one for one in status.connections if one.peer == CLOUDLY]
    yield _gauge(
        "cloudly_up",
        "Whether the connection to Cloudly is there and logged in.",
        (),
        {(): float(all(one.is_up for one in cloudly))} if cloudly else {},
    )
    proxies = [one for one in status.connections if one.peer == CORETRAFFIC and one.is_up]
    yield _gauge("coretraffic_connections", "Proxies that are connected.", (), {(): float(len(proxies))})


def _services(services: Iterable[ServiceStatus], options: MetricOptions) -> Iterator[Metric]:
    services = tuple(services)
    counts = Counter(one.state for one in services)
    yield _gauge(
        "services",
        "Services by how they are, in the words of `coreflow status`.",
        ("state",),
        {(word(state),): float(counts[state]) for state in get_args(State)},
    )
    yield _gauge(
        "services_drifted",
        "Services that differ from their records.",
        (),
        {(): float(sum(bool(one.drift) for one in services))},
    )
    shown = services[:MOST_SUBJECTS] if options.per_service else ()
    yield _gauge(
        "service_tasks_running",
        "Tasks of a service that run.",
        ("service",),
        {(one.name,): float(one.running) for one in shown},
    )
    yield _gauge(
        "service_tasks_wanted",
        "Tasks of a service that are wanted.",
        ("service",),
        {(one.name,): float(one.wanted) for one in shown},
    )


def _hosts(status: Status, options: MetricOptions) -> Iterator[Metric]:
    routed = sum(host.is_routed for host in status.hosts)
    yield _gauge(
        "hosts",
        "Host names by whether they are routed.",
        ("state",),
        {("routed",): float(routed), ("not_routed",): float(len(status.hosts) - routed)},
    )
    dated = sorted((h for h in status.hosts if h.expires is not None), key=_expiry)
    yield _gauge(
        "certificate_expiry_timestamp_seconds",
        "When the certificate of a host expires; the first thousand of them.",
        ("host",),
        {(h.host,): _expiry(h) for h in dated[:MOST_SUBJECTS]} if options.per_service else {},
    )
    yield _times(
        "certificate_first_expiry_timestamp_seconds",
        "When the first certificate of all expires.",
        _expiry(dated[0]) if dated else None,
    )


def _expiry(host: HostStatus) -> float:
    return host.expires or 0.0
