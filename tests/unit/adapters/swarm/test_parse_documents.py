"""Documents of an engine that are not what they should be."""

from typing import Any

import pytest

from coreflow.adapters.memory import MemoryEngine
from coreflow.adapters.swarm.parse_documents import read_each
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.domain.errors import Unavailable


@pytest.mark.parametrize(
    ("spoil", "path"),
    [
        (lambda d: d.pop("ID"), r"\$\.tasks\[0\]: ID is missing"),
        (lambda d: d.update(Status="secret"), r"\$\.tasks\[0\]: a member is of another kind"),
        (lambda d: d.update(Spec=[1]), r"\$\.tasks\[0\]: a member is of another kind"),
    ],
)
async def test_a_task_of_another_shape(spoil: Any, path: str) -> None:
    """An error with the path, which is tried again; no value in it, and no bug."""

    class Odd(MemoryEngine):
        async def list_running_tasks(self) -> Any:
            document: dict[str, Any] = {"ID": "t", "ServiceID": "s", "Status": {}, "Spec": {}}
            spoil(document)
            return [document]

    with pytest.raises(Unavailable, match=path) as caught:
        await SwarmPort(Odd()).running_tasks()
    assert "secret" not in str(caught.value)


def test_a_list_is_read_in_order() -> None:
    """The path names the first document that cannot be read."""
    assert read_each("services", [{"a": 1}, {"a": 2}], lambda d: d["a"]) == (1, 2)
    with pytest.raises(Unavailable, match=r"\$\.services\[1\]: a is missing"):
        read_each("services", [{"a": 1}, {}], lambda d: d["a"])
