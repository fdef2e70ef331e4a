"""`coreflow run` with Cloudly on the network: a stand-in on the real npm packages, a real Swarm, and what goes wrong."""

import hashlib
import io
import itertools
import json
import os
import random
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from tests.integration.lab import EXITING_IMAGE, Json, Lab, Result, free_port, open_lab
from tests.integration.node_harness import (
    TOKEN,
    Cloudly,
    NodeError,
    needs_node,
    start_cloudly,
    start_coretraffic,
    tell,
)

pytestmark = [pytest.mark.engine, needs_node]
_numbers = itertools.count()
MIB = 1024 * 1024


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"d{os.getpid()}x{next(_numbers)}")


async def push(cloudly: Cloudly, lab: Lab, *services: Json, **others: Any) -> None:
    """Change what Cloudly knows, and say so; coreflow answers `{}`."""
    (answer,) = await cloudly.push("pushClusterConfig", await tell(cloudly, lab, *services, **others))
    assert answer["response"] == {}


def start(lab: Lab, cloudly: Cloudly, **extra: str) -> "subprocess.Popen[str]":
    """Start the daemon."""
    settings = {
        "CLOUDLY_URL": cloudly.url,
        "JUMPCODE": TOKEN,
        "COREFLOW_INITIAL_DELAY": "0",
        "COREFLOW_RELIST_SECONDS": "0",
        "COREFLOW_LOG_FORMAT": "json",
        **extra,
    }
    return lab.start("run", **settings)


def log_of(lab: Lab, event: str | None = None, **facts: object) -> list[Json]:
    """The lines of the daemon's log, or those of one event with these facts."""
    lines = [json.loads(line) for line in (lab.folder / "daemon.log").read_text().splitlines()]
    return [line for line in lines if event in (None, line["event"]) and facts.items() <= line.items()]


async def wait(lab: Lab, what: str, condition: Callable[[], object], seconds: float = 40) -> None:
    """Wait until something holds, while the Node processes are listened to."""
    await trio.to_thread.run_sync(partial(lab.wait, what, condition, seconds))


async def stopped(daemon: "subprocess.Popen[str]") -> None:
    """End the daemon as an operator does; it has ten seconds, and status 0."""
    daemon.send_signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(partial(daemon.wait, timeout=10)) == 0


def version_index(lab: Lab, short: str) -> int:
    index: int = lab.inspect(short)["Version"]["Index"]
    return index


async def test_the_daemon_follows_cloudly(lab: Lab, cloudly: Cloudly, nursery: trio.Nursery) -> None:
    """Login, tag, records, running tasks; a push changes one service; Cloudly dies and comes back; nothing is missed."""
    a, b = lab.service("a"), lab.service("b", environment={"N": "1"})
    await tell(cloudly, lab, a, b)
    daemon = start(lab, cloudly)
    await wait(lab, "both run", lambda: lab.running("a") and lab.running("b"))
    (connection,) = await cloudly.connections()
    assert connection["tags"]["identity"]["jwt"].startswith("jwt-")
    assert [r["envelope"]["request"] for r in await cloudly.seen("getIdentityByToken")] == [{"token": TOKEN}]

    before = version_index(lab, "a"), len(log_of(lab, "update"))
    b["data"]["environment"]["N"] = "2"
    await push(cloudly, lab, a, b)
    await wait(lab, "the push is followed", lambda: "N=2" in _environment(lab, "b"))
    assert (version_index(lab, "a"), len(log_of(lab, "update"))) == (before[0], before[1] + 1)
    (line,) = log_of(lab, "update", name=lab.name("b"))
    assert (line["owner"], line["stage"]) == (b["id"], "workloads")
    assert line["pass_id"] >= 1
    assert "N" in line["reason"]

    port = cloudly.port
    await cloudly.kill()
    await wait(lab, "it notices", lambda: log_of(lab, "connection to Cloudly lost"))
    lab.client.remove_service(lab.name("a"))
    await wait(lab, "it goes on with what it knows", lambda: lab.name("a") in lab.services())
    again = await start_cloudly(nursery, port=port)
    b["data"]["environment"]["N"] = "3"  # nobody was there to hear of it
    await tell(again, lab, a, b)
    await wait(lab, "what was missed is caught up", lambda: "N=3" in _environment(lab, "b"))
    (connection,) = await again.connections()
    assert "identity" in connection["tags"]
    assert daemon.poll() is None
    assert len(log_of(lab, "connected to Cloudly")) == 2
    await stopped(daemon)
    assert [line["event"] for line in log_of(lab)][-2:] == ["stopping", "stopped"]
    assert TOKEN not in (lab.folder / "daemon.log").read_text()
    assert "jwt-" not in (lab.folder / "daemon.log").read_text()


async def test_a_crash_loop_asks_for_no_records(
    lab: Lab, cloudly: Cloudly, record_property: Callable[[str, object], None]
) -> None:
    """While a service ends again and again, Cloudly is asked for the records as often as at rest."""
    await tell(cloudly, lab, lab.service("a"))
    daemon = start(lab, cloudly)  # which looks at nothing again without a reason
    await wait(lab, "the service runs", lambda: lab.running("a") and log_of(lab, "running"), seconds=90)
    at_rest = await fetches(cloudly, 10)
    await push(cloudly, lab, lab.service("a"), lab.service("bad", EXITING_IMAGE))
    await wait(lab, "it is a crash loop", lambda: log_of(lab, "crash-looping", name=lab.name("bad")))
    before = {task["ID"] for task in lab.tasks("bad")}
    looping = await fetches(cloudly, 25)
    ended = {task["ID"] for task in lab.tasks("bad")} - before
    record_property("fetches", (at_rest, looping, len(ended)))
    assert len(ended) >= 2
    assert looping <= at_rest + 1
    await stopped(daemon)


async def fetches(cloudly: Cloudly, seconds: float) -> int:
    """How often all services are asked for, from now on."""
    before = len(await cloudly.seen("getServices"))
    await trio.sleep(seconds)
    return len(await cloudly.seen("getServices")) - before


def _environment(lab: Lab, short: str) -> list[str]:
    return list(lab.inspect(short)["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env") or ())


async def test_a_cloudly_that_is_away_is_waited_for(lab: Lab, cloudly: Cloudly) -> None:
    """It is said once; when Cloudly comes, work begins. Its certificate must be one that is trusted."""
    await tell(cloudly, lab, lab.service("a"))
    await cloudly.stop()
    daemon = start(lab, cloudly)
    await wait(lab, "it says so", lambda: log_of(lab, "waiting for Cloudly"))
    await trio.sleep(4)
    assert daemon.poll() is None
    assert len(log_of(lab, "waiting for Cloudly")) == 1
    await cloudly.start()
    await wait(lab, "the service runs", lambda: lab.running("a"))
    await stopped(daemon)


async def test_a_certificate_has_to_be_trusted(lab: Lab, nursery: trio.Nursery) -> None:
    """An authority of one's own is named in a setting; without it nothing is sent."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(lab.folder / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    (lab.folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    (lab.folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    files = {"cert": str(lab.folder / "cert.pem"), "key": str(lab.folder / "key.pem")}
    cloudly = await start_cloudly(nursery, tls=files)
    await tell(cloudly, lab, lab.service("a"))
    url = f"https://localhost:{cloudly.port}"
    daemon = start(lab, cloudly, CLOUDLY_URL=url)
    await wait(lab, "it refuses", lambda: log_of(lab, "waiting for Cloudly"))
    assert "is not trusted" in log_of(lab, "waiting for Cloudly")[0]["reason"]
    await stopped(daemon)
    daemon = start(lab, cloudly, CLOUDLY_URL=url, COREFLOW_CLOUDLY_CA_FILE=str(lab.folder / "ca.pem"))
    await wait(lab, "the service runs", lambda: lab.running("a"))
    await stopped(daemon)
    nursery.cancel_scope.cancel()


async def test_a_refused_token_breaks_nothing(lab: Lab, cloudly: Cloudly) -> None:
    """It is said clearly; what runs goes on; when the token is accepted, work goes on, too."""
    await tell(cloudly, lab, lab.service("a"))
    daemon = start(lab, cloudly)
    await wait(lab, "the service runs", lambda: lab.running("a"))
    before = version_index(lab, "a")
    await cloudly.know(tokens=[])
    await cloudly.revoke()
    await cloudly.drop()
    await wait(lab, "it says so", lambda: log_of(lab, "Cloudly refuses the token"))
    assert "JUMPCODE" in log_of(lab, "Cloudly refuses the token")[0]["reason"]
    await trio.sleep(3)
    assert daemon.poll() is None
    assert version_index(lab, "a") == before
    await tell(cloudly, lab, lab.service("a"), lab.service("b"))
    await wait(lab, "it is let in again", lambda: lab.running("b"))
    await stopped(daemon)
    assert len(log_of(lab, "Cloudly refuses the token")) == 1
    assert TOKEN not in (lab.folder / "daemon.log").read_text()


async def test_nonsense_from_cloudly_removes_nothing(lab: Lab, cloudly: Cloudly) -> None:
    """Malformed pushes and answers are rejected with paths; an empty list where there were services meets the guard."""
    services = [lab.service("a"), lab.service("b")]
    await tell(cloudly, lab, *services)
    daemon = start(lab, cloudly)
    await wait(lab, "both run", lambda: lab.running("a") and lab.running("b"))
    before = version_index(lab, "a"), version_index(lab, "b")

    await cloudly.push("pushClusterConfig", {"configData": {"id": 5}, "services": "none"})
    await wait(lab, "the push is rejected", lambda: log_of(lab, "push rejected, asking instead"))
    assert "$.services" in log_of(lab, "push rejected, asking instead")[0]["reason"]
    answers: tuple[object, ...] = ({"services": 7}, {}, None, [])
    for nonsense in answers:
        await cloudly.misbehave("getServices", response=nonsense)
        await cloudly.push("pushContainerUpdate", {})
    await wait(lab, "the answer is rejected", lambda: log_of(lab, "note", name="answer to getServices"))
    await cloudly.behave()
    await cloudly.push("pushContainerUpdate", {})
    await wait(lab, "that is over", lambda: log_of(lab, "resolved", name="answer to getServices"))
    await push(cloudly, lab)
    await wait(lab, "the guard refuses", lambda: log_of(lab, "refused"))
    assert (version_index(lab, "a"), version_index(lab, "b")) == before
    await stopped(daemon)


async def test_ten_thousand_pushes(lab: Lab, cloudly: Cloudly) -> None:
    """Memory stays bounded, the newest wins, and passes are few."""
    service = lab.service("a", environment={"N": "0"}, scaleFactor=0, description="x" * 2000)
    await tell(cloudly, lab, service)
    daemon = start(lab, cloudly)
    await wait(lab, "the service is there", lambda: lab.services())
    memory = _memory(daemon)
    for number in (1, 2):
        service["data"]["environment"]["N"] = str(number)
        body = await tell(cloudly, lab, service)
        await cloudly.flood("pushClusterConfig", body, 5000)
    await wait(lab, "the newest wins", lambda: "N=2" in _environment(lab, "a"))
    assert _peak(daemon) - memory < 64 * MIB
    assert len(log_of(lab, "update")) <= 3
    await stopped(daemon)


def _memory(daemon: "subprocess.Popen[str]") -> int:
    return _status(daemon, "VmRSS")


def _peak(daemon: "subprocess.Popen[str]") -> int:
    return _status(daemon, "VmHWM")


def _status(daemon: "subprocess.Popen[str]", name: str) -> int:
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def enlarged(archive: Path, target: Path, size: int) -> None:
    """A copy of an image archive with one more layer: a file of this size that does not compress."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        info = tarfile.TarInfo("ballast")
        info.size = size
        tar.addfile(info, io.BytesIO(random.Random(size).randbytes(size)))
    data = layer.getvalue()
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        (manifest,) = json.load(_file(old, "manifest.json"))
        config = json.load(_file(old, manifest["Config"]))
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        config.pop("history", None)
        text = json.dumps(config).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        for layer_name in manifest["Layers"]:
            member = old.getmember(layer_name)
            if member.issym():  # from one layer to the same one elsewhere in the archive
                member = old.getmember(os.path.normpath(Path(layer_name).parent / member.linkname))
            _add(new, layer_name, _file(old, member.name).read())
        _add(new, "ballast.tar", data)
        _add(new, name, text)
        layers = [*manifest["Layers"], "ballast.tar"]
        _add(
            new, "manifest.json", json.dumps([{"Config": name, "RepoTags": None, "Layers": layers}]).encode()
        )


def _file(tar: tarfile.TarFile, name: str) -> Any:
    return tar.extractfile(name)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="session")
def large_archive(engine_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of an image of 200 MB."""
    path = tmp_path_factory.mktemp("large") / "image.tar"
    enlarged(engine_state / "images" / "test-1.tar", path, 200_000_000)
    return path


@pytest.mark.parametrize(("mode", "generation"), [("read", "3.3.0"), ("3.3.2", "3.3.2"), ("3.3.0", "3.3.0")])
async def test_an_internal_image_is_streamed(
    lab: Lab, cloudly: Cloudly, large_archive: Path, mode: str, generation: str
) -> None:
    """200 MB arrive without being held; from a peer that cannot deliver it is refused, and others are deployed."""
    image = {
        "id": f"img-{lab.prefix}",
        "data": {"location": {"internal": True}, "versions": [{"versionString": "1", "size": 200_000_000}]},
    }
    internal = {
        "id": "id-i",
        "data": {"name": lab.name("i"), "imageId": image["id"], "imageVersion": "1"},
    }
    archive = {"path": str(large_archive), "mode": mode}
    await tell(
        cloudly,
        lab,
        lab.service("a"),
        generation=generation,
        images=[image],
        archives={f"img-{lab.prefix}:1": archive},
    )
    daemon = start(lab, cloudly)
    await wait(lab, "the other service runs", lambda: lab.running("a"))
    await trio.sleep(1)
    memory = _memory(daemon)
    await push(cloudly, lab, lab.service("a"), internal)
    if mode == "3.3.0":
        await wait(lab, "it is refused", lambda: log_of(lab, "failed", kind="image"))
        (line,) = log_of(lab, "failed", kind="image")[:1]
        assert "cannot deliver streams" in line["reason"]
        assert image["id"] in line["reason"]
        assert lab.services() == [lab.name("a")]
    else:
        await wait(lab, "the image arrives", lambda: lab.running("i"), seconds=120)
        assert _peak(daemon) - memory < 32 * MIB
    await stopped(daemon)


async def test_it_ends_in_the_middle_of_a_pass(lab: Lab, cloudly: Cloudly, large_archive: Path) -> None:
    """SIGTERM while an image is being loaded whose end never comes."""
    image = {
        "id": f"img-{lab.prefix}",
        "data": {"location": {"internal": True}, "versions": [{"versionString": "1"}]},
    }
    internal = {"id": "id-i", "data": {"name": lab.name("i"), "imageId": image["id"], "imageVersion": "1"}}
    archive = {"path": str(large_archive), "endless": True}
    await tell(cloudly, lab, internal, images=[image], archives={f"img-{lab.prefix}:1": archive})
    daemon = start(lab, cloudly)
    await cloudly.event("request", method="pullImageVersion")
    await trio.sleep(2)
    await stopped(daemon)


async def test_the_internal_server_of_the_daemon(lab: Lab, cloudly: Cloudly, nursery: trio.Nursery) -> None:
    """Who is no Coretraffic does not get its tag, and backups are not to be had here; healthz answers."""
    await tell(cloudly, lab)
    address = f"127.0.0.1:{free_port()}"
    daemon = start(lab, cloudly, COREFLOW_LISTEN=address)
    await wait(lab, "it listens", lambda: log_of(lab, "listening", what="internal server"))
    foreign = await start_coretraffic(nursery, f"http://{address}")
    await foreign.connect()
    assert log_of(lab, "tag refused", tag="coretraffic")
    with pytest.raises(NodeError, match="not available"):
        await foreign.request("executeServiceBackup", {"serviceId": "x"})
    await stopped(daemon)
    daemon = start(lab, cloudly, COREFLOW_LISTEN=address, COREFLOW_CORETRAFFIC_PEERS="127.0.0.0/8")
    await wait(lab, "it listens again", lambda: len(log_of(lab, "listening", what="internal server")) == 2)
    ours = await start_coretraffic(nursery, f"http://{address}", tag="coretraffic")
    await ours.connect()
    await wait(lab, "it is tagged", lambda: log_of(lab, "tagged", tag="coretraffic"))
    await stopped(daemon)


async def test_commands_ask_cloudly_too(lab: Lab, cloudly: Cloudly) -> None:
    """`plan` and `apply` work with a control plane; a wrong token or address is one clear line."""
    await tell(cloudly, lab, lab.service("a"))

    async def run(command: str, token: str) -> Result:
        call = partial(lab.run, command, CLOUDLY_URL=cloudly.url, JUMPCODE=token)
        return await trio.to_thread.run_sync(call)

    done = await run("plan", TOKEN)
    assert (done.code, done.err) == (0, "")
    assert lab.name("a") in done.out
    done = await run("apply", TOKEN)
    assert done.code == 0, str(done)
    done = await run("plan", "wrong-canary")
    assert done.code == 1
    assert done.err.startswith("error: the machine token (JUMPCODE) is refused")
    assert len(done.err.splitlines()) == 1
    assert "canary" not in done.err + done.out
