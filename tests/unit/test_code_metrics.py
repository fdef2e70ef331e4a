"""The script that measures the code counts as it says."""

import ast
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "code-metrics"


@pytest.fixture(scope="module")
def metrics() -> ModuleType:
    """The script as a module."""
    loader = SourceFileLoader("code_metrics", str(SCRIPT))
    spec = spec_from_loader("code_metrics", loader)
    assert spec is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "code_metrics", module)  # dataclasses look there
        loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", 1),
        ("if a and b or c: pass", 4),
        ("for x in [y for y in z if y]: pass\n else: pass", 4),
        ("try: pass\n except A: pass\n except B: pass", 3),
        ("match a:\n  case 1: pass\n  case 2: pass\n  case _: pass", 3),
        ("def inner():\n  if a: pass\n return lambda: a or b", 1),
    ],
)
def test_complexity(metrics: ModuleType, body: str, expected: int) -> None:
    """Branches and conditions count, functions inside do not."""
    function = ast.parse(f"def f():\n {body}").body[0]
    assert metrics.complexity(function) == expected


def test_a_package_within_limits_has_no_offences_and_others_name_the_place(
    metrics: ModuleType, tmp_path: Path
) -> None:
    """Each limit is reported with path, line and name."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "small.py").write_text("def f(a, *, b):\n    return a\n")
    assert list(metrics.offences(metrics.measure(package))) == []
    given = ", ".join(f"a{number}" for number in range(8))
    lines = "\n".join(["        x = 1"] * 300)
    (package / "large.py").write_text(
        f"class A:\n    def f(self, {given}):\n{lines}\n        return a0{' or a1' * 15}\n" + "\n" * 300
    )
    assert {text.partition(" (")[0] for text in metrics.offences(metrics.measure(package))} == {
        "package/large.py:2 A.f: 302 lines",
        "package/large.py:2 A.f: complexity 16",
        "package/large.py:2 A.f: 8 parameters",
        "package/large.py:1: 603 lines in one module",
        "package/large.py:1 A: 303 lines in one class",
        "functions: median 152 lines",
        "functions: p95 287 lines",
    }
