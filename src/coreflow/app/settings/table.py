"""The table of settings, from which the loader, `coreflow check` and the docs are made."""

from collections.abc import Callable

from attrs import field, frozen

from coreflow.domain.deploy.base import SERVICES, BaseOptions

from . import parsers

PREFIX = "COREFLOW_"


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
        """Return where `Settings` has it."""
        return self.name.removeprefix(PREFIX).lower()


def _base_image(name: str) -> Setting:
    return Setting(
        name=f"{PREFIX}{name.upper()}_IMAGE",
        default=BaseOptions().images[name],
        parse=parsers.image,
        meaning=f"The image of {name}.",
    )


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="CLOUDLY_URL",
        parse=parsers.cloudly_url,
        meaning="Required. Where the records come from: a control plane (`https:`, `http:`, `wss:`, `ws:`), "
        "or a cluster file (`file:///path/to/cluster.yaml`).",
    ),
    Setting(
        name="JUMPCODE",
        parse=parsers.token,
        secret=True,
        meaning="Required, except with a cluster file. The token that identifies this cluster to the control "
        "plane.",
    ),
    Setting(
        name="COREFLOW_CLOUDLY_CA_FILE",
        parse=parsers.file,
        meaning="The CA certificates (PEM) that the control plane's certificate is verified against, instead of "
        "the system's. For a CA of your own.",
    ),
    Setting(
        name="COREFLOW_AGE_IDENTITY",
        parse=parsers.identity,
        secret=True,
        meaning="The age identity (`AGE-SECRET-KEY-1…`) that decrypts the encrypted parts of a cluster file. Best "
        "set as a Docker secret of this name.",
    ),
    Setting(
        name="COREFLOW_AGE_IDENTITY_FILE",
        parse=parsers.file,
        meaning="A file with that identity instead, as `age-keygen` writes it: an absolute path.",
    ),
    Setting(
        name="HTTPS_PROXY",
        parse=parsers.proxy,
        secret=True,
        meaning="The proxy for `https` and `wss` connections to the control plane, a gateway, and a Corestore "
        "named by `CORESTORE_CONTROL_URL`: `http://host:port`, with `user:password@` if the proxy needs a "
        "login. Also as `https_proxy`.",
    ),
    Setting(
        name="HTTP_PROXY",
        parse=parsers.proxy,
        secret=True,
        meaning="The same for `http` and `ws`. Also as `http_proxy`.",
    ),
    Setting(
        name="NO_PROXY",
        default="",
        parse=parsers.line,
        meaning="A comma-separated list of hosts that are reached without a proxy: names, which include all names "
        "below them, and addresses; `*` is all. Also as `no_proxy`. Loopback addresses, the engine and "
        "services of the cluster never use a proxy.",
    ),
    Setting(
        name="CORESTORE_API_TOKEN",
        parse=parsers.token,
        secret=True,
        meaning="The token of Corestore's control API. The corestore service gets it, too.",
    ),
    Setting(
        name="CORESTORE_CONTROL_URL",
        default="http://corestore:3000",
        parse=parsers.web_url,
        meaning="The control API of the Corestore that serves every node. If not set, each service uses the "
        "Corestore on its own node.",
    ),
    Setting(
        name="DOCKER_HOST",
        default="unix:///var/run/docker.sock",
        parse=parsers.docker_host,
        meaning="The engine of a Swarm manager: `unix:///path`, `tcp://host:port`, or `ssh://user@host`. For the "
        "last, `ssh` must log in without a prompt, and `docker` must be installed on the host.",
    ),
    Setting(
        name="DOCKER_TLS_VERIFY",
        parse=parsers.switched_on,
        meaning="With `1`, a `tcp://` engine is reached over TLS, and both sides present certificates.",
    ),
    Setting(
        name="DOCKER_CERT_PATH",
        parse=parsers.file,
        meaning="The folder with `ca.pem`, `cert.pem` and `key.pem` for that. If not set, `DOCKER_CONFIG`.",
    ),
    Setting(
        name="DOCKER_CONFIG",
        default="~/.docker",
        parse=parsers.home_file,
        meaning="The folder of Docker's client configuration. Only certificates and contexts are read there.",
    ),
    Setting(
        name="DOCKER_CONTEXT",
        parse=parsers.token,
        meaning="A context made with `docker context create`, instead of `DOCKER_HOST`. The current context is "
        "ignored on purpose: switching it must not lead a daemon to another Swarm.",
    ),
    Setting(
        name="COREFLOW_LISTEN",
        default="0.0.0.0:3000",
        parse=parsers.address,
        meaning="The address at which services of the cluster reach coreflow: `host:port`, IPv6 as `[::1]:3000`.",
    ),
    Setting(
        name="COREFLOW_ADMIN_LISTEN",
        default="127.0.0.1:3001",
        parse=parsers.address,
        meaning="The address of the admin server: health, status, journal and metrics ([status.md](status.md)).",
    ),
    Setting(
        name="COREFLOW_METRICS_PER_SERVICE",
        default="true",
        parse=parsers.boolean,
        meaning="Whether metrics have series for each service and each host, up to 1,000 of either.",
    ),
    Setting(
        name="COREFLOW_INITIAL_DELAY",
        default="10",
        parse=parsers.seconds,
        meaning="Seconds between the start and the first pass. Unless it is set, a cluster file is not waited for.",
    ),
    Setting(
        name="COREFLOW_SCHEDULE",
        default=parsers.HOURLY,
        parse=parsers.schedule,
        meaning="When every image is looked up again: a cron expression of six fields, seconds first, in UTC.",
    ),
    Setting(
        name="COREFLOW_RELIST_SECONDS",
        default="60",
        parse=parsers.interval,
        meaning="Seconds between resyncs: passes without any trigger. `0` turns them off.",
    ),
    Setting(
        name="COREFLOW_SETTLE_SECONDS",
        default="5",
        parse=parsers.settle_seconds,
        meaning="Seconds that the tasks of a service must have run without interruption before the service counts "
        "as running; 3600 at most. With `0`, the first observation counts.",
    ),
    Setting(
        name="COREFLOW_SECRET_ENVIRONMENT",
        default="production",
        parse=parsers.line,
        meaning="The environment whose value is taken from each secret group.",
    ),
    Setting(
        name="COREFLOW_BASE_SERVICES",
        default=",".join(SERVICES),
        parse=parsers.base_services,
        may_be_empty=True,
        meaning="A comma-separated list of the base services to run. An empty value means none.",
    ),
    *map(_base_image, SERVICES),
    Setting(
        name="COREFLOW_CORETRAFFIC_PUBLISH",
        default="ingress",
        parse=parsers.choice("ingress", "host"),
        meaning="How coretraffic publishes ports 80 and 443: `ingress` through the routing mesh, or `host` on "
        "every node, so that coretraffic sees the clients' addresses.",
    ),
    Setting(
        name="COREFLOW_CORETRAFFIC_PEERS",
        default="tasks",
        parse=parsers.peers,
        meaning="Who may connect as coretraffic, and so receives private keys: `tasks` for the addresses of that "
        "service's tasks, or a list of networks such as `127.0.0.0/8,10.0.0.0/24`.",
    ),
    Setting(
        name="COREFLOW_IMAGE_LIMIT_MB",
        default="10000",
        parse=parsers.count,
        meaning="The maximum size of an image archive from the control plane, in MB.",
    ),
    Setting(
        name="COREFLOW_IMAGE_TIMEOUT",
        default="1800",
        parse=parsers.interval,
        meaning="Seconds that the transfer of such an archive may take; `0` is no limit.",
    ),
    Setting(
        name="COREFLOW_MESSAGE_LIMIT_MB",
        default="100",
        parse=parsers.count,
        meaning="The maximum size of one message to coreflow, from the control plane or a service, in MiB.",
    ),
    Setting(
        name="COREFLOW_REPORT_LOGS",
        default="true",
        parse=parsers.boolean,
        meaning="Whether the log is sent to the control plane, if it accepts logs.",
    ),
    Setting(
        name="COREFLOW_ROUTE_TASKS",
        default="all",
        parse=parsers.choice("all", "first"),
        meaning="Which running tasks of a service receive requests: `all`, or only the `first`.",
    ),
    Setting(
        name="COREFLOW_KEEP_ON_NODE",
        default="true",
        parse=parsers.boolean,
        meaning="Whether a service with volumes stays on the node that has their data, once it has run.",
    ),
    Setting(
        name="COREFLOW_UPDATE",
        default="rolling",
        parse=parsers.choice("rolling", "recreate"),
        meaning="How a service changes: `rolling` updates it in place and can roll back; `recreate` removes it "
        "and creates it again.",
    ),
    Setting(
        name="COREFLOW_STRICT",
        default="false",
        parse=parsers.boolean,
        meaning="Whether an unknown field rejects its record; otherwise it is a note. Applies to a control plane "
        "as well, which may be newer and send fields that coreflow does not know; without it, those are "
        "logged at level `debug` only.",
    ),
    Setting(
        name="COREFLOW_PRUNE",
        default="true",
        parse=parsers.boolean,
        meaning="Whether services whose record is gone are removed.",
    ),
    Setting(
        name="COREFLOW_CONFIRM_REMOVAL",
        parse=parsers.line,
        meaning="The token that a refused removal names. Allows exactly that removal.",
    ),
    Setting(
        name="COREFLOW_STATE_DIR",
        parse=parsers.file,
        meaning="The folder of the journal that `coreflow history` shows, as an absolute path. If not set, the journal is kept in memory "
        "and ends with the process.",
    ),
    Setting(
        name="COREFLOW_JOURNAL_LIMIT_MB",
        default="16",
        parse=parsers.count,
        meaning="The maximum size of the journal, in MiB. The oldest entries are removed first.",
    ),
    Setting(
        name="COREFLOW_JOURNAL_DAYS",
        default="90",
        parse=parsers.count,
        meaning="The maximum age of an entry of the journal, in days.",
    ),
    Setting(
        name="COREFLOW_LOG_FORMAT",
        default="auto",
        parse=parsers.choice("auto", "console", "json"),
        meaning="`console` for people, `json` for programs; `auto` is `console` on a terminal and `json` "
        "elsewhere.",
    ),
    Setting(
        name="COREFLOW_LOG_LEVEL",
        default="info",
        parse=parsers.choice("debug", "info", "warning", "error"),
        meaning="The lowest level that is logged: `debug`, `info`, `warning` or `error`.",
    ),
)
"""Every setting there is."""
BY_NAME = {setting.name: setting for setting in SETTINGS}
NAMES = {setting.name.removeprefix(PREFIX): setting.name for setting in SETTINGS}
"""What is compared with a name that is not known: without the prefix that they share anyway."""


def settings_table() -> str:
    """The settings as the Markdown table of docs/settings.md."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for setting in SETTINGS:
        default = "" if setting.default is None else f"`{setting.default}`"
        rows.append(f"| `{setting.name}` | {default} | {setting.meaning} |")
    return "\n".join(rows) + "\n"
