"""Daemons that run for a while on one Swarm: each with an engine socket, a log and records of its own, and a watch over tasks."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import docker.errors
from attrs import define, field
from tests.integration.engine_proxy import EngineProxy, engine_proxy
from tests.integration.lab import Json, Lab, Result, open_lab

IS_LONG = os.environ.get("COREFLOW_SOAK", "") not in {"", "0"}
"""Whether to run as long as the acceptance says, and not as long as CI can wait."""


def span(short: float, long: float) -> float:
    """Seconds, or whatever else there is more of in a long run."""
    return long if IS_LONG else short


@define
class Side:
    """One daemon, or one that could be started, with what it wrote to the engine and to its log."""

    lab: Lab
    """What it is started with; the cluster is the one of all sides."""
    proxy: EngineProxy
    records: Path
    """The cluster file that it reads."""
    process: "subprocess.Popen[str] | None" = None

    def start(self, **extra: str) -> None:
        """Start the daemon on the records of this side; the log goes on where it was."""
        settings = {
            "CLOUDLY_URL": self.records.as_uri(),
            "DOCKER_HOST": self.proxy.url,
            "COREFLOW_INITIAL_DELAY": "0",
            "COREFLOW_LOG_FORMAT": "json",
            **extra,
        }
        self.process = self.lab.start("run", **settings)

    def stop(self) -> None:
        """End the daemon as an operator does; it has ten seconds, and status 0."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=10) == 0, self.tail()

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def apply(self, *options: str) -> Result:
        """Run `coreflow apply` through this side's socket."""
        return self.lab.apply(*options, DOCKER_HOST=self.proxy.url)

    def log(self, event: str | None = None, **facts: object) -> list[Json]:
        """The lines of the log so far, or those of one event with these facts."""
        path = self.lab.folder / "daemon.log"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if event in (None, line["event"]) and facts.items() <= line.items()]

    def warnings(self) -> list[Json]:
        """What the log warns of."""
        return [line for line in self.log() if line["level"] in ("warning", "error")]

    def tail(self) -> str:
        """The end of the log, for a test that fails."""
        return "\n".join(map(json.dumps, self.log()[-40:]))

    def writes(self) -> list[str]:
        """What it wrote to the engine, as `METHOD path`."""
        return [
            f"{method} {path}" for method, path in list(self.proxy.requests) if method not in ("GET", "HEAD")
        ]

    def updates_to(self, image: str) -> list[Json]:
        """The updates it asked for that have this image."""
        return [spec for spec in self.proxy.updates if image_of(spec).partition("@")[0] == image]


@define
class Ring:
    """One cluster on a real Swarm, and the sides that write to it."""

    lab: Lab
    _stack: ExitStack
    sides: list[Side] = field(factory=list)

    def side(self, *, shares: Side | None = None) -> Side:
        """One more side; it has a records file of its own, or reads the one of another."""
        folder = self.lab.folder / f"side{len(self.sides)}"
        folder.mkdir()
        proxy = self._stack.enter_context(engine_proxy(self.lab.host, folder))
        lab = Lab(self.lab.host, folder, self.lab.prefix, environ={"COREFLOW_SETTLE_SECONDS": "5"})
        self._stack.callback(lab.client.close)
        self._stack.callback(lab.end)
        side = Side(lab, proxy, shares.records if shares is not None else lab.records)
        self.sides.append(side)
        return side

    def live(self, short: str) -> Json | None:
        """A service as the engine has it, if it is there."""
        try:
            return self.lab.inspect(short)
        except docker.errors.NotFound:
            return None

    def image(self, short: str) -> str:
        """The image that a service is to have, as the engine has it."""
        live = self.live(short)
        return image_of(live["Spec"]) if live else ""

    def env(self, short: str) -> list[str]:
        """The variables of a service."""
        live = self.live(short)
        return list(live["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env") or ()) if live else []

    def at_rest(self, *shorts: str) -> bool:
        """Whether Swarm has ended every roll-out, and all tasks run that are wanted."""
        return all(self.live(short) is not None and self.lab.at_rest(short) for short in shorts)

    def containers(self, short: str = "") -> list[str]:
        """The containers that run, of one service or of all."""
        name = self.lab.name(short)
        found = self.lab.client.containers(filters={"label": "com.docker.swarm.service.name"})
        labels = [
            (one["Id"], one["Labels"]["com.docker.swarm.service.name"])
            for one in found
            if one["State"] == "running"
        ]
        return [
            identity
            for identity, service in labels
            if (service == name if short else service.startswith(name))
        ]

    def kill_container(self, identity: str) -> bool:
        """`docker kill`; whether it was still there."""
        with suppress(docker.errors.APIError):
            self.lab.client.kill(identity)
            return True
        return False


def open_ring(host: str, folder: Path, prefix: str) -> Iterator[Ring]:
    """A ring that is cleaned up in the end."""
    for lab in open_lab(host, folder, prefix):
        with ExitStack() as stack:
            yield Ring(lab, stack)


def image_of(spec: Json) -> str:
    """The image of a service's spec."""
    image: str = spec["TaskTemplate"]["ContainerSpec"]["Image"]
    return image


@define
class Watch:
    """What a look at the tasks, five times a second, found."""

    lab: Lab
    shorts: Collection[str]
    fewest: dict[str, int] = field(factory=dict)
    most: dict[str, int] = field(factory=dict)
    looks: int = 0

    def look(self) -> None:
        """Count the tasks of each service that run, and the containers that there are for it."""
        self.looks += 1
        tasks = self.lab.client.tasks(filters={"name": self.lab.prefix})
        names = {s["ID"]: s["Spec"]["Name"] for s in self.lab.client.services()}
        for short in self.shorts:
            states = [
                t["Status"]["State"] for t in tasks if names.get(t["ServiceID"]) == self.lab.name(short)
            ]
            running = states.count("running")
            self.fewest[short] = min(self.fewest.get(short, running), running)
            self.most[short] = max(self.most.get(short, running), running)


@contextmanager
def watching(lab: Lab, shorts: Collection[str], hertz: float = 5) -> Iterator[Watch]:
    """Watch the tasks of these services, which run already, for as long as the block runs."""
    watch, stop = Watch(lab, shorts), threading.Event()
    broken: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.wait(1 / hertz):
                watch.look()
        except BaseException as exc:  # noqa: BLE001 - told to the test
            broken.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()
    if broken:
        raise broken[0]
