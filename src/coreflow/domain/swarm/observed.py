"""The cluster as the Docker port saw it: every object that matters, ours or not, in one moment.

`Observed` is the whole truth or does not exist: a port that cannot list something raises instead.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from attrs import Factory, field, frozen

from coreflow.domain.ids import NodeId, Owner

from . import naming
from .specs import Fingerprint, Fingerprints, Platform, ServiceBody, seal

UPDATING = frozenset({"updating", "rollback_started"})
"""Update states in which Swarm is still replacing tasks."""
ROLLED_BACK = frozenset({"rollback_started", "rollback_completed", "rollback_paused"})


def seconds_of(stamp: str) -> float:
    """A time of the engine (RFC 3339) in seconds since the epoch; 0 for what is none."""
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0


@frozen(kw_only=True)
class ObservedService:
    """A Swarm service as the engine describes it."""

    id: str
    name: str
    version: int
    """The engine's version index: a write that names an older one is refused."""
    labels: Mapping[str, str]
    body: ServiceBody
    fingerprints: Fingerprints
    """Of the live body. Equal to the label unless somebody changed the service by hand."""
    force_update: int = 0
    """How often somebody forced a restart of the tasks; a write must repeat it, or it restarts them again."""
    previous_secrets: frozenset[str] = frozenset()
    """Names of the secrets that the previous spec mounts: needed should it be rolled back."""
    previous_image: str = ""
    """The image of the previous spec: it runs again should this one be rolled back."""
    previous_intent: Fingerprint | None = None
    """The fingerprint label of the previous spec: after a roll-back by hand, that of the spec rolled away from."""
    platforms: tuple[Platform, ...] = ()
    """What its tasks are placed by: what the image ran on when it was written."""
    update_state: str = ""
    update_message: str = ""
    update_started: str = ""
    """When the roll-out began, also while and after it is rolled back (RFC 3339)."""
    updated_at: str = ""
    """When it was last written, by somebody or by Swarm's own updates (RFC 3339)."""
    owner: Owner = field(init=False)
    """Whose it is, by its label; empty for a service that is not ours."""
    intent: Fingerprint = field(init=False)
    """The fingerprint of the spec that we last wrote, by its label."""
    login: str = field(init=False)
    """The hash of the registry login that we last wrote, by its label."""
    cluster: str = field(init=False)
    """The cluster whose coreflow made it, by its labels; empty for a service that is not coreflow's."""
    seal: str = field(init=False)
    """Intent, live fingerprint, login and owner in one text: equal to a spec's seal when nothing is to do."""
    named_secrets: frozenset[str] = field(init=False)
    """Every secret that the spec or the previous spec mounts."""

    @owner.default
    def _owner_of_labels(self) -> Owner:
        return Owner(self.labels.get(naming.OWNER, ""))

    @intent.default
    def _intent_of_labels(self) -> Fingerprint:
        return Fingerprint(self.labels.get(naming.FINGERPRINT, ""))

    @login.default
    def _login_of_labels(self) -> str:
        return self.labels.get(naming.LOGIN, "")

    @cluster.default
    def _cluster_of_labels(self) -> str:
        ours = self.labels.get(naming.MANAGED_BY) == naming.PRODUCT
        return self.labels.get(naming.CLUSTER, "") if ours else ""

    @seal.default
    def _sealed(self) -> str:
        return seal(self.intent, self.fingerprints.whole, self.login, self.owner)

    @named_secrets.default
    def _all_secrets(self) -> frozenset[str]:
        return self.previous_secrets.union(file.secret_name for file in self.body.secrets)

    @property
    def is_stopped(self) -> bool:
        """Return whether it is stopped for a restore."""
        return naming.STOPPED in self.labels

    @property
    def lease(self) -> str:
        """Return what the restore says of itself that it is stopped for."""
        return self.labels.get(naming.RESTORE, "")

    @property
    def in_roll_out(self) -> bool:
        """Return whether Swarm is replacing tasks right now, forwards or backwards."""
        return self.update_state in UPDATING


@frozen(kw_only=True)
class ObservedTask:
    """One container of a service, past or present, as Swarm sees it."""

    id: str
    service_id: str
    node_id: NodeId | None = None
    slot: int | None = None
    state: str
    desired_state: str = "running"
    error: str = ""
    message: str = ""
    created_at: str = ""
    updated_at: str = ""
    """When a manager last heard something new of it: of one that runs, when it began to (RFC 3339)."""
    exit_code: int | None = None
    """Of a container that has ended."""
    image: str = ""
    addresses: Mapping[str, str] = Factory(dict)
    """Network name to address, without the prefix length."""
    is_current: bool = True
    """Whether it was made from its service's present spec; false for a task that a roll-out has yet to replace."""
    template: Fingerprint | None = None
    """The template fingerprint of what the task was made from; known for services that were rolled back."""

    @property
    def is_running(self) -> bool:
        """Return whether it runs, and is meant to."""
        return self.state == "running" and self.desired_state == "running"


@frozen(kw_only=True)
class ObservedSecret:
    """A Docker secret; its value cannot be read back."""

    id: str
    name: str
    version: int = 0
    labels: Mapping[str, str] = Factory(dict)
    created_at: str = ""
    """RFC 3339."""

    @property
    def owner(self) -> Owner:
        """Return whose it is, by its label; empty for a secret that is not ours."""
        return Owner(self.labels.get(naming.OWNER, ""))


@frozen(kw_only=True)
class ObservedNetwork:
    """A Docker network that services can join, or an address range that is taken."""

    id: str
    name: str
    driver: str
    scope: str
    attachable: bool = False
    is_ingress: bool = False
    """The network of the routing mesh, of which a Swarm has one at most. No service can join it by itself."""
    is_internal: bool = False
    """Leads nowhere outside of it."""
    is_encrypted: bool = False
    subnets: tuple[str, ...] = ()
    labels: Mapping[str, str] = Factory(dict)
    is_remnant: bool = False
    """Removed from the Swarm, and still there on this node until its last container has ended. Services cannot join it."""
    is_new: bool = False
    """Just made, and listed without driver and subnets until Swarm has seen to it. Services can join it."""

    @property
    def owner(self) -> Owner:
        """Return its owner, by its label; empty for a network that is not ours."""
        return Owner(self.labels.get(naming.OWNER, ""))


@frozen(kw_only=True)
class ObservedNode:
    """A member of the Swarm."""

    id: NodeId
    hostname: str
    state: str = "ready"
    availability: str = "active"
    role: str = "worker"
    address: str = ""
    volume_plugins: frozenset[str] = frozenset()
    nano_cpus: int = 0
    """Billionths of a CPU that it has; 0 where it does not say."""
    platform: Platform | None = None
    """What it runs images for, in the words of images (`amd64`, not `x86_64`). None if it does not say."""

    def runs(self, platforms: Iterable[Platform]) -> bool:
        """Return whether an image for these platforms can run here, as Swarm's scheduler sees it; none given means any."""
        mine, wanted = self.platform, tuple(platforms)
        return (
            mine is None
            or not wanted
            or any(p.os in {"", mine.os} and p.architecture in {"", mine.architecture} for p in wanted)
        )


@frozen(kw_only=True)
class Observed:
    """All of it, listed in one go."""

    services: tuple[ObservedService, ...] = ()
    tasks: tuple[ObservedTask, ...] = ()
    secrets: tuple[ObservedSecret, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    nodes: tuple[ObservedNode, ...] = ()
    time: float = 0.0
    """When this was so, by the engine's clock, in seconds since the epoch."""
    own_node: NodeId | None = None
    """The node whose engine we talk to: where an archive is loaded. Known only when there are several nodes."""
