"""A Corestore that is real where it matters, as a program of its own: what it is told to keep, it keeps on disk.

    python -m tests.integration.corestore_server --data FOLDER --port 0 --token TOKEN [--plugin-socket SOCKET]

It has the control API, the Docker VolumeDriver plugin (named after its socket) with volumes in `FOLDER/volumes`, and
snapshots in `FOLDER/archive` (see `corestore_archive`). With `--databases` it answers MongoDB's drivers and S3's, too (see
`corestore_database`, `corestore_buckets`); without, what they would keep in `FOLDER/resources` are just folders. Killed and
started again, it goes on as before.
When it listens it prints one line of JSON with its ports.

Paths under `/_test` make it fail on purpose and tell what it was asked. Tests use `start_corestore`, which needs no more than
a nursery, or share a `running_corestore` that each of them wipes. It is written from what is known of Corestore, not from its source; its names are therefore no proof of ours.
"""

import argparse
import asyncio
import hmac
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

import trio
from aiohttp import web
from attrs import define, field
from tests.integration.corestore_archive import Archive, Failure, Json, Tenant, replace_file, safe_path

FaultKind = Literal["status", "after", "cut", "slow", "full", "flip", "hang"]
CAPABILITIES = ("database", "objectstorage")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
TRANSFER_BYTES = 1024 * 1024
PLUGIN_TYPE = "application/vnd.docker.plugins.v1.2+json"
TIMEOUT = 30.0
ROOT = Path(__file__).parents[2]
TOKEN = "corestore-canary-token"


@define(kw_only=True, eq=False)
class Fault:
    """Something that goes wrong, for the requests that it fits.

    `status`: answers so, and does nothing. `after`: does what was asked and answers `status` then; with status 0 it hangs up
    without an answer. `cut`: hangs up, and does nothing. `slow`: takes `seconds` more. `full`: the disk is full. `flip`:
    one bit of a transferred object is another one. `hang`: waits for `POST /_test/release`, with the effect to come.

    In a transfer of an archive object `cut`, `slow`, `full`, `flip` and `hang` happen after `after_bytes`. With `late`, `cut`,
    `slow` and `hang` happen between the effect and the answer. The plugin knows `status`, `cut`, `slow` and `hang`.
    """

    kind: FaultKind
    path: str = ""
    """A regular expression, searched for in the path with nothing encoded in it."""
    method: str = ""
    """None: any but PLUGIN, the method of calls to the plugin, whose path is for instance `VolumeDriver.Mount`."""
    status: int = 500
    text: str = "it went wrong"
    raw: bool = False
    """Whether the text is all there is in the answer, without JSON around it."""
    seconds: float = 0.0
    after_bytes: int = 0
    late: bool = False
    times: int | None = None
    """How often; none: until it is taken back."""

    def fits(self, method: str, path: str) -> bool:
        """Whether it is for this request."""
        wanted = self.method == method or (self.method == "" and method != "PLUGIN")
        return wanted and self.times != 0 and re.search(self.path, path) is not None


@define(eq=False)
class State:
    """What is kept beside volumes and archive: the master secret, facts of volumes, who has mounted them, tenants."""

    place: Path
    scratch: Path
    master: str = field(factory=partial(secrets.token_hex, 32), repr=False)
    volumes: dict[str, Json] = field(factory=dict)
    mounts: dict[str, dict[str, int]] = field(factory=dict)
    tenants: dict[str, list[str]] = field(factory=dict)

    def load(self) -> None:
        """Read what was kept, or keep what is new."""
        if self.place.exists():
            kept = json.loads(self.place.read_bytes())
            self.master, self.volumes = kept["master"], kept["volumes"]
            self.mounts, self.tenants = kept["mounts"], kept["tenants"]
        self.save()

    def save(self) -> None:
        """Keep it."""
        document = {
            "master": self.master,
            "volumes": self.volumes,
            "mounts": self.mounts,
            "tenants": self.tenants,
        }
        replace_file(self.scratch, self.place, json.dumps(document).encode())


class Server:
    """The control API and the volume plugin."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.data: Path = options.data.absolute()
        self.scratch = self.data / "incomplete"
        self._open()
        self.busy = asyncio.Lock()
        self.faults: list[Fault] = []
        self.requests: list[Json] = []
        self.held = 0
        self.released, self.wiped = asyncio.Event(), asyncio.Event()
        self.under_way: set[asyncio.Future[None]] = set()
        self.runner: web.AppRunner | None = None
        self.ports = {"database": options.mongo_port or 27017, "objectstorage": options.s3_port or 9000}
        self.routes: dict[tuple[str, str], Callable[[Json, Json], Awaitable[Json]]] = {
            ("GET", "/health"): self.health,
            ("POST", "/resources/provision"): self.provision,
            ("POST", "/resources/deprovision"): self.deprovision,
            ("POST", "/resources/snapshot"): self.snapshot_resources,
            ("POST", "/resources/restore"): self.restore_resource,
            ("GET", "/volumes"): self.list_volumes,
            ("POST", "/volumes/create"): self.create_volume,
            ("POST", "/volumes/remove"): self.remove_volume,
            ("POST", "/volumes/snapshot"): self.snapshot_volume,
            ("POST", "/volumes/restore"): self.restore_volume,
            ("GET", "/snapshots"): self.list_snapshots,
            ("GET", "/archive/objects"): self.list_objects,
        }

    def _open(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        for name in (self.scratch.name, "volumes", "archive", "resources"):
            (self.data / name).mkdir(parents=True, exist_ok=True)
        self.archive = Archive(self.data / "archive", self.scratch, self.options.archive_identity)
        self.state = State(self.data / "state.json", self.scratch)
        self.state.load()
        self.master: str = self.options.master_secret or self.state.master

    # --- HTTP

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request to the control API."""
        raw, _, query_text = request.raw_path.partition("?")
        path = unquote(raw)
        if path.startswith("/_test/"):
            return web.json_response(await self.test(path.removeprefix("/_test/"), request))
        ended = asyncio.get_running_loop().create_future()
        self.under_way.add(ended)
        try:
            return await self._answer(request, path, query_text)
        finally:
            self.under_way.remove(ended)
            ended.set_result(None)

    async def _answer(self, request: web.Request, path: str, query_text: str) -> web.StreamResponse:
        query = parse_qs(query_text, keep_blank_values=True)
        text = await request.text() if request.method == "POST" else ""
        seen: Json = {"method": request.method, "path": path, "query": query, "body": _json_or_none(text)}
        self.requests.append(seen)
        try:
            response = await self._respond(request, path, query, text)
        except Failure as failure:
            response = _refusal(failure)
        except OSError as error:
            response = web.json_response({"error": f"{error.strerror or error}"}, status=500)
        seen["status"] = response.status
        return response

    async def _respond(self, request: web.Request, path: str, query: Json, text: str) -> web.StreamResponse:
        method, prefix = request.method, "/archive/objects/"
        given = request.headers.get("Authorization", "")
        if path != "/health" and self.options.token and given != f"Bearer {self.options.token}":
            raise Failure(401, "unauthorized")
        fault = self._fault(method, path)
        if path.startswith(prefix) and method in ("GET", "PUT"):
            await self._before(fault, request, transfer=True)
            transfer = self.download if method == "GET" else self.upload
            return await transfer(request, path.removeprefix(prefix), fault)
        if (method, path) == ("GET", "/metrics"):
            await self._before(fault, request)
            return web.Response(text=f"corestore_volumes {len(self.state.volumes)}\n")
        route = self.routes.get((method, path))
        if route is None:
            raise Failure(404, "not found")
        body = _json_or_none(text) if method == "POST" else {}
        if not isinstance(body, dict):
            raise Failure(400, "the body is no JSON object")
        await self._before(fault, request)
        answer = await route(body, query)
        await self._after(fault, request)
        return web.json_response(answer)

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.fits(method, path):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def _before(self, fault: Fault | None, request: web.Request, *, transfer: bool = False) -> None:
        """What a fault does before the effect."""
        if fault is None or (transfer and fault.kind != "status"):
            return
        match fault.kind:
            case "status":
                raise Failure(fault.status, fault.text, raw=fault.raw)
            case "after" | "flip":
                pass
            case _ if not fault.late:
                await self._strike(fault, request)

    async def _after(self, fault: Fault | None, request: web.Request) -> None:
        """What a fault does after the effect."""
        if fault is not None and fault.kind == "after":
            if fault.status == 0:
                _hang_up(request)
            raise Failure(fault.status or 500, fault.text, raw=fault.raw)
        if fault is not None and fault.late:
            await self._strike(fault, request)

    async def _strike(self, fault: Fault, request: web.Request) -> None:
        match fault.kind:
            case "cut":
                _hang_up(request)
                raise Failure(500, "cut")
            case "slow":
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wiped.wait(), fault.seconds)
            case "full":
                raise Failure(507 if fault.status == 500 else fault.status, "no space left on device")
            case "hang":
                self.held += 1
                await self.released.wait()
                self.held -= 1

    async def _troubled(
        self, chunks: AsyncIterator[bytes], fault: Fault | None, request: web.Request
    ) -> AsyncGenerator[bytes, None]:
        """The chunks, with what a fault does to them."""
        position = 0
        pending = fault is not None and not fault.late and fault.kind not in ("status", "after")
        async for chunk in chunks:
            if fault is None or not pending or position + len(chunk) <= fault.after_bytes:
                yield chunk
            else:
                cut = fault.after_bytes - position
                if cut:
                    yield chunk[:cut]
                await self._strike(fault, request)
                flipped = chunk[cut] ^ (fault.kind == "flip")
                yield bytes((flipped,)) + chunk[cut + 1 :]
                pending = False
            position += len(chunk)
        if fault is not None and pending:
            await self._strike(fault, request)

    # --- the archive

    async def download(self, request: web.Request, path: str, fault: Fault | None) -> web.StreamResponse:
        """Send an archive object."""
        facts = await asyncio.to_thread(self.archive.facts, safe_path(path))
        await self._after(fault, request)
        response = web.StreamResponse(headers={"x-corestore-sha256": facts["sha256"]})
        response.content_type, response.content_length = "application/octet-stream", facts["size"]
        await response.prepare(request)
        async with aclosing(self._troubled(_read(self.archive.folder / path), fault, request)) as chunks:
            try:
                async for chunk in chunks:
                    await response.write(chunk)
            except Failure:
                _hang_up(request)
                return response
        await response.write_eof()
        return response

    async def upload(self, request: web.Request, path: str, fault: Fault | None) -> web.StreamResponse:
        """Take an archive object, whole and as described, or nothing."""
        place = self.archive.folder / safe_path(path)
        wanted = request.headers.get("x-corestore-sha256", "").lower()
        if re.fullmatch(r"[0-9a-f]{64}", wanted) is None:
            raise Failure(400, "x-corestore-sha256 is missing")
        if request.content_length is None:
            raise Failure(411, "Content-Length is missing")
        draft = self.scratch / secrets.token_hex(8)
        digest, size = sha256(), 0
        try:
            with draft.open("wb") as file:
                source = request.content.iter_chunked(TRANSFER_BYTES)
                async with aclosing(self._troubled(source, fault, request)) as chunks:
                    async for chunk in chunks:
                        digest.update(chunk)
                        size += len(chunk)
                        file.write(chunk)
            if digest.hexdigest() != wanted or size != request.content_length:
                raise Failure(422, "the digest does not fit")
            async with self.busy:
                status = await asyncio.to_thread(self._accept, draft, place, wanted)
        finally:
            draft.unlink(missing_ok=True)
        await self._after(fault, request)
        return web.json_response({"object": {"path": path, "size": size, "sha256": wanted}}, status=status)

    def _accept(self, draft: Path, place: Path, digest: str) -> int:
        if place.is_file():
            if self.archive.digest(place) != digest:
                raise Failure(409, "other content is there")
            return 200
        if place.is_dir() or any(parent.is_file() for parent in place.parents):
            raise Failure(409, "a file cannot be there")
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(place)
        return 201

    async def list_objects(self, _: Json, query: Json) -> Json:
        """All archive objects, or those of snapshots."""
        return {"objects": await asyncio.to_thread(self.archive.objects, query.get("snapshotId", ()))}

    async def list_snapshots(self, _: Json, query: Json) -> Json:
        """Snapshots, of a kind, a name or a service if these are asked for."""
        found = map(_snapshot_info, await asyncio.to_thread(self.archive.manifests))
        wanted = {key: query[key][0] for key in ("kind", "name", "serviceId") if key in query}
        return {"snapshots": [s for s in found if all(s.get(key) == value for key, value in wanted.items())]}

    async def _take(
        self, root: Path, kind: str, name: str, service_id: str | None, tags: Json | None
    ) -> Json:
        facts = {
            "id": f"snap-{secrets.token_hex(8)}",
            "kind": kind,
            "name": name,
            "serviceId": service_id,
            "createdAt": _now_ms(),
            "tags": tags or {},
        }
        return _snapshot_info(await asyncio.to_thread(self.archive.take, root, facts))

    async def _bring_back(self, body: Json, kind: str, root: Path) -> None:
        document = await asyncio.to_thread(self.archive.manifest, _text(body, "snapshotId"))
        if document["kind"] != kind:
            raise Failure(400, f"snapshot {document['id']} is one of {document['kind']}")
        clear = body.get("clear") is not False
        await asyncio.to_thread(self.archive.bring_back, document, root, clear=clear)

    # --- volumes

    def place(self, name: str) -> Path:
        """The folder of a volume."""
        return self.data / "volumes" / name

    def make_volume(self, name: str, facts: Json) -> None:
        """Make a volume; there already is fine."""
        if NAME.fullmatch(name) is None:
            raise Failure(400, "not a name for a volume")
        self.place(name).mkdir(exist_ok=True)
        if name not in self.state.volumes:
            self.state.volumes[name] = {"createdAt": _now_ms(), **facts}
            self.state.save()

    def drop_volume(self, name: str, *, force: bool = False) -> None:
        """Remove a volume that nobody has mounted, with what is in it."""
        self.volume(name)
        if self.state.mounts.get(name) and not force:
            raise Failure(409, "volume is in use")
        shutil.rmtree(self.place(name), ignore_errors=True)
        self.state.mounts.pop(name, None)
        del self.state.volumes[name]
        self.state.save()

    def volume(self, name: str) -> Json:
        """What is known of a volume. Raises Failure when there is none."""
        if name not in self.state.volumes:
            raise Failure(404, f"no such volume: {name}")
        facts: Json = self.state.volumes[name]
        return facts

    def _volume_info(self, name: str) -> Json:
        place = self.place(name)
        size = sum(file.lstat().st_size for file in place.rglob("*") if file.is_file())
        return {"name": name, "mountpoint": str(place), "sizeBytes": size, **self.volume(name)}

    async def list_volumes(self, _: Json, __: Json) -> Json:
        """All volumes."""
        return {"volumes": [self._volume_info(name) for name in sorted(self.state.volumes)]}

    async def create_volume(self, body: Json, _: Json) -> Json:
        """Make a volume."""
        known = ("serviceId", "mountPath", "options", "labels")
        name = _text(body, "name")
        self.make_volume(name, {key: body[key] for key in known if key in body})
        return {"volume": self._volume_info(name)}

    async def remove_volume(self, body: Json, _: Json) -> Json:
        """Remove a volume."""
        self.drop_volume(_text(body, "name"), force=body.get("force") is True)
        return {"ok": True}

    async def snapshot_volume(self, body: Json, _: Json) -> Json:
        """Take a snapshot of a volume."""
        name, tags = _text(body, "name"), body.get("tags")
        facts = self.volume(name)
        service = facts.get("serviceId") or (tags or {}).get("serviceId")
        async with self.busy:
            return {"snapshot": await self._take(self.place(name), "volume", name, service, tags)}

    async def restore_volume(self, body: Json, _: Json) -> Json:
        """Make a volume what it was."""
        name = _text(body, "name")
        self.volume(name)
        async with self.busy:
            await self._bring_back(body, "volume", self.place(name))
        return {"ok": True}

    # --- databases and object storage

    def derive(self, *of: str) -> str:
        """64 hexadecimal digits that only who knows the master secret can tell, the same each time."""
        return hmac.digest(self.master.encode(), "\0".join(of).encode(), "sha256").hex()

    def tenant(self, service_id: str, capability: str) -> Tenant:
        """What a service has or would have."""
        if capability not in CAPABILITIES:
            raise Failure(400, f"unknown capability: {capability}")
        digest = self.derive(service_id, capability)
        readable = re.sub(r"[^a-z0-9]+", "-", service_id.lower()).strip("-")[:24]
        name = f"{'db' if capability == 'database' else 'bucket'}-{readable}-{digest[:10]}"
        user = f"u{digest[10:22]}" if capability == "database" else f"AK{digest[10:28].upper()}"
        return Tenant(
            capability=capability,
            name=name,
            user=user,
            password=self.derive(service_id, capability, "secret"),
            folder=self.data / "resources" / capability / name,
            scratch=self.scratch,
        )

    def held_tenant(self, service_id: str, capability: str) -> Tenant:
        """What a service has. Raises Failure when it has not."""
        tenant = self.tenant(service_id, capability)
        if capability not in self.state.tenants.get(service_id, ()):
            raise Failure(404, f"service {service_id} has no {capability}")
        return tenant

    def find_database(self, name: str) -> Tenant | None:
        """The tenant of a database."""
        return self._find("database", lambda tenant: tenant.name == name)

    def find_bucket(self, access_key: str) -> Tenant | None:
        """The tenant who has an access key."""
        return self._find("objectstorage", lambda tenant: tenant.user == access_key)

    def _find(self, capability: str, fits: Callable[[Tenant], bool]) -> Tenant | None:
        held = (service for service, held in self.state.tenants.items() if capability in held)
        return next(filter(fits, (self.tenant(service, capability) for service in held)), None)

    def _endpoint(self, capability: str) -> str:
        scheme = "mongodb" if capability == "database" else "http"
        return f"{scheme}://{self.options.public_host}:{self.ports[capability]}"

    def _environment(self, tenant: Tenant) -> dict[str, str]:
        endpoint = self._endpoint(tenant.capability)
        if tenant.capability == "database":
            address = endpoint.removeprefix("mongodb://")
            account = f"{tenant.user}:{tenant.password}"
            return {"MONGODB_URI": f"mongodb://{account}@{address}/{tenant.name}?authSource={tenant.name}"}
        return {
            "S3_BUCKET": tenant.name,
            "AWS_ACCESS_KEY_ID": tenant.user,
            "AWS_SECRET_ACCESS_KEY": tenant.password,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": self.options.region,
        }

    def _resource_info(self, tenant: Tenant) -> Json:
        host, port = self.options.public_host, self.ports[tenant.capability]
        if tenant.capability == "database":
            return {"host": host, "port": port, "databaseName": tenant.name, "username": tenant.user}
        return {
            "endpoint": self._endpoint(tenant.capability),
            "region": self.options.region,
            "bucket": tenant.name,
            "accessKeyId": tenant.user,
        }

    async def provision(self, body: Json, _: Json) -> Json:
        """Make what a service wants; the same service gets the same again."""
        service, capabilities = _text(body, "serviceId"), _capabilities(body)
        tenants = [self.tenant(service, capability) for capability in capabilities]
        for tenant in tenants:
            tenant.folder.mkdir(parents=True, exist_ok=True)
            held = self.state.tenants.setdefault(service, [])
            if tenant.capability not in held:
                held.append(tenant.capability)
        self.state.save()
        return {
            "serviceId": service,
            "env": {name: value for tenant in tenants for name, value in self._environment(tenant).items()},
            "resources": {tenant.capability: self._resource_info(tenant) for tenant in tenants},
            "endpoints": {tenant.capability: self._endpoint(tenant.capability) for tenant in tenants},
        }

    async def deprovision(self, body: Json, _: Json) -> Json:
        """Give back what a service has, with its data."""
        service = _text(body, "serviceId")
        held = self.state.tenants.get(service, [])
        wanted = [one for one in (_capabilities(body) if "capabilities" in body else held) if one in held]
        if not wanted:
            raise Failure(404, f"unknown service: {service}")
        for capability in wanted:
            shutil.rmtree(self.tenant(service, capability).folder, ignore_errors=True)
            held.remove(capability)
        if not held:
            del self.state.tenants[service]
        self.state.save()
        return {"ok": True}

    async def snapshot_resources(self, body: Json, _: Json) -> Json:
        """Take a snapshot of each capability that a service has."""
        service = _text(body, "serviceId")
        tenants = [self.held_tenant(service, capability) for capability in _capabilities(body)]
        async with self.busy:
            taken = [
                await self._take(t.folder, t.capability, t.name, service, body.get("tags")) for t in tenants
            ]
        return {"snapshots": taken}

    async def restore_resource(self, body: Json, _: Json) -> Json:
        """Make a database or a bucket what it was."""
        tenant = self.held_tenant(_text(body, "serviceId"), _text(body, "capability"))
        async with self.busy:
            await self._bring_back(body, tenant.capability, tenant.folder)
        return {"ok": True}

    async def health(self, _: Json, __: Json) -> Json:
        """That it is there."""
        return {"ok": True, "services": {"db": True, "s3": True, "volumes": True}}

    # --- the plugin

    async def plug(self, request: web.Request) -> web.StreamResponse:
        """Answer the Docker engine."""
        body = _json_or_none(await request.text() or "{}")
        method = request.path.strip("/")
        self.requests.append({"method": "PLUGIN", "path": method, "query": {}, "body": body})
        try:
            await self._before(self._fault("PLUGIN", method), request)
            answer = self._plugged(method, body if isinstance(body, dict) else {})
        except (Failure, OSError) as error:
            answer = {"Err": str(error)}
        return web.Response(body=json.dumps({"Err": "", **answer}).encode(), content_type=PLUGIN_TYPE)

    def _plugged(self, method: str, body: Json) -> Json:
        name, mounter = str(body.get("Name", "")), str(body.get("ID", ""))
        match method:
            case "Plugin.Activate":
                return {"Implements": ["VolumeDriver"]}
            case "VolumeDriver.Capabilities":
                return {"Capabilities": {"Scope": "local"}}
            case "VolumeDriver.List":
                return {"Volumes": [self._plugged_volume(name) for name in sorted(self.state.volumes)]}
            case "VolumeDriver.Create":
                options = body.get("Opts") or {}
                known = {key: options[key] for key in ("serviceId", "mountPath") if key in options}
                self.make_volume(name, {**known, "options": options})
                return {}
            case "VolumeDriver.Remove":
                self.drop_volume(name)
                return {}
            case "VolumeDriver.Mount":
                self.volume(name)
                self.place(name).mkdir(exist_ok=True)
                mounts = self.state.mounts.setdefault(name, {})
                mounts[mounter] = mounts.get(mounter, 0) + 1
                self.state.save()
                return {"Mountpoint": str(self.place(name))}
            case "VolumeDriver.Path":
                self.volume(name)
                return {"Mountpoint": str(self.place(name))}
            case "VolumeDriver.Unmount":
                self.volume(name)
                mounts = self.state.mounts.get(name, {})
                mounts[mounter] = mounts.get(mounter, 0) - 1
                self.state.mounts[name] = {one: count for one, count in mounts.items() if count > 0}
                self.state.save()
                return {}
            case "VolumeDriver.Get":
                self.volume(name)
                return {"Volume": self._plugged_volume(name)}
            case _:
                raise Failure(404, f"not implemented: {method}")

    def _plugged_volume(self, name: str) -> Json:
        return {"Name": name, "Mountpoint": str(self.place(name)), "Status": {}}

    # --- for tests

    async def test(self, what: str, request: web.Request) -> Json:
        """What tests ask for."""
        match what:
            case "faults":
                self.faults.append(Fault(**await request.json()))
            case "reset":
                self.faults.clear()
                self.requests.clear()
            case "release":
                self.faults = [fault for fault in self.faults if fault.kind != "hang"]
                self.released.set()
                self.released = asyncio.Event()
            case "requests":
                return {"requests": self.requests, "held": self.held}
            case "wipe":
                await self.wipe(request)
            case _:
                raise web.HTTPNotFound
        return {"ok": True}

    async def wipe(self, request: web.Request) -> None:
        """Hang up on all others, wait until nothing is under way any more, and begin anew, with nothing."""
        self.faults.clear()
        self.released.set()
        self.wiped.set()
        assert self.runner is not None
        assert self.runner.server is not None
        for connection in self.runner.server.connections:
            if connection is not request.protocol and connection.transport is not None:
                connection.transport.abort()
        while self.under_way:
            await asyncio.wait(self.under_way)
        self.released, self.wiped = asyncio.Event(), asyncio.Event()
        self.requests.clear()
        shutil.rmtree(self.data)
        self._open()


def _refusal(failure: Failure) -> web.Response:
    if failure.raw:
        return web.Response(text=failure.text, status=failure.status)
    return web.json_response({"error": failure.text}, status=failure.status)


async def _read(place: Path) -> AsyncIterator[bytes]:
    with place.open("rb") as file:
        while chunk := file.read(TRANSFER_BYTES):
            yield chunk


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _text(body: Json, key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise Failure(400, f"{key} is missing")
    return value


def _capabilities(body: Json) -> list[str]:
    found = body.get("capabilities")
    if not isinstance(found, list) or not found or not set(found) <= set(CAPABILITIES):
        raise Failure(400, "unknown capability")
    return found


def _snapshot_info(document: Json) -> Json:
    known = ("id", "kind", "name", "serviceId", "createdAt", "sizeBytes", "tags")
    return {key: document[key] for key in known if document.get(key) is not None}


# --- the program


async def serve(options: argparse.Namespace) -> None:
    """Serve until the process is told to end, or whoever started it is gone."""
    server = Server(options)
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    if options.end_with_stdin:
        loop.add_reader(0, done.set)
    runners = [await _listen(server.handle, lambda r: web.TCPSite(r, options.bind, options.port))]
    server.runner = runners[0]
    if options.databases:
        from tests.integration.corestore_buckets import serve_buckets
        from tests.integration.corestore_database import serve_database

        _, port = await serve_database(server.find_database, options.bind, options.mongo_port or 0)
        server.ports["database"] = port
        runner, port = await serve_buckets(server.find_bucket, options.bind, options.s3_port or 0)
        server.ports["objectstorage"] = port
        runners.append(runner)
    if (path := options.plugin_socket) is not None:
        path.unlink(missing_ok=True)
        runners.append(await _listen(server.plug, lambda r: web.UnixSite(r, str(path))))
    ports = {"mongo": server.ports["database"], "s3": server.ports["objectstorage"]}
    sys.stdout.write(json.dumps({"port": runners[0].addresses[0][1], **ports}) + "\n")
    sys.stdout.flush()
    await done.wait()
    for runner in runners:
        await runner.cleanup()
    if path is not None:
        path.unlink(missing_ok=True)


async def _listen(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    place: Callable[[web.AppRunner], web.BaseSite],
) -> web.AppRunner:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, read_bufsize=TRANSFER_BYTES)
    await runner.setup()
    await place(runner).start()
    return runner


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="A stand-in for Corestore.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default="")
    parser.add_argument("--plugin-socket", type=Path)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--public-host", default="127.0.0.1")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--databases", action="store_true", help="have databases and buckets")
    parser.add_argument("--master-secret", default="", help="what credentials are derived from")
    parser.add_argument(
        "--archive-identity", default="", help="what makes its config.json another than others'"
    )
    parser.add_argument("--mongo-port", type=int)
    parser.add_argument("--s3-port", type=int)
    parser.add_argument("--end-with-stdin", action="store_true")
    asyncio.run(serve(parser.parse_args()))


# --- the helper for tests


@define(eq=False)
class CorestoreServer:
    """A server that runs as a process, as a test sees it."""

    data: Path
    token: str = field(repr=False)
    plugin_socket: Path | None
    options: tuple[str, ...]
    port: int = 0
    ports: dict[str, int] = field(factory=dict)
    _nursery: trio.Nursery | None = field(kw_only=True, default=None)
    _process: trio.Process | None = None

    @property
    def url(self) -> str:
        """The address of the control API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def archive(self) -> Path:
        """The folder of archive objects."""
        return self.data / "archive"

    def volume_dir(self, name: str) -> Path:
        """The folder that is mounted as this volume."""
        return self.data / "volumes" / name

    def resource_dir(self, capability: str) -> Path:
        """Where the data of databases (`database`) or buckets (`objectstorage`) are, a folder for each."""
        return self.data / "resources" / capability

    async def fault(self, *, kind: FaultKind, path: str = "", **facts: Any) -> None:
        """Have something go wrong from now on; see `Fault`."""
        status, _ = await self.ask("POST", "/_test/faults", {"kind": kind, "path": path, **facts})
        assert status == 200, "no such fault"

    async def reset(self) -> None:
        """No more faults, and forget about the requests."""
        await self.ask("POST", "/_test/reset")

    async def wipe(self) -> None:
        """Make it what it is when it is new: no data, other credentials, no faults, no requests, none under way either.

        Not for one with databases or a plugin, whose connections stay.
        """
        status, _ = await self.ask("POST", "/_test/wipe")
        assert status == 200, "what was there before is not gone"

    async def requests(self, path: str = "") -> list[Json]:
        """Those that came in since it started (`method`, `path`, `query`, `body`, `status` if answered), by part of the path.

        Calls of the plugin have the method PLUGIN.
        """
        return await trio.to_thread.run_sync(self.requests_now, path, abandon_on_cancel=True)

    def requests_now(self, path: str = "") -> list[Json]:
        """The same, for who does not wait in trio."""
        _, answer = self._ask("GET", "/_test/requests", None, {})
        return [request for request in answer["requests"] if path in request["path"]]

    async def hanging(self, count: int = 1) -> None:
        """Wait until that many requests hang."""
        with trio.fail_after(TIMEOUT):
            while (await self.ask("GET", "/_test/requests"))[1]["held"] < count:  # noqa: ASYNC110 - another process
                await trio.sleep(0.02)

    async def release(self) -> None:
        """Let go of what hangs, and hold nothing any more."""
        await self.ask("POST", "/_test/release")

    async def ask(
        self, method: str, path: str, body: Json | bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Ask the server itself, with the token; returns status and answer. Status 0: it hung up without one."""
        return await trio.to_thread.run_sync(
            partial(self._ask, method, path, body, headers), abandon_on_cancel=True
        )

    def kill(self) -> None:
        """End it without a goodbye."""
        assert self._process is not None
        self._process.kill()

    async def restart(self) -> None:
        """Start it again, on the same ports; ends it without a goodbye where it runs."""
        assert self._nursery is not None, "others use it, too"
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
        await self._nursery.start(self._live)

    def _ask(
        self, method: str, path: str, body: Json | bytes | None, headers: dict[str, str]
    ) -> tuple[int, Any]:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/octet-stream",
            **headers,
        }
        request = urllib.request.Request(self.url + path, content, sent, method=method)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310 - our own
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        except (urllib.error.URLError, ConnectionError, http.client.HTTPException):
            return 0, None
        found = _json_or_none(content.decode(errors="replace"))
        return status, content if found is None else found

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "tests.integration.corestore_server", "--end-with-stdin"]
        command += ["--data", str(self.data), "--port", str(self.port), *self.options]
        if self.plugin_socket is not None:
            command += ["--plugin-socket", str(self.plugin_socket)]
        for name, port in self.ports.items():
            command += [f"--{name}-port", str(port)]
        return [*command, "--token", self.token]

    def _listens(self, line: bytes) -> None:
        assert line.endswith(b"\n"), "the Corestore stand-in did not start"
        self.ports = json.loads(line)
        self.port = self.ports.pop("port")

    async def _live(self, *, task_status: trio.TaskStatus[None]) -> None:
        process = await trio.lowlevel.open_process(
            self._command(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with trio.fail_after(TIMEOUT):
                line = b""
                while not line.endswith(b"\n") and (chunk := await process.stdout.receive_some()):
                    line += chunk
            self._listens(line)
            task_status.started()
            await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdin.aclose()
                await process.stdout.aclose()
            if self.plugin_socket is not None and self._process is process:
                self.plugin_socket.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def running_corestore(
    folder: Path, *, token: str = TOKEN, plugin_socket: Path | None = None
) -> Iterator[CorestoreServer]:
    """A server for many tests, one after another, which is neither killed nor started again; each begins with `wipe`."""
    server = CorestoreServer(folder, token, plugin_socket, ())
    with subprocess.Popen(
        server._command(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
    ) as process:
        try:
            assert process.stdout is not None
            server._listens(process.stdout.readline())
            yield server
        finally:
            process.kill()


async def start_corestore(
    nursery: trio.Nursery,
    folder: Path,
    *,
    token: str = TOKEN,
    plugin_socket: Path | None = None,
    databases: bool = False,
    options: tuple[str, ...] = (),
) -> CorestoreServer:
    """Start a server that ends with the nursery. What it keeps is in `folder`; options are those of the program."""
    options = ("--databases", *options) if databases else options
    server = CorestoreServer(folder, token, plugin_socket, options, nursery=nursery)
    await nursery.start(server._live)
    return server


if __name__ == "__main__":
    main()
