"""The domain loads nothing that could reach the outside world."""

import json
import subprocess
import sys
from pathlib import Path

import coreflow

FORBIDDEN = ["trio", "docker", "aiohttp", "requests", "urllib3", "yaml", "asyncio", "ssl", "structlog"]
PROGRAM = """
import importlib, json, pkgutil, sys
import coreflow, coreflow.domain
names = [module.name for module in pkgutil.walk_packages(coreflow.domain.__path__, "coreflow.domain.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([names, [name for name in {forbidden} if name in sys.modules]]))
"""


def test_imports() -> None:
    """A process that imports coreflow and every module of the domain has loaded no library for input or output."""
    source = Path(coreflow.__file__).parent.parent
    program = f"import sys; sys.path.insert(0, {str(source)!r})\n" + PROGRAM.format(forbidden=FORBIDDEN)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    names, loaded = json.loads(done.stdout)
    wanted = {"records.codec", "deploy.desired", "deploy.plan", "records.models", "swarm.specs"}
    assert {f"coreflow.domain.{name}" for name in wanted} <= set(names)
    assert loaded == []
