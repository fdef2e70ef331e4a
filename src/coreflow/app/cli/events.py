"""An apply as lines of JSON, one per event, while it happens. The members are documented in docs/commands.md."""

import sys
from collections.abc import Mapping

from coreflow.app.cli import present
from coreflow.app.streams import json_text
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.steps import Plan, Step
from coreflow.domain.swarm.convergence import Verdict


def write_event(event: str, members: Mapping[str, object]) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(json_text({"event": event, **members}) + "\n")
    sys.stdout.flush()


class Events:
    """Writes what is planned, what became of it, and every change of a service's state."""

    def __init__(self) -> None:
        self._planned: set[tuple[str, str, str]] = set()
        self._services: dict[str, present.Json] = {}

    def planned(self, plan: Plan) -> None:
        """Write what a pass is about to do, unless the one before was about to do the same."""
        fresh = {_told(step): present.action_json(step) for step in plan.steps}
        for key, action in fresh.items():
            if key not in self._planned:
                write_event("planned", action)
        self._planned = set(fresh)

    def applied(self, outcome: Outcome) -> None:
        """Write how an action ended."""
        write_event("outcome", present.outcome_json(outcome))

    def progressed(self, verdicts: Mapping[str, Verdict]) -> None:
        """Write what is otherwise than it was said last."""
        for name, verdict in verdicts.items():
            service = present.service_json(verdict)
            if self._services.get(name) != service:
                self._services[name] = service
                write_event("service", service)


def _told(step: Step) -> tuple[str, str, str]:
    action = present.action_json(step)
    return str(action["action"]), f"{action['kind']} {action['name']}", str(action["reason"])
