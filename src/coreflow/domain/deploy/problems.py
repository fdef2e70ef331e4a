"""Problems of a cluster, and when they are told: as they begin and as they end, and not every minute in between."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from attrs import Factory, frozen

from coreflow.domain.swarm.convergence import Verdict

from .desired import Rejection
from .result import ReconcileResult

UNFINISHED_SECONDS = 60.0
"""How long a roll-out may take before it is called unfinished, as long as no task fails."""
NAME_SHOWN, REASON_SHOWN = 200, 2000
"""Characters of a problem that are told."""

_SAID_ONCE = frozenset({"crash-looping"})
"""Problems whose reasons take turns while they last: the next container ends in another way."""
_AWAITED = "awaited"
_EVENTS = {_AWAITED: "held"}
"""What is held because an answer is on its way is nothing to worry about."""


@frozen(kw_only=True)
class Message:
    """One thing to tell."""

    event: str
    level: Literal["info", "warning"] = "warning"
    facts: Mapping[str, object]


@frozen(kw_only=True)
class ProblemLog:
    """The problems that have been told."""

    known: Mapping[str, str] = Factory(dict)
    """Reasons by kind and name."""
    moving: Mapping[str, float] = Factory(dict)
    """Since when services have not run as they should."""

    def after(self, result: ReconcileResult, now: float) -> tuple["ProblemLog", tuple[Message, ...]]:
        """Return the log with one more result in it, and what is to be told of it. `now` is any clock in seconds."""
        moving = {
            name: self.moving.get(name, now)
            for name, verdict in result.verdicts.items()
            if not verdict.done and (verdict.detail or name in self.moving)
        }
        found = _by_key(_problems(result))
        found.update(_unfinished(result.verdicts, moving, now))
        found = {key[:NAME_SHOWN]: _cut(text) for key, text in found.items()}
        running = (
            Message(event="running", level="info", facts={"name": name, "tasks": verdict.running})
            for name, verdict in result.verdicts.items()
            if verdict.done and name in self.moving
        )
        told = (*running, *self._begun(found), *self._ended(found))
        return ProblemLog(known=found, moving=moving), told

    def _begun(self, found: Mapping[str, str]) -> Iterator[Message]:
        for key, text in found.items():
            kind, _, name = key.partition(" ")
            if key not in self.known or (self.known[key] != text and kind not in _SAID_ONCE):
                yield Message(
                    event=_EVENTS.get(kind, kind),
                    level="info" if kind == _AWAITED else "warning",
                    facts={"name": name, "reason": text},
                )

    def _ended(self, found: Mapping[str, str]) -> Iterator[Message]:
        still = {key.partition(" ")[2] for key in found}
        for key in self.known:
            kind, _, name = key.partition(" ")
            if key not in found and name not in still:  # else it is only called something else now
                yield Message(
                    event="resolved", level="info", facts={"name": name, "was": _EVENTS.get(kind, kind)}
                )


NOTHING_TOLD = ProblemLog()


def _by_key(problems: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The reasons by kind and name: one service may have several notes, and several records no name."""
    found: dict[str, list[str]] = {}
    for key, text in problems:
        found.setdefault(key, []).append(text)
    return {key: "; ".join(dict.fromkeys(texts)) for key, texts in found.items()}


def _problems(result: ReconcileResult) -> Iterator[tuple[str, str]]:
    """Yield what the last plan says is wrong, by kind and name, with reasons."""
    plan = result.last.plan
    for rejection in plan.rejections:
        yield f"{_kind_of(rejection)} {rejection.name}", "; ".join(rejection.reasons)
    for failure in plan.failures:
        yield f"failed {failure.name}", failure.reason
    for contest in plan.contests:
        yield f"contested {contest.name}", contest.reason
    for note in plan.notes:
        yield f"note {note.name}", note.text
    if plan.refusal is not None:
        names = ", ".join(plan.refusal.names)
        yield "refused removal", f"{plan.refusal} (COREFLOW_CONFIRM_REMOVAL); services: {names}"


def _kind_of(rejection: Rejection) -> str:
    if rejection.awaited:
        return _AWAITED
    return "held" if rejection.held else "rejected"


def _unfinished(
    verdicts: Mapping[str, Verdict], moving: Mapping[str, float], now: float
) -> Iterator[tuple[str, str]]:
    """Services that do not run as they should: at once where there is an error, else after some time."""
    for name, verdict in verdicts.items():
        if verdict.done or not verdict.detail:
            continue
        if verdict.is_crash_looping:
            yield f"crash-looping {name}", f"its tasks end again and again: {verdict.error}"
        elif verdict.has_error or now - moving[name] >= UNFINISHED_SECONDS:
            text = f"{verdict.running} of {verdict.wanted} running: {verdict.detail}"
            yield f"unfinished {name}", text


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= REASON_SHOWN
        else f"{text[:REASON_SHOWN]}… and {len(text) - REASON_SHOWN} more characters"
    )
