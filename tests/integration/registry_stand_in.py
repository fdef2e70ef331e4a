"""A registry that misbehaves on purpose, by the name of the repository. It runs inside a node, and needs nothing but Python.

`scripts/engine exec 1 python3 registry_stand_in.py [CERTIFICATE KEY]` says its ports in one line of JSON, and ends with its
standard input. The ports differ in what the registry wants before it says anything: nothing (`open`), a password (`basic`),
a token (`bearer`), or TLS with a certificate that nobody trusts (`tls`). With a password, `who:why` is right.
"""

import base64
import hashlib
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
USER, PASSWORD = "who", "why"
TOKEN = "let-me-in"
PAGE = "<html><head><title>nothing here</title></head><body>a page of something else</body></html>"
ERROR_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}

JSON_ERRORS = {
    "limited": (429, "You have reached your pull rate limit."),
    "broken": (500, "the storage is gone"),
    "down": (503, "come back later"),
    "missing": (404, "manifest unknown"),
    "denied": (403, "requested access to the resource is denied"),
    "mixed": (401, "authentication required"),
}
PAGES = {"page403": 403, "page404": 404, "page429": 429, "page502": 502, "page503": 503, "page504": 504}
PLATFORMS = {
    "arm": ["linux/arm64"],
    "arm32": ["linux/arm"],
    "multi": ["linux/amd64", "linux/arm64", "unknown/unknown"],
    "none": [],
}


def index(platforms: list[str]) -> bytes:
    """The index of an image for these platforms, whose manifests nobody has."""
    manifests = []
    for platform in platforms:
        system, _, architecture = platform.partition("/")
        digest = "sha256:" + hashlib.sha256(platform.encode()).hexdigest()
        manifests.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "size": 500,
                "digest": digest,
                "platform": {"os": system, "architecture": architecture},
            }
        )
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    wants: str
    port_of_tokens: int

    def log_message(self, *_: object) -> None:
        """Silence."""

    def answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, message: str, **headers: str) -> None:
        """Send an error as registries do."""
        code = ERROR_CODES.get(status, "UNKNOWN")
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.answer(status, body, **headers)

    def do_HEAD(self) -> None:
        """As GET."""
        self.do_GET()

    def do_GET(self) -> None:
        """Whatever it is."""
        url = urlsplit(self.path)
        if url.path == "/token":
            self.token(parse_qs(url.query).get("scope", [""])[0])
        elif not self.may_pass(url.path):
            self.error(401, "authentication required", WWW_Authenticate=self.challenge(url.path))
        elif url.path == "/v2/":
            self.answer(200, b"{}")
        else:
            self.repository(url.path.split("/")[2])

    def may_pass(self, path: str) -> bool:
        """Whether the request carries what this port wants."""
        given = self.headers.get("Authorization", "")
        if self.wants == "basic":
            return given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return self.wants != "bearer" or (given == f"Bearer {TOKEN}" and "/token-useless/" not in path)

    def challenge(self, path: str) -> str:
        """What is wanted."""
        if self.wants == "basic":
            return 'Basic realm="stand-in"'
        parts = path.split("/")
        scope = f',scope="repository:{parts[2]}:pull"' if len(parts) > 3 else ""
        return f'Bearer realm="http://127.0.0.1:{self.port_of_tokens}/token",service="stand-in"{scope}'

    def token(self, scope: str) -> None:
        """The token server."""
        if "token-broken" in scope:
            self.answer(500, b"oops", "text/plain")
        elif "token-page" in scope:
            self.answer(502, PAGE.encode(), "text/html")
        elif "token-denied" in scope:
            self.error(401, "incorrect username or password")
        elif "token-limited" in scope:
            self.error(429, "slow down")
        else:
            self.answer(200, json.dumps({"token": TOKEN}).encode())

    def repository(self, name: str) -> None:
        """What is said of an image."""
        if name in JSON_ERRORS:
            status, message = JSON_ERRORS[name]
            self.error(status, message, **({"Retry_After": "60"} if status == 429 else {}))
        elif name in PAGES:
            self.answer(PAGES[name], PAGE.encode(), "text/html")
        elif name == "text404":
            self.answer(404, b"404 page not found\n", "text/plain")
        elif name == "odd":
            self.answer(200, b"{}", "application/octet-stream")
        elif name == "portal":
            self.answer(200, PAGE.encode(), "text/html")
        elif name == "silent":
            self.close_connection = True
        elif name == "slow":
            time.sleep(3600)
        else:
            body = index(PLATFORMS.get(name, PLATFORMS["multi"]))
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            self.answer(200, body, INDEX, Docker_Content_Digest=digest)


class Server(ThreadingHTTPServer):
    """One face of the registry. Connections that break are no news."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing."""


def serve(wants: str, port_of_tokens: int = 0, certificate: tuple[str, str] | None = None) -> int:
    """Serve in the background; the port."""
    handler = type("H", (Handler,), {"wants": wants, "port_of_tokens": port_of_tokens})
    server = Server(("0.0.0.0", 0), handler)  # noqa: S104 - inside a node, for its own engine
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def main() -> None:
    """Serve until the standard input ends."""
    ports = {"open": serve("nothing")}
    ports["basic"] = serve("basic")
    ports["bearer"] = serve("bearer", ports["open"])
    if len(sys.argv) == 3:
        ports["tls"] = serve("nothing", certificate=(sys.argv[1], sys.argv[2]))
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
