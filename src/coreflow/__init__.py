"""Reconcile a Docker Swarm with the service records of a control plane.

This module is the pure core: decode records, render them, plan. It imports neither a runtime nor a client of anything.
"""

from coreflow.domain.base import BaseOptions
from coreflow.domain.codec import RecordDecoder, decode_records
from coreflow.domain.convergence import Verdict, judge, judge_all
from coreflow.domain.desired import Desired, Renderer, RenderOptions
from coreflow.domain.errors import (
    CoreflowError,
    InvalidRecord,
    LostRace,
    PortError,
    Problem,
    Refused,
    Unavailable,
)
from coreflow.domain.observed import Observed
from coreflow.domain.plan import Plan, PlanOptions, make_plan
from coreflow.domain.ports import CloudlyPort, DockerPort
from coreflow.domain.records import Records
from coreflow.domain.report import Outcome, Report

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
