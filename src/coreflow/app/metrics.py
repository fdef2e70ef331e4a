"""Counters of what has been done since the process began."""

from collections import Counter
from collections.abc import Iterator

from coreflow.domain.deploy.result import Metric, ReconcileResult
from coreflow.domain.deploy.steps import kind_of, verb_of

from .operations import Operations


class Metrics:
    """Counts what passes did, and reads the counters of operations."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._passes = 0
        self._actions: Counter[tuple[str, ...]] = Counter()
        self._last: ReconcileResult | None = None

    def reconciled(self, reconcile_result: ReconcileResult) -> None:
        """A series of passes has ended."""
        self._passes += len(reconcile_result.reports)
        self._last = reconcile_result
        for report in reconcile_result.reports:
            for outcome in report.outcomes:
                action = outcome.step.action
                self._actions[verb_of(action).replace(" ", "_"), kind_of(action), outcome.status] += 1

    def read(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        counters = self._operations.counters
        yield Metric(name="passes", meaning="Passes that have ended.", values={(): self._passes})
        yield Metric(
            name="actions",
            meaning="Actions of passes, by what they do, what it is done to, and how they ended.",
            labels=("action", "kind", "status"),
            values=dict[tuple[str, ...], float](self._actions),
        )
        if self._last is not None:
            plan = self._last.last.plan
            loops = sum(verdict.is_crash_looping for verdict in self._last.verdicts.values())
            yield Metric(
                name="services",
                meaning="Services at the end of the last pass, by how they are.",
                kind="gauge",
                labels=("state",),
                values={
                    ("as_desired",): max(plan.kept - loops, 0),
                    ("crash_looping",): loops,
                    ("waiting",): len(plan.waits),
                    ("rejected",): len(plan.rejections),
                    ("failed",): len(plan.failures),
                },
            )
        for name, counts in (("backups", counters.backups), ("restores", counters.restores)):
            yield Metric(
                name=name,
                meaning=f"{name.capitalize()} that have ended, by how.",
                labels=("status",),
                values={(s,): counts.get(s, 0) for s in ("completed", "partial", "failed")},
            )
        yield Metric(
            name="operations_running",
            meaning="Backups and restores under way.",
            kind="gauge",
            values={(): counters.running},
        )
        yield Metric(
            name="restores_left_stopped",
            meaning="Services that are stopped by a restore that could not be finished.",
            kind="gauge",
            values={(): counters.left_stopped},
        )
        yield Metric(
            name="archive_bytes_moved",
            meaning="Bytes of archive objects that were sent or fetched.",
            values={(): counters.bytes_moved},
        )
