"""Reconcile a Docker Swarm with the service records of a control plane.

This module is the pure core: decode records, render them, plan. It imports neither a runtime nor a client of anything.
"""

from coreflow._moved import install
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import Desired, RenderOptions
from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.deploy.render import Renderer
from coreflow.domain.deploy.result import Outcome, Report
from coreflow.domain.deploy.steps import Plan, PlanOptions
from coreflow.domain.errors import (
    CoreflowError,
    InvalidRecord,
    LostRace,
    PortError,
    Problem,
    Refused,
    Unavailable,
)
from coreflow.domain.ports import CloudlyPort, DockerPort
from coreflow.domain.records.codec import RecordDecoder, decode_records
from coreflow.domain.records.models import Records
from coreflow.domain.swarm.convergence import Verdict, judge, judge_all
from coreflow.domain.swarm.observed import Observed

install()

__all__ = [
    "BaseOptions",
    "CloudlyPort",
    "CoreflowError",
    "Desired",
    "DockerPort",
    "InvalidRecord",
    "LostRace",
    "Observed",
    "Outcome",
    "Plan",
    "PlanOptions",
    "PortError",
    "Problem",
    "RecordDecoder",
    "Records",
    "Refused",
    "RenderOptions",
    "Renderer",
    "Report",
    "Unavailable",
    "Verdict",
    "decode_records",
    "judge",
    "judge_all",
    "make_plan",
]
