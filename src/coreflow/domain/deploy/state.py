"""The state that one look found."""

from collections.abc import Mapping

from attrs import frozen

from coreflow.domain.ids import BASE, Owner
from coreflow.domain.records.models import Records
from coreflow.domain.swarm.convergence import AT_ONCE, Settling, Verdict, judge_all
from coreflow.domain.swarm.observed import Observed

from .desired import Desired, duplicate_ids
from .steps import Plan


@frozen(kw_only=True)
class ReconcileState:
    """The state that one look found, and what follows from it."""

    records: Records
    observed: Observed
    desired: Desired
    plan: Plan
    refreshing: bool = False
    """Whether an image that runs is being looked up again, to notice a tag that moved."""
    settling: Settling = AT_ONCE
    """What tells a task that has just begun to run from one that runs."""

    @property
    def is_awaiting(self) -> bool:
        """Return whether answers of registries are on their way."""
        return self.refreshing or any(rejection.awaited for rejection in self.plan.rejections)

    @property
    def crash_loops(self) -> tuple[Verdict, ...]:
        """The wanted services whose tasks end by themselves again and again."""
        return tuple(verdict for verdict in self.verdicts.values() if verdict.is_crash_looping)

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """Return how far each wanted service is."""
        observed = self.observed
        names = sorted(self.desired.services)
        return judge_all(names, observed.services, observed.tasks, observed.nodes, self.settling)

    @property
    def strays(self) -> frozenset[str]:
        """Workloads of ours that are there without a record of their own that can be read: to be removed, or kept for now."""
        ambiguous = duplicate_ids(self.records)
        known = {Owner(record.id) for record in self.records.services if record.id not in ambiguous} | {BASE}
        return self._names_beside(known)

    @property
    def unknown_hosts(self) -> frozenset[str]:
        """The strays of whose records not even the host names can be read."""
        readable = {
            Owner(one.id or "")
            for one in self.records.rejected
            if one.salvaged is not None and one.salvaged.has("domains", "ports")
        }
        return self.strays & self._names_beside(readable)

    def _names_beside(self, owners: set[Owner]) -> frozenset[str]:
        cluster = self.desired.cluster
        services = self.observed.services
        return frozenset(s.name for s in services if s.cluster == cluster and s.owner not in owners)

    @property
    def knows_all_hosts(self) -> bool:
        """Return whether there can be no host besides those of the records: no stray, and no record that could not be read."""
        return not self.strays and not any(r.kind == "service" for r in self.records.rejected)
