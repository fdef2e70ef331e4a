"""The settings, read once at the start: one table from which the loader, `coreflow check` and the docs are made.

Four sources, and the first that has a value wins: the process environment, one overlay file in `.nogit/`,
`/run/secrets/NAME`, and any JSON file below `/run/secrets` whose name contains `secret.json`. An empty value counts as
none, so that `${UNSET}` in a stack file does no harm; the one setting whose empty value means something says so.

Texts of errors and warnings name settings, files and lines, never a value: any of them may be a secret in the wrong
place.
"""

import difflib
import ipaddress
import json
import math
import re
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

import yaml
from attrs import Factory, field, frozen

from coreflow.domain.deploy.base import SERVICES, BaseOptions
from coreflow.domain.deploy.desired import RenderOptions
from coreflow.domain.deploy.steps import PlanOptions
from coreflow.domain.errors import CoreflowError
from coreflow.domain.swarm.images import split_reference
from coreflow.domain.swarm.naming import CORELOG, CORESTORE, CORETRAFFIC
from coreflow.reading import read_file

OVERLAY_FOLDER = Path(".nogit")
OVERLAY_FILES = ("env.json", "env.yml", "env.yaml", ".env")
"""Where an overlay may be, in order: only the first that exists is read."""
SECRETS_FOLDER = Path("/run/secrets")
SECRET_DOCUMENT = "secret.json"
"""Files below the secrets folder with this in their name hold several settings."""
HOURLY = "0 0 * * * *"
MOST_SETTLE_SECONDS = 3600.0
_PREFIX = "COREFLOW_"
_NOT_SETTINGS = ("COREFLOW_TEST_", "COREFLOW_ENGINE_", "COREFLOW_REQUIRE_")
"""Variables of the project's own test engine."""
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
_COUNT = re.compile(r"[0-9]{1,7}")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):(?P<port>[0-9]{1,5})")
_DOTENV_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(?P<value>.*?)\s*")
_DOTENV_QUOTED = re.compile(r"""(?P<quote>["'])(?P<value>.*?)(?P=quote)\s*(#.*)?""")
_DOTENV_COMMENT = re.compile(r"(^|\s+)#.*")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class InvalidSetting(CoreflowError):
    """Settings are missing or malformed. One sentence names each of them and where it came from, never its value.

    `warnings` are those found on the way: a misspelt name is often the reason why another is missing.
    """

    def __init__(self, *problems: str, warnings: tuple[str, ...] = ()) -> None:
        super().__init__(*problems)
        self.problems, self.warnings = problems, warnings

    def __str__(self) -> str:
        return "; ".join(self.problems)


class _Wrong(Exception):
    """A value that cannot be used: what it must be, in words that follow `NAME (source) `."""


@frozen
class Address:
    """Where to listen. An IPv6 address has no brackets here; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
    https_proxy: str | None = field(repr=False)
    http_proxy: str | None = field(repr=False)
    no_proxy: str
    corestore_api_token: str | None = field(repr=False)
    corestore_control_url: str
    docker_host: str
    listen: Address
    admin_listen: Address
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
    prune: bool
    confirm_removal: str | None
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
    def needs_network(self) -> bool:
        """Whether the records come from a control plane on the network."""
        return self.cloudly_url is not None and not self.cloudly_url.startswith("file:")

    @property
    def render_options(self) -> RenderOptions:
        """What these settings say about rendering."""
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
            base=base, secret_environment=self.secret_environment, keep_on_node=self.keep_on_node
        )

    @property
    def plan_options(self) -> PlanOptions:
        """What these settings say about planning."""
        return PlanOptions(
            recreate=self.update == "recreate", prune=self.prune, confirmed=self.confirm_removal
        )

    def describe(self) -> tuple[Row, ...]:
        """Every setting with its value and source, in the order of the docs; of a secret only whether it is set."""
        return tuple(self._describe(setting) for setting in SETTINGS)

    def _describe(self, setting: "Setting") -> Row:
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


# parsers: text that is not blank -> value, or _Wrong


def _line(text: str) -> str:
    if not text.isprintable():
        raise _Wrong("must be one line of printable characters")
    return text


def _token(text: str) -> str:
    if not text.isprintable() or " " in text:
        raise _Wrong("must be one word, without spaces and line breaks")
    return text


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "1", "yes", "on"}:
        return True
    if text.lower() in {"false", "0", "no", "off"}:
        return False
    raise _Wrong("must be true or false (or 1, 0, yes, no, on, off)")


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise _Wrong(f"must be {_listed(choices)}")
        return text.lower()

    return parse


def _listed(words: Collection[str], conjunction: str = "or") -> str:
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def _seconds(text: str) -> float:
    value = float(text) if _SECONDS.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise _Wrong("must be a number of seconds, 0 or more")
    return value


def _count(text: str) -> int:
    if _COUNT.fullmatch(text) is None or not 1 <= int(text) <= 1_000_000:
        raise _Wrong("must be an integer, 1 or more")
    return int(text)


def _file(text: str) -> Path:
    path = Path(_line(text))
    if not path.is_absolute():
        raise _Wrong("must be an absolute path")
    return path


def _interval(text: str) -> float:
    """Seconds between two looks; 0 stands for never, since looking all the time helps nobody."""
    return _seconds(text) or math.inf


def _settle_seconds(text: str) -> float:
    value = _seconds(text)
    if value > MOST_SETTLE_SECONDS:
        raise _Wrong(f"must be at most {MOST_SETTLE_SECONDS:g} seconds")
    return value


def _address(text: str) -> Address:
    match = _ADDRESS.fullmatch(text)
    if match is not None and int(match["port"]) <= 65535:
        host = match["host"].strip("[]")
        if not (":" in host or _is_numeric(host)) or _is_ip_address(host):
            return Address(host, int(match["port"]))
    raise _Wrong("must be host:port, such as 0.0.0.0:3000 or [::1]:3000")


def _is_numeric(host: str) -> bool:
    return host.replace(".", "").isdecimal()


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _schedule(text: str) -> str:
    if text == HOURLY:  # known to be right: most commands need no cron, and importing it takes 40 ms
        return text
    from croniter import croniter

    try:
        if len(text.split()) != 6:
            raise ValueError
        croniter(text, datetime(2000, 1, 1, tzinfo=UTC), second_at_beginning=True).get_next()
    except ValueError:
        raise _Wrong(
            "must be a cron expression of six fields, seconds first, that comes true some day"
        ) from None
    return text


def _url(text: str, *schemes: str) -> SplitResult:
    """Split a URL that names a host, or for `file:` an absolute path. Credentials have settings of their own."""
    try:
        parts = urlsplit(_token(text))
        port = parts.port
    except (ValueError, _Wrong):
        raise _Wrong("is not a URL") from None
    if port == 0:
        raise _Wrong("names port 0, which leads nowhere")
    if parts.scheme not in schemes:
        raise _Wrong(f"must be a URL that begins with {_listed([f'{scheme}:' for scheme in schemes])}")
    if parts.username is not None or parts.password is not None:
        raise _Wrong("must not contain a user name or a password")
    return parts


def _web_url(text: str) -> str:
    parts = _url(text, "http", "https")
    if not parts.hostname:
        raise _Wrong("names no host")
    return parts.geturl()


def _proxy(text: str) -> str:
    """The URL of a proxy; `host:port` means `http://host:port`."""
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise _Wrong("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise _Wrong("must be the URL of an HTTP proxy, such as http://proxy.example.com:3128")
    if port == 0 or parts.path not in ("", "/") or parts.query:
        raise _Wrong("must be the URL of an HTTP proxy without anything behind the port")
    return parts.geturl()


def _cloudly_url(text: str) -> str:
    parts = _url(text, "https", "http", "wss", "ws", "file")
    if parts.scheme != "file":
        if not parts.hostname:
            raise _Wrong("names no host")
    elif parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise _Wrong(
            "must name the cluster file by its absolute path, with three slashes: file:///path/to/file"
        )
    return parts.geturl()


def travels_in_the_clear(url: str) -> bool:
    """Whether what is sent to this URL can be read on the way: without TLS, and to another machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # nothing is sent there at all
    host = parts.hostname or ""
    is_here = host == "localhost" or (_is_ip_address(host) and ipaddress.ip_address(host).is_loopback)
    return parts.scheme in {"http", "ws"} and not is_here


def _docker_host(text: str) -> str:
    parts = _url(text, "unix", "tcp")
    if parts.scheme == "unix" and (parts.netloc or len(parts.path) < 2):
        raise _Wrong(
            "must name a socket by its absolute path, with three slashes: unix:///var/run/docker.sock"
        )
    if parts.scheme == "tcp" and (not parts.hostname or parts.port is None or parts.path not in {"", "/"}):
        raise _Wrong("must name host and port: tcp://host:2375")
    return text


def _items(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def _base_services(text: str) -> tuple[str, ...]:
    services = _items(text)
    if not set(services) <= set(SERVICES):
        raise _Wrong(f"must be a list, by comma, of {_listed(SERVICES, 'and')}")
    return services


def _image(text: str) -> str:
    try:
        split_reference(text)
    except ValueError:
        raise _Wrong("must be an image reference, such as registry.example.com/name:1.2") from None
    return text


def _peers(text: str) -> Literal["tasks"] | tuple[Network, ...]:
    if text.lower() == "tasks":
        return "tasks"
    try:
        networks = tuple(map(ipaddress.ip_network, _items(text)))
    except ValueError:
        networks = ()
    if not networks:
        raise _Wrong("must be tasks, or a list, by comma, of networks such as 127.0.0.0/8")
    return networks


@frozen(kw_only=True)
class Setting:
    """One row of the table. `default` is text like any other value; None where there is none."""

    name: str
    default: str | None = None
    parse: Callable[[str], object] = field(repr=False)
    meaning: str
    secret: bool = False
    may_be_empty: bool = False
    """Whether an empty value is a value."""

    @property
    def attribute(self) -> str:
        """Where `Settings` has it."""
        return self.name.removeprefix(_PREFIX).lower()


def _base_image(name: str) -> Setting:
    return Setting(
        name=f"{_PREFIX}{name.upper()}_IMAGE",
        default=BaseOptions().images[name],
        parse=_image,
        meaning=f"The image of {name}.",
    )


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="CLOUDLY_URL",
        parse=_cloudly_url,
        meaning="Required. Where the records come from: a control plane (`https:`, `http:`, `wss:`, `ws:`), "
        "or a cluster file (`file:///path/to/cluster.yaml`).",
    ),
    Setting(
        name="JUMPCODE",
        parse=_token,
        secret=True,
        meaning="Required, except with a cluster file. The token by which the control plane knows this cluster.",
    ),
    Setting(
        name="COREFLOW_CLOUDLY_CA_FILE",
        parse=_file,
        meaning="Certificates (PEM) by which the control plane is trusted, instead of the system's: for an authority of "
        "your own.",
    ),
    Setting(
        name="HTTPS_PROXY",
        parse=_proxy,
        secret=True,
        meaning="A proxy through which control plane, gateway and a Corestore of `CORESTORE_CONTROL_URL` are reached by "
        "`https` and `wss`: `http://host:port`, with `user:password@` where it wants one. Also as `https_proxy`.",
    ),
    Setting(
        name="HTTP_PROXY",
        parse=_proxy,
        secret=True,
        meaning="The same for `http` and `ws`. Also as `http_proxy`.",
    ),
    Setting(
        name="NO_PROXY",
        default="",
        parse=_line,
        meaning="Hosts that are reached without a proxy, by comma: names, which cover all names below them, and "
        "addresses; `*` is all. Also as `no_proxy`. Loopback, the engine and services of the cluster never have one.",
    ),
    Setting(
        name="CORESTORE_API_TOKEN",
        parse=_token,
        secret=True,
        meaning="The token of Corestore's control API; handed to the corestore service, too.",
    ),
    Setting(
        name="CORESTORE_CONTROL_URL",
        default="http://corestore:3000",
        parse=_web_url,
        meaning="The control API of the Corestore that serves every node. Not set: the one on the node of the service.",
    ),
    Setting(
        name="DOCKER_HOST",
        default="unix:///var/run/docker.sock",
        parse=_docker_host,
        meaning="The engine of a Swarm manager: `unix:///path` or `tcp://host:port`.",
    ),
    Setting(
        name="COREFLOW_LISTEN",
        default="0.0.0.0:3000",
        parse=_address,
        meaning="Where services of the cluster reach coreflow: `host:port`, IPv6 as `[::1]:3000`.",
    ),
    Setting(
        name="COREFLOW_ADMIN_LISTEN",
        default="127.0.0.1:3001",
        parse=_address,
        meaning="Where metrics are served, at `/metrics`.",
    ),
    Setting(
        name="COREFLOW_INITIAL_DELAY",
        default="10",
        parse=_seconds,
        meaning="Seconds between the start and the first pass.",
    ),
    Setting(
        name="COREFLOW_SCHEDULE",
        default=HOURLY,
        parse=_schedule,
        meaning="When every image is looked up again: a cron expression of six fields, seconds first, in UTC.",
    ),
    Setting(
        name="COREFLOW_RELIST_SECONDS",
        default="60",
        parse=_interval,
        meaning="Seconds after which everything is looked at even though nothing was announced; `0` is never.",
    ),
    Setting(
        name="COREFLOW_SETTLE_SECONDS",
        default="5",
        parse=_settle_seconds,
        meaning="Seconds that the tasks of a service must have run without interruption before it counts as running. "
        "0 takes the first look for the truth; 3600 at most.",
    ),
    Setting(
        name="COREFLOW_SECRET_ENVIRONMENT",
        default="production",
        parse=_line,
        meaning="Which environment's value of each secret group is used.",
    ),
    Setting(
        name="COREFLOW_BASE_SERVICES",
        default=",".join(SERVICES),
        parse=_base_services,
        may_be_empty=True,
        meaning="Which base services to run, by comma. Empty is a value here: none.",
    ),
    *map(_base_image, SERVICES),
    Setting(
        name="COREFLOW_CORETRAFFIC_PUBLISH",
        default="ingress",
        parse=_choice("ingress", "host"),
        meaning="How coretraffic gets ports 80 and 443: `ingress` through the routing mesh, "
        "`host` on every node itself, which shows it the clients' addresses.",
    ),
    Setting(
        name="COREFLOW_CORETRAFFIC_PEERS",
        default="tasks",
        parse=_peers,
        meaning="Who may present itself as coretraffic, and so receives private keys: `tasks` for the addresses of "
        "that service's tasks, or a list of networks such as `127.0.0.0/8,10.0.0.0/24`.",
    ),
    Setting(
        name="COREFLOW_IMAGE_LIMIT_MB",
        default="10000",
        parse=_count,
        meaning="How large the archive of an image may be that the control plane stores, in MB.",
    ),
    Setting(
        name="COREFLOW_IMAGE_TIMEOUT",
        default="1800",
        parse=_interval,
        meaning="Seconds that such an archive may take to arrive; `0` is no limit.",
    ),
    Setting(
        name="COREFLOW_MESSAGE_LIMIT_MB",
        default="100",
        parse=_count,
        meaning="How large one message of the control plane, or of a service to coreflow, may be, in MiB.",
    ),
    Setting(
        name="COREFLOW_REPORT_LOGS",
        default="true",
        parse=_boolean,
        meaning="Whether the control plane is sent the log, if it takes one.",
    ),
    Setting(
        name="COREFLOW_ROUTE_TASKS",
        default="all",
        parse=_choice("all", "first"),
        meaning="Which tasks of a service get its requests: `all` that run, or only the `first`.",
    ),
    Setting(
        name="COREFLOW_KEEP_ON_NODE",
        default="true",
        parse=_boolean,
        meaning="Whether a service with volumes is kept on the node that has their data, once it has run somewhere.",
    ),
    Setting(
        name="COREFLOW_UPDATE",
        default="rolling",
        parse=_choice("rolling", "recreate"),
        meaning="How a service changes: `rolling` in place, with a way back; `recreate` by removing it and making it "
        "again.",
    ),
    Setting(
        name="COREFLOW_PRUNE",
        default="true",
        parse=_boolean,
        meaning="Whether services whose record is gone are removed.",
    ),
    Setting(
        name="COREFLOW_CONFIRM_REMOVAL",
        parse=_line,
        meaning="The token that a refused removal names: lets exactly that removal happen.",
    ),
    Setting(
        name="COREFLOW_LOG_FORMAT",
        default="auto",
        parse=_choice("auto", "console", "json"),
        meaning="`console` for people, `json` for machines, `auto` for `console` on a terminal and else `json`.",
    ),
    Setting(
        name="COREFLOW_LOG_LEVEL",
        default="info",
        parse=_choice("debug", "info", "warning", "error"),
        meaning="The least important lines that are logged: `debug`, `info`, `warning` or `error`.",
    ),
)
"""Every setting there is."""
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_NAMES = {setting.name.removeprefix(_PREFIX): setting.name for setting in SETTINGS}
"""What is compared with a name that is not known: without the prefix that they share anyway."""


def settings_table() -> str:
    """The settings as the Markdown table of docs/settings.md."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for setting in SETTINGS:
        default = "" if setting.default is None else f"`{setting.default}`"
        rows.append(f"| `{setting.name}` | {default} | {setting.meaning} |")
    return "\n".join(rows) + "\n"


def load_settings(
    environ: Mapping[str, str],
    *,
    directory: Path = OVERLAY_FOLDER,
    secrets: Path = SECRETS_FOLDER,
    require_cloudly: bool = True,
) -> Settings:
    """Read every setting from `environ`, the overlay in `directory`, and the files in `secrets`.

    Depends on nothing else; either folder may be absent. With `require_cloudly=False`, CLOUDLY_URL and JUMPCODE may be
    missing. Raises InvalidSetting with everything that is missing or malformed.
    """
    loading = _Loading()
    loading.add_environment(environ)
    loading.add_overlay(directory)
    loading.add_secret_files(secrets)
    loading.add_secret_documents(secrets)
    values = {setting.attribute: loading.value(setting) for setting in SETTINGS}
    for name in loading.required if require_cloudly else ():
        if name not in loading.found:
            where = f"set it in the environment, in {directory} or as {secrets / name}"
            loading.problems.append(f"{name} is missing: {where}")
    if loading.problems:
        raise InvalidSetting(*loading.problems, warnings=tuple(loading.warnings))
    if values["cloudly_url"] is not None and travels_in_the_clear(values["cloudly_url"]):
        loading.warnings.append("CLOUDLY_URL is not encrypted: the token and all secrets travel in the clear")
    found = {name: value.source for name, value in loading.found.items()}
    return Settings(**values, warnings=tuple(loading.warnings), sources=found)


@frozen
class _Found:
    """A value, or the error of the operating system that kept us from reading it."""

    text: str = field(repr=False)
    source: str
    problem: str | None = None


_ALSO_LOWER = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
"""Settings of no project in particular, which many write in lower case."""


class _Loading:
    """What has been found so far. Sources are added in order of precedence."""

    def __init__(self) -> None:
        self.found: dict[str, _Found] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def value(self, setting: Setting) -> Any:
        """The value of a setting: found, or its default. A bad one is a problem, and None."""
        found = self.found.get(setting.name)
        if found is None:
            return None if setting.default is None else setting.parse(setting.default)
        try:
            if found.problem is not None:
                raise _Wrong(found.problem)
            return setting.parse(found.text if setting.secret else found.text.strip())
        except _Wrong as exc:
            self.problems.append(f"{setting.name} ({found.source}) {exc}")
            return None

    @property
    def required(self) -> tuple[str, ...]:
        """What must be found: a cluster file asks for no token."""
        url = self.found.get("CLOUDLY_URL")
        is_file = url is not None and url.text.strip().lower().startswith("file:")
        return ("CLOUDLY_URL",) if is_file else ("CLOUDLY_URL", "JUMPCODE")

    def add_environment(self, environ: Mapping[str, str]) -> None:
        self._warn_of_unknown(environ, "environment")
        self._add(environ.items(), "environment")
        lower = {name: environ[name.lower()] for name in _ALSO_LOWER if name.lower() in environ}
        self._add([(name, text) for name, text in lower.items() if name not in self.found], "environment")

    def add_overlay(self, folder: Path) -> None:
        """Read the first overlay file there is."""
        paths = [folder / name for name in OVERLAY_FILES if _is_file(folder / name)]
        if not paths:
            return
        path, *others = paths
        if others:
            verb = "are" if len(others) > 1 else "is"
            names = _listed([other.name for other in others], "and")
            self.warnings.append(f"{path} is used, and {names} beside it {verb} ignored")
        values = self._read(path, {".json": _json_scalars, ".env": _dotenv}.get(_kind(path), _yaml_scalars))
        self._warn_of_unknown(values, str(path))
        self._add(values.items(), str(path))

    def add_secret_files(self, folder: Path) -> None:
        """Read `/run/secrets/NAME` for every setting that has no value yet.

        One line break at the end goes: editors and `echo` put it there, and it is no part of a token. What is left is
        the value, so that a second one still shows as a mistake.
        """
        for setting in SETTINGS:
            path = folder / setting.name
            if setting.name in self.found:
                continue
            try:
                text = read_file(path).decode("utf-8-sig")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as exc:
                self.found[setting.name] = _Found("", str(path), f"cannot be read: {exc.strerror}")
            except UnicodeDecodeError:
                self.found[setting.name] = _Found("", str(path), "is not text in UTF-8")
            else:
                self._add([(setting.name, _without_line_break(text))], str(path))

    def add_secret_documents(self, folder: Path) -> None:
        """Read every `*secret.json*`, in the order of their names."""
        try:
            paths = sorted(path for path in folder.iterdir() if SECRET_DOCUMENT in path.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as exc:
            self.problems.append(f"{folder} cannot be read: {exc.strerror}")
            return
        for path in paths:
            if _is_file(path):
                self._add(self._read(path, _json_scalars).items(), str(path))

    def _read(self, path: Path, parse: Callable[[str], Mapping[str, str | None]]) -> Mapping[str, str | None]:
        """The names and texts in a file; a file that cannot be understood is a problem, and empty."""
        try:
            return parse(read_file(path).decode("utf-8-sig"))
        except OSError as exc:
            self.problems.append(f"{path} cannot be read: {exc.strerror}")
        except UnicodeDecodeError:
            self.problems.append(f"{path} is not text in UTF-8")
        except _Wrong as exc:
            self.problems.append(f"{path} {exc}")
        return {}

    def _add(self, values: Iterable[tuple[str, str | None]], source: str) -> None:
        """Take the values of settings that have none yet. None stands for a value that is not a single one."""
        for name, text in values:
            setting = _BY_NAME.get(name)
            if setting is None or name in self.found:
                continue
            if text is None:
                self.found[name] = _Found("", source, "must be a single value, not a list or a mapping")
            elif text.strip() or setting.may_be_empty:
                self.found[name] = _Found(text, source)

    def _warn_of_unknown(self, names: Iterable[str], source: str) -> None:
        for name in sorted(names):
            if not name.startswith(_PREFIX) or name.startswith(_NOT_SETTINGS) or name in _BY_NAME:
                continue
            close = difflib.get_close_matches(name.removeprefix(_PREFIX), _NAMES, n=1)
            hint = f": did you mean {_NAMES[close[0]]}?" if close else ""
            self.warnings.append(f"{name} ({source}) is not a setting{hint}")


def _is_file(path: Path) -> bool:
    """Whether there is something to read, as far as we may know: reading it will say why not. A folder is passed over."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _kind(path: Path) -> str:
    return path.suffix or path.name


def _without_line_break(text: str) -> str:
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


# files -> names and texts; null is left out, and None stands for what is not a single value


def _json_scalars(text: str) -> dict[str, str | None]:
    """The names of a JSON object. Numbers stay as they are written."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(items)
        if len(values) < len(items):
            raise _Wrong("has a name twice")
        return values

    try:
        document = json.loads(
            text, object_pairs_hook=pairs, parse_int=str, parse_float=str, parse_constant=str
        )
    except json.JSONDecodeError as exc:
        line = exc.lineno
    except RecursionError:
        line = 1
    else:
        if not isinstance(document, dict):
            raise _Wrong("must hold a JSON object")
        return {name: _scalar(value) for name, value in document.items() if value is not None}
    raise _Wrong(f"is not valid JSON in line {line}")


def _scalar(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else None


def _yaml_scalars(text: str) -> dict[str, str | None]:
    """The names of a YAML mapping. Scalars stay as they are written: a token of digits is no number."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
    except RecursionError:
        where = ""
    else:
        return _mapping_scalars(node)
    raise _Wrong(f"is not valid YAML{where}")


def _mapping_scalars(node: yaml.Node | None) -> dict[str, str | None]:
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise _Wrong("must hold a YAML mapping")
    values: dict[str, str | None] = {}
    seen: set[str] = set()
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name is None or name in seen:
            what = "has a name that is not text" if name is None else "has a name twice"
            raise _Wrong(f"{what} in line {key.start_mark.line + 1}")
        if key.tag == _MERGE:
            raise _Wrong(f"has << in line {key.start_mark.line + 1}: write what it brings in")
        seen.add(name)
        if value.tag != _NULL:
            values[name] = value.value if isinstance(value, yaml.ScalarNode) else None
    return values


def _dotenv(text: str) -> dict[str, str | None]:
    """The names of a `.env` file: `NAME=value` per line, quotes around the value, `#` before a comment."""
    values: dict[str, str | None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(line)
        if match is None:
            raise _Wrong(f"must have NAME=value in line {number}")
        name, value = match["name"], match["value"]
        if name in values:
            raise _Wrong(f"has a name twice in line {number}")
        if value[:1] in {'"', "'"}:
            quoted = _DOTENV_QUOTED.fullmatch(value)
            if quoted is None:
                raise _Wrong(f"has a quote that does not end in line {number}")
            values[name] = quoted["value"]
        else:
            values[name] = _DOTENV_COMMENT.sub("", value)
    return values
