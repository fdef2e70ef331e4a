"""Setbacks: steps that could not be carried out, and when each is tried again, with growing pauses.

A changed spec makes another step, which is tried at once; so is everything when an operator asks for it. A restart forgets
all setbacks, which costs some retries and nothing else.
"""

from collections.abc import Callable, Iterable, Mapping

from attrs import Factory, evolve, frozen

from coreflow.domain.pacing import next_delay
from coreflow.domain.swarm.actions import MarkFailed
from coreflow.domain.swarm.observed import ObservedSecret, ObservedService
from coreflow.domain.swarm.specs import ServiceSpec

from .result import Outcome
from .steps import Action, Step, kind_of, name_of, subject_of, verb_of

FIRST_REFUSED, LONGEST_REFUSED = 15.0, 3600.0
"""Seconds until what was refused is tried again: the first pause, and what it grows to."""

StepKey = tuple[str, str, str, str]
"""Unit, verb, kind and name."""


@frozen(kw_only=True)
class Setback:
    """A step that could not be carried out."""

    about: object
    """What was wanted: something else is another step."""
    reason: str
    is_refused: bool
    pause: float
    due: float
    """When it is tried again, by the clock of whoever says what time it is."""


@frozen(kw_only=True)
class Setbacks:
    """The steps that could not be carried out, and are to be tried again."""

    entries: Mapping[StepKey, Setback] = Factory(dict)

    def of(self, step: Step, now: float) -> Setback | None:
        """Return why a step is not tried now, if it is not."""
        entry = self.entries.get(_key(step))
        return entry if entry is not None and entry.due > now and entry.about == _about(step.action) else None

    def after(self, outcome: Outcome, now: float) -> "Setbacks":
        """Return what is known after a step was tried. That somebody else was faster is no setback."""
        key, entries = _key(outcome.step), dict(self.entries)
        last = entries.pop(key, None)
        if outcome.status == "failed":
            about, is_refused = _about(outcome.step.action), not outcome.retry
            same = last is not None and last.about == about and last.is_refused == is_refused
            before = last.pause if last is not None and same else 0.0
            pause = (
                next_delay(before, first=FIRST_REFUSED, longest=LONGEST_REFUSED)
                if is_refused
                else next_delay(before)
            )
            entries[key] = Setback(
                about=about, reason=outcome.detail, is_refused=is_refused, pause=pause, due=now + pause
            )
        return evolve(self, entries=entries)

    def only(self, steps: Iterable[Step]) -> "Setbacks":
        """Without what nobody wants any more."""
        if not self.entries:
            return self
        wanted = {_key(step) for step in steps}
        return self._where(lambda key, _: key in wanted)

    def refusals(self) -> "Setbacks":
        """Without what failed because a peer was away: it is back."""
        return self._where(lambda _, entry: entry.is_refused)

    def _where(self, predicate: Callable[[StepKey, Setback], bool]) -> "Setbacks":
        entries = {key: entry for key, entry in self.entries.items() if predicate(key, entry)}
        return evolve(self, entries=entries)

    def pause_of(self, step: Step, now: float) -> float | None:
        """In how many seconds a step is tried again, if it could not be carried out."""
        entry = self.entries.get(_key(step))
        return max(entry.due - now, 0.0) if entry is not None else None

    def next_due(self) -> float | None:
        """Return when the first of them is tried again."""
        return min((entry.due for entry in self.entries.values()), default=None)


NO_SETBACKS = Setbacks()


def _key(step: Step) -> StepKey:
    return step.unit, verb_of(step.action), kind_of(step.action), name_of(step.action)


def _about(action: Action) -> object:
    """Return what a step wants, in a form that can be compared."""
    match subject_of(action):
        case ServiceSpec() as spec:
            return (spec.seal, action.reason) if isinstance(action, MarkFailed) else spec.seal
        case ObservedService() | ObservedSecret() as target:
            return target.id
        case spec:
            return spec
