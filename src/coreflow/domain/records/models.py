"""Frozen values in Cloudly's words.

A record holds what coreflow uses of what Cloudly sends; names are Cloudly's names in Python's spelling. `codec`
makes them, and a record that exists has the right types. Whether its *content* can be deployed (a port in range, a
path that is absolute) is judged where the record is rendered, so that one bad service is rejected alone.
"""

from collections.abc import Mapping
from functools import cached_property

from attrs import field, frozen

from coreflow.domain.errors import InvalidRecord, Problem, Refused
from coreflow.domain.ids import BundleId, ClusterId, GroupId, ImageId, NodeId, RegistryId, ServiceId

from .about import about
from .hosts import LAST_PORT, canonical_host
from .keys import HIDDEN
from .places import NOWHERE, Origin
from .salvage import Salvaged


@frozen(kw_only=True)
class RegistryLogin:
    """Credentials for one registry (`IDockerRegistryInfo`)."""

    serveraddress: str = field(metadata=about("The registry's address."))
    username: str = field(metadata=about("The user."))
    password: str = field(repr=False, metadata=about("The password, or a token."))


@frozen(kw_only=True)
class NodeRecord:
    """A cluster member (`IClusterNode`, formerly `IServer`)."""

    id: NodeId = field(metadata=about("Read and not used.", unused=True))
    role: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    swarm_node_id: str | None = field(default=None, metadata=about("Read and not used.", unused=True))


@frozen(kw_only=True)
class ClusterRecord:
    """The cluster that this engine belongs to (`ICluster`)."""

    id: ClusterId = field(
        metadata=about(
            "Marks everything that coreflow creates, and salts its hashes. A different id is a different cluster."
        )
    )
    name: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    cloudly_url: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    setup_mode: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    nodes: tuple[NodeRecord, ...] = field(default=(), metadata=about("Read and not used.", unused=True))
    registry_info: RegistryLogin | None = field(
        default=None, metadata=about("For images of that registry that have no other login.")
    )
    """A login that older control planes put here; used for images on that registry."""


@frozen(kw_only=True)
class VolumeMount:
    """A directory of the node, bound into the container (`IVolumeMount`)."""

    host_fs_path: str = field(metadata=about("The directory of the node."))
    container_fs_path: str = field(metadata=about("Its path in the container."))


@frozen(kw_only=True)
class Resources:
    """Limits and reservations (`IServiceRessources`). Memory in MB of 1,000,000 bytes, CPUs as a number of CPUs."""

    memory_size_limit_mb: float | None = field(
        default=None,
        metadata=about("The maximum memory, in MB of 1,000,000 bytes.", default=1000, least=6.291456),
    )
    memory_size_reservation_mb: float | None = field(
        default=None, metadata=about("Memory that is reserved on the node, in MB.", least=0)
    )
    memory_size_mb: float | None = field(
        default=None, metadata=about("Older name of `memorySizeLimitMB`.", older=True)
    )
    """The limit's old name."""
    cpu_limit: float | None = field(
        default=None, metadata=about("The maximum CPU time, in CPUs: `0.5` is half of one.", least=0)
    )
    cpu_reservation: float | None = field(
        default=None, metadata=about("CPU time that is reserved on the node, in CPUs.", least=0)
    )
    volume_mounts: tuple[VolumeMount, ...] = field(
        default=(), metadata=about("Directories of the node, mounted into the container.")
    )


@frozen(kw_only=True)
class VolumeRecord:
    """A first-class volume of a service."""

    mount_path: str = field(metadata=about("Its path in the container."))
    driver: str | None = field(default=None, metadata=about("The volume driver.", default="corestore"))
    backup: bool = field(default=False, metadata=about("Whether backups of the service include it."))
    name: str | None = field(default=None, metadata=about("The name of the Docker volume."))
    read_only: bool = field(default=False, metadata=about("Whether the service may not write to it."))
    options: Mapping[str, str] = field(
        factory=dict,
        repr=False,
        metadata=about("For the driver, together with `serviceId`, `serviceName`, `mountPath` and `backup`."),
    )


@frozen(kw_only=True)
class DomainRecord:
    """A host name that leads to a service; `port` overrides `ports.web`."""

    name: str = field(metadata=about("The host name."))
    port: int | None = field(
        default=None, metadata=about("The port on which the service listens for it.", least=1, most=LAST_PORT)
    )
    protocol: str | None = field(default=None, metadata=about("Those with `protocol: ssh` are skipped."))


@frozen(kw_only=True)
class Ports:
    """The ports of a service: `web` for its domains, `custom` maps a host name to a port (text on the wire)."""

    web: int | None = field(
        default=None,
        metadata=about("The port on which the service listens for its domains.", least=1, most=LAST_PORT),
    )
    custom: Mapping[str, str] = field(factory=dict, metadata=about("Further host names, each with its port."))


@frozen(kw_only=True)
class RegistryTarget:
    """An image in a registry that Cloudly chose for one service. It wins over every other image source."""

    protocol: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    registry_host: str | None = field(
        default=None, metadata=about("The registry. It needs a dot or a port, or is `localhost`.")
    )
    repository: str | None = field(default=None, metadata=about("The image's name there."))
    tag: str | None = field(default=None, metadata=about("The version's name."))
    digest: str | None = field(
        default=None, metadata=about("The version's digest. Takes precedence over `tag`.")
    )
    image_url: str | None = field(default=None, metadata=about("The whole reference."))
    registry_info: RegistryLogin | None = field(default=None, metadata=about("The login there."))


@frozen(kw_only=True)
class HealthCheckRecord:
    """A command that tells whether a container works; durations in seconds. (Proposed: no control plane sends it yet.)"""

    command: tuple[str, ...] = field(
        metadata=about("A string is run by the shell; a list is a program with arguments.")
    )
    interval_seconds: float | None = field(
        default=None, metadata=about("The time from one check to the next.", least=0)
    )
    timeout_seconds: float | None = field(
        default=None, metadata=about("The time that a check may take.", least=0)
    )
    start_period_seconds: float | None = field(
        default=None, metadata=about("The time after the start in which failures do not count.", least=0)
    )
    retries: int | None = field(
        default=None, metadata=about("Failures in a row that make a task unhealthy.", least=0, most=2**31 - 1)
    )


@frozen(kw_only=True)
class ServiceRecord:
    """One service, as Cloudly wants it (`IService`)."""

    id: ServiceId = field(metadata=about("Marks what belongs to the service."))
    name: str = field(metadata=about("The name of the Swarm service, and its host name on the network."))
    image_id: ImageId | None = field(default=None, metadata=about("A record of `images`."))
    image_version: str | None = field(
        default=None, metadata=about("The version of that image; also the tag of a reference without one.")
    )
    registry_target: RegistryTarget | None = field(
        default=None, metadata=about("The image. Takes precedence over `imageId`.")
    )
    environment: Mapping[str, str] = field(factory=dict, repr=False, metadata=about("Environment variables."))
    secret_bundle_id: BundleId | None = field(default=None, metadata=about("The main secret bundle."))
    additional_secret_bundle_ids: tuple[BundleId, ...] = field(
        default=(), metadata=about("Bundles below the main one; later ones win.")
    )
    service_category: str | None = field(
        default=None,
        metadata=about("Services of any category other than `workload` are ignored.", default="workload"),
    )
    deployment_strategy: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    max_replicas: int | None = field(
        default=None, metadata=about("The maximum number of tasks, whatever `scaleFactor` says.")
    )
    anti_affinity: bool = field(default=False, metadata=about("At most one task per node."))
    scale_factor: int | None = field(default=None, metadata=about("The number of tasks.", default=1))
    ports: Ports | None = field(default=None, metadata=about("The ports on which it listens."))
    resources: Resources | None = field(default=None, metadata=about("Limits and reservations."))
    domains: tuple[DomainRecord, ...] = field(
        default=(), metadata=about("Host names: a string, or `{name, port, protocol}`.")
    )
    volumes: tuple[VolumeRecord, ...] = field(default=(), metadata=about("Volumes that the service mounts."))
    health_check: HealthCheckRecord | None = field(
        default=None, metadata=about("The command that tests whether a task is healthy.")
    )


@frozen(kw_only=True)
class ImageVersion:
    """A version of an image that Cloudly knows; `storage_path` says where a cluster file keeps its archive."""

    version_string: str = field(metadata=about("A valid `imageVersion`."))
    storage_path: str | None = field(
        default=None,
        metadata=about("In a cluster file: the archive (`.tar`, `.tar.gz`), relative to the file's folder."),
    )
    size: float | None = field(default=None, metadata=about("Read and not used.", unused=True))


@frozen(kw_only=True)
class ImageLocation:
    """The place of an image: inside Cloudly, or in an external registry."""

    internal: bool = field(
        default=False,
        metadata=about("Whether the image is an archive, in Cloudly's store or beside the cluster file."),
    )
    external_registry_id: RegistryId | None = field(
        default=None, metadata=about("A record of `externalRegistries`, for its host and login.")
    )
    external_image_tag: str | None = field(
        default=None, metadata=about("The reference; required if the image is not internal.")
    )


@frozen(kw_only=True)
class ImageRecord:
    """An image that services refer to (`IImage`)."""

    id: ImageId = field(
        metadata=about("For Cloudly's own images also the name in the engine, as `id:version`.")
    )
    name: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    location: ImageLocation = field(metadata=about("Where the image comes from."))
    versions: tuple[ImageVersion, ...] = field(default=(), metadata=about("The available versions."))


@frozen(kw_only=True)
class ExternalRegistryRecord:
    """A registry outside Cloudly, with its login (`IExternalRegistry`). Only type `docker` holds images."""

    id: RegistryId = field(metadata=about("Images refer to it."))
    type: str | None = field(
        default=None,
        metadata=about(
            "Services with an image from a registry of any other type are rejected.", default="docker"
        ),
    )
    name: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    url: str = field(metadata=about("The registry's address. A scheme and a trailing slash are ignored."))
    username: str | None = field(default=None, metadata=about("The login's user; none without it."))
    password: str | None = field(
        default=None, repr=False, metadata=about("The login's password, or a token.")
    )


@frozen(kw_only=True)
class Tag:
    """A key with an optional value; without a value it matches any value of the key."""

    key: str = field(metadata=about("The tag's name."))
    value: str | None = field(default=None, metadata=about("Its value. Without it, any value matches."))


@frozen(kw_only=True)
class SecretBundleRecord:
    """A named choice of secret groups (`ISecretBundle`)."""

    id: BundleId = field(metadata=about("Services refer to it."))
    name: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    type: str | None = field(
        default=None,
        metadata=about("If another service uses a bundle of type `service`, there is a note."),
    )
    service_id: ServiceId | None = field(
        default=None, metadata=about("The service that a bundle of type `service` is for.")
    )
    included_secret_group_ids: tuple[GroupId, ...] = field(default=(), metadata=about("The groups."))
    included_tags: tuple[Tag, ...] = field(
        default=(), metadata=about("Used only without group ids: every group with one of these tags.")
    )


@frozen(kw_only=True)
class SecretValue:
    """The value of a secret group in one environment."""

    value: str = field(repr=False, metadata=about("The value."))


@frozen(kw_only=True)
class SecretGroupRecord:
    """One variable with a value per environment (`ISecretGroup`); `priority` decides among groups with the same key."""

    id: GroupId = field(metadata=about("Bundles refer to it."))
    key: str = field(metadata=about("The variable's name."))
    priority: float | None = field(
        default=None,
        metadata=about(
            "Among groups of one bundle with the same key, the highest wins; among equals, the later group.",
            default=0,
        ),
    )
    tags: tuple[Tag, ...] = field(default=(), metadata=about("See `includedTags`."))
    environments: Mapping[str, SecretValue] = field(
        factory=dict,
        repr=False,
        metadata=about("The value in each environment; `COREFLOW_SECRET_ENVIRONMENT` chooses."),
    )


@frozen(kw_only=True)
class BindingRecord:
    """A database or object storage that a service is bound to (`IPlatformBinding`, proposed)."""

    id: str = field(metadata=about("Marks the provisioned database or bucket."))
    service_id: ServiceId = field(metadata=about("The service that gets the credentials."))
    service_name: str | None = field(default=None, metadata=about("Its name, passed to the provider."))
    capability: str = field(metadata=about("`database` or `objectstorage`."))
    provider_id: str | None = field(
        default=None, metadata=about("One of `providers`; Corestore if left out.")
    )
    desired_state: str | None = field(
        default=None, metadata=about("`disabled` deletes the database or bucket, with its data.")
    )
    config: Mapping[str, object] = field(factory=dict, repr=False, metadata=about("Passed to the provider."))
    env_prefix: str | None = field(default=None, metadata=about("The prefix of the names of its variables."))


@frozen(kw_only=True)
class PlatformProvider:
    """A provider of capabilities (proposed)."""

    id: str = field(metadata=about("Bindings refer to it."))
    type: str = field(metadata=about("Only `corestore` is known."))
    capabilities: tuple[str, ...] = field(default=(), metadata=about("Read and not used.", unused=True))
    enabled: bool = field(default=True, metadata=about("Whether it may be used."))


@frozen(kw_only=True)
class PlatformRecord:
    """The desired state of platform bindings (`IPlatformDesiredState`, proposed)."""

    cluster_id: ClusterId | None = field(default=None, metadata=about("Read and not used.", unused=True))
    revision: int | None = field(default=None, metadata=about("Read and not used.", unused=True))
    providers: tuple[PlatformProvider, ...] = field(
        default=(), metadata=about("The providers of databases and object storage.")
    )
    bindings: tuple[BindingRecord, ...] = field(
        default=(), metadata=about("The databases and object storage of services.")
    )


@frozen(kw_only=True)
class GatewayRecord:
    """An external gateway that carries this cluster's public routes (`IExternalGatewayConfig`, proposed)."""

    type: str = field(metadata=about("The kind of gateway: `dcrouter`."))
    enabled: bool = field(default=True, metadata=about("Whether it is used."))
    url: str = field(metadata=about("Its API."))
    api_token: str | None = field(default=None, repr=False, metadata=about("The token for its API."))
    target_host: str | None = field(
        default=None, metadata=about("The host to which the gateway forwards requests.")
    )
    target_port: int | None = field(default=None, metadata=about("The port there.", default=443))
    sync_routes: bool = field(default=True, metadata=about("Whether coreflow keeps its routes in sync."))
    export_certificates: bool = field(default=True, metadata=about("Whether its certificates are used."))


@frozen(kw_only=True)
class CertificateRecord:
    """A certificate with its key (`ICert`). `public_key` holds the PEM certificate chain, despite its name."""

    id: str | None = field(default=None, metadata=about("Read and not used.", unused=True))
    domain_name: str = field(metadata=about("The host name."))
    created: float | None = field(default=None, metadata=about("Read and not used.", unused=True))
    valid_until: float | None = field(default=None, metadata=about("Read and not used.", unused=True))
    private_key: str = field(repr=False, metadata=about("The key, PEM."))
    public_key: str = field(repr=False, metadata=about("The certificate chain, PEM."))
    csr: str | None = field(default=None, repr=False, metadata=about("Read and not used.", unused=True))


@frozen(kw_only=True)
class UnknownField:
    """A field that nobody reads."""

    above: str
    """The path of the mapping that it is in."""
    key: str = field(repr=False)
    """As it was written, whatever it holds."""
    suggestion: str | None = None
    """What was probably meant: a name of the same level, or the path of one of another level."""
    spelling: str = HIDDEN
    """The key as it is told: nothing of one that may be a secret."""
    missing_space: bool = False
    """A value stands right behind the separator, so that it is part of the key."""
    kind: str = ""
    """Of the record: `service`, `image` and so on; empty for the document itself."""
    id: str | None = None
    record: str | None = None
    """The record's name."""
    place: str | None = None
    """`FILE:LINE`, where that is known."""

    @property
    def path(self) -> str:
        """Return where it is, as it is shown."""
        return f"{self.above}.{self.spelling}"

    @property
    def problem(self) -> Problem:
        """The same as an error."""
        text = f"nobody reads the field {self.spelling}"
        if self.spelling == HIDDEN:
            text = "nobody reads this field; its name is not shown, since it may be a secret"
        if self.missing_space:
            meant = f" of {self.suggestion}" if self.suggestion else ""
            text += f": a space is missing after the colon{meant}"
        elif self.suggestion:
            text += f": did you mean {self.suggestion}?"
        return Problem(self.path, text, f"{self.above}.{self.key}")

    def __str__(self) -> str:
        return f"{self.problem}{f' ({self.place})' if self.place else ''}"


@frozen(kw_only=True)
class RejectedRecord:
    """A record that could not be decoded: which kind, which one (as far as it says), and why."""

    kind: str
    id: str | None
    name: str | None
    reasons: tuple[str, ...]
    salvaged: Salvaged[ServiceRecord] | None = field(default=None, repr=False)
    """What of a service could be read, so that it can be checked as well."""
    path: str = ""
    """Where it is in the document, of a record in a list."""


@frozen(kw_only=True)
class Records:
    """Everything that Cloudly said in one pass."""

    cluster: ClusterRecord
    services: tuple[ServiceRecord, ...] = ()
    images: Mapping[ImageId, ImageRecord] = field(factory=dict)
    external_registries: Mapping[RegistryId, ExternalRegistryRecord] = field(factory=dict)
    secret_bundles: Mapping[BundleId, SecretBundleRecord] = field(factory=dict)
    secret_groups: Mapping[GroupId, SecretGroupRecord] = field(factory=dict)
    platform: PlatformRecord | None = None
    unreadable_bindings: frozenset[ServiceId | None] = frozenset()
    """Services with a binding that cannot be read. None among them: nobody knows whose it is."""
    gateway: GatewayRecord | None = None
    certificates: Mapping[str, CertificateRecord] = field(factory=dict)
    """By host name in its canonical spelling."""
    rejected: tuple[RejectedRecord, ...] = ()
    origin: Origin = field(default=NOWHERE, repr=False, eq=False)
    unknown: tuple[UnknownField, ...] = ()
    """Fields that nobody reads; where that is an error, they are reasons of `rejected` instead."""

    @cached_property
    def rejected_certificates(self) -> Mapping[str, RejectedRecord]:
        """By host name in its canonical spelling: those that could not be decoded."""
        return {one.id: one for one in self.rejected if one.kind == "certificate" and one.id is not None}


def certificate_in(records: Records, domain: str) -> CertificateRecord:
    """The certificate that records hold for a host name, or for all names beside it (`*.example.com`).

    Raises Refused when there is none, and InvalidRecord when it could not be decoded.
    """
    host = canonical_host(domain)
    for name in (host, f"*.{host.partition('.')[2]}"):
        found = records.certificates.get(name)
        if found is not None:
            return found
        rejected = records.rejected_certificates.get(name)
        if rejected is not None:
            raise InvalidRecord(*(Problem(f"$.certificates.{name}", reason) for reason in rejected.reasons))
    raise Refused(f"certificate of {domain}: there is none")
