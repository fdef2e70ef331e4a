"""Counters of what has been done since the process began, and the status in numbers."""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version

from coreflow.domain.deploy.reasons import BY_HAND
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.deploy.steps import kind_of, verb_of
from coreflow.domain.errors import InvalidRecord, PortError
from coreflow.domain.measures import LONG_SECONDS, Histogram, Metric
from coreflow.domain.status.metrics import MOST_SUBJECTS, MetricOptions, status_metrics
from coreflow.domain.status.model import Status
from coreflow.domain.swarm.observed import ROLLED_BACK, ObservedService

from .engine_calls import EngineCalls
from .operations import Operations

SUCCESS = "success"
RESULTS = (SUCCESS, "peer", "records", "bug")
_WRITES = frozenset({"create", "update", "recreate"})
Labels = tuple[str, ...]


class Metrics:
    """Counts what passes did, and reads the counters of operations, and the status.

    `wall_clock` gives seconds since 1970.
    """

    def __init__(
        self,
        operations: Operations,
        status: Callable[[], Status],
        wall_clock: Callable[[], float],
        *,
        calls: EngineCalls | None = None,
        triggers: Mapping[str, int] | None = None,
        connects: Callable[[], int | None] = lambda: None,
        options: MetricOptions | None = None,
    ) -> None:
        self._operations, self._status, self._wall_clock = operations, status, wall_clock
        self._calls, self._connects = calls or EngineCalls(), connects
        self._triggers: Mapping[str, int] = {} if triggers is None else triggers
        self._options = options or MetricOptions()
        self._passes = self._roll_outs = self._roll_backs = self._drifts = self._lost = 0
        self._actions: Counter[Labels] = Counter()
        self._results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self._seconds = Histogram()
        self._succeeded: float | None = None
        self._rolled_back: dict[str, str] = {}
        """By service: when the roll-out began that was rolled back."""

    def reconciled(self, reconcile_result: ReconcileResult, seconds: float) -> None:
        """A series of passes has ended."""
        self._passes += len(reconcile_result.reports)
        self._results[SUCCESS] += 1
        self._seconds = self._seconds.after(seconds)
        self._succeeded = self._wall_clock()
        for report in reconcile_result.reports:
            for outcome in report.outcomes:
                action = outcome.step.action
                verb, kind = verb_of(action), kind_of(action)
                self._actions[verb.replace(" ", "_"), kind, outcome.status] += 1
                self._lost += outcome.status == "overtaken"
                if outcome.status == "applied" and kind == "service" and verb in _WRITES:
                    self._roll_outs += 1
                    self._drifts += BY_HAND in action.reason
        self._look_for_roll_backs(reconcile_result.last.observed.services)

    def _look_for_roll_backs(self, services: tuple[ObservedService, ...]) -> None:
        found = {s.id: s.update_started for s in services if s.update_state in ROLLED_BACK}
        is_first = self._results[SUCCESS] == 1  # those happened before
        new = sum(self._rolled_back.get(one) != started for one, started in found.items())
        self._roll_backs += 0 if is_first else new
        self._rolled_back = found

    def failed(self, error: Exception, seconds: float) -> None:
        """A series of passes did not end."""
        self._seconds = self._seconds.after(seconds)
        kind = "records" if isinstance(error, InvalidRecord) else "peer"
        self._results[kind if isinstance(error, (InvalidRecord, PortError)) else "bug"] += 1

    def read(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        yield Metric(
            name="build_info",
            meaning="1; the versions of coreflow and of Python.",
            kind="gauge",
            labels=("version", "python"),
            values={(version("coreflow"), platform.python_version()): 1.0},
        )
        yield from self._of_passes()
        yield from self._of_peers()
        yield from self._of_operations()
        yield from status_metrics(self._status(), self._options)

    def _of_passes(self) -> Iterator[Metric]:
        yield _count("passes", "Passes that have ended.", self._passes)
        yield Metric(
            name="actions",
            meaning="Actions of passes, by what they do, what it is done to, and how they ended.",
            labels=("action", "kind", "status"),
            values=dict[Labels, float](self._actions),
        )
        yield Metric(
            name="reconciles",
            meaning="Series of passes, by result: success, or who is to blame (peer, records, bug).",
            labels=("result",),
            values={(name,): float(count) for name, count in self._results.items()},
        )
        yield Metric(
            name="reconcile_duration_seconds",
            meaning="How long series of passes took.",
            kind="histogram",
            histograms={(): self._seconds},
        )
        yield Metric(
            name="reconcile_last_success_timestamp_seconds",
            meaning="When the last series of passes ended that could see and plan everything.",
            kind="gauge",
            values={} if self._succeeded is None else {(): self._succeeded},
        )
        yield Metric(
            name="triggers",
            meaning="Requests for a pass, by who asked, in the words of the journal; `again` after a failure.",
            labels=("cause",),
            values={(name,): float(count) for name, count in self._triggers.items()},
        )
        yield _count("roll_outs", "Services that were created or changed.", self._roll_outs)
        yield _count("roll_backs", "Roll-outs that Swarm was seen to roll back.", self._roll_backs)
        yield _count("drifts", "Changes by hand that were put right.", self._drifts)
        yield _count("lost_races", "Actions that somebody else was faster than.", self._lost)

    def _of_peers(self) -> Iterator[Metric]:
        yield Metric(
            name="engine_requests",
            meaning="Calls of the engine that ended, by method, path without names, and HTTP status; `none` is no answer.",
            labels=("method", "path", "code"),
            values=dict[Labels, float](self._calls.counts),
        )
        yield Metric(
            name="engine_request_duration_seconds",
            meaning="How long calls of the engine took.",
            kind="histogram",
            labels=("method", "path"),
            histograms=dict(self._calls.seconds),
        )
        connects = self._connects()
        yield Metric(
            name="cloudly_connects",
            meaning="Times that a connection to Cloudly was made and logged in.",
            values={} if connects is None else {(): float(connects)},
        )

    def _of_operations(self) -> Iterator[Metric]:
        counters = self._operations.counters
        for name, counts in (("backups", counters.backups), ("restores", counters.restores)):
            yield Metric(
                name=name,
                meaning=f"{name.capitalize()} that have ended, by how.",
                labels=("status",),
                values={(s,): counts.get(s, 0) for s in ("completed", "partial", "failed")},
            )
        yield Metric(
            name="operation_duration_seconds",
            meaning="How long backups and restores took.",
            kind="histogram",
            labels=("kind",),
            histograms={
                (kind,): counters.seconds.get(kind, Histogram(bounds=LONG_SECONDS))
                for kind in ("backup", "restore")
            },
        )
        completed = (
            sorted(counters.completed.items(), key=lambda one: -one[1]) if self._options.per_service else ()
        )
        yield Metric(
            name="backup_last_success_timestamp_seconds",
            meaning="When the last backup of a service was completed, since this process began; by the id of its record.",
            kind="gauge",
            labels=("service_id",),
            values={(service_id,): time for service_id, time in completed[:MOST_SUBJECTS]},
        )
        yield _gauge("operations_running", "Backups and restores under way.", counters.running)
        yield _gauge(
            "restores_left_stopped",
            "Services that are stopped by a restore that could not be finished.",
            counters.left_stopped,
        )
        yield _count(
            "archive_bytes_moved", "Bytes of archive objects that were sent or fetched.", counters.bytes_moved
        )


def _count(name: str, meaning: str, number: int) -> Metric:
    return Metric(name=name, meaning=meaning, values={(): float(number)})


def _gauge(name: str, meaning: str, number: int) -> Metric:
    return Metric(name=name, meaning=meaning, kind="gauge", values={(): float(number)})


def metrics_table(metrics: Iterable[Metric]) -> str:
    """Metrics as the Markdown table of docs/metrics.md."""
    rows = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        suffix = "_total" if metric.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `coreflow_{metric.name}{suffix}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(rows) + "\n"
