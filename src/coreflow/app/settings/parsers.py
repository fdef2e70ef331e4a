"""Parsers of settings: text that is not blank to a value, or `Wrong`, which says what it must be."""

import ipaddress
import math
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from coreflow.domain.deploy.base import SERVICES
from coreflow.domain.swarm.images import split_reference

HOURLY = "0 0 * * * *"
MOST_SETTLE_SECONDS = 3600.0
_COUNT = re.compile(r"[0-9]{1,7}")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):(?P<port>[0-9]{1,5})")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Wrong(Exception):
    """A value that cannot be used: what it must be, in words that follow `NAME (source) `."""


@frozen
class Address:
    """An address to listen on. An IPv6 address has no brackets here; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def line(text: str) -> str:
    """One line of printable characters."""
    if not text.isprintable():
        raise Wrong("must be one line of printable characters")
    return text


def token(text: str) -> str:
    """One word."""
    if not text.isprintable() or " " in text:
        raise Wrong("must be one word, without spaces and line breaks")
    return text


def identity(text: str) -> str:
    """The content of a file that `age-keygen` wrote, or of a private key of `ssh`."""
    if "AGE-SECRET-KEY-1" not in text and "-----BEGIN " not in text:
        raise Wrong("must hold a line that begins with AGE-SECRET-KEY-1, or a private key of ssh")
    return text


def boolean(text: str) -> bool:
    """True or false, in the words that people use for it."""
    if text.lower() in {"true", "1", "yes", "on"}:
        return True
    if text.lower() in {"false", "0", "no", "off"}:
        return False
    raise Wrong("must be true or false (or 1, 0, yes, no, on, off)")


def choice(*choices: str) -> Callable[[str], str]:
    """Make the parser of one of these words, in whatever case."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise Wrong(f"must be {listed(choices)}")
        return text.lower()

    return parse


def listed(words: Collection[str], conjunction: str = "or") -> str:
    """Words as a sentence lists them."""
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def seconds(text: str) -> float:
    """Seconds, 0 or more."""
    value = float(text) if _SECONDS.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise Wrong("must be a number of seconds, 0 or more")
    return value


def count(text: str) -> int:
    """An integer from 1 to a million."""
    if _COUNT.fullmatch(text) is None or not 1 <= int(text) <= 1_000_000:
        raise Wrong("must be an integer, 1 or more")
    return int(text)


def file(text: str) -> Path:
    """An absolute path."""
    path = Path(line(text))
    if not path.is_absolute():
        raise Wrong("must be an absolute path")
    return path


def home_file(text: str) -> Path:
    """An absolute path, or one below the home folder (`~/…`), if there is one."""
    path = Path(line(text))
    if text.startswith("~/"):
        with suppress(
            RuntimeError
        ):  # nobody knows where home is: whoever reads it will say that it is not there
            return path.expanduser()
        return path
    return file(text)


def interval(text: str) -> float:
    """Seconds between two looks; 0 stands for never, since looking all the time helps nobody."""
    return seconds(text) or math.inf


def settle_seconds(text: str) -> float:
    """Seconds, MOST_SETTLE_SECONDS at most."""
    value = seconds(text)
    if value > MOST_SETTLE_SECONDS:
        raise Wrong(f"must be at most {MOST_SETTLE_SECONDS:g} seconds")
    return value


def address(text: str) -> Address:
    """Host and port to listen at."""
    match = _ADDRESS.fullmatch(text)
    if match is not None and int(match["port"]) <= 65535:
        host = match["host"].strip("[]")
        if not (":" in host or _is_numeric(host)) or _is_ip_address(host):
            return Address(host, int(match["port"]))
    raise Wrong("must be host:port, such as 0.0.0.0:3000 or [::1]:3000")


def _is_numeric(host: str) -> bool:
    return host.replace(".", "").isdecimal()


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def schedule(text: str) -> str:
    """A cron expression of six fields that comes true some day."""
    if text == HOURLY:  # known to be right: most commands need no cron, and importing it takes 40 ms
        return text
    from croniter import croniter

    try:
        if len(text.split()) != 6:
            raise ValueError
        croniter(text, datetime(2000, 1, 1, tzinfo=UTC), second_at_beginning=True).get_next()
    except ValueError:
        raise Wrong(
            "must be a cron expression of six fields, seconds first, that comes true some day"
        ) from None
    return text


def _url(text: str, *schemes: str) -> SplitResult:
    """Split a URL that names a host, or for `file:` an absolute path. Credentials have settings of their own."""
    try:
        parts = urlsplit(token(text))
        port = parts.port
    except (ValueError, Wrong):
        raise Wrong("is not a URL") from None
    if port == 0:
        raise Wrong("names port 0, which leads nowhere")
    if parts.scheme not in schemes:
        raise Wrong(f"must be a URL that begins with {listed([f'{scheme}:' for scheme in schemes])}")
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise Wrong(
            "must not contain a user name or a password"
            if parts.scheme != "ssh"
            else "must not contain a password"
        )
    return parts


def web_url(text: str) -> str:
    """A URL of `http` or `https` that names a host."""
    parts = _url(text, "http", "https")
    if not parts.hostname:
        raise Wrong("names no host")
    return parts.geturl()


def proxy(text: str) -> str:
    """The URL of a proxy; `host:port` means `http://host:port`."""
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise Wrong("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise Wrong("must be the URL of an HTTP proxy, such as http://proxy.example.com:3128")
    if port == 0 or parts.path not in ("", "/") or parts.query:
        raise Wrong("must be the URL of an HTTP proxy without anything behind the port")
    return parts.geturl()


def cloudly_url(text: str) -> str:
    """The URL of a control plane, or of a cluster file."""
    parts = _url(text, "https", "http", "wss", "ws", "file")
    if parts.scheme != "file":
        if not parts.hostname:
            raise Wrong("names no host")
    elif parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise Wrong(
            "must name the cluster file by its absolute path, with three slashes: file:///path/to/file"
        )
    return parts.geturl()


def travels_in_the_clear(url: str) -> bool:
    """Return whether what is sent to this URL can be read on the way: without TLS, and to another machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # nothing is sent there at all
    host = parts.hostname or ""
    is_here = host == "localhost" or (_is_ip_address(host) and ipaddress.ip_address(host).is_loopback)
    return parts.scheme in {"http", "ws"} and not is_here


def docker_host(text: str) -> str:
    """The URL of an engine."""
    parts = _url(text, "unix", "tcp", "ssh")
    if parts.scheme == "unix" and (parts.netloc or len(parts.path) < 2):
        raise Wrong(
            "must name a socket by its absolute path, with three slashes: unix:///var/run/docker.sock"
        )
    if parts.scheme == "tcp" and (not parts.hostname or parts.port is None or parts.path not in {"", "/"}):
        raise Wrong("must name host and port: tcp://host:2375")
    if parts.scheme == "ssh" and (not parts.hostname or parts.path not in {"", "/"}):
        raise Wrong("must name a host: ssh://user@host")
    return text


def switched_on(text: str) -> bool:
    """True, or nothing at all: for docker, every text switches TLS on, `0` as well."""
    if text.lower() not in {"1", "true", "yes", "on"}:
        raise Wrong("must be 1, or empty to switch TLS off")
    return True


def _items(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def base_services(text: str) -> tuple[str, ...]:
    """A comma-separated list of base services; there may be none."""
    services = _items(text)
    if not set(services) <= set(SERVICES):
        raise Wrong(f"must be a comma-separated list of {listed(SERVICES, 'and')}")
    return services


def image(text: str) -> str:
    """A reference to an image."""
    try:
        split_reference(text)
    except ValueError:
        raise Wrong("must be an image reference, such as registry.example.com/name:1.2") from None
    return text


def peers(text: str) -> Literal["tasks"] | tuple[Network, ...]:
    """`tasks`, or a comma-separated list of networks."""
    if text.lower() == "tasks":
        return "tasks"
    try:
        networks = tuple(map(ipaddress.ip_network, _items(text)))
    except ValueError:
        networks = ()
    if not networks:
        raise Wrong("must be tasks, or a comma-separated list of networks such as 127.0.0.0/8")
    return networks
