"""Texts of an engine, about values that it was sent in another spelling than they arrive in."""

from typing import Any

import pytest

from coreflow.adapters.memory import MemoryEngine
from coreflow.adapters.swarm.discreet import Discreet
from coreflow.domain.swarm.templates import literal

VALUE = "Zq9{{x}}Kp7-the-rest-of-it"


@pytest.mark.parametrize("quoted", [VALUE, f"PW={VALUE}", literal(VALUE), f"PW={literal(VALUE)}"])
@pytest.mark.parametrize("where", ["variable", "option"])
async def test_a_value_with_braces_is_taken_out_however_it_is_quoted(where: str, quoted: str) -> None:
    """As it was sent, and as it arrived, also once the records know it no more."""
    memory = MemoryEngine()
    memory.add_image("web:1")
    containers: dict[str, dict[str, Any]] = {
        "variable": {"Env": [f"PW={literal(VALUE)}"]},
        "option": {
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "data",
                    "Target": "/data",
                    "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"PW": literal(VALUE)}}},
                }
            ]
        },
    }
    engine = Discreet(memory)
    await engine.create_service(
        {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "web:1", **containers[where]}}}
    )
    (task,) = await engine.list_tasks()
    memory.fail_task(task["ID"], f"mount failed: {quoted} is not understood")
    (text,) = [task["Status"]["Err"] for task in await engine.list_tasks() if task["Status"].get("Err")]
    assert "Kp7" not in text
    assert text.startswith("mount failed: ")
    assert text.endswith("… is not understood")
