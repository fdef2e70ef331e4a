"""Frozen values in Cloudly's words.

A record holds what coreflow uses of what Cloudly sends; names are Cloudly's names in Python's spelling. `codec`
makes them, and a record that exists has the right types. Whether its *content* can be deployed (a port in range, a
path that is absolute) is judged where the record is rendered, so that one bad service is rejected alone.
"""

from collections.abc import Mapping
from functools import cached_property

from attrs import Factory, field, frozen

from coreflow.domain.errors import InvalidRecord, Problem, Refused
from coreflow.domain.ids import BundleId, ClusterId, GroupId, ImageId, NodeId, RegistryId, ServiceId

from .hosts import canonical_host
from .salvage import Salvaged


@frozen(kw_only=True)
class RegistryLogin:
    """Credentials for one registry (`IDockerRegistryInfo`)."""

    serveraddress: str
    username: str
    password: str = field(repr=False)


@frozen(kw_only=True)
class NodeRecord:
    """A cluster member (`IClusterNode`, formerly `IServer`)."""

    id: NodeId
    role: str | None = None
    swarm_node_id: str | None = None


@frozen(kw_only=True)
class ClusterRecord:
    """The cluster that this engine belongs to (`ICluster`)."""

    id: ClusterId
    name: str | None = None
    cloudly_url: str | None = None
    setup_mode: str | None = None
    nodes: tuple[NodeRecord, ...] = ()
    registry_info: RegistryLogin | None = None
    """A login that older control planes put here; used for images on that registry."""


@frozen(kw_only=True)
class VolumeMount:
    """A directory of the node, bound into the container (`IVolumeMount`)."""

    host_fs_path: str
    container_fs_path: str


@frozen(kw_only=True)
class Resources:
    """Limits and reservations (`IServiceRessources`). Memory in MB of 1,000,000 bytes, CPUs as a number of CPUs."""

    memory_size_limit_mb: float | None = None
    memory_size_reservation_mb: float | None = None
    memory_size_mb: float | None = None
    """The limit's old name."""
    cpu_limit: float | None = None
    cpu_reservation: float | None = None
    volume_mounts: tuple[VolumeMount, ...] = ()


@frozen(kw_only=True)
class VolumeRecord:
    """A first-class volume of a service."""

    mount_path: str
    driver: str | None = None
    backup: bool = False
    name: str | None = None
    read_only: bool = False
    options: Mapping[str, str] = field(factory=dict, repr=False)


@frozen(kw_only=True)
class DomainRecord:
    """A host name that leads to a service; `port` overrides `ports.web`."""

    name: str
    port: int | None = None
    protocol: str | None = None


@frozen(kw_only=True)
class Ports:
    """Where a service listens: `web` for its domains, `custom` maps a host name to a port (text on the wire)."""

    web: int | None = None
    custom: Mapping[str, str] = Factory(dict)


@frozen(kw_only=True)
class RegistryTarget:
    """An image in a registry that Cloudly chose for one service. It wins over every other image source."""

    protocol: str | None = None
    registry_host: str | None = None
    repository: str | None = None
    tag: str | None = None
    digest: str | None = None
    image_url: str | None = None
    registry_info: RegistryLogin | None = None


@frozen(kw_only=True)
class HealthCheckRecord:
    """A command that tells whether a container works; durations in seconds. (Proposed: no control plane sends it yet.)"""

    command: tuple[str, ...]
    interval_seconds: float | None = None
    timeout_seconds: float | None = None
    start_period_seconds: float | None = None
    retries: int | None = None


@frozen(kw_only=True)
class ServiceRecord:
    """One service, as Cloudly wants it (`IService`)."""

    id: ServiceId
    name: str
    image_id: ImageId | None = None
    image_version: str | None = None
    registry_target: RegistryTarget | None = None
    environment: Mapping[str, str] = field(factory=dict, repr=False)
    secret_bundle_id: BundleId | None = None
    additional_secret_bundle_ids: tuple[BundleId, ...] = ()
    service_category: str | None = None
    deployment_strategy: str | None = None
    max_replicas: int | None = None
    anti_affinity: bool = False
    scale_factor: int | None = None
    ports: Ports | None = None
    resources: Resources | None = None
    domains: tuple[DomainRecord, ...] = ()
    volumes: tuple[VolumeRecord, ...] = ()
    health_check: HealthCheckRecord | None = None


@frozen(kw_only=True)
class ImageVersion:
    """A version of an image that Cloudly knows; `storage_path` says where a cluster file keeps its archive."""

    version_string: str
    storage_path: str | None = None
    size: float | None = None


@frozen(kw_only=True)
class ImageLocation:
    """Where an image lives: inside Cloudly, or in an external registry."""

    internal: bool = False
    external_registry_id: RegistryId | None = None
    external_image_tag: str | None = None


@frozen(kw_only=True)
class ImageRecord:
    """An image that services refer to (`IImage`)."""

    id: ImageId
    name: str | None = None
    location: ImageLocation
    versions: tuple[ImageVersion, ...] = ()


@frozen(kw_only=True)
class ExternalRegistryRecord:
    """A registry outside Cloudly, with its login (`IExternalRegistry`). Only type `docker` holds images."""

    id: RegistryId
    type: str | None = None
    name: str | None = None
    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Tag:
    """A key with an optional value; without a value it matches any value of the key."""

    key: str
    value: str | None = None


@frozen(kw_only=True)
class SecretBundleRecord:
    """A named choice of secret groups (`ISecretBundle`)."""

    id: BundleId
    name: str | None = None
    type: str | None = None
    service_id: ServiceId | None = None
    included_secret_group_ids: tuple[GroupId, ...] = ()
    included_tags: tuple[Tag, ...] = ()


@frozen(kw_only=True)
class SecretValue:
    """The value of a secret group in one environment."""

    value: str = field(repr=False)


@frozen(kw_only=True)
class SecretGroupRecord:
    """One variable with a value per environment (`ISecretGroup`); `priority` decides among groups with the same key."""

    id: GroupId
    key: str
    priority: float | None = None
    tags: tuple[Tag, ...] = ()
    environments: Mapping[str, SecretValue] = field(factory=dict, repr=False)


@frozen(kw_only=True)
class BindingRecord:
    """A database or object storage that a service is bound to (`IPlatformBinding`, proposed)."""

    id: str
    service_id: ServiceId
    service_name: str | None = None
    capability: str
    provider_id: str | None = None
    desired_state: str | None = None
    config: Mapping[str, object] = field(factory=dict, repr=False)
    env_prefix: str | None = None


@frozen(kw_only=True)
class PlatformProvider:
    """Who can serve which capabilities (proposed)."""

    id: str
    type: str
    capabilities: tuple[str, ...] = ()
    enabled: bool = True


@frozen(kw_only=True)
class PlatformRecord:
    """The desired state of platform bindings (`IPlatformDesiredState`, proposed)."""

    cluster_id: ClusterId | None = None
    revision: int | None = None
    providers: tuple[PlatformProvider, ...] = ()
    bindings: tuple[BindingRecord, ...] = ()


@frozen(kw_only=True)
class GatewayRecord:
    """An external gateway that carries this cluster's public routes (`IExternalGatewayConfig`, proposed)."""

    type: str
    enabled: bool = True
    url: str
    api_token: str | None = field(default=None, repr=False)
    target_host: str | None = None
    target_port: int | None = None
    sync_routes: bool = True
    export_certificates: bool = True


@frozen(kw_only=True)
class CertificateRecord:
    """A certificate with its key (`ICert`). `public_key` holds the PEM certificate chain, despite its name."""

    id: str | None = None
    domain_name: str
    created: float | None = None
    valid_until: float | None = None
    private_key: str = field(repr=False)
    public_key: str = field(repr=False)
    csr: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class RejectedRecord:
    """A record that could not be decoded: which kind, which one (as far as it says), and why."""

    kind: str
    id: str | None
    name: str | None
    reasons: tuple[str, ...]
    salvaged: Salvaged[ServiceRecord] | None = field(default=None, repr=False)
    """What of a service could be read, so that it can be checked as well."""


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
