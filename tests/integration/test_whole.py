"""The command on a real Swarm: what an operator is promised, looked at in the resulting world."""

import base64
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.integration.corestore_server import CorestoreServer, running_corestore
from tests.integration.engine_proxy import Trap, When, engine_proxy
from tests.integration.lab import EXITING_IMAGE, LOCAL_IMAGE, NEWER_IMAGE, Lab, open_lab

from coreflow.adapters.journal import FILE_NAME, read_file
from coreflow.domain.journal import Query
from coreflow.domain.redaction.spellings import views

pytestmark = pytest.mark.engine
_numbers = itertools.count()


@pytest.fixture
def lab(engine_host: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty cluster on a real Swarm."""
    yield from open_lab(engine_host, tmp_path, f"w{os.getpid()}x{next(_numbers)}")


@pytest.fixture
def volume_driver(lab: Lab, engine_state: Path) -> Iterator[CorestoreServer]:
    """A volume plugin named `corestore` on the first node."""
    socket = engine_state / "node1" / "run" / "docker" / "plugins" / "corestore.sock"
    try:
        with running_corestore(lab.folder / "corestore", plugin_socket=socket) as server:
            yield server
            for name in lab.services():
                lab.client.remove_service(name)
            lab.wait(
                "no container uses a volume", lambda: not lab.client.containers(filters={"name": lab.prefix})
            )
            for volume in lab.client.volumes(filters={"driver": "corestore"})["Volumes"] or ():
                lab.wait("the volume is free", partial(_remove_volume, lab, volume["Name"]))
    finally:
        socket.unlink(missing_ok=True)


def _remove_volume(lab: Lab, name: str) -> bool:
    try:
        lab.client.remove_volume(name)
    except Exception:  # noqa: BLE001 - still in use
        return False
    return True


def _done(document: dict[str, Any], kind: str = "service") -> list[tuple[str, str, str]]:
    return [(o["action"], o["name"], o["reason"]) for o in document["outcomes"] if o["kind"] == kind]


def test_the_example_cluster_runs(lab: Lab, volume_driver: CorestoreServer) -> None:
    """Base networks and services, workloads with their merged secret, and volumes with driver options and labels."""
    shop = lab.service(
        "shop",
        scaleFactor=2,
        environment={"NODE_ENV": "production"},
        secretBundleId="main",
        additionalSecretBundleIds=["shared"],
        ports={"web": 3000, "custom": {"admin.shop.example.com": "3001"}},
        domains=[{"name": "shop.example.com", "protocol": "https"}, "www.shop.example.com"],
        resources={
            "memorySizeLimitMB": 768,
            "volumeMounts": [{"hostFsPath": str(lab.folder), "containerFsPath": "/import"}],
        },
        volumes=[{"mountPath": "/data", "backup": True}],
    )
    lab.write(
        shop,
        lab.service("blog"),
        {"id": "base-record", "data": {"name": "coretraffic", "serviceCategory": "base"}},
        secretBundles=[
            {"id": "main", "data": {"name": "m", "includedSecretGroupIds": ["pay", "old", "new"]}},
            {"id": "shared", "data": {"name": "s", "includedSecretGroupIds": ["smtp", "shadowed"]}},
        ],
        secretGroups=[
            _group("pay", "PAYMENT", "pk"),
            _group("old", "SESSION", "old", priority=1),
            _group("new", "SESSION", "new", priority=10),
            _group("smtp", "SMTP", "mail"),
            _group("shadowed", "PAYMENT", "shared"),
        ],
    )
    base = {
        "COREFLOW_BASE_SERVICES": "coretraffic,corelog,corestore",
        "CORESTORE_API_TOKEN": "token-of-the-store",
        **{f"COREFLOW_{name}_IMAGE": LOCAL_IMAGE for name in ("CORETRAFFIC", "CORELOG", "CORESTORE")},
    }
    lab.deploy(**base)

    assert {n["Name"] for n in lab.client.networks(names=["sznwebgateway", "szncorechat"])} == {
        "sznwebgateway",
        "szncorechat",
    }
    assert set(lab.services()) == {"coretraffic", "corelog", "corestore", lab.name("shop"), lab.name("blog")}
    traffic = lab.client.inspect_service("coretraffic")["Spec"]
    assert {(p["PublishedPort"], p["TargetPort"]) for p in traffic["EndpointSpec"]["Ports"]} == {
        (80, 7999),
        (443, 8000),
    }
    store = lab.client.inspect_service("corestore")["Spec"]
    assert "Global" in store["Mode"]
    assert "CORESTORE_API_TOKEN=token-of-the-store" in store["TaskTemplate"]["ContainerSpec"]["Env"]
    assert len(store["TaskTemplate"]["ContainerSpec"]["Mounts"]) == 2
    assert len(lab.running("shop")) == 2
    secret = json.loads(lab.exec("shop", "cat", "/run/secrets/secret.json"))
    assert secret == {"PAYMENT": "pk", "SESSION": "new", "SMTP": "mail"}
    spec = lab.inspect("shop")["Spec"]
    assert spec["EndpointSpec"]["Mode"] == "dnsrr"
    assert spec["TaskTemplate"]["Networks"][0]["Aliases"] == [lab.name("shop")]
    assert spec["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"] == 768_000_000
    created = [request["body"] for request in volume_driver.requests_now("VolumeDriver.Create")]
    assert created[0]["Opts"]["mountPath"] == "/data"
    assert created[0]["Opts"]["serviceId"] == shop["id"]
    volume = lab.client.inspect_volume(created[0]["Name"])
    assert volume["Labels"]["serve.zone.serviceName"] == lab.name("shop")
    again = lab.deploy(**base)
    assert again["outcomes"] == []


def _group(identity: str, key: str, value: str, priority: int | None = None) -> dict[str, Any]:
    data: dict[str, Any] = {"key": key, "environments": {"production": {"value": value}}}
    if priority is not None:
        data["priority"] = priority
    return {"id": identity, "data": data}


@pytest.mark.parametrize("count", [1, 100, 300])
def test_a_second_run_writes_nothing(lab: Lab, count: int) -> None:
    """With nothing to do an apply makes at most six reads and no write, whatever the number of services."""
    replicas = 1 if count == 1 else 0
    services = [lab.service(f"s{n}", scaleFactor=replicas, secretBundleId="bundle") for n in range(count)]
    lab.write(*services, **lab.secrets(KEY="value"))
    lab.deploy()
    before = [(t["ID"], t["Status"]["State"]) for t in lab.tasks("s0")]
    with engine_proxy(lab.host, lab.folder) as proxy:
        lab.deploy(DOCKER_HOST=proxy.url)
        assert proxy.writes == 0
        assert proxy.reads <= 6, proxy.requests
    assert [(t["ID"], t["Status"]["State"]) for t in lab.tasks("s0")] == before


CHANGES: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("image", {"image": NEWER_IMAGE}, {"KEY": "one"}, f"image {LOCAL_IMAGE} → {NEWER_IMAGE}"),
    ("secret", {}, {"KEY": "two"}, "secret rotated"),
    ("volume", {"volumes": [{"mountPath": "/more", "driver": "local"}]}, {"KEY": "one"}, "mount /more added"),
    ("replicas", {"scaleFactor": 3}, {"KEY": "one"}, "replicas 2, wanted 3"),
    ("environment", {"environment": {"MODE": "new"}}, {"KEY": "one"}, "env MODE"),
]


@pytest.mark.parametrize(
    ("change", "values", "reason"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_one_change_updates_one_service_in_place(
    lab: Lab, change: dict[str, Any], values: dict[str, str], reason: str
) -> None:
    """One field changed: one service updated, in place, with that reason, and never without a running task."""
    lab.write(
        lab.service("a", scaleFactor=2, secretBundleId="bundle"), lab.service("b"), **lab.secrets(KEY="one")
    )
    lab.deploy()
    before = {short: lab.inspect(short) for short in ("a", "b")}
    lab.write(
        lab.service("a", **{"scaleFactor": 2, "secretBundleId": "bundle", **change}),
        lab.service("b"),
        **lab.secrets(**values),
    )
    planned = lab.plan("--detailed-exitcode")
    assert planned.code == 2
    fewest, stop = [99], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            fewest[0] = min(fewest[0], len(lab.running("a")))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = lab.deploy()
    finally:
        stop.set()
        watcher.join()
    assert _done(done) == [("update", lab.name("a"), reason)]
    assert lab.inspect("a")["ID"] == before["a"]["ID"]
    assert lab.inspect("b")["Version"] == before["b"]["Version"]
    assert fewest[0] >= 1


def test_recreation_is_the_operators_choice(lab: Lab) -> None:
    """`COREFLOW_UPDATE=recreate` makes a service anew where its image changed."""
    lab.write(lab.service("a"))
    lab.deploy()
    before = lab.inspect("a")["ID"]
    lab.write(lab.service("a", NEWER_IMAGE))
    done = lab.deploy(COREFLOW_UPDATE="recreate")
    assert _done(done) == [("recreate", lab.name("a"), f"image {LOCAL_IMAGE} → {NEWER_IMAGE}")]
    assert lab.inspect("a")["ID"] != before


def test_a_bad_image_is_rolled_back_and_not_tried_again(lab: Lab) -> None:
    """Swarm rolls back, coreflow says why, keeps the old secret, and tries again only when the record changes."""
    lab.write(lab.service("a", secretBundleId="bundle"), **lab.secrets(KEY="old"))
    lab.deploy()
    [old_secret] = lab.secret_names()
    lab.write(lab.service("a", EXITING_IMAGE, secretBundleId="bundle"), **lab.secrets(KEY="new"))
    failed = lab.apply("--timeout", "60")
    assert failed.code == 1, str(failed)
    assert "non-zero exit (1)" in failed.out
    assert old_secret in lab.secret_names()
    assert lab.inspect("a")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == LOCAL_IMAGE
    version = lab.inspect("a")["Version"]
    again = lab.apply("--timeout", "60")
    assert again.code == 1
    assert "not tried again" in again.out
    assert again.json["outcomes"] == []
    assert lab.inspect("a")["Version"] == version
    assert len(lab.running("a")) == 1
    lab.write(lab.service("a", NEWER_IMAGE, secretBundleId="bundle"), **lab.secrets(KEY="new"))
    lab.deploy()
    assert lab.inspect("a")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == NEWER_IMAGE


def _set_env(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["BY_HAND=1"]


def _set_replicas(spec: dict[str, Any]) -> None:
    spec["Mode"]["Replicated"]["Replicas"] = 2


def _set_image(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = NEWER_IMAGE


def _drop_secret(spec: dict[str, Any]) -> None:
    del spec["TaskTemplate"]["ContainerSpec"]["Secrets"]


def _set_dns(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["DNSConfig"] = {"Nameservers": ["192.0.2.1"]}


BY_HAND: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "env": (_set_env, "changed by hand: env BY_HAND"),
    "replicas": (_set_replicas, "changed by hand: replicas 2, wanted 1"),
    "image": (_set_image, f"changed by hand: image {NEWER_IMAGE} → {LOCAL_IMAGE}"),
    "secret": (_drop_secret, "changed by hand: secret missing"),
    "dns": (_set_dns, "changed by hand: ContainerSpec.DNSConfig"),
}


def test_changes_by_hand_are_found_and_repaired(lab: Lab) -> None:
    """What somebody changed on live services is shown by `plan`, each with its reason, and put right by `apply`."""
    reasons = {lab.name(short): reason for short, (_, reason) in BY_HAND.items()}
    lab.write(*(lab.service(short, secretBundleId="bundle") for short in BY_HAND), **lab.secrets(KEY="value"))
    lab.deploy()
    for short, (change, _) in BY_HAND.items():
        lab.change(short, change)
    planned = lab.plan("--detailed-exitcode")  # at once, even while Swarm still rolls them out
    assert planned.code == 2
    seen = {line["name"]: line["reason"] for line in planned.json["actions"] + planned.json["waits"]}
    assert seen.keys() == reasons.keys()
    assert all(seen[name].startswith(reason) for name, reason in reasons.items())
    lab.wait("the roll-outs have ended", lambda: len(lab.plan().json["actions"]) == len(BY_HAND))
    assert {action["name"]: action["reason"] for action in lab.plan().json["actions"]} == reasons
    lab.deploy()
    assert lab.plan("--detailed-exitcode").code == 0


def test_a_foreign_service_is_never_touched(lab: Lab) -> None:
    """A service without our labels stays as it is, and a record with its name is rejected with the reason."""
    task = {"ContainerSpec": {"Image": LOCAL_IMAGE}}
    lab.client.create_service(task, name=lab.name("theirs"))
    before = lab.inspect("theirs")["Version"]
    lab.write(lab.service("theirs"), lab.service("ours"))
    result = lab.apply("--timeout", "60")
    assert result.code == 1
    assert [r["name"] for r in result.json["rejected"]] == [lab.name("theirs")]
    assert "was not made by coreflow" in result.out
    assert lab.inspect("theirs")["Version"] == before
    assert len(lab.running("ours")) == 1
    lab.write(lab.service("ours"))
    lab.deploy()
    assert lab.inspect("theirs")["Version"] == before


def test_a_record_gone_takes_its_service_and_secret_but_no_volume(lab: Lab) -> None:
    """The service and its secret go, its volume stays; all records gone at once needs a confirmation."""
    gone = lab.service(
        "gone",
        secretBundleId="bundle",
        volumes=[{"mountPath": "/data", "driver": "local", "name": lab.name("vol")}],
    )
    lab.write(gone, lab.service("b"), lab.service("c"), **lab.secrets(KEY="value"))
    lab.deploy()
    lab.write(lab.service("b"), lab.service("c"), **lab.secrets(KEY="value"))
    lab.deploy()
    assert lab.services() == [lab.name("b"), lab.name("c")]
    assert lab.secret_names() == []
    lab.client.inspect_volume(lab.name("vol"))
    lab.write()
    refused = lab.apply("--timeout", "20")
    assert refused.code == 1
    assert lab.services() == [lab.name("b"), lab.name("c")]
    token = refused.json["refusal"]["token"]
    lab.deploy("--confirm-removal", token)
    assert lab.services() == []
    lab.wait("the volume is free", lambda: _remove_volume(lab, lab.name("vol")))


def test_a_registry_with_a_login(lab: Lab, engine_state: Path) -> None:
    """Right credentials deploy with the digest pinned, wrong ones reject, and a registry that is down breaks nothing."""
    private = os.environ["COREFLOW_TEST_PRIVATE_REGISTRY"]

    def service(tag: str, password: str) -> dict[str, Any]:
        record = lab.service("a", f"{private}/private:{tag}")
        record["data"]["registryTarget"]["registryInfo"] = {
            "serveraddress": private,
            "username": "tester",
            "password": password,
        }
        return record

    lab.write(service("1", "incorrect-horse"))
    rejected = lab.apply("--timeout", "20")
    assert rejected.code == 1
    assert "login is wrong" in rejected.out
    assert lab.services() == []
    lab.write(service("1", "correct-horse"))
    lab.deploy()
    image = lab.inspect("a")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    assert image.startswith(f"{private}/private:1@sha256:")
    version = lab.inspect("a")["Version"]
    script = Path(__file__).parents[2] / "scripts" / "engine"
    name = ["--name", os.environ["COREFLOW_TEST_ENGINE_NAME"]]
    port = private.rpartition(":")[2]
    subprocess.run([script, "registry", "stop", port, *name], check=True)
    try:
        assert lab.deploy()["outcomes"] == []
        lab.write(service("2", "correct-horse"))
        down = lab.apply("--timeout", "20")
        assert down.code == 1
        assert "does not answer" in down.out
        assert lab.inspect("a")["Version"] == version
    finally:
        subprocess.run([script, "registry", "start", port, *name], check=True)
    lab.write(service("2", "incorrect-horse"))
    assert lab.apply("--timeout", "20").code == 1
    assert lab.inspect("a")["Version"] == version
    lab.write(service("2", "correct-horse"))
    lab.deploy()
    assert f"{private}/private:2@" in lab.inspect("a")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]


def test_old_secrets_stay_while_a_roll_back_may_need_them(lab: Lab) -> None:
    """A rotated-out secret goes when neither spec names it, and a roll-back by hand finds its secret."""
    names = []
    for value in ("one", "two", "three"):
        lab.write(lab.service("a", secretBundleId="bundle"), **lab.secrets(KEY=value))
        lab.deploy()
        names.append(lab.inspect("a")["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretName"])
    assert lab.secret_names() == sorted(names[1:])
    live = lab.inspect("a")
    lab.post(
        f"/services/{live['ID']}/update?version={live['Version']['Index']}&rollback=previous", live["Spec"]
    )
    lab.wait("the roll-back has ended", lambda: lab.at_rest("a"))
    assert json.loads(lab.exec("a", "cat", "/run/secrets/secret.json")) == {"KEY": "two"}
    after = lab.apply("--timeout", "30")
    assert after.code == 1
    assert "rolled back by hand" in after.out
    assert lab.secret_names() == sorted(names[1:])


def test_an_internal_image_is_loaded_from_its_archive(lab: Lab, engine_state: Path) -> None:
    """An image that Cloudly keeps comes from the archive beside the cluster file."""
    image = f"img-{lab.prefix}"
    (lab.folder / "images").mkdir()
    for version, suffix in (("1", ".tar"), ("2", ".tar.gz")):
        (lab.folder / "images" / f"{version}{suffix}").write_bytes(
            (engine_state / "images" / f"test-{version}{suffix}").read_bytes()
        )
    record = {
        "id": image,
        "data": {
            "name": "internal",
            "location": {"internal": True},
            "versions": [
                {"versionString": "1", "storagePath": "images/1.tar", "size": 1},
                {"versionString": "2", "storagePath": "images/2.tar.gz", "size": 1},
                {"versionString": "3", "storagePath": "images/3.tar", "size": 1},
            ],
        },
    }

    def write(version: str) -> None:
        service = {"id": "id-a", "data": {"name": lab.name("a"), "imageId": image, "imageVersion": version}}
        lab.write(service, images=[record])

    for version in ("1", "2"):
        write(version)
        lab.deploy()
        assert lab.exec("a", "cat", "/version").strip() == version
    for version in ("3", "4"):
        write(version)
        result = lab.apply("--timeout", "20")
        assert result.code == 1, str(result)
        assert image in result.out
        assert lab.exec("a", "cat", "/version").strip() == "2"
    _prune(lab, image, record)


def _prune(lab: Lab, image: str, record: dict[str, Any]) -> None:
    """What a service needs stays; what nothing needs is listed first, and removed only when that is asked for."""

    def left(*options: str) -> list[str]:
        return [i["reference"] for i in lab.run(*command, "--format", "json", *options).json["images"]]

    command = ("images", "--records", str(lab.records))
    assert left() == left("--prune") == []
    lab.write(lab.service("b", scaleFactor=0), images=[record])
    lab.deploy()
    lab.wait("the containers of the old service are gone", lambda: left() == [f"{image}:1", f"{image}:2"])
    assert left() == left("--prune")
    assert left() == []
    shown = lab.run(*command)
    assert (shown.code, shown.out.strip()) == (0, "Every image is needed.")
    tags = [tag for found in lab.client.images() for tag in found["RepoTags"] or ()]
    assert LOCAL_IMAGE in tags
    assert not any(tag.startswith(image) for tag in tags)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_write_the_next_run_finishes(lab: Lab, when: When) -> None:
    """`kill -9` at each write of an apply, then apply again: the same end as without the kill. The journal has what was made."""
    state = lab.folder / "state"
    services = [lab.service("a", secretBundleId="bundle"), lab.service("b", secretBundleId="bundle")]
    lab.write(*services, **lab.secrets(KEY="value"))
    state.mkdir()
    for nth in itertools.count(1):
        with engine_proxy(lab.host, lab.folder) as proxy:
            proxy.trap = Trap(nth, when, lab.kill_last)
            environ = {"DOCKER_HOST": proxy.url, "COREFLOW_STATE_DIR": str(state / str(nth))}
            process = lab.start("apply", "--records", str(lab.records), "--timeout", "60", **environ)
            code = process.wait(timeout=90)
        told = {record.entry.name for record in read_file(state / str(nth) / FILE_NAME, Query()).records}
        assert {*lab.services(), *lab.secret_names()} <= told
        lab.deploy()
        assert lab.services() == [lab.name("a"), lab.name("b")]
        assert len(lab.secret_names()) == 2
        assert lab.apply().json["outcomes"] == []
        if code == 0:
            break
        assert code == -signal.SIGKILL
        for name in lab.services():
            lab.client.remove_service(name)
        for name in lab.secret_names():
            lab.client.remove_secret(name)
    assert nth > 4  # two secrets and two services, at least


def test_the_daemon_follows_the_file_and_the_engine(lab: Lab) -> None:
    """`coreflow run` deploys a file, follows its changes and the engine's events, and ends cleanly on SIGTERM."""
    lab.write(lab.service("a"))
    daemon = lab.start(
        "run", CLOUDLY_URL=lab.records.as_uri(), COREFLOW_INITIAL_DELAY="0", COREFLOW_LOG_FORMAT="json"
    )
    lab.wait("the service runs", lambda: lab.services() == [lab.name("a")] and lab.running("a"))
    lab.write(lab.service("a"), lab.service("b"))
    lab.wait("the file's change is followed", lambda: len(lab.services()) == 2)
    lab.wait("it runs", lambda: lab.running("b"))
    lab.change("b", _set_replicas)
    lab.wait(
        "the change by hand is repaired",
        lambda: lab.inspect("b")["Spec"]["Mode"]["Replicated"]["Replicas"] == 1,
        seconds=30,
    )
    lab.records.write_text("{ not json")
    lab.client.remove_service(lab.name("b"))
    time.sleep(2)
    assert daemon.poll() is None
    lab.write(lab.service("a"), lab.service("b"))
    lab.wait("the removed service is back", lambda: len(lab.services()) == 2)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=10) == 0
    log = [json.loads(line) for line in (lab.folder / "daemon.log").read_text().splitlines()]
    assert [line["event"] for line in log][-1] == "stopped"
    assert any(line.get("reason", "").startswith("changed by hand: replicas") for line in log)


def test_secrets_appear_nowhere(lab: Lab) -> None:
    """A canary in every secret field is in no output, log, plan or label, and only in Docker's secret."""
    canary = "canary-7f3a"
    service = lab.service("a", secretBundleId="bundle", environment={"PLAIN": f"{canary}-env"})
    bad = lab.service("bad", secretBundleId="missing", environment={"N": 3, "OK": f"{canary}-bad"})
    bad["data"]["registryTarget"]["registryInfo"] = {
        "serveraddress": "r.example.com",
        "username": "u",
        "password": f"{canary}-pw",
    }
    document = lab.write(service, bad, **lab.secrets(KEY=f"{canary}-value"))
    document["configData"]["data"] |= {
        "acmeInfo": {"serverAddress": "https://acme.example.com", "serverSecret": f"{canary}-acme"},
        "sshKeys": [{"keyName": "k", "public": "p", "private": f"{canary}-ssh"}],
    }
    document["externalRegistries"] = [
        {
            "id": "r",
            "data": {"type": "docker", "name": "r", "url": 5, "username": "u", "password": f"{canary}-reg"},
        }
    ]
    document["externalGatewayConfig"] = {"type": "dcrouter", "url": 7, "apiToken": f"{canary}-gw"}
    document["certificates"] = {
        "a.example.com": {"domainName": 1, "privateKey": f"{canary}-key", "publicKey": "x"}
    }
    document["secretGroups"].append(
        {"id": "x", "data": {"key": 1, "environments": {"production": {"value": f"{canary}-g"}}}}
    )
    lab.records.write_text(json.dumps(document))
    output = []
    for arguments in (
        ["plan"],
        ["plan", "--format", "json"],
        ["apply", "--timeout", "30"],
        ["apply", "--format", "json"],
        ["check"],
    ):
        result = lab.run(
            *arguments,
            "--records",
            str(lab.records),
            CORESTORE_API_TOKEN=f"{canary}-token",
            JUMPCODE=f"{canary}-jump",
        )
        output += [result.out, result.err]
    daemon = lab.start(
        "run", CLOUDLY_URL=lab.records.as_uri(), COREFLOW_INITIAL_DELAY="0", COREFLOW_LOG_LEVEL="debug"
    )
    lab.wait("the daemon has said something", lambda: "bad" in (lab.folder / "daemon.log").read_text())
    daemon.terminate()
    daemon.wait(timeout=10)
    output.append((lab.folder / "daemon.log").read_text())
    live = lab.inspect("a")
    output += [json.dumps(live["Spec"]["Labels"]), json.dumps(lab.client.secrets())]
    assert not [text for text in output if canary in text]
    assert json.loads(lab.exec("a", "cat", "/run/secrets/secret.json")) == {"KEY": f"{canary}-value"}


ECHOES: dict[str, Callable[[bytes], str]] = {
    "plain": lambda request: request.decode(),
    "base64": lambda request: base64.b64encode(request).decode(),
    "URL": lambda request: quote(request, safe=""),
    "JSON": lambda request: json.dumps(request.decode()),
}


@pytest.mark.parametrize("target", ["/services/create", "/secrets/create", "/distribution/"])
@pytest.mark.parametrize("spelling", ECHOES)
def test_a_proxy_that_echoes_requests(lab: Lab, spelling: str, target: str) -> None:
    """An error of the engine that quotes the whole request, in whatever spelling, is told without its secrets."""
    canary = "canary-7f3a"
    private = f"{os.environ.get('COREFLOW_TEST_PRIVATE_REGISTRY', '127.0.0.1:9')}/private:1"
    service = lab.service(
        "a",
        private if target == "/distribution/" else LOCAL_IMAGE,
        secretBundleId="bundle",
        environment={"PLAIN": f"{canary}-env", "PIN": "c4"},
        volumes=[{"mountPath": "/data", "driver": "local", "options": {"o": f"{canary}-option"}}],
    )
    service["data"]["registryTarget"]["registryInfo"] = {
        "serveraddress": private.partition("/")[0],
        "username": "u",
        "password": f"{canary}-pw",
    }
    lab.write(service, **lab.secrets(KEY=f"{canary}-value"))
    echoed: list[str] = []

    def echo(asked: str, request: bytes) -> str | None:
        if target not in asked:
            return None
        echoed.append(f"cannot do it: {ECHOES[spelling](request)}")
        return echoed[-1]

    output = []
    with engine_proxy(lab.host, lab.folder) as proxy:
        proxy.answer = echo
        for arguments in (
            ["plan"],
            ["apply", "--timeout", "1"],
            ["apply", "--timeout", "1", "--format", "json"],
        ):
            result = lab.run(*arguments, "--records", str(lab.records), DOCKER_HOST=proxy.url)
            output += [*result.out.splitlines(), *result.err.splitlines()]
    assert echoed
    seen = [view.text for text in output for view in views(text)]
    assert not [text for text in seen if canary in text or "PIN=c4" in text]
    assert max(map(len, output)) < 2000


def test_an_engine_that_is_away_is_said_in_one_line(lab: Lab) -> None:
    """No engine: one clear line, exit 1, no traceback."""
    lab.write(lab.service("a"))
    result = lab.run("apply", "--records", str(lab.records), DOCKER_HOST=f"unix://{lab.folder}/nobody.sock")
    assert result.code == 1
    assert "Traceback" not in result.err + result.out
    assert [line.partition(":")[0] for line in result.err.strip().splitlines()] == ["error", "hint"]


def test_a_malformed_file_touches_nothing(lab: Lab) -> None:
    """A file that cannot be read as a whole stops everything, with its line, and no object is touched."""
    lab.write(lab.service("a"))
    lab.deploy()
    lab.records.write_text('{"configData": {"id": "x"},\n "services": [\n  oops ]}')
    result = lab.run("apply", "--records", str(lab.records))
    assert result.code == 1
    assert "cluster.json:3" in result.err
    assert lab.services() == [lab.name("a")]
