"""Metrics and alerts as Prometheus' own tool reads them."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.unit.app.test_metrics import families_of_a_daemon

from coreflow.adapters.engine.client import open_engine
from coreflow.adapters.engine.protocol import EngineError, EngineUnreachable
from coreflow.adapters.exposition import exposition
from coreflow.app.engine_calls import EngineCalls

RULES = Path(__file__).parents[2] / "deploy/prometheus/rules.yml"
TESTS = RULES.with_name("rules.test.yml")

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: scripts/engine does that"
)


def promtool(*arguments: str, text: str = "") -> str:
    """What it says, if it is satisfied."""
    command = ["promtool", *arguments]
    ended = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_metrics_keep_the_conventions(tmp_path: Path) -> None:
    """Names, units, types and help, of a daemon that has something of each."""
    text = exposition(lambda: families_of_a_daemon(tmp_path)).text
    assert "coreflow_build_info{" in text
    assert "process_resident_memory_bytes" in text
    assert promtool("check", "metrics", text=text) == ""


@pytest.mark.engine
async def test_calls_of_a_real_engine_are_counted(engine_host: str) -> None:
    """Those that are answered, refused, and not answered at all."""
    calls = EngineCalls()
    async with open_engine(engine_host, calls.called) as engine:
        await engine.list_services()
        with pytest.raises(EngineError):
            await engine.inspect_service("there-is-none")
    async with open_engine("unix:///nowhere.sock", calls.called) as nobody:
        with pytest.raises(EngineUnreachable):
            await nobody.list_services()
    assert calls.counts["GET", "/services", "200"] == 1
    assert calls.counts["GET", "/services/{id}", "404"] == 1
    assert calls.counts["GET", "/services", "none"] == 1
    assert 0 < calls.seconds["GET", "/services"].total < 60


def test_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    """There is a history of either kind for each."""
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))
    alerts = {
        rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    }
    tested = [
        (one["alertname"], bool(one["exp_alerts"]))
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for one in test["alert_rule_test"]
    ]
    assert {*tested} == {(alert, fires) for alert in alerts for fires in (True, False)}
