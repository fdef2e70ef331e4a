"""Was the spec that we want rolled back, by what evidence, who was to blame, and when is it tried again?

Swarm gives a service its old spec and its old labels back and forgets the one that failed. What is left is evidence of
several kinds, and none of it is always there: the labels of an earlier note of ours, `UpdateStatus`, the previous spec
after a roll-back by hand, failed tasks (as many as the Swarm's task history keeps, which may be none), and what this
process wrote itself. Missing proof is no proof that nothing was tried: a service that Swarm has rolled back, and about
which nothing says that it was something else, was rolled back from what we want.

A failure of the image is final. One of the platform, or of unknown cause, is tried again with growing pauses, a few times.
"""

from collections.abc import Sequence

from attrs import frozen

from coreflow.domain.swarm import naming
from coreflow.domain.swarm.convergence import maybe_unhealthy
from coreflow.domain.swarm.failures import Cause, cause_of, common_cause
from coreflow.domain.swarm.observed import ROLLED_BACK, ObservedService, ObservedTask, seconds_of
from coreflow.domain.swarm.specs import ServiceSpec, template_fingerprint

from .contention import WriteLog

PAUSES = (5.0, 30.0, 120.0, 600.0)
"""Seconds between a failure that was not the image's and the next attempt."""
MOST_ATTEMPTS = len(PAUSES) + 1
NO_RECORD = "the engine kept no failed task that tells why"
_ENDED = frozenset({"failed", "rejected", "complete", "orphaned"})
"""How a task ends by itself: Swarm also rolls back for a container that ends too soon and says that all is well."""


_EXITED = "its container ended (exit code 0)"


@frozen(kw_only=True)
class FailedAttempt:
    """A roll-out of the spec that we want, which Swarm or an operator undid."""

    times: int
    cause: Cause
    reason: str
    at: float
    """When that was noted, or seen, by the engine's clock."""
    is_noted: bool = False
    """Whether the service's labels tell of it already."""
    is_stuck: bool = False
    """Whether the roll-back has stopped halfway: a write now starts another roll-out."""

    @property
    def is_final(self) -> bool:
        """Return whether it is not tried again."""
        return self.cause is Cause.IMAGE or self.times >= MOST_ATTEMPTS

    @property
    def due(self) -> float:
        """Return when it is tried again, by the engine's clock."""
        return self.at + PAUSES[min(self.times, len(PAUSES)) - 1]


def failed_attempt(
    spec: ServiceSpec, live: ObservedService, tasks: Sequence[ObservedTask], log: WriteLog
) -> FailedAttempt | None:
    """Return what is known of a failed attempt to roll out `spec`; `tasks` are all of the live service."""
    noted = _noted(spec, live)
    failed = _failed_tasks(spec, live, tasks)
    if not _was_rolled_back(spec, live, tasks, failed, log):
        return noted
    entry = log.entry(spec.name, spec.fingerprints.whole)
    known = max(noted.times + 1 if noted is not None else 1, entry.attempts if entry is not None else 1)
    by_hand = live.previous_intent is not None
    is_stuck = live.update_state == "rollback_paused"
    return FailedAttempt(
        times=known,
        # nobody can tell what it was: trying it again for ever is the greater harm
        cause=Cause.IMAGE if by_hand or not failed else common_cause(failed),
        reason=_reason(spec, live, failed, by_hand=by_hand),
        at=seconds_of(live.updated_at),
        is_stuck=is_stuck,
    )


def _noted(spec: ServiceSpec, live: ObservedService) -> FailedAttempt | None:
    labels = live.labels
    if labels.get(naming.FAILED) != spec.fingerprints.whole:
        return None
    times, cause = labels.get(naming.FAILED_TIMES, ""), labels.get(naming.FAILED_CAUSE)
    return FailedAttempt(
        times=int(times) if times.isascii() and times.isdigit() and len(times) < 4 else 1,
        cause=Cause(cause) if cause in set(Cause) else Cause.IMAGE,
        reason=labels.get(naming.FAILED_REASON) or "rolled back",
        at=seconds_of(live.updated_at),
        is_noted=True,
    )


def _of_roll_out(live: ObservedService, tasks: Sequence[ObservedTask]) -> list[ObservedTask]:
    """Tasks of the last roll-out, in their order."""
    return sorted((t for t in tasks if t.created_at >= live.update_started), key=lambda t: t.created_at)


def _failed_tasks(
    spec: ServiceSpec, live: ObservedService, tasks: Sequence[ObservedTask]
) -> list[ObservedTask]:
    """Those that were made from this spec and ended."""
    template = template_fingerprint(spec.body)
    return [t for t in _of_roll_out(live, tasks) if t.template == template and t.state in _ENDED]


def _was_rolled_back(
    spec: ServiceSpec,
    live: ObservedService,
    tasks: Sequence[ObservedTask],
    failed: Sequence[ObservedTask],
    log: WriteLog,
) -> bool:
    """Return whether the spec that Swarm, or an operator, rolled back last is the one that we still want."""
    if live.update_state not in ROLLED_BACK:
        return False
    if failed or live.previous_intent is not None:
        return bool(failed) or live.previous_intent == spec.fingerprints.whole
    known = {None, template_fingerprint(live.body), template_fingerprint(spec.body)}
    was_another = any(task.template not in known for task in _of_roll_out(live, tasks))
    return not was_another and not log.tried_other(spec.name, spec.fingerprints.whole)


def _reason(
    spec: ServiceSpec, live: ObservedService, failed: Sequence[ObservedTask], *, by_hand: bool
) -> str:
    how = "roll-back stuck" if live.update_state == "rollback_paused" else "rolled back"
    if failed:
        blamed = next(
            (task for task in reversed(failed) if cause_of(task) is common_cause(failed)), failed[-1]
        )
        text = blamed.error or (_EXITED if blamed.state == "complete" else blamed.message)
        return f"{how}: {text}{maybe_unhealthy(spec.body, has_exited=text == _EXITED)}"
    return f"{how} by hand" if by_hand else f"{how}; {NO_RECORD}"
