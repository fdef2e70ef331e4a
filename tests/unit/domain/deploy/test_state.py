"""What follows from one look."""

from attrs import evolve
from tests.unit.domain.examples import desired, foreign, live, observed, spec, state, task

from coreflow.domain.deploy.state import ReconcileState
from coreflow.domain.ids import BASE, ClusterId, ServiceId
from coreflow.domain.records.models import RejectedRecord, ServiceRecord
from coreflow.domain.records.salvage import Salvaged
from coreflow.domain.swarm.convergence import NO_HISTORY, Settling


def with_records(
    found: ReconcileState, *services: ServiceRecord, rejected: tuple[RejectedRecord, ...] = ()
) -> ReconcileState:
    """The same look, at other records."""
    return evolve(found, records=evolve(found.records, services=services, rejected=rejected))


def record(name: str) -> ServiceRecord:
    """The record of the service that `spec` makes for a name."""
    return ServiceRecord(id=ServiceId(f"id-{name}"), name=name)


WEB, DB, LOG = live(spec("web")), live(spec("db")), live(spec("corelog", owner=BASE))


def test_a_workload_of_ours_without_a_record_is_a_stray() -> None:
    """The base has no records, and what others made is none of our business."""
    theirs = live(evolve(spec("theirs"), cluster=ClusterId("another")))
    found = with_records(state(WEB, DB, LOG, foreign(), theirs), record("web"))
    assert found.strays == {"db"}
    assert found.unknown_hosts == {"db"}
    assert not found.knows_all_hosts
    assert with_records(state(WEB, LOG), record("web")).knows_all_hosts


def test_hosts_are_known_where_at_least_they_can_be_read() -> None:
    """A record with a fault somewhere else has hosts; one without an id could be anybody's."""
    salvaged = Salvaged(record("db"), frozenset({"environment"}))
    broken = RejectedRecord(kind="service", id="id-db", name="db", reasons=("odd",), salvaged=salvaged)
    found = with_records(state(WEB, DB), record("web"), rejected=(broken,))
    assert found.strays == {"db"}
    assert found.unknown_hosts == set()
    assert not found.knows_all_hosts
    for lost in (evolve(broken, salvaged=None), evolve(broken, id=None)):
        assert with_records(state(WEB, DB), record("web"), rejected=(lost,)).unknown_hosts == {"db"}


def test_every_wanted_service_is_judged() -> None:
    """One that is not there is not done; a crash loop is told apart."""
    found = state(WEB, wanted=desired(spec("web"), spec("db")))
    assert {name: verdict.done for name, verdict in found.verdicts.items()} == {"web": False, "db": False}
    running = evolve(found, observed=observed(WEB, tasks=(task(WEB),), time=1000.0))
    assert running.verdicts["web"].done
    assert running.crash_loops == ()
    ended = tuple(
        task(
            WEB,
            second,
            slot=1,
            state="failed",
            desired_state="shutdown",
            created_at=f"1970-01-01T00:16:{second}Z",
            updated_at=f"1970-01-01T00:16:{second}Z",
        )
        for second in range(10, 16)
    )
    tasks = (*ended, task(WEB, 20, slot=1, state="starting", created_at="1970-01-01T00:16:20Z"))
    settling = Settling(history=NO_HISTORY.after([WEB], tasks, 1000.0), now=1000.0)
    looping = evolve(found, observed=observed(WEB, tasks=tasks, time=1000.0), settling=settling)
    assert [verdict.service for verdict in looping.crash_loops] == ["web"]


def test_a_refresh_goes_on_while_answers_are_on_their_way() -> None:
    assert state(refreshing=True).is_awaiting
    assert not state().is_awaiting
