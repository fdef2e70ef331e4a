"""Reconcile a Docker Swarm with the service records of a control plane.

This module is the pure core: decode records, render them, plan. It imports neither a runtime nor a client of anything.
Names are imported when they are first asked for: `coreflow --help` needs none of them.
"""

from __future__ import annotations

from importlib import import_module

from coreflow._moved import RENAMED, TYPE_CHECKING, install, renamed

if TYPE_CHECKING:
    from typing import Any

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
        PreconditionFailed,
        Problem,
        Refused,
        Unavailable,
    )
    from coreflow.domain.ports import ControlPlane, DockerPort
    from coreflow.domain.records.codec import RecordDecoder, decode_records
    from coreflow.domain.records.models import Records
    from coreflow.domain.swarm.convergence import Verdict, judge, judge_all
    from coreflow.domain.swarm.observed import Observed

install()

__all__ = [
    "BaseOptions",
    "ControlPlane",
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
    "PreconditionFailed",
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
_WHERE = {
    "BaseOptions": "domain.deploy.base",
    "ControlPlane": "domain.ports",
    "CoreflowError": "domain.errors",
    "Desired": "domain.deploy.desired",
    "DockerPort": "domain.ports",
    "InvalidRecord": "domain.errors",
    "LostRace": "domain.errors",
    "Observed": "domain.swarm.observed",
    "Outcome": "domain.deploy.result",
    "Plan": "domain.deploy.steps",
    "PlanOptions": "domain.deploy.steps",
    "PortError": "domain.errors",
    "PreconditionFailed": "domain.errors",
    "Problem": "domain.errors",
    "RecordDecoder": "domain.records.codec",
    "Records": "domain.records.models",
    "Refused": "domain.errors",
    "RenderOptions": "domain.deploy.desired",
    "Renderer": "domain.deploy.render",
    "Report": "domain.deploy.result",
    "Unavailable": "domain.errors",
    "Verdict": "domain.swarm.convergence",
    "decode_records": "domain.records.codec",
    "judge": "domain.swarm.convergence",
    "judge_all": "domain.swarm.convergence",
    "make_plan": "domain.deploy.plan",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        if RENAMED.get(name) in _WHERE:
            __getattr__(RENAMED[name])
        return renamed(name, globals())
    found = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
