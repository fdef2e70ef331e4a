"""What a service manager is told, by the clock and over a real socket."""

import math
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from attrs import Factory, define, evolve
from tests.unit.app.worlds import play
from tests.unit.domain.examples import desired, result, state

from coreflow.adapters.notify import Manager
from coreflow.app.notifying import STATUS_SECONDS, WAITING, status_of, telling
from coreflow.domain.deploy.result import ReconcileResult
from coreflow.domain.status.model import Checked, CurrentProblem, Status


@define
class Told:
    """A manager that remembers when it was told what."""

    watchdog_seconds: float | None = None
    messages: list[tuple[float, str]] = Factory(list)

    def _note(self, text: str) -> None:
        self.messages.append((round(trio.current_time(), 3), text))

    def ready(self, status: str) -> None:
        self._note(f"ready: {status}")

    def status(self, status: str) -> None:
        self._note(status)

    def alive(self) -> None:
        self._note("alive")

    def stopping(self) -> None:
        self._note("stopping")


SEEN = Checked(services=0.0)


@define
class Passes:
    """Whose passes end at these times, and whose engine is away from a time on."""

    times: list[float]
    away: float = math.inf

    async def reconciled(self) -> ReconcileResult:
        due = next((time for time in self.times if time > trio.current_time()), None)
        if due is None:
            await trio.sleep_forever()
        else:
            await trio.sleep_until(due)
        return result(last=state(wanted=desired()))

    def present_status(self) -> Status:
        if trio.current_time() >= self.away:
            return Status(verdict="unknown", time=0.0, checked=SEEN, counts={"unknown": 2})
        ended = sum(time <= trio.current_time() for time in self.times)
        seen = SEEN if ended else Checked()
        return Status(verdict="as desired", time=0.0, checked=seen, counts={"as desired": ended})


def told(manager: Told, times: list[float], until: float, away: float = math.inf) -> list[tuple[float, str]]:
    """What it is told, from the start to the end, in seconds since the start."""

    async def scene() -> None:
        start = trio.current_time()
        async with telling(manager, Passes([start + t for t in times], start + away), ready_seconds=30):
            await trio.sleep_until(start + until)
        manager.messages = [(round(at - start, 3), text) for at, text in manager.messages]

    play(scene)
    return manager.messages


def test_ready_is_said_after_the_first_pass() -> None:
    """Once; later passes change the status."""
    assert told(Told(), [2, 50], until=60) == [
        (2, "ready: as desired: 1 as desired"),
        (50, "as desired: 2 as desired"),
        (60, "stopping"),
    ]


def test_what_goes_away_between_passes_is_said() -> None:
    """Within seconds, and once."""
    messages = told(Told(), [2], until=60, away=20)
    texts = [text for _, text in messages]
    assert texts == ["ready: as desired: 1 as desired", "unknown: 2 unknown", "stopping"]
    assert 20 <= [at for at, _ in messages][1] <= 20 + STATUS_SECONDS


def test_a_peer_that_is_away_does_not_make_the_start_fail() -> None:
    """Whoever waits for the start is told to go on, and why."""
    assert told(Told(), [100], until=120) == [
        (30, f"ready: {WAITING}"),
        (100, "as desired: 1 as desired"),
        (120, "stopping"),
    ]


def test_signs_of_life_come_in_time() -> None:
    """Three in the time after which the watchdog bites, from the start on; none where nobody watches."""
    messages = told(Told(watchdog_seconds=60), [], until=70)
    assert [at for at, text in messages if text == "alive"] == [0, 20, 40, 60]
    assert "alive" not in {text for _, text in told(Told(), [], until=70)}


def test_the_status_has_counts_and_no_names() -> None:
    """In the words of the status, the most first."""
    problem = CurrentProblem(kind="held", subjects=("web",), cause="c", since=0.0, next_step="n")
    status = Status(
        verdict="degraded",
        time=0.0,
        checked=SEEN,
        problems=(problem,),
        counts={"held": 1, "waiting": 1, "as desired": 3},
    )
    assert status_of(status) == "degraded: 3 as desired, 1 held, 1 waiting; 1 problem"
    assert status_of(evolve(status, problems=(problem, problem))).endswith("; 2 problems")
    assert status_of(Status(verdict="as desired", time=0.0, checked=SEEN)) == "as desired: no services"
    assert status_of(Status(verdict="unknown", time=0.0)) == WAITING


# the protocol


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A manager's socket, and its address as the variable has it."""
    name = f"coreflow-test-{os.getpid()}-{tmp_path.name}"
    address = str(tmp_path / "notify") if request.param == "path" else f"@{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address if request.param == "path" else f"\0{name}")
        receiver.settimeout(5)
        yield address, receiver


def test_each_message_is_one_datagram(listener: tuple[str, socket.socket]) -> None:
    """With the fields that systemd knows; a status is one line."""
    address, receiver = listener
    manager = Manager.of({"NOTIFY_SOCKET": address})
    messages: list[tuple[Callable[[], None], bytes]] = [
        (lambda: manager.ready("all\nis well"), b"READY=1\nSTATUS=all is well"),
        (lambda: manager.status("x" * 300), b"STATUS=" + b"x" * 200),
        (manager.alive, b"WATCHDOG=1"),
        (manager.stopping, b"STOPPING=1"),
    ]
    for tell, message in messages:
        tell()
        assert receiver.recv(4096) == message


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_may_be_meant_for_another(environ: dict[str, str], seconds: float | None) -> None:
    """A period for another process, or none at all."""
    assert Manager.of({"NOTIFY_SOCKET": "/run/notify", **environ}, pid=7).watchdog_seconds == seconds


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1", "relative"])
def test_a_manager_that_does_not_listen_costs_nothing(address: str) -> None:
    """No socket, or one of a kind that we do not know."""
    manager = Manager.of({"NOTIFY_SOCKET": address} if address else {})
    manager.ready("well")
    manager.stopping()
