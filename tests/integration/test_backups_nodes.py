"""Volumes on a Swarm of three nodes, each with a Corestore of its own: the one on the service's node is asked."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import docker
import pytest
import trio
from tests.integration.corestore_server import CorestoreServer, start_corestore
from tests.integration.lab import LOCAL_IMAGE, Lab
from tests.integration.test_routing_nodes import NODES, Nodes, lab, nodes, placed, run

from coreflow.adapters.corestore import Corestore
from coreflow.adapters.engine.client import open_engine
from coreflow.adapters.memory import MemoryCloudly
from coreflow.adapters.swarm.port import SwarmPort
from coreflow.app.backups import Tools
from coreflow.app.bindings import Bindings
from coreflow.app.corestores import Corestores
from coreflow.app.operations import Operations
from coreflow.app.progress import Unwatched
from coreflow.app.reconcile import Reconciler
from coreflow.app.replication import Replicator
from coreflow.domain.backup.requests import BackupRequest, RestoreRequest
from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.ids import ServiceId

__all__ = ["lab", "nodes"]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.nodes,
    pytest.mark.guest,
    pytest.mark.xdist_group("nodes"),
]
BASE = BaseOptions(services=("corestore",), images={"corestore": LOCAL_IMAGE})


@pytest.fixture
def sockets(nodes: Nodes) -> Iterator[dict[str, Path]]:
    """Where the volume plugin of each node listens."""
    found = {node: nodes.state / node / "run/docker/plugins/corestore.sock" for node in NODES}
    yield found
    for socket in found.values():
        socket.unlink(missing_ok=True)


async def test_the_corestore_of_the_services_node_is_asked(
    nodes: Nodes, lab: Lab, sockets: dict[str, Path], nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Its volume is saved and brought back there; the service stays on that node, also over the restore."""
    servers = {
        node: await start_corestore(nursery, tmp_path / node, plugin_socket=socket)
        for node, socket in sockets.items()
    }
    for node in NODES:  # a node says that it has a plugin once it was used there
        await run(_list_volumes, nodes.host(node))
    record = lab.service("shop", LOCAL_IMAGE, volumes=[{"mountPath": "/data", "backup": True}])
    document = {"configData": {"id": lab.prefix, "data": {"name": lab.prefix}}, "services": [record]}
    cloudly = MemoryCloudly(document)

    def at(url: str) -> Corestore:
        server = _behind(lab, servers, url)
        return Corestore(server.url, server.token)

    async with open_engine(nodes.host("node1")) as engine:
        swarm = SwarmPort(engine)
        corestores = Corestores(at, is_ours=True)
        reconciler = Reconciler(cloudly, swarm, corestores, render=RenderOptions(base=BASE))
        reconcile_result = await reconciler.deploy(timeout=60)
        assert reconcile_result.is_stable, reconcile_result
        (home,) = await run(placed, lab, "shop")
        instances = corestores.instances(
            reconcile_result.last.observed, reconcile_result.last.desired.cluster
        )
        assert sorted(instance.hostname for instance in instances.all) == list(NODES)
        operations = Operations(
            Tools(
                cloudly=cloudly,
                docker=swarm,
                corestores=corestores,
                bindings=Bindings(corestores, cloudly),
                replicator=Replicator(cloudly),
                watcher=Unwatched(),
                clock=trio.current_time,
                restoring=reconciler.restoring,
            )
        )
        nursery.start_soon(operations.run)
        (volume,) = (servers[home].data / "volumes").iterdir()
        (volume / "file").write_text("kept")
        service_id = ServiceId(record["id"])
        saved = await operations.backup(BackupRequest(backup_id="b1", service_id=service_id, replicate=True))
        assert saved.status == "completed", saved
        (part,) = saved.parts
        assert [instance.hostname for instance in instances.all if instance.node == part.node] == [home]
        (volume / "file").unlink()
        for node, server in servers.items():
            assert bool(list(server.archive.rglob("*.pack"))) == (node == home)
        for found in servers[home].archive.rglob("*"):
            if found.is_file():
                found.unlink()
        restored = await operations.restore(RestoreRequest(backup_id="b1", service_id=service_id))
        assert restored.status == "completed", restored
        assert restored.objects_pulled > 0
        assert (volume / "file").read_text() == "kept"
        await reconciler.deploy(timeout=60)
        assert list(await run(placed, lab, "shop")) == [home]
    nursery.cancel_scope.cancel()


def _list_volumes(host: str) -> None:
    client = docker.APIClient(base_url=host, timeout=60)
    client.volumes()
    client.close()


def _behind(lab: Lab, servers: dict[str, CorestoreServer], url: str) -> CorestoreServer:
    """The stand-in on the node whose corestore task has this address; the overlay cannot be reached from here."""
    names = {node["ID"]: node["Description"]["Hostname"] for node in lab.client.nodes()}
    for task in lab.client.tasks(filters={"service": "corestore", "desired-state": "running"}):
        for attachment in task.get("NetworksAttachments") or ():
            if attachment["Addresses"][0].partition("/")[0] == urlsplit(url).hostname:
                return servers[names[task["NodeID"]]]
    raise AssertionError(f"no corestore at {url}")
