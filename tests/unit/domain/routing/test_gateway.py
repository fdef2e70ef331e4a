"""Which routes of a shared gateway are ours, and what is done to them."""

from collections.abc import Iterable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.effort import examples

from coreflow.domain.ids import ClusterId
from coreflow.domain.routing.gateway import (
    CreateRoute,
    DeleteRoute,
    GatewayAction,
    GatewayRoute,
    ObservedRoute,
    UpdateRoute,
    cluster_of,
    plan_gateway,
    route_name,
    wanted_routes,
)

CLUSTER = ClusterId("c1")
OTHER = ClusterId("c1-b")
HYPOTHESIS = settings(max_examples=examples(200))


def route(host: str = "a.example.com", **changes: Any) -> GatewayRoute:
    (made,) = wanted_routes(CLUSTER, [host], "in.example.net", 443, "passthrough")
    return evolve(made, **changes)


def seen(wanted: GatewayRoute, identity: str = "1", **changes: Any) -> ObservedRoute:
    """A route as the gateway would list it."""
    listed = ObservedRoute(id=identity, name=wanted.name, cluster=CLUSTER, route=wanted)
    return evolve(listed, **changes)


A, B = route("a.example.com"), route("b.example.com")


def plan(
    wanted: Iterable[GatewayRoute], live: Iterable[ObservedRoute], *, complete: bool = True
) -> tuple[GatewayAction, ...]:
    return plan_gateway(CLUSTER, wanted, live, complete=complete)


# ---------------------------------------------------------------- tables


def test_names() -> None:
    """The name tells cluster and host, and nothing else tells the cluster."""
    assert route_name(CLUSTER, "a.example.com") == "coreflow-c1-a.example.com" == A.name
    assert cluster_of(A) == CLUSTER
    (other,) = wanted_routes(OTHER, ["a.example.com"], "x", 1, "passthrough")
    assert cluster_of(other) == OTHER
    for name in ("coreflow-a.example.com", "coreflow--a.example.com", "c1-a.example.com", "coreflow-c1", ""):
        assert cluster_of(evolve(A, name=name)) is None


def test_wanted_routes_are_written_as_they_are_compared() -> None:
    """Once per host, sorted, in lower case and without a final dot; the target, too."""
    found = wanted_routes(
        CLUSTER, ["B.example.com", "a.example.com.", "b.example.com"], "In.Example.net.", 8443, "passthrough"
    )
    assert [r.host for r in found] == ["a.example.com", "b.example.com"]
    assert {(r.target_host, r.target_port, r.tls_mode, r.enabled) for r in found} == {
        ("in.example.net", 8443, "passthrough", True)
    }


def test_nothing_to_do() -> None:
    """What is as it should be is not written again."""
    assert plan([A, B], [seen(A), seen(B, "2")]) == ()
    assert plan([], []) == ()


def test_new_ones() -> None:
    """In the order of their names."""
    assert plan([B, A], []) == (CreateRoute(A, "new"), CreateRoute(B, "new"))


@pytest.mark.parametrize(
    ("live", "reason"),
    [
        (evolve(A, host="x.example.com"), "host"),
        (
            evolve(A, target_host="old.example.net"),
            "target old.example.net:443 → in.example.net:443",
        ),
        (evolve(A, target_port=8443), "target in.example.net:8443 → in.example.net:443"),
        (evolve(A, tls_mode="terminate-and-reencrypt"), "TLS terminate-and-reencrypt → passthrough"),
        (evolve(A, enabled=False), "switched on again"),
        (None, "changed by hand"),
        (
            evolve(A, target_port=1, enabled=False),
            "target in.example.net:1 → in.example.net:443, switched on again",
        ),
    ],
)
def test_changed_ones(live: GatewayRoute | None, reason: str) -> None:
    """Ours are put right, whoever changed them, and the reason says how they differed."""
    assert plan([A], [seen(A, route=live)]) == (UpdateRoute("1", A, reason),)


def test_switching_off() -> None:
    """A route that is wanted switched off."""
    off = evolve(A, enabled=False)
    assert plan([off], [seen(A)]) == (UpdateRoute("1", off, "switched off"),)


def test_removed_ones() -> None:
    """Only when everything that is wanted is known; what else is to be done is done all the same."""
    gone = DeleteRoute("2", "b.example.com", "no longer wanted")
    assert plan([A], [seen(A), seen(B, "2")]) == (gone,)
    assert plan([A], [seen(B, "2")]) == (CreateRoute(A, "new"), gone)
    assert plan([A], [seen(B, "2")], complete=False) == (CreateRoute(A, "new"),)
    assert plan([], [seen(B, "2", route=None)]) == (gone,)


def test_one_that_is_there_twice() -> None:
    """The one that is right stays, else the first; the others go, in the order of their ids."""
    wrong = evolve(A, enabled=False)
    assert plan([A], [seen(A, "3", route=wrong), seen(A, "2"), seen(A, "1", route=wrong)]) == (
        DeleteRoute("1", A.host, "there twice"),
        DeleteRoute("3", A.host, "there twice"),
    )
    assert plan([A], [seen(A, "2", route=None), seen(A, "1", route=None)]) == (
        UpdateRoute("1", A, "changed by hand"),
        DeleteRoute("2", A.host, "there twice"),
    )
    assert plan([A], [seen(A, "2"), seen(A, "1")], complete=False) == ()
    assert plan([], [seen(A, "2"), seen(A, "1")]) == (
        DeleteRoute("1", A.host, "no longer wanted"),
        DeleteRoute("2", A.host, "no longer wanted"),
    )


@pytest.mark.parametrize(
    "foreign",
    [
        seen(B, cluster=None),
        seen(B, cluster=OTHER),
        seen(B, ""),
        seen(B, name="shop"),
        seen(B, name="coreflow-c1"),
        seen(B, name="Coreflow-c1-b.example.com"),
        seen(B, name="coreflow-c1-b-b.example.com", cluster=OTHER),
        ObservedRoute(id="9", name="", cluster=None, route=None),
    ],
)
def test_routes_that_are_not_ours(foreign: ObservedRoute) -> None:
    """Neither the name alone nor the mark alone makes a route ours, and one that is built in never is."""
    assert plan([], [foreign]) == ()
    assert plan([A], [foreign]) == (CreateRoute(A, "new"),)


def test_a_name_that_somebody_else_has() -> None:
    """No second route is made with it; one that we have besides is ours as ever."""
    for foreign in (seen(A, "9", cluster=OTHER), seen(A, "9", cluster=None), seen(A, "")):
        assert plan([A], [foreign]) == ()
        assert plan([A], [foreign, seen(A, route=None)]) == (UpdateRoute("1", A, "changed by hand"),)


def test_a_gateway_that_gives_other_names() -> None:
    """A route with our mark that leads the host here is not made again and again."""
    assert plan([A], [seen(A, name="renamed-1")]) == ()
    assert plan([A], [seen(B, name="renamed-1")]) == (CreateRoute(A, "new"),)


def test_a_route_that_is_listed_twice() -> None:
    """It is one route: nothing is removed. An id that two routes share names neither of them."""
    assert plan([A], [seen(A), seen(A)]) == ()
    assert plan([A], [seen(A), seen(B)]) == ()
    assert plan([], [seen(A), seen(B)]) == ()
    assert plan([], [seen(A), seen(A, name="shop", cluster=None)]) == ()


def test_one_that_is_wanted_twice() -> None:
    """Two wishes for one name are one, whichever comes first."""
    other = evolve(A, target_port=8443)
    assert plan([A, other], []) == plan([other, A], [])
    assert len(plan([A, other], [])) == 1


# ---------------------------------------------------------------- properties

HOSTS = ["a.example.com", "b.example.com", "*.example.com", "b-a.example.com"]
CLUSTERS = [CLUSTER, OTHER, ClusterId("c"), ClusterId("c1-a")]
routes = st.builds(
    lambda cluster, host, port, mode, enabled: evolve(
        wanted_routes(cluster, [host], "in.example.net", port, mode)[0], enabled=enabled
    ),
    st.sampled_from(CLUSTERS),
    st.sampled_from(HOSTS),
    st.sampled_from([443, 8443]),
    st.sampled_from(["passthrough", "terminate-and-reencrypt"]),
    st.booleans(),
)


@st.composite
def observed_routes(draw: st.DrawFn) -> ObservedRoute:
    """Routes with marks and names that fit, and that do not."""
    made = draw(routes)
    cluster = draw(st.one_of(st.just(cluster_of(made)), st.sampled_from([None, *CLUSTERS])))
    name = draw(st.one_of(st.just(made.name), st.sampled_from(["", "shop", "coreflow-c1-", "coreflow-c1"])))
    return ObservedRoute(
        id=draw(st.sampled_from(["", *"123456789"])),
        name=name,
        cluster=cluster,
        route=draw(st.sampled_from([None, evolve(made, name=name)])),
    )


wants = st.lists(routes.filter(lambda made: cluster_of(made) == CLUSTER), max_size=5)
lives = st.lists(observed_routes(), max_size=8)
"""Also with ids that occur twice, as no gateway should list them."""


def is_foreign(found: ObservedRoute) -> bool:
    """Said again in other words than the planner's."""
    return not (found.id and found.cluster == "c1" and found.name.startswith("coreflow-c1-"))


def applied(live: Iterable[ObservedRoute], actions: Iterable[GatewayAction]) -> list[ObservedRoute]:
    """What a gateway makes of it."""
    state = list(live)
    for number, action in enumerate(actions):
        match action:
            case CreateRoute(made):
                state.append(seen(made, f"new-{number}"))
            case UpdateRoute(identity, made):
                assert [found.id for found in dict.fromkeys(state)].count(identity) == 1
                state = [seen(made, identity) if found.id == identity else found for found in state]
            case DeleteRoute(identity):
                assert identity in [found.id for found in state]
                state = [found for found in state if found.id != identity]
    return state


@HYPOTHESIS
@given(wants, lives, st.booleans())
def test_a_second_plan_is_empty(
    wanted: list[GatewayRoute], live: list[ObservedRoute], complete: bool
) -> None:
    """Whatever is there, one pass is enough."""
    after = applied(live, plan(wanted, live, complete=complete))
    assert plan(wanted, after, complete=complete) == ()


@HYPOTHESIS
@given(wants, lives, st.booleans())
def test_others_stay_as_they_are(
    wanted: list[GatewayRoute], live: list[ObservedRoute], complete: bool
) -> None:
    """No action names a route that is not ours, and all of them are there afterwards."""
    others = [found for found in live if is_foreign(found)]
    actions = plan(wanted, live, complete=complete)
    touched = {action.id for action in actions if not isinstance(action, CreateRoute)}
    assert touched.isdisjoint({found.id for found in others} | {""})
    names = {found.name for found in others}
    assert names.isdisjoint(action.route.name for action in actions if isinstance(action, CreateRoute))
    assert [found for found in applied(live, actions) if is_foreign(found)] == others


@HYPOTHESIS
@given(wants, lives)
def test_what_is_unknown_removes_nothing(wanted: list[GatewayRoute], live: list[ObservedRoute]) -> None:
    """An incomplete plan is the complete one without removals."""
    whole, part = plan(wanted, live), plan(wanted, live, complete=False)
    assert part == tuple(action for action in whole if not isinstance(action, DeleteRoute))


@HYPOTHESIS
@given(st.data(), wants, lives, st.booleans())
def test_the_order_does_not_matter(
    data: st.DataObject, wanted: list[GatewayRoute], live: list[ObservedRoute], complete: bool
) -> None:
    """Neither that of the wishes nor that of the list."""
    mixed = plan(data.draw(st.permutations(wanted)), data.draw(st.permutations(live)), complete=complete)
    assert mixed == plan(wanted, live, complete=complete)


@HYPOTHESIS
@given(wants, lives)
@example([A], [seen(A), seen(A)])  # a list that has one and the same route twice
def test_what_is_wanted_is_there_afterwards(wanted: list[GatewayRoute], live: list[ObservedRoute]) -> None:
    """Unless somebody else has the name, or leads the host here already; and nothing of ours is left over."""
    after = applied(live, plan(wanted, live))
    ids = [found.id for found in dict.fromkeys(after)]
    ours = [found for found in dict.fromkeys(after) if not is_foreign(found) and ids.count(found.id) == 1]
    held = {found.name for found in after if found not in ours}
    hosts = {found.route.host for found in after if found not in ours and found.route is not None}
    names = {found.name for found in ours}
    assert names <= {made.name for made in wanted}
    for made in wanted:
        assert made.name in names | held or made.host in hosts
    assert len({found.name for found in ours}) == len(ours)
