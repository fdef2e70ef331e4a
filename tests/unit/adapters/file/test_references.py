"""Values that are elsewhere: in files, in the environment, and in files that are encrypted."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from coreflow.adapters.file import AgeIdentity, FileCloudly
from coreflow.domain.errors import Unavailable
from coreflow.domain.records.models import Records

PEM = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"


def cluster(**members: object) -> dict[str, Any]:
    """A cluster file with one service, as a document."""
    service = {
        "id": "svc-shop",
        "data": {"name": "shop", "registryTarget": {"imageUrl": "x.example.com/a:1"}},
    }
    return {"configData": {"id": "lake", "data": {"name": "lake"}}, "services": [service], **members}


def with_environment(**environment: object) -> dict[str, Any]:
    """The same, with variables."""
    document = cluster()
    document["services"][0]["data"]["environment"] = environment
    return document


def source(
    folder: Path, document: object, environ: Mapping[str, str] | None = None, **options: Any
) -> FileCloudly:
    """Write a cluster file; what reads it."""
    path = folder / "cluster.yaml"
    path.write_text(json.dumps(document))
    return FileCloudly(path, environ=environ or {}, poll_seconds=0.01, **options)


def environment(records: Records) -> Mapping[str, str]:
    """The variables of the one service."""
    (service,) = records.services
    return service.environment


async def test_files_and_variables(tmp_path: Path) -> None:
    """A reference is replaced wherever a record wants a text. One line break at the end is the editor's."""
    (tmp_path / "token").write_text("from-a-file\n")
    (tmp_path / "key.pem").write_text(f"{PEM}\n")
    document = with_environment(TOKEN={"fromFile": "token"}, USER={"fromEnv": "NAME"}, PLAIN="text")
    document["certificates"] = {
        "a.example.com": {
            "domainName": "a.example.com",
            "privateKey": {"fromFile": "./key.pem"},
            "publicKey": "p",
        }
    }
    document["secretGroups"] = [
        {"id": "g", "data": {"key": "K", "environments": {"production": {"value": {"fromFile": "token"}}}}}
    ]
    document["externalRegistries"] = [
        {"id": "r", "url": "x", "username": "u", "password": {"fromEnv": "NAME"}}
    ]
    records = await source(tmp_path, document, {"NAME": "from-the-environment"}).records()
    assert records.rejected == ()
    assert records.unknown == ()
    assert environment(records) == {"TOKEN": "from-a-file", "USER": "from-the-environment", "PLAIN": "text"}
    assert records.certificates["a.example.com"].private_key == PEM
    (group,) = records.secret_groups.values()
    assert group.environments["production"].value == "from-a-file"
    (registry,) = records.external_registries.values()
    assert registry.password == "from-the-environment"


async def test_a_variable_may_have_such_a_name(tmp_path: Path) -> None:
    """Only where a text belongs is a mapping a reference."""
    (tmp_path / "x").write_text("content")
    records = await source(tmp_path, with_environment(fromFile="x")).records()
    assert environment(records) == {"fromFile": "x"}


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"fromFile": "canary"}, "fromFile names a file that cannot be read: No such file or directory"),
        ({"fromFile": "."}, "fromFile names a file that cannot be read: Is a directory"),
        (
            {"fromFile": "../canary"},
            "fromFile leads out of the cluster file's folder; only /run/secrets may be",
        ),
        ({"fromFile": "/etc/hostname"}, "fromFile leads out of the cluster file's folder"),
        ({"fromFile": "link"}, "fromFile leads out of the cluster file's folder"),
        ({"fromFile": "binary"}, "fromFile names a file that is not text in UTF-8"),
        ({"fromFile": "a\0b"}, "fromFile is not a usable path"),
        ({"fromFile": "sealed.age"}, "fromFile names an encrypted file that cannot be opened: no identity"),
        ({"fromEnv": "CANARY"}, "fromEnv names a variable that is not set"),
        ({"fromFile": "x", "fromEnv": "y"}, "expected text, got a mapping"),
        ({"fromFile": 3}, "expected text, got a mapping"),
        ({"fromfile": "x"}, "expected text, got a mapping"),
    ],
)
async def test_a_reference_that_leads_nowhere(tmp_path: Path, reference: object, reason: str) -> None:
    """Its record is rejected, with the place of the reference and without what it says: that may be the secret itself."""
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "sealed.age").write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/hostname")
    document = with_environment(TOKEN=reference)
    document["services"].append({"id": "other", "name": "other"})
    records = await source(tmp_path, document).records()
    assert [service.id for service in records.services] == ["other"]
    (rejected,) = records.rejected
    (text,) = rejected.reasons
    assert reason in text
    assert f"@ $.services[0].data.environment.TOKEN ({tmp_path}/cluster.yaml:" in text
    assert "canary" not in text.lower()


async def test_secrets_of_docker_are_elsewhere(tmp_path: Path) -> None:
    """An absolute path leads to where Docker puts secrets, and stays there."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "token").write_text("a-secret")
    document = with_environment(A={"fromFile": f"{secrets}/token"})
    folder = tmp_path / "records"
    folder.mkdir()
    assert environment(await source(folder, document, secrets=secrets).records()) == {"A": "a-secret"}
    out = with_environment(A={"fromFile": f"{secrets}/../records/cluster.yaml"})
    assert (await source(folder, out, secrets=secrets).records()).services == ()


async def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    """What a reference names is watched as the cluster file is; unchanged content gives the very same records."""
    token = tmp_path / "token"
    token.write_text("one")
    cloudly = source(tmp_path, with_environment(A={"fromFile": "token"}, B={"fromFile": "later"}))
    first = await cloudly.records()
    assert first.services == ()  # one of the two is not there
    async with cloudly.changes() as changes:
        (tmp_path / "later").write_text("here")
        with trio.fail_after(5):
            await anext(aiter(changes))
    second = await cloudly.records()
    assert environment(second) == {"A": "one", "B": "here"}
    assert await cloudly.records() is second
    async with cloudly.changes() as changes:
        token.write_text("two!")
        with trio.fail_after(5):
            await anext(aiter(changes))
    assert environment(await cloudly.records()) == {"A": "two!", "B": "here"}


async def test_a_file_that_changes_between_its_reading_and_the_next_look_is_noticed(tmp_path: Path) -> None:
    """Watching begins before the first reading: a file that only a record names is watched from its reading on."""
    token = tmp_path / "token"
    token.write_text("one")
    cloudly = source(tmp_path, with_environment(A={"fromFile": "token"}))
    async with cloudly.changes() as changes:
        assert environment(await cloudly.records()) == {"A": "one"}
        token.write_text("two!")  # no look has seen it yet
        with trio.fail_after(5):
            await anext(aiter(changes))
    assert environment(await cloudly.records()) == {"A": "two!"}
    token.write_text("three")
    async with cloudly.changes() as changes:  # what changed since the last reading is a change, too
        with trio.fail_after(5):
            await anext(aiter(changes))


async def test_records_of_before_stay_the_same_objects(tmp_path: Path) -> None:
    """A changed file behind a reference makes its own record new, and no other."""
    (tmp_path / "token").write_text("one")
    document = with_environment(A={"fromFile": "token"})
    document["services"].append({"id": "other", "name": "other"})
    cloudly = source(tmp_path, document)
    first = await cloudly.records()
    (tmp_path / "token").write_text("two")
    second = await cloudly.records()
    assert second.services[0] is not first.services[0]
    assert second.services[1] is first.services[1]


# age


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two identities of age, made by its own program if there is one, and by the library otherwise."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        if shutil.which("age-keygen"):
            subprocess.run(["age-keygen", "-o", str(folder / name)], check=True, capture_output=True)
        else:
            pyrage = pytest.importorskip("pyrage")
            identity = pyrage.x25519.Identity.generate()
            (folder / name).write_text(f"# public key: {identity.to_public()}\n{identity}\n")
    return folder


def sealed(data: bytes, identity: Path) -> bytes:
    """What age makes of this, for the owner of an identity."""
    recipient = identity.read_text().partition("public key: ")[2].split()[0]
    if shutil.which("age"):
        return subprocess.run(["age", "-r", recipient], input=data, check=True, capture_output=True).stdout
    pyrage = pytest.importorskip("pyrage")
    made: bytes = pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(recipient)])
    return made


@pytest.mark.parametrize("by", ["text", "file"])
async def test_encrypted_values_and_files(tmp_path: Path, keys: Path, by: str) -> None:
    """A value, a file of a folder, and a whole cluster file may be encrypted."""
    ours = keys / "ours"
    identity = AgeIdentity(ours.read_text()) if by == "text" else AgeIdentity(path=ours)
    (tmp_path / "token.age").write_bytes(sealed(b"from-age\n", ours))
    document = with_environment(A={"fromFile": "token.age"})
    assert environment(await source(tmp_path, document, identity=identity).records()) == {"A": "from-age"}
    whole = tmp_path / "whole.yaml.age"
    whole.write_bytes(sealed(json.dumps(document).encode(), ours))
    assert environment(await FileCloudly(whole, identity=identity).records()) == {"A": "from-age"}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.yaml").write_text(json.dumps(cluster()))
    group = {"id": "g", "data": {"key": "K", "environments": {"production": {"value": "v"}}}}
    (folder / "secrets.yaml.age").write_bytes(sealed(json.dumps({"secretGroups": [group]}).encode(), ours))
    records = await FileCloudly(folder, identity=identity).records()
    assert [group.key for group in records.secret_groups.values()] == ["K"]


async def test_files_that_cannot_be_opened(tmp_path: Path, keys: Path) -> None:
    """It is said why, and nothing of what is in them; the records stay as they were."""
    path = tmp_path / "cluster.yaml.age"
    path.write_bytes(sealed(json.dumps(cluster()).encode(), keys / "ours"))
    junk = tmp_path / "junk"
    junk.write_text("AGE-SECRET-KEY-1CANARY")
    for identity, reason in (
        (None, "no identity: set COREFLOW_AGE_IDENTITY_FILE"),
        (AgeIdentity(path=keys / "other"), "it is not encrypted for this identity, or it is damaged"),
        (AgeIdentity(path=tmp_path / "gone"), "cannot be read: No such file or directory"),
        (AgeIdentity("nothing"), "the identity has no line that begins with AGE-SECRET-KEY-1"),
        (AgeIdentity(path=junk), "the identity is none that age made"),
    ):
        with pytest.raises(Unavailable, match=reason) as caught:
            await FileCloudly(path, identity=identity).records()
        assert str(path) in str(caught.value)
        assert "CANARY" not in str(caught.value)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Unavailable, match="it is damaged"):
        await FileCloudly(path, identity=AgeIdentity(path=keys / "ours")).records()


async def test_another_identity_is_noticed(tmp_path: Path, keys: Path) -> None:
    """The identity's file is watched, too."""
    identity = tmp_path / "identity"
    shutil.copy(keys / "other", identity)
    path = tmp_path / "cluster.yaml.age"
    path.write_bytes(sealed(json.dumps(cluster()).encode(), keys / "ours"))
    cloudly = FileCloudly(path, identity=AgeIdentity(path=identity), poll_seconds=0.01)
    with pytest.raises(Unavailable):
        await cloudly.records()
    async with cloudly.changes() as changes:
        shutil.copy(keys / "ours", identity)
        with trio.fail_after(5):
            await anext(aiter(changes))
    assert len((await cloudly.records()).services) == 1
