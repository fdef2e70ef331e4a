"""The base of every cluster: two overlay networks and the base services."""

import ipaddress
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from coreflow.domain.ids import BASE, ClusterId
from coreflow.domain.records.models import RegistryLogin
from coreflow.domain.swarm.naming import CORE_CHAT, CORELOG, CORESTORE, CORETRAFFIC, NETWORKS
from coreflow.domain.swarm.specs import (
    Attachment,
    Mount,
    NetworkSpec,
    Platform,
    PublishedPort,
    RollPolicy,
    ServiceBody,
    ServiceSpec,
    Stage,
    fingerprints,
)

from .services import login_hash

SERVICES = (CORETRAFFIC, CORELOG, CORESTORE)
CORESTORE_DATA = "/var/lib/serve.zone/corestore"
PLUGIN_SOCKETS = "/run/docker/plugins"
_POOL = "10.{}.0.0/16"
"""65,533 addresses per network: with Docker's usual /24 a network is full at 253 tasks."""


@frozen(kw_only=True)
class BaseOptions:
    """Options of the base."""

    services: tuple[str, ...] = SERVICES
    images: Mapping[str, str] = field(
        factory=lambda: {name: f"code.foss.global/serve.zone/{name}" for name in SERVICES}
    )
    coretraffic_publish: str = "ingress"
    corestore_api_token: str | None = field(default=None, repr=False)


def render_networks(taken: Iterable[str], cluster: ClusterId) -> tuple[NetworkSpec, ...]:
    """The base networks, with address ranges that overlap none of `taken` (subnets that exist already)."""
    used = [ipaddress.ip_network(subnet, strict=False) for subnet in taken]
    free = (
        candidate
        for number in range(201, 256)
        if not any(
            subnet.version == 4 and subnet.overlaps(ipaddress.ip_network(_POOL.format(number)))
            for subnet in used
        )
        for candidate in (_POOL.format(number),)
    )
    return tuple(
        NetworkSpec(name=name, cluster=cluster, owner=BASE, stage=Stage.BASE, subnet=next(free, None))
        for name in NETWORKS
    )


def render_base(
    name: str,
    image: str,
    options: BaseOptions,
    cluster: ClusterId,
    login: RegistryLogin | None = None,
    platforms: tuple[Platform, ...] = (),
) -> ServiceSpec:
    """One base service, with an image that is resolved already."""
    body = {CORETRAFFIC: _coretraffic, CORELOG: _corelog, CORESTORE: _corestore}[name](image, options)
    return ServiceSpec(
        name=name,
        cluster=cluster,
        owner=BASE,
        stage=Stage.BASE,
        body=body,
        fingerprints=fingerprints(body),
        login=login,
        login_hash=login_hash(cluster, login),
        platforms=platforms,
    )


def _both(name: str) -> tuple[Attachment, ...]:
    return tuple(Attachment(network, (name,)) for network in NETWORKS)


def _coretraffic(image: str, options: BaseOptions) -> ServiceBody:
    """The reverse proxy. With ports on the host itself it runs on every node, so that it sees client addresses."""
    on_host = options.coretraffic_publish == "host"
    order = "stop-first" if on_host else "start-first"
    return ServiceBody(
        image=image,
        networks=_both(CORETRAFFIC),
        replicas=None if on_host else 1,
        endpoint_mode="dnsrr" if on_host else "vip",  # the ingress network needs a virtual address
        ports=tuple(
            PublishedPort(published=published, target=target, mode=options.coretraffic_publish)
            for published, target in ((80, 7999), (443, 8000))
        ),
        update=RollPolicy(on_failure="rollback", order=order),
        rollback=RollPolicy(on_failure="pause", order=order),
    )


def _corelog(image: str, _: BaseOptions) -> ServiceBody:
    """The log receiver, for the platform's own services only."""
    return ServiceBody(
        image=image,
        networks=(Attachment(CORE_CHAT, (CORELOG,)),),
        endpoint_mode="dnsrr",
        update=RollPolicy(on_failure="rollback", order="start-first"),
        rollback=RollPolicy(on_failure="pause", order="start-first"),
    )


def _corestore(image: str, options: BaseOptions) -> ServiceBody:
    """Databases, object storage and volumes of each node.

    Its data has the same path inside and outside: the mount points it hands to Docker are paths of the node.
    """
    token = options.corestore_api_token
    return ServiceBody(
        image=image,
        env=(
            *((f"CORESTORE_API_TOKEN={token}",) if token else ()),
            f"CORESTORE_DATA_DIR={CORESTORE_DATA}",
        ),
        mounts=tuple(
            Mount(type="bind", source=path, target=path) for path in (CORESTORE_DATA, PLUGIN_SOCKETS)
        ),
        networks=_both(CORESTORE),
        replicas=None,
        endpoint_mode="dnsrr",
        update=RollPolicy(on_failure="rollback"),
        rollback=RollPolicy(on_failure="pause"),
    )
