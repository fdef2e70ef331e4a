"""What `import coreflow` promises."""

import subprocess
import sys

import coreflow
from coreflow.adapters import memory

PUBLIC = [
    "BaseOptions",
    "ControlPlane",
    "CoreflowError",
    "Desired",
    "DockerPort",
    "InvalidRecord",
    "LostRace",
    "Observed",
    "Outcome",
    "Plan",
    "PlanOptions",
    "PortError",
    "PreconditionFailed",
    "Problem",
    "RecordDecoder",
    "Records",
    "Refused",
    "RenderOptions",
    "Renderer",
    "Report",
    "Unavailable",
    "Verdict",
    "decode_records",
    "judge",
    "judge_all",
    "make_plan",
]


def test_the_public_names_are_these() -> None:
    """A name that is added or removed shows here; every name is there."""
    assert coreflow.__all__ == PUBLIC
    assert all(hasattr(coreflow, name) for name in PUBLIC)


def test_the_memory_adapters_are_public() -> None:
    """Embedding programs and tests get the peers in memory from one place."""
    assert memory.__all__ == [
        "Behaviour",
        "Fault",
        "MemoryCloudly",
        "MemoryCorestore",
        "MemoryCoretraffic",
        "MemoryEngine",
        "MemoryGateway",
        "Node",
        "Registry",
    ]
    assert all(hasattr(memory, name) for name in memory.__all__)


def test_the_core_imports_no_runtime_and_no_client() -> None:
    """`import coreflow` is the pure core."""
    program = "import sys, coreflow; print([m for m in ('trio', 'asyncio', 'docker', 'requests', 'aiohttp', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
