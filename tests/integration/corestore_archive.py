"""The archive of the Corestore stand-in: snapshots of folders, in files that are called after their content.

    config.json                    what kind of archive this is
    packs/<2 digits>/<sha256>.pack the content of files, in pieces of at most 8 MiB, shared by all snapshots
    index/<2 digits>/<sha256>.json the packs of a snapshot, with their sizes
    snapshots/<id>.json            a snapshot: what it is of, its index, and every file with its packs

All there is to know of a snapshot is in these files, so a snapshot is lost with them, and back when they are.
"""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define, field

Json = dict[str, Any]
PIECE_BYTES = 8 * 1024 * 1024
READ_BYTES = 1024 * 1024


class Failure(Exception):
    """A request that cannot be met: the HTTP status and the text of the answer."""

    def __init__(self, status: int, text: str, *, raw: bool = False) -> None:
        super().__init__(text)
        self.status, self.text, self.raw = status, text, raw


def safe_path(path: str) -> str:
    """The path of an archive object, checked. Raises Failure when it is none, or leads out of the archive."""
    parts = path.split("/")
    if "\\" in path or not path.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise Failure(400, "not a path of the archive")
    return path


def replace_file(scratch: Path, place: Path, content: bytes) -> None:
    """Write a file whole or not at all; `scratch` is for what is not complete yet, on the same file system."""
    scratch.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = scratch / secrets.token_hex(8)
    draft.write_bytes(content)
    draft.replace(place)


@define(eq=False, kw_only=True)
class Tenant:
    """The database or the bucket of one service: a folder, and what it takes to get at it."""

    capability: str
    name: str
    user: str
    password: str = field(repr=False)
    folder: Path
    scratch: Path

    def keep(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        replace_file(self.scratch, self.folder / name, content)


@define(eq=False)
class Archive:
    """A folder of archive objects, and one on the same file system for what is not complete yet."""

    folder: Path
    scratch: Path
    identity: str = ""
    """What is in `config.json` beside what is the same in all archives."""
    _digests: dict[tuple[int, ...], str] = field(factory=dict)

    def digest(self, place: Path) -> str:
        """The SHA-256 of a file as it is now."""
        facts = place.stat()
        key = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if key not in self._digests:
            found = sha256()
            with place.open("rb") as file:
                while piece := file.read(READ_BYTES):
                    found.update(piece)
            self._digests[key] = found.hexdigest()
        return self._digests[key]

    def facts(self, path: str) -> Json:
        """An archive object as it is listed. Raises Failure when there is none."""
        place = self.folder / safe_path(path)
        if not place.is_file():
            raise Failure(404, f"no archive object {path}")
        return {"path": path, "size": place.stat().st_size, "sha256": self.digest(place)}

    def objects(self, snapshot_ids: Iterable[str]) -> list[Json]:
        """All objects, or those that these snapshots need as far as they are there. Raises Failure."""
        found = {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}
        ids = list(snapshot_ids)
        if ids:
            found &= {path for one in ids for path in self._needed(self.manifest(one))}
        return [self.facts(path) for path in sorted(found)]

    def manifests(self) -> list[Json]:
        """All snapshots that can be read, the oldest first."""
        found = []
        for place in (self.folder / "snapshots").glob("*.json"):
            try:
                document = json.loads(place.read_bytes())
            except ValueError:
                continue
            if isinstance(document, dict) and document.get("id") == place.stem:
                found.append(document)
        return sorted(found, key=lambda document: (document["createdAt"], document["id"]))

    def manifest(self, snapshot_id: str) -> Json:
        """A snapshot. Raises Failure when there is none."""
        for document in self.manifests():
            if document["id"] == snapshot_id:
                return document
        raise Failure(404, f"no snapshot {snapshot_id}")

    def take(self, root: Path, facts: Json) -> Json:
        """Make a snapshot of a folder, the manifest last. `facts` has everything but files, index and size."""
        self._configure()
        packs: dict[str, int] = {}
        files = [self._entry(root, path, packs) for path in _walk(root)]
        index = json.dumps({"packs": dict(sorted(packs.items()))}).encode()
        digest = sha256(index).hexdigest()
        self._keep(f"index/{digest[:2]}/{digest}.json", index)
        size = sum(entry.get("size", 0) for entry in files)
        document = {**facts, "sizeBytes": size, "index": digest, "files": files}
        self._keep(f"snapshots/{facts['id']}.json", json.dumps(document).encode())
        return document

    def check(self, document: Json) -> None:
        """See that everything a snapshot needs is there and is what it was. Raises Failure."""
        digest = document["index"]
        index = json.loads(self._content(f"index/{digest[:2]}/{digest}.json", digest, "index"))
        for pack, size in index["packs"].items():
            place = self._pack(pack)
            if not place.is_file():
                raise Failure(404, f"the archive lacks pack {pack} of snapshot {document['id']}")
            if place.stat().st_size != size or self.digest(place) != pack:
                raise Failure(500, f"pack {pack} of snapshot {document['id']} is damaged")
        wanted = {pack for entry in document["files"] for pack in entry.get("packs", ())}
        outside = any(".." in Path(e["path"]).parts or e["path"].startswith("/") for e in document["files"])
        if outside or not wanted <= index["packs"].keys():
            raise Failure(500, f"snapshot {document['id']} is damaged")

    def bring_back(self, document: Json, root: Path, *, clear: bool = True) -> None:
        """Make a folder what it was, in place. Raises Failure, before anything is touched, when the archive lacks something."""
        self.check(document)
        if clear:
            for place in root.iterdir():
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place)
                else:
                    place.unlink()
        for entry in document["files"]:
            self._write(root, entry)
        for entry in reversed(document["files"]):
            _dress(root / entry["path"], entry)

    def _configure(self) -> None:
        place = self.folder / "config.json"
        if not place.exists():
            facts = {"version": 1, "pieceBytes": PIECE_BYTES, "identity": self.identity}
            replace_file(self.scratch, place, json.dumps(facts).encode())

    def _entry(self, root: Path, path: Path, packs: dict[str, int]) -> Json:
        facts = path.lstat()
        entry: Json = {
            "path": str(path.relative_to(root)),
            "mode": stat.S_IMODE(facts.st_mode),
            "uid": facts.st_uid,
            "gid": facts.st_gid,
            "mtimeNs": facts.st_mtime_ns,
        }
        if path.is_symlink():
            return {**entry, "type": "symlink", "target": str(path.readlink())}
        if path.is_dir():
            return {**entry, "type": "directory"}
        names: list[str] = []
        size = 0
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                names.append(digest := sha256(piece).hexdigest())
                packs[digest] = len(piece)
                size += len(piece)
                if not self._pack(digest).exists():
                    self._keep(str(self._pack(digest).relative_to(self.folder)), piece)
        return {**entry, "type": "file", "size": size, "packs": names}

    def _write(self, root: Path, entry: Json) -> None:
        place = root / entry["path"]
        match entry["type"]:
            case "directory":
                place.mkdir(exist_ok=True)
            case "symlink":
                place.unlink(missing_ok=True)
                place.symlink_to(entry["target"])
            case _:
                place.unlink(missing_ok=True)
                with place.open("wb") as file:
                    for pack in entry["packs"]:
                        file.write(self._pack(pack).read_bytes())

    def _pack(self, digest: str) -> Path:
        return self.folder / "packs" / digest[:2] / f"{digest}.pack"

    def _keep(self, path: str, content: bytes) -> None:
        replace_file(self.scratch, self.folder / path, content)

    def _content(self, path: str, digest: str, what: str) -> bytes:
        place = self.folder / path
        if not place.is_file():
            raise Failure(404, f"the archive lacks {what} {digest}")
        content = place.read_bytes()
        if sha256(content).hexdigest() != digest:
            raise Failure(500, f"{what} {digest} is damaged")
        return content

    def _needed(self, document: Json) -> set[str]:
        digest = document["index"]
        packs = {pack for entry in document["files"] for pack in entry.get("packs", ())}
        return {
            "config.json",
            f"index/{digest[:2]}/{digest}.json",
            f"snapshots/{document['id']}.json",
            *(str(self._pack(pack).relative_to(self.folder)) for pack in packs),
        }


def _walk(root: Path) -> Iterator[Path]:
    """The folder itself and what is in it, folders before their content; no sockets, devices or pipes."""
    yield root
    for place in sorted(root.iterdir()):
        if place.is_dir() and not place.is_symlink():
            yield from _walk(place)
        elif place.is_symlink() or place.is_file():
            yield place


def _dress(place: Path, entry: Json) -> None:
    """Give a file its owner, its mode and its time."""
    facts = place.lstat()
    if (facts.st_uid, facts.st_gid) != (entry["uid"], entry["gid"]):
        os.chown(place, entry["uid"], entry["gid"], follow_symlinks=False)
    if entry["type"] != "symlink":
        place.chmod(entry["mode"])
    os.utime(place, ns=(facts.st_atime_ns, entry["mtimeNs"]), follow_symlinks=False)
