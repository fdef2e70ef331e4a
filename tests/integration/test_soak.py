"""What is promised about a Swarm that others write to and break, for as long as a daemon runs on it.

Short here; `COREFLOW_SOAK=1` runs as long as the acceptance says. `COREFLOW_TEST_SEED` repeats what was drawn.
"""

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import requests
from tests.integration.competing import IS_LONG, Ring, Side, open_ring, span, watching
from tests.integration.engine_proxy import Trap
from tests.integration.lab import EXITING_IMAGE, LOCAL_IMAGE, NEWER_IMAGE, Json, Lab

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800 if IS_LONG else 300)]
_numbers = itertools.count()
SHORT_IMAGE, FRAGILE_IMAGE = "coreflow/test:short", "coreflow/test:fragile"
ENDING_IMAGE, GRUDGING_IMAGE = "coreflow/test:ends", "coreflow/test:grudging"


@pytest.fixture
def ring(engine_host: str, tmp_path: Path) -> Iterator[Ring]:
    """An empty cluster on a real Swarm."""
    yield from open_ring(engine_host, tmp_path, f"k{os.getpid()}x{next(_numbers)}")


def measured(record_property: Callable[[str, object], None], **facts: object) -> None:
    """Say what was measured, in the report of the run and with `-rP`."""
    for name, value in facts.items():
        record_property(name, value)
    os.write(1, f"{facts}\n".encode())


# --- two writers

TRIO = ("a", "b", "c")


def _older(lab: Lab) -> Json:
    services = [lab.service(short, secretBundleId="bundle", environment={"V": "1"}) for short in TRIO]
    return lab.write(*services, lab.service("extra"), **lab.secrets(KEY="old"))


def _newer(lab: Lab) -> Json:
    """One version on: another variable and another secret everywhere, another image in one, and one record less."""
    services = [
        lab.service(
            short,
            NEWER_IMAGE if short == "a" else LOCAL_IMAGE,
            secretBundleId="bundle",
            environment={"V": "2"},
        )
        for short in TRIO
    ]
    return lab.write(*services, **lab.secrets(KEY="new"))


def test_two_versions_of_the_records_do_not_fight(
    ring: Ring, record_property: Callable[[str, object], None]
) -> None:
    """Two daemons, one version apart: few writes, never without a task, and both say who is against them."""
    one, other = ring.side(), ring.side()
    _older(one.lab)
    _newer(other.lab)
    one.start()
    ring.lab.wait("the first has deployed", lambda: ring.at_rest(*TRIO, "extra") and _settled(one))
    one.proxy.reset()
    with watching(ring.lab, TRIO) as watch:
        other.start()
        time.sleep(span(45, 600))
    writes = len(one.writes()) + len(other.writes())
    measured(
        record_property,
        writes=(len(one.writes()), len(other.writes())),
        fewest=watch.fewest,
        most=watch.most,
        looks=watch.looks,
    )
    for side in (one, other):
        side.stop()
    assert writes <= 40, _both(one, other)
    assert min(watch.fewest.values()) >= 1, watch
    assert max(watch.most.values()) <= 3, watch
    for side in (one, other):
        said = {line["name"]: line["reason"] for line in side.log("contested")}
        for short in TRIO:
            assert "another coreflow" in said.get(ring.lab.name(short), ""), side.tail()
        assert not side.log("failed"), side.tail()


def _settled(side: Side) -> bool:
    return len(side.log("running")) >= 1


def _both(*sides: Side) -> str:
    return "\n=====\n".join(f"{side.writes()}\n{side.tail()}" for side in sides)


# --- the same records twice


def _steps(lab: Lab) -> list[list[Json]]:
    """The services after each change of the file."""

    def service(short: str, image: str = LOCAL_IMAGE, **data: object) -> Json:
        return lab.service(short, image, secretBundleId="bundle", **data)

    a, b, c = service("a"), service("b"), service("c")
    newer = service("a", NEWER_IMAGE)
    return [
        [a, b, c],
        [newer, b, c],
        [newer, service("b", environment={"V": "1"}), c],
        [newer, service("b", environment={"V": "2"}), service("c", scaleFactor=2)],
        [newer, service("b", environment={"V": "2"}), c, service("d"), service("e")],
        [a, service("b", environment={"V": "3"}), service("c", NEWER_IMAGE), service("d"), service("e")],
        [a, b, c, service("d")],
        [newer, service("b", NEWER_IMAGE), service("c", NEWER_IMAGE), service("d", NEWER_IMAGE)],
        [newer, service("b", NEWER_IMAGE), service("c", NEWER_IMAGE)],
        [service(short, NEWER_IMAGE, environment={"LAST": "1"}) for short in ("a", "b", "c", "f")],
    ]


def _walk(ring: Ring, sides: list[Side], steps: list[list[Json]]) -> int:
    """Change the file step by step, each after the one before has been carried out; how many writes that took."""
    lab = sides[0].lab
    for number, services in enumerate(steps):
        secret = "one" if number < 2 else "two"  # rotated on the way
        lab.write(*services, **lab.secrets(KEY=secret))
        if number == 0:
            for side in sides:
                side.start()
        ring.lab.wait(f"step {number}", partial(_is_reached, ring, services), seconds=60)
        time.sleep(1)
    time.sleep(span(8, 75))  # what is left over may be removed after a grace time
    for side in sides:
        side.stop()
    return sum(len(side.writes()) for side in sides)


def _is_reached(ring: Ring, services: list[Json]) -> bool:
    wanted = {record["data"]["name"]: record["data"] for record in services}
    if set(ring.lab.services()) != wanted.keys():
        return False
    for name, data in wanted.items():
        short = name.removeprefix(f"{ring.lab.prefix}-")
        environment = [f"{key}={value}" for key, value in data.get("environment", {}).items()]
        if ring.image(short) != data["registryTarget"]["imageUrl"] or ring.env(short) != environment:
            return False
        if len(ring.lab.running(short)) < data.get("scaleFactor", 1):
            return False
    return ring.at_rest(*(name.removeprefix(f"{ring.lab.prefix}-") for name in wanted))


def test_two_daemons_with_the_same_records_write_little_more_than_one(
    engine_host: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """From an empty Swarm through ten changes: 1.1 times the writes of one alone, and no lost race is called a failure."""
    counts = []
    for number, how_many in enumerate((1, 2)):
        folder = tmp_path / str(how_many)
        folder.mkdir()
        for ring in open_ring(engine_host, folder, f"k{os.getpid()}y{next(_numbers)}"):
            first = ring.side()
            sides = [first, *(ring.side(shares=first) for _ in range(how_many - 1))]
            steps = _steps(first.lab)
            counts.append(_walk(ring, sides, steps if IS_LONG else steps[:4]))
            if number:
                said = {line["event"] for side in sides for line in side.warnings()}
                assert not said & {"failed", "contested", "waiting for a peer", "waiting for the records"}, (
                    _both(*sides)
                )
                measured(record_property, alone=counts[0], together=[len(side.writes()) for side in sides])
                # a short run is spoilt by the one or two races after which each knows of the other
                assert counts[1] <= max(1.1 * counts[0], counts[0] + span(2, 0)), _both(*sides)


# --- containers that are killed


def test_containers_that_are_killed_stop_no_roll_out(
    ring: Ring, draw: random.Random, record_property: Callable[[str, object], None]
) -> None:
    """Image changes while containers are killed at random: in the end every service runs what its record says."""
    shorts = [f"s{number}" for number in range(int(span(4, 6)))]
    changes, kills, seconds = int(span(8, 110)), int(span(9, 120)), span(30, 1200)
    images = dict.fromkeys(shorts, LOCAL_IMAGE)
    side = ring.side()

    def publish() -> None:
        side.lab.write(*(side.lab.service(short, images[short]) for short in shorts))

    publish()
    side.start()
    ring.lab.wait("all run", lambda: ring.at_rest(*shorts))
    moments = sorted(
        [(draw.uniform(0, seconds), "change") for _ in range(changes)]
        + [(draw.uniform(0, seconds), "kill") for _ in range(kills)]
    )
    began, latest, killed = time.monotonic(), shorts[0], 0
    for moment, what in moments:
        time.sleep(max(began + moment - time.monotonic(), 0))
        if what == "change":
            latest = draw.choice(shorts)
            images[latest] = NEWER_IMAGE if images[latest] == LOCAL_IMAGE else LOCAL_IMAGE
            publish()
        else:  # one that is being rolled out, every other time: there it hurts most
            found = ring.containers(latest if draw.random() < 0.5 else "") or ring.containers()
            killed += bool(found) and ring.kill_container(draw.choice(sorted(found)))
    ended = time.monotonic()

    def is_right() -> bool:
        return all(ring.image(short) == images[short] for short in shorts) and ring.at_rest(*shorts)

    ring.lab.wait("every service is right", is_right, seconds=span(90, 300))
    measured(
        record_property,
        changes=changes,
        killed=killed,
        updates=len(side.proxy.updates),
        seconds_until_right=round(time.monotonic() - ended, 1),
        tried_again=[line["reason"] for line in side.log("update") if "tried again" in line["reason"]],
    )
    side.stop()
    rolled_back = [line for line in side.log() if "rolled back" in str(line.get("reason", ""))]
    assert not rolled_back or any("tried again" in str(line.get("reason")) for line in side.log()), (
        side.tail()
    )


def test_no_change_is_given_up_because_containers_are_killed(
    ring: Ring, draw: random.Random, record_property: Callable[[str, object], None]
) -> None:
    """Round by round: all images change, containers are killed meanwhile, and every one of the changes is carried out."""
    shorts = [f"s{number}" for number in range(int(span(3, 10)))]
    rounds, kills, seconds = int(span(2, 11)), int(span(6, 120)), span(6, 10)
    side = ring.side()
    side.lab.write(*(side.lab.service(short) for short in shorts))
    side.start()
    ring.lab.wait("all run", lambda: ring.at_rest(*shorts))
    plan = [draw.randrange(rounds) for _ in range(kills)]
    killed, right, longest = 0, 0, 0.0
    for number in range(rounds):
        image = LOCAL_IMAGE if number % 2 else NEWER_IMAGE
        side.lab.write(*(side.lab.service(short, image) for short in shorts))
        began = time.monotonic()
        for moment in sorted(draw.uniform(0, seconds) for _ in range(plan.count(number))):
            time.sleep(max(began + moment - time.monotonic(), 0))
            found = ring.containers(draw.choice(shorts)) or ring.containers()
            killed += bool(found) and ring.kill_container(draw.choice(sorted(found)))

        def are_right(image: str = image) -> bool:
            return all(ring.image(short) == image for short in shorts) and ring.at_rest(*shorts)

        ring.lab.wait(f"round {number} is right", are_right, seconds=span(90, 300))
        right += len(shorts)
        longest = max(longest, time.monotonic() - began)
    side.stop()
    measured(
        record_property,
        changes=right,
        killed=killed,
        updates=len(side.proxy.updates),
        longest=round(longest, 1),
    )
    assert not [line for line in side.log("failed") if "not tried again" in str(line.get("reason"))], (
        side.tail()
    )


# --- evidence that the Swarm does not keep


@pytest.fixture
def history_limit(ring: Ring) -> Iterator[Callable[[int], None]]:
    """Set how many ended tasks the Swarm keeps, for as long as the test runs."""
    client = ring.lab.client

    def set_limit(limit: int) -> None:
        swarm = client.inspect_swarm()
        spec = swarm["Spec"]
        spec["Orchestration"] = {**spec.get("Orchestration", {}), "TaskHistoryRetentionLimit": limit}
        client.update_swarm(version=swarm["Version"]["Index"], swarm_spec=spec)

    yield set_limit
    set_limit(5)  # the default: what a test that was killed has left is not worth restoring


Restart = Literal["never", "at once", "after the roll-back"]
RESTARTS: tuple[Restart, ...] = ("never", "at once", "after the roll-back")
HOWS = ("apply", "daemon")
ALL_LIMITS = tuple(itertools.product((0, 1, 5), HOWS, RESTARTS))
SOME_LIMITS = (
    (0, "apply", "never"),
    (0, "daemon", "never"),
    (0, "apply", "after the roll-back"),
    (0, "daemon", "at once"),
    (1, "daemon", "after the roll-back"),
    (5, "apply", "at once"),
)


@pytest.mark.parametrize(("limit", "how", "restart"), ALL_LIMITS if IS_LONG else SOME_LIMITS)
def test_a_failing_change_is_tried_once_whatever_the_history_limit(
    ring: Ring, history_limit: Callable[[int], None], limit: int, how: str, restart: Restart
) -> None:
    """One update, one roll-back, *failed* said, and nothing more, also by a process that was not there before."""
    history_limit(limit)
    side = ring.side()
    side.lab.write(side.lab.service("a"), side.lab.service("b"))
    side.lab.deploy()
    side.lab.write(side.lab.service("a", EXITING_IMAGE), side.lab.service("b"))
    (_fail_by_apply if how == "apply" else _fail_by_daemon)(ring, side, restart)
    assert len(side.updates_to(EXITING_IMAGE)) == 1, side.proxy.requests
    side.proxy.reset()
    again = side.apply("--timeout", "30")
    assert (again.code, side.writes()) == (1, []), str(again)
    assert ring.lab.name("a") in again.out
    assert [failure["name"] for failure in again.json["failures"]] == [ring.lab.name("a")], again.out
    assert ring.image("a") == LOCAL_IMAGE
    assert ring.at_rest("a", "b")


def _rolled_back(ring: Ring) -> bool:
    live = ring.live("a")
    return live is not None and (live.get("UpdateStatus") or {}).get("State") == "rollback_completed"


def _fail_by_apply(ring: Ring, side: Side, restart: Restart) -> None:
    arguments = ("apply", "--records", str(side.records), "--timeout", "60")
    if restart != "never":
        side.proxy.trap = Trap(1, "after", side.lab.kill_last)
        process = side.lab.start(*arguments, DOCKER_HOST=side.proxy.url)
        assert process.wait(timeout=30) < 0
        side.proxy.trap = None
        if restart == "after the roll-back":
            ring.lab.wait("it is rolled back", lambda: _rolled_back(ring))
    done = side.apply("--timeout", "60")
    assert done.code == 1, str(done)
    assert "not tried again" in done.out, str(done)


def _fail_by_daemon(ring: Ring, side: Side, restart: Restart) -> None:
    if restart != "never":
        side.proxy.trap = Trap(1, "after", side.lab.kill_last)
        side.start()
        assert side.process is not None
        assert side.process.wait(timeout=30) < 0
        side.proxy.trap = None
        if restart == "after the roll-back":
            ring.lab.wait("it is rolled back", lambda: _rolled_back(ring))
    side.start()
    ring.lab.wait("it says so", lambda: side.log("failed", name=ring.lab.name("a")))
    time.sleep(span(8, 30))
    side.stop()
    lines = side.log("failed", name=ring.lab.name("a"))
    assert "not tried again" in lines[-1]["reason"], side.tail()


# --- crash loops

UNHEALTHY: Json = {
    "healthCheck": {"command": "exit 1", "intervalSeconds": 1, "timeoutSeconds": 1, "retries": 2}
}
LOOPS: dict[str, tuple[str, Json, str]] = {
    "after 3 s": (SHORT_IMAGE, {}, "non-zero exit (1)"),
    "with 0": (ENDING_IMAGE, {}, "exit code 0"),
    "unhealthy": (GRUDGING_IMAGE, UNHEALTHY, "unhealthy container"),
    "unhealthy, with 0": (LOCAL_IMAGE, UNHEALTHY, "exit code 0, maybe stopped since its health check failed"),
}


@pytest.mark.parametrize(("image", "data", "cause"), LOOPS.values(), ids=LOOPS)
def test_an_apply_of_what_ends_again_and_again_fails(ring: Ring, image: str, data: Json, cause: str) -> None:
    """`apply` exits 1 with count and last exit, `plan` says so in one line, and neither writes any more."""
    side = ring.side()
    side.lab.write(side.lab.service("a", image, **data), side.lab.service("b"))
    text = side.lab.run("apply", "--records", str(side.records), "--timeout", "90")
    assert text.code == 1, str(text)
    assert "crash-looping" in text.out + text.err, str(text)
    assert cause in text.out + text.err, str(text)
    plan = side.lab.run("plan", "--records", str(side.records))
    (line,) = [
        line for line in plan.out.splitlines() if "crash-looping" in line and ring.lab.name("a") in line
    ]
    assert cause in line, str(plan)
    (loop,) = side.lab.plan().json["crash_looping"]
    assert (loop["name"], loop["times"] >= 2, cause in loop["error"]) == (ring.lab.name("a"), True, True)
    side.proxy.reset()
    again = side.apply("--timeout", "30")
    assert (again.code, side.writes()) == (1, []), str(again)


@pytest.mark.parametrize(
    ("image", "data", "cause"),
    [*LOOPS.values(), (FRAGILE_IMAGE, {}, "non-zero exit (1)")],
    ids=[*LOOPS, "after 8 s"],
)
def test_a_daemon_says_once_that_a_crash_loop_begins_and_ends(
    ring: Ring, image: str, data: Json, cause: str
) -> None:
    """One line when it begins, one when the record is mended and the service runs again."""
    side = ring.side()
    side.lab.write(side.lab.service("a", image, **data), side.lab.service("b"))
    side.start()
    name = ring.lab.name("a")
    ring.lab.wait("it begins", lambda: side.log("crash-looping", name=name), seconds=60)
    time.sleep(span(10, 120))
    (begins,) = side.log("crash-looping")
    assert (begins["name"], cause in begins["reason"]) == (name, True), side.tail()
    side.lab.write(side.lab.service("a"), side.lab.service("b"))
    ring.lab.wait("it ends", lambda: side.log("resolved", name=name, was="crash-looping"), seconds=60)
    ring.lab.wait("it runs", lambda: ring.at_rest("a") and side.log("running", name=name))
    side.stop()
    assert len(side.log("crash-looping")) == 1, side.tail()
    assert len(side.log("resolved", name=name, was="crash-looping")) == 1, side.tail()


def test_an_apply_with_nothing_to_do_does_not_wait_for_anything_to_settle(ring: Ring) -> None:
    """What has run for longer than the settling time costs no waiting."""
    side = ring.side()
    side.lab.write(side.lab.service("a"))
    side.lab.deploy()
    time.sleep(6)
    began = time.monotonic()
    side.lab.deploy()
    settled = time.monotonic() - began
    began = time.monotonic()
    side.lab.deploy(COREFLOW_SETTLE_SECONDS="0")
    assert settled < time.monotonic() - began + 2


# --- a hand


def test_a_hand_that_edits_again_and_again_is_answered_with_pauses(
    ring: Ring, record_property: Callable[[str, object], None]
) -> None:
    """An edit every second: the first is put right at once, the others with growing pauses, and the log says so."""
    side = ring.side()
    side.lab.write(side.lab.service("a"), side.lab.service("b"))
    side.start()
    ring.lab.wait("both run", lambda: ring.at_rest("a", "b"))
    time.sleep(6)  # what is still being rolled out is left alone
    side.proxy.reset()

    def edit() -> None:
        """As `docker service update --env-add X=1` does it: a write, whether or not it changes anything."""
        ring.lab.change("a", _add_variable)

    edits, first_answer = 0, 0.0
    began = time.monotonic()
    with watching(ring.lab, ("a", "b")) as watch:
        while time.monotonic() < began + span(40, 60):
            edits += _won(edit)
            if not first_answer and side.writes():
                first_answer = time.monotonic() - began
            time.sleep(1)
    measured(
        record_property,
        edits=edits,
        writes=len(side.writes()),
        first_answer=round(first_answer, 1),
        fewest=watch.fewest,
    )
    side.stop()
    assert 1 <= len(side.writes()) <= 6, side.tail()
    assert min(watch.fewest.values()) >= 1, watch
    contested = side.log("contested", name=ring.lab.name("a"))
    assert contested, side.tail()
    assert "by hand" in contested[0]["reason"]
    assert not side.log("contested", name=ring.lab.name("b"))


def _add_variable(spec: Json) -> None:
    container = spec["TaskTemplate"]["ContainerSpec"]
    container["Env"] = ["X=1"]


def _won(edit: Callable[[], None]) -> bool:
    """Whether an edit went through: one that loses a race does not."""
    try:
        edit()
    except requests.HTTPError as exc:
        if "out of sequence" not in exc.response.text:
            raise
        return False
    return True
