"""Proxies that stand between us and servers, as the environment of a process usually names them."""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed

import aiohttp
from attrs import field, frozen


@frozen(kw_only=True)
class Proxies:
    """The proxies that lead to servers. Their URLs may hold a user and a password, and are shown nowhere."""

    https: str | None = field(default=None, repr=False)
    """For `https` and `wss`: a tunnel, so that the proxy reads nothing."""
    http: str | None = field(default=None, repr=False)
    """For `http` and `ws`."""
    bypass: str = ""
    """Hosts that are reached without one, as in `NO_PROXY`: names, which cover what is below them; `*` covers all."""

    def options(self, url: str) -> Mapping[str, Any]:
        """Return what a request to `url` needs; nothing where no proxy leads there. Loopback addresses never have one."""
        target = urlsplit(url)
        host = target.hostname or ""
        proxy = self.https if target.scheme in ("https", "wss") else self.http
        if not proxy or _is_loopback(host) or proxy_bypass_environment(host, {"no": self.bypass}):
            return {}
        address = urlsplit(proxy)
        bare = address._replace(netloc=address.netloc.rpartition("@")[2])
        options: dict[str, Any] = {"proxy": bare.geturl()}
        if address.username is not None:
            login = aiohttp.encode_basic_auth(unquote(address.username), unquote(address.password or ""))
            options["proxy_headers"] = {"Authorization": login}  # aiohttp makes it the proxy's
        return options


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
