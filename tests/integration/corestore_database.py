"""The database of the Corestore stand-in: MongoDB's wire protocol in front of mongomock, one folder for a database.

What is sent is decided by MongoDB's own driver, and what queries and updates mean by mongomock; in between, this has the
framing, SCRAM-SHA-256, and the commands of `COMMANDS`. A collection is a file as `mongodump` writes it; every command reads
it anew, so a folder that was brought back counts at once. No cursors: whatever is found comes in one batch. No indexes.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import bson
import mongomock
from attrs import define, field
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError
from tests.integration.corestore_archive import Json, Tenant

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
ROUNDS = 4096
MOST_BYTES = 48_000_000
Find = Callable[[str], Tenant | None]
"""The tenant of a database, by the name of the database."""


class CommandError(Exception):
    """A command that cannot be met: MongoDB's code and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@define(eq=False)
class Table:
    """A collection, read from its file."""

    tenant: Tenant
    name: str
    content: Collection[Json] = field(init=False)

    def __attrs_post_init__(self) -> None:
        client: MongoClient[Json] = mongomock.MongoClient()
        self.content = client["database"][self.name]
        if self.place.exists() and (documents := bson.decode_all(self.place.read_bytes())):
            self.content.insert_many(documents)

    @property
    def place(self) -> Path:
        """The file."""
        return self.tenant.folder / f"{quote(self.name, safe='')}.bson"

    def save(self) -> None:
        """Write it back, if it is not what it was."""
        content = b"".join(bson.encode(document) for document in self.content.find())
        if not self.place.exists() or self.place.read_bytes() != content:
            self.tenant.keep(self.place.name, content)


def _insert(table: Table, command: Json) -> Json:
    count, errors = 0, []
    for number, document in enumerate(command["documents"]):
        try:
            table.content.insert_one(document)
            count += 1
        except PyMongoError as error:
            errors.append({"index": number, "code": 11000, "errmsg": str(error)})
            if command.get("ordered", True):
                break
    return {"n": count, **({"writeErrors": errors} if errors else {})}


def _update(table: Table, command: Json) -> Json:
    matched = modified = 0
    upserted = []
    for number, one in enumerate(command["updates"]):
        query, change, upsert = one["q"], one["u"], one.get("upsert", False)
        if isinstance(change, dict) and not any(key.startswith("$") for key in change):
            result = table.content.replace_one(query, change, upsert=upsert)
        elif one.get("multi"):
            result = table.content.update_many(query, change, upsert=upsert)
        else:
            result = table.content.update_one(query, change, upsert=upsert)
        matched += result.matched_count
        modified += result.modified_count or 0
        if result.upserted_id is not None:
            matched += 1
            upserted.append({"index": number, "_id": result.upserted_id})
    return {"n": matched, "nModified": modified, **({"upserted": upserted} if upserted else {})}


def _delete(table: Table, command: Json) -> Json:
    count = 0
    for one in command["deletes"]:
        delete = table.content.delete_one if one["limit"] else table.content.delete_many
        count += delete(one["q"]).deleted_count
    return {"n": count}


def _find(table: Table, command: Json) -> Json:
    found = table.content.find(command.get("filter", {}), command.get("projection") or None)
    if command.get("sort"):
        found = found.sort(list(command["sort"].items()))
    found = found.skip(command.get("skip", 0)).limit(abs(command.get("limit", 0)))
    return _batch(command, table.name, list(found))


def _aggregate(table: Table, command: Json) -> Json:
    return _batch(command, table.name, list(table.content.aggregate(command["pipeline"])))


def _drop(table: Table, _: Json) -> Json:
    if not table.place.exists():
        raise CommandError(26, "ns not found")
    table.content.delete_many({})
    table.place.unlink()
    return {}


COMMANDS: dict[str, Callable[[Table, Json], Json]] = {
    "insert": _insert,
    "update": _update,
    "delete": _delete,
    "find": _find,
    "aggregate": _aggregate,
    "drop": _drop,
}
WRITES = frozenset(("insert", "update", "delete"))


def _batch(command: Json, name: str, documents: list[Json]) -> Json:
    return {"cursor": {"id": bson.Int64(0), "ns": f"{command['$db']}.{name}", "firstBatch": documents}}


@define(eq=False)
class Session:
    """One connection: who has proved to be whom."""

    find: Find
    tenant: Tenant | None = None
    _claimed: Tenant | None = None
    _first: str = ""

    def run(self, command: Json) -> Json:
        """Do what a command says. Raises CommandError."""
        name = next(iter(command))
        match name.lower():
            case "hello" | "ismaster":
                return _hello(command)
            case "ping" | "endsessions":
                return {}
            case "buildinfo":
                return {"version": "7.0.0", "versionArray": [7, 0, 0, 0]}
            case "saslstart":
                return self._start(command)
            case "saslcontinue":
                return self._prove(command)
        if self.tenant is None or command["$db"] != self.tenant.name:
            raise CommandError(13, f"not authorized on {command['$db']} to execute command {name}")
        if self.find(self.tenant.name) is None:
            raise CommandError(13, "the account is gone")
        if name == "listCollections":
            names = sorted(unquote(place.stem) for place in self.tenant.folder.glob("*.bson"))
            return _batch(command, "$cmd.listCollections", [{"name": n, "type": "collection"} for n in names])
        if name not in COMMANDS:
            raise CommandError(59, f"no such command: '{name}'")
        table = Table(self.tenant, command[name])
        answer = COMMANDS[name](table, command)
        if name in WRITES:
            table.save()
        return answer

    def _start(self, command: Json) -> Json:
        if command["mechanism"] != "SCRAM-SHA-256":
            raise CommandError(2, "SCRAM-SHA-256 only")
        self.tenant = None
        bare = bytes(command["payload"]).decode().removeprefix("n,,")
        facts = dict(part.split("=", 1) for part in bare.split(","))
        tenant = self.find(command["$db"])
        self._claimed = tenant if tenant is not None and tenant.user == facts["n"] else None
        salt = base64.b64encode(hashlib.sha256(command["$db"].encode()).digest()[:16]).decode()
        answer = f"r={facts['r']}{secrets.token_hex(12)},s={salt},i={ROUNDS}"
        self._first = f"{bare},{answer}"
        return {"conversationId": 1, "done": False, "payload": answer.encode()}

    def _prove(self, command: Json) -> Json:
        final, _, proof = bytes(command["payload"]).decode().rpartition(",p=")
        facts = dict(part.split("=", 1) for part in self._first.split(","))
        tenant, self._claimed = self._claimed, None
        if tenant is None or final != f"c=biws,r={facts['r']}":
            raise CommandError(18, "Authentication failed.")
        salted = hashlib.pbkdf2_hmac("sha256", tenant.password.encode(), base64.b64decode(facts["s"]), ROUNDS)
        message = f"{self._first},{final}".encode()
        key = _digest(salted, b"Client Key")
        signature = _digest(hashlib.sha256(key).digest(), message)
        wanted = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        if not hmac.compare_digest(wanted, base64.b64decode(proof)):
            raise CommandError(18, "Authentication failed.")
        self.tenant = tenant
        ours = base64.b64encode(_digest(_digest(salted, b"Server Key"), message))
        return {"conversationId": 1, "done": True, "payload": b"v=" + ours}


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _hello(command: Json) -> Json:
    offered = {"saslSupportedMechs": ["SCRAM-SHA-256"]} if "saslSupportedMechs" in command else {}
    return {
        "helloOk": True,
        "ismaster": True,
        "isWritablePrimary": True,
        "maxBsonObjectSize": 16_777_216,
        "maxMessageSizeBytes": MOST_BYTES,
        "maxWriteBatchSize": 100_000,
        "minWireVersion": 0,
        "maxWireVersion": 21,
        "readOnly": False,
        **offered,
    }


def _command_of(message: bytes) -> Json:
    """The command in an OP_MSG, with the documents of its sections."""
    (flags,) = struct.unpack_from("<I", message)
    end, position = len(message) - 4 * (flags & 1), 4
    command: Json = {}
    while position < end:
        kind = message[position]
        (size,) = struct.unpack_from("<i", message, position + 1)
        section = message[position + 1 : position + 1 + size]
        if kind == 0:
            command = {**bson.decode(section), **command}
        else:
            name, _, documents = section[4:].partition(b"\0")
            command[name.decode()] = bson.decode_all(documents)
        position += 1 + size
    return command


def _in_order(command: Json) -> Json:
    """The command with its name first, where a section came before it."""
    names = [name for name in command if name not in ("documents", "updates", "deletes")]
    return {name: command[name] for name in (*names, *command.keys() - set(names))}


def _answer(session: Session, command: Json) -> Json:
    try:
        return {**session.run(_in_order(command)), "ok": 1.0}
    except CommandError as error:
        return {"ok": 0.0, "code": error.code, "errmsg": str(error)}
    except (PyMongoError, NotImplementedError, KeyError, ValueError, OSError) as error:
        return {"ok": 0.0, "code": 1, "errmsg": f"{type(error).__name__}: {error}"}


async def serve_database(find: Find, host: str, port: int) -> tuple[asyncio.Server, int]:
    """Serve until the server is closed; returns the port, too."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(find)
        try:
            while True:
                length, number, _, kind = struct.unpack("<iiii", await reader.readexactly(16))
                if not 16 < length <= MOST_BYTES:
                    break
                message = await reader.readexactly(length - 16)
                if kind == OP_MSG:
                    (flags,) = struct.unpack_from("<I", message)
                    answer = _answer(session, _command_of(message))
                    reply, silent = struct.pack("<IB", 0, 0) + bson.encode(answer), bool(flags & 2)
                elif kind == OP_QUERY:
                    kind, silent = OP_REPLY, False
                    start = message.index(b"\0", 4) + 9
                    command = bson.decode(message[start:])
                    answer = _answer(session, {**command, "$db": command.get("$db", "admin")})
                    reply = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(answer)
                else:
                    break
                if not silent:
                    writer.write(struct.pack("<iiii", 16 + len(reply), 1, number, kind) + reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, host, port)
    found: int = server.sockets[0].getsockname()[1]
    return server, found
