"""The status of a daemon on memory adapters: what it says as things go wrong and come right."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from tests.unit.app.worlds import BAD, MISSING, World, cluster, daemon_settings, play, service

from coreflow.adapters.engine.protocol import EngineError
from coreflow.adapters.memory import Fault, MemoryCorestore
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app import status_document
from coreflow.app.corestores import Corestores
from coreflow.app.main import Coreflow, Ports, running
from coreflow.app.status import DEAD_SECONDS, StatusBoard
from coreflow.domain.backup.requests import BackupRequest
from coreflow.domain.errors import InvalidRecord, Problem, Refused, Unavailable
from coreflow.domain.ids import ServiceId
from coreflow.domain.status.connections import ENGINE, RECORDS
from coreflow.domain.status.explain import Explanation
from coreflow.domain.status.model import CurrentProblem, Status

A_WHILE = 120.0


@asynccontextmanager
async def daemon(world: World, folder: Path) -> AsyncIterator[Coreflow]:
    """A daemon on memory adapters."""
    ports = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))
    async with running(daemon_settings(folder), ports) as engine:
        yield engine


def status_of(engine: Coreflow) -> Status:
    """Its status, made anew."""
    assert engine.status is not None
    engine.status._made = None
    return engine.status.current()


def explained(engine: Coreflow, name: str) -> Explanation:
    """One of its services."""
    assert engine.status is not None
    found = engine.status.explain(name)
    assert found is not None
    return found


def problems(engine: Coreflow) -> dict[str, CurrentProblem]:
    """What is wrong, by kind."""
    return {problem.kind: problem for problem in status_of(engine).problems}


async def wait_for(holds: Callable[[], bool], seconds: float = 3600.0) -> None:
    """Until it is so. Time passes by itself."""
    with trio.fail_after(seconds):
        for _ in range(100_000):
            if holds():
                return
            await trio.sleep(0.1)


async def until(engine: Coreflow, holds: Callable[[Status], bool]) -> Status:
    """The first status that is so."""
    await wait_for(lambda: holds(status_of(engine)))
    return status_of(engine)


def test_each_service_is_told_apart(tmp_path: Path) -> None:
    """One that runs, one that ends at once, one without an image, one whose record cannot be deployed."""

    async def scene() -> None:
        world = World()
        records = (
            service("a"),
            service("bad", BAD),
            service("gone", MISSING),
            service("wrong", secretBundleId="nope"),
        )
        world.cloudly.set(cluster(*records))
        async with daemon(world, tmp_path) as engine:
            await engine.reconciled()
            await trio.sleep(A_WHILE)
            status = await until(engine, lambda status: "crash-looping" in status.counts)
            assert status.verdict == "degraded"
            assert {s.name: s.state for s in status.services} == {
                "a": "as desired",
                "bad": "crash-looping",
                "gone": "held",
                "wrong": "rejected",
            }
            found = problems(engine)
            assert "non-zero exit (1)" in found["crash-looping"].cause
            assert "connection refused" in found["held"].cause
            assert found["rejected"].cause == "secret bundle nope does not exist"
            world.cloudly.set(cluster(records[0]))
            await until(engine, lambda status: status.verdict == "as desired")

    play(scene)


def test_a_document_that_cannot_be_used_is_rejected_and_services_are_still_seen(tmp_path: Path) -> None:
    """What happens to them meanwhile is told, and the age of the records is."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        async with daemon(world, tmp_path) as engine:
            await until(engine, lambda status: status.verdict == "as desired")
            world.cloudly.set({"nonsense": 1})
            status = await until(engine, lambda status: bool(status.problems))
            (problem,) = status.problems
            assert (problem.kind, problem.subjects) == ("rejected", (RECORDS,))
            assert "coreflow check" in problem.next_step
            assert status.counts == {"as desired": 1}
            live = await world.live("a")
            await world.engine.remove_service(live["ID"])
            await until(engine, lambda status: "missing" in status.counts)
            world.cloudly.set(cluster(service("a")))
            await until(engine, lambda status: status.verdict == "as desired")

    play(scene)


def test_services_are_unknown_while_the_engine_is_away(tmp_path: Path) -> None:
    """Within two seconds, and known again as soon as it is back."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        async with daemon(world, tmp_path) as engine:
            await until(engine, lambda status: status.verdict == "as desired")
            world.engine.crash()
            world.engine.hang_up()
            await wait_for(lambda: status_of(engine).verdict == "unknown", seconds=2)
            status = status_of(engine)
            assert [(p.kind, p.subjects) for p in status.problems] == [("away", (ENGINE,))]
            assert status.counts == {"unknown": 1}
            told = explained(engine, "a")
            assert "engine is away" in told.decision
            world.engine.revive()
            await until(engine, lambda status: status.verdict == "as desired")

    play(scene)


def test_readiness_names_what_is_missing(tmp_path: Path) -> None:
    """The records, then the engine, then the first pass; from then on it is ready."""

    async def scene() -> None:
        world = World()
        world.engine.crash()
        async with daemon(world, tmp_path) as engine:
            board = engine.status
            assert board is not None
            assert board.readiness() == "the records have not been read yet"
            await wait_for(lambda: board.readiness().startswith("the engine has not been seen yet: "))
            assert status_of(engine).verdict == "unknown"
            world.engine.revive()
            await wait_for(lambda: not board.readiness())
            world.engine.crash()
            await wait_for(lambda: status_of(engine).verdict == "unknown")
            assert board.readiness() == ""

    play(scene)


def test_what_a_board_has_heard() -> None:
    """A bug of a pass, and a peer's failure, which is not said twice."""
    board = StatusBoard(lambda: 5.0)
    board.heard(RECORDS, "", Unavailable("no such file"))
    assert board.readiness() == "the records have not been read yet: no such file"
    board.heard(RECORDS, "", None)
    board.heard(ENGINE, "", None)
    assert board.readiness() == "the first pass has not ended yet"
    board.failed(KeyError("secret"))
    assert [p.cause for p in board.current().problems] == ["a bug: KeyError"]
    board.heard(ENGINE, "", Unavailable("gone"))
    board.failed(Unavailable("gone"))
    assert [p.cause for p in board.current().problems] == ["gone"]


@pytest.mark.parametrize(("seconds", "wrong"), [(DEAD_SECONDS, ""), (DEAD_SECONDS + 1, "31 s")])
def test_a_loop_that_stands_still_is_not_well(seconds: float, wrong: str) -> None:
    now = [0.0]
    board = StatusBoard(lambda: now[0])
    board.tick()
    now[0] = seconds
    assert wrong in board.health()
    assert bool(board.health()) is bool(wrong)


def test_a_document_says_the_same_on_the_other_side(tmp_path: Path) -> None:
    """Status and explanation, written and read; anything else is of another version."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a"), service("bad", BAD)))
        async with daemon(world, tmp_path) as engine:
            await until(engine, lambda status: "crash-looping" in status.counts)
            status, told = status_of(engine), explained(engine, "bad")
        text = status_document.write(status)
        read = status_document.read(text, Status)
        assert status_document.write(read) == text
        assert read.services[0].name == "a"
        text = status_document.write(told)
        assert status_document.write(status_document.read(text, Explanation)) == text
        for other in ("", "[]", '{"verdict": 1}'):
            with pytest.raises(Unavailable, match="another version"):
                status_document.read(other, Status)

    play(scene)


def test_a_peer_that_refuses_is_told_from_one_that_is_away() -> None:
    board = StatusBoard(lambda: 5.0)
    for error, kind in (
        (Refused("no"), "refused"),
        (InvalidRecord(Problem("$", "no")), "rejected"),
        (Unavailable("no"), "away"),
    ):
        board.heard(RECORDS, "", error)
        assert [p.kind for p in board.current().problems] == [kind]


def test_a_write_that_is_refused_is_a_problem(tmp_path: Path) -> None:
    """Of the service that it is about."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        world.engine.faults += [Fault(method="create_service", error=EngineError(400, "invalid mount"))] * 3
        async with daemon(world, tmp_path) as engine:
            status = await until(engine, lambda status: "missing" in status.counts)
            (problem,) = status.problems
            assert problem.cause.startswith("create service a: ")
            await until(engine, lambda status: status.verdict == "as desired")

    play(scene)


def test_a_backup_that_fails_is_a_problem_until_one_is_complete(tmp_path: Path) -> None:
    """With the name of its service, and the command that makes another."""

    async def scene() -> None:
        world = World()
        world.cloudly.set(cluster(service("a")))
        ports = Ports(
            cloudly=world.cloudly,
            docker=SwarmPort(world.engine),
            corestores=Corestores.one(MemoryCorestore()),
        )
        async with running(daemon_settings(tmp_path), ports) as engine:
            await until(engine, lambda status: status.verdict == "as desired")
            assert engine.operations is not None
            await engine.operations.backup(BackupRequest(backup_id="b", service_id=ServiceId("id-a")))
            (problem,) = status_of(engine).problems
            assert (problem.kind, problem.subjects) == ("backup failed", ("a",))
            assert problem.next_step == "`coreflow backup a`"
            (operation,) = status_of(engine).operations
            assert (operation.kind, operation.backup_id, operation.state) == ("backup", "b", "failed")

    play(scene)
