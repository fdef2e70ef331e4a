"""Random tests: new seeds every run, and what failed is printed and kept. See docs/development.md."""

import gc
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase
from tests.effort import examples
from tests.seeds import IS_GIVEN, SEED, VARIABLE, dice

EXAMPLES = Path(os.environ.get("COREFLOW_TEST_EXAMPLES", ".hypothesis/examples"))
"""Where Hypothesis keeps the examples that failed, and takes them from first."""

# Before any test module is read, since settings begin with those of the profile.
settings.register_profile(
    "new seeds",
    derandomize=False,
    deadline=None,
    max_examples=examples(100),
    print_blob=True,
    database=DirectoryBasedExampleDatabase(EXAMPLES),
)
settings.load_profile("new seeds")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Where a run is repeated, Hypothesis draws as it did, too; with a seed of its own it keeps no examples."""
    if IS_GIVEN and not hasattr(config, "workerinput") and config.getoption("hypothesis_seed") is None:
        config.option.hypothesis_seed = str(SEED)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hypothesis looks for a smaller example for up to five minutes: a failure that is cut off there says nothing."""
    for item in items:
        if item.get_closest_marker("hypothesis") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays until the end: it would walk through all of it time and again."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """Say the seed of a run when it begins."""
    return _said()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say the seed again where a test failed, and in a few lines why tests were skipped."""
    if terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.write_line(_said())
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    for reason, times in reasons.most_common():
        terminalreporter.write_line(f"skipped {times}: {reason}")


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _said() -> str:
    return f"seed: {VARIABLE}={SEED} repeats what tests drew; failed examples are kept in {EXAMPLES}"


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers for one test, other ones in every run. Where it fails, the report says which seed repeats them."""
    request.node.add_report_section("setup", "seed", f"{VARIABLE}={SEED}")
    return dice(request.node.nodeid)
