"""The order in which steps are carried out."""

import pytest
from tests.unit.domain.examples import live, network_spec, secret_spec, spec

from coreflow.domain.deploy.blocking import blocked, due_now, postponed
from coreflow.domain.deploy.order import batches
from coreflow.domain.deploy.result import Outcome, Status
from coreflow.domain.deploy.setbacks import NO_SETBACKS
from coreflow.domain.deploy.steps import Plan, Step
from coreflow.domain.ids import BASE
from coreflow.domain.swarm.actions import Create, Remove
from coreflow.domain.swarm.naming import WEB_GATEWAY
from coreflow.domain.swarm.specs import Attachment, Stage

NETWORK = Step("base/net", Create(network_spec(), "new"))
SECRET = Step("id-web", Create(secret_spec("web"), "new"))
WEB = Step("id-web", Create(spec(networks=(Attachment(WEB_GATEWAY),)), "new"))
ALONE = Step("id-alone", Create(spec("alone"), "new"))
LOG = Step("base/corelog", Create(spec("corelog", owner=BASE), "new"))
GONE = Step(
    "id-old", Remove(live(spec("old", networks=(Attachment(WEB_GATEWAY),))), Stage.WORKLOADS, "no record")
)


def test_networks_come_first_then_the_base_then_workloads() -> None:
    """Whatever the order in the plan; the steps of a unit keep theirs."""
    assert batches((WEB, SECRET, LOG, ALONE, NETWORK)) == [
        {"base/net": [NETWORK]},
        {"base/corelog": [LOG]},
        {"id-web": [WEB, SECRET], "id-alone": [ALONE]},
    ]
    assert batches(()) == []


@pytest.mark.parametrize(
    ("last", "becomes"),
    [
        ("applied", None),
        ("failed", "blocked"),
        ("blocked", "blocked"),
        ("overtaken", "overtaken"),
        ("under way", "under way"),
    ],
)
def test_a_step_shares_the_fate_of_the_one_before_it(last: Status, becomes: Status | None) -> None:
    outcome = blocked(WEB, Outcome(SECRET, last, "why"), {})
    assert (outcome.status if outcome is not None else None) == becomes
    assert outcome is None or outcome.step == WEB


def test_what_joins_a_network_that_could_not_be_made_is_blocked() -> None:
    """Whether that is news depends on whether the network is."""
    for is_news in (True, False):
        expected = Outcome(WEB, "blocked", f"network {WEB_GATEWAY} could not be created", is_news=is_news)
        assert blocked(WEB, None, {WEB_GATEWAY: is_news}) == expected
    for step in (SECRET, ALONE, GONE):
        assert blocked(step, None, {WEB_GATEWAY: True}) is None


def test_units_wait_for_the_next_try_of_a_step_of_theirs() -> None:
    """So does every unit that joins a network that waits."""
    plan = Plan(steps=(NETWORK, SECRET, WEB, ALONE, GONE))
    assert due_now(plan, NO_SETBACKS, 0.0) is plan
    waits = NO_SETBACKS.after(Outcome(SECRET, "failed", "away", retry=True), 0.0)
    assert due_now(plan, waits, 0.0).steps == (NETWORK, ALONE, GONE)
    assert due_now(plan, waits, 1e6) is plan
    waits = NO_SETBACKS.after(Outcome(NETWORK, "failed", "no", retry=False), 0.0)
    assert due_now(plan, waits, 0.0).steps == (ALONE, GONE)


def test_a_step_that_waits_for_its_next_try_failed_and_is_no_news() -> None:
    for retry in (True, False):
        waits = NO_SETBACKS.after(Outcome(WEB, "failed", "why", retry=retry), 100.0)
        outcome = postponed(WEB, waits, 100.5)
        assert outcome is not None
        assert (outcome.status, outcome.detail, outcome.retry, outcome.is_news) == (
            "failed",
            "why",
            retry,
            False,
        )
        assert outcome.again is not None
        assert outcome.again > 0
        assert postponed(ALONE, waits, 100.5) is None
