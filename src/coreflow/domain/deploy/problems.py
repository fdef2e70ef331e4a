"""Problems of a cluster, reported when they begin and when they end, and not every minute in between."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import Factory, evolve, frozen

from coreflow.domain.flapping import CALM, FIRST_COUNT, FLAPPING_EVENTS, LONGEST_COUNT, Flapping, News
from coreflow.domain.pacing import next_delay
from coreflow.domain.swarm.convergence import Verdict

from .desired import Rejection
from .result import ReconcileResult

UNFINISHED_SECONDS = 60.0
"""How long a roll-out may take before it is called unfinished, as long as no task fails."""
STILL_LOOPING = "still crash-looping"
NAME_SHOWN, REASON_SHOWN = 200, 2000
"""Characters of a problem that are told."""

_AWAITED, _UNFINISHED, _LOOPING = "awaited", "unfinished", "crash-looping"
_EVENTS = {_AWAITED: "held"}
"""What is held because an answer is on its way is nothing to worry about."""
_GROUPS = {
    **dict.fromkeys(("rejected", "held", _AWAITED, "failed"), "record"),
    **dict.fromkeys((_UNFINISHED, _LOOPING), "tasks"),
}
"""Kinds that are one problem under several names: it becomes another one, and does not end."""
_SEPARATOR = "\0"


@frozen(kw_only=True)
class Message:
    """One thing to tell."""

    event: str
    level: Literal["info", "warning"] = "warning"
    facts: Mapping[str, object]


@frozen
class _Problem:
    """One thing that is wrong with a name: its kind, what is told of it, and what is news of it when it changes."""

    kind: str
    name: str
    text: str
    sign: str

    @property
    def subject(self) -> str:
        """Return what it is a state of."""
        return f"{_GROUPS.get(self.kind, self.kind)} {self.name}"

    @property
    def state(self) -> str:
        """Return the state of the subject."""
        return f"{self.kind}{_SEPARATOR}{self.sign}"


@frozen(kw_only=True)
class ProblemLog:
    """The problems that have been told."""

    flapping: Flapping = CALM
    """By what they are about."""
    moving: Mapping[str, float] = Factory(dict)
    """Since when services have not run as they should."""
    counted: Mapping[str, tuple[float, float]] = Factory(dict)
    """Crash loops: when they were told of last, and how many seconds later they are told of again."""

    def after(self, result: ReconcileResult, now: float) -> tuple["ProblemLog", tuple[Message, ...]]:
        """Return the log with one more result in it, and what is to be told of it. `now` is any clock in seconds."""
        moving = self._moving(result.verdicts, now)
        found = _by_subject((*_problems(result), *_unfinished(result.verdicts, moving, now)))
        flapping, news = self.flapping.after({key: one.state for key, one in found.items()}, now)

        def is_flapping(service: str) -> bool:
            return flapping.is_flapping(f"tasks {service[:NAME_SHOWN]}")

        running = (
            Message(event="running", level="info", facts={"name": name, "tasks": verdict.running})
            for name, verdict in result.verdicts.items()
            if verdict.done and name in self.moving and not is_flapping(name)
        )
        looping = [
            one for one in result.verdicts.values() if one.is_crash_looping and not is_flapping(one.service)
        ]
        counted, still = _counts(looping, self.counted, now)
        wrong = {one.name for one in found.values()}
        told = (
            *running,
            *still,
            *(_message(one, found.get(one.subject)) for one in news if _is_told(one, wrong)),
        )
        return ProblemLog(flapping=flapping, moving=moving, counted=counted), told

    def _moving(self, verdicts: Mapping[str, Verdict], now: float) -> Mapping[str, float]:
        return {
            name: self.moving.get(name, now)
            for name, verdict in verdicts.items()
            if not verdict.done and (verdict.detail or name in self.moving)
        }


NOTHING_TOLD = ProblemLog()


def _counts(
    looping: Iterable[Verdict], counted: Mapping[str, tuple[float, float]], now: float
) -> tuple[Mapping[str, tuple[float, float]], list[Message]]:
    """Return when crash loops are told of again, and what is told of those that are due."""
    times: dict[str, tuple[float, float]] = {}
    messages = []
    for verdict in looping:
        told, gap = counted.get(verdict.service, (now, FIRST_COUNT))
        times[verdict.service] = (told, gap)
        if now - told >= gap:
            times[verdict.service] = (now, next_delay(gap, longest=LONGEST_COUNT))
            facts = {
                "name": verdict.service[:NAME_SHOWN],
                "times": verdict.crashes,
                "reason": _cut(verdict.error),
            }
            messages.append(Message(event=STILL_LOOPING, facts=facts))
    return times, messages


def _is_told(news: News, wrong: Container[str]) -> bool:
    """Return whether to tell it: not the end of a problem that is only called something else now."""
    return news.what != "ends" or news.subject.partition(" ")[2] not in wrong


def _message(news: News, problem: _Problem | None) -> Message:
    name = news.subject.partition(" ")[2]
    was = news.was.partition(_SEPARATOR)[0]
    was = _EVENTS.get(was, was)
    if news.what == "ends":
        return Message(event="resolved", level="info", facts={"name": name, "was": was})
    kind, text = (problem.kind, problem.text) if problem is not None else ("", "")
    if news.what in {"begins", "changes"}:
        level: Literal["info", "warning"] = "info" if kind == _AWAITED else "warning"
        return Message(event=_EVENTS.get(kind, kind), level=level, facts={"name": name, "reason": text})
    facts: dict[str, object] = {"name": name, "now": _EVENTS.get(kind, kind) or "resolved"}
    facts |= {"reason": text} if text else {"was": was}
    facts |= {"times": news.times, "seconds": round(news.seconds)}
    is_over = news.what == "is calm" and not kind
    return Message(event=FLAPPING_EVENTS[news.what], level="info" if is_over else "warning", facts=facts)


def _by_subject(problems: Iterable[_Problem]) -> dict[str, _Problem]:
    """The problems by what they are about: one service may have several notes, and several records no name."""
    found: dict[str, list[_Problem]] = {}
    for problem in problems:
        found.setdefault(problem.subject, []).append(problem)
    return {subject: _merged(several) for subject, several in found.items()}


def _merged(problems: Sequence[_Problem]) -> _Problem:
    first, *others = problems
    if not others:
        return first
    texts = dict.fromkeys(problem.text for problem in problems)
    signs = dict.fromkeys(problem.sign for problem in problems)
    return evolve(first, text=_cut("; ".join(texts)), sign="; ".join(signs))


def _problem(kind: str, name: str, text: str, sign: str | None = None) -> _Problem:
    """`sign` is the part of the text that is news when it changes; None: all of it."""
    text = _cut(text)
    return _Problem(kind, name[:NAME_SHOWN], text, text if sign is None else sign)


def _problems(result: ReconcileResult) -> Iterator[_Problem]:
    """Yield what the last plan says is wrong, with reasons."""
    plan = result.last.plan
    for rejection in plan.rejections:
        yield _problem(_kind_of(rejection), rejection.name, "; ".join(rejection.reasons))
    for failure in plan.failures:
        yield _problem("failed", failure.name, failure.reason)
    for contest in plan.contests:
        yield _problem("contested", contest.name, contest.reason)
    for note in plan.notes:
        yield _problem("note", note.name, note.text)
    if plan.refusal is not None:
        names = ", ".join(plan.refusal.names)
        yield _problem("refused", "removal", f"{plan.refusal} (COREFLOW_CONFIRM_REMOVAL); services: {names}")


def _kind_of(rejection: Rejection) -> str:
    if rejection.awaited:
        return _AWAITED
    return "held" if rejection.held else "rejected"


def _unfinished(
    verdicts: Mapping[str, Verdict], moving: Mapping[str, float], now: float
) -> Iterator[_Problem]:
    """Services that do not run as they should: at once where there is an error, else after some time."""
    for name, verdict in verdicts.items():
        if verdict.done or not verdict.detail:
            continue
        if verdict.is_crash_looping:
            text = f"its tasks end again and again: {verdict.error}"
            yield _problem(_LOOPING, name, text, sign="")  # the next container ends in another way
        elif verdict.has_error or now - moving[name] >= UNFINISHED_SECONDS:
            text = f"{verdict.running} of {verdict.wanted} running: {verdict.detail}"
            yield _problem(_UNFINISHED, name, text, sign=verdict.error)  # how many run changes while it lasts


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= REASON_SHOWN
        else f"{text[:REASON_SHOWN]}… and {len(text) - REASON_SHOWN} more characters"
    )
