"""A Docker volume plugin with real directories, as Corestore has one: enough of the VolumeDriver protocol to mount.

Run it as a program: `python volume_plugin.py SOCKET FOLDER`. Requests that create volumes are written to
`FOLDER/created.jsonl`, so that a test can see the options that reached the driver.
"""

import json
import shutil
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class Driver:
    """Volumes as folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, dict[str, str]] = {}

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One call of the protocol."""
        name = body.get("Name", "")
        place = self.folder / "volumes" / name
        match method:
            case "Plugin.Activate":
                return {"Implements": ["VolumeDriver"]}
            case "VolumeDriver.Capabilities":
                return {"Capabilities": {"Scope": "local"}}
            case "VolumeDriver.Create":
                place.mkdir(parents=True, exist_ok=True)
                self.known[name] = body.get("Opts") or {}
                with (self.folder / "created.jsonl").open("a") as log:
                    log.write(json.dumps(body) + "\n")
                return {"Err": ""}
            case "VolumeDriver.Remove":
                shutil.rmtree(place, ignore_errors=True)
                self.known.pop(name, None)
                return {"Err": ""}
            case "VolumeDriver.Mount" | "VolumeDriver.Path":
                return {"Mountpoint": str(place), "Err": ""}
            case "VolumeDriver.Unmount":
                return {"Err": ""}
            case "VolumeDriver.Get":
                if name not in self.known:
                    return {"Err": "no such volume"}
                return {"Volume": {"Name": name, "Mountpoint": str(place)}, "Err": ""}
            case "VolumeDriver.List":
                return {"Volumes": [{"Name": n} for n in self.known], "Err": ""}
            case _:
                return {"Err": f"not implemented: {method}"}


def serve(socket_path: Path, folder: Path) -> None:
    """Serve until the process ends."""
    driver = Driver(folder)
    folder.mkdir(parents=True, exist_ok=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            answer = json.dumps(driver.answer(self.path.strip("/"), json.loads(raw or b"{}"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    socket_path.unlink(missing_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(socket_path), Handler) as server:
        server.daemon_threads = True
        server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
