"""Entries of the journal, questions to it, and how both are written."""

import pytest
from attrs import evolve
from tests.unit.domain import examples

from coreflow.domain.backup.parts import Part
from coreflow.domain.backup.requests import BackupRequest, BackupResult, RestoreRequest, RestoreResult
from coreflow.domain.deploy.result import Outcome
from coreflow.domain.deploy.steps import Step
from coreflow.domain.ids import ClusterId, ServiceId
from coreflow.domain.journal import (
    INTERRUPTED,
    KILLED,
    TEXT_LIMIT,
    Entry,
    History,
    InvalidQuery,
    Query,
    Record,
    after_operation,
    after_outcome,
    begun,
    begun_operation,
    begun_removal,
    begun_route,
    document,
    ended,
    history_document,
    history_in,
    interrupted,
    moment_in,
    query_in,
    query_text,
    select,
)
from coreflow.domain.routing.gateway import CreateRoute, DeleteRoute, UpdateRoute, wanted_routes
from coreflow.domain.swarm.actions import Create, Start, Stop

SHOP = ServiceId("id-shop")


def entry(**others: object) -> Entry:
    """An action that has begun."""
    made = Entry(time=5.0, action="create", kind="service", name="shop", owner=SHOP, reason="new")
    return evolve(made, **others)  # type: ignore[arg-type]


def test_an_action_of_a_pass() -> None:
    """What is done to what, why, and who asked, in the words of the log."""
    action = Create(examples.network_spec(), "new")
    made = begun(action, 5.0, 3, ("event", "push"))
    assert (made.action, made.kind, made.name, made.owner) == ("create", "network", "sznwebgateway", "base")
    assert (made.reason, made.pass_id, made.asked, made.outcome) == ("new", 3, ("push", "event"), "")
    step = Step("base/networks", action)
    done = after_outcome(made, Outcome(step, "failed", "engine: no"), 7.25)
    assert done is not None
    assert (done.outcome, done.detail, done.seconds, done.time) == ("failed", "engine: no", 2.25, 5.0)
    assert after_outcome(made, Outcome(step, "under way", is_news=False), 6.0) is None


def test_a_restore_stops_and_starts() -> None:
    """The two actions that no plan has, without their lease."""
    live = examples.live(examples.spec("shop"))
    stop = begun(Stop(live, "the-lease", "", "restoring backup b1"), 5.0, 0, ("restore",))
    assert (stop.action, stop.kind, stop.name, stop.owner) == ("stop", "service", "shop", SHOP)
    assert "the-lease" not in repr(stop)
    assert begun(Start(live, "the-lease", "the restore has ended"), 5.0, 0, ()).action == "start"


def test_backups_and_restores() -> None:
    """Their result, what is wrong with each part, and how a restore is taken back."""
    backup = begun_operation(BackupRequest(backup_id="b1", service_id=SHOP), 5.0, ("push",))
    assert (backup.action, backup.reason, backup.owner) == ("backup", "backup b1", SHOP)
    parts = (Part(kind="volume", name="data", error="gone"), Part(kind="volume", name="fine"))
    result = BackupResult(backup_id="b1", service_id=SHOP, status="partial", parts=parts, error="not all")
    done = after_operation(backup, result, 9.0)
    assert (done.outcome, done.seconds) == ("partial", 4.0)
    assert done.detail.startswith("not all; ")
    assert done.detail.endswith(": gone")
    restore = begun_operation(RestoreRequest(backup_id="b1", service_id=SHOP), 5.0, ())
    brought = RestoreResult(backup_id="b1", service_id=SHOP, status="completed", undo_id="undo-1")
    assert (restore.action, restore.kind) == ("restore", "service")
    assert after_operation(restore, brought, 6.0).detail == "backup undo-1 takes it back"


def test_routes_at_a_gateway_and_images() -> None:
    """They are no objects of the Swarm, and belong to no service."""
    (wanted,) = wanted_routes(ClusterId("c"), ["a.example"], "in.example", 443, "passthrough")
    made = [
        begun_route(action, 5.0, ("push",))
        for action in (
            CreateRoute(wanted, "new"),
            UpdateRoute("1", wanted, "target"),
            DeleteRoute("1", "b", "gone"),
        )
    ]
    assert [(e.action, e.kind, e.name, e.owner) for e in made] == [
        ("create", "gateway route", "a.example", ""),
        ("update", "gateway route", "a.example", ""),
        ("remove", "gateway route", "b", ""),
    ]
    assert (made[1].reason, made[1].asked) == ("target", ("push",))
    removed = begun_removal("app:1", 5.0, ("command",))
    assert (removed.action, removed.kind, removed.name) == ("remove", "image", "app:1")
    records = [Record(1, made[0]), Record(2, removed)]
    assert select(records, Query(service="shop")) == ()


def test_texts_are_bounded() -> None:
    """A reason that names hundreds of objects costs no more than others."""
    done = ended(entry(), "failed", "x" * 5000, 4.0)
    assert len(done.detail) == TEXT_LIMIT
    assert done.detail.endswith("…")
    assert done.seconds == 0.0, "a clock that was set back"


def test_an_action_that_nobody_saw_end() -> None:
    """It may have been done."""
    lost = interrupted(entry())
    assert (lost.outcome, lost.detail) == (INTERRUPTED, KILLED)


def test_the_entries_of_a_service() -> None:
    """By name or id, with what it owns; not those of others that share the owner `base`."""
    records = [
        Record(1, entry()),
        Record(2, entry(kind="secret", name="shop-1")),
        Record(3, entry(name="corelog", owner="base")),
        Record(4, entry(name="coretraffic", owner="base", time=9.0)),
    ]

    def numbers(**asked: object) -> list[int]:
        return [record.number for record in select(records, Query(**asked))]  # type: ignore[arg-type]

    assert numbers() == [1, 2, 3, 4]
    assert numbers(service="shop") == [1, 2]
    assert numbers(service="id-shop") == [1, 2]
    assert numbers(service="corelog") == [3]
    assert numbers(since=6.0) == [4]
    assert numbers(after=2) == [3, 4]
    assert numbers(limit=1) == [4]


def test_an_answer_as_json_and_back() -> None:
    """Nothing is lost on the way, to the thousandth of a second."""
    done = ended(entry(asked=("push",), pass_id=2, time=1_700_000_000.125), "failed", "why", 1_700_000_001.0)
    history = History(records=(Record(7, done), Record(8, entry())), kept="/j.db", problem="full", last=9)
    assert history_in(history_document(history)) == history
    assert history_in(history_document(History())) == History()
    assert document(Record(7, done))["time"] == "2023-11-14T22:13:20.125Z"
    wild = document(Record(1, entry(time=1e15)))["time"]
    assert wild.startswith("9999-12-31T23:59:59")


@pytest.mark.parametrize("answer", [{}, {"entries": [{}]}, {"entries": [1], "kept": None, "problem": None}])
def test_an_answer_that_is_none(answer: dict[str, object]) -> None:
    """Another program may listen at the daemon's address."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        history_in(answer)


def test_a_question_as_parameters_and_back() -> None:
    """A client asks what it means to ask."""
    for query in (Query(), Query(service="shop ü", since=1_700_000_000.5, after=12, limit=1000)):
        assert query_in(query_text(query)) == query
    assert query_in({}) == Query()
    assert query_in({"since": "2023-11-14T22:13:20"}).since == 1_700_000_000.0
    assert query_in({"after": "", "limit": "", "service": "", "since": ""}) == Query()


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "ten-canary"}, "limit"),
        ({"after": "-1"}, "after"),
        ({"after": "٣"}, "after"),
        ({"after": "9" * 30}, "after"),
        ({"since": "yesterday"}, "since"),
        ({"service": "x" * 256}, "service"),
        ({"service": "a\nb"}, "service"),
        ({"canary": "1"}, "unknown"),
    ],
)
def test_a_question_that_cannot_be_understood(asked: dict[str, str], named: str) -> None:
    """The parameter is named, its value is not."""
    with pytest.raises(InvalidQuery, match=named) as caught:
        query_in(asked)
    assert "canary" not in str(caught.value)


def test_moments() -> None:
    """With a zone or without, which is UTC."""
    assert moment_in("1970-01-01T01:00+01:00") == 0.0
    assert moment_in("1970-01-02") == 86400.0
    assert moment_in("soon") is None
