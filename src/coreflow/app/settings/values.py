"""The values of the settings, and what they mean for rendering and planning."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from attrs import Factory, field, frozen

from coreflow.domain.deploy.base import BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.steps import PlanOptions
from coreflow.domain.swarm.naming import CORELOG, CORESTORE, CORETRAFFIC

from .parsers import Address, Network
from .table import SETTINGS, Setting


@frozen(kw_only=True)
class Row:
    """One line of `coreflow check`: a setting, its value unless that is secret, and which source it came from."""

    name: str
    value: str
    source: str


@frozen(kw_only=True)
class Settings:
    """Every setting, parsed. Durations are in seconds. Made by `load_settings`."""

    cloudly_url: str | None
    """None only where the caller of `load_settings` does not need it."""
    jumpcode: str | None = field(repr=False)
    cloudly_ca_file: Path | None
    age_identity: str | None = field(repr=False)
    age_identity_file: Path | None
    https_proxy: str | None = field(repr=False)
    http_proxy: str | None = field(repr=False)
    no_proxy: str
    corestore_api_token: str | None = field(repr=False)
    corestore_control_url: str
    docker_host: str
    docker_tls_verify: bool | None
    docker_cert_path: Path | None
    docker_config: Path
    docker_context: str | None
    listen: Address
    admin_listen: Address
    metrics_per_service: bool
    initial_delay: float
    schedule: str
    """A cron expression of six fields, seconds first."""
    relist_seconds: float
    """Infinite when only kicks and the schedule shall start a pass."""
    settle_seconds: float
    secret_environment: str
    base_services: tuple[str, ...]
    coretraffic_image: str
    corelog_image: str
    corestore_image: str
    coretraffic_publish: Literal["ingress", "host"]
    coretraffic_peers: Literal["tasks"] | tuple[Network, ...]
    image_limit_mb: int
    """Size of an internal image's archive, in MB of 1,000,000 bytes."""
    image_timeout: float
    """Infinite where none is wanted."""
    message_limit_mb: int
    """Size of one message of a TypedSocket connection, in MiB."""
    report_logs: bool
    route_tasks: Literal["all", "first"]
    keep_on_node: bool
    update: Literal["rolling", "recreate"]
    strict: bool
    prune: bool
    confirm_removal: str | None
    state_dir: Path | None
    """None: nothing outlives the process."""
    journal_limit_mb: int
    """In MiB."""
    journal_days: int
    log_format: Literal["auto", "console", "json"]
    log_level: Literal["debug", "info", "warning", "error"]
    warnings: tuple[str, ...] = ()
    """What an operator should know, one sentence each."""
    sources: Mapping[str, str] = Factory(dict)
    """Setting name -> where its value came from; defaults are not listed."""

    @property
    def proxy_secrets(self) -> tuple[str, ...]:
        """Passwords of proxies, as they are and as they stand in a URL."""
        found = []
        for url in filter(None, (self.https_proxy, self.http_proxy)):
            if password := urlsplit(url).password:
                found += [password, unquote(password)]
        return tuple(dict.fromkeys(found))

    @property
    def engine_context(self) -> str | None:
        """The context that names the engine; `DOCKER_HOST` goes before it, as in docker."""
        return None if "DOCKER_HOST" in self.sources else self.docker_context

    @property
    def engine_name(self) -> str:
        """The engine as these settings name it."""
        return self.docker_host if self.engine_context is None else f"context {self.engine_context}"

    @property
    def needs_network(self) -> bool:
        """Return whether the records come from a control plane on the network."""
        return self.cloudly_url is not None and not self.cloudly_url.startswith("file:")

    @property
    def first_pass_after(self) -> float:
        """Return the seconds between the start and the first pass. A file need not be waited for, unless somebody says so."""
        is_file = self.cloudly_url is not None and not self.needs_network
        is_ours = self.sources.get("COREFLOW_INITIAL_DELAY", "default") == "default"
        return 0.0 if is_file and is_ours else self.initial_delay

    @property
    def render_options(self) -> RenderOptions:
        """Return what these settings say about rendering."""
        base = BaseOptions(
            services=self.base_services,
            images={
                CORETRAFFIC: self.coretraffic_image,
                CORELOG: self.corelog_image,
                CORESTORE: self.corestore_image,
            },
            coretraffic_publish=self.coretraffic_publish,
            corestore_api_token=self.corestore_api_token,
        )
        return RenderOptions(
            base=base,
            secret_environment=self.secret_environment,
            keep_on_node=self.keep_on_node,
            has_proxy=self.coretraffic_peers != "tasks",
        )

    @property
    def plan_options(self) -> PlanOptions:
        """Return what these settings say about planning."""
        return PlanOptions(
            recreate=self.update == "recreate", prune=self.prune, confirmed=self.confirm_removal
        )

    def describe(self) -> tuple[Row, ...]:
        """Every setting with its value and source, in the order of the docs; of a secret only whether it is set."""
        return tuple(self._describe(setting) for setting in SETTINGS)

    def _describe(self, setting: Setting) -> Row:
        value = getattr(self, setting.attribute)
        text = "(not set)" if value is None else "(set)" if setting.secret else _shown(value)
        default = "not set" if setting.default is None else "default"
        return Row(name=setting.name, value=text, source=self.sources.get(setting.name, default))


def _shown(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return "0" if math.isinf(value) else f"{value:.15g}"
        case tuple():
            return ",".join(map(str, value)) or "(none)"
        case _:
            return str(value)
