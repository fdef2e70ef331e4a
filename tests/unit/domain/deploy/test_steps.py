"""What an action is called, and what it is about."""

import pytest
from attrs import evolve
from tests.unit.domain.examples import live, network_spec, secret, secret_spec, spec

from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.setbacks import NO_SETBACKS
from coreflow.domain.deploy.steps import (
    Action,
    Step,
    kind_of,
    name_of,
    owner_of,
    stage_of,
    verb_of,
)
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.actions import Deprovision, Provision
from coreflow.domain.platform.bindings import BindingSpec
from coreflow.domain.swarm.actions import Create, MarkFailed, Recreate, Remove, Update
from coreflow.domain.swarm.specs import Stage

WEB = spec()
LIVE = live(WEB)
BINDING = BindingSpec(id="b", service_id=ServiceId("id-web"), service_name="web", capability="database")


@pytest.mark.parametrize(
    ("action", "verb", "kind", "name"),
    [
        (Create(network_spec("n"), "r"), "create", "network", "n"),
        (Create(secret_spec("s"), "r"), "create", "secret", "s"),
        (Update(WEB, LIVE, "r"), "update", "service", "web"),
        (Recreate(WEB, LIVE, "r"), "recreate", "service", "web"),
        (MarkFailed(WEB, LIVE, "r"), "mark failed", "service", "web"),
        (Remove(LIVE, Stage.WORKLOADS, "r"), "remove", "service", "web"),
        (Remove(secret("s"), Stage.WORKLOADS, "r"), "remove", "secret", "s"),
        (Provision(BINDING, "r"), "provision", "binding", "web database"),
        (Deprovision(BINDING, "r"), "deprovision", "binding", "web database"),
    ],
)
def test_words(action: Action, verb: str, kind: str, name: str) -> None:
    assert (verb_of(action), kind_of(action), name_of(action)) == (verb, kind, name)
    is_base = kind == "network"
    assert owner_of(action) == ("base" if is_base else "id-web")
    assert stage_of(action) is (Stage.BASE if is_base else Stage.WORKLOADS)


@pytest.mark.parametrize(
    ("action", "same", "other"),
    [
        (
            Remove(LIVE, Stage.WORKLOADS, "r"),
            Remove(evolve(LIVE, version=9), Stage.WORKLOADS, "r"),
            Remove(evolve(LIVE, id="made-anew"), Stage.WORKLOADS, "r"),
        ),
        (
            Update(WEB, LIVE, "r"),
            Update(WEB, evolve(LIVE, version=9), "another reason"),
            Update(spec(replicas=5), LIVE, "r"),
        ),
        (
            MarkFailed(WEB, LIVE, "r"),
            MarkFailed(WEB, evolve(LIVE, version=9), "r"),
            MarkFailed(WEB, LIVE, "another reason"),
        ),
    ],
)
def test_a_pause_lasts_while_the_same_is_wanted(action: Action, same: Action, other: Action) -> None:
    """A removal is the same for the same object, a change for the same spec, a mark for the same spec and reason."""
    setbacks = NO_SETBACKS.after(Outcome(Step("id-web", action), "failed", "no"), 0)
    assert setbacks.of(Step("id-web", same), 1)
    assert not setbacks.of(Step("id-web", other), 1)
