"""What could not be done: when it is tried again, and what ends the pause."""

from attrs import evolve

from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.setbacks import FIRST_REFUSED, LONGEST_REFUSED, NO_SETBACKS, Setbacks
from coreflow.domain.deploy.steps import Step
from coreflow.domain.ids import ClusterId, Owner
from coreflow.domain.swarm.actions import Create
from coreflow.domain.swarm.specs import NetworkSpec, Stage

NETWORK = NetworkSpec(name="n", cluster=ClusterId("c"), owner=Owner("base"), stage=Stage.BASE)
STEP = Step("base/n", Create(NETWORK, "new"))
REFUSED, AWAY = Outcome(STEP, "failed", "no"), Outcome(STEP, "failed", "away", retry=True)


def _times(outcome: Outcome, seconds: float) -> list[float]:
    """When a step is tried that always ends like this."""
    setbacks, now, times = NO_SETBACKS, 0.0, []
    while now < seconds:
        times.append(now)
        setbacks = setbacks.after(outcome, now)
        due = setbacks.next_due()
        assert due is not None
        now = due
    return times


def test_pauses_grow() -> None:
    """A refusal is tried a few times a day, a peer that is away every minute."""
    assert _times(REFUSED, 3600)[:3] == [0, FIRST_REFUSED, 3 * FIRST_REFUSED]
    assert len(_times(REFUSED, 24 * 3600)) < 35
    last = _times(REFUSED, 48 * 3600)[-2:]
    assert last[1] - last[0] == LONGEST_REFUSED
    assert 60 <= len(_times(AWAY, 3600)) < 70


def test_something_else_is_tried_at_once() -> None:
    """What differs in what is wanted has not been tried."""
    setbacks = NO_SETBACKS.after(REFUSED, 0)
    assert setbacks.of(STEP, FIRST_REFUSED - 1)
    assert not setbacks.of(STEP, FIRST_REFUSED)
    changed = Step(STEP.unit, Create(evolve(NETWORK, subnet="10.1.0.0/24"), "new"))
    assert not setbacks.of(changed, 1)


def test_what_is_done_or_not_wanted_any_more_is_forgotten() -> None:
    """The next time that it is refused, the pauses begin anew."""
    twice = NO_SETBACKS.after(REFUSED, 0).after(REFUSED, 15)
    assert twice.pause_of(STEP, 15) == 2 * FIRST_REFUSED
    assert twice.after(Outcome(STEP, "applied"), 50) == Setbacks()
    assert twice.only([STEP]) == twice
    assert twice.only([]) == Setbacks()
    assert twice.after(Outcome(STEP, "overtaken", retry=True), 50) == Setbacks()


def test_the_return_of_a_peer_ends_no_refusal() -> None:
    """What failed because it was away is tried at once; what it refused is not."""
    assert NO_SETBACKS.after(AWAY, 0).refusals() == Setbacks()
    refused = NO_SETBACKS.after(REFUSED, 0)
    assert refused.refusals() == refused
