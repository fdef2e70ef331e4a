"""The object storage of the Corestore stand-in: of the S3 API what it takes to write, read, list and delete objects.

Requests have to be signed (AWS Signature Version 4, in the header) with the key of a tenant, who can reach the bucket of that
name and no other. An object is a file in the folder of the bucket, called after its key. No uploads in parts.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

from aiohttp import web
from tests.integration.corestore_archive import Tenant

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/s3/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
SKEW = timedelta(minutes=15)
NAME_BYTES = 250
Find = Callable[[str], Tenant | None]
"""The tenant who has an access key."""


class S3Error(Exception):
    """A request that cannot be met: the HTTP status and S3's word for it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


def signature_of(
    secret: str, method: str, raw_path: str, headers: dict[str, str], *, stamp: str, scope: str, payload: str
) -> str:
    """The signature that a request has to have; `headers` are the signed ones, in order."""
    path, _, query = raw_path.partition("?")
    pairs = [
        f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}"
        for k, v in sorted(parse_qsl(query, keep_blank_values=True))
    ]
    lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in headers.items())
    canonical = "\n".join((method, path, "&".join(pairs), lines, ";".join(headers), payload))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()


def _tenant_of(request: web.Request, find: Find, body: bytes) -> Tenant:
    """Whose request it is. Raises S3Error when nobody's."""
    found = AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if found is None:
        raise S3Error(403, "AccessDenied")
    tenant = find(found["key"])
    if tenant is None:
        raise S3Error(403, "InvalidAccessKeyId")
    stamp, payload = (
        request.headers.get("x-amz-date", ""),
        request.headers.get("x-amz-content-sha256", ""),
    )
    try:
        made = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise S3Error(403, "AccessDenied") from None
    if abs(datetime.now(UTC) - made) > SKEW:  # noqa: TID251 - the clock is what is checked
        raise S3Error(403, "RequestTimeTooSkewed")
    headers = {name: request.headers.get(name, "") for name in found["headers"].split(";")}
    scope = f"{found['day']}/{found['region']}/s3/aws4_request"
    wanted = signature_of(
        tenant.password, request.method, request.raw_path, headers, stamp=stamp, scope=scope, payload=payload
    )
    if not hmac.compare_digest(wanted, found["signature"]) or not {"host", "x-amz-date"} <= headers.keys():
        raise S3Error(403, "SignatureDoesNotMatch")
    if payload != "UNSIGNED-PAYLOAD" and payload != hashlib.sha256(body).hexdigest():
        raise S3Error(400, "XAmzContentSHA256Mismatch")
    return tenant


def _answer(request: web.Request, find: Find, body: bytes) -> web.Response:
    tenant = _tenant_of(request, find, body)
    path, _, query_text = request.raw_path.partition("?")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    query = dict(parse_qsl(query_text, keep_blank_values=True))
    if bucket != tenant.name:
        raise S3Error(403, "AccessDenied")
    if key:
        return _object(request, tenant, key, query, body)
    match request.method:
        case "HEAD":
            return web.Response()
        case "PUT":
            raise S3Error(409, "BucketAlreadyOwnedByYou")
        case "GET" if "location" in query:
            return _xml('<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>')
        case "GET" if query.get("list-type") == "2":
            return _list(tenant, query)
    raise S3Error(501, "NotImplemented")


def _object(
    request: web.Request, tenant: Tenant, key: str, query: dict[str, str], body: bytes
) -> web.Response:
    name = quote(key, safe="")
    if len(name) > NAME_BYTES or key in (".", ".."):
        raise S3Error(400, "KeyTooLongError")
    place = tenant.folder / name
    match request.method:
        case "PUT" if not query and "x-amz-copy-source" not in request.headers:
            tenant.keep(name, body)
            return web.Response(headers={"ETag": _tag(place)})
        case "GET" | "HEAD" if not query:
            if not place.is_file():
                raise S3Error(404, "NoSuchKey")
            facts = {"ETag": _tag(place), "Last-Modified": formatdate(place.stat().st_mtime, usegmt=True)}
            return web.Response(
                body=place.read_bytes(), headers=facts, content_type="application/octet-stream"
            )
        case "DELETE" if not query:
            place.unlink(missing_ok=True)
            return web.Response(status=204)
    raise S3Error(501, "NotImplemented")


def _list(tenant: Tenant, query: dict[str, str]) -> web.Response:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    keys, groups = [], set()
    for key in sorted(unquote(place.name) for place in tenant.folder.iterdir()):
        rest = key.removeprefix(prefix)
        if not key.startswith(prefix):
            continue
        if delimiter and delimiter in rest:
            groups.add(prefix + rest.partition(delimiter)[0] + delimiter)
        else:
            keys.append(key)
    lines = []
    for key in keys:
        place = tenant.folder / quote(key, safe="")
        when = datetime.fromtimestamp(place.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        lines.append(
            f"<Contents><Key>{_named(key, query)}</Key><LastModified>{when}</LastModified><ETag>{_tag(place)}</ETag>"
            f"<Size>{place.stat().st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    lines += [f"<CommonPrefixes><Prefix>{_named(g, query)}</Prefix></CommonPrefixes>" for g in sorted(groups)]
    encoding = "<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else ""
    return _xml(
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{tenant.name}</Name><Prefix>{_named(prefix, query)}</Prefix>{encoding}"
        f"<KeyCount>{len(lines)}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>"
        f"{''.join(lines)}</ListBucketResult>"
    )


def _named(key: str, query: dict[str, str]) -> str:
    return escape(quote(key) if query.get("encoding-type") == "url" else key)


def _tag(place: Path) -> str:
    return f'"{hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest()}"'


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(
        text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', status=status, content_type="application/xml"
    )


async def serve_buckets(find: Find, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve until the runner is cleaned up; returns the port, too."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            return _answer(request, find, body)
        except S3Error as error:
            return _xml(
                f"<Error><Code>{error.code}</Code><Message>{error.code}</Message></Error>", error.status
            )

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    found: int = runner.addresses[0][1]
    return runner, found
