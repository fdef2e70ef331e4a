"""Which services have what they are bound to, what is asked for, and what is given back: as values alone."""

from typing import Any

from attrs import evolve

from coreflow.domain.ids import NodeId, ServiceId
from coreflow.domain.platform.bindings import (
    BindingSpec,
    BindingStatus,
    BindingWishes,
    Endpoint,
    Provisioned,
    binding_wishes,
)
from coreflow.domain.platform.instances import Instance
from coreflow.domain.platform.ledger import (
    AMBIGUOUS,
    NOWHERE,
    UNREADABLE,
    Circumstances,
    Ledger,
    decide,
    statuses,
)
from coreflow.domain.records.models import BindingRecord, PlatformRecord

SHOP = ServiceId("shop")
HERE = Instance(url="http://10.0.0.2:3000", node=NodeId("n1"), hostname="one")
THERE = Instance(url="http://10.0.0.3:3000", node=NodeId("n2"), hostname="two")
DATABASE = BindingSpec(id="b1", service_id=SHOP, service_name="shop", capability="database", prefix="DB_")
BUCKET = BindingSpec(id="b2", service_id=SHOP, service_name="shop", capability="objectstorage")
GIVEN = Provisioned(values={"URL": "mongodb://x"})
FACTS = Circumstances(
    wishes=BindingWishes(wanted={SHOP: (DATABASE, BUCKET)}),
    services=frozenset({SHOP}),
    instances={SHOP: HERE},
    several_nodes=True,
)


def test_what_is_not_known_is_asked_for_and_waited_for() -> None:
    bound = decide(Ledger(), FACTS)
    assert [spec for spec, _ in bound.due] == [DATABASE, BUCKET]
    assert bound.missing == {SHOP: "waits for its database and objectstorage"}
    assert bound.homes == {SHOP: "n1"}
    assert bound.variables == {}


def test_an_error_is_part_of_the_reason_until_it_works() -> None:
    ledger = Ledger().provisioned(BUCKET, HERE, GIVEN).failed(DATABASE, "no room")
    assert decide(ledger, FACTS).missing == {SHOP: "waits for its database; no room"}
    bound = decide(ledger.provisioned(DATABASE, HERE, GIVEN), FACTS)
    assert (bound.missing, bound.due) == ({}, ())
    assert bound.variables == {SHOP: {"DB_URL": "mongodb://x", "URL": "mongodb://x"}}


def test_another_corestore_or_another_wish_is_another_binding() -> None:
    ledger = Ledger().provisioned(DATABASE, HERE, GIVEN).provisioned(BUCKET, HERE, GIVEN)
    moved = decide(ledger, evolve(FACTS, instances={SHOP: THERE}))
    assert {reason for _, reason in moved.due} == {"the binding changed"}
    assert SHOP in moved.missing


def test_what_expires_while_it_is_asked_for_is_asked_for_once_more() -> None:
    full = Ledger().provisioned(DATABASE, HERE, GIVEN).provisioned(BUCKET, HERE, GIVEN)
    assert len(decide(full.expired(), FACTS).due) == 2
    again = full.expired().asked(DATABASE).expired().provisioned(DATABASE, HERE, GIVEN)
    assert {spec.id for spec, _ in decide(again, FACTS).due} == {"b1", "b2"}
    once = full.expired().asked(DATABASE).provisioned(DATABASE, HERE, GIVEN)
    assert {spec.id for spec, _ in decide(once, FACTS).due} == {"b2"}
    assert decide(once, FACTS).variables, "until then, what is known counts"


def test_obstacles() -> None:
    full = Ledger().provisioned(DATABASE, HERE, GIVEN).provisioned(BUCKET, HERE, GIVEN)
    assert decide(full, evolve(FACTS, unreadable=frozenset({SHOP}))).missing == {SHOP: UNREADABLE}
    assert decide(full, evolve(FACTS, unreadable=frozenset({None}))).missing == {SHOP: UNREADABLE}
    assert decide(full, evolve(FACTS, instances={})).missing == {SHOP: NOWHERE}
    nobody = decide(full, evolve(FACTS, is_served=False, instances={})).missing[SHOP]
    assert nobody == "it is bound to database and objectstorage, and there is no Corestore to ask"
    everywhere = Provisioned(
        values={}, endpoints=(Endpoint(name="db", protocol="mongodb", host="corestore", port=1),)
    )
    shared = full.provisioned(BUCKET, HERE, everywhere)
    assert decide(shared, FACTS).missing == {SHOP: AMBIGUOUS.format(HERE)}
    assert decide(shared, evolve(FACTS, several_nodes=False)).missing == {}


def test_a_disabled_binding_is_given_back_once_and_again_when_it_was_wanted_meanwhile() -> None:
    facts = evolve(FACTS, wishes=BindingWishes(unwanted=(DATABASE,)))
    assert decide(Ledger(), facts).unwanted == (DATABASE,)
    released = Ledger().deprovisioned(DATABASE)
    assert decide(released, facts).unwanted == ()
    assert decide(released.wanting([DATABASE]), facts).unwanted == (DATABASE,)
    assert decide(Ledger(), evolve(facts, unreadable=frozenset({None}))).unwanted == ()
    assert decide(Ledger(), evolve(facts, instances={})).unwanted == ()


def _status(ledger: Ledger, secrets: dict[str, str] | None = None, **changes: Any) -> BindingStatus:
    """The status of a database of the shop."""
    record = BindingRecord(
        id="b1", service_id=SHOP, service_name="shop", capability="database", env_prefix="DB_"
    )
    platform = PlatformRecord(bindings=(evolve(record, **changes),))
    (status,) = statuses(platform, binding_wishes(platform), ledger, secrets or {})
    return status


def test_how_far_a_binding_is() -> None:
    """Pending, ready or failed while it is wanted; pending or disabled once it is not; or nobody's business here."""
    failed = Ledger().failed(DATABASE, "no room")
    assert _status(Ledger()).state == "pending"
    assert (_status(failed).state, _status(failed).error) == ("failed", "no room")
    assert _status(Ledger(), desired_state="disabled").state == "pending"
    assert _status(Ledger().deprovisioned(DATABASE), desired_state="disabled").state == "disabled"
    unsupported = _status(Ledger(), capability="queue")
    assert (unsupported.state, unsupported.error) == ("unsupported", "nobody here provides queue")
    assert statuses(None, BindingWishes(), failed, {}) == ()


def test_a_binding_that_is_ready_names_its_variables_and_their_secret() -> None:
    """And where it is reached, but no value; an attempt that fails later is told all the same."""
    there = Endpoint(name="db", protocol="mongodb", host="10.0.0.2", port=27017)
    found = Provisioned(values={"URL": "mongodb://u:p@x", "HOST": "x"}, endpoints=(there,))
    ledger = Ledger().provisioned(DATABASE, HERE, found)
    status = _status(ledger, {"shop": "shop-secret-1"})
    assert (status.state, status.keys, status.secret) == ("ready", ("DB_HOST", "DB_URL"), "shop-secret-1")
    assert status.endpoints == (there,)
    assert "u:p" not in repr(status)
    assert _status(ledger).secret == ""
    assert _status(ledger.failed(DATABASE, "away")).state == "failed"
