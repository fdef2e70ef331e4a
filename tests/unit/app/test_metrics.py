"""Metrics: what they say of a daemon, and the page and rules that name them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import trio
import yaml
from attrs import evolve
from tests.unit.app.worlds import World, cluster, daemon_settings, play, service
from tests.unit.certificates import make, raw

from coreflow.adapters.exposition import exposition
from coreflow.adapters.memory import Behaviour, MemoryCoretraffic
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.engine_calls import EngineCalls
from coreflow.app.main import Coreflow, Ports, running
from coreflow.app.metrics import metrics_table
from coreflow.domain.measures import Metric

ROOT = Path(__file__).parents[3]
NAME = re.compile(r"\bcoreflow_[a-z_]+\b")
LOOP = "loop:1"
Numbers = dict[str, Metric]


def numbers(engine: Coreflow) -> Numbers:
    """All metrics by name."""
    assert engine.metrics is not None
    return {metric.name: metric for metric in engine.metrics.read()}


def watched(
    folder: Path, *moments: tuple[Callable[[World], object], float], **settings: str
) -> list[Numbers]:
    """The numbers of a daemon after each of these moments: something happens, and seconds pass."""

    async def scene() -> list[Numbers]:
        world = World()
        world.engine.add_image(LOOP, Behaviour(exits=1, after=2))
        calls = EngineCalls()
        calls.called("GET", "/services", "200", 0.03)
        ports = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine), calls=calls, connects=lambda: 3)
        found = []
        async with (
            running(
                daemon_settings(folder, **settings), evolve(ports, coretraffic=MemoryCoretraffic())
            ) as engine,
            trio.open_nursery() as nursery,
        ):

            async def time_passes() -> None:
                while True:
                    await trio.sleep(0.5)
                    world.engine.advance(0)

            nursery.start_soon(time_passes)
            for happens, seconds in moments:
                happens(world)
                await trio.sleep(seconds)
                found.append(numbers(engine))
            nursery.cancel_scope.cancel()
        return found

    return play(scene)


def records(*services: object) -> Callable[[World], object]:
    """Let these be the records."""
    return lambda world: world.cloudly.set(cluster(*services))  # type: ignore[arg-type]


def value(found: Numbers, name: str, *labels: str) -> float:
    """One number."""
    return found[name].values[labels]


def families_of_a_daemon(folder: Path) -> list[Metric]:
    """All metrics of a daemon that has services, one of them in a crash loop, and hosts."""
    certificate = make("web.example.com", days=100_000)
    web = service("web", ports={"web": 80}, domains=[{"name": "web.example.com"}])

    def set_all(world: World) -> None:
        hosts = {"web.example.com": raw(certificate)}
        world.cloudly.set(cluster(web, service("loop", LOOP), certificates=hosts))

    (found,) = watched(folder, (set_all, 120))
    return [*found.values()]


def test_a_crash_loop_is_not_as_desired(tmp_path: Path) -> None:
    (found,) = watched(tmp_path, (records(service("a"), service("loop", LOOP)), 60))
    assert value(found, "services", "as_desired") == 1
    assert value(found, "services", "crash_looping") == 1
    assert value(found, "service_tasks_wanted", "loop") == 1
    assert value(found, "problems", "crash_looping") == 1
    assert value(found, "status", "degraded") == 1


def test_records_that_are_broken_do_not_freeze_the_numbers(tmp_path: Path) -> None:
    """The last success stays where it was, and records are down; services are unknown where nobody sees them."""

    def mend(world: World) -> None:
        world.engine.revive()
        world.cloudly.set(cluster(service("a")))

    good, broken, gone, mended = watched(
        tmp_path,
        (records(service("a")), 30),
        (lambda world: world.cloudly.set({"oops": 1}), 600),
        (lambda world: world.engine.crash(), 3600),
        (mend, 120),
    )
    last = "reconcile_last_success_timestamp_seconds"
    assert value(good, "peer_up", "records") == 1
    assert value(broken, "peer_up", "records") == 0
    assert value(broken, last) == value(good, last)
    assert value(broken, "reconciles", "records") > 0
    assert value(gone, "peer_up", "engine") == 0
    assert value(mended, "peer_up", "records") == value(mended, "peer_up", "engine") == 1
    assert value(mended, last) >= value(good, last)
    assert value(mended, "reconciles", "success") > value(gone, "reconciles", "success")


def test_drift_is_counted_and_triggers_are(tmp_path: Path) -> None:
    async def scene() -> tuple[Numbers, Numbers]:
        world = World()
        world.cloudly.set(cluster(service("a")))
        ports = Ports(cloudly=world.cloudly, docker=SwarmPort(world.engine))
        async with running(daemon_settings(tmp_path), ports) as engine:
            await trio.sleep(30)
            before = numbers(engine)
            await world.change("a", lambda spec: spec.update(Mode={"Replicated": {"Replicas": 4}}))
            await trio.sleep(60)
            engine.kick()
            await trio.sleep(5)
            return before, numbers(engine)

    before, after = play(scene)
    assert (value(before, "roll_outs"), value(before, "drifts")) == (1, 0)
    assert (value(after, "roll_outs"), value(after, "drifts")) == (2, 1)
    assert value(after, "triggers", "hand") == value(before, "triggers", "hand") + 1
    assert value(after, "triggers", "event") > value(before, "triggers", "event")
    histogram = after["reconcile_duration_seconds"].histograms[()]
    assert sum(histogram.counts) == sum(after["reconciles"].values.values())


def test_series_of_each_service_can_be_switched_off(tmp_path: Path) -> None:
    (found,) = watched(tmp_path, (records(service("a")), 30), COREFLOW_METRICS_PER_SERVICE="false")
    assert not found["service_tasks_running"].values
    assert value(found, "services", "as_desired") == 1


def test_the_page_has_every_metric(tmp_path: Path) -> None:
    """docs/metrics.md holds the table as the code has it; print `metrics_table(...)` to renew it."""
    assert metrics_table(families_of_a_daemon(tmp_path)) in (ROOT / "docs/metrics.md").read_text()


def test_rules_and_dashboard_name_only_what_there_is(tmp_path: Path) -> None:
    text = exposition(lambda: families_of_a_daemon(tmp_path)).text
    there = {name for line in text.splitlines() if line.startswith("# TYPE") for name in line.split()[2:3]}
    there |= {f"{name}_bucket" for name in there}
    for place in ("deploy/prometheus/rules.yml", "deploy/grafana/coreflow.json"):
        named = {*NAME.findall((ROOT / place).read_text())}
        assert named, place
        assert named <= there, place


def test_each_alert_has_its_cure() -> None:
    """Rules and the page name the same alerts, in the same order, and each rule leads to its section."""
    groups = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    page = (ROOT / "docs/alerts.md").read_text()
    sections = re.findall(r"^## (\w+)\n\n(.+)", page, re.MULTILINE)
    assert [rule["alert"] for rule in rules] == [name for name, _ in sections]
    for rule in rules:
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_the_dashboard_asks_for_something_in_each_panel() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/coreflow.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])
