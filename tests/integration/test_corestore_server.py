"""The Corestore stand-in is honest: what it says it keeps, it keeps, and what it has lost it does not have."""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import minio
import pymongo
import pymongo.errors
import pytest
import trio
from tests.integration.corestore_server import CorestoreServer, running_corestore, start_corestore

Json = dict[str, Any]


@pytest.fixture
async def server(nursery: trio.Nursery, tmp_path: Path) -> CorestoreServer:
    """One with nothing in it, to be killed and started again."""
    return await start_corestore(nursery, tmp_path / "corestore")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CorestoreServer]:
    """One that tests share."""
    with running_corestore(tmp_path_factory.mktemp("corestore") / "data") as server:
        yield server


@pytest.fixture
async def shared(running: CorestoreServer) -> CorestoreServer:
    """The same, with nothing in it."""
    await running.wipe()
    return running


async def post(server: CorestoreServer, path: str, **body: object) -> Json:
    """The answer to a request that works."""
    status, answer = await server.ask("POST", path, body)
    assert status == 200, answer
    assert isinstance(answer, dict)
    return answer


def fill(root: Path) -> None:
    """A folder with everything that a snapshot has to keep."""
    (root / "deep" / "empty").mkdir(parents=True)
    (root / "deep" / "big").write_bytes(os.urandom(9 * 1024 * 1024))
    (root / "deep" / "none").touch()
    (root / "secret").write_text("s")
    (root / "secret").chmod(0o600)
    (root / "program").write_text("#!/bin/sh\n")
    (root / "program").chmod(0o4755)
    (root / "link").symlink_to("deep/big")
    (root / "nowhere").symlink_to("/no/such/place")
    (root / os.fsdecode(b"na\xffme")).write_text("not UTF-8")
    (root / "deep").chmod(0o1777)
    if os.getuid() == 0:
        os.chown(root / "secret", 1234, 2345)
        os.chown(root, 999, 999)
    os.utime(root / "program", ns=(1, 1_000_000_007))


def picture(root: Path) -> dict[str, object]:
    """Everything about a folder that a restore has to bring back."""
    found: dict[str, object] = {}
    for place in (root, *root.rglob("*")):
        facts = place.lstat()
        content: object = None
        if place.is_symlink():
            content = place.readlink()
        elif place.is_file():
            content = hashlib.sha256(place.read_bytes()).hexdigest()
        found[str(place.relative_to(root))] = (facts.st_mode, facts.st_uid, facts.st_gid, content)
        if not place.is_symlink():
            found[f"{place.relative_to(root)} time"] = facts.st_mtime_ns
    return found


async def make(server: CorestoreServer, name: str = "data") -> Path:
    """A volume that is filled."""
    await post(server, "/volumes/create", name=name, serviceId="s", mountPath="/data")
    fill(server.volume_dir(name))
    return server.volume_dir(name)


async def test_a_restored_volume_is_what_it_was(server: CorestoreServer) -> None:
    """With modes, owners, times, links and odd names; in place, and without what came later."""
    root = await make(server)
    before, inode = picture(root), root.stat().st_ino
    taken = (await post(server, "/volumes/snapshot", name="data", tags={"backupId": "b"}))["snapshot"]
    assert (taken["kind"], taken["serviceId"], taken["tags"]) == ("volume", "s", {"backupId": "b"})
    (root / "later").mkdir()
    (root / "later" / "file").touch()
    (root / "link").unlink()
    shutil.rmtree(root / "deep")
    (root / "deep").write_text("a file now")
    (root / "secret").chmod(0o644)
    assert picture(root) != before
    await server.restart()
    await post(server, "/volumes/restore", name="data", snapshotId=taken["id"])
    assert picture(root) == before
    assert root.stat().st_ino == inode


async def test_packs_are_shared(shared: CorestoreServer) -> None:
    """A second snapshot of the same content adds its manifest alone."""
    root = await make(shared)
    first = (await post(shared, "/volumes/snapshot", name="data"))["snapshot"]["id"]
    before = {obj["path"] for obj in (await shared.ask("GET", "/archive/objects"))[1]["objects"]}
    second = (await post(shared, "/volumes/snapshot", name="data"))["snapshot"]["id"]
    after = {obj["path"] for obj in (await shared.ask("GET", "/archive/objects"))[1]["objects"]}
    assert after - before == {f"snapshots/{second}.json"}
    (root / "new").write_text("new")
    await post(shared, "/volumes/snapshot", name="data")
    _, listed = await shared.ask("GET", f"/archive/objects?snapshotId={first}")
    assert {obj["path"] for obj in listed["objects"]} == before


async def test_a_lost_archive_is_brought_back_by_uploads(shared: CorestoreServer) -> None:
    """Lost with its files, and back with them."""
    root = await make(shared)
    before = picture(root)
    snapshot = (await post(shared, "/volumes/snapshot", name="data"))["snapshot"]
    _, listed = await shared.ask("GET", f"/archive/objects?snapshotId={snapshot['id']}")
    contents = {obj["path"]: (shared.archive / obj["path"]).read_bytes() for obj in listed["objects"]}
    for obj in listed["objects"]:
        status, content = await shared.ask("GET", f"/archive/objects/{quote(obj['path'], safe='')}")
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        assert status == 200
        assert contents[obj["path"]] == content
        assert hashlib.sha256(content).hexdigest() == obj["sha256"]
    shutil.rmtree(shared.archive)
    shared.archive.mkdir()
    (root / "later").touch()
    assert (await shared.ask("GET", "/snapshots"))[1] == {"snapshots": []}
    wanted = {"name": "data", "snapshotId": snapshot["id"]}
    assert (await shared.ask("POST", "/volumes/restore", wanted))[0] == 404
    for path, content in sorted(contents.items(), key=lambda item: item[0].startswith("packs/")):
        assert (root / "later").exists()
        assert (await shared.ask("POST", "/volumes/restore", wanted))[0] == 404
        assert await put(shared, path, content) == 201
        assert await put(shared, path, content) == 200
    assert (await shared.ask("GET", "/snapshots"))[1] == {"snapshots": [snapshot]}
    await post(shared, "/volumes/restore", **wanted)
    assert picture(root) == before


async def put(server: CorestoreServer, path: str, content: bytes, digest: str | None = None) -> int:
    """Upload an archive object; returns the status."""
    digest = hashlib.sha256(content).hexdigest() if digest is None else digest
    place = f"/archive/objects/{quote(path, safe='')}"
    status, _ = await server.ask("PUT", place, content, **{"x-corestore-sha256": digest})
    return status


async def test_a_damaged_archive_touches_nothing(shared: CorestoreServer) -> None:
    """One flipped bit, and the restore is refused before it begins."""
    root = await make(shared)
    taken = (await post(shared, "/volumes/snapshot", name="data"))["snapshot"]["id"]
    pack = max((shared.archive / "packs").rglob("*.pack"), key=lambda place: place.stat().st_size)
    content = pack.read_bytes()
    pack.write_bytes(bytes((content[0] ^ 1,)) + content[1:])
    (root / "later").touch()
    before = picture(root)
    status, answer = await shared.ask("POST", "/volumes/restore", {"name": "data", "snapshotId": taken})
    assert (status, "damaged" in answer["error"]) == (500, True)
    assert picture(root) == before
    assert await put(shared, str(pack.relative_to(shared.archive)), content) == 409
    pack.unlink()
    assert await put(shared, str(pack.relative_to(shared.archive)), content) == 201
    await post(shared, "/volumes/restore", name="data", snapshotId=taken)
    assert not (root / "later").exists()


async def test_uploads_are_whole_or_nothing(shared: CorestoreServer) -> None:
    """Wrong digests, other content, paths that lead elsewhere, a connection that breaks, a full disk."""
    assert await put(shared, "packs/a.pack", b"one", "0" * 64) == 422
    assert await put(shared, "packs/a.pack", b"one", "") == 400
    assert await put(shared, "packs/a.pack", b"one") == 201
    assert await put(shared, "packs/a.pack", b"two") == 409
    assert await put(shared, "packs/a.pack/b", b"two") == 409
    for path in ("../outside", "packs/../../outside", "/etc/outside", "a\\b", "a//b", "a\nb", ""):
        assert await put(shared, path, b"two") in (400, 404), path
    await shared.fault(kind="full", path="packs/b", after_bytes=2)
    assert await put(shared, "packs/b.pack", b"four") == 507
    await shared.fault(kind="flip", path="packs/c", after_bytes=2)
    assert await put(shared, "packs/c.pack", b"four") == 422
    await shared.fault(kind="cut", path="packs/d", after_bytes=2)
    assert await put(shared, "packs/d.pack", b"four") == 0
    stream = await trio.open_tcp_stream("127.0.0.1", shared.port)
    head = f"PUT /archive/objects/packs%2Fe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.token}\r\n"
    await stream.send_all(f"{head}Content-Length: 9\r\nx-corestore-sha256: {'0' * 64}\r\n\r\nfour".encode())
    await stream.aclose()
    _, listed = await shared.ask("GET", "/archive/objects")
    assert [obj["path"] for obj in listed["objects"]] == ["packs/a.pack"]
    with trio.fail_after(20):
        while any((shared.data / "incomplete").iterdir()):  # noqa: ASYNC110 - another process
            await trio.sleep(0.02)
    assert not (shared.data.parent / "outside").exists()


async def test_a_token_is_needed(shared: CorestoreServer) -> None:
    """For all but health; no answer and no record has it."""
    ask = partial(shared.ask, Authorization="Bearer another")
    assert (await ask("GET", "/health"))[0] == 200
    for method, path in (
        ("GET", "/volumes"),
        ("POST", "/resources/provision"),
        ("GET", "/archive/objects/a"),
    ):
        answer = await ask(method, path, {} if method == "POST" else None)
        assert answer == (401, {"error": "unauthorized"})
    assert shared.token not in str(await shared.requests())


async def test_credentials_stay_the_same(
    server: CorestoreServer, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Whatever happens to the process; another Corestore has others."""
    wanted = {"serviceId": "s", "capabilities": ["database", "objectstorage"]}
    before = await post(server, "/resources/provision", **wanted)
    assert before["env"].keys() == {
        "MONGODB_URI",
        "S3_BUCKET",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    }
    await server.restart()
    assert await post(server, "/resources/provision", **wanted) == before
    other = await start_corestore(nursery, tmp_path / "other")
    env = (await post(other, "/resources/provision", **wanted))["env"]
    assert env["AWS_SECRET_ACCESS_KEY"] != before["env"]["AWS_SECRET_ACCESS_KEY"]
    assert (await server.ask("POST", "/resources/deprovision", {"serviceId": "s"}))[0] == 200
    assert (await server.ask("POST", "/resources/deprovision", {"serviceId": "s"}))[0] == 404


async def test_faults(shared: CorestoreServer, nursery: trio.Nursery) -> None:
    """Before and after the effect, for as often as said; what hangs goes on when it is let go."""
    await shared.fault(kind="status", path="/volumes/create", status=503, times=1)
    await shared.fault(kind="after", path="/volumes/create", times=1)
    create = {"name": "one"}
    assert (await shared.ask("POST", "/volumes/create", create))[0] == 503
    assert (await shared.ask("GET", "/volumes"))[1] == {"volumes": []}
    assert (await shared.ask("POST", "/volumes/create", create))[0] == 500
    assert [volume["name"] for volume in (await shared.ask("GET", "/volumes"))[1]["volumes"]] == ["one"]
    await shared.fault(kind="after", path="/volumes/create", status=0, times=1)
    assert (await shared.ask("POST", "/volumes/create", {"name": "two"}))[0] == 0
    assert len((await shared.ask("GET", "/volumes"))[1]["volumes"]) == 2

    await shared.fault(kind="hang", path="/volumes/create")
    nursery.start_soon(shared.ask, "POST", "/volumes/create", {"name": "three"})
    await shared.hanging()
    assert not shared.volume_dir("three").exists()
    await shared.release()
    with trio.fail_after(20):
        while not shared.volume_dir("three").exists():  # noqa: ASYNC110 - another process
            await trio.sleep(0.02)
    await shared.fault(kind="hang", path="/volumes/create", late=True)
    nursery.start_soon(shared.ask, "POST", "/volumes/create", {"name": "four"})
    await shared.hanging()
    assert shared.volume_dir("four").exists()
    await shared.release()
    seen = await shared.requests("/volumes/create")
    assert [request["body"]["name"] for request in seen] == ["one", "one", "two", "three", "four"]
    await shared.fault(kind="status", path="/volumes$", status=404, text="no such page", raw=True)
    assert await shared.ask("GET", "/volumes") == (404, b"no such page")
    await shared.reset()
    assert await shared.requests() == []


async def test_a_wipe(shared: CorestoreServer) -> None:
    """Nothing is left of what it was told, nor of what is under way, and it is another Corestore."""
    wanted = {"serviceId": "s", "capabilities": ["objectstorage"]}
    before = await post(shared, "/resources/provision", **wanted)
    await make(shared)
    await post(shared, "/volumes/snapshot", name="data")
    await shared.fault(kind="hang", path="/volumes/create", times=1)
    await shared.fault(kind="hang", path="/volumes/create", late=True, times=1)
    await shared.fault(kind="slow", path="/snapshots", seconds=3600)
    answers = []

    async def ask(method: str, path: str, body: Json | None = None) -> None:
        answers.append(await shared.ask(method, path, body))

    head = f"PUT /archive/objects/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.token}\r\n"
    async with trio.open_nursery() as nursery, await trio.open_tcp_stream("127.0.0.1", shared.port) as stream:
        nursery.start_soon(ask, "POST", "/volumes/create", {"name": "one"})
        nursery.start_soon(ask, "POST", "/volumes/create", {"name": "two"})
        nursery.start_soon(ask, "GET", "/snapshots")
        await stream.send_all(
            f"{head}Content-Length: 9\r\nx-corestore-sha256: {'0' * 64}\r\n\r\nfour".encode()
        )
        await shared.hanging(2)
        with trio.fail_after(20):
            while not (any((shared.data / "incomplete").iterdir()) and await shared.requests("/snapshots")):  # noqa: ASYNC110 - another process
                await trio.sleep(0.02)
        await shared.wipe()
        assert await shared.requests() == []
        assert not any((shared.data / "incomplete").iterdir())
    assert answers == [(0, None)] * 3
    for path, kind in (("/volumes", "volumes"), ("/snapshots", "snapshots"), ("/archive/objects", "objects")):
        assert await shared.ask("GET", path) == (200, {kind: []})
    assert not any(shared.resource_dir("objectstorage").glob("*"))
    await post(shared, "/volumes/create", name="one")
    after = await post(shared, "/resources/provision", **wanted)
    assert after["env"]["AWS_SECRET_ACCESS_KEY"] != before["env"]["AWS_SECRET_ACCESS_KEY"]


async def test_the_database(nursery: trio.Nursery, tmp_path: Path) -> None:
    """MongoDB's driver writes and reads with what was provisioned; nothing else lets it in; snapshots hold the data."""
    server = await start_corestore(nursery, tmp_path / "corestore", databases=True)
    wanted = {"serviceId": "s", "capabilities": ["database"]}
    uri = (await post(server, "/resources/provision", **wanted))["env"]["MONGODB_URI"]
    await trio.to_thread.run_sync(write_documents, uri)
    taken = (await post(server, "/resources/snapshot", **wanted))["snapshots"][0]
    assert (taken["kind"], taken["serviceId"]) == ("database", "s")
    await trio.to_thread.run_sync(spoil_documents, uri)
    await server.restart()
    await post(server, "/resources/restore", serviceId="s", capability="database", snapshotId=taken["id"])
    await trio.to_thread.run_sync(find_documents, uri)

    other = await post(server, "/resources/provision", serviceId="t", capabilities=["database"])
    foreign = urlsplit(other["env"]["MONGODB_URI"])
    parts = urlsplit(uri)
    address = f"{parts.hostname}:{parts.port}"
    for wrong in (
        f"mongodb://{address}{parts.path}",
        f"mongodb://{parts.username}:wrong@{address}{parts.path}?{parts.query}",
        f"mongodb://{foreign.username}:{foreign.password}@{address}{parts.path}?{parts.query}",
        f"mongodb://{foreign.username}:{foreign.password}@{address}{parts.path}?{foreign.query}",
    ):
        await trio.to_thread.run_sync(not_let_in, wrong)
    await post(server, "/resources/deprovision", serviceId="s")
    await trio.to_thread.run_sync(not_let_in, uri)


def write_documents(uri: str) -> None:
    """What a workload does."""
    with pymongo.MongoClient[Json](uri, serverSelectionTimeoutMS=5000) as client:
        table = client.get_default_database()["orders"]
        table.insert_many([{"_id": number, "tags": ["a", {"b": number}]} for number in range(100)])
        assert table.update_many({"_id": {"$lt": 10}}, {"$set": {"old": True}}).modified_count == 10
        assert table.delete_one({"_id": 99}).deleted_count == 1
        with pytest.raises(pymongo.errors.DuplicateKeyError):
            table.insert_one({"_id": 1})
        assert client.get_default_database().list_collection_names() == ["orders"]


def spoil_documents(uri: str) -> None:
    """What a restore has to undo."""
    with pymongo.MongoClient[Json](uri, serverSelectionTimeoutMS=5000) as client:
        client.get_default_database()["orders"].drop()
        client.get_default_database()["later"].insert_one({"later": True})


def find_documents(uri: str) -> None:
    """That everything is as `write_documents` left it."""
    with pymongo.MongoClient[Json](uri, serverSelectionTimeoutMS=5000) as client:
        database = client.get_default_database()
        assert database.list_collection_names() == ["orders"]
        assert database["orders"].count_documents({}) == 99
        assert database["orders"].count_documents({"old": True}) == 10
        assert database["orders"].find_one({"_id": 50}) == {"_id": 50, "tags": ["a", {"b": 50}]}
        assert [d["_id"] for d in database["orders"].find().sort("_id", -1).limit(2)] == [98, 97]


def not_let_in(uri: str) -> None:
    """That nothing can be had so."""
    with (
        pymongo.MongoClient[Json](uri, serverSelectionTimeoutMS=5000) as client,
        pytest.raises(pymongo.errors.OperationFailure, match=r"uthoriz|uthentication"),
    ):
        client.get_default_database()["orders"].find_one()


async def test_object_storage(nursery: trio.Nursery, tmp_path: Path) -> None:
    """An S3 client writes and reads with what was provisioned, and only its own bucket; snapshots hold the objects."""
    server = await start_corestore(nursery, tmp_path / "corestore", databases=True)
    wanted = {"serviceId": "s", "capabilities": ["objectstorage"]}
    env = (await post(server, "/resources/provision", **wanted))["env"]
    await trio.to_thread.run_sync(write_objects, env)
    taken = (await post(server, "/resources/snapshot", **wanted))["snapshots"][0]
    await trio.to_thread.run_sync(spoil_objects, env)
    await server.restart()
    await post(
        server, "/resources/restore", serviceId="s", capability="objectstorage", snapshotId=taken["id"]
    )
    await trio.to_thread.run_sync(find_objects, env)

    other = await post(server, "/resources/provision", serviceId="t", capabilities=["objectstorage"])
    foreign = {**other["env"], "S3_BUCKET": env["S3_BUCKET"]}
    await trio.to_thread.run_sync(refused, foreign, "AccessDenied")
    await trio.to_thread.run_sync(refused, {**env, "AWS_SECRET_ACCESS_KEY": "x"}, "SignatureDoesNotMatch")
    await trio.to_thread.run_sync(refused, {**env, "AWS_ACCESS_KEY_ID": "x"}, "InvalidAccessKeyId")


@pytest.mark.engine
async def test_the_plugin(
    nursery: trio.Nursery, tmp_path: Path, engine_host: str, engine_state: Path
) -> None:
    """A real engine mounts its volumes, and a container sees what a restore does; killed, it still knows who has mounted."""

    async def docker(*command: str) -> str:
        done = await trio.run_process(["docker", "-H", engine_host, *command], capture_stdout=True)
        return done.stdout.decode().strip()

    driver = f"corestore-{os.getpid()}-{time.monotonic_ns()}"
    socket = engine_state / "node1" / "run" / "docker" / "plugins" / f"{driver}.sock"
    server = await start_corestore(nursery, tmp_path / "corestore", plugin_socket=socket)
    volume, container = f"{driver}-volume", f"{driver}-container"
    await docker("volume", "create", "-d", driver, "-o", "serviceId=s", "-o", "backup=true", volume)
    try:
        mount = ("--mount", f"type=volume,src={volume},dst=/data,volume-driver={driver}")
        await docker("run", "--detach", "--name", container, *mount, "coreflow/test:1")
        await docker("exec", container, "sh", "-c", "echo before >/data/file; chmod 751 /data")
        assert (server.volume_dir(volume) / "file").read_text() == "before\n"
        (listed,) = (await server.ask("GET", "/volumes"))[1]["volumes"]
        assert (listed["name"], listed["serviceId"]) == (volume, "s")
        assert listed["options"] == {"serviceId": "s", "backup": "true"}
        taken = (await post(server, "/volumes/snapshot", name=volume))["snapshot"]["id"]
        await docker(
            "exec", container, "sh", "-c", "echo after >/data/file; touch /data/more; chmod 700 /data"
        )
        await server.restart()
        assert (await server.ask("POST", "/volumes/remove", {"name": volume}))[0] == 409
        await post(server, "/volumes/restore", name=volume, snapshotId=taken)
        seen = await docker("exec", container, "sh", "-c", "ls /data; cat /data/file; stat -c %a /data")
        assert seen.split() == ["file", "before", "751"]
    finally:
        with trio.CancelScope(shield=True):
            await docker("rm", "--force", container)
            await docker("volume", "rm", volume)
    assert (await server.ask("GET", "/volumes"))[1] == {"volumes": []}
    assert not server.volume_dir(volume).exists()
    plugged = [call["path"] for call in await server.requests() if call["method"] == "PLUGIN"]
    assert {"VolumeDriver.Unmount", "VolumeDriver.Remove"} <= set(plugged)


OBJECTS = {"plain": b"one", "folder/ü &+ %2F?.bin": os.urandom(3_000_000), "folder/empty": b""}


def bucket_client(env: dict[str, str]) -> minio.Minio:
    """A client with a workload's environment."""
    place = urlsplit(env["AWS_ENDPOINT_URL"])
    return minio.Minio(
        endpoint=place.netloc,
        access_key=env["AWS_ACCESS_KEY_ID"],
        secret_key=env["AWS_SECRET_ACCESS_KEY"],
        region=env["AWS_REGION"],
        secure=False,
    )


def write_objects(env: dict[str, str]) -> None:
    """What a workload does."""
    client = bucket_client(env)
    assert client.bucket_exists(bucket_name=env["S3_BUCKET"])
    for key, content in OBJECTS.items():
        client.put_object(env["S3_BUCKET"], key, io.BytesIO(content), len(content))
    find_objects(env)
    listed = client.list_objects(env["S3_BUCKET"])
    assert [found.object_name for found in listed] == ["plain", "folder/"]


def spoil_objects(env: dict[str, str]) -> None:
    """What a restore has to undo."""
    client = bucket_client(env)
    client.remove_object(env["S3_BUCKET"], "plain")
    client.put_object(env["S3_BUCKET"], "folder/empty", io.BytesIO(b"no more"), 7)
    client.put_object(env["S3_BUCKET"], "later", io.BytesIO(b"later"), 5)


def find_objects(env: dict[str, str]) -> None:
    """That everything is as `write_objects` left it."""
    client = bucket_client(env)
    listed = client.list_objects(env["S3_BUCKET"], recursive=True)
    assert {found.object_name: found.size for found in listed} == {k: len(v) for k, v in OBJECTS.items()}
    for key, content in OBJECTS.items():
        response = client.get_object(env["S3_BUCKET"], key)
        assert response.read() == content
        response.close()
        response.release_conn()


def refused(env: dict[str, str], code: str) -> None:
    """That nothing can be had so."""
    with pytest.raises(minio.S3Error) as caught:
        bucket_client(env).get_object(env["S3_BUCKET"], "plain")
    assert caught.value.code == code
