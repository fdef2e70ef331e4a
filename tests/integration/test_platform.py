"""Bound services on a real Swarm: the daemon, Cloudly on the npm packages, and a Corestore stand-in."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tests.integration.corestore_stand_in import start_stand_in
from tests.integration.lab import Lab, open_lab
from tests.integration.node_harness import TOKEN, Cloudly, needs_node, tell
from tests.integration.test_daemon import log_of, push, start, stopped, wait

pytestmark = [pytest.mark.engine, pytest.mark.guest, needs_node]
_numbers = itertools.count()


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"p{os.getpid()}x{next(_numbers)}")


async def test_a_bound_service_starts_with_its_credentials(
    lab: Lab, cloudly: Cloudly, nursery: trio.Nursery
) -> None:
    """In its secret, and nowhere else; held while Corestore is away; a restart of the daemon changes nothing."""
    stand_in = await start_stand_in(nursery)
    bound, free = lab.service("bound"), lab.service("free")
    platform = {
        "clusterId": lab.prefix,
        "revision": 1,
        "providers": [{"id": "p", "type": "corestore", "capabilities": [], "enabled": True}],
        "bindings": [
            {
                "id": f"b-{capability}",
                "data": {
                    "serviceId": bound["id"],
                    "serviceName": lab.name("bound"),
                    "capability": capability,
                },
            }
            for capability in ("database", "objectstorage")
        ],
    }
    await tell(cloudly, lab, bound, free, platform=platform)
    away = start(lab, cloudly, CORESTORE_CONTROL_URL="http://127.0.0.1:9")
    await wait(lab, "the other one runs", lambda: lab.running("free"))
    assert lab.services() == [lab.name("free")]
    await stopped(away)

    daemon = start(lab, cloudly, CORESTORE_CONTROL_URL=stand_in.url)
    await wait(lab, "it runs", lambda: lab.running("bound"))
    secret = json.loads(await trio.to_thread.run_sync(lab.exec, "bound", "cat", "/run/secrets/secret.json"))
    assert {"MONGODB_URI", "S3_BUCKET"} < secret.keys()
    with trio.fail_after(20):
        while len(reports := await cloudly.seen("reportPlatformBindingStatus")) < 2:  # noqa: ASYNC110
            await trio.sleep(0.1)
    bodies = [report["envelope"]["request"] for report in reports]
    assert {body["status"]["status"] for body in bodies} <= {"ready", "failed", "pending"}
    ready = [body["status"] for body in bodies if body["status"]["status"] == "ready"]
    assert all(status["credentials"][0]["file"] == "secret.json" for status in ready)
    assert not [value for value in secret.values() if len(value) > 12 and value in json.dumps(bodies)]
    await stopped(daemon)

    before = lab.inspect("bound")["Version"]["Index"]
    daemon = start(lab, cloudly, CORESTORE_CONTROL_URL=stand_in.url)
    await wait(lab, "it was asked again", lambda: len(log_of(lab, "provision")) >= 4)
    await push(cloudly, lab, bound, free, platform=platform)
    await trio.sleep(2)
    assert lab.inspect("bound")["Version"]["Index"] == before
    await stopped(daemon)
    log = (lab.folder / "daemon.log").read_text()
    assert not [value for value in secret.values() if len(value) > 12 and value in log]
    assert TOKEN not in log
