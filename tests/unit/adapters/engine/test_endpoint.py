"""What names an engine: contexts, certificates, and the command that leads through `ssh`."""

import hashlib
import json
from pathlib import Path

import pytest

from coreflow.adapters.engine.connections import ssh_command
from coreflow.adapters.engine.endpoint import Endpoint, EndpointError, Tls, endpoint_in_context, tls_in


def described(folder: Path, name: str, text: str) -> Path:
    """Write a context as docker does; the folder for its certificates."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    path = folder / "contexts" / "meta" / identity / "meta.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return folder / "contexts" / "tls" / identity / "docker"


def certificates(folder: Path) -> Tls:
    """Make the files of a TLS connection."""
    folder.mkdir(parents=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).touch()
    return Tls(authority=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem")


def test_a_context_without_certificates(tmp_path: Path) -> None:
    """It is its address."""
    described(tmp_path, "far", json.dumps({"Name": "far", "Endpoints": {"docker": {"Host": "ssh://me@far"}}}))
    assert endpoint_in_context("far", tmp_path) == Endpoint("ssh://me@far")


@pytest.mark.parametrize("verify", [True, False])
def test_a_context_with_certificates(tmp_path: Path, verify: bool) -> None:
    """They are found beside it; what docker does not verify, we do not either."""
    engine = {"Host": "tcp://far:2376", "SkipTLSVerify": not verify}
    folder = described(tmp_path, "far", json.dumps({"Endpoints": {"docker": engine}}))
    found = endpoint_in_context("far", tmp_path)
    assert found == Endpoint("tcp://far:2376")
    tls = certificates(folder)
    found = endpoint_in_context("far", tmp_path)
    assert found.tls == Tls(authority=tls.authority, certificate=tls.certificate, key=tls.key, verify=verify)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Endpoints": null}', '{"Endpoints": {"docker": {}}}'])
def test_a_context_that_names_no_engine(tmp_path: Path, text: str) -> None:
    """It is said which, and where it was looked for."""
    described(tmp_path, "far", text)
    with pytest.raises(EndpointError, match=r"the context far names no engine in .*meta\.json"):
        endpoint_in_context("far", tmp_path)
    with pytest.raises(EndpointError, match="there is no context other"):
        endpoint_in_context("other", tmp_path)


@pytest.mark.parametrize("missing", ["ca.pem", "cert.pem", "key.pem"])
def test_a_certificate_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    """Each of the three is needed."""
    folder = tmp_path / "certificates"
    assert certificates(folder) == tls_in(folder)
    (folder / missing).unlink()
    with pytest.raises(EndpointError, match=rf"{missing} cannot be read: No such file or directory"):
        tls_in(folder)


def test_no_user_name_is_shown() -> None:
    """The address of an engine has none in messages."""
    assert str(Endpoint("ssh://me@far:22")) == "ssh://far:22"
    assert str(Endpoint("unix:///run/docker.sock")) == "unix:///run/docker.sock"


@pytest.mark.parametrize(
    ("url", "end"),
    [
        ("ssh://far", ["--", "far", "docker", "system", "dial-stdio"]),
        ("ssh://me@far:2222", ["-l", "me", "-p", "2222", "--", "far", "docker", "system", "dial-stdio"]),
        ("ssh://[::1]", ["--", "::1", "docker", "system", "dial-stdio"]),
    ],
)
def test_the_command_that_leads_through_ssh(url: str, end: list[str]) -> None:
    """User and port are options, and what follows `--` is none."""
    command = ssh_command(url)
    assert list(command[-len(end) :]) == end
    assert "BatchMode=yes" in command


@pytest.mark.parametrize(
    "url", ["ssh://", "ssh://-oProxyCommand=x", "ssh://-lme@far", "ssh://far/path", "ssh://me:word@far"]
)
def test_what_no_command_is_made_of(url: str) -> None:
    """Nothing of an address becomes an option of a program."""
    with pytest.raises(ValueError, match="must name"):
        ssh_command(url)
