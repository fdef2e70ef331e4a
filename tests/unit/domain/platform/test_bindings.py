"""What records say of bindings, and what a plan makes of it."""

from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.examples import desired, live, observed, spec

from coreflow.domain.deploy.plan import make_plan
from coreflow.domain.ids import ServiceId
from coreflow.domain.platform.actions import Deprovision, Provision
from coreflow.domain.platform.bindings import BindingSpec, Bound, Provisioned, binding_wishes
from coreflow.domain.records.codec import decode_records
from coreflow.domain.swarm.actions import Remove


def platform(*bindings: dict[str, Any], providers: Any = None) -> Any:
    """A platform record with these bindings."""
    raw = [
        {"id": f"b{number}", "data": {"serviceId": "s1", "serviceName": "web", **binding}}
        for number, binding in enumerate(bindings)
    ]
    if providers is None:
        providers = [{"id": "p", "type": "corestore", "capabilities": [], "enabled": True}]
    document = {
        "configData": {"id": "c"},
        "services": [],
        "platform": {"providers": providers, "bindings": raw},
    }
    return decode_records(document).platform


def test_bindings_are_sorted_by_what_is_wanted() -> None:
    """Databases and object storage of Corestore; what is disabled; and what nobody here provides."""
    wishes = binding_wishes(
        platform(
            {"capability": "database", "envPrefix": "DB_"},
            {"capability": "objectstorage", "desiredState": "disabled"},
            {"capability": "mail"},
            {"capability": "mail", "desiredState": "disabled"},
            {"capability": "database", "providerId": "somebody"},
            {"capability": "database", "providerId": "p"},
        )
    )
    assert [s.id for s in wishes.wanted[ServiceId("s1")]] == ["b0", "b5"]
    assert wishes.wanted[ServiceId("s1")][0].prefix == "DB_"
    assert [s.id for s in wishes.unwanted] == ["b1"]
    assert [record.id for record in wishes.unsupported] == ["b2", "b4"]


def test_what_is_in_use_is_not_given_back() -> None:
    """A service has one database: where another binding wants it, or the disabled one meant another provider's, it stays."""
    providers = [{"id": "p", "type": "corestore", "enabled": False}, {"id": "x", "type": "other"}]
    disabled = {"capability": "database", "desiredState": "disabled"}
    other = {"serviceId": "s2", **disabled}
    assert [s.id for s in binding_wishes(platform(disabled, {"capability": "database"})).unwanted] == []
    assert [s.id for s in binding_wishes(platform(other, {"capability": "database"})).unwanted] == ["b0"]
    for provider, is_given_back in (("x", False), ("gone", False), ("p", True), (None, True)):
        named = {**disabled, "providerId": provider} if provider else disabled
        assert bool(binding_wishes(platform(named, providers=providers)).unwanted) is is_given_back


def test_who_provides_what_nobody_is_named_for() -> None:
    """Corestore, if it is enabled, or if no provider is named at all."""
    for providers, wanted in (
        ([], True),
        ([{"id": "x", "type": "other"}], False),
        ([{"id": "p", "type": "corestore", "enabled": False}], False),
    ):
        wishes = binding_wishes(platform({"capability": "database"}, providers=providers))
        assert bool(wishes.wanted) is wanted
    assert not binding_wishes(None).wanted


def test_variables_have_their_prefix_and_stay_out_of_sight() -> None:
    """The values are in no repr."""
    found = Provisioned(values={"URI": "canary"})
    assert found.variables("DB_") == {"DB_URI": "canary"}
    assert "canary" not in f"{found}{Bound(variables={ServiceId('s'): {'A': 'canary'}})}"


BINDING = BindingSpec(id="b", service_id=ServiceId("id-web"), service_name="web", capability="database")


def test_given_back_only_once_its_service_is_at_rest() -> None:
    """Not in the pass that changes the service, nor while Swarm rolls it out, nor while it is held."""
    wanted = spec("web")
    quiet = evolve(desired(wanted), release=(BINDING,))
    still = make_plan(quiet, observed(live(wanted)))
    assert still.actions == (Deprovision(BINDING, "the control plane disabled it"),)
    for changed in (
        make_plan(quiet, observed(live(spec("web", env=("A=1",))))),
        make_plan(quiet, observed(live(wanted, update_state="updating"))),
        make_plan(evolve(quiet, held=frozenset({"id-web"})), observed(live(wanted))),
    ):
        assert not [a for a in changed.actions if isinstance(a, Deprovision)]
        assert [wait.name for wait in changed.waits] == ["web database"]


STATES = st.sampled_from([None, "enabled", "disabled", "garbage"])


@given(st.lists(st.tuples(st.sampled_from(["database", "objectstorage", "mail"]), STATES), max_size=5))
def test_nothing_is_given_back_without_being_told(bindings: list[tuple[str, str | None]]) -> None:
    """Whatever records say, only an explicit `disabled` deprovisions, and no plan removes a volume."""
    wishes = binding_wishes(platform(*({"capability": c, "desiredState": s} for c, s in bindings)))
    disabled = {f"b{number}" for number, (_, state) in enumerate(bindings) if state == "disabled"}
    assert {s.id for s in wishes.unwanted} <= disabled
    due = tuple((s, "why") for specs in wishes.wanted.values() for s in specs)
    plan = make_plan(evolve(desired(), provision=due, release=wishes.unwanted), observed())
    assert {a.spec.id for a in plan.actions if isinstance(a, Deprovision)} <= disabled
    assert len([a for a in plan.actions if isinstance(a, Provision)]) == len(due)
    assert not [a for a in plan.actions if isinstance(a, Remove)]
