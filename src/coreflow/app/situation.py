"""What one look found."""

from collections.abc import Mapping

from attrs import frozen

from coreflow.domain.convergence import Verdict, judge_all
from coreflow.domain.desired import Desired
from coreflow.domain.observed import Observed
from coreflow.domain.plan import Plan
from coreflow.domain.records import Records


@frozen(kw_only=True)
class Situation:
    """What one look found, and what follows from it."""

    records: Records
    observed: Observed
    desired: Desired
    plan: Plan

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """How far each wanted service is."""
        observed = self.observed
        return judge_all(sorted(self.desired.services), observed.services, observed.tasks, observed.nodes)
