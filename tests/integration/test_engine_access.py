"""Ways to an engine other than a socket here: by TLS, and through `ssh` to another machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import docker
import pytest
import trustme
from attrs import frozen
from tests.integration.engines import control
from tests.integration.lab import Lab, free_port, open_lab

pytestmark = pytest.mark.engine
USER = "root"


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"e{os.getpid()}")


@contextmanager
def running(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program, for as long as the block runs; what it says is in a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ssh


@frozen
class Ssh:
    """A server of OpenSSH whose sessions have the engine, and a folder for `PATH` with an `ssh` that knows it."""

    port: int
    folder: Path

    @property
    def host(self) -> str:
        """For `DOCKER_HOST`."""
        return f"ssh://{USER}@127.0.0.1:{self.port}"

    def environ(self, lab: Lab) -> dict[str, str]:
        """The environment of a command that goes this way."""
        return {
            "DOCKER_HOST": self.host,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "CLOUDLY_URL": f"file://{lab.records}",
        }

    def configure(self, *lines: str) -> None:
        """Write the configuration of the client."""
        (self.folder / "config").write_text("".join(f"{line}\n" for line in lines))


def key(path: Path) -> Path:
    """A new key without a password."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def ssh(lab: Lab) -> Iterator[Ssh]:
    """A server and a client that knows it."""
    folder = lab.folder / "ssh"
    folder.mkdir()
    server, client = key(folder / "server"), key(folder / "client")
    port = free_port()
    (folder / "sshd").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {server}\nAuthorizedKeysFile {client}.pub\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nSetEnv DOCKER_HOST={lab.host}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks unprivileged children in
    found = Ssh(port, folder)
    known = folder / "known"
    known.write_text(f"[127.0.0.1]:{port} {server.with_suffix('.pub').read_text()}")
    found.configure(f"IdentityFile {client}", "IdentitiesOnly yes", f"UserKnownHostsFile {known}")
    wrapper = folder / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n')
    wrapper.chmod(0o755)
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd is not None, "scripts/engine installs openssh-server"
    with running(sshd, "-D", "-e", "-f", str(folder / "sshd"), log=folder / "log") as process:
        lab.wait("sshd listens", lambda: b"listening on" in (folder / "log").read_bytes())
        yield found
        assert process.poll() is None


def test_an_engine_behind_ssh(lab: Lab, ssh: Ssh) -> None:
    """Everything works: plans, writes, look-ups, and events, which end at once with the daemon."""
    lab.write(lab.service("a"))
    assert lab.apply(**ssh.environ(lab)).code == 0
    assert lab.running("a")
    assert lab.plan(**ssh.environ(lab)).json["actions"] == []
    daemon = lab.start("run", **ssh.environ(lab), COREFLOW_INITIAL_DELAY="0", COREFLOW_RELIST_SECONDS="0")
    lab.wait("it has begun", lambda: "started" in (lab.folder / "daemon.log").read_text())
    time.sleep(1)  # no pass is due any more: what follows is the work of events

    def changed() -> bool:
        return bool(lab.inspect("a")["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env"))

    lab.change("a", lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Env=["BY=hand"]))
    lab.wait("it is put back after an event", lambda: not changed())
    children = _children(daemon.pid)
    assert children
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    lab.wait("no ssh is left", lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def _children(pid: int) -> list[str]:
    """The processes that any thread of a process has started."""
    return [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["UserKnownHostsFile /dev/null"], "Host key verification failed"),
        (
            ["StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "IdentityFile /dev/null"],
            "Permission denied",
        ),
        (["ProxyCommand false"], "ssh: "),
    ],
)
def test_ssh_says_why_it_does_not_get_there(lab: Lab, ssh: Ssh, lines: list[str], reason: str) -> None:
    """The error names the engine's address and has the last words of `ssh`; nobody is asked for a password."""
    ssh.configure("IdentitiesOnly yes", *lines)
    lab.write(lab.service("a"))
    result = lab.plan(**ssh.environ(lab))
    assert result.code == 1
    assert f"ssh://127.0.0.1:{ssh.port}" in result.err
    assert reason in result.err


def test_without_the_program_ssh(lab: Lab, ssh: Ssh) -> None:
    """It is said that it is missing."""
    lab.write(lab.service("a"))
    result = lab.plan(**{**ssh.environ(lab), "PATH": str(lab.folder)})
    assert "cannot start ssh" in result.err, str(result)


# TLS


@frozen
class Secured:
    """An engine that shows and wants certificates."""

    url: str
    certificates: Path


@pytest.fixture
def secured(lab: Lab) -> Iterator[Secured]:
    """A second engine in node 1, a manager of a Swarm of its own, reached by TLS alone."""
    name = os.environ["COREFLOW_TEST_ENGINE_NAME"]
    address = lab.client.info()["Swarm"]["NodeAddr"]
    folder = lab.folder / "tls"
    folder.mkdir()
    authority = trustme.CA()
    for kind, identity in (("server", address), ("client", "client.example.com")):
        (folder / kind).mkdir()
        issued = authority.issue_cert(identity)
        authority.cert_pem.write_to_path(str(folder / kind / "ca.pem"))
        issued.private_key_pem.write_to_path(str(folder / kind / "key.pem"))
        (folder / kind / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    port = free_port()
    files = [
        f"--tls{option}={folder}/server/{file}.pem"
        for option, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))
    ]
    state = f"/run/tls-{port}"
    command = [
        *(str(part) for part in (Path(__file__).parents[2] / "scripts/engine", "--name", name, "exec", 1)),
        *(
            "dockerd",
            f"--host=tcp://{address}:{port}",
            "--tlsverify",
            *files,
            "--bridge=docker0",  # with none of its own, it would take that of the engine beside it away
            "--iptables=false",
        ),
        *(
            f"--data-root={state}/data",
            f"--exec-root={state}/exec",
            f"--pidfile={state}.pid",
            "--storage-driver=vfs",
        ),
    ]
    url = f"tcp://{address}:{port}"
    tls = docker.tls.TLSConfig(
        client_cert=(f"{folder}/client/cert.pem", f"{folder}/client/key.pem"),
        ca_cert=f"{folder}/client/ca.pem",
        verify=True,
    )
    with running(*command, log=folder / "dockerd.log"):
        client = docker.APIClient(base_url=url.replace("tcp:", "https:"), tls=tls, version="1.41")
        client.trust_env = False  # requests prefers an authority that the environment names
        lab.wait("the engine answers", partial(_answers, client), 60)
        client.init_swarm(advertise_addr=address, listen_addr=f"{address}:{free_port()}")
        yield Secured(url, folder / "client")
        client.leave_swarm(force=True)
        client.close()
    control(name, "exec", "1", "rm", "-rf", state)


def _answers(client: docker.APIClient) -> bool:
    try:
        client.version()
    except Exception:  # noqa: BLE001 - not yet
        return False
    return True


def test_an_engine_by_tls(lab: Lab, secured: Secured) -> None:
    """With `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`, and with a context that has the same; with neither, it is said."""
    lab.write()  # without services: the engine beside this one has the ports that overlays need
    environ = {"DOCKER_HOST": secured.url}
    tls = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(secured.certificates)}
    lab.deploy(**environ, **tls)
    assert lab.plan(**environ, **tls).json["actions"] == []

    plain = lab.plan(**environ)
    assert plain.code == 1
    assert "HTTPS server" in plain.err

    configuration = {"DOCKER_CONFIG": str(lab.folder / "docker")}
    files = ",".join(
        f"{option}={secured.certificates}/{file}.pem"
        for option, file in (("ca", "ca"), ("cert", "cert"), ("key", "key"))
    )
    create = ("docker", "context", "create", "secured", "--docker", f"host={secured.url},{files}")
    subprocess.run(create, env={**os.environ, **configuration}, check=True, capture_output=True)
    in_context = {
        key: value for key, value in lab.environment(**configuration).items() if key != "DOCKER_HOST"
    }
    command = ("coreflow", "plan", "--records", str(lab.records))
    for name, text in (("secured", "Nothing to do"), ("other", "there is no context other")):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**in_context, "DOCKER_CONTEXT": name},
            capture_output=True,
            text=True,
            check=False,
        )
        assert text in done.stdout + done.stderr


def test_an_engine_that_others_certify(lab: Lab, secured: Secured) -> None:
    """A certificate of another authority is refused, before anything is sent; files that are missing are named."""
    lab.write(lab.service("a"))
    folder = lab.folder / "other"
    shutil.copytree(secured.certificates, folder)
    trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
    environ = {"DOCKER_HOST": secured.url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
    result = lab.plan(**environ)
    assert "certificate verify failed" in result.err, str(result)
    (folder / "key.pem").unlink()
    assert f"{folder}/key.pem cannot be read: No such file or directory" in lab.plan(**environ).err
