"""The address of an engine, and how it is reached: what `DOCKER_HOST` and its companions say.

Sources: the environment variables of the docker command line, and its contexts
(`contexts/meta/ID/meta.json` in its configuration folder; the SDK's own reader looks elsewhere where that folder has no
`config.json`).
"""

import hashlib
import json
from pathlib import Path

from attrs import evolve, field, frozen

from coreflow.reading import read_file

CERTIFICATES = ("ca.pem", "cert.pem", "key.pem")
"""The files of a certificate folder: the authority, the client's certificate, and its key."""


class EndpointError(Exception):
    """The name of an engine cannot be used: files or a context are missing."""


@frozen(kw_only=True)
class Tls:
    """The files of a TLS connection to an engine. `verify` is False only where a context says so."""

    authority: Path
    certificate: Path
    key: Path
    verify: bool = True


@frozen
class Endpoint:
    """An engine's address: `unix:///path`, `tcp://host:port` (with TLS or without), or `ssh://[user@]host[:port]`."""

    url: str
    tls: Tls | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        """The address without a user's name."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    @property
    def over_ssh(self) -> bool:
        """Return whether every connection is a process of its own."""
        return self.url.startswith("ssh://")


def tls_in(folder: Path) -> Tls:
    """The TLS files in a folder, by the names that docker gives them.

    Raises EndpointError when one is missing or may not be read.
    """
    authority, certificate, key = (folder / name for name in CERTIFICATES)
    for path in (authority, certificate, key):
        try:
            with path.open("rb"):
                pass
        except OSError as exc:
            raise EndpointError(f"{path} cannot be read: {exc.strerror}") from None
    return Tls(authority=authority, certificate=certificate, key=key)


def endpoint_in_context(name: str, configuration: Path) -> Endpoint:
    """The engine of a context, as `docker context create` made it below docker's configuration folder.

    Raises EndpointError when there is no such context, or it cannot be read.
    """
    folder = hashlib.sha256(name.encode()).hexdigest()
    path = configuration / "contexts" / "meta" / folder / "meta.json"
    try:
        described = json.loads(read_file(path))["Endpoints"]["docker"]
        url, verify = str(described["Host"]), not described.get("SkipTLSVerify", False)
    except FileNotFoundError:
        raise EndpointError(f"there is no context {name}: docker context ls lists them") from None
    except OSError as exc:
        raise EndpointError(f"the context {name} cannot be read: {exc.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise EndpointError(f"the context {name} names no engine in {path}") from None
    certificates = configuration / "contexts" / "tls" / folder / "docker"
    if not certificates.is_dir():
        return Endpoint(url)
    return Endpoint(url, tls=evolve(tls_in(certificates), verify=verify))
