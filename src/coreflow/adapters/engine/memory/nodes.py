"""Members of the Swarm: what is on them, and which tasks may go to them."""

from collections.abc import Iterable

from attrs import Factory, define, field

from coreflow.adapters.engine.protocol import Document

NANO = 1_000_000_000


@define(kw_only=True)
class Node:
    """A member of the Swarm, with what lies on it."""

    id: str
    hostname: str
    role: str = "worker"
    state: str = "ready"
    availability: str = "active"
    images: set[str] = Factory(set)
    plugins: set[str] = field(factory=lambda: {"local"})
    volumes: dict[str, Document] = Factory(dict)
    address: str = "192.0.2.1"
    cpus: float = 4.0
    memory: int = 16 * 2**30
    os: str = "linux"
    architecture: str = "x86_64"
    """As nodes call it: `aarch64` where images say `arm64`."""


def meets(node: Node, constraint: str) -> bool:
    """Return whether a node meets a placement constraint such as `node.role==manager`."""
    key, operator, value = constraint.replace(" ", "").partition("!=" if "!=" in constraint else "==")
    known = {"node.id": node.id, "node.hostname": node.hostname, "node.role": node.role}
    return (known.get(key) == value) == (operator == "==")


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def has_platform(node: Node, template: Document) -> bool:
    """Return whether a node is of one of the platforms that a task may run on; none named means any."""
    platforms = (template.get("Placement") or {}).get("Platforms") or ()
    mine = (node.os, _ARCHITECTURES.get(node.architecture, node.architecture))
    return not platforms or any(
        (p.get("OS") or mine[0], _ARCHITECTURES.get(p.get("Architecture"), p.get("Architecture")) or mine[1])
        == mine
        for p in platforms
    )


def document_of(node: Node) -> Document:
    """A node as the list of nodes has it."""
    return {
        "ID": node.id,
        "Version": {"Index": 1},
        "Spec": {"Role": node.role, "Availability": node.availability, "Labels": {}},
        "Description": {
            "Hostname": node.hostname,
            "Resources": {"NanoCPUs": int(node.cpus * NANO), "MemoryBytes": node.memory},
            "Platform": {"Architecture": node.architecture, "OS": node.os},
            "Engine": {
                "EngineVersion": "memory",
                "Plugins": [{"Type": "Volume", "Name": name} for name in sorted(node.plugins)],
            },
        },
        "Status": {"State": node.state, "Addr": node.address},
    }


def counted(number: int) -> str:
    """So many nodes, in words."""
    return f"{number} node{'' if number == 1 else 's'}"


def usable(nodes: Iterable[Node], spec: Document) -> list[Node]:
    """The nodes that a service's tasks may go to: ready, active, and as its constraints say."""
    constraints = (spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or ()
    return [
        node
        for node in nodes
        if node.state == "ready"
        and node.availability == "active"
        and all(meets(node, c) for c in constraints)
    ]


def make_volume(node: Node, mount: Document) -> None:
    """Make a volume where a task first needs it; it is never changed afterwards."""
    options = mount.get("VolumeOptions") or {}
    driver = options.get("DriverConfig") or {}
    node.volumes.setdefault(
        mount["Source"],
        {
            "Name": mount["Source"],
            "Driver": driver.get("Name") or "local",
            "Options": driver.get("Options") or None,
            "Labels": options.get("Labels") or None,
        },
    )
